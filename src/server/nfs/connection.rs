//! One connection: calls come in, and are answered as each is ready, in whatever order (RFC 5531, section 9: the xid tells which).
//!
//! What memory answers is answered here; what waits for a disk is a task of its own. Leaves out: what is answered (`nfs`, `mount`, `acl`, `portmap`).
//! Invariant: a call is taken from the stream only when there is room for its answer, and an answer is held only until the client should have
//! received it. Shown by `tests/nfs/hostile.rs`.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::server::nfs::buffers::Buffer;
use crate::server::nfs::limits::{LIST_BYTES, Limits, SMALL_BYTES};
use crate::server::nfs::record::{End, Records};
use crate::server::nfs::rpc::{self, Call, Incoming};
use crate::server::nfs::server::Server;
use crate::server::nfs::share::{Held, Seat};
use crate::server::nfs::xdr::Writer;
use crate::server::nfs::{acl, mount, portmap, procedures};

/// Replies that are written at once: as many octets, and as many replies.
const BATCH_BYTES: usize = 256 << 10;
const BATCH: usize = 32;
/// Probes of a silent peer before it counts as gone.
const KEEPALIVE_PROBES: u32 = 3;
/// A list grows by doubling: for a moment it has twice its octets.
const LIST_COST: usize = 2 * LIST_BYTES as usize;

/// Who is at the other end.
pub(crate) struct Client {
    pub(crate) server: Arc<Server>,
    pub(crate) seat: Seat,
    pub(crate) address: SocketAddr,
    pub(crate) ours: SocketAddr,
}

/// A reply with its record mark.
pub(crate) struct Sendable {
    pub(crate) buffer: Buffer,
    /// What it counts; nothing for some hundred octets.
    pub(crate) held: Option<Held>,
}

/// What comes of a call.
pub(crate) enum Outcome {
    Now(Writer),
    /// Nothing comes of it when the server ends.
    Later(Pin<Box<dyn Future<Output = Option<Sendable>> + Send>>),
}

/// On its way, with all that is held for it.
struct Reply {
    buffer: Buffer,
    _held: Option<Held>,
    _call: OwnedSemaphorePermit,
}

pub(crate) async fn run(mut stream: TcpStream, client: Client, mut stop: watch::Receiver<bool>) {
    if let Err(error) = prepare(&stream, &client.server.limits) {
        tracing::debug!(peer = %client.address, error = %error, "an NFS connection was gone before it began");
        return;
    }
    let (read, mut write) = stream.split();
    let ended = converse(read, &mut write, &client, &mut stop).await;
    if !ended.is_orderly() {
        // What the kernel still holds for it is thrown away.
        let _gone = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    ended.count(&client.server, client.address);
}

/// Takes all calls, and gives what they come to.
pub(crate) async fn converse<R, W>(read: R, write: &mut W, client: &Client, stop: &mut watch::Receiver<bool>) -> Ended
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let limits = &client.server.limits;
    let (replies, mut to_write) = mpsc::channel(limits.calls);
    let mut running = JoinSet::new();
    let mut calls = Calls { records: Records::of(read, limits), client, replies, running: &mut running };
    let mut writing = pin!(write_all(write, &mut to_write, limits));
    let ended = tokio::select! {
        biased;
        () = client.seat.guest.leave.notified() => Ended::CrowdedOut,
        // A sender that is gone has stopped as well.
        _ = stop.wait_for(|stop| *stop) => Ended::Stopped,
        written = &mut writing => written.err().map_or(Ended::Stopped, Ended::NotWritten),
        end = calls.take_all() => Ended::Read(end),
    };
    drop(calls);
    if ended.is_orderly() {
        // Whoever has closed its side only, or is to reconnect elsewhere, gets what it was owed.
        let rest = async {
            while running.join_next().await.is_some() {}
            writing.await
        };
        let _late = timeout(limits.drain, rest).await;
    }
    ended
}

/// Why a connection is no more.
pub(crate) enum Ended {
    CrowdedOut,
    Stopped,
    NotWritten(io::Error),
    Read(End),
}

impl Ended {
    fn is_orderly(&self) -> bool {
        matches!(self, Ended::Stopped | Ended::Read(End::Closed))
    }

    fn count(&self, server: &Server, peer: SocketAddr) {
        match self {
            Ended::Stopped | Ended::Read(End::Closed | End::Silent(_)) => {}
            Ended::CrowdedOut => {
                server.stats.crowded_out.add(1);
                tracing::debug!(peer = %peer, "an NFS connection made room for another one");
            }
            Ended::NotWritten(error) => {
                server.stats.broken.add(1);
                tracing::debug!(peer = %peer, error = %error, "an NFS connection took no answer");
            }
            Ended::Read(end) => {
                server.stats.broken.add(1);
                tracing::debug!(peer = %peer, error = %end, "an NFS connection ended");
            }
        }
    }
}

