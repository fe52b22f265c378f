//! What a start says of itself: on the console for whoever looks at it, and in the kernel's log for whoever asks the system later.
//!
//! Leaves out: levels and times, which the kernel's log adds. Invariant: saying never fails and never blocks a start.

use std::fs::OpenOptions;
use std::io::Write;

/// syslog(2): 7 is KERN_DEBUG, which the kernel keeps and does not print again on the console.
const KEPT_NOT_SHOWN: &str = "<7>";

pub fn say(words: &str) {
    // A console that is gone is no reason to stop.
    let _ = writeln!(std::io::stderr(), "embody: {words}");
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("{KEPT_NOT_SHOWN}embody: {words}\n").as_bytes());
    }
}

/// A message and its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
