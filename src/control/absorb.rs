//! What comes in changes the world: facts of devices, changes of objects. Returns which servers may have something to do now.
//!
//! Leaves out: deciding, and writing anything. Invariant: an answer of another device than the remembered one is evidence of nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cache::Cache;
use super::twins::Twin;
use super::worker::{Outcome, Report};
use crate::drivers::switch::resolve;
use crate::drivers::{Depth, Fault, Observation};
use crate::model::fact::{BmcSeen, Lag, PortSeen, Seen, SwitchSeen, Tick};
use crate::model::identity::{Identity, Sameness};
use crate::model::objects::ports_at;
use crate::model::op::{Device, Op};
use crate::model::{Kind, Name, Reason};
use crate::plan::observed::Trouble;
use crate::telemetry::timestamp;

/// What a report changed.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Servers of which something is otherwise than it was.
    pub servers: BTreeSet<Name>,
    /// Servers at which it was looked: news for those that wait for a fresh look.
    pub looked_at: BTreeSet<Name>,
    /// It showed a source of its identity for the first time: what is to be remembered of it from now on.
    pub pin: Option<(Kind, Name, Identity)>,
    /// The status of this device's object may differ.
    pub device: Option<(Kind, Name)>,
    /// It answered before and does not now, or the other way round.
    pub reachability: Option<bool>,
}

pub(crate) fn report(cache: &mut Cache, report: &Report) -> Changed {
    match (&report.device, &report.said) {
        (Device::Bmc(server), Outcome::Observed(Ok(Observation::Bmc(seen)))) => bmc(cache, server, seen, report),
        (Device::Switch(switch), Outcome::Observed(Ok(Observation::Switch(seen)))) => switch_seen(cache, switch, seen, report.asked_at),
        (Device::Bmc(server), Outcome::Observed(Err(fault))) => {
            let facts = cache.bmcs.entry(server.clone()).or_default();
            facts.known.again_at = report.again_at;
            let before = facts.known.trouble.clone();
            let reachability = set_trouble(&mut facts.known.trouble, &mut facts.known.trouble_since, Some(trouble(fault)));
            // What is first seen after a start is no change.
            let reachability = reachability.filter(|_| facts.known.seen.is_some());
            let changed = before != facts.known.trouble;
            of_server(server, changed, reachability)
        }
        (Device::Switch(switch), Outcome::Observed(Err(fault))) => {
            let known = cache.switches.entry(switch.clone()).or_default();
            let before = known.trouble.clone();
            known.again_at = report.again_at;
            let reachability = set_trouble(&mut known.trouble, &mut known.trouble_since, Some(trouble(fault)));
            let reachability = reachability.filter(|_| known.seen.is_some());
            let changed = before != known.trouble;
            let servers = if changed { cache.objects.servers_on_switch(switch).cloned().collect() } else { BTreeSet::new() };
            Changed { servers, device: changed.then(|| (Kind::Switch, switch.clone())), reachability, ..Changed::default() }
        }
        (Device::Bmc(server), Outcome::Done(op, result)) => {
            if let (Op::SetBoot { .. }, Ok(_)) = (op, result) {
                // The worker has looked after the operation, before it reports it: what was read then is the echo.
                let echo = cache.bmcs.get(server).and_then(|f| f.boot.as_ref()).filter(|b| b.asked_at > report.asked_at).map(|b| b.value);
                cache.memory_of(server).boot_was_set(echo, report.asked_at);
            }
            Changed::default()
        }
        // Whose operation it was is woken by that; what it did to others, they see in what was looked at after it.
        (Device::Switch(_), Outcome::Done(..)) => Changed::default(),
        (Device::Bmc(_), Outcome::Observed(Ok(Observation::Switch(_))))
        | (Device::Switch(_), Outcome::Observed(Ok(Observation::Bmc(_)))) => Changed::default(),
    }
}

