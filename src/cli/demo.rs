//! `embody demo`: a controller on a store of its own, a simulated rack in another process, and a view of how the rack becomes as desired.
//!
//! Everything between the two is real: packets on sockets of the loopback. Leaves out: the devices (`sim::rack`), and any word to a controller
//! that is no demo: a demo has a socket of its own and ignores `--server`. Invariant: when it ends, however it ends, its rack ends too.
//! Shown by `tests/demo.rs`.

mod breakage;
mod examples;
mod machines;
mod rack;
mod show;
mod site;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

pub(crate) use breakage::Breakage;

use super::client::{API, Client};
use super::failure::{Exit, Failure};
use crate::cli::serve::run::{self, Options, ServeError};
use crate::control::booting::EXCHANGE_PORT;
use crate::model::{Object, Period};
use crate::server::api::fault::chain;
use crate::server::api::socket;
use crate::server::boot;
use crate::store::StoreSpec;
use rack::RackProcess;
use show::{Ending, View};

/// Where boot scripts are served. Where it is taken, a condition says so, and all the rest goes on.
const BOOT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 16_080);
/// How long the controller may take to answer the first time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to end after its API did.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    pub verb: Option<DemoVerb>,
    /// With machines that really boot, in a network namespace: QEMU; needs root
    #[arg(long)]
    rack: bool,
    /// End as soon as the rack is as desired; fail when it is not within --timeout
    #[arg(long)]
    exit_when_ready: bool,
    /// How long --exit-when-ready waits
    #[arg(long, value_name = "PERIOD", default_value = "2m")]
    timeout: Period,
    /// End after this time
    #[arg(long = "for", value_name = "PERIOD", conflicts_with = "exit_when_ready")]
    lasts: Option<Period>,
}

#[derive(Subcommand)]
pub(crate) enum DemoVerb {
    /// Break something in the running demo, and watch the repair
    Break {
        /// What to break
        what: Breakage,
    },
    /// The simulated rack itself: the demo starts it
    #[command(hide = true)]
    Rack {
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
    },
}

/// Where a demo is found: the API's socket, and the one for hands in the rack.
struct Place {
    api: PathBuf,
    rack: PathBuf,
}

impl Place {
    fn of_this_user() -> Place {
        let beside = socket::default_path();
        Place { api: beside.with_file_name("demo.sock"), rack: beside.with_file_name("demo-rack.sock") }
    }

    fn server(&self) -> String {
        format!("unix://{}", self.api.display())
    }

    fn client(&self) -> Result<Client, Failure> {
        Client::new(Some(&self.server()))
    }

