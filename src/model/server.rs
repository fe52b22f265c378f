//! `kind: Server`: a body. Its lights-out controller, its NICs and where they are plugged in.

use serde::{Deserialize, Serialize};

use super::switch::{Maintenance, SecretRef};
use super::{HostPort, Mac, Name};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerSpec {
    /// The processor architecture.
    #[serde(default)]
    pub arch: Arch,
    /// How it starts: boot options are set for this, since some machines fall back to BIOS mode without being told.
    #[serde(default)]
    pub firmware: Firmware,
    /// The lights-out controller.
    pub bmc: Bmc,
    /// The network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
    /// Link aggregations; VLANs go to the aggregation, never to its members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bonds: Vec<Bond>,
    /// What a persona can use here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// How its firmware gets the boot loader.
    #[serde(default, skip_serializing_if = "Loader::is_auto")]
    pub loader: Loader,
    /// Its serial console, as the kernel names it (ttyS1,115200): appended to the kernel arguments of whatever boots here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// Kernel arguments that this machine needs, whatever boots here. Public: never a secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel_args: String,
    /// Look, never write, no failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loader {
    /// As its firmware asks: iPXE by TFTP for PXE, by HTTP for UEFI HTTP boot; none where the firmware is an iPXE with HTTP.
    #[default]
    Auto,
    /// By TFTP alone: UEFI HTTP boot gets an address and no boot file.
    Pxe,
    /// By HTTP alone: PXE gets an address and no boot file.
    Http,
    /// An iPXE in its firmware is replaced by ours first, once in each start.
    Chain,
}

impl Loader {
    fn is_auto(&self) -> bool {
        *self == Loader::Auto
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    #[default]
    #[serde(rename = "x86_64")]
    X86_64,
    Aarch64,
    Sparc64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    #[default]
    Uefi,
    Bios,
}

impl ServerSpec {
    /// The NIC that it boots over; nothing where none is said to be, and there are several.
    pub fn boot_nic(&self) -> Option<&Nic> {
        let only = || if let [only] = self.nics.as_slice() { Some(only) } else { None };
        self.nics.iter().find(|nic| nic.boot).or_else(only)
    }
}

impl Arch {
    pub fn as_str(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Sparc64 => "sparc64",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bmc {
    /// host, host:port or [v6]:port; UDP port 623 if none is named.
    pub address: HostPort,
    /// How to speak to it.
    #[serde(default)]
    pub protocol: BmcProtocol,
    /// The Secret with `username` and `password` (and `kg` where the BMC has one).
    pub secret_ref: SecretRef,
    /// `dedicated`, or the name of the NIC whose switch port the BMC shares: that port is never shut and keeps its untagged VLAN.
    #[serde(default = "dedicated")]
    pub via: String,
    /// The privilege that the session asks for.
    #[serde(default)]
    pub privilege: Privilege,
    /// The cipher suites that are proposed, in this order, by number (IPMI 2.0, table 22-20): 17 and 3. Once 17 worked, no other is.
    #[serde(default = "cipher_suites")]
    pub cipher_suites: Vec<u8>,
}

impl Bmc {
    /// Where it listens if its address names no port: RMCP, aux bus shunt (IANA: asf-rmcp; IPMI 2.0, 13.1.2).
    pub const PORT: u16 = 623;
}

fn cipher_suites() -> Vec<u8> {
    vec![17, 3]
}

pub(crate) const DEDICATED: &str = "dedicated";

fn dedicated() -> String {
    DEDICATED.to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BmcProtocol {
    /// IPMI 2.0 over RMCP+.
    #[default]
    Ipmi,
    /// Not yet supported.
    Redfish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    /// Power, and on most BMCs boot options.
    Operator,
    /// Everything.
    #[default]
    Administrator,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nic {
    /// Unique among the server's NICs and bonds.
    pub name: Name,
    /// Its MAC address.
    pub mac: Mac,
    /// The switch that it is plugged into. Without one the NIC's network is not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Name>,
    /// The port there, as the switch names it: ifName, or else ifAlias or ifDescr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The server boots over this NIC. At most one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub boot: bool,
    /// Guests or containers speak through it with MAC addresses of their own. Without it, a port on which more than two are learned that
    /// are not the server's is taken for a cable to a switch, and is not written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub many_macs: bool,
}

/// A link aggregation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bond {
    /// Unique among the server's NICs and bonds.
    pub name: Name,
    /// NICs of this server.
    pub members: Vec<Name>,
    /// The aggregation on each switch.
    pub attach: Vec<Attach>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attach {
    /// The switch.
    pub switch: Name,
    /// The aggregation's name there (Po3, Trk1).
    pub port: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capacity {
    /// Logical processors.
    pub cpus: u32,
    /// Memory: 16Gi, 512Mi.
    pub memory: Bytes,
}

/// An amount of memory: digits with Ki, Mi, Gi, Ti (1024) or K, M, G, T (1000), or none for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected an amount of memory such as 16Gi or 512Mi")]
pub struct BadBytes {
    pub found: String,
}

const SIZES: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1000),
];

impl std::str::FromStr for Bytes {
    type Err = BadBytes;
    fn from_str(text: &str) -> Result<Self, BadBytes> {
        let (digits, size) = SIZES.iter().find_map(|(u, s)| text.strip_suffix(u).map(|d| (d, *s))).unwrap_or((text, 1));
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let bytes = plain.then(|| digits.parse::<u64>().ok()).flatten().and_then(|n| n.checked_mul(size));
        bytes.map(Bytes).ok_or_else(|| BadBytes { found: text.to_owned() })
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match SIZES[..4].iter().find(|(_, s)| self.0 >= *s && self.0.is_multiple_of(*s)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "bytes", "examples": ["16Gi", "512Mi"] })
    }
}
