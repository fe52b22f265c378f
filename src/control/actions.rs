//! What people say and ask, beside their desired state: approvals, pauses, retries, forecasts, `why`. The API's side (`Operators`) sends messages; the
//! controller answers them in its own order.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use super::cache::{Pause, Stored};
use super::controller::{Controller, Message};
use crate::control::operator::{Control, Forecast, ForecastStep, PortRow, Refusal, Scope};
use crate::drivers::switch::resolve;
use crate::limits;
use crate::model::body::Phase;
use crate::model::fact::Tick;
use crate::model::op::{Device, Disruption, Op};
use crate::model::{Kind, Name, Object, Objects};
use crate::plan::fence;
use crate::plan::forecast::{self, Future};
use crate::plan::observed::{Approval, Observed};
use crate::plan::power::seconds;
use crate::plan::record::Record;
use crate::plan::{consent, plan};
use crate::store::{Expect, Store, keys};
use crate::telemetry::timestamp;

type Reply<T> = oneshot::Sender<T>;

#[derive(Debug)]
pub enum Ask {
    Forecast { changes: Vec<Object>, reply: Reply<Forecast> },
    Why { kind: Kind, name: Name, reply: Reply<Result<String, Refusal>> },
    Ports { reply: Reply<Vec<PortRow>> },
    Approve { binding: Name, adopt: bool, who: String, reply: Reply<Result<String, Refusal>> },
    Accept { kind: Kind, name: Name, who: String, reply: Reply<Result<String, Refusal>> },
    Retry { kind: Kind, name: Name, who: String, reply: Reply<Result<String, Refusal>> },
    Pause { scope: Scope, reason: String, seconds: Option<u64>, who: String, reply: Reply<Result<String, Refusal>> },
    Resume { scope: Scope, who: String, reply: Reply<Result<String, Refusal>> },
    MayDelete { kind: Kind, name: Name, reply: Reply<Result<(), Refusal>> },
}

/// An approval as it is stored.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Approved {
    approval: Approval,
    by: String,
    /// RFC 3339.
    at: String,
}

impl Approved {
    /// Until when it holds in this process: an hour from when it was given, by the wall clock, and never longer than an hour from now.
    pub fn restored(self, now: Tick) -> (Approval, Tick) {
        let given: Option<i64> = self.at.parse::<jiff::Timestamp>().ok().map(|t| t.as_second());
        let today: Option<i64> = timestamp().parse::<jiff::Timestamp>().ok().map(|t| t.as_second());
        let age = given.zip(today).and_then(|(given, today)| u64::try_from(today - given).ok());
        let left = age.map_or(Duration::ZERO, |age| limits::APPROVAL_FOR.saturating_sub(Duration::from_secs(age)));
        (self.approval, now.plus(left))
    }
}

/// The API's side. While this controller does not act there is no controller to ask.
pub struct Operators {
    pub controller: watch::Receiver<Option<mpsc::Sender<Message>>>,
    pub store: std::sync::Arc<dyn Store>,
    pub lease: &'static str,
}

impl Operators {
    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refusal> {
        let to_controller = self.controller.borrow().clone();
        let Some(to_controller) = to_controller else { return Err(self.not_leader().await) };
        let (reply, answer) = oneshot::channel();
        if to_controller.send(Message::Ask(make(reply))).await.is_err() {
            return Err(self.not_leader().await);
        }
        answer.await.map_err(|_| Refusal::Refused { why: "the controller was interrupted; ask again".to_owned() })
    }

    async fn not_leader(&self) -> Refusal {
        let leader = self.store.holder(self.lease).await.ok().flatten().unwrap_or_else(|| "nobody yet".to_owned());
        Refusal::NotLeader { leader }
    }
}

