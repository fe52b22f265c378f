//! Our manager against net-snmp's agent.

use embody::testing::drivers::Fault;
use embody::testing::drivers::switch::snmp::{Agent, SetAnswer, UdpAgent, Value};
use embody::testing::model::secret::{AuthProtocol, PrivProtocol};
use embody::testing::{leave, permit};

use crate::free_port::free_port;
use crate::peer::{AUTH_PASSWORD, PATIENT, PRIV_PASSWORD, QUICK, Snmpd, manager, missing, oid, text, v2c, v3, v3_with};

const SYS_NAME: &str = "1.3.6.1.2.1.1.5.0";
const SYS_LOCATION: &str = "1.3.6.1.2.1.1.6.0";
const IF_INDEX: &str = "1.3.6.1.2.1.2.2.1.1";
const IF_DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const LO: &[u8] = b"lo";

/// GET, a walk of ifTable and of system, and SETs that are accepted and refused.
async fn everything(agent: &mut UdpAgent, name: &str) {
    let asked = ["1.3.6.1.2.1.1.2.0", SYS_NAME, "1.3.6.1.2.1.1.99.0"].map(oid);
    let got = agent.get(&asked).await.unwrap();
    assert!(matches!(&got[0].1, Value::Oid(id) if id.starts_with(&oid("1.3.6.1.4.1.8072"))), "{got:?}");
    assert!(matches!(got[2].1, Value::NoSuchObject | Value::NoSuchInstance), "{got:?}");

    let columns = agent.walk(&[oid(IF_INDEX), oid(IF_DESCR), oid("1.3.6.1.2.1.1.9.1.3")], 4).await.unwrap();
    assert_eq!(columns[0].rows.len(), columns[1].rows.len());
    assert!(columns[1].rows.iter().any(|(_, value)| *value == Value::Octets(LO.to_vec())), "{columns:?}");
    assert!(columns[2].rows.len() > 3, "sysORDescr has a row for each module: {columns:?}");

    let wanted = [(oid(SYS_NAME), text(name)), (oid(SYS_LOCATION), text("rack 7"))];
    assert_eq!(agent.set(&wanted, leave(&permit())).await.unwrap(), SetAnswer::Accepted(wanted.to_vec()));
    assert_eq!(agent.get(&[oid(SYS_NAME), oid(SYS_LOCATION)]).await.unwrap(), wanted.to_vec());
    let wrong = [(oid(SYS_NAME), text("other")), (oid(SYS_LOCATION), Value::Integer(1))];
    assert_eq!(agent.set(&wrong, leave(&permit())).await.unwrap(), SetAnswer::Refused { status: 7, index: 2 });
    assert_eq!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text(name));
}

#[tokio::test]
async fn v2c_reads_walks_and_writes() {
    if missing("snmpd") {
        return;
    }
    let snmpd = Snmpd::start("").await;
    let mut agent = manager(snmpd.port, v2c("private"), PATIENT);
    everything(&mut agent, "switch-2c").await;
    assert_eq!(agent.engine_id(), None);

    let whole = agent.walk(&[oid("1.3.6.1.2.1")], 0).await.unwrap();
    assert!(whole[0].rows.len() > 200, "more than net-snmp puts into one reply: {}", whole[0].rows.len());

    let mut reader = manager(snmpd.port, v2c("public"), PATIENT);
    let refused = reader.set(&[(oid(SYS_NAME), text("x"))], leave(&permit())).await.unwrap();
    assert!(matches!(refused, SetAnswer::Refused { status: 6 | 17, index: 1 }), "{refused:?}");
}

