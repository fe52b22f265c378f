//! A switch as a state machine behind its MIBs: IF-MIB and Q-BRIDGE-MIB (or Cisco's), with the rules that real ones have, and their lies.
//!
//! Leaves out: packets. Invariants: untagged members are egress members, a PVID's VLAN exists, one PDU happens whole or not at all
//! (unless a fault says otherwise), and every change is in `log` with who made it. Shown by `tests/switch_writes.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::mib::Mib;
use super::recording::Tree;
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::portlist::{self, Form};
use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::model::Vlan;
use crate::model::fact::{Admin, PortConfig};

// SNMPv2 error-status, RFC 3416
const GEN_ERR: u32 = 5;
const NO_ACCESS: u32 = 6;
const WRONG_TYPE: u32 = 7;
const WRONG_VALUE: u32 = 10;
const NO_CREATION: u32 = 11;
const INCONSISTENT_VALUE: u32 = 12;
const NOT_WRITABLE: u32 = 17;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Q-BRIDGE-MIB.
    QBridge,
    /// CISCO-VLAN-MEMBERSHIP-MIB and CISCO-VTP-MIB.
    Cisco,
}

/// What agents do that they should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// All varbinds are acknowledged, the first one happens (Netgear GS110).
    pub first_varbind_only: bool,
    /// It happens, and genErr is answered (Foundry).
    pub error_but_applied: bool,
    /// It is acknowledged, and does not happen.
    pub ok_but_not_applied: bool,
    /// Varbinds happen one by one until one is refused (pass_persist).
    pub not_atomic: bool,
    /// noAccess to every SET.
    pub read_only: bool,
    /// The PVID becomes the VLAN of which a port becomes an untagged member (HP).
    pub pvid_follows: bool,
    /// A row is only made by RowStatus alone; its columns come afterwards.
    pub row_status_alone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Snmp,
    Human,
}

/// One change of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub who: Who,
    pub port: String,
    pub from: PortView,
    pub to: PortView,
}

/// What a frame would meet: not what is reported but what is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    pub admin: Admin,
    /// Where untagged frames go in.
    pub ingress: Option<Vlan>,
    /// In which VLANs frames leave untagged.
    pub untagged: BTreeSet<Vlan>,
    pub tagged: BTreeSet<Vlan>,
}

/// A port of the switch; its base port is its place in the list, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    if_index: u32,
    admin: Admin,
    /// PVID; access VLAN on a Cisco.
    pvid: Vlan,
    /// Cisco: trunk mode, native VLAN, the list of VLANs that pass.
    trunk: Trunk,
    link: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Trunk {
    /// vlanTrunkPortDynamicState.
    mode: i64,
    /// vlanTrunkPortEncapsulationType, where there is a choice: dot1Q(4), negotiate(5).
    encapsulation: Option<i64>,
    native: Vlan,
    lists: [Vec<u8>; 4],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct VlanRow {
    name: Vec<u8>,
    egress: Vec<u8>,
    untagged: Vec<u8>,
    /// RowStatus: active(1), notReady(3).
    status: i64,
}

/// All that a save keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Config {
    ports: Vec<Port>,
    vlans: BTreeMap<Vlan, VlanRow>,
}

pub struct SimSwitch {
    kind: Kind,
    form: Form,
    config: Config,
    saved: Config,
    pub faults: Faults,
    pub log: Vec<Change>,
    /// Anything else that it serves: neighbours, addresses, the columns of a recording that no rule touches.
    rest: Tree,
    /// All that is served, until something changes.
    served: Option<Tree>,
    up_time: u32,
    serial: i64,
    copy_state: Option<i64>,
}

type Refusal = (u32, u32);

// ---- built, watched and handled by people ---------------------------------------------------------------------------------

impl SimSwitch {
    /// A switch with ports 1..=count, all up in VLAN 1; port P is `portP` with ifIndex 100 + P.
    pub fn new(kind: Kind, name: &str, count: u32) -> SimSwitch {
        SimSwitch::with_ports(kind, name, (1..=count).map(|n| format!("port{n}")))
    }

