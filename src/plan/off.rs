//! A switching-off: what is sent next for an intent, given what was delivered. One small state machine, and the only place that decides it.
//!
//! ```text
//!   soft: nothing sent ──send──▶ unknown ──30 s, read On──▶ send again (three in all) ──▶ stuck
//!             ▲                    │ answered
//!             └── not sent, busy ──┼── refused ─────────────▶ stuck, but for a person's word or the Policy's
//!                                  └── accepted ── grace over, read On ──▶ hard
//!   hard: nothing sent ──send──▶ unknown or accepted ── 60 s, read On ──▶ send again (three in all) ──▶ stuck;  refused ──▶ stuck
//! ```
//!
//! Leaves out: why a body must be off (`fence`), who allows it (`consent`), how it is sent (`drivers`) and what is recorded of it (`record`).
//! Invariant 9: a hard off only after an accepted soft-off whose whole grace is over, or by a word for exactly that.
//! Shown by the enumeration in `tests/plan.rs` and by the checkers of `tests/simulate.rs`.

use std::time::Duration;

use super::observed::Memory;
use crate::limits;
use crate::model::Reason;
use crate::model::body::{OffIntent, Sending, Sent};
use crate::model::fact::Tick;
use crate::model::op::Off;

/// What holds for one intent beside what was delivered.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long an accepted soft-off may take. Zero: hard at once, as the manifest says.
    pub grace: Duration,
    pub hard_without_soft: HardWithoutSoft,
    /// When the power was last asked for and answered On.
    pub on_asked_at: Tick,
    pub now: Tick,
}

/// Whether a hard off may follow where no soft-off was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum HardWithoutSoft {
    #[default]
    No,
    /// The Policy says so: once soft-offs lead to nothing.
    WhereSoftFails,
    /// A person said `--hard`: now.
    Now,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Send(Off),
    /// The last command has its time until then; an answer On to a question asked after it decides.
    Until(Tick, String),
    Stuck(Reason, String),
}

/// The next command of an intent; of one that does not exist yet, the first.
pub fn next(intent: Option<&OffIntent>, memory: &Memory, terms: &Terms) -> Next {
    let nothing = OffIntent { because: String::new(), soft: Sending::default(), hard: Sending::default() };
    let intent = intent.unwrap_or(&nothing);
    if intent.hard.tries > 0 && !may_be_hard(intent, memory, terms) {
        // The word for it is over, or was somebody else's. What was sent may have its time; nothing hard follows.
        let why =
            "a hard off was sent, without an accepted soft-off, by a word that does not hold any more; a hard off needs a person's word";
        return match hard(&intent.hard, memory, terms) {
            Next::Send(_) => Next::Stuck(Reason::DoesNotSwitchOff, why.to_owned()),
            other @ (Next::Until(..) | Next::Stuck(..)) => other,
        };
    }
    if intent.hard.tries > 0 {
        return hard(&intent.hard, memory, terms);
    }
    if terms.grace.is_zero() || terms.hard_without_soft == HardWithoutSoft::Now {
        return hard(&intent.hard, memory, terms);
    }
    let soft_fails = |reason, why: String| match terms.hard_without_soft {
        HardWithoutSoft::WhereSoftFails => hard(&intent.hard, memory, terms),
        HardWithoutSoft::No | HardWithoutSoft::Now => Next::Stuck(reason, format!("{why}; a hard off needs a person's word")),
    };
    match &intent.soft.last {
        Sent::Nothing => Next::Send(Off::Soft),
        Sent::Accepted => {
            let over_at = memory.grace.over_at(terms.grace, terms.now);
            match after(over_at, terms) {
                true => hard(&intent.hard, memory, terms),
                false => Next::Until(over_at, format!("soft-off was accepted; hard off {}", then(over_at, terms))),
            }
        }
        Sent::Refused(code) => soft_fails(Reason::SoftOffRefused, format!("the soft-off was refused ({code})")),
        Sent::Unknown => {
            let again_at = memory.soft_at.plus(limits::SOFT_OFF_UNKNOWN);
            if !after(again_at, terms) {
                return Next::Until(again_at, format!("a soft-off may have been sent; more follows {}", then(again_at, terms)));
            }
            if intent.soft.tries >= limits::SOFT_OFF_TRIES {
                let tries = intent.soft.tries;
                return soft_fails(Reason::DoesNotSwitchOff, format!("nothing is known of {tries} soft-offs, and it is still on"));
            }
            Next::Send(Off::Soft)
        }
    }
}