pub(crate) fn trouble(fault: &Fault) -> Trouble {
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

fn bmc(cache: &mut Cache, server: &Name, seen: &BmcSeen, report: &Report) -> Changed {
    let asked_at = report.asked_at;
    let twin = seen.shown.machine().and_then(|machine| cache.same_machine(server, &machine));
    let by_guid = seen.shown.guid.is_some();
    let nothing = Identity::default();
    let pinned = cache.pins.get(&(Kind::Server, server.clone())).map_or(&nothing, |pin| &pin.value);
    let twin = twin.filter(|_| pinned.address.is_none() || !by_guid);
    let extended = pinned.lacks(&seen.shown).then(|| pinned.extended(&seen.shown));
    let foreign = match (pinned.compare(&seen.shown), twin) {
        (Sameness::Different { pinned, shown }, _) => Some(format!(
            "the BMC of {server} shows {shown}, not {pinned}: is it another machine? `embody accept server {server}` takes it as it is"
        )),
        (Sameness::Same | Sameness::NotTold, Some(twin)) if !by_guid => Some(format!(
            "the BMC of {server} answers at the address of that of {twin}, and has no GUID: one machine under two names? Correct `bmc.address` of one of them"
        )),
        (Sameness::Same | Sameness::NotTold, Some(twin)) => Some(format!(
            "the BMC of {server} shows {}, as that of {twin} does: which server it is cannot be told; `embody accept server {server}` takes it by its address",
            seen.shown
        )),
        (Sameness::NotTold, None) if !pinned.is_empty() => {
            Some(format!("the BMC of {server} shows {}, and {pinned} is remembered of it: it says nothing of who it is", seen.shown))
        }
        (Sameness::Same | Sameness::NotTold, None) => None,
    };
    let facts = cache.bmcs.entry(server.clone()).or_default();
    let known = &mut facts.known;
    let trouble_before = known.trouble.clone();
    let same = known.seen.as_ref().is_some_and(|s| s.value == *seen);
    known.again_at = None;
    let new = foreign.map(|message| Trouble { reason: Reason::IdentityChanged, message });
    let is_foreign = new.is_some();
    let reachability = set_trouble(&mut known.trouble, &mut known.trouble_since, new);
    // What is first seen after a start is no change.
    let reachability = reachability.filter(|_| known.seen.is_some());
    let mut changed = of_server(server, !same || trouble_before != known.trouble || facts.power.is_none(), reachability);
    match &mut known.seen {
        Some(before) if same => before.asked_at = asked_at,
        _ => known.seen = Some(Seen { value: seen.clone(), asked_at }),
    }
    if is_foreign {
        facts.power = None;
        facts.boot = None;
        cache.memory_of(server).may_be_on();
        return changed;
    }
    changed.pin = extended.map(|extended| (Kind::Server, server.clone(), extended));
    if facts.power.as_ref().map(|p| p.value) != Some(seen.power) {
        facts.power_since = timestamp();
    }
    let power = Seen { value: seen.power, asked_at };
    facts.power = Some(power.clone());
    if report.depth != Depth::Power || facts.boot.is_none() {
        facts.boot = seen.boot.map(|value| Seen { value, asked_at });
    }
    cache.memory_of(server).saw_power(&power);
    changed
}

fn of_server(server: &Name, changed: bool, reachability: Option<bool>) -> Changed {
    let server: BTreeSet<Name> = [server.clone()].into();
    match changed {
        true => Changed { servers: server, reachability, ..Changed::default() },
        false => Changed { looked_at: server, reachability, ..Changed::default() },
    }
}

/// The servers on a switch of which something may be otherwise by what it shows now.
fn concerned(cache: &Cache, switch: &Name, before: &SwitchSeen, now: &SwitchSeen) -> BTreeSet<Name> {
    let all = || cache.objects.servers_on_switch(switch);
    let SwitchSeen { shown, identity, profile, writable, ports, vlans, unsaved: _, neighbours_told, notes, refused } = now;
    let whole = before.shown == *shown
        && before.identity == *identity
        && before.profile == *profile
        && before.writable == *writable
        && before.vlans == *vlans
        && before.neighbours_told == *neighbours_told
        && before.notes == *notes
        && before.refused == *refused
        && before.ports.len() == ports.len();
    // Whether a link is up decides nothing.
    let same = |one: &PortSeen, other: &PortSeen| one == other || *one == PortSeen { oper: one.oper, ..other.clone() };
    let differs = |(key, port): &(&String, &PortSeen)| before.ports.get(*key).is_none_or(|b| !same(b, port));
    let changed: BTreeMap<&str, &PortSeen> = ports.iter().filter(differs).map(|(key, port)| (key.as_str(), port)).collect();
    // Members of an aggregation say something of others.
    if !whole || changed.values().any(|port| port.lag != Lag::None) {
        return all().cloned().collect();
    }
    let is_changed = |port: &String| resolve(now, port).map_or(true, |key| changed.contains_key(key));
    let concerns = |server: &&Name| cache.objects.servers.get(*server).is_none_or(|held| ports_at(&held.spec, switch).any(is_changed));
    all().filter(|_| !changed.is_empty()).filter(concerns).cloned().collect()
}

fn switch_seen(cache: &mut Cache, switch: &Name, seen: &Arc<SwitchSeen>, asked_at: Tick) -> Changed {
    let pinned = cache.pinned(Kind::Switch, switch);
    cache.twins.shows(switch, &seen.shown);
    let is_by_address = pinned.address.is_some() && pinned.address == cache.address_of_switch(switch);
    let twin = cache.twin_of_switch(switch).filter(|_| !is_by_address);
    let known = cache.switches.entry(switch.clone()).or_default();
    let mut changed = Changed::default();
    let foreign = match (pinned.compare(&seen.shown), twin) {
        (Sameness::Different { pinned, shown }, _) => Some(format!(
            "switch {switch} shows {shown}, not {pinned}: is it another one? `embody accept switch {switch}` takes it as it is"
        )),
        (Sameness::Same | Sameness::NotTold, Some(twin)) => Some(twin_of_switch(switch, &twin)),
        (Sameness::NotTold, None) if !pinned.is_empty() => {
            Some(format!("switch {switch} shows {}, and {pinned} is remembered of it: it says nothing of which one it is", seen.shown))
        }
        (Sameness::Same | Sameness::NotTold, None) => None,
    };
    let foreign = foreign.map(|message| Trouble { reason: Reason::IdentityChanged, message });
    let trouble_before = known.trouble.clone();
    let is_foreign = foreign.is_some();
    known.again_at = None;
    changed.reachability = set_trouble(&mut known.trouble, &mut known.trouble_since, foreign).filter(|_| known.seen.is_some());
    let same = known.seen.as_ref().is_some_and(|s| Arc::ptr_eq(&s.value, seen) || s.value == *seen);
    if !same {
        known.since = timestamp();
    }
    let trouble_changed = trouble_before != known.trouble;
    let before = match &mut known.seen {
        Some(before) if same => {
            before.asked_at = asked_at;
            None
        }
        slot => slot.replace(Seen { value: Arc::clone(seen), asked_at }),
    };
    if !same || trouble_changed {
        changed.device = Some((Kind::Switch, switch.clone()));
        changed.servers = match before {
            Some(before) if !trouble_changed => concerned(cache, switch, &before.value, seen),
            _ => cache.objects.servers_on_switch(switch).cloned().collect(),
        };
    }
    changed.looked_at = cache.objects.servers_on_switch(switch).cloned().collect();
    // A server may be plugged in where no manifest says so.
    let moved = match is_foreign {
        true => cache.cables.forget(switch),
        false if same && !trouble_changed => BTreeSet::new(),
        false => cache.cables.learn(switch, seen),
    };
    changed.servers.extend(moved.into_iter().filter_map(|mac| cache.objects.server_of_mac(mac)).cloned());
    let extended = pinned.extended(&seen.shown);
    changed.pin = (extended != pinned && !is_foreign).then(|| (Kind::Switch, switch.clone(), extended));
    changed
}

/// One switch under two names has two owners of each port, who would take it from one another for ever.
fn twin_of_switch(switch: &Name, twin: &Twin) -> String {
    let Twin { other, shared, is_shown } = twin;
    let (as_other, or_exchanged) = match is_shown {
        true => (format!("as switch {other} does"), String::new()),
        false => (
            format!("as is remembered of switch {other}"),
            format!("; if another one is to answer at {other} from now on, let it answer there and `embody accept switch {other}`"),
        ),
    };
    format!(
        "switch {switch} shows {shared}, {as_other}: they seem to be one switch, and neither is written; delete one of the two Switch objects, or, \
         if they are two switches that show one identity, `embody accept switch {switch}` takes this one by its address{or_exchanged}"
    )
}
