//! Links as systemd-networkd reads them: systemd.network(5) and systemd.netdev(5), of Debian 12's version 252.
//!
//! Leaves out: writing. Invariants: cards are known by what does not change, their MAC (of a member of a bond the permanent one: it has the bond's
//! afterwards) and keep their names; a restart of the service and its end at poweroff leave every address where it is. Shown by the tests below and,
//! with systemd-networkd itself, by `tests/guests.py`.

use std::fmt::Write;

use embody_protocol::Addressing;

use super::links::{Links, Port, Vlan, parts};
use crate::dhcp::Lease;
use crate::network::Interface;

const DIRECTORY: &str = "/run/systemd/network";
const HEAD: &str = "# Written by embody-agent at this start.\n";

/// Paths and texts for every link but the card of the root, whose VLANs are among them.
pub(super) fn files(links: &Links) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for vlan in links.boot.iter().flat_map(|boot| &boot.vlans) {
        self::vlan(vlan, &mut all);
    }
    for port in &links.others {
        match port.macs.as_slice() {
            [mac] if !port.is_bond => {
                let found = format!("MACAddress={mac}\nType=ether");
                all.push((path(&port.name, "network"), network(port, &found)));
            }
            macs => bond(port, macs, &mut all),
        }
        port.vlans.iter().for_each(|vlan| self::vlan(vlan, &mut all));
    }
    all
}

fn path(name: &str, kind: &str) -> String {
    format!("{DIRECTORY}/20-embody-{name}.{kind}")
}

/// The card of the root goes on with the lease of the initrd: same client id, same address, and never without it (`KeepConfiguration=yes`, of version
/// 243; `CriticalConnection=` is its older name, and both together are a warning at each start). What the exchange says comes on top.
pub(super) fn of_root(card: &Interface, lease: &Lease, boot: Option<&Port>, way_to_root: Option<&str>) -> String {
    let mut text = format!("# The root of this system is read over this card.\n[Match]\nMACAddress={}\nType=ether\n", card.mac);
    if let Some(mtu) = boot.and_then(|boot| boot.mtu) {
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
    text += "\n[Network]\nDHCP=ipv4\nKeepConfiguration=yes\n";
    if let Some(boot) = boot {
        for address in more_addresses(boot, lease) {
            let _ = writeln!(text, "Address={address}");
        }
        text += &names(&boot.untagged);
        text += &stacked(&boot.vlans);
    }
    text += "\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n";
    text + way_to_root.unwrap_or_default()
}

/// Those that DHCP did not give.
pub(super) fn more_addresses<'a>(boot: &'a Port, lease: &Lease) -> impl Iterator<Item = &'a String> {
    let leased = lease.address;
    boot.untagged.addresses.iter().filter(move |address| parts(address).is_some_and(|(address, _)| address != leased))
}

/// A way to the server of the root that stays when another link has the way to everywhere else.
pub(super) fn route(to: std::net::Ipv4Addr, router: std::net::Ipv4Addr) -> String {
    format!("\n[Route]\nDestination={to}/32\nGateway={router}\n")
}

fn network(port: &Port, found: &str) -> String {
    let mut text = format!("{HEAD}[Match]\n{found}\n");
    text += &addressed(&port.untagged, port.mtu, &port.name, &port.vlans);
    text
}

