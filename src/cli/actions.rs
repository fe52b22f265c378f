//! The words of people: approve, accept, restart, retry, pause, resume. Leaves out: what they lead to.
//!
//! Invariant: each answer is one sentence from the controller. Shown by `tests/cli.rs`.

use std::io::IsTerminal;

use clap::Args;
use serde_json::{Value, json};

use super::client::{API, Client, path_of};
use super::failure::{Exit, Failure};
use super::output::{clean, print};
use super::say;
use super::subject;
use crate::control::operator::{ApprovalShown, Scope};
use crate::model::{Kind, Name, Period};
use crate::server::api::selector::LabelSelector;

#[derive(Args)]
pub(super) struct ObjectArgs {
    /// NAME, KIND/NAME, or KIND NAME
    #[arg(value_name = "[KIND/]NAME", required = true)]
    object: Vec<String>,
}

#[derive(Args)]
pub(super) struct ApproveArgs {
    /// The bindings; `source/directory`: what a directory of manifests waits to apply
    #[arg(value_name = "BINDING", required = true)]
    object: Vec<String>,
    /// Declare that the server already runs the persona: nothing is switched off
    #[arg(long)]
    adopt: bool,
    /// Let a hard power-off follow where no soft-off was accepted
    #[arg(long, conflicts_with = "adopt")]
    hard: bool,
    /// Do not ask; without a terminal nothing is asked either
    #[arg(short = 'y', long)]
    yes: bool,
    /// Switch this server off for it, as a move would: it may run the persona, and no binding names it
    #[arg(long, value_name = "SERVER", conflicts_with_all = ["adopt", "hard"])]
    release: Option<Name>,
}

#[derive(Args)]
pub(super) struct DeclareArgs {
    /// NAME, SERVER/NAME, or SERVER NAME, and what is so: `off` (its power is cut) or `foreign` (it runs nothing of embody's)
    #[arg(value_name = "[SERVER/]NAME off|foreign", required = true, num_args = 2..=3)]
    words: Vec<String>,
    /// Why you know, for those who look later
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("word").required(true).args(["once", "cancel"])))]
pub(super) struct BootArgs {
    /// NAME, SERVER/NAME, or SERVER NAME
    #[arg(value_name = "[SERVER/]NAME", required = true)]
    object: Vec<String>,
    /// What its next start boots, until it was seen off again: `local` (its own disk), or `rescue=PERSONA`
    #[arg(long, value_name = "local|rescue=PERSONA")]
    once: Option<String>,
    /// What is bound follows now
    #[arg(long)]
    cancel: bool,
    /// Do not ask; without a terminal nothing is asked either
    #[arg(short = 'y', long)]
    yes: bool,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("scope").required(true).args(["object", "selector", "all"])))]
pub(super) struct PauseArgs {
    /// NAME, KIND/NAME, or KIND NAME
    #[arg(value_name = "[KIND/]NAME")]
    object: Vec<String>,
    /// Bindings and servers with these labels: key=value,…
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Why, for those who look later
    #[arg(long)]
    reason: String,
    /// How long: 30m, 2h; without it until `resume`
    #[arg(long = "for", value_name = "PERIOD")]
    period: Option<Period>,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("scope").required(true).args(["object", "selector", "all"])))]
