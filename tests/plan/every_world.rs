//! Every world of two servers and two bindings: x desires persona p (exclusive), y persona q. A world is a desired state, what is stored of
//! the bodies, what truly runs, what was delivered, and what was last seen and when. Only sound worlds: what runs is in the evidence, and an
//! answer that came after a record does not contradict it.
//!
//! `no_step_from_any_world_is_unsafe`: one pass for one server, from every world, with every subset of its requests lost, refused or unheard,
//! leads to a sound world again and breaks none of the checks of `checks`; since the start was any sound world, no run of passes does.
//! `every_world_comes_to_rest`: without losses, all lead to the desired state, or to one that names what a person can say.
//! The worlds themselves are in `worlds`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use embody::testing::limits;
use embody::testing::model::binding::RunState;
use embody::testing::model::fact::{Power, Tick};
use embody::testing::model::op::{Off, Op};
use embody::testing::model::{Name, Reason};
use embody::testing::plan::Plan;

use crate::rack::{GRACE, Luck, Rack, access, name, port_of};
use crate::worlds::{At, Consent, Intent, Place, both_claim, counts, desired, others, places, put, rack_of, unseen};

/// Every combination of lucks for the requests of one pass.
fn fates(requests: usize) -> impl Iterator<Item = Vec<Luck>> {
    let lucks = [Luck::Good, Luck::Lost, Luck::Unheard, Luck::Refused];
    let digits = move |n: usize| (0..requests).map(move |i| lucks[n / 4usize.pow(i as u32) % 4]).collect();
    (1..4usize.pow(requests as u32)).map(digits)
}

fn pass_safely(rack: &mut Rack, one: &Place, other: &Place) -> usize {
    let a = name("a");
    put(rack, "a", one);
    put(rack, "b", other);
    let before = rack.sent;
    rack.reconcile(&a, &mut || Luck::Good);
    // A poll that is lost changes nothing: only what is sent has a fate.
    let requests = rack.sent - before;
    for fate in fates(requests) {
        put(rack, "a", one);
        let mut fate = fate.into_iter();
        rack.reconcile(&a, &mut || fate.next().unwrap_or(Luck::Lost));
    }
    requests
}

/// Worlds, and those in which something is sent.
fn walk(places: &[Place], intents: &[Intent]) -> (usize, usize) {
    let (mut worlds, mut acting) = (0, 0);
    for desired in intents {
        let mut rack = rack_of(desired);
        for other in others().iter().filter(|o| counts(desired, o)) {
            let plain_only = *other != others()[0];
            for one in places.iter().filter(|one| !both_claim(desired, one, other) && one.matters(desired)) {
                if plain_only && !one.is_plain() {
                    continue;
                }
                worlds += 1;
                acting += usize::from(pass_safely(&mut rack, one, other) > 0);
            }
        }
    }
    (worlds, acting)
}

#[test]
fn no_step_from_any_world_is_unsafe() {
    let (worlds, acting) = walk(&places(), &desired(Consent::Enforce));
    eprintln!("safety, enforced: {worlds} worlds, something is sent in {acting}");
    assert!(worlds > 50_000 && acting > 5_000, "{worlds} worlds, {acting} with something to do");
}

#[test]
fn no_step_from_any_world_goes_beyond_the_consent() {
    let mut places = places();
    places.retain(Place::asks_for_consent);
    let (mut worlds, mut acting) = (0, 0);
    for consent in [Consent::ApproveNone, Consent::ApproveX, Consent::Observe, Consent::Paused] {
        let (all, some) = walk(&places, &desired(consent));
        if matches!(consent, Consent::Observe | Consent::Paused | Consent::ApproveNone) {
            assert_eq!(some, 0, "{consent:?}");
        }
        (worlds, acting) = (worlds + all, acting + some);
    }
    eprintln!("safety, by consent: {worlds} worlds, something is sent in {acting}");
    assert!(worlds > 20_000 && acting > 1_000, "{worlds} worlds, {acting} with something to do");
}

/// What the future depends on, when every device has just been asked and every deadline is over.
fn state_of(rack: &Rack) -> u64 {
    let mut state = DefaultHasher::new();
    for (server, seen) in &rack.seen {
        let (truth, memory) = (&rack.truth[server], &seen.memory);
        let latest = |m: &std::collections::BTreeMap<Name, Tick>| m.values().max().copied();
        let boot_set = memory.boot_set_at > memory.off_since().max(latest(&memory.answered_at));
        let moments = [latest(&memory.withdrawn_at).unwrap_or_default(), memory.soft_at.max(memory.hard_at), memory.on_sent_at];
        let seen_off = moments.map(|at| memory.off_after(at).is_some());
        (&seen.body, seen.unreadable, truth.power, &truth.runs, truth.boot, &rack.ports[&port_of(server.as_str())]).hash(&mut state);
        (boot_set, seen_off, memory.on_tries, memory.off_since().is_some()).hash(&mut state);
    }
    state.finish()
}

/// Rounds without losses until nothing comes any more, or until a state that is known to end well.
fn comes_to_rest(rack: &mut Rack, desired: &Intent, good: &mut BTreeSet<u64>) -> usize {
    let mut path = Vec::new();
    let mut quiet = 0;
    loop {
        rack.pass(limits::HARD_OFF_WAIT + GRACE);
        let state = state_of(rack);
        if good.contains(&state) {
            break;
        }
        path.push(state);
        let before = rack.events;
        let mut plans = Vec::new();
        for server in [name("a"), name("b")] {
            rack.observe(&server);
            plans.push((server.clone(), rack.reconcile_well(&server)));
        }
        // The second of two answers may bring what the first did not.
        quiet = if rack.events == before { quiet + 1 } else { 0 };
        if quiet == 2 {
            ends_well(rack, desired, &plans);
            break;
        }
        if path.len() > 30 {
            rack.fail(&format!("{desired:?} does not come to rest"));
        }
    }
    let rounds = path.len();
    good.extend(path);
    rounds
}

