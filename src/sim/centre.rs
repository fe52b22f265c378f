//! A whole data centre in virtual time: BMCs with the machines behind them, switches, and the truth of what runs where.
//!
//! A machine that powers on asks the controller what to boot, as its firmware would, and runs that until its power is off; parked, it asks
//! again. Everything that happens goes to the trace and past the checkers (`checkers`). Leaves out: faults by plan (`tests/simulate.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};

use super::bmc::{Bmc, BmcConfig, BmcEvent};
use super::checkers::Judge;
use super::line::{Line, Weather};
use super::switch::SimSwitch;
use super::trace::Trace;
use super::virtual_bmc::VirtualBmc;
use super::virtual_switch::VirtualAgent;
use crate::clock::Clock;
use crate::control::controller::Message;
use crate::drivers::Devices;
use crate::drivers::Driver;
use crate::drivers::credentials::Turns;
use crate::drivers::switch::{SwitchDriver, SwitchSettings};
use crate::model::fact::{Power, Tick};
use crate::model::op::{Device, Op};
use crate::model::secret::{BmcLogin, SnmpLogin};
use crate::model::server::Arch;
use crate::model::switch::VlanPolicy;
use crate::model::{Mac, Name, ServerSpec, SwitchSpec};

/// How long a machine waits for a boot answer, and before it asks again (as the boot script does).
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What truly runs on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    Nothing,
    /// Its firmware, on the way to a boot answer.
    Firmware,
    Parked,
    Persona(Name),
    /// Something of somebody's: it never asked us.
    Foreign,
}

struct Machine {
    bmc: Bmc,
    mac: Mac,
    firmware_takes: Duration,
    runs: Runs,
    /// Counts starts: an answer to an earlier one is nobody's.
    start: u64,
    ask_at: Option<(Tick, bool)>,
    events_read: usize,
    next_known: Option<Tick>,
    reports_off: bool,
    /// It boots what it booted the last time, without a question.
    remembers: Option<Option<Name>>,
    wake: Arc<Notify>,
    line: Line,
}

struct Rack {
    sim: SimSwitch,
    silent_until: Tick,
    changes_read: usize,
    line: Line,
}

pub struct State {
    machines: BTreeMap<Name, Machine>,
    switches: BTreeMap<Name, Rack>,
    pub judge: Judge,
    pub trace: Trace,
}

pub struct Centre {
    clock: Clock,
    state: Mutex<State>,
    /// Somebody kills the controller here and now.
    pub crash: Notify,
    /// A checker spoke.
    pub broken: Notify,
    crashes_before_sending: Mutex<u32>,
}

impl Centre {
    pub fn new(loud: bool) -> Centre {
        let state = State { machines: BTreeMap::new(), switches: BTreeMap::new(), judge: Judge::default(), trace: Trace::new(loud) };
        Centre {
            clock: Clock::start(),
            state: Mutex::new(state),
            crash: Notify::new(),
            broken: Notify::new(),
            crashes_before_sending: Mutex::new(0),
        }
    }

    pub fn now(&self) -> Tick {
        self.clock.now()
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

    // ---- what there is --------------------------------------------------------------------------------------------------

    pub fn add_machine(&self, server: &Name, mac: Mac, config: BmcConfig, firmware_takes: Duration, line: Line) {
        let running = config.power == Power::On;
        let machine = Machine {
            bmc: Bmc::new(config),
            mac,
            firmware_takes,
            runs: if running { Runs::Foreign } else { Runs::Nothing },
            start: 0,
            ask_at: None,
            events_read: 0,
            next_known: None,
            reports_off: false,
            remembers: None,
            wake: Arc::new(Notify::new()),
            line,
        };
        self.state().machines.insert(server.clone(), machine);
        self.judge(|judge, _| judge.found(server, running));
    }

    pub fn add_switch(&self, switch: &Name, sim: SimSwitch, line: Line) {
        self.state().switches.insert(switch.clone(), Rack { sim, silent_until: Tick::START, changes_read: 0, line });
    }

    pub fn set_weather(&self, device: &Device, weather: Weather) {
        let state = self.state();
        match device {
            Device::Bmc(name) => state.machines.get(name).map(|m| m.line.set_weather(weather)),
            Device::Switch(name) => state.switches.get(name).map(|r| r.line.set_weather(weather)),
        };
    }

    pub fn runs(&self, server: &Name) -> Option<Runs> {
        self.state().machines.get(server).map(|m| m.runs.clone())
    }

    pub fn power(&self, server: &Name) -> Option<Power> {
        self.touch(server, |bmc, now| bmc.power(now))
    }

    /// What a person at the console sees of a port.
    pub fn switch<T>(&self, switch: &Name, look: impl FnOnce(&mut SimSwitch) -> T) -> Option<T> {
        let now = self.now();
        let mut state = self.state();
        let rack = state.switches.get_mut(switch)?;
        let out = look(&mut rack.sim);
        drain_switch(&mut state, switch, now);
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

    /// The device lies about power: for the test of the checkers.
    pub fn report_off(&self, server: &Name, lie: bool) {
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.reports_off = lie;
        }
    }

    /// The machine boots what it booted the last time, whatever it is answered: for the test of the checkers.
    pub fn boot_from_memory(&self, server: &Name) {
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.remembers = Some(None);
        }
    }

