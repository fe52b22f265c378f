//! A controller on one side of a wire, clients on the other, and two simulated servers: `s1` boots over its NIC :01, `s2` over :03.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::common::{Lan, is_unable};
use super::controller::Controller;
use super::programs::{Process, is_skipped_without, until};

pub const HTTP: &str = "http://10.7.0.1:8080";
pub const MACS: [&str; 4] = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04"];
/// How long a client waits for more offers after the first, where one server alone gives addresses.
const ALONE: &str = "0.5";
/// As most sites would write it.
pub const AUTO: &str = "range: 10.7.0.100-10.7.0.199";

pub struct Site {
    pub controller: Controller,
    pub lan: Lan,
    _sim: Process,
    pub dir: TempDir,
    manifests: String,
}

/// What is unlike from site to site.
pub struct Plan<'a> {
    /// What the boot network says of it.
    pub boot: &'a str,
    pub subnet: &'a str,
    /// What the network of role quarantine says more.
    pub quarantine: &'a str,
    /// Manifests beside the usual ones.
    pub more: &'a str,
    /// Where HTTP is served, and the rest beside it.
    pub address: &'a str,
    pub port: u16,
    pub arguments: &'a [&'a str],
    /// As an ordinary user with these.
    pub capabilities: Option<&'a str>,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan {
            boot: AUTO,
            subnet: "10.7.0.0/24",
            quarantine: "",
            more: "",
            address: "0.0.0.0",
            port: 8080,
            arguments: &[],
            capabilities: None,
        }
    }
}

pub fn is_missing() -> bool {
    if is_unable() {
        return true;
    }
    let lacking =
        ["/usr/bin/python3", "/usr/lib/ipxe/undionly.kpxe", "/usr/lib/ipxe/snponly.efi"].into_iter().find(|f| !Path::new(f).exists());
    lacking.is_some_and(is_skipped_without)
}

/// What one step of a client says.
pub type Step = Value;

impl Site {
    /// `boot`: what the boot network says of it.
    pub async fn start(boot: &str) -> Site {
        Site::with(Plan { boot, ..Plan::default() }).await
    }

    pub async fn with(plan: Plan<'_>) -> Site {
        let mut site = Site::prepared(plan).await;
        site.go().await;
        site
    }

