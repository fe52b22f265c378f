//! Brings one port to what is wanted: sends what `write` plans, one PDU at a time, and believes only what the switch shows afterwards.
//!
//! Leaves out: whether it may be written at all (`driver`), and the GET before each SET (`before`). Invariants: every SET is computed from
//! what one GET showed just before, and is read back; what was refused and is there all the same counts as done, what was accepted and is
//! not there does not; a port is opened only after everything was read again; a change that fails half-way is undone, or the fault says
//! that the port is half-way. Shown by `tests/switch_writes.rs` and `tests/switch_gate.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::objects::{self as o, at};
use super::profiles::Grouping;
use super::read::{self, Inventory, State};
use super::seen::{self, Refused};
use super::snmp::codec::status_word;
use super::snmp::{Agent, Binding, Leave, Oid, SetAnswer, Value};
use super::tables::{Bridge, Obstacle, Target, Vlans, WriteStep};
use super::write::{happens, next, note, shown, shows, writes};
use crate::drivers::gate::{Freshness, Permit};
use crate::drivers::{Fault, Notes};
use crate::model::fact::PortConfig;

/// More steps than any change of one port takes.
const STEPS: usize = 64;

pub(super) struct Engine<'a> {
    pub agent: &'a mut dyn Agent,
    pub inventory: &'a Inventory,
    pub device: &'a str,
    pub permit: &'a Permit,
    /// sysUpTime as it was read last.
    pub up_time: Option<i64>,
    /// How long the questions of this operation took, by the gate's clock.
    pub round_trips: Vec<Duration>,
    pub memory: &'a mut Memory,
    pub notes: &'a mut Notes,
    /// What the port showed last, once a SET of this operation may have left, until all have and were read back.
    pub half_way: &'a mut Option<String>,
    /// It is not the switch that it was: what is known of it is to be forgotten.
    pub stale: &'a mut bool,
}

/// What an agent taught about being written.
pub(super) struct Memory {
    /// Finer than the profile says, once an agent did not take what the profile allows.
    pub grouping: Grouping,
    /// Columns that it refused, whatever the value: until it restarts, or a person says that they may be written now. Each try to find out
    /// shuts a port for some seconds.
    pub refused: Refused,
}

/// What became of a SET, by reading back.
enum Outcome {
    Done,
    /// Some of it, or something else.
    Partly,
    Nothing,
}

/// One port on its way.
struct Way<'a> {
    target: Target<'a>,
    state: State,
    /// The port as it was when the first SET left.
    found: Option<PortConfig>,
}

