//! Where a family of switches shows and takes the VLANs of its ports: one trait, and one file for each family.
//!
//! Leaves out: asking and sending (`read`, `engine`), and what differs within a family (`profiles`). Invariants: what a table plans for a
//! port it plans from what the switch shows at that moment, and a step tells what must be seen when it was done; a list of ports differs
//! from what was read in our own port alone. Shown by `tests/switch_writes.rs`.

mod foundry;
mod qbridge;
mod vtp;

use std::collections::BTreeSet;

pub(crate) use foundry::Foundry;
pub(crate) use qbridge::{Bridge, Link, Source, rows};
pub(crate) use vtp::Vtp;

use super::objects::{Arcs, at};
use super::profiles::{Grouping, Profile};
use super::snmp::{Binding, Oid, Value};
use super::value::{number, octets};
use crate::model::Vlan;
use crate::model::fact::{PortConfig, PortMode, Quality};

/// The tables of one switch, as they were read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Vlans {
    Bridge(Bridge),
    Vtp(Box<Vtp>),
    Foundry(Foundry),
}

/// The VLANs of one port, and how sure that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortVlans {
    pub mode: PortMode,
    pub untagged: Option<Vlan>,
    pub tagged: BTreeSet<Vlan>,
    pub quality: Quality,
}

/// A port whose VLANs are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port<'a> {
    pub if_index: u32,
    pub base_ports: &'a [u32],
    /// ifOperStatus.
    pub is_down: bool,
}

/// The port to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub key: &'a str,
    pub if_index: u32,
    pub base_port: Option<u32>,
}

/// One PDU, and what the switch must show when it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriteStep {
    pub what: String,
    pub bindings: Vec<Binding>,
    /// Nothing: that the object is gone.
    pub expect: Vec<(Oid, Option<Value>)>,
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

/// What is to be done about a port's VLANs, and whether its untagged VLAN is concerned.
pub(crate) struct Work {
    pub disrupts: bool,
    pub step: Option<WriteStep>,
}

/// The VLANs of ports, as one family of switches has them.
pub(crate) trait VlanTable {
    /// Those that exist.
    fn existing(&self) -> BTreeSet<Vlan>;

