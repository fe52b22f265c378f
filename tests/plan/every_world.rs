//! Every world of two servers and two bindings: x desired state persona p (exclusive), y persona q (exclusive or not). A world is a desired state, what is
//! stored of the bodies, what truly runs, and what was last seen of it and when. Only sound worlds: what runs is in the evidence, and an
//! answer that came after a record does not contradict it.
//!
//! `no_step_from_any_world_is_unsafe`: one pass for one server, from every world, with every subset of its requests lost or unheard, leads
//! to a sound world again and breaks none of the checks of `rack`; since the start was any sound world, no run of passes does.
//! `every_world_comes_to_rest_as_wished`: without losses, all lead to the desired state and to empty plans.
//!
//! The other server counts for one server's plan only by its evidence, so the first test varies the one in all detail and the other in that.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use embody::model::Name;
use embody::model::binding::{Mode, RunState};
use embody::model::body::{Body, Found, Hold, OffIntent, Phase};
use embody::model::fact::{PortConfig, Power, Seen, Tick};
use embody::plan::Plan;
use embody::plan::observed::{Approval, Memory, Observed, PortSeenHere};

use crate::rack::{GRACE, Luck, QUARANTINE, Rack, Truth, access, name, port_of};

/// Records were made at this moment, unless a dimension says otherwise; a stale answer was asked before it, a fresh one after it.
const RECORDED: Tick = Tick(200_000_000);
const STALE: Tick = Tick(199_000_000);
const TAKEN: Tick = Tick(198_000_000);
const FRESH: Tick = Tick(230_000_000);
const NOW: Tick = Tick(231_000_000);

/// Where a binding is desired: on a, on b, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    A(RunState),
    B(RunState),
    Deleted,
}

