//! Watches: one JSON line per change (metav1.WatchEvent), from a revision on. Leaves out: bookmarks.
//!
//! Invariants: nothing is left out silently (a gap ends the watch with 410 Expired); an object that leaves the selection is DELETED.
//! Whether the first change that is seen of an object is ADDED or MODIFIED is told by its generation where the watch begins in the past;
//! clients that keep a cache do not mind. Shown by `tests/api.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde_json::{Value, json};

use super::fault::ApiError;
use super::objects::{self, Backend};
use super::routes::{Selection, Stop};
use crate::byte_channel::{self, Sender};
use crate::limits::WATCH_BYTES;
use crate::model::kind::API_VERSION;
use crate::model::{Kind, Object};
use crate::store::{Change, Entry, Revision, StoreError};

type Line = Result<Bytes, Infallible>;

struct Watch {
    backend: Arc<Backend>,
    kind: Kind,
    selection: Selection,
    /// What the client knows, by store key: the last version that was in the selection.
    known: BTreeMap<String, Entry>,
    /// Changes up to this revision came before the list with which the watch began: of a key that is not known then, the client may
    /// know an older version.
    unsure_until: Revision,
    /// Keys of which such a change was already told.
    told: BTreeSet<String>,
    to: Sender<Line>,
}

/// The client went away.
struct Gone;

/// Streams changes after `from`; without it, first what is there.
pub(super) fn start(
    backend: Arc<Backend>,
    kind: Kind,
    selection: Selection,
    from: Option<Revision>,
    lasting: Option<Duration>,
    mut stop: Stop,
) -> Response {
    let (to, lines) = byte_channel::channel(WATCH_BYTES, |line: &Line| line.as_ref().map_or(0, Bytes::len));
    let closed = to.clone();
    let watch = Watch { backend, kind, selection, known: BTreeMap::new(), unsure_until: 0, told: BTreeSet::new(), to };
    tokio::spawn(async move {
        let end = async {
            match lasting {
                Some(period) => tokio::time::sleep(period).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = closed.closed() => {}
            () = stop.wait() => {}
            () = end => {}
            () = watch.run(from) => {}
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    response
}

impl Watch {
    async fn run(mut self, from: Option<Revision>) {
        if let Err(error) = self.follow(from).await {
            tracing::debug!(kind = self.kind.plural(), error = %error, "watch ended");
            let line = json!({ "type": "ERROR", "object": error.to_json() });
            let _gone = self.send(&line).await;
        }
    }

    async fn follow(&mut self, from: Option<Revision>) -> Result<(), ApiError> {
        let prefix = format!("{}{}/", objects::PREFIX, self.kind.plural());
        let (mut changes, begun) = match from {
            Some(revision) => (Some(self.backend.store.watch(&prefix, revision).await?), Some(revision)),
            None => (None, None),
        };
        let (entries, now) = self.backend.store.list(&prefix).await?;
        self.unsure_until = if begun.is_some() { now } else { 0 };
        for entry in entries {
            let Some(object) = self.selected(&entry) else { continue };
            match begun {
                Some(begun) if entry.revision > begun => {}
                Some(_) => drop(self.known.insert(entry.key.clone(), entry)),
                None => {
                    self.known.insert(entry.key.clone(), entry);
                    if self.event("ADDED", &object).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        let mut changes = match changes.take() {
            Some(changes) => changes,
            None => self.backend.store.watch(&prefix, now).await?,
        };
        loop {
            let sent = match changes.recv().await {
                Some(Ok(Change::Put(entry))) => self.changed(entry).await,
                Some(Ok(Change::Deleted { key, revision })) => self.deleted(&key, revision).await,
                Some(Err(error)) => return Err(cut(error)),
                None => return Err(ApiError::expired("the watch was cut off; list again")),
            };
            if sent.is_err() {
                return Ok(());
            }
        }
    }

    fn selected(&self, entry: &Entry) -> Option<Object> {
        let object =
            objects::decode(entry).inspect_err(|e| tracing::warn!(key = entry.key, error = %e, "a stored object does not read")).ok()?;
        self.selection.matches(&object.meta).then_some(object)
    }

    async fn changed(&mut self, entry: Entry) -> Result<(), Gone> {
        let (key, revision) = (entry.key.clone(), entry.revision);
        let Some(object) = self.selected(&entry) else { return self.deleted(&key, revision).await };
        let unsure = self.unsure(&key, revision);
        let fresh = object.meta.generation <= 1 && object.status.is_null();
        let before = self.known.insert(key, entry);
        let word = if before.is_none() && (!unsure || fresh) { "ADDED" } else { "MODIFIED" };
        self.event(word, &object).await
    }

    /// Whether the client may know an object that is not in `known`. True at most once for a key.
    fn unsure(&mut self, key: &str, revision: Revision) -> bool {
        revision <= self.unsure_until && !self.known.contains_key(key) && self.told.insert(key.to_owned())
    }

    /// The object is gone, or no longer in the selection.
    async fn deleted(&mut self, key: &str, revision: Revision) -> Result<(), Gone> {
        let unsure = self.unsure(key, revision);
        match self.known.remove(key).map(|last| objects::decode(&Entry { revision, ..last })) {
            Some(Ok(object)) => self.event("DELETED", &object).await,
            // The client has its last version, and here is no other one: its name must do.
            None if unsure => self.bare_deletion(key, revision).await,
            Some(Err(_)) | None => Ok(()),
        }
    }

    async fn bare_deletion(&self, key: &str, revision: Revision) -> Result<(), Gone> {
        let name = key.rsplit('/').next().unwrap_or(key);
        if !self.selection.names(name) {
            return Ok(());
        }
        let meta = json!({ "name": name, "resourceVersion": revision.to_string() });
        let object = json!({ "apiVersion": API_VERSION, "kind": self.kind.singular(), "metadata": meta });
        self.send(&json!({ "type": "DELETED", "object": object })).await
    }

    async fn event(&self, word: &str, object: &Object) -> Result<(), Gone> {
        self.send(&json!({ "type": word, "object": object.to_public_json() })).await
    }

    async fn send(&self, line: &Value) -> Result<(), Gone> {
        let mut text = line.to_string();
        text.push('\n');
        self.to.send(Ok(Bytes::from(text))).await.map_err(|_| Gone)
    }
}

/// Whatever ended the store's watch, the client's remedy is the same.
fn cut(error: StoreError) -> ApiError {
    ApiError::expired(super::fault::chain(&error))
}
