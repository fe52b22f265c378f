//! Asks an agent: what rarely changes (`Inventory`) and what the planner compares (`State`).
//!
//! Leaves out: what it means (`seen`). Invariant: polling the state of a 48-port Q-BRIDGE switch takes at most three requests, of 64
//! objects each (`a_look_at_48_ports_takes_three_requests`).

use std::collections::{BTreeMap, BTreeSet};

use super::neighbour;
use super::objects::{self as o, Arcs, at};
use super::portlist::{self, Form};
use super::profiles::{Family, Membership, Probe, Profile, recognise};
use super::snmp::{Agent, Oid, Value};
use super::value::{Column, columns, mac_octets, number, numbers, octets, single, text, texts};
use crate::drivers::Fault;
use crate::limits::MACS_PER_PORT;
use crate::model::fact::{Neighbour, SwitchIdentity};
use crate::model::identity::Identity;
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
    /// Members of aggregations: ifIndex → the aggregation's name, where it has one.
    pub lag_members: BTreeMap<u32, Option<String>>,
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

/// Ethernet ports and aggregations, by ifIndex.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(pub BTreeMap<u32, Place>);

#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub key: String,
    /// The object that the key was read from and what it held: ifName or ifDescr; nothing where the port has neither.
    pub name: Option<(Arcs, String)>,
    pub also: Vec<String>,
    pub base_ports: Vec<u32>,
    pub aggregate: bool,
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

impl Places {
    /// The one port of this name, by key or by another of its names.
    pub(crate) fn named(&self, name: &str) -> Option<u32> {
        let unique = |mut found: Vec<u32>| if found.len() == 1 { found.pop() } else { None };
        let by = |test: &dyn Fn(&Place) -> bool| unique(self.0.iter().filter(|(_, p)| test(p)).map(|(i, _)| *i).collect());
        by(&|p| p.key == name).or_else(|| by(&|p| p.also.iter().any(|a| a == name)))
    }

