//! The one task that owns the world. Messages in (store, lanes, people, boot requests), reconciles when names are due.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::absorb;
use super::clock::Clock;
use super::lane::{Job, Lane, Pace, Report, Said, Setting};
use super::outcome::Failure;
use super::people::Ask;
use super::queue::Queue;
use super::secrets::{self, BadSecret, Gate};
use super::world::{Known, Stored, World};
use crate::boot::answer::Answer;
use crate::drivers::{Depth, Driver};
use crate::limits;
use crate::model::fact::{SwitchSeen, Tick};
use crate::model::secret::{BmcLogin, SnmpLogin};
use crate::model::server::Arch;
use crate::model::status::Event;
use crate::model::{Kind, Mac, Name, Object, ServerSpec, SwitchSpec};
use crate::plan::budget::Budget;
use crate::plan::op::{Device, Op};
use crate::plan::rails::Rails;
use crate::plan::seen::Trouble;
use crate::store::{Change, Entry, Expect, Lease, Revision, Store, StoreError, keys, keys::Key};
use crate::telemetry::timestamp;

/// Makes drivers: real ones over UDP, or simulated ones.
pub trait Devices: Send + Sync {
    fn bmc(&self, server: &Name, spec: &ServerSpec, login: BmcLogin, spacing: std::time::Duration) -> Box<dyn Driver>;
    fn switch(&self, switch: &Name, spec: &SwitchSpec, login: SnmpLogin) -> Box<dyn Driver>;
}

#[derive(Debug)]
pub enum Message {
    Report(Report),
    Ask(Ask),
    /// `again`: the machine asks as its last answer told it to, not because it started.
    Boot {
        mac: Mac,
        arch: Arch,
        again: bool,
        reply: oneshot::Sender<Answer>,
    },
}

/// A word about the site as a whole: a condition of Policy/default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteWord {
    pub ok: bool,
    pub reason: &'static str,
    pub message: String,
}

/// By condition. It outlives brains: what the boot endpoint or the directory said holds until they say something else.
pub type Site = watch::Sender<BTreeMap<&'static str, SiteWord>>;

/// A lane, and what it was made from: another address or another Secret makes another lane.
struct Owned {
    lane: Lane,
    made_from: serde_json::Value,
}

pub struct Brain {
    pub(super) world: World,
    pub(super) queue: Queue,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) lease: Arc<dyn Lease>,
    pub(super) in_flight: BTreeMap<Op, Name>,
    pub(super) failures: BTreeMap<(Name, String), Failure>,
    pub(super) budget: Budget,
    pub(super) dirty_objects: BTreeSet<(Kind, Name)>,
    pub(super) site: Site,
    /// What of it is known to people.
    told: BTreeMap<&'static str, SiteWord>,
    pub(super) rails: Rails,
    devices: Arc<dyn Devices>,
    lanes: BTreeMap<Device, Owned>,
    gates: BTreeMap<(Name, Revision), Arc<Gate>>,
    lane_ids: u64,
    /// When the next switch is to be saved.
    save_at: Option<Tick>,
    /// Glanced at, and still to be reconciled.
    todo: BTreeSet<Name>,
    /// Wishes are arriving: since when, and until when to wait for more.
    settling: Option<(Tick, Tick)>,
    reports: mpsc::Sender<Report>,
}

impl Brain {
    /// Loads everything there is. The revision from which to watch on.
    pub async fn load(
        store: Arc<dyn Store>,
        devices: Arc<dyn Devices>,
        lease: Arc<dyn Lease>,
        clock: Clock,
        reports: mpsc::Sender<Report>,
        site: Site,
    ) -> Result<(Brain, Revision), StoreError> {
        let (entries, revision) = store.list("").await?;
        let mut brain = Brain {
            world: World::default(),
            queue: Queue::default(),
            clock,
            store,
            lease,
            in_flight: BTreeMap::new(),
            failures: BTreeMap::new(),
            budget: Budget::default(),
            dirty_objects: BTreeSet::new(),
            site,
            told: BTreeMap::new(),
            rails: Rails::default(),
            devices,
            lanes: BTreeMap::new(),
            gates: BTreeMap::new(),
            lane_ids: 0,
            save_at: None,
            todo: BTreeSet::new(),
            settling: None,
            reports,
        };
        for entry in &entries {
            brain.absorb_entry(entry);
        }
        brain.default_policy().await?;
        brain.all_lanes();
        brain.wake_all();
        Ok((brain, revision))
    }

