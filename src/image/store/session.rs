//! One import: objects are written aside, flushed together, then named; the index comes last.
//!
//! 1. Each object is hashed while it is read and written to the session's own directory under `tmp/`, unless it is there already.
//! 2. `publish`: syncfs; every object is renamed into `objects/`; syncfs again (the names); the index is written, fsynced and renamed.
//!
//! Leaves out what is imported (`source`). Invariant: a crash anywhere leaves garbage under `tmp/` or objects that no index names, and never an
//! object that is not whole or an index that lacks one. Garbage collection waits: the session holds the store's lock. Shown by
//! `tests/importing/store.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Serialize;

use super::super::digest::{Digest, Hasher};
use super::super::index::{Index, MOST_TEXT};
use super::{Objects, StoreError, io_error, read_small};

/// Contents up to this size are hashed before they are written, so that those which are there already are never written.
const HELD: usize = 1024 * 1024;

/// What a session wrote and what it found there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    pub objects: u64,
    pub bytes: u64,
    /// Contents that were there already, or came before in this session.
    pub present: u64,
}

/// What adding can fail of: whose fault it is decides what is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error("could not read the contents")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An import that is running. Dropped without `publish`, all that it wrote is removed.
#[derive(Debug)]
pub struct Session<'o> {
    objects: &'o Objects,
    _lock: File,
    staging: PathBuf,
    staged: BTreeMap<Digest, u64>,
    buffer: Vec<u8>,
    present: u64,
}

fn read_some(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, AddError> {
    loop {
        match reader.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(AddError::Read),
        }
    }
}

fn create(path: &Path) -> Result<File, StoreError> {
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(io_error("create", path))
}

/// Mode 0444 whatever the umask, and as long as what was hashed: a full disk or a quota must not leave less.
fn seal(file: &File, path: &Path, size: u64) -> Result<(), StoreError> {
    file.set_permissions(Permissions::from_mode(0o444)).map_err(io_error("set the mode of", path))?;
    let found = file.metadata().map_err(io_error("read the size of", path))?.len();
    if found != size {
        let source = io::Error::other(format!("{found} bytes are there, expected {size}"));
        return Err(StoreError::Io { doing: "write", path: path.to_owned(), source });
    }
    Ok(())
}

