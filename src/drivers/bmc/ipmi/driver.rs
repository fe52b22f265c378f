//! One BMC as a `Driver`: power, boot device and identity over a session that is kept open.
//!
//! One request in flight, at least `spacing` apart. A read is repeated and, where the session is gone, asked once more in a new one. What
//! changes something is never sent in another session than the one that it was begun in: a power-off exactly once, power-on and boot
//! options repeated within their session. Leaves out what to do next: no desired state is remembered, nothing is decided.
//! Shown by `tests/ipmi.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipmi_rs::app::GetDeviceId;
use ipmi_rs::connection::{CompletionErrorCode, IpmiCommand, Message};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::boot::BootMemory;
use super::commands::{self, ChassisControl, CloseSession, GetChassisStatus, GetSystemGuid, SetSessionPrivilege};
use super::open::Link;
use super::preview::{off, preview};
use super::quirks::{self, Quirks};
use super::session::{BadLogin, Credentials, Heard, Reply, level};
use super::socket::BmcSocket;
use crate::drivers::gate::Permit;
use crate::drivers::{Depth, Driver, Fault, Notes, Observation};
use crate::model::HostPort;
use crate::model::fact::{BmcIdentity, BmcSeen, Power};
use crate::model::identity::Identity;
use crate::model::op::Op;
use crate::model::secret::BmcLogin;
use crate::model::server::Privilege;

/// The longest wait for one copy of a request: BMCs answer within a second, or are busy with themselves.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Copies of a request before the session counts as gone: with the default wait 7.5 s.
const COPIES: u32 = 4;
/// How long the answer to a request is waited for that is sent only once.
const ONCE: Duration = Duration::from_secs(10);
/// A BMC may end a session after 60 s ± 3 s without a request (IPMI 2.0, 6.12.15): an older one is opened anew, not tried.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(50);
/// A session idle for longer is asked for the power state before anything is changed in it: a read can be repeated, a change cannot.
const PROBE_AFTER: Duration = Duration::from_secs(10);
/// Closing is a courtesy: no longer than this.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Insufficient privilege (IPMI 2.0, table 5-2).
pub(super) const INSUFFICIENT_PRIVILEGE: u8 = 0xd4;

/// Timeout while processing; response could not be provided (IPMI 2.0, table 5-2): the command may have been carried out.
const UNCERTAIN: [u8; 2] = [0xc3, 0xce];

/// How a BMC is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpmiSettings {
    /// What the session asks for.
    pub privilege: Privilege,
    /// The least time between two requests.
    pub spacing: Duration,
    /// Read the boot device with every n-th look at the state; 0: only with everything, and after it was set.
    pub boot_every: u32,
    /// The wait for the first copy of a request; doubled with each further one, up to 4 s.
    pub retry_after: Duration,
}

impl Default for IpmiSettings {
    fn default() -> Self {
        IpmiSettings {
            privilege: Privilege::Administrator,
            spacing: Duration::from_millis(100),
            boot_every: 1,
            retry_after: Duration::from_millis(500),
        }
    }
}

/// Whether a request may be sent more than once in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    One,
    Many,
}

/// Why a request has no reply.
pub(super) enum Trouble {
    /// Its time was over before it was sent.
    NotSent,
    Silent {
        attempts: u32,
        waited: Duration,
    },
    Network(std::io::Error),
}

/// A completion code that is neither success nor "busy".
pub(super) type Answer<T> = Result<T, u8>;

pub struct IpmiDriver {
    pub(super) device: String,
    pub(super) socket: Arc<BmcSocket>,
    pub(super) address: HostPort,
    pub(super) credentials: Result<Credentials, BadLogin>,
    pub(super) settings: IpmiSettings,
    pub(super) link: Option<Link>,
    /// Once it did, nothing weaker is accepted.
    pub(super) seventeen_worked: bool,
    /// What RAKP 2 told the last time: with another GUID the rest is asked again.
    pub(super) guid: Option<[u8; 16]>,
    pub(super) identity: Option<BmcIdentity>,
    pub(super) quirks: Quirks,
    pub(super) boot: BootMemory,
    polls: u32,
    sent_at: Option<Instant>,
}

