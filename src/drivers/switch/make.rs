//! Makes VLANs, and saves the running configuration.
//!
//! Leaves out: whether that may be done (`driver`). Invariant: as with ports, each SET is computed from what one GET showed just before.
//! Shown by `tests/switch_writes.rs`.

use std::time::Duration;

use super::engine::{Engine, others};
use super::objects::{self as o, Arcs, at, oid};
use super::portlist;
use super::profiles::{Progress, Save};
use super::read::{self, State};
use super::snmp::{Binding, Leave, Oid, SetAnswer, Value};
use super::tables::{Bridge, CREATE_AND_GO, Target, Vlans};
use super::value::{number, octets};
use crate::drivers::Fault;
use crate::drivers::gate::Freshness;
use crate::model::Vlan;

/// RowStatus, RFC 2579.
const ACTIVE: i64 = 1;
const CREATE_AND_WAIT: i64 = 5;
const DESTROY: i64 = 6;

/// A row of dot1qVlanStaticTable as it is now.
struct RowNow {
    active: bool,
    egress: Vec<u8>,
    fresh: Freshness,
}

impl RowNow {
    fn joined(&self, uplinks: &[Target<'_>], bridge: &Bridge) -> bool {
        let members = bridge.members(&self.egress);
        uplinks.iter().all(|uplink| uplink.base_port.is_some_and(|port| members.contains(&port)))
    }
}

impl Engine<'_> {
    /// Make a VLAN, tagged on these ports.
    pub(super) async fn create_vlan(&mut self, vlan: Vlan, uplinks: &[Target<'_>], state: &State) -> Result<(), Fault> {
        let pdus = state.vlans.table().creation(vlan, uplinks).map_err(|why| {
            let (device, what) = (self.device.to_owned(), format!("create VLAN {vlan}"));
            Fault::Unsupported { device, what, why }
        })?;
        match &state.vlans {
            Vlans::Bridge(bridge) => self.make_row(vlan, uplinks, bridge, pdus).await,
            Vlans::Foundry(_) | Vlans::Vtp(_) => self.make_members(vlan, uplinks, pdus).await,
        }
    }

    /// One row for each member, where a VLAN is what has members.
    async fn make_members(&mut self, vlan: Vlan, uplinks: &[Target<'_>], pdus: Vec<Vec<Binding>>) -> Result<(), Fault> {
        let what = format!("VLAN {vlan}");
        for (uplink, pdu) in uplinks.iter().zip(pdus) {
            // What shows the row is what the PDU sets last.
            let Some((row, mode)) = pdu.last().cloned() else { continue };
            let (found, fresh) = self.before(&what, vec![row.clone()], &[*uplink]).await?;
            if found.get(&row) == Some(&mode) {
                continue;
            }
            let answer = self.send(&pdu, fresh).await?;
            let now = read::get(self.agent, std::slice::from_ref(&row)).await?;
            match (now.get(&row) == Some(&mode), answer) {
                (true, _) => {}
                (false, SetAnswer::Refused { status, index }) => return Err(self.refused(format!("creating {what}"), status, index)),
                (false, SetAnswer::Accepted(_)) => {
                    return Err(self.disagrees(what, format!("it tagged on {}", uplink.key), "otherwise".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// All in one PDU; else the row alone and then the rest; else by createAndWait.
    async fn make_row(&mut self, vlan: Vlan, uplinks: &[Target<'_>], bridge: &Bridge, pdus: Vec<Vec<Binding>>) -> Result<(), Fault> {
        let status = |value| (at(o::STATIC_ROW_STATUS, &[u32::from(vlan.id())]), Value::Integer(value));
        let (row, name) = (pdus.first().cloned().unwrap_or_default(), pdus.last().cloned().unwrap_or_default());

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
            self.send(&name, now.fresh).await?;
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
    async fn row(&mut self, vlan: Vlan, uplinks: &[Target<'_>]) -> Result<RowNow, Fault> {
        let [status, egress] = [o::STATIC_ROW_STATUS, o::STATIC_EGRESS].map(|arcs| at(arcs, &[u32::from(vlan.id())]));
        let (found, fresh) = self.before(&format!("VLAN {vlan}"), vec![status.clone(), egress.clone()], uplinks).await?;
        let list = found.get(&egress).and_then(octets).unwrap_or_default().to_vec();
        Ok(RowNow { active: found.get(&status).and_then(number) == Some(ACTIVE), egress: list, fresh })
    }

    async fn join_uplinks(&mut self, vlan: Vlan, uplinks: &[Target<'_>], bridge: &Bridge) -> Result<(), Fault> {
        let old = self.row(vlan, uplinks).await?;
        let ports: Vec<u32> = uplinks.iter().filter_map(|uplink| uplink.base_port).collect();
        let join = |list: Vec<u8>, port: &u32| portlist::with(bridge.form, &list, bridge.first_port, *port, true);
        let Some(new) = ports.iter().try_fold(old.egress.clone(), join).filter(|new| *new != old.egress) else { return Ok(()) };
        self.send(&[(at(o::STATIC_EGRESS, &[u32::from(vlan.id())]), Value::Octets(new))], old.fresh).await?;
        let now = self.row(vlan, uplinks).await?;
        let others = others(self.inventory, bridge, &old.egress, &now.egress, &ports.into_iter().collect());
        if !others.is_empty() {
            self.notes.push(format!("while VLAN {vlan} was written, other ports changed in its list: {others}; nothing is done about it"));
        }
        Ok(())
    }
}

// ---- saving -----------------------------------------------------------------------------------------------------------------

/// The row of a copy table that is ours, while a copy runs.
const COPY_ROW: u32 = 4_711;
/// How often a save is asked whether it is done.
const SAVE_POLL: Duration = Duration::from_millis(250);
/// After so many questions an agent without results is taken to have none.
const NO_RESULT_AFTER: u32 = 20;

/// A save as it is written, and watched.
pub(super) struct Saving {
    pub begin: Vec<Binding>,
    /// Sent before and after, where a row stays until it is destroyed.
    pub clear: Option<Vec<Binding>>,
    watch: Watch,
}

/// Where a save shows how it goes.
enum Watch {
    Nowhere,
    Object { oid: Oid, done: i64, failed: i64 },
    Results { request: Arcs, state: Arcs, running: i64, done: i64 },
}

pub(super) fn saving(save: Save) -> Option<Saving> {
    let (table, cells, row_status, progress) = match save {
        Save::NoneKnown => return None,
        Save::Scalar { object, value, done, failed } => {
            let oid = at(object, &[0]);
            let begin = vec![(oid.clone(), Value::Integer(value))];
            return Some(Saving { begin, clear: None, watch: Watch::Object { oid, done, failed } });
        }
        Save::Row { table, cells, row_status, progress } => (table, cells, row_status, progress),
    };
    let cell = |column: u32, value: i64| (at(table, &[column, COPY_ROW]), Value::Integer(value));
    let mut begin: Vec<Binding> = cells.iter().map(|(column, value)| cell(*column, *value)).collect();
    begin.push(cell(row_status, CREATE_AND_GO));
    let clear = (progress != Progress::NotShown).then(|| vec![cell(row_status, DESTROY)]);
    let watch = match progress {
        Progress::NotShown => Watch::Nowhere,
        Progress::Column { column, done, failed } => Watch::Object { oid: at(table, &[column, COPY_ROW]), done, failed },
        Progress::Results { request, state, running, done } => Watch::Results { request, state, running, done },
    };
    Some(Saving { begin, clear, watch })
}

impl Engine<'_> {
    pub(super) async fn save(&mut self) -> Result<(), Fault> {
        let Some(Saving { begin, clear, watch }) = saving(self.inventory.profile.save) else {
            let why = format!("no object is known that saves the configuration of {}", self.inventory.profile.vendor);
            return Err(Fault::Unsupported { device: self.device.to_owned(), what: "save its configuration".to_owned(), why });
        };
        if let Some(clear) = &clear {
            // What an earlier save left; an agent refuses to destroy a row that is not there.
            self.send_alone(clear).await?;
        }
        let earlier = match &watch {
            Watch::Results { request, .. } => self.results(request).await?.into_iter().map(|(index, _)| index).max(),
            Watch::Nowhere | Watch::Object { .. } => None,
        };
        if let SetAnswer::Refused { status, index } = self.send_alone(&begin).await? {
            return Err(self.refused("saving its configuration".to_owned(), status, index));
        }
        match watch {
            Watch::Nowhere => {}
            Watch::Object { oid, done, failed } => self.shown_by(&oid, done, failed).await?,
            Watch::Results { request, state, running, done } => self.told_by(request, state, (running, done), earlier).await?,
        }
        if let Some(clear) = &clear {
            self.send_alone(clear).await?;
        }
        Ok(())
    }

    /// A SET that rests on nothing but the switch being the one that is meant.
    async fn send_alone(&mut self, bindings: &[Binding]) -> Result<SetAnswer, Fault> {
        let (_, fresh) = self.before("the saving of its configuration", Vec::new(), &[]).await?;
        self.send(bindings, fresh).await
    }

    fn save_failed(&self, code: String) -> Fault {
        Fault::Refused { device: self.device.to_owned(), what: "saving its configuration".to_owned(), code }
    }

    /// Until one object says that it is done. The caller's deadline ends the wait.
    async fn shown_by(&mut self, oid: &Oid, done: i64, failed: i64) -> Result<(), Fault> {
        loop {
            let shown = read::get(self.agent, std::slice::from_ref(oid)).await?.get(oid).and_then(number);
            match shown {
                Some(shown) if shown == done => return Ok(()),
                Some(shown) if shown == failed => return Err(self.save_failed("it failed".to_owned())),
                Some(_) => tokio::time::sleep(SAVE_POLL).await,
                None => {
                    let (what, expected) = ("saving its configuration".to_owned(), "how it goes".to_owned());
                    return Err(self.disagrees(what, expected, "nothing".to_owned()));
                }
            }
        }
    }

    /// The rows of a table of results: index, and the request that each is of.
    async fn results(&mut self, request: Arcs) -> Result<Vec<(u32, i64)>, Fault> {
        let walked = self.agent.walk(&[oid(request)], 16).await?;
        let row = |(oid, value): &Binding| Some((*oid.0.last()?, number(value)?));
        Ok(walked.iter().flat_map(|walked| &walked.rows).filter_map(row).collect())
    }

    /// Until a result of our request says so that was not there before.
    async fn told_by(&mut self, request: Arcs, state: Arcs, (running, done): (i64, i64), earlier: Option<u32>) -> Result<(), Fault> {
        for _ in 0..NO_RESULT_AFTER {
            let of_ours = |(index, of): &(u32, i64)| *of == i64::from(COPY_ROW) && earlier.is_none_or(|earlier| *index > earlier);
            if let Some((index, _)) = self.results(request).await?.into_iter().rev().find(of_ours) {
                let oid = at(state, &[index]);
                loop {
                    match read::get(self.agent, std::slice::from_ref(&oid)).await?.get(&oid).and_then(number) {
                        Some(shown) if shown == done => return Ok(()),
                        Some(shown) if shown == running => tokio::time::sleep(SAVE_POLL).await,
                        Some(shown) => return Err(self.save_failed(format!("its result is {shown}"))),
                        None => break,
                    }
                }
            }
            tokio::time::sleep(SAVE_POLL).await;
        }
        self.notes.push("it took the saving of its configuration, and does not tell how that ended".to_owned());
        Ok(())
    }
}
