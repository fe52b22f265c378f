//! One small world for each rule of safety: the test that fails when the rule goes away.

use embody::testing::limits::{SEEN_OFF_APART, SOFT_OFF_UNKNOWN};
use embody::testing::model::Reason;
use embody::testing::model::binding::{Correct, Mode, RunState};
use embody::testing::model::body::{Found, Phase};
use embody::testing::model::fact::{BootDevice, BootOverride, Power, Seen};
use embody::testing::model::op::{Off, Op};
use embody::testing::plan::approval::{Approval, Listed};
use embody::testing::plan::record::Record;

use crate::rack::{Luck, Rack, access, name, port_of};

fn good() -> Luck {
    Luck::Good
}

/// p runs on a, by binding x; b is free and seen.
pub fn p_on_a() -> Rack {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 1);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.runs("a"), Some("p"));
    rack
}

#[test]
fn an_exclusive_persona_waits_while_it_may_run_elsewhere() {
    let mut rack = p_on_a();
    rack.truth.get_mut(&name("a")).unwrap().silent = true;
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(plans[&name("b")].waits.iter().any(|w| w.reason == Reason::PersonaElsewhere), "{plans:?}");
    assert!(rack.body("b").evidence.is_empty());
    assert!(rack.sent > 0 && plans.values().all(|p| p.steps.is_empty()));
}

#[test]
fn a_persona_that_is_not_exclusive_waits_for_nobody() {
    let mut rack = Rack::new(&["a", "b"], &["p"], 0);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.bind("y", "p", "b", RunState::Running, Mode::Enforce);
    rack.calm(12);
    assert!(["a", "b"].iter().all(|s| rack.runs(s) == Some("p")));
}

#[test]
fn a_body_that_was_seen_off_before_the_withdrawal_is_asked_twice_after_it() {
    let mut rack = p_on_a();
    let a = name("a");
    rack.press(&a, Power::Off);
    rack.observe(&a);
    rack.pass(SEEN_OFF_APART);
    rack.observe(&a);
    // Until the answer was withdrawn anybody could start it with that.
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    for _ in 0..2 {
        rack.reconcile(&a, &mut || Luck::Lost);
        assert_eq!(rack.phase("a", "p"), Some((Phase::Armed, true)));
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
    }
    rack.reconcile(&a, &mut || Luck::Lost);
    assert_eq!(rack.phase("a", "p"), None);
}

#[test]
fn an_off_within_a_minute_of_a_power_on_of_which_nothing_is_known_ends_nothing() {
    let mut rack = p_on_a();
    let a = name("a");
    rack.press(&a, Power::Off);
    rack.observe(&a);
    rack.reconcile(&a, &mut good);
    rack.reconcile(&a, &mut || Luck::Lost);
    assert!(rack.body("a").on_sent, "the boot device is set, power-on may have left");
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    rack.asks_the_new_body("a", "b");
    let look = |rack: &mut Rack| {
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
        rack.reconcile(&a, &mut || Luck::Lost);
        rack.phase("a", "p")
    };
    // A BMC may obey late: it is off for fifty seconds, and that says nothing.
    assert_eq!([(); 5].map(|()| look(&mut rack)), [Some((Phase::Armed, true)); 5]);
    assert_eq!([(); 3].map(|()| look(&mut rack))[2], None);
}

#[test]
fn a_body_that_asks_what_to_boot_between_two_answers_off_is_not_seen_off() {
    let mut rack = p_on_a();
    let a = name("a");
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    rack.asks_the_new_body("a", "b");
    rack.reconcile(&a, &mut || Luck::Lost);
    rack.press(&a, Power::Off);
    rack.observe(&a);
    // Started and switched off again before the next question.
    rack.press(&a, Power::On);
    rack.press(&a, Power::Off);
    for _ in 0..2 {
        assert_eq!(rack.phase("a", "p"), Some((Phase::Started, true)));
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
        rack.reconcile(&a, &mut || Luck::Lost);
    }
    assert_eq!(rack.phase("a", "p"), None);
}

