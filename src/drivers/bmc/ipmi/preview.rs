//! The requests of an operation in words: `Chassis Control: ACPI soft-off (05h)`, `Set System Boot Options: parameter 5 = e0 04 00 00 00`.
//!
//! Leaves out: sessions and reads, which change nothing. Invariant: what is said here is made of the very messages that the driver sends.
//! Shown by `tests/previews.rs`.

use super::boot::{sequence, wanted};
use super::commands::ChassisControl;
use super::quirks;
use crate::drivers::NOT_READ;
use crate::model::fact::BmcIdentity;
use crate::model::op::{Off, Op};

/// `identity`: which bytes mean a disk depends on the board; nothing where it was not read yet.
pub fn preview(ops: &[Op], identity: Option<&BmcIdentity>) -> Vec<Vec<String>> {
    let said = |op: &Op| match (op, identity) {
        (Op::SetBoot { device, efi, .. }, Some(board)) => {
            let (advices, flags, end) = sequence(wanted(*device, *efi), quirks::of(board));
            advices.into_iter().chain([flags, end]).map(|option| option.in_words()).collect()
        }
        (Op::SetBoot { .. }, None) => vec![NOT_READ.to_owned()],
        (Op::PowerOn { .. }, _) => vec![ChassisControl::PowerUp.in_words()],
        (Op::PowerOff { how, .. }, _) => vec![off(*how).in_words()],
        (Op::CreateVlan { .. } | Op::SetPort { .. } | Op::Save { .. }, _) => vec!["nothing is sent: it is a BMC, not a switch".to_owned()],
    };
    ops.iter().map(said).collect()
}

pub(super) fn off(how: Off) -> ChassisControl {
    match how {
        Off::Soft => ChassisControl::SoftShutdown,
        Off::Hard => ChassisControl::PowerDown,
    }
}