pub(super) struct ResumeArgs {
    /// NAME, KIND/NAME, or KIND NAME; `breaker`: what drifts may be corrected
    #[arg(value_name = "[KIND/]NAME")]
    object: Vec<String>,
    /// Bindings and servers with these labels: key=value,…
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

fn show(answer: &Value) -> Result<(), Failure> {
    let message = answer.get("message").and_then(Value::as_str).unwrap_or("done");
    Ok(print(&format!("{}\n", clean(message)))?)
}

pub(super) async fn approve(args: ApproveArgs, client: &Client) -> Result<(), Failure> {
    if args.object == ["source/directory"] {
        return approve_directory(args.yes, client).await;
    }
    let names = bindings(&args.object, client).await?;
    let several = names.len() > 1;
    let mut refused: Option<Exit> = None;
    for name in names {
        match approve_one(&name, &args, client).await {
            // One that needs no approval keeps nobody else from theirs.
            Err(Failure { exit: exit @ (Exit::Refused | Exit::Failed), message, hint, quiet: false }) if several => {
                say(&format!("error: {name}: {}", message.trim_end()));
                hint.iter().for_each(|hint| say(&format!("hint: {hint}")));
                refused = Some(exit);
            }
            result => result?,
        }
    }
    match refused {
        Some(exit) => Err(Failure::new(exit, "not all of them were approved")),
        None => Ok(()),
    }
}

/// All of them exist: a word with a slip of the finger in it is done for none.
async fn bindings(words: &[String], client: &Client) -> Result<Vec<Name>, Failure> {
    let names = subject::of_kind(words, Kind::Binding)?;
    let mut missing = Vec::new();
    for name in &names {
        if client.find(Kind::Binding, name).await?.is_none() {
            missing.push(format!("`{name}`"));
        }
    }
    match missing.is_empty() {
        true => Ok(names),
        false => {
            let message = format!("no binding is named {}: nothing was done", missing.join(" or "));
            Err(Failure::new(Exit::NotFound, message).hint("`embody get bindings` lists them"))
        }
    }
}

/// Shows what would be done, asks where somebody can answer, and sends the digest of exactly that. Where it has become something else
/// meanwhile, that is shown.
async fn approve_one(name: &Name, args: &ApproveArgs, client: &Client) -> Result<(), Failure> {
    let path = path_of(Kind::Binding, name);
    let query = match (&args.release, args.adopt, args.hard) {
        (Some(server), _, _) => format!("?release={server}"),
        (None, true, _) => "?adopt=true".to_owned(),
        (None, false, true) => "?hard=true".to_owned(),
        (None, false, false) => String::new(),
    };
    let mut attempts = crate::limits::API_ATTEMPTS;
    loop {
        let answer = client.get(&format!("{path}/approval{query}")).await?;
        let shown: ApprovalShown =
            serde_json::from_value(answer).map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))?;
        print(&in_words(name, args, &shown))?;
        let question = if args.adopt { "Declare that?" } else { "Approve this?" };
        if !args.yes && std::io::stdin().is_terminal() && !asks(question)? {
            return Err(Failure::new(Exit::Refused, "nothing was approved"));
        }
        attempts -= 1;
        let word = json!({ "adopt": args.adopt, "hard": args.hard, "release": args.release, "digest": shown.digest });
        match client.post(&format!("{path}/approve"), &word).await {
            Err(failure) if failure.exit == Exit::Refused && attempts > 0 => {}
            answer => return show(&answer?),
        }
    }
}

/// The plan, as `embody plan` prints it, and what it is of.
fn in_words(name: &Name, args: &ApproveArgs, shown: &ApprovalShown) -> String {
    let what =
        if args.adopt { format!("{name} runs already. What would follow, and waits for an approval:\n") } else { format!("{name}: ") };
    let mut out = format!("{what}{}", super::plan::show(&shown.forecast));
    if !shown.earlier.is_empty() {
        out.push_str("\nApproved before, and not done yet:\n");
        out.extend(shown.earlier.iter().map(|op| format!("  {}\n", clean(op))));
    }
    out.push('\n');
    out
}

/// Shows what would be written and deleted, asks where somebody can answer, and sends the digest of exactly that.
async fn approve_directory(yes: bool, client: &Client) -> Result<(), Failure> {
    let path = format!("{API}/sources/directory");
    let pending = client.get(&path).await?;
    let writes = pending.get("writes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let lines: String = writes.map(|line| format!("{}\n", clean(line))).collect();
    print(&lines)?;
    if !yes && std::io::stdin().is_terminal() && !asks("Apply this?")? {
        return Err(Failure::new(Exit::Refused, "nothing was approved"));
    }
    show(&client.post(&format!("{path}/approve"), &json!({ "digest": pending.get("digest") })).await?)
}

fn asks(question: &str) -> Result<bool, Failure> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Failure::failed(format!("standard input does not read: {e}")))?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

pub(super) async fn declare(args: DeclareArgs, client: &Client) -> Result<(), Failure> {
    let Some((what, server)) = args.words.split_last() else { return Err(Failure::usage("say which server, and what is so")) };
    if !["off", "foreign"].contains(&what.as_str()) {
        return Err(Failure::usage(format!("found `{what}`, expected `off` or `foreign` after the server")));
    }
    // One that is in no manifest any more can be declared as well: whether the second of several exists is not known before the first is declared.
    let names = subject::of_kind(server, Kind::Server)?;
    let [name] = names.as_slice() else { return Err(Failure::usage("one server at a time, and what is so: `off` or `foreign`")) };
    let path = format!("{}/declare", path_of(Kind::Server, name));
    show(&client.post(&path, &json!({ "what": what, "reason": args.reason })).await?)
}

pub(super) async fn boot(args: BootArgs, client: &Client) -> Result<(), Failure> {
    let names = subject::of_kind(&args.object, Kind::Server)?;
    let [name] = names.as_slice() else { return Err(Failure::usage("one server at a time")) };
    let once = match args.once.as_deref().map(|word| (word, word.split_once('='))) {
        None => Value::Null,
        Some(("local", _)) => json!("local"),
        Some((_, Some(("rescue", persona)))) => json!({ "persona": subject::name(persona)? }),
        Some((other, _)) => return Err(Failure::usage(format!("found `{other}`, expected `local` or `rescue=PERSONA`"))),
    };
    let question = format!("What runs on {name} is switched off for that. Go on?");
    if !args.yes && std::io::stdin().is_terminal() && !asks(&question)? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    show(&client.post(&format!("{}/boot", path_of(Kind::Server, name)), &json!({ "once": once })).await?)
}

