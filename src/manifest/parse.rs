//! The text of files to items: one for each object, faulty ones too, with what can be known of them.
//!
//! Leaves out: reading files (`source`), meaning (`validate`, `lint`). Invariant: an item whose kind and name read exists for the
//! references of others, whatever else is wrong with it.

use super::codes;
use super::diagnostic::{Diagnostic, Place, Severity, Spot, Veil, escaped, last_key, names_a_secret, shown};
use super::fault::{At, Fault, did_you_mean};
use super::foreign;
use super::scan::{Mark, Scan, scan};
use super::shape::Shape;
use super::source::{Content, Source};
use super::yaml::{self, Document, Node, Part, Step};
use crate::limits;
use crate::model::kind::{API_VERSION, KINDS};
use crate::model::{Kind, Name, Object};

/// Where an item stands.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub file: &'a str,
    pub text: &'a str,
    pub document: Document<'a>,
    /// This document or one beside it mentions secrets: a stray `---` may have cut one in two.
    pub near_secret: bool,
}

impl Origin<'_> {
    /// What of its lines must not be seen where it is not certain what they belong to.
    pub(super) fn veil(&self) -> Veil {
        if self.near_secret { Veil::Everything } else { Veil::SecretKeys }
    }
}

pub(super) struct Item<'a> {
    pub origin: Origin<'a>,
    /// From the document to the object: not empty within a `kind: List`.
    pub base: Vec<Step>,
    pub kind: Option<Kind>,
    pub name: Option<Name>,
    /// Nothing where too little of it reads; without the faulty fields where `whole` is false.
    pub object: Option<Object>,
    /// Without a fault of form.
    pub whole: bool,
}

#[derive(Default)]
pub(super) struct Parsed<'a> {
    pub items: Vec<Item<'a>>,
    /// Faults of items.
    pub faults: Vec<Fault>,
    /// Faults of files and documents.
    pub diagnostics: Vec<Diagnostic>,
    /// There were more objects than one apply takes, and that is said.
    full: bool,
    /// Documents whose objects are not known.
    pub lost: Vec<&'a str>,
    /// Files of other tools.
    pub skipped: Vec<String>,
}

pub(super) fn parse(sources: &[Source]) -> Parsed<'_> {
    let mut parsed = Parsed::default();
    for source in sources {
        match &source.content {
            Content::Text(text) if source.found && foreign::is_foreign(text) => parsed.skip(&source.name),
            Content::Text(text) => parsed.file(&source.name, text.strip_prefix('\u{feff}').unwrap_or(text)),
            Content::Unreadable { why, hint } => {
                let place = Place { spot: Some(Spot::of_file(&source.name)), ..Place::default() };
                parsed.refuse(codes::FILE_UNREADABLE, place, format!("`{}` cannot be read: {}", shown(&source.name), shown(why)), hint);
            }
            Content::TooLarge { bytes } => {
                let place = Place { spot: Some(Spot::of_file(&source.name)), ..Place::default() };
                let message = format!("`{}` has more than {} bytes", shown(&source.name), limits::MANIFEST_BYTES.min(*bytes));
                parsed.refuse(codes::FILE_TOO_LARGE, place, message, "split it into several files, and apply their directory");
            }
        }
    }
    parsed
}

impl<'a> Parsed<'a> {
    fn refuse(&mut self, code: &'static str, place: Place, message: String, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let place = Some(place);
        self.diagnostics.push(Diagnostic { severity: Severity::Error, code, message, label: None, place, also: Vec::new(), hint });
    }

    fn skip(&mut self, file: &str) {
        let place = Place { spot: Some(Spot::of_file(file)), ..Place::default() };
        let message = format!("`{}` holds no object of embody's, and is left out", shown(file));
        self.refuse(codes::FOREIGN_FILE, place, message, "name it in .embodyignore, and nothing is said of it");
        if let Some(last) = self.diagnostics.last_mut() {
            last.severity = Severity::Warning;
        }
        self.skipped.push(escaped(file));
    }

