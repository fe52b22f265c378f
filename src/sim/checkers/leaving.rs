//! What leaves as an operation: whose it is, what it disturbs, and whether it ends what was begun. Each is judged once, at its first datagram.
//!
//! A SET does not say what it is a part of: which operation a driver is at is told by `sim::watched`. What an operation needs is judged in `shown`,
//! `stops` and `unasked`, by the body's power as it truly is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::authority::Host;
use super::{Judge, PortName};
use crate::drivers::gate::Key;
use crate::model::body::{Body, port_id};
use crate::model::fact::{Admin, Power, Tick};
use crate::model::op::{Device, Op};
use crate::model::{Name, binding::Plane};

/// How long an operation may be on its way: what is desired, shown or stopped meanwhile may not call it back.
pub(super) const IN_FLIGHT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Leaving {
    under_way: BTreeMap<(Host, Device), UnderWay>,
    /// Ports of which a write has left, and that are not stored as ended.
    half_way: BTreeSet<PortName>,
    /// Bodies of which a controller was told last that they are on.
    told_on: BTreeSet<Name>,
}

struct UnderWay {
    op: Op,
    left: bool,
}

/// The first datagram of an operation leaves.
pub(super) struct Departure<'a> {
    pub host: Host,
    pub op: &'a Op,
    pub server: Name,
    /// In whose name it may be: who holds the body, and who is to release it.
    pub bindings: Vec<Name>,
    /// The body runs, embody was told so, and this takes its power or something of its network away.
    pub disrupts: bool,
    /// Its body is on.
    pub on: bool,
    /// A write of this port was begun before: to end it needs no new word.
    pub ends_what_was_begun: bool,
    pub now: Tick,
}

impl Departure<'_> {
    pub(super) fn plane(&self) -> Plane {
        match self.op {
            Op::SetBoot { .. } => Plane::Boot,
            Op::PowerOn { .. } | Op::PowerOff { .. } => Plane::Power,
            Op::SetPort { .. } | Op::CreateVlan { .. } | Op::Save { .. } => Plane::Network,
        }
    }
}

impl Judge {
    /// A driver begins with an operation.
    pub fn begins(&mut self, host: Host, op: &Op) {
        self.leaving.under_way.insert((host, op.device()), UnderWay { op: op.clone(), left: false });
    }

    /// And is back. `done`: the device did it.
    pub fn came_back(&mut self, host: Host, op: &Op, done: bool, now: Tick) {
        let left = self.leaving.under_way.remove(&(host, op.device())).is_some_and(|at| at.left);
        if let Some(server) = self.server_of(op).filter(|_| left && done) {
            self.was_done(&server, op, now);
        }
    }

    /// A part of an operation leaves for a BMC.
    pub(super) fn leaves(&mut self, host: Host, op: &Op, now: Tick) {
        let same = |at: &&mut UnderWay| std::mem::discriminant(&at.op) == std::mem::discriminant(op);
        let again =
            self.leaving.under_way.get_mut(&(host, op.device())).filter(same).is_some_and(|at| std::mem::replace(&mut at.left, true));
        let Some(server) = self.server_of(op).filter(|_| !again) else { return };
        let port = match op {
            Op::SetPort { switch, port, .. } => Some((switch.clone(), port.clone())),
            Op::SetBoot { .. } | Op::PowerOn { .. } | Op::PowerOff { .. } | Op::CreateVlan { .. } | Op::Save { .. } => None,
        };
        let on = self.power.get(&server) == Some(&Power::On);
        let body = self.body(&server);
        let departure = Departure {
            host,
            op,
            bindings: body.release.iter().chain(&body.held_by).map(|hold| hold.binding.clone()).collect(),
            disrupts: on && self.leaving.told_on.contains(&server) && takes_away(op),
            on,
            ends_what_was_begun: port.is_some_and(|port| !self.leaving.half_way.insert(port)),
            now,
            server,
        };
        self.stopped(&departure);
        self.needs_a_word(&departure);
        self.counts_as_unasked(&departure);
        self.rolls(&departure);
        self.shown.left(&departure);
    }

    /// A SET leaves for a switch.
    pub(super) fn set_leaves(&mut self, host: Host, switch: &Name, key: &Key, now: Tick) {
        let at = self.leaving.under_way.get(&(host, Device::Switch(switch.clone())));
        if let Some(op) = at.map(|at| at.op.clone()).filter(|op| Key::of(op) == *key) {
            self.leaves(host, &op, now);
        }
    }

    pub(super) fn power_is_told(&mut self, server: &Name, power: Power) {
        match power {
            Power::On => drop(self.leaving.told_on.insert(server.clone())),
            Power::Off => drop(self.leaving.told_on.remove(server)),
        }
    }

    pub(super) fn is_told_on(&self, server: &Name) -> bool {
        self.leaving.told_on.contains(server)
    }

    fn server_of(&self, op: &Op) -> Option<Name> {
        match op {
            Op::SetBoot { server, .. } | Op::PowerOn { server } | Op::PowerOff { server, .. } => Some(server.clone()),
            Op::SetPort { switch, port, .. } => self.wired(switch, port),
            Op::CreateVlan { .. } | Op::Save { .. } => None,
        }
    }

    /// What is stored of a body says which of its ports were begun and not ended.
    pub(super) fn half_way_is_stored(&mut self, server: &Name, body: &Body) {
        let (wired, half_way) = (&self.objects.servers, &self.leaving.half_way);
        let nics = wired.get(server).map(|held| held.spec.nics.as_slice()).unwrap_or_default();
        let ports = nics.iter().filter_map(|nic| Some((nic.switch.clone()?, nic.port.clone()?)));
        let begun = |(switch, port): &PortName| body.ports.get(&port_id(switch, port)).is_some_and(|debt| debt.begun.is_some());
        let ended: Vec<PortName> = ports.filter(|port| half_way.contains(port) && !begun(port)).collect();
        for port in ended {
            self.leaving.half_way.remove(&port);
        }
    }
}

/// Whether a body that runs loses something by it: its power, its link, a VLAN.
fn takes_away(op: &Op) -> bool {
    match op {
        Op::PowerOff { .. } => true,
        Op::SetPort { from, to, .. } if from.admin == Admin::Up => {
            to.admin == Admin::Down || from.untagged != to.untagged || !from.tagged.is_subset(&to.tagged)
        }
        Op::SetPort { .. } | Op::SetBoot { .. } | Op::PowerOn { .. } | Op::CreateVlan { .. } | Op::Save { .. } => false,
    }
}
