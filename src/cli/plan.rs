//! `embody plan`: the whole future as far as it can be seen, op by op, each with the writes that would be sent. Leaves out: how it is found
//! (`plan::forecast`, `Driver::preview`).
//!
//! Shown by `tests/cli.rs`.

use clap::Args;
use serde_json::{Value, json};

use super::FileArgs;
use super::client::{API, Client};
use super::failure::Failure;
use super::output::{clean, print, table};
use super::source;
use crate::control::operator::Forecast;
use crate::model::Object;

#[derive(Args)]
pub(super) struct PlanArgs {
    /// With these files laid over what is there
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<String>,
    /// Go into the directories of a directory
    #[arg(short = 'R', long)]
    recursive: bool,
    /// `json` for programs
    #[arg(short = 'o', long, value_name = "json")]
    output: Option<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

pub(super) async fn run(args: PlanArgs, client: &Client) -> Result<(), Failure> {
    let objects = if args.files.is_empty() {
        Vec::new()
    } else {
        source::load_with(&source::read(&FileArgs { files: args.files, recursive: args.recursive }), client).await?
    };
    let items: Vec<Value> = objects.iter().map(Object::to_json).collect();
    let answer = client.post(&format!("{API}/plan"), &json!({ "items": items })).await?;
    if args.output == Some(Output::Json) {
        return Ok(print(&super::output::json(&answer))?);
    }
    let forecast: Forecast =
        serde_json::from_value(answer).map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))?;
    Ok(print(&show(&forecast))?)
}

fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// `3 servers affected, 2 link flaps, 0 power-offs, 1 held`, then every step in order with its writes, then what would not go on.
pub(super) fn show(forecast: &Forecast) -> String {
    let servers = count(forecast.servers, "server");
    let (flaps, offs) = (count(forecast.link_flaps, "link flap"), count(forecast.power_offs, "power-off"));
    let mut out = format!("{servers} affected, {flaps}, {offs}, {} held\n", forecast.held);
    if !forecast.steps.is_empty() {
        let steps = forecast.steps.iter();
        let rows: Vec<Vec<String>> =
            steps.map(|s| vec![s.wave.to_string(), s.server.to_string(), s.op.clone(), s.disruption.clone(), s.because.clone()]).collect();
        out.push('\n');
        let lines = table(&["WAVE", "SERVER", "OPERATION", "DISRUPTION", "BECAUSE"], &rows);
        // The first line is the heads; below each step stand its writes.
        let writes = std::iter::once(&[][..]).chain(forecast.steps.iter().map(|s| s.writes.as_slice()));
        for (line, writes) in lines.lines().zip(writes) {
            out.push_str(line);
            out.push('\n');
            out.extend(writes.iter().map(|write| format!("       {}\n", clean(write))));
        }
    }
    for (title, list) in [("Waits", &forecast.waits), ("Problems", &forecast.problems)] {
        if !list.is_empty() {
            out.push_str(&format!("\n{title}:\n"));
            out.extend(list.iter().map(|line| format!("  {}\n", clean(line))));
        }
    }
    out
}
