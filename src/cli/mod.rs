//! The command line: one binary, one file per verb (small ones share). Leaves out: everything that decides.
//!
//! Invariants: data on stdout, everything else on stderr; exit codes are stable (`failure`). Shown by `tests/cli.rs`.

mod actions;
mod apply;
mod change;
pub(crate) mod client;
mod completion;
pub(crate) mod demo;
mod describe;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod failure;
mod get;
mod image;
pub(crate) mod inspect;
mod inspect_dhcp;
pub(crate) mod output;
mod plan;
pub(crate) mod serve;
mod sim;
pub(crate) mod source;
mod subject;
mod wait;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use client::Client;
use failure::{Exit, Failure};

/// Gives server personas a body: watches power, boot and switch ports, compares them with manifests, corrects what differs.
#[derive(Parser)]
#[command(name = "embody", version, about, after_help = failure::EXIT_CODES, max_term_width = 120)]
pub(crate) struct Cli {
    /// Where the controller is: unix:///PATH. Default: the runtime directory of this user
    #[arg(long, global = true, env = "EMBODY_SERVER", value_name = "unix:///PATH")]
    server: Option<String>,
    /// As other tools have it: there are no namespaces here
    #[arg(short = 'n', long, global = true, value_name = "NAMESPACE", hide = true)]
    namespace: Option<String>,
    /// As other tools have it: there are no namespaces here
    #[arg(short = 'A', long, global = true, hide = true)]
    all_namespaces: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the controller
    Serve(serve::ServeArgs),
    /// Create or change the objects of files
    Apply(apply::ApplyArgs),
    /// Show what an apply would change; exit code 0: nothing, 1: something, above: trouble
    Diff(apply::DiffArgs),
    /// Show the exact writes that would be sent to devices, in order
    Plan(plan::PlanArgs),
    /// Let a binding's plan do what it would disrupt
    Approve(actions::ApproveArgs),
    /// Accept the identity that a server's BMC or a switch shows now; or `store`: the store as it is, although it holds less than it did
    Accept(actions::ObjectArgs),
    /// Say what is so of a server that cannot be asked: that its power is cut, or that it runs nothing of embody's
    Declare(actions::DeclareArgs),
    /// Boot something else than what is bound, once: a rescue persona, or the server's own disk
    Boot(actions::BootArgs),
    /// Restart what bindings run: off, seen off, on
    Restart(actions::ObjectArgs),
    /// Forget failures, refused credentials and back-off of an object, and look now
    Retry(actions::ObjectArgs),
    /// Make, show and remove images: what personas boot, as content that never changes
    #[command(subcommand)]
    Image(image::ImageVerb),
    /// Show objects, or switch ports
    Get(get::GetArgs),
    /// Show all about objects: spec, status, planes, waits, events
    Describe(describe::DescribeArgs),
    /// Say in one paragraph what is wanted, what is seen, what waits for what
    Why(describe::WhyArgs),
    /// Show what happened
    Events(describe::EventsArgs),
    /// Wait until objects have a condition, or are gone
    Wait(wait::WaitArgs),
    /// Set labels of objects, or take them away
    Label(change::MarkArgs),
    /// Set annotations of objects, or take them away
    Annotate(change::MarkArgs),
    /// Change parts of objects
    Patch(change::PatchArgs),
    /// Delete objects; no device is touched by that
    Delete(apply::DeleteArgs),
    /// Correct nothing on an object, on those that match a selector, or anywhere
    Pause(actions::PauseArgs),
    /// End a pause
    Resume(actions::ResumeArgs),
    /// Sign what starts are recognised by with another key; what the one before has signed is taken until this is said again
    RotateKey,
    /// Show the kinds of objects, and their short names
    ApiResources,
    /// Show which version this is, and which one the controller is
    Version,
    /// Say what a field means: KIND, or KIND.field.field
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of the manifests
    Schema(explain::SchemaArgs),
    /// Look at a device with no manifest at all
    #[command(subcommand)]
    Inspect(inspect::InspectVerb),
    /// Watch a simulated rack converge, and break it
    Demo(demo::DemoArgs),
    /// Hold the devices of manifests, or of a fleet, simulated on the loopback: to rehearse
    Sim(sim::SimArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// Files to read.
#[derive(Args, Clone, Debug)]
pub(crate) struct FileArgs {
    /// A file, a directory, or - for stdin; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    files: Vec<String>,
    /// Go into the directories of a directory
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// Parses the arguments, runs the verb, reports.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match run(cli) {
        Ok(code) => code,
        Err(failure) => report(&failure),
    };
    ExitCode::from(code)
}

fn report(failure: &Failure) -> u8 {
    if failure.quiet {
        return 0;
    }
    // Faults of manifests come rendered, with their own `error[…]`.
    let rendered = failure.message.starts_with("error") || failure.message.starts_with("warning");
    let prefix = if rendered { "" } else { "error: " };
    say(&format!("{prefix}{}", failure.message.trim_end()));
    if let Some(hint) = &failure.hint {
        say(&format!("hint: {hint}"));
    }
    failure.exit as u8
}

/// One line to stderr; nobody there is no error.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    let _nobody = writeln!(std::io::stderr().lock(), "{line}");
}

