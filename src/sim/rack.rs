//! A whole rack on real sockets, made to fit manifests: every Switch answers SNMP and every Server's BMC answers RMCP+, at the addresses and with
//! the credentials that the manifests name. And hands for people: `Rack::act` changes a port, presses a button, silences a BMC.
//!
//! Leaves out: what runs on the servers, and where the hands come from (`cli::demo`). Invariant: nothing here knows what is wanted; all ports
//! begin in VLAN 1 and all servers off, but those that are named. Shown by `tests/demo.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::agent::{self, SimAgent};
use super::bmc::{ADMINISTRATOR, Bmc, BmcConfig, BmcFault, SoftOff, User};
use super::mib::Mib;
use super::rmcp::{self, Endpoint, Line, SharedEndpoint};
use super::switch::{Kind, SimSwitch};
use crate::clock::Clock;
use crate::control::secrets::{self, BadSecret};
use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::model::fact::{Admin, PortConfig, Power};
use crate::model::objects::{Held, Objects};
use crate::model::secret::SecretSpec;
use crate::model::switch::{ProfileName, SecretRef, VlanPolicy, port_range};
use crate::model::{HostPort, Name, Object, ServerSpec, SwitchSpec, Vlan};

/// What boards of a vendor have in common.
struct Make {
    /// The label `vendor` of the Server.
    vendor: &'static str,
    /// IANA enterprise number.
    manufacturer_id: u32,
    product_id: u16,
    firmware: (u8, u8),
    suites: &'static [u8],
    on_takes: Duration,
    off_takes: Duration,
    soft_off_takes: Duration,
    /// Each answer takes up to this.
    delay: Duration,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

// tidy: table
// Enterprise numbers: IANA. Products, firmware and times are made up, and differ on purpose: so do real racks.
const MAKES: &[Make] = &[
    Make {
        vendor: "hpe",
        manufacturer_id: 11,
        product_id: 0x2000,
        firmware: (2, 82),
        suites: &[3],
        on_takes: ms(6000),
        off_takes: ms(800),
        soft_off_takes: ms(5000),
        delay: ms(25),
    },
    Make {
        vendor: "dell",
        manufacturer_id: 674,
        product_id: 0x0100,
        firmware: (2, 85),
        suites: &[3, 17],
        on_takes: ms(7500),
        off_takes: ms(1500),
        soft_off_takes: ms(6500),
        delay: ms(60),
    },
    Make {
        vendor: "supermicro",
        manufacturer_id: 10876,
        product_id: 0x0911,
        firmware: (1, 73),
        suites: &[3, 17],
        on_takes: ms(4000),
        off_takes: ms(500),
        soft_off_takes: ms(3500),
        delay: ms(10),
    },
    Make {
        vendor: "lenovo",
        manufacturer_id: 19046,
        product_id: 0x0400,
        firmware: (8, 40),
        suites: &[17],
        on_takes: ms(5500),
        off_takes: ms(1000),
        soft_off_takes: ms(4500),
        delay: ms(40),
    },
];

/// A board whose Server has no such label.
const GENERIC: Make = Make {
    vendor: "",
    manufacturer_id: 0x1291,
    product_id: 0x0f02,
    firmware: (1, 8),
    suites: &[3, 17],
    on_takes: ms(2000),
    off_takes: ms(1000),
    soft_off_takes: ms(3000),
    delay: ms(20),
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum RackError {
    #[error("{object} names the secret `{secret}`, which is not among the manifests")]
    NoSecret { object: String, secret: Name },
    #[error("{object} has no usable credentials")]
    BadSecret {
        object: String,
        #[source]
        source: BadSecret,
    },
    #[error("{object} cannot answer at {address}: this UDP port is taken by another program")]
    Taken { object: String, address: String },
    #[error("{object} cannot answer at {address}")]
    Bind {
        object: String,
        address: String,
        #[source]
        source: io::Error,
    },
}

/// What a person does in the rack. One JSON object to a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Act {
    /// Looks around.
    Look {},
    /// At the switch's console: this port up, untagged in this VLAN, nothing tagged.
    Port { switch: Name, port: String, vlan: Vlan },
    /// At the front panel.
    Button { server: Name },
    /// Pulls the management cable, and plugs it in again.
    Silence { server: Name, seconds: u64 },
}

/// What came of it, and the truth afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scene {
    /// Why it could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// How often somebody did something that is not looking.
    pub acts: usize,
    /// `tor-1/Gi1/0/1`: `120+t(130)`.
    pub ports: BTreeMap<String, String>,
    pub power: BTreeMap<Name, String>,
    /// Servers whose BMC hears nothing.
    pub silent: BTreeSet<Name>,
}

