//! A move is begun when it can be ended, and can be ended: one small world for each way in which the new body cannot be had, and for each
//! in which the old one cannot be seen off.
//!
//! Leaves out: what is sent to switch the old body off (`offs`).

use embody::testing::limits::SEEN_OFF_APART;
use embody::testing::model::binding::{Correct, Mode, Plane, PlaneModes, RunState};
use embody::testing::model::body::{Declaration, Declared, Found};
use embody::testing::model::fact::{BootDevice, BootOverride, Power, Seen};
use embody::testing::model::op::Op;
use embody::testing::model::{Reason, Spec};
use embody::testing::plan::observed::{Observed, Trouble};
use embody::testing::plan::record::Record;

use crate::rack::{Luck, Rack, access, name, port_of};

/// p runs on a by x; b is free and seen off.
fn p_on_a() -> Rack {
    let mut rack = Rack::new(&["a", "b", "c"], &["p", "q"], 2);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    assert_eq!(rack.runs("a"), Some("p"));
    rack.ops.clear();
    rack
}

/// a is burnt with its BMC, and x is bound to b.
fn burnt_a() -> Rack {
    let mut rack = p_on_a();
    rack.truth.get_mut("a").unwrap().silent = true;
    rack.press(&name("a"), Power::Off);
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    rack
}

/// x is bound to b, everything is tried for long, and a goes on as if nothing had been said.
fn stays_on_a(rack: &mut Rack, why: &str) {
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    let (_, plans) = rack.calm(20);
    assert_eq!(rack.runs("a"), Some("p"), "{why}");
    assert!(!rack.ops.iter().any(|(server, _)| server.as_str() == "a"), "{why}: {:?}", rack.ops);
    let wait = plans[&name("a")].waits.iter().find(|w| w.reason == Reason::TakeoverNotPossible);
    assert!(wait.is_some_and(|w| w.message.contains(why)), "{why}: {:?}", plans[&name("a")].waits);
    assert!(rack.body("a").standing().is_some(), "{why}: its boot answer stands");
}

#[test]
fn a_persona_stays_where_it_is_while_its_new_body_does_not_answer() {
    let mut rack = p_on_a();
    rack.truth.get_mut("b").unwrap().silent = true;
    stays_on_a(&mut rack, "bmc/b does not answer");
    // It goes once it can.
    rack.truth.get_mut("b").unwrap().silent = false;
    rack.calm(20);
    assert_eq!((rack.runs("a"), rack.runs("b")), (None, Some("p")));
}

/// What is known of the new body may be minutes old: its BMC or its switch may have died since.
#[test]
fn what_a_new_body_needs_is_asked_once_more_before_the_old_one_is_touched() {
    let mut rack = p_on_a();
    let (a, b) = (name("a"), name("b"));
    rack.edit("x", |spec| spec.target.server = Some(b.clone()));
    rack.reconcile(&b, &mut || Luck::Good);
    for _ in 0..3 {
        rack.pass(SEEN_OFF_APART);
        rack.observe(&a);
        let plan = rack.reconcile(&a, &mut || Luck::Good);
        assert_eq!((rack.ops.len(), rack.body("a").release.is_some()), (0, false));
        let asked: Vec<String> = plan.polls.iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["bmc/b", "switch/sw"]);
    }
    // It answers; or it does not.
    let mut silent = rack.clone();
    silent.truth.get_mut("b").unwrap().silent = true;
    silent.calm(20);
    assert_eq!(silent.runs("a"), Some("p"));
    rack.observe(&b);
    rack.reconcile(&a, &mut || Luck::Good);
    assert!(rack.body("a").release.is_some());
}

/// Its binding was aimed at a server that can have it, and elsewhere before anything was sent.
#[test]
fn a_released_body_is_not_told_while_the_server_that_its_binding_names_now_cannot_take_over() {
    let mut rack = p_on_a();
    let hold = rack.body("a").held_by.clone().unwrap();
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    rack.asks_the_new_body("a", "b");
    rack.store(&name("a"), &Record::Release(hold));
    rack.truth.get_mut("c").unwrap().silent = true;
    rack.edit("x", |spec| spec.target.server = Some(name("c")));
    let (_, plans) = rack.calm(20);
    assert_eq!((rack.runs("a"), rack.ops.len()), (Some("p"), 0), "{plans:?}");
    rack.truth.get_mut("c").unwrap().silent = false;
    rack.calm(30);
    assert_eq!((rack.runs("a"), rack.runs("c")), (None, Some("p")));
}

