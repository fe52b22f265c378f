//! One server's reconcile: plan, store what the facts prove, plan again, send the steps that may start, say how things are.
//!
//! It gets a name and nothing else. Invariants: what a step needs stored is stored before it is sent; a boot answer is withdrawn in memory
//! before its withdrawal counts; nothing is sent twice while it is in flight.

use super::cache::Stored;
use super::controller::Controller;
use super::status;
use super::worker::Job;
use crate::drivers::Depth;
use crate::drivers::gate::Key;
use crate::limits;
use crate::model::binding::RunState;
use crate::model::body::{Body, Sent};
use crate::model::fact::Tick;
use crate::model::op::{Device, Disruption, Off, Op};
use crate::model::{Kind, Name, Reason};
use crate::plan::desired::Desired;
use crate::plan::guardrails::{DesiredKey, Standing};
use crate::plan::observed::{Elsewhere, Observed, Trouble};
use crate::plan::record::Record;
use crate::plan::{self, Plan, Step, Wait, consent, fence};
use crate::store::{Entry, StoreError, Write, keys};

/// How far a plan is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Up to the first record that follows from a desired state: a withdrawn answer cannot be taken back without a restart.
    Withdrawal,
    Done,
}

impl Controller {
    /// The first of two passes over what is due: records what the facts prove, and tells the guardrails how the server stands, before any server's
    /// desired state is acted on. False when it could not be planned.
    pub(super) async fn assess(&mut self, server: &Name) -> bool {
        let Some((want, seen, plan)) = self.settle(server, Until::Withdrawal).await else { return false };
        let desired = want.holder.as_ref().map(DesiredKey::of);
        let withdraws = plan.records.iter().any(|r| matches!(r, Record::Withdraw(_)));
        let disrupts = disrupts_unasked(&want, &seen, &plan);
        let busy = self.in_flight.of_server(server).next().is_some();
        let converged = plan.is_converged() && plan.polls.is_empty() && !busy;
        let differs = withdraws || !plan.steps.is_empty() || !plan.held.is_empty();
        self.guardrails.assess(&Standing { server, desired, converged, differs, disrupts });
        if let Some(holder) = want.holder.as_ref().filter(|h| converged || h.state == RunState::Stopped) {
            self.guardrails.is_up(&holder.authority.binding);
        }
        true
    }

