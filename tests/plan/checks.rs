//! What must be so at every moment and of every step: each check is one of the invariants of the design, said without the planner's words.
//!
//! Leaves out: that anything is done at all (`every_world`, `chaos`). Only this file and `Rack::observe` read the truth.

use embody::testing::limits;
use embody::testing::model::Name;
use embody::testing::model::Reason;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::{BootsOnce, Declaration, Found, Hold, Once, Phase, Snapshot};
use embody::testing::model::fact::{Admin, Power, Tick};
use embody::testing::model::op::{Disruption, Off, Op};
use embody::testing::plan::Step;
use embody::testing::plan::observed::SeenOff;
use embody::testing::plan::record::Record;

use crate::rack::{GRACE, Rack, port_of};

impl Rack {
    /// What must be so at every moment.
    pub fn check(&self) {
        let alive = |(server, truth): (&'_ Name, &'_ crate::rack::Truth)| {
            truth.runs.clone().filter(|_| !truth.strays && !truth.lied_about).map(|s| (server.clone(), s))
        };
        let lives: Vec<_> = self.truth.iter().filter_map(alive).collect();
        for (n, (one, snapshot)) in lives.iter().enumerate() {
            if let Some((other, claim)) = lives[n + 1..].iter().find_map(|(other, s)| Some((other, s.overlap(&snapshot.claims)?))) {
                self.fail(&format!("{one} and {other} live with {claim}"));
            }
            self.check_evidence_of(one, snapshot);
        }
        for (server, seen) in &self.seen {
            // Of what was found running there may be several guesses, and nothing else beside them.
            let guesses = seen.body.found_evidence().count();
            if seen.body.evidence.len() > guesses.max(1) || (guesses > 0 && seen.body.standing().is_some()) {
                self.fail(&format!("{server} may run two personas"));
            }
            let fences = seen.body.fences() && !self.truth[server].lied_about;
            for evidence in seen.body.evidence.values().filter(|_| fences) {
                for (other, there) in self.seen.iter().filter(|(other, s)| *other > server && s.body.fences()) {
                    let both = there.body.evidence.values().find_map(|e| e.snapshot.overlap(&evidence.snapshot.claims));
                    if let Some(claim) = both.filter(|_| !self.truth[other].lied_about) {
                        self.fail(&format!("{server} and {other} both have {claim}"));
                    }
                }
            }
        }
    }

    fn check_evidence_of(&self, server: &Name, runs: &Snapshot) {
        let seen = &self.seen[server];
        let evidence = seen.body.evidence.get(&runs.persona).filter(|e| e.snapshot.digest == runs.digest);
        if evidence.is_none() && !seen.unreadable && !seen.body.anything {
            self.fail(&format!("persona {} runs on {server} without any evidence", runs.persona));
        }
    }

    pub fn check_step(&self, server: &Name, step: &Step, was_on: bool) {
        let seen = &self.seen[server];
        let Some(binding) = self.objects.bindings.get(&step.binding) else {
            // A port that was left between two states, and nothing else.
            if step.debt && matches!(step.op, Op::SetPort { .. }) {
                return;
            }
            self.fail(&format!("{} in the name of binding {}, which does not exist", step.op, step.binding));
        };
        let shown = self.was_shown(server, &step.binding, &step.op);
        let stopped = seen.stopped.get(&step.binding);
        if stopped.is_some_and(|t| t.reason != Reason::Held || !shown) && !step.debt {
            self.fail(&format!("{} although that is stopped", step.op));
        }
        match binding.spec.mode(step.plane, Mode::Approve) {
            Mode::Observe if !step.debt => self.fail(&format!("{} by a binding that only observes", step.op)),
            Mode::Approve if !shown && !step.debt => self.fail(&format!("{} without an approval", step.op)),
            Mode::Observe | Mode::Approve | Mode::Enforce => {}
        }
        let disturbs = step.op.disruption() != Disruption::None || matches!(step.op, Op::SetBoot { .. });
        // Who declares it off says so of its links too.
        let declared = seen.body.declared.as_ref().is_some_and(|d| d.what == Declaration::OffOncePortsAreReleased);
        let to_quarantine = declared && matches!(step.op, Op::SetPort { .. });
        let asks_a_person = self.truth[server].stranger || (seen.body.found == Found::Adopted && was_on);
        if asks_a_person && disturbs && !to_quarantine && !step.debt && !shown {
            self.fail(&format!("{} disturbs what was found running on {server}", step.op));
        }
        if (seen.unreadable || seen.body.anything) && disturbs {
            self.fail(&format!("{} on {server}, of which nothing is known", step.op));
        }
        match &step.op {
            Op::PowerOff { how, .. } => self.check_off(server, *how, step),
            Op::PowerOn { .. } => self.check_on(server, step),
            Op::SetPort { switch, port, from, to } => {
                let key = (switch.clone(), port.clone());
                if key != port_of(server.as_str()) || seen.ports.get(&key).is_none_or(|s| s.config != *from) || from == to {
                    self.fail(&format!("{} is not from what was seen of a port of {server}", step.op));
                }
                if self.in_flight.contains(&key) {
                    self.fail(&format!("{} while another write of that port is on its way", step.op));
                }
            }
            Op::SetBoot { .. } | Op::CreateVlan { .. } | Op::Save { .. } => {}
        }
    }

