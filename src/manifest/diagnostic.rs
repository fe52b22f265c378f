//! One fault as people see it: a code in words, a sentence, the place with a caret, the other place, a hint.
//!
//! Leaves out: finding faults. Invariant: what is shown of a file passes through `Spot::new`, which masks values of secrets and replaces
//! control characters; what is shown of a value passes through `shown`. `tests/golden/manifest` holds the poll.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::scan::Mark;
use crate::limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// One of `codes::CODES`.
    pub code: &'static str,
    pub message: String,
    /// What stands under the caret.
    pub label: Option<String>,
    pub place: Option<Place>,
    /// Other places that belong to it: what is there, and where.
    pub also: Vec<(String, Place)>,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// `Server/web-1`; empty where it is not known.
    pub object: String,
    /// `spec.nics[0].port`; empty for the object as a whole.
    pub path: String,
    /// Nothing where the object did not come from a file.
    pub spot: Option<Spot>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line, fit to be shown. Nothing where it is too long or the fault has no line.
    pub snippet: Option<String>,
    /// The characters to underline.
    width: usize,
}

/// What of a line must not be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Veil {
    /// The values of keys that name a secret.
    SecretKeys,
    /// Every value: the line belongs to a Secret.
    Values,
    /// Whatever is not surely a key: the text does not parse, and the line may be in the middle of a secret.
    Everything,
}

/// Keys that are shown under any veil.
const OPEN: [&str; 9] = ["apiVersion", "kind", "metadata", "name", "labels", "spec", "from", "username", "secretRef"];

/// A line longer than this is not shown; generated JSON has such lines.
const LINE_SHOWN: usize = 300;

const HIDDEN: &str = "(hidden)";

impl Spot {
    pub fn new(file: &str, text: &str, at: Mark, veil: Veil) -> Spot {
        let mut spot = Spot { file: escaped(file), line: at.line, column: at.column, snippet: None, width: 1 };
        let Some(line) = text.lines().nth(at.line.saturating_sub(1)) else { return spot };
        if at.column > LINE_SHOWN {
            return spot;
        }
        let visible: String = mask(line, veil).chars().take(LINE_SHOWN + 100).map(harmless).collect();
        let length = visible.chars().count();
        spot.width = width(&visible, at.column - 1);
        if at.column > length {
            let from = visible.rfind(HIDDEN).filter(|_| visible.ends_with(HIDDEN));
            let begin = from.map_or(length, |b| visible[..b].chars().count());
            (spot.column, spot.width) = (begin + 1, length.saturating_sub(begin).max(1));
        }
        spot.snippet = Some(visible);
        spot
    }

    /// A file as a whole.
    pub fn of_file(file: &str) -> Spot {
        Spot { file: escaped(file), line: 0, column: 0, snippet: None, width: 0 }
    }

    fn title(&self) -> String {
        if self.line == 0 { self.file.clone() } else { format!("{}:{}:{}", self.file, self.line, self.column) }
    }
}

/// How many characters the token at this column (from 0) has.
fn width(line: &str, column: usize) -> usize {
    let rest: Vec<char> = line.chars().skip(column).collect();
    let end = match rest.first() {
        None | Some('{' | '[' | '|' | '>') => 1,
        Some(q @ ('"' | '\'')) => rest.iter().skip(1).position(|c| c == q).map_or(rest.len(), |p| p + 2),
        Some(_) => (0..rest.len())
            .find(|i| match rest[*i] {
                ',' | ']' | '}' => rest.get(i + 1).is_none_or(|c| matches!(c, ' ' | ',' | ']' | '}')),
                ':' => rest.get(i + 1).is_none_or(|c| *c == ' '),
                ' ' => matches!(rest.get(i + 1), Some('#' | '}' | ']') | None),
                _ => false,
            })
            .unwrap_or(rest.len()),
    };
    end.max(1)
}

/// Whether a key names something that must not be seen.
pub(crate) fn names_a_secret(key: &str) -> bool {
    let key: String = key.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    let has = |words: &[&str]| words.iter().any(|w| key.contains(w));
    has(&["password", "passwd", "passphrase", "token", "apikey", "privatekey", "stringdata", "credential"])
        || key.ends_with("secret")
        || matches!(key.as_str(), "community" | "kg" | "pass")
}

