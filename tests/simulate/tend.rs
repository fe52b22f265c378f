//! What a diligent person does about what the status says, once everything is calm.

use std::collections::BTreeSet;
use std::time::Duration;

use embody::testing::control::operator::{Approving, Control, Declaring};
use embody::testing::model::fact::Power;
use embody::testing::model::{Kind, Name, Object};
use embody::testing::sim::centre::Runs;
use serde_json::Value;

use crate::operators::{Operators, name, server, switch};
use crate::people::listed;

impl Operators {
    /// What a diligent person does about what the status says. How much that was.
    pub async fn tend(&mut self) -> usize {
        let mut done = self.tend_site().await + self.import().await;
        let mut silent = Vec::new();
        for n in self.desired.keys() {
            let Ok(object) = self.backend.read(Kind::Binding, &format!("b{n}")).await else { continue };
            let said = said(&object);
            let held = said.iter().any(|(reason, _)| reason == "Held");
            done += self.approve_as_they_say(said.iter().map(|(_, message)| message.as_str())).await;
            if held {
                self.approve(*n).await;
                done += 1;
            }
            let by_hand = said
                .iter()
                .find_map(|(_, m)| m.strip_prefix("server s").filter(|m| m.contains("by hand"))?.split(':').next()?.parse().ok());
            if let Some(server) = by_hand {
                self.switch_off_by_hand(server);
                done += 1;
            }
            // `server s1 is on without an answer of embody's, and its disk holds persona p0: switch it off`
            let stray = |m: &str| m.split_once(" is on without an answer of embody's")?.0.rsplit_once("server s")?.1.parse().ok();
            for server in said.iter().filter_map(|(_, message)| stray(message)) {
                self.switch_off_by_hand(server);
                done += 1;
            }
            if said.iter().any(|(r, _)| ["NoHello", "NoBootRequest"].contains(&r.as_str())) {
                // Once, until that is done.
                let done = object.status["restarted"].as_u64().unwrap_or_default();
                silent.extend((done == self.desired[n].restart).then_some(*n));
            }
            if said.iter().any(|(reason, _)| reason == "BootsOnce") {
                self.boot_once(self.desired[n].server, None).await;
                done += 1;
            }
            if said.iter().any(|(r, _)| ["DoesNotSwitchOff", "DoesNotSwitchOn", "Contended"].contains(&r.as_str())) {
                self.retry(*n).await;
                done += 1;
            }
        }
        done += self.restart_what_is_silent(&silent).await;
        done += self.tend_devices().await;
        // A body that nobody holds any more says on its server what its release waits for.
        for n in 0..self.plan.machines.len() {
            let Ok(object) = self.backend.read(Kind::Server, server(n).as_str()).await else { continue };
            let duties = object.status.get("obligations").and_then(Value::as_array).cloned().unwrap_or_default();
            let duties: Vec<&str> = duties.iter().filter_map(Value::as_str).collect();
            done += self.approve_as_they_say(duties.iter().copied()).await;
            if duties.iter().any(|d| d.contains("`embody retry`")) {
                self.centre.judge(|judge, _| judge.retrying(Kind::Server, &server(n)));
                let _ = self.words.retry(Kind::Server, &server(n), "a person").await;
                self.centre.note(&[&server(n)], "a person says retry");
                done += 1;
            }
        }
        // What runs on a body that nobody holds, and is desired elsewhere, is switched off by hand: embody says so, and may not.
        for n in 0..self.plan.machines.len() {
            let body = self.centre.judge(|judge, _| judge.body(&server(n)));
            // A root or an address of its persona may be desired under another name.
            let in_the_way = self.in_the_way(n).await;
            let nobodys = self.on(n).is_none() && body.held_by.is_none() && body.release.is_none();
            let desired = |p: &Name| self.desired.values().any(|w| p.as_str() == format!("p{}", w.persona));
            let holds = body.evidence.keys().any(desired) || matches!(self.centre.runs(&server(n)), Some(Runs::Persona(p)) if desired(&p));
            let stale = in_the_way && (self.is_stale(n).await || self.has_moved(n));
            if ((nobodys && (holds || in_the_way)) || stale) && self.centre.power(&server(n)) == Some(Power::On) {
                self.centre.note(&[&server(n)], "a person switches it off, since its persona is desired elsewhere");
                self.button(n);
                done += 1;
            }
        }
        done
    }

