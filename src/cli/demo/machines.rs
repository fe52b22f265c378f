//! `embody demo --rack`: the demo with machines. QEMU's firmware asks, `embody` gives it an address, a script, a kernel and an initrd, and what is in
//! that says hello; the switch and the BMCs are simulated, and move QEMU's cables and press its buttons.
//!
//! All of it lives in a network namespace of its own, so that no packet leaves it. Leaves out: other firmware than iPXE's on a BIOS
//! (`tests/machines.rs` has it). Invariant: every machine ends with the demo, however that ends. Needs root, Linux, QEMU and a kernel in /boot.
//! Shown by `tests/machines.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::super::client::{API, Client};
use super::super::failure::{Exit, Failure};
use super::super::get;
use super::super::output::{clean, print};
use super::{DemoArgs, Place, Scratch, options};
use crate::cli::serve;
use crate::control::operator::StartRow;
use crate::manifest::{self, Source};
use crate::model::{Mac, Name, Object, Spec};
use crate::server::api::fault::chain;
use crate::server::boot::network::interfaces;
use crate::sim::rack::{Act, Rack, Scene};

const MANIFESTS: &str = include_str!("machines.yaml");
const INITRD: &str = include_str!("../../../examples/rescue-initrd.sh");
/// Says to the process that is started in the namespace that it is there.
const INSIDE: &str = "EMBODY_DEMO_INSIDE";
/// On all addresses of the namespace.
const BOOT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
/// The bridges, by VLAN, and our addresses there.
const BRIDGES: [(&str, u16, &str); 2] = [("boot", 10, "10.77.0.1/24"), ("quarantine", 99, "10.99.0.1/24")];
/// How often machines are brought to what their BMCs and their switch say.
const LOOKS: Duration = Duration::from_millis(50);

/// Starts itself once more, in a namespace where nothing but the demo is.
pub(super) async fn run(args: &DemoArgs, place: &Place) -> Result<(), Failure> {
    if std::env::var_os(INSIDE).is_some() {
        return inside(args, place).await;
    }
    lacks()?;
    let program = std::env::current_exe().map_err(|e| Failure::failed(format!("cannot find this program: {e}")))?;
    // The machines end with the first process of their namespace, and that ends with its standard input, which ends with this one however it does.
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child=SIGKILL", "--"]).arg(program).args(std::env::args_os().skip(1));
    let mut child = command
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Failure::failed(format!("unshare cannot be run: {e}")))?;
    // Ctrl-C is for it: it ends, and so does this.
    let mut interrupted = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).ok();
    // `wait` would close it.
    let _stdin = child.stdin.take();
    let ended = loop {
        tokio::select! {
            biased;
            ended = child.wait() => break ended,
            Some(()) = async { interrupted.as_mut()?.recv().await } => {}
        }
    };
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::failed("the demo has failed, as it says above")),
        Err(error) => Err(Failure::failed(format!("the demo cannot be awaited: {error}"))),
    }
}

/// What it is made of and is not there.
fn lacks() -> Result<(), Failure> {
    if crate::server::api::socket::own_uid() != Some(0) {
        return Err(Failure::failed("a rack of machines needs root, for a network namespace")
            .hint("`embody demo` shows a simulated one to everybody"));
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&str| std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).exists());
    let missing: Vec<&str> =
        ["qemu-system-x86_64", "unshare", "ip", "busybox", "cpio", "modprobe"].into_iter().filter(|program| !is_there(program)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(format!("a rack of machines needs {}", missing.join(", "))).hint(
            "apt-get install qemu-system-x86 ipxe-qemu ipxe busybox-static cpio kmod iproute2, and a kernel: linux-image-cloud-amd64",
        )),
    }
}

