//! `embody-agent run`, in the system: says hello once the system is up and, where there was an exchange, every half minute that it still is.
//!
//! Leaves out: what is reported after that. Invariant: it ends only when the controller heard a plain hello, or said that another start is the last one;
//! whether units failed is told and holds nothing up, and a controller that is away ends nothing. Shown by `tests/guests.py`.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use embody_protocol::{ALIVE_EVERY_S, Alive, Hello, Ready, Secret};

use crate::command_line::Exchange;
use crate::console::{chain, say};
use crate::controller::{Run, Said};
use crate::facts::Facts;
use crate::http::{self, Url};

const UP_WITHIN: Duration = Duration::from_secs(600);
/// Longer than `init::REBOOT_AFTER`: where it is not run, the machine starts anew first.
const INIT_WITHIN: Duration = Duration::from_secs(60);
/// As proc_pid_exe(5) shows a program whose file is gone.
const INITRDS: &str = "/init (deleted)";
const LOOK_EVERY: Duration = Duration::from_secs(1);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// sd_booted(3)
const SYSTEMD_RUNS: &str = "/run/systemd/system";

const ALIVE_EVERY: Duration = Duration::from_secs(ALIVE_EVERY_S);
/// linux/magic.h
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

pub fn main() -> ExitCode {
    let facts = match Facts::load() {
        Ok(facts) => facts,
        Err(error) => {
            say(&format!("what the start found out cannot be read: {error}: this system was not started by embody-agent"));
            return ExitCode::FAILURE;
        }
    };
    let exchange = match facts.exchange.as_deref().map(str::parse::<Exchange>).transpose() {
        Ok(exchange) => exchange,
        Err(error) => {
            say(&chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let stays = exchange.is_some();
    let Some(run) = exchange.map(Run::Secure).or_else(|| facts.run.as_deref().map(Run::new)) else {
        say("the command line had no embody.run: nobody is told that this system is up");
        return ExitCode::SUCCESS;
    };
    if !has_init() {
        say("the system's init is not run: hello is not said");
        return ExitCode::FAILURE;
    }
    wait_for(&facts.ready, facts.run.as_deref().map(Run::new).as_ref());
    let secret = facts.secret.clone().unwrap_or_default();
    let said = run.hello(&serde_json::to_string(&hello(facts)).unwrap_or_default());
    say(&format!("hello: {said:?}"));
    if stays && said == Said::Heard {
        stay(&run, &secret);
    }
    ExitCode::SUCCESS
}

fn hello(facts: Facts) -> Hello {
    let state = Path::new(SYSTEMD_RUNS).exists().then(state_once_up);
    let system = rustix::system::uname();
    Hello {
        secret: Secret(facts.secret.unwrap_or_default()),
        hostname: system.nodename().to_string_lossy().into_owned(),
        machine_id: word("/etc/machine-id"),
        boot_id: word(BOOT_ID),
        failed_units: state.is_some().then(failed_units).unwrap_or_default(),
        state,
        interface: facts.interface,
        mac: facts.mac,
        address: Some(facts.address.into()),
        kernel: system.release().to_string_lossy().into_owned(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// What the persona says is ready besides the system. How long that may take is the controller's to say, which is told what is waited for.
fn wait_for(ready: &Ready, plainly: Option<&Run>) {
    let mut told: Option<(Instant, String)> = None;
    loop {
        let Some(what) = ready.unit.as_deref().and_then(not_active).or_else(|| ready.http.as_deref().and_then(no_answer)) else { return };
        if told.as_ref().is_none_or(|(at, before)| *before != what || at.elapsed() >= ALIVE_EVERY) {
            if told.as_ref().is_none_or(|(_, before)| *before != what) {
                say(&format!("hello is said once it is ready: {what}"));
            }
            plainly.into_iter().for_each(|run| run.waits(&what));
            told = Some((Instant::now(), what));
        }
        sleep(LOOK_EVERY);
    }
}

/// What systemd says of a unit that is not active: inactive, activating, failed.
fn not_active(unit: &str) -> Option<String> {
    let asked = Command::new("systemctl").args(["is-active", unit]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    match asked {
        Ok(answer) if answer.status.success() => None,
        Ok(answer) => Some(format!("{unit} is {}", String::from_utf8_lossy(&answer.stdout).trim())),
        Err(error) => Some(format!("{unit}: systemctl: {error}")),
    }
}

fn no_answer(url: &str) -> Option<String> {
    match Url::parse(url).map(|of| http::status(&of)) {
        Ok(Ok(status)) if (200..400).contains(&status) => None,
        Ok(Ok(status)) => Some(format!("{url} answers {status}, expected 200 to 399")),
        Ok(Err(error)) => Some(format!("{url}: {}", chain(&error))),
        Err(error) => Some(format!("{url}: {}", chain(&error))),
    }
}

/// Until another start is the last one. Trouble is said once, and that it is over.
fn stay(run: &Run, secret: &str) {
    let mut told = None;
    loop {
        sleep(ALIVE_EVERY);
        let (written, written_most) = written();
        let alive = Alive { secret: Secret(secret.to_owned()), boot_id: word(BOOT_ID), written, written_most };
        match run.alive(&serde_json::to_string(&alive).unwrap_or_default()) {
            Ok(Said::Superseded) => return,
            Ok(_) => {
                if told.take().is_some() {
                    say("alive: the controller hears it again");
                }
            }
            Err(trouble) => {
                if told.as_ref() != Some(&trouble) {
                    say(&format!("alive: {trouble}; it is told again"));
                    told = Some(trouble);
                }
            }
        }
    }
}

/// An overlayfs tells how full the file system of its upper layer is (ovl_statfs of Linux): that is the memory of `root::overlay`.
fn written() -> (u64, u64) {
    let Ok(fs) = rustix::fs::statfs("/") else { return (0, 0) };
    if u64::try_from(fs.f_type) != Ok(OVERLAYFS_MAGIC) {
        return (0, 0);
    }
    let size = u64::try_from(fs.f_bsize).unwrap_or_default();
    (fs.f_blocks.saturating_sub(fs.f_bfree).saturating_mul(size), fs.f_blocks.saturating_mul(size))
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
