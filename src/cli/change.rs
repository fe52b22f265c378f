//! `label`, `annotate` and `patch`: parts of objects, one object after the other. Leaves out: whole objects from files (`apply`).
//!
//! Invariant: a value that is there is not replaced unasked. Shown by `tests/cli.rs`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, path_of};
use super::failure::Failure;
use super::output::{clean, print};
use super::subject;
use crate::model::{Kind, Name};
use crate::server::api::objects::OWN_ANNOTATIONS;

#[derive(Args)]
pub(super) struct MarkArgs {
    /// KIND NAME…, or KIND/NAME…; then KEY=VALUE, or KEY- to take it away
    #[arg(value_name = "KIND NAME… KEY=VALUE…", required = true)]
    words: Vec<String>,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Args)]
pub(super) struct PatchArgs {
    /// KIND NAME, or KIND/NAME
    #[arg(value_name = "KIND NAME", required = true)]
    object: Vec<String>,
    /// The patch, in JSON or YAML
    #[arg(short = 'p', long, value_name = "TEXT")]
    patch: String,
    /// How it is read: RFC 7386, or a list of operations after RFC 6902
    #[arg(long = "type", value_enum, default_value = "merge")]
    form: Form,
    /// Change nothing
    #[arg(long, value_name = "server", value_parser = ["server"])]
    dry_run: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Merge,
    Json,
}

/// What is to be of each key; nothing: it is to be gone.
type Changes = Vec<(String, Option<String>)>;

fn parse(words: &[String]) -> Result<(Vec<(Kind, Name)>, Changes), Failure> {
    let change = |word: &String| match word.split_once('=') {
        Some((key, value)) => Some((key.to_owned(), Some(value.to_owned()))),
        // No name ends so.
        None => word.strip_suffix('-').map(|key| (key.to_owned(), None)),
    };
    let objects: Vec<String> = words.iter().take_while(|word| change(word).is_none()).cloned().collect();
    let rest = words.get(objects.len()..).unwrap_or_default();
    let changes: Option<Changes> = rest.iter().map(change).collect();
    match changes.filter(|changes| !changes.is_empty()) {
        Some(changes) => Ok((subject::objects(&objects)?, changes)),
        None => Err(Failure::usage("expected KIND NAME… and then KEY=VALUE, or KEY- to take it away")),
    }
}

/// `field`: `labels` or `annotations`.
pub(super) async fn mark(args: MarkArgs, field: &str, done: &str, client: &Client) -> Result<(), Failure> {
    let (objects, changes) = parse(&args.words)?;
    if let Some((key, _)) = changes.iter().find(|(key, _)| field == "annotations" && key.starts_with(OWN_ANNOTATIONS)) {
        return Err(Failure::usage(format!("found `{}`: annotations of {OWN_ANNOTATIONS} are embody's own", clean(key))));
    }
    for (kind, name) in objects {
        let path = path_of(kind, &name);
        let object = client.get(&path).await?;
        let present = |key: &str| object.pointer("/metadata").and_then(|meta| meta.get(field)?.get(key)?.as_str());
        for (key, value) in changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).filter(|_| !args.overwrite) {
            if let Some(is) = present(key).filter(|is| is != value) {
                return Err(
                    Failure::failed(format!("{kind}/{name} has `{}={}` already", clean(key), clean(is))).hint("--overwrite replaces it")
                );
            }
        }
        let of: Map<String, Value> =
            changes.iter().map(|(key, value)| (key.clone(), value.clone().map_or(Value::Null, Value::from))).collect();
        let version = &object["metadata"]["resourceVersion"];
        let mut meta = Map::from_iter([(field.to_owned(), Value::Object(of))]);
        if !args.overwrite {
            // What was looked at, and nothing newer.
            meta.insert("resourceVersion".to_owned(), version.clone());
        }
        let now = client.patch(&path, &json!({ "metadata": meta })).await?;
        let word = if now["metadata"]["resourceVersion"] == *version { "unchanged" } else { done };
        print(&format!("{kind}/{name} {word}\n"))?;
    }
    Ok(())
}

pub(super) async fn patch(args: PatchArgs, client: &Client) -> Result<(), Failure> {
    let patch: Value = serde_yaml::from_str(&args.patch).map_err(|e| Failure::usage(format!("the patch does not read: {e}")))?;
    let dry = if args.dry_run.is_some() { "?dryRun=All" } else { "" };
    for (kind, name) in subject::objects(&args.object)? {
        let path = format!("{}{dry}", path_of(kind, &name));
        match args.form {
            Form::Merge => client.patch(&path, &patch).await?,
            Form::Json => client.patch_json(&path, &patch).await?,
        };
        let mark = if args.dry_run.is_some() { " (server dry run)" } else { "" };
        print(&format!("{kind}/{name} patched{mark}\n"))?;
    }
    Ok(())
}
