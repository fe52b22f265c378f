//! The one GET before each SET: the objects to be written, and whether this is still the switch and the port that are meant.
//!
//! Leaves out: what is written (`engine`, `make`). Invariant: nothing is asked between this GET and its SET, and the SET may rely on it only
//! as long as `Freshness` says. What identifies the switch must be shown, and equal; a switch that started again, or a port that has
//! another name or place, gets nothing, and all that is known of the switch is forgotten. Shown by `tests/switch_gate.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::engine::Engine;
use super::objects::{self as o, at};
use super::read::{self, identity};
use super::snmp::{Oid, Value, not_let_out};
use super::tables::Target;
use super::value::{number, text};
use crate::drivers::Fault;
use crate::drivers::gate::Freshness;
use crate::model::identity::Sameness;

impl Engine<'_> {
    /// These objects as they are now (without those that are not there), and until when a SET may rely on them.
    pub(super) async fn before(
        &mut self,
        what: &str,
        mut wanted: Vec<Oid>,
        targets: &[Target<'_>],
    ) -> Result<(BTreeMap<Oid, Value>, Freshness), Fault> {
        self.permit.check().map_err(|closed| not_let_out(self.device, what, &closed))?;
        wanted.push(at(o::SYS_UP_TIME, &[0]));
        wanted.extend(self.identity_objects());
        wanted.extend(targets.iter().flat_map(|target| self.place_objects(*target)));
        wanted.sort();
        wanted.dedup();
        let asked_at = self.permit.now();
        let found = read::get(self.agent, &wanted).await?;
        let round_trip = self.round_trip(asked_at);
        self.same_switch(what, &found)?;
        self.not_restarted(what, &found)?;
        for target in targets {
            self.same_place(what, *target, &found)?;
        }
        Ok((found, Freshness::within(asked_at, round_trip)))
    }

    /// The middle one of this operation's questions, of two the quicker: one during which this process, or the switch, stood still does not
    /// make its own answer look new.
    fn round_trip(&mut self, asked_at: Duration) -> Duration {
        self.round_trips.push(self.permit.now().saturating_sub(asked_at));
        self.round_trips.sort();
        self.round_trips.get((self.round_trips.len() - 1) / 2).copied().unwrap_or_default()
    }

    pub(super) fn not_sent(&self, what: &str, why: String) -> Fault {
        Fault::NotSent { device: self.device.to_owned(), what: what.to_owned(), why }
    }

    /// Of what identifies the switch, what is pinned and costs one object each.
    fn identity_objects(&self) -> Vec<Oid> {
        let pinned = &self.permit.pinned;
        let scalars = [(pinned.engine.is_some(), o::SNMP_ENGINE_ID), (pinned.base.is_some(), o::BASE_BRIDGE_ADDRESS)];
        let scalars = scalars.into_iter().filter(|(pinned, _)| *pinned).map(|(_, arcs)| at(arcs, &[0]));
        let chassis = self.inventory.chassis.iter().filter(|_| !pinned.serials.is_empty()).take(CHASSIS_MAX);
        scalars.chain(chassis.map(|index| at(o::ENT_PHYSICAL_SERIAL, &[*index]))).collect()
    }

    /// What the key of the port was read from, and where the port stands in the bridge.
    fn place_objects(&self, target: Target<'_>) -> Vec<Oid> {
        let name = self.inventory.places.0.get(&target.if_index).and_then(|place| place.name.as_ref());
        let name = name.map(|(arcs, _)| at(arcs, &[target.if_index]));
        let base_port = target.base_port.filter(|_| self.inventory.base_table).map(|port| at(o::BASE_PORT_IF_INDEX, &[port]));
        name.into_iter().chain(base_port).collect()
    }

    fn same_switch(&mut self, what: &str, found: &BTreeMap<Oid, Value>) -> Result<(), Fault> {
        let serials = found.iter().filter(|(oid, _)| oid.0.starts_with(o::ENT_PHYSICAL_SERIAL)).filter_map(|(_, value)| text(value));
        let scalar = |arcs| found.get(&at(arcs, &[0]));
        let shown = identity(serials.collect(), scalar(o::SNMP_ENGINE_ID), scalar(o::BASE_BRIDGE_ADDRESS), self.agent.engine_id());
        let pinned = &self.permit.pinned;
        match pinned.compare(&shown) {
            Sameness::Same => Ok(()),
            Sameness::Different { pinned, shown } => {
                *self.stale = true;
                Err(Fault::OtherDevice { device: self.device.to_owned(), expected: pinned, found: shown })
            }
            Sameness::NotTold if pinned.is_empty() => Err(self.not_sent(what, "nothing is known that identifies the switch".to_owned())),
            Sameness::NotTold => Err(self.not_sent(what, format!("the switch shows nothing now of what identifies it ({pinned})"))),
        }
    }

    fn not_restarted(&mut self, what: &str, found: &BTreeMap<Oid, Value>) -> Result<(), Fault> {
        let now = found.get(&at(o::SYS_UP_TIME, &[0])).and_then(number);
        let why = match (self.up_time, now) {
            (Some(before), Some(now)) if now < before => "the switch has started again since it was read",
            (Some(_), None) => "the switch does not show sysUpTime any more",
            (Some(_) | None, _) => {
                self.up_time = now;
                return Ok(());
            }
        };
        *self.stale = true;
        Err(self.not_sent(what, why.to_owned()))
    }

    /// ifIndex and base port are numbers that a restart or a new module may give to another port.
    fn same_place(&mut self, what: &str, target: Target<'_>, found: &BTreeMap<Oid, Value>) -> Result<(), Fault> {
        let name = self.inventory.places.0.get(&target.if_index).and_then(|place| place.name.as_ref());
        let renamed = name.is_some_and(|(arcs, name)| found.get(&at(arcs, &[target.if_index])).and_then(text).as_ref() != Some(name));
        let index = |port: &u32| found.get(&at(o::BASE_PORT_IF_INDEX, &[*port])).and_then(number);
        let moved = target.base_port.filter(|_| self.inventory.base_table).is_some_and(|port| index(&port) != Some(target.if_index.into()));
        if !renamed && !moved {
            return Ok(());
        }
        *self.stale = true;
        let what_differs = if renamed { "name" } else { "base port" };
        let why =
            format!("the {what_differs} of ifIndex {} is not what it was for {}: its ports were renumbered", target.if_index, target.key);
        Err(self.not_sent(what, why))
    }
}

/// Chassis whose serial numbers are asked before each SET: of a stack one is enough, and its first member may be the one that left.
const CHASSIS_MAX: usize = 4;
