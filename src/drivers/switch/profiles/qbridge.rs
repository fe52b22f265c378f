//! Switches that are written through Q-BRIDGE-MIB (RFC 4363).
// tidy: table

use super::{Adding, Family, Grouping, Membership, Profile, Progress, Save};
use crate::drivers::switch::objects::{HH3C_RESULT_REQUEST, HH3C_RESULT_STATE};
use crate::drivers::switch::portlist::Form;

pub(super) static GENERIC: Profile = Profile {
    vendor: "generic Q-BRIDGE",
    family: Family::QBridge,
    prefix: &[],
    descr: None,
    membership: Membership::QBridge(Form::Bits),
    grouping: Grouping::Grouped,
    adding: Adding::EgressFirst,
    save: Save::NoneKnown,
    down_falls_out: false,
    link_types: false,
};

/// HP ProCurve, ArubaOS-Switch: 1.3.6.1.4.1.11.2.3.7. Takes a whole change in one PDU (PacketFence) and moves the PVID by itself.
static PROCURVE: Profile =
    Profile { vendor: "HP ProCurve", prefix: &[1, 3, 6, 1, 4, 1, 11, 2, 3, 7], grouping: Grouping::Atomic, ..GENERIC_ROW };
/// HH3C-CONFIG-MAN-MIB::hh3cCfgOperateTable: type running2Startup(1); hh3cCfgOperateState opInProgress(1), opSuccess(2), all others failures.
const HH3C_SAVE: Save = Save::Row {
    table: &[1, 3, 6, 1, 4, 1, 25506, 2, 4, 1, 2, 4, 1],
    cells: &[(2, 1)],
    row_status: 9,
    progress: Progress::Results { request: HH3C_RESULT_REQUEST, state: HH3C_RESULT_STATE, running: 1, done: 2 },
};
/// HP Comware, H3C: each port is access, trunk or hybrid.
static COMWARE: Profile = Profile {
    vendor: "HP Comware",
    prefix: &[1, 3, 6, 1, 4, 1, 25506],
    save: HH3C_SAVE,
    down_falls_out: true,
    link_types: true,
    ..GENERIC_ROW
};
/// RADLAN-COPY-MIB::rlCopyTable: from local(1) runningConfig(2) to local(1) startupConfig(3).
const RL_COPY: &[(u32, i64)] = &[(3, 1), (7, 2), (8, 1), (12, 3)];
static POWERCONNECT: Profile = Profile {
    vendor: "Dell PowerConnect",
    prefix: &[1, 3, 6, 1, 4, 1, 674, 10895],
    save: Save::Row { table: &[1, 3, 6, 1, 4, 1, 89, 87, 2, 1], cells: RL_COPY, row_status: 17, progress: Progress::NotShown },
    ..GENERIC_ROW
};
/// Cisco Small Business: the Radlan MIBs under 1.3.6.1.4.1.9.6.1.101.
static CISCO_SB: Profile = Profile {
    vendor: "Cisco Small Business",
    prefix: &[1, 3, 6, 1, 4, 1, 9, 6, 1],
    save: Save::Row { table: &[1, 3, 6, 1, 4, 1, 9, 6, 1, 101, 87, 2, 1], cells: RL_COPY, row_status: 17, progress: Progress::NotShown },
    ..GENERIC_ROW
};
static FORCE10: Profile = Profile { vendor: "Dell Force10", prefix: &[1, 3, 6, 1, 4, 1, 6027], ..GENERIC_ROW };
static DLINK: Profile = Profile { vendor: "D-Link", prefix: &[1, 3, 6, 1, 4, 1, 171], ..GENERIC_ROW };
/// A DES-3028 shows its 28 ports as the last 28 bits of 64, port 1 the very last (tests/data/switch/dlink-des3038.snmprec).
static DLINK_DES3000: Profile = Profile {
    vendor: "D-Link DES-3000",
    prefix: &[1, 3, 6, 1, 4, 1, 171, 10, 63],
    membership: Membership::QBridge(Form::BitsFromEnd),
    ..GENERIC_ROW
};
static EDGECORE: Profile = Profile { vendor: "Edgecore (Accton)", prefix: &[1, 3, 6, 1, 4, 1, 259], ..GENERIC_ROW };
static SMC: Profile = Profile { vendor: "SMC", prefix: &[1, 3, 6, 1, 4, 1, 202], ..GENERIC_ROW };
/// LG takes untagged before egress (PacketFence: "sensitive about the order").
static LG: Profile =
    Profile { vendor: "LG", prefix: &[1, 3, 6, 1, 4, 1, 572], adding: Adding::UntaggedFirst, grouping: Grouping::Single, ..GENERIC_ROW };
/// Of several varbinds only the first takes effect (PacketFence, GS110).
static NETGEAR: Profile = Profile { vendor: "Netgear", prefix: &[1, 3, 6, 1, 4, 1, 4526], grouping: Grouping::Single, ..GENERIC_ROW };

const GENERIC_ROW: Profile = Profile {
    vendor: "",
    family: Family::QBridge,
    prefix: &[],
    descr: None,
    membership: Membership::QBridge(Form::Bits),
    grouping: Grouping::Grouped,
    adding: Adding::EgressFirst,
    save: Save::NoneKnown,
    down_falls_out: false,
    link_types: false,
};

pub(super) static ROWS: &[&Profile] =
    &[&PROCURVE, &COMWARE, &POWERCONNECT, &CISCO_SB, &FORCE10, &DLINK, &DLINK_DES3000, &EDGECORE, &SMC, &LG, &NETGEAR];
