//! Our manager against our agent, with the faults of networks and of agents.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use embody::testing::clock::BootClock;
use embody::testing::drivers::credentials::Turns;
use embody::testing::drivers::gate::{Freshness, Gate, Key};
use embody::testing::drivers::switch::snmp::codec::{self, Kind, Pdu};
use embody::testing::drivers::switch::snmp::keys::Extension;
use embody::testing::drivers::switch::snmp::usm::{self, Level, Outgoing};
use embody::testing::drivers::switch::snmp::{Agent, Cut, Leave, SetAnswer, SnmpSocket, Timing, UdpAgent, Value};
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings};
use embody::testing::drivers::{Delivery, Depth, Driver, Fault, Observation};
use embody::testing::model::Reason;
use embody::testing::model::identity::Identity;
use embody::testing::model::op::Device;
use embody::testing::model::secret::{AuthProtocol, PrivProtocol};
use embody::testing::sim::agent::{Faults, Lie, SimAgent};
use embody::testing::store::LeaseEnd;
use embody::testing::{leave, permit};

use crate::peer::{AUTH_PASSWORD, PATIENT, PRIV_PASSWORD, QUICK, Simulated, manager, oid, text, v2c, v3, v3_with};
use crate::programs::{switch, user};

const SYS_NAME: &str = "1.3.6.1.2.1.1.5.0";
const IF_INDEX: &str = "1.3.6.1.2.1.2.2.1.1";
const IF_DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const IF_SPEED: &str = "1.3.6.1.2.1.2.2.1.5";

/// Both columns of all forty interfaces, each once and in order.
async fn walks_whole(agent: &mut UdpAgent) {
    let columns = agent.walk(&[oid(IF_DESCR), oid(IF_SPEED)], 40).await.unwrap();
    let names: Vec<Value> = columns[0].rows.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(names, (1..=40).map(|port| text(&format!("Gi1/0/{port}"))).collect::<Vec<_>>());
    assert_eq!(columns[1].rows.len(), 40);
    assert!(columns.iter().all(|column| column.cut.is_none()));
}

#[tokio::test]
async fn a_reply_that_is_cut_short_or_too_big_is_asked_for_again() {
    let simulated = Simulated::start(switch()).await;
    let mut agent = manager(simulated.port, v2c("public"), PATIENT);
    walks_whole(&mut agent).await;
    assert_eq!(simulated.requests(), 2, "forty rows of two columns");
    for cap in [1, 2, 3, 7, 64] {
        simulated.change(|agent| agent.faults = Faults { reply_bindings_max: Some(cap), ..Faults::default() });
        walks_whole(&mut agent).await;
    }
    simulated.change(|agent| agent.faults = Faults { too_big_above: Some(200), ..Faults::default() });
    walks_whole(&mut agent).await;
    let asked: Vec<_> = (1..=40).map(|port| oid(&format!("{IF_INDEX}.{port}"))).collect();
    let got = agent.get(&asked).await.unwrap();
    assert_eq!(got.iter().map(|(oid, _)| oid.clone()).collect::<Vec<_>>(), asked);
    assert_eq!(got[39].1, Value::Integer(40));
    simulated.change(|agent| agent.faults = Faults { too_big_above: Some(10), ..Faults::default() });
    let walked = agent.walk(&[oid(IF_DESCR)], 40).await.unwrap();
    assert_eq!(walked[0].cut, Some(Cut::Refused("tooBig(1)".to_owned())));
}

#[tokio::test]
async fn lost_and_doubled_replies_change_nothing() {
    let simulated = Simulated::start(switch()).await;
    let timing = Timing { read: Duration::from_millis(60), write: Duration::from_millis(60), tries: 12 };
    let mut agent = manager(simulated.port, v2c("public"), timing);
    simulated.change(|agent| agent.faults = Faults { lose_percent: 20, duplicate_percent: 60, ..Faults::default() });
    for _ in 0..10 {
        walks_whole(&mut agent).await;
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
    }
}

