//! The network of a start: the card that the firmware booted from, with the address that DHCP gives it.
//!
//! Leaves out: every other card, which is the system's. Invariant: of two interfaces with the MAC (a virtual function and what it stands behind) the
//! one is taken that addresses belong to. Shown by the tests below and `tests/guests.py`.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::command_line::{CommandLine, Mac, WrongParameter, written};
use crate::console::say;
use crate::dhcp::{self, DhcpError, Lease};
use crate::modules::Modules;
use crate::netlink::{self, Route};

const CARD_WITHIN: Duration = Duration::from_secs(60);
const CARRIER_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);
/// linux/if_arp.h, ARPHRD_ETHER.
const ETHERNET: &str = "1";
const INTERFACES: &str = "/sys/class/net";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub mac: String,
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Parameter(#[from] WrongParameter),
    #[error("no card has the MAC {mac} of BOOTIF after {} s; there are {found}: is its driver in this initrd?", CARD_WITHIN.as_secs())]
    NoCard { mac: String, found: String },
    #[error("the command line has no BOOTIF, and there are {found} after {} s: expected one Ethernet card", CARD_WITHIN.as_secs())]
    WhichCard { found: String },
    #[error("{interface} has no carrier after {} s: is its cable plugged in, and its switch port on?", CARRIER_WITHIN.as_secs())]
    NoCarrier { interface: String },
    #[error("{interface} cannot be set up: {what}")]
    Set { interface: String, what: &'static str, source: io::Error },
    #[error(transparent)]
    Dhcp(#[from] DhcpError),
}

pub fn up(line: &CommandLine, modules: &mut Modules) -> Result<(Interface, Lease), NetworkError> {
    let set = |interface: &str, what| {
        let interface = interface.to_owned();
        move |source| NetworkError::Set { interface, what, source }
    };
    match interfaces(Path::new(INTERFACES)).into_iter().find(|(_, kind)| *kind == "loopback") {
        Some((lo, _)) => netlink::link_up(lo.index).map_err(set("lo", "up"))?,
        None => say("there is no loopback interface"),
    }
    let card = card(line.boot_mac()?, modules)?;
    netlink::link_up(card.index).map_err(set(&card.name, "up"))?;
    await_carrier(&card)?;
    say(&format!("{} with MAC {} has a carrier", card.name, card.mac));
    let mac = line.boot_mac()?.or_else(|| mac_of(&card)).unwrap_or_default();
    let lease = dhcp::lease(&card.name, mac, line.hostname().ok().flatten(), line.former_address())?;
    if let Some(mtu) = lease.mtu {
        // A card that cannot is used as it is.
        if let Err(error) = netlink::set_mtu(card.index, mtu) {
            say(&format!("{}: the MTU {mtu} of DHCP is not taken: {error}", card.name));
        }
    }
    netlink::put_address(card.index, lease.address, lease.prefix).map_err(set(&card.name, "its address"))?;
    for route in &lease.routes {
        netlink::put_route(card.index, *route).map_err(set(&card.name, "its route"))?;
    }
    say(&format!("{} has {}/{}{}", card.name, lease.address, lease.prefix, through(&lease.routes)));
    Ok((card, lease))
}

fn through(routes: &[Route]) -> String {
    let default = routes.iter().find(|route| route.prefix == 0).and_then(|route| route.router);
    default.map_or_else(|| ", and no router".to_owned(), |router| format!(" behind {router}"))
}

/// Drivers are looked for all the while: a bus may appear behind another one.
fn card(mac: Option<Mac>, modules: &mut Modules) -> Result<Interface, NetworkError> {
    let begun = Instant::now();
    let mut again = LOOK_AGAIN;
    loop {
        modules.coldplug();
        let mut all = interfaces(Path::new(INTERFACES));
        all.retain(|(_, kind)| *kind == "ethernet");
        let found: Vec<Interface> = all.into_iter().map(|(interface, _)| interface).collect();
        let is_late = begun.elapsed() > CARD_WITHIN;
        let shown = || match found.as_slice() {
            [] => "no Ethernet cards at all".to_owned(),
            found => found.iter().map(|card| format!("{} ({})", card.name, card.mac)).collect::<Vec<_>>().join(", "),
        };
        match (mac, found.as_slice()) {
            (Some(mac), found) => {
                let mac = written(mac);
                match found.iter().find(|card| card.mac == mac) {
                    Some(card) => return Ok(card.clone()),
                    None if is_late => return Err(NetworkError::NoCard { mac, found: shown() }),
                    None => {}
                }
            }
            // Others may be on their way: a machine with several has a BOOTIF.
            (None, [card]) if begun.elapsed() > Duration::from_secs(2) => return Ok(card.clone()),
            (None, _) if is_late => return Err(NetworkError::WhichCard { found: shown() }),
            (None, _) => {}
        }
        sleep(again);
        again = (again * 2).min(LOOK_AGAIN_MAX);
    }
}

fn await_carrier(card: &Interface) -> Result<(), NetworkError> {
    let begun = Instant::now();
    let path = PathBuf::from(INTERFACES).join(&card.name).join("carrier");
    // Reading it is an error while the interface is down.
    while word(&path).as_deref() != Some("1") {
        if begun.elapsed() > CARRIER_WITHIN {
            return Err(NetworkError::NoCarrier { interface: card.name.clone() });
        }
        sleep(LOOK_AGAIN);
    }
    Ok(())
}

fn mac_of(card: &Interface) -> Option<Mac> {
    let parts: Vec<u8> = card.mac.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    parts.try_into().ok()
}

/// Of all interfaces.
pub fn names() -> Vec<String> {
    interfaces(Path::new(INTERFACES)).into_iter().map(|(interface, _)| interface.name).collect()
}

/// Each interface, and whether it is a loopback, an Ethernet card, or something else.
fn interfaces(directory: &Path) -> Vec<(Interface, &'static str)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut all: Vec<_> = entries.filter_map(|entry| described(&entry.ok()?.path())).collect();
    all.sort_by_key(|(interface, _)| interface.index);
    all
}

fn described(path: &Path) -> Option<(Interface, &'static str)> {
    let name = path.file_name()?.to_str()?.to_owned();
    let index = word(&path.join("ifindex"))?.parse().ok()?;
    let mac = word(&path.join("address")).unwrap_or_default();
    let kind = match word(&path.join("type"))?.as_str() {
        "772" => "loopback",
        // A card has a device behind it; what has a master (a virtual function behind hv_netvsc) has no address of its own.
        ETHERNET if path.join("device").exists() && !path.join("master").exists() => "ethernet",
        _ => "other",
    };
    Some((Interface { name, index, mac }, kind))
}

fn word(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_function_with_the_same_mac_is_not_the_card() {
        let root = tempfile::tempdir().unwrap();
        for (name, index, kind, inside) in [("lo", 1, "772", ""), ("eth1", 3, "1", "master"), ("eth0", 2, "1", ""), ("bond0", 4, "1", "-")]
        {
            let at = root.path().join(name);
            std::fs::create_dir_all(&at).unwrap();
            for (file, text) in [("ifindex", index.to_string()), ("type", kind.to_owned()), ("address", "52:54:00:00:00:01".to_owned())] {
                std::fs::write(at.join(file), format!("{text}\n")).unwrap();
            }
            if inside != "-" {
                std::fs::create_dir(at.join("device")).unwrap();
            }
            if inside == "master" {
                std::fs::create_dir(at.join("master")).unwrap();
            }
        }
        let found: Vec<_> = interfaces(root.path()).into_iter().map(|(i, kind)| (i.name, kind)).collect();
        let expected = [("lo", "loopback"), ("eth0", "ethernet"), ("eth1", "other"), ("bond0", "other")];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }
}