impl IpmiDriver {
    /// `device` is how faults name it. Nothing is sent before the first poll.
    pub fn new(device: String, socket: Arc<BmcSocket>, address: HostPort, login: BmcLogin, settings: IpmiSettings) -> IpmiDriver {
        let credentials = Credentials::new(&login, settings.privilege);
        IpmiDriver {
            device,
            socket,
            address,
            credentials,
            settings,
            link: None,
            seventeen_worked: false,
            guid: None,
            identity: None,
            quirks: quirks::NONE,
            boot: BootMemory::default(),
            polls: 0,
            sent_at: None,
        }
    }

    async fn look(&mut self, depth: Depth, deadline: Instant) -> Result<BmcSeen, Fault> {
        let power = self.read_power(deadline).await?;
        let everything = depth == Depth::Everything || self.identity.is_none();
        let identity = match &self.identity {
            Some(known) if !everything => known.clone(),
            Some(_) | None => self.read_identity(deadline).await?,
        };
        self.polls = self.polls.wrapping_add(1);
        let due = self.settings.boot_every != 0 && self.polls.is_multiple_of(self.settings.boot_every);
        let boot = if everything || due { self.read_boot(deadline).await? } else { self.boot.last };
        let suite = self.link.as_ref().map_or(0, |l| l.session.suite().id());
        Ok(BmcSeen { shown: self.shown(), identity, power, boot, suite })
    }

    /// Who answers in the session that is open.
    pub(super) fn shown(&self) -> Identity {
        let guid = self.link.as_ref().map(|l| l.session.guid()).filter(|g| *g != [0; 16] && *g != [0xff; 16]);
        let guid = guid.map(|g| g.iter().map(|b| format!("{b:02x}")).collect());
        Identity { guid, address: Some(self.address.to_string()), ..Identity::default() }
    }

    async fn read_power(&mut self, deadline: Instant) -> Result<Power, Fault> {
        let what = "Get Chassis Status";
        let fresh = self.link.is_none();
        let mut answer = self.read(GetChassisStatus, what, deadline).await?;
        if answer == Err(INSUFFICIENT_PRIVILEGE) && !fresh {
            // Any user may ask for it: the session is not what it was.
            self.link = None;
            answer = self.read(GetChassisStatus, what, deadline).await?;
        }
        answer.map_err(|code| self.refused(what, code))
    }

    pub(super) async fn read_identity(&mut self, deadline: Instant) -> Result<BmcIdentity, Fault> {
        let what = "Get Device ID";
        let id = self.read(GetDeviceId, what, deadline).await?.map_err(|code| self.refused(what, code))?;
        // A BMC without a GUID says so by any code.
        let guid = self.read(GetSystemGuid, "Get System GUID", deadline).await?.ok();
        let guid = guid.filter(|g| *g != [0; 16] && *g != [0xff; 16]);
        let identity = BmcIdentity {
            guid: guid.map(|g| g.iter().map(|b| format!("{b:02x}")).collect()),
            manufacturer_id: id.manufacturer_id,
            product_id: id.product_id,
            firmware: format!("{}.{:02}", id.major_fw_revision, id.minor_fw_revision),
            ipmi_version: format!("{}.{}", id.major_version, id.minor_version),
        };
        self.quirks = quirks::of(&identity);
        self.identity = Some(identity.clone());
        Ok(identity)
    }

    async fn perform(&mut self, op: &Op, deadline: Instant) -> Result<(), Fault> {
        match op {
            Op::SetBoot { device, efi, .. } => self.set_boot(*device, *efi, deadline).await,
            Op::PowerOn { .. } => self.control(ChassisControl::PowerUp, Copies::Many, deadline).await,
            Op::PowerOff { how, .. } => self.control(off(*how), Copies::One, deadline).await,
            Op::CreateVlan { .. } | Op::SetPort { .. } | Op::Save { .. } => {
                Err(Fault::Unsupported { device: self.device.clone(), what: op.to_string(), why: "it is a BMC, not a switch".to_owned() })
            }
        }
    }

