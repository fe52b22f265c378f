//! The operations that were sent and have not come back, those that failed and are tried again, and the limits on how many go at once.
//!
//! Leaves out: whether one may go (`plan`, `plan::guardrails`), and what becomes of it (`outcome`). Invariant: an operation is here exactly as
//! long as its place in the budget is taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::drivers::Fault;
use crate::limits;
use crate::model::fact::Tick;
use crate::model::op::{Device, Disruption, Op};
use crate::model::policy::Limits;
use crate::model::{Name, Reason};
use crate::plan::budget::{Budget, Full, Limit};
use crate::plan::observed::Trouble;

/// What an operation that failed is waiting for.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) count: u32,
    pub(super) again_at: Tick,
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// For which server.
    ops: BTreeMap<Op, Name>,
    by_server: BTreeMap<Name, BTreeSet<Op>>,
    by_device: BTreeMap<Device, BTreeSet<Op>>,
    /// Those that correct drift.
    drifts: BTreeSet<Op>,
    /// By server and `Op::goal`.
    failures: BTreeMap<(Name, String), Failure>,
    /// By `Op::goal`: what is of a switch alone fails for all who need it.
    shared: BTreeMap<String, Failure>,
    budget: Budget,
    /// Servers that have an operation to send and no place for it: whoever came first is planned first.
    waiting: BTreeMap<Limit, VecDeque<Name>>,
    /// Servers that need an operation which is on its way for another one: a VLAN that is made is there for both.
    others: BTreeMap<Op, BTreeSet<Name>>,
    /// Those of them for which it came back.
    over: BTreeSet<Name>,
}

impl InFlight {
    pub(super) fn contains(&self, op: &Op) -> bool {
        self.ops.contains_key(op)
    }

    /// Whether it is on its way already, for this server or for another one; then this one is planned again when it has come back.
    pub(super) fn is_under_way(&mut self, op: &Op, server: &Name) -> bool {
        let Some(of) = self.ops.get(op) else { return false };
        if of != server {
            self.others.entry(op.clone()).or_default().insert(server.clone());
        }
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Op, &Name)> {
        self.ops.iter()
    }

    pub(super) fn of_server<'a>(&'a self, server: &'a Name) -> impl Iterator<Item = &'a Op> {
        self.by_server.get(server).into_iter().flatten()
    }

    pub(super) fn is_busy(&self, device: &Device) -> bool {
        self.by_device.contains_key(device)
    }

    /// Takes a place for an operation of a server. Where there is none, the server waits for it; `must`: it is begun all the same.
    pub(super) fn take_place(&mut self, server: &Name, op: &Op, must: bool, limits: &Limits, now: Tick) -> Result<(), Full> {
        if let Err(full) = self.budget.admits(op, limits, now).or_else(|full| if must { Ok(()) } else { Err(full) }) {
            let queue = self.waiting.entry(full.limit.clone()).or_default();
            if !queue.contains(server) {
                queue.push_back(server.clone());
            }
            return Err(full);
        }
        self.budget.take(op, now);
        self.ops.insert(op.clone(), server.clone());
        self.by_server.entry(server.clone()).or_default().insert(op.clone());
        self.by_device.entry(op.device()).or_default().insert(op.clone());
        Ok(())
    }

    /// The limits at which a server waits.
    pub(super) fn full_for(&self, server: &Name, limits: &Limits) -> Vec<Full> {
        let at = self.waiting.iter().filter(|(_, queue)| queue.contains(server));
        at.map(|(limit, _)| Full { is: limit.of(limits), limit: limit.clone() }).collect()
    }

    /// The servers for which there is room by now, or for which an operation of another one has come back, each taken out; and when there is more, if no operation comes back before.
    pub(super) fn with_room(&mut self, limits: &Limits, now: Tick) -> (Vec<Name>, Option<Tick>) {
        let (mut servers, mut next): (Vec<Name>, _) = (std::mem::take(&mut self.over).into_iter().collect(), None);
        let budget = &mut self.budget;
        self.waiting.retain(|limit, queue| {
            let (room, again) = budget.room(limit, limits, now);
            servers.extend(queue.drain(..room.min(queue.len())));
            if let Some(at) = again.filter(|_| !queue.is_empty()) {
                next = Some(next.map_or(at, |n: Tick| n.min(at)));
            }
            !queue.is_empty()
        });
        (servers, next)
    }

    pub(super) fn corrects_drift(&mut self, op: &Op) {
        self.drifts.insert(op.clone());
    }

    /// It came back, or was not sent after all: for which server it was, and whether it corrected drift.
    pub(super) fn came_back(&mut self, op: &Op) -> Option<(Name, bool)> {
        let drift = self.drifts.remove(op);
        let server = self.ops.remove(op)?;
        self.budget.release(op);
        self.over.extend(self.others.remove(op).into_iter().flatten());
        take_out(&mut self.by_server, &server, op);
        take_out(&mut self.by_device, &op.device(), op);
        Some((server, drift))
    }

