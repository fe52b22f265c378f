//! The boot device: written as boards want it, and read back.
//!
//! Parameter 3 first (else the flags are gone after 60 s), 0 and 4 as advice, 5 with every bit, 0 again at the end. Some BMCs take the
//! bits and show others (persistence or EFI lost, IPMI's most common lie): what was shown right after our write is remembered, and as long
//! as exactly that is shown, what we wrote counts as what is there, but for persistence: where it is lost the option is gone after a start
//! or a minute, and that is no drift. A BMC that shows another device than was written `Disagrees`.
//! Shown by `tests/ipmi.rs`: ipmi_sim loses all three bits.

use tokio::time::Instant;

use super::commands::{self, GetBootFlags, SetBootOption};
use super::driver::{Copies, INSUFFICIENT_PRIVILEGE, IpmiDriver};
use super::quirks::Quirks;
use crate::drivers::Fault;
use crate::model::fact::{BootDevice, BootOverride};

#[derive(Default)]
pub(super) struct BootMemory {
    /// As last read.
    pub last: Option<BootOverride>,
    written: Option<Written>,
}

/// A write that does not read back bit for bit.
struct Written {
    want: BootOverride,
    shows: [u8; 2],
}

/// The bytes to write, by a board's quirks.
fn bytes(want: BootOverride, quirks: Quirks) -> [u8; 2] {
    let [flags, device] = commands::flag_bytes(want);
    [flags, if want.efi && want.device == BootDevice::Disk { quirks.efi_disk } else { device }]
}

/// What bytes mean, by a board's quirks.
fn meaning(bytes: [u8; 2], quirks: Quirks) -> BootOverride {
    let plain = commands::flags_of(bytes);
    let disk = plain.efi && bytes[1] & 0x3c == quirks.efi_disk & 0x3c;
    if disk { BootOverride { device: BootDevice::Disk, ..plain } } else { plain }
}

/// For people: `Pxe, persistent, EFI`.
fn words(boot: BootOverride) -> String {
    let mut out = boot.device.to_string();
    for (is, word) in [(!boot.valid, ", not valid"), (boot.persistent, ", persistent"), (boot.efi, ", EFI")] {
        if is {
            out.push_str(word);
        }
    }
    out
}

pub(super) fn wanted(device: BootDevice, efi: bool) -> BootOverride {
    BootOverride { valid: true, persistent: true, efi, device }
}

/// What is written, in this order: advice, the flags, the end.
pub(super) fn sequence(want: BootOverride, quirks: Quirks) -> ([SetBootOption; 3], SetBootOption, SetBootOption) {
    let advices = [SetBootOption::KeepFlags, SetBootOption::InProgress(true), SetBootOption::Acknowledge];
    (advices, SetBootOption::Flags(bytes(want, quirks)), SetBootOption::InProgress(false))
}

impl IpmiDriver {
    /// Nothing where the BMC does not tell.
    pub(super) async fn read_boot(&mut self, deadline: Instant) -> Result<Option<BootOverride>, Fault> {
        let seen = self.read_flags(deadline).await?.map(|shown| {
            let plain = meaning(shown, self.quirks);
            match &self.boot.written {
                Some(written) if written.shows == shown => BootOverride { persistent: plain.persistent, ..written.want },
                Some(_) | None => plain,
            }
        });
        self.boot.last = seen;
        Ok(seen)
    }

    async fn read_flags(&mut self, deadline: Instant) -> Result<Option<[u8; 2]>, Fault> {
        let what = "Get System Boot Options";
        let mut answer = self.read(GetBootFlags, what, deadline).await?;
        if answer == Err(INSUFFICIENT_PRIVILEGE) && self.link.as_ref().is_some_and(|l| !l.raised) {
            // OPERATOR is needed (IPMI 2.0, table G-1), and a session begins at USER.
            self.raise(deadline).await?;
            answer = self.read(GetBootFlags, what, deadline).await?;
        }
        Ok(answer.ok().flatten())
    }

    pub(super) async fn set_boot(&mut self, device: BootDevice, efi: bool, deadline: Instant) -> Result<(), Fault> {
        let want = wanted(device, efi);
        self.prepare(deadline).await?;
        if self.identity.is_none() {
            // Which bytes mean a disk depends on the board.
            self.read_identity(deadline).await?;
        }
        self.boot.last = None;
        let (advices, flags, end) = sequence(want, self.quirks);
        // OpenBMC refuses 3, ipmi_sim refuses 0, and 81h at 0 means that somebody else began: none of it is in our way.
        for advice in advices {
            let _refused = self.option(advice, deadline).await?;
        }
        let set = self.option(flags, deadline).await;
        if let Err(Fault::Unknown { .. }) = set {
            return set.map(|_| ());
        }
        let _refused = self.option(end, deadline).await?;
        set?.map_err(|code| self.refused("Set System Boot Options", code))?;
        self.compare(want, deadline).await
    }

    async fn option(&mut self, option: SetBootOption, deadline: Instant) -> Result<Result<(), u8>, Fault> {
        self.change(option, "Set System Boot Options", Copies::Many, deadline).await
    }

    async fn compare(&mut self, want: BootOverride, deadline: Instant) -> Result<(), Fault> {
        let Some(shown) = self.read_flags(deadline).await? else { return Ok(()) };
        let seen = meaning(shown, self.quirks);
        let none = want.device == BootDevice::None && !seen.valid;
        if seen.device != want.device && !none {
            self.boot.written = None;
            return Err(Fault::Disagrees {
                device: self.device.clone(),
                place: "boot flags".to_owned(),
                expected: words(want),
                found: words(seen),
            });
        }
        self.boot.written = (seen != want).then_some(Written { want, shows: shown });
        self.boot.last = Some(BootOverride { persistent: seen.persistent, ..want });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::bmc::ipmi::quirks;

    #[test]
    fn supermicro_boots_efi_from_disk_by_another_number() {
        let disk = BootOverride { valid: true, persistent: true, efi: true, device: BootDevice::Disk };
        let legacy = BootOverride { efi: false, ..disk };
        let supermicro = Quirks { efi_disk: 0x24 };
        for (want, quirks, on_the_wire) in
            [(disk, supermicro, [0xe0, 0x24]), (legacy, supermicro, [0xc0, 0x08]), (disk, quirks::NONE, [0xe0, 0x08])]
        {
            assert_eq!(bytes(want, quirks), on_the_wire);
            assert_eq!(meaning(on_the_wire, quirks), want);
        }
    }
}
