//! Q-BRIDGE-MIB (RFC 4363): a PVID for each port, and lists of ports for each VLAN.
//!
//! Leaves out: how its agents write lists (`portlist`). Invariant: PVID decides the untagged VLAN, membership decides the tagged ones.
//! A port without untagged VLAN lets no untagged frame in where the switch takes dot1qPortAcceptableFrameTypes; that object alone is not
//! corrected when somebody else changes it: it is no part of what is compared.

use std::collections::{BTreeMap, BTreeSet};

use super::{Obstacle, Port, PortVlans, Target, VlanTable, Work, WriteStep, describe, exact, index, native, plain, spare, unknown, wanted};
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::portlist::{self, Form};
use crate::drivers::switch::profiles::{Adding, Grouping, Profile};
use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::drivers::switch::value::{Column, number, octets};
use crate::model::Vlan;
use crate::model::fact::{PortConfig, Quality};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bridge {
    pub form: Form,
    /// The port that the first bit of a list stands for.
    pub first_port: u32,
    pub source: Source,
    /// Ports that are down are left out of the lists of members.
    pub leaves_out_down: bool,
    /// dot1qPvid as it was sent (some agents send INTEGER), by base port; nothing where the agent does not serve it.
    pub pvid: Option<BTreeMap<u32, Value>>,
    pub rows: BTreeMap<Vlan, Row>,
    /// Where `source` is the current table: what is told of dot1qVlanStaticUntaggedPorts, since a port that is down is left out of the other.
    pub configured: BTreeMap<Vlan, Row>,
    /// dot1qPortAcceptableFrameTypes, by base port: as of the last poll at everything, or of our own last write.
    pub frame_types: BTreeMap<u32, i64>,
    /// Where ports have a link type that rules their VLANs, by ifIndex.
    pub links: BTreeMap<u32, Link>,
}

/// Which table the lists were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Static,
    Current,
    /// Neither is served: nothing but dot1qPvid, at most.
    Nowhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The index of the row: the VLAN, or (Force10) the ifIndex of the VLAN's interface.
    pub index: u32,
    pub egress: Vec<u8>,
    pub untagged: Vec<u8>,
}

/// HH3C-LswINF-MIB::hh3cifVLANType.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub base_port: u32,
    /// vLANTrunk(1), access(2), hybrid(3), fabric(4).
    pub kind: i64,
}

/// A trunk sends the frames of its PVID untagged, and all others tagged.
const TRUNK: i64 = 1;
/// An access port is in one VLAN: it leaves the old one when it joins another, and its PVID, which cannot be written, follows.
const ACCESS: i64 = 2;
/// A hybrid port is tagged and untagged as its lists say.
const HYBRID: i64 = 3;

/// `row_of`: the VLAN's part of an index. Nothing where it is none of the table's: what is read of a row is what is written to it.
pub(crate) fn rows(
    egress: &Column,
    untagged: &Column,
    row_of: impl Fn(&[u32]) -> Option<u32>,
    interfaces: &BTreeMap<u32, Vlan>,
) -> BTreeMap<Vlan, Row> {
    let list = |column: &Column, index: &Vec<u32>| column.get(index).and_then(octets).unwrap_or_default().to_vec();
    let row = |index: &Vec<u32>| {
        let at = row_of(index)?;
        let vlan = Vlan::try_from(i64::from(at)).ok().or_else(|| interfaces.get(&at).copied())?;
        Some((vlan, Row { index: at, egress: list(egress, index), untagged: list(untagged, index) }))
    };
    egress.keys().filter_map(row).collect()
}

// ---- what is shown ------------------------------------------------------------------------------------------------------

/// The rows of a bridge, turned round: base port → VLANs.
#[derive(Debug, Default)]
struct Memberships {
    egress: BTreeMap<u32, BTreeSet<Vlan>>,
    untagged: BTreeMap<u32, BTreeSet<Vlan>>,
}

impl Memberships {
    fn all(bridge: &Bridge) -> Memberships {
        let mut all = Memberships::default();
        for (vlan, row) in &bridge.rows {
            for port in bridge.members(&row.egress) {
                all.egress.entry(port).or_default().insert(*vlan);
            }
            for port in bridge.members(&row.untagged) {
                all.untagged.entry(port).or_default().insert(*vlan);
            }
        }
        all
    }

