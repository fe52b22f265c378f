//! `why` and `get ports`: what is known, decided and waited for, in sentences made fresh at each question.
//!
//! Leaves out: deciding. Invariant: every wait names its reason and the source line that decided it, and every way out that it names between
//! backquotes is a whole command.

use std::collections::{BTreeMap, BTreeSet};

use super::actions::list;
use super::controller::Controller;
use super::operator::{PortRow, Refusal};
use super::status;
use super::status_writer::{NOT_REACHED, SiteCondition};
use crate::drivers::switch::resolve;
use crate::model::body::{Body, Declaration, Declared, Evidence, Hold, Phase};
use crate::model::fact::{Power, Tick};
use crate::model::op::Op;
use crate::model::{Kind, Name};
use crate::plan::desired::Desired;
use crate::plan::observed::Observed;
use crate::plan::power::seconds;
use crate::plan::starting;
use crate::plan::{Plan, plan};

impl Controller {
    // ---- why -----------------------------------------------------------------------------------------------------------

    pub(super) fn why(&self, kind: Kind, name: &Name) -> Result<String, Refusal> {
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
                Ok(format!(
                    "Persona {name} is bound by {}; by evidence it may run on {}.{}",
                    list(&bound),
                    list(&at),
                    self.why_rollout(name)
                ))
            }
            Kind::Policy | Kind::Secret | Kind::Network => Ok(format!("{kind} {name} is what is desired; nothing is done to it.")),
        }
    }

    fn why_binding(&self, name: &Name) -> String {
        let Some(binding) = self.cache.objects.bindings.get(name) else { return String::new() };
        let Some(server) = &binding.spec.target.server else { return format!("Binding {name} names no server.") };
        let mut text = format!("Binding {name} wants persona {} {:?} on server {server}", binding.spec.persona, binding.spec.state);
        text.push_str(&match self.cache.objects.servers.contains_key(server) {
            true => format!(". {}", self.why_server(server)),
            false => format!(", but there is no such server: nothing is done for it [{}].", crate::model::Reason::ServerMissing),
        });
        let is_its = |hold: &Option<Hold>| hold.as_ref().is_some_and(|h| h.binding == *name);
        for (other, body) in self.cache.bodies.iter().filter(|(other, _)| *other != server) {
            if is_its(&body.value.release) {
                text.push_str(&format!(" It has left {other}, which is still to be released: {}", self.why_server(other)));
            } else if is_its(&body.value.held_by) {
                text.push_str(&format!(" It is still on {other}: {}", self.why_server(other)));
            }
        }
        text
    }

    fn why_server(&self, server: &Name) -> String {
        let now = self.clock.now();
        let want = self.cache.want(server);
        let seen = self.cache.seen(server, &want);
        let plan = plan(&want, &seen, now);
        let mut text = self.why_power(server, &seen, now);
        if let Some(stop) = self.cache.site_stop() {
            text.push_str(&format!(" The whole site stands still: {} [{}].", stop.message, stop.reason));
        }
        let runs: Vec<String> = seen.body.evidence.iter().map(|(p, e)| format!("{p} ({})", in_words(e))).collect();
        if !runs.is_empty() {
            text.push_str(&format!(" By evidence it may run {}.", list(&runs)));
        }
        if let Some(declared) = &seen.body.declared {
            text.push_str(&format!(" {}", declared_in_words(declared)));
        }
        if let Some(told) = self.booting.timelines().told(server, tokio::time::Instant::now()) {
            text.push_str(&format!(" Its last start: {told}."));
        }
        text.push_str(&failed_units(&seen.body));
        text.push_str(&heard(&want, &seen, now));
        text.push_str(&self.why_not_booted(&want, &seen));
        let busy: Vec<String> = self.in_flight.of_server(server).map(ToString::to_string).collect();
        if !busy.is_empty() {
            text.push_str(&format!(" In flight: {}.", list(&busy)));
        }
        let problems = plan.problems.iter().map(|p| ("Problem", &p.message, p.reason, p.decided_at));
        let waits = plan.waits.iter().map(|w| ("It waits", &w.message, w.reason, w.decided_at));
        for (word, message, reason, at) in problems.chain(waits) {
            text.push_str(&format!(" {word}: {message} [{reason}, {}:{}].", at.file(), at.line()));
        }
        // The one that is met first hides the others, and what is in order meets none.
        let said: BTreeSet<&String> = plan.waits.iter().map(|wait| &wait.message).collect();
        let acting = self.cache.acting(server, &want);
        for stop in acting.iter().flat_map(|binding| self.cache.stops(server, binding)).filter(|stop| !said.contains(&stop.message)) {
            text.push_str(&format!(" Stopped: {} [{}].", stop.message, stop.reason));
        }
        for step in plan.steps.iter().chain(&plan.held).filter(|s| !self.in_flight.contains(&s.op)) {
            match self.guardrails.contended(server, &step.op, now) {
                Some((trouble, again)) => {
                    text.push_str(&format!(" It waits: {} [{}], for {}.", trouble.message, trouble.reason, seconds(again.since(now))))
                }
                None => text.push_str(&format!(" Next: {} ({}).", step.op, step.because)),
            }
        }
        text.push_str(&self.why_later(server, &plan, now));
        if let Some(at) = plan.wake_at.filter(|at| *at > now) {
            text.push_str(&format!(" It is observed again in {} at the latest.", seconds(at.since(now))));
        }
        if want.holder.is_none() && seen.body.release.is_none() {
            text.push_str(" No binding names it: it is left as it is.");
        } else if plan.is_converged() && busy.is_empty() && seen.bmc_trouble.is_none() && seen.power.is_some() {
            let outdated = want.holder.as_ref().and_then(|holder| status::outdated(holder, &seen));
            text.push_str(
                &outdated.map_or_else(|| " Everything is as desired.".to_owned(), |why| format!(" All else is as desired: {why}.")),
            );
        }
        text
    }

    /// Which limits and which failures keep its steps from being taken now.
    fn why_later(&self, server: &Name, plan: &Plan, now: Tick) -> String {
        let mut text = String::new();
        let (objects, limits) = (&self.cache.objects, &self.cache.objects.policy().limits);
        let full = self.in_flight.full_for(server, limits).into_iter().map(|full| full.to_string());
        let full = full.chain(self.guardrails.waits(server, objects.running(), limits));
        for limit in full.filter(|_| !plan.steps.is_empty()) {
            text.push_str(&format!(" It waits: {limit} [{}].", crate::model::Reason::Limit));
        }
        let shared = plan.steps.iter().map(|step| &step.op).filter(|op| matches!(op, Op::CreateVlan { .. }));
        let shared = shared.filter_map(|op| self.in_flight.waits(server, op, now));
        for failure in self.in_flight.failures_of(server, now).chain(shared) {
            text.push_str(&format!(
                " Failed {}: {}; next try in {}.",
                if failure.count == 1 { "once".to_owned() } else { format!("{} times", failure.count) },
                failure.trouble.message,
                seconds(failure.again_at.since(now))
            ));
        }
        text
    }

    /// What keeps a machine that was started from coming up, on our side.
    fn why_not_booted(&self, want: &Desired, seen: &Observed) -> String {
        let Some(holder) = want.holder.as_ref().filter(|holder| holder.fetches && seen.is(Power::On)) else { return String::new() };
        let waits = seen.body.evidence.get(&holder.persona).is_some_and(|e| e.stands() && e.run.is_none());
        if !waits {
            return String::new();
        }
        let persona = self.cache.objects.personas.get(&holder.persona);
        let network = persona.and_then(|held| held.spec.nics.iter().find(|nic| nic.boot)?.untagged.clone()).map(|name| format!("{name} ("));
        // A network that nobody reaches concerns those that boot over it.
        let concerns =
            |word: &SiteCondition| word.reason != NOT_REACHED || network.as_ref().is_some_and(|name| word.message.contains(name));
        let troubles = self
            .status
            .boot_troubles()
            .into_iter()
            .filter(concerns)
            .map(|word| format!(" Boot services: {} [{}].", word.message, word.reason));
        // The MAC address of a manifest may have a slip of the finger in it.
        let others = self.discovered().len();
        let others = (others > 0).then(|| format!(" Of machines that no manifest names, {others} asked: `embody get discovered`."));
        troubles.chain(others).collect()
    }

    fn why_power(&self, server: &Name, seen: &Observed, now: Tick) -> String {
        let again = asked_again(self.cache.bmcs.get(server).and_then(|facts| facts.known.again_at), now);
        match (&seen.power, &seen.bmc_trouble) {
            (Some(power), Some(trouble)) => format!(
                "Its power is unknown: {}{again}. It was last answered {}, {} ago.",
                trouble.message,
                power.value,
                seconds(now.since(power.asked_at))
            ),
            (None, Some(trouble)) => format!("Its power is unknown: {}{again}.", trouble.message),
            (Some(power), None) => format!("Its power is {}, asked {} ago.", power.value, seconds(now.since(power.asked_at))),
            (None, None) => "Its power was not seen yet.".to_owned(),
        }
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

    pub(super) fn ports(&self) -> Vec<PortRow> {
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
}

/// When a device that fails is asked again.
fn asked_again(at: Option<Tick>, now: Tick) -> String {
    match at {
        Some(at) if at > now => format!("; it is tried again in {}", seconds(at.since(now))),
        Some(_) => "; it is being tried again".to_owned(),
        None => String::new(),
    }
}

fn in_words(evidence: &Evidence) -> &'static str {
    match (evidence.withdrawn, evidence.phase) {
        (_, Phase::Found) => "it was found running, and nobody has said what it runs",
        (true, _) => "its boot answer was withdrawn, the server was not seen off since",
        (false, Phase::Answered) => "its boot answer stands",
        (false, Phase::Armed) => "seen off since its boot answer stands",
        (false, Phase::Started) => "its start was seen",
    }
}

