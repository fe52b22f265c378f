//! Invariants 9 and 10: how a body is switched off, and that nobody's body is touched unasked.
//!
//! A hard off is judged when it leaves: what its BMC accepted before, in this intent, and how long ago.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Judge;
use super::authority::Host;
use crate::limits;
use crate::model::Name;
use crate::model::body::{Body, Sent};
use crate::model::fact::{Power, Tick};
use crate::model::op::Off;
use crate::sim::bmc::Control;

/// How long a controller may go on by an earlier Policy: it stands still for that long at most while it has the lease.
const OLD_POLICY: Duration = limits::LEASE_TTL;

#[derive(Default)]
pub(super) struct Offs {
    /// Servers to which a switching-off is on its way that was right when it left.
    allowed: BTreeSet<Name>,
    /// When a BMC accepted a soft-off, in the intent that is open.
    soft_accepted: BTreeMap<Name, Tick>,
    /// When the first command of the open intent left.
    began: BTreeMap<Name, Tick>,
    /// That of one that was given up after it was accepted: it may be obeyed yet.
    given_up: BTreeMap<Name, Tick>,
    /// Until when a person's `--hard` holds, by binding.
    hard_word: BTreeMap<Name, Tick>,
    /// Whether the Policy allows what a person's `--hard` does, and when it last ceased to.
    by_policy: bool,
    by_policy_until: Option<Tick>,
}

impl Offs {
    /// A new intent knows nothing of an earlier one.
    pub(super) fn intent_stored(&mut self, server: &Name, open: bool) {
        if !open {
            self.soft_accepted.remove(server);
            self.given_up.extend(self.began.remove(server).map(|at| (server.clone(), at)));
        }
    }

    /// The switching-off of this body needs a person.
    pub(super) fn is_stuck(&self, body: &Body) -> bool {
        body.off.as_ref().is_some_and(|off| off.soft.tries >= limits::SOFT_OFF_TRIES || off.hard.tries >= limits::HARD_OFF_TRIES)
    }

    pub(super) fn came_on(&mut self, server: &Name) {
        self.given_up.remove(server);
    }

    pub(super) fn began_at(&self, server: &Name) -> Option<Tick> {
        self.began.get(server).or_else(|| self.given_up.get(server)).copied()
    }
}

impl Judge {
    /// A person says `--hard` for a binding.
    pub fn hard_allowed(&mut self, binding: &Name, now: Tick) {
        self.offs.hard_word.insert(binding.clone(), now.plus(limits::APPROVAL_FOR));
    }

    /// The grace of whoever is to release the body, or holds it. Of one whose binding is gone: the shortest that any grants.
    fn grace(&self, server: &Name) -> Duration {
        let body = self.body(server);
        let grace = |binding: &Name| self.objects.bindings.get(binding).map(|b| b.spec.shutdown.grace.0);
        let of_it = body.release.as_ref().or(body.held_by.as_ref()).and_then(|h| grace(&h.binding));
        of_it.or_else(|| self.objects.bindings.values().map(|b| b.spec.shutdown.grace.0).min()).unwrap_or(limits::HARD_OFF_WAIT)
    }

    fn by_word(&self, server: &Name, now: Tick) -> bool {
        let body = self.body(server);
        let said = |binding: &Name| self.offs.hard_word.get(binding).is_some_and(|until| now < *until);
        let by_person = body.release.iter().chain(&body.held_by).any(|h| said(&h.binding));
        let lately = self.offs.by_policy_until.is_some_and(|until| now.since(until) < OLD_POLICY);
        by_person || self.offs.by_policy || lately
    }

    pub(super) fn policy_changed(&mut self, now: Tick) {
        let allows = self.objects.policy().limits.hard_off_without_soft;
        if self.offs.by_policy && !allows {
            self.offs.by_policy_until = Some(now);
        }
        self.offs.by_policy = allows;
    }

    pub(super) fn switching_off(&mut self, host: Host, server: &Name, how: Off, now: Tick) {
        self.switched_off += 1;
        self.offs.began.entry(server.clone()).or_insert(now);
        let stored = self.body(server).off.map(|intent| match how {
            Off::Soft => intent.soft,
            Off::Hard => intent.hard,
        });
        if stored.is_none_or(|sending| sending.last != Sent::Unknown) {
            self.violated(&[server], format!("invariant 9: {how:?} off leaves for {server}, and nothing stored says that it may have"));
        }
        if how == Off::Hard {
            self.gentle(host, server, now);
        }
        // A request that is late on its way may arrive when the body is somebody else's: what counts is whose it was when it left.
        if !self.is_strange(server) {
            self.offs.allowed.insert(server.clone());
        }
    }

    /// A machine that runs is asked to shut down, and has its whole grace, before its power is cut.
    fn gentle(&mut self, host: Host, server: &Name, now: Tick) {
        let grace = self.grace(server);
        if grace.is_zero() || self.by_word(server, now) {
            return;
        }
        let Some(accepted) = self.offs.soft_accepted.get(server).copied() else {
            let sentence = format!("invariant 9: the power of {server} is cut without a soft-off that its BMC accepted");
            return self.violated(&[server], sentence);
        };
        let counted_from = accepted.max(self.began_at(host));
        let counted = now.since(counted_from).saturating_sub(self.paused_since(server, counted_from, now));
        if counted < grace {
            let sentence =
                format!("invariant 9: the power of {server} is cut {counted:?} after a soft-off was accepted; its grace is {grace:?}");
            self.violated(&[server], sentence);
        }
    }

    // ---- what arrives -----------------------------------------------------------------------------------------------------

    pub fn control(&mut self, server: &Name, control: Control, now: Tick) {
        let on = self.power.get(server) == Some(&Power::On);
        if on && control == Control::Soft {
            self.offs.soft_accepted.entry(server.clone()).or_insert(now);
        }
        match control {
            Control::Cycle | Control::Reset => self.violated(&[server], format!("{server} was sent {control:?}, which embody never sends")),
            Control::Off | Control::Soft if !self.offs.allowed.remove(server) && on && self.is_strange(server) => {
                self.violated(&[server], format!("invariant 10: {server} was found running, and is switched off without approval"));
            }
            Control::Off | Control::Soft | Control::On => {}
        }
    }

    pub fn boot_flags(&mut self, server: &Name, _now: Tick) {
        if self.is_strange(server) {
            self.violated(&[server], format!("invariant 10: {server} was found running, and its boot device is written without approval"));
        }
    }
}