    fn at(bridge: &Bridge, base_ports: &[u32]) -> Memberships {
        let mut some = Memberships::default();
        for (vlan, row) in &bridge.rows {
            for port in base_ports.iter().copied() {
                if bridge.has(&row.egress, port) {
                    some.egress.entry(port).or_default().insert(*vlan);
                }
                if bridge.has(&row.untagged, port) {
                    some.untagged.entry(port).or_default().insert(*vlan);
                }
            }
        }
        some
    }
}

impl Bridge {
    pub(crate) fn members(&self, list: &[u8]) -> BTreeSet<u32> {
        portlist::members(self.form, list, self.first_port)
    }

    fn has(&self, list: &[u8], port: u32) -> bool {
        portlist::has(self.form, list, self.first_port, port)
    }

    fn with(&self, list: &[u8], port: u32, present: bool) -> Option<Vec<u8>> {
        portlist::with(self.form, list, self.first_port, port, present)
    }

    fn pvid(&self, base_port: u32) -> Option<Vlan> {
        let value = self.pvid.as_ref()?.get(&base_port)?;
        number(value).and_then(|id| Vlan::try_from(id).ok())
    }

    fn serves_pvid_of(&self, base_port: u32) -> bool {
        self.pvid.as_ref().is_some_and(|column| column.contains_key(&base_port))
    }

    fn link(&self, target: Target<'_>) -> Option<i64> {
        self.links.get(&target.if_index).map(|link| link.kind)
    }

    fn port(&self, members: &Memberships, port: &Port<'_>) -> PortVlans {
        let listed = |port: &u32| self.serves_pvid_of(*port) || members.egress.contains_key(port);
        let Some(first) = port.base_ports.iter().find(|port| listed(port)).or(port.base_ports.first()) else {
            return unknown("not a bridge port");
        };
        let union = |column: &BTreeMap<u32, BTreeSet<Vlan>>| -> BTreeSet<Vlan> {
            port.base_ports.iter().filter_map(|port| column.get(port)).flatten().copied().collect()
        };
        let (egress, untagged, pvid) = (union(&members.egress), union(&members.untagged), self.pvid(*first));
        if self.source == Source::Nowhere {
            return PortVlans { untagged: pvid, ..unknown("VLAN membership is not shown") };
        }
        if egress.is_empty() && untagged.is_empty() {
            let left_out = self.leaves_out_down && port.is_down;
            if let Some(vlan) = self.configured(port.base_ports).or(pvid).filter(|_| left_out) {
                return exact(Some(vlan), BTreeSet::new(), Quality::Exact);
            }
            if self.source == Source::Current {
                return PortVlans { untagged: pvid, ..unknown("in no VLAN of the current table") };
            }
        }
        let (native, quality) = native(self.pvid.is_some(), pvid, &egress, &untagged);
        let tagged: BTreeSet<Vlan> = egress.iter().filter(|v| !untagged.contains(v) && Some(**v) != native).copied().collect();
        exact(native, tagged, quality)
    }

    /// RFC 4363: dot1qVlanCurrentEgressPorts are those that transmit frames of the VLAN, which one that is down does not; what it is configured
    /// for is dot1qVlanStaticUntaggedPorts, and dot1qPvid.
    fn configured(&self, base_ports: &[u32]) -> Option<Vlan> {
        let has = |row: &Row| base_ports.iter().any(|port| self.has(&row.untagged, *port));
        let mut vlans = self.configured.iter().filter(|(_, row)| has(row)).map(|(vlan, _)| *vlan);
        vlans.next().filter(|_| vlans.next().is_none())
    }

