//! CISCO-VLAN-MEMBERSHIP-MIB and CISCO-VTP-MIB: access VLANs, and trunks with the lists of VLANs that they let pass.
//!
//! Leaves out: making VLANs, which needs VTP's edit buffer.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Obstacle, Port, PortVlans, Target, VlanTable, Work, WriteStep, describe, exact, index, integer, plain, spare, unknown, wanted,
};
use crate::drivers::Fault;
use crate::drivers::switch::ask::{Asking, Told};
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::portlist::{self, Form};
use crate::drivers::switch::profiles::{Grouping, Profile};
use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::drivers::switch::value::{Column, number, numbers, octets, single};
use crate::model::Vlan;
use crate::model::fact::{PortConfig, PortMode, Quality};

/// By ifIndex.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Vtp {
    existing: BTreeSet<Vlan>,
    vm_vlan: BTreeMap<u32, i64>,
    native: BTreeMap<u32, i64>,
    encapsulation: BTreeMap<u32, i64>,
    dynamic_state: BTreeMap<u32, i64>,
    dynamic_status: BTreeMap<u32, i64>,
    enabled: [BTreeMap<u32, Vec<u8>>; 4],
    serial: Option<Value>,
    /// ccmHistoryRunningLastChanged is later than ccmHistoryStartupLastChanged.
    pub unsaved: Option<bool>,
}

// ---- reading ------------------------------------------------------------------------------------------------------------

impl Vtp {
    /// And why it may be less than all.
    pub(crate) async fn read(asking: &mut Asking<'_>, ports: usize) -> Result<(Vtp, Option<String>), Fault> {
        let [vm_vlan, state, status, native, encapsulation] = asking
            .told([o::VM_VLAN, o::TRUNK_DYNAMIC_STATE, o::TRUNK_DYNAMIC_STATUS, o::TRUNK_NATIVE, o::TRUNK_ENCAPSULATION], ports)
            .await?;
        let [vlan_state, vlan_type, serial] = asking.told([o::VTP_VLAN_STATE, o::VTP_VLAN_TYPE, o::TRUNK_SERIAL], 16).await?;
        let [running, startup] = asking.columns([o::CCM_RUNNING_CHANGED, o::CCM_STARTUP_CHANGED], 1).await?;
        let changed_at = |column: &Column| column.values().next().and_then(number);
        // 128 octets a row: few to a request.
        let enabled = asking.told(o::TRUNK_ENABLED, ports).await?;
        let needed = [&vm_vlan, &state, &status, &vlan_state, &vlan_type, &serial, &native, &encapsulation];
        let untold = needed.into_iter().chain(&enabled).find_map(|told| told.untold.clone());
        let list = |column: Told| column.rows.iter().filter_map(|(i, v)| Some((single(i)?, octets(v)?.to_vec()))).collect();
        let vtp = Vtp {
            existing: existing(&vlan_state.rows, &vlan_type.rows),
            vm_vlan: numbers(&vm_vlan.rows),
            native: numbers(&native.rows),
            encapsulation: numbers(&encapsulation.rows),
            dynamic_state: numbers(&state.rows),
            dynamic_status: numbers(&status.rows),
            enabled: enabled.map(list),
            serial: serial.rows.into_values().next(),
            unsaved: changed_at(&running).zip(changed_at(&startup)).map(|(running, startup)| running > startup),
        };
        Ok((vtp, untold))
    }

    /// vlanTrunkPortDynamicState: on(1), off(2), desirable(3), auto(4), onNoNegotiate(5); vlanTrunkPortDynamicStatus: trunking(1). The
    /// setting decides where it does, since a trunk that is down is not trunking.
    fn is_trunk(&self, if_index: u32) -> Option<bool> {
        match (self.dynamic_state.get(&if_index), self.dynamic_status.get(&if_index)) {
            (Some(1 | 5), _) => Some(true),
            (Some(2), _) => Some(false),
            (_, Some(status)) => Some(*status == 1),
            (Some(_), None) | (None, None) => None,
        }
    }

