//! The network facet: ports of a body that is ours are brought to the desired state; those of a released body go to quarantine; and what is
//! still owed to ports that were written before is paid first.
//!
//! Invariant 8: a step exists only for a port that a manifest names, or that embody wrote itself for this server, and whose state was seen,
//! from exactly that state. Ports that must not be written are problems, never steps.

use std::collections::{BTreeMap, BTreeSet};

use super::desired::{Authority, Desired, DesiredPort};
use super::observed::{Observed, PortKey, PortObserved, Trouble};
use super::record::Record;
use super::{Plan, Step, consent, fence};
use crate::model::binding::{Plane, RunState};
use crate::model::body::{Declaration, Phase, PortDebt, port_id};
use crate::model::fact::{PortConfig, Power};
use crate::model::op::Op;
use crate::model::{Name, Reason, Vlan};

pub(crate) fn plan(want: &Desired, seen: &Observed, plan: &mut Plan) {
    let authority = want.holder.as_ref().filter(|_| seen.body.held_by.is_some()).map(|h| &h.authority).or(want.releaser.as_ref());
    match authority {
        Some(authority) => {
            half_way(Some(authority), want, seen, plan);
            ports(authority, &want.debts, seen, plan);
        }
        // Nobody desires anything here any more, but a port is not left shut.
        None => half_way(None, want, seen, plan),
    }
    if let Some(holder) = want.holder.as_ref().filter(|h| h.problems.is_empty()) {
        let standing = seen.body.evidence.get(&holder.persona).filter(|e| e.stands());
        let ours = match holder.state {
            RunState::Running => {
                let waits = fence::starts_by_itself(holder, seen);
                let runs_here = standing.is_some_and(|e| matches!(e.phase, Phase::Armed | Phase::Started) || waits);
                runs_here && seen.body.release.is_none() && !fence::is_outdated(holder, seen)
            }
            RunState::Stopped => seen.body.evidence.is_empty() && seen.is(Power::Off),
        };
        // What is declared off has no network, whatever stands there.
        if ours && seen.body.held_by.is_some() && seen.body.declared.is_none() {
            return ports(&holder.authority, &holder.ports, seen, plan);
        }
    }
    let Some(authority) = authority else { return };
    let released = seen.body.release.is_some() && seen.body.evidence.is_empty() && seen.is(Power::Off) && want.holder.is_none();
    // Its power is cut, by a person's word: first its ports, then the word counts.
    let declared = seen.body.declared.as_ref().is_some_and(|d| d.what == Declaration::OffOncePortsAreReleased);
    if released || declared {
        ports(authority, &want.released_ports, seen, plan);
    }
}

/// A port that was left between two states is ended first, whatever the body is about to do: back, where that is what is desired now.
fn half_way(authority: Option<&Authority>, want: &Desired, seen: &Observed, plan: &mut Plan) {
    for (id, debt) in &seen.body.ports {
        let key = crate::model::body::port_of(id).map(|(switch, port)| (switch, port.to_owned()));
        let (Some((from, to)), Some(key)) = (&debt.begun, key) else { continue };
        // It can be put back where its switch refuses what it was left for: so much it has taken.
        let may_be_written = |f: &PortObserved| f.refuse.as_ref().is_none_or(|refuse| refuse.reason == Reason::WriteRefused);
        let Some(found) = seen.ports.get(&key).filter(|f| is_between(&f.config, from, to) && may_be_written(f)) else { continue };
        let trouble = seen.switches.get(&key.0).and_then(|s| s.trouble.as_ref());
        if let Some(trouble) = trouble {
            plan.wait(trouble.reason, format!("port {} of switch {} was left between two states; {}", key.1, key.0, trouble.message));
        }
        if trouble.is_some() || !seen.switches.contains_key(&key.0) || seen.in_flight.contains(&key) {
            continue;
        }
        let holder = want.holder.as_ref().and_then(|h| h.ports.get(&key));
        let desired = holder.or_else(|| want.released_ports.get(&key)).or_else(|| want.debts.get(&key));
        let back = desired.is_some_and(|d| d.over(from) == *from);
        let end = if back || refused(found, to).is_some() { from } else { to };
        let op = Op::SetPort { switch: key.0, port: key.1, from: found.config.clone(), to: end.clone() };
        let Some(authority) = authority.cloned().or_else(|| debt.by.clone().map(of_one_gone)) else { continue };
        consent::admit(&authority, port_step(&authority, op, "it was left between two states", seen), seen, plan);
    }
}

