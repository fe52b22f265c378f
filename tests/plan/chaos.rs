//! Properties beyond two servers: three servers, three bindings, everything that people and devices do, in any order and with anything
//! lost; the checks of `rack` at every step. Then calm: it must come to rest in the desired state, with empty plans.
//!
//! Deterministic: the seed is fixed (`EMBODY_SEED` chooses another, `EMBODY_CASES` how many), and a failing case prints its history.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use embody::testing::model::binding::{Correct, Mode, RunState};
use embody::testing::model::body::Found;
use embody::testing::model::fact::Power;
use embody::testing::model::op::Op;
use embody::testing::model::{Name, Reason};
use embody::testing::plan::forecast::Future;
use embody::testing::plan::record::Record;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::rack::{Luck, QUARANTINE, Rack, access, name, port_of};

const SERVERS: [&str; 3] = ["a", "b", "c"];
const BINDINGS: [&str; 3] = ["x", "y", "z"];
const PERSONAS: [&str; 3] = ["p", "q", "r"];
/// Of them: `r` may live in many bodies.
const EXCLUSIVE: usize = 2;

#[derive(Debug, Clone)]
enum Event {
    /// A pass of the loop; the luck of its requests, one after the other.
    Reconcile(usize, Vec<Luck>),
    Observe(usize),
    Pass(u64),
    Button(usize, Power),
    Reboot(usize),
    PortByHand(usize, i64),
    Bind {
        binding: usize,
        persona: usize,
        server: usize,
        mode: Mode,
    },
    Swap(usize, usize),
    Unbind(usize),
    State(usize, RunState),
    Correct(usize, Mode),
    Restart(usize),
    Approve(usize),
    Adopt(usize),
    Silent(usize, bool),
    ProcessRestart,
}

fn event() -> impl Strategy<Value = Event> {
    let luck = prop_oneof![4 => Just(Luck::Good), 1 => Just(Luck::Lost), 1 => Just(Luck::Unheard)];
    let mode = prop_oneof![4 => Just(Mode::Enforce), 2 => Just(Mode::Approve), 1 => Just(Mode::Observe)];
    let power = prop_oneof![Just(Power::On), Just(Power::Off)];
    let state = prop_oneof![Just(RunState::Running), Just(RunState::Stopped)];
    let bind = (0..3usize, 0..3usize, 0..3usize, mode.clone());
    prop_oneof![
        30 => (0..3usize, prop::collection::vec(luck, 0..4)).prop_map(|(s, luck)| Event::Reconcile(s, luck)),
        16 => (0..3usize).prop_map(Event::Observe),
        4 => prop_oneof![Just(1u64), Just(11), Just(61)].prop_map(Event::Pass),
        3 => (0..3usize, power).prop_map(|(s, power)| Event::Button(s, power)),
        2 => (0..3usize).prop_map(Event::Reboot),
        2 => (0..3usize, prop_oneof![Just(1i64), Just(50), Just(QUARANTINE)]).prop_map(|(s, vlan)| Event::PortByHand(s, vlan)),
        8 => bind.prop_map(|(binding, persona, server, mode)| Event::Bind { binding, persona, server, mode }),
        2 => (0..3usize, 0..3usize).prop_map(|(a, b)| Event::Swap(a, b)),
        2 => (0..3usize).prop_map(Event::Unbind),
        2 => (0..3usize, state).prop_map(|(b, state)| Event::State(b, state)),
        2 => (0..3usize, mode).prop_map(|(b, mode)| Event::Correct(b, mode)),
        1 => (0..3usize).prop_map(Event::Restart),
        3 => (0..3usize).prop_map(Event::Approve),
        1 => (0..3usize).prop_map(Event::Adopt),
        2 => (0..3usize, any::<bool>()).prop_map(|(s, silent)| Event::Silent(s, silent)),
        1 => Just(Event::ProcessRestart),
    ]
}