    /// The VLANs that a trunk lets pass, of which it has a list.
    fn enabled(&self, if_index: u32) -> Option<BTreeSet<u32>> {
        let part = |(n, column): (u32, &BTreeMap<u32, Vec<u8>>)| {
            column.get(&if_index).map(|list| portlist::members(Form::Bits, list, n * 1024)).unwrap_or_default()
        };
        self.enabled[0].contains_key(&if_index).then(|| (0..).zip(&self.enabled).flat_map(part).collect())
    }

    /// Whether access ports can be written: vmVlanTable has a row for each. It has none for trunks, so that it says nothing where all are trunks.
    pub(crate) fn takes_access(&self) -> bool {
        let mut ports = self.native.keys();
        !self.vm_vlan.is_empty() || ports.len() > 0 && ports.all(|port| self.is_trunk(*port) == Some(true))
    }

    pub(crate) fn takes_trunks(&self) -> bool {
        !self.enabled[0].is_empty()
    }

    fn port(&self, if_index: u32) -> PortVlans {
        let vlan = |column: &BTreeMap<u32, i64>| column.get(&if_index).and_then(|id| Vlan::try_from(*id).ok());
        let (access, native) = (vlan(&self.vm_vlan), vlan(&self.native));
        let trunk = match (self.is_trunk(if_index), access, native) {
            (Some(trunk), _, _) => trunk,
            (None, Some(_), _) => false,
            // vmVlanTable has no row of a port that is a trunk.
            (None, None, Some(_)) => true,
            (None, None, None) => return unknown("not a switch port"),
        };
        if !trunk {
            return match access {
                Some(_) => exact(access, BTreeSet::new(), Quality::Exact),
                None => unknown("its access VLAN is not shown"),
            };
        }
        let Some(enabled) = self.enabled(if_index) else {
            return PortVlans { mode: PortMode::Trunk, untagged: native, ..unknown("the VLANs of this trunk are not shown") };
        };
        let passes = |vlan: &Vlan| enabled.contains(&u32::from(vlan.id()));
        let tagged = self.existing.iter().filter(|v| passes(v) && Some(**v) != native).copied().collect();
        PortVlans { mode: PortMode::Trunk, untagged: native.filter(passes), tagged, quality: Quality::Exact }
    }
}

/// Ethernet VLANs: vtpVlanType ethernet(1). FDDI and token ring have their own, 1002 to 1005.
fn existing(states: &Column, types: &Column) -> BTreeSet<Vlan> {
    let ethernet = |index: &Vec<u32>| types.get(index).and_then(number).is_none_or(|kind| kind == 1);
    // managementDomainIndex, vtpVlanIndex
    let vlan = |index: &Vec<u32>| Vlan::try_from(i64::from(*index.last()?)).ok();
    states.keys().filter(|index| ethernet(index)).filter_map(vlan).collect()
}

// ---- writing ------------------------------------------------------------------------------------------------------------

const NAMES: &[(Arcs, &str)] = &[
    (o::VM_VLAN, "access VLAN"),
    (o::TRUNK_NATIVE, "native VLAN"),
    (o::TRUNK_ENCAPSULATION, "trunk encapsulation"),
    (o::TRUNK_DYNAMIC_STATE, "trunk mode"),
    (o::TRUNK_ENABLED[0], "VLANs of the trunk"),
    (o::TRUNK_ENABLED[1], "VLANs of the trunk"),
    (o::TRUNK_ENABLED[2], "VLANs of the trunk"),
    (o::TRUNK_ENABLED[3], "VLANs of the trunk"),
];

impl Vtp {
    /// The mode first: while it may be a trunk, its access VLAN says nothing.
    fn access_work(&self, target: Target<'_>, vlan: Vlan) -> Work {
        let index = [target.if_index];
        let right_vlan = self.vm_vlan.get(&target.if_index) == Some(&i64::from(vlan.id()));
        let trunk = self.is_trunk(target.if_index) == Some(true);
        if right_vlan && !trunk {
            return Work { disrupts: false, step: None };
        }
        let not_off = self.dynamic_state.get(&target.if_index).is_some_and(|state| *state != 2);
        let step = if not_off {
            self.with_serial(target, vec![integer(o::TRUNK_DYNAMIC_STATE, &index, 2)])
        } else {
            let binding = integer(o::VM_VLAN, &index, i64::from(vlan.id()));
            plain(describe(target, std::slice::from_ref(&binding), NAMES), vec![binding])
        };
        Work { disrupts: true, step: Some(step) }
    }

