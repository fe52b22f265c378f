//! The MIBs of a simulated switch: what it serves, and what it does with a SET.
//!
//! Leaves out: packets. Invariant: a refused PDU changes nothing, unless a fault says otherwise. Shown by `tests/switch_writes.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, FrameTypes, Kind, Port, SimSwitch, VlanRow, Who};
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::portlist;
use crate::drivers::switch::snmp::{Binding, Cut, Oid, Value, Walked};
use crate::model::Vlan;
use crate::model::fact::Admin;
use crate::sim::mib::Mib;
use crate::sim::recording::Tree;

// SNMPv2 error-status, RFC 3416
const GEN_ERR: u32 = 5;
const NO_ACCESS: u32 = 6;
const WRONG_TYPE: u32 = 7;
const WRONG_VALUE: u32 = 10;
const NO_CREATION: u32 = 11;
const INCONSISTENT_VALUE: u32 = 12;
const NOT_WRITABLE: u32 = 17;

fn wrong_type(_: &Value) -> u32 {
    WRONG_TYPE
}

/// error-status and error-index.
type Refusal = (u32, u32);

impl SimSwitch {
    /// Its up time goes on with time.
    fn served(&mut self) -> &mut Tree {
        let up_for = u32::try_from(self.up_since.elapsed().as_millis() / 10).unwrap_or(u32::MAX);
        let up_time = Value::TimeTicks(self.up_time.saturating_add(up_for));
        if self.served.is_none() {
            self.served = Some(Tree(self.tree()));
        }
        let served = self.served.get_or_insert_default();
        served.0.insert(at(o::SYS_UP_TIME, &[0]), up_time);
        served
    }

    fn tree(&self) -> BTreeMap<Oid, Value> {
        let mut tree = self.rest.0.clone();
        let mut put = |arcs: Arcs, index: &[u32], value: Value| drop(tree.insert(at(arcs, index), value));
        for (number, port) in (1..).zip(&self.config.ports) {
            let index = [port.if_index];
            let (admin, up) = (if port.admin == Admin::Up { 1 } else { 2 }, port.admin == Admin::Up && port.link);
            put(o::BASE_PORT_IF_INDEX, &[number], Value::Integer(i64::from(port.if_index)));
            if self.tells_neighbours {
                put(o::LLDP_LOC_PORT_ID, &[number], Value::Octets(port.name.clone().into_bytes()));
            }
            if up && self.tells_neighbours {
                self.heard(number, port, &mut put);
            }
            put(o::IF_DESCR, &index, Value::Octets(format!("Ethernet {}", port.name).into_bytes()));
            put(o::IF_NAME, &index, Value::Octets(port.name.clone().into_bytes()));
            put(o::IF_TYPE, &index, Value::Integer(6));
            put(o::IF_ADMIN_STATUS, &index, Value::Integer(admin));
            put(o::IF_OPER_STATUS, &index, Value::Integer(if up { 1 } else { 2 }));
            match self.kind {
                Kind::QBridge | Kind::Comware => {
                    put(o::PVID, &[number], Value::Unsigned32(u32::from(port.pvid.id())));
                    if self.frame_types != FrameTypes::NotServed {
                        put(o::FRAME_TYPES, &[number], Value::Integer(if port.tagged_only { 2 } else { 1 }));
                    }
                }
                Kind::Cisco => cisco_columns(port, &mut put),
                Kind::Foundry { .. } => {}
            }
        }
        for (id, row) in self.config.vlans.iter().map(|(vlan, row)| (u32::from(vlan.id()), row)) {
            match self.kind {
                Kind::QBridge | Kind::Comware => {
                    put(o::STATIC_NAME, &[id], Value::Octets(row.name.clone()));
                    put(o::STATIC_ROW_STATUS, &[id], Value::Integer(row.status));
                    for (stat, current, list) in
                        [(o::STATIC_EGRESS, o::CURRENT_EGRESS, &row.egress), (o::STATIC_UNTAGGED, o::CURRENT_UNTAGGED, &row.untagged)]
                    {
                        put(stat, &[id], Value::Octets(list.clone()));
                        if row.status == 1 {
                            put(current, &[0, id], Value::Octets(list.clone()));
                        }
                    }
                }
                Kind::Cisco => {
                    put(o::VTP_VLAN_STATE, &[1, id], Value::Integer(1));
                    put(o::VTP_VLAN_TYPE, &[1, id], Value::Integer(1));
                }
                Kind::Foundry { .. } => {}
            }
        }
        match self.kind {
            Kind::QBridge | Kind::Cisco => {}
            Kind::Comware => self.comware_columns(&mut put),
            Kind::Foundry { dual_mode } => self.foundry_columns(dual_mode, &mut put),
        }
        if matches!(self.kind, Kind::QBridge | Kind::Comware) {
            put(o::NUM_VLANS, &[0], Value::Unsigned32(u32::try_from(self.vlans().len()).unwrap_or(u32::MAX)));
        }
        if self.kind == Kind::Cisco {
            put(o::TRUNK_SERIAL, &[0], Value::Integer(self.serial));
            if self.tells_unsaved {
                put(o::CCM_RUNNING_CHANGED, &[0], Value::TimeTicks(if self.is_saved() { 1 } else { 2 }));
                put(o::CCM_STARTUP_CHANGED, &[0], Value::TimeTicks(1));
            }
            if let Some(state) = self.copy_state {
                put(CC_COPY_STATE, &[4_711], Value::Integer(state));
            }
        }
        tree
    }
}

