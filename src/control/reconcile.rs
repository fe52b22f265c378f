//! Reconciles: plan, store what the facts prove, plan again, send the steps that may start, say how things are. Of all servers that are due together,
//! so that what is stored of many is one transaction, and the guardrails know of all of them before anything is sent.
//!
//! It gets names and nothing else. Invariants: what a step needs stored is stored before it is sent; a boot answer is withdrawn in memory
//! before its withdrawal counts; nothing is sent twice while it is in flight; what is planned of one server in a turn knows what was planned of
//! those before it, and is stored with it or after it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cache::Stored;
use super::controller::Controller;
use super::status;
use super::timeline::Stage;
use super::worker::Job;
use crate::drivers::Depth;
use crate::drivers::gate::Key;
use crate::limits;
use crate::model::binding::{Plane, RunState};
use crate::model::body::{Body, Disrupted, Phase, Sent};
use crate::model::fact::Tick;
use crate::model::objects::server_switches;
use crate::model::op::{Device, Disruption, Off, Op};
use crate::model::{Kind, Name, Reason};
use crate::plan::desired::{Desired, Holder};
use crate::plan::guardrails::{DesiredKey, Standing};
use crate::plan::observed::{Asked, Elsewhere, Memory, Observed, Trouble};
use crate::plan::record::Record;
use crate::plan::{self, Plan, Step, Wait, consent, fence, rollout, starting};
use crate::store::{Entry, Expect, Records, Revision, StoreError, Write, keys};
use crate::telemetry::timestamp;

/// Longer than anything waits.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// How far a plan is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Up to the first record that a hold is about: a withdrawn answer cannot be taken back without a restart.
    Withdrawal,
    Done,
}

/// What a server that is due would do.
pub(super) struct Planned {
    pub(super) server: Name,
    want: Desired,
    seen: Observed,
    plan: Plan,
    /// A step waits until a switch was asked, whatever that then says.
    asks: bool,
    /// It is planned as if it were not held.
    held: bool,
}

/// Whose answer is news to a server although it shows the same as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) bmc: bool,
    pub(super) switches: bool,
}

/// Records of one body that are in force in memory, and not stored yet.
pub(super) struct Recording {
    pub(super) server: Name,
    records: Vec<Record>,
    expect: Expect,
    /// As it was before them.
    body: Option<Stored<Body>>,
    memory: Memory,
    unreadable: Option<Revision>,
}

impl Controller {
    // ---- planning ------------------------------------------------------------------------------------------------------

    /// Plans these servers, and stores what the facts prove of them, until there is nothing left to record of any. `settled` gets what they would do.
    pub(super) async fn settle(&mut self, servers: Vec<Name>, until: Until, mut settled: impl FnMut(&mut Controller, Planned)) {
        let mut open = servers;
        for _ in 0..limits::RECORD_ROUNDS {
            let mut round = Vec::new();
            for server in std::mem::take(&mut open) {
                let Some(planned) = self.planned(server, until).await else { continue };
                let records = &planned.plan.records;
                let stopped = self.cache.site_stop().is_some();
                let desired = withdraws(&planned.plan) || (answers(&planned.plan) && planned.held);
                if stopped || records.is_empty() || (until == Until::Withdrawal && desired) {
                    settled(self, planned);
                } else {
                    round.push(self.begin_recording(&planned.server, planned.plan.records));
                }
            }
            if round.is_empty() {
                return;
            }
            open = self.store_all(round).await;
        }
        for server in open {
            tracing::error!(server = %server, "the plan of a server does not settle: this is a fault of embody");
            self.queue.back_off(&server, self.clock.now());
        }
    }

