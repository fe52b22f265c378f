//! What machines that boot do to the world: the view that they are answered from is published, starts and hellos are recorded, addresses are given.
//!
//! Leaves out: what is answered (`boot`), and sockets (`server::boot`). Invariants: a withdrawal is published before it is recorded; a start is
//! recorded before its script is told; an address is stored before it is acknowledged. Shown by `tests/boots.rs`, `tests/simulate.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use super::controller::Controller;
use super::images::Images;
use super::operator::{DiscoveredRow, LeaseRow, Refusal};
use super::timeline::{Stage, Timelines};
use super::worker::Job;
use crate::boot::answer::{self, Ask, Parked, Verdict};
use crate::boot::identity;
use crate::boot::script::{self, For, Told};
use crate::boot::token::{SiteKey, Token};
use crate::boot::view::{BootNetwork, Lease, View};
use crate::drivers::Depth;
use crate::limits;
use crate::model::body::{Declaration, Run, Snapshot};
use crate::model::claim::Claim;
use crate::model::network::Role;
use crate::model::op::Device;
use crate::model::{Mac, Name};
use crate::plan::record::Record;
use crate::store::{Expect, Records, StoreError, Write, keys};
use crate::telemetry::timestamp;

/// RFC 9110, 4.2.2.
pub(crate) const EXCHANGE_PORT: u16 = 443;

/// What a controller shares with the boot services of its process.
#[derive(Clone)]
pub struct Shared {
    /// What they answer from. Nothing: no controller of this process acts.
    pub view: watch::Sender<Option<Arc<View>>>,
    pub timelines: Arc<Timelines>,
    pub images: Images,
    /// The TCP port at which systems are told who they are, beside that of the scripts. Nothing: it cannot be had now.
    pub exchange: watch::Sender<Option<u16>>,
}

impl Default for Shared {
    fn default() -> Self {
        let exchange = watch::Sender::new(Some(EXCHANGE_PORT));
        Shared { view: watch::Sender::new(None), timelines: Arc::default(), images: Images::default(), exchange }
    }
}

/// A boot answer, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub script: String,
    /// `persona apache on web-1`, `parked: …`: for logs.
    pub says: String,
    /// Nothing: parked.
    pub persona: Option<Name>,
}

impl Answer {
    pub fn parked(to: For<'_>, why: &str) -> Answer {
        Answer { script: script::parked(to, why), says: format!("parked: {why}"), persona: None }
    }

    pub fn of(to: For<'_>, parked: &Parked) -> Answer {
        let script = if parked.elsewhere { script::elsewhere(&parked.why) } else { script::parked(to, &parked.why) };
        Answer { script, ..Answer::parked(to, &parked.why) }
    }
}

/// The view, and what of it is to be made anew.
#[derive(Default)]
pub(super) struct Booting {
    shared: Shared,
    view: View,
    macs: BTreeMap<Name, BTreeSet<Mac>>,
    uuids: BTreeMap<Name, String>,
    /// By what systems know who tells them who they are.
    pin: String,
    /// Networks may be others.
    pub(super) networks: bool,
    /// Images may be others.
    pub(super) images_are_others: bool,
    /// Something of `view` was changed here.
    changed: bool,
}

impl Booting {
    pub(super) fn new(shared: Shared) -> Booting {
        Booting { shared, networks: true, images_are_others: true, changed: true, ..Booting::default() }
    }

    pub(super) fn timelines(&self) -> &Timelines {
        &self.shared.timelines
    }

