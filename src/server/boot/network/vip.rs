//! An address that moves: it is put on an interface, announced, and taken away again.
//!
//! Leaves out: who is to have it (the lease says so). Invariants: whoever holds a `Vip` has put the address there and takes it away when it is
//! dropped; where the process is killed, the kernel takes it away within `LIVES`, since the address has a lifetime that only `Vip::hold` renews;
//! no other address of the machine goes with it. Shown by `tests/network/vip.rs`.

use std::io;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::libc;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::Mac;
use super::arp::{self, ArpError};
use super::interfaces::{self, Interface};
use super::netlink::{self, Before};

/// How long the address stays on a machine whose process was killed: as long as its lease (15 s), after which another one announces it.
const LIVES: Duration = Duration::from_secs(15);
/// Two renewals may be late.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// ANNOUNCE_NUM is 2, ANNOUNCE_INTERVAL 2 s (RFC 5227 section 1.1).
const ANNOUNCE_APART: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum VipError {
    #[error("the interfaces of this machine cannot be read")]
    Look { source: io::Error },
    #[error("no interface `{interface}` for {address}")]
    NoInterface { interface: String, address: Ipv4Net },
    #[error("no interface has an address in the subnet of {address}: one must be named")]
    NoSubnet { address: Ipv4Net },
    #[error("{address} may not be put on {interface}, or taken off: this needs CAP_NET_ADMIN")]
    MayNot { interface: String, address: Ipv4Net, source: io::Error },
    #[error("{address} cannot be put on {interface}, or taken off")]
    Address { interface: String, address: Ipv4Net, source: io::Error },
    #[error("{address} cannot be announced on {interface}")]
    Arp { interface: String, address: Ipv4Net, source: ArpError },
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claim {
    Held(Vip),
    /// Another machine answers for the address, or is about to take it. Nothing was changed.
    Conflict {
        by: Mac,
    },
}

/// An address that is on an interface as long as this lives.
#[derive(Debug)]
pub struct Vip {
    place: Place,
    /// Whether it was taken away already.
    is_gone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    index: u32,
    interface: String,
    /// As it is on the interface: see `choose`.
    address: Ipv4Net,
}

/// Asks on the link first, which takes 400 ms where nobody has the address, and puts it there then.
pub async fn claim(address: Ipv4Net, named: Option<&str>) -> Result<Claim, VipError> {
    let interfaces = interfaces::look().map_err(|source| VipError::Look { source })?;
    let place = choose(address, named, &interfaces)?;
    // One that was left here by a killed process would be asked for in vain: this machine does not answer itself.
    let is_here = interfaces.iter().any(|i| i.v4.iter().any(|has| has.addr() == address.addr()));
    if !is_here && let Some(by) = arp::probe(place.index, address.addr()).await.map_err(|source| place.arp(source))? {
        return Ok(Claim::Conflict { by });
    }
    Vip::put(address, named).map(Claim::Held)
}

impl Vip {
    /// Puts the address there and announces it once; `hold` goes on from there. One that is there already is taken over as it is; the same address
    /// on another interface is taken away.
    pub fn put(address: Ipv4Net, named: Option<&str>) -> Result<Vip, VipError> {
        let interfaces = interfaces::look().map_err(|source| VipError::Look { source })?;
        let place = choose(address, named, &interfaces)?;
        // Before the address: one that cannot be announced is of no use there.
        arp::is_allowed(place.index).map_err(|source| place.arp(source))?;
        for stale in elsewhere(&place, &interfaces) {
            tracing::warn!(interface = %stale.interface, address = %stale.address, "an address that was left there is taken away");
            take_off(&stale)?;
        }
        let mut vip = Vip { place, is_gone: true };
        if vip.renew()? == Before::Present {
            tracing::info!(interface = %vip.place.interface, address = %vip.place.address, "the address was there already and is taken over");
        }
        vip.is_gone = false;
        vip.announce();
        Ok(vip)
    }

    /// On which interface it is.
    pub fn interface(&self) -> &str {
        &self.place.interface
    }

    /// As it is there: with /32 where the interface has an address of its own in the subnet.
    pub fn address(&self) -> Ipv4Net {
        self.place.address
    }

    /// Keeps it there, announces it again two seconds after it was put there and whenever `again` is notified, takes it away when it is told to stop.
    /// An error: it is not there any more, since the interface is gone or may not be changed. Dropped, it takes the address away as well.
    pub async fn hold(self, again: &Notify, mut stop: watch::Receiver<bool>) -> Result<(), VipError> {
        let mut renewals = interval_at(Instant::now() + RENEW_EVERY, RENEW_EVERY);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = Some(Instant::now() + ANNOUNCE_APART);
        loop {
            let is_first = tokio::select! {
                biased;
                // A sender that is gone has stopped as well.
                _ = stop.wait_for(|stop| *stop) => return self.take_away(),
                () = again.notified() => true,
                () = sleep_until(second.unwrap_or_else(Instant::now)), if second.is_some() => false,
                _ = renewals.tick() => {
                    if self.renew()? == Before::Present {
                        continue;
                    }
                    tracing::warn!(interface = %self.place.interface, address = %self.place.address, "the address was gone and is put there again");
                    true
                }
            };
            self.announce();
            second = is_first.then(|| Instant::now() + ANNOUNCE_APART);
        }
    }

    /// Takes it away; that it is gone already is fine.
    pub fn take_away(mut self) -> Result<(), VipError> {
        self.is_gone = true;
        take_off(&self.place)
    }

    /// Puts it there for another `LIVES`.
    fn renew(&self) -> Result<Before, VipError> {
        let Place { index, address, .. } = self.place;
        netlink::put_address(index, address, Some(LIVES)).map_err(|source| self.place.address_error(source))
    }

    /// That nobody hears it, since the link is down, is no reason not to have the address.
    fn announce(&self) {
        if let Err(error) = arp::announce(self.place.index, self.place.address.addr()) {
            let Place { interface, address, .. } = &self.place;
            tracing::warn!(%interface, %address, error = %error, "an address is not announced");
        }
    }
}

impl Drop for Vip {
    fn drop(&mut self) {
        if !self.is_gone
            && let Err(error) = take_off(&self.place)
        {
            let Place { interface, address, .. } = &self.place;
            tracing::warn!(%interface, %address, error = %error, "an address is not taken away; it goes by itself within {} s", LIVES.as_secs());
        }
    }
}

impl Place {
    fn address_error(&self, source: io::Error) -> VipError {
        let (interface, address) = (self.interface.clone(), self.address);
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => VipError::MayNot { interface, address, source },
            _ => VipError::Address { interface, address, source },
        }
    }

    fn arp(&self, source: ArpError) -> VipError {
        VipError::Arp { interface: self.interface.clone(), address: self.address, source }
    }
}