#[tokio::test]
async fn a_late_answer_to_an_earlier_try_is_an_answer_and_a_later_one_is_nobody_s() {
    let simulated = Simulated::start(switch()).await;
    let timing = Timing { read: Duration::from_millis(150), write: Duration::from_millis(150), tries: 4 };
    let mut agent = manager(simulated.port, v2c("public"), timing);
    simulated.change(|agent| {
        agent.faults = Faults { late_percent: 100, late_by: Duration::from_millis(250), ..Faults::default() };
    });
    assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
    walks_whole(&mut agent).await;
    // Answers to the tries before are still on their way: none may be taken for the answer to something else.
    simulated.change(|agent| agent.faults = Faults::default());
    for port in 1..=40 {
        let asked = oid(&format!("{IF_DESCR}.{port}"));
        assert_eq!(agent.get(&[asked]).await.unwrap()[0].1, text(&format!("Gi1/0/{port}")));
    }
}

#[tokio::test]
async fn a_set_is_sent_once_and_without_an_answer_its_outcome_is_unknown() {
    let simulated = Simulated::start(switch()).await;
    let mut agent = manager(simulated.port, v2c("private"), QUICK);
    simulated.change(|agent| {
        agent.faults = Faults { late_percent: 100, late_by: Duration::from_secs(30), ..Faults::default() };
    });
    let fault = agent.set(&[(oid(SYS_NAME), text("sw2"))], leave(&permit())).await.unwrap_err();
    assert!(matches!(fault, Fault::Unknown { .. }), "{fault:?}");
    assert_eq!(simulated.requests(), 1);
    simulated.change(|agent| agent.faults = Faults::default());
    assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw2"));
}

#[tokio::test]
async fn one_socket_serves_many_agents_and_forgets_what_was_given_up() {
    let socket = SnmpSocket::bind().unwrap();
    let mut simulated = Vec::new();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let one = Simulated::start(switch()).await;
        let address = format!("127.0.0.1:{}", one.port).parse().unwrap();
        let mut agent = UdpAgent::new("sw".into(), socket.clone(), address, v2c("public"), PATIENT);
        simulated.push(one);
        asking.spawn(async move {
            for _ in 0..10 {
                walks_whole(&mut agent).await;
            }
        });
    }
    while let Some(done) = asking.join_next().await {
        done.unwrap();
    }
    simulated[0].change(|agent| agent.faults.silent = true);
    let address = format!("127.0.0.1:{}", simulated[0].port).parse().unwrap();
    let mut agent = UdpAgent::new("sw".into(), socket.clone(), address, v2c("public"), PATIENT);
    let given_up = tokio::time::timeout(Duration::from_millis(50), agent.get(&[oid(SYS_NAME)])).await;
    assert!(given_up.is_err());
    assert_eq!(socket.outstanding(), 0);
}

fn secured_switch(extension: Extension) -> SimAgent {
    switch().with_user(user("joe", AuthProtocol::Sha1, PrivProtocol::Aes256, extension))
}

fn joe() -> embody::testing::model::secret::SnmpLogin {
    v3("joe", AuthProtocol::Sha1, PrivProtocol::Aes256)
}

#[tokio::test]
async fn both_key_extensions_are_tried_and_the_right_one_is_remembered() {
    for mute in [true, false] {
        let simulated = Simulated::start(secured_switch(Extension::Reeder)).await;
        simulated.change(|agent| agent.faults.mute_on_wrong_key = mute);
        let mut agent = manager(simulated.port, joe(), QUICK);
        walks_whole(&mut agent).await;
        // A new engine makes new keys necessary, but no second trial of Blumenthal's: that would be a Report about its key.
        simulated.change(|agent| agent.replace_engine(vec![0x80, 0, 0, 1, 5, 9], 3));
        let (requests, reports) = simulated.counts();
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
        let after = simulated.counts();
        assert_eq!(after.0 - requests, 2, "the read that confirms the keys, and ours");
        assert_eq!(after.1 - reports, 2, "unknownEngineID, to our request and to discovery");
        assert_eq!(agent.engine_id(), Some(vec![0x80, 0, 0, 1, 5, 9]));
    }
}

