//! Every bound of the program, with its reason.

use std::time::Duration;

/// One manifest file: a thousand servers fit, and 100 KB of nested brackets already take serde_yaml 0.4 s to refuse.
pub const MANIFEST_BYTES: usize = 1 << 20;
/// Objects of one apply.
pub const MANIFEST_OBJECTS: usize = 10_000;
/// Nesting of one document.
pub const MANIFEST_DEPTH: usize = 64;
/// Faults printed for one file set; a broken generator would otherwise fill the terminal.
pub const DIAGNOSTICS: usize = 200;
/// Learned MACs kept per port: more than this is an uplink, and which ones does not matter.
pub const MACS_PER_PORT: usize = 64;
/// Events kept.
pub const EVENTS: usize = 10_000;
/// Revisions of the embedded store that a watcher can still ask for.
pub const REVISIONS: u64 = 10_000;
/// One stored value: etcd's own limit is 1.5 MiB for a whole request.
pub const VALUE_BYTES: usize = 1 << 20;
/// A watcher that is this many changes behind is cut off and lists again.
pub const WATCH_BACKLOG: usize = 1_024;
/// How long a lease on the right to act lives without a keep-alive.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How long a hard power-off may take before it is read as not obeyed: slow BMCs act seconds late, some half a minute.
pub const HARD_OFF_WAIT: Duration = Duration::from_secs(60);
/// Attempts of one switching-off: one soft, three hard.
pub const OFF_ATTEMPTS: u32 = 4;
/// Rounds of a forecast: a move takes about ten, and swaps in a ring go side by side.
pub const FORECAST_ROUNDS: usize = 64;
/// How long a power-on may take to show.
pub const ON_WAIT: Duration = Duration::from_secs(60);
/// Attempts of one switching-on.
pub const ON_ATTEMPTS: u32 = 3;
