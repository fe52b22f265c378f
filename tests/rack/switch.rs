//! net-snmp's `snmpd` with the Q-BRIDGE table of `tests/peers/qbridge.py` as switch; `snmpbulkwalk` and `snmpset` as referees.
//!
//! Port P has the name `portP`. Every SET that reaches the tables is noted by the peer itself, whoever sent it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::programs::{Process, until};
use crate::free_port::free_port;

const PORTS: usize = 8;
/// What a person beside us writes with; the manifests do not know it.
const BACK_DOOR: &str = "backdoor";
const BRIDGE: &str = ".1.3.6.1.2.1.17";
const PVID: &str = ".1.3.6.1.2.1.17.7.1.4.5.1.1"; // Q-BRIDGE-MIB::dot1qPvid
const EGRESS: &str = ".1.3.6.1.2.1.17.7.1.4.3.1.2"; // dot1qVlanStaticEgressPorts
const UNTAGGED: &str = ".1.3.6.1.2.1.17.7.1.4.3.1.4"; // dot1qVlanStaticUntaggedPorts
pub const IF_ADMIN: &str = ".1.3.6.1.2.1.2.2.1.7"; // IF-MIB::ifAdminStatus

pub struct Switch {
    pub port: u16,
    dir: PathBuf,
    process: Option<Process>,
}

impl Switch {
    pub async fn start(site: &Path) -> Switch {
        let dir = site.join("switch");
        fs::create_dir_all(dir.join("conf")).unwrap();
        let port = free_port();
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/qbridge.py");
        let table = |oid: &str, name: &str| {
            format!("pass_persist {oid} /usr/bin/env python3 {} {PORTS} {} {name}\n", peer.display(), dir.display())
        };
        let conf = format!(
            "agentaddress udp:127.0.0.1:{port}\nrocommunity public\nrwcommunity private\nrwcommunity {BACK_DOOR}\n\
             createUser admin SHA-256 authpass123 AES privpass123\nrwuser admin authpriv\nsysName lab-sw0\n{}{}{}",
            table(BRIDGE, "bridge"),
            table(".1.3.6.1.2.1.2.2", "if"),
            table(".1.3.6.1.2.1.31.1.1", "ifx"),
        );
        fs::write(dir.join("conf/my.conf"), conf).unwrap();
        let mut switch = Switch { port, dir, process: None };
        switch.run().await;
        switch
    }

    /// It keeps its ports, its engine id and the count of its boots in its directory.
    pub async fn run(&mut self) {
        let dir = &self.dir;
        let mut command = Command::new("snmpd");
        command.args(["-f", "-Lo", "-I", "-ifTable,-ifXTable,-smux", "-c"]).arg(dir.join("conf/my.conf")).arg("-p").arg(dir.join("pid"));
        command.env("SNMP_PERSISTENT_DIR", dir).env("SNMPCONFPATH", dir).env("MIBS", "");
        self.process = Some(Process::start(&mut command, &dir.join("log")));
        until("the switch", Duration::from_secs(20), async || self.walk(PVID).await.map(drop)).await;
    }

    /// Power is cut.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Another switch with the same configuration in its place: it has another engine id.
    pub async fn exchange(&mut self) {
        self.kill().await;
        fs::remove_file(self.dir.join("snmpd.conf")).unwrap();
        self.run().await;
    }