    /// The same with ports of these names.
    pub fn with_ports(kind: Kind, name: &str, ports: impl IntoIterator<Item = String>) -> SimSwitch {
        let ports: Vec<String> = ports.into_iter().collect();
        let count = ports.len() as u32;
        let default = Vlan::try_from(1).ok();
        let vlans: BTreeSet<Vlan> = default.into_iter().collect();
        let width = usize::max(4, count.div_ceil(8) as usize);
        let mut all = vec![0u8; width];
        for port in 1..=count {
            all = portlist::with(Form::Bits, &all, 1, port, true).unwrap_or(all);
        }
        let row = VlanRow { name: b"default".to_vec(), egress: all.clone(), untagged: all, status: 1 };
        let lists = [vec![0xff; 128], vec![0xff; 128], vec![0xff; 128], vec![0xff; 128]];
        let port = |(n, name): (u32, String)| {
            default.map(|vlan| Port {
                name,
                if_index: 100 + n,
                admin: Admin::Up,
                pvid: vlan,
                trunk: Trunk { mode: 2, encapsulation: Some(5), native: vlan, lists: lists.clone() },
                link: true,
            })
        };
        let config =
            Config { ports: (1..).zip(ports).filter_map(port).collect(), vlans: vlans.into_iter().map(|v| (v, row.clone())).collect() };
        let mut rest = Tree::default();
        let object_id: &[u32] = match kind {
            Kind::QBridge => &[1, 3, 6, 1, 4, 1, 259, 10, 1, 43, 101],
            Kind::Cisco => &[1, 3, 6, 1, 4, 1, 9, 1, 617],
        };
        rest.0.insert(at(o::SYS_DESCR, &[0]), Value::Octets(b"simulated switch".to_vec()));
        rest.0.insert(at(o::SYS_OBJECT_ID, &[0]), Value::Oid(Oid(object_id.to_vec())));
        rest.0.insert(at(o::SYS_NAME, &[0]), Value::Octets(name.as_bytes().to_vec()));
        rest.0.insert(at(o::ENT_PHYSICAL_CLASS, &[1]), Value::Integer(3));
        rest.0.insert(at(o::ENT_PHYSICAL_SERIAL, &[1]), Value::Octets(format!("SIM-{name}").into_bytes()));
        SimSwitch::of(kind, Form::Bits, config, rest)
    }

    fn of(kind: Kind, form: Form, config: Config, rest: Tree) -> SimSwitch {
        let saved = config.clone();
        SimSwitch {
            kind,
            form,
            config,
            saved,
            faults: Faults::default(),
            log: Vec::new(),
            rest,
            served: None,
            up_time: 100,
            serial: 1,
            copy_state: None,
        }
    }

    /// A switch that begins as a recording shows it. Nothing where the recording lacks the tables that this kind is written through.
    pub fn from_recording(kind: Kind, form: Form, tree: &Tree) -> Option<SimSwitch> {
        let config = match kind {
            Kind::QBridge => recorded_bridge(tree)?,
            Kind::Cisco => recorded_cisco(tree)?,
        };
        Some(SimSwitch::of(kind, form, config, tree.clone()))
    }

    /// The truth, as a person at the console would read it. Of a port that contradicts itself: where untagged frames go in.
    pub fn ports(&self) -> BTreeMap<String, PortConfig> {
        let port = |(n, port): (usize, &Port)| {
            let view = self.view(n, port);
            let member = view.ingress.filter(|vlan| view.untagged.contains(vlan) || view.tagged.contains(vlan));
            let tagged = view.tagged.into_iter().filter(|vlan| Some(*vlan) != member).collect();
            (port.name.clone(), PortConfig { admin: view.admin, untagged: member, tagged })
        };
        self.config.ports.iter().enumerate().map(port).collect()
    }

    /// What frames meet on each port.
    pub fn views(&self) -> BTreeMap<String, PortView> {
        self.config.ports.iter().enumerate().map(|(n, port)| (port.name.clone(), self.view(n, port))).collect()
    }

