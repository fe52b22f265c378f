//! The links of a system, as the controller says them, made ready for whichever service sets them up (`networkd`, `ifupdown`).
//!
//! Leaves out: how. Invariants: what comes out is fit to stand in a configuration file (no text of the controller's passes that was not looked at), each
//! interface that is made has a name of its own that Linux takes, and the card that the root is read over is a link of its own kind that keeps what the
//! start gave it, whatever else is said. Shown by the tests below.

use std::collections::BTreeSet;
use std::net::IpAddr;

use embody_protocol::{Addressing, Link};

use super::SettleError;

/// linux/if.h: IFNAMSIZ is 16, with the zero at the end.
const NAME: usize = 15;
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
const MTUS: std::ops::RangeInclusive<u16> = 576..=9216;
/// RFC 1035, section 2.3.4.
const DOMAIN: usize = 255;

#[derive(Debug, Default)]
pub(super) struct Links {
    /// The card of the root.
    pub boot: Option<Port>,
    pub others: Vec<Port>,
    /// What is not as it was said, and why.
    pub remarks: Vec<String>,
}

/// A card or, of several, a bond.
#[derive(Debug, Clone)]
pub(super) struct Port {
    /// Of a bond the interface's; of a card the persona's name for it, none twice.
    pub name: String,
    pub macs: Vec<String>,
    pub is_bond: bool,
    /// No VLAN has a larger one than what it is on.
    pub mtu: Option<u16>,
    pub untagged: Addressing,
    pub vlans: Vec<Vlan>,
}

#[derive(Debug, Clone)]
pub(super) struct Vlan {
    pub name: String,
    pub id: u16,
    pub network: String,
    pub addressing: Addressing,
}

/// `boot_mac` is that of the card of the root; `taken` are names of interfaces that there are.
pub(super) fn ready(links: &[Link], boot_mac: &str, taken: &[String]) -> Result<Links, SettleError> {
    let mut out = Links::default();
    let mut cards = BTreeSet::new();
    let mut names: BTreeSet<String> = taken.iter().cloned().chain(["all", "default", "lo"].map(str::to_owned)).collect();
    for link in links {
        let mut port = port(link, &mut names, &mut cards)?;
        let is_boot = port.macs.iter().any(|mac| mac == boot_mac);
        if !is_boot && link.boot {
            out.remarks.push(format!("{} is said to be the link of the root, which is read over {boot_mac}: it is left alone", port.name));
            continue;
        }
        if is_nothing(&port.untagged) && port.vlans.is_empty() && !is_boot {
            continue;
        }
        if is_boot {
            if port.is_bond && port.macs.len() > 1 {
                out.remarks.push(format!(
                    "{} is a bond with the card of the root, which would be lost if it became a member: that card stays as it is, and the others of {} \
                     are left alone",
                    port.name, port.name
                ));
            }
            (port.is_bond, port.macs) = (false, vec![boot_mac.to_owned()]);
            out.boot = Some(port);
        } else if port.macs.len() == 1 || (port.is_bond && !port.macs.is_empty()) {
            out.others.push(port);
        } else {
            out.remarks.push(format!("{} has {} cards: it is left alone", port.name, port.macs.len()));
        }
    }
    Ok(out)
}

/// A card that is in a network, and no more, is the system's own.
fn is_nothing(said: &Addressing) -> bool {
    said.addresses.is_empty() && !said.dhcp && said.mtu.is_none()
}

