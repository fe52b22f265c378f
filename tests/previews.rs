//! What `embody plan` says would be written is what is written: drivers are asked first, and then watched; and the whole way from a person's
//! question to the workers and back, past devices that were not read yet or do not answer.

mod small;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use embody::testing::carry_out;
use embody::testing::drivers::bmc::ipmi;
use embody::testing::drivers::switch::snmp::{Agent, Binding, Leave, Oid, SetAnswer, Walked};
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings};
use embody::testing::drivers::{Depth, Driver, Fault};
use embody::testing::limits;
use embody::testing::model::Vlan;
use embody::testing::model::fact::{Admin, BmcIdentity, BootDevice, PortConfig};
use embody::testing::model::op::{Off, Op};
use embody::testing::sim::direct::Direct;
use embody::testing::sim::switch::{Kind, SimSwitch};
use serde_json::json;
use small::{Small, binding, name, network, switch};
use tokio::time::{Instant, sleep};

fn vlan(id: u16) -> Vlan {
    i64::from(id).try_into().unwrap()
}

fn config(admin: Admin, untagged: Option<u16>, tagged: &[u16]) -> PortConfig {
    PortConfig { admin, untagged: untagged.map(vlan), tagged: tagged.iter().copied().map(vlan).collect() }
}

/// Hears what is set.
struct Ear {
    agent: Direct<SimSwitch>,
    sets: Arc<Mutex<Vec<Vec<Binding>>>>,
}

#[async_trait]
impl Agent for Ear {
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault> {
        self.agent.get(oids).await
    }
    async fn walk(&mut self, columns: &[Oid], rows: usize) -> Result<Vec<Walked>, Fault> {
        self.agent.walk(columns, rows).await
    }
    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault> {
        self.sets.lock().unwrap().push(bindings.to_vec());
        self.agent.set(bindings, leave).await
    }
    fn engine_id(&self) -> Option<Vec<u8>> {
        None
    }
}

struct Bench {
    driver: SwitchDriver,
    sets: Arc<Mutex<Vec<Vec<Binding>>>>,
}

impl Bench {
    fn new(kind: Kind) -> Bench {
        let mut sim = SimSwitch::new(kind, "sw", 8);
        [10, 20, 30].into_iter().for_each(|id| sim.add_vlan(vlan(id)));
        let sets = Arc::default();
        let agent = Ear { agent: Direct::new(Arc::new(Mutex::new(sim))), sets: Arc::clone(&sets) };
        let settings = SwitchSettings {
            manage: Some(vec!["port1-4".to_owned()]),
            uplinks: vec!["port8".to_owned()],
            create_vlans: true,
            ..SwitchSettings::default()
        };
        Bench { driver: SwitchDriver::new("switch/sw".to_owned(), Box::new(agent), settings), sets }
    }

