//! The whole controller in virtual time, seed by seed: chaos with checkers on every step, then calm, then it must converge and fall silent. One seed
//! of twenty has a large data centre, in which many bodies are changed together; in some, desired state comes from directories.
//!
//! By default as many seeds are run as fit in three minutes, but at least 150 and at most 200: the same on each machine that is fast enough. `SEEDS=1..400` selects (`tests/run --long` takes 5,000, optimised), `SEED=46` replays one with a full trace. A failing seed prints what was violated, its fault plan, the last events
//! and the command that replays it.

#[path = "simulate/checkouts.rs"]
mod checkouts;
#[path = "simulate/hosts.rs"]
mod hosts;
#[path = "simulate/images.rs"]
mod images;
#[path = "simulate/listener.rs"]
mod listener;
#[path = "simulate/masses.rs"]
mod masses;
#[path = "simulate/operators.rs"]
mod operators;
#[path = "simulate/people.rs"]
mod people;
#[path = "simulate/plan.rs"]
mod plan;
#[path = "simulate/reckless.rs"]
mod reckless;
#[path = "simulate/rollouts.rs"]
mod rollouts;
#[path = "simulate/run.rs"]
mod run;
#[path = "simulate/starts.rs"]
mod starts;
#[path = "simulate/tend.rs"]
mod tend;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use embody::testing::sim::booting::BootFault;
use embody::testing::sim::line::Weather;
use plan::{Act, Do, Plan, Rogue, Stop};
use run::{Failure, Outcome, Sabotage};

/// As many seeds as fit in three minutes, within these bounds.
const MINUTES: Duration = Duration::from_secs(180);
const AT_LEAST: u64 = 150;
const AT_MOST: u64 = 200;

/// The seeds, and how many of them are run however long they take.
fn seeds() -> (RangeInclusive<u64>, u64) {
    let Ok(text) = std::env::var("SEEDS") else { return (1..=AT_MOST, AT_LEAST) };
    let (from, to) = text.split_once("..").unwrap_or((&text, &text));
    (from.parse().unwrap()..=to.trim_start_matches('=').parse().unwrap(), u64::MAX)
}

fn one(seed: u64, loud: bool) -> Result<Outcome, Failure> {
    catch_unwind(AssertUnwindSafe(|| run::run(&Plan::draw(seed), loud, Sabotage::None))).unwrap_or_else(|_| {
        let sentence = format!("seed {seed}: it panicked");
        Err(Failure { story: sentence.clone(), sentence })
    })
}

