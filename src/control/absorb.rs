//! What comes in changes the world: facts of devices, changes of objects. Returns which servers may have something to do now.
//!
//! Leaves out: deciding, and writing anything. Invariant: an answer of another device than the remembered one is evidence of nothing.

use std::collections::BTreeSet;

use super::lane::{Report, Said};
use super::world::World;
use crate::drivers::{Fault, Observation};
use crate::model::fact::{BmcSeen, Seen, SwitchSeen, Tick};
use crate::model::{Kind, Name};
use crate::plan::op::{Device, Op};
use crate::plan::seen::Trouble;
use crate::telemetry::timestamp;

/// What a report changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// Servers that may have something to do now.
    pub servers: BTreeSet<Name>,
    /// The device showed this identity for the first time: to be remembered.
    pub pin: Option<(Kind, Name, String)>,
    /// The status of this device's object may differ.
    pub device: Option<(Kind, Name)>,
    /// It answered before and does not now, or the other way round.
    pub reachability: Option<bool>,
}

pub fn report(world: &mut World, report: &Report) -> Changed {
    match (&report.device, &report.said) {
        (Device::Bmc(server), Said::Looked(Ok(Observation::Bmc(seen)))) => bmc(world, server, seen, report.asked_at),
        (Device::Switch(switch), Said::Looked(Ok(Observation::Switch(seen)))) => switch_seen(world, switch, seen, report.asked_at),
        (Device::Bmc(server), Said::Looked(Err(fault))) => {
            let facts = world.bmcs.entry(server.clone()).or_default();
            let reachability = set_trouble(&mut facts.known.trouble, &mut facts.known.trouble_since, Some(trouble(fault)));
            // What is first seen after a start is no change.
            let reachability = reachability.filter(|_| facts.known.seen.is_some());
            Changed { servers: [server.clone()].into(), device: Some((Kind::Server, server.clone())), reachability, ..Changed::default() }
        }
        (Device::Switch(switch), Said::Looked(Err(fault))) => {
            let known = world.switches.entry(switch.clone()).or_default();
            let before = known.trouble.clone();
            let reachability = set_trouble(&mut known.trouble, &mut known.trouble_since, Some(trouble(fault)));
            let reachability = reachability.filter(|_| known.seen.is_some());
            let changed = before != known.trouble;
            let servers = if changed { world.objects.servers_on_switch(switch).cloned().collect() } else { BTreeSet::new() };
            Changed { servers, device: Some((Kind::Switch, switch.clone())), reachability, ..Changed::default() }
        }
        (Device::Bmc(server), Said::Did(op, result)) => {
            if let (Op::SetBoot { .. }, Ok(())) = (op, result) {
                // The lane has looked after the operation, before it reports it: what was read then is the echo.
                let echo = world.bmcs.get(server).and_then(|f| f.boot.as_ref()).filter(|b| b.asked_at > report.asked_at).map(|b| b.value);
                world.memory_of(server).boot_was_set(echo, report.asked_at);
            }
            Changed { servers: [server.clone()].into(), ..Changed::default() }
        }
        (Device::Bmc(server), Said::Recalled(_)) => Changed { servers: [server.clone()].into(), ..Changed::default() },
        (Device::Switch(switch), Said::Did(..) | Said::Recalled(_)) => {
            Changed { servers: world.objects.servers_on_switch(switch).cloned().collect(), ..Changed::default() }
        }
        (Device::Bmc(_), Said::Looked(Ok(Observation::Switch(_)))) | (Device::Switch(_), Said::Looked(Ok(Observation::Bmc(_)))) => {
            Changed::default()
        }
    }
}

pub fn trouble(fault: &Fault) -> Trouble {
    let mut message = fault.to_string();
    let mut source = std::error::Error::source(fault);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    Trouble { reason: fault.reason(), message }
}

/// Sets a device's trouble; whether that changes if it is reachable.
fn set_trouble(slot: &mut Option<Trouble>, since: &mut String, new: Option<Trouble>) -> Option<bool> {
    let same = slot.as_ref().map(|t| t.reason) == new.as_ref().map(|t| t.reason);
    let flipped = (slot.is_some() != new.is_some()).then_some(new.is_none());
    if !same {
        *since = timestamp();
    }
    *slot = new;
    flipped
}

fn bmc(world: &mut World, server: &Name, seen: &BmcSeen, asked_at: Tick) -> Changed {
    let pinned = world.pins.get(&(Kind::Server, server.clone())).map(|p| p.value.clone());
    let shown = seen.identity.guid.clone();
    let twin = shown.as_ref().and_then(|guid| world.same_guid(server, guid));
    let foreign = match (&pinned, &shown, twin) {
        (_, Some(guid), Some(twin)) => {
            Some(format!("the BMC of {server} shows the GUID {guid}, as that of {twin} does: which server it is cannot be told"))
        }
        (Some(pinned), Some(shown), None) if pinned != shown => Some(format!(
            "the BMC of {server} shows the GUID {shown}, not {pinned}: is it another machine? `embody accept server {server}` takes it as it is"
        )),
        _ => None,
    };
    let facts = world.bmcs.entry(server.clone()).or_default();
    let mut changed = Changed { servers: [server.clone()].into(), device: Some((Kind::Server, server.clone())), ..Changed::default() };
    let known = &mut facts.known;
    let new = foreign.map(|message| Trouble { reason: "IdentityChanged", message });
    let is_foreign = new.is_some();
    changed.reachability = set_trouble(&mut known.trouble, &mut known.trouble_since, new);
    known.seen = Some(Seen { value: seen.clone(), asked_at });
    if is_foreign {
        facts.power = None;
        facts.boot = None;
        return changed;
    }
    changed.pin = shown.filter(|_| pinned.is_none()).map(|guid| (Kind::Server, server.clone(), guid));
    if facts.power.as_ref().map(|p| p.value) != Some(seen.power) {
        facts.power_since = timestamp();
    }
    let before = facts.power.as_ref().map(|p| p.value);
    let power = Seen { value: seen.power, asked_at };
    facts.power = Some(power.clone());
    facts.boot = seen.boot.map(|value| Seen { value, asked_at });
    world.memory_of(server).saw_power(before, &power);
    changed
}

fn switch_seen(world: &mut World, switch: &Name, seen: &SwitchSeen, asked_at: Tick) -> Changed {
    let pinned = world.pins.get(&(Kind::Switch, switch.clone())).map(|p| p.value.clone());
    let shown = seen.identity.pin.clone();
    let known = world.switches.entry(switch.clone()).or_default();
    let mut changed = Changed { device: Some((Kind::Switch, switch.clone())), ..Changed::default() };
    let foreign = match (&pinned, &shown) {
        (Some(pinned), Some(shown)) if pinned != shown => Some(Trouble {
            reason: "IdentityChanged",
            message: format!(
                "switch {switch} shows {shown}, not {pinned}: is it another one? `embody accept switch {switch}` takes it as it is"
            ),
        }),
        _ => None,
    };
    let trouble_before = known.trouble.clone();
    let is_foreign = foreign.is_some();
    changed.reachability = set_trouble(&mut known.trouble, &mut known.trouble_since, foreign);
    let same = known.seen.as_ref().is_some_and(|s| s.value == *seen);
    if !same {
        known.since = timestamp();
    }
    known.seen = Some(Seen { value: seen.clone(), asked_at });
    if !same || trouble_before != known.trouble {
        changed.servers = world.objects.servers_on_switch(switch).cloned().collect();
    }
    changed.pin = shown.filter(|_| pinned.is_none() && !is_foreign).map(|pin| (Kind::Switch, switch.clone(), pin));
    changed
}
