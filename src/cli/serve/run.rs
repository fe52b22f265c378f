//! `embody serve`: store, lease, API, boot answers and the controller, put together; and taken apart in order.
//!
//! Invariant: only the holder of the lease has a controller. The API answers without one (reads and desired state need only the store).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::control::actions::Operators;
use crate::control::booting::Shared;
use crate::control::controller::{Controller, Message, Parts, Remembered};
use crate::control::status_writer::Site;
use crate::drivers::Devices;
use crate::drivers::udp::UdpDevices;
use crate::gitops;
use crate::limits;
use crate::manifest;
use crate::model::Object;
use crate::server::images::Keeper;
use crate::server::{api, boot, listen};
use crate::store::{self, Lease, LeaseEnd, Records, Store, StoreError, StoreSpec};

/// The lease on the right to act.
pub const LEASE: &str = "controller";

pub struct Options {
    /// The unix socket of the API.
    pub socket: PathBuf,
    pub store: StoreSpec,
    /// The directory of all local files.
    pub data: PathBuf,
    pub manifests: Option<PathBuf>,
    pub prune: bool,
    pub boot: boot::Options,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the store cannot be opened")]
    Store(#[source] StoreError),
    #[error("the API cannot be served")]
    Api(#[source] api::BindError),
    #[error("images cannot be kept")]
    Images(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no UDP socket can be opened")]
    Sockets(#[source] std::io::Error),
    #[error("signals cannot be awaited")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), ServeError> {
    listen::raise_files();
    let shutdown = signals().map_err(ServeError::Signals)?;
    let store = store::open(&options.store).await.map_err(ServeError::Store)?;
    for warning in store.warnings() {
        tracing::warn!("{warning}");
    }
    let records = Arc::new(Records::open(Arc::clone(&store), &options.data).map_err(ServeError::Store)?);
    // The API takes desired state whoever acts; the writes of the handle that has the lease are refused once it is lost.
    let desired = match options.store {
        StoreSpec::Etcd { .. } => store::open(&options.store).await.map_err(ServeError::Store)?,
        StoreSpec::Embedded { .. } => Arc::clone(&store),
    };
    let devices: Arc<dyn Devices> = Arc::new(UdpDevices::bind().await.map_err(ServeError::Sockets)?);
    let (to_controller, controller) = watch::channel(None);
    let (holds, holding) = watch::channel(None);
    let people = Arc::new(Operators { controller: controller.clone(), store: Arc::clone(&desired), lease: LEASE });
    let listener = api::Listener::bind(&options.socket).map_err(ServeError::Api)?;
    tracing::info!(socket = %options.socket.display(), "the API is served");
    let site: Site = watch::Sender::default();
    let shared = Shared::default();
    let leader = options.boot.vip.as_ref().map(|(vip, _)| SocketAddr::from((vip.addr(), options.boot.address.port())));
    let keeper = Keeper::open(&options.data, Arc::clone(&desired), shared.clone(), controller.clone(), leader)
        .map_err(|error| ServeError::Images(error.into()))?;
    let backend = Arc::new(api::Backend::new(desired, people, check(), site.clone()).with_images(Arc::clone(&keeper)));
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
    tasks.spawn(Arc::clone(&keeper).run());
    let boot = boot::Options { keeper: Some(keeper), ..options.boot };
    tasks.spawn(boot::serve(controller.clone(), holding, shared.clone(), site.clone(), boot));
    if let Some(directory) = options.manifests {
        tasks.spawn(gitops::directory::run(directory, options.prune, backend, controller, site.clone()));
    }
    act(Process { store, records, devices, site, boot: shared }, Acting { to_controller, holds }, shutdown).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// What the API checks all objects of a write with.
pub fn check() -> api::Check {
    Arc::new(|changed: &[Object], existing: &[Arc<Object>]| {
        let found = manifest::check(changed, existing);
        let objection = |d: &manifest::Diagnostic| {
            let dangles = d.code == manifest::codes::UNKNOWN_REFERENCE;
            // Said again and again while objects come one by one.
            api::Objection { text: if dangles { d.message.clone() } else { d.line() }, dangles }
        };
        found.iter().filter(|d| d.is_error()).map(objection).collect()
    })
}

/// What every controller of this process is made of.
struct Process {
    store: Arc<dyn Store>,
    records: Arc<Records>,
    devices: Arc<dyn Devices>,
    site: Site,
    boot: Shared,
}

/// What the others of this process are told about the controller that acts: the way to it, and by which lease it does.
struct Acting {
    to_controller: watch::Sender<Option<mpsc::Sender<Message>>>,
    holds: watch::Sender<Option<Arc<LeaseEnd>>>,
}

/// Acts while it holds the lease; waits for it while it does not.
async fn act(process: Process, acting: Acting, mut shutdown: watch::Receiver<bool>) {
    let holder = format!("{}:{}", hostname(), std::process::id());
    let mut remembered = Remembered::default();
    while !*shutdown.borrow() {
        let lease = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            lease = process.store.acquire(LEASE, &holder, limits::LEASE_TTL) => lease,
            never = stand_by(&process) => match never {},
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
        think(&process, &lease, &acting, &mut remembered, &mut shutdown).await;
        lease.release().await;
        remembered.may_be_old();
    }
}

/// The mark follows the store while another controller acts: a store that goes backwards then is known here too.
async fn stand_by(process: &Process) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(limits::STANDBY_LOOKS).await;
        if let Err(error) = process.records.follow().await {
            tracing::warn!(error = %error, "the store, seen from here");
        }
    }
}

/// A controller, which begins from nothing but the store and fresh observations; it is tried again while the store cannot be read. Returns when the
/// lease is lost or the process is to end.
async fn think(
    process: &Process,
    lease: &Arc<dyn Lease>,
    acting: &Acting,
    remembered: &mut Remembered,
    shutdown: &mut watch::Receiver<bool>,
) {
    let mut ends = false;
    while !ends {
        let (reports, inbound) = mpsc::channel(limits::REPORTS);
        let (messages, inbox) = mpsc::channel(limits::REPORTS);
        let parts = Parts {
            store: Arc::clone(&process.store),
            records: Arc::clone(&process.records),
            devices: Arc::clone(&process.devices),
            lease: Arc::clone(lease),
            clock: Clock::start(),
            reports,
            site: process.site.clone(),
            remembered: remembered.clone(),
            boot: process.boot.clone(),
        };
        let loaded = Controller::load(parts).await;
        let watched = match loaded {
            Ok((controller, revision)) => process.store.watch("", revision).await.map(|watch| (controller, watch)),
            Err(error) => Err(error),
        };
        let (mut controller, watch) = match watched {
            Ok(both) => both,
            Err(error) => {
                tracing::warn!(error = %error, "the store cannot be read; it is tried again");
                tokio::time::sleep(limits::RETRY_FIRST).await;
                ends = *shutdown.borrow() || lease.remaining().is_zero();
                continue;
            }
        };
        acting.to_controller.send_replace(Some(messages));
        acting.holds.send_replace(Some(lease.until()));
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => ends = true,
            () = lease.lost() => {
                tracing::warn!("the lease is lost: this controller acts no longer");
                ends = true;
            }
            () = controller.run(inbox, inbound, watch) => {}
        }
        acting.holds.send_replace(None);
        acting.to_controller.send_replace(None);
        *remembered = controller.close().await;
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
