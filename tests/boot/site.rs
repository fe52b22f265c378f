//! A controller on one side of a wire, clients on the other, and two simulated servers: `s1` boots over its NIC :01, `s2` over :03.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::common::{Lan, is_unable};
use super::controller::Controller;
use super::programs::{Process, until};

pub const HTTP: &str = "http://10.7.0.1:8080";
pub const MACS: [&str; 4] = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04"];
/// As most sites would write it.
pub const AUTO: &str = "range: 10.7.0.100-10.7.0.199";

pub struct Site {
    pub controller: Controller,
    pub lan: Lan,
    _sim: Process,
    pub dir: TempDir,
}

pub fn is_missing() -> bool {
    if is_unable() {
        return true;
    }
    let lacking =
        ["/usr/bin/python3", "/usr/lib/ipxe/undionly.kpxe", "/usr/lib/ipxe/snponly.efi"].into_iter().find(|f| !Path::new(f).exists());
    let Some(lacking) = lacking else { return false };
    assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{lacking} is not installed");
    eprintln!("SKIP: {lacking} is not installed");
    true
}

/// What one step of a client says.
pub type Step = Value;

impl Site {
    /// `boot`: what the boot network says of it.
    pub async fn start(boot: &str) -> Site {
        Site::with(boot, &[]).await
    }

    pub async fn with(boot: &str, arguments: &[&str]) -> Site {
        let (dir, lan) = (TempDir::new().unwrap(), Lan::new(3));
        lan.hosts.iter().for_each(|host| drop(host.ip("addr add 127.64.0.1/8 dev lo")));
        let files = dir.path().join("files");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("vmlinuz"), vec![7_u8; 3_000_000]).unwrap();
        std::fs::write(files.join("initrd"), vec![9_u8; 100_000]).unwrap();
        let path = dir.path().join("site.yaml");
        std::fs::write(&path, manifests(boot)).unwrap();
        let files = files.display().to_string();
        let arguments = [&["--boot-address", "0.0.0.0:8080", "--boot-files", &files][..], arguments].concat();
        let mut controller = Controller::new(dir.path(), "controller", &arguments).within(&lan.hosts[0].0);
        let mut sim = Command::new("ip");
        sim.args(["netns", "exec", &lan.hosts[0].0, env!("CARGO_BIN_EXE_embody"), "sim", "-f"]).arg(&path);
        let sim = Process::start(&mut sim, &dir.path().join("sim"));
        until("the simulated devices", Duration::from_secs(20), async || {
            let said = std::fs::read_to_string(dir.path().join("sim")).unwrap_or_default();
            if said.is_empty() { Err("nothing said yet".to_owned()) } else { Ok(()) }
        })
        .await;
        controller.start().await;
        controller.apply(&manifests(boot)).await;
        Site { controller, lan, _sim: sim, dir }
    }

    pub async fn bind(&self, server: &str) {
        let spec = format!("persona: p, target: {{ server: {server} }}, correct: enforce, hostname: web-1, shutdown: {{ grace: 5s }}");
        self.controller.apply(&format!("{HEAD}kind: Binding\nmetadata: {{ name: web }}\nspec: {{ {spec} }}\n")).await;
    }

    /// Until what is to run on the server of the binding stands there, and it was switched on.
    pub async fn stands(&self) {
        until("a start", Duration::from_secs(60), async || {
            let why = self.controller.run(&["why", "web"]).await;
            if why.contains("its start was seen") { Ok(()) } else { Err(why) }
        })
        .await;
    }

    /// What a client on the wire does, step by step.
    pub async fn client(&self, words: &str) -> Vec<Step> {
        self.client_at(1, words).await
    }

    pub async fn client_at(&self, host: usize, words: &str) -> Vec<Step> {
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pxe.py");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lan.hosts[host].0, "/usr/bin/python3"]).arg(peer).args(words.split_whitespace());
        let output = command.kill_on_drop(true).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let steps: Vec<Step> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert!(!steps.is_empty(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        steps
    }

    /// A client that goes on, with what it says in a file.
    pub fn client_beside(&self, host: usize, words: &str, log: &str) -> Process {
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pxe.py");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lan.hosts[host].0, "/usr/bin/python3"]).arg(peer).args(words.split_whitespace());
        Process::start(&mut command, &self.dir.path().join(log))
    }

    pub fn said(&self, log: &str) -> Vec<Step> {
        let text = std::fs::read_to_string(self.dir.path().join(log)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// One fetch by HTTP, from the client's side: status and body.
    pub async fn fetch(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let code = "import sys, urllib.request, urllib.error\n\
                    r = urllib.request.Request(sys.argv[2], method=sys.argv[1], data=sys.argv[3].encode() if sys.argv[1] == 'POST' else None)\n\
                    try:\n    a = urllib.request.urlopen(r, timeout=10); print(a.status); print(a.read(100000).decode('latin-1'))\n\
                    except urllib.error.HTTPError as e:\n    print(e.code); print(e.read().decode('latin-1'))\n";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lan.hosts[1].0, "/usr/bin/python3", "-c", code, method, &format!("{HTTP}{path}"), body]);
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, body) = text.split_once('\n').unwrap_or_else(|| panic!("{path}: {}", String::from_utf8_lossy(&output.stderr)));
        (status.parse().unwrap(), body.to_owned())
    }

    pub async fn script(&self, mac: &str, uuid: &str) -> String {
        let (status, body) = self.fetch("GET", &format!("/boot/{}?arch=x86_64&uuid={uuid}", mac.replace(':', "-")), "").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Until addresses are given: nobody else was heard for a while.
    pub async fn gives(&self) {
        self.controller.reads("policy", "default", "DhcpServed", &["boot on eth0: addresses and boot files"], 20).await;
    }
}

/// The steps of one kind.
pub fn of<'a>(steps: &'a [Step], kind: &str) -> Vec<&'a Step> {
    steps.iter().filter(|step| step["step"] == kind).collect()
}