#[tokio::test]
async fn a_wrong_privacy_password_is_told_where_the_agent_tells_it() {
    let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
    let login = v3_with("joe", (AuthProtocol::Sha1, AUTH_PASSWORD), (PrivProtocol::Aes256, "wrongpass123"));
    let fault = manager(simulated.port, login.clone(), PATIENT).get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(&fault, Fault::Denied { why, .. } if why.contains("privacy password")), "{fault:?}");
    simulated.change(|agent| agent.faults.mute_on_wrong_key = true);
    let fault = manager(simulated.port, login, QUICK).get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(&fault, Fault::Silent { device, .. } if device.contains("privacy password")), "{fault:?}");
    let words = fault.to_string();
    assert!(!words.contains("wrongpass") && !words.contains(PRIV_PASSWORD), "{words}");
}

#[tokio::test]
async fn an_engine_that_restarts_is_resynchronised_in_the_same_request() {
    let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
    let mut agent = manager(simulated.port, joe(), PATIENT);
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
    for round in 0..3 {
        simulated.change(SimAgent::reboot);
        let name = text(&format!("sw-{round}"));
        let before = simulated.requests();
        agent.set(&[(oid(SYS_NAME), name.clone())], leave(&permit())).await.unwrap();
        assert_eq!(simulated.requests() - before, 1, "the SET that found the wrong clock was not processed");
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, name);
    }
    // An agent that forgot its boots.
    simulated.change(|agent| agent.replace_engine(vec![0x80, 0, 0, 1, 5, 9], 70));
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
    simulated.change(|agent| agent.replace_engine(vec![0x80, 0, 0, 1, 5, 9], 1));
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
}

#[tokio::test]
async fn a_set_is_not_sent_again_to_another_engine() {
    let new = vec![0x80, 0, 0, 1, 5, 9];
    for pinned in [false, true] {
        let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
        let mut agent = manager(simulated.port, joe(), PATIENT);
        agent.get(&[oid(SYS_NAME)]).await.unwrap();
        let mut permit = permit();
        let hex = |engine: Vec<u8>| engine.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        permit.pinned.engine = agent.engine_id().filter(|_| pinned).map(hex);
        simulated.change(|agent| agent.replace_engine(new.clone(), 3));
        let fault = agent.set(&[(oid(SYS_NAME), text("x"))], leave(&permit)).await.unwrap_err();
        match pinned {
            true => assert!(matches!(&fault, Fault::OtherDevice { found, .. } if found.ends_with("800000010509")), "{fault:?}"),
            false => assert!(matches!(&fault, Fault::NotSent { .. }), "{fault:?}"),
        }
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
    }
}

#[tokio::test]
async fn a_set_after_a_report_that_nobody_signed_may_have_happened() {
    // Somebody without the keys answers a SET with unknownEngineID, before the agent does.
    let forged = tampered(secured_switch(Extension::Blumenthal), |request, reply| {
        let asked = usm::read(request).unwrap();
        let report = (oid("1.3.6.1.6.3.15.1.1.4.0"), Value::Counter32(1));
        let pdu = Pdu { bindings: vec![report], ..Pdu { kind: Kind::Report, ..Pdu::asking(Kind::Get, asked.id as i32, []) } };
        let clear = Outgoing {
            id: asked.id,
            level: Level::NoAuthNoPriv,
            reportable: false,
            engine: asked.engine,
            clock: asked.clock,
            user: b"",
            protection: None,
            salt: 0,
            context: b"",
            pdu: &pdu,
        };
        // A SET is the longest request here.
        if request.len() > 180 { vec![clear.bytes().unwrap(), reply] } else { vec![reply] }
    })
    .await;
    let mut agent = manager(forged.port(), joe(), PATIENT);
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
    let long = "a name that is so long that nothing else here is as long as this, and then it is even longer";
    let fault = agent.set(&[(oid(SYS_NAME), text(long))], leave(&permit())).await.unwrap_err();
    assert!(matches!(&fault, Fault::Unknown { .. }), "{fault:?}");
    assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text(long), "and it did happen");
}

