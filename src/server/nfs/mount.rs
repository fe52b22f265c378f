//! MOUNT version 3 (RFC 1813, appendix I): a path with a token becomes a handle.
//!
//! Leaves out: a list of who has mounted what, which the protocol itself calls unreliable, and of what is exported, since paths are secrets: both are
//! empty. Of versions 1 and 2 only NULL is answered. Invariant: a path is written to no log. Shown by `tests/nfs/serve.rs`, `only_the_token_mounts`.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::server::nfs::buffers::Buffer;
use crate::server::nfs::connection::{Client, Outcome, Sendable};
use crate::server::nfs::exports::{Event, Refused};
use crate::server::nfs::handle::Signer;
use crate::server::nfs::limits::Limits;
use crate::server::nfs::rpc::{self, AUTH_NONE, AUTH_SYS, Call};
use crate::server::nfs::server::Server;
use crate::server::nfs::share::of_both;
use crate::server::nfs::xdr::Writer;

pub(crate) const PROGRAM: u32 = 100_005;
pub(crate) const VERSION: u32 = 3;
/// MNTPATHLEN.
const PATH_MAX: usize = 1_024;

// mountstat3 (RFC 1813, section 5.1.5).
const OK: u32 = 0;
const NO_ENTRY: u32 = 2;
const ACCESS: u32 = 13;
const SERVER_FAULT: u32 = 10_006;

pub(crate) fn answer(client: &Client, call: Call) -> Outcome {
    let Call { xid, version, procedure, mut arguments, .. } = call;
    match (version, procedure) {
        // NULL; UMNT and UMNTALL, of which nothing is remembered.
        (1..=3, 0) | (3, 3 | 4) => Outcome::Now(rpc::success(xid)),
        (3, 1) => match arguments.opaque(PATH_MAX) {
            Ok(path) => Outcome::Later(Box::pin(mount(Arc::clone(&client.server), Asking::of(client), xid, path.to_vec()))),
            Err(_) => Outcome::Now(rpc::garbage(xid)),
        },
        // DUMP and EXPORT.
        (3, 2 | 5) => {
            let mut out = rpc::success(xid);
            out.bool(false);
            Outcome::Now(out)
        }
        (3, _) => Outcome::Now(rpc::no_procedure(xid)),
        _ => Outcome::Now(rpc::no_version(xid, VERSION, VERSION)),
    }
}

struct Asking {
    address: std::net::SocketAddr,
    guest: Arc<crate::server::nfs::share::Guest>,
}

impl Asking {
    fn of(client: &Client) -> Asking {
        Asking { address: client.address, guest: Arc::clone(&client.seat.guest) }
    }
}

async fn mount(server: Arc<Server>, asking: Asking, xid: u32, path: Vec<u8>) -> Option<Sendable> {
    let _turn = of_both(&asking.guest.peer.mounts, &server.mounts, 1).await?;
    let of = Arc::clone(&server);
    let peer = asking.address;
    let mounted = tokio::task::spawn_blocking(move || {
        // Before anything is looked up: without it there is no handle.
        let signer = Signer::of(&*of.exports).ok_or_else(|| Refused::Later("the key of handles is not known yet".to_owned()))?;
        let tree = of.exports.mount(&path, peer)?;
        Ok((tree.id(), signer.handle(&tree.id(), tree.root())))
    });
    let mounted = mounted.await.unwrap_or_else(|error| Err(Refused::Later(format!("the look-up failed: {error}"))));
    let mut out = rpc::success(xid);
    match mounted {
        Ok((tree, handle)) => {
            asking.guest.is_known();
            server.stats.mounts.add(1);
            server.exports.event(Event::Mounted { peer, tree });
            out.u32(OK).opaque(&handle).u32(2).u32(AUTH_SYS).u32(AUTH_NONE);
        }
        Err(because) => refuse(&server, peer, because, &mut out),
    }
    Some(Sendable { buffer: Buffer::of(out), held: None })
}

fn refuse(server: &Server, peer: std::net::SocketAddr, because: Refused, out: &mut Writer) {
    out.u32(match because {
        Refused::Unknown(_) => NO_ENTRY,
        Refused::Denied(_) => ACCESS,
        Refused::Later(_) => SERVER_FAULT,
    });
    server.stats.refusals.add(1);
    if let Some(left_out) = server.refusals.is_told(&server.limits) {
        server.exports.event(Event::Refused { peer, because, left_out });
    }
}

/// How many refusals were told of late.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    of_late: Mutex<OfLate>,
}

#[derive(Debug, Default)]
struct OfLate {
    told: Option<(f64, Instant)>,
    left_out: u64,
}

impl Refusals {
    /// Whether one more is told, and how many were left out before it.
    fn is_told(&self, limits: &Limits) -> Option<u64> {
        let mut of_late = self.of_late.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let told = of_late.told.map_or(0.0, |(told, at)| {
            let regained = now.saturating_duration_since(at).as_secs_f64() * limits.refusals_per_second;
            (told - regained).max(0.0)
        });
        if told + 1.0 > limits.refusals {
            of_late.left_out += 1;
            return None;
        }
        of_late.told = Some((told + 1.0, now));
        Some(std::mem::take(&mut of_late.left_out))
    }
}