#[async_trait]
impl Control for Operators {
    async fn forecast(&self, changes: Vec<Object>) -> Forecast {
        match self.ask(|reply| Ask::Forecast { changes, reply }).await {
            Ok(forecast) => forecast,
            Err(refusal) => Forecast { problems: vec![refusal.to_string()], ..Forecast::default() },
        }
    }
    async fn why(&self, kind: Kind, name: &Name) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Why { kind, name: name.clone(), reply }).await?
    }
    async fn ports(&self) -> Vec<PortRow> {
        self.ask(|reply| Ask::Ports { reply }).await.unwrap_or_default()
    }
    async fn approve(&self, binding: &Name, adopt: bool, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Approve { binding: binding.clone(), adopt, who: who.to_owned(), reply }).await?
    }
    async fn accept(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Accept { kind, name: name.clone(), who: who.to_owned(), reply }).await?
    }
    async fn retry(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Retry { kind, name: name.clone(), who: who.to_owned(), reply }).await?
    }
    async fn pause(&self, scope: Scope, reason: &str, seconds: Option<u64>, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Pause { scope, reason: reason.to_owned(), seconds, who: who.to_owned(), reply }).await?
    }
    async fn resume(&self, scope: Scope, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Resume { scope, who: who.to_owned(), reply }).await?
    }
    async fn may_delete(&self, kind: Kind, name: &Name) -> Result<(), Refusal> {
        self.ask(|reply| Ask::MayDelete { kind, name: name.clone(), reply }).await?
    }
}

/// How many seconds from now an RFC 3339 moment is; 0 when it is past or does not read.
pub fn seconds_until(moment: &str) -> u64 {
    let Ok(until) = moment.parse::<jiff::Timestamp>() else { return 0 };
    let Ok(now) = timestamp().parse::<jiff::Timestamp>() else { return 0 };
    u64::try_from(until.as_second() - now.as_second()).unwrap_or(0)
}

impl Controller {
    pub(super) async fn answer(&mut self, ask: Ask) {
        // A reply that nobody waits for any more is no failure.
        match ask {
            Ask::Forecast { changes, reply } => {
                let otherwise = self.reached_otherwise(&changes);
                let (forecast, ops) = self.forecast(changes);
                self.add_writes(forecast, ops, &otherwise, reply);
            }
            Ask::Why { kind, name, reply } => drop(reply.send(self.why(kind, &name))),
            Ask::Ports { reply } => drop(reply.send(self.ports())),
            Ask::Approve { binding, adopt, who, reply } => drop(reply.send(self.approve(&binding, adopt, &who).await)),
            Ask::Accept { kind, name, who, reply } => drop(reply.send(self.accept(kind, &name, &who).await)),
            Ask::Retry { kind, name, who, reply } => drop(reply.send(self.retry(kind, &name, &who).await)),
            Ask::Pause { scope, reason, seconds, who, reply } => drop(reply.send(self.pause(scope, reason, seconds, who).await)),
            Ask::Resume { scope, who, reply } => drop(reply.send(self.resume(&scope, &who).await)),
            Ask::MayDelete { kind, name, reply } => drop(reply.send(self.may_delete(kind, &name))),
        }
    }

    // ---- forecast ------------------------------------------------------------------------------------------------------

    /// With `changes` laid over the desired state; a new object gets the uid that it would have: one of its own. And the operations of its steps.
    fn forecast(&self, changes: Vec<Object>) -> (Forecast, Vec<Op>) {
        let mut objects = self.cache.objects.clone();
        for mut change in changes {
            let present = objects.bindings.get(change.name()).filter(|_| change.kind() == Kind::Binding).map(|b| b.meta.clone());
            change.meta.uid = present.map_or_else(|| format!("new-{}", change.name()), |m| m.uid);
            objects.insert(&change);
        }
        let future = self.future(&objects);
        let mut servers: Vec<&Name> = future.steps.iter().map(|s| &s.server).collect();
        servers.sort();
        servers.dedup();
        let mut held: Vec<&Name> = future.steps.iter().filter(|s| s.held).map(|s| &s.server).collect();
        held.sort();
        held.dedup();
        let count = |d: Disruption| future.steps.iter().filter(|s| s.disruption == d).count();
        let forecast = Forecast {
            servers: servers.len(),
            link_flaps: count(Disruption::LinkFlap),
            power_offs: count(Disruption::PowerOff),
            held: held.len(),
            steps: future.steps.iter().map(foreseen).collect(),
            waits: future.waits.iter().map(|(server, w)| format!("{server}: {}", w.message)).collect(),
            problems: future.problems.iter().map(|(server, p)| format!("{server}: {}", p.message)).collect(),
        };
        (forecast, future.steps.into_iter().map(|s| s.step.op).collect())
    }

