//! All of an image, between the controllers of a site: told, asked for and taken by the one that is asked.
//!
//! Leaves out: who asks (`server::images::copy`). Invariant: nobody without the site's key is answered, and only what is awaited here is taken.
//! Shown by `tests/machines.rs` (two hosts).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Desk;
use crate::boot::answer::plain;
use crate::image::digest::Digest;
use crate::server::images::{Keeper, NotTaken, PEER};

type Refused = (StatusCode, &'static str);

fn asked<'a>(desk: &'a Desk, digest: &str, headers: &HeaderMap) -> Result<(&'a Arc<Keeper>, Digest), Refused> {
    let Some(keeper) = &desk.options.keeper else { return Err((StatusCode::NOT_FOUND, "no images are kept here\n")) };
    let said = headers.get(PEER).and_then(|said| said.to_str().ok()).unwrap_or_default();
    if !keeper.key().is_some_and(|key| key.is_peer(digest, said)) {
        return Err((StatusCode::FORBIDDEN, "only a controller of this site is told\n"));
    }
    let digest = digest.parse().map_err(|_| (StatusCode::NOT_FOUND, "expected a SHA-256\n"))?;
    Ok((keeper, digest))
}

/// As a tar.
pub(super) async fn tree(State(desk): State<Desk>, Path(digest): Path<String>, headers: HeaderMap) -> Response {
    let (keeper, digest) = match asked(&desk, &digest, &headers) {
        Ok(asked) => asked,
        Err(refused) => return refused.into_response(),
    };
    match keeper.tar(digest).await {
        Ok(stream) => Body::from_stream(stream).into_response(),
        Err(why) => (StatusCode::NOT_FOUND, format!("{}\n", plain(&why))).into_response(),
    }
}

/// Whether there is nothing to give.
pub(super) async fn has(State(desk): State<Desk>, Path(digest): Path<String>, headers: HeaderMap) -> Response {
    match asked(&desk, &digest, &headers) {
        Ok((keeper, digest)) if keeper.awaits(digest).await.is_some() => StatusCode::NOT_FOUND.into_response(),
        Ok(_) => StatusCode::OK.into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// What another controller has, and this one lacks.
pub(super) async fn take(State(desk): State<Desk>, Path(digest): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let (keeper, digest) = match asked(&desk, &digest, &headers) {
        Ok(asked) => asked,
        Err(refused) => return refused.into_response(),
    };
    let Some(most) = keeper.awaits(digest).await else {
        return (StatusCode::CONFLICT, "it is not awaited here\n").into_response();
    };
    let taken = async {
        let from = keeper.spool(body, most).await?;
        keeper.take_copy(from, digest).await.map_err(NotTaken::Ours)
    };
    match taken.await {
        Ok(()) => {
            tracing::info!(image = %digest, "another controller gave an image that was not here whole");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(NotTaken::Theirs(why)) => (StatusCode::BAD_REQUEST, format!("{}\n", plain(&why))).into_response(),
        Err(NotTaken::Ours(why)) => {
            tracing::warn!(image = %digest, error = why, "an image that another controller gave could not be taken");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", plain(&why))).into_response()
        }
    }
}