    /// The list first: a trunk without one lets all VLANs pass.
    fn trunk_work(&self, target: Target<'_>, to: &PortConfig, wanted: &BTreeSet<Vlan>) -> Result<Work, Obstacle> {
        let enabled = self.enabled(target.if_index).ok_or(Obstacle::Impossible("the list of its trunk's VLANs is not shown"))?;
        let passes = |vlan: &&Vlan| enabled.contains(&u32::from(vlan.id()));
        let native_now = self.native.get(&target.if_index).and_then(|id| Vlan::try_from(*id).ok());
        let native = match to.untagged {
            Some(vlan) => vlan,
            None => match native_now.filter(|vlan| !to.tagged.contains(vlan)) {
                Some(vlan) => vlan,
                None => spare(&self.existing, &to.tagged)?,
            },
        };
        let trunk = self.is_trunk(target.if_index) == Some(true);
        let untagged_now = native_now.filter(|vlan| passes(&vlan));
        let disrupts = !trunk || untagged_now != to.untagged || native_now != Some(native);
        let set = |bindings| Ok(Work { disrupts, step: Some(self.with_serial(target, bindings)) });
        let one = |arcs: Arcs, value: i64| vec![integer(arcs, &[target.if_index], value)];

        if self.existing.iter().filter(passes).ne(wanted) {
            return set(self.lists(target.if_index, wanted));
        }
        if native_now != Some(native) {
            return set(one(o::TRUNK_NATIVE, i64::from(native.id())));
        }
        if !trunk {
            // vlanTrunkPortEncapsulationType: dot1Q(4); where there is also ISL a trunk cannot be forced before it is chosen.
            if self.encapsulation.get(&target.if_index).is_some_and(|kind| *kind != 4) {
                return set(one(o::TRUNK_ENCAPSULATION, 4));
            }
            return set(one(o::TRUNK_DYNAMIC_STATE, 1));
        }
        Ok(Work { disrupts, step: None })
    }

    /// vlanTrunkPortVlansEnabled and its parts, no shorter than they were.
    fn lists(&self, if_index: u32, wanted: &BTreeSet<Vlan>) -> Vec<Binding> {
        let list = |(n, (arcs, column)): (u32, (&Arcs, &BTreeMap<u32, Vec<u8>>))| {
            let old = column.get(&if_index)?;
            let mut new = vec![0u8; old.len()];
            for vlan in wanted.iter().map(|vlan| u32::from(vlan.id())).filter(|vlan| vlan / 1024 == n) {
                let place = (vlan % 1024) as usize;
                if new.len() <= place / 8 {
                    new.resize(place / 8 + 1, 0);
                }
                new[place / 8] |= 0x80 >> (place % 8);
            }
            (new != *old).then(|| (at(arcs, &[if_index]), Value::Octets(new)))
        };
        (0..).zip(o::TRUNK_ENABLED.iter().zip(&self.enabled)).filter_map(list).collect()
    }

    /// "Any SNMP Set operation should also write vlanTrunkPortSetSerialNo" (CISCO-VTP-MIB): a TestAndIncr, which fails where another one wrote.
    fn with_serial(&self, target: Target<'_>, bindings: Vec<Binding>) -> WriteStep {
        let mut step = plain(describe(target, &bindings, NAMES), bindings);
        step.bindings.extend(self.serial.clone().map(|serial| (at(o::TRUNK_SERIAL, &[0]), serial)));
        step
    }

    fn numbers_mut(&mut self) -> [(Arcs, &mut BTreeMap<u32, i64>); 5] {
        [
            (o::VM_VLAN, &mut self.vm_vlan),
            (o::TRUNK_NATIVE, &mut self.native),
            (o::TRUNK_ENCAPSULATION, &mut self.encapsulation),
            (o::TRUNK_DYNAMIC_STATE, &mut self.dynamic_state),
            (o::TRUNK_DYNAMIC_STATUS, &mut self.dynamic_status),
        ]
    }
}