    fn future(&self, objects: &Objects) -> Future {
        let names = objects.servers.keys().chain(self.cache.bodies.keys());
        let mut servers: BTreeMap<Name, Observed> = BTreeMap::new();
        for name in names {
            if !servers.contains_key(name) {
                let want = self.cache.want_with(name, &self.cache.body(name), objects);
                servers.insert(name.clone(), self.cache.seen(name, &want));
            }
        }
        let want_of = |name: &Name, body: &crate::model::body::Body| self.cache.want_with(name, body, objects);
        forecast::forecast(servers, &want_of, self.clock.now())
    }

    // ---- why -----------------------------------------------------------------------------------------------------------

    fn why(&self, kind: Kind, name: &Name) -> Result<String, Refusal> {
        if !self.cache.objects.has(kind, name) {
            return Err(Refusal::NotFound { what: format!("{kind}/{name}") });
        }
        match kind {
            Kind::Binding => Ok(self.why_binding(name)),
            Kind::Server => Ok(self.why_server(name)),
            Kind::Switch => Ok(self.why_switch(name)),
            Kind::Persona => {
                let at: Vec<String> = self.cache.may_run(name).map(Name::to_string).collect();
                let bound: Vec<String> = self.cache.objects.bindings_of_persona(name).map(Name::to_string).collect();
                Ok(format!("Persona {name} is bound by {}; by evidence it may run on {}.", list(&bound), list(&at)))
            }
            Kind::Policy | Kind::Secret | Kind::Network => Ok(format!("{kind} {name} is a desired state; nothing is done to it.")),
        }
    }

    fn why_binding(&self, name: &Name) -> String {
        let Some(binding) = self.cache.objects.bindings.get(name) else { return String::new() };
        let Some(server) = &binding.spec.target.server else { return format!("Binding {name} names no server.") };
        if !self.cache.objects.servers.contains_key(server) {
            return format!("Binding {name} wants persona {} on server {server}, but there is no such server.", binding.spec.persona);
        }
        let mut text = format!("Binding {name} wants persona {} {:?} on server {server}. ", binding.spec.persona, binding.spec.state);
        text.push_str(&self.why_server(server));
        for (other, body) in &self.cache.bodies {
            if other != server && body.value.release.as_ref().is_some_and(|r| r.binding == *name) {
                text.push_str(&format!(" It has left {other}, which is still to be released: {}", self.why_server(other)));
            }
        }
        text
    }

