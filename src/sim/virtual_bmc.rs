//! The virtual-time endpoint of a simulated BMC: a `Driver` without packets, over a line that delays, loses and delivers late.
//!
//! It tries as the real driver does: reads are asked again within the deadline; before a change the gate, who answers and the power, in what
//! stands for a session; a switching-off once, a switching-on up to three times. What changes anything leaves inside the gate, and there the
//! checkers hear of it. Leaves out: packets and credentials (`rmcp`). Invariant: a change without a reply is `Unknown`, never done or failed.
//! Shown by `tests/simulate.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::bmc::{Bmc, OPERATOR};
use super::centre::Centre;
use super::checkers::Host;
use super::line::{Line, NoReply};
use crate::drivers::bmc::ipmi::commands::{self, ChassisControl};
use crate::drivers::bmc::ipmi::preview;
use crate::drivers::gate::{Closed, Freshness, Permit};
use crate::drivers::{Depth, Driver, Fault, Notes, Observation};
use crate::model::Name;
use crate::model::fact::{BmcIdentity, BmcSeen, BootDevice, BootOverride, Power, Tick};
use crate::model::identity::{Identity, Sameness};
use crate::model::op::{Device, Off, Op};

/// How long one copy of a read is waited for, of a switching-on, and of a change that is sent only once (as `drivers::bmc::ipmi`).
const READ_WAIT: Duration = Duration::from_secs(5);
const ON_WAIT: Duration = Duration::from_secs(2);
const ONCE_WAIT: Duration = Duration::from_secs(10);
const ON_COPIES: u32 = 3;
/// Questions before a change, until the session counts as gone.
const ASKED: u32 = 2;
const STATUS: &str = "Get Chassis Status";
const SET_BOOT: &str = "Set System Boot Options";

pub(crate) struct VirtualBmc {
    centre: Arc<Centre>,
    /// The process that this endpoint is a part of.
    host: Host,
    server: Name,
    address: String,
    line: Line,
    identity: Option<BmcIdentity>,
    boot: Option<BootOverride>,
}

/// What stands for a session: with whom, and since which of its restarts. Another BMC does not know it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Session {
    guid: [u8; 16],
    reboots: u32,
}

impl Session {
    fn with(bmc: &Bmc) -> Session {
        Session { guid: bmc.config.guid, reboots: bmc.reboots() }
    }
}

/// The power directly before a change, who told it, and for how long that holds.
struct Before {
    session: Session,
    power: Power,
    fresh: Freshness,
}

impl VirtualBmc {
    pub(crate) fn new(centre: Arc<Centre>, host: Host, server: Name, address: String, line: Line) -> VirtualBmc {
        VirtualBmc { centre, host, server, address, line, identity: None, boot: None }
    }

    fn device(&self) -> String {
        Device::Bmc(self.server.clone()).to_string()
    }