    /// What a poll asks for: the lists, and the PVIDs of these ports.
    pub(crate) fn polled<'a>(&'a self, base_ports: impl Iterator<Item = &'a u32> + 'a) -> impl Iterator<Item = Oid> + 'a {
        let pvids = base_ports.filter(|port| self.serves_pvid_of(**port)).map(|port| at(o::PVID, &[*port]));
        let lists = self.rows.values().flat_map(|row| [o::STATIC_EGRESS, o::STATIC_UNTAGGED].map(|arcs| at(arcs, &[row.index])));
        pvids.chain(lists).chain(self.links.keys().map(|port| at(o::LINK_TYPE, &[*port])))
    }

    /// The list of an object.
    pub(crate) fn list(&self, oid: &Oid) -> Option<&[u8]> {
        let row = |index: u32| self.rows.values().find(|row| row.index == index);
        match (index(o::STATIC_EGRESS, oid), index(o::STATIC_UNTAGGED, oid)) {
            (Some(index), _) => row(index).map(|row| row.egress.as_slice()),
            (None, Some(index)) => row(index).map(|row| row.untagged.as_slice()),
            (None, None) => None,
        }
    }

    pub(crate) fn only_ours_differs(&self, old: &[u8], new: &[u8], port: u32) -> bool {
        portlist::only_ours_differs(self.form, old, new, self.first_port, port)
    }
}

// ---- what is written ----------------------------------------------------------------------------------------------------

const NAMES: &[(Arcs, &str)] = &[
    (o::PVID, "PVID"),
    (o::FRAME_TYPES, "acceptable frame types"),
    (o::LINK_TYPE, "link type"),
    (o::STATIC_EGRESS, "egress ports of VLAN"),
    (o::STATIC_UNTAGGED, "untagged ports of VLAN"),
    (o::STATIC_ROW_STATUS, "row status of VLAN"),
    (o::STATIC_NAME, "name of VLAN"),
];

/// One bit of one list.
#[derive(Clone, Copy)]
struct Bit {
    vlan: Vlan,
    untagged: bool,
    present: bool,
}

fn bit(vlan: &Vlan, untagged: bool, present: bool) -> Bit {
    Bit { vlan: *vlan, untagged, present }
}

/// dot1qPortAcceptableFrameTypes: admitAll(1), admitOnlyVlanTagged(2).
const ADMIT_ALL: i64 = 1;
const ONLY_TAGGED: i64 = 2;

impl Bridge {
    fn bindings(&self, port: u32, bits: &[Bit]) -> Result<Vec<Binding>, Obstacle> {
        let binding = |bit: &Bit| {
            let row = self.rows.get(&bit.vlan).ok_or(Obstacle::MissingVlan(bit.vlan))?;
            let (column, old): (Arcs, &[u8]) =
                if bit.untagged { (o::STATIC_UNTAGGED, &row.untagged) } else { (o::STATIC_EGRESS, &row.egress) };
            let new = self.with(old, port, bit.present);
            let new = new.ok_or(Obstacle::Impossible("a PortList cannot be written without touching other ports"))?;
            Ok((at(column, &[row.index]), Value::Octets(new)))
        };
        bits.iter().map(binding).collect()
    }

    /// The PVID to write. A port without untagged VLAN keeps the one it has, unless it is a tagged member there: untagged frames would come in.
    fn pvid_change(&self, port: u32, to: &PortConfig) -> Result<Option<Value>, Obstacle> {
        let Some(sent) = self.pvid.as_ref().and_then(|column| column.get(&port)) else { return Ok(None) };
        let now = self.pvid(port);
        let goal = match to.untagged {
            Some(vlan) => Some(vlan),
            None if now.is_none_or(|vlan| !to.tagged.contains(&vlan)) => now,
            None => Some(spare(&self.existing(), &to.tagged)?),
        };
        let as_sent = |vlan: Vlan| match matches!(sent, Value::Integer(_)) {
            true => Value::Integer(i64::from(vlan.id())),
            false => Value::Unsigned32(u32::from(vlan.id())),
        };
        Ok(goal.filter(|_| goal != now).map(as_sent))
    }

    /// What to write there. Without it the untagged frames of a port without untagged VLAN go into its PVID; and with it those of a port that
    /// has one go nowhere.
    fn frame_types(&self, port: u32, to: &PortConfig) -> Option<i64> {
        match (self.frame_types.get(&port)?, to.untagged) {
            (&ADMIT_ALL, None) => Some(ONLY_TAGGED),
            (&ONLY_TAGGED, Some(_)) => Some(ADMIT_ALL),
            (_, _) => None,
        }
    }

