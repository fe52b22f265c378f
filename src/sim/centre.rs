//! A whole data centre in virtual time: BMCs with the machines behind them, switches, and the truth of what runs where.
//!
//! A machine that powers on asks the controller what to boot, as its firmware would, and runs that until its power is off; parked, it asks
//! again. Everything that happens goes to the trace and past the checkers (`checkers`). Leaves out: faults by plan (`tests/simulate.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, sleep_until};

use super::addresses::Desk;
use super::bmc::{Bmc, BmcConfig, BmcEvent, Cause};
use super::booting::Starts;
use super::checkers::{Host, Judge, Write};
use super::freezer::Freezer;
use super::line::{Line, Weather};
use super::rmcp::Endpoint;
use super::switch::{Change, SimSwitch, Who};
use super::trace::Trace;
use super::virtual_bmc::VirtualBmc;
use super::virtual_switch::VirtualAgent;
use super::watched::Watched;
use crate::clock::{BootClock, Clock};
use crate::control::booting::Shared;
use crate::control::controller::Message;
use crate::drivers::Devices;
use crate::drivers::Driver;
use crate::drivers::credentials::Turns;
use crate::drivers::gate::Key;
use crate::drivers::switch::objects::{ENT_PHYSICAL_SERIAL, at};
use crate::drivers::switch::snmp::Value;
use crate::drivers::switch::{SwitchDriver, SwitchSettings};
use crate::model::fact::{BootDevice, Power, Tick};
use crate::model::op::{Device, Op};
use crate::model::secret::{BmcLogin, SnmpLogin};
use crate::model::switch::VlanPolicy;
use crate::model::{Kind, Mac, Name, ServerSpec, SwitchSpec};
use crate::store::LeaseEnd;

/// How long a machine waits for a boot answer, and before it asks again (as the boot script does).
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What truly runs on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    Nothing,
    /// Its firmware, on the way to a boot answer.
    Firmware,
    Parked,
    Persona(Name),
    /// What its disk holds, without an answer that stands for it.
    FromDisk(Name),
    /// Something of somebody's: it never asked us.
    Foreign,
}

pub(super) struct Machine {
    /// The BMC, and its sessions with real drivers.
    endpoint: Endpoint,
    pub(super) mac: Mac,
    pub(super) firmware_takes: Duration,
    pub(super) runs: Runs,
    /// Counts starts: an answer to an earlier one is nobody's.
    pub(super) start: u64,
    pub(super) ask_at: Option<(Tick, bool)>,
    /// What is on its disk. People put a persona there that is to start from it.
    pub(super) disk: Option<Name>,
    /// This start goes to the disk first, and by whose doing.
    pub(super) from_disk: Option<Cause>,
    events_read: usize,
    next_known: Option<Tick>,
    /// Since when it is the BMC that it is.
    bmc_since: Tick,
    /// It boots what it booted the last time, without a question.
    pub(super) remembers: Option<Option<Name>>,
    pub(super) wake: Arc<Notify>,
    pub(super) starts: Starts,
    line: Line,
}

struct Rack {
    sim: SimSwitch,
    serial: String,
    /// Since when it is the switch that it is.
    since: Tick,
    silent_until: Tick,
    changes_read: usize,
    line: Line,
}

pub struct State {
    /// What names mean: the addresses of BMCs.
    hosts: BTreeMap<String, String>,
    pub(super) machines: BTreeMap<Name, Machine>,
    switches: BTreeMap<Name, Rack>,
    pub judge: Judge,
    pub trace: Trace,
}

pub struct Centre {
    clock: Clock,
    state: Mutex<State>,
    boot_clock: BootClock,
    /// Somebody kills a controller here and now.
    pub crash: Notify,
    crashed: Mutex<BTreeSet<Host>>,
    /// A checker spoke.
    pub broken: Notify,
    pub freezer: Arc<Freezer>,
    before_sending: Mutex<Vec<BeforeSending>>,
    /// Of who gives addresses.
    desk: Mutex<Option<Desk>>,
}

