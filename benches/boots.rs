//! How long a machine takes from power-on to the hello of what it boots: by `embody`, and by dnsmasq in the same rack and the same run.
//!
//! Real firmware (iPXE's ROM in QEMU) behind Open vSwitch, one machine and three at once; the kernel comes by HTTP from `embody`, by TFTP from
//! dnsmasq, which has nothing else. Power-on is when the machine's process began, the hello when the machine says that it was taken. Needs root,
//! and what `tests/run` installs. Aim: at most 1.1 times what dnsmasq takes. ROUNDS says how often.

#[path = "../tests/rack/controller.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod controller;
#[path = "../tests/machines/initrd.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod initrd;
#[path = "../tests/rack/ipmitool.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod ipmitool;
#[path = "../tests/machines/lab.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod lab;
#[path = "../tests/machines/machine.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod machine;
#[path = "../tests/rack/programs.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod programs;
#[path = "../tests/machines/site.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod site;
#[path = "../tests/machines/tree.rs"]
mod tree;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use initrd::COMMAND_LINE;
use machine::{Kind, Machine, changes};
use programs::Process;
use site::{AUTO, Site};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(180);
/// Takes every POST, as `embody` takes a hello.
const HELLOS: &str = "import http.server\n\
    class H(http.server.BaseHTTPRequestHandler):\n    \
        def do_POST(self):\n        \
            self.rfile.read(int(self.headers.get('Content-Length', 0))); self.send_response(204); self.end_headers()\n    \
        def log_message(self, *a): pass\n\
    http.server.ThreadingHTTPServer(('10.77.0.1', 8080), H).serve_forever()\n";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let kinds = [Kind::Bios; 3];
    if site::is_missing(&kinds) {
        return;
    }
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut site = Site::start(&kinds, AUTO).await;
    let mut by_embody = Vec::new();
    for guests in [1, 3] {
        bind(&site, guests).await;
        let mut all = Vec::new();
        for _ in 0..rounds {
            all.extend(times(&site.machines[..guests], Some(&site)).await);
        }
        report("embody", guests, &mut all);
        for machine in &site.machines[..guests] {
            let why = site.controller.run(&["why", &format!("server/{}", name(machine))]).await;
            let stages = why.split("Its last start: ").nth(1).and_then(|rest| rest.split("; the last one").next()).unwrap_or_default();
            println!("  {}: {stages}", name(machine));
        }
        by_embody.push(median(&mut all));
    }
    images(&site, rounds).await;
    site.controller.kill().await;
    for machine in &site.machines {
        machine.tool(&["chassis", "power", "off"]).await;
    }
    let _peers = dnsmasq(&mut site);
    for (guests, ours) in [1, 3].into_iter().zip(by_embody) {
        let mut all = Vec::new();
        for _ in 0..rounds {
            all.extend(times(&site.machines[..guests], None).await);
        }
        report("dnsmasq", guests, &mut all);
        println!("{guests} at once: {:.2} times what dnsmasq takes", ours / median(&mut all));
    }
}

/// An image over NFS and in memory, by what its machines' stages took.
async fn images(site: &Site, rounds: usize) {
    let root = tree::tree(&site.lab.dir, "1");
    site.controller.run(&["image", "import", "bench:1", root.to_str().unwrap()]).await;
    for delivery in ["nfs", "ram"] {
        let persona = format!(
            "apiVersion: embody.dev/v1alpha1\nkind: Persona\nmetadata: {{ name: q }}\nspec:\n  os: {{ family: linux }}\n  \
             root: {{ image: {{ name: \"bench:1\", as: {delivery} }} }}\n  agent: required\n  kernel: {{ cmdline: \"{COMMAND_LINE}\" }}\n  \
             nics: [ {{ name: boot, untagged: boot, boot: true }} ]\n"
        );
        site.controller.apply(&persona).await;
        for guests in [1, 3] {
            let mut all = Vec::new();
            for _ in 0..rounds {
                for machine in &site.machines[..guests] {
                    site.controller.run(&["restart", &format!("on-{}", name(machine))]).await;
                }
                for machine in &site.machines[..guests] {
                    site.controller.ready(&format!("on-{}", name(machine)), PATIENCE.as_secs()).await;
                    all.push(last_start(site, machine).await);
                }
            }
            report(&format!("embody, an image as {delivery}"), guests, &mut all);
        }
    }
}

/// From power-on to its hello: `power on, DHCP +2.4s (…), …, hello +0.1s`.
async fn last_start(site: &Site, machine: &Machine) -> f64 {
    let why = site.controller.run(&["why", &format!("server/{}", name(machine))]).await;
    let stages =
        why.split("Its last start: ").nth(1).and_then(|rest| rest.split("; the last one").next()).unwrap_or_else(|| panic!("{why}"));
    assert!(stages.contains("hello"), "{why}");
    stages.split(" +").skip(1).filter_map(|stage| stage.split('s').next()?.parse::<f64>().ok()).sum()
}

