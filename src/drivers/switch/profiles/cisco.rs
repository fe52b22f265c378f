//! Switches that are written through Cisco's VLAN membership and VTP MIBs. VLANs are not created there: it needs VTP's edit buffer.
// tidy: table

use super::{Adding, Family, Grouping, Membership, Profile, Progress, Save};

/// CISCO-CONFIG-COPY-MIB::ccCopyTable: runningConfig(4) to startupConfig(3); ccCopyState successful(3), failed(4).
const CONFIG_COPY: Save = Save::Row {
    table: &[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1],
    cells: &[(3, 4), (4, 3)],
    row_status: 14,
    progress: Progress::Column { column: 10, done: 3, failed: 4 },
};

const ROW: Profile = Profile {
    vendor: "generic Cisco",
    family: Family::CiscoVtp,
    prefix: &[],
    descr: None,
    membership: Membership::Vtp,
    grouping: Grouping::Grouped,
    adding: Adding::EgressFirst,
    save: CONFIG_COPY,
    down_falls_out: false,
    link_types: false,
};

pub(super) static GENERIC: Profile = ROW;
/// CISCO-PRODUCTS-MIB::ciscoProducts.
static CATALYST: Profile = Profile { vendor: "Cisco Catalyst", prefix: &[1, 3, 6, 1, 4, 1, 9, 1], ..ROW };
/// CISCO-ENTITY-VENDORTYPE-OID-MIB::cevChassis.
static NEXUS: Profile = Profile { vendor: "Cisco Nexus", prefix: &[1, 3, 6, 1, 4, 1, 9, 12, 3, 1, 3], ..ROW };

pub(super) static ROWS: &[&Profile] = &[&CATALYST, &NEXUS];