impl Engine<'_> {
    /// Bring one port to what is wanted, from a state just read; what it then shows.
    pub(super) async fn set_port(&mut self, target: Target<'_>, from: &PortConfig, to: &PortConfig, state: State) -> Result<State, Fault> {
        let mut way = Way { target, state, found: None };
        let Err(fault) = self.bring(&mut way, from, to).await else {
            self.whole();
            return Ok(way.state);
        };
        let Some(found) = way.found.clone() else { return Err(fault) };
        let gone = matches!(fault, Fault::OtherDevice { .. } | Fault::Silent { .. } | Fault::Network { .. } | Fault::Denied { .. });
        if gone || *self.stale || self.permit.check().is_err() {
            return Err(self.half_way_fault(&way, to, &fault, None));
        }
        match self.bring(&mut way, from, &found).await {
            Ok(()) => {
                self.whole();
                Err(fault)
            }
            Err(undoing) => Err(self.half_way_fault(&way, to, &fault, Some(&undoing))),
        }
    }

    fn whole(&mut self) {
        self.permit.whole();
        *self.half_way = None;
    }

    async fn bring(&mut self, way: &mut Way<'_>, from: &PortConfig, to: &PortConfig) -> Result<(), Fault> {
        let mut all_read = way.found.is_none();
        for _ in 0..STEPS {
            let Some(step) = self.next(way, to)? else { return Ok(()) };
            if step.opens && !all_read {
                self.read_all(way).await?;
                all_read = true;
                continue;
            }
            let fresh = self.refreshed(way, &step).await?;
            let step = match self.next(way, to)? {
                Some(now) if of_the_same(&step, &now) => now,
                // Somebody else was there: the next step is another one.
                Some(_) | None => continue,
            };
            if way.found.is_none() {
                self.as_expected(way, from, to)?;
            }
            all_read = false;
            self.write(way, to, &step, fresh).await?;
        }
        Err(self.disagrees(
            way.target.key.to_owned(),
            format!("{to} within {STEPS} writes"),
            "something else changes it all the time".to_owned(),
        ))
    }

    fn next(&self, way: &Way<'_>, to: &PortConfig) -> Result<Option<WriteStep>, Fault> {
        let step = next(&way.state, self.inventory.profile, self.memory.grouping, way.target, to);
        step.map_err(|why| self.obstacle(way.target, &why))
    }

    /// The rows of this step as they are at this moment.
    async fn refreshed(&mut self, way: &mut Way<'_>, step: &WriteStep) -> Result<Freshness, Fault> {
        let mut wanted: Vec<Oid> = step.bindings.iter().map(|(oid, _)| oid.clone()).collect();
        wanted.push(at(o::IF_ADMIN_STATUS, &[way.target.if_index]));
        wanted.extend(way.state.vlans.table().of_step(way.target, step));
        let (found, fresh) = self.before(&format!("the writing of {}", step.what), wanted.clone(), &[way.target]).await?;
        // A list is written as a whole: one that is not shown cannot be. (Of a bridge it is the VLAN that is gone.)
        let gone = |(oid, value): &Binding| matches!(value, Value::Octets(_)) && !found.contains_key(oid);
        if !matches!(way.state.vlans, Vlans::Bridge(_)) && step.bindings.iter().any(gone) {
            *self.stale = true;
            return Err(self.not_sent(&step.what, "a list that is to be written is not shown any more".to_owned()));
        }
        wanted.iter().for_each(|oid| note(&mut way.state, oid, found.get(oid)));
        Ok(fresh)
    }

    /// Before the first SET: the port is as the operation expects it, and the whole change can be made as far as is known.
    fn as_expected(&self, way: &Way<'_>, from: &PortConfig, to: &PortConfig) -> Result<(), Fault> {
        let now = seen::port(self.inventory, &way.state, way.target.if_index);
        if now.as_ref().is_none_or(|now| now.config != *from && now.compared() != *from && now.config != *to) {
            let found = now.map_or_else(|| "no such port".to_owned(), |now| now.config.to_string());
            return Err(self.disagrees(way.target.key.to_owned(), from.to_string(), found));
        }
        let plan = self.rest(way, to).map_err(|why| self.obstacle(way.target, &why))?;
        let known = |(oid, _): &Binding| self.memory.refused.get(seen::column(oid));
        let refused = plan.iter().filter(|step| !step.advice).find_map(|step| {
            let code = step.bindings.iter().find_map(known)?;
            Some((step.what.clone(), format!("{code}: so it said before; it was not tried again")))
        });
        match refused {
            Some((what, code)) => Err(Fault::Refused { device: self.device.to_owned(), what, code }),
            None => Ok(()),
        }
    }

    fn rest(&self, way: &Way<'_>, to: &PortConfig) -> Result<Vec<WriteStep>, Obstacle> {
        writes(&way.state, self.inventory.profile, self.memory.grouping, way.target, to)
    }

    /// Whether this step is not the last, if the switch does what it is told.
    fn is_followed(&self, way: &Way<'_>, to: &PortConfig, step: &WriteStep) -> bool {
        let mut then = way.state.clone();
        happens(&mut then, &step.bindings);
        next(&then, self.inventory.profile, self.memory.grouping, way.target, to).map_or(true, |step| step.is_some())
    }

    /// The port as the state shows it.
    fn config(&self, way: &Way<'_>) -> Option<PortConfig> {
        seen::port(self.inventory, &way.state, way.target.if_index).map(|port| port.config)
    }

    /// One SET, and what the switch shows then.
    async fn write(&mut self, way: &mut Way<'_>, to: &PortConfig, step: &WriteStep, fresh: Freshness) -> Result<(), Fault> {
        let (before, config) = (way.state.clone(), self.config(way));
        let half_way = self.is_followed(way, to, step);
        let last = std::mem::replace(self.half_way, config.as_ref().map(PortConfig::to_string));
        let sent = self.agent.set(&step.bindings, Leave { permit: self.permit, fresh, half_way }).await;
        let began = way.found.is_some();
        match &sent {
            Ok(_) | Err(Fault::Unknown { .. } | Fault::Garbled { .. }) => way.found = way.found.take().or(config),
            Err(_) => *self.half_way = last,
        }
        let answer = match sent {
            Ok(answer) => Ok(answer),
            Err(fault @ Fault::Unknown { .. }) => Err(fault),
            Err(fault) => return Err(fault),
        };
        match (self.read_back(way, to).await, answer) {
            (Ok(()), answer) => self.judge(way, step, &before, began, answer),
            (Err(_), Err(unknown)) => Err(unknown),
            (Err(fault), Ok(_)) => Err(fault),
        }
    }

    fn judge(
        &mut self,
        way: &mut Way<'_>,
        step: &WriteStep,
        before: &State,
        began: bool,
        answer: Result<SetAnswer, Fault>,
    ) -> Result<(), Fault> {
        *self.half_way = self.config(way).map(|config| config.to_string());
        self.note_others(way, step, before);
        match (outcome(step, before, &way.state, way.target), answer) {
            (Outcome::Done | Outcome::Partly, _) => Ok(()),
            (Outcome::Nothing, Err(unknown)) => Err(unknown),
            (Outcome::Nothing, Ok(_)) if step.advice => {
                forget_frame_types(&mut way.state, way.target);
                Ok(())
            }
            (Outcome::Nothing, Ok(_)) if self.memory.grouping != Grouping::Single && step.bindings.len() > 1 => {
                self.memory.grouping = Grouping::Single;
                Ok(())
            }
            (Outcome::Nothing, Ok(SetAnswer::Refused { status, index })) => {
                let fault = self.refused(step.what.clone(), status, index);
                match fault {
                    Fault::Refused { device, what, code } if NOT_WRITABLE.contains(&status) => {
                        let culprit = (index as usize).checked_sub(1).and_then(|at| step.bindings.get(at)).or(step.bindings.first());
                        self.memory.refused.extend(culprit.map(|(oid, _)| (seen::column(oid).to_vec(), code.clone())));
                        // Where nothing was changed no link went down for it.
                        Err(if began { Fault::Refused { device, what, code } } else { Fault::Forbidden { device, what, code } })
                    }
                    fault => Err(fault),
                }
            }
            (Outcome::Nothing, Ok(SetAnswer::Accepted(_))) => Err(self.disagrees(
                step.what.clone(),
                "what was written".to_owned(),
                "it unchanged, though the SET was accepted".to_owned(),
            )),
        }
    }

    /// Ports that came into a written list, or left it, and are not ours: said, never repaired.
    fn note_others(&mut self, way: &Way<'_>, step: &WriteStep, before: &State) {
        let (Vlans::Bridge(old), Vlans::Bridge(new)) = (&before.vlans, &way.state.vlans) else { return };
        for (oid, _) in &step.bindings {
            let (Some(was), Some(is)) = (old.list(oid), new.list(oid)) else { continue };
            let differs = |port| !old.only_ours_differs(was, is, port);
            if !way.target.base_port.is_none_or(differs) {
                continue;
            }
            let ours = way.target.base_port.into_iter().collect();
            let others = others(self.inventory, old, was, is, &ours);
            if !others.is_empty() {
                let what = &step.what;
                self.notes
                    .push(format!("while {what} was written, other ports changed in the same list: {others}; nothing is done about it"));
            }
        }
    }

    /// What is said of a port that is neither as it was found nor as it is to be.
    fn half_way_fault(&self, way: &Way<'_>, to: &PortConfig, fault: &Fault, undoing: Option<&Fault>) -> Fault {
        let shows = self.config(way).map_or_else(|| "nothing".to_owned(), |now| now.to_string());
        let why = match undoing {
            None => fault.to_string(),
            Some(undoing) => format!("{fault}; and it could not be undone: {undoing}"),
        };
        match undoing.unwrap_or(fault) {
            Fault::Silent { .. } | Fault::Network { .. } | Fault::Unknown { .. } | Fault::Garbled { .. } | Fault::Endless { .. } => {
                let what = format!("set {} to {to} (the port is half-way: it showed {shows} last; {why})", way.target.key);
                Fault::Unknown { device: self.device.to_owned(), what }
            }
            _ => self.disagrees(way.target.key.to_owned(), to.to_string(), format!("{shows} (the port is half-way: {why})")),
        }
    }

    /// Everything, before a port is opened.
    async fn read_all(&mut self, way: &mut Way<'_>) -> Result<(), Fault> {
        let now = match read::poll(self.agent, self.inventory, &way.state).await? {
            Some(state) => state,
            None => read::state(self.agent, self.device, self.inventory).await?,
        };
        let before = std::mem::replace(&mut way.state, now);
        if let (Vlans::Bridge(before), Vlans::Bridge(now)) = (before.vlans, &mut way.state.vlans) {
            now.frame_types = before.frame_types;
        }
        self.frame_types(&mut way.state, way.target).await
    }

    /// Which frames this port admits, where the switch tells.
    async fn frame_types(&mut self, state: &mut State, target: Target<'_>) -> Result<(), Fault> {
        let Vlans::Bridge(bridge) = &state.vlans else { return Ok(()) };
        let served = target.base_port.filter(|port| bridge.frame_types.contains_key(port));
        let wanted: Vec<Oid> = served.map(|port| at(o::FRAME_TYPES, &[port])).into_iter().collect();
        if !wanted.is_empty() {
            read::get(self.agent, &wanted).await?.iter().for_each(|(oid, value)| note(state, oid, Some(value)));
        }
        Ok(())
    }

    /// Read again what concerns this port.
    async fn read_back(&mut self, way: &mut Way<'_>, to: &PortConfig) -> Result<(), Fault> {
        let admin = at(o::IF_ADMIN_STATUS, &[way.target.if_index]);
        let wanted = [vec![admin], way.state.vlans.table().of_port(way.target, to)].concat();
        let found = read::get(self.agent, &wanted).await?;
        wanted.iter().for_each(|oid| note(&mut way.state, oid, found.get(oid)));
        Ok(())
    }

    fn obstacle(&self, target: Target<'_>, why: &Obstacle) -> Fault {
        match why {
            Obstacle::MissingVlan(vlan) => {
                self.disagrees(target.key.to_owned(), format!("VLAN {vlan} to exist"), "no such VLAN on this switch".to_owned())
            }
            Obstacle::Impossible(why) => {
                Fault::Unsupported { device: self.device.to_owned(), what: format!("set {}", target.key), why: (*why).to_owned() }
            }
        }
    }

    pub(super) fn refused(&self, what: String, status: u32, index: u32) -> Fault {
        let mut code = if index == 0 { status_word(status) } else { format!("{} at varbind {index}", status_word(status)) };
        // RFC 3416: readOnly(4), noAccess(6), authorizationError(16). A community or user that may only read is the usual cause.
        if matches!(status, 4 | 6 | 16) {
            code.push_str(": with these credentials it may not be written");
        }
        Fault::Refused { device: self.device.to_owned(), what, code }
    }

    pub(super) fn disagrees(&self, place: String, expected: String, found: String) -> Fault {
        Fault::Disagrees { device: self.device.to_owned(), place, expected, found }
    }
}

