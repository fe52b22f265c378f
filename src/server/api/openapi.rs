//! OpenAPI v3 of the kinds, from the types that read them: what kubectl explains, checks and asks before a dry run.
//!
//! Leaves out: paths that no Kubernetes client knows, and events. Invariant: every `$ref` is in the document. Shown by `tests/api.rs` and
//! `tests/kubectl.rs`.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, extract};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::fault::ApiError;
use crate::image::digest::Digest;
use crate::manifest::schema;
use crate::model::kind::{API_VERSION, GROUP, KINDS, VERSION};
use crate::model::status::{BindingStatus, PersonaStatus, PlainStatus, ServerStatus, SwitchStatus};
use crate::model::{Kind, Meta};

/// Of what is defined here; clients show the last part.
const PREFIX: &str = "dev.embody.v1alpha1.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const REFERENCE: &str = "#/components/schemas/";
const JSON: &str = "application/json";

struct Document {
    text: Bytes,
    /// In the address, so that clients keep what has not changed.
    hash: String,
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let text = Bytes::from(document().to_string());
    Document { hash: Digest::of(&text).to_string().to_uppercase(), text }
});

/// Where each group's document is.
pub(super) async fn root() -> Json<Value> {
    let at = format!("apis/{API_VERSION}");
    let url = format!("/openapi/v3/{at}?hash={}", DOCUMENT.hash);
    Json(json!({ "paths": { at: { "serverRelativeURL": url } } }))
}

pub(super) async fn of_group(Path((group, version)): Path<(String, String)>, asked: extract::Request) -> Result<Response, ApiError> {
    if (group.as_str(), version.as_str()) != (GROUP, VERSION) {
        return Err(ApiError::no_such_path());
    }
    let tag = format!("\"{}\"", DOCUMENT.hash);
    if is_known(asked.headers(), &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    Ok(([(CONTENT_TYPE, JSON.to_owned()), (ETAG, tag)], DOCUMENT.text.clone()).into_response())
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(|known| known.split(',').any(|one| one.trim() == tag))
}

fn document() -> Value {
    let mut types = schemars::generate::SchemaSettings::openapi3().into_generator();
    // It is named in each of them.
    types.subschema_for::<Meta>();
    let kinds: Vec<(Kind, Value)> = KINDS.into_iter().map(|kind| (kind, envelope(kind, &mut types))).collect();
    let mut schemas = Map::new();
    for (name, schema) in types.take_definitions(true) {
        // Its two fields stand in the envelope.
        if name != "SecretSpec" {
            schemas.insert(format!("{PREFIX}{name}"), schema);
        }
    }
    if let Some(meta) = schemas.remove(&format!("{PREFIX}Meta")) {
        schemas.insert(META.to_owned(), meta);
    }
    for (kind, schema) in kinds {
        schemas.insert(format!("{PREFIX}{kind}"), schema);
        schemas.insert(format!("{PREFIX}{kind}List"), list(kind));
    }
    let text = |what: &str| json!({ "type": "string", "description": what });
    let of_list = json!({ "resourceVersion": text("The revision of the list."), "continue": text("Where the next part begins.") });
    schemas.insert(LIST_META.to_owned(), json!({ "type": "object", "description": "Of a list.", "properties": of_list }));
    let of_status = json!({ "status": text("Success or Failure."), "message": text("A sentence."), "reason": text("One word.") });
    schemas.insert(STATUS.to_owned(), json!({ "type": "object", "description": "How a request ended.", "properties": of_status }));
    let mut document = json!({
        "openapi": "3.0.0",
        "info": { "title": "embody", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths(),
        "components": { "schemas": schemas },
    });
    rename(&mut document);
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.values_mut().for_each(plain);
    }
    // Some are of another one's type.
    loop {
        let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
        let is_scalar = |schema: &Value| schema["type"].as_str().is_some_and(|kind| !matches!(kind, "object" | "array"));
        let scalars: Map<String, Value> =
            schemas.filter(|(_, schema)| is_scalar(schema)).map(|(name, schema)| (name.clone(), schema.clone())).collect();
        if scalars.is_empty() {
            return document;
        }
        inline(&mut document, &scalars);
        if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
            schemas.retain(|name, _| !scalars.contains_key(name));
        }
    }
}