/// Two at a time: each seed is a runtime of its own.
fn all((seeds, at_least): (RangeInclusive<u64>, u64)) -> BTreeMap<u64, Result<Outcome, Failure>> {
    // Outside of every runtime it is the real time.
    let begun = tokio::time::Instant::now();
    let (next, results) = (AtomicU64::new(*seeds.start()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > *seeds.end() || (seed - seeds.start() >= at_least && begun.elapsed() > MINUTES) {
                        return;
                    }
                    let result = one(seed, false);
                    if let Err(failure) = &result {
                        eprintln!("seed {seed}: {}", failure.sentence.lines().next().unwrap_or_default());
                    }
                    results.lock().unwrap().insert(seed, result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

#[test]
fn seeds_keep_the_invariants_converge_and_fall_silent() {
    if let Ok(seed) = std::env::var("SEED") {
        match one(seed.parse().unwrap(), true) {
            Ok(outcome) => eprintln!("{outcome:?}"),
            Err(failure) => panic!("{}", failure.story),
        }
        return;
    }
    let results = all(seeds());
    let failed: Vec<(&u64, &Failure)> = results.iter().filter_map(|(seed, r)| r.as_ref().err().map(|f| (seed, f))).collect();
    for (_, failure) in failed.iter().take(3) {
        eprintln!("{}\n", failure.story);
    }
    let good: Vec<&Outcome> = results.values().filter_map(|r| r.as_ref().ok()).collect();
    let longest = good.iter().map(|o| o.converged_after).max().unwrap_or_default();
    let (ops, offs, tended): (u64, u64, usize) = good.iter().fold((0, 0, 0), |(a, b, c), o| (a + o.ops, b + o.offs, c + o.tended));
    let rolled: u64 = good.iter().map(|o| o.rolled).sum();
    let mut all: Vec<Duration> = good.iter().map(|o| o.converged_after).collect();
    all.sort();
    let median = all.get(all.len() / 2).copied().unwrap_or_default();
    eprintln!(
        "{} seeds: {ops} operations, {offs} of them offs, {rolled} of those by rollouts; converged after {median:?} (median), {longest:?} (longest); {tended} words of people in calm",
        results.len()
    );
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed: {:?}",
        failed.len(),
        results.len(),
        failed.iter().map(|(s, _)| **s).collect::<Vec<_>>()
    );
    assert!(ops > 0 && offs > 0, "nothing was done at all");
}

#[test]
fn the_same_seed_is_the_same_story() {
    assert!(Plan::draw(59).wired && !Plan::draw(3).wired, "both kinds of drivers");
    for seed in [3, 14, 17, 59] {
        let hash = |()| one(seed, false).map(|o| (o.hash, o.events)).map_err(|f| f.sentence);
        assert_eq!(hash(()), hash(()), "seed {seed}");
    }
}

/// A simulation that finds nothing may be blind. Each of these breaks one promise, and must be caught by the sentence about it.
#[test]
fn the_checkers_bite() {
    let at = Duration::from_secs;
    let moves = Act::Move { binding: 0, server: 2 };
    let cases = [
        ("invariant 6", Sabotage::ReportsOff, vec![(at(300), moves.clone())]),
        ("invariant 6", Sabotage::BootsFromMemory, vec![(at(300), moves.clone()), (at(600), Act::Button(0))]),
        ("invariant 8", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::Port))]),
        ("invariant 8", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::PortOfAnother(0)))]),
        ("invariant 9", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::OffWithoutIntent(0)))]),
        ("invariant 9", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::HardWithoutSoft(0)))]),
        ("invariant 9: the power of s0 is cut 0ns after", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::HardTooSoon(0)))]),
        ("invariant 10", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::OffOfStrange(3)))]),
        ("invariant 10", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::ForGood(0)))]),
        ("invariant 5", Sabotage::None, vec![(at(300), Act::Pause), (at(400), Act::Rogue(Rogue::Set))]),
        ("invariant 5", Sabotage::None, vec![(at(300), Act::CutOff(true)), (at(400), Act::Rogue(Rogue::Set))]),
        ("invariant 5", Sabotage::None, vec![(at(300), Act::CutOff(true)), (at(400), Act::Rogue(Rogue::Answer))]),
        ("invariant 6", Sabotage::None, vec![(at(300), Act::Rogue(Rogue::OneRootTwice))]),
        ("invariant 7", Sabotage::None, vec![(at(300), Act::SwapSwitch(0)), (at(320), Act::Rogue(Rogue::Set))]),
        ("invariant 7", Sabotage::None, vec![(at(300), Act::HideGuid(0)), (at(320), Act::Rogue(Rogue::OffWithoutIntent(0)))]),
    ];
    for (sentence, sabotage, acts) in cases {
        noticed(sentence, sabotage, &Plan::fair(1, acts));
    }
    // And without any of it all is well.
    let fair = run::run(&Plan::fair(1, vec![(at(300), moves)]), false, Sabotage::None).map_err(|f| f.story).unwrap();
    assert_eq!((fair.tended, fair.offs), (0, 1), "one move, one off, nobody had to help");
}

fn noticed(sentence: &str, sabotage: Sabotage, plan: &Plan) {
    let words = format!("{sabotage:?} {:?}", plan.acts);
    let failure = run::run(plan, false, sabotage).err().unwrap_or_else(|| panic!("{words}: nobody noticed"));
    assert!(failure.sentence.starts_with(sentence), "{words}: {}", failure.sentence);
}

