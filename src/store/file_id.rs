//! Whether a name still leads to the file that is open under it.
//!
//! A file that is removed, or replaced by another, goes on taking what is written until its last user closes it; and nobody finds that again.
//! Leaves out: what is refused then (`embedded`, `mark`). Tests: `tests/store/damage.rs`.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// What a person is to do about it.
pub(super) const RESTART: &str = "under this process: what it records now would be lost, so nothing is recorded, and nothing that must be recorded is done to \
     devices; stop it, put the data back from a backup, and start it again (what was stored is read here until it ends)";

/// The file itself, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(meta: &Metadata) -> FileId {
        FileId { device: meta.dev(), inode: meta.ino() }
    }
}

/// What became of the name, where it does not lead to this file any more.
pub(super) fn lost(path: &Path, open: FileId) -> Option<String> {
    match fs::metadata(path) {
        Ok(meta) if FileId::of(&meta) == open => None,
        Ok(_) => Some("its file was replaced by another one".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("its file was removed".to_owned()),
        Err(error) => Some(format!("its file cannot be found any more ({error}); it seems to be taken away")),
    }
}
