//! What the facts prove: the records that follow from evidence alone, whatever the modes say. Nothing here decides to do anything.
//!
//! Invariant: evidence that a persona may run ends only by `End`, and only when the body was seen off by a question that was asked after
//! the boot answer had been withdrawn.

use super::desired::{Desired, Holder, Past};
use super::fence;
use super::network;
use super::observed::Observed;
use super::record::Record;
use crate::limits;
use crate::model::body::{Found, Hold, Phase};
use crate::model::fact::{Power, Tick};

pub fn records(want: &Desired, seen: &Observed) -> Vec<Record> {
    let mut out = Vec::new();
    ownership(want, seen, &mut out);
    if !out.is_empty() {
        return out;
    }
    evidence(seen, &mut out);
    nobodys(want, seen, &mut out);
    off_done(want, seen, &mut out);
    restarted(want, seen, &mut out);
    if out.is_empty() && released(want, seen) {
        out.push(Record::Released);
    }
    out
}

/// Who holds the body.
fn ownership(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let body = &seen.body;
    // The binding that was to release it is deleted: before `Release`, which would keep the older debt.
    if body.release.is_some() && want.releaser.is_none() {
        out.push(Record::Released);
        return;
    }
    match (&want.past, &body.held_by) {
        (Some(Past::Moved), Some(hold)) => out.push(if is_strange(seen) { Record::Leave } else { Record::Release(hold.clone()) }),
        (Some(Past::Deleted), Some(_)) => out.push(Record::Leave),
        (_, None) => {
            if let Some(holder) = &want.holder {
                take(holder, seen, out);
            }
        }
        (None, Some(_)) => {}
    }
}

/// Found running something of somebody's, and nothing of ours was ever begun on it: whoever moves away must still release nothing here.
fn is_strange(seen: &Observed) -> bool {
    let body = &seen.body;
    matches!(body.found, Found::Unknown | Found::Running) && body.may_run.is_empty() && body.release.is_none()
}

fn take(holder: &Holder, seen: &Observed, out: &mut Vec<Record>) {
    let body = &seen.body;
    let found = match (&body.release, body.found) {
        (None, _) => Found::Unknown,
        (Some(_), Found::Off | Found::Managed) => Found::Managed,
        (Some(_), found @ (Found::Unknown | Found::Running)) => found,
    };
    let hold = Hold { binding: holder.authority.binding.clone(), uid: holder.authority.uid.clone() };
    let came_back = body.release.as_ref().is_some_and(|r| r.uid == hold.uid);
    out.push(Record::Take { hold, found });
    if came_back {
        out.push(Record::Released);
    } else if body.restart_done != holder.restart {
        // The count is the binding's own: what an earlier holder had says nothing.
        out.push(Record::Restarted(holder.restart));
    }
}

/// Nobody desired state anything of a body that is off: it keeps no boot answer. Else its evidence could never end, and a persona whose binding
/// was deleted could never live anywhere else.
fn nobodys(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let body = &seen.body;
    let nobody = body.held_by.is_none() && body.release.is_none() && want.holder.is_none();
    if nobody && out.is_empty() && seen.power.as_ref().is_some_and(|p| p.value == Power::Off) {
        out.extend(body.may_run.iter().filter(|(_, phase)| phase.stands()).map(|(persona, _)| Record::Withdraw(persona.clone())));
    }
}

/// What the last answer about power says of the personas that may run here.
fn evidence(seen: &Observed, out: &mut Vec<Record>) {
    let Some(power) = &seen.power else { return };
    let after = |at: Tick| power.asked_at > at;
    if (seen.body.held_by.is_some() || seen.body.release.is_some()) && after(seen.memory.taken_at) {
        match (seen.body.found, power.value) {
            (Found::Unknown | Found::Running, Power::Off) => out.push(Record::FoundAs(Found::Off)),
            (Found::Unknown, Power::On) => out.push(Record::FoundAs(Found::Running)),
            (Found::Running | Found::Off | Found::Managed, Power::On) | (Found::Off | Found::Managed, Power::Off) => {}
        }
    }
    for (persona, phase) in &seen.body.may_run {
        let at = |m: &std::collections::BTreeMap<_, Tick>| m.get(persona).copied().unwrap_or(Tick::START);
        match (phase, power.value) {
            (Phase::Withdrawn, Power::Off) if after(at(&seen.memory.withdrawn_at)) => out.push(Record::End(persona.clone())),
            (Phase::Answered, Power::Off) if after(at(&seen.memory.answered_at)) => out.push(Record::Arm(persona.clone())),
            (Phase::Started, Power::Off) if after(at(&seen.memory.answered_at)) => out.push(Record::Arm(persona.clone())),
            (Phase::Armed, Power::On) => out.push(Record::Start(persona.clone())),
            (Phase::Withdrawn | Phase::Answered | Phase::Started, Power::Off | Power::On) | (Phase::Armed, Power::Off) => {}
        }
    }
}

/// An intent ends when the body was seen off after the last attempt, when a start shows that it was off in between, or when nobody
/// wants it any more and the attempt has had its time.
fn off_done(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let (Some(intent), Some(power)) = (&seen.body.off, &seen.power) else { return };
    let attempt_at = seen.memory.attempt_at;
    let went_off = power.value == Power::Off && power.asked_at > attempt_at;
    let started_again = seen.memory.start_seen_at.is_some_and(|at| at > attempt_at);
    let grace = if intent.hard { limits::HARD_OFF_WAIT } else { fence::grace(want, seen) };
    let unwanted = fence::why_off(want, seen).is_none() && power.asked_at > attempt_at.plus(grace);
    if went_off || started_again || unwanted {
        out.push(Record::OffDone);
    }
}

fn restarted(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let (Some(holder), Some(power)) = (&want.holder, &seen.power) else { return };
    let not_since_started = seen.memory.on_sent_at.is_none_or(|sent| power.asked_at > sent);
    if seen.body.held_by.is_some() && seen.body.restart_done > holder.restart {
        out.push(Record::Restarted(holder.restart));
    }
    if power.value == Power::Off && not_since_started && seen.body.restart_done < holder.restart {
        out.push(Record::Restarted(holder.restart));
    }
}

/// The obligation of a move is met: off, no evidence, and the ports released, or taken over by the next holder's desired state.
fn released(want: &Desired, seen: &Observed) -> bool {
    let off = seen.power.as_ref().is_some_and(|p| p.value == Power::Off);
    let ports = seen.body.held_by.is_some() || network::all_as_wished(&want.released_ports, seen);
    seen.body.release.is_some() && seen.body.may_run.is_empty() && off && seen.body.off.is_none() && ports
}
