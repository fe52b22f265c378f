//! `embody wait`: until objects have a condition, a field has a value, or they are gone. Progress goes to stderr.
//!
//! Leaves out: polling (it watches). Invariant: a condition that speaks of an older generation does not count. Shown by `tests/cli.rs`.

use clap::Args;
use serde_json::Value;
use tokio::time::{Duration, Instant, timeout_at};

use super::client::{API, Client, query};
use super::failure::{Exit, Failure};
use super::output::{clean, print};
use super::say;
use super::subject::{self, Subject};
use crate::model::{Kind, Name, Period};

#[derive(Args)]
pub(super) struct WaitArgs {
    /// KIND NAME…, KIND/NAME…, or KIND for all that there are
    #[arg(value_name = "KIND [NAME]", required = true)]
    object: Vec<String>,
    /// condition=TYPE[=True|False|Unknown], delete, or jsonpath={.status.FIELD}=VALUE
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready")]
    until: Until,
    /// How long, for all of them together
    #[arg(long, default_value = "60s")]
    timeout: Period,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Until {
    Condition {
        kind: String,
        status: String,
    },
    Deleted,
    /// A JSON pointer and the value there.
    Field {
        pointer: String,
        value: String,
    },
}

impl std::str::FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Until, String> {
        let bad = || format!("found `{text}`, expected condition=TYPE[=STATUS], delete, or jsonpath={{.status.FIELD}}=VALUE");
        if text == "delete" {
            return Ok(Until::Deleted);
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (kind, status) = rest.split_once('=').unwrap_or((rest, "True"));
            let status = ["True", "False", "Unknown"].into_iter().find(|s| s.eq_ignore_ascii_case(status)).ok_or_else(bad)?;
            return if kind.is_empty() { Err(bad()) } else { Ok(Until::Condition { kind: kind.to_owned(), status: status.to_owned() }) };
        }
        let rest = text.strip_prefix("jsonpath=").ok_or_else(bad)?;
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let (path, value) = rest.split_once("}=").or_else(|| rest.split_once('=')).ok_or_else(bad)?;
        let plain = path.starts_with('.') && path.chars().all(|c| c.is_ascii_alphanumeric() || "._-[]".contains(c));
        if !plain || path.len() < 2 {
            return Err(bad());
        }
        let pointer = path.replace('[', ".").replace(']', "").replace('.', "/");
        Ok(Until::Field { pointer, value: value.to_owned() })
    }
}

/// How an object stands to what is waited for.
enum Standing {
    Done,
    /// Why not yet.
    NotYet(String),
}

impl Until {
    fn met(&self, object: &Value) -> Standing {
        match self {
            Until::Deleted => Standing::NotYet("it is still there".to_owned()),
            Until::Field { pointer, value } => {
                let found = match object.pointer(pointer) {
                    Some(Value::String(s)) => s.clone(),
                    Some(other) => other.to_string(),
                    None => "nothing".to_owned(),
                };
                if found == *value { Standing::Done } else { Standing::NotYet(format!("{pointer} is {found}")) }
            }
            Until::Condition { kind, status } => {
                let list = object.pointer("/status/conditions").and_then(Value::as_array);
                let named = |c: &&Value| c.get("type").and_then(Value::as_str).is_some_and(|t| t.eq_ignore_ascii_case(kind));
                let Some(found) = list.and_then(|l| l.iter().find(named)) else {
                    return Standing::NotYet(format!("nothing is said about {kind} yet"));
                };
                let word = |field: &str| found.get(field).and_then(Value::as_str).unwrap_or("-");
                let (now, reason, message) = (word("status"), word("reason"), word("message"));
                let number = |v: Option<&Value>| v.and_then(Value::as_u64).unwrap_or(0);
                if number(found.get("observedGeneration")) < number(object.pointer("/metadata/generation")) {
                    return Standing::NotYet(format!("{kind} is not said of the present spec yet ({now} before: {reason})"));
                }
                if now == status { Standing::Done } else { Standing::NotYet(format!("{kind}={now} {reason}: {message}")) }
            }
        }
    }
}

/// Of a kind those that there are now.
async fn meant(words: &[String], client: &Client) -> Result<Vec<(Kind, Name)>, Failure> {
    let mut objects = Vec::new();
    for subject in subject::subjects(words)? {
        match subject {
            Subject::One(kind, name) => objects.push((kind, name)),
            Subject::Kind(kind) => {
                let listed = client.get(&format!("{API}/{}", kind.plural())).await?;
                let items = listed.get("items").and_then(Value::as_array).into_iter().flatten();
                for text in items.filter_map(|object| object.pointer("/metadata/name").and_then(Value::as_str)) {
                    objects.push((kind, subject::name(text)?));
                }
            }
            Subject::Ports | Subject::Pauses | Subject::Leases | Subject::Discovered => {
                return Err(Failure::usage("objects are waited for: KIND, KIND NAME, or KIND/NAME"));
            }
        }
    }
    Ok(objects)
}

