//! Files, directories and standard input, read whole: the only I/O of `manifest`.
//!
//! Invariant: no more than the limit is read of any file, and what cannot be read is a diagnostic like any other, not the end.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::limits;

/// One text and its name for people.
pub struct Source {
    pub name: String,
    pub content: Content,
}

pub enum Content {
    Text(String),
    Unreadable { why: String, hint: &'static str },
    TooLarge { bytes: usize },
}

impl Source {
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source::bytes(name.into(), text.into().into_bytes())
    }

    fn bytes(name: String, bytes: Vec<u8>) -> Source {
        if bytes.len() > limits::MANIFEST_BYTES {
            return Source { name, content: Content::TooLarge { bytes: bytes.len() } };
        }
        let content = match String::from_utf8(bytes) {
            Ok(text) => Content::Text(text),
            Err(_) => Content::Unreadable { why: "it is not UTF-8 text".to_owned(), hint: "save it as UTF-8" },
        };
        Source { name, content }
    }

    fn unreadable(name: String, why: impl ToString, hint: &'static str) -> Source {
        Source { name, content: Content::Unreadable { why: why.to_string(), hint } }
    }
}

/// What `-f` names: files, directories (their *.yaml and *.yml files in the order of their names; with `recursive` those below as well),
/// and `-` for standard input.
pub fn read<P: AsRef<Path>>(paths: &[P], recursive: bool) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        if path == Path::new("-") {
            sources.push(limited("standard input".to_owned(), std::io::stdin().lock()));
        } else if path.is_dir() {
            let mut files = Vec::new();
            let before = sources.len();
            list(path, recursive, &mut files, &mut sources);
            files.sort();
            sources.extend(files.iter().map(|f| file(f)));
            if sources.len() == before {
                let name = path.display().to_string();
                let hint = if recursive { "name a directory with manifests" } else { "-R looks into the directories below as well" };
                sources.push(Source::unreadable(name, "the directory holds no *.yaml or *.yml file", hint));
            }
        } else {
            sources.push(file(path));
        }
    }
    sources
}

fn file(path: &Path) -> Source {
    let name = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(open) => limited(name, open),
        Err(error) => Source::unreadable(name, error, "is the path right?"),
    }
}

fn limited(name: String, from: impl Read) -> Source {
    let mut bytes = Vec::new();
    match from.take(limits::MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) => Source::bytes(name, bytes),
        Err(error) => Source::unreadable(name, error, ""),
    }
}

fn list(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>, sources: &mut Vec<Source>) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return sources.push(Source::unreadable(directory.display().to_string(), error, "is the path right?")),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // A link to a directory is not followed: it may lead in a circle. Hidden ones (.git, and a ConfigMap's ..data) are left out.
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_dir && recursive && !hidden {
            list(&path, recursive, files, sources);
        } else if !is_dir && !hidden && path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push(path);
        }
    }
}
