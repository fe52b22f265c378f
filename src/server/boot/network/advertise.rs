//! Tells machines that boot that there is no IPv6 router, where there is none: iPXE waits 16 s for a router advertisement otherwise.
//!
//! Leaves out: being a router. An advertisement has a router lifetime of 0 and no prefix, so that nobody gets an address or a route by it.
//! Invariants: nothing is said while another router was heard within 30 minutes, nor before one had the time to answer; a flood of solicitations
//! costs a bounded number of answers. Shown by `tests/network/advertise.rs`.

use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use nix::libc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::icmpv6::{self, ALL_NODES, ALL_ROUTERS, Door, Heard, Refused};
use super::interfaces::Interface;

/// The longest interval between the advertisements of a router: RFC 4861 section 6.2.1, MaxRtrAdvInterval, at most 1,800 s.
const ANOTHER_SILENCES_FOR: Duration = Duration::from_secs(1_800);
/// A router answers a solicitation within 500 ms (RFC 4861 section 10, MAX_RA_DELAY_TIME). So long is listened first.
const LISTEN_FIRST: Duration = Duration::from_secs(1);
/// RFC 4861 section 10, MIN_DELAY_BETWEEN_RAS: of those to all nodes.
const MULTICAST_APART: Duration = Duration::from_secs(3);
/// Each answer may cost a neighbour solicitation. A rack has some fifty machines, which ask three times and more.
const UNICAST_PER_SECOND: u32 = 50;
/// Duplicate address detection takes one to two seconds (RFC 4862 section 5.1, RFC 4861 section 10).
const DETECTION_TAKES: Duration = Duration::from_secs(4);
const DETECTION_ASKED_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum AdvertiseError {
    #[error("{interface} has no IPv6 link-local address: IPv6 is disabled there, or it is not up")]
    NoLinkLocal { interface: String },
    #[error("the link-local address {address} of {interface} cannot be used: it is gone, or another machine has it")]
    NotUsable { interface: String, address: Ipv6Addr, source: io::Error },
    #[error("this machine has no IPv6")]
    NoIpv6 { source: io::Error },
    #[error("router advertisements on {interface} need CAP_NET_RAW")]
    MayNot { interface: String, source: io::Error },
    #[error("{interface} is gone, or not up")]
    Gone { interface: String, source: io::Error },
    #[error("router advertisements on {interface} cannot be sent or heard")]
    Io { interface: String, source: io::Error },
}

/// Answers until it is told to stop, or the interface is no longer what it was. Dropping it at any time leaves nothing behind.
///
/// Whoever calls starts it anew where the interface has another index or link-local address: a socket of an interface that was deleted hears
/// nothing, and says nothing of it.
pub async fn serve(interface: &Interface, mut stop: watch::Receiver<bool>) -> Result<(), AdvertiseError> {
    let door = tokio::select! {
        biased;
        // A sender that is gone has stopped as well.
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        door = open(interface) => door?,
    };
    let name = &interface.name;
    // A router that is there answers, and is heard.
    send(&door, name, &icmpv6::solicitation(interface.mac), ALL_ROUTERS)?;
    let answer = icmpv6::advertisement(interface.mac);
    let mut link = Link::new(Instant::now());
    loop {
        let due = link.multicast_due;
        let to = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => link.multicasts(Instant::now()),
            heard = door.receive() => {
                let heard = heard.map_err(|source| AdvertiseError::Io { interface: name.clone(), source })?;
                link.hears(heard, name, Instant::now())
            }
        };
        if let Some(to) = to {
            send(&door, name, &answer, to)?;
        }
    }
}

/// With the time that duplicate address detection takes.
async fn open(interface: &Interface) -> Result<Door, AdvertiseError> {
    let name = || interface.name.clone();
    let Some(address) = interface.link_local else { return Err(AdvertiseError::NoLinkLocal { interface: name() }) };
    let until = Instant::now() + DETECTION_TAKES;
    loop {
        match Door::open(interface, address) {
            Ok(door) => return Ok(door),
            Err(Refused::Tentative(_)) if Instant::now() < until => sleep(DETECTION_ASKED_EVERY).await,
            Err(Refused::Tentative(source)) => return Err(AdvertiseError::NotUsable { interface: name(), address, source }),
            Err(Refused::NoIpv6(source)) => return Err(AdvertiseError::NoIpv6 { source }),
            Err(Refused::MayNot(source)) => return Err(AdvertiseError::MayNot { interface: name(), source }),
            Err(Refused::Other(source)) => return Err(fault(&interface.name, source)),
        }
    }
}

/// One answer that cannot be sent is one that was lost, unless no other one could be sent either.
fn send(door: &Door, interface: &str, message: &[u8], to: Ipv6Addr) -> Result<(), AdvertiseError> {
    match door.send(message, to).map_err(|source| fault(interface, source)) {
        Err(AdvertiseError::Io { source, .. }) => {
            tracing::debug!(interface, %to, error = %source, "a router advertisement is not sent");
            Ok(())
        }
        other => other,
    }
}

