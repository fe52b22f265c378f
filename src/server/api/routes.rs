//! URLs → functions; bodies and query parameters, read strictly and within bounds. Leaves out: what the functions do.
//!
//! Invariant: every path of the Kubernetes kind is under `/apis/embody.dev/v1alpha1/`, and what is not served says so as a `Status`.
//! Shown by `tests/api.rs`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::watch as signal;

use super::fault::{ApiError, chain};
use super::objects::{Backend, DryRun, Intent, Preconditions, Written};
use super::pages::Snapshot;
use super::selector::{FieldSelector, LabelSelector};
use super::{actions, columns, decode, discovery, images, openapi, patch, watch};
use crate::limits::{API_BODY_BYTES, API_BODY_WITHIN};
use crate::model::kind::{API_VERSION, KINDS};
use crate::model::{Kind, Meta, Name, Object};

pub(super) type Answer = Result<Json<Value>, ApiError>;

/// Tells open watches that the server stops.
#[derive(Clone)]
pub(super) struct Stop(pub signal::Receiver<bool>);

impl Stop {
    pub(super) async fn wait(&mut self) {
        // A sender that is gone has stopped as well.
        let _gone = self.0.wait_for(|stopped| *stopped).await;
    }
}

#[derive(Clone)]
pub(super) struct Site {
    pub backend: Arc<Backend>,
    pub stop: Stop,
}

pub(super) fn router(backend: Arc<Backend>, stop: Stop) -> Router {
    let group = Router::new()
        .route("/", get(discovery::resources))
        .route("/apply", post(actions::apply_all))
        .route("/plan", post(actions::plan))
        .route("/pauses", get(actions::pauses).post(actions::pause))
        .route("/resumes", post(actions::resume))
        .route("/store/accept", post(actions::accept_store))
        .route("/breaker/close", post(actions::close_breaker))
        .route("/sources/directory", get(actions::directory))
        .route("/sources/directory/approve", post(actions::approve_directory))
        .route("/ports", get(actions::ports))
        .route("/leases", get(actions::leases))
        .route("/starts", get(actions::starts))
        .route("/discovered", get(actions::discovered))
        .route("/siteKey/rotate", post(actions::rotate_key))
        .route("/images", get(images::list))
        .route("/images/{name}", put(images::import).delete(images::remove))
        .route("/images/{name}/verify", post(images::verify))
        .route("/images/{name}/tree", get(images::tree))
        .route("/events", get(actions::events))
        .route("/{plural}", get(list).post(create))
        .route("/{plural}/{name}", get(read).put(replace).patch(patch::patch).delete(delete))
        .route("/{plural}/{name}/{verb}", get(actions::question).post(actions::word));
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/version", get(discovery::version))
        .route("/version/", get(discovery::version))
        .route("/openapi/v3", get(openapi::root))
        .route("/openapi/v3/apis/{group}/{version}", get(openapi::of_group))
        .route("/api", get(discovery::core))
        .route("/api/v1", get(discovery::core_resources))
        .route("/api/v1/events", get(actions::core_events))
        .route("/apis", get(discovery::groups))
        .route("/apis/embody.dev", get(discovery::one_group))
        .nest("/apis/embody.dev/v1alpha1", group)
        .fallback(async || ApiError::no_such_path())
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(DefaultBodyLimit::max(API_BODY_BYTES))
        .layer(from_fn(only_json))
        .layer(from_fn_with_state(Arc::clone(&backend), warn))
        .with_state(Site { backend, stop })
}

/// Whether objects can be read.
async fn ready(State(site): State<Site>) -> Result<&'static str, ApiError> {
    site.backend.store.get(crate::store::keys::SITE_KEY).await?;
    Ok("ok")
}

/// Says beside every answer what is wrong with all of them.
async fn warn(State(backend): State<Arc<Backend>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(value) = backend.warning().and_then(|warning| in_header(&warning)) {
        response.headers_mut().append(WARNING, value);
    }
    response
}

