//! A switching-off knows what was delivered: the table of `plan::off`, and one small world for each way in which a soft-off can end.
//!
//! Leaves out: why a body must be off (`guards`, `every_world`).

use std::time::Duration;

use embody::testing::limits::{HARD_OFF_TRIES, HARD_OFF_WAIT, SOFT_OFF_TRIES, SOFT_OFF_UNKNOWN};
use embody::testing::model::Reason;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::{OffIntent, Sending, Sent};
use embody::testing::model::fact::{Power, Tick};
use embody::testing::model::op::{Off, Op};
use embody::testing::plan::observed::{Memory, Trouble};
use embody::testing::plan::off::{Grace, HardWithoutSoft, Next, Terms, next};

use crate::rack::{GRACE, Luck, Rack, name};

/// p runs on a, and x is to be stopped.
fn to_be_stopped() -> Rack {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    assert_eq!(rack.runs("a"), Some("p"));
    rack.edit("x", |spec| spec.state = RunState::Stopped);
    rack.ops.clear();
    rack
}

/// What is sent in a pass after this time.
fn after(rack: &mut Rack, time: Duration, luck: Luck) -> Vec<Off> {
    rack.pass(time);
    rack.observe(&name("a"));
    let before = rack.ops.len();
    rack.reconcile(&name("a"), &mut || luck);
    let how = |op: &Op| if let Op::PowerOff { how, .. } = op { Some(*how) } else { None };
    rack.ops[before..].iter().filter_map(|(_, op)| how(op)).collect()
}

fn soft(rack: &Rack) -> (u32, Sent) {
    let soft = rack.body("a").off.clone().unwrap().soft;
    (soft.tries, soft.last)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_soft_off_is_stored_before_it_is_sent_and_counts_as_unknown() {
    let mut rack = to_be_stopped();
    assert_eq!(after(&mut rack, SECOND, Luck::Lost), [Off::Soft]);
    assert_eq!(soft(&rack), (1, Sent::Unknown));
    // Another process, right after: nothing is sent before that one has had its time, counted from this start.
    rack.restart_process();
    assert_eq!(after(&mut rack, SECOND, Luck::Lost), []);
    assert_eq!(rack.plan(&name("a")).wake_at, Some(Tick::START.plus(SOFT_OFF_UNKNOWN)));
    assert_eq!(after(&mut rack, SOFT_OFF_UNKNOWN, Luck::Good), [Off::Soft]);
}

#[test]
fn a_lost_soft_off_is_sent_three_times_and_never_hard() {
    let mut rack = to_be_stopped();
    for n in 1..=SOFT_OFF_TRIES {
        assert_eq!(after(&mut rack, SOFT_OFF_UNKNOWN + SECOND, Luck::Lost), [Off::Soft]);
        assert_eq!(after(&mut rack, SOFT_OFF_UNKNOWN - SECOND * 2, Luck::Lost), []);
        assert_eq!(soft(&rack), (n, Sent::Unknown));
    }
    for _ in 0..20 {
        assert_eq!(after(&mut rack, HARD_OFF_WAIT, Luck::Lost), []);
    }
    let problem = rack.plan(&name("a")).problems[0].clone();
    assert_eq!(problem.reason, Reason::DoesNotSwitchOff);
    assert!(problem.message.contains("`embody approve x --hard`"), "{}", problem.message);
    rack.approve_hard("x");
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Hard]);
    assert_eq!(rack.truth["a"].power, Power::Off);
}

/// A person switches it on again before it was seen off for certain: what runs now was told nothing, and had no grace.
#[test]
fn what_was_started_after_a_soft_off_is_told_anew() {
    let mut rack = to_be_stopped();
    let a = name("a");
    rack.truth.get_mut("a").unwrap().deaf = true;
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
    assert_eq!(soft(&rack).1, Sent::Accepted);
    rack.press(&a, Power::Off);
    assert_eq!(after(&mut rack, SECOND, Luck::Good), []);
    rack.press(&a, Power::On);
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
    assert_eq!(after(&mut rack, GRACE - SECOND * 2, Luck::Good), [], "its own grace");
    assert_eq!(after(&mut rack, SECOND * 4, Luck::Good), [Off::Hard]);
}

#[test]
fn a_soft_off_that_did_not_leave_is_taken_back() {
    let mut rack = to_be_stopped();
    for _ in 0..10 {
        assert_eq!(after(&mut rack, SECOND, Luck::NotSent), [Off::Soft]);
        assert_eq!(soft(&rack), (0, Sent::Nothing));
    }
    assert_eq!(after(&mut rack, SECOND, Luck::Lost), [Off::Soft]);
    // One that did not leave after one of which nothing is known: the first is still unknown.
    assert_eq!(after(&mut rack, SOFT_OFF_UNKNOWN, Luck::NotSent), [Off::Soft]);
    assert_eq!(soft(&rack), (1, Sent::Unknown));
}