    fn why_server(&self, server: &Name) -> String {
        let now = self.clock.now();
        let want = self.cache.want(server);
        let seen = self.cache.seen(server, &want);
        let plan = plan(&want, &seen, now);
        let mut text = match (&seen.power, &seen.bmc_trouble) {
            (_, Some(trouble)) => {
                let again = self.cache.bmcs.get(server).and_then(|facts| facts.known.again_at);
                format!("Its power is unknown: {}{}.", trouble.message, asked_again(again, now))
            }
            (Some(power), None) => format!("Its power is {}, asked {} ago.", power.value, seconds(now.since(power.asked_at))),
            (None, None) => "Its power was not seen yet.".to_owned(),
        };
        let runs: Vec<String> = seen.body.may_run.iter().map(|(p, phase)| format!("{p} ({})", phase_in_words(*phase))).collect();
        if !runs.is_empty() {
            text.push_str(&format!(" By evidence it may run {}.", list(&runs)));
        }
        let busy: Vec<String> = self.in_flight.iter().filter(|(_, s)| *s == server).map(|(op, _)| op.to_string()).collect();
        if !busy.is_empty() {
            text.push_str(&format!(" In flight: {}.", list(&busy)));
        }
        for problem in &plan.problems {
            text.push_str(&format!(
                " Problem: {} [{}, {}:{}].",
                problem.message,
                problem.reason,
                problem.decided_at.file(),
                problem.decided_at.line()
            ));
        }
        for wait in &plan.waits {
            text.push_str(&format!(
                " It waits: {} [{}, {}:{}].",
                wait.message,
                wait.reason,
                wait.decided_at.file(),
                wait.decided_at.line()
            ));
        }
        for step in plan.steps.iter().chain(&plan.held).filter(|s| !self.in_flight.contains_key(&s.op)) {
            match self.guardrails.contended(server, &step.op, now) {
                Some((trouble, again)) => {
                    text.push_str(&format!(" It waits: {} [{}], for {}.", trouble.message, trouble.reason, seconds(again.since(now))))
                }
                None => text.push_str(&format!(" Next: {} ({}).", step.op, step.because)),
            }
        }
        for failure in self.failures.iter().filter(|((s, _), f)| s == server && f.again_at > now).map(|(_, f)| f) {
            text.push_str(&format!(
                " Failed {} times: {}; next try in {}.",
                failure.count,
                failure.trouble.message,
                seconds(failure.again_at.since(now))
            ));
        }
        if let Some(at) = plan.wake_at.filter(|at| *at > now) {
            text.push_str(&format!(" It is observed again in {} at the latest.", seconds(at.since(now))));
        }
        if want.holder.is_none() && seen.body.release.is_none() {
            text.push_str(" No binding names it: it is left as it is.");
        } else if plan.is_converged() && busy.is_empty() {
            text.push_str(" Everything is as desired.");
        }
        text
    }

    fn why_switch(&self, name: &Name) -> String {
        let known = self.cache.switches.get(name);
        match known {
            Some(known) => match (&known.trouble, &known.seen) {
                (Some(trouble), _) => {
                    let again = asked_again(known.again_at, self.clock.now());
                    format!("Switch {name}: {} (since {}){again}.", trouble.message, known.trouble_since)
                }
                (None, Some(seen)) => format!(
                    "Switch {name} is read by the profile {}, {} ports, asked {} ago.",
                    seen.value.profile,
                    seen.value.ports.len(),
                    seconds(self.clock.now().since(seen.asked_at))
                ),
                (None, None) => format!("Switch {name} was not seen yet."),
            },
            None => format!("Switch {name} was not seen yet."),
        }
    }

    // ---- ports ---------------------------------------------------------------------------------------------------------

    fn ports(&self) -> Vec<PortRow> {
        let mut rows: BTreeMap<(Name, String), PortRow> = BTreeMap::new();
        for (switch, held) in &self.cache.objects.switches {
            let Some(seen) = self.cache.switches.get(switch).and_then(|k| k.seen.as_ref()) else { continue };
            for (port, found) in seen.value.ports.iter().filter(|(p, _)| held.spec.manages(p)) {
                let row = PortRow {
                    switch: switch.clone(),
                    port: port.clone(),
                    link: format!("{:?}", found.oper),
                    want: None,
                    have: Some(found.config.to_string()),
                    wired_to: None,
                    note: None,
                };
                rows.insert((switch.clone(), port.clone()), row);
            }
        }
        for server in self.cache.objects.servers.keys() {
            self.wires_of(server, &mut rows);
        }
        rows.into_values().collect()
    }

