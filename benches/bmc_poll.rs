//! What a power poll costs: CPU time of our side, requests, and memory of a session that is kept open.
//!
//! The simulated BMCs are another process (this program again), so that their work is not counted. CPU time is that of the one thread that
//! does it all, from /proc/self/schedstat. Aim: at most 30 µs and one request for each poll. BMCS sets how many there are.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::drivers::bmc::ipmi::{BmcSocket, IpmiDriver, IpmiSettings};
use embody::testing::drivers::{Depth, Driver};
use embody::testing::model::fact::Tick;
use embody::testing::model::secret::{BmcLogin, Hidden};
use embody::testing::sim::bmc::{Bmc, BmcConfig};
use embody::testing::sim::rmcp::{Endpoint, Line, serve_many};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SERVE: &str = "--serve";
const LIMIT: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SERVE) {
        return runtime.block_on(simulate(arguments.next().unwrap_or_default().parse()?));
    }
    let bmcs = std::env::var("BMCS").ok().map_or(Ok(500), |n| n.parse())?;
    for suite in [3, 17] {
        runtime.block_on(measure(suite, bmcs))?;
    }
    Ok(())
}

// ---- the other process --------------------------------------------------------------------------------------------------

/// `SUITE:BMCS`. Prints the ports; then, for each line read, how many datagrams were heard. Ends with its input.
async fn simulate(what: Simulated) -> Result<(), Failure> {
    let mut served = Vec::new();
    let mut endpoints = Vec::new();
    let mut ports = Vec::new();
    for seed in 0..what.bmcs {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        ports.push(socket.local_addr()?.port().to_string());
        let config = BmcConfig { suites: vec![what.suite], ..BmcConfig::default() };
        let endpoint = Arc::new(Mutex::new(Endpoint::new(Bmc::new(config), seed)));
        endpoints.push(endpoint.clone());
        served.push((socket, endpoint));
    }
    println!("{}", ports.join(" "));
    let begun = Instant::now();
    let clock = move || Tick(begun.elapsed().as_micros() as u64);
    let answers = tokio::task::spawn_blocking(move || {
        for line in io::stdin().lock().lines() {
            line?;
            let heard: u64 = endpoints.iter().map(|f| f.lock().map_or(0, |f| f.heard())).sum();
            println!("{heard}");
        }
        Ok::<(), io::Error>(())
    });
    tokio::select! {
        biased;
        ended = answers => ended??,
        () = serve_many(served, clock, Line::default()) => {}
    }
    Ok(())
}

struct Simulated {
    suite: u8,
    bmcs: u64,
}

impl std::str::FromStr for Simulated {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let (suite, bmcs) = text.split_once(':').ok_or("expected SUITE:BMCS")?;
        Ok(Simulated { suite: suite.parse()?, bmcs: bmcs.parse()? })
    }
}

struct Simulator {
    process: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Simulator {
    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn heard(&mut self) -> Result<u64, Failure> {
        self.process.stdin.as_mut().ok_or("no pipe")?.write_all(b"\n")?;
        Ok(self.line()?.parse()?)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn simulator(suite: u8, bmcs: u64) -> Result<Simulator, Failure> {
    let mut process = Command::new(std::env::current_exe()?)
        .args([SERVE, &format!("{suite}:{bmcs}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = BufReader::new(process.stdout.take().ok_or("no pipe")?);
    Ok(Simulator { process, out })
}

// ---- our side -----------------------------------------------------------------------------------------------------------

/// Nanoseconds that this thread was on a CPU.
fn cpu() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("empty")?.parse()?)
}

/// Resident memory, in KiB.
fn memory() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

async fn poll_all(drivers: Vec<IpmiDriver>, times: u32) -> Result<Vec<IpmiDriver>, Failure> {
    let mut tasks = JoinSet::new();
    for mut driver in drivers {
        tasks.spawn(async move {
            for _ in 0..times {
                driver.observe(Depth::Power, Instant::now() + LIMIT).await?;
            }
            Ok::<_, Failure>(driver)
        });
    }
    let mut back = Vec::new();
    while let Some(driver) = tasks.join_next().await {
        back.push(driver??);
    }
    Ok(back)
}

struct Cost {
    label: &'static str,
    polls: u64,
    cpu: u64,
    wall: Duration,
    requests: u64,
}

impl Cost {
    fn print(&self, suite: u8) {
        let per = |n: u64| n as f64 / self.polls as f64;
        println!(
            "suite {suite:>2}, {:<12} {:>6.1} µs CPU, {:.3} requests for each of {} polls; {:>6.0} polls/s",
            self.label,
            per(self.cpu) / 1000.0,
            per(self.requests),
            self.polls,
            self.polls as f64 / self.wall.as_secs_f64()
        );
    }
}

async fn measure(suite: u8, bmcs: u64) -> Result<(), Failure> {
    const EACH: u32 = 40;
    let mut simulator = simulator(suite, bmcs)?;
    let ports = simulator.line()?;
    let socket = BmcSocket::bind().await?;
    let settings = IpmiSettings { spacing: Duration::ZERO, ..IpmiSettings::default() };
    let before = memory()?;
    let mut drivers = Vec::new();
    for port in ports.split(' ') {
        let login = BmcLogin { username: "admin".into(), password: Hidden::new("admin".into()), kg: None };
        let address = format!("127.0.0.1:{port}").parse()?;
        drivers.push(IpmiDriver::new(format!("bmc/{port}"), socket.clone(), address, login, settings.clone(), None));
    }
    let begun = (Instant::now(), cpu()?, simulator.heard()?);
    drivers = poll_all(drivers, 1).await?;
    let opened =
        Cost { label: "opening", polls: bmcs, cpu: cpu()? - begun.1, wall: begun.0.elapsed(), requests: simulator.heard()? - begun.2 };
    let each = (memory()?.saturating_sub(before)) as f64 / bmcs as f64;

    let begun = (Instant::now(), cpu()?, simulator.heard()?);
    drivers = poll_all(drivers, EACH).await?;
    let together = Cost {
        label: "all at once",
        polls: bmcs * u64::from(EACH),
        cpu: cpu()? - begun.1,
        wall: begun.0.elapsed(),
        requests: simulator.heard()? - begun.2,
    };

    let begun = (Instant::now(), cpu()?, simulator.heard()?);
    for _ in 0..EACH / 4 {
        for driver in &mut drivers {
            driver.observe(Depth::Power, Instant::now() + LIMIT).await?;
        }
    }
    let polls = bmcs * u64::from(EACH / 4);
    let single =
        Cost { label: "one by one", polls, cpu: cpu()? - begun.1, wall: begun.0.elapsed(), requests: simulator.heard()? - begun.2 };
    for cost in [&opened, &together, &single] {
        cost.print(suite);
    }
    println!("suite {suite:>2}, {each:.2} KiB for each session ({bmcs} sessions)");
    for driver in &mut drivers {
        driver.close().await;
    }
    Ok(())
}
