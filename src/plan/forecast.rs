//! The whole future of the desired state, op by op: plan, let everything happen as `Op::apply` says, look, plan again, until nothing is left.
//!
//! Pure, like `plan`. It shows what would be done if nothing fails and everything that needs a person were approved. Left out: the guardrails
//! across servers (`budget`), and every hard power-off, since a soft one is taken to work. Shown by `tests/plan.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desired::Desired;
use super::observed::{Elsewhere, Observed, PortKey};
use super::record::Record;
use super::{Plan, Problem, Step, Wait, consent, plan, power};
use crate::limits;
use crate::model::Name;
use crate::model::body::Body;
use crate::model::fact::{BootOverride, Power, Seen, Tick};
use crate::model::op::{Disruption, Facets, Op};

/// One operation of the future.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreseen {
    /// From 1: a wave begins when the one before was seen done.
    pub wave: usize,
    pub server: Name,
    pub step: Step,
    pub disruption: Disruption,
    /// It waits for a person today.
    pub held: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Future {
    pub steps: Vec<Foreseen>,
    /// What is waited for at the end, by server: what the forecast cannot see beyond.
    pub waits: Vec<(Name, Wait)>,
    pub problems: Vec<(Name, Problem)>,
}

/// `want_of` gives the desired state for a server, whose record changes as the forecast goes on. The servers given are taken to be all that
/// there are: evidence elsewhere is read from their records.
pub fn forecast(servers: BTreeMap<Name, Observed>, want_of: &dyn Fn(&Name, &Body) -> Desired, now: Tick) -> Future {
    let mut course = Course::new(servers, want_of, now);
    let mut future = Future::default();
    let mut wave = 0;
    for _ in 0..limits::FORECAST_ROUNDS {
        course.look();
        let (plans, recorded) = course.keep_books();
        let steps = course.steps(&plans);
        if !steps.is_empty() {
            wave += 1;
        }
        let moved = course.let_happen(&plans);
        let still = !recorded && !moved && steps.is_empty();
        future.steps.extend(steps.into_iter().map(|foreseen| Foreseen { wave, ..foreseen }));
        if still {
            for (server, plan) in plans {
                future.waits.extend(plan.waits.into_iter().map(|wait| (server.clone(), wait)));
                future.problems.extend(plan.problems.into_iter().map(|problem| (server.clone(), problem)));
            }
            return future;
        }
    }
    let words = "the forecast does not end; what comes after this is not known";
    future.problems.extend(course.servers.keys().next().map(|server| (server.clone(), Problem::new("ForecastTooLong", words))));
    future
}

/// The data centre as it would be.
struct Course<'a> {
    servers: BTreeMap<Name, Observed>,
    want_of: &'a dyn Fn(&Name, &Body) -> Desired,
    now: Tick,
    /// The bodies that may run each persona.
    may_run: BTreeMap<Name, BTreeSet<Name>>,
    /// The servers that show a port: two may, where a manifest is wrong.
    by_port: BTreeMap<PortKey, BTreeSet<Name>>,
}

