//! The only module that knows the YAML library: documents into values with every key kept, a place in a document into line and column,
//! and JSON back into YAML that YAML 1.1 tools read alike.
//!
//! Leaves out: what a document means. Positions come from a second walk along the path that stops at the place: the library tells the
//! position of an error only. Invariant: nothing here panics on any text; `tests/manifest.rs` mutates files to show it.

use std::fmt;

use serde::de::{DeserializeSeed, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::scan::Mark;

/// A YAML value. Maps keep the order and the duplicates of their keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Step {
        Step::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Step {
        Step::Index(index)
    }
}

/// What of the last step is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Value,
    /// The key itself, the nth of that name, from 0.
    Key(usize),
}

/// One document of a file: its text, and how many lines stand before it.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    pub text: &'a str,
    pub lines_before: usize,
}

/// The text does not read as YAML.
#[derive(Debug)]
pub struct Syntax {
    pub message: String,
    pub at: Mark,
    /// What the parser was in the middle of, and where that began.
    pub within: Option<(String, Mark)>,
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Splits at document markers. YAML forbids `---` and `...` at the beginning of a line inside any scalar, so text lines are enough.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let marks =
        |line: &str, mark| line.strip_prefix(mark).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with(char::is_whitespace));
    let (mut found, mut start, mut lines_before, mut at) = (Vec::new(), 0, 0, 0);
    let mut began = true;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // A byte order mark may begin each document (YAML 1.2.2, 5.2); files that are joined have it behind the marker, too.
        let bare = line.trim_start_matches(BYTE_ORDER_MARK);
        let end = marks(bare, "...");
        if end || marks(bare, "---") {
            found.push(Document { text: &text[start..at], lines_before });
            (start, lines_before) = if end { (at + line.len(), number + 1) } else { (at + line.len() - bare.len(), number) };
        } else if began && bare.len() < line.len() {
            (start, lines_before) = (at + line.len() - bare.len(), number);
        }
        began = (end || marks(bare, "---")) && bare.trim_end().len() == 3;
        at += line.len();
    }
    found.push(Document { text: &text[start..], lines_before });
    let says_something = |l: &str| !(l.trim().is_empty() || l.trim_start().starts_with('#') || l.starts_with('%'));
    found.retain(|d| d.text.lines().any(says_something));
    found
}

impl Document<'_> {
    pub fn parse(&self) -> Result<Node, Syntax> {
        serde_yaml::from_str(self.text).map_err(|e| self.syntax(&e))
    }

    /// Where the place is; the nearest enclosing one that exists.
    pub fn locate(&self, path: &[Step], part: Part) -> Mark {
        for length in (0..=path.len()).rev() {
            let part = if length == path.len() { part } else { Part::Value };
            let walk = Walk { path: &path[..length], part };
            let end = walk.deserialize(serde_yaml::Deserializer::from_str(self.text)).err().filter(|e| e.to_string().contains(FOUND));
            if let Some(at) = end.and_then(|e| e.location()) {
                return self.mark(at.line(), at.column());
            }
        }
        Mark { line: self.lines_before + 1, column: 1 }
    }

    /// Where a place of the library's stands for people. It ends lines at CR, NEL, LS and PS as well (YAML 1.1), which editors do not, and the rest of
    /// this module does not either.
    fn mark(&self, line: usize, column: usize) -> Mark {
        let (mut theirs, mut ours) = ((1, 1), (1, 1));
        let mut rest = self.text.chars().peekable();
        while theirs < (line, column)
            && let Some(c) = rest.next()
        {
            let next = |at: (usize, usize), ends: bool| if ends { (at.0 + 1, 1) } else { (at.0, at.1 + 1) };
            let ends = matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}') || c == '\r' && rest.peek() != Some(&'\n');
            (theirs, ours) = (next(theirs, ends), next(ours, c == '\n'));
        }
        Mark { line: ours.0 + self.lines_before, column: ours.1 }
    }

    /// The library's text is `problem at line 3 column 2, while parsing X at line 1 column 1`.
    fn syntax(&self, error: &serde_yaml::Error) -> Syntax {
        let text = error.to_string();
        let at = error.location().map_or_else(|| self.mark(1, 1), |l| self.mark(l.line(), l.column()));
        let (problem, context) = text.split_once(", while ").map_or((text.as_str(), None), |(p, c)| (p, Some(c)));
        let plain = |t: &str| t.split(" at line ").next().unwrap_or(t).split(" at position ").next().unwrap_or(t).to_owned();
        let within =
            context.and_then(|c| c.split_once(" at line ").map(|(what, place)| (what.to_owned(), place))).and_then(|(what, place)| {
                let (line, column) = place.split_once(" column ")?;
                Some((what, self.mark(line.parse().ok()?, column.parse().ok()?)))
            });
        Syntax { message: plain(problem), at, within }
    }
}