    pub(super) fn images(&self) -> &Images {
        &self.shared.images
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn end(&self) {
        self.shared.view.send_replace(None);
        self.shared.images.known.send_replace(None);
    }

    pub(super) fn has_key(&mut self, key: SiteKey) {
        self.pin = identity::pin(&key.of_exchange());
        (self.view.key, self.changed) = (Some(Arc::new(key)), true);
    }

    pub(super) fn lease(&mut self, address: Ipv4Addr, lease: Option<Lease>) {
        match lease {
            Some(lease) => self.view.insert_lease(address, Arc::new(lease)),
            None => self.view.remove_lease(address),
        }
        self.changed = true;
    }
}

impl Controller {
    /// The next view, where something of it is another one.
    pub(super) fn publish(&mut self) {
        self.publish_images();
        let dirty = self.cache.take_boot_changes();
        for server in &dirty {
            self.renew(server);
        }
        if std::mem::take(&mut self.booting.networks) {
            let networks = self.boot_networks();
            self.booting.changed |= *self.booting.view.networks != networks;
            self.booting.view.networks = Arc::new(networks);
        }
        let stop = self.cache.site_stop().map(|trouble| trouble.message);
        self.booting.changed |= self.booting.view.stop != stop;
        self.booting.view.stop = stop;
        if std::mem::take(&mut self.booting.changed) || self.booting.shared.view.borrow().is_none() {
            self.booting.shared.view.send_replace(Some(Arc::new(self.booting.view.clone())));
        }
    }

    /// The NICs of a server, and those of what may be alive on it.
    fn renew(&mut self, server: &Name) {
        let booting = &mut self.booting;
        let now = self.cache.macs_of(server);
        let before = booting.macs.remove(server).unwrap_or_default();
        for mac in now.union(&before) {
            match self.cache.machine(*mac) {
                Some(machine) if booting.view.machine(*mac).is_none_or(|old| **old != machine) => {
                    booting.view.insert(*mac, machine);
                    booting.changed = true;
                }
                Some(_) => {}
                None => booting.changed |= booting.view.remove(*mac),
            }
        }
        if !now.is_empty() {
            booting.macs.insert(server.clone(), now);
        }
        let uuid = self.cache.bodies.get(server).and_then(|body| body.value.smbios.as_deref()).and_then(answer::uuid);
        let old = match &uuid {
            Some(uuid) => booting.uuids.insert(server.clone(), uuid.clone()),
            None => booting.uuids.remove(server),
        };
        if old != uuid {
            if let Some(old) = old {
                booting.view.uuids.remove_mut(&old);
            }
            uuid.into_iter().for_each(|uuid| booting.view.uuids.insert_mut(uuid, server.clone()));
            booting.changed = true;
        }
    }

    fn boot_networks(&self) -> Vec<BootNetwork> {
        let ipv4 = |address: IpAddr| if let IpAddr::V4(address) = address { Some(address) } else { None };
        let of = |(name, held): (&Name, &crate::model::objects::Held<crate::model::NetworkSpec>)| {
            let (quarantine, mtu) = (held.spec.role == Role::Quarantine, held.spec.mtu);
            let one = |(boot, subnet, gateway): (&crate::model::network::Boot, _, Option<IpAddr>)| BootNetwork {
                name: name.clone(),
                subnet,
                router: boot.router.or(gateway.and_then(ipv4)),
                quarantine,
                boot: crate::model::network::Boot { mtu: boot.mtu.or(mtu), ..boot.clone() },
            };
            held.spec.boots().map(one).collect::<Vec<_>>()
        };
        self.cache.objects.networks.iter().flat_map(of).collect()
    }

    /// Nobody is told any more what these records take away: before they are stored.
    pub(super) fn withdraw_from_view(&mut self, server: &Name, records: &[Record]) {
        let takes = |record: &Record| matches!(record, Record::Withdraw(_) | Record::Declare(_) | Record::MayRun(_) | Record::Anything);
        if !records.iter().any(takes) {
            return;
        }
        for mac in self.cache.macs_of(server) {
            let Some(machine) = self.booting.view.machine(mac).filter(|machine| machine.standing.is_some()) else { continue };
            let parked = crate::boot::view::Machine { standing: None, ..machine.as_ref().clone() };
            self.booting.view.insert(mac, parked);
            self.booting.changed = true;
        }
        // Where it cannot be stored, it is as it was.
        self.cache.boot_changed(server);
        if std::mem::take(&mut self.booting.changed) {
            self.booting.shared.view.send_replace(Some(Arc::new(self.booting.view.clone())));
        }
    }

    // ---- starts ----------------------------------------------------------------------------------------------------------

