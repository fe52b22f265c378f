//! A rollout takes down no more bodies of a persona at one time than that says.
//!
//! Counted by what leaves: whose end a rollout has begun, until it is up again in truth. Which switching-off is a rollout's is told by the stored
//! intent. Leaves out: bodies that are down for reasons of their own, which a controller may not have seen yet (`tests/revisions.rs`).

use std::collections::BTreeMap;

use super::Judge;
use super::leaving::{Departure, IN_FLIGHT};
use crate::model::Name;
use crate::model::binding::RunState;
use crate::model::fact::{Power, Tick};
use crate::model::op::Op;
use crate::model::persona::Agent;
use crate::plan::rollout;

#[derive(Default)]
pub(super) struct Rolling {
    /// Bodies that rollouts have switched off and that were not up since, and of which persona.
    down: BTreeMap<Name, Name>,
    /// How many may be unavailable, of each persona, since when.
    most: BTreeMap<Name, Vec<(Tick, usize)>>,
    /// Switchings-off so far.
    pub(super) offs: u64,
}

impl Judge {
    pub(super) fn rollouts_are_of_now(&mut self, now: Tick) {
        for (persona, held) in &self.objects.personas {
            let most = held.spec.rollout.map(|rollout| rollout.max_unavailable.of(self.objects.running_of(persona)).max(1));
            let history = self.rolling.most.entry(persona.clone()).or_default();
            history.extend(most.filter(|most| history.last().is_none_or(|(_, last)| last != most)).map(|most| (now, most)));
        }
    }

    /// The most that held within the time that an operation may be on its way.
    fn may_be_down(&self, persona: &Name, now: Tick) -> usize {
        let history = self.rolling.most.get(persona).map(Vec::as_slice).unwrap_or_default();
        let ends = history.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        let held = history.iter().zip(ends).filter(|(_, end)| end.is_none_or(|end| now.since(end) <= IN_FLIGHT));
        held.map(|((_, most), _)| *most).max().unwrap_or(0)
    }

    pub(super) fn rolls(&mut self, departure: &Departure<'_>) {
        let Departure { op: Op::PowerOff { .. }, server, now, on: true, .. } = departure else { return };
        let because = self.body(server).off.map(|intent| intent.because).unwrap_or_default();
        let Some(persona) = because.strip_prefix(rollout::BECAUSE).and_then(|rest| rest.split(':').next()?.parse::<Name>().ok()) else {
            return;
        };
        self.rolling.offs += 1;
        let still = |(other, of): &(&Name, &Name)| **of == persona && *other != server && self.is_bound(other, &persona);
        let down: Vec<Name> = self.rolling.down.iter().filter(still).map(|(other, _)| other.clone()).collect();
        let most = self.may_be_down(&persona, *now);
        // To restart what is not up takes nothing away, and to end what was begun nothing more.
        if down.len() >= most && self.is_up(server, &persona) && !self.rolling.down.contains_key(server) {
            let names: Vec<&str> = down.iter().map(Name::as_str).collect();
            let sentence = format!(
                "a rollout takes down {server} while it has taken down {} of persona {persona}, of which {most} may be down",
                names.join(", ")
            );
            self.violated(&[server, &persona], sentence);
        }
        self.rolling.down.insert(server.clone(), persona);
    }

    fn is_bound(&self, server: &Name, persona: &Name) -> bool {
        let mut bindings = self.objects.bindings_of_server(server).filter_map(|b| self.objects.bindings.get(b));
        bindings.any(|held| held.spec.persona == *persona && held.spec.state == RunState::Running)
    }

    /// It is on, or runs something, or nothing is to end it any more.
    pub(super) fn may_be_up(&mut self, server: &Name) {
        let Some(persona) = self.rolling.down.get(server) else { return };
        if self.is_up(server, persona) && self.body(server).off.is_none() {
            self.rolling.down.remove(server);
        }
    }

    /// In truth, once it has said so. What never says hello is taken to be up by its script, even if that was lost on its way; where there is none, it
    /// is on.
    fn is_up(&self, server: &Name, persona: &Name) -> bool {
        let spec = self.objects.personas.get(persona).map(|held| &held.spec);
        let nic = spec.and_then(|spec| spec.nics.iter().find(|nic| nic.boot)?.untagged.as_ref());
        let fetches = nic.and_then(|name| self.objects.networks.get(name)).is_some_and(|held| held.spec.boots().next().is_some());
        let run = self.bodies.get(server).and_then(|body| body.evidence.get(persona)?.run.as_ref());
        let runs = match spec.is_some_and(|spec| spec.agent == Agent::Required) {
            true => self.running.get(server).is_some_and(|(running, _)| running == persona) && run.is_some_and(|run| run.hello.is_some()),
            false => !fetches || run.is_some(),
        };
        self.power.get(server) == Some(&Power::On) && runs
    }
}
