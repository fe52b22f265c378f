//! From what an agent answered to the neutral model of a switch.
//!
//! Leaves out: asking. Invariant: PVID decides the untagged VLAN, membership decides the tagged ones, and a contradiction is shown
//! rather than guessed away. Shown by `tests/recordings.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::{self as o, Arcs};
use super::places::Place;
use super::portlist::{self, Form};
use super::profiles::{Family, Save};
use super::read::{Bridge, Inventory, Row, Source, State, Vlans, Vtp};
use super::snmp::Oid;
use super::value::number;
use crate::model::Vlan;
use crate::model::fact::{Admin, Lag, Oper, PortConfig, PortMode, PortSeen, Quality, SwitchSeen, Writable};

/// The VLANs of one port, and how sure that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortVlans {
    pub mode: PortMode,
    pub untagged: Option<Vlan>,
    pub tagged: BTreeSet<Vlan>,
    pub quality: Quality,
}

/// `refused`: the columns that it refused to have written, and how.
pub(crate) fn switch(inventory: &Inventory, state: &State, refused: &Refused) -> SwitchSeen {
    let (vlans, unsaved) = match &state.vlans {
        Vlans::Bridge(bridge) => (bridge.rows.keys().copied().collect(), None),
        Vlans::Vtp(vtp) => (vtp.existing.clone(), vtp.unsaved),
    };
    let ports = ports(inventory, state);
    SwitchSeen {
        shown: inventory.shown.clone(),
        identity: inventory.identity.clone(),
        profile: inventory.profile.name(),
        writable: writable(inventory, state, refused),
        ports,
        vlans,
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

const WRITTEN: [Written; 12] = [
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
];

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
    if inventory.profile.family == Family::ObserveOnly {
        return Writable::default();
    }
    let vlans = inventory.writes_vlans();
    let (access, trunk) = match &state.vlans {
        Vlans::Bridge(_) => (vlans, vlans),
        Vlans::Vtp(vtp) => (vlans && takes_access(vtp), vlans && !vtp.enabled[0].is_empty()),
    };
    Writable {
        admin: true,
        access,
        trunk,
        // A VLAN that is not told may be there.
        vlan_create: vlans && inventory.profile.family == Family::QBridge && untold(inventory, state).is_none(),
        save: inventory.profile.save != Save::NoneKnown,
    }
}

/// Whether access ports can be written: vmVlanTable has a row for each. It has none for trunks, so that it says nothing where all are trunks.
fn takes_access(vtp: &Vtp) -> bool {
    let mut ports = vtp.native.keys();
    !vtp.vm_vlan.is_empty() || ports.len() > 0 && ports.all(|port| is_trunk(vtp, *port) == Some(true))
}

fn ports(inventory: &Inventory, state: &State) -> BTreeMap<String, PortSeen> {
    let members = match &state.vlans {
        Vlans::Bridge(bridge) => Memberships::of(bridge),
        Vlans::Vtp(_) => Memberships::default(),
    };
    let port = |(index, place): (&u32, &Place)| (place.key.clone(), port_at(inventory, state, &members, *index, place));
    inventory.places.0.iter().map(port).collect()
}

/// One port alone.
pub(crate) fn port(inventory: &Inventory, state: &State, if_index: u32) -> Option<PortSeen> {
    let place = inventory.places.0.get(&if_index)?;
    let members = match &state.vlans {
        Vlans::Bridge(bridge) => Memberships::at(bridge, &place.base_ports),
        Vlans::Vtp(_) => Memberships::default(),
    };
    Some(port_at(inventory, state, &members, if_index, place))
}

fn port_at(inventory: &Inventory, state: &State, members: &Memberships, index: u32, place: &Place) -> PortSeen {
    let vlans = match &state.vlans {
        Vlans::Bridge(bridge) if bridge.source == Source::Foundry => foundry_port(bridge, index, &place.base_ports),
        Vlans::Bridge(bridge) => {
            let falls_out = bridge.source == Source::Current || inventory.profile.down_falls_out;
            let is_down = falls_out && oper(state.oper.get(&index)) == Oper::Down;
            bridge_port(bridge, members, &place.base_ports, is_down)
        }
        Vlans::Vtp(vtp) => vtp_port(vtp, index),
    };
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

fn unknown(why: &str) -> PortVlans {
    PortVlans { mode: PortMode::Unknown, untagged: None, tagged: BTreeSet::new(), quality: Quality::Unknown(why.to_owned()) }
}

// ---- Q-BRIDGE -----------------------------------------------------------------------------------------------------------

/// The rows of a bridge, turned round: base port → VLANs.
#[derive(Debug, Default)]
pub(crate) struct Memberships {
    pub egress: BTreeMap<u32, BTreeSet<Vlan>>,
    pub untagged: BTreeMap<u32, BTreeSet<Vlan>>,
}

impl Memberships {
    pub(crate) fn of(bridge: &Bridge) -> Memberships {
        let mut all = Memberships::default();
        for (vlan, row) in &bridge.rows {
            for port in row.egress_ports(bridge) {
                all.egress.entry(port).or_default().insert(*vlan);
            }
            for port in row.untagged_ports(bridge) {
                all.untagged.entry(port).or_default().insert(*vlan);
            }
        }
        all
    }

    /// Of some ports alone.
    pub(crate) fn at(bridge: &Bridge, base_ports: &[u32]) -> Memberships {
        let mut some = Memberships::default();
        let has = |octets: &[u8], port: u32| portlist::has(bridge.form, octets, bridge.first_port, port);
        for (vlan, row) in &bridge.rows {
            for port in base_ports.iter().copied() {
                if has(&row.egress, port) {
                    some.egress.entry(port).or_default().insert(*vlan);
                }
                if has(&row.untagged, port) {
                    some.untagged.entry(port).or_default().insert(*vlan);
                }
            }
        }
        some
    }
}

pub(crate) fn pvid(bridge: &Bridge, base_port: u32) -> Option<Vlan> {
    let value = bridge.pvid.as_ref()?.get(&base_port)?;
    number(value).and_then(|id| Vlan::try_from(id).ok())
}

/// `is_down`: and the agent leaves ports that are down out of its lists of members.
pub(crate) fn bridge_port(bridge: &Bridge, members: &Memberships, base_ports: &[u32], is_down: bool) -> PortVlans {
    let has_pvid = |port: &u32| bridge.pvid.as_ref().is_some_and(|column| column.contains_key(port));
    let listed = |port: &u32| has_pvid(port) || members.egress.contains_key(port);
    let Some(first) = base_ports.iter().find(|port| listed(port)).or(base_ports.first()) else {
        return unknown("not a bridge port");
    };
    let union = |column: &BTreeMap<u32, BTreeSet<Vlan>>| -> BTreeSet<Vlan> {
        base_ports.iter().filter_map(|port| column.get(port)).flatten().copied().collect()
    };
    let (egress, untagged, pvid) = (union(&members.egress), union(&members.untagged), pvid(bridge, *first));
    if bridge.source == Source::Nowhere {
        return PortVlans { untagged: pvid, ..unknown("VLAN membership is not shown") };
    }
    if egress.is_empty() && untagged.is_empty() {
        if let Some(vlan) = configured(bridge, base_ports).or(pvid).filter(|_| is_down) {
            return PortVlans { mode: PortMode::Access, untagged: Some(vlan), tagged: BTreeSet::new(), quality: Quality::Exact };
        }
        if bridge.source == Source::Current {
            return PortVlans { untagged: pvid, ..unknown("in no VLAN of the current table") };
        }
    }
    let serves_pvid = bridge.pvid.is_some();
    let (native, quality) = native(serves_pvid, pvid, &egress, &untagged);
    let tagged: BTreeSet<Vlan> = egress.iter().filter(|v| !untagged.contains(v) && Some(**v) != native).copied().collect();
    let mode = if tagged.is_empty() { PortMode::Access } else { PortMode::Trunk };
    PortVlans { mode, untagged: native, tagged, quality }
}

/// RFC 4363: dot1qVlanCurrentEgressPorts are those that transmit frames of the VLAN, which one that is down does not; what it is configured for
/// is dot1qVlanStaticUntaggedPorts, and dot1qPvid.
fn configured(bridge: &Bridge, base_ports: &[u32]) -> Option<Vlan> {
    let has = |row: &Row| base_ports.iter().any(|port| portlist::has(bridge.form, &row.untagged, bridge.first_port, *port));
    let mut vlans = bridge.configured.iter().filter(|(_, row)| has(row)).map(|(vlan, _)| *vlan);
    vlans.next().filter(|_| vlans.next().is_none())
}

/// An interface is a member of VLANs by snVLanByPortMemberTable, tagged or not; in dual mode one of those has untagged frames as well. Where that
/// table does not name it, its own row of snSwIfInfoTable says what it is.
fn foundry_port(bridge: &Bridge, if_index: u32, base_ports: &[u32]) -> PortVlans {
    let pvid = base_ports.iter().find_map(|port| pvid(bridge, *port));
    let nowhere = || PortVlans { untagged: pvid, ..unknown("in no VLAN, by the switch's own table") };
    let Some(port) = bridge.foundry.get(&if_index) else {
        return if base_ports.is_empty() { unknown("not a bridge port") } else { nowhere() };
    };
    // snSwIfInfoTagMode: tagged(1), untagged(2), dual(3)
    let dual = port.vlan.or(pvid).filter(|_| port.tag_mode == Some(3));
    if port.tagged.is_empty() && port.untagged.is_empty() {
        return match (port.tag_mode, port.vlan) {
            (Some(2), Some(_)) => {
                PortVlans { mode: PortMode::Access, untagged: port.vlan, tagged: BTreeSet::new(), quality: Quality::Exact }
            }
            (Some(1 | 3), _) => {
                PortVlans { mode: PortMode::Trunk, untagged: dual, ..unknown("the VLANs that are tagged on it are not shown") }
            }
            (_, _) => nowhere(),
        };
    }
    let egress: BTreeSet<Vlan> = port.tagged.union(&port.untagged).copied().collect();
    let (native, quality) = match dual {
        Some(vlan) => (Some(vlan), Quality::Exact),
        None => native(pvid.is_some(), pvid, &egress, &port.untagged),
    };
    let tagged: BTreeSet<Vlan> = port.tagged.iter().filter(|vlan| Some(**vlan) != native).copied().collect();
    let mode = if tagged.is_empty() { PortMode::Access } else { PortMode::Trunk };
    PortVlans { mode, untagged: native, tagged, quality }
}

/// The untagged VLAN: the PVID says where untagged frames go in, the untagged set in which VLANs frames leave so.
fn native(serves_pvid: bool, pvid: Option<Vlan>, egress: &BTreeSet<Vlan>, untagged: &BTreeSet<Vlan>) -> (Option<Vlan>, Quality) {
    let list = |set: &BTreeSet<Vlan>| set.iter().map(Vlan::to_string).collect::<Vec<_>>().join(", ");
    let inconsistent = Quality::Inconsistent;
    match pvid {
        None if !serves_pvid && untagged.len() <= 1 => (untagged.first().copied(), Quality::Exact),
        None if !serves_pvid => (None, inconsistent(format!("untagged in {}", list(untagged)))),
        None if untagged.is_empty() => (None, Quality::Exact),
        None => (None, inconsistent(format!("no PVID, but untagged in {}", list(untagged)))),
        Some(pvid) if untagged.len() == 1 && untagged.contains(&pvid) && egress.contains(&pvid) => (Some(pvid), Quality::Exact),
        Some(pvid) if untagged.is_empty() && !egress.contains(&pvid) => (None, Quality::Exact),
        Some(pvid) if untagged.is_empty() => (Some(pvid), inconsistent(format!("PVID {pvid}, but tagged in it"))),
        Some(pvid) => (Some(pvid), inconsistent(format!("PVID {pvid}, but untagged in {}", list(untagged)))),
    }
}

// ---- Cisco --------------------------------------------------------------------------------------------------------------

/// vlanTrunkPortDynamicState: on(1), off(2), desirable(3), auto(4), onNoNegotiate(5); vlanTrunkPortDynamicStatus: trunking(1). The
/// setting decides where it does, since a trunk that is down is not trunking.
pub(crate) fn is_trunk(vtp: &Vtp, if_index: u32) -> Option<bool> {
    match (vtp.dynamic_state.get(&if_index), vtp.dynamic_status.get(&if_index)) {
        (Some(1 | 5), _) => Some(true),
        (Some(2), _) => Some(false),
        (_, Some(status)) => Some(*status == 1),
        (Some(_), None) | (None, None) => None,
    }
}

/// The VLANs that a trunk lets pass, of which it has a list.
pub(crate) fn enabled(vtp: &Vtp, if_index: u32) -> Option<BTreeSet<u32>> {
    let part = |(n, column): (u32, &BTreeMap<u32, Vec<u8>>)| {
        column.get(&if_index).map(|list| portlist::members(Form::Bits, list, n * 1024)).unwrap_or_default()
    };
    vtp.enabled[0].contains_key(&if_index).then(|| (0..).zip(&vtp.enabled).flat_map(part).collect())
}

pub(crate) fn vtp_port(vtp: &Vtp, if_index: u32) -> PortVlans {
    let vlan = |column: &BTreeMap<u32, i64>| column.get(&if_index).and_then(|id| Vlan::try_from(*id).ok());
    let (access, native) = (vlan(&vtp.vm_vlan), vlan(&vtp.native));
    let trunk = match (is_trunk(vtp, if_index), access, native) {
        (Some(trunk), _, _) => trunk,
        (None, Some(_), _) => false,
        // vmVlanTable has no row of a port that is a trunk.
        (None, None, Some(_)) => true,
        (None, None, None) => return unknown("not a switch port"),
    };
    if !trunk {
        return match access {
            Some(_) => PortVlans { mode: PortMode::Access, untagged: access, tagged: BTreeSet::new(), quality: Quality::Exact },
            None => unknown("its access VLAN is not shown"),
        };
    }
    let Some(enabled) = enabled(vtp, if_index) else {
        return PortVlans { mode: PortMode::Trunk, untagged: native, ..unknown("the VLANs of this trunk are not shown") };
    };
    let passes = |vlan: &Vlan| enabled.contains(&u32::from(vlan.id()));
    let tagged = vtp.existing.iter().filter(|v| passes(v) && Some(**v) != native).copied().collect();
    PortVlans { mode: PortMode::Trunk, untagged: native.filter(passes), tagged, quality: Quality::Exact }
}