pub fn end(steps: &[Step]) -> &Step {
    steps.last().unwrap()
}

const HEAD: &str = "apiVersion: embody.dev/v1alpha1\n";

pub fn manifests(boot: &str) -> String {
    let server = |name: &str, bmc: &str, nics: [(&str, &str); 2], more: &str| {
        let [(mac1, port1), (mac2, port2)] = nics;
        format!(
            "kind: Server\nmetadata: {{ name: {name} }}\nspec:\n  bmc: {{ address: \"{bmc}:6230\", secretRef: {{ name: bmc }} }}\n{more}  nics:\n    \
             - {{ name: nic1, mac: \"{mac1}\", switch: sw0, port: {port1}, boot: true }}\n    - {{ name: nic2, mac: \"{mac2}\", switch: sw0, port: {port2} }}\n"
        )
    };
    let boot = if boot.is_empty() { String::new() } else { format!(", boot: {{ {boot} }}") };
    let documents = [
        "kind: Secret\nmetadata: { name: tor }\nstringData: { community: private }\n".to_owned(),
        "kind: Secret\nmetadata: { name: bmc }\nstringData: { username: admin, password: secret }\n".to_owned(),
        format!("kind: Network\nmetadata: {{ name: boot }}\nspec: {{ vlan: 10, subnet: 10.7.0.0/24, gateway: 10.7.0.254{boot} }}\n"),
        "kind: Network\nmetadata: { name: quarantine }\nspec: { vlan: 99, role: quarantine }\n".to_owned(),
        "kind: Switch\nmetadata: { name: sw0 }\nspec:\n  address: \"127.64.0.1:6230\"\n  snmp: { version: v2c, secretRef: { name: tor }, insecure: true }\n  \
         profile: q-bridge\n  manage: { ports: [\"Gi1/0/1-24\"] }\n  vlans: Create\n  uplinks: [\"Te1/0/49\"]\n"
            .to_owned(),
        server("s1", "127.64.1.1", [(MACS[0], "Gi1/0/1"), (MACS[1], "Gi1/0/2")], ""),
        server("s2", "127.64.1.2", [(MACS[2], "Gi1/0/3"), (MACS[3], "Gi1/0/4")], "  loader: chain\n  console: \"ttyS1,115200\"\n"),
        "kind: Persona\nmetadata: { name: p }\nspec:\n  os: { family: linux }\n  root: { ram: {} }\n  exclusive: true\n  agent: required\n  \
         kernel: { path: vmlinuz, initrd: initrd, cmdline: quiet }\n  nics: [ { name: boot, untagged: boot, boot: true, address: 10.7.0.21/24 } ]\n"
            .to_owned(),
        "kind: Policy\nmetadata: { name: default }\nspec:\n  bmc: { pollInterval: 1s }\n  switch: { pollInterval: 1s }\n  \
         limits: { maxPowerChanges: { atOnce: 4, perMinute: 60 }, maxPortWrites: { atOnce: 8, perMinute: 600, perSwitch: 4 }, maxUnavailable: 100% }\n"
            .to_owned(),
    ];
    documents.iter().map(|d| format!("{HEAD}{d}")).collect::<Vec<_>>().join("---\n")
}
