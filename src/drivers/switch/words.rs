//! SETs in the words of their MIBs, for people: `SET dot1qVlanStaticEgressPorts.120 +Gi1/0/1, dot1qVlanStaticUntaggedPorts.120 +Gi1/0/1`.
//!
//! Leaves out: which SETs (`write`). Invariant: of a list of ports the difference to what was read is shown, and nothing else; an object
//! without a name here is shown by its number. Shown by `tests/previews.rs`.
// tidy: table

use std::collections::BTreeSet;

use super::objects::{self as o, Arcs};
use super::portlist::{self, Form};
use super::read::{Inventory, State};
use super::snmp::{Binding, Oid, Value};
use super::tables::Vlans;
use super::value::{number, octets};

/// What the last part of an instance stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    Interface,
    BasePort,
    /// A VLAN, and then an interface.
    Member,
    Other,
}

/// How a value is written for people.
#[derive(Clone, Copy)]
enum Shown {
    Number,
    /// An enumeration, by its MIB.
    Words(&'static [(i64, &'static str)]),
    Text,
    PortList,
    /// 1,024 VLANs from this one on.
    VlansFrom(u32),
}

struct Object {
    arcs: Arcs,
    name: &'static str,
    index: Index,
    shown: Shown,
}

const fn object(arcs: Arcs, name: &'static str, index: Index, shown: Shown) -> Object {
    Object { arcs, name, index, shown }
}

/// RowStatus, RFC 2579.
const ROW_STATUS: Shown = Shown::Words(&[(1, "active"), (4, "createAndGo"), (5, "createAndWait"), (6, "destroy")]);
/// RADLAN-COPY-MIB: RlCopyLocationType, RlCopyFileType.
const RL_PLACE: Shown = Shown::Words(&[(1, "local")]);
const RL_FILE: Shown = Shown::Words(&[(2, "runningConfig"), (3, "startupConfig")]);
/// CISCO-CONFIG-COPY-MIB::ConfigFileType.
const CC_FILE: Shown = Shown::Words(&[(3, "startupConfig"), (4, "runningConfig")]);

/// FOUNDRY-SN-SWITCH-GROUP-MIB.
const TAGGING: Shown = Shown::Words(&[(1, "tagged"), (2, "untagged"), (3, "dual")]);

