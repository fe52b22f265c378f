//! What the IPMI tests stand on: drivers with short words, ipmi_sim, a simulated BMC on a real socket, and a tap on the line between.
//!
//! Leaves out what is to be shown (`tests/ipmi.rs`). Processes and tasks that are started here end with their owner.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::clock::BootClock;
use embody::testing::drivers::bmc::ipmi::{BmcSocket, IpmiDriver, IpmiSettings};
use embody::testing::drivers::gate::{Gate, Key, Permit};
use embody::testing::drivers::{Depth, Driver, Fault, Notes, Observation};
use embody::testing::model::fact::{BmcSeen, BootDevice, BootOverride, Power, Tick};
use embody::testing::model::identity::Identity;
use embody::testing::model::op::{Off, Op};
use embody::testing::model::secret::{BmcLogin, Hidden};
use embody::testing::sim::bmc::{Bmc, BmcConfig, BmcEvent, BmcFault, Control, SoftOff};
use embody::testing::sim::rmcp::{Endpoint, Line, Oddities, Received, SharedEndpoint, serve};
use embody::testing::store::LeaseEnd;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::free_port::free_port;

pub const LIMIT: Duration = Duration::from_secs(20);

pub fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// Time for a test that is paused from its start: it goes on only when all datagrams on their way have arrived, however slow the machine is.
pub struct Clockwork(tokio::task::JoinHandle<()>);

impl Drop for Clockwork {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn clockwork() -> Clockwork {
    clockwork_in_steps(Duration::from_millis(10))
}

pub fn clockwork_in_steps(step: Duration) -> Clockwork {
    Clockwork(tokio::spawn(async move {
        loop {
            // The runtime reads its sockets every 61 turns; the kernel may want a moment as well.
            for _ in 0..70 {
                tokio::task::yield_now().await;
            }
            std::thread::yield_now();
            for _ in 0..70 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(step).await;
        }
    }))
}

pub fn login(user: &str, password: &str, kg: Option<&str>) -> BmcLogin {
    BmcLogin { username: user.into(), password: Hidden::new(password.into()), kg: kg.map(|k| Hidden::new(k.into())) }
}

pub fn admin() -> BmcLogin {
    login("admin", "admin", None)
}

/// Spacing as small as the tests bear: they ask for correctness, not for politeness.
pub fn quick() -> IpmiSettings {
    IpmiSettings { spacing: Duration::from_millis(1), ..IpmiSettings::default() }
}

pub async fn driver(port: u16, login: BmcLogin, settings: IpmiSettings) -> IpmiDriver {
    let socket = BmcSocket::bind().await.unwrap();
    IpmiDriver::new("bmc/test".into(), socket, format!("127.0.0.1:{port}").parse().unwrap(), login, settings, None)
}

pub async fn look(driver: &mut IpmiDriver, depth: Depth) -> Result<BmcSeen, Fault> {
    match driver.observe(depth, soon()).await? {
        Observation::Bmc(seen) => Ok(seen),
        Observation::Switch(_) => panic!("a BMC is no switch"),
    }
}

pub async fn until_power(driver: &mut IpmiDriver, wanted: Power) {
    let deadline = soon();
    while look(driver, Depth::State).await.unwrap().power != wanted {
        assert!(Instant::now() < deadline, "never {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn set_boot(device: BootDevice) -> Op {
    Op::SetBoot { server: "s1".parse().unwrap(), device, efi: true }
}

pub fn power_on() -> Op {
    Op::PowerOn { server: "s1".parse().unwrap() }
}

pub fn power_off(how: Off) -> Op {
    Op::PowerOff { server: "s1".parse().unwrap(), how }
}

/// Whether a peer is there; a test that cannot run says so.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|dir| dir.join(program).is_file());
    assert!(found || std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{program} is not installed");
    if !found {
        eprintln!("SKIP: {program} is not installed");
    }
    found
}

// ---- ipmi_sim --------------------------------------------------------------------------------------------------------

pub struct IpmiSim {
    pub port: u16,
    pub dir: tempfile::TempDir,
    _process: Child,
}

impl IpmiSim {
    pub fn calls(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
    }
}

const CHASSIS: &str = r#"#!/bin/sh
D=DIR
op=$1; shift
echo "$op $*" >> $D/calls
case $op in
 get) for n in "$@"; do echo "$n:$(cat $D/$n 2>/dev/null || echo 0)"; done;;
 set) while [ $# -gt 0 ]; do
   case $1 in shutdown) echo 0 > $D/power;; *) echo "$2" > $D/$1;; esac
   shift 2; done;;
