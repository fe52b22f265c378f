//! What a fleet costs: the real program, embedded store, real sockets; the devices are `embody sim` in another process on the same machine.
//!
//! For each size: an apply of everything, of the same again, and of one object more; everything is off and in VLAN 1 at first, until all bindings are
//! Ready; then at rest; then a new process on the same store. BUTTONS servers (20) are switched off by ipmitool. FLEETS sets the
//! sizes, as SERVERS/SWITCHES: `FLEETS=200/5,2000/50`. Within WITHIN seconds (300) or not at all. CPU is the controller's alone, user and system.
//!
//! Then a sweep: a new process, until it has the power of 200 servers, of which one in twenty is silent, and of those alone that share their Secret with
//! silent ones. Beside them, where they are installed: ipmitool, ipmipower and snmpbulkwalk at the same devices, etcd with as many bytes.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a fleet at rest is watched.
const REST: Duration = Duration::from_secs(60);
/// Between two looks at how far it is: each look is a list of all bindings, which costs as well.
const LOOK: Duration = Duration::from_secs(2);
/// USER_HZ, proc(5): what /proc counts CPU time in on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of the Policy: how often a BMC is asked.
const POLL_EVERY: f64 = 20.0;

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

fn since(begun: SystemTime) -> f64 {
    now().duration_since(begun).unwrap_or_default().as_secs_f64()
}

fn number(name: &str, otherwise: usize) -> Result<usize, Failure> {
    Ok(std::env::var(name).ok().map_or(Ok(otherwise), |n| n.parse())?)
}

fn main() -> Result<(), Failure> {
    let fleets = std::env::var("FLEETS").unwrap_or_else(|_| "200/5,2000/50".to_owned());
    let (within, buttons) = (number("WITHIN", 300)?, number("BUTTONS", 20)?);
    for fleet in fleets.split(',') {
        let (servers, switches) = fleet.split_once('/').ok_or("FLEETS: expected SERVERS/SWITCHES")?;
        let site = Site::start(servers.parse()?, switches.parse()?)?;
        println!("{servers} servers, {switches} switches");
        if site.becomes_ready(within as f64)? {
            site.rests()?;
            site.button(buttons)?;
            site.starts_again(within as f64)?;
        }
    }
    for (what, servers, faults) in SWEEPS {
        sweep(what, servers, faults)?;
    }
    beside()?;
    etcd()
}

/// What is swept: how many servers, and which of them hear nothing.
const SWEEPS: [(&str, usize, &str); 3] = [
    ("200 servers, all there", 200, "[]"),
    ("200 servers, one in twenty silent", 200, "[{ at: 0s, silence: { percent: 5, for: 1h } }]"),
    ("44 servers of one Secret, 40 of them silent", 44, "[{ at: 0s, silence: { percent: 91, for: 1h } }]"),
];

