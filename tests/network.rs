//! What boot services need of the network of a machine, in network namespaces of the tests' own: addresses that move, router advertisements,
//! sockets. tcpdump and iproute2 are the referees.
//!
//! Needs root; without it everything is skipped, and says so.

#[path = "network/advertise.rs"]
mod advertise;
#[path = "network/capabilities.rs"]
mod capabilities;
#[path = "network/common.rs"]
mod common;
#[path = "network/interfaces.rs"]
mod interfaces;
#[path = "network/sockets.rs"]
mod sockets;
#[path = "network/vip.rs"]
mod vip;