#[test]
fn an_off_that_was_asked_before_the_answer_arms_nothing() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    let a = name("a");
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    while rack.body("a").evidence.is_empty() {
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
        rack.reconcile(&a, &mut || Luck::Lost);
    }
    assert_eq!(rack.phase("a", "p"), Some((Phase::Answered, false)));
    // Somebody starts it before the next question: what it then runs is not known.
    rack.press(&a, Power::On);
    rack.observe(&a);
    rack.reconcile(&a, &mut || Luck::Lost);
    assert_eq!(rack.phase("a", "p"), Some((Phase::Answered, true)));
    rack.calm(20);
    assert_eq!(rack.runs("a"), Some("p"));
}

#[test]
fn a_server_is_not_started_before_its_ports_are_read_back() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    let a = name("a");
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    // Every write to the switch is lost.
    for _ in 0..12 {
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
        rack.ports.insert(port_of("a"), access(1));
        let back = sight(&rack);
        rack.seen.get_mut(&a).unwrap().ports.insert(port_of("a"), back);
        let plan = rack.plan(&a);
        assert!(!plan.steps.iter().any(|s| matches!(s.op, Op::PowerOn { .. })), "{plan:?}");
        rack.reconcile(&a, &mut good);
    }
    assert!(rack.phase("a", "p") == Some((Phase::Armed, false)) && rack.truth[&a].power == Power::Off);
}

fn sight(rack: &Rack) -> embody::testing::plan::observed::PortObserved {
    embody::testing::plan::observed::PortObserved { config: rack.ports[&port_of("a")].clone(), asked_at: rack.now, refuse: None }
}

#[test]
fn a_server_with_a_port_that_does_not_resolve_is_not_started() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    let mut held = rack.objects.servers["a"].spec.clone();
    held.nics[0].port = Some("nowhere".to_owned());
    rack.put("a", embody::testing::model::Spec::Server(held));
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(plans[&name("a")].problems.iter().any(|p| p.reason == Reason::PortNotFound));
    assert_eq!(rack.truth[&name("a")].power, Power::Off);
}

#[test]
fn a_body_that_was_found_running_is_not_disturbed_without_approval() {
    let mut rack = Rack::new(&["a", "b"], &["p"], 1);
    let a = name("a");
    rack.press(&a, Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(plans[&a].waits.iter().any(|w| w.reason == Reason::ApprovalNeeded), "{plans:?}");
    assert_eq!((rack.sent, rack.body("a").found), (0, Found::Running));
    // After an approval it is switched off and made ours.
    rack.approve("x");
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.runs("a"), Some("p"));
}

/// Whoever binds a server that runs often means what runs there, and what it writes.
#[test]
fn what_a_binding_names_may_run_where_it_was_found_running() {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 1);
    let (a, b) = (name("a"), name("b"));
    rack.press(&a, Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    let bound = rack.clone();
    // Moved, or deleted and made anew: it starts nowhere else before a person says what is so.
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(plans[&b].waits.iter().any(|w| w.reason == Reason::PersonaElsewhere && w.message.contains("found running")), "{plans:?}");
    let mut anew = bound.clone();
    anew.unbind("x");
    anew.calm(12);
    anew.bind("y", "p", "b", RunState::Running, Mode::Enforce);
    anew.calm(12);
    for rack in [&rack, &anew] {
        assert_eq!((rack.sent, rack.truth[&a].power, rack.truth[&b].power), (0, Power::On, Power::Off));
    }
    // It is something else: it stays as it is.
    for mut rack in [rack.clone(), anew.clone()] {
        rack.store(&a, &Record::End(name("p")));
        let (_, plans) = rack.calm(12);
        assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
        assert_eq!((rack.truth[&a].power, rack.runs("b")), (Power::On, Some("p")));
    }
    // Somebody switches it off, or approves that embody does.
    anew.press(&a, Power::Off);
    rack.approve("x");
    for mut rack in [rack, anew] {
        let (_, plans) = rack.calm(12);
        assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
        assert_eq!((rack.truth[&a].power, rack.runs("b")), (Power::Off, Some("p")));
    }
    // The first manifest named the wrong persona: whoever adopts the right one has said what it is.
    let mut renamed = bound;
    renamed.bind("x", "q", "a", RunState::Running, Mode::Enforce);
    renamed.calm(12);
    let want = renamed.want(&a);
    let records = embody::testing::plan::fence::adopt(want.holder.as_ref().unwrap(), &renamed.sight(&a, &want)).unwrap();
    records.iter().for_each(|record| renamed.store(&a, record));
    assert_eq!(renamed.body("a").evidence.keys().cloned().collect::<Vec<_>>(), [name("q")]);
}

