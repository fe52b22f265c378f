//! Writes of the switch driver, on simulated switches that obey and on ones that lie, and on recordings of real ones.
//!
//! What must hold at every moment: a port that is up is untagged in the old or the new VLAN only, and no other port changes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use embody::testing::carry_out;
use embody::testing::drivers::switch::objects::{self as o, Arcs};
use embody::testing::drivers::switch::portlist::Form;
use embody::testing::drivers::switch::snmp::{Agent, Binding, Leave, Oid, SetAnswer, Value, Walked};
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings};
use embody::testing::drivers::{Depth, Driver, Fault, Observation};
use embody::testing::model::fact::{Admin, PortConfig, Quality, SwitchSeen};
use embody::testing::model::op::Op;
use embody::testing::model::{Mac, Vlan};
use embody::testing::sim::direct::Direct;
use embody::testing::sim::mib::Mib;
use embody::testing::sim::recording::Tree;
use embody::testing::sim::switch::{Announced, Faults, FrameTypes, Kind, SimSwitch, Who};
use proptest::prelude::*;
use tokio::time::Instant;

fn vlan(id: u16) -> Vlan {
    Vlan::try_from(i64::from(id)).unwrap()
}

fn config(admin: Admin, untagged: impl Into<Option<u16>>, tagged: &[u16]) -> PortConfig {
    PortConfig { admin, untagged: untagged.into().map(vlan), tagged: tagged.iter().copied().map(vlan).collect() }
}

struct Bench {
    sim: Arc<Mutex<SimSwitch>>,
    requests: Arc<Mutex<usize>>,
    driver: SwitchDriver,
}

fn settings(ports: &[&str]) -> SwitchSettings {
    SwitchSettings { manage: Some(ports.iter().map(|p| (*p).to_owned()).collect()), create_vlans: true, ..SwitchSettings::default() }
}

impl Bench {
    fn new(sim: SimSwitch, settings: SwitchSettings) -> Bench {
        let sim = Arc::new(Mutex::new(sim));
        let agent = Direct::new(Arc::clone(&sim));
        let requests = Arc::clone(&agent.requests);
        Bench { sim, requests, driver: SwitchDriver::new("sw".to_owned(), Box::new(agent), settings) }
    }

    fn with_vlans(kind: Kind, vlans: &[u16]) -> Bench {
        let mut sim = SimSwitch::new(kind, "sw", 8);
        vlans.iter().for_each(|id| sim.add_vlan(vlan(*id)));
        Bench::new(sim, settings(&["port1-4"]))
    }

