//! Devices: look at them and act on them. What is asked and answered is neutral; how is each driver's own business.
//!
//! A driver makes one attempt within its deadline. It never sleeps for politeness, retries an operation, remembers wishes or decides;
//! (retransmitting a request inside one attempt is the transport's business). Only a lane calls one, and owns it: `&mut`.

pub mod bmc;
pub mod switch;
pub mod udp;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::model::fact::{BmcSeen, SwitchSeen};
use crate::plan::op::Op;

/// How much to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What the planner compares: power and boot device; admin state and VLANs.
    State,
    /// Also what changes rarely: identity, names, neighbours, learned MACs.
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    Bmc(BmcSeen),
    /// Always whole: what was not asked again this time is as it was the last time.
    Switch(Box<SwitchSeen>),
}

/// What `Driver::preview` says of a device that was not looked at yet.
pub const NOT_READ: &str = "not read yet";
/// What it says where the driver does not tell.
const NOT_TOLD: &str = "this driver does not tell its writes";

#[async_trait]
pub trait Driver: Send {
    /// Look, in as few requests as the protocol allows. The first look is always at everything.
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault>;

    /// Do these operations in this order. `Ok` means that the device accepted all of them and showed the effect of those that take
    /// effect at once (boot device, VLAN, port); power takes its time, and is for the next look to say.
    async fn execute(&mut self, ops: &[Op], deadline: Instant) -> Result<(), Fault>;

    /// The writes that these operations would be, each operation on the effects of the ones before, in the order in which they would be
    /// sent, in words. From what was last read: nothing is asked of the device.
    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        ops.iter().map(|_| vec![NOT_TOLD.to_owned()]).collect()
    }

    /// End the session, if there is one. The driver can be used again afterwards.
    async fn close(&mut self);
}

/// Why a device did not do what was asked, sorted by what the loop must do about it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No answer: unplugged, rebooting, wrong address, or (SNMP) a wrong community or privacy password.
    #[error("{device} does not answer (asked {attempts} times in {waited:?})")]
    Silent { device: String, attempts: u32, waited: Duration },
    /// The request may have taken effect. Look before acting.
    #[error("{device}: no reply to {what}; it may or may not have happened")]
    Unknown { device: String, what: String },
    /// The device answered no.
    #[error("{device} refused {what}: {code}")]
    Refused { device: String, what: String, code: String },
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
    /// No socket, no route, no such host.
    #[error("{device} cannot be reached")]
    Network {
        device: String,
        #[source]
        source: std::io::Error,
    },
}

/// What the loop does about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Again, after a back-off.
    Retry,
    /// Look first: the outcome is not known.
    Look,
    /// Not before a person or a manifest changes something.
    Stalled,
}

impl Fault {
    pub fn disposition(&self) -> Disposition {
        match self {
            Fault::Silent { .. } | Fault::Busy { .. } | Fault::Network { .. } | Fault::Garbled { .. } => Disposition::Retry,
            Fault::Unknown { .. } | Fault::Disagrees { .. } | Fault::Refused { .. } => Disposition::Look,
            Fault::Denied { .. } | Fault::Unsupported { .. } => Disposition::Stalled,
        }
    }

    /// One word for a condition's `reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Fault::Silent { .. } => "NoAnswer",
            Fault::Unknown { .. } => "OutcomeUnknown",
            Fault::Refused { .. } => "Refused",
            Fault::Busy { .. } => "Busy",
            Fault::Disagrees { .. } => "Disagrees",
            Fault::Denied { .. } => "CredentialsRefused",
            Fault::Unsupported { .. } => "Unsupported",
            Fault::Garbled { .. } => "Garbled",
            Fault::Network { .. } => "Unreachable",
        }
    }
}