impl At {
    fn server(self) -> Option<(&'static str, RunState)> {
        match self {
            At::A(state) => Some(("a", state)),
            At::B(state) => Some(("b", state)),
            At::Deleted => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consent {
    Enforce,
    /// Enforced, and what is found running is approved.
    EnforceApproved,
    ApproveNone,
    ApproveX,
    Observe,
}

#[derive(Debug, Clone, Copy)]
struct Intent {
    x: At,
    y: At,
    q_exclusive: bool,
    consent: Consent,
}

/// One server.
#[derive(Debug, Clone)]
struct Place {
    held: Option<&'static str>,
    release: Option<&'static str>,
    evidence: Option<(&'static str, Phase)>,
    power: Power,
    runs: Option<&'static str>,
    seen: Option<(Power, Tick)>,
    found: Found,
    /// Attempts, and when the last one was stored.
    off: Option<(u32, Tick)>,
    port: i64,
}

fn desired(consents: &[Consent]) -> Vec<Intent> {
    let states = [RunState::Running, RunState::Stopped];
    let all: Vec<At> = states.into_iter().flat_map(|s| [At::A(s), At::B(s)]).chain([At::Deleted]).collect();
    let mut out = Vec::new();
    for (x, y) in all.iter().flat_map(|x| all.iter().map(move |y| (*x, *y))) {
        let clash = x.server().zip(y.server()).is_some_and(|(x, y)| x.0 == y.0);
        for q_exclusive in [true, false] {
            out.extend(consents.iter().filter(|_| !clash).map(|&consent| Intent { x, y, q_exclusive, consent }));
        }
    }
    out
}

fn rack_of(desired: &Intent) -> Rack {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], if desired.q_exclusive { 2 } else { 1 });
    rack.quiet = true;
    let mode = match desired.consent {
        Consent::Enforce | Consent::EnforceApproved => Mode::Enforce,
        Consent::ApproveNone | Consent::ApproveX => Mode::Approve,
        Consent::Observe => Mode::Observe,
    };
    for (binding, persona, at) in [("x", "p", desired.x), ("y", "q", desired.y)] {
        let Some((server, state)) = at.server() else { continue };
        rack.bind(binding, persona, server, state, mode);
        let approved = match desired.consent {
            Consent::EnforceApproved => true,
            Consent::ApproveX => binding == "x",
            Consent::Enforce | Consent::ApproveNone | Consent::Observe => false,
        };
        if approved {
            rack.consent(binding, &everything(binding));
        }
    }
    rack
}

fn everything(binding: &str) -> Approval {
    let configs = [110, 120, QUARANTINE].map(access);
    let ops = ["a", "b"].into_iter().flat_map(|s| {
        let (switch, port) = port_of(s);
        let ports = configs.iter().map(move |to| format!("port {switch} {port} {to}"));
        [format!("power-off {s}"), format!("boot {s} Pxe")].into_iter().chain(ports)
    });
    Approval { uid: format!("uid-{binding}"), generation: 1, ops: ops.collect() }
}

/// Who holds a body and who must still release its release.
fn owners() -> Vec<(Option<&'static str>, Option<&'static str>)> {
    let any = [None, Some("x"), Some("y")];
    let pairs = any.into_iter().flat_map(|held| any.into_iter().map(move |release| (held, release)));
    pairs.filter(|(held, release)| held.is_none() || held != release).collect()
}

type Run = (Option<(&'static str, Phase)>, Power, Option<&'static str>);

/// Evidence, and what truly runs under it.
fn lives() -> Vec<Run> {
    let mut out = vec![(None, Power::Off, None), (None, Power::On, None)];
    for p in ["p", "q"] {
        for phase in [Phase::Answered, Phase::Armed, Phase::Started, Phase::Withdrawn] {
            out.push((Some((p, phase)), Power::Off, None));
            out.push((Some((p, phase)), Power::On, Some(p)));
            // Once it was seen off while the answer stood, a start can only be this persona's.
            if matches!(phase, Phase::Answered | Phase::Withdrawn) {
                out.push((Some((p, phase)), Power::On, None));
            }
        }
    }
    out
}

/// What was seen does not contradict what runs.
fn is_sound(place: &Place) -> bool {
    let seen_off = place.seen == Some((Power::Off, FRESH));
    let started_since = place.power == Power::On && seen_off;
    match (place.evidence, started_since) {
        // Seen off after the withdrawal: a start since then boots nothing of ours.
        (Some((_, Phase::Withdrawn)), true) => place.runs.is_none(),
        // Seen off while the answer stood: a start since then boots the persona.
        (Some(_), true) => place.runs.is_some(),
        (None, _) | (Some(_), false) => true,
    }
}

fn put(rack: &mut Rack, server: &str, place: &Place) {
    let hold = |b: &str| Hold { binding: name(b), uid: format!("uid-{b}") };
    let body = Body {
        held_by: place.held.map(hold),
        found: place.found,
        may_run: place.evidence.iter().map(|(p, phase)| (name(p), *phase)).collect(),
        off: place.off.map(|(attempt, _)| OffIntent { attempt, hard: attempt > 1, because: String::new() }),
        release: place.release.map(hold),
        restart_done: 0,
    };
    let at: std::collections::BTreeMap<Name, Tick> = place.evidence.iter().map(|(p, _)| (name(p), RECORDED)).collect();
    // Whoever knows how a body was found has asked since it was taken.
    let taken_at = if place.found == Found::Unknown { RECORDED } else { TAKEN };
    let memory = Memory {
        taken_at,
        answered_at: at.clone(),
        withdrawn_at: at,
        attempt_at: place.off.map_or(Tick::START, |(_, at)| at),
        ..Memory::default()
    };
    let seen = rack.seen.get_mut(server).unwrap();
    let (switches, approvals) = (std::mem::take(&mut seen.switches), std::mem::take(&mut seen.approvals));
    let config: PortConfig = access(place.port);
    let sight = PortSeenHere { config: config.clone(), asked_at: STALE, refuse: None };
    let power = place.seen.map(|(value, asked_at)| Seen { value, asked_at });
    let ports = [(port_of(server), sight)].into();
    *seen = Observed { body, memory, power, switches, approvals, ports, ..Observed::default() };
    let seen_off = place.seen == Some((Power::Off, FRESH));
    let off_since_taken = place.seen.is_some_and(|(power, at)| power == Power::Off && at > taken_at);
    let stranger = place.power == Power::On && matches!(place.found, Found::Unknown | Found::Running) && !off_since_taken;
    let wait = |(attempt, at): (u32, Tick)| at.plus(if attempt > 1 { embody::limits::HARD_OFF_WAIT } else { GRACE });
    let truth = Truth {
        power: place.power,
        runs: place.runs.map(name),
        stranger: stranger && place.held.or(place.release).is_some(),
        off_again_at: place.off.filter(|_| place.power == Power::On && !seen_off).map(wait),
        silent: false,
    };
    rack.truth.insert(name(server), truth);
    rack.ports.insert(port_of(server), config);
    rack.now = NOW;
}

/// One server in all detail.
fn places(ports: &[i64]) -> Vec<Place> {
    let mut out = Vec::new();
    for (held, release) in owners() {
        let owned = held.or(release).is_some();
        let found: &[Found] = if owned { &[Found::Off, Found::Running, Found::Unknown] } else { &[Found::Unknown] };
        for (evidence, power, runs) in lives() {
            let seen = [None, Some((Power::On, STALE)), Some((Power::Off, STALE)), Some((Power::On, FRESH)), Some((Power::Off, FRESH))];
            let offs = [None, Some((1, RECORDED)), Some((1, FRESH)), Some((4, RECORDED))];
            for (seen, off) in seen.into_iter().flat_map(|s| offs.into_iter().map(move |o| (s, o))) {
                for (&found, &port) in found.iter().flat_map(|f| ports.iter().map(move |p| (f, p))) {
                    out.push(Place { held, release, evidence, power, runs, seen, found, off, port });
                }
            }
        }
    }
    out.retain(is_sound);
    out
}

fn free() -> Place {
    let (held, release, evidence, power, runs) = (None, None, None, Power::Off, None);
    Place { held, release, evidence, power, runs, seen: None, found: Found::Unknown, off: None, port: 1 }
}

/// The other server, as far as it counts.
fn others() -> Vec<Place> {
    let mut out = vec![free()];
    for p in ["p", "q"] {
        out.push(Place { evidence: Some((p, Phase::Withdrawn)), power: Power::On, runs: Some(p), ..free() });
    }
    out
}

fn both_claim(desired: &Intent, one: &Place, other: &Place) -> bool {
    let exclusive = |p: &str| p == "p" || desired.q_exclusive;
    one.evidence.zip(other.evidence).is_some_and(|((p, _), (q, _))| p == q && exclusive(p))
}

/// Every combination of lucks for the requests of one pass.
fn fates(requests: usize) -> impl Iterator<Item = Vec<Luck>> {
    let digits =
        move |n: usize| (0..requests).map(move |i| [Luck::Good, Luck::Lost, Luck::Unheard][n / 3usize.pow(i as u32) % 3]).collect();
    (1..3usize.pow(requests as u32)).map(digits)
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
    rack.check();
    requests
}

/// What makes no difference to the plans of a: how a binding on b is to be, and whether a persona is exclusive that is not desired on a.
fn makes_a_difference(desired: &Intent) -> bool {
    let stopped_there = |at: At| at == At::B(RunState::Stopped);
    let q_here = matches!(desired.y, At::A(_));
    !stopped_there(desired.x) && !stopped_there(desired.y) && (q_here || desired.q_exclusive)
}

/// The evidence on b counts where that persona is desired on a.
fn counts(desired: &Intent, other: &Place) -> bool {
    match other.evidence {
        Some(("p", _)) => matches!(desired.x, At::A(_)),
        Some(_) => matches!(desired.y, At::A(_)),
        None => true,
    }
}

/// Worlds, and those in which something is sent.
fn walk(places: &[Place], consents: &[Consent]) -> (usize, usize) {
    let (mut worlds, mut acting) = (0, 0);
    for desired in desired(consents).iter().filter(|w| makes_a_difference(w)) {
        let mut rack = rack_of(desired);
        for other in others().iter().filter(|o| counts(desired, o)) {
            for one in places.iter().filter(|one| !both_claim(desired, one, other)) {
                worlds += 1;
                acting += usize::from(pass_safely(&mut rack, one, other) > 0);
            }
        }
    }
    (worlds, acting)
}

#[test]
fn no_step_from_any_world_is_unsafe() {
    let (worlds, acting) = walk(&places(&[50]), &[Consent::Enforce]);
    eprintln!("safety, enforced: {worlds} worlds, something is sent in {acting}");
    assert!(worlds > 150_000 && acting > 10_000, "{worlds} worlds, {acting} with something to do");
}

#[test]
fn no_step_from_any_world_goes_beyond_the_consent() {
    let mut places = places(&[50]);
    places.retain(|p| p.off.is_none() && p.seen.is_none_or(|(_, at)| at == FRESH));
    let consents = [Consent::EnforceApproved, Consent::ApproveNone, Consent::ApproveX, Consent::Observe];
    let (worlds, acting) = walk(&places, &consents);
    eprintln!("safety, by consent: {worlds} worlds, something is sent in {acting}");
    assert!(worlds > 30_000 && acting > 3_000, "{worlds} worlds, {acting} with something to do");
}

/// What the future depends on, when every device has just been asked and every deadline is over.
fn state_of(rack: &Rack) -> u64 {
    let mut state = DefaultHasher::new();
    for (server, seen) in &rack.seen {
        let (truth, memory) = (&rack.truth[server], &seen.memory);
        let boot_set = memory.boot_set_at > memory.off_seen_at.max(memory.answered_at.values().max().copied());
        (&seen.body, truth.power, &truth.runs, &rack.ports[&port_of(server.as_str())], boot_set, memory.on_tries).hash(&mut state);
    }
    state.finish()
}

/// Rounds without losses until nothing comes any more, or until a state that is known to end well.
fn comes_to_rest(rack: &mut Rack, desired: &Intent, good: &mut BTreeSet<u64>) -> usize {
    let mut path = Vec::new();
    loop {
        rack.pass(embody::limits::HARD_OFF_WAIT + GRACE);
        let state = state_of(rack);
        if good.contains(&state) {
            break;
        }
        path.push(state);
        let before = rack.events;
        let mut plans = Vec::new();
        for server in [name("a"), name("b")] {
            rack.look(&server);
            plans.push((server.clone(), rack.reconcile(&server, &mut || Luck::Good)));
        }
        if rack.events == before {
            ends_well(rack, desired, &plans);
            break;
        }
        if path.len() > 12 {
            rack.fail(&format!("{desired:?} does not come to rest"));
        }
    }
    let rounds = path.len();
    good.extend(path);
    rounds
}

/// The desired state is met and the plans are empty, but for what needs a person: a persona that still lives where its binding was deleted.
fn ends_well(rack: &Rack, desired: &Intent, plans: &[(Name, Plan)]) {
    for (server, plan) in plans {
        let waits_only = plan.steps.is_empty() && plan.problems.is_empty() && plan.waits.iter().all(|w| w.reason == "PersonaElsewhere");
        let needs_a_person = waits_only && is_left_elsewhere(rack, server);
        if !plan.is_converged() && !needs_a_person {
            rack.fail(&format!("{desired:?} ends with {server}: {plan:?}"));
        }
        if plan.is_converged() && rack.body(server.as_str()).release.is_some() {
            rack.fail(&format!("{desired:?} ends with a debt on {server}"));
        }
    }
    for (binding, persona, vlan, at) in [("x", "p", 110, desired.x), ("y", "q", 120, desired.y)] {
        let Some((server, state)) = at.server() else { continue };
        let (truth, body) = (&rack.truth[&name(server)], rack.body(server));
        let met = match state {
            RunState::Running => truth.runs == Some(name(persona)),
            RunState::Stopped => truth.power == Power::Off && body.may_run.is_empty(),
        };
        let held = body.held_by.as_ref().is_some_and(|h| h.binding.as_str() == binding);
        let port = rack.ports[&port_of(server)] == access(vlan);
        if !(held && met && port || state == RunState::Running && held && is_left_elsewhere(rack, &name(server))) {
            rack.fail(&format!("{desired:?} ends, and {binding} is not as desired"));
        }
    }
}

/// A body that nobody holds runs, by evidence, the exclusive persona that is desired here.
fn is_left_elsewhere(rack: &Rack, server: &Name) -> bool {
    let Some(holder) = rack.want(server).holder.clone() else { return false };
    rack.seen.iter().any(|(other, seen)| {
        let nobodys = seen.body.held_by.is_none() && seen.body.release.is_none() && rack.truth[other].power == Power::On;
        other != server && nobodys && holder.exclusive && seen.body.may_run.contains_key(&holder.persona)
    })
}

/// As a new process finds it: nothing is seen yet. Rich: with every evidence, and a switching-off that was begun; else what lasts.
fn unseen(owners: &[(Option<&'static str>, Option<&'static str>)], rich: bool) -> Vec<Place> {
    let mut out = Vec::new();
    for ((held, release), (evidence, power, runs)) in owners.iter().flat_map(|o| lives().into_iter().map(move |l| (*o, l))) {
        let owned = held.or(release).is_some();
        let on = power == Power::On;
        let lasting = match evidence {
            None => !on,
            Some((_, Phase::Armed)) => !on,
            Some((_, Phase::Started | Phase::Withdrawn)) => runs.is_some(),
            Some((_, Phase::Answered)) => false,
        };
        let begun = on && owned && evidence.is_none_or(|(_, phase)| phase == Phase::Withdrawn);
        let place = |found, off| Place { held, release, evidence, power, runs, found, off, port: 50, ..free() };
        let usual = place(if owned { Found::Off } else { Found::Unknown }, None);
        out.extend((rich || lasting).then(|| usual.clone()));
        out.extend((rich && owned).then(|| place(Found::Unknown, None)));
        out.extend((rich && begun).then(|| place(usual.found, Some((1, RECORDED)))));
    }
    out
}

#[test]
fn every_world_comes_to_rest_as_wished() {
    let ones = unseen(&owners(), true);
    let singly: Vec<_> = owners().into_iter().filter(|(_, release)| release.is_none()).collect();
    let others = unseen(&singly, false);
    let (mut worlds, mut states, mut longest) = (0, 0, 0);
    // Whether q is exclusive makes a difference only where it is to run.
    let runs = |y: At| y.server().is_some_and(|(_, state)| state == RunState::Running);
    for desired in desired(&[Consent::EnforceApproved]).iter().filter(|w| w.q_exclusive || runs(w.y)) {
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
    assert!(worlds > 100_000 && states > 10_000, "{worlds} worlds, {states} states");
}