    async fn planned(&mut self, server: Name, until: Until) -> Option<Planned> {
        if self.unsure.contains_key(&server) {
            self.queue.back_off(&server, self.clock.now());
            return None;
        }
        let want = self.cache.want(&server);
        // What is held must go on to count as what it would do, or the hold would lift itself.
        let mut seen = match until {
            Until::Withdrawal => self.cache.seen_unheld(&server, &want),
            Until::Done => self.cache.seen(&server, &want),
        };
        if !self.mark_done(&server, &want, &mut seen).await {
            return None;
        }
        self.count_grace(&server, &want, &mut seen);
        self.note_rollout(&server, &want, &mut seen);
        seen.memory.saw_takeover(seen.takeover.as_ref(), self.clock.now());
        self.cache.memory_of(&server).takeover_since = seen.memory.takeover_since;
        let held = until == Until::Withdrawal && self.cache.stopped_by_guardrails.contains_key(&server);
        let plan = plan::plan(&want, &seen, self.clock.now());
        Some(Planned { server, want, seen, plan, asks: false, held })
    }

    /// Before anything is sent: tells the guardrails how a server stands. What it would do, if it is anything; else it is done with.
    pub(super) fn assessed(&mut self, planned: Planned) -> Option<Planned> {
        let Planned { server, want, seen, plan, .. } = &planned;
        let desired = want.holder.as_ref().map(DesiredKey::of);
        let disrupts = disrupts_unasked(want, seen, plan);
        let power = seen.power.as_ref().filter(|_| seen.bmc_trouble.is_none()).map(|p| p.value);
        let to_run = want.holder.as_ref().is_some_and(|holder| is_to_run(holder, want, seen));
        let busy = self.in_flight.of_server(server).next().is_some();
        let converged = plan.is_converged() && plan.polls.is_empty() && !busy;
        let differs = withdraws(plan) || !plan.steps.is_empty() || !plan.held.is_empty();
        let with = seen.takeover.iter().flatten().flat_map(|ready| ready.bodies.iter().cloned()).collect();
        let standing = Standing { server, desired, converged, differs, disrupts, with, power, to_run };
        self.guardrails.assess(&standing, self.clock.now());
        // Whatever it is that takes a body down: it counts before anything of this turn leaves.
        if let Some(holder) = want.holder.as_ref().filter(|holder| takes_down(plan) && !rollout::goes(holder, seen)) {
            self.cache.rollouts.leaves(&holder.persona, &holder.authority.binding);
        }
        // What runs and waits to be restarted by its rollout is up.
        let waits_up = || plan.steps.is_empty() && !busy && self.cache.waits_up(want);
        if let Some(holder) = want.holder.as_ref().filter(|h| converged || h.state == RunState::Stopped || waits_up()) {
            self.guardrails.is_up(&holder.authority.binding);
        }
        // What is to come by a rollout may be held with what the others would do: it is said when that is known.
        if plan.records.is_empty() && plan.steps.is_empty() && !rollout::comes(want, seen) {
            self.void_unwanted(&planned);
            let awaited = self.awaited(&planned);
            self.conclude(planned, awaited);
            return None;
        }
        Some(planned)
    }

    /// Whether what was planned in this turn may be done as it is: no guardrail has stopped it since.
    pub(super) fn holds(&self, planned: &Planned) -> bool {
        let stopped = planned.seen.stopped.values().any(|t| t.reason == Reason::BreakerOpen);
        planned.plan.records.is_empty()
            && stopped == self.cache.breaker().is_some()
            && !self.cache.stopped_by_guardrails.contains_key(&planned.server)
            && (planned.seen.takeover.is_none() || self.cache.stopped_by_guardrails.is_empty())
    }

    // ---- doing ---------------------------------------------------------------------------------------------------------

    /// Sends what may start, now that the guardrails know of all that is due.
    pub(super) async fn act(&mut self, planned: Vec<Planned>) {
        let (mut all, mut recordings) = (Vec::new(), Vec::new());
        for mut planned in planned {
            self.void_unwanted(&planned);
            let awaited = self.awaited(&planned);
            let steps = std::mem::take(&mut planned.plan.steps);
            let admitted: Vec<Step> = steps.into_iter().filter_map(|step| self.admit(&mut planned, step)).collect();
            let mut ahead: Vec<Record> = admitted.iter().flat_map(|step| step.write_ahead.clone()).collect();
            let disrupts = admitted.iter().any(|step| step.op.disruption() != Disruption::None);
            if let Some(desired) = self.guardrails.counts_for(&planned.server).filter(|_| disrupts) {
                ahead.push(Record::Disrupted(Disrupted { at: timestamp(), desired }));
            }
            let is_recorded = !ahead.is_empty();
            if is_recorded {
                recordings.push(self.begin_recording(&planned.server, ahead));
            }
            let switches = awaited.switches || planned.asks;
            all.push((planned, admitted, is_recorded, Awaited { switches, ..awaited }));
        }
        let stored: BTreeSet<Name> = self.store_all(recordings).await.into_iter().collect();
        for (planned, steps, is_recorded, awaited) in all {
            if !steps.is_empty() {
                self.guardrails.acts(&planned.server, planned.want.holder.as_ref().map(DesiredKey::of));
            }
            for step in steps {
                match !is_recorded || stored.contains(&planned.server) {
                    true => self.dispatch(&planned.server, &step),
                    false => drop(self.in_flight.came_back(&step.op)),
                }
            }
            self.conclude(planned, awaited);
        }
    }

