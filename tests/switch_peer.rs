//! The switch driver against an agent that is not ours: Debian's snmpd with `tests/peers/qbridge.py`, asked by net-snmp's own tools.
//!
//! Leaves out: our SNMP transport, so that an error of one cannot hide in the other.

mod free_port;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use embody::testing::clock::BootClock;
use embody::testing::drivers::gate::{Gate, Key};
use embody::testing::drivers::switch::snmp::{Agent, Binding, Leave, Oid, SetAnswer, Value, Walked, not_let_out};
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings};
use embody::testing::drivers::{Depth, Driver, Fault, Observation};
use embody::testing::model::Vlan;
use embody::testing::model::fact::{Admin, PortConfig, Quality, SwitchSeen};
use embody::testing::model::identity::Identity;
use embody::testing::model::op::Op;
use embody::testing::store::LeaseEnd;
use embody::testing::{carry_out, carry_out_on};
use free_port::free_port;
use tokio::time::Instant;

/// snmpd with eight ports, ended with the test.
struct Snmpd {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tool(name: &str) -> Option<PathBuf> {
    let found =
        ["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists());
    assert!(found.is_some() || std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{name} is not installed");
    found
}

impl Snmpd {
    async fn start() -> Option<Snmpd> {
        let (Some(snmpd), Some(python), Some(_)) = (tool("snmpd"), tool("python3"), tool("snmpset")) else {
            eprintln!("SKIP: snmpd, snmpset or python3 is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/qbridge.py");
        let state = folder.path().display();
        let mut conf = format!("agentaddress udp:127.0.0.1:{port}\nrocommunity public\nrwcommunity private\nsysName lab-sw0\n");
        for (subtree, name) in [("17", "bridge"), ("2.2", "if"), ("31.1.1", "ifx")] {
            conf += &format!("pass_persist .1.3.6.1.2.1.{subtree} {} {} 8 {state} {name}\n", python.display(), program.display());
        }
        std::fs::write(folder.path().join("agent.conf"), conf).unwrap();
        let child = Command::new(snmpd)
            .args(["-f", "-Lo", "-C", "-c"])
            .arg(folder.path().join("agent.conf"))
            .args(["-I", "-ifTable,-ifXTable,-smux"])
            .env("SNMP_PERSISTENT_DIR", folder.path())
            .env("MIBS", "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Snmpd { child, port, _folder: folder };
        for _ in 0..200 {
            if started.run("snmpget", "public", &[".1.3.6.1.2.1.17.1.2.0".to_owned()]).status.success() {
                return Some(started);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("snmpd does not answer");
    }

    fn run(&self, tool: &str, community: &str, rest: &[String]) -> Output {
        run(self.port, tool, community, rest)
    }

    fn driver(&self, community: &'static str) -> SwitchDriver {
        let settings = SwitchSettings {
            manage: Some(vec!["port1-6".to_owned()]),
            uplinks: vec!["port7-8".to_owned()],
            protected: vec![vlan(1)],
            create_vlans: true,
            ..SwitchSettings::default()
        };
        SwitchDriver::new("lab-sw0".to_owned(), Box::new(Tools { port: self.port, community }), settings)
    }
}

fn run(port: u16, tool: &str, community: &str, rest: &[String]) -> Output {
    let mut command = Command::new(tool);
    command.args(["-v2c", "-c", community, "-On", "-Ox", "-t", "5", &format!("127.0.0.1:{port}")]).args(rest).env("MIBS", "");
    command.output().unwrap()
}

/// net-snmp's command line tools as an agent.
struct Tools {
    port: u16,
    community: &'static str,
}

impl Tools {
    fn ask(&self, tool: &str, rest: &[String]) -> Vec<Binding> {
        let output = run(self.port, tool, self.community, rest);
        // Long octet strings go over several lines.
        let text = String::from_utf8_lossy(&output.stdout).replace(" \n.", "\u{0}.").replace("\n.", "\u{0}.").replace('\n', " ");
        text.split('\u{0}').filter_map(parse).collect()
    }
}

fn parse(line: &str) -> Option<Binding> {
    let (oid, value) = line.split_once(" =")?;
    let value = value.trim();
    let (kind, rest) = value.split_once(':').unwrap_or((value, ""));
    let rest = rest.trim();
    let value = match kind {
        "INTEGER" => Value::Integer(rest.parse().unwrap()),
        "Gauge32" => Value::Unsigned32(rest.parse().unwrap()),
        "Timeticks" => Value::TimeTicks(rest.trim_start_matches('(').split(')').next()?.parse().unwrap()),
        "OID" => Value::Oid(rest.parse().unwrap()),
        "Hex-STRING" => Value::Octets(rest.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()),
        "STRING" => Value::Octets(rest.trim_matches('"').as_bytes().to_vec()),
        "\"\"" => Value::Octets(Vec::new()),
        _ => Value::NoSuchInstance,
    };
    Some((oid.parse().unwrap(), value))
}

#[async_trait]
impl Agent for Tools {
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault> {
        Ok(self.ask("snmpget", &oids.iter().map(|oid| format!(".{oid}")).collect::<Vec<_>>()))
    }

    async fn walk(&mut self, columns: &[Oid], _rows: usize) -> Result<Vec<Walked>, Fault> {
        let walk = |column: &Oid| {
            let rows = self.ask("snmpbulkwalk", &[format!(".{column}")]);
            Walked::whole(rows.into_iter().filter(|(oid, value)| oid.starts_with(column) && *value != Value::NoSuchInstance).collect())
        };
        Ok(columns.iter().map(walk).collect())
    }

    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault> {
        let words = bindings.iter().flat_map(|(oid, value)| match value {
            Value::Integer(n) => [format!(".{oid}"), "i".to_owned(), n.to_string()],
            Value::Unsigned32(n) => [format!(".{oid}"), "u".to_owned(), n.to_string()],
            Value::Octets(o) => [format!(".{oid}"), "x".to_owned(), o.iter().map(|b| format!("{b:02x}")).collect()],
            other => panic!("{other:?} is never written"),
        });
        let set = || run(self.port, "snmpset", self.community, &words.collect::<Vec<_>>());
        let output = match leave.permit.pass(Some(leave.fresh), leave.half_way, set) {
            Ok(output) => output,
            Err(closed) => return Err(not_let_out("lab-sw0", "a SET", &closed)),
        };
        if output.status.success() {
            return Ok(SetAnswer::Accepted(bindings.to_vec()));
        }
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        let names = [("noAccess", 6), ("wrongType", 7), ("noCreation", 11), ("inconsistentValue", 12), ("notWritable", 17)];
        let status = names.into_iter().find(|(name, _)| why.contains(name)).map_or(5, |(_, status)| status);
        Ok(SetAnswer::Refused { status, index: 1 })
    }

    fn engine_id(&self) -> Option<Vec<u8>> {
        None
    }
}

fn vlan(id: u16) -> Vlan {
    Vlan::try_from(i64::from(id)).unwrap()
}

fn config(admin: Admin, untagged: u16, tagged: &[u16]) -> PortConfig {
    PortConfig { admin, untagged: Some(vlan(untagged)), tagged: tagged.iter().copied().map(vlan).collect() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

async fn look(driver: &mut SwitchDriver) -> SwitchSeen {
    match driver.observe(Depth::State, soon()).await.unwrap() {
        Observation::Switch(seen) => SwitchSeen::clone(&seen),
        Observation::Bmc(_) => panic!("a switch is no BMC"),
    }
}

async fn set(driver: &mut SwitchDriver, port: &str, to: PortConfig) -> Result<(), Fault> {
    let from = look(driver).await.ports[port].config.clone();
    carry_out(driver, &[Op::SetPort { switch: "lab-sw0".parse().unwrap(), port: port.to_owned(), from, to }], soon()).await
}

#[tokio::test]
async fn vlans_are_made_and_ports_move_on_snmpd() {
    let Some(peer) = Snmpd::start().await else { return };
    let mut driver = peer.driver("private");
    let before = look(&mut driver).await;
    assert_eq!((before.profile, before.ports.len()), ("q-bridge", 8));
    assert_eq!(before.ports["port3"].if_index, 103);
    assert!(before.ports.values().all(|port| port.config == config(Admin::Up, 1, &[]) && port.quality == Quality::Exact));
    assert!(before.writable.access && before.writable.vlan_create && !before.writable.save);

    for id in [30, 40] {
        carry_out(&mut driver, &[Op::CreateVlan { switch: "lab-sw0".parse().unwrap(), vlan: vlan(id) }], soon()).await.unwrap();
    }
    set(&mut driver, "port2", config(Admin::Up, 30, &[40])).await.unwrap();
    set(&mut driver, "port3", config(Admin::Down, 40, &[])).await.unwrap();
    let after = look(&mut driver).await;
    assert_eq!(after.vlans, [1, 30, 40].map(vlan).into());
    for (name, port) in &after.ports {
        let wanted = match name.as_str() {
            "port2" => config(Admin::Up, 30, &[40]),
            "port3" => config(Admin::Down, 40, &[]),
            "port7" | "port8" => config(Admin::Up, 1, &[30, 40]),
            _ => config(Admin::Up, 1, &[]),
        };
        assert_eq!((&port.config, &port.quality), (&wanted, &Quality::Exact), "{name}");
    }
    // As net-snmp shows it: VLAN 30 egress 2, 7, 8; untagged 2.
    let q = ".1.3.6.1.2.1.17.7.1.4";
    let shown = peer.run("snmpget", "public", &[format!("{q}.3.1.2.30"), format!("{q}.3.1.4.30"), format!("{q}.5.1.1.2")]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("Hex-STRING: 43 00 00 00") && shown.contains("Hex-STRING: 40 00 00 00") && shown.contains("Gauge32: 30"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_hand_at_the_switch_is_seen_and_a_read_only_community_is_named() {
    let Some(peer) = Snmpd::start().await else { return };
    let mut driver = peer.driver("private");
    carry_out(&mut driver, &[Op::CreateVlan { switch: "lab-sw0".parse().unwrap(), vlan: vlan(30) }], soon()).await.unwrap();
    let from = look(&mut driver).await.ports["port1"].config.clone();
    let by_hand = peer.run("snmpset", "private", &[".1.3.6.1.2.1.2.2.1.7.101", "i", "2"].map(str::to_owned));
    assert!(by_hand.status.success());
    let op = Op::SetPort { switch: "lab-sw0".parse().unwrap(), port: "port1".to_owned(), from, to: config(Admin::Up, 30, &[]) };
    assert!(
        matches!(carry_out(&mut driver, &[op], soon()).await, Err(Fault::Disagrees { .. })),
        "it is not as it was when the plan was made"
    );
    set(&mut driver, "port1", config(Admin::Up, 30, &[])).await.unwrap();

    let fault = set(&mut peer.driver("public"), "port2", config(Admin::Up, 30, &[])).await.unwrap_err();
    assert!(matches!(&fault, Fault::Forbidden { code, .. } if code.starts_with("noAccess(6)")), "{fault}");
}

#[tokio::test]
async fn snmpd_gets_nothing_that_was_meant_for_another_one_or_may_not_leave() {
    let Some(peer) = Snmpd::start().await else { return };
    let mut driver = peer.driver("private");
    carry_out(&mut driver, &[Op::CreateVlan { switch: "lab-sw0".parse().unwrap(), vlan: vlan(30) }], soon()).await.unwrap();
    let before = look(&mut driver).await;
    let from = before.ports["port1"].config.clone();
    let op = Op::SetPort { switch: "lab-sw0".parse().unwrap(), port: "port1".to_owned(), from, to: config(Admin::Up, 30, &[]) };

    let other = Identity { engine: Some("80000000010203".to_owned()), ..Identity::default() };
    let fault = carry_out_on(&mut driver, &other, std::slice::from_ref(&op), soon()).await.unwrap_err();
    assert!(matches!(&fault, Fault::OtherDevice { .. }), "{fault}");
    assert_eq!(look(&mut driver).await.ports, before.ports);

    let lease = LeaseEnd::never(BootClock::Kernel);
    let gate = Gate::new(Arc::clone(&lease), BootClock::Kernel);
    let mut permit = gate.permit(Key::of(&op), Identity::default().extended(&before.shown));
    permit.begin(Duration::from_secs(60));
    lease.end();
    let fault = driver.execute(&op, &permit, soon()).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent { .. }), "{fault}");
    let shown = peer.run("snmpget", "public", &[".1.3.6.1.2.1.17.7.1.4.5.1.1.1".to_owned()]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("Gauge32: 1\n"), "{shown:?}");
}
