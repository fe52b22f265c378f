//! Who may connect, and what each peer holds: seats, octets of replies, files being opened, reads of disks.
//!
//! A peer is an address. Whoever has many addresses has many shares; then what is held in all is the bound, and connections that never showed a
//! handle go first. Leaves out: what is done with a seat (`connection`). Invariant: one peer holds at most its share, however many connections it
//! has, and waits for more without keeping others from theirs. Shown by the tests at the end, and by `tests/nfs/hostile.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::server::nfs::limits::Limits;

/// One that has asked something goes for another one of its address only after so long: that was a start before.
const IDLE_ENOUGH: Duration = Duration::from_secs(10);

/// What one address may hold, over all its connections.
#[derive(Debug)]
pub(crate) struct Peer {
    bytes: Arc<Semaphore>,
    pub(crate) opens: Arc<Semaphore>,
    /// Files being opened, or waiting for that, after whoever asked has gone.
    pub(crate) opening: Arc<Semaphore>,
    pub(crate) disk: Arc<Semaphore>,
    pub(crate) mounts: Arc<Semaphore>,
}

/// A place to count what all hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    all: Arc<Semaphore>,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "held, not read")] [OwnedSemaphorePermit; 2]);

/// First of one's own share: whoever has used that up does not stand in the others' way.
pub(crate) async fn of_both(own: &Arc<Semaphore>, all: &Arc<Semaphore>, count: usize) -> Option<Held> {
    let count = u32::try_from(count).ok()?;
    let own = Arc::clone(own).acquire_many_owned(count).await.ok()?;
    let all = Arc::clone(all).acquire_many_owned(count).await.ok()?;
    Some(Held([own, all]))
}

impl Memory {
    pub(crate) fn of(limits: &Limits) -> Memory {
        Memory { all: semaphore(limits.memory) }
    }

    /// Waits until so many octets may be held. None: never.
    pub(crate) async fn hold(&self, peer: &Peer, bytes: usize) -> Option<Held> {
        of_both(&peer.bytes, &self.all, bytes).await
    }
}

pub(crate) fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

/// All that are connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    limits: Limits,
    began: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By order of arrival.
    seats: BTreeMap<u64, Arc<Guest>>,
    /// How many seats each has.
    peers: BTreeMap<IpAddr, (usize, Arc<Peer>)>,
}

/// Who has a seat.
#[derive(Debug)]
pub(crate) struct Guest {
    address: IpAddr,
    pub(crate) peer: Arc<Peer>,
    /// Of one call, until its answer is written.
    pub(crate) calls: Arc<Semaphore>,
    /// A handle that is ours was shown, or a mount allowed.
    known: AtomicBool,
    /// When it last asked, in milliseconds since the server began.
    asked: AtomicU64,
    /// Its seat is somebody else's.
    pub(crate) leave: Notify,
}

/// Given back when it is dropped.
pub(crate) struct Seat {
    crowd: Arc<Crowd>,
    number: u64,
    pub(crate) guest: Arc<Guest>,
}