    fn file(&mut self, file: &'a str, text: &'a str) {
        let documents = yaml::documents(text);
        let mentions: Vec<bool> = documents.iter().map(|d| mentions_secret(d.text)).collect();
        let near = |i: usize| mentions[i.saturating_sub(1)..mentions.len().min(i + 2)].contains(&true);
        let origins: Vec<Origin<'a>> =
            documents.into_iter().enumerate().map(|(i, document)| Origin { file, text, document, near_secret: near(i) }).collect();
        let veil = |at: Mark| match origins.iter().rev().find(|o| o.document.lines_before < at.line) {
            Some(origin) if !mentions_secret(origin.document.text) => Veil::SecretKeys,
            Some(_) | None => Veil::Everything,
        };
        let place = |at: Mark| Place { spot: Some(Spot::new(file, text, at, veil(at))), ..Place::default() };
        let found: Scan = scan(text);
        if let Some(at) = found.too_deep {
            let message = format!("the document nests deeper than {} levels", limits::MANIFEST_DEPTH);
            self.refuse(codes::TOO_DEEP, place(at), message, "no manifest needs that: look for brackets that are not closed");
        }
        if let Some(at) = found.alias {
            self.refuse(codes::ALIAS_REFUSED, place(at), "aliases are not read".to_owned(), "write the value out here");
        }
        if found.too_deep.is_some() || found.alias.is_some() {
            self.lost.push(text);
            return;
        }
        for word in found.words {
            let mut message = format!("other YAML tools read the plain word `{}` as {}", word.text, word.reads_as);
            if veil(word.at) != Veil::SecretKeys {
                message = format!("other YAML tools read this plain word as {}", word.reads_as);
            }
            let code = if word.reads_as == "a boolean" { codes::BOOLEAN_WORD } else { codes::NUMBER_WORD };
            let hint = match code {
                codes::BOOLEAN_WORD => "put it in quotes; where a boolean is meant, write true or false",
                _ => "put it in quotes",
            };
            self.refuse(code, place(word.at), message, hint);
            if let Some(last) = self.diagnostics.last_mut() {
                last.severity = Severity::Warning;
            }
        }
        for origin in origins {
            let document = origin.document;
            match document.parse() {
                Ok(node) => self.document(origin, &node),
                Err(error) => {
                    self.lost.push(document.text);
                    self.syntax(origin, error);
                }
            }
        }
    }

    fn syntax(&mut self, origin: Origin<'a>, error: yaml::Syntax) {
        let veil = origin.veil();
        if self.diagnostics.len() >= limits::DIAGNOSTICS {
            let place = Place { spot: Some(Spot::of_file(origin.file)), ..Place::default() };
            return self.refuse(codes::YAML_SYNTAX, place, "another document is not YAML".to_owned(), "");
        }
        let place = |at: Mark| Place { spot: Some(Spot::new(origin.file, origin.text, at, veil)), ..Place::default() };
        let (message, hint) = readable(&error.message, origin.text.lines().nth(error.at.line.saturating_sub(1)).unwrap_or_default());
        self.refuse(codes::YAML_SYNTAX, place(error.at), message, hint);
        if let (Some((what, at)), Some(last)) = (error.within, self.diagnostics.last_mut()) {
            last.also
                .push((format!("the start of what was being read ({})", what.replace("parsing ", "").replace("scanning ", "")), place(at)));
        }
    }

    fn document(&mut self, origin: Origin<'a>, node: &Node) {
        let is_list = node.get("kind").and_then(Node::text) == Some("List");
        match (node, node.get("items")) {
            (Node::Null, _) => {}
            (_, Some(Node::List(items))) if is_list => {
                for (index, item) in items.iter().enumerate() {
                    self.item(origin, vec!["items".into(), index.into()], item);
                }
            }
            _ => self.item(origin, Vec::new(), node),
        }
    }

    fn item(&mut self, origin: Origin<'a>, base: Vec<Step>, node: &Node) {
        if self.items.len() == limits::MANIFEST_OBJECTS && !std::mem::replace(&mut self.full, true) {
            let at = origin.document.locate(&base, Part::Value);
            let place = Place { spot: Some(Spot::new(origin.file, origin.text, at, Veil::Values)), ..Place::default() };
            let message = format!("one apply takes at most {} objects", limits::MANIFEST_OBJECTS);
            self.refuse(codes::TOO_MANY_OBJECTS, place, message, "apply them in several parts");
        }
        if self.items.len() >= limits::MANIFEST_OBJECTS {
            return;
        }
        let Judged { kind, name, object, whole, faults } = judge(self.items.len(), node);
        self.faults.extend(faults);
        if kind.is_none() || name.is_none() {
            self.lost.push(origin.document.text);
        }
        self.items.push(Item { origin, base, kind, name, whole, object });
    }
}

/// One object by its form.
pub(super) struct Judged {
    pub kind: Option<Kind>,
    pub name: Option<Name>,
    pub object: Option<Object>,
    pub whole: bool,
    pub faults: Vec<Fault>,
}

pub(super) fn judge(index: usize, node: &Node) -> Judged {
    let kind = node.get("kind").and_then(Node::text).and_then(|text| KINDS.into_iter().find(|k| k.singular() == text));
    let name = node.get("metadata").and_then(|m| m.get("name")).and_then(Node::text).and_then(|n| n.parse().ok());
    let mut faults = Vec::new();
    match kind {
        Some(kind) => {
            let mut shape = Shape { item: index, kind, faults: Vec::new() };
            shape.check(node);
            let version_at = vec![Step::from("apiVersion")];
            shape.faults.retain(|f| f.at.path != version_at || f.code == codes::DUPLICATE_KEY);
            if node.get("apiVersion").is_some_and(|v| v.text() != Some(API_VERSION)) {
                let fault = Fault::error(codes::WRONG_API_VERSION, At::value(index, version_at), "this version of the schema is not known");
                faults.push(fault.label(format!("expected `{API_VERSION}`")).hint(format!("write `apiVersion: {API_VERSION}`")));
            }
            faults.extend(shape.faults);
        }
        None => faults.push(no_kind(index, node)),
    }
    let sound = faults.is_empty();
    let object = kind.and_then(|_| typed(node, &faults));
    if sound && object.is_none() {
        let fault = Fault::error(codes::BAD_VALUE, At::value(index, Vec::new()), "the object does not read");
        faults.push(fault.hint("compare it with `explain`"));
    }
    Judged { kind, name, whole: sound && object.is_some(), object, faults }
}

