//! The one hard argument: why a body must be switched off, and when a persona may start on it.
//!
//! Invariant 5: an exclusive persona starts here only when no evidence says that it may run elsewhere. Evidence begins with the boot
//! answer and ends when the body is seen off by a question asked after the answer was withdrawn (`ledger`). Unknown means wait.

use std::time::Duration;

use super::desired::{Authority, Desired, Holder};
use super::observed::Observed;
use super::record::Record;
use super::{Plan, Problem};
use crate::limits;
use crate::model::Name;
use crate::model::binding::RunState;
use crate::model::body::{Found, Phase};
use crate::model::fact::{Power, Tick};

/// A reason to switch a body off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyOff<'a> {
    pub authority: &'a Authority,
    pub because: String,
    /// Boot answers that must be withdrawn first.
    pub withdraw: Vec<Name>,
}

pub fn why_off<'a>(want: &'a Desired, seen: &Observed) -> Option<WhyOff<'a>> {
    let standing = |but: Option<&Name>| -> Vec<Name> {
        let stands = |(p, phase): &(&Name, &Phase)| phase.stands() && Some(*p) != but;
        seen.body.may_run.iter().filter(stands).map(|(p, _)| p.clone()).collect()
    };
    let on = seen.power.as_ref().is_none_or(|p| p.value == Power::On);
    let evidence = !seen.body.may_run.is_empty();
    if let (Some(releaser), Some(_)) = (&want.releaser, &seen.body.release) {
        let because = format!("binding {} has moved away", releaser.binding);
        return (evidence || on).then(|| WhyOff { authority: releaser, because, withdraw: standing(None) });
    }
    let holder = want.holder.as_ref().filter(|h| h.problems.is_empty())?;
    let why = |because: String, withdraw| Some(WhyOff { authority: &holder.authority, because, withdraw });
    match holder.state {
        RunState::Stopped if evidence || on => why(format!("binding {} is Stopped", holder.authority.binding), standing(None)),
        RunState::Stopped => None,
        RunState::Running => running_but_wrong(holder, seen).and_then(|(because, more)| {
            let mut withdraw = standing(Some(&holder.persona));
            withdraw.extend(more);
            why(because, withdraw)
        }),
    }
}

/// Why a body that should run the persona must go off first, and whether the persona's own answer must be withdrawn for it.
fn running_but_wrong(holder: &Holder, seen: &Observed) -> Option<(String, Option<Name>)> {
    let persona = &holder.persona;
    let others: Vec<&Name> = seen.body.may_run.keys().filter(|p| *p != persona).collect();
    if let Some(other) = others.first() {
        return Some((format!("it may run persona {other}, not {persona}"), None));
    }
    let on = seen.power.as_ref().filter(|p| p.value == Power::On);
    let answered_at = seen.memory.answered_at.get(persona).copied().unwrap_or(Tick::START);
    match seen.body.may_run.get(persona) {
        None => on.map(|_| (format!("what it runs is not known to be persona {persona}"), None)),
        Some(Phase::Withdrawn) => Some((format!("the boot answer of persona {persona} was withdrawn while it ran"), None)),
        Some(Phase::Answered) => on
            .filter(|p| p.asked_at > answered_at)
            .map(|_| (format!("it was started before it was seen ready for persona {persona}"), Some(persona.clone()))),
        Some(Phase::Started) if seen.body.restart_done < holder.restart => Some((format!("restart {} is desired", holder.restart), None)),
        Some(Phase::Started | Phase::Armed) => None,
    }
}

/// How long a soft-off may take here; a bound where nobody is left to say.
pub fn grace(want: &Desired, seen: &Observed) -> Duration {
    let releaser = want.releaser.as_ref().filter(|_| seen.body.release.is_some());
    releaser.or(want.holder.as_ref().map(|h| &h.authority)).map_or(limits::HARD_OFF_WAIT, |a| a.grace)
}

/// What `approve --adopt` records: a person declares that this body, which was found running, runs the holder's persona. Refused where
/// that would claim an exclusive persona twice, or deny evidence of another one.
pub fn adopt(holder: &Holder, seen: &Observed) -> Result<Record, Problem> {
    let (binding, persona) = (&holder.authority.binding, &holder.persona);
    if seen.body.found == Found::Managed && seen.body.may_run.contains_key(persona) {
        return Err(Problem::new("NothingToAdopt", format!("the server of binding {binding} is known to run persona {persona} already")));
    }
    let held = seen.body.held_by.as_ref().is_some_and(|h| h.uid == holder.authority.uid);
    if !held || seen.body.release.is_some() || seen.body.found != Found::Running {
        return Err(Problem::new("NothingToAdopt", format!("the server of binding {binding} was not found running when it was taken")));
    }
    if seen.power.as_ref().is_none_or(|p| p.value != Power::On) || seen.bmc_trouble.is_some() {
        return Err(Problem::new("PowerUnknown", format!("the server of binding {binding} is not seen running now")));
    }
    if let Some(other) = seen.body.may_run.keys().find(|p| *p != persona) {
        return Err(Problem::new("PersonaUnclear", format!("by evidence the server of binding {binding} may run persona {other}")));
    }
    if let Some(other) = seen.elsewhere.get(persona).into_iter().flatten().next().filter(|_| holder.exclusive) {
        return Err(Problem::new("PersonaElsewhere", format!("persona {persona} may still run on {}", other.server)));
    }
    Ok(Record::Adopt(persona.clone()))
}

/// Whether a persona may be answered here as far as other bodies are concerned; says why not.
pub fn is_clear(holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) -> bool {
    if !holder.exclusive {
        return true;
    }
    for other in seen.elsewhere.get(&holder.persona).into_iter().flatten() {
        let age = match other.asked_at {
            Some(at) => format!("its BMC last answered {} ago", super::power::seconds(now.since(at))),
            None => "its BMC has not answered since this controller started".to_owned(),
        };
        plan.wait("PersonaElsewhere", format!("persona {} may still run on {}: {age}", holder.persona, other.server));
    }
    seen.elsewhere.get(&holder.persona).is_none_or(Vec::is_empty)
}
