//! What the facts prove: the records that follow from evidence alone, whatever the modes say. Nothing here decides to do anything.
//!
//! Invariant 6: evidence that a persona may run ends only by `End`, and only when the body was seen off (`Observed::seen_off`) after the boot
//! answer had been withdrawn.

use super::desired::{Desired, Holder, Past};
use super::fence;
use super::network;
use super::observed::{Observed, SeenOff};
use super::power;
use super::record::Record;
use super::starting;
use crate::model::Name;
use crate::model::binding::RunState;
use crate::model::body::{Declaration, Found, Hold, Phase};
use crate::model::fact::{Power, Tick};

pub(crate) fn records(want: &Desired, seen: &Observed) -> Vec<Record> {
    let mut out = Vec::new();
    ownership(want, seen, &mut out);
    if !out.is_empty() {
        return out;
    }
    found(want, seen, &mut out);
    lives(want, seen, &mut out);
    nobodys(want, seen, &mut out);
    off_done(want, seen, &mut out);
    declared(want, seen, &mut out);
    if seen.body.on_sent && seen.is(Power::On) && seen.memory.on_asked_at > seen.memory.on_sent_at {
        out.push(Record::OnDone);
    }
    restarted(want, seen, &mut out);
    once_over(want, seen, &mut out);
    out.extend(starting::records(want, seen));
    out.extend(network::debts(want, seen));
    if out.is_empty() && released(want, seen) {
        out.push(Record::Released);
    }
    out
}

/// Who holds the body.
fn ownership(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let body = &seen.body;
    // A person has said that what was found running is nothing of ours: it is left as it is.
    let foreign = body.found == Found::Running && body.evidence.is_empty() && body.off.is_none();
    // The binding that was to release it is deleted: before `Release`, which would keep the older debt.
    if body.release.is_some() && (want.releaser.is_none() || foreign) {
        out.push(Record::Released);
        return;
    }
    match (&want.past, &body.held_by) {
        (Some(Past::Moved), Some(_)) if is_strange(seen) => out.push(Record::Leave),
        // Another one has still to release it: this holder has begun nothing here, and its own body is elsewhere.
        (Some(Past::Moved), Some(hold)) if body.release.as_ref().is_some_and(|release| release.uid != hold.uid) => out.push(Record::Leave),
        // Nothing is lost where nothing lives.
        (Some(Past::Moved), Some(hold)) if lives_nowhere(seen) => out.push(Record::Release(hold.clone())),
        // Invariant 10: until the new body can take over, the old one is not touched.
        (Some(Past::Moved), Some(hold)) => out.extend(can_begin(seen).then(|| Record::Release(hold.clone()))),
        (Some(Past::Deleted), Some(_)) => out.push(Record::Leave),
        (_, None) => out.extend(want.holder.iter().flat_map(|holder| take(holder, seen))),
        (None, Some(_)) => {}
    }
}

/// The new body can take over, by answers to questions that were asked since that is so: its switch may have died a minute ago.
pub(super) fn can_begin(seen: &Observed) -> bool {
    let since = seen.memory.takeover_since;
    matches!((&seen.takeover, since), (Some(Ok(ready)), Some(since)) if ready.is_known_since(since))
}

/// It is off, and was not by a restart of its BMC: whoever switched it off by hand has ended what a move would end.
fn lives_nowhere(seen: &Observed) -> bool {
    seen.is(Power::Off) && (seen.body.evidence.is_empty() || seen.seen_off(Tick::START) == SeenOff::Yes)
}

/// Found running something of somebody's, and nothing of ours was ever begun on it: whoever moves away has nothing to release here.
pub(super) fn is_strange(seen: &Observed) -> bool {
    let body = &seen.body;
    matches!(body.found, Found::Unknown | Found::Running) && body.evidence.is_empty() && body.release.is_none()
}

fn take(holder: &Holder, seen: &Observed) -> Vec<Record> {
    let body = &seen.body;
    let found = match (&body.release, body.found) {
        (None, _) => Found::Unknown,
        (Some(_), Found::Off | Found::Managed) => Found::Managed,
        (Some(_), found @ (Found::Unknown | Found::Running | Found::Adopted)) => found,
    };
    let hold = Hold { binding: holder.authority.binding.clone(), uid: holder.authority.uid.clone() };
    let came_back = body.release.as_ref().is_some_and(|r| r.uid == hold.uid);
    let mut out = vec![Record::Take { hold, found }];
    if came_back {
        out.push(Record::Released);
    } else if body.restart_done != holder.restart {
        // The count is the binding's own: what an earlier holder had says nothing.
        out.push(Record::Restarted(holder.restart));
    }
    out
}

