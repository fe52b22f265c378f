//! What listens: the Kubernetes-style API for people and programs (`api`), and the boot answers for machines (`boot`).
//!
//! Leaves out: what is decided. Invariant: a request that is slow or broken costs its own connection, never the controller's loop.

pub(crate) mod api;
pub(crate) mod boot;
pub(crate) mod images;
pub(crate) mod listen;
pub(crate) mod nfs;
pub(crate) mod tls;