/// On which interface: the one that is named, or that has the closest subnet around the address, or that has the address already.
///
/// With which prefix: as it is there already, or 32 where the interface has an address of its own in the subnet, or as it is given. With 32 it is
/// nobody's primary address, which would take the others of the subnet with it when it goes, and no source that the kernel would choose.
fn choose(address: Ipv4Net, named: Option<&str>, interfaces: &[Interface]) -> Result<Place, VipError> {
    let ip = address.addr();
    let around = |i: &Interface| i.v4.iter().filter(|has| has.addr() != ip && has.contains(&ip)).map(Ipv4Net::prefix_len).max();
    let there = |i: &Interface| i.v4.iter().find(|has| has.addr() == ip).copied();
    let interface = match named {
        Some(name) => {
            interfaces.iter().find(|i| i.name == name).ok_or_else(|| VipError::NoInterface { interface: name.to_owned(), address })?
        }
        None => interfaces
            .iter()
            .filter(|i| around(i).is_some())
            // The first of those that are equal.
            .rev()
            .max_by_key(|i| (around(i), i.is_up, i.has_carrier))
            .or_else(|| interfaces.iter().find(|i| there(i).is_some()))
            .ok_or(VipError::NoSubnet { address })?,
    };
    let address = match (there(interface), around(interface)) {
        (Some(there), _) => there,
        (None, Some(_)) => Ipv4Net::from(ip),
        (None, None) => address,
    };
    Ok(Place { index: interface.index, interface: interface.name.clone(), address })
}

