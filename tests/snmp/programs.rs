//! net-snmp's programs against our simulated agent.

use std::process::Output;

use embody::testing::drivers::switch::snmp::keys::Extension;
use embody::testing::model::secret::{AuthProtocol, PrivProtocol};
use embody::testing::sim::agent::{Access, SimAgent, SimUser, Table};

use crate::peer::{AUTH_PASSWORD, PRIV_PASSWORD, Simulated, missing};

/// Forty interfaces with names, and a few objects of every type.
pub fn recording() -> String {
    let mut text = String::from(
        "1.3.6.1.2.1.1.1.0|4|a switch\n1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.9.1.1208\n1.3.6.1.2.1.1.3.0|67|4711\n\
         1.3.6.1.2.1.1.5.0|4|sw1\n1.3.6.1.2.1.4.20.1.1.10.0.0.1|64|10.0.0.1\n1.3.6.1.2.1.31.1.1.1.6.1|70|18446744073709551615\n\
         1.3.6.1.2.1.17.7.1.4.3.1.2.10|4x|fffe00000000000000ff\n",
    );
    for port in 1..=40 {
        text.push_str(&format!("1.3.6.1.2.1.2.2.1.1.{port}|2|{port}\n1.3.6.1.2.1.2.2.1.2.{port}|4|Gi1/0/{port}\n"));
        text.push_str(&format!("1.3.6.1.2.1.2.2.1.5.{port}|66|1000000000\n1.3.6.1.2.1.2.2.1.10.{port}|65|{}\n", 3_000_000_000u32 + port));
    }
    text
}

pub fn switch() -> SimAgent {
    let table = Table::parse(&recording()).unwrap().writable();
    SimAgent::new(Box::new(table), 7).with_community("public", Access::Read).with_community("private", Access::Write)
}

/// Numeric OIDs, no MIB files, no configuration, one try.
async fn run(program: &str, login: &[&str], port: u16, rest: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    command.env("SNMPCONFPATH", "/nonexistent").args(["-On", "-m", "", "-r", "1", "-t", "5"]).args(login);
    command.arg(format!("127.0.0.1:{port}")).args(rest).output().await.unwrap()
}

