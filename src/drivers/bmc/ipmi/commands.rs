//! What a BMC is asked, as `ipmi-rs` commands: those that the crate leaves out. Get Device ID is the crate's own.
//!
//! Leaves out cycle and reset: they are never sent. Parsers take any bytes; what is too short is `NotEnoughData`.
//! Shown by the tests below and by `tests/ipmi.rs`.

use ipmi_rs::connection::{CompletionErrorCode, IpmiCommand, Message, NetFn, NotEnoughData};

use crate::model::fact::{BootDevice, BootOverride, Power};

/// Busy now, worth asking later: node busy, timeout, out of space, duplicate, and the "in update or initialisation" codes (IPMI 2.0, table 5-2).
pub(crate) fn busy(code: CompletionErrorCode) -> bool {
    use CompletionErrorCode as C;
    matches!(code, C::NodeBusy | C::ProcessingTimeout | C::OutOfSpace | C::CannotExecuteDuplicateRequest | C::ResponseUnavailable { .. })
}

/// A completion code in words, with its number.
pub(crate) fn words(code: u8) -> String {
    let name = match code {
        0xc0 => "node busy",
        0xc1 => "invalid command",
        0xc2 => "command invalid for this LUN",
        0xc3 => "timeout while processing",
        0xc4 => "out of space",
        0xc5 => "reservation cancelled or invalid",
        0xc6 => "request data truncated",
        0xc7 => "request data length invalid",
        0xc8 => "request data field length limit exceeded",
        0xc9 => "parameter out of range",
        0xca => "cannot return the requested number of bytes",
        0xcb => "requested sensor, data or record not present",
        0xcc => "invalid data field in request",
        0xcd => "command illegal for this sensor or record",
        0xce => "response could not be provided",
        0xcf => "cannot execute duplicated request",
        0xd0 => "SDR repository in update mode",
        0xd1 => "device in firmware update mode",
        0xd2 => "BMC initialization in progress",
        0xd3 => "destination unavailable",
        0xd4 => "insufficient privilege",
        0xd5 => "not supported in the present state",
        0xd6 => "sub-function disabled",
        0xff => "unspecified error",
        _ => "completion code",
    };
    format!("{name} ({code:02X}h)")
}

/// A completion code of Set Session Privilege in words: it has some of its own (IPMI 2.0, table 22-23).
pub(crate) fn privilege_words(code: u8) -> String {
    let name = match code {
        0x80 => "not available for this user",
        0x81 => "above the limit of the user or the channel",
        0x82 => "the user level cannot be left",
        _ => return words(code),
    };
    format!("{name} ({code:02X}h)")
}

/// Get Chassis Status (IPMI 2.0, 28.2).
pub struct GetChassisStatus;

impl From<GetChassisStatus> for Message {
    fn from(_: GetChassisStatus) -> Self {
        Message::new_request(NetFn::Chassis, 0x01, Vec::new())
    }
}

impl IpmiCommand for GetChassisStatus {
    type Output = Power;
    type Error = NotEnoughData;

    /// Byte 1, bit 0: system power is on (table 28-3).
    fn parse_success_response(data: &[u8]) -> Result<Power, NotEnoughData> {
        let state = data.first().ok_or(NotEnoughData)?;
        Ok(if state & 1 == 1 { Power::On } else { Power::Off })
    }
}

/// Chassis Control (IPMI 2.0, table 28-4). Power cycle (2) and hard reset (3) are left out on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChassisControl {
    PowerDown = 0,
    PowerUp = 1,
    /// Soft shutdown by emulating a fatal over-temperature: ACPI.
    SoftShutdown = 5,
}

impl ChassisControl {
    pub fn name(self) -> &'static str {
        match self {
            ChassisControl::PowerDown => "Chassis Control: power down",
            ChassisControl::PowerUp => "Chassis Control: power up",
            ChassisControl::SoftShutdown => "Chassis Control: ACPI soft-off",
        }
    }

    /// `Chassis Control: ACPI soft-off (05h)`.
    pub fn in_words(self) -> String {
        format!("{} ({:02x}h)", self.name(), self as u8)
    }
}

impl From<ChassisControl> for Message {
    fn from(control: ChassisControl) -> Self {
        Message::new_request(NetFn::Chassis, 0x02, vec![control as u8])
    }
}

