//! Plans the SETs that bring one port to what is wanted: pure, one step at a time, each from what the switch shows at that moment.
//!
//! Leaves out: sending and reading back (`engine`). Invariants: a port is shut before its untagged VLAN changes and opened only when all
//! is right; of a PortList only this port's bit changes; untagged members stay egress members between any two SETs; a port without untagged VLAN lets no
//! untagged frame in, where the switch has dot1qPortAcceptableFrameTypes and takes it (Cisco's trunks: their native VLAN is one that does not
//! pass). That object alone is not corrected when somebody else changes it: it is no part of what is compared. Shown by
//! `sim::switch` and `tests/switch_writes.rs`, on simulated switches with faults and on recordings.

use std::collections::BTreeSet;

use super::objects::{self as o, Arcs, at};
use super::portlist;
use super::profiles::{Adding, Grouping, Profile};
use super::read::{Bridge, Row, State, Vlans, Vtp};
use super::seen::{Memberships, admin, enabled, is_trunk, pvid};
use super::snmp::{Binding, Oid, Value};
use super::value::{number, octets};
use crate::model::Vlan;
use crate::model::fact::{Admin, PortConfig};

/// One PDU, and what the switch must show when it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriteStep {
    pub what: String,
    pub bindings: Vec<Binding>,
    pub expect: Vec<Binding>,
    /// It brings the port up.
    pub opens: bool,
    /// A switch that does not take it is left as it is.
    pub advice: bool,
}

/// Why there is no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    #[error("VLAN {0} does not exist on the switch")]
    MissingVlan(Vlan),
    #[error("{0}")]
    Impossible(&'static str),
}

/// The port to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub key: &'a str,
    pub if_index: u32,
    pub base_port: Option<u32>,
}

/// All steps, each on the effect of the ones before, if the switch does exactly what it is told.
pub(crate) fn writes(
    state: &State,
    profile: &Profile,
    grouping: Grouping,
    target: Target<'_>,
    to: &PortConfig,
) -> Result<Vec<WriteStep>, Obstacle> {
    let mut state = state.clone();
    let mut steps = Vec::new();
    // Twelve is more than twice what the longest change takes; a plan that does not end is a fault of this file.
    for _ in 0..12 + 2 * (to.tagged.len() + vlan_count(&state)) {
        let Some(step) = next(&state, profile, grouping, target, to)? else { return Ok(steps) };
        happens(&mut state, &step.bindings);
        steps.push(step);
    }
    Err(Obstacle::Impossible("its plan does not end"))
}

fn vlan_count(state: &State) -> usize {
    match &state.vlans {
        Vlans::Bridge(bridge) => bridge.rows.len(),
        Vlans::Vtp(vtp) => vtp.existing.len(),
    }
}

/// The next step from here; nothing when the port is as wanted.
pub(crate) fn next(
    state: &State,
    profile: &Profile,
    grouping: Grouping,
    target: Target<'_>,
    to: &PortConfig,
) -> Result<Option<WriteStep>, Obstacle> {
    let now = admin(state.admin.get(&target.if_index));
    let work = match &state.vlans {
        Vlans::Bridge(bridge) => bridge_work(bridge, profile, grouping, target, to)?,
        Vlans::Vtp(vtp) => vtp_work(vtp, target, to)?,
    };
    let shut = to.admin == Admin::Down || work.disrupts;
    Ok(match (now, work.step) {
        (Admin::Up, _) if shut => Some(set_admin(target, Admin::Down)),
        (_, Some(step)) => Some(step),
        (Admin::Down, None) if to.admin == Admin::Up => Some(set_admin(target, Admin::Up)),
        (Admin::Up | Admin::Down, None) => None,
    })
}

/// What is to be done about a port's VLANs, and whether its untagged VLAN is concerned.
struct Work {
    disrupts: bool,
    step: Option<WriteStep>,
}

fn set_admin(target: Target<'_>, admin: Admin) -> WriteStep {
    // IF-MIB::ifAdminStatus: up(1), down(2)
    let (word, value) = match admin {
        Admin::Up => ("up", 1),
        Admin::Down => ("down", 2),
    };
    let binding = (at(o::IF_ADMIN_STATUS, &[target.if_index]), Value::Integer(value));
    WriteStep { opens: admin == Admin::Up, ..plain(format!("{} {word}", target.key), vec![binding]) }
}

