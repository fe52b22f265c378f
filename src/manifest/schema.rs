//! The JSON Schema of all kinds, out of the same types that are deserialised: for the walk that finds faults and for editors.
//!
//! Invariant: nothing is written twice: names, types, words and their descriptions come from the doc comments of `model`.

use std::sync::OnceLock;

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::model::kind::{API_VERSION, KINDS};
use crate::model::{BindingSpec, Kind, Meta, NetworkSpec, PersonaSpec, PolicySpec, SecretSpec, ServerSpec, SwitchSpec};

pub use super::explain::explain;

/// One schema for all kinds, by `kind` (JSON Schema, draft 2020-12).
pub fn json_schema() -> Value {
    whole().clone()
}

pub(super) fn whole() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(build)
}

/// The schema of one kind's objects, envelope included.
pub(super) fn of_kind(kind: Kind) -> &'static Value {
    whole().pointer(&format!("/$defs/{kind}")).unwrap_or(&Value::Null)
}

/// Follows `$ref`, as often as there is one.
pub(super) fn resolve(mut schema: &'static Value) -> &'static Value {
    while let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#')) {
        schema = whole().pointer(target).unwrap_or(&Value::Null);
    }
    schema
}

fn build() -> Value {
    let mut types = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let meta = types.subschema_for::<Meta>().to_value();
    let envelopes: Vec<(Kind, Value)> = KINDS.into_iter().map(|kind| (kind, envelope(kind, &meta, &mut types))).collect();
    let mut defs: Map<String, Value> = types.take_definitions(true);
    defs.remove("SecretSpec");
    for (kind, schema) in envelopes {
        defs.insert(kind.to_string(), schema);
    }
    let of_kinds: Vec<Value> = KINDS.iter().map(|k| json!({ "$ref": format!("#/$defs/{k}") })).collect();
    defs.insert(
        "List".to_owned(),
        json!({ "type": "object", "required": ["kind", "items"], "properties": {
            "apiVersion": { "type": "string" }, "kind": { "const": "List" }, "metadata": { "type": "object" },
            "items": { "type": "array", "items": { "oneOf": of_kinds } } } }),
    );
    let all: Vec<Value> = of_kinds.into_iter().chain([json!({ "$ref": "#/$defs/List" })]).collect();
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": format!("embody manifests, {API_VERSION}"),
        "oneOf": all, "$defs": defs })
}

pub(crate) fn envelope(kind: Kind, meta: &Value, types: &mut SchemaGenerator) -> Value {
    let mut properties = Map::new();
    properties.insert("apiVersion".into(), json!({ "type": "string", "const": API_VERSION, "description": "The version of this schema." }));
    properties.insert("kind".into(), json!({ "type": "string", "const": kind.singular(), "description": "The kind of object." }));
    let mut metadata = meta.clone();
    metadata["description"] = "The object's name, labels and annotations.".into();
    properties.insert("metadata".into(), metadata);
    let mut required = vec!["apiVersion", "kind", "metadata"];
    let spec = match kind {
        Kind::Policy => types.subschema_for::<PolicySpec>(),
        Kind::Network => types.subschema_for::<NetworkSpec>(),
        Kind::Switch => types.subschema_for::<SwitchSpec>(),
        Kind::Server => types.subschema_for::<ServerSpec>(),
        Kind::Persona => types.subschema_for::<PersonaSpec>(),
        Kind::Binding => types.subschema_for::<BindingSpec>(),
        Kind::Secret => types.root_schema_for::<SecretSpec>(),
    }
    .to_value();
    if kind == Kind::Secret {
        // A Secret has no spec: its two fields stand beside metadata.
        let fields = spec.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        properties.extend(fields);
    } else {
        let mut spec = spec;
        spec["description"] = "What is wanted.".into();
        properties.insert("spec".into(), spec);
        required.push("spec");
    }
    properties.insert("status".into(), json!({ "description": "What embody says of it. Ignored in a manifest." }));
    json!({ "type": "object", "description": describe(kind), "properties": properties, "required": required, "additionalProperties": false })
}

pub(super) fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Policy => "How far and how fast embody may go at this site. There is one, named `default`.",
        Kind::Secret => "Credentials of a BMC or a switch. Write-only: its values are never shown.",
        Kind::Network => "A VLAN, and where it has another number.",
        Kind::Switch => "How to reach a switch, and what of it may be written.",
        Kind::Server => "A body: a server with its lights-out controller, its NICs, and where they are plugged in.",
        Kind::Persona => "An operating system with its root, kernel and networks, free of any hardware.",
        Kind::Binding => "Which body a persona lives in, and how far embody may go.",
    }
}