    /// A site without a Policy gets the one that holds anyway, so that there is an object to look at, to edit, and to hold the site's conditions.
    /// The watch brings it back.
    async fn default_policy(&self) -> Result<(), StoreError> {
        let Ok(name) = crate::model::policy::DEFAULT.parse::<Name>() else { return Ok(()) };
        let mut meta = crate::model::Meta::named(name.clone());
        meta.uid = uuid::Uuid::new_v4().to_string();
        meta.generation = 1;
        meta.creation_timestamp = Some(timestamp());
        let spec = crate::model::Spec::Policy(crate::model::PolicySpec::default());
        let object = Object { meta, spec, status: serde_json::Value::Null };
        let value = serde_json::to_vec(&object.to_json()).unwrap_or_default();
        match self.store.put_if(&keys::object(Kind::Policy, &name), value, Expect::Absent).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Until the channel closes or the store's watch ends.
    pub async fn run(
        &mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut reports: mpsc::Receiver<Report>,
        mut watch: mpsc::Receiver<Result<Change, StoreError>>,
    ) {
        let mut site = self.site.subscribe();
        site.mark_changed();
        loop {
            let due = self.queue.next_due().unwrap_or_else(|| self.clock.now().plus(limits::IDLE));
            let due = self.save_at.map_or(due, |at| due.min(at));
            let due = if self.todo.is_empty() { due } else { self.clock.now() };
            let due = self.settling.map_or(due, |(_, until)| due.max(until));
            tokio::select! {
                biased;
                change = watch.recv() => match change {
                    Some(Ok(change)) => self.absorb_change(change),
                    Some(Err(error)) => {
                        tracing::warn!(error = %error, "the watch of the store ended; everything is read again");
                        return;
                    }
                    None => return,
                },
                report = reports.recv() => match report {
                    Some(report) => self.absorb_report(report).await,
                    None => return,
                },
                message = inbox.recv() => match message {
                    Some(Message::Report(report)) => self.absorb_report(report).await,
                    Some(Message::Ask(ask)) => self.answer(ask).await,
                    Some(Message::Boot { mac, arch, again, reply }) => {
                        let answer = self.boot(mac, arch, again);
                        let _ = reply.send(answer);
                    }
                    None => return,
                },
                // The sender is our own: it does not close while we run.
                _ = site.changed() => self.tell_site().await,
                () = tokio::time::sleep_until(self.clock.instant(due)) => {}
            }
            self.work().await;
        }
    }

    /// Everything that is due, in two passes: first how each server stands, then, when the rails know of all of them, the steps.
    async fn work(&mut self) {
        self.expire();
        let now = self.clock.now();
        match self.settling {
            Some((_, until)) if now < until => return,
            Some(_) => self.settling = None,
            None => {}
        }
        let mut due = Vec::new();
        while let Some(server) = self.queue.pop(now) {
            due.push(server);
        }
        for server in due {
            if !self.todo.contains(&server) && self.glance(&server).await {
                self.todo.insert(server);
            }
        }
        self.raise_rails().await;
        // In portions: a boot request must not wait for a thousand servers.
        for _ in 0..limits::RECONCILES_AT_ONCE {
            let Some(server) = self.todo.pop_first() else { break };
            self.reconcile(&server).await;
        }
        self.save_at = self.save_switches();
        self.write_device_statuses().await;
    }

    /// What the rails say of all servers together.
    async fn raise_rails(&mut self) {
        let policy = self.world.objects.policy();
        let bodies = self.world.objects.servers.len();
        self.rails.hold(bodies, &policy.limits);
        self.world.railed = self.rails.held();
        let breaker = self.rails.breaker(bodies, &policy.limits, policy.bmc.poll_interval.0 * 2, self.clock.now());
        if breaker.is_some() != self.world.breaker.is_some() {
            let word = match &breaker {
                Some(trouble) => SiteWord { ok: false, reason: trouble.reason, message: trouble.message.clone() },
                None => SiteWord { ok: true, reason: "BreakerClosed", message: String::new() },
            };
            tracing::warn!(open = breaker.is_some(), message = word.message, "the breaker");
            self.world.breaker = breaker;
            self.site.send_modify(|site| drop(site.insert("Correcting", word)));
            self.wake_all();
        }
    }

    /// One change of wishes arrives as many objects: what they ask for together is judged when the last of them is here.
    fn wish_arrived(&mut self) {
        let now = self.clock.now();
        let first = self.settling.map_or(now, |(first, _)| first);
        let until = now.plus(limits::SETTLE).min(first.plus(limits::SETTLE_MAX));
        self.settling = Some((first, until));
    }

    pub(super) fn wake(&mut self, server: &Name) {
        let now = self.clock.now();
        self.queue.wake(server, now);
    }

    pub(super) fn wake_all(&mut self) {
        let names: BTreeSet<Name> = self.world.objects.servers.keys().chain(self.world.bodies.keys()).cloned().collect();
        for name in names {
            self.wake(&name);
        }
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        let gone: Vec<Name> = self.world.approvals.iter().filter(|(_, (_, until))| now >= *until).map(|(n, _)| n.clone()).collect();
        for binding in gone {
            self.world.approvals.remove(&binding);
            self.wake_binding(&binding);
        }
        let over: Vec<String> =
            self.world.pauses.iter().filter(|(_, (_, until))| until.is_some_and(|u| now >= u)).map(|(k, _)| k.clone()).collect();
        if !over.is_empty() {
            for key in over {
                self.world.pauses.remove(&key);
            }
            self.wake_all();
        }
    }

    pub(super) fn wake_binding(&mut self, binding: &Name) {
        let target = self.world.objects.bindings.get(binding).and_then(|b| b.spec.target.server.clone());
        let others = self.world.bodies.iter().filter(|(_, b)| {
            b.value.held_by.as_ref().is_some_and(|h| h.binding == *binding)
                || b.value.release.as_ref().is_some_and(|h| h.binding == *binding)
        });
        let names: Vec<Name> = target.into_iter().chain(others.map(|(s, _)| s.clone())).collect();
        for server in names {
            self.wake(&server);
        }
    }

    // ---- the store -----------------------------------------------------------------------------------------------------

    fn absorb_change(&mut self, change: Change) {
        match change {
            Change::Put(entry) => {
                if let Some(touched) = self.absorb_entry(&entry) {
                    self.wish_arrived();
                    self.touched(touched.0, &touched.1);
                }
            }
            Change::Deleted { key, .. } => {
                if let Some(Key::Object(kind, name)) = Key::parse(&key) {
                    // Who was bound is woken before the index forgets it.
                    self.touched(kind, &name);
                    self.world.objects.remove(kind, &name);
                    self.world.stored.remove(&(kind, name.clone()));
                    match kind {
                        Kind::Binding => self.rails.is_up(&name),
                        Kind::Server => self.rails.forget(&name),
                        Kind::Policy | Kind::Secret | Kind::Network | Kind::Switch | Kind::Persona => {}
                    }
                    self.touched(kind, &name);
                }
            }
        }
    }

    /// The object whose wishes differ now, if it is one.
    fn absorb_entry(&mut self, entry: &Entry) -> Option<(Kind, Name)> {
        if let Some(Key::Object(kind, name)) = Key::parse(&entry.key) {
            let object = match serde_json::from_slice(&entry.value)
                .map_err(|e| e.to_string())
                .and_then(|v| Object::from_json(v).map_err(|e| e.to_string()))
            {
                Ok(object) => object,
                Err(error) => {
                    tracing::error!(key = entry.key, error, "a stored object does not read; it is left alone");
                    return None;
                }
            };
            let stored = Stored { value: object.status.clone(), revision: entry.revision };
            self.world.stored.insert((kind, name.clone()), stored);
            let same = self.same_wish(&object);
            self.world.objects.insert(&object);
            return (!same).then_some((kind, name));
        }
        self.absorb_record(entry);
        None
    }

    fn same_wish(&self, object: &Object) -> bool {
        let o = &self.world.objects;
        let name = object.name();
        let held = match object.kind() {
            Kind::Policy => o.policies.get(name).map(|h| &h.meta),
            Kind::Secret => o.secrets.get(name).map(|h| &h.meta),
            Kind::Network => o.networks.get(name).map(|h| &h.meta),
            Kind::Switch => o.switches.get(name).map(|h| &h.meta),
            Kind::Server => o.servers.get(name).map(|h| &h.meta),
            Kind::Persona => o.personas.get(name).map(|h| &h.meta),
            Kind::Binding => o.bindings.get(name).map(|h| &h.meta),
        };
        held.is_some_and(|m| m.uid == object.meta.uid && m.generation == object.meta.generation && m.labels == object.meta.labels)
    }

    /// Records about bodies and pins are ours: they are taken from the store at the start only, since nobody else writes them while we act.
    fn absorb_record(&mut self, entry: &Entry) {
        let unreadable = |error: serde_json::Error| tracing::error!(key = entry.key, error = %error, "a stored record does not read");
        match Key::parse(&entry.key) {
            Some(Key::Body(server)) => {
                if self.world.bodies.get(&server).is_some_and(|b| b.revision >= entry.revision) {
                    return;
                }
                match serde_json::from_slice(&entry.value) {
                    Ok(body) => self.world.set_body(&server, body, entry.revision),
                    Err(error) => unreadable(error),
                }
            }
            Some(Key::Pin(kind, name)) => match serde_json::from_slice(&entry.value) {
                Ok(value) => drop(self.world.pins.insert((kind, name), Stored { value, revision: entry.revision })),
                Err(error) => unreadable(error),
            },
            Some(Key::Pause(id)) => match serde_json::from_slice::<super::world::Pause>(&entry.value) {
                Ok(pause) => {
                    let left = pause.until.as_deref().map(super::people::seconds_until);
                    let until = left.map(|s| self.clock.now().plus(std::time::Duration::from_secs(s)));
                    self.world.pauses.insert(id, (pause, until));
                }
                Err(error) => unreadable(error),
            },
            Some(Key::Approval(binding)) => match serde_json::from_slice::<super::people::Approved>(&entry.value) {
                Ok(approved) => drop(self.world.approvals.insert(binding, approved.restored(self.clock.now()))),
                Err(error) => unreadable(error),
            },
            Some(Key::Object(..)) | None => {}
        }
    }

    /// An object's wishes changed: its lane, and the servers that it concerns.
    fn touched(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Server => {
                self.lane_of(&Device::Bmc(name.clone()));
                self.wake(name);
                self.dirty_objects.insert((kind, name.clone()));
                // A port that moved from one server to another concerns both.
                let switches: Vec<Name> = self
                    .world
                    .objects
                    .servers
                    .get(name)
                    .map(|s| crate::model::objects::server_switches(&s.spec).into_iter().collect())
                    .unwrap_or_default();
                for switch in switches {
                    self.wake_switch(&switch);
                }
            }
            Kind::Switch => {
                self.lane_of(&Device::Switch(name.clone()));
                self.wake_switch(name);
                self.dirty_objects.insert((kind, name.clone()));
            }
            Kind::Binding => self.wake_binding(name),
            Kind::Secret => {
                self.gates.retain(|(secret, _), _| secret != name);
                self.all_lanes();
            }
            Kind::Persona => {
                let bindings: Vec<Name> = self.world.objects.bindings_of_persona(name).cloned().collect();
                for binding in bindings {
                    self.wake_binding(&binding);
                }
            }
            Kind::Network => self.wake_all(),
            Kind::Policy => {
                self.all_lanes();
                self.wake_all();
                self.dirty_objects.insert((kind, name.clone()));
            }
        }
    }

