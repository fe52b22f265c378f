//! One UDP socket (per address family) for all SNMP agents: sends requests and hands each reply to the request that waits for it.
//!
//! Replies are matched by the request-id (v2c) or msgID (v3), of which no two that wait are alike. A stray, late or duplicate reply finds
//! nobody waiting and is dropped; a late answer to an earlier try of a request that still waits is delivered. A switch with several addresses
//! may answer from another one than was asked: what is to be believed of that, the one who asked judges. Leaves out: what the bytes say,
//! when to try again. Invariants: an entry in the table lives no longer than the request that made it; a SET leaves through its device's
//! gate alone, each copy by itself. Shown by `tests/snmp/`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Leave;
use super::codec;
use super::keys::MasterKeys;
use crate::drivers::gate::{Closed, Datagram, DeviceSocket, Unsent};

/// The largest UDP payload over IPv4.
const DATAGRAM_BYTES: usize = 65_507;
/// Replies that one request keeps for later: each try has at most one of its own, the rest are duplicates.
const REPLIES_KEPT: usize = 8;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    Silence {
        attempts: u32,
        waited: Duration,
    },
    Network(io::Error),
    /// The gate was closed: this copy did not leave.
    Closed(Closed),
}

impl From<Unsent> for Unanswered {
    fn from(unsent: Unsent) -> Unanswered {
        match unsent {
            Unsent::Closed(closed) => Unanswered::Closed(closed),
            Unsent::Network(source) => Unanswered::Network(source),
        }
    }
}

/// A datagram and its sender.
type Reply = (Vec<u8>, SocketAddr);
type Waiting = Mutex<BTreeMap<u32, mpsc::Sender<Reply>>>;

/// The sockets and the table of waiting requests. All agents of a process share one.
pub struct SnmpSocket {
    v4: Arc<DeviceSocket>,
    v6: Option<Arc<DeviceSocket>>,
    waiting: Arc<Waiting>,
    next_id: AtomicU32,
    next_salt: AtomicU64,
    master_keys: MasterKeys,
    readers: Vec<JoinHandle<()>>,
}

impl SnmpSocket {
    /// On free ports of all addresses. Must be called within a tokio runtime. Without IPv6 on this machine it serves IPv4 alone.
    pub fn bind() -> io::Result<Arc<SnmpSocket>> {
        let v4 = DeviceSocket::open((Ipv4Addr::UNSPECIFIED, 0).into())?;
        Ok(SnmpSocket::over(v4, DeviceSocket::open((Ipv6Addr::UNSPECIFIED, 0).into()).ok()))
    }

    /// On sockets that are there already. Must be called within a tokio runtime.
    pub fn over(v4: DeviceSocket, v6: Option<DeviceSocket>) -> Arc<SnmpSocket> {
        let (v4, v6) = (Arc::new(v4), v6.map(Arc::new));
        let waiting = Arc::new(Waiting::default());
        let readers = std::iter::once(&v4).chain(&v6).map(|socket| tokio::spawn(read(socket.clone(), waiting.clone()))).collect();
        Arc::new(SnmpSocket {
            v4,
            v6,
            waiting,
            next_id: AtomicU32::new(rand::random()),
            next_salt: AtomicU64::new(rand::random()),
            master_keys: MasterKeys::default(),
            readers,
        })
    }

