//! Asks an agent: what rarely changes (`Inventory`) and what the planner compares (`State`).
//!
//! Leaves out: what it means (`seen`). Invariant: polling the state of a 48-port Q-BRIDGE switch takes at most three requests, of 64
//! objects each (`a_look_at_48_ports_takes_three_requests`).

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{Asking, Told};
use super::neighbour;
use super::objects::{self as o, Arcs, at};
use super::places::{Groups, Interfaces, Places};
use super::portlist::{self, Form};
use super::profiles::{Family, Membership, Probe, Profile, recognise};
use super::snmp::{Agent, Oid, Value};
use super::value::{Column, mac_octets, number, numbers, octets, single, text, texts};
use crate::drivers::Fault;
use crate::limits::MACS_PER_PORT;
use crate::model::fact::{Neighbour, SwitchIdentity};
use crate::model::identity::{Identity, Sameness};
use crate::model::switch::ProfileName;
use crate::model::{Mac, Vlan};

/// What changes rarely.
pub(crate) struct Inventory {
    pub shown: Identity,
    pub identity: SwitchIdentity,
    pub profile: &'static Profile,
    pub places: Places,
    /// The port that the first bit of a PortList stands for: 1, or 0 where base ports count from 0.
    pub first_port: u32,
    pub source: Source,
    pub neighbours: BTreeMap<u32, Neighbour>,
    pub macs: BTreeMap<u32, BTreeSet<Mac>>,
    /// There may be more of them than those that were told this time.
    pub macs_untold: bool,
    /// Members of aggregations: ifIndex → the aggregation's name, where it has one.
    pub lag_members: BTreeMap<u32, Option<String>>,
    /// Why there may be more of them.
    pub lags_untold: Option<String>,
    pub if_change: Option<i64>,
    /// dot1qPortAcceptableFrameTypes by base port, where it is served and the switch is written through Q-BRIDGE-MIB.
    pub frame_types: BTreeMap<u32, i64>,
    /// The interfaces of VLANs, `Vlan 2515`: some agents (Force10) index the static table by them.
    pub vlan_interfaces: BTreeMap<u32, Vlan>,
    /// dot1dBasePortTable is served: base ports are not taken for ifIndexes.
    pub base_table: bool,
    /// entPhysicalIndex of the chassis.
    pub chassis: Vec<u32>,
    /// It tells who is at the other end of its ports, by LLDP, CDP or a forwarding table.
    pub neighbours_told: bool,
    /// There may be more neighbours than those that were told this time.
    pub neighbours_untold: bool,
    /// Why the places of its ports in the bridge are not known.
    pub untold: Option<String>,
    /// What is odd about what it tells, in whole sentences for people.
    pub notes: BTreeSet<String>,
}

/// Where VLAN membership is read on this very switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Static,
    Current,
    Foundry,
    Vtp,
    /// Nothing but dot1qPvid, at most.
    Nowhere,
}

/// What the planner compares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub up_time: Option<i64>,
    pub if_change: Option<i64>,
    /// dot1qNumVlans, where it is served: tells whether a VLAN was made.
    pub num_vlans: Option<i64>,
    pub admin: BTreeMap<u32, i64>,
    pub oper: BTreeMap<u32, i64>,
    pub vlans: Vlans,
    /// Why what is known of its ports' VLANs may be less than all.
    pub untold: Option<String>,
    /// As `Inventory::notes`.
    pub notes: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Vlans {
    Bridge(Bridge),
    Vtp(Box<Vtp>),
}

/// Q-BRIDGE-MIB.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bridge {
    pub form: Form,
    pub first_port: u32,
    pub source: Source,
    /// dot1qPvid as it was sent (some agents send INTEGER), by base port; nothing where the agent does not serve it.
    pub pvid: Option<BTreeMap<u32, Value>>,
    pub rows: BTreeMap<Vlan, Row>,
    /// Where `source` is the current table: what is told of dot1qVlanStaticUntaggedPorts, since a port that is down is left out of the other.
    pub configured: BTreeMap<Vlan, Row>,
    /// Where `source` is Foundry: by ifIndex.
    pub foundry: BTreeMap<u32, FoundryPort>,
    /// dot1qPortAcceptableFrameTypes, by base port: as of the last poll at everything, or of our own last write.
    pub frame_types: BTreeMap<u32, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The index of the row: the VLAN, or (Force10) the ifIndex of the VLAN's interface.
    pub index: u32,
    pub egress: Vec<u8>,
    pub untagged: Vec<u8>,
}

