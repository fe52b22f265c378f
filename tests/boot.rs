//! The boot services on real sockets, in network namespaces: machines that are scripts ask by DHCP, TFTP and HTTP as firmware does, and what goes over
//! the wire is captured by another program. `tests/peers/pxe.py` is that client, with codecs of its own; devices are `embody sim`.
//!
//! Leaves out: real firmware (`tests/machines.rs`), what is answered to each packet (`tests/answers.rs`). Needs root.

#[path = "network/common.rs"]
mod common;
#[path = "rack/controller.rs"]
#[allow(dead_code, reason = "the rack of scripts uses the rest")]
mod controller;
#[path = "rack/programs.rs"]
#[allow(dead_code, reason = "the rack of scripts uses the rest")]
mod programs;

#[path = "boot/answers.rs"]
mod answers;
#[path = "boot/bodies.rs"]
mod bodies;
#[path = "boot/chains.rs"]
mod chains;
#[path = "boot/crowds.rs"]
mod crowds;
#[path = "boot/exchange.rs"]
mod exchange;
#[path = "boot/foreign.rs"]
mod foreign;
#[path = "boot/forged.rs"]
mod forged;
#[path = "boot/inspected.rs"]
mod inspected;
#[path = "boot/joined.rs"]
mod joined;
#[path = "boot/lasting.rs"]
mod lasting;
#[path = "boot/nocloud.rs"]
mod nocloud;
#[path = "boot/oddities.rs"]
mod oddities;
#[path = "boot/ports.rs"]
mod ports;
#[path = "boot/refusals.rs"]
mod refusals;
#[path = "boot/relays.rs"]
mod relays;
#[path = "boot/site.rs"]
mod site;
#[path = "boot/users.rs"]
mod users;
#[path = "boot/vip.rs"]
mod vip;