impl<'a> Course<'a> {
    fn new(servers: BTreeMap<Name, Observed>, want_of: &'a dyn Fn(&Name, &Body) -> Desired, now: Tick) -> Course<'a> {
        let mut may_run: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        let mut by_port: BTreeMap<PortKey, BTreeSet<Name>> = BTreeMap::new();
        for (server, seen) in &servers {
            for persona in seen.body.may_run.keys() {
                may_run.entry(persona.clone()).or_default().insert(server.clone());
            }
            for port in seen.ports.keys() {
                by_port.entry(port.clone()).or_default().insert(server.clone());
            }
        }
        Course { servers, want_of, now, may_run, by_port }
    }

    /// Time goes on, and every device that answers is asked again.
    fn look(&mut self) {
        self.now = self.now.plus(Duration::from_secs(1));
        let now = self.now;
        for seen in self.servers.values_mut() {
            for sight in seen.ports.values_mut() {
                sight.asked_at = now;
            }
            if seen.bmc_trouble.is_some() {
                continue;
            }
            if let Some(boot) = &mut seen.boot {
                boot.asked_at = now;
            }
            if let Some(power) = &mut seen.power {
                power.asked_at = now;
                seen.memory.saw_power(Some(power.value), &power.clone());
            }
        }
    }

    /// Records of all servers, until there are none; whether there were any. The plans are those of the last pass, in which nothing changed.
    fn keep_books(&mut self) -> (BTreeMap<Name, Plan>, bool) {
        let mut any = false;
        let names: Vec<Name> = self.servers.keys().cloned().collect();
        for _ in 0..limits::FORECAST_ROUNDS {
            let mut plans = BTreeMap::new();
            let mut changed = false;
            for server in &names {
                let plan = self.plan(server, true);
                changed |= !plan.records.is_empty();
                for record in &plan.records {
                    self.record(server, record);
                }
                plans.insert(server.clone(), plan);
            }
            any |= changed;
            if !changed {
                return (plans, any);
            }
        }
        (BTreeMap::new(), any)
    }

    fn plan(&mut self, server: &Name, as_if_approved: bool) -> Plan {
        let Some(seen) = self.servers.get(server) else { return Plan::default() };
        let want = (self.want_of)(server, &seen.body);
        let persona = want.holder.as_ref().map(|h| h.persona.clone());
        let others = persona.iter().filter_map(|p| self.may_run.get(p)).flatten().filter(|s| *s != server);
        let other = |name: &Name| {
            let asked_at = self.servers.get(name).and_then(|s| s.power.as_ref()).map(|p| p.asked_at);
            Elsewhere { server: name.clone(), asked_at }
        };
        let others: Vec<Elsewhere> = others.map(other).collect();
        let Some(seen) = self.servers.get_mut(server) else { return Plan::default() };
        seen.elsewhere = persona.map(|p| (p, others)).into_iter().collect();
        seen.as_if_approved = as_if_approved;
        plan(&want, seen, self.now)
    }

    fn record(&mut self, server: &Name, record: &Record) {
        let Some(seen) = self.servers.get_mut(server) else { return };
        record.apply(&mut seen.body);
        seen.memory.recorded(record, self.now);
        for (persona, bodies) in &mut self.may_run {
            if !seen.body.may_run.contains_key(persona) {
                bodies.remove(server);
            }
        }
        for persona in seen.body.may_run.keys() {
            self.may_run.entry(persona.clone()).or_default().insert(server.clone());
        }
    }

    /// The steps of one wave, in the order of the servers. Wave 0: the caller counts.
    fn steps(&mut self, plans: &BTreeMap<Name, Plan>) -> Vec<Foreseen> {
        let mut out = Vec::new();
        for (server, plan) in plans.iter().filter(|(_, plan)| !plan.steps.is_empty()) {
            let today = self.plan(server, false);
            for step in &plan.steps {
                let disruption = self.servers.get(server).map_or(Disruption::None, |seen| consent::disruption(&step.op, seen));
                let held = !today.steps.iter().any(|s| s.op == step.op);
                out.push(Foreseen { wave: 0, server: server.clone(), step: step.clone(), disruption, held });
            }
        }
        out
    }

    /// Everything that is sent, or was sent before and waited for, takes effect at once. Whether there was anything.
    fn let_happen(&mut self, plans: &BTreeMap<Name, Plan>) -> bool {
        let mut moved = false;
        for (server, plan) in plans {
            for step in &plan.steps {
                if let Some(record) = &step.write_ahead {
                    self.record(server, record);
                }
                self.happens(server, &step.op);
            }
            for wait in &plan.waits {
                let on_its_way = match wait.reason {
                    power::SWITCHING_OFF => Power::Off,
                    power::SWITCHING_ON => Power::On,
                    _ => continue,
                };
                if self.servers.get(server).is_some_and(|seen| seen.bmc_trouble.is_none()) {
                    self.shows(server, on_its_way);
                    moved = true;
                }
            }
        }
        moved
    }

    /// The effect of an operation, by the one table, brought into what is seen.
    fn happens(&mut self, server: &Name, op: &Op) {
        let mut facets = Facets::default();
        op.apply(&mut facets);
        let Some(seen) = self.servers.get_mut(server) else { return };
        seen.memory.sent(op, self.now);
        if let Some((device, efi)) = facets.boot.get(server) {
            let echo = BootOverride { valid: true, persistent: true, efi: *efi, device: *device };
            seen.memory.boot_was_set(Some(echo), self.now);
            seen.boot = Some(Seen { value: echo, asked_at: self.now });
        }
        if let Some(power) = facets.power.get(server) {
            self.shows(server, *power);
        }
        for (port, config) in facets.ports {
            for name in self.by_port.get(&port).into_iter().flatten() {
                if let Some(sight) = self.servers.get_mut(name).and_then(|s| s.ports.get_mut(&port)) {
                    sight.config = config.clone();
                }
            }
        }
        for (switch, vlans) in facets.vlans {
            for sight in self.servers.values_mut().filter_map(|s| s.switches.get_mut(&switch)) {
                sight.vlans.extend(&vlans);
            }
        }
    }

    /// As if it was asked, and answered so, after what was done now.
    fn shows(&mut self, server: &Name, value: Power) {
        let Some(seen) = self.servers.get_mut(server) else { return };
        let power = Seen { value, asked_at: self.now };
        seen.memory.saw_power(seen.power.as_ref().map(|p| p.value), &power);
        seen.power = Some(power);
    }
}
