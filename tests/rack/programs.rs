//! The peers' processes: whether they are installed, and that each is ended by its id.
//!
//! Leaves out: what they are configured to do. Invariant: no process outlives its guard.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Whether a program is missing, and the run does not insist on its peers.
pub fn missing(programs: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let there = |program: &&str| path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]).any(|dir| Path::new(dir).join(program).exists());
    programs.iter().find(|p| !there(p)).is_some_and(|lacking| is_skipped_without(lacking))
}

/// Says so, and fails where the run insists on its peers.
pub fn is_skipped_without(lacking: &str) -> bool {
    assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{lacking} is not installed");
    eprintln!("SKIP: {lacking} is not installed");
    true
}

pub const PEERS: [&str; 7] = ["ipmi_sim", "ipmitool", "snmpd", "snmpset", "snmpbulkwalk", "python3", "flock"];

/// A process with its output in a file; it is killed when this is dropped.
pub struct Process {
    child: Child,
    /// Open as long as the process runs: `ipmi_sim` ends with its input.
    _input: Option<tokio::process::ChildStdin>,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Process {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let errors = file.try_clone().unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(file).stderr(errors).kill_on_drop(true).spawn().unwrap();
        let input = child.stdin.take();
        Process { child, _input: input }
    }

    /// SIGKILL, and gone when this returns.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    }

    pub async fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().await.unwrap()
    }
}

/// How much longer than on an idle machine things may take before a test gives up.
pub const PATIENCE: u32 = 4;

/// Waits for a condition; `what` and the last answer are told when it does not come. `within`: on an idle machine.
pub async fn until(what: &str, within: Duration, mut check: impl AsyncFnMut() -> Result<(), String>) {
    let within = within * PATIENCE;
    let deadline = Instant::now() + within;
    loop {
        match check().await {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < deadline, "{what} did not come within {within:?}: {why}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}