    fn sim(&self) -> MutexGuard<'_, SimSwitch> {
        self.sim.lock().unwrap()
    }

    async fn look(&mut self, depth: Depth) -> SwitchSeen {
        match self.driver.observe(depth, soon()).await.unwrap() {
            Observation::Switch(seen) => SwitchSeen::clone(&seen),
            Observation::Bmc(_) => panic!("a switch is no BMC"),
        }
    }

    async fn set(&mut self, port: &str, to: PortConfig) -> Result<(), Fault> {
        let from = self.look(Depth::State).await.ports[port].config.clone();
        self.set_from(port, from, to).await
    }

    async fn set_from(&mut self, port: &str, from: PortConfig, to: PortConfig) -> Result<(), Fault> {
        let op = Op::SetPort { switch: "sw".parse().unwrap(), port: port.to_owned(), from, to };
        carry_out(&mut self.driver, &[op], soon()).await
    }

    async fn create(&mut self, id: u16) -> Result<(), Fault> {
        carry_out(&mut self.driver, &[Op::CreateVlan { switch: "sw".parse().unwrap(), vlan: vlan(id) }], soon()).await
    }

    fn truth(&self, port: &str) -> PortConfig {
        self.sim().ports()[port].clone()
    }

    /// The log: only this port, and while it was up only untagged in the old VLANs or the new one.
    fn check_log(&self, port: &str, old: &BTreeSet<Vlan>, new: Option<Vlan>) {
        for change in &self.sim().log {
            assert_eq!((change.who, change.port.as_str()), (Who::Snmp, port), "{change:?}");
            if change.to.admin == Admin::Up {
                let allowed = |vlan: &Vlan| old.contains(vlan) || Some(*vlan) == new;
                assert!(change.to.untagged.iter().all(allowed), "{change:?}");
            }
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

const KINDS: [Kind; 5] = [Kind::QBridge, Kind::Cisco, Kind::Comware, Kind::Foundry { dual_mode: true }, Kind::Foundry { dual_mode: false }];

#[tokio::test]
async fn a_port_moves_shut_and_is_opened_when_all_is_right() {
    for kind in KINDS {
        let mut bench = Bench::with_vlans(kind, &[10, 20, 30]);
        bench.set("port1", config(Admin::Up, 10, &[20, 30])).await.unwrap();
        assert_eq!(bench.truth("port1"), config(Admin::Up, 10, &[20, 30]));
        let seen = bench.look(Depth::State).await;
        assert_eq!((&seen.ports["port1"].config, &seen.ports["port1"].quality), (&config(Admin::Up, 10, &[20, 30]), &Quality::Exact));
        bench.check_log("port1", &[vlan(1)].into(), Some(vlan(10)));
        let steps: Vec<Admin> = bench.sim().log.iter().map(|change| change.to.admin).collect();
        assert_eq!((steps.first(), steps.last()), (Some(&Admin::Down), Some(&Admin::Up)));
        assert_eq!(steps.iter().filter(|admin| **admin == Admin::Up).count(), 1, "{kind:?}: opened once, at the end");
    }
}

#[tokio::test]
async fn tagged_vlans_change_without_a_flap() {
    for kind in KINDS {
        let mut bench = Bench::with_vlans(kind, &[10, 20, 30]);
        bench.sim().set_port("port2", &config(Admin::Up, 10, &[20])).unwrap();
        bench.sim().log.clear();
        bench.set("port2", config(Admin::Up, 10, &[30])).await.unwrap();
        assert_eq!(bench.truth("port2"), config(Admin::Up, 10, &[30]));
        assert!(bench.sim().log.iter().all(|change| change.to.admin == Admin::Up), "{kind:?}");
    }
}

/// vmVlanTable has no rows of trunks: that it is empty does not mean that the switch has none.
#[tokio::test]
async fn where_all_ports_are_trunks_one_still_becomes_an_access_port() {
    let mut sim = SimSwitch::new(Kind::Cisco, "sw", 8);
    [10, 20, 30].iter().for_each(|id| sim.add_vlan(vlan(*id)));
    for n in 1..=8 {
        sim.set_port(&format!("port{n}"), &config(Admin::Up, 10, &[20]));
    }
    let mut bench = Bench::new(sim, settings(&["port1-8"]));
    let seen = bench.look(Depth::Everything).await;
    assert!(seen.writable.admin && seen.writable.access && seen.writable.trunk, "{:?}", seen.writable);
    bench.set("port1", config(Admin::Up, 30, &[])).await.unwrap();
    assert_eq!(bench.truth("port1"), config(Admin::Up, 30, &[]));
}

#[tokio::test]
async fn down_and_none_and_back() {
    let mut bench = Bench::with_vlans(Kind::QBridge, &[10, 20]);
    for to in [
        config(Admin::Down, 1, &[]),
        config(Admin::Down, 10, &[]),
        config(Admin::Up, None, &[10, 20]),
        config(Admin::Up, 10, &[1, 20]),
        config(Admin::Up, None, &[1]),
        config(Admin::Down, None, &[]),
        config(Admin::Up, 20, &[]),
    ] {
        bench.set("port1", to.clone()).await.unwrap();
        assert_eq!(bench.look(Depth::State).await.ports["port1"].config, to);
        assert_eq!(bench.truth("port1"), to);
    }
    let mut cisco = Bench::with_vlans(Kind::Cisco, &[10, 20]);
    for to in [config(Admin::Up, None, &[10, 20]), config(Admin::Up, 10, &[20]), config(Admin::Down, 20, &[]), config(Admin::Up, 20, &[])] {
        cisco.set("port1", to.clone()).await.unwrap();
        assert_eq!(cisco.truth("port1"), to);
    }
    assert!(matches!(cisco.set("port1", config(Admin::Up, None, &[])).await, Err(Fault::Unsupported { .. })));
}

#[tokio::test]
async fn a_port_without_untagged_vlan_lets_no_untagged_frame_in_where_the_switch_can() {
    for (types, ingress) in [(FrameTypes::Writable, None), (FrameTypes::ReadOnly, Some(vlan(1))), (FrameTypes::NotServed, Some(vlan(1)))] {
        let mut bench = Bench::with_vlans(Kind::QBridge, &[10, 20]);
        bench.sim().frame_types = types;
        bench.set("port1", config(Admin::Up, None, &[10])).await.unwrap();
        assert_eq!(bench.sim().views()["port1"].ingress, ingress, "{types:?}");
        let while_up = bench.sim().log.iter().any(|c| c.to.admin == Admin::Up && c.to.ingress == Some(vlan(1)) && c.to.untagged.is_empty());
        assert_eq!(while_up, ingress.is_some(), "not even for a moment");
        bench.set("port1", config(Admin::Up, None, &[10, 20])).await.unwrap();
        assert_eq!(bench.sim().views()["port1"].ingress, ingress, "{types:?}");
        bench.set("port1", config(Admin::Up, 20, &[])).await.unwrap();
        assert_eq!(bench.sim().views()["port1"].ingress, Some(vlan(20)), "{types:?}: and they are let in again");
    }
    // Somebody made it so that untagged frames go nowhere: what is set works.
    let mut bench = Bench::with_vlans(Kind::QBridge, &[10]);
    let only_tagged = ("1.3.6.1.2.1.17.7.1.4.5.1.2.1".parse().unwrap(), Value::Integer(2));
    bench.sim().set(&[only_tagged]).unwrap();
    bench.set("port1", config(Admin::Up, 10, &[])).await.unwrap();
    assert_eq!(bench.sim().views()["port1"].ingress, Some(vlan(10)));
}

#[tokio::test]
async fn what_may_not_be_written_is_refused_before_it_is_tried() {
    let mut bench = Bench::with_vlans(Kind::QBridge, &[10]);
    bench.driver = SwitchDriver::new(
        "sw".to_owned(),
        Box::new(Direct::new(Arc::clone(&bench.sim))),
        SwitchSettings { uplinks: vec!["port3".to_owned()], protected: vec![vlan(1)], create_vlans: false, ..settings(&["port1-4"]) },
    );
    // IEEE8023-LAG-MIB::dot3adAggPortAttachedAggID
    let attached: Oid = "1.2.840.10006.300.43.1.2.1.1.13.104".parse().unwrap();
    bench.sim().show(attached, Value::Integer(900));
    let ten = config(Admin::Up, 10, &[]);
    for (port, why) in [("port5", "outside"), ("port3", "uplink"), ("port4", "member")] {
        let fault = bench.set(port, ten.clone()).await.unwrap_err();
        assert!(matches!(&fault, Fault::Unsupported { .. }) && fault.to_string().contains(why), "{port}: {fault}");
    }
    bench.set("port1", ten.clone()).await.unwrap();
    let fault = bench.set("port1", config(Admin::Up, 1, &[])).await.unwrap_err();
    assert!(fault.to_string().contains("protected"), "{fault}");
    let fault = bench.set("port1", config(Admin::Up, 77, &[])).await.unwrap_err();
    assert!(matches!(&fault, Fault::Disagrees { .. }) && fault.to_string().contains("VLAN 77"), "{fault}");
    let fault = bench.set_from("port1", config(Admin::Up, 77, &[]), config(Admin::Down, 10, &[])).await.unwrap_err();
    assert!(matches!(&fault, Fault::Disagrees { expected, found, .. } if expected == "77" && found == "10"), "{fault}");
    assert!(matches!(bench.set_from("portx", ten.clone(), ten.clone()).await, Err(Fault::Disagrees { .. })));
    assert!(matches!(bench.create(50).await, Err(Fault::Unsupported { .. })));
    assert!(bench.sim().log.iter().all(|change| change.port == "port1"));
}

/// A table that is answered with genErr: what a write needs of it and was not told refuses the write, and nothing else does.
#[tokio::test]
async fn what_a_write_needs_and_was_not_told_refuses_it_in_words() {
    let egress = o::STATIC_EGRESS;
    for (table, refusal) in [
        (o::PVID, Some("dot1qPortVlanTable is not told to its end: its agent answers genErr(5)")),
        (o::IF_ADMIN_STATUS, Some("ifTable is not told")),
        (o::BASE_PORT_IF_INDEX, Some("dot1dBasePortTable is not told")),
        (o::STATIC_UNTAGGED, Some("dot1qVlanStaticTable is not told")),
        (egress, Some("does not serve the tables")),
        (LAG, Some("whether it belongs to an aggregation is not known: dot3adAggPortTable is not told")),
        (LLDP, None),
        (IF_ALIAS, None),
    ] {
        let mut bench = Bench::with_vlans(Kind::QBridge, &[10]);
        bench.sim().faults.hides = Some(table);
        let seen = bench.look(Depth::Everything).await;
        assert!(!seen.notes.is_empty(), "{table:?}");
        let done = bench.set_from("port1", seen.ports["port1"].config.clone(), config(Admin::Up, 10, &[])).await;
        match (done, refusal) {
            (Ok(()), None) => assert_eq!(bench.truth("port1"), config(Admin::Up, 10, &[])),
            (Err(fault @ Fault::Unsupported { .. }), Some(word)) => assert!(fault.to_string().contains(word), "{fault}"),
            (done, _) => panic!("{table:?}: {done:?}"),
        }
        assert!(refusal.is_none() || bench.sim().log.is_empty());
        // A VLAN that is not told may be there: it is not made.
        let made = bench.create(20).await;
        assert_eq!(made.is_ok(), refusal.is_none() || table == LAG, "{table:?}: {made:?}");
    }
    // The same of a switch that told it until now.
    let mut bench = Bench::with_vlans(Kind::QBridge, &[10]);
    bench.look(Depth::Everything).await;
    bench.sim().faults.hides = Some(o::PVID);
    bench.sim().add_vlan(vlan(30));
    assert!(bench.set("port1", config(Admin::Up, 10, &[])).await.is_err());
    bench.sim().faults.hides = None;
    bench.set("port1", config(Admin::Up, 10, &[])).await.unwrap();
}

/// IEEE8023-LAG-MIB, LLDP-MIB, and IF-MIB::ifAlias.
const LAG: Arcs = &[1, 2, 840, 10006, 300, 43];
const LLDP: Arcs = &[1, 0, 8802];
const IF_ALIAS: Arcs = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18];

#[tokio::test]
async fn a_switch_that_is_only_observed_gets_nothing() {
    for only_observed in [SwitchSettings { manage: None, ..settings(&[]) }, SwitchSettings { read_only: true, ..settings(&["port1-4"]) }] {
        let mut bench = Bench::with_vlans(Kind::QBridge, &[10]);
        bench.driver = SwitchDriver::new("sw".to_owned(), Box::new(Direct::new(Arc::clone(&bench.sim))), only_observed);
        let port = bench.set("port1", config(Admin::Up, 10, &[])).await;
        for result in [port.map(drop), bench.create(50).await.map(drop)] {
            assert!(matches!(&result, Err(fault @ Fault::Unsupported { .. }) if fault.to_string().contains("only observed")), "{result:?}");
        }
        assert!(bench.sim().log.is_empty() && !bench.look(Depth::State).await.vlans.contains(&vlan(50)));
    }
}

#[tokio::test]
async fn a_vlan_is_made_the_way_the_agent_takes_it() {
    for faults in [
        Faults::default(),
        Faults { not_atomic: true, row_status_alone: true, ..Faults::default() },
        Faults { row_status_alone: true, ..Faults::default() },
        Faults { first_varbind_only: true, ..Faults::default() },
        Faults { error_but_applied: true, ..Faults::default() },
    ] {
        let mut bench = Bench::new(
            SimSwitch::new(Kind::QBridge, "sw", 24),
            SwitchSettings { uplinks: vec!["port23-24".into()], ..settings(&["port1-4"]) },
        );
        bench.sim().faults = faults;
        bench.create(30).await.unwrap();
        bench.create(30).await.unwrap();
        let ports = bench.sim().ports();
        for (port, config) in ports {
            let uplink = port == "port23" || port == "port24";
            assert_eq!(config.tagged.contains(&vlan(30)), uplink, "{port} {faults:?}");
        }
        assert!(bench.look(Depth::State).await.vlans.contains(&vlan(30)));
    }
    let mut liar = Bench::with_vlans(Kind::QBridge, &[]);
    liar.sim().faults = Faults { ok_but_not_applied: true, ..Faults::default() };
    assert!(matches!(liar.create(30).await, Err(Fault::Disagrees { .. })));
    let mut deaf = Bench::with_vlans(Kind::QBridge, &[]);
    deaf.sim().faults = Faults { read_only: true, ..Faults::default() };
    let fault = deaf.create(30).await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { .. }) && fault.to_string().contains("noAccess(6)"), "{fault}");
    let mut cisco = Bench::with_vlans(Kind::Cisco, &[]);
    assert!(matches!(cisco.create(30).await, Err(Fault::Unsupported { .. })));
}