#[test]
fn the_checkers_bite_on_rollouts() {
    let at = Duration::from_secs;
    let revise = (at(300), Act::Revise { back: false });
    let acts = vec![revise.clone(), (at(310), Act::Rogue(Rogue::RolledOff(1)))];
    noticed("a rollout takes down s1 while it has taken down s0 of persona p1", Sabotage::None, &Plan::fair(1, acts).rolled());
    for plan in [Plan::fair(1, vec![revise.clone()]).rolled(), Plan::fair(1, vec![revise]).rolled().booting()] {
        let fair = run::run(&plan, false, Sabotage::None).map_err(|f| f.story).unwrap();
        assert_eq!((fair.tended, fair.offs, fair.rolled), (0, 2, 2), "each once, and nobody had to help");
    }
}

/// What is told to machines, and believed of them.
#[test]
fn the_checkers_bite_on_starts() {
    let at = Duration::from_secs;
    let rogue = |rogue| vec![(at(300), Act::Rogue(rogue))];
    for (sentence, acts) in [
        ("invariant 16: s0 is told to start persona p1, which does not stand there", rogue(Rogue::Starts { server: 0, persona: 1 })),
        ("invariant 16: a hello of persona p0 is recorded of s0", rogue(Rogue::Hello(0))),
        (
            "invariant 16: binding b0 is said to be Ready",
            vec![(at(1), Act::Boot(0, BootFault::HelloLost(100))), (at(300), Act::Rogue(Rogue::Ready(0)))],
        ),
        ("invariant 16: the address 10.110.0.", rogue(Rogue::AddressOf { server: 1, other: 0 })),
    ] {
        noticed(sentence, Sabotage::None, &Plan::fair(1, acts).booting());
    }
    noticed("it does not converge: binding b0 is not Ready", Sabotage::NeverSaysHello, &Plan::fair(1, Vec::new()).booting());
    let fair = vec![
        (at(1), Act::Boot(0, BootFault::HelloLost(3))),
        (at(300), Act::BeginsAnew(0)),
        (at(400), Act::HelloAgain { server: 0, ago: 1, name: 0 }),
        (at(410), Act::HelloAgain { server: 0, ago: 0, name: 1 }),
        (at(450), Act::Boot(1, BootFault::Loops(at(60)))),
        (at(455), Act::BeginsAnew(1)),
        (at(600), Act::Boot(0, BootFault::Fails(1))),
        (at(610), Act::BeginsAnew(0)),
    ];
    let fair = run::run(&Plan::fair(1, fair).booting(), false, Sabotage::None).map_err(|f| f.story).unwrap();
    assert_eq!((fair.tended, fair.offs), (0, 0), "what begins anew comes up by itself");
}

/// What people say for a while, and a store that takes nothing for a while.
#[test]
fn the_checkers_bite_while_something_lasts() {
    let at = Duration::from_secs;
    let (set, hard) = (Act::Rogue(Rogue::Set), Act::Rogue(Rogue::HardWithoutSoft(0)));
    let moves = Act::Move { binding: 0, server: 2 };
    let allowed = |is| Act::HardOffWithoutSoft(is);
    for (sentence, sabotage, acts) in [
        ("invariant 5", Sabotage::None, vec![(at(300), Act::PauseFor(None, at(60))), (at(330), set.clone())]),
        ("", Sabotage::None, vec![(at(300), Act::PauseFor(None, at(60))), (at(400), set)]),
        ("", Sabotage::None, vec![(at(300), allowed(true)), (at(310), hard.clone())]),
        ("invariant 9", Sabotage::None, vec![(at(300), allowed(true)), (at(310), allowed(false)), (at(400), hard)]),
        ("invariant 9", Sabotage::PretendsToStore, vec![(at(299), Act::StoreFull(at(60))), (at(300), moves.clone())]),
        ("", Sabotage::None, vec![(at(299), Act::StoreFull(at(60))), (at(300), moves)]),
    ] {
        match sentence {
            "" => drop(run::run(&Plan::fair(1, acts), false, sabotage).map_err(|f| f.story).unwrap()),
            sentence => noticed(sentence, sabotage, &Plan::fair(1, acts)),
        }
    }
}