    pub(crate) fn by_base_port(&self, base_port: u32) -> Option<u32> {
        self.0.iter().find(|(_, place)| place.base_ports.contains(&base_port)).map(|(index, _)| *index)
    }
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

pub(crate) async fn inventory(agent: &mut dyn Agent, wanted: ProfileName) -> Result<Inventory, Fault> {
    let scalars = [o::SYS_DESCR, o::SYS_OBJECT_ID, o::SYS_NAME, o::SNMP_ENGINE_ID, o::BASE_BRIDGE_ADDRESS, o::IF_TABLE_LAST_CHANGE];
    let answers = get(agent, &scalars.map(|arcs| at(arcs, &[0]))).await?;
    let scalar = |arcs: Arcs| answers.get(&at(arcs, &[0]));
    let object_id = match scalar(o::SYS_OBJECT_ID) {
        Some(Value::Oid(oid)) => oid.clone(),
        Some(_) | None => Oid::default(),
    };
    let string = |arcs: Arcs| scalar(arcs).and_then(text).unwrap_or_default();
    let (chassis, serials) = serials(agent).await?;
    let shown = identity(serials, scalar(o::SNMP_ENGINE_ID), scalar(o::BASE_BRIDGE_ADDRESS), agent.engine_id());
    let identity = SwitchIdentity { sys_object_id: object_id.to_string(), sys_descr: string(o::SYS_DESCR), sys_name: string(o::SYS_NAME) };
    let if_change = scalar(o::IF_TABLE_LAST_CHANGE).and_then(number);

    let (profile, source, pvids) = profile(agent, &object_id, &identity.sys_descr, wanted).await?;
    let [base] = columns(agent, [o::BASE_PORT_IF_INDEX], 64).await?;
    let mut base = numbers(&base);
    let base_table = !base.is_empty();
    if !base_table {
        // Some agents (Supermicro) have no dot1dBasePortTable: there a base port is the ifIndex.
        base = pvids.iter().map(|port| (*port, i64::from(*port))).collect();
    }
    let groups = groups(agent).await?;
    let channels = (profile.membership == Membership::Vtp).then_some(&groups);
    let (places, names) = places(agent, &base, channels).await?;
    let first_port = u32::from(!base.contains_key(&0));
    let (neighbours, lldp_or_cdp) = neighbour::read(agent, &places).await?;
    let (macs, forwarding) = macs(agent, &places).await?;
    let lag_members = lag_members(&groups, &places, &names);
    let vlan_interfaces = names.iter().filter_map(|(index, name)| Some((*index, vlan_of_name(name)?))).collect();
    let frame_types = match profile.family {
        Family::QBridge => numbers(&columns(agent, [o::FRAME_TYPES], 64).await?[0]),
        Family::CiscoVtp | Family::ObserveOnly => BTreeMap::new(),
    };
    Ok(Inventory {
        shown,
        identity,
        profile,
        places,
        first_port,
        source,
        neighbours,
        macs,
        lag_members,
        if_change,
        frame_types,
        vlan_interfaces,
        base_table,
        chassis,
        neighbours_told: lldp_or_cdp || forwarding,
    })
}

/// The chassis and their serial numbers.
async fn serials(agent: &mut dyn Agent) -> Result<(Vec<u32>, BTreeSet<String>), Fault> {
    let [classes, serials] = columns(agent, [o::ENT_PHYSICAL_CLASS, o::ENT_PHYSICAL_SERIAL], 32).await?;
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
    agent: &mut dyn Agent,
    object_id: &Oid,
    descr: &str,
    wanted: ProfileName,
) -> Result<(&'static Profile, Source, Vec<u32>), Fault> {
    let [egress, current, foundry] = columns(agent, [o::STATIC_EGRESS, o::CURRENT_EGRESS, o::FOUNDRY_MEMBER_TAG_MODE], 16).await?;
    let [pvid, vm_vlan, native] = columns(agent, [o::PVID, o::VM_VLAN, o::TRUNK_NATIVE], 64).await?;
    let probe = Probe { static_egress: !egress.is_empty(), pvid: !pvid.is_empty(), vm_vlan: !vm_vlan.is_empty() };
    let profile = recognise(object_id, descr, probe, wanted);
    let source = match profile.membership {
        Membership::QBridge(_) if !egress.is_empty() => Source::Static,
        Membership::QBridge(_) if !current.is_empty() => Source::Current,
        Membership::Foundry if !foundry.is_empty() => Source::Foundry,
        Membership::QBridge(_) | Membership::Foundry => Source::Nowhere,
        Membership::Vtp if vm_vlan.is_empty() && native.is_empty() => Source::Nowhere,
        Membership::Vtp => Source::Vtp,
    };
    Ok((profile, source, pvid.keys().filter_map(|index| single(index)).collect()))
}

/// The ports, and the names of all interfaces. `channels`: where aggregations may be propVirtual, as on a Cisco, what tells them from its
/// VLAN and stacking interfaces. (Junos stacks propVirtual units over every port.)
async fn places(
    agent: &mut dyn Agent,
    base: &BTreeMap<u32, i64>,
    channels: Option<&Groups>,
) -> Result<(Places, BTreeMap<u32, String>), Fault> {
    let [types, names, descrs, aliases] = columns(agent, [o::IF_TYPE, o::IF_NAME, o::IF_DESCR, o::IF_ALIAS], 64).await?;
    let (types, names, descrs, aliases) = (numbers(&types), texts(&names), texts(&descrs), texts(&aliases));
    let ethernet = |index: &u32| types.get(index).is_some_and(|kind| o::ETHERNET_TYPES.contains(kind));
    let channel = |index: &u32| {
        let stacked = |groups: &Groups| groups.stack.iter().any(|(higher, lower)| higher == index && ethernet(lower));
        let grouped = |groups: &Groups| groups.of.values().any(|group| group == index);
        let named = || names.get(index).is_some_and(|name| names_a_channel(name));
        channels.is_some_and(|groups| stacked(groups) || grouped(groups) || named())
    };
    let port = |(index, kind): (&u32, &i64)| match *kind {
        o::LAG_TYPE => Some((*index, true)),
        o::PROP_VIRTUAL_TYPE if channel(index) => Some((*index, true)),
        _ => ethernet(index).then_some((*index, false)),
    };
    let ports: Vec<(u32, bool)> = types.iter().filter_map(port).collect();
    let count = |column: &BTreeMap<u32, String>| {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        ports.iter().filter_map(|(i, _)| column.get(i)).for_each(|name| *times.entry(name.clone()).or_default() += 1);
        times
    };
    let (name_times, descr_times) = (count(&names), count(&descrs));
    let mut places = BTreeMap::new();
    for (index, aggregate) in &ports {
        let unique = |column: &BTreeMap<u32, String>, times: &BTreeMap<String, usize>| {
            column.get(index).filter(|name| times.get(*name) == Some(&1)).cloned()
        };
        let key = unique(&names, &name_times)
            .or_else(|| unique(&descrs, &descr_times).filter(|d| !name_times.contains_key(d)))
            .unwrap_or_else(|| format!("ifIndex {index}"));
        let held = |arcs: Arcs, column: &BTreeMap<u32, String>| column.get(index).map(|name| (arcs, name.clone()));
        let of_key = |name: &Option<(Arcs, String)>| name.as_ref().is_some_and(|(_, name)| *name == key);
        let candidates = [held(o::IF_NAME, &names), held(o::IF_DESCR, &descrs)];
        let name = candidates.iter().find(|name| of_key(name)).or(candidates.iter().find(|name| name.is_some())).cloned().flatten();
        let mut also: Vec<String> = Vec::new();
        for name in [names.get(index), aliases.get(index), descrs.get(index)].into_iter().flatten() {
            if *name != key && !also.contains(name) {
                also.push(name.clone());
            }
        }
        let base_ports = base.iter().filter(|(_, i)| **i == i64::from(*index)).map(|(port, _)| *port).collect();
        places.insert(*index, Place { key, name, also, base_ports, aggregate: *aggregate });
    }
    Ok((Places(places), names))
}

/// Above this many learned addresses the forwarding table is not read: it would be more than 128 requests, to a core switch.
const FDB_ADDRESSES_MAX: i64 = 4_096;

/// Learned addresses, and whether the agent tells them. Not all that a large bridge knows: at most `MACS_PER_PORT` of each port.
async fn macs(agent: &mut dyn Agent, places: &Places) -> Result<(BTreeMap<u32, BTreeSet<Mac>>, bool), Fault> {
    let [counts] = columns(agent, [o::FDB_DYNAMIC_COUNT], 16).await?;
    if numbers(&counts).values().sum::<i64>() > FDB_ADDRESSES_MAX {
        return Ok((BTreeMap::new(), false));
    }
    // Not every agent counts what it learned: one that has more than can be held is not a switch that cannot be read.
    let forwarding = match forwarding(agent).await {
        Err(Fault::Endless { .. }) => return Ok((BTreeMap::new(), false)),
        forwarding => forwarding?,
    };
    let [ports, status, old] = forwarding;
    let told = !(counts.is_empty() && ports.is_empty() && old.is_empty());
    let mut found: BTreeMap<u32, BTreeSet<Mac>> = BTreeMap::new();
    for (index, value) in ports.iter().chain(&old) {
        // dot1qTpFdbStatus: learned(3); an agent without the column shows nothing but what it learned.
        let learned = status.get(index).and_then(number).is_none_or(|s| s == 3);
        let address = index.len().checked_sub(6).and_then(|start| mac_octets(&index[start..])).and_then(Mac::seen);
        let port = number(value).and_then(|p| u32::try_from(p).ok()).and_then(|p| places.by_base_port(p));
        if let (true, Some(mac), Some(port)) = (learned, address, port) {
            let on_port = found.entry(port).or_default();
            if on_port.len() < MACS_PER_PORT {
                on_port.insert(mac);
            }
        }
    }
    Ok((found, told))
}

/// dot1qTpFdbPort and dot1qTpFdbStatus, or else dot1dTpFdbPort.
async fn forwarding(agent: &mut dyn Agent) -> Result<[Column; 3], Fault> {
    let [ports, status] = columns(agent, [o::TP_FDB_PORT, o::TP_FDB_STATUS], 64).await?;
    let [old] = if ports.is_empty() { columns(agent, [o::TP_FDB_PORT_OLD], 64).await? } else { [Column::new()] };
    Ok([ports, status, old])
}

fn vlan_of_name(name: &str) -> Option<Vlan> {
    let number: i64 = name.strip_prefix("Vlan")?.trim_start().parse().ok()?;
    Vlan::try_from(number).ok()
}

/// Which ports belong together, by ifIndex.
struct Groups {
    /// By IEEE8023-LAG-MIB, and before it was by CISCO-PAGP-MIB: port → aggregation.
    of: BTreeMap<u32, u32>,
    /// ifStackHigherLayer, ifStackLowerLayer.
    stack: Vec<(u32, u32)>,
}

async fn groups(agent: &mut dyn Agent) -> Result<Groups, Fault> {
    let [attached, pagp] = columns(agent, [o::LAG_ATTACHED, o::PAGP_GROUP], 64).await?;
    let [stack] = columns(agent, [o::IF_STACK_STATUS], 64).await?;
    // 0: of no group; its own index: an aggregation of one, which is a port.
    let group = |(port, group): (u32, i64)| Some((port, u32::try_from(group).ok().filter(|group| *group != 0 && *group != port)?));
    let layers = |index: &Vec<u32>| if let [higher, lower] = index.as_slice() { Some((*higher, *lower)) } else { None };
    Ok(Groups {
        of: numbers(&pagp).into_iter().chain(numbers(&attached)).filter_map(group).collect(),
        stack: stack.keys().filter_map(layers).collect(),
    })
}

/// `Po1`, `port-channel11`: also while it has no member.
fn names_a_channel(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let number = name.strip_prefix("port-channel").or_else(|| name.strip_prefix("po"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn lag_members(groups: &Groups, places: &Places, names: &BTreeMap<u32, String>) -> BTreeMap<u32, Option<String>> {
    let is = |index: &u32, aggregate| places.0.get(index).is_some_and(|p| p.aggregate == aggregate);
    let stacked = groups.stack.iter().filter(|(higher, lower)| is(higher, true) && is(lower, false)).map(|(higher, lower)| (lower, higher));
    let members = groups.of.iter().chain(stacked).filter(|(port, _)| places.0.contains_key(port));
    members.map(|(port, group)| (*port, names.get(group).cloned())).collect()
}

// ---- what the planner compares ------------------------------------------------------------------------------------------

pub(crate) async fn state(agent: &mut dyn Agent, inventory: &Inventory) -> Result<State, Fault> {
    let ports = inventory.places.0.len() + 8;
    let (admin, oper, vlans, clock) = match inventory.profile.membership {
        Membership::QBridge(_) | Membership::Foundry => bridge_state(agent, inventory, ports).await?,
        Membership::Vtp => vtp_state(agent, ports).await?,
    };
    let clock = clock.map(|column| column.get([0].as_slice()).and_then(number));
    let [up_time, if_change, num_vlans] = clock;
    Ok(State { up_time, if_change, num_vlans, admin: numbers(&admin), oper: numbers(&oper), vlans })
}

type Raw = (Column, Column, Vlans, [Column; 3]);

/// The same objects as last time, by GET, which packs them better than a walk. Nothing where a walk is needed: a VLAN came or went, or
/// the agent does not tell.
pub(crate) async fn poll(agent: &mut dyn Agent, inventory: &Inventory, last: &State) -> Result<Option<State>, Fault> {
    let Vlans::Bridge(bridge) = &last.vlans else { return Ok(None) };
    if bridge.source != Source::Static || last.num_vlans.is_none() {
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

    let found = get(agent, &wanted).await?;
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
    Ok(Some(State { up_time, if_change, num_vlans, admin: numbers(o::IF_ADMIN_STATUS), oper: numbers(o::IF_OPER_STATUS), vlans }))
}

async fn bridge_state(agent: &mut dyn Agent, inventory: &Inventory, ports: usize) -> Result<Raw, Fault> {
    let [admin, oper, pvid] = columns(agent, [o::IF_ADMIN_STATUS, o::IF_OPER_STATUS, o::PVID], ports).await?;
    let clock = [o::SYS_UP_TIME, o::IF_TABLE_LAST_CHANGE];
    let (egress, untagged) = match inventory.source {
        Source::Static => (o::STATIC_EGRESS, o::STATIC_UNTAGGED),
        Source::Current | Source::Vtp | Source::Nowhere => (o::CURRENT_EGRESS, o::CURRENT_UNTAGGED),
        Source::Foundry => (o::FOUNDRY_MEMBER_TAG_MODE, o::STATIC_UNTAGGED),
    };
    let [up, changed, count, egress, untagged] = columns(agent, [clock[0], clock[1], o::NUM_VLANS, egress, untagged], 16).await?;
    let form = match inventory.profile.membership {
        Membership::QBridge(form) => form,
        Membership::Foundry | Membership::Vtp => Form::Bits,
    };
    let rows = match inventory.source {
        Source::Foundry => foundry_rows(&egress, inventory.first_port),
        Source::Nowhere | Source::Vtp => BTreeMap::new(),
        Source::Static | Source::Current => rows(&egress, &untagged, &inventory.vlan_interfaces),
    };
    let pvid = (!pvid.is_empty()).then(|| pvid.into_iter().filter_map(|(i, v)| Some((single(&i)?, v))).collect());
    let frame_types = inventory.frame_types.clone();
    let bridge = Bridge { form, first_port: inventory.first_port, source: inventory.source, pvid, rows, frame_types };
    Ok((admin, oper, Vlans::Bridge(bridge), [up, changed, count]))
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

/// snVLanByPortMemberTagMode, by VLAN and port: tagged(1), untagged(2).
fn foundry_rows(modes: &Column, first: u32) -> BTreeMap<Vlan, Row> {
    let mut rows: BTreeMap<Vlan, Row> = BTreeMap::new();
    for (index, mode) in modes {
        let [vlan, port] = index.as_slice() else { continue };
        let Ok(vlan) = Vlan::try_from(i64::from(*vlan)) else { continue };
        let row = rows.entry(vlan).or_insert_with(|| Row { index: u32::from(vlan.id()), egress: Vec::new(), untagged: Vec::new() });
        let join = |list: &mut Vec<u8>| {
            if let Some(new) = portlist::with(Form::Bits, list, first, *port, true) {
                *list = new;
            }
        };
        join(&mut row.egress);
        if number(mode) == Some(2) {
            join(&mut row.untagged);
        }
    }
    rows
}

async fn vtp_state(agent: &mut dyn Agent, ports: usize) -> Result<Raw, Fault> {
    let [admin, oper, vm_vlan, state, status] =
        columns(agent, [o::IF_ADMIN_STATUS, o::IF_OPER_STATUS, o::VM_VLAN, o::TRUNK_DYNAMIC_STATE, o::TRUNK_DYNAMIC_STATUS], ports).await?;
    let [up, changed, vlan_state, vlan_type, serial] =
        columns(agent, [o::SYS_UP_TIME, o::IF_TABLE_LAST_CHANGE, o::VTP_VLAN_STATE, o::VTP_VLAN_TYPE, o::TRUNK_SERIAL], 16).await?;
    let [running, startup] = columns(agent, [o::CCM_RUNNING_CHANGED, o::CCM_STARTUP_CHANGED], 1).await?;
    let [native, encapsulation] = columns(agent, [o::TRUNK_NATIVE, o::TRUNK_ENCAPSULATION], ports).await?;
    let changed_at = |column: &Column| column.values().next().and_then(number);
    // 128 octets a row: few to a request.
    let enabled = columns(agent, o::TRUNK_ENABLED, ports).await?;
    let vtp = Vtp {
        existing: existing(&vlan_state, &vlan_type),
        vm_vlan: numbers(&vm_vlan),
        native: numbers(&native),
        encapsulation: numbers(&encapsulation),
        dynamic_state: numbers(&state),
        dynamic_status: numbers(&status),
        enabled: enabled.map(|column| column.iter().filter_map(|(i, v)| Some((single(i)?, octets(v)?.to_vec()))).collect()),
        serial: serial.into_values().next(),
        unsaved: changed_at(&running).zip(changed_at(&startup)).map(|(running, startup)| running > startup),
    };
    Ok((admin, oper, Vlans::Vtp(Box::new(vtp)), [up, changed, Column::new()]))
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
    /// Whether this switch can be written through this family at all: its tables are there.
    pub(crate) fn writes_vlans(&self) -> bool {
        match self.profile.family {
            Family::QBridge => self.source == Source::Static,
            Family::CiscoVtp => self.source == Source::Vtp,
            Family::ObserveOnly => false,
        }
    }
}
