//! How a command ends when it does not succeed: a message, and an exit code that scripts can rely on.
//!
//! Invariant: the codes never change their meaning; `--help` lists them. Shown by `tests/cli.rs`.

/// Documented in `embody --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Failed, invalid manifests, a wait that timed out; of `diff`: there are differences.
    Failed = 1,
    /// Wrong usage; of `diff`: trouble.
    Usage = 2,
    /// No controller answers.
    NoController = 3,
    /// No such object.
    NotFound = 4,
    /// In conflict with something, or refused.
    Refused = 5,
}

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done; of `diff`: no differences
  1  failed, invalid manifests, a wait that timed out; of `diff`: differences
  2  wrong usage; of `diff`, any code above 1 is trouble
  3  no controller answers
  4  no such object
  5  in conflict, or refused

Environment:
  EMBODY_SERVER  where the controller is, as --server
  EMBODY_LOG     what `serve` logs: info, debug, embody::drivers=trace
  NO_COLOR       no colours";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// Printed as it is where it has several lines, else after `error: `.
    pub message: String,
    pub hint: Option<String>,
    /// The reader of stdout went away: nothing is wrong, and there is nothing to say.
    pub quiet: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None, quiet: false }
    }

    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl From<std::io::Error> for Failure {
    /// Of writing to stdout.
    fn from(error: std::io::Error) -> Failure {
        let quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        Failure { quiet, ..Failure::failed(format!("cannot write the output: {error}")) }
    }
}