/// In whose name a write is ended whose binding is gone.
fn of_one_gone(binding: Name) -> Authority {
    Authority {
        binding,
        uid: String::new(),
        generation: 0,
        answer: String::new(),
        modes: BTreeMap::new(),
        grace: std::time::Duration::ZERO,
    }
}

/// Ports of this body that were left between two states, as far as that is seen.
pub(crate) fn left_half_way(seen: &Observed) -> Vec<String> {
    let between = |id: &String, debt: &PortDebt| {
        let (from, to) = debt.begun.as_ref()?;
        let (switch, port) = crate::model::body::port_of(id)?;
        let found = seen.ports.get(&(switch.clone(), port.to_owned()))?;
        is_between(&found.config, from, to).then(|| format!("port {port} of switch {switch}"))
    };
    seen.body.ports.iter().filter_map(|(id, debt)| between(id, debt)).collect()
}

fn ports(authority: &Authority, desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed, plan: &mut Plan) {
    let mut creating: BTreeSet<(Name, Vlan)> = BTreeSet::new();
    for (key, desired) in desired {
        let (switch, port) = key;
        let trouble = seen.switches.get(switch).and_then(|s| s.trouble.as_ref());
        let Some(found) = seen.ports.get(key) else {
            match trouble {
                Some(trouble) => plan.wait(trouble.reason, trouble.message.clone()),
                None => plan.wait(Reason::PortUnknown, format!("port {port} of switch {switch} was not seen yet")),
            }
            continue;
        };
        let to = desired.over(&found.config);
        if to == found.config {
            continue;
        }
        // One write of a port at a time.
        let is_it = |step: &&Step| matches!(&step.op, Op::SetPort { switch: s, port: p, .. } if s == switch && p == port);
        if plan.steps.iter().chain(&plan.held).any(|step| is_it(&step)) {
            continue;
        }
        if seen.in_flight.contains(key) {
            plan.wait(Reason::Working, format!("a write of port {port} of switch {switch} is on its way"));
            continue;
        }
        if let Some((reason, message)) = never(key, desired, found, &to) {
            plan.problem(reason, message);
            continue;
        }
        if let Some(trouble) = trouble {
            plan.wait(trouble.reason, trouble.message.clone());
            continue;
        }
        let added = added(&found.config, &to);
        if vlans_exist(authority, switch, &added, seen, &mut creating, plan) {
            let op = Op::SetPort { switch: switch.clone(), port: port.clone(), from: found.config.clone(), to };
            consent::admit(authority, port_step(authority, op, &desired.because, seen), seen, plan);
        }
    }
}

/// Why a port is not written, whoever allows it.
fn never((switch, port): &PortKey, desired: &DesiredPort, found: &PortObserved, to: &PortConfig) -> Option<(Reason, String)> {
    if desired.carries_bmc && found.config.untagged.is_some() && to.untagged != found.config.untagged {
        let why = format!(
            "port {port} of switch {switch} carries the BMC: its untagged VLAN is not changed ({to} is desired, {} is seen)",
            found.config
        );
        return Some((Reason::CarriesBmc, why));
    }
    refused(found, to).map(|refuse| (refuse.reason, refuse.message.clone()))
}

