//! What a system that was booted and its controller say to each other: JSON over TLS (RFC 8446), below `https://ADDRESS:PORT/run/SERVER/TOKEN/`.
//!
//! `POST identity` says `Question`, and is answered 200 with `Identity`; `POST hello` says `Hello`, and `POST alive` says `Alive`, each answered 204.
//! Refusals are 403 (another secret, address or port than this start's) and 410 (another start is the last one); 503: not now, say it again.
//! The certificate is known by the SHA-256 of its public key (SubjectPublicKeyInfo, as in RFC 7469, 2.4), which stands on the kernel's command line.
//! Leaves out: what is decided by it. Invariant: either side may be the newer one: fields that it does not know it leaves alone, and those that it does
//! not get have a default.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Of everything that is sent, in octets.
pub const MESSAGE_BYTES: usize = 1 << 20;
/// How often a system that is up says that it is, in seconds.
pub const ALIVE_EVERY_S: u64 = 30;

/// What a start is known by: 32 hexadecimal digits that it made up itself. Not to be seen in any log.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Who am I?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Question {
    /// Whoever says it later is that start. The first one counts.
    pub secret: Secret,
    /// Of the card that it boots over: `52:54:00:77:00:01`.
    pub mac: String,
}

/// Who a system is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Milliseconds since 1970; 0: not known.
    pub time_ms: u64,
    pub hostname: String,
    /// machine-id(5).
    pub machine_id: String,
    pub links: Vec<Link>,
    pub files: Vec<File>,
    /// What is waited for before the hello.
    pub ready: Ready,
}

/// Both, where both are said.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Ready {
    /// A unit of systemd that is active.
    pub unit: Option<String>,
    /// What answers with a status from 200 to 399: `http://ADDRESS[:PORT]/PATH`, asked from inside.
    pub http: Option<String>,
}

/// A card, or an aggregation of several.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// The persona's name for it.
    pub name: String,
    /// The MAC of the card; of a bond those of its members, in the order of the manifest.
    pub macs: Vec<String>,
    /// It is an aggregation by LACP (IEEE 802.1AX).
    pub bond: bool,
    /// The root is read over it: it keeps what the start gave it.
    pub boot: bool,
    /// What it has untagged.
    pub untagged: Option<Addressing>,
    pub vlans: Vec<Tagged>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Tagged {
    /// 1..=4094.
    pub vlan: u16,
    /// The name of the network.
    pub network: String,
    pub addressing: Addressing,
}

/// What a network is to a system in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Addressing {
    /// `10.1.20.21/24`.
    pub addresses: Vec<String>,
    /// Where there is no address: DHCP is asked for one.
    pub dhcp: bool,
    /// The way to everywhere else.
    pub gateway: Option<IpAddr>,
    /// Of several ways to everywhere else the one with the least is taken.
    pub metric: u32,
    /// 576..=9216; nothing: as it is.
    pub mtu: Option<u16>,
    pub dns: Vec<IpAddr>,
    pub domain: Option<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// From `/`.
    pub path: String,
    pub content: String,
    /// Permission bits, as in stat(2).
    pub mode: u32,
    /// The names of its user and of its group; empty: root.
    pub owner: String,
    pub group: String,
}

/// A system is up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    pub secret: Secret,
    pub hostname: String,
    pub machine_id: Option<String>,
    /// Of the kernel: another one after each start.
    pub boot_id: Option<String>,
    /// As `systemctl is-system-running` says it; nothing: there is no systemd.
    pub state: Option<String>,
    /// As `systemctl list-units --failed` names them.
    pub failed_units: Vec<String>,
    pub interface: String,
    pub mac: String,
    pub address: Option<IpAddr>,
    pub kernel: String,
    pub agent: String,
}

/// A system is still up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alive {
    pub secret: Secret,
    pub boot_id: Option<String>,
    /// How much of the memory for what is written over the root is taken, and of how much, in octets; 0 of 0: there is none.
    pub written: u64,
    pub written_most: u64,
}