fn fault(interface: &str, source: io::Error) -> AdvertiseError {
    let interface = interface.to_owned();
    match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO | libc::ENETDOWN | libc::EADDRNOTAVAIL) => AdvertiseError::Gone { interface, source },
        _ => AdvertiseError::Io { interface, source },
    }
}

/// What is known of a link: who is a router there, and what was said.
#[derive(Debug)]
struct Link {
    listens_until: Instant,
    /// Another router, and how long it is taken to be there.
    router: Option<(Ipv6Addr, Instant)>,
    multicast_due: Option<Instant>,
    multicast_allowed: Instant,
    /// How many were answered since.
    second: (Instant, u32),
}

impl Link {
    fn new(now: Instant) -> Link {
        Link { listens_until: now + LISTEN_FIRST, router: None, multicast_due: None, multicast_allowed: now, second: (now, 0) }
    }

    /// Who is to be answered at once.
    fn hears(&mut self, heard: Heard, interface: &str, now: Instant) -> Option<Ipv6Addr> {
        match heard {
            // Another one that is no router either, such as another one of us.
            Heard::Advertisement { lifetime_s: 0, .. } => None,
            Heard::Advertisement { from, .. } => {
                if self.router.is_none() {
                    tracing::info!(interface, router = %from, "an IPv6 router is heard: machines that boot are left to it");
                }
                self.router = Some((from, now + ANOTHER_SILENCES_FOR));
                self.multicast_due = None;
                None
            }
            Heard::Solicitation { from } => self.answers(from, interface, now),
        }
    }

    fn answers(&mut self, from: Ipv6Addr, interface: &str, now: Instant) -> Option<Ipv6Addr> {
        if let Some((router, until)) = self.router {
            if now < until {
                return None;
            }
            tracing::info!(interface, %router, "an IPv6 router was not heard for half an hour: machines that boot are told that there is none");
            self.router = None;
        }
        let listens = now < self.listens_until;
        if listens || from.is_unspecified() {
            // Later is when all may be told; more that ask meanwhile are told by the same.
            self.multicast_due.get_or_insert(now.max(self.multicast_allowed).max(self.listens_until));
            return None;
        }
        if now.saturating_duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        self.second.1 += 1;
        Some(from).filter(|_| self.second.1 <= UNICAST_PER_SECOND)
    }

    /// All nodes are told.
    fn multicasts(&mut self, now: Instant) -> Option<Ipv6Addr> {
        self.multicast_due = None;
        self.multicast_allowed = now + MULTICAST_APART;
        Some(ALL_NODES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const ASKS: Heard = Heard::Solicitation { from: HOST };
    const NAMELESS: Heard = Heard::Solicitation { from: Ipv6Addr::UNSPECIFIED };

    fn routes(lifetime_s: u16) -> Heard {
        Heard::Advertisement { from: ROUTER, lifetime_s }
    }

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_router_silences_for_half_an_hour() {
        let start = Instant::now();
        let mut link = Link::new(start);
        assert_eq!(link.hears(ASKS, "eth0", after(start, 1.0)), Some(HOST));
        assert_eq!(link.hears(routes(0), "eth0", after(start, 1.5)), None);
        assert_eq!(link.hears(ASKS, "eth0", after(start, 2.0)), Some(HOST));
        assert_eq!(link.hears(NAMELESS, "eth0", after(start, 2.0)), None);
        assert_eq!(link.multicast_due, Some(after(start, 2.0)));
        assert_eq!(link.hears(routes(1_800), "eth0", after(start, 2.1)), None);
        assert_eq!(link.multicast_due, None);
        assert_eq!(link.hears(ASKS, "eth0", after(start, 1_802.0)), None);
        assert_eq!(link.hears(ASKS, "eth0", after(start, 1_802.1)), Some(HOST));
    }

    #[test]
    fn who_asks_before_a_router_could_answer_is_told_with_all_others() {
        let start = Instant::now();
        let mut link = Link::new(start);
        assert_eq!(link.hears(ASKS, "eth0", after(start, 0.1)), None);
        assert_eq!(link.hears(ASKS, "eth0", after(start, 0.9)), None);
        assert_eq!(link.multicast_due, Some(after(start, 1.0)));
        assert_eq!(link.multicasts(after(start, 1.0)), Some(ALL_NODES));
        assert_eq!(link.hears(NAMELESS, "eth0", after(start, 1.1)), None);
        assert_eq!(link.multicast_due, Some(after(start, 4.0)));
    }

    #[test]
    fn a_flood_is_answered_within_bounds() {
        let start = Instant::now();
        let mut link = Link::new(start);
        let answered = |link: &mut Link, from: f64| {
            (0..1_000).filter(|n| link.hears(ASKS, "eth0", after(start, from + f64::from(*n) / 1e3)).is_some()).count()
        };
        assert_eq!(answered(&mut link, 1.0), 50);
        assert_eq!(answered(&mut link, 2.0), 50);
    }
}
