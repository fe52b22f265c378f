//! Devices: look at them and act on them. What is asked and answered is neutral; how is each driver's own business.
//!
//! A driver makes one attempt within its deadline. It never sleeps for politeness, retries an operation, remembers desired state or decides;
//! (retransmitting a request inside one attempt is the transport's business). Only a worker calls one, and owns it: `&mut`.

pub(crate) mod bmc;
pub(crate) mod credentials;
pub(crate) mod gate;
pub(crate) mod switch;
pub(crate) mod udp;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::model::fact::{BmcSeen, SwitchSeen};
use credentials::Turns;
use gate::Permit;

use crate::model::op::Op;
use crate::model::secret::{BmcLogin, SnmpLogin};
use crate::model::{Name, Reason, ServerSpec, SwitchSpec};

/// How much to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Power alone, one request: it changes at any time. Of a switch as much as `State`.
    Power,
    /// What the planner compares: power and boot device; admin state and VLANs.
    State,
    /// Also what changes rarely: identity, names, neighbours, learned MACs.
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    Bmc(BmcSeen),
    /// Always whole: what was not asked again this time is as it was the last time.
    Switch(Arc<SwitchSeen>),
}

/// What was noticed on the way, in whole sentences for people: events, nothing to act on.
pub type Notes = Vec<String>;

/// What `Driver::preview` says of a device that was not observed yet.
pub(crate) const NOT_READ: &str = "not read yet";
/// What it says where the driver does not tell.
const NOT_TOLD: &str = "this driver does not tell its writes";

#[async_trait]
pub trait Driver: Send {
    /// Look, in as few requests as the protocol allows. The first poll is always at everything.
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault>;

    /// Do it, once, on the device that the permit means, and only while its gate is open. `Ok` means that the device accepted it and showed
    /// the effect where that is at once (boot device, VLAN, port); power takes its time, and is for the next poll to say.
    async fn execute(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault>;

    /// A person says: try again. What the device refused for good is forgotten.
    fn forget_refusals(&mut self) {}

    /// The writes that these operations would be, each operation on the effects of the ones before, in the order in which they would be
    /// sent, in words. From what was last read: nothing is asked of the device.
    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        ops.iter().map(|_| vec![NOT_TOLD.to_owned()]).collect()
    }

    /// End the session, if there is one. The driver can be used again afterwards.
    async fn close(&mut self);
}

/// Makes drivers: real ones over UDP, or simulated ones.
pub trait Devices: Send + Sync {
    fn bmc(&self, server: &Name, spec: &ServerSpec, login: BmcLogin, spacing: Duration, turns: Arc<Turns>) -> Box<dyn Driver>;
    fn switch(&self, switch: &Name, spec: &SwitchSpec, login: SnmpLogin, turns: Arc<Turns>) -> Box<dyn Driver>;
}

/// Why a device did not do what was asked, sorted by what the loop must do about it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No answer: unplugged, rebooting, wrong address, or (SNMP) a wrong community or privacy password.
    #[error("{device} does not answer (asked {attempts} times in {}s)", .waited.as_secs())]
    Silent { device: String, attempts: u32, waited: Duration },
    /// The request may have taken effect. Look before acting.
    #[error("{device}: no reply to {what}; it may or may not have happened")]
    Unknown { device: String, what: String },
    /// The device answered no.
    #[error("{device} refused {what}: {code}")]
    Refused { device: String, what: String, code: String },
    /// Nothing was sent that changes anything: the gate was closed, or the device was not as the operation expects.
    #[error("{device}: {what} was not sent: {why}")]
    NotSent { device: String, what: String, why: String },
    /// Another device answers at this address than the one that is meant. Nothing was sent that changes anything.
    #[error("{device} shows {found}, not {expected}: it is another device, and nothing was sent to it")]
    OtherDevice { device: String, expected: String, found: String },
    /// The user may not do this one thing; everything else goes on.
    #[error("{device}: the user may not do {what}: {code}")]
    Forbidden { device: String, what: String, code: String },
    /// The device is busy (no free session, node busy, initialising): later.
    #[error("{device} is busy: {code}")]
    Busy { device: String, code: String },
    /// It is not as the operation expects, or a write did not read back.
    #[error("{device}: expected {expected} at {place}, found {found}")]
    Disagrees { device: String, place: String, expected: String, found: String },
    /// The credentials were refused. Not to be tried again until they change.
    #[error("{device} refuses the credentials: {why}")]
    Denied { device: String, why: String },
    /// This device or profile cannot do it at all.
    #[error("{device} cannot {what}: {why}")]
    Unsupported { device: String, what: String, why: String },
    /// The reply does not read.
    #[error("{device} sent a reply that does not read: {why}")]
    Garbled { device: String, why: String },
    /// It answers, and what it is asked for goes on and on.
    #[error("{device} answers, but its table {table} was not at its end after {rows} rows and {}s: {seems}", .waited.as_secs())]
    Endless { device: String, table: String, rows: usize, waited: Duration, seems: String },
    /// No socket, no route, no such host.
    #[error("{device} cannot be reached")]
    Network {
        device: String,
        #[source]
        source: std::io::Error,
    },
}

/// What became of a power command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Accepted,
    /// It did not leave, or the device said that it did not begin: it is as if it had not been tried.
    NotSent,
    /// It may or may not have been carried out.
    Unknown,
    /// The device answered no, with this code, for another reason than being busy.
    Refused(String),
}

impl Fault {
    /// What became of the one request that changes something: a failed operation may have taken effect all the same.
    pub fn delivery(&self) -> Delivery {
        match self {
            Fault::Unknown { .. } | Fault::Garbled { .. } => Delivery::Unknown,
            Fault::Refused { code, .. } | Fault::Forbidden { code, .. } => Delivery::Refused(code.clone()),
            Fault::Silent { .. } | Fault::Busy { .. } | Fault::Network { .. } | Fault::NotSent { .. } | Fault::OtherDevice { .. } => {
                Delivery::NotSent
            }
            Fault::Disagrees { .. } | Fault::Denied { .. } | Fault::Unsupported { .. } | Fault::Endless { .. } => Delivery::NotSent,
        }
    }

    /// One word for a condition's `reason`.
    pub fn reason(&self) -> Reason {
        match self {
            Fault::Silent { .. } => Reason::NoAnswer,
            Fault::Unknown { .. } => Reason::OutcomeUnknown,
            Fault::Refused { .. } => Reason::Refused,
            Fault::NotSent { .. } => Reason::NotSent,
            Fault::OtherDevice { .. } => Reason::IdentityChanged,
            Fault::Forbidden { .. } => Reason::ActionForbidden,
            Fault::Busy { .. } => Reason::Busy,
            Fault::Disagrees { .. } => Reason::Disagrees,
            Fault::Denied { .. } => Reason::CredentialsRefused,
            Fault::Unsupported { .. } => Reason::Unsupported,
            Fault::Garbled { .. } => Reason::Garbled,
            Fault::Endless { .. } => Reason::TableEndless,
            Fault::Network { .. } => Reason::Unreachable,
        }
    }
}