#[test]
fn nothing_is_sent_for_a_binding_that_is_deleted() {
    let mut rack = p_on_a();
    let before = rack.sent;
    rack.unbind("x");
    rack.ports.insert(port_of("a"), access(50));
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!((rack.sent, rack.body("a").held_by.clone()), (before, None));
    assert!(rack.body("a").evidence.contains_key("p") && rack.truth[&name("a")].power == Power::On);
}

#[test]
fn the_evidence_of_a_deleted_binding_ends_when_a_person_switches_the_body_off() {
    let mut rack = p_on_a();
    rack.unbind("x");
    rack.calm(12);
    rack.bind("z", "p", "b", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(plans[&name("b")].waits.iter().any(|w| w.reason == Reason::PersonaElsewhere), "{plans:?}");
    rack.press(&name("a"), Power::Off);
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.runs("b"), Some("p"));
}

#[test]
fn what_only_observes_sends_nothing() {
    let mut rack = p_on_a();
    let before = rack.sent;
    rack.edit("x", |spec| (spec.state, spec.correct) = (RunState::Stopped, Some(Correct::All(Mode::Observe))));
    rack.ports.insert(port_of("a"), access(50));
    let (_, plans) = rack.calm(12);
    assert_eq!(rack.sent, before);
    assert!(plans[&name("a")].waits.iter().any(|w| w.reason == Reason::Observing));
    assert_eq!(rack.phase("a", "p"), Some((Phase::Started, false)));
}

#[test]
fn an_approval_of_another_generation_is_none() {
    let mut rack = p_on_a();
    rack.edit("x", |spec| (spec.state, spec.correct) = (RunState::Stopped, Some(Correct::All(Mode::Approve))));
    rack.approve("x");
    rack.edit("x", |spec| spec.restart = 1);
    let (_, plans) = rack.calm(12);
    assert!(plans[&name("a")].waits.iter().any(|w| w.reason == Reason::ApprovalNeeded));
    assert_eq!(rack.truth[&name("a")].power, Power::On);
}

#[test]
fn an_approval_of_other_operations_or_of_another_binding_is_none() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.press(&name("a"), Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    rack.approve("x");
    let shown = rack.seen["a"].approvals["x"].clone();
    assert!(shown.ops.iter().any(|l| matches!(&l.op, Op::PowerOff { server, .. } if server.as_str() == "a")), "{shown:?}");
    let of_another = Approval { ops: vec![Listed::new(Op::PowerOff { server: name("b"), how: Off::Soft })], ..shown.clone() };
    // A binding of that name was deleted and made anew.
    let of_an_earlier_one = Approval { uid: "uid-before".to_owned(), ..shown.clone() };
    for approval in [of_another, of_an_earlier_one] {
        let mut rack = rack.clone();
        rack.consent("x", &approval);
        let (_, plans) = rack.calm(12);
        assert!(plans[&name("a")].waits.iter().any(|w| w.reason == Reason::ApprovalNeeded), "{plans:?}");
        assert_eq!((rack.sent, rack.truth[&name("a")].power), (0, Power::On), "{approval:?}");
    }
    rack.calm(12);
    assert_eq!(rack.runs("a"), Some("p"));
}

#[test]
fn a_body_that_is_off_is_left_in_approve_mode_with_nothing_to_disturb() {
    let mut rack = p_on_a();
    // Armed, off, and the power-on held: then it moves. There is no power-off to approve, and it must not be asked for.
    rack.edit("x", |spec| spec.correct = Some(Correct::All(Mode::Approve)));
    rack.press(&name("a"), Power::Off);
    rack.calm(12);
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    rack.calm(12);
    rack.approve("x");
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.runs("b"), Some("p"));
}

#[test]
fn a_persona_that_is_changed_on_its_server_is_switched_off_first() {
    let mut rack = p_on_a();
    rack.edit("x", |spec| spec.persona = name("q"));
    rack.observe(&name("a"));
    let plan = rack.reconcile(&name("a"), &mut || Luck::Lost);
    assert!(plan.steps.iter().all(|s| matches!(s.op, Op::PowerOff { .. })) && plan.steps.len() == 1, "{plan:?}");
    let (_, plans) = rack.calm(20);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.runs("a"), Some("q"));
}