/// A switch that its agent and people share.
struct Shared(Arc<Mutex<SimSwitch>>);

fn lock<T: ?Sized>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mib for Shared {
    fn get(&mut self, oid: &Oid) -> Option<Value> {
        lock(&self.0).get(oid)
    }
    fn next(&mut self, oid: &Oid) -> Option<Binding> {
        lock(&self.0).next(oid)
    }
    fn set(&mut self, bindings: &[Binding]) -> Result<(), (u32, u32)> {
        lock(&self.0).set(bindings)
    }
}

pub(crate) struct Rack {
    clock: Clock,
    switches: BTreeMap<Name, Arc<Mutex<SimSwitch>>>,
    servers: BTreeMap<Name, SharedEndpoint>,
    acts: usize,
    /// The endpoints on their sockets; they end with the rack.
    _tasks: JoinSet<()>,
}

impl Rack {
    /// Binds every address, or says which one is taken.
    pub(crate) async fn start(manifests: &[Object], running: &BTreeSet<Name>) -> Result<Rack, RackError> {
        let mut objects = Objects::default();
        manifests.iter().for_each(|object| objects.insert(object));
        let (clock, mut tasks) = (Clock::start(), JoinSet::new());
        let (mut switches, mut servers) = (BTreeMap::new(), BTreeMap::new());
        for (seed, (name, held)) in (1u64..).zip(&objects.switches) {
            let socket = bind(format!("Switch/{name}"), &held.spec.address, 161).await?;
            let switch = Arc::new(Mutex::new(switch(name, held, &objects)));
            let agent = agent(name, &held.spec, Shared(Arc::clone(&switch)), seed, &objects)?;
            tasks.spawn(async move { drop(agent::serve(socket, Arc::new(Mutex::new(agent))).await) });
            switches.insert(name.clone(), switch);
        }
        for nic in objects.servers.values().flat_map(|held| &held.spec.nics) {
            if let (Some(switch), Some(port)) = (nic.switch.as_ref().and_then(|name| switches.get(name)), &nic.port) {
                lock(switch).plug(port, nic.mac);
            }
        }
        for (seed, (name, held)) in (1u64..).zip(&objects.servers) {
            let socket = bind(format!("Server/{name}"), &held.spec.bmc.address, 623).await?;
            let make = MAKES.iter().find(|m| held.meta.labels.get("vendor").is_some_and(|v| v == m.vendor)).unwrap_or(&GENERIC);
            let power = if running.contains(name) { Power::On } else { Power::Off };
            let endpoint = Endpoint::new(Bmc::new(board(name, &held.spec, make, power, seed, &objects)?), seed);
            let endpoint: SharedEndpoint = Arc::new(Mutex::new(endpoint));
            let line = Line { delay: make.delay, seed, ..Line::default() };
            tasks.spawn(rmcp::serve(socket, Arc::clone(&endpoint), move || clock.now(), line));
            servers.insert(name.clone(), endpoint);
        }
        Ok(Rack { clock, switches, servers, acts: 0, _tasks: tasks })
    }

    pub(crate) fn act(&mut self, act: &Act) -> Scene {
        let now = self.clock.now();
        let refused = match act {
            Act::Look {} => return self.scene(None),
            Act::Port { switch, port, vlan } => {
                let to = PortConfig { admin: Admin::Up, untagged: Some(*vlan), tagged: BTreeSet::new() };
                let set = self.switches.get(switch).and_then(|s| lock(s).set_port(port, &to));
                set.is_none().then(|| format!("there is no port {switch}/{port} here"))
            }
            Act::Button { server } => match self.servers.get(server) {
                Some(endpoint) => {
                    lock(endpoint).bmc.press_button(now);
                    None
                }
                None => Some(format!("there is no server {server} here")),
            },
            Act::Silence { server, seconds } => match self.servers.get(server) {
                Some(endpoint) => {
                    lock(endpoint).bmc.inject(BmcFault::Unplugged { until: now.plus(Duration::from_secs(*seconds)) }, now);
                    None
                }
                None => Some(format!("there is no server {server} here")),
            },
        };
        self.acts += usize::from(refused.is_none());
        self.scene(refused)
    }

