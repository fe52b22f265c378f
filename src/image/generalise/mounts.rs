//! What an image would mount, unlock or resume from on the disk that it was on.
//!
//! Leaves out file systems for data: whether a server has them is the persona's matter, so they are kept. Invariant: what is taken out stays readable
//! as a comment. Shown by `tests/importing/generalise.rs`.

use super::{Fault, Work};

/// What comes with the disk that a system was installed on.
const OF_THE_SYSTEM: [&str; 5] = ["/", "/usr", "/boot", "/boot/efi", "/efi"];

/// fstab(5): device, directory, type, …
pub(super) fn fstab(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    let Some(path) = work.at("/etc/fstab") else { return Ok(()) };
    work.comment_out(&path, |fields| {
        let dir = fields.get(1).map(|dir| if *dir == "/" { dir } else { dir.trim_end_matches('/') });
        dir.is_some_and(|dir| OF_THE_SYSTEM.contains(&dir)) || fields.get(2) == Some(&"swap")
    })
}

/// initramfs-tools(7), "resume"; crypttab(5).
pub(super) fn disks(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    work.remove_at("/etc/initramfs-tools/conf.d/resume");
    let Some(path) = work.at("/etc/crypttab") else { return Ok(()) };
    work.comment_out(&path, |_| true)
}
