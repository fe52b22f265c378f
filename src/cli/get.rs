//! `embody get`: objects and switch ports as tables, YAML, JSON or names; with `-w` as they change.
//!
//! Leaves out: what the columns hold (`api::columns`). Invariant: with `-w` a change is shown once, and a gap in the watch is closed by
//! listing again. Shown by `tests/cli.rs`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::client::{API, Client, path_of, query};
use super::failure::{Exit, Failure};
use super::output::{self, Format, Table, print};
use super::say;
use super::subject::{Subject, subjects};
use crate::control::operator::{DiscoveredRow, LeaseRow, PauseRow, PortRow, StartRow};
use crate::model::kind::API_VERSION;
use crate::model::{Kind, Name};
use crate::server::api::columns::{NOTHING, age, cells, columns, drift};

#[derive(Args)]
pub(super) struct GetArgs {
    /// A kind (bindings, servers, …), several with commas, KIND NAME…, KIND/NAME…, ports, or all
    #[arg(value_name = "KIND [NAME]", required = true)]
    what: Vec<String>,
    /// Instead of a table; `wide` is a table with more columns
    #[arg(short = 'o', long, value_enum)]
    output: Option<Format>,
    /// Go on showing changes
    #[arg(short = 'w', long)]
    watch: bool,
    /// Only objects with these labels: a=b,c!=d,e in (x,y)
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", hide_default_value = true)]
    selector: String,
    /// Only objects with these values, of those that columns show: spec.persona=web,status.power!=On
    #[arg(long, value_name = "FIELDS", default_value = "", hide_default_value = true)]
    field_selector: String,
    /// A table without its first line
    #[arg(long)]
    no_headers: bool,
    /// Labels as a last column
    #[arg(long)]
    show_labels: bool,
    /// These labels, with commas between, as columns
    #[arg(short = 'L', long, value_name = "KEYS", value_delimiter = ',')]
    label_columns: Vec<String>,
}

impl GetArgs {
    fn wide(&self) -> bool {
        self.output == Some(Format::Wide)
    }

    fn heads(&self, kind: Kind) -> Vec<String> {
        let (narrow, more) = columns(kind);
        let own = narrow.iter().chain(more.iter().filter(|_| self.wide())).map(|head| (*head).to_owned());
        let labels = self.label_columns.iter().map(|key| key.rsplit('/').next().unwrap_or(key).to_uppercase());
        own.chain(labels).chain(self.show_labels.then(|| "LABELS".to_owned())).collect()
    }

    fn row(&self, kind: Kind, object: &Value) -> Vec<String> {
        let mut row = cells(kind, object);
        if !self.wide() {
            row.truncate(columns(kind).0.len());
        }
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        let text = |value: &Value| output::clean(value.as_str().unwrap_or_default());
        let label = |key: &String| labels.and_then(|all| all.get(key)).map_or(String::new(), text);
        row.extend(self.label_columns.iter().map(label));
        if self.show_labels {
            let all: Vec<String> =
                labels.into_iter().flatten().map(|(key, value)| format!("{}={}", output::clean(key), text(value))).collect();
            row.push(if all.is_empty() { "<none>".to_owned() } else { all.join(",") });
        }
        row
    }
}

