//! The switch as a worker drives it: what is known of it between two polls, and which writes are refused before they are tried.
//!
//! Leaves out: reading (`read`, `seen`) and writing (`write`, `engine`). Invariants: nothing is written outside `manage`, to a member of
//! an aggregation, to an uplink (but the tags of a VLAN made there), into a protected VLAN, or to a port that is not as the operation
//! expects. Shown by `tests/switch_writes.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::engine::{Engine, Memory};
use super::make::{Saving, saving};
use super::read::{self, Inventory, State};
use super::seen::Refused;
use super::snmp::{Agent, Binding};
use super::tables::{Target, Vlans};
use super::write::{happens, writes};
use super::{objects, resolve, seen, words};
use crate::drivers::gate::Permit;
use crate::drivers::{Depth, Driver, Fault, NOT_READ, Notes, Observation};
use crate::limits;
use crate::model::Vlan;
use crate::model::fact::{Lag, PortConfig, PortSeen, Quality, SwitchSeen};
use crate::model::op::Op;
use crate::model::switch::{ProfileName, covers};

/// What the manifest says about a switch, as far as the driver minds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwitchSettings {
    pub profile: ProfileName,
    /// Ports and ranges that may be written; nothing: the switch is only observed.
    pub manage: Option<Vec<String>>,
    pub uplinks: Vec<String>,
    pub protected: Vec<Vlan>,
    pub create_vlans: bool,
    pub read_only: bool,
}

pub struct SwitchDriver {
    device: String,
    agent: Box<dyn Agent>,
    settings: SwitchSettings,
    known: Option<Known>,
    /// Noticed while writing, and not told yet.
    notes: Notes,
    /// See `Engine::half_way`.
    half_way: Option<String>,
}

/// What is remembered of the switch.
struct Known {
    inventory: Inventory,
    state: State,
    /// What inventory and state say.
    seen: Arc<SwitchSeen>,
    memory: Memory,
    /// When the state was told.
    told_at: Instant,
    /// How long it took to read, by the gate's clock; nothing once an operation was begun on it.
    took: Option<Duration>,
}

/// Whether sysUpTime (hundredths of a second) is less than time has passed: a switch that is up for a minute may have been up for less than that
/// when it was last read. A clock that runs a tenth slow has not restarted, nor has one that stands still; a restart takes longer than ten seconds.
fn has_restarted(before: i64, now: i64, told_at: Instant, asked_at: Instant) -> bool {
    let passed = i64::try_from(asked_at.saturating_duration_since(told_at).as_millis() / 10).unwrap_or(i64::MAX);
    now < before || (now > before && now + 1_000 < before.saturating_add(passed - passed / 10))
}

impl Known {
    fn has_restarted(&self, now: &State, asked_at: Instant) -> bool {
        self.state.up_time.zip(now.up_time).is_some_and(|(before, now)| has_restarted(before, now, self.told_at, asked_at))
    }

    /// What is known otherwise now is shown.
    fn show(&mut self) {
        let seen = seen::switch(&self.inventory, &self.state, &self.memory.refused);
        if *self.seen != seen {
            self.seen = Arc::new(seen);
        }
    }
}

impl SwitchDriver {
    pub fn new(device_name: String, agent: Box<dyn Agent>, settings: SwitchSettings) -> SwitchDriver {
        SwitchDriver { device: device_name, agent, settings, known: None, notes: Notes::new(), half_way: None }
    }

