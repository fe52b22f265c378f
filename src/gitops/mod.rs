//! Desired state from places that people commit to. Today: a directory.

pub(crate) mod directory;
mod rest;
