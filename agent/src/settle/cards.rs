//! Which service of a system sets up its links, and what that is told: above all, that the card of the root is not its to take down.
//!
//! Leaves out: the words of each service (`networkd`, `ifupdown`); NetworkManager and netplan but for the card of the root. Invariant: what is
//! written stays out of the way of the image's own files: in /run where a service reads it there; and what nothing of the image will read is said.
//! Shown by the tests below and `tests/guests.py`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::links::{Links, Port};
use super::{SettleError, files, ifupdown, networkd};
use crate::console::say;
use crate::dhcp::Lease;
use crate::netlink::{self, Route};
use crate::network::Interface;

const NETWORKD: &str = "/run/systemd/network/10-embody-boot.network";
const LINK: &str = "/run/systemd/network/10-embody-boot.link";
const IFUPDOWN: &str = "/etc/network/interfaces";
const IFUPDOWN_OURS: &str = "/etc/network/interfaces.d/embody";
const NETWORK_MANAGER: &str = "/usr/sbin/NetworkManager";
const NETWORK_MANAGER_OURS: &str = "/run/NetworkManager/conf.d/10-embody-boot.conf";
/// Where units are, and where those that others want are linked to.
const UNITS: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
const NETWORKD_UNITS: [&str; 2] = ["systemd-networkd.service", "systemd-networkd.socket"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Networkd,
    /// It is there, and nothing starts it.
    NetworkdAsleep,
    Ifupdown,
    Nothing,
}

pub(super) fn set_up(card: &Interface, lease: &Lease, links: &Links, root: Option<Ipv4Addr>, has_systemd: bool) -> Result<(), SettleError> {
    links.remarks.iter().for_each(|remark| say(remark));
    let way = way(Path::new("/"), has_systemd);
    if has_more(links) {
        match way {
            Way::Networkd => {}
            Way::Ifupdown => complain_of_interfaces(),
            Way::NetworkdAsleep => {
                say("systemd-networkd is not enabled in this image: unless something starts it, only the card of the root is set up")
            }
            Way::Nothing => say("this image has neither systemd-networkd nor ifupdown: only the card of the root is set up"),
        }
    }
    let way_to_root = root.and_then(|root| Some((root, router_to(root, lease, links)?)));
    if let Some((to, router)) = way_to_root
        && let Err(error) = netlink::put_route(card.index, Route { to, prefix: 32, router: Some(router), is_outside: false })
    {
        say(&format!("the route to {to} through {router}, for the root, is not taken: {error}"));
    }
    if has_systemd {
        let route = way_to_root.map(|(to, router)| networkd::route(to, router));
        files::replace(NETWORKD, &networkd::of_root(card, lease, links.boot.as_ref(), route.as_deref()), 0o644)?;
        files::replace(LINK, &link(card), 0o644)?;
    }
    if matches!(way, Way::Networkd | Way::NetworkdAsleep) {
        for (path, text) in networkd::files(links) {
            files::replace(&path, &text, 0o644)?;
        }
    }
    if let Ok(interfaces) = fs::read_to_string(IFUPDOWN) {
        files::replace(IFUPDOWN_OURS, &ifupdown::text(links, card, lease, way == Way::Ifupdown), 0o644)?;
        if interfaces.lines().any(|line| line.split_whitespace().take(2).eq(["iface", card.name.as_str()])) {
            say(&format!("{IFUPDOWN} of the image has {} too: if it is taken down, so is the root", card.name));
        }
    }
    if Path::new(NETWORK_MANAGER).exists() {
        files::replace(NETWORK_MANAGER_OURS, &network_manager(card, lease), 0o644)?;
    }
    Ok(())
}

/// Whether there is more than what the start gave the card of the root.
fn has_more(links: &Links) -> bool {
    let of_boot = |boot: &Port| !boot.vlans.is_empty() || boot.mtu.is_some() || !boot.untagged.addresses.is_empty();
    !links.others.is_empty() || links.boot.as_ref().is_some_and(of_boot)
}

fn way(root: &Path, has_systemd: bool) -> Way {
    let has_interfaces = root.join(IFUPDOWN.trim_start_matches('/')).exists();
    match (has_systemd, has_interfaces) {
        (true, _) if is_networkd_enabled(root) => Way::Networkd,
        (_, true) => Way::Ifupdown,
        (true, false) => Way::NetworkdAsleep,
        (false, false) => Way::Nothing,
    }
}

/// As systemctl(1) enables a unit: a target's directory has a link to it. One that is a link to /dev/null is masked.
fn is_networkd_enabled(root: &Path) -> bool {
    let is_masked = |unit: &str| fs::read_link(root.join("etc/systemd/system").join(unit)).is_ok_and(|to| to == Path::new("/dev/null"));
    if is_masked("systemd-networkd.service") {
        return false;
    }
    let directories = UNITS.iter().filter_map(|units| fs::read_dir(root.join(units)).ok()).flatten().filter_map(Result::ok);
    let mut wants = directories.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "wants"));
    wants.any(|wants| NETWORKD_UNITS.iter().any(|unit| fs::symlink_metadata(wants.join(unit)).is_ok()))
}