#[tokio::test]
async fn a_set_leaves_through_the_gate_alone() {
    let simulated = Simulated::start(switch()).await;
    let mut agent = manager(simulated.port, v2c("private"), QUICK);
    let set = [(oid(SYS_NAME), text("x"))];
    let gate = Gate::new(LeaseEnd::never(BootClock::Kernel), BootClock::Kernel);
    let mut permit = gate.permit(Key::Saved, Identity::default());
    let not_begun = agent.set(&set, leave(&permit)).await.unwrap_err();
    permit.begin(Duration::from_secs(60));
    let old = Freshness { asked_at: Duration::ZERO, at_most: Duration::ZERO };
    let too_slow = agent.set(&set, Leave { fresh: old, ..leave(&permit) }).await.unwrap_err();
    gate.void_all();
    let void = agent.set(&set, leave(&permit)).await.unwrap_err();
    for (fault, word) in [(not_begun, "time"), (too_slow, "TooSlowToWrite"), (void, "taken back")] {
        assert!(matches!(&fault, Fault::NotSent { why, .. } if why.contains(word)), "{fault:?}");
    }
    assert_eq!(simulated.requests(), 0);
}

#[tokio::test]
async fn the_second_copy_of_a_set_passes_the_gate_again() {
    // The agent restarts, and its Report (notInTimeWindow) is held back until the permit is void.
    let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
    let mut agent = manager(simulated.port, joe(), PATIENT);
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
    simulated.change(SimAgent::reboot);
    simulated.change(|agent| agent.faults = Faults { late_percent: 100, late_by: Duration::from_millis(500), ..Faults::default() });
    let gate = Gate::new(LeaseEnd::never(BootClock::Kernel), BootClock::Kernel);
    let mut permit = gate.permit(Key::Saved, Identity::default());
    permit.begin(Duration::from_secs(60));
    let reports = simulated.counts().1;
    let set = [(oid(SYS_NAME), text("x"))];
    let (fault, ()) = tokio::join!(agent.set(&set, leave(&permit)), async {
        while simulated.counts().1 == reports {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gate.void_all();
    });
    assert!(matches!(&fault, Err(Fault::NotSent { .. })), "{fault:?}");
    simulated.change(|agent| agent.faults = Faults::default());
    assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
}

fn switch_device(n: u8) -> Device {
    Device::Switch(format!("sw{n}").parse().unwrap())
}

#[tokio::test]
async fn silent_switches_keep_nobody_from_showing_credentials() {
    for login in [joe(), v2c("public")] {
        let turns = Arc::new(Turns::default());
        let (mut dead, mut asking) = (Vec::new(), tokio::task::JoinSet::new());
        for n in 1..=6 {
            let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
            simulated.change(|agent| agent.faults.silent = true);
            let mut agent = manager(simulated.port, login.clone(), QUICK).in_turn(switch_device(n), turns.clone());
            dead.push(simulated);
            asking.spawn(async move { agent.get(&[oid(SYS_NAME)]).await.is_err() });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
        let mut agent = manager(simulated.port, login, PATIENT).in_turn(switch_device(9), turns.clone());
        // A turn lasts 400 ms at most with these timings: the third pair of six ends before the wait does.
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
        while let Some(failed) = asking.join_next().await {
            assert!(failed.unwrap());
        }
    }
}

#[tokio::test]
async fn credentials_that_two_switches_refused_are_not_shown_to_a_third() {
    let turns = Arc::new(Turns::default());
    let wrong = v3_with("joe", (AuthProtocol::Sha1, "wrongpass123"), (PrivProtocol::Aes256, PRIV_PASSWORD));
    for n in 1..=3 {
        let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
        let mut agent = manager(simulated.port, wrong.clone(), PATIENT).in_turn(switch_device(n), turns.clone());
        let fault = agent.get(&[oid(SYS_NAME)]).await.unwrap_err();
        assert!(matches!(&fault, Fault::Denied { why, .. } if why.contains("refused by") == (n == 3)), "{fault:?}");
        assert_eq!(simulated.counts().1, if n == 3 { 1 } else { 2 }, "the third was asked for its engine alone");
    }
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_says_so() {
    let turns = Arc::new(Turns::default());
    let held = (turns.pass(&switch_device(1)).await.unwrap(), turns.pass(&switch_device(2)).await.unwrap());
    let simulated = Simulated::start(switch()).await;
    let mut agent = manager(simulated.port, v2c("public"), PATIENT).in_turn(switch_device(3), turns.clone());
    let fault = agent.get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent { why, .. } if why.contains("other devices")), "{fault:?}");
    assert_eq!((simulated.requests(), fault.delivery()), (0, Delivery::NotSent));
    drop(held);
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
}

#[tokio::test]
async fn unauthenticated_boots_are_not_believed() {
    let simulated = Simulated::start(secured_switch(Extension::Blumenthal)).await;
    simulated.change(|agent| agent.faults.false_boots = Some(2_000_000));
    let mut agent = manager(simulated.port, joe(), PATIENT);
    for _ in 0..3 {
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
    }
}

#[tokio::test]
async fn encrypted_requests_survive_loss_and_duplicates() {
    let simulated = Simulated::start(secured_switch(Extension::Reeder)).await;
    let timing = Timing { read: Duration::from_millis(60), write: Duration::from_millis(60), tries: 12 };
    let mut agent = manager(simulated.port, joe(), timing);
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
    simulated.change(|agent| agent.faults = Faults { lose_percent: 20, duplicate_percent: 60, ..Faults::default() });
    for _ in 0..10 {
        walks_whole(&mut agent).await;
    }
}

#[tokio::test]
async fn where_large_replies_are_lost_smaller_ones_are_asked_for() {
    let simulated = Simulated::start(switch()).await;
    simulated.change(|agent| agent.faults.lose_above = Some(700));
    let timing = Timing { read: Duration::from_millis(300), write: Duration::from_millis(300), tries: 3 };
    let mut agent = manager(simulated.port, v2c("public"), timing);
    walks_whole(&mut agent).await;
    let asked: Vec<_> = (1..=40).map(|port| oid(&format!("{IF_DESCR}.{port}"))).collect();
    let got = agent.get(&asked).await.unwrap();
    assert_eq!(got.iter().map(|(oid, _)| oid.clone()).collect::<Vec<_>>(), asked);
}

#[tokio::test]
async fn a_name_and_an_ipv6_address_are_reached_too() {
    let simulated = Simulated::start(switch()).await;
    let socket = SnmpSocket::bind().unwrap();
    let at = |address: String, timing| UdpAgent::new("sw".into(), socket.clone(), address.parse().unwrap(), v2c("public"), timing);
    // `localhost` may be ::1 first, where nobody is: the second attempt takes the next address.
    let mut agent = at(format!("localhost:{}", simulated.port), QUICK);
    if agent.get(&[oid(SYS_NAME)]).await.is_err() {
        agent.get(&[oid(SYS_NAME)]).await.unwrap();
    }
    let fault = at("no-such-host.invalid".into(), QUICK).get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(fault, Fault::Network { .. }), "{fault:?}");

    let Ok(v6) = tokio::net::UdpSocket::bind("[::1]:0").await else {
        eprintln!("SKIP: this machine has no IPv6");
        return;
    };
    let port = v6.local_addr().unwrap().port();
    let serving = tokio::spawn(embody::testing::sim::agent::serve(v6, simulated.agent.clone()));
    assert_eq!(at(format!("[::1]:{port}"), PATIENT).get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
    serving.abort();
}

/// An agent on a socket, whose replies pass through `tamper`, with the request: what comes out is sent.
async fn tampered(mut agent: SimAgent, tamper: fn(&[u8], Vec<u8>) -> Vec<Vec<u8>>) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let Some(reply) = agent.answer(&buffer[..length]) else { continue };
            for bytes in tamper(&buffer[..length], reply) {
                socket.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    address
}

/// What somebody on the way without the keys could send in place of this reply: bent copies, and an answer in the clear.
fn forgeries(request: &[u8], reply: &[u8]) -> Vec<Vec<u8>> {
    let asked = usm::read(request).unwrap();
    let bent = |from_end: usize| {
        let mut copy = reply.to_vec();
        let at = copy.len() - from_end;
        copy[at] ^= 0x40;
        copy
    };
    let lie = (oid(SYS_NAME), text("forged"));
    let response = Pdu { bindings: vec![lie], ..Pdu { kind: Kind::Response, ..Pdu::asking(Kind::Get, asked.id as i32, []) } };
    let clear = Outgoing {
        id: asked.id,
        level: Level::NoAuthNoPriv,
        reportable: false,
        engine: asked.engine,
        clock: asked.clock,
        user: asked.user,
        protection: None,
        salt: 0,
        context: b"",
        pdu: &response,
    };
    vec![bent(1), bent(20), bent(reply.len() / 2), clear.bytes().unwrap(), codec::message(b"public", &response)]
}

#[tokio::test]
async fn a_forged_reply_is_as_if_it_had_not_come() {
    let first = tampered(secured_switch(Extension::Blumenthal), |request, reply| match usm::read(request).unwrap().level {
        Level::AuthPriv => [forgeries(request, &reply), vec![reply]].concat(),
        Level::NoAuthNoPriv | Level::AuthNoPriv => vec![reply],
    })
    .await;
    let mut agent = manager(first.port(), joe(), PATIENT);
    for _ in 0..5 {
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
    }
    let only = tampered(secured_switch(Extension::Blumenthal), |request, reply| match usm::read(request).unwrap().level {
        Level::AuthPriv => forgeries(request, &reply),
        Level::NoAuthNoPriv | Level::AuthNoPriv => vec![reply],
    })
    .await;
    let fault = manager(only.port(), joe(), QUICK).get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(fault, Fault::Silent { .. }), "{fault:?}");
}