    /// Whose next answer would change what is done although it shows the same. What time alone changes, it is planned again for; of what is known of
    /// other bodies, and changes, it learns when its own BMC is asked next.
    fn awaited(&self, planned: &Planned) -> Awaited {
        let Planned { want, seen, plan, .. } = planned;
        let now = self.clock.now();
        let later = now.plus(A_DAY);
        let last = later.plus(2 * limits::SEEN_OFF_APART);
        let decides = |what: Asked| {
            let again = |at: &[Tick], then: Tick| plan::plan(want, &seen.asked_again(what, at), then);
            !again(&[now], now).does_the_same(plan)
                || (plan.wake_at.is_none() && !again(&[later, last], last.plus(limits::SEEN_OFF_APART)).does_the_same(plan))
        };
        let polls = |switch: bool| plan.polls.iter().any(|device| matches!(device, Device::Switch(_)) == switch);
        let others = !seen.elsewhere.is_empty() || seen.takeover.is_some();
        Awaited { bmc: others || polls(false) || decides(Asked::Bmc), switches: polls(true) || decides(Asked::Switches) }
    }

    /// What else follows from a plan: questions to devices, when it is planned again, and what is said of it.
    fn conclude(&mut self, mut planned: Planned, awaited: Awaited) {
        if let Some(wait) = self.stays_elsewhere(&planned.want, &planned.seen) {
            // In place of what it comes from; what a person has to say stays first.
            let waits = &mut planned.plan.waits;
            let at = waits.iter().position(|w| w.reason == Reason::PersonaElsewhere).unwrap_or(waits.len());
            waits.insert(at, wait);
        }
        let Planned { server, want, seen, plan, .. } = &planned;
        for device in &plan.polls {
            self.fleet.send(device, Job::Observe(Depth::State));
        }
        if let Some(at) = plan.wake_at {
            // What is past already waits for a poll, not for time: its report wakes the server. Without this the loop would never hear it.
            let at = at.plus(Duration::from_millis(1));
            let now = self.clock.now();
            self.queue.wake(server, if at > now { at } else { now.plus(limits::FAST_POLL) });
        }
        match awaited {
            Awaited { bmc: false, switches: false } => drop(self.awaited.remove(server)),
            awaited if self.awaited.get(server) == Some(&awaited) => {}
            awaited => drop(self.awaited.insert(server.clone(), awaited)),
        }
        let reasons: Vec<&str> =
            plan.waits.iter().map(|w| w.reason).chain(plan.problems.iter().map(|p| p.reason)).map(Reason::as_str).collect();
        tracing::debug!(server = %server, ?reasons, polls = ?plan.polls, bmc = awaited.bmc, switches = awaited.switches, "reconciled");
        self.say(server, want, seen, plan);
    }

    /// Why the body that the binding comes from is not touched yet: whoever asks about the binding asks here.
    fn stays_elsewhere(&self, want: &Desired, seen: &Observed) -> Option<Wait> {
        let holder = want.holder.as_ref()?;
        let is_its = |server: &&Name| {
            let hold = self.cache.bodies.get(*server).and_then(|b| b.value.held_by.as_ref());
            hold.is_some_and(|h| h.binding == holder.authority.binding && h.uid == holder.authority.uid)
        };
        let old = seen.elsewhere.iter().filter_map(Elsewhere::server).find(is_its)?;
        let why = self.cache.seen(old, &self.cache.want(old)).takeover?.err()?;
        Some(Wait::new(Reason::TakeoverNotPossible, format!("persona {} stays on {old} until it can run here: {why}", holder.persona)))
    }

