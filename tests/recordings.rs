//! Every recording of a real switch is read into the ports that a person (with the MIBs at hand) reads out of it.
//!
//! The expectations, `tests/data/switch/NAME.expected.json`, were written from the recordings by an interpretation of the MIBs that
//! shares nothing with the driver. Leaves out: writes (`tests/switch_writes.rs`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::control::cache::Cache;
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings, Unresolved, resolve, to_json};
use embody::testing::drivers::{Depth, Driver, Observation};
use embody::testing::model::fact::{Admin, Lag, PortSeen, Quality, Seen, SwitchSeen, Tick};
use embody::testing::model::{Meta, Name, Object, Reason, Spec, SwitchSpec};
use embody::testing::plan::desired::{Desired, DesiredPort};
use embody::testing::sim::direct::Direct;
use embody::testing::sim::recording::Tree;
use serde_json::{Value, json};
use tokio::time::Instant;

const OURS: [&str; 5] = ["cisco-c3560", "cisco-n5000", "hpe-procurve-516733-b21", "brocade-icx6430-24", "dlink-des3038"];
const THEIRS: [&str; 15] = [
    "arista_eos",
    "arubaos-cx_100gb",
    "ciscosb_cbs350",
    "comware_a5500",
    "cumulus_edgecore-as4610-54p",
    "dell-sonic",
    "dnos_s4048",
    "edgecos_ecs2100-10t",
    "ios_2960x",
    "junos_qfx5100",
    "powerconnect_2824",
    "procurve_2520",
    "supermicro-switch_mbm",
    "voss_7432cq",
    "vrp_5720",
];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/switch")
}

async fn read(folder: &Path, name: &str) -> SwitchSeen {
    let text = std::fs::read_to_string(folder.join(format!("{name}.snmprec"))).unwrap();
    let agent = Direct::new(Arc::new(Mutex::new(Tree::parse(&text).unwrap())));
    let mut driver = SwitchDriver::new(name.to_owned(), Box::new(agent), SwitchSettings::default());
    let deadline = Instant::now() + Duration::from_secs(60);
    let Observation::Switch(first) = driver.observe(Depth::Everything, deadline).await.unwrap() else { panic!("a switch") };
    let Observation::Switch(again) = driver.observe(Depth::State, deadline).await.unwrap() else { panic!("a switch") };
    assert_eq!(first, again, "{name}: a second look at what did not change shows the same");
    SwitchSeen::clone(&first)
}

/// Port by port, so that a difference is readable.
fn compare(name: &str, seen: &SwitchSeen) -> Vec<String> {
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(data().join(format!("{name}.expected.json"))).unwrap()).unwrap();
    let found = to_json(seen);
    let mut differences = Vec::new();
    for field in ["sysObjectID", "sysDescr", "profile", "writable"] {
        if expected[field] != found[field] {
            differences.push(format!("{name} {field}: expected {}, found {}", expected[field], found[field]));
        }
    }
    let ports = |of: &Value| of["ports"].as_array().unwrap().clone();
    let (wanted, is) = (ports(&expected), ports(&found));
    assert!(!wanted.is_empty());
    if wanted.len() != is.len() {
        differences.push(format!("{name}: expected {} ports, found {}", wanted.len(), is.len()));
    }
    let differ = wanted.iter().zip(&is).filter(|(a, b)| a != b);
    differences.extend(differ.map(|(a, b)| format!("{name}:\n  expected {a}\n  found    {b}")));
    differences
}

