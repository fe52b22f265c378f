//! Watches: one JSON line per change (metav1.WatchEvent), from a revision on, with bookmarks for those who ask. Leaves out: lists (`routes`).
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
use tokio::time::timeout;

use super::columns;
use super::fault::ApiError;
use super::objects::{self, Backend};
use super::routes::{Selection, Shape, Stop};
use crate::byte_channel::{self, Sender};
use crate::limits::{WATCH_BOOKMARK_AFTER, WATCH_BYTES};
use crate::model::kind::API_VERSION;
use crate::model::{Kind, Object};
use crate::store::{Change, Entry, Revision, StoreError};

type Line = Result<Bytes, Infallible>;

/// How a client wants to be told.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Changes after this revision; nothing: first what is there.
    pub from: Option<Revision>,
    /// It is told where what was there ends, and that it has missed nothing.
    pub bookmarks: bool,
    pub shape: Shape,
}

struct Watch {
    backend: Arc<Backend>,
    kind: Kind,
    selection: Selection,
    manner: Manner,
    /// A table tells its columns once.
    has_columns: bool,
    /// All changes up to here were told.
    told_until: Revision,
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

pub(super) fn start(
    backend: Arc<Backend>,
    kind: Kind,
    selection: Selection,
    manner: Manner,
    lasting: Option<Duration>,
    mut stop: Stop,
) -> Response {
    let (to, lines) = byte_channel::channel(WATCH_BYTES, |line: &Line| line.as_ref().map_or(0, Bytes::len));
    let closed = to.clone();
    let (known, told) = (BTreeMap::new(), BTreeSet::new());
    let watch = Watch { backend, kind, selection, manner, has_columns: false, told_until: 0, known, unsure_until: 0, told, to };
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
            () = watch.run() => {}
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    response
}

impl Watch {
    async fn run(mut self) {
        if let Err(error) = self.follow().await {
            tracing::debug!(kind = self.kind.plural(), error = %error, "watch ended");
            let line = json!({ "type": "ERROR", "object": error.to_json() });
            let _gone = self.send(&line).await;
        }
    }

    async fn follow(&mut self) -> Result<(), ApiError> {
        let prefix = format!("{}{}/", objects::PREFIX, self.kind.plural());
        let (mut changes, begun) = match self.manner.from {
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
        self.told_until = begun.unwrap_or(now);
        if begun.is_none() && self.manner.bookmarks && self.bookmark(true).await.is_err() {
            return Ok(());
        }
        let mut changes = match changes.take() {
            Some(changes) => changes,
            None => self.backend.store.watch(&prefix, now).await?,
        };
        loop {
            let Ok(change) = timeout(WATCH_BOOKMARK_AFTER, changes.recv()).await else {
                if self.manner.bookmarks && self.bookmark(false).await.is_err() {
                    return Ok(());
                }
                continue;
            };
            let sent = match change {
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
        self.selection.has(&object).then_some(object)
    }

    async fn changed(&mut self, entry: Entry) -> Result<(), Gone> {
        let (key, revision) = (entry.key.clone(), entry.revision);
        self.told_until = revision;
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
        self.told_until = revision;
        let unsure = self.unsure(key, revision);
        match self.known.remove(key).map(|last| objects::decode(&Entry { revision, ..last })) {
            Some(Ok(object)) => self.event("DELETED", &object).await,
            // The client has its last version, and here is no other one: its name must do.
            None if unsure => self.bare_deletion(key, revision).await,
            Some(Err(_)) | None => Ok(()),
        }
    }

    async fn bare_deletion(&mut self, key: &str, revision: Revision) -> Result<(), Gone> {
        let name = key.rsplit('/').next().unwrap_or(key);
        if !self.selection.names(name) {
            return Ok(());
        }
        let meta = json!({ "name": name, "resourceVersion": revision.to_string() });
        let object = json!({ "apiVersion": API_VERSION, "kind": self.kind.singular(), "metadata": meta });
        let object = self.shaped(object, json!({ "resourceVersion": revision.to_string() }));
        self.send(&json!({ "type": "DELETED", "object": object })).await
    }

    async fn event(&mut self, word: &str, object: &Object) -> Result<(), Gone> {
        let object = self.shaped(object.to_public_json(), json!({ "resourceVersion": object.meta.resource_version }));
        self.send(&json!({ "type": word, "object": object })).await
    }

    /// Nothing more changed up to here. `initial`: what was there at the beginning was all told (KEP-3157).
    async fn bookmark(&mut self, initial: bool) -> Result<(), Gone> {
        let mut meta = json!({ "resourceVersion": self.told_until.to_string() });
        if initial {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.manner.shape {
            Shape::Table => columns::table(self.kind, Vec::new(), meta),
            shape => shape.of(self.kind, json!({ "apiVersion": API_VERSION, "kind": self.kind.singular(), "metadata": meta }), Value::Null),
        };
        self.send(&json!({ "type": "BOOKMARK", "object": object })).await
    }

    fn shaped(&mut self, object: Value, meta: Value) -> Value {
        let mut shaped = self.manner.shape.of(self.kind, object, meta);
        if self.manner.shape == Shape::Table && std::mem::replace(&mut self.has_columns, true) {
            shaped["columnDefinitions"] = Value::Null;
        }
        shaped
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
