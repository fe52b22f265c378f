//! The directory of the embedded store: who may read it, who has it open, and the file in it.
//!
//! Leaves out: what is in the tables (`engine`). Invariant: one process at a time, and nobody but its user reads the file.
//! Tests: `tests/store.rs`, `a_second_process_is_refused_with_the_pid_of_the_first`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use redb::Database;

use crate::store::StoreError;

/// redb's cache; its own default of 1 GiB would let an idle controller grow far beyond what it needs.
const CACHE_BYTES: usize = 8 << 20;

/// Where the database lives. Holds the lock as long as it lives.
pub(super) struct Place {
    /// Nothing: in memory.
    file: Option<PathBuf>,
    /// Closing it gives up the lock.
    _lock: Option<File>,
}

impl Place {
    pub(super) fn memory() -> Place {
        Place { file: None, _lock: None }
    }

    /// Makes the directory where it is missing, and locks it for this process.
    pub(super) fn claim(dir: &Path) -> Result<Place, StoreError> {
        let wrong = |source: io::Error| unusable(dir, format!("the directory cannot be used ({source})"), source);
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(wrong)?;
        }
        let lock_path = dir.join("embody.lock");
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock_path).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held_by_another(dir, &mut lock)),
            Err(TryLockError::Error(source)) => return Err(wrong(source)),
        }
        // The disk may be full: the pid is for people, the lock itself is held already.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Place { file: Some(dir.join("embody.redb")), _lock: Some(lock) })
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "memory".to_owned(), |file| file.display().to_string())
    }

    /// Opens the file, making it where it is missing.
    pub(super) fn open(&self) -> Result<Database, redb::Error> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let Some(path) = &self.file else {
            return Ok(builder.create_with_backend(redb::backends::InMemoryBackend::new())?);
        };
        let fresh = !path.exists();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        let database = builder.create_with_backend(redb::backends::FileBackend::new(file)?)?;
        if fresh && let Some(dir) = path.parent() {
            // Without this a power cut can take the file's name with it.
            File::open(dir)?.sync_all()?;
        }
        Ok(database)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.file.as_ref().and_then(|file| fs::metadata(file).ok()).map_or(0, |meta| meta.len())
    }
}

fn held_by_another(dir: &Path, lock: &mut File) -> StoreError {
    let mut pid = String::new();
    let holder = match lock.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("process {} has it open", pid.trim()),
        Ok(_) | Err(_) => "another process has it open".to_owned(),
    };
    StoreError::Unusable { place: dir.display().to_string(), why: format!("{holder}; only one can"), source: None }
}

fn unusable(dir: &Path, why: String, source: io::Error) -> StoreError {
    StoreError::Unusable { place: dir.display().to_string(), why, source: Some(Box::new(source)) }
}