    fn wires_of(&self, server: &Name, rows: &mut BTreeMap<(Name, String), PortRow>) {
        let Some(held) = self.cache.objects.servers.get(server) else { return };
        let want = self.cache.want(server);
        let seen = self.cache.seen(server, &want);
        let nics = held.spec.nics.iter().filter_map(|n| Some((&n.name, n.switch.as_ref()?, n.port.as_ref()?)));
        let bonds = held.spec.bonds.iter().flat_map(|b| b.attach.iter().map(move |a| (&b.name, &a.switch, &a.port)));
        for (nic, switch, port) in nics.chain(bonds) {
            let facts = self.cache.switches.get(switch).and_then(|k| k.seen.as_ref()).map(|s| &s.value);
            let key = facts.and_then(|f| resolve(f, port).ok()).unwrap_or(port.as_str()).to_owned();
            let found = facts.and_then(|f| f.ports.get(&key));
            let at = (switch.clone(), key.clone());
            let row = rows.entry(at.clone()).or_insert_with(|| PortRow {
                switch: switch.clone(),
                port: key,
                link: found.map_or_else(|| "Unknown".to_owned(), |f| format!("{:?}", f.oper)),
                want: None,
                have: found.map(|f| f.config.to_string()),
                wired_to: None,
                note: None,
            });
            row.wired_to = Some(format!("{server}/{nic}"));
            let desired = match &want.holder {
                Some(holder) => holder.ports.get(&at),
                None => want.released_ports.get(&at).filter(|_| seen.body.release.is_some()),
            };
            row.want = desired.and_then(|w| found.map(|f| w.over(&f.config).to_string()));
            row.note = seen.ports.get(&at).and_then(|p| p.refuse.as_ref()).map(|t| t.message.clone());
        }
    }

    // ---- words of people -----------------------------------------------------------------------------------------------

    async fn approve(&mut self, binding: &Name, adopt: bool, who: &str) -> Result<String, Refusal> {
        let held = self.cache.objects.bindings.get(binding).ok_or_else(|| Refusal::NotFound { what: format!("Binding/{binding}") })?;
        let (uid, generation) = (held.meta.uid.clone(), held.meta.generation);
        let server = held.spec.target.server.clone().ok_or_else(|| Refusal::Refused { why: "it names no server".to_owned() })?;
        let persona = held.spec.persona.clone();
        if adopt {
            return self.adopt(binding, &server, &persona, who).await;
        }
        let future = self.future(&self.cache.objects);
        let mine = future.steps.iter().filter(|s| s.step.binding == *binding);
        let ops: std::collections::BTreeSet<String> = mine.map(|s| consent::signature(&s.step.op)).collect();
        if ops.is_empty() {
            let waits: Vec<String> = future.waits.iter().filter(|(s, _)| *s == server).map(|(_, w)| w.message.clone()).collect();
            let why = if waits.is_empty() {
                "nothing of it waits for an approval".to_owned()
            } else {
                format!("nothing can be planned yet: {}", list(&waits))
            };
            return Err(Refusal::Refused { why });
        }
        let what: Vec<String> = ops.iter().cloned().collect();
        let approval = Approval { uid, generation, ops };
        let approved = Approved { approval: approval.clone(), by: who.to_owned(), at: timestamp() };
        self.put(&keys::approval(binding), serde_json::to_vec(&approved).unwrap_or_default()).await?;
        self.cache.approvals.insert(binding.clone(), (approval, self.clock.now().plus(limits::APPROVAL_FOR)));
        self.cache.stopped_by_guardrails.remove(&server);
        self.event("Normal", &format!("Binding/{binding}"), "Approved", &format!("by {who}: {}", list(&what))).await;
        self.wake_binding(binding);
        Ok(format!("approved for an hour, for this generation of {binding}: {}", list(&what)))
    }

