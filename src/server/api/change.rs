//! A change of desired state: objects that are written, and others that are deleted with them.
//!
//! Leaves out: who may ask for it, and whether a person must say so first (`gitops` asks that between preparing and carrying out). Invariant: all of it
//! is checked together before the first write: each object, what refers to what, and that what is deleted may go. Shown by `tests/api.rs` and
//! `tests/directory.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::MutexGuard;

use super::apply::Applied;
use super::fault::ApiError;
use super::objects::{Backend, DryRun, Intent, Outcome, unchanged};
use super::refer;
use crate::model::status::Event;
use crate::model::{Kind, Name, Object, Spec};
use crate::store::AtOnce;
use crate::telemetry::timestamp;

/// Checked, and not written yet. While it lives nobody else in this process writes desired state.
pub(crate) struct Change<'a> {
    backend: &'a Backend,
    _alone: MutexGuard<'a, ()>,
    objects: Vec<Object>,
    /// All that there was.
    before: Vec<Arc<Object>>,
    /// By their index in `objects`: those that are as they are to be.
    same: BTreeMap<usize, Arc<Object>>,
    /// Indices of the others, what others refer to first.
    differing: Vec<usize>,
    /// What refers to others first.
    deleted: Vec<Arc<Object>>,
}

impl Backend {
    /// `gone` tells what of that which exists is to be deleted; never one of `objects`.
    pub(crate) async fn change(&self, objects: Vec<Object>, gone: &(dyn Fn(&Object) -> bool + Sync)) -> Result<Change<'_>, ApiError> {
        let alone = self.writing.lock().await;
        let before = self.checked(&objects, gone).await?;
        let known: BTreeMap<(Kind, &Name), &Arc<Object>> = before.iter().map(|o| ((o.kind(), o.name()), o)).collect();
        let objects: Vec<Object> = objects.into_iter().map(|o| with_restart(o, &known)).collect();
        let (mut same, mut differing) = (BTreeMap::new(), Vec::new());
        for (i, object) in objects.iter().enumerate() {
            match unchanged(object, known.get(&(object.kind(), object.name())).copied())? {
                Some(as_it_is) => drop(same.insert(i, as_it_is)),
                None => differing.push(i),
            }
        }
        differing.sort_by_key(|i| (objects.get(*i).map(Object::kind), *i));
        let mut deleted: Vec<Arc<Object>> = before.iter().filter(|o| gone(o)).cloned().collect();
        deleted.sort_by_key(|o| std::cmp::Reverse(o.kind()));
        let change = Change { backend: self, _alone: alone, objects, before, same, differing, deleted };
        change.may_be_deleted().await?;
        Ok(change)
    }
}

