//! Sends what `write` plans, one PDU at a time, and believes only what the switch shows afterwards.
//!
//! Leaves out: whether it may be written at all (`driver`). Invariants: every SET is read back; what was refused and is there all the
//! same counts as done; what was accepted and is not there does not; a port is opened only after everything was read again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::objects::{self as o, Arcs, at};
use super::portlist;
use super::profiles::{Grouping, Save, State as CopyState};
use super::read::{self, Bridge, Inventory, State, Vlans};
use super::seen::admin;
use super::snmp::codec::status_word;
use super::snmp::{Agent, Binding, Oid, SetAnswer, Value};
use super::value::number;
use super::write::{Obstacle, Target, WriteStep, next, put};
use crate::drivers::Fault;
use crate::model::Vlan;
use crate::model::fact::{Admin, PortConfig};

/// More steps than any change of one port takes.
const STEPS: usize = 64;

pub struct Engine<'a> {
    pub agent: &'a mut dyn Agent,
    pub inventory: &'a Inventory,
    pub device: &'a str,
    /// Finer than the profile says, once an agent did not take what the profile allows.
    pub grouping: &'a mut Grouping,
}

/// What became of a SET, by reading back.
enum Outcome {
    Done,
    /// Some of it, or something else.
    Partly,
    Nothing,
}

impl Engine<'_> {
    /// Bring one port to what is wanted, from a state just read; what it then shows.
    pub async fn set_port(&mut self, target: Target<'_>, to: &PortConfig, mut state: State) -> Result<State, Fault> {
        self.frame_types(&mut state, target).await?;
        let was_up = admin(state.admin.get(&target.if_index)) == Admin::Up;
        let mut all_read = true;
        for _ in 0..STEPS {
            let step = next(&state, self.inventory.profile, *self.grouping, target, to)
                .map_err(|why| self.obstacle(target, &why, was_up, &state))?;
            let Some(step) = step else { return Ok(state) };
            if step.opens && !all_read {
                let before = std::mem::replace(&mut state, read::state(self.agent, self.inventory).await?);
                if let (Vlans::Bridge(before), Vlans::Bridge(now)) = (before.vlans, &mut state.vlans) {
                    now.frame_types = before.frame_types;
                }
                self.frame_types(&mut state, target).await?;
                all_read = true;
                continue;
            }
            all_read = false;
            let before = state.clone();
            let answer = self.agent.set(&step.bindings).await?;
            self.refresh(&mut state, target, to).await?;
            match outcome(&step, &before, &state, target) {
                Outcome::Done | Outcome::Partly => {}
                Outcome::Nothing if step.advice => forget_frame_types(&mut state, target),
                Outcome::Nothing if *self.grouping != Grouping::Single && step.bindings.len() > 1 => *self.grouping = Grouping::Single,
                Outcome::Nothing => return Err(self.no_effect(&step, &answer, was_up && is_down(&state, target))),
            }
        }
        let place = format!("{}{}", target.key, left_down(was_up && is_down(&state, target)));
        Err(self.disagrees(place, format!("{to} within {STEPS} writes"), "something else changes it all the time".to_owned()))
    }

    /// Which frames this port admits, where the switch tells.
    async fn frame_types(&mut self, state: &mut State, target: Target<'_>) -> Result<(), Fault> {
        let Vlans::Bridge(bridge) = &state.vlans else { return Ok(()) };
        let served = target.base_port.filter(|port| bridge.frame_types.contains_key(port));
        let wanted: Vec<Oid> = served.map(|port| at(o::FRAME_TYPES, &[port])).into_iter().collect();
        if !wanted.is_empty() {
            for (oid, value) in read::get(self.agent, &wanted).await? {
                put(state, &oid, &value);
            }
        }
        Ok(())
    }

    /// Read again what concerns this port: its admin state, its PVID or modes, and the lists of all VLANs.
    async fn refresh(&mut self, state: &mut State, target: Target<'_>, to: &PortConfig) -> Result<(), Fault> {
        let mut wanted = vec![at(o::IF_ADMIN_STATUS, &[target.if_index])];
        match &state.vlans {
            Vlans::Bridge(bridge) => wanted.extend(bridge_objects(bridge, target, to)),
            Vlans::Vtp(_) => {
                let columns = [o::VM_VLAN, o::TRUNK_NATIVE, o::TRUNK_ENCAPSULATION, o::TRUNK_DYNAMIC_STATE, o::TRUNK_DYNAMIC_STATUS];
                wanted.extend(columns.iter().chain(&o::TRUNK_ENABLED).map(|arcs| at(arcs, &[target.if_index])));
                wanted.push(at(o::TRUNK_SERIAL, &[0]));
            }
        }
        for (oid, value) in read::get(self.agent, &wanted).await? {
            put(state, &oid, &value);
        }
        Ok(())
    }

    fn obstacle(&self, target: Target<'_>, why: &Obstacle, was_up: bool, state: &State) -> Fault {
        let down = left_down(was_up && is_down(state, target));
        match why {
            Obstacle::MissingVlan(vlan) => {
                self.disagrees(format!("{}{down}", target.key), format!("VLAN {vlan} to exist"), "no such VLAN on this switch".to_owned())
            }
            Obstacle::Impossible(why) => {
                Fault::Unsupported { device: self.device.to_owned(), what: format!("set {}{down}", target.key), why: (*why).to_owned() }
            }
        }
    }

    fn no_effect(&self, step: &WriteStep, answer: &SetAnswer, down: bool) -> Fault {
        let what = format!("{}{}", step.what, left_down(down));
        match answer {
            SetAnswer::Refused { status, index } => self.refused(what, *status, *index),
            SetAnswer::Accepted(_) => {
                self.disagrees(what, "what was written".to_owned(), "it unchanged, though the SET was accepted".to_owned())
            }
        }
    }

    fn refused(&self, what: String, status: u32, index: u32) -> Fault {
        let mut code = if index == 0 { status_word(status) } else { format!("{} at varbind {index}", status_word(status)) };
        // RFC 3416: readOnly(4), noAccess(6), authorizationError(16). A community or user that may only read is the usual cause.
        if matches!(status, 4 | 6 | 16) {
            code.push_str(": with these credentials it may not be written");
        }
        Fault::Refused { device: self.device.to_owned(), what, code }
    }

    fn disagrees(&self, place: String, expected: String, found: String) -> Fault {
        Fault::Disagrees { device: self.device.to_owned(), place, expected, found }
    }
}