/// Whether lines of this document may hold values of secrets: told by its text, as it may not parse.
fn mentions_secret(text: &str) -> bool {
    let key = |before: &str| names_a_secret(last_key(before));
    let says_so = |l: &str| l.contains("kind") && l.to_ascii_lowercase().contains("secr");
    text.lines().any(|l| says_so(l) || l.match_indices(':').any(|(at, _)| key(&l[..at])))
}

fn no_kind(item: usize, node: &Node) -> Fault {
    if !matches!(node, Node::Map(_)) {
        let fault = Fault::error(codes::NOT_AN_OBJECT, At::value(item, Vec::new()), "the document is not an object");
        return fault.label("expected a map with apiVersion, kind, metadata and spec");
    }
    match node.get("kind") {
        None => Fault::error(codes::MISSING_FIELD, At::value(item, Vec::new()), "the field `kind` is missing")
            .label("expected `kind` in here")
            .hint(format!("the kinds are {}", KINDS.map(Kind::singular).join(", "))),
        Some(found) => {
            let text = found.text().unwrap_or_default();
            let meant = did_you_mean(text, KINDS.iter().map(|k| k.singular())).map(|m| format!("did you mean `{m}`?"));
            let hint = meant.unwrap_or_else(|| format!("the kinds are {}", KINDS.map(Kind::singular).join(", ")));
            let fault =
                Fault::error(codes::UNKNOWN_KIND, At::value(item, vec!["kind".into()]), format!("the kind `{}` is not known", shown(text)));
            fault.label("unknown kind").hint(hint)
        }
    }
}

/// The object, without the fields that are at fault: cut where the fault is, and further up until the rest deserialises.
fn typed(node: &Node, faults: &[Fault]) -> Option<Object> {
    let json = node.to_json();
    let mut cuts: Vec<Vec<Step>> = faults.iter().map(|f| f.at.path.clone()).collect();
    loop {
        let mut sound = json.clone();
        if sound.get("apiVersion").is_some() {
            sound["apiVersion"] = API_VERSION.into();
        }
        for cut in &cuts {
            remove(&mut sound, cut);
        }
        if let Ok(object) = Object::from_json(sound) {
            return Some(object);
        }
        cuts.retain_mut(|cut| {
            cut.pop();
            // Metadata and spec as a whole cannot be done without.
            cut.len() > 1
        });
        if cuts.is_empty() {
            return None;
        }
    }
}

fn remove(json: &mut serde_json::Value, path: &[Step]) {
    let Some((Step::Key(last), parents)) = path.split_last() else { return };
    let mut at = json;
    for step in parents {
        let next = match step {
            Step::Key(key) => at.get_mut(key),
            Step::Index(index) => at.get_mut(index),
        };
        let Some(next) = next else { return };
        at = next;
    }
    if let Some(map) = at.as_object_mut() {
        map.remove(last);
    }
}

/// The parser's words in ours, and what to do.
fn readable(message: &str, line: &str) -> (String, &'static str) {
    let tab = line.trim_start_matches(' ').starts_with('\t');
    // Texts of libyaml's scanner.c and parser.c.
    let (text, hint) = match message {
        m if tab || m.contains("cannot start any token") && line.contains('\t') => {
            ("a tab stands where YAML expects spaces", "indent with spaces")
        }
        m if m.contains("cannot start any token") => ("a character stands here that no plain value begins with", "put the value in quotes"),
        m if m.contains("mapping values are not allowed") => {
            ("a `:` stands where no key can be", "is the line indented as its neighbours are? A value that contains `: ` goes in quotes")
        }
        m if m.contains("did not find expected key") => {
            ("no key stands where one is expected", "indent the line as its neighbours are; close quotes and brackets before it")
        }
        m if m.contains("did not find expected '-' indicator") => {
            ("no `- ` stands where the list goes on", "indent the items of a list alike")
        }
        m if m.contains("did not find expected ',' or") => {
            ("a bracket is not closed, or a comma is missing", "look at the lines before it")
        }
        m if m.contains("could not find expected ':'") => ("a `:` is missing behind a key", "write `key: value`, with a space"),
        m if m.contains("unexpected end of stream") => ("the text ends within quotes", "close the quotes"),
        m if m.contains("block sequence entries are not allowed") => ("a list cannot begin here", "begin it on a line of its own"),
        m if m.contains(yaml::NO_TAGS) => ("tags (`!name`) are not read", "leave the tag out; text that begins with `!` goes in quotes"),
        m if m.contains(yaml::NO_KEY) => ("a list or a map cannot be a key", "does a value in braces lack its quotes?"),
        m if m.contains("recursion limit") => ("the document nests too deeply", "look for brackets that are not closed"),
        m if m.contains("unknown anchor") => ("aliases are not read", "write the value out here"),
        m => return (format!("this is not YAML: {}", shown(m)), ""),
    };
    (text.to_owned(), hint)
}