    async fn control(&mut self, control: ChassisControl, copies: Copies, deadline: Instant) -> Result<(), Fault> {
        let what = control.name();
        self.prepare(deadline).await?;
        self.change(control, what, copies, deadline).await?.map_err(|code| self.refused(what, code))
    }

    // ---- one request ----------------------------------------------------------------------------------------------------

    /// Asks; where the session turns out to be gone, once more in a new one.
    pub(super) async fn read<C>(&mut self, command: C, what: &str, deadline: Instant) -> Result<Answer<C::Output>, Fault>
    where
        C: IpmiCommand,
    {
        let message: Message = command.into();
        let fresh = self.ensure_open(deadline).await?;
        let mut outcome = self.round_trip(&message, Copies::Many, deadline).await;
        if matches!(outcome, Err(Trouble::Silent { .. })) && !fresh && Instant::now() < deadline {
            self.link = None;
            self.ensure_open(deadline).await?;
            outcome = self.round_trip(&message, Copies::Many, deadline).await;
        }
        match outcome {
            Ok(reply) => self.understand::<C>(reply, what),
            Err(trouble) => {
                self.link = None;
                Err(self.unanswered(trouble))
            }
        }
    }

    /// What comes before a change: a session that is alive, at the privilege that was asked for.
    pub(super) async fn prepare(&mut self, deadline: Instant) -> Result<(), Fault> {
        if self.link.as_ref().is_none_or(|l| l.heard_at.elapsed() > PROBE_AFTER) {
            self.read_power(deadline).await?;
        }
        self.raise(deadline).await
    }

    /// Set Session Privilege, once in a session: it begins at USER (IPMI 2.0, 22.18).
    pub(super) async fn raise(&mut self, deadline: Instant) -> Result<(), Fault> {
        if self.link.as_ref().is_some_and(|l| l.raised) {
            return Ok(());
        }
        let wanted = level(self.settings.privilege);
        let what = "Set Session Privilege";
        let answer = self.read(SetSessionPrivilege(wanted), what, deadline).await?;
        match answer {
            Ok(_) => {
                if let Some(link) = &mut self.link {
                    link.raised = true;
                }
                Ok(())
            }
            // 80h: not available for this user; 81h: above the limit of the user or the channel; 82h: user level cannot be left.
            Err(code @ (0x80..=0x82 | INSUFFICIENT_PRIVILEGE)) => Err(self.denied(format!(
                "the user may not have the privilege {}: {}",
                if wanted == 4 { "ADMINISTRATOR" } else { "OPERATOR" },
                commands::words(code)
            ))),
            Err(code) => Err(self.refused(what, code)),
        }
    }

    /// Changes something, in the session there is: never in another one.
    pub(super) async fn change<C>(&mut self, command: C, what: &str, copies: Copies, deadline: Instant) -> Result<Answer<C::Output>, Fault>
    where
        C: IpmiCommand,
    {
        let message: Message = command.into();
        let unknown = Fault::Unknown { device: self.device.clone(), what: what.to_owned() };
        match self.round_trip(&message, copies, deadline).await {
            // What must not be done twice: the BMC was too slow for itself, or could not say how it went.
            Ok(reply) if copies == Copies::One && UNCERTAIN.contains(&reply.code) => Err(unknown),
            Ok(reply) => self.understand::<C>(reply, what),
            Err(Trouble::Silent { .. }) => {
                self.link = None;
                Err(unknown)
            }
            Err(trouble @ (Trouble::NotSent | Trouble::Network(_))) => Err(self.unanswered(trouble)),
        }
    }

    fn understand<C>(&self, reply: Reply, what: &str) -> Result<Answer<C::Output>, Fault>
    where
        C: IpmiCommand,
    {
        match CompletionErrorCode::try_from(reply.code) {
            // The crate's way to say success.
            Err(()) => match C::parse_success_response(&reply.data) {
                Ok(output) => Ok(Ok(output)),
                Err(_) => Err(Fault::Garbled { device: self.device.clone(), why: format!("{what}: {} bytes of data", reply.data.len()) }),
            },
            Ok(code) if commands::busy(code) => {
                Err(Fault::Busy { device: self.device.clone(), code: format!("{what}: {}", commands::words(reply.code)) })
            }
            Ok(_) => Ok(Err(reply.code)),
        }
    }

