//! The one way out for whatever changes a device: a Chassis Control, a Set Boot Options, any SNMP SET.
//!
//! Authority is checked where the packet leaves, not where it was decided: the end of the lease (read live), the operation's own deadline,
//! whether a person or a newer desired state has taken the operation back, and how old the answer is that the change relies on. Check and
//! `try_send` stand in `Gate::pass`, without an await and under the lock that `void` takes: when `void` has returned, nothing leaves any
//! more. A process that is frozen before the check and woken later sends nothing. (Between the check and the system call no program can
//! look: that is microseconds, or a hypervisor's pause.)
//!
//! Leaves out: what is sent, and what becomes of it. `DeviceSocket` is the only UDP socket of the drivers; `tests/tidy.rs` sees to it. In the
//! simulator a `Network` stands for the kernel behind it, so that the same drivers and the same gate work in virtual time.
//! Shown by the tests below, `tests/rack.rs` and `tests/simulate.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UdpSocket;

use crate::clock::BootClock;
use crate::limits;
use crate::model::Vlan;
use crate::model::identity::Identity;
use crate::model::op::Op;
use crate::store::LeaseEnd;

/// What an operation changes on its device. Of two permits for one key, the older is void once the newer desired state says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Power,
    Boot,
    Port(String),
    Vlan(Vlan),
    /// The saved configuration.
    Saved,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Power => f.write_str("power"),
            Key::Boot => f.write_str("boot device"),
            Key::Port(port) => write!(f, "port {port}"),
            Key::Vlan(vlan) => write!(f, "VLAN {vlan}"),
            Key::Saved => f.write_str("saved configuration"),
        }
    }
}

impl Key {
    pub fn of(op: &Op) -> Key {
        match op {
            Op::PowerOn { .. } | Op::PowerOff { .. } => Key::Power,
            Op::SetBoot { .. } => Key::Boot,
            Op::SetPort { port, .. } => Key::Port(port.clone()),
            Op::CreateVlan { vlan, .. } => Key::Vlan(*vlan),
            Op::Save { .. } => Key::Saved,
        }
    }
}

/// Why a change does not leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("this controller's lease is over")]
    LeaseOver,
    #[error("its time was over before it could be sent")]
    TooLate,
    #[error("it was taken back")]
    TakenBack,
    #[error("what it relies on was asked {:.1} s ago, and may be at most {:.1} s old", .age.as_secs_f64(), .at_most.as_secs_f64())]
    TooSlowToWrite { age: Duration, at_most: Duration },
}

/// The answer that a change relies on: when it was asked for (`BootClock`), and how old it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    pub asked_at: Duration,
    pub at_most: Duration,
}

impl Freshness {
    /// At most max(2 s, three round trips), never above 10 s: a device that is slower than that cannot be written by compare-and-set.
    pub fn within(asked_at: Duration, round_trip: Duration) -> Freshness {
        let at_most = Duration::from_secs(2).max(round_trip.saturating_mul(3)).min(Duration::from_secs(10));
        Freshness { asked_at, at_most }
    }
}

/// The gate of one device. The controller makes permits and voids them; a driver can only pass.
pub struct Gate {
    lease: Arc<LeaseEnd>,
    clock: BootClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the next permit.
    next: u64,
    /// Permits before this are void, but for those that are spared.
    void_before: u64,
    key_void_before: BTreeMap<Key, u64>,
    /// Permits between their first and their last datagram.
    half_way: BTreeMap<u64, Key>,
    /// Half-way permits that a pause lets finish.
    spared: BTreeSet<u64>,
}

impl State {
    fn is_void(&self, number: u64, key: &Key) -> bool {
        let device = number < self.void_before && !self.spared.contains(&number);
        device || self.key_void_before.get(key).is_some_and(|before| number < *before)
    }
}