    fn scene(&self, refused: Option<String>) -> Scene {
        let now = self.clock.now();
        let mut ports = BTreeMap::new();
        for (name, switch) in &self.switches {
            ports.extend(lock(switch).ports().into_iter().map(|(port, config)| (format!("{name}/{port}"), config.to_string())));
        }
        let power = self.servers.iter().map(|(name, endpoint)| (name.clone(), lock(endpoint).bmc.power(now).to_string())).collect();
        let silent = self.servers.iter().filter(|(_, endpoint)| !lock(endpoint).bmc.reachable(now)).map(|(name, _)| name.clone()).collect();
        Scene { refused, acts: self.acts, ports, power, silent }
    }
}

async fn bind(object: String, address: &HostPort, default: u16) -> Result<UdpSocket, RackError> {
    let (host, port) = address.with_port(default);
    let address = address.to_string();
    UdpSocket::bind((host, port)).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => RackError::Taken { object, address },
        _ => RackError::Bind { object, address, source },
    })
}

fn secret<'a>(object: &str, named: &SecretRef, objects: &'a Objects) -> Result<&'a SecretSpec, RackError> {
    let found = objects.secrets.get(&named.name).map(|held| &held.spec);
    found.ok_or_else(|| RackError::NoSecret { object: object.to_owned(), secret: named.name.clone() })
}

fn switch(name: &Name, held: &Held<SwitchSpec>, objects: &Objects) -> SimSwitch {
    let spec = &held.spec;
    let kind = match spec.profile {
        ProfileName::CiscoVtp => Kind::Cisco,
        ProfileName::Foundry => Kind::Foundry { dual_mode: false },
        ProfileName::Auto | ProfileName::QBridge | ProfileName::ObserveOnly => Kind::QBridge,
    };
    let listed = spec.manage.iter().flat_map(|m| &m.ports).chain(&spec.uplinks);
    let ports = listed.flat_map(|text| match port_range(text) {
        Some((stem, first, last)) => (first..=last).map(|n| format!("{stem}{n}")).collect(),
        None => vec![text.clone()],
    });
    let mut switch = SimSwitch::with_ports(kind, name.as_str(), ports);
    if spec.vlans == VlanPolicy::Expect {
        objects.networks.values().for_each(|network| switch.add_vlan(network.spec.vlan_on(&held.meta.labels)));
        switch.save();
    }
    switch
}

fn agent(name: &Name, spec: &SwitchSpec, mib: Shared, seed: u64, objects: &Objects) -> Result<SimAgent, RackError> {
    let object = format!("Switch/{name}");
    let named = secret(&object, &spec.snmp.secret_ref, objects)?;
    let of = spec.snmp.secret_ref.name.as_str();
    let login = secrets::values(of, named).and_then(|values| secrets::snmp_login(of, spec.snmp.version, spec.snmp.insecure, &values));
    let login = login.map_err(|source| RackError::BadSecret { object, source })?;
    Ok(SimAgent::new(Box::new(mib), seed).with_login(&login))
}

fn board(name: &Name, spec: &ServerSpec, make: &Make, power: Power, seed: u64, objects: &Objects) -> Result<BmcConfig, RackError> {
    let object = format!("Server/{name}");
    let named = secret(&object, &spec.bmc.secret_ref, objects)?;
    let of = spec.bmc.secret_ref.name.as_str();
    let login = secrets::values(of, named).and_then(|values| secrets::bmc_login(of, &values));
    let login = login.map_err(|source| RackError::BadSecret { object, source })?;
    let mut guid = [0x5a; 16];
    guid.iter_mut().zip(name.as_str().bytes()).for_each(|(to, from)| *to = from);
    guid[15] = seed as u8;
    Ok(BmcConfig {
        manufacturer_id: make.manufacturer_id,
        product_id: make.product_id,
        firmware: make.firmware,
        guid,
        kg: login.kg.as_ref().map(|kg| key(kg.reveal())),
        users: vec![User { name: login.username, password: login.password.reveal().to_owned(), level: ADMINISTRATOR }],
        suites: make.suites.to_vec(),
        on_takes: make.on_takes,
        off_takes: make.off_takes,
        soft_off: SoftOff::TakesEffectAfter(make.soft_off_takes),
        power,
        ..BmcConfig::default()
    })
}

/// Text, padded with zeros.
fn key(text: &str) -> [u8; 20] {
    let mut key = [0; 20];
    key.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    key
}
