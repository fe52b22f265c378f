//! A simulated switch that begins as a recording shows a real one.
//!
//! Leaves out: what a recording shows and no rule touches (served as it is). Shown by `tests/switch_writes.rs`.

use std::collections::BTreeMap;

use super::{Config, Port, Trunk, VlanRow};
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::portlist;
use crate::drivers::switch::snmp::{Oid, Value};
use crate::model::Vlan;
use crate::model::fact::Admin;
use crate::sim::recording::Tree;

fn column(tree: &Tree, arcs: Arcs) -> BTreeMap<u32, Value> {
    let prefix = Oid(arcs.to_vec());
    let rows = tree.0.range(prefix.clone()..).take_while(|(oid, _)| oid.starts_with(&prefix));
    rows.filter_map(|(oid, value)| Some((*oid.0.last()?, value.clone()))).collect()
}

fn integer(value: &Value) -> Option<i64> {
    if let Value::Integer(n) = value {
        return Some(*n);
    }
    if let Value::Unsigned32(n) = value { Some(i64::from(*n)) } else { None }
}

fn vlan(value: &Value) -> Option<Vlan> {
    integer(value).and_then(|id| Vlan::try_from(id).ok())
}

fn bytes(value: Option<&Value>) -> Vec<u8> {
    if let Some(Value::Octets(octets)) = value { octets.clone() } else { Vec::new() }
}

fn recorded_port(tree: &Tree, if_index: u32, pvid: Vlan) -> Port {
    let admin = tree.0.get(&at(o::IF_ADMIN_STATUS, &[if_index])).and_then(integer);
    let octets = |arcs: Arcs| bytes(tree.0.get(&at(arcs, &[if_index])));
    let name = String::from_utf8_lossy(&octets(o::IF_NAME)).into_owned();
    let number = |arcs: Arcs| tree.0.get(&at(arcs, &[if_index]));
    Port {
        name,
        if_index,
        admin: if admin == Some(1) { Admin::Up } else { Admin::Down },
        pvid,
        tagged_only: false,
        trunk: Trunk {
            mode: number(o::TRUNK_DYNAMIC_STATE).and_then(integer).unwrap_or(2),
            encapsulation: number(o::TRUNK_ENCAPSULATION).and_then(integer),
            native: number(o::TRUNK_NATIVE).and_then(vlan).unwrap_or(pvid),
            lists: o::TRUNK_ENABLED.map(octets),
        },
        link_type: number(o::LINK_TYPE).and_then(integer).unwrap_or(super::comware::HYBRID),
        dual: None,
        link: number(o::IF_OPER_STATUS).and_then(integer) == Some(1),
    }
}

/// Base ports in their order; those without a PVID row are left out, with all behind them, so that the place stays the base port.
pub(super) fn bridge(tree: &Tree) -> Option<Config> {
    let (base, pvid) = (column(tree, o::BASE_PORT_IF_INDEX), column(tree, o::PVID));
    let (egress, untagged) = (column(tree, o::STATIC_EGRESS), column(tree, o::STATIC_UNTAGGED));
    let only_tagged = |number: u32| tree.0.get(&at(o::FRAME_TYPES, &[number])).and_then(integer) == Some(2);
    let port = |number: u32| {
        let if_index = u32::try_from(integer(base.get(&number)?)?).ok()?;
        Some(Port { tagged_only: only_tagged(number), ..recorded_port(tree, if_index, vlan(pvid.get(&number)?)?) })
    };
    let ports: Vec<Port> = (1..).map_while(port).collect();
    let row = |(index, list): (&u32, &Value)| {
        let vlan = Vlan::try_from(i64::from(*index)).ok()?;
        Some((vlan, VlanRow { name: Vec::new(), egress: bytes(Some(list)), untagged: bytes(untagged.get(index)), status: 1 }))
    };
    let vlans: BTreeMap<Vlan, VlanRow> = egress.iter().filter_map(row).collect();
    (!ports.is_empty() && !vlans.is_empty()).then_some(Config { ports, vlans })
}

pub(super) fn cisco(tree: &Tree) -> Option<Config> {
    let access = column(tree, o::VM_VLAN);
    let one = Vlan::try_from(1).ok()?;
    let port = |index: &u32| recorded_port(tree, *index, access.get(index).and_then(vlan).unwrap_or(one));
    let ethernet = |index: &&u32| tree.0.get(&at(o::IF_TYPE, &[**index])).and_then(integer) == Some(6);
    let ports: Vec<Port> = column(tree, o::TRUNK_DYNAMIC_STATE).keys().filter(ethernet).map(port).collect();
    let types = column(tree, o::VTP_VLAN_TYPE);
    let row = VlanRow { name: Vec::new(), egress: Vec::new(), untagged: Vec::new(), status: 1 };
    let states = column(tree, o::VTP_VLAN_STATE);
    let ids = states.keys().filter(|id| types.get(id).and_then(integer).is_none_or(|kind| kind == 1));
    let vlans: BTreeMap<Vlan, VlanRow> = ids.filter_map(|id| Some((Vlan::try_from(i64::from(*id)).ok()?, row.clone()))).collect();
    (!ports.is_empty() && !vlans.is_empty()).then_some(Config { ports, vlans })
}

/// Ports in the order of their base ports; the rows of members become lists.
pub(super) fn foundry(tree: &Tree) -> Option<Config> {
    let (base, pvid) = (column(tree, o::BASE_PORT_IF_INDEX), column(tree, o::PVID));
    let indexes: Vec<u32> = base.values().filter_map(|index| u32::try_from(integer(index)?).ok()).collect();
    let port = |(number, index): (&u32, &u32)| recorded_port(tree, *index, pvid.get(number).and_then(vlan).unwrap_or(Vlan::DEFAULT));
    let ports: Vec<Port> = base.keys().zip(&indexes).map(port).collect();
    let empty = vec![0u8; ports.len().div_ceil(8)];
    let row = || VlanRow { name: Vec::new(), egress: empty.clone(), untagged: empty.clone(), status: 1 };
    let mut vlans: BTreeMap<Vlan, VlanRow> = [(Vlan::DEFAULT, row())].into();
    for (oid, mode) in &tree.0 {
        let Some([id, index]) = oid.0.strip_prefix(o::FOUNDRY_MEMBER_TAG_MODE) else { continue };
        let number = indexes.iter().position(|known| known == index)? as u32 + 1;
        let members = vlans.entry(Vlan::try_from(i64::from(*id)).ok()?).or_insert_with(row);
        super::comware::put(portlist::Form::Bits, members, number, true, integer(mode) == Some(2));
    }
    (!ports.is_empty()).then_some(Config { ports, vlans })
}