/// The plural in a URL, exactly.
pub(super) fn kind_of(plural: &str) -> Result<Kind, ApiError> {
    KINDS.into_iter().find(|k| k.plural() == plural).ok_or_else(ApiError::no_such_path)
}

pub(super) fn name_of(text: &str) -> Result<Name, ApiError> {
    text.parse::<Name>().map_err(|e| ApiError::bad_request(e.to_string()))
}

const JSON: &str = "application/json";

/// Without its parameters (RFC 9110, 8.3.1).
fn media_type(header: &str) -> String {
    header.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

fn no_json(found: &str) -> ApiError {
    let found = if found.is_empty() { "no content type".to_owned() } else { format!("content type `{}`", columns::clean(found)) };
    ApiError::unsupported_type(format!("found {found}, expected {JSON}: send the header `Content-Type: {JSON}`"))
}

/// A web page of another site can send a POST of text or a form unasked, but not one of JSON (the Fetch standard, "CORS-safelisted").
async fn only_json(request: Request, next: Next) -> Response {
    let found = media_type(request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(""));
    if request.method() == Method::POST && found != JSON {
        return no_json(&found).into_response();
    }
    next.run(request).await
}

/// A body, with its content type.
pub(super) struct Input {
    bytes: Bytes,
    content_type: String,
}

impl<S: Send + Sync> FromRequest<S> for Input {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let header = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let content_type = media_type(header);
        let arrives = tokio::time::timeout(API_BODY_WITHIN, Bytes::from_request(request, state)).await;
        let late = || ApiError::bad_request(format!("the body did not arrive within {} s", API_BODY_WITHIN.as_secs()));
        let bytes = arrives.map_err(|_| late())?.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::too_large(API_BODY_BYTES)
            } else {
                ApiError::bad_request(rejection.body_text())
            }
        })?;
        Ok(Input { bytes, content_type })
    }
}

impl Input {
    pub(super) fn content_type(&self) -> &str {
        &self.content_type
    }

    fn json(&self) -> Result<Value, ApiError> {
        match self.content_type.as_str() {
            JSON => self.parse(),
            other => Err(no_json(other)),
        }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        // Neither this error nor its causes quote values of the body: a Secret may be in it.
        let bad = |e| ApiError::bad_request(format!("the body does not read: {}", chain(&e)));
        serde_json::from_value(decode::json(&self.bytes).map_err(bad)?).map_err(bad)
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_value(self.json()?).map_err(|e| ApiError::bad_request(format!("the body does not read: {}", chain(&e))))
    }

    /// An empty body stands for the defaults.
    pub(super) fn or_default<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        if self.bytes.is_empty() { Ok(T::default()) } else { self.read() }
    }
}

/// The query parameters that mean something here; others (`fieldManager`, …) are taken and without effect.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Parameters {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    watch: Option<String>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    resource_version: Option<String>,
    timeout_seconds: Option<u64>,
    limit: Option<usize>,
    r#continue: Option<String>,
    dry_run: Option<String>,
}

impl Parameters {
    pub(super) fn dry_run(&self) -> Result<DryRun, ApiError> {
        match self.dry_run.as_deref() {
            None | Some("") => Ok(DryRun::No),
            Some("All") => Ok(DryRun::All),
            Some(other) => Err(ApiError::bad_request(format!("found dryRun={other}, expected All"))),
        }
    }

    fn watches(&self) -> bool {
        is_true(self.watch.as_deref())
    }

    fn bookmarks(&self) -> bool {
        is_true(self.allow_watch_bookmarks.as_deref())
    }

