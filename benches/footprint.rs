//! What a running controller needs: resident memory idle, and for each server that it polls. The real program, embedded store, real sockets.
//!
//! The simulated BMCs are another process (this program again). Aims: at most 30 MB idle, at most 10 KB for each server. SERVERS sets how many.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use embody::testing::model::fact::Tick;
use embody::testing::sim::bmc::{Bmc, BmcConfig};
use embody::testing::sim::rmcp::{Endpoint, Line, serve_many};
use tokio::time::Instant;

const SERVE: &str = "--serve";
const PATIENCE: Duration = Duration::from_secs(180);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SERVE) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(simulate(arguments.next().unwrap_or_default().parse()?));
    }
    let servers: usize = std::env::var("SERVERS").ok().map_or(Ok(1000), |n| n.parse())?;
    measure(servers)
}

/// Prints the ports. Ends with its input.
async fn simulate(bmcs: u8) -> Result<(), Failure> {
    let (mut served, mut ports) = (Vec::new(), Vec::new());
    for seed in 0..u64::from(bmcs) * 100 {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        ports.push(socket.local_addr()?.port().to_string());
        let mut guid = [0xb5; 16];
        guid[..8].copy_from_slice(&seed.to_be_bytes());
        served.push((socket, Arc::new(Mutex::new(Endpoint::new(Bmc::new(BmcConfig { guid, ..BmcConfig::default() }), seed)))));
    }
    println!("{}", ports.join(" "));
    let begun = Instant::now();
    let clock = move || Tick(begun.elapsed().as_micros() as u64);
    let ended = tokio::task::spawn_blocking(|| io::stdin().lock().lines().map_while(Result::ok).count());
    tokio::select! {
        biased;
        _ = ended => {}
        () = serve_many(served, clock, Line::default()) => {}
    }
    Ok(())
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resident memory of a process, in KiB.
fn memory(process: &Running) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.0.id()))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn embody(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embody"));
    command.env("EMBODY_SERVER", format!("unix://{}", socket.display()));
    command
}

fn measure(servers: usize) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("embody.sock");
    let log = std::fs::File::create(dir.path().join("log"))?;
    let serve = embody(&socket).args(["serve", "--data"]).arg(dir.path().join("data")).stderr(log).spawn()?;
    let controller = Running(serve);
    wait(|| Ok(embody(&socket).args(["get", "policies"]).output()?.status.success()))?;
    std::thread::yield_now();
    let idle = memory(&controller)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([SERVE, &servers.div_ceil(100).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    let simulator = Running(child);
    let mut manifest = String::from(
        "apiVersion: embody.dev/v1alpha1\nkind: Secret\nmetadata: { name: bmc }\nstringData: { username: admin, password: admin }\n",
    );
    for (n, port) in line.split_whitespace().take(servers).enumerate() {
        manifest.push_str(&format!("---\napiVersion: embody.dev/v1alpha1\nkind: Server\nmetadata: {{ name: s{n} }}\nspec: {{ bmc: {{ address: \"127.0.0.1:{port}\", secretRef: {{ name: bmc }} }} }}\n"));
    }
    let mut apply = embody(&socket).args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    apply.stdin.take().ok_or("no pipe")?.write_all(manifest.as_bytes())?;
    if !apply.wait()?.success() {
        return Err("apply failed".into());
    }
    let applied = memory(&controller)?;
    // One by one, and few: a list of all of them leaves megabytes in the allocator, and would be measured.
    for n in [0, servers / 2, servers - 1] {
        wait(|| Ok(String::from_utf8(embody(&socket).args(["get", "server", &format!("s{n}")]).output()?.stdout)?.contains(" Off ")))?;
    }
    // The first poll of every worker comes within a second, and its status is written soon after.
    pause(Duration::from_secs(15));
    let seen = memory(&controller)?;
    let off = String::from_utf8(embody(&socket).args(["get", "servers"]).output()?.stdout)?.matches(" Off ").count();
    if off != servers {
        return Err(format!("{off} of {servers} servers were polled").into());
    }
    let listed = memory(&controller)?;
    println!("idle controller: {:.1} MB", idle as f64 / 1024.0);
    println!(
        "{servers} servers, all polled over kept sessions: {:.1} MB ({:.1} MB right after apply, {:.1} MB after a list of all), {:.1} KB for each server",
        seen as f64 / 1024.0,
        applied as f64 / 1024.0,
        listed as f64 / 1024.0,
        (seen - idle) as f64 / servers as f64
    );
    drop(simulator);
    Ok(())
}

fn wait(mut done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    #[allow(clippy::disallowed_methods)] // no runtime here, and nothing is decided by it
    let now = || SystemTime::now();
    let begun = now();
    while !done()? {
        if now().duration_since(begun)? > PATIENCE {
            return Err("it took too long".into());
        }
        pause(Duration::from_millis(200));
    }
    Ok(())
}

#[allow(clippy::disallowed_methods)] // no runtime here
fn pause(period: Duration) {
    std::thread::sleep(period);
}
