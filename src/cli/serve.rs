//! `embody serve`: the flags of the controller, resolved. Leaves out: everything that the controller does (`control`).
//!
//! Invariant: after this file no flag is text any more. Shown by `tests/cli.rs`.

pub mod run;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::Ipv4Net;

use super::client::socket_path;
use super::failure::Failure;
use crate::control::booting::EXCHANGE_PORT;
use crate::server::api::fault::chain;
use crate::server::boot;
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
    /// Where boot scripts and files are served over HTTP (http://ADDRESS:PORT/boot/<mac>). Default: 0.0.0.0:80, once a Network has `boot`
    #[arg(long, value_name = "ADDRESS:PORT")]
    boot_address: Option<SocketAddr>,
    /// The TCP port where systems of images are told who they are, over TLS
    #[arg(long, value_name = "PORT", default_value_t = EXCHANGE_PORT)]
    exchange_port: u16,
    /// An address that moves with the lease between several controllers, ADDRESS/LEN[@INTERFACE]: machines are told of it alone
    #[arg(long, value_name = "ADDRESS/LEN")]
    boot_vip: Option<String>,
    /// Kernels and initrds, which personas name by their path in here. Default: `boot` in the directory of --data
    #[arg(long, value_name = "DIR")]
    boot_files: Option<PathBuf>,
    /// Where iPXE's undionly.kpxe and snponly.efi are
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/ipxe")]
    ipxe_dir: PathBuf,
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

/// `10.1.10.9/24`, or `10.1.10.9/24@eth0`.
fn vip(text: &str) -> Result<(Ipv4Net, Option<String>), Failure> {
    let (address, interface) = text.split_once('@').map_or((text, None), |(address, name)| (address, Some(name.to_owned())));
    let address: Ipv4Net = address.parse().map_err(|_| {
        Failure::usage(format!("found --boot-vip {text}, expected an address with its prefix length: 10.1.10.9/24, or 10.1.10.9/24@eth0"))
    })?;
    Ok((address, interface))
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
            store: spec.with_tls(tls),
            manifests: self.manifests,
            prune: self.prune,
            boot: boot::Options {
                address: self.boot_address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 80))),
                always: self.boot_address.is_some(),
                files: self.boot_files.unwrap_or_else(|| data.join("boot")),
                loaders: self.ipxe_dir,
                vip: self.boot_vip.as_deref().map(vip).transpose()?,
                exchange: self.exchange_port,
                keeper: None,
            },
            data,
        })
    }
}

pub async fn run(args: ServeArgs, server: Option<&str>) -> Result<(), Failure> {
    crate::telemetry::start();
    run::run(args.options(server)?).await.map_err(|e| Failure::failed(chain(&e)))
}
