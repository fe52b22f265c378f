//! The simulated data centre: devices as state machines, and endpoints that answer real SNMP and RMCP+ on real sockets.
//!
//! Product code: `embody demo`, the tests and the documentation use it. Conformance tests hold it to independent peers.

pub mod agent;
pub mod bmc;
pub mod centre;
pub mod checkers;
pub mod direct;
pub mod freezer;
pub mod leases;
pub mod line;
pub mod mib;
pub mod network;
pub mod rack;
pub mod recording;
pub mod rmcp;
pub mod switch;
pub mod trace;
pub mod trial_store;
pub mod virtual_bmc;
pub mod virtual_switch;