    /// A state on a valid inventory: names move when a switch restarts or its interfaces change.
    async fn look(&mut self, depth: Depth) -> Result<(), Fault> {
        let agent = self.agent.as_mut();
        let asked_at = Instant::now();
        if let (Depth::Power | Depth::State, Some(known)) = (depth, &mut self.known) {
            let state = match read::poll(agent, &known.inventory, &known.state).await? {
                Some(state) => state,
                None => read::state(agent, &self.device, &known.inventory).await?,
            };
            if !known.has_restarted(&state, asked_at) && known.inventory.if_change == state.if_change {
                known.state.up_time = state.up_time;
                if known.state != state {
                    known.state = state;
                    known.show();
                }
                (known.told_at, known.took) = (Instant::now(), Some(waited(asked_at)));
                return Ok(());
            }
        }
        let mut inventory = read::inventory(agent, &self.device, self.settings.profile).await?;
        let asked_at = Instant::now();
        let state = read::state(agent, &self.device, &inventory).await?;
        self.known.iter().for_each(|known| inventory.remember(&known.inventory));
        let memory = match self.known.take() {
            Some(known) => {
                let grouping = known.memory.grouping.min(inventory.profile.grouping);
                let restarted = known.has_restarted(&state, asked_at);
                Memory { grouping, refused: if restarted { Refused::new() } else { known.memory.refused } }
            }
            None => Memory { grouping: inventory.profile.grouping, refused: Refused::new() },
        };
        let seen = Arc::new(seen::switch(&inventory, &state, &memory.refused));
        self.known = Some(Known { inventory, state, seen, memory, told_at: Instant::now(), took: Some(waited(asked_at)) });
        Ok(())
    }

    /// The state before an operation, and how long that took to read. One that was read a moment ago will do: the rows to be written are asked for
    /// once more before each SET.
    async fn look_before(&mut self) -> Result<(State, Duration), Fault> {
        let is_recent = |known: &&mut Known| known.took.is_some() && waited(known.told_at) < limits::STATE_KNOWN_FOR;
        if self.known.as_mut().filter(is_recent).is_none() {
            self.look(Depth::State).await?;
        }
        let Some(known) = &mut self.known else { return Err(self.not_observed()) };
        Ok((known.state.clone(), known.took.take().unwrap_or_default()))
    }

    fn not_observed(&self) -> Fault {
        Fault::Garbled { device: self.device.clone(), why: "it was not observed".to_owned() }
    }

    fn known(&self) -> Result<&Known, Fault> {
        self.known.as_ref().ok_or_else(|| self.not_observed())
    }

    async fn observe_now(&mut self, depth: Depth) -> Result<Arc<SwitchSeen>, Fault> {
        self.look(depth).await?;
        Ok(Arc::clone(&self.known()?.seen))
    }

    async fn execute_one(&mut self, op: &Op, permit: &Permit) -> Result<(), Fault> {
        let mut stale = false;
        let done = match op {
            Op::SetPort { port, from, to, switch: _ } => self.set_port(port, from, to, permit, &mut stale).await,
            Op::CreateVlan { vlan, switch: _ } => self.create_vlan(*vlan, permit, &mut stale).await,
            Op::Save { switch: _ } => {
                self.writable("save its configuration")?;
                let (state, took) = self.look_before().await?;
                self.engine(permit, &state, took, &mut stale)?.save().await
            }
            Op::SetBoot { .. } | Op::PowerOn { .. } | Op::PowerOff { .. } => Err(self.unsupported(op, "it is a switch".to_owned())),
        };
        self.known.iter_mut().for_each(Known::show);
        if stale {
            // The next poll takes the inventory anew.
            self.known = None;
        }
        done
    }

    async fn set_port(&mut self, port: &str, from: &PortConfig, to: &PortConfig, permit: &Permit, stale: &mut bool) -> Result<(), Fault> {
        self.writable(&format!("set {port}"))?;
        let (state, took) = self.look_before().await?;
        let seen = Arc::clone(&self.known()?.seen);
        let Some((key, now)) = self.differs(&seen, port, from, to)? else { return Ok(()) };
        let target = target(&self.known()?.inventory, key, now);
        let after = self.engine(permit, &state, took, stale)?.set_port(target, from, to, state).await?;
        if let (Some(known), Vlans::Bridge(bridge)) = (&mut self.known, after.vlans) {
            // Polls do not ask for it.
            known.inventory.frame_types = bridge.frame_types;
        }
        Ok(())
    }