/// A Comware's row is made as any other; a VLAN of a Foundry is what has members.
#[tokio::test]
async fn a_vlan_is_made_in_the_tables_of_its_family() {
    let uplinks = || SwitchSettings { uplinks: vec!["port7-8".into()], ..settings(&["port1-4"]) };
    for kind in [Kind::Comware, Kind::Foundry { dual_mode: true }, Kind::Foundry { dual_mode: false }] {
        for error in [false, true] {
            let mut sim = SimSwitch::new(kind, "sw", 8);
            for port in ["port7", "port8"] {
                sim.set_port(port, &config(Admin::Up, 1, &[10])).unwrap();
            }
            let mut bench = Bench::new(sim, uplinks());
            bench.look(Depth::Everything).await;
            bench.sim().faults.error_but_applied = error;
            bench.create(30).await.unwrap();
            bench.create(30).await.unwrap();
            assert!(bench.look(Depth::State).await.vlans.contains(&vlan(30)), "{kind:?}");
            for (port, now) in bench.sim().ports() {
                let tagged: &[u16] = if port == "port7" || port == "port8" { &[10, 30] } else { &[] };
                assert_eq!(now, config(Admin::Up, 1, tagged), "{kind:?} {port}");
            }
            bench.set("port1", config(Admin::Up, 30, &[])).await.unwrap();
            assert_eq!(bench.truth("port1"), config(Admin::Up, 30, &[]), "{kind:?}");
        }
    }
    let mut bench = Bench::with_vlans(Kind::Foundry { dual_mode: true }, &[]);
    let fault = bench.create(30).await.unwrap_err();
    assert!(matches!(&fault, Fault::Unsupported { why, .. } if why.contains("name its uplinks in `uplinks`")), "{fault}");
    // The first tag would take an untagged uplink out of its VLAN, where both are not had side by side.
    let mut bench = Bench::new(SimSwitch::new(Kind::Foundry { dual_mode: true }, "sw", 8), uplinks());
    let fault = bench.create(30).await.unwrap_err();
    assert!(matches!(&fault, Fault::Unsupported { why, .. } if why.contains("its uplink port7 has no tagged VLAN")), "{fault}");
    assert!(bench.sim().ports().into_iter().all(|(_, now)| now == config(Admin::Up, 1, &[])));
    // One that was made by its first member is not shown when it has none.
    let mut bench = Bench::new(SimSwitch::new(Kind::Foundry { dual_mode: false }, "sw", 8), uplinks());
    bench.create(30).await.unwrap();
    let gone = [
        (Oid([o::FOUNDRY_MEMBER_STATUS, &[30, 107]].concat()), Value::Integer(3)),
        (Oid([o::FOUNDRY_MEMBER_STATUS, &[30, 108]].concat()), Value::Integer(3)),
    ];
    bench.sim().set(&gone).unwrap();
    let fault = bench.set("port1", config(Admin::Up, 30, &[])).await.unwrap_err();
    assert!(matches!(&fault, Fault::Disagrees { expected, .. } if expected == "VLAN 30 to exist"), "{fault}");
    assert_eq!(bench.truth("port1"), config(Admin::Up, 1, &[]));
}

