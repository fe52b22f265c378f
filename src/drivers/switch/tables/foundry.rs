//! FOUNDRY-SN-SWITCH-GROUP-MIB (Foundry, Brocade ICX, Ruckus): a row for each member of a VLAN, and a mode for each port.
//!
//! Two generations differ in what a port with tagged VLANs does with untagged frames. Before FastIron 8.0.80 it has none, unless it is in dual
//! mode (snSwIfInfoTagMode) and snSwIfVlanId names the VLAN, of which it is then a tagged member; since then it stays an untagged member
//! beside, and snSwIfVlanId is always 0. Errors are answered to SETs that were done (PacketFence), so that only what is seen afterwards
//! counts. Invariant: of the default VLAN no row is written; a port comes back into it by itself, when it leaves the others.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Obstacle, Port, PortVlans, Target, VlanTable, Work, WriteStep, describe, exact, index, integer, native, plain, unknown, wanted,
};
use crate::drivers::Fault;
use crate::drivers::switch::ask::{Asking, Told};
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::profiles::{Grouping, Profile};
use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::drivers::switch::value::{number, numbers};
use crate::model::Vlan;
use crate::model::fact::{PortConfig, PortMode, Quality};

/// Ports are ifIndexes throughout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Foundry {
    existing: BTreeSet<Vlan>,
    /// snSwDefaultVLanId.
    default: Vlan,
    /// snVLanByPortMemberTagMode.
    members: BTreeMap<u32, BTreeMap<Vlan, i64>>,
    modes: BTreeMap<u32, Mode>,
    /// dot1qPvid.
    pvids: BTreeMap<u32, Vlan>,
    /// Base port → ifIndex.
    base: BTreeMap<u32, u32>,
    /// Untagged frames beside tagged ones need dual mode: the older generation, which tells the VLAN of untagged ports.
    dual_mode: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mode {
    /// snSwIfInfoTagMode: tagged(1), untagged(2), dual(3).
    tagging: Option<i64>,
    /// snSwIfVlanId; 0 is none.
    vlan: Option<Vlan>,
}

const TAGGED: i64 = 1;
const UNTAGGED: i64 = 2;
const DUAL: i64 = 3;
/// snVLanByPortMemberRowStatus: valid(2), delete(3), create(4).
const VALID: i64 = 2;
const DELETE: i64 = 3;
const CREATE: i64 = 4;

// ---- reading ------------------------------------------------------------------------------------------------------------

fn vlan_of(id: i64) -> Option<Vlan> {
    Vlan::try_from(id).ok()
}

/// The VLAN and the port of an instance of snVLanByPortMemberTable.
fn member(arcs: Arcs, oid: &Oid) -> Option<(Vlan, u32)> {
    if let Some([vlan, port]) = oid.0.strip_prefix(arcs) { Some((vlan_of(i64::from(*vlan))?, *port)) } else { None }
}

impl Foundry {
    /// And why it may be less than all. `base`: base port → ifIndex; `pvid`: dot1qPvid as far as it was told.
    pub(crate) async fn read(
        asking: &mut Asking<'_>,
        ports: usize,
        base: BTreeMap<u32, u32>,
        pvid: &Told,
    ) -> Result<(Foundry, Option<String>), Fault> {
        let [members, taggings, vlans] =
            asking.told([o::FOUNDRY_MEMBER_TAG_MODE, o::FOUNDRY_IF_TAG_MODE, o::FOUNDRY_IF_VLAN], ports).await?;
        let [configured, default] = asking.told([o::FOUNDRY_VLAN_STATUS, o::FOUNDRY_DEFAULT_VLAN], 16).await?;
        let untold = [&members, &taggings, &vlans, &configured, &default].into_iter().find_map(|told| told.untold.clone());
        let of_port = |(port, id): (u32, i64)| Some((*base.get(&port)?, vlan_of(id)?));
        let mut table = Foundry {
            existing: numbers(&configured.rows).into_keys().filter_map(|id| vlan_of(i64::from(id))).collect(),
            default: default.rows.values().next().and_then(number).and_then(vlan_of).unwrap_or(Vlan::DEFAULT),
            members: BTreeMap::new(),
            modes: BTreeMap::new(),
            pvids: numbers(&pvid.rows).into_iter().filter_map(of_port).collect(),
            base,
            dual_mode: false,
        };
        for (instance, mode) in &members.rows {
            let ([vlan, port], Some(mode)) = (instance.as_slice(), number(mode)) else { continue };
            if let Some(vlan) = vlan_of(i64::from(*vlan)) {
                table.existing.insert(vlan);
                table.members.entry(*port).or_default().insert(vlan, mode);
            }
        }
        numbers(&taggings.rows).into_iter().for_each(|(port, mode)| table.modes.entry(port).or_default().tagging = Some(mode));
        numbers(&vlans.rows).into_iter().for_each(|(port, id)| table.modes.entry(port).or_default().vlan = vlan_of(id));
        table.dual_mode = table.modes.values().any(|mode| mode.vlan.is_some());
        Ok((table, untold))
    }

