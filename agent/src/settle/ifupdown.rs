//! Links as ifupdown reads them: interfaces(5), of Debian 12's version 0.8.41, with nothing but ifupdown and iproute2 in the image.
//!
//! VLANs and bonds are made by ip-link(8), so that neither the package vlan nor ifenslave is needed. A card is found by its MAC (its name is
//! udev's), and its stanza is that of a logical interface, `card-NAME`: VLANs on it are made by it, since only it knows the name. Leaves out:
//! writing; other implementations (busybox's knows no `mac/`, and leaves these cards alone). Invariant: the card of the root is never taken down by
//! `ifdown -a`. Shown by the tests below and, with ifupdown itself, by `tests/guests.py`.

use std::fmt::Write;
use std::net::IpAddr;

use embody_protocol::Addressing;

use super::links::{Links, Port, Vlan, parts};
use super::networkd::more_addresses;
use crate::dhcp::Lease;
use crate::network::Interface;

/// What is there already was made by a former `ifup`.
const MADE: &str = "ip link show dev $IFACE >/dev/null 2>&1 ||";

/// Of `interfaces.d/embody`. Without links that are to be set up it is what keeps the card of the root.
pub(super) fn text(links: &Links, card: &Interface, lease: &Lease, has_others: bool) -> String {
    let mut text = of_root(card, links.boot.as_ref().filter(|_| has_others), lease);
    if !has_others {
        return text;
    }
    for vlan in links.boot.iter().flat_map(|boot| &boot.vlans) {
        text += &on_top(vlan, &card.name);
    }
    for port in &links.others {
        text += &if port.is_bond { bond(port) } else { self::card(port) };
    }
    text
}

fn of_root(card: &Interface, boot: Option<&Port>, lease: &Lease) -> String {
    let name = &card.name;
    let mut text = format!("# The root of this system is read over this card.\niface {name} inet manual\n");
    let Some(boot) = boot else { return text };
    let addresses: Vec<&String> = more_addresses(boot, lease).collect();
    if boot.mtu.is_none() && addresses.is_empty() {
        return text;
    }
    text = format!("{text}    up ip link set dev {name} up\n");
    if let Some(mtu) = boot.mtu {
        let _ = writeln!(text, "    up ip link set dev {name} mtu {mtu}");
    }
    for address in addresses {
        let _ = writeln!(text, "    up ip address replace {address} dev {name}");
    }
    format!("auto {name}\nno-auto-down {name}\n{text}")
}

fn card(port: &Port) -> String {
    let (name, mac) = (format!("card-{}", port.name), port.macs.first().map(String::as_str).unwrap_or_default());
    // The first one with it: VLANs have the MAC of their card.
    let mut text = format!("\nauto mac/{mac}/1={name}\n");
    let mut more = String::new();
    for vlan in &port.vlans {
        let made = format!("ip link show dev {0} >/dev/null 2>&1 || ip link add link $IFACE name {0} type vlan id {1}", vlan.name, vlan.id);
        let _ = write!(more, "    up {made}\n    up ifup {0}\n    down ifdown {0} || true\n", vlan.name);
    }
    text += &stanzas(&name, &port.untagged, port.mtu, &more);
    for vlan in &port.vlans {
        let _ = write!(text, "\n# {}\n{}", vlan.network, stanzas(&vlan.name, &vlan.addressing, vlan.addressing.mtu, ""));
    }
    text
}

/// The members are found by their MACs, which they have back once the bond is gone.
fn bond(port: &Port) -> String {
    let mac = port.macs.first().map(String::as_str).unwrap_or_default();
    let members = port.macs.join("|");
    let more = format!(
        "    pre-up {MADE} ip link add dev $IFACE address {mac} type bond mode 802.3ad miimon 100 xmit_hash_policy layer3+4 min_links 1\n    \
         pre-up for card in /sys/class/net/*; do case $(cat $card/address) in {members}) if test -e $card/device; then \
         ip link set dev ${{card##*/}} down; ip link set dev ${{card##*/}} master $IFACE; fi;; esac; done\n    \
         post-down ip link del dev $IFACE\n"
    );
    let mut text = format!("\nauto {0}\n{1}", port.name, stanzas(&port.name, &port.untagged, port.mtu, &more));
    for vlan in &port.vlans {
        text += &on_top(vlan, &port.name);
    }
    text
}

/// A VLAN on an interface whose name is known.
fn on_top(vlan: &Vlan, below: &str) -> String {
    let more = format!("    pre-up {MADE} ip link add link {below} name $IFACE type vlan id {}\n", vlan.id);
    format!("\n# {}\nauto {}\n{}", vlan.network, vlan.name, stanzas(&vlan.name, &vlan.addressing, vlan.addressing.mtu, &more))
}

