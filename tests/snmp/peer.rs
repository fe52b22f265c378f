//! What the tests of this directory share: a real `snmpd`, a simulated agent on a socket, a manager with short timeouts.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::drivers::switch::snmp::{Agent, Oid, SnmpSocket, Timing, UdpAgent, Value};
use embody::testing::model::secret::{AuthProtocol, Hidden, PrivProtocol, SnmpLogin};
use embody::testing::sim::agent::{SimAgent, serve};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::free_port::free_port;

pub const AUTH_PASSWORD: &str = "authpass123";
pub const PRIV_PASSWORD: &str = "privpass123";

/// Short enough for tests of silence, long enough for a machine under load to answer.
pub const QUICK: Timing = Timing { read: Duration::from_millis(400), write: Duration::from_millis(1500), tries: 3 };
/// For peers that do answer: a slow machine must not fail a test.
pub const PATIENT: Timing = Timing { read: Duration::from_secs(4), write: Duration::from_secs(8), tries: 3 };

pub fn oid(text: &str) -> Oid {
    text.parse().unwrap()
}

pub fn text(value: &str) -> Value {
    Value::Octets(value.as_bytes().to_vec())
}

pub fn v2c(community: &str) -> SnmpLogin {
    SnmpLogin::V2c { community: Hidden::new(community.to_owned()) }
}

pub fn v3(username: &str, auth: AuthProtocol, privacy: PrivProtocol) -> SnmpLogin {
    v3_with(username, (auth, AUTH_PASSWORD), (privacy, PRIV_PASSWORD))
}

pub fn v3_with(username: &str, auth: (AuthProtocol, &str), privacy: (PrivProtocol, &str)) -> SnmpLogin {
    SnmpLogin::V3 {
        username: username.to_owned(),
        auth: auth.0,
        auth_password: Hidden::new(auth.1.to_owned()),
        privacy: privacy.0,
        priv_password: Hidden::new(privacy.1.to_owned()),
    }
}

/// A manager on a socket of its own.
pub fn manager(port: u16, login: SnmpLogin, timing: Timing) -> UdpAgent {
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    UdpAgent::new("tor1".to_owned(), SnmpSocket::bind().unwrap(), address, login, timing)
}

/// Whether the test must be skipped because this program is not installed. Where peers are required, it fails instead.
pub fn missing(program: &str) -> bool {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    folders.push("/usr/sbin".into());
    if folders.iter().any(|folder| folder.join(program).is_file()) {
        return false;
    }
    assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{program} is not installed");
    eprintln!("SKIP: {program} is not installed");
    true
}

/// Debian's agent with a configuration and a folder of its own. Killed when dropped.
pub struct Snmpd {
    child: Child,
    pub port: u16,
    folder: TempDir,
}

impl Snmpd {
    /// On a free port, with the community `public` to read and `private` to write, and what `more` says.
    pub async fn start(more: &str) -> Snmpd {
        let port = free_port();
        let folder = TempDir::new().unwrap();
        let child = launch(&folder, port, more);
        let snmpd = Snmpd { child, port, folder };
        snmpd.answers().await;
        snmpd
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same port, another configuration.
    pub async fn restart(&mut self, more: &str) {
        self.kill();
        self.child = launch(&self.folder, self.port, more);
        self.answers().await;
    }

    async fn answers(&self) {
        let mut manager = manager(self.port, v2c("public"), Timing { read: Duration::from_millis(250), tries: 1, ..QUICK });
        for _ in 0..240 {
            if manager.get(&[oid("1.3.6.1.2.1.1.3.0")]).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("snmpd does not answer; it said:\n{log}");
    }
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn launch(folder: &TempDir, port: u16, more: &str) -> Child {
    let at = |name: &str| folder.path().join(name);
    let common = format!("agentaddress udp:127.0.0.1:{port}\nrocommunity public\nrwcommunity private\n");
    std::fs::write(at("snmpd.conf"), common + more).unwrap();
    let log = std::fs::File::create(at("log")).unwrap();
    Command::new("snmpd")
        .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
        .env("SNMP_PERSISTENT_DIR", at("state"))
        .args(["-C", "-r", "-f", "-Lo", "-I", "-smux,mteTrigger,mteTriggerConf", "-c"])
        .arg(at("snmpd.conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A simulated agent on a loopback port.
pub struct Simulated {
    pub agent: Arc<Mutex<SimAgent>>,
    pub port: u16,
    task: JoinHandle<std::io::Result<()>>,
}

impl Simulated {
    pub async fn start(agent: SimAgent) -> Simulated {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let agent = Arc::new(Mutex::new(agent));
        Simulated { agent: agent.clone(), port, task: tokio::spawn(serve(socket, agent)) }
    }

    pub fn change(&self, change: impl FnOnce(&mut SimAgent)) {
        change(&mut self.agent.lock().unwrap());
    }

    pub fn requests(&self) -> u64 {
        self.counts().0
    }

    /// Requests answered, and Reports.
    pub fn counts(&self) -> (u64, u32) {
        let agent = self.agent.lock().unwrap();
        (agent.requests(), agent.reports())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.task.abort();
    }
}
