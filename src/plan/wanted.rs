//! Whether an operation that is on its way would still be planned: what is not is taken back at the gate before it leaves.
//!
//! Leaves out: pauses, lost leases, changed identities (they close the gate of the whole device). Invariant 5: a newer desired state voids an
//! operation only where that would no longer be planned; what is half-way is finished.

use super::consent;
use super::desired::{Authority, Desired};
use super::fence;
use super::observed::Observed;
use super::power;
use crate::model::binding::{Plane, RunState};
use crate::model::body::port_id;
use crate::model::fact::BootDevice;
use crate::model::op::Op;

pub(crate) fn is_wanted(op: &Op, want: &Desired, seen: &Observed) -> bool {
    if want.unresolved(&seen.body).is_some() {
        return matches!(op, Op::Save { .. });
    }
    let authority = want.releaser.as_ref().filter(|_| seen.body.release.is_some()).or(want.holder.as_ref().map(|h| &h.authority));
    match op {
        Op::PowerOff { .. } => fence::why_off(want, seen).is_some_and(|why| allowed(why.authority, Plane::Power, op, seen)),
        Op::PowerOn { .. } => starts(want, seen) && authority.is_some_and(|a| allowed(a, Plane::Power, op, seen)),
        Op::SetBoot { device, .. } => {
            let ours = want.holder.as_ref().map_or(BootDevice::Pxe, |h| power::boot_device(h, seen));
            *device == ours && authority.is_some_and(|a| allowed(a, Plane::Boot, op, seen))
        }
        Op::SetPort { switch, port, to, .. } => {
            let key = (switch.clone(), port.clone());
            let begun = seen.body.ports.get(&port_id(switch, port)).and_then(|debt| debt.begun.as_ref());
            if authority.is_none() {
                // Its binding is gone: what was begun is ended all the same.
                return begun.is_some_and(|(was, wanted)| to == was || to == wanted);
            }
            let held = want.holder.as_ref().and_then(|h| h.ports.get(&key));
            let desired = held.or_else(|| want.released_ports.get(&key).filter(|_| want.holder.is_none())).or_else(|| want.debts.get(&key));
            desired.is_some_and(|d| d.over(to) == *to) && authority.is_some_and(|a| allowed(a, Plane::Network, op, seen))
        }
        Op::CreateVlan { switch, vlan } => {
            let holder = want.holder.iter().flat_map(|h| &h.ports);
            let mut ports = holder.chain(&want.released_ports).chain(&want.debts).filter(|((on, _), _)| on == switch);
            ports.any(|(_, port)| port.untagged == Some(Some(*vlan)) || port.tagged.as_ref().is_some_and(|tagged| tagged.contains(vlan)))
        }
        Op::Save { .. } => true,
    }
}

fn starts(want: &Desired, seen: &Observed) -> bool {
    let Some(holder) = want.holder.as_ref().filter(|h| h.problems.is_empty() && h.state == RunState::Running) else { return false };
    let stands = seen.body.evidence.get(&holder.persona).is_some_and(|e| e.stands());
    stands && seen.body.held_by.is_some() && seen.body.release.is_none() && fence::why_off(want, seen).is_none()
}

fn allowed(authority: &Authority, plane: Plane, op: &Op, seen: &Observed) -> bool {
    consent::refusal(authority, plane, op, seen).is_none()
}
