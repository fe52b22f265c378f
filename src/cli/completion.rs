//! `embody completion`: scripts for shells. Leaves out: names of objects. Shown by `tests/cli.rs`.

use clap::{Args, CommandFactory};

use super::failure::Failure;
use super::output::print;

#[derive(Args)]
pub(super) struct CompletionArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "embody", &mut script);
    Ok(print(&String::from_utf8_lossy(&script))?)
}