/// A persona that may live many times.
async fn bind(site: &Site, guests: usize) {
    let persona = format!(
        "kind: Persona\nmetadata: {{ name: q }}\nspec:\n  os: {{ family: linux }}\n  root: {{ ram: {{}} }}\n  agent: required\n  \
         kernel: {{ path: vmlinuz, initrd: initrd, cmdline: \"{COMMAND_LINE}\" }}\n  nics: [ {{ name: boot, untagged: boot, boot: true }} ]\n"
    );
    let binding = |machine: &Machine| {
        let name = name(machine);
        format!("kind: Binding\nmetadata: {{ name: on-{name} }}\nspec: {{ persona: q, target: {{ server: {name} }}, correct: enforce }}\n")
    };
    let documents: Vec<String> = [persona].into_iter().chain(site.machines[..guests].iter().map(binding)).collect();
    let text = documents.iter().map(|d| format!("apiVersion: embody.dev/v1alpha1\n{d}")).collect::<Vec<_>>().join("---\n");
    site.controller.apply(&text).await;
    for machine in &site.machines[..guests] {
        let name = name(machine);
        site.controller.ready(&format!("on-{name}"), PATIENCE.as_secs()).await;
    }
}

/// dnsmasq gives addresses, iPXE's script and the files, and somebody takes hellos.
fn dnsmasq(site: &mut Site) -> [Process; 2] {
    let files = site.lab.dir.join("files");
    let script = format!(
        "#!ipxe\nkernel --name kernel tftp://10.77.0.1/vmlinuz initrd=initrd ip=dhcp BOOTIF=01-${{netX/mac:hexhyp}} embody.hostname=x \
         embody.run=http://10.77.0.1:8080/run {COMMAND_LINE}\ninitrd --name initrd tftp://10.77.0.1/initrd\nboot\n"
    );
    std::fs::write(files.join("boot.ipxe"), script).unwrap();
    let mut dnsmasq = site.lab.in_services("dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--interface=boot", "--bind-interfaces", "--pid-file="]);
    dnsmasq.args(["--dhcp-range=10.77.0.100,10.77.0.199", "--dhcp-authoritative", "--no-ping", "--enable-tftp", "--dhcp-boot=boot.ipxe"]);
    // Without router advertisements iPXE waits 16 s for one.
    dnsmasq.args(["--enable-ra", "--dhcp-range=fd77::,ra-only"]);
    dnsmasq.arg(format!("--tftp-root={}", files.display()));
    dnsmasq.arg(format!("--dhcp-leasefile={}", site.lab.dir.join("leases").display()));
    // It is root of the rack, and reads what root has made.
    dnsmasq.arg("--user=root");
    let mut hellos = site.lab.in_services("python3");
    hellos.args(["-c", HELLOS]);
    [Process::start(&mut dnsmasq, &site.lab.dir.join("dnsmasq")), Process::start(&mut hellos, &site.lab.dir.join("hellos"))]
}

#[expect(clippy::disallowed_methods, reason = "the machines' own log has the wall clock")]
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Off, on, and for each of them how long its hello took: by the site's controller, or by hand.
async fn times(machines: &[Machine], by: Option<&Site>) -> Vec<f64> {
    let hellos = |machine: &Machine| machine.serial().matches(" hello").count();
    let begun = now();
    match by {
        Some(site) => {
            let bindings: Vec<String> = machines.iter().map(|machine| format!("on-{}", name(machine))).collect();
            let words: Vec<&str> = ["restart"].into_iter().chain(bindings.iter().map(String::as_str)).collect();
            site.controller.run(&words).await;
        }
        None => {
            for machine in machines {
                machine.tool(&["chassis", "power", "off"]).await;
            }
            for machine in machines {
                machine.boot_from_network().await;
            }
        }
    }
    // Since when each is on, and what it had said by then: of a start before, it may say so late.
    let mut on_since = vec![None; machines.len()];
    let mut out = vec![None; machines.len()];
    while out.contains(&None) {
        assert!(now() - begun < PATIENCE.as_secs_f64(), "{}", machines[0].last_words());
        for (n, machine) in machines.iter().enumerate() {
            let name = name(machine);
            let on = |change: &&machine::Change| change.machine == name && change.what == "power 1" && change.on && change.at > begun;
            let change = || changes(machine.dir().parent().unwrap()).iter().rfind(on).map(|change| change.at);
            match on_since[n] {
                None => on_since[n] = change().map(|at| (at, hellos(machine))),
                Some((at, before)) if hellos(machine) > before => _ = out[n].get_or_insert(now() - at),
                Some(_) => {}
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    out.into_iter().flatten().collect()
}

fn name(machine: &Machine) -> String {
    machine.dir().file_name().unwrap().to_string_lossy().into_owned()
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn report(system: &str, guests: usize, all: &mut [f64]) {
    let middle = median(all);
    println!("{system}, {guests} at once: {middle:.1} s ({:.1} to {:.1}, {} starts)", all[0], all[all.len() - 1], all.len());
}
