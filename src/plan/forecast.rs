//! The whole future of the desired state, op by op: plan, let everything happen as `Op::apply` says, look, plan again, until nothing is left.
//!
//! Pure, like `plan`. It shows what would be done if nothing fails and everything that needs a person were approved. Left out: the guardrails
//! across servers (`budget`), and hard power-offs, since a soft one is taken to work: but for one that waits for a person. Shown by `tests/plan.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desired::{Desired, Holder};
use super::observed::{Elsewhere, Observed, PortKey};
use super::record::Record;
use super::rollout::Turn;
use super::{Plan, Problem, Step, Wait, consent, fence, plan, power};
use crate::limits;
use crate::model::body::Body;
use crate::model::fact::{BootOverride, Power, Seen, Tick};
use crate::model::op::{Disruption, Facets, Off, Op};
use crate::model::{Name, Reason};

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
    /// Of a soft-off: how long it may take before it is followed by a hard one.
    pub hard_after: Option<Duration>,
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
        let still = !recorded && !moved && steps.is_empty() && !course.is_about_to_be_seen_off();
        future.steps.extend(steps.into_iter().map(|foreseen| Foreseen { wave, ..foreseen }));
        if still {
            for (server, plan) in plans {
                // What it would start is not waited for: nobody knows how long that takes.
                let is_on = |foreseen: &Foreseen| matches!(&foreseen.step.op, Op::PowerOn { server: of } if *of == server);
                let starts = future.steps.iter().any(is_on);
                let waits = plan.waits.into_iter().filter(|wait| !(starts && wait.reason == Reason::Starting));
                future.waits.extend(waits.map(|wait| (server.clone(), wait)));
                future.problems.extend(plan.problems.into_iter().map(|problem| (server.clone(), problem)));
            }
            return future;
        }
    }
    let words = "the forecast does not end; what comes after this is not known";
    future.problems.extend(course.servers.keys().next().map(|server| (server.clone(), Problem::new(Reason::ForecastTooLong, words))));
    future
}

/// What is not of a body stays as it was found.
fn stays(other: &Elsewhere) -> bool {
    matches!(other, Elsewhere::Reserved { .. })
}

/// The data centre as it would be.
struct Course<'a> {
    servers: BTreeMap<Name, Observed>,
    want_of: &'a dyn Fn(&Name, &Body) -> Desired,
    now: Tick,
    /// The servers that show a port: two may, where a manifest is wrong.
    by_port: BTreeMap<PortKey, BTreeSet<Name>>,
}

