//! One simulated BMC and the server behind it: power, boot flags, identity, users, and the ways in which real ones misbehave.
//!
//! A state machine without clock, I/O or randomness: whoever calls says what time it is. Leaves out packets and sessions (`rmcp`); `command`
//! takes IPMI messages, the methods behind it serve a endpoint in virtual time. Truth is in `power` and `log`: what was received and what
//! happened, for checkers. Shown by the tests below and by ipmitool and FreeIPMI in `tests/ipmi.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::drivers::bmc::ipmi::commands::{self, ChassisControl};
use crate::model::fact::{BmcIdentity, BootDevice, BootOverride, Power, Tick};

/// Events kept; the oldest go first.
const LOG: usize = 4096;
/// Boot flags lose their valid bit after this, unless parameter 3 says no (IPMI 2.0, table 28-14).
const FLAGS_VALID: Duration = Duration::from_secs(60);
/// Parameter 3, bit 3: the 60 seconds do not clear the flags.
const KEEP_ON_TIMEOUT: u8 = 0x08;

/// Privilege levels (IPMI 2.0, table 6-8).
pub(crate) const USER: u8 = 2;
pub const OPERATOR: u8 = 3;
pub const ADMINISTRATOR: u8 = 4;

#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub password: String,
    /// The highest level.
    pub level: u8,
}

/// What an operating system does about ACPI's soft-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftOff {
    TakesEffectAfter(Duration),
    Ignored,
}

/// How boot flags are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootLie {
    /// Reads give the device without the bits for valid, persistent and EFI, as ipmi_sim does.
    LosesBits,
    /// Reads give "no override".
    ReadsEmpty,
    /// Writes are acknowledged and not done.
    ForgetsWrites,
    /// It has no boot options: invalid command (C1h).
    Refuses,
}

#[derive(Debug, Clone)]
pub struct BmcConfig {
    pub manufacturer_id: u32,
    pub product_id: u16,
    /// Major, minor.
    pub firmware: (u8, u8),
    pub guid: [u8; 16],
    pub users: Vec<User>,
    pub kg: Option<[u8; 20]>,
    /// The cipher suites that it has.
    pub suites: Vec<u8>,
    pub sessions: usize,
    /// A session without a request ends after this.
    pub session_idle: Duration,
    pub on_takes: Duration,
    pub off_takes: Duration,
    pub soft_off: SoftOff,
    pub power: Power,
}

impl Default for BmcConfig {
    fn default() -> Self {
        BmcConfig {
            manufacturer_id: 0x1291,
            product_id: 0x0f02,
            firmware: (1, 8),
            guid: [0x11; 16],
            users: vec![User { name: "admin".into(), password: "admin".into(), level: ADMINISTRATOR }],
            kg: None,
            suites: vec![3, 17],
            sessions: 4,
            session_idle: Duration::from_secs(60),
            on_takes: Duration::from_secs(2),
            off_takes: Duration::from_secs(1),
            soft_off: SoftOff::TakesEffectAfter(Duration::from_secs(20)),
            power: Power::Off,
        }
    }
}

/// What can be done to it from outside. Each holds until its time, where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BmcFault {
    /// Silent, and all sessions lost; the server is not touched.
    Reboot {
        takes: Duration,
    },
    /// No packet gets through; nothing is lost.
    Unplugged {
        until: Tick,
    },
    /// Chassis controls are acknowledged and not done.
    AckOnly {
        until: Tick,
    },
    /// Chassis controls take effect this much later than usual.
    Late {
        by: Duration,
        until: Tick,
    },
    /// Every command is answered with this completion code (C0h, C3h, D2h).
    Busy {
        code: u8,
        until: Tick,
    },
    Boot {
        lie: BootLie,
        until: Tick,
    },
}

/// Chassis Control as received: also those that embody never sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Off,
    On,
    Cycle,
    Reset,
    Soft,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Command,
    SoftOff,
    Button,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcEvent {
    /// A chassis control arrived, whatever came of it.
    Control {
        control: Control,
        at: Tick,
    },
    /// The power changed. At a start: what the firmware was told to boot from, if anything.
    Power {
        power: Power,
        cause: Cause,
        boot: Option<BootOverride>,
        at: Tick,
    },
    BootFlags {
        flags: [u8; 2],
        at: Tick,
    },
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    at: Tick,
    power: Power,
    cause: Cause,
    /// A cycle: on again after this.
    then_on: Option<Duration>,
}

