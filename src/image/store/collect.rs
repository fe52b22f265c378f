//! Garbage collection by reachability: what no kept index names is removed.
//!
//! Leaves out which images are wanted: the caller says. Safe against an import that runs: it holds the lock shared, and this wants it alone, so
//! either waits for the other (here: `Busy`, try again later). Safe against an import that ended a moment ago, whose index the caller did not know of
//! yet: an index younger than `grace` is kept, by the file system's own clock. Invariant: an index is gone, and its removal on the disk, before any
//! of its objects. Shown by `tests/importing/store.rs`.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde::Serialize;

use super::super::digest::Digest;
use super::{Objects, StoreError, io_error};

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    pub indexes: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Leftovers of imports that did not end, and what was set aside.
    pub leftovers: u64,
}

fn list(path: &Path) -> Result<Vec<DirEntry>, StoreError> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("list", path))?,
    };
    entries.collect::<Result<_, _>>().map_err(io_error("list", path))
}

fn modified(path: &Path) -> Result<SystemTime, StoreError> {
    fs::metadata(path).and_then(|meta| meta.modified()).map_err(io_error("read the time of", path))
}

impl Objects {
    /// Removes indexes that are neither in `keep` nor younger than `grace`, and every object that none of the kept ones names. An index in `keep`
    /// that is not there or does not read is an error, and nothing is removed: its objects are not known.
    pub fn remove_unreferenced(&self, keep: &BTreeSet<Digest>, grace: Duration) -> Result<Swept, StoreError> {
        let _alone = self.lock(FlockOperation::NonBlockingLockExclusive)?;
        let mut swept = Swept::default();
        let now = self.now()?;
        let mut kept = keep.clone();
        let mut unwanted = Vec::new();
        for digest in self.indexes()?.into_iter().filter(|digest| !keep.contains(digest)) {
            let path = self.index_path(&digest);
            let age = now.duration_since(modified(&path)?).unwrap_or_default();
            if age < grace {
                kept.insert(digest);
            } else {
                unwanted.push(path);
            }
        }
        let live = self.reachable(&kept)?;
        for path in unwanted {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
            swept.indexes += 1;
        }
        let dir = self.root.join("index");
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", &dir))?;
        self.sweep_objects(&live, &mut swept)?;
        for leftover in ["tmp", "damaged"] {
            for entry in list(&self.root.join(leftover))? {
                let path = entry.path();
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(io_error("remove", &path))?;
                swept.leftovers += 1;
            }
        }
        Ok(swept)
    }

    /// The time that the file system gives to what is written now: the one that indexes' times are compared with.
    fn now(&self) -> Result<SystemTime, StoreError> {
        let path = self.root.join("tmp").join("now");
        File::create(&path).map_err(io_error("create", &path))?;
        let now = modified(&path)?;
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
        Ok(now)
    }

    fn reachable(&self, kept: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, StoreError> {
        let mut live = BTreeSet::new();
        for digest in kept {
            live.extend(self.index(digest)?.contents().map(|(digest, _)| digest));
        }
        Ok(live)
    }

    /// Files whose names are no digests are not ours and stay.
    fn sweep_objects(&self, live: &BTreeSet<Digest>, swept: &mut Swept) -> Result<(), StoreError> {
        for fan in list(&self.root.join("objects"))? {
            for entry in list(&fan.path())? {
                let name = [fan.file_name().as_encoded_bytes(), entry.file_name().as_encoded_bytes()].concat();
                if Digest::from_hex(&name).is_none_or(|digest| live.contains(&digest)) {
                    continue;
                }
                let path = entry.path();
                swept.bytes += entry.metadata().map(|meta| meta.len()).unwrap_or_default();
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                swept.objects += 1;
            }
        }
        Ok(())
    }
}
