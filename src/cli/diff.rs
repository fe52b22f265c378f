//! The difference between an object as it is and as it would be, line by line. Leaves out: status and what the server sets itself.
//!
//! Shown by `tests/cli.rs`.

use serde_json::Value;
use similar::TextDiff;

use super::output::{clean_lines, colour, yaml};
use crate::server::api::apply::Applied;

/// What a person wrote, or could have written.
fn written(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|k, _| matches!(k.as_str(), "name" | "labels" | "annotations"));
    }
    clean_lines(&yaml(&object))
}

/// A unified diff under the object's name. Values of a Secret never show: where only they differ, that is said.
pub(crate) fn objects(wanted: &Applied, now: Option<&Value>) -> String {
    let subject = format!("{}/{}", wanted.kind, wanted.name);
    let (old, new) = (now.map(written).unwrap_or_default(), written(&wanted.object));
    if old == new {
        return format!("--- {subject}\n+++ {subject}\n# hidden values differ\n");
    }
    let from = if now.is_some() { format!("{subject} (now)") } else { "/dev/null".to_owned() };
    let text = TextDiff::from_lines(old.as_str(), new.as_str()).unified_diff().header(&from, &format!("{subject} (wanted)")).to_string();
    if !colour() {
        return text;
    }
    text.lines().map(paint).collect()
}

fn paint(line: &str) -> String {
    let colour = match line.as_bytes().first() {
        Some(b'+') => anstyle::AnsiColor::Green,
        Some(b'-') => anstyle::AnsiColor::Red,
        Some(b'@') => anstyle::AnsiColor::Cyan,
        _ => return format!("{line}\n"),
    };
    let style = anstyle::Style::new().fg_color(Some(colour.into()));
    format!("{style}{line}{style:#}\n")
}
