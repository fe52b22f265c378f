//! How the driver treats a BMC that is overloaded, odd, or one of many: no flood, no quick retries, turns for credentials, half answers.
//!
//! Leaves out changes (`deeds`). What is counted is what the BMC got; where time counts, only what machines that are slow make more of.

use std::sync::Arc;
use std::time::Duration;

use embody::testing::drivers::bmc::ipmi::crypto::Suite;
use embody::testing::drivers::bmc::ipmi::{BmcSocket, IpmiDriver, IpmiSettings};
use embody::testing::drivers::credentials::Turns;
use embody::testing::drivers::{Depth, Driver, Fault};
use embody::testing::model::fact::{BootDevice, Power};
use embody::testing::model::op::{Device, Off};
use embody::testing::sim::rmcp::{Line, Received};
use tokio::time::Instant;

use super::lab::*;

const OPEN: u8 = 0x10;
const RAKP_1: u8 = 0x12;

fn handshakes(bmc: &Served) -> Vec<u8> {
    bmc.received().iter().filter_map(|r| if let Received::Handshake(kind) = r { Some(*kind) } else { None }).collect()
}

/// A refusal is the worker's to pace: one poll is one handshake, or two where the suite is in question.
#[tokio::test(start_paused = true)]
async fn a_refused_handshake_is_not_tried_again_at_once() {
    let _clockwork = clockwork();
    for (open, rakp_1, expected) in [
        (Some(0x01), None, vec![OPEN]),
        (Some(0x0b), None, vec![OPEN]),
        (Some(0x12), None, vec![OPEN, OPEN]),
        (Some(0x11), None, vec![OPEN, OPEN]),
        (None, Some(0x01), vec![OPEN, RAKP_1]),
        (None, Some(0x12), vec![OPEN, RAKP_1]),
        (None, Some(0x0d), vec![OPEN, RAKP_1]),
        // The BMC forgot the handshake: that happens, once.
        (None, Some(0x02), vec![OPEN, RAKP_1, OPEN, RAKP_1]),
    ] {
        let bmc = Served::new(fast(), Line::default()).await;
        bmc.odd(|odd| (odd.open, odd.rakp_1) = (open, rakp_1));
        let fault = look(&mut driver(bmc.port, admin(), quick()).await, Depth::State).await.unwrap_err();
        assert_eq!(handshakes(&bmc), expected, "{open:x?} {rakp_1:x?}: {fault}");
        let busy = [Some(0x01), Some(0x0b)].contains(&open.or(rakp_1));
        assert_eq!(matches!(fault, Fault::Busy { .. }), busy, "{fault:?}");
        assert_eq!(matches!(fault, Fault::Denied { .. }), rakp_1 == Some(0x0d), "only a refused credential is one: {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bmc_that_always_chooses_suite_3_is_asked_for_it() {
    let _clockwork = clockwork();
    let bmc = Served::new(fast(), Line::default()).await;
    bmc.odd(|odd| odd.always_suite = Some(Suite::Three));
    assert_eq!(look(&mut driver(bmc.port, admin(), quick()).await, Depth::State).await.unwrap().suite, 3);
}

/// The n-th cannot be there before n times the spacing.
#[tokio::test(start_paused = true)]
async fn any_two_datagrams_are_apart() {
    let _clockwork = clockwork();
    let bmc = Served::new(fast(), Line::default()).await;
    let spacing = Duration::from_millis(60);
    let settings = IpmiSettings { spacing, ..IpmiSettings::default() };
    let begun = bmc.now();
    let mut driver = driver(bmc.port, admin(), settings).await;
    let controller = Controller::meaning(guid(0x11));
    look(&mut driver, Depth::Everything).await.unwrap();
    for op in [set_boot(BootDevice::Pxe), power_on(), power_off(Off::Soft)] {
        controller.execute(&mut driver, op).await.unwrap();
    }
    driver.close().await;
    look(&mut driver, Depth::State).await.unwrap();
    let at: Vec<_> = bmc.endpoint.lock().unwrap().received().map(|(at, _)| at.since(begun)).collect();
    assert!(at.len() > 20, "{}", at.len());
    for (n, at) in (0u32..).zip(at) {
        assert!(at >= spacing * n, "datagram {n} after {at:?}");
    }
}

fn device(name: &str) -> Device {
    Device::Bmc(name.parse().unwrap())
}

async fn in_turn(port: u16, name: &str, turns: &Arc<Turns>) -> IpmiDriver {
    let socket = BmcSocket::bind().await.unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    IpmiDriver::new(format!("bmc/{name}"), socket, address, admin(), quick(), Some((device(name), Arc::clone(turns))))
}

#[tokio::test(start_paused = true)]
async fn only_a_bmc_that_answers_holds_a_turn() {
    let _clockwork = clockwork();
    let turns = Arc::new(Turns::default());
    let unused: Vec<_> = (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for (n, dead) in unused.iter().enumerate() {
        let mut driver = in_turn(dead.local_addr().unwrap().port(), &format!("dead{n}"), &turns).await;
        tokio::spawn(async move { driver.observe(Depth::State, soon()).await });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let bmc = Served::new(fast(), Line::default()).await;
    look(&mut in_turn(bmc.port, "lives", &turns).await, Depth::State).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_waited_for_between_the_answer_and_the_user_name_and_not_for_long() {
    let _clockwork = clockwork();
    let turns = Arc::new(Turns::default());
    let bmc = Served::new(fast(), Line::default()).await;
    let held = (turns.pass(&device("one")).await.unwrap(), turns.pass(&device("two")).await.unwrap());
    let mut driver = in_turn(bmc.port, "three", &turns).await;
    let begun = Instant::now();
    let waits = look(&mut driver, Depth::State).await;
    assert!(matches!(&waits, Err(f @ Fault::NotSent { .. }) if f.to_string().contains("turn")), "{waits:?}");
    assert!(begun.elapsed() < LIMIT);
    assert_eq!(handshakes(&bmc), [OPEN], "the user name was not shown");
    drop(held);
    look(&mut driver, Depth::State).await.unwrap();
    // It worked here: no turn is needed any more, whoever holds them.
    let fresh = Arc::new(Turns::default());
    fresh.worked(&device("three"));
    let held = (fresh.pass(&device("one")).await.unwrap(), fresh.pass(&device("two")).await.unwrap());
    look(&mut in_turn(bmc.port, "three", &fresh).await, Depth::State).await.unwrap();
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_two_refused_are_not_shown_to_a_third() {
    let _clockwork = clockwork();
    let turns = Arc::new(Turns::default());
    let mut bmcs = Vec::new();
    for name in ["one", "two", "three"] {
        let bmc = Served::new(fast(), Line::default()).await;
        bmc.endpoint.lock().unwrap().bmc.config.users[0].password = "another".into();
        let fault = look(&mut in_turn(bmc.port, name, &turns).await, Depth::State).await.unwrap_err();
        assert!(matches!(fault, Fault::Denied { .. }), "{fault:?}");
        bmcs.push(handshakes(&bmc).len());
    }
    // Twice each: one flipped bit is no wrong password.
    assert_eq!(bmcs, [4, 4, 1]);
}

/// Codes for what some boards do not have, or not now: the power was told.
#[tokio::test(start_paused = true)]
async fn what_is_not_told_does_not_hide_the_power() {
    let _clockwork = clockwork();
    for code in [0xc1, 0xcc, 0xd4, 0xc0, 0xff] {
        let bmc = Served::new(fast(), Line::default()).await;
        bmc.interrupt(move |netfn, cmd, _| (!matches!((netfn, cmd), (0x00, 0x01) | (0x06, 0x3b))).then(|| vec![code]));
        let mut driver = driver(bmc.port, admin(), quick()).await;
        let seen = look(&mut driver, Depth::Everything).await.unwrap();
        assert_eq!((seen.power, seen.boot), (Power::Off, None), "{code:02x}h");
        assert_eq!(seen.shown.guid, guid(0x11).guid, "who it is, the handshake tells");
        // What was told once is not forgotten where it is not told again; the boot device may be another one by now.
        bmc.interrupt(|_, _, _| None);
        let told = look(&mut driver, Depth::Everything).await.unwrap();
        assert!(told.boot.is_some() && told.identity.manufacturer_id == 0x1291);
        bmc.interrupt(move |netfn, cmd, _| (!matches!((netfn, cmd), (0x00, 0x01) | (0x06, 0x3b))).then(|| vec![code]));
        let seen = look(&mut driver, Depth::Everything).await.unwrap();
        assert_eq!((seen.identity, seen.boot), (told.identity, None));
    }
}