/// It was asked gently and still serves: while the new body cannot be had any more it is not cut.
#[test]
fn a_body_that_is_left_is_not_cut_while_its_new_one_cannot_take_over() {
    let mut rack = p_on_a();
    let a = name("a");
    rack.truth.get_mut("a").unwrap().deaf = true;
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    while rack.body("a").off.is_none() {
        for server in ["a", "b"] {
            rack.observe(&name(server));
            rack.reconcile(&name(server), &mut || Luck::Good);
        }
        rack.pass(SEEN_OFF_APART / 10);
    }
    rack.truth.get_mut("b").unwrap().silent = true;
    let (_, plans) = rack.calm(30);
    assert_eq!(rack.runs("a"), Some("p"));
    assert!(plans[&a].waits.iter().any(|w| w.reason == Reason::TakeoverNotPossible && w.message.contains("not cut")), "{plans:?}");
    // A person may say so all the same.
    let mut said = rack.clone();
    said.approve_hard("x");
    said.calm(30);
    assert_eq!(said.truth[&a].power, Power::Off);
    rack.truth.get_mut("b").unwrap().silent = false;
    rack.calm(30);
    assert_eq!((rack.runs("a"), rack.runs("b")), (None, Some("p")));
}

#[test]
fn a_persona_stays_where_it_is_while_whoever_left_its_new_body_cannot_be_had_elsewhere() {
    let mut rack = p_on_a();
    rack.bind("y", "q", "b", RunState::Running, Mode::Enforce);
    rack.calm(20);
    rack.ops.clear();
    let hold = rack.body("b").held_by.clone().unwrap();
    rack.edit("y", |spec| spec.target.server = Some(name("c")));
    rack.store(&name("b"), &Record::Release(hold));
    rack.truth.get_mut("c").unwrap().silent = true;
    stays_on_a(&mut rack, "bmc/c does not answer");
    assert_eq!(rack.runs("b"), Some("q"));
}

/// One that was told nothing yet is as it was before it was left: a word for how it is switched off is none for whether.
#[test]
fn a_body_that_was_told_nothing_is_not_cut_by_a_word_for_the_hard_way() {
    let mut rack = p_on_a();
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    let hold = rack.body("a").held_by.clone().unwrap();
    rack.store(&name("a"), &Record::Release(hold));
    rack.truth.get_mut("b").unwrap().silent = true;
    rack.calm(5);
    rack.approve_hard("x");
    let (_, plans) = rack.calm(30);
    assert_eq!((rack.runs("a"), rack.body("a").off.is_none()), (Some("p"), true), "{plans:?}");
}

#[test]
fn a_persona_stays_where_it_is_while_its_new_body_is_in_maintenance() {
    let mut rack = p_on_a();
    let mut spec = rack.objects.servers["b"].spec.clone();
    spec.maintenance = Some(crate::rack::spec_of(serde_json::json!({ "reason": "a fan" })));
    rack.put("b", Spec::Server(spec));
    stays_on_a(&mut rack, "maintenance: a fan");
}

#[test]
fn a_persona_stays_where_it_is_while_its_new_body_runs_something() {
    let mut rack = p_on_a();
    rack.press(&name("b"), Power::On);
    rack.observe(&name("b"));
    stays_on_a(&mut rack, "server b runs something");
    rack.approve("x");
    rack.calm(20);
    assert_eq!((rack.runs("a"), rack.runs("b")), (None, Some("p")));
}

#[test]
fn a_persona_stays_where_it_is_while_the_ports_of_its_new_body_cannot_be_written() {
    let mut rack = p_on_a();
    let refuse = Trouble { reason: Reason::CableContradicted, message: "another server is on it".to_owned() };
    rack.seen.get_mut("b").unwrap().ports.get_mut(&port_of("b")).unwrap().refuse = Some(refuse);
    stays_on_a(&mut rack, "another server is on it");
}

#[test]
fn a_persona_stays_where_it_is_while_the_switch_of_its_new_body_has_not_its_vlan() {
    let mut rack = p_on_a();
    rack.seen.get_mut("b").unwrap().switches.values_mut().for_each(|switch| switch.vlans.clear());
    stays_on_a(&mut rack, "has no VLAN 110");
}