/// A machine that runs a persona from its disk is nowhere in the evidence: only what its record says of the disk keeps others away.
#[test]
fn the_checkers_bite_on_disks() {
    let at = Duration::from_secs;
    let stray =
        vec![(at(300), Act::Move { binding: 0, server: 2 }), (at(500), Act::DiskButton(0)), (at(700), Act::Move { binding: 0, server: 1 })];
    let forgotten = [(at(600), Act::ForgetDisk(0)), (at(601), Act::Kill { down: at(0) })];
    for wired in [false, true] {
        let plan = |acts: Vec<(Duration, Act)>| Plan { wired, ..Plan::fair(1, acts).on_disk() };
        let fair = run::run(&plan(stray.clone()), false, Sabotage::None).map_err(|f| f.story).unwrap();
        assert!(fair.tended > 0, "a person switches it off, as it says");
        let mut acts = stray.clone();
        acts.splice(2..2, forgotten.clone());
        noticed("invariant 6: persona p0 is in use on s1 and on s0", Sabotage::None, &plan(acts));
    }
}

/// The same of the real drivers: what leaves is read on the wire, and what a device says is what the driver makes of its datagrams.
#[test]
fn the_checkers_bite_on_the_wire() {
    let at = Duration::from_secs;
    let moves = Act::Move { binding: 0, server: 2 };
    let slow = Weather { takes: (at(1), at(2)), ..Weather::FAIR };
    let frozen = vec![(at(299), Act::FreezeAtNextOp(at(60))), (at(300), moves.clone())];
    let paused = vec![(at(299), Act::BmcWeather(0, slow)), (at(300), moves.clone()), (at(303), Act::Pause)];
    let shut_off = vec![(at(299), Act::FreezeAtNextOp(at(60))), (at(300), Act::Renumber { network: 0, vlan: 210 })];
    for (sentence, acts) in [
        ("invariant 5: IPMI s0 soft-off leaves controller 0 ", &frozen),
        ("invariant 5: IPMI s0 soft-off leaves ", &paused),
        ("invariant 5: a SET to ", &shut_off),
    ] {
        noticed(sentence, Sabotage::IgnoresTheGate, &Plan::fair(1, acts.clone()).wired());
        // The gate is what makes the difference.
        run::run(&Plan::fair(1, acts.clone()).wired(), false, Sabotage::None).map_err(|f| f.story).unwrap();
    }
    noticed("invariant 6", Sabotage::ReportsOff, &Plan::fair(1, vec![(at(300), moves.clone())]).wired());
    noticed("invariant 5: tor-1 is changed", Sabotage::None, &Plan::fair(1, vec![(at(300), Act::Rogue(Rogue::PastTheGate))]).wired());
    let fair = run::run(&Plan::fair(1, vec![(at(300), moves)]).wired(), false, Sabotage::None).map_err(|f| f.story).unwrap();
    assert_eq!((fair.tended, fair.offs), (0, 1), "one move, one off, nobody had to help");
}