    /// The port, if it may be written and is as the operation expects it; nothing if it is as wanted already.
    fn differs<'a>(
        &self,
        seen: &'a SwitchSeen,
        port: &str,
        from: &PortConfig,
        to: &PortConfig,
    ) -> Result<Option<(&'a str, &'a PortSeen)>, Fault> {
        let (key, now) = self.port(seen, port)?;
        self.may_write(key, now, from, to)?;
        if now.config == *to && now.quality == Quality::Exact {
            return Ok(None);
        }
        if now.compared() != *from && now.config != *from {
            let (expected, found) = (from.to_string(), now.config.to_string());
            return Err(Fault::Disagrees { device: self.device.clone(), place: port.to_owned(), expected, found });
        }
        Ok(Some((key, now)))
    }

    async fn create_vlan(&mut self, vlan: Vlan, permit: &Permit, stale: &mut bool) -> Result<(), Fault> {
        let what = format!("create VLAN {vlan}");
        self.writable(&what)?;
        if !self.settings.create_vlans {
            return Err(self.unsupported(what, "its manifest says `vlans: Expect`".to_owned()));
        }
        let (state, took) = self.look_before().await?;
        let uplinks = self.uplinks(what, &state)?;
        let targets: Vec<Target<'_>> = uplinks.iter().map(Uplink::target).collect();
        let made = self.engine(permit, &state, took, stale)?.create_vlan(vlan, &targets, &state).await;
        if let Some(known) = &mut self.known {
            // Not every agent counts rightly: the next poll walks.
            known.state.num_vlans = None;
        }
        made
    }

    /// The ports on which a new VLAN is tagged, by their keys.
    fn uplinks(&self, what: String, state: &State) -> Result<Vec<Uplink>, Fault> {
        let known = self.known()?;
        if !seen::writable(&known.inventory, state, &known.memory.refused).vlan_create {
            let untold = seen::untold(&known.inventory, state).map(str::to_owned);
            let never = || format!("VLANs of a {} are not made over SNMP here", known.inventory.profile.vendor);
            let why = untold.unwrap_or_else(never);
            return Err(self.unsupported(what, why));
        }
        let seen = seen::switch(&known.inventory, state, &known.memory.refused);
        let mut uplinks = Vec::new();
        for (key, port) in seen.ports.iter().filter(|(key, port)| listed(&self.settings.uplinks, key, port)) {
            let base_ports = known.inventory.places.0.get(&port.if_index).map(|place| place.base_ports.as_slice()).unwrap_or_default();
            uplinks.extend(base_ports.iter().map(|base_port| Uplink { key: key.clone(), if_index: port.if_index, base_port: *base_port }));
        }
        if uplinks.is_empty() && !self.settings.uplinks.is_empty() {
            return Err(self.unsupported(what, "none of its uplinks is a port of the bridge".to_owned()));
        }
        Ok(uplinks)
    }

    fn engine<'a>(&'a mut self, permit: &'a Permit, state: &State, took: Duration, stale: &'a mut bool) -> Result<Engine<'a>, Fault> {
        let SwitchDriver { device, agent, known, notes, half_way, settings: _ } = self;
        let Some(Known { inventory, memory, state: _, seen: _, told_at: _, took: _ }) = known else {
            return Err(Fault::Garbled { device: device.clone(), why: "it was not observed".to_owned() });
        };
        let (up_time, round_trips) = (state.up_time, vec![took]);
        Ok(Engine { agent: agent.as_mut(), inventory, device, permit, up_time, round_trips, memory, notes, half_way, stale })
    }

    /// Its time was over in the middle of something.
    fn late(&mut self, op: &Op) -> Fault {
        let device = self.device.clone();
        match (op, self.half_way.take()) {
            (_, Some(shown)) => Fault::Unknown { device, what: format!("{op} (the port is half-way: it showed {shown} last)") },
            (Op::SetPort { .. }, None) => Fault::NotSent { device, what: op.to_string(), why: "its time was over before".to_owned() },
            (_, None) => Fault::Unknown { device, what: op.to_string() },
        }
    }

    /// The time of a poll was over: that it answered all the while is not silence.
    fn too_long(&self, waited: Duration) -> Fault {
        let device = self.device.clone();
        match self.agent.unfinished() {
            Some((table, rows)) => {
                let seems = "it has no end, or the device is too slow";
                Fault::Endless { device, table: objects::in_words(&table.to_string()), rows, waited, seems: seems.to_owned() }
            }
            None => Fault::Silent { device, attempts: 1, waited },
        }
    }

    // ---- what may be written ----------------------------------------------------------------------------------------------

    fn unsupported(&self, what: impl std::fmt::Display, why: String) -> Fault {
        Fault::Unsupported { device: self.device.clone(), what: what.to_string(), why }
    }

    fn writable(&self, what: &str) -> Result<(), Fault> {
        if self.settings.read_only || self.settings.manage.is_none() {
            return Err(self.unsupported(what, "it is only observed".to_owned()));
        }
        Ok(())
    }

    fn port<'a>(&self, seen: &'a SwitchSeen, wanted: &str) -> Result<(&'a str, &'a PortSeen), Fault> {
        let missing = |found: String| Fault::Disagrees {
            device: self.device.clone(),
            place: wanted.to_owned(),
            expected: "a port of this name".to_owned(),
            found,
        };
        let key = resolve(seen, wanted).map_err(|why| missing(why.to_string()))?;
        seen.ports.get_key_value(key).map(|(key, port)| (key.as_str(), port)).ok_or_else(|| missing("none".to_owned()))
    }

    fn may_write(&self, key: &str, port: &PortSeen, from: &PortConfig, to: &PortConfig) -> Result<(), Fault> {
        let what = format!("set {key}");
        let refuse = |why: String| Err(self.unsupported(&what, why));
        if !self.settings.manage.as_ref().is_some_and(|ports| listed(ports, key, port)) {
            return refuse("it is outside `manage.ports`".to_owned());
        }
        if listed(&self.settings.uplinks, key, port) {
            return refuse("it is an uplink".to_owned());
        }
        if let Lag::Member(of) = &port.lag {
            let of = of.as_deref().unwrap_or("an aggregation");
            return refuse(format!("it is a member of {of}, which carries the VLANs"));
        }
        if let Lag::NotTold(why) = &port.lag {
            return refuse(format!("whether it belongs to an aggregation is not known: {why}"));
        }
        if let Quality::Unknown(why) = &port.quality {
            return refuse(format!("its VLANs are not known: {why}"));
        }
        let newly = |vlan: &&Vlan| match to.untagged == Some(**vlan) {
            true => from.untagged != to.untagged,
            false => to.tagged.contains(vlan) && !from.tagged.contains(vlan),
        };
        if let Some(vlan) = self.settings.protected.iter().find(newly) {
            return refuse(format!("VLAN {vlan} is protected"));
        }
        let writable = self.known()?;
        if writable.inventory.profile.name() == "observe-only" {
            return refuse(format!("{} is only observed", writable.inventory.profile.vendor));
        }
        let vlans_change = (from.untagged, &from.tagged) != (to.untagged, &to.tagged);
        if vlans_change && !writable.inventory.writes_vlans() {
            return refuse("it does not serve the tables through which VLANs are written".to_owned());
        }
        Ok(())
    }
}