    async fn adopt(&mut self, binding: &Name, server: &Name, persona: &Name, who: &str) -> Result<String, Refusal> {
        let want = self.cache.want(server);
        let seen = self.cache.seen(server, &want);
        let Some(holder) = want.holder.as_ref().filter(|h| h.authority.binding == *binding) else {
            return Err(Refusal::Refused {
                why: format!("binding {binding} does not hold server {server}; `embody why {binding}` says why"),
            });
        };
        let record = fence::adopt(holder, &seen).map_err(|p| Refusal::Refused { why: p.message })?;
        if !self.record(server, &[record]).await {
            return Err(Refusal::Store { why: "it was not stored; try again".to_owned() });
        }
        let message = format!("{who} declares that server {server} runs persona {persona}");
        self.event("Normal", &format!("Binding/{binding}"), "Adopted", &message).await;
        self.wake(server);
        Ok(format!("server {server} is taken to run persona {persona} already; it is not switched off"))
    }

    async fn accept(&mut self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        let shown = match kind {
            Kind::Server => self.cache.bmcs.get(name).and_then(|f| f.known.seen.as_ref()).map(|s| s.value.shown.clone()),
            Kind::Switch => self.cache.switches.get(name).and_then(|k| k.seen.as_ref()).map(|s| s.value.shown.clone()),
            Kind::Policy | Kind::Secret | Kind::Network | Kind::Persona | Kind::Binding => None,
        };
        let Some(pin) = shown else { return Err(Refusal::Refused { why: format!("{kind} {name} shows no identity now") }) };
        let revision = self.put(&keys::pin(kind, name), serde_json::to_vec(&pin).unwrap_or_default()).await?;
        self.cache.pins.insert((kind, name.clone()), Stored { value: pin.clone(), revision });
        self.event("Normal", &format!("{kind}/{name}"), "Accepted", &format!("by {who}: {pin}")).await;
        let device = if kind == Kind::Server { Device::Bmc(name.clone()) } else { Device::Switch(name.clone()) };
        self.retry_device(&device);
        Ok(format!("{kind} {name} is {pin} from now on"))
    }

    async fn retry(&mut self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        if !self.cache.objects.has(kind, name) {
            return Err(Refusal::NotFound { what: format!("{kind}/{name}") });
        }
        let servers: Vec<Name> = match kind {
            Kind::Server => vec![name.clone()],
            Kind::Switch => {
                self.retry_device(&Device::Switch(name.clone()));
                self.cache.objects.servers_on_switch(name).cloned().collect()
            }
            Kind::Binding => self.cache.objects.bindings.get(name).and_then(|b| b.spec.target.server.clone()).into_iter().collect(),
            Kind::Policy | Kind::Secret | Kind::Network | Kind::Persona => {
                return Err(Refusal::Refused { why: format!("there is nothing to retry for a {kind}") });
            }
        };
        for server in &servers {
            self.failures.retain(|(s, _), _| s != server);
            self.guardrails.forget_corrections(server);
            let memory = self.cache.memory_of(server);
            memory.on_tries = 0;
            memory.on_sent_at = None;
            if self.cache.body(server).off.is_some() {
                self.record(server, &[Record::OffDone]).await;
            }
            if kind != Kind::Switch {
                self.retry_device(&Device::Bmc(server.clone()));
            }
            self.wake(server);
        }
        self.guardrails.lift();
        self.event("Normal", &format!("{kind}/{name}"), "Retry", &format!("by {who}")).await;
        Ok(format!("{kind} {name}: failures are forgotten, it is observed now"))
    }

    async fn pause(&mut self, scope: Scope, reason: String, seconds: Option<u64>, who: String) -> Result<String, Refusal> {
        if let Scope::Object { kind, name } = &scope
            && !self.cache.objects.has(*kind, name)
        {
            return Err(Refusal::NotFound { what: format!("{kind}/{name}") });
        }
        let until_text = seconds.and_then(|s| {
            let now: jiff::Timestamp = timestamp().parse().ok()?;
            jiff::Timestamp::from_second(now.as_second().saturating_add(i64::try_from(s).ok()?)).ok().map(|t| t.to_string())
        });
        let pause = Pause { scope: scope.clone(), reason, by: who, since: timestamp(), until: until_text.clone() };
        let id = pause_id(&scope);
        self.put(&keys::pause(&id), serde_json::to_vec(&pause).unwrap_or_default()).await?;
        let until: Option<Tick> = seconds.map(|s| self.clock.now().plus(Duration::from_secs(s)));
        self.event("Normal", &id, "Paused", &format!("by {}: {}", pause.by, pause.reason)).await;
        self.cache.pauses.insert(id, (pause, until));
        self.wake_all();
        Ok(match until_text {
            Some(until) => format!("paused until {until}: nothing is written, everything is still watched"),
            None => "paused until resumed: nothing is written, everything is still watched".to_owned(),
        })
    }