#[test]
fn a_move_away_and_back_ends_where_it_began() {
    for rounds in 0..6 {
        let mut rack = p_on_a();
        rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
        for _ in 0..rounds {
            for server in ["a", "b"] {
                rack.observe(&name(server));
                rack.reconcile(&name(server), &mut good);
            }
        }
        rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
        let (_, plans) = rack.calm(20);
        assert!(plans.values().all(|p| p.is_converged()), "{rounds}: {plans:?}");
        assert_eq!(rack.runs("a"), Some("p"), "{rounds}");
    }
}

#[test]
fn stopped_and_running_again_and_restarts() {
    let mut rack = p_on_a();
    rack.edit("x", |spec| spec.state = RunState::Stopped);
    rack.calm(12);
    assert!(rack.truth[&name("a")].power == Power::Off && rack.body("a").evidence.is_empty() && rack.body("a").held_by.is_some());
    rack.edit("x", |spec| spec.state = RunState::Running);
    rack.calm(12);
    assert_eq!(rack.runs("a"), Some("p"));
    let before = rack.sent;
    rack.edit("x", |spec| spec.restart = 3);
    rack.calm(12);
    assert!(rack.sent > before && rack.runs("a") == Some("p") && rack.body("a").restart_done == 3);
    // Lowered, and back to what was done before, is no restart: an older checkout was applied, and the newer one again.
    let before = rack.sent;
    for again in [1, 2, 3] {
        rack.edit("x", |spec| spec.restart = again);
        rack.calm(12);
        assert_eq!(rack.sent, before, "{again}");
    }
    rack.edit("x", |spec| spec.restart = 4);
    rack.calm(12);
    assert!(rack.sent > before && rack.runs("a") == Some("p") && rack.body("a").restart_done == 4);
    // Another binding's count says nothing.
    rack.unbind("x");
    rack.calm(12);
    rack.bind("y", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    let before = rack.sent;
    rack.edit("y", |spec| spec.restart = 1);
    rack.approve("y");
    rack.calm(12);
    assert!(rack.sent > before && rack.runs("a") == Some("p"));
}

#[test]
fn a_release_whose_switch_is_silent_does_not_block_the_next_holder() {
    let mut rack = p_on_a();
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    let trouble = embody::testing::plan::observed::Trouble { reason: Reason::NoAnswer, message: "switch/sw does not answer".to_owned() };
    rack.seen.get_mut(&name("a")).unwrap().switches.get_mut(&name("sw")).unwrap().trouble = Some(trouble);
    rack.calm(12);
    assert!(rack.runs("b") == Some("p") && rack.body("a").release.is_some());
    rack.bind("y", "q", "a", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(rack.body("a").release.is_none() && rack.body("a").evidence.contains_key("q"));
    assert_eq!(plans[&name("a")].waits[0].reason, Reason::NoAnswer);
}

#[test]
fn a_restart_after_which_nothing_could_start_waits() {
    let mut rack = p_on_a();
    let (a, id) = (name("a"), port_of("a"));
    rack.ports.insert(id.clone(), access(7));
    let trouble =
        embody::testing::plan::observed::Trouble { reason: Reason::IdentityChanged, message: "switch sw shows another serial".to_owned() };
    rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap().trouble = Some(trouble);
    rack.edit("x", |spec| spec.restart = 1);
    let (_, plans) = rack.calm(12);
    assert_eq!(rack.runs("a"), Some("p"));
    let waits = plans[&a].waits.iter().any(|w| w.reason == Reason::PortsFirst && w.message.contains("another serial"));
    assert!(waits, "{:?}", plans[&a].waits);
    rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap().trouble = None;
    let before = rack.sent;
    rack.calm(20);
    assert!(rack.sent > before && rack.runs("a") == Some("p") && rack.body("a").restart_done == 1);
}

#[test]
fn a_restart_waits_while_another_body_may_run_anything() {
    let mut rack = p_on_a();
    rack.seen.get_mut(&name("b")).unwrap().body.anything = true;
    rack.press(&name("b"), Power::On);
    rack.edit("x", |spec| spec.restart = 1);
    let before = rack.sent;
    rack.calm(12);
    assert_eq!((rack.runs("a"), rack.sent), (Some("p"), before));
}

#[test]
fn two_personas_in_one_body_at_one_time_are_another_boot_device_each() {
    let mut rack = Rack::new(&["a"], &["p", "q"], 2);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    let a = name("a");
    while rack.seen[&a].memory.boot_set_at.is_none() {
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
        rack.reconcile(&a, &mut good);
    }
    let set_at = rack.seen[&a].memory.boot_set_at;
    rack.edit("x", |spec| spec.persona = name("q"));
    rack.calm(12);
    assert!(rack.seen[&a].memory.boot_set_at > set_at && rack.runs("a") == Some("q"));
}

#[test]
fn answered_keeps_the_order_of_evidence_over_a_restart_of_the_process() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    let a = name("a");
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    while rack.body("a").evidence.is_empty() {
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
        rack.reconcile(&a, &mut || Luck::Lost);
    }
    let snapshot = rack.want(&a).holder.clone().unwrap().snapshot;
    rack.store(&a, &Record::Answer(Box::new(snapshot)));
    rack.restart_process();
    rack.reconcile(&a, &mut || Luck::Lost);
    assert_eq!(rack.phase("a", "p"), Some((Phase::Answered, false)));
    rack.observe(&a);
    rack.reconcile(&a, &mut || Luck::Lost);
    assert_eq!(rack.phase("a", "p"), Some((Phase::Armed, false)));
}

#[test]
fn the_ports_of_a_released_body_are_touched_only_when_it_is_off() {
    let mut rack = p_on_a();
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    rack.asks_the_new_body("a", "b");
    rack.observe(&name("a"));
    let plan = rack.reconcile(&name("a"), &mut || Luck::Lost);
    assert!(plan.steps.len() == 1 && matches!(plan.steps[0].op, Op::PowerOff { .. }), "{plan:?}");
    // Nothing ran there by evidence, and a person starts it: it still goes off first.
    rack.press(&name("a"), Power::Off);
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Lost);
    rack.press(&name("a"), Power::On);
    rack.pass(SOFT_OFF_UNKNOWN);
    rack.observe(&name("a"));
    let plan = rack.reconcile(&name("a"), &mut || Luck::Lost);
    assert!(plan.steps.iter().all(|s| matches!(s.op, Op::PowerOff { .. })) && !plan.steps.is_empty(), "{plan:?}");
}

