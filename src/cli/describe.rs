//! `describe`, `why` and `events`: what people read when something is not as they desired state. Leaves out: finding the reasons.
//!
//! Shown by `tests/cli.rs`.

use clap::Args;
use serde_json::{Map, Value};

use super::client::{API, Client, path_of, query};
use super::failure::{Exit, Failure};
use super::get;
use super::output::{clean, clean_lines, print, table, yaml};
use super::subject::{self, Subject};
use crate::control::operator::{StageRow, StartRow};
use crate::model::status::Event;
use crate::model::{Kind, Name};
use crate::server::api::columns::{NOTHING, age, drift};

#[derive(Args)]
pub(super) struct DescribeArgs {
    /// KIND, KIND NAME, or KIND/NAME
    #[arg(value_name = "KIND [NAME]", required = true)]
    what: Vec<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", hide_default_value = true)]
    selector: String,
}

#[derive(Args)]
pub(super) struct WhyArgs {
    /// NAME (looked for among bindings first), KIND/NAME, or KIND NAME
    #[arg(value_name = "[KIND/]NAME", required = true)]
    object: Vec<String>,
}

#[derive(Args)]
pub(super) struct EventsArgs {
    /// Only those of this object: NAME, KIND/NAME, or KIND NAME
    #[arg(value_name = "[KIND/]NAME")]
    object: Vec<String>,
    /// At most this many, the newest
    #[arg(long, default_value_t = 200)]
    last: usize,
}

/// A name alone is looked for, as `why` does: what is no kind is meant as one.
async fn described(words: &[String], client: &Client) -> Result<Vec<Subject>, Failure> {
    match (subject::subjects(words), words) {
        (Err(no_kind), [one]) if one.parse::<Name>().is_ok() => match subject::look_up(client, words).await {
            Ok((kind, name)) => Ok(vec![Subject::One(kind, name)]),
            Err(failure) if failure.exit == Exit::NotFound => Err(no_kind),
            Err(failure) => Err(failure),
        },
        (subjects, _) => subjects,
    }
}

pub(super) async fn run(args: DescribeArgs, client: &Client) -> Result<(), Failure> {
    let mut objects = Vec::new();
    for subject in described(&args.what, client).await? {
        match subject {
            Subject::One(kind, name) => objects.push((kind, client.get(&path_of(kind, &name)).await?)),
            Subject::Kind(kind) => {
                let path = format!("{API}/{}{}", kind.plural(), query(&[("labelSelector", &args.selector)]));
                let answer = client.get(&path).await?;
                let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
                objects.extend(items.into_iter().map(|i| (kind, i)));
            }
            Subject::Pauses => return Err(Failure::usage("pauses are not described; see `get pauses`")),
            Subject::Leases => return Err(Failure::usage("leases are not described; see `get leases`")),
            Subject::Discovered => return Err(Failure::usage("machines that no manifest names are not described; see `get discovered`")),
            Subject::Ports => return Err(Failure::usage("ports are not described; see `get ports`")),
        }
    }
    let events = fetch_events(client).await?;
    let mut texts = Vec::with_capacity(objects.len());
    for (kind, object) in &objects {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).filter(|_| *kind == Kind::Server);
        let start = match name {
            Some(name) => get::starts(client, Some(name)).await?.pop(),
            None => None,
        };
        texts.push(describe(*kind, object, start.as_ref(), &events));
    }
    Ok(print(&texts.join("\n\n"))?)
}

fn indented(value: &Value) -> String {
    clean_lines(&yaml(value)).lines().map(|l| format!("  {l}\n")).collect()
}

fn word(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(s)) if !s.is_empty() => clean(s),
        None | Some(Value::Null | Value::String(_)) => NOTHING.to_owned(),
        Some(other) => clean(&other.to_string()),
    }
}

fn describe(kind: Kind, object: &Value, start: Option<&StartRow>, events: &[Event]) -> String {
    let at = |pointer: &str| object.pointer(pointer);
    let name = word(at("/metadata/name"));
    let mut out = format!("Name:         {name}\nKind:         {kind}\n");
    for (title, field) in [("Labels", "labels"), ("Annotations", "annotations")] {
        let pairs = at(&format!("/metadata/{field}")).and_then(Value::as_object);
        let list = pairs.map(|p| p.iter().map(|(k, v)| format!("{}={}", clean(k), word(Some(v)))).collect::<Vec<_>>().join(", "));
        out.push_str(&format!("{:<14}{}\n", format!("{title}:"), list.unwrap_or_else(|| NOTHING.to_owned())));
    }
    let created = word(at("/metadata/creationTimestamp"));
    out.push_str(&format!("Created:      {created} ({} ago)\nGeneration:   {}\n", age(&created), word(at("/metadata/generation"))));
    for field in ["spec", "stringData", "from"] {
        if let Some(value) = object.get(field) {
            out.push_str(&format!("{}:\n{}", title(field), indented(value)));
        }
    }
    if let Some(status) = at("/status").and_then(Value::as_object) {
        out.push_str(&describe_status(status));
    }
    if let Some(start) = start {
        out.push_str(&describe_start(start));
    }
    let own = format!("{kind}/{name}");
    let own: Vec<Event> = events.iter().filter(|e| e.regarding == own).cloned().collect();
    if own.is_empty() {
        out.push_str("Events:       none\n");
    } else {
        out.push_str(&format!("Events:\n{}", indent(&event_table(&own, false))));
    }
    out
}

