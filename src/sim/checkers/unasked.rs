//! Invariant 10: changes of desired state that nobody approved disrupt no more bodies within ten minutes than the Policy lets them.
//!
//! Counted by what leaves for bodies that are truly on. What was as desired, and then became otherwise by itself or by hand, is drift, and counts
//! with the breaker instead: whether a body or a port has been as it is desired now is seen from the devices. Leaves out: what is available.

use std::collections::BTreeMap;
use std::time::Duration;

use super::leaving::{Departure, IN_FLIGHT};
use super::{Intent, Judge, PortName, carried, content};
use crate::model::Name;
use crate::model::binding::RunState;
use crate::model::fact::{Admin, Power, Tick};
use crate::model::op::Op;
use crate::sim::switch::PortView;
use crate::telemetry;

/// What was sent at one time leaves at another one.
const WITHIN: Duration = Duration::from_secs(600 - IN_FLIGHT.as_secs());

#[derive(Default)]
pub(super) struct Unasked {
    /// What is desired of each server's power and persona, in words.
    wanted: BTreeMap<Name, String>,
    /// For which of these it was as desired.
    met: BTreeMap<Name, String>,
    views: BTreeMap<PortName, PortView>,
    ports_met: BTreeMap<PortName, Intent>,
    disrupted: BTreeMap<Name, Tick>,
    /// By how many seconds the clock on the wall was set when a controller began last.
    clock_set_by: i64,
}

impl Judge {
    /// What is desired of a server, in words that change with it.
    pub(super) fn wanted(&self, server: &Name) -> String {
        let once = self.bodies.get(server).and_then(|body| body.once.as_ref()).map(|once| format!(" {:?} once, {}", once.boots, once.at));
        self.unasked.wanted.get(server).cloned().unwrap_or_default() + &once.unwrap_or_default()
    }

    pub(super) fn wanted_changed(&mut self, ports: &[(PortName, Intent)]) {
        let mut wanted: BTreeMap<Name, String> = BTreeMap::new();
        for server in self.objects.servers.keys() {
            let bindings = self.objects.bindings_of_server(server).filter_map(|b| self.objects.bindings.get(b));
            let words = bindings.map(|b| {
                let persona = self.objects.personas.get(&b.spec.persona).map(|held| content(&held.spec.root, &held.spec.kernel));
                let rolls = self.rolls_to(&b.spec.persona).unwrap_or_default();
                let image = self.objects.personas.get(&b.spec.persona).and_then(|held| held.spec.root.image.as_ref());
                let (is, known) = (persona.unwrap_or_default(), image.is_some_and(|image| self.images.contains(&image.name)));
                format!("{} {} {:?} {} {is} {known} {rolls}", b.meta.uid, b.spec.persona, b.spec.state, b.spec.restart)
            });
            wanted.insert(server.clone(), words.collect());
        }
        for (port, intent) in ports {
            if let Some(text) = self.wired(&port.0, &port.1).and_then(|server| wanted.get_mut(&server)) {
                text.push_str(&format!(" {port:?} {:?}", intent.vlans));
            }
            self.port_may_be_met(port, intent);
        }
        self.unasked.wanted = wanted;
        self.holds_are_of_now();
        let servers: Vec<Name> = self.objects.servers.keys().cloned().collect();
        servers.iter().for_each(|server| self.body_may_be_met(server));
    }

    /// What a persona that has a rollout is to run.
    pub(super) fn rolls_to(&self, persona: &Name) -> Option<String> {
        let held = self.objects.personas.get(persona).filter(|held| held.spec.rollout.is_some())?;
        Some(content(&held.spec.root, &held.spec.kernel))
    }

    fn port_may_be_met(&mut self, port: &PortName, intent: &Intent) {
        let view = self.unasked.views.get(port);
        if view.is_some_and(|view| view.admin == Admin::Up && carried(view) == intent.vlans) {
            self.unasked.ports_met.insert(port.clone(), intent.clone());
        }
    }

    /// A port is now so.
    pub(super) fn port_is(&mut self, port: &PortName, view: &PortView) {
        self.unasked.views.insert(port.clone(), view.clone());
        if let Some((_, intent)) = self.ports.desired.get(port).and_then(|history| history.last().cloned()) {
            self.port_may_be_met(port, &intent);
        }
    }

    /// Its power, or what it runs, is another one, or is desired to be.
    pub(super) fn body_may_be_met(&mut self, server: &Name) {
        let binding = self.objects.bindings_of_server(server).next().and_then(|b| self.objects.bindings.get(b));
        let met = binding.is_some_and(|held| match held.spec.state {
            RunState::Running => {
                let is_new = || self.rolls_to(&held.spec.persona).is_none_or(|to| self.content.get(server) == Some(&to));
                self.running.get(server).is_some_and(|(persona, _)| *persona == held.spec.persona) && is_new()
            }
            RunState::Stopped => self.power.get(server) == Some(&Power::Off),
        });
        if met {
            self.unasked.met.insert(server.clone(), self.wanted(server));
        }
    }

    /// A controller begins: what was disrupted before the clock on the wall was set forward seems to it to be long ago.
    pub(super) fn count_may_be_forgotten(&mut self) {
        let set_by = telemetry::set_by();
        if set_by > self.unasked.clock_set_by {
            self.unasked.disrupted.clear();
        }
        self.unasked.clock_set_by = set_by;
    }

    pub(super) fn counts_as_unasked(&mut self, departure: &Departure<'_>) {
        let Departure { op, server, now, .. } = departure;
        let drift = match op {
            Op::SetPort { switch, port, .. } => {
                let key = (switch.clone(), port.clone());
                let desired = self.ports.desired.get(&key).and_then(|history| history.last()).map(|(_, intent)| intent);
                desired.is_some() && self.unasked.ports_met.get(&key) == desired
            }
            _ => self.unasked.met.get(server) == Some(&self.wanted(server)),
        };
        // What it was before something was done for another desired state is past.
        if self.unasked.met.get(server).is_some_and(|met| *met != self.wanted(server)) {
            self.unasked.met.remove(server);
        }
        if !departure.disrupts || drift || departure.ends_what_was_begun || self.is_approved(departure) {
            return;
        }
        self.unasked.disrupted.retain(|_, at| now.since(*at) < WITHIN);
        self.unasked.disrupted.insert(server.clone(), *now);
        let limit = self.objects.policy().limits.max_affected_by_change.of(self.objects.servers.len());
        let count = self.unasked.disrupted.len();
        if count > limit {
            let names: Vec<&str> = self.unasked.disrupted.keys().map(Name::as_str).collect();
            let names = names.join(", ");
            let sentence = format!(
                "invariant 10: {op} leaves: {count} bodies ({names}) are disrupted within ten minutes by changes that nobody approved, {limit} may be"
            );
            let about: Vec<Name> = self.unasked.disrupted.keys().cloned().collect();
            self.violated(&about.iter().collect::<Vec<_>>(), sentence);
        }
    }
}
