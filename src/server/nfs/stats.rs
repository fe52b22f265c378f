//! Counters, for metrics and for `embody status`.
//!
//! Leaves out: who asks for them, and rates. Invariant: counting never waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the server began.
#[derive(Debug, Default)]
pub struct Stats {
    pub connections: Counter,
    /// Turned away, or ended so that another one finds a place.
    pub crowded_out: Counter,
    pub calls: Counter,
    pub reads: Counter,
    /// Of files, as sent.
    pub bytes: Counter,
    /// Reads that were not all in the page cache.
    pub disk_reads: Counter,
    pub mounts: Counter,
    pub refusals: Counter,
    /// Connections that ended because of what they sent, or because they took too long.
    pub broken: Counter,
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
