//! What differs between vendors, as data: how a switch is recognised, where its VLAN membership is read, how it is written and saved.
//!
//! Leaves out: the doing (`read`, `write`, `engine`). A new vendor of a family (`tables`) is a row here and a recording in `tests/data/switch`.
//! Invariant: no two rows claim the same sysObjectID prefix without a longer one (or a sysDescr) to tell them apart (`prefixes_differ`).

mod cisco;
mod foundry;
mod observe;
mod qbridge;

use crate::model::switch::ProfileName;

use super::objects::Arcs;
use super::portlist::Form;
use super::snmp::Oid;

/// One row: a vendor's line of switches.
#[derive(Debug)]
pub(crate) struct Profile {
    pub vendor: &'static str,
    pub family: Family,
    /// sysObjectID begins with this.
    pub prefix: Arcs,
    /// sysDescr contains this: for those that share a prefix.
    pub descr: Option<&'static str>,
    pub membership: Membership,
    pub grouping: Grouping,
    pub adding: Adding,
    pub save: Save,
    /// Ports that are down are left out of the static table, as all leave them out of the current one: what they are configured for is their
    /// PVID.
    pub down_falls_out: bool,
    /// Ports have a link type, hh3cifVLANType, that rules their VLANs.
    pub link_types: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    QBridge,
    CiscoVtp,
    Foundry,
    ObserveOnly,
}

/// Where the VLANs of ports are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// dot1qPvid and dot1qVlanStaticTable, or dot1qVlanCurrentTable where the static one is not served.
    QBridge(Form),
    /// vmVlan and vlanTrunkPortTable.
    Vtp,
    /// snVLanByPortMemberTable and snSwIfInfoTable.
    Foundry,
}

/// How much goes into one SET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grouping {
    /// One varbind.
    Single,
    /// What belongs together: egress and untagged of one VLAN.
    Grouped,
    /// All of a port's VLAN change.
    Atomic,
}

/// Which of egress and untagged is set first when a port joins a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adding {
    EgressFirst,
    UntaggedFirst,
}

/// How the running configuration is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Save {
    /// No object for it is known.
    NoneKnown,
    /// A row of a copy table: these columns and createAndGo(4) in one SET.
    Row { table: Arcs, cells: &'static [(u32, i64)], row_status: u32, progress: Progress },
    /// An object that begins it when this is written, and shows how it goes.
    Scalar { object: Arcs, value: i64, done: i64, failed: i64 },
}

/// Where a copy shows how it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    NotShown,
    /// In a column of its row.
    Column {
        column: u32,
        done: i64,
        failed: i64,
    },
    /// In a row of another table, of which `request` names the row that began it.
    Results {
        request: Arcs,
        state: Arcs,
        running: i64,
        done: i64,
    },
}

impl Profile {
    pub(crate) fn name(&self) -> &'static str {
        match self.family {
            Family::QBridge => "q-bridge",
            Family::CiscoVtp => "cisco-vtp",
            Family::Foundry => "foundry",
            Family::ObserveOnly => "observe-only",
        }
    }
}

/// What the agent serves, for those that no row knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Probe {
    pub static_egress: bool,
    pub pvid: bool,
    pub vm_vlan: bool,
}

/// The row for a switch: the longest prefix (a row that also matches sysDescr beats one that does not), else by what it serves. A family
/// that the manifest names keeps the vendor's row where that is of the family.
pub(crate) fn recognise(sys_object_id: &Oid, sys_descr: &str, probe: Probe, wanted: ProfileName) -> &'static Profile {
    let matches = |p: &&&Profile| sys_object_id.0.starts_with(p.prefix) && p.descr.is_none_or(|d| sys_descr.contains(d));
    let by_vendor = rows().filter(matches).max_by_key(|p| (p.descr.is_some(), p.prefix.len()));
    let found = match by_vendor {
        Some(row) => row,
        None if probe.static_egress || probe.pvid => &qbridge::GENERIC,
        None if probe.vm_vlan => &cisco::GENERIC,
        None => &observe::GENERIC,
    };
    let family = match wanted {
        ProfileName::Auto => return found,
        ProfileName::QBridge => Family::QBridge,
        ProfileName::CiscoVtp => Family::CiscoVtp,
        ProfileName::Foundry => Family::Foundry,
        ProfileName::ObserveOnly => Family::ObserveOnly,
    };
    if found.family == family {
        return found;
    }
    match family {
        Family::QBridge => &qbridge::GENERIC,
        Family::CiscoVtp => &cisco::GENERIC,
        Family::Foundry => &foundry::GENERIC,
        Family::ObserveOnly => observe::like(found.membership),
    }
}

fn rows() -> impl Iterator<Item = &'static &'static Profile> {
    qbridge::ROWS.iter().chain(cisco::ROWS).chain(foundry::ROWS).chain(observe::ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_differ() {
        let all: Vec<_> = rows().collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert!((a.prefix, a.descr) != (b.prefix, b.descr), "{} and {}", a.vendor, b.vendor);
            }
        }
    }

    #[test]
    fn the_manifest_may_choose_the_family() {
        let hp: Oid = "1.3.6.1.4.1.11.2.3.7.11.107".parse().unwrap();
        let recognised = |wanted| recognise(&hp, "", Probe::default(), wanted);
        assert_eq!(recognised(ProfileName::Auto).vendor, "HP ProCurve");
        assert_eq!(recognised(ProfileName::QBridge).vendor, "HP ProCurve");
        assert_eq!(recognised(ProfileName::ObserveOnly).name(), "observe-only");
        assert_eq!(recognised(ProfileName::CiscoVtp).name(), "cisco-vtp");
    }

    #[test]
    fn the_unknown_by_what_it_serves() {
        let unknown: Oid = "1.3.6.1.4.1.8072.3.2.10".parse().unwrap();
        let by = |probe| recognise(&unknown, "Linux", probe, ProfileName::Auto).name();
        assert_eq!(by(Probe { static_egress: true, pvid: true, vm_vlan: false }), "q-bridge");
        assert_eq!(by(Probe { vm_vlan: true, ..Probe::default() }), "cisco-vtp");
        assert_eq!(by(Probe::default()), "observe-only");
    }
}
