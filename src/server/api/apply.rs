//! Many objects in one go, as a request carries them.
//!
//! Leaves out: checking and writing them (`change`), and deleting what is no longer there (`gitops`). Invariant: where one object is wrong, none is
//! written. Shown by `tests/api.rs`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decode;
use super::fault::{ApiError, Cause};
use super::objects::{Backend, DryRun};
use crate::limits::MANIFEST_OBJECTS;
use crate::model::Object;

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
    backend.change(objects, &|_| false).await?.carry_out(source, dry).await
}
