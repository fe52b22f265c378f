//! Label selectors as kubectl writes them: `a=b,c!=d,e in (x,y),f notin (x),g,!h`; and field selectors, `spec.persona=web,status.power!=On`.
//!
//! Invariant: a selector that does not read is an error, never "all". Shown by the tests below.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found label selector `{found}`, expected such as a=b,c!=d,e in (x,y),f,!g")]
pub(crate) struct BadSelector {
    pub found: String,
}

/// All terms must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LabelSelector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

impl LabelSelector {
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Term::Exists(key) => labels.contains_key(key),
            Term::Absent(key) => !labels.contains_key(key),
        })
    }

    /// The plain `key=value` terms, where there are no others.
    pub(crate) fn equalities(&self) -> Option<BTreeMap<String, String>> {
        let one = |term: &Term| match term {
            Term::In(key, values) if values.len() == 1 => values.first().map(|v| (key.clone(), v.clone())),
            Term::In(..) | Term::NotIn(..) | Term::Exists(_) | Term::Absent(_) => None,
        };
        self.0.iter().map(one).collect()
    }
}

/// Fields of an object by their values, as they are shown. All terms must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FieldSelector(Vec<FieldTerm>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    /// A JSON pointer.
    pointer: String,
    value: String,
    is: bool,
}

const NAME: &str = "/metadata/name";

impl FieldSelector {
    /// `fields`: those that may be asked for.
    pub(crate) fn parse(text: &str, fields: &[&str]) -> Result<FieldSelector, BadFieldSelector> {
        let term = |text: &str| {
            let (path, value, is) = match text.split_once("!=") {
                Some((path, value)) => (path, value, false),
                None => text.split_once("==").or_else(|| text.split_once('=')).map(|(path, value)| (path, value, true))?,
            };
            let is_known = path == "metadata.name" || fields.contains(&path);
            is_known.then(|| FieldTerm { pointer: format!("/{}", path.replace('.', "/")), value: value.to_owned(), is })
        };
        let bad = || BadFieldSelector {
            found: text.to_owned(),
            expected: ["metadata.name"].iter().chain(fields).copied().collect::<Vec<_>>().join(", "),
        };
        let terms = text.split(',').filter(|one| !one.is_empty()).map(|one| term(one).ok_or_else(bad));
        terms.collect::<Result<_, _>>().map(FieldSelector)
    }

    /// Whether an object of this name can be in it.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.0.iter().filter(|term| term.pointer == NAME).all(|term| (term.value == name) == term.is)
    }

    /// Whether more of an object has to be known than its name.
    pub(crate) fn reads_more(&self) -> bool {
        self.0.iter().any(|term| term.pointer != NAME)
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let shown = |pointer: &str| match object.pointer(pointer) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        self.0.iter().all(|term| (shown(&term.pointer) == term.value) == term.is)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found field selector `{found}`, expected FIELD=VALUE or FIELD!=VALUE with one of {expected}")]
pub(crate) struct BadFieldSelector {
    pub found: String,
    pub expected: String,
}

impl std::str::FromStr for LabelSelector {
    type Err = BadSelector;
    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let bad = || BadSelector { found: text.to_owned() };
        if text.trim().is_empty() {
            return Ok(LabelSelector::default());
        }
        split(text).into_iter().map(|part| term(part.trim()).ok_or_else(bad)).collect::<Result<_, _>>().map(LabelSelector)
    }
}

/// At commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!text.is_empty() && text.chars().all(good)).then(|| text.to_owned())
}

fn value(text: &str) -> Option<String> {
    if text.trim().is_empty() { Some(String::new()) } else { word(text) }
}

fn term(text: &str) -> Option<Term> {
    let set = |values: &str| values.trim().strip_prefix('(')?.strip_suffix(')')?.split(',').map(value).collect::<Option<BTreeSet<_>>>();
    if let Some(key) = text.strip_prefix('!') {
        return word(key).map(Term::Absent);
    }
    if let Some((key, values)) = text.split_once(" notin ") {
        return Some(Term::NotIn(word(key)?, set(values)?));
    }
    if let Some((key, values)) = text.split_once(" in ") {
        return Some(Term::In(word(key)?, set(values)?));
    }
    if let Some((key, v)) = text.split_once("!=") {
        return Some(Term::NotIn(word(key)?, BTreeSet::from([value(v)?])));
    }
    if let Some((key, v)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Term::In(word(key)?, BTreeSet::from([value(v)?])));
    }
    word(text).map(Term::Exists)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_those_that_are_shown() {
        let object = json!({ "metadata": { "name": "a" }, "spec": { "vlan": 7, "gone": null }, "status": { "power": "On" } });
        let fields = ["spec.vlan", "spec.gone", "status.power"];
        for (text, hit) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("spec.vlan=7,status.power==On", true),
            ("spec.vlan=7,status.power!=On", false),
            ("spec.gone=", true),
        ] {
            let selector = FieldSelector::parse(text, &fields).unwrap();
            assert_eq!(selector.matches(&object), hit, "{text}");
        }
        for bad in ["spec.other=1", "spec.vlan", "spec=x", "metadata.uid=1"] {
            assert!(FieldSelector::parse(bad, &fields).is_err(), "{bad}");
        }
    }

    #[test]
    fn selectors_match_as_kubectl_means_them() {
        let labels = BTreeMap::from([("rack".to_owned(), "r7".to_owned()), ("tier".to_owned(), "web".to_owned())]);
        for (text, hit) in [
            ("", true),
            ("rack=r7", true),
            ("rack==r7,tier=web", true),
            ("rack!=r7", false),
            ("pool!=x", true),
            ("rack in (r6, r7),tier", true),
            ("rack notin (r7)", false),
            ("!rack", false),
            ("!pool", true),
        ] {
            assert_eq!(text.parse::<LabelSelector>().map(|s| s.matches(&labels)), Ok(hit), "{text}");
        }
        for bad in [",", "a=b,", "a b", "a in x", "=b", "!", "a=b=c"] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad}");
        }
    }
}