fn plain(what: String, bindings: Vec<Binding>) -> WriteStep {
    WriteStep { what, expect: bindings.clone(), bindings, opens: false, advice: false }
}

// ---- Q-BRIDGE -----------------------------------------------------------------------------------------------------------

/// One bit of one list.
#[derive(Clone, Copy)]
struct Bit {
    vlan: Vlan,
    untagged: bool,
    present: bool,
}

fn bridge_work(bridge: &Bridge, profile: &Profile, grouping: Grouping, target: Target<'_>, to: &PortConfig) -> Result<Work, Obstacle> {
    let port = target.base_port.ok_or(Obstacle::Impossible("it is not a port of the bridge, or more than one"))?;
    let members = Memberships::at(bridge, &[port]);
    let (egress, untagged) =
        (members.egress.get(&port).cloned().unwrap_or_default(), members.untagged.get(&port).cloned().unwrap_or_default());
    let wanted: BTreeSet<Vlan> = to.tagged.iter().chain(&to.untagged).copied().collect();
    if let Some(missing) = wanted.iter().find(|vlan| !bridge.rows.contains_key(vlan)) {
        return Err(Obstacle::MissingVlan(*missing));
    }
    let native: BTreeSet<Vlan> = to.untagged.into_iter().collect();
    let change = pvid_change(bridge, port, to)?;
    let disrupts = untagged != native || change.is_some();

    let bit = |vlan: &Vlan, untagged, present| Bit { vlan: *vlan, untagged, present };
    let mut groups: Vec<Vec<Bit>> = Vec::new();
    groups.extend(egress.iter().filter(|v| !wanted.contains(v) && !untagged.contains(v)).map(|v| vec![bit(v, false, false)]));
    for vlan in &native {
        let add = [(!egress.contains(vlan), bit(vlan, false, true)), (!untagged.contains(vlan), bit(vlan, true, true))];
        let mut group: Vec<Bit> = add.into_iter().filter(|(needed, _)| *needed).map(|(_, bit)| bit).collect();
        if profile.adding == Adding::UntaggedFirst {
            group.reverse();
        }
        groups.push(group);
    }
    groups.extend(to.tagged.iter().filter(|v| !egress.contains(v)).map(|v| vec![bit(v, false, true)]));
    let before_pvid = groups.len();
    for vlan in untagged.iter().filter(|v| !native.contains(v)) {
        let leaves = !wanted.contains(vlan) && egress.contains(vlan);
        groups.push([Some(bit(vlan, true, false)), leaves.then_some(bit(vlan, false, false))].into_iter().flatten().collect());
    }
    let pvid = change.map(|value| (at(o::PVID, &[port]), value));
    let mut pdus: Vec<Vec<Binding>> = Vec::new();
    for (place, group) in groups.iter().enumerate() {
        if place == before_pvid {
            pdus.extend(pvid.clone().map(|binding| vec![binding]));
        }
        pdus.push(group.iter().map(|bit| bit_binding(bridge, port, *bit)).collect::<Result<_, _>>()?);
    }
    if groups.len() == before_pvid {
        pdus.extend(pvid.map(|binding| vec![binding]));
    }
    let bindings = match grouping {
        Grouping::Atomic => pdus.concat(),
        Grouping::Grouped => pdus.into_iter().find(|group| !group.is_empty()).unwrap_or_default(),
        Grouping::Single => pdus.concat().into_iter().take(1).collect(),
    };
    let step = (!bindings.is_empty()).then(|| plain(describe(target, &bindings), bindings));
    let admits = |types: i64| {
        let binding = (at(o::FRAME_TYPES, &[port]), Value::Integer(types));
        WriteStep { advice: types == ONLY_TAGGED, ..plain(describe(target, std::slice::from_ref(&binding)), vec![binding]) }
    };
    // Untagged frames are kept out first, and let in last.
    let step = match frame_types(bridge, port, to) {
        Some(ONLY_TAGGED) => Some(admits(ONLY_TAGGED)),
        Some(types) => step.or_else(|| Some(admits(types))),
        None => step,
    };
    Ok(Work { disrupts, step })
}

/// dot1qPortAcceptableFrameTypes: admitAll(1), admitOnlyVlanTagged(2).
const ADMIT_ALL: i64 = 1;
const ONLY_TAGGED: i64 = 2;