/// A port as FOUNDRY-SN-SWITCH-GROUP-MIB shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundryPort {
    pub tagged: BTreeSet<Vlan>,
    pub untagged: BTreeSet<Vlan>,
    /// snSwIfInfoTagMode.
    pub tag_mode: Option<i64>,
    /// snSwIfVlanId.
    pub vlan: Option<Vlan>,
}

/// CISCO-VTP-MIB and CISCO-VLAN-MEMBERSHIP-MIB, by ifIndex.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Vtp {
    pub existing: BTreeSet<Vlan>,
    pub vm_vlan: BTreeMap<u32, i64>,
    pub native: BTreeMap<u32, i64>,
    pub encapsulation: BTreeMap<u32, i64>,
    pub dynamic_state: BTreeMap<u32, i64>,
    pub dynamic_status: BTreeMap<u32, i64>,
    pub enabled: [BTreeMap<u32, Vec<u8>>; 4],
    pub serial: Option<Value>,
    /// ccmHistoryRunningLastChanged is later than ccmHistoryStartupLastChanged.
    pub unsaved: Option<bool>,
}

impl Row {
    pub(crate) fn egress_ports(&self, bridge: &Bridge) -> BTreeSet<u32> {
        portlist::members(bridge.form, &self.egress, bridge.first_port)
    }

    pub(crate) fn untagged_ports(&self, bridge: &Bridge) -> BTreeSet<u32> {
        portlist::members(bridge.form, &self.untagged, bridge.first_port)
    }
}

// ---- what rarely changes ----------------------------------------------------------------------------------------------

pub(crate) async fn inventory(agent: &mut dyn Agent, device: &str, wanted: ProfileName) -> Result<Inventory, Fault> {
    let mut asking = Asking::new(agent, device);
    let scalar = |arcs: Arcs| at(arcs, &[0]);
    let more = [o::SYS_NAME, o::SNMP_ENGINE_ID, o::BASE_BRIDGE_ADDRESS, o::IF_TABLE_LAST_CHANGE].map(scalar);
    let answers = asking.scalars(&[o::SYS_DESCR, o::SYS_OBJECT_ID].map(scalar), &more).await?;
    let shown = |arcs: Arcs| answers.get(&scalar(arcs));
    let object_id = match shown(o::SYS_OBJECT_ID) {
        Some(Value::Oid(oid)) => oid.clone(),
        Some(_) | None => Oid::default(),
    };
    let string = |arcs: Arcs| shown(arcs).and_then(text).unwrap_or_default();
    let if_change = shown(o::IF_TABLE_LAST_CHANGE).and_then(number);
    let (chassis, serials) = serials(&mut asking).await?;
    let identity = SwitchIdentity { sys_object_id: object_id.to_string(), sys_descr: string(o::SYS_DESCR), sys_name: string(o::SYS_NAME) };
    let told = self::identity(serials, shown(o::SNMP_ENGINE_ID), shown(o::BASE_BRIDGE_ADDRESS), asking.engine_id());

    let (profile, source, pvids) = profile(&mut asking, &object_id, &identity.sys_descr, wanted).await?;
    let [Told { rows: base, untold, .. }] = asking.told([o::BASE_PORT_IF_INDEX], 64).await?;
    let mut base = numbers(&base);
    let base_table = !base.is_empty() || untold.is_some();
    if !base_table {
        // Some agents (Supermicro) have no dot1dBasePortTable: there a base port is the ifIndex.
        base = pvids.iter().map(|port| (*port, i64::from(*port))).collect();
    }
    let groups = Groups::read(&mut asking).await?;
    let channels = (profile.membership == Membership::Vtp).then_some(&groups);
    let interfaces = Interfaces::read(&mut asking).await?;
    let places = interfaces.places(&base, channels);
    let neighbours = neighbour::read(&mut asking, &places).await?;
    let learned = macs(&mut asking, &places).await?;
    let vlan_interfaces = interfaces.names.iter().filter_map(|(index, name)| Some((*index, vlan_of_name(name)?))).collect();
    let frame_types = match profile.family {
        Family::QBridge => numbers(&asking.columns([o::FRAME_TYPES], 64).await?[0]),
        Family::CiscoVtp | Family::ObserveOnly => BTreeMap::new(),
    };
    Ok(Inventory {
        shown: told,
        identity,
        profile,
        first_port: u32::from(!base.contains_key(&0)),
        source,
        neighbours: neighbours.at,
        macs: learned.at,
        macs_untold: learned.untold,
        lag_members: groups.members(&places, &interfaces.names),
        lags_untold: groups.untold,
        places,
        if_change,
        frame_types,
        vlan_interfaces,
        base_table,
        chassis,
        neighbours_told: neighbours.told || learned.told,
        neighbours_untold: neighbours.untold,
        untold,
        notes: asking.said(),
    })
}

