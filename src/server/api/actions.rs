//! The words of people: approve, accept, retry, pause, resume, and their questions: plan, why, ports, events.
//!
//! Leaves out: what they lead to (`control`). Invariant: every one of them is passed on with who said it. Shown by `tests/api.rs`.

use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::apply::{ApplyRequest, apply, decode_all};
use super::fault::ApiError;
use super::objects::DryRun;
use super::routes::{Answer, Input, Parameters, Site, kind_of, name_of};
use super::socket::Caller;
use super::source::Pending;
use crate::control::operator::{Approving, Declaring, Scope};
use crate::limits;
use crate::model::Kind;
use crate::model::body::BootsOnce;
use crate::model::status::Event;

/// The word of an approval; as the query of what it would cover, too.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Approval {
    adopt: bool,
    hard: bool,
    release: Option<crate::model::Name>,
    /// Of what was shown.
    digest: Option<String>,
}

impl Approval {
    fn word(&self) -> Result<Approving, ApiError> {
        match (self.adopt, self.hard, &self.release) {
            (false, false, None) => Ok(Approving::ThePlan),
            (true, false, None) => Ok(Approving::Adopt),
            (false, true, None) => Ok(Approving::Hard),
            (false, false, Some(server)) => Ok(Approving::Release(server.clone())),
            _ => Err(ApiError::bad_request("one at a time: choose adopt, hard or release")),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    what: Declaring,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseRequest {
    scope: Scope,
    reason: String,
    #[serde(default)]
    seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeRequest {
    scope: Scope,
}

pub(super) fn sentence(message: String) -> Answer {
    Ok(Json(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "message": message })))
}

/// `POST …/KIND/NAME/{approve,accept,retry}`.
pub(super) async fn word(
    State(site): State<Site>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((plural, name, verb)): Path<(String, String, String)>,
    body: Input,
) -> Answer {
    let (kind, name) = (kind_of(&plural)?, name_of(&name)?);
    let control = &site.backend.control;
    // What a server that is in no manifest any more may run is declared as well.
    if verb != "declare" {
        site.backend.read(kind, name.as_str()).await?;
    }
    match (verb.as_str(), kind) {
        ("approve", Kind::Binding) => {
            let approval: Approval = body.or_default()?;
            let word = approval.word()?;
            let digest =
                approval.digest.ok_or_else(|| ApiError::bad_request("found no digest, expected that of what `GET …/approval` showed"))?;
            sentence(control.approve(&name, word, &digest, &caller.who).await?)
        }
        ("accept", Kind::Server | Kind::Switch) => sentence(control.accept(kind, &name, &caller.who).await?),
        ("declare", Kind::Server) => {
            let said: Declaration = body.read()?;
            if said.reason.trim().is_empty() {
                return Err(ApiError::bad_request("a declaration needs a reason, for those who look later"));
            }
            sentence(control.declare(&name, said.what, &said.reason, &caller.who).await?)
        }
        ("boot", Kind::Server) => {
            let BootWord { once } = body.read()?;
            sentence(control.boot_once(&name, once, &caller.who).await?)
        }
        ("boot", _) => Err(ApiError::bad_request(format!("a {kind} does not boot; a Server does"))),
        ("declare", _) => Err(ApiError::bad_request(format!("nothing is declared of a {kind}; of a Server it is"))),
        ("retry", _) => sentence(control.retry(kind, &name, &caller.who).await?),
        ("approve", _) => Err(not_approved(kind)),
        ("accept", _) => Err(ApiError::bad_request(format!("a {kind} has no identity to accept; a Server or a Switch has"))),
        _ => Err(ApiError::no_such_path()),
    }
}

/// `{ "once": "local" }`, `{ "once": { "persona": "rescue" } }`, or `{ "once": null }`: no more of that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BootWord {
    once: Option<BootsOnce>,
}

fn not_approved(kind: Kind) -> ApiError {
    ApiError::bad_request(format!("a {kind} is not approved; a Binding is"))
}

/// `GET …/KIND/NAME/{why,status,approval}`.
pub(super) async fn question(
    State(site): State<Site>,
    Path((plural, name, verb)): Path<(String, String, String)>,
    Query(approval): Query<Approval>,
) -> Answer {
    let (kind, name) = (kind_of(&plural)?, name_of(&name)?);
    let object = site.backend.read(kind, name.as_str()).await?;
    match verb.as_str() {
        "why" => Ok(Json(
            json!({ "kind": "Why", "apiVersion": crate::model::kind::API_VERSION, "message": site.backend.control.why(kind, &name).await? }),
        )),
        "status" => Ok(Json(object.to_public_json())),
        "approval" if kind == Kind::Binding => {
            let shown = site.backend.control.show_approval(&name, approval.word()?).await?;
            Ok(Json(serde_json::to_value(shown).unwrap_or_default()))
        }
        "approval" => Err(not_approved(kind)),
        _ => Err(ApiError::no_such_path()),
    }
}

/// `POST …/store/accept`.
pub(super) async fn accept_store(State(site): State<Site>, ConnectInfo(caller): ConnectInfo<Caller>) -> Answer {
    sentence(site.backend.control.accept_store(&caller.who).await?)
}

/// `GET …/sources/directory`: what the directory of manifests waits for.
pub(super) async fn directory(State(site): State<Site>) -> Answer {
    let pending = site.backend.source.pending().ok_or_else(|| ApiError::conflict(NOTHING_WAITS))?;
    let Pending { digest, writes } = pending;
    Ok(Json(json!({ "kind": "Source", "apiVersion": crate::model::kind::API_VERSION, "digest": digest, "writes": writes })))
}

const NOTHING_WAITS: &str =
    "nothing of a directory waits for an approval at this controller: `embody describe policy default` says how its last scan went";

/// `POST …/sources/directory/approve`: exactly what has this digest.
pub(super) async fn approve_directory(State(site): State<Site>, ConnectInfo(caller): ConnectInfo<Caller>, body: Input) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shown {
        digest: String,
    }
    let Shown { digest } = body.read()?;
    if !site.backend.source.approve(&digest) {
        return Err(ApiError::conflict("what the directory would change is not what was shown any more: look at it again"));
    }
    tracing::info!(by = caller.who, digest, "the directory of manifests is applied, as a person has approved");
    sentence("approved: the directory is applied now".to_owned())
}

