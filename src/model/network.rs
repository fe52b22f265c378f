//! `kind: Network`: a VLAN, and where it has another number.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
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
}