/// Each definition has one type, as clients expect: words that are each described become an enumeration, a number or a text an int-or-string, and what
/// is one word or an object is shown as the object.
fn plain(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let words = fields.get("oneOf").and_then(Value::as_array).and_then(|all| all.iter().map(word).collect::<Option<Vec<_>>>());
    if let Some(words) = words {
        let said = words.iter().map(|(word, says)| if says.is_empty() { word.clone() } else { format!("{word}: {says}") });
        let own = fields.get("description").and_then(Value::as_str).map(str::to_owned);
        fields.insert("description".to_owned(), own.into_iter().chain(said).collect::<Vec<_>>().join(" ").into());
        fields.insert("enum".to_owned(), words.iter().map(|(word, _)| word.clone()).collect());
        fields.insert("type".to_owned(), "string".into());
        fields.remove("oneOf");
    }
    if fields.get("type").is_some_and(Value::is_array) {
        fields.insert("type".to_owned(), "string".into());
        fields.insert("x-kubernetes-int-or-string".to_owned(), true.into());
    }
    if let Some(Value::Array(mut choices)) = fields.remove("anyOf") {
        fields.insert("type".to_owned(), "object".into());
        fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
        fields.insert("allOf".to_owned(), choices.pop().into_iter().collect());
    }
}

/// One word and what it means.
fn word(choice: &Value) -> Option<(String, String)> {
    let word = choice["enum"].as_array().filter(|all| all.len() == 1)?.first()?.as_str()?;
    Some((word.to_owned(), choice["description"].as_str().unwrap_or_default().to_owned()))
}

