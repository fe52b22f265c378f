//! What leaves for a BMC, and what does not: the gate, who is meant, the power directly before, and what became of a command.
//!
//! Each looks at what the BMC got, on a real socket. Leaves out how the driver opens and paces (`manners`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use embody::testing::clock::BootClock;
use embody::testing::drivers::gate::Key;
use embody::testing::drivers::{Delivery, Depth, Fault};
use embody::testing::model::fact::{BootDevice, Power};
use embody::testing::model::identity::Identity;
use embody::testing::model::op::{Off, Op};
use embody::testing::sim::bmc::{BmcConfig, Control};
use embody::testing::sim::rmcp::{Line, Received};
use embody::testing::{carry_out, carry_out_on};

use super::lab::*;

const STATUS: (u8, u8) = (0x00, 0x01);
const CONTROL: (u8, u8) = (0x00, 0x02);
const SET_BOOT: (u8, u8) = (0x00, 0x08);
const PRIVILEGE: (u8, u8) = (0x06, 0x3b);
const DEVICE_ID: (u8, u8) = (0x06, 0x01);

fn running() -> BmcConfig {
    BmcConfig { power: Power::On, ..fast() }
}

/// Waits for nothing but what is asked for.
async fn impatient(bmc: &Served) -> embody::testing::drivers::bmc::ipmi::IpmiDriver {
    let settings = embody::testing::drivers::bmc::ipmi::IpmiSettings { retry_after: Duration::from_millis(100), ..quick() };
    driver(bmc.port, admin(), settings).await
}

fn not_sent(result: Result<embody::testing::drivers::Notes, Fault>, words: &str) {
    match result {
        Err(fault @ Fault::NotSent { .. }) => {
            assert!(fault.to_string().contains(words), "{fault}");
            assert_eq!(fault.delivery(), Delivery::NotSent);
        }
        other => panic!("{other:?}"),
    }
}

