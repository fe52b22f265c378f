//! Switches, over SNMP.
pub mod snmp;
