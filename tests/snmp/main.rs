//! SNMP, held to net-snmp from both sides: our manager against Debian's `snmpd`, net-snmp's programs against our simulated agent, and
//! then our manager against our agent with the faults that `snmpd` does not make.

mod faults;
mod optional;
mod peer;
mod programs;
mod recordings;
mod snmpd;