fn prepare(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(limits.keepalive).with_interval(limits.keepalive_every).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&probes)?;
    // tcp(7): what was sent and not acknowledged for so long ends the connection, as keepalive does where nothing was sent.
    socket.set_tcp_user_timeout(Some(limits.keepalive + limits.keepalive_every * KEEPALIVE_PROBES))
}

// ---- calls -----------------------------------------------------------------------------------------------------------------

struct Calls<'a, R> {
    records: Records<R>,
    client: &'a Client,
    replies: mpsc::Sender<Reply>,
    running: &'a mut JoinSet<()>,
}

impl<R: AsyncRead + Unpin> Calls<'_, R> {
    async fn take_all(&mut self) -> End {
        loop {
            let record = match self.records.next().await {
                Ok(record) => record,
                Err(end) => return end,
            };
            while self.running.try_join_next().is_some() {}
            if self.take(record).await.is_none() {
                return End::Closed;
            }
        }
    }

    /// None: no more are to be taken.
    async fn take(&mut self, record: Bytes) -> Option<()> {
        let Client { server, seat, .. } = self.client;
        seat.asks();
        server.stats.calls.add(1);
        let call = Arc::clone(&seat.guest.calls).acquire_owned().await.ok()?;
        let (outcome, held) = match rpc::read(&record) {
            Incoming::Noise => return None,
            Incoming::Refused(out) => (Outcome::Now(out), None),
            Incoming::Call(call) => {
                let held = server.memory.hold(&seat.guest.peer, cost(&call)).await?;
                (answer(self.client, call), Some(held))
            }
        };
        match outcome {
            Outcome::Now(out) => self.replies.send(Reply { buffer: Buffer::of(out), _held: held, _call: call }).await.ok(),
            Outcome::Later(later) => {
                // It takes what it needs when it needs it: whoever holds a little while it waits for more may wait for one that does the same. Its own
                // octets, before that, are bounded by the number of calls.
                drop(held);
                let replies = self.replies.clone();
                self.running.spawn(async move {
                    if let Some(Sendable { buffer, held }) = later.await {
                        let _gone = replies.send(Reply { buffer, _held: held, _call: call }).await;
                    }
                });
                Some(())
            }
        }
    }
}

/// What a call counts before it is looked at.
fn cost(call: &Call) -> usize {
    match (call.program, call.procedure) {
        (procedures::PROGRAM, 16 | 17) => LIST_COST,
        _ => SMALL_BYTES,
    }
}

/// By program and version; `tests/nfs/hostile.rs` calls every one.
fn answer(client: &Client, call: Call) -> Outcome {
    match (call.program, call.version) {
        (procedures::PROGRAM, procedures::VERSION) => procedures::answer(client, call),
        (procedures::PROGRAM, _) => Outcome::Now(rpc::no_version(call.xid, procedures::VERSION, procedures::VERSION)),
        (acl::PROGRAM, _) => acl::answer(client, call),
        (mount::PROGRAM, _) => mount::answer(client, call),
        (portmap::PROGRAM, _) => portmap::answer(client, call),
        _ => Outcome::Now(rpc::no_program(call.xid)),
    }
}

// ---- replies ---------------------------------------------------------------------------------------------------------------

/// Until there are no more; each batch within its time.
async fn write_all<W: AsyncWrite + Unpin>(to: &mut W, replies: &mut mpsc::Receiver<Reply>, limits: &Limits) -> io::Result<()> {
    let mut batch = Vec::new();
    while let Some(first) = replies.recv().await {
        let mut bytes = first.buffer.bytes().len();
        batch.push(first);
        while bytes < BATCH_BYTES
            && batch.len() < BATCH
            && let Ok(next) = replies.try_recv()
        {
            bytes += next.buffer.bytes().len();
            batch.push(next);
        }
        match timeout(limits.write_within, write_batch(to, &batch)).await {
            Ok(written) => written?,
            Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
        }
        batch.clear();
    }
    Ok(())
}

async fn write_batch<W: AsyncWrite + Unpin>(to: &mut W, batch: &[Reply]) -> io::Result<()> {
    if let [only] = batch {
        return to.write_all(only.buffer.bytes()).await;
    }
    let mut slices: Vec<IoSlice> = batch.iter().map(|reply| IoSlice::new(reply.buffer.bytes())).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let written = to.write_vectored(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}