    /// What a SET of one list does to a port whose link type rules its VLANs.
    fn follow(&mut self, index: u32, before: &[u8]) {
        let Some((vlan, after)) = self.rows.iter().find(|(_, row)| row.index == index).map(|(vlan, row)| (*vlan, row.untagged.clone()))
        else {
            return;
        };
        let access = self.links.values().filter(|link| link.kind == ACCESS).map(|link| link.base_port);
        let joined: Vec<u32> = access.filter(|port| self.has(&after, *port) && !self.has(before, *port)).collect();
        for port in joined {
            let (form, first) = (self.form, self.first_port);
            for row in self.rows.iter_mut().filter(|(other, _)| **other != vlan).map(|(_, row)| row) {
                for list in [&mut row.egress, &mut row.untagged] {
                    if portlist::has(form, list, first, port) {
                        *list = portlist::with(form, list, first, port, false).unwrap_or_else(|| list.clone());
                    }
                }
            }
            self.pvid.iter_mut().for_each(|column| drop(column.insert(port, Value::Unsigned32(u32::from(vlan.id())))));
        }
    }

    /// The frames of a trunk's PVID are untagged, and no others.
    fn follow_pvid(&mut self, port: u32) {
        if !self.links.values().any(|link| link.base_port == port && link.kind == TRUNK) {
            return;
        }
        let (pvid, form, first) = (self.pvid(port), self.form, self.first_port);
        for (vlan, row) in &mut self.rows {
            let untagged = Some(*vlan) == pvid && portlist::has(form, &row.egress, first, port);
            row.untagged = portlist::with(form, &row.untagged, first, port, untagged).unwrap_or_else(|| row.untagged.clone());
        }
    }

    /// The groups of bits and PVID that are to be written, in their order: what belongs together is one group.
    fn groups(&self, adding: Adding, target: Target<'_>, port: u32, to: &PortConfig) -> Result<(bool, Vec<Vec<Binding>>), Obstacle> {
        let wanted = wanted(&self.existing(), to)?;
        let members = Memberships::at(self, &[port]);
        let of = |column: &BTreeMap<u32, BTreeSet<Vlan>>| column.get(&port).cloned().unwrap_or_default();
        let (egress, untagged) = (of(&members.egress), of(&members.untagged));
        let native: BTreeSet<Vlan> = to.untagged.into_iter().collect();
        let link = self.link(target);
        let change = if link == Some(ACCESS) { None } else { self.pvid_change(port, to)? };
        let disrupts = untagged != native || change.is_some();

        let mut groups: Vec<Vec<Bit>> = Vec::new();
        groups.extend(egress.iter().filter(|v| !wanted.contains(v) && !untagged.contains(v)).map(|v| vec![bit(v, false, false)]));
        let mut last = Vec::new();
        for vlan in &native {
            let mut group = Vec::new();
            group.extend((!egress.contains(vlan)).then(|| bit(vlan, false, true)));
            let missing = (!untagged.contains(vlan)).then(|| bit(vlan, true, true));
            if link == Some(TRUNK) {
                last.extend(missing);
            } else {
                group.extend(missing);
            }
            if adding == Adding::UntaggedFirst {
                group.reverse();
            }
            groups.push(group);
        }
        groups.extend(to.tagged.iter().filter(|v| !egress.contains(v)).map(|v| vec![bit(v, false, true)]));
        let mut pdus = groups.iter().map(|group| self.bindings(port, group)).collect::<Result<Vec<_>, _>>()?;
        pdus.extend(change.map(|value| vec![(at(o::PVID, &[port]), value)]));
        pdus.push(self.bindings(port, &last)?);
        for vlan in untagged.iter().filter(|v| !native.contains(v)) {
            let leaves = !wanted.contains(vlan) && egress.contains(vlan);
            let group: Vec<Bit> = [Some(bit(vlan, true, false)), leaves.then_some(bit(vlan, false, false))].into_iter().flatten().collect();
            pdus.push(self.bindings(port, &group)?);
        }
        Ok((disrupts, pdus))
    }
}

impl VlanTable for Bridge {
    fn existing(&self) -> BTreeSet<Vlan> {
        self.rows.keys().copied().collect()
    }

