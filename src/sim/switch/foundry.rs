//! A Foundry: a row for each member of a VLAN, a mode for each port, and one object that saves.
//!
//! By its MIB and by PacketFence's notes: a port that leaves its VLANs comes back into the default VLAN by itself; before FastIron 8.0.80 a port
//! is untagged in one VLAN, or tagged in several, and in dual mode one of these has its untagged frames as well; another VLAN for dual mode is
//! taken only after the first was taken back; a VLAN that was made by its first member is not shown when it has none. The lists of members stand in the rows of Q-BRIDGE-MIB.

use std::collections::BTreeSet;

use super::comware::put as set_bits;
use super::{Config, Port, PortView, SimSwitch, VlanRow};
use crate::drivers::switch::objects::{self as o, Arcs};
use crate::drivers::switch::portlist;
use crate::drivers::switch::snmp::{Oid, Value};
use crate::model::Vlan;
use crate::model::fact::PortConfig;

// SNMPv2 error-status, RFC 3416
const GEN_ERR: u32 = 5;
const WRONG_TYPE: u32 = 7;
const WRONG_VALUE: u32 = 10;
const NO_CREATION: u32 = 11;
const INCONSISTENT_VALUE: u32 = 12;
const NOT_WRITABLE: u32 = 17;

fn member(arcs: Arcs, oid: &Oid) -> Option<(Vlan, u32)> {
    let Some([vlan, port]) = oid.0.strip_prefix(arcs) else { return None };
    Some((Vlan::try_from(i64::from(*vlan)).ok()?, *port))
}

impl SimSwitch {
    fn is_in(&self, list: &[u8], number: u32) -> bool {
        portlist::has(self.form, list, 1, number)
    }

    /// The rows of one port: tagged, untagged.
    fn rows_of(&self, config: &Config, number: u32) -> (BTreeSet<Vlan>, BTreeSet<Vlan>) {
        let of = |wanted: bool| {
            let is = |row: &VlanRow| self.is_in(&row.egress, number) && self.is_in(&row.untagged, number) != wanted;
            config.vlans.iter().filter(|(_, row)| is(row)).map(|(vlan, _)| *vlan).collect()
        };
        (of(true), of(false))
    }

    pub(super) fn foundry_view(&self, number: u32, port: &Port) -> PortView {
        let (mut tagged, mut untagged) = self.rows_of(&self.config, number);
        if let Some(dual) = port.dual {
            tagged.remove(&dual);
            untagged = [dual].into();
        }
        PortView { admin: port.admin, ingress: untagged.first().copied(), untagged, tagged }
    }

    pub(super) fn foundry_columns(&self, dual_mode: bool, put: &mut impl FnMut(Arcs, &[u32], Value)) {
        let integer = |vlan: Vlan| Value::Integer(i64::from(vlan.id()));
        put(o::FOUNDRY_DEFAULT_VLAN, &[0], integer(Vlan::DEFAULT));
        // snAgWriteNVRAM: normal(1), error(2), writing(4)
        let nvram = match (self.saving, self.copy_state) {
            (Some(_), _) => 4,
            (None, Some(12)) => 2,
            (None, _) => 1,
        };
        put(o::FOUNDRY_WRITE_NVRAM, &[0], Value::Integer(nvram));
        for (vlan, _) in self.config.vlans.iter().filter(|(_, row)| !row.name.is_empty()) {
            put(o::FOUNDRY_VLAN_STATUS, &[u32::from(vlan.id())], Value::Integer(2));
        }
        for (number, port) in (1u32..).zip(&self.config.ports) {
            let (tagged, untagged) = self.rows_of(&self.config, number);
            for (vlans, mode) in [(&tagged, 1), (&untagged, 2)] {
                for id in vlans.iter().map(|vlan| u32::from(vlan.id())) {
                    put(o::FOUNDRY_MEMBER_STATUS, &[id, port.if_index], Value::Integer(2));
                    put(o::FOUNDRY_MEMBER_TAG_MODE, &[id, port.if_index], Value::Integer(mode));
                    put(o::FOUNDRY_VLAN_STATUS, &[id], Value::Integer(2));
                }
            }
            let native = port.dual.or(untagged.first().copied());
            let mode = if tagged.is_empty() {
                2
            } else if port.dual.is_some() {
                3
            } else {
                1
            };
            put(o::FOUNDRY_IF_TAG_MODE, &[port.if_index], Value::Integer(mode));
            let told = native.filter(|vlan| dual_mode && (tagged.is_empty() || *vlan != Vlan::DEFAULT));
            put(o::FOUNDRY_IF_VLAN, &[port.if_index], told.map_or(Value::Integer(0), integer));
            put(o::PVID, &[number], Value::Unsigned32(u32::from(native.unwrap_or(Vlan::DEFAULT).id())));
        }
    }

    /// At the console; the lists have been set as of any bridge.
    pub(super) fn set_foundry(&mut self, place: usize, dual_mode: bool, to: &PortConfig) -> Option<()> {
        let dual = to.untagged.filter(|_| dual_mode && !to.tagged.is_empty());
        self.config.ports.get_mut(place)?.dual = dual;
        if let Some(row) = dual.and_then(|vlan| self.config.vlans.get_mut(&vlan)) {
            set_bits(self.form, row, place as u32 + 1, true, false);
        }
        let mut config = self.config.clone();
        self.settle(&mut config, dual_mode);
        self.config = config;
        Some(())
    }

