//! Logs and the wall clock that people read. Nothing decides by this clock.
//!
//! Logs go to stderr, one line per change of the world; fields are named after what they hold (`server`, `binding`, `op`, `because`,
//! `error`). Leaves out: metrics, OTLP. Invariant: what is logged is never read back.

use std::cell::Cell;
use std::io::IsTerminal;

use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;

use crate::manifest::escaped;

/// What is logged: as in `EnvFilter` (`debug`, `embody::drivers=trace`).
pub(crate) const FILTER: &str = "EMBODY_LOG";

thread_local! {
    /// For the simulator: the moment from which the wall clock of this thread goes as tokio's does, and by how many seconds somebody has set it since.
    static VIRTUAL: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
}

/// From now on the wall clock of this thread goes as tokio's does, beginning at a fixed moment: for the simulator.
pub fn virtual_from_now() {
    VIRTUAL.set(Some((Instant::now(), 0)));
}

/// Somebody sets the wall clock of this thread by so many seconds: for the simulator.
pub fn jump(seconds: i64) {
    VIRTUAL.set(VIRTUAL.get().map(|(began, set)| (began, set + seconds)));
}

/// By how many seconds the wall clock of this thread was set: for the simulator.
pub(crate) fn set_by() -> i64 {
    VIRTUAL.get().map_or(0, |(_, set)| set)
}

/// The present moment, in seconds since 1970.
pub(crate) fn seconds() -> i64 {
    now().as_second()
}

fn now() -> jiff::Timestamp {
    // 2027-01-15
    const BEGIN: i64 = 1_800_000_000;
    let since = |began: Instant| i64::try_from(began.elapsed().as_secs()).unwrap_or(0);
    let virtual_now = |(began, set)| jiff::Timestamp::from_second(BEGIN + since(began) + set).ok();
    VIRTUAL.get().and_then(virtual_now).unwrap_or_else(jiff::Timestamp::now)
}

/// The present moment as RFC 3339 in UTC, to the second.
pub(crate) fn timestamp() -> String {
    let now = now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Begins logging to stderr, in colour on a terminal without `NO_COLOR`. A filter that does not read is said, and `info` holds. Once per
/// process; later calls do nothing.
pub(crate) fn start() {
    let text = std::env::var(FILTER).unwrap_or_default();
    let (filter, bad) = match EnvFilter::try_new(if text.is_empty() { "info" } else { &text }) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // What a device says of itself stays within its line.
    let fields = debug_fn(|to, field, value| match field.name() {
        "message" => write!(to, "{}", escaped(&format!("{value:?}"))),
        name => write!(to, "{name}={}", escaped(&format!("{value:?}"))),
    });
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let begun = lines.fmt_fields(fields.delimited(" ")).compact().try_init();
    if let (Ok(()), Some(error)) = (begun, bad) {
        tracing::warn!(%error, "{FILTER} does not read; logging `info`");
    }
}
