//! A rack of real machines and the controller that serves them: its manifests, and what is seen of it from outside.
//!
//! Machine `a` is on ports 1 and 2, `b` on 3 and 4, and so on. The boot network is VLAN 10, a service network VLAN 20, quarantine VLAN 99.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::controller::Controller;
use super::initrd::{COMMAND_LINE, Guest};
use super::lab::{BOOT, COMMUNITY, Lab, Network, PEERS, QUARANTINE, SERVICE, SNMP};
use super::machine::{Kind, Machine, PASSWORD, USER, mac_of};
use super::programs::{is_skipped_without, missing, until};

/// Of persona `p`, wherever it lives.
pub const ADDRESS: &str = "10.77.0.21";
/// As most sites would write it.
pub const AUTO: &str = "range: 10.77.0.100-10.77.0.199";
/// Machines are slow side by side: on two cores two racks at a time.
pub static RACKS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);
/// The port of boot scripts and files.
pub const HTTP: u16 = 8080;

pub struct Site {
    pub machines: Vec<Machine>,
    pub controller: Controller,
    pub lab: Lab,
    pub begun: Instant,
    /// The id of etcd, where that is the store.
    pub store: Option<u32>,
    _dir: TempDir,
}

/// Where controllers of several hosts have their store.
pub const STORE: &str = "etcd://10.77.0.1:2379";

fn etcd(lab: &Lab) -> tokio::process::Command {
    let mut command = lab.in_services("etcd");
    command.args(["--name=0", "--listen-client-urls=http://10.77.0.1:2379", "--advertise-client-urls=http://10.77.0.1:2379"]);
    command.args(["--listen-peer-urls=http://10.77.0.1:2380", "--initial-advertise-peer-urls=http://10.77.0.1:2380"]);
    command.arg("--initial-cluster=0=http://10.77.0.1:2380").arg(format!("--data-dir={}", lab.dir.join("etcd").display()));
    command
}

/// Whether something that the rack is made of is missing.
pub fn is_missing(kinds: &[Kind]) -> bool {
    let file = kinds.iter().flat_map(|k| k.needs()).find(|f| !Path::new(f).exists()).copied();
    let lacking = Guest::lacking().or(file);
    lacking.is_some_and(is_skipped_without) || missing(&PEERS) || !is_root()
}

fn is_root() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:\t0\t")));
    if !root {
        eprintln!("SKIP: a rack of real machines needs root, for its network namespaces");
    }
    root
}

pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests")
}

impl Site {
    /// Machines that are off, and a controller with everything but bindings.
    pub async fn start(kinds: &[Kind], boot: &str) -> Site {
        Site::with(kinds, boot, &[BOOT, SERVICE, QUARANTINE], &[]).await
    }

    pub async fn with(kinds: &[Kind], boot: &str, networks: &[Network], arguments: &[&str]) -> Site {
        let (dir, begun) = (TempDir::new().unwrap(), Instant::now());
        let mut lab = Lab::start(dir.path(), networks).await;
        let mut store = None;
        if arguments.iter().any(|a| a.starts_with("etcd://")) {
            store = Some(lab.keep(&mut etcd(&lab), "etcd.log"));
        }
        let guest = Guest::build(&cache());
        let files = dir.path().join("files");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::copy(&guest.kernel, files.join("vmlinuz")).unwrap();
        std::fs::copy(&guest.initrd, files.join("initrd")).unwrap();
        let mut machines = Vec::new();
        for (n, kind) in kinds.iter().enumerate() {
            let name = char::from(b'a' + u8::try_from(n).unwrap()).to_string();
            machines.push(Machine::start(&lab, &name, *kind, &[2 * n + 1, 2 * n + 2]).await);
        }
        let address = format!("0.0.0.0:{HTTP}");
        let files = files.display().to_string();
        let arguments = [&["--boot-address", &address, "--boot-files", &files][..], arguments].concat();
        let mut controller = Controller::new(dir.path(), "controller", &arguments).within(&lab.services);
        controller.start().await;
        let site = Site { machines, controller, lab, begun, store, _dir: dir };
        site.controller.apply(&site.manifests(boot)).await;
        site
    }

