//! The network of a rack: an Open vSwitch in user space that does what its SNMP tables say, in a namespace of its own, and a second
//! namespace for whoever serves the machines.
//!
//! The switch's namespace has no addresses and no IPv6, so that nobody answers on a port but who is in its VLAN. Management (SNMP, BMCs)
//! listens on 127.0.0.1 of the services' namespace. Leaves out: boot services. Invariants: every process in the two namespaces ends with
//! the `Lab`, and so do the namespaces; what a run that was killed left behind is removed by the next one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::programs::{Process, until};

/// What a rack is made of; see `programs::missing`.
pub const PEERS: [&str; 13] = [
    "ip",
    "nsenter",
    "flock",
    "setsid",
    "python3",
    "ovsdb-server",
    "ovs-vswitchd",
    "ovs-vsctl",
    "ipmi_sim",
    "ipmitool",
    "snmpd",
    "snmpset",
    "qemu-system-x86_64",
];

pub const PORTS: usize = 8;
/// Where the switch is managed, in the services' namespace.
pub const SNMP: &str = "127.0.0.1:1161";
/// Who writes for the controller, and who writes beside it.
pub const COMMUNITY: &str = "private";
const BACK_DOOR: &str = "backdoor";

const VLAN_STATIC: &str = ".1.3.6.1.2.1.17.7.1.4.3.1"; // Q-BRIDGE-MIB::dot1qVlanStaticEntry: 2 egress, 4 untagged, 5 row status
const PVID: &str = ".1.3.6.1.2.1.17.7.1.4.5.1.1"; // dot1qPvid
const IF_ADMIN: &str = ".1.3.6.1.2.1.2.2.1.7"; // IF-MIB::ifAdminStatus
/// Of the names of namespaces; the id of the process that made them follows.
const PREFIX: &str = "embodyrack";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A VLAN that the services have a leg in; the leg is the interface `name` of their namespace.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    pub name: &'static str,
    pub vlan: u16,
    /// Addresses of the services in it, with their prefix lengths.
    pub addresses: &'static [&'static str],
}

pub const BOOT: Network = Network { name: "boot", vlan: 10, addresses: &["10.77.0.1/24", "fd77::1/64"] };
pub const SERVICE: Network = Network { name: "service", vlan: 20, addresses: &["10.88.0.1/24"] };
pub const QUARANTINE: Network = Network { name: "quarantine", vlan: 99, addresses: &["10.99.0.1/24"] };

pub struct Lab {
    pub dir: PathBuf,
    /// Names of the namespaces.
    pub switch: String,
    pub services: String,
    pub networks: Vec<Network>,
    /// Namespaces of others in the networks.
    neighbours: Vec<String>,
    processes: Vec<Process>,
}

/// A file of `tests/peers`.
pub fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// `program`, in a namespace; the process that is started becomes it.
pub fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

async fn done(command: &mut Command) -> Result<String, String> {
    let output = command.output().await.map_err(|e| format!("{command:?}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{command:?}: {}", text(&output.stderr))) }
}

async fn must(command: &mut Command) -> String {
    done(command).await.unwrap_or_else(|e| panic!("{e}"))
}

