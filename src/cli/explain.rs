//! `explain` and `schema`: the model's own doc comments and types, as text and as JSON Schema. Leaves out: what is wrong with an object.
//!
//! Shown by `tests/cli.rs`.

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::output::{self, print};
use super::subject;
use crate::api::decode::{object_shape, resolve, schema as schema_of};
use crate::model::Kind;
use crate::model::kind::{API_VERSION, KINDS};

#[derive(Args)]
pub struct ExplainArgs {
    /// KIND, or KIND.field.field: Server.spec.nics.port
    #[arg(value_name = "KIND[.field…]")]
    path: String,
}

#[derive(Args)]
pub struct SchemaArgs {
    /// One kind only
    kind: Option<String>,
}

pub fn run(args: ExplainArgs) -> Result<(), Failure> {
    let mut parts = args.path.split('.');
    let kind = subject::kind(parts.next().unwrap_or(""))?;
    let root = object_schema(kind);
    let (mut at, mut done) = (&root, kind.to_string());
    for part in parts {
        let Some(shape) = inside(at, &root) else {
            return Err(Failure::new(Exit::NotFound, format!("`{done}` has no fields")));
        };
        let fields = shape.get("properties").and_then(Value::as_object);
        at = match fields.and_then(|f| f.get(part)) {
            Some(field) => field,
            None => match shape.get("additionalProperties").filter(|a| a.is_object()) {
                Some(any) => any,
                None => return Err(unknown(part, &done, fields)),
            },
        };
        done = format!("{done}.{part}");
    }
    Ok(print(&page(&done, at, &root))?)
}

fn unknown(part: &str, of: &str, fields: Option<&serde_json::Map<String, Value>>) -> Failure {
    let names: Vec<&str> = fields.into_iter().flat_map(|f| f.keys()).map(String::as_str).collect();
    let near = names.iter().copied().map(|n| (strsim::damerau_levenshtein(n, part), n)).min().filter(|(d, _)| *d <= 2);
    let failure = Failure::new(Exit::NotFound, format!("`{of}` has no field `{part}`; it has {}", names.join(", ")));
    match near {
        Some((_, name)) => failure.hint(format!("did you mean `{name}`?")),
        None => failure,
    }
}

/// The fields of a schema, or of what its list holds.
fn inside<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Value> {
    let schema = resolve(schema, root);
    match schema.get("items") {
        Some(items) => inside(items, root),
        None => object_shape(schema, root),
    }
}

fn page(path: &str, schema: &Value, root: &Value) -> String {
    let mut out = format!("{path}  <{}>\n", type_of(schema, root));
    if let Some(text) = description(schema, root) {
        out.push_str(&format!("\n  {}\n", text.replace('\n', "\n  ")));
    }
    let resolved = resolve(schema, root);
    for (title, key) in [("default", "default"), ("values", "enum"), ("examples", "examples")] {
        if let Some(value) = schema.get(key).or_else(|| resolved.get(key)).filter(|v| !v.is_object()) {
            out.push_str(&format!("\n  {title}: {value}\n"));
        }
    }
    let choices = choices(resolved, root);
    if !choices.is_empty() {
        out.push_str("\nVALUES\n");
        out.push_str(&rows(choices));
    }
    let Some(shape) = inside(schema, root) else { return out };
    let required: Vec<&str> = shape.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(fields) = shape.get("properties").and_then(Value::as_object) {
        out.push_str("\nFIELDS\n");
        let must = |name: &str| if required.contains(&name) { ", required" } else { "" };
        let row = |(name, field): (&String, &Value)| {
            let text = description(field, root).unwrap_or_default().replace('\n', " ");
            (format!("{name}  <{}{}>", type_of(field, root), must(name)), text)
        };
        out.push_str(&rows(fields.iter().map(row).collect()));
    }
    out
}

fn rows(list: Vec<(String, String)>) -> String {
    list.into_iter().map(|(head, text)| if text.is_empty() { format!("  {head}\n") } else { format!("  {head}\n      {text}\n") }).collect()
}

