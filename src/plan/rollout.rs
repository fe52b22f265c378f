//! One body of a persona that has a rollout: whether another revision runs on it, how it stands for the others, and whether it is restarted now.
//!
//! Leaves out: whose turn it is (`rollouts`), and how a body is switched off (`off`, `power`). Invariants: nothing is switched off for a rollout
//! without a turn, nor towards what could not be started after it; what went off by itself starts with what stands there until its turn comes; what
//! is not known of a body is not taken to be well. Shown by `tests/plan.rs` and `tests/revisions.rs`.

use super::desired::{Desired, Holder};
use super::fence;
use super::observed::Observed;
use super::{Plan, consent, network, power, starting};
use crate::limits;
use crate::model::Reason;
use crate::model::binding::{Plane, RunState};
use crate::model::body::{Evidence, Found, Outdated, Phase, Sent, Snapshot};
use crate::model::fact::{Power, Tick};
use crate::model::op::{Off, Op};

/// Whether a body that runs another revision is restarted now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Turn {
    /// Nobody has said so yet.
    #[default]
    NotKnown,
    Go,
    Wait {
        reason: Reason,
        message: String,
        /// It is restarted without another word: it counts as what a change disrupts.
        comes: bool,
    },
}

/// How a body is, as far as others may count on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// Up as desired, by what is known now.
    Up,
    /// It is up, but its end has begun.
    Leaving,
    /// Known not to be up: to restart it takes nothing away.
    Down,
    #[default]
    Unknown,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Runs {
    #[default]
    Nothing,
    Old,
    New,
}

/// A body of a running binding, as the rollout of its persona sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub life: Life,
    pub runs: Runs,
    /// What runs here was not up when its time was over, or is known to fail.
    pub fails: bool,
    /// It was not up when this controller began, which does not know for how long already.
    pub earlier: bool,
    /// The answer of the old revision is withdrawn.
    pub begun: bool,
    /// It is restarted as soon as it is its turn: nothing else holds it up.
    pub willing: bool,
    /// Its devices were asked since this controller began.
    pub asked: bool,
}

/// What stands for the persona of its holder, if that has a rollout and this is another revision.
fn old<'a>(holder: &Holder, seen: &'a Observed) -> Option<&'a Evidence> {
    let evidence = seen.body.evidence.get(&holder.persona).filter(|_| holder.rolls)?;
    (evidence.snapshot.outdated(&holder.snapshot) == Outdated::Revision).then_some(evidence)
}

/// Another revision runs here, and is restarted now.
pub(crate) fn goes(holder: &Holder, seen: &Observed) -> bool {
    seen.turn == Turn::Go && old(holder, seen).is_some() && why_nothing_after(holder, seen).is_none()
}

/// What went off is started with the revision that stands there: it is not its turn.
pub(crate) fn stays(holder: &Holder, seen: &Observed) -> bool {
    old(holder, seen).is_some() && !goes(holder, seen)
}

/// Why the new revision could not be started after it: it claims what is in use elsewhere, or its ports could not be brought to the desired state.
fn why_nothing_after(holder: &Holder, seen: &Observed) -> Option<String> {
    fence::why_not_once(holder, seen)
}

/// Before the name of the persona.
pub(crate) const BECAUSE: &str = "the rollout of persona ";

pub(crate) fn because(holder: &Holder, seen: &Observed) -> String {
    let named = |snapshot: &Snapshot| match (&snapshot.root.image, &snapshot.root.revision) {
        (Some(image), _) => image.name.to_string(),
        (None, Some(revision)) => format!("revision {revision}"),
        (None, None) => format!("content {}", snapshot.digest),
    };
    let was = old(holder, seen).map(|evidence| named(&evidence.snapshot)).unwrap_or_default();
    let is = named(&holder.snapshot);
    let (was, is) = if was == is { (format!("another content of {was}"), is) } else { (was, is) };
    format!("{BECAUSE}{}: it was started with {was}, and is to run {is}", holder.persona)
}

/// Of one that runs and is not restarted now: why.
pub(crate) fn waits(holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    if old(holder, seen).is_none() {
        return;
    }
    if !fence::is_clear(holder, seen, now, plan) {
        return;
    }
    if let Some(why) = fence::no_ports_after(holder, seen) {
        return plan.wait(Reason::PortsFirst, format!("its persona's rollout waits, since nothing could start after it: {why}"));
    }
    if let Some(wait) = power::unconfirmed_after(holder, seen) {
        return plan.waits.push(wait);
    }
    // What a person has to say can be said before its turn comes.
    let off = Op::PowerOff { server: holder.server.clone(), how: Off::Soft };
    match (consent::refusal(&holder.authority, Plane::Power, &off, seen), &seen.turn) {
        (Some(wait), _) => plan.waits.push(wait),
        (None, Turn::Wait { reason, message, .. }) => plan.wait(*reason, message.clone()),
        (None, Turn::NotKnown) => {
            plan.wait(Reason::RolloutWaits, format!("how the other bodies of persona {} are is not known yet", holder.persona));
        }
        (None, Turn::Go) => {}
    }
}

