//! Manifests: from the text of files to sound objects or faults with places, and back to YAML.
//!
//! The input is the text of a file. A line `# file: NAME` begins the next one.

use super::hold;
use crate::cli::output::yaml;
use crate::limits;
use crate::manifest::{self, Content, Diagnostic, Loaded, Source, harmful};
use crate::model::{Object, Spec};

const NEXT: &str = "# file: ";

/// The text of one or more files.
pub fn manifest(bytes: &[u8]) -> Result<(), String> {
    let sources = || sources(bytes);
    let loaded = manifest::load(&sources(), &[]);
    let shown = loaded.render(false);
    hold(shown == manifest::load(&sources(), &[]).render(false), || "read twice, it says two things".to_owned())?;
    hold(!shown.chars().any(|c| !matches!(c, '\n' | '\t') && harmful(c)), || format!("what is shown of it moves the cursor: {shown:?}"))?;
    hold(shown.is_empty() == loaded.diagnostics.is_empty(), || format!("{} diagnostics are shown as {shown:?}", loaded.diagnostics.len()))?;
    for diagnostic in &loaded.diagnostics {
        placed(diagnostic, &sources())?;
    }
    hidden(&loaded, &shown, &String::from_utf8_lossy(bytes))?;
    if loaded.has_errors() {
        return Ok(());
    }
    let still = manifest::check(&loaded.objects, &[]);
    let wrong: Vec<String> = still.iter().filter(|d| d.is_error()).map(Diagnostic::line).collect();
    hold(wrong.is_empty(), || format!("as files it is sound, as objects it is not: {}", wrong.join("\n")))?;
    for object in &loaded.objects {
        back(object)?;
    }
    together(&loaded)
}

fn sources(bytes: &[u8]) -> Vec<Source> {
    let mut files = vec![("input.yaml".to_owned(), Vec::new())];
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(NEXT.as_bytes()) {
            Some(name) => files.push((String::from_utf8_lossy(name).trim().to_owned(), Vec::new())),
            None => files.iter_mut().last().into_iter().for_each(|(_, text)| text.extend_from_slice(line)),
        }
    }
    files.retain(|(_, text)| !text.is_empty());
    files.into_iter().map(|(name, text)| Source::bytes(name, text)).collect()
}

/// A fault has a place: a line that its file has, or a file or an object that is named.
fn placed(diagnostic: &Diagnostic, sources: &[Source]) -> Result<(), String> {
    let line = diagnostic.line();
    hold(!diagnostic.message.is_empty() && !line.contains('\n'), || format!("{line:?} is no line"))?;
    let Some(place) = &diagnostic.place else { return Err(format!("`{line}` has no place")) };
    let Some(spot) = &place.spot else { return hold(!place.object.is_empty(), || format!("`{line}` is nowhere")) };
    let texts = sources.iter().filter(|source| manifest::escaped(&source.name) == spot.file);
    // The end of a text is a place as well, behind its last line.
    let lines = texts.map(|source| if let Content::Text(text) = &source.content { text.lines().count() + 1 } else { 0 }).max();
    let Some(lines) = lines else { return Err(format!("`{line}` is in a file that there is not")) };
    hold(spot.line <= lines, || format!("`{line}` is in line {} of {lines}", spot.line))
}

/// Values of secrets do not show. One that stands elsewhere as well, or is as short as a word, may.
fn hidden(loaded: &Loaded, shown: &str, text: &str) -> Result<(), String> {
    let secrets = loaded.objects.iter().filter_map(|object| if let Spec::Secret(secret) = &object.spec { Some(secret) } else { None });
    let values = secrets.flat_map(|secret| &secret.string_data).filter(|(key, _)| *key != "username").map(|(_, value)| value.reveal());
    let shows = values.filter(|value| value.len() >= 8 && text.matches(*value).count() == 1).find(|value| shown.contains(*value));
    hold(shows.is_none(), || format!("a secret shows:\n{shown}"))
}

/// An object by itself: as JSON, as it is sent and stored, and as YAML, as it is shown.
fn back(object: &Object) -> Result<(), String> {
    let json = object.to_json();
    let of_json = Object::from_json(json.clone()).map_err(|why| format!("what is stored of {json} does not read: {why}"))?;
    hold(of_json == *object, || format!("{json} is stored, and reads as another object"))?;
    let sent = manifest::object(&json).map_err(|faults| {
        format!("{json} is sent, and refused: {}", faults[..].iter().map(Diagnostic::line).collect::<Vec<_>>().join("\n"))
    })?;
    hold(sent == *object, || format!("{json} is sent, and reads as another object"))
}

/// All of them, written as YAML and read again.
fn together(loaded: &Loaded) -> Result<(), String> {
    let texts: Vec<String> = loaded.objects.iter().map(|object| yaml(&object.to_json())).collect();
    let text = texts.join("---\n");
    if text.len() > limits::MANIFEST_BYTES {
        return Ok(());
    }
    let again = manifest::load(&[Source::text("again.yaml", text.clone())], &[]);
    hold(!again.has_errors(), || format!("what is written of it does not read:\n{text}\n{}", again.render(false)))?;
    hold(again.objects == loaded.objects, || format!("what is written of it reads as something else:\n{text}"))
}