async fn inside(args: &DemoArgs, place: &Place) -> Result<(), Failure> {
    // On the machine's own network it would answer to everybody's DHCP.
    let interfaces = interfaces::look().map_err(|e| Failure::failed(format!("the interfaces cannot be listed: {e}")))?;
    if let Some(other) = interfaces.iter().find(|interface| interface.name != "lo") {
        return Err(Failure::failed(format!(
            "{INSIDE} is set, and this is no namespace of the demo's own: it has the interface {}",
            other.name
        ))
        .hint(format!("unset {INSIDE}")));
    }
    place.prepare()?;
    let scratch = Scratch::new()?;
    let files = scratch.0.join("boot");
    let said = sh(INITRD, &[files.as_os_str()]).await?;
    let loaded = manifest::load(&[Source::text("machines.yaml", MANIFESTS)], &[]);
    if loaded.has_errors() {
        return Err(Failure::failed(loaded.render(false)));
    }
    cables().await?;
    let rack = Rack::start(&loaded.objects, &BTreeSet::new()).await.map_err(|e| Failure::failed(chain(&e)))?;
    let machines = Machines::new(&loaded.objects, &scratch.0);
    print(&format!(
        "{}\nTwo machines, a and b, behind a switch; rescue-1 binds persona rescue to a. Their consoles: {}/NAME.console\n\
         In another terminal: export EMBODY_SERVER={}\n\n",
        clean(said.trim()),
        scratch.0.display(),
        place.server()
    ))?;
    let serving = serve::run::run(options(place, &scratch.0, BOOT_ADDRESS, files));
    let ended = tokio::select! {
        biased;
        served = serving => super::stopped(served),
        () = is_left_alone() => Ok(()),
        ended = machines.live(rack) => match ended {},
        shown = show(args, place, &loaded.objects) => shown,
    };
    place.leave().await;
    ended
}

/// Until whoever started it is gone.
async fn is_left_alone() {
    let (mut stdin, mut nothing) = (tokio::io::stdin(), [0; 64]);
    while matches!(stdin.read(&mut nothing).await, Ok(1..)) {}
}

