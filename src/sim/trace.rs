//! What happened in a simulation, line by line, and a hash over all of it: the same seed gives the same hash.

use crate::model::Name;
use crate::model::fact::Tick;

#[derive(Debug, Clone)]
pub struct Event {
    pub at: Tick,
    /// Servers, switches, bindings that it concerns.
    pub about: Vec<Name>,
    pub text: String,
}

#[derive(Debug)]
pub struct Trace {
    events: Vec<Event>,
    hash: u64,
    loud: bool,
}

/// FNV-1a, 64 bit.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

impl Trace {
    /// `loud`: every line goes to stderr as it happens.
    pub fn new(loud: bool) -> Trace {
        Trace { events: Vec::new(), hash: FNV_OFFSET, loud }
    }

    pub fn note(&mut self, at: Tick, about: &[&Name], text: impl Into<String>) {
        let event = Event { at, about: about.iter().map(|n| (*n).clone()).collect(), text: without_uuids(text.into()) };
        let line = event.to_string();
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if self.loud {
            #[allow(clippy::print_stderr, reason = "a replay is read by a person")]
            {
                eprintln!("{line}");
            }
        }
        self.events.push(event);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn since(&self, from: usize) -> &[Event] {
        self.events.get(from..).unwrap_or_default()
    }

    /// The last events that concern any of these names.
    pub fn last(&self, most: usize, about: &[Name]) -> Vec<&Event> {
        let mut out: Vec<&Event> = self.events.iter().rev().filter(|e| e.about.iter().any(|n| about.contains(n))).take(most).collect();
        out.reverse();
        out
    }
}

/// Random names are other ones in each run.
fn without_uuids(text: String) -> String {
    let word = |w: &str| {
        w.len() == 36 && w.bytes().enumerate().all(|(n, b)| if [8, 13, 18, 23].contains(&n) { b == b'-' } else { b.is_ascii_hexdigit() })
    };
    match text.split([' ', ',', '`']).any(word) {
        true => text.split(' ').map(|w| if word(w.trim_matches([',', '`'])) { "(uuid)" } else { w }).collect::<Vec<_>>().join(" "),
        false => text,
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.at.0 / 1000;
        write!(f, "{:>6}.{:03} ", ms / 1000, ms % 1000)?;
        for name in &self.about {
            write!(f, "{name} ")?;
        }
        f.write_str(&self.text)
    }
}
