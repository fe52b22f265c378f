//! Addresses of ranges that were offered and not taken yet, or that somebody else was said to have: in memory, and forgotten with the process.
//!
//! Leaves out: what was given (the store). Invariant: an address that was offered to one is offered to nobody else for as long as it may be taken.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::boot::view::{Lease, View};
use crate::model::Mac;

/// How long an offer holds: firmware takes it within seconds, after some offers.
const OFFERED_FOR: Duration = Duration::from_secs(60);
/// How long one that is in use by somebody else is left alone.
const DECLINED_FOR: Duration = Duration::from_secs(600);
/// After how long without a word the address of a machine that no manifest names may go to another one, where all others are taken.
const UNHEARD_FOR: Duration = Duration::from_secs(1_800);

#[derive(Debug, Default)]
pub(crate) struct Pool {
    offered: BTreeMap<Ipv4Addr, (Mac, Instant)>,
    declined: BTreeMap<Ipv4Addr, Instant>,
    /// When a machine was heard last; of those that are not here: when this process started.
    heard: BTreeMap<Mac, Instant>,
}

/// Offers, declined addresses and machines that are remembered: each as many as a range may have.
const MOST: usize = 65_536;

impl Pool {
    /// Whether an address can be offered to this one.
    pub(crate) fn is_free(
        &self,
        mac: Mac,
        address: Ipv4Addr,
        lease: Option<&Lease>,
        view: &View,
        reclaims: Option<Instant>,
        now: Instant,
    ) -> bool {
        // Where nothing else is left, a machine that a manifest names goes before one of none that has not taken its offer yet.
        let goes_before = |whose: Mac| reclaims.is_some() && view.machine(mac).is_some() && view.machine(whose).is_none();
        let offered = self.offered.get(&address).is_some_and(|(whose, until)| *whose != mac && *until > now && !goes_before(*whose));
        let declined = self.declined.get(&address).is_some_and(|until| *until > now);
        let leased = lease.is_some_and(|lease| lease.mac != mac && !self.can_go(lease, view, reclaims, now));
        !offered && !declined && !leased
    }

    /// `reclaims`: since when this process would have heard of whoever has it.
    fn can_go(&self, lease: &Lease, view: &View, reclaims: Option<Instant>, now: Instant) -> bool {
        let Some(since) = reclaims.filter(|_| view.machine(lease.mac).is_none()) else { return false };
        let heard = self.heard.get(&lease.mac).copied().unwrap_or(since);
        now.saturating_duration_since(heard) > UNHEARD_FOR
    }

    pub(crate) fn offer(&mut self, mac: Mac, address: Ipv4Addr, now: Instant) {
        if self.offered.len() >= MOST {
            self.offered.retain(|_, (_, until)| *until > now);
        }
        self.offered.insert(address, (mac, now + OFFERED_FOR));
    }

    pub(crate) fn decline(&mut self, address: Ipv4Addr, now: Instant) {
        if self.declined.len() >= MOST {
            self.declined.retain(|_, until| *until > now);
        }
        self.declined.insert(address, now + DECLINED_FOR);
        self.offered.remove(&address);
    }

    pub(crate) fn heard(&mut self, mac: Mac, now: Instant) {
        if self.heard.len() >= MOST {
            self.heard.retain(|_, at| now.saturating_duration_since(*at) < UNHEARD_FOR);
        }
        self.heard.insert(mac, now);
    }
}
