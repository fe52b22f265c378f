//! What is fuzzed: one function for each kind of input from outside, from bytes to `Ok`, or to the sentence that says what does not hold.
//!
//! `fuzz/fuzz_targets` calls each with what a fuzzer makes up, `tests/fuzz.rs` with `fuzz/corpus` and mutations of it. Each reads its input by
//! the product's own parsers, and looks for more than a panic: what is read and written again reads back equal, nothing grows beyond its input, a
//! walk ends, a fault has its place. The form of the inputs is said at each, and most are as they are found in the world.
//! Leaves out: sockets and time. To add a target: a file here, a line in `TARGETS`, a file of two lines in `fuzz/fuzz_targets`, a corpus.

mod archive;
mod dhcp;
mod exchange;
mod index;
mod ipmi;
mod manifest;
mod nfs;
mod recording;
mod snmp;
mod stored;
mod token;

pub use archive::archive;
pub use dhcp::dhcp;
pub use exchange::exchange;
pub use index::index;
pub use ipmi::ipmi;
pub use manifest::manifest;
pub use nfs::nfs;
pub use recording::recording;
pub use snmp::snmp;
pub use stored::stored;
pub use token::token;

/// Reads one input.
pub type Entry = fn(&[u8]) -> Result<(), String>;

/// All targets, by the names of their files in `fuzz/fuzz_targets` and of their folders in `fuzz/corpus`.
pub const TARGETS: [(&str, Entry); 11] = [
    ("archive", archive),
    ("dhcp", dhcp),
    ("exchange", exchange),
    ("index", index),
    ("ipmi", ipmi),
    ("manifest", manifest),
    ("nfs", nfs),
    ("recording", recording),
    ("snmp", snmp),
    ("stored", stored),
    ("token", token),
];

/// `what` is said where it does not hold.
fn hold(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