#[test]
fn a_port_that_must_not_be_written_is_a_problem_and_no_step() {
    let mut rack = p_on_a();
    let a = name("a");
    let before = rack.sent;
    rack.ports.insert(port_of("a"), access(50));
    let refuse =
        embody::testing::plan::observed::Trouble { reason: Reason::CableContradicted, message: "another server is on it".to_owned() };
    rack.seen.get_mut(&a).unwrap().ports.get_mut(&port_of("a")).unwrap().refuse = Some(refuse);
    let (_, plans) = rack.calm(12);
    assert_eq!((rack.sent, plans[&a].problems[0].reason), (before, Reason::CableContradicted));
}

#[test]
fn the_untagged_vlan_of_a_port_that_carries_the_bmc_is_not_changed() {
    let mut rack = p_on_a();
    let mut held = rack.objects.servers["a"].spec.clone();
    held.bmc.via = "nic1".to_owned();
    rack.put("a", embody::testing::model::Spec::Server(held));
    rack.ports.insert(port_of("a"), access(50));
    let before = rack.sent;
    let (_, plans) = rack.calm(12);
    assert_eq!((rack.sent, plans[&name("a")].problems[0].reason), (before, Reason::CarriesBmc));
}

#[test]
fn a_protected_vlan_is_never_assigned_but_may_be_kept_or_left() {
    let mut rack = p_on_a();
    let protect = |rack: &mut Rack, id| {
        let protected = [crate::rack::vlan(id)].into();
        rack.seen.get_mut(&name("a")).unwrap().switches.get_mut(&name("sw")).unwrap().protected = protected;
    };
    rack.ports.insert(port_of("a"), access(50));
    protect(&mut rack, 110);
    let (_, plans) = rack.calm(12);
    assert_eq!(plans[&name("a")].problems[0].reason, Reason::VlanProtected);
    protect(&mut rack, 50);
    let (_, plans) = rack.calm(12);
    assert!(plans[&name("a")].is_converged(), "{plans:?}");
    // Released where there is no quarantine: the port is left as it is.
    protect(&mut rack, 110);
    rack.objects.remove(embody::testing::model::Kind::Network, &name("quarantine"));
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.ports[&port_of("a")], access(110));
}