    /// The grace of an accepted soft-off goes on only while a hard off may follow it: not while anybody stops that, in whatever way.
    fn count_grace(&mut self, server: &Name, want: &Desired, seen: &mut Observed) {
        if seen.body.off.as_ref().is_none_or(|intent| intent.soft.last != Sent::Accepted) {
            return;
        }
        let hard = Op::PowerOff { server: server.clone(), how: Off::Hard };
        let allowed = |why: fence::WhyOff<'_>| consent::refusal(why.authority, Plane::Power, &hard, seen).is_none();
        // Where it is not known yet what it runs, it is not known either whether anybody stops that.
        let counts = want.maintenance.is_none() && want.unresolved(&seen.body).is_none() && fence::why_off(want, seen).is_some_and(allowed);
        let grace = &mut self.cache.memory_of(server).grace;
        grace.count(counts, self.clock.now());
        seen.memory.grace = *grace;
    }

    /// What is on its way and would not be planned any more does not leave.
    fn void_unwanted(&self, planned: &Planned) {
        let Planned { server, want, seen, .. } = planned;
        for op in self.in_flight.of_server(server) {
            let Some(gate) = self.fleet.gate(&op.device()) else { continue };
            let key = Key::of(op);
            if !plan::wanted::is_wanted(op, want, seen) && !gate.half_way().contains(&key) {
                tracing::info!(server = %server, op = %op, "taken back: it is no longer desired");
                gate.void(&key);
            }
        }
    }

    // ---- records of bodies ---------------------------------------------------------------------------------------------

    /// Stores records about a body; false when that failed, and the server is planned again later.
    pub(super) async fn record(&mut self, server: &Name, records: &[Record]) -> bool {
        if self.cache.site_stop().is_some() {
            // Said by the site's condition.
            self.queue.back_off(server, self.clock.now());
            return false;
        }
        let recording = self.begin_recording(server, records.to_vec());
        !self.store_all(vec![recording]).await.is_empty()
    }

    /// What is planned after it, and is stored with it or later, goes by these records already.
    pub(super) fn begin_recording(&mut self, server: &Name, records: Vec<Record>) -> Recording {
        let recording = Recording {
            server: server.clone(),
            expect: self.expected(server),
            body: self.cache.bodies.get(server).cloned(),
            memory: self.cache.memory_of(server).clone(),
            unreadable: self.cache.unreadable.get(server).copied(),
            records,
        };
        let body = self.applied(server, &recording.records);
        let revision = recording.body.as_ref().map_or(0, |b| b.revision);
        self.cache.set_body(server, body, revision);
        self.withdraw_from_view(server, &recording.records);
        self.in_force(&recording);
        self.stands_otherwise(server);
        recording
    }

    fn in_force(&mut self, recording: &Recording) {
        let now = self.clock.now();
        let memory = self.cache.memory_of(&recording.server);
        recording.records.iter().for_each(|r| memory.recorded(r, now));
    }

    /// It could not be stored: as if it had never been planned.
    fn take_back(&mut self, recording: &Recording) {
        let Recording { server, body, memory, unreadable, .. } = recording;
        match (body, unreadable) {
            (Some(body), _) => self.cache.set_body(server, body.value.clone(), body.revision),
            (None, _) => self.cache.forget_body(server),
        }
        if let Some(revision) = unreadable {
            self.cache.unreadable.insert(server.clone(), *revision);
        }
        self.cache.memory.insert(server.clone(), memory.clone());
        self.stands_otherwise(server);
    }

