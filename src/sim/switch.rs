//! A switch as a state machine behind its MIBs: IF-MIB and Q-BRIDGE-MIB (or its vendor's), with the rules that real ones have, and their lies.
//!
//! Leaves out: packets. Invariants: untagged members are egress members, a PVID's VLAN exists, one PDU happens whole or not at all
//! (unless a fault says otherwise), and every change is in `log` with who made it. Shown by `tests/switch_writes.rs`.

mod comware;
mod endpoint;
mod foundry;
mod recorded;

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::recording::Tree;
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::portlist::{self, Form};
use crate::drivers::switch::snmp::{Oid, Value};
use crate::model::fact::{Admin, PortConfig};
use crate::model::{Mac, Vlan};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Q-BRIDGE-MIB.
    QBridge,
    /// CISCO-VLAN-MEMBERSHIP-MIB and CISCO-VTP-MIB.
    Cisco,
    /// Q-BRIDGE-MIB, and HH3C-LswINF-MIB with the link types of ports.
    Comware,
    /// FOUNDRY-SN-SWITCH-GROUP-MIB. In dual mode before FastIron 8.0.80, tagged and untagged side by side since then.
    Foundry { dual_mode: bool },
}

/// What an agent makes of dot1qPortAcceptableFrameTypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameTypes {
    NotServed,
    ReadOnly,
    Writable,
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
    /// Saves of the configuration fail.
    pub copy_fails: bool,
    /// A PDU with an object under this is refused: notWritable.
    pub refuses: Option<Arcs>,
    /// An object under this is acknowledged, and stays as it is.
    pub ignores: Option<Arcs>,
    /// A walk into this is answered with genErr.
    pub hides: Option<Arcs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Snmp,
    Human,
}

/// What a neighbour says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub chassis: Mac,
    pub port: String,
    pub system: String,
    pub bridge: bool,
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

impl std::fmt::Display for PortView {
    /// `120`, `120/121+t(130) down`: in, and out where that differs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |vlans: &BTreeSet<Vlan>| vlans.iter().map(Vlan::to_string).collect::<Vec<_>>().join(",");
        let ingress = self.ingress.map_or_else(|| "none".to_owned(), |vlan| vlan.to_string());
        f.write_str(&ingress)?;
        if list(&self.untagged) != ingress {
            write!(f, "/{}", list(&self.untagged))?;
        }
        if !self.tagged.is_empty() {
            write!(f, "+t({})", list(&self.tagged))?;
        }
        if self.admin == Admin::Down { f.write_str(" down") } else { Ok(()) }
    }
}