/// What happens to the process that sends the next change, directly before that.
#[derive(Debug, Clone, Copy, PartialEq)]
enum BeforeSending {
    Crash,
    Freeze(Duration),
}

/// How a machine reaches the controller that acts, and by which lease that does.
#[derive(Clone)]
pub struct Answers {
    pub controller: watch::Receiver<Option<mpsc::Sender<Message>>>,
    pub holds: watch::Receiver<Option<(Host, Arc<LeaseEnd>, Shared)>>,
}

impl Centre {
    pub fn new(loud: bool) -> Centre {
        let state = State {
            hosts: BTreeMap::new(),
            machines: BTreeMap::new(),
            switches: BTreeMap::new(),
            judge: Judge::default(),
            trace: Trace::new(loud),
        };
        Centre {
            clock: Clock::start(),
            state: Mutex::new(state),
            boot_clock: BootClock::virtual_from_now(),
            crash: Notify::new(),
            crashed: Mutex::default(),
            broken: Notify::new(),
            freezer: Arc::default(),
            before_sending: Mutex::default(),
            desk: Mutex::default(),
        }
    }

    pub fn now(&self) -> Tick {
        self.clock.now()
    }

    pub fn boot_clock(&self) -> BootClock {
        self.boot_clock
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, about: &[&Name], text: impl Into<String>) {
        let now = self.now();
        self.state().trace.note(now, about, text);
    }

    /// Something that the checkers look at; wakes whoever waits for their word.
    pub fn judge<T>(&self, look: impl FnOnce(&mut Judge, Tick) -> T) -> T {
        let now = self.now();
        let mut state = self.state();
        let out = look(&mut state.judge, now);
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
        out
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Option<Desk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- what there is --------------------------------------------------------------------------------------------------

    pub fn add_machine(&self, server: &Name, mac: Mac, config: BmcConfig, firmware_takes: Duration, line: Line) {
        let running = config.power == Power::On;
        let seed = self.state().machines.len() as u64;
        let machine = Machine {
            endpoint: Endpoint::new(Bmc::new(config), seed),
            mac,
            firmware_takes,
            runs: if running { Runs::Foreign } else { Runs::Nothing },
            start: 0,
            ask_at: None,
            disk: None,
            from_disk: None,
            events_read: 0,
            next_known: None,
            bmc_since: Tick::START,
            remembers: None,
            wake: Arc::new(Notify::new()),
            starts: Starts::default(),
            line,
        };
        self.state().machines.insert(server.clone(), machine);
        self.judge(|judge, _| judge.found(server, running));
    }

    pub fn add_switch(&self, switch: &Name, sim: SimSwitch, line: Line) {
        self.state().switches.insert(
            switch.clone(),
            Rack { sim, serial: format!("SIM-{switch}"), since: Tick::START, silent_until: Tick::START, changes_read: 0, line },
        );
    }

    pub fn set_weather(&self, device: &Device, weather: Weather) {
        let state = self.state();
        match device {
            Device::Bmc(name) => state.machines.get(name).map(|m| m.line.set_weather(weather)),
            Device::Switch(name) => state.switches.get(name).map(|r| r.line.set_weather(weather)),
        };
    }

    /// The way to a device; a perfect one where there is no such device.
    pub(super) fn line(&self, device: &Device) -> Line {
        let state = self.state();
        let line = match device {
            Device::Bmc(name) => state.machines.get(name).map(|m| m.line.clone()),
            Device::Switch(name) => state.switches.get(name).map(|r| r.line.clone()),
        };
        line.unwrap_or_else(|| Line::new(0))
    }

    pub fn runs(&self, server: &Name) -> Option<Runs> {
        self.state().machines.get(server).map(|m| m.runs.clone())
    }

    pub fn power(&self, server: &Name) -> Option<Power> {
        self.touch(server, |bmc, now| bmc.power(now))
    }

    pub(super) fn serial(&self, switch: &Name) -> Option<String> {
        self.state().switches.get(switch).map(|rack| rack.serial.clone())
    }

    /// What a person at the console sees of a port.
    pub fn switch<T>(&self, switch: &Name, look: impl FnOnce(&mut SimSwitch) -> T) -> Option<T> {
        let now = self.now();
        let mut state = self.state();
        let rack = state.switches.get_mut(switch)?;
        let out = look(&mut rack.sim);
        drain_switch(&mut state, switch, None, now);
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
        Some(out)
    }

    // ---- faults ---------------------------------------------------------------------------------------------------------

    pub fn reboot_switch(&self, switch: &Name, takes: Duration) {
        let until = self.now().plus(takes);
        if let Some(rack) = self.state().switches.get_mut(switch) {
            rack.silent_until = until;
        }
        self.switch(switch, SimSwitch::reboot);
    }

    /// A name is looked up, from now on with this answer.
    pub fn names(&self, host: &str, address: &str) {
        self.state().hosts.insert(host.to_owned(), address.to_owned());
    }

    /// What a BMC's address in a manifest means at present.
    pub(crate) fn looked_up(&self, address: &str) -> String {
        self.state().hosts.get(address).cloned().unwrap_or_else(|| address.to_owned())
    }

    /// Another BMC answers in front of the same machine.
    pub fn swap_bmc(&self, server: &Name, guid: [u8; 16]) {
        let now = self.now();
        self.touch(server, |bmc, now| bmc.swap(guid, now));
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.bmc_since = now;
        }
    }

