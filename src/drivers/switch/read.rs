//! Asks an agent: what rarely changes (`Inventory`) and what the planner compares (`State`).
//!
//! Leaves out: what it means (`seen`). Invariant: polling the state of a 48-port Q-BRIDGE switch takes at most three requests, of 64
//! objects each (`a_look_at_48_ports_takes_three_requests`).

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{Asking, Told};
use super::neighbour;
use super::objects::{self as o, Arcs, at};
use super::places::{Groups, Interfaces, Places};
use super::portlist::Form;
use super::profiles::{Family, Membership, Probe, Profile, recognise};
use super::snmp::{Agent, Oid, Value};
use super::tables::{self, Bridge, Foundry, Link, Source, VlanTable, Vlans, Vtp};
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
    /// Which table the lists of Q-BRIDGE-MIB are read from.
    pub source: Source,
    /// The tables through which its profile is written are served.
    pub own_tables: bool,
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

    let recognised = profile(&mut asking, &object_id, &identity.sys_descr, wanted).await?;
    let Recognised { profile, source, own_tables, pvids } = recognised;
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
        Family::CiscoVtp | Family::Foundry | Family::ObserveOnly => BTreeMap::new(),
    };
    Ok(Inventory {
        shown: told,
        identity,
        profile,
        first_port: u32::from(!base.contains_key(&0)),
        source,
        own_tables,
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

struct Recognised {
    profile: &'static Profile,
    source: Source,
    own_tables: bool,
    /// The base ports of dot1qPvid.
    pvids: Vec<u32>,
}

async fn profile(asking: &mut Asking<'_>, object_id: &Oid, descr: &str, wanted: ProfileName) -> Result<Recognised, Fault> {
    let [egress, current] = asking.columns([o::STATIC_EGRESS, o::CURRENT_EGRESS], 16).await?;
    let [pvid, vm_vlan, native] = asking.columns([o::PVID, o::VM_VLAN, o::TRUNK_NATIVE], 64).await?;
    let probe = Probe { static_egress: !egress.is_empty(), pvid: !pvid.is_empty(), vm_vlan: !vm_vlan.is_empty() };
    let profile = recognise(object_id, descr, probe, wanted);
    let source = match profile.membership {
        Membership::QBridge(_) if !egress.is_empty() => Source::Static,
        Membership::QBridge(_) if !current.is_empty() => Source::Current,
        Membership::QBridge(_) | Membership::Foundry | Membership::Vtp => Source::Nowhere,
    };
    let own_tables = match profile.membership {
        Membership::QBridge(_) => source == Source::Static,
        Membership::Foundry => asking.columns([o::FOUNDRY_MEMBER_TAG_MODE], 64).await?.iter().any(|column| !column.is_empty()),
        Membership::Vtp => !(vm_vlan.is_empty() && native.is_empty()),
    };
    Ok(Recognised { profile, source, own_tables, pvids: pvid.keys().filter_map(|index| single(index)).collect() })
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
    let wanted = [o::IF_ADMIN_STATUS, o::IF_OPER_STATUS, o::PVID, o::SYS_UP_TIME, o::IF_TABLE_LAST_CHANGE];
    let [admin, oper, pvid, up_time, if_change] = asking.told(wanted, ports).await?;
    let scalar = |told: &Told| told.rows.get([0].as_slice()).and_then(number);
    let (vlans, num_vlans, untold) = match inventory.profile.membership {
        Membership::QBridge(form) => {
            let (bridge, num_vlans, untold) = bridge(&mut asking, inventory, form, ports, pvid).await?;
            (Vlans::Bridge(bridge), scalar(&num_vlans), untold)
        }
        Membership::Foundry => {
            let base = inventory.places.0.iter().flat_map(|(index, place)| place.base_ports.iter().map(|port| (*port, *index)));
            let (foundry, untold) = Foundry::read(&mut asking, ports, base.collect(), &pvid).await?;
            (Vlans::Foundry(foundry), None, untold)
        }
        Membership::Vtp => {
            let (vtp, untold) = Vtp::read(&mut asking, ports).await?;
            (Vlans::Vtp(Box::new(vtp)), None, untold)
        }
    };
    let (up_time, if_change, untold) = (scalar(&up_time), scalar(&if_change), untold.or(admin.untold));
    let (admin, oper) = (numbers(&admin.rows), numbers(&oper.rows));
    Ok(State { up_time, if_change, num_vlans, admin, oper, vlans, untold, notes: asking.said() })
}

/// The same objects as last time, by GET, which packs them better than a walk. Nothing where a walk is needed: a VLAN came or went, or
/// the agent does not tell.
pub(crate) async fn poll(agent: &mut dyn Agent, inventory: &Inventory, last: &State) -> Result<Option<State>, Fault> {
    let Vlans::Bridge(bridge) = &last.vlans else { return Ok(None) };
    if bridge.source != Source::Static || last.num_vlans.is_none() || last.untold.is_some() {
        return Ok(None);
    }
    let scalars = [o::SYS_UP_TIME, o::IF_TABLE_LAST_CHANGE, o::NUM_VLANS].map(|arcs| at(arcs, &[0]));
    let of_ports = inventory.places.0.keys().flat_map(|index| [o::IF_ADMIN_STATUS, o::IF_OPER_STATUS].map(|arcs| at(arcs, &[*index])));
    let vlans: Vec<Oid> = bridge.polled(inventory.places.0.values().flat_map(|place| &place.base_ports)).collect();
    let wanted: Vec<Oid> = scalars.iter().cloned().chain(of_ports).chain(vlans.iter().cloned()).collect();
    let found = match get(agent, &wanted).await {
        // A walk tells which of them it is that the agent does not show.
        Err(Fault::Refused { .. }) => return Ok(None),
        found => found?,
    };
    let [up_time, if_change, num_vlans] = scalars.map(|oid| found.get(&oid).and_then(number));
    let mut now = Bridge { frame_types: inventory.frame_types.clone(), ..bridge.clone() };
    // Of a port whose PVID is not told any more none is known.
    now.pvid.iter_mut().for_each(BTreeMap::clear);
    vlans.iter().for_each(|oid| now.note(oid, found.get(oid)));
    if now.rows.len() != bridge.rows.len() || num_vlans != last.num_vlans {
        return Ok(None);
    }
    let numbers = |arcs: Arcs| {
        let row = |(oid, value): (&Oid, &Value)| Some((single(oid.0.strip_prefix(arcs)?)?, number(value)?));
        found.iter().filter_map(row).collect()
    };
    let (admin, oper, notes) = (numbers(o::IF_ADMIN_STATUS), numbers(o::IF_OPER_STATUS), last.notes.clone());
    Ok(Some(State { up_time, if_change, num_vlans, admin, oper, vlans: Vlans::Bridge(now), untold: None, notes }))
}

/// With dot1qNumVlans, and why it may be less than all.
async fn bridge(
    asking: &mut Asking<'_>,
    inventory: &Inventory,
    form: Form,
    ports: usize,
    pvid: Told,
) -> Result<(Bridge, Told, Option<String>), Fault> {
    let source = inventory.source;
    let lists = if source == Source::Static { [o::STATIC_EGRESS, o::STATIC_UNTAGGED] } else { [o::CURRENT_EGRESS, o::CURRENT_UNTAGGED] };
    let [count, egress, untagged] = asking.told([o::NUM_VLANS, lists[0], lists[1]], 16).await?;
    let [configured] = if source == Source::Current { asking.told([o::STATIC_UNTAGGED], 16).await? } else { [Told::default()] };
    let links = if inventory.profile.link_types { asking.told([o::LINK_TYPE], ports).await? } else { [Told::default()] };
    let untold = [&pvid, &egress, &untagged, &links[0]].into_iter().find_map(|told| told.untold.clone());
    let fixed = |egress: &Column, untagged: &Column| tables::rows(egress, untagged, single, &inventory.vlan_interfaces);
    // Of dot1qVlanCurrentTable's index (time mark, VLAN) only the last part counts; the time mark is not 0 on every agent.
    let current =
        |egress: &Column, untagged: &Column| tables::rows(egress, untagged, |index| index.last().copied(), &inventory.vlan_interfaces);
    let base_port = |index: u32| inventory.places.0.get(&index)?.base_ports.first().copied();
    let link = |(index, kind): (u32, i64)| Some((index, Link { base_port: base_port(index)?, kind }));
    let bridge = Bridge {
        form,
        first_port: inventory.first_port,
        source,
        leaves_out_down: source == Source::Current || inventory.profile.down_falls_out,
        pvid: (!pvid.rows.is_empty()).then(|| pvid.rows.into_iter().filter_map(|(i, v)| Some((single(&i)?, v))).collect()),
        rows: match source {
            Source::Nowhere => BTreeMap::new(),
            Source::Static => fixed(&egress.rows, &untagged.rows),
            Source::Current => current(&egress.rows, &untagged.rows),
        },
        configured: fixed(&configured.rows, &configured.rows),
        frame_types: inventory.frame_types.clone(),
        links: links.iter().flat_map(|told| numbers(&told.rows)).filter_map(link).collect(),
    };
    Ok((bridge, count, untold))
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
        self.profile.family != Family::ObserveOnly && self.own_tables
    }
}
