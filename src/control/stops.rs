//! What stops what is done: a pause, the breaker, a guardrail's hold, a store or an object that does not read. Who set it, what it covers, until when.
//!
//! Nothing here decides when a stop is set or lifted (`actions`, `reconcile`); everything that is sent asks here first.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::Cache;
use crate::control::operator::{PauseRow, Scope};
use crate::model::fact::Tick;
use crate::model::objects::server_switches;
use crate::model::{Kind, Name, Reason};
use crate::plan::observed::Trouble;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pause {
    pub scope: Scope,
    pub reason: String,
    pub by: String,
    /// RFC 3339.
    pub since: String,
    /// RFC 3339; nothing: until resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl Pause {
    pub fn until_in_words(&self) -> String {
        self.until.as_ref().map_or_else(|| "until resumed".to_owned(), |until| format!("until {until}"))
    }

    pub fn row(&self) -> PauseRow {
        let Pause { scope, reason, by, since, until } = self.clone();
        PauseRow { what: scope.in_words(), resume: scope.resume(), by, reason, since, until }
    }
}

impl Cache {
    /// Whether a person has paused what is done in this binding's name here.
    pub fn is_paused(&self, server: &Name, binding: &Name) -> bool {
        self.pauses_of(server, binding).next().is_some()
    }

    /// Why nothing is done in this binding's name.
    pub(super) fn stopped(&self, server: &Name, binding: &Name) -> Option<Trouble> {
        self.stops(server, binding).next()
    }

    /// What stops what is done here in a binding's name: the whole site, pauses, the breaker, the hold.
    pub fn stops<'a>(&'a self, server: &'a Name, binding: &'a Name) -> impl Iterator<Item = Trouble> + 'a {
        let pauses = self.pauses_of(server, binding).map(|(pause, end)| {
            let Pause { by, reason, .. } = pause;
            let stays = match &pause.until {
                Some(until) if end.is_none() => format!("; its end at {until} came while no controller ran: it stays"),
                Some(_) | None => String::new(),
            };
            let (what, resume) = (pause.scope.in_words(), pause.scope.resume());
            let message = format!("{what} is paused by {by}: {reason}{stays}, until `{resume}`");
            Trouble { reason: Reason::Paused, message }
        });
        let held = self.stopped_by_guardrails.get(server).map(move |trouble| Trouble {
            message: format!("{}: it waits for `embody approve {binding}`", trouble.message),
            reason: trouble.reason,
        });
        self.site_stop().into_iter().chain(pauses).chain(self.breaker()).chain(held)
    }

    /// What stops a binding on its bodies, and an approval of it does not lift, with the words that do.
    pub(super) fn not_lifted(&self, bodies: &[Name], binding: &Name) -> String {
        let stops = bodies.iter().flat_map(|server| self.stops(server, binding)).filter(|stop| stop.reason != Reason::Held);
        let stops: BTreeSet<String> = stops.map(|stop| stop.message).collect();
        match stops.is_empty() {
            true => String::new(),
            false => format!("; an approval does not lift what stops it now: {}", Vec::from_iter(stops).join("; ")),
        }
    }

    /// Why nothing is corrected, while the breaker is open.
    pub fn breaker(&self) -> Option<Trouble> {
        let (pause, _) = self.pauses.values().find(|(pause, _)| pause.scope == Scope::Breaker)?;
        Some(Trouble { reason: Reason::BreakerOpen, message: pause.reason.clone() })
    }

    /// Why nothing is recorded or sent at the whole site.
    pub fn site_stop(&self) -> Option<Trouble> {
        let unreadable = || {
            let key = self.unreadable_objects.first()?;
            let object = key.strip_prefix(crate::store::keys::OBJECTS).unwrap_or(key);
            let message = format!(
                "the stored object {object} does not read, so nobody knows what is desired: apply it again, or delete it; nothing is changed until then"
            );
            Some(Trouble { reason: Reason::ObjectUnreadable, message })
        };
        self.store_stop.clone().or_else(unreadable)
    }

    fn pauses_of<'a>(&'a self, server: &'a Name, binding: &'a Name) -> impl Iterator<Item = &'a (Pause, Option<Tick>)> {
        let paused = move |(pause, _): &&(Pause, Option<Tick>)| match &pause.scope {
            Scope::Everything => true,
            Scope::Object { kind: Kind::Binding, name } => name == binding,
            Scope::Object { kind: Kind::Server, name } => name == server,
            Scope::Object { kind: Kind::Persona, name } => self.objects.bindings.get(binding).is_some_and(|b| b.spec.persona == *name),
            Scope::Object { kind: Kind::Switch, name } => {
                self.objects.servers.get(server).is_some_and(|s| server_switches(&s.spec).contains(name))
            }
            Scope::Object { kind: Kind::Policy | Kind::Secret | Kind::Network, .. } | Scope::Breaker => false,
            Scope::Labels { match_labels } => {
                let all_in = |labels: &BTreeMap<String, String>| match_labels.iter().all(|(k, v)| labels.get(k) == Some(v));
                self.objects.bindings.get(binding).is_some_and(|b| all_in(&b.meta.labels))
                    || self.objects.servers.get(server).is_some_and(|s| all_in(&s.meta.labels))
            }
        };
        self.pauses.values().filter(paused)
    }

    /// Whether anything may be written to a switch as such.
    pub fn may_save(&self, switch: &Name) -> bool {
        let Some(held) = self.objects.switches.get(switch) else { return false };
        let paused = |(pause, _): &(Pause, Option<Tick>)| match &pause.scope {
            Scope::Everything => true,
            Scope::Object { kind, name } => *kind == Kind::Switch && name == switch,
            Scope::Breaker => false,
            Scope::Labels { match_labels } => match_labels.iter().all(|(k, v)| held.meta.labels.get(k) == Some(v)),
        };
        let answers = self.switches.get(switch).is_some_and(|known| known.trouble.is_none() && known.seen.is_some());
        answers
            && held.spec.maintenance.is_none()
            && self.breaker().is_none()
            && self.site_stop().is_none()
            && !self.pauses.values().any(paused)
    }
}