#[test]
fn a_persona_stays_where_it_is_while_a_plane_that_its_start_needs_is_not_enforced() {
    for (plane, mode, why) in [
        (Plane::Network, Mode::Observe, "only observes the network plane"),
        (Plane::Boot, Mode::Observe, "only observes the boot plane"),
        (Plane::Network, Mode::Approve, "changes of the network plane wait"),
    ] {
        let mut rack = p_on_a();
        let mode_of = |p| Some(if p == plane { mode } else { Mode::Enforce });
        let modes = PlaneModes { power: mode_of(Plane::Power), boot: mode_of(Plane::Boot), network: mode_of(Plane::Network) };
        rack.edit("x", |spec| spec.correct = Some(Correct::PerPlane(modes)));
        stays_on_a(&mut rack, why);
    }
}

#[test]
fn a_persona_stays_where_it_is_while_its_new_server_alone_is_paused_or_held() {
    for (reason, why) in [(Reason::Paused, "paused by ann"), (Reason::Held, "changes would disrupt 9 servers")] {
        let mut rack = p_on_a();
        let trouble = Trouble { reason, message: why.to_owned() };
        rack.seen.get_mut("b").unwrap().stopped.insert(name("x"), trouble);
        stays_on_a(&mut rack, why);
    }
}

#[test]
fn a_persona_stays_where_it_is_while_nothing_is_known_of_its_new_body() {
    let declared = || Declared { what: Declaration::OffButRuns, by: "ann".into(), reason: "its power is cut".into(), at: String::new() };
    let unknown: [fn(&mut Observed, Declared); 3] =
        [|seen, _| seen.unreadable = true, |seen, _| seen.body.anything = true, |seen, declared| seen.body.declared = Some(declared)];
    for is_so in unknown {
        let mut rack = p_on_a();
        rack.press(&name("b"), Power::On);
        is_so(rack.seen.get_mut("b").unwrap(), declared());
        stays_on_a(&mut rack, "what server b runs is not known");
    }
}

#[test]
fn a_persona_stays_where_it_is_while_a_third_body_may_have_its_root() {
    let mut rack = p_on_a();
    rack.seen.get_mut("c").unwrap().unreadable = true;
    rack.truth.get_mut("c").unwrap().power = Power::On;
    stays_on_a(&mut rack, "nothing is known of what server c runs");
}

#[test]
fn a_persona_stays_where_it_is_while_the_one_on_its_new_body_cannot_leave() {
    let mut rack = p_on_a();
    rack.bind("y", "q", "b", RunState::Running, Mode::Enforce);
    rack.calm(20);
    rack.truth.get_mut("c").unwrap().silent = true;
    rack.ops.clear();
    rack.edit("y", |spec| spec.target.server = Some(name("c")));
    stays_on_a(&mut rack, "bmc/c does not answer");
    assert!(rack.ops.is_empty() && rack.runs("b") == Some("q"), "{:?}", rack.ops);
    // Nor is b touched for what else is desired of x, which comes next.
    rack.edit("x", |spec| (spec.state, spec.restart) = (RunState::Stopped, 1));
    rack.calm(20);
    assert_eq!(rack.runs("b"), Some("q"));
}

#[test]
fn a_ring_of_three_moves_goes_round() {
    let mut rack = Rack::new(&["a", "b", "c"], &["p", "q", "r"], 3);
    for (binding, persona, server) in [("x", "p", "a"), ("y", "q", "b"), ("z", "r", "c")] {
        rack.bind(binding, persona, server, RunState::Running, Mode::Enforce);
    }
    rack.calm(20);
    for (binding, server) in [("x", "b"), ("y", "c"), ("z", "a")] {
        rack.edit(binding, |spec| spec.target.server = Some(name(server)));
    }
    let (_, plans) = rack.calm(30);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(["a", "b", "c"].map(|s| rack.runs(s).map(str::to_owned)), [Some("r"), Some("p"), Some("q")].map(|p| p.map(str::to_owned)));
}

