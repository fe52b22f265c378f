//! `embody serve`: store, lease, API, boot answers and the brain, put together; and taken apart in order.
//!
//! Invariant: only the holder of the lease has a brain. The API answers without one (reads and wishes need only the store).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::brain::{Brain, Devices, Message};
use super::clock::Clock;
use super::people::People;
use crate::api;
use crate::drivers::udp::UdpDevices;
use crate::gitops;
use crate::limits;
use crate::manifest;
use crate::model::Object;
use crate::store::{self, Lease, Store, StoreError, StoreSpec};

/// The lease on the right to act.
pub const LEASE: &str = "controller";

pub struct Options {
    /// The unix socket of the API.
    pub socket: PathBuf,
    pub store: StoreSpec,
    pub manifests: Option<PathBuf>,
    pub prune: bool,
    pub boot_address: Option<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the store cannot be opened")]
    Store(#[source] StoreError),
    #[error("the API cannot be served")]
    Api(#[source] api::BindError),
    #[error("no UDP socket can be opened")]
    Sockets(#[source] std::io::Error),
    #[error("signals cannot be awaited")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), ServeError> {
    let shutdown = signals().map_err(ServeError::Signals)?;
    let store = store::open(&options.store).await.map_err(ServeError::Store)?;
    for warning in store.warnings() {
        tracing::warn!("{warning}");
    }
    // The API takes wishes whoever acts; the writes of the handle that has the lease are refused once it is lost.
    let wishes = match options.store {
        StoreSpec::Etcd { .. } => store::open(&options.store).await.map_err(ServeError::Store)?,
        StoreSpec::Embedded { .. } => Arc::clone(&store),
    };
    let devices: Arc<dyn Devices> = Arc::new(UdpDevices::bind().await.map_err(ServeError::Sockets)?);
    let (to_brain, brain) = watch::channel(None);
    let people = Arc::new(People { brain: brain.clone(), store: Arc::clone(&wishes), lease: LEASE });
    let listener = api::Listener::bind(&options.socket).map_err(ServeError::Api)?;
    tracing::info!(socket = %options.socket.display(), "the API is served");
    let backend = Arc::new(api::Backend::new(wishes, people, check()));
    let mut tasks = JoinSet::new();
    let mut stop = shutdown.clone();
    tasks.spawn({
        let backend = Arc::clone(&backend);
        async move {
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            if let Err(error) = listener.serve(backend, stopped).await {
                tracing::error!(error = %error, "the API ended");
            }
        }
    });
    if let Some(address) = options.boot_address {
        let (bound, _) = watch::channel(None);
        tasks.spawn(crate::boot::http::serve(address, brain.clone(), bound));
    }
    if let Some(directory) = options.manifests {
        tasks.spawn(gitops::directory::run(directory, options.prune, backend, brain));
    }
    act(store, devices, to_brain, shutdown).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// What the API checks all objects of a write with.
pub fn check() -> api::Check {
    Arc::new(|changed: &[Object], existing: &[Object]| {
        manifest::check(changed, existing).iter().filter(|d| d.is_error()).map(manifest::Diagnostic::line).collect()
    })
}

/// Acts while it holds the lease; waits for it while it does not.
async fn act(store: Arc<dyn Store>, devices: Arc<dyn Devices>, to_brain: watch::Sender<Option<mpsc::Sender<Message>>>, mut shutdown: watch::Receiver<bool>) {
    let holder = format!("{}:{}", hostname(), std::process::id());
    loop {
        let lease = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            lease = store.acquire(LEASE, &holder, limits::LEASE_TTL) => lease,
        };
        let lease: Arc<dyn Lease> = match lease {
            Ok(lease) => Arc::from(lease),
            Err(error) => {
                tracing::warn!(error = %error, "the lease could not be taken; it is tried again");
                tokio::time::sleep(limits::RETRY_FIRST).await;
                continue;
            }
        };
        tracing::info!(holder, "this controller acts");
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = lease.lost() => tracing::warn!("the lease is lost: this controller acts no longer"),
            () = think(&store, &devices, &lease, &to_brain) => {}
        }
        to_brain.send_replace(None);
        lease.release().await;
        if *shutdown.borrow() {
            return;
        }
    }
}

/// A brain, and another one whenever the watch of the store ends. Each begins from nothing but the store and fresh looks.
async fn think(store: &Arc<dyn Store>, devices: &Arc<dyn Devices>, lease: &Arc<dyn Lease>, to_brain: &watch::Sender<Option<mpsc::Sender<Message>>>) {
    loop {
        let clock = Clock::start();
        let (reports, inbound) = mpsc::channel(limits::REPORTS);
        let (messages, inbox) = mpsc::channel(limits::REPORTS);
        let loaded = Brain::load(Arc::clone(store), Arc::clone(devices), Arc::clone(lease), clock, reports).await;
        let watched = match loaded {
            Ok((brain, revision)) => store.watch("", revision).await.map(|watch| (brain, watch)),
            Err(error) => Err(error),
        };
        match watched {
            Ok((mut brain, watch)) => {
                to_brain.send_replace(Some(messages));
                brain.run(inbox, inbound, watch).await;
                to_brain.send_replace(None);
            }
            Err(error) => {
                tracing::warn!(error = %error, "the store cannot be read; it is tried again");
                tokio::time::sleep(limits::RETRY_FIRST).await;
            }
        }
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// Becomes true at the first SIGTERM or SIGINT.
fn signals() -> std::io::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stop.send(true);
        stop.closed().await;
    });
    Ok(stopped)
}
