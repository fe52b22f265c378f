//! From a stored image back to a plain tree or a tar.
//!
//! Leaves out squashfs and other file systems: their builders read the tar. Invariant: what is written was hashed first, so a flipped byte is an
//! error by the path that has it. Shown by `tests/importing/tar.rs` against GNU tar.

mod dir;
pub(crate) mod tar;

use std::io;
use std::path::PathBuf;

pub use dir::export_dir;
pub use tar::export_tar;

use super::digest::Digest;
use super::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{path:?} is there already: expected a directory that is not there or is empty")]
    NotEmpty { path: PathBuf },
    #[error("could not {doing} {path:?}")]
    Io { doing: &'static str, path: String, source: io::Error },
    #[error("could not write the contents of {path}")]
    Contents { path: String, source: StoreError },
    #[error("object {digest} of {path} ended after {found} bytes, expected {expected}: it was changed while it was read")]
    Short { path: String, digest: Digest, found: u64, expected: u64 },
}

impl ExportError {
    /// The cause, where that is one of the system's.
    pub(super) fn into_io(self) -> std::io::Error {
        match self {
            ExportError::Io { source, .. } => source,
            other => std::io::Error::other(other),
        }
    }
}
