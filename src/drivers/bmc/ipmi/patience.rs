//! How long an answer is waited for before its question is repeated: as TCP does (RFC 6298), from how long answers took.
//!
//! Leaves out the repeating. Invariant: an answer to a question that was repeated is no measure, since nobody knows which copy it answers
//! (Karn); the wait that it came in is kept until one is (RFC 6298, 5.5 to 5.7). Shown by the test below and by `tests/ipmi/slow.rs`.

use std::time::Duration;

/// One that takes longer for an answer is asked for nothing that can be left out.
const SLOW: Duration = Duration::from_secs(1);
/// The longest first wait: as long as a change may rest on what was asked before it.
const MOST: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    /// Smoothed round trip, and its variation.
    smoothed: Option<(Duration, Duration)>,
    backed_off: Option<Duration>,
}

impl Patience {
    /// A question was answered `took` after its last copy left, `copies` in all, with this wait for the last.
    pub(super) fn answered(&mut self, took: Duration, copies: u32, wait: Duration) {
        if copies > 1 {
            self.backed_off = Some(wait);
            return;
        }
        self.backed_off = None;
        self.smoothed = Some(match self.smoothed {
            None => (took, took / 2),
            Some((smoothed, variation)) => ((smoothed * 7 + took) / 8, (variation * 3 + smoothed.abs_diff(took)) / 4),
        });
    }

    pub(super) fn is_slow(&self) -> bool {
        self.smoothed.is_some_and(|(smoothed, _)| smoothed > SLOW)
    }

    /// The wait for the first copy of a question, at least `least`.
    pub(super) fn first_wait(&self, least: Duration) -> Duration {
        let measured = self.smoothed.map_or(Duration::ZERO, |(smoothed, variation)| smoothed + variation * 4);
        measured.max(self.backed_off.unwrap_or_default()).min(MOST).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_answers() {
        let (ms, least) = (Duration::from_millis, Duration::from_millis(500));
        let mut patience = Patience::default();
        assert_eq!(patience.first_wait(least), least);
        for _ in 0..9 {
            patience.answered(ms(20), 1, least);
        }
        assert_eq!(patience.first_wait(least), least, "one that is quick is asked as before");
        patience.answered(ms(900), 3, ms(2000));
        assert_eq!(patience.first_wait(least), ms(2000), "which copy that answered is not known");
        (0..20).for_each(|_| patience.answered(ms(3000), 1, ms(4000)));
        let wait = patience.first_wait(least);
        assert!(ms(3000) < wait && wait < ms(6000), "{wait:?}");
        patience.answered(Duration::from_secs(60), 1, MOST);
        assert_eq!(patience.first_wait(least), MOST);
        assert_eq!(patience.first_wait(Duration::from_secs(30)), Duration::from_secs(30));
    }
}