impl Gate {
    pub fn new(lease: Arc<LeaseEnd>, clock: BootClock) -> Arc<Gate> {
        Arc::new(Gate { lease, clock, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to carry out one operation once, on the device that is pinned so. It is good for nothing before `Permit::begin`.
    pub fn permit(self: &Arc<Self>, key: Key, pinned: Identity) -> Permit {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        Permit { gate: Arc::clone(self), key, number, until: None, pinned }
    }

    /// A newer desired state: what is under way for this key sends nothing more.
    pub fn void(&self, key: &Key) {
        let mut state = self.state();
        let next = state.next;
        state.key_void_before.insert(key.clone(), next);
    }

    /// Nothing that was permitted so far is sent any more.
    pub fn void_all(&self) {
        let mut state = self.state();
        state.void_before = state.next;
        state.spared.clear();
    }

    /// As `void_all`, but what is between its first and its last datagram may finish. The keys of those.
    pub fn void_all_but_half_way(&self) -> Vec<Key> {
        let mut state = self.state();
        state.void_before = state.next;
        let (numbers, keys): (BTreeSet<u64>, Vec<Key>) = state.half_way.iter().map(|(n, k)| (*n, k.clone())).unzip();
        state.spared = numbers;
        keys
    }

    /// The keys that are between their first and their last datagram.
    pub fn half_way(&self) -> Vec<Key> {
        self.state().half_way.values().cloned().collect()
    }

    /// The check and the send. `half_way`: more datagrams of this operation must follow. The result of `send` where it was called.
    fn pass<T>(
        &self,
        permit: &Permit,
        fresh: Option<Freshness>,
        half_way: bool,
        send: impl FnOnce() -> io::Result<T>,
    ) -> Result<io::Result<T>, Closed> {
        let mut state = self.state();
        self.open(&state, permit, fresh)?;
        let sent = send();
        if sent.is_ok() && half_way {
            state.half_way.insert(permit.number, permit.key.clone());
        }
        Ok(sent)
    }

    fn open(&self, state: &State, permit: &Permit, fresh: Option<Freshness>) -> Result<(), Closed> {
        let now = self.clock.now();
        if !self.lease.holds() {
            return Err(Closed::LeaseOver);
        }
        if state.is_void(permit.number, &permit.key) {
            return Err(Closed::TakenBack);
        }
        if permit.until.is_none_or(|until| now >= until) {
            return Err(Closed::TooLate);
        }
        match fresh {
            Some(Freshness { asked_at, at_most }) if now.saturating_sub(asked_at) > at_most => {
                Err(Closed::TooSlowToWrite { age: now.saturating_sub(asked_at), at_most })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The right to carry out one operation once. Dropping it ends the operation.
pub struct Permit {
    gate: Arc<Gate>,
    key: Key,
    number: u64,
    /// The operation's deadline; nothing: the worker has not begun it.
    until: Option<Duration>,
    /// The device that is meant.
    pub pinned: Identity,
}

impl Permit {
    /// The worker begins the operation now: it has this much time.
    pub fn begin(&mut self, within: Duration) {
        self.until = Some(self.gate.clock.now() + within);
    }

    /// Whether a change would leave now. Saves questions that lead to nothing; it is checked again where the packet leaves.
    pub fn check(&self) -> Result<(), Closed> {
        self.gate.open(&self.gate.state(), self, None)
    }

    /// What of its device it is for.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The gate's clock: for `Freshness`.
    pub fn now(&self) -> Duration {
        self.gate.clock.now()
    }

    /// One datagram, or what stands for it in the simulator, if the gate is open at this very moment.
    pub fn pass<T>(&self, fresh: Option<Freshness>, half_way: bool, send: impl FnOnce() -> T) -> Result<T, Closed> {
        let sent = self.gate.pass(self, fresh, half_way, || Ok(send()))?;
        // `Ok` above.
        sent.map_err(|_| Closed::TooLate)
    }

    /// All datagrams of the operation are out, or it was undone.
    pub fn whole(&self) {
        self.gate.state().half_way.remove(&self.number);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.half_way.remove(&self.number);
        state.spared.remove(&self.number);
    }
}

/// A datagram, by what it does to the device that gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// A question, or a part of a handshake.
    Asks(Vec<u8>),
    Changes(Vec<u8>),
}

impl Datagram {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Datagram::Asks(bytes) | Datagram::Changes(bytes) => bytes,
        }
    }
}

/// Why a change was not sent.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error("the network refused it")]
    Network(#[from] io::Error),
}

/// What stands for the kernel's network, as the simulator's does. It is used as a socket is: what does not find room is tried again.
#[async_trait]
pub trait Network: Send + Sync {
    /// One datagram leaves now. A change may find no room (`WouldBlock`); `by` is the permit that lets it out, and the answer it relies on.
    fn try_send(&self, datagram: &Datagram, to: SocketAddr, by: Option<(&Permit, Option<Freshness>)>) -> io::Result<()>;

    /// Until there is room.
    async fn writable(&self);

    /// The next datagram that arrives, and from where.
    async fn receive(&self) -> (Vec<u8>, SocketAddr);
}

enum Way {
    Udp(UdpSocket),
    Network(Arc<dyn Network>),
}

/// A UDP socket to devices. Questions leave by `ask`, changes by `change` alone.
pub struct DeviceSocket(Way);

impl DeviceSocket {
    /// On this address of our own, without waiting. Must be called within a tokio runtime.
    pub fn open(address: SocketAddr) -> io::Result<DeviceSocket> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        // As much as the kernel lets us have: what a fleet answers at once waits there.
        let (bytes, force) = (limits::SOCKET_BYTES, rustix::net::sockopt::set_socket_recv_buffer_size_force);
        let _less = force(&socket, bytes).or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&socket, bytes));
        UdpSocket::from_std(socket).map(|socket| DeviceSocket(Way::Udp(socket)))
    }

    pub fn over(network: Arc<dyn Network>) -> DeviceSocket {
        DeviceSocket(Way::Network(network))
    }

    /// Refuses what changes anything.
    pub async fn ask(&self, datagram: &Datagram, to: SocketAddr) -> io::Result<()> {
        match (datagram, &self.0) {
            (Datagram::Changes(_), _) => Err(io::Error::new(io::ErrorKind::PermissionDenied, "a change leaves through the gate alone")),
            (Datagram::Asks(bytes), Way::Udp(socket)) => socket.send_to(bytes, to).await.map(|_| ()),
            (Datagram::Asks(_), Way::Network(network)) => network.try_send(datagram, to, None),
        }
    }

    /// A last word where it can be said at once; it may as well be lost.
    pub fn ask_now(&self, datagram: &Datagram, to: SocketAddr) {
        if let Datagram::Asks(_) = datagram {
            let _ = self.try_send(datagram, to, None);
        }
    }

    /// One copy of a change. Waits for room in the socket, never between the check and the send.
    pub async fn change(
        &self,
        datagram: &Datagram,
        to: SocketAddr,
        permit: &Permit,
        fresh: Option<Freshness>,
        half_way: bool,
    ) -> Result<(), Unsent> {
        loop {
            match permit.gate.pass(permit, fresh, half_way, || self.try_send(datagram, to, Some((permit, fresh))))? {
                Ok(()) => return Ok(()),
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn try_send(&self, datagram: &Datagram, to: SocketAddr, by: Option<(&Permit, Option<Freshness>)>) -> io::Result<()> {
        match &self.0 {
            Way::Udp(socket) => socket.try_send_to(datagram.bytes(), to).map(|_| ()),
            Way::Network(network) => network.try_send(datagram, to, by),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match &self.0 {
            Way::Udp(socket) => socket.writable().await,
            Way::Network(network) => {
                network.writable().await;
                Ok(())
            }
        }
    }

    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.0 {
            Way::Udp(socket) => socket.recv_from(buffer).await,
            Way::Network(network) => {
                let (bytes, from) = network.receive().await;
                // What does not fit is cut off, as a socket does it.
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                Ok((length, from))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate() -> (Arc<LeaseEnd>, Arc<Gate>) {
        let clock = BootClock::virtual_from_now();
        let lease = LeaseEnd::at(clock, 10 * SECOND);
        (Arc::clone(&lease), Gate::new(lease, clock))
    }

    fn begun(gate: &Arc<Gate>, key: Key) -> Permit {
        let mut permit = gate.permit(key, Identity::default());
        permit.begin(5 * SECOND);
        permit
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_leaves_once_the_lease_or_the_time_of_the_operation_is_over() {
        let (lease, gate) = gate();
        assert_eq!(gate.permit(Key::Power, Identity::default()).check(), Err(Closed::TooLate), "not begun");
        let permit = begun(&gate, Key::Power);
        assert_eq!(permit.pass(None, false, || 7), Ok(7));
        tokio::time::advance(6 * SECOND).await;
        assert_eq!(permit.check(), Err(Closed::TooLate));
        let permit = begun(&gate, Key::Power);
        tokio::time::advance(4 * SECOND).await;
        assert_eq!(permit.check(), Err(Closed::LeaseOver));
        lease.extend(20 * SECOND);
        assert_eq!(permit.check(), Ok(()));
        lease.end();
        lease.extend(90 * SECOND);
        assert_eq!(permit.check(), Err(Closed::LeaseOver), "over is over");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_back_does_not_leave_and_what_is_newer_does() {
        let (_lease, gate) = gate();
        let (one, two) = (Key::Port("1".into()), Key::Port("2".into()));
        let (a, b) = (begun(&gate, one.clone()), begun(&gate, two));
        gate.void(&one);
        assert_eq!((a.check(), b.check()), (Err(Closed::TakenBack), Ok(())));
        assert_eq!(begun(&gate, one.clone()).check(), Ok(()));
        gate.void_all();
        assert_eq!(b.check(), Err(Closed::TakenBack));
        assert_eq!(begun(&gate, one).check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lets_finish_what_is_half_way_and_nothing_else() {
        let (_lease, gate) = gate();
        let (a, b) = (begun(&gate, Key::Port("1".into())), begun(&gate, Key::Port("2".into())));
        assert_eq!(a.pass(None, true, || ()), Ok(()));
        assert_eq!(gate.void_all_but_half_way(), [Key::Port("1".into())]);
        assert_eq!((a.check(), b.check()), (Ok(()), Err(Closed::TakenBack)));
        a.whole();
        assert!(gate.half_way().is_empty());
        gate.void_all();
        assert_eq!(a.check(), Err(Closed::TakenBack));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_too_old_opens_nothing() {
        let (_lease, gate) = gate();
        let permit = begun(&gate, Key::Power);
        let fresh = Freshness::within(permit.now(), Duration::from_millis(100));
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(permit.pass(Some(fresh), false, || ()), Ok(()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(permit.pass(Some(fresh), false, || ()), Err(Closed::TooSlowToWrite { .. })));
        assert_eq!(Freshness::within(permit.now(), 9 * SECOND).at_most, 10 * SECOND);
    }
}
