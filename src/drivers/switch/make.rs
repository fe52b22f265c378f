//! Makes VLANs, and saves the running configuration.
//!
//! Leaves out: whether that may be done (`driver`). Invariant: as with ports, each SET is computed from what one GET showed just before.
//! Shown by `tests/switch_writes.rs`.

use std::time::Duration;

use super::engine::{Engine, others};
use super::objects::{self as o, Arcs, at};
use super::portlist;
use super::profiles::{Save, State as CopyState};
use super::read::{self, Bridge, Inventory, State, Vlans};
use super::snmp::{Binding, Leave, SetAnswer, Value};
use super::value::{number, octets};
use super::write::Target;
use crate::drivers::Fault;
use crate::drivers::gate::Freshness;
use crate::model::Vlan;

/// RowStatus, RFC 2579.
const ACTIVE: i64 = 1;
const CREATE_AND_GO: i64 = 4;
const CREATE_AND_WAIT: i64 = 5;
const DESTROY: i64 = 6;

/// A row of dot1qVlanStaticTable as it is now.
struct RowNow {
    active: bool,
    egress: Vec<u8>,
    fresh: Freshness,
}

impl RowNow {
    fn joined(&self, uplinks: &[u32], bridge: &Bridge) -> bool {
        let members = portlist::members(bridge.form, &self.egress, bridge.first_port);
        uplinks.iter().all(|port| members.contains(port))
    }
}

impl Engine<'_> {
    /// Make a VLAN, tagged on these base ports. All in one PDU; else the row alone and then the rest; else by createAndWait.
    pub(super) async fn create_vlan(&mut self, vlan: Vlan, uplinks: &[u32], state: &State) -> Result<(), Fault> {
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
        let now = self.row(vlan, uplinks).await?;
        if now.active && now.joined(uplinks, bridge) {
            return Ok(());
        }
        if !now.active {
            answer = self.send(&row, now.fresh).await?;
        }
        for (create, then) in [(CREATE_AND_GO, None), (CREATE_AND_WAIT, Some(ACTIVE))] {
            let now = self.row(vlan, uplinks).await?;
            if !now.active {
                answer = self.send(&[status(create)], now.fresh).await?;
            }
            // Its name is for people: an agent that does not take it has made the VLAN all the same.
            let now = self.row(vlan, uplinks).await?;
            self.send(std::slice::from_ref(&name), now.fresh).await?;
            self.join_uplinks(vlan, uplinks, bridge).await?;
            if let Some(active) = then {
                let now = self.row(vlan, uplinks).await?;
                self.send(&[status(active)], now.fresh).await?;
            }
            let now = self.row(vlan, uplinks).await?;
            if now.active && now.joined(uplinks, bridge) {
                return Ok(());
            }
        }
        let what = format!("VLAN {vlan}");
        match answer {
            SetAnswer::Refused { status, index } => Err(self.refused(format!("creating {what}"), status, index)),
            SetAnswer::Accepted(_) => Err(self.disagrees(what, "it active, and tagged on the uplinks".to_owned(), "otherwise".to_owned())),
        }
    }

    /// A VLAN that is half made harms nobody, and is made whole by the next try: a pause need not wait for it.
    async fn send(&mut self, bindings: &[Binding], fresh: Freshness) -> Result<SetAnswer, Fault> {
        self.agent.set(bindings, Leave { permit: self.permit, fresh, half_way: false }).await
    }

    /// Active is more than to be there: some agents answer notReady(3) for rows that do not exist.
    async fn row(&mut self, vlan: Vlan, uplinks: &[u32]) -> Result<RowNow, Fault> {
        let inventory = self.inventory;
        let targets: Vec<Target<'_>> = uplinks.iter().filter_map(|port| at_base_port(inventory, *port)).collect();
        let [status, egress] = [o::STATIC_ROW_STATUS, o::STATIC_EGRESS].map(|arcs| at(arcs, &[u32::from(vlan.id())]));
        let (found, fresh) = self.before(&format!("VLAN {vlan}"), vec![status.clone(), egress.clone()], &targets).await?;
        let list = found.get(&egress).and_then(octets).unwrap_or_default().to_vec();
        Ok(RowNow { active: found.get(&status).and_then(number) == Some(ACTIVE), egress: list, fresh })
    }

    async fn join_uplinks(&mut self, vlan: Vlan, uplinks: &[u32], bridge: &Bridge) -> Result<(), Fault> {
        let old = self.row(vlan, uplinks).await?;
        let join = |list: Vec<u8>, port: &u32| portlist::with(bridge.form, &list, bridge.first_port, *port, true);
        let Some(new) = uplinks.iter().try_fold(old.egress.clone(), join).filter(|new| *new != old.egress) else { return Ok(()) };
        self.send(&[(at(o::STATIC_EGRESS, &[u32::from(vlan.id())]), Value::Octets(new))], old.fresh).await?;
        let now = self.row(vlan, uplinks).await?;
        let others = others(self.inventory, bridge, &old.egress, &now.egress, &uplinks.iter().copied().collect());
        if !others.is_empty() {
            self.notes.push(format!("while VLAN {vlan} was written, other ports changed in its list: {others}; nothing is done about it"));
        }
        Ok(())
    }
}

