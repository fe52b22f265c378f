//! Names that nothing has: of a body that is part of that, nothing is planned on any plane, and nothing counts as let go.
//!
//! Leaves out: which names those are in a whole apply (`tests/manifest.rs`). Objects come one by one and in any order from clients that send them so.

use std::time::Duration;

use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::fact::Power;
use embody::testing::model::op::{Off, Op};
use embody::testing::model::{Reason, Spec};
use serde_json::json;

use crate::rack::{Rack, access, name, port_of, spec_of};

fn server(switch: &str, secret: &str) -> Spec {
    let nic = json!({ "name": "nic1", "mac": "02:00:00:00:00:01", "switch": switch, "port": port_of("a").1, "boot": true });
    Spec::Server(spec_of(json!({ "bmc": { "address": "127.0.0.1", "secretRef": { "name": secret } }, "nics": [nic] })))
}

type Change = fn(&mut Rack);

/// What is lost, and how it is named again.
const LOST: [(Reason, Change, Change); 6] = [
    (
        Reason::PersonaMissing,
        |rack| rack.edit("x", |spec| spec.persona = name("none")),
        |rack| rack.edit("x", |spec| spec.persona = name("p")),
    ),
    (Reason::NetworkMissing, |rack| rack.put_persona("p", "none", true), |rack| rack.put_persona("p", "net-p", true)),
    (Reason::SwitchMissing, |rack| rack.put("a", server("none", "s")), |rack| rack.put("a", server("sw", "s"))),
    (Reason::SecretMissing, |rack| rack.put("a", server("sw", "none")), |rack| rack.put("a", server("sw", "s"))),
    (
        Reason::ServerMissing,
        |rack| rack.edit("x", |spec| spec.target.server = Some(name("none"))),
        |rack| rack.edit("x", |spec| spec.target.server = Some(name("a"))),
    ),
    (Reason::SecretMissing, |rack| rack.put("sw", switch("none")), |rack| rack.put("sw", switch("s"))),
];

fn switch(secret: &str) -> Spec {
    let snmp = json!({ "version": "v2c", "secretRef": { "name": secret }, "insecure": true });
    Spec::Switch(spec_of(json!({ "address": "127.0.0.1", "snmp": snmp, "manage": { "ports": [port_of("a").1, port_of("b").1] } })))
}

fn says(rack: &mut Rack, reason: Reason) -> bool {
    let (_, plans) = rack.calm(20);
    let plan = &plans[&name("a")];
    plan.problems.iter().map(|p| p.reason).chain(plan.waits.iter().map(|w| w.reason)).any(|said| said == reason)
}

#[test]
fn what_names_something_that_is_not_there_stays_as_it_is() {
    for (reason, lose, find) in LOST {
        for state in [RunState::Running, RunState::Stopped] {
            let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
            rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
            rack.calm(20);
            let body = rack.body("a").clone();
            rack.ops.clear();
            lose(&mut rack);
            rack.edit("x", |spec| (spec.restart, spec.state) = (1, state));
            assert!(says(&mut rack, reason), "{reason:?}");
            rack.pass(Duration::from_secs(3600));
            assert!(says(&mut rack, reason), "{reason:?}");
            assert_eq!((rack.ops.as_slice(), rack.runs("a")), ([].as_slice(), Some("p")), "{reason:?}");
            let now = rack.body("a");
            assert_eq!((&now.held_by, &now.release, &now.evidence), (&body.held_by, &body.release, &body.evidence), "{reason:?}");
            find(&mut rack);
            rack.calm(60);
            let restarted = rack.body("a").restart_done == 1 || state == RunState::Stopped;
            assert_eq!((rack.runs("a").is_some(), restarted), (state == RunState::Running, true), "{reason:?}");
        }
    }
}

/// Neither its power nor its port is put right meanwhile: what of it is desired is not known.
#[test]
fn nothing_of_it_is_corrected() {
    for (reason, lose, find) in LOST {
        let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
        rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
        rack.calm(20);
        lose(&mut rack);
        rack.ops.clear();
        rack.press(&name("a"), Power::Off);
        rack.ports.insert(port_of("a"), access(50));
        assert!(says(&mut rack, reason), "{reason:?}");
        assert!(rack.ops.is_empty(), "{reason:?}: {:?}", rack.ops);
        find(&mut rack);
        rack.calm(60);
        assert_eq!((rack.runs("a"), rack.ports[&port_of("a")].clone()), (Some("p"), access(110)), "{reason:?}");
    }
}

/// A switching-off that was begun goes no further.
#[test]
fn a_switching_off_is_not_made_a_hard_one() {
    for (reason, lose, find) in LOST {
        let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
        rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
        rack.calm(20);
        rack.truth.get_mut("a").unwrap().deaf = true;
        rack.edit("x", |spec| spec.state = RunState::Stopped);
        rack.ops.clear();
        for _ in 0..5 {
            rack.reconcile_well(&name("a"));
        }
        let sent = rack.ops.clone();
        assert!(matches!(sent.as_slice(), [(_, Op::PowerOff { how: Off::Soft, .. })]), "{sent:?}");
        lose(&mut rack);
        rack.pass(Duration::from_secs(3600));
        assert!(says(&mut rack, reason), "{reason:?}");
        assert_eq!((&rack.ops, rack.runs("a")), (&sent, Some("p")), "{reason:?}");
        find(&mut rack);
        rack.calm(60);
        assert_eq!(rack.runs("a"), None, "{reason:?}");
    }
}

/// Whoever is to come next has no say before whoever leaves has let go.
#[test]
fn who_leaves_does_not_wait_for_a_newcomer_that_names_nothing() {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(20);
    rack.bind("y", "none", "a", RunState::Running, Mode::Enforce);
    rack.edit("x", |spec| spec.target.server = Some(name("b")));
    let (_, plans) = rack.calm(60);
    assert_eq!((rack.runs("a"), rack.runs("b")), (None, Some("p")), "{plans:?}");
}
