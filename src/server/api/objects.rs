//! Objects in the store: reading, creating, replacing, deleting, with what the server owns of them (uid, generation, resourceVersion).
//!
//! Leaves out: HTTP, and what a spec means. Invariants: a write that changes nothing is not a write; `generation` counts changes of the
//! spec alone; status is kept whatever a client sends. `resourceVersion` is the store's revision, filled in on reading and never stored.
//! Shown by `tests/api.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use super::fault::{ApiError, chain};
use super::known::Known;
use super::pages::Pages;
use super::refer;
use super::{Check, Objection};
use crate::control::operator::Control;
use crate::control::outbox::STATUSES_STORED;
use crate::control::status_writer::Site;
use crate::limits::API_ATTEMPTS;
use crate::model::{Kind, Meta, Name, Object, Spec, secret::Hidden};
use crate::server::images::Keeper;
use crate::store::{Entry, Expect, Revision, Store, StoreError, Write};

/// The prefix of all objects in the store.
pub(crate) const PREFIX: &str = "objects/";
/// Annotations under this prefix are the server's: clients neither set nor remove them.
pub(crate) const OWN_ANNOTATIONS: &str = "embody.dev/";
/// Which source created the object (`directory:/etc/embody/rack`).
pub(crate) const SOURCE: &str = "embody.dev/source";
/// What `Object::to_public_json` shows instead of a Secret's value.
const HIDDEN: &str = "(hidden)";

/// Where an object is kept.
pub fn key(kind: Kind, name: &str) -> String {
    format!("{PREFIX}{}/{name}", kind.plural())
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Configured,
    Unchanged,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
        }
    }
}

/// An object as it is after a write, and what is to be said of it.
#[derive(Debug)]
pub struct Written {
    pub object: Object,
    pub warnings: Vec<String>,
}

/// What must be there for a write to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It must not exist.
    Create,
    /// It must exist.
    Replace,
    /// Either.
    Apply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    No,
    All,
}

/// What the API works on.
pub struct Backend {
    pub store: Arc<dyn Store>,
    pub control: Arc<dyn Control>,
    pub(super) check: Check,
    /// One writer of desired state at a time in this process, so that a check and the writes after it see the same objects. Writers elsewhere
    /// are met by compare-and-set.
    pub(super) writing: Mutex<()>,
    known: Known,
    site: Site,
    pub(super) pages: Pages,
    /// Who keeps the files of images.
    pub(crate) images: Option<Arc<Keeper>>,
    /// Of the directory that is watched, if one is.
    pub(crate) source: super::source::Source,
}

impl Backend {
    pub fn new(store: Arc<dyn Store>, control: Arc<dyn Control>, check: Check, site: Site) -> Backend {
        Backend {
            store,
            control,
            check,
            writing: Mutex::new(()),
            known: Known::default(),
            site,
            pages: Pages::default(),
            images: None,
            source: super::source::Source::default(),
        }
    }

    /// With somebody who keeps the files of images.
    pub(crate) fn with_images(self, keeper: Arc<Keeper>) -> Backend {
        Backend { images: Some(keeper), ..self }
    }

    /// What whoever reads should know: statuses that are older than they seem.
    pub(super) fn warning(&self) -> Option<String> {
        self.site.borrow().get(STATUSES_STORED).filter(|word| !word.ok).map(|word| word.message.clone())
    }

    /// One object, with its resourceVersion.
    pub async fn read(&self, kind: Kind, name: &str) -> Result<Object, ApiError> {
        match self.store.get(&key(kind, name)).await? {
            Some(entry) => decode(&entry),
            None => Err(ApiError::not_found(kind, name)),
        }
    }

    /// All objects of a kind, as JSON for everybody, of which `selected` says yes to the metadata and that JSON. One that does not read is left out, and said in the
    /// log: the others must stay visible.
    pub async fn list(&self, kind: Kind, selected: impl Fn(&Meta, &str) -> bool) -> Result<(Vec<Box<RawValue>>, Revision), ApiError> {
        let (entries, revision) = self.store.list(&format!("{PREFIX}{}/", kind.plural())).await?;
        let read = |entry: &Entry| {
            let shown = shown(kind, entry).inspect_err(|e| tracing::warn!(key = entry.key, error = %e, "a stored object does not read"));
            shown.ok().filter(|(meta, json)| selected(meta, json.get())).map(|(_, json)| json)
        };
        Ok((entries.iter().filter_map(read).collect(), revision))
    }

    /// All objects, without their statuses.
    pub async fn all(&self) -> Result<Vec<Arc<Object>>, ApiError> {
        self.known.all(self.store.as_ref()).await
    }