#[test]
fn a_refused_soft_off_is_not_sent_again_and_its_code_is_said() {
    let mut rack = to_be_stopped();
    assert_eq!(after(&mut rack, SECOND, Luck::Refused), [Off::Soft]);
    for _ in 0..5 {
        assert_eq!(after(&mut rack, HARD_OFF_WAIT, Luck::Good), []);
    }
    let problem = rack.plan(&name("a")).problems[0].clone();
    assert_eq!(problem.reason, Reason::SoftOffRefused);
    assert!(problem.message.contains("D5h"), "{}", problem.message);
    // The Policy may say so for all.
    rack.hard_off_without_soft = true;
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Hard]);
}

#[test]
fn an_accepted_soft_off_has_its_whole_grace_and_is_sent_once() {
    let mut rack = to_be_stopped();
    rack.truth.get_mut("a").unwrap().deaf = true;
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
    assert_eq!(after(&mut rack, GRACE / 2, Luck::Good), []);
    // A new process counts it anew.
    rack.restart_process();
    assert_eq!(after(&mut rack, Duration::ZERO, Luck::Good), []);
    assert_eq!(after(&mut rack, GRACE - SECOND, Luck::Good), []);
    assert_eq!(after(&mut rack, SECOND * 2, Luck::Good), [Off::Hard]);
    assert_eq!(soft(&rack), (1, Sent::Accepted));
}

#[test]
fn a_pause_within_the_grace_stops_its_clock() {
    let mut rack = to_be_stopped();
    rack.truth.get_mut("a").unwrap().deaf = true;
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
    assert_eq!(after(&mut rack, GRACE / 2, Luck::Good), []);
    let trouble = Trouble { reason: Reason::Paused, message: "paused by ann: the database is flushing".into() };
    rack.seen.get_mut("a").unwrap().stopped.insert(name("x"), trouble);
    assert_eq!(after(&mut rack, Duration::ZERO, Luck::Good), []);
    for _ in 0..5 {
        assert_eq!(after(&mut rack, HARD_OFF_WAIT, Luck::Good), []);
    }
    rack.seen.get_mut("a").unwrap().stopped.clear();
    assert_eq!(after(&mut rack, Duration::ZERO, Luck::Good), []);
    assert_eq!(after(&mut rack, GRACE / 4, Luck::Good), []);
    assert_eq!(after(&mut rack, GRACE / 2, Luck::Good), [Off::Hard]);
}

#[test]
fn a_stop_that_is_taken_back_before_acceptance_sends_nothing_more_and_the_answer_stands_again() {
    for luck in [Luck::Lost, Luck::NotSent, Luck::Refused] {
        let mut rack = to_be_stopped();
        assert_eq!(after(&mut rack, SECOND, luck), [Off::Soft]);
        assert!(rack.body("a").standing().is_none());
        rack.edit("x", |spec| spec.state = RunState::Running);
        rack.ops.clear();
        let (_, plans) = rack.calm(12);
        assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
        assert!(rack.ops.is_empty() && rack.body("a").standing().is_some(), "{luck:?}: {:?}", rack.ops);
        assert_eq!(rack.runs("a"), Some("p"));
    }
}

#[test]
fn a_stop_that_is_taken_back_after_acceptance_waits_and_is_never_hard() {
    for deaf in [true, false] {
        let mut rack = to_be_stopped();
        rack.truth.get_mut("a").unwrap().deaf = deaf;
        assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
        rack.edit("x", |spec| spec.state = RunState::Running);
        rack.ops.clear();
        let (_, plans) = rack.calm(20);
        assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
        assert!(!rack.ops.iter().any(|(_, op)| matches!(op, Op::PowerOff { .. })), "{:?}", rack.ops);
        assert_eq!(rack.runs("a"), Some("p"));
    }
}

#[test]
fn a_stop_that_is_taken_back_and_said_again_is_the_one_that_was_accepted() {
    let mut rack = to_be_stopped();
    rack.truth.get_mut("a").unwrap().deaf = true;
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
    rack.edit("x", |spec| spec.state = RunState::Running);
    assert_eq!(after(&mut rack, SECOND, Luck::Good), []);
    rack.edit("x", |spec| spec.state = RunState::Stopped);
    assert_eq!(after(&mut rack, SECOND, Luck::Good), []);
    assert_eq!(after(&mut rack, GRACE, Luck::Good), [Off::Hard]);
    assert_eq!(soft(&rack), (1, Sent::Accepted));
}