    /// Everything but bindings. `boot`: what the boot network says of it.
    fn manifests(&self, boot: &str) -> String {
        let secret = |name: &str, data: &str| format!("kind: Secret\nmetadata: {{ name: {name} }}\nstringData: {{ {data} }}\n");
        let network = |name: &str, spec: &str| format!("kind: Network\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n");
        let mut documents = vec![
            secret("tor", &format!("community: {COMMUNITY}")),
            secret("bmc", &format!("username: {USER}, password: {PASSWORD}")),
            network("boot", &format!("vlan: 10, subnet: 10.77.0.0/24, boot: {{ {boot} }}")),
            network("web", "vlan: 20, subnet: 10.88.0.0/24"),
            network(
                "quarantine",
                "vlan: 99, role: quarantine, subnet: 10.99.0.0/24, boot: { mode: full, range: 10.99.0.100-10.99.0.199 }",
            ),
            format!(
                "kind: Switch\nmetadata: {{ name: sw0 }}\nspec:\n  address: \"{SNMP}\"\n  snmp: {{ version: v2c, secretRef: {{ name: tor }}, insecure: true }}\n  \
                 manage: {{ ports: [\"port1-8\"] }}\n  vlans: Create\n  protectedVlans: [1]\n"
            ),
            "kind: Policy\nmetadata: { name: default }\nspec:\n  bmc: { pollInterval: 1s }\n  switch: { pollInterval: 1s }\n  \
             limits: { maxPowerChanges: { atOnce: 4, perMinute: 60 }, maxPortWrites: { atOnce: 8, perMinute: 600, perSwitch: 4 }, maxUnavailable: 100% }\n"
                .to_owned(),
            persona("p", "boot/vmlinuz"),
        ];
        documents.extend(self.machines.iter().map(server));
        documents.iter().map(|d| format!("apiVersion: embody.dev/v1alpha1\n{d}")).collect::<Vec<_>>().join("---\n")
    }

    /// Binds persona `p` to a machine, or to another one.
    pub async fn bind(&self, machine: &str, more: &str) {
        let spec =
            format!("persona: p, target: {{ server: {machine} }}, correct: enforce, shutdown: {{ grace: 5s }}, hostname: web-1{more}");
        self.controller
            .apply(&format!("apiVersion: embody.dev/v1alpha1\nkind: Binding\nmetadata: {{ name: web }}\nspec: {{ {spec} }}\n"))
            .await;
    }

    /// Until the binding is as desired; how long that took.
    pub async fn ready(&self, within: u64) -> Duration {
        let begun = Instant::now();
        until("Ready", Duration::from_secs(within), async || {
            let said = self.controller.say(&["wait", "binding", "web", "--timeout", "1s"]).await;
            if said.code == 0 {
                return Ok(());
            }
            Err(format!("{}\n{}\n{}", self.controller.run(&["why", "web"]).await, self.controller.log(), self.machines[0].last_words()))
        })
        .await;
        begun.elapsed()
    }

    /// The page of a machine, as somebody in one of the networks sees it.
    pub async fn page(&self, address: &str) -> Option<String> {
        self.file(address, "").await
    }

    pub async fn file(&self, address: &str, path: &str) -> Option<String> {
        let url = format!("http://{address}/{path}");
        let output = self.lab.in_services("busybox").args(["timeout", "3", "busybox", "wget", "-qO-", &url]).output().await;
        output.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    }

    /// Whether somebody in a network answers for an address there.
    pub async fn is_in(&self, network: &str, address: &str) -> bool {
        let arping = self.lab.in_services("busybox").args(["arping", "-q", "-c", "2", "-w", "2", "-I", network, address]).status().await;
        arping.is_ok_and(|status| status.success())
    }

    pub async fn why(&self) -> String {
        self.controller.run(&["why", "web"]).await
    }
}

fn server(machine: &Machine) -> String {
    let [first, second] = [machine.ports[0], machine.ports[1]];
    let firmware = if machine.kind == Kind::Bios { "bios" } else { "uefi" };
    format!(
        "kind: Server\nmetadata: {{ name: {} }}\nspec:\n  firmware: {firmware}\n  bmc: {{ address: \"{}\", secretRef: {{ name: bmc }} }}\n  nics:\n    \
         - {{ name: nic1, mac: \"{}\", switch: sw0, port: port{first}, boot: true }}\n    - {{ name: nic2, mac: \"{}\", switch: sw0, port: port{second} }}\n",
        machine.name,
        machine.bmc,
        mac_of(first),
        mac_of(second),
    )
}

pub fn persona(name: &str, kernel: &str) -> String {
    let kernel = kernel.trim_start_matches("boot/");
    format!(
        "kind: Persona\nmetadata: {{ name: {name} }}\nspec:\n  os: {{ family: linux }}\n  root: {{ ram: {{}} }}\n  exclusive: true\n  agent: required\n  \
         kernel: {{ path: {kernel}, initrd: initrd, cmdline: \"{COMMAND_LINE}\" }}\n  nics: [ {{ name: boot, untagged: boot, boot: true, address: {ADDRESS}/24 }} ]\n"
    )
}
