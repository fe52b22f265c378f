//! Desired state from places that people commit to. Today: a directory.

pub(crate) mod directory;
pub(crate) mod lookout;
mod rest;
