//! A plain tree in a new directory, with owners, modes, times, devices and hard links.
//!
//! The digest goes beside it (`DIR.digest`) and not into it: inside it would be part of the tree, which then were another one than the digest says.
//! It is written last, so a tree without it is not complete. Leaves out xattrs, which an index has none of. Invariants: every parent is a directory
//! that was made here; what an ordinary user may not set is counted and named, not passed over. Shown by `tests/importing/tar.rs`,
//! `tests/importing/dir.rs`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use serde::Serialize;

use super::super::digest::Digest;
use super::super::index::{Attributes, Entry, Index, Inode, Node, escaped};
use super::super::source::Names;
use super::super::store::Objects;
use super::ExportError;

/// What was written, and what could not be as the user who wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    pub entries: u64,
    pub bytes: u64,
    pub digest_file: PathBuf,
    /// Paths whose owner or set-id bits could not be set.
    pub owners_not_set: Names,
    /// Device nodes that could not be made.
    pub devices_not_made: Names,
}

struct Export<'e> {
    root: OwnedFd,
    index: &'e Index,
    objects: &'e Objects,
    done: Exported,
}

/// Where the digest of a tree is: beside it.
fn digest_file(dir: &Path) -> PathBuf {
    // Without a final slash, which would put the file inside.
    let mut name = dir.components().as_path().as_os_str().to_owned();
    name.push(".digest");
    name.into()
}

fn error<E: Into<io::Error>>(doing: &'static str, path: &[u8]) -> impl FnOnce(E) -> ExportError {
    let path = escaped(path);
    move |source| ExportError::Io { doing, path, source: source.into() }
}

/// Writes the tree of an index; `dir` must not be there, or be empty.
pub fn export_dir(index: &Index, digest: &Digest, objects: &Objects, dir: &Path) -> Result<Exported, ExportError> {
    let shown = dir.as_os_str().as_encoded_bytes();
    let digest_file = digest_file(dir);
    match fs::read_dir(dir).map(|mut names| names.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(ExportError::NotEmpty { path: dir.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Closed to others until it has its own mode: set-id files are in it.
            DirBuilder::new().mode(0o700).create(dir).map_err(error("make the directory", shown))?;
        }
        Err(e) => return Err(error("list", shown)(e)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, dir, flags, Mode::empty()).map_err(error("open", shown))?;
    let mut export = Export { root, index, objects, done: Exported { digest_file: digest_file.clone(), ..Exported::default() } };
    let mut directories = Vec::new();
    for entry in index.entries() {
        export.done.entries += 1;
        if export.entry(&entry)? {
            directories.push(entry.inode);
        }
    }
    // Deepest first: a directory without write permission is finished after what is in it, and its time is not touched again.
    for inode in directories.into_iter().rev() {
        export.finish(inode)?;
    }
    rustix::fs::syncfs(&export.root).map_err(error("sync", shown))?;
    let shown = digest_file.as_os_str().as_encoded_bytes();
    let written = File::create(&digest_file).and_then(|mut file| writeln!(file, "{digest}").and_then(|()| file.sync_all()));
    written.map_err(error("write", shown))?;
    Ok(export.done)
}

/// Relative to the root.
fn relative(path: &[u8]) -> &[u8] {
    match path {
        [b'/'] | [] => b".",
        [b'/', inner @ ..] => inner,
        path => path,
    }
}

impl Export<'_> {
    /// Makes an entry; whether it is a directory, whose attributes come later.
    fn entry(&mut self, entry: &Entry) -> Result<bool, ExportError> {
        let path = &entry.path;
        let name = relative(path);
        let root = self.root.as_fd();
        if entry.is_link {
            let first = self.index.path(entry.inode);
            rustix::fs::linkat(root, relative(&first), root, name, AtFlags::empty()).map_err(error("link", path))?;
            return Ok(false);
        }
        let Some(attributes) = self.index.attributes(entry.inode) else { return Ok(false) };
        match &attributes.node {
            Node::Directory if entry.inode == Inode::ROOT => return Ok(true),
            Node::Directory => {
                rustix::fs::mkdirat(root, name, Mode::RWXU).map_err(error("make the directory", path))?;
                return Ok(true);
            }
            Node::File { size, digest } => self.file(path, digest, *size)?,
            Node::Symlink { target } => rustix::fs::symlinkat(&**target, root, name).map_err(error("make the symlink", path))?,
            Node::Char { major, minor } => {
                if !self.node(path, FileType::CharacterDevice, (*major, *minor))? {
                    return Ok(false);
                }
            }
            Node::Block { major, minor } => {
                if !self.node(path, FileType::BlockDevice, (*major, *minor))? {
                    return Ok(false);
                }
            }
            Node::Fifo => {
                self.node(path, FileType::Fifo, (0, 0))?;
            }
            Node::Socket => {
                self.node(path, FileType::Socket, (0, 0))?;
            }
        }
        self.attributes(path, &attributes)?;
        Ok(false)
    }

    /// Whether the node could be made: devices need root.
    fn node(&mut self, path: &[u8], kind: FileType, (major, minor): (u32, u32)) -> Result<bool, ExportError> {
        let device = rustix::fs::makedev(major, minor);
        match rustix::fs::mknodat(&self.root, relative(path), kind, Mode::RUSR | Mode::WUSR, device) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => {
                self.done.devices_not_made.push(escaped(path));
                Ok(false)
            }
            Err(errno) => Err(error("make the node", path)(errno)),
        }
    }

    fn file(&mut self, path: &[u8], digest: &Digest, size: u64) -> Result<(), ExportError> {
        let opened = self.objects.open_verified(digest, size);
        let mut object = opened.map_err(|source| ExportError::Contents { path: escaped(path), source })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, relative(path), flags, Mode::RUSR | Mode::WUSR).map_err(error("create", path))?;
        // Shares blocks where the file system can (copy_file_range).
        let found = io::copy(&mut object, &mut File::from(file)).map_err(error("write", path))?;
        if found != size {
            return Err(ExportError::Short { path: escaped(path), digest: *digest, found, expected: size });
        }
        self.done.bytes += size;
        Ok(())
    }

    fn finish(&mut self, inode: Inode) -> Result<(), ExportError> {
        let path = self.index.path(inode);
        match self.index.attributes(inode) {
            Some(attributes) => self.attributes(&path, &attributes),
            None => Ok(()),
        }
    }

    /// Owner first: changing it clears the set-id bits.
    fn attributes(&mut self, path: &[u8], attributes: &Attributes<'_>) -> Result<(), ExportError> {
        let name = relative(path);
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        let mut mode = attributes.mode;
        match rustix::fs::chownat(&self.root, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => {}
            // Set-id bits for another owner than the one who asked for them would be a hole.
            Err(Errno::PERM | Errno::INVAL) => {
                self.done.owners_not_set.push(escaped(path));
                mode &= 0o1777;
            }
            Err(errno) => return Err(error("set the owner of", path)(errno)),
        }
        if !matches!(attributes.node, Node::Symlink { .. }) {
            let mode = Mode::from_raw_mode(u32::from(mode));
            rustix::fs::chmodat(&self.root, name, mode, AtFlags::empty()).map_err(error("set the mode of", path))?;
        }
        let time = Timespec { tv_sec: attributes.mtime, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(&self.root, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(error("set the time of", path))
    }
}