pub struct Bmc {
    pub config: BmcConfig,
    power: Power,
    pending: Option<Pending>,
    /// Parameter 5, bytes 1 and 2.
    flags: [u8; 2],
    flags_set_at: Option<Tick>,
    keep: u8,
    in_progress: u8,
    faults: Vec<BmcFault>,
    silent_until: Tick,
    reboots: u32,
    /// So many answers about power say Off, whatever is so.
    pub off_lies: u32,
    log: VecDeque<BmcEvent>,
}

impl Bmc {
    pub fn new(config: BmcConfig) -> Bmc {
        Bmc {
            power: config.power,
            config,
            pending: None,
            flags: [0; 2],
            flags_set_at: None,
            keep: 0,
            in_progress: 0,
            faults: Vec::new(),
            silent_until: Tick::START,
            reboots: 0,
            off_lies: 0,
            log: VecDeque::new(),
        }
    }

    /// The truth, not what the BMC says.
    pub fn power(&mut self, now: Tick) -> Power {
        self.settle(now);
        self.power
    }

    /// The boot flags as they are, not as they read.
    pub fn boot(&mut self, now: Tick) -> BootOverride {
        self.settle(now);
        commands::flags_of(self.flags)
    }

    pub fn log(&self) -> impl Iterator<Item = &BmcEvent> {
        self.log.iter()
    }

    /// Sessions of before a reboot are gone: each reboot counts one up.
    pub fn reboots(&self) -> u32 {
        self.reboots
    }

    /// Whether it hears anything.
    pub fn reachable(&mut self, now: Tick) -> bool {
        self.settle(now);
        now >= self.silent_until
    }

    /// Its plug is pulled: what was under way does not come about.
    pub fn unplug(&mut self, until: Tick, now: Tick) {
        self.settle(now);
        self.pending = None;
        self.inject(BmcFault::Unplugged { until }, now);
    }

    pub fn inject(&mut self, fault: BmcFault, now: Tick) {
        self.settle(now);
        match fault {
            BmcFault::Reboot { takes } => {
                self.reboots += 1;
                self.silent_until = self.silent_until.max(now.plus(takes));
            }
            BmcFault::Unplugged { until } => self.silent_until = self.silent_until.max(until),
            BmcFault::AckOnly { .. } | BmcFault::Late { .. } | BmcFault::Busy { .. } | BmcFault::Boot { .. } => self.faults.push(fault),
        }
    }

    /// All faults end.
    pub fn heal(&mut self, now: Tick) {
        self.settle(now);
        self.faults.clear();
        self.silent_until = now.min(self.silent_until);
    }

    /// A person at the front panel: on when it is off, and a hard off when it is on (held for four seconds).
    pub fn press_button(&mut self, now: Tick) {
        self.settle(now);
        self.pending = None;
        let power = match self.power {
            Power::On => Power::Off,
            Power::Off => Power::On,
        };
        self.change(power, Cause::Button, now);
    }

    /// A person at the console has it start from its disk from now on.
    pub fn choose_disk(&mut self, now: Tick) {
        self.settle(now);
        let disk = BootOverride { valid: true, persistent: true, efi: true, device: BootDevice::Disk };
        (self.flags, self.flags_set_at) = (commands::flag_bytes(disk), None);
    }

    /// Another BMC in its place, in front of the same machine: it shows this GUID, knows no session, and nothing of boot flags.
    pub fn swap(&mut self, guid: [u8; 16], now: Tick) {
        self.show(guid, now);
        (self.flags, self.flags_set_at, self.pending) = ([0; 2], None, None);
    }

    /// It shows this GUID from now on, as after an update of its firmware: it knows no session.
    pub fn show(&mut self, guid: [u8; 16], now: Tick) {
        self.settle(now);
        self.config.guid = guid;
        self.reboots += 1;
    }

    /// When something will happen by itself, if anything will: for a clock that jumps.
    pub fn next(&self) -> Option<Tick> {
        self.pending.map(|p| p.at)
    }

