//! The HTTP API: Kubernetes wire conventions over a unix socket.
//!
//! Objects are read, listed, watched and written here as Kubernetes clients expect; the words of people that are not desired state (approve,
//! pause, retry, …) go to the running controller through [`crate::control::operator::Control`]. Leaves out: what an object means (`check` comes from
//! `manifest`), and all decisions. Invariant: no value of a Secret leaves, and no client writes a status. Shown by `tests/api.rs`.

mod actions;
pub(crate) mod apply;
pub(crate) mod change;
pub(crate) mod columns;
pub(crate) mod decode;
mod discovery;
pub(crate) mod fault;
mod images;
mod known;
pub(crate) mod objects;
mod openapi;
mod pages;
mod patch;
mod refer;
mod routes;
pub(crate) mod selector;
pub(crate) mod socket;
pub(crate) mod source;
mod watch;

use std::sync::Arc;

use crate::model::Object;

pub use objects::{Backend, DryRun};
pub use socket::{BindError, Listener};

/// What is wrong with `changed`, given all other objects (`existing`: none of them is replaced by one in `changed`). One sentence each;
/// nothing where all is well. Called before the first write.
pub type Check = Arc<dyn Fn(&[Object], &[Arc<Object>]) -> Vec<Objection> + Send + Sync>;

/// What is wrong with objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    pub text: String,
    /// Only this: a name that one of them gives is that of nothing, yet.
    pub dangles: bool,
}
