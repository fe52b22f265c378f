//! Until when this controller may change anything, as one number that its keeper moves and the gate at the wire reads.
//!
//! Leaves out: how a lease is taken and kept (the backends). Invariant: what has ended never goes on again, whoever extends it later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::BootClock;

/// Over for good.
const ENDED: u64 = 0;
/// Held for as long as the process lives.
const FOR_EVER: u64 = u64::MAX;

#[derive(Debug)]
pub struct LeaseEnd {
    clock: BootClock,
    /// Microseconds of `clock`.
    until: AtomicU64,
}

impl LeaseEnd {
    /// Ends at this moment of the clock, unless it is extended.
    pub fn at(clock: BootClock, until: Duration) -> Arc<LeaseEnd> {
        Arc::new(LeaseEnd { until: AtomicU64::new(micros(until)), clock })
    }

    /// Ends only by `end`.
    pub fn never(clock: BootClock) -> Arc<LeaseEnd> {
        Arc::new(LeaseEnd { clock, until: AtomicU64::new(FOR_EVER) })
    }

    pub fn clock(&self) -> BootClock {
        self.clock
    }

    /// Until this moment of the clock, if that is later than now said. What has ended stays so.
    pub fn extend(&self, until: Duration) {
        let until = micros(until);
        let later = |old: u64| (old != ENDED && old < until).then_some(until);
        let _unchanged = self.until.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// Over now. Whether it was held until now.
    pub fn end(&self) -> bool {
        self.until.swap(ENDED, Ordering::SeqCst) != ENDED
    }

    pub fn remaining(&self) -> Duration {
        let until = self.until.load(Ordering::SeqCst);
        Duration::from_micros(until.saturating_sub(micros(self.clock.now())))
    }

    pub fn holds(&self) -> bool {
        !self.remaining().is_zero()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