    /// Stores what was recorded of bodies, in this order, many in one transaction. Those that are stored; what comes after one that is not may rest on
    /// it, and is not stored either.
    pub(super) async fn store_all(&mut self, recordings: Vec<Recording>) -> Vec<Name> {
        let mut stored = Vec::with_capacity(recordings.len());
        let mut left = recordings.into_iter().peekable();
        while left.peek().is_some() {
            let (mut batch, mut writes, mut bytes) = (Vec::new(), Vec::new(), 0);
            while writes.len() < Records::WRITES_AT_ONCE
                && let Some(recording) = left.next_if(|_| bytes < limits::WRITES_BYTES / 2)
            {
                let body = self.cache.bodies.get(&recording.server).map(|b| &b.value);
                let value = serde_json::to_vec(&body).unwrap_or_default();
                bytes += value.len();
                writes.push(Write::put(keys::body(&recording.server), value, recording.expect));
                batch.push(recording);
            }
            match self.write(&writes).await {
                Ok(revisions) => {
                    for (recording, revision) in batch.into_iter().zip(revisions) {
                        self.was_recorded(&recording, revision);
                        stored.push(recording.server);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error, bodies = batch.len(), "what is known of bodies could not be stored");
                    let asked = batch.len();
                    batch.extend(left);
                    batch.iter().rev().for_each(|recording| self.take_back(recording));
                    let servers: Vec<Name> = batch.into_iter().map(|recording| recording.server).collect();
                    self.reload(&servers[..asked], &error).await;
                    servers.iter().for_each(|server| self.queue.back_off(server, self.clock.now()));
                    return stored;
                }
            }
        }
        stored
    }

    fn was_recorded(&mut self, recording: &Recording, revision: Revision) {
        let Recording { server, records, body, unreadable, .. } = recording;
        let withdrawn = records.iter().filter_map(|r| if let Record::Withdraw(p) = r { Some(p) } else { None });
        withdrawn.for_each(|persona| tracing::info!(server = %server, persona = %persona, "the boot answer is withdrawn"));
        // Now, and not when it was planned: what was asked before may have been answered by what it ends.
        self.in_force(recording);
        if let Some(body) = self.cache.bodies.get_mut(server) {
            body.revision = revision;
        }
        if records.iter().any(|r| matches!(r, Record::Off(_) | Record::OffDone)) {
            self.fleet.void_power(server);
        }
        let mut before = body.clone().unwrap_or_default();
        before.revision = unreadable.unwrap_or(before.revision);
        self.neighbours_of(&before, server);
        self.queue.succeeded(server);
    }

    /// After a write that may or may not have happened, or that another one overtook: what is there now. While that cannot be read, these bodies may
    /// run anything.
    pub(super) async fn reload(&mut self, servers: &[Name], error: &StoreError) {
        // What is there then is not what was written here: a person's word merges it.
        if self.cache.store_stop.is_some() {
            return;
        }
        let keys: Vec<String> = servers.iter().map(keys::body).collect();
        let found = match error {
            StoreError::Conflict { key, found } => keys.iter().map(|k| found.clone().filter(|_| k == key)).collect(),
            _ => match self.store.get_all(&keys).await {
                Ok(found) => found,
                Err(_) => return servers.iter().for_each(|server| self.is_unsure(server)),
            },
        };
        for (server, entry) in servers.iter().zip(found) {
            let known = self.cache.bodies.get(server).map(|b| b.revision);
            // Of a conflict only its own key was read.
            let was_read = !matches!(error, StoreError::Conflict { key, .. } if *key != keys::body(server));
            match entry {
                Some(entry) if known != Some(entry.revision) => self.reloaded(server, &entry),
                // Gone: what is known is written again, once the store is seen to be the same.
                None if was_read && known.is_some_and(|revision| revision != 0) => self.write_again(keys::Key::Body(server.clone())),
                Some(_) | None => {}
            }
        }
    }

    fn is_unsure(&mut self, server: &Name) {
        let before = (self.cache.bodies.get(server).cloned(), self.cache.unreadable.get(server).copied());
        self.unsure.entry(server.clone()).or_insert(before);
        self.cache.forget_body(server);
        self.cache.unreadable.insert(server.clone(), 0);
        self.unsure_until = self.clock.now().plus(limits::RETRY_FIRST);
    }