/// RFC 3416: readOnly(4), noAccess(6), authorizationError(16), notWritable(17): about the object, whatever the value.
const NOT_WRITABLE: [u32; 4] = [4, 6, 16, 17];

/// Whether two steps write the same objects (not: the same values).
fn of_the_same(a: &WriteStep, b: &WriteStep) -> bool {
    a.bindings.iter().map(|(oid, _)| oid).eq(b.bindings.iter().map(|(oid, _)| oid))
}

/// `+port5 -port6`: how two lists differ beyond these base ports.
pub(super) fn others(inventory: &Inventory, bridge: &Bridge, was: &[u8], is: &[u8], but: &BTreeSet<u32>) -> String {
    let (was, is) = (bridge.members(was), bridge.members(is));
    let name = |port: &u32| {
        let place = inventory.places.by_base_port(*port).and_then(|index| inventory.places.0.get(&index));
        place.map_or_else(|| format!("base port {port}"), |place| place.key.clone())
    };
    let came = is.difference(&was).filter(|port| !but.contains(port)).map(|port| format!("+{}", name(port)));
    let left = was.difference(&is).filter(|port| !but.contains(port)).map(|port| format!("-{}", name(port)));
    came.chain(left).collect::<Vec<_>>().join(" ")
}

fn forget_frame_types(state: &mut State, target: Target<'_>) {
    if let (Vlans::Bridge(bridge), Some(port)) = (&mut state.vlans, target.base_port) {
        bridge.frame_types.remove(&port);
    }
}

fn outcome(step: &WriteStep, before: &State, after: &State, target: Target<'_>) -> Outcome {
    let done = |state: &State| step.expect.iter().map(|expected| shows(state, target, expected)).collect::<Vec<bool>>();
    let (was, is) = (done(before), done(after));
    if is.iter().all(|shown| *shown) {
        Outcome::Done
    } else if is != was || values(before, step) != values(after, step) {
        Outcome::Partly
    } else {
        Outcome::Nothing
    }
}

fn values(state: &State, step: &WriteStep) -> Vec<Option<Value>> {
    step.expect.iter().map(|(oid, _)| shown(state, oid)).collect()
}
