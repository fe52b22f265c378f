//! The least distance between any two datagrams to one BMC: requests, their repetitions, handshakes and last words.
//!
//! Leaves out how often a BMC is asked: that is its worker's. Invariant: each datagram takes its place before it waits for it, so that two
//! never get one place. Shown by the test below and by `tests/ipmi.rs`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Shared by a driver and the last words of its sessions.
#[derive(Clone)]
pub(super) struct Pace {
    spacing: Duration,
    /// Nothing leaves before. Nothing: nothing left so far.
    next: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    pub(super) fn new(spacing: Duration) -> Pace {
        Pace { spacing, next: Arc::default() }
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next free place, taken; nothing where that is not before the deadline.
    fn take(&self, deadline: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        let mut next = self.next();
        let at = next.map_or(now, |next| next.max(now));
        if deadline.is_some_and(|deadline| at >= deadline) {
            return None;
        }
        *next = Some(at + self.spacing);
        Some(at)
    }

    /// Waits for its place. `false`: that would not be before the deadline.
    pub(super) async fn wait(&self, deadline: Instant) -> bool {
        let Some(at) = self.take(Some(deadline)) else { return false };
        if at > Instant::now() {
            sleep_until(at).await;
        }
        true
    }

    /// A datagram just left, perhaps later than its place was.
    pub(super) fn left(&self) {
        let at = Instant::now() + self.spacing;
        let mut next = self.next();
        *next = Some(next.map_or(at, |next| next.max(at)));
    }

    /// Says it at its place, for whoever cannot wait.
    pub(super) fn last_word(&self, say: impl FnOnce() + Send + 'static) {
        let at = self.take(None).filter(|at| *at > Instant::now());
        match (at, tokio::runtime::Handle::try_current()) {
            (Some(at), Ok(runtime)) => {
                let pace = self.clone();
                runtime.spawn(async move {
                    sleep_until(at).await;
                    say();
                    pace.left();
                });
            }
            (Some(_) | None, _) => {
                say();
                self.left();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_datagram_has_a_place_of_its_own() {
        let pace = Pace::new(Duration::from_millis(100));
        let begun = Instant::now();
        let far = begun + Duration::from_secs(9);
        let said = Arc::new(Mutex::new(None));
        assert!(pace.wait(far).await);
        pace.left();
        let note = Arc::clone(&said);
        pace.last_word(move || *note.lock().unwrap() = Some(begun.elapsed()));
        assert!(!pace.wait(begun + Duration::from_millis(200)).await, "its place is at 200 ms, which is no more before the deadline");
        assert!(pace.wait(far).await);
        assert_eq!(begun.elapsed(), Duration::from_millis(200));
        assert_eq!(*said.lock().unwrap(), Some(Duration::from_millis(100)));
        // One that was late moves those behind it.
        tokio::time::advance(Duration::from_millis(50)).await;
        pace.left();
        assert!(pace.wait(far).await);
        assert_eq!(begun.elapsed(), Duration::from_millis(350));
    }
}
