//! What boot services need of the network of this machine: its interfaces, addresses that move, router advertisements, sockets.
//!
//! Leaves out: what is said on them. Shown by `tests/network.rs`, in network namespaces.

pub(crate) mod advertise;
mod arp;
mod icmpv6;
pub(crate) mod interfaces;
mod netlink;
pub(crate) mod sockets;
pub(crate) mod vip;

/// Of an Ethernet interface.
pub type Mac = [u8; 6];