esac
exit 0
"#;

pub fn lan_conf(port: u16, script: &Path) -> String {
    let auths: String =
        ["callback", "user", "operator", "admin"].map(|l| format!("    allowed_auths_{l} none md2 md5 straight\n")).concat();
    format!(
        "name \"bmc0\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n{auths}    \
         guid a123456789abcdefa123456789abcdef\n  endlan\n  chassis_control \"{}\"\n  \
         user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  user 2 true \"admin\" \"secret\" admin 60 none md2 md5 straight\n  \
         user 3 true \"oper\" \"oper\" operator 4 none md2 md5 straight\n",
        script.display()
    )
}

pub async fn ipmi_sim() -> Option<IpmiSim> {
    use std::os::unix::fs::PermissionsExt;
    if !have("ipmi_sim") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("chassis"), CHASSIS.replace("DIR", &dir.path().display().to_string())).unwrap();
    std::fs::set_permissions(at("chassis"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(at("boot"), "default\n").unwrap();
    std::fs::write(at("lan.conf"), lan_conf(port, &at("chassis"))).unwrap();
    std::fs::write(at("emu"), "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n")
        .unwrap();
    std::fs::create_dir(at("state")).unwrap();
    // It ends when its standard input does.
    let process = Command::new("ipmi_sim")
        .args(["-n", "-c"])
        .arg(at("lan.conf"))
        .arg("-f")
        .arg(at("emu"))
        .arg("-s")
        .arg(at("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let sim = IpmiSim { port, dir, _process: process };
    let mut first = driver(port, login("admin", "secret", None), quick()).await;
    let deadline = soon();
    while let Err(fault) = look(&mut first, Depth::State).await {
        assert!(Instant::now() < deadline, "ipmi_sim does not start: {fault}");
    }
    first.close().await;
    Some(sim)
}

// ---- a simulated BMC on a real socket ---------------------------------------------------------------------------------

pub struct Served {
    pub port: u16,
    pub endpoint: SharedEndpoint,
    begun: Instant,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    pub async fn new(config: BmcConfig, line: Line) -> Served {
        Served::at("127.0.0.1:0", config, line).await
    }

    pub async fn at(address: &str, config: BmcConfig, line: Line) -> Served {
        let socket = UdpSocket::bind(address).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let endpoint = Arc::new(Mutex::new(Endpoint::new(Bmc::new(config), 1)));
        let begun = Instant::now();
        let clock = move || Tick(begun.elapsed().as_micros() as u64);
        let task = tokio::spawn(serve(socket, endpoint.clone(), clock, line));
        Served { port, endpoint, begun, task }
    }

    pub fn now(&self) -> Tick {
        Tick(self.begun.elapsed().as_micros() as u64)
    }

    pub fn inject(&self, fault: BmcFault) {
        self.endpoint.lock().unwrap().bmc.inject(fault, self.now());
    }

    pub fn power(&self) -> Power {
        self.endpoint.lock().unwrap().bmc.power(self.now())
    }

    pub fn boot(&self) -> BootOverride {
        self.endpoint.lock().unwrap().bmc.boot(self.now())
    }

    pub fn controls(&self) -> Vec<Control> {
        let endpoint = self.endpoint.lock().unwrap();
        endpoint.bmc.log().filter_map(|e| if let BmcEvent::Control { control, .. } = e { Some(*control) } else { None }).collect()
    }

    pub fn sessions(&self) -> usize {
        self.endpoint.lock().unwrap().sessions()
    }
}

/// Power changes at once.
pub fn fast() -> BmcConfig {
    let zero = Duration::ZERO;
    BmcConfig { on_takes: zero, off_takes: zero, soft_off: SoftOff::TakesEffectAfter(zero), ..BmcConfig::default() }
}

/// Runs a program; whether it said yes, and what it printed.
pub async fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let out = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let out = tokio::time::timeout(3 * LIMIT, out).await.expect("it ends").unwrap();
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// Between console and BMC: forwards, and counts what goes in.
pub async fn tap(bmc: u16, counted: Arc<Mutex<u32>>) -> (u16, tokio::task::JoinHandle<()>) {
    let (outside, inside) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    inside.connect(("127.0.0.1", bmc)).await.unwrap();
    let port = outside.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut asked, mut answered) = ([0; 1024], [0; 1024]);
        let mut console = None;
        loop {
            tokio::select! {
                biased;
                Ok((n, from)) = outside.recv_from(&mut asked) => {
                    console = Some(from);
                    *counted.lock().unwrap() += 1;
                    inside.send(&asked[..n]).await.unwrap();
                }
                Ok(n) = inside.recv(&mut answered) => if let Some(to) = console {
                    outside.send_to(&answered[..n], to).await.unwrap();
                }
            }
        }
    });
    (port, task)
}