impl Rack {
    fn suffer(&mut self, event: &Event) {
        match event {
            Event::Reconcile(s, luck) => {
                let mut luck = luck.iter().copied();
                self.reconcile(&name(SERVERS[*s]), &mut || luck.next().unwrap_or(Luck::Good));
            }
            Event::Observe(s) => self.observe(&name(SERVERS[*s])),
            Event::Pass(seconds) => self.pass(Duration::from_secs(*seconds)),
            Event::Button(s, power) => {
                self.note(format_args!("a person switches {} {power}", SERVERS[*s]));
                self.press(&name(SERVERS[*s]), *power);
            }
            Event::Reboot(s) => {
                if self.truth[SERVERS[*s]].power == Power::On {
                    self.note(format_args!("{} starts again", SERVERS[*s]));
                    self.starts(&name(SERVERS[*s]));
                }
            }
            Event::PortByHand(s, vlan) => drop(self.ports.insert(port_of(SERVERS[*s]), access(*vlan))),
            Event::Bind { binding, persona, server, mode } => {
                if self.is_lint_clean(BINDINGS[*binding], PERSONAS[*persona], SERVERS[*server]) {
                    self.bind(BINDINGS[*binding], PERSONAS[*persona], SERVERS[*server], RunState::Running, *mode);
                }
            }
            Event::Swap(one, other) => self.swap(BINDINGS[*one], BINDINGS[*other]),
            Event::Unbind(b) => self.unbind(BINDINGS[*b]),
            Event::State(b, state) => self.edit(BINDINGS[*b], |spec| spec.state = *state),
            Event::Correct(b, mode) => self.edit(BINDINGS[*b], |spec| spec.correct = Some(Correct::All(*mode))),
            Event::Restart(b) => self.edit(BINDINGS[*b], |spec| spec.restart += 1),
            Event::Approve(b) => self.approve(BINDINGS[*b]),
            Event::Adopt(s) => self.adopt(&name(SERVERS[*s])),
            Event::Silent(s, silent) => self.truth.get_mut(SERVERS[*s]).unwrap().silent = *silent,
            Event::ProcessRestart => self.restart_process(),
        }
        self.check();
    }

    /// What lint refuses between objects: two bindings on one server, an exclusive persona bound twice.
    fn is_lint_clean(&self, binding: &str, persona: &str, server: &str) -> bool {
        let twice = self.is_exclusive(&name(persona));
        let others = self.objects.bindings.iter().filter(|(other, _)| other.as_str() != binding);
        let clash = |b: &embody::testing::model::BindingSpec| {
            b.target.server.as_ref().is_some_and(|s| s.as_str() == server) || (twice && b.persona.as_str() == persona)
        };
        !others.into_iter().any(|(_, held)| clash(&held.spec))
    }

    fn swap(&mut self, one: &str, other: &str) {
        let target = |rack: &Rack, b: &str| rack.objects.bindings.get(b).and_then(|h| h.spec.target.server.clone());
        let (Some(first), Some(second)) = (target(self, one), target(self, other)) else { return };
        self.edit(one, |spec| spec.target.server = Some(second));
        self.edit(other, |spec| spec.target.server = Some(first));
    }

    /// As `approve --adopt` does it: a body that was found running, seen on, and a persona that may run nowhere else.
    fn adopt(&mut self, server: &Name) {
        let want = self.want(server);
        let Some(holder) = &want.holder else { return };
        let now = self.sight(server, &want).clone();
        if let Ok(records) = embody::testing::plan::fence::adopt(holder, &now) {
            records.iter().for_each(|record| self.store(server, record));
            // The person is right, or it is not our fault: what runs there is what was declared.
            let truth = self.truth.get_mut(server).unwrap();
            truth.runs = (truth.power == Power::On).then(|| std::rc::Rc::new(holder.snapshot.clone()));
        }
    }

    /// Operators do their part: everything answers, every desired state is enforced or approved, and what nobody holds is switched off.
    fn hands(&mut self) {
        for truth in self.truth.values_mut() {
            truth.silent = false;
        }
        for binding in BINDINGS {
            self.edit(binding, |spec| spec.correct = Some(Correct::All(Mode::Enforce)));
        }
        for server in SERVERS {
            self.observe(&name(server));
        }
        let sent = self.ops.len();
        let foreseen = self.seen.values().all(|seen| seen.body.off.is_none() && !seen.body.on_sent).then(|| self.forecast());
        let (_, plans) = self.calm(60);
        if let Some(future) = foreseen.filter(|future| future.steps.iter().all(|f| !f.held)) {
            self.came_true(&future, sent);
            self.foreseen += future.steps.len();
        }
        for server in SERVERS.map(name) {
            let body = self.seen[&server].body.clone();
            if body.held_by.is_none() && body.release.is_none() {
                self.press(&server, Power::Off);
            }
            if matches!(body.found, Found::Running | Found::Adopted) {
                let held: BTreeSet<&str> = plans[&server].held.iter().map(|step| step.binding.as_str()).collect();
                held.into_iter().for_each(|binding| self.approve(binding));
            }
        }
    }