/// `POST …/breaker/close`.
pub(super) async fn close_breaker(State(site): State<Site>, ConnectInfo(caller): ConnectInfo<Caller>) -> Answer {
    sentence(site.backend.control.close_breaker(&caller.who).await?)
}

pub(super) async fn pause(State(site): State<Site>, ConnectInfo(caller): ConnectInfo<Caller>, body: Input) -> Answer {
    let request: PauseRequest = body.read()?;
    if request.reason.trim().is_empty() {
        return Err(ApiError::bad_request("a pause needs a reason, for those who look later"));
    }
    sentence(site.backend.control.pause(request.scope, &request.reason, request.seconds, &caller.who).await?)
}

pub(super) async fn resume(State(site): State<Site>, ConnectInfo(caller): ConnectInfo<Caller>, body: Input) -> Answer {
    let request: ResumeRequest = body.read()?;
    sentence(site.backend.control.resume(request.scope, &caller.who).await?)
}

pub(super) async fn apply_all(State(site): State<Site>, Query(parameters): Query<Parameters>, body: Input) -> Answer {
    let request: ApplyRequest = body.read()?;
    let dry = if request.dry_run { DryRun::All } else { parameters.dry_run()? };
    let objects = decode_all(request.items)?;
    let items = apply(&site.backend, objects, request.source.as_deref().filter(|s| !s.is_empty()), dry).await?;
    Ok(Json(json!({ "kind": "ApplyResult", "apiVersion": crate::model::kind::API_VERSION, "items": items })))
}

/// The forecast with objects laid over the desired state; they are checked as an apply would check them.
pub(super) async fn plan(State(site): State<Site>, body: Input) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields, default)]
    struct PlanRequest {
        items: Vec<Value>,
    }
    let request: PlanRequest = body.or_default()?;
    let objects = decode_all(request.items)?;
    if !objects.is_empty() {
        site.backend.checked(&objects, &|_| false).await?;
    }
    Ok(Json(serde_json::to_value(site.backend.control.forecast(objects).await).unwrap_or_default()))
}