/// At least.
const WORKER_THREADS: usize = 4;

fn run(cli: Cli) -> Result<u8, Failure> {
    let many = matches!(cli.verb, Verb::Serve(_) | Verb::Demo(_) | Verb::Sim(_));
    let mut builder = if many { tokio::runtime::Builder::new_multi_thread() } else { tokio::runtime::Builder::new_current_thread() };
    // A list of a large site that is being made shall not keep the devices waiting.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = builder
        .worker_threads(cores.max(WORKER_THREADS))
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("cannot start: {e}")))?;
    let done = runtime.block_on(dispatch(cli));
    // A worker may be in the middle of a blocking call; the store is durable without it.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    done
}

async fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let server = cli.server.as_deref();
    let client = || Client::new(server);
    if cli.all_namespaces || cli.namespace.is_some() {
        say("note: there are no namespaces here: all objects are in one");
    }
    match cli.verb {
        Verb::Serve(args) => serve::run(args, server).await.map(|()| 0),
        Verb::Apply(args) => apply::apply(args, &client()?).await.map(|()| 0),
        Verb::Diff(args) => apply::diff(args, &client()?).await,
        Verb::Plan(args) => plan::run(args, &client()?).await.map(|()| 0),
        Verb::Approve(args) => actions::approve(args, &client()?).await.map(|()| 0),
        Verb::Accept(args) => actions::accept(args, &client()?).await.map(|()| 0),
        Verb::Declare(args) => actions::declare(args, &client()?).await.map(|()| 0),
        Verb::Boot(args) => actions::boot(args, &client()?).await.map(|()| 0),
        Verb::Restart(args) => actions::restart(args, &client()?).await.map(|()| 0),
        Verb::Retry(args) => actions::retry(args, &client()?).await.map(|()| 0),
        Verb::Image(verb) => image::run(verb, &client()?).await.map(|()| 0),
        Verb::Get(args) => get::run(args, &client()?).await.map(|()| 0),
        Verb::Describe(args) => describe::run(args, &client()?).await.map(|()| 0),
        Verb::Why(args) => describe::why(args, &client()?).await.map(|()| 0),
        Verb::Events(args) => describe::events(args, &client()?).await.map(|()| 0),
        Verb::Wait(args) => wait::run(args, &client()?).await.map(|()| 0),
        Verb::Label(args) => change::mark(args, "labels", "labelled", &client()?).await.map(|()| 0),
        Verb::Annotate(args) => change::mark(args, "annotations", "annotated", &client()?).await.map(|()| 0),
        Verb::Patch(args) => change::patch(args, &client()?).await.map(|()| 0),
        Verb::Delete(args) => apply::delete(args, &client()?).await.map(|()| 0),
        Verb::Pause(args) => actions::pause(args, &client()?).await.map(|()| 0),
        Verb::RotateKey => actions::rotate_key(&client()?).await.map(|()| 0),
        Verb::Resume(args) => actions::resume(args, &client()?).await.map(|()| 0),
        Verb::ApiResources => explain::kinds().map(|()| 0),
        Verb::Version => version(&client()?).await.map(|()| 0),
        Verb::Explain(args) => explain::run(args).map(|()| 0),
        Verb::Schema(args) => explain::schema(args).map(|()| 0),
        Verb::Inspect(verb) => inspect::run(verb).await.map(|()| 0),
        Verb::Sim(args) => sim::run(args).await.map(|()| 0),
        Verb::Demo(args) => demo::run(args, server).await.map(|()| 0),
        Verb::Completion(args) => completion::run(args).map(|()| 0),
    }
}

/// Its own version is told whoever answers.
async fn version(client: &Client) -> Result<(), Failure> {
    output::print(&format!("embody {}\n", env!("CARGO_PKG_VERSION")))?;
    let answer = client.get("/version").await?;
    let of = answer.get("embody").and_then(serde_json::Value::as_str).unwrap_or("of an unknown version");
    Ok(output::print(&format!("controller {}\n", output::clean(of)))?)
}

/// A failure of `diff`: code 1 means differences there.
fn trouble(failure: Failure) -> Failure {
    if failure.exit == Exit::Failed { Failure { exit: Exit::Usage, ..failure } } else { failure }
}
