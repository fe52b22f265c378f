//! `embody serve`: the flags of the controller, resolved. Leaves out: everything that the controller does (`control`).
//!
//! Invariant: after this file no flag is text any more. Shown by `tests/cli.rs`.

pub mod run;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::client::socket_path;
use super::failure::Failure;
use crate::server::api::fault::chain;
use crate::store::{EtcdTls, StoreSpec};
use run::Options;

#[derive(Args)]
pub struct ServeArgs {
    /// Where the embedded store and all local files are. Default: $XDG_STATE_HOME/embody, ~/.local/state/embody, or /var/lib/embody for root
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep objects in etcd instead: etcd://HOST:PORT[,HOST:PORT…]
    #[arg(long, value_name = "etcd://…")]
    store: Option<String>,
    /// The certificate authority of etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "store")]
    etcd_cacert: Option<PathBuf>,
    /// This controller's certificate for etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "store", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "store", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// Apply what this directory holds, now and whenever it changes
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Delete what the directory created and no longer holds
    #[arg(long, requires = "manifests")]
    prune: bool,
    /// Where boot scripts are served over HTTP (http://ADDRESS:PORT/boot/<mac>); without it they are not
    #[arg(long, value_name = "ADDRESS:PORT")]
    boot_address: Option<SocketAddr>,
}

fn default_data() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return Ok(state.join("embody"));
    }
    if crate::server::api::socket::own_uid() == Some(0) {
        return Ok(PathBuf::from("/var/lib/embody"));
    }
    let home = absolute("HOME").ok_or_else(|| Failure::usage("there is no home directory to keep data in; say where with --data DIR"))?;
    Ok(home.join(".local/state/embody"))
}

impl ServeArgs {
    /// All defaults filled in.
    pub fn options(self, server: Option<&str>) -> Result<Options, Failure> {
        let data = self.data.map_or_else(default_data, Ok)?;
        let tls = EtcdTls { ca: self.etcd_cacert, cert: self.etcd_cert, key: self.etcd_key };
        let spec = StoreSpec::parse(self.store.as_deref().unwrap_or("embedded"), &data).map_err(|e| Failure::usage(e.to_string()))?;
        let socket = socket_path(server)?;
        Ok(Options {
            socket,
            data,
            store: spec.with_tls(tls),
            manifests: self.manifests,
            prune: self.prune,
            boot_address: self.boot_address,
        })
    }
}

pub async fn run(args: ServeArgs, server: Option<&str>) -> Result<(), Failure> {
    crate::telemetry::start();
    run::run(args.options(server)?).await.map_err(|e| Failure::failed(chain(&e)))
}
