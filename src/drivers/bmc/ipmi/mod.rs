//! IPMI 2.0 over RMCP+: an own session layer below `ipmi-rs`'s messages, commands and completion codes.
//!
//! From the wire up: `wire` (bytes), `crypto` (suites 3 and 17), `session` (the state machine, without I/O or clock), `commands` (what is
//! asked), `socket` (one UDP socket for all BMCs), `pace` (the distance between datagrams), `patience` (how long an answer is waited
//! for), `open` (the handshake over the socket), `request` (one request and its reply), `driver` (one BMC as a `Driver`), `power` (Chassis
//! Control, and what comes before any change), `boot` (boot options as the driver writes and reads them), `preview` (what it would write, in
//! words), `quirks` (what single boards taught).
//! Shown by `tests/ipmi.rs`, against ipmi_sim, ipmitool and FreeIPMI.

mod boot;
pub(crate) mod commands;
pub(crate) mod crypto;
pub(crate) mod driver;
mod open;
mod pace;
mod patience;
mod power;
mod preview;
pub(crate) mod quirks;
mod request;
pub(crate) mod session;
pub(crate) mod socket;
pub(crate) mod wire;

pub use driver::{IpmiDriver, IpmiSettings};
pub use preview::preview;
pub use socket::BmcSocket;
