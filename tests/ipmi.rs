//! IPMI from outside: our driver against ipmi_sim, ipmitool and FreeIPMI against our simulated BMC, and both of ours on a bad line.
//!
//! The first two are independent of us, so that an error of ours cannot agree with itself. Leaves out real boards. A peer that is not
//! installed is skipped, and said so; with EMBODY_REQUIRE_PEERS set it is a failure.

mod free_port;

#[path = "ipmi/deeds.rs"]
mod deeds;
#[path = "ipmi/lab.rs"]
mod lab;
#[path = "ipmi/manners.rs"]
mod manners;
#[path = "ipmi/slow.rs"]
mod slow;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::drivers::bmc::ipmi::{BmcSocket, IpmiDriver, IpmiSettings};
use embody::testing::drivers::{Depth, Driver, Fault};
use embody::testing::model::fact::{BootDevice, BootOverride, Power, Tick};
use embody::testing::model::op::Off;
use embody::testing::model::server::Privilege;
use embody::testing::sim::bmc::{ADMINISTRATOR, Bmc, BmcConfig, BmcFault, BootLie, Control, OPERATOR, User};
use embody::testing::sim::rmcp::{Endpoint, Line};
use embody::testing::{carry_out, carry_out_on};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use lab::*;

// ---- our driver against ipmi_sim ----------------------------------------------------------------------------------------

#[tokio::test]
async fn ipmi_sim_is_seen_and_switched() {
    let Some(sim) = ipmi_sim().await else { return };
    let mut bmc = driver(sim.port, login("admin", "secret", None), quick()).await;
    let seen = look(&mut bmc, Depth::Everything).await.unwrap();
    assert_eq!((seen.power, seen.suite), (Power::Off, 3));
    assert_eq!((seen.identity.manufacturer_id, seen.identity.product_id), (0x1291, 0x0f02));
    assert_eq!((seen.identity.firmware.as_str(), seen.identity.ipmi_version.as_str()), ("9.08", "2.0"));
    assert_eq!(seen.identity.guid.as_deref(), Some("a123456789abcdefa123456789abcdef"));

    // It loses the bits for valid, persistent and EFI: what we wrote counts while what it shows does not change, but that it persists.
    carry_out(&mut bmc, &[set_boot(BootDevice::Pxe), power_on()], soon()).await.unwrap();
    until_power(&mut bmc, Power::On).await;
    let set = BootOverride { valid: true, persistent: false, efi: true, device: BootDevice::Pxe };
    assert_eq!(look(&mut bmc, Depth::State).await.unwrap().boot, Some(set));
    assert!(sim.calls().contains("set boot pxe\n"), "{}", sim.calls());
    std::fs::write(sim.dir.path().join("boot"), "cdrom\n").unwrap();
    let boot = look(&mut bmc, Depth::State).await.unwrap().boot.unwrap();
    assert_eq!((boot.device, boot.persistent), (BootDevice::Cdrom, false));

    carry_out(&mut bmc, &[power_off(Off::Soft)], soon()).await.unwrap();
    until_power(&mut bmc, Power::Off).await;
    assert!(sim.calls().contains("set shutdown 1\n"), "{}", sim.calls());
    carry_out(&mut bmc, &[power_on()], soon()).await.unwrap();
    until_power(&mut bmc, Power::On).await;
    carry_out(&mut bmc, &[power_off(Off::Hard)], soon()).await.unwrap();
    until_power(&mut bmc, Power::Off).await;
    assert_eq!(sim.calls().matches("set power 0\n").count(), 1, "{}", sim.calls());
    bmc.close().await;
}

#[tokio::test]
async fn ipmi_sim_refuses_in_words() {
    let Some(sim) = ipmi_sim().await else { return };
    for (user, password, words) in [("admin", "wrong", "password"), ("nobody", "x", "user"), ("admin", "", "password")] {
        let mut bmc = driver(sim.port, login(user, password, None), quick()).await;
        match look(&mut bmc, Depth::State).await {
            Err(Fault::Denied { why, .. }) => assert!(why.contains(words), "{user}/{password}: {why}"),
            other => panic!("{user}/{password}: {other:?}"),
        }
    }
    // OPERATOR is enough for power.
    let settings = IpmiSettings { privilege: Privilege::Operator, ..quick() };
    let mut bmc = driver(sim.port, login("oper", "oper", None), settings).await;
    carry_out(&mut bmc, &[power_on()], soon()).await.unwrap();
    until_power(&mut bmc, Power::On).await;
    bmc.close().await;
}