/// The chassis and their serial numbers.
async fn serials(asking: &mut Asking<'_>) -> Result<(Vec<u32>, BTreeSet<String>), Fault> {
    let [classes, serials] = asking.columns([o::ENT_PHYSICAL_CLASS, o::ENT_PHYSICAL_SERIAL], 32).await?;
    let (classes, serials) = (numbers(&classes), texts(&serials));
    let told = |(index, class): (&u32, &i64)| Some((*index, serials.get(index).filter(|_| *class == 3)?.clone())); // entPhysicalClass: chassis(3)
    Ok(classes.iter().filter_map(told).unzip())
}

/// What tells this switch from another: the serial numbers of its chassis, its engine id, its bridge address, as far as it tells them.
/// `session`: the engine of an SNMPv3 session, where the object is not served.
pub(crate) fn identity(serials: BTreeSet<String>, engine: Option<&Value>, address: Option<&Value>, session: Option<Vec<u8>>) -> Identity {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let told = |bytes: Option<&[u8]>| bytes.filter(|b| b.iter().any(|o| *o != 0)).map(hex);
    let engine = told(engine.and_then(octets).or(session.as_deref()));
    Identity { serials, engine, base: told(address.and_then(octets)), ..Identity::default() }
}

async fn profile(
    asking: &mut Asking<'_>,
    object_id: &Oid,
    descr: &str,
    wanted: ProfileName,
) -> Result<(&'static Profile, Source, Vec<u32>), Fault> {
    let [egress, current] = asking.columns([o::STATIC_EGRESS, o::CURRENT_EGRESS], 16).await?;
    let [members, tag_modes] = asking.columns([o::FOUNDRY_MEMBER_TAG_MODE, o::FOUNDRY_IF_TAG_MODE], 16).await?;
    let [pvid, vm_vlan, native] = asking.columns([o::PVID, o::VM_VLAN, o::TRUNK_NATIVE], 64).await?;
    let probe = Probe { static_egress: !egress.is_empty(), pvid: !pvid.is_empty(), vm_vlan: !vm_vlan.is_empty() };
    let profile = recognise(object_id, descr, probe, wanted);
    let source = match profile.membership {
        Membership::QBridge(_) if !egress.is_empty() => Source::Static,
        Membership::QBridge(_) if !current.is_empty() => Source::Current,
        Membership::Foundry if !(members.is_empty() && tag_modes.is_empty()) => Source::Foundry,
        Membership::QBridge(_) | Membership::Foundry => Source::Nowhere,
        Membership::Vtp if vm_vlan.is_empty() && native.is_empty() => Source::Nowhere,
        Membership::Vtp => Source::Vtp,
    };
    Ok((profile, source, pvid.keys().filter_map(|index| single(index)).collect()))
}

/// Above this many learned addresses the forwarding table is not read: it would be more than 128 requests, to a core switch.
const FDB_ADDRESSES_MAX: i64 = 4_096;

