//! What Kubernetes clients ask before anything else: version, groups, resources. Leaves out: their schemas (`openapi`).
//!
//! Invariant: a verb that is listed here is served. Shown by `tests/api.rs`.

use axum::Json;
use serde_json::{Value, json};

use crate::model::kind::{API_VERSION, GROUP, KINDS, VERSION};

/// version.Info of Kubernetes; `gitVersion` must look like one of its own for kubectl.
pub(super) async fn version() -> Json<Value> {
    Json(json!({
        "major": "1", "minor": "32", "gitVersion": concat!("v1.32.0+embody-", env!("CARGO_PKG_VERSION")),
        "embody": env!("CARGO_PKG_VERSION"), "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

/// The core group: events only.
pub(super) async fn core() -> Json<Value> {
    Json(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
}

pub(super) async fn core_resources() -> Json<Value> {
    Json(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
        { "name": "events", "singularName": "event", "namespaced": false, "kind": "Event", "verbs": ["list"], "shortNames": ["ev"] },
    ]}))
}

fn group() -> Value {
    let version = json!({ "groupVersion": API_VERSION, "version": VERSION });
    json!({ "name": GROUP, "versions": [version], "preferredVersion": version })
}

pub(super) async fn groups() -> Json<Value> {
    Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [group()] }))
}

pub(super) async fn one_group() -> Json<Value> {
    let mut group = group();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Json(group)
}

pub(super) async fn resources() -> Json<Value> {
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let list: Vec<Value> = KINDS
        .iter()
        .map(|k| {
            json!({ "name": k.plural(), "singularName": k.singular().to_lowercase(), "namespaced": false, "kind": k.singular(), "verbs": verbs,
                "shortNames": [k.short()], "categories": ["all", "embody"] })
        })
        .collect();
    Json(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": list }))
}