/// What to write there. Without it the untagged frames of a port without untagged VLAN go into its PVID; and with it those of a port that
/// has one go nowhere.
fn frame_types(bridge: &Bridge, port: u32, to: &PortConfig) -> Option<i64> {
    match (bridge.frame_types.get(&port)?, to.untagged) {
        (&ADMIT_ALL, None) => Some(ONLY_TAGGED),
        (&ONLY_TAGGED, Some(_)) => Some(ADMIT_ALL),
        (_, _) => None,
    }
}

/// The PVID to write. A port without untagged VLAN keeps the one it has, unless it is a tagged member there: untagged frames would come in.
fn pvid_change(bridge: &Bridge, port: u32, to: &PortConfig) -> Result<Option<Value>, Obstacle> {
    let Some(sent) = bridge.pvid.as_ref().and_then(|column| column.get(&port)) else { return Ok(None) };
    let now = pvid(bridge, port);
    let goal = match to.untagged {
        Some(vlan) => Some(vlan),
        None if now.is_none_or(|vlan| !to.tagged.contains(&vlan)) => now,
        None => Some(spare(bridge.rows.keys(), &to.tagged)?),
    };
    let as_sent = |vlan: Vlan| match sent {
        Value::Integer(_) => Value::Integer(i64::from(vlan.id())),
        Value::Octets(_)
        | Value::Oid(_)
        | Value::Null
        | Value::IpAddress(_)
        | Value::Counter32(_)
        | Value::Unsigned32(_)
        | Value::TimeTicks(_)
        | Value::Counter64(_)
        | Value::Opaque(_)
        | Value::NoSuchObject
        | Value::NoSuchInstance
        | Value::EndOfMibView => Value::Unsigned32(u32::from(vlan.id())),
    };
    Ok(goal.filter(|_| goal != now).map(as_sent))
}

/// A VLAN that exists and in which the port is not tagged: the lowest, which is the default VLAN.
fn spare<'a>(mut existing: impl Iterator<Item = &'a Vlan>, tagged: &BTreeSet<Vlan>) -> Result<Vlan, Obstacle> {
    existing
        .find(|vlan| !tagged.contains(vlan))
        .copied()
        .ok_or(Obstacle::Impossible("every VLAN is tagged on it, so that untagged frames have nowhere to go but into one of them"))
}

fn bit_binding(bridge: &Bridge, port: u32, bit: Bit) -> Result<Binding, Obstacle> {
    let row = bridge.rows.get(&bit.vlan).ok_or(Obstacle::MissingVlan(bit.vlan))?;
    let (column, old): (Arcs, &[u8]) = if bit.untagged { (o::STATIC_UNTAGGED, &row.untagged) } else { (o::STATIC_EGRESS, &row.egress) };
    let new = portlist::with(bridge.form, old, bridge.first_port, port, bit.present)
        .ok_or(Obstacle::Impossible("a PortList cannot be written without touching other ports"))?;
    Ok((at(column, &[row.index]), Value::Octets(new)))
}

/// `port1: PVID, egress of VLAN row 20`.
fn describe(target: Target<'_>, bindings: &[Binding]) -> String {
    let named: Vec<String> = bindings.iter().map(|(oid, value)| object_name(oid, value)).collect();
    format!("{}: {}", target.key, named.join(", "))
}

fn object_name(oid: &Oid, value: &Value) -> String {
    let columns: [(Arcs, &str); 10] = [
        (o::PVID, "PVID"),
        (o::FRAME_TYPES, "acceptable frame types"),
        (o::STATIC_EGRESS, "egress ports of VLAN"),
        (o::STATIC_UNTAGGED, "untagged ports of VLAN"),
        (o::STATIC_ROW_STATUS, "row status of VLAN"),
        (o::STATIC_NAME, "name of VLAN"),
        (o::VM_VLAN, "access VLAN"),
        (o::TRUNK_NATIVE, "native VLAN"),
        (o::TRUNK_ENCAPSULATION, "trunk encapsulation"),
        (o::TRUNK_DYNAMIC_STATE, "trunk mode"),
    ];
    for (arcs, name) in columns {
        if let Some([index]) = oid.0.strip_prefix(arcs) {
            return if name.ends_with("of VLAN") { format!("{name} {index}") } else { format!("{name} {}", number(value).unwrap_or(0)) };
        }
    }
    match o::TRUNK_ENABLED.iter().any(|arcs| oid.0.starts_with(arcs)) {
        true => "VLANs of the trunk".to_owned(),
        false => oid.to_string(),
    }
}