/// What the vendors' tables cannot express is refused before a port is shut for it.
#[tokio::test]
async fn what_a_family_has_no_way_to_say_is_refused() {
    let foundry = |dual_mode| Kind::Foundry { dual_mode };
    let cases = [
        (Kind::Comware, config(Admin::Up, None, &[]), "an access port always has an untagged VLAN"),
        (foundry(true), config(Admin::Up, None, &[]), "always go into a VLAN"),
        (foundry(false), config(Admin::Up, None, &[10]), "always go into a VLAN"),
        (foundry(true), config(Admin::Up, 10, &[1]), "nothing is tagged in the default VLAN"),
    ];
    for (kind, to, why) in cases {
        let mut bench = Bench::with_vlans(kind, &[10]);
        let fault = bench.set("port1", to).await.unwrap_err();
        assert!(matches!(&fault, Fault::Unsupported { .. }) && fault.to_string().contains(why), "{kind:?}: {fault}");
        assert!(bench.sim().log.is_empty(), "{kind:?}");
    }
}

#[tokio::test]
async fn liars_are_found_out() {
    for kind in [Kind::QBridge, Kind::Cisco] {
        let mut bench = Bench::with_vlans(kind, &[10]);
        bench.look(Depth::Everything).await;
        bench.sim().faults = Faults { ok_but_not_applied: true, ..Faults::default() };
        let fault = bench.set("port1", config(Admin::Up, 10, &[])).await.unwrap_err();
        assert!(matches!(&fault, Fault::Disagrees { .. }), "{fault}");
        bench.sim().faults = Faults { read_only: true, ..Faults::default() };
        let fault = bench.set("port1", config(Admin::Up, 10, &[])).await.unwrap_err();
        assert!(matches!(&fault, Fault::Forbidden { code, .. } if code.starts_with("noAccess(6)")), "{fault}");
        assert_eq!(bench.truth("port1"), config(Admin::Up, 1, &[]));
    }
}

