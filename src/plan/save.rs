//! When the running configuration of a switch is saved to where it starts from: once it was quiet for a minute after we changed it. Pure.
//!
//! Leaves out: sending. What we changed is remembered in this process only. A controller that starts anew cannot know whose the unsaved
//! changes are that a switch shows, and saves none before it has changed something itself; where the switch restarts meanwhile, they are
//! made again. Invariants: no save without a verified change of ours since the last one, none while a change is under way, and none where the
//! switch says that there is nothing to save.

use super::observed::Trouble;
use crate::limits;
use crate::model::fact::Tick;
use crate::model::switch::SAVE_AFTER;

/// A switch that we changed since it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaved {
    /// When the last change was asked for: what the switch showed when asked later, it showed after the change.
    changed_at: Tick,
    /// When something was last done there, whatever became of it.
    active_at: Tick,
    /// The save is under way.
    pub sent: bool,
    /// When a poll was last asked for.
    pub observe_at: Tick,
    failures: u32,
    again_at: Tick,
    /// What became of the last save, where it failed.
    pub trouble: Option<Trouble>,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Save,
    At(Tick),
    /// Ask the switch whether there is still anything to save: somebody may have done it.
    Observe,
    /// For what is seen next.
    Wait,
    /// Nothing more: the switch says that it is saved.
    Clean,
}

impl Unsaved {
    /// The first change since the last save was verified.
    pub fn new(asked_at: Tick, now: Tick) -> Unsaved {
        Unsaved {
            changed_at: asked_at,
            active_at: now,
            sent: false,
            observe_at: Tick::START,
            failures: 0,
            again_at: Tick::START,
            trouble: None,
        }
    }

    /// One more change; verified or not, the switch is not quiet.
    pub fn changed(&mut self, asked_at: Tick, verified: bool, now: Tick) {
        self.active_at = now;
        if verified {
            self.changed_at = self.changed_at.max(asked_at);
        }
    }

    /// The save failed: again after a minute, doubled each time.
    pub fn failed(&mut self, trouble: Trouble, now: Tick) {
        let delay = SAVE_AFTER.saturating_mul(1 << self.failures.min(8)).min(limits::SAVE_RETRY_MAX);
        self.again_at = now.plus(delay);
        self.failures += 1;
        self.sent = false;
        self.trouble = Some(trouble);
    }

    /// `tells`: whether the switch says that its configuration is unsaved, where it does, and when it was asked. `busy`: a change is under way.
    pub fn next(&self, tells: Option<(Option<bool>, Tick)>, busy: bool, now: Tick) -> Next {
        let due = self.active_at.plus(SAVE_AFTER).max(self.again_at);
        match tells {
            _ if self.sent || busy => Next::Wait,
            Some((Some(false), asked_at)) if asked_at > self.changed_at => Next::Clean,
            Some((None, _)) if now >= due => Next::Save,
            Some((Some(true), asked_at)) if now >= due && asked_at >= due => Next::Save,
            Some(_) if now < due => Next::At(due),
            Some(_) if self.observe_at < due => Next::Observe,
            Some(_) | None => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(seconds: u64) -> Tick {
        Tick(seconds * SECOND)
    }

    fn trouble() -> Trouble {
        Trouble { reason: crate::model::Reason::Refused, message: "no".to_owned() }
    }

    #[test]
    fn a_minute_of_quiet_and_not_while_anything_is_under_way() {
        let mut unsaved = Unsaved::new(at(9), at(10));
        let silent = Some((None, at(11)));
        assert_eq!(unsaved.next(silent, false, at(11)), Next::At(at(70)));
        assert_eq!(unsaved.next(silent, false, at(70)), Next::Save);
        assert_eq!(unsaved.next(silent, true, at(70)), Next::Wait);
        assert_eq!(unsaved.next(None, false, at(70)), Next::Wait, "it does not answer");
        unsaved.changed(at(40), false, at(42));
        assert_eq!(unsaved.next(silent, false, at(70)), Next::At(at(102)), "a write that failed is no quiet either");
        unsaved.sent = true;
        assert_eq!(unsaved.next(silent, false, at(200)), Next::Wait);
    }

    #[test]
    fn a_switch_that_tells_is_believed_about_what_came_after_the_change() {
        let mut unsaved = Unsaved::new(at(9), at(10));
        assert_eq!(unsaved.next(Some((Some(false), at(9))), false, at(69)), Next::At(at(70)), "it said so before the change");
        assert_eq!(unsaved.next(Some((Some(false), at(12))), false, at(13)), Next::Clean, "somebody else saved it");
        assert_eq!(unsaved.next(Some((Some(true), at(12))), false, at(80)), Next::Observe, "that was a minute ago");
        unsaved.observe_at = at(80);
        assert_eq!(unsaved.next(Some((Some(true), at(12))), false, at(80)), Next::Wait);
        assert_eq!(unsaved.next(Some((Some(true), at(80))), false, at(81)), Next::Save);
    }

    #[test]
    fn failures_back_off() {
        let mut unsaved = Unsaved::new(at(0), at(0));
        let mut waits = Vec::new();
        let mut now = 60;
        for _ in 0..9 {
            unsaved.failed(trouble(), at(now));
            let Next::At(Tick(again)) = unsaved.next(Some((None, at(now))), false, at(now)) else { panic!("{unsaved:?}") };
            waits.push(again / SECOND - now);
            now = again / SECOND;
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    }
}