    /// What the check says of these changes beside everything that they neither replace nor, by `gone`, delete. Returned is what there was.
    pub(super) async fn checked(&self, changed: &[Object], gone: &(dyn Fn(&Object) -> bool + Sync)) -> Result<Vec<Arc<Object>>, ApiError> {
        let (all, objections) = self.objections(changed, gone).await?;
        if objections.is_empty() { Ok(all) } else { Err(ApiError::invalid(objections.into_iter().map(|o| o.text).collect())) }
    }

    async fn objections(
        &self,
        changed: &[Object],
        gone: &(dyn Fn(&Object) -> bool + Sync),
    ) -> Result<(Vec<Arc<Object>>, Vec<Objection>), ApiError> {
        let all = self.all().await?;
        let replaced: BTreeSet<(Kind, &Name)> = changed.iter().map(|c| (c.kind(), c.name())).collect();
        let stays = |o: &&Arc<Object>| !replaced.contains(&(o.kind(), o.name())) && !gone(o);
        let existing: Vec<Arc<Object>> = all.iter().filter(stays).cloned().collect();
        let objections = (self.check)(changed, &existing);
        Ok((all, objections))
    }

    /// Checks and writes one object. Clients that send objects one by one do so in any order: names that nothing has are said, and no reason to refuse.
    pub async fn write(&self, wanted: Object, desired: Intent, dry: DryRun) -> Result<Written, ApiError> {
        let _alone = self.writing.lock().await;
        if desired == Intent::Create && self.store.get(&key(wanted.kind(), wanted.name().as_str())).await?.is_some() {
            return Err(ApiError::exists(wanted.kind(), wanted.name().as_str()));
        }
        let (_, objections) = self.objections(std::slice::from_ref(&wanted), &|_| false).await?;
        let (dangling, wrong): (Vec<Objection>, Vec<Objection>) = objections.into_iter().partition(|objection| objection.dangles);
        if !wrong.is_empty() {
            return Err(ApiError::invalid(wrong.into_iter().chain(dangling).map(|objection| objection.text).collect()));
        }
        let written = self.put(&[&wanted], &[], desired, None, dry).await?;
        let (_, object) = written.into_iter().next().ok_or_else(|| ApiError::internal("nothing was written"))?;
        Ok(Written { object, warnings: dangling.into_iter().map(|objection| objection.text).collect() })
    }

