//! Contents and indexes on disk, each under the sha256 of what it is.
//!
//! ```text
//! objects/ab/cdef…   contents of files, mode 0444, never changed
//! index/<digest>     the text of an index: visible only when all its objects are there and on the disk
//! tmp/               what imports are writing; garbage when none runs
//! damaged/           objects that were set aside
//! lock               shared by imports, exclusive for garbage collection (flock, so a process that dies lets go)
//! ```
//!
//! Leaves out which images there are and what they are called. Invariants: a file under `objects/` was complete on the disk before it had that
//! name; nothing is served whose bytes were not hashed since it last changed (`open_verified`). The directory is 0700: images hold secrets, and
//! modes live only in indexes. Shown by `tests/importing/store.rs`.

mod collect;
mod session;
mod verify;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;

pub(crate) use session::{AddError, Session, Written};
pub use verify::Damage;
pub(crate) use verify::Damaged;

use super::digest::Digest;
use super::index::{Index, IndexError, MOST_TEXT};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not {doing} {path:?}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("object {digest} is not in the store {root:?}: import an image that has it again")]
    Missing { digest: Digest, root: PathBuf },
    #[error("object {digest} has {found} bytes, expected {expected}: set it aside and import an image that has it again")]
    Size { digest: Digest, found: u64, expected: u64 },
    #[error("object {digest} reads as {found}: a byte was flipped or written over; set it aside and import an image that has it again")]
    Flipped { digest: Digest, found: Digest },
    #[error("object {digest} was changed while it was read: nothing but embody may write to the store")]
    Changing { digest: Digest },
    #[error("there is no index {digest} in the store {root:?}: expected one of those that `indexes` lists")]
    NoIndex { digest: Digest, root: PathBuf },
    #[error("the index {digest} reads as {found}: a byte was flipped or written over; import the image again")]
    IndexFlipped { digest: Digest, found: Digest },
    #[error("the index {digest} does not parse")]
    Index { digest: Digest, source: IndexError },
    #[error("the index has {found} bytes of text, expected at most {MOST_TEXT}")]
    TextTooLong { found: usize },
    #[error("an import is running in {root:?}: garbage is collected when none runs, try again later")]
    Busy { root: PathBuf },
    #[error("object {digest} has {size} bytes, more than the {most} that are read at once")]
    TooLarge { digest: Digest, size: u64, most: u64 },
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

/// What a file looked like when it was hashed: any write to it changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    ino: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Stamp> {
        let meta = file.metadata()?;
        let mtime = (meta.mtime(), meta.mtime_nsec());
        Ok(Stamp { size: meta.len(), ino: meta.ino(), mtime, ctime: (meta.ctime(), meta.ctime_nsec()) })
    }
}

/// Half of what is remembered as verified: two halves of about 100 bytes each are 26 MB.
const VERIFIED_HALF: usize = 131_072;

/// What was hashed and found right. When the young half is full it becomes the old one, and what was not asked for since is forgotten.
#[derive(Debug, Default)]
struct Verified {
    young: BTreeMap<Digest, Stamp>,
    old: BTreeMap<Digest, Stamp>,
}

impl Verified {
    fn has(&mut self, digest: &Digest, stamp: &Stamp) -> bool {
        if self.young.get(digest) == Some(stamp) {
            return true;
        }
        let is_old = self.old.get(digest) == Some(stamp);
        if is_old {
            self.insert(*digest, *stamp);
        }
        is_old
    }

    fn insert(&mut self, digest: Digest, stamp: Stamp) {
        if self.young.len() >= VERIFIED_HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, stamp);
    }
}

/// A store in a directory.
#[derive(Debug)]
pub struct Objects {
    root: PathBuf,
    verified: Mutex<Verified>,
}

impl Objects {
    /// Makes what is missing of the directories.
    pub fn at(root: impl Into<PathBuf>) -> Result<Objects, StoreError> {
        let root = root.into();
        for path in [root.clone(), root.join("objects"), root.join("index"), root.join("tmp")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io_error("make the directory", &path))?;
        }
        Ok(Objects { root, verified: Mutex::default() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn object_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        let (head, tail) = hex.split_at_checked(2).unwrap_or_default();
        self.root.join("objects").join(head).join(tail)
    }

    fn index_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("index").join(digest.to_string())
    }