/// A port of the switch; its base port is its place in the list, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    if_index: u32,
    admin: Admin,
    /// PVID; access VLAN on a Cisco.
    pvid: Vlan,
    /// dot1qPortAcceptableFrameTypes: admitOnlyVlanTagged(2).
    tagged_only: bool,
    /// Cisco: trunk mode, native VLAN, the list of VLANs that pass.
    trunk: Trunk,
    /// hh3cifVLANType, on a Comware: vLANTrunk(1), access(2), hybrid(3).
    link_type: i64,
    /// In dual mode, on a Foundry: the VLAN of its untagged frames.
    dual: Option<Vlan>,
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
    /// Who is plugged in where, by name of the port.
    stations: BTreeMap<String, BTreeSet<Mac>>,
    /// Who announces itself by LLDP, by name of the port.
    announced: BTreeMap<String, Announced>,
    /// Anything else that it serves: the columns of a recording that no rule touches.
    rest: Tree,
    /// All that is served, until something changes.
    served: Option<Tree>,
    /// In hundredths of a second, at `up_since`.
    up_time: u32,
    up_since: Instant,
    restarts: u32,
    serial: i64,
    copy_state: Option<i64>,
    /// A save that goes on: how often it is still seen to.
    saving: Option<u32>,
    /// HH3C-CONFIG-MAN-MIB: the rows of requests, and the results: request and hh3cCfgOperateState.
    requests: BTreeSet<u32>,
    results: Vec<(u32, i64)>,
    /// dot1qPortAcceptableFrameTypes is served, and can be written.
    pub frame_types: FrameTypes,
    /// CISCO-CONFIG-MAN-MIB is served.
    pub tells_unsaved: bool,
    /// LLDP-MIB and the forwarding table are served.
    pub tells_neighbours: bool,
    /// Copies of the configuration that were begun over SNMP.
    pub copies: u32,
}

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
                tagged_only: false,
                trunk: Trunk { mode: 2, encapsulation: Some(5), native: vlan, lists: lists.clone() },
                link_type: comware::ACCESS,
                dual: None,
                link: true,
            })
        };
        let config =
            Config { ports: (1..).zip(ports).filter_map(port).collect(), vlans: vlans.into_iter().map(|v| (v, row.clone())).collect() };
        let mut rest = Tree::default();
        let object_id: &[u32] = match kind {
            Kind::QBridge => &[1, 3, 6, 1, 4, 1, 259, 10, 1, 43, 101],
            Kind::Cisco => &[1, 3, 6, 1, 4, 1, 9, 1, 617],
            Kind::Comware => &[1, 3, 6, 1, 4, 1, 25506, 11, 1, 24],
            Kind::Foundry { .. } => &[1, 3, 6, 1, 4, 1, 1991, 1, 3, 57, 1, 1, 1, 1],
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
        let (stations, announced) = (BTreeMap::new(), BTreeMap::new());
        SimSwitch {
            kind,
            form,
            stations,
            announced,
            config,
            saved,
            faults: Faults::default(),
            log: Vec::new(),
            rest,
            served: None,
            up_time: 100,
            up_since: Instant::now(),
            restarts: 0,
            serial: 1,
            copy_state: None,
            saving: None,
            requests: BTreeSet::new(),
            results: Vec::new(),
            frame_types: match kind {
                Kind::QBridge => FrameTypes::Writable,
                Kind::Cisco | Kind::Comware | Kind::Foundry { .. } => FrameTypes::NotServed,
            },
            tells_unsaved: false,
            tells_neighbours: true,
            copies: 0,
        }
    }

    /// A switch that begins as a recording shows it. Nothing where the recording lacks the tables that this kind is written through.
    pub fn from_recording(kind: Kind, form: Form, tree: &Tree) -> Option<SimSwitch> {
        let config = match kind {
            Kind::QBridge | Kind::Comware => recorded::bridge(tree)?,
            Kind::Cisco => recorded::cisco(tree)?,
            Kind::Foundry { .. } => recorded::foundry(tree)?,
        };
        let mut rest = tree.clone();
        if let Kind::Foundry { .. } = kind {
            // Its base ports have gaps; here they are the places of the ports.
            rest.0.retain(|oid, _| !oid.0.starts_with(o::BASE_PORT_IF_INDEX) && !oid.0.starts_with(o::PVID));
        }
        let mut sim = SimSwitch::of(kind, form, config, rest);
        if !tree.0.keys().any(|oid| oid.0.starts_with(o::FRAME_TYPES)) {
            sim.frame_types = FrameTypes::NotServed;
        }
        Some(sim)
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
        port.tagged_only &= to.untagged.is_none();
        port.trunk.mode = if to.tagged.is_empty() { 2 } else { 1 };
        port.trunk.encapsulation = port.trunk.encapsulation.map(|_| if port.trunk.mode == 1 { 4 } else { 5 });
        port.trunk.native = port.pvid;
        if !to.tagged.is_empty() {
            port.trunk.lists = lists(&to.tagged.iter().chain(&to.untagged).copied().collect());
        }
        match self.kind {
            Kind::QBridge | Kind::Cisco => {}
            Kind::Comware => port.link_type = if to.tagged.is_empty() { comware::ACCESS } else { comware::TRUNK },
            Kind::Foundry { dual_mode } => self.set_foundry(n, dual_mode, to)?,
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
        (self.up_time, self.up_since) = (0, Instant::now());
        self.restarts += 1;
        self.note(Who::Human, &before);
    }

    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Its ports get other numbers: each has now the name that the one before it had, and the first the name of the last.
    pub fn renumber(&mut self) {
        let names: Vec<String> = self.config.ports.iter().map(|port| port.name.clone()).collect();
        let shifted = names.iter().cycle().skip(names.len().saturating_sub(1));
        self.config.ports.iter_mut().zip(shifted).for_each(|(port, name)| port.name.clone_from(name));
        self.served = None;
    }

    /// Save at the console.
    pub fn save(&mut self) {
        self.saved = self.config.clone();
        self.served = None;
    }

    pub fn is_saved(&self) -> bool {
        self.saved == self.config
    }

    /// Any other object.
    pub fn show(&mut self, oid: Oid, value: Value) {
        self.rest.0.insert(oid, value);
        self.served = None;
    }

    pub fn if_index(&self, name: &str) -> Option<u32> {
        self.config.ports.iter().find(|port| port.name == name).map(|port| port.if_index)
    }

    /// A NIC is plugged in: while the port is up its address is learned in the VLAN of untagged frames.
    pub fn plug(&mut self, name: &str, mac: Mac) {
        self.stations.entry(name.to_owned()).or_default().insert(mac);
        self.served = None;
    }

    pub fn unplug(&mut self, name: &str, mac: Mac) {
        self.stations.entry(name.to_owned()).or_default().remove(&mac);
        self.served = None;
    }

    /// A neighbour announces itself by LLDP, or falls silent.
    pub fn announce(&mut self, name: &str, neighbour: Option<Announced>) {
        match neighbour {
            Some(neighbour) => drop(self.announced.insert(name.to_owned(), neighbour)),
            None => drop(self.announced.remove(name)),
        }
        self.served = None;
    }

    fn width(&self) -> usize {
        self.config.vlans.values().map(|row| row.egress.len()).max().unwrap_or(4)
    }

    fn view(&self, n: usize, port: &Port) -> PortView {
        match self.kind {
            Kind::QBridge | Kind::Comware => self.bridge_view(n as u32 + 1, port),
            Kind::Cisco => self.cisco_view(port),
            Kind::Foundry { .. } => self.foundry_view(n as u32 + 1, port),
        }
    }

    fn bridge_view(&self, number: u32, port: &Port) -> PortView {
        let has = |list: &[u8]| portlist::members(self.form, list, 1).contains(&number);
        let untagged: BTreeSet<Vlan> = self.config.vlans.iter().filter(|(_, row)| has(&row.untagged)).map(|(vlan, _)| *vlan).collect();
        let egress = self.config.vlans.iter().filter(|(_, row)| has(&row.egress)).map(|(vlan, _)| *vlan);
        let tagged = egress.filter(|vlan| !untagged.contains(vlan)).collect();
        PortView { admin: port.admin, ingress: Some(port.pvid).filter(|_| !port.tagged_only), untagged, tagged }
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