    /// The next answer about power says Off.
    pub fn lie_off_once(&self, server: &Name) {
        self.touch(server, |bmc, _| bmc.off_lies = 1);
    }

    /// Another switch in its place, with the same configuration.
    pub fn swap_switch(&self, switch: &Name, serial: &str) {
        let now = self.now();
        if let Some(rack) = self.state().switches.get_mut(switch) {
            rack.sim.show(at(ENT_PHYSICAL_SERIAL, &[1]), Value::Octets(serial.as_bytes().to_vec()));
            rack.since = now;
            rack.serial = serial.to_owned();
        }
    }

    /// It restarts, and its ports have other numbers. What each name carries then is a person's doing.
    pub fn renumber_switch(&self, switch: &Name, takes: Duration) {
        let now = self.now();
        let before = self.switch(switch, |sim| sim.views()).unwrap_or_default();
        self.reboot_switch(switch, takes);
        let after = self.switch(switch, |sim| {
            sim.renumber();
            sim.views()
        });
        for (port, to) in after.unwrap_or_default() {
            let Some(from) = before.get(&port).filter(|from| **from != to).cloned() else { continue };
            let change = Change { who: Who::Human, port, from, to };
            self.judge(|judge, _| judge.port(switch, &change, None, &Runs::Nothing, now));
        }
    }

