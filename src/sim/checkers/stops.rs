//! Invariant 11: what stops something is lifted by the word for exactly that, or by its own stated end. The breaker, holds, contention; pauses are
//! in `authority`.
//!
//! That the breaker is open, or that a body is held, is known from what is stored; that a thing was corrected too often from what
//! was done. What lifts them is known from what people said, and from what the desired state and the devices truly are. A write of a port that was begun
//! is ended whatever stops it. Leaves out: whether a stop had to come.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::leaving::{Departure, IN_FLIGHT};
use super::{By, Judge};
use crate::model::fact::{Power, Tick};
use crate::model::op::Op;
use crate::model::{Kind, Name, Object};

/// Three corrections of one thing within this time, and the fourth waits (`plan::guardrails`).
const CORRECTIONS: usize = 3;
const WITHIN: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Stops {
    /// Since when.
    breaker: Option<Tick>,
    held: BTreeMap<Name, Hold>,
    /// Bodies that were said to be as desired in this term, for what was desired then.
    ready: BTreeMap<Name, (Tick, String)>,
    corrections: BTreeMap<(Name, &'static str, String), VecDeque<Tick>>,
    /// Holds that were about something else than what is desired since: a record that is merged back may have one.
    past: BTreeMap<Name, Hold>,
    /// What was desired of a body when it was last said to be as desired, in any term, and nothing left for anything else since.
    settled: BTreeMap<Name, String>,
}

struct Hold {
    since: Tick,
    wanted: String,
    /// As the controller tells one desired state from another.
    key: String,
}

impl Judge {
    // ---- what is stored, and said -----------------------------------------------------------------------------------------

    pub(super) fn pause_is_stored(&mut self, id: &str, value: Option<&[u8]>, by: By, now: Tick) {
        if id != "breaker" {
            return;
        }
        match (value, by) {
            (Some(_), _) => drop(self.stops.breaker.get_or_insert(now)),
            (None, By::Others) => self.stops.breaker = None,
            (None, By::Controller) if self.stops.breaker.is_some() => {
                self.violated(&[], "invariant 11: the breaker is closed, and nobody said so".to_owned());
            }
            (None, By::Controller) => {}
        }
    }

    /// Corrections are not stored: another controller counts them anew.
    pub(super) fn counts_are_forgotten(&mut self) {
        let Stops { ready, corrections, settled: _, past: _, held: _, breaker: _ } = &mut self.stops;
        ready.clear();
        corrections.clear();
    }

    /// A person is about to close the breaker.
    pub fn closing_breaker(&mut self) {
        self.stops.breaker = None;
    }

    /// A person says: try again.
    pub fn retrying(&mut self, kind: Kind, name: &Name) {
        let target = self.objects.bindings.get(name).filter(|_| kind == Kind::Binding).and_then(|held| held.spec.target.server.clone());
        let servers: Vec<Name> = match kind {
            Kind::Switch => self.objects.servers_on_switch(name).cloned().collect(),
            Kind::Binding => target.into_iter().collect(),
            Kind::Server | Kind::Network | Kind::Persona | Kind::Policy | Kind::Secret => vec![name.clone()],
        };
        self.stops.corrections.retain(|(server, _, _), _| !servers.contains(server));
    }

    /// A controller stores that it holds a body, for this desired state.
    pub(super) fn hold_is_stored(&mut self, server: &Name, key: Option<&String>, now: Tick) {
        let wanted = self.wanted(server);
        match (key, self.stops.held.get(server)) {
            (Some(key), Some(held)) if held.key == *key => {}
            // It ended while nothing could be stored, which is stored next.
            (Some(key), None) if self.bodies.get(server).is_some_and(|before| before.held.as_ref() == Some(key)) => {}
            (Some(key), _) => {
                // One that is merged back is about what was desired when it was made.
                let past = self.stops.past.get(server).filter(|past| past.key == *key);
                let wanted = past.map_or(wanted, |past| past.wanted.clone());
                self.stops.held.insert(server.clone(), Hold { since: now, wanted, key: key.clone() });
                self.holds_are_of_now();
            }
            // It may be over, or not: what then leaves will show.
            (None, _) => {}
        }
    }

    /// What a controller says of a binding or a server.
    pub(super) fn status_is_stored(&mut self, object: &Object, now: Tick) {
        let server = match object.kind() {
            Kind::Server => Some(object.name().clone()),
            Kind::Binding => self.objects.bindings.get(object.name()).and_then(|held| held.spec.target.server.clone()),
            Kind::Network | Kind::Persona | Kind::Policy | Kind::Secret | Kind::Switch => None,
        };
        let Some(server) = server else { return };
        let wanted = self.wanted(&server);
        let conditions = object.status["conditions"].as_array();
        let says = |kind: &str, word: &str| conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == word);
        let ready = says("Ready", "True");
        if ready && object.kind() == Kind::Binding && object.status["observedGeneration"] == object.meta.generation {
            self.ready_is_told(object.name(), &server, now);
            // What runs and is to be restarted by a rollout is up, and not as it is desired.
            let persona = self.objects.bindings.get(object.name()).map(|held| held.spec.persona.clone());
            if says("UpToDate", "False") && persona.is_some_and(|persona| self.rolls_to(&persona).is_some()) {
                return;
            }
            self.stops.held.remove(&server);
            let first = self.stops.ready.get(&server).filter(|(_, before)| *before == wanted).map_or(now, |(first, _)| *first);
            self.stops.settled.insert(server.clone(), wanted.clone());
            self.stops.ready.insert(server, (first, wanted));
        }
    }

    /// A person had a hand in it: what was held may be gone.
    pub(super) fn hold_is_over(&mut self, server: &Name) {
        let past = self.stops.held.remove(server);
        self.stops.past.extend(past.map(|past| (server.clone(), past)));
    }

    /// Something else is desired of bodies: of one that runs, that is for the controller to hold anew; one that is off stays held, unless that is what it
    /// was before.
    pub(super) fn holds_are_of_now(&mut self) {
        let wanted: Vec<(Name, String)> = self.stops.held.keys().map(|server| (server.clone(), self.wanted(server))).collect();
        for (server, wanted) in wanted {
            // As far as a controller was told.
            let on = self.power.get(&server) != Some(&Power::Off) || self.is_told_on(&server);
            let before = self.stops.settled.get(&server) == Some(&wanted);
            match self.stops.held.get_mut(&server) {
                Some(held) if held.wanted != wanted && !on && !before => held.wanted = wanted,
                Some(held) if held.wanted != wanted => {
                    let past = self.stops.held.remove(&server);
                    self.stops.past.extend(past.map(|past| (server, past)));
                }
                Some(_) | None => {}
            }
        }
    }

    // ---- what is done -----------------------------------------------------------------------------------------------------

    pub(super) fn was_done(&mut self, server: &Name, op: &Op, now: Tick) {
        let (what, which) = thing(op);
        if self.stops.ready.get(server).is_some_and(|(_, wanted)| *wanted == self.wanted(server)) {
            let times = self.stops.corrections.entry((server.clone(), what, which)).or_default();
            times.push_back(now);
            while times.len() > CORRECTIONS {
                times.pop_front();
            }
        }
    }

    pub(super) fn stopped(&mut self, departure: &Departure<'_>) {
        let Departure { op, server, now, .. } = departure;
        let wanted = self.wanted(server);
        // What it was before something was done for another desired state is past.
        if self.stops.settled.get(server).is_some_and(|settled| *settled != wanted) {
            self.stops.settled.remove(server);
        }
        if self.stops.ready.get(server).is_some_and(|(_, met)| *met != wanted) {
            self.stops.ready.remove(server);
        }
        if departure.ends_what_was_begun {
            return;
        }
        let late = |since: Tick| now.since(since) > IN_FLIGHT;
        if self.stops.breaker.is_some_and(late) {
            self.violated(&[server], format!("invariant 11: {op} leaves for {server} while the breaker is open"));
        }
        let approved = self.is_approved(departure);
        let held = self.stops.held.get(server).filter(|held| held.wanted == self.wanted(server) && late(held.since));
        // One that went off is not started as nobody was asked about either.
        let is_held = !approved && (departure.disrupts || !departure.on);
        if let Some(since) = held.filter(|_| is_held).map(|held| now.since(held.since)) {
            let sentence = format!("invariant 11: {op} leaves for {server}, which was held {since:?} ago, and nobody approved it");
            self.violated(&[server], sentence);
        }
        let (what, which) = thing(op);
        let ready = self.stops.ready.get(server).filter(|(_, wanted)| *wanted == self.wanted(server));
        let times = self.stops.corrections.get(&(server.clone(), what, which.clone()));
        let counted = |at: &&Tick| ready.is_some_and(|(first, _)| *at >= first) && now.since(**at) + IN_FLIGHT < WITHIN;
        // What ends a switching-off that was begun corrects nothing more.
        let goes_on = matches!(op, Op::PowerOff { .. }) && self.offs.began_at(server).is_some_and(|at| at < *now);
        let often = !goes_on && times.is_some_and(|times| times.iter().filter(counted).count() >= CORRECTIONS);
        if often {
            self.violated(
                &[server],
                format!("invariant 11: {op} leaves for {server}, of which {what} {which} was corrected three times lately"),
            );
        }
    }
}

fn thing(op: &Op) -> (&'static str, String) {
    match op {
        Op::SetPort { switch, port, .. } => ("port", format!("{switch} {port}")),
        Op::PowerOn { .. } | Op::PowerOff { .. } => ("power", String::new()),
        Op::SetBoot { .. } => ("boot device", String::new()),
        Op::CreateVlan { vlan, .. } => ("VLAN", vlan.to_string()),
        Op::Save { .. } => ("configuration", String::new()),
    }
}