    /// The rows of a port, tagged and untagged.
    fn rows(&self, if_index: u32) -> (BTreeSet<Vlan>, BTreeSet<Vlan>) {
        let of = |tagged: bool| {
            let rows = self.members.get(&if_index).into_iter().flatten();
            rows.filter(|(_, mode)| (**mode != UNTAGGED) == tagged).map(|(vlan, _)| *vlan).collect()
        };
        (of(true), of(false))
    }

    /// An interface is a member of VLANs by snVLanByPortMemberTable, tagged or not; in dual mode one of those has untagged frames as well. Where
    /// that table does not name it, its own row of snSwIfInfoTable says what it is.
    fn port(&self, port: &Port<'_>) -> PortVlans {
        let pvid = self.pvids.get(&port.if_index).copied();
        let nowhere = || PortVlans { untagged: pvid, ..unknown("in no VLAN, by the switch's own table") };
        let (tagged, untagged) = self.rows(port.if_index);
        let mode = match self.modes.get(&port.if_index) {
            Some(mode) => *mode,
            None if tagged.is_empty() && untagged.is_empty() => {
                return if port.base_ports.is_empty() { unknown("not a bridge port") } else { nowhere() };
            }
            None => Mode::default(),
        };
        let dual = mode.vlan.or(pvid).or(Some(self.default)).filter(|_| mode.tagging == Some(DUAL));
        if tagged.is_empty() && untagged.is_empty() {
            return match (mode.tagging, mode.vlan) {
                (Some(UNTAGGED), Some(_)) => exact(mode.vlan, BTreeSet::new(), Quality::Exact),
                (Some(TAGGED | DUAL), _) => {
                    PortVlans { mode: PortMode::Trunk, untagged: dual, ..unknown("the VLANs that are tagged on it are not shown") }
                }
                (_, _) => nowhere(),
            };
        }
        let egress = tagged.union(&untagged).copied().collect();
        let (native, quality) = match dual {
            Some(vlan) => (Some(vlan), Quality::Exact),
            None => native(pvid.is_some(), pvid, &egress, &untagged),
        };
        exact(native, tagged.into_iter().filter(|vlan| Some(*vlan) != native).collect(), quality)
    }
}

// ---- writing ------------------------------------------------------------------------------------------------------------

const NAMES: &[(Arcs, &str)] = &[
    (o::FOUNDRY_MEMBER_STATUS, "member of VLAN"),
    (o::FOUNDRY_MEMBER_TAG_MODE, "tagging of VLAN"),
    (o::FOUNDRY_IF_TAG_MODE, "tag mode"),
    (o::FOUNDRY_IF_VLAN, "untagged VLAN"),
];

impl Foundry {
    /// One row in one PDU, and what must be seen of it.
    fn row(target: Target<'_>, vlan: Vlan, mode: Option<i64>) -> WriteStep {
        let instance = [u32::from(vlan.id()), target.if_index];
        let bindings = joined(&instance, mode);
        let expect = vec![(at(o::FOUNDRY_MEMBER_TAG_MODE, &instance), mode.map(Value::Integer))];
        WriteStep { expect, ..plain(describe(target, &bindings, NAMES), bindings) }
    }

