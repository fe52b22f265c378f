//! `embody sim`: simulated BMCs and switches on real sockets, to rehearse with a real controller; of a directory of manifests, or of a fleet by number.
//!
//! Leaves out: the devices (`sim::rack`), and what runs on the servers. Invariant: only addresses of the loopback are taken. Shown by
//! `tests/sim.rs`.

use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::FileArgs;
use super::failure::Failure;
use super::output::print;
use super::source;
use crate::model::server::Bmc;
use crate::model::{HostPort, Kind, Name, Object, Spec};
use crate::server::api::fault::chain;
use crate::server::listen::raise_files;
use crate::sim::rack::{Act, Rack};
use crate::sim::{faults, fleet};

#[derive(Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["files", "servers"])))]
pub(super) struct SimArgs {
    /// Hold the devices of these manifests, at the addresses that they name
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<String>,
    /// Go into the directories of a directory
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
    /// Hold a fleet of so many servers, and write its manifests to --write
    #[arg(long, value_name = "N", requires = "write")]
    servers: Option<usize>,
    /// On so many switches
    #[arg(long, value_name = "M", default_value_t = 1, requires = "servers")]
    switches: usize,
    /// The UDP port of all its devices; each has an address of its own, from 127.64.0.1 on
    #[arg(long, value_name = "PORT", default_value_t = fleet::PORT, requires = "servers")]
    port: u16,
    /// A directory that is empty, or is made
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Which servers a part of the fleet is, among other chances
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What happens to the devices, and when: a list of `{ at: 30s, silence: { percent: 5, for: 10m } }`, `{ at: 1m, button: { server: X } }`,
    /// `{ at: 1m, port: { switch: X, port: Y, vlan: 7 } }`
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

pub(super) async fn run(args: SimArgs) -> Result<(), Failure> {
    raise_files();
    let files = match (args.servers, &args.write) {
        (Some(servers), Some(dir)) => {
            write(servers, &args, dir)?;
            vec![dir.display().to_string()]
        }
        _ => args.files.clone(),
    };
    let objects = source::load(&FileArgs { files, recursive: args.recursive })?;
    objects.iter().try_for_each(on_loopback)?;
    let servers: Vec<Name> = objects.iter().filter(|o| o.kind() == Kind::Server).map(|o| o.name().clone()).collect();
    let course = match &args.faults {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| Failure::failed(format!("{} does not read: {e}", path.display())))?;
            faults::read(&text, &servers, args.seed).map_err(|why| Failure::failed(format!("{}: {why}", path.display())))?
        }
        None => Vec::new(),
    };
    let rack = Rack::start(&objects, &std::collections::BTreeSet::new()).await.map_err(|e| Failure::failed(chain(&e)))?;
    let switches = objects.iter().filter(|o| o.kind() == Kind::Switch).count();
    print(&format!("ready: {} BMCs, {switches} switches\n", servers.len()))?;
    live(rack, course).await
}

/// Until a signal ends it.
async fn live(mut rack: Rack, course: Vec<(std::time::Duration, Act)>) -> Result<(), Failure> {
    let of = |kind| signal(kind).map_err(|e| Failure::failed(format!("signals cannot be awaited: {e}")));
    let (mut interrupt, mut terminate) = (of(SignalKind::interrupt())?, of(SignalKind::terminate())?);
    let begun = Instant::now();
    let mut course = course.into_iter().peekable();
    loop {
        let next = course.peek().map(|(at, _)| begun + *at);
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = due => if let Some((_, act)) = course.next()
                && let Some(why) = rack.act(&act).refused
            {
                super::say(&format!("warning: {why}"));
            },
        }
    }
}

fn write(servers: usize, args: &SimArgs, dir: &Path) -> Result<(), Failure> {
    let within = |what: &str, n: usize, most: usize| match (1..=most).contains(&n) {
        true => Ok(()),
        false => Err(Failure::usage(format!("found --{what} {n}, expected 1 to {most}"))),
    };
    within("servers", servers, fleet::SERVERS_MAX)?;
    within("switches", args.switches, fleet::SWITCHES_MAX)?;
    let wrong = |e: std::io::Error| Failure::failed(format!("{} cannot be written: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(wrong)?;
    if std::fs::read_dir(dir).map_err(wrong)?.next().is_some() {
        return Err(Failure::failed(format!("{} is not empty: the manifests of a fleet need a directory of their own", dir.display())));
    }
    for (name, text) in fleet::manifests(servers, args.switches, args.port) {
        std::fs::write(dir.join(name), text).map_err(wrong)?;
    }
    Ok(())
}

/// A simulated device must not stand in for a real one.
fn on_loopback(object: &Object) -> Result<(), Failure> {
    let (address, default): (&HostPort, u16) = match &object.spec {
        Spec::Server(server) => (&server.bmc.address, Bmc::PORT),
        Spec::Switch(switch) => (&switch.address, 161),
        Spec::Policy(_) | Spec::Secret(_) | Spec::Network(_) | Spec::Persona(_) | Spec::Binding(_) => return Ok(()),
    };
    let (host, port) = address.with_port(default);
    let mut found =
        (host, port).to_socket_addrs().map_err(|e| Failure::failed(format!("{address} of {} is not known: {e}", object.name())))?;
    match found.all(|at| at.ip().is_loopback()) {
        true => Ok(()),
        false => Err(Failure::failed(format!(
            "{}/{} is at {address}, which is not on the loopback: only addresses such as 127.0.0.7:6230 are simulated",
            object.kind(),
            object.name()
        ))),
    }
}