    /// The worker of their device ended: what became of them is not known.
    pub(super) fn lose(&mut self, device: &Device) -> Vec<(Op, Name)> {
        let lost = self.by_device.get(device).cloned().unwrap_or_default();
        lost.into_iter().filter_map(|op| self.came_back(&op).map(|(server, _)| (op, server))).collect()
    }

    // ---- what failed -----------------------------------------------------------------------------------------------------

    pub(super) fn succeeded(&mut self, server: &Name, op: &Op) {
        self.shared.remove(&op.goal());
        self.failures.remove(&(server.clone(), op.goal()));
    }

    pub(super) fn failed(&mut self, server: &Name, op: &Op, fault: &Fault, now: Tick) {
        let key = (server.clone(), op.goal());
        let before = if is_shared(op) { self.shared.get(&key.1) } else { self.failures.get(&key) };
        let count = before.map_or(1, |f| f.count.saturating_add(1));
        let growing = limits::RETRY_FIRST.saturating_mul(1 << (count - 1).min(8)).min(limits::RETRY_MAX);
        // Not before a person changes the user's rights on the device: seldom enough for its log, often enough to be noticed.
        let delay = if matches!(fault, Fault::Forbidden { .. }) { limits::RETRY_MAX } else { growing };
        let trouble = super::absorb::trouble(fault);
        let in_vain = matches!(fault, Fault::Refused { .. } | Fault::Disagrees { .. }) && count >= limits::FLAPS_IN_VAIN;
        let (trouble, delay) = match in_vain && matches!(op, Op::SetPort { .. }) && op.disruption() != Disruption::None {
            true => {
                let why = format!("{}; that was try {count}, and each takes the link down", trouble.message);
                let message = format!("{why}: it is left alone for an hour, or until `embody retry server {server}`");
                (Trouble { reason: Reason::Contended, message }, limits::FLAPS_AGAIN)
            }
            false => (trouble, delay),
        };
        tracing::warn!(op = %op, reason = %trouble.reason, error = trouble.message, "an operation failed");
        let failure = Failure { trouble, count, again_at: now.plus(delay) };
        match is_shared(op) {
            true => drop(self.shared.insert(key.1, failure)),
            false => drop(self.failures.insert(key, failure)),
        }
    }

    /// Why an operation is not tried at this moment: it failed a while ago.
    pub(super) fn waits(&self, server: &Name, op: &Op, now: Tick) -> Option<&Failure> {
        let failure = if is_shared(op) { self.shared.get(&op.goal()) } else { self.failures.get(&(server.clone(), op.goal())) };
        failure.filter(|failure| failure.again_at > now)
    }

    pub(super) fn failures_of<'a>(&'a self, server: &'a Name, now: Tick) -> impl Iterator<Item = &'a Failure> {
        self.failures_at(server).map(|(_, failure)| failure).filter(move |failure| failure.again_at > now)
    }

    pub(super) fn forget_failures(&mut self, server: &Name) {
        // Whoever says so of one that needs it means that as well.
        self.shared.clear();
        let known: Vec<(Name, String)> = self.failures_at(server).map(|(key, _)| key.clone()).collect();
        known.iter().for_each(|key| drop(self.failures.remove(key)));
    }

    fn failures_at<'a>(&'a self, server: &'a Name) -> impl Iterator<Item = (&'a (Name, String), &'a Failure)> {
        self.failures.range((server.clone(), String::new())..).take_while(move |((of, _), _)| of == server)
    }
}

fn is_shared(op: &Op) -> bool {
    matches!(op, Op::CreateVlan { .. })
}

fn take_out<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Op>>, key: &K, op: &Op) {
    if let Some(ops) = index.get_mut(key) {
        ops.remove(op);
        if ops.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_that_could_not_be_made_is_not_tried_for_each_who_needs_it() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let (a, b) = (name("a"), name("b"));
        let vlan = Op::CreateVlan { switch: name("tor-1"), vlan: 120.try_into().unwrap() };
        let fault = Fault::Refused { device: "switch/tor-1".to_owned(), what: vlan.to_string(), code: "noCreation".to_owned() };
        let mut in_flight = InFlight::default();
        in_flight.failed(&a, &vlan, &fault, Tick(9));
        in_flight.failed(&a, &Op::PowerOn { server: a.clone() }, &fault, Tick(9));
        assert_eq!(in_flight.waits(&b, &vlan, Tick(9)).map(|f| f.count), Some(1));
        assert!(in_flight.waits(&b, &Op::PowerOn { server: b.clone() }, Tick(9)).is_none(), "what is its own fails for it alone");
        in_flight.failed(&b, &vlan, &fault, Tick(9));
        assert_eq!(in_flight.waits(&a, &vlan, Tick(9)).map(|f| f.count), Some(2));
        in_flight.forget_failures(&b);
        assert!(in_flight.waits(&a, &vlan, Tick(9)).is_none());
    }
}
