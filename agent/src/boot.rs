//! The work of the initrd, in its order: network, who this system is, root, what the system needs to know.
//!
//! Leaves out: becoming the system, which only process 1 can. Invariant: it ends with one line on its standard output, an outcome or words why not,
//! even when it panics. Shown by `tests/guests.py`.

use std::io::Write;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::command_line::{CommandLine, WrongParameter};
use crate::console::{chain, say};
use crate::controller::{Run, Said};
use crate::exchange::{self, ExchangeError, Known};
use crate::modules::Modules;
use crate::network::{self, Interface, NetworkError};
use crate::root::{self, RootError};
use crate::settle::{self, SettleError};

/// What process 1 is to become.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Outcome {
    /// A path below the new root.
    pub init: String,
    pub has_systemd: bool,
    pub is_read_only: bool,
}

#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error(transparent)]
    Parameter(#[from] WrongParameter),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Settle(#[from] SettleError),
}

pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| end(&Err(format!("the first program panicked: {panic}")))));
    end(&boot().map_err(|error| chain(&error)));
    ExitCode::SUCCESS
}

fn end(outcome: &Result<Outcome, String>) {
    let line = serde_json::to_string(outcome).unwrap_or_default();
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn boot() -> Result<Outcome, BootError> {
    say(concat!("embody-agent ", env!("CARGO_PKG_VERSION")));
    let line = CommandLine::of_this_start();
    let mut run = line.run().map(Run::new);
    let mut modules = Modules::of_this_initrd(line.clone());
    let (card, lease) = network::up(&line, &mut modules)?;
    tell(&mut run, "initrd");
    let known = known(&line, &card)?;
    root::mount_all(&line, &mut modules)?;
    tell(&mut run, "root");
    Ok(settle::settle(&line, &card, &lease, known.as_ref())?)
}

/// The name is the kernel's before the root is mounted: NFS tells it to the server of the root.
fn known(line: &CommandLine, card: &Interface) -> Result<Option<Known>, ExchangeError> {
    let Some(exchange) = line.exchange()? else { return Ok(None) };
    let known = exchange::ask(&exchange, &card.mac, line.patience())?;
    let name = &known.identity.hostname;
    if !name.is_empty() {
        match rustix::system::sethostname(name.as_bytes()) {
            Ok(()) => say(&format!("this system is {name}")),
            Err(error) => say(&format!("the kernel does not take the name {name}: {error}")),
        }
    }
    Ok(Some(known))
}

/// Only a hello is binding: what a controller says of a stage, just after it took over, may be that it does not know this start yet.
fn tell(run: &mut Option<Run>, stage: &str) {
    if run.as_ref().is_some_and(|run| run.stage(stage) == Said::Superseded) {
        *run = None;
    }
}
