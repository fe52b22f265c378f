//! From what an agent answered to the neutral model of a switch.
//!
//! Leaves out: asking, and what the tables of VLANs mean (`tables`). Invariant: a contradiction is shown rather than guessed away. Shown by `tests/recordings.rs`.

use std::collections::BTreeMap;

use super::objects::{self as o, Arcs};
use super::places::Place;
use super::profiles::{Family, Save};
use super::read::{Inventory, State};
use super::snmp::Oid;
use super::tables::{Port, PortVlans, Vlans};
use crate::model::fact::{Admin, Lag, Oper, PortConfig, PortSeen, Quality, SwitchSeen, Writable};

/// `refused`: the columns that it refused to have written, and how.
pub(crate) fn switch(inventory: &Inventory, state: &State, refused: &Refused) -> SwitchSeen {
    let unsaved = if let Vlans::Vtp(vtp) = &state.vlans { vtp.unsaved } else { None };
    let ports = ports(inventory, state);
    SwitchSeen {
        shown: inventory.shown.clone(),
        identity: inventory.identity.clone(),
        profile: inventory.profile.name(),
        writable: writable(inventory, state, refused),
        ports,
        vlans: state.vlans.table().existing(),
        unsaved,
        neighbours_told: inventory.neighbours_told,
        notes: inventory.notes.union(&state.notes).cloned().collect(),
        refused: refused.iter().map(|(column, code)| format!("{}: {code}", object_name(column))).collect(),
    }
}

/// Columns that an agent refused to have written, and how.
pub(crate) type Refused = BTreeMap<Vec<u32>, String>;

/// A column that is written, its name, and what cannot be done without it.
type Written = (Arcs, &'static str, fn(&mut Writable));

const WRITTEN: [Written; 17] = [
    (o::IF_ADMIN_STATUS, "ifAdminStatus", |may| may.admin = false),
    (o::PVID, "dot1qPvid", |may| may.access = false),
    (o::STATIC_EGRESS, "dot1qVlanStaticEgressPorts", |may| (may.access, may.trunk) = (false, false)),
    (o::STATIC_UNTAGGED, "dot1qVlanStaticUntaggedPorts", |may| may.access = false),
    (o::VM_VLAN, "vmVlan", |may| may.access = false),
    (o::TRUNK_DYNAMIC_STATE, "vlanTrunkPortDynamicState", |may| (may.access, may.trunk) = (false, false)),
    (o::TRUNK_NATIVE, "vlanTrunkPortNativeVlan", |may| may.trunk = false),
    (o::TRUNK_ENCAPSULATION, "vlanTrunkPortEncapsulationType", |may| may.trunk = false),
    (o::TRUNK_ENABLED[0], "vlanTrunkPortVlansEnabled", |may| may.trunk = false),
    (o::TRUNK_ENABLED[1], "vlanTrunkPortVlansEnabled2k", |may| may.trunk = false),
    (o::TRUNK_ENABLED[2], "vlanTrunkPortVlansEnabled3k", |may| may.trunk = false),
    (o::TRUNK_ENABLED[3], "vlanTrunkPortVlansEnabled4k", |may| may.trunk = false),
    (o::LINK_TYPE, "hh3cifVLANType", |may| may.trunk = false),
    (o::FOUNDRY_MEMBER_STATUS, "snVLanByPortMemberRowStatus", |may| (may.access, may.trunk, may.vlan_create) = (false, false, false)),
    (o::FOUNDRY_MEMBER_TAG_MODE, "snVLanByPortMemberTagMode", |may| (may.trunk, may.vlan_create) = (false, false)),
    (o::FOUNDRY_IF_TAG_MODE, "snSwIfInfoTagMode", |may| may.trunk = false),
    (o::FOUNDRY_IF_VLAN, "snSwIfVlanId", |may| may.trunk = false),
];

/// The column of an instance.
pub(super) fn column(oid: &Oid) -> &[u32] {
    let known = WRITTEN.iter().map(|(arcs, ..)| *arcs).find(|arcs| oid.0.starts_with(arcs));
    known.unwrap_or_else(|| oid.0.split_last().map_or(&[], |(_, column)| column))
}

fn object_name(column: &[u32]) -> String {
    let known = WRITTEN.iter().find(|(arcs, ..)| *arcs == column);
    known.map_or_else(|| Oid(column.to_vec()).to_string(), |(_, name, _)| (*name).to_owned())
}

pub(crate) fn writable(inventory: &Inventory, state: &State, refused: &Refused) -> Writable {
    let mut may = by_profile(inventory, state);
    WRITTEN.iter().filter(|(arcs, ..)| refused.contains_key(*arcs)).for_each(|(.., without)| without(&mut may));
    may
}

fn by_profile(inventory: &Inventory, state: &State) -> Writable {
    // What shows nothing by which it is known again is never written.
    if inventory.profile.family == Family::ObserveOnly || inventory.shown.is_empty() {
        return Writable::default();
    }
    let vlans = inventory.writes_vlans();
    let (access, trunk) = match &state.vlans {
        Vlans::Bridge(_) | Vlans::Foundry(_) => (vlans, vlans),
        Vlans::Vtp(vtp) => (vlans && vtp.takes_access(), vlans && vtp.takes_trunks()),
    };
    let makes = match inventory.profile.family {
        Family::QBridge | Family::Foundry => vlans,
        Family::CiscoVtp | Family::ObserveOnly => false,
    };
    Writable {
        admin: true,
        access,
        trunk,
        // A VLAN that is not told may be there.
        vlan_create: makes && untold(inventory, state).is_none(),
        save: inventory.profile.save != Save::NoneKnown,
    }
}

fn ports(inventory: &Inventory, state: &State) -> BTreeMap<String, PortSeen> {
    let wanted: Vec<Port<'_>> = inventory.places.0.iter().map(|(index, place)| wanted(state, *index, place)).collect();
    let vlans = state.vlans.table().of(&wanted);
    let port = |((index, place), vlans): ((&u32, &Place), PortVlans)| (place.key.clone(), port_at(inventory, state, vlans, *index, place));
    inventory.places.0.iter().zip(vlans).map(port).collect()
}

/// One port alone.
pub(crate) fn port(inventory: &Inventory, state: &State, if_index: u32) -> Option<PortSeen> {
    let place = inventory.places.0.get(&if_index)?;
    let vlans = state.vlans.table().of(&[wanted(state, if_index, place)]).pop()?;
    Some(port_at(inventory, state, vlans, if_index, place))
}

fn wanted<'a>(state: &State, if_index: u32, place: &'a Place) -> Port<'a> {
    Port { if_index, base_ports: &place.base_ports, is_down: oper(state.oper.get(&if_index)) == Oper::Down }
}