/// A port on which a new VLAN is tagged.
struct Uplink {
    key: String,
    if_index: u32,
    base_port: u32,
}

impl Uplink {
    fn target(&self) -> Target<'_> {
        Target { key: &self.key, if_index: self.if_index, base_port: Some(self.base_port) }
    }
}

fn target<'a>(inventory: &Inventory, key: &'a str, port: &PortSeen) -> Target<'a> {
    let place = inventory.places.0.get(&port.if_index).map(|place| place.base_ports.as_slice());
    let base_port = if let Some([one]) = place { Some(*one) } else { None };
    Target { key, if_index: port.if_index, base_port }
}

// ---- what would be written ------------------------------------------------------------------------------------------------

impl SwitchDriver {
    /// The PDUs of one operation in words; `state` becomes what the switch would then show.
    fn foresee(&self, known: &Known, state: &mut State, op: &Op) -> Result<Vec<String>, Fault> {
        let inventory = &known.inventory;
        let pdus: Vec<Vec<Binding>> = match op {
            Op::SetPort { port, from, to, switch: _ } => {
                self.writable(&format!("set {port}"))?;
                let seen = seen::switch(inventory, state, &known.memory.refused);
                let Some((key, now)) = self.differs(&seen, port, from, to)? else {
                    return Ok(vec![format!("nothing is sent: {port} is so already")]);
                };
                let steps = writes(state, inventory.profile, known.memory.grouping, target(inventory, key, now), to);
                let steps = steps.map_err(|why| self.unsupported(format!("set {key}"), why.to_string()))?;
                steps.into_iter().map(|step| step.bindings).collect()
            }
            Op::CreateVlan { vlan, switch: _ } => {
                let what = format!("create VLAN {vlan}");
                self.writable(&what)?;
                let uplinks = self.uplinks(what.clone(), state)?;
                let targets: Vec<Target<'_>> = uplinks.iter().map(Uplink::target).collect();
                state.vlans.table().creation(*vlan, &targets).map_err(|why| self.unsupported(what, why))?
            }
            Op::Save { switch: _ } => {
                self.writable("save its configuration")?;
                let Some(Saving { begin, clear, .. }) = saving(inventory.profile.save) else {
                    return Err(self.unsupported("save its configuration", "no object is known for it".to_owned()));
                };
                clear.clone().into_iter().chain([begin]).chain(clear).collect()
            }
            Op::SetBoot { .. } | Op::PowerOn { .. } | Op::PowerOff { .. } => {
                return Err(self.unsupported(op, "it is a switch".to_owned()));
            }
        };
        let mut said = Vec::new();
        for bindings in pdus {
            said.push(words::pdu(inventory, state, &bindings));
            happens(state, &bindings);
        }
        Ok(said)
    }
}

