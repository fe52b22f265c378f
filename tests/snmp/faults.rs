//! Our manager against our agent, with the faults of networks and of agents.

use std::time::Duration;

use embody::drivers::Fault;
use embody::drivers::switch::snmp::keys::Extension;
use embody::drivers::switch::snmp::{Agent, SnmpSocket, Timing, UdpAgent, Value};
use embody::model::secret::{AuthProtocol, PrivProtocol};
use embody::sim::agent::{Faults, SimAgent};

use crate::peer::{AUTH_PASSWORD, PATIENT, PRIV_PASSWORD, QUICK, Simulated, manager, oid, text, v2c, v3, v3_with};
use crate::programs::{switch, user};

const SYS_NAME: &str = "1.3.6.1.2.1.1.5.0";
const IF_INDEX: &str = "1.3.6.1.2.1.2.2.1.1";
const IF_DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const IF_SPEED: &str = "1.3.6.1.2.1.2.2.1.5";

/// Both columns of all forty interfaces, each once and in order.
async fn walks_whole(agent: &mut UdpAgent) {
    let columns = agent.walk(&[oid(IF_DESCR), oid(IF_SPEED)], 40).await.unwrap();
    let names: Vec<Value> = columns[0].iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(names, (1..=40).map(|port| text(&format!("Gi1/0/{port}"))).collect::<Vec<_>>());
    assert_eq!(columns[1].len(), 40);
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
    let fault = agent.walk(&[oid(IF_DESCR)], 40).await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { code, .. } if code == "tooBig(1)"), "{fault:?}");
}

#[tokio::test]
async fn lost_and_doubled_replies_change_nothing() {
    let simulated = Simulated::start(switch()).await;
    let timing = Timing { read: Duration::from_millis(60), write: Duration::from_millis(60), tries: 12 };
    let mut agent = manager(simulated.port, v2c("public"), timing);
    simulated.change(|agent| agent.faults = Faults { lose_percent: 20, duplicate_percent: 60, ..Faults::default() });
    for _ in 0..20 {
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
    let fault = agent.set(&[(oid(SYS_NAME), text("sw2"))]).await.unwrap_err();
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

fn joe() -> embody::model::secret::SnmpLogin {
    v3("joe", AuthProtocol::Sha1, PrivProtocol::Aes256)
}

#[tokio::test]
async fn both_key_extensions_are_tried_and_the_right_one_is_remembered() {
    for mute in [true, false] {
        let simulated = Simulated::start(secured_switch(Extension::Reeder)).await;
        simulated.change(|agent| agent.faults.mute_on_wrong_key = mute);
        let mut agent = manager(simulated.port, joe(), QUICK);
        walks_whole(&mut agent).await;
        // A new engine makes new keys necessary, but no second trial of Blumenthal's: with it muted, that would take seconds.
        simulated.change(|agent| agent.replace_engine(vec![0x80, 0, 0, 1, 5, 9], 3));
        let before = simulated.requests();
        assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("sw1"));
        assert_eq!(simulated.requests() - before, 2, "the read that confirms the keys, and ours");
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
        agent.set(&[(oid(SYS_NAME), name.clone())]).await.unwrap();
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
