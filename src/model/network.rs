//! `kind: Network`: a VLAN, and where it has another number.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::Vlan;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// The VLAN id, 1..=4094, on every switch that no segment matches.
    pub vlan: Vlan,
    /// What the network is for. Released servers end in the one of role `quarantine`.
    #[serde(default)]
    pub role: Role,
    /// The subnet, in CIDR notation: 10.1.20.0/24.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "cidr"))]
    pub subnet: Option<IpNet>,
    /// The default gateway, inside `subnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "ip"))]
    pub gateway: Option<IpAddr>,
    /// The MTU, 576..=9216: what systems set on their NICs here, and machines that boot are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Servers boot over it: what machines that ask by DHCP are told here. Without it no DHCP packet is ever sent on this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Groups of switches where the VLAN id or the subnet differs; the first that matches a switch holds for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Carries the traffic of personas.
    #[default]
    Service,
    /// Carries root file systems and disks.
    Storage,
    /// Where the ports of a released server are put.
    Quarantine,
}

/// Where the network differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Segment {
    /// The switches, by their labels.
    pub switches: Selector,
    /// The VLAN id there.
    pub vlan: Vlan,
    /// The subnet there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "cidr"))]
    pub subnet: Option<IpNet>,
    /// The default gateway there, inside this segment's `subnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "ip"))]
    pub gateway: Option<IpAddr>,
    /// As the network's, for the subnet there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
}

/// What machines that boot are told on a network. Its `subnet` must be IPv4.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Boot {
    /// Addresses for machines that have none of their own (10.1.10.100-10.1.10.199), inside the subnet. Without it none is given but those that
    /// personas and bindings name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<AddressRange>,
    /// Who gives addresses here.
    #[serde(default)]
    pub mode: BootMode,
    /// The router that machines are told of. Default: the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "ipv4"))]
    pub router: Option<Ipv4Addr>,
    /// DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "format": "ipv4" }))]
    pub dns: Vec<Ipv4Addr>,
    /// NTP servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "format": "ipv4" }))]
    pub ntp: Vec<Ipv4Addr>,
    /// The MTU that machines are told and systems set, 576..=9216. Default: the network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The DNS domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootMode {
    /// As `full` where no other DHCP server is heard and there is a `range`; else, and behind a relay, as `proxy`.
    #[default]
    Auto,
    /// Another server gives addresses: only boot files are told, beside its answers.
    Proxy,
    /// Addresses and boot files, to everybody. Needs a `range`.
    Full,
    /// Addresses and boot files, to the machines of Server objects only.
    Reservations,
}

/// IPv4 addresses from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected a range of IPv4 addresses such as 10.1.10.100-10.1.10.199, of at most {} addresses", AddressRange::MOST)]
pub struct BadRange {
    pub found: String,
}

impl AddressRange {
    /// A /16: more machines are never in one broadcast domain.
    pub const MOST: u32 = 65_536;

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last
    }

    pub fn len(&self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Counted from the first one, round and round.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + n % self.len())
    }

    /// Which one of the range an address is, from 0.
    pub fn place_of(&self, address: Ipv4Addr) -> Option<u32> {
        u32::from(address).checked_sub(self.first.into()).filter(|place| *place < self.len())
    }
}

impl FromStr for AddressRange {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange { found: text.to_owned() };
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let (first, last): (Ipv4Addr, Ipv4Addr) = (first.trim().parse().map_err(|_| bad())?, last.trim().parse().map_err(|_| bad())?);
        let fits = first <= last && u32::from(last) - u32::from(first) < AddressRange::MOST;
        if fits { Ok(AddressRange { first, last }) } else { Err(bad()) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for AddressRange {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for AddressRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AddressRange".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "address-range", "examples": ["10.1.10.100-10.1.10.199"] })
    }
}

/// Chooses objects by labels; all must match, and at least one must be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Label keys and the values they must have.
    pub match_labels: BTreeMap<String, String>,
}

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.match_labels.is_empty() && self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
    }
}

impl NetworkSpec {
    /// The VLAN id on a switch with these labels.
    pub fn vlan_on(&self, switch_labels: &BTreeMap<String, String>) -> Vlan {
        self.segments.iter().find(|s| s.switches.matches(switch_labels)).map_or(self.vlan, |s| s.vlan)
    }

    /// What is told where servers boot over it: in its own subnet, and in those of its segments.
    pub fn boots(&self) -> impl Iterator<Item = (&Boot, Ipv4Net, Option<IpAddr>)> {
        let own = std::iter::once((&self.boot, self.subnet, self.gateway));
        let all = own.chain(self.segments.iter().map(|s| (&s.boot, s.subnet, s.gateway)));
        all.filter_map(|(boot, subnet, gateway)| match (boot, subnet) {
            (Some(boot), Some(IpNet::V4(subnet))) => Some((boot, subnet, gateway)),
            (_, _) => None,
        })
    }
}