    /// Its socket's lock; the directory stays where somebody else has something in it.
    async fn leave(&self) {
        // Its listener removes the socket when it ends, beside this.
        for _ in 0..100 {
            if !self.api.exists() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let mut lock = self.api.clone().into_os_string();
        lock.push(".lock");
        drop(std::fs::remove_file(lock));
        self.api.parent().into_iter().for_each(|dir| drop(std::fs::remove_dir(dir)));
    }

    /// The directory of both sockets, for this user alone. One that belongs to somebody else is refused: it stands in /tmp on some machines.
    fn prepare(&self) -> Result<(), Failure> {
        let dir = self.api.parent().unwrap_or(Path::new("/"));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let owner = made.and_then(|()| std::fs::metadata(dir)).map(|m| m.uid());
        match owner {
            Ok(owner) if socket::own_uid().is_none_or(|me| owner == me || owner == 0) => Ok(()),
            Ok(owner) => Err(Failure::failed(format!("{} belongs to user {owner}: it is not used", dir.display()))),
            Err(error) => Err(Failure::failed(format!("{} cannot be made: {error}", dir.display()))),
        }
    }
}

/// The demo's store, removed when the demo is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, Failure> {
        let dir = std::env::temp_dir().join(format!("embody-demo-{}", uuid::Uuid::new_v4()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map(|()| Scratch(dir.clone())).map_err(|e| Failure::failed(format!("{} cannot be made: {e}", dir.display())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind in a directory for temporary files is no failure of the demo.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// `_server` is where a real controller may be: a demo never speaks to it.
pub(crate) async fn run(args: DemoArgs, _server: Option<&str>) -> Result<(), Failure> {
    let place = Place::of_this_user();
    match &args.verb {
        Some(DemoVerb::Rack { socket }) => rack::run(socket).await,
        Some(DemoVerb::Break { what }) => breakage::run(*what, &place.client()?, &place.rack).await,
        None if args.rack => machines::run(&args, &place).await,
        None => demo(&args, &place).await,
    }
}

async fn demo(args: &DemoArgs, place: &Place) -> Result<(), Failure> {
    place.prepare()?;
    let objects = examples::objects()?;
    let scratch = Scratch::new()?;
    let mut rack = RackProcess::start(&place.rack).await?;
    if std::env::var_os(crate::telemetry::FILTER).is_some() {
        crate::telemetry::start();
    }
    let options = options(place, &scratch.0, BOOT_ADDRESS, scratch.0.join("boot"));
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| Failure::failed(format!("signals cannot be awaited: {e}")))?;
    let mut serving = std::pin::pin!(run::run(options));
    let ended = tokio::select! {
        biased;
        // Ends at SIGINT and SIGTERM.
        served = &mut serving => stopped(served),
        _ = hangup.recv() => Ok(()),
        failure = rack.ended() => Err(failure),
        shown = watch(args, place, &objects) => match shown {
            // The API goes before its controller: what the controller says about its end counts.
            Err(gone) if gone.exit == Exit::NoController => timeout(ENDS_WITHIN, &mut serving).await.map_or(Err(gone), stopped),
            shown => shown,
        },
    };
    rack.end().await;
    drop(std::fs::remove_file(&place.rack));
    place.leave().await;
    drop(scratch);
    if ended.is_ok() {
        super::say("The demo is over: its rack and its store are gone.");
    }
    ended
}

/// Of a controller on a store of its own.
fn options(place: &Place, data: &Path, address: SocketAddr, files: PathBuf) -> Options {
    Options {
        socket: place.api.clone(),
        store: StoreSpec::Embedded { dir: data.to_owned() },
        data: data.to_owned(),
        manifests: None,
        prune: false,
        boot: boot::Options {
            address,
            always: true,
            files,
            loaders: PathBuf::from("/usr/lib/ipxe"),
            vip: None,
            exchange: EXCHANGE_PORT,
            keeper: None,
        },
    }
}

fn stopped(served: Result<(), ServeError>) -> Result<(), Failure> {
    served.map_err(|error| {
        let failure = Failure::failed(format!("the demo's controller cannot run: {}", chain(&error)));
        if matches!(error, ServeError::Api(_)) { failure.hint("perhaps another demo runs") } else { failure }
    })
}

/// Applies the examples, then shows what becomes of them.
async fn watch(args: &DemoArgs, place: &Place, objects: &[Object]) -> Result<(), Failure> {
    let client = place.client()?;
    answers(&client).await?;
    apply(&client, objects).await?;
    let ending = match (args.exit_when_ready, args.lasts) {
        (true, _) => Ending::AtRest { within: args.timeout.0 },
        (false, Some(period)) => Ending::After(period.0),
        (false, None) => Ending::Never,
    };
    View::new(&place.server(), objects, ending).run(&client).await
}

async fn apply(client: &Client, objects: &[Object]) -> Result<(), Failure> {
    let items: Vec<Value> = objects.iter().map(Object::to_json).collect();
    client.post(&format!("{API}/apply"), &json!({ "items": items, "dryRun": false })).await.map(drop)
}

async fn answers(client: &Client) -> Result<(), Failure> {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    loop {
        match client.get(&format!("{API}/policies")).await {
            Err(failure) if failure.exit == Exit::NoController && Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
            other => return other.map(drop),
        }
    }
}