    /// An id for a try of a request: 31 bits (request-id and msgID are INTEGERs), from a random start so that a reply is hard to forge.
    fn id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff
    }

    pub(super) fn master_keys(&self) -> &MasterKeys {
        &self.master_keys
    }

    /// Never the same twice: what a privacy key needs (RFC 3414 8.1.1.1, RFC 3826 3.1.2.1).
    pub(super) fn salt(&self) -> u64 {
        self.next_salt.fetch_add(1, Ordering::Relaxed)
    }

    async fn send(&self, datagram: &Datagram, to: SocketAddr, leave: Option<Leave<'_>>) -> Result<(), Unanswered> {
        let socket = match (to, &self.v6) {
            (SocketAddr::V4(_), _) => &self.v4,
            (SocketAddr::V6(_), Some(v6)) => v6,
            (SocketAddr::V6(_), None) => {
                return Err(Unanswered::Network(io::Error::new(io::ErrorKind::Unsupported, "this machine has no IPv6")));
            }
        };
        match leave {
            Some(Leave { permit, fresh, half_way }) => Ok(socket.change(datagram, to, permit, Some(fresh), half_way).await?),
            // It refuses what changes anything.
            None => socket.ask(datagram, to).await.map_err(Unanswered::Network),
        }
    }

    /// A place for the replies to one request, whatever number of tries it takes.
    fn listen(self: &Arc<Self>) -> Listening {
        let (sender, replies) = mpsc::channel(REPLIES_KEPT);
        Listening { socket: self.clone(), ids: Vec::new(), sender, replies }
    }

    /// One request: a try for each of `waits`, each with an id of its own, until `judge` makes something of a reply to any of them.
    /// `judge` gets it with its sender, and answers nothing to one that is not to be believed; the wait goes on as if it had not come.
    /// `leave`: for a SET.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        peer: SocketAddr,
        waits: &[Duration],
        leave: Option<Leave<'_>>,
        mut encode: impl FnMut(u32, usize) -> Datagram,
        mut judge: impl FnMut(&[u8], SocketAddr, &Listening) -> Option<T>,
    ) -> Result<T, Unanswered> {
        let mut listening = self.listen();
        for (attempt, wait) in waits.iter().enumerate() {
            let id = self.id();
            listening.add(id);
            let datagram = encode(id, attempt);
            self.send(&datagram, peer, leave).await?;
            let answer = async {
                loop {
                    let (reply, from) = listening.replies.recv().await?;
                    if let Some(answer) = judge(&reply, from, &listening) {
                        return Some(answer);
                    }
                }
            };
            if let Ok(Some(answer)) = tokio::time::timeout(*wait, answer).await {
                return Ok(answer);
            }
        }
        Err(Unanswered::Silence { attempts: waits.len() as u32, waited: waits.iter().sum() })
    }

    /// How many tries wait for a reply.
    pub fn outstanding(&self) -> usize {
        lock(&self.waiting).len()
    }
}

impl Drop for SnmpSocket {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

/// The sender of a reply, if it is not where the request went.
pub(super) fn elsewhere(from: SocketAddr, peer: SocketAddr) -> Option<SocketAddr> {
    let place = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    (place(from) != place(peer)).then_some(from)
}

/// One request's ids in the table; dropping it takes them out.
pub(super) struct Listening {
    socket: Arc<SnmpSocket>,
    ids: Vec<u32>,
    sender: mpsc::Sender<Reply>,
    replies: mpsc::Receiver<Reply>,
}

impl Listening {
    /// Accept the reply to one more try.
    fn add(&mut self, id: u32) {
        self.ids.push(id);
        lock(&self.socket.waiting).insert(id, self.sender.clone());
    }

    /// Whether `id` is of one of this request's tries.
    pub(super) fn has(&self, id: i32) -> bool {
        u32::try_from(id).is_ok_and(|id| self.ids.contains(&id))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut waiting = lock(&self.socket.waiting);
        for id in &self.ids {
            waiting.remove(id);
        }
    }
}

async fn read(socket: Arc<DeviceSocket>, waiting: Arc<Waiting>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        match socket.receive(&mut buffer).await {
            Ok((length, from)) => deliver(&buffer[..length], from, &waiting),
            Err(error) => {
                // No error is about one peer on an unconnected socket; the pause keeps a lasting one from spinning.
                tracing::debug!(%error, "SNMP socket");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn deliver(bytes: &[u8], from: SocketAddr, waiting: &Waiting) {
    let Some(id) = codec::reply_id(bytes) else {
        tracing::trace!(%from, "a datagram that is no SNMP message");
        return;
    };
    let waiter = lock(waiting).get(&id).cloned();
    match waiter {
        // A full queue holds REPLIES_KEPT answers to this request already.
        Some(waiter) => drop(waiter.try_send((bytes.to_vec(), from))),
        None => tracing::trace!(%from, id, "a stray, late or duplicate SNMP reply"),
    }
}

/// The table is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<u32, mpsc::Sender<Reply>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