fn describe_start(start: &StartRow) -> String {
    let or_nothing = |text: &Option<String>| text.as_deref().map_or(NOTHING.to_owned(), clean);
    let cells = |stage: &StageRow| {
        vec![clean(&stage.stage), clean(&stage.ago), or_nothing(&stage.took), or_nothing(&stage.usually), clean(&stage.what)]
    };
    let rows: Vec<Vec<String>> = start.stages.iter().map(cells).collect();
    let failed = start.failed.as_ref().map(|failed| format!("  {}\n", clean(failed))).unwrap_or_default();
    format!("Last start:\n{}{failed}", indent(&table(&["STAGE", "AGO", "TOOK", "USUALLY", "WHAT"], &rows)))
}

fn title(field: &str) -> String {
    let mut chars = field.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn indent(text: &str) -> String {
    text.lines().map(|l| format!("  {l}\n")).collect()
}

fn list<'a>(status: &'a Map<String, Value>, field: &str) -> &'a [Value] {
    status.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn describe_status(status: &Map<String, Value>) -> String {
    let mut out = String::new();
    if let Some(planes) = status.get("planes").and_then(Value::as_object).filter(|p| !p.is_empty()) {
        let cells = |(plane, p): (&String, &Value)| {
            let in_sync = p.get("inSync").and_then(Value::as_bool).unwrap_or(false);
            let since = p.get("since").and_then(Value::as_str).map_or(NOTHING.to_owned(), age);
            vec![plane.clone(), drift(&word(p.get("have")), &word(p.get("want")), in_sync), since, word(p.get("source"))]
        };
        let rows: Vec<Vec<String>> = planes.iter().map(cells).collect();
        out.push_str(&format!("Planes:\n{}", indent(&table(&["PLANE", "HAVE→WANT", "SINCE", "SOURCE"], &rows))));
    }
    let conditions = list(status, "conditions");
    if !conditions.is_empty() {
        let cells = |c: &Value| {
            let since = c.get("lastTransitionTime").and_then(Value::as_str).map_or(NOTHING.to_owned(), age);
            vec![word(c.get("type")), word(c.get("status")), since, word(c.get("reason")), word(c.get("message"))]
        };
        let rows: Vec<Vec<String>> = conditions.iter().map(cells).collect();
        out.push_str(&format!("Conditions:\n{}", indent(&table(&["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"], &rows))));
    }
    let waits = list(status, "waits");
    if !waits.is_empty() {
        let cells = |w: &Value| {
            let since = w.get("since").and_then(Value::as_str).map_or(NOTHING.to_owned(), age);
            vec![word(w.get("reason")), since, word(w.get("message")), word(w.get("decidedAt"))]
        };
        let rows: Vec<Vec<String>> = waits.iter().map(cells).collect();
        out.push_str(&format!("Waits:\n{}", indent(&table(&["REASON", "SINCE", "MESSAGE", "DECIDED-AT"], &rows))));
    }
    for field in ["pending", "obligations"] {
        let items = list(status, field);
        if !items.is_empty() {
            let lines: String = items.iter().map(|i| format!("  {}\n", word(Some(i)))).collect();
            out.push_str(&format!("{}:\n{lines}", title(field)));
        }
    }
    let rest: Map<String, Value> = status
        .iter()
        .filter(|(k, _)| !["planes", "conditions", "waits", "pending", "obligations"].contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if !rest.is_empty() {
        out.push_str(&format!("Status:\n{}", indented(&Value::Object(rest))));
    }
    out
}

pub(super) async fn why(args: WhyArgs, client: &Client) -> Result<(), Failure> {
    let (kind, name) = subject::look_up(client, &args.object).await?;
    let answer = client.get(&format!("{}/why", path_of(kind, &name))).await?;
    Ok(print(&format!("{}\n", clean(answer.get("message").and_then(Value::as_str).unwrap_or(""))))?)
}

async fn fetch_events(client: &Client) -> Result<Vec<Event>, Failure> {
    let mut answer = client.get(&format!("{API}/events")).await?;
    let items = answer.get_mut("items").map(Value::take).unwrap_or_default();
    serde_json::from_value(items).map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))
}

fn event_table(events: &[Event], regarding: bool) -> String {
    let row = |e: &Event| {
        let object = regarding.then(|| e.regarding.clone());
        [age(&e.time), e.kind.clone(), e.reason.clone()].into_iter().chain(object).chain([e.message.clone()]).map(|c| clean(&c)).collect()
    };
    let heads: &[&str] =
        if regarding { &["LAST-SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"] } else { &["LAST-SEEN", "TYPE", "REASON", "MESSAGE"] };
    table(heads, &events.iter().map(row).collect::<Vec<_>>())
}

pub(super) async fn events(args: EventsArgs, client: &Client) -> Result<(), Failure> {
    let object = match args.object.as_slice() {
        [] => None,
        // Events outlive their object: a name with its kind need not exist.
        words => Some(subject::look_up(client, words).await?),
    };
    let own = object.map(|(kind, name): (Kind, Name)| format!("{kind}/{name}"));
    let mut events = fetch_events(client).await?;
    events.retain(|e| own.as_ref().is_none_or(|o| e.regarding == *o));
    let skip = events.len().saturating_sub(args.last);
    if events.is_empty() {
        super::say("Nothing happened yet.");
        return Ok(());
    }
    Ok(print(&event_table(&events[skip..], true))?)
}
