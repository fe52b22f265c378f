//! The rack, end to end: the real `embody` against peers that are none of ours. OpenIPMI's `ipmi_sim` with a machine behind it,
//! net-snmp's `snmpd` with a writable Q-BRIDGE table, a real etcd; `ipmitool` and `snmpbulkwalk` say how it went.
//!
//! Leaves out: what the protocols do on the wire (`tests/ipmi.rs`, `tests/snmp`), the planner's proof (`tests/plan.rs`), the store's
//! conformance (`tests/store.rs`). Invariant: nothing is asked of `embody` that a person could not ask, and nothing that it says about
//! devices is believed.

mod free_port;

#[path = "rack/bmc.rs"]
mod bmc;
#[path = "rack/boot.rs"]
mod boot;
#[path = "rack/consent.rs"]
mod consent;
#[path = "rack/controller.rs"]
mod controller;
#[path = "rack/crashes.rs"]
mod crashes;
#[allow(dead_code, reason = "the test of the store uses the rest")]
#[path = "store/peers.rs"]
mod etcd;
#[path = "rack/faults.rs"]
mod faults;
#[path = "rack/ipmitool.rs"]
mod ipmitool;
#[path = "rack/moves.rs"]
mod moves;
#[path = "rack/process.rs"]
mod process;
#[path = "rack/programs.rs"]
mod programs;
#[path = "rack/pyghmi.rs"]
mod pyghmi;
#[path = "rack/site.rs"]
mod site;
#[path = "rack/switch.rs"]
mod switch;
#[path = "rack/tap.rs"]
mod tap;