    async fn resume(&mut self, scope: &Scope, who: &str) -> Result<String, Refusal> {
        let ids: Vec<String> = match scope {
            Scope::Everything => self.cache.pauses.keys().cloned().collect(),
            Scope::Object { .. } | Scope::Labels { .. } => vec![pause_id(scope)],
        };
        let mut resumed = 0;
        for id in ids {
            if self.cache.pauses.remove(&id).is_some() {
                resumed += 1;
                let key = keys::pause(&id);
                if let Some(entry) = self.store.get(&key).await.map_err(in_words)? {
                    self.store.delete_if(&key, entry.revision).await.map_err(in_words)?;
                }
                self.event("Normal", &id, "Resumed", &format!("by {who}")).await;
            }
        }
        if resumed == 0 && *scope != Scope::Everything {
            return Err(Refusal::Refused { why: "that is not paused".to_owned() });
        }
        let lift = *scope == Scope::Everything && self.cache.breaker.is_some();
        self.guardrails.lift();
        self.wake_all();
        let breaker = if lift { "; correction goes on after the breaker" } else { "" };
        let pauses = if resumed == 1 { "1 pause" } else { &format!("{resumed} pauses") };
        Ok(format!("{pauses} ended{breaker}"))
    }

    fn may_delete(&self, kind: Kind, name: &Name) -> Result<(), Refusal> {
        if kind == Kind::Server {
            let body = self.cache.body(name);
            if let Some(persona) = body.may_run.keys().next() {
                let why = format!("by evidence server {name} may still run persona {persona}; stop it first (state: Stopped)");
                return Err(Refusal::Refused { why });
            }
        }
        Ok(())
    }

    async fn put(&mut self, key: &str, value: Vec<u8>) -> Result<u64, Refusal> {
        let present = self.store.get(key).await.map_err(in_words)?;
        let expect = present.map_or(Expect::Absent, |e| Expect::At(e.revision));
        self.store.put_if(key, value, expect).await.map_err(in_words)
    }
}

fn in_words(error: crate::store::StoreError) -> Refusal {
    Refusal::Store { why: error.to_string() }
}

/// One pause for each scope: pausing again replaces it.
fn pause_id(scope: &Scope) -> String {
    match scope {
        Scope::Everything => "everything".to_owned(),
        Scope::Object { kind, name } => format!("{}.{name}", kind.plural()),
        Scope::Labels { match_labels } => {
            let text: Vec<String> = match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let hex: String = text.join(",").bytes().map(|b| format!("{b:02x}")).collect();
            format!("labels.{hex}")
        }
    }
}

fn foreseen(step: &forecast::Foreseen) -> ForecastStep {
    ForecastStep {
        wave: step.wave,
        server: step.server.clone(),
        op: step.step.op.to_string(),
        disruption: step.disruption.to_string(),
        because: step.step.because.clone(),
        writes: Vec::new(),
    }
}

fn phase_in_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Answered => "its boot answer stands",
        Phase::Armed => "seen off since its boot answer stands",
        Phase::Started => "its start was seen",
        Phase::Withdrawn => "its boot answer was withdrawn, the server was not seen off since",
    }
}

/// When a device that fails is asked again.
fn asked_again(at: Option<Tick>, now: Tick) -> String {
    match at {
        Some(at) if at > now => format!("; it is tried again in {}", seconds(at.since(now))),
        Some(_) => "; it is being tried again".to_owned(),
        None => String::new(),
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