impl SimSwitch {
    /// What comes in on a port that is up: addresses, and LLDP.
    fn heard(&self, number: u32, port: &Port, put: &mut impl FnMut(Arcs, &[u32], Value)) {
        let vlan = u32::from(port.pvid.id());
        for mac in self.stations.get(&port.name).into_iter().flatten() {
            let mac = mac.octets().map(u32::from);
            match self.kind {
                Kind::QBridge | Kind::Comware | Kind::Foundry { .. } => {
                    put(o::TP_FDB_PORT, &[&[vlan], &mac[..]].concat(), Value::Integer(i64::from(number)));
                    put(o::TP_FDB_STATUS, &[&[vlan], &mac[..]].concat(), Value::Integer(3));
                }
                Kind::Cisco => put(o::TP_FDB_PORT_OLD, &mac, Value::Integer(i64::from(number))),
            }
        }
        if let Some(neighbour) = self.announced.get(&port.name) {
            let index = [0, number, 1];
            put(o::LLDP_REM_CHASSIS_SUBTYPE, &index, Value::Integer(4));
            put(o::LLDP_REM_CHASSIS, &index, Value::Octets(neighbour.chassis.octets().to_vec()));
            put(o::LLDP_REM_PORT_SUBTYPE, &index, Value::Integer(5));
            put(o::LLDP_REM_PORT, &index, Value::Octets(neighbour.port.clone().into_bytes()));
            put(o::LLDP_REM_SYS_NAME, &index, Value::Octets(neighbour.system.clone().into_bytes()));
            // LldpSystemCapabilitiesMap: bridge(2), stationOnly(7)
            put(o::LLDP_REM_CAPABILITIES, &index, Value::Octets(vec![if neighbour.bridge { 0x20 } else { 0x01 }]));
        }
    }
}

/// CISCO-CONFIG-COPY-MIB::ccCopyState and ccCopyEntryRowStatus.
const CC_COPY: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1];
const CC_COPY_STATE: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1, 10];
const CC_COPY_ROW_STATUS: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1, 14];

fn cisco_columns(port: &Port, put: &mut impl FnMut(Arcs, &[u32], Value)) {
    let index = [port.if_index];
    let trunk = matches!(port.trunk.mode, 1 | 5);
    if !trunk {
        put(o::VM_VLAN, &index, Value::Integer(i64::from(port.pvid.id())));
    }
    put(o::TRUNK_NATIVE, &index, Value::Integer(i64::from(port.trunk.native.id())));
    put(o::TRUNK_DYNAMIC_STATE, &index, Value::Integer(port.trunk.mode));
    if let Some(kind) = port.trunk.encapsulation {
        put(o::TRUNK_ENCAPSULATION, &index, Value::Integer(kind));
    }
    let trunking = trunk && port.admin == Admin::Up && port.link;
    put(o::TRUNK_DYNAMIC_STATUS, &index, Value::Integer(if trunking { 1 } else { 2 }));
    for (arcs, list) in o::TRUNK_ENABLED.iter().zip(&port.trunk.lists) {
        put(arcs, &index, Value::Octets(list.clone()));
    }
}

