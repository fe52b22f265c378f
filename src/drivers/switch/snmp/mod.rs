//! The SNMP manager side, as the switch driver sees it: get, walk and set of one agent, with owned values.
//!
//! `UdpAgent` is the real one: SNMPv2c and SNMPv3 over one UDP socket shared by all agents.
//!
//! Leaves out: what the objects mean (`drivers::switch::engine` and the profiles).

pub(crate) mod agent;
pub(crate) mod codec;
pub(crate) mod keys;
pub(crate) mod privacy;
pub(crate) mod session;
pub(crate) mod transport;
pub(crate) mod usm;
pub(crate) mod walk;

pub use agent::{Timing, UdpAgent};
pub use transport::SnmpSocket;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

use crate::drivers::Fault;
use crate::drivers::gate::{Closed, Freshness, Permit};

/// An object identifier: its arcs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Oid(pub Vec<u32>);

impl Oid {
    pub fn starts_with(&self, prefix: &Oid) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// This identifier with more arcs behind it.
    pub fn child(&self, arcs: &[u32]) -> Oid {
        Oid([self.0.as_slice(), arcs].concat())
    }

    /// What follows `prefix`, or nothing where it does not start with it.
    pub fn index_in(&self, prefix: &Oid) -> Option<&[u32]> {
        self.0.strip_prefix(prefix.0.as_slice())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected an object identifier such as 1.3.6.1.2.1.1.1.0")]
pub struct BadOid {
    pub found: String,
}

impl FromStr for Oid {
    type Err = BadOid;
    /// With or without a leading dot.
    fn from_str(text: &str) -> Result<Self, BadOid> {
        let arcs: Result<Vec<u32>, _> = text.strip_prefix('.').unwrap_or(text).split('.').map(str::parse).collect();
        arcs.map(Oid).map_err(|_| BadOid { found: text.to_owned() })
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arcs: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.pad(&arcs.join("."))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An SMIv2 value (RFC 2578, RFC 3416). Gauge32 and Unsigned32 are one type on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Integer(i64),
    Octets(Vec<u8>),
    Oid(Oid),
    Null,
    IpAddress([u8; 4]),
    Counter32(u32),
    Unsigned32(u32),
    TimeTicks(u32),
    Counter64(u64),
    Opaque(Vec<u8>),
    NoSuchObject,
    NoSuchInstance,
    EndOfMibView,
}

pub type Binding = (Oid, Value);

/// What came of one column of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// In the order in which they came.
    pub rows: Vec<Binding>,
    /// That was not the order of their OIDs.
    pub unordered: bool,
    /// Why there may be more rows than these.
    pub cut: Option<Cut>,
}

impl Walked {
    pub fn whole(rows: Vec<Binding>) -> Walked {
        Walked { rows, unordered: false, cut: None }
    }
}

/// Where a column ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The error-status of its reply, in words.
    #[error("its agent answers {0}")]
    Refused(String),
    /// This row came a second time.
    #[error("its agent loops at OID {0}")]
    Loops(Oid),
    /// More rows than are held; none is kept.
    #[error("it seems to have no end")]
    Endless { rows: usize },
    /// Other objects of the same agent were answered all the while.
    #[error("its agent does not answer for it")]
    Silent,
}

/// The answer to a SET that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAnswer {
    /// error-status 0, with the bindings as the agent echoed them. Not proof that anything was written: read back.
    Accepted(Vec<Binding>),
    /// error-status (RFC 3416) and error-index, from 1. Some agents apply a part, or all, even so: read back.
    Refused { status: u32, index: u32 },
}

/// By what right a SET leaves, and the answer that it relies on.
#[derive(Clone, Copy)]
pub struct Leave<'a> {
    pub permit: &'a Permit,
    pub fresh: Freshness,
    /// More SETs of the same operation must follow.
    pub half_way: bool,
}

/// A SET that the gate did not let out.
pub fn not_let_out(device: &str, what: &str, closed: &Closed) -> Fault {
    let why = match closed {
        Closed::TooSlowToWrite { .. } => format!("TooSlowToWrite: {closed}"),
        Closed::LeaseOver | Closed::TooLate | Closed::TakenBack => closed.to_string(),
    };
    Fault::NotSent { device: device.to_owned(), what: what.to_owned(), why }
}

/// One agent. An implementation retransmits requests of its own accord; it never repeats a SET whose outcome is unknown.
#[async_trait]
pub trait Agent: Send {
    /// These objects, in this order; a missing one has the value NoSuchObject or NoSuchInstance.
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault>;

    /// All rows of each column, several columns to a request; one that is not told to its end says why. `rows` is how many to expect in the
    /// longest column: a hint for the size of requests.
    async fn walk(&mut self, columns: &[Oid], rows: usize) -> Result<Vec<Walked>, Fault>;

    /// One PDU, in one copy, through the gate. `Fault::NotSent` where that was closed, `Fault::Unknown` where no answer came: it may have
    /// happened.
    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault>;

    /// snmpEngineID where the agent speaks v3.
    fn engine_id(&self) -> Option<Vec<u8>>;

    /// The longest column of a walk that is not at its end, and how many of its rows came: what was cut off was not silence.
    fn unfinished(&self) -> Option<(Oid, usize)> {
        None
    }

    /// What is odd about the way in which it answers, in whole sentences for people.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}