    /// Whether there is an object of this digest and size. Its bytes are not read.
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::symlink_metadata(self.object_path(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Those of some contents that are not here, each once.
    pub fn missing(&self, wanted: impl IntoIterator<Item = (Digest, u64)>) -> Vec<(Digest, u64)> {
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|(digest, size)| !self.has(digest, *size));
        wanted
    }

    /// Opens an object that has the size which the index says. Its bytes are not read: `open_verified` does.
    pub fn open(&self, digest: &Digest, size: u64) -> Result<File, StoreError> {
        let path = self.object_path(digest);
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { digest: *digest, root: self.root.clone() },
            _ => StoreError::Io { doing: "open", path: path.clone(), source },
        })?;
        let found = file.metadata().map_err(io_error("read the size of", &path))?.len();
        if found != size {
            return Err(StoreError::Size { digest: *digest, found, expected: size });
        }
        Ok(file)
    }

    /// Opens an object whose bytes were hashed since it was last changed: at its first opening it is read whole (blocking), later only its stamp is
    /// compared. What a disk flips below an unchanged stamp after that is found by `verify`, or at the first opening by the next process.
    pub fn open_verified(&self, digest: &Digest, size: u64) -> Result<File, StoreError> {
        let file = self.open(digest, size)?;
        let path = self.object_path(digest);
        let stamp = Stamp::of(&file).map_err(io_error("read the attributes of", &path))?;
        if self.verified.lock().unwrap_or_else(PoisonError::into_inner).has(digest, &stamp) {
            return Ok(file);
        }
        let found = hash_from_start(&file).map_err(io_error("read", &path))?;
        if found != *digest {
            return Err(StoreError::Flipped { digest: *digest, found });
        }
        if Stamp::of(&file).map_err(io_error("read the attributes of", &path))? != stamp {
            return Err(StoreError::Changing { digest: *digest });
        }
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, stamp);
        Ok(file)
    }

    /// Where an object is that `open_verified` opens: for those who open files by their paths.
    pub(crate) fn verified_path(&self, digest: &Digest, size: u64) -> Result<PathBuf, StoreError> {
        self.open_verified(digest, size).map(|_| self.object_path(digest))
    }

    /// Whole contents of a small object.
    pub fn read(&self, digest: &Digest, size: u64, most: u64) -> Result<Vec<u8>, StoreError> {
        read_small(&self.open_verified(digest, size)?, digest, size, most)
    }

    /// The index of this digest, hashed and checked.
    pub fn index(&self, digest: &Digest) -> Result<Index, StoreError> {
        let path = self.index_path(digest);
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::NoIndex { digest: *digest, root: self.root.clone() },
            _ => StoreError::Io { doing: "open", path: path.clone(), source },
        })?;
        let mut text = Vec::new();
        file.take(MOST_TEXT as u64 + 1).read_to_end(&mut text).map_err(io_error("read", &path))?;
        let found = Digest::of(&text);
        if found != *digest {
            return Err(StoreError::IndexFlipped { digest: *digest, found });
        }
        Index::parse(&text).map_err(|source| StoreError::Index { digest: *digest, source })
    }

    /// The digests of all indexes.
    pub fn indexes(&self) -> Result<Vec<Digest>, StoreError> {
        let path = self.root.join("index");
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).map_err(io_error("list", &path))? {
            let name = entry.map_err(io_error("list", &path))?.file_name();
            found.extend(Digest::from_hex(name.as_encoded_bytes()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Begins an import: until the session is dropped no garbage is collected.
    pub fn session(&self) -> Result<Session<'_>, StoreError> {
        Session::begin(self)
    }

    fn lock(&self, operation: FlockOperation) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(io_error("open", &path))?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Busy { root: self.root.clone() }),
            Err(errno) => Err(io_error("lock", &path)(errno.into())),
        }
    }
}

/// Reads a file by position, so that the caller's offset stays 0.
struct FromStart<'f> {
    file: &'f File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn hash_from_start(file: &File) -> io::Result<Digest> {
    Digest::of_reader(FromStart { file, at: 0 }).map(|(digest, _)| digest)
}

fn read_small(file: &File, digest: &Digest, size: u64, most: u64) -> Result<Vec<u8>, StoreError> {
    if size > most {
        return Err(StoreError::TooLarge { digest: *digest, size, most });
    }
    let mut bytes = Vec::new();
    let read = FromStart { file, at: 0 }.take(most).read_to_end(&mut bytes);
    read.map_err(|source| StoreError::Io { doing: "read the object", path: PathBuf::from(digest.to_string()), source })?;
    Ok(bytes)
}
