//! The HTTP API: Kubernetes wire conventions over a unix socket.
//!
//! Objects are read, listed, watched and written here as Kubernetes clients expect; the words of people that are not desired state (approve,
//! pause, retry, …) go to the running controller through [`crate::control::operator::Control`]. Leaves out: what an object means (`check` comes from
//! `manifest`), and all decisions. Invariant: no value of a Secret leaves, and no client writes a status. Shown by `tests/api.rs`.

mod actions;
pub mod apply;
pub mod columns;
pub mod decode;
mod discovery;
pub mod fault;
pub mod objects;
mod refer;
mod routes;
pub mod selector;
pub mod socket;
mod watch;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use crate::control::operator::Control;
use crate::model::Object;
use crate::store::Store;

pub use objects::{Backend, DryRun};
pub use socket::{BindError, Listener};

/// What is wrong with `changed`, given all other objects (`existing`: none of them is replaced by one in `changed`). One sentence each;
/// nothing where all is well. Called before the first write.
pub type Check = Arc<dyn Fn(&[Object], &[Object]) -> Vec<String> + Send + Sync>;

/// Serves until `shutdown` resolves: binds the socket, answers, closes watches, removes the socket.
pub async fn serve(
    path: &Path,
    store: Arc<dyn Store>,
    control: Arc<dyn Control>,
    check: Check,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), BindError> {
    let listener = Listener::bind(path)?;
    listener.serve(Arc::new(Backend::new(store, control, check)), shutdown).await
}