    /// Writes and deletes without a check, all or none: at most what the store takes at once. `writing` is held by the caller.
    pub(super) async fn put(
        &self,
        wanted: &[&Object],
        deleted: &[Arc<Object>],
        desired: Intent,
        source: Option<&str>,
        dry: DryRun,
    ) -> Result<Vec<(Outcome, Object)>, ApiError> {
        let all = wanted.iter().copied().chain(deleted.iter().map(std::convert::AsRef::as_ref));
        let keys: Vec<String> = all.map(|object| key(object.kind(), object.name().as_str())).collect();
        let uids: Vec<String> = wanted.iter().map(|_| uuid::Uuid::new_v4().to_string()).collect();
        let mut lost = None;
        for _ in 0..API_ATTEMPTS {
            let entries = self.store.get_all(&keys).await?;
            let mut next = Vec::with_capacity(wanted.len());
            for ((object, uid), entry) in wanted.iter().zip(&uids).zip(&entries) {
                next.push(next_of(object, uid, entry.as_ref(), desired, source)?);
            }
            let changed: Vec<usize> = next.iter().enumerate().filter(|(_, next)| next.is_to_be_written).map(|(i, _)| i).collect();
            let deletes = deletes(deleted, &entries[wanted.len()..])?;
            if (changed.is_empty() && deletes.is_empty()) || dry == DryRun::All {
                return Ok(next.into_iter().map(|next| (next.outcome, next.object)).collect());
            }
            let write = |i: &usize| {
                let expect = entries[*i].as_ref().map_or(Expect::Absent, |e| Expect::At(e.revision));
                Write::put(keys[*i].as_str(), encode(&next[*i].object), expect)
            };
            let writes: Vec<Write> = changed.iter().map(write).chain(deletes).collect();
            match self.store.write_all(&writes).await {
                Ok(revisions) => {
                    for (i, revision) in changed.iter().zip(revisions) {
                        next[*i].object.meta.resource_version = revision.to_string();
                    }
                    return Ok(next.into_iter().map(|next| (next.outcome, next.object)).collect());
                }
                Err(error @ (StoreError::Conflict { .. } | StoreError::Unknown { .. })) => lost = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(lost.map_or_else(|| ApiError::conflict("the object keeps changing"), ApiError::from))
    }

    /// Deletes an object that nobody refers to and the controller lets go.
    pub async fn delete(&self, kind: Kind, name: &Name, want: &Preconditions, dry: DryRun) -> Result<Option<Object>, ApiError> {
        let _alone = self.writing.lock().await;
        for _ in 0..API_ATTEMPTS {
            let Some(entry) = self.store.get(&key(kind, name.as_str())).await? else {
                return Err(ApiError::not_found(kind, name.as_str()));
            };
            // What does not read any more can still be deleted, once nobody refers to it.
            let object = decode(&entry).ok();
            if let Some(object) = &object {
                want.hold(object)?;
            }
            let all = self.all().await?;
            if let Some(held) = refer::held(&[(kind, name)], all.iter().map(std::convert::AsRef::as_ref)).into_iter().next() {
                return Err(ApiError::conflict(held));
            }
            self.control.may_delete(kind, name).await?;
            if dry == DryRun::All {
                return Ok(object);
            }
            match self.store.delete_if(&entry.key, entry.revision).await {
                Ok(_) => return Ok(object),
                Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::conflict(format!("{kind}/{name} keeps changing; try again")))
    }
}

/// `uid` and `resourceVersion` of a DELETE, where they are given.
#[derive(Debug, Default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl Preconditions {
    fn hold(&self, object: &Object) -> Result<(), ApiError> {
        let uid = self.uid.as_ref().is_none_or(|u| *u == object.meta.uid);
        let version = self.resource_version.as_ref().is_none_or(|v| *v == object.meta.resource_version);
        if uid && version { Ok(()) } else { Err(modified(object)) }
    }
}

fn modified(object: &Object) -> ApiError {
    ApiError::conflict(format!(
        "{}/{} has been modified (it is at resourceVersion {}); please apply your changes to the latest version",
        object.kind(),
        object.name(),
        object.meta.resource_version
    ))
}

/// Each as it was when its deletion was decided; what is gone already needs none.
fn deletes(deleted: &[Arc<Object>], entries: &[Option<Entry>]) -> Result<Vec<Write>, ApiError> {
    let mut writes = Vec::new();
    for (object, entry) in deleted.iter().zip(entries).filter_map(|(object, entry)| Some((object, entry.as_ref()?))) {
        let now = decode(entry)?;
        if (&now.meta.uid, now.meta.generation) != (&object.meta.uid, object.meta.generation) {
            return Err(modified(&now));
        }
        writes.push(Write::delete(entry.key.as_str(), entry.revision));
    }
    Ok(writes)
}

/// What would be there after a write.
struct Next {
    outcome: Outcome,
    object: Object,
    is_to_be_written: bool,
}

fn next_of(wanted: &Object, uid: &str, entry: Option<&Entry>, desired: Intent, source: Option<&str>) -> Result<Next, ApiError> {
    let old = match (entry.map(|entry| (decode(entry), &entry.key)), desired) {
        // Nobody knows any more what it was: what is applied takes its place, as an object of its own.
        (Some((Err(error), key)), Intent::Apply) => {
            tracing::warn!(key, error = %error, "what is applied takes the place of an object that does not read");
            None
        }
        (old, Intent::Create | Intent::Replace | Intent::Apply) => old.map(|(old, _)| old).transpose()?,
    };
    // A create whose answer was lost finds its own uid.
    if let Some(mine) = old.as_ref().filter(|o| o.meta.uid == uid) {
        return Ok(Next { outcome: Outcome::Created, object: mine.clone(), is_to_be_written: false });
    }
    precondition(wanted, old.as_ref(), desired)?;
    let (object, outcome) = merge(old.as_ref(), wanted, uid, source)?;
    Ok(Next { outcome, object, is_to_be_written: outcome != Outcome::Unchanged })
}

fn precondition(wanted: &Object, old: Option<&Object>, desired: Intent) -> Result<(), ApiError> {
    let (kind, name) = (wanted.kind(), wanted.name().as_str());
    match (old, desired) {
        (Some(_), Intent::Create) => Err(ApiError::exists(kind, name)),
        (None, Intent::Replace) => Err(ApiError::not_found(kind, name)),
        (None, Intent::Create | Intent::Apply) => Ok(()),
        (Some(old), Intent::Replace | Intent::Apply) => {
            let same = |given: &str, have: &str| given.is_empty() || given == have;
            if same(&wanted.meta.resource_version, &old.meta.resource_version) && same(&wanted.meta.uid, &old.meta.uid) {
                Ok(())
            } else {
                Err(modified(old))
            }
        }
    }
}

/// The object that there is, if applying this one would leave it as it is.
pub(super) fn unchanged(wanted: &Object, old: Option<&Arc<Object>>) -> Result<Option<Arc<Object>>, ApiError> {
    let Some(old) = old else { return Ok(None) };
    precondition(wanted, Some(old), Intent::Apply)?;
    let (_, outcome) = merge(Some(old), wanted, "", None)?;
    Ok((outcome == Outcome::Unchanged).then(|| Arc::clone(old)))
}

/// What is to be stored: the client's spec, labels and annotations; all else as it was, or fresh.
fn merge(old: Option<&Object>, wanted: &Object, uid: &str, source: Option<&str>) -> Result<(Object, Outcome), ApiError> {
    let mut next = wanted.clone();
    next.meta.annotations.retain(|k, _| !k.starts_with(OWN_ANNOTATIONS));
    keep_hidden(&mut next.spec, old, wanted.name())?;
    let Some(old) = old else {
        next.meta.uid = uid.to_owned();
        next.meta.generation = 1;
        next.meta.creation_timestamp = Some(crate::telemetry::timestamp());
        next.meta.deletion_timestamp = None;
        next.meta.finalizers = Vec::new();
        next.meta.resource_version = String::new();
        next.status = serde_json::Value::Null;
        if let Some(source) = source {
            next.meta.annotations.insert(SOURCE.to_owned(), source.to_owned());
        }
        return Ok((next, Outcome::Created));
    };
    let ours = old.meta.annotations.iter().filter(|(k, _)| k.starts_with(OWN_ANNOTATIONS));
    next.meta.annotations.extend(ours.map(|(k, v)| (k.clone(), v.clone())));
    let (labels, annotations) = (next.meta.labels, next.meta.annotations);
    next.meta = old.meta.clone();
    (next.meta.labels, next.meta.annotations) = (labels, annotations);
    next.status = old.status.clone();
    if next.spec != old.spec {
        next.meta.generation += 1;
    }
    let outcome = if next == *old { Outcome::Unchanged } else { Outcome::Configured };
    Ok((next, outcome))
}

/// A Secret that was read, edited and sent back carries `(hidden)` for each value that is to stay.
fn keep_hidden(spec: &mut Spec, old: Option<&Object>, name: &Name) -> Result<(), ApiError> {
    let Spec::Secret(secret) = spec else { return Ok(()) };
    let before = match old.map(|o| &o.spec) {
        Some(Spec::Secret(before)) => Some(&before.string_data),
        Some(_) | None => None,
    };
    for (key, value) in secret.string_data.iter_mut().filter(|(_, v)| v.reveal() == HIDDEN) {
        let known: &Hidden = before.and_then(|b| b.get(key)).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Secret/{name}: stringData.{key} is `{HIDDEN}`, which is what is shown instead of a value; send the value"
            ))
        })?;
        *value = known.clone();
    }
    Ok(())
}