#[tokio::test]
async fn the_recordings_kept_here_read_as_they_are() {
    let mut differences = Vec::new();
    for name in OURS {
        differences.extend(compare(name, &read(&data(), name).await));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn the_recordings_kept_elsewhere_read_as_they_are() {
    let Some(folder) = elsewhere() else {
        eprintln!("SKIP: 15 recordings of LibreNMS: neither EMBODY_RECORDINGS nor ../shared/recordings is there");
        return;
    };
    let mut differences = Vec::new();
    for name in THEIRS {
        differences.extend(compare(name, &read(&folder, name).await));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn elsewhere() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings");
    let named = std::env::var_os("EMBODY_RECORDINGS").map(PathBuf::from);
    if let Some(named) = &named {
        assert!(named.is_dir(), "EMBODY_RECORDINGS names no folder: {}", named.display());
    }
    named.or_else(|| beside.is_dir().then_some(beside))
}

#[tokio::test]
async fn aggregations_identities_and_macs() {
    let nexus = read(&data(), "cisco-n5000").await;
    assert_eq!(nexus.ports["Ethernet1/21"].lag, Lag::Member(Some("port-channel1".to_owned())));
    assert_eq!(nexus.ports["Ethernet1/1"].lag, Lag::None);
    assert_eq!(nexus.ports["port-channel1"].lag, Lag::Aggregate);
    assert_eq!(resolve(&nexus, "port-channel22"), Ok("port-channel22"), "also while no member is attached");
    assert!(nexus.ports.keys().all(|name| !name.starts_with("Vlan")), "nor any other virtual interface");
    assert_eq!(nexus.shown.base.as_deref(), Some("8c604f19167c"));
    let hp = read(&data(), "hpe-procurve-516733-b21").await;
    assert_eq!(hp.ports["23"].lag, Lag::None, "an aggregation of one is a port");
    assert!(hp.ports["17"].macs.len() > 10, "{} addresses behind the uplink", hp.ports["17"].macs.len());
    assert!(hp.ports.values().all(|port| port.macs.len() <= embody::testing::limits::MACS_PER_PORT));
    assert_eq!(hp.vlans.iter().map(|v| v.id()).collect::<Vec<_>>(), [1, 50, 52, 53, 70, 71, 77, 78]);
    let cisco = read(&data(), "cisco-c3560").await;
    assert_eq!(cisco.vlans.iter().map(|v| v.id()).collect::<Vec<_>>(), [1, 2, 3, 1119], "not those of FDDI and token ring");
}

#[tokio::test]
async fn a_stack_of_switches_shows_its_one_aggregation_by_the_layers_of_its_interfaces() {
    let Some(folder) = elsewhere() else {
        eprintln!("SKIP: neither EMBODY_RECORDINGS nor ../shared/recordings is there");
        return;
    };
    let stack = read(&folder, "ios_2960x").await;
    let of = |lag: &dyn Fn(&Lag) -> bool| stack.ports.iter().filter(|(_, p)| lag(&p.lag)).map(|(n, _)| n.as_str()).collect::<Vec<_>>();
    assert_eq!(of(&|lag| *lag == Lag::Aggregate), ["Po1"]);
    assert_eq!(of(&|lag| *lag == Lag::Member(Some("Po1".to_owned()))), ["Gi1/0/52", "Gi3/0/52"]);
}

/// Why a port of the switch sw is not written for the server s.
fn refusal(world: &Cache, port: &str) -> Option<Reason> {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let key = (name("sw"), port.to_owned());
    let desired =
        DesiredPort { admin: Admin::Down, untagged: None, tagged: None, needed: false, carries_bmc: false, because: String::new() };
    let released_ports = [(key.clone(), desired)].into();
    let (holder, past, releaser, port_problems, maintenance) = (None, None, None, Vec::new(), None);
    let (exists, efi, debts) = (true, false, Default::default());
    let want = Desired { server: name("s"), holder, exists, efi, past, releaser, released_ports, debts, port_problems, maintenance };
    world.seen(&name("s"), &want).ports[&key].refuse.as_ref().map(|t| t.reason)
}

/// Each reason by itself, on a port of which nothing else is to be said.
#[tokio::test]
async fn a_port_is_not_written_that_is_not_managed_or_a_member_or_has_another_cable() {
    let nexus = read(&data(), "cisco-n5000").await;
    let plain = |p: &PortSeen| p.lag == Lag::None && p.neighbour.is_none() && p.quality == Quality::Exact;
    let mut plain = nexus.ports.iter().filter(|(_, p)| plain(p)).map(|(key, _)| key.as_str());
    let (here, elsewhere) = (plain.next().unwrap(), plain.next().unwrap());
    let put = |world: &mut Cache, kind: &str, name: &str, spec: Value| {
        let object = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
        world.objects.insert(&Object::from_json(object).unwrap());
    };
    let mac = |n: u8| format!("02:00:00:00:00:{n:02x}");
    let judged = |port: &str, change: &dyn Fn(&mut SwitchSeen)| {
        let mut world = Cache::default();
        let snmp = json!({ "version": "v2c", "secretRef": { "name": "x" }, "insecure": true });
        put(&mut world, "Switch", "sw", json!({ "address": "192.0.2.1", "snmp": snmp, "manage": { "ports": [here] } }));
        let bmc = json!({ "address": "192.0.2.2", "secretRef": { "name": "x" } });
        let nic = json!({ "name": "nic1", "mac": mac(1), "switch": "sw", "port": here });
        put(&mut world, "Server", "s", json!({ "bmc": bmc, "nics": [nic] }));
        put(&mut world, "Server", "t", json!({ "bmc": bmc, "nics": [{ "name": "nic1", "mac": mac(2) }] }));
        let mut seen = nexus.clone();
        seen.ports.values_mut().for_each(|port| port.macs.clear());
        change(&mut seen);
        world.cables.learn(&"sw".parse().unwrap(), &seen);
        world.switches.entry("sw".parse().unwrap()).or_default().seen = Some(Seen { value: seen.into(), asked_at: Tick(1) });
        refusal(&world, port)
    };
    let learned = |at: &str, n: u8| {
        let (at, mac) = (at.to_owned(), mac(n).parse().unwrap());
        move |seen: &mut SwitchSeen| seen.ports.get_mut(&at).unwrap().macs = [mac].into()
    };
    assert_eq!(judged(here, &|_| {}), None);
    assert_eq!(judged(here, &learned(here, 1)), None);
    assert_eq!(judged(elsewhere, &|_| {}), Some(Reason::PortNotManaged));
    let member = |seen: &mut SwitchSeen| seen.ports.get_mut(here).unwrap().lag = Lag::Member(None);
    assert_eq!(judged(here, &member), Some(Reason::LinkAggregation));
    assert_eq!(judged(here, &learned(here, 2)), Some(Reason::CableContradicted), "another server is on it");
    assert_eq!(judged(here, &learned(elsewhere, 1)), Some(Reason::CableContradicted), "the server is on another one");
}

/// Invariant 6, for an aggregation: the neighbour is heard on a member.
#[tokio::test]
async fn an_aggregation_that_leads_to_a_switch_is_never_written() {
    let nexus = read(&data(), "cisco-n5000").await;
    let mut world = Cache::default();
    let spec = |value| serde_json::from_value(value).unwrap();
    let snmp = json!({ "version": "v2c", "secretRef": { "name": "x" }, "insecure": true });
    let switch: SwitchSpec = spec(json!({ "address": "192.0.2.1", "snmp": snmp, "manage": { "ports": ["port-channel1-60"] } }));
    let name = |text: &str| text.parse::<Name>().unwrap();
    world.objects.insert(&Object { meta: Meta::named(name("sw")), spec: Spec::Switch(switch), status: Value::Null });
    world.switches.entry(name("sw")).or_default().seen = Some(Seen { value: nexus.clone().into(), asked_at: Tick(1) });
    let refusal = |port: &str| refusal(&world, port);
    let leads = |of: &str| {
        let member = |p: &&PortSeen| p.lag == Lag::Member(Some(of.to_owned()));
        nexus.ports.values().filter(member).any(|p| p.neighbour.as_ref().is_some_and(|n| n.bridge == Some(true)))
    };
    let (to_switches, free): (Vec<&String>, Vec<&String>) =
        nexus.ports.iter().filter(|(_, p)| p.lag == Lag::Aggregate).map(|(key, _)| key).partition(|key| leads(key));
    assert!(!to_switches.is_empty() && !free.is_empty(), "{to_switches:?} {free:?}");
    assert!(to_switches.iter().all(|port| refusal(port) == Some(Reason::CableContradicted)), "{to_switches:?}");
    assert!(free.iter().all(|port| refusal(port).is_none()), "{free:?}");
}

#[tokio::test]
async fn a_name_means_one_port_or_none() {
    let cisco = read(&data(), "cisco-c3560").await;
    assert_eq!(resolve(&cisco, "Gi0/1"), Ok("Gi0/1"));
    assert_eq!(resolve(&cisco, "GigabitEthernet0/1"), Ok("Gi0/1"));
    assert!(matches!(resolve(&cisco, "Gi0/99"), Err(Unresolved::None { .. })));
    let mut twice = cisco.clone();
    for key in ["Gi0/1", "Gi0/2"] {
        twice.ports.get_mut(key).unwrap().also.push("uplink".to_owned());
    }
    let several = resolve(&twice, "uplink").unwrap_err();
    assert_eq!(several.to_string(), "`uplink` names several ports: Gi0/1, Gi0/2");
    assert!(cisco.ports.values().all(|port| port.quality == Quality::Exact));
}
