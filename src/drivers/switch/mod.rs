//! Switches, over SNMP: one engine, and profiles as data.
//!
//! `driver` is what a worker owns; `read` asks and `seen` interprets; `write` plans the PDUs of a port's change and `engine` sends them, one
//! at a time, each on what `before` has just asked; `make` makes VLANs and saves; `snmp` is the transport.

mod before;
mod driver;
mod engine;
mod inspect;
mod make;
mod neighbour;
pub mod objects;
pub mod portlist;
pub mod profiles;
pub mod read;
pub mod seen;
pub mod snmp;
mod value;
mod words;
pub mod write;

pub use driver::{SwitchDriver, SwitchSettings};
pub use inspect::{Unresolved, resolve, to_json};