    /// The VLANs of these ports, in their order.
    fn of(&self, ports: &[Port<'_>]) -> Vec<PortVlans>;

    /// The next PDU that brings a port's VLANs nearer to what is wanted, but for its ifAdminStatus.
    fn work(&self, profile: &Profile, grouping: Grouping, target: Target<'_>, to: &PortConfig) -> Result<Work, Obstacle>;

    /// What shows where a port is and where it is to be: read back after each SET on it.
    fn of_port(&self, target: Target<'_>, to: &PortConfig) -> Vec<Oid>;

    /// What a step rests on: read just before it.
    fn of_step(&self, target: Target<'_>, step: &WriteStep) -> Vec<Oid>;

    /// What is known of an object.
    fn shown(&self, oid: &Oid) -> Option<Value>;

    /// An object as a GET answered: nothing where it is not there.
    fn note(&mut self, oid: &Oid, value: Option<&Value>);

    /// The effect of an object that is written, on a switch that does what it is told.
    fn written(&mut self, oid: &Oid, value: &Value) {
        self.note(oid, Some(value));
    }

    /// Whether it shows an object as it is expected, as far as our port is concerned.
    fn shows(&self, _target: Target<'_>, (oid, expected): &(Oid, Option<Value>)) -> bool {
        match (self.shown(oid), expected) {
            (Some(now), Some(value)) => same(&now, value),
            (now, expected) => now.is_none() && expected.is_none(),
        }
    }

    /// The PDUs that make a VLAN, tagged on these ports, whose other frames go where they went. An error where they would not.
    fn creation(&self, vlan: Vlan, uplinks: &[Target<'_>]) -> Result<Vec<Vec<Binding>>, String>;
}

impl Vlans {
    pub(crate) fn table(&self) -> &dyn VlanTable {
        match self {
            Vlans::Bridge(bridge) => bridge,
            Vlans::Vtp(vtp) => vtp.as_ref(),
            Vlans::Foundry(foundry) => foundry,
        }
    }

    pub(crate) fn table_mut(&mut self) -> &mut dyn VlanTable {
        match self {
            Vlans::Bridge(bridge) => bridge,
            Vlans::Vtp(vtp) => vtp.as_mut(),
            Vlans::Foundry(foundry) => foundry,
        }
    }
}

/// RowStatus, RFC 2579.
pub(super) const CREATE_AND_GO: i64 = 4;

/// A step that must show what it writes.
pub(super) fn plain(what: String, bindings: Vec<Binding>) -> WriteStep {
    let expect = bindings.iter().map(|(oid, value)| (oid.clone(), Some(value.clone()))).collect();
    WriteStep { what, bindings, expect, opens: false, advice: false }
}

/// `port1: PVID 20, egress ports of VLAN 20`.
fn describe(target: Target<'_>, bindings: &[Binding], names: &[(Arcs, &str)]) -> String {
    let name = |(oid, value): &Binding| {
        let named = names.iter().find_map(|(arcs, name)| Some((name, oid.0.strip_prefix(*arcs)?)));
        match named {
            // The index of a table of VLANs begins with the VLAN.
            Some((name, [vlan, ..])) if name.ends_with("of VLAN") => format!("{name} {vlan}"),
            Some((name, _)) => number(value).map_or_else(|| (*name).to_owned(), |n| format!("{name} {n}")),
            None => oid.to_string(),
        }
    };
    format!("{}: {}", target.key, bindings.iter().map(name).collect::<Vec<_>>().join(", "))
}

fn unknown(why: &str) -> PortVlans {
    PortVlans { mode: PortMode::Unknown, untagged: None, tagged: BTreeSet::new(), quality: Quality::Unknown(why.to_owned()) }
}

/// A port that is in these VLANs.
fn exact(untagged: Option<Vlan>, tagged: BTreeSet<Vlan>, quality: Quality) -> PortVlans {
    let mode = if tagged.is_empty() { PortMode::Access } else { PortMode::Trunk };
    PortVlans { mode, untagged, tagged, quality }
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

/// A VLAN that exists and in which the port is not tagged: the lowest, which is the default VLAN.
fn spare(existing: &BTreeSet<Vlan>, tagged: &BTreeSet<Vlan>) -> Result<Vlan, Obstacle> {
    let why = "every VLAN is tagged on it, so that untagged frames have nowhere to go but into one of them";
    existing.iter().find(|vlan| !tagged.contains(vlan)).copied().ok_or(Obstacle::Impossible(why))
}

/// All that a port is to be in, where each of them exists.
fn wanted(existing: &BTreeSet<Vlan>, to: &PortConfig) -> Result<BTreeSet<Vlan>, Obstacle> {
    let wanted: BTreeSet<Vlan> = to.tagged.iter().chain(&to.untagged).copied().collect();
    match wanted.iter().find(|vlan| !existing.contains(vlan)) {
        Some(missing) => Err(Obstacle::MissingVlan(*missing)),
        None => Ok(wanted),
    }
}

/// The last part of an instance of a column, where its index is one arc.
fn index(arcs: Arcs, oid: &Oid) -> Option<u32> {
    if let Some([index]) = oid.0.strip_prefix(arcs) { Some(*index) } else { None }
}

fn integer(arcs: Arcs, instance: &[u32], value: i64) -> Binding {
    (at(arcs, instance), Value::Integer(value))
}

fn same(a: &Value, b: &Value) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        (_, _) => match (octets(a), octets(b)) {
            (Some(a), Some(b)) => trimmed(a) == trimmed(b),
            (_, _) => a == b,
        },
    }
}

/// Agents may leave out the empty end of a list.
fn trimmed(list: &[u8]) -> &[u8] {
    &list[..list.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1)]
}
