//! One object against the schema of its kind: every wrong, missing and unknown field, not only the first.
//!
//! Leaves out: what fields mean together (`validate`) and between objects (`lint`). Invariant: what passes here deserialises.

use serde_json::Value;

use super::codes;
use super::diagnostic::{names_a_secret, shown};
use super::fault::{At, Fault, SECRET_KEYS, did_you_mean, listed, path_text, shown_key};
use super::schema;
use super::yaml::{Node, Part, Step};
use crate::model::file::FileMode;
use crate::model::image::ImageName;
use crate::model::network::AddressRange;
use crate::model::{HostPort, Kind, Mac, Name, Period, policy::Share, server::Bytes};

/// Walks one object.
pub(super) struct Shape {
    pub item: usize,
    pub kind: Kind,
    pub faults: Vec<Fault>,
}

impl Shape {
    pub(super) fn check(&mut self, node: &Node) {
        self.duplicates(node, &mut Vec::new());
        self.node(node, schema::of_kind(self.kind), &mut Vec::new());
    }

    fn duplicates(&mut self, node: &Node, path: &mut Vec<Step>) {
        match node {
            Node::Map(entries) => {
                let mut counts: std::collections::BTreeMap<&str, usize> = Default::default();
                for (key, value) in entries {
                    let nth = counts.entry(key).or_default();
                    path.push(Step::Key(key.clone()));
                    if *nth > 0 {
                        let at = |n| At { item: self.item, path: path.clone(), part: Part::Key(n) };
                        let fault = Fault::error(
                            codes::DUPLICATE_KEY,
                            at(*nth),
                            format!("the key `{}` stands twice in one map", self.key(key, path)),
                        );
                        self.faults.push(fault.label("again here").also("first", at(0)).hint("keep one of the two"));
                    } else {
                        self.duplicates(value, path);
                    }
                    *nth += 1;
                    path.pop();
                }
            }
            Node::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(Step::Index(index));
                    self.duplicates(item, path);
                    path.pop();
                }
            }
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Text(_) => {}
        }
    }

    fn node(&mut self, node: &Node, schema: &'static Value, path: &mut Vec<Step>) {
        let schema = schema::resolve(schema);
        if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
            if let Some(choice) = choose(node, choices) {
                self.node(node, choice, path);
            }
            return;
        }
        if let Some(words) = words(schema) {
            return self.word(node, &words, path);
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        match (node, types.as_slice()) {
            (Node::Null, types) if types.contains(&"null") => {}
            (Node::Map(entries), t) if t.contains(&"object") => self.map(entries, schema, path),
            (Node::List(items), t) if t.contains(&"array") => {
                let of = schema.get("items").unwrap_or(&Value::Null);
                for (index, item) in items.iter().enumerate() {
                    path.push(Step::Index(index));
                    self.node(item, of, path);
                    path.pop();
                }
            }
            (Node::Text(text), t) if t.contains(&"string") => self.text(text, schema, path),
            (Node::Int(number), t) if t.contains(&"integer") => self.number(*number, schema, path),
            (Node::Bool(_), t) if t.contains(&"boolean") => {}
            _ => self.wrong_type(node, schema, &types, path),
        }
    }

    fn map(&mut self, entries: &[(String, Node)], schema: &'static Value, path: &mut Vec<Step>) {
        static NONE: std::sync::LazyLock<serde_json::Map<String, Value>> = std::sync::LazyLock::new(serde_json::Map::new);
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&NONE);
        let others = schema.get("additionalProperties").filter(|a| a.is_object());
        let mut seen = std::collections::BTreeSet::new();
        for (key, value) in entries {
            if !seen.insert(key.as_str()) {
                continue;
            }
            path.push(Step::Key(key.clone()));
            match properties.get(key).or(others) {
                Some(of) => self.node(value, of, path),
                None => self.unknown_field(key, properties, path),
            }
            path.pop();
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for field in required.filter(|f| !seen.contains(f)) {
            let at = At { item: self.item, path: path.clone(), part: if path.is_empty() { Part::Value } else { Part::Key(0) } };
            let about = properties.get(field).and_then(|p| description(p));
            let mut fault = Fault::error(codes::MISSING_FIELD, at, format!("the field `{}` is missing", dotted(path, field)))
                .label(format!("expected `{field}` in here"));
            fault.hint = about.map(|a| format!("`{field}`: {a}"));
            self.faults.push(fault);
        }
    }

    fn unknown_field(&mut self, key: &str, properties: &serde_json::Map<String, Value>, path: &[Step]) {
        let at = At::key(self.item, path.to_vec());
        let whole = path_text(path);
        if self.kind != Kind::Secret && names_a_secret(key) {
            let fault = Fault::error(codes::INLINE_SECRET, at, format!("`{whole}`: credentials never stand in a {}", self.kind));
            self.faults.push(fault.label("not here").hint(
                "put it in a Secret and name that here: `secretRef: { name: ... }`; then change this one, for it may have been seen",
            ));
            return;
        }
        let meant = did_you_mean(key, properties.keys().map(String::as_str));
        let hint = match meant {
            // To YAML 1.1, that of kubectl, the key `on` is `true`.
            _ if matches!(key, "on" | "true") && properties.contains_key("interface") => {
                "its name is `interface`: `on` is a boolean to many YAML tools".to_owned()
            }
            Some(meant) => format!("did you mean `{meant}`?"),
            None if self.kind == Kind::Secret && path.len() == 1 => {
                "a Secret has `stringData` or `from` beside `metadata`, and its values under them".to_owned()
            }
            None if properties.is_empty() => "it has no fields".to_owned(),
            None => format!("the fields here are {}", listed(properties.keys().map(String::as_str))),
        };
        let fault = Fault::error(codes::UNKNOWN_FIELD, at, format!("a {} has no field `{whole}`", self.kind));
        self.faults.push(fault.label("unknown field").hint(hint));
    }

    fn hidden(&self, path: &[Step]) -> bool {
        let open = |key: &str| matches!(key, "apiVersion" | "kind" | "metadata");
        self.kind == Kind::Secret && !matches!(path.first(), Some(Step::Key(key)) if open(key))
    }

    /// The last key of a path, fit for a message.
    fn key(&self, key: &str, path: &[Step]) -> String {
        if self.hidden(path) && path.len() > 1 && !SECRET_KEYS.contains(&key) { "(hidden)".to_owned() } else { shown_key(key) }
    }

    fn found(&self, node: &Node, path: &[Step]) -> String {
        let hidden = self.hidden(path);
        match node {
            Node::Null => "nothing".to_owned(),
            Node::Bool(_) if hidden => "a boolean".to_owned(),
            Node::Int(_) | Node::Float(_) if hidden => "a number".to_owned(),
            Node::Text(_) if hidden => "a text".to_owned(),
            Node::Bool(b) => format!("the boolean {b}"),
            Node::Int(n) => format!("the number {n}"),
            Node::Float(n) => format!("the number {n}"),
            Node::Text(text) => format!("the text `{}`", shown(text)),
            Node::List(_) => "a list".to_owned(),
            Node::Map(_) => "a map".to_owned(),
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &Value, types: &[&str], path: &[Step]) {
        let name = |t: &&str| match *t {
            "object" => "a map",
            "array" => "a list",
            "integer" => "a whole number",
            "boolean" => "true or false",
            _ => "a text",
        };
        let expected: Vec<&str> = types.iter().filter(|t| **t != "null").map(name).collect();
        let label = format!("found {}, expected {}", self.found(node, path), expected.join(" or "));
        let message = format!("`{}` has the wrong type", path_text(path));
        let mut fault = Fault::error(codes::WRONG_TYPE, At::value(self.item, path.to_vec()), message).label(label);
        let scalar = matches!(node, Node::Int(_) | Node::Float(_) | Node::Bool(_));
        let is_period = schema.get("format").and_then(Value::as_str) == Some("period");
        fault.hint = match (node, types.first()) {
            (Node::Int(n), _) if is_period => Some(format!("say which unit: {n}s, {n}m or {n}h")),
            _ if scalar && types.contains(&"string") => Some("put it in quotes".to_owned()),
            (Node::Text(_), Some(&"integer")) if !self.hidden(path) => Some("write the number without quotes".to_owned()),
            (Node::Map(_) | Node::Text(_), Some(&"array")) => Some("a list is written `[ a, b ]` or with `- ` before each item".to_owned()),
            _ => example(schema),
        };
        self.faults.push(fault);
    }

    fn word(&mut self, node: &Node, words: &[&'static str], path: &[Step]) {
        let found = match node {
            Node::Text(text) if words.contains(&text.as_str()) => return,
            Node::Text(text) => Some(text.as_str()),
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::List(_) | Node::Map(_) => None,
        };
        let label = format!("found {}, expected {}", self.found(node, path), words.join(" or "));
        let at = At::value(self.item, path.to_vec());
        let mut fault = Fault::error(codes::BAD_VALUE, at, format!("`{}` cannot have this value", path_text(path))).label(label);
        fault.hint = found.and_then(|f| did_you_mean(f, words.iter().copied())).map(|m| format!("did you mean `{m}`?"));
        self.faults.push(fault);
    }

    fn number(&mut self, number: i128, schema: &Value, path: &[Step]) {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64).map(|n| n as i128);
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let most = bound("maximum").or(match format {
            "uint8" => Some(u8::MAX.into()),
            "uint16" => Some(u16::MAX.into()),
            "uint32" | "share" => Some(u32::MAX.into()),
            "uint64" => Some(u64::MAX.into()),
            _ => None,
        });
        let least = bound("minimum").or((format == "share").then_some(0));
        if least.is_none_or(|l| number >= l) && most.is_none_or(|m| number <= m) {
            return;
        }
        let (code, what) = if format == "vlan" { (codes::BAD_VLAN, "a VLAN id") } else { (codes::BAD_VALUE, "a number") };
        let expected = match (least, most) {
            (Some(l), Some(m)) => format!("{what} from {l} to {m}"),
            (Some(l), None) => format!("{what} from {l}"),
            (None, Some(m)) => format!("{what} up to {m}"),
            (None, None) => what.to_owned(),
        };
        let message = format!("`{}` is out of range", path_text(path));
        self.faults
            .push(Fault::error(code, At::value(self.item, path.to_vec()), message).label(format!("found {number}, expected {expected}")));
    }

    fn text(&mut self, text: &str, schema: &Value, path: &[Step]) {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let constant = schema.get("const").and_then(Value::as_str);
        let subnet = matches!(path.last(), Some(Step::Key(key)) if key == "subnet");
        let fault: Option<(&'static str, &str, String)> = match format {
            "name" => text.parse::<Name>().err().map(|e| (codes::BAD_NAME, "is not a name", e.to_string())),
            "image-name" => text.parse::<ImageName>().err().map(|e| (codes::BAD_IMAGE_NAME, "is not the name of an image", e.to_string())),
            "file-mode" => text.parse::<FileMode>().err().map(|e| (codes::BAD_VALUE, "are no permissions", e.to_string())),
            "mac" => text.parse::<Mac>().err().map(|e| (codes::BAD_MAC, "is not the MAC address of a NIC", e.to_string())),
            "host-port" => text.parse::<HostPort>().err().map(|e| (codes::BAD_ADDRESS, "is not an address", e.to_string())),
            "period" => text.parse::<Period>().err().map(|e| (codes::BAD_PERIOD, "is not a period", e.to_string())),
            "share" => text.parse::<Share>().err().map(|e| (codes::BAD_SHARE, "is not a share", e.to_string())),
            "bytes" => text.parse::<Bytes>().err().map(|e| (codes::BAD_MEMORY, "is not an amount of memory", e.to_string())),
            "ip" => text.parse::<std::net::IpAddr>().err().map(|_| {
                (
                    codes::BAD_ADDRESS,
                    "is not an IP address",
                    format!("found `{text}`, expected an IP address such as 10.1.20.1, without prefix length"),
                )
            }),
            "ipv4" => text.parse::<std::net::Ipv4Addr>().err().map(|_| {
                (codes::BAD_ADDRESS, "is not an IPv4 address", format!("found `{text}`, expected an IPv4 address such as 10.1.20.1"))
            }),
            "address-range" => text.parse::<AddressRange>().err().map(|e| (codes::BAD_ADDRESS, "is no range of addresses", e.to_string())),
            "cidr" => cidr(text, subnet)
                .map(|label| (codes::BAD_CIDR, if subnet { "is not a subnet" } else { "is not an address with prefix length" }, label)),
            _ => constant
                .filter(|c| *c != text)
                .map(|c| (codes::BAD_VALUE, "cannot have this value", format!("found `{text}`, expected `{c}`"))),
        };
        let Some((code, what, label)) = fault else { return };
        let at = At::value(self.item, path.to_vec());
        let label = label.replace(text, &shown(text));
        let mut fault = Fault::error(code, at, format!("`{}` {what}", path_text(path))).label(label);
        fault.hint = match format {
            "name" => suggest_name(text).map(|n| format!("`{n}` would be a name")),
            "cidr" => cidr_hint(text, subnet),
            _ => None,
        };
        self.faults.push(fault);
    }
}

