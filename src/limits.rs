//! Every bound of the program, with its reason.

use std::time::Duration;

/// One manifest file: a thousand servers fit, and 100 KB of nested brackets already take serde_yaml 0.4 s to refuse.
pub const MANIFEST_BYTES: usize = 1 << 20;
/// Files of one directory, and what they may have together: four times what one apply takes.
pub(crate) const MANIFEST_FILES: usize = MANIFEST_OBJECTS;
pub(crate) const MANIFESTS_BYTES: u64 = 256 << 20;
/// Objects of one apply.
pub const MANIFEST_OBJECTS: usize = 50_000;
/// Nesting of one document.
pub(crate) const MANIFEST_DEPTH: usize = 64;
/// Faults printed for one file set; a broken generator would otherwise fill the terminal.
pub(crate) const DIAGNOSTICS: usize = 200;
/// Ports of one range of a switch's manifest: a slot of a chassis has a hundred, and a stack numbers some hundred in a row. More is a slip of the
/// finger, which would cover ports that nobody meant.
pub(crate) const PORTS_OF_RANGE: u64 = 1_024;
/// Learned MACs kept per port: more than this is an uplink, and which ones does not matter.
pub const MACS_PER_PORT: usize = 64;
/// Learned MACs of a server's port that are not the server's: a BMC that shares the NIC, and a guest. More is a switch.
pub(crate) const FOREIGN_MACS: usize = 2;
/// Rows of one column of a switch's table, and what a walk of tables may take of memory: 4,000 ports in five columns, or 4,094 VLANs with the
/// lists of 4,000 ports, are 5 MB. More is a forwarding table, which is done without, or an agent whose table has no end.
pub(crate) const TABLE_ROWS: usize = 32_768;
pub(crate) const TABLE_BYTES: usize = 8 << 20;
/// Events kept.
pub const EVENTS: usize = 10_000;
/// Revisions of the embedded store that a watcher can still ask for.
pub const REVISIONS: u64 = 10_000;
/// What these revisions may take together: seventy of the largest values.
pub(crate) const HISTORY_BYTES: u64 = 64 << 20;
/// One stored value: etcd's own limit is 1.5 MiB for a whole request.
pub const VALUE_BYTES: usize = 1 << 20;
/// Writes done at once: etcd takes 128 operations in a transaction, and one is the fence.
pub const WRITES_AT_ONCE: usize = 100;
/// Values written at once: a whole value and small ones beside it, within etcd's 1.5 MiB for a request.
pub const WRITES_BYTES: usize = VALUE_BYTES + VALUE_BYTES / 4;
/// What may wait for a watcher that does not read, at each of the places on its way: eight whole values. Then the log of the store waits, and a
/// watcher of whom that has forgotten something lists again (410).
pub const WATCH_BYTES: usize = 8 << 20;
/// How long a watch is silent before those who asked for bookmarks get one, so that they know how far they are.
pub(crate) const WATCH_BOOKMARK_AFTER: Duration = Duration::from_secs(60);
/// Lists of which the rest is kept for who asks for them in parts, how much of them, and how long: Kubernetes keeps five minutes.
pub(crate) const LISTS_KEPT: usize = 16;
pub(crate) const LISTS_KEPT_BYTES: usize = 64 << 20;
pub(crate) const LISTS_KEPT_FOR: Duration = Duration::from_secs(300);
/// How long a lease on the right to act lives without a keep-alive.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How long a hard power-off may take before it is read as not obeyed: slow BMCs act seconds late, some half a minute.
pub const HARD_OFF_WAIT: Duration = Duration::from_secs(60);
/// How old the answers may be by which a new body can take over, when the old one is cut: a slow switch takes half a minute for one look.
pub(crate) const BEFORE_CUT: Duration = Duration::from_secs(60);
/// Soft-offs of one intent of which nothing is known: a lost datagram is sent again, a machine that does not answer is not told for ever.
pub const SOFT_OFF_TRIES: u32 = 3;
/// How long a soft-off of which nothing is known may take to show before it is sent again: late requests are half a minute late, not more.
pub const SOFT_OFF_UNKNOWN: Duration = Duration::from_secs(30);
/// Hard offs of one intent.
pub const HARD_OFF_TRIES: u32 = 3;
/// A body is seen off by two answers to questions at least this far apart: a BMC that restarts answers Off for some seconds.
pub const SEEN_OFF_APART: Duration = Duration::from_secs(10);
/// A boot request so long ago is named where a body is not seen off for it: three polls.
pub(crate) const BOOT_ASKED_LATELY: Duration = Duration::from_secs(60);
/// A machine that was parked is named for so long: it asks again every few seconds.
pub(crate) const PARKED_NAMED_FOR: Duration = Duration::from_secs(600);
/// Off says nothing for this long after a power-on that may still take effect.
pub(crate) const OFF_AFTER_ON: Duration = Duration::from_secs(60);
/// Rounds of a forecast: a move takes about ten, and swaps in a ring go side by side.
pub(crate) const FORECAST_ROUNDS: usize = 64;
/// How long a power-on may take to show.
pub(crate) const ON_WAIT: Duration = Duration::from_secs(60);
/// Attempts of one switching-on.
pub(crate) const ON_ATTEMPTS: u32 = 3;
/// Jobs waiting for one device: one per port of a large switch.
pub(crate) const WORKER_JOBS: usize = 512;
/// After a failed observation or operation a device is asked again after 1 s, doubled each time, at most its poll interval: long enough for
/// a BMC to free a session, short enough that one lost packet costs little.
pub(crate) const ASK_AGAIN_FIRST: Duration = Duration::from_secs(1);
/// Between two observations that the plan asks for: two round trips to a slow BMC.
pub(crate) const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// The first polls of new workers are so far apart: 10,000 sessions are opened in ten seconds, for which the answers need room in a socket's buffer,
/// and two cores their time.
pub(crate) const BETWEEN_FIRST_POLLS: Duration = Duration::from_millis(1);
/// What may wait in the socket of all BMCs, and in that of all switches: 5,000 answers of the size that the kernel counts.
pub(crate) const SOCKET_BYTES: usize = 4 << 20;
/// How often a device is observed after a power operation, and for how long: the time of one boot.
pub(crate) const FAST_POLL: Duration = Duration::from_secs(2);
pub const FAST_POLL_FOR: Duration = Duration::from_secs(180);
/// How old what is known of cables may be when a port is written: a wave of writes asks once.
pub(crate) const CABLES_KNOWN_FOR: Duration = Duration::from_secs(60);
/// How old the state of a switch may be on which an operation is begun: the one that was read after the operation before.
pub(crate) const STATE_KNOWN_FOR: Duration = Duration::from_secs(2);
/// A switch that takes a second for a poll is busy with polls for a tenth of its time, and no more.
pub(crate) const POLL_SHARE: u32 = 10;
/// Polls begin at multiples of this time: those of ten devices of 2,000 cost one awakening, and find code and data in the processor's caches. Asked
/// one by one each costs twice as much.
pub(crate) const POLLS_TOGETHER: Duration = Duration::from_millis(100);
/// Every tenth poll is at everything: neighbours and learned MACs change rarely.
pub(crate) const POLLS_PER_FULL_POLL: u32 = 10;
/// One poll or operation at a BMC, retransmissions included.
pub(crate) const BMC_DEADLINE: Duration = Duration::from_secs(20);
/// One poll or operation at a switch: a full poll walks the forwarding table.
pub(crate) const SWITCH_DEADLINE: Duration = Duration::from_secs(60);
/// Writes of one port that take its link down and come to nothing: then it is left alone for a while.
pub(crate) const FLAPS_IN_VAIN: u32 = 3;
pub(crate) const FLAPS_AGAIN: Duration = Duration::from_secs(3600);
/// How long a person who asks for a plan waits for the workers of its devices.
pub const PREVIEW_WAIT: Duration = Duration::from_secs(1);
/// How long a pause waits for a port that is between two writes: a switch that is slower than that is named.
pub(crate) const HALF_WAY_WAIT: Duration = Duration::from_secs(10);
/// How often a controller that waits for the lease looks at how far the store's records go.
pub const STANDBY_LOOKS: Duration = Duration::from_secs(10);
/// How long an approval holds.
pub(crate) const APPROVAL_FOR: Duration = Duration::from_secs(3600);
/// How often it is looked which approvals are over.
pub(crate) const APPROVALS_ENDED_EVERY: Duration = Duration::from_secs(1);
/// Changes of the store, and answers of devices, that are taken in before something is planned: together they make fewer plans.
pub(crate) const ABSORBED_AT_ONCE: usize = 1_024;
/// From the end of one turn of the loop to the next: what comes in meanwhile is taken in together. A person does not see the difference, and a machine
/// that boots waits longer for its switch.
pub(crate) const BETWEEN_TURNS: Duration = Duration::from_millis(10);
/// People and machines that boot are answered in between: each may cost a plan of the whole fleet.
pub(crate) const ANSWERED_AT_ONCE: usize = 16;
/// How long the loop sleeps when nothing is due.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);
/// A parked machine asks every ten seconds, and once more after as long where its network was another one meanwhile.
pub(crate) const PARKED_ASKS_WITHIN: Duration = Duration::from_secs(60);
/// From a power-on to the first question of what to boot: servers with much memory test it for ten minutes.
pub(crate) const FIRMWARE_WITHIN: Duration = Duration::from_secs(900);
/// The same of a server whose firmware was seen to be quicker: what it does after a fault of its memory may take longer than ever.
pub(crate) const FIRMWARE_AT_LEAST: Duration = Duration::from_secs(120);
/// Between attempts of one operation that failed: 2 s, doubled each time, at most 5 min.
pub const RETRY_FIRST: Duration = Duration::from_secs(2);
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(300);
/// Between attempts to save a switch: a minute, doubled each time, at most this. Each attempt wears its flash.
pub(crate) const SAVE_RETRY_MAX: Duration = Duration::from_secs(3600);
/// Rounds of bookkeeping in one reconcile: the longest chain (take, found, end, answer…) has six.
pub const RECORD_ROUNDS: usize = 16;
/// One request to the API: an apply of `MANIFEST_OBJECTS` objects of 1.3 KB each, which is three times a server.
pub(crate) const API_BODY_BYTES: usize = 64 << 20;
/// Objects of the store that are read together.
pub(crate) const OBJECTS_READ_AT_ONCE: usize = 1_000;
/// Between two transactions with statuses and events: what is said meanwhile of one object is written once. What is said after a silence is written
/// at once.
pub(crate) const BETWEEN_STATUSES: Duration = Duration::from_millis(500);
/// Files of one persona beside its image, and octets in all of them: they are stored with each body that runs it, and told in one answer. What is larger
/// belongs into the image.
pub(crate) const PERSONA_FILES: usize = 64;
pub(crate) const PERSONA_FILES_BYTES: usize = 64 << 10;
/// From one word of an agent that its system is up to the next, two of which may be lost: they come every 30 s.
pub(crate) const AGENT_HEARD_WITHIN: Duration = Duration::from_secs(100);
/// A system that was up before the script was asked for again is not heard for so long before anybody is told who it is: its agent speaks every 30 s, and
/// one word may be lost.
pub(crate) const AGENT_GONE_AFTER: Duration = Duration::from_secs(65);
/// How long it may take until it is known whether addresses are ours to give on a network: until then those that were given before are.
pub(crate) const ADDRESSES_UNDECIDED: Duration = Duration::from_secs(15);
/// How long a person who asks a controller waits for it to act, where it has just begun.
pub(crate) const BEGINS_WITHIN: Duration = Duration::from_secs(2);
/// How long one connection of a system that says something lasts.
pub(crate) const EXCHANGE_FOR: Duration = Duration::from_secs(20);
/// How long a system that asks who it is waits for what its switch says of its port, and how many may wait for that.
pub(crate) const PORT_ASKED_FOR: Duration = Duration::from_secs(2);
pub(crate) const LOOKS_AWAITED: usize = 256;
/// How often a write that lost against another writer is begun again.
pub(crate) const API_ATTEMPTS: usize = 10;
/// How often it is looked whether the API's socket still stands in its place: one stat(2), and whoever was told that there is no controller tries
/// again after as long.
pub(crate) const SOCKET_LOOKED_AT: Duration = Duration::from_secs(5);
/// How long requests that run may go on when the API stops.
pub(crate) const API_DRAIN: Duration = Duration::from_secs(5);
/// The file of a Secret: a hundred times what it needs.
pub(crate) const SECRET_BYTES: usize = 64 << 10;
/// How long such a file may take: it may lie on a file system of the network, which hangs when that does.
pub(crate) const SECRET_READ_WITHIN: Duration = Duration::from_secs(5);
/// How often it is read again: a password that is exchanged there is known within a minute, and a file system of the network is not busy with it.
pub(crate) const SECRET_READ_EVERY: Duration = Duration::from_secs(30);
/// Secrets that were read and wait for the controller.
pub(crate) const SECRETS_READ: usize = 64;
/// Connections at a time: a rack that comes up together is 40 machines, each of which asks for a moment; people and their watches are fewer.
pub const BOOT_CONNECTIONS: usize = 256;
pub const API_CONNECTIONS: usize = 128;
/// How long a connection may take to say what it wants, at first and between two requests.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection for a boot script, a kernel or an initrd may last: half a gigabyte over a link of ten megabits.
pub(crate) const BOOT_CONNECTION_FOR: Duration = Duration::from_secs(600);
/// Lines of the log about boot answers at once, and then per second: a rack that comes up together is 40 machines.
pub(crate) const BOOT_LINES: f64 = 50.0;
pub(crate) const BOOT_LINES_PER_SECOND: f64 = 5.0;
/// MACs of which it is remembered what was told last: those of a site with 2,000 servers.
pub(crate) const BOOT_MACS_TOLD: usize = 8_192;
/// How long a boot request waits for the controller's answer. iPXE is told to ask again.
pub(crate) const BOOT_ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The head of one request. iPXE's has 200 bytes; hyper does not go below 8 KiB. A label selector of the API may be long.
pub const BOOT_HEAD_BYTES: usize = 8 << 10;
pub(crate) const API_HEAD_BYTES: usize = 64 << 10;
/// How long the body of a request to the API may take to arrive: it comes over a unix socket.
pub(crate) const API_BODY_WITHIN: Duration = Duration::from_secs(30);
/// After a connection that could not be accepted: 50 ms, doubled each time, at most 1 s.
pub(crate) const ACCEPT_AGAIN_FIRST: Duration = Duration::from_millis(50);
pub(crate) const ACCEPT_AGAIN_MAX: Duration = Duration::from_secs(1);
/// Reports and messages waiting for the controller: a poll of every device of a large site.
pub const REPORTS: usize = 4_096;
/// How often a directory of manifests is read again without a hint: notify is blind on NFS.
pub(crate) const RESCAN: Duration = Duration::from_secs(30);
/// How often it is looked whether another directory stands at its path: one stat(2), and a person who swaps a link waits for no more.
pub(crate) const DIRECTORY_LOOKED_AT: Duration = Duration::from_secs(2);
/// Deletions of a directory that no person was asked about count together for so long: a mistake that removes files one by one is one mistake.
pub(crate) const DELETED_LATELY: Duration = Duration::from_secs(600);
/// How many contents of a directory are remembered as applied: 15 KB in the store.
pub(crate) const SOURCE_HISTORY: usize = 1_000;
/// Files written together are read together.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);
/// Desired state that keep arriving are waited for no longer than this.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(5);
/// A worker that is ended closes its session within this time, or is cut off.
pub(crate) const WORKER_END: Duration = Duration::from_secs(2);
/// Servers that are sent something before messages are taken in again: what is to be stored first is two transactions.
pub(crate) const RECONCILES_AT_ONCE: usize = 200;
/// Starts of a server of which it is remembered how long each stage took: enough for a median.
pub(crate) const STARTS_REMEMBERED: usize = 8;
/// A script that is asked for again so soon is asked for by the same start: its answer was lost, or a step of it failed.
pub(crate) const SCRIPT_ASKED_AGAIN: Duration = Duration::from_secs(30);
/// A loader that was fetched asks for an address within seconds; its silence is told after so long.
pub(crate) const LOADER_RUNS_WITHIN: Duration = Duration::from_secs(60);
/// Machines that no manifest names, of which the last question is remembered: a rack that was cabled before it was described, ten times.
pub(crate) const STRANGERS: usize = 1_024;
/// Two starts of one machine are no nearer: its firmware alone takes longer.
pub(crate) const STARTS_APART: Duration = Duration::from_secs(1);
/// How often it is told in an event that a machine began anew by itself.
pub(crate) const STARTS_TOLD_EVERY: Duration = Duration::from_secs(60);
/// A machine that begins anew so often within so long ends again and again.
pub(crate) const ENDS_OFTEN: usize = 3;
pub(crate) const ENDS_WITHIN: Duration = Duration::from_secs(900);
/// What a script or initrd said of its failure is told of its server so long: the script tries again every ten seconds, and says so each time.
pub(crate) const FAILED_FOR: Duration = Duration::from_secs(60);
pub(crate) const FAILED_TOLD_EVERY: Duration = Duration::from_secs(3);
/// How often the same is told of a machine in an event.
pub(crate) const NOTE_EVERY: Duration = Duration::from_secs(3600);
/// Connections of one address that are no crowd: a machine that boots has one or two, behind a relay that translates addresses a rack of them.
pub(crate) const SEATS_OF_ONE: usize = 16;
/// Transfers of a loader to one address: firmware begins one, and another one each time it was cut off.
pub(crate) const TFTP_OF_ONE: usize = 8;
/// Transfers of a loader at a time: each holds some hundred kilobytes.
pub(crate) const TFTP_TRANSFERS: usize = 128;
/// What a machine may say of its start.
pub(crate) const BOOT_BODY_BYTES: usize = 16 << 10;
/// Addresses that wait to be stored: those of a thousand machines that come up together, asked for twice.
pub(crate) const ADDRESSES_WAITING: usize = 2_048;
/// Images of a site: a hundred personas with ten versions each.
pub(crate) const IMAGES: usize = 1_000;
/// The last versions of an image, to which one can go back.
pub(crate) const IMAGES_KEPT: usize = 3;
/// An import that sends nothing for so long has ended: whoever packs a directory reads its disk meanwhile.
pub(crate) const IMPORT_SILENT_FOR: Duration = Duration::from_secs(60);
/// How often it is looked which images there are, where another controller acts.
pub(crate) const IMAGES_LOOKED_AT: Duration = Duration::from_secs(10);
/// Parts of an image on their way to whoever exports it.
pub(crate) const TREE_CHUNKS: usize = 8;
pub(crate) const TREE_CHUNK: usize = 256 << 10;
/// What a tar of an image may have beside its files, in all and for each of its entries: names, attributes, padding. Whoever has read a request of one
/// controller to the other shall not fill a disk with it.
pub(crate) const COPY_BYTES_MORE: u64 = 1 << 20;
pub(crate) const COPY_BYTES_PER_ENTRY: u64 = 16 << 10;
/// How long the controller that acts may take to be reached by one that copies an image from it.
pub(crate) const COPY_CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// Units of a system that are told to have failed: enough to see what is wrong, and little to store.
pub(crate) const FAILED_UNITS: usize = 10;
/// An image that cannot be completed here (a disk that is full, a kernel without what a root needs) is tried again after so long, or at the next import.
pub(crate) const IMAGE_TRIED_AGAIN: Duration = Duration::from_secs(300);
