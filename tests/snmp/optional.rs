//! A whole switch behind an agent of which one table fails, comes in disorder or goes round in circles, or that answers in an odd way: what
//! it tells is read, and what it does not tell is said.

use std::time::Duration;

use embody::testing::drivers::switch::snmp::codec::{self, Kind, Pdu};
use embody::testing::drivers::switch::snmp::keys::Extension;
use embody::testing::drivers::switch::snmp::usm::{self, Level, Outgoing};
use embody::testing::drivers::switch::snmp::{Agent, Oid, Timing, Value};
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings, resolve};
use embody::testing::drivers::{Depth, Driver, Fault, Observation};
use embody::testing::model::fact::{Lag, Quality, SwitchSeen};
use embody::testing::model::secret::{AuthProtocol, PrivProtocol, SnmpLogin};
use embody::testing::model::{Mac, Vlan};
use embody::testing::sim::agent::{Access, Faults, NoBulk, SimAgent};
use embody::testing::sim::switch::{Announced, Kind as SwitchKind, SimSwitch};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::peer::{PATIENT, QUICK, Simulated, manager, oid, v2c, v3};
use crate::programs::user;

const LLDP: &str = "1.0.8802";
const ENTITY: &str = "1.3.6.1.2.1.47";
const LAG: &str = "1.2.840";
const IF_TYPE: &str = "1.3.6.1.2.1.2.2.1.3";
const IF_OPER: &str = "1.3.6.1.2.1.2.2.1.8";
const IF_NAME: &str = "1.3.6.1.2.1.31.1.1.1.1";
const IF_ALIAS: &str = "1.3.6.1.2.1.31.1.1.1.18";
const BASE_PORT: &str = "1.3.6.1.2.1.17.1.4.1.2";
const BASE_ADDRESS: &str = "1.3.6.1.2.1.17.1.1";
const FDB: &str = "1.3.6.1.2.1.17.7.1.2";
const EGRESS: &str = "1.3.6.1.2.1.17.7.1.4.3.1.2";
const PVID: &str = "1.3.6.1.2.1.17.7.1.4.5.1.1";

/// Eight ports in three VLANs; at port8 a switch announces itself.
fn switch() -> SimAgent {
    let mut sim = SimSwitch::new(SwitchKind::QBridge, "sw", 8);
    for id in [10, 20] {
        sim.add_vlan(Vlan::try_from(id).unwrap());
    }
    for port in 1..=8 {
        sim.show(oid(&format!("{IF_ALIAS}.{}", 100 + port)), Value::Octets(format!("alias {port}").into_bytes()));
    }
    let chassis: Mac = "00:1b:21:00:00:09".parse().unwrap();
    sim.announce("port8", Some(Announced { chassis, port: "49".into(), system: "core".into(), bridge: true }));
    let agent = SimAgent::new(Box::new(sim), 3).with_community("public", Access::Read);
    agent.with_user(user("joe", AuthProtocol::Sha256, PrivProtocol::Aes128, Extension::Blumenthal))
}

fn observer(simulated: &Simulated, login: SnmpLogin, timing: Timing) -> SwitchDriver {
    SwitchDriver::new("tor1".to_owned(), Box::new(manager(simulated.port, login, timing)), SwitchSettings::default())
}

async fn look(driver: &mut SwitchDriver) -> Result<SwitchSeen, Fault> {
    match driver.observe(Depth::Everything, Instant::now() + Duration::from_secs(60)).await? {
        Observation::Switch(seen) => Ok(SwitchSeen::clone(&seen)),
        Observation::Bmc(_) => panic!("a switch is no BMC"),
    }
}

/// What is seen of the switch with this wrong with it.
async fn with(faults: Faults) -> Result<SwitchSeen, Fault> {
    let simulated = Simulated::start(switch()).await;
    simulated.change(|agent| agent.faults = faults);
    look(&mut observer(&simulated, v2c("public"), PATIENT)).await
}

fn gen_err(under: &str) -> Faults {
    Faults { gen_err: vec![oid(under)], ..Faults::default() }
}

fn unordered(column: &str) -> Faults {
    Faults { unordered: vec![oid(column)], ..Faults::default() }
}

fn loops(column: &str) -> Faults {
    Faults { loops: Some(oid(column)), ..Faults::default() }
}

/// The VLANs and admin states of all ports, and how sure they are.
fn configs(seen: &SwitchSeen) -> Vec<String> {
    seen.ports.iter().map(|(name, port)| format!("{name} {} {:?}", port.config, port.quality)).collect()
}