    /// Dual mode with a VLAN of its own, or with the default VLAN.
    fn dual(&self, target: Target<'_>, vlan: Vlan) -> WriteStep {
        let id = if vlan == self.default { 0 } else { i64::from(vlan.id()) };
        let instance = [target.if_index];
        let bindings = vec![integer(o::FOUNDRY_IF_TAG_MODE, &instance, DUAL), integer(o::FOUNDRY_IF_VLAN, &instance, id)];
        plain(describe(target, &bindings, NAMES), bindings)
    }

    /// In which VLAN a port is by dual mode.
    fn dual_in(&self, if_index: u32) -> Option<Vlan> {
        self.modes.get(&if_index).filter(|mode| mode.tagging == Some(DUAL)).map(|mode| mode.vlan.unwrap_or(self.default))
    }

    /// The next row or mode that is to be written.
    fn next(&self, target: Target<'_>, to: &PortConfig) -> Option<WriteStep> {
        let (tagged, untagged) = self.rows(target.if_index);
        let dual_mode = self.dual_mode && !to.tagged.is_empty();
        let dual = to.untagged.filter(|_| dual_mode);
        let own = |vlan: &Vlan| *vlan != self.default;
        let (mut want_tagged, mut want_untagged) = (to.tagged.clone(), to.untagged);
        if dual_mode {
            want_tagged.extend(dual.filter(own));
            want_untagged = None;
        }
        // "Get rid of the specific dual-mode VLAN, otherwise setting a new one gives an error" (PacketFence).
        if self.dual_in(target.if_index).is_some_and(|now| own(&now) && Some(now) != dual) {
            return Some(self.dual(target, self.default));
        }
        let row = |vlan: &Vlan, mode| Some(Foundry::row(target, *vlan, mode));
        // A row is taken away before it is made anew the other way.
        let joins = want_tagged.iter().find(|vlan| !tagged.contains(vlan) && !untagged.contains(vlan));
        // A trunk that stays one has a tagged VLAN all the while: without any it would come back into the default VLAN.
        if let Some(vlan) = joins.filter(|_| !tagged.is_empty()) {
            return row(vlan, Some(TAGGED));
        }
        let leaves = tagged.iter().find(|vlan| !want_tagged.contains(vlan));
        let leaves = leaves.or_else(|| untagged.iter().find(|vlan| own(vlan) && Some(**vlan) != want_untagged));
        if let Some(vlan) = leaves {
            return row(vlan, None);
        }
        if let Some(vlan) = joins {
            return row(vlan, Some(TAGGED));
        }
        if let Some(vlan) = want_untagged.as_ref().filter(|vlan| own(vlan) && !untagged.contains(vlan)) {
            return row(vlan, Some(UNTAGGED));
        }
        match (dual, self.dual_in(target.if_index)) {
            (Some(vlan), now) if now != Some(vlan) => Some(self.dual(target, vlan)),
            (None, Some(_)) if dual_mode => {
                let binding = integer(o::FOUNDRY_IF_TAG_MODE, &[target.if_index], TAGGED);
                Some(plain(describe(target, std::slice::from_ref(&binding), NAMES), vec![binding]))
            }
            (_, _) => None,
        }
    }