#[test]
fn a_server_that_burnt_is_declared_off_and_its_persona_starts_elsewhere() {
    let mut rack = burnt_a();
    let (_, plans) = rack.calm(20);
    assert_eq!(rack.runs("b"), None);
    let wait = plans[&name("b")].waits.iter().find(|w| w.reason == Reason::PersonaElsewhere).unwrap();
    assert!(wait.message.contains("`embody declare server a off"), "{}", wait.message);
    // The last answer of its BMC was On: it was asked for before.
    assert!(rack.seen["a"].is(Power::On));
    rack.declare_off("a");
    rack.calm(20);
    assert_eq!(rack.body("a").declared.as_ref().map(|d| d.what), Some(Declaration::Off));
    assert_eq!(rack.runs("b"), Some("p"));
}

#[test]
fn a_body_that_was_declared_off_and_runs_is_named_and_not_switched_off_unasked() {
    let mut rack = p_on_a();
    rack.truth.get_mut("a").unwrap().silent = true;
    rack.calm(3);
    rack.declare_off("a");
    rack.truth.get_mut("a").unwrap().silent = false;
    let (_, plans) = rack.calm(20);
    assert!(plans[&name("a")].problems.iter().any(|p| p.reason == Reason::DeclaredOffButRuns), "{plans:?}");
    assert!(rack.ops.is_empty() && rack.body("a").fences(), "{:?}", rack.ops);
    rack.approve("x");
    let (_, plans) = rack.calm(20);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!((rack.runs("a"), rack.body("a").declared.is_none()), (Some("p"), true));
}

#[test]
fn while_a_body_that_was_declared_off_runs_its_persona_does_not_start_again_elsewhere_and_both_say_so() {
    let mut rack = burnt_a();
    rack.calm(20);
    rack.declare_off("a");
    rack.calm(20);
    assert_eq!(rack.runs("b"), Some("p"));
    // Somebody has repaired it.
    (rack.truth.get_mut("a").unwrap().silent, rack.truth.get_mut("a").unwrap().lied_about) = (false, true);
    rack.press(&name("a"), Power::On);
    let (_, plans) = rack.calm(20);
    for server in ["a", "b"] {
        assert!(
            plans[&name(server)].problems.iter().any(|p| p.reason == Reason::DeclaredOffButRuns),
            "{server}: {:?}",
            plans[&name(server)]
        );
    }
    rack.press(&name("b"), Power::Off);
    let (_, plans) = rack.calm(20);
    assert_eq!(rack.truth["b"].power, Power::Off, "it is not started while the other one may run it");
    assert!(plans[&name("b")].waits.iter().any(|w| w.reason == Reason::DeclaredOffButRuns), "{:?}", plans[&name("b")]);
}

/// The question was on its way when the word came: what it tells of power is as good as a later one's, if it is On.
#[test]
fn a_declared_body_that_is_answered_on_runs_whenever_that_was_asked() {
    let mut rack = burnt_a();
    rack.calm(20);
    let asked_at = rack.tick();
    rack.declare_off("a");
    rack.observe(&name("b"));
    let on = Seen { value: Power::On, asked_at };
    let seen = rack.seen.get_mut("a").unwrap();
    (seen.power, seen.bmc_trouble) = (Some(on.clone()), None);
    seen.memory.saw_power(&on);
    let before = rack.ops.len();
    rack.reconcile(&name("a"), &mut || Luck::Good);
    rack.reconcile(&name("b"), &mut || Luck::Good);
    assert_eq!(rack.body("a").declared.as_ref().map(|d| d.what), Some(Declaration::OffButRuns));
    assert_eq!((&rack.ops[before..], rack.body("b").evidence.len()), (&[][..], 0), "the one is not told to go, the other not started");
}

#[test]
fn a_declared_body_that_was_seen_off_is_in_care_again_before_it_is_started() {
    let mut rack = p_on_a();
    rack.truth.get_mut("a").unwrap().silent = true;
    rack.press(&name("a"), Power::Off);
    rack.calm(3);
    rack.declare_off("a");
    rack.truth.get_mut("a").unwrap().silent = false;
    let (_, plans) = rack.calm(20);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!((rack.runs("a"), rack.body("a").declared.is_none()), (Some("p"), true));
}

