//! The network between the real drivers and the wire endpoints of the simulated devices, in virtual time.
//!
//! A process has its own `WiredDevices`: the product's `UdpDevices` over sockets that are channels. Each datagram goes the way of its device's
//! `Line`; the checkers hear of a change inside the gate, read as the device will read it, and again where it arrives. Leaves out: what the
//! devices do (`bmc`, `switch`). Invariant: a process that is dead sends nothing, and one that stands still hears nothing.
//! Shown by `tests/simulate.rs`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::agent::SimAgent;
use super::bmc::BmcEvent;
use super::centre::Centre;
use super::checkers::{Host, Write};
use super::mib::Mib;
use super::rmcp::Endpoint;
use super::switch::SimSwitch;
use super::watched::Watched;
use crate::drivers::bmc::ipmi::commands::flags_of;
use crate::drivers::credentials::Turns;
use crate::drivers::gate::{Datagram, DeviceSocket, Freshness, Network, Permit};
use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::drivers::udp::UdpDevices;
use crate::drivers::{Depth, Devices, Driver, Fault, Notes, Observation};
use crate::model::fact::Tick;
use crate::model::op::{Device, Off, Op};
use crate::model::secret::{BmcLogin, SnmpLogin};
use crate::model::{HostPort, Name, ServerSpec, SwitchSpec};

/// RMCP and SNMP (IANA).
const RMCP: u16 = 623;
const SNMP: u16 = 161;
/// RFC 3411 section 5, SnmpEngineID: RFC 5612's enterprise number for examples, format 4 (text).
const ENGINE: [u8; 5] = [0x80, 0, 0x7e, 0xd9, 4];
/// SNMPv2 error-status, RFC 3416: what an agent says whose switch went away meanwhile.
const GEN_ERR: u32 = 5;

fn lock<T: ?Sized>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The devices where they are reached, for all processes.
pub struct Wires {
    centre: Arc<Centre>,
    addresses: Mutex<BTreeMap<SocketAddr, Device>>,
    agents: Mutex<BTreeMap<Name, Arc<Mutex<Answering>>>>,
}

/// The agent of a switch, and the write that it answers now.
struct Answering {
    agent: SimAgent,
    write: Arc<Mutex<Option<Write>>>,
    /// Of the switch, as far as its agent knows: its serial number, and how often it restarted.
    serial: String,
    restarts: u32,
}

impl Answering {
    /// Another engine answers where there is another switch; one that restarted counts one boot more.
    fn follow(&mut self, serial: String, restarts: u32) {
        if self.serial != serial {
            self.agent.replace_engine([&ENGINE[..], serial.as_bytes()].concat(), 1);
        } else if self.restarts != restarts {
            self.agent.reboot();
        }
        (self.serial, self.restarts) = (serial, restarts);
    }
}

/// What an agent serves: the switch of the data centre.
struct OfCentre {
    centre: Arc<Centre>,
    switch: Name,
    write: Arc<Mutex<Option<Write>>>,
}

impl OfCentre {
    fn with<T>(&self, what: impl FnOnce(&mut SimSwitch) -> T) -> Option<T> {
        let write = lock(&self.write).clone();
        self.centre.with_agent(&self.switch, write.as_ref(), what)
    }
}

impl Mib for OfCentre {
    fn get(&mut self, oid: &Oid) -> Option<Value> {
        self.with(|sim| sim.get(oid))?
    }
    fn next(&mut self, oid: &Oid) -> Option<Binding> {
        self.with(|sim| sim.next(oid))?
    }
    fn set(&mut self, bindings: &[Binding]) -> Result<(), (u32, u32)> {
        if lock(&self.write).is_none() {
            self.centre.judge(|judge, _| judge.past_the_gate(&self.switch));
        }
        self.with(|sim| sim.set(bindings)).unwrap_or(Err((GEN_ERR, 0)))
    }
}

impl Wires {
    pub fn new(centre: Arc<Centre>) -> Arc<Wires> {
        Arc::new(Wires { centre, addresses: Mutex::default(), agents: Mutex::default() })
    }

    /// What a process has that begins now. Must be called within a tokio runtime.
    pub fn devices(self: &Arc<Self>, host: Host) -> WiredDevices {
        let alive = Arc::new(AtomicBool::new(true));
        let socket = || DeviceSocket::over(self.socket(host, &alive));
        WiredDevices { real: UdpDevices::over(socket(), socket()), wires: Arc::clone(self), host, alive }
    }

