//! Text to objects: manifests are read, every fault of the whole set is found and shown with its place, and only sound sets come out.
//!
//! Leaves out: storing, sending, deciding. Reading files and stdin happens in `source`; all the rest is pure.
//! Invariant: `load` and `check` never panic on any input, and no value of a Secret appears in a diagnostic. `tests/manifest.rs` shows it.

pub mod wiring;