/// The line with what must not be seen cut off.
fn mask(line: &str, veil: Veil) -> String {
    let trimmed = line.trim_start();
    let indent = &line[..line.len() - trimmed.len()];
    let cut = line.match_indices(':').map(|(at, _)| at).find(|at| veil != Veil::SecretKeys || names_a_secret(last_key(&line[..*at])));
    let open = |key: &str| veil != Veil::Everything || OPEN.contains(&key) || names_a_secret(key) && !key.contains(char::is_whitespace);
    let empty = |rest: &str| rest.trim().is_empty() || rest.trim_start().starts_with('#');
    match cut {
        Some(at) if !open(line[..at].trim()) => format!("{indent}{HIDDEN}"),
        Some(at) if empty(&line[at + 1..]) => line.to_owned(),
        Some(at) => format!("{}: {HIDDEN}", &line[..at]),
        None if veil == Veil::SecretKeys || trimmed.is_empty() || trimmed.starts_with("---") => line.to_owned(),
        None => format!("{indent}{HIDDEN}"),
    }
}

/// The key that ends where the text ends.
pub(crate) fn last_key(before: &str) -> &str {
    before.trim_end().rsplit([' ', ',', '{', '\t', ':']).next().unwrap_or_default()
}

/// Control characters, breaks of lines and the marks that turn the direction of text (Unicode, Bidi_Control) can make a terminal show something else
/// than is there.
pub(crate) fn harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn harmless(c: char) -> char {
    if c == '\t' || !harmful(c) { c } else { '\u{fffd}' }
}

/// A text from outside, fit for a message: control characters escaped, at most 80 characters.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", escaped(&text[..end])),
        None => escaped(text),
    }
}

/// Likewise, at any length.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

impl Place {
    /// `file:line:column`, or the object and the path within it.
    pub fn title(&self) -> String {
        match &self.spot {
            Some(spot) => spot.title(),
            None if self.path.is_empty() => self.object.clone(),
            None => format!("{} {}", self.object, self.path),
        }
    }
}

impl Diagnostic {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// As it is shown on a terminal; ends with a line break.
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let spot = self.place.as_ref().and_then(|p| p.spot.as_ref());
        let mut group = Group::with_title(level.primary_title(self.message.as_str()).id(self.code));
        match spot {
            Some(spot @ Spot { snippet: Some(line), .. }) => {
                let byte = |chars: usize| line.char_indices().nth(chars).map_or(line.len(), |(i, _)| i);
                let span = byte(spot.column - 1)..byte(spot.column - 1 + spot.width);
                let mark = AnnotationKind::Primary.span(span).label(self.label.as_deref());
                group = group.element(Snippet::source(line.as_str()).line_start(spot.line).path(spot.file.as_str()).annotation(mark));
            }
            Some(spot) if spot.line > 0 => {
                group = group.element(Origin::path(spot.file.as_str()).line(spot.line).char_column(spot.column));
            }
            Some(spot) => group = group.element(Origin::path(spot.file.as_str())),
            None => {}
        }
        let at = self.place.as_ref().filter(|p| p.spot.is_none()).map(|p| format!("at {}", p.title()));
        let also = self.also.iter().map(|(what, place)| format!("also {what} at {}", place.title()));
        for text in at.into_iter().chain(also) {
            group = group.element(Level::NOTE.no_name().message(text));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = renderer.render(&[group]);
        text.push('\n');
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nhint: {hint}\n"));
        }
        text
    }

    /// One line without files: for a controller's answers and for conditions.
    pub fn line(&self) -> String {
        let mut text = self.place.as_ref().map(|p| format!("{}: ", p.title())).unwrap_or_default();
        text.push_str(&self.message);
        if let Some(label) = &self.label {
            text.push_str(&format!(": {label}"));
        }
        for (what, place) in &self.also {
            text.push_str(&format!("; also {what} at {}", place.title()));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!(" (hint: {hint})"));
        }
        text.push_str(&format!(" [{}]", self.code));
        text
    }
}

/// All of them, and a last line that counts. `files`: how many files were read.
pub(crate) fn render(diagnostics: &[Diagnostic], files: usize, colour: bool) -> String {
    let mut text = String::new();
    let mut order: Vec<&Diagnostic> = diagnostics.iter().collect();
    if order.len() > limits::DIAGNOSTICS {
        // What is left out should be warnings.
        order.sort_by_key(|d| d.severity);
    }
    for diagnostic in order.into_iter().take(limits::DIAGNOSTICS) {
        text.push_str(&diagnostic.render(colour));
        text.push('\n');
    }
    if let Some(more) = diagnostics.len().checked_sub(limits::DIAGNOSTICS).filter(|n| *n > 0) {
        text.push_str(&format!("and {more} more\n"));
    }
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    if errors > 0 {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        text.push_str(&format!("{} in {}; nothing was applied\n", count(errors, "error"), count(files, "file")));
    }
    text
}