#[test]
fn a_missing_vlan_is_made_first_where_the_switch_allows_it() {
    let mut rack = p_on_a();
    let a = name("a");
    rack.ports.insert(port_of("a"), access(50));
    rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap().vlans.remove(&crate::rack::vlan(110));
    let (_, plans) = rack.calm(12);
    assert_eq!(plans[&a].problems[0].reason, Reason::VlanMissing);
    rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap().creates_vlans = true;
    rack.observe(&a);
    let plan = rack.plan(&a);
    assert!(plan.steps.len() == 1 && matches!(plan.steps[0].op, Op::CreateVlan { .. }), "{plan:?}");
    let (_, plans) = rack.calm(12);
    assert!(plans[&a].is_converged(), "{plans:?}");
}

/// Making it may fail: until it is there, nothing is switched off for what is to run in it.
#[test]
fn a_restart_waits_for_a_vlan_that_is_made_first() {
    let mut rack = p_on_a();
    let a = name("a");
    rack.ports.insert(port_of("a"), access(50));
    let switch = rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap();
    switch.vlans.remove(&crate::rack::vlan(110));
    switch.creates_vlans = true;
    rack.edit("x", |spec| spec.restart = 1);
    rack.observe(&a);
    let plan = rack.plan(&a);
    assert!(plan.steps.len() == 1 && matches!(plan.steps[0].op, Op::CreateVlan { .. }), "{plan:?}");
    assert!(plan.waits.iter().any(|w| w.reason == Reason::PortsFirst && w.message.contains("VLAN 110 is made")), "{:?}", plan.waits);
    let (_, plans) = rack.calm(20);
    assert!(plans[&a].is_converged() && rack.body("a").restart_done == 1, "{plans:?}");
}

/// Whatever it is that runs there: it is not ended for a persona that could not start.
#[test]
fn nothing_is_switched_off_for_a_persona_whose_ports_have_no_vlan() {
    for mode in [Mode::Enforce, Mode::Approve] {
        let mut rack = p_on_a();
        let a = name("a");
        rack.put("net-q", embody::testing::model::Spec::Network(crate::rack::spec_of(serde_json::json!({ "vlan": 120 }))));
        rack.put_persona("q", "net-q", true);
        rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap().vlans.remove(&crate::rack::vlan(120));
        rack.bind("x", "q", "a", RunState::Running, mode);
        let (_, plans) = rack.calm(12);
        assert_eq!(rack.runs("a"), Some("p"));
        let says = plans[&a].waits.iter().any(|w| w.reason == Reason::PortsFirst && w.message.contains("has no VLAN 120"));
        assert!(says && plans[&a].held.is_empty(), "{plans:?}");
        rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap().vlans.insert(crate::rack::vlan(120));
        rack.approve("x");
        let (_, plans) = rack.calm(24);
        assert!(plans[&a].is_converged() && rack.runs("a") == Some("q"), "{plans:?}");
    }
}

/// A switch may take untagged VLANs, and refuse tagged ones.
#[test]
fn nothing_is_restarted_while_its_switch_refuses_the_tagged_vlans_that_it_is_to_have() {
    let mut rack = p_on_a();
    let a = name("a");
    let mut persona = rack.objects.personas["p"].spec.clone();
    persona.nics[0].tagged = vec![name("net-q")];
    let switch = |rack: &mut Rack, refused: Option<&str>| {
        rack.seen.get_mut(&a).unwrap().switches.get_mut(&name("sw")).unwrap().tagged_refused = refused.map(str::to_owned);
    };
    rack.put("net-q", embody::testing::model::Spec::Network(crate::rack::spec_of(serde_json::json!({ "vlan": 50 }))));
    rack.put("p", embody::testing::model::Spec::Persona(persona));
    rack.edit("x", |spec| spec.restart = 1);
    switch(&mut rack, Some("it refuses them"));
    let plan = rack.plan(&a);
    let says = plan.waits.iter().any(|wait| wait.reason == Reason::PortsFirst && wait.message.contains("it refuses them"));
    let off = |plan: &embody::testing::plan::Plan| plan.steps.iter().any(|step| matches!(step.op, Op::PowerOff { .. }));
    assert!(says && !off(&plan), "{plan:?}");
    switch(&mut rack, None);
    let plan = rack.plan(&a);
    assert!(off(&plan), "{plan:?}");
}