#[tokio::test]
async fn a_v2c_reply_to_something_else_is_garbled_and_not_believed() {
    let other = tampered(switch(), |_, reply| {
        let (community, mut pdu) = codec::read_message(&reply).unwrap();
        pdu.bindings = vec![(oid(IF_DESCR), text("other"))];
        vec![codec::message(community, &pdu)]
    })
    .await;
    let fault = manager(other.port(), v2c("public"), PATIENT).get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(&fault, Fault::Garbled { why, .. } if why.contains(IF_DESCR)), "{fault:?}");
    let round = tampered(switch(), |_, reply| {
        let (community, mut pdu) = codec::read_message(&reply).unwrap();
        pdu.bindings = vec![(oid(&format!("{IF_DESCR}.3")), text("a")), (oid(&format!("{IF_DESCR}.3")), text("a"))];
        vec![codec::message(community, &pdu)]
    })
    .await;
    let walked = manager(round.port(), v2c("public"), PATIENT).walk(&[oid(IF_DESCR)], 10).await.unwrap();
    assert_eq!(walked[0].cut, Some(Cut::Loops(oid(&format!("{IF_DESCR}.3")))));
}

#[tokio::test]
async fn an_agent_s_lies_about_a_set_are_handed_on_as_they_came() {
    let wanted = [(oid(SYS_NAME), text("new")), (oid("1.3.6.1.2.1.1.1.0"), text("new"))];
    let accepted = SetAnswer::Accepted(wanted.to_vec());
    let missing = SetAnswer::Accepted(wanted.iter().map(|(oid, _)| (oid.clone(), Value::NoSuchInstance)).collect());
    let refused = SetAnswer::Refused { status: 5, index: 1 };
    for (lie, answer, name, descr) in [
        (Lie::FirstOnly, accepted.clone(), "new", "a switch"),
        (Lie::RefusedButDone, refused, "new", "new"),
        (Lie::AcceptedNotDone, accepted, "sw1", "a switch"),
        (Lie::NoSuchInstance, missing, "sw1", "a switch"),
    ] {
        let simulated = Simulated::start(switch()).await;
        simulated.change(|agent| agent.faults.lie = Some(lie));
        let mut agent = manager(simulated.port, v2c("private"), PATIENT);
        assert_eq!(agent.set(&wanted, leave(&permit())).await.unwrap(), answer, "{lie:?}");
        let left = agent.get(&[wanted[0].0.clone(), wanted[1].0.clone()]).await.unwrap();
        assert_eq!((&left[0].1, &left[1].1), (&text(name), &text(descr)), "{lie:?}");
    }
}