fn port(link: &Link, names: &mut BTreeSet<String>, cards: &mut BTreeSet<String>) -> Result<Port, SettleError> {
    let wrong = |what, found: &str, expected| wrong(&link.name, what, found, expected);
    let mut macs = Vec::new();
    for mac in &link.macs {
        macs.push(plain_mac(mac).ok_or_else(|| wrong("MAC", mac, "aa:bb:cc:dd:ee:ff"))?);
    }
    let name = free(&plain(&link.name), "", if link.bond { names } else { cards });
    let untagged = addressing(&link.name, link.untagged.as_ref())?;
    let mut vlans = Vec::new();
    for tagged in &link.vlans {
        if !VLANS.contains(&tagged.vlan) {
            return Err(wrong("VLAN", &tagged.vlan.to_string(), "1 to 4094"));
        }
        let addressing = addressing(&link.name, Some(&tagged.addressing))?;
        let name = free(&name, &format!(".{}", tagged.vlan), names);
        vlans.push(Vlan { name, id: tagged.vlan, network: plain(&tagged.network), addressing });
    }
    let mtu = vlans.iter().filter_map(|vlan| vlan.addressing.mtu).chain(untagged.mtu).max();
    Ok(Port { name, macs, is_bond: link.bond, mtu, untagged, vlans })
}

fn wrong(link: &str, what: &'static str, found: &str, expected: &'static str) -> SettleError {
    let shown = |text: &str| text.escape_debug().take(80).collect::<String>();
    SettleError::Link { link: shown(link), what, found: shown(found), expected }
}

fn addressing(link: &str, said: Option<&Addressing>) -> Result<Addressing, SettleError> {
    let mut said = said.cloned().unwrap_or_default();
    said.dhcp &= said.addresses.is_empty();
    if said.addresses.is_empty() && !said.dhcp {
        // Nothing of this link could use it.
        (said.gateway, said.metric) = (None, 0);
    }
    for address in &said.addresses {
        parts(address).ok_or_else(|| wrong(link, "address", address, "ADDRESS/PREFIX"))?;
    }
    if let Some(mtu) = said.mtu.filter(|mtu| !MTUS.contains(mtu)) {
        return Err(wrong(link, "MTU", &mtu.to_string(), "576 to 9216"));
    }
    let is_domain = |domain: &str| domain.len() <= DOMAIN && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match said.domain.as_deref() {
        Some(domain) if !is_domain(domain) => Err(wrong(link, "domain", domain, "letters, digits, hyphens and dots")),
        Some("") => Ok(Addressing { domain: None, ..said }),
        _ => Ok(said),
    }
}

/// An address and the length of its prefix.
pub(super) fn parts(address: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = address.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most && !address.is_unspecified())?;
    Some((address, prefix))
}

fn plain_mac(mac: &str) -> Option<String> {
    let mac = mac.to_ascii_lowercase();
    let is_octet = |octet: &str| octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
    (mac.split(':').count() == 6 && mac.split(':').all(is_octet)).then_some(mac)
}

/// Of letters, digits, hyphens and underscores: it may be a part of the name of a file and of an interface.
fn plain(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).take(64).collect();
    if name.trim_matches('-').is_empty() { "link".to_owned() } else { name }
}

