//! A read-only NFSv3 server for root file systems: portmap, MOUNT, NFS and NFS_ACL over TCP, all at the same listeners.
//!
//! It has no state that a client could lose: a handle says which tree and inode it stands for and is signed, a cookie is a pure function of the tree.
//! So a client goes on after a restart, and at another controller. Leaves out: UDP, NFSv4, locks (mount with `nolock`), writing (an overlay does that
//! in the client), RPCSEC_GSS. Invariant: what comes in is trusted in nothing: each octet that is held for a client is counted, and no request makes
//! more be held than the limits say. Shown by `tests/nfs/serve.rs` and `tests/nfs/reads.rs` (clients of our own and libnfs), `tests/nfs/guest.rs`
//! (Linux), `tests/nfs/hostile.rs`.

mod acl;
mod attributes;
mod buffers;
pub(crate) mod connection;
mod directory;
mod exports;
mod files;
mod handle;
mod limits;
mod mount;
mod portmap;
mod procedures;
mod read;
pub(crate) mod record;
pub(crate) mod rpc;
pub(crate) mod server;
pub(crate) mod share;
mod stats;
mod xdr;

pub use exports::{Attributes, Event, Exports, Found, Kind, Refused, Tree};
pub use limits::{Limits, READ_BYTES};
pub use server::serve;
pub use stats::{Counter, Stats};
