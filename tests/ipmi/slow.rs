//! BMCs that take seconds for an answer, that answer nothing at all to a suite that they do not have, and a line that flips a bit.

use std::time::Duration;

use embody::testing::carry_out;
use embody::testing::drivers::bmc::ipmi::IpmiSettings;
use embody::testing::drivers::bmc::ipmi::crypto::Suite;
use embody::testing::drivers::{Depth, Driver, Fault};
use embody::testing::model::fact::{BootDevice, Power};
use embody::testing::sim::bmc::BmcConfig;
use embody::testing::sim::rmcp::{Line, Received};

use crate::lab::*;

fn late(seconds: f32) -> Line {
    Line { late: 1.0, late_by: Duration::from_secs_f32(seconds), ..Line::default() }
}

/// An answer to the running handshake counts, however late; and what it took is known from then on.
#[tokio::test(start_paused = true)]
async fn a_slow_bmc_is_seen_and_switched() {
    let _clockwork = clockwork();
    for (seconds, looks) in [(0.7, 1), (2.5, 1), (3.5, 2), (5.0, 2)] {
        let bmc = Served::new(fast(), late(seconds)).await;
        let mut driver = driver(bmc.port, admin(), quick()).await;
        let mut seen = look(&mut driver, Depth::Power).await;
        for _ in 1..looks {
            seen = look(&mut driver, Depth::Power).await;
        }
        assert!(matches!(&seen, Ok(seen) if seen.power == Power::Off), "{seconds} s: {seen:?} {:?}", bmc.received());
        assert_eq!(bmc.sessions(), 1, "{seconds} s: it goes on in the session that it has");
        let before = bmc.received().len();
        assert!(look(&mut driver, Depth::Power).await.is_ok(), "{seconds} s");
        assert_eq!(bmc.received().len() - before, 1, "{seconds} s: it is asked once, and waited for");
        if seconds < 3.0 {
            carry_out(&mut driver, &[set_boot(BootDevice::Pxe)], soon()).await.unwrap();
            carry_out(&mut driver, &[power_on()], soon()).await.unwrap();
            assert_eq!(bmc.power(), Power::On, "{seconds} s");
        }
    }
}

/// Some boards answer nothing to a suite that they do not have.
#[tokio::test(start_paused = true)]
async fn a_suite_that_is_not_answered_is_followed_by_the_next_once() {
    let _clockwork = clockwork();
    let silent_at_17 = |bmc: &Served| bmc.odd(|odd| odd.unanswered = Some(Suite::Seventeen));
    let bmc = Served::new(fast(), Line::default()).await;
    silent_at_17(&bmc);
    assert_eq!(look(&mut driver(bmc.port, admin(), quick()).await, Depth::Power).await.unwrap().suite, 3);
    let bmc = Served::new(fast(), Line::default()).await;
    let mut one = driver(bmc.port, admin(), quick()).await;
    assert_eq!(look(&mut one, Depth::Power).await.unwrap().suite, 17);
    one.close().await;
    silent_at_17(&bmc);
    assert!(matches!(look(&mut one, Depth::Power).await, Err(Fault::Silent { .. })), "17 worked before: nothing weaker");
    for (suites, expected) in
        [(vec![Suite::Three], Some(3)), (vec![Suite::Seventeen], None), (vec![Suite::Three, Suite::Seventeen], Some(3))]
    {
        let bmc = Served::new(fast(), Line::default()).await;
        silent_at_17(&bmc);
        let settings = IpmiSettings { suites: suites.clone(), ..quick() };
        let seen = look(&mut driver(bmc.port, admin(), settings).await, Depth::Power).await;
        assert_eq!(seen.map(|seen| seen.suite).ok(), expected, "{suites:?}");
    }
    let bmc = Served::new(BmcConfig { suites: vec![3], ..fast() }, Line::default()).await;
    let refused =
        look(&mut driver(bmc.port, admin(), IpmiSettings { suites: vec![Suite::Seventeen], ..quick() }).await, Depth::Power).await;
    assert!(matches!(&refused, Err(Fault::Unsupported { why, .. }) if why.contains("cipher suites 17,")), "{refused:?}");
}

/// A wrong password is one that does not verify twice.
#[tokio::test(start_paused = true)]
async fn one_flipped_bit_is_no_wrong_password() {
    let _clockwork = clockwork();
    for (flipped, expected) in [(1, true), (2, false)] {
        let bmc = Served::new(fast(), Line::default()).await;
        bmc.odd(|odd| odd.flipped = flipped);
        let seen = look(&mut driver(bmc.port, admin(), quick()).await, Depth::Power).await;
        assert_eq!(seen.is_ok(), expected, "{seen:?}");
        assert!(expected || matches!(seen, Err(Fault::Denied { .. })), "{seen:?}");
        let opens = bmc.received().iter().filter(|r| matches!(r, Received::Handshake(0x10))).count();
        assert_eq!(opens, 2);
    }
}