/// What a person was shown, and said yes to: that alone, once, from where it was shown to start, of that generation, within the hour.
#[test]
fn the_checkers_bite_on_what_was_not_shown() {
    let at = Duration::from_secs;
    let (off, stop, approve) = (Act::Rogue(Rogue::OffWithoutIntent(0)), Act::Stop(0), Act::Mode { binding: 0, mode: "approve" });
    let write = |from, to| Act::Rogue(Rogue::Write { server: 0, from, to });
    let waits = vec![(at(300), approve), (at(310), stop)];
    let said =
        |acts: &[(Duration, Act)]| [waits.clone(), vec![(at(330), Act::Look(0)), (at(350), Act::ApproveShown(0))], acts.to_vec()].concat();
    let paused = |acts: &[(Duration, Act)]| said(&[&[(at(320), Act::PauseBinding(0))], acts].concat());
    let renumbered = vec![
        waits[0].clone(),
        (at(310), Act::Renumber { network: 0, vlan: 210 }),
        (at(330), Act::Look(0)),
        (at(340), Act::ApproveShown(0)),
    ];
    let strange = vec![(at(300), Act::Move { binding: 0, server: 3 })];
    for (sentence, fair, rogue) in [
        ("invariant 11: IPMI s0 power off leaves for s0: its changes wait", waits.clone(), vec![(at(400), off.clone())]),
        // It was done, and somebody has switched the machine on since.
        ("invariant 11", said(&[(at(500), Act::Button(0))]), vec![(at(600), off.clone())]),
        // It is another generation now.
        ("invariant 11", paused(&[(at(360), Act::Restart(0)), (at(430), Act::ResumeBinding(0))]), vec![(at(440), off.clone())]),
        // The hour is over.
        ("invariant 11", paused(&[(at(4100), Act::ResumeBinding(0))]), vec![(at(4120), off.clone())]),
        // The same with a clock that is set back, and a controller that begins again.
        (
            "invariant 11",
            paused(&[(at(360), Act::ClockJumps(-18_000)), (at(370), Act::Kill { down: at(1) }), (at(4100), Act::ResumeBinding(0))]),
            vec![(at(4120), off)],
        ),
        ("invariant 11: SNMP tor-1 port1 50 → 210", renumbered, vec![(at(700), write(50, 210))]),
        (
            "invariant 11: SNMP tor-1 port4 1 → 110 leaves for s3: it was found",
            strange,
            vec![(at(360), Act::Rogue(Rogue::Write { server: 3, from: 1, to: 110 }))],
        ),
    ] {
        bites(sentence, |acts| Plan { chaos: at(4200), ..Plan::fair(1, acts) }, fair, rogue);
    }
    let fair = run::run(&Plan::fair(1, said(&[])), false, Sabotage::None).map_err(|f| f.story).unwrap();
    assert_eq!(fair.offs, 1, "what was approved is done");
}

/// A world in which all is well, though people do this; and the same with one act that embody must never do.
fn bites(sentence: &str, world: impl Fn(Vec<(Duration, Act)>) -> Plan, fair: Vec<(Duration, Act)>, rogue: Vec<(Duration, Act)>) {
    let words = format!("{sentence}: {fair:?}");
    let sorted = |mut acts: Vec<(Duration, Act)>| {
        acts.sort_by_key(|(at, _)| *at);
        acts
    };
    let fair = sorted(fair);
    if let Err(failure) = run::run(&world(fair.clone()), false, Sabotage::None) {
        panic!("{words}: {}", failure.story);
    }
    noticed(sentence, Sabotage::None, &world(sorted([fair, rogue].concat())));
}

