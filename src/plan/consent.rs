//! Who allows a step: the mode of its plane, an approval, and the first law: a body that was found running is not disturbed.
//!
//! Leaves out: what an approval lists and how far that is done (`approval`). Invariant 10: on a body that was found running nothing disruptive is sent
//! before a person approves exactly that.

use super::desired::Authority;
use super::observed::Observed;
use super::{Plan, Step, Wait};
use crate::model::binding::{Mode, Plane};
use crate::model::body::Found;
use crate::model::fact::Power;
use crate::model::op::{Disruption, Op};
use crate::model::{Name, Reason};

/// What an operation disturbs here: on a body that is seen off, nothing.
pub(crate) fn disruption(op: &Op, seen: &Observed) -> Disruption {
    match seen.power.as_ref().map(|p| p.value) {
        Some(Power::Off) => Disruption::None,
        None | Some(Power::On) => op.disruption(),
    }
}

/// Puts a step where it belongs: among those that may start, or among the held ones with the reason. Whether it may start.
pub(crate) fn admit(authority: &Authority, step: Step, seen: &Observed, plan: &mut Plan) -> bool {
    let refused = match step.debt {
        // What was begun is ended: that was consented to when it was begun.
        true => stopped_by_a_person(authority, seen),
        false => refusal(authority, step.plane, &step.op, seen),
    };
    match refused {
        None => {
            plan.steps.push(step);
            true
        }
        Some(wait) => {
            if !plan.waits.contains(&wait) {
                plan.waits.push(wait);
            }
            plan.held.push(step);
            false
        }
    }
}

fn stopped_by_a_person(authority: &Authority, seen: &Observed) -> Option<Wait> {
    let trouble = seen
        .stopped
        .get(&authority.binding)
        .filter(|t| matches!(t.reason, Reason::Paused | Reason::StoreWentBackwards | Reason::ObjectUnreadable))?;
    Some(Wait::new(trouble.reason, trouble.message.clone()))
}

/// Whether an operation may be carried out in this binding's name; if not, why.
pub(crate) fn refusal(authority: &Authority, plane: Plane, op: &Op, seen: &Observed) -> Option<Wait> {
    let binding = &authority.binding;
    let mode = authority.mode(plane);
    if seen.as_if_approved && mode != Mode::Observe {
        return None;
    }
    let approved = is_approved(authority, op, seen);
    // An approval lifts the hold of exactly what it lists; no other stop.
    if let Some(trouble) = seen.stopped.get(binding).filter(|t| t.reason != Reason::Held || !approved) {
        return Some(Wait::new(trouble.reason, trouble.message.clone()));
    }
    let runs_by_mistake = seen.body.runs_by_mistake();
    let leaves = seen.body.release.as_ref().is_some_and(|hold| hold.uid == authority.uid);
    let found_running = runs_by_mistake || matches!(seen.body.found, Found::Running | Found::Adopted | Found::Unknown);
    let disturbs = disruption(op, seen) != Disruption::None || (found_running && matches!(op, Op::SetBoot { .. }) && !seen.is(Power::Off));
    match mode {
        Mode::Observe => Some(Wait::new(Reason::Observing, format!("binding {binding} only observes the {} plane", plane.as_str()))),
        Mode::Approve | Mode::Enforce if approved => None,
        Mode::Approve => {
            Some(Wait::new(Reason::ApprovalNeeded, format!("changes of the {} plane wait for `embody approve {binding}`", plane.as_str())))
        }
        Mode::Enforce if found_running && disturbs => {
            let why = match runs_by_mistake {
                true => "the server was declared off, and is on".to_owned(),
                false => format!("the server was running when binding {binding} took it"),
            };
            let declare = match seen.body.found {
                _ if runs_by_mistake || leaves => String::new(),
                Found::Adopted => String::new(),
                Found::Unknown | Found::Off | Found::Running | Found::Managed => {
                    format!(", or declare that it runs the persona with `embody approve {binding} --adopt`")
                }
            };
            Some(Wait::new(Reason::ApprovalNeeded, format!("{why}; approve what is planned with `embody approve {binding}`{declare}")))
        }
        Mode::Enforce if seen.body.confirm_start && starts(op) => Some(unconfirmed(binding)),
        Mode::Enforce => None,
    }
}

/// Whether a person was shown this, and said yes. Of a body that is off already only its answer is withdrawn: that is no operation, and goes
/// with all that was shown.
pub(crate) fn is_approved(authority: &Authority, op: &Op, seen: &Observed) -> bool {
    let sends_nothing = matches!(op, Op::PowerOff { .. }) && seen.is(Power::Off);
    seen.approval(authority).is_some_and(|approval| sends_nothing || approval.covers(op))
}

/// What a store that went backwards knows nothing of may be the other life of what is to start.
pub(crate) fn unconfirmed(binding: &Name) -> Wait {
    let may = format!("what binding {binding} is to start here may run elsewhere by now; if it does not: `embody approve {binding}`");
    Wait::new(Reason::ApprovalNeeded, format!("the store went backwards and was taken as it is: {may}"))
}

/// What leads to a start, on a body that is off.
fn starts(op: &Op) -> bool {
    matches!(op, Op::PowerOn { .. } | Op::SetBoot { .. })
}
