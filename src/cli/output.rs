//! What goes to stdout: tables, YAML, JSON. Colour only on a terminal and without `NO_COLOR`; what devices say cannot move the cursor.
//!
//! Invariant: stdout holds data, nothing else; a reader that goes away is no error. Shown by `tests/cli.rs`.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::manifest::harmful;
pub(crate) use crate::server::api::columns::clean;

/// How `get` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Wide,
    Yaml,
    Json,
    Name,
    /// Of `get discovered`: Server objects to start from
    Manifest,
}

/// Whether stdout is a terminal that may be coloured.
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Whether stderr, where faults of manifests go, is a terminal that may be coloured.
pub(crate) fn colour_of_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Writes a text to stdout as it is.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Several lines, each cleaned.
pub(crate) fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Columns as wide as their widest cell, three spaces between, as kubectl prints them. The widths of the first rows hold for later ones.
pub(crate) struct Table {
    widths: Vec<usize>,
    coloured: bool,
}

impl Table {
    pub(crate) fn new(heads: &[&str], rows: &[Vec<String>]) -> Table {
        let width = |i: usize, head: &str| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).chain([head.len()]).max();
        let widths = heads.iter().enumerate().map(|(i, h)| width(i, h).unwrap_or(0)).collect();
        Table { widths, coloured: colour() }
    }

    /// One line, without spaces at its end.
    pub(crate) fn line(&self, cells: &[String]) -> String {
        let mut out = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let pad = self.widths.get(i).copied().unwrap_or(0).saturating_sub(cell.chars().count());
            out.push_str(&self.paint(&clean(cell)));
            if i + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', pad + 3));
            }
        }
        out.push('\n');
        out
    }

    fn paint(&self, cell: &str) -> String {
        let colour = match cell {
            "True" => Some(anstyle::AnsiColor::Green),
            "False" => Some(anstyle::AnsiColor::Red),
            _ if cell.contains('→') => Some(anstyle::AnsiColor::Yellow),
            _ => None,
        };
        match colour.filter(|_| self.coloured).map(|c| anstyle::Style::new().fg_color(Some(c.into()))) {
            Some(style) => format!("{style}{cell}{style:#}"),
            None => cell.to_owned(),
        }
    }
}

/// A whole table.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let table = Table::new(heads, rows);
    let head: Vec<String> = heads.iter().map(|h| (*h).to_owned()).collect();
    std::iter::once(&head).chain(rows).map(|r| table.line(r)).collect()
}

/// A table without its heads.
pub(crate) fn rows(heads: &[&str], rows: &[Vec<String>]) -> String {
    let table = Table::new(heads, rows);
    rows.iter().map(|row| table.line(row)).collect()
}

/// JSON as a person reads it.
pub(crate) fn json(value: &Value) -> String {
    let mut text = unharmed(&serde_json::to_string_pretty(value).unwrap_or_default());
    text.push('\n');
    text
}

/// JSON with what is harmful in its texts escaped as JSON does it. Line breaks stand only between them.
fn unharmed(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // Of those beyond the basic plane none is harmful.
        if c != '\n' && harmful(c) { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
    }
    out
}

/// JSON as YAML. Every text that any YAML reader could take for something else (`NO`, `on`, `1e3`) is quoted.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => yaml_map(map, 0, &mut out),
        Value::Array(list) if !list.is_empty() => yaml_list(list, 0, &mut out),
        _ => out.push_str(&format!("{}\n", scalar(value))),
    }
    out
}

/// What people look for first.
const FIRST: [&str; 4] = ["apiVersion", "kind", "metadata", "name"];
/// YAML takes no longer key on one line with its value (1,024 characters, YAML 1.2.2, 8.2.2).
const KEY_BYTES: usize = 1_000;

fn yaml_map(map: &serde_json::Map<String, Value>, depth: usize, out: &mut String) {
    let rank = |key: &str| FIRST.iter().position(|f| *f == key).unwrap_or(FIRST.len());
    let mut fields: Vec<_> = map.iter().collect();
    fields.sort_by_key(|(k, _)| rank(k));
    for (i, (key, value)) in fields.into_iter().enumerate() {
        // The first field of a map within a list stands behind its dash.
        if i > 0 || !out.ends_with("- ") {
            out.push_str(&"  ".repeat(depth));
        }
        let key = text(key);
        if key.len() > KEY_BYTES {
            out.push_str(&format!("? {key}\n{}:", "  ".repeat(depth)));
        } else {
            out.push_str(&key);
            out.push(':');
        }
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                yaml_map(inner, depth + 1, out);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                yaml_list(inner, depth, out);
            }
            other => out.push_str(&format!(" {}\n", scalar(other))),
        }
    }
}

fn yaml_list(list: &[Value], depth: usize, out: &mut String) {
    for value in list {
        // A list within a list stands behind its dash as well.
        if !out.ends_with("- ") {
            out.push_str(&"  ".repeat(depth));
        }
        out.push_str("- ");
        match value {
            Value::Object(inner) if !inner.is_empty() => yaml_map(inner, depth + 1, out),
            Value::Array(inner) if !inner.is_empty() => yaml_list(inner, depth + 1, out),
            other => out.push_str(&format!("{}\n", scalar(other))),
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(s) => text(s),
        // Empty maps and lists, numbers, true, false, null: YAML's flow style is JSON.
        other => other.to_string(),
    }
}

fn text(s: &str) -> String {
    // Booleans and null of YAML 1.1 and 1.2 in any case.
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_./ ".contains(c))
        && !s.ends_with(' ')
        && !WORDS.iter().any(|w| s.eq_ignore_ascii_case(w));
    if plain { s.to_owned() } else { unharmed(&Value::from(s).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_reads_back_as_it_was() {
        for value in [
            json!({"kind":"Network","metadata":{"name":"web","labels":{"on":"NO","n":"1e3"}},"spec":{"vlan":120,"segments":[{"a":[],"b":{}}]}}),
            json!([[1,2],[{"x":"a: b"},"- c"],null,true,"", " lead", "trail ", "00:17:a4:77:00:01", "120", "→", "a\nb", "~", "#c"]),
            json!({"a":[{"b":[{"c":1,"d":2},{"e":[3]}],"f":"on"}]}),
            json!({"a\u{2028}b":"line\nbreak \u{1b}[2J \u{85} \u{202e}turned\u{61c} \u{feff}"}),
            json!([{"k".repeat(2_000): {"ä".repeat(600): ["x"], "l".repeat(1_025): "y"}, "a": 1}]),
            json!("x"),
            json!({}),
            json!([]),
        ] {
            let text = yaml(&value);
            assert_eq!(serde_yaml::from_str::<Value>(&text).unwrap(), value, "{text}");
            let printed = super::json(&value);
            assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value, "{printed}");
            assert!(!(text + &printed).chars().any(|c| c != '\n' && harmful(c)));
        }
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["web-1".into(), "Off→On".into(), "x".into()], vec!["a".into(), "On".into(), String::new()]];
        assert_eq!(table(&["NAME", "POWER", "NOTE"], &rows), "NAME    POWER    NOTE\nweb-1   Off→On   x\na       On       \n");
    }
}