pub(super) async fn ports(State(site): State<Site>) -> Answer {
    let rows = site.backend.control.ports().await;
    Ok(Json(json!({ "kind": "PortList", "apiVersion": crate::model::kind::API_VERSION, "items": rows })))
}

/// Addresses that machines were given.
pub(super) async fn leases(State(site): State<Site>) -> Answer {
    let rows = site.backend.control.leases().await;
    Ok(Json(json!({ "kind": "LeaseList", "apiVersion": crate::model::kind::API_VERSION, "items": rows })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Starts {
    server: Option<crate::model::Name>,
}

/// How far the last start of each server has come, or that of one.
pub(super) async fn starts(State(site): State<Site>, Query(starts): Query<Starts>) -> Answer {
    let rows = site.backend.control.starts(starts.server).await;
    Ok(Json(json!({ "kind": "StartList", "apiVersion": crate::model::kind::API_VERSION, "items": rows })))
}

/// Machines that no manifest names.
pub(super) async fn discovered(State(site): State<Site>) -> Answer {
    let rows = site.backend.control.discovered().await;
    Ok(Json(json!({ "kind": "DiscoveredList", "apiVersion": crate::model::kind::API_VERSION, "items": rows })))
}

pub(super) async fn rotate_key(State(site): State<Site>, ConnectInfo(caller): ConnectInfo<Caller>) -> Answer {
    sentence(site.backend.control.rotate_key(&caller.who).await?)
}

/// What is paused, and by whom.
pub(super) async fn pauses(State(site): State<Site>) -> Answer {
    let rows = site.backend.control.pauses().await;
    Ok(Json(json!({ "kind": "PauseList", "apiVersion": crate::model::kind::API_VERSION, "items": rows })))
}

async fn recorded(site: &Site) -> Result<Vec<Event>, ApiError> {
    let values = site.backend.store.events(limits::EVENTS).await?;
    Ok(values.iter().filter_map(|v| serde_json::from_slice(v).ok()).collect())
}

/// Our own events, oldest first.
pub(super) async fn events(State(site): State<Site>) -> Answer {
    let items = recorded(&site).await?;
    Ok(Json(json!({ "kind": "EventList", "apiVersion": crate::model::kind::API_VERSION, "metadata": {}, "items": items })))
}

/// The same as core/v1 Events, for `kubectl get events` and `kubectl describe`.
pub(super) async fn core_events(State(site): State<Site>, Query(parameters): Query<Parameters>) -> Answer {
    let field = |name: &str| {
        let terms = parameters.field_selector.as_deref().unwrap_or("").split(',');
        terms.filter_map(|t| t.split_once('=')).find(|(k, _)| *k == name).map(|(_, v)| v.to_owned())
    };
    let (want_kind, want_name) = (field("involvedObject.kind"), field("involvedObject.name"));
    let shape = |(i, e): (usize, Event)| {
        let (kind, name) = e.regarding.split_once('/').unwrap_or(("", e.regarding.as_str()));
        let wanted = want_kind.as_deref().is_none_or(|k| k == kind) && want_name.as_deref().is_none_or(|n| n == name);
        wanted.then(|| {
            json!({
                "kind": "Event", "apiVersion": "v1", "type": e.kind, "reason": e.reason, "message": e.message, "count": 1,
                "metadata": { "name": format!("{name}.{i}"), "creationTimestamp": e.time },
                "involvedObject": { "apiVersion": crate::model::kind::API_VERSION, "kind": kind, "name": name },
                "firstTimestamp": e.time, "lastTimestamp": e.time, "source": { "component": "embody" },
            })
        })
    };
    let items: Vec<Value> = recorded(&site).await?.into_iter().enumerate().filter_map(shape).collect();
    Ok(Json(json!({ "kind": "EventList", "apiVersion": "v1", "metadata": { "resourceVersion": "" }, "items": items })))
}