impl Crowd {
    pub(crate) fn of(limits: &Limits) -> Arc<Crowd> {
        Arc::new(Crowd { limits: limits.clone(), began: Instant::now(), taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A seat, for which another connection may have to leave.
    pub(crate) fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        let of_it = taken.peers.get(&address).map_or(0, |(seats, _)| *seats);
        if of_it >= self.limits.connections_of_one {
            let leaves = self.one_to_leave(&taken, |guest| guest.address == address)?;
            taken.leave(leaves);
        }
        if taken.seats.len() >= self.limits.connections {
            let leaves = self.one_to_leave_of_all(&taken, of_it)?;
            taken.leave(leaves);
        }
        let limits = &self.limits;
        let (seats, peer) = taken.peers.entry(address).or_insert_with(|| {
            let peer = Peer {
                bytes: semaphore(limits.memory_of_one),
                opens: semaphore(limits.opens_of_one),
                opening: semaphore(limits.calls),
                disk: semaphore(limits.disk_reads_of_one),
                mounts: semaphore(limits.mounts_of_one),
            };
            (0, Arc::new(peer))
        });
        *seats += 1;
        let guest = Arc::new(Guest {
            address,
            peer: Arc::clone(peer),
            calls: semaphore(limits.calls),
            known: AtomicBool::new(false),
            asked: AtomicU64::new(self.now()),
            leave: Notify::new(),
        });
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, Arc::clone(&guest));
        Some(Seat { crowd: Arc::clone(self), number, guest })
    }

    /// The first that came and has shown nothing; else the one that has asked nothing for the longest time, if that is long and nothing is owed to it.
    fn one_to_leave(&self, taken: &Taken, which: impl Fn(&Guest) -> bool) -> Option<u64> {
        let of_these = || taken.seats.iter().filter(|(_, guest)| which(guest));
        let stranger = of_these().find(|(_, guest)| !guest.known.load(Ordering::Relaxed));
        if let Some((number, _)) = stranger {
            return Some(*number);
        }
        let idle = of_these().filter(|(_, guest)| guest.calls.available_permits() >= self.limits.calls);
        let (asked, number) = idle.map(|(number, guest)| (guest.asked.load(Ordering::Relaxed), *number)).min()?;
        let idle_for = Duration::from_millis(self.now().saturating_sub(asked));
        (idle_for >= IDLE_ENOUGH).then_some(number)
    }

    /// A stranger; else one of the address that has the most, if that has more than the one that comes would then have.
    fn one_to_leave_of_all(&self, taken: &Taken, of_the_new: usize) -> Option<u64> {
        if let Some((number, _)) = taken.seats.iter().find(|(_, guest)| !guest.known.load(Ordering::Relaxed)) {
            return Some(*number);
        }
        let (most, address) = taken.peers.iter().map(|(address, (seats, _))| (*seats, *address)).max()?;
        if most <= of_the_new + 1 {
            return None;
        }
        self.one_to_leave(taken, |guest| guest.address == address)
    }
}

impl Taken {
    fn leave(&mut self, number: u64) {
        let Some(guest) = self.seats.remove(&number) else { return };
        guest.leave.notify_one();
        if let Some((seats, _)) = self.peers.get_mut(&guest.address) {
            *seats -= 1;
            if *seats == 0 {
                self.peers.remove(&guest.address);
            }
        }
    }
}

impl Seat {
    pub(crate) fn asks(&self) {
        self.guest.asked.store(self.crowd.now(), Ordering::Relaxed);
    }
}

impl Guest {
    pub(crate) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.taken().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    fn crowd(connections: usize, connections_of_one: usize) -> Arc<Crowd> {
        Crowd::of(&Limits { connections, connections_of_one, ..Limits::default() })
    }

    fn must_leave(seat: &Seat) -> bool {
        !seat.crowd.taken().seats.contains_key(&seat.number)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_has_all_its_seats_gives_one_of_its_own() {
        let crowd = crowd(100, 3);
        let [first, second, third] = [0; 3].map(|_| crowd.seat(address(1)).unwrap());
        first.guest.is_known();
        let fourth = crowd.seat(address(1)).unwrap();
        assert!([&first, &second, &third, &fourth].map(must_leave) == [false, true, false, false]);
        // All have shown something, and lately.
        [&third, &fourth].iter().for_each(|seat| seat.guest.is_known());
        assert!(crowd.seat(address(1)).is_none());
        assert!(crowd.seat(address(2)).is_some(), "another one");
        tokio::time::advance(IDLE_ENOUGH).await;
        third.asks();
        let owed = Arc::clone(&first.guest.calls).try_acquire_owned().unwrap();
        let fifth = crowd.seat(address(1)).unwrap();
        assert!([&first, &third, &fourth, &fifth].map(must_leave) == [false, false, true, false], "nothing was owed to the fourth");
        drop((owed, first, second, third, fourth, fifth));
        assert!(crowd.taken().peers.is_empty() && crowd.taken().seats.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_seats_are_taken_a_stranger_goes_and_then_one_of_whoever_has_the_most() {
        let crowd = crowd(4, 3);
        let greedy = [0; 3].map(|_| crowd.seat(address(1)).unwrap());
        let other = crowd.seat(address(2)).unwrap();
        greedy.iter().chain([&other]).for_each(|seat| seat.guest.is_known());
        assert!(crowd.seat(address(3)).is_none(), "all were busy of late");
        tokio::time::advance(IDLE_ENOUGH).await;
        let third = crowd.seat(address(3)).unwrap();
        assert!(must_leave(&greedy[0]) && !must_leave(&other));
        let fourth = crowd.seat(address(4)).unwrap();
        assert!(must_leave(&third), "it has shown nothing");
        drop(fourth);
    }

    #[tokio::test]
    async fn whoever_has_used_its_share_up_does_not_stand_in_the_way() {
        let limits = Limits { memory: 300, memory_of_one: 100, ..Limits::default() };
        let (memory, crowd) = (Memory::of(&limits), Crowd::of(&limits));
        let (one, other) = (crowd.seat(address(1)).unwrap(), crowd.seat(address(2)).unwrap());
        let held = memory.hold(&one.guest.peer, 100).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(20), memory.hold(&one.guest.peer, 1)).await;
        assert!(waits.is_err());
        assert!(memory.hold(&other.guest.peer, 100).await.is_some());
        drop(held);
        assert!(memory.hold(&one.guest.peer, 100).await.is_some());
    }
}
