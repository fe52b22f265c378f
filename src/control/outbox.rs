//! What people read, on its way to the store: of each object the newest status, and events in order. A task of its own writes them, many in one
//! transaction, so that the loop waits for neither.
//!
//! Leaves out: what is said (`status`), and when (`status_writer`). Invariants: a status that says the same is not written; what could not be
//! stored is tried again, the newest of it; what waits is bounded by the number of objects, and by `limits::EVENTS`.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::status;
use super::status_writer::{Site, SiteCondition, site_is};
use crate::limits;
use crate::model::status::Event;
use crate::model::{Kind, Name, Reason};
use crate::store::{Expect, Own, Revision, Store, StoreError, Write, keys};
use crate::telemetry::timestamp;

/// The condition of Policy/default that tells whether statuses are stored.
pub(crate) const STATUSES_STORED: &str = "StatusesStored";

/// What is said of an object.
#[derive(Debug)]
pub(super) struct Said {
    /// Of the object that it is about: one that was made anew under its name is another one.
    pub(super) uid: String,
    /// JSON, without times.
    pub(super) json: Vec<u8>,
    /// RFC 3339: since when that is so, where it differs from what was said before.
    pub(super) at: String,
}

#[derive(Debug, Default)]
struct Waiting {
    statuses: BTreeMap<(Kind, Name), Said>,
    events: VecDeque<Vec<u8>>,
    ends: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// What was written: the watch tells of it.
    own: Mutex<Own>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, event: &Event) {
        let mut waiting = self.waiting();
        if waiting.events.len() == limits::EVENTS {
            // The store would have forgotten it by then.
            waiting.events.pop_front();
        }
        waiting.events.extend(serde_json::to_vec(event).ok());
    }
}

pub(super) struct Outbox {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Outbox {
    pub(super) fn start(store: Arc<dyn Store>, site: Site) -> Outbox {
        let shared = Arc::<Shared>::default();
        let writer = Writer { store, site, shared: Arc::clone(&shared), failing: false };
        Outbox { shared, task: tokio::spawn(writer.run()) }
    }

    /// In place of what was said of this object, and is not written yet.
    pub(super) fn status(&self, kind: Kind, name: &Name, said: Said) {
        self.shared.waiting().statuses.insert((kind, name.clone()), said);
        self.shared.news.notify_one();
    }

    pub(super) fn event(&self, event: &Event) {
        self.shared.event(event);
        self.shared.news.notify_one();
    }

    /// Whether the change that the watch tells of was written here.
    pub(super) fn wrote(&self, revision: Revision) -> bool {
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).is(revision)
    }

    /// Writes what waits, once, and ends.
    pub(super) async fn close(mut self) {
        self.shared.waiting().ends = true;
        self.shared.news.notify_one();
        // What is not stored by then is said anew by the next controller.
        let _ = tokio::time::timeout(limits::WORKER_END, &mut self.task).await;
    }
}

struct Writer {
    store: Arc<dyn Store>,
    site: Site,
    shared: Arc<Shared>,
    failing: bool,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let (statuses, events, ends) = {
                let mut waiting = self.shared.waiting();
                (std::mem::take(&mut waiting.statuses), std::mem::take(&mut waiting.events), waiting.ends)
            };
            if statuses.is_empty() && events.is_empty() {
                if ends {
                    return;
                }
                self.shared.news.notified().await;
                continue;
            }
            let written = self.write(statuses, events).await;
            // Others who write the same objects all the time are no fault of the store.
            if !matches!(written, Err(StoreError::Conflict { .. } | StoreError::Fenced { .. })) {
                self.tell(written.as_ref().err());
            }
            match written {
                Ok(()) if ends => {}
                // What is said meanwhile is written together, and of what was said twice the last alone.
                Ok(()) => tokio::time::sleep(limits::BETWEEN_STATUSES).await,
                // Another controller says how things are now.
                Err(StoreError::Fenced { .. }) => return,
                Err(_) if ends => return,
                Err(_) => tokio::time::sleep(limits::RETRY_FIRST).await,
            }
        }
    }

    /// What could not be written waits again.
    async fn write(&mut self, mut statuses: BTreeMap<(Kind, Name), Said>, mut events: VecDeque<Vec<u8>>) -> Result<(), StoreError> {
        let mut result = Ok(());
        while result.is_ok() && !statuses.is_empty() {
            let some: Vec<(Kind, Name)> = statuses.keys().take(limits::WRITES_AT_ONCE).cloned().collect();
            result = self.write_some(&some, &statuses).await;
            if result.is_ok() {
                some.iter().for_each(|object| drop(statuses.remove(object)));
            }
        }
        while result.is_ok() && !events.is_empty() {
            let some: Vec<Vec<u8>> = events.iter().take(limits::WRITES_AT_ONCE).cloned().collect();
            let count = some.len();
            result = self.store.record_events(some).await;
            if result.is_ok() {
                events.drain(..count);
            }
        }
        let mut waiting = self.shared.waiting();
        for (object, said) in statuses {
            waiting.statuses.entry(object).or_insert(said);
        }
        while let Some(event) = events.pop_back().filter(|_| waiting.events.len() < limits::EVENTS) {
            waiting.events.push_front(event);
        }
        result
    }

    async fn write_some(&self, some: &[(Kind, Name)], statuses: &BTreeMap<(Kind, Name), Said>) -> Result<(), StoreError> {
        let keys: Vec<String> = some.iter().map(|(kind, name)| keys::object(*kind, name)).collect();
        let mut conflict = Ok(());
        for _ in 0..limits::API_ATTEMPTS {
            let entries = self.store.get_all(&keys).await?;
            let (mut writes, mut bytes, mut news) = (Vec::new(), 0, Vec::new());
            for (object, entry) in some.iter().zip(entries) {
                let (Some(entry), Some(said)) = (entry, statuses.get(object)) else { continue };
                let Some((value, was, is)) = renewed(&entry.value, said) else { continue };
                if value.len() > limits::VALUE_BYTES {
                    tracing::warn!(key = entry.key, bytes = value.len(), "a status is larger than the store takes; it is left as it was");
                    continue;
                }
                if bytes + value.len() > limits::WRITES_BYTES {
                    self.put(&mut writes, &mut news).await?;
                    bytes = 0;
                }
                bytes += value.len();
                writes.push(Write::put(entry.key, value, Expect::At(entry.revision)));
                let regarding = || format!("{}/{}", object.0, object.1);
                match object.0 {
                    Kind::Binding => news.extend(of_readiness(&regarding(), &is, &was, &said.at)),
                    Kind::Secret => news.extend(of_reading(&regarding(), &is, &was, &said.at)),
                    Kind::Policy | Kind::Network | Kind::Switch | Kind::Server | Kind::Persona => {}
                }
            }
            match self.put(&mut writes, &mut news).await {
                // Somebody else was first: what is there now keeps its desired state, and gets this status.
                Err(error @ StoreError::Conflict { .. }) => conflict = Err(error),
                done => return done,
            }
        }
        conflict
    }

    async fn put(&self, writes: &mut Vec<Write>, news: &mut Vec<Event>) -> Result<(), StoreError> {
        if !writes.is_empty() {
            let revisions = self.store.write_all(writes).await?;
            self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).wrote(revisions);
            writes.clear();
        }
        news.drain(..).for_each(|event| self.shared.event(&event));
        Ok(())
    }

    /// Says so once where nothing can be stored, and once when it can be again.
    fn tell(&mut self, error: Option<&StoreError>) {
        let word = match error {
            Some(error) if !self.failing => {
                tracing::warn!(error = %error, "statuses cannot be stored; what is shown is as old as that");
                let message = format!("statuses cannot be stored since {}: what is shown is as old as that ({error})", timestamp());
                SiteCondition { ok: false, reason: Reason::StatusesNotStored.as_str(), message }
            }
            None if self.failing => SiteCondition { ok: true, reason: Reason::AsDesired.as_str(), message: String::new() },
            Some(_) | None => return,
        };
        self.failing = !word.ok;
        site_is(&self.site, STATUSES_STORED, word);
    }
}

