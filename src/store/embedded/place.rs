//! The directory of the embedded store: who may read it, who has it open, and the file in it.
//!
//! Leaves out: what is in the tables (`engine`). Invariant: one process at a time, and nobody but its user reads the file.
//! Tests: `tests/store.rs`, `a_second_process_is_refused_with_the_pid_of_the_first`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{Database, ReadOnlyDatabase};

use crate::store::{
    StoreError,
    file_id::{self, FileId, RESTART},
};

/// redb's cache; its own default of 1 GiB would let an idle controller grow far beyond what it needs.
const CACHE_BYTES: usize = 8 << 20;
/// What redb's files begin with (redb 4.5.0, docs/design.md).
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Where the database lives. Holds the lock as long as it lives.
pub(super) struct Place {
    /// Nothing: in memory.
    file: Option<PathBuf>,
    /// Closing it gives up the lock.
    _lock: Option<File>,
    /// The file that is open, whatever has its name by now.
    open: Mutex<Option<FileId>>,
}

impl Place {
    pub(super) fn memory() -> Place {
        Place { file: None, _lock: None, open: Mutex::default() }
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
        Ok(Place { file: Some(dir.join("embody.redb")), _lock: Some(lock), open: Mutex::default() })
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "memory".to_owned(), |file| file.display().to_string())
    }

    pub(super) fn memory_database() -> Result<Database, redb::Error> {
        Ok(builder().create_with_backend(redb::backends::InMemoryBackend::new())?)
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Makes the file where it is missing. It gets its name when it is a whole store: whoever is killed before leaves none behind.
    pub(super) fn make(&self, path: &Path) -> Result<(), redb::Error> {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let fresh = path.with_extension("redb.new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        drop(builder().create_with_backend(redb::backends::FileBackend::new(file)?)?);
        fs::rename(&fresh, path)?;
        if let Some(dir) = path.parent() {
            // Without this a power cut can take the file's name with it.
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Why this cannot be a store, as far as its size and its first bytes tell; nothing where it may be one.
    pub(super) fn alien(path: &Path) -> Result<Option<String>, redb::Error> {
        let meta = fs::metadata(path)?;
        if !meta.is_file() {
            return Ok(Some("it is not a file".to_owned()));
        }
        if meta.len() == 0 {
            return Ok(Some("the file is empty (0 bytes)".to_owned()));
        }
        let mut first = Vec::new();
        File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut first)?;
        Ok((first != MAGIC).then(|| format!("it is a file of another program, or damaged at its very beginning ({} bytes)", meta.len())))
    }

    /// Opens the file if every page of it is whole; `RepairAborted` or `Corrupted` if one is not.
    pub(super) fn open_whole(&self, path: &Path) -> Result<Database, redb::Error> {
        let mut builder = builder();
        builder.set_check_integrity_on_open(true).set_repair_callback(|session| {
            // redb says this before it takes the last transaction for a torn one and gives it up (`do_repair`, 4.5.0).
            if (0.2..0.5).contains(&session.progress()) {
                session.abort();
            }
        });
        Ok(builder.create_with_backend(redb::backends::FileBackend::new(self.for_writing(path)?)?)?)
    }

    /// Opens a file that a kill left, giving up the last transaction if the kill tore it; what is left is verified.
    pub(super) fn open_after_kill(&self, path: &Path) -> Result<Database, redb::Error> {
        let repaired = Arc::new(AtomicBool::new(false));
        let mut builder = builder();
        let told = Arc::clone(&repaired);
        builder.set_repair_callback(move |_| told.store(true, Ordering::SeqCst));
        let database = builder.create_with_backend(redb::backends::FileBackend::new(self.for_writing(path)?)?)?;
        if repaired.load(Ordering::SeqCst) { Ok(database) } else { Err(redb::Error::Corrupted("it was not verified".to_owned())) }
    }

    /// Opens a file that was closed well without looking at its pages.
    pub(super) fn open_unverified(&self, path: &Path) -> Result<Database, redb::Error> {
        Ok(builder().create_with_backend(redb::backends::FileBackend::new(self.for_writing(path)?)?)?)
    }

    /// The same for reading only: nothing is written. Refused where a kill left the file.
    pub(super) fn open_to_read(path: &Path) -> Result<ReadOnlyDatabase, redb::Error> {
        Ok(builder().open_read_only(path)?)
    }

    /// Why what is written now would be written for nobody: the file that is open has lost its name. Nothing: it has it.
    pub(super) fn lost(&self) -> Option<String> {
        let path = self.file.as_deref()?;
        let open = (*self.open.lock().unwrap_or_else(PoisonError::into_inner))?;
        file_id::lost(path, open).map(|what| format!("{what} {RESTART}"))
    }

    fn for_writing(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let meta = file.metadata()?;
        if meta.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(FileId::of(&meta));
        Ok(file)
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