pub(super) async fn run(args: WaitArgs, client: &Client) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout.0;
    let objects = meant(&args.object, client).await?;
    if objects.is_empty() && args.until != Until::Deleted {
        return Err(Failure::new(Exit::NotFound, "there is nothing of that kind"));
    }
    for (kind, name) in objects {
        let mut last = None;
        match timeout_at(deadline, wait_for(client, kind, &name, &args.until, &mut last)).await {
            Ok(done) => done?,
            Err(_) => {
                let why = last.unwrap_or_else(|| "the controller did not say how it is".to_owned());
                return Err(Failure::failed(format!("timed out after {} waiting for {kind}/{name}: {}", args.timeout, clean(&why))));
            }
        }
        let word = if args.until == Until::Deleted { "deleted" } else { "condition met" };
        print(&format!("{kind}/{name} {word}\n"))?;
    }
    Ok(())
}

/// Watches one object from a list on, and again when the watch ends. `last` is the newest reason why it is not done. A controller that
/// answered once and goes away is waited for as well: it may be restarted.
async fn wait_for(client: &Client, kind: Kind, name: &Name, until: &Until, last: &mut Option<String>) -> Result<(), Failure> {
    let mut answered = false;
    loop {
        match watch_once(client, kind, name, until, last, &mut answered).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(failure) if answered && failure.exit == Exit::NoController => progress(kind, name, failure.message, last),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One list and the watch after it; whether what is waited for has come.
async fn watch_once(
    client: &Client,
    kind: Kind,
    name: &Name,
    until: &Until,
    last: &mut Option<String>,
    answered: &mut bool,
) -> Result<bool, Failure> {
    let field = format!("metadata.name={name}");
    let path = |pairs: &[(&str, &str)]| format!("{API}/{}{}", kind.plural(), query(pairs));
    let answer = client.get(&path(&[("fieldSelector", &field)])).await?;
    *answered = true;
    let version = answer.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("").to_owned();
    match answer.pointer("/items/0") {
        None if *until == Until::Deleted => return Ok(true),
        None => return Err(Failure::new(Exit::NotFound, format!("{kind}/{name} is not there"))),
        Some(object) if done(kind, name, until, object, last) => return Ok(true),
        Some(_) => {}
    }
    let pairs = [("fieldSelector", field.as_str()), ("watch", "true"), ("resourceVersion", version.as_str())];
    let mut lines = client.watch(&path(&pairs)).await?;
    while let Some(change) = lines.next().await? {
        let object = change.get("object").cloned().unwrap_or_default();
        match (change.get("type").and_then(Value::as_str), until) {
            (Some("DELETED"), Until::Deleted) => return Ok(true),
            (Some("DELETED"), _) => return Err(Failure::new(Exit::NotFound, format!("{kind}/{name} was deleted"))),
            (Some("ADDED" | "MODIFIED"), _) if done(kind, name, until, &object, last) => return Ok(true),
            (Some("ADDED" | "MODIFIED"), _) => {}
            _ => break,
        }
    }
    Ok(false)
}

/// Says why it is not done, where that is news.
fn progress(kind: Kind, name: &Name, why: String, last: &mut Option<String>) {
    if last.as_ref() != Some(&why) {
        say(&format!("{kind}/{name}: {}", clean(&why)));
        *last = Some(why);
    }
}

fn done(kind: Kind, name: &Name, until: &Until, object: &Value, last: &mut Option<String>) -> bool {
    match until.met(object) {
        Standing::Done => true,
        Standing::NotYet(why) => {
            progress(kind, name, why, last);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_waited_for() {
        let condition = |kind: &str, status: &str| Until::Condition { kind: kind.to_owned(), status: status.to_owned() };
        assert_eq!("condition=Ready".parse(), Ok(condition("Ready", "True")));
        assert_eq!("condition=Ready=false".parse(), Ok(condition("Ready", "False")));
        assert_eq!("delete".parse(), Ok(Until::Deleted));
        let power = Until::Field { pointer: "/status/conditions/0/type".to_owned(), value: "Ready".to_owned() };
        assert_eq!("jsonpath={.status.conditions[0].type}=Ready".parse(), Ok(power));
        for bad in ["", "Ready", "condition=", "condition=Ready=maybe", "jsonpath=x=1", "jsonpath={.a}"] {
            assert!(bad.parse::<Until>().is_err(), "{bad}");
        }
    }
}