/// What a bridge has learned.
struct Learned {
    /// Not all that a large one knows: at most `MACS_PER_PORT` of each port.
    at: BTreeMap<u32, BTreeSet<Mac>>,
    told: bool,
    /// There may be more than those that were told this time.
    untold: bool,
}

async fn macs(asking: &mut Asking<'_>, places: &Places) -> Result<Learned, Fault> {
    let [counts] = asking.columns([o::FDB_DYNAMIC_COUNT], 16).await?;
    if numbers(&counts).values().sum::<i64>() > FDB_ADDRESSES_MAX {
        return Ok(Learned { at: BTreeMap::new(), told: false, untold: true });
    }
    // dot1qTpFdbPort and dot1qTpFdbStatus, or else dot1dTpFdbPort.
    let [ports, status] = asking.told([o::TP_FDB_PORT, o::TP_FDB_STATUS], 64).await?;
    let old = if ports.rows.is_empty() { asking.told([o::TP_FDB_PORT_OLD], 64).await?.map(Some) } else { [None] };
    let [old] = old.map(Option::unwrap_or_default);
    // Not every agent counts what it learned: one that has more than can be held is not a switch that cannot be read.
    let whole = [&ports, &status, &old].iter().all(|told| told.untold.is_none());
    let (ports, status, old) = (ports.rows, status.rows, old.rows);
    let told = whole && !(counts.is_empty() && ports.is_empty() && old.is_empty());
    let mut at: BTreeMap<u32, BTreeSet<Mac>> = BTreeMap::new();
    for (index, value) in ports.iter().chain(&old) {
        // dot1qTpFdbStatus: learned(3); an agent without the column shows nothing but what it learned.
        let learned = status.get(index).and_then(number).is_none_or(|s| s == 3);
        let address = index.len().checked_sub(6).and_then(|start| mac_octets(&index[start..])).and_then(Mac::seen);
        let port = number(value).and_then(|p| u32::try_from(p).ok()).and_then(|p| places.by_base_port(p));
        if let (true, Some(mac), Some(port)) = (learned, address, port) {
            let on_port = at.entry(port).or_default();
            if on_port.len() < MACS_PER_PORT {
                on_port.insert(mac);
            }
        }
    }
    Ok(Learned { at, told, untold: !whole })
}

fn vlan_of_name(name: &str) -> Option<Vlan> {
    let number: i64 = name.strip_prefix("Vlan")?.trim_start().parse().ok()?;
    Vlan::try_from(number).ok()
}

// ---- what the planner compares ------------------------------------------------------------------------------------------

pub(crate) async fn state(agent: &mut dyn Agent, device: &str, inventory: &Inventory) -> Result<State, Fault> {
    let ports = inventory.places.0.len() + 8;
    let mut asking = Asking::new(agent, device);
    let Raw { admin, oper, vlans, clock, mut untold } = match inventory.profile.membership {
        Membership::QBridge(_) | Membership::Foundry => bridge_state(&mut asking, inventory, ports).await?,
        Membership::Vtp => vtp_state(&mut asking, ports).await?,
    };
    let [up_time, if_change, num_vlans] = clock.map(|column| column.get([0].as_slice()).and_then(number));
    untold = untold.or(admin.untold);
    Ok(State { up_time, if_change, num_vlans, admin: numbers(&admin.rows), oper: numbers(&oper), vlans, untold, notes: asking.said() })
}

struct Raw {
    admin: Told,
    oper: Column,
    vlans: Vlans,
    clock: [Column; 3],
    untold: Option<String>,
}

