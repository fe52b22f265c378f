//! Which workers there are: one for each device that the objects name, made anew when its address, its Secret or its policy changes.
//!
//! Leaves out: what becomes of operations that were on their way to a worker which ends (`in_flight`). Invariant: two workers never speak to
//! one device: the new one begins when the old one has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::cache::{Cache, Known};
use super::controller::Controller;
use super::logins::{Logins, NoLogin};
use super::worker::{Job, Pace, Report, Setting, Worker};
use crate::clock::Clock;
use crate::drivers::credentials::Turns;
use crate::drivers::gate::{Gate, Key};
use crate::drivers::{Devices, Driver};
use crate::limits;
use crate::model::fact::SwitchSeen;
use crate::model::op::{Device, Op};
use crate::model::{Kind, Name};
use crate::store::LeaseEnd;

/// What all workers share, and those that there are.
pub(super) struct Fleet {
    devices: Arc<dyn Devices>,
    lease: Arc<LeaseEnd>,
    clock: Clock,
    reports: mpsc::Sender<Report>,
    pub(super) logins: Logins,
    workers: BTreeMap<Device, Owned>,
    /// Of the worker that was made last.
    last_id: u64,
    /// When it has its turn to poll for the first time.
    last_turn: Instant,
}

type Built = (Box<dyn Driver>, Pace, Arc<Turns>);

/// A worker, and what it was made from: another address or another Secret makes another worker.
struct Owned {
    worker: Worker,
    /// By `made_from`; nothing: by what is not known any more.
    made_from: Option<u64>,
}

impl Fleet {
    pub(super) fn new(devices: Arc<dyn Devices>, lease: Arc<LeaseEnd>, clock: Clock, reports: mpsc::Sender<Report>) -> Fleet {
        Fleet { devices, lease, clock, reports, logins: Logins::default(), workers: BTreeMap::new(), last_id: 0, last_turn: Instant::now() }
    }

    /// Whether the objects ask for another worker than there is, or for none.
    fn differs(&self, device: &Device, cache: &Cache) -> bool {
        self.workers.get(device).map(|o| o.made_from) != made_from(device, cache).map(Some)
    }

    /// Ends the worker of a device, and makes the one that the objects ask for. Why there is none, where its credentials cannot be had.
    fn replace(&mut self, device: &Device, cache: &Cache) -> Option<NoLogin> {
        let before = self.end(device);
        let Some(built) = self.driver(device, cache) else {
            tokio::spawn(before);
            return None;
        };
        match built {
            Ok((driver, pace, turns)) => {
                self.last_id += 1;
                self.last_turn = self.last_turn.max(Instant::now()) + limits::BETWEEN_FIRST_POLLS;
                let (reports, lease) = (self.reports.clone(), Arc::clone(&self.lease));
                let setting = Setting { pace, first_turn: self.last_turn, turns, clock: self.clock, reports, lease };
                let worker = Worker::start(self.last_id, device.clone(), driver, setting, before);
                let made_from = made_from(device, cache);
                self.workers.insert(device.clone(), Owned { worker, made_from });
                None
            }
            Err(none) => {
                tokio::spawn(before);
                Some(none)
            }
        }
    }

    /// What the objects ask for. Nothing: there is no such device.
    fn driver(&mut self, device: &Device, cache: &Cache) -> Option<Result<Built, NoLogin>> {
        let pace = pace_of(device, cache);
        match device {
            Device::Bmc(name) => {
                let spec = &cache.objects.servers.get(name)?.spec;
                let spacing = cache.objects.policy().bmc.spacing.0;
                let turns = self.logins.turns_of(&spec.bmc.secret_ref.name, cache);
                let login = self.logins.bmc(spec, cache);
                Some(login.map(|login| (self.devices.bmc(name, spec, login, spacing, Arc::clone(&turns)), pace, turns)))
            }
            Device::Switch(name) => {
                let spec = &cache.objects.switches.get(name)?.spec;
                let turns = self.logins.turns_of(&spec.snmp.secret_ref.name, cache);
                let login = self.logins.snmp(spec, cache);
                Some(login.map(|login| (self.devices.switch(name, spec, login, Arc::clone(&turns)), pace, turns)))
            }
        }
    }

    /// Tells the workers that there are how often they are to poll now.
    pub(super) fn set_paces(&self, cache: &Cache) {
        for (device, owned) in &self.workers {
            owned.worker.send(Job::Pace(pace_of(device, cache).poll_every));
        }
    }

    /// The next question about this device makes its worker anew, with refused credentials forgotten.
    fn forget(&mut self, device: &Device, cache: &Cache) {
        if let Some(secret) = secret_of(device, cache) {
            self.logins.forget(secret);
        }
        self.make_anew(device);
    }

    /// The next question about this device makes its worker anew.
    pub(super) fn make_anew(&mut self, device: &Device) {
        if let Some(owned) = self.workers.get_mut(device) {
            owned.made_from = None;
        }
    }