#[tokio::test]
async fn saving_and_what_a_reboot_forgets() {
    let mut bench = Bench::with_vlans(Kind::Cisco, &[10]);
    bench.sim().save();
    bench.set("port1", config(Admin::Up, 10, &[])).await.unwrap();
    assert!(!bench.sim().is_saved());
    carry_out(&mut bench.driver, &[Op::Save { switch: "sw".parse().unwrap() }], soon()).await.unwrap();
    assert!(bench.sim().is_saved());
    bench.set("port1", config(Admin::Up, 1, &[])).await.unwrap();
    bench.sim().reboot();
    assert_eq!(bench.look(Depth::State).await.ports["port1"].config, config(Admin::Up, 10, &[]));
    for kind in [Kind::Cisco, Kind::Comware, Kind::Foundry { dual_mode: true }] {
        let mut bench = Bench::with_vlans(kind, &[10]);
        let save = [Op::Save { switch: "sw".parse().unwrap() }];
        // Twice: what the first leaves is no hindrance.
        for (times, id) in [(1, 10), (2, 1)] {
            bench.set("port1", config(Admin::Up, id, &[])).await.unwrap();
            carry_out(&mut bench.driver, &save, soon()).await.unwrap();
            assert!(bench.sim().is_saved(), "{kind:?}");
            assert_eq!(bench.sim().copies, times, "{kind:?}");
        }
        bench.set("port1", config(Admin::Up, 10, &[])).await.unwrap();
        bench.sim().faults.copy_fails = true;
        let fault = carry_out(&mut bench.driver, &save, soon()).await.unwrap_err();
        assert!(matches!(&fault, Fault::Refused { what, .. } if what == "saving its configuration"), "{kind:?}: {fault}");
        assert!(!bench.sim().is_saved());
    }
    let mut plain = Bench::with_vlans(Kind::QBridge, &[]);
    assert!(!plain.look(Depth::State).await.writable.save);
    assert!(matches!(
        carry_out(&mut plain.driver, &[Op::Save { switch: "sw".parse().unwrap() }], soon()).await,
        Err(Fault::Unsupported { .. })
    ));
}