/// By key first, and by the other names of a port.
fn listed(list: &[String], key: &str, port: &PortSeen) -> bool {
    covers(list, key) || port.also.iter().any(|name| list.iter().any(|wanted| wanted == name))
}

#[async_trait]
impl Driver for SwitchDriver {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        let started = Instant::now();
        let seen = timeout_at(deadline, self.observe_now(depth)).await;
        let seen = seen.unwrap_or_else(|_| Err(self.too_long(waited(started))))?;
        Ok(Observation::Switch(seen))
    }

    async fn execute(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        self.half_way = None;
        // Those of operations that failed are told with the next that does not.
        self.notes.truncate(NOTES_KEPT);
        let done = timeout_at(deadline, self.execute_one(op, permit)).await;
        done.unwrap_or_else(|_| Err(self.late(op)))?;
        Ok(std::mem::take(&mut self.notes))
    }

    fn forget_refusals(&mut self) {
        if let Some(known) = &mut self.known {
            known.memory.refused.clear();
            known.show();
        }
    }

    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        let Some(known) = &self.known else { return ops.iter().map(|_| vec![NOT_READ.to_owned()]).collect() };
        let mut state = known.state.clone();
        let said = |op: &Op| self.foresee(known, &mut state, op).unwrap_or_else(|fault| vec![format!("nothing is sent: {fault}")]);
        ops.iter().map(said).collect()
    }

    async fn close(&mut self) {
        self.known = None;
    }
}

/// Notes of operations that failed: one fault at a switch is not told a hundred times.
const NOTES_KEPT: usize = 16;

fn waited(since: Instant) -> Duration {
    Instant::now().saturating_duration_since(since)
}