/// Of the metadata.
#[derive(Deserialize)]
struct Uid<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
}

/// The object with what is said of it now, and what was and is said of its readiness; nothing where that is the same, or it is not the object.
fn renewed(stored: &[u8], said: &Said) -> Option<(Vec<u8>, Readiness, Readiness)> {
    // What no status changes stays as it is written.
    let mut fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(stored).ok()?;
    let Uid { uid } = serde_json::from_str(fields.get("metadata")?.get()).ok()?;
    if uid != said.uid {
        return None;
    }
    let before: Value = fields.remove("status").map(|status| serde_json::from_str(status.get())).transpose().ok()?.unwrap_or_default();
    let mut status: Value = serde_json::from_slice(&said.json).ok()?;
    status::add_times(&mut status, &before, &said.at);
    if status::says_the_same(&before, &status) {
        return None;
    }
    let (was, is) = (Readiness::of(&before), Readiness::of(&status));
    let status = serde_json::value::to_raw_value(&status).ok()?;
    fields.insert("status", &status);
    Some((serde_json::to_vec(&fields).ok()?, was, is))
}

/// The condition Ready.
struct Readiness {
    status: String,
    reason: String,
    message: String,
}

impl Readiness {
    fn of(status: &Value) -> Readiness {
        let all = status.get("conditions").and_then(|c| c.as_array());
        let found = all.and_then(|all| all.iter().find(|c| c.get("type").and_then(|t| t.as_str()) == Some("Ready")));
        let text = |key: &str| found.and_then(|c| c.get(key)).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        Readiness { status: text("status"), reason: text("reason"), message: text("message") }
    }
}

/// An event when a binding becomes ready, ceases to be, or does not become ready for another reason than that it is being worked on.
fn of_readiness(regarding: &str, now: &Readiness, before: &Readiness, at: &str) -> Option<Event> {
    let moves = Reason::ALL.iter().any(|r| r.is_progress() && r.as_str() == now.reason);
    let (kind, message) = match (now.status == "True", before.status == "True") {
        (true, false) => ("Normal", "ready: power, boot and ports are as desired".to_owned()),
        (false, true) => ("Warning", format!("no longer ready: {}", now.message)),
        (false, false) if !moves && now.reason != before.reason => ("Warning", now.message.clone()),
        (false, false) | (true, true) => return None,
    };
    Some(Event { time: at.to_owned(), kind: kind.to_owned(), regarding: regarding.to_owned(), reason: now.reason.clone(), message })
}

/// An event when the file of a Secret does not read, or not for another reason than before, and when it reads again.
fn of_reading(regarding: &str, now: &Readiness, before: &Readiness, at: &str) -> Option<Event> {
    let (kind, message) = match (now.status.as_str(), before.status.as_str()) {
        ("True", "False") => ("Normal", format!("{} again", now.message)),
        ("False", was) if was != "False" || now.message != before.message => ("Warning", now.message.clone()),
        _ => return None,
    };
    Some(Event { time: at.to_owned(), kind: kind.to_owned(), regarding: regarding.to_owned(), reason: now.reason.clone(), message })
}
