//! What became of operations: the back-off of those that failed, and the saving of switches that were changed.
//!
//! Leaves out: what is done next about it (`reconcile`), and when a switch is saved (`plan::save`). Invariant: a save is sent only here, only
//! for a switch that we changed, and not while a person or the manifest says that nothing is written. Shown by `tests/saves.rs`.

use super::absorb;
use super::controller::Controller;
use super::worker::Job;
use crate::drivers::{Delivery, Depth, Fault, Notes};
use crate::model::body::Sent;
use crate::model::fact::Tick;
use crate::model::op::{Device, Op};
use crate::model::switch::SavePolicy;
use crate::model::{Kind, Name};
use crate::plan::record::Record;
use crate::plan::save::{Next, Unsaved};

impl Controller {
    pub(super) async fn came_back(&mut self, op: &Op, asked_at: Tick, result: &Result<Notes, Fault>) {
        let fault = result.as_ref().err();
        let whose = self.in_flight.came_back(op);
        match op {
            Op::SetPort { switch, port, .. } => {
                self.cache.ports_in_flight.remove(&(switch.clone(), port.clone()));
                self.switch_was_written(switch, asked_at, fault.is_none());
            }
            Op::CreateVlan { switch, .. } => self.switch_was_written(switch, asked_at, fault.is_none()),
            Op::Save { switch } => self.save_came_back(switch, fault),
            Op::SetBoot { .. } | Op::PowerOn { .. } | Op::PowerOff { .. } => {}
        }
        for note in result.iter().flatten() {
            self.status.event("Warning", &op.device().regarding(), "Noticed", note);
        }
        let Some((server, drift)) = whose else { return };
        self.wake(&server);
        self.delivered(&server, op, fault).await;
        if drift && fault.is_none() {
            self.guardrails.corrected(&server, op, self.clock.now());
        }
        match fault {
            None => {
                self.in_flight.succeeded(&server, op);
                self.approved_is_done(&server, op);
            }
            Some(fault) => self.in_flight.failed(&server, op, fault, self.clock.now()),
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
        // What only this user may not do, a person can mend.
        if let (Op::SetBoot { .. }, Some(Fault::Refused { code, .. })) = (op, fault) {
            self.cache.memory_of(server).boot_refused = Some((now, code.clone()));
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

    // ---- saving --------------------------------------------------------------------------------------------------------

    fn switch_was_written(&mut self, switch: &Name, asked_at: Tick, verified: bool) {
        let now = self.clock.now();
        match self.cache.unsaved.get_mut(switch) {
            Some(unsaved) => unsaved.changed(asked_at, verified, now),
            None if verified => drop(self.cache.unsaved.insert(switch.clone(), Unsaved::new(asked_at, now))),
            None => return,
        }
        self.look_whether_to_save(switch);
        self.status.changed(Kind::Switch, switch);
    }

    /// Something is known of a switch that may be about its saving.
    pub(super) fn look_whether_to_save(&mut self, switch: &Name) {
        if self.cache.unsaved.contains_key(switch) {
            self.saves.insert(switch.clone(), self.clock.now());
        }
    }

    fn save_came_back(&mut self, switch: &Name, fault: Option<&Fault>) {
        let regarding = format!("{}/{switch}", Kind::Switch);
        self.status.changed(Kind::Switch, switch);
        let Some(fault) = fault else {
            self.cache.unsaved.remove(switch);
            tracing::info!(switch = %switch, "its configuration is saved");
            return self.status.event("Normal", &regarding, "Saved", "its running configuration is saved");
        };
        let now = self.clock.now();
        let trouble = absorb::trouble(fault);
        let Some(unsaved) = self.cache.unsaved.get_mut(switch) else { return };
        let news = unsaved.trouble.as_ref().map(|t| t.reason) != Some(trouble.reason);
        tracing::warn!(switch = %switch, reason = %trouble.reason, error = trouble.message, "its configuration could not be saved");
        unsaved.failed(trouble.clone(), now);
        if news {
            let message = format!("its running configuration could not be saved: {}", trouble.message);
            self.status.event("Warning", &regarding, "SaveFailed", &message);
        }
    }

    /// Saves what is due.
    pub(super) fn save_switches(&mut self) {
        let now = self.clock.now();
        let due: Vec<Name> = self.saves.iter().filter(|(_, at)| **at <= now).map(|(switch, _)| switch.clone()).collect();
        for switch in due {
            self.saves.remove(&switch);
            if !self.can_be_saved(&switch) {
                self.cache.unsaved.remove(&switch);
                continue;
            }
            if self.lease.remaining().is_zero() || !self.cache.may_save(&switch) {
                continue;
            }
            let device = Device::Switch(switch.clone());
            let busy = self.in_flight.is_busy(&device);
            let tells = self.cache.switches.get(&switch).and_then(|k| k.seen.as_ref()).map(|s| (s.value.unsaved, s.asked_at));
            let Some(next) = self.cache.unsaved.get(&switch).map(|unsaved| unsaved.next(tells, busy, now)) else { continue };
            match next {
                Next::Save => {
                    let sent = self.fleet.send_op(Op::Save { switch: switch.clone() }, &self.cache);
                    if let Some(unsaved) = self.cache.unsaved.get_mut(&switch).filter(|_| sent) {
                        unsaved.sent = true;
                        tracing::info!(switch = %switch, "sent: save configuration");
                    }
                }
                Next::Observe => {
                    self.fleet.send(&device, Job::Observe(Depth::State));
                    self.cache.unsaved.get_mut(&switch).into_iter().for_each(|unsaved| unsaved.observe_at = now);
                }
                Next::At(at) => drop(self.saves.insert(switch, at)),
                Next::Wait => {}
                Next::Clean => {
                    self.cache.unsaved.remove(&switch);
                    self.status.changed(Kind::Switch, &switch);
                }
            }
        }
    }

    /// Whether there is such a switch, its manifest lets it be saved, and its profile knows how (as far as it was seen).
    fn can_be_saved(&self, switch: &Name) -> bool {
        let desired = self.cache.objects.switches.get(switch).is_some_and(|held| held.spec.save == SavePolicy::Lazily);
        let seen = self.cache.switches.get(switch).and_then(|known| known.seen.as_ref());
        desired && seen.is_none_or(|seen| seen.value.writable.save)
    }
}
