//! What people do to many at once, or over time: changes in portions that come and go, plans that are shown now and approved later, words about stops.
//!
//! Drawn beside what else goes wrong (`plan`), from a source of chance of its own: a new kind of trouble leaves the others of a seed as they were.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, rngs::StdRng};

use crate::plan::{Act, Do, Plan, Stop, pick, secs};

/// How a change of many arrives.
#[derive(Debug, Clone, Copy)]
enum Pace {
    AtOnce,
    /// A few, every few seconds.
    Portions(usize, Duration),
    /// One by one, over minutes.
    Drip(Duration),
}

impl Plan {
    pub(crate) fn masses(&mut self, rng: &mut StdRng) {
        let mut more = Vec::new();
        if self.is_large() {
            for _ in 0..rng.random_range(2..=4) {
                self.mass(rng, &mut more);
            }
            if rng.random_bool(0.6) {
                self.outage(rng, &mut more);
            }
        } else if rng.random_bool(0.2) {
            self.affected = rng.random_range(1..=2);
            self.mass(rng, &mut more);
        }
        if rng.random_bool(0.4) {
            for _ in 0..rng.random_range(1..=6) {
                self.shown_and_approved(rng, &mut more);
            }
        }
        if rng.random_bool(0.2) {
            for _ in 0..rng.random_range(1..=4) {
                let hours = *pick(rng, &[-30, -5, -1, 1, 5, 30]);
                let act = Act::ClockJumps(hours * 3600 + rng.random_range(-1800..1800));
                more.push((self.some_time(rng), act));
            }
        }
        if rng.random_bool(0.2) {
            self.stops(rng, &mut more);
        }
        if !self.is_large() && rng.random_bool(0.15) {
            self.directories(rng, &mut more);
        }
        self.acts.extend(more);
        self.acts.sort_by_key(|(at, _)| *at);
    }

    fn some_time(&self, rng: &mut StdRng) -> Duration {
        secs(rng, 1, self.chaos.as_secs())
    }

    /// One change of many, and perhaps its taking back, while it is under way or after.
    fn mass(&self, rng: &mut StdRng, acts: &mut Vec<(Duration, Act)>) {
        let begins = secs(rng, 200, self.chaos.as_secs().saturating_sub(120).max(201));
        let taken_back = rng.random_bool(0.5).then(|| begins + secs(rng, 1, 300));
        let network = rng.random_range(0..3);
        if rng.random_bool(0.3) {
            acts.push((begins, Act::Renumber { network, vlan: rng.random_range(200..260) }));
            if let Some(at) = taken_back {
                acts.push((at, Act::Renumber { network, vlan: [110, 120, 130][network] }));
            }
            return;
        }
        let mut all: Vec<usize> = (0..self.bindings.len()).collect();
        all.shuffle(rng);
        all.truncate(rng.random_range(all.len().div_ceil(3)..=all.len()));
        let what = *pick(rng, &[Do::Restart, Do::Stop, Do::OtherNetwork, Do::Move]);
        let pace = match rng.random_range(0..3) {
            0 => Pace::AtOnce,
            1 => Pace::Portions(rng.random_range(1..=4), secs(rng, 2, 20)),
            _ => Pace::Drip(secs(rng, 20, 90)),
        };
        let (size, every) = match pace {
            Pace::AtOnce => (all.len(), Duration::ZERO),
            Pace::Portions(size, every) => (size, every),
            Pace::Drip(every) => (1, every),
        };
        let mut at = begins;
        for some in all.chunks(size.max(1)) {
            acts.push((at, Act::Many(some.to_vec(), what)));
            at += every;
        }
        if let (Some(at), Some(back)) = (taken_back, what.taken_back()) {
            acts.push((at, Act::Many(all, back)));
        }
        acts.retain(|(at, _)| *at < self.chaos);
    }

