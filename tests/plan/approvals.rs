//! What an approval covers: what it lists, from where it was shown, once; and the hold of exactly that.

use embody::testing::limits;
use embody::testing::model::Reason;
use embody::testing::model::binding::{Correct, Mode, RunState};
use embody::testing::model::fact::{BootDevice, Power};
use embody::testing::model::op::{Off, Op};
use embody::testing::plan::approval::{Approval, Listed};
use embody::testing::plan::observed::Trouble;

use crate::guards::p_on_a;
use crate::rack::{Luck, QUARANTINE, Rack, access, name, port_of};

fn off(server: &str) -> Op {
    Op::PowerOff { server: name(server), how: Off::Soft }
}

fn port(server: &str, from: i64, to: i64) -> Op {
    let (switch, port) = port_of(server);
    Op::SetPort { switch, port, from: access(from), to: access(to) }
}

fn listed(ops: Vec<Op>) -> Approval {
    let ops = ops.into_iter().map(Listed::new).collect();
    Approval { uid: String::new(), generation: 1, answer: String::new(), made_from: String::new(), ops, hard: false, begun: false }
}

/// Running, with a restart that waits for a person.
fn restart_waits() -> Rack {
    let mut rack = p_on_a();
    rack.edit("x", |spec| (spec.restart, spec.correct) = (1, Some(Correct::All(Mode::Approve))));
    rack.calm(12);
    rack
}

#[test]
fn a_port_is_written_from_where_it_was_shown_or_from_where_the_list_leads() {
    let approval = listed(vec![port("a", 1, QUARANTINE), port("a", QUARANTINE, 110)]);
    for (from, to, covered) in
        [(1, QUARANTINE, true), (QUARANTINE, 110, true), (120, QUARANTINE, false), (1, 110, false), (120, 110, false)]
    {
        assert_eq!(approval.covers(&port("a", from, to)), covered, "{from} → {to}");
    }
    assert!(!approval.covers(&port("b", 1, QUARANTINE)), "another port");
    let later = listed(vec![port("a", QUARANTINE, 110), port("a", 110, QUARANTINE)]);
    assert!(!later.covers(&port("a", 1, 110)), "no operation that is listed before it leads there");
}

#[test]
fn the_boot_device_is_set_as_often_as_the_start_takes() {
    let boot = || Op::SetBoot { server: name("a"), device: BootDevice::Pxe, efi: true };
    let mut approval = listed(vec![off("a"), boot(), Op::PowerOn { server: name("a") }]);
    assert!(!approval.is_done(&boot()) && approval.covers(&boot()), "a process that begins anew sets it again");
    let mut alone = listed(vec![boot()]);
    assert!(alone.is_done(&boot()) && !alone.covers(&boot()));
}

#[test]
fn a_start_is_done_once_it_is_seen_after_the_body_was_off() {
    let mut rack = restart_waits();
    rack.approve("x");
    let shown = |rack: &Rack| rack.seen["a"].approvals["x"].ops.iter().map(|l| (l.reached, l.done)).collect::<Vec<_>>();
    // Off, boot device, on; it runs, and that is not the start that was shown.
    assert_eq!(shown(&rack), [(true, false), (false, false), (false, false)]);
    let (_, plans) = rack.calm(12);
    assert!(plans[&name("a")].is_converged(), "{plans:?}");
    assert_eq!(shown(&rack), [(true, true), (false, true), (true, true)]);
    rack.press(&name("a"), Power::Off);
    let (_, plans) = rack.calm(12);
    assert!(plans[&name("a")].waits.iter().any(|w| w.reason == Reason::ApprovalNeeded), "{plans:?}");
    assert_eq!(rack.runs("a"), None, "one start was shown");
}

#[test]
fn one_off_of_a_bmc_that_restarts_is_not_the_end_of_a_switching_off() {
    let mut rack = restart_waits();
    rack.approve("x");
    rack.reconcile(&name("a"), &mut || Luck::Lost);
    let before = rack.seen["a"].clone();
    let mut blink = before.clone();
    let off = embody::testing::model::fact::Seen { value: Power::Off, asked_at: rack.now };
    blink.memory.saw_power(&off);
    blink.power = Some(off);
    let mut approval = before.approvals["x"].clone();
    assert!(!approval.sees(&name("a"), &blink) && approval.covers(&self::off("a")));
    let again = embody::testing::model::fact::Seen { value: Power::Off, asked_at: rack.now.plus(limits::SEEN_OFF_APART) };
    blink.memory.saw_power(&again);
    blink.power = Some(again);
    assert!(approval.sees(&name("a"), &blink) && !approval.covers(&self::off("a")));
}

#[test]
fn an_approval_lifts_the_hold_of_what_it_lists_and_no_other_stop() {
    for (reason, goes) in [(Reason::Held, true), (Reason::BreakerOpen, false), (Reason::Paused, false), (Reason::Contended, false)] {
        let mut rack = p_on_a();
        rack.edit("x", |spec| spec.state = RunState::Stopped);
        let trouble = Trouble { reason, message: "stopped".to_owned() };
        rack.seen.values_mut().for_each(|seen| drop(seen.stopped.insert(name("x"), trouble.clone())));
        rack.calm(12);
        assert_eq!(rack.runs("a"), Some("p"), "{reason}");
        let other = rack.approval("x", vec![off("b")]).unwrap();
        rack.consent("x", &other);
        rack.calm(12);
        assert_eq!(rack.runs("a"), Some("p"), "{reason}: of another server");
        rack.approve("x");
        rack.calm(12);
        assert_eq!(rack.runs("a").is_none(), goes, "{reason}");
    }
}