/// ipmi_sim has 64 sessions: one that is not closed is missed at the 64th.
#[tokio::test]
async fn no_session_is_leaked() {
    let Some(sim) = ipmi_sim().await else { return };
    let socket = BmcSocket::bind().await.unwrap();
    for round in 0..150 {
        let address = format!("127.0.0.1:{}", sim.port).parse().unwrap();
        let mut bmc = IpmiDriver::new("bmc/test".into(), socket.clone(), address, login("admin", "secret", None), quick(), None);
        look(&mut bmc, Depth::State).await.unwrap_or_else(|fault| panic!("round {round}: {fault}"));
        if round % 2 == 0 {
            bmc.close().await;
        }
        // Else it is dropped, and says goodbye without waiting.
    }
}

#[tokio::test]
async fn a_dead_port_is_silent() {
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bmc = driver(unused.local_addr().unwrap().port(), login("admin", "secret", None), quick()).await;
    let begun = Instant::now();
    let fault = bmc.observe(Depth::State, begun + Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(fault, Fault::Silent { attempts: 2.., .. }), "{fault:?}");
    assert!(begun.elapsed() < LIMIT);
}

// ---- a simulated BMC on a real socket -----------------------------------------------------------------------------------

async fn ipmitool(port: u16, suite: &str, password: &str, arguments: &str) -> (bool, String) {
    let port = port.to_string();
    let head = ["-I", "lanplus", "-C", suite, "-H", "127.0.0.1", "-p", &port, "-U", "admin", "-P", password];
    let all: Vec<&str> = head.into_iter().chain(arguments.split(' ')).collect();
    run("ipmitool", &all).await
}

async fn ipmitool_gets_on(suite: &str) {
    let bmc = Served::new(fast(), Line::default()).await;
    let ask = async |arguments: &str| {
        let (good, text) = ipmitool(bmc.port, suite, "admin", arguments).await;
        assert!(good, "-C {suite} {arguments}: {text}");
        text
    };
    assert!(ask("chassis power status").await.contains("Power is off"));
    ask("chassis power on").await;
    assert!(ask("chassis power status").await.contains("Power is on"));
    ask("chassis bootdev pxe options=persistent,efiboot").await;
    let read = ask("chassis bootparam get 5").await;
    for line in ["Boot Flag Valid", "apply to all future boots", "EFI boot", "Force PXE"] {
        assert!(read.contains(line), "{line}: {read}");
    }
    assert_eq!(bmc.boot().device, BootDevice::Pxe);
    assert!(ask("mc info").await.contains("4753"));
    assert!(ask("mc guid").await.replace('-', "").contains(&"11".repeat(16)));
    ask("chassis power soft").await;
    assert!(ask("chassis power status").await.contains("Power is off"));
    ask("chassis power on").await;
    ask("chassis power off").await;
    assert!(ask("chassis power status").await.contains("Power is off"));
    assert_eq!(bmc.controls(), [Control::On, Control::Soft, Control::On, Control::Off]);
    assert_eq!(bmc.sessions(), 0);
    let (good, text) = ipmitool(bmc.port, suite, "wrong", "chassis power status").await;
    assert!(!good, "{text}");
}

#[tokio::test]
async fn ipmitool_drives_our_bmc_with_suite_3() {
    if have("ipmitool") {
        ipmitool_gets_on("3").await;
    }
}

#[tokio::test]
async fn ipmitool_drives_our_bmc_with_suite_17() {
    if have("ipmitool") {
        ipmitool_gets_on("17").await;
    }
}

