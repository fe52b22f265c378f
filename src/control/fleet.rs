//! Which workers there are: one for each device that the objects name, made anew when its address, its Secret or its policy changes.
//!
//! Invariant: two workers never speak to one device: the new one begins when the old one has ended.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use super::cache::Known;
use super::controller::{Controller, Remembered};
use super::logins::NoLogin;
use super::worker::{Job, Pace, Setting, Worker};
use crate::drivers::credentials::Turns;
use crate::drivers::gate::{Gate, Key};
use crate::limits;
use crate::model::fact::SwitchSeen;
use crate::model::op::{Device, Op};
use crate::model::{Kind, Name};

/// A worker, and what it was made from: another address or another Secret makes another worker.
pub(super) struct Owned {
    pub(super) worker: Worker,
    made_from: serde_json::Value,
}

impl Controller {
    pub(super) fn all_workers(&mut self) {
        let servers = self.cache.objects.servers.keys().cloned().map(Device::Bmc);
        let switches = self.cache.objects.switches.keys().cloned().map(Device::Switch);
        let gone: Vec<Device> = self.workers.keys().cloned().collect();
        for device in servers.chain(switches).chain(gone).collect::<BTreeSet<Device>>() {
            self.worker_of(&device);
        }
    }

    /// Makes the worker of a device what the objects say: started, replaced, ended, or left as it is.
    pub(super) fn worker_of(&mut self, device: &Device) {
        let made_from = self.made_from(device);
        if self.workers.get(device).map(|o| &o.made_from) == made_from.as_ref() {
            return;
        }
        let before = self.end_worker(device);
        let Some(made_from) = made_from else {
            tokio::spawn(before);
            return;
        };
        let policy = self.cache.objects.policy();
        let built = match device {
            Device::Bmc(name) => self.cache.objects.servers.get(name).cloned().map(|held| {
                let turns = self.turns_of(&held.spec.bmc.secret_ref.name);
                let login = self.bmc_login(&held.spec);
                let pace = Pace { poll_every: policy.bmc.poll_interval.0, deadline: limits::BMC_DEADLINE };
                login.map(|login| (self.devices.bmc(name, &held.spec, login, policy.bmc.spacing.0, Arc::clone(&turns)), pace, turns))
            }),
            Device::Switch(name) => self.cache.objects.switches.get(name).cloned().map(|held| {
                let turns = self.turns_of(&held.spec.snmp.secret_ref.name);
                let login = self.snmp_login(&held.spec);
                let pace = Pace { poll_every: policy.switch.poll_interval.0, deadline: limits::SWITCH_DEADLINE };
                login.map(|login| (self.devices.switch(name, &held.spec, login, Arc::clone(&turns)), pace, turns))
            }),
        };
        match built {
            Some(Ok((driver, pace, turns))) => {
                self.worker_ids += 1;
                let lease = self.lease.until();
                let setting = Setting { pace, turns, clock: self.clock, reports: self.reports.clone(), lease };
                let worker = Worker::start(self.worker_ids, device.clone(), driver, setting, before);
                self.workers.insert(device.clone(), Owned { worker, made_from });
            }
            Some(Err(none)) => {
                tokio::spawn(before);
                self.no_login(device, none);
            }
            None => drop(tokio::spawn(before)),
        }
    }

    fn turns_of(&self, secret: &Name) -> Arc<Turns> {
        let revision = self.cache.objects.secrets.get(secret).map_or(0, |s| s.meta.generation);
        self.credential_turns.get(&(secret.clone(), revision)).cloned().unwrap_or_default()
    }

    /// What a worker depends on. Nothing: there is no such object. The turns of its Secret is made here, so that all its workers share it.
    fn made_from(&mut self, device: &Device) -> Option<serde_json::Value> {
        let policy = self.cache.objects.policy();
        let (spec, secret) = match device {
            Device::Bmc(name) => {
                let held = self.cache.objects.servers.get(name)?;
                (serde_json::json!([held.meta.uid, held.spec.bmc, policy.bmc]), held.spec.bmc.secret_ref.name.clone())
            }
            Device::Switch(name) => {
                let held = self.cache.objects.switches.get(name)?;
                (serde_json::json!([held.meta.uid, held.spec, policy.switch]), held.spec.snmp.secret_ref.name.clone())
            }
        };
        let version = self.cache.objects.secrets.get(&secret).map(|s| (s.meta.uid.clone(), s.meta.generation));
        let generation = version.as_ref().map_or(0, |v| v.1);
        if !self.credential_turns.contains_key(&(secret.clone(), generation)) {
            let turns = Arc::new(Turns::with_proven(self.proven(&secret)));
            self.credential_turns.insert((secret.clone(), generation), turns);
        }
        Some(serde_json::json!([spec, secret, version]))
    }

