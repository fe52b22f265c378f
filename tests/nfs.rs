//! The NFS server: what it answers, to clients of our own, to libnfs and to Linux, and what those that mean harm can do.
//!
//! Trees are in memory, their files in a directory. Leaves out: which path is which image (`tests/machines.rs`), and how fast it is (`benches/nfs.rs`).

mod free_port;

#[path = "nfs/client.rs"]
mod client;
#[path = "nfs/common.rs"]
mod common;
#[path = "nfs/forest.rs"]
#[allow(dead_code, reason = "the tests of the agent use the rest")]
mod forest;
#[path = "nfs/guest.rs"]
mod guest;
#[path = "nfs/hostile.rs"]
mod hostile;
#[path = "nfs/initrd.rs"]
#[allow(dead_code, reason = "the tests of the agent use the rest")]
mod initrd;
#[path = "nfs/reads.rs"]
mod reads;
#[path = "nfs/serve.rs"]
mod serve;
