//! One BMC as a `Driver`: power, boot device and identity over a session that is kept open.
//!
//! One request in flight, at least `spacing` apart. Leaves out requests (`request`), changes (`power`, `boot`), and what to do next: no
//! desired state is remembered, nothing is decided. Invariant: who a BMC is, is what it showed in the handshake of the session that is asked;
//! power once answered is told, whatever else the BMC refuses. Shown by `tests/ipmi.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipmi_rs::app::GetDeviceId;
use tokio::time::Instant;

use super::boot::BootMemory;
use super::commands::{ChassisControl, CloseSession, GetSystemGuid};
use super::crypto::Suite;
use super::open::Link;
use super::pace::Pace;
use super::patience::Patience;
use super::preview::{off, preview};
use super::quirks::{self, Quirks};
use super::session::{BadLogin, Credentials};
use super::socket::BmcSocket;
use crate::drivers::credentials::Turns;
use crate::drivers::gate::Permit;
use crate::drivers::{Depth, Driver, Fault, Notes, Observation};
use crate::model::HostPort;
use crate::model::fact::{BmcIdentity, BmcSeen};
use crate::model::identity::Identity;
use crate::model::op::{Device, Op};
use crate::model::secret::BmcLogin;
use crate::model::server::{Bmc, Privilege};

/// A BMC may end a session after 60 s ± 3 s without a request (IPMI 2.0, 6.12.15): an older one is opened anew, not tried.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(50);
/// Closing is a courtesy: no longer than this.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Four copies at the usual distances are 7.5 s; whoever answers answers the first or the second.
const BESIDES_WITHIN: Duration = Duration::from_secs(5);
/// How a BMC is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpmiSettings {
    /// What the session asks for.
    pub privilege: Privilege,
    /// The least time between two requests.
    pub spacing: Duration,
    /// The wait for the first copy of a request, unless this BMC is known to need longer; doubled with each further one, up to 4 s or that.
    pub retry_after: Duration,
    /// The cipher suites that are proposed, in this order: not empty.
    pub suites: Vec<Suite>,
}

impl Default for IpmiSettings {
    fn default() -> Self {
        IpmiSettings {
            privilege: Privilege::Administrator,
            spacing: Duration::from_millis(100),
            retry_after: Duration::from_millis(500),
            suites: vec![Suite::Seventeen, Suite::Three],
        }
    }
}

pub struct IpmiDriver {
    pub(super) device: String,
    pub(super) socket: Arc<BmcSocket>,
    pub(super) address: HostPort,
    pub(super) credentials: Result<Credentials, BadLogin>,
    pub(super) settings: IpmiSettings,
    pub(super) link: Option<Link>,
    /// Once it did, nothing weaker is accepted.
    pub(super) seventeen_worked: bool,
    pub(super) patience: Patience,
    /// What RAKP 2 told the last time: with another GUID the rest is asked again.
    pub(super) guid: Option<[u8; 16]>,
    pub(super) identity: Option<BmcIdentity>,
    pub(super) quirks: Quirks,
    pub(super) boot: BootMemory,
    pub(super) pace: Pace,
    /// Who else tries these credentials; nothing where a person asks this one BMC.
    pub(super) turns: Option<(Device, Arc<Turns>)>,
}

impl IpmiDriver {
    /// `device` is how faults name it; `turns`, where others use the same credentials. Nothing is sent before the first poll.
    pub fn new(
        device: String,
        socket: Arc<BmcSocket>,
        address: HostPort,
        login: BmcLogin,
        settings: IpmiSettings,
        turns: Option<(Device, Arc<Turns>)>,
    ) -> IpmiDriver {
        let pace = Pace::new(settings.spacing);
        let credentials = Credentials::new(&login, settings.privilege);
        IpmiDriver {
            device,
            socket,
            address,
            credentials,
            settings,
            link: None,
            seventeen_worked: false,
            patience: Patience::default(),
            guid: None,
            identity: None,
            quirks: quirks::NONE,
            boot: BootMemory::default(),
            pace,
            turns,
        }
    }