    /// Sends a request in the open session and waits for its reply.
    async fn round_trip(&mut self, message: &Message, copies: Copies, deadline: Instant) -> Result<Reply, Trouble> {
        if let Some(sent_at) = self.sent_at.filter(|_| !self.settings.spacing.is_zero()) {
            sleep_until((sent_at + self.settings.spacing).min(deadline)).await;
        }
        let Some(link) = &mut self.link else { return Err(Trouble::NotSent) };
        let (begun, mut wait, mut attempts) = (Instant::now(), self.settings.retry_after, 0);
        let mut packet = link.session.request(message.netfn_raw(), message.cmd(), message.data(), rand::random());
        loop {
            let now = Instant::now();
            let (Some(datagram), true) = (packet, now < deadline) else {
                return Err(if attempts == 0 { Trouble::NotSent } else { Trouble::Silent { attempts, waited: now - begun } });
            };
            // Before the send: where the caller gives up in it, the packet may have gone out.
            self.sent_at = Some(now);
            if let Err(error) = link.lease.send(&datagram).await
                && attempts == 0
            {
                return Err(Trouble::Network(error));
            }
            attempts += 1;
            let patience = if copies == Copies::One { ONCE } else { wait };
            if let Some(reply) = link.reply_until((now + patience).min(deadline)).await {
                return Ok(reply);
            }
            if copies == Copies::One || attempts >= COPIES {
                return Err(Trouble::Silent { attempts, waited: begun.elapsed() });
            }
            wait = (wait * 2).min(WAIT_MAX);
            packet = link.session.again(rand::random());
        }
    }

    // ---- faults ---------------------------------------------------------------------------------------------------------

    fn unanswered(&self, trouble: Trouble) -> Fault {
        let device = self.device.clone();
        match trouble {
            Trouble::NotSent => Fault::Silent { device, attempts: 0, waited: Duration::ZERO },
            Trouble::Silent { attempts, waited } => Fault::Silent { device, attempts, waited },
            Trouble::Network(source) => Fault::Network { device, source },
        }
    }

    pub(super) fn denied(&self, why: String) -> Fault {
        Fault::Denied { device: self.device.clone(), why }
    }

    pub(super) fn refused(&self, what: &str, code: u8) -> Fault {
        match code {
            INSUFFICIENT_PRIVILEGE => self.denied(format!("{what}: {}", commands::words(code))),
            _ => Fault::Refused { device: self.device.clone(), what: what.to_owned(), code: commands::words(code) },
        }
    }
}

impl Link {
    /// The reply to the request in flight, if it comes in time.
    async fn reply_until(&mut self, until: Instant) -> Option<Reply> {
        while let Ok(datagram) = timeout_at(until, self.lease.receive()).await {
            match self.session.handle(&datagram) {
                Heard::Reply(reply) => {
                    self.heard_at = Instant::now();
                    return Some(reply);
                }
                Heard::Nothing | Heard::Send(_) | Heard::Open | Heard::Refused(_) => {}
            }
        }
        None
    }
}

#[async_trait]
impl Driver for IpmiDriver {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        self.look(depth, deadline).await.map(Observation::Bmc)
    }

    async fn execute(&mut self, op: &Op, _permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        self.perform(op, deadline).await.map(|()| Notes::new())
    }

    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        preview(ops, self.identity.as_ref())
    }

    async fn close(&mut self) {
        let Some(id) = self.link.as_ref().and_then(|l| l.session.managed_id()) else {
            self.link = None;
            return;
        };
        let closed = self.round_trip(&CloseSession(id).into(), Copies::Many, Instant::now() + CLOSE_WAIT).await;
        if let (Some(mut link), Ok(_)) = (self.link.take(), closed) {
            link.closed = true;
        }
    }
}
