//! What is stored about a body: who holds it, what may be alive on it by evidence, the power commands that were begun and what became of
//! them, what is still owed to its ports and its release.
//!
//! Evidence outlives the objects that it came from: it is a snapshot of what was answered, not a name. There are no times in it: ticks of
//! another process mean nothing here, so what a record says counts as said when this process started (`Tick::START`). `plan::record` alone
//! changes it.

use std::collections::{BTreeMap, BTreeSet};

use embody_protocol::{Link, Ready};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::claim::Claim;
use super::fact::{BootDevice, PortConfig};
use super::file::PersonaFile;
use super::identity::Identity;
use super::persona::{Kernel, Root};
use super::server::Arch;
use super::{Mac, Name};

/// Stored under `records/2/bodies/<server>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Body {
    /// The binding that holds this body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Hold>,
    /// How it was found when that binding took it.
    pub found: Found,
    /// What may be alive here, by persona.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub evidence: BTreeMap<Name, Evidence>,
    /// The device that all of this was recorded of.
    #[serde(skip_serializing_if = "Identity::is_empty")]
    pub made_on: Identity,
    /// A switching-off that was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<OffIntent>,
    /// A power-on that was sent, and was neither refused nor followed by an answer On.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_sent: bool,
    /// How often it was switched on since its boot answer stands, or since it came up last.
    #[serde(skip_serializing_if = "is_none")]
    pub starts: u32,
    /// What a binding that moved away must still release here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<Hold>,
    /// The value of the holder's `restart` that this body has been off for.
    #[serde(skip_serializing_if = "is_zero")]
    pub restart_done: u64,
    /// Ports that were written for this body, by `switch/port`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, PortDebt>,
    /// Nothing is known of what it runs: a person took the store as it was while this body was on, or was not seen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub anything: bool,
    /// A person took a store that went backwards: whatever is to start here may by now run elsewhere, on a server that the store does not even
    /// name. The first start waits for an approval; so does a boot answer, if a body that the store says runs asks what to boot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirm_start: bool,
    /// What a person declared of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<Declared>,
    /// Personas that its own disk holds: it may run them whenever it is on without an answer of ours.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub on_disk: BTreeSet<Name>,
    /// The SMBIOS UUID that it showed at the first boot request of a start that embody made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smbios: Option<String>,
    /// A person's word: what its next start boots, instead of the persona that its binding names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
    /// What is desired of it is held, since it would disrupt it as one of too many: which desired state that is (16 hexadecimal digits; nothing where
    /// nobody desires anything of it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// When a change of desired state that nobody approved disrupted it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disrupted: Option<Disrupted>,
}

/// One start of something else than what is bound: over when the body was seen off after it, or at a person's word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Once {
    pub boots: BootsOnce,
    /// The binding that it is instead of, by its uid: another one knows nothing of it.
    pub uid: String,
    pub by: String,
    /// RFC 3339, for people.
    pub at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BootsOnce {
    /// Whatever is on its own disk.
    Local,
    Persona(Name),
}

/// No persona has this name: what a server's own disk holds, in evidence.
pub(crate) const LOCAL: &str = "local";

impl BootsOnce {
    /// What it is called in evidence.
    pub fn is(&self, persona: &Name) -> bool {
        match self {
            BootsOnce::Local => persona.as_str() == LOCAL,
            BootsOnce::Persona(name) => name == persona,
        }
    }

