//! What is fuzzed: one function for each kind of input from outside, from bytes to `Ok`, or to the sentence that says what does not hold.
//!
//! `fuzz/fuzz_targets` calls each with what a fuzzer makes up, `tests/fuzz.rs` with `fuzz/corpus` and mutations of it. Each reads its input by
//! the product's own parsers, and looks for more than a panic: what is read and written again reads back equal, nothing grows beyond its input, a
//! walk ends, a fault has its place. The form of the inputs is said at each, and most are as they are found in the world.
//! Leaves out: sockets and time. To add a target: a file here, a line in `TARGETS`, a file of two lines in `fuzz/fuzz_targets`, a corpus.

mod dhcp;
mod ipmi;
mod manifest;
mod recording;
mod snmp;
mod stored;

pub use dhcp::dhcp;
pub use ipmi::ipmi;
pub use manifest::manifest;
pub use recording::recording;
pub use snmp::snmp;
pub use stored::stored;

/// Reads one input.
pub type Entry = fn(&[u8]) -> Result<(), String>;

/// All targets, by the names of their files in `fuzz/fuzz_targets` and of their folders in `fuzz/corpus`.
pub const TARGETS: [(&str, Entry); 6] =
    [("dhcp", dhcp), ("ipmi", ipmi), ("manifest", manifest), ("recording", recording), ("snmp", snmp), ("stored", stored)];

/// `what` is said where it does not hold.
fn hold(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