    /// What follows from the rows of a port, on a switch that does what its MIB says.
    fn settle(&mut self, port: u32) {
        let (dual_mode, default) = (self.dual_mode, self.default);
        let rows = self.members.entry(port).or_default();
        let own = rows.iter().find(|(vlan, mode)| **vlan != default && **mode == UNTAGGED).map(|(vlan, _)| *vlan);
        let trunk = rows.values().any(|mode| *mode != UNTAGGED);
        if own.is_some() || (dual_mode && trunk) {
            rows.retain(|vlan, mode| *vlan != default || *mode != UNTAGGED);
        } else {
            rows.entry(default).or_insert(UNTAGGED);
        }
        let mode = self.modes.entry(port).or_default();
        let untagged = match (dual_mode, trunk) {
            (true, true) => {
                mode.tagging = mode.tagging.filter(|tagging| *tagging == DUAL).or(Some(TAGGED));
                mode.vlan = mode.vlan.filter(|_| mode.tagging == Some(DUAL));
                mode.vlan.unwrap_or(default)
            }
            (true, false) => {
                *mode = Mode { tagging: Some(UNTAGGED), vlan: Some(own.unwrap_or(default)) };
                own.unwrap_or(default)
            }
            (false, _) => own.unwrap_or(default),
        };
        if let Some(pvid) = self.pvids.get_mut(&port) {
            *pvid = untagged;
        }
    }
}

/// To make a row, or to take it away.
fn joined(instance: &[u32], mode: Option<i64>) -> Vec<Binding> {
    match mode {
        Some(mode) => vec![integer(o::FOUNDRY_MEMBER_STATUS, instance, CREATE), integer(o::FOUNDRY_MEMBER_TAG_MODE, instance, mode)],
        None => vec![integer(o::FOUNDRY_MEMBER_STATUS, instance, DELETE)],
    }
}

impl VlanTable for Foundry {
    fn existing(&self) -> BTreeSet<Vlan> {
        self.existing.clone()
    }

