//! A directory as a tar on its way to a controller, so that whoever may read it imports it, whoever keeps images.
//!
//! Leaves out what other file systems mounted in it hold (told). Invariants: no symbolic link below the root is followed; a file that cannot be read
//! is an error by name, after the walk, so that all of them are told at once. Shown by `tests/importing/dir.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;

use super::export::tar::{Fields, Writer};
use super::index::escaped;
use super::source::Names;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// PAX records of extended attributes, as GNU tar and bsdtar write them: only that there is one is told on.
const TOLD: [&str; 2] = ["security.capability", "security.selinux"];

type Identity = (u32, u32, u64);

struct Pack<'p> {
    writer: Writer<'p>,
    root: OwnedFd,
    device: (u32, u32),
    linked: BTreeMap<Identity, Vec<u8>>,
    open: Vec<Vec<u8>>,
    unreadable: Names,
    mounts: Names,
    changed: Names,
}

/// Writes all of a directory; `tell` is told what is not in it.
pub fn directory(path: &Path, to: &mut dyn Write, tell: &mut dyn FnMut(String)) -> io::Result<()> {
    let root = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = statx(&root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let mut pack = Pack {
        writer: Writer::new(to),
        root,
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        linked: BTreeMap::new(),
        open: vec![Vec::new()],
        unreadable: Names::default(),
        mounts: Names::default(),
        changed: Names::default(),
    };
    pack.header(b"./", &stat, b'5', b"", 0, None)?;
    while let Some(directory) = pack.open.pop() {
        pack.directory(&directory)?;
    }
    if !pack.unreadable.is_empty() {
        let hint = "import as a user who can read all of it, or a tar that root made";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{}; {hint}", pack.unreadable)));
    }
    if !pack.mounts.is_empty() {
        tell(format!("other file systems are mounted on {}: what they hold is not in the image", pack.mounts));
    }
    if !pack.changed.is_empty() {
        tell(format!("{} files were changed while they were read: {}", pack.changed.len(), pack.changed));
    }
    pack.writer.end().map_err(io::Error::other)
}

impl Pack<'_> {
    fn header(&mut self, path: &[u8], stat: &Statx, type_flag: u8, target: &[u8], size: u64, device: Option<(u32, u32)>) -> io::Result<()> {
        let mode = if type_flag == b'2' { 0o777 } else { stat.stx_mode & 0o7777 };
        let (uid, gid, mtime) = (stat.stx_uid, stat.stx_gid, stat.stx_mtime.tv_sec);
        let fields = Fields { path, target, mode, uid, gid, mtime, size, device, type_flag };
        self.writer.header(&fields).map_err(io::Error::other)
    }

    fn descend(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = openat(&self.root, ".", DIRECTORY | OFlags::PATH, Mode::empty())?;
        for name in path.split(|c| *c == b'/').filter(|name| !name.is_empty()) {
            at = openat(&at, name, DIRECTORY | OFlags::PATH, Mode::empty())?;
        }
        openat(&at, ".", DIRECTORY, Mode::empty())
    }

    fn cannot(&mut self, path: &[u8], error: &io::Error) {
        self.unreadable.push(format!("/{} ({error})", escaped(path)));
    }

    fn directory(&mut self, path: &[u8]) -> io::Result<()> {
        let listed = self.descend(path).and_then(|directory| names(&directory).map(|names| (directory, names)));
        let (directory, names) = match listed {
            Ok(listed) => listed,
            Err(errno) => {
                self.cannot(path, &errno.into());
                return Ok(());
            }
        };
        for name in names {
            let full = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            self.entry(&directory, &name, &full)?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8]) -> io::Result<()> {
        let stat = match statx(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                self.changed.push(format!("/{}", escaped(path)));
                return Ok(());
            }
            Err(errno) => {
                self.cannot(path, &errno.into());
                return Ok(());
            }
        };
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        let mounted = (stat.stx_dev_major, stat.stx_dev_minor) != self.device || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        if mounted {
            self.mounts.push(format!("/{}", escaped(path)));
            let slashed = [path, b"/"].concat();
            return if kind == FileType::Directory { self.header(&slashed, &stat, b'5', b"", 0, None) } else { Ok(()) };
        }
        let device = Some((stat.stx_rdev_major, stat.stx_rdev_minor));
        match kind {
            FileType::Directory => {
                self.open.push(path.to_vec());
                self.header(&[path, b"/"].concat(), &stat, b'5', b"", 0, None)
            }
            FileType::Symlink => match readlinkat(directory, name, Vec::new()) {
                Ok(target) => self.header(path, &stat, b'2', target.as_bytes(), 0, None),
                Err(errno) => {
                    self.cannot(path, &errno.into());
                    Ok(())
                }
            },
            FileType::RegularFile => self.file(directory, name, path, &stat),
            FileType::CharacterDevice => self.header(path, &stat, b'3', b"", 0, device),
            FileType::BlockDevice => self.header(path, &stat, b'4', b"", 0, device),
            FileType::Fifo => self.header(path, &stat, b'6', b"", 0, None),
            // What listens there makes it anew.
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn file(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8], stat: &Statx) -> io::Result<()> {
        let identity = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if let Some(first) = self.linked.get(&identity).cloned() {
            return self.header(path, stat, b'1', &first, 0, None);
        }
        let mut file = match openat(directory, name, FILE, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(errno) => {
                self.cannot(path, &errno.into());
                return Ok(());
            }
        };
        if stat.stx_nlink > 1 {
            self.linked.insert(identity, path.to_vec());
        }
        let has = |name: &&&str| rustix::fs::fgetxattr(&file, **name, &mut [0u8; 0][..]).is_ok();
        let told: Vec<&str> = TOLD.iter().filter(has).copied().collect();
        if !told.is_empty() {
            self.writer.attributes(&told).map_err(io::Error::other)?;
        }
        self.header(path, stat, b'0', b"", stat.stx_size, None)?;
        // What grows meanwhile is cut, and what shrinks is filled with zeros: told, as it is in neither state.
        let whole = self.writer.exactly(&mut file, stat.stx_size)?;
        let after = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let time = |stat: &Statx| (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
        if !whole || time(&after) != time(stat) {
            self.changed.push(format!("/{}", escaped(path)));
        }
        Ok(())
    }
}

/// In the order of their bytes.
fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
