//! `kind: Persona`: an operating system with its root, kernel and networks, free of any hardware.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::file::PersonaFile;
use super::image::{Delivery, ImageName, ImageRoot, Overlay};
use super::policy::Share;
use super::server::{Arch, Bytes};
use super::switch::SecretRef;
use super::{HostPort, Name};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PersonaSpec {
    /// What kind of system it is.
    pub os: Os,
    /// Where its root file system is: one of image, nfs, iscsi, fc, ram, disk.
    pub root: Root,
    /// What the boot loader starts. Needed for the roots nfs and ram; of an image it says no more than the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// At most one live body at any time. Default: true where the root is writable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// Virtual NICs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<PersonaNic>,
    /// Files beside those of its image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PersonaFile>,
    /// What it needs of a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
    /// When its agent says hello, beside its system being up: the root must be an image, and `agent: required`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Readiness>,
    /// Whether something in it says hello once it runs: `required` makes that a part of Ready.
    #[serde(default, skip_serializing_if = "Agent::is_none")]
    pub agent: Agent,
    /// Restarts what runs an older revision (image, kernel, root, command line), a few bodies at a time. Without it, that is done by
    /// `embody restart`. Going back is the same: name the old revision again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// Bodies of its running bindings that may be unavailable meanwhile: a number from 1, or a percentage, which rounds up. What is down for
    /// reasons of its own counts.
    #[serde(default = "one")]
    pub max_unavailable: Share,
    /// When so many bodies run the new revision it waits, until this is raised or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_after: Option<u32>,
}

fn one() -> Share {
    Share::Count(1)
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout { max_unavailable: one(), pause_after: None }
    }
}

/// Both, where both are said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Readiness {
    /// A unit of systemd in it is active: nginx.service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// A URL, asked from inside, answers with a status from 200 to 399: http://127.0.0.1:80/healthz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Agent {
    /// Nothing is waited for.
    #[default]
    None,
    /// It is not Ready before a hello of this start has arrived (`POST` to `embody.run`/hello).
    Required,
}

impl Agent {
    fn is_none(&self) -> bool {
        *self == Agent::None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Os {
    /// linux, windows or solaris.
    pub family: OsFamily,
    /// The processor architecture that it runs on.
    #[serde(default)]
    pub arch: Arch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OsFamily {
    Linux,
    Windows,
    Solaris,
}

/// Exactly one of image, nfs, iscsi, fc, ram, disk (checked by `validate`), and the revision of what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// An image that was imported: read-only, with changes kept in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRoot>,
    /// Of an image: where changes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// A directory on an NFS server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<NfsRoot>,
    /// A disk on an iSCSI target (RFC 7143).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iscsi: Option<IscsiRoot>,
    /// A disk on a Fibre Channel SAN. Not yet supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fc: Option<FcRoot>,
    /// The initrd is the whole system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram: Option<RamRoot>,
    /// The server's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskRoot>,
    /// An immutable name of the content; change it to roll forward or back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfsRoot {
    /// The NFS server.
    pub server: HostPort,
    /// The directory that it exports, from `/`.
    pub path: String,
    /// How it is mounted.
    #[serde(default)]
    pub mode: RootMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RootMode {
    /// Read-only, with changes kept in memory: many servers can share it.
    #[default]
    Overlay,
    /// Read-only.
    ReadOnly,
    /// Writable: at most one live body.
    Writable,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IscsiRoot {
    /// The target's portal; TCP port 3260 if none is named.
    pub portal: HostPort,
    /// The target's name (iqn.…).
    pub target: String,
    /// The logical unit number.
    #[serde(default)]
    pub lun: u16,
    /// The initiator's name; by default one made from the binding's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// CHAP credentials. Not yet supported: a boot script is readable by all of the boot network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap_secret_ref: Option<SecretRef>,
    /// How the disk is used: `writable` unless it says otherwise.
    #[serde(default = "writable")]
    pub mode: RootMode,
}

fn writable() -> RootMode {
    RootMode::Writable
}

/// Not yet supported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FcRoot {
    /// The target's port name (WWPN).
    pub wwpn: String,
    /// The logical unit number.
    #[serde(default)]
    pub lun: u16,
}

/// `ram: {}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RamRoot {}

/// `disk: {}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskRoot {}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kernel {
    /// The kernel: an http:// URL, or a path under the boot server's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// An image instead, with its kernel and the initrd that belongs to it: for a root on an NFS server of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// The initial RAM disk, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Several initial RAM disks instead, each a path under the boot server's files: it joins them, in this order, to one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initrds: Vec<String>,
    /// Kernel arguments. Public: never a secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
}

/// A virtual NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PersonaNic {
    /// Unique among the persona's NICs.
    pub name: Name,
    /// The network that it has untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged: Option<Name>,
    /// The networks that it has tagged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tagged: Vec<Name>,
    /// A fixed address with its prefix length, in the subnet of the untagged network. Only where one binding uses the persona.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "cidr"))]
    pub address: Option<IpNet>,
    /// Fixed addresses on its tagged networks, each with its prefix length, by network. Only where one binding uses the persona.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<Name, String>", extend("additionalProperties" = { "type": "string", "format": "cidr" }))]
    pub tagged_addresses: BTreeMap<Name, IpNet>,
    /// It boots over this NIC. At most one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub boot: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Needs {
    /// Logical processors, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
}

impl PersonaSpec {
    /// How its root gets to it, where that is an image.
    pub fn delivery(&self) -> Delivery {
        self.root.image.as_ref().map(|image| image.delivery).unwrap_or_default()
    }

    /// The image that it boots, or whose kernel it does.
    pub fn image(&self) -> Option<&ImageName> {
        let kernel = self.kernel.as_ref().and_then(|kernel| kernel.image.as_ref());
        self.root.image.as_ref().map(|image| &image.name).or(kernel)
    }

    /// At most one live body: as declared, else where the root is writable.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive.unwrap_or(self.root.is_writable())
    }
}

impl Root {
    /// Whether two bodies at once would write one file system. A server's own disk is shared with nobody.
    pub fn is_writable(&self) -> bool {
        self.nfs.as_ref().is_some_and(|n| n.mode == RootMode::Writable)
            || self.iscsi.as_ref().is_some_and(|i| i.mode == RootMode::Writable)
            || self.fc.is_some()
    }
}