static OBJECTS: &[Object] = &[
    object(o::IF_ADMIN_STATUS, "ifAdminStatus", Index::Interface, Shown::Words(&[(1, "up"), (2, "down")])),
    object(o::PVID, "dot1qPvid", Index::BasePort, Shown::Number),
    object(o::FRAME_TYPES, "dot1qPortAcceptableFrameTypes", Index::BasePort, Shown::Words(&[(1, "admitAll"), (2, "admitOnlyVlanTagged")])),
    object(o::STATIC_NAME, "dot1qVlanStaticName", Index::Other, Shown::Text),
    object(o::STATIC_EGRESS, "dot1qVlanStaticEgressPorts", Index::Other, Shown::PortList),
    object(o::STATIC_UNTAGGED, "dot1qVlanStaticUntaggedPorts", Index::Other, Shown::PortList),
    object(o::STATIC_ROW_STATUS, "dot1qVlanStaticRowStatus", Index::Other, ROW_STATUS),
    object(o::VM_VLAN, "vmVlan", Index::Interface, Shown::Number),
    object(o::TRUNK_SERIAL, "vlanTrunkPortSetSerialNo", Index::Other, Shown::Number),
    object(
        o::TRUNK_ENCAPSULATION,
        "vlanTrunkPortEncapsulationType",
        Index::Interface,
        Shown::Words(&[(1, "isl"), (2, "dot10"), (3, "worker"), (4, "dot1Q"), (5, "negotiate")]),
    ),
    object(o::TRUNK_NATIVE, "vlanTrunkPortNativeVlan", Index::Interface, Shown::Number),
    object(
        o::TRUNK_DYNAMIC_STATE,
        "vlanTrunkPortDynamicState",
        Index::Interface,
        Shown::Words(&[(1, "on"), (2, "off"), (3, "desirable"), (4, "auto"), (5, "onNoNegotiate")]),
    ),
    object(o::TRUNK_ENABLED[0], "vlanTrunkPortVlansEnabled", Index::Interface, Shown::VlansFrom(0)),
    object(o::TRUNK_ENABLED[1], "vlanTrunkPortVlansEnabled2k", Index::Interface, Shown::VlansFrom(1_024)),
    object(o::TRUNK_ENABLED[2], "vlanTrunkPortVlansEnabled3k", Index::Interface, Shown::VlansFrom(2_048)),
    object(o::TRUNK_ENABLED[3], "vlanTrunkPortVlansEnabled4k", Index::Interface, Shown::VlansFrom(3_072)),
    // CISCO-CONFIG-COPY-MIB
    object(&[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1, 3], "ccCopySourceFileType", Index::Other, CC_FILE),
    object(&[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1, 4], "ccCopyDestFileType", Index::Other, CC_FILE),
    object(&[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1, 14], "ccCopyEntryRowStatus", Index::Other, ROW_STATUS),
    // HH3C-LswINF-MIB
    object(o::LINK_TYPE, "hh3cifVLANType", Index::Interface, Shown::Words(&[(1, "vLANTrunk"), (2, "access"), (3, "hybrid")])),
    // FOUNDRY-SN-SWITCH-GROUP-MIB
    object(o::FOUNDRY_MEMBER_STATUS, "snVLanByPortMemberRowStatus", Index::Member, Shown::Words(&[(3, "delete"), (4, "create")])),
    object(o::FOUNDRY_MEMBER_TAG_MODE, "snVLanByPortMemberTagMode", Index::Member, TAGGING),
    object(o::FOUNDRY_IF_TAG_MODE, "snSwIfInfoTagMode", Index::Interface, TAGGING),
    object(o::FOUNDRY_IF_VLAN, "snSwIfVlanId", Index::Interface, Shown::Number),
    object(o::FOUNDRY_WRITE_NVRAM, "snAgWriteNVRAM", Index::Other, Shown::Words(&[(3, "write")])),
    // HH3C-CONFIG-MAN-MIB
    object(&[1, 3, 6, 1, 4, 1, 25506, 2, 4, 1, 2, 4, 1, 2], "hh3cCfgOperateType", Index::Other, Shown::Words(&[(1, "running2Startup")])),
    object(&[1, 3, 6, 1, 4, 1, 25506, 2, 4, 1, 2, 4, 1, 9], "hh3cCfgOperateRowStatus", Index::Other, ROW_STATUS),
    // RADLAN-COPY-MIB, and the same under Cisco's number
    object(&[1, 3, 6, 1, 4, 1, 89, 87, 2, 1, 3], "rlCopySourceLocation", Index::Other, RL_PLACE),
    object(&[1, 3, 6, 1, 4, 1, 89, 87, 2, 1, 7], "rlCopySourceFileType", Index::Other, RL_FILE),
    object(&[1, 3, 6, 1, 4, 1, 89, 87, 2, 1, 8], "rlCopyDestinationLocation", Index::Other, RL_PLACE),
    object(&[1, 3, 6, 1, 4, 1, 89, 87, 2, 1, 12], "rlCopyDestinationFileType", Index::Other, RL_FILE),
    object(&[1, 3, 6, 1, 4, 1, 89, 87, 2, 1, 17], "rlCopyRowStatus", Index::Other, ROW_STATUS),
    object(&[1, 3, 6, 1, 4, 1, 9, 6, 1, 101, 87, 2, 1, 3], "rlCopySourceLocation", Index::Other, RL_PLACE),
    object(&[1, 3, 6, 1, 4, 1, 9, 6, 1, 101, 87, 2, 1, 7], "rlCopySourceFileType", Index::Other, RL_FILE),
    object(&[1, 3, 6, 1, 4, 1, 9, 6, 1, 101, 87, 2, 1, 8], "rlCopyDestinationLocation", Index::Other, RL_PLACE),
    object(&[1, 3, 6, 1, 4, 1, 9, 6, 1, 101, 87, 2, 1, 12], "rlCopyDestinationFileType", Index::Other, RL_FILE),
    object(&[1, 3, 6, 1, 4, 1, 9, 6, 1, 101, 87, 2, 1, 17], "rlCopyRowStatus", Index::Other, ROW_STATUS),
];

