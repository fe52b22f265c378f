//! Walks a directory that is the root of a tree.
//!
//! Leaves out what other file systems mounted in it hold, and the object store itself where it lies inside. Invariants: no symlink below the root is
//! followed, whatever is changed meanwhile (every component is opened O_NOFOLLOW from its directory's descriptor); a file that cannot be read is an
//! error by name, after the walk, so that all of them are told at once. Shown by `tests/importing/dir.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;

use super::super::index::{Attributes, NAME_LONGEST, Node, escaped};
use super::super::tree::{Item, symlink};
use super::{Names, Reading, SourceError, added};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Device and inode number.
type Identity = (u32, u32, u64);

fn identity(stat: &Statx) -> Identity {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

struct Walk<'w, 'a, 'o> {
    reading: &'w mut Reading<'a, 'o>,
    root: OwnedFd,
    what: String,
    device: (u32, u32),
    store: Option<Identity>,
    unreadable: Names,
    /// First paths of files that have more than one name.
    linked: BTreeMap<Identity, Vec<u8>>,
    /// Directories that are still to be walked, relative to the root.
    open: Vec<Vec<u8>>,
}

fn lstat(dir: &OwnedFd, name: &[u8]) -> Result<Statx, Errno> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)
}

/// Reads a directory into an empty tree.
pub(super) fn read(path: &Path, reading: &mut Reading<'_, '_>) -> Result<(), SourceError> {
    let error = |doing| move |errno: Errno| SourceError::Io { doing, path: path.to_owned(), source: errno.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path, flags, Mode::empty()).map_err(error("open the directory"))?;
    let stat = statx(&root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(error("read the attributes of"))?;
    let store = reading.session.root();
    let store = statx(CWD, store, AtFlags::empty(), StatxFlags::BASIC_STATS).ok().map(|stat| identity(&stat));
    let mut walk = Walk {
        reading,
        root,
        what: format!("the directory {}", path.display()),
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        store,
        unreadable: Names::default(),
        linked: BTreeMap::new(),
        open: vec![Vec::new()],
    };
    walk.insert(b"", Node::Directory, &stat)?;
    while let Some(dir) = walk.open.pop() {
        walk.directory(&dir)?;
    }
    if walk.unreadable.is_empty() { Ok(()) } else { Err(SourceError::Unreadable { names: walk.unreadable }) }
}

impl Walk<'_, '_, '_> {
    /// Opens a directory below the root, component by component.
    fn descend(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = openat(&self.root, ".", DIRECTORY | OFlags::PATH, Mode::empty())?;
        for name in path.split(|c| *c == b'/').filter(|name| !name.is_empty()) {
            at = openat(&at, name, DIRECTORY | OFlags::PATH, Mode::empty())?;
        }
        openat(&at, ".", DIRECTORY, Mode::empty())
    }

    fn cannot(&mut self, path: &[u8], errno: &io::Error) {
        self.unreadable.push(format!("/{} ({errno})", escaped(path)));
    }

    fn directory(&mut self, path: &[u8]) -> Result<(), SourceError> {
        let listed = self.descend(path).and_then(|dir| names(&dir).map(|names| (dir, names)));
        let (dir, names) = match listed {
            Ok(listed) => listed,
            Err(errno) => {
                self.cannot(path, &errno.into());
                return Ok(());
            }
        };
        for name in names {
            let full = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            self.entry(&dir, &name, full)?;
        }
        Ok(())
    }

    fn is_mounted(&self, stat: &Statx) -> bool {
        let other_device = (stat.stx_dev_major, stat.stx_dev_minor) != self.device;
        // A bind mount of the same file system; Linux 5.8 and later say so.
        other_device || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    }

    fn entry(&mut self, dir: &OwnedFd, name: &[u8], path: Vec<u8>) -> Result<(), SourceError> {
        let stat = match lstat(dir, name) {
            Ok(stat) => stat,
            // Removed since it was listed.
            Err(Errno::NOENT) => {
                self.reading.notes.changed.push(format!("/{}", escaped(&path)));
                return Ok(());
            }
            Err(errno) => {
                self.cannot(&path, &errno.into());
                return Ok(());
            }
        };
        if self.store == Some(identity(&stat)) {
            return Ok(());
        }
        let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        if self.is_mounted(&stat) {
            self.reading.notes.mounts.push(format!("/{}", escaped(&path)));
            // Where the mount was there is an empty directory; a file that was mounted over another one hides what is there.
            return if kind == FileType::Directory { self.insert(&path, Node::Directory, &stat) } else { Ok(()) };
        }
        let node = match kind {
            FileType::Directory => {
                self.insert(&path, Node::Directory, &stat)?;
                self.open.push(path);
                return Ok(());
            }
            FileType::Symlink => match readlinkat(dir, name, Vec::new()) {
                Ok(target) => symlink(target.as_bytes()),
                Err(errno) => {
                    self.cannot(&path, &errno.into());
                    return Ok(());
                }
            },
            FileType::RegularFile => return self.file(dir, name, &path, &stat),
            FileType::CharacterDevice => Node::Char { major, minor },
            FileType::BlockDevice => Node::Block { major, minor },
            FileType::Fifo => Node::Fifo,
            FileType::Socket => Node::Socket,
            FileType::Unknown => {
                let path = escaped(&path);
                return Err(SourceError::container(&self.what, format!("/{path} of an unknown type"), "a type that Linux knows"));
            }
        };
        self.insert(&path, node, &stat)
    }

    fn insert(&mut self, path: &[u8], node: Node<'static>, stat: &Statx) -> Result<(), SourceError> {
        self.insert_item(path, Item::new(attributes(node, stat)))
    }

    fn insert_item(&mut self, path: &[u8], item: Item) -> Result<(), SourceError> {
        self.reading.tree.insert(path, item).map_err(|source| SourceError::Tree { what: self.what.clone(), source })
    }

    fn file(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Statx) -> Result<(), SourceError> {
        if stat.stx_nlink > 1
            && let Some(first) = self.linked.get(&identity(stat))
        {
            return self.reading.tree.link(path, first).map_err(|source| SourceError::Tree { what: self.what.clone(), source });
        }
        let mut file = match openat(dir, name, FILE, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(errno) => {
                self.cannot(path, &errno.into());
                return Ok(());
            }
        };
        self.spend(stat.stx_size)?;
        let result = self.reading.session.add(&mut file);
        let full: PathBuf = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
        let (digest, size) = added(result, path, |_, source| SourceError::Io { doing: "read", path: full, source })?;
        let after = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok();
        let same = |after: &Statx| {
            let time = |stat: &Statx| (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
            identity(after) == identity(stat) && time(after) == time(stat) && after.stx_size == size
        };
        if !after.as_ref().is_some_and(same) {
            self.reading.notes.changed.push(format!("/{}", escaped(path)));
        }
        let has = |name: &str| rustix::fs::fgetxattr(&file, name, &mut [0u8; 0][..]).is_ok();
        let (has_capabilities, has_label) = (has("security.capability"), has("security.selinux"));
        let attributes = attributes(Node::File { size, digest }, stat);
        self.insert_item(path, Item { attributes, has_capabilities, has_label })?;
        if stat.stx_nlink > 1 {
            self.linked.insert(identity(stat), path.to_vec());
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), SourceError> {
        let most = self.reading.most;
        let left = self.reading.left.checked_sub(bytes);
        self.reading.left = left.ok_or_else(|| SourceError::TooLarge { what: self.what.clone(), most })?;
        Ok(())
    }
}

/// Names in the order of their bytes, so that first names do not depend on the file system.
fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && name.len() <= NAME_LONGEST {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn attributes(node: Node<'static>, stat: &Statx) -> Attributes<'static> {
    let mode = if matches!(node, Node::Symlink { .. }) { 0o777 } else { stat.stx_mode & 0o7777 };
    Attributes { mode, uid: stat.stx_uid, gid: stat.stx_gid, mtime: stat.stx_mtime.tv_sec, node }
}
