//! Switches, over SNMP: one engine, and profiles as data.
//!
//! `driver` is what a worker owns; `read` asks (through `ask`, which puts up with what is not told) and `seen` interprets; `tables` knows where
//! each family has its VLANs; `write` plans the PDUs of a port's change and `engine` sends them, one at a time, each on what `before` has just
//! asked; `make` makes VLANs and saves; `snmp` is the transport.

mod ask;
mod before;
mod driver;
mod engine;
mod inspect;
mod make;
mod neighbour;
pub(crate) mod objects;
mod places;
pub(crate) mod portlist;
pub(crate) mod profiles;
pub(crate) mod read;
pub(crate) mod seen;
pub(crate) mod snmp;
pub(crate) mod tables;
mod value;
mod words;
pub(crate) mod write;

pub use driver::{SwitchDriver, SwitchSettings};
pub use inspect::{Unresolved, resolve, to_json};