#[tokio::test]
async fn a_look_at_48_ports_takes_three_requests() {
    let mut sim = SimSwitch::new(Kind::QBridge, "sw", 48);
    (10..19).for_each(|id| sim.add_vlan(vlan(id)));
    let mut bench = Bench::new(sim, settings(&[]));
    bench.look(Depth::Everything).await;
    let before = *bench.requests.lock().unwrap();
    bench.look(Depth::State).await;
    let spent = *bench.requests.lock().unwrap() - before;
    assert!((1..=3).contains(&spent), "{spent} requests");
    bench.sim().add_vlan(vlan(200));
    assert!(bench.look(Depth::State).await.vlans.contains(&vlan(200)), "a VLAN made at the console is seen");
    bench.sim().set_port("port5", &config(Admin::Down, 200, &[10])).unwrap();
    assert_eq!(bench.look(Depth::State).await.ports["port5"].config, config(Admin::Down, 200, &[10]));
}

#[tokio::test]
async fn who_is_plugged_in_is_seen_while_the_port_is_up() {
    for kind in [Kind::QBridge, Kind::Cisco] {
        let mut bench = Bench::with_vlans(kind, &[10]);
        let nic: Mac = "00:17:a4:77:00:01".parse().unwrap();
        let switch = Announced { chassis: "00:1b:21:00:00:09".parse().unwrap(), port: "49".into(), system: "core".into(), bridge: true };
        bench.sim().plug("port1", nic);
        bench.sim().plug("port2", "00:17:a4:77:00:02".parse().unwrap());
        bench.sim().shut("port2").unwrap();
        bench.sim().announce("port8", Some(switch));
        let seen = bench.look(Depth::Everything).await;
        assert_eq!((&seen.ports["port1"].macs, seen.ports["port2"].macs.len()), (&[nic].into(), 0));
        let neighbour = seen.ports["port8"].neighbour.clone().unwrap();
        assert_eq!((neighbour.chassis.as_str(), neighbour.port.as_str(), neighbour.bridge), ("00:1b:21:00:00:09", "49", Some(true)));
        assert!(seen.shown.serials.contains("SIM-sw") && seen.neighbours_told);
        bench.sim().tells_neighbours = false;
        bench.sim().unplug("port1", nic);
        assert!(!bench.look(Depth::Everything).await.neighbours_told, "and nothing follows from its silence");
        bench.sim().tells_neighbours = true;
        // dot1qFdbDynamicCount of a core switch: its forwarding table is not read.
        bench.sim().show("1.3.6.1.2.1.17.7.1.2.1.1.2.1".parse().unwrap(), Value::Unsigned32(100_000));
        assert_eq!(bench.look(Depth::Everything).await.ports["port1"].macs.len(), 0);
    }
}

/// A person works at the console while the driver writes: after each SET another port of the same VLANs changes.
struct Meddled {
    agent: Direct<SimSwitch>,
    sim: Arc<Mutex<SimSwitch>>,
    turn: u16,
}

#[async_trait::async_trait]
impl Agent for Meddled {
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault> {
        self.agent.get(oids).await
    }
    async fn walk(&mut self, columns: &[Oid], rows: usize) -> Result<Vec<Walked>, Fault> {
        self.agent.walk(columns, rows).await
    }
    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault> {
        let answer = self.agent.set(bindings, leave).await;
        self.turn += 1;
        let to = config(Admin::Up, [10, 20][usize::from(self.turn % 2)], &[]);
        self.sim.lock().unwrap().set_port("port5", &to).unwrap();
        answer
    }
    fn engine_id(&self) -> Option<Vec<u8>> {
        None
    }
}

