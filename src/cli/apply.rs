//! `apply`, `diff` and `delete`: files and objects. Leaves out: reading files (`source`).
//!
//! Invariant: one request applies all objects, so that one wrong object leaves everything as it was. Shown by `tests/cli.rs`.

use clap::Args;
use serde_json::{Value, json};

use super::FileArgs;
use super::client::{API, Client, path_of, query};
use super::failure::{Exit, Failure};
use super::output::print;
use super::source;
use super::subject::Subject;
use super::{say, subject, trouble};
use crate::model::{Kind, Name, Object};
use crate::server::api::apply::Applied;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DryRun {
    /// Only look at the files: needs no controller, and references must resolve within them
    Client,
    /// Ask the controller what it would do
    Server,
}

#[derive(Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Change nothing
    #[arg(long, value_enum)]
    dry_run: Option<DryRun>,
}

#[derive(Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    files: FileArgs,
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    /// KIND NAME…, or KIND/NAME…
    #[arg(value_name = "KIND NAME", required_unless_present = "files", conflicts_with = "files")]
    objects: Vec<String>,
    /// The objects of a file, a directory, or - for stdin
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<String>,
    /// Go into the directories of a directory
    #[arg(short = 'R', long)]
    recursive: bool,
    /// An object that is not there is no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// Of one kind, all objects with these labels: a=b,c!=d,e in (x,y)
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "files")]
    selector: Option<String>,
}

pub(super) async fn apply(args: ApplyArgs, client: &Client) -> Result<(), Failure> {
    if args.dry_run == Some(DryRun::Client) {
        let objects = source::load(&args.files)?;
        let lines: String = objects.iter().map(|o| format!("{}/{} valid (client dry run)\n", o.kind(), o.name())).collect();
        return Ok(print(&lines)?);
    }
    let files = source::read(&args.files);
    let objects = source::load_with(&files, client).await?;
    let dry = args.dry_run == Some(DryRun::Server);
    let done = match send(client, &objects, dry).await {
        // The controller names the object; the files know the line.
        Err(refused) if refused.exit == Exit::Failed => return Err(source::fault_in(&files, client).await.unwrap_or(refused)),
        done => done?,
    };
    let mark = if dry { " (server dry run)" } else { "" };
    let lines: String = done.iter().map(|a| format!("{}/{} {}{mark}\n", a.kind, a.name, a.result)).collect();
    Ok(print(&lines)?)
}

async fn send(client: &Client, objects: &[Object], dry: bool) -> Result<Vec<Applied>, Failure> {
    let items: Vec<Value> = objects.iter().map(Object::to_json).collect();
    let mut answer = client.post(&format!("{API}/apply"), &json!({ "items": items, "dryRun": dry })).await?;
    let items = answer.get_mut("items").map(Value::take).unwrap_or_default();
    serde_json::from_value(items).map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))
}

/// 0: no differences; 1: differences.
pub(super) async fn diff(args: DiffArgs, client: &Client) -> Result<u8, Failure> {
    let objects = source::load_with(&source::read(&args.files), client).await.map_err(trouble)?;
    let wanted = send(client, &objects, true).await.map_err(trouble)?;
    let mut differ = false;
    for applied in wanted {
        let now = client.find(applied.kind, &applied.name).await.map_err(trouble)?;
        if applied.result != "unchanged" {
            differ = true;
            print(&super::diff::objects(&applied, now.as_ref()))?;
        }
    }
    Ok(u8::from(differ))
}

/// Those of one kind with these labels. Without any label all would be meant: that is said by names.
async fn selected(words: &[String], selector: &str, client: &Client) -> Result<Vec<(Kind, Name)>, Failure> {
    let subjects = subject::subjects(words)?;
    let [Subject::Kind(kind)] = subjects.as_slice() else {
        return Err(Failure::usage("-l goes with one kind: delete KIND -l LABELS"));
    };
    if selector.trim().is_empty() {
        return Err(Failure::usage("found an empty selector, expected such as a=b: it would be all of them"));
    }
    let listed = client.get(&format!("{API}/{}{}", kind.plural(), query(&[("labelSelector", selector)]))).await?;
    let names = listed.get("items").and_then(Value::as_array).into_iter().flatten();
    let names = names.filter_map(|object| object.pointer("/metadata/name").and_then(Value::as_str));
    let found = names.map(|text| Ok((*kind, subject::name(text)?))).collect::<Result<Vec<_>, Failure>>()?;
    if found.is_empty() {
        say("Nothing found.");
    }
    Ok(found)
}

pub(super) async fn delete(args: DeleteArgs, client: &Client) -> Result<(), Failure> {
    let mut objects = match args.selector {
        Some(selector) => selected(&args.objects, &selector, client).await?,
        None if args.files.is_empty() => subject::objects(&args.objects)?,
        None => source::names(&FileArgs { files: args.files, recursive: args.recursive })?,
    };
    // Those that refer to others first.
    objects.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
    let mut worst: Option<Failure> = None;
    for (kind, name) in objects {
        match client.delete(&path_of(kind, &name)).await {
            Ok(_) => print(&format!("{kind}/{name} deleted\n"))?,
            Err(failure) if failure.exit == Exit::NotFound && args.ignore_not_found => {}
            Err(failure) if failure.exit == Exit::NoController => return Err(failure),
            // The others are still tried; the last refusal is the one that is reported at the end.
            Err(failure) => {
                if let Some(before) = worst.replace(failure) {
                    say(&format!("error: {}", before.message));
                }
            }
        }
    }
    worst.map_or(Ok(()), Err)
}
