//! Who may act: one lease, granted in virtual time as etcd grants it, to processes that may be frozen, killed or cut off.
//!
//! Leaves out: everything else that a store does (`trial_store`). Invariant: nobody holds it while another one may still act by it, since whoever
//! holds it counts from when its last keep-alive was sent, less a margin, and the service from when that arrived.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::centre::Centre;
use super::checkers::Host;
use crate::store::{Lease, LeaseEnd};

/// As `store::etcd` takes off what it is granted.
const MARGIN: Duration = Duration::from_secs(3);
/// One way of a keep-alive.
const TAKES: Duration = Duration::from_millis(5);

pub struct Leases {
    centre: Arc<Centre>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    granted: u64,
    holder: Option<Holder>,
    cut_off: BTreeSet<Host>,
}

#[derive(Clone)]
struct Holder {
    host: Host,
    name: String,
    /// The number of the grant: the fence of every write.
    number: u64,
    until: Instant,
}

impl Leases {
    pub fn new(centre: Arc<Centre>) -> Arc<Leases> {
        Arc::new(Leases { centre, state: Mutex::default(), changed: watch::Sender::new(0) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Holder> {
        self.state().holder.clone().filter(|h| h.until > Instant::now())
    }

    pub fn holder(&self) -> Option<String> {
        self.current().map(|h| h.name)
    }

    /// The process that acts, by the service's word.
    pub fn acting(&self) -> Option<Host> {
        self.current().map(|h| h.host)
    }

    pub(super) fn is_held(&self, number: u64) -> bool {
        self.current().is_some_and(|h| h.number == number)
    }

    /// Nothing of this process reaches the service, or it does again.
    pub fn cut_off(&self, host: Host, cut: bool) {
        let mut state = self.state();
        match cut {
            true => state.cut_off.insert(host),
            false => state.cut_off.remove(&host),
        };
    }

    pub(super) fn is_cut_off(&self, host: Host) -> bool {
        self.state().cut_off.contains(&host)
    }

    /// Waits until it is free, and takes it.
    pub async fn acquire(self: &Arc<Self>, host: Host, name: &str, ttl: Duration) -> TrialLease {
        let mut changed = self.changed.subscribe();
        loop {
            let free_at = self.current().map(|h| h.until);
            self.centre.freezer.awake(host).await;
            let cut = self.is_cut_off(host);
            match free_at {
                None if !cut && self.current().is_none() => return self.grant(host, name, ttl),
                None => sleep(Duration::from_secs(1)).await,
                Some(at) => tokio::select! {
                    biased;
                    // The sender is our own.
                    _ = changed.changed() => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    fn grant(self: &Arc<Self>, host: Host, name: &str, ttl: Duration) -> TrialLease {
        let now = Instant::now();
        let number = {
            let mut state = self.state();
            state.granted += 1;
            state.holder = Some(Holder { host, name: name.to_owned(), number: state.granted, until: now + ttl });
            state.granted
        };
        let good_for = ttl - MARGIN.min(ttl / 3);
        let clock = self.centre.boot_clock();
        let until = LeaseEnd::at(clock, clock.now() + good_for);
        self.centre.judge(|judge, tick| judge.may_act(host, tick.plus(good_for)));
        self.centre.note(&[], format!("controller {host} gets the lease"));
        let over = Arc::new(watch::Sender::new(false));
        let kept = Kept { leases: Arc::clone(self), host, number, ttl, good_for, until: Arc::clone(&until), over: Arc::clone(&over) };
        let keeper = tokio::spawn(self.centre.freezer.hold(host, kept.keep()));
        TrialLease { leases: Arc::clone(self), number, until, over, keeper }
    }

    fn give_up(&self, number: u64) {
        if self.is_held(number) {
            self.state().holder = None;
            self.changed.send_modify(|n| *n += 1);
        }
    }

    fn prolong(&self, host: Host, number: u64, ttl: Duration) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        let cut = state.cut_off.contains(&host);
        match &mut state.holder {
            Some(holder) if holder.number == number && holder.until > now && !cut => {
                holder.until = now + ttl;
                true
            }
            Some(_) | None => false,
        }
    }
}

struct Kept {
    leases: Arc<Leases>,
    host: Host,
    number: u64,
    ttl: Duration,
    good_for: Duration,
    until: Arc<LeaseEnd>,
    over: Arc<watch::Sender<bool>>,
}

impl Kept {
    async fn keep(self) {
        let centre = Arc::clone(&self.leases.centre);
        while self.until.holds() {
            sleep((self.ttl / 3).min(self.until.remaining())).await;
            let (sent, sent_at) = (centre.boot_clock().now(), centre.now());
            sleep(TAKES).await;
            if self.leases.prolong(self.host, self.number, self.ttl) {
                centre.judge(|judge, _| judge.may_act(self.host, sent_at.plus(self.good_for)));
                sleep(TAKES).await;
                self.until.extend(sent + self.good_for);
            } else if !self.leases.is_cut_off(self.host) {
                break;
            }
        }
        self.until.end();
        self.over.send_replace(true);
    }
}

/// Dropped with its process, it stays taken until its time is over.
pub struct TrialLease {
    leases: Arc<Leases>,
    pub(super) number: u64,
    until: Arc<LeaseEnd>,
    over: Arc<watch::Sender<bool>>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Drop for TrialLease {
    fn drop(&mut self) {
        self.until.end();
        self.keeper.abort();
    }
}

#[async_trait]
impl Lease for TrialLease {
    fn until(&self) -> Arc<LeaseEnd> {
        Arc::clone(&self.until)
    }

    async fn lost(&self) {
        // The sender lives in this lease.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    async fn release(&self) {
        self.until.end();
        self.over.send_replace(true);
        self.leases.give_up(self.number);
    }
}