    async fn look(&mut self) {
        self.driver.observe(Depth::Everything, soon()).await.unwrap();
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn set(port: &str, from: PortConfig, to: PortConfig) -> Op {
    Op::SetPort { switch: name("sw"), port: port.to_owned(), from, to }
}

/// The values of a preview's line, in order: `SET a = 1, b +x  # y` has two.
fn objects(line: &str) -> Vec<&str> {
    line.strip_prefix("SET ").unwrap().split("  # ").next().unwrap().split(", ").collect()
}

/// As many PDUs of as many objects, each with the instance and (where it is one) the number that was said.
fn assert_said(said: &[String], sent: &[Vec<Binding>]) {
    assert_eq!(said.len(), sent.len(), "{said:#?}\n{sent:#?}");
    for (line, bindings) in said.iter().zip(sent) {
        let objects = objects(line);
        assert_eq!(objects.len(), bindings.len(), "{line}: {bindings:?}");
        for (object, (oid, value)) in objects.iter().zip(bindings) {
            let instance = object.split(' ').next().unwrap().rsplit('.').next().unwrap();
            assert_eq!(instance, oid.0.last().unwrap().to_string(), "{line}");
            let number = match value {
                embody::testing::drivers::switch::snmp::Value::Integer(n) => n.to_string(),
                embody::testing::drivers::switch::snmp::Value::Unsigned32(n) => n.to_string(),
                _ => continue,
            };
            assert!(object.ends_with(&format!("= {number}")) || object.ends_with(&format!("({number})")), "{object}: {value:?}");
        }
    }
}

#[tokio::test]
async fn what_a_switch_driver_says_is_what_it_sends() {
    let up = |untagged, tagged: &[u16]| config(Admin::Up, untagged, tagged);
    let changes = [up(Some(20), &[]), up(Some(10), &[20, 30]), up(None, &[10]), config(Admin::Down, Some(30), &[]), up(Some(1), &[])];
    for kind in [Kind::QBridge, Kind::Cisco] {
        let mut ops = Vec::new();
        let mut from = up(Some(1), &[]);
        for to in &changes {
            ops.push(set("port1", from.clone(), to.clone()));
            from = to.clone();
        }
        if kind == Kind::QBridge {
            ops.push(Op::CreateVlan { switch: name("sw"), vlan: vlan(40) });
            ops.push(set("port2", up(Some(1), &[]), up(Some(40), &[])));
        } else {
            ops.push(Op::Save { switch: name("sw") });
        }
        let mut bench = Bench::new(kind);
        assert_eq!(bench.driver.preview(&ops), vec![vec!["not read yet".to_owned()]; ops.len()]);
        bench.look().await;
        let said = bench.driver.preview(&ops);
        assert!(bench.sets.lock().unwrap().is_empty(), "asking writes nothing");
        assert_eq!(bench.driver.preview(&ops), said, "and changes nothing that is known");
        for (op, said) in ops.iter().zip(&said) {
            carry_out(&mut bench.driver, std::slice::from_ref(op), soon()).await.unwrap();
            let sent = std::mem::take(&mut *bench.sets.lock().unwrap());
            assert!(!sent.is_empty(), "{op}");
            assert_said(said, &sent);
        }
    }
}

#[tokio::test]
async fn the_words_are_those_of_the_mibs() {
    let (here, there) = (config(Admin::Up, Some(1), &[]), config(Admin::Up, Some(20), &[]));
    let mut bench = Bench::new(Kind::QBridge);
    bench.look().await;
    let create = Op::CreateVlan { switch: name("sw"), vlan: vlan(40) };
    let said = bench.driver.preview(&[set("port1", here.clone(), there.clone()), create]);
    assert_eq!(
        said[0],
        [
            "SET ifAdminStatus.101 = down(2)  # port1",
            "SET dot1qVlanStaticEgressPorts.20 +port1, dot1qVlanStaticUntaggedPorts.20 +port1",
            "SET dot1qPvid.1 = 20  # port1",
            "SET dot1qVlanStaticUntaggedPorts.1 -port1, dot1qVlanStaticEgressPorts.1 -port1",
            "SET ifAdminStatus.101 = up(1)  # port1",
        ]
    );
    assert_eq!(
        said[1][0],
        "SET dot1qVlanStaticRowStatus.40 = createAndGo(4), dot1qVlanStaticName.40 = \"VLAN40\", dot1qVlanStaticEgressPorts.40 +port8, \
         dot1qVlanStaticUntaggedPorts.40 = none"
    );
    let (other, port5) = (config(Admin::Up, Some(30), &[]), set("port5", here.clone(), there.clone()));
    let refused = bench.driver.preview(&[port5, set("port1", there.clone(), other), set("port1", there, here.clone())]);
    assert!(refused[0][0].starts_with("nothing is sent: ") && refused[0][0].contains("outside `manage.ports`"), "{refused:?}");
    assert!(refused[1][0].contains("expected 20") && refused[1][0].contains("found 1"), "{refused:?}");
    assert_eq!(refused[2], ["nothing is sent: port1 is so already"]);

    let mut cisco = Bench::new(Kind::Cisco);
    cisco.look().await;
    let trunk = config(Admin::Up, Some(10), &[20, 30]);
    let said = cisco.driver.preview(&[set("port1", here, trunk), Op::Save { switch: name("sw") }]);
    assert_eq!(
        said[0],
        [
            "SET ifAdminStatus.101 = down(2)  # port1",
            "SET vlanTrunkPortVlansEnabled.101 = 10,20,30, vlanTrunkPortVlansEnabled2k.101 = none, vlanTrunkPortVlansEnabled3k.101 = none, \
             vlanTrunkPortVlansEnabled4k.101 = none, vlanTrunkPortSetSerialNo.0 = 1  # port1",
            "SET vlanTrunkPortNativeVlan.101 = 10, vlanTrunkPortSetSerialNo.0 = 2  # port1",
            "SET vlanTrunkPortEncapsulationType.101 = dot1Q(4), vlanTrunkPortSetSerialNo.0 = 3  # port1",
            "SET vlanTrunkPortDynamicState.101 = on(1), vlanTrunkPortSetSerialNo.0 = 4  # port1",
            "SET ifAdminStatus.101 = up(1)  # port1",
        ]
    );
    assert_eq!(
        said[1],
        [
            "SET ccCopyEntryRowStatus.4711 = destroy(6)",
            "SET ccCopySourceFileType.4711 = runningConfig(4), ccCopyDestFileType.4711 = startupConfig(3), \
             ccCopyEntryRowStatus.4711 = createAndGo(4)",
            "SET ccCopyEntryRowStatus.4711 = destroy(6)",
        ]
    );
}

#[test]
fn a_bmc_says_its_bytes() {
    let server = || name("s");
    let ops = [
        Op::SetBoot { server: server(), device: BootDevice::Disk, efi: true },
        Op::PowerOn { server: server() },
        Op::PowerOff { server: server(), how: Off::Soft },
        Op::PowerOff { server: server(), how: Off::Hard },
    ];
    let supermicro = BmcIdentity { manufacturer_id: 10876, ..BmcIdentity::default() };
    let said = ipmi::preview(&ops, Some(&supermicro));
    let boot = |parameter: &str| format!("Set System Boot Options: parameter {parameter}");
    assert_eq!(said[0], [boot("3 = 08"), boot("0 = 01"), boot("4 = 01 01"), boot("5 = e0 24 00 00 00"), boot("0 = 00")]);
    assert_eq!(
        said[1..].concat(),
        ["Chassis Control: power up (01h)", "Chassis Control: ACPI soft-off (05h)", "Chassis Control: power down (00h)"]
    );
    assert_eq!(ipmi::preview(&ops, None)[0], ["not read yet"], "which bytes mean a disk depends on the board");
}

#[tokio::test(start_paused = true)]
async fn a_person_is_told_the_writes_of_the_whole_future() {
    let site = Small::start(Kind::QBridge, json!({}), "approve").await;
    sleep(Duration::from_secs(30)).await;
    let forecast = site.plan(Vec::new()).await;
    let port = forecast.steps.iter().find(|s| s.op.starts_with("SNMP tor-1 port1 1 → 120")).unwrap_or_else(|| panic!("{forecast:?}"));
    assert_eq!(port.writes.len(), 5, "{port:?}");
    assert_eq!(port.writes[2], "SET dot1qPvid.1 = 120  # port1");
    let on = forecast.steps.iter().find(|s| s.op == "IPMI s power on").unwrap();
    assert_eq!(on.writes, ["Chassis Control: power up (01h)"]);
    assert!(forecast.steps.iter().all(|s| !s.writes.is_empty()), "{forecast:?}");

    // A network that is laid over the desired state: the writes are those of the changed future.
    let other = site.plan(vec![network("web", 130)]).await;
    assert!(other.steps.iter().any(|s| s.writes.contains(&"SET dot1qPvid.1 = 130  # port1".to_owned())), "{other:?}");
    // A changed manifest of the switch itself makes another driver.
    let other = site.plan(vec![switch(&json!({ "protectedVlans": [1] }))]).await;
    let port = other.steps.iter().find(|s| s.op.starts_with("SNMP")).unwrap();
    assert_eq!(port.writes, ["not known before this manifest of the device is applied"]);
    assert!(site.centre.switch(&name("tor-1"), |sim| sim.log.is_empty()).unwrap(), "nobody wrote anything");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_answer_keeps_nobody_waiting() {
    let site = Small::start(Kind::QBridge, json!({}), "approve").await;
    sleep(Duration::from_secs(30)).await;
    site.centre.reboot_switch(&name("tor-1"), Duration::from_secs(3600));
    // A desired state that only the ports differ for, so that it is planned on what was seen; the worker observes a switch that says nothing.
    let mut busy = 0;
    for _ in 0..120 {
        let asked = Instant::now();
        let forecast = site.plan(vec![binding("enforce")]).await;
        assert!(asked.elapsed() <= limits::PREVIEW_WAIT + Duration::from_millis(10), "{:?}", asked.elapsed());
        let steps = forecast.steps.iter().filter(|s| s.op.starts_with("SNMP"));
        busy += steps.filter(|s| s.writes == ["busy: what would be sent is not known at the moment"]).count();
        sleep(Duration::from_secs(1)).await;
    }
    assert!(busy > 0, "the worker was never found busy");
}