/// The same objects as last time, by GET, which packs them better than a walk. Nothing where a walk is needed: a VLAN came or went, or
/// the agent does not tell.
pub(crate) async fn poll(agent: &mut dyn Agent, inventory: &Inventory, last: &State) -> Result<Option<State>, Fault> {
    let Vlans::Bridge(bridge) = &last.vlans else { return Ok(None) };
    if bridge.source != Source::Static || last.num_vlans.is_none() || last.untold.is_some() {
        return Ok(None);
    }
    let scalars = [o::SYS_UP_TIME, o::IF_TABLE_LAST_CHANGE, o::NUM_VLANS].map(|arcs| at(arcs, &[0]));
    let mut wanted = scalars.to_vec();
    for (index, place) in &inventory.places.0 {
        wanted.extend([o::IF_ADMIN_STATUS, o::IF_OPER_STATUS].map(|arcs| at(arcs, &[*index])));
        let has_pvid = |port: &&u32| bridge.pvid.as_ref().is_some_and(|column| column.contains_key(port));
        wanted.extend(place.base_ports.iter().filter(has_pvid).map(|port| at(o::PVID, &[*port])));
    }
    let lists = |row: &Row| [o::STATIC_EGRESS, o::STATIC_UNTAGGED].map(|arcs| at(arcs, &[row.index]));
    wanted.extend(bridge.rows.values().flat_map(lists));

    let found = match get(agent, &wanted).await {
        // A walk tells which of them it is that the agent does not show.
        Err(Fault::Refused { .. }) => return Ok(None),
        found => found?,
    };
    let [up_time, if_change, num_vlans] = scalars.map(|oid| found.get(&oid).and_then(number));
    let gone = bridge.rows.values().flat_map(lists).any(|oid| !found.contains_key(&oid));
    if gone || num_vlans != last.num_vlans {
        return Ok(None);
    }
    let column = |arcs: Arcs| -> BTreeMap<u32, Value> {
        found.iter().filter_map(|(oid, value)| Some((single(oid.0.strip_prefix(arcs)?)?, value.clone()))).collect()
    };
    let numbers = |arcs: Arcs| column(arcs).iter().filter_map(|(index, value)| Some((*index, number(value)?))).collect();
    let (egress, untagged) = (column(o::STATIC_EGRESS), column(o::STATIC_UNTAGGED));
    let list = |column: &BTreeMap<u32, Value>, index: u32| column.get(&index).and_then(octets).unwrap_or_default().to_vec();
    let row = |row: &Row| Row { index: row.index, egress: list(&egress, row.index), untagged: list(&untagged, row.index) };
    let rows = bridge.rows.iter().map(|(vlan, old)| (*vlan, row(old))).collect();
    let pvid = bridge.pvid.as_ref().map(|_| column(o::PVID));
    let vlans = Vlans::Bridge(Bridge { pvid, rows, frame_types: inventory.frame_types.clone(), ..bridge.clone() });
    let (admin, oper, notes) = (numbers(o::IF_ADMIN_STATUS), numbers(o::IF_OPER_STATUS), last.notes.clone());
    Ok(Some(State { up_time, if_change, num_vlans, admin, oper, vlans, untold: None, notes }))
}

async fn bridge_state(asking: &mut Asking<'_>, inventory: &Inventory, ports: usize) -> Result<Raw, Fault> {
    let [admin, oper, pvid] = asking.told([o::IF_ADMIN_STATUS, o::IF_OPER_STATUS, o::PVID], ports).await?;
    let (egress, untagged) = match inventory.source {
        Source::Static => (o::STATIC_EGRESS, o::STATIC_UNTAGGED),
        Source::Current | Source::Vtp | Source::Nowhere => (o::CURRENT_EGRESS, o::CURRENT_UNTAGGED),
        Source::Foundry => (o::FOUNDRY_MEMBER_TAG_MODE, o::FOUNDRY_IF_TAG_MODE),
    };
    let scalars = [o::SYS_UP_TIME, o::IF_TABLE_LAST_CHANGE, o::NUM_VLANS];
    let [up, changed, count, egress, untagged] = asking.told([scalars[0], scalars[1], scalars[2], egress, untagged], 16).await?;
    let [more] = match inventory.source {
        Source::Current => asking.told([o::STATIC_UNTAGGED], 16).await?,
        Source::Foundry => asking.told([o::FOUNDRY_IF_VLAN], ports).await?,
        Source::Static | Source::Vtp | Source::Nowhere => [Told::default()],
    };
    let untold = [&pvid, &egress, &untagged].into_iter().find_map(|told| told.untold.clone());
    let (pvid, egress, untagged, more) = (pvid.rows, egress.rows, untagged.rows, more.rows);
    let form = match inventory.profile.membership {
        Membership::QBridge(form) => form,
        Membership::Foundry | Membership::Vtp => Form::Bits,
    };
    let by_row = |egress: &Column, untagged: &Column| rows(egress, untagged, &inventory.vlan_interfaces);
    let nothing = BTreeMap::new;
    let (rows, configured, foundry) = match inventory.source {
        Source::Foundry => (foundry_vlans(&egress), nothing(), foundry_ports(&egress, &untagged, &more)),
        Source::Nowhere | Source::Vtp => (nothing(), nothing(), BTreeMap::new()),
        Source::Static | Source::Current => (by_row(&egress, &untagged), by_row(&more, &more), BTreeMap::new()),
    };
    let pvid = (!pvid.is_empty()).then(|| pvid.into_iter().filter_map(|(i, v)| Some((single(&i)?, v))).collect());
    let frame_types = inventory.frame_types.clone();
    let (first_port, source) = (inventory.first_port, inventory.source);
    let bridge = Bridge { form, first_port, source, pvid, rows, configured, foundry, frame_types };
    Ok(Raw { admin, oper: oper.rows, vlans: Vlans::Bridge(bridge), clock: [up, changed, count].map(|told| told.rows), untold })
}