/// Where else the same address is.
fn elsewhere(place: &Place, interfaces: &[Interface]) -> Vec<Place> {
    let is_stale = |at: &Place| at.address.addr() == place.address.addr() && at != place;
    let all = interfaces.iter().flat_map(|i| i.v4.iter().map(|has| Place { index: i.index, interface: i.name.clone(), address: *has }));
    all.filter(is_stale).collect()
}

/// Takes an address off, and puts those back that went with it: the kernel drops the secondary addresses of a subnet with the primary one unless
/// net.ipv4.conf.*.promote_secondaries says otherwise.
fn take_off(place: &Place) -> Result<(), VipError> {
    let before = addresses(place.index);
    netlink::remove_address(place.index, place.address).map_err(|source| place.address_error(source))?;
    // Where it cannot be read, nothing is missed.
    let (Ok(before), Ok(after)) = (before, addresses(place.index)) else { return Ok(()) };
    for lost in before.into_iter().filter(|was| was.addr() != place.address.addr() && !after.contains(was)) {
        tracing::warn!(interface = %place.interface, address = %lost, with = %place.address, "an address went with another one and is put back");
        netlink::put_address(place.index, lost, None).map_err(|source| Place { address: lost, ..place.clone() }.address_error(source))?;
    }
    Ok(())
}

/// None where the interface is gone.
fn addresses(index: u32) -> io::Result<Vec<Ipv4Net>> {
    Ok(interfaces::look()?.into_iter().find(|i| i.index == index).map(|i| i.v4).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, v4: &[&str]) -> Interface {
        let v4 = v4.iter().map(|net| net.parse().unwrap()).collect();
        Interface { index, name: format!("eth{index}"), mac: None, is_up: true, has_carrier: true, v4, link_local: None }
    }

    fn chosen(named: Option<&str>, interfaces: &[Interface]) -> String {
        match choose("10.0.0.9/24".parse().unwrap(), named, interfaces) {
            Ok(place) => format!("{} {}", place.interface, place.address),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_interface_is_the_named_one_or_that_of_the_closest_subnet_or_where_it_is_already() {
        let some =
            [interface(1, &["127.0.0.1/8"]), interface(2, &["10.1.1.1/8"]), interface(3, &["10.0.0.1/24"]), interface(4, &["10.0.0.2/24"])];
        assert_eq!(chosen(None, &some), "eth3 10.0.0.9/32");
        assert_eq!(chosen(Some("eth2"), &some), "eth2 10.0.0.9/32");
        assert_eq!(chosen(Some("eth1"), &some), "eth1 10.0.0.9/24");
        assert_eq!(chosen(Some("eth9"), &some), "no interface `eth9` for 10.0.0.9/24");
        assert_eq!(chosen(None, &some[..1]), "no interface has an address in the subnet of 10.0.0.9/24: one must be named");
        assert_eq!(chosen(None, &[interface(1, &[]), interface(2, &["10.0.0.9/25"])]), "eth2 10.0.0.9/25");
    }

    #[test]
    fn what_was_left_elsewhere_is_found() {
        let some = [interface(1, &["10.0.0.9/32"]), interface(2, &["10.0.0.1/24", "10.0.0.9/32", "10.0.0.9/24"])];
        let place = choose("10.0.0.9/24".parse().unwrap(), None, &some).unwrap();
        let stale: Vec<_> = elsewhere(&place, &some).into_iter().map(|p| format!("{} {}", p.interface, p.address)).collect();
        assert_eq!((place.address.prefix_len(), stale), (32, vec!["eth1 10.0.0.9/32".to_owned(), "eth2 10.0.0.9/24".to_owned()]));
    }
}