/// How the body was found when it was taken.
fn found(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    if seen.body.held_by.is_none() && seen.body.release.is_none() {
        return;
    }
    // What a person switched on a moment before it was taken is found running.
    let since_taken = seen.power.as_ref().is_some_and(|p| p.asked_at > seen.memory.taken_at);
    let off = || seen.is(Power::Off) && since_taken && seen.seen_off(Tick::START) == SeenOff::Yes;
    let may_wait = seen.parked_lately().is_some() && want.holder.as_ref().is_some_and(fence::may_start_by_itself);
    let nothing_runs = seen.waits_parked() && since_taken;
    match seen.body.found {
        // It is on, and waits for something to boot. One question alone, or an older answer of its BMC, does not say so yet.
        Found::Unknown if may_wait && seen.body.evidence.is_empty() => {
            out.extend(nothing_runs.then_some(Record::FoundAs(Found::Off)));
        }
        Found::Unknown if seen.is(Power::On) => {
            out.push(Record::FoundAs(Found::Running));
            out.extend(may_run(want, seen));
        }
        // Another persona is named, and nobody has said that it is none of them.
        Found::Running if seen.is(Power::On) && !seen.body.evidence.is_empty() => out.extend(may_run(want, seen)),
        Found::Unknown | Found::Running if off() => out.push(Record::FoundAs(Found::Off)),
        Found::Adopted if off() || is_as_desired(want, seen) => out.push(Record::FoundAs(Found::Managed)),
        Found::Unknown | Found::Running | Found::Off | Found::Managed | Found::Adopted => {}
    }
}

/// Whoever binds a server that runs may mean what it runs: until a person says so, it is not known. Not where that may run elsewhere.
fn may_run(want: &Desired, seen: &Observed) -> Option<Record> {
    let body = &seen.body;
    let holder = want.holder.as_ref().filter(|h| !body.evidence.contains_key(&h.persona) && !h.snapshot.claims.is_empty())?;
    let is_known = body.release.is_some() || body.evidence.values().any(|e| e.phase != Phase::Found);
    let elsewhere = seen.elsewhere.iter().any(|other| other.server().is_some());
    (!is_known && !elsewhere).then(|| Record::MayRun(Box::new(holder.snapshot.clone())))
}

/// All of it, as read back: whoever adopted it has nothing more to approve.
fn is_as_desired(want: &Desired, seen: &Observed) -> bool {
    let Some(holder) = want.holder.as_ref().filter(|h| h.state == RunState::Running && h.problems.is_empty()) else { return false };
    let runs = seen.body.evidence.get(&holder.persona).is_some_and(|e| e.stands() && e.phase == Phase::Started);
    let ports = want.port_problems.is_empty() && network::all_as_desired(&holder.ports, seen);
    seen.is(Power::On) && seen.body.evidence.len() == 1 && runs && ports && !power::boot_drifted(holder, seen)
}

/// Nobody desires anything of a body that is off: it keeps no boot answer. Else its evidence could never end, and a persona whose binding
/// was deleted could never live anywhere else.
fn nobodys(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let body = &seen.body;
    let nobody = body.held_by.is_none() && body.release.is_none() && want.holder.is_none();
    if nobody && out.is_empty() && seen.is(Power::Off) {
        out.extend(body.evidence.iter().filter(|(_, e)| e.stands()).map(|(persona, _)| Record::Withdraw(persona.clone())));
    }
}

/// What the answers about power say of what may be alive here.
fn lives(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let Some(power) = &seen.power else { return };
    for (persona, evidence) in &seen.body.evidence {
        let at = |m: &std::collections::BTreeMap<_, Tick>| m.get(persona).copied().unwrap_or(Tick::START);
        if evidence.withdrawn {
            if power.value == Power::Off && seen.seen_off(at(&seen.memory.withdrawn_at)) == SeenOff::Yes {
                out.push(Record::End(persona.clone()));
            }
            continue;
        }
        // What was to be started once was, and is over: not by one answer alone, which may be a BMC's that restarts.
        if evidence.phase == Phase::Started && power.value == Power::Off && boots_once(want, persona) {
            out.extend((seen.seen_off(at(&seen.memory.answered_at)) == SeenOff::Yes).then_some(Record::BootedOnce));
            continue;
        }
        // Under its own standing answer one answer is enough: whatever it starts next is this persona.
        match (evidence.phase, power.value) {
            (Phase::Answered | Phase::Started, Power::Off) if power.asked_at > at(&seen.memory.answered_at) => {
                out.push(Record::Arm(persona.clone()));
            }
            // It is on and waits: it starts with the script that it fetches.
            (Phase::Armed, Power::On) if evidence.run.is_none() && seen.waits_parked() => {}
            (Phase::Armed, Power::Off) if evidence.run.is_some() && seen.seen_off(at(&seen.memory.answered_at)) == SeenOff::Yes => {
                out.push(Record::Arm(persona.clone()));
            }
            (Phase::Armed, Power::On) => out.push(Record::Start(persona.clone())),
            (Phase::Answered | Phase::Started, Power::Off | Power::On) | (Phase::Armed, Power::Off) => {}
            // No answer of ours stood: it is withdrawn from its beginning.
            (Phase::Found, Power::Off | Power::On) => {}
        }
    }
}

