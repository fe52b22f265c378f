//! The network facet: ports of a body that is ours are brought to the desired state; those of a released body go to quarantine.
//!
//! Invariant 6: a step exists only for a port that a manifest names and whose state was seen, from exactly that state. Ports that must
//! not be written are problems, never steps.

use std::collections::{BTreeMap, BTreeSet};

use super::desired::{Authority, Desired, DesiredPort};
use super::observed::{Observed, PortKey};
use super::{Plan, Step, consent};
use crate::model::binding::{Plane, RunState};
use crate::model::body::Phase;
use crate::model::fact::{PortConfig, Power};
use crate::model::op::Op;
use crate::model::{Name, Vlan};

pub fn plan(want: &Desired, seen: &Observed, plan: &mut Plan) {
    if let Some(holder) = want.holder.as_ref().filter(|h| h.problems.is_empty()) {
        let ours = match holder.state {
            RunState::Running => {
                matches!(seen.body.may_run.get(&holder.persona), Some(Phase::Armed | Phase::Started)) && seen.body.release.is_none()
            }
            RunState::Stopped => seen.body.may_run.is_empty() && is_off(seen),
        };
        if ours && seen.body.held_by.is_some() {
            ports(&holder.authority, &holder.ports, seen, plan);
        }
        return;
    }
    if let (Some(releaser), Some(_)) = (&want.releaser, &seen.body.release)
        && seen.body.may_run.is_empty()
        && is_off(seen)
    {
        ports(releaser, &want.released_ports, seen, plan);
    }
}

fn is_off(seen: &Observed) -> bool {
    seen.power.as_ref().is_some_and(|p| p.value == Power::Off)
}

fn ports(authority: &Authority, desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed, plan: &mut Plan) {
    let mut creating: BTreeSet<(Name, Vlan)> = BTreeSet::new();
    for (key, desired) in desired {
        let (switch, port) = key;
        let trouble = seen.switches.get(switch).and_then(|s| s.trouble.as_ref());
        let Some(sight) = seen.ports.get(key) else {
            match trouble {
                Some(trouble) => plan.wait(trouble.reason, trouble.message.clone()),
                None => plan.wait("PortUnknown", format!("port {port} of switch {switch} was not seen yet")),
            }
            continue;
        };
        let to = desired.over(&sight.config);
        if to == sight.config {
            continue;
        }
        if desired.carries_bmc && sight.config.untagged.is_some() && to.untagged != sight.config.untagged {
            plan.problem(
                "CarriesBmc",
                format!(
                    "port {port} of switch {switch} carries the BMC: its untagged VLAN is not changed ({to} is desired, {} is seen)",
                    sight.config
                ),
            );
            continue;
        }
        if let Some(refuse) = &sight.refuse {
            plan.problem(refuse.reason, refuse.message.clone());
            continue;
        }
        if let Some(trouble) = trouble {
            plan.wait(trouble.reason, trouble.message.clone());
            continue;
        }
        let added = added(&sight.config, &to);
        if vlans_exist(authority, switch, &added, seen, &mut creating, plan) {
            let op = Op::SetPort { switch: switch.clone(), port: port.clone(), from: sight.config.clone(), to };
            consent::admit(authority, step(authority, op, &desired.because), seen, plan);
        }
    }
}

fn step(authority: &Authority, op: Op, because: &str) -> Step {
    Step { op, binding: authority.binding.clone(), plane: Plane::Network, because: because.to_owned(), write_ahead: None }
}

/// What the port does not carry so already: a protected VLAN may be kept, and a port that is shut may lie in it.
fn added(from: &PortConfig, to: &PortConfig) -> Vec<Vlan> {
    let untagged = to.untagged.filter(|v| from.untagged != Some(*v));
    untagged.into_iter().chain(to.tagged.difference(&from.tagged).copied()).collect()
}

/// Whether the switch has every VLAN that a port is to carry; those that it may make are made first.
fn vlans_exist(
    authority: &Authority,
    switch: &Name,
    needed: &[Vlan],
    seen: &Observed,
    creating: &mut BTreeSet<(Name, Vlan)>,
    plan: &mut Plan,
) -> bool {
    let Some(here) = seen.switches.get(switch) else {
        plan.wait("PortUnknown", format!("switch {switch} was not seen yet"));
        return false;
    };
    if let Some(vlan) = needed.iter().find(|v| here.protected.contains(v)) {
        plan.problem("VlanProtected", format!("VLAN {vlan} is protected on switch {switch}"));
        return false;
    }
    let missing: Vec<Vlan> = needed.iter().copied().filter(|v| !here.vlans.contains(v)).collect();
    for vlan in &missing {
        if !here.creates_vlans {
            plan.problem("VlanMissing", format!("switch {switch} has no VLAN {vlan}; make it there, or set `vlans: Create`"));
        } else if creating.insert((switch.clone(), *vlan)) {
            let op = Op::CreateVlan { switch: switch.clone(), vlan: *vlan };
            consent::admit(authority, step(authority, op, "a port needs it"), seen, plan);
        }
    }
    missing.is_empty()
}

/// Every port that the persona uses is read back as desired.
pub fn ready(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> bool {
    desired.iter().filter(|(_, w)| w.needed).all(|(key, desired)| is_met(key, desired, seen))
}

pub fn all_as_wished(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> bool {
    desired.iter().all(|(key, desired)| is_met(key, desired, seen))
}

fn is_met(key: &PortKey, desired: &DesiredPort, seen: &Observed) -> bool {
    seen.ports.get(key).is_some_and(|s| desired.over(&s.config) == s.config)
}
