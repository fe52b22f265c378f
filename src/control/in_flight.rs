//! The operations that were sent and have not come back, those that failed and are tried again, and the limits on how many go at once.
//!
//! Leaves out: whether one may go (`plan`, `plan::guardrails`), and what becomes of it (`outcome`). Invariant: an operation is here exactly as
//! long as its place in the budget is taken.

use std::collections::{BTreeMap, BTreeSet};

use crate::drivers::Fault;
use crate::limits;
use crate::model::fact::Tick;
use crate::model::op::{Device, Disruption, Op};
use crate::model::policy::Limits;
use crate::model::{Name, Reason};
use crate::plan::budget::Budget;
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
    /// Those that correct drift.
    drifts: BTreeSet<Op>,
    /// By server and `Op::goal`.
    failures: BTreeMap<(Name, String), Failure>,
    budget: Budget,
}

impl InFlight {
    pub(super) fn contains(&self, op: &Op) -> bool {
        self.ops.contains_key(op)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Op, &Name)> {
        self.ops.iter()
    }

    pub(super) fn of_server<'a>(&'a self, server: &'a Name) -> impl Iterator<Item = &'a Op> {
        self.ops.iter().filter(move |(_, of)| *of == server).map(|(op, _)| op)
    }

    pub(super) fn is_busy(&self, device: &Device) -> bool {
        self.ops.keys().any(|op| op.device() == *device)
    }

    /// Takes a place for an operation that is about to be sent; why there is none, and when there may be.
    pub(super) fn take_place(&mut self, op: &Op, limits: &Limits, now: Tick) -> Result<(), (String, Tick)> {
        self.budget.take(op, limits, now)
    }

    /// It is not sent after all.
    pub(super) fn give_back(&mut self, op: &Op) {
        self.budget.release(op);
        self.drifts.remove(op);
    }

    pub(super) fn corrects_drift(&mut self, op: &Op) {
        self.drifts.insert(op.clone());
    }

    pub(super) fn sent(&mut self, op: Op, server: Name) {
        self.ops.insert(op, server);
    }

    /// It came back: for which server it was, and whether it corrected drift.
    pub(super) fn came_back(&mut self, op: &Op) -> Option<(Name, bool)> {
        self.budget.release(op);
        let drift = self.drifts.remove(op);
        self.ops.remove(op).map(|server| (server, drift))
    }

    /// The worker of their device ended: what became of them is not known.
    pub(super) fn lose(&mut self, device: &Device) -> Vec<(Op, Name)> {
        let lost: Vec<Op> = self.ops.keys().filter(|op| op.device() == *device).cloned().collect();
        lost.into_iter().filter_map(|op| self.came_back(&op).map(|(server, _)| (op, server))).collect()
    }

    // ---- what failed -----------------------------------------------------------------------------------------------------

    pub(super) fn succeeded(&mut self, server: &Name, op: &Op) {
        self.failures.remove(&(server.clone(), op.goal()));
    }

    pub(super) fn failed(&mut self, server: &Name, op: &Op, fault: &Fault, now: Tick) {
        let key = (server.clone(), op.goal());
        let count = self.failures.get(&key).map_or(1, |f| f.count.saturating_add(1));
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
        self.failures.insert(key, Failure { trouble, count, again_at: now.plus(delay) });
    }

    /// Why an operation is not tried at this moment: it failed a while ago.
    pub(super) fn waits(&self, server: &Name, op: &Op, now: Tick) -> Option<&Failure> {
        self.failures.get(&(server.clone(), op.goal())).filter(|failure| failure.again_at > now)
    }

    pub(super) fn failures_of<'a>(&'a self, server: &'a Name, now: Tick) -> impl Iterator<Item = &'a Failure> {
        self.failures.iter().filter(move |((of, _), failure)| of == server && failure.again_at > now).map(|(_, failure)| failure)
    }

    pub(super) fn forget_failures(&mut self, server: &Name) {
        self.failures.retain(|(of, _), _| of != server);
    }
}
