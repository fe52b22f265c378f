//! From what an agent answered to the neutral model of a switch.
//!
//! Leaves out: asking. Invariant: PVID decides the untagged VLAN, membership decides the tagged ones, and a contradiction is shown
//! rather than guessed away. Shown by `tests/recordings.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::portlist::{self, Form};
use super::profiles::{Family, Save};
use super::read::{Bridge, Inventory, Place, Source, State, Vlans, Vtp};
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

pub(crate) fn switch(inventory: &Inventory, state: &State) -> SwitchSeen {
    let (vlans, unsaved) = match &state.vlans {
        Vlans::Bridge(bridge) => (bridge.rows.keys().copied().collect(), None),
        Vlans::Vtp(vtp) => (vtp.existing.clone(), vtp.unsaved),
    };
    let ports = ports(inventory, state);
    SwitchSeen {
        shown: inventory.shown.clone(),
        identity: inventory.identity.clone(),
        profile: inventory.profile.name(),
        writable: writable(inventory, state),
        ports,
        vlans,
        unsaved,
        neighbours_told: inventory.neighbours_told,
    }
}

pub(crate) fn writable(inventory: &Inventory, state: &State) -> Writable {
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
        vlan_create: vlans && inventory.profile.family == Family::QBridge,
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
        Vlans::Bridge(bridge) => bridge_port(bridge, members, &place.base_ports),
        Vlans::Vtp(vtp) => vtp_port(vtp, index),
    };
    let lag = match inventory.lag_members.get(&index) {
        Some(of) => Lag::Member(of.clone()),
        None if place.aggregate => Lag::Aggregate,
        None => Lag::None,
    };
    PortSeen {
        if_index: index,
        also: place.also.clone(),
        config: PortConfig { admin: admin(state.admin.get(&index)), untagged: vlans.untagged, tagged: vlans.tagged },
        oper: oper(state.oper.get(&index)),
        mode: vlans.mode,
        neighbour: inventory.neighbours.get(&index).cloned(),
        macs: inventory.macs.get(&index).cloned().unwrap_or_default(),
        lag,
        quality: vlans.quality,
    }
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

pub(crate) fn bridge_port(bridge: &Bridge, members: &Memberships, base_ports: &[u32]) -> PortVlans {
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
    // A port that is down is left out of the current table by some agents (Arista): no membership there says nothing.
    if bridge.source == Source::Current && egress.is_empty() && untagged.is_empty() {
        return PortVlans { untagged: pvid, ..unknown("in no VLAN of the current table") };
    }
    let serves_pvid = bridge.pvid.is_some();
    let (native, quality) = native(serves_pvid, pvid, &egress, &untagged);
    let tagged: BTreeSet<Vlan> = egress.iter().filter(|v| !untagged.contains(v) && Some(**v) != native).copied().collect();
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