impl<'o> Session<'o> {
    pub(super) fn begin(objects: &'o Objects) -> Result<Session<'o>, StoreError> {
        let lock = objects.lock(FlockOperation::LockShared)?;
        let mut number = 0u64;
        let staging = loop {
            let path = objects.root.join("tmp").join(format!("{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => break path,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(StoreError::Io { doing: "make the directory", path, source }),
            }
        };
        let (staged, buffer) = (BTreeMap::new(), vec![0; HELD]);
        Ok(Session { objects, _lock: lock, staging, staged, buffer, present: 0 })
    }

    /// Whether it need not be written: one that is there is read once, and one that is damaged is written anew.
    fn is_there(&self, digest: &Digest, size: u64) -> bool {
        self.staged.contains_key(digest) || self.objects.open_verified(digest, size).is_ok()
    }

    fn staged_path(&self, digest: &Digest) -> PathBuf {
        self.staging.join(digest.to_string())
    }

    /// Reads contents to their end and keeps them; their digest and size.
    pub(crate) fn add(&mut self, reader: &mut dyn Read) -> Result<(Digest, u64), AddError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.add_with(reader, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn add_with(&mut self, reader: &mut dyn Read, buffer: &mut [u8]) -> Result<(Digest, u64), AddError> {
        let mut held = 0;
        while held < buffer.len() {
            match read_some(reader, buffer.get_mut(held..).unwrap_or_default())? {
                0 => return Ok(self.add_bytes(buffer.get(..held).unwrap_or_default())?),
                n => held += n,
            }
        }
        self.add_large(reader, buffer)
    }

    /// Keeps contents that are in memory.
    pub fn add_bytes(&mut self, bytes: &[u8]) -> Result<(Digest, u64), StoreError> {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        if self.is_there(&digest, size) {
            self.present += 1;
            return Ok((digest, size));
        }
        let path = self.staged_path(&digest);
        let mut file = create(&path)?;
        file.write_all(bytes).map_err(io_error("write", &path))?;
        seal(&file, &path, size)?;
        self.staged.insert(digest, size);
        Ok((digest, size))
    }

    /// `buffer` is full of the beginning.
    fn add_large(&mut self, reader: &mut dyn Read, buffer: &mut [u8]) -> Result<(Digest, u64), AddError> {
        let path = self.staging.join("part");
        let mut file = create(&path)?;
        let mut hasher = Hasher::default();
        let mut filled = buffer.len();
        let copied = loop {
            let bytes = buffer.get(..filled).unwrap_or_default();
            hasher.update(bytes);
            if let Err(e) = file.write_all(bytes) {
                break Err(io_error("write", &path)(e).into());
            }
            match read_some(reader, buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => filled = n,
                Err(e) => break Err(e),
            }
        };
        let (digest, size) = hasher.finish();
        let is_there = self.is_there(&digest, size);
        if copied.is_err() || is_there {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
            copied?;
            self.present += 1;
            return Ok((digest, size));
        }
        seal(&file, &path, size)?;
        fs::rename(&path, self.staged_path(&digest)).map_err(io_error("rename", &path))?;
        self.staged.insert(digest, size);
        Ok((digest, size))
    }

    /// Opens contents that this session or an earlier one kept.
    pub(crate) fn open(&self, digest: &Digest, size: u64) -> Result<File, StoreError> {
        if !self.staged.contains_key(digest) {
            return self.objects.open_verified(digest, size);
        }
        let path = self.staged_path(digest);
        File::open(&path).map_err(io_error("open", &path))
    }

    pub(crate) fn read(&self, digest: &Digest, size: u64, most: u64) -> Result<Vec<u8>, StoreError> {
        read_small(&self.open(digest, size)?, digest, size, most)
    }

    /// A file without a name on the store's file system, for what must be read from more than one place.
    pub(crate) fn scratch(&self) -> Result<File, StoreError> {
        let path = self.staging.join("scratch");
        let open = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = open.map_err(io_error("create", &path))?;
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
        Ok(file)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let root = File::open(&self.objects.root).map_err(io_error("open", &self.objects.root))?;
        rustix::fs::syncfs(&root).map_err(|errno| io_error("sync the file system of", &self.objects.root)(errno.into()))
    }

    /// Makes all that was added durable and named, but for an index.
    pub fn commit_objects(&mut self) -> Result<(), StoreError> {
        if !self.staged.is_empty() {
            self.sync()?;
        }
        for digest in std::mem::take(&mut self.staged).into_keys() {
            let (from, to) = (self.staged_path(&digest), self.objects.object_path(&digest));
            if let Err(e) = fs::rename(&from, &to) {
                let parent = to.parent().filter(|_| e.kind() == io::ErrorKind::NotFound);
                let Some(parent) = parent else { return Err(io_error("rename", &from)(e)) };
                DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io_error("make the directory", parent))?;
                fs::rename(&from, &to).map_err(io_error("rename", &from))?;
            }
        }
        // Also where nothing was staged: an object that another import named a moment ago must last as well.
        self.sync()
    }

    /// Makes the objects durable, then the index visible; gives its digest, and what was written for it.
    pub(crate) fn publish(mut self, index: &Index) -> Result<(Digest, Written), StoreError> {
        let text = index.format();
        if text.len() > MOST_TEXT {
            return Err(StoreError::TextTooLong { found: text.len() });
        }
        if let Some((digest, _)) = index.contents().find(|(digest, size)| !self.is_there(digest, *size)) {
            return Err(StoreError::Missing { digest, root: self.objects.root.clone() });
        }
        let digest = Digest::of(&text);
        // What came and went again, such as a host's keys, is not kept.
        let named: BTreeSet<Digest> = index.contents().map(|(digest, _)| digest).collect();
        self.staged.retain(|digest, _| named.contains(digest));
        let written = Written { objects: self.staged.len() as u64, bytes: self.staged.values().sum(), present: self.present };
        self.commit_objects()?;
        let (path, to) = (self.staging.join("index"), self.objects.index_path(&digest));
        let mut file = create(&path)?;
        file.write_all(&text).map_err(io_error("write", &path))?;
        seal(&file, &path, text.len() as u64)?;
        file.sync_all().map_err(io_error("sync", &path))?;
        // Over an index that is there already: it is young again, so garbage collection leaves it its time.
        fs::rename(&path, &to).map_err(io_error("rename", &path))?;
        let parent = self.objects.root.join("index");
        File::open(&parent).and_then(|dir| dir.sync_all()).map_err(io_error("sync", &parent))?;
        Ok((digest, written))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is garbage for the next collection.
        let _ = fs::remove_dir_all(&self.staging);
    }
}