fn port_at(inventory: &Inventory, state: &State, vlans: PortVlans, index: u32, place: &Place) -> PortSeen {
    let lag = match (inventory.lag_members.get(&index), &inventory.lags_untold) {
        (Some(of), _) => Lag::Member(of.clone()),
        (None, Some(why)) => Lag::NotTold(why.clone()),
        (None, None) if place.aggregate => Lag::Aggregate,
        (None, None) => Lag::None,
    };
    let quality = untold(inventory, state).map_or(vlans.quality, |why| Quality::Unknown(why.to_owned()));
    PortSeen {
        if_index: index,
        also: place.also.clone(),
        config: PortConfig { admin: admin(state.admin.get(&index)), untagged: vlans.untagged, tagged: vlans.tagged },
        oper: oper(state.oper.get(&index)),
        mode: vlans.mode,
        neighbour: inventory.neighbours.get(&index).cloned(),
        macs: inventory.macs.get(&index).cloned().unwrap_or_default(),
        lag,
        quality,
    }
}

/// Why what is known of VLANs may be less than all: nothing is sure then of any port.
pub(super) fn untold<'a>(inventory: &'a Inventory, state: &'a State) -> Option<&'a str> {
    inventory.untold.as_deref().or(state.untold.as_deref())
}

/// ifAdminStatus: up(1), down(2), testing(3).
pub(crate) fn admin(status: Option<&i64>) -> Admin {
    if status == Some(&1) { Admin::Up } else { Admin::Down }
}

/// ifOperStatus: up(1), down(2), testing(3), unknown(4), dormant(5), notPresent(6), lowerLayerDown(7).
fn oper(status: Option<&i64>) -> Oper {
    match status {
        Some(1) => Oper::Up,
        Some(2 | 3 | 5 | 6 | 7) => Oper::Down,
        Some(_) | None => Oper::Unknown,
    }
}