fn says(seen: &SwitchSeen, words: &[&str]) {
    assert!(seen.notes.iter().any(|note| words.iter().all(|word| note.contains(word))), "{words:?} is not said: {:?}", seen.notes);
}

#[tokio::test]
async fn a_table_that_fails_hides_no_other() {
    let whole = with(Faults::default()).await.unwrap();
    assert!(whole.notes.is_empty() && configs(&whole).len() == 8 && whole.ports["port1"].also.contains(&"alias 1".to_owned()));
    for (under, table) in [
        (LLDP, "lldpRemTable"),
        (ENTITY, "entPhysicalTable"),
        (LAG, "dot3adAggPortTable"),
        (IF_ALIAS, "ifXTable"),
        (IF_OPER, "ifTable"),
        (FDB, "dot1qFdbTable"),
        (BASE_ADDRESS, BASE_ADDRESS),
    ] {
        let seen = with(gen_err(under)).await.unwrap_or_else(|fault| panic!("{table}: {fault}"));
        assert_eq!(configs(&seen), configs(&whole), "{table}");
        says(&seen, &[table, "genErr(5)"]);
        assert_eq!(seen.shown.serials.is_empty(), under == ENTITY);
        assert_eq!(seen.ports["port8"].neighbour.is_none(), under == LLDP);
        assert_eq!(seen.ports["port1"].lag != Lag::None, under == LAG, "that it is a port like others is not known then");
    }
    assert!(!with(Faults { gen_err: vec![oid(LLDP), oid(FDB)], ..Faults::default() }).await.unwrap().neighbours_told);
}

#[tokio::test]
async fn what_the_vlans_of_ports_are_read_from_is_missed() {
    for (under, table) in [(PVID, "dot1qPortVlanTable"), (EGRESS, "dot1qVlan"), (BASE_PORT, "dot1dBasePortTable")] {
        let seen = with(gen_err(under)).await.unwrap_or_else(|fault| panic!("{table}: {fault}"));
        says(&seen, &[table, "genErr(5)"]);
        let unsure = |quality: &Quality| matches!(quality, Quality::Unknown(why) if under == EGRESS || why.contains(table));
        // Where the static table is not told the current one is read, and nothing is written.
        assert!(under == EGRESS || seen.ports.values().all(|port| unsure(&port.quality)), "{table}: {:?}", configs(&seen));
        assert!(!seen.writable.vlan_create && (under != EGRESS || !seen.writable.access), "{table}");
    }
    let fault = with(gen_err(IF_TYPE)).await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { what, code, .. } if what.contains("ifTable") && code == "genErr(5)"), "{fault}");
}

#[tokio::test]
async fn a_table_that_is_met_with_silence_hides_no_other_and_silence_to_all_is_silence() {
    let whole = with(Faults::default()).await.unwrap();
    let simulated = Simulated::start(switch()).await;
    let mut driver = observer(&simulated, v2c("public"), QUICK);
    look(&mut driver).await.unwrap();
    simulated.change(|agent| agent.faults.mute = vec![oid(LLDP)]);
    let seen = look(&mut driver).await.unwrap();
    assert_eq!(configs(&seen), configs(&whole));
    says(&seen, &["lldpRemTable", "does not answer for it"]);
    simulated.change(|agent| agent.faults = Faults { silent: true, ..Faults::default() });
    assert!(matches!(look(&mut driver).await, Err(Fault::Silent { .. })));
}

#[tokio::test]
async fn rows_in_a_wrong_order_are_read() {
    let whole = with(Faults::default()).await.unwrap();
    for (column, table) in [(IF_ALIAS, "ifXTable"), (BASE_PORT, "dot1dBasePortTable"), (PVID, "dot1qPortVlanTable"), (IF_NAME, "ifXTable")]
    {
        let seen = with(unordered(column)).await.unwrap_or_else(|fault| panic!("{table}: {fault}"));
        assert_eq!(configs(&seen), configs(&whole), "{table}");
        assert_eq!(seen.ports["port1"], whole.ports["port1"]);
        says(&seen, &["rows", table, "out of order"]);
    }
}