    /// The controller is killed when it is about to send the next operation.
    pub fn crash_at_next_op(&self) {
        *self.crashes_before_sending.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub fn no_more_crashes(&self) {
        *self.crashes_before_sending.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    // ---- the endpoints ------------------------------------------------------------------------------------------------------

    /// Whatever happens to a BMC, or is asked of it as by a person who stands there.
    pub fn touch<T>(&self, server: &Name, what: impl FnOnce(&mut Bmc, Tick) -> T) -> Option<T> {
        let now = self.now();
        let mut state = self.state();
        let machine = state.machines.get_mut(server)?;
        machine.bmc.settle(now);
        let out = what(&mut machine.bmc, now);
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

    pub fn with_agent<T>(&self, switch: &Name, what: impl FnOnce(&mut SimSwitch) -> T) -> Option<T> {
        if self.state().switches.get(switch)?.silent_until > self.now() {
            return None;
        }
        self.switch(switch, what)
    }

    pub fn reported_power(&self, server: &Name, power: Power) -> Power {
        if self.state().machines.get(server).is_some_and(|m| m.reports_off) { Power::Off } else { power }
    }

    pub fn observed(&self, server: &Name, asked_at: Tick, power: Power) {
        self.judge(|judge, _| judge.observed(server, asked_at, power));
    }

    /// A change leaves: called inside the gate.
    pub fn sending(&self, server: &Name, op: &Op) {
        self.note(&[server], format!("op {op}"));
        self.judge(|judge, now| judge.sending(server, op, now));
    }

    /// A change is about to leave: here the controller may be killed.
    pub async fn before_sending(&self) {
        let crash = {
            let mut left = self.crashes_before_sending.lock().unwrap_or_else(PoisonError::into_inner);
            let crash = *left > 0;
            *left = left.saturating_sub(1);
            crash
        };
        if crash {
            self.note(&[], "the controller is killed between two steps");
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
    }

    // ---- the machines ---------------------------------------------------------------------------------------------------

    /// The life of one machine: its power, and what it boots. Never ends.
    pub async fn live(self: Arc<Self>, server: Name, controller: watch::Receiver<Option<mpsc::Sender<Message>>>) {
        loop {
            let Some((wake, next)) = self.due(&server, &controller) else { return };
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
    fn due(
        self: &Arc<Self>,
        server: &Name,
        controller: &watch::Receiver<Option<mpsc::Sender<Message>>>,
    ) -> Option<(Arc<Notify>, Option<Tick>)> {
        self.touch(server, |_, _| ())?;
        let now = self.now();
        let mut state = self.state();
        let machine = state.machines.get_mut(server)?;
        if let Some((_, again)) = machine.ask_at.filter(|(at, _)| *at <= now) {
            machine.ask_at = None;
            let (start, mac) = (machine.start, machine.mac);
            tokio::spawn(Arc::clone(self).ask_what_to_boot(server.clone(), mac, start, again, controller.clone()));
        }
        let next = machine.bmc.next().into_iter().chain(machine.ask_at.map(|(at, _)| at)).min();
        // A tick later: ticks round down, and nothing is due before its time.
        Some((Arc::clone(&machine.wake), next.map(|at| at.plus(Duration::from_micros(1)))))
    }

    async fn ask_what_to_boot(
        self: Arc<Self>,
        server: Name,
        mac: Mac,
        start: u64,
        again: bool,
        controller: watch::Receiver<Option<mpsc::Sender<Message>>>,
    ) {
        let to_controller = controller.borrow().clone();
        let says = match to_controller {
            None => None,
            Some(to_controller) => {
                let (reply, answer) = oneshot::channel();
                let sent = to_controller.send(Message::Boot { mac, uuid: None, arch: Arch::X86_64, reply }).await;
                match sent {
                    Ok(()) => timeout(ANSWER_WAIT, answer).await.ok().and_then(Result::ok).map(|answer| answer.says),
                    Err(_) => None,
                }
            }
        };
        self.booted(&server, start, again, says);
    }

    fn booted(&self, server: &Name, start: u64, again: bool, says: Option<String>) {
        let now = self.now();
        let mut state = self.state();
        let Some(machine) = state.machines.get_mut(server) else { return };
        if machine.start != start || matches!(machine.runs, Runs::Nothing) {
            return;
        }
        machine.wake.notify_one();
        let persona = says.as_deref().and_then(|s| s.strip_prefix("persona ")).and_then(|s| s.split(' ').next()?.parse::<Name>().ok());
        let persona = match &mut machine.remembers {
            Some(last) => {
                *last = persona.or_else(|| last.take());
                last.clone()
            }
            None => persona,
        };
        let text = match (&persona, &says) {
            (Some(persona), _) => {
                machine.runs = Runs::Persona(persona.clone());
                format!("runs persona {persona}")
            }
            (None, Some(says)) => {
                machine.runs = Runs::Parked;
                machine.ask_at = Some((now.plus(ASK_AGAIN), true));
                format!("is {says}")
            }
            (None, None) => {
                machine.ask_at = Some((now.plus(ASK_AGAIN), again));
                "gets no boot answer".to_owned()
            }
        };
        state.trace.note(now, &[server], text);
        if let Some(persona) = persona {
            state.judge.runs(server, Some(&persona), now);
        }
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
    }
}

fn drain_bmc(state: &mut State, server: &Name, now: Tick) {
    let State { machines, judge, trace, .. } = state;
    let Some(machine) = machines.get_mut(server) else { return };
    let new: Vec<BmcEvent> = machine.bmc.log().skip(machine.events_read).cloned().collect();
    machine.events_read += new.len();
    for event in new {
        match event {
            BmcEvent::Power { power, cause, at, .. } => {
                trace.note(now, &[server], format!("power {power} ({cause:?})"));
                machine.start += 1;
                match power {
                    Power::On => {
                        machine.runs = Runs::Firmware;
                        machine.ask_at = Some((at.plus(machine.firmware_takes), false));
                    }
                    Power::Off => {
                        machine.runs = Runs::Nothing;
                        machine.ask_at = None;
                    }
                }
                judge.power(server, power, at);
            }
            BmcEvent::Control { control, at } => {
                trace.note(now, &[server], format!("the BMC hears {control:?}"));
                judge.control(server, control, at);
            }
            BmcEvent::BootFlags { at, .. } => judge.boot_flags(server, at),
        }
        machine.wake.notify_one();
    }
    if machine.bmc.next() != machine.next_known {
        machine.next_known = machine.bmc.next();
        machine.wake.notify_one();
    }
}

fn drain_switch(state: &mut State, switch: &Name, now: Tick) {
    let State { switches, judge, trace, machines } = state;
    let Some(rack) = switches.get_mut(switch) else { return };
    for change in rack.sim.log.iter().skip(rack.changes_read) {
        let owner = judge.wired(switch, &change.port);
        let about: Vec<&Name> = owner.iter().chain([switch]).collect();
        trace.note(now, &about, format!("{:?} {} {} → {}", change.who, change.port, change.from, change.to));
        let runs = owner.as_ref().and_then(|o| machines.get(o)).map_or(Runs::Nothing, |m| m.runs.clone());
        judge.port(switch, change, &runs, now);
    }
    rack.changes_read = rack.sim.log.len();
}

/// The drivers of this data centre.
pub struct VirtualDevices(pub Arc<Centre>);

impl VirtualDevices {
    fn line(&self, device: &Device) -> Line {
        let state = self.0.state();
        let line = match device {
            Device::Bmc(name) => state.machines.get(name).map(|m| m.line.clone()),
            Device::Switch(name) => state.switches.get(name).map(|r| r.line.clone()),
        };
        line.unwrap_or_else(|| Line::new(0))
    }
}

impl Devices for VirtualDevices {
    fn bmc(&self, server: &Name, spec: &ServerSpec, _: BmcLogin, _: Duration, _: Arc<Turns>) -> Box<dyn Driver> {
        let line = self.line(&Device::Bmc(server.clone()));
        Box::new(VirtualBmc::new(Arc::clone(&self.0), server.clone(), spec.bmc.address.to_string(), line))
    }

    fn switch(&self, switch: &Name, spec: &SwitchSpec, _: SnmpLogin, _: Arc<Turns>) -> Box<dyn Driver> {
        let device = Device::Switch(switch.clone());
        let agent = VirtualAgent::new(Arc::clone(&self.0), switch.clone(), self.line(&device));
        let settings = SwitchSettings {
            profile: spec.profile,
            manage: spec.manage.as_ref().map(|m| m.ports.clone()),
            uplinks: spec.uplinks.clone(),
            protected: spec.protected_vlans.clone(),
            create_vlans: spec.vlans == VlanPolicy::Create,
            read_only: spec.maintenance.is_some() || spec.manage.is_none(),
        };
        Box::new(SwitchDriver::new(device.to_string(), Box::new(agent), settings))
    }
}
