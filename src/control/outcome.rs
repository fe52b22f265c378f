//! What became of operations: the back-off of those that failed, and the saving of switches that were changed.
//!
//! Leaves out: what is done next about it (`reconcile`), and when a switch is saved (`plan::save`). Invariant: a save is sent only here, only
//! for a switch that we changed, and not while a person or the manifest says that nothing is written. Shown by `tests/saves.rs`.

use super::absorb;
use super::controller::Controller;
use super::worker::Job;
use crate::drivers::{Delivery, Depth, Fault, Notes};
use crate::limits;
use crate::model::body::Sent;
use crate::model::fact::Tick;
use crate::model::op::{Device, Op};
use crate::model::switch::SavePolicy;
use crate::model::{Kind, Name};
use crate::plan::consent;
use crate::plan::observed::Trouble;
use crate::plan::record::Record;
use crate::plan::save::{Next, Unsaved};

/// What an operation that failed is waiting for.
#[derive(Debug, Clone)]
pub struct Failure {
    pub trouble: Trouble,
    pub count: u32,
    pub again_at: Tick,
}

impl Controller {
    pub(super) async fn came_back(&mut self, op: &Op, asked_at: Tick, result: &Result<Notes, Fault>) {
        let fault = result.as_ref().err();
        self.budget.release(op);
        match op {
            Op::SetPort { switch, port, .. } => {
                self.cache.ports_in_flight.remove(&(switch.clone(), port.clone()));
                self.switch_was_written(switch, asked_at, fault.is_none());
            }
            Op::CreateVlan { switch, .. } => self.switch_was_written(switch, asked_at, fault.is_none()),
            Op::Save { switch } => self.save_came_back(switch, fault).await,
            Op::SetBoot { .. } | Op::PowerOn { .. } | Op::PowerOff { .. } => {}
        }
        for note in result.iter().flatten() {
            self.event("Warning", &op.device().regarding(), "Noticed", note).await;
        }
        let Some(server) = self.in_flight.remove(op) else { return };
        self.delivered(&server, op, fault).await;
        if self.drifts.remove(op) && fault.is_none() {
            self.guardrails.corrected(&server, op, self.clock.now());
        }
        let key = (server, consent::signature(op));
        match fault {
            None => drop(self.failures.remove(&key)),
            Some(fault) => self.failed(key, op, fault),
        }
    }

    /// What became of a power command goes into its intent: the next one depends on it.
    async fn delivered(&mut self, server: &Name, op: &Op, fault: Option<&Fault>) {
        let now = self.clock.now();
        let delivery = fault.map_or(Delivery::Accepted, Fault::delivery);
        let left = delivery != Delivery::NotSent;
        if left {
            self.cache.memory_of(server).came_back(op, now);
        }
        let record = match (op, delivery) {
            (Op::PowerOff { how, .. }, delivery) => {
                let sent = match delivery {
                    Delivery::Accepted => Sent::Accepted,
                    Delivery::NotSent => Sent::Nothing,
                    Delivery::Refused(code) => Sent::Refused(code),
                    // As it was written ahead.
                    Delivery::Unknown => return,
                };
                Some(Record::OffSent { how: *how, sent }).filter(|_| self.cache.body(server).off.is_some())
            }
            (Op::PowerOn { .. }, Delivery::NotSent | Delivery::Refused(_)) => Some(Record::OnDone),
            _ => None,
        };
        if let Some(record) = record {
            // Where it is not stored, it stays unknown: that is the safe side.
            self.record(server, &[record]).await;
        }
    }

    fn failed(&mut self, key: (Name, String), op: &Op, fault: &Fault) {
        let now = self.clock.now();
        let count = self.failures.get(&key).map_or(1, |f| f.count + 1);
        let growing = limits::RETRY_FIRST.saturating_mul(1 << (count - 1).min(8)).min(limits::RETRY_MAX);
        // Not before a person changes the user's rights on the device: seldom enough for its log, often enough to be noticed.
        let delay = if matches!(fault, Fault::Forbidden { .. }) { limits::RETRY_MAX } else { growing };
        let trouble = absorb::trouble(fault);
        tracing::warn!(op = %op, reason = %trouble.reason, error = trouble.message, "an operation failed");
        self.failures.insert(key, Failure { trouble, count, again_at: now.plus(delay) });
    }

