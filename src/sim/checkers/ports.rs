//! Invariant 8: what a port carries, which ports change at all, and whose bits a write touches.
//!
//! Every change of a port is judged when it happens, by what is so then; a write also by which port it was for. A person's write is
//! forgiven inside the time between embody's read and its write, and at no other time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Intent, Judge, PortName, carried};
use crate::drivers::gate::Key;
use crate::model::body::port_id;
use crate::model::fact::{Admin, PortConfig, Tick};
use crate::model::network::Role;
use crate::model::switch::VlanPolicy;
use crate::model::{Name, Vlan};
use crate::sim::centre::Runs;
use crate::sim::switch::{Change, PortView, Who};

/// How long a write may go on with an earlier desired state: it leaves at most ten seconds after its question, is under way for five, and a
/// port is written in several steps.
const OLD_DESIRED: Duration = Duration::from_secs(60);

/// A SET that is longer on its way is not waited for any more.
const LATE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Ports {
    /// When embody last wrote a port that it meant.
    by_us: BTreeMap<PortName, Tick>,
    /// When a VLAN was last that of a Network.
    pub(super) named_at: BTreeMap<Vlan, Tick>,
    /// Uplinks of switches that make VLANs, likewise.
    pub(super) uplink_at: BTreeMap<PortName, Tick>,
    /// When a server last named a port.
    pub(super) wired_at: BTreeMap<PortName, Tick>,
    pub(super) desired: BTreeMap<PortName, Vec<(Tick, Intent)>>,
    pub(super) by_hand: BTreeMap<PortName, (Tick, BTreeSet<Vlan>)>,
    /// What a port was that embody has shut to rewrite it.
    found_as: BTreeMap<PortName, PortView>,
}

/// A write of embody's, as it arrives.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: Key,
    /// When the answer was asked for that it relies on.
    pub read_at: Tick,
    pub left_at: Tick,
}

impl Judge {
    /// The server at the other end of a port.
    pub fn wired(&self, switch: &Name, port: &str) -> Option<Name> {
        let here = |n: &crate::model::server::Nic| n.switch.as_ref() == Some(switch) && n.port.as_deref() == Some(port);
        let names = |server: &&Name| self.objects.servers.get(*server).is_some_and(|s| s.spec.nics.iter().any(here));
        self.objects.servers_on_switch(switch).find(names).cloned()
    }

    /// `write`: in which the change happened, where it was embody's.
    pub fn port(&mut self, switch: &Name, change: &Change, write: Option<&Write>, runs: &Runs, now: Tick) {
        let key = (switch.clone(), change.port.clone());
        self.port_is(&key, &change.to);
        if change.who == Who::Human {
            if let Some(server) = self.wired(switch, &change.port) {
                self.hold_is_over(&server);
            }
            self.ports.found_as.remove(&key);
            self.ports.by_hand.insert(key, (now, carried(&change.to).union(&carried(&change.from)).copied().collect()));
            return;
        }
        match (change.from.admin, change.to.admin) {
            (Admin::Up, Admin::Down) => drop(self.ports.found_as.insert(key.clone(), change.from.clone())),
            (Admin::Down, Admin::Up) => {
                let found = self.ports.found_as.remove(&key);
                if found.is_some_and(|found| found == change.to) {
                    // Refused half-way, it is left as it was found.
                    return;
                }
            }
            (Admin::Up, Admin::Up) | (Admin::Down, Admin::Down) => {}
        }
        let read_at = write.map_or(now, |w| w.read_at);
        let forgiven = self.ports.by_hand.get(&key).is_some_and(|(at, _)| *at >= read_at);
        let meant = write.is_none_or(|w| match &w.key {
            Key::Port(port) => *port == change.port,
            Key::Vlan(_) => true,
            Key::Power | Key::Boot | Key::Saved => false,
        });
        // A list that was under way for long overwrites what embody itself has written since: no program can call a datagram back, and the port is
        // seen to be otherwise and written again.
        let left_at = write.map_or(now, |w| w.left_at);
        let overtaken = now.since(left_at) > LATE && self.ports.by_us.get(&key).is_some_and(|at| *at >= left_at);
        if meant {
            self.ports.by_us.insert(key.clone(), now);
        }
        let forgiven = forgiven || (!meant && overtaken);
        if !meant && !forgiven {
            let of = write.map(|w| format!("{:?}", w.key)).unwrap_or_default();
            let (port, from, to) = (&change.port, &change.from, &change.to);
            return self.violated(&[switch], format!("invariant 8: {switch} {port} is changed by a write of {of}: {from} → {to}"));
        }
        if forgiven {
            return;
        }
        let Some(server) = self.wired(switch, &change.port) else {
            // What was begun while a server named it is ended.
            let named = self.ports.wired_at.get(&key).is_some_and(|at| now.since(*at) < OLD_DESIRED);
            if !named {
                self.unnamed(switch, change, now);
            }
            return;
        };
        if !self.objects.switches.get(switch).is_some_and(|s| s.spec.manages(&change.port)) {
            self.violated(&[switch, &server], format!("invariant 8: {switch} {} is not managed, and was written", change.port));
        }
        let flap = change.from.admin == Admin::Up && (change.to.admin == Admin::Down || change.from.untagged != change.to.untagged);
        if flap && *runs != Runs::Nothing && self.is_strange(&server) {
            self.violated(
                &[&server, switch],
                format!("invariant 10: {server} was found running, and its port {} is disturbed without approval", change.port),
            );
        }
        if change.to.admin == Admin::Down {
            return;
        }
        self.carries_what_is_desired(&server, &key, change, runs, now);
    }

