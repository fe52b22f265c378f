//! The server: listeners, and what all connections share.
//!
//! Leaves out: where it listens, and that a port is in use (whoever binds says so). Invariant: it ends only when it is told to. Shown by
//! `tests/nfs/reads.rs`, `it_ends_when_it_is_told_to`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::server::nfs::buffers::Buffers;
use crate::server::nfs::connection::{self, Client};
use crate::server::nfs::exports::Exports;
use crate::server::nfs::files::Files;
use crate::server::nfs::limits::Limits;
use crate::server::nfs::mount::Refusals;
use crate::server::nfs::share::{Crowd, Memory, semaphore};
use crate::server::nfs::stats::Stats;

/// After a connection that could not be accepted: no file was left for it, and in a moment there may be.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What all connections share.
pub(crate) struct Server {
    pub(crate) exports: Arc<dyn Exports>,
    pub(crate) limits: Limits,
    pub(crate) stats: Arc<Stats>,
    /// At which portmap says that the programs are.
    pub(crate) port: u16,
    pub(crate) files: Arc<Files>,
    pub(crate) memory: Memory,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) disk: Arc<Semaphore>,
    pub(crate) mounts: Arc<Semaphore>,
    pub(crate) refusals: Refusals,
}

impl Server {
    pub(crate) fn of(exports: Arc<dyn Exports>, limits: Limits, stats: Arc<Stats>, port: u16) -> Server {
        Server {
            port,
            files: Arc::new(Files::of(&limits, &exports)),
            memory: Memory::of(&limits),
            buffers: Buffers::keeping(limits.memory_kept),
            disk: semaphore(limits.disk_reads),
            mounts: semaphore(limits.mounts),
            refusals: Refusals::default(),
            exports,
            limits,
            stats,
        }
    }
}

/// Answers all programs at all listeners until `stop` says true or its sender is gone; then gives calls that run `Limits::drain`. The first listener is
/// the one whose port portmap tells; 111 is one of the others.
pub async fn serve(
    listeners: Vec<TcpListener>,
    exports: Arc<dyn Exports>,
    limits: Limits,
    stats: Arc<Stats>,
    mut stop: watch::Receiver<bool>,
) {
    let limits = limits.usable();
    let port = listeners.first().and_then(|first| first.local_addr().ok()).map_or(0, |at| at.port());
    let server = Arc::new(Server::of(exports, limits, stats, port));
    let crowd = Crowd::of(&server.limits);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, Arc::clone(&server), Arc::clone(&crowd), stop.clone()));
    }
    // A sender that is gone has stopped as well.
    drop(stop.wait_for(|stop| *stop).await);
    while accepting.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, server: Arc<Server>, crowd: Arc<Crowd>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let told = stop.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                if let Some(client) = admit(&stream, address, &server, &crowd) {
                    connections.spawn(connection::run(stream, client, told.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(error = %error, "an NFS connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(stream: &TcpStream, address: SocketAddr, server: &Arc<Server>, crowd: &Arc<Crowd>) -> Option<Client> {
    server.stats.connections.add(1);
    let Some(seat) = crowd.seat(address.ip()) else {
        server.stats.crowded_out.add(1);
        // Closed with a reset: nothing of it stays in the kernel.
        let _gone = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        return None;
    };
    let ours = stream.local_addr().ok()?;
    Some(Client { server: Arc::clone(server), seat, address, ours })
}