    async fn tool(&self, program: &str, words: &[&str]) -> Result<String, String> {
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new(program);
        command.args(["-v2c", "-c", BACK_DOOR, "-t", "2", "-r", "3", "-Onx", &address]).args(words).env("MIBS", "");
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A column: the last arc of each instance, and its value as text.
    async fn walk(&self, oid: &str) -> Result<BTreeMap<u32, String>, String> {
        let text = self.tool("snmpbulkwalk", &[oid]).await?;
        let mut out = BTreeMap::new();
        // A long octet string goes on in the next line.
        for line in text.replace("\n ", " ").lines() {
            let Some((at, value)) = line.split_once(" = ") else { return Err(format!("{line} does not read")) };
            let Some(instance) = at.rsplit('.').next().and_then(|arc| arc.parse().ok()) else { return Err(format!("{at} does not read")) };
            let value = value.split_once(": ").map_or(value, |(_, v)| v);
            out.insert(instance, value.trim().to_owned());
        }
        if out.is_empty() { Err(format!("nothing below {oid}")) } else { Ok(out) }
    }

    async fn members(&self, oid: &str, port: usize) -> Result<BTreeSet<u32>, String> {
        let lists = self.walk(oid).await?;
        let is_member = |list: &str| {
            let octets: Vec<u8> = list.split_whitespace().filter_map(|o| u8::from_str_radix(o, 16).ok()).collect();
            // RFC 4363, PortList: the most significant bit of the first octet is port 1.
            octets.get((port - 1) / 8).is_some_and(|o| o & (0x80 >> ((port - 1) % 8)) != 0)
        };
        Ok(lists.iter().filter(|(_, list)| is_member(list)).map(|(vlan, _)| *vlan).collect())
    }

    async fn try_see(&self, port: usize) -> Result<String, String> {
        let admin = self.walk(IF_ADMIN).await?;
        let (pvids, egress, untagged) = (self.walk(PVID).await?, self.members(EGRESS, port).await?, self.members(UNTAGGED, port).await?);
        let number = u32::try_from(port).unwrap();
        let link = if admin.get(&(100 + number)).is_some_and(|a| a.starts_with('1')) { "up" } else { "shut" };
        let list = |vlans: Vec<&u32>| vlans.iter().map(|v| v.to_string()).collect::<Vec<_>>().join(",");
        let (inside, outside) = (list(untagged.iter().collect()), list(egress.difference(&untagged).collect()));
        let pvid = pvids.get(&number).cloned().unwrap_or_default();
        let odd = if pvid == inside { String::new() } else { format!(" (PVID {pvid})") };
        let tagged = if outside.is_empty() { String::new() } else { format!(" tagged {outside}") };
        Ok(format!("{link} {inside}{tagged}{odd}"))
    }

    /// A port as `snmpbulkwalk` reads it: `up 120 tagged 130`. A PVID that is not the one untagged VLAN is told.
    pub async fn sees(&self, port: usize) -> String {
        self.try_see(port).await.unwrap_or_else(|e| panic!("port {port}: {e}"))
    }

    /// Ports 1 to 4.
    pub async fn all(&self) -> [String; 4] {
        [self.sees(1).await, self.sees(2).await, self.sees(3).await, self.sees(4).await]
    }

    /// `snmpset`, as a person beside us would use it.
    pub async fn set(&self, words: &[&str]) {
        self.tool("snmpset", words).await.unwrap_or_else(|e| panic!("snmpset {words:?}: {e}"));
    }

    /// Moves a port into another VLAN by hand: member there, PVID, no longer member here.
    pub async fn move_by_hand(&self, port: usize, from: u32, to: u32) {
        let list = |ports: BTreeSet<usize>| {
            let mut octets = [0u8; 4];
            ports.iter().for_each(|p| octets[(p - 1) / 8] |= 0x80 >> ((p - 1) % 8));
            octets.map(|o| format!("{o:02x}")).concat()
        };
        let mut sets: BTreeMap<(&str, u32), BTreeSet<usize>> = BTreeMap::new();
        for other in 1..=PORTS {
            for (oid, vlans) in
                [(EGRESS, self.members(EGRESS, other).await.unwrap()), (UNTAGGED, self.members(UNTAGGED, other).await.unwrap())]
            {
                for vlan in vlans {
                    sets.entry((oid, vlan)).or_default().insert(other);
                }
            }
        }
        let ports = |oid, vlan, is_in: bool| {
            let mut ports = sets.get(&(oid, vlan)).cloned().unwrap_or_default();
            if is_in {
                ports.insert(port)
            } else {
                ports.remove(&port)
            };
            [format!("{oid}.{vlan}"), "x".to_owned(), list(ports)]
        };
        let pvid = [format!("{PVID}.{port}"), "u".to_owned(), to.to_string()];
        let all = [ports(EGRESS, to, true), ports(UNTAGGED, to, true), pvid, ports(UNTAGGED, from, false), ports(EGRESS, from, false)];
        // In one request: whoever undoes it does not come in between.
        let words: Vec<&str> = all.iter().flatten().map(String::as_str).collect();
        self.set(&words).await;
    }

    /// Every SET that reached the tables, in order.
    pub fn sets(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("sets")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// MAC addresses that the switch has learned: `52:54:00:77:00:03` on port 1, in a VLAN.
    pub fn learn(&self, entries: &[(u32, &str, usize)]) {
        let rows: Vec<serde_json::Value> =
            entries.iter().map(|(vlan, mac, port)| serde_json::json!({ "vlan": vlan, "mac": mac, "port": port })).collect();
        fs::write(self.dir.join("fdb.new"), serde_json::to_vec(&rows).unwrap()).unwrap();
        fs::rename(self.dir.join("fdb.new"), self.dir.join("fdb.json")).unwrap();
    }
}