/// What stops something is lifted by the word for exactly that, or by its own end.
#[test]
fn the_checkers_bite_on_stops() {
    let at = Duration::from_secs;
    let write = |server| Act::Rogue(Rogue::Write { server, from: 110, to: 50 });
    let by_hand = |s| (at(s), Act::PortByHand { switch: 0, server: 0, vlan: 50, shut: false });
    let renumber = (at(320), Act::Renumber { network: 0, vlan: 210 });
    let all: Vec<usize> = (0..7).collect();
    let others = |s| {
        let acts = [Act::PauseBinding(0), Act::ResumeBinding(0), Act::Retry(0), Act::PauseFor(None, at(10)), Act::Kill { down: at(1) }];
        acts.into_iter().zip(s..).map(|(act, s)| (at(s), act)).collect::<Vec<_>>()
    };
    let mass = (at(300), Act::Many(all.clone(), Do::OtherNetwork));
    let dark = [vec![(at(300), Act::Silent(all.clone(), at(100))), (at(415), Act::Buttons(vec![1, 2]))], others(420)].concat();
    // Another controller counts anew: until then no other word lifts it.
    let held = [vec![mass.clone()], others(310).into_iter().take(4).collect()].concat();
    for (sentence, fair, rogue) in [
        ("invariant 5", vec![(at(300), Act::PauseOf(Stop::Server(0), at(100))), renumber.clone()], vec![(at(330), write(0))]),
        ("invariant 5", vec![(at(300), Act::PauseOf(Stop::Persona(0), at(100))), renumber.clone()], vec![(at(330), write(0))]),
        ("invariant 5", vec![(at(300), Act::PauseOf(Stop::Switch(0), at(100))), renumber.clone()], vec![(at(330), write(0))]),
        // Its end is an hour later, whatever the clock on the wall says.
        (
            "invariant 5",
            vec![(at(300), Act::PauseOf(Stop::Server(0), at(300))), (at(310), Act::ClockJumps(18_000)), renumber],
            vec![(at(400), write(0))],
        ),
        ("invariant 11: SNMP tor-1 port1 110 → 50 leaves for s0 while the breaker is open", dark.clone(), vec![(at(500), write(0))]),
        ("invariant 11: the breaker is closed", dark, vec![(at(600), Act::Rogue(Rogue::CloseBreaker))]),
        ("invariant 11: SNMP tor-1 port1 110 → 50 leaves for s0, which was held", held.clone(), vec![(at(420), write(0))]),
        // It goes off meanwhile: to start it, as nobody was asked about, is for a person as well.
        (
            "invariant 11: SNMP tor-1 port1 110 → 50 leaves for s0, which was held",
            [held, vec![(at(330), Act::Button(0))]].concat(),
            vec![(at(420), write(0))],
        ),
        (
            "invariant 11: SNMP tor-1 port1 110 → 50 leaves for s0, of which port tor-1 port1 was corrected three times",
            vec![by_hand(300), by_hand(430), by_hand(560), by_hand(690)],
            vec![(at(750), write(0))],
        ),
        ("invariant 10: SNMP tor-1 port6 110 → 50 leaves: 6 bodies", vec![mass], (0..6).map(|n| (at(330), write(n))).collect()),
    ] {
        bites(sentence, |acts| Plan::fair(1, acts).of(7), fair, rogue);
    }
}

/// A standby that takes over with an older checkout applies nothing of it; if it did, that would be noticed.
#[test]
fn the_checkers_bite_on_an_older_checkout() {
    let at = Duration::from_secs;
    let world = |acts| Plan { controllers: 2, sourced: true, ..Plan::fair(1, acts) };
    let fair = vec![(at(300), Act::Renumber { network: 0, vlan: 210 }), (at(400), Act::Kill { down: at(200) }), (at(800), Act::Pull(1))];
    bites("invariant 13: Network/web is stored as it was 1 commits ago", world, fair, vec![(at(390), Act::Rogue(Rogue::OldNetworks))]);
    // Its checkout has changed under its eyes, and what came after that was applied by the other one; what it holds never was.
    let renumber = |s, vlan| (at(s), Act::Renumber { network: 0, vlan });
    let behind =
        vec![renumber(301, 210), (at(302), Act::Pull(1)), renumber(303, 220), renumber(360, 230), (at(400), Act::Kill { down: at(200) })];
    run::run(&world(behind.clone()), false, Sabotage::None).map_err(|f| f.story).unwrap();
    // A process that begins anew did not see that.
    let killed = (at(455), Act::Kill { down: at(3) });
    run::run(&world(behind.into_iter().chain([killed]).collect()), false, Sabotage::None).map_err(|f| f.story).unwrap();
}