    async fn seen(&mut self, depth: Depth, deadline: Instant) -> Result<BmcSeen, Fault> {
        let mut power = self.read_power(deadline).await?;
        let mut silent = false;
        // Of the very session that told the power.
        let (shown, guid) = (self.shown(), self.guid);
        let suite = self.link.as_ref().map_or(0, |l| l.session.suite().id());
        let everything = depth == Depth::Everything || self.identity.is_none();
        let identity = match &self.identity {
            Some(known) if !everything => known.clone(),
            // What was told before in the name of this GUID is still so.
            Some(_) | None => {
                told(self.read_identity(self.besides(deadline)).await, &mut silent)?.or_else(|| self.identity.clone()).unwrap_or_default()
            }
        };
        if !silent && (everything || depth != Depth::Power) {
            self.boot.last = told(self.read_boot(self.besides(deadline)).await, &mut silent)?.flatten();
        }
        if silent {
            // It does not know that question, or it does not answer any more; where there is no time left to ask, the next look tells.
            power = match self.read_power(deadline).await {
                Err(fault) if Instant::now() < deadline => return Err(fault),
                again => again.unwrap_or(power),
            };
        }
        if self.guid != guid {
            let why = "another BMC answered before everything was asked".to_owned();
            return Err(Fault::Garbled { device: self.device.clone(), why });
        }
        Ok(BmcSeen { shown, identity, power, boot: self.boot.last, suite })
    }

    /// Until when a question beside the power may take: a BMC may leave it unanswered for ever.
    fn besides(&self, deadline: Instant) -> Instant {
        // Two questions, for who it is.
        deadline.min(Instant::now() + BESIDES_WITHIN.max(self.patience.first_wait(Duration::ZERO) * 2))
    }

    /// Who answers in the session that is open.
    pub(super) fn shown(&self) -> Identity {
        let guid = self.link.as_ref().map(|l| l.session.guid()).filter(|g| *g != [0; 16] && *g != [0xff; 16]);
        let guid = guid.map(|g| g.iter().map(|b| format!("{b:02x}")).collect());
        Identity { guid, address: Some(self.answers_at()), ..Identity::default() }
    }

    /// As the manifest says; a name may be another machine's tomorrow, so that of a name it is the address that it means at present.
    fn answers_at(&self) -> String {
        match self.link.as_ref().map(|link| link.lease.peer()).filter(|_| self.address.is_a_name()) {
            Some(peer) if peer.port() == Bmc::PORT => peer.ip().to_string(),
            Some(peer) => peer.to_string(),
            None => self.address.to_string(),
        }
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

    async fn perform(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        match op {
            Op::SetBoot { device, efi, .. } => self.set_boot(*device, *efi, permit, deadline).await.map(|()| Notes::new()),
            Op::PowerOn { .. } => self.control(ChassisControl::PowerUp, permit, deadline).await,
            Op::PowerOff { how, .. } => self.control(off(*how), permit, deadline).await,
            Op::CreateVlan { .. } | Op::SetPort { .. } | Op::Save { .. } => {
                Err(Fault::Unsupported { device: self.device.clone(), what: op.to_string(), why: "it is a BMC, not a switch".to_owned() })
            }
        }
    }
}

/// What was not told does not hide what was. Refused credentials do: they are not tried again.
fn told<T>(answer: Result<T, Fault>, silent: &mut bool) -> Result<Option<T>, Fault> {
    match answer {
        Ok(told) => Ok(Some(told)),
        Err(denied @ Fault::Denied { .. }) => Err(denied),
        Err(fault) => {
            *silent |= matches!(fault, Fault::Silent { .. });
            Ok(None)
        }
    }
}

#[async_trait]
impl Driver for IpmiDriver {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        self.seen(depth, deadline).await.map(Observation::Bmc)
    }

    async fn execute(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        self.perform(op, permit, deadline).await
    }

    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        preview(ops, self.identity.as_ref())
    }

    async fn close(&mut self) {
        let Some(id) = self.link.as_ref().and_then(|l| l.session.managed_id()) else {
            self.link = None;
            return;
        };
        let tries = self.tries();
        let closed = self.round_trip(&CloseSession(id).into(), tries, None, Instant::now() + CLOSE_WAIT).await;
        if let (Some(mut link), Ok(_)) = (self.link.take(), closed) {
            link.closed = true;
        }
    }
}
