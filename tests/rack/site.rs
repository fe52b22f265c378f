//! One rack: two machines, one switch, one controller, and the manifests that describe them.
//!
//! Machine `a` is on ports 1 and 2, `b` on 3 and 4. Persona `apache` wants its boot NIC untagged in VLAN 130 and the other one
//! untagged in 120 with 130 tagged; VLAN 666 is quarantine.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::bmc::{Bmc, Change, changes};
use super::controller::Controller;
use super::programs::until;
use super::switch::Switch;

pub const MACS: [&str; 4] = ["52:54:00:77:00:01", "52:54:00:77:00:02", "52:54:00:77:00:03", "52:54:00:77:00:04"];
pub const UNTOUCHED: &str = "up 1";
/// Ports of the body that `apache` lives in, and of one that was released.
pub const LIVES: [&str; 2] = ["up 130", "up 120 tagged 130"];
pub const RELEASED: [&str; 2] = ["up 666", "up 666"];
pub const FRESH: [&str; 2] = [UNTOUCHED, UNTOUCHED];

pub const V2C: &str = "{ version: v2c, secretRef: { name: tor }, insecure: true }";
pub const V3: &str = "{ version: v3, secretRef: { name: tor3 } }";

/// What differs from one scenario's manifests to another's.
pub struct Manifests {
    pub snmp: &'static str,
    /// Of `a`'s BMC; the one of `b` is always right.
    pub password: &'static str,
    pub community: &'static str,
    /// Of `a`'s first NIC.
    pub port: &'static str,
    /// Where `a`'s BMC is said to be.
    pub bmc: Option<u16>,
    /// Seconds.
    pub poll: u32,
}

impl Default for Manifests {
    fn default() -> Self {
        Manifests { snmp: V2C, password: super::bmc::PASSWORD, community: "private", port: "port1", bmc: None, poll: 1 }
    }
}

pub struct Site {
    pub a: Bmc,
    pub b: Bmc,
    pub switch: Switch,
    pub controller: Controller,
    pub dir: TempDir,
}

impl Site {
    /// The peers run; the controller does not.
    pub async fn prepare(arguments: &[&str]) -> Site {
        let dir = TempDir::new().unwrap();
        let (a, b, switch) = tokio::join!(
            Bmc::start(dir.path(), "a", "a123456789abcdefa123456789abcdea"),
            Bmc::start(dir.path(), "b", "b123456789abcdefa123456789abcdeb"),
            Switch::start(dir.path()),
        );
        let controller = Controller::new(dir.path(), "controller", arguments);
        Site { a, b, switch, controller, dir }
    }

    pub async fn start(arguments: &[&str]) -> Site {
        let mut site = Site::prepare(arguments).await;
        site.controller.start().await;
        site
    }

    /// Everything but bindings.
    pub fn manifests(&self, m: &Manifests) -> String {
        let (a, b, switch) = (m.bmc.unwrap_or(self.a.port), self.b.port, self.switch.port);
        let secret = |name: &str, data: &str| format!("kind: Secret\nmetadata: {{ name: {name} }}\nstringData: {{ {data} }}\n");
        let network = |name: &str, spec: &str| format!("kind: Network\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n");
        let server = |name: &str, bmc: u16, nics: [(&str, &str); 2]| {
            let [(mac1, port1), (mac2, port2)] = nics;
            format!(
                "kind: Server\nmetadata: {{ name: {name} }}\nspec:\n  bmc: {{ address: \"127.0.0.1:{bmc}\", secretRef: {{ name: bmc-{name} }} }}\n  nics:\n    \
                 - {{ name: nic1, mac: \"{mac1}\", switch: sw0, port: {port1}, boot: true }}\n    - {{ name: nic2, mac: \"{mac2}\", switch: sw0, port: {port2} }}\n"
            )
        };
        let documents = [
            secret("tor", &format!("community: {}", m.community)),
            secret(
                "tor3",
                "username: admin, authProtocol: SHA-256, authPassword: authpass123, privProtocol: AES, privPassword: privpass123",
            ),
            secret("bmc-a", &format!("username: {}, password: {}", super::bmc::USER, m.password)),
            secret("bmc-b", &format!("username: {}, password: {}", super::bmc::USER, super::bmc::PASSWORD)),
            network("web", "vlan: 120"),
            network("storage", "vlan: 130, role: storage"),
            network("quarantine", "vlan: 666, role: quarantine"),
            format!(
                "kind: Switch\nmetadata: {{ name: sw0 }}\nspec:\n  address: \"127.0.0.1:{switch}\"\n  snmp: {}\n  manage: {{ ports: [\"port1-4\", uplink9] }}\n  \
                 vlans: Create\n  protectedVlans: [1]\n",
                m.snmp
            ),
            server("a", a, [(MACS[0], m.port), (MACS[1], "port2")]),
            server("b", b, [(MACS[2], "port3"), (MACS[3], "port4")]),
            persona("apache"),
            persona("mysql"),
            format!(
                "kind: Policy\nmetadata: {{ name: default }}\nspec:\n  bmc: {{ pollInterval: {0}s }}\n  switch: {{ pollInterval: {0}s }}\n  \
                 limits: {{ maxPowerChanges: {{ atOnce: 4, perMinute: 60 }}, maxPortWrites: {{ atOnce: 8, perMinute: 600, perSwitch: 4 }}, maxUnavailable: 100% }}\n",
                m.poll
            ),
        ];
        documents.map(|d| format!("apiVersion: embody.dev/v1alpha1\n{d}")).join("---\n")
    }