/// What was to be booted once is not any more: whoever starts a stopped binding again means what it names, and a body that went off meanwhile is not
/// left so for what could not start.
fn once_over(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let Some(holder) = want.holder.as_ref().filter(|holder| holder.once.is_some()) else { return };
    let is_to_come = !seen.body.evidence.contains_key(&holder.persona);
    let is_off = seen.is(Power::Off) && seen.seen_off(Tick::START) == SeenOff::Yes;
    let cannot = is_to_come && is_off && fence::why_not_once(holder, seen).is_some();
    out.extend((holder.state == RunState::Stopped || cannot).then_some(Record::BootedOnce));
}

fn boots_once(want: &Desired, persona: &Name) -> bool {
    want.holder.as_ref().is_some_and(|holder| holder.once.is_some() && holder.persona == *persona)
}

/// An intent ends when the body was seen off after its last command may have left, or when nobody wants it any more and what was accepted had its time.
/// Of one that nobody wants the boot answer stands again.
fn off_done(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let Some(intent) = &seen.body.off else { return };
    let sent_at = seen.memory.soft_at.max(seen.memory.hard_at);
    if seen.is(Power::Off) {
        if seen.seen_off(sent_at) == SeenOff::Yes {
            out.push(Record::OffDone);
        }
        return;
    }
    let unwanted = fence::why_off(want, seen).is_none();
    // It went off and came on again: what was sent was sent to what ran before, and so was its grace.
    if seen.is(Power::On) && seen.memory.came_on_at > sent_at && intent.soft.tries + intent.hard.tries > 0 {
        out.push(Record::OffDone);
        return;
    }
    if unwanted
        && seen.is(Power::On)
        && super::off::can_be_dropped(intent, &seen.memory, &power::terms(want, seen, seen.memory.on_asked_at))
    {
        out.push(Record::OffDone);
    }
}

/// A body that was declared off and is on: it is alive again, and whatever stood here may run.
fn declared(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let Some(declared) = &seen.body.declared else { return };
    let on = seen.is(Power::On) && seen.memory.on_since_declared;
    let nothing = seen.body.evidence.is_empty() && seen.is(Power::Off) && seen.seen_off(seen.memory.declared_at) == SeenOff::Yes;
    let quarantined = || network::all_as_desired(&want.released_ports, seen) || network::cannot_be_written(&want.released_ports, seen);
    match declared.what {
        Declaration::OffOncePortsAreReleased | Declaration::Off if on => {
            out.push(Record::DeclaredAs(Declaration::OffButRuns));
            // Its record did not read when it was declared off.
            let did_not_read = seen.body.evidence.is_empty() && seen.body.on_disk.is_empty();
            out.extend(did_not_read.then_some(Record::Anything));
        }
        _ if nothing => out.push(Record::DeclarationOver),
        Declaration::OffOncePortsAreReleased if quarantined() => out.push(Record::DeclaredAs(Declaration::Off)),
        Declaration::OffOncePortsAreReleased | Declaration::Off | Declaration::OffButRuns => {}
    }
}

fn restarted(want: &Desired, seen: &Observed, out: &mut Vec<Record>) {
    let (Some(holder), Some(power)) = (&want.holder, &seen.power) else { return };
    let not_since_started = power.asked_at > seen.memory.on_sent_at;
    // A lower number, as of an older checkout, says nothing: what was done is not done once more when the higher one comes back.
    if power.value == Power::Off && not_since_started && seen.body.restart_done < holder.restart {
        out.push(Record::Restarted(holder.restart));
    }
}

/// The debt of a move is paid: off, no evidence, parked, and the ports released, or taken over by the next holder's desired state.
fn released(want: &Desired, seen: &Observed) -> bool {
    let ports = seen.body.held_by.is_some() || network::all_as_desired(&want.released_ports, seen);
    let settled = seen.body.evidence.is_empty() && seen.body.off.is_none() && power::is_parked(want, seen);
    seen.body.release.is_some() && seen.is(Power::Off) && settled && ports
}