    pub(super) fn set_foundry_one(&mut self, config: &mut Config, dual_mode: bool, oid: &Oid, value: &Value) -> Result<(), u32> {
        let Value::Integer(n) = value else { return Err(WRONG_TYPE) };
        let place = |config: &Config, index: u32| config.ports.iter().position(|port| port.if_index == index).ok_or(NO_CREATION);
        let index = |arcs: Arcs| if let Some([index]) = oid.0.strip_prefix(arcs) { Some(*index) } else { None };
        if index(o::FOUNDRY_WRITE_NVRAM) == Some(0) {
            self.copies += 1;
            self.saving = Some(1);
            return if *n == 3 { Ok(()) } else { Err(WRONG_VALUE) };
        }
        if let Some((vlan, port)) = member(o::FOUNDRY_MEMBER_STATUS, oid) {
            let number = place(config, port)? as u32 + 1;
            return self.set_member(config, vlan, number, *n);
        }
        if let Some((vlan, port)) = member(o::FOUNDRY_MEMBER_TAG_MODE, oid) {
            let number = place(config, port)? as u32 + 1;
            let is_member = config.vlans.get(&vlan).is_some_and(|row| self.is_in(&row.egress, number));
            let row = config.vlans.get_mut(&vlan).filter(|_| is_member).ok_or(NO_CREATION)?;
            set_bits(self.form, row, number, true, *n == 2);
            return if matches!(n, 1 | 2) { Ok(()) } else { Err(WRONG_VALUE) };
        }
        if let Some(port) = index(o::FOUNDRY_IF_TAG_MODE) {
            let place = place(config, port)?;
            return match n {
                3 if dual_mode => {
                    config.ports[place].dual = config.ports[place].dual.or(Some(Vlan::DEFAULT));
                    Ok(())
                }
                1 if dual_mode => {
                    config.ports[place].dual = None;
                    Ok(())
                }
                _ => Err(NOT_WRITABLE),
            };
        }
        let Some(port) = index(o::FOUNDRY_IF_VLAN).filter(|_| dual_mode) else { return Err(NOT_WRITABLE) };
        let place = place(config, port)?;
        let vlan = if *n == 0 { Vlan::DEFAULT } else { Vlan::try_from(*n).map_err(|_| WRONG_VALUE)? };
        let tagged = self.rows_of(config, place as u32 + 1).0;
        match config.ports[place].dual {
            None => return Err(INCONSISTENT_VALUE),
            Some(now) if now != Vlan::DEFAULT && vlan != Vlan::DEFAULT && now != vlan => return Err(GEN_ERR),
            Some(_) if vlan != Vlan::DEFAULT && !tagged.contains(&vlan) => return Err(INCONSISTENT_VALUE),
            Some(_) => config.ports[place].dual = Some(vlan),
        }
        Ok(())
    }

    /// snVLanByPortMemberRowStatus: delete(3), create(4).
    fn set_member(&self, config: &mut Config, vlan: Vlan, number: u32, status: i64) -> Result<(), u32> {
        let is_member = config.vlans.get(&vlan).is_some_and(|row| self.is_in(&row.egress, number));
        match (status, is_member) {
            _ if vlan == Vlan::DEFAULT => Err(WRONG_VALUE),
            (4, false) => {
                let width = self.width();
                let empty = || VlanRow { name: Vec::new(), egress: vec![0; width], untagged: vec![0; width], status: 1 };
                set_bits(self.form, config.vlans.entry(vlan).or_insert_with(empty), number, true, true);
                Ok(())
            }
            (3, true) => {
                if let Some(row) = config.vlans.get_mut(&vlan) {
                    set_bits(self.form, row, number, false, false);
                }
                Ok(())
            }
            (_, _) => Err(WRONG_VALUE),
        }
    }

    /// The rules at the end of a PDU.
    pub(super) fn foundry_rules(&self, config: &mut Config, dual_mode: bool) -> Result<(), u32> {
        for (number, port) in (1u32..).zip(&config.ports) {
            let (tagged, mut untagged) = self.rows_of(config, number);
            untagged.remove(&Vlan::DEFAULT);
            let lost = port.dual.is_some_and(|vlan| vlan != Vlan::DEFAULT && !tagged.contains(&vlan));
            if untagged.len() > 1 || (dual_mode && !tagged.is_empty() && !untagged.is_empty()) || lost {
                return Err(INCONSISTENT_VALUE);
            }
        }
        self.settle(config, dual_mode);
        Ok(())
    }

    /// Who is in the default VLAN.
    fn settle(&self, config: &mut Config, dual_mode: bool) {
        for place in 0..config.ports.len() {
            let number = place as u32 + 1;
            let (tagged, untagged) = self.rows_of(config, number);
            let elsewhere = untagged.iter().any(|vlan| *vlan != Vlan::DEFAULT);
            if tagged.is_empty() {
                config.ports[place].dual = None;
            }
            let here = !elsewhere && (tagged.is_empty() || !dual_mode);
            if let Some(row) = config.vlans.get_mut(&Vlan::DEFAULT) {
                set_bits(self.form, row, number, here, here);
            }
        }
        // The view of a port without rows of its own.
        for (number, port) in (1u32..).zip(config.ports.clone()) {
            let (_, untagged) = self.rows_of(config, number);
            let native = port.dual.or(untagged.first().copied()).unwrap_or(Vlan::DEFAULT);
            if let Some(port) = config.ports.get_mut(number as usize - 1) {
                port.pvid = native;
            }
        }
    }
}