impl Mib for SimSwitch {
    fn get(&mut self, oid: &Oid) -> Option<Value> {
        self.saving_goes_on(oid);
        self.served().0.get(oid).cloned()
    }

    fn next(&mut self, oid: &Oid) -> Option<Binding> {
        self.served().next_after(oid)
    }

    fn walked(&mut self, column: &Oid) -> Walked {
        match self.faults.hides {
            Some(hidden) if column.0.starts_with(hidden) => {
                Walked { cut: Some(Cut::Refused("genErr(5)".to_owned())), ..Walked::whole(Vec::new()) }
            }
            Some(_) | None => self.served().walked(column),
        }
    }

    fn set(&mut self, bindings: &[Binding]) -> Result<(), Refusal> {
        let (before, faults) = (self.views(), self.faults);
        if faults.read_only {
            return Err((NO_ACCESS, 1));
        }
        if faults.ok_but_not_applied {
            return Ok(());
        }
        let under = |arcs: Option<Arcs>, oid: &Oid| arcs.is_some_and(|arcs| oid.0.starts_with(arcs));
        if let Some((place, _)) = (1u32..).zip(bindings).find(|(_, (oid, _))| under(faults.refuses, oid)) {
            return Err((NOT_WRITABLE, place));
        }
        let heard: Vec<Binding> = bindings.iter().filter(|(oid, _)| !under(faults.ignores, oid)).cloned().collect();
        let bindings = heard.as_slice();
        let taken = if faults.first_varbind_only { &bindings[..bindings.len().min(1)] } else { bindings };
        let (answer, after) = self.applied(taken);
        if answer.is_ok() || faults.not_atomic {
            self.config = after;
        }
        self.note(Who::Snmp, &before);
        if faults.error_but_applied { answer.and(Err((GEN_ERR, 0))) } else { answer }
    }
}

// ---- SET ------------------------------------------------------------------------------------------------------------------------

impl SimSwitch {
    /// What the configuration becomes. Rules between objects hold at the end of a PDU, or, where it is not atomic, after every varbind.
    fn applied(&mut self, bindings: &[Binding]) -> (Result<(), Refusal>, Config) {
        let mut config = self.config.clone();
        for (place, (oid, value)) in (1u32..).zip(bindings) {
            let mut next = config.clone();
            let set = self.set_one(&mut next, oid, value);
            let checked = if self.faults.not_atomic { set.and_then(|()| self.check(&mut next)) } else { set };
            if let Err(status) = checked {
                return (Err((status, place)), config);
            }
            config = next;
        }
        let mut checked = config.clone();
        match self.check(&mut checked) {
            Ok(()) => (Ok(()), checked),
            Err(status) => (Err((status, bindings.len() as u32)), config),
        }
    }

    /// The rules between objects, and what follows from them.
    fn check(&self, config: &mut Config) -> Result<(), u32> {
        match self.kind {
            Kind::QBridge | Kind::Cisco => {}
            Kind::Comware => self.link_rules(config)?,
            Kind::Foundry { dual_mode } => self.foundry_rules(config, dual_mode)?,
        }
        let within = |row: &VlanRow| {
            let egress = portlist::members(self.form, &row.egress, 1);
            portlist::members(self.form, &row.untagged, 1).is_subset(&egress)
        };
        // Only what was right before must stay right: recordings contradict themselves.
        let changed = |vlan: &Vlan, row: &VlanRow| self.config.vlans.get(vlan) != Some(row);
        let lists = config.vlans.iter().all(|(vlan, row)| !changed(vlan, row) || within(row));
        let exists = |port: &Port| config.vlans.contains_key(&port.pvid) || self.config.ports.contains(port);
        if lists && config.ports.iter().all(exists) { Ok(()) } else { Err(INCONSISTENT_VALUE) }
    }