async fn sh(script: &str, arguments: &[&std::ffi::OsStr]) -> Result<String, Failure> {
    let output = Command::new("sh").args(["-c", script, "sh"]).args(arguments).output().await;
    let output = output.map_err(|e| Failure::failed(format!("sh cannot be run: {e}")))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Failure::failed(clean(String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// A bridge for each VLAN, and a cable for each machine that is plugged in nowhere yet.
async fn cables() -> Result<(), Failure> {
    let mut script = "set -e\nip link set lo up\n".to_owned();
    for (name, _, address) in BRIDGES {
        script += &format!("ip link add {name} type bridge forward_delay 0\nip addr add {address} dev {name}\nip link set {name} up\n");
    }
    for machine in ["a", "b"] {
        script += &format!("ip tuntap add dev cable-{machine} mode tap\nip link set cable-{machine} up\n");
    }
    sh(&script, &[]).await.map(drop)
}

/// Machines as QEMU has them, by the names of their servers.
struct Machines {
    by: BTreeMap<Name, Machine>,
}

struct Machine {
    mac: Mac,
    /// `tor/port1`.
    port: String,
    console: PathBuf,
    process: Option<Child>,
    /// The bridge that its cable is in.
    bridge: Option<&'static str>,
}

impl Machines {
    fn new(objects: &[Object], dir: &Path) -> Machines {
        let machine = |object: &Object| {
            let Spec::Server(spec) = &object.spec else { return None };
            let nic = spec.nics.first()?;
            let port = format!("{}/{}", nic.switch.as_ref()?, nic.port.as_ref()?);
            let console = dir.join(format!("{}.console", object.name()));
            Some((object.name().clone(), Machine { mac: nic.mac, port, console, process: None, bridge: None }))
        };
        Machines { by: objects.iter().filter_map(machine).collect() }
    }

    /// What the BMCs and the switch say is so of the machines, and the other way round where one goes off by itself.
    async fn live(mut self, mut rack: Rack) -> std::convert::Infallible {
        loop {
            let scene = rack.act(&Act::Look {});
            for (name, machine) in &mut self.by {
                if machine.follows(name, &scene).await {
                    rack.act(&Act::Button { server: name.clone() });
                }
            }
            sleep(LOOKS).await;
        }
    }
}

impl Machine {
    /// Whether it has gone off by itself.
    async fn follows(&mut self, name: &Name, scene: &Scene) -> bool {
        let vlan = scene.ports.get(&self.port).and_then(|port| port.split('+').next()?.parse::<u16>().ok());
        let bridge = BRIDGES.iter().find(|(_, of, _)| Some(*of) == vlan).map(|(bridge, ..)| *bridge);
        if bridge != self.bridge {
            let to = bridge.map_or_else(|| "nomaster".to_owned(), |bridge| format!("master {bridge}"));
            if sh(&format!("ip link set cable-{name} {to}"), &[]).await.is_ok() {
                self.bridge = bridge;
            }
        }
        let is_on = scene.power.get(name).is_some_and(|power| power == "On");
        match (self.process.take(), is_on) {
            (None, true) => self.process = self.starts(name).ok(),
            (Some(mut process), true) => {
                if matches!(process.try_wait(), Ok(Some(_))) {
                    return true;
                }
                self.process = Some(process);
            }
            (Some(mut process), false) => drop(process.kill().await),
            (None, false) => {}
        }
        false
    }

    fn starts(&self, name: &Name) -> std::io::Result<Child> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-name", name.as_str(), "-machine", "pc,graphics=off", "-accel", "tcg", "-cpu", "max", "-m", "512"]);
        command.args(["-nodefaults", "-no-user-config", "-vga", "none", "-display", "none", "-boot", "order=n,reboot-timeout=1000"]);
        command.arg("-netdev").arg(format!("tap,id=n,ifname=cable-{name},script=no,downscript=no"));
        command.arg("-device").arg(format!("virtio-net-pci,netdev=n,mac={}", self.mac));
        command.arg("-serial").arg(format!("file:{}", self.console.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()
    }
}

/// Each stage as it is reached, until the binding is Ready; then whatever people do.
async fn show(args: &DemoArgs, place: &Place, objects: &[Object]) -> Result<(), Failure> {
    let client = place.client()?;
    let begun = Instant::now();
    super::answers(&client).await?;
    super::apply(&client, objects).await?;
    let (mut told, mut was_ready, mut was_shown) = (BTreeMap::new(), false, false);
    loop {
        for start in get::starts(&client, None).await? {
            stages(&mut told, &start, begun)?;
        }
        let ready = is_ready(&client).await?;
        if ready && !was_ready {
            print(&format!("{} rescue-1 is ready\n", at(begun)))?;
            if args.exit_when_ready {
                return Ok(());
            }
            if !was_shown {
                was_shown = true;
                super::super::say(&format!(
                    "\nIn another terminal, with EMBODY_SERVER={}:\n  embody why rescue-1\n  embody describe server a\n  embody restart rescue-1\n  embody boot a --once local\nCtrl-C ends it.\n",
                    place.server()
                ));
            }
        }
        was_ready = ready;
        if args.exit_when_ready && begun.elapsed() > args.timeout.0 {
            let why = client.get(&format!("{API}/bindings/rescue-1/why")).await?;
            let why = why.get("message").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            return Err(Failure::new(Exit::Failed, format!("it is not ready after {}: {}", args.timeout, clean(&why))));
        }
        if args.lasts.is_some_and(|lasts| begun.elapsed() > lasts.0) {
            return Ok(());
        }
        sleep(Duration::from_millis(300)).await;
    }
}

fn at(begun: Instant) -> String {
    let seconds = begun.elapsed().as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Those that were not told yet; a start that began anew has fewer.
fn stages(told: &mut BTreeMap<Name, usize>, start: &StartRow, begun: Instant) -> Result<(), Failure> {
    let count = told.entry(start.server.clone()).or_default();
    if start.stages.len() < *count {
        *count = 0;
    }
    for stage in start.stages.iter().skip(*count) {
        let took = stage.took.as_ref().map(|took| format!(" after {took}")).unwrap_or_default();
        let what = if stage.what.is_empty() { String::new() } else { format!(" ({})", stage.what) };
        print(&format!("{} {}: {}{}{took}\n", at(begun), start.server, stage.stage, clean(&what)))?;
    }
    *count = start.stages.len();
    Ok(())
}

async fn is_ready(client: &Client) -> Result<bool, Failure> {
    let binding = match client.get(&format!("{API}/bindings/rescue-1")).await {
        // Whoever plays with the demo deletes it as well.
        Err(gone) if gone.exit == Exit::NotFound => return Ok(false),
        binding => binding?,
    };
    let conditions = binding.pointer("/status/conditions").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    Ok(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