    /// Everything but bindings, as it is by default.
    pub async fn describe(&self) {
        self.controller.apply(&self.manifests(&Manifests::default())).await;
    }

    /// Everything that was done to the machines, in order.
    pub fn changes(&self) -> Vec<Change> {
        changes(self.dir.path())
    }

    /// What was done to one machine's power, in order: `power 1`, `power 0`, `shutdown 1`.
    pub fn power_of(&self, machine: &str) -> Vec<String> {
        self.changes().into_iter().filter(|c| c.machine == machine && !c.what.starts_with("boot")).map(|c| c.what).collect()
    }

    /// Invariant 5, over everything that was done to the machines so far. How often a machine was switched on.
    pub fn never_both_on(&self) -> usize {
        let (mut on, mut starts) = ([false, false], 0);
        for change in self.changes() {
            let slot = &mut on[usize::from(change.machine == "b")];
            starts += usize::from(!*slot && change.on);
            *slot = change.on;
            assert!(on != [true, true], "both machines are on: {:#?}", self.changes());
        }
        starts
    }

    /// Two ports each for `a` and `b`, as the referee reads them.
    pub async fn ports_are(&self, a: [&str; 2], b: [&str; 2]) {
        assert_eq!(self.switch.all().await, [a[0], a[1], b[0], b[1]]);
    }

    /// The same, as soon as it is so: the quarantine of a released body is still to be released, and nothing waits for it.
    pub async fn ports_become(&self, a: [&str; 2], b: [&str; 2], within: u64) {
        until("the ports", Duration::from_secs(within), async || {
            let seen = self.switch.all().await;
            if seen == [a[0], a[1], b[0], b[1]] { Ok(()) } else { Err(format!("{seen:?}\n{}", self.controller.log())) }
        })
        .await;
    }

    /// Nothing happens for some time, although looks go on: no change of a machine, no SET, no line of log, no write of any object.
    pub async fn stays_silent(&self, seconds: u64) {
        // What was last done is still being told.
        sleep(Duration::from_millis(1500)).await;
        let (changes, sets, looks, log) = (self.changes(), self.switch.sets(), self.a.looks(), self.controller.log());
        let objects = self.controller.run(&["get", "all", "-o", "json"]).await;
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(self.changes(), changes);
        assert_eq!(self.switch.sets(), sets);
        assert_eq!(self.controller.log(), log);
        assert_eq!(self.controller.run(&["get", "all", "-o", "json"]).await, objects);
        assert!(self.a.looks() > looks, "nobody looks any more");
    }
}

pub fn persona(name: &str) -> String {
    format!(
        "kind: Persona\nmetadata: {{ name: {name} }}\nspec:\n  os: {{ family: linux }}\n  root: {{ nfs: {{ server: 10.0.20.5, path: /personas/{name}, mode: writable }}, revision: \"1\" }}\n  \
         kernel: {{ path: \"http://10.0.20.5/{name}/vmlinuz\" }}\n  nics:\n    - {{ name: san, untagged: storage, boot: true }}\n    - {{ name: front, untagged: web, tagged: [storage] }}\n"
    )
}

/// A binding of persona `apache`, or of the one that is named like it.
pub fn binding(name: &str, persona: &str, server: &str, more: &str) -> String {
    format!(
        "apiVersion: embody.dev/v1alpha1\nkind: Binding\nmetadata: {{ name: {name} }}\nspec: {{ persona: {persona}, target: {{ server: {server} }}, {more} }}\n"
    )
}

/// The binding of most scenarios.
pub fn web(server: &str) -> String {
    binding("web", "apache", server, "correct: enforce, shutdown: { grace: 3s }")
}