    pub fn vlans(&self) -> BTreeSet<Vlan> {
        self.config.vlans.iter().filter(|(_, row)| row.status == 1).map(|(vlan, _)| *vlan).collect()
    }

    /// Make a VLAN at the console.
    pub fn add_vlan(&mut self, vlan: Vlan) {
        let width = self.width();
        let row = VlanRow { name: format!("VLAN{vlan}").into_bytes(), egress: vec![0; width], untagged: vec![0; width], status: 1 };
        self.config.vlans.entry(vlan).or_insert(row);
        self.served = None;
    }

    /// A person sets a port: nothing where there is no such port.
    pub fn set_port(&mut self, name: &str, to: &PortConfig) -> Option<()> {
        let n = self.config.ports.iter().position(|port| port.name == name)?;
        let before = self.views();
        for vlan in to.tagged.iter().chain(&to.untagged) {
            self.add_vlan(*vlan);
        }
        let (form, number) = (self.form, n as u32 + 1);
        for (vlan, row) in &mut self.config.vlans {
            let untagged = to.untagged == Some(*vlan);
            let member = untagged || to.tagged.contains(vlan);
            row.egress = portlist::with(form, &row.egress, 1, number, member)?;
            row.untagged = portlist::with(form, &row.untagged, 1, number, untagged)?;
        }
        let spare = self.config.vlans.keys().find(|vlan| !to.tagged.contains(vlan)).copied();
        let port = self.config.ports.get_mut(n)?;
        port.admin = to.admin;
        port.pvid = to.untagged.or(spare).unwrap_or(port.pvid);
        port.trunk.mode = if to.tagged.is_empty() { 2 } else { 1 };
        port.trunk.encapsulation = port.trunk.encapsulation.map(|_| if port.trunk.mode == 1 { 4 } else { 5 });
        port.trunk.native = port.pvid;
        if !to.tagged.is_empty() {
            port.trunk.lists = lists(&to.tagged.iter().chain(&to.untagged).copied().collect());
        }
        self.note(Who::Human, &before);
        Some(())
    }

    /// A person shuts a port.
    pub fn shut(&mut self, name: &str) -> Option<()> {
        let mut config = self.ports().get(name)?.clone();
        config.admin = Admin::Down;
        self.set_port(name, &config)
    }

    /// Power fails: what was not saved is gone, and sysUpTime begins again.
    pub fn reboot(&mut self) {
        let before = self.views();
        self.config = self.saved.clone();
        self.up_time = 1;
        self.note(Who::Human, &before);
    }

    /// Save at the console.
    pub fn save(&mut self) {
        self.saved = self.config.clone();
    }

    pub fn is_saved(&self) -> bool {
        self.saved == self.config
    }

    /// Something that LLDP, CDP or the forwarding table shows.
    pub fn show(&mut self, oid: Oid, value: Value) {
        self.rest.0.insert(oid, value);
        self.served = None;
    }

    pub fn if_index(&self, name: &str) -> Option<u32> {
        self.config.ports.iter().find(|port| port.name == name).map(|port| port.if_index)
    }

    /// Plug a cable in, or pull it.
    pub fn set_link(&mut self, name: &str, link: bool) {
        if let Some(port) = self.config.ports.iter_mut().find(|port| port.name == name) {
            port.link = link;
        }
        self.served = None;
    }

    fn width(&self) -> usize {
        self.config.vlans.values().map(|row| row.egress.len()).max().unwrap_or(4)
    }

    fn view(&self, n: usize, port: &Port) -> PortView {
        match self.kind {
            Kind::QBridge => self.bridge_view(n as u32 + 1, port),
            Kind::Cisco => self.cisco_view(port),
        }
    }

    fn bridge_view(&self, number: u32, port: &Port) -> PortView {
        let has = |list: &[u8]| portlist::members(self.form, list, 1).contains(&number);
        let untagged: BTreeSet<Vlan> = self.config.vlans.iter().filter(|(_, row)| has(&row.untagged)).map(|(vlan, _)| *vlan).collect();
        let egress = self.config.vlans.iter().filter(|(_, row)| has(&row.egress)).map(|(vlan, _)| *vlan);
        let tagged = egress.filter(|vlan| !untagged.contains(vlan)).collect();
        PortView { admin: port.admin, ingress: Some(port.pvid), untagged, tagged }
    }

