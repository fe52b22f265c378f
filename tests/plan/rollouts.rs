//! Every world of `worlds` in which persona p has a rollout: whoever waits for its turn is not switched off for it, and nobody is towards an image
//! that is not here. That nothing unsafe is done in its turn, and that it comes to its end, `every_world` shows.

use embody::testing::model::Spec;
use embody::testing::model::body::Phase;
use embody::testing::model::fact::Power;
use embody::testing::model::op::Op;
use embody::testing::model::persona::{Kernel, Rollout};
use embody::testing::plan::Plan;
use embody::testing::plan::record::Record;
use embody::testing::plan::rollout::Turn;

use crate::rack::{Rack, name};
use crate::worlds::{Consent, Intent, Rolls, desired, others, places, put, rack_of};

impl Rack {
    /// This persona has a rollout. Missing: and its image is not here, so that all that runs is old.
    pub fn rolls(&mut self, persona: &str, missing: bool) {
        let mut spec = self.objects.personas[persona].spec.clone();
        spec.rollout = Some(Rollout::default());
        if missing {
            spec.kernel = Some(Kernel { image: Some("none:1".parse().unwrap()), ..Kernel::default() });
        }
        self.put(persona, Spec::Persona(spec));
    }
}

/// It is switched off, or its end begins.
fn ends(plan: &Plan) -> bool {
    let off = plan.steps.iter().any(|step| matches!(step.op, Op::PowerOff { .. }));
    off || plan.records.iter().any(|record| matches!(record, Record::Withdraw(_)))
}

fn racks(of: Rolls) -> impl Iterator<Item = (Rack, Rack)> {
    let intents = desired(Consent::Enforce).into_iter().filter(move |intent| intent.rolls == of);
    intents.map(|intent| (rack_of(&intent), rack_of(&Intent { rolls: Rolls::No, ..intent })))
}

#[test]
fn whoever_waits_for_its_turn_is_not_switched_off_for_it() {
    let (a, mut worlds, mut goes) = (name("a"), 0, 0);
    for (mut waits, mut without) in racks(Rolls::Waits) {
        for place in places() {
            for rack in [&mut waits, &mut without] {
                put(rack, "a", &place);
                put(rack, "b", &others()[0]);
            }
            worlds += 1;
            if ends(&waits.plan(&a)) && !ends(&without.plan(&a)) {
                waits.fail(&format!("{place:?}: its end begins, and without a rollout it would not"));
            }
            // In its turn what runs the old revision is restarted, as far as nothing else is to be said of it.
            waits.seen.get_mut(&a).unwrap().turn = Turn::Go;
            goes += usize::from(ends(&waits.plan(&a)) && !ends(&without.plan(&a)));
            waits.seen.get_mut(&a).unwrap().turn = Turn::NotKnown;
            if ends(&waits.plan(&a)) && !ends(&without.plan(&a)) {
                waits.fail(&format!("{place:?}: its end begins before anybody has said that it is its turn"));
            }
        }
    }
    eprintln!("rollouts: {worlds} worlds, in {goes} something goes in its turn alone");
    assert!(worlds > 5_000 && goes > 5, "{worlds} worlds, {goes}");
}

#[test]
fn nothing_is_switched_off_towards_an_image_that_is_missing() {
    let (a, mut worlds, mut old) = (name("a"), 0, 0);
    for (mut missing, _) in racks(Rolls::Missing) {
        for place in places() {
            put(&mut missing, "a", &place);
            put(&mut missing, "b", &others()[0]);
            let body = missing.body("a");
            let runs = body.evidence.values().any(|e| e.phase == Phase::Started && e.stands());
            if body.release.is_some() || !missing.seen[&a].is(Power::On) {
                continue;
            }
            worlds += 1;
            old += usize::from(runs);
            if ends(&missing.plan(&a)) {
                missing.fail(&format!("{place:?}: its end begins, and nothing could start after it"));
            }
        }
    }
    assert!(worlds > 1_000 && old > 100, "{worlds} worlds, {old}");
}
