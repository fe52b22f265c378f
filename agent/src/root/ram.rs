//! A root that is fetched whole into memory, and then needs no server any more.
//!
//! Leaves out: unpacking, since squashfs is read as it is. Invariant: it is mounted only if its size and SHA-256 are those of the command line, so
//! that what the kernel parses is what the controller meant. Shown by `tests/guests.py`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use composefs_ioctls::loop_device::{flags, loopify_with_flags};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use sha2::{Digest, Sha256};

use super::{RootError, doing, memory::Memory, mount_with, tmpfs};
use crate::console::{chain, say};
use crate::http::{self, Url};

const HELD: &str = "/embody/held";
const FILE: &str = "/embody/held/root.squashfs";
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(10);
const AT_A_TIME: usize = 256 << 10;
/// The loop device reads whole blocks of this size.
const BLOCK: u64 = 4_096;
const TELL_EVERY: Duration = Duration::from_secs(10);

pub(super) fn mount_at(at: &str, url: &str, sha256: &[u8; 32], size: u64, patience: Duration) -> Result<(), RootError> {
    let url_of = Url::parse(url)?;
    match Memory::now() {
        Some(memory) => memory.takes(size)?,
        None => say("/proc/meminfo does not say how much memory is free: the root is fetched all the same"),
    }
    let room = size.next_multiple_of(BLOCK).saturating_add(BLOCK);
    fs::create_dir_all(HELD).map_err(doing("a directory of the initrd cannot be made"))?;
    tmpfs(HELD, &format!("mode=0700,size={room}")).map_err(|source| RootError::Mount { what: "the memory for the root", source })?;
    say(&format!("{} MiB are fetched from {url}", size.div_ceil(1 << 20)));
    let begun = Instant::now();
    let mut file = File::create(FILE).map_err(doing("the file of the root cannot be made"))?;
    let found = fetch(&url_of, size, &mut file, patience)?;
    if found != *sha256 {
        return Err(RootError::Digest { found: hex(&found), expected: hex(sha256) });
    }
    say(&format!("they are here after {} s, and are what was asked for", begun.elapsed().as_secs()));
    file.set_len(size.next_multiple_of(BLOCK)).map_err(doing("the file of the root cannot be made whole blocks"))?;
    drop(file);
    mount_file(at)
}

/// The digest of what came.
fn fetch(url: &Url, size: u64, file: &mut File, patience: Duration) -> Result<[u8; 32], RootError> {
    let mut digest = Sha256::new();
    let mut have = 0;
    let mut since = Instant::now();
    let mut again = AGAIN_MIN;
    let mut progress = Progress { told: Instant::now(), size };
    while have < size {
        let before = have;
        let broke_off = match http::get(url, have, size) {
            Ok(body) => pieces(body, file, &mut digest, &mut have, &mut progress)?
                .map_or_else(|| "it broke off".to_owned(), |error| error.to_string()),
            Err(error) if !error.may_pass() => return Err(error.into()),
            Err(error) if since.elapsed() + again > patience => return Err(error.into()),
            Err(error) => chain(&error),
        };
        if have == size {
            break;
        }
        if have > before {
            (since, again) = (Instant::now(), AGAIN_MIN);
        } else if since.elapsed() + again > patience {
            return Err(RootError::Io { what: "the root comes no further", source: io::Error::other(broke_off) });
        }
        say(&format!("the root, at {have} of {size} octets: {broke_off}; the rest is asked for"));
        sleep(again);
        again = (again * 2).min(AGAIN_MAX);
    }
    Ok(digest.finalize().into())
}

/// Until the end, or an error of the connection, which is given back.
fn pieces(
    mut body: impl Read,
    file: &mut File,
    digest: &mut Sha256,
    have: &mut u64,
    progress: &mut Progress,
) -> Result<Option<io::Error>, RootError> {
    let mut buffer = vec![0; AT_A_TIME];
    loop {
        let piece = match body.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Some(error)),
        };
        file.write_all(piece).map_err(doing("the root cannot be kept in memory"))?;
        digest.update(piece);
        *have += piece.len() as u64;
        progress.tell(*have);
    }
}

/// What someone at the console sees of a large root.
struct Progress {
    told: Instant,
    size: u64,
}

impl Progress {
    fn tell(&mut self, have: u64) {
        if self.told.elapsed() > TELL_EVERY {
            say(&format!("{} % of the root are here", have.saturating_mul(100) / self.size.max(1)));
            self.told = Instant::now();
        }
    }
}

fn mount_file(at: &str) -> Result<(), RootError> {
    let file = File::open(FILE).map_err(doing("the file of the root cannot be opened"))?;
    // It goes with the mount.
    let device = loopify_with_flags(&file, flags::LO_FLAGS_READ_ONLY | flags::LO_FLAGS_AUTOCLEAR)
        .map_err(doing("no loop device for the root (LOOP_CONFIGURE is of Linux 5.8)"))?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&device));
    let path = fs::read_link(link).map_err(doing("the loop device of the root has no path"))?;
    mount_with(&path.to_string_lossy(), at, "squashfs", MountFlags::RDONLY, "")
        .map_err(|source| RootError::Mount { what: "the root, a squashfs,", source })?;
    unmount(HELD, UnmountFlags::DETACH).map_err(|source| RootError::Mount { what: "the memory of the root", source })
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