    fn wake_switch(&mut self, switch: &Name) {
        let servers: Vec<Name> = self.world.objects.servers_on_switch(switch).cloned().collect();
        for server in servers {
            self.wake(&server);
        }
    }

    // ---- lanes ---------------------------------------------------------------------------------------------------------

    fn all_lanes(&mut self) {
        let servers = self.world.objects.servers.keys().cloned().map(Device::Bmc);
        let switches = self.world.objects.switches.keys().cloned().map(Device::Switch);
        let gone: Vec<Device> = self.lanes.keys().cloned().collect();
        for device in servers.chain(switches).chain(gone).collect::<BTreeSet<Device>>() {
            self.lane_of(&device);
        }
    }

    /// Makes the lane of a device what the objects say: started, replaced, ended, or left as it is.
    fn lane_of(&mut self, device: &Device) {
        let made_from = self.made_from(device);
        if self.lanes.get(device).map(|o| &o.made_from) == made_from.as_ref() {
            return;
        }
        let before = self.end_lane(device);
        let Some(made_from) = made_from else {
            tokio::spawn(before);
            return;
        };
        let policy = self.world.objects.policy();
        let built = match device {
            Device::Bmc(name) => self.world.objects.servers.get(name).map(|held| {
                let gate = self.gate(&held.spec.bmc.secret_ref.name);
                let login = self.bmc_login(&held.spec);
                let pace = Pace { poll_every: policy.bmc.poll_interval.0, deadline: limits::BMC_DEADLINE };
                login.map(|login| (self.devices.bmc(name, &held.spec, login, policy.bmc.spacing.0), pace, gate))
            }),
            Device::Switch(name) => self.world.objects.switches.get(name).map(|held| {
                let gate = self.gate(&held.spec.snmp.secret_ref.name);
                let login = self.snmp_login(&held.spec);
                let pace = Pace { poll_every: policy.switch.poll_interval.0, deadline: limits::SWITCH_DEADLINE };
                login.map(|login| (self.devices.switch(name, &held.spec, login), pace, gate))
            }),
        };
        match built {
            Some(Ok((driver, pace, gate))) => {
                self.lane_ids += 1;
                let setting = Setting { pace, gate, clock: self.clock, reports: self.reports.clone() };
                let lane = Lane::start(self.lane_ids, device.clone(), driver, setting, before);
                self.lanes.insert(device.clone(), Owned { lane, made_from });
            }
            Some(Err(error)) => {
                tokio::spawn(before);
                self.no_login(device, &error);
            }
            None => drop(tokio::spawn(before)),
        }
    }

