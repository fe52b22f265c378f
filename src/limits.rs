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
/// Learned MACs of a server's port that are not the server's: a BMC that shares the NIC, and a guest. More is a switch.
pub const FOREIGN_MACS: usize = 2;
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
/// Jobs waiting for one device: one per port of a large switch.
pub const WORKER_JOBS: usize = 512;
/// The first poll at a device happens within this time after its worker starts.
pub const FIRST_POLL_WITHIN: Duration = Duration::from_secs(1);
/// How often a device is observed after a power operation, and for how long: the time of one boot.
pub const FAST_POLL: Duration = Duration::from_secs(2);
pub const FAST_POLL_FOR: Duration = Duration::from_secs(180);
/// Every tenth poll is at everything: neighbours and learned MACs change rarely.
pub const POLLS_PER_FULL_POLL: u32 = 10;
/// One poll or operation at a BMC, retransmissions included.
pub const BMC_DEADLINE: Duration = Duration::from_secs(20);
/// One poll or operation at a switch: a full poll walks the forwarding table.
pub const SWITCH_DEADLINE: Duration = Duration::from_secs(60);
/// How long a person who asks for a plan waits for the workers of its devices.
pub const PREVIEW_WAIT: Duration = Duration::from_secs(1);
/// How long an approval holds.
pub const APPROVAL_FOR: Duration = Duration::from_secs(3600);
/// How long the loop sleeps when nothing is due.
pub const IDLE: Duration = Duration::from_secs(3600);
/// Between attempts of one operation that failed: 2 s, doubled each time, at most 5 min.
pub const RETRY_FIRST: Duration = Duration::from_secs(2);
pub const RETRY_MAX: Duration = Duration::from_secs(300);
/// Between attempts to save a switch: a minute, doubled each time, at most this. Each attempt wears its flash.
pub const SAVE_RETRY_MAX: Duration = Duration::from_secs(3600);
/// Rounds of bookkeeping in one reconcile: the longest chain (take, found, end, answer…) has six.
pub const RECORD_ROUNDS: usize = 16;
/// One request to the API: an apply of `MANIFEST_OBJECTS` objects of 3 KB each.
pub const API_BODY_BYTES: usize = 32 << 20;
/// How often a write that lost against another writer is begun again.
pub const API_ATTEMPTS: usize = 10;
/// How long requests that run may go on when the API stops.
pub const API_DRAIN: Duration = Duration::from_secs(5);
/// Reports and messages waiting for the controller: a poll of every device of a large site.
pub const REPORTS: usize = 4_096;
/// How often a directory of manifests is read again without a hint: notify is blind on NFS and to symlink swaps.
pub const RESCAN: Duration = Duration::from_secs(30);
/// Files written together are read together.
pub const SETTLE: Duration = Duration::from_millis(300);
/// Desired state that keep arriving are waited for no longer than this.
pub const SETTLE_MAX: Duration = Duration::from_secs(5);
/// A worker that is ended closes its session within this time, or is cut off.
pub const WORKER_END: Duration = Duration::from_secs(2);
/// Servers that are reconciled before messages are observed again.
pub const RECONCILES_AT_ONCE: usize = 32;