/// The objects of a bridge that say where a port is. Of a switch with very many VLANs only those that concern it: where it is, and where
/// it is to be.
fn bridge_objects(bridge: &Bridge, target: Target<'_>, to: &PortConfig) -> Vec<Oid> {
    let few = bridge.rows.len() <= 32;
    let concerns = |vlan: &Vlan, row: &read::Row| {
        let listed = |ports: BTreeSet<u32>| target.base_port.is_some_and(|port| ports.contains(&port));
        few || to.untagged == Some(*vlan)
            || to.tagged.contains(vlan)
            || listed(row.egress_ports(bridge))
            || listed(row.untagged_ports(bridge))
    };
    let mut oids: Vec<Oid> = target.base_port.iter().map(|port| at(o::PVID, &[*port])).collect();
    oids.extend(target.base_port.filter(|port| bridge.frame_types.contains_key(port)).map(|port| at(o::FRAME_TYPES, &[port])));
    for row in bridge.rows.iter().filter(|(vlan, row)| concerns(vlan, row)).map(|(_, row)| row) {
        oids.extend([at(o::STATIC_EGRESS, &[row.index]), at(o::STATIC_UNTAGGED, &[row.index])]);
    }
    oids
}

fn forget_frame_types(state: &mut State, target: Target<'_>) {
    if let (Vlans::Bridge(bridge), Some(port)) = (&mut state.vlans, target.base_port) {
        bridge.frame_types.remove(&port);
    }
}

