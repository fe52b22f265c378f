//! Logs and the wall clock that people read. Nothing decides by this clock.
//!
//! Logs go to stderr, one line per change of the world; fields are named after what they hold (`server`, `binding`, `op`, `because`,
//! `error`). Leaves out: metrics, OTLP. Invariant: what is logged is never read back.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged: as in `EnvFilter` (`debug`, `embody::drivers=trace`).
pub const FILTER: &str = "EMBODY_LOG";

/// The present moment as RFC 3339 in UTC, to the second.
pub fn timestamp() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Begins logging to stderr, in colour on a terminal without `NO_COLOR`. A filter that does not read is said, and `info` holds. Once per
/// process; later calls do nothing.
pub fn start() {
    let text = std::env::var(FILTER).unwrap_or_default();
    let (filter, bad) = match EnvFilter::try_new(if text.is_empty() { "info" } else { &text }) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let begun = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).compact().try_init();
    if let (Ok(()), Some(error)) = (begun, bad) {
        tracing::warn!(%error, "{FILTER} does not read; logging `info`");
    }
}