    pub fn in_words(&self) -> String {
        match self {
            BootsOnce::Local => "its own disk".to_owned(),
            BootsOnce::Persona(name) => format!("persona {name}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disrupted {
    /// RFC 3339.
    pub at: String,
    /// As in `Body::held`.
    pub desired: String,
}

fn is_at_once(ready: &Ready) -> bool {
    *ready == Ready::default()
}

fn is_none(n: &u32) -> bool {
    *n == 0
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A binding, by name and by uid: a new binding of the same name is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    pub binding: Name,
    pub uid: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Found {
    /// Its power was not seen yet since it was taken.
    #[default]
    Unknown,
    /// Off: nothing of anybody's ran here.
    Off,
    /// Running something that nobody has declared: nothing here is disturbed before a person approves.
    Running,
    /// Under embody's care without a gap: moved to and fro.
    Managed,
    /// Found running, and declared by a person to run the persona: it is not switched off for that, and not disturbed either before a
    /// person approves, until all is as desired once.
    Adopted,
}

/// That a persona may be alive here: since its boot answer stood, until the body is seen off after that was withdrawn; or since the body was
/// found running when a binding named it, until it is seen off or a person says what it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    pub phase: Phase,
    /// The boot answer does not stand any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    pub snapshot: Snapshot,
    /// The last start that fetched it, since the body was last seen off. Nothing: none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// One start: a machine fetched the boot script of what stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// What its token holds, and no other start's: 32 hexadecimal digits.
    pub nonce: String,
    /// RFC 3339.
    pub at: String,
    /// When what runs there said hello with that token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// The units of it that had failed then, as far as it said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// It was told to ask who it is before it says anything: whatever says hello without that is not it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    /// What it is known by since it asked who it is, which it made up itself: the first 32 hexadecimal digits of its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What was up here when the script was asked for again: if that says that it is up still, nobody has started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Run>>,
}

impl Run {
    /// What this one is the end of, if it is one: an agent of ours was up there.
    pub fn or_before(self) -> Option<Box<Run>> {
        match self.secret.is_some() && self.hello.is_some() {
            true => Some(Box::new(Run { before: None, ..self })),
            false => self.before,
        }
    }

    pub fn new(nonce: String, at: String, asks: bool) -> Run {
        Run { nonce, at, hello: None, failed: Vec::new(), asks, secret: None, before: None }
    }
}

impl Evidence {
    /// Whether the boot services answer with this.
    pub fn stands(&self) -> bool {
        !self.withdrawn
    }
}

/// How far a persona's life on a body has come. Every phase means: it may run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The boot answer stands. Whether the body was off since is not known.
    Answered,
    /// It was seen off while the answer stood: the next start is this persona's.
    Armed,
    /// A start was seen after that.
    Started,
    /// It was found running when its binding took it, and nobody has said yet what it runs. No answer of ours stood.
    Found,
}

/// What was answered: all that a body boots, as it was when the answer began to stand. An edit of the persona changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    pub persona: Name,
    pub hostname: String,
    pub arch: Arch,
    pub boot: BootDevice,
    pub root: Root,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// The digest of the image that `root` or `kernel` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What must not have two owners.
    pub claims: BTreeSet<Claim>,
    /// The machine's addresses when it was answered. A changed NIC restarts nothing: they are not in the digest.
    pub macs: BTreeSet<Mac>,
    /// The fixed addresses that the persona's NICs have, by the MAC of the machine's. That they are had is in `claims`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<Mac, Ipv4Net>,
    /// Its NICs and their networks, as the system is told. What of it is had is in `claims`, and on the switches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Its files beside those of the image; what Secrets hold is not in here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PersonaFile>,
    /// What its agent waits for before its hello. It is not in the digest: it changes nothing of what runs.
    #[serde(default, skip_serializing_if = "is_at_once")]
    pub ready: Ready,
    /// What the machine itself needs on the kernel's command line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arguments: String,
    /// Tells this content from another one: 12 hexadecimal digits.
    pub digest: String,
}

/// Whether a body that was started with one content would be started with another one now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    No,
    /// Its name or what it claims.
    Otherwise,
    /// Its image, kernel, root or command line.
    Revision,
}

impl Snapshot {
    /// With its digest.
    pub fn sealed(mut self) -> Snapshot {
        let content = (&self.persona, &self.hostname, self.arch, self.boot, &self.root, &self.kernel, &self.claims);
        // What has a text form in JSON always has one.
        let mut text = serde_json::to_vec(&content).unwrap_or_default();
        text.extend(self.arguments.as_bytes());
        text.extend(self.image.iter().flat_map(|image| image.bytes()));
        if !self.files.is_empty() {
            text.extend(serde_json::to_vec(&self.files).unwrap_or_default());
        }
        self.digest = Sha256::digest(&text).iter().take(6).map(|b| format!("{b:02x}")).collect();
        self
    }

    /// The one rule of what is outdated: how this, which was answered, differs from what would be answered now. A rollout is about `Revision` alone:
    /// another host name or address is taken over by a restart.
    pub fn outdated(&self, now: &Snapshot) -> Outdated {
        let revision = |of: &Snapshot| (of.image.clone(), of.kernel.clone(), of.root.clone(), of.arguments.clone());
        match (self.digest == now.digest, revision(self) == revision(now)) {
            (true, _) => Outdated::No,
            (false, true) => Outdated::Otherwise,
            (false, false) => Outdated::Revision,
        }
    }

    pub fn overlap<'a>(&'a self, claims: &BTreeSet<Claim>) -> Option<&'a Claim> {
        self.claims.iter().find(|mine| claims.iter().any(|other| mine.overlaps(other)))
    }
}

/// One decision to have the body off, what was sent for it, and what became of that. Stored before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OffIntent {
    /// Why, for people.
    pub because: String,
    #[serde(default)]
    pub soft: Sending,
    #[serde(default)]
    pub hard: Sending,
}

/// One kind of power command of one intent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sending {
    /// How often it may have left.
    pub tries: u32,
    pub last: Sent,
}