    /// Whether a person approved this, for what the binding is to do and its persona is to boot now, and it was not done since.
    fn was_shown(&self, server: &Name, binding: &Name, op: &Op) -> bool {
        let same = |listed: &Op| match (listed, op) {
            (Op::PowerOff { server: one, .. }, Op::PowerOff { server: other, .. }) => one == other,
            (Op::SetPort { port: one, to: shown, .. }, Op::SetPort { port: other, to, .. }) => (one, shown) == (other, to),
            (one, other) => one == other,
        };
        // From a state that was shown: before it, or as another one of the list makes it.
        let from_shown = |listed: &Op| match (listed, op) {
            (Op::SetPort { port: p, from: shown, to: made, .. }, Op::SetPort { port, from, .. }) => {
                p == port && (shown == from || made == from)
            }
            _ => true,
        };
        let Some(approval) = self.approval(binding.as_str(), Vec::new()) else { return false };
        let given = self.seen[server].approvals.get(binding);
        let given = given.filter(|g| (&g.uid, g.generation, &g.answer) == (&approval.uid, approval.generation, &approval.answer));
        given.is_some_and(|g| g.ops.iter().any(|l| !l.done && same(&l.op)) && g.ops.iter().any(|l| from_shown(&l.op)))
    }

    /// Whether the power was read On by a question asked after this moment.
    fn on_after(&self, server: &Name, at: Tick) -> bool {
        self.seen[server].power.as_ref().is_some_and(|p| p.value == Power::On && p.asked_at > at)
    }

    fn check_off(&self, server: &Name, how: Off, step: &Step) {
        let (seen, asked) = (&self.seen[server], self.truth[server].asked);
        let Some(Record::Off(intent)) = step.write_ahead.last() else { self.fail("a power-off without write-ahead") };
        let hard_word = seen.approvals.get(&step.binding).is_some_and(|a| a.hard) && self.was_shown(server, &step.binding, &step.op);
        let fails = |why: &str| self.fail(&format!("{}: {why} ({asked:?}, {intent:?})", step.op));
        match how {
            Off::Soft => {
                let last = asked.soft_at.map_or(Tick::START, |at| at.plus(limits::SOFT_OFF_UNKNOWN));
                match () {
                    () if asked.accepted_at.is_some() || asked.refused || asked.hard_at.is_some() => fails("soft once more"),
                    () if asked.soft >= limits::SOFT_OFF_TRIES => fails("more than three"),
                    () if asked.soft_at.is_some() && !self.on_after(server, last) => {
                        fails("before it is known what became of the last one")
                    }
                    () => {}
                }
            }
            Off::Hard => {
                let grace_over = asked.accepted_at.is_some_and(|at| self.on_after(server, at.plus(GRACE)));
                let soft_failed = asked.refused || asked.soft >= limits::SOFT_OFF_TRIES;
                if !(grace_over || hard_word || self.hard_off_without_soft && soft_failed) {
                    fails("hard without an accepted soft-off and its grace");
                }
                if asked.hard_at.is_some_and(|at| !self.on_after(server, at.plus(limits::HARD_OFF_WAIT))) {
                    fails("hard before it is known what became of the last one");
                }
            }
        }
        self.check_who_is_switched_off(server, step);
    }

    fn check_who_is_switched_off(&self, server: &Name, step: &Step) {
        let body = &self.seen[server].body;
        let ends =
            |standing: &Name| step.write_ahead.iter().any(|record| matches!(record, Record::Withdraw(persona) if persona == standing));
        if let Some((standing, _)) = body.standing()
            && !ends(standing)
            && !self.is_restart(server, standing)
        {
            self.fail(&format!("{} while {server} still answers with persona {standing}", step.op));
        }
    }