fn is_down(state: &State, target: Target<'_>) -> bool {
    admin(state.admin.get(&target.if_index)) == Admin::Down
}

fn left_down(down: bool) -> &'static str {
    if down { " (the port was left down)" } else { "" }
}

/// By our own bit, not by whole lists: others may write theirs at the same time.
fn outcome(step: &WriteStep, before: &State, after: &State, target: Target<'_>) -> Outcome {
    let shows = |state: &State, (oid, value): &Binding| match (&state.vlans, value) {
        (Vlans::Bridge(bridge), Value::Octets(list)) => match (list_of(bridge, oid), target.base_port) {
            (Some(now), Some(port)) => {
                let has = |list: &[u8]| portlist::members(bridge.form, list, bridge.first_port).contains(&port);
                has(now) == has(list)
            }
            (_, _) => false,
        },
        (_, _) => shown(state, oid).as_ref().is_some_and(|now| same(now, value)),
    };
    let done = |state: &State| step.expect.iter().map(|binding| shows(state, binding)).collect::<Vec<bool>>();
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

fn same(a: &Value, b: &Value) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        (_, _) => match (a, b) {
            (Value::Octets(a), Value::Octets(b)) => trimmed(a) == trimmed(b),
            (_, _) => a == b,
        },
    }
}

/// Agents may leave out the empty end of a list.
fn trimmed(list: &[u8]) -> &[u8] {
    &list[..list.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1)]
}

pub fn list_of<'a>(bridge: &'a Bridge, oid: &Oid) -> Option<&'a [u8]> {
    let row = |index: u32| bridge.rows.values().find(|row| row.index == index);
    match (oid.0.strip_prefix(o::STATIC_EGRESS), oid.0.strip_prefix(o::STATIC_UNTAGGED)) {
        (Some([index]), _) => row(*index).map(|row| row.egress.as_slice()),
        (_, Some([index])) => row(*index).map(|row| row.untagged.as_slice()),
        (_, _) => None,
    }
}

/// What a state holds for an object.
fn shown(state: &State, oid: &Oid) -> Option<Value> {
    let of = |arcs: Arcs, column: &BTreeMap<u32, i64>| match oid.0.strip_prefix(arcs) {
        Some([index]) => column.get(index).copied().map(Value::Integer),
        Some(_) | None => None,
    };
    of(o::IF_ADMIN_STATUS, &state.admin).or_else(|| match &state.vlans {
        Vlans::Bridge(bridge) => {
            let pvid = oid.0.strip_prefix(o::PVID).and_then(|index| bridge.pvid.as_ref()?.get(index.first()?)).cloned();
            let types = oid.0.strip_prefix(o::FRAME_TYPES).and_then(|index| bridge.frame_types.get(index.first()?));
            let pvid = pvid.or_else(|| types.copied().map(Value::Integer));
            pvid.or_else(|| list_of(bridge, oid).map(|list| Value::Octets(list.to_vec())))
        }
        Vlans::Vtp(vtp) => of(o::VM_VLAN, &vtp.vm_vlan)
            .or_else(|| of(o::TRUNK_NATIVE, &vtp.native))
            .or_else(|| of(o::TRUNK_ENCAPSULATION, &vtp.encapsulation))
            .or_else(|| of(o::TRUNK_DYNAMIC_STATE, &vtp.dynamic_state))
            .or_else(|| {
                let list = |(arcs, column): (&Arcs, &BTreeMap<u32, Vec<u8>>)| column.get(oid.0.strip_prefix(*arcs)?.first()?).cloned();
                o::TRUNK_ENABLED.iter().zip(&vtp.enabled).find_map(list).map(Value::Octets)
            }),
    })
}

// ---- a VLAN that does not exist ------------------------------------------------------------------------------------------

/// RowStatus, RFC 2579.
const ACTIVE: i64 = 1;
const CREATE_AND_GO: i64 = 4;
const CREATE_AND_WAIT: i64 = 5;
const DESTROY: i64 = 6;