    /// Looks again whether what was written before the store ceased to answer is there.
    pub(super) async fn make_sure(&mut self) {
        if self.unsure.is_empty() || self.clock.now() < self.unsure_until {
            return;
        }
        let servers: Vec<Name> = self.unsure.keys().cloned().collect();
        let keys: Vec<String> = servers.iter().map(keys::body).collect();
        let Ok(found) = self.store.get_all(&keys).await else {
            self.unsure_until = self.clock.now().plus(limits::RETRY_FIRST);
            return;
        };
        for (server, entry) in servers.iter().zip(found) {
            let Some((body, unreadable)) = self.unsure.remove(server) else { continue };
            self.cache.unreadable.remove(server);
            let known = body.as_ref().map(|b| b.revision).or(unreadable).filter(|revision| *revision != 0);
            match entry {
                Some(entry) if known != Some(entry.revision) => self.reloaded(server, &entry),
                _ => {
                    if let Some(body) = body {
                        self.cache.set_body(server, body.value, body.revision);
                    }
                    self.cache.unreadable.extend(unreadable.map(|revision| (server.clone(), revision)));
                }
            }
        }
        self.wake_all();
    }

    fn reloaded(&mut self, server: &Name, entry: &Entry) {
        match serde_json::from_slice::<Body>(&entry.value) {
            // What is damaged is empty, which is no body.
            Ok(body) => {
                // What was found may have been written by this attempt: everything in it counts as said now.
                let now = self.clock.now();
                let memory = self.cache.memory_of(server);
                memory.withdrawn_at = body.evidence.keys().map(|p| (p.clone(), now)).collect();
                memory.answered_at = body.evidence.keys().map(|p| (p.clone(), now)).collect();
                (memory.soft_at, memory.hard_at, memory.on_sent_at) = (now, now, now);
                memory.may_be_on();
                self.cache.set_body(server, body, entry.revision);
            }
            Err(error) => self.cache.does_not_read(server, entry.revision, &error.to_string()),
        }
    }

    /// Others wait for evidence here to end.
    fn neighbours_of(&mut self, before: &Stored<Body>, server: &Name) {
        let body = self.cache.body(server);
        let ended = before.value.evidence.keys().any(|p| !body.evidence.contains_key(p)) || before.value.fences() != body.fences();
        if ended {
            for binding in self.cache.waiting_for(&before.value) {
                self.wake_binding(&binding);
            }
        }
        if before.revision != 0 && before.value == Body::default() && body == Body::default() {
            // It did not read before, and everybody waited for it.
            self.wake_all();
        }
        if before.value.held_by != body.held_by {
            // Whoever moved away from where this holder comes to.
            let moved: Vec<Name> = body.held_by.iter().map(|h| h.binding.clone()).collect();
            moved.iter().for_each(|binding| self.wake_binding(binding));
        }
    }

    // ---- sending -------------------------------------------------------------------------------------------------------

    /// A step that may be sent, with its place taken; nothing where it is in flight, failed a moment ago, or a limit is reached.
    fn admit(&mut self, planned: &mut Planned, step: Step) -> Option<Step> {
        let now = self.clock.now();
        let Planned { server, want, plan, asks, .. } = planned;
        if self.lease.remaining().is_zero() {
            plan.wait(Reason::LeaseOver, "this controller's lease is over; another one acts");
            return None;
        }
        if self.in_flight.is_under_way(&step.op, server) {
            return None;
        }
        if let Some(trouble) = self.cache.site_stop() {
            plan.wait(trouble.reason, trouble.message);
            plan.held.push(step);
            return None;
        }
        if let Some(switch) = self.to_be_read_again(&step) {
            plan.wait(Reason::AskingAgain, format!("what is plugged in at switch {switch} is read again before a port of it is written"));
            plan.wake(now.plus(limits::FAST_POLL));
            plan.held.push(step);
            *asks = true;
            self.fleet.send(&Device::Switch(switch), Job::Observe(Depth::Everything));
            return None;
        }
        if let Some(port) = self.port_on_its_way(want).filter(|_| matches!(step.op, Op::PowerOn { .. })) {
            plan.wait(Reason::PortsFirst, format!("a write of port {} of switch {} is still on its way", port.1, port.0));
            plan.held.push(step);
            *asks = true;
            return None;
        }
        if let Some(failure) = self.in_flight.waits(server, &step.op, now) {
            let again = plan::power::seconds(failure.again_at.since(now));
            plan.wait(failure.trouble.reason, format!("{}; it is tried again in {again}", failure.trouble.message));
            plan.wake(failure.again_at);
            plan.held.push(step);
            return None;
        }
        // What was begun is ended whatever the limits say.
        let limits = &self.cache.objects.policy().limits;
        if let Err(full) = self.in_flight.take_place(server, &step.op, step.debt, limits, now) {
            plan.wait(Reason::Limit, full.to_string());
            plan.held.push(step);
            return None;
        }
        let asked = self.ask_guardrails(planned, &step, now).or_else(|no| if step.debt { Ok(()) } else { Err(no) });
        let Planned { plan, .. } = planned;
        if let Err((trouble, again)) = asked {
            self.in_flight.came_back(&step.op);
            plan.wait(trouble.reason, trouble.message);
            again.into_iter().for_each(|at| plan.wake(at));
            plan.held.push(step);
            return None;
        }
        Some(step)
    }

