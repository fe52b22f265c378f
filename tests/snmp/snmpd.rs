//! Our manager against net-snmp's agent.

use embody::drivers::Fault;
use embody::drivers::switch::snmp::{Agent, SetAnswer, UdpAgent, Value};

use crate::peer::{PATIENT, QUICK, Snmpd, free_port, manager, missing, oid, text, v2c};

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
    assert_eq!(columns[0].len(), columns[1].len());
    assert!(columns[1].iter().any(|(_, value)| *value == Value::Octets(LO.to_vec())), "{columns:?}");
    assert!(columns[2].len() > 3, "sysORDescr has a row for each module: {columns:?}");

    let wanted = [(oid(SYS_NAME), text(name)), (oid(SYS_LOCATION), text("rack 7"))];
    assert_eq!(agent.set(&wanted).await.unwrap(), SetAnswer::Accepted(wanted.to_vec()));
    assert_eq!(agent.get(&[oid(SYS_NAME), oid(SYS_LOCATION)]).await.unwrap(), wanted.to_vec());
    let wrong = [(oid(SYS_NAME), text("other")), (oid(SYS_LOCATION), Value::Integer(1))];
    assert_eq!(agent.set(&wrong).await.unwrap(), SetAnswer::Refused { status: 7, index: 2 });
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
    assert!(whole[0].len() > 200, "more than net-snmp puts into one reply: {}", whole[0].len());

    let mut reader = manager(snmpd.port, v2c("public"), PATIENT);
    let refused = reader.set(&[(oid(SYS_NAME), text("x"))]).await.unwrap();
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
        let fault = agent.set(&[(oid(SYS_NAME), text("x"))]).await.unwrap_err();
        assert!(matches!(fault, Fault::Unknown { .. }), "{fault:?}");
    }
}
