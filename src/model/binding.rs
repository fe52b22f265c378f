//! `kind: Binding`: which body a persona lives in, and how far embody may go.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::network::Selector;
use super::persona::PersonaNic;
use super::{Name, Period};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingSpec {
    /// The persona.
    pub persona: Name,
    /// Where it lives: one of server, selector, platform.
    pub target: Target,
    /// Running or Stopped.
    #[serde(default)]
    pub state: RunState,
    /// How differences are corrected: observe, approve or enforce, or one of them for each plane. Default: the Policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<Correct>,
    /// The host name, where bindings of one persona differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Which server NIC or bond a persona's NIC is on, and addresses that differ between bindings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<BindingNic>,
    /// Raise it to restart: off, seen off, on. A number that was done before restarts nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u64,
    /// How the server is switched off.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// How long a start may take, and what follows if it takes longer.
    #[serde(default, skip_serializing_if = "BootLimits::is_default")]
    pub boot: BootLimits,
    /// Where to go when the server fails. Not yet supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Exactly one of them (checked by `validate`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// A server by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Name>,
    /// A server out of a pool. Not yet supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// A guest on a hypervisor. Not yet supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RunState {
    #[default]
    Running,
    /// Held off: ports and claim are kept.
    Stopped,
}

/// One mode for all planes, or one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Correct {
    All(Mode),
    PerPlane(PlaneModes),
}

/// Planes that are not named follow the Policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaneModes {
    /// Switching on and off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Mode>,
    /// The boot device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Mode>,
    /// Switch ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Show the differences.
    Observe,
    /// Show the plan, and wait for a person.
    #[default]
    Approve,
    /// Correct.
    Enforce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Plane {
    Power,
    Boot,
    Network,
}

impl Plane {
    pub fn as_str(self) -> &'static str {
        match self {
            Plane::Power => "power",
            Plane::Boot => "boot",
            Plane::Network => "network",
        }
    }
}

impl BindingSpec {
    /// The mode of a plane, given the site's default.
    pub fn mode(&self, plane: Plane, site: Mode) -> Mode {
        match self.correct {
            None => site,
            Some(Correct::All(mode)) => mode,
            Some(Correct::PerPlane(m)) => match plane {
                Plane::Power => m.power,
                Plane::Boot => m.boot,
                Plane::Network => m.network,
            }
            .unwrap_or(site),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingNic {
    /// The persona's NIC.
    pub name: Name,
    /// The server's NIC or bond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Name>,
    /// Its address here, with the prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "cidr"))]
    pub address: Option<IpNet>,
    /// Its addresses on its tagged networks here, by network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<Name, String>", extend("additionalProperties" = { "type": "string", "format": "cidr" }))]
    pub tagged_addresses: BTreeMap<Name, IpNet>,
}

impl BindingSpec {
    /// The fixed address of a persona's NIC here, on its untagged network.
    pub(crate) fn address(&self, nic: &PersonaNic) -> Option<IpNet> {
        self.nic(nic).and_then(|own| own.address).or(nic.address)
    }

    /// The same on a tagged one.
    pub(crate) fn tagged_address(&self, nic: &PersonaNic, network: &Name) -> Option<IpNet> {
        self.nic(nic).and_then(|own| own.tagged_addresses.get(network)).or_else(|| nic.tagged_addresses.get(network)).copied()
    }

    fn nic(&self, nic: &PersonaNic) -> Option<&BindingNic> {
        self.nics.iter().find(|own| own.name == nic.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shutdown {
    /// How long a soft-off may take before a hard one follows. 0: hard at once.
    #[serde(default = "grace")]
    pub grace: Period,
}

fn grace() -> Period {
    Period::secs(120)
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { grace: grace() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootLimits {
    /// From power-on until it has come up: its boot script fetched, and its hello where the persona says one.
    #[serde(default = "deadline")]
    pub deadline: Period,
    /// How often it is switched off and on again where it has not come up by then. Each is a switching-off like any other.
    #[serde(default)]
    pub retries: u32,
}

fn deadline() -> Period {
    Period::secs(1_800)
}

impl Default for BootLimits {
    fn default() -> Self {
        BootLimits { deadline: deadline(), retries: 0 }
    }
}

impl BootLimits {
    fn is_default(&self) -> bool {
        *self == BootLimits::default()
    }
}

/// Not yet supported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failover {
    /// Where to.
    pub to: Selector,
    /// After how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Period>,
}