impl Engine<'_> {
    /// Make a VLAN, tagged on these base ports. All in one PDU; else the row alone and then the rest; else by createAndWait.
    pub async fn create_vlan(&mut self, vlan: Vlan, uplinks: &[u32], state: &State) -> Result<(), Fault> {
        let Vlans::Bridge(bridge) = &state.vlans else {
            let why = "its VLANs are made at its console or by VTP".to_owned();
            return Err(Fault::Unsupported { device: self.device.to_owned(), what: format!("create VLAN {vlan}"), why });
        };
        let status = |value| (at(o::STATIC_ROW_STATUS, &[u32::from(vlan.id())]), Value::Integer(value));
        let name = vlan_name(vlan);
        let row = new_row(vlan, uplinks, bridge).ok_or_else(|| {
            self.disagrees(format!("VLAN {vlan}"), "a PortList that can be written".to_owned(), "another form".to_owned())
        })?;

        let mut answer = SetAnswer::Accepted(Vec::new());
        if !self.row_exists(vlan).await? {
            answer = self.agent.set(&row).await?;
        }
        for (create, then) in [(CREATE_AND_GO, None), (CREATE_AND_WAIT, Some(ACTIVE))] {
            if !self.row_exists(vlan).await? {
                answer = self.agent.set(&[status(create)]).await?;
            }
            // Its name is for people: an agent that does not take it has made the VLAN all the same.
            self.agent.set(std::slice::from_ref(&name)).await?;
            self.join_uplinks(vlan, uplinks, bridge).await?;
            if let Some(active) = then {
                self.agent.set(&[status(active)]).await?;
            }
            if self.row_exists(vlan).await? && self.uplinks_joined(vlan, uplinks, bridge).await? {
                return Ok(());
            }
        }
        let what = format!("VLAN {vlan}");
        match answer {
            SetAnswer::Refused { status, index } => Err(self.refused(format!("creating {what}"), status, index)),
            SetAnswer::Accepted(_) => Err(self.disagrees(what, "it active, and tagged on the uplinks".to_owned(), "otherwise".to_owned())),
        }
    }

    /// Whether the row is active: some agents answer notReady(3) for rows that do not exist.
    async fn row_exists(&mut self, vlan: Vlan) -> Result<bool, Fault> {
        let status = at(o::STATIC_ROW_STATUS, &[u32::from(vlan.id())]);
        Ok(read::get(self.agent, std::slice::from_ref(&status)).await?.get(&status).and_then(number) == Some(ACTIVE))
    }

    async fn egress_list(&mut self, vlan: Vlan) -> Result<Vec<u8>, Fault> {
        let oid = at(o::STATIC_EGRESS, &[u32::from(vlan.id())]);
        let found = read::get(self.agent, std::slice::from_ref(&oid)).await?;
        Ok(found.get(&oid).and_then(super::value::octets).unwrap_or_default().to_vec())
    }

    async fn uplinks_joined(&mut self, vlan: Vlan, uplinks: &[u32], bridge: &Bridge) -> Result<bool, Fault> {
        let members = portlist::members(bridge.form, &self.egress_list(vlan).await?, bridge.first_port);
        Ok(uplinks.iter().all(|port| members.contains(port)))
    }

    async fn join_uplinks(&mut self, vlan: Vlan, uplinks: &[u32], bridge: &Bridge) -> Result<(), Fault> {
        let old = self.egress_list(vlan).await?;
        let joined = uplinks.iter().try_fold(old.clone(), |list, port| portlist::with(bridge.form, &list, bridge.first_port, *port, true));
        if let Some(new) = joined.filter(|new| *new != old) {
            self.agent.set(&[(at(o::STATIC_EGRESS, &[u32::from(vlan.id())]), Value::Octets(new))]).await?;
        }
        Ok(())
    }
}