    fn cisco_view(&self, port: &Port) -> PortView {
        if !matches!(port.trunk.mode, 1 | 5) {
            return PortView { admin: port.admin, ingress: Some(port.pvid), untagged: [port.pvid].into(), tagged: BTreeSet::new() };
        }
        let passes = |vlan: &Vlan| listed(&port.trunk.lists, *vlan);
        let native = Some(port.trunk.native).filter(passes);
        let tagged = self.config.vlans.keys().filter(|vlan| passes(vlan) && Some(**vlan) != native).copied().collect();
        PortView { admin: port.admin, ingress: native, untagged: native.into_iter().collect(), tagged }
    }

    fn note(&mut self, who: Who, before: &BTreeMap<String, PortView>) {
        self.served = None;
        for (port, to) in self.views() {
            if let Some(from) = before.get(&port).filter(|from| **from != to) {
                self.log.push(Change { who, from: from.clone(), to, port });
            }
        }
    }
}

fn lists(vlans: &BTreeSet<Vlan>) -> [Vec<u8>; 4] {
    let mut lists = [vec![0u8; 128], vec![0u8; 128], vec![0u8; 128], vec![0u8; 128]];
    for id in vlans.iter().map(|vlan| usize::from(vlan.id())) {
        lists[id / 1024][id % 1024 / 8] |= 0x80 >> (id % 8);
    }
    lists
}

fn listed(lists: &[Vec<u8>; 4], vlan: Vlan) -> bool {
    let id = usize::from(vlan.id());
    lists[id / 1024].get(id % 1024 / 8).is_some_and(|octet| octet & (0x80 >> (id % 8)) != 0)
}

// ---- from a recording ---------------------------------------------------------------------------------------------------------

fn column(tree: &Tree, arcs: Arcs) -> BTreeMap<u32, Value> {
    let prefix = Oid(arcs.to_vec());
    let rows = tree.0.range(prefix.clone()..).take_while(|(oid, _)| oid.starts_with(&prefix));
    rows.filter_map(|(oid, value)| Some((*oid.0.last()?, value.clone()))).collect()
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(n) => Some(*n),
        Value::Unsigned32(n) => Some(i64::from(*n)),
        _ => None,
    }
}

fn vlan(value: &Value) -> Option<Vlan> {
    integer(value).and_then(|id| Vlan::try_from(id).ok())
}

fn bytes(value: Option<&Value>) -> Vec<u8> {
    if let Some(Value::Octets(octets)) = value { octets.clone() } else { Vec::new() }
}

fn recorded_port(tree: &Tree, if_index: u32, pvid: Vlan) -> Port {
    let admin = tree.0.get(&at(o::IF_ADMIN_STATUS, &[if_index])).and_then(integer);
    let octets = |arcs: Arcs| bytes(tree.0.get(&at(arcs, &[if_index])));
    let name = String::from_utf8_lossy(&octets(o::IF_NAME)).into_owned();
    let number = |arcs: Arcs| tree.0.get(&at(arcs, &[if_index]));
    Port {
        name,
        if_index,
        admin: if admin == Some(1) { Admin::Up } else { Admin::Down },
        pvid,
        trunk: Trunk {
            mode: number(o::TRUNK_DYNAMIC_STATE).and_then(integer).unwrap_or(2),
            encapsulation: number(o::TRUNK_ENCAPSULATION).and_then(integer),
            native: number(o::TRUNK_NATIVE).and_then(vlan).unwrap_or(pvid),
            lists: o::TRUNK_ENABLED.map(octets),
        },
        link: number(o::IF_OPER_STATUS).and_then(integer) == Some(1),
    }
}