    /// Resolves when the worker has let go of its device.
    fn end(&mut self, device: &Device) -> impl Future<Output = ()> + Send + 'static {
        let end = self.workers.remove(device).map(|owned| owned.worker.end());
        async move {
            if let Some(end) = end {
                end.await;
            }
        }
    }

    /// Ends all workers: the sessions of all BMCs are closed, side by side.
    pub(super) async fn close(&mut self) {
        let mut ends = tokio::task::JoinSet::new();
        for (_, owned) in std::mem::take(&mut self.workers) {
            ends.spawn(owned.worker.end());
        }
        while ends.join_next().await.is_some() {}
    }

    /// Whether a report is of the worker that there is now, not of one before it.
    pub(super) fn is_current(&self, report: &Report) -> bool {
        self.workers.get(&report.device).is_some_and(|o| o.worker.id == report.worker)
    }

    pub(super) fn has(&self, device: &Device) -> bool {
        self.workers.contains_key(device)
    }

    pub(super) fn send(&self, device: &Device, job: Job) -> bool {
        self.workers.get(device).is_some_and(|o| o.worker.send(job))
    }

    /// Sends an operation with the right to carry it out once, on the device that is pinned now.
    pub(super) fn send_op(&self, op: Op, cache: &Cache) -> bool {
        let device = op.device();
        let Some(owned) = self.workers.get(&device) else { return false };
        let (kind, name) = match &device {
            Device::Bmc(server) => (Kind::Server, server),
            Device::Switch(switch) => (Kind::Switch, switch),
        };
        let permit = owned.worker.gate().permit(Key::of(&op), cache.pinned(kind, name));
        owned.worker.send(Job::Do(Box::new((op, permit))))
    }

    pub(super) fn gate(&self, device: &Device) -> Option<&Arc<Gate>> {
        self.workers.get(device).map(|owned| owned.worker.gate())
    }

    pub(super) fn gates(&self) -> impl Iterator<Item = (&Device, &Arc<Gate>)> {
        self.workers.iter().map(|(device, owned)| (device, owned.worker.gate()))
    }

    /// A power command that was sent and has not left yet belongs to an attempt that is over.
    pub(super) fn void_power(&self, server: &Name) {
        if let Some(gate) = self.gate(&Device::Bmc(server.clone())) {
            gate.void(&Key::Power);
        }
    }
}

/// The Secret that a device's object names.
pub(super) fn secret_of<'a>(device: &Device, cache: &'a Cache) -> Option<&'a Name> {
    Some(match device {
        Device::Bmc(name) => &cache.objects.servers.get(name)?.spec.bmc.secret_ref.name,
        Device::Switch(name) => &cache.objects.switches.get(name)?.spec.snmp.secret_ref.name,
    })
}

/// What a worker depends on, but for its pace. Nothing: there is no such object. Two that are one by chance (1 in 2^64) leave the worker as it is.
fn made_from(device: &Device, cache: &Cache) -> Option<u64> {
    let policy = cache.objects.policy();
    let secret = secret_of(device, cache)?;
    let version = cache.objects.secrets.get(secret).map(|s| (&s.meta.uid, s.meta.generation));
    let text = match device {
        Device::Bmc(name) => {
            let held = cache.objects.servers.get(name)?;
            serde_json::to_vec(&(&held.meta.uid, &held.spec.bmc, policy.bmc.spacing, secret, version))
        }
        Device::Switch(name) => {
            let held = cache.objects.switches.get(name)?;
            serde_json::to_vec(&(&held.meta.uid, &held.spec, secret, version))
        }
    };
    // What has a text form in JSON always has one.
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&text.unwrap_or_default(), &mut hasher);
    Some(std::hash::Hasher::finish(&hasher))
}

/// How often a device is polled, and how long one request may take.
fn pace_of(device: &Device, cache: &Cache) -> Pace {
    let policy = cache.objects.policy();
    match device {
        Device::Bmc(_) => Pace { poll_every: policy.bmc.poll_interval.0, deadline: limits::BMC_DEADLINE },
        Device::Switch(_) => Pace { poll_every: policy.switch.poll_interval.0, deadline: limits::SWITCH_DEADLINE },
    }
}

impl Controller {
    pub(super) fn all_workers(&mut self) {
        let servers = self.cache.objects.servers.keys().cloned().map(Device::Bmc);
        let switches = self.cache.objects.switches.keys().cloned().map(Device::Switch);
        let gone = self.fleet.workers.keys().cloned();
        for device in servers.chain(switches).chain(gone).collect::<BTreeSet<Device>>() {
            self.worker_of(&device);
        }
    }

    /// Makes the worker of a device what the objects say: started, replaced, ended, or left as it is.
    pub(super) fn worker_of(&mut self, device: &Device) {
        if !self.fleet.differs(device, &self.cache) {
            return;
        }
        // What the device showed is forgotten, and what was on its way to it may have left until now.
        let now = self.clock.now();
        for (op, server) in self.in_flight.lose(device) {
            self.cache.memory_of(&server).came_back(&op, now);
            if let Op::SetPort { switch, port, .. } = &op {
                self.cache.ports_in_flight.remove(&(switch.clone(), port.clone()));
            }
        }
        match device {
            Device::Bmc(name) => self.cache.forget_device_of_server(name),
            Device::Switch(name) => self.cache.forget_device_of_switch(name),
        }
        if let Some(none) = self.fleet.replace(device, &self.cache) {
            self.no_login(device, none);
        }
    }

    /// Starts the worker of a device anew, with its refused credentials and failures forgotten.
    pub(super) fn retry_device(&mut self, device: &Device) {
        self.fleet.forget(device, &self.cache);
        self.worker_of(device);
    }

    fn no_login(&mut self, device: &Device, none: NoLogin) {
        let NoLogin { trouble, again_at } = none;
        let trouble = Some(trouble);
        match device {
            Device::Bmc(name) => {
                let facts = self.cache.bmcs.entry(name.clone()).or_default();
                facts.known.trouble = trouble;
                facts.known.again_at = again_at;
                self.wake(name);
            }
            Device::Switch(name) => {
                self.cache.switches.insert(name.clone(), Known::<Arc<SwitchSeen>> { trouble, again_at, ..Known::default() });
                self.wake_switch(name);
                self.status.changed(Kind::Switch, name);
            }
        }
    }
}
