//! Who allows a step: the mode of its plane, an approval, and the first law: a body that was found running is not disturbed.
//!
//! Leaves out: what an approval is made of (`control::actions`). Invariant 10: on a body that was found running nothing disruptive is sent
//! before a person approves exactly that.

use super::desired::Authority;
use super::observed::{Approval, Observed};
use super::{Plan, Step, Wait};
use crate::model::Reason;
use crate::model::binding::{Mode, Plane};
use crate::model::body::Found;
use crate::model::fact::Power;
use crate::model::op::{Disruption, Op};

/// What an approval lists: a disruptive operation without the state that it starts from, which may change before it is carried out.
pub fn signature(op: &Op) -> String {
    match op {
        Op::PowerOff { server, .. } => format!("power-off {server}"),
        Op::SetPort { switch, port, to, .. } => format!("port {switch} {port} {to}"),
        Op::SetBoot { server, device, .. } => format!("boot {server} {device}"),
        Op::PowerOn { server } => format!("power-on {server}"),
        Op::CreateVlan { switch, vlan } => format!("vlan {switch} {vlan}"),
        Op::Save { switch } => format!("save {switch}"),
    }
}

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
    if let Some(trouble) = seen.stopped.get(binding) {
        return Some(Wait::new(trouble.reason, trouble.message.clone()));
    }
    let approval = seen.approvals.get(binding).filter(|a| a.uid == authority.uid && a.generation == authority.generation);
    let runs_by_mistake = seen.body.runs_by_mistake();
    let leaves = seen.body.release.as_ref().is_some_and(|hold| hold.uid == authority.uid);
    let found_running = runs_by_mistake || matches!(seen.body.found, Found::Running | Found::Adopted | Found::Unknown);
    let disturbs = disruption(op, seen) != Disruption::None || (found_running && matches!(op, Op::SetBoot { .. }) && !seen.is(Power::Off));
    match mode {
        Mode::Observe => Some(Wait::new(Reason::Observing, format!("binding {binding} only observes the {} plane", plane.as_str()))),
        Mode::Approve if !covered(approval, disturbs, op) => {
            Some(Wait::new(Reason::ApprovalNeeded, format!("changes of the {} plane wait for `embody approve {binding}`", plane.as_str())))
        }
        Mode::Enforce if found_running && disturbs && !covered(approval, true, op) => {
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
        Mode::Enforce if seen.body.confirm_start && starts(op) && !covered(approval, false, op) => Some(Wait::new(
            Reason::ApprovalNeeded,
            format!(
                "the store went backwards and was taken as it is: what binding {binding} is to start here may run elsewhere by now; if it does not: \
                 `embody approve {binding}`"
            ),
        )),
        Mode::Approve | Mode::Enforce => None,
    }
}

/// What leads to a start, on a body that is off.
fn starts(op: &Op) -> bool {
    matches!(op, Op::PowerOn { .. } | Op::SetBoot { .. })
}

fn covered(approval: Option<&Approval>, disturbs: bool, op: &Op) -> bool {
    approval.is_some_and(|a| !disturbs || a.ops.contains(&signature(op)))
}