// ---- Cisco --------------------------------------------------------------------------------------------------------------

fn vtp_work(vtp: &Vtp, target: Target<'_>, to: &PortConfig) -> Result<Work, Obstacle> {
    if let Some(missing) = to.tagged.iter().chain(&to.untagged).find(|vlan| !vtp.existing.contains(vlan)) {
        return Err(Obstacle::MissingVlan(*missing));
    }
    match (to.untagged, to.tagged.is_empty()) {
        (Some(vlan), true) => Ok(access_work(vtp, target, vlan)),
        (None, true) => Err(Obstacle::Impossible("an access port always has an untagged VLAN")),
        (_, false) => trunk_work(vtp, target, to),
    }
}

/// The mode first: while it may be a trunk, its access VLAN says nothing.
fn access_work(vtp: &Vtp, target: Target<'_>, vlan: Vlan) -> Work {
    let index = [target.if_index];
    let right_vlan = vtp.vm_vlan.get(&target.if_index) == Some(&i64::from(vlan.id()));
    let trunk = is_trunk(vtp, target.if_index) == Some(true);
    if right_vlan && !trunk {
        return Work { disrupts: false, step: None };
    }
    let not_off = vtp.dynamic_state.get(&target.if_index).is_some_and(|state| *state != 2);
    let step = if not_off {
        with_serial(vtp, target, vec![(at(o::TRUNK_DYNAMIC_STATE, &index), Value::Integer(2))])
    } else {
        let binding = (at(o::VM_VLAN, &index), Value::Integer(i64::from(vlan.id())));
        plain(describe(target, std::slice::from_ref(&binding)), vec![binding])
    };
    Work { disrupts: true, step: Some(step) }
}

/// The list first: a trunk without one lets all VLANs pass.
fn trunk_work(vtp: &Vtp, target: Target<'_>, to: &PortConfig) -> Result<Work, Obstacle> {
    let index = [target.if_index];
    let enabled = enabled(vtp, target.if_index).ok_or(Obstacle::Impossible("the list of its trunk's VLANs is not shown"))?;
    let passes = |vlan: &&Vlan| enabled.contains(&u32::from(vlan.id()));
    let wanted: BTreeSet<Vlan> = to.tagged.iter().chain(&to.untagged).copied().collect();
    let native_now = vtp.native.get(&target.if_index).and_then(|id| Vlan::try_from(*id).ok());
    let native = match to.untagged {
        Some(vlan) => vlan,
        None => match native_now.filter(|vlan| !to.tagged.contains(vlan)) {
            Some(vlan) => vlan,
            None => spare(vtp.existing.iter(), &to.tagged)?,
        },
    };
    let trunk = is_trunk(vtp, target.if_index) == Some(true);
    let untagged_now = native_now.filter(|vlan| passes(&vlan));
    let disrupts = !trunk || untagged_now != to.untagged || native_now != Some(native);
    let set = |bindings| Ok(Work { disrupts, step: Some(with_serial(vtp, target, bindings)) });
    let one = |arcs: Arcs, value: i64| vec![(at(arcs, &index), Value::Integer(value))];

    if vtp.existing.iter().filter(passes).ne(&wanted) {
        return set(lists(vtp, target.if_index, &wanted));
    }
    if native_now != Some(native) {
        return set(one(o::TRUNK_NATIVE, i64::from(native.id())));
    }
    if !trunk {
        // vlanTrunkPortEncapsulationType: dot1Q(4); where there is also ISL a trunk cannot be forced before it is chosen.
        if vtp.encapsulation.get(&target.if_index).is_some_and(|kind| *kind != 4) {
            return set(one(o::TRUNK_ENCAPSULATION, 4));
        }
        return set(one(o::TRUNK_DYNAMIC_STATE, 1));
    }
    Ok(Work { disrupts, step: None })
}