/// Of dot1qVlanCurrentTable's index (time mark, VLAN) only the last part counts; the time mark is not 0 on every agent.
fn rows(egress: &Column, untagged: &Column, interfaces: &BTreeMap<u32, Vlan>) -> BTreeMap<Vlan, Row> {
    let list = |column: &Column, index: &Vec<u32>| column.get(index).and_then(octets).unwrap_or_default().to_vec();
    let row = |index: &Vec<u32>| {
        let last = *index.last()?;
        let vlan = Vlan::try_from(i64::from(last)).ok().or_else(|| interfaces.get(&last).copied())?;
        Some((vlan, Row { index: last, egress: list(egress, index), untagged: list(untagged, index) }))
    };
    egress.keys().filter_map(row).collect()
}

/// snVLanByPortMemberTagMode, by VLAN and ifIndex.
fn foundry_members(modes: &Column) -> impl Iterator<Item = (Vlan, u32, Option<i64>)> {
    modes.iter().filter_map(|(index, mode)| {
        let [vlan, port] = index.as_slice() else { return None };
        Some((Vlan::try_from(i64::from(*vlan)).ok()?, *port, number(mode)))
    })
}

/// The VLANs that have members; which, this agent's PortLists do not hold.
fn foundry_vlans(modes: &Column) -> BTreeMap<Vlan, Row> {
    let row = |vlan: Vlan| Row { index: u32::from(vlan.id()), egress: Vec::new(), untagged: Vec::new() };
    foundry_members(modes).map(|(vlan, ..)| (vlan, row(vlan))).collect()
}

fn foundry_ports(members: &Column, tag_modes: &Column, vlans: &Column) -> BTreeMap<u32, FoundryPort> {
    let mut ports: BTreeMap<u32, FoundryPort> = BTreeMap::new();
    for (vlan, port, mode) in foundry_members(members) {
        let port = ports.entry(port).or_default();
        // tagged(1), untagged(2)
        let list = if mode == Some(2) { &mut port.untagged } else { &mut port.tagged };
        list.insert(vlan);
    }
    numbers(tag_modes).into_iter().for_each(|(port, mode)| ports.entry(port).or_default().tag_mode = Some(mode));
    numbers(vlans).into_iter().for_each(|(port, vlan)| ports.entry(port).or_default().vlan = Vlan::try_from(vlan).ok());
    ports
}