#[test]
fn a_persona_that_is_made_anew_under_another_name_waits_for_its_root() {
    let mut rack = p_on_a();
    rack.unbind("x");
    rack.objects.remove(embody::testing::model::Kind::Persona, &name("p"));
    rack.put_directory("renamed", "net-p", "/p/.");
    rack.bind("z", "renamed", "b", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(20);
    let wait = plans[&name("b")].waits.iter().find(|w| w.reason == Reason::PersonaElsewhere).unwrap();
    assert!(wait.message.contains("10.0.0.5:/p") && wait.message.contains(" a"), "{}", wait.message);
    rack.press(&name("a"), Power::Off);
    rack.calm(20);
    assert_eq!(rack.runs("b"), Some("renamed"));
}

#[test]
fn the_root_of_a_running_persona_is_its_own_until_its_next_start() {
    let mut rack = p_on_a();
    rack.put_directory("p", "net-p", "/new");
    rack.put_directory("q", "net-q", "/p");
    rack.bind("y", "q", "b", RunState::Running, Mode::Enforce);
    rack.calm(20);
    assert_eq!((rack.runs("a"), rack.runs("b")), (Some("p"), None));
    rack.edit("x", |spec| spec.restart = 1);
    rack.calm(30);
    assert_eq!((rack.runs("a"), rack.runs("b")), (Some("p"), Some("q")));
}

#[test]
fn a_record_that_does_not_read_fences_everything_until_its_body_is_seen_off_twice() {
    let mut rack = p_on_a();
    rack.restart_process();
    rack.seen.get_mut("a").unwrap().unreadable = true;
    rack.seen.get_mut("a").unwrap().body = embody::testing::model::body::Body::default();
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    rack.calm(20);
    assert!(rack.ops.is_empty() && rack.runs("b").is_none(), "{:?}", rack.ops);
    rack.press(&name("a"), Power::Off);
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Lost);
    assert!(rack.seen["a"].unreadable, "one Off ends nothing");
    rack.pass(SEEN_OFF_APART);
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Lost);
    assert!(!rack.seen["a"].unreadable);
    rack.calm(20);
    assert_eq!(rack.runs("b"), Some("p"));
}

#[test]
fn a_body_whose_disk_holds_a_persona_that_moved_is_parked_and_fences_when_it_runs() {
    let mut rack = Rack::new(&["a", "b", "c"], &["p"], 1);
    rack.put_disk("p", "net-p");
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    rack.calm(20);
    assert_eq!((rack.runs("a"), rack.runs("b"), rack.truth["a"].boot), (None, Some("p"), BootDevice::Pxe));
    // Somebody sets its boot device to the disk and presses the button.
    rack.truth.get_mut("a").unwrap().boot = BootDevice::Disk;
    rack.press(&name("a"), Power::On);
    rack.edit("x", |spec| spec.target.server = Some(name("c")));
    let (_, plans) = rack.calm(20);
    let said = plans[&name("b")].waits.iter().find(|w| w.reason == Reason::TakeoverNotPossible);
    assert!(said.is_some_and(|w| w.message.contains("server a is on")), "{plans:?}");
    assert_eq!((rack.runs("b"), rack.runs("c")), (Some("p"), None));
}

/// Whether it is on nobody knows after a restart, and nobody ever where its BMC has died.
#[test]
fn a_disk_that_holds_the_persona_counts_until_its_server_is_known_to_be_off() {
    let mut rack = Rack::new(&["a", "b"], &["p"], 1);
    rack.put_disk("p", "net-p");
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    rack.calm(30);
    rack.unbind("x");
    rack.press(&name("b"), Power::Off);
    rack.calm(20);
    assert_eq!((rack.truth["a"].power, rack.body("b").evidence.len()), (Power::Off, 0));
    rack.restart_process();
    rack.truth.get_mut("a").unwrap().silent = true;
    rack.bind("y", "p", "b", RunState::Running, Mode::Enforce);
    let (_, plans) = rack.calm(20);
    let waits = &plans[&name("b")].waits;
    let said = waits.iter().find(|w| w.reason == Reason::MayRunFromDisk);
    assert!(said.is_some_and(|w| w.message.contains("`embody declare server a off")), "{plans:?}");
    assert_eq!(rack.runs("b"), None);
    let mut declared = rack.clone();
    declared.declare_off("a");
    rack.truth.get_mut("a").unwrap().silent = false;
    for mut rack in [rack, declared] {
        let (_, plans) = rack.calm(30);
        assert!(plans[&name("b")].is_converged(), "{plans:?}");
        assert_eq!(rack.runs("b"), Some("p"));
    }
}