    /// Polls read neighbours, aggregations and learned addresses rarely: a port may lead somewhere else by now. What was begun is ended.
    fn to_be_read_again(&self, step: &Step) -> Option<Name> {
        let Op::SetPort { switch, .. } = &step.op else { return None };
        let now = self.clock.now();
        let told = self.cache.cables_told_at.get(switch).is_some_and(|at| now.since(*at) <= limits::CABLES_KNOWN_FOR);
        (!told && !step.debt).then(|| switch.clone())
    }

    /// A write of one of the server's ports that has not come back: sent for earlier desired state, it would change the port under what is started
    /// after the last poll.
    fn port_on_its_way<'a>(&self, want: &'a Desired) -> Option<&'a (Name, String)> {
        want.holder.as_ref()?.ports.keys().find(|port| self.cache.ports_in_flight.contains(*port))
    }

    /// The guardrails that count what is really begun. With a refusal, when it may be otherwise by time alone.
    fn ask_guardrails(&mut self, planned: &Planned, step: &Step, now: Tick) -> Result<(), (Trouble, Option<Tick>)> {
        let Planned { server, want, seen, .. } = planned;
        if let Op::PowerOff { .. } = step.op {
            let objects = &self.cache.objects;
            let wanted_running = objects.bindings.get(&step.binding).is_some_and(|b| b.spec.state == RunState::Running);
            let ran = !self.cache.body(server).evidence.is_empty();
            if wanted_running && ran {
                let needed = objects.bindings_of_server(server).any(|b| *b != step.binding && self.guardrails.is_down(b));
                let taken = self.guardrails.take_down(server, &step.binding, objects.running(), needed, &objects.policy().limits);
                if let Err(message) = taken {
                    return Err((Trouble { reason: Reason::Limit, message }, None));
                }
            }
        }
        if let Op::PowerOff { .. } = step.op {
            self.is_still_its_turn(want, seen).map_err(|trouble| (trouble, None))?;
        }
        let begins_anew = want.holder.as_ref().is_some_and(|holder| starting::begins_anew(holder, seen, &step.op));
        if !begins_anew && self.guardrails.is_drift(server, want.holder.as_ref().map(DesiredKey::of)) {
            if let Some((trouble, again)) = self.guardrails.contended(server, &step.op, now) {
                return Err((trouble, Some(again)));
            }
            self.in_flight.corrects_drift(&step.op);
        }
        Ok(())
    }

    fn dispatch(&mut self, server: &Name, step: &Step) {
        if !self.fleet.send_op(step.op.clone(), &self.cache) {
            self.in_flight.came_back(&step.op);
            self.queue.back_off(server, self.clock.now());
            return;
        }
        self.approved_begins(&step.binding, &step.op);
        if step.op.disruption() != Disruption::None {
            self.guardrails.begun(server, self.clock.now());
        }
        if let Op::SetPort { switch, port, .. } = &step.op {
            self.cache.ports_in_flight.insert((switch.clone(), port.clone()));
        }
        let now = self.clock.now();
        self.cache.memory_of(server).sent(&step.op, now);
        if let Op::PowerOn { server } = &step.op {
            self.booting.timelines().saw(server, Stage::On, "", tokio::time::Instant::now());
        }
        tracing::info!(server = %server, op = %step.op, because = step.because, binding = %step.binding, "sent");
        self.status.event("Normal", &format!("Binding/{}", step.binding), "Sent", &format!("{} ({})", step.op, step.because));
    }

    // ---- status --------------------------------------------------------------------------------------------------------

    fn say(&mut self, server: &Name, want: &Desired, seen: &Observed, plan: &Plan) {
        let asked = self.is_asked(server);
        if let Some(holder) = &want.holder {
            let busy: Vec<String> = self.in_flight.of_server(server).map(Op::to_string).collect();
            let value = status::binding(holder, want, seen, plan, &busy, self.clock.now());
            self.status.say(Kind::Binding, &holder.authority.binding, asked, &value, &self.cache);
        }
        if self.cache.objects.servers.contains_key(server) {
            let value = status::server(&self.cache, server, want, seen, plan);
            self.status.say(Kind::Server, server, asked, &value, &self.cache);
        }
    }

    /// Whether its BMC and its switches were asked since this controller began, and have answered or not.
    pub(super) fn is_asked(&self, server: &Name) -> bool {
        let bmc = self.cache.bmcs.get(server).is_some_and(|facts| facts.known.seen.is_some() || facts.known.trouble.is_some());
        let known = |switch: &Name| self.cache.switches.get(switch).is_some_and(|known| known.seen.is_some() || known.trouble.is_some());
        let is_there = |switch: &Name| self.cache.objects.switches.contains_key(switch);
        let switches = self.cache.objects.servers.get(server).map(|held| server_switches(&held.spec)).unwrap_or_default();
        bmc && switches.iter().all(|switch| known(switch) || !is_there(switch))
    }
}