async fn vtp_state(asking: &mut Asking<'_>, ports: usize) -> Result<Raw, Fault> {
    let [admin, oper, vm_vlan, state, status] =
        asking.told([o::IF_ADMIN_STATUS, o::IF_OPER_STATUS, o::VM_VLAN, o::TRUNK_DYNAMIC_STATE, o::TRUNK_DYNAMIC_STATUS], ports).await?;
    let [up, changed, vlan_state, vlan_type, serial] =
        asking.told([o::SYS_UP_TIME, o::IF_TABLE_LAST_CHANGE, o::VTP_VLAN_STATE, o::VTP_VLAN_TYPE, o::TRUNK_SERIAL], 16).await?;
    let [running, startup] = asking.columns([o::CCM_RUNNING_CHANGED, o::CCM_STARTUP_CHANGED], 1).await?;
    let [native, encapsulation] = asking.told([o::TRUNK_NATIVE, o::TRUNK_ENCAPSULATION], ports).await?;
    let changed_at = |column: &Column| column.values().next().and_then(number);
    // 128 octets a row: few to a request.
    let enabled = asking.told(o::TRUNK_ENABLED, ports).await?;
    let needed = [&vm_vlan, &state, &status, &vlan_state, &vlan_type, &serial, &native, &encapsulation];
    let untold = needed.into_iter().chain(&enabled).find_map(|told| told.untold.clone());
    let vtp = Vtp {
        existing: existing(&vlan_state.rows, &vlan_type.rows),
        vm_vlan: numbers(&vm_vlan.rows),
        native: numbers(&native.rows),
        encapsulation: numbers(&encapsulation.rows),
        dynamic_state: numbers(&state.rows),
        dynamic_status: numbers(&status.rows),
        enabled: enabled.map(|column| column.rows.iter().filter_map(|(i, v)| Some((single(i)?, octets(v)?.to_vec()))).collect()),
        serial: serial.rows.into_values().next(),
        unsaved: changed_at(&running).zip(changed_at(&startup)).map(|(running, startup)| running > startup),
    };
    let clock = [up.rows, changed.rows, Column::new()];
    Ok(Raw { admin, oper: oper.rows, vlans: Vlans::Vtp(Box::new(vtp)), clock, untold })
}

/// Ethernet VLANs: vtpVlanType ethernet(1). FDDI and token ring have their own, 1002 to 1005.
fn existing(states: &Column, types: &Column) -> BTreeSet<Vlan> {
    let ethernet = |index: &Vec<u32>| types.get(index).and_then(number).is_none_or(|kind| kind == 1);
    // managementDomainIndex, vtpVlanIndex
    let vlan = |index: &Vec<u32>| Vlan::try_from(i64::from(*index.last()?)).ok();
    states.keys().filter(|index| ethernet(index)).filter_map(vlan).collect()
}

/// These instances, without those that the agent does not have.
pub(crate) async fn get(agent: &mut dyn Agent, oids: &[Oid]) -> Result<BTreeMap<Oid, Value>, Fault> {
    let there = |value: &Value| !matches!(value, Value::NoSuchObject | Value::NoSuchInstance | Value::EndOfMibView | Value::Null);
    Ok(agent.get(oids).await?.into_iter().filter(|(_, value)| there(value)).collect())
}

impl Inventory {
    /// A neighbour or an address that is not told this time is not gone: what the same port had before still counts.
    pub(crate) fn remember(&mut self, before: &Inventory) {
        if matches!(before.shown.compare(&self.shown), Sameness::Different { .. }) {
            return;
        }
        let key = |inventory: &Inventory, index: &u32| inventory.places.0.get(index).map(|place| place.key.clone());
        let same: BTreeSet<u32> = before.places.0.keys().filter(|index| key(self, index) == key(before, index)).copied().collect();
        if self.neighbours_untold {
            for (index, neighbour) in before.neighbours.iter().filter(|(index, _)| same.contains(index)) {
                self.neighbours.entry(*index).or_insert_with(|| neighbour.clone());
            }
        }
        if self.macs_untold {
            for (index, macs) in before.macs.iter().filter(|(index, _)| same.contains(index)) {
                let on_port = self.macs.entry(*index).or_default();
                on_port.extend(macs.iter().take(MACS_PER_PORT.saturating_sub(on_port.len())));
            }
        }
    }

    /// Whether this switch can be written through this family at all: its tables are there.
    pub(crate) fn writes_vlans(&self) -> bool {
        match self.profile.family {
            Family::QBridge => self.source == Source::Static,
            Family::CiscoVtp => self.source == Source::Vtp,
            Family::ObserveOnly => false,
        }
    }
}