    fn gate(&self, secret: &Name) -> Arc<Gate> {
        let revision = self.world.objects.secrets.get(secret).map_or(0, |s| s.meta.generation);
        self.gates.get(&(secret.clone(), revision)).cloned().unwrap_or_default()
    }

    /// What a lane depends on. Nothing: there is no such object. The gate of its Secret is made here, so that all its lanes share it.
    fn made_from(&mut self, device: &Device) -> Option<serde_json::Value> {
        let policy = self.world.objects.policy();
        let (spec, secret) = match device {
            Device::Bmc(name) => {
                let held = self.world.objects.servers.get(name)?;
                (serde_json::json!([held.meta.uid, held.spec.bmc, policy.bmc]), held.spec.bmc.secret_ref.name.clone())
            }
            Device::Switch(name) => {
                let held = self.world.objects.switches.get(name)?;
                (serde_json::json!([held.meta.uid, held.spec, policy.switch]), held.spec.snmp.secret_ref.name.clone())
            }
        };
        let version = self.world.objects.secrets.get(&secret).map(|s| (s.meta.uid.clone(), s.meta.generation));
        let generation = version.as_ref().map_or(0, |v| v.1);
        self.gates.entry((secret.clone(), generation)).or_default();
        Some(serde_json::json!([spec, secret, version]))
    }