/// What became of the last sending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sent {
    /// It was not sent, or it did not leave, or the device said that it did not begin.
    #[default]
    Nothing,
    /// It may have been carried out.
    Unknown,
    /// The device said that it has begun.
    Accepted,
    /// The device said no, by this code.
    Refused(String),
}

/// A port that was written for this body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortDebt {
    /// The write that was begun and not seen ended: from, to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<(PortConfig, PortConfig)>,
    /// In which binding's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declared {
    pub what: Declaration,
    pub by: String,
    pub reason: String,
    /// RFC 3339, for people.
    pub at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Declaration {
    /// Its power is cut; its ports are still to be seen in quarantine before that is believed.
    OffOncePortsAreReleased,
    /// Its power is cut: its evidence fences nothing until it is seen on.
    Off,
    /// It was declared off, and is on all the same: its evidence fences again.
    OffButRuns,
}

impl Body {
    /// The one persona that the boot services answer with here.
    pub fn standing(&self) -> Option<(&Name, &Evidence)> {
        self.evidence.iter().find(|(_, evidence)| evidence.stands())
    }

    /// Whether evidence here keeps others from what it claims.
    pub fn fences(&self) -> bool {
        self.declared.as_ref().is_none_or(|d| d.what != Declaration::Off)
    }

    /// The personas that its bindings named while it ran something that nobody has declared.
    pub fn found_evidence(&self) -> impl Iterator<Item = &Name> {
        self.evidence.iter().filter(|(_, evidence)| evidence.phase == Phase::Found).map(|(persona, _)| persona)
    }

    /// Whether its own disk may run a persona while it is on: no answer of ours says what else it runs.
    pub fn may_run_from_disk(&self, persona: &Name) -> bool {
        self.on_disk.contains(persona) && self.evidence.is_empty() && self.fences()
    }

    /// Ports whose write was begun and not seen ended, and in which binding's name.
    pub fn begun(&self) -> impl Iterator<Item = (&String, Option<&Name>)> {
        self.ports.iter().filter(|(_, debt)| debt.begun.is_some()).map(|(id, debt)| (id, debt.by.as_ref()))
    }

    /// It was declared off, and is on all the same.
    pub fn runs_by_mistake(&self) -> bool {
        self.declared.as_ref().is_some_and(|d| d.what == Declaration::OffButRuns)
    }

    /// Whether anything here was recorded of one particular device.
    pub fn is_of_a_device(&self) -> bool {
        !self.evidence.is_empty() || self.off.is_some() || self.on_sent || !self.ports.is_empty() || self.release.is_some()
    }
}

/// `tor-1/Gi1/0/1`: a name of a switch holds no `/`.
pub fn port_id(switch: &Name, port: &str) -> String {
    format!("{switch}/{port}")
}

/// The switch and the port.
pub(crate) fn port_of(id: &str) -> Option<(Name, &str)> {
    let (switch, port) = id.split_once('/')?;
    Some((switch.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_revision_is_another_image_kernel_root_or_command_line() {
        let of = |name: &str, value: serde_json::Value| {
            let mut snapshot = serde_json::json!({ "persona": "p", "hostname": "h", "arch": "x86_64", "boot": "Pxe", "root": {}, "claims": [], "macs": [], "digest": "" });
            snapshot[name] = value;
            serde_json::from_value::<Snapshot>(snapshot).unwrap().sealed()
        };
        let now = of("hostname", "h".into());
        let claim = serde_json::to_value(Claim::Persona("p".parse().unwrap())).unwrap();
        for (name, value, expected) in [
            ("macs", serde_json::json!(["02:00:00:00:00:01"]), Outdated::No),
            ("hostname", "other".into(), Outdated::Otherwise),
            ("claims", serde_json::json!([claim]), Outdated::Otherwise),
            ("image", "a".into(), Outdated::Revision),
            ("kernel", serde_json::json!({ "path": "vmlinuz", "cmdline": "quiet" }), Outdated::Revision),
            ("root", serde_json::json!({ "nfs": { "server": "10.0.0.1", "path": "/p" } }), Outdated::Revision),
            ("arguments", "console=ttyS0".into(), Outdated::Revision),
        ] {
            assert_eq!(of(name, value).outdated(&now), expected, "{name}");
        }
    }

    /// An image's name may be given anew: what decides is its content.
    #[test]
    fn another_image_is_another_content() {
        let of = |image: Option<&str>| {
            let snapshot = serde_json::json!({ "persona": "p", "hostname": "h", "arch": "x86_64", "boot": "Pxe", "root": { "image": { "name": "web:1" } },
                "image": image, "claims": [], "macs": [], "digest": "" });
            serde_json::from_value::<Snapshot>(snapshot).unwrap().sealed().digest
        };
        assert!(of(Some("a")) != of(Some("b")) && of(Some("a")) != of(None) && of(Some("a")) == of(Some("a")));
    }
}