const FDB_PORT: &str = "1.3.6.1.2.1.17.7.1.2.2.1.2";

fn endless(column: &str) -> Faults {
    Faults { endless: Some(oid(column)), ..Faults::default() }
}

#[tokio::test]
async fn a_table_without_an_end_is_given_up_with_its_name_and_its_rows() {
    let simulated = Simulated::start(switch()).await;
    let mut agent = manager(simulated.port, v2c("public"), PATIENT);
    simulated.change(|agent| agent.faults = endless(IF_DESCR));
    let walked = tokio::time::timeout(Duration::from_secs(30), agent.walk(&[oid(IF_DESCR), oid(IF_SPEED)], 40)).await;
    let walked = walked.expect("it is walked for ever").unwrap();
    assert!(matches!(walked[0].cut, Some(Cut::Endless { rows }) if rows > 30_000) && walked[0].rows.is_empty(), "{:?}", walked[0].cut);
    assert_eq!((walked[1].rows.len(), &walked[1].cut), (40, &None), "and its neighbour is read");
    assert!(simulated.requests() < 1_200, "{} requests", simulated.requests());
    // What ends is read as ever.
    simulated.change(|agent| agent.faults = Faults::default());
    walks_whole(&mut agent).await;
}

fn observer(simulated: &Simulated) -> SwitchDriver {
    SwitchDriver::new("switch/sw".to_owned(), Box::new(manager(simulated.port, v2c("public"), PATIENT)), SwitchSettings::default())
}

#[tokio::test]
async fn a_switch_that_answers_all_the_while_is_not_said_to_be_silent() {
    let simulated = Simulated::start(switch()).await;
    let late = Faults { late_percent: 100, late_by: Duration::from_millis(20), reply_bindings_max: Some(1), ..endless(IF_DESCR) };
    simulated.change(|agent| agent.faults = late);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    let fault = observer(&simulated).observe(Depth::Everything, deadline).await.unwrap_err();
    let said = fault.to_string();
    assert!(said.contains("answers, but its table ifTable (1.3.6.1.2.1.2.2.1.2)") && said.contains(" rows and "), "{said}");
    assert_eq!(fault.reason(), Reason::TableEndless);
}

#[tokio::test]
async fn a_forwarding_table_without_an_end_is_done_without() {
    let simulated = Simulated::start(switch()).await;
    simulated.change(|agent| agent.faults = endless(FDB_PORT));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let Observation::Switch(seen) = observer(&simulated).observe(Depth::Everything, deadline).await.unwrap() else { panic!("a BMC") };
    assert!(!seen.neighbours_told && simulated.requests() < 2_000, "{} requests", simulated.requests());
}