/// One PDU, on this state: `SET ifAdminStatus.101 = down(2)  # Gi1/0/1`. Behind `#` stand the ports that the instances mean.
pub(super) fn pdu(inventory: &Inventory, state: &State, bindings: &[Binding]) -> String {
    let mut ports: Vec<&str> = Vec::new();
    let mut said = Vec::new();
    for (oid, value) in bindings {
        let Some((object, index)) = named(oid) else {
            said.push(format!("{oid} = {}", plain(value)));
            continue;
        };
        let instance: String = index.iter().map(|arc| format!(".{arc}")).collect();
        said.push(format!("{}{instance} {}", object.name, in_words(inventory, state, object, oid, value)));
        let place = match (object.index, index) {
            (Index::Interface, [index]) => inventory.places.0.get(index),
            (Index::BasePort, [port]) => inventory.places.by_base_port(*port).and_then(|index| inventory.places.0.get(&index)),
            (Index::Member, [_, index]) => inventory.places.0.get(index),
            (Index::Interface | Index::BasePort | Index::Member | Index::Other, _) => None,
        };
        ports.extend(place.map(|place| place.key.as_str()).filter(|key| !ports.contains(key)));
    }
    let whose = if ports.is_empty() { String::new() } else { format!("  # {}", ports.join(", ")) };
    format!("SET {}{whose}", said.join(", "))
}

fn named(oid: &Oid) -> Option<(&'static Object, &[u32])> {
    OBJECTS.iter().find_map(|object| Some((object, oid.0.strip_prefix(object.arcs)?)))
}

/// `= 120`, `= down(2)`, `+Gi1/0/1 -Gi1/0/2`.
fn in_words(inventory: &Inventory, state: &State, object: &Object, oid: &Oid, value: &Value) -> String {
    match (object.shown, number(value), octets(value)) {
        (Shown::Words(words), Some(n), _) => match words.iter().find(|(of, _)| *of == n) {
            Some((_, word)) => format!("= {word}({n})"),
            None => format!("= {n}"),
        },
        (Shown::PortList, _, Some(new)) => difference(inventory, state, oid, new),
        (Shown::VlansFrom(first), _, Some(list)) => format!("= {}", ranges(&portlist::members(Form::Bits, list, first))),
        (Shown::Text, _, Some(text)) => format!("= {:?}", String::from_utf8_lossy(text)),
        (Shown::Number | Shown::Words(_) | Shown::PortList | Shown::VlansFrom(_) | Shown::Text, _, _) => format!("= {}", plain(value)),
    }
}

fn difference(inventory: &Inventory, state: &State, oid: &Oid, new: &[u8]) -> String {
    let Vlans::Bridge(bridge) = &state.vlans else { return format!("= {}", plain(&Value::Octets(new.to_vec()))) };
    let before = bridge.list(oid).map(|list| bridge.members(list));
    let after = bridge.members(new);
    let name = |sign: char, port: &u32| {
        let place = inventory.places.by_base_port(*port).and_then(|index| inventory.places.0.get(&index));
        format!("{sign}{}", place.map_or_else(|| format!("base port {port}"), |place| place.key.clone()))
    };
    let old = before.clone().unwrap_or_default();
    let joins = after.difference(&old).map(|port| name('+', port));
    let leaves = old.difference(&after).map(|port| name('-', port));
    let words: Vec<String> = joins.chain(leaves).collect();
    match (words.is_empty(), before) {
        (false, _) => words.join(" "),
        (true, None) => "= none".to_owned(),
        (true, Some(_)) => "as it is".to_owned(),
    }
}

/// `1-4,10`; `none`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *n => *last = *n,
            Some(_) | None => runs.push((*n, *n)),
        }
    }
    let words: Vec<String> = runs.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(",") }
}

fn plain(value: &Value) -> String {
    match (number(value), octets(value)) {
        (Some(n), _) => n.to_string(),
        (None, Some(octets)) => octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" "),
        (None, None) => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_vlans() {
        for (numbers, words) in [(vec![], "none"), (vec![7], "7"), (vec![1, 2, 3, 10, 12, 13], "1-3,10,12-13")] {
            assert_eq!(ranges(&numbers.into_iter().collect()), words);
        }
    }

    #[test]
    fn no_object_hides_behind_another() {
        for (n, one) in OBJECTS.iter().enumerate() {
            assert!(OBJECTS[..n].iter().all(|other| !one.arcs.starts_with(other.arcs)), "{}", one.name);
        }
    }
}
