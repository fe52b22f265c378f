//! Names of servers that are due. A name is in it once; an earlier time wins; nothing but the name is handed on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::Name;
use crate::model::fact::Tick;

/// The first delay after a failure, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Queue {
    due: BTreeSet<(Tick, Name)>,
    at: BTreeMap<Name, Tick>,
    failures: BTreeMap<Name, u32>,
}

impl Queue {
    /// The server is due at `when`, or earlier if it already is.
    pub(crate) fn wake(&mut self, server: &Name, when: Tick) {
        match self.at.get(server).copied() {
            Some(already) if already <= when => return,
            Some(later) => drop(self.due.remove(&(later, server.clone()))),
            None => {}
        }
        self.at.insert(server.clone(), when);
        self.due.insert((when, server.clone()));
    }

    /// After a failure: 1 s, doubled each time, at most 5 min.
    pub(crate) fn back_off(&mut self, server: &Name, now: Tick) {
        let failures = self.failures.entry(server.clone()).or_default();
        let delay = BACKOFF_FIRST.saturating_mul(1 << (*failures).min(9)).min(BACKOFF_MAX);
        *failures += 1;
        self.wake(server, now.plus(delay));
    }

    pub(crate) fn succeeded(&mut self, server: &Name) {
        self.failures.remove(server);
    }

    /// The next name that is due, taken out.
    pub(crate) fn pop(&mut self, now: Tick) -> Option<Name> {
        let (when, _) = self.due.first()?;
        if *when > now {
            return None;
        }
        let (_, name) = self.due.pop_first()?;
        self.at.remove(&name);
        Some(name)
    }

    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.due.first().map(|(when, _)| *when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_in_the_queue_once_and_the_earlier_time_wins() {
        let mut queue = Queue::default();
        queue.wake(&name("a"), Tick(50));
        queue.wake(&name("a"), Tick(10));
        queue.wake(&name("a"), Tick(90));
        assert_eq!((queue.pop(Tick(9)), queue.pop(Tick(10)), queue.pop(Tick(99))), (None, Some(name("a")), None));
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let mut queue = Queue::default();
        let mut delays = Vec::new();
        for _ in 0..11 {
            queue.back_off(&name("a"), Tick(0));
            let due = queue.next_due().unwrap();
            delays.push(due.0 / 1_000_000);
            queue.pop(due);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        queue.succeeded(&name("a"));
        queue.back_off(&name("a"), Tick(0));
        assert_eq!(queue.next_due(), Some(Tick(1_000_000)));
    }
}