    /// A move begins here: the new body must be one that can be had.
    pub fn check_release(&self, server: &Name, hold: &Hold) {
        let binding = &self.objects.bindings[&hold.binding];
        let seen = &self.seen[server];
        let nothing_to_lose = seen.is(Power::Off) && (seen.body.evidence.is_empty() || seen.seen_off(Tick::START) == SeenOff::Yes);
        let Some(target) = binding.spec.target.server.as_ref().filter(|t| self.truth.contains_key(*t)) else { return };
        if binding.spec.state == RunState::Stopped || nothing_to_lose {
            return;
        }
        let new = &self.seen[target];
        let stays = new.body.held_by.as_ref().is_some_and(|h| h.uid != hold.uid && self.is_desired_at(h, target));
        if self.truth[target].silent || new.power.is_none() || new.unreadable || new.body.anything || stays {
            self.fail(&format!("{server} is left by {} although {target} cannot be had", hold.binding));
        }
        let mine = new.body.held_by.as_ref().is_some_and(|h| h.uid == hold.uid);
        let stranger = self.truth[target].stranger || (new.is(Power::On) && new.body.evidence.is_empty() && !mine);
        let approved = self.was_shown(target, &hold.binding, &Op::PowerOff { server: target.clone(), how: Off::Soft });
        // A binding that took the place of another: what it names runs there.
        let is_there = mine && self.truth[target].runs.as_ref().is_some_and(|runs| runs.persona == binding.spec.persona);
        if stranger && !is_there && !approved && self.truth[target].power == Power::On && new.is(Power::On) {
            self.fail(&format!("{server} is left by {} although {target} runs something", hold.binding));
        }
    }

    fn is_desired_at(&self, hold: &Hold, server: &Name) -> bool {
        let held = self.objects.bindings.get(&hold.binding).filter(|b| b.meta.uid == hold.uid);
        held.is_some_and(|b| b.spec.target.server.as_ref() == Some(server))
    }

    fn is_restart(&self, server: &Name, persona: &Name) -> bool {
        let body = &self.seen[server].body;
        let desired = |b: &&embody::testing::model::objects::Held<embody::testing::model::BindingSpec>| {
            body.held_by.as_ref().is_some_and(|h| h.uid == b.meta.uid) && b.spec.persona == *persona && b.spec.restart > body.restart_done
        };
        body.evidence.get(persona).is_some_and(|e| e.phase == Phase::Started) && self.objects.bindings.values().any(|b| desired(&b))
    }

    fn check_on(&self, server: &Name, step: &Step) {
        let seen = &self.seen[server];
        let binding = &self.objects.bindings[&step.binding];
        // A person may have said that another one is started once.
        let persona = match &seen.body.once {
            Some(Once { boots: BootsOnce::Persona(persona), .. }) => persona,
            Some(Once { boots: BootsOnce::Local, .. }) | None => &binding.spec.persona,
        };
        let network = &self.objects.personas[persona].spec.nics[0].untagged;
        let vlan = network.as_ref().map(|n| self.objects.networks[n].spec.vlan);
        let port = seen.ports.get(&port_of(server.as_str()));
        if port.is_none_or(|s| s.config.untagged != vlan || s.config.admin != Admin::Up) {
            self.fail(&format!("{} before its port was read back as desired", step.op));
        }
        if self.in_flight.contains(&port_of(server.as_str())) {
            self.fail(&format!("{} while a write of its port is on its way", step.op));
        }
        let standing = seen.body.standing().map(|(persona, _)| persona);
        if standing != Some(persona) || binding.spec.state != RunState::Running {
            self.fail(&format!("{} would not start persona {persona}", step.op));
        }
        if binding.spec.target.server.as_ref() != Some(server) {
            self.fail(&format!("{} for a binding that has another target", step.op));
        }
        if seen.body.confirm_start && !self.was_shown(server, &step.binding, &step.op) {
            self.fail(&format!("{} although it may run elsewhere by now", step.op));
        }
        let claims = seen.body.standing().map(|(_, e)| &e.snapshot.claims).filter(|claims| !claims.is_empty());
        for (other, there) in self.seen.iter().filter(|(other, _)| *other != server && !self.truth[*other].lied_about) {
            let overlaps = |claims| there.body.fences() && there.body.evidence.values().any(|e| e.snapshot.overlap(claims).is_some());
            if claims.is_some_and(|claims| there.unreadable || there.body.anything || overlaps(claims)) {
                self.fail(&format!("{} while {other} may run the same", step.op));
            }
        }
        if seen.memory.boot_set_at.is_none() {
            self.fail(&format!("{} without a boot device", step.op));
        }
    }
}