impl Change<'_> {
    /// Nobody refers to it afterwards, and the controller lets it go.
    async fn may_be_deleted(&self) -> Result<(), ApiError> {
        let names: Vec<(Kind, &Name)> = self.deleted.iter().map(|o| (o.kind(), o.name())).collect();
        let written: std::collections::BTreeSet<(Kind, &Name)> = self.objects.iter().map(|o| (o.kind(), o.name())).collect();
        let deleted: std::collections::BTreeSet<(Kind, &Name)> = names.iter().copied().collect();
        let stays = |o: &&Object| !written.contains(&(o.kind(), o.name())) && !deleted.contains(&(o.kind(), o.name()));
        let others = self.before.iter().map(std::convert::AsRef::as_ref).filter(stays).chain(&self.objects);
        let mut held = refer::held(&names, others);
        for (kind, name) in names {
            if let Err(refusal) = self.backend.control.may_delete(kind, name).await {
                held.push(format!("{kind}/{name} is not deleted: {refusal}"));
            }
        }
        if held.is_empty() { Ok(()) } else { Err(ApiError::invalid(held)) }
    }

    /// All that there was.
    pub(crate) fn before(&self) -> &[Arc<Object>] {
        &self.before
    }

    pub(crate) fn deleted(&self) -> &[Arc<Object>] {
        &self.deleted
    }

    /// What would be written, as it will be, and whether that is new.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&Object, Outcome)> {
        let known: BTreeMap<(Kind, &Name), &Object> = self.before.iter().map(|o| ((o.kind(), o.name()), o.as_ref())).collect();
        let outcome = move |o: &Object| if known.contains_key(&(o.kind(), o.name())) { Outcome::Configured } else { Outcome::Created };
        self.differing.iter().filter_map(|i| self.objects.get(*i)).map(move |o| (o, outcome(o)))
    }

    /// Writes and deletes: all or none where the store takes them at once, else in the fewest transactions, the writes first. The answers are in
    /// the order of the objects.
    pub(crate) async fn carry_out(mut self, source: Option<&str>, dry: DryRun) -> Result<Vec<Applied>, ApiError> {
        let mut done: BTreeMap<usize, Applied> =
            std::mem::take(&mut self.same).iter().map(|(i, o)| (*i, applied(Outcome::Unchanged, o))).collect();
        let batches = self.batches();
        // A first pass without writing: preconditions and hidden values of the last object must not fail after the first was written.
        if batches.len() > 1 {
            for (writes, deletes) in &batches {
                self.put(writes, deletes, source, DryRun::All).await?;
            }
        }
        let mut written = 0;
        for (writes, deletes) in &batches {
            let outcomes = self.put(writes, deletes, source, dry).await.map_err(|error| {
                let message = match written {
                    0 => error.message.clone(),
                    _ => format!("{} (objects done before it: {written} of {}; applying again goes on)", error.message, self.objects.len()),
                };
                ApiError { message, ..error }
            })?;
            written += writes.len();
            for (i, (outcome, now)) in writes.iter().zip(outcomes) {
                if dry == DryRun::No && outcome != Outcome::Unchanged {
                    let level = if self.objects.len() <= SAID_ONE_BY_ONE { tracing::Level::INFO } else { tracing::Level::DEBUG };
                    say(level, &now, outcome, source);
                }
                done.insert(*i, applied(outcome, &now));
            }
            if dry == DryRun::No {
                self.say_deleted(deletes, source).await;
            }
        }
        if dry == DryRun::No && self.objects.len() > SAID_ONE_BY_ONE && written > 0 {
            tracing::info!(objects = self.objects.len(), written, source, "applied");
        }
        Ok(done.into_values().collect())
    }

    async fn put(
        &self,
        writes: &[usize],
        deletes: &[Arc<Object>],
        source: Option<&str>,
        dry: DryRun,
    ) -> Result<Vec<(Outcome, Object)>, ApiError> {
        let objects: Vec<&Object> = writes.iter().filter_map(|i| self.objects.get(*i)).collect();
        self.backend.put(&objects, deletes, Intent::Apply, source, dry).await
    }

    /// Each in the log and among the events.
    async fn say_deleted(&self, deleted: &[Arc<Object>], source: Option<&str>) {
        let because = format!("it is no longer in {}", source.unwrap_or("its source"));
        let mut events = Vec::with_capacity(deleted.len());
        for object in deleted {
            let regarding = format!("{}/{}", object.kind(), object.name());
            tracing::info!(object = regarding, because, "deleted");
            let (time, kind, reason, message) = (timestamp(), "Normal".to_owned(), "Deleted".to_owned(), because.clone());
            events.extend(serde_json::to_vec(&Event { time, kind, regarding, reason, message }).ok());
        }
        if !events.is_empty()
            && let Err(error) = self.backend.store.record_events(events).await
        {
            tracing::warn!(error = %error, "the events of these deletions could not be stored");
        }
    }

    /// As few as the store takes, in this order: writes, and what is deleted with them.
    fn batches(&self) -> Vec<(Vec<usize>, Vec<Arc<Object>>)> {
        let most = self.backend.store.most_at_once();
        let mut batches: Vec<(Vec<usize>, Vec<Arc<Object>>)> = write_batches(&self.objects, &self.differing, most);
        match batches.as_mut_slice() {
            // What is renamed is never there twice, nor gone for a moment.
            [(writes, deletes)] if writes.len() + self.deleted.len() <= most.writes => deletes.extend(self.deleted.iter().cloned()),
            _ => batches.extend(self.deleted.chunks(most.writes).map(|some| (Vec::new(), some.to_vec()))),
        }
        batches
    }
}

/// A manifest that does not speak of restarts keeps those that `embody restart` has asked for.
fn with_restart(mut object: Object, known: &BTreeMap<(Kind, &Name), &Arc<Object>>) -> Object {
    let present = known.get(&(object.kind(), object.name())).map(|old| &old.spec);
    if let (Spec::Binding(spec), Some(Spec::Binding(old))) = (&mut object.spec, present)
        && spec.restart == 0
    {
        spec.restart = old.restart;
    }
    object
}

/// Above this, an apply is one line in the log.
const SAID_ONE_BY_ONE: usize = 50;

fn say(level: tracing::Level, object: &Object, outcome: Outcome, source: Option<&str>) {
    let (kind, name, result) = (object.kind(), object.name(), outcome.as_str());
    if level == tracing::Level::INFO {
        tracing::info!(object = %format_args!("{kind}/{name}"), result, source, "applied");
    } else {
        tracing::debug!(object = %format_args!("{kind}/{name}"), result, source, "applied");
    }
}

fn applied(outcome: Outcome, now: &Object) -> Applied {
    Applied { kind: now.kind(), name: now.name().clone(), result: outcome.as_str().to_owned(), object: now.to_public_json() }
}

/// As few as the store takes, in this order.
fn write_batches(objects: &[Object], differing: &[usize], most: AtOnce) -> Vec<(Vec<usize>, Vec<Arc<Object>>)> {
    let (mut batches, mut bytes) = (Vec::<(Vec<usize>, Vec<Arc<Object>>)>::new(), 0);
    for (i, object) in differing.iter().filter_map(|i| Some((*i, objects.get(*i)?))) {
        // What it has beside its spec, its status among that, may be as much.
        let size = serde_json::to_vec(&object.to_json()).map_or(0, |text| 2 * text.len() + STATUS_BYTES);
        match batches.last_mut().filter(|(last, _)| last.len() < most.writes && bytes + size <= most.bytes) {
            Some((last, _)) => last.push(i),
            None => {
                batches.push((vec![i], Vec::new()));
                bytes = 0;
            }
        }
        bytes += size;
    }
    batches
}

/// What a status takes, at most by far.
const STATUS_BYTES: usize = 8 << 10;