impl<'a> Course<'a> {
    fn new(servers: BTreeMap<Name, Observed>, want_of: &'a dyn Fn(&Name, &Body) -> Desired, now: Tick) -> Course<'a> {
        let mut by_port: BTreeMap<PortKey, BTreeSet<Name>> = BTreeMap::new();
        for (server, seen) in &servers {
            for port in seen.ports.keys() {
                by_port.entry(port.clone()).or_default().insert(server.clone());
            }
        }
        let mut servers = servers;
        // What is on its way arrives, before anything else is done.
        servers.values_mut().for_each(|seen| seen.in_flight.clear());
        Course { servers, want_of, now, by_port }
    }

    /// Time goes on, and every device that answers is asked again.
    fn look(&mut self) {
        // Ten seconds: what is to be seen twice is seen twice.
        self.now = self.now.plus(limits::SEEN_OFF_APART);
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
                seen.memory.saw_power(&power.clone());
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
        let elsewhere = want.holder.as_ref().map(|h| self.elsewhere(server, h)).unwrap_or_default();
        let bodies = fence::Bodies { target: &|binding| self.target(binding), look: &|server| self.body(server, as_if_approved) };
        let takeover = fence::leaves(&want, &seen.body).map(|binding| fence::takeover(binding, server, &bodies));
        let Some(seen) = self.servers.get_mut(server) else { return Plan::default() };
        seen.elsewhere.retain(stays);
        seen.elsewhere.extend(elsewhere);
        // Whoever is asked once more answers as before.
        seen.memory.takeover_since = takeover.as_ref().and_then(|t| t.as_ref().ok()).map(|_| Tick::START);
        seen.takeover = takeover;
        seen.as_if_approved = as_if_approved;
        // Whose turn it is depends on what is not foreseen: each is shown what it is restarted for.
        seen.turn = Turn::Go;
        plan(&want, seen, self.now)
    }

    /// A body that nobody waits for is asked as well, and its second Off may be what others wait for.
    fn is_about_to_be_seen_off(&self) -> bool {
        let ends = |body: &Body| body.evidence.values().any(|e| e.withdrawn) || body.anything;
        let is_off = |seen: &&Observed| seen.bmc_trouble.is_none() && seen.is(Power::Off);
        self.servers.values().filter(is_off).any(|seen| ends(&seen.body) || seen.unreadable)
    }

    /// By the records as they would be.
    fn elsewhere(&self, server: &Name, holder: &Holder) -> Vec<Elsewhere> {
        let claims = &holder.snapshot.claims;
        let mut out = Vec::new();
        for (other, seen) in self.servers.iter().filter(|(name, _)| *name != server && !claims.is_empty()) {
            let there = seen.there();
            if seen.unreadable || seen.body.anything {
                out.push(Elsewhere::Unreadable { server: other.clone(), there });
            }
            if seen.body.may_run_from_disk(&holder.persona) && !seen.is(Power::Off) {
                out.push(Elsewhere::Disk { server: other.clone(), there });
            }
            for (persona, evidence) in seen.body.evidence.iter().filter(|_| seen.body.fences()) {
                let found = evidence.snapshot.overlap(claims).map(|claim| Elsewhere::Evidence {
                    server: other.clone(),
                    persona: persona.clone(),
                    claim: claim.to_string(),
                    there,
                });
                out.extend(found);
            }
        }
        out
    }

    /// The server on which a binding is to be.
    fn target(&self, binding: &Name) -> Option<Name> {
        let is = |want: &Desired| want.holder.as_ref().is_some_and(|h| h.authority.binding == *binding);
        self.servers.iter().find(|(name, seen)| is(&(self.want_of)(name, &seen.body))).map(|(name, _)| name.clone())
    }

    fn body(&self, server: &Name, as_if_approved: bool) -> Option<(Desired, Observed)> {
        let seen = self.servers.get(server)?;
        let want = (self.want_of)(server, &seen.body);
        let mut elsewhere: Vec<Elsewhere> = seen.elsewhere.iter().filter(|e| stays(e)).cloned().collect();
        elsewhere.extend(want.holder.iter().flat_map(|h| self.elsewhere(server, h)));
        let seen = Observed { as_if_approved, elsewhere, ..seen.clone() };
        Some((want, seen))
    }

    fn record(&mut self, server: &Name, record: &Record) {
        let Some(seen) = self.servers.get_mut(server) else { return };
        record.apply(&mut seen.body);
        seen.memory.recorded(record, self.now);
        // What is stored now reads.
        seen.unreadable = false;
    }

    /// The steps of one wave, in the order of the servers. Wave 0: the caller counts.
    fn steps(&mut self, plans: &BTreeMap<Name, Plan>) -> Vec<Foreseen> {
        let mut out = Vec::new();
        for (server, plan) in plans {
            let is_begun = plan.waits.iter().any(|wait| wait.reason == Reason::SwitchingOff);
            if let Some(seen) = self.servers.get(server).filter(|seen| is_begun && seen.bmc_trouble.is_none())
                && let Some(step) = power::hard_off_to_approve(&(self.want_of)(server, &seen.body), seen)
            {
                let disruption = consent::disruption(&step.op, seen);
                out.push(Foreseen { wave: 0, server: server.clone(), step, disruption, held: true, hard_after: None });
            }
            if plan.steps.is_empty() {
                continue;
            }
            let today = self.plan(server, false);
            for step in &plan.steps {
                let disruption = self.servers.get(server).map_or(Disruption::None, |seen| consent::disruption(&step.op, seen));
                let held = !today.steps.iter().any(|s| s.op == step.op);
                let soft = matches!(step.op, Op::PowerOff { how: Off::Soft, .. });
                let hard_after =
                    self.servers.get(server).filter(|_| soft).map(|seen| fence::grace(&(self.want_of)(server, &seen.body), seen));
                out.push(Foreseen { wave: 0, server: server.clone(), step: step.clone(), disruption, held, hard_after });
            }
        }
        out
    }

    /// Everything that is sent, or was sent before and waited for, takes effect at once. Whether there was anything.
    fn let_happen(&mut self, plans: &BTreeMap<Name, Plan>) -> bool {
        let mut moved = false;
        for (server, plan) in plans {
            for step in &plan.steps {
                for record in &step.write_ahead {
                    self.record(server, record);
                }
                self.happens(server, &step.op);
            }
            for wait in &plan.waits {
                let on_its_way = match wait.reason {
                    Reason::SwitchingOff => Power::Off,
                    Reason::SwitchingOn => Power::On,
                    // It is asked again with the next round.
                    Reason::AskingAgain => {
                        moved |= self.servers.get(server).is_some_and(|seen| seen.bmc_trouble.is_none());
                        continue;
                    }
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
        seen.memory.saw_power(&power);
        seen.power = Some(power);
    }
}
