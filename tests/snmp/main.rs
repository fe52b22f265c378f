//! SNMP, held to net-snmp from both sides: our manager against Debian's `snmpd`, net-snmp's programs against our simulated agent, and
//! then our manager against our agent with the faults that `snmpd` does not make.

mod faults;
#[path = "../free_port/mod.rs"]
mod free_port;
mod optional;
mod peer;
mod programs;
mod recordings;
mod snmpd;