/// The port that is meant by an uplink's place in the bridge.
fn at_base_port(inventory: &Inventory, base_port: u32) -> Option<Target<'_>> {
    let (if_index, place) = inventory.places.0.iter().find(|(_, place)| place.base_ports.contains(&base_port))?;
    Some(Target { key: &place.key, if_index: *if_index, base_port: Some(base_port) })
}

pub(super) fn vlan_name(vlan: Vlan) -> Binding {
    (at(o::STATIC_NAME, &[u32::from(vlan.id())]), Value::Octets(format!("VLAN{vlan}").into_bytes()))
}

/// The row of a VLAN that does not exist, as the one PDU that most agents take. Nothing where this agent's lists cannot be written.
pub(super) fn new_row(vlan: Vlan, uplinks: &[u32], bridge: &Bridge) -> Option<Vec<Binding>> {
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
    pub(super) async fn save(&mut self) -> Result<(), Fault> {
        let Some(copy) = copy(self.inventory.profile.save) else {
            let why = format!("no object is known that saves the configuration of {}", self.inventory.profile.vendor);
            return Err(Fault::Unsupported { device: self.device.to_owned(), what: "save its configuration".to_owned(), why });
        };
        if let Some((clear, _, _)) = &copy.watched {
            // What an earlier copy left; an agent refuses to destroy a row that is not there.
            self.send_alone(clear).await?;
        }
        if let SetAnswer::Refused { status, index } = self.send_alone(&copy.begin).await? {
            return Err(self.refused("saving its configuration".to_owned(), status, index));
        }
        if let Some((clear, table, state)) = copy.watched {
            self.copied(table, state).await?;
            self.send_alone(&clear).await?;
        }
        Ok(())
    }

    /// A SET that rests on nothing but the switch being the one that is meant.
    async fn send_alone(&mut self, bindings: &[Binding]) -> Result<SetAnswer, Fault> {
        let (_, fresh) = self.before("the saving of its configuration", Vec::new(), &[]).await?;
        self.send(bindings, fresh).await
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
pub(super) struct Copy {
    pub begin: Vec<Binding>,
    /// Sent before and after, where the copy's row stays and shows how it goes.
    pub watched: Option<(Vec<Binding>, Arcs, CopyState)>,
}

pub(super) fn copy(save: Save) -> Option<Copy> {
    let Save::Row { table, cells, row_status, state } = save else { return None };
    let cell = |column: u32, value: i64| (at(table, &[column, COPY_ROW]), Value::Integer(value));
    let mut begin: Vec<Binding> = cells.iter().map(|(column, value)| cell(*column, *value)).collect();
    begin.push(cell(row_status, CREATE_AND_GO));
    Some(Copy { begin, watched: state.map(|state| (vec![cell(row_status, DESTROY)], table, state)) })
}
