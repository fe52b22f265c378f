//! Files → objects, for the verbs that take `-f`. Leaves out: what is wrong with a manifest and how that is shown (`manifest`).
//!
//! Invariant: where one file is wrong, no object is returned. Shown by `tests/cli.rs`.

use std::sync::Arc;

use serde_json::Value;

use super::FileArgs;
use super::client::{API, Client};
use super::failure::Failure;
use super::output;
use crate::manifest::{self, Source};
use crate::model::kind::KINDS;
use crate::model::{Kind, Name, Object};

/// The objects of files that are whole by themselves, or everything that is wrong with them, rendered for a terminal.
pub(crate) fn load(args: &FileArgs) -> Result<Vec<Object>, Failure> {
    load_over(&read(args), &[])
}

/// Files, as they were read once: standard input cannot be read again.
pub(crate) fn read(args: &FileArgs) -> Vec<Source> {
    manifest::read(&args.files, args.recursive)
}

/// The objects of files; what they refer to may be at the controller, which is asked for it where it is not in the files.
pub(crate) async fn load_with(files: &[Source], client: &Client) -> Result<Vec<Object>, Failure> {
    let alone = manifest::load(files, &[]);
    if !alone.has_errors() {
        sound(&alone)?;
        return Ok(alone.objects);
    }
    load_over(files, &existing(client).await?)
}

/// What is wrong with these files beside what the controller has, with its place in them; nothing where the files alone do not tell.
pub(crate) async fn fault_in(files: &[Source], client: &Client) -> Option<Failure> {
    load_over(files, &existing(client).await.ok()?).err()
}

async fn existing(client: &Client) -> Result<Vec<Arc<Object>>, Failure> {
    let mut existing = Vec::new();
    for kind in KINDS {
        let mut list = client.get(&format!("{API}/{}", kind.plural())).await?;
        let items = list.get_mut("items").map(Value::take).unwrap_or_default();
        let items: Vec<Value> = serde_json::from_value(items).unwrap_or_default();
        // An object of a newer controller that this program cannot read is left to the controller's own check.
        existing.extend(items.into_iter().filter_map(|i| Object::from_json(i).ok()).map(Arc::new));
    }
    Ok(existing)
}

/// Kind and name of each object in the files, for `delete`: what they refer to may be gone already.
pub(crate) fn names(args: &FileArgs) -> Result<Vec<(Kind, Name)>, Failure> {
    let mut loaded = manifest::load(&manifest::read(&args.files, args.recursive), &[]);
    loaded.diagnostics.retain(|d| d.is_error() && d.code != manifest::codes::UNKNOWN_REFERENCE);
    sound(&loaded)?;
    Ok(loaded.objects.iter().map(|o| (o.kind(), o.name().clone())).collect())
}

/// Loaded without errors, and not empty. Warnings are said.
fn sound(loaded: &manifest::Loaded) -> Result<(), Failure> {
    let text = loaded.render(output::colour_of_stderr());
    if loaded.has_errors() {
        return Err(Failure::failed(text.trim_end()));
    }
    if !text.is_empty() {
        super::say(text.trim_end());
    }
    if loaded.objects.is_empty() {
        return Err(Failure::failed("there are no objects in these files"));
    }
    Ok(())
}

fn load_over(files: &[Source], existing: &[Arc<Object>]) -> Result<Vec<Object>, Failure> {
    let loaded = manifest::load(files, existing);
    sound(&loaded)?;
    Ok(loaded.objects)
}
