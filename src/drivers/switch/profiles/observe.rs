//! Switches that are read and never written: their agents have no writer for VLANs, or none that anyone has seen at work.
// tidy: table

use super::{Adding, Family, Grouping, Membership, Profile, Save};
use crate::drivers::switch::portlist::Form;

const ROW: Profile = Profile {
    vendor: "unknown",
    family: Family::ObserveOnly,
    prefix: &[],
    descr: None,
    membership: Membership::QBridge(Form::Bits),
    grouping: Grouping::Single,
    adding: Adding::EgressFirst,
    save: Save::NoneKnown,
    down_falls_out: false,
    link_types: false,
};

pub(super) static GENERIC: Profile = ROW;
static GENERIC_FROM_END: Profile = Profile { membership: Membership::QBridge(Form::BitsFromEnd), ..ROW };
static GENERIC_VTP: Profile = Profile { membership: Membership::Vtp, ..ROW };
static ARISTA: Profile = Profile { vendor: "Arista EOS", prefix: &[1, 3, 6, 1, 4, 1, 30065], ..ROW };
static ARUBA_CX: Profile = Profile { vendor: "Aruba CX", prefix: &[1, 3, 6, 1, 4, 1, 47196], ..ROW };
static GENERIC_FOUNDRY: Profile = Profile { membership: Membership::Foundry, ..ROW };
static CUMULUS: Profile = Profile { vendor: "Cumulus Linux", prefix: &[1, 3, 6, 1, 4, 1, 40310], ..ROW };
static DELL_OS10: Profile = Profile { vendor: "Dell OS10", prefix: &[1, 3, 6, 1, 4, 1, 674, 11000], ..ROW };
static EXTREME: Profile = Profile { vendor: "Extreme Networks", prefix: &[1, 3, 6, 1, 4, 1, 1916], ..ROW };
static HUAWEI: Profile = Profile { vendor: "Huawei VRP", prefix: &[1, 3, 6, 1, 4, 1, 2011], ..ROW };
/// PortLists are decimal text.
static JUNOS: Profile = Profile {
    vendor: "Juniper Junos",
    prefix: &[1, 3, 6, 1, 4, 1, 2636],
    membership: Membership::QBridge(Form::Decimal),
    down_falls_out: true,
    ..ROW
};
static ONYX: Profile = Profile { vendor: "NVIDIA Onyx", prefix: &[1, 3, 6, 1, 4, 1, 33049], ..ROW };
/// Known by its sysDescr: the prefix is that of the silicon or the seller. PortLists are hex text.
static SONIC: Profile =
    Profile { vendor: "SONiC", prefix: &[1, 3, 6, 1, 4, 1], descr: Some("SONiC"), membership: Membership::QBridge(Form::HexText), ..ROW };

pub(super) static ROWS: &[&Profile] = &[&ARISTA, &ARUBA_CX, &CUMULUS, &DELL_OS10, &EXTREME, &HUAWEI, &JUNOS, &ONYX, &SONIC];

/// Observe-only over the tables that a switch was found to have.
pub(super) fn like(membership: Membership) -> &'static Profile {
    match membership {
        Membership::QBridge(Form::BitsFromEnd) => &GENERIC_FROM_END,
        Membership::QBridge(Form::Bits | Form::Decimal | Form::HexText) => &GENERIC,
        Membership::Foundry => &GENERIC_FOUNDRY,
        Membership::Vtp => &GENERIC_VTP,
    }
}