    fn socket(self: &Arc<Self>, host: Host, alive: &Arc<AtomicBool>) -> Arc<dyn Network> {
        Arc::new(Socket::new(Arc::clone(self), host, Arc::clone(alive)))
    }

    /// Somebody sends this as a question, whatever it is: for the test of the checkers.
    pub fn slip_in(self: &Arc<Self>, host: Host, bytes: Vec<u8>, to: SocketAddr) -> io::Result<()> {
        self.socket(host, &Arc::new(AtomicBool::new(true))).try_send(&Datagram::Asks(bytes), to, None)
    }

    /// A device that is not to be found by its address alone gets no datagram.
    fn is_at(&self, device: Device, address: &HostPort, default: u16) {
        let (host, port) = address.with_port(default);
        if let Ok(address) = host.parse::<IpAddr>() {
            lock(&self.addresses).insert(SocketAddr::new(address, port), device);
        }
    }

    fn answering(&self, switch: &Name, login: &SnmpLogin) {
        let mut agents = lock(&self.agents);
        let (seed, write) = (agents.len() as u64, Arc::default());
        agents.entry(switch.clone()).or_insert_with(|| {
            let mib = OfCentre { centre: Arc::clone(&self.centre), switch: switch.clone(), write: Arc::clone(&write) };
            let agent = SimAgent::new(Box::new(mib), seed).with_login(login);
            Arc::new(Mutex::new(Answering { agent, write, serial: String::new(), restarts: 0 }))
        });
    }

    /// A datagram arrives: what the device answers. `write`: it left through the gate, as this.
    fn arrives(&self, device: &Device, bytes: &[u8], write: Option<&Write>) -> Option<Vec<u8>> {
        match device {
            Device::Bmc(server) => {
                let (answer, changed) = self.centre.with_endpoint(server, |endpoint, now| {
                    let before = changes(endpoint);
                    (endpoint.handle(bytes, now), changes(endpoint) > before)
                })?;
                if changed && write.is_none() {
                    self.centre.judge(|judge, _| judge.past_the_gate(server));
                }
                answer
            }
            Device::Switch(switch) => {
                let answering = lock(&self.agents).get(switch).cloned()?;
                // Nothing, where it hears nothing now.
                let restarts = self.centre.with_agent(switch, None, |sim| sim.restarts())?;
                let mut answering = lock(&answering);
                answering.follow(self.centre.serial(switch)?, restarts);
                *lock(&answering.write) = write.cloned();
                answering.agent.answer(bytes)
            }
        }
    }
}

/// What was done to a BMC so far that a question does not do.
fn changes(endpoint: &Endpoint) -> usize {
    endpoint.bmc.log().filter(|event| matches!(event, BmcEvent::Control { .. } | BmcEvent::BootFlags { .. })).count()
}

/// The operation that a command is.
fn op_of(server: &Name, (netfn, cmd, data): (u8, u8, &[u8])) -> Option<Op> {
    let server = server.clone();
    match (netfn, cmd, data) {
        // Chassis Control (IPMI 2.0, table 28-4).
        (0x00, 0x02, [0]) => Some(Op::PowerOff { server, how: Off::Hard }),
        (0x00, 0x02, [1]) => Some(Op::PowerOn { server }),
        (0x00, 0x02, [5]) => Some(Op::PowerOff { server, how: Off::Soft }),
        // Set System Boot Options, boot flags (table 28-14).
        (0x00, 0x08, [5, flags, selector, ..]) => {
            let boot = flags_of([*flags, *selector]);
            Some(Op::SetBoot { server, device: boot.device, efi: boot.efi })
        }
        (_, _, _) => None,
    }
}

/// One socket of a process.
struct Socket {
    wires: Arc<Wires>,
    host: Host,
    alive: Arc<AtomicBool>,
    to_inbox: mpsc::UnboundedSender<(Vec<u8>, SocketAddr)>,
    inbox: tokio::sync::Mutex<mpsc::UnboundedReceiver<(Vec<u8>, SocketAddr)>>,
}

impl Socket {
    fn new(wires: Arc<Wires>, host: Host, alive: Arc<AtomicBool>) -> Socket {
        let (to_inbox, inbox) = mpsc::unbounded_channel();
        Socket { wires, host, alive, to_inbox, inbox: tokio::sync::Mutex::new(inbox) }
    }