    // ---- saving --------------------------------------------------------------------------------------------------------

    fn switch_was_written(&mut self, switch: &Name, asked_at: Tick, verified: bool) {
        let now = self.clock.now();
        match self.cache.unsaved.get_mut(switch) {
            Some(unsaved) => unsaved.changed(asked_at, verified, now),
            None if verified => drop(self.cache.unsaved.insert(switch.clone(), Unsaved::new(asked_at, now))),
            None => return,
        }
        self.dirty_objects.insert((Kind::Switch, switch.clone()));
    }

    async fn save_came_back(&mut self, switch: &Name, fault: Option<&Fault>) {
        let regarding = format!("{}/{switch}", Kind::Switch);
        self.dirty_objects.insert((Kind::Switch, switch.clone()));
        let Some(fault) = fault else {
            self.cache.unsaved.remove(switch);
            tracing::info!(switch = %switch, "its configuration is saved");
            return self.event("Normal", &regarding, "Saved", "its running configuration is saved").await;
        };
        let now = self.clock.now();
        let trouble = absorb::trouble(fault);
        let Some(unsaved) = self.cache.unsaved.get_mut(switch) else { return };
        let news = unsaved.trouble.as_ref().map(|t| t.reason) != Some(trouble.reason);
        tracing::warn!(switch = %switch, reason = %trouble.reason, error = trouble.message, "its configuration could not be saved");
        unsaved.failed(trouble.clone(), now);
        if news {
            let message = format!("its running configuration could not be saved: {}", trouble.message);
            self.event("Warning", &regarding, "SaveFailed", &message).await;
        }
    }

    /// Saves what is due. When the next save is.
    pub(super) fn save_switches(&mut self) -> Option<Tick> {
        let now = self.clock.now();
        let mut wake = None;
        for switch in self.cache.unsaved.keys().cloned().collect::<Vec<Name>>() {
            if !self.can_be_saved(&switch) {
                self.cache.unsaved.remove(&switch);
                continue;
            }
            if self.lease.remaining().is_zero() || !self.cache.may_save(&switch) {
                continue;
            }
            let device = Device::Switch(switch.clone());
            let busy = self.in_flight.keys().any(|op| op.device() == device);
            let tells = self.cache.switches.get(&switch).and_then(|k| k.seen.as_ref()).map(|s| (s.value.unsaved, s.asked_at));
            let Some(next) = self.cache.unsaved.get(&switch).map(|unsaved| unsaved.next(tells, busy, now)) else { continue };
            match next {
                Next::Save => {
                    let sent = self.send_op(Op::Save { switch: switch.clone() });
                    if let Some(unsaved) = self.cache.unsaved.get_mut(&switch).filter(|_| sent) {
                        unsaved.sent = true;
                        tracing::info!(switch = %switch, "sent: save configuration");
                    }
                }
                Next::Observe => {
                    self.send(&device, Job::Observe(Depth::State));
                    self.cache.unsaved.get_mut(&switch).into_iter().for_each(|unsaved| unsaved.observe_at = now);
                }
                Next::At(at) => wake = Some(wake.map_or(at, |w: Tick| w.min(at))),
                Next::Wait => {}
                Next::Clean => {
                    self.cache.unsaved.remove(&switch);
                    self.dirty_objects.insert((Kind::Switch, switch));
                }
            }
        }
        wake
    }

    /// Whether there is such a switch, its manifest lets it be saved, and its profile knows how (as far as it was seen).
    fn can_be_saved(&self, switch: &Name) -> bool {
        let desired = self.cache.objects.switches.get(switch).is_some_and(|held| held.spec.save == SavePolicy::Lazily);
        let seen = self.cache.switches.get(switch).and_then(|known| known.seen.as_ref());
        desired && seen.is_none_or(|seen| seen.value.writable.save)
    }
}