/// Refused here, in words that `parse` makes readable.
pub(super) const NO_TAGS: &str = "tags are not read";
pub(super) const NO_KEY: &str = "neither a list nor a map can be a key";

/// In the error that marks the end of a walk; no error of the library contains it.
const FOUND: &str = "\u{1}here";

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Node, D::Error> {
        from.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Node;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Int(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Int(v.into()))
    }
    fn visit_i128<E>(self, v: i128) -> Result<Node, E> {
        Ok(Node::Int(v))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        Ok(Node::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Text(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Node>()? {
            let Some(key) = key.key_text() else { return Err(A::Error::custom(NO_KEY)) };
            entries.push((key, map.next_value()?));
        }
        Ok(Node::Map(entries))
    }
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom(NO_TAGS))
    }
}

impl Node {
    fn key_text(&self) -> Option<String> {
        match self {
            Node::Null => Some("null".to_owned()),
            Node::Bool(b) => Some(b.to_string()),
            Node::Int(n) => Some(n.to_string()),
            Node::Float(n) => Some(n.to_string()),
            Node::Text(text) => Some(text.clone()),
            Node::List(_) | Node::Map(_) => None,
        }
    }

    /// The first entry of that key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Text(_) | Node::List(_) => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        if let Node::Text(text) = self { Some(text) } else { None }
    }

    pub fn from_json(json: &serde_json::Value) -> Node {
        use serde_json::Value;
        match json {
            Value::Null => Node::Null,
            Value::Bool(b) => Node::Bool(*b),
            Value::Number(n) => n.as_i128().map(Node::Int).or_else(|| n.as_f64().map(Node::Float)).unwrap_or(Node::Null),
            Value::String(text) => Node::Text(text.clone()),
            Value::Array(items) => Node::List(items.iter().map(Node::from_json).collect()),
            Value::Object(map) => Node::Map(map.iter().map(|(k, v)| (k.clone(), Node::from_json(v))).collect()),
        }
    }

    /// As JSON; the first of duplicate keys counts.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Map, Number, Value};
        match self {
            Node::Null => Value::Null,
            Node::Bool(b) => Value::Bool(*b),
            Node::Int(n) => Number::from_i128(*n).map_or(Value::Null, Value::Number),
            Node::Float(n) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
            Node::Text(text) => Value::String(text.clone()),
            Node::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    map.entry(key.clone()).or_insert_with(|| value.to_json());
                }
                Value::Object(map)
            }
        }
    }
}

/// Follows the path and fails at its end: the library then tells where that is.
struct Walk<'a> {
    path: &'a [Step],
    part: Part,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl Walk<'_> {
    fn end<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.end()
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.end()
    }
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.end()
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.end()
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.end()
    }
    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<(), E> {
        self.end()
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.end()
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.end()
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.end()?;
        let Some((Step::Index(wanted), rest)) = self.path.split_first() else { return Ok(()) };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Walk { path: rest, part: self.part })?;
        Err(A::Error::custom("the path ends before"))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.end()?;
        let Some((Step::Key(wanted), rest)) = self.path.split_first() else { return Ok(()) };
        let nth = match self.part {
            Part::Key(nth) if rest.is_empty() => Some(nth),
            Part::Key(_) | Part::Value => None,
        };
        let mut count = 0;
        while let Some(hit) = map.next_key_seed(KeyWalk { wanted, stop: nth == Some(count) })? {
            if hit && nth.is_none() {
                map.next_value_seed(Walk { path: rest, part: self.part })?;
                return Err(A::Error::custom("the path ends before"));
            }
            count += usize::from(hit);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

struct KeyWalk<'a> {
    wanted: &'a str,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for KeyWalk<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl KeyWalk<'_> {
    fn is<E: serde::de::Error>(&self, key: &str) -> Result<bool, E> {
        if key != self.wanted {
            return Ok(false);
        }
        if self.stop { Err(E::custom(FOUND)) } else { Ok(true) }
    }
}

impl<'de> Visitor<'de> for KeyWalk<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<bool, E> {
        self.is("null")
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<bool, E> {
        self.is(&v.to_string())
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<bool, E> {
        self.is(&v.to_string())
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<bool, E> {
        self.is(&v.to_string())
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<bool, E> {
        self.is(&v.to_string())
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<bool, E> {
        self.is(v)
    }
}