#[tokio::test]
async fn an_agent_without_getbulk_is_read_row_by_row_from_then_on() {
    let whole = with(Faults::default()).await.unwrap();
    for (bulk, timing) in [(NoBulk::GenErr, PATIENT), (NoBulk::Silent, QUICK)] {
        let simulated = Simulated::start(switch()).await;
        simulated.change(|agent| agent.faults = Faults { bulk: Some(bulk), ..Faults::default() });
        let mut driver = observer(&simulated, v2c("public"), timing);
        let seen = look(&mut driver).await.unwrap();
        assert_eq!(configs(&seen), configs(&whole), "{bulk:?}");
        says(&seen, &["GETBULK"]);
        // That it could be asked so now is not noticed: it is remembered.
        simulated.change(|agent| agent.faults = Faults::default());
        let before = simulated.requests();
        look(&mut driver).await.unwrap();
        assert!(simulated.requests() - before > 60, "{} requests", simulated.requests() - before);
    }
    // A table that fails is no such agent, though it be the first that is asked.
    let simulated = Simulated::start(switch()).await;
    simulated.change(|agent| agent.faults = gen_err(ENTITY));
    let seen = look(&mut observer(&simulated, v2c("public"), PATIENT)).await.unwrap();
    assert!(simulated.requests() < 60 && seen.notes.iter().all(|note| !note.contains("GETBULK")), "{:?}", seen.notes);
}

#[tokio::test]
async fn an_answer_from_another_address_counts_if_it_fits_and_it_is_said() {
    let whole = with(Faults::default()).await.unwrap();
    for login in [v2c("public"), v3("joe", AuthProtocol::Sha256, PrivProtocol::Aes128)] {
        let simulated = Simulated::start(switch()).await;
        simulated.change(|agent| agent.faults = Faults { from_elsewhere: true, ..Faults::default() });
        let seen = look(&mut observer(&simulated, login, PATIENT)).await.unwrap();
        assert_eq!(configs(&seen), configs(&whole));
        says(&seen, &["asked at 127.0.0.1", "answers from 127.0.0.2"]);
    }
}

#[tokio::test]
async fn an_agent_that_goes_round_in_circles_is_said_to() {
    let whole = with(Faults::default()).await.unwrap();
    let seen = with(loops(IF_ALIAS)).await.unwrap();
    assert_eq!(configs(&seen), configs(&whole));
    says(&seen, &["ifXTable", "its agent loops at OID 1.3.6.1.2.1.31.1.1.1.18.101"]);
    let mut simulated = switch();
    simulated.faults = loops("1.0.8802.1.1.2.1.4.1.1.5");
    let simulated = Simulated::start(simulated).await;
    let seen = look(&mut observer(&simulated, v2c("public"), PATIENT)).await.unwrap();
    assert!(seen.ports["port8"].neighbour.is_some(), "what was told before counts");
    says(&seen, &["lldpRemTable", "loops at OID"]);
    // A name that is not found may be one that was not told.
    let seen = with(gen_err(IF_NAME)).await.unwrap();
    assert_eq!(resolve(&seen, "Ethernet port1"), Ok("Ethernet port1"), "they have other names");
    let why = resolve(&seen, "port1").unwrap_err().to_string();
    assert!(why.starts_with("no port is named `port1`") && why.contains("ifXTable") && why.contains("genErr(5)"), "{why}");
    let fault = with(loops(IF_TYPE)).await.unwrap_err().to_string();
    assert!(fault.contains("ifTable") && fault.contains("its agent loops at OID 1.3.6.1.2.1.2.2.1.3.101"), "{fault}");
}

#[tokio::test]
async fn a_neighbour_that_is_not_told_this_time_is_remembered() {
    let simulated = Simulated::start(switch()).await;
    let mut driver = observer(&simulated, v2c("public"), PATIENT);
    let core = |seen: &SwitchSeen| seen.ports["port8"].neighbour.as_ref().and_then(|n| n.bridge) == Some(true);
    assert!(core(&look(&mut driver).await.unwrap()));
    simulated.change(|agent| agent.faults = gen_err(LLDP));
    for _ in 0..2 {
        let seen = look(&mut driver).await.unwrap();
        assert!(core(&seen) && !seen.neighbours_told, "nobody has said that it is gone");
    }
}

/// An address that says that a cable leads somewhere else must not vanish because its table fails once.
#[tokio::test]
async fn an_address_that_is_not_told_this_time_is_remembered() {
    let mut sim = SimSwitch::new(SwitchKind::QBridge, "sw", 8);
    sim.plug("port3", "02:00:00:00:00:09".parse().unwrap());
    let simulated = Simulated::start(SimAgent::new(Box::new(sim), 5).with_community("public", Access::Read)).await;
    let mut driver = observer(&simulated, v2c("public"), PATIENT);
    let learned = |seen: &SwitchSeen| seen.ports["port3"].macs.iter().map(Mac::to_string).collect::<Vec<_>>();
    assert_eq!(learned(&look(&mut driver).await.unwrap()), ["02:00:00:00:00:09"]);
    simulated.change(|agent| agent.faults = gen_err(FDB));
    for _ in 0..2 {
        assert_eq!(learned(&look(&mut driver).await.unwrap()), ["02:00:00:00:00:09"], "nobody has said that it is gone");
    }
}

