//! `embody demo`: its flags. Leaves out: the demo itself, which is the simulator's. Shown by `tests/cli.rs`.

use clap::{Args, Subcommand, ValueEnum};

use super::failure::Failure;

#[derive(Args)]
pub struct DemoArgs {
    #[command(subcommand)]
    pub verb: Option<DemoVerb>,
}

#[derive(Subcommand)]
pub enum DemoVerb {
    /// Break something in the running demo, and watch the repair
    Break {
        /// What to break
        what: Breakage,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Breakage {
    /// Somebody changes a switch port by hand
    Port,
    /// Somebody presses a power button
    Power,
    /// A BMC falls silent
    Bmc,
}

/// The seam to the simulator.
pub async fn run(args: DemoArgs, server: Option<&str>) -> Result<(), Failure> {
    let breaks = args.verb.map(|DemoVerb::Break { what }| what);
    tracing::debug!(?breaks, server, "demo");
    Err(Failure::failed("this build has no demo"))
}
