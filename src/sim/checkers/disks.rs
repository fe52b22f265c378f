//! Invariant 6 for personas whose root is a disk of their server: it starts whenever its machine does, asked or not.
//!
//! A person may switch such a machine on at any time, and nobody can prevent that. What embody is held to: it starts the persona nowhere else
//! once it was told that the machine is on, and it never itself starts a machine from a disk that nothing stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Judge;
use super::authority::Host;
use crate::model::Name;
use crate::model::claim::Claim;
use crate::model::fact::{Power, Tick};

/// From an answer about power until nothing leaves any more that was decided before.
const TOLD_FOR: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct Disks {
    /// What each disk holds, by the claims that it was last started with.
    claims: BTreeMap<(Name, Name), BTreeSet<Claim>>,
    /// Machines that run what their disk holds without an answer, and since when embody was told that they are on.
    strays: BTreeMap<Name, Option<Tick>>,
    /// When the last power-on of embody's left.
    on_left: BTreeMap<Name, Tick>,
}

impl Disks {
    /// It is asked for, or off.
    pub(super) fn is_no_stray(&mut self, server: &Name) {
        self.strays.remove(server);
    }

    pub(super) fn on_leaves(&mut self, server: &Name, now: Tick) {
        self.on_left.insert(server.clone(), now);
    }

    pub(super) fn started(&mut self, server: &Name, persona: &Name, claims: &BTreeSet<Claim>) {
        self.claims.insert((server.clone(), persona.clone()), claims.clone());
    }

    /// Whether embody could not know that this machine is on, when it started that one.
    pub(super) fn is_unknown(&self, stray: &Name, started: &Name) -> bool {
        let left = self.on_left.get(started).copied().unwrap_or(Tick::START);
        self.strays.get(stray).is_some_and(|told| told.is_none_or(|at| at.plus(TOLD_FOR) > left))
    }
}

impl Judge {
    /// The persona that stands here, where its root is the disk.
    pub fn stands_on_disk(&self, server: &Name) -> Option<Name> {
        let body = self.bodies.get(server)?;
        let mut standing = body.evidence.iter().filter(|(_, e)| !e.withdrawn && e.snapshot.root.disk.is_some());
        standing.next().map(|(persona, _)| persona.clone())
    }

    /// A machine starts what its disk holds, and no answer stands for that. `by_hand`: a person switched it on.
    pub fn strays(&mut self, server: &Name, persona: &Name, by_hand: bool) {
        let claims = self.disks.claims.get(&(server.clone(), persona.clone())).cloned().unwrap_or_default();
        self.disks.strays.insert(server.clone(), None);
        let clash = self.clash(server, &claims);
        self.running.insert(server.clone(), (persona.clone(), claims));
        if let Some((other, claim)) = clash.filter(|_| !by_hand) {
            let sentence =
                format!("invariant 6: {server} is started from its disk, which holds persona {persona}: {claim} is in use on {other}");
            self.violated(&[server, &other, persona], sentence);
        }
    }

    /// A controller was told the power of this server.
    pub fn told(&mut self, host: Host, server: &Name, power: Power, now: Tick) {
        self.done_is_told(host, server, power, now);
        self.power_is_told(server, power);
        let nothing_stands = self.bodies.get(server).is_none_or(|body| body.evidence.is_empty());
        if let Some(told) = self.disks.strays.get_mut(server).filter(|told| told.is_none() && power == Power::On && nothing_stands) {
            *told = Some(now);
        }
    }
}