/// Base ports in their order; those without a PVID row are left out, with all behind them, so that the place stays the base port.
fn recorded_bridge(tree: &Tree) -> Option<Config> {
    let (base, pvid) = (column(tree, o::BASE_PORT_IF_INDEX), column(tree, o::PVID));
    let (egress, untagged) = (column(tree, o::STATIC_EGRESS), column(tree, o::STATIC_UNTAGGED));
    let port = |number: u32| Some(recorded_port(tree, u32::try_from(integer(base.get(&number)?)?).ok()?, vlan(pvid.get(&number)?)?));
    let ports: Vec<Port> = (1..).map_while(port).collect();
    let row = |(index, list): (&u32, &Value)| {
        let vlan = Vlan::try_from(i64::from(*index)).ok()?;
        Some((vlan, VlanRow { name: Vec::new(), egress: bytes(Some(list)), untagged: bytes(untagged.get(index)), status: 1 }))
    };
    let vlans: BTreeMap<Vlan, VlanRow> = egress.iter().filter_map(row).collect();
    (!ports.is_empty() && !vlans.is_empty()).then_some(Config { ports, vlans })
}

fn recorded_cisco(tree: &Tree) -> Option<Config> {
    let access = column(tree, o::VM_VLAN);
    let one = Vlan::try_from(1).ok()?;
    let port = |index: &u32| recorded_port(tree, *index, access.get(index).and_then(vlan).unwrap_or(one));
    let ethernet = |index: &&u32| tree.0.get(&at(o::IF_TYPE, &[**index])).and_then(integer) == Some(6);
    let ports: Vec<Port> = column(tree, o::TRUNK_DYNAMIC_STATE).keys().filter(ethernet).map(port).collect();
    let types = column(tree, o::VTP_VLAN_TYPE);
    let row = VlanRow { name: Vec::new(), egress: Vec::new(), untagged: Vec::new(), status: 1 };
    let states = column(tree, o::VTP_VLAN_STATE);
    let ids = states.keys().filter(|id| types.get(id).and_then(integer).is_none_or(|kind| kind == 1));
    let vlans: BTreeMap<Vlan, VlanRow> = ids.filter_map(|id| Some((Vlan::try_from(i64::from(*id)).ok()?, row.clone()))).collect();
    (!ports.is_empty() && !vlans.is_empty()).then_some(Config { ports, vlans })
}

// ---- the tree it serves ---------------------------------------------------------------------------------------------------------

impl SimSwitch {
    /// Every question takes a hundredth of a second of its up time.
    fn served(&mut self) -> &Tree {
        self.up_time += 1;
        let up_time = Value::TimeTicks(self.up_time);
        if self.served.is_none() {
            self.served = Some(Tree(self.tree()));
        }
        let served = self.served.get_or_insert_default();
        served.0.insert(at(o::SYS_UP_TIME, &[0]), up_time);
        served
    }

    fn tree(&self) -> BTreeMap<Oid, Value> {
        let mut tree = self.rest.0.clone();
        let mut put = |arcs: Arcs, index: &[u32], value: Value| drop(tree.insert(at(arcs, index), value));
        for (number, port) in (1..).zip(&self.config.ports) {
            let index = [port.if_index];
            let (admin, up) = (if port.admin == Admin::Up { 1 } else { 2 }, port.admin == Admin::Up && port.link);
            put(o::IF_DESCR, &index, Value::Octets(format!("Ethernet {}", port.name).into_bytes()));
            put(o::IF_NAME, &index, Value::Octets(port.name.clone().into_bytes()));
            put(o::IF_TYPE, &index, Value::Integer(6));
            put(o::IF_ADMIN_STATUS, &index, Value::Integer(admin));
            put(o::IF_OPER_STATUS, &index, Value::Integer(if up { 1 } else { 2 }));
            match self.kind {
                Kind::QBridge => {
                    put(o::BASE_PORT_IF_INDEX, &[number], Value::Integer(i64::from(port.if_index)));
                    put(o::PVID, &[number], Value::Unsigned32(u32::from(port.pvid.id())));
                }
                Kind::Cisco => cisco_columns(port, &mut put),
            }
        }
        for (id, row) in self.config.vlans.iter().map(|(vlan, row)| (u32::from(vlan.id()), row)) {
            match self.kind {
                Kind::QBridge => {
                    put(o::STATIC_NAME, &[id], Value::Octets(row.name.clone()));
                    put(o::STATIC_ROW_STATUS, &[id], Value::Integer(row.status));
                    for (stat, current, list) in
                        [(o::STATIC_EGRESS, o::CURRENT_EGRESS, &row.egress), (o::STATIC_UNTAGGED, o::CURRENT_UNTAGGED, &row.untagged)]
                    {
                        put(stat, &[id], Value::Octets(list.clone()));
                        if row.status == 1 {
                            put(current, &[0, id], Value::Octets(list.clone()));
                        }
                    }
                }
                Kind::Cisco => {
                    put(o::VTP_VLAN_STATE, &[1, id], Value::Integer(1));
                    put(o::VTP_VLAN_TYPE, &[1, id], Value::Integer(1));
                }
            }
        }
        if self.kind == Kind::Cisco {
            put(o::TRUNK_SERIAL, &[0], Value::Integer(self.serial));
            if let Some(state) = self.copy_state {
                put(CC_COPY_STATE, &[4_711], Value::Integer(state));
            }
        }
        tree
    }
}