#[tokio::test]
async fn v2c_with_a_wrong_community_or_nobody_there_is_silence() {
    if missing("snmpd") {
        return;
    }
    let snmpd = Snmpd::start("").await;
    for (port, community) in [(snmpd.port, "wrong"), (free_port(), "public")] {
        let mut agent = manager(port, v2c(community), QUICK);
        let fault = agent.get(&[oid(SYS_NAME)]).await.unwrap_err();
        assert!(matches!(fault, Fault::Silent { attempts: 3, .. }), "{fault:?}");
        let fault = agent.set(&[(oid(SYS_NAME), text("x"))], leave(&permit())).await.unwrap_err();
        assert!(matches!(fault, Fault::Unknown { .. }), "{fault:?}");
    }
}

/// Every pair that net-snmp can do, with its names; AES-256 in both key extensions, of which Reeder's has a `C` (Cisco) in its name.
fn users() -> Vec<(String, AuthProtocol, PrivProtocol, String)> {
    use AuthProtocol::{Md5, Sha1, Sha224, Sha256, Sha384, Sha512};
    use PrivProtocol::{Aes128, Aes256, Des};
    let auths = [(Md5, "MD5"), (Sha1, "SHA"), (Sha224, "SHA-224"), (Sha256, "SHA-256"), (Sha384, "SHA-384"), (Sha512, "SHA-512")];
    let privacies = [(Des, "DES"), (Aes128, "AES"), (Aes256, "AES-256"), (Aes256, "AES-256-C")];
    let mut users = Vec::new();
    for (auth, auth_word) in auths {
        for (privacy, priv_word) in privacies {
            let name = format!("{auth_word}-{priv_word}").to_ascii_lowercase();
            let line = format!("createUser {name} {auth_word} {AUTH_PASSWORD} {priv_word} {PRIV_PASSWORD}\nrwuser {name} authpriv\n");
            users.push((name, auth, privacy, line));
        }
    }
    users
}

#[tokio::test]
async fn v3_reads_walks_and_writes_with_every_pair_of_protocols() {
    if missing("snmpd") {
        return;
    }
    let users = users();
    let lines: String = users.iter().map(|(_, _, _, line)| line.as_str()).collect();
    let snmpd = Snmpd::start(&lines).await;
    assert_eq!(users.len(), 24);
    for (name, auth, privacy, _) in users {
        eprintln!("{name}");
        let timing = if name.ends_with("-c") { QUICK } else { PATIENT };
        let mut agent = manager(snmpd.port, v3(&name, auth, privacy), timing);
        everything(&mut agent, &name).await;
        assert!(agent.engine_id().is_some_and(|id| id.starts_with(&[0x80, 0, 0x1f, 0x88])), "net-snmp's enterprise number");
    }
}

/// authNoPriv, for which the manifest must say that it may be read on the way.
#[tokio::test]
async fn v3_reads_walks_and_writes_without_encryption_where_it_is_told_to() {
    if missing("snmpd") {
        return;
    }
    let plain = "createUser plain SHA-256 authpass123\nrwuser plain auth\n";
    let snmpd = Snmpd::start(&format!("{USER}{plain}")).await;
    let without = |name: &str, password: &str| v3_with(name, (AuthProtocol::Sha256, password), (PrivProtocol::None, ""));
    everything(&mut manager(snmpd.port, without("plain", AUTH_PASSWORD), PATIENT), "plain").await;
    let denied = manager(snmpd.port, without("plain", "wrongpass123"), PATIENT).get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(&denied, Fault::Denied { why, .. } if why.contains("authentication password")), "{denied:?}");
    // A user who is to encrypt may do nothing without.
    let refused = manager(snmpd.port, without("joe", AUTH_PASSWORD), PATIENT).get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(&refused, Fault::Refused { code, .. } if code.starts_with("authorizationError")), "{refused:?}");
}

const USER: &str = "createUser joe SHA-256 authpass123 AES privpass123\nrwuser joe authpriv\n";