    /// All but the controller.
    pub async fn prepared(plan: Plan<'_>) -> Site {
        let (dir, lan) = (TempDir::new().unwrap(), Lan::new(4));
        lan.hosts.iter().for_each(|host| drop(host.ip("addr add 127.64.0.1/8 dev lo")));
        let files = dir.path().join("files");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("vmlinuz"), vec![7_u8; 3_000_000]).unwrap();
        std::fs::write(files.join("initrd"), vec![9_u8; 100_000]).unwrap();
        let path = dir.path().join("site.yaml");
        let quarantine = format!("role: quarantine{} }}", plan.quarantine);
        let manifests = manifests(plan.boot)
            .replace("10.7.0.0/24", plan.subnet)
            .replace("10.7.0.21/24", &format!("10.7.0.21/{}", plan.subnet.split('/').nth(1).unwrap()))
            .replace("role: quarantine }", &quarantine)
            + plan.more;
        std::fs::write(&path, &manifests).unwrap();
        let (files, address) = (files.display().to_string(), format!("{}:{}", plan.address, plan.port));
        let arguments = [&["--boot-address", &address, "--boot-files", &files][..], plan.arguments].concat();
        let mut controller = Controller::new(dir.path(), "controller", &arguments);
        if let Some(capabilities) = plan.capabilities {
            controller = ordinary(controller, dir.path(), capabilities);
        }
        let controller = controller.within(&lan.hosts[0].0);
        let mut sim = Command::new("ip");
        sim.args(["netns", "exec", &lan.hosts[0].0, env!("CARGO_BIN_EXE_embody"), "sim", "-f"]).arg(&path);
        let sim = Process::start(&mut sim, &dir.path().join("sim"));
        until("the simulated devices", Duration::from_secs(20), async || {
            let said = std::fs::read_to_string(dir.path().join("sim")).unwrap_or_default();
            if said.is_empty() { Err("nothing said yet".to_owned()) } else { Ok(()) }
        })
        .await;
        Site { controller, lan, _sim: sim, dir, manifests }
    }

    pub async fn go(&mut self) {
        self.controller.start().await;
        self.controller.apply(&self.manifests).await;
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
        if !words.contains(" --wait ") {
            command.args(["--wait", ALONE]);
        }
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

    /// Any program on a host of the wire.
    pub fn program(&self, host: usize, words: &[&str], log: &str) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lan.hosts[host].0]).args(words);
        Process::start(&mut command, &self.dir.path().join(log))
    }

    /// A client that goes on, once its first line is there.
    pub async fn client_ready(&self, host: usize, words: &str, log: &str) -> Process {
        let process = self.client_beside(host, words, log);
        until(words, Duration::from_secs(10), async || if self.said(log).is_empty() { Err(String::new()) } else { Ok(()) }).await;
        process
    }

    /// The condition that tells how DHCP is served.
    pub async fn dhcp(&self, parts: &[&str], within: u64) -> String {
        self.controller.reads("policy", "default", "DhcpServed", parts, within).await
    }

    /// The address that a machine is offered by one question, if any.
    pub async fn offered(&self, mac: &str) -> Option<String> {
        let steps = self.client(&format!("discover eth0 --mac {mac} --wait 0.2 --retry 1,1,2")).await;
        of(&steps, "offer").first().map(|offer| offer["yiaddr"].as_str().unwrap().to_owned())
    }

    pub fn said(&self, log: &str) -> Vec<Step> {
        let text = std::fs::read_to_string(self.dir.path().join(log)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// One fetch by HTTP, as iPXE does it, from the client's side: status and body.
    pub async fn fetch(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.fetch_as("iPXE/1.21.1+", method, path, body).await
    }

    pub async fn fetch_as(&self, agent: &str, method: &str, path: &str, body: &str) -> (u16, String) {
        self.fetch_from("", agent, method, path, body).await
    }

    /// From an address that the client's host takes for it; an empty one: from its own.
    pub async fn fetch_from(&self, from: &str, agent: &str, method: &str, path: &str, body: &str) -> (u16, String) {
        if !from.is_empty() {
            self.lan.hosts[1].ip(&format!("addr replace {from}/32 dev eth0"));
        }
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{HTTP}{path}") };
        let code = "import sys, http.client, urllib.parse\n\
                    method, url, body, agent, source = sys.argv[1:]\n\
                    u = urllib.parse.urlsplit(url)\n\
                    c = http.client.HTTPConnection(u.hostname, u.port or 80, timeout=10, source_address=(source, 0) if source else None)\n\
                    c.request(method, u.path + ('?' + u.query if u.query else ''), body.encode() if method == 'POST' else None, {'User-Agent': agent})\n\
                    a = c.getresponse(); print(a.status); print(a.read(100000).decode('latin-1'))\n";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lan.hosts[1].0, "/usr/bin/python3", "-c", code, method, &url, body, agent, from]);
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, body) = text.split_once('\n').unwrap_or_else(|| panic!("{path}: {}", String::from_utf8_lossy(&output.stderr)));
        (status.parse().unwrap(), body.to_owned())
    }

    pub async fn script(&self, mac: &str, uuid: &str) -> String {
        self.script_from("", mac, uuid).await
    }

    /// As the machine asks that was given this address.
    pub async fn script_from(&self, from: &str, mac: &str, uuid: &str) -> String {
        let path = format!("/boot/{}?arch=x86_64&uuid={uuid}", mac.replace(':', "-"));
        let (status, body) = self.fetch_from(from, "iPXE/1.21.1+", "GET", &path, "").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Persona p stands on s1, and its machine has its address; it has fetched nothing yet.
    pub async fn has_address(&self, uuid: &str) {
        self.gives().await;
        self.bind("s1").await;
        self.stands().await;
        let steps = self.client(&format!("boot eth0 --as ipxe-bios --mac {} --uuid {uuid} --no-fetch --retry 1,2,3", MACS[0])).await;
        assert_eq!(of(&steps, "ack")[0]["yiaddr"], "10.7.0.21", "{steps:#?}");
    }

    /// The same once more: until then a restarted controller's condition is that of the one before.
    pub async fn gives_now(&self) {
        until("an offer", Duration::from_secs(40), async || match self.offered("02:00:00:00:0f:0f").await {
            Some(address) if address != "0.0.0.0" => Ok(()),
            _ => Err(self.controller.condition("policy", "default", "DhcpServed").await),
        })
        .await;
    }

    /// Until addresses are given: nobody else was heard for a while.
    pub async fn gives(&self) {
        self.controller.reads("policy", "default", "DhcpServed", &["boot on eth0: addresses and boot files"], 20).await;
    }
}

/// Runs the program from a place that an ordinary user reads, with a directory of its own.
fn ordinary(controller: Controller, dir: &Path, capabilities: &str) -> Controller {
    use std::os::unix::fs::{PermissionsExt, chown};
    const NOBODY: u32 = 65_534;
    let copy = dir.join("embody");
    if std::fs::hard_link(env!("CARGO_BIN_EXE_embody"), &copy).is_err() {
        std::fs::copy(env!("CARGO_BIN_EXE_embody"), &copy).unwrap();
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(controller.dir(), Some(NOBODY), Some(NOBODY)).unwrap();
    controller.ordinary(&copy, &NOBODY.to_string(), capabilities)
}

/// Where a script says that its start is to say how it goes.
pub fn run_of(script: &str) -> String {
    script.split("embody.run=").nth(1).unwrap().split(' ').next().unwrap().trim_start_matches(HTTP).to_owned()
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