    /// The second pass: plans again, with the guardrails as they stand now, and sends what may start.
    pub(super) async fn reconcile(&mut self, server: &Name) {
        let Some((want, seen, mut plan)) = self.settle(server, Until::Done).await else { return };
        self.void_unwanted(server, &want, &seen);
        if let Some(wait) = self.stays_elsewhere(&want, &seen) {
            // In place of what it comes from; what a person has to say stays first.
            let at = plan.waits.iter().position(|w| w.reason == Reason::PersonaElsewhere).unwrap_or(plan.waits.len());
            plan.waits.insert(at, wait);
        }
        let steps = std::mem::take(&mut plan.steps);
        for step in steps {
            self.begin(server, &want, step, &mut plan).await;
        }
        for device in &plan.polls {
            self.fleet.send(device, Job::Observe(Depth::State));
        }
        if let Some(at) = plan.wake_at {
            // What is past already waits for a poll, not for time: its report wakes the server. Without this the loop would never hear it.
            let at = at.plus(std::time::Duration::from_millis(1));
            let now = self.clock.now();
            self.queue.wake(server, if at > now { at } else { now.plus(limits::FAST_POLL) });
        }
        tracing::debug!(server = %server, waits = plan.waits.len(), problems = plan.problems.len(), "reconciled");
        self.write_statuses(server, &want, &seen, &plan).await;
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

    /// Plans, and stores what the facts prove, until there is nothing left to record.
    async fn settle(&mut self, server: &Name, until: Until) -> Option<(Desired, Observed, Plan)> {
        for _ in 0..limits::RECORD_ROUNDS {
            let want = self.cache.want(server);
            self.count_grace(server, &want);
            let mut seen = self.cache.seen(server, &want);
            if !self.mark_done(server, &want, &mut seen).await {
                return None;
            }
            seen.memory.saw_takeover(seen.takeover.as_ref(), self.clock.now());
            self.cache.memory_of(server).takeover_since = seen.memory.takeover_since;
            if until == Until::Withdrawal {
                // What is held must go on to count as what it would do, or the hold would lift itself.
                seen.stopped.retain(|_, trouble| trouble.reason != Reason::Held);
            }
            let plan = plan::plan(&want, &seen, self.clock.now());
            let withdraws = plan.records.iter().any(|r| matches!(r, Record::Withdraw(_)));
            let stopped = self.cache.site_stop().is_some();
            if stopped || plan.records.is_empty() || (until == Until::Withdrawal && withdraws) {
                return Some((want, seen, plan));
            }
            if !self.record(server, &plan.records).await {
                return None;
            }
        }
        tracing::error!(server = %server, "the plan of a server does not settle: this is a fault of embody");
        self.queue.back_off(server, self.clock.now());
        None
    }

    /// The grace of an accepted soft-off goes on only while nobody has paused it.
    fn count_grace(&mut self, server: &Name, want: &Desired) {
        let accepted = self.cache.bodies.get(server).and_then(|b| b.value.off.as_ref()).is_some_and(|o| o.soft.last == Sent::Accepted);
        let bindings = want.releaser.iter().map(|r| &r.binding).chain(want.holder.iter().map(|h| &h.authority.binding));
        let paused = bindings.into_iter().any(|b| self.cache.is_paused(server, b));
        let now = self.clock.now();
        if accepted {
            self.cache.memory_of(server).grace.count(!paused, now);
        }
    }

    /// What is on its way and would not be planned any more does not leave.
    fn void_unwanted(&self, server: &Name, want: &Desired, seen: &Observed) {
        for op in self.in_flight.of_server(server) {
            let Some(gate) = self.fleet.gate(&op.device()) else { continue };
            let key = Key::of(op);
            if !plan::wanted::is_wanted(op, want, seen) && !gate.half_way().contains(&key) {
                tracing::info!(server = %server, op = %op, "taken back: it is no longer desired");
                gate.void(&key);
            }
        }
    }

    /// Stores records about a body; false when that failed, and the server is planned again later.
    pub(super) async fn record(&mut self, server: &Name, records: &[Record]) -> bool {
        if self.cache.site_stop().is_some() {
            // Said by the site's condition.
            self.queue.back_off(server, self.clock.now());
            return false;
        }
        let mut before = self.cache.bodies.get(server).cloned().unwrap_or_default();
        before.revision = self.cache.unreadable.get(server).copied().unwrap_or(before.revision);
        let body = self.applied(server, records);
        let value = serde_json::to_vec(&body).unwrap_or_default();
        match self.write_one(Write::put(keys::body(server), value, self.expected(server))).await {
            Ok(revision) => {
                let now = self.clock.now();
                let withdrawn = records.iter().filter_map(|r| if let Record::Withdraw(p) = r { Some(p) } else { None });
                withdrawn.for_each(|persona| tracing::info!(server = %server, persona = %persona, "the boot answer is withdrawn"));
                let memory = self.cache.memory_of(server);
                records.iter().for_each(|r| memory.recorded(r, now));
                self.cache.set_body(server, body, revision);
                if records.iter().any(|r| matches!(r, Record::Off(_) | Record::OffDone)) {
                    self.fleet.void_power(server);
                }
                self.neighbours_of(&before, server);
                self.queue.succeeded(server);
                true
            }
            Err(error) => {
                tracing::warn!(server = %server, error = %error, "what is known of a body could not be stored");
                self.reload(server, &error).await;
                self.queue.back_off(server, self.clock.now());
                false
            }
        }
    }

    /// After a write that may or may not have happened, or that another one overtook: what is there now.
    pub(super) async fn reload(&mut self, server: &Name, error: &StoreError) {
        let found: Option<Entry> = match error {
            StoreError::Conflict { found, .. } => found.clone(),
            _ => match self.store.get(&keys::body(server)).await {
                Ok(found) => found,
                Err(_) => return,
            },
        };
        let Some(entry) = found else { return };
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

    /// Sends a step, unless it is in flight, failed a moment ago, or a limit is reached.
    async fn begin(&mut self, server: &Name, want: &Desired, step: Step, plan: &mut Plan) {
        let now = self.clock.now();
        if self.lease.remaining().is_zero() {
            plan.wait(Reason::LeaseOver, "this controller's lease is over; another one acts");
            return;
        }
        if self.in_flight.contains(&step.op) {
            return;
        }
        if let Some(trouble) = self.cache.site_stop() {
            plan.wait(trouble.reason, trouble.message);
            plan.held.push(step);
            return;
        }
        if let Some(switch) = self.to_be_read_again(&step) {
            plan.wait(Reason::AskingAgain, format!("what is plugged in at switch {switch} is read again before a port of it is written"));
            plan.wake(now.plus(limits::FAST_POLL));
            plan.held.push(step);
            self.fleet.send(&Device::Switch(switch), Job::Observe(Depth::Everything));
            return;
        }
        if let Some(op) = self.port_on_its_way(want).filter(|_| matches!(step.op, Op::PowerOn { .. })) {
            plan.wait(Reason::PortsFirst, format!("{op} is still on its way"));
            plan.held.push(step);
            return;
        }
        if let Some(failure) = self.in_flight.waits(server, &step.op, now) {
            let again = plan::power::seconds(failure.again_at.since(now));
            plan.wait(failure.trouble.reason, format!("{}; it is tried again in {again}", failure.trouble.message));
            plan.wake(failure.again_at);
            plan.held.push(step);
            return;
        }
        let policy = self.cache.objects.policy();
        // What was begun is ended whatever the limits say.
        if let Err((why, again)) =
            self.in_flight.take_place(&step.op, &policy.limits, now).or_else(|full| if step.debt { Ok(()) } else { Err(full) })
        {
            plan.wait(Reason::Limit, why);
            plan.wake(again);
            plan.held.push(step);
            return;
        }
        if let Err((trouble, again)) = self.ask_guardrails(server, want, &step, now).or_else(|no| if step.debt { Ok(()) } else { Err(no) })
        {
            self.in_flight.give_back(&step.op);
            plan.wait(trouble.reason, trouble.message);
            plan.wake(again);
            plan.held.push(step);
            return;
        }
        if let Some(record) = &step.write_ahead
            && !self.record(server, std::slice::from_ref(record)).await
        {
            self.in_flight.give_back(&step.op);
            return;
        }
        self.dispatch(server, &step).await;
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
    fn port_on_its_way(&self, want: &Desired) -> Option<&Op> {
        let ports = want.holder.as_ref().map(|h| &h.ports)?;
        self.in_flight.iter().map(|(op, _)| op).find(|op| match op {
            Op::SetPort { switch, port, .. } => ports.contains_key(&(switch.clone(), port.clone())),
            Op::SetBoot { .. } | Op::PowerOn { .. } | Op::PowerOff { .. } | Op::CreateVlan { .. } | Op::Save { .. } => false,
        })
    }

    /// The guardrails that count what is really begun.
    fn ask_guardrails(&mut self, server: &Name, want: &Desired, step: &Step, now: Tick) -> Result<(), (Trouble, Tick)> {
        if let Op::PowerOff { .. } = step.op {
            let bindings = &self.cache.objects.bindings;
            let wanted_running = bindings.get(&step.binding).is_some_and(|b| b.spec.state == RunState::Running);
            let ran = !self.cache.body(server).evidence.is_empty();
            if wanted_running && ran {
                let running = bindings.values().filter(|b| b.spec.state == RunState::Running).count();
                let here: Vec<Name> = self.cache.objects.bindings_of_server(server).cloned().collect();
                let needed = here.iter().any(|b| *b != step.binding && self.guardrails.is_down(b));
                let limits = self.cache.objects.policy().limits;
                if let Err(message) = self.guardrails.take_down(&step.binding, running, needed, &limits) {
                    return Err((Trouble { reason: Reason::Limit, message }, now.plus(limits::RETRY_FIRST)));
                }
            }
        }
        if self.guardrails.is_drift(server, want.holder.as_ref().map(DesiredKey::of)) {
            if let Some(refusal) = self.guardrails.contended(server, &step.op, now) {
                return Err(refusal);
            }
            self.in_flight.corrects_drift(&step.op);
        }
        Ok(())
    }

    async fn dispatch(&mut self, server: &Name, step: &Step) {
        if !self.fleet.send_op(step.op.clone(), &self.cache) {
            self.in_flight.give_back(&step.op);
            self.queue.back_off(server, self.clock.now());
            return;
        }
        self.in_flight.sent(step.op.clone(), server.clone());
        self.approved_begins(&step.binding, &step.op);
        if step.op.disruption() != Disruption::None {
            self.guardrails.begun(server, self.clock.now());
        }
        if let Op::SetPort { switch, port, .. } = &step.op {
            self.cache.ports_in_flight.insert((switch.clone(), port.clone()));
        }
        let now = self.clock.now();
        self.cache.memory_of(server).sent(&step.op, now);
        tracing::info!(server = %server, op = %step.op, because = step.because, binding = %step.binding, "sent");
        self.status.event("Normal", &format!("Binding/{}", step.binding), "Sent", &format!("{} ({})", step.op, step.because)).await;
    }

    // ---- status --------------------------------------------------------------------------------------------------------

    async fn write_statuses(&mut self, server: &Name, want: &Desired, seen: &Observed, plan: &Plan) {
        let busy: Vec<String> = self.in_flight.of_server(server).map(Op::to_string).collect();
        if let Some(holder) = &want.holder {
            let value = status::binding(&self.cache, holder, want, seen, plan, &busy);
            let value = serde_json::to_value(value).unwrap_or_default();
            self.status.write(Kind::Binding, &holder.authority.binding, value, &mut self.cache).await;
        }
        if self.cache.objects.servers.contains_key(server) {
            let value = status::server(&self.cache, server, want, seen, plan);
            let value = serde_json::to_value(value).unwrap_or_default();
            self.status.write(Kind::Server, server, value, &mut self.cache).await;
        }
    }
}

/// Whether a plan does something disruptive that nobody was shown.
fn disrupts_unasked(want: &Desired, seen: &Observed, plan: &Plan) -> bool {
    let authorities = want.holder.iter().map(|h| &h.authority).chain(&want.releaser);
    let unasked = |step: &Step| {
        let authority = authorities.clone().find(|a| a.binding == step.binding);
        let disrupts = consent::disruption(&step.op, seen) != Disruption::None;
        disrupts && !authority.is_some_and(|a| consent::is_approved(a, &step.op, seen))
    };
    // What is withdrawn is switched off next.
    let withdraws = plan.records.iter().any(|r| matches!(r, Record::Withdraw(_)));
    let off = Op::PowerOff { server: want.server.clone(), how: Off::Soft };
    let shown = || fence::why_off(want, seen).is_some_and(|why| consent::is_approved(why.authority, &off, seen));
    (withdraws && !shown()) || plan.steps.iter().any(unasked)
}
