//! `kind: Switch`: how to reach a switch, and what of it may be written.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HostPort, Name, Vlan};
use crate::limits;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchSpec {
    /// Where its SNMP agent answers: host, host:port or [v6]:port; UDP port 161 if none is named.
    pub address: HostPort,
    /// How to speak to it.
    pub snmp: SnmpAccess,
    /// Which profile drives it; `auto` recognises it by sysObjectID and by what it serves.
    #[serde(default)]
    pub profile: ProfileName,
    /// What may be written. Without it the switch is only observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manage: Option<Manage>,
    /// What to do about a VLAN that the switch does not have.
    #[serde(default)]
    pub vlans: VlanPolicy,
    /// Ports on which created VLANs are tagged. Only with `vlans: Create`; otherwise an uplink is never written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<String>,
    /// VLANs that are never assigned to a port; a managed port may be taken out of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_vlans: Vec<Vlan>,
    /// When the running configuration is saved.
    #[serde(default)]
    pub save: SavePolicy,
    /// Look, never write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
}

/// SNMP version and credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnmpAccess {
    /// v3 (USM, RFC 3414) or v2c.
    pub version: SnmpVersion,
    /// The Secret with `community`, or with `username`, `authProtocol`, `authPassword`, `privProtocol`, `privPassword` (the last two may be left
    /// out where `insecure` says so).
    pub secret_ref: SecretRef,
    /// v2c sends its community in the clear, and v3 without privacy (authNoPriv) all that is asked and told: say that you know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SnmpVersion {
    V2c,
    V3,
}

/// Names a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileName {
    /// Recognise the switch.
    #[default]
    Auto,
    /// IEEE Q-BRIDGE-MIB (RFC 4363): HP ProCurve, Dell, D-Link, Edgecore and others.
    QBridge,
    /// Cisco's VLAN membership and VTP MIBs: Catalyst, Nexus.
    CiscoVtp,
    /// FOUNDRY-SN-SWITCH-GROUP-MIB: Foundry, Brocade and Ruckus ICX.
    Foundry,
    /// Read whatever can be read, write nothing.
    ObserveOnly,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manage {
    /// Port names, or ranges of them: an exact name first, else a trailing N-M is a range (Gi1/0/1-24). A port whose own name ends so, the higher
    /// number first (qsfpplus2-1), is a range of one: qsfpplus2-1-1.
    pub ports: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub enum VlanPolicy {
    /// A missing VLAN is a condition.
    #[default]
    Expect,
    /// A missing VLAN is made, and tagged on `uplinks`.
    Create,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub enum SavePolicy {
    /// Once things have been quiet for a minute.
    #[default]
    Lazily,
    /// Leave saving to others: a reboot of the switch undoes the changes, and they are made again.
    Never,
}

/// Look, never write, no failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Maintenance {
    /// Why, for those who look.
    pub reason: String,
}

/// Why a text that ends in N-M is no range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRange<'a> {
    #[error("found {first} to {last}, expected the lower number first")]
    Reversed { first: &'a str, last: &'a str },
    #[error("found {first} to {last}, expected at most {} ports", limits::PORTS_OF_RANGE)]
    TooMany { first: &'a str, last: &'a str },
}

/// `Gi1/0/1-24` → (`Gi1/0/`, 1, 24); nothing where the text does not end in N-M.
fn trailing_range(text: &str) -> Option<Result<(&str, u32, u32), NoRange<'_>>> {
    let (head, last) = text.rsplit_once('-')?;
    let (stem, first) = head.split_at(head.len() - head.bytes().rev().take_while(u8::is_ascii_digit).count());
    if first.is_empty() || last.is_empty() || !last.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // A number that has no room is larger than any other.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let ports = number(last).checked_sub(number(first));
    Some(match (ports, first.parse(), last.parse()) {
        (None, ..) => Err(NoRange::Reversed { first, last }),
        (Some(more), Ok(from), Ok(to)) if more < limits::PORTS_OF_RANGE => Ok((stem, from, to)),
        (Some(_), ..) => Err(NoRange::TooMany { first, last }),
    })
}

/// `Gi1/0/1-24` → (`Gi1/0/`, 1, 24); nothing where the text is no range.
pub(crate) fn port_range(text: &str) -> Option<(&str, u32, u32)> {
    trailing_range(text)?.ok()
}

/// Why a text that looks like a range is none.
pub(crate) fn no_port_range(text: &str) -> Option<NoRange<'_>> {
    trailing_range(text)?.err()
}

impl SwitchSpec {
    /// Whether `manage.ports` covers a port of this name: by exact name, or within a range.
    pub fn manages(&self, port: &str) -> bool {
        self.manage.as_ref().is_some_and(|m| covers(&m.ports, port))
    }
}

/// Whether a list of names and ranges covers a port name.
pub(crate) fn covers(list: &[String], port: &str) -> bool {
    list.iter().any(|p| p == port)
        || list.iter().filter_map(|p| port_range(p)).any(|(stem, first, last)| {
            port.strip_prefix(stem)
                .filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (*n == "0" || !n.starts_with('0')))
                .and_then(|n| n.parse().ok())
                .is_some_and(|n: u32| (first..=last).contains(&n))
        })
}

/// How long the switch must have been quiet before its configuration is saved (flash wear; a copy blocks IOS).
pub(crate) const SAVE_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trailing_range_is_a_range() {
        assert_eq!(port_range("Gi1/0/1-24"), Some(("Gi1/0/", 1, 24)));
        assert_eq!(port_range("1-4"), Some(("", 1, 4)));
        for none in ["ge-0/0/1", "Gi1/0/1", "a-b", "x-", "x1-", "-1", "port-channel7"] {
            assert_eq!((port_range(none), no_port_range(none)), (None, None), "{none}");
        }
        for (none, why) in [
            ("4-1", "found 4 to 1, expected the lower number first"),
            ("1-1025", "found 1 to 1025, expected at most 1024 ports"),
            ("Gi1/0/1-99999999999999999999", "found 1 to 99999999999999999999, expected at most 1024 ports"),
            ("Gi1/0/99999999998-99999999999", "found 99999999998 to 99999999999, expected at most 1024 ports"),
        ] {
            assert_eq!((port_range(none), no_port_range(none).map(|e| e.to_string())), (None, Some(why.to_owned())), "{none}");
        }
        assert_eq!(port_range("1-1024"), Some(("", 1, 1024)));
        assert!(covers(&["qsfpplus2-1-1".to_owned()], "qsfpplus2-1"), "a port that is called so can be named");
        let list: Vec<String> = ["ge-0/0/1", "Gi1/0/1-24", "swp1-4"].map(String::from).into();
        for (port, covered) in [
            ("ge-0/0/1", true),
            ("Gi1/0/24", true),
            ("Gi1/0/25", false),
            ("Gi1/0/01", false),
            ("swp1", true),
            ("swp1-4", true),
            ("Gi1/0/", false),
        ] {
            assert_eq!(covers(&list, port), covered, "{port}");
        }
    }
}