#[test]
fn a_swap_in_approve_mode_waits_for_both_and_locks_nobody() {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.bind("y", "q", "b", RunState::Running, Mode::Enforce);
    rack.calm(12);
    rack.bind("x", "p", "b", RunState::Running, Mode::Approve);
    rack.bind("y", "q", "a", RunState::Running, Mode::Approve);
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.waits.iter().any(|w| w.reason == Reason::TakeoverNotPossible)), "{plans:?}");
    rack.approve("x");
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.waits.iter().any(|w| w.reason == Reason::TakeoverNotPossible)), "{plans:?}");
    assert_eq!((rack.runs("a"), rack.runs("b")), (Some("p"), Some("q")));
    rack.approve("y");
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.runs("b"), Some("p"));
}

#[test]
fn whoever_takes_a_body_before_it_is_released_frees_it_by_the_older_debt() {
    let rack = p_on_a();
    // x moves away, y takes a, and moves away or is deleted before x has released it.
    for deleted in [false, true] {
        let mut rack = rack.clone();
        rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
        rack.asks_the_new_body("a", "b");
        rack.bind("y", "q", "a", RunState::Running, Mode::Enforce);
        rack.reconcile(&name("a"), &mut || Luck::Lost);
        assert!(rack.body("a").held_by.is_some() && rack.body("a").release.is_some());
        if deleted {
            rack.unbind("y")
        } else {
            rack.edit("y", |spec| spec.target.server = Some(name("nowhere")))
        }
        let (_, plans) = rack.calm(12);
        // Where y went is not there, which is said and keeps nobody.
        let is_said = |plan: &embody::testing::plan::Plan| !deleted && plan.problems.iter().all(|p| p.reason == Reason::ServerMissing);
        assert!(plans.values().all(|p| p.is_converged() || is_said(p)), "{plans:?}");
        assert_eq!((rack.truth[&name("a")].power, rack.runs("b")), (Power::Off, Some("p")));
        assert!(rack.body("a").release.is_none());
    }
}

#[test]
fn a_boot_device_is_corrected_unless_the_bmc_does_not_keep_it() {
    let mut rack = p_on_a();
    let a = name("a");
    let kept = rack.seen[&a].memory.boot_echo.unwrap();
    let shows = |rack: &mut Rack, device, echo| {
        let asked_at = rack.tick();
        let seen = rack.seen.get_mut(&a).unwrap();
        seen.boot = Some(Seen { value: BootOverride { device, ..kept }, asked_at });
        seen.memory.boot_echo = Some(echo);
        rack.plan(&a).steps.iter().filter(|s| matches!(s.op, Op::SetBoot { .. })).count()
    };
    let dropped = BootOverride { device: BootDevice::None, ..kept };
    assert_eq!(shows(&mut rack, BootDevice::Disk, kept), 1);
    assert_eq!(shows(&mut rack, BootDevice::None, kept), 1);
    assert_eq!(shows(&mut rack, BootDevice::None, dropped), 0);
    assert_eq!(shows(&mut rack, BootDevice::Disk, BootOverride { device: BootDevice::Disk, ..kept }), 0);
}

/// One Off of a BMC that restarts, of a server that a person said runs the persona: what runs there would be started over.
#[test]
fn an_adopted_body_that_reads_off_once_is_not_switched_on() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    let a = name("a");
    rack.press(&a, Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    let want = rack.want(&a);
    let records = embody::testing::plan::fence::adopt(want.holder.as_ref().unwrap(), &rack.sight(&a, &want)).unwrap();
    records.iter().for_each(|record| rack.store(&a, record));
    rack.observe(&a);
    let asked_at = rack.tick();
    let off = Seen { value: Power::Off, asked_at };
    let seen = rack.seen.get_mut(&a).unwrap();
    seen.memory.saw_power(&off);
    seen.power = Some(off);
    let before = rack.ops.len();
    rack.reconcile(&a, &mut || Luck::Lost);
    let ops = &rack.ops[before..];
    assert!(!ops.iter().any(|(_, op)| matches!(op, Op::PowerOn { .. } | Op::SetBoot { .. })), "{ops:?}");
    assert_eq!(rack.phase("a", "p"), Some((Phase::Armed, false)));
}