    /// A machine asks what to boot, and is not parked as far as it is known to whoever asks here. A start is recorded before it is told.
    pub(super) async fn boot(&mut self, ask: Ask, base: &str) -> Answer {
        self.publish();
        let to = For { base, mac: ask.mac };
        match answer::judge(&ask, self.booting.view()) {
            Verdict::Parked(parked) => {
                self.was_parked(&parked).await;
                Answer::of(to, &parked)
            }
            Verdict::Starts { server, snapshot } => {
                let now = self.clock.now();
                // Whoever asks in a loop writes no record each time.
                if self.cache.memory_of(&server).told_at.is_some_and(|at| now.since(at) < limits::STARTS_APART) {
                    return Answer::parked(to, "it was told what to start a moment ago");
                }
                let ram = match self.image_of(&snapshot) {
                    Ok(ram) => ram,
                    Err(why) => return Answer::parked(to, &format!("the image of persona {} is not here whole: {why}", snapshot.persona)),
                };
                let says = format!("persona {} on {server}", snapshot.persona);
                let exchange = *self.booting.shared.exchange.borrow();
                let Some(port) = exchange.or_else(|| snapshot.root.image.is_none().then_some(EXCHANGE_PORT)) else {
                    return Answer::parked(to, "it could not be told who it is: see the condition IdentitiesServed of the Policy");
                };
                let run = Run::new(Uuid::new_v4().simple().to_string(), timestamp(), snapshot.root.image.is_some());
                let key = self.booting.view.key.clone();
                let told = key.map(|key| self.told(&server, &snapshot, &run, &key));
                let script = match told.as_ref().map(|[run, export, machine_id]| {
                    let exchange = format!("https://{}:{port}{run},sha256={}", to.host(), self.booting.pin);
                    let told = Told { run: &format!("{base}{run}"), export, machine_id, ram: ram.as_ref(), exchange: &exchange };
                    script::start(to, &server, &snapshot, told)
                }) {
                    Some(Ok(script)) => script,
                    Some(Err(why)) => return Answer::parked(to, &format!("persona {}: {why}", snapshot.persona)),
                    None => return Answer::parked(to, "the site's key does not read in the store: `embody rotate-key` makes another one"),
                };
                if !self.starts(&server, &ask, &snapshot.persona, run).await {
                    // It asks again.
                    return Answer::parked(to, "the store does not answer");
                }
                Answer { script, says, persona: Some(snapshot.persona.clone()) }
            }
        }
    }

    /// Where it says how it goes, where its root is mounted, and its machine-id.
    fn told(&self, server: &Name, snapshot: &Snapshot, run: &Run, key: &SiteKey) -> [String; 3] {
        let token = Token { digest: snapshot.digest.clone(), issued: now_in_seconds(), nonce: run.nonce.clone() };
        let export = snapshot.image.as_deref().map(|image| key.export(image, server, &run.nonce)).unwrap_or_default();
        [format!("/run/{server}/{}", key.sign(server, &token)), export, key.machine_id(&self.whose(server, &snapshot.persona))]
    }

    /// By what the identity is made: the binding, whichever server it is on; what is booted once is somebody else.
    pub(super) fn whose(&self, server: &Name, persona: &Name) -> String {
        let body = self.cache.body(server);
        let once = body.once.as_ref().is_some_and(|once| once.boots.is(persona));
        let whose = body.held_by.map(|hold| hold.uid).unwrap_or_default();
        if once { format!("{whose}/{persona}") } else { whose }
    }

    async fn starts(&mut self, server: &Name, ask: &Ask, persona: &Name, run: Run) -> bool {
        let body = self.cache.body(server);
        let mut records = Vec::new();
        let shown = ask.uuid.as_deref().and_then(answer::uuid);
        if let (Some(uuid), None) = (shown, &body.smbios) {
            records.push(Record::Smbios(Some(uuid)));
        }
        records.push(Record::Run { persona: persona.clone(), run });
        self.cache.memory_of(server).parked = None;
        if !self.record(server, &records).await {
            return false;
        }
        self.cache.memory_of(server).told_at = Some(self.clock.now());
        // A power-on of ours ends what ran before it.
        if let Some(before) = body.evidence.get(persona).and_then(|e| e.run.as_ref()) {
            if before.hello.is_some() {
                self.cache.memory_of(server).began_anew_at = self.clock.now();
            }
            // Whatever is in the manifests by now, it is what stands here. One that never came to its kernel only asked again.
            let now = tokio::time::Instant::now();
            let ran = before.hello.is_some() || self.booting.timelines().last(server).is_none_or(|last| last.stage > Stage::Script);
            if ran {
                self.cache.memory_of(server).begins_anew(self.clock.now());
            }
            let message = format!("{server} started persona {persona} anew by itself");
            if ran && self.booting.timelines().is_news(server, "StartedByItself", limits::STARTS_TOLD_EVERY, now) {
                self.status.event("Normal", &format!("Server/{server}"), "StartedByItself", &message);
            }
        }
        self.booting.timelines().saw(server, Stage::Script, &format!("persona {persona}"), tokio::time::Instant::now());
        self.asked(server);
        self.publish();
        true
    }