/// CISCO-CONFIG-COPY-MIB::ccCopyState and ccCopyEntryRowStatus.
const CC_COPY: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1];
const CC_COPY_STATE: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1, 10];
const CC_COPY_ROW_STATUS: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 96, 1, 1, 1, 1, 14];

fn cisco_columns(port: &Port, put: &mut impl FnMut(Arcs, &[u32], Value)) {
    let index = [port.if_index];
    let trunk = matches!(port.trunk.mode, 1 | 5);
    if !trunk {
        put(o::VM_VLAN, &index, Value::Integer(i64::from(port.pvid.id())));
    }
    put(o::TRUNK_NATIVE, &index, Value::Integer(i64::from(port.trunk.native.id())));
    put(o::TRUNK_DYNAMIC_STATE, &index, Value::Integer(port.trunk.mode));
    if let Some(kind) = port.trunk.encapsulation {
        put(o::TRUNK_ENCAPSULATION, &index, Value::Integer(kind));
    }
    let trunking = trunk && port.admin == Admin::Up && port.link;
    put(o::TRUNK_DYNAMIC_STATUS, &index, Value::Integer(if trunking { 1 } else { 2 }));
    for (arcs, list) in o::TRUNK_ENABLED.iter().zip(&port.trunk.lists) {
        put(arcs, &index, Value::Octets(list.clone()));
    }
}

impl Mib for SimSwitch {
    fn get(&mut self, oid: &Oid) -> Option<Value> {
        self.served().0.get(oid).cloned()
    }

    fn next(&mut self, oid: &Oid) -> Option<Binding> {
        self.served().next_after(oid)
    }

    fn set(&mut self, bindings: &[Binding]) -> Result<(), Refusal> {
        let (before, faults) = (self.views(), self.faults);
        if faults.read_only {
            return Err((NO_ACCESS, 1));
        }
        if faults.ok_but_not_applied {
            return Ok(());
        }
        let taken = if faults.first_varbind_only { &bindings[..bindings.len().min(1)] } else { bindings };
        let (answer, after) = self.applied(taken);
        if answer.is_ok() || faults.not_atomic {
            self.config = after;
        }
        self.note(Who::Snmp, &before);
        if faults.error_but_applied { answer.and(Err((GEN_ERR, 0))) } else { answer }
    }
}

// ---- SET ------------------------------------------------------------------------------------------------------------------------

impl SimSwitch {
    /// What the configuration becomes. Rules between objects hold at the end of a PDU, or, where it is not atomic, after every varbind.
    fn applied(&mut self, bindings: &[Binding]) -> (Result<(), Refusal>, Config) {
        let mut config = self.config.clone();
        for (place, (oid, value)) in (1u32..).zip(bindings) {
            let mut next = config.clone();
            let set = self.set_one(&mut next, oid, value);
            let checked = if self.faults.not_atomic { set.and_then(|()| self.check(&next)) } else { set };
            if let Err(status) = checked {
                return (Err((status, place)), config);
            }
            config = next;
        }
        match self.check(&config) {
            Ok(()) => (Ok(()), config),
            Err(status) => (Err((status, bindings.len() as u32)), config),
        }
    }