    fn of(&self, ports: &[Port<'_>]) -> Vec<PortVlans> {
        let members = if let [one] = ports { Memberships::at(self, one.base_ports) } else { Memberships::all(self) };
        ports.iter().map(|port| self.port(&members, port)).collect()
    }

    fn work(&self, profile: &Profile, grouping: Grouping, target: Target<'_>, to: &PortConfig) -> Result<Work, Obstacle> {
        let port = target.base_port.ok_or(Obstacle::Impossible("it is not a port of the bridge, or more than one"))?;
        let step = |bindings: Vec<Binding>| plain(describe(target, &bindings, NAMES), bindings);
        let (disrupts, pdus) = self.groups(profile.adding, target, port, to)?;
        if self.link(target) == Some(ACCESS) {
            match (to.untagged, to.tagged.is_empty()) {
                (None, true) => return Err(Obstacle::Impossible("an access port always has an untagged VLAN")),
                (Some(_), true) => {}
                // It keeps its VLAN, and may then be in others.
                (_, false) => {
                    let hybrid = step(vec![(at(o::LINK_TYPE, &[target.if_index]), Value::Integer(HYBRID))]);
                    return Ok(Work { disrupts: true, step: Some(hybrid) });
                }
            }
        }
        let bindings = match grouping {
            Grouping::Atomic => pdus.concat(),
            // An access port is never a tagged member, not for the time between two PDUs.
            Grouping::Single if self.link(target) != Some(ACCESS) => pdus.concat().into_iter().take(1).collect(),
            Grouping::Grouped | Grouping::Single => pdus.into_iter().find(|group| !group.is_empty()).unwrap_or_default(),
        };
        let change = (!bindings.is_empty()).then(|| step(bindings));
        let admits = |types: i64| {
            let binding = (at(o::FRAME_TYPES, &[port]), Value::Integer(types));
            WriteStep { advice: types == ONLY_TAGGED, ..step(vec![binding]) }
        };
        // Untagged frames are kept out first, and let in last.
        let step = match self.frame_types(port, to) {
            Some(ONLY_TAGGED) => Some(admits(ONLY_TAGGED)),
            Some(types) => change.or_else(|| Some(admits(types))),
            None => change,
        };
        Ok(Work { disrupts, step })
    }

    /// Of a switch with very many VLANs only those that concern the port: where it is, and where it is to be.
    fn of_port(&self, target: Target<'_>, to: &PortConfig) -> Vec<Oid> {
        let few = self.rows.len() <= 32;
        let concerns = |vlan: &Vlan, row: &Row| {
            let listed = |list: &[u8]| target.base_port.is_some_and(|port| self.has(list, port));
            few || to.untagged == Some(*vlan) || to.tagged.contains(vlan) || listed(&row.egress) || listed(&row.untagged)
        };
        let mut oids: Vec<Oid> = target.base_port.iter().map(|port| at(o::PVID, &[*port])).collect();
        oids.extend(target.base_port.filter(|port| self.frame_types.contains_key(port)).map(|port| at(o::FRAME_TYPES, &[port])));
        oids.extend(self.link(target).map(|_| at(o::LINK_TYPE, &[target.if_index])));
        for row in self.rows.iter().filter(|(vlan, row)| concerns(vlan, row)).map(|(_, row)| row) {
            oids.extend([at(o::STATIC_EGRESS, &[row.index]), at(o::STATIC_UNTAGGED, &[row.index])]);
        }
        oids
    }

    fn of_step(&self, target: Target<'_>, step: &WriteStep) -> Vec<Oid> {
        let mut oids: Vec<Oid> =
            target.base_port.filter(|port| self.serves_pvid_of(*port)).map(|port| at(o::PVID, &[port])).into_iter().collect();
        oids.extend(target.base_port.filter(|port| self.frame_types.contains_key(port)).map(|port| at(o::FRAME_TYPES, &[port])));
        oids.extend(self.link(target).map(|_| at(o::LINK_TYPE, &[target.if_index])));
        // Both lists of a VLAN, of which one is perhaps written.
        let row_of = |oid: &Oid| index(o::STATIC_EGRESS, oid).or_else(|| index(o::STATIC_UNTAGGED, oid));
        let written: BTreeSet<u32> = step.bindings.iter().filter_map(|(oid, _)| row_of(oid)).collect();
        oids.extend(written.into_iter().flat_map(|row| [o::STATIC_EGRESS, o::STATIC_UNTAGGED].map(|arcs| at(arcs, &[row]))));
        oids
    }

    fn shown(&self, oid: &Oid) -> Option<Value> {
        let pvid = || self.pvid.as_ref()?.get(&index(o::PVID, oid)?).cloned();
        let types = || self.frame_types.get(&index(o::FRAME_TYPES, oid)?).copied().map(Value::Integer);
        let link = || self.links.get(&index(o::LINK_TYPE, oid)?).map(|link| Value::Integer(link.kind));
        pvid().or_else(types).or_else(link).or_else(|| self.list(oid).map(|list| Value::Octets(list.to_vec())))
    }

    fn note(&mut self, oid: &Oid, value: Option<&Value>) {
        let list_of =
            |oid: &Oid| index(o::STATIC_EGRESS, oid).map(|row| (row, false)).or(index(o::STATIC_UNTAGGED, oid).map(|row| (row, true)));
        match (list_of(oid), value.and_then(octets)) {
            // The VLAN is gone.
            (Some((at, false)), None) => self.rows.retain(|_, row| row.index != at),
            (Some((at, untagged)), list) => {
                for row in self.rows.values_mut().filter(|row| row.index == at) {
                    *(if untagged { &mut row.untagged } else { &mut row.egress }) = list.unwrap_or_default().to_vec();
                }
            }
            (None, _) => {}
        }
        let (Some(value), Some(n)) = (value, value.and_then(number)) else { return };
        if let (Some(port), Some(column)) = (index(o::PVID, oid), self.pvid.as_mut()) {
            column.insert(port, value.clone());
        }
        // Only where it is served: what a switch did not take is not observed again.
        if let Some(types) = index(o::FRAME_TYPES, oid).and_then(|port| self.frame_types.get_mut(&port)) {
            *types = n;
        }
        if let Some(link) = index(o::LINK_TYPE, oid).and_then(|port| self.links.get_mut(&port)) {
            link.kind = n;
        }
    }

    /// A row's status is only ever written to make one.
    fn written(&mut self, oid: &Oid, value: &Value) {
        if let Some((row, vlan)) = index(o::STATIC_ROW_STATUS, oid).and_then(|row| Some((row, Vlan::try_from(i64::from(row)).ok()?))) {
            self.rows.entry(vlan).or_insert_with(|| Row { index: row, egress: Vec::new(), untagged: Vec::new() });
        }
        let before = index(o::STATIC_UNTAGGED, oid).map(|row| (row, self.list(oid).unwrap_or_default().to_vec()));
        self.note(oid, Some(value));
        if let Some((row, before)) = before {
            self.follow(row, &before);
        }
        if let Some(port) = index(o::PVID, oid) {
            self.follow_pvid(port);
        }
    }

    /// Of a list our own bit counts, not the whole: others may write theirs at the same time.
    fn shows(&self, target: Target<'_>, (oid, expected): &(Oid, Option<Value>)) -> bool {
        match (expected, self.shown(oid)) {
            (Some(Value::Octets(list)), Some(Value::Octets(now))) => {
                target.base_port.is_some_and(|port| self.has(&now, port) == self.has(list, port))
            }
            (Some(value), Some(now)) => super::same(&now, value),
            (expected, now) => expected.is_none() && now.is_none(),
        }
    }

    /// The row of a VLAN that does not exist, as the one PDU that most agents take, and its name.
    fn creation(&self, vlan: Vlan, uplinks: &[Target<'_>]) -> Result<Vec<Vec<Binding>>, String> {
        let instance = [u32::from(vlan.id())];
        let empty = vec![0u8; self.rows.values().map(|row| row.egress.len()).max().unwrap_or(0)];
        let join = |list: Vec<u8>, uplink: &Target<'_>| self.with(&list, uplink.base_port?, true);
        let egress = uplinks.iter().try_fold(empty.clone(), join).ok_or_else(|| "its lists of ports cannot be written".to_owned())?;
        let name = (at(o::STATIC_NAME, &instance), Value::Octets(format!("VLAN{vlan}").into_bytes()));
        let row = vec![
            (at(o::STATIC_ROW_STATUS, &instance), Value::Integer(super::CREATE_AND_GO)),
            name.clone(),
            (at(o::STATIC_EGRESS, &instance), Value::Octets(egress)),
            (at(o::STATIC_UNTAGGED, &instance), Value::Octets(empty)),
        ];
        Ok(vec![row, vec![name]])
    }
}
