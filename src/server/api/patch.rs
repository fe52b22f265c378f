//! PATCH: a JSON merge patch (RFC 7386) or a JSON patch (RFC 6902) of one object.
//!
//! Leaves out: writing (`objects`). Invariants: a patch works on what everybody may see, so that none moves a Secret's value anywhere; what comes out is
//! read as strictly as what is sent whole. Shown by `tests/api.rs`.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::decode;
use super::fault::ApiError;
use super::objects::Intent;
use super::routes::{Input, Parameters, Site, answer, kind_of, name_of, same_name};
use crate::limits::API_ATTEMPTS;

const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";

enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
}

impl Patch {
    fn read(body: &Input) -> Result<Patch, ApiError> {
        match body.content_type() {
            MERGE => {
                let change: Value = body.parse()?;
                if change.is_object() {
                    Ok(Patch::Merge(change))
                } else {
                    Err(ApiError::bad_request("a merge patch of an object is a JSON object"))
                }
            }
            JSON => {
                let list: Vec<Value> =
                    body.parse().map_err(|_| ApiError::bad_request("a JSON patch is a list of operations (RFC 6902, section 4)"))?;
                let read = serde_json::from_value(Value::Array(list));
                read.map(Patch::Json).map_err(|e| ApiError::bad_request(format!("the patch does not read: {e}")))
            }
            other => Err(ApiError::unsupported_type(format!("found content type `{other}`, expected {MERGE} or {JSON}"))),
        }
    }

    /// Whether it says what it is made from: then nobody else may have been faster.
    fn names_version(&self) -> bool {
        match self {
            Patch::Merge(change) => change.pointer("/metadata/resourceVersion").is_some(),
            Patch::Json(patch) => {
                patch.0.iter().any(|operation| matches!(operation, json_patch::PatchOperation::Test(test) if test.path.as_str() == "/metadata/resourceVersion"))
            }
        }
    }

    fn apply(&self, to: &mut Value) -> Result<(), ApiError> {
        match self {
            Patch::Merge(change) => json_patch::merge(to, change),
            Patch::Json(patch) => {
                json_patch::patch(to, &patch.0).map_err(|error| ApiError::invalid(vec![format!("the patch does not fit: {error}")]))?
            }
        }
        Ok(())
    }
}

pub(super) async fn patch(
    State(site): State<Site>,
    Path((plural, name)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    body: Input,
) -> Result<Response, ApiError> {
    let (kind, name) = (kind_of(&plural)?, name_of(&name)?);
    let dry = parameters.dry_run()?;
    let patch = Patch::read(&body)?;
    let mut attempts = API_ATTEMPTS;
    loop {
        let old = site.backend.read(kind, name.as_str()).await?;
        let mut json = old.to_public_json();
        patch.apply(&mut json)?;
        let object = decode::object(json, Some(kind))?;
        same_name(&object, name.as_str())?;
        attempts -= 1;
        match site.backend.write(object, Intent::Replace, dry).await {
            // Somebody else was faster, and the client does not mind what was there before.
            Err(error) if error.reason == "Conflict" && !patch.names_version() && attempts > 0 => {}
            Err(error) => return Err(error),
            Ok(written) => return Ok(answer(StatusCode::OK, &written)),
        }
    }
}