    /// Nothing, or `0`: from what is there now. Who asks for what there is gets all of it, whatever it knows already.
    fn from(&self) -> Result<Option<u64>, ApiError> {
        match self.resource_version.as_deref() {
            _ if is_true(self.send_initial_events.as_deref()) => Ok(None),
            None | Some("" | "0") => Ok(None),
            Some(text) => {
                text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("found resourceVersion={text}, expected a number")))
            }
        }
    }

    fn selection(&self, kind: Kind) -> Result<Selection, ApiError> {
        let labels = self.label_selector.as_deref().unwrap_or("").parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
        let fields = FieldSelector::parse(self.field_selector.as_deref().unwrap_or(""), columns::fields(kind));
        Ok(Selection { labels, fields: fields.map_err(|e| ApiError::bad_request(e.to_string()))? })
    }

    /// Which list it is that is asked for in parts.
    fn list_of(&self, kind: Kind) -> String {
        let text = |one: &Option<String>| one.clone().unwrap_or_default();
        format!("{} {} {}", kind.plural(), text(&self.label_selector), text(&self.field_selector))
    }
}

fn is_true(parameter: Option<&str>) -> bool {
    matches!(parameter, Some("true" | "1"))
}

/// Which objects of a kind.
pub(super) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(super) fn has(&self, object: &Object) -> bool {
        self.names(object.name().as_str())
            && self.labels.matches(&object.meta.labels)
            && (!self.fields.reads_more() || self.fields.matches(&object.to_public_json()))
    }

    /// `json`: the object as everybody sees it.
    fn has_shown(&self, meta: &Meta, json: &str) -> bool {
        let read = || serde_json::from_str(json).is_ok_and(|object| self.fields.matches(&object));
        self.names(meta.name.as_str()) && self.labels.matches(&meta.labels) && (!self.fields.reads_more() || read())
    }

    /// Whether an object of this name can be in it.
    pub(super) fn names(&self, name: &str) -> bool {
        self.fields.names(name)
    }
}

const META: &str = "meta.k8s.io/v1";

/// In which form an object is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Whole,
    /// meta.k8s.io/v1 Table: kubectl asks for it first, and shows only names and ages where it gets none.
    Table,
    /// meta.k8s.io/v1 PartialObjectMetadata.
    Metadata,
}

impl Shape {
    /// The first form of those that are accepted (`application/json;as=Table;g=meta.k8s.io;v=v1,application/json`).
    fn asked(headers: &HeaderMap) -> Shape {
        let accepted = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let is = |one: &str| {
            let form = one.split(';').map(str::trim).find_map(|parameter| parameter.strip_prefix("as="));
            match form {
                Some("Table") => Some(Shape::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Shape::Metadata),
                Some(_) => None,
                None => Some(Shape::Whole),
            }
        };
        accepted.split(',').find_map(is).unwrap_or(Shape::Whole)
    }

    pub(super) fn of(self, kind: Kind, object: Value, meta: Value) -> Value {
        match self {
            Shape::Whole => object,
            Shape::Table => columns::table(kind, vec![object], meta),
            Shape::Metadata => metadata_of(object),
        }
    }
}

fn metadata_of(object: Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": META, "metadata": object["metadata"] })
}

async fn list(
    State(site): State<Site>,
    Path(plural): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let kind = kind_of(&plural)?;
    let selection = parameters.selection(kind)?;
    let shape = Shape::asked(&headers);
    if parameters.watches() {
        let lasting = parameters.timeout_seconds.map(Duration::from_secs);
        let manner = watch::Manner { from: parameters.from()?, bookmarks: parameters.bookmarks(), shape };
        return Ok(watch::start(site.backend, kind, selection, manner, lasting, site.stop));
    }
    /// metav1.List.
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        kind: String,
        api_version: &'static str,
        metadata: Value,
        items: Vec<Box<RawValue>>,
    }
    let (of, limit) = (parameters.list_of(kind), parameters.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX));
    let part = match parameters.r#continue.as_deref().filter(|token| !token.is_empty()) {
        Some(token) => site.backend.pages.go_on(&of, token, limit)?,
        None => {
            let (items, revision) = site.backend.list(kind, |meta, json| selection.has_shown(meta, json)).await?;
            site.backend.pages.begin(&of, Snapshot { items: items.into(), revision }, limit)
        }
    };
    let mut metadata = json!({ "resourceVersion": part.revision.to_string() });
    if let Some((token, left)) = part.next {
        metadata["continue"] = token.into();
        metadata["remainingItemCount"] = left.into();
    }
    let read = |items: &[Box<RawValue>]| items.iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect::<Vec<Value>>();
    Ok(match shape {
        Shape::Whole => Json(List { kind: format!("{kind}List"), api_version: API_VERSION, metadata, items: part.items }).into_response(),
        Shape::Table => Json(columns::table(kind, read(&part.items), metadata)).into_response(),
        Shape::Metadata => {
            let items: Vec<Value> = read(&part.items).into_iter().map(metadata_of).collect();
            Json(json!({ "kind": "PartialObjectMetadataList", "apiVersion": META, "metadata": metadata, "items": items })).into_response()
        }
    })
}

