//! The HTTP API: Kubernetes wire conventions over a unix socket.
//!
//! Objects are read, listed, watched and written here as Kubernetes clients expect; the words of people that are not wishes (approve,
//! pause, retry, …) go to the running controller through [`control::Control`]. Leaves out: what an object means (`check` comes from
//! `manifest`), and all decisions. Invariant: no value of a Secret leaves, and no client writes a status. Shown by `tests/api.rs`.

pub mod apply;
pub mod columns;
pub mod control;
pub mod decode;
mod discovery;
pub mod fault;
pub mod objects;
mod people;
mod refer;
mod routes;
pub mod selector;
pub mod socket;
mod watch;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use crate::model::Object;
use crate::store::Store;
use control::Control;

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