    /// What may stand on a port now: the old desired state and the new one, and what a write that was begun is to end with.
    fn recent(&self, key: &PortName, now: Tick) -> Vec<Intent> {
        let history = self.ports.desired.get(key).map(Vec::as_slice).unwrap_or_default();
        // In force at some time since: the last one before, and all after.
        let since = history.iter().rposition(|(at, _)| now.since(*at) >= OLD_DESIRED).unwrap_or(0);
        history.get(since..).unwrap_or_default().iter().map(|(_, intent)| intent.clone()).collect()
    }

    fn begun(&self, server: &Name, (switch, port): &PortName) -> BTreeSet<Vlan> {
        let begun = self.body(server).ports.get(&port_id(switch, port)).and_then(|debt| debt.begun.clone());
        let vlans = |config: PortConfig| config.untagged.into_iter().chain(config.tagged);
        begun.into_iter().flat_map(|(from, to)| vlans(from).chain(vlans(to))).collect()
    }

    fn carries_what_is_desired(&mut self, server: &Name, key: &PortName, change: &Change, runs: &Runs, now: Tick) {
        let recent = self.recent(key, now);
        let begun = self.begun(server, key);
        let mut allowed: BTreeSet<Vlan> = recent.iter().flat_map(|w| w.vlans.iter().copied()).collect();
        let quarantine = self.objects.networks.values().find(|n| n.spec.role == Role::Quarantine).map(|n| n.spec.vlan);
        allowed.extend(quarantine);
        allowed.extend(&begun);
        let opens = change.from.admin == Admin::Down;
        let was = if opens { BTreeSet::new() } else { carried(&change.from) };
        let foreign: Vec<Vlan> = carried(&change.to).into_iter().filter(|v| !was.contains(v) && !allowed.contains(v)).collect();
        let (switch, port) = key;
        if !foreign.is_empty() {
            let sentence = format!(
                "invariant 8: {switch} {port} is up and carries {} ({foreign:?}), which is neither the old desired state nor the new one",
                change.to
            );
            return self.violated(&[server, switch], sentence);
        }
        if let Runs::Persona(persona) = runs {
            let of_it: BTreeSet<Vlan> =
                recent.iter().filter(|w| w.persona.as_ref() == Some(persona)).flat_map(|w| w.vlans.iter().copied()).collect();
            let fits = |v: &Vlan| was.contains(v) || of_it.contains(v) || begun.contains(v);
            let added: Vec<Vlan> = carried(&change.to).into_iter().filter(|v| !fits(v)).collect();
            if !added.is_empty() {
                let sentence = format!(
                    "invariant 8: {switch} {port} is opened to {} ({added:?}), while {server} runs persona {persona}, which has no desired state for it",
                    change.to
                );
                self.violated(&[server, switch, persona], sentence);
            }
        }
    }

    /// A port that no server names: an uplink may get the tags of VLANs that embody made, and nothing else.
    fn unnamed(&mut self, switch: &Name, change: &Change, now: Tick) {
        let spec = self.objects.switches.get(switch).map(|s| &s.spec);
        let was = self.ports.uplink_at.get(&(switch.clone(), change.port.clone())).is_some_and(|at| now.since(*at) < OLD_DESIRED);
        let creates = was || spec.is_some_and(|s| s.vlans == VlanPolicy::Create && s.uplinks.contains(&change.port));
        let PortView { admin, ingress, untagged, tagged } = &change.to;
        let same = (admin, ingress, untagged) == (&change.from.admin, &change.from.ingress, &change.from.untagged);
        // As with other ports: what was desired when the write was begun.
        let lately = self.ports.named_at.iter().filter(|(_, at)| now.since(**at) < OLD_DESIRED).map(|(vlan, _)| *vlan);
        let named: BTreeSet<Vlan> = self.objects.networks.values().map(|n| n.spec.vlan).chain(lately).collect();
        let only_more = tagged.is_superset(&change.from.tagged) && tagged.difference(&change.from.tagged).all(|v| named.contains(v));
        if !(creates && same && only_more) {
            self.violated(
                &[switch],
                format!("invariant 8: {switch} {} is named by no manifest, and was written: {} → {}", change.port, change.from, change.to),
            );
        }
    }
}