/// Clients show what is behind a reference as an object: texts and numbers stand where they are used.
fn inline(value: &mut Value, scalars: &Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            let one = fields.get("allOf").and_then(Value::as_array).filter(|all| all.len() == 1).and_then(|all| all.first());
            let target = fields.get("$ref").or_else(|| one?.get("$ref")).and_then(Value::as_str);
            let scalar = target.and_then(|target| scalars.get(target.strip_prefix(REFERENCE)?)).and_then(Value::as_object).cloned();
            if let Some(mut scalar) = scalar {
                fields.remove("$ref");
                fields.remove("allOf");
                // What is said of it here is more than what is said of its type.
                scalar.append(fields);
                *fields = scalar;
            }
            fields.values_mut().for_each(|field| inline(field, scalars));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline(item, scalars)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Names of types become those of this group; what is ours already stays. What may be missing is of one type, and may be null.
fn rename(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_null = |choice: &Value| choice["enum"] == json!([null]);
            if let Some(choices) = fields.get_mut("anyOf").and_then(Value::as_array_mut)
                && choices.len() == 2
                && choices.last().is_some_and(is_null)
            {
                choices.pop();
                let one = fields.remove("anyOf").unwrap_or_default();
                fields.insert("allOf".to_owned(), one);
                fields.insert("nullable".to_owned(), true.into());
            }
            for (key, field) in fields.iter_mut() {
                match field {
                    Value::String(target) if key == "$ref" => {
                        let name = target.strip_prefix(REFERENCE).unwrap_or(target);
                        let name = if name == "Meta" { META.to_owned() } else { name.to_owned() };
                        let ours = name.contains('.');
                        *target = if ours { format!("{REFERENCE}{name}") } else { format!("{REFERENCE}{PREFIX}{name}") };
                    }
                    other => rename(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rename),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn group_version_kind(kind: &str) -> Value {
    json!({ "group": GROUP, "kind": kind, "version": VERSION })
}

/// An object of a kind as clients see it: as in manifests, and with its status.
fn envelope(kind: Kind, types: &mut SchemaGenerator) -> Value {
    let meta = json!({ "$ref": format!("{REFERENCE}Meta") });
    let mut schema = schema::envelope(kind, &meta, types);
    let status = match kind {
        Kind::Binding => types.subschema_for::<BindingStatus>(),
        Kind::Server => types.subschema_for::<ServerStatus>(),
        Kind::Switch => types.subschema_for::<SwitchStatus>(),
        Kind::Persona => types.subschema_for::<PersonaStatus>(),
        Kind::Policy | Kind::Network | Kind::Secret => types.subschema_for::<PlainStatus>(),
    };
    let properties = &mut schema["properties"];
    // A reference has nothing beside it in this version (Reference Object).
    let described = |schema: Value, what: &str| json!({ "allOf": [schema], "description": what });
    properties["metadata"] = described(meta, "The object's name, labels and annotations.");
    properties["status"] = described(status.to_value(), "What embody says of it.");
    if let Some(spec) = properties.get("spec").cloned() {
        properties["spec"] = described(json!({ "$ref": spec["$ref"] }), "What is wanted.");
    }
    for (field, what) in [("apiVersion", "The version of this schema."), ("kind", "The kind of object.")] {
        properties[field] = json!({ "type": "string", "description": what });
    }
    schema["required"] = json!(schema["required"].as_array().into_iter().flatten().filter(|f| *f == "spec").collect::<Vec<_>>());
    if schema["required"] == json!([])
        && let Some(schema) = schema.as_object_mut()
    {
        schema.remove("required");
    }
    schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(kind.singular())]);
    schema
}

fn list(kind: Kind) -> Value {
    json!({ "type": "object", "description": format!("{kind} objects."), "required": ["items"], "properties": {
        "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": { "$ref": format!("{REFERENCE}{LIST_META}") },
        "items": { "type": "array", "items": { "$ref": format!("{REFERENCE}{PREFIX}{kind}") } } },
        "x-kubernetes-group-version-kind": [group_version_kind(&format!("{kind}List"))] })
}

/// What each address takes. Clients look here for the parameters of a patch before they send a dry run or ask for strict reading.
fn paths() -> Value {
    let text = |name: &str, what: &str| json!({ "name": name, "in": "query", "description": what, "schema": { "type": "string" } });
    let flag = |name: &str, what: &str| json!({ "name": name, "in": "query", "description": what, "schema": { "type": "boolean" } });
    let dry = text("dryRun", "All: nothing is stored.");
    let writes =
        [dry.clone(), text("fieldManager", "Who writes."), text("fieldValidation", "A field that nobody knows is always refused.")];
    let reads = [
        text("labelSelector", "Only those with these labels."),
        text("fieldSelector", "Only those with these values."),
        text("resourceVersion", "From this revision on."),
        flag("watch", "What changes, as it changes."),
    ];
    let mut paths = Map::new();
    for kind in KINDS {
        let of = |schema: &str| json!({ "$ref": format!("{REFERENCE}{PREFIX}{schema}") });
        let content = |schema: Value| json!({ JSON: { "schema": schema } });
        let operation = |action: &str, of_what: &str, parameters: &[Value], bodies: &[&str]| {
            let answer = match action {
                "delete" => json!({ "$ref": format!("{REFERENCE}{STATUS}") }),
                "list" => of(&format!("{kind}List")),
                _ => of(kind.singular()),
            };
            let mut operation = json!({
                "description": of_what,
                "operationId": format!("{action}EmbodyV1alpha1{kind}"),
                "parameters": parameters,
                "responses": { "200": { "description": "OK", "content": content(answer) } },
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": group_version_kind(kind.singular()),
            });
            if !bodies.is_empty() {
                let bodies: Map<String, Value> =
                    bodies.iter().map(|body| ((*body).to_owned(), json!({ "schema": of(kind.singular()) }))).collect();
                operation["requestBody"] = json!({ "content": bodies, "required": true });
            }
            operation
        };
        let plural = format!("/apis/{API_VERSION}/{}", kind.plural());
        paths.insert(
            plural.clone(),
            json!({
                "get": operation("list", "Lists or watches them.", &reads, &[]),
                "post": operation("post", "Creates one.", &writes, &[JSON]),
            }),
        );
        let patches = ["application/json-patch+json", "application/merge-patch+json"];
        paths.insert(
            format!("{plural}/{{name}}"),
            json!({
                "parameters": [{ "name": "name", "in": "path", "required": true, "schema": { "type": "string" } }],
                "get": operation("get", "Reads it.", &[], &[]),
                "put": operation("put", "Replaces it.", &writes, &[JSON]),
                "patch": operation("patch", "Changes parts of it.", &writes, &patches),
                "delete": operation("delete", "Deletes it.", std::slice::from_ref(&dry), &[]),
            }),
        );
    }
    Value::Object(paths)
}