    fn set_one(&mut self, config: &mut Config, oid: &Oid, value: &Value) -> Result<(), u32> {
        let index = |arcs: Arcs| match oid.0.strip_prefix(arcs) {
            Some([index]) => Some(*index),
            Some(_) | None => None,
        };
        if let Some(port) = index(o::IF_ADMIN_STATUS).and_then(|i| config.ports.iter_mut().find(|port| port.if_index == i)) {
            port.admin = match value {
                Value::Integer(1) => Admin::Up,
                Value::Integer(2) => Admin::Down,
                Value::Integer(_) => return Err(WRONG_VALUE),
                other => return Err(wrong_type(other)),
            };
            return Ok(());
        }
        match self.kind {
            Kind::QBridge => self.set_bridge(config, &index, value),
            Kind::Comware => match self.set_comware(config, oid, value) {
                Some(set) => set,
                None => self.set_bridge(config, &index, value),
            },
            Kind::Cisco => self.set_cisco(config, oid, &index, value),
            Kind::Foundry { dual_mode } => self.set_foundry_one(config, dual_mode, oid, value),
        }
    }

    fn set_bridge(&mut self, config: &mut Config, index: &dyn Fn(Arcs) -> Option<u32>, value: &Value) -> Result<(), u32> {
        if let Some(port) = index(o::PVID).and_then(|n| config.ports.get_mut(n.checked_sub(1)? as usize)) {
            let Value::Unsigned32(id) = value else { return Err(WRONG_TYPE) };
            port.pvid = Vlan::try_from(i64::from(*id)).map_err(|_| WRONG_VALUE)?;
            return if config.vlans.contains_key(&port.pvid) { Ok(()) } else { Err(INCONSISTENT_VALUE) };
        }
        if let Some(port) = index(o::FRAME_TYPES).and_then(|n| config.ports.get_mut(n.checked_sub(1)? as usize)) {
            port.tagged_only = match value {
                Value::Integer(_) if self.frame_types != FrameTypes::Writable => return Err(NOT_WRITABLE),
                Value::Integer(1) => false,
                Value::Integer(2) => true,
                Value::Integer(_) => return Err(WRONG_VALUE),
                other => return Err(wrong_type(other)),
            };
            return Ok(());
        }
        if let Some(vlan) = index(o::STATIC_ROW_STATUS).and_then(|id| Vlan::try_from(i64::from(id)).ok()) {
            return self.set_row_status(config, vlan, value);
        }
        for arcs in [o::STATIC_NAME, o::STATIC_EGRESS, o::STATIC_UNTAGGED] {
            let Some(vlan) = index(arcs).and_then(|id| Vlan::try_from(i64::from(id)).ok()) else { continue };
            if self.faults.row_status_alone && !self.config.vlans.contains_key(&vlan) {
                return Err(NO_CREATION);
            }
            let row = config.vlans.get_mut(&vlan).ok_or(NO_CREATION)?;
            let Value::Octets(octets) = value else { return Err(WRONG_TYPE) };
            if arcs == o::STATIC_NAME {
                row.name = octets.clone();
            } else if arcs == o::STATIC_EGRESS {
                row.egress = octets.clone();
            } else {
                let old = portlist::members(self.form, &row.untagged, 1);
                row.untagged = octets.clone();
                if self.faults.pvid_follows {
                    for port in portlist::members(self.form, octets, 1).difference(&old) {
                        if let Some(port) = port.checked_sub(1).and_then(|n| config.ports.get_mut(n as usize)) {
                            port.pvid = vlan;
                        }
                    }
                }
            }
            return Ok(());
        }
        Err(NOT_WRITABLE)
    }