/// Whether the desired state of now disrupts this body later, without another word: as what it will do it does not plan yet.
pub(crate) fn comes(want: &Desired, seen: &Observed) -> bool {
    let waits = matches!(seen.turn, Turn::Wait { comes: true, .. });
    let runs = |holder: &Holder| old(holder, seen).is_some_and(|e| e.stands() && e.phase == Phase::Started);
    waits && want.holder.as_ref().is_some_and(|h| h.problems.is_empty() && h.state == RunState::Running && runs(h))
}

// ---- for the others ----------------------------------------------------------------------------------------------------------

/// How the body of a running binding stands; nothing where none is to run.
pub(crate) fn member(want: &Desired, seen: &Observed, now: Tick) -> Option<Member> {
    let holder = want.holder.as_ref().filter(|h| h.state == RunState::Running)?;
    if holder.once.is_some() {
        return Some(Member::default());
    }
    let evidence = seen.body.evidence.get(&holder.persona);
    let runs = match evidence.map(|e| e.snapshot.outdated(&holder.snapshot)) {
        None => Runs::Nothing,
        Some(Outdated::Revision) => Runs::Old,
        Some(Outdated::No | Outdated::Otherwise) => Runs::New,
    };
    let fails = fails(want, holder, seen, now);
    let life = life(want, holder, seen, fails);
    let starts = life == Life::Down && seen.is(Power::On) && seen.body.off.is_none();
    Some(Member {
        life,
        runs,
        fails,
        earlier: starts && !fails && starting::starts_since(seen) == Tick::START,
        begun: runs == Runs::Old && evidence.is_some_and(|e| e.withdrawn),
        willing: is_willing(want, holder, seen),
        asked: false,
    })
}

fn fails(want: &Desired, holder: &Holder, seen: &Observed, now: Tick) -> bool {
    let started = seen.body.evidence.get(&holder.persona).filter(|e| e.stands() && e.phase == Phase::Started);
    let mut start = Plan::default();
    starting::plan(want, seen, now, &mut start);
    let known = [Reason::NoBootRequest, Reason::NoHello, Reason::StartFails, Reason::EndsAgain];
    let is_late = seen.is(Power::On) && now >= starting::starts_since(seen).plus(holder.boot.deadline.0);
    let not_up = started.is_some_and(|e| is_late && !starting::came_up(holder, e));
    let stays_off = seen.is(Power::Off) && seen.memory.on_tries >= limits::ON_ATTEMPTS;
    not_up || stays_off || start.problems.iter().any(|problem| known.contains(&problem.reason))
}

fn life(want: &Desired, holder: &Holder, seen: &Observed, fails: bool) -> Life {
    let body = &seen.body;
    let held = body.held_by.as_ref().is_some_and(|hold| hold.uid == holder.authority.uid);
    if !held || want.past.is_some() || body.release.is_some() || seen.unreadable || body.anything || seen.bmc_trouble.is_some() {
        return Life::Unknown;
    }
    match seen.power.as_ref().map(|power| power.value) {
        None => return Life::Unknown,
        Some(Power::Off) => return Life::Down,
        Some(Power::On) => {}
    }
    let Some(evidence) = body.evidence.get(&holder.persona).filter(|e| e.phase == Phase::Started && body.evidence.len() == 1) else {
        return Life::Unknown;
    };
    let obeys = body.off.as_ref().is_some_and(|intent| intent.soft.last == Sent::Accepted || intent.hard.last == Sent::Accepted);
    let came_up = starting::came_up(holder, evidence);
    match () {
        () if obeys => Life::Down,
        // What a person declared that it runs said nothing of its own.
        () if body.found == Found::Adopted && !came_up => Life::Unknown,
        () if fails || !came_up => Life::Down,
        () if body.off.is_some() || evidence.withdrawn => Life::Leaving,
        () if want.port_problems.is_empty() && network::ready(&holder.ports, seen) => Life::Up,
        () => Life::Unknown,
    }
}

/// Whether it would be switched off, or answered anew, if it were its turn.
fn is_willing(want: &Desired, holder: &Holder, seen: &Observed) -> bool {
    if old(holder, seen).is_none_or(|e| e.withdrawn) || want.maintenance.is_some() || want.past.is_some() {
        return false;
    }
    let seen = &Observed { turn: Turn::Go, ..seen.clone() };
    let off = Op::PowerOff { server: want.server.clone(), how: Off::Soft };
    let refused = consent::refusal(&holder.authority, Plane::Power, &off, seen).is_some() || seen.bmc_trouble.is_some();
    let would = match seen.is(Power::Off) {
        true => fence::is_outdated(holder, seen),
        false => fence::why_off(want, seen).is_some() && power::nothing_after(want, seen).is_none(),
    };
    holder.problems.is_empty() && !refused && would
}