// ---- a controller's right to change ------------------------------------------------------------------------------------

/// A lease, a gate, and the device that is meant.
pub struct Controller {
    pub lease: Arc<LeaseEnd>,
    pub gate: Arc<Gate>,
    pub pinned: Identity,
}

impl Controller {
    pub fn meaning(pinned: Identity) -> Controller {
        Controller::with_clock(pinned, BootClock::Kernel)
    }

    pub fn with_clock(pinned: Identity, clock: BootClock) -> Controller {
        let lease = LeaseEnd::never(clock);
        Controller { gate: Gate::new(Arc::clone(&lease), clock), lease, pinned }
    }

    pub fn permit(&self, op: &Op) -> Permit {
        let mut permit = self.gate.permit(Key::of(op), self.pinned.clone());
        permit.begin(LIMIT);
        permit
    }

    pub async fn execute(&self, driver: &mut IpmiDriver, op: Op) -> Result<Notes, Fault> {
        let permit = self.permit(&op);
        driver.execute(&op, &permit, soon()).await
    }
}

/// The GUID of `BmcConfig::default()`, and of another one.
pub fn guid(byte: u8) -> Identity {
    Identity { guid: Some(format!("{byte:02x}").repeat(16)), ..Identity::default() }
}

impl Served {
    /// What it took: handshakes, and commands that verified.
    pub fn received(&self) -> Vec<Received> {
        let endpoint = self.endpoint.lock().unwrap();
        endpoint.received().map(|(_, what)| what.clone()).collect()
    }

    /// Commands of sessions, as network function and command.
    pub fn commands(&self) -> Vec<(u8, u8)> {
        let command = |what: &Received| match what {
            Received::Command { netfn, cmd, .. } => Some((*netfn, *cmd)),
            Received::Handshake(_) => None,
        };
        self.received().iter().filter_map(command).collect()
    }

    pub fn odd(&self, set: impl FnOnce(&mut Oddities)) {
        set(&mut self.endpoint.lock().unwrap().odd);
    }

    pub fn interrupt(&self, interrupt: impl FnMut(u8, u8, &[u8]) -> Option<Vec<u8>> + Send + 'static) {
        self.odd(|odd| odd.interrupt = Some(Box::new(interrupt)));
    }

    /// Another BMC is plugged in here: it knows no session of the old one.
    pub fn swap(&self, guid: [u8; 16]) {
        let mut endpoint = self.endpoint.lock().unwrap();
        endpoint.bmc.config.guid = guid;
        endpoint.drop_sessions();
    }
}
