//! `embody serve`: the flags of the controller, resolved. Leaves out: everything that the controller does (`control`).
//!
//! Invariant: after this file no flag is text any more. Shown by `tests/cli.rs`.

use std::path::PathBuf;

use clap::Args;

use super::client::socket_path;
use super::failure::Failure;
use crate::model::HostPort;

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
    /// Where boot scripts are served over HTTP: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    boot_address: Option<HostPort>,
}

/// Where objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChoice {
    Embedded,
    Etcd { endpoints: Vec<String>, cacert: Option<PathBuf>, identity: Option<(PathBuf, PathBuf)> },
}

/// What a controller is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The unix socket of the API.
    pub socket: PathBuf,
    pub data: PathBuf,
    pub store: StoreChoice,
    pub manifests: Option<PathBuf>,
    pub prune: bool,
    pub boot_address: Option<HostPort>,
}

/// `etcd://host:port,host:port` → `host:port`, each.
fn endpoints(text: &str) -> Result<Vec<String>, Failure> {
    let bad = || Failure::usage(format!("found store `{text}`, expected etcd://HOST:PORT[,HOST:PORT…]"));
    let list = text.strip_prefix("etcd://").ok_or_else(bad)?;
    list.split(',')
        .map(|one| {
            let address: HostPort = one.trim().parse().map_err(|_| bad())?;
            // etcd's client port: 2379.
            Ok(HostPort { port: Some(address.port.unwrap_or(2379)), ..address }.to_string())
        })
        .collect()
}

fn default_data() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return Ok(state.join("embody"));
    }
    if crate::api::socket::own_uid() == Some(0) {
        return Ok(PathBuf::from("/var/lib/embody"));
    }
    let home = absolute("HOME").ok_or_else(|| Failure::usage("there is no home directory to keep data in; say where with --data DIR"))?;
    Ok(home.join(".local/state/embody"))
}

impl ServeArgs {
    /// All defaults filled in.
    pub fn options(self, server: Option<&str>) -> Result<Options, Failure> {
        let store = match self.store {
            None => StoreChoice::Embedded,
            Some(text) => {
                StoreChoice::Etcd { endpoints: endpoints(&text)?, cacert: self.etcd_cacert, identity: self.etcd_cert.zip(self.etcd_key) }
            }
        };
        let data = self.data.map_or_else(default_data, Ok)?;
        let socket = socket_path(server)?;
        Ok(Options { socket, data, store, manifests: self.manifests, prune: self.prune, boot_address: self.boot_address })
    }
}

pub async fn run(args: ServeArgs, server: Option<&str>) -> Result<(), Failure> {
    crate::telemetry::start();
    start(args.options(server)?).await
}

/// Runs the controller until it is told to stop. The seam to `control`.
async fn start(options: Options) -> Result<(), Failure> {
    tracing::debug!(?options, "options");
    Err(Failure::failed("this build has no controller"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_endpoints() {
        assert_eq!(endpoints("etcd://a:1,[::1]:2,c").ok(), Some(vec!["a:1".to_owned(), "[::1]:2".to_owned(), "c:2379".to_owned()]));
        for bad in ["a:1", "etcd://", "etcd://a:0", "http://a", "etcd://a,,b"] {
            assert!(endpoints(bad).is_err(), "{bad}");
        }
    }
}
