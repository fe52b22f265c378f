//! What a person has booted once: no body is left without what it ran, and nothing is said of a persona that is not meant.

use embody::testing::model::Reason;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::{Body, BootsOnce, Found, Once};
use embody::testing::model::fact::Power;
use embody::testing::model::op::Op;
use embody::testing::plan::fence;
use embody::testing::plan::record::Record;
use serde_json::json;

use crate::rack::{Rack, name};

impl Rack {
    fn once(&mut self, server: &str, persona: &str) {
        let uid = self.body(server).held_by.as_ref().unwrap().uid.clone();
        let once = Once { boots: BootsOnce::Persona(name(persona)), uid, by: "ann".to_owned(), at: String::new() };
        self.store(&name(server), &Record::BootOnce(Box::new(once)));
    }

    fn power_ops_of(&self, server: &str) -> usize {
        let of_it = |(of, op): &&(_, Op)| *of == name(server) && matches!(op, Op::PowerOn { .. } | Op::PowerOff { .. });
        self.ops.iter().filter(of_it).count()
    }
}

/// p runs on a by binding x; q, where there is `elsewhere`, on b by binding y, and may live once.
fn p_on_a(elsewhere: bool) -> Rack {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    if elsewhere {
        rack.bind("y", "q", "b", RunState::Running, Mode::Enforce);
    }
    rack.calm(12);
    assert_eq!(rack.runs("a"), Some("p"));
    rack
}

#[test]
fn it_is_started_and_what_is_bound_follows() {
    let mut rack = p_on_a(false);
    rack.once("a", "q");
    rack.calm(12);
    assert_eq!(rack.runs("a"), Some("q"));
    rack.press(&name("a"), Power::Off);
    rack.calm(12);
    assert_eq!((rack.runs("a"), rack.body("a").once.as_ref()), (Some("p"), None), "{:?}", rack.history);
}

/// What is on its own disk is no persona: nothing is remembered of the disk, under whatever name.
#[test]
fn its_own_disk_is_called_by_no_name() {
    for (persona, remembered) in [("local", 0), ("windows", 1)] {
        let snapshot = json!({ "persona": persona, "hostname": "a", "arch": "x86_64", "boot": "Disk", "root": { "disk": {} },
            "claims": [], "macs": [], "digest": "0123456789ab" });
        let mut body = Body::default();
        Record::Answer(Box::new(serde_json::from_value(snapshot).unwrap())).apply(&mut body);
        Record::Arm(name(persona)).apply(&mut body);
        Record::Start(name(persona)).apply(&mut body);
        assert_eq!(body.on_disk.len(), remembered, "{persona}: {body:?}");
    }
}

/// It may live once, and lives elsewhere.
#[test]
fn what_runs_is_not_ended_for_what_could_not_start() {
    let mut rack = p_on_a(true);
    let before = rack.power_ops_of("a");
    rack.once("a", "q");
    let (_, plans) = rack.calm(12);
    assert_eq!((rack.runs("a"), rack.power_ops_of("a")), (Some("p"), before), "{:?}", rack.history);
    let waits: Vec<Reason> = plans[&name("a")].waits.iter().map(|wait| wait.reason).collect();
    assert!(waits.contains(&Reason::BootsOnce) && waits.contains(&Reason::PersonaElsewhere), "{waits:?}");
    // It goes off by itself, or by hand: what is bound is started again.
    rack.press(&name("a"), Power::Off);
    rack.calm(12);
    assert_eq!((rack.runs("a"), rack.body("a").once.as_ref()), (Some("p"), None), "{:?}", rack.history);
}

/// Whoever says what it runs says it of what is bound.
#[test]
fn nobody_adopts_what_is_booted_once() {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
    let a = name("a");
    rack.press(&a, Power::On);
    rack.observe(&a);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.reconcile_well(&a);
    assert_eq!(rack.body("a").found, Found::Running);
    let adopts = |rack: &Rack| {
        let want = rack.want(&a);
        fence::adopt(want.holder.as_ref().unwrap(), &rack.sight(&a, &want))
    };
    assert!(adopts(&rack).is_ok());
    rack.once("a", "q");
    let refused = adopts(&rack).unwrap_err();
    assert!(refused.reason == Reason::NothingToAdopt && refused.message.contains("--cancel"), "{refused:?}");
}