impl IpmiCommand for ChassisControl {
    type Output = ();
    type Error = NotEnoughData;

    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

/// Get System GUID (IPMI 2.0, 22.14): 16 bytes as received.
pub struct GetSystemGuid;

impl From<GetSystemGuid> for Message {
    fn from(_: GetSystemGuid) -> Self {
        Message::new_request(NetFn::App, 0x37, Vec::new())
    }
}

impl IpmiCommand for GetSystemGuid {
    type Output = [u8; 16];
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<[u8; 16], NotEnoughData> {
        data.first_chunk().copied().ok_or(NotEnoughData)
    }
}

/// Set Session Privilege Level (IPMI 2.0, 22.18): 3 operator, 4 administrator. Gives back the level that holds now.
pub struct SetSessionPrivilege(pub u8);

impl From<SetSessionPrivilege> for Message {
    fn from(level: SetSessionPrivilege) -> Self {
        Message::new_request(NetFn::App, 0x3b, vec![level.0])
    }
}

impl IpmiCommand for SetSessionPrivilege {
    type Output = u8;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<u8, NotEnoughData> {
        data.first().copied().ok_or(NotEnoughData)
    }
}

/// Close Session (IPMI 2.0, 22.19), by the BMC's id of it.
pub struct CloseSession(pub u32);

impl From<CloseSession> for Message {
    fn from(id: CloseSession) -> Self {
        Message::new_request(NetFn::App, 0x3c, id.0.to_le_bytes().to_vec())
    }
}

impl IpmiCommand for CloseSession {
    type Output = ();
    type Error = NotEnoughData;

    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

/// Set System Boot Options (IPMI 2.0, 28.12), by parameter (table 28-14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetBootOption {
    /// Parameter 0: 0 complete, 1 in progress.
    InProgress(bool),
    /// Parameter 3: what does not clear the valid bit. 08h: the 60 seconds without a chassis control.
    KeepFlags,
    /// Parameter 4: the BIOS is taken to have handled the boot option before (mask 01h, data 01h).
    Acknowledge,
    /// Parameter 5: flags and device, as bytes 1 and 2; the other three are 0.
    Flags([u8; 2]),
}

impl SetBootOption {
    /// `Set System Boot Options: parameter 5 = e0 04 00 00 00`.
    pub fn in_words(self) -> String {
        let message = Message::from(self);
        let data: Vec<String> = message.data().iter().skip(1).map(|byte| format!("{byte:02x}")).collect();
        format!("Set System Boot Options: parameter {} = {}", message.data().first().unwrap_or(&0), data.join(" "))
    }
}

impl From<SetBootOption> for Message {
    fn from(option: SetBootOption) -> Self {
        let data = match option {
            SetBootOption::InProgress(is) => vec![0x00, u8::from(is)],
            SetBootOption::KeepFlags => vec![0x03, 0x08],
            SetBootOption::Acknowledge => vec![0x04, 0x01, 0x01],
            SetBootOption::Flags([flags, device]) => vec![0x05, flags, device, 0, 0, 0],
        };
        Message::new_request(NetFn::Chassis, 0x08, data)
    }
}

impl IpmiCommand for SetBootOption {
    type Output = ();
    type Error = NotEnoughData;

    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

/// Get System Boot Options (IPMI 2.0, 28.13), parameter 5: flags and device, bytes 1 and 2.
pub struct GetBootFlags;

impl From<GetBootFlags> for Message {
    fn from(_: GetBootFlags) -> Self {
        Message::new_request(NetFn::Chassis, 0x09, vec![0x05, 0x00, 0x00])
    }
}

impl IpmiCommand for GetBootFlags {
    /// Nothing where the BMC answers with another parameter, or says that it is invalid or locked (bit 7).
    type Output = Option<[u8; 2]>;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<Option<[u8; 2]>, NotEnoughData> {
        let [_version, parameter, flags, device] = data.first_chunk().copied().ok_or(NotEnoughData)?;
        Ok((parameter == 0x05).then_some([flags, device]))
    }
}

/// Bits of byte 1 of the boot flags.
const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
const EFI: u8 = 0x20;

/// Boot flags as bytes: always the bits for valid, persistent and EFI in full, since some BMCs fall back to legacy without.
pub(crate) fn flag_bytes(want: BootOverride) -> [u8; 2] {
    let bit = |is: bool, bit: u8| if is { bit } else { 0 };
    [bit(want.valid, VALID) | bit(want.persistent, PERSISTENT) | bit(want.efi, EFI), selector(want.device) << 2]
}

/// Boot flags as read.
pub(crate) fn flags_of([flags, device]: [u8; 2]) -> BootOverride {
    BootOverride {
        valid: flags & VALID != 0,
        persistent: flags & PERSISTENT != 0,
        efi: flags & EFI != 0,
        device: device_of((device >> 2) & 0x0f),
    }
}

/// Boot device selector, byte 2, bits 5..2 (IPMI 2.0, table 28-14).
fn selector(device: BootDevice) -> u8 {
    match device {
        BootDevice::None => 0,
        BootDevice::Pxe => 1,
        BootDevice::Disk => 2,
        BootDevice::SafeMode => 3,
        BootDevice::Diagnostics => 4,
        BootDevice::Cdrom => 5,
        BootDevice::BiosSetup => 6,
        BootDevice::Floppy => 15,
        BootDevice::Other(bits) => bits & 0x0f,
    }
}

fn device_of(bits: u8) -> BootDevice {
    match bits {
        0 => BootDevice::None,
        1 => BootDevice::Pxe,
        2 => BootDevice::Disk,
        3 => BootDevice::SafeMode,
        4 => BootDevice::Diagnostics,
        5 => BootDevice::Cdrom,
        6 => BootDevice::BiosSetup,
        15 => BootDevice::Floppy,
        other => BootDevice::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that Ironic sends: persistent e0, once a0, legacy c0.
    #[test]
    fn boot_flags_are_the_bytes_that_boards_want() {
        let flags = |persistent, efi, device| flag_bytes(BootOverride { valid: true, persistent, efi, device });
        assert_eq!(flags(true, true, BootDevice::Pxe), [0xe0, 0x04]);
        assert_eq!(flags(true, true, BootDevice::Disk), [0xe0, 0x08]);
        assert_eq!(flags(false, true, BootDevice::Cdrom), [0xa0, 0x14]);
        assert_eq!(flags(true, false, BootDevice::BiosSetup), [0xc0, 0x18]);
        for byte in 0..=255u8 {
            let device = device_of(byte & 0x0f);
            assert_eq!(selector(device), byte & 0x0f);
        }
        assert_eq!(GetBootFlags::parse_success_response(&[1, 5, 0xe0, 4, 0, 0, 0]), Ok(Some([0xe0, 4])));
        assert_eq!(GetBootFlags::parse_success_response(&[1, 0x85, 0xe0, 4, 0, 0, 0]), Ok(None));
        assert_eq!(GetBootFlags::parse_success_response(&[1, 5, 0xe0]), Err(NotEnoughData));
    }
}