fn complain_of_interfaces() {
    let text = fs::read_to_string(IFUPDOWN).unwrap_or_default();
    let mut includes = text.lines().filter(|line| line.trim_start().starts_with("source"));
    if !includes.any(|line| line.contains("interfaces.d")) {
        say(&format!("{IFUPDOWN} of the image does not read interfaces.d: only the card of the root is set up"));
    }
}

/// The router of the start, where another link has a way to everywhere else, which the server of the root would be asked over from then on.
fn router_to(root: Ipv4Addr, lease: &Lease, links: &Links) -> Option<Ipv4Addr> {
    let vlans = links.boot.iter().chain(&links.others).flat_map(|port| &port.vlans).map(|vlan| &vlan.addressing);
    let mut others = links.others.iter().map(|port| &port.untagged).chain(vlans);
    others.any(|said| said.gateway.is_some() || said.dhcp).then_some(())?;
    let is_in =
        |to: Ipv4Addr, prefix: u8| (to.to_bits() ^ root.to_bits()).checked_shr(32 - u32::from(prefix.min(32))).unwrap_or_default() == 0;
    if is_in(lease.address, lease.prefix) {
        return None;
    }
    let route = lease.routes.iter().filter(|route| is_in(route.to, route.prefix)).max_by_key(|route| route.prefix)?;
    // A narrower one than to everywhere is taken before the other link's.
    route.router.filter(|_| route.prefix == 0)
}

/// NetworkManager.conf(5). A card that it manages it sets up anew; one that it does not, it knows no name servers of, and would write that there are
/// none.
fn network_manager(card: &Interface, lease: &Lease) -> String {
    let mut text = format!("# The root of this system is read over this card.\n[keyfile]\nunmanaged-devices+=mac:{}\n", card.mac);
    if !lease.name_servers.is_empty() {
        let servers: Vec<String> = lease.name_servers.iter().map(ToString::to_string).collect();
        let searches = lease.domain.as_deref().map(|domain| format!("[global-dns]\nsearches={domain}\n\n")).unwrap_or_default();
        text += &format!("\n{searches}[global-dns-domain-*]\nservers={}\n", servers.join(","));
    }
    text
}

/// systemd.link(5): its name is in use, and in the files above. Other names are added.
fn link(card: &Interface) -> String {
    format!(
        "# The root of this system is read over this card.\n[Match]\nMACAddress={}\nType=ether\n\n[Link]\nName={}\n\
         AlternativeNamesPolicy=database onboard slot path\nMACAddressPolicy=none\n",
        card.mac, card.name
    )
}

#[cfg(test)]
mod tests {
    use embody_protocol::Addressing;

    use super::super::links::ready;
    use super::super::links::tests::{BOOT, at, link};
    use super::*;

    #[test]
    fn the_card_is_named_by_what_does_not_change() {
        let card = Interface { name: "eth0".to_owned(), index: 2, mac: BOOT.to_owned() };
        assert!(super::link(&card).contains("\nName=eth0\n"));
    }

    #[test]
    fn the_service_is_the_one_that_the_image_starts() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        assert_eq!((way(root.path(), false), way(root.path(), true)), (Way::Nothing, Way::NetworkdAsleep));
        fs::create_dir_all(at("etc/network")).unwrap();
        fs::write(at("etc/network/interfaces"), "").unwrap();
        assert_eq!((way(root.path(), false), way(root.path(), true)), (Way::Ifupdown, Way::Ifupdown));
        fs::create_dir_all(at("etc/systemd/system/multi-user.target.wants")).unwrap();
        let wanted = at("etc/systemd/system/multi-user.target.wants/systemd-networkd.service");
        std::os::unix::fs::symlink("/lib/systemd/system/systemd-networkd.service", wanted).unwrap();
        assert_eq!((way(root.path(), false), way(root.path(), true)), (Way::Ifupdown, Way::Networkd));
        std::os::unix::fs::symlink("/dev/null", at("etc/systemd/system/systemd-networkd.service")).unwrap();
        assert_eq!(way(root.path(), true), Way::Ifupdown, "masked");
    }

    #[test]
    fn the_root_is_read_the_way_of_the_start() {
        let (root, router) = (Ipv4Addr::new(10, 5, 0, 1), Ipv4Addr::new(10, 0, 0, 1));
        let everywhere = Route { to: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(router), is_outside: false };
        let lease = Lease { routes: vec![everywhere], ..Lease::at(Ipv4Addr::new(10, 0, 0, 15), 24) };
        let with = |gateway: Option<&str>| {
            let said = Addressing { gateway: gateway.map(|router| router.parse().unwrap()), ..at("10.1.0.2/24") };
            ready(&[link("front", &["52:54:00:00:00:02"], Some(said), vec![])], BOOT, &[]).unwrap()
        };
        assert_eq!(router_to(root, &lease, &with(None)), None, "no other way");
        assert_eq!(router_to(root, &lease, &with(Some("10.1.0.1"))), Some(router));
        assert_eq!(router_to(Ipv4Addr::new(10, 0, 0, 9), &lease, &with(Some("10.1.0.1"))), None, "on the link");
        let narrow = Route { to: Ipv4Addr::new(10, 5, 0, 0), prefix: 16, ..everywhere };
        let lease = Lease { routes: vec![everywhere, narrow], ..lease };
        assert_eq!(router_to(root, &lease, &with(Some("10.1.0.1"))), None, "DHCP says a narrower one");
    }
}
