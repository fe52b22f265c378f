//! Which lanes there are: one for each device that the objects name, made anew when its address, its Secret or its policy changes.
//!
//! Invariant: two lanes never speak to one device: the new one begins when the old one has ended.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use super::brain::Brain;
use super::lane::{Job, Lane, Pace, Setting};
use super::secrets::{self, BadSecret, Gate};
use super::world::Known;
use crate::limits;
use crate::model::fact::SwitchSeen;
use crate::model::secret::{BmcLogin, SnmpLogin};
use crate::model::{Kind, Name, ServerSpec, SwitchSpec};
use crate::plan::op::{Device, Off, Op};
use crate::plan::seen::Trouble;

/// A lane, and what it was made from: another address or another Secret makes another lane.
pub(super) struct Owned {
    pub(super) lane: Lane,
    made_from: serde_json::Value,
}

impl Brain {
    pub(super) fn all_lanes(&mut self) {
        let servers = self.world.objects.servers.keys().cloned().map(Device::Bmc);
        let switches = self.world.objects.switches.keys().cloned().map(Device::Switch);
        let gone: Vec<Device> = self.lanes.keys().cloned().collect();
        for device in servers.chain(switches).chain(gone).collect::<BTreeSet<Device>>() {
            self.lane_of(&device);
        }
    }

    /// Makes the lane of a device what the objects say: started, replaced, ended, or left as it is.
    pub(super) fn lane_of(&mut self, device: &Device) {
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
            self.drifts.remove(&op);
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

    /// A switching-off that still waits for its turn belongs to an attempt that is over: carried out later, it would hit what runs then.
    pub(super) fn recall_offs(&self, server: &Name) {
        let Some(owned) = self.lanes.get(&Device::Bmc(server.clone())) else { return };
        for how in [Off::Soft, Off::Hard] {
            let op = Op::PowerOff { server: server.clone(), how };
            if self.in_flight.contains_key(&op) {
                owned.lane.recall(&op);
            }
        }
    }
}