#[test]
fn a_server_that_obeys_nothing_is_left_after_three_hard_offs() {
    let mut rack = to_be_stopped();
    rack.truth.get_mut("a").unwrap().deaf = true;
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
    let mut hard = 0;
    for _ in 0..10 {
        hard += after(&mut rack, HARD_OFF_WAIT + SECOND, Luck::Lost).len();
    }
    assert_eq!(hard, HARD_OFF_TRIES as usize);
    assert_eq!(rack.plan(&name("a")).problems[0].reason, Reason::DoesNotSwitchOff);
}

#[test]
fn a_word_for_a_hard_off_is_for_the_desired_state_that_was_shown() {
    let mut rack = to_be_stopped();
    rack.approve_hard("x");
    rack.edit("x", |spec| spec.restart += 1);
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft]);
}

#[test]
fn a_word_for_a_hard_off_is_for_one_switching_off() {
    let mut rack = to_be_stopped();
    rack.approve_hard("x");
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Hard]);
    rack.calm(12);
    rack.press(&name("a"), Power::On);
    assert_eq!(after(&mut rack, SECOND, Luck::Good), [Off::Soft], "what runs now was told nothing");
}

// ---- the table -----------------------------------------------------------------------------------------------------------

/// Every moment that makes a difference: it was sent at 1,000 s, and the grace is a minute.
const SENT_AT: u64 = 1_000;
const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Tick {
    Tick(seconds * 1_000_000)
}

fn sendings(most: u32) -> Vec<Sending> {
    let mut out = vec![Sending::default()];
    for tries in 1..=most {
        for last in [Sent::Unknown, Sent::Accepted, Sent::Refused("D5h".into())] {
            out.push(Sending { tries, last });
        }
    }
    out
}

/// What is right, in the words of invariant 9; `read_on`: seconds from the sending to the last question that was answered On.
fn right(soft: &Sending, hard: &Sending, grace: Duration, word: HardWithoutSoft, read_on: u64) -> Option<Off> {
    let hard_again = match &hard.last {
        Sent::Nothing => Some(Off::Hard),
        Sent::Refused(_) => None,
        Sent::Unknown | Sent::Accepted => (read_on > 60 && hard.tries < HARD_OFF_TRIES).then_some(Off::Hard),
    };
    let asked_gently = soft.last == Sent::Accepted && Duration::from_secs(read_on) > grace;
    if hard.tries > 0 && !asked_gently && !grace.is_zero() && word == HardWithoutSoft::No {
        return None;
    }
    if hard.tries > 0 || grace.is_zero() || word == HardWithoutSoft::Now {
        return hard_again;
    }
    let by_policy = (word == HardWithoutSoft::WhereSoftFails).then_some(Off::Hard);
    match &soft.last {
        Sent::Nothing => Some(Off::Soft),
        Sent::Accepted => (Duration::from_secs(read_on) > grace).then_some(Off::Hard),
        Sent::Refused(_) => by_policy,
        Sent::Unknown if read_on <= 30 => None,
        Sent::Unknown if soft.tries < SOFT_OFF_TRIES => Some(Off::Soft),
        Sent::Unknown => by_policy,
    }
}

#[test]
fn every_row_of_the_table_of_a_switching_off() {
    let (mut rows, mut sent) = (0, 0);
    let words = [HardWithoutSoft::No, HardWithoutSoft::WhereSoftFails, HardWithoutSoft::Now];
    for (soft, hard) in sendings(3).iter().flat_map(|s| sendings(3).into_iter().map(move |h| (s.clone(), h))) {
        for (grace, word) in [Duration::ZERO, MINUTE].into_iter().flat_map(|g| words.map(|w| (g, w))) {
            for read_on in [0, 29, 30, 31, 59, 60, 61, 600] {
                let intent = OffIntent { because: String::new(), soft: soft.clone(), hard: hard.clone() };
                let mut memory = Memory::default();
                (memory.soft_at, memory.hard_at, memory.grace) = (at(SENT_AT), at(SENT_AT), Grace::begin(at(SENT_AT)));
                let terms = Terms { grace, hard_without_soft: word, on_asked_at: at(SENT_AT + read_on), now: at(SENT_AT + read_on + 1) };
                let found = next(Some(&intent), &memory, &terms);
                let how = if let Next::Send(how) = &found { Some(*how) } else { None };
                assert_eq!(how, right(&soft, &hard, grace, word, read_on), "{soft:?} {hard:?} {grace:?} {word:?} {read_on}: {found:?}");
                // Whatever waits, waits for a moment that is still to come, or for a question after it.
                if let Next::Until(until, _) = &found {
                    assert!(*until >= terms.on_asked_at, "{found:?} at {terms:?}");
                }
                (rows, sent) = (rows + 1, sent + usize::from(how.is_some()));
            }
        }
    }
    assert!(rows == 4_800 && sent > 800, "{rows} rows, {sent} of them send");
}
