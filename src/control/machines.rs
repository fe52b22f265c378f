//! What boot services are to know of each machine, made from the world; and of which machines that may be another thing by now.
//!
//! Leaves out: publishing it (`booting`). Invariant: whatever changes an answer marks its server here, so that no change costs what the fleet
//! holds. Shown by `tests/simulate.rs`, whose machines are answered from the view.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cache::Cache;
use crate::boot::view::{Halt, Machine};
use crate::model::body::{Body, Evidence, Phase, Snapshot};
use crate::model::claim::Claim;
use crate::model::{Mac, Name};

/// Servers of which something else may have to be told.
#[derive(Debug, Default)]
pub(super) struct BootChanges {
    servers: BTreeSet<Name>,
    /// One that was declared off and is on parks others.
    all: bool,
}

impl BootChanges {
    pub(super) fn insert(&mut self, server: &Name) {
        self.servers.insert(server.clone());
    }

    pub(super) fn of_body(&mut self, server: &Name, body: &Body) {
        self.all |= body.runs_by_mistake();
        self.insert(server);
    }
}

impl Cache {
    pub(super) fn boot_changed(&mut self, server: &Name) {
        self.boot_changes.insert(server);
    }

    pub(super) fn take_boot_changes(&mut self) -> BTreeSet<Name> {
        let BootChanges { servers, all } = std::mem::take(&mut self.boot_changes);
        match all {
            true => self.objects.servers.keys().chain(self.bodies.keys()).cloned().chain(servers).collect(),
            false => servers,
        }
    }

    /// The NICs of a server, and those of what may be alive on it.
    pub(super) fn macs_of(&self, server: &Name) -> BTreeSet<Mac> {
        let nics = self.objects.servers.get(server).into_iter().flat_map(|held| held.spec.nics.iter().map(|nic| nic.mac));
        let alive = self.bodies.get(server).into_iter().flat_map(|body| body.value.evidence.values());
        nics.chain(alive.flat_map(|evidence| evidence.snapshot.macs.iter().copied())).collect()
    }

    /// Whether any body has this, or any binding reserves it.
    pub(super) fn is_claimed(&self, claim: &Claim) -> bool {
        !self.claimed.overlapping(claim).is_empty() || !self.reserved.overlapping(claim).is_empty()
    }

    /// What a boot answer for this address depends on.
    pub(super) fn machine(&self, mac: Mac) -> Option<Machine> {
        let stands_in = self.by_snapshot_mac.get(&mac);
        let only = stands_in.filter(|bodies| bodies.len() == 1).and_then(BTreeSet::first);
        // A machine that no manifest names any more may be alive all the same.
        let server = self.server_of(mac).or(only)?;
        let other = stands_in.into_iter().flatten().find(|s| *s != server);
        let body = self.bodies.get(server).map(|b| &b.value);
        let standing = body.and_then(Body::standing).map(|(_, evidence)| evidence);
        let spec = self.objects.servers.get(server).map(|held| &held.spec);
        let boots_over = spec.and_then(|spec| spec.boot_nic()).filter(|nic| nic.mac != mac && self.server_of(mac) == Some(server));
        Some(Machine {
            server: server.clone(),
            boots_over: boots_over.map(|nic| nic.name.clone()),
            parked: self.parked(mac, server, other, standing),
            standing: standing.map(|evidence| Arc::new(evidence.snapshot.clone())),
            smbios: body.and_then(|b| b.smbios.clone()),
            run: standing.and_then(|evidence| evidence.run.as_ref()).map(|run| run.nonce.clone()),
            loader: spec.map(|spec| spec.loader).unwrap_or_default(),
        })
    }

    fn parked(&self, mac: Mac, server: &Name, other: Option<&Name>, standing: Option<&Evidence>) -> Option<Halt> {
        let body = self.bodies.get(server).map(|b| &b.value);
        let halt = |why| Some(Halt { why, waits: false, told: false });
        if let Some(other) = other {
            return halt(format!("{mac} belongs to what may run on {other}"));
        }
        if self.unreadable.contains_key(server) || self.anything.contains(server) {
            return halt(format!("nothing is known of what {server} runs"));
        }
        if body.is_some_and(|b| b.confirm_start) {
            return halt(format!("the store went backwards: whether what stands on {server} runs elsewhere by now is for a person to say"));
        }
        if body.is_some_and(|b| b.declared.is_some()) {
            return halt(format!("{server} was declared off"));
        }
        let evidence = standing?;
        // What was answered for it may run there still; another machine with that NIC would be a second one.
        if self.objects.servers.get(server).is_some_and(|held| held.spec.nics.iter().all(|nic| nic.mac != mac)) {
            return Some(Halt { why: format!("{server} has no NIC {mac} in its manifest any more"), waits: false, told: true });
        }
        if evidence.phase == Phase::Answered {
            let why = format!("persona {} is to run on {server}, which is not ready for it yet", evidence.snapshot.persona);
            return Some(Halt { why, waits: true, told: false });
        }
        let snapshot = &evidence.snapshot;
        let other = self.runs_by_mistake(server, snapshot)?;
        halt(format!("{other} was declared off, is on all the same, and may run what persona {} claims", snapshot.persona))
    }

    /// Another body that was declared off, is on, and may run what this claims: neither of them starts.
    fn runs_by_mistake(&self, server: &Name, snapshot: &Snapshot) -> Option<Name> {
        let overlapping = snapshot.claims.iter().flat_map(|claim| self.claimed.overlapping(claim));
        let anything = self.anything.iter().filter(|_| !snapshot.claims.is_empty()).cloned();
        let is_on = |other: &Name| self.bodies.get(other).is_some_and(|body| body.value.runs_by_mistake());
        overlapping.chain(anything).find(|other| other != server && is_on(other))
    }
}
