//! `embody-agent run`, in the system: says hello once the system is up.
//!
//! Leaves out: what is reported after that. Invariant: it ends only when the controller heard it, or said that another start is the last one; whether
//! units failed is told and holds nothing up. Shown by `tests/guests.py`.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::console::say;
use crate::controller::Run;
use crate::facts::Facts;

const UP_WITHIN: Duration = Duration::from_secs(600);
/// Longer than `init::REBOOT_AFTER`: where it is not run, the machine starts anew first.
const INIT_WITHIN: Duration = Duration::from_secs(60);
/// As proc_pid_exe(5) shows a program whose file is gone.
const INITRDS: &str = "/init (deleted)";
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// sd_booted(3)
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// What is known of a system that is up.
#[derive(Serialize)]
struct Hello {
    hostname: String,
    machine_id: Option<String>,
    /// Of the kernel: another one after each start.
    boot_id: Option<String>,
    /// As `systemctl is-system-running` says it; none: there is no systemd.
    state: Option<String>,
    /// As `systemctl list-units --failed` names them.
    failed_units: Vec<String>,
    interface: String,
    mac: String,
    address: std::net::Ipv4Addr,
    kernel: String,
    agent: &'static str,
}

pub fn main() -> ExitCode {
    let facts = match Facts::load() {
        Ok(facts) => facts,
        Err(error) => {
            say(&format!("what the start found out cannot be read: {error}: this system was not started by embody-agent"));
            return ExitCode::FAILURE;
        }
    };
    let Some(run) = facts.run.as_deref().map(Run::new) else {
        say("the command line had no embody.run: nobody is told that this system is up");
        return ExitCode::SUCCESS;
    };
    if !has_init() {
        say("the system's init is not run: hello is not said");
        return ExitCode::FAILURE;
    }
    let state = Path::new(SYSTEMD_RUNS).exists().then(state_once_up);
    let system = rustix::system::uname();
    let hello = Hello {
        hostname: system.nodename().to_string_lossy().into_owned(),
        machine_id: word("/etc/machine-id"),
        boot_id: word("/proc/sys/kernel/random/boot_id"),
        failed_units: state.is_some().then(failed_units).unwrap_or_default(),
        state,
        interface: facts.interface,
        mac: facts.mac,
        address: facts.address,
        kernel: system.release().to_string_lossy().into_owned(),
        agent: env!("CARGO_PKG_VERSION"),
    };
    let said = run.hello(&serde_json::to_string(&hello).unwrap_or_default());
    say(&format!("hello: {said:?}"));
    ExitCode::SUCCESS
}

/// Where there is no systemd this is begun before process 1 becomes the system's init: until then it is the initrd's, whose file is gone.
fn has_init() -> bool {
    let begun = Instant::now();
    while std::fs::read_link("/proc/1/exe").is_ok_and(|program| program == Path::new(INITRDS)) {
        if begun.elapsed() > INIT_WITHIN {
            return false;
        }
        sleep(INIT_WITHIN / 600);
    }
    true
}

fn state_once_up() -> String {
    let begun = Instant::now();
    loop {
        let asked = Command::new("systemctl").arg("is-system-running").stdin(Stdio::null()).stderr(Stdio::null()).output();
        // Its exit status says less than its word.
        let state = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let is_settled = matches!(state.as_str(), "running" | "degraded" | "maintenance" | "stopping");
        if is_settled || begun.elapsed() > UP_WITHIN {
            return if state.is_empty() { "unknown".to_owned() } else { state };
        }
        sleep(LOOK_EVERY);
    }
}

fn failed_units() -> Vec<String> {
    let mut asks = Command::new("systemctl");
    asks.args(["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]).stdin(Stdio::null()).stderr(Stdio::null());
    let said = asks.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn word(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