fn objects(target: Target<'_>) -> Vec<Oid> {
    let columns = [o::VM_VLAN, o::TRUNK_NATIVE, o::TRUNK_ENCAPSULATION, o::TRUNK_DYNAMIC_STATE, o::TRUNK_DYNAMIC_STATUS];
    let of_port = columns.iter().chain(&o::TRUNK_ENABLED).map(|arcs| at(arcs, &[target.if_index]));
    [at(o::TRUNK_SERIAL, &[0])].into_iter().chain(of_port).collect()
}

impl VlanTable for Vtp {
    fn existing(&self) -> BTreeSet<Vlan> {
        self.existing.clone()
    }

    fn of(&self, ports: &[Port<'_>]) -> Vec<PortVlans> {
        ports.iter().map(|port| self.port(port.if_index)).collect()
    }

    fn work(&self, _: &Profile, _: Grouping, target: Target<'_>, to: &PortConfig) -> Result<Work, Obstacle> {
        let wanted = wanted(&self.existing, to)?;
        match (to.untagged, to.tagged.is_empty()) {
            (Some(vlan), true) => Ok(self.access_work(target, vlan)),
            (None, true) => Err(Obstacle::Impossible("an access port always has an untagged VLAN")),
            (_, false) => self.trunk_work(target, to, &wanted),
        }
    }

    fn of_port(&self, target: Target<'_>, _: &PortConfig) -> Vec<Oid> {
        objects(target)
    }

    fn of_step(&self, target: Target<'_>, _: &WriteStep) -> Vec<Oid> {
        objects(target)
    }

    fn shown(&self, oid: &Oid) -> Option<Value> {
        let of = |arcs: Arcs, column: &BTreeMap<u32, i64>| column.get(&index(arcs, oid)?).copied().map(Value::Integer);
        let list = |(arcs, column): (&Arcs, &BTreeMap<u32, Vec<u8>>)| column.get(&index(arcs, oid)?).cloned();
        of(o::VM_VLAN, &self.vm_vlan)
            .or_else(|| of(o::TRUNK_NATIVE, &self.native))
            .or_else(|| of(o::TRUNK_ENCAPSULATION, &self.encapsulation))
            .or_else(|| of(o::TRUNK_DYNAMIC_STATE, &self.dynamic_state))
            .or_else(|| o::TRUNK_ENABLED.iter().zip(&self.enabled).find_map(list).map(Value::Octets))
    }

    fn note(&mut self, oid: &Oid, value: Option<&Value>) {
        if *oid == at(o::TRUNK_SERIAL, &[0]) {
            self.serial = value.cloned();
        }
        for (arcs, column) in self.numbers_mut() {
            if let Some(port) = index(arcs, oid) {
                match value.and_then(number) {
                    Some(n) => drop(column.insert(port, n)),
                    None => drop(column.remove(&port)),
                }
            }
        }
        for (arcs, column) in o::TRUNK_ENABLED.iter().zip(&mut self.enabled) {
            if let Some(port) = index(arcs, oid) {
                match value.and_then(octets) {
                    Some(list) => drop(column.insert(port, list.to_vec())),
                    None => drop(column.remove(&port)),
                }
            }
        }
    }

    fn written(&mut self, oid: &Oid, value: &Value) {
        // TestAndIncr, RFC 2579: what is written is the old value, and 2147483647 is followed by 0.
        match number(value).filter(|_| *oid == at(o::TRUNK_SERIAL, &[0])) {
            Some(serial) => self.note(oid, Some(&Value::Integer(if serial >= i64::from(i32::MAX) { 0 } else { serial + 1 }))),
            None => self.note(oid, Some(value)),
        }
    }

    fn creation(&self, _: Vlan, _: &[Target<'_>]) -> Result<Vec<Vec<Binding>>, String> {
        Err("its VLANs are made at its console or by VTP".to_owned())
    }
}
