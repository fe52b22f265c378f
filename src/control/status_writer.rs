//! Writes what people read: statuses that say something new, events, and what is said of the site as a whole.
//!
//! Leaves out: what a status says (`status`). Invariant: nothing is written that says the same; a conflict is left to the watch, which brings
//! the newer object and wakes its server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::cache::{Cache, Stored};
use super::status;
use crate::model::op::Device;
use crate::model::status::Event;
use crate::model::{Kind, Name, Reason};
use crate::store::{Expect, Store, StoreError, keys};
use crate::telemetry::timestamp;

/// A word about the site as a whole: a condition of Policy/default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteCondition {
    pub ok: bool,
    pub reason: &'static str,
    pub message: String,
}

/// By condition. It outlives controllers: what the boot endpoint or the directory said holds until they say something else.
pub type Site = watch::Sender<BTreeMap<&'static str, SiteCondition>>;

pub(super) struct StatusWriter {
    store: Arc<dyn Store>,
    site: Site,
    /// What of it is known to people.
    told: BTreeMap<&'static str, SiteCondition>,
    /// Switches and the Policy of which something is to be said.
    changed: BTreeSet<(Kind, Name)>,
}

impl StatusWriter {
    pub(super) fn new(store: Arc<dyn Store>, site: Site) -> StatusWriter {
        StatusWriter { store, site, told: BTreeMap::new(), changed: BTreeSet::new() }
    }

    // ---- events ----------------------------------------------------------------------------------------------------------

    pub(super) async fn event(&self, kind: &str, regarding: &str, reason: &str, message: &str) {
        let event = Event {
            time: timestamp(),
            kind: kind.to_owned(),
            regarding: regarding.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        if let Err(error) = self.store.record_event(serde_json::to_vec(&event).unwrap_or_default()).await {
            tracing::warn!(error = %error, "an event could not be stored");
        }
    }

    pub(super) async fn tell_reachability(&self, device: &Device, up: bool, cache: &Cache) {
        let trouble = match device {
            Device::Bmc(name) => cache.bmcs.get(name).and_then(|f| f.known.trouble.as_ref()),
            Device::Switch(name) => cache.switches.get(name).and_then(|k| k.trouble.as_ref()),
        };
        match trouble {
            Some(t) => self.event("Warning", &device.regarding(), t.reason.as_str(), &t.message).await,
            None if up => self.event("Normal", &device.regarding(), "Answers", &format!("{device} answers")).await,
            None => {}
        }
    }

    // ---- the site --------------------------------------------------------------------------------------------------------

    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, SiteCondition>> {
        self.site.subscribe()
    }

    /// Says a word about the site; that all is well is no news where nothing was said yet.
    pub(super) fn site_is(&self, condition: &'static str, word: SiteCondition) {
        self.site.send_if_modified(|site| match site.get(condition) {
            None if word.ok => false,
            Some(before) if *before == word => false,
            Some(_) | None => site.insert(condition, word).is_none_or(|_| true),
        });
    }

    /// Tells what is new about the site.
    pub(super) async fn tell_site(&mut self, cache: &Cache) {
        let site = self.site.borrow().clone();
        if site == self.told {
            return;
        }
        for (condition, word) in &site {
            if self.told.get(condition) != Some(word) {
                let level = if word.ok { "Normal" } else { "Warning" };
                self.event(level, "Policy/default", word.reason, &word.message).await;
            }
        }
        self.told = site;
        self.changed.extend(cache.objects.policies.keys().next().map(|name| (Kind::Policy, name.clone())));
    }

    // ---- statuses --------------------------------------------------------------------------------------------------------

    /// Something is to be said of this object at the end of the turn.
    pub(super) fn changed(&mut self, kind: Kind, name: &Name) {
        self.changed.insert((kind, name.clone()));
    }

    pub(super) async fn write_changed(&mut self, cache: &mut Cache) {
        for (kind, name) in std::mem::take(&mut self.changed) {
            let value = match kind {
                Kind::Switch => status::switch(cache, &name).map(serde_json::to_value),
                Kind::Policy => status::policy(cache, &self.site.borrow()).map(serde_json::to_value),
                Kind::Secret | Kind::Network | Kind::Server | Kind::Persona | Kind::Binding => None,
            };
            if let Some(Ok(value)) = value {
                self.write(kind, &name, value, cache).await;
            }
        }
    }

    /// Writes a status that says something new.
    pub(super) async fn write(&self, kind: Kind, name: &Name, value: Value, cache: &mut Cache) {
        let Some(stored) = cache.stored.get(&(kind, name.clone())) else { return };
        if status::says_the_same(&stored.value, &value) {
            return;
        }
        let key = keys::object(kind, name);
        let entry = match self.store.get(&key).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return,
            Err(error) => return tracing::warn!(error = %error, "a status could not be read"),
        };
        let Ok(mut object) = serde_json::from_slice::<Value>(&entry.value) else { return };
        let Some(fields) = object.as_object_mut() else { return };
        let ready = condition(&value, "Ready");
        let was_ready = condition(&stored.value, "Ready");
        fields.insert("status".to_owned(), value.clone());
        match self.store.put_if(&key, serde_json::to_vec(&object).unwrap_or_default(), Expect::At(entry.revision)).await {
            Ok(revision) => {
                cache.stored.insert((kind, name.clone()), Stored { value, revision });
                if kind == Kind::Binding {
                    self.tell_ready(&format!("{kind}/{name}"), ready, &was_ready).await;
                }
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => tracing::warn!(error = %error, "a status could not be stored"),
        }
    }

    /// An event when a binding becomes ready, ceases to be, or does not become ready for another reason than that it is being worked on.
    async fn tell_ready(&self, regarding: &str, now: (String, String, String), before: &(String, String, String)) {
        let (status, reason, message) = now;
        let moves = Reason::ALL.iter().any(|r| r.is_progress() && r.as_str() == reason);
        match (status == "True", before.0 == "True") {
            (true, false) => self.event("Normal", regarding, &reason, "ready: power, boot and ports are as desired").await,
            (false, true) => self.event("Warning", regarding, &reason, &format!("no longer ready: {message}")).await,
            (false, false) if !moves && reason != before.1 => self.event("Warning", regarding, &reason, &message).await,
            (false, false) | (true, true) => {}
        }
    }
}

fn condition(status: &Value, kind: &str) -> (String, String, String) {
    let all = status.get("conditions").and_then(|c| c.as_array());
    let found = all.and_then(|all| all.iter().find(|c| c.get("type").and_then(|t| t.as_str()) == Some(kind)));
    let text = |key: &str| found.and_then(|c| c.get(key)).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}
