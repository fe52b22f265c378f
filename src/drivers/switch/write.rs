//! Plans the SETs that bring one port to what is wanted: pure, one step at a time, each from what the switch shows at that moment.
//!
//! Leaves out: sending and reading back (`engine`), and a port's VLANs (`tables`). Invariant: a port is shut before its untagged VLAN changes
//! and opened only when all is right. Shown by `sim::switch` and `tests/switch_writes.rs`, on simulated switches with faults and on
//! recordings.

use super::objects::{self as o, at};
use super::profiles::{Grouping, Profile};
use super::read::State;
use super::seen::admin;
use super::snmp::{Binding, Oid, Value};
use super::tables::{Obstacle, Target, Work, WriteStep, plain};
use super::value::number;
use crate::model::fact::{Admin, PortConfig};

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
    for _ in 0..12 + 2 * (to.tagged.len() + state.vlans.table().existing().len()) {
        let Some(step) = next(&state, profile, grouping, target, to)? else { return Ok(steps) };
        happens(&mut state, &step.bindings);
        steps.push(step);
    }
    Err(Obstacle::Impossible("its plan does not end"))
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
    let Work { disrupts, step } = state.vlans.table().work(profile, grouping, target, to)?;
    Ok(match (now, step) {
        (Admin::Up, step) if to.admin == Admin::Down || (disrupts && step.is_some()) => Some(set_admin(target, Admin::Down)),
        (_, Some(step)) => Some(step),
        (_, None) if disrupts => return Err(Obstacle::Impossible("the switch does not come to show what is wanted of it")),
        (Admin::Down, None) if to.admin == Admin::Up => Some(set_admin(target, Admin::Up)),
        (Admin::Up | Admin::Down, None) => None,
    })
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

/// The effect of one PDU on a switch that does what it is told.
pub(crate) fn happens(state: &mut State, bindings: &[Binding]) {
    for (oid, value) in bindings {
        note_admin(state, oid, Some(value));
        state.vlans.table_mut().written(oid, value);
    }
}

/// Note in a state what a GET answered: nothing where an object is not there.
pub(crate) fn note(state: &mut State, oid: &Oid, value: Option<&Value>) {
    note_admin(state, oid, value);
    state.vlans.table_mut().note(oid, value);
}

fn note_admin(state: &mut State, oid: &Oid, value: Option<&Value>) {
    if let (Some([port]), Some(n)) = (oid.0.strip_prefix(o::IF_ADMIN_STATUS), value.and_then(number)) {
        state.admin.insert(*port, n);
    }
}

/// What a state holds for an object.
pub(crate) fn shown(state: &State, oid: &Oid) -> Option<Value> {
    match oid.0.strip_prefix(o::IF_ADMIN_STATUS) {
        Some([port]) => state.admin.get(port).copied().map(Value::Integer),
        Some(_) | None => state.vlans.table().shown(oid),
    }
}

/// Whether it shows an object as a step expects it.
pub(crate) fn shows(state: &State, target: Target<'_>, expected: &(Oid, Option<Value>)) -> bool {
    match expected.0.0.starts_with(o::IF_ADMIN_STATUS) {
        true => shown(state, &expected.0).as_ref().and_then(number) == expected.1.as_ref().and_then(number),
        false => state.vlans.table().shows(target, expected),
    }
}
