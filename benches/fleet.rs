//! What a fleet costs: the real program, embedded store, real sockets; the devices are `embody sim` in another process on the same machine.
//!
//! For each size: everything is off and in VLAN 1 at first, until all bindings are Ready; then at rest. FLEETS sets the sizes, as SERVERS/SWITCHES:
//! `FLEETS=200/5,2000/50`. Within WITHIN seconds (300) or not at all. CPU is the controller's alone, user and system.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a fleet at rest is watched.
const REST: Duration = Duration::from_secs(60);
/// Between two looks at how far it is: each look is a list of all bindings, which costs as well.
const LOOK: Duration = Duration::from_secs(2);
/// USER_HZ, proc(5): what /proc counts CPU time in on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Ended by its id.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[allow(clippy::disallowed_methods)] // no runtime here, and nothing is decided by it
fn now() -> SystemTime {
    SystemTime::now()
}

#[allow(clippy::disallowed_methods)] // no runtime here
fn pause(period: Duration) {
    std::thread::sleep(period);
}

fn main() -> Result<(), Failure> {
    let fleets = std::env::var("FLEETS").unwrap_or_else(|_| "200/5,2000/50".to_owned());
    let within: u64 = std::env::var("WITHIN").ok().map_or(Ok(300), |n| n.parse())?;
    println!("| servers | switches | apply | all Ready | CPU until then | per server | at rest | memory | per server |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for fleet in fleets.split(',') {
        let (servers, switches) = fleet.split_once('/').ok_or("FLEETS: expected SERVERS/SWITCHES")?;
        println!("{}", row(servers.parse()?, switches.parse()?, Duration::from_secs(within))?);
    }
    Ok(())
}

fn row(servers: usize, switches: usize, within: Duration) -> Result<String, Failure> {
    let place = tempfile::tempdir()?;
    let (fleet, socket) = (place.path().join("fleet"), place.path().join("embody.sock"));
    let port = UdpSocket::bind("127.96.0.1:0")?.local_addr()?.port();
    let mut sim = Command::new(env!("CARGO_BIN_EXE_embody"));
    sim.args(["sim", "--servers", &servers.to_string(), "--switches", &switches.to_string(), "--port", &port.to_string(), "--write"]);
    let mut devices = Running(sim.arg(&fleet).stdout(Stdio::piped()).spawn()?);
    let mut ready = String::new();
    BufReader::new(devices.0.stdout.take().ok_or("no pipe")?).read_line(&mut ready)?;
    let log = std::fs::File::create(place.path().join("log"))?;
    let controller = Running(embody(&socket).args(["serve", "--data"]).arg(place.path().join("data")).stderr(log).spawn()?);
    let begun = now();
    while !embody(&socket).args(["get", "policies"]).stderr(Stdio::null()).output()?.status.success() {
        if now().duration_since(begun)? > within {
            return Err("the controller does not answer".into());
        }
        pause(Duration::from_millis(50));
    }
    let (idle, begun) = (memory(&controller)?, now());
    if !embody(&socket).args(["apply", "-f"]).arg(&fleet).stdout(Stdio::null()).status()?.success() {
        return Err("apply failed".into());
    }
    let applied = now().duration_since(begun)?;
    let (mut are, mut taken) = (0, Duration::ZERO);
    let mut cpu_until = cpu(&controller)?;
    while are < servers && taken < within {
        pause(LOOK);
        (cpu_until, taken) = (cpu(&controller)?, now().duration_since(begun)?);
        let listed = String::from_utf8(embody(&socket).args(["get", "bindings"]).output()?.stdout)?;
        are = listed.lines().filter(|line| line.split_whitespace().nth(3) == Some("True")).count();
    }
    if are < servers {
        let so_far = format!("{are} of them within {} s", taken.as_secs());
        return Ok(format!("| {servers} | {switches} | {:.1} s | {so_far} | {cpu_until:.1} s | | | | |", applied.as_secs_f64()));
    }
    // What is still written of the way there is not the rest.
    pause(Duration::from_secs(20));
    let (before, began) = (cpu(&controller)?, now());
    pause(REST);
    let rest = (cpu(&controller)? - before) / now().duration_since(began)?.as_secs_f64() * 100.0;
    let memory = memory(&controller)?;
    Ok(format!(
        "| {servers} | {switches} | {:.1} s | {:.0} s | {cpu_until:.1} s | {:.1} ms | {rest:.1} % of a core | {:.0} MB | {:.0} KB |",
        applied.as_secs_f64(),
        taken.as_secs_f64(),
        cpu_until * 1000.0 / servers as f64,
        memory as f64 / 1024.0,
        memory.saturating_sub(idle) as f64 / servers as f64
    ))
}

fn embody(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embody"));
    command.env("EMBODY_SERVER", format!("unix://{}", socket.display()));
    command
}

/// CPU seconds of a process, its ended threads among them: fields 14 and 15 of stat, proc(5).
fn cpu(process: &Running) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id()))?;
    // Behind the name, which may hold anything: from field 3 on.
    let fields: Vec<&str> = text.rsplit_once(')').ok_or("no name in stat")?.1.split_whitespace().collect();
    let ticks = |n: usize| -> Result<f64, Failure> { Ok(fields.get(n).ok_or("stat is short")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Resident memory of a process, in KiB.
fn memory(process: &Running) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.0.id()))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