    fn check(&self, config: &Config) -> Result<(), u32> {
        let within = |row: &VlanRow| {
            let egress = portlist::members(self.form, &row.egress, 1);
            portlist::members(self.form, &row.untagged, 1).is_subset(&egress)
        };
        // Only what was right before must stay right: recordings contradict themselves.
        let changed = |vlan: &Vlan, row: &VlanRow| self.config.vlans.get(vlan) != Some(row);
        let lists = config.vlans.iter().all(|(vlan, row)| !changed(vlan, row) || within(row));
        let exists = |port: &Port| config.vlans.contains_key(&port.pvid) || self.config.ports.contains(port);
        if lists && config.ports.iter().all(exists) { Ok(()) } else { Err(INCONSISTENT_VALUE) }
    }

    fn set_one(&mut self, config: &mut Config, oid: &Oid, value: &Value) -> Result<(), u32> {
        let index = |arcs: Arcs| match oid.0.strip_prefix(arcs) {
            Some([index]) => Some(*index),
            Some(_) | None => None,
        };
        if let Some(port) = index(o::IF_ADMIN_STATUS).and_then(|i| config.ports.iter_mut().find(|port| port.if_index == i)) {
            port.admin = match value {
                Value::Integer(1) => Admin::Up,
                Value::Integer(2) => Admin::Down,
                Value::Integer(_) => return Err(WRONG_VALUE),
                _ => return Err(WRONG_TYPE),
            };
            return Ok(());
        }
        match self.kind {
            Kind::QBridge => self.set_bridge(config, &index, value),
            Kind::Cisco => self.set_cisco(config, oid, &index, value),
        }
    }

    fn set_bridge(&mut self, config: &mut Config, index: &dyn Fn(Arcs) -> Option<u32>, value: &Value) -> Result<(), u32> {
        if let Some(port) = index(o::PVID).and_then(|n| config.ports.get_mut(n.checked_sub(1)? as usize)) {
            let Value::Unsigned32(id) = value else { return Err(WRONG_TYPE) };
            port.pvid = Vlan::try_from(i64::from(*id)).map_err(|_| WRONG_VALUE)?;
            return if config.vlans.contains_key(&port.pvid) { Ok(()) } else { Err(INCONSISTENT_VALUE) };
        }
        if let Some(vlan) = index(o::STATIC_ROW_STATUS).and_then(|id| Vlan::try_from(i64::from(id)).ok()) {
            return self.set_row_status(config, vlan, value);
        }
        for arcs in [o::STATIC_NAME, o::STATIC_EGRESS, o::STATIC_UNTAGGED] {
            let Some(vlan) = index(arcs).and_then(|id| Vlan::try_from(i64::from(id)).ok()) else { continue };
            if self.faults.row_status_alone && !self.config.vlans.contains_key(&vlan) {
                return Err(NO_CREATION);
            }
            let row = config.vlans.get_mut(&vlan).ok_or(NO_CREATION)?;
            let Value::Octets(octets) = value else { return Err(WRONG_TYPE) };
            if arcs == o::STATIC_NAME {
                row.name = octets.clone();
            } else if arcs == o::STATIC_EGRESS {
                row.egress = octets.clone();
            } else {
                let old = portlist::members(self.form, &row.untagged, 1);
                row.untagged = octets.clone();
                if self.faults.pvid_follows {
                    for port in portlist::members(self.form, octets, 1).difference(&old) {
                        if let Some(port) = port.checked_sub(1).and_then(|n| config.ports.get_mut(n as usize)) {
                            port.pvid = vlan;
                        }
                    }
                }
            }
            return Ok(());
        }
        Err(NOT_WRITABLE)
    }