/// vlanTrunkPortVlansEnabled and its parts, no shorter than they were.
fn lists(vtp: &Vtp, if_index: u32, wanted: &BTreeSet<Vlan>) -> Vec<Binding> {
    let list = |(n, (arcs, column)): (u32, (&Arcs, &std::collections::BTreeMap<u32, Vec<u8>>))| {
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
    (0..).zip(o::TRUNK_ENABLED.iter().zip(&vtp.enabled)).filter_map(list).collect()
}

/// "Any SNMP Set operation should also write vlanTrunkPortSetSerialNo" (CISCO-VTP-MIB): a TestAndIncr, which fails where another one wrote.
fn with_serial(vtp: &Vtp, target: Target<'_>, bindings: Vec<Binding>) -> WriteStep {
    let mut step = plain(describe(target, &bindings), bindings);
    step.bindings.extend(vtp.serial.clone().map(|serial| (at(o::TRUNK_SERIAL, &[0]), serial)));
    step
}

// ---- the effect of a binding -----------------------------------------------------------------------------------------------

/// The effect of one PDU on a switch that does what it is told. (A row's status is only ever written to make one.)
pub(crate) fn happens(state: &mut State, bindings: &[Binding]) {
    for (oid, value) in bindings {
        // TestAndIncr, RFC 2579: what is written is the old value, and 2147483647 is followed by 0.
        let value = match number(value).filter(|_| *oid == at(o::TRUNK_SERIAL, &[0])) {
            Some(serial) => &Value::Integer(if serial >= i64::from(i32::MAX) { 0 } else { serial + 1 }),
            None => value,
        };
        if let (Vlans::Bridge(bridge), Some([index])) = (&mut state.vlans, oid.0.strip_prefix(o::STATIC_ROW_STATUS))
            && let Ok(vlan) = Vlan::try_from(i64::from(*index))
        {
            bridge.rows.entry(vlan).or_insert_with(|| Row { index: *index, egress: Vec::new(), untagged: Vec::new() });
        }
        put(state, oid, value);
    }
}

/// Note in a state what an object is now: what was written, or what a GET answered.
pub(crate) fn put(state: &mut State, oid: &Oid, value: &Value) {
    let index = |arcs: Arcs| match oid.0.strip_prefix(arcs) {
        Some([index]) => Some(*index),
        Some(_) | None => None,
    };
    if let (Some(port), Some(n)) = (index(o::IF_ADMIN_STATUS), number(value)) {
        state.admin.insert(port, n);
    }
    match &mut state.vlans {
        Vlans::Bridge(bridge) => put_bridge(bridge, &index, value),
        Vlans::Vtp(vtp) => put_vtp(vtp, &index, value),
    }
}

fn put_bridge(bridge: &mut Bridge, index: &dyn Fn(Arcs) -> Option<u32>, value: &Value) {
    if let (Some(port), Some(column)) = (index(o::PVID), bridge.pvid.as_mut()) {
        column.insert(port, value.clone());
    }
    // Only where it is served: what a switch did not take is not observed again.
    if let (Some(types), Some(n)) = (index(o::FRAME_TYPES).and_then(|port| bridge.frame_types.get_mut(&port)), number(value)) {
        *types = n;
    }
    let list = |row: &mut Row, untagged: bool| {
        if let Some(list) = octets(value) {
            *(if untagged { &mut row.untagged } else { &mut row.egress }) = list.to_vec();
        }
    };
    for (arcs, untagged) in [(o::STATIC_EGRESS, false), (o::STATIC_UNTAGGED, true)] {
        if let Some(row) = index(arcs).and_then(|at| bridge.rows.values_mut().find(|row| row.index == at)) {
            list(row, untagged);
        }
    }
}

fn put_vtp(vtp: &mut Vtp, index: &dyn Fn(Arcs) -> Option<u32>, value: &Value) {
    let Some(n) = number(value) else {
        for (arcs, column) in o::TRUNK_ENABLED.iter().zip(&mut vtp.enabled) {
            if let (Some(port), Some(list)) = (index(arcs), octets(value)) {
                column.insert(port, list.to_vec());
            }
        }
        return;
    };
    let columns = [
        (o::VM_VLAN, &mut vtp.vm_vlan),
        (o::TRUNK_NATIVE, &mut vtp.native),
        (o::TRUNK_ENCAPSULATION, &mut vtp.encapsulation),
        (o::TRUNK_DYNAMIC_STATE, &mut vtp.dynamic_state),
        (o::TRUNK_DYNAMIC_STATUS, &mut vtp.dynamic_status),
    ];
    for (arcs, column) in columns {
        if let Some(port) = index(arcs) {
            column.insert(port, n);
        }
    }
    if index(o::TRUNK_SERIAL) == Some(0) {
        vtp.serial = Some(value.clone());
    }
}
