//! What is too little to act on: one answer Off of an adopted body, an approval of something else, a body that another binding has still to release.
//!
//! Leaves out: consent as such (`approvals`), and moves (`moves`).

use embody::testing::model::Reason;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::Found;
use embody::testing::model::fact::{Power, Tick};
use embody::testing::model::op::Op;
use embody::testing::plan::approval::Listed;
use embody::testing::plan::record::Record;

use crate::rack::{Luck, Rack, name, vlan};

/// One answer Off may be a BMC's that restarts: a body that a person declared to run the persona keeps its ports until it is seen off.
#[test]
fn one_answer_off_moves_no_port_of_an_adopted_body() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.press(&name("a"), Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Good);
    let snapshot = rack.want(&name("a")).holder.clone().unwrap().snapshot;
    rack.store(&name("a"), &Record::Adopt(Box::new(snapshot)));
    rack.ops.clear();
    rack.press(&name("a"), Power::Off);
    rack.observe(&name("a"));
    for _ in 0..4 {
        rack.reconcile(&name("a"), &mut || Luck::Good);
    }
    assert!(rack.ops.is_empty(), "{:?}", rack.ops);
    rack.calm(20);
    assert_eq!(rack.runs("a"), Some("p"), "seen off, it is started");
}

/// What runs by the word of a store that went backwards is not ended for a start that would wait for a word; an approval of something else is none.
#[test]
fn what_needs_a_word_to_start_is_not_ended_before_it() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    rack.ops.clear();
    rack.seen.get_mut("a").unwrap().body.confirm_start = true;
    rack.edit("x", |spec| spec.restart += 1);
    let done = |op: Op| Listed { op, reached: true, done: true };
    let mut other = rack.approval("x", Vec::new()).unwrap();
    other.ops = vec![done(Op::CreateVlan { switch: name("sw"), vlan: vlan(7) })];
    for approval in [None, Some(other)] {
        approval.into_iter().for_each(|approval| rack.consent("x", &approval));
        let (_, plans) = rack.calm(10);
        assert!(rack.ops.is_empty() && rack.runs("a") == Some("p"), "{:?}", rack.ops);
        assert!(plans[&name("a")].waits.iter().any(|w| w.reason == Reason::ApprovalNeeded), "{plans:?}");
    }
    rack.approve("x");
    rack.calm(30);
    assert_eq!((rack.runs("a"), rack.body("a").restart_done), (Some("p"), 1), "{:?}", rack.ops);
}

/// Nor does such an approval say that it may start again, once it asks what to boot; one that is given then does.
#[test]
fn an_approval_of_something_else_confirms_no_start() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    let seen = rack.seen.get_mut("a").unwrap();
    seen.body.confirm_start = true;
    seen.memory.was_parked(false, Tick(0));
    let mut other = rack.approval("x", Vec::new()).unwrap();
    other.ops = vec![Listed { op: Op::CreateVlan { switch: name("sw"), vlan: vlan(7) }, reached: true, done: true }];
    rack.consent("x", &other);
    let plan = rack.plan(&name("a"));
    assert!(!plan.records.contains(&Record::Confirm) && plan.waits.iter().any(|w| w.reason == Reason::ApprovalNeeded), "{plan:?}");
    rack.approve("x");
    assert!(rack.plan(&name("a")).records.contains(&Record::Confirm));
}

/// A binding that moved on leaves a body alone that another one has still to release.
#[test]
fn who_moved_on_lets_go_of_what_another_one_has_still_to_release() {
    let mut rack = Rack::new(&["a", "b", "c"], &["p", "q"], 2);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.bind("y", "q", "b", RunState::Running, Mode::Enforce);
    rack.calm(20);
    let [x, y] = ["a", "b"].map(|server| rack.body(server).held_by.clone().unwrap());
    rack.edit("x", |spec| spec.target.server = Some(name("c")));
    rack.store(&name("a"), &Record::Release(x));
    rack.edit("y", |spec| spec.target.server = Some(name("a")));
    rack.store(&name("a"), &Record::Take { hold: y, found: Found::Unknown });
    rack.edit("y", |spec| spec.target.server = Some(name("b")));
    assert!(rack.plan(&name("a")).records.contains(&Record::Leave), "{:?}", rack.body("a"));
}