/// `name` and `end` in what an interface can be called, and not yet taken: what there is too much of `name` goes.
fn free(name: &str, end: &str, names: &mut BTreeSet<String>) -> String {
    let cut = |room: usize| name.chars().take(NAME.saturating_sub(room)).collect::<String>();
    let mut found = format!("{}{end}", cut(end.len()));
    for n in 2.. {
        if names.insert(found.clone()) {
            break;
        }
        let more = format!("-{n}");
        found = format!("{}{more}{end}", cut(end.len() + more.len()));
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use embody_protocol::Tagged;

    use super::*;

    pub const BOOT: &str = "52:54:00:00:00:01";

    pub fn at(address: &str) -> Addressing {
        Addressing { addresses: vec![address.to_owned()], ..Addressing::default() }
    }

    pub fn link(name: &str, macs: &[&str], untagged: Option<Addressing>, vlans: Vec<Tagged>) -> Link {
        let macs: Vec<String> = macs.iter().map(|mac| (*mac).to_owned()).collect();
        Link { name: name.to_owned(), bond: macs.len() > 1, macs, boot: false, untagged, vlans }
    }

    pub fn tagged(vlan: u16, network: &str, addressing: Addressing) -> Tagged {
        Tagged { vlan, network: network.to_owned(), addressing }
    }

    #[test]
    fn interfaces_have_names_that_linux_takes_and_none_twice() {
        let long = "a-link-with-a-long-name";
        let links = [
            link(long, &["52:54:00:00:00:02"], None, vec![tagged(4000, "x", at("10.0.0.1/24")), tagged(30, "y", at("10.0.1.1/24"))]),
            link(long, &["52:54:00:00:00:03"], None, vec![tagged(4000, "x", at("10.0.0.2/24"))]),
            link("eth0", &["52:54:00:00:00:04", "52:54:00:00:00:05"], Some(at("10.0.2.1/24")), vec![]),
        ];
        let ready = ready(&links, BOOT, &["eth0".to_owned()]).unwrap();
        let names: Vec<_> = ready.others.iter().flat_map(|port| port.vlans.iter().map(|vlan| vlan.name.as_str())).collect();
        assert_eq!(names, ["a-link-wit.4000", "a-link-with-.30", "a-link-w-2.4000"]);
        assert_eq!(ready.others[2].name, "eth0-2", "a bond is not called as a card is");
    }

    #[test]
    fn the_card_of_the_root_is_no_member_and_what_has_nothing_is_left_alone() {
        let boot = Link { boot: true, ..link("san", &["52:54:00:00:00:09", "52:54:00:00:00:01"], Some(at("10.0.0.1/24")), vec![]) };
        let elsewhere = Link { boot: true, ..link("old", &["52:54:00:00:00:08"], Some(at("10.0.0.2/24")), vec![]) };
        let router = Addressing { gateway: Some("10.0.3.1".parse().unwrap()), ..Addressing::default() };
        let none = link("none", &["52:54:00:00:00:07"], Some(router), vec![]);
        let empty = Link { bond: true, ..link("empty", &[], Some(at("10.0.4.1/24")), vec![]) };
        let ready = ready(&[boot, elsewhere, none, empty], BOOT, &[]).unwrap();
        let port = ready.boot.unwrap();
        assert!(!port.is_bond && port.macs == [BOOT] && ready.others.is_empty());
        assert!(
            ready.remarks[0].contains("would be lost if it became a member") && ready.remarks[1].contains("is read over 52:"),
            "{ready:?}",
            ready = ready.remarks
        );
    }

    #[test]
    fn nothing_passes_that_a_file_would_not_take() {
        let mtu = |mtu| Some(Addressing { mtu: Some(mtu), ..at("10.0.0.1/24") });
        let domain = Some(Addressing { domain: Some("a\nb".to_owned()), ..Addressing::default() });
        for (link, said) in [
            (link("a\nb", &["x"], None, vec![]), "the controller says of the link a\\nb the MAC `x`: expected aa:bb:cc:dd:ee:ff"),
            (link("a", &[BOOT], Some(at("10.0.0.1/33")), vec![]), "the address `10.0.0.1/33`: expected ADDRESS/PREFIX"),
            (link("a", &[BOOT], Some(at("10.0.0.1\n/24")), vec![]), "the address `10.0.0.1\\n/24`"),
            (link("a", &[BOOT], mtu(100), vec![]), "the MTU `100`: expected 576 to 9216"),
            (link("a", &[BOOT], domain, vec![]), "the domain `a\\nb`"),
            (link("a", &[BOOT], None, vec![tagged(4095, "x", at("10.0.0.1/24"))]), "the VLAN `4095`: expected 1 to 4094"),
        ] {
            let error = ready(&[link], BOOT, &[]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!((plain("a b/..\n"), plain("///")), ("a-b----".to_owned(), "link".to_owned()));
    }

    #[test]
    fn what_vlans_are_on_has_the_largest_mtu() {
        let large = Addressing { mtu: Some(9000), ..at("10.0.1.1/24") };
        let links = [link("a", &["52:54:00:00:00:02"], Some(at("10.0.0.1/24")), vec![tagged(5, "x", large)])];
        assert_eq!(ready(&links, BOOT, &[]).unwrap().others[0].mtu, Some(9000));
    }
}