    /// It was told that it is parked, here or by who answers from the view.
    pub(super) async fn was_parked(&mut self, parked: &Parked) {
        let Some(server) = &parked.server else { return };
        let now = self.clock.now();
        let is_up = self.cache.body(server).evidence.values().any(|evidence| evidence.run.is_some());
        let memory = self.cache.memory_of(server);
        // By what it says of itself; all else for which it may be parked is told of the server.
        memory.parked = (parked.by_itself || (parked.told && !is_up)).then(|| (now, format!("parked: {}", parked.why)));
        memory.was_parked(parked.waits, now);
        let declared = self.cache.body(server).declared.is_some_and(|d| d.what != Declaration::OffButRuns);
        if declared && !self.record(server, &[Record::DeclaredAs(Declaration::OffButRuns)]).await {
            tracing::warn!(server = %server, "that a body which was declared off asks what to boot could not be stored");
        }
        self.asked(server);
    }

    /// What its script or its initrd says of its failure; nothing: that was done now.
    pub(super) fn start_failed(&mut self, server: &Name, what: Option<String>) {
        self.cache.memory_of(server).failed = what.map(|what| (self.clock.now(), what));
        self.wake(server);
    }

    /// What runs there says that it is up, and what its hello waits for.
    pub(super) fn waits_for(&mut self, server: &Name, what: String) {
        let now = self.clock.now();
        let before = self.cache.memory_of(server).waits_for.replace((now, what));
        let is = &self.cache.memory_of(server).waits_for;
        if before.as_ref().map(|(_, what)| what) != is.as_ref().map(|(_, what)| what) {
            self.wake(server);
        }
    }

    /// Whatever it was answered: it is not off.
    pub(super) fn asked(&mut self, server: &Name) {
        let now = self.clock.now();
        self.cache.memory_of(server).asked_what_to_boot(now);
        self.fleet.send(&Device::Bmc(server.clone()), Job::Observe(Depth::State));
        self.wake(server);
    }

    // ---- the site's key --------------------------------------------------------------------------------------------------

    /// Made once, where there is none.
    pub(super) async fn site_key(&mut self) -> Result<(), StoreError> {
        if self.booting.view.key.is_some() || self.cache.store_stop.is_some() {
            return Ok(());
        }
        let key = SiteKey { key: random(), before: None, handles: None, since: timestamp() };
        self.store_key(key, Expect::Absent).await
    }

    async fn store_key(&mut self, key: SiteKey, expect: Expect) -> Result<(), StoreError> {
        let value = serde_json::to_vec(&key).unwrap_or_default();
        self.write_one(Write::put(keys::SITE_KEY, value, expect)).await?;
        self.booting.has_key(key);
        self.publish();
        Ok(())
    }

    /// Another one from now on; what the last one has signed is still taken, until this is said again.
    pub(super) async fn rotate_key(&mut self, who: &str) -> Result<String, Refusal> {
        let present = self.store.get(keys::SITE_KEY).await.map_err(super::actions::in_words)?;
        let first = || SiteKey { key: random(), before: None, handles: None, since: timestamp() };
        let next = self.booting.view.key.as_ref().map_or_else(first, |key| key.next(random(), timestamp()));
        let expect = present.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
        self.store_key(next, expect).await.map_err(super::actions::in_words)?;
        self.status.event("Normal", "Policy/default", "SiteKeyRotated", &format!("by {who}"));
        Ok("the site's key is another one; what the one before has signed is taken until the next rotation".to_owned())
    }