/// Each operation, and a BMC that is as it expects.
fn ops() -> Vec<(Op, BmcConfig)> {
    vec![(power_on(), fast()), (power_off(Off::Soft), running()), (power_off(Off::Hard), running()), (set_boot(BootDevice::Pxe), fast())]
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_not_even_asked_for() {
    let _clockwork = clockwork();
    for (op, config) in ops() {
        let bmc = Served::new(config, Line::default()).await;
        let mut driver = impatient(&bmc).await;
        let controller = Controller::meaning(guid(0x11));
        let permit = controller.permit(&op);
        controller.gate.void(&Key::of(&op));
        let refused = embody::testing::drivers::Driver::execute(&mut driver, &op, &permit, soon()).await;
        not_sent(refused, "taken back");
        controller.lease.end();
        not_sent(controller.execute(&mut driver, op).await, "lease is over");
        assert_eq!(bmc.endpoint.lock().unwrap().heard(), 0, "no handshake for what would not be sent");
    }
}

/// The word comes when the BMC answers the status: after the driver's last look at the gate but that at the wire.
#[tokio::test(start_paused = true)]
async fn a_word_between_the_status_and_the_command_stops_the_command() {
    let _clockwork = clockwork();
    for (op, config) in ops() {
        for by_lease in [false, true] {
            let bmc = Served::new(config.clone(), Line::default()).await;
            let mut driver = impatient(&bmc).await;
            let controller = Controller::meaning(guid(0x11));
            let (lease, gate, key) = (controller.lease.clone(), controller.gate.clone(), Key::of(&op));
            bmc.interrupt(move |netfn, cmd, _| {
                if (netfn, cmd) == STATUS && by_lease {
                    lease.end();
                } else if (netfn, cmd) == STATUS {
                    gate.void(&key);
                }
                None
            });
            let stopped = controller.execute(&mut driver, op.clone()).await;
            not_sent(stopped, if by_lease { "lease is over" } else { "taken back" });
            let commands = bmc.commands();
            assert!(commands.contains(&STATUS) && !commands.contains(&CONTROL) && !commands.contains(&SET_BOOT), "{op}: {commands:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_stands_between_the_status_and_the_command() {
    let _clockwork = clockwork();
    let bmc = Served::new(fast(), Line::default()).await;
    let mut driver = impatient(&bmc).await;
    let controller = Controller::meaning(guid(0x11));
    for op in [power_on(), power_off(Off::Soft), power_on(), power_off(Off::Hard)] {
        controller.execute(&mut driver, op).await.unwrap();
    }
    let commands = bmc.commands();
    assert_eq!(commands, [&[PRIVILEGE][..], &[STATUS, CONTROL].repeat(4)].concat());
    assert_eq!(bmc.controls(), [Control::On, Control::Soft, Control::On, Control::Off]);
}

#[tokio::test(start_paused = true)]
async fn what_is_so_already_is_not_sent() {
    let _clockwork = clockwork();
    for (op, config) in [(power_on(), running()), (power_off(Off::Soft), fast()), (power_off(Off::Hard), fast())] {
        let bmc = Served::new(config, Line::default()).await;
        let is_on = op == power_on();
        let result = Controller::meaning(guid(0x11)).execute(&mut impatient(&bmc).await, op).await;
        match is_on {
            true => assert!(result.unwrap().iter().any(|note| note.contains("was not sent"))),
            // Not as an accepted one: a hard one would follow.
            false => not_sent(result, "it is Off already"),
        }
        assert_eq!(bmc.controls(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_took_too_long_opens_nothing() {
    let _clockwork = clockwork_in_steps(Duration::from_millis(100));
    let seconds = Duration::from_secs;
    for (takes, stale) in [(1, false), (3, false), (11, true)] {
        let line = Line { late: 1.0, late_by: seconds(takes), ..Line::default() };
        let bmc = Served::new(running(), line).await;
        let settings = embody::testing::drivers::bmc::ipmi::IpmiSettings { retry_after: seconds(30), ..quick() };
        let mut driver = driver(bmc.port, admin(), settings).await;
        let controller = Controller::with_clock(guid(0x11), BootClock::virtual_from_now());
        let op = power_off(Off::Soft);
        let mut permit = controller.gate.permit(Key::of(&op), controller.pinned.clone());
        permit.begin(seconds(600));
        let deadline = tokio::time::Instant::now() + seconds(600);
        let result = embody::testing::drivers::Driver::execute(&mut driver, &op, &permit, deadline).await;
        match stale {
            true => not_sent(result, "may be at most 10.0 s old"),
            false => drop(result.unwrap()),
        }
        assert_eq!(bmc.controls().len(), usize::from(!stale), "an answer after {takes} s");
    }
}

// ---- who is meant -----------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn another_bmc_at_the_address_gets_nothing() {
    let _clockwork = clockwork();
    for (op, config) in ops() {
        let bmc = Served::new(config, Line::default()).await;
        let mut driver = impatient(&bmc).await;
        let pinned = look(&mut driver, Depth::Everything).await.unwrap().shown;
        assert_eq!(pinned.guid, guid(0x11).guid);
        bmc.swap([0x22; 16]);
        let before = bmc.commands().len();
        let controller = Controller::meaning(Identity::default().extended(&pinned));
        match controller.execute(&mut driver, op.clone()).await {
            Err(Fault::OtherDevice { expected, found, .. }) => assert!(expected.contains("1111") && found.contains("2222")),
            other => panic!("{op}: {other:?}"),
        }
        assert!(bmc.commands()[before..].iter().all(|c| *c != CONTROL && *c != SET_BOOT && *c != PRIVILEGE));
        assert_eq!(look(&mut driver, Depth::State).await.unwrap().shown.guid, guid(0x22).guid, "an observation says who told it");
    }
}

/// Which bytes mean a disk depends on the board: of one that is not known yet that is asked between the look at who it is and the deed.
#[tokio::test(start_paused = true)]
async fn a_bmc_that_is_exchanged_while_its_board_is_asked_for_gets_nothing() {
    let _clockwork = clockwork();
    let bmc = Served::new(fast(), Line::default()).await;
    let mut driver = impatient(&bmc).await;
    let lost = AtomicU32::new(0);
    bmc.interrupt(move |netfn, cmd, _| ((netfn, cmd) == DEVICE_ID && lost.fetch_add(1, Ordering::SeqCst) < 2).then(Vec::new));
    let exchange = async {
        while !bmc.commands().contains(&DEVICE_ID) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bmc.swap([0x22; 16]);
    };
    let controller = Controller::meaning(guid(0x11));
    let (set, ()) = tokio::join!(controller.execute(&mut driver, set_boot(BootDevice::Pxe)), exchange);
    assert!(matches!(set, Err(Fault::OtherDevice { .. })), "{set:?}");
    assert!(!bmc.commands().contains(&SET_BOOT), "{:?}", bmc.commands());
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_tell_who_it_is_is_known_by_its_address_alone() {
    let _clockwork = clockwork();
    for silent in [[0; 16], [0xff; 16]] {
        let bmc = Served::new(BmcConfig { guid: silent, ..running() }, Line::default()).await;
        let mut driver = impatient(&bmc).await;
        let shown = look(&mut driver, Depth::Everything).await.unwrap().shown;
        assert_eq!(shown.guid, None);
        not_sent(Controller::meaning(guid(0x11)).execute(&mut driver, power_off(Off::Hard)).await, "does not tell who it is");
        not_sent(Controller::meaning(Identity::default()).execute(&mut driver, power_off(Off::Hard)).await, "nothing is pinned");
        let by_address = Controller::meaning(Identity::default().extended(&shown));
        let elsewhere = Identity { address: Some("192.0.2.1".into()), ..Identity::default() };
        let other = Controller::meaning(elsewhere).execute(&mut driver, power_off(Off::Hard)).await;
        assert!(matches!(other, Err(Fault::OtherDevice { .. })), "{other:?}");
        assert_eq!(bmc.controls(), []);
        by_address.execute(&mut driver, power_off(Off::Hard)).await.unwrap();
        // A GUID where there was none is another board.
        bmc.swap([0x33; 16]);
        let appeared = by_address.execute(&mut driver, power_on()).await;
        assert!(matches!(appeared, Err(Fault::OtherDevice { .. })), "{appeared:?}");
        assert_eq!(bmc.controls(), [Control::Off]);
    }
}

#[tokio::test]
async fn ipmi_sim_is_switched_only_where_it_is_meant() {
    let Some(sim) = ipmi_sim().await else { return };
    let mut bmc = driver(sim.port, login("admin", "secret", None), quick()).await;
    let shown = look(&mut bmc, Depth::Everything).await.unwrap().shown;
    for op in [power_on(), set_boot(BootDevice::Pxe)] {
        let other = carry_out_on(&mut bmc, &guid(0x11), &[op], soon()).await;
        assert!(matches!(other, Err(Fault::OtherDevice { .. })), "{other:?}");
    }
    assert!(!sim.calls().contains("set "), "{}", sim.calls());
    carry_out_on(&mut bmc, &Identity::default().extended(&shown), &[power_on()], soon()).await.unwrap();
    until_power(&mut bmc, Power::On).await;
    // It is on: nothing is sent.
    carry_out(&mut bmc, &[power_on()], soon()).await.unwrap();
    assert_eq!(sim.calls().matches("set power 1\n").count(), 1, "{}", sim.calls());
}

// ---- what became of it ------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_code_says_whether_it_was_carried_out() {
    let _clockwork = clockwork();
    let bmc = Served::new(running(), Line::default()).await;
    let mut driver = impatient(&bmc).await;
    let controller = Controller::meaning(guid(0x11));
    for code in [0xc0, 0xc4, 0xd0, 0xd1, 0xd2, 0xc3, 0xce, 0xd5, 0xcc, 0xd4] {
        bmc.interrupt(move |netfn, cmd, _| ((netfn, cmd) == CONTROL).then(|| vec![code]));
        let fault = controller.execute(&mut driver, power_off(Off::Soft)).await.unwrap_err();
        let expected = match code {
            0xc0 | 0xc4 | 0xd0..=0xd2 => matches!(fault, Fault::Busy { .. }) && fault.delivery() == Delivery::NotSent,
            0xc3 | 0xce => matches!(fault, Fault::Unknown { .. }) && fault.delivery() == Delivery::Unknown,
            0xd4 => matches!(fault, Fault::Forbidden { .. }),
            _ => matches!(fault, Fault::Refused { .. }) && matches!(fault.delivery(), Delivery::Refused(_)),
        };
        assert!(expected, "{code:02x}h: {fault:?}");
        assert_eq!(look(&mut driver, Depth::State).await.unwrap().power, Power::On, "reading goes on after {code:02x}h");
    }
    // What is said of a question before the command is not said of the command.
    for (before, code) in [(STATUS, 0xd5), (STATUS, 0xff), (STATUS, 0xd4), (STATUS, 0xc0), (PRIVILEGE, 0xc0)] {
        driver = impatient(&bmc).await;
        bmc.interrupt(move |netfn, cmd, _| ((netfn, cmd) == before).then(|| vec![code]));
        let fault = controller.execute(&mut driver, power_off(Off::Soft)).await.unwrap_err();
        assert_eq!(fault.delivery(), Delivery::NotSent, "{code:02x}h: {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_privilege_that_is_refused_is_not_the_end_of_the_session() {
    let _clockwork = clockwork();
    for code in [0x80, 0x81, 0x82, 0xd4, 0xcc] {
        let bmc = Served::new(running(), Line::default()).await;
        let mut driver = impatient(&bmc).await;
        bmc.interrupt(move |netfn, cmd, _| ((netfn, cmd) == PRIVILEGE).then(|| vec![code]));
        let controller = Controller::meaning(guid(0x11));
        // The session stays at USER, which may not switch anything off.
        let fault = controller.execute(&mut driver, power_off(Off::Soft)).await.unwrap_err();
        let told =
            matches!(&fault, Fault::Forbidden { code: words, .. } if words.contains("D4h") && words.contains(&format!("{code:02X}h")));
        assert!(told, "{fault:?}");
        assert_eq!(look(&mut driver, Depth::Everything).await.unwrap().power, Power::On);
        // A board that lets the user do it all the same.
        bmc.interrupt(move |netfn, cmd, _| match (netfn, cmd) {
            PRIVILEGE => Some(vec![code]),
            CONTROL => Some(vec![0]),
            _ => None,
        });
        controller.execute(&mut driver, power_off(Off::Soft)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_switching_on_is_sent_again_only_where_the_power_is_still_off() {
    let _clockwork = clockwork();
    let controller = Controller::meaning(guid(0x11));
    // The first two copies are lost on their way.
    let bmc = Served::new(fast(), Line::default()).await;
    let lost = AtomicU32::new(0);
    bmc.interrupt(move |netfn, cmd, _| ((netfn, cmd) == CONTROL && lost.fetch_add(1, Ordering::SeqCst) < 2).then(Vec::new));
    controller.execute(&mut impatient(&bmc).await, power_on()).await.unwrap();
    assert_eq!(bmc.commands()[1..], [STATUS, CONTROL].repeat(3));
    assert_eq!(bmc.controls(), [Control::On]);
    // The replies are lost: what it did is seen, and not done again.
    let bmc = Served::new(fast(), Line::default()).await;
    bmc.odd(|odd| odd.mute = Some(CONTROL));
    controller.execute(&mut impatient(&bmc).await, power_on()).await.unwrap();
    assert_eq!(bmc.commands()[1..], [STATUS, CONTROL, STATUS]);
    // All are lost.
    let bmc = Served::new(fast(), Line::default()).await;
    bmc.interrupt(|netfn, cmd, _| ((netfn, cmd) == CONTROL).then(Vec::new));
    let unknown = controller.execute(&mut impatient(&bmc).await, power_on()).await;
    assert!(matches!(unknown, Err(Fault::Unknown { .. })), "{unknown:?}");
    assert_eq!(bmc.commands().iter().filter(|c| **c == CONTROL).count(), 3);
    // A no to a further copy does not say what became of the first one.
    let bmc = Served::new(fast(), Line::default()).await;
    let copies = AtomicU32::new(0);
    bmc.interrupt(move |netfn, cmd, _| {
        let first = (netfn, cmd) == CONTROL && copies.fetch_add(1, Ordering::SeqCst) == 0;
        ((netfn, cmd) == CONTROL).then(|| if first { Vec::new() } else { vec![0xd5] })
    });
    let unknown = controller.execute(&mut impatient(&bmc).await, power_on()).await;
    assert!(matches!(unknown, Err(Fault::Unknown { .. })), "{unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_the_gate_stops_after_another_went_out_is_unknown() {
    let _clockwork = clockwork();
    for (op, swallowed) in [(power_on(), CONTROL), (set_boot(BootDevice::Pxe), SET_BOOT)] {
        let bmc = Served::new(fast(), Line::default()).await;
        let controller = Controller::meaning(guid(0x11));
        let (gate, key) = (Arc::clone(&controller.gate), Key::of(&op));
        bmc.interrupt(move |netfn, cmd, _| {
            let mine = (netfn, cmd) == swallowed;
            if mine {
                gate.void(&key);
            }
            mine.then(Vec::new)
        });
        let unknown = controller.execute(&mut impatient(&bmc).await, op).await;
        assert!(matches!(&unknown, Err(f @ Fault::Unknown { .. }) if f.to_string().contains("taken back")), "{unknown:?}");
        assert_eq!(bmc.commands().iter().filter(|c| **c == swallowed).count(), 1);
    }
    // A step of several, stopped between two of them.
    let bmc = Served::new(fast(), Line::default()).await;
    let controller = Controller::meaning(guid(0x11));
    let gate = Arc::clone(&controller.gate);
    bmc.interrupt(move |netfn, cmd, data| {
        if (netfn, cmd) == SET_BOOT && data.first() == Some(&0x03) {
            gate.void_all();
        }
        None
    });
    let unknown = controller.execute(&mut impatient(&bmc).await, set_boot(BootDevice::Pxe)).await;
    assert!(matches!(unknown, Err(Fault::Unknown { .. })), "{unknown:?}");
    assert_eq!(bmc.commands().iter().filter(|c| **c == SET_BOOT).count(), 1);
}

/// The session dies when the first copy has left: no other session is opened for a second one.
#[tokio::test(start_paused = true)]
async fn a_command_is_not_taken_to_another_session() {
    let _clockwork = clockwork();
    for (op, config) in [(power_on(), fast()), (power_off(Off::Hard), running())] {
        let bmc = Served::new(config, Line::default()).await;
        let gone = AtomicU32::new(0);
        bmc.interrupt(move |netfn, cmd, _| {
            if (netfn, cmd) == CONTROL {
                gone.store(1, Ordering::SeqCst);
            }
            (gone.load(Ordering::SeqCst) == 1).then(Vec::new)
        });
        let mut driver = impatient(&bmc).await;
        let unknown = carry_out_on(&mut driver, &guid(0x11), &[op], tokio::time::Instant::now() + Duration::from_secs(3)).await;
        assert!(matches!(unknown, Err(Fault::Unknown { .. })), "{unknown:?}");
        let handshakes = bmc.received().iter().filter(|r| matches!(r, Received::Handshake(_))).count();
        assert_eq!(handshakes, 3, "one session");
        assert_eq!(bmc.commands().iter().filter(|c| **c == CONTROL).count(), 1);
    }
}
