//! What binds an image to the NICs, leases and resolvers of one machine.
//!
//! Leaves out configuration that names no MAC: it may be meant. Invariant: a file goes whole or stays whole, by what is in it. Shown by
//! `tests/importing/generalise.rs`.

use super::{Fault, Work};

/// A key of a configuration file, whatever its case and the spaces around it.
fn has_key(text: &str, separator: char, keys: &[&str]) -> bool {
    text.lines().any(|line| {
        let Some((key, value)) = line.split_once(separator) else { return false };
        let key = key.trim().trim_start_matches("- ").to_ascii_lowercase();
        keys.contains(&key.as_str()) && !value.trim().is_empty()
    })
}

/// Configuration of one kind: where it is, which names it has, and the keys that name a MAC.
struct Kind {
    dir: &'static str,
    prefix: &'static str,
    suffix: &'static str,
    separator: char,
    keys: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind { dir: "/etc/systemd/network", prefix: "", suffix: ".link", separator: '=', keys: &["macaddress", "permanentmacaddress"] },
    Kind { dir: "/etc/netplan", prefix: "", suffix: ".yaml", separator: ':', keys: &["macaddress"] },
    Kind { dir: "/etc/NetworkManager/system-connections", prefix: "", suffix: "", separator: '=', keys: &["mac-address"] },
    Kind { dir: "/etc/sysconfig/network-scripts", prefix: "ifcfg-", suffix: "", separator: '=', keys: &["hwaddr", "macaddr"] },
    Kind { dir: "/etc/sysconfig/network", prefix: "ifcfg-", suffix: "", separator: '=', keys: &["hwaddr", "lladdr"] },
];

/// udev(7) rules of old; systemd.link(5) [Match]; netplan(5) `match`; nm-settings(5) `mac-address`; ifcfg's HWADDR.
pub(super) fn nic_names(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    work.remove_named("/etc/udev/rules.d", |name| name.ends_with("-persistent-net.rules"));
    for Kind { dir, prefix, suffix, separator, keys } in KINDS {
        for path in work.list(dir) {
            let name = path.rsplit(|c| *c == b'/').next().unwrap_or_default();
            let is_named = name.starts_with(prefix.as_bytes()) && name.ends_with(suffix.as_bytes());
            if is_named && work.text(&path)?.is_some_and(|text| has_key(&text, separator, keys)) {
                work.remove(&path);
            }
        }
    }
    Ok(())
}

/// A symlink, as systemd-resolved(8) and resolvconf(8) have it, names no resolver.
pub(super) fn resolv(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    let path = work.at("/etc/resolv.conf");
    if let Some(path) = path.filter(|path| !work.is_symlink(path)) {
        work.remove(&path);
    }
    Ok(())
}

/// dhclient.leases(5); NetworkManager keeps leases and its DUID's secret; dhcpcd(8), FILES.
pub(super) fn dhcp_leases(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    for dir in ["/var/lib/dhcp", "/var/lib/dhcp3", "/var/lib/dhclient", "/var/lib/NetworkManager", "/var/lib/dhcpcd", "/var/lib/dhcpcd5"] {
        let is_meant = |name: &str| name.contains(".lease") || matches!(name, "duid" | "secret_key" | "secret");
        work.remove_named(dir, is_meant);
    }
    work.remove_at("/etc/dhcpcd.duid");
    Ok(())
}