    fn of(&self, ports: &[Port<'_>]) -> Vec<PortVlans> {
        ports.iter().map(|port| self.port(port)).collect()
    }

    fn work(&self, _: &Profile, _: Grouping, target: Target<'_>, to: &PortConfig) -> Result<Work, Obstacle> {
        wanted(&self.existing, to)?;
        if to.tagged.contains(&self.default) {
            return Err(Obstacle::Impossible("nothing is tagged in the default VLAN of such a switch"));
        }
        let base_ports: Vec<u32> = target.base_port.into_iter().collect();
        let now = self.port(&Port { if_index: target.if_index, base_ports: &base_ports, is_down: false });
        let dual_mode = self.dual_mode;
        let may_be_none = dual_mode && !to.tagged.is_empty();
        if to.untagged.is_none() && now.untagged.is_some() && !may_be_none {
            return Err(Obstacle::Impossible("the untagged frames of its ports always go into a VLAN"));
        }
        let step = self.next(target, to);
        // Between access and trunk a port of the older generation passes through the default VLAN.
        let disrupts = now.untagged != to.untagged || (dual_mode && now.tagged.is_empty() != to.tagged.is_empty() && step.is_some());
        Ok(Work { disrupts, step })
    }

    /// Of a switch with very many VLANs only those that concern the port: where it is, and where it is to be.
    fn of_port(&self, target: Target<'_>, to: &PortConfig) -> Vec<Oid> {
        let (tagged, untagged) = self.rows(target.if_index);
        let concerns = |vlan: &&Vlan| {
            let here = tagged.contains(vlan) || untagged.contains(vlan) || **vlan == self.default;
            here || to.untagged == Some(**vlan) || to.tagged.contains(vlan)
        };
        let few = self.existing.len() <= 32;
        let vlans = self.existing.iter().filter(|vlan| few || concerns(vlan));
        let rows = vlans.map(|vlan| at(o::FOUNDRY_MEMBER_TAG_MODE, &[u32::from(vlan.id()), target.if_index]));
        rows.chain(of_mode(target)).collect()
    }

    fn of_step(&self, target: Target<'_>, step: &WriteStep) -> Vec<Oid> {
        let rows = step.bindings.iter().filter_map(|(oid, _)| member(o::FOUNDRY_MEMBER_STATUS, oid));
        let rows = rows.map(|(vlan, port)| at(o::FOUNDRY_MEMBER_TAG_MODE, &[u32::from(vlan.id()), port]));
        rows.chain(of_mode(target)).collect()
    }

    fn shown(&self, oid: &Oid) -> Option<Value> {
        let row = |(vlan, port): (Vlan, u32)| self.members.get(&port)?.get(&vlan).copied();
        let mode = |arcs: Arcs| self.modes.get(&index(arcs, oid)?);
        let shown = member(o::FOUNDRY_MEMBER_TAG_MODE, oid).and_then(row);
        let shown = shown.or_else(|| member(o::FOUNDRY_MEMBER_STATUS, oid).and_then(row).map(|_| VALID));
        let shown = shown.or_else(|| mode(o::FOUNDRY_IF_TAG_MODE)?.tagging);
        let shown = shown.or_else(|| Some(mode(o::FOUNDRY_IF_VLAN)?.vlan.map_or(0, |vlan| i64::from(vlan.id()))));
        let pvid = || self.pvids.get(self.base.get(&index(o::PVID, oid)?)?).map(|vlan| i64::from(vlan.id()));
        shown.or_else(pvid).map(Value::Integer)
    }

    fn note(&mut self, oid: &Oid, value: Option<&Value>) {
        let n = value.and_then(number);
        if let Some((vlan, port)) = member(o::FOUNDRY_MEMBER_TAG_MODE, oid) {
            let rows = self.members.entry(port).or_default();
            match n {
                Some(mode) => drop(rows.insert(vlan, mode)),
                None => drop(rows.remove(&vlan)),
            }
        }
        if let Some(port) = index(o::FOUNDRY_IF_TAG_MODE, oid) {
            self.modes.entry(port).or_default().tagging = n;
        }
        if let Some(port) = index(o::FOUNDRY_IF_VLAN, oid) {
            self.modes.entry(port).or_default().vlan = n.and_then(vlan_of);
        }
        if let (Some(port), Some(vlan)) = (index(o::PVID, oid).and_then(|port| self.base.get(&port)), n.and_then(vlan_of)) {
            self.pvids.insert(*port, vlan);
        }
    }

    fn written(&mut self, oid: &Oid, value: &Value) {
        match (member(o::FOUNDRY_MEMBER_STATUS, oid), number(value)) {
            (Some((vlan, port)), Some(CREATE)) => {
                self.existing.insert(vlan);
                self.members.entry(port).or_default().entry(vlan).or_insert(UNTAGGED);
            }
            (Some((vlan, port)), Some(DELETE)) => drop(self.members.entry(port).or_default().remove(&vlan)),
            (_, _) => self.note(oid, Some(value)),
        }
        let columns = [o::FOUNDRY_MEMBER_STATUS, o::FOUNDRY_MEMBER_TAG_MODE];
        let port = columns.iter().find_map(|arcs| member(arcs, oid)).map(|(_, port)| port);
        let port = port.or_else(|| index(o::FOUNDRY_IF_VLAN, oid)).or_else(|| index(o::FOUNDRY_IF_TAG_MODE, oid));
        port.into_iter().for_each(|port| self.settle(port));
    }

    fn creation(&self, vlan: Vlan, uplinks: &[Target<'_>]) -> Result<Vec<Vec<Binding>>, String> {
        if uplinks.is_empty() {
            return Err("a VLAN of such a switch exists only while it has a member: name its uplinks in `uplinks`".to_owned());
        }
        // Tagged for the first time, it would leave the VLAN of its untagged frames.
        let is_access = |uplink: &&Target<'_>| self.dual_mode && self.rows(uplink.if_index).0.is_empty();
        if let Some(Target { key, .. }) = uplinks.iter().find(is_access) {
            return Err(format!(
                "its uplink {key} has no tagged VLAN, and would lose its untagged frames with the first one: make it a trunk at the console (`dual-mode` keeps them)"
            ));
        }
        Ok(uplinks.iter().map(|uplink| joined(&[u32::from(vlan.id()), uplink.if_index], Some(TAGGED))).collect())
    }
}

fn of_mode(target: Target<'_>) -> impl Iterator<Item = Oid> {
    let modes = [o::FOUNDRY_IF_TAG_MODE, o::FOUNDRY_IF_VLAN].map(|arcs| at(arcs, &[target.if_index]));
    modes.into_iter().chain(target.base_port.map(|port| at(o::PVID, &[port])))
}