pub(super) async fn run(args: GetArgs, client: &Client) -> Result<(), Failure> {
    let subjects = subjects(&args.what)?;
    let named = subjects.iter().any(|s| matches!(s, Subject::One(..)));
    if named && !(args.selector.is_empty() && args.field_selector.is_empty()) {
        return Err(Failure::usage("a name and a selector (-l, --field-selector) exclude each other"));
    }
    if args.watch {
        return match subjects.as_slice() {
            [Subject::Kind(kind)] => watch(client, *kind, None, &args).await,
            [Subject::One(kind, name)] => watch(client, *kind, Some(name), &args).await,
            _ => Err(Failure::usage("-w shows the changes of one kind, or of one object")),
        };
    }
    let (mut groups, mut missing) = (Vec::new(), None);
    for subject in &subjects {
        match fetch(client, subject, &args).await {
            Ok((kind, items)) => add(&mut groups, kind, items),
            // The others are still shown.
            Err(failure) if failure.exit == Exit::NotFound && subjects.len() > 1 => {
                if let Some(Failure { message, .. }) = missing.replace(failure) {
                    say(&format!("error: {message}"));
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    let single = subjects.len() == 1 && named;
    let is_servers = |(of, _): &Group| *of == Of::Kind(Kind::Server);
    let starts = match args.output {
        Some(Format::Wide) if groups.iter().any(is_servers) => starts(client, None).await?,
        _ => Vec::new(),
    };
    show(&groups, &args, single, &starts)?;
    missing.map_or(Ok(()), Err)
}

/// What rows are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Kind(Kind),
    Ports,
    Pauses,
    Leases,
    Discovered,
}

type Group = (Of, Vec<Value>);

fn add(groups: &mut Vec<Group>, of: Of, items: Vec<Value>) {
    match groups.iter_mut().find(|(o, _)| *o == of) {
        Some((_, there)) => there.extend(items),
        None => groups.push((of, items)),
    }
}

async fn fetch(client: &Client, subject: &Subject, args: &GetArgs) -> Result<Group, Failure> {
    let list = |mut answer: Value| match answer.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    Ok(match subject {
        Subject::One(kind, name) => (Of::Kind(*kind), vec![client.get(&path_of(*kind, name)).await?]),
        Subject::Kind(kind) => {
            let selectors = [("labelSelector", args.selector.as_str()), ("fieldSelector", args.field_selector.as_str())];
            let path = format!("{API}/{}{}", kind.plural(), query(&selectors));
            (Of::Kind(*kind), list(client.get(&path).await?))
        }
        Subject::Ports => (Of::Ports, list(client.get(&format!("{API}/ports")).await?)),
        Subject::Leases => (Of::Leases, list(client.get(&format!("{API}/leases")).await?)),
        Subject::Discovered => (Of::Discovered, list(client.get(&format!("{API}/discovered")).await?)),
        Subject::Pauses => (Of::Pauses, list(client.get(&format!("{API}/pauses")).await?)),
    })
}

fn show(groups: &[Group], args: &GetArgs, single: bool, starts: &[StartRow]) -> Result<(), Failure> {
    let all = || groups.iter().flat_map(|(_, items)| items);
    match args.output {
        Some(Format::Json | Format::Yaml) => {
            let items: Vec<&Value> = all().collect();
            let value = match items.as_slice() {
                [one] if single => (*one).clone(),
                items => json!({ "kind": "List", "apiVersion": API_VERSION, "items": items }),
            };
            Ok(print(&if args.output == Some(Format::Json) { output::json(&value) } else { output::yaml(&value) })?)
        }
        Some(Format::Name) => {
            let name = |(of, item): (&Of, &Value)| match of {
                Of::Kind(kind) => format!("{}/{}\n", kind.singular().to_lowercase(), cells(*kind, item).swap_remove(0)),
                Of::Ports => format!("{}/{}\n", port_cells(item)[0], port_cells(item)[1]),
                Of::Pauses => format!("{}\n", pause_cells(item)[0]),
                Of::Leases => format!("{}\n", lease_cells(item)[0]),
                Of::Discovered => format!("{}\n", discovered_cells(item)[0]),
            };
            let lines: String = groups.iter().flat_map(|(k, items)| items.iter().map(move |i| (k, i))).map(name).collect();
            Ok(print(&lines)?)
        }
        Some(Format::Manifest) => match groups {
            [(Of::Discovered, items)] => Ok(print(&manifests(items))?),
            _ => Err(Failure::usage("`-o manifest` is for `get discovered`; `-o yaml` shows objects")),
        },
        Some(Format::Wide) | None => tables(groups, args, starts),
    }
}

fn tables(groups: &[Group], args: &GetArgs, starts: &[StartRow]) -> Result<(), Failure> {
    let mut shown = 0;
    for (of, items) in groups.iter().filter(|(_, items)| !items.is_empty()) {
        let words = |heads: &[&str]| heads.iter().map(|head| (*head).to_owned()).collect::<Vec<String>>();
        let (heads, rows): (Vec<String>, Vec<Vec<String>>) = match of {
            Of::Kind(Kind::Server) if args.wide() => {
                let last = |server: &Value| vec![last_stage(server, starts)];
                let rows = items.iter().map(|server| [args.row(Kind::Server, server), last(server)].concat()).collect();
                ([args.heads(Kind::Server), words(&["LAST-START"])].concat(), rows)
            }
            Of::Kind(kind) => (args.heads(*kind), items.iter().map(|item| args.row(*kind, item)).collect()),
            Of::Ports => (words(&PORT_HEADS), items.iter().map(port_cells).collect()),
            Of::Pauses => (words(&PAUSE_HEADS), items.iter().map(pause_cells).collect()),
            Of::Leases => (words(&LEASE_HEADS), items.iter().map(lease_cells).collect()),
            Of::Discovered => (words(&DISCOVERED_HEADS), items.iter().map(discovered_cells).collect()),
        };
        if shown > 0 {
            print("\n")?;
        }
        shown += 1;
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        print(&if args.no_headers { output::rows(&heads, &rows) } else { output::table(&heads, &rows) })?;
    }
    if shown == 0 {
        say("Nothing found.");
    }
    Ok(())
}

/// How far the last starts came, by what the controller that acts has seen of them.
pub(super) async fn starts(client: &Client, server: Option<&str>) -> Result<Vec<StartRow>, Failure> {
    let asked = server.map(|server| query(&[("server", server)])).unwrap_or_default();
    let mut answer = client.get(&format!("{API}/starts{asked}")).await?;
    let rows = answer.get_mut("items").map(Value::take).unwrap_or_default();
    serde_json::from_value(rows).map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))
}

/// `hello 3m ago`.
fn last_stage(server: &Value, starts: &[StartRow]) -> String {
    let name = server.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let Some(start) = starts.iter().find(|start| start.server.as_str() == name) else { return NOTHING.to_owned() };
    let stage = start.stages.last().map_or(NOTHING.to_owned(), |last| format!("{} {} ago", last.stage, last.ago));
    let failed = start.failed.as_ref().map(|failed| format!(": {failed}")).unwrap_or_default();
    output::clean(&format!("{stage}{failed}"))
}

const PORT_HEADS: [&str; 6] = ["SWITCH", "PORT", "LINK", "VLAN", "WIRED-TO", "NOTE"];

fn port_cells(row: &Value) -> Vec<String> {
    let Ok(port) = serde_json::from_value::<PortRow>(row.clone()) else {
        return vec!["?".to_owned(); PORT_HEADS.len()];
    };
    let or_nothing = |v: Option<String>| v.unwrap_or_else(|| NOTHING.to_owned());
    let vlan = match (&port.have, &port.want) {
        (have, Some(want)) => drift(have.as_deref().unwrap_or("Unknown"), want, false),
        (have, None) => or_nothing(have.clone()),
    };
    vec![port.switch.to_string(), port.port, port.link, vlan, or_nothing(port.wired_to), or_nothing(port.note)]
}

const PAUSE_HEADS: [&str; 6] = ["PAUSED", "BY", "SINCE", "UNTIL", "REASON", "ENDED-BY"];

fn pause_cells(row: &Value) -> Vec<String> {
    let Ok(PauseRow { what, by, reason, since, until, resume }) = serde_json::from_value::<PauseRow>(row.clone()) else {
        return vec!["?".to_owned(); PAUSE_HEADS.len()];
    };
    vec![what, by, since, until.unwrap_or_else(|| "resumed".to_owned()), reason, resume]
}

const LEASE_HEADS: [&str; 5] = ["ADDRESS", "MAC", "NETWORK", "SERVER", "AGE"];

fn lease_cells(row: &Value) -> Vec<String> {
    let Ok(LeaseRow { address, mac, network, server, since }) = serde_json::from_value::<LeaseRow>(row.clone()) else {
        return vec!["?".to_owned(); LEASE_HEADS.len()];
    };
    vec![address, mac, network, server.unwrap_or_else(|| NOTHING.to_owned()), age(&since)]
}

const DISCOVERED_HEADS: [&str; 6] = ["MAC", "UUID", "ASKS-AS", "NETWORK", "RELAY", "AGE"];

fn discovered_cells(row: &Value) -> Vec<String> {
    let Ok(DiscoveredRow { mac, uuid, arch: _, network, relay, at, what }) = serde_json::from_value::<DiscoveredRow>(row.clone()) else {
        return vec!["?".to_owned(); DISCOVERED_HEADS.len()];
    };
    let or_nothing = |v: Option<String>| v.unwrap_or_else(|| NOTHING.to_owned());
    vec![mac, or_nothing(uuid), what, network, or_nothing(relay), age(&at)]
}

/// Server objects to start from, of machines that asked and that no manifest names.
fn manifests(items: &[Value]) -> String {
    let rows = items.iter().filter_map(|row| serde_json::from_value::<DiscoveredRow>(row.clone()).ok());
    rows.map(|row| {
        let firmware = if row.arch.as_deref().is_none_or(|arch| arch == "0") { "bios" } else { "uefi" };
        let uuid = row.uuid.map(|uuid| format!("  # SMBIOS UUID {uuid}")).unwrap_or_default();
        format!(
            "---\napiVersion: {API_VERSION}\nkind: Server\nmetadata: {{ name: new-{} }}{uuid}\nspec:\n  firmware: {firmware}\n  bmc: {{ address: 192.0.2.1, \
             secretRef: {{ name: bmc }} }}    # fill in\n  nics: [ {{ name: nic1, mac: \"{}\", boot: true }} ]    # and its switch and port\n",
            row.mac.replace(':', ""),
            row.mac
        )
    })
    .collect()
}

async fn watch(client: &Client, kind: Kind, name: Option<&Name>, args: &GetArgs) -> Result<(), Failure> {
    let field = name.map_or_else(|| args.field_selector.clone(), |n| format!("metadata.name={n}"));
    let heads = args.heads(kind);
    let base = [("labelSelector", args.selector.as_str()), ("fieldSelector", field.as_str())];
    let mut table = None;
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let answer = client.get(&format!("{API}/{}{}", kind.plural(), query(&base))).await?;
        let version = answer.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("").to_owned();
        let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        if table.is_none() && matches!(args.output, None | Some(Format::Wide)) {
            let rows: Vec<Vec<String>> = items.iter().map(|item| args.row(kind, item)).collect();
            let fresh = table.insert(Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows));
            if !args.no_headers {
                print(&fresh.line(&heads))?;
            }
        }
        for item in &items {
            one(kind, item, args, table.as_ref(), &mut shown)?;
        }
        let pairs = [base[0], base[1], ("watch", "true"), ("resourceVersion", version.as_str())];
        let mut lines = client.watch(&format!("{API}/{}{}", kind.plural(), query(&pairs))).await?;
        while let Some(change) = lines.next().await? {
            let object = change.get("object").cloned().unwrap_or_default();
            // The history is gone, or the watch was cut off: list again. What was shown already is not shown twice.
            if change.get("type").and_then(Value::as_str) == Some("ERROR") {
                break;
            }
            one(kind, &object, args, table.as_ref(), &mut shown)?;
        }
        // Where the controller stopped, the next list says so.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn one(kind: Kind, object: &Value, args: &GetArgs, table: Option<&Table>, shown: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let (name, version) = (text("/metadata/name"), text("/metadata/resourceVersion"));
    if shown.insert(name.clone(), version.clone()).is_some_and(|before| before == version) {
        return Ok(());
    }
    Ok(print(&match (args.output, table) {
        (Some(Format::Json), _) => output::json(object),
        (Some(Format::Yaml), _) => format!("---\n{}", output::yaml(object)),
        (Some(Format::Name), _) => format!("{}/{name}\n", kind.singular().to_lowercase()),
        (Some(Format::Wide) | None, Some(table)) => table.line(&args.row(kind, object)),
        (Some(Format::Wide | Format::Manifest) | None, _) => String::new(),
    })?)
}