/// Nobody started it: the disk was never seen to hold anything but by what a person says.
#[test]
fn the_disk_of_an_adopted_server_holds_the_persona_as_well() {
    let mut rack = Rack::new(&["a", "b", "c"], &["p"], 1);
    rack.put_disk("p", "net-p");
    rack.press(&name("a"), Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    let want = rack.want(&name("a"));
    let records = embody::testing::plan::fence::adopt(want.holder.as_ref().unwrap(), &rack.sight(&name("a"), &want)).unwrap();
    records.iter().for_each(|record| rack.store(&name("a"), record));
    assert!(rack.body("a").on_disk.contains("p"));
}

#[test]
fn another_root_in_the_manifest_changes_no_boot_device_before_the_next_start() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.put_disk("p", "net-p");
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    let before = rack.sent;
    rack.put_directory("p", "net-p", "/new");
    let (_, plans) = rack.calm(20);
    assert_eq!((rack.sent, rack.truth["a"].boot), (before, BootDevice::Disk), "{plans:?}");
    rack.edit("x", |spec| spec.restart = 1);
    rack.calm(30);
    assert_eq!((rack.runs("a"), rack.truth["a"].boot), (Some("p"), BootDevice::Pxe));
}

// ---- ports ---------------------------------------------------------------------------------------------------------------

#[test]
fn deleting_the_quarantine_touches_no_port() {
    let mut rack = p_on_a();
    rack.objects.remove(embody::testing::model::Kind::Network, &name("quarantine"));
    rack.edit("x", |spec| spec.restart = 0);
    let (_, plans) = rack.calm(12);
    assert!(plans.values().all(|p| p.is_converged()) && rack.ops.is_empty(), "{plans:?}");
}

#[test]
fn an_adopted_server_loses_no_link_before_a_person_approves() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.press(&name("a"), Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    let want = rack.want(&name("a"));
    let records = embody::testing::plan::fence::adopt(want.holder.as_ref().unwrap(), &rack.sight(&name("a"), &want)).unwrap();
    records.iter().for_each(|record| rack.store(&name("a"), record));
    let (_, plans) = rack.calm(12);
    assert!(rack.ops.is_empty() && rack.ports[&port_of("a")] == access(1), "{:?}", rack.ops);
    let held: Vec<&Op> = plans[&name("a")].held.iter().map(|s| &s.op).collect();
    assert!(matches!(held.as_slice(), [Op::SetPort { .. }]), "what would follow is shown: {held:?}");
    assert_eq!(rack.body("a").found, Found::Adopted);
    rack.approve("x");
    rack.calm(12);
    assert_eq!((rack.ports[&port_of("a")].clone(), rack.truth["a"].power), (access(110), Power::On));
}

#[test]
fn the_boot_device_of_an_adopted_server_is_left_before_a_person_approves() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.press(&name("a"), Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    let want = rack.want(&name("a"));
    let records = embody::testing::plan::fence::adopt(want.holder.as_ref().unwrap(), &rack.sight(&name("a"), &want)).unwrap();
    records.iter().for_each(|record| rack.store(&name("a"), record));
    let disk = BootOverride { valid: true, persistent: true, efi: true, device: BootDevice::Disk };
    rack.seen.get_mut("a").unwrap().boot = Some(Seen { value: disk, asked_at: rack.now });
    let (_, plans) = rack.calm(12);
    assert!(rack.ops.is_empty(), "{:?}", rack.ops);
    let held = &plans[&name("a")].held;
    assert!(held.iter().any(|s| matches!(s.op, Op::SetBoot { .. })), "what would follow is shown: {held:?}");
}

#[test]
fn a_port_that_was_left_half_way_and_has_another_cable_now_is_not_ended() {
    let mut rack = p_on_a();
    rack.ports.insert(port_of("a"), access(50));
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Refused);
    rack.observe(&name("a"));
    let refuse = Trouble { reason: Reason::CableContradicted, message: "another server is on it".to_owned() };
    rack.seen.get_mut("a").unwrap().ports.get_mut(&port_of("a")).unwrap().refuse = Some(refuse);
    let plan = rack.plan(&name("a"));
    assert!(plan.steps.is_empty() && plan.problems.iter().any(|p| p.reason == Reason::CableContradicted), "{plan:?}");
}

