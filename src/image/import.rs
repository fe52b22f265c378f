//! From a source to a stored image, in one call.
//!
//! Leaves out names and who may import. Invariant: either the index is visible and every object of it is on the disk, or nothing is visible. Shown by
//! `tests/importing/store.rs`, `tests/importing/tar.rs`, `tests/importing/dir.rs`, `tests/importing/oci.rs`.

use serde::Serialize;

use super::digest::Digest;
use super::generalise::{self, GeneraliseError, StepReport, Steps};
use super::kernel::{self, Kernel};
use super::source::{self, Select, Source, SourceError};
use super::store::{Objects, StoreError, Written};
use super::tree::{Limits, Tree, TreeError};
use super::warnings::{self, Warning};

/// How a source is read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub select: Select,
    pub limits: Limits,
    pub steps: Steps,
}

/// An image that is in the store.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    pub digest: Digest,
    pub entries: usize,
    /// Of all contents, each file once.
    pub bytes: u64,
    pub written: Written,
    pub kernel: Option<Kernel>,
    pub warnings: Vec<Warning>,
    pub generalised: Vec<StepReport>,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("could not read {from}")]
    Source { from: String, source: Box<SourceError> },
    #[error("could not generalise {from}")]
    Generalise { from: String, source: Box<GeneraliseError> },
    #[error("{from} makes no valid index")]
    Tree { from: String, source: Box<TreeError> },
    #[error("could not store {from}")]
    Store { from: String, source: Box<StoreError> },
}

/// Reads a source into the store. Blocking; for a stream as long as the stream takes.
pub fn import(source: &Source, options: &Options, objects: &Objects) -> Result<Imported, ImportError> {
    let from = source.to_string();
    let stored = |source: StoreError| ImportError::Store { from: from.clone(), source: source.into() };
    let mut session = objects.session().map_err(stored)?;
    let mut tree = Tree::new(options.limits);
    source::read(source, &options.select, options.limits, &mut tree, &mut session)
        .map_err(|source| ImportError::Source { from: from.clone(), source: source.into() })?;
    let generalised = generalise::generalise(&mut tree, &mut session, &options.steps)
        .map_err(|source| ImportError::Generalise { from: from.clone(), source: source.into() })?;
    let kernel = kernel::find(&tree);
    let warnings = warnings::warnings(&tree, kernel.as_ref(), &session).map_err(stored)?;
    let index = tree.index().map_err(|source| ImportError::Tree { from: from.clone(), source: source.into() })?;
    drop(tree);
    let (entries, bytes) = (index.entries_len(), index.total_bytes());
    let (digest, written) = session.publish(&index).map_err(stored)?;
    Ok(Imported { digest, entries, bytes, written, kernel, warnings, generalised })
}