    // ---- addresses -------------------------------------------------------------------------------------------------------

    /// Addresses that are to be given: which of them are stored now, in the order of the question.
    pub(super) async fn give(&mut self, wanted: Vec<(Ipv4Addr, Mac, Name)>) -> Vec<bool> {
        let mut out = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(Records::WRITES_AT_ONCE / 2) {
            let good: Vec<bool> = some.iter().enumerate().map(|(n, w)| self.may_give(w, some.get(..n).unwrap_or_default())).collect();
            let mut writes = Vec::new();
            let mut leases = Vec::new();
            for ((address, mac, network), _) in some.iter().zip(&good).filter(|(_, good)| **good) {
                let lease = Lease { mac: *mac, network: network.clone(), since: timestamp() };
                writes.push(Write::put(
                    keys::lease(*address),
                    serde_json::to_vec(&lease).unwrap_or_default(),
                    self.lease_expected(*address),
                ));
                // It moves within its network.
                if let Some(old) = self.booting.view.lease(*mac, network).filter(|old| old != address)
                    && let Some(revision) = self.cache.lease_revisions.get(&old)
                {
                    writes.push(Write::delete(keys::lease(old), *revision));
                }
                leases.push((*address, lease));
            }
            let stored = match self.write(&writes).await {
                Ok(revisions) => {
                    for (write, revision) in writes.iter().zip(revisions) {
                        if let Some(keys::Key::Lease(address)) = keys::Key::parse(&write.key) {
                            match write.value {
                                Some(_) => drop(self.cache.lease_revisions.insert(address, revision)),
                                None => {
                                    self.cache.lease_revisions.remove(&address);
                                    self.booting.lease(address, None);
                                }
                            }
                        }
                    }
                    leases.into_iter().for_each(|(address, lease)| self.booting.lease(address, Some(lease)));
                    true
                }
                Err(error) => {
                    tracing::warn!(error = %error, "addresses could not be stored, and are not given");
                    false
                }
            };
            out.extend(good.iter().map(|good| *good && stored));
        }
        self.publish();
        out
    }

    fn lease_expected(&self, address: Ipv4Addr) -> Expect {
        self.cache.lease_revisions.get(&address).map_or(Expect::Absent, |revision| Expect::At(*revision))
    }

    /// Nobody has it, and nobody claims it; who had it last is no machine of a manifest, nor of what may be alive.
    fn may_give(&self, (address, mac, _): &(Ipv4Addr, Mac, Name), before: &[(Ipv4Addr, Mac, Name)]) -> bool {
        let view = self.booting.view();
        let other = view.leases.get(address).is_some_and(|lease| lease.mac != *mac && view.machine(lease.mac).is_some());
        let claimed = self.cache.is_claimed(&Claim::Address(IpAddr::V4(*address)));
        let twice = before.iter().any(|(earlier, whose, _)| earlier == address && whose != mac);
        !other && !claimed && !twice
    }

    pub(super) fn discovered(&self) -> Vec<DiscoveredRow> {
        let is_named = |mac: &Mac| self.booting.view.machine(*mac).is_some();
        let strangers = self.booting.timelines().strangers().into_iter().filter(|stranger| !is_named(&stranger.mac));
        let row = |stranger: super::timeline::Stranger| DiscoveredRow {
            mac: stranger.mac.to_string(),
            uuid: stranger.uuid,
            arch: stranger.arch.map(|arch| arch.to_string()),
            network: stranger.network,
            relay: stranger.relay,
            at: stranger.at,
            what: stranger.what,
        };
        strangers.map(row).collect()
    }

    pub(super) fn leases(&self) -> Vec<LeaseRow> {
        let view = self.booting.view();
        let row = |(address, lease): (&Ipv4Addr, &Arc<Lease>)| LeaseRow {
            address: address.to_string(),
            mac: lease.mac.to_string(),
            network: lease.network.to_string(),
            server: view.machine(lease.mac).map(|machine| machine.server.to_string()),
            since: lease.since.clone(),
        };
        view.leases.iter().map(row).collect()
    }
}

/// 64 hexadecimal digits, 244 bits of them random.
fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn now_in_seconds() -> u32 {
    u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}
