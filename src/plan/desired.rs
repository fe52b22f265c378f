//! What is desired of one server, with all references resolved: which binding holds it, which ports must carry what. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Problem;
use super::observed::PortKey;
use crate::model::binding::{BootLimits, Mode, Plane, RunState};
use crate::model::body::{Body, Once, Snapshot};
use crate::model::fact::{Admin, PortConfig};
use crate::model::{Name, Vlan};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub server: Name,
    /// The binding whose target this server is.
    pub holder: Option<Holder>,
    /// Whether there is such a Server: of one that is not, nothing is decided.
    pub exists: bool,
    /// Its firmware is UEFI.
    pub efi: bool,
    /// What became of the binding that the record names as holder, where that is not `holder`.
    pub past: Option<Past>,
    /// The binding that moved away and must still release this body, if it still exists.
    pub releaser: Option<Authority>,
    /// Every port of this server when nobody holds it.
    pub released_ports: BTreeMap<PortKey, DesiredPort>,
    /// Ports that were written for this server, and that neither it nor another one names any more.
    pub debts: BTreeMap<PortKey, DesiredPort>,
    /// Something that the server names is not there.
    pub unresolved: Option<Problem>,
    /// Ports that do not resolve on their switch.
    pub port_problems: Vec<Problem>,
    pub maintenance: Option<String>,
}

impl Desired {
    /// Something that is named here is not there: nothing is planned, for what all of it would be is not known. Whoever has still to release the
    /// body does not wait for what the next one names.
    pub fn unresolved(&self, body: &Body) -> Option<&Problem> {
        self.unresolved.as_ref().or(self.names_nothing().filter(|_| body.release.is_none()))
    }

    /// What the holder's binding or persona names, and is not there.
    pub fn names_nothing(&self) -> Option<&Problem> {
        self.holder.as_ref().and_then(|holder| holder.unresolved.as_ref())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Past {
    /// It has another target now.
    Moved,
    /// There is no such binding any more.
    Deleted,
}

/// In whose name something is done, and how far that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub binding: Name,
    pub uid: String,
    pub generation: u64,
    /// The digest of what its persona would be answered on its target now; empty where it has none.
    pub answer: String,
    pub modes: BTreeMap<Plane, Mode>,
    pub grace: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub authority: Authority,
    pub server: Name,
    pub persona: Name,
    /// What would be answered if the answer began now.
    pub snapshot: Snapshot,
    pub state: RunState,
    pub efi: bool,
    pub restart: u64,
    /// Every port of this server, those that the persona does not use too.
    pub ports: BTreeMap<PortKey, DesiredPort>,
    /// Its start is seen by the boot script that it fetches.
    pub fetches: bool,
    /// The bond that its boot NIC is a member of.
    pub boot_bond: Option<Name>,
    /// Something in it says hello.
    pub says_hello: bool,
    /// How long a start may take, and how often it is begun anew.
    pub boot: BootLimits,
    /// Its persona has a rollout: what runs another revision is restarted in its turn.
    pub rolls: bool,
    /// It is instead of the persona that the binding names, for one start.
    pub once: Option<Once>,
    /// Why it cannot live here at all.
    pub problems: Vec<Problem>,
    /// Something that its binding or persona names is not there.
    pub unresolved: Option<Problem>,
}

/// What a port must be. What is not said stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPort {
    pub admin: Admin,
    /// Nothing: keep.
    pub untagged: Option<Option<Vlan>>,
    /// Nothing: keep.
    pub tagged: Option<BTreeSet<Vlan>>,
    /// The persona uses it: it is not started before this port is read back.
    pub needed: bool,
    /// The BMC is reached through this port: its untagged VLAN is never changed.
    pub carries_bmc: bool,
    /// A sentence: `network web of persona apache`, `quarantine`.
    pub because: String,
}

impl DesiredPort {
    /// The desired state for a port that is now so.
    pub fn over(&self, seen: &PortConfig) -> PortConfig {
        PortConfig {
            admin: self.admin,
            untagged: self.untagged.unwrap_or(seen.untagged),
            tagged: self.tagged.clone().unwrap_or_else(|| seen.tagged.clone()),
        }
    }
}

impl Authority {
    pub fn mode(&self, plane: Plane) -> Mode {
        self.modes.get(&plane).copied().unwrap_or_default()
    }
}