    /// Brings about what is due.
    pub fn settle(&mut self, now: Tick) {
        while let Some(due) = self.pending.filter(|p| p.at <= now) {
            self.pending = due.then_on.map(|after| Pending { at: due.at.plus(after), power: Power::On, cause: due.cause, then_on: None });
            if self.power != due.power {
                self.change(due.power, due.cause, due.at);
            }
        }
        if self.flags_set_at.is_some_and(|at| now.since(at) >= FLAGS_VALID) {
            self.flags_set_at = None;
            self.flags[0] &= !0x80;
        }
        self.faults.retain(|fault| match fault {
            BmcFault::AckOnly { until } | BmcFault::Late { until, .. } | BmcFault::Busy { until, .. } | BmcFault::Boot { until, .. } => {
                now < *until
            }
            BmcFault::Reboot { .. } | BmcFault::Unplugged { .. } => false,
        });
    }

    fn change(&mut self, power: Power, cause: Cause, at: Tick) {
        self.power = power;
        let mut boot = None;
        if power == Power::On {
            let flags = commands::flags_of(self.flags);
            boot = flags.valid.then_some(flags);
            if flags.valid && !flags.persistent {
                // For the next boot only: this was it.
                self.flags = [0; 2];
                self.flags_set_at = None;
            }
        }
        self.note(BmcEvent::Power { power, cause, boot, at });
    }

    fn note(&mut self, event: BmcEvent) {
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(event);
    }

    // ---- commands -------------------------------------------------------------------------------------------------------

    /// With which completion code every command is answered now, if it is busy.
    pub fn busy(&mut self, now: Tick) -> Option<u8> {
        self.settle(now);
        self.faults.iter().find_map(|f| if let BmcFault::Busy { code, .. } = f { Some(*code) } else { None })
    }

    /// What a driver reads of who it is, for a endpoint without packets.
    pub fn identity(&self) -> BmcIdentity {
        let (major, minor) = self.config.firmware;
        let guid = Some(self.config.guid).filter(|g| *g != [0; 16] && *g != [0xff; 16]);
        BmcIdentity {
            guid: guid.map(|g| g.iter().map(|b| format!("{b:02x}")).collect()),
            manufacturer_id: self.config.manufacturer_id,
            product_id: self.config.product_id,
            firmware: format!("{major}.{minor:02}"),
            ipmi_version: "2.0".to_owned(),
        }
    }

    /// Parameter 3, then 5, as the driver sends them, for a endpoint without packets.
    pub fn set_boot(&mut self, want: BootOverride, now: Tick) -> u8 {
        self.settle(now);
        self.keep |= KEEP_ON_TIMEOUT;
        let [flags, device] = commands::flag_bytes(want);
        self.set_boot_option(&[0x05, flags, device, 0, 0, 0], now)
    }

    /// A command from a session at this privilege level: completion code and data. `netfn` is the request's.
    pub fn command(&mut self, level: u8, netfn: u8, cmd: u8, data: &[u8], now: Tick) -> Vec<u8> {
        if let Some(code) = self.busy(now) {
            return vec![code];
        }
        // The least level: IPMI 2.0, table G-1.
        let needs = match (netfn, cmd) {
            (0x00, 0x02 | 0x08 | 0x09) => OPERATOR,
            (0x00, 0x01) | (0x06, 0x01 | 0x37) => USER,
            _ => return vec![0xc1],
        };
        if level < needs {
            return vec![0xd4];
        }
        match (netfn, cmd) {
            (0x00, 0x01) => {
                let lies = self.off_lies > 0;
                self.off_lies = self.off_lies.saturating_sub(1);
                vec![0, u8::from(self.power == Power::On && !lies), 0, 0]
            }
            (0x00, 0x02) => vec![self.control_byte(data, now)],
            (0x00, 0x08 | 0x09) if self.lie() == Some(BootLie::Refuses) => vec![0xc1],
            (0x00, 0x08) => vec![self.set_boot_option(data, now)],
            (0x00, 0x09) => self.boot_option(data),
            (0x06, 0x01) => self.device_id(),
            (0x06, 0x37) => [&[0][..], &self.config.guid].concat(),
            _ => vec![0xc1],
        }
    }