    /// Many go silent, or are pressed off, together; and what a person then says.
    fn outage(&self, rng: &mut StdRng, acts: &mut Vec<(Duration, Act)>) {
        let from = rng.random_range(0..self.machines.len());
        let some = (0..self.machines.len())
            .filter(|n| (n + self.machines.len() - from) % self.machines.len() < self.machines.len().div_ceil(2))
            .collect();
        let at = secs(rng, 400, self.chaos.as_secs());
        acts.push((at, if rng.random_bool(0.5) { Act::Silent(some, secs(rng, 60, 180)) } else { Act::Buttons(some) }));
        for _ in 0..rng.random_range(0..4) {
            let binding = rng.random_range(0..self.bindings.len());
            let word = [Act::Retry(binding), Act::Resume, Act::PauseFor(Some(binding), secs(rng, 10, 60)), Act::Approve(binding)];
            acts.push((at + secs(rng, 30, 300), pick(rng, &word).clone()));
        }
        acts.push((at + secs(rng, 100, 600), Act::CloseBreaker));
        acts.retain(|(at, _)| *at < self.chaos);
    }

    /// A person looks now, and says yes later, whatever happened in between.
    fn shown_and_approved(&self, rng: &mut StdRng, acts: &mut Vec<(Duration, Act)>) {
        let (binding, server) = (rng.random_range(0..self.bindings.len()), rng.random_range(0..self.machines.len()));
        let at = self.some_time(rng);
        acts.push((at, Act::Mode { binding, mode: "approve" }));
        let change = [Act::Restart(binding), Act::Stop(binding), Act::Run(binding), Act::Move { binding, server }];
        acts.push((at + secs(rng, 1, 60), pick(rng, &change).clone()));
        let looks = at + secs(rng, 30, 120);
        acts.push((looks, Act::Look(binding)));
        let network = rng.random_range(0..3);
        let meanwhile = [
            Act::Renumber { network, vlan: rng.random_range(200..260) },
            Act::Restart(binding),
            Act::Run(binding),
            Act::EditRoot(binding),
            Act::PortByHand { switch: rng.random_range(0..2), server, vlan: 50, shut: false },
            Act::Button(server),
        ];
        let approves = looks + if rng.random_bool(0.2) { secs(rng, 60, 4000) } else { secs(rng, 1, 120) };
        if rng.random_bool(0.4) {
            acts.push((looks + (approves - looks).mul_f64(0.5), pick(rng, &meanwhile).clone()));
        }
        acts.push((approves, Act::ApproveShown(binding)));
        if rng.random_bool(0.6) {
            acts.push((approves + secs(rng, 1, 90), pick(rng, &meanwhile).clone()));
        }
        acts.retain(|(at, _)| *at < self.chaos);
    }

    /// Two processes, each with a checkout; that of the second one is behind. Nothing is deleted, and the store is not exchanged.
    fn directories(&mut self, rng: &mut StdRng, acts: &mut Vec<(Duration, Act)>) {
        (self.sourced, self.controllers) = (true, 2);
        let other = |act: &Act| {
            matches!(act, Act::Delete(_) | Act::RenameBinding(_) | Act::RenamePersona { .. } | Act::Backup | Act::Restore | Act::Wipe)
        };
        self.acts.retain(|(_, act)| !other(act));
        for _ in 0..rng.random_range(1..=3) {
            acts.push((self.some_time(rng), Act::Kill { down: secs(rng, 20, 300) }));
        }
        for _ in 0..rng.random_range(1..=3) {
            acts.push((self.some_time(rng), Act::Renumber { network: rng.random_range(0..3), vlan: rng.random_range(200..260) }));
        }
        for _ in 0..rng.random_range(0..=2) {
            acts.push((self.some_time(rng), Act::Pull(1)));
        }
    }

    /// Pauses of one thing, with an end.
    fn stops(&self, rng: &mut StdRng, acts: &mut Vec<(Duration, Act)>) {
        for _ in 0..rng.random_range(1..=4) {
            let n = rng.random_range(0..self.machines.len());
            let of = *pick(rng, &[Stop::Server(n), Stop::Persona(n % self.exclusive.len()), Stop::Switch(n % 2)]);
            acts.push((self.some_time(rng), Act::PauseOf(of, secs(rng, 10, 300))));
        }
    }
}
