//! What machines that boot are told, as pure functions: which boot script (`answer`), which DHCP answer (`dhcp`), from an immutable `view`.
//!
//! Leaves out: sockets (`server::boot`), and what is remembered of it (`control::booting`). Invariant: nothing here reads a clock or a socket, and
//! an answer other than "parked" is the snapshot that stands on that server.

pub(crate) mod answer;
pub(crate) mod dhcp;
pub(crate) mod identity;
pub(crate) mod script;
pub(crate) mod token;
pub(crate) mod view;
pub(crate) mod wire;
