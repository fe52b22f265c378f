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

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/switch")
}

async fn read(folder: &Path, name: &str) -> SwitchSeen {
    seen_of(name, &std::fs::read_to_string(folder.join(format!("{name}.snmprec"))).unwrap()).await
}

async fn seen_of(name: &str, text: &str) -> SwitchSeen {
    let agent = Direct::new(Arc::new(Mutex::new(Tree::parse(text).unwrap())));
    let mut driver = SwitchDriver::new(name.to_owned(), Box::new(agent), SwitchSettings::default());
    let deadline = Instant::now() + Duration::from_secs(60);
    let Observation::Switch(first) = driver.observe(Depth::Everything, deadline).await.unwrap() else { panic!("a switch") };
    let Observation::Switch(again) = driver.observe(Depth::State, deadline).await.unwrap() else { panic!("a switch") };
    assert_eq!(first, again, "{name}: a second look at what did not change shows the same");
    SwitchSeen::clone(&first)
}

/// Port by port, so that a difference is readable.
fn compare(folder: &Path, name: &str, seen: &SwitchSeen) -> Vec<String> {
    let Some(expected) = [folder, &data()].iter().find_map(|f| std::fs::read_to_string(f.join(format!("{name}.expected.json"))).ok())
    else {
        return vec![format!(
            "{name}: {} holds a recording, and nowhere is {name}.expected.json: what is to be read of it",
            folder.display()
        )];
    };
    let expected: Value = serde_json::from_str(&expected).unwrap();
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

/// The names of a folder's recordings.
fn recordings(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "snmprec"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{} holds no recording", folder.display());
    names
}

/// All of a folder, each with what it is expected to be read as: beside it, or here.
async fn differences(folder: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    for name in recordings(folder) {
        differences.extend(compare(folder, &name, &read(folder, &name).await));
    }
    differences
}

#[tokio::test]
async fn the_recordings_kept_here_read_as_they_are() {
    let differences = differences(&data()).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn the_recordings_kept_elsewhere_read_as_they_are() {
    let Some(folder) = elsewhere() else {
        eprintln!("SKIP: the recordings of LibreNMS: neither EMBODY_RECORDINGS nor ../shared/recordings is there");
        return;
    };
    let differences = differences(&folder).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn a_recording_without_expectations_fails() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::copy(data().join("dlink-des3038.snmprec"), folder.path().join("unheard-of.snmprec")).unwrap();
    let differences = differences(folder.path()).await;
    assert!(matches!(differences.as_slice(), [one] if one.contains("unheard-of.expected.json")), "{differences:?}");
    std::fs::copy(data().join("dlink-des3038.expected.json"), folder.path().join("unheard-of.expected.json")).unwrap();
    assert!(self::differences(folder.path()).await.is_empty());
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
    let (exists, efi, debts, unresolved) = (true, false, Default::default(), None);
    let want =
        Desired { server: name("s"), holder, exists, efi, past, releaser, released_ports, debts, unresolved, port_problems, maintenance };
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

// ---- kinds of which no recording is kept ----------------------------------------------------------------------------------

/// Ethernet ports: ifIndex, ifName, ifDescr, ifOperStatus, and the base port where it has one.
fn interfaces(object_id: &str, ports: &[(u32, &str, &str, u32, Option<u32>)]) -> String {
    let mut text = format!("1.3.6.1.2.1.1.1.0|4|a switch\n1.3.6.1.2.1.1.2.0|6|{object_id}\n1.3.6.1.2.1.1.3.0|67|4711\n");
    for (index, name, descr, oper, base) in ports {
        text += &format!("1.3.6.1.2.1.2.2.1.2.{index}|4|{descr}\n1.3.6.1.2.1.2.2.1.3.{index}|2|6\n1.3.6.1.2.1.2.2.1.7.{index}|2|1\n");
        text += &format!("1.3.6.1.2.1.2.2.1.8.{index}|2|{oper}\n1.3.6.1.2.1.31.1.1.1.1.{index}|4|{name}\n");
        text += &base.map(|base| format!("1.3.6.1.2.1.17.1.4.1.2.{base}|2|{index}\n")).unwrap_or_default();
    }
    text
}

const UNKNOWN_VENDOR: &str = "1.3.6.1.4.1.99999.1";

/// `mode untagged+t(tagged) quality` of each port.
fn vlans(seen: &SwitchSeen) -> Vec<String> {
    seen.ports.iter().map(|(name, port)| format!("{name}: {:?} {} {:?}", port.mode, port.config, port.quality)).collect()
}

#[tokio::test]
async fn of_two_interfaces_that_share_a_name_the_port_of_the_bridge_has_it() {
    let text = interfaces(
        UNKNOWN_VENDOR,
        &[
            (1, "Gi0/1", "GigabitEthernet 0/1", 1, Some(1)),
            (201334784, "Gi0/1", "GigabitEthernet 0/1", 1, None),
            (2, "Gi0/2", "GigabitEthernet 0/2", 1, Some(2)),
            (201334785, "Gi0/2", "Routed 0/2", 1, None),
            (3, "Gi0/3", "GigabitEthernet 0/3", 1, Some(3)),
            (4, "Gi0/3", "GigabitEthernet 0/3", 1, Some(4)),
        ],
    );
    let seen = seen_of("shared", &text).await;
    let at = |name: &str| resolve(&seen, name).map(|key| seen.ports[key].if_index);
    assert_eq!((at("Gi0/1"), at("Gi0/2"), at("Routed 0/2")), (Ok(1), Ok(2), Ok(201334785)));
    assert_eq!(at("Gi0/1 (ifIndex 201334784)"), Ok(201334784));
    // Of two ports of the bridge neither is meant by a name that both have.
    assert!(at("Gi0/3").is_err() && at("ifIndex 3") == Ok(3) && at("ifIndex 4") == Ok(4), "{:?}", seen.ports.keys());
}

/// RFC 4363: dot1qVlanCurrentEgressPorts are the ports that transmit; dot1qPvid is what untagged frames are given.
#[tokio::test]
async fn a_port_that_is_down_is_in_the_vlan_that_it_is_configured_for() {
    let ports =
        [(1, "a", "", 1, Some(1)), (2, "b", "", 2, Some(2)), (3, "c", "", 2, Some(3)), (4, "d", "", 1, Some(4)), (5, "e", "", 2, Some(5))];
    let pvid = |ports: &[(u32, u32)]| -> String {
        ports.iter().map(|(port, vlan)| format!("1.3.6.1.2.1.17.7.1.4.5.1.1.{port}|66|{vlan}\n")).collect()
    };
    let current = "1.3.6.1.2.1.17.7.1.4.2.1.4.0.10|4x|80\n1.3.6.1.2.1.17.7.1.4.2.1.5.0.10|4x|80\n";
    // The static table's lists of untagged members name the third, whatever the PVID.
    let configured = "1.3.6.1.2.1.17.7.1.4.3.1.4.30|4x|20\n";
    let text = interfaces(UNKNOWN_VENDOR, &ports) + current + configured + &pvid(&[(1, 10), (2, 20), (3, 1), (4, 40)]);
    let seen = seen_of("down", &text).await;
    let unknown = "Unknown(\"in no VLAN of the current table\")";
    let expected = [
        "a: Access 10 Exact",
        "b: Access 20 Exact",
        "c: Access 30 Exact",
        &format!("d: Unknown 40 {unknown}"),
        &format!("e: Unknown none {unknown}"),
    ];
    assert_eq!(vlans(&seen), expected);
    assert!(!seen.writable.access && !seen.writable.vlan_create, "and nothing is written by it");
    // Comware's static table is such a list; that of others says of a port that it is in no VLAN.
    let listed = "1.3.6.1.2.1.17.7.1.4.3.1.2.10|4x|80\n1.3.6.1.2.1.17.7.1.4.3.1.4.10|4x|80\n";
    for (vendor, down) in [("1.3.6.1.4.1.25506.1.1", "b: Access 20 Exact"), (UNKNOWN_VENDOR, "b: Access none Exact")] {
        let text = interfaces(vendor, &ports[..2]) + listed + &pvid(&[(1, 10), (2, 20)]);
        assert_eq!(vlans(&seen_of("down", &text).await), ["a: Access 10 Exact", down], "{vendor}");
    }
}

/// FOUNDRY-SN-SWITCH-GROUP-MIB: snVLanByPortMemberTable by VLAN and ifIndex, and snSwIfInfoTable.
#[tokio::test]
async fn a_foundry_port_is_what_its_own_mib_says() {
    let ports =
        [(65, "a", "", 1, Some(1)), (66, "b", "", 1, Some(2)), (67, "c", "", 1, Some(3)), (68, "d", "", 1, None), (69, "e", "", 1, None)];
    let member = |vlan: u32, port: u32, mode: u32| format!("1.3.6.1.4.1.1991.1.1.3.2.6.1.4.{vlan}.{port}|2|{mode}\n");
    let mode = |port: u32, mode: u32, vlan: u32| {
        format!("1.3.6.1.4.1.1991.1.1.3.3.5.1.4.{port}|2|{mode}\n1.3.6.1.4.1.1991.1.1.3.3.5.1.24.{port}|2|{vlan}\n")
    };
    let foundry = "1.3.6.1.4.1.1991.1.3.44.3.2";
    // An access port, a trunk, a trunk in dual mode, and ports that no row of members names.
    let members = [member(10, 65, 2), member(10, 66, 1), member(20, 66, 1), member(10, 67, 1), member(20, 67, 1)].concat();
    let modes = [mode(65, 2, 10), mode(66, 1, 1), mode(67, 3, 20), mode(68, 2, 30), mode(69, 1, 1)].concat();
    // dot1dBaseBridgeAddress: what shows nothing by which it is known again is never written.
    let address = "1.3.6.1.2.1.17.1.1.0|4x|609c9f8a75c0\n";
    let seen = seen_of("netiron", &(address.to_owned() + &interfaces(foundry, &ports) + &members + &modes)).await;
    let tagged = "Unknown(\"the VLANs that are tagged on it are not shown\")";
    let expected = [
        "a: Access 10 Exact",
        "b: Trunk none+t(10,20) Exact",
        "c: Trunk 20+t(10) Exact",
        "d: Access 30 Exact",
        &format!("e: Trunk none {tagged}"),
    ];
    assert_eq!(vlans(&seen), expected);
    assert_eq!((seen.profile, seen.writable.access), ("foundry", true));
    assert_eq!(seen.vlans.iter().map(|vlan| vlan.id()).collect::<Vec<_>>(), [10, 20]);
}
