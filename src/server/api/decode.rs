//! JSON of clients → objects, strictly: a field that nobody knows is an error with its path. Leaves out: text and positions (`manifest`).
//!
//! Invariant: what this returns has only fields that the model has; what the server sets itself is ignored. Shown by `tests/api.rs`.

use std::fmt;
use std::sync::LazyLock;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::fault::{ApiError, Cause, chain};
use crate::manifest::diagnostic::shown;
use crate::model::{BindingSpec, Kind, Meta, NetworkSpec, Object, PersonaSpec, PolicySpec, SecretSpec, ServerSpec, SwitchSpec};

/// JSON in which no map has a key twice: which of the two is meant cannot be told (RFC 8259, 4), and another reader may take the other one.
pub(super) fn json(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Distinct>(bytes).map(|Distinct(value)| value)
}

struct Distinct(Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Distinct, D::Error> {
        from.deserialize_any(Reading).map(Distinct)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Distinct(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{}` is there twice", shown(&key))));
            }
            let Distinct(value) = map.next_value()?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

/// kubectl keeps a copy of what was applied here: of a Secret that would be the values in the clear.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The JSON Schema of a kind's spec (of a Secret: of `stringData` and `from`).
pub(crate) fn schema(kind: Kind) -> &'static Value {
    static SCHEMAS: LazyLock<[Value; 7]> = LazyLock::new(|| {
        [
            schemars::schema_for!(PolicySpec),
            schemars::schema_for!(SecretSpec),
            schemars::schema_for!(NetworkSpec),
            schemars::schema_for!(SwitchSpec),
            schemars::schema_for!(ServerSpec),
            schemars::schema_for!(PersonaSpec),
            schemars::schema_for!(BindingSpec),
        ]
        .map(Value::from)
    });
    &SCHEMAS[kind as usize]
}

fn meta_schema() -> &'static Value {
    static META: LazyLock<Value> = LazyLock::new(|| Value::from(schemars::schema_for!(Meta)));
    &META
}

/// One object. `expected` is the kind that the URL names.
pub(crate) fn object(json: Value, expected: Option<Kind>) -> Result<Object, ApiError> {
    let Value::Object(mut map) = json else {
        return Err(ApiError::bad_request("expected a JSON object with apiVersion, kind, metadata and spec"));
    };
    let kind = kind_of(&map, expected)?;
    prepare(&mut map, kind);
    let unknown = unknown_fields(&map, kind);
    if !unknown.is_empty() {
        let list: Vec<String> = unknown.iter().map(|f| format!("unknown field \"{f}\"")).collect();
        let causes = unknown.into_iter().map(|field| Cause { field, message: "unknown field".to_owned() }).collect();
        return Err(ApiError::bad_request(format!("strict decoding error: {}", list.join(", "))).with_causes(causes));
    }
    let name = map.get("metadata").and_then(|m| m.get("name")).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut object = Object::from_json(Value::Object(map)).map_err(|e| {
        let message = if name.is_empty() { chain(&e) } else { format!("{kind}/{name}: {}", chain(&e)) };
        let cause = Cause { field: "spec".to_owned(), message: message.clone() };
        ApiError::bad_request(message).with_causes(vec![cause])
    })?;
    object.status = Value::Null;
    if kind == Kind::Secret {
        object.meta.annotations.remove(LAST_APPLIED);
    }
    Ok(object)
}

fn kind_of(map: &Map<String, Value>, expected: Option<Kind>) -> Result<Kind, ApiError> {
    let found = map.get("kind").and_then(Value::as_str).unwrap_or("");
    let kind = crate::model::kind::KINDS.into_iter().find(|k| k.singular() == found);
    match (kind, expected) {
        (Some(kind), Some(expected)) if kind != expected => {
            Err(ApiError::bad_request(format!("found kind `{kind}`, expected `{expected}` as in the URL")))
        }
        (Some(kind), _) => Ok(kind),
        (None, _) => Err(ApiError::bad_request(crate::model::kind::BadKind { found: found.to_owned() }.to_string())),
    }
}

/// What a client may send back although it may not set it, and a spec that is not there (so that the error names the missing field).
fn prepare(map: &mut Map<String, Value>, kind: Kind) {
    if kind != Kind::Secret && map.get("spec").is_none_or(Value::is_null) {
        map.insert("spec".to_owned(), Value::Object(Map::new()));
    }
    if let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        for theirs in ["managedFields", "selfLink", "creationTimestamp", "ownerReferences"] {
            meta.remove(theirs);
        }
    }
}

fn unknown_fields(map: &Map<String, Value>, kind: Kind) -> Vec<String> {
    let mut out = Vec::new();
    let mut secret = Map::new();
    for (key, value) in map {
        match (key.as_str(), kind) {
            ("apiVersion" | "kind" | "status", _) => {}
            ("metadata", _) => walk(meta_schema(), meta_schema(), value, "metadata", &mut out),
            ("spec", Kind::Secret) => out.push("spec".to_owned()),
            ("spec", _) => walk(schema(kind), schema(kind), value, "spec", &mut out),
            ("stringData" | "from", Kind::Secret) => {
                secret.insert(key.clone(), value.clone());
            }
            _ => out.push(key.clone()),
        }
    }
    if kind == Kind::Secret {
        walk(schema(kind), schema(kind), &Value::Object(secret), "", &mut out);
    }
    out
}

/// Follows `$ref` into `$defs`.
pub(crate) fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    match target {
        Some("") => root,
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}

fn walk(schema: &Value, root: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
    let schema = resolve(schema, root);
    match value {
        Value::Object(fields) => {
            let Some(shape) = object_shape(schema, root) else { return };
            let known = shape.get("properties").and_then(Value::as_object);
            let rest = shape.get("additionalProperties");
            for (key, field) in fields {
                let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (known.and_then(|k| k.get(key)), rest) {
                    (Some(inner), _) => walk(inner, root, field, &here, out),
                    (None, Some(Value::Bool(false))) => out.push(here),
                    (None, Some(inner)) => walk(inner, root, field, &here, out),
                    (None, None) => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.get("items") else { return };
            for (i, item) in items.iter().enumerate() {
                walk(inner, root, item, &format!("{path}[{i}]"), out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The alternative of a schema that is an object, where there is one.
pub(crate) fn object_shape<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Value> {
    let schema = resolve(schema, root);
    if schema.get("properties").is_some() || schema.get("additionalProperties").is_some() {
        return Some(schema);
    }
    let choices = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|k| schema.get(k)?.as_array()).flatten();
    choices.into_iter().find_map(|c| object_shape(c, root))
}