/// Why this is not written to a port. A switch that refuses to have VLANs written lets a port be shut and opened all the same.
fn refused<'a>(found: &'a PortObserved, to: &PortConfig) -> Option<&'a Trouble> {
    let same_vlans = (found.config.untagged, &found.config.tagged) == (to.untagged, &to.tagged);
    found.refuse.as_ref().filter(|refuse| refuse.reason != Reason::WriteRefused || !same_vlans)
}

fn port_step(authority: &Authority, op: Op, because: &str, seen: &Observed) -> Step {
    let (write_ahead, debt) = match &op {
        Op::SetPort { switch, port, from, to } => {
            let id = port_id(switch, port);
            // Left between two states: ending that is part of what was consented to.
            let begun = seen.body.ports.get(&id).and_then(|debt| debt.begun.as_ref());
            let ends = begun.is_some_and(|(was, wanted)| to == wanted || to == was);
            (vec![Record::PortBegun { id, from: from.clone(), to: to.clone() }], ends)
        }
        _ => (Vec::new(), false),
    };
    Step { op, binding: authority.binding.clone(), plane: Plane::Network, because: because.to_owned(), write_ahead, debt }
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
        plan.wait(Reason::PortUnknown, format!("switch {switch} was not seen yet"));
        return false;
    };
    if let Some(vlan) = needed.iter().find(|v| here.protected.contains(v)) {
        plan.problem(Reason::VlanProtected, format!("VLAN {vlan} is protected on switch {switch}"));
        return false;
    }
    let missing: Vec<Vlan> = needed.iter().copied().filter(|v| !here.vlans.contains(v)).collect();
    for vlan in &missing {
        if !here.creates_vlans {
            plan.problem(Reason::VlanMissing, no_vlan(switch, *vlan));
        } else if creating.insert((switch.clone(), *vlan)) {
            let op = Op::CreateVlan { switch: switch.clone(), vlan: *vlan };
            consent::admit(authority, port_step(authority, op, "a port needs it", seen), seen, plan);
        }
    }
    missing.is_empty()
}