/// What its agent said last.
fn heard(want: &Desired, seen: &Observed, now: Tick) -> String {
    let heard = seen.memory.heard;
    if !want.holder.as_ref().is_some_and(|holder| starting::has_agent(holder, seen)) || heard.at == Tick::START {
        return String::new();
    }
    let written = match heard.written_most {
        0 => String::new(),
        most => format!("; {} of {} MiB of memory are taken by what it wrote over its root", heard.written >> 20, most >> 20),
    };
    format!(" Its agent said {} ago that it is up{written}.", seconds(now.since(heard.at)))
}

/// Of what may run there, as it said itself.
fn failed_units(body: &Body) -> String {
    let runs = body.evidence.values().filter_map(|evidence| evidence.run.as_ref());
    let failed: Vec<String> = runs.flat_map(|run| &run.failed).cloned().collect();
    if failed.is_empty() { String::new() } else { format!(" Units that had failed when it came up: {}.", list(&failed)) }
}

fn declared_in_words(declared: &Declared) -> String {
    let Declared { what, by, reason, at } = declared;
    let more = match what {
        Declaration::OffOncePortsAreReleased => ", which counts once its ports are read back in quarantine",
        Declaration::Off => "",
        Declaration::OffButRuns => ", but it was seen on since: it may run what it ran",
    };
    format!("It was declared off by {by} at {at} ({reason}){more}.")
}
