//! Logs and the wall clock that people read. Nothing decides by this clock.

/// The present moment as RFC 3339 in UTC, to the second.
pub fn timestamp() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}