    /// The commands that messages name. How many those were.
    async fn approve_as_they_say<'a>(&self, messages: impl Iterator<Item = &'a str>) -> usize {
        let named: BTreeSet<(usize, bool)> =
            messages.filter_map(|message| Some((named_approval(message)?, message.contains(" --hard`")))).collect();
        for (binding, hard) in &named {
            match hard {
                true => self.approve_hard(*binding).await,
                false => self.approve(*binding).await,
            }
        }
        named.len()
    }

    fn switch_off_by_hand(&self, n: usize) {
        if self.centre.power(&server(n)) == Some(Power::On) {
            self.centre.note(&[&server(n)], "a person switches it off, as it says");
            self.button(n);
        }
    }

    /// Whether a binding waits for what this server may run.
    async fn in_the_way(&self, n: usize) -> bool {
        for of in self.desired.keys() {
            let Ok(object) = self.backend.read(Kind::Binding, &format!("b{of}")).await else { continue };
            if said(&object).iter().any(|(reason, message)| {
                let waits = reason == "PersonaElsewhere" || reason == "TakeoverNotPossible";
                waits && [format!(" on s{n} ("), format!(" on s{n}: ")].iter().any(|there| message.contains(there))
            }) {
                return true;
            }
        }
        false
    }

    /// Whether what runs on a server is not what its binding says now: it is started anew once it is off.
    async fn is_stale(&self, n: usize) -> bool {
        let Some(binding) = self.on(n) else { return false };
        let object = self.backend.read(Kind::Binding, &format!("b{binding}")).await;
        object.is_ok_and(|o| {
            o.status["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "UpToDate" && c["status"] == "False")
        })
    }

    /// Whether the binding that still holds a server is to be somewhere else: those who wait for each other are helped by hand.
    fn has_moved(&self, n: usize) -> bool {
        let body = self.centre.judge(|judge, _| judge.body(&server(n)));
        body.held_by.is_some_and(|hold| self.on(n).is_none_or(|of| hold.binding != name(&format!("b{of}"))))
    }

    /// A pause that nobody ended, and a store that nobody accepted.
    async fn tend_site(&self) -> usize {
        let Ok(policy) = self.backend.read(Kind::Policy, "default").await else { return 0 };
        let mut said_of_all = reasons(&policy);
        for n in self.desired.keys() {
            if let Ok(object) = self.backend.read(Kind::Binding, &format!("b{n}")).await {
                said_of_all.extend(said(&object).into_iter().map(|(reason, _)| reason));
            }
        }
        let mut done = 0;
        if said_of_all.contains("Paused") {
            self.resume_all().await;
            done += 1;
        }
        if said_of_all.contains("BreakerOpen") {
            self.close_breaker().await;
            done += 1;
        }
        if said_of_all.contains("StoreWentBackwards") {
            self.accept_store().await;
            done += 1;
        }
        done
    }

    /// Devices that are not those that are remembered, and bodies of which nothing is known.
    async fn tend_devices(&self) -> usize {
        let mut done = self.retry_switches().await;
        for n in 0..self.plan.machines.len() {
            let Ok(object) = self.backend.read(Kind::Server, server(n).as_str()).await else { continue };
            if reasons(&object).contains("IdentityChanged") {
                self.take_as_it_is(n).await;
                done += 1;
            }
            let unknown = self.words.why(Kind::Server, &server(n)).await.is_ok_and(|why| why.contains("so it may run anything"));
            if unknown && self.centre.power(&server(n)) == Some(Power::On) {
                self.centre.note(&[&server(n)], "a person switches it off, since nothing is known of it");
                self.button(n);
                done += 1;
            }
        }
        for n in 0..self.plan.switches() {
            let Ok(object) = self.backend.read(Kind::Switch, switch(n).as_str()).await else { continue };
            if reasons(&object).contains("IdentityChanged") {
                self.accept(Kind::Switch, &switch(n)).await;
                done += 1;
            }
        }
        done
    }

    /// Switches that refused to be written: whoever gave that right back says what is named.
    async fn retry_switches(&self) -> usize {
        let mut named: BTreeSet<Name> = BTreeSet::new();
        for kind in [Kind::Binding, Kind::Server, Kind::Switch] {
            for object in listed(&self.backend, kind).await {
                let text = object.status.to_string();
                named.extend(text.split("`embody retry switch ").skip(1).filter_map(|rest| rest.split('`').next()?.parse::<Name>().ok()));
            }
        }
        for switch in &named {
            self.centre.judge(|judge, _| judge.retrying(Kind::Switch, switch));
            let said = self.words.retry(Kind::Switch, switch, "a person").await;
            self.centre.note(&[switch], format!("a person says retry: {}", said.unwrap_or_else(|e| e.to_string())));
        }
        named.len()
    }

    /// Another BMC answers there: it is accepted, and where what ran there is in doubt its power is cut first, and that is said.
    async fn take_as_it_is(&self, n: usize) {
        if self.accept(Kind::Server, &server(n)).await {
            return;
        }
        if self.centre.power(&server(n)) == Some(Power::On) {
            self.button(n);
        }
        self.declare(n, Declaring::Off).await;
        self.accept(Kind::Server, &server(n)).await;
    }

    pub(crate) async fn accept(&self, kind: Kind, name: &Name) -> bool {
        let said = self.words.accept(kind, name, "a person").await;
        let good = said.is_ok();
        self.centre.note(&[name], format!("a person accepts: {}", said.unwrap_or_else(|e| e.to_string())));
        good
    }

    pub(crate) async fn declare(&self, n: usize, what: Declaring) -> bool {
        let said = self.words.declare(&server(n), what, "it is so", "a person").await;
        let good = said.is_ok();
        self.centre.note(&[&server(n)], format!("a person declares {what:?}: {}", said.unwrap_or_else(|e| e.to_string())));
        good
    }

    pub(crate) async fn approve_hard(&self, n: usize) {
        let binding = name(&format!("b{n}"));
        self.centre.judge(|judge, now| {
            judge.hard_allowed(&binding, now);
            judge.approved(&binding);
        });
        let said = self.say_yes(&binding, Approving::Hard).await;
        self.centre.note(&[&binding], format!("a person approves, hard: {}", said.unwrap_or_else(|e| e.to_string())));
    }
}

/// The reasons of all conditions that do not hold.
fn reasons(object: &Object) -> BTreeSet<String> {
    let all = object.status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter().filter(|c| c["status"] != "True").filter_map(|c| c["reason"].as_str().map(str::to_owned)).collect()
}

/// What the status of a binding says of why it does not go on: reason and message.
fn said(object: &Object) -> Vec<(String, String)> {
    let list = |key: &str| object.status.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let stalled = list("conditions").into_iter().filter(|c| text(c, "type") == "Stalled" && text(c, "status") == "True");
    stalled.chain(list("waits")).map(|v| (text(&v, "reason"), text(&v, "message"))).collect()
}

/// The binding that a message asks a person to approve.
fn named_approval(message: &str) -> Option<usize> {
    message.split_once("`embody approve b")?.1.split(['`', ' ']).next()?.parse().ok()
}

pub const TEND_EVERY: Duration = Duration::from_secs(60);