#[tokio::test]
async fn v3_says_what_is_wrong_with_the_credentials() {
    if missing("snmpd") {
        return;
    }
    use AuthProtocol::{Sha1, Sha256};
    use PrivProtocol::{Aes128, Des};
    let weak = "createUser weak SHA-256 authpass123\nrwuser weak auth\n";
    let snmpd = Snmpd::start(&format!("{USER}{weak}")).await;
    let (auth, privacy) = ((Sha256, AUTH_PASSWORD), (Aes128, PRIV_PASSWORD));
    let denied = [
        (v3_with("nobody", auth, privacy), "no SNMPv3 user `nobody`"),
        (v3_with("joe", (Sha256, "wrongpass123"), privacy), "authentication password or protocol of the user `joe` is wrong"),
        (v3_with("joe", (Sha1, AUTH_PASSWORD), privacy), "authentication password or protocol of the user `joe` is wrong"),
        (v3_with("weak", auth, privacy), "no authentication and encryption there"),
        (v3_with("joe", (Sha256, "short"), privacy), "the authentication password has 5 characters"),
        (v3_with("joe", auth, (Aes128, "")), "the privacy password has 0 characters"),
    ];
    for (login, words) in denied {
        let mut agent = manager(snmpd.port, login, PATIENT);
        let read = agent.get(&[oid(SYS_NAME)]).await.unwrap_err();
        let written = agent.set(&[(oid(SYS_NAME), text("x"))], leave(&permit())).await.unwrap_err();
        for fault in [read, written] {
            assert!(matches!(&fault, Fault::Denied { why, .. } if why.contains(words)), "expected `{words}`, found {fault:?}");
        }
    }
    for privacy in [(Aes128, "wrongpass123"), (Des, PRIV_PASSWORD)] {
        let mut agent = manager(snmpd.port, v3_with("joe", auth, privacy), QUICK);
        let fault = agent.get(&[oid(SYS_NAME)]).await.unwrap_err();
        assert!(matches!(&fault, Fault::Silent { device, .. } if device.contains("privacy password")), "{fault:?}");
    }
    let mut agent = manager(free_port(), v3("joe", Sha256, Aes128), QUICK);
    let fault = agent.get(&[oid(SYS_NAME)]).await.unwrap_err();
    assert!(matches!(&fault, Fault::Silent { device, .. } if device == "tor1"), "{fault:?}");
}

#[tokio::test]
async fn v3_finds_its_way_to_a_restarted_agent_with_the_same_and_with_a_new_engine_id() {
    if missing("snmpd") {
        return;
    }
    let engine = |last: u8| (format!("exactEngineID 0x80001f88040102030{last}\n{USER}"), vec![0x80, 0, 0x1f, 0x88, 4, 1, 2, 3, last]);
    let (first, first_id) = engine(1);
    let (second, second_id) = engine(2);
    let mut snmpd = Snmpd::start(&first).await;
    let mut agent = manager(snmpd.port, v3("joe", AuthProtocol::Sha256, PrivProtocol::Aes128), PATIENT);
    agent.get(&[oid(SYS_NAME)]).await.unwrap();
    assert_eq!(agent.engine_id(), Some(first_id.clone()));

    snmpd.restart(&first).await;
    assert_eq!(
        agent.set(&[(oid(SYS_NAME), text("back"))], leave(&permit())).await.unwrap(),
        SetAnswer::Accepted(vec![(oid(SYS_NAME), text("back"))])
    );
    assert_eq!(agent.engine_id(), Some(first_id));

    snmpd.restart(&second).await;
    let fault = agent.set(&[(oid(SYS_NAME), text("new"))], leave(&permit())).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent { .. }), "it was meant for the other engine: {fault:?}");
    assert_eq!(agent.engine_id(), Some(second_id));
    assert_ne!(agent.get(&[oid(SYS_NAME)]).await.unwrap()[0].1, text("new"));

    snmpd.kill();
    agent = manager(snmpd.port, v3("joe", AuthProtocol::Sha256, PrivProtocol::Aes128), QUICK);
    assert!(matches!(agent.get(&[oid(SYS_NAME)]).await, Err(Fault::Silent { .. })));
}
