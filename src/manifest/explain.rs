//! `explain`: what a field is, in the manner of kubectl, and what a diagnostic's code means. All of it comes from the schema and the codes.

use serde_json::{Map, Value};

use super::codes::CODES;
use super::fault::did_you_mean;
use super::{schema, shape};
use crate::model::Kind;
use crate::model::kind::{API_VERSION, KINDS};

/// What was asked for does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no `{found}`{}", .hint.as_ref().map(|h| format!(": {h}")).unwrap_or_default())]
pub struct Unknown {
    pub found: String,
    pub hint: Option<String>,
}

/// `Server`, `server.spec.nics.port`, or a code such as `port-wired-twice`.
pub fn explain(what: &str) -> Result<String, Unknown> {
    let what = what.trim();
    if let Some((code, text)) = CODES.iter().find(|(code, _)| *code == what) {
        return Ok(format!("CODE:     {code}\n\n{}\n", wrapped(text, "")));
    }
    let mut steps = what.split('.').filter(|s| !s.is_empty());
    let kind = steps.next().and_then(|k| k.parse::<Kind>().ok()).ok_or_else(|| unknown_start(what))?;
    let mut schema = schema::of_kind(kind);
    let (mut own, mut field) = (schema, None);
    for step in steps {
        let step = step.split('[').next().unwrap_or(step);
        let fields = fields(schema);
        let Some(next) = fields.get(step) else {
            let known = fields.keys().map(String::as_str);
            let hint = match did_you_mean(step, known.clone()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if fields.is_empty() => "it has no fields".to_owned(),
                None => format!("the fields are {}", known.collect::<Vec<_>>().join(", ")),
            };
            return Err(Unknown { found: what.to_owned(), hint: Some(hint) });
        };
        (own, schema, field) = (next, next, Some(step.to_owned()));
    }
    Ok(page(kind, field.as_deref(), own))
}

fn unknown_start(what: &str) -> Unknown {
    let start = what.split('.').next().unwrap_or(what);
    let known: Vec<&str> = KINDS.iter().map(|k| k.singular()).chain(CODES.iter().map(|(code, _)| *code)).collect();
    let meant = did_you_mean(start, known).map(|m| format!("did you mean `{m}`?"));
    let kinds = KINDS.map(Kind::singular).join(", ");
    Unknown { found: what.to_owned(), hint: Some(meant.unwrap_or_else(|| format!("name a kind ({kinds}), a field of one, or a code"))) }
}

/// The schema itself, or of its items, or the variant of it that has fields.
fn inner(schema: &'static Value) -> &'static Value {
    let schema = schema::resolve(schema);
    if let Some(items) = schema.get("items") {
        return inner(items);
    }
    let choices = schema.get("anyOf").and_then(Value::as_array);
    let choice = choices.and_then(|c| {
        let of_type = |t: &str, v: &&Value| v.get("type").and_then(Value::as_str) == Some(t);
        let resolved: Vec<&'static Value> = c.iter().map(schema::resolve).collect();
        resolved.iter().find(|v| of_type("object", v)).or_else(|| resolved.iter().find(|v| !of_type("null", v))).copied()
    });
    choice.map_or(schema, inner)
}

fn fields(schema: &'static Value) -> &'static Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    inner(schema).get("properties").and_then(Value::as_object).unwrap_or(&NONE)
}

fn page(kind: Kind, field: Option<&str>, own: &'static Value) -> String {
    let mut text = format!("KIND:     {kind}\nVERSION:  {API_VERSION}\n");
    if let Some(field) = field {
        text.push_str(&format!("\nFIELD:    {field} <{}>\n", type_name(own)));
    }
    let about = describe(own);
    if !about.is_empty() {
        text.push_str(&format!("\nDESCRIPTION:\n{}\n", wrapped(&about, "    ")));
    }
    let words = described_words(own);
    if !words.is_empty() {
        text.push_str("\nVALUES:\n");
        for (word, about) in words {
            text.push_str(&format!("  {word}\n"));
            if !about.is_empty() {
                text.push_str(&format!("{}\n", wrapped(&about, "    ")));
            }
        }
    }
    if let Some(default) = own.get("default").filter(|d| !d.is_object() && !d.is_null()) {
        text.push_str(&format!("\nDEFAULT:\n    {}\n", default.as_str().map_or_else(|| default.to_string(), str::to_owned)));
    }
    let fields = fields(own);
    if !fields.is_empty() {
        text.push_str("\nFIELDS:\n");
        let required: Vec<&str> =
            inner(own).get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, schema) in fields {
            let mark = if required.contains(&name.as_str()) { " -required-" } else { "" };
            text.push_str(&format!("  {name} <{}>{mark}\n", type_name(schema)));
            let about = describe(schema);
            if !about.is_empty() {
                text.push_str(&format!("{}\n", wrapped(&about, "    ")));
            }
        }
    }
    text
}

/// The field's own words first, then those of its type.
fn describe(schema: &'static Value) -> String {
    let of = |v: &'static Value| v.get("description").and_then(Value::as_str);
    of(schema).or_else(|| of(schema::resolve(schema))).or_else(|| of(inner(schema))).unwrap_or_default().replace('\n', " ")
}

/// The enum that the schema is, or that is one of its variants.
fn enumerated(schema: &'static Value) -> Option<&'static Value> {
    let schema = schema::resolve(schema);
    let choices = schema.get("anyOf").and_then(Value::as_array);
    if shape::words(schema).is_some() { Some(schema) } else { choices.into_iter().flatten().find_map(enumerated) }
}

fn described_words(schema: &'static Value) -> Vec<(&'static str, String)> {
    let enumerated = enumerated(schema).unwrap_or(&Value::Null);
    let variants = enumerated.get("oneOf").and_then(Value::as_array);
    let about = |word: &str| {
        let variant = variants.into_iter().flatten().find(|v| v.get("const").and_then(Value::as_str) == Some(word));
        variant.map(describe).unwrap_or_default()
    };
    shape::words(enumerated).unwrap_or_default().into_iter().map(|word| (word, about(word))).collect()
}

fn type_name(schema: &'static Value) -> String {
    let resolved = schema::resolve(schema);
    if let Some(items) = resolved.get("items") {
        return format!("[]{}", type_name(items));
    }
    if let Some(choices) = resolved.get("anyOf").and_then(Value::as_array) {
        let names: Vec<String> = choices.iter().map(type_name).filter(|n| n != "null").collect();
        return names.join(" or ");
    }
    if shape::words(resolved).is_some() {
        return "enum".to_owned();
    }
    if let Some(of) = resolved.get("additionalProperties").filter(|a| a.is_object()) {
        return format!("map[string]{}", type_name(of));
    }
    let types: Vec<&str> = match resolved.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => vec!["object"],
    };
    let format = resolved.get("format").and_then(Value::as_str).filter(|f| !f.starts_with("uint") && !f.starts_with("int"));
    let name = |t: &str| if t == "object" { "Object".to_owned() } else { t.to_owned() };
    format.map_or_else(|| types.iter().map(|t| name(t)).collect::<Vec<_>>().join(" or "), str::to_owned)
}

fn wrapped(text: &str, indent: &str) -> String {
    const WIDTH: usize = 78;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}