    /// Forgets what the device showed. Resolves when the lane has let go of it.
    fn end_lane(&mut self, device: &Device) -> impl Future<Output = ()> + Send + 'static {
        let end = self.lanes.remove(device).map(|owned| owned.lane.end());
        let lost: Vec<Op> = self.in_flight.keys().filter(|op| op.device() == *device).cloned().collect();
        for op in lost {
            self.in_flight.remove(&op);
            self.budget.release(&op);
        }
        match device {
            Device::Bmc(name) => self.world.forget_device_of_server(name),
            Device::Switch(name) => self.world.forget_device_of_switch(name),
        }
        async move {
            if let Some(end) = end {
                end.await;
            }
        }
    }

    /// Ends all lanes: the sessions of all BMCs are closed, side by side.
    pub async fn close(mut self) {
        let mut ends = tokio::task::JoinSet::new();
        for (_, owned) in std::mem::take(&mut self.lanes) {
            ends.spawn(owned.lane.end());
        }
        while ends.join_next().await.is_some() {}
    }

    /// Starts the lane of a device anew, with its refused credentials and failures forgotten.
    pub(super) fn retry_device(&mut self, device: &Device) {
        let secret = match device {
            Device::Bmc(name) => self.world.objects.servers.get(name).map(|s| s.spec.bmc.secret_ref.name.clone()),
            Device::Switch(name) => self.world.objects.switches.get(name).map(|s| s.spec.snmp.secret_ref.name.clone()),
        };
        if let Some(secret) = secret {
            self.gates.retain(|(s, _), _| *s != secret);
        }
        if let Some(owned) = self.lanes.get_mut(device) {
            owned.made_from = serde_json::Value::Null;
        }
        self.lane_of(device);
    }

    fn bmc_login(&self, spec: &ServerSpec) -> Result<BmcLogin, BadSecret> {
        let name = &spec.bmc.secret_ref.name;
        let missing =
            || BadSecret::Source { secret: name.to_string(), place: "the store".to_owned(), why: "there is no such Secret".to_owned() };
        secrets::bmc_login(name.as_str(), &self.world.objects.secrets.get(name).ok_or_else(missing)?.spec)
    }

    fn snmp_login(&self, spec: &SwitchSpec) -> Result<SnmpLogin, BadSecret> {
        let name = &spec.snmp.secret_ref.name;
        let missing =
            || BadSecret::Source { secret: name.to_string(), place: "the store".to_owned(), why: "there is no such Secret".to_owned() };
        secrets::snmp_login(name.as_str(), spec.snmp.version, &self.world.objects.secrets.get(name).ok_or_else(missing)?.spec)
    }

    fn no_login(&mut self, device: &Device, error: &BadSecret) {
        let trouble = Some(Trouble { reason: "NoCredentials", message: error.to_string() });
        match device {
            Device::Bmc(name) => {
                let facts = self.world.bmcs.entry(name.clone()).or_default();
                facts.known.trouble = trouble;
                self.wake(name);
            }
            Device::Switch(name) => {
                self.world.switches.insert(name.clone(), Known::<SwitchSeen> { trouble, ..Known::default() });
                self.wake_switch(name);
                self.dirty_objects.insert((Kind::Switch, name.clone()));
            }
        }
    }

    pub(super) fn has_lane(&self, device: &Device) -> bool {
        self.lanes.contains_key(device)
    }

    pub(super) fn send(&self, device: &Device, job: Job) -> bool {
        self.lanes.get(device).is_some_and(|o| o.lane.send(job))
    }

    // ---- reports -------------------------------------------------------------------------------------------------------

    async fn absorb_report(&mut self, report: Report) {
        if self.lanes.get(&report.device).is_none_or(|o| o.lane.id != report.lane) {
            return;
        }
        if let Said::Did(op, result) = &report.said {
            self.came_back(op, report.asked_at, result.as_ref().err()).await;
        }
        let changed = absorb::report(&mut self.world, &report);
        if let Some((kind, name, pin)) = changed.pin {
            self.remember(kind, name, pin).await;
        }
        if let Some(up) = changed.reachability {
            self.rails.flipped(report.device.to_string(), self.clock.now());
            self.tell_reachability(&report.device, up).await;
        }
        for server in &changed.servers {
            self.wake(server);
        }
        self.dirty_objects.extend(changed.device);
    }

    /// Remembers what identifies a device, on first sight.
    async fn remember(&mut self, kind: Kind, name: Name, pin: String) {
        let value = serde_json::to_vec(&pin).unwrap_or_default();
        match self.store.put_if(&keys::pin(kind, &name), value, Expect::Absent).await {
            Ok(revision) => drop(self.world.pins.insert((kind, name), Stored { value: pin, revision })),
            Err(error) => tracing::warn!(error = %error, "the identity of a device could not be stored; it is tried again"),
        }
    }

    async fn tell_reachability(&mut self, device: &Device, up: bool) {
        let (kind, name) = match device {
            Device::Bmc(name) => (Kind::Server, name),
            Device::Switch(name) => (Kind::Switch, name),
        };
        let trouble = match device {
            Device::Bmc(name) => self.world.bmcs.get(name).and_then(|f| f.known.trouble.clone()),
            Device::Switch(name) => self.world.switches.get(name).and_then(|k| k.trouble.clone()),
        };
        match trouble {
            Some(t) => self.event("Warning", &format!("{kind}/{name}"), t.reason, &t.message).await,
            None if up => self.event("Normal", &format!("{kind}/{name}"), "Answers", &format!("{device} answers")).await,
            None => {}
        }
    }

    pub(super) async fn event(&self, kind: &str, regarding: &str, reason: &str, message: &str) {
        let event = Event {
            time: timestamp(),
            kind: kind.to_owned(),
            regarding: regarding.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        if let Err(error) = self.store.record_event(serde_json::to_vec(&event).unwrap_or_default()).await {
            tracing::warn!(error = %error, "an event could not be stored");
        }
    }

    /// Tells what is new about the site.
    async fn tell_site(&mut self) {
        let site = self.site.borrow().clone();
        if site == self.told {
            return;
        }
        for (condition, word) in &site {
            if self.told.get(condition) != Some(word) {
                let level = if word.ok { "Normal" } else { "Warning" };
                self.event(level, "Policy/default", word.reason, &word.message).await;
            }
        }
        self.told = site;
        self.dirty_objects.extend(self.world.objects.policies.keys().next().map(|name| (Kind::Policy, name.clone())));
    }

    fn boot(&mut self, mac: Mac, arch: Arch, again: bool) -> Answer {
        let answer = crate::boot::answer::answer(mac, arch, &self.world);
        // A machine that is parked, or asks again because its answer told it to, has not started anything.
        if again || answer.persona.is_none() {
            return answer;
        }
        if let Some(server) = self.world.server_of(mac).cloned() {
            self.world.memory_of(&server).start_seen_at = Some(self.clock.now());
            self.send(&Device::Bmc(server.clone()), Job::Look(Depth::State));
            self.wake(&server);
        }
        answer
    }
}
