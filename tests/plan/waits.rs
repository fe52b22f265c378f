//! A machine that is on and waits for something to boot: what it takes to be told its persona without being switched off and on.

use std::time::Duration;

use embody::testing::model::Reason;
use embody::testing::model::Spec;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::{Found, Phase};
use embody::testing::model::fact::Power;
use embody::testing::model::op::Op;
use embody::testing::plan::observed::Trouble;
use serde_json::json;

use crate::rack::{Luck, Rack, access, name, port_of, spec_of};

const ASKS_EVERY: Duration = Duration::from_secs(10);

impl Rack {
    /// Servers a and b; machines boot over the network of persona p.
    fn that_boots() -> Rack {
        let mut rack = Rack::new(&["a", "b"], &["p"], 1);
        let boot = json!({ "range": "10.1.10.100-10.1.10.199", "mode": "full" });
        rack.put("net-p", Spec::Network(spec_of(json!({ "vlan": 110, "subnet": "10.1.10.0/24", "boot": boot }))));
        rack
    }

    /// Somebody switches server a on; it finds nothing to boot, and says so twice.
    fn with_a_that_waits() -> Rack {
        let mut rack = Rack::that_boots();
        let a = name("a");
        rack.press(&a, Power::On);
        rack.observe(&a);
        rack.asks();
        rack.asks();
        rack
    }

    /// Server a asks what to boot, as its parking script does: it is told what is answered, or to wait.
    fn asks(&mut self) {
        let a = name("a");
        self.pass(ASKS_EVERY);
        let armed = self.seen[&a].body.standing().is_some_and(|(_, evidence)| evidence.phase == Phase::Armed);
        let at = self.tick();
        if armed {
            self.starts(&a);
        } else {
            self.seen.get_mut(&a).unwrap().memory.was_parked(true, at);
            // Its firmware asks: nothing else runs there.
            self.truth.get_mut(&a).unwrap().stranger = false;
        }
        self.observe(&a);
    }

    /// So often, with what follows from it. Whether it was told its persona.
    fn asks_often(&mut self, times: u32) -> bool {
        for _ in 0..times {
            self.asks();
            if self.runs("a") == Some("p") {
                return true;
            }
            self.reconcile_well(&name("a"));
        }
        false
    }

    fn power_ops(&self) -> usize {
        self.ops.iter().filter(|(_, op)| matches!(op, Op::PowerOn { .. } | Op::PowerOff { .. })).count()
    }
}

#[test]
fn it_is_told_without_being_switched_off() {
    let mut rack = Rack::with_a_that_waits();
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    assert!(rack.asks_often(10), "{:?}", rack.history);
    assert_eq!((rack.power_ops(), rack.body("a").found), (0, Found::Off));
}

/// It asks once when a person restarts it, and may run anything since.
#[test]
fn one_question_says_nothing() {
    let mut rack = Rack::that_boots();
    let a = name("a");
    rack.press(&a, Power::On);
    rack.observe(&a);
    rack.asks();
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    for _ in 0..3 {
        rack.reconcile_well(&a);
        rack.pass(Duration::from_secs(1));
        rack.observe(&a);
    }
    assert_eq!((rack.body("a").found, rack.body("a").evidence.len()), (Found::Unknown, 0), "{:?}", rack.history);
    // It is silent after that.
    rack.pass(Duration::from_secs(120));
    rack.observe(&a);
    rack.reconcile_well(&a);
    assert_eq!(rack.body("a").found, Found::Running);
}

/// It was switched off and on since: what it asked before says nothing of what it runs now.
#[test]
fn what_it_asked_before_its_last_start_says_nothing() {
    let mut rack = Rack::with_a_that_waits();
    let a = name("a");
    rack.press(&a, Power::Off);
    rack.observe(&a);
    rack.press(&a, Power::On);
    rack.observe(&a);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.reconcile_well(&a);
    rack.observe(&a);
    rack.reconcile_well(&a);
    assert_eq!(rack.body("a").found, Found::Running, "{:?}", rack.history);
}

/// It ran when it was bound. That it restarts and waits is not what a person was asked to approve.
#[test]
fn what_was_found_running_is_told_nothing_without_an_approval() {
    let mut rack = Rack::that_boots();
    let a = name("a");
    rack.press(&a, Power::On);
    rack.observe(&a);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.reconcile_well(&a);
    assert_eq!(rack.body("a").found, Found::Running);
    assert!(!rack.asks_often(10), "{:?}", rack.history);
    assert_eq!(rack.power_ops(), 0, "{:?}", rack.history);
}

/// There is no operation here that a person could approve.
#[test]
fn a_plane_that_a_person_approves_or_only_looks_at_is_not_started() {
    for mode in [Mode::Approve, Mode::Observe] {
        let mut rack = Rack::with_a_that_waits();
        rack.bind("x", "p", "a", RunState::Running, mode);
        assert!(!rack.asks_often(10), "{mode:?}: {:?}", rack.history);
        assert_eq!(rack.power_ops(), 0, "{mode:?}: {:?}", rack.history);
    }
}

/// Its start would be seen by nothing.
#[test]
fn where_nothing_boots_over_the_network_it_is_not_told() {
    let mut rack = Rack::with_a_that_waits();
    rack.put("net-p", Spec::Network(spec_of(json!({ "vlan": 110 }))));
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    assert!(!rack.asks_often(10), "{:?}", rack.history);
    assert_eq!(rack.body("a").found, Found::Running);
}

/// Between the answer and the word that it may be told, a person pauses it.
#[test]
fn what_is_stopped_meanwhile_is_not_told() {
    let mut rack = Rack::with_a_that_waits();
    let a = name("a");
    rack.ports.insert(port_of("a"), access(110));
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    let answered = |rack: &Rack| rack.phase("a", "p") == Some((Phase::Answered, false));
    for _ in 0..10 {
        if answered(&rack) {
            break;
        }
        rack.observe(&a);
        let plan = rack.plan(&a);
        plan.records.iter().for_each(|record| rack.store(&a, record));
    }
    assert!(answered(&rack), "{:?}", rack.history);
    let paused = Trouble { reason: Reason::Paused, message: "paused".to_owned() };
    rack.seen.get_mut(&a).unwrap().stopped.insert(name("x"), paused);
    assert!(!rack.asks_often(10), "{:?}", rack.history);
    assert_eq!(rack.power_ops(), 0, "{:?}", rack.history);
}

/// What it would come up in is seen before it is told.
#[test]
fn its_ports_come_first() {
    let mut rack = Rack::with_a_that_waits();
    let a = name("a");
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    let mut lost = || Luck::Lost;
    for _ in 0..5 {
        rack.asks();
        rack.reconcile(&a, &mut lost);
        assert_eq!(rack.runs("a"), None, "its port is not as desired yet: {:?}", rack.history);
    }
    assert!(rack.asks_often(10), "{:?}", rack.history);
}
