//! What a poll of a 48-port switch costs: requests and CPU time of our side, over real sockets, v2c.
//!
//! The simulated switch is another process (this program again). Aim: at most 3 requests for each poll. VLANS sets how many VLANs it has.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::drivers::switch::snmp::{SnmpSocket, Timing, UdpAgent};
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings};
use embody::testing::drivers::{Depth, Driver};
use embody::testing::model::Vlan;
use embody::testing::model::secret::{Hidden, SnmpLogin};
use embody::testing::sim::agent::{Access, SimAgent, serve};
use embody::testing::sim::switch::{Kind, SimSwitch};
use tokio::time::Instant;

const SERVE: &str = "--serve";
const PORTS: u32 = 48;
const POLLS: u64 = 500;
const LIMIT: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SERVE) {
        return runtime.block_on(simulate(arguments.next().unwrap_or_default().parse()?));
    }
    let vlans: u16 = std::env::var("VLANS").ok().map_or(Ok(10), |n| n.parse())?;
    runtime.block_on(measure(vlans))
}

/// Prints the port; then, for each line read, how many requests were answered. Ends with its input.
async fn simulate(vlans: u16) -> Result<(), Failure> {
    let mut switch = SimSwitch::new(Kind::QBridge, "bench", PORTS);
    for id in 0..vlans.saturating_sub(1) {
        switch.add_vlan(Vlan::try_from(i64::from(100 + id))?);
    }
    let agent = SimAgent::new(Box::new(switch), 1).with_community("public", Access::Read);
    let agent = Arc::new(Mutex::new(agent));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    println!("{}", socket.local_addr()?.port());
    let counted = Arc::clone(&agent);
    let answers = tokio::task::spawn_blocking(move || {
        for line in io::stdin().lock().lines() {
            line?;
            println!("{}", counted.lock().map_or(0, |a| a.requests()));
        }
        Ok::<(), io::Error>(())
    });
    tokio::select! {
        biased;
        ended = answers => ended??,
        served = serve(socket, agent) => served?,
    }
    Ok(())
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

    fn requests(&mut self) -> Result<u64, Failure> {
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

/// Nanoseconds that this thread was on a CPU.
fn cpu() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("empty")?.parse()?)
}

async fn measure(vlans: u16) -> Result<(), Failure> {
    let mut process =
        Command::new(std::env::current_exe()?).args([SERVE, &vlans.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let out = BufReader::new(process.stdout.take().ok_or("no pipe")?);
    let mut simulator = Simulator { process, out };
    let address = format!("127.0.0.1:{}", simulator.line()?).parse()?;
    let login = SnmpLogin::V2c { community: Hidden::new("public".into()) };
    let agent = UdpAgent::new("bench".into(), SnmpSocket::bind()?, address, login, Timing::default());
    let mut driver = SwitchDriver::new("bench".into(), Box::new(agent), SwitchSettings { read_only: true, ..SwitchSettings::default() });
    driver.observe(Depth::Everything, Instant::now() + LIMIT).await?;
    let first = simulator.requests()?;
    let (begun, cpu_before) = (Instant::now(), cpu()?);
    for _ in 0..POLLS {
        driver.observe(Depth::State, Instant::now() + LIMIT).await?;
    }
    let (wall, cpu_used) = (begun.elapsed(), cpu()? - cpu_before);
    let requests = simulator.requests()? - first;
    println!(
        "{PORTS} ports, {vlans} VLANs: {:.2} requests and {:.0} µs CPU for each poll, {:.1} ms; the first poll at everything took {first} requests",
        requests as f64 / POLLS as f64,
        cpu_used as f64 / POLLS as f64 / 1e3,
        wall.as_secs_f64() * 1e3 / POLLS as f64
    );
    Ok(())
}
