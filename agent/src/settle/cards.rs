//! How the network services of a system are told that the card of the root is not theirs to take down.
//!
//! Leaves out: every other card. Invariant: what is written stays out of the way of the image's own files: in /run where a service reads it there. Shown
//! by the tests below and `tests/guests.py`.

use std::path::Path;

use super::{SettleError, files};
use crate::console::say;
use crate::dhcp::Lease;
use crate::network::Interface;

const NETWORKD: &str = "/run/systemd/network/10-embody-boot.network";
const LINK: &str = "/run/systemd/network/10-embody-boot.link";
const IFUPDOWN: &str = "/etc/network/interfaces";
const IFUPDOWN_OURS: &str = "/etc/network/interfaces.d/embody";
const NETWORK_MANAGER: &str = "/usr/sbin/NetworkManager";
const NETWORK_MANAGER_OURS: &str = "/run/NetworkManager/conf.d/10-embody-boot.conf";

pub(super) fn leave_alone(card: &Interface, lease: &Lease, has_systemd: bool) -> Result<(), SettleError> {
    if has_systemd {
        files::replace(NETWORKD, &network(card), 0o644)?;
        files::replace(LINK, &link(card), 0o644)?;
    }
    if let Ok(interfaces) = std::fs::read_to_string(IFUPDOWN) {
        files::replace(
            IFUPDOWN_OURS,
            &format!("# The root of this system is read over this card.\niface {} inet manual\n", card.name),
            0o644,
        )?;
        if interfaces.lines().any(|line| line.split_whitespace().take(2).eq(["iface", card.name.as_str()])) {
            say(&format!("{IFUPDOWN} of the image has {} too: if it is taken down, so is the root", card.name));
        }
    }
    if Path::new(NETWORK_MANAGER).exists() {
        files::replace(NETWORK_MANAGER_OURS, &network_manager(card, lease), 0o644)?;
    }
    Ok(())
}

/// systemd.network(5). It goes on with the lease of the initrd: same client id, same address, and never without it (`KeepConfiguration=yes`, of
/// version 243; `CriticalConnection=` is its older name, and both together are a warning at each start).
fn network(card: &Interface) -> String {
    format!(
        "# The root of this system is read over this card.\n[Match]\nMACAddress={}\nType=ether\n\n[Network]\nDHCP=ipv4\nKeepConfiguration=yes\n\n\
         [DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n",
        card.mac
    )
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
    use super::*;

    #[test]
    fn the_card_is_named_by_what_does_not_change() {
        let card = Interface { name: "eth0".to_owned(), index: 2, mac: "52:54:00:00:00:01".to_owned() };
        assert!(network(&card).contains("MACAddress=52:54:00:00:00:01\n") && network(&card).contains("\nKeepConfiguration=yes\n"));
        assert!(link(&card).contains("\nName=eth0\n"));
    }
}