/// Whether a plan does something disruptive that nobody was shown.
fn disrupts_unasked(want: &Desired, seen: &Observed, plan: &Plan) -> bool {
    let unasked = |step: &Step| consent::disruption(&step.op, seen) != Disruption::None && !is_approved(want, seen, step);
    let comes = rollout::comes(want, seen) && !is_restart_approved(want, seen);
    comes || (withdraws(plan) && !is_withdrawal_approved(want, seen)) || plan.steps.iter().any(unasked)
}

fn is_approved(want: &Desired, seen: &Observed, step: &Step) -> bool {
    let mut authorities = want.holder.iter().map(|h| &h.authority).chain(&want.releaser);
    authorities.find(|a| a.binding == step.binding).is_some_and(|a| consent::is_approved(a, &step.op, seen))
}

fn withdraws(plan: &Plan) -> bool {
    plan.records.iter().any(|record| matches!(record, Record::Withdraw(_)))
}

fn takes_down(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step.op, Op::PowerOff { .. }))
}

/// What is withdrawn is switched off next.
fn is_withdrawal_approved(want: &Desired, seen: &Observed) -> bool {
    let off = Op::PowerOff { server: want.server.clone(), how: Off::Soft };
    fence::why_off(want, seen).is_some_and(|why| consent::is_approved(why.authority, &off, seen))
}

/// A rollout would switch it off when its turn comes.
fn is_restart_approved(want: &Desired, seen: &Observed) -> bool {
    let off = Op::PowerOff { server: want.server.clone(), how: Off::Soft };
    want.holder.as_ref().is_some_and(|holder| consent::is_approved(&holder.authority, &off, seen))
}

fn answers(plan: &Plan) -> bool {
    plan.records.iter().any(|record| matches!(record, Record::Answer(_)))
}

/// Its persona was started here, or is about to be, and nothing has begun to end it.
fn is_to_run(holder: &Holder, want: &Desired, seen: &Observed) -> bool {
    let stands = seen.body.evidence.get(&holder.persona).filter(|e| e.stands());
    let started = stands.is_some_and(|e| matches!(e.phase, Phase::Armed | Phase::Started));
    started && holder.state == RunState::Running && seen.body.off.is_none() && seen.body.release.is_none() && want.maintenance.is_none()
}
