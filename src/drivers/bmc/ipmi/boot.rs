//! The boot device: written as boards want it, and read back.
//!
//! Parameter 3 first (else the flags are gone after 60 s), 0 and 4 as advice, 5 with every bit, 0 again at the end. Some BMCs take the
//! bits and show others (persistence or EFI lost, IPMI's most common lie): what was shown right after our write is remembered, and as long
//! as exactly that is shown, what we wrote counts as what is there, but for persistence: where it is lost the option is gone after a start
//! or a minute, and that is no drift. So does what is taken, and shown as no device at all. A BMC that shows another device than was written
//! `Disagrees`.
//! Shown by `tests/ipmi.rs`: ipmi_sim loses all three bits.

use ipmi_rs::connection::Message;
use tokio::time::Instant;

use super::commands::{self, GetBootFlags, SetBootOption, SetSessionPrivilege};
use super::driver::IpmiDriver;
use super::open::Raised;
use super::quirks::Quirks;
use super::request::{INSUFFICIENT_PRIVILEGE, Right, Trouble, UNCERTAIN};
use super::session::level;
use crate::drivers::Fault;
use crate::drivers::gate::Permit;
use crate::model::fact::{BootDevice, BootOverride};

const WHAT: &str = "Set System Boot Options";

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
        if answer == Err(INSUFFICIENT_PRIVILEGE) && self.link.as_ref().is_some_and(|l| l.raised == Raised::NotAsked) {
            // OPERATOR is needed (IPMI 2.0, table G-1), and a session begins at USER.
            let raise = "Set Session Privilege";
            let code = self.read(SetSessionPrivilege(level(self.settings.privilege)), raise, deadline).await?.err();
            self.raised(code.unwrap_or(0), raise)?;
            answer = self.read(GetBootFlags, what, deadline).await?;
        }
        Ok(answer.ok().flatten())
    }

    pub(super) async fn set_boot(&mut self, device: BootDevice, efi: bool, permit: &Permit, deadline: Instant) -> Result<(), Fault> {
        let want = wanted(device, efi);
        self.before_change(WHAT, permit, deadline).await?;
        if self.identity.is_none() {
            // Which bytes mean a disk depends on the board. One that does not say who made it is driven as IPMI 2.0 says.
            let _not_told = self.read_identity(deadline).await;
            // Reading may have opened another session.
            self.before_change(WHAT, permit, deadline).await?;
        }
        self.boot.last = None;
        let (guid, mut left) = (self.guid, false);
        let (advices, flags, end) = sequence(want, self.quirks);
        // OpenBMC refuses 3, ipmi_sim refuses 0, and 81h at 0 means that somebody else began: none of it is in our way.
        // To a slow one only what the option needs to last, or the time is over before it is set.
        let slow = self.patience.is_slow();
        for advice in advices.into_iter().filter(|advice| !slow || matches!(advice, SetBootOption::KeepFlags)) {
            let _refused = self.option(advice, permit, &mut left, deadline).await?;
        }
        let set = self.option(flags, permit, &mut left, deadline).await?;
        if let Err(code) = set
            && UNCERTAIN.contains(&code)
        {
            return Err(self.unknown(&format!("{WHAT} but: {}", commands::words(code))));
        }
        if !slow {
            let _refused = self.option(end, permit, &mut left, deadline).await?;
        }
        set.map_err(|code| self.refused_change(WHAT, code))?;
        self.compare(want, guid, deadline).await
    }

    /// One parameter, in the session there is: never in another one. `left`: whether anything of this operation has gone out.
    async fn option(
        &mut self,
        option: SetBootOption,
        permit: &Permit,
        left: &mut bool,
        deadline: Instant,
    ) -> Result<Result<(), u8>, Fault> {
        let message: Message = option.into();
        let tries = self.tries();
        match self.round_trip(&message, tries, Some(Right { permit, fresh: None }), deadline).await {
            Ok(replied) if UNCERTAIN.contains(&replied.reply.code) => {
                *left = true;
                Ok(Err(replied.reply.code))
            }
            Ok(replied) => {
                *left = true;
                self.understand::<SetBootOption>(&replied.reply, WHAT)
            }
            Err(Trouble::Silent { .. }) => {
                self.link = None;
                Err(self.unknown(WHAT))
            }
            Err(Trouble::Closed(closed)) if *left => Err(self.unanswered(Trouble::Stopped(closed), WHAT)),
            Err(Trouble::NotSent | Trouble::Network(_)) if *left => Err(self.unknown(WHAT)),
            Err(trouble) => Err(self.unanswered(trouble, WHAT)),
        }
    }

    /// `guid`: of the BMC that was written.
    async fn compare(&mut self, want: BootOverride, guid: Option<[u8; 16]>, deadline: Instant) -> Result<(), Fault> {
        let shown = self.read_flags(deadline).await;
        if self.guid != guid {
            return Err(self.unknown(WHAT));
        }
        let Some(shown) = shown? else { return Ok(()) };
        let seen = meaning(shown, self.quirks);
        if seen.device == BootDevice::None && want.device != BootDevice::None {
            // Many boards take it and show nothing: whether they obey is seen at the start.
            self.boot.written = None;
            self.boot.last = Some(seen);
            return Ok(());
        }
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