impl Lab {
    /// A switch with all its ports in VLAN 1, and legs in `networks`.
    pub async fn start(dir: &Path, networks: &[Network]) -> Lab {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        sweep();
        let name = format!("{PREFIX}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let (switch, services) = (format!("{name}-sw"), format!("{name}-svc"));
        fs::create_dir_all(dir.join("switch/conf")).unwrap();
        fs::create_dir_all(dir.join("ovs")).unwrap();
        // From here on a panic takes down what is there.
        let mut lab =
            Lab { dir: dir.to_owned(), switch, services, networks: networks.to_vec(), neighbours: Vec::new(), processes: Vec::new() };
        lab.plug().await;
        lab.forward().await;
        lab.manage().await;
        lab
    }

    pub fn in_services(&self, program: &str) -> Command {
        inside(&self.services, program)
    }

    pub fn in_switch(&self, program: &str) -> Command {
        inside(&self.switch, program)
    }

    /// A process that lives as long as the rack; its output is `dir/LOG`. Its id.
    pub fn keep(&mut self, command: &mut Command, log: &str) -> u32 {
        let process = Process::start(command, &self.dir.join(log));
        let id = process.id();
        self.processes.push(process);
        id
    }

    async fn ip(&self, namespace: &str, lines: &[String]) {
        let file = self.dir.join(format!("{namespace}.ip"));
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        must(Command::new("ip").args(["-n", namespace, "-batch"]).arg(&file)).await;
    }

    /// Namespaces, taps and cables. They have to be there before the switch takes them.
    async fn plug(&self) {
        let (sw, svc) = (&self.switch, &self.services);
        must(Command::new("ip").args(["netns", "add", sw])).await;
        must(Command::new("ip").args(["netns", "add", svc])).await;
        let no_ipv6 = "for d in all default lo; do echo 1 > /proc/sys/net/ipv6/conf/$d/disable_ipv6; done";
        must(self.in_switch("sh").args(["-c", no_ipv6])).await;
        // Nobody answers for an address of another network, as two machines would not.
        let separate = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; cd /proc/sys/net/ipv4/conf/all; echo 1 > arp_ignore; \
                        echo 2 > arp_announce";
        must(self.in_services("sh").args(["-c", separate])).await;
        let mut there = Vec::new();
        for port in 1..=PORTS {
            there.extend([format!("tuntap add dev port{port} mode tap"), format!("link set dev port{port} up")]);
        }
        let mut here = vec!["link set dev lo up".to_owned()];
        for Network { name, addresses, .. } in &self.networks {
            there.push(format!("link add dev to-{name} type veth peer name {name} netns {svc}"));
            there.push(format!("link set dev to-{name} up"));
            here.push(format!("link set dev {name} up"));
            here.extend(addresses.iter().map(|a| format!("addr add {a} dev {name}{}", if a.contains(':') { " nodad" } else { "" })));
        }
        self.ip(sw, &there).await;
        self.ip(svc, &here).await;
        let plain = |command: &mut Command, prefix: &str| {
            command.arg(peer("ovs.py")).arg("plain").args(self.networks.iter().map(|n| format!("{prefix}{}", n.name))).kill_on_drop(true);
        };
        let (mut there, mut here) = (self.in_switch("python3"), self.in_services("python3"));
        plain(&mut there, "to-");
        plain(&mut here, "");
        tokio::join!(must(&mut there), must(&mut here));
    }

    fn ovs_vsctl(&self) -> Command {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db=unix:{}/ovs/db.sock", self.dir.display())).arg("--timeout=20");
        command
    }

    async fn forward(&mut self) {
        let ovs = self.dir.join("ovs");
        must(Command::new("ovsdb-tool").arg("create").arg(ovs.join("conf.db")).arg(SCHEMA)).await;
        let socket = ovs.join("db.sock");
        let at = |what: &str, file: &str| format!("--{what}={}", ovs.join(file).display());
        let surroundings = [("OVS_RUNDIR", &ovs), ("OVS_LOGDIR", &ovs), ("OVS_DBDIR", &ovs)];
        let mut database = self.in_switch("ovsdb-server");
        database.arg(ovs.join("conf.db")).arg(format!("--remote=punix:{}", socket.display())).envs(surroundings);
        database.args([at("pidfile", "ovsdb.pid"), at("unixctl", "ovsdb.ctl")]);
        let mut daemon = self.in_switch("ovs-vswitchd");
        daemon.arg(format!("unix:{}", socket.display())).arg("--disable-system").envs(surroundings);
        daemon.args([at("pidfile", "vswitchd.pid"), at("unixctl", "vswitchd.ctl")]);
        self.keep(&mut database, "ovs/ovsdb.log");
        until("the switch's database", Duration::from_secs(10), async || {
            done(self.ovs_vsctl().args(["--no-wait", "init"])).await.map(drop)
        })
        .await;
        self.keep(&mut daemon, "ovs/vswitchd.log");
        let mut bridge = self.ovs_vsctl();
        bridge.args(["add-br", "sw0", "--", "set", "bridge", "sw0", "datapath_type=netdev"]);
        for port in 1..=PORTS {
            bridge.args(["--", "add-port", "sw0", &format!("port{port}"), "tag=1"]);
            bridge.args(["--", "set", "interface", &format!("port{port}"), &format!("ofport_request={port}")]);
        }
        for Network { name, vlan, .. } in &self.networks {
            bridge.args(["--", "add-port", "sw0", &format!("to-{name}"), &format!("tag={vlan}")]);
            bridge.args(["--", "set", "interface", &format!("to-{name}"), &format!("ofport_request={}", 1000 + vlan)]);
        }
        must(&mut bridge).await;
    }

    /// Another host in a VLAN, with this address on its interface `boot`: its namespace.
    pub async fn neighbour(&mut self, vlan: u16, address: &str) -> String {
        let count = self.neighbours.len();
        let (namespace, leg) = (format!("{}-n{count}", self.services.trim_end_matches("-svc")), format!("to-n{count}"));
        must(Command::new("ip").args(["netns", "add", &namespace])).await;
        self.neighbours.push(namespace.clone());
        let there = [format!("link add dev {leg} type veth peer name boot netns {namespace}"), format!("link set dev {leg} up")];
        let here = ["link set dev lo up".to_owned(), "link set dev boot up".to_owned(), format!("addr add {address} dev boot")];
        self.ip(&self.switch, &there).await;
        self.ip(&namespace, &here).await;
        for (namespace, interface) in [(&self.switch, leg.as_str()), (&namespace, "boot")] {
            must(inside(namespace, "python3").arg(peer("ovs.py")).args(["plain", interface])).await;
        }
        let port = ["--", "set", "interface", &leg, &format!("ofport_request={}", 2000 + count)].map(str::to_owned);
        must(self.ovs_vsctl().args(["add-port", "sw0", &leg, &format!("tag={vlan}")]).args(port)).await;
        namespace
    }

    async fn manage(&mut self) {
        let dir = self.dir.join("switch");
        let table = |oid: &str, name: &str| {
            format!("pass_persist {oid} /usr/bin/env python3 {} {PORTS} {} {name}\n", peer("qbridge.py").display(), dir.display())
        };
        let conf = format!(
            "agentaddress udp:{SNMP}\nrocommunity public\nrwcommunity {COMMUNITY}\nrwcommunity {BACK_DOOR}\n\
             createUser admin SHA-256 authpass123 AES privpass123\nrwuser admin authpriv\nsysName lab-sw0\n{}{}{}",
            table(".1.3.6.1.2.1.17", "bridge"),
            table(".1.3.6.1.2.1.2.2", "if"),
            table(".1.3.6.1.2.1.31.1.1", "ifx"),
        );
        fs::write(dir.join("conf/my.conf"), conf).unwrap();
        let mut carrier = self.in_switch("python3");
        carrier.arg(peer("ovs.py")).arg(PORTS.to_string()).arg(&dir).arg(self.dir.join("ovs"));
        self.keep(&mut carrier, "switch/ovs.log");
        let mut agent = self.in_services("snmpd");
        agent.args(["-f", "-Lo", "-I", "-ifTable,-ifXTable,-smux", "-c"]).arg(dir.join("conf/my.conf")).arg("-p").arg(dir.join("pid"));
        agent.env("SNMP_PERSISTENT_DIR", &dir).env("SNMPCONFPATH", &dir).env("MIBS", "");
        self.keep(&mut agent, "switch/log");
        until("the switch's management", Duration::from_secs(20), async || {
            let answer = self.snmp("snmpget", &[&format!("{PVID}.1")]).await?;
            let carries = dir.join("fdb.json").exists();
            if carries { Ok(()) } else { Err(format!("it answers {answer}, and carries nothing")) }
        })
        .await;
    }

    async fn snmp(&self, program: &str, words: &[&str]) -> Result<String, String> {
        let mut command = self.in_services(program);
        // While it starts it hears nothing.
        let patience = if program == "snmpget" { "0.1" } else { "2" };
        command.args(["-v2c", "-c", BACK_DOOR, "-t", patience, "-r", "5", "-Onq", SNMP]).args(words).env("MIBS", "");
        done(&mut command).await
    }

    /// `snmpset`, as a person beside us would use it.
    pub async fn set(&self, words: &[&str]) {
        self.snmp("snmpset", words).await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// What the switch was told, in the words of `qbridge.py`.
    fn tables(&self) -> Value {
        let read = fs::read(self.dir.join("switch/bridge.json")).ok();
        let all: Vec<usize> = (1..=PORTS).collect();
        let fresh = || serde_json::json!({ "vlans": { "1": { "egress": all, "untagged": all } } });
        read.map_or_else(fresh, |bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// Moves a port into a VLAN by hand, which is made if it is not there: member of it, PVID, no longer untagged anywhere else.
    pub async fn move_port(&self, port: usize, to: u16) {
        let tables = self.tables();
        let vlans = tables["vlans"].as_object().unwrap();
        let to = to.to_string();
        let members = |vlan: &str, what: &str| -> BTreeSet<usize> {
            let list = vlans.get(vlan).and_then(|v| v[what].as_array());
            list.map(|l| l.iter().map(|p| usize::try_from(p.as_u64().unwrap()).unwrap()).collect()).unwrap_or_default()
        };
        let list = |ports: &BTreeSet<usize>| {
            // RFC 4363, PortList: the most significant bit of the first octet is port 1.
            let octet = ports.iter().fold(0u8, |o, p| o | 0x80 >> (p - 1));
            format!("{octet:02x}000000")
        };
        if !vlans.contains_key(&to) {
            self.set(&[&format!("{VLAN_STATIC}.5.{to}"), "i", "4"]).await;
        }
        for (column, what) in [(2, "egress"), (4, "untagged")] {
            let mut ports = members(&to, what);
            ports.insert(port);
            self.set(&[&format!("{VLAN_STATIC}.{column}.{to}"), "x", &list(&ports)]).await;
        }
        self.set(&[&format!("{PVID}.{port}"), "u", &to]).await;
        for vlan in vlans.keys().filter(|v| **v != to && members(v, "untagged").contains(&port)) {
            for (column, what) in [(4, "untagged"), (2, "egress")] {
                let mut ports = members(vlan, what);
                ports.remove(&port);
                self.set(&[&format!("{VLAN_STATIC}.{column}.{vlan}"), "x", &list(&ports)]).await;
            }
        }
    }

    /// Sets the PVID alone: until the port is an untagged member of that VLAN, it is nowhere.
    pub async fn set_pvid(&self, port: usize, vlan: u16) {
        self.set(&[&format!("{PVID}.{port}"), "u", &vlan.to_string()]).await;
    }

    pub async fn set_admin(&self, port: usize, up: bool) {
        self.set(&[&format!("{IF_ADMIN}.{}", 100 + port), "i", if up { "1" } else { "2" }]).await;
    }

    /// What the data path does with a port, whatever the tables say: its tag, and the VLANs it carries tagged.
    pub async fn carries(&self, port: usize) -> String {
        must(self.ovs_vsctl().args(["get", "port", &format!("port{port}"), "tag", "trunks"])).await.replace('\n', " ")
    }

    /// The port's place in the data path, as soon as it is so.
    pub async fn carries_soon(&self, port: usize, tag: u16) {
        until("the data path", Duration::from_secs(2), async || {
            let seen = self.carries(port).await;
            if seen.split(' ').next() == Some(&tag.to_string()) { Ok(()) } else { Err(format!("port{port}: {seen}")) }
        })
        .await;
    }

    /// What the switch learned, as `qbridge.py` tells it: VLAN, MAC address, port.
    pub fn learned(&self) -> Vec<(u64, String, u64)> {
        let rows: Vec<Value> = serde_json::from_slice(&fs::read(self.dir.join("switch/fdb.json")).unwrap()).unwrap();
        let row = |r: &Value| Some((r["vlan"].as_u64()?, r["mac"].as_str()?.to_owned(), r["port"].as_u64()?));
        rows.iter().filter_map(row).collect()
    }

    /// Every SET that reached the tables, in order.
    pub fn sets(&self) -> Vec<String> {
        fs::read_to_string(self.dir.join("switch/sets")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Everything ends; dropping does the same.
    pub fn stop(self) {}
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Chassis programs that are just running start nothing any more.
        let _gone_with_its_directory = fs::write(self.dir.join("ended"), "");
        end(&self.neighbours.iter().chain([&self.services, &self.switch]).collect::<Vec<_>>());
    }
}

fn ip_netns(words: &[&str]) -> String {
    let output = std::process::Command::new("ip").arg("netns").args(words).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// Waits until a process that was killed is no more; a zombie is not, whoever forgot it.
#[expect(clippy::disallowed_methods, reason = "what is dropped cannot await")]
fn wait_for_end_of(id: &str) {
    for _ in 0..500 {
        if !is_alive(id) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn is_alive(id: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(id).join("status")).unwrap_or_default();
    status.contains("State:") && !status.contains("State:\tZ")
}

/// Ends every process in the namespaces by its id, until there is none, and removes them.
fn end(namespaces: &[&String]) {
    for _ in 0..50 {
        let ids: Vec<String> =
            namespaces.iter().flat_map(|n| ip_netns(&["pids", n]).split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
        if ids.is_empty() {
            break;
        }
        let _some_ended_by_themselves = std::process::Command::new("kill").arg("-9").args(&ids).output();
        ids.iter().for_each(|id| wait_for_end_of(id));
    }
    for namespace in namespaces {
        ip_netns(&["del", namespace]);
    }
}

/// Removes what a run that was killed left behind.
fn sweep() {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let of_nobody = |name: &String| {
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        id.is_some_and(|id| !Path::new("/proc").join(id).exists())
    };
    let left: Vec<String> = names.filter(of_nobody).collect();
    end(&left.iter().collect::<Vec<_>>());
}