/// A port that was shut for a change that its switch refuses is opened again as it was: that is no VLAN.
#[test]
fn a_port_that_was_left_half_way_to_what_its_switch_refuses_is_put_back() {
    let mut rack = p_on_a();
    rack.ports.insert(port_of("a"), access(50));
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Refused);
    rack.observe(&name("a"));
    let refuse = Trouble { reason: Reason::WriteRefused, message: "it refuses dot1qPvid".to_owned() };
    rack.seen.get_mut("a").unwrap().ports.get_mut(&port_of("a")).unwrap().refuse = Some(refuse);
    let plan = rack.plan(&name("a"));
    assert!(matches!(&plan.steps.first().unwrap().op, Op::SetPort { to, .. } if *to == access(50)), "{plan:?}");
    rack.reconcile(&name("a"), &mut || Luck::Good);
    let (_, plans) = rack.calm(5);
    assert_eq!(rack.ports[&port_of("a")], access(50));
    assert!(plans[&name("a")].problems.iter().any(|p| p.reason == Reason::WriteRefused), "{plans:?}");
}

#[test]
fn a_port_that_was_left_half_way_is_ended_first_whatever_else_is_desired() {
    let mut rack = p_on_a();
    rack.ports.insert(port_of("a"), access(50));
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Refused);
    assert_eq!(rack.ports[&port_of("a")], crate::rack::between());
    // Neither a mode that only observes nor a stop keeps it from being ended.
    rack.edit("x", |spec| (spec.state, spec.correct) = (RunState::Stopped, Some(Correct::All(Mode::Observe))));
    rack.observe(&name("a"));
    let plan = rack.plan(&name("a"));
    let step = plan.steps.first().unwrap();
    assert!(step.debt && matches!(&step.op, Op::SetPort { to, .. } if *to == access(110)), "{plan:?}");
    // A person's pause does.
    let trouble = Trouble { reason: Reason::Paused, message: "paused by ann".to_owned() };
    rack.seen.get_mut("a").unwrap().stopped.insert(name("x"), trouble);
    assert!(rack.plan(&name("a")).steps.is_empty());
    rack.seen.get_mut("a").unwrap().stopped.clear();
    rack.reconcile(&name("a"), &mut || Luck::Good);
    rack.calm(5);
    assert_eq!(rack.ports[&port_of("a")], access(110));
    assert!(rack.body("a").ports.values().all(|debt| debt.begun.is_none()));
}

#[test]
fn a_sight_of_a_port_from_before_a_write_does_not_end_it() {
    let mut rack = p_on_a();
    rack.ports.insert(port_of("a"), access(50));
    rack.observe(&name("a"));
    rack.reconcile(&name("a"), &mut || Luck::Refused);
    // Not asked again yet: what is known is how it was before.
    rack.reconcile(&name("a"), &mut || Luck::Lost);
    assert!(rack.body("a").ports.values().any(|debt| debt.begun.is_some()));
}

#[test]
fn a_port_of_which_a_write_is_on_its_way_is_not_written_and_nothing_is_started() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.in_flight.insert(port_of("a"));
    let (_, plans) = rack.calm(12);
    assert!(!rack.ops.iter().any(|(_, op)| matches!(op, Op::SetPort { .. } | Op::PowerOn { .. })), "{:?}", rack.ops);
    assert!(plans[&name("a")].waits.iter().any(|w| w.reason == Reason::Working));
    rack.in_flight.clear();
    rack.calm(12);
    assert_eq!(rack.runs("a"), Some("p"));
}

/// A binding is renamed to one that exists: what runs under its old name runs on, and what the other one ran is seen off without a word of anybody.
#[test]
fn a_binding_that_takes_the_place_of_another_finds_its_persona_running_and_leaves_its_own_body() {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.bind("y", "q", "b", RunState::Running, Mode::Enforce);
    rack.calm(20);
    rack.ops.clear();
    rack.unbind("y");
    rack.edit("x", |spec| (spec.target.server, spec.persona) = (Some(name("b")), name("q")));
    let (_, plans) = rack.calm(20);
    assert_eq!((rack.runs("a"), rack.runs("b")), (None, Some("q")), "{plans:?}");
    assert!(rack.ops.iter().all(|(server, _)| server.as_str() == "a"), "{:?}", rack.ops);
}