/// The variant of an `anyOf` that the value is meant for: by its type. Nothing where null is allowed and found.
fn choose(node: &Node, choices: &'static [Value]) -> Option<&'static Value> {
    let is = |choice: &&'static Value, t: &str| schema::resolve(choice).get("type").and_then(Value::as_str) == Some(t);
    if *node == Node::Null && choices.iter().any(|c| is(&c, "null")) {
        return None;
    }
    let real: Vec<&'static Value> = choices.iter().filter(|c| !is(c, "null")).collect();
    let wanted = if matches!(node, Node::Map(_)) { real.iter().find(|c| is(c, "object")) } else { real.iter().find(|c| !is(c, "object")) };
    wanted.or(real.first()).copied()
}

/// The words of an enum, in the order of their declaration.
pub(super) fn words(schema: &'static Value) -> Option<Vec<&'static str>> {
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return Some(list.iter().filter_map(Value::as_str).collect());
    }
    let of = |v: &'static Value| match v.get("const") {
        Some(word) => word.as_str().into_iter().collect(),
        None => words(v).unwrap_or_default(),
    };
    schema.get("oneOf").and_then(Value::as_array).map(|variants| variants.iter().flat_map(of).collect())
}

fn description(schema: &'static Value) -> Option<&'static str> {
    let own = schema.get("description").or_else(|| schema::resolve(schema).get("description"));
    own.and_then(Value::as_str).and_then(|d| d.lines().next())
}

fn example(schema: &Value) -> Option<String> {
    schema.get("examples").and_then(Value::as_array).and_then(|e| e.first()).map(|e| format!("for example {e}"))
}

fn dotted(path: &[Step], field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{}.{field}", path_text(path)) }
}

fn cidr(text: &str, subnet: bool) -> Option<String> {
    match text.parse::<ipnet::IpNet>() {
        Ok(net) if subnet && net.addr() != net.network() => {
            Some(format!("found `{text}`, expected the bits behind /{} to be zero", net.prefix_len()))
        }
        Ok(_) => None,
        Err(_) if subnet => Some(format!("found `{text}`, expected a subnet such as 10.1.20.0/24")),
        Err(_) => Some(format!("found `{text}`, expected an address with its prefix length, such as 10.1.20.21/24")),
    }
}

fn cidr_hint(text: &str, subnet: bool) -> Option<String> {
    match text.parse::<ipnet::IpNet>() {
        Ok(net) if subnet => Some(format!("the subnet is `{}`", net.trunc())),
        Ok(_) => None,
        Err(_) => {
            text.parse::<std::net::IpAddr>().ok().map(|ip| format!("add the prefix length: `{ip}/{}`", if ip.is_ipv4() { 24 } else { 64 }))
        }
    }
}

fn suggest_name(text: &str) -> Option<Name> {
    let lower: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    lower.trim_matches(['-', '.']).parse().ok()
}
