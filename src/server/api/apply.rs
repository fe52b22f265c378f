//! Many objects in one go: everything is read and checked together before the first write.
//!
//! Leaves out: deleting what is no longer there (`--prune` is the directory's business). Invariant: where one object is wrong, none is
//! written. Shown by `tests/api.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decode;
use super::fault::{ApiError, Cause};
use super::objects::{Backend, DryRun, Intent, Outcome, unchanged};
use crate::limits::MANIFEST_OBJECTS;
use crate::model::{Kind, Name, Object, Spec};
use crate::store::AtOnce;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyRequest {
    pub items: Vec<Value>,
    /// Who applies, kept with what it creates. Nothing: a person.
    #[serde(default)]
    pub source: Option<String>,
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    pub kind: crate::model::Kind,
    pub name: crate::model::Name,
    /// `created`, `configured`, `unchanged`.
    pub result: String,
    /// As it is now, or would be.
    pub object: Value,
}

/// Reads all items; every fault of every item is in the error.
pub(crate) fn decode_all(items: Vec<Value>) -> Result<Vec<Object>, ApiError> {
    if items.len() > MANIFEST_OBJECTS {
        return Err(ApiError::bad_request(format!("{} objects in one request; at most {MANIFEST_OBJECTS} are taken", items.len())));
    }
    let (mut objects, mut faults) = (Vec::<Object>::new(), Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    for (i, item) in items.into_iter().enumerate() {
        match decode::object(item, None) {
            Ok(object) if !seen.insert((object.kind(), object.name().clone())) => {
                let message = format!("{}/{} is there twice", object.kind(), object.name());
                faults.push(Cause { field: format!("items[{i}]"), message });
            }
            Ok(object) => objects.push(object),
            Err(error) => faults.push(Cause { field: format!("items[{i}]"), message: error.message }),
        }
    }
    match faults.as_slice() {
        [] => Ok(objects),
        [one] => Err(ApiError::bad_request(one.message.clone()).with_causes(faults)),
        [first, rest @ ..] => {
            Err(ApiError::bad_request(format!("{} (and {} more)", first.message, rest.len())).with_causes(faults.clone()))
        }
    }
}

/// Checks all objects together with those that exist, then writes those that differ, what others refer to first: all or none where the store takes
/// them at once, else in the fewest transactions. The answers are in the order of `objects`.
pub async fn apply(backend: &Backend, objects: Vec<Object>, source: Option<&str>, dry: DryRun) -> Result<Vec<Applied>, ApiError> {
    let _alone = backend.writing.lock().await;
    let known = backend.checked(&objects).await?;
    let known: BTreeMap<(Kind, &Name), &Arc<Object>> = known.iter().map(|o| ((o.kind(), o.name()), o)).collect();
    let objects: Vec<Object> = objects.into_iter().map(|o| with_restart(o, &known)).collect();
    let mut done: BTreeMap<usize, Applied> = BTreeMap::new();
    let mut differing: Vec<(usize, &Object)> = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        match unchanged(object, known.get(&(object.kind(), object.name())).copied())? {
            Some(same) => drop(done.insert(i, applied(Outcome::Unchanged, &same))),
            None => differing.push((i, object)),
        }
    }
    differing.sort_by_key(|(i, o)| (o.kind(), *i));
    // A first pass without writing: preconditions and hidden values of the last object must not fail after the first was written.
    let most = backend.store.most_at_once();
    let batches: Vec<Vec<(usize, &Object)>> = batches(differing, most);
    if batches.len() > 1 {
        for batch in &batches {
            backend.put(&only_objects(batch), Intent::Apply, source, DryRun::All).await?;
        }
    }
    let mut written = 0;
    for batch in &batches {
        let outcomes = backend.put(&only_objects(batch), Intent::Apply, source, dry).await.map_err(|error| {
            let message = match written {
                0 => error.message.clone(),
                _ => format!("{} (objects done before it: {written} of {}; applying again goes on)", error.message, objects.len()),
            };
            ApiError { message, ..error }
        })?;
        written += batch.len();
        for ((i, _), (outcome, now)) in batch.iter().zip(outcomes) {
            if dry == DryRun::No && outcome != Outcome::Unchanged {
                let level = if objects.len() <= SAID_ONE_BY_ONE { tracing::Level::INFO } else { tracing::Level::DEBUG };
                say(level, &now, outcome, source);
            }
            done.insert(*i, applied(outcome, &now));
        }
    }
    if dry == DryRun::No && objects.len() > SAID_ONE_BY_ONE && written > 0 {
        tracing::info!(objects = objects.len(), written, source, "applied");
    }
    Ok(done.into_values().collect())
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

fn only_objects<'a>(batch: &[(usize, &'a Object)]) -> Vec<&'a Object> {
    batch.iter().map(|(_, object)| *object).collect()
}

/// As few as the store takes, in this order.
fn batches(objects: Vec<(usize, &Object)>, most: AtOnce) -> Vec<Vec<(usize, &Object)>> {
    let (mut batches, mut bytes) = (Vec::<Vec<(usize, &Object)>>::new(), 0);
    for (i, object) in objects {
        // What it has beside its spec, its status among that, may be as much.
        let size = serde_json::to_vec(&object.to_json()).map_or(0, |text| 2 * text.len() + STATUS_BYTES);
        match batches.last_mut().filter(|last| last.len() < most.writes && bytes + size <= most.bytes) {
            Some(last) => last.push((i, object)),
            None => {
                batches.push(vec![(i, object)]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    batches
}

/// What a status takes, at most by far.
const STATUS_BYTES: usize = 8 << 10;
