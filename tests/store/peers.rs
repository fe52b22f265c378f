//! The processes that the tests of the store start: a real etcd, and this test binary again as a writer that is killed.
//!
//! Leaves out: what is asserted. Invariant: every process is ended by its id when its guard is dropped, stopped ones too.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use embody::testing::store::{EtcdStore, EtcdTls, StoreError};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::free_port::free_port;

/// A single etcd member with its own data.
pub struct Etcd {
    process: Option<Child>,
    data: TempDir,
    /// Where the data is instead, below it: a restore wants a directory that is not there.
    restored: Option<PathBuf>,
    client: u16,
    peer: u16,
    /// Where the certificates are; nothing: no TLS.
    tls: Option<PathBuf>,
    name: String,
    cluster: String,
}

/// Nothing where etcd is not installed and the run does not insist.
pub fn etcd_or_skip() -> Option<Etcd> {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(Etcd::start());
    }
    assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "etcd is not installed");
    eprintln!("SKIP: etcd is not installed");
    None
}

impl Etcd {
    pub fn start() -> Etcd {
        Etcd::start_with(None)
    }

    /// `tls`: a directory with `ca.pem`, `server.pem`, `server.key`; clients must show a certificate too.
    pub fn start_with(tls: Option<PathBuf>) -> Etcd {
        let (client, peer) = (free_port(), free_port());
        let cluster = format!("0=http://127.0.0.1:{peer}");
        let mut etcd = Etcd { process: None, data: TempDir::new().unwrap(), restored: None, client, peer, tls, name: "0".into(), cluster };
        etcd.restart();
        etcd
    }

    /// Three members of one cluster.
    pub fn three() -> [Etcd; 3] {
        let peers = [free_port(), free_port(), free_port()];
        let cluster: Vec<String> = peers.iter().enumerate().map(|(n, peer)| format!("{n}=http://127.0.0.1:{peer}")).collect();
        [0, 1, 2].map(|n| {
            let (client, peer, name, cluster) = (free_port(), peers[n], n.to_string(), cluster.join(","));
            let mut etcd = Etcd { process: None, data: TempDir::new().unwrap(), restored: None, client, peer, tls: None, name, cluster };
            etcd.restart();
            etcd
        })
    }

    /// Again, on the same data and the same ports.
    pub fn restart(&mut self) {
        let client = format!("{}://127.0.0.1:{}", if self.tls.is_some() { "https" } else { "http" }, self.client);
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let mut command = Command::new("etcd");
        command.args(["--name", &self.name, "--data-dir"]).arg(self.restored.as_deref().unwrap_or(self.data.path()));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.cluster]);
        if let Some(dir) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(dir.join("ca.pem"));
            command.arg("--cert-file").arg(dir.join("server.pem")).arg("--key-file").arg(dir.join("server.key"));
        }
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn etcdctl(&self, args: &[&str], path: &Path) {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint(), "snapshot"]).args(args).arg(path);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A backup as people make it.
    pub fn snapshot(&self, to: &Path) {
        self.etcdctl(&["save"], to);
    }

    /// The member's data as of a backup; it does not run.
    pub fn restore(&mut self, from: &Path) {
        assert!(self.process.is_none());
        self.data = TempDir::new().unwrap();
        let data = self.data.path().join("restored");
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let data_text = data.display().to_string();
        let member = ["--name", &self.name, "--initial-cluster", &self.cluster, "--initial-advertise-peer-urls", &peer];
        self.etcdctl(&[&["restore", "--data-dir", &data_text], &member[..]].concat(), from);
        self.restored = Some(data);
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// A client of its own under a prefix; waits for etcd to be up.
    pub async fn connect(&self, prefix: &str) -> Arc<EtcdStore> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match EtcdStore::connect(&[self.endpoint()], EtcdTls::default(), prefix, None).await {
                Ok(store) => return store,
                Err(StoreError::Unreachable { .. }) if Instant::now() < until => sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    pub async fn raw(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.endpoint()], None).await.unwrap()
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
        // On a busy machine its threads run on for some milliseconds.
        while name == "-STOP" && !is_stopped(&id) {
            std::thread::yield_now();
        }
    }
}

/// Whether each thread of a process is stopped: state `T` of proc_pid_stat(5).
fn is_stopped(id: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok()).all(|stat| {
        let (_, after_name) = stat.rsplit_once(')').expect("a name in brackets");
        after_name.trim_start().starts_with('T')
    })
}

/// An authority, and certificates of a server at 127.0.0.1 and of a client, made by openssl.
pub fn certificates(dir: &Path) {
    let extensions = "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n\
                      [server]\nbasicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n\
                      [client]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
    std::fs::write(dir.join("openssl.cnf"), extensions).unwrap();
    for name in ["ca", "server", "client"] {
        let mut command = Command::new("openssl");
        command.current_dir(dir).args(["req", "-x509", "-config", "openssl.cnf", "-extensions", name, "-subj", &format!("/CN={name}")]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        if name != "ca" {
            command.args(["-CA", "ca.pem", "-CAkey", "ca.key"]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// This test binary again, running one of its tests as a program of its own.
pub struct Again {
    pub process: Child,
}

impl Again {
    /// `role` is what `child` in `tests/store.rs` does.
    pub fn start(role: &str, dir: &Path) -> Again {
        let exe: PathBuf = std::env::current_exe().unwrap();
        // A file size limit shall be an error of the write, as a full disk is, not a signal.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(exe);
        command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
        command.env("EMBODY_STORE_CHILD", role).env("EMBODY_STORE_DIR", dir);
        Again { process: command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap() }
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.kill();
    }
}
