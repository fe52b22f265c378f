//! A fault before its place in a file is looked up: which object, which path.

use super::diagnostic::Severity;
use super::yaml::{Part, Step};

/// A place within one of the objects that are judged together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    /// Index among the objects.
    pub item: usize,
    pub path: Vec<Step>,
    pub part: Part,
}

#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
    pub label: Option<String>,
    pub at: At,
    pub also: Vec<(String, At)>,
    pub hint: Option<String>,
}

/// `steps!["spec", "nics", 2, "port"]`
macro_rules! steps {
    ($($step:expr),* $(,)?) => { vec![$($crate::manifest::yaml::Step::from($step)),*] };
}
pub(crate) use steps;

impl At {
    pub(super) fn value(item: usize, path: Vec<Step>) -> At {
        At { item, path, part: Part::Value }
    }
    pub(super) fn key(item: usize, path: Vec<Step>) -> At {
        At { item, path, part: Part::Key(0) }
    }
}

impl Fault {
    pub(super) fn error(code: &'static str, at: At, message: impl Into<String>) -> Fault {
        Fault { severity: Severity::Error, code, message: message.into(), label: None, at, also: Vec::new(), hint: None }
    }
    pub(super) fn warning(code: &'static str, at: At, message: impl Into<String>) -> Fault {
        Fault { severity: Severity::Warning, ..Fault::error(code, at, message) }
    }
    pub(super) fn label(mut self, label: impl Into<String>) -> Fault {
        self.label = Some(label.into());
        self
    }
    pub(super) fn also(mut self, what: impl Into<String>, at: At) -> Fault {
        self.also.push((what.into(), at));
        self
    }
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

/// `spec.nics[2].port`
pub(super) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        let key = match step {
            Step::Index(index) => {
                text.push_str(&format!("[{index}]"));
                continue;
            }
            // With a space forgotten, `{ password:"x" }` makes a key of the value.
            Step::Key(key) if text.starts_with("stringData") && !SECRET_KEYS.contains(&key.as_str()) => "(hidden)".to_owned(),
            Step::Key(key) => shown_key(key),
        };
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&key);
    }
    text
}

/// The keys that a Secret can have.
pub(super) const SECRET_KEYS: [&str; 8] =
    ["username", "password", "kg", "community", "authProtocol", "authPassword", "privProtocol", "privPassword"];

/// A key, up to the first character that a key of ours cannot have.
pub(super) fn shown_key(key: &str) -> String {
    let end = key.find([':', '"', '\'', '=', ' ']).unwrap_or(key.len());
    let cut = if end < key.len() { "…" } else { "" };
    format!("{}{cut}", super::diagnostic::shown(&key[..end]))
}

/// The nearest of `known` to a misspelt word, where one is near enough to be meant.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let far = (word.chars().count() / 3).max(1);
    let distance = |k: &str| strsim::damerau_levenshtein(&word, &k.to_lowercase());
    known.into_iter().map(|k| (distance(k), k)).filter(|(d, _)| *d <= far).min().map(|(_, k)| k)
}

/// `a`, `b` and `c`, at most ten of them.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|w| format!("`{}`", super::diagnostic::shown(w))).collect();
    let more = words.len().saturating_sub(10);
    words.truncate(10);
    match more {
        0 => words.join(", "),
        n => format!("{} and {n} more", words.join(", ")),
    }
}