/// What only a person ends, or what waits for another body that only a person ends.
fn names_a_person(plan: &Plan) -> bool {
    let waits = plan.waits.iter().map(|w| w.reason);
    let problems = plan.problems.iter().map(|p| p.reason);
    let for_others = [Reason::PersonaElsewhere, Reason::EvidenceUnreadable, Reason::ClaimReserved, Reason::TakeoverNotPossible];
    waits.chain(problems).any(|reason| for_others.contains(&reason) || reason.needs_a_person())
}

/// The desired state is met and the plans are empty, but for what needs a person.
fn ends_well(rack: &Rack, desired: &Intent, plans: &[(Name, Plan)]) {
    let needs_a_person = plans.iter().any(|(_, plan)| names_a_person(plan));
    for (server, plan) in plans {
        if !plan.steps.is_empty() || (!plan.is_converged() && !needs_a_person) {
            rack.fail(&format!("{desired:?} ends with {server}: {plan:?}"));
        }
        if plan.is_converged() && rack.body(server.as_str()).release.is_some() && !needs_a_person {
            rack.fail(&format!("{desired:?} ends with a debt on {server}"));
        }
    }
    for (binding, persona, vlan, at) in [("x", "p", 110, desired.x), ("y", "q", 120, desired.y)] {
        let Some((server, state)) = at.server() else { continue };
        let (truth, body) = (&rack.truth[server], rack.body(server));
        let met = match state {
            RunState::Running => truth.persona() == Some(persona),
            RunState::Stopped => truth.power == Power::Off && body.evidence.is_empty(),
        };
        let held = body.held_by.as_ref().is_some_and(|h| h.binding.as_str() == binding);
        let port = rack.ports[&port_of(server)] == access(vlan);
        if !(needs_a_person || held && met && port) {
            rack.fail(&format!("{desired:?} ends, and {binding} is not as desired"));
        }
    }
}

#[test]
fn every_world_comes_to_rest() {
    let (ones, others) = (unseen(true), unseen(false));
    let (mut worlds, mut states, mut longest) = (0, 0, 0);
    for desired in &desired(Consent::EnforceApproved) {
        let mut rack = rack_of(desired);
        let mut good = BTreeSet::new();
        for (one, other) in others.iter().flat_map(|o| ones.iter().map(move |one| (one, o))) {
            if both_claim(desired, one, other) {
                continue;
            }
            worlds += 1;
            put(&mut rack, "a", one);
            put(&mut rack, "b", other);
            longest = longest.max(comes_to_rest(&mut rack, desired, &mut good));
        }
        states += good.len();
    }
    eprintln!("liveness: {worlds} worlds, {states} states, at most {longest} rounds");
    assert!(worlds > 20_000 && states > 5_000, "{worlds} worlds, {states} states");
}

/// Operations by server and device, in order; a forecast takes every soft-off to work.
fn by_device<'a>(ops: impl Iterator<Item = (&'a Name, &'a Op)>) -> Vec<&'a Op> {
    let mut ops: Vec<_> = ops.filter(|(_, op)| !matches!(op, Op::PowerOff { how: Off::Hard, .. })).collect();
    ops.sort_by_key(|(server, op)| ((*server).clone(), op.device()));
    ops.into_iter().map(|(_, op)| op).collect()
}

#[test]
fn every_forecast_ends_and_comes_true() {
    let (mut ones, others) = (unseen(true), others());
    ones.retain(Place::is_foreseeable);
    let (mut worlds, mut foreseen) = (0, 0);
    for desired in &desired(Consent::EnforceApproved) {
        let mut rack = rack_of(desired);
        for (one, other) in others.iter().flat_map(|o| ones.iter().map(move |one| (one, o))) {
            // Whose release comes first, where two claim one thing, is a matter of a moment.
            let a_race = one.release.is_some() && *other != others[0];
            if both_claim(desired, one, other) || other.silent || a_race || !counts(desired, other) {
                continue;
            }
            worlds += 1;
            put(&mut rack, "a", one);
            put(&mut rack, "b", other);
            ["a", "b"].iter().for_each(|server| rack.observe(&name(server)));
            let future = rack.forecast();
            if future.problems.iter().any(|(_, p)| p.reason == Reason::ForecastTooLong) {
                rack.fail(&format!("{desired:?}: the forecast does not end"));
            }
            let before = rack.sent;
            rack.ops.clear();
            rack.calm(40);
            let (is, was) =
                (by_device(rack.ops.iter().map(|(s, op)| (s, op))), by_device(future.steps.iter().map(|f| (&f.server, &f.step.op))));
            if is != was {
                let words = |ops: &[&Op]| ops.iter().map(|op| op.to_string()).collect::<Vec<_>>().join(", ");
                rack.fail(&format!("{desired:?}\nforeseen {}\nsent     {}\nfrom {one:?}\nand {other:?}", words(&was), words(&is)));
            }
            foreseen += rack.sent - before;
        }
    }
    eprintln!("forecasts: {worlds} worlds, {foreseen} operations foreseen and sent");
    assert!(worlds > 2_000 && foreseen > 2_000, "{worlds} worlds, {foreseen} operations");
}

/// So that a variant that is added is thought of.
#[test]
fn both_bindings_are_desired_everywhere() {
    let all = desired(Consent::Enforce);
    for at in [At::A(RunState::Running), At::A(RunState::Stopped), At::B(RunState::Running), At::Deleted] {
        assert!(all.iter().any(|i| i.x == at) && all.iter().any(|i| i.y == at), "{at:?}");
    }
}
