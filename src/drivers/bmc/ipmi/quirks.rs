//! What single boards taught: a table of data, one row for each lesson, with where it comes from.
//!
//! Leaves out what is harmless to do for every board (no ping before a session, no IPMB checksums, over-long codes and odd pads read,
//! parameter 3 and 0 of the boot options advisory). A board without a row is driven as IPMI 2.0 says.

use crate::model::fact::BmcIdentity;

/// What is done differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// Byte 2 of the boot flags for an EFI boot from disk.
    pub efi_disk: u8,
}

pub(crate) const NONE: Quirks = Quirks { efi_disk: 0x08 };

/// Which boards a row is about. `None` is any.
#[derive(Debug)]
pub(crate) struct Row {
    /// IANA enterprise number, as Get Device ID tells it.
    pub manufacturer_id: u32,
    pub product_id: Option<u16>,
    /// What the firmware revision begins with.
    pub firmware: Option<&'static str>,
    pub quirks: Quirks,
}

// tidy: table
// Each row says who taught it.
pub(crate) const TABLE: &[Row] = &[Row {
    // OpenStack Ironic, drivers/modules/ipmitool.py: Supermicro boots UEFI from disk with selector 9 (remote hard disk), not with 2.
    manufacturer_id: 10876, // Super Micro Computer, Inc.
    product_id: None,
    firmware: None,
    quirks: Quirks { efi_disk: 0x24 },
}];

/// The first row that fits; none fits an unknown board.
pub(crate) fn of(identity: &BmcIdentity) -> Quirks {
    TABLE
        .iter()
        .find(|row| {
            row.manufacturer_id == identity.manufacturer_id
                && row.product_id.is_none_or(|p| p == identity.product_id)
                && row.firmware.is_none_or(|f| identity.firmware.starts_with(f))
        })
        .map_or(NONE, |row| row.quirks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_boards() {
        let board = |manufacturer_id| of(&BmcIdentity { manufacturer_id, ..BmcIdentity::default() });
        assert_eq!(board(10876).efi_disk, 0x24);
        assert_eq!(board(0), NONE);
    }
}