#[tokio::test]
async fn no_update_of_others_is_lost_between_our_writes() {
    let mut bench = Bench::with_vlans(Kind::QBridge, &[10, 20, 30]);
    let meddled = Meddled { agent: Direct::new(Arc::clone(&bench.sim)), sim: Arc::clone(&bench.sim), turn: 0 };
    bench.driver = SwitchDriver::new("sw".to_owned(), Box::new(meddled), settings(&["port1-4"]));
    bench.sim().set_port("port1", &config(Admin::Up, 10, &[20])).unwrap();
    bench.sim().log.clear();
    bench.set("port1", config(Admin::Up, 20, &[10])).await.unwrap();
    assert_eq!(bench.truth("port1"), config(Admin::Up, 20, &[10]));
    let sim = bench.sim();
    assert!(sim.log.iter().all(|change| (change.who == Who::Snmp) == (change.port == "port1")), "{:#?}", sim.log);
    assert!(sim.log.iter().filter(|change| change.port == "port5").count() >= 4);
}

#[tokio::test]
async fn a_port_that_contradicts_itself_is_corrected() {
    let mut bench = Bench::with_vlans(Kind::QBridge, &[10, 20]);
    bench.sim().set_port("port2", &config(Admin::Up, 10, &[])).unwrap();
    // PVID 20, while frames leave untagged in VLAN 10.
    let pvid: Oid = "1.3.6.1.2.1.17.7.1.4.5.1.1.2".parse().unwrap();
    bench.sim().set(&[(pvid, Value::Unsigned32(20))]).unwrap();
    let seen = bench.look(Depth::Everything).await.ports["port2"].clone();
    assert_eq!(seen.config, config(Admin::Up, 20, &[]));
    assert!(matches!(&seen.quality, Quality::Inconsistent(why) if why == "PVID 20, but untagged in 10"), "{:?}", seen.quality);
    bench.set("port2", seen.config.clone()).await.unwrap();
    let seen = bench.look(Depth::State).await.ports["port2"].clone();
    assert_eq!((seen.config, seen.quality), (config(Admin::Up, 20, &[]), Quality::Exact));
}

// ---- every fault, any change ---------------------------------------------------------------------------------------------------

fn desired() -> impl Strategy<Value = PortConfig> {
    let admin = prop_oneof![3 => Just(Admin::Up), 1 => Just(Admin::Down)];
    let ids = || prop::sample::select(vec![1u16, 10, 20, 30]);
    (admin, prop::option::weighted(0.8, ids()), prop::collection::btree_set(ids(), 0..3)).prop_map(|(admin, untagged, tagged)| {
        let tagged: Vec<u16> = tagged.into_iter().filter(|id| Some(*id) != untagged).collect();
        config(admin, untagged, &tagged)
    })
}

fn faults() -> impl Strategy<Value = Faults> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(first, error, not_atomic, follows)| Faults {
        first_varbind_only: first,
        error_but_applied: error,
        not_atomic,
        pvid_follows: follows,
        ..Faults::default()
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_on_any_bridge(old in desired(), new in desired(), faults in faults()) {
        run(async {
            let mut bench = Bench::with_vlans(Kind::QBridge, &[10, 20, 30]);
            bench.sim().set_port("port2", &old).unwrap();
            bench.sim().log.clear();
            bench.look(Depth::Everything).await;
            bench.sim().faults = faults;
            bench.set("port2", new.clone()).await.unwrap();
            assert_eq!(bench.truth("port2"), new);
            bench.check_log("port2", &old.untagged.into_iter().collect(), new.untagged);
        });
    }

    #[test]
    fn any_change_on_any_cisco(old in desired(), new in desired(), faults in faults()) {
        let possible = |config: &PortConfig| config.untagged.is_some() || !config.tagged.is_empty();
        prop_assume!(possible(&old) && possible(&new));
        run(async {
            let mut bench = Bench::with_vlans(Kind::Cisco, &[10, 20, 30]);
            bench.sim().set_port("port2", &old).unwrap();
            bench.sim().log.clear();
            bench.look(Depth::Everything).await;
            bench.sim().faults = faults;
            bench.set("port2", new.clone()).await.unwrap();
            assert_eq!(bench.truth("port2"), new);
            bench.check_log("port2", &old.untagged.into_iter().collect(), new.untagged);
        });
    }
}

