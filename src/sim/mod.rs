//! The simulated data centre: devices as state machines, and endpoints that answer real SNMP and RMCP+ on real sockets.
//!
//! Product code: `embody demo`, the tests and the documentation use it. Conformance tests hold it to independent peers.

mod addresses;
pub(crate) mod agent;
pub(crate) mod bmc;
pub(crate) mod booting;
pub(crate) mod centre;
pub(crate) mod checkers;
pub(crate) mod direct;
mod exchange;
pub(crate) mod faults;
pub(crate) mod fleet;
pub(crate) mod freezer;
pub(crate) mod leases;
pub(crate) mod line;
pub(crate) mod mib;
pub(crate) mod network;
pub(crate) mod rack;
pub(crate) mod recording;
pub(crate) mod rmcp;
pub(crate) mod switch;
pub(crate) mod trace;
pub(crate) mod trial_store;
pub(crate) mod virtual_bmc;
pub(crate) mod virtual_switch;
pub(crate) mod watched;
