//! Files → objects, for the verbs that take `-f`. Leaves out: what is wrong with a manifest and how that is shown (`manifest`).
//!
//! Invariant: where one file is wrong, no object is returned. Shown by `tests/cli.rs`.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::FileArgs;
use super::failure::Failure;
use crate::limits;
use crate::model::Object;

/// Whether the files must be whole by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// What they refer to is in the files.
    Within,
    /// Or at the controller, which checks it.
    Elsewhere,
}

/// The objects of files, or everything that is wrong with them, rendered for a terminal.
pub fn load(args: &FileArgs, references: References) -> Result<Vec<Object>, Failure> {
    let (mut objects, mut faults) = (Vec::new(), Vec::new());
    for (name, text) in read(args)? {
        match parse(&text) {
            Ok(found) => objects.extend(found),
            Err(why) => faults.push(format!("error: {name}: {why}")),
        }
    }
    if references == References::Within {
        faults.extend(check(&objects).into_iter().map(|why| format!("error: {why}")));
    }
    if !faults.is_empty() {
        return Err(Failure::failed(super::output::clean_lines(&faults.join("\n"))));
    }
    if objects.is_empty() {
        return Err(Failure::failed("there are no objects in these files"));
    }
    Ok(objects)
}

/// What is wrong between the objects.
fn check(objects: &[Object]) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let twice = objects.iter().filter(|o| !seen.insert((o.kind(), o.name().clone())));
    twice.map(|o| format!("{}/{} is there twice", o.kind(), o.name())).collect()
}

fn parse(text: &str) -> Result<Vec<Object>, String> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let json = serde_json::Value::deserialize(document).map_err(|e| e.to_string())?;
        if !json.is_null() {
            objects.push(crate::api::decode::object(json, None).map_err(|e| e.message)?);
        }
    }
    Ok(objects)
}

/// All texts with the names under which faults are shown, sorted.
fn read(args: &FileArgs) -> Result<Vec<(String, String)>, Failure> {
    let mut texts = Vec::new();
    for file in &args.files {
        if file == "-" {
            texts.push(("stdin".to_owned(), bounded("stdin", std::io::stdin().lock())?));
            continue;
        }
        let mut paths = Vec::new();
        walk(Path::new(file), args.recursive, true, 0, &mut paths)?;
        for path in paths {
            let name = path.display().to_string();
            let open = fs::File::open(&path).map_err(|e| Failure::failed(format!("cannot open {name}: {e}")))?;
            texts.push((name.clone(), bounded(&name, open)?));
        }
    }
    Ok(texts)
}

fn bounded(name: &str, from: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let limit = limits::MANIFEST_BYTES;
    from.take(limit as u64 + 1).read_to_string(&mut text).map_err(|e| Failure::failed(format!("cannot read {name}: {e}")))?;
    if text.len() > limit { Err(Failure::failed(format!("{name} has more than {limit} bytes"))) } else { Ok(text) }
}

/// A file that is named is read whatever its name; of a directory `*.yaml`, `*.yml` and `*.json`.
fn walk(path: &Path, recursive: bool, named: bool, depth: usize, out: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let io = |e: std::io::Error| Failure::failed(format!("cannot read {}: {e}", path.display()));
    if fs::metadata(path).map_err(io)?.is_dir() {
        if (named || recursive) && depth <= limits::MANIFEST_DEPTH {
            let mut inner: Vec<PathBuf> =
                fs::read_dir(path).map_err(io)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(io)?;
            inner.sort();
            for path in inner {
                walk(&path, recursive, false, depth + 1, out)?;
            }
        }
    } else if named || path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
        out.push(path.to_owned());
    }
    Ok(())
}