    fn device_id(&self) -> Vec<u8> {
        let (major, minor) = self.config.firmware;
        let bcd = ((minor / 10 % 10) << 4) | (minor % 10);
        let [m0, m1, m2, _] = self.config.manufacturer_id.to_le_bytes();
        let [p0, p1] = self.config.product_id.to_le_bytes();
        // Device 20h, revision 1, IPMI 2.0, a chassis device that has SEL and SDR.
        vec![0, 0x20, 0x01, major & 0x7f, bcd, 0x02, 0x8f, m0, m1, m2, p0, p1]
    }

    fn control_byte(&mut self, data: &[u8], now: Tick) -> u8 {
        let control = match data {
            [byte, ..] => match byte & 0x0f {
                0 => Control::Off,
                1 => Control::On,
                2 => Control::Cycle,
                3 => Control::Reset,
                5 => Control::Soft,
                _ => return 0xcc,
            },
            [] => return 0xc7,
        };
        self.control(control, now)
    }

    /// One of the controls that the driver knows, for a endpoint without packets.
    pub fn chassis_control(&mut self, control: ChassisControl, now: Tick) -> u8 {
        self.settle(now);
        self.control(
            match control {
                ChassisControl::PowerDown => Control::Off,
                ChassisControl::PowerUp => Control::On,
                ChassisControl::SoftShutdown => Control::Soft,
            },
            now,
        )
    }

    fn control(&mut self, control: Control, now: Tick) -> u8 {
        self.note(BmcEvent::Control { control, at: now });
        // A chassis control within the 60 seconds keeps the flags.
        self.flags_set_at = None;
        if self.faults.iter().any(|f| matches!(f, BmcFault::AckOnly { .. })) {
            return 0;
        }
        let late = self.faults.iter().find_map(|f| if let BmcFault::Late { by, .. } = f { Some(*by) } else { None }).unwrap_or_default();
        let (on, off) = (self.config.on_takes, self.config.off_takes);
        let pending = |after, power, cause, then_on| Some(Pending { at: now.plus(late).plus(after), power, cause, then_on });
        match (control, self.power) {
            (Control::On, Power::Off) => self.pending = pending(on, Power::On, Cause::Command, None),
            (Control::Off, Power::On) => self.pending = pending(off, Power::Off, Cause::Command, None),
            // It may be on its way to the other state.
            (Control::On, Power::On) | (Control::Off, Power::Off) => self.pending = None,
            (Control::Cycle, Power::On) => self.pending = pending(off, Power::Off, Cause::Command, Some(on)),
            (Control::Soft, Power::On) => {
                if let SoftOff::TakesEffectAfter(takes) = self.config.soft_off {
                    self.pending = pending(takes, Power::Off, Cause::SoftOff, None);
                }
            }
            (Control::Reset, Power::On) => {}
            (Control::Cycle | Control::Soft | Control::Reset, Power::Off) => return 0xd5,
        }
        self.settle(now);
        0
    }

    fn lie(&self) -> Option<BootLie> {
        self.faults.iter().find_map(|f| if let BmcFault::Boot { lie, .. } = f { Some(*lie) } else { None })
    }

    fn flags_as_read(&self) -> [u8; 2] {
        match self.lie() {
            Some(BootLie::LosesBits) => [0, self.flags[1]],
            Some(BootLie::ReadsEmpty) => [0, 0],
            Some(BootLie::ForgetsWrites | BootLie::Refuses) | None => self.flags,
        }
    }

    fn set_boot_option(&mut self, data: &[u8], now: Tick) -> u8 {
        let [parameter, rest @ ..] = data else { return 0xc7 };
        match (parameter & 0x7f, rest) {
            (0, [value, ..]) => {
                if *value == 1 && self.in_progress == 1 {
                    return 0x81;
                }
                self.in_progress = value & 3;
            }
            (3, [keep, ..]) => self.keep = *keep,
            (4, [_mask, _data, ..]) => {}
            (5, [flags, device, _, _, _, ..]) => {
                if self.lie() != Some(BootLie::ForgetsWrites) {
                    self.flags = [*flags, *device];
                    let expires = flags & 0x80 != 0 && self.keep & KEEP_ON_TIMEOUT == 0;
                    self.flags_set_at = expires.then_some(now);
                }
                self.note(BmcEvent::BootFlags { flags: [*flags, *device], at: now });
            }
            (0 | 3..=5, _) => return 0xc7,
            // Parameter not supported (IPMI 2.0, 28.12).
            _ => return 0x80,
        }
        0
    }

