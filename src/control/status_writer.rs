//! What people read: statuses that say something new, events, and what is said of the site as a whole. Handed to a task that stores it (`outbox`).
//!
//! Leaves out: what a status says (`status`). Invariant: nothing is handed on that says the same; of what was not asked yet since this controller
//! began, what was said before stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use super::cache::Cache;
use super::outbox::{Outbox, Said};
use super::status;
use crate::model::op::Device;
use crate::model::status::Event;
use crate::model::{Kind, Name};
use crate::store::{Revision, Store};
use crate::telemetry::timestamp;

/// A word about the site as a whole: a condition of Policy/default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteCondition {
    pub ok: bool,
    pub reason: &'static str,
    pub message: String,
}

/// It may be so and all is well.
pub(crate) const NOT_REACHED: &str = "NotReached";

/// By condition. It outlives controllers: what the boot endpoint or the directory said holds until they say something else.
pub type Site = watch::Sender<BTreeMap<&'static str, SiteCondition>>;

/// Says a word about the site; that all is well is no news where nothing was said yet.
pub(super) fn site_is(site: &Site, condition: &'static str, word: SiteCondition) {
    site.send_if_modified(|site| match site.get(condition) {
        None if word.ok => false,
        Some(before) if *before == word => false,
        Some(_) | None => site.insert(condition, word).is_none_or(|_| true),
    });
}

/// What was said of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Something that is stored, by an earlier controller or for earlier desired state.
    Before,
    /// This, by `status::digest`.
    This(u64),
}

pub(super) struct StatusWriter {
    outbox: Outbox,
    site: Site,
    /// What of it is known to people.
    site_told: BTreeMap<&'static str, SiteCondition>,
    told: BTreeMap<(Kind, Name), Told>,
    /// Switches, personas and the Policy of which something is to be said.
    changed: BTreeSet<(Kind, Name)>,
    buffer: Vec<u8>,
}

impl StatusWriter {
    pub(super) fn new(store: Arc<dyn Store>, site: Site) -> StatusWriter {
        let outbox = Outbox::start(store, site.clone());
        StatusWriter { outbox, site, site_told: BTreeMap::new(), told: BTreeMap::new(), changed: BTreeSet::new(), buffer: Vec::new() }
    }

    // ---- events ----------------------------------------------------------------------------------------------------------

    pub(super) fn event(&self, kind: &str, regarding: &str, reason: &str, message: &str) {
        self.outbox.event(&Event {
            time: timestamp(),
            kind: kind.to_owned(),
            regarding: regarding.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }

    pub(super) fn tell_reachability(&self, device: &Device, up: bool, cache: &Cache) {
        let trouble = match device {
            Device::Bmc(name) => cache.bmcs.get(name).and_then(|f| f.known.trouble.as_ref()),
            Device::Switch(name) => cache.switches.get(name).and_then(|k| k.trouble.as_ref()),
        };
        match trouble {
            Some(t) => self.event("Warning", &device.regarding(), t.reason.as_str(), &t.message),
            None if up => self.event("Normal", &device.regarding(), "Answers", &format!("{device} answers")),
            None => {}
        }
    }

    // ---- the site --------------------------------------------------------------------------------------------------------

    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, SiteCondition>> {
        self.site.subscribe()
    }

    /// What is wrong with the boot services of this process: of what machines that boot need.
    pub(super) fn boot_troubles(&self) -> Vec<SiteCondition> {
        const OF_BOOT: [&str; 5] = ["BootServed", "DhcpServed", "TftpServed", "LoadersThere", "BootNetworksReached"];
        let site = self.site.borrow();
        OF_BOOT.iter().filter_map(|condition| site.get(condition).filter(|word| !word.ok).cloned()).collect()
    }

    pub(super) fn site_is(&self, condition: &'static str, word: SiteCondition) {
        site_is(&self.site, condition, word);
    }

    /// Tells what is new about the site.
    pub(super) fn tell_site(&mut self, cache: &Cache) {
        let site = self.site.borrow().clone();
        if site == self.site_told {
            return;
        }
        for (condition, word) in &site {
            if self.site_told.get(condition) != Some(word) && !(word.ok && word.message.is_empty()) {
                let level = if word.ok { "Normal" } else { "Warning" };
                self.event(level, "Policy/default", word.reason, &word.message);
            }
        }
        self.site_told = site;
        self.changed.extend(cache.objects.policies.keys().next().map(|name| (Kind::Policy, name.clone())));
    }

    // ---- statuses --------------------------------------------------------------------------------------------------------

    /// Something is to be said of this object at the end of the turn.
    pub(super) fn changed(&mut self, kind: Kind, name: &Name) {
        self.changed.insert((kind, name.clone()));
    }

    pub(super) fn write_changed(&mut self, cache: &Cache) {
        for (kind, name) in std::mem::take(&mut self.changed) {
            match kind {
                Kind::Switch => {
                    let asked = cache.switches.get(&name).is_some_and(|known| known.seen.is_some() || known.trouble.is_some());
                    if let Some(status) = status::switch(cache, &name) {
                        self.say(kind, &name, asked, &status, cache);
                    }
                }
                Kind::Policy => {
                    let status = status::policy(cache, &self.site.borrow());
                    if let Some(status) = status {
                        self.say(kind, &name, true, &status, cache);
                    }
                }
                Kind::Persona => {
                    if let Some((asked, status)) = status::persona(cache, &name) {
                        self.say(kind, &name, asked, &status, cache);
                    }
                }
                Kind::Binding => {
                    if let Some(status) = status::without_server(cache, &name) {
                        self.say(kind, &name, true, &status, cache);
                    }
                }
                Kind::Secret | Kind::Network | Kind::Server => {}
            }
        }
    }

    /// An object as it is stored, with a status or without: what is said of it next is compared with that.
    pub(super) fn found(&mut self, kind: Kind, name: &Name, with_status: bool) {
        match with_status {
            true => drop(self.told.insert((kind, name.clone()), Told::Before)),
            false => drop(self.told.remove(&(kind, name.clone()))),
        }
    }

    /// Whether anything was said of it, by whomever.
    pub(super) fn has_told(&self, kind: Kind, name: &Name) -> bool {
        self.told.contains_key(&(kind, name.clone()))
    }

    /// Whether this change of the store is a status that was written here.
    pub(super) fn wrote(&self, revision: Revision) -> bool {
        self.outbox.wrote(revision)
    }

    /// Hands on a status that says something new. `asked`: the devices of which it speaks were asked since this controller began.
    pub(super) fn say(&mut self, kind: Kind, name: &Name, asked: bool, status: &impl Serialize, cache: &Cache) {
        let key = (kind, name.clone());
        let told = self.told.get(&key).copied();
        if told == Some(Told::Before) && !asked {
            return;
        }
        self.buffer.clear();
        if let Err(error) = serde_json::to_writer(&mut self.buffer, status) {
            return tracing::error!(error = %error, "a status has no text");
        }
        let this = Told::This(status::digest(&self.buffer));
        if told == Some(this) {
            return;
        }
        let Some(uid) = cache.objects.meta(kind, name).map(|meta| meta.uid.clone()) else { return };
        self.outbox.status(kind, name, Said { uid, json: self.buffer.clone(), at: timestamp() });
        self.told.insert(key, this);
    }

    pub(super) async fn close(self) {
        self.outbox.close().await;
    }
}