pub fn vlan_name(vlan: Vlan) -> Binding {
    (at(o::STATIC_NAME, &[u32::from(vlan.id())]), Value::Octets(format!("VLAN{vlan}").into_bytes()))
}

/// The row of a VLAN that does not exist, as the one PDU that most agents take. Nothing where this agent's lists cannot be written.
pub fn new_row(vlan: Vlan, uplinks: &[u32], bridge: &Bridge) -> Option<Vec<Binding>> {
    let index = [u32::from(vlan.id())];
    let empty = vec![0u8; bridge.rows.values().map(|row| row.egress.len()).max().unwrap_or(0)];
    let join = |list: Vec<u8>, port: &u32| portlist::with(bridge.form, &list, bridge.first_port, *port, true);
    let egress = uplinks.iter().try_fold(empty.clone(), join)?;
    Some(vec![
        (at(o::STATIC_ROW_STATUS, &index), Value::Integer(CREATE_AND_GO)),
        vlan_name(vlan),
        (at(o::STATIC_EGRESS, &index), Value::Octets(egress)),
        (at(o::STATIC_UNTAGGED, &index), Value::Octets(empty)),
    ])
}

// ---- saving -----------------------------------------------------------------------------------------------------------------

/// The row of a copy table that is ours, while a copy runs.
const COPY_ROW: u32 = 4_711;
/// How often a copy is asked whether it is done.
const COPY_POLL: Duration = Duration::from_millis(250);

impl Engine<'_> {
    pub async fn save(&mut self) -> Result<(), Fault> {
        let Some(copy) = copy(self.inventory.profile.save) else {
            let why = format!("no object is known that saves the configuration of {}", self.inventory.profile.vendor);
            return Err(Fault::Unsupported { device: self.device.to_owned(), what: "save its configuration".to_owned(), why });
        };
        if let Some((clear, _, _)) = &copy.watched {
            // What an earlier copy left; an agent refuses to destroy a row that is not there.
            self.agent.set(clear).await?;
        }
        if let SetAnswer::Refused { status, index } = self.agent.set(&copy.begin).await? {
            return Err(self.refused("saving its configuration".to_owned(), status, index));
        }
        if let Some((clear, table, state)) = copy.watched {
            self.copied(table, state).await?;
            self.agent.set(&clear).await?;
        }
        Ok(())
    }

    /// Until the copy says that it is done. The caller's deadline ends the wait.
    async fn copied(&mut self, table: Arcs, state: CopyState) -> Result<(), Fault> {
        let oid = at(table, &[state.column, COPY_ROW]);
        loop {
            let shown = read::get(self.agent, std::slice::from_ref(&oid)).await?.get(&oid).and_then(number);
            match shown {
                Some(done) if done == state.done => return Ok(()),
                Some(failed) if failed == state.failed => {
                    let what = "saving its configuration".to_owned();
                    return Err(Fault::Refused { device: self.device.to_owned(), what, code: "the copy failed".to_owned() });
                }
                Some(_) => tokio::time::sleep(COPY_POLL).await,
                None => {
                    return Err(self.disagrees(
                        "saving its configuration".to_owned(),
                        "the state of the copy".to_owned(),
                        "none".to_owned(),
                    ));
                }
            }
        }
    }
}

/// The PDUs of a save.
pub struct Copy {
    pub begin: Vec<Binding>,
    /// Sent before and after, where the copy's row stays and shows how it goes.
    pub watched: Option<(Vec<Binding>, Arcs, CopyState)>,
}

pub fn copy(save: Save) -> Option<Copy> {
    let Save::Row { table, cells, row_status, state } = save else { return None };
    let cell = |column: u32, value: i64| (at(table, &[column, COPY_ROW]), Value::Integer(value));
    let mut begin: Vec<Binding> = cells.iter().map(|(column, value)| cell(*column, *value)).collect();
    begin.push(cell(row_status, CREATE_AND_GO));
    Some(Copy { begin, watched: state.map(|state| (vec![cell(row_status, DESTROY)], table, state)) })
}