pub(super) async fn accept(args: ObjectArgs, client: &Client) -> Result<(), Failure> {
    if args.object == ["store"] {
        return show(&client.post(&format!("{API}/store/accept"), &json!({})).await?);
    }
    let (kind, name) = match args.object.as_slice() {
        [bare] if !bare.contains('/') => identified(client, bare).await?,
        words => subject::look_up(client, words).await?,
    };
    show(&client.post(&format!("{}/accept", path_of(kind, &name)), &json!({})).await?)
}

/// Only servers and switches have an identity: a binding of the same name is not meant.
async fn identified(client: &Client, bare: &str) -> Result<(Kind, Name), Failure> {
    let name = subject::name(bare)?;
    for kind in [Kind::Server, Kind::Switch] {
        if client.find(kind, &name).await?.is_some() {
            return Ok((kind, name));
        }
    }
    Err(Failure::new(Exit::NotFound, format!("no server and no switch is named `{name}`")))
}

pub(super) async fn retry(args: ObjectArgs, client: &Client) -> Result<(), Failure> {
    let (kind, name) = subject::look_up(client, &args.object).await?;
    show(&client.post(&format!("{}/retry", path_of(kind, &name)), &json!({})).await?)
}

pub(super) async fn restart(args: ObjectArgs, client: &Client) -> Result<(), Failure> {
    for name in bindings(&args.object, client).await? {
        restart_one(client, &name).await?;
    }
    Ok(())
}

/// Raises `spec.restart`. Tied to the generation's number of restarts through the revision, so that two people at once mean two restarts;
/// a status that was written in between is no conflict worth telling.
async fn restart_one(client: &Client, name: &Name) -> Result<(), Failure> {
    let path = path_of(Kind::Binding, name);
    let mut attempts = crate::limits::API_ATTEMPTS;
    loop {
        let binding = client.get(&path).await?;
        // A number that was done before, as by a newer checkout, restarts nothing.
        let [desired, done] = ["/spec/restart", "/status/restarted"].map(|at| binding.pointer(at).and_then(Value::as_u64).unwrap_or(0));
        let Some(next) = desired.max(done).checked_add(1) else {
            return Err(Failure::new(
                Exit::Failed,
                format!("Binding/{name} has the highest `restart` that there is ({done}): delete it and apply it again"),
            ));
        };
        let version = binding.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        attempts -= 1;
        let change = json!({ "metadata": { "resourceVersion": version }, "spec": { "restart": next } });
        match client.patch(&path, &change).await {
            Err(failure) if failure.exit == Exit::Refused && attempts > 0 => {}
            Err(failure) => return Err(failure),
            Ok(_) => return Ok(print(&format!("Binding/{name} restart {next} desired\n"))?),
        }
    }
}

async fn scope(client: &Client, object: &[String], selector: Option<&str>) -> Result<Scope, Failure> {
    if let Some(text) = selector {
        let selector: LabelSelector = text.parse().map_err(|e| Failure::usage(format!("{e}")))?;
        let labels = selector.equalities().filter(|l| !l.is_empty());
        let match_labels = labels.ok_or_else(|| Failure::usage(format!("found `{text}`, expected key=value,… for a pause")))?;
        return Ok(Scope::Labels { match_labels });
    }
    if object.is_empty() {
        return Ok(Scope::Everything);
    }
    let (kind, name) = subject::look_up(client, object).await?;
    Ok(Scope::Object { kind, name })
}

pub(super) async fn pause(args: PauseArgs, client: &Client) -> Result<(), Failure> {
    let scope = scope(client, &args.object, args.selector.as_deref()).await?;
    if args.period.is_some_and(|p| p.0.is_zero()) {
        return Err(Failure::usage("found a pause of no time, expected one like 30m; without --for it lasts until it is resumed"));
    }
    let seconds = args.period.map(|p| p.0.as_secs().max(1));
    show(&client.post(&format!("{API}/pauses"), &json!({ "scope": scope, "reason": args.reason, "seconds": seconds })).await?)
}

pub(super) async fn rotate_key(client: &Client) -> Result<(), Failure> {
    show(&client.post(&format!("{API}/siteKey/rotate"), &json!({})).await?)
}

pub(super) async fn resume(args: ResumeArgs, client: &Client) -> Result<(), Failure> {
    if args.object == ["breaker"] {
        return show(&client.post(&format!("{API}/breaker/close"), &json!({})).await?);
    }
    let scope = scope(client, &args.object, args.selector.as_deref()).await?;
    show(&client.post(&format!("{API}/resumes"), &json!({ "scope": scope })).await?)
}