    /// What was foreseen is what was sent, server by server and in order on each device, and nothing else.
    fn came_true(&self, future: &Future, before: usize) {
        for server in SERVERS.map(name) {
            let mut foreseen: Vec<&Op> = future.steps.iter().filter(|f| f.server == server).map(|f| &f.step.op).collect();
            let mut sent: Vec<&Op> = self.ops[before..].iter().filter(|(s, _)| *s == server).map(|(_, op)| op).collect();
            for ops in [&mut foreseen, &mut sent] {
                ops.sort_by_key(|op| op.device());
            }
            if foreseen != sent {
                self.fail(&format!(
                    "of {server} was foreseen {foreseen:#?}
and sent {sent:#?}"
                ));
            }
        }
    }

    fn is_as_wished(&self) {
        for (binding, held) in &self.objects.bindings {
            let server = held.spec.target.server.clone().unwrap();
            let truth = &self.truth[&server];
            let desired = match held.spec.state {
                RunState::Running => truth.persona() == Some(held.spec.persona.as_str()) && self.body(server.as_str()).held_by.is_some(),
                RunState::Stopped => truth.power == Power::Off && self.body(server.as_str()).evidence.is_empty(),
            };
            let network = self.objects.personas[&held.spec.persona].spec.nics[0].untagged.clone().unwrap();
            let vlan = i64::from(self.objects.networks[&network].spec.vlan.id());
            if !desired || self.ports[&port_of(server.as_str())] != access(vlan) {
                self.fail(&format!("binding {binding} is not as desired: {truth:?}, port {}", self.ports[&port_of(server.as_str())]));
            }
        }
    }
}

fn from_env(key: &str, default: u64) -> u64 {
    std::env::var(key).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn chaos_is_safe_and_calm_follows() {
    let config = Config {
        cases: from_env("EMBODY_CASES", 800) as u32,
        rng_seed: RngSeed::Fixed(from_env("EMBODY_SEED", 1)),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let count = [Cell::new(0), Cell::new(0), Cell::new(0)];
    let outcome = TestRunner::new(config).run(&prop::collection::vec(event(), 1..120), |events| {
        let mut rack = Rack::new(&SERVERS, &PERSONAS, EXCLUSIVE);
        for event in &events {
            rack.suffer(event);
        }
        rack.hands();
        let (_, plans) = rack.calm(60);
        if let Some((server, plan)) = plans.iter().find(|(_, plan)| !plan.is_converged()) {
            rack.fail(&format!("{server} does not converge: {plan:#?}"));
        }
        rack.is_as_wished();
        let lives = rack.truth.values().filter(|t| t.runs.is_some()).count();
        for (sum, n) in count.iter().zip([rack.sent, rack.foreseen, lives]) {
            sum.set(sum.get() + n);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let [sent, foreseen, lives] = count.map(Cell::into_inner);
    eprintln!("chaos: {sent} operations sent, {foreseen} of them foreseen, {lives} personas alive at the end");
    assert!(sent > 3_000 && foreseen > 1_000 && lives > 500, "the chaos has become empty: {sent}, {foreseen}, {lives}");
}

/// A record that a person causes is checked like the others.
#[test]
fn nobody_adopts_what_lives_elsewhere() {
    let mut rack = Rack::new(&["a", "b"], &["p"], 1);
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(12);
    rack.unbind("x");
    rack.press(&name("b"), Power::On);
    rack.bind("y", "p", "b", RunState::Running, Mode::Enforce);
    rack.calm(12);
    let want = rack.want(&name("b"));
    let seen = rack.sight(&name("b"), &want).clone();
    let refused = embody::testing::plan::fence::adopt(want.holder.as_ref().unwrap(), &seen);
    assert_eq!(refused.unwrap_err().reason, Reason::PersonaElsewhere);
    rack.press(&name("a"), Power::Off);
    rack.calm(12);
    let seen = rack.sight(&name("b"), &want).clone();
    assert_eq!(
        embody::testing::plan::fence::adopt(want.holder.as_ref().unwrap(), &seen),
        Ok(vec![Record::Adopt(Box::new(want.holder.as_ref().unwrap().snapshot.clone()))])
    );
}