    /// RowStatus (RFC 2579): active(1), createAndGo(4), createAndWait(5), destroy(6).
    fn set_row_status(&self, config: &mut Config, vlan: Vlan, value: &Value) -> Result<(), u32> {
        let Value::Integer(status) = value else { return Err(WRONG_TYPE) };
        let width = self.width();
        let exists = config.vlans.contains_key(&vlan);
        match status {
            4 | 5 if exists => return Err(INCONSISTENT_VALUE),
            4 | 5 => {
                let status = if *status == 4 { 1 } else { 3 };
                config.vlans.insert(vlan, VlanRow { name: Vec::new(), egress: vec![0; width], untagged: vec![0; width], status });
            }
            1 => config.vlans.get_mut(&vlan).ok_or(INCONSISTENT_VALUE)?.status = 1,
            6 if config.ports.iter().any(|port| port.pvid == vlan) => return Err(INCONSISTENT_VALUE),
            6 => drop(config.vlans.remove(&vlan)),
            _ => return Err(WRONG_VALUE),
        }
        Ok(())
    }

    fn set_cisco(&mut self, config: &mut Config, oid: &Oid, index: &dyn Fn(Arcs) -> Option<u32>, value: &Value) -> Result<(), u32> {
        if oid.0.starts_with(CC_COPY) {
            self.copy(oid, value);
            return Ok(());
        }
        if index(o::TRUNK_SERIAL) == Some(0) {
            // TestAndIncr, RFC 2579
            if *value != Value::Integer(self.serial) {
                return Err(INCONSISTENT_VALUE);
            }
            self.serial += 1;
            return Ok(());
        }
        let columns = [o::VM_VLAN, o::TRUNK_NATIVE, o::TRUNK_ENCAPSULATION, o::TRUNK_DYNAMIC_STATE].into_iter().chain(o::TRUNK_ENABLED);
        let Some((arcs, if_index)) = columns.filter_map(|arcs| Some((arcs, index(arcs)?))).next() else { return Err(NOT_WRITABLE) };
        let existing: BTreeSet<Vlan> = config.vlans.keys().copied().collect();
        let Some(port) = config.ports.iter_mut().find(|port| port.if_index == if_index) else { return Err(NO_CREATION) };
        if let (Some(n), Value::Octets(list)) = (o::TRUNK_ENABLED.iter().position(|list| *list == arcs), value) {
            port.trunk.lists[n] = list.clone();
            return Ok(());
        }
        let Value::Integer(number) = value else { return Err(WRONG_TYPE) };
        if arcs == o::TRUNK_ENCAPSULATION && port.trunk.encapsulation.is_some() {
            port.trunk.encapsulation = Some(*number).filter(|kind| (1..=5).contains(kind));
            return port.trunk.encapsulation.map(|_| ()).ok_or(WRONG_VALUE);
        }
        if arcs == o::TRUNK_DYNAMIC_STATE {
            // "An interface whose trunk encapsulation is negotiated cannot be configured to trunk mode."
            if *number == 1 && port.trunk.encapsulation == Some(5) {
                return Err(INCONSISTENT_VALUE);
            }
            port.trunk.mode = if (1..=5).contains(number) { *number } else { return Err(WRONG_VALUE) };
            return Ok(());
        }
        let vlan = Vlan::try_from(*number).map_err(|_| WRONG_VALUE)?;
        match (arcs == o::VM_VLAN, matches!(port.trunk.mode, 1 | 5)) {
            // vmVlanTable has no rows of trunks.
            (true, true) => return Err(NO_CREATION),
            (true, false) if !existing.contains(&vlan) => return Err(INCONSISTENT_VALUE),
            (true, false) => port.pvid = vlan,
            (false, _) if arcs == o::TRUNK_NATIVE => port.trunk.native = vlan,
            (false, _) => return Err(NOT_WRITABLE),
        }
        Ok(())
    }

    /// A copy of the configuration is done at once: successful(3).
    fn copy(&mut self, oid: &Oid, value: &Value) {
        if oid.0.starts_with(CC_COPY_ROW_STATUS) {
            match value {
                Value::Integer(4) => {
                    self.saved = self.config.clone();
                    self.copy_state = Some(3);
                }
                _ => self.copy_state = None,
            }
        }
    }
}