    /// A person is right to say that a machine has run this all along.
    pub fn has_run(&self, server: &Name, persona: &Name) {
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.runs = Runs::Persona(persona.clone());
        }
        self.note(&[server], format!("has run persona {persona} all along"));
        let on_disk = self.judge(|judge, _| {
            judge.runs(server, persona, None);
            judge.stands_on_disk(server)
        });
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.disk = on_disk.or(machine.disk.take());
        }
    }

    /// The device lies about power from now on: for the test of the checkers.
    pub fn report_off(&self, server: &Name) {
        self.touch(server, |bmc, _| bmc.off_lies = u32::MAX);
    }

    /// The machine boots what it booted the last time, whatever it is answered: for the test of the checkers.
    pub fn boot_from_memory(&self, server: &Name) {
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.remembers = Some(None);
        }
    }

    /// The process that sends the next change is killed directly before.
    pub fn crash_at_next_op(&self) {
        self.events_before_sending().push(BeforeSending::Crash);
    }

    /// It stands still directly before, for so long.
    pub fn freeze_at_next_op(&self, takes: Duration) {
        self.events_before_sending().push(BeforeSending::Freeze(takes));
    }

    pub fn no_more_crashes(&self) {
        self.events_before_sending().clear();
    }

    fn events_before_sending(&self) -> MutexGuard<'_, Vec<BeforeSending>> {
        self.before_sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process stands still for so long.
    pub fn freeze(self: &Arc<Self>, host: Host, takes: Duration) {
        self.note(&[], format!("controller {host} stands still for {takes:?}"));
        self.freezer.freeze(host);
        let centre = Arc::clone(self);
        tokio::spawn(async move {
            sleep(takes).await;
            centre.note(&[], format!("controller {host} goes on"));
            centre.freezer.thaw(host);
        });
    }

    /// This process is killed: whoever runs it hears of it.
    pub fn crash(&self, host: Host) {
        self.crashed.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
        self.crash.notify_one();
    }

    pub fn crashed(&self) -> BTreeSet<Host> {
        std::mem::take(&mut *self.crashed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    // ---- the endpoints ------------------------------------------------------------------------------------------------------

    /// Whatever happens to a BMC, or is asked of it as by a person who stands there.
    pub fn touch<T>(&self, server: &Name, what: impl FnOnce(&mut Bmc, Tick) -> T) -> Option<T> {
        self.with_endpoint(server, |endpoint, now| what(&mut endpoint.bmc, now))
    }

    /// The same of a BMC and its sessions.
    pub(super) fn with_endpoint<T>(&self, server: &Name, what: impl FnOnce(&mut Endpoint, Tick) -> T) -> Option<T> {
        let now = self.now();
        let mut state = self.state();
        let machine = state.machines.get_mut(server)?;
        machine.endpoint.bmc.settle(now);
        let out = what(&mut machine.endpoint, now);
        drain_bmc(&mut state, server, now);
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
        Some(out)
    }

    /// A packet arrives at a BMC; nothing where it hears nothing.
    pub fn with_bmc<T>(&self, server: &Name, what: impl FnOnce(&mut Bmc, Tick) -> T) -> Option<T> {
        self.touch(server, |bmc, now| bmc.reachable(now).then(|| what(bmc, now)))?
    }

    /// A request arrives at an agent. `write`: it is a change of embody's.
    pub fn with_agent<T>(&self, switch: &Name, write: Option<&Write>, what: impl FnOnce(&mut SimSwitch) -> T) -> Option<T> {
        let now = self.now();
        let mut state = self.state();
        let rack = state.switches.get_mut(switch).filter(|rack| rack.silent_until <= now)?;
        let out = what(&mut rack.sim);
        drain_switch(&mut state, switch, write, now);
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
        Some(out)
    }

    /// A controller hears this of a server's power.
    pub(super) fn told(&self, host: Host, server: &Name, power: Power) {
        self.judge(|judge, now| judge.told(host, server, power, now));
    }

    /// A change leaves: called inside the gate.
    pub fn sending(&self, host: Host, server: &Name, op: &Op) {
        self.note(&[server], format!("op {op}"));
        self.reaches(server);
        self.judge(|judge, now| judge.sending(host, server, op, now));
    }

    /// A datagram leaves that is a part of a change, or one that nobody can read any more: called inside the gate.
    pub fn sending_part(&self, host: Host, server: &Name) {
        self.reaches(server);
        self.judge(|judge, now| judge.sending_part(host, server, now));
    }

    fn reaches(&self, server: &Name) {
        let truly = self.state().machines.get(server).map(|m| (guid(&m.endpoint.bmc), m.bmc_since));
        if let Some((guid, since)) = truly {
            self.judge(|judge, now| judge.reaches(Kind::Server, server, guid.as_deref(), since, now));
        }
    }

    /// A SET leaves: called inside the gate.
    pub fn setting(&self, host: Host, switch: &Name, key: &Key) {
        let truly = self.state().switches.get(switch).map(|r| (r.serial.clone(), r.since));
        self.judge(|judge, now| {
            if let Some((serial, since)) = truly {
                judge.reaches(Kind::Switch, switch, Some(&serial), since, now);
            }
            judge.setting(host, switch, key, now);
        });
    }

    /// Whether something is to happen to the process that sends the next change.
    pub(super) fn lies_in_wait(&self) -> bool {
        !self.events_before_sending().is_empty()
    }

    /// A change is about to leave: here the process may be killed, or stand still.
    pub async fn before_sending(self: &Arc<Self>, host: Host) {
        let event = self.events_before_sending().pop();
        match event {
            Some(BeforeSending::Crash) => {
                self.note(&[], "the controller is killed between two steps");
                self.crash(host);
                std::future::pending::<()>().await;
            }
            Some(BeforeSending::Freeze(takes)) => self.freeze(host, takes),
            None => {}
        }
        self.freezer.awake(host).await;
    }

    // ---- the machines ---------------------------------------------------------------------------------------------------

    /// The life of one machine: its power, and what it boots. Never ends.
    pub async fn live(self: Arc<Self>, server: Name, answers: Answers) {
        if let Some(machine) = self.state().machines.get_mut(&server) {
            machine.starts.answers = Some(answers.clone());
        }
        loop {
            let Some((wake, next)) = self.due(&server, &answers) else { return };
            let woken = wake.notified();
            match next {
                Some(at) => tokio::select! {
                    biased;
                    () = woken => {}
                    () = sleep_until(self.clock.instant(at)) => {}
                },
                None => woken.await,
            }
        }
    }

    /// Does what is due; when the next thing is.
    fn due(self: &Arc<Self>, server: &Name, answers: &Answers) -> Option<(Arc<Notify>, Option<Tick>)> {
        self.touch(server, |_, _| ())?;
        let now = self.now();
        let mut state = self.state();
        if state.machines.get(server)?.ask_at.is_some_and(|(at, _)| at <= now) {
            self.boot_from_disk(&mut state, server, now);
        }
        let machine = state.machines.get_mut(server)?;
        if let Some((_, again)) = machine.ask_at.filter(|(at, _)| *at <= now) {
            machine.ask_at = None;
            tokio::spawn(Arc::clone(self).ask_what_to_boot(server.clone(), machine.start, again, answers.clone()));
        }
        let next = machine.endpoint.bmc.next().into_iter().chain(machine.ask_at.map(|(at, _)| at)).min();
        // A tick later: ticks round down, and nothing is due before its time.
        Some((Arc::clone(&machine.wake), next.map(|at| at.plus(Duration::from_micros(1)))))
    }

    /// Where it starts from its disk, and there is something on it, nobody is asked.
    fn boot_from_disk(&self, state: &mut State, server: &Name, now: Tick) {
        let State { machines, judge, trace, .. } = state;
        let Some(machine) = machines.get_mut(server) else { return };
        let Some(cause) = machine.from_disk.take() else { return };
        let stands = judge.stands_on_disk(server);
        let Some(persona) = stands.clone().or(machine.disk.take()) else { return };
        (machine.ask_at, machine.disk) = (None, Some(persona.clone()));
        match stands {
            Some(_) => {
                trace.note(now, &[server], format!("runs persona {persona} from its disk"));
                machine.runs = Runs::Persona(persona.clone());
                judge.runs(server, &persona, None);
            }
            None => {
                trace.note(now, &[server], format!("runs persona {persona} from its disk, unasked"));
                machine.runs = Runs::FromDisk(persona.clone());
                judge.strays(server, &persona, cause == Cause::Button);
            }
        }
        if judge.violation.is_some() {
            self.broken.notify_one();
        }
    }
}

fn guid(bmc: &Bmc) -> Option<String> {
    bmc.identity().guid
}

fn drain_bmc(state: &mut State, server: &Name, now: Tick) {
    let State { machines, judge, trace, .. } = state;
    let Some(machine) = machines.get_mut(server) else { return };
    let new: Vec<BmcEvent> = machine.endpoint.bmc.log().skip(machine.events_read).cloned().collect();
    machine.events_read += new.len();
    for event in new {
        match event {
            BmcEvent::Power { power, cause, boot, at } => {
                trace.note(now, &[server], format!("power {power} ({cause:?})"));
                machine.start += 1;
                machine.from_disk = boot.filter(|boot| boot.device == BootDevice::Disk).map(|_| cause);
                match power {
                    Power::On => {
                        machine.runs = Runs::Firmware;
                        machine.ask_at = Some((at.plus(machine.firmware_takes), false));
                    }
                    Power::Off => {
                        machine.runs = Runs::Nothing;
                        (machine.ask_at, machine.starts.has) = (None, None);
                    }
                }
                judge.power(server, power, cause, at);
            }
            BmcEvent::Control { control, at } => {
                trace.note(now, &[server], format!("the BMC hears {control:?}"));
                judge.control(server, control, at);
            }
            BmcEvent::BootFlags { at, .. } => judge.boot_flags(server, at),
        }
        machine.wake.notify_one();
    }
    if machine.endpoint.bmc.next() != machine.next_known {
        machine.next_known = machine.endpoint.bmc.next();
        machine.wake.notify_one();
    }
}

fn drain_switch(state: &mut State, switch: &Name, write: Option<&Write>, now: Tick) {
    let State { hosts: _, switches, judge, trace, machines } = state;
    let Some(rack) = switches.get_mut(switch) else { return };
    for change in rack.sim.log.iter().skip(rack.changes_read) {
        let owner = judge.wired(switch, &change.port);
        let about: Vec<&Name> = owner.iter().chain([switch]).collect();
        trace.note(now, &about, format!("{:?} {} {} → {}", change.who, change.port, change.from, change.to));
        let runs = owner.as_ref().and_then(|o| machines.get(o)).map_or(Runs::Nothing, |m| m.runs.clone());
        judge.port(switch, change, write, &runs, now);
    }
    rack.changes_read = rack.sim.log.len();
}

/// The drivers of this data centre, as one process has them.
pub struct VirtualDevices {
    pub centre: Arc<Centre>,
    pub host: Host,
}

impl Devices for VirtualDevices {
    fn bmc(&self, server: &Name, spec: &ServerSpec, _: BmcLogin, _: Duration, _: Arc<Turns>) -> Box<dyn Driver> {
        let line = self.centre.line(&Device::Bmc(server.clone()));
        let bmc = VirtualBmc::new(Arc::clone(&self.centre), self.host, server.clone(), spec.bmc.address.to_string(), line);
        Box::new(Watched::new(Box::new(bmc), &self.centre, self.host))
    }

    fn switch(&self, switch: &Name, spec: &SwitchSpec, _: SnmpLogin, _: Arc<Turns>) -> Box<dyn Driver> {
        let device = Device::Switch(switch.clone());
        let agent = VirtualAgent::new(Arc::clone(&self.centre), self.host, switch.clone(), self.centre.line(&device));
        let settings = SwitchSettings {
            profile: spec.profile,
            manage: spec.manage.as_ref().map(|m| m.ports.clone()),
            uplinks: spec.uplinks.clone(),
            protected: spec.protected_vlans.clone(),
            create_vlans: spec.vlans == VlanPolicy::Create,
            read_only: spec.maintenance.is_some() || spec.manage.is_none(),
        };
        let driver = SwitchDriver::new(device.to_string(), Box::new(agent), settings);
        Box::new(Watched::new(Box::new(driver), &self.centre, self.host))
    }
}