async fn said(program: &str, login: &[&str], port: u16, rest: &[&str]) -> String {
    let output = run(program, login, port, rest).await;
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// GET of every type, GETBULK walks, SETs that are accepted and refused, all as net-snmp prints them.
async fn everything(port: u16, login: &[&str]) {
    let get = ["1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.31.1.1.1.6.1", "1.3.6.1.2.1.4.20.1.1.10.0.0.1"];
    let seen = said("snmpget", login, port, &get).await;
    for line in [
        ".1.3.6.1.2.1.1.1.0 = STRING: \"a switch\"",
        ".1.3.6.1.2.1.1.2.0 = OID: .1.3.6.1.4.1.9.1.1208",
        ".1.3.6.1.2.1.1.3.0 = Timeticks: (4711) 0:00:47.11",
        ".1.3.6.1.2.1.31.1.1.1.6.1 = Counter64: 18446744073709551615",
        ".1.3.6.1.2.1.4.20.1.1.10.0.0.1 = IpAddress: 10.0.0.1",
    ] {
        assert!(seen.lines().any(|found| found == line), "{line} is not in\n{seen}");
    }
    let missing = said("snmpget", login, port, &["1.3.6.1.2.1.1.9.0"]).await;
    assert!(missing.contains("No Such"), "{missing}");

    let walked = said("snmpbulkwalk", login, port, &["1.3.6.1.2.1.2.2.1"]).await;
    assert_eq!(walked.lines().count(), 160, "{walked}");
    assert!(walked.contains(".1.3.6.1.2.1.2.2.1.2.40 = STRING: \"Gi1/0/40\""), "{walked}");
    assert!(walked.contains(".1.3.6.1.2.1.2.2.1.10.7 = Counter32: 3000000007"), "{walked}");
    assert!(walked.contains(".1.3.6.1.2.1.2.2.1.5.7 = Gauge32: 1000000000"), "{walked}");

    let set = said("snmpset", login, port, &["1.3.6.1.2.1.1.5.0", "s", "sw2", "1.3.6.1.2.1.2.2.1.5.1", "u", "10"]).await;
    assert!(set.contains("\"sw2\"") && set.contains("Gauge32: 10"), "{set}");
    assert!(said("snmpget", login, port, &["1.3.6.1.2.1.1.5.0"]).await.contains("\"sw2\""));
    let refused = said("snmpset", login, port, &["1.3.6.1.2.1.1.5.0", "s", "sw3", "1.3.6.1.2.1.2.2.1.5.1", "i", "10"]).await;
    assert!(refused.contains("wrongType"), "{refused}");
    assert!(said("snmpget", login, port, &["1.3.6.1.2.1.1.5.0"]).await.contains("\"sw2\""));
}

#[tokio::test]
async fn v2c_managers_read_and_write_the_simulated_agent() {
    if missing("snmpget") || missing("snmpset") || missing("snmpbulkwalk") {
        return;
    }
    let simulated = Simulated::start(switch()).await;
    everything(simulated.port, &["-v2c", "-c", "private"]).await;
    let refused = said("snmpset", &["-v2c", "-c", "public"], simulated.port, &["1.3.6.1.2.1.1.5.0", "s", "sw3"]).await;
    assert!(refused.contains("noAccess"), "{refused}");
    let silent = said("snmpget", &["-v2c", "-c", "wrong", "-t", "1", "-r", "0"], simulated.port, &["1.3.6.1.2.1.1.5.0"]).await;
    assert!(silent.contains("Timeout"), "{silent}");
}

pub fn user(name: &str, auth: AuthProtocol, privacy: PrivProtocol, extension: Extension) -> SimUser {
    let (auth_password, priv_password) = (AUTH_PASSWORD.to_owned(), PRIV_PASSWORD.to_owned());
    SimUser { name: name.to_owned(), auth, auth_password, privacy, priv_password, extension, access: Access::Write }
}

#[tokio::test]
async fn v3_managers_read_and_write_the_simulated_agent() {
    if missing("snmpget") || missing("snmpset") || missing("snmpbulkwalk") {
        return;
    }
    use AuthProtocol::{Md5, Sha1, Sha224, Sha256, Sha384, Sha512};
    use PrivProtocol::{Aes128, Aes256, Des};
    let pairs = [
        (Md5, "MD5", Des, "DES", Extension::Blumenthal),
        (Sha1, "SHA", Aes128, "AES", Extension::Blumenthal),
        (Sha224, "SHA-224", Aes256, "AES-256", Extension::Blumenthal),
        (Sha256, "SHA-256", Aes128, "AES", Extension::Blumenthal),
        (Sha384, "SHA-384", Des, "DES", Extension::Blumenthal),
        (Sha512, "SHA-512", Aes256, "AES-256", Extension::Blumenthal),
        (Sha1, "SHA", Aes256, "AES-256", Extension::Blumenthal),
        (Sha1, "SHA", Aes256, "AES-256-C", Extension::Reeder),
    ];
    for (auth, auth_word, privacy, priv_word, extension) in pairs {
        eprintln!("{auth_word} {priv_word}");
        let simulated = Simulated::start(switch().with_user(user("joe", auth, privacy, extension))).await;
        let whole = ["-v3", "-l", "authPriv", "-u", "joe", "-a", auth_word, "-A", AUTH_PASSWORD, "-x", priv_word, "-X", PRIV_PASSWORD];
        everything(simulated.port, &whole).await;
    }
}

#[tokio::test]
async fn v3_managers_are_told_what_is_wrong() {
    if missing("snmpget") {
        return;
    }
    let simulated =
        Simulated::start(switch().with_user(user("joe", AuthProtocol::Sha256, PrivProtocol::Aes128, Extension::Blumenthal))).await;
    let login = |user: &'static str, auth: &'static str, privacy: &'static str| {
        ["-v3", "-l", "authPriv", "-u", user, "-a", "SHA-256", "-A", auth, "-x", "AES", "-X", privacy, "-t", "1", "-r", "0"]
    };
    for (login, words) in [
        (login("nobody", AUTH_PASSWORD, PRIV_PASSWORD), "Unknown user name"),
        (login("joe", "wrongpass123", PRIV_PASSWORD), "Authentication failure"),
        (login("joe", AUTH_PASSWORD, "wrongpass123"), "Decryption error"),
    ] {
        let seen = said("snmpget", &login, simulated.port, &["1.3.6.1.2.1.1.5.0"]).await;
        assert!(seen.contains(words), "expected `{words}`, found {seen}");
    }
    let weak = ["-v3", "-l", "authNoPriv", "-u", "joe", "-a", "SHA-256", "-A", AUTH_PASSWORD];
    let seen = said("snmpget", &weak, simulated.port, &["1.3.6.1.2.1.1.5.0"]).await;
    assert!(seen.contains("authorizationError"), "{seen}");
}

/// snmp2's own session, a third manager: the only one here that is neither ours nor net-snmp's, and can do both extensions.
#[tokio::test]
async fn snmp2_s_session_reads_the_simulated_agent() {
    use snmp2::v3::{Auth, AuthProtocol as Hash, Cipher, KeyExtension, Security};
    let extensions = [(Extension::Blumenthal, KeyExtension::Blumenthal), (Extension::Reeder, KeyExtension::Reeder)];
    for (ours, theirs) in extensions {
        let simulated = Simulated::start(switch().with_user(user("joe", AuthProtocol::Sha224, PrivProtocol::Aes256, ours))).await;
        let security = Security::new(b"joe", AUTH_PASSWORD.as_bytes())
            .with_auth_protocol(Hash::Sha224)
            .with_auth(Auth::AuthPriv { cipher: Cipher::Aes256, privacy_password: PRIV_PASSWORD.as_bytes().to_vec() })
            .with_key_extension_method(theirs);
        let address = format!("127.0.0.1:{}", simulated.port);
        let mut session = Box::pin(snmp2::AsyncSession::new_v3(address, 1, security)).await.unwrap();
        session.init().await.unwrap();
        let name = snmp2::Oid::from(&[1, 3, 6, 1, 2, 1, 1, 5, 0]).unwrap();
        let mut reply = session.get(&name).await.unwrap();
        assert!(matches!(reply.varbinds.next(), Some((_, snmp2::Value::OctetString(b"sw1")))));
    }
}
