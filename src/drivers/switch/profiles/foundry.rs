//! Switches that are written through FOUNDRY-SN-SWITCH-GROUP-MIB: Foundry, Brocade ICX and NetIron, Ruckus ICX.
// tidy: table

use super::{Adding, Family, Grouping, Membership, Profile, Save};
use crate::drivers::switch::objects::FOUNDRY_WRITE_NVRAM;

/// FOUNDRY-SN-AGENT-MIB::snAgWriteNVRAM: write(3); normal(1), error(2) and writing(4) are shown. It is answered before it is done.
const WRITE_NVRAM: Save = Save::Scalar { object: FOUNDRY_WRITE_NVRAM, value: 3, done: 1, failed: 2 };

pub(super) static GENERIC: Profile = Profile {
    vendor: "Brocade ICX (Foundry)",
    family: Family::Foundry,
    prefix: &[1, 3, 6, 1, 4, 1, 1991],
    descr: None,
    membership: Membership::Foundry,
    grouping: Grouping::Grouped,
    adding: Adding::EgressFirst,
    save: WRITE_NVRAM,
    down_falls_out: false,
    link_types: false,
};

pub(super) static ROWS: &[&Profile] = &[&GENERIC];