fn addressed(said: &Addressing, mtu: Option<u16>, about: &str, vlans: &[Vlan]) -> String {
    let mut text = String::new();
    if let Some(mtu) = mtu {
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
    let _ = write!(text, "\n[Network]\nDescription={about}\n");
    let is_bare = said.addresses.is_empty() && !said.dhcp;
    if is_bare {
        // Only what is on it has addresses.
        text += "LinkLocalAddressing=no\n";
    } else {
        text += if said.dhcp { "DHCP=ipv4\nKeepConfiguration=dhcp-on-stop\n" } else { "KeepConfiguration=static\n" };
    }
    for address in &said.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    text += &names(said);
    text += &stacked(vlans);
    let metric = |name: &str| if said.metric > 0 { format!("{name}={}\n", said.metric) } else { String::new() };
    if said.dhcp {
        text += "\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n";
        text += &metric("RouteMetric");
    }
    if let Some(gateway) = said.gateway {
        let _ = write!(text, "\n[Route]\nGateway={gateway}\n");
        text += &metric("Metric");
    }
    text
}

fn names(said: &Addressing) -> String {
    let servers = said.dns.iter().map(|server| format!("DNS={server}\n"));
    let domain = said.domain.iter().map(|domain| format!("Domains={domain}\n"));
    servers.chain(domain).collect()
}

fn stacked(vlans: &[Vlan]) -> String {
    vlans.iter().map(|vlan| format!("VLAN={}\n", vlan.name)).collect()
}

fn vlan(vlan: &Vlan, all: &mut Vec<(String, String)>) {
    let device = format!("{HEAD}[NetDev]\nName={}\nKind=vlan\n\n[VLAN]\nId={}\n", vlan.name, vlan.id);
    let mut network = format!("{HEAD}[Match]\nName={}\n", vlan.name);
    network += &addressed(&vlan.addressing, vlan.addressing.mtu, &vlan.network, &[]);
    all.push((path(&vlan.name, "netdev"), device));
    all.push((path(&vlan.name, "network"), network));
}

/// LACP at the slow rate, which every switch speaks: a cable that is pulled is seen by MII. Its MAC is that of the first member, which the controller
/// knows.
fn bond(port: &Port, macs: &[String], all: &mut Vec<(String, String)>) {
    let name = &port.name;
    let mac = macs.first().map(|mac| format!("MACAddress={mac}\n")).unwrap_or_default();
    let device = format!(
        "{HEAD}[NetDev]\nName={name}\nKind=bond\n{mac}\n[Bond]\nMode=802.3ad\nMIIMonitorSec=100ms\nTransmitHashPolicy=layer3+4\nMinLinks=1\n"
    );
    all.push((path(&format!("{name}.bond"), "netdev"), device));
    all.push((path(&format!("{name}.bond"), "network"), network(port, &format!("Name={name}"))));
    for (mac, n) in macs.iter().zip(1..) {
        let member =
            format!("{HEAD}[Match]\nPermanentMACAddress={mac}\nType=ether\n\n[Network]\nDescription={name}, member {n}\nBond={name}\n");
        all.push((path(&format!("{name}.bond{n}"), "network"), member));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::super::links::ready;
    use super::super::links::tests::{BOOT, at, link, tagged};
    use super::*;

    fn text_of<'a>(files: &'a [(String, String)], name: &str) -> &'a str {
        let path = format!("/run/systemd/network/20-embody-{name}");
        &files.iter().find(|(found, _)| *found == path).unwrap_or_else(|| panic!("{name} of {files:?}")).1
    }

    pub fn everything() -> Links {
        let front = Addressing {
            gateway: Some("10.1.20.1".parse().unwrap()),
            metric: 50,
            mtu: Some(1500),
            dns: vec!["10.1.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            domain: Some("rack.example".to_owned()),
            addresses: vec!["10.1.20.21/24".to_owned(), "fd00::21/64".to_owned()],
            dhcp: false,
        };
        let large = Addressing { mtu: Some(9000), ..at("10.1.30.21/24") };
        let links = [
            link(
                "san",
                &[BOOT],
                Some(Addressing { mtu: Some(9000), addresses: vec!["10.0.0.15/24".into(), "10.0.9.1/24".into()], ..Addressing::default() }),
                vec![tagged(40, "backup", at("10.1.40.21/24"))],
            ),
            link("front", &["52:54:00:00:00:02"], Some(front), vec![tagged(30, "storage", large)]),
            link(
                "up",
                &["52:54:00:00:00:03", "52:54:00:00:00:04"],
                None,
                vec![tagged(5, "web", Addressing { dhcp: true, metric: 7, ..Addressing::default() })],
            ),
        ];
        ready(&links, BOOT, &[]).unwrap()
    }

    #[test]
    fn a_card_with_a_vlan() {
        let files = files(&everything());
        assert_eq!(
            text_of(&files, "front.network"),
            "# Written by embody-agent at this start.\n[Match]\nMACAddress=52:54:00:00:00:02\nType=ether\n\n[Link]\nMTUBytes=9000\n\n\
             [Network]\nDescription=front\nKeepConfiguration=static\nAddress=10.1.20.21/24\nAddress=fd00::21/64\nDNS=10.1.0.53\nDNS=fd00::53\n\
             Domains=rack.example\nVLAN=front.30\n\n[Route]\nGateway=10.1.20.1\nMetric=50\n"
        );
        assert_eq!(
            text_of(&files, "front.30.netdev"),
            "# Written by embody-agent at this start.\n[NetDev]\nName=front.30\nKind=vlan\n\n[VLAN]\nId=30\n"
        );
        assert_eq!(
            text_of(&files, "front.30.network"),
            "# Written by embody-agent at this start.\n[Match]\nName=front.30\n\n[Link]\nMTUBytes=9000\n\n\
             [Network]\nDescription=storage\nKeepConfiguration=static\nAddress=10.1.30.21/24\n"
        );
    }

    #[test]
    fn a_bond_with_dhcp_on_a_vlan() {
        let files = files(&everything());
        assert_eq!(
            text_of(&files, "up.bond.netdev"),
            "# Written by embody-agent at this start.\n[NetDev]\nName=up\nKind=bond\nMACAddress=52:54:00:00:00:03\n\n\
             [Bond]\nMode=802.3ad\nMIIMonitorSec=100ms\nTransmitHashPolicy=layer3+4\nMinLinks=1\n"
        );
        assert_eq!(
            text_of(&files, "up.bond.network"),
            "# Written by embody-agent at this start.\n[Match]\nName=up\n\n[Network]\nDescription=up\nLinkLocalAddressing=no\nVLAN=up.5\n"
        );
        assert_eq!(
            text_of(&files, "up.bond2.network"),
            "# Written by embody-agent at this start.\n[Match]\nPermanentMACAddress=52:54:00:00:00:04\nType=ether\n\n\
             [Network]\nDescription=up, member 2\nBond=up\n"
        );
        assert_eq!(
            text_of(&files, "up.5.network"),
            "# Written by embody-agent at this start.\n[Match]\nName=up.5\n\n[Network]\nDescription=web\nDHCP=ipv4\nKeepConfiguration=dhcp-on-stop\n\n\
             [DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nRouteMetric=7\n"
        );
    }

    #[test]
    fn the_card_of_the_root_keeps_what_the_start_gave_it() {
        let card = Interface { name: "eth0".to_owned(), index: 2, mac: BOOT.to_owned() };
        let lease = Lease::at(Ipv4Addr::new(10, 0, 0, 15), 24);
        let plain = "# The root of this system is read over this card.\n[Match]\nMACAddress=52:54:00:00:00:01\nType=ether\n\n\
                     [Network]\nDHCP=ipv4\nKeepConfiguration=yes\n\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n";
        assert_eq!(of_root(&card, &lease, None, None), plain);
        let links = everything();
        let way = route(Ipv4Addr::new(10, 5, 0, 1), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(
            of_root(&card, &lease, links.boot.as_ref(), Some(&way)),
            plain.replace("ether\n\n", "ether\n\n[Link]\nMTUBytes=9000\n\n").replace("=yes\n", "=yes\nAddress=10.0.9.1/24\nVLAN=san.40\n")
                + "\n[Route]\nDestination=10.5.0.1/32\nGateway=10.0.0.1\n"
        );
        assert!(text_of(&files(&links), "san.40.network").contains("Address=10.1.40.21/24\n"));
        assert!(files(&links).iter().all(|(path, _)| !path.contains("embody-san.n")));
    }
}