fn description<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a str> {
    let own = schema.get("description").and_then(Value::as_str);
    own.or_else(|| resolve(schema, root).get("description").and_then(Value::as_str))
}

/// The words of an enum whose values are described one by one.
fn choices(schema: &Value, root: &Value) -> Vec<(String, String)> {
    let alternatives = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array).into_iter().flatten();
    alternatives
        .flat_map(|a| {
            let a = resolve(a, root);
            let text = a.get("description").and_then(Value::as_str).unwrap_or("").to_owned();
            match (a.get("const"), a.get("enum").and_then(Value::as_array)) {
                (Some(Value::String(word)), _) => vec![(word.clone(), text)],
                (_, Some(words)) => words.iter().filter_map(Value::as_str).map(|w| (w.to_owned(), String::new())).collect(),
                _ => choices(a, root),
            }
        })
        .collect()
}

fn type_of(schema: &Value, root: &Value) -> String {
    let schema = resolve(schema, root);
    if let Some(items) = schema.get("items") {
        return format!("list of {}", type_of(items, root));
    }
    if schema.get("const").is_some() || schema.get("enum").is_some() || !choices(schema, root).is_empty() && inside(schema, root).is_none()
    {
        return "word".to_owned();
    }
    match (schema.get("format").and_then(Value::as_str), schema.get("type")) {
        (Some(format), Some(Value::String(t))) if t == "string" => format.to_owned(),
        (_, Some(Value::String(t))) => t.clone(),
        (_, Some(Value::Array(types))) => {
            let names: Vec<&str> = types.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect();
            schema.get("format").and_then(Value::as_str).filter(|_| names == ["string"]).map_or_else(|| names.join(" or "), str::to_owned)
        }
        _ => {
            let any = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array).into_iter().flatten();
            let names: Vec<String> = any.map(|a| type_of(a, root)).filter(|t| t != "null").collect();
            if names.is_empty() { "object".to_owned() } else { names.join(" or ") }
        }
    }
}

/// The whole object: envelope and spec (a Secret has no spec).
fn object_schema(kind: Kind) -> Value {
    let mut spec = schema_of(kind).clone();
    let meta = Value::from(schemars::schema_for!(crate::model::Meta));
    let mut definitions = serde_json::Map::new();
    for part in [&spec, &meta] {
        definitions.extend(part.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default());
    }
    let strip = |mut schema: Value| {
        if let Some(map) = schema.as_object_mut() {
            ["$defs", "$schema", "title"].into_iter().for_each(|k| drop(map.remove(k)));
        }
        schema
    };
    let description = spec.get("description").cloned().unwrap_or_default();
    let mut properties = json!({
        "apiVersion": { "const": API_VERSION, "type": "string", "description": "The version of the manifests." },
        "kind": { "const": kind.singular(), "type": "string", "description": "The kind of the object." },
        "metadata": strip(meta),
    });
    let mut required = json!(["apiVersion", "kind", "metadata"]);
    if kind == Kind::Secret {
        for (name, field) in spec.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
            properties[name] = field.clone();
        }
    } else {
        properties["spec"] = strip(spec);
        if kind != Kind::Policy
            && let Some(list) = required.as_array_mut()
        {
            list.push("spec".into());
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind.singular(), "description": description,
        "type": "object", "properties": properties, "required": required, "additionalProperties": false, "$defs": definitions,
    })
}

pub fn schema(args: SchemaArgs) -> Result<(), Failure> {
    if let Some(kind) = args.kind {
        return Ok(print(&output::json(&object_schema(subject::kind(&kind)?)))?);
    }
    let mut definitions = serde_json::Map::new();
    let mut choices = Vec::new();
    for kind in KINDS {
        let mut object = object_schema(kind);
        if let Some(map) = object.as_object_mut() {
            map.remove("$schema");
            if let Some(Value::Object(inner)) = map.remove("$defs") {
                definitions.extend(inner);
            }
        }
        choices.push(object);
    }
    let all = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "embody manifests", "oneOf": choices, "$defs": definitions });
    Ok(print(&output::json(&all))?)
}