    async fn once<T: Send + 'static>(
        &self,
        wait: Duration,
        until: Instant,
        what: impl FnOnce(&mut Bmc, Tick) -> T + Send + 'static,
    ) -> Result<T, NoReply> {
        let (centre, server) = (Arc::clone(&self.centre), self.server.clone());
        self.centre.freezer.awake(self.host).await;
        let patience = wait.min(until.saturating_duration_since(Instant::now()));
        let said = self.line.ask(patience, move || centre.with_bmc(&server, what)).await;
        self.centre.freezer.awake(self.host).await;
        said
    }

    /// Asked again until the deadline.
    async fn read<T: Send + 'static>(
        &self,
        until: Instant,
        what: impl FnOnce(&mut Bmc, Tick) -> T + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        let begun = Instant::now();
        let mut attempts = 0;
        while Instant::now() < until {
            attempts += 1;
            if let Ok(said) = self.once(READ_WAIT, until, what.clone()).await {
                return Ok(said);
            }
        }
        Err(Fault::Silent { device: self.device(), attempts, waited: begun.elapsed() })
    }

    fn understood(&self, what: &str, answer: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let device = self.device();
        match answer.first().copied() {
            Some(0) => Ok(answer),
            Some(code @ (0xc0 | 0xc3 | 0xc4 | 0xd0..=0xd2)) => Err(Fault::Busy { device, code: commands::words(code) }),
            Some(code) => Err(Fault::Refused { device, what: what.to_owned(), code: commands::words(code) }),
            None => Err(Fault::Garbled { device, why: format!("{what}: no data") }),
        }
    }

    fn power_of(answer: &[u8]) -> Power {
        if answer.get(1).is_some_and(|state| state & 1 == 1) { Power::On } else { Power::Off }
    }

    fn shown(&self, session: Session) -> Identity {
        let guid = Some(session.guid).filter(|g| *g != [0; 16] && *g != [0xff; 16]);
        let guid = guid.map(|g| g.iter().map(|b| format!("{b:02x}")).collect());
        Identity { guid, address: Some(self.centre.looked_up(&self.address)), ..Identity::default() }
    }

    // ---- changes --------------------------------------------------------------------------------------------------------

    fn not_sent(&self, what: &str, why: String) -> Fault {
        Fault::NotSent { device: self.device(), what: what.to_owned(), why }
    }

    fn unknown(&self, what: &str) -> Fault {
        Fault::Unknown { device: self.device(), what: what.to_owned() }
    }

    /// What comes before any change. `session`: where a copy has left already, in that session and no other one.
    async fn before(&self, what: &str, permit: &Permit, until: Instant, session: Option<Session>) -> Result<Before, Fault> {
        permit.check().map_err(|closed| self.not_sent(what, closed.to_string()))?;
        for _ in 0..ASKED {
            let (asked_at, begun) = (permit.now(), Instant::now());
            let status = |bmc: &mut Bmc, now: Tick| (Session::with(bmc), bmc.command(OPERATOR, 0, 0x01, &[], now));
            let Ok((told_by, answer)) = self.once(READ_WAIT, until, status).await else { continue };
            if session.is_some_and(|session| session != told_by) {
                // Whoever answers there now does not know the session.
                continue;
            }
            self.is_meant(what, permit, told_by)?;
            let answer = match self.understood(STATUS, answer) {
                Ok(answer) => answer,
                Err(busy @ Fault::Busy { .. }) => return Err(busy),
                Err(other) => return Err(self.not_sent(what, other.to_string())),
            };
            let fresh = Freshness::within(asked_at, begun.elapsed());
            return Ok(Before { session: told_by, power: Self::power_of(&answer), fresh });
        }
        Err(Fault::Silent { device: self.device(), attempts: ASKED, waited: READ_WAIT * ASKED })
    }

    fn is_meant(&self, what: &str, permit: &Permit, session: Session) -> Result<(), Fault> {
        match permit.pinned.compare(&self.shown(session)) {
            Sameness::Same => Ok(()),
            Sameness::Different { pinned, shown } => Err(Fault::OtherDevice { device: self.device(), expected: pinned, found: shown }),
            Sameness::NotTold => Err(self.not_sent(what, "nothing is pinned, or it does not tell who it is".to_owned())),
        }
    }

    /// One datagram that changes something: it leaves inside the gate, or not at all.
    async fn change(
        &self,
        op: &Op,
        permit: &Permit,
        (session, fresh): (Session, Option<Freshness>),
        patience: Duration,
        what: impl FnOnce(&mut Bmc, Tick) -> Vec<u8> + Send + 'static,
    ) -> Result<Result<Vec<u8>, NoReply>, Closed> {
        self.centre.before_sending(self.host).await;
        let (centre, server) = (Arc::clone(&self.centre), self.server.clone());
        let arrives = move || centre.with_bmc(&server, |bmc, now| (Session::with(bmc) == session).then(|| what(bmc, now)))?;
        let reply = permit.pass(fresh, false, || {
            self.centre.sending(self.host, &self.server, op);
            self.line.send(arrives)
        })?;
        let said = reply.within(patience).await;
        self.centre.freezer.awake(self.host).await;
        Ok(said)
    }

    async fn control(&self, op: &Op, control: ChassisControl, permit: &Permit, until: Instant) -> Result<Notes, Fault> {
        let what = control.name();
        let (wanted, copies, wait) = match control {
            ChassisControl::PowerUp => (Power::On, ON_COPIES, ON_WAIT),
            ChassisControl::PowerDown | ChassisControl::SoftShutdown => (Power::Off, 1, ONCE_WAIT),
        };
        let mut session = None;
        for _ in 0..copies {
            let before = match (self.before(what, permit, until, session).await, session) {
                (Ok(before), _) => before,
                (Err(fault), None) => return Err(fault),
                (Err(_), Some(_)) => return Err(self.unknown(what)),
            };
            if before.power == wanted && wanted == Power::Off {
                return Err(self.not_sent(what, "it is Off already".to_owned()));
            }
            if before.power == wanted {
                return Ok(vec![format!("{what} was not sent: it is {wanted}")]);
            }
            let patience = wait.min(until.saturating_duration_since(Instant::now()));
            let command = move |bmc: &mut Bmc, now: Tick| match bmc.busy(now) {
                Some(code) => vec![code],
                None => vec![bmc.chassis_control(control, now)],
            };
            match self.change(op, permit, (before.session, Some(before.fresh)), patience, command).await {
                Ok(Ok(answer)) => return self.verdict(what, answer, session.is_some()).map(|()| Notes::new()),
                Ok(Err(NoReply)) => session = Some(before.session),
                Err(closed) if session.is_none() => return Err(self.not_sent(what, closed.to_string())),
                Err(_) => return Err(self.unknown(what)),
            }
        }
        Err(self.unknown(what))
    }

    /// What the reply to a change says. After a copy that was not answered only a yes is sure.
    fn verdict(&self, what: &str, answer: Vec<u8>, earlier: bool) -> Result<(), Fault> {
        let code = answer.first().copied();
        if code != Some(0) && (earlier || matches!(code, None | Some(0xc3 | 0xce))) {
            return Err(self.unknown(what));
        }
        match self.understood(what, answer) {
            Err(Fault::Refused { device, what, code: words }) if code == Some(0xd4) => Err(Fault::Forbidden { device, what, code: words }),
            other => other.map(drop),
        }
    }

    async fn boot_flags(&self, until: Instant) -> Result<BootOverride, Fault> {
        let answer = self.read(until, |bmc, now| bmc.command(OPERATOR, 0, 0x09, &[5, 0, 0], now)).await?;
        let answer = self.understood("Get System Boot Options", answer)?;
        let [_, _, _, flags, device, ..] = answer.as_slice() else {
            return Err(Fault::Garbled { device: self.device(), why: "boot flags are short".to_owned() });
        };
        Ok(commands::flags_of([*flags, *device]))
    }

    async fn set_boot(&self, op: &Op, (device, efi): (BootDevice, bool), permit: &Permit, until: Instant) -> Result<(), Fault> {
        let before = self.before(SET_BOOT, permit, until, None).await?;
        let [flags, selector] = commands::flag_bytes(BootOverride { valid: true, persistent: true, efi, device });
        let write = move |bmc: &mut Bmc, now: Tick| {
            bmc.command(OPERATOR, 0, 0x08, &[3, 0x08], now);
            bmc.command(OPERATOR, 0, 0x08, &[5, flags, selector, 0, 0, 0], now)
        };
        let patience = ONCE_WAIT.min(until.saturating_duration_since(Instant::now()));
        match self.change(op, permit, (before.session, None), patience, write).await {
            Ok(Ok(answer)) => self.verdict(SET_BOOT, answer, false)?,
            Ok(Err(NoReply)) => return Err(self.unknown(SET_BOOT)),
            Err(closed) => return Err(self.not_sent(SET_BOOT, closed.to_string())),
        }
        let seen = self.boot_flags(until).await?;
        if seen.device != device && seen.device != BootDevice::None {
            let (expected, found) = (device.to_string(), seen.device.to_string());
            return Err(Fault::Disagrees { device: self.device(), place: "boot flags".to_owned(), expected, found });
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for VirtualBmc {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        let status = |bmc: &mut Bmc, now: Tick| (Session::with(bmc), bmc.command(OPERATOR, 0, 0x01, &[], now));
        let (session, answer) = self.read(deadline, status).await?;
        let power = Self::power_of(&self.understood(STATUS, answer)?);
        if depth == Depth::Everything || self.identity.is_none() {
            self.identity = Some(self.read(deadline, |bmc, _| bmc.identity()).await?);
        }
        if depth != Depth::Power || self.boot.is_none() {
            self.boot = match self.boot_flags(deadline).await {
                Ok(flags) => Some(flags),
                // It has none: that does not hide the power.
                Err(Fault::Refused { .. }) => None,
                Err(fault) => return Err(fault),
            };
        }
        let boot = self.boot;
        if self.read(deadline, |bmc, _| bmc.config.guid).await? != session.guid {
            let why = "another BMC answered before everything was asked".to_owned();
            return Err(Fault::Garbled { device: self.device(), why });
        }
        let identity = self.identity.clone().unwrap_or_default();
        self.centre.told(self.host, &self.server, power);
        Ok(Observation::Bmc(BmcSeen { shown: self.shown(session), identity, power, boot, suite: 17 }))
    }

    async fn execute(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        match op {
            Op::SetBoot { device, efi, .. } => self.set_boot(op, (*device, *efi), permit, deadline).await.map(|()| Notes::new()),
            Op::PowerOn { .. } => self.control(op, ChassisControl::PowerUp, permit, deadline).await,
            Op::PowerOff { how: Off::Soft, .. } => self.control(op, ChassisControl::SoftShutdown, permit, deadline).await,
            Op::PowerOff { how: Off::Hard, .. } => self.control(op, ChassisControl::PowerDown, permit, deadline).await,
            Op::CreateVlan { .. } | Op::SetPort { .. } | Op::Save { .. } => {
                Err(Fault::Unsupported { device: self.device(), what: op.to_string(), why: "it is a BMC".to_owned() })
            }
        }
    }

    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        preview(ops, self.identity.as_ref())
    }

    async fn close(&mut self) {}
}