/// Whether a hard off may be sent once more: after the grace of an accepted soft-off, or by a word that holds now.
fn may_be_hard(intent: &OffIntent, memory: &Memory, terms: &Terms) -> bool {
    let asked_gently = intent.soft.last == Sent::Accepted && after(memory.grace.over_at(terms.grace, terms.now), terms);
    asked_gently || terms.grace.is_zero() || terms.hard_without_soft != HardWithoutSoft::No
}

fn hard(sending: &Sending, memory: &Memory, terms: &Terms) -> Next {
    match &sending.last {
        Sent::Nothing => Next::Send(Off::Hard),
        Sent::Refused(code) => Next::Stuck(Reason::DoesNotSwitchOff, format!("the hard off was refused ({code}); switch it off by hand")),
        Sent::Unknown | Sent::Accepted => {
            let again_at = memory.hard_at.plus(limits::HARD_OFF_WAIT);
            if !after(again_at, terms) {
                return Next::Until(again_at, format!("power off was sent; it is sent again {}", then(again_at, terms)));
            }
            if sending.tries >= limits::HARD_OFF_TRIES {
                let why = format!("the server is still on after {} hard offs; switch it off by hand", sending.tries);
                return Next::Stuck(Reason::DoesNotSwitchOff, why);
            }
            Next::Send(Off::Hard)
        }
    }
}

/// Whether the power was read On by a question asked after this moment.
fn after(moment: Tick, terms: &Terms) -> bool {
    terms.on_asked_at > moment
}

fn then(at: Tick, terms: &Terms) -> String {
    match at > terms.now {
        true => format!("in {}", super::power::seconds(at.since(terms.now))),
        false => "once it is read on again".to_owned(),
    }
}

/// The intent as it is once this command may have left.
pub fn sending(intent: Option<&OffIntent>, how: Off, because: &str) -> OffIntent {
    let mut intent =
        intent.cloned().unwrap_or_else(|| OffIntent { because: because.to_owned(), soft: Sending::default(), hard: Sending::default() });
    let sending = match how {
        Off::Soft => &mut intent.soft,
        Off::Hard => &mut intent.hard,
    };
    *sending = Sending { tries: sending.tries.saturating_add(1), last: Sent::Unknown };
    // It may go on for another reason than it was begun for.
    because.clone_into(&mut intent.because);
    intent
}

/// Whether an intent that nobody wants any more can be dropped: nothing was accepted, or what was has had its time.
pub(crate) fn can_be_dropped(intent: &OffIntent, memory: &Memory, terms: &Terms) -> bool {
    let hard = intent.hard.tries == 0 || after(memory.hard_at.plus(limits::HARD_OFF_WAIT), terms);
    let soft = intent.soft.last != Sent::Accepted || after(memory.grace.passed_at(terms.grace, terms.now), terms);
    hard && (soft || intent.hard.tries > 0)
}

/// How much of the grace is over: counted in this process, and only while nobody stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grace {
    used: Duration,
    counting_since: Option<Tick>,
    /// When it began, or was first heard of.
    since: Option<Tick>,
}

impl Grace {
    /// From the beginning.
    pub fn begin(now: Tick) -> Grace {
        Grace { used: Duration::ZERO, counting_since: Some(now), since: Some(now) }
    }

    /// Told at each reconcile: whether it counts at present. What an earlier process counted begins anew.
    pub fn count(&mut self, counts: bool, now: Tick) {
        self.since.get_or_insert(now);
        match (self.counting_since, counts) {
            (Some(since), false) => {
                self.used += now.since(since);
                self.counting_since = None;
            }
            (None, true) => self.counting_since = Some(now),
            (Some(_), true) | (None, false) => {}
        }
    }

    /// When a machine that took the soft-off has gone off, if it does: whoever stops what is sent does not stop that.
    fn passed_at(&self, grace: Duration, now: Tick) -> Tick {
        self.since.unwrap_or(now).plus(grace)
    }

    /// When it is over, if nothing stops it.
    fn over_at(&self, grace: Duration, now: Tick) -> Tick {
        let left = grace.saturating_sub(self.used);
        self.counting_since.unwrap_or(now).plus(left)
    }
}