/// Each moves to where the next one runs, and is to have the root of the one after that: all of them are left, and make way for each other.
#[test]
fn bodies_that_are_all_left_make_way_for_each_other() {
    let mut rack = Rack::new(&["a", "b", "c"], &["p", "q", "r"], 3);
    let roots = ["/p", "/q", "/r"];
    for (n, persona) in ["p", "q", "r"].into_iter().enumerate() {
        rack.put_directory(persona, &format!("net-{persona}"), roots[n]);
    }
    let all = [("x", "p", "a", "b"), ("y", "q", "b", "c"), ("z", "r", "c", "a")];
    for (binding, persona, server, _) in all {
        rack.bind(binding, persona, server, RunState::Running, Mode::Enforce);
    }
    rack.calm(20);
    for (n, persona) in ["p", "q", "r"].into_iter().enumerate() {
        rack.put_directory(persona, &format!("net-{persona}"), roots[(n + 2) % 3]);
    }
    for (binding, _, _, next) in all {
        rack.edit(binding, |spec| spec.target.server = Some(name(next)));
    }
    for (_, _, server, _) in all {
        let hold = rack.body(server).held_by.clone().unwrap();
        rack.store(&name(server), &Record::Release(hold));
    }
    let (_, plans) = rack.calm(60);
    assert_eq!((rack.runs("a"), rack.runs("b"), rack.runs("c")), (Some("r"), Some("p"), Some("q")), "{plans:?}");
}

/// Two go to machines that are free, each with what the other one ran: neither can come up before both have gone.
#[test]
fn bindings_that_move_and_exchange_what_they_run_make_way_for_each_other() {
    for (mode, rings) in [(Mode::Enforce, false), (Mode::Approve, false), (Mode::Enforce, true)] {
        let mut rack = Rack::new(&["a", "b", "c", "d"], &["p", "q", "r", "s"], 4);
        for persona in ["p", "q", "r", "s"] {
            rack.put_directory(persona, &format!("net-{persona}"), &format!("/{persona}"));
        }
        rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
        rack.bind("z", "q", "c", RunState::Running, Mode::Enforce);
        if rings {
            rack.bind("y", "r", "b", RunState::Running, Mode::Enforce);
            rack.bind("w", "s", "d", RunState::Running, Mode::Enforce);
        }
        rack.calm(20);
        for (binding, persona, next) in [("x", "q", "b"), ("z", "p", "d")] {
            rack.edit(binding, |spec| {
                (spec.persona, spec.target.server) = (name(persona), Some(name(next)));
                spec.correct = Some(Correct::All(mode));
            });
        }
        if rings {
            rack.edit("y", |spec| spec.target.server = Some(name("a")));
            rack.edit("w", |spec| spec.target.server = Some(name("c")));
        }
        let (_, plans) = rack.calm(60);
        if mode == Mode::Approve {
            assert_eq!((rack.runs("a"), rack.runs("c")), (Some("p"), Some("q")), "{plans:?}");
            ["x", "z"].into_iter().for_each(|binding| rack.approve(binding));
            rack.calm(60);
        }
        assert_eq!((rack.runs("b"), rack.runs("d")), (Some("q"), Some("p")), "{plans:?}");
    }
}

/// What one of them would leave was found running, and is not switched off before a person says so: until then the other one stays as well.
#[test]
fn nobody_leaves_for_a_body_that_waits_for_a_word() {
    let mut rack = Rack::new(&["a", "b", "c", "d"], &["p", "q"], 2);
    rack.put_directory("p", "net-p", "/p");
    rack.put_directory("q", "net-q", "/q");
    rack.press(&name("c"), Power::On);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.bind("z", "q", "c", RunState::Running, Mode::Enforce);
    rack.calm(20);
    assert_eq!(rack.runs("a"), Some("p"));
    rack.ops.clear();
    for (binding, persona, next) in [("x", "q", "b"), ("z", "p", "d")] {
        rack.edit(binding, |spec| (spec.persona, spec.target.server) = (name(persona), Some(name(next))));
    }
    let (_, plans) = rack.calm(60);
    let off = |server: &str| rack.ops.iter().any(|(at, op)| at.as_str() == server && matches!(op, Op::PowerOff { .. }));
    assert!(!off("a") && !off("c") && rack.runs("a") == Some("p"), "{:?} {plans:?}", rack.ops);
    let says = |server: &str| plans[&name(server)].waits.iter().any(|w| w.message.contains("`embody approve z`"));
    assert!(says("a") && says("c"), "{plans:?}");
    rack.approve("z");
    rack.calm(60);
    assert_eq!((rack.runs("b"), rack.runs("d")), (Some("q"), Some("p")));
}