/// One for each address: the first has everything else, and what is to be run.
fn stanzas(name: &str, said: &Addressing, mtu: Option<u16>, more: &str) -> String {
    let mut first = more.to_owned();
    if let Some(mtu) = mtu {
        let _ = writeln!(first, "    mtu {mtu}");
    }
    if !said.dns.is_empty() {
        let servers: Vec<String> = said.dns.iter().map(ToString::to_string).collect();
        let _ = writeln!(first, "    dns-nameservers {}", servers.join(" "));
    }
    if let Some(domain) = &said.domain {
        let _ = writeln!(first, "    dns-search {domain}");
    }
    let metric = if said.metric > 0 { format!("    metric {}\n", said.metric) } else { String::new() };
    if said.addresses.is_empty() {
        let (method, metric) = if said.dhcp { ("dhcp", metric.as_str()) } else { ("manual", "") };
        return format!("iface {name} inet {method}\n{first}{metric}");
    }
    let mut text = String::new();
    let mut gateway = said.gateway;
    for (address, is_first) in said.addresses.iter().zip(std::iter::once(true).chain(std::iter::repeat(false))) {
        let is_v4 = parts(address).is_some_and(|(address, _)| address.is_ipv4());
        let _ = write!(text, "iface {name} {} static\n    address {address}\n", if is_v4 { "inet" } else { "inet6" });
        if let Some(router) = gateway.take_if(|gateway: &mut IpAddr| gateway.is_ipv4() == is_v4) {
            let _ = write!(text, "    gateway {router}\n{metric}");
        }
        if is_first {
            text += &first;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::networkd::tests::everything;
    use super::*;

    fn all(has_others: bool) -> String {
        let card = Interface { name: "eth0".to_owned(), index: 2, mac: super::super::links::tests::BOOT.to_owned() };
        text(&everything(), &card, &Lease::at(Ipv4Addr::new(10, 0, 0, 15), 24), has_others)
    }

    #[test]
    fn the_card_of_the_root_is_kept() {
        assert_eq!(all(false), "# The root of this system is read over this card.\niface eth0 inet manual\n");
        let begin = "auto eth0\nno-auto-down eth0\n# The root of this system is read over this card.\niface eth0 inet manual\n    \
                     up ip link set dev eth0 up\n    up ip link set dev eth0 mtu 9000\n    up ip address replace 10.0.9.1/24 dev eth0\n\n\
                     # backup\nauto san.40\niface san.40 inet static\n    address 10.1.40.21/24\n    \
                     pre-up ip link show dev $IFACE >/dev/null 2>&1 || ip link add link eth0 name $IFACE type vlan id 40\n";
        assert!(all(true).starts_with(begin), "{}", all(true));
    }

    #[test]
    fn a_card_is_found_by_its_mac_and_makes_its_vlans() {
        let text = "\nauto mac/52:54:00:00:00:02/1=card-front\niface card-front inet static\n    address 10.1.20.21/24\n    gateway 10.1.20.1\n    \
                    metric 50\n    \
                    up ip link show dev front.30 >/dev/null 2>&1 || ip link add link $IFACE name front.30 type vlan id 30\n    \
                    up ifup front.30\n    down ifdown front.30 || true\n    mtu 9000\n    dns-nameservers 10.1.0.53 fd00::53\n    \
                    dns-search rack.example\niface card-front inet6 static\n    address fd00::21/64\n\n\
                    # storage\niface front.30 inet static\n    address 10.1.30.21/24\n    mtu 9000\n";
        assert!(all(true).contains(text), "{}", all(true));
    }

    #[test]
    fn a_bond_is_made_without_ifenslave() {
        let text = "\nauto up\niface up inet manual\n    pre-up ip link show dev $IFACE >/dev/null 2>&1 || ip link add dev $IFACE \
                    address 52:54:00:00:00:03 type bond mode 802.3ad miimon 100 xmit_hash_policy layer3+4 min_links 1\n    \
                    pre-up for card in /sys/class/net/*; do case $(cat $card/address) in 52:54:00:00:00:03|52:54:00:00:00:04) \
                    if test -e $card/device; then ip link set dev ${card##*/} down; ip link set dev ${card##*/} master $IFACE; fi;; esac; done\n    \
                    post-down ip link del dev $IFACE\n\n# web\nauto up.5\niface up.5 inet dhcp\n    \
                    pre-up ip link show dev $IFACE >/dev/null 2>&1 || ip link add link up name $IFACE type vlan id 5\n    metric 7\n";
        assert!(all(true).ends_with(text), "{}", all(true));
    }
}