/// There and back, so that what the first change leaves is what the second finds.
async fn there_and_back(kind: Kind, old: &PortConfig, new: &PortConfig, faults: Faults) {
    let mut bench = Bench::with_vlans(kind, &[10, 20, 30]);
    bench.sim().set_port("port2", old).unwrap();
    bench.sim().log.clear();
    bench.look(Depth::Everything).await;
    bench.sim().faults = faults;
    for (from, to) in [(old, new), (new, old)] {
        bench.set("port2", to.clone()).await.unwrap();
        assert_eq!(bench.truth("port2"), *to, "{kind:?}: {from} to {to}");
        bench.check_log("port2", &from.untagged.into_iter().collect(), to.untagged);
        bench.sim().log.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_on_any_comware(old in desired(), new in desired(), error in any::<bool>()) {
        let possible = |config: &PortConfig| config.untagged.is_some() || !config.tagged.is_empty();
        prop_assume!(possible(&old) && possible(&new));
        run(there_and_back(Kind::Comware, &old, &new, Faults { error_but_applied: error, ..Faults::default() }));
    }

    /// Nothing is tagged in its default VLAN; since FastIron 8.0.80 untagged frames always go into one.
    #[test]
    fn any_change_on_any_foundry(old in desired(), new in desired(), error in any::<bool>(), dual_mode in any::<bool>()) {
        let possible = |config: &PortConfig| {
            let untagged = config.untagged.is_some() || (dual_mode && !config.tagged.is_empty());
            untagged && !config.tagged.contains(&vlan(1))
        };
        prop_assume!(possible(&old) && possible(&new));
        run(there_and_back(Kind::Foundry { dual_mode }, &old, &new, Faults { error_but_applied: error, ..Faults::default() }));
    }
}

#[test]
fn every_port_of_every_writable_recording_moves_and_no_other_changes() {
    let recorded = [
        ("hpe-procurve-516733-b21", Kind::QBridge, Form::Bits),
        ("dlink-des3038", Kind::QBridge, Form::BitsFromEnd),
        ("cisco-c3560", Kind::Cisco, Form::Bits),
        ("cisco-n5000", Kind::Cisco, Form::Bits),
        ("brocade-icx6430-24", Kind::Foundry { dual_mode: true }, Form::Bits),
    ];
    let here = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/switch"));
    let elsewhere = std::env::var_os("EMBODY_RECORDINGS").map_or_else(|| PathBuf::from("../shared/recordings"), PathBuf::from);
    let mut recorded: Vec<_> = recorded.map(|(name, kind, form)| (here.clone(), name, kind, form)).to_vec();
    match elsewhere.join("comware_a5500.snmprec").is_file() {
        true => recorded.push((elsewhere, "comware_a5500", Kind::Comware, Form::Bits)),
        false => eprintln!("SKIP: the recording of a Comware A5500: {} has none", elsewhere.display()),
    }
    for (folder, name, kind, form) in recorded {
        let path = folder.join(format!("{name}.snmprec"));
        let tree = Tree::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        run(async {
            let mut sim = SimSwitch::from_recording(kind, form, &tree).unwrap();
            let is_foundry = matches!(kind, Kind::Foundry { .. });
            if is_foundry {
                // It has no VLAN but the default one, in which nothing is tagged.
                let last = sim.ports().into_keys().next_back().unwrap();
                sim.set_port(&last, &config(Admin::Up, 1, &[10, 20])).unwrap();
            }
            let mut bench = Bench::new(sim, settings(&[]));
            let seen = bench.look(Depth::Everything).await;
            let names: Vec<String> = seen.ports.keys().cloned().collect();
            let agent = Box::new(Direct::new(Arc::clone(&bench.sim)));
            bench.driver = SwitchDriver::new(name.to_owned(), agent, SwitchSettings { manage: Some(names), ..SwitchSettings::default() });
            let vlans: Vec<u16> = seen.vlans.iter().map(|v| v.id()).collect();
            let mut moved = 0;
            let ports: Vec<String> = bench.sim().ports().into_keys().collect();
            for (n, port) in ports.into_iter().enumerate() {
                let tagged = vlans[(n + 1) % vlans.len()];
                let tagged: Vec<u16> = Some(tagged).filter(|id| !is_foundry || *id != 1).into_iter().collect();
                let to = config(Admin::Up, vlans[n % vlans.len()], &tagged);
                bench.sim().log.clear();
                let old = bench.sim().views()[&port].untagged.clone();
                match bench.set(&port, to.clone()).await {
                    Ok(()) => moved += 1,
                    Err(Fault::Unsupported { why, .. }) => {
                        assert!(why.contains("member"), "{name} {port} to {to}: {why}; {:?}", bench.sim().views()[&port]);
                        continue;
                    }
                    Err(fault) => panic!("{name} {port} to {to}: {fault}; {:?}", bench.sim().views()[&port]),
                }
                bench.check_log(&port, &old, to.untagged);
                assert_eq!(bench.look(Depth::State).await.ports[&port].config, to, "{name} {port}");
            }
            assert!(moved > 10, "{name}: {moved} ports");
        });
    }
}