/// Every port that the persona uses is read back as desired.
pub(crate) fn ready(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> bool {
    desired.iter().filter(|(_, w)| w.needed).all(|(key, desired)| is_met(key, desired, seen) && !seen.in_flight.contains(key))
}

pub(crate) fn all_as_desired(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> bool {
    desired.iter().all(|(key, desired)| is_met(key, desired, seen))
}

/// None of those that are not as desired can be written at present.
pub(crate) fn cannot_be_written(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> bool {
    let stuck = |key: &PortKey, desired: &DesiredPort| {
        let silent = seen.switches.get(&key.0).is_none_or(|s| s.trouble.is_some());
        silent || seen.ports.get(key).is_none_or(|found| never(key, desired, found, &desired.over(&found.config)).is_some())
    };
    desired.iter().filter(|(key, desired)| !is_met(key, desired, seen)).all(|(key, desired)| stuck(key, desired))
}

/// Why the ports that a persona needs could not be brought to the desired state, as far as that is known before anything is tried.
pub(crate) fn could_be_ready(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> Result<(), String> {
    for (key, desired) in desired.iter().filter(|(_, w)| w.needed) {
        let (switch, port) = key;
        if let Some(trouble) = seen.switches.get(switch).and_then(|s| s.trouble.as_ref()) {
            return Err(trouble.message.clone());
        }
        let Some(found) = seen.ports.get(key) else { return Err(format!("port {port} of switch {switch} was not seen yet")) };
        let to = desired.over(&found.config);
        if to == found.config {
            continue;
        }
        if let Some((_, why)) = never(key, desired, found, &to) {
            return Err(why);
        }
        let Some(here) = seen.switches.get(switch) else { return Err(format!("switch {switch} was not seen yet")) };
        if let Some(why) = here.tagged_refused.as_ref().filter(|_| to.tagged != found.config.tagged) {
            return Err(why.clone());
        }
        let added = added(&found.config, &to);
        if let Some(vlan) = added.iter().find(|v| here.protected.contains(v)) {
            return Err(format!("VLAN {vlan} is protected on switch {switch}"));
        }
        if let Some(vlan) = added.iter().find(|v| !here.vlans.contains(v) && !here.creates_vlans) {
            return Err(no_vlan(switch, *vlan));
        }
    }
    Ok(())
}

/// A VLAN that a needed port is to carry, and that is to be made on its switch first: that may fail, and nothing starts before it is there.
pub(crate) fn vlan_to_make(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> Option<(Name, Vlan)> {
    let needed = desired.iter().filter(|(key, desired)| desired.needed && !is_met(key, desired, seen));
    let mut missing = needed.filter_map(|(key, desired)| {
        let (found, here) = (seen.ports.get(key)?, seen.switches.get(&key.0)?);
        let added = added(&found.config, &desired.over(&found.config));
        added.into_iter().find(|vlan| !here.vlans.contains(vlan)).map(|vlan| (key.0.clone(), vlan))
    });
    missing.next()
}

/// A write that the persona needs before it can start, if there is one.
pub(crate) fn first_write(desired: &BTreeMap<PortKey, DesiredPort>, seen: &Observed) -> Option<Op> {
    let needed = desired.iter().filter(|(key, desired)| desired.needed && !is_met(key, desired, seen));
    let mut writes = needed.filter_map(|((switch, port), desired)| {
        let from = seen.ports.get(&(switch.clone(), port.clone()))?.config.clone();
        Some(Op::SetPort { switch: switch.clone(), port: port.clone(), to: desired.over(&from), from })
    });
    writes.next()
}

fn no_vlan(switch: &Name, vlan: Vlan) -> String {
    format!("switch {switch} has no VLAN {vlan}; make it there, or set `vlans: Create` in the spec of Switch {switch}")
}

fn is_met(key: &PortKey, desired: &DesiredPort, seen: &Observed) -> bool {
    seen.ports.get(key).is_some_and(|s| desired.over(&s.config) == s.config)
}

/// What a write leaves that ends in its middle: VLANs of the one or the other, or no untagged one. Anything else is somebody's change after it.
fn is_between(found: &PortConfig, from: &PortConfig, to: &PortConfig) -> bool {
    let either =
        |vlan: &Vlan| from.tagged.contains(vlan) || to.tagged.contains(vlan) || [from.untagged, to.untagged].contains(&Some(*vlan));
    let untagged = found.untagged.is_none() || found.untagged == from.untagged || found.untagged == to.untagged;
    found != from && found != to && untagged && found.tagged.iter().all(either)
}

/// What is seen of ports that were written for this body before: a write that ended, a port that nothing is owed to any more.
pub(crate) fn debts(want: &Desired, seen: &Observed) -> Vec<Record> {
    let mut out = Vec::new();
    for (id, debt) in &seen.body.ports {
        let Some(key) = crate::model::body::port_of(id).map(|(switch, port)| (switch, port.to_owned())) else { continue };
        let found = seen.ports.get(&key);
        if let (Some((from, to)), Some(found)) = (&debt.begun, found)
            && !is_between(&found.config, from, to)
            && seen.memory.port_at.get(id).is_none_or(|at| found.asked_at > *at)
            && !seen.in_flight.contains(&key)
        {
            out.push(Record::PortEnded(id.clone()));
        }
        let named = want.released_ports.contains_key(&key) || want.holder.as_ref().is_some_and(|h| h.ports.contains_key(&key));
        if named || debt.begun.is_some() || !want.exists {
            continue;
        }
        // No manifest says that this server is at that port: once it is released, or is somebody else's affair, nothing is owed.
        let met = want.debts.get(&key).is_none_or(|desired| is_met(&key, desired, seen));
        let contradicted = found.and_then(|f| f.refuse.as_ref()).is_some_and(|r| r.reason == Reason::CableContradicted);
        if met || contradicted {
            out.push(Record::PortForgotten(id.clone()));
        }
    }
    out
}