#[tokio::test]
async fn freeipmi_drives_our_bmc() {
    if !have("ipmipower") {
        return;
    }
    for suite in ["3", "17"] {
        let bmc = Served::new(fast(), Line::default()).await;
        let host = format!("127.0.0.1:{}", bmc.port);
        let ask = async |password: &str, what: &str| {
            let all = ["-D", "LAN_2_0", "-I", suite, "-h", &host, "-u", "admin", "-p", password, "-l", "ADMIN", "-W", "opensesspriv", what];
            run("ipmipower", &all).await.1
        };
        assert!(ask("admin", "--stat").await.contains(": off"));
        assert!(ask("admin", "--on").await.contains(": ok"));
        assert!(ask("admin", "--stat").await.contains(": on"));
        assert!(ask("admin", "--off").await.contains(": ok"));
        assert_eq!(bmc.controls(), [Control::On, Control::Off], "suite {suite}");
        let refused = ask("wrong", "--stat").await;
        assert!(refused.contains("password"), "suite {suite}: {refused}");
    }
}

// ---- our driver against our BMC -----------------------------------------------------------------------------------------

#[tokio::test]
async fn the_suite_is_17_then_3_and_never_3_again() {
    for (suites, expected) in [(vec![3, 17], 17), (vec![17], 17), (vec![3], 3)] {
        let bmc = Served::new(BmcConfig { suites, ..fast() }, Line::default()).await;
        let mut driver = driver(bmc.port, admin(), quick()).await;
        assert_eq!(look(&mut driver, Depth::Everything).await.unwrap().suite, expected);
        driver.close().await;
        assert_eq!(bmc.sessions(), 0);
        bmc.endpoint.lock().unwrap().bmc.config.suites = vec![3];
        let again = look(&mut driver, Depth::State).await;
        match again {
            Ok(seen) => assert_eq!((expected, seen.suite), (3, 3)),
            Err(Fault::Refused { what, .. }) => assert!(expected == 17 && what.contains("17"), "{what}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    let bmc = Served::new(BmcConfig { suites: vec![], ..fast() }, Line::default()).await;
    let refused = look(&mut driver(bmc.port, admin(), quick()).await, Depth::State).await;
    assert!(matches!(refused, Err(Fault::Unsupported { .. })), "{refused:?}");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let mut kg = [0; 20];
    kg[..6].copy_from_slice(b"secret");
    let users = vec![
        User { name: "admin".into(), password: "admin".into(), level: ADMINISTRATOR },
        User { name: "oper".into(), password: "oper".into(), level: OPERATOR },
    ];
    let bmc = Served::new(BmcConfig { kg: Some(kg), users, ..fast() }, Line::default()).await;
    let operator = IpmiSettings { privilege: Privilege::Operator, ..quick() };
    let key = Some("secret");
    for (login, settings, words) in [
        (login("admin", "admin", key), quick(), None),
        (login("admin", "admin", Some("0x736563726574")), quick(), None),
        (login("oper", "oper", key), operator, None),
        (login("oper", "oper", key), quick(), Some("privilege")),
        (login("admin", "admin", None), quick(), Some("kg")),
        (login("admin", "admin", Some("other")), quick(), Some("kg")),
        (login("admin", "other", key), quick(), Some("wrong password")),
        (login("nobody", "admin", key), quick(), Some("no such user")),
        (login("a name that is far too long", "admin", key), quick(), Some("16 bytes")),
    ] {
        let mut driver = driver(bmc.port, login, settings).await;
        let done = carry_out(&mut driver, &[set_boot(BootDevice::Disk), power_on()], soon()).await;
        match (done, words) {
            (Ok(()), None) => {}
            (Err(Fault::Denied { why, .. }), Some(words)) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        }
        driver.close().await;
        if bmc.power() == Power::On {
            bmc.endpoint.lock().unwrap().bmc.press_button(bmc.now());
        }
    }
    assert_eq!(bmc.controls(), [Control::On; 3]);
    // With another BMC key the BMC believes in a session that we have no key to close: it ends idle.
    assert_eq!(bmc.sessions(), 2);
}

#[tokio::test(start_paused = true)]
async fn busy_is_not_refused() {
    let _clockwork = clockwork();
    let bmc = Served::new(BmcConfig { sessions: 1, ..fast() }, Line::default()).await;
    let (mut first, mut second) = (driver(bmc.port, admin(), quick()).await, driver(bmc.port, admin(), quick()).await);
    look(&mut first, Depth::State).await.unwrap();
    let busy = look(&mut second, Depth::State).await;
    assert!(matches!(&busy, Err(Fault::Busy { code, .. }) if code.contains("01h")), "{busy:?}");
    first.close().await;
    carry_out(&mut second, &[power_on()], soon()).await.unwrap();
    for code in [0xc0, 0xc3, 0xd2] {
        bmc.inject(BmcFault::Busy { code, until: bmc.now().plus(LIMIT) });
        let busy = look(&mut second, Depth::State).await;
        assert!(matches!(&busy, Err(Fault::Busy { .. })), "{busy:?}");
        // It says so of the question before the command already.
        let off = carry_out_on(&mut second, &guid(0x11), &[power_off(Off::Hard)], soon()).await;
        assert!(matches!(&off, Err(Fault::Busy { .. })), "{off:?}");
        bmc.endpoint.lock().unwrap().bmc.heal(bmc.now());
    }
    look(&mut second, Depth::State).await.unwrap();
}

#[tokio::test]
async fn boot_flags_are_read_back() {
    let bmc = Served::new(fast(), Line::default()).await;
    let mut driver = driver(bmc.port, admin(), quick()).await;
    let pxe = BootOverride { valid: true, persistent: true, efi: true, device: BootDevice::Pxe };
    carry_out(&mut driver, &[set_boot(BootDevice::Pxe)], soon()).await.unwrap();
    assert_eq!((bmc.boot(), look(&mut driver, Depth::State).await.unwrap().boot), (pxe, Some(pxe)));
    let until = bmc.now().plus(LIMIT);
    bmc.inject(BmcFault::Boot { lie: BootLie::ForgetsWrites, until });
    let lie = carry_out(&mut driver, &[set_boot(BootDevice::Disk)], soon()).await;
    assert!(matches!(&lie, Err(Fault::Disagrees { found, .. }) if found == "Pxe, persistent, EFI"), "{lie:?}");
    bmc.endpoint.lock().unwrap().bmc.heal(bmc.now());
    bmc.inject(BmcFault::Boot { lie: BootLie::LosesBits, until });
    carry_out(&mut driver, &[set_boot(BootDevice::Disk)], soon()).await.unwrap();
    assert_eq!(
        look(&mut driver, Depth::State).await.unwrap().boot,
        Some(BootOverride { device: BootDevice::Disk, persistent: false, ..pxe })
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_is_opened_again_for_a_look() {
    let _clockwork = clockwork();
    let bmc = Served::new(fast(), Line::default()).await;
    let settings = IpmiSettings { retry_after: Duration::from_millis(50), ..quick() };
    let mut driver = driver(bmc.port, admin(), settings).await;
    carry_out(&mut driver, &[power_on()], soon()).await.unwrap();
    bmc.inject(BmcFault::Reboot { takes: Duration::from_millis(200) });
    assert_eq!(look(&mut driver, Depth::State).await.unwrap().power, Power::On);
    // Before a change as well, as long as nothing of it has left: who answers is looked at anew.
    bmc.endpoint.lock().unwrap().drop_sessions();
    carry_out_on(&mut driver, &guid(0x11), &[power_off(Off::Hard)], soon()).await.unwrap();
    assert_eq!(bmc.controls(), [Control::On, Control::Off]);
}

#[tokio::test(start_paused = true)]
async fn a_power_off_is_sent_once_and_its_outcome_may_be_unknown() {
    let _clockwork = clockwork();
    let bmc = Served::new(BmcConfig { power: Power::On, ..fast() }, Line::default()).await;
    let counted = Arc::new(Mutex::new(0));
    let (port, task) = tap(bmc.port, counted.clone()).await;
    let settings = IpmiSettings { retry_after: Duration::from_millis(50), ..quick() };
    let mut driver = driver(port, admin(), settings).await;
    // The session is open and raised.
    carry_out(&mut driver, &[set_boot(BootDevice::Pxe)], soon()).await.unwrap();
    for (op, control) in [(power_off(Off::Soft), Control::Soft), (power_off(Off::Hard), Control::Off)] {
        assert!(look(&mut driver, Depth::State).await.is_ok());
        if bmc.power() == Power::Off {
            bmc.endpoint.lock().unwrap().bmc.press_button(bmc.now());
        }
        carry_out_on(&mut driver, &guid(0x11), &[set_boot(BootDevice::Pxe)], soon()).await.unwrap();
        bmc.odd(|odd| odd.mute = Some((0x00, 0x02)));
        let before = (bmc.controls().len(), *counted.lock().unwrap());
        let unknown = carry_out_on(&mut driver, &guid(0x11), &[op], Instant::now() + Duration::from_secs(2)).await;
        assert!(matches!(unknown, Err(Fault::Unknown { .. })), "{unknown:?}");
        // The status before it, the command, and Close Session.
        let deadline = soon();
        while *counted.lock().unwrap() < before.1 + 3 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(bmc.controls()[before.0..], [control]);
        assert_eq!(*counted.lock().unwrap(), before.1 + 3);
    }
    task.abort();
}

/// The button changes the power between two polls: an old answer taken for a new one would show.
#[tokio::test(start_paused = true)]
async fn late_and_doubled_replies_never_answer_another_question() {
    let _clockwork = clockwork();
    let ms = Duration::from_millis;
    let line = Line { lost_in: 0.3, lost_out: 0.3, doubled: 0.3, delay: ms(10), late: 0.2, late_by: ms(90), seed: 7 };
    let bmc = Served::new(BmcConfig { suites: vec![17], sessions: 64, kg: Some([7; 20]), ..fast() }, line).await;
    let kg = "0x".to_owned() + &"07".repeat(20);
    let settings = IpmiSettings { retry_after: ms(40), ..quick() };
    let mut driver = driver(bmc.port, login("admin", "admin", Some(&kg)), settings).await;
    let (mut good, mut silent) = (0, 0);
    for round in 0..30 {
        bmc.endpoint.lock().unwrap().bmc.press_button(bmc.now());
        match look(&mut driver, Depth::State).await {
            Ok(seen) => {
                assert_eq!(seen.power, bmc.power(), "round {round}");
                good += 1;
            }
            Err(Fault::Silent { .. }) => silent += 1,
            Err(other) => panic!("round {round}: {other:?}"),
        }
        if round % 10 == 0 {
            let offs = bmc.controls().iter().filter(|c| **c == Control::Off).count();
            let done = carry_out(&mut driver, &[power_off(Off::Hard)], soon()).await;
            assert!(matches!(done, Ok(()) | Err(Fault::Unknown { .. } | Fault::Silent { .. })), "{done:?}");
            assert!(bmc.controls().iter().filter(|c| **c == Control::Off).count() <= offs + 1);
        }
    }
    assert!(good > 20 && good + silent == 30, "{good} good, {silent} silent");
}

#[tokio::test]
async fn one_socket_serves_many_and_ipv6() {
    let socket = BmcSocket::bind().await.unwrap();
    let mut endpoints = Vec::new();
    let mut drivers = Vec::new();
    for n in 1..=60u8 {
        let listening = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = listening.local_addr().unwrap().port();
        let address = format!("localhost:{port}").parse().unwrap();
        drivers.push((n, IpmiDriver::new(format!("bmc/{n}"), socket.clone(), address, admin(), quick(), None)));
        endpoints.push((listening, Arc::new(Mutex::new(Endpoint::new(Bmc::new(BmcConfig { guid: [n; 16], ..fast() }), n.into())))));
    }
    let task = tokio::spawn(embody::testing::sim::rmcp::serve_many(endpoints, || Tick::START, Line::default()));
    let looks = drivers.into_iter().map(|(n, mut driver): (u8, IpmiDriver)| {
        tokio::spawn(async move {
            for _ in 0..5 {
                let seen = look(&mut driver, Depth::Everything).await.unwrap();
                assert_eq!(seen.identity.guid, Some(format!("{n:02x}").repeat(16)));
                // Not the name, which may be another one's tomorrow.
                let address = seen.shown.address.unwrap();
                assert!(address.parse::<std::net::SocketAddr>().unwrap().ip().is_loopback(), "{address}");
            }
            driver.close().await;
        })
    });
    for look in looks.collect::<Vec<_>>() {
        look.await.unwrap();
    }
    task.abort();

    if UdpSocket::bind("[::1]:0").await.is_err() {
        eprintln!("SKIP: no IPv6 here");
        return;
    }
    let bmc = Served::at("[::1]:0", fast(), Line::default()).await;
    let address = format!("[::1]:{}", bmc.port).parse().unwrap();
    let mut driver = IpmiDriver::new("bmc/v6".into(), socket.clone(), address, admin(), quick(), None);
    assert_eq!(look(&mut driver, Depth::Everything).await.unwrap().suite, 17);

    let Some((address, number, name)) = link_local() else {
        eprintln!("SKIP: no interface with a link-local address here");
        return;
    };
    let bmc = Served::at(&format!("[{address}%{number}]:0"), fast(), Line::default()).await;
    for zone in [name, number.to_string()] {
        let address = format!("[{address}%{zone}]:{}", bmc.port).parse().unwrap();
        let mut driver = IpmiDriver::new("bmc/zone".into(), socket.clone(), address, admin(), quick(), None);
        assert_eq!(look(&mut driver, Depth::Everything).await.unwrap().suite, 17);
        driver.close().await;
    }
}

/// Of this machine: the address, the number of its interface, and its name, either of which is a zone.
fn link_local() -> Option<(String, u32, String)> {
    let all = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    let line = all.lines().find(|line| line.starts_with("fe80"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [digits, number, .., name] = words.as_slice() else { return None };
    let groups: Vec<&str> = (0..32).step_by(4).map(|at| &digits[at..at + 4]).collect();
    Some((groups.join(":"), u32::from_str_radix(number, 16).ok()?, (*name).to_owned()))
}

/// A whole conversation, and at each step what was damaged on the way: neither side panics, and neither believes it.
#[test]
fn damaged_datagrams_are_nothing_to_either_side() {
    use embody::testing::drivers::bmc::ipmi::crypto::Suite;
    use embody::testing::drivers::bmc::ipmi::session::{Credentials, Heard, Session};
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut chance = StdRng::seed_from_u64(3);
    let mut damaged = |whole: &[u8]| {
        let mut bytes = whole.to_vec();
        for _ in 0..chance.random_range(1..4) {
            let at = chance.random_range(0..bytes.len());
            bytes[at] = chance.random();
        }
        bytes.truncate(chance.random_range(0..=whole.len()));
        bytes
    };
    for suite in [Suite::Three, Suite::Seventeen] {
        let mut endpoint = Endpoint::new(Bmc::new(fast()), 5);
        let credentials = Credentials::new(&admin(), Privilege::Administrator).unwrap();
        let mut session = Session::new(credentials, suite, 0x0001_0001, [4; 16]);
        let mut asked = session.begin().bytes().to_vec();
        let mut open = 0;
        while open < 20 {
            for _ in 0..200 {
                // Damage to a handshake may break it off, so it is done to a copy; an open session bears it.
                let mut other = Endpoint::new(Bmc::new(fast()), 5);
                let _ = other.handle(&damaged(&asked), Tick::START);
                let hit = damaged(&asked);
                // The RMCP header before byte 4 is not authenticated; a packet outside of a session may be answered outside of it.
                if open > 0 && hit.get(4..) != asked.get(4..) {
                    let answer = endpoint.handle(&hit, Tick::START);
                    assert!(answer.is_none_or(|a| a[4] != 0x06 || a[5] & 0xc0 == 0), "{hit:?}");
                }
            }
            let answer = endpoint.handle(&asked, Tick::START).unwrap();
            for _ in 0..200 {
                let hit = damaged(&answer);
                if open > 0 && hit.get(4..) != answer.get(4..) {
                    assert_eq!(session.handle(&hit), Heard::Nothing);
                }
                let copy = Credentials::new(&admin(), Privilege::Administrator).unwrap();
                let mut other = Session::new(copy, suite, 0x0001_0001, [4; 16]);
                let _ = (other.begin(), other.handle(&hit));
            }
            asked = match session.handle(&answer) {
                Heard::Send(next) => next.bytes().to_vec(),
                Heard::Open | Heard::Reply(_) => {
                    open += 1;
                    session.request(0x00, 0x01, &[], [6; 16]).unwrap().bytes().to_vec()
                }
                other @ (Heard::Nothing | Heard::Refused(_)) => panic!("{other:?}"),
            };
        }
        assert_eq!(endpoint.sessions(), 1);
    }
}