/// IEEE 802.1AB indexes lldpRemTable by time mark, local port and number; some agents leave out the time mark.
#[tokio::test]
async fn neighbours_are_seen_with_an_index_of_three_parts_and_of_two() {
    for index in ["0.2.1", "4711.2.1", "2.1"] {
        let mut sim = SimSwitch::new(SwitchKind::QBridge, "sw", 4);
        let mut show = |column: u32, value| sim.show(oid(&format!("1.0.8802.1.1.2.1.4.1.1.{column}.{index}")), value);
        show(4, Value::Integer(4));
        show(5, Value::Octets(vec![2, 0, 0, 0, 0, 0x99]));
        show(9, Value::Octets(b"nb".to_vec()));
        sim.show(Oid(vec![1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 5, 0, 99, 1]), Value::Octets(vec![2, 0, 0, 0, 0, 0x98]));
        let simulated = Simulated::start(SimAgent::new(Box::new(sim), 4).with_community("public", Access::Read)).await;
        let seen = look(&mut observer(&simulated, v2c("public"), PATIENT)).await.unwrap();
        let neighbour = seen.ports["port2"].neighbour.clone().unwrap_or_else(|| panic!("{index}"));
        assert_eq!((neighbour.chassis.as_str(), neighbour.system.as_deref()), ("02:00:00:00:00:99", Some("nb")), "{index}");
        says(&seen, &["LLDP neighbours 1", "no port that is known"]);
    }
}

/// Whoever does not see the request cannot know its number, and whoever does could send from any address.
#[tokio::test]
async fn what_does_not_fit_counts_from_nowhere() {
    for login in [v2c("public"), v3("joe", AuthProtocol::Sha256, PrivProtocol::Aes128)] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let stranger = UdpSocket::bind("127.0.0.3:0").await.unwrap();
        let mut agent = switch();
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Some(reply) = agent.answer(&buffer[..length]) else { continue };
                for bytes in strange(&buffer[..length], &reply) {
                    stranger.send_to(&bytes, from).await.unwrap();
                }
                socket.send_to(&reply, from).await.unwrap();
            }
        });
        let mut agent = manager(port, login, PATIENT);
        for _ in 0..5 {
            assert_eq!(agent.get(&[oid("1.3.6.1.2.1.1.5.0")]).await.unwrap()[0].1, Value::Octets(b"sw".to_vec()));
        }
        assert!(agent.notes().is_empty(), "{:?}", agent.notes());
    }
}

/// The same number, but another community, no digest, a Report that nobody signed, or bytes that do not read.
fn strange(request: &[u8], reply: &[u8]) -> Vec<Vec<u8>> {
    let lie = |pdu: &Pdu| Pdu { bindings: vec![(oid("1.3.6.1.2.1.1.5.0"), Value::Octets(b"forged".to_vec()))], ..pdu.clone() };
    if let Ok((_, pdu)) = codec::read_message(reply) {
        let mut cut_off = reply.to_vec();
        let last = cut_off.len() - 3;
        cut_off[last] = 0xff;
        return vec![codec::message(b"other", &lie(&pdu)), cut_off];
    }
    let asked = usm::read(request).unwrap();
    if asked.level == Level::NoAuthNoPriv {
        return Vec::new();
    }
    let report = Pdu {
        kind: Kind::Report,
        bindings: vec![(oid("1.3.6.1.6.3.15.1.1.3.0"), Value::Counter32(1))],
        ..Pdu::asking(Kind::Get, asked.id as i32, [])
    };
    let response = lie(&Pdu { kind: Kind::Response, ..report.clone() });
    let clear = |pdu: &Pdu| {
        let (engine, clock, user) = (asked.engine, asked.clock, asked.user);
        let level = Level::NoAuthNoPriv;
        let message =
            Outgoing { id: asked.id, level, reportable: false, engine, clock, user, protection: None, salt: 0, context: b"", pdu };
        message.bytes().unwrap()
    };
    vec![clear(&report), clear(&response)]
}
