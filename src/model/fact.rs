//! What devices show: the neutral model of a BMC and of a switch, the same for every vendor.
//!
//! A fact carries the time at which the *question* was asked, not when the answer came: safety is order of evidence.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::{Mac, Name, Vlan};

/// A moment of this process, in microseconds since it started. Never stored: ticks of two processes do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Tick(pub u64);

impl Tick {
    /// When the process started. What an earlier process did counts as done here.
    pub const START: Tick = Tick(0);

    pub fn plus(self, period: std::time::Duration) -> Tick {
        Tick(self.0.saturating_add(period.as_micros() as u64))
    }

    pub fn since(self, earlier: Tick) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A value and when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    pub value: T,
    pub asked_at: Tick,
}

// ---- BMC --------------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcSeen {
    /// What tells it from another one.
    pub shown: Identity,
    pub identity: BmcIdentity,
    pub power: Power,
    /// Nothing where the BMC does not tell.
    pub boot: Option<BootOverride>,
    /// The cipher suite of the session: 17 or 3.
    pub suite: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Power {
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmcIdentity {
    /// Get System GUID, lower-case hex without separators, as received. Nothing where the BMC has none (or all zeros or all ones).
    pub guid: Option<String>,
    /// IANA enterprise number, Get Device ID bytes 8..10.
    pub manufacturer_id: u32,
    pub product_id: u16,
    /// `major.minor`, Get Device ID bytes 4 and 5 (minor is BCD).
    pub firmware: String,
    /// `2.0`.
    pub ipmi_version: String,
}

/// IPMI boot flags (IPMI 2.0, table 28-14, parameter 5), as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOverride {
    pub valid: bool,
    pub persistent: bool,
    pub efi: bool,
    pub device: BootDevice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BootDevice {
    /// No override.
    None,
    Pxe,
    Disk,
    SafeMode,
    Diagnostics,
    Cdrom,
    BiosSetup,
    Floppy,
    /// A remote or other device: the selector's four bits, unchanged.
    Other(u8),
}

// ---- Switch -----------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchSeen {
    /// What tells it from another one.
    pub shown: Identity,
    pub identity: SwitchIdentity,
    /// The profile that reads it: `q-bridge`, `cisco-vtp`, `observe-only`.
    pub profile: &'static str,
    pub writable: Writable,
    /// Ethernet ports and link aggregations, by the name that manifests use (ifName where there is one).
    pub ports: BTreeMap<String, PortSeen>,
    /// The VLANs that exist.
    pub vlans: BTreeSet<Vlan>,
    /// Whether the running configuration differs from the saved one, where the switch tells.
    pub unsaved: Option<bool>,
    /// It tells who is at the other end of its ports, by LLDP, CDP or a forwarding table. Where it does not, cables cannot be checked.
    pub neighbours_told: bool,
    /// What it does not tell, or in an odd way, in whole sentences for people.
    pub notes: BTreeSet<String>,
    /// Objects that it refused to have written, whatever the value, and how: `dot1qPvid: notWritable(17)`. They are not tried again before it
    /// restarts, or a person says so.
    pub refused: BTreeSet<String>,
}

impl SwitchSeen {
    /// Why ports of the switch of this name are not written, where `writable` says that they cannot be: as a condition's reason, and in words.
    pub(crate) fn not_writable(&self, name: &Name) -> (&'static str, String) {
        let all = |of: &mut dyn Iterator<Item = &String>| of.cloned().collect::<Vec<_>>().join("; ");
        let untold = all(&mut self.notes.iter().filter(|note| note.contains("is not told")));
        if !self.refused.is_empty() {
            let refused = all(&mut self.refused.iter());
            let why = format!(
                "it refuses what is to be written ({refused}): not tried again before it restarts, or `embody retry switch {name}`"
            );
            return ("WriteRefused", why);
        }
        if self.shown.is_empty() {
            let why =
                "it shows nothing by which it is known again (a serial number, snmpEngineID, dot1dBaseBridgeAddress): it is only observed";
            return ("NotTold", why.to_owned());
        }
        if self.profile == "observe-only" || untold.is_empty() {
            return ("ObserveOnly", format!("the profile {} cannot write it: it is only observed", self.profile));
        }
        ("NotTold", format!("it does not tell what is needed to write it: {untold}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchIdentity {
    #[serde(rename = "sysObjectID")]
    pub sys_object_id: String,
    pub sys_descr: String,
    pub sys_name: String,
}

/// What this profile may write on this switch, without what the switch was seen to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Writable {
    /// ifAdminStatus.
    pub admin: bool,
    /// The untagged VLAN of an access port.
    pub access: bool,
    /// Tagged VLANs.
    pub trunk: bool,
    pub vlan_create: bool,
    /// The running configuration can be saved.
    pub save: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSeen {
    pub if_index: u32,
    /// Other names of it: ifAlias, ifDescr, where they differ from the key.
    pub also: Vec<String>,
    pub config: PortConfig,
    pub oper: Oper,
    pub mode: PortMode,
    pub neighbour: Option<Neighbour>,
    /// MAC addresses learned on it: at most `limits::MACS_PER_PORT`; more than that is an uplink.
    pub macs: BTreeSet<Mac>,
    pub lag: Lag,
    pub quality: Quality,
}

impl PortSeen {
    /// As a desired state is compared with it: where the switch contradicts itself, untagged frames have no VLAN of which one could be sure.
    pub fn compared(&self) -> PortConfig {
        let untagged = self.config.untagged.filter(|_| !matches!(self.quality, Quality::Inconsistent(_)));
        PortConfig { untagged, ..self.config.clone() }
    }
}

/// What can be wanted of a port, and what is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortConfig {
    pub admin: Admin,
    /// The VLAN of untagged frames in both directions; nothing where the port has none (or it cannot be told: see `quality`).
    pub untagged: Option<Vlan>,
    pub tagged: BTreeSet<Vlan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Admin {
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Oper {
    Up,
    Down,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortMode {
    Access,
    Trunk,
    Unknown,
}

/// Who is at the other end, by LLDP or CDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// Chassis id: a MAC in our notation, or text.
    pub chassis: String,
    pub port: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    pub via: Via,
    /// It says that it is a bridge or router (LLDP capabilities; CDP capabilities). Nothing where it does not say.
    pub bridge: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Via {
    Lldp,
    Cdp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lag {
    None,
    /// A member; of which aggregation, where it is known.
    Member(Option<String>),
    /// An aggregation.
    Aggregate,
    /// Whether it is a member the switch does not tell: why. Never written, as a member is not.
    NotTold(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quality {
    /// Read without contradiction.
    Exact,
    /// The switch contradicts itself: how. A desired state can still be written over it.
    Inconsistent(String),
    /// The switch does not show what is needed: what is missing. Never written.
    Unknown(String),
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Power::On => "On",
            Power::Off => "Off",
        })
    }
}

impl std::fmt::Display for BootDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BootDevice::Other(bits) => write!(f, "Other({bits:#x})"),
            named => write!(f, "{named:?}"),
        }
    }
}

impl std::fmt::Display for PortConfig {
    /// `120`, `120+t(130,140)`, `none+t(130)`, `down`, `120 down`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.untagged {
            Some(vlan) => write!(f, "{vlan}")?,
            None => f.write_str("none")?,
        }
        if !self.tagged.is_empty() {
            let list: Vec<String> = self.tagged.iter().map(Vlan::to_string).collect();
            write!(f, "+t({})", list.join(","))?;
        }
        if self.admin == Admin::Down { f.write_str(" down") } else { Ok(()) }
    }
}
