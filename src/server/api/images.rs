//! Images: what there is, and imports, which come as one long body. Leaves out: their files (`server::images`).
//!
//! Invariant: a name gets its content only after all of it is on the disk. Shown by `tests/images.rs`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;

use super::actions::sentence;
use super::fault::ApiError;
use super::routes::{Answer, Site};
use super::socket::Caller;
use crate::limits;
use crate::model::image::{Image, ImageName};
use crate::model::kind::API_VERSION;
use crate::server::images::{Keeper, NotTaken};
use crate::telemetry::timestamp;

fn name_of(text: &str) -> Result<ImageName, ApiError> {
    text.parse().map_err(|error: crate::model::image::BadImageName| ApiError::bad_request(error.to_string()))
}

fn keeper(site: &Site) -> Result<&Arc<Keeper>, ApiError> {
    site.backend.images.as_ref().ok_or_else(|| ApiError::internal("this process keeps no images"))
}

pub(super) async fn list(State(site): State<Site>) -> Answer {
    let rows = site.backend.control.images().await?;
    Ok(Json(json!({ "kind": "ImageList", "apiVersion": API_VERSION, "items": rows })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    /// Names of steps, with commas between.
    #[serde(default)]
    keep: String,
}

/// `PUT …/images/NAME:VERSION`, with a tar or a container image as its body.
pub(super) async fn import(
    State(site): State<Site>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    Query(import): Query<Import>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (name, keeper) = (name_of(&name)?, keeper(&site)?);
    let mut body = body;
    let keep: Vec<String> = import.keep.split(',').filter(|step| !step.is_empty()).map(str::to_owned).collect();
    if let Err(refused) = may_import(&site, keeper, &name, &keep, &headers).await {
        // Whoever still sends does not read; a body that is cut off would be told instead of why.
        while let Ok(Some(Ok(_))) = tokio::time::timeout(limits::IMPORT_SILENT_FOR, body.frame()).await {}
        return Err(refused);
    }
    let not_taken = |not: NotTaken| match not {
        NotTaken::Theirs(why) => ApiError::bad_request(format!("{why}; nothing was imported")),
        NotTaken::Ours(why) => ApiError::internal(format!("{why}; nothing was imported")),
    };
    let spool = keeper.spool(body, u64::MAX).await.map_err(not_taken)?;
    // Whoever sends slowly keeps nobody waiting.
    let _one = keeper.one_import().await;
    let imported = keeper.import(spool, keep).await.map_err(|why| ApiError::invalid(vec![why]))?;
    let image = Image {
        digest: imported.digest,
        entries: imported.entries,
        bytes: imported.bytes,
        kernel: imported.kernel,
        init: imported.init,
        warnings: imported.warnings,
        generalised: imported.generalised,
        imported: timestamp(),
        by: caller.who,
    };
    // Before it has a name: whoever is told that it has may bind it at once.
    let lacks = keeper.look(&image).await;
    let known = site.backend.control.images().await?;
    if known.iter().any(|row| row.name == name && row.image.digest == image.digest) {
        keeper.look_again();
        return sentence(format!("image {name} is as it was imported first; what was damaged or missing of it is there again"));
    }
    let told = site.backend.control.add_image(&name, image.clone()).await;
    keeper.look_again();
    let mut text = told?;
    text.extend(image.generalised.iter().map(|step| format!("\n  {step}")));
    text.extend(image.warnings.iter().map(|warning| format!("\n  warning: {warning}")));
    text.extend(lacks.map(|why| format!("\n  warning: it cannot be booted: {why}")));
    sentence(text)
}

/// What is wrong before any of it is taken in.
async fn may_import(site: &Site, keeper: &Keeper, name: &ImageName, keep: &[String], headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get(CONTENT_TYPE).is_none_or(|found| found != "application/octet-stream") {
        return Err(ApiError::unsupported_type("expected application/octet-stream: a tar, or a container image"));
    }
    keeper.steps(keep).map_err(ApiError::bad_request)?;
    let known = site.backend.control.images().await?;
    // Where something of it is damaged or missing, its content may come once more.
    let Some(row) = known.iter().find(|row| row.name == *name && row.lacks.is_none()) else { return Ok(()) };
    let digest = row.image.digest.get(..12).unwrap_or_default();
    Err(ApiError::conflict(format!("image {name} is there already ({digest}): a name keeps its content; give this one another version")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove(
    State(site): State<Site>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    Query(removal): Query<Removal>,
) -> Answer {
    sentence(site.backend.control.remove_image(&name_of(&name)?, removal.force, &caller.who).await?)
}

/// Reads every file again.
pub(super) async fn verify(State(site): State<Site>, Path(name): Path<String>) -> Answer {
    let (name, digest) = digest_of(&site, &name).await?;
    let found = keeper(&site)?.verify(&digest).await.map_err(ApiError::internal)?;
    if found.damaged.is_empty() {
        return sentence(format!("image {name} is as it was imported: {} files, {} bytes read", found.files, found.bytes));
    }
    Err(ApiError::internal(format!("image {name} is damaged: {}", found.damaged.join("; "))))
}

async fn digest_of(site: &Site, name: &str) -> Result<(ImageName, String), ApiError> {
    let name = name_of(name)?;
    let rows = site.backend.control.images().await?;
    match rows.into_iter().find(|row| row.name == name) {
        Some(row) => Ok((name, row.image.digest)),
        None => Err(ApiError::no_such_image(&name)),
    }
}

/// All of it, as a tar.
pub(super) async fn tree(State(site): State<Site>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let (name, digest) = digest_of(&site, &name).await?;
    // What is damaged is said at once, and not by a body that ends before its end.
    keeper(&site)?.is_good(&digest).await.map_err(|why| ApiError::internal(format!("image {name} is damaged: {why}")))?;
    let parsed = digest.parse().map_err(|error: crate::image::digest::BadDigest| ApiError::internal(error.to_string()))?;
    let stream = keeper(&site)?.tar(parsed).await.map_err(ApiError::internal)?;
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.extend(HeaderValue::from_str(&digest).ok().map(|digest| (axum::http::HeaderName::from_static("embody-digest"), digest)));
    Ok(response)
}