    /// Forgets what the device showed. Resolves when the worker has let go of it.
    fn end_worker(&mut self, device: &Device) -> impl Future<Output = ()> + Send + 'static {
        let end = self.workers.remove(device).map(|owned| owned.worker.end());
        let lost: Vec<Op> = self.in_flight.keys().filter(|op| op.device() == *device).cloned().collect();
        for op in lost {
            // It may have left until now; what became of it is not known.
            let now = self.clock.now();
            if let Some(server) = self.in_flight.remove(&op) {
                self.cache.memory_of(&server).came_back(&op, now);
            }
            if let Op::SetPort { switch, port, .. } = &op {
                self.cache.ports_in_flight.remove(&(switch.clone(), port.clone()));
            }
            self.drifts.remove(&op);
            self.budget.release(&op);
        }
        match device {
            Device::Bmc(name) => self.cache.forget_device_of_server(name),
            Device::Switch(name) => self.cache.forget_device_of_switch(name),
        }
        async move {
            if let Some(end) = end {
                end.await;
            }
        }
    }

    /// Ends all workers: the sessions of all BMCs are closed, side by side.
    pub async fn close(mut self) -> Remembered {
        let remembered = self.remembers();
        let mut ends = tokio::task::JoinSet::new();
        for (_, owned) in std::mem::take(&mut self.workers) {
            ends.spawn(owned.worker.end());
        }
        while ends.join_next().await.is_some() {}
        remembered
    }

    /// Starts the worker of a device anew, with its refused credentials and failures forgotten.
    pub(super) fn retry_device(&mut self, device: &Device) {
        let secret = match device {
            Device::Bmc(name) => self.cache.objects.servers.get(name).map(|s| s.spec.bmc.secret_ref.name.clone()),
            Device::Switch(name) => self.cache.objects.switches.get(name).map(|s| s.spec.snmp.secret_ref.name.clone()),
        };
        if let Some(secret) = secret {
            self.credential_turns.retain(|(s, _), _| *s != secret);
            self.files.forget(&secret);
        }
        if let Some(owned) = self.workers.get_mut(device) {
            owned.made_from = serde_json::Value::Null;
        }
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
                self.cache.switches.insert(name.clone(), Known::<SwitchSeen> { trouble, again_at, ..Known::default() });
                self.wake_switch(name);
                self.dirty_objects.insert((Kind::Switch, name.clone()));
            }
        }
    }

    pub(super) fn has_worker(&self, device: &Device) -> bool {
        self.workers.contains_key(device)
    }

    pub(super) fn send(&self, device: &Device, job: Job) -> bool {
        self.workers.get(device).is_some_and(|o| o.worker.send(job))
    }

    /// Sends an operation with the right to carry it out once, on the device that is pinned now.
    pub(super) fn send_op(&self, op: Op) -> bool {
        let device = op.device();
        let Some(owned) = self.workers.get(&device) else { return false };
        let (kind, name) = match &device {
            Device::Bmc(server) => (Kind::Server, server),
            Device::Switch(switch) => (Kind::Switch, switch),
        };
        let permit = owned.worker.gate().permit(Key::of(&op), self.cache.pinned(kind, name));
        owned.worker.send(Job::Do(op, Box::new(permit)))
    }

    pub(super) fn gate_of(&self, device: &Device) -> Option<&Arc<Gate>> {
        self.workers.get(device).map(|owned| owned.worker.gate())
    }

    /// A power command that was sent and has not left yet belongs to an attempt that is over.
    pub(super) fn void_power(&self, server: &Name) {
        if let Some(gate) = self.gate_of(&Device::Bmc(server.clone())) {
            gate.void(&Key::Power);
        }
    }
}