fn at(mut object: Object, revision: Revision) -> Object {
    object.meta.resource_version = revision.to_string();
    object
}

fn encode(object: &Object) -> Vec<u8> {
    let mut bare = object.clone();
    bare.meta.resource_version = String::new();
    bare.to_json().to_string().into_bytes()
}

/// A stored object as everybody may see it, and its metadata. What is stored is handed on as it is, but for the values of a Secret.
fn shown(kind: Kind, entry: &Entry) -> Result<(Meta, Box<RawValue>), ApiError> {
    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Stored<'a> {
        api_version: &'a str,
        kind: &'a str,
        metadata: Meta,
        #[serde(borrow)]
        spec: &'a RawValue,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        status: Option<&'a RawValue>,
    }
    let bad = |e: serde_json::Error| ApiError::internal(format!("the stored object `{}` does not read: {}", entry.key, chain(&e)));
    if kind == Kind::Secret {
        let object = decode(entry)?;
        return Ok((object.meta.clone(), serde_json::value::to_raw_value(&object.to_public_json()).map_err(bad)?));
    }
    let mut stored: Stored<'_> = serde_json::from_slice(&entry.value).map_err(bad)?;
    stored.metadata.resource_version = entry.revision.to_string();
    let json = serde_json::value::to_raw_value(&stored).map_err(bad)?;
    Ok((stored.metadata, json))
}

/// A stored entry as an object.
pub(crate) fn decode(entry: &Entry) -> Result<Object, ApiError> {
    let bad = |e: &dyn std::error::Error| ApiError::internal(format!("the stored object `{}` does not read: {}", entry.key, chain(e)));
    let json = serde_json::from_slice(&entry.value).map_err(|e| bad(&e))?;
    let object = Object::from_json(json).map_err(|e| bad(&e))?;
    Ok(at(object, entry.revision))
}