    /// The checkers hear of a change that leaves: what it is, and by which permit.
    fn judge(&self, device: &Device, bytes: &[u8], permit: &Permit, fresh: Option<Freshness>) -> Write {
        let centre = &self.wires.centre;
        match device {
            Device::Bmc(server) => {
                let said = centre.with_endpoint(server, |endpoint, _| endpoint.read(bytes)).flatten();
                match said.and_then(|(netfn, cmd, data)| op_of(server, (netfn, cmd, &data))) {
                    Some(op) => centre.sending(self.host, server, &op),
                    None => centre.sending_part(self.host, server),
                }
            }
            Device::Switch(switch) => centre.setting(self.host, switch, permit.key()),
        }
        let age = fresh.map_or(Duration::ZERO, |fresh| permit.now().saturating_sub(fresh.asked_at));
        let left_at = centre.now();
        Write { key: permit.key().clone(), read_at: Tick(left_at.0.saturating_sub(age.as_micros() as u64)), left_at }
    }
}

#[async_trait]
impl Network for Socket {
    fn try_send(&self, datagram: &Datagram, to: SocketAddr, by: Option<(&Permit, Option<Freshness>)>) -> io::Result<()> {
        let device = lock(&self.wires.addresses).get(&to).cloned();
        let Some(device) = device.filter(|_| self.alive.load(Ordering::Relaxed)) else { return Ok(()) };
        if by.is_some() && self.wires.centre.lies_in_wait() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let write = by.map(|(permit, fresh)| self.judge(&device, datagram.bytes(), permit, fresh));
        let (wires, bytes, line) = (Arc::clone(&self.wires), datagram.bytes().to_vec(), self.wires.centre.line(&device));
        let to_inbox = self.to_inbox.clone();
        line.carry(
            move || wires.arrives(&device, &bytes, write.as_ref()),
            move |answer| {
                // Nobody is there any more.
                let _ = to_inbox.send((answer, to));
            },
        );
        Ok(())
    }

    async fn writable(&self) {
        self.wires.centre.before_sending(self.host).await;
    }

    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let arrived = self.inbox.lock().await.recv().await;
        self.wires.centre.freezer.awake(self.host).await;
        match arrived {
            Some(arrived) => arrived,
            // This socket holds a sender itself.
            None => std::future::pending().await,
        }
    }
}

/// The real drivers, as one process has them.
pub struct WiredDevices {
    real: UdpDevices,
    wires: Arc<Wires>,
    host: Host,
    alive: Arc<AtomicBool>,
}

impl WiredDevices {
    /// Its process is killed: it does not even say goodbye.
    pub fn die(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    fn held(&self, device: Device, driver: Box<dyn Driver>) -> Box<dyn Driver> {
        let held = HeldDriver { driver, device, centre: Arc::clone(&self.wires.centre), host: self.host };
        Box::new(Watched::new(Box::new(held), &self.wires.centre, self.host))
    }
}

impl Devices for WiredDevices {
    fn bmc(&self, server: &Name, spec: &ServerSpec, login: BmcLogin, spacing: Duration, turns: Arc<Turns>) -> Box<dyn Driver> {
        self.wires.is_at(Device::Bmc(server.clone()), &spec.bmc.address, RMCP);
        self.held(Device::Bmc(server.clone()), self.real.bmc(server, spec, login, spacing, turns))
    }

    fn switch(&self, switch: &Name, spec: &SwitchSpec, login: SnmpLogin, turns: Arc<Turns>) -> Box<dyn Driver> {
        self.wires.is_at(Device::Switch(switch.clone()), &spec.address, SNMP);
        self.wires.answering(switch, &login);
        self.held(Device::Switch(switch.clone()), self.real.switch(switch, spec, login, turns))
    }
}

/// A driver within a process that may stand still.
struct HeldDriver {
    driver: Box<dyn Driver>,
    device: Device,
    centre: Arc<Centre>,
    host: Host,
}

#[async_trait]
impl Driver for HeldDriver {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        let seen = self.centre.freezer.hold(self.host, self.driver.observe(depth, deadline)).await?;
        if let (Device::Bmc(server), Observation::Bmc(bmc)) = (&self.device, &seen) {
            self.centre.told(self.host, server, bmc.power);
        }
        Ok(seen)
    }

    async fn execute(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        self.centre.freezer.hold(self.host, self.driver.execute(op, permit, deadline)).await
    }

    fn forget_refusals(&mut self) {
        self.driver.forget_refusals();
    }

    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        self.driver.preview(ops)
    }

    async fn close(&mut self) {
        self.centre.freezer.hold(self.host, self.driver.close()).await;
    }
}
