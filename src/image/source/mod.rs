//! Where an image comes from: a tar, or a container image. A directory is sent as a tar (`image::pack`).
//!
//! Leaves out registries and block images. Invariants: contents go into the store while they are read, so memory is bounded by the number of entries
//! (and by `LONGEST_HEADER`, `MOST_EXTENTS` and `LONGEST_JSON`); owners, modes and devices go into the tree alone, so an ordinary user imports what
//! root packed. Shown by `tests/importing/tar.rs`, `tests/importing/oci.rs`.

mod archive;
mod detect;
mod oci;
mod tar;
mod unpack;

pub(crate) use unpack::unpack_small;

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

pub(crate) use oci::Select;

use super::index::escaped;
use super::store::{AddError, Session, StoreError};
use super::tree::{Limits, Tree, TreeError};

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One tar: plain, gzip, zstd or xz; `-` is standard input.
    Tar(PathBuf),
    /// An OCI layout (directory or tar), or what `docker save` and `podman save` write; `-` is standard input.
    Oci(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Tar(path) => write!(f, "tar:{}", path.display()),
            Source::Oci(path) => write!(f, "oci:{}", path.display()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("could not {doing} {path:?}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{what}: could not read on at byte {at}")]
    Read { what: String, at: u64, source: io::Error },
    #[error("{what}, byte {at}: found {found}, expected {expected}")]
    Format { what: String, at: u64, found: String, expected: String },
    #[error("{what}: more than {most} bytes were unpacked; if the image is really as large, raise the limit")]
    TooLarge { what: String, most: u64 },
    #[error("{what}: found {found}, expected {expected}")]
    Container { what: String, found: String, expected: String },
    #[error("{what}: an entry does not fit")]
    Tree { what: String, source: TreeError },
    #[error("the object store failed")]
    Store(#[from] StoreError),
}

impl SourceError {
    fn container(what: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> SourceError {
        SourceError::Container { what: what.into(), found: found.into(), expected: expected.into() }
    }
}

/// Names that are told: the first ones, and how many more there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    pub first: Vec<String>,
    pub more: usize,
}

/// Names that are told one by one.
const NAMES_TOLD: usize = 100;

impl Names {
    pub(crate) fn push(&mut self, name: impl Into<String>) {
        if self.first.len() < NAMES_TOLD {
            self.first.push(name.into());
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// How many there were in all.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.more
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

/// All that a reader works on.
pub(super) struct Reading<'a, 'o> {
    pub(super) tree: &'a mut Tree,
    pub(super) session: &'a mut Session<'o>,
    /// Bytes that may still be unpacked, of `most`.
    pub(super) left: u64,
    pub(super) most: u64,
}

/// Reads a source into an empty tree.
pub(crate) fn read(
    source: &Source,
    select: &Select,
    limits: Limits,
    tree: &mut Tree,
    session: &mut Session<'_>,
) -> Result<(), SourceError> {
    let mut reading = Reading { tree, session, left: limits.bytes, most: limits.bytes };
    match source {
        Source::Tar(path) => tar::read(path, &mut reading),
        Source::Oci(path) => oci::read(path, select, &mut reading),
    }
}

/// Where an error happened in contents that are being added.
fn added<T>(result: Result<T, AddError>, path: &[u8], read: impl FnOnce(String, io::Error) -> SourceError) -> Result<T, SourceError> {
    result.map_err(|error| match error {
        AddError::Read(source) => read(escaped(path), source),
        AddError::Store(source) => source.into(),
    })
}