/// From the start of a process until it knows the power of all that answer, by its log.
fn sweep(what: &str, servers: usize, faults: &str) -> Result<(), Failure> {
    let mut site = Site::start_with(servers, 5, faults)?;
    site.apply(&site.path("fleet"))?;
    pause(Duration::from_secs(5));
    Command::new("kill").arg(site.controller.0.id().to_string()).status()?;
    site.controller.0.wait()?;
    std::fs::write(site.path("log"), "")?;
    let begun = now();
    let begun_at = begun.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    site.controller = serve_loud(site.devices.place.path(), "embody=debug")?;
    // A silent one is known to be silent after twenty seconds; nothing new comes any more.
    pause(Duration::from_secs(15));
    let log = std::fs::read_to_string(site.path("log"))?;
    let mut known = std::collections::BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(" reconciled ") && !line.contains("PowerUnknown")) {
        let at: jiff::Timestamp = line.split_whitespace().next().unwrap_or_default().parse()?;
        let server = line.split("server=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        known.entry(server.to_owned()).or_insert(at.as_duration().as_secs_f64() - begun_at);
    }
    let mut times: Vec<f64> = known.into_values().collect();
    times.sort_by(f64::total_cmp);
    let (median, last) = (times.get(times.len() / 2).copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    println!(
        "a sweep of {what}: {} of them after {last:.2} s, half of them after {median:.2} s, the start of the process included",
        times.len()
    );
    Ok(())
}

/// Other programs at the devices of 200 servers.
fn beside() -> Result<(), Failure> {
    // ipmipower knows one port alone.
    let Ok(free) = UdpSocket::bind("127.96.0.1:623") else {
        println!("beside: nothing, since UDP port 623 cannot be had");
        return Ok(());
    };
    drop(free);
    for (what, faults) in [("200 servers", "[]"), ("200 servers, one in twenty silent", SWEEPS[1].2)] {
        let devices = Devices::start(200, 5, 623, faults)?;
        let hosts = (1..=200).map(|n| format!("127.96.0.{n}")).collect::<Vec<_>>().join(",");
        let stat = ["--stat", "-h", &hosts, "-u", "ADMIN", "-p", "fleet", "-D", "LAN_2_0", "-I", "17"];
        ran(&format!("ipmipower, {what}"), 200, Command::new("ipmipower").args(stat))?;
        drop(devices);
    }
    let devices = Devices::start(200, 5, 623, "[]")?;
    let mut one = Command::new("ipmitool");
    one.args(["-I", "lanplus", "-C", "17", "-H", "127.96.0.1", "-U", "ADMIN", "-P", "fleet", "chassis", "power", "status"]);
    ran("ipmitool, one server", 1, &mut one)?;
    drop(devices);
    let devices = Devices::start(40, 1, 6230, "[]")?;
    let mut walk = Command::new("snmpbulkwalk");
    // Q-BRIDGE-MIB::dot1qVlanStaticTable, which is a third of what embody asks.
    ran("snmpbulkwalk, the VLANs of one switch", 1, walk.args(["-v2c", "-c", "fleet", "127.64.0.1:6230", "1.3.6.1.2.1.17.7.1.4.3"]))?;
    drop(devices);
    Ok(())
}

/// How long a program takes, and its CPU: ten times, or as often as it can be begun within five seconds.
fn ran(what: &str, devices: usize, program: &mut Command) -> Result<(), Failure> {
    program.stdout(Stdio::null()).stderr(Stdio::null());
    let (begun, before, mut times) = (now(), cpu_of_children()?, 0.0);
    while times < 10.0 && since(begun) < 5.0 {
        if program.status().is_err() {
            println!("beside: {what}: it is not installed");
            return Ok(());
        }
        times += 1.0;
    }
    let (took, used) = (since(begun) / times, (cpu_of_children()? - before) / times);
    println!("beside: {what}: {took:.2} s, {:.0} us of CPU per device", used * 1e6 / devices as f64);
    Ok(())
}

/// CPU seconds of the children of this process that have ended: fields 16 and 17 of stat, proc(5).
fn cpu_of_children() -> Result<f64, Failure> {
    cpu_in(&std::fs::read_to_string("/proc/self/stat")?, [13, 14])
}

/// An etcd alone takes as many bytes as an apply of 2,000 servers brings, a hundred to a transaction.
fn etcd() -> Result<(), Failure> {
    let (place, ports) = (tempfile::tempdir()?, [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?]);
    let [client, peer] = ports.map(|socket| socket.local_addr().map(|at| format!("http://127.0.0.1:{}", at.port())));
    let (client, peer) = (client?, peer?);
    let mut server = Command::new("etcd");
    server.args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
    server.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}"), "--data-dir"]);
    let Ok(child) = server.arg(place.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("beside: etcd is not installed");
        return Ok(());
    };
    let _server = Running(child);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let begun = now();
        let mut client = loop {
            if let Ok(mut client) = etcd_client::Client::connect([&client], None).await
                && client.status().await.is_ok()
            {
                break client;
            }
            if since(begun) > 30.0 {
                return Err("etcd does not answer".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        const OBJECTS: usize = 4_256;
        // What one object of such a fleet takes in the store.
        let value = vec![b'x'; 700];
        let begun = now();
        for first in (0..OBJECTS).step_by(100) {
            let puts = (first..OBJECTS.min(first + 100)).map(|n| etcd_client::TxnOp::put(format!("/bench/{n:05}"), value.clone(), None));
            client.txn(etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>())).await?;
        }
        println!("beside: etcd alone, {OBJECTS} objects in transactions of 100: {:.2} s", since(begun));
        Ok(())
    })
}

/// The devices of a fleet.
struct Devices {
    _process: Running,
    place: tempfile::TempDir,
}

impl Devices {
    fn start(servers: usize, switches: usize, port: u16, faults: &str) -> Result<Devices, Failure> {
        let place = tempfile::tempdir()?;
        std::fs::write(place.path().join("faults.yaml"), faults)?;
        let mut sim = Command::new(env!("CARGO_BIN_EXE_embody"));
        sim.args(["sim", "--servers", &servers.to_string(), "--switches", &switches.to_string(), "--port", &port.to_string()]);
        sim.arg("--faults").arg(place.path().join("faults.yaml")).arg("--write").arg(place.path().join("fleet"));
        let mut process = Running(sim.stdout(Stdio::piped()).spawn()?);
        let mut ready = String::new();
        BufReader::new(process.0.stdout.take().ok_or("no pipe")?).read_line(&mut ready)?;
        Ok(Devices { _process: process, place })
    }
}