async fn read(State(site): State<Site>, Path((plural, name)): Path<(String, String)>, headers: HeaderMap) -> Answer {
    let kind = kind_of(&plural)?;
    let object = site.backend.read(kind, name_of(&name)?.as_str()).await?;
    let meta = json!({ "resourceVersion": object.meta.resource_version });
    Ok(Json(Shape::asked(&headers).of(kind, object.to_public_json(), meta)))
}

async fn create(
    State(site): State<Site>,
    Path(plural): Path<String>,
    Query(parameters): Query<Parameters>,
    body: Input,
) -> Result<Response, ApiError> {
    let object = decode::object(body.json()?, Some(kind_of(&plural)?))?;
    let written = site.backend.write(object, Intent::Create, parameters.dry_run()?).await?;
    Ok(answer(StatusCode::CREATED, &written))
}

async fn replace(
    State(site): State<Site>,
    Path((plural, name)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    body: Input,
) -> Result<Response, ApiError> {
    let object = decode::object(body.json()?, Some(kind_of(&plural)?))?;
    same_name(&object, &name)?;
    let written = site.backend.write(object, Intent::Replace, parameters.dry_run()?).await?;
    Ok(answer(StatusCode::OK, &written))
}

/// An object, and beside it what its writer should know.
pub(super) fn answer(code: StatusCode, written: &Written) -> Response {
    let mut response = (code, Json(written.object.to_public_json())).into_response();
    for warning in &written.warnings {
        if let Some(value) = in_header(warning) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// RFC 7234, section 5.5, 299: Kubernetes clients show it.
fn in_header(warning: &str) -> Option<HeaderValue> {
    let text: String = warning.chars().filter(|c| matches!(c, ' '..='~')).map(|c| if matches!(c, '"' | '\\') { '\'' } else { c }).collect();
    HeaderValue::from_str(&format!("299 embody \"{text}\"")).ok()
}

pub(super) fn same_name(object: &Object, url: &str) -> Result<(), ApiError> {
    if object.name().as_str() == url {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("the name of the object ({}) does not match the name on the URL ({url})", object.name())))
}

async fn delete(
    State(site): State<Site>,
    Path((plural, name)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    body: Input,
) -> Answer {
    /// metav1.DeleteOptions, as far as it means something here.
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct DeleteOptions {
        dry_run: Vec<String>,
        preconditions: Named,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Named {
        uid: Option<String>,
        resource_version: Option<String>,
    }
    let (kind, name) = (kind_of(&plural)?, name_of(&name)?);
    let options: DeleteOptions = body.or_default()?;
    let dry = if options.dry_run.iter().any(|d| d == "All") { DryRun::All } else { parameters.dry_run()? };
    let want = Preconditions { uid: options.preconditions.uid, resource_version: options.preconditions.resource_version };
    let gone = site.backend.delete(kind, &name, &want, dry).await?;
    if dry == DryRun::No {
        tracing::info!(object = %format_args!("{kind}/{name}"), "deleted");
    }
    let details =
        json!({ "name": name, "group": crate::model::kind::GROUP, "kind": kind.plural(), "uid": gone.map(|object| object.meta.uid) });
    Ok(Json(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })))
}
