//! Text to objects: manifests are read, every fault of the whole set is found and shown with its place, and only sound sets come out.
//!
//! The way: `source` reads, `scan` and `yaml` parse, `parse` makes items of documents and holds each against the schema (`shape`),
//! `validate` judges one object, `lint` all of them, and here each fault gets its place. To add a rule: a code in `codes`, a function in
//! `validate` or `lint`, a golden test in `tests/golden/manifest`.
//!
//! Leaves out: storing, sending, deciding. Reading files and stdin happens in `source`; all the rest is pure.
//! Invariant: `load` and `check` never panic on any input, and no value of a Secret appears in a diagnostic. `tests/manifest.rs` shows it.

pub(crate) mod codes;
pub(crate) mod diagnostic;
mod explain;
mod fault;
mod files;
mod foreign;
mod ignore;
mod lint;
mod parse;
mod scan;
pub(crate) mod schema;
mod shape;
pub(crate) mod source;
mod validate;
pub(crate) mod wiring;
pub(crate) mod yaml;

pub use diagnostic::{Diagnostic, Severity};
pub(crate) use diagnostic::{Place, Spot, escaped, harmful, render};
pub(crate) use source::Survey;
pub use source::{Content, Source, read};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Kind, Name, Object};
use diagnostic::Veil;
use fault::{At, Fault, path_text};
use lint::Known;
use parse::{Item, Parsed};

/// What a file set holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The sound objects, in the order of `Kind` (what others refer to first) and then of the files. To be used only without errors.
    pub objects: Vec<Object>,
    /// In the order of the files and their lines.
    pub diagnostics: Vec<Diagnostic>,
    /// How many files were read.
    pub files: usize,
    /// Of those, the ones of other tools.
    pub skipped: Vec<String>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// All diagnostics for people; empty where there are none.
    pub fn render(&self, colour: bool) -> String {
        render(&self.diagnostics, self.files, colour)
    }
}

/// Reads and judges a file set, laid over the objects that exist already (none: references are resolved within the files).
pub fn load(sources: &[Source], existing: &[Arc<Object>]) -> Loaded {
    let Parsed { items, faults, mut diagnostics, lost, skipped, .. } = parse::parse(sources);
    let mut known: Vec<Option<Known<'_>>> = items.iter().map(of_file).collect();
    known.extend(existing.iter().map(|o| Some(of_object(o, false))));
    let names: Vec<Option<(Kind, &Name)>> = known.iter().map(|k| k.as_ref().map(|k| (k.kind, k.name))).collect();
    let mut all = faults;
    all.extend(lint::judge(&known, &lost));
    // Looking up a place is a walk through its document: only what can be shown is looked up.
    all.sort_by(|a, b| a.severity.cmp(&b.severity).then_with(|| a.at.cmp(&b.at)));
    let placed = crate::limits::DIAGNOSTICS;
    for (count, fault) in all.into_iter().enumerate() {
        diagnostics.push(diagnose(fault, &|at| if count < placed { place(at, &items, &names) } else { unplaced(at, &names) }));
    }
    let files: BTreeMap<String, usize> = sources.iter().enumerate().rev().map(|(i, f)| (diagnostic::escaped(&f.name), i)).collect();
    diagnostics.sort_by_cached_key(|d| {
        let spot = d.place.as_ref().and_then(|p| p.spot.as_ref());
        // What has no place in a file comes last.
        let file = spot.and_then(|s| files.get(&s.file)).copied().unwrap_or(usize::MAX);
        (file, spot.map(|s| (s.line, s.column)), d.severity)
    });
    let mut objects: Vec<Object> = items.into_iter().filter(|i| i.whole).filter_map(|i| i.object).collect();
    objects.sort_by_key(Object::kind);
    Loaded { objects, diagnostics, files: sources.len() - skipped.len(), skipped }
}

/// Judges objects without files, as a controller gets them: what would be changed, laid over what exists. Places are paths.
pub fn check(changed: &[Object], existing: &[Arc<Object>]) -> Vec<Diagnostic> {
    let known: Vec<Option<Known<'_>>> =
        changed.iter().map(|o| Some(of_object(o, true))).chain(existing.iter().map(|o| Some(of_object(o, false)))).collect();
    let names: Vec<Option<(Kind, &Name)>> = known.iter().map(|k| k.as_ref().map(|k| (k.kind, k.name))).collect();
    let mut faults = lint::judge(&known, &[]);
    faults.sort_by(|a, b| a.severity.cmp(&b.severity).then_with(|| a.at.cmp(&b.at)));
    faults.into_iter().map(|fault| diagnose(fault, &|at| unplaced(at, &names))).collect()
}

/// One object as a request carries it. Places are paths.
pub fn object(json: &serde_json::Value) -> Result<Object, Vec<Diagnostic>> {
    let node = yaml::Node::from_json(json);
    let parse::Judged { kind, name, object, whole, mut faults } = parse::judge(0, &node);
    let names = [kind.zip(name.as_ref())];
    faults.sort_by(|a, b| a.at.cmp(&b.at));
    match object.filter(|_| whole) {
        Some(object) => Ok(object),
        None => Err(faults.into_iter().map(|fault| diagnose(fault, &|at| unplaced(at, &names))).collect()),
    }
}

fn of_file<'a>(item: &'a Item<'_>) -> Option<Known<'a>> {
    let (kind, name) = (item.kind?, item.name.as_ref()?);
    Some(Known { kind, name, object: item.object.as_ref(), whole: item.whole, changed: true })
}

fn of_object(object: &Object, changed: bool) -> Known<'_> {
    Known { kind: object.kind(), name: object.name(), object: Some(object), whole: true, changed }
}

fn diagnose(fault: Fault, place: &dyn Fn(&At) -> Place) -> Diagnostic {
    Diagnostic {
        severity: fault.severity,
        code: fault.code,
        message: fault.message,
        label: fault.label,
        place: Some(place(&fault.at)),
        also: fault.also.into_iter().map(|(what, at)| (what, place(&at))).collect(),
        hint: fault.hint,
    }
}

fn unplaced(at: &At, names: &[Option<(Kind, &Name)>]) -> Place {
    let object = names.get(at.item).copied().flatten().map(|(kind, name)| format!("{kind}/{name}")).unwrap_or_default();
    Place { object, path: path_text(&at.path), spot: None }
}

fn place(at: &At, items: &[Item<'_>], names: &[Option<(Kind, &Name)>]) -> Place {
    let mut place = unplaced(at, names);
    let Some(item) = items.get(at.item) else { return place };
    let whole: Vec<yaml::Step> = item.base.iter().chain(&at.path).cloned().collect();
    let mark = item.origin.document.locate(&whole, at.part);
    let open = matches!(at.path.first(), Some(yaml::Step::Key(key)) if matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
    let veil = match item.kind {
        None => item.origin.veil(),
        Some(Kind::Secret) if !open => Veil::Values,
        Some(_) => Veil::SecretKeys,
    };
    place.spot = Some(Spot::new(item.origin.file, item.origin.text, mark, veil));
    place
}