    fn boot_option(&self, data: &[u8]) -> Vec<u8> {
        let [parameter, ..] = data else { return vec![0xc7] };
        let parameter = parameter & 0x7f;
        let value = match parameter {
            0 => vec![self.in_progress],
            3 => vec![self.keep],
            4 => vec![0, 0],
            5 => {
                let [flags, device] = self.flags_as_read();
                vec![flags, device, 0, 0, 0]
            }
            _ => return vec![0x80],
        };
        [&[0, 0x01, parameter][..], &value].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick(seconds * 1_000_000)
    }

    #[test]
    fn power_takes_its_time_and_the_log_tells() {
        let mut bmc = Bmc::new(BmcConfig::default());
        assert_eq!(bmc.command(USER, 0, 2, &[1], at(1)), [0xd4]);
        assert_eq!(bmc.command(OPERATOR, 0, 2, &[1], at(1)), [0]);
        assert_eq!((bmc.power(at(2)), bmc.power(at(3))), (Power::Off, Power::On));
        assert_eq!(bmc.command(OPERATOR, 0, 2, &[5], at(4)), [0]);
        assert_eq!((bmc.power(at(23)), bmc.power(at(24))), (Power::On, Power::Off));
        assert_eq!(bmc.command(OPERATOR, 0, 2, &[5], at(25)), [0xd5]);
        bmc.press_button(at(26));
        assert_eq!(bmc.command(USER, 0, 1, &[], at(26))[1], 1);
        let changes: Vec<_> =
            bmc.log().filter_map(|e| if let BmcEvent::Power { power, cause, .. } = e { Some((*power, *cause)) } else { None }).collect();
        assert_eq!(changes, [(Power::On, Cause::Command), (Power::Off, Cause::SoftOff), (Power::On, Cause::Button)]);
    }

    #[test]
    fn boot_flags_expire_or_are_used_up_unless_told_otherwise() {
        let mut bmc = Bmc::new(BmcConfig::default());
        let set = |bmc: &mut Bmc, flags, now| assert_eq!(bmc.command(OPERATOR, 0, 8, &[5, flags, 4, 0, 0, 0], now), [0]);
        set(&mut bmc, 0xe0, at(0));
        assert!(bmc.boot(at(59)).valid && !bmc.boot(at(60)).valid);
        assert_eq!(bmc.command(OPERATOR, 0, 8, &[3, 8], at(61)), [0]);
        set(&mut bmc, 0xa0, at(61));
        assert!(bmc.boot(at(600)).valid);
        bmc.press_button(at(601));
        assert_eq!(bmc.boot(at(601)).device, BootDevice::None);
        bmc.press_button(at(602));
        set(&mut bmc, 0xe0, at(603));
        bmc.press_button(at(604));
        assert_eq!(bmc.boot(at(605)), BootOverride { valid: true, persistent: true, efi: true, device: BootDevice::Pxe });
        let boots = bmc.log().filter(|e| matches!(e, BmcEvent::Power { power: Power::On, boot: Some(_), .. })).count();
        assert_eq!(boots, 2);
    }

    #[test]
    fn faults_hold_for_their_time() {
        let mut bmc = Bmc::new(BmcConfig::default());
        bmc.inject(BmcFault::AckOnly { until: at(10) }, at(0));
        assert_eq!(bmc.command(OPERATOR, 0, 2, &[1], at(1)), [0]);
        assert_eq!(bmc.power(at(9)), Power::Off);
        bmc.inject(BmcFault::Late { by: Duration::from_secs(30), until: at(20) }, at(10));
        assert_eq!(bmc.command(OPERATOR, 0, 2, &[1], at(11)), [0]);
        assert_eq!((bmc.power(at(42)), bmc.power(at(43))), (Power::Off, Power::On));
        bmc.inject(BmcFault::Busy { code: 0xc0, until: at(50) }, at(43));
        assert_eq!(bmc.command(USER, 0, 1, &[], at(44)), [0xc0]);
        assert_eq!(bmc.command(USER, 0, 1, &[], at(50)), [0, 1, 0, 0]);
        bmc.inject(BmcFault::Reboot { takes: Duration::from_secs(5) }, at(50));
        assert!(!bmc.reachable(at(54)) && bmc.reachable(at(55)));
        assert_eq!(bmc.reboots(), 1);
    }
}
