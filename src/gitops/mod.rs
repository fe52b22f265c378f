//! Desired state from places that people commit to. Today: a directory.

pub mod directory;
