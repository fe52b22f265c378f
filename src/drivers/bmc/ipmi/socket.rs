//! One UDP socket for all BMCs (and a second one for IPv6): datagrams are handed out by the console's session id, which is slot and generation.
//!
//! Leaves out what they mean (`session`), and whether a change may leave: the sockets are the gate's. A datagram counts only when it comes from the address that the slot was leased for, and a
//! generation that is over is never heard again. Nothing grows without bound: slots, and datagrams per slot, have their limits below.
//! Shown by `tests/ipmi.rs` (loss, doubles, late replies) and `benches/bmc_poll.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::wire;
use crate::drivers::gate::{Datagram, DeviceSocket, Freshness, Permit, Unsent};

/// The slot's half of a session id is 16 bits.
const SLOTS: usize = 1 << 16;
/// Datagrams that wait for one BMC's worker: one is in flight, the rest are late or doubled.
const WAITING: usize = 8;
/// The longest datagram that is read; an answer to what we ask has less than 150 bytes.
const DATAGRAM: usize = 1024;
/// After an error in receiving, so that one that stays does not take a core.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Mailbox {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    bell: Notify,
}

#[derive(Default)]
struct Slot {
    generation: u16,
    lessee: Option<(SocketAddr, Arc<Mailbox>)>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// The last lease for an address: some BMCs leave the console's id out of a refusal.
    by_peer: BTreeMap<SocketAddr, u16>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn session_id(slot: u16, generation: u16) -> u32 {
    (u32::from(generation) << 16) | u32::from(slot)
}

/// Generation 0 is left out, so that no session has the id 0: that means "outside of a session".
fn following(generation: u16) -> u16 {
    generation.checked_add(1).unwrap_or(1)
}

impl Table {
    fn lease(&mut self, peer: SocketAddr, mailbox: Arc<Mailbox>) -> io::Result<(u16, u32)> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < SLOTS => {
                // The first generation is any: a BMC may still know sessions of the process before.
                self.slots.push(Slot { generation: rand::random(), lessee: None });
                (self.slots.len() - 1) as u16
            }
            None => return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "all 65536 session slots are in use")),
        };
        let entry = &mut self.slots[usize::from(slot)];
        entry.generation = following(entry.generation);
        entry.lessee = Some((peer, mailbox));
        self.by_peer.insert(peer, slot);
        Ok((slot, session_id(slot, entry.generation)))
    }

    fn release(&mut self, slot: u16) {
        let Some(entry) = self.slots.get_mut(usize::from(slot)) else { return };
        if let Some((peer, _)) = entry.lessee.take() {
            self.free.push(slot);
            if self.by_peer.get(&peer) == Some(&slot) {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// Whose datagram this is.
    fn addressee(&self, from: SocketAddr, datagram: &[u8]) -> Option<&Arc<Mailbox>> {
        let packet = wire::packet(datagram)?;
        let id = wire::addressee(&packet).unwrap_or(0);
        let (slot, any_generation) = if id == 0 { (*self.by_peer.get(&from)?, true) } else { (id as u16, false) };
        let entry = self.slots.get(usize::from(slot))?;
        let (peer, mailbox) = entry.lessee.as_ref()?;
        (*peer == from && (any_generation || session_id(slot, entry.generation) == id)).then_some(mailbox)
    }
}

/// The sockets and who waits for what. Shared by all drivers.
pub struct BmcSocket {
    v4: Arc<DeviceSocket>,
    /// Nothing on a machine without IPv6.
    v6: Option<Arc<DeviceSocket>>,
    table: Arc<Mutex<Table>>,
    readers: Vec<JoinHandle<()>>,
}

impl BmcSocket {
    pub async fn bind() -> io::Result<Arc<BmcSocket>> {
        let v4 = DeviceSocket::open((Ipv4Addr::UNSPECIFIED, 0).into())?;
        Ok(BmcSocket::over(v4, DeviceSocket::open((Ipv6Addr::UNSPECIFIED, 0).into()).ok()))
    }

    /// On sockets that are there already. Must be called within a tokio runtime.
    pub fn over(v4: DeviceSocket, v6: Option<DeviceSocket>) -> Arc<BmcSocket> {
        let (v4, v6) = (Arc::new(v4), v6.map(Arc::new));
        let table = Arc::new(Mutex::new(Table::default()));
        let readers = [Some(&v4), v6.as_ref()].into_iter().flatten().map(|s| tokio::spawn(read(s.clone(), table.clone()))).collect();
        Arc::new(BmcSocket { v4, v6, table, readers })
    }

    /// A session id of our own for talking to `peer`, until the lease is dropped.
    pub(super) fn lease(self: &Arc<Self>, peer: SocketAddr) -> io::Result<Lease> {
        let mailbox = Arc::new(Mailbox::default());
        let (slot, console) = locked(&self.table).lease(peer, mailbox.clone())?;
        Ok(Lease { socket: self.clone(), mailbox, peer, slot, console })
    }

    fn toward(&self, peer: SocketAddr) -> io::Result<&DeviceSocket> {
        match (peer, &self.v6) {
            (SocketAddr::V4(_), _) => Ok(&self.v4),
            (SocketAddr::V6(_), Some(v6)) => Ok(v6),
            (SocketAddr::V6(_), None) => Err(io::Error::new(io::ErrorKind::Unsupported, "this machine has no IPv6")),
        }
    }
}

impl Drop for BmcSocket {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

async fn read(socket: Arc<DeviceSocket>, table: Arc<Mutex<Table>>) {
    let mut buffer = [0; DATAGRAM];
    loop {
        let Ok((length, from)) = socket.receive(&mut buffer).await else {
            // An ICMP error of a datagram sent before: not ours to judge, its sender waits and gives up by itself.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let datagram = &buffer[..length];
        let Some(mailbox) = locked(&table).addressee(from, datagram).cloned() else { continue };
        let mut waiting = locked(&mailbox.waiting);
        if waiting.len() < WAITING {
            waiting.push_back(datagram.to_vec());
        }
        drop(waiting);
        mailbox.bell.notify_one();
    }
}

/// One session id in use.
pub(super) struct Lease {
    socket: Arc<BmcSocket>,
    mailbox: Arc<Mailbox>,
    peer: SocketAddr,
    slot: u16,
    console: u32,
}

impl Lease {
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The console's session id.
    pub(super) fn console(&self) -> u32 {
        self.console
    }

    pub(super) async fn ask(&self, datagram: &Datagram) -> io::Result<()> {
        self.socket.toward(self.peer)?.ask(datagram, self.peer).await
    }

    /// One copy of a change, if the gate is open.
    pub(super) async fn change(&self, datagram: &Datagram, permit: &Permit, fresh: Option<Freshness>) -> Result<(), Unsent> {
        self.socket.toward(self.peer)?.change(datagram, self.peer, permit, fresh, false).await
    }

    /// Sends where that can be done at once: a last word, which may as well be lost.
    pub(super) fn ask_now(&self, datagram: &Datagram) {
        if let Ok(socket) = self.socket.toward(self.peer) {
            socket.ask_now(datagram, self.peer);
        }
    }

    pub(super) async fn receive(&self) -> Vec<u8> {
        loop {
            if let Some(datagram) = locked(&self.mailbox.waiting).pop_front() {
                return datagram;
            }
            self.mailbox.bell.notified().await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        locked(&self.socket.table).release(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_that_are_over_are_not_heard() {
        let mut table = Table::default();
        let peer = SocketAddr::from(([192, 0, 2, 1], 623));
        let to = |id: u32| {
            let mut packet = wire::header(0xc0, id, 1, 0);
            packet.extend_from_slice(&[0, 7]);
            packet
        };
        let (slot, first) = table.lease(peer, Arc::default()).unwrap();
        assert!(first >> 16 != 0);
        assert!(table.addressee(peer, &to(first)).is_some());
        assert!(table.addressee(SocketAddr::from(([192, 0, 2, 2], 623)), &to(first)).is_none());
        table.release(slot);
        let (again, second) = table.lease(peer, Arc::default()).unwrap();
        assert_eq!(slot, again);
        assert!(table.addressee(peer, &to(first)).is_none());
        assert!(table.addressee(peer, &to(second)).is_some());
        // Without an id: by address alone, and it is for the session's code to say whether it is genuine.
        assert!(table.addressee(peer, &to(0)).is_some());
        assert!(table.addressee(peer, &[]).is_none());
    }
}