/// A fleet, and the controller of it.
struct Site {
    servers: usize,
    devices: Devices,
    port: u16,
    controller: Running,
}

impl Site {
    fn start(servers: usize, switches: usize) -> Result<Site, Failure> {
        Site::start_with(servers, switches, "[]")
    }

    fn start_with(servers: usize, switches: usize, faults: &str) -> Result<Site, Failure> {
        let port = UdpSocket::bind("127.96.0.1:0")?.local_addr()?.port();
        let devices = Devices::start(servers, switches, port, faults)?;
        let controller = serve(devices.place.path())?;
        Ok(Site { servers, devices, port, controller })
    }

    fn embody(&self) -> Command {
        embody(&self.devices.place.path().join("embody.sock"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.devices.place.path().join(name)
    }

    fn apply(&self, what: &Path) -> Result<f64, Failure> {
        let begun = now();
        match self.embody().args(["apply", "-f"]).arg(what).stdout(Stdio::null()).status()?.success() {
            true => Ok(since(begun)),
            false => Err("apply failed".into()),
        }
    }

    /// What `get` says, as lines.
    fn get(&self, kind: &str) -> Result<Vec<String>, Failure> {
        let said = self.embody().args(["get", kind]).output()?.stdout;
        Ok(String::from_utf8(said)?.lines().map(str::to_owned).collect())
    }

    /// The newest revision of an object.
    fn revision(&self) -> Result<u64, Failure> {
        let mut newest = 0;
        for kind in ["bindings", "servers", "switches", "policies"] {
            let text = String::from_utf8(self.embody().args(["get", kind, "-o", "json"]).output()?.stdout)?;
            let revisions = text.lines().filter_map(|line| line.trim().strip_prefix("\"resourceVersion\": \""));
            let revisions = revisions.filter_map(|rest| rest.trim_end_matches(['"', ',']).parse::<u64>().ok());
            newest = revisions.max().unwrap_or(0).max(newest);
        }
        Ok(newest)
    }

    fn log_lines(&self) -> Result<usize, Failure> {
        Ok(std::fs::read_to_string(self.path("log"))?.lines().count())
    }

    fn becomes_ready(&self, within: f64) -> Result<bool, Failure> {
        let (idle, begun) = (memory(&self.controller)?, now());
        let applied = self.apply(&self.path("fleet"))?;
        let (mut are, mut taken, mut cpu_until) = (0, 0.0, cpu(&self.controller)?);
        while are < self.servers && taken < within {
            pause(LOOK);
            (cpu_until, taken) = (cpu(&self.controller)?, since(begun));
            are = self.get("bindings")?.iter().filter(|line| line.split_whitespace().nth(3) == Some("True")).count();
        }
        println!("  apply of everything: {applied:.2} s");
        if are < self.servers {
            println!("  all Ready: {are} of them within {taken:.0} s; CPU {cpu_until:.1} s");
            return Ok(false);
        }
        println!("  all Ready after {taken:.0} s; CPU {cpu_until:.1} s, {:.2} ms per server", cpu_until * 1e3 / self.servers as f64);
        let again = self.apply(&self.path("fleet"))?;
        let one = self.path("one.yaml");
        std::fs::write(&one, "apiVersion: embody.dev/v1alpha1\nkind: Network\nmetadata: { name: one-more }\nspec: { vlan: 77 }\n")?;
        let one = self.apply(&one)?;
        println!("  apply of the same again: {again:.2} s; of one object more: {one:.2} s");
        let memory = memory(&self.controller)?;
        let each = memory.saturating_sub(idle) as f64 / self.servers as f64;
        println!("  memory: {:.0} MB, {each:.0} KB per server", memory as f64 / 1024.0);
        Ok(true)
    }

    fn rests(&self) -> Result<(), Failure> {
        // What is still written of the way there is not the rest.
        pause(Duration::from_secs(20));
        let (revision, lines) = (self.revision()?, self.log_lines()?);
        let (before, began) = (cpu(&self.controller)?, now());
        pause(REST);
        let (used, took) = (cpu(&self.controller)? - before, since(began));
        let polls = self.servers as f64 * took / POLL_EVERY;
        println!(
            "  at rest: {:.1} % of a core, {:.0} us per poll of a BMC, its share of the switches included; {} writes, {} lines in the log; {:.0} MB",
            used * 100.0 / took,
            used * 1e6 / polls,
            self.revision()? - revision,
            self.log_lines()? - lines,
            memory(&self.controller)? as f64 / 1024.0
        );
        Ok(())
    }

    /// Servers that somebody switches off, one after the other.
    fn button(&self, buttons: usize) -> Result<(), Failure> {
        let power = |n: usize, word: &str| -> Option<String> {
            let address = Ipv4Addr::from(0x7f60_0001 + u32::try_from(n).ok()?).to_string();
            let mut ipmitool = Command::new("ipmitool");
            ipmitool.args(["-I", "lanplus", "-C", "17", "-H", &address, "-p", &self.port.to_string(), "-U", "ADMIN", "-P", "fleet"]);
            String::from_utf8(ipmitool.args(["chassis", "power", word]).stderr(Stdio::null()).output().ok()?.stdout).ok()
        };
        let mut took = Vec::new();
        for n in 0..buttons {
            let server = n * self.servers / buttons;
            if power(server, "off").is_none() {
                println!("  a button: ipmitool is not installed");
                return Ok(());
            }
            let begun = now();
            // It takes its time to go off, and is off until embody has looked.
            for word in ["is off", "is on"] {
                while power(server, "status").is_none_or(|said| !said.contains(word)) && since(begun) < 120.0 {
                    pause(Duration::from_millis(200));
                }
            }
            took.push(since(begun));
        }
        took.sort_by(f64::total_cmp);
        if let (Some(median), Some(longest)) = (took.get(took.len() / 2), took.last()) {
            println!("  a button, until it is on again: {median:.1} s (median of {}), {longest:.1} s (longest)", took.len());
        }
        Ok(())
    }

    /// Another process on the same store, until it has asked all devices.
    fn starts_again(mut self, within: f64) -> Result<(), Failure> {
        let revision = self.revision()?;
        let stopped = Command::new("kill").arg(self.controller.0.id().to_string()).status()?;
        if !stopped.success() || !self.controller.0.wait()?.success() {
            return Err("the controller did not end as it should".into());
        }
        let begun = now();
        self.controller = serve(self.devices.place.path())?;
        let mut unasked: Vec<usize> = (0..50).map(|n| n * self.servers / 50).collect();
        while !unasked.is_empty() && since(begun) < within {
            let is_unasked = |n: &usize| {
                let why = self
                    .embody()
                    .args(["why", &format!("server/server-{n:05}")])
                    .output()
                    .ok()
                    .and_then(|o| String::from_utf8(o.stdout).ok());
                why.is_none_or(|why| !why.contains("asked "))
            };
            unasked.retain(is_unasked);
        }
        println!(
            "  cold start: 50 of them asked after {:.1} s; CPU {:.1} s; {} not Ready; {} writes; {:.0} MB",
            since(begun),
            cpu(&self.controller)?,
            self.get("bindings")?.iter().skip(1).filter(|line| line.split_whitespace().nth(3) != Some("True")).count(),
            self.revision()? - revision,
            memory(&self.controller)? as f64 / 1024.0
        );
        std::io::stdout().flush()?;
        Ok(())
    }
}

fn serve(place: &Path) -> Result<Running, Failure> {
    serve_loud(place, "info")
}

fn serve_loud(place: &Path, level: &str) -> Result<Running, Failure> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.join("log"))?;
    let socket = place.join("embody.sock");
    let controller =
        Running(embody(&socket).args(["serve", "--data"]).arg(place.join("data")).env("EMBODY_LOG", level).stderr(log).spawn()?);
    let begun = now();
    while !embody(&socket).args(["get", "policies"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
        if since(begun) > 60.0 {
            return Err("the controller does not answer".into());
        }
        pause(Duration::from_millis(50));
    }
    Ok(controller)
}

fn embody(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embody"));
    command.env("EMBODY_SERVER", format!("unix://{}", socket.display()));
    command
}

/// CPU seconds of a process, its ended threads among them: fields 14 and 15 of stat, proc(5).
fn cpu(process: &Running) -> Result<f64, Failure> {
    cpu_in(&std::fs::read_to_string(format!("/proc/{}/stat", process.0.id()))?, [11, 12])
}

/// These fields of stat, counted behind the name, which may hold anything: from field 3 on.
fn cpu_in(stat: &str, wanted: [usize; 2]) -> Result<f64, Failure> {
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no name in stat")?.1.split_whitespace().collect();
    let ticks = |n: usize| -> Result<f64, Failure> { Ok(fields.get(n).ok_or("stat is short")?.parse()?) };
    Ok((ticks(wanted[0])? + ticks(wanted[1])?) / TICKS_PER_SECOND)
}

/// Resident memory of a process, in KiB.
fn memory(process: &Running) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.0.id()))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