    /// RowStatus (RFC 2579): active(1), createAndGo(4), createAndWait(5), destroy(6).
    fn set_row_status(&self, config: &mut Config, vlan: Vlan, value: &Value) -> Result<(), u32> {
        let Value::Integer(status) = value else { return Err(WRONG_TYPE) };
        let width = self.width();
        let exists = config.vlans.contains_key(&vlan);
        match status {
            4 | 5 if exists => return Err(INCONSISTENT_VALUE),
            4 | 5 => {
                let status = if *status == 4 { 1 } else { 3 };
                config.vlans.insert(vlan, VlanRow { name: Vec::new(), egress: vec![0; width], untagged: vec![0; width], status });
            }
            1 => config.vlans.get_mut(&vlan).ok_or(INCONSISTENT_VALUE)?.status = 1,
            6 if config.ports.iter().any(|port| port.pvid == vlan) => return Err(INCONSISTENT_VALUE),
            6 => drop(config.vlans.remove(&vlan)),
            _ => return Err(WRONG_VALUE),
        }
        Ok(())
    }

    fn set_cisco(&mut self, config: &mut Config, oid: &Oid, index: &dyn Fn(Arcs) -> Option<u32>, value: &Value) -> Result<(), u32> {
        if oid.0.starts_with(CC_COPY) {
            self.copy(oid, value);
            return Ok(());
        }
        if index(o::TRUNK_SERIAL) == Some(0) {
            // TestAndIncr, RFC 2579
            if *value != Value::Integer(self.serial) {
                return Err(INCONSISTENT_VALUE);
            }
            self.serial += 1;
            return Ok(());
        }
        let columns = [o::VM_VLAN, o::TRUNK_NATIVE, o::TRUNK_ENCAPSULATION, o::TRUNK_DYNAMIC_STATE].into_iter().chain(o::TRUNK_ENABLED);
        let Some((arcs, if_index)) = columns.filter_map(|arcs| Some((arcs, index(arcs)?))).next() else { return Err(NOT_WRITABLE) };
        let existing: BTreeSet<Vlan> = config.vlans.keys().copied().collect();
        let Some(port) = config.ports.iter_mut().find(|port| port.if_index == if_index) else { return Err(NO_CREATION) };
        if let (Some(n), Value::Octets(list)) = (o::TRUNK_ENABLED.iter().position(|list| *list == arcs), value) {
            port.trunk.lists[n] = list.clone();
            return Ok(());
        }
        let Value::Integer(number) = value else { return Err(WRONG_TYPE) };
        if arcs == o::TRUNK_ENCAPSULATION && port.trunk.encapsulation.is_some() {
            port.trunk.encapsulation = Some(*number).filter(|kind| (1..=5).contains(kind));
            return port.trunk.encapsulation.map(|_| ()).ok_or(WRONG_VALUE);
        }
        if arcs == o::TRUNK_DYNAMIC_STATE {
            // "An interface whose trunk encapsulation is negotiated cannot be configured to trunk mode."
            if *number == 1 && port.trunk.encapsulation == Some(5) {
                return Err(INCONSISTENT_VALUE);
            }
            port.trunk.mode = if (1..=5).contains(number) { *number } else { return Err(WRONG_VALUE) };
            return Ok(());
        }
        let vlan = Vlan::try_from(*number).map_err(|_| WRONG_VALUE)?;
        match (arcs == o::VM_VLAN, matches!(port.trunk.mode, 1 | 5)) {
            // vmVlanTable has no rows of trunks.
            (true, true) => return Err(NO_CREATION),
            (true, false) if !existing.contains(&vlan) => return Err(INCONSISTENT_VALUE),
            (true, false) => port.pvid = vlan,
            (false, _) if arcs == o::TRUNK_NATIVE => port.trunk.native = vlan,
            (false, _) => return Err(NOT_WRITABLE),
        }
        Ok(())
    }

    /// A copy of the configuration is done at once: successful(3), or failed(4).
    fn copy(&mut self, oid: &Oid, value: &Value) {
        if oid.0.starts_with(CC_COPY_ROW_STATUS) {
            let starts = *value == Value::Integer(4);
            let fails = self.faults.copy_fails;
            if starts {
                self.copies += 1;
            }
            if starts && !fails {
                self.saved = self.config.clone();
            }
            self.copy_state = starts.then_some(if fails { 4 } else { 3 });
        }
    }
}
