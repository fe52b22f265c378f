//! The referee of a simulation: invariants 5 to 8 of the product, checked at every step against the truth, not against what embody thinks.
//!
//! It hears what the devices really did, what was stored, and what people said. The first sentence that is violated stands. Leaves out:
//! whether things converge (`tests/simulate.rs`, which also shows that the checkers bite).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bmc::Control;
use super::centre::Runs;
use super::switch::{Change, PortView, Who};
use crate::model::body::{Body, Sent};
use crate::model::claim::Claim;
use crate::model::fact::{Admin, Power, Tick};
use crate::model::network::Role;
use crate::model::op::{Off, Op};
use crate::model::switch::VlanPolicy;
use crate::model::{Name, Object, Objects, Vlan};
use crate::store::keys::Key;

/// An operation on its way may still carry an earlier desired state: a queue of slow requests to one switch.
const OLD_WISH: Duration = Duration::from_secs(600);
/// A person and embody at one port at one time.
const AT_ONCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone)]
pub struct Violation {
    pub sentence: String,
    pub about: Vec<Name>,
}

/// What one port is to carry, and for which persona.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Intent {
    persona: Option<Name>,
    vlans: BTreeSet<Vlan>,
}

/// A switch, and a port of it.
pub type PortName = (Name, String);

#[derive(Default)]
pub struct Judge {
    pub violation: Option<Violation>,
    /// Operations of the controller so far.
    pub ops: u64,
    /// Switchings-off so far.
    pub offs: u64,
    objects: Objects,
    bodies: BTreeMap<Name, Body>,
    power: BTreeMap<Name, Power>,
    /// The persona, and what it claims.
    running: BTreeMap<Name, (Name, BTreeSet<Claim>)>,
    /// Running something that embody was never asked to care for.
    strange: BTreeSet<Name>,
    desired: BTreeMap<PortName, Vec<(Tick, Intent)>>,
    by_hand: BTreeMap<PortName, (Tick, BTreeSet<Vlan>)>,
    /// Servers to which a switching-off is on its way that was right when it left.
    allowed_offs: BTreeSet<Name>,
    /// When a BMC accepted a soft-off since its machine was last switched on.
    soft_accepted: BTreeMap<Name, Tick>,
    /// Servers of which a person said that a hard off may follow without a soft one.
    hard_allowed: BTreeSet<Name>,
    /// The last question about power that was answered On.
    on_asked_at: BTreeMap<Name, Tick>,
}

impl Judge {
    fn violated(&mut self, about: &[&Name], sentence: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { sentence, about: about.iter().map(|n| (*n).clone()).collect() });
        }
    }

    pub fn found(&mut self, server: &Name, running: bool) {
        self.power.insert(server.clone(), if running { Power::On } else { Power::Off });
        if running {
            self.strange.insert(server.clone());
        }
    }

    pub fn is_strange(&self, server: &Name) -> bool {
        self.strange.contains(server)
    }

    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    pub fn body(&self, server: &Name) -> Body {
        self.bodies.get(server).cloned().unwrap_or_default()
    }

    // ---- what people say, and what is stored ------------------------------------------------------------------------------

    /// A person approves what is planned for a binding, or says that its server runs the persona.
    pub fn approved(&mut self, binding: &Name) {
        if let Some(server) = self.objects.bindings.get(binding).and_then(|b| b.spec.target.server.clone()) {
            self.strange.remove(&server);
        }
        let owing = |body: &Body| body.release.as_ref().is_some_and(|r| r.binding == *binding);
        let releasing: Vec<Name> = self.bodies.iter().filter(|(_, b)| owing(b)).map(|(s, _)| s.clone()).collect();
        self.strange.retain(|server| !releasing.contains(server));
    }

    pub fn stored(&mut self, key: &str, value: Option<&[u8]>, now: Tick) {
        match (Key::parse(key), value) {
            (Some(Key::Object(..)), Some(value)) => {
                if let Ok(object) = serde_json::from_slice(value).map_err(drop).and_then(|v| Object::from_json(v).map_err(drop)) {
                    self.objects.insert(&object);
                    self.desired_changed(now);
                }
            }
            (Some(Key::Object(kind, name)), None) => {
                self.objects.remove(kind, &name);
                self.desired_changed(now);
            }
            (Some(Key::Body(server)), Some(value)) => {
                if let Ok(body) = serde_json::from_slice::<Body>(value) {
                    self.body_stored(&server, body);
                }
            }
            (_, _) => {}
        }
    }

    fn desired_changed(&mut self, now: Tick) {
        for (port, desired) in self.desired() {
            let history = self.desired.entry(port).or_default();
            if history.last().is_none_or(|(_, last)| *last != desired) {
                history.push((now, desired));
            }
        }
    }

    /// By the names of NICs alone: the worlds of the simulator name them alike on servers and personas.
    fn desired(&self) -> Vec<(PortName, Intent)> {
        let quarantine = self.objects.networks.values().find(|n| n.spec.role == Role::Quarantine);
        let mut out = Vec::new();
        for (server, held) in &self.objects.servers {
            let mut bindings = self.objects.bindings_of_server(server).filter_map(|b| self.objects.bindings.get(b));
            let binding = bindings.next();
            let persona = binding.map(|b| &b.spec.persona);
            for nic in &held.spec.nics {
                let (Some(switch), Some(port)) = (&nic.switch, &nic.port) else { continue };
                let labels = self.objects.switches.get(switch).map(|s| s.meta.labels.clone()).unwrap_or_default();
                let spec = persona.and_then(|p| self.objects.personas.get(p)).map(|p| &p.spec);
                let wanted = spec.and_then(|p| p.nics.iter().find(|n| n.name == nic.name));
                let networks = wanted.into_iter().flat_map(|n| n.untagged.iter().chain(&n.tagged));
                let mut vlans: BTreeSet<Vlan> =
                    networks.filter_map(|n| self.objects.networks.get(n)).map(|n| n.spec.vlan_on(&labels)).collect();
                if vlans.is_empty() {
                    vlans.extend(quarantine.map(|n| n.spec.vlan_on(&labels)));
                }
                out.push(((switch.clone(), port.clone()), Intent { persona: persona.cloned(), vlans }));
            }
        }
        out
    }

    /// What the ports of a server are to carry now.
    pub fn desired_ports(&self, server: &Name) -> Vec<(PortName, BTreeSet<Vlan>)> {
        let wired = |port: &PortName| self.wired(&port.0, &port.1).as_ref() == Some(server);
        self.desired().into_iter().filter(|(port, _)| wired(port)).map(|(port, desired)| (port, desired.vlans)).collect()
    }

    fn body_stored(&mut self, server: &Name, body: Body) {
        let nobodys = body.held_by.is_none() && body.release.is_none();
        if nobodys && self.power.get(server) == Some(&Power::On) {
            self.strange.insert(server.clone());
        }
        self.bodies.insert(server.clone(), body);
    }

    // ---- invariant 6 ------------------------------------------------------------------------------------------------------

    pub fn runs(&mut self, server: &Name, persona: Option<&Name>, _now: Tick) {
        let Some(persona) = persona else {
            self.running.remove(server);
            return;
        };
        let claims = self.body(server).evidence.get(persona).map(|e| e.snapshot.claims.clone());
        let Some(claims) = claims else {
            return self.violated(
                &[server, persona],
                format!("invariant 6: {server} is answered with persona {persona}, of which nothing is stored"),
            );
        };
        let overlaps = |theirs: &BTreeSet<Claim>| claims.iter().find(|mine| theirs.iter().any(|other| mine.overlaps(other)));
        let clash =
            self.running.iter().filter(|(s, _)| *s != server).find_map(|(s, (_, theirs))| Some((s.clone(), overlaps(theirs)?.clone())));
        self.running.insert(server.clone(), (persona.clone(), claims));
        if let Some((other, claim)) = clash {
            self.violated(&[server, &other, persona], format!("invariant 6: {claim} is in use on {server} and on {other}"));
        }
    }

    pub fn power(&mut self, server: &Name, power: Power, _now: Tick) {
        self.power.insert(server.clone(), power);
        match power {
            Power::Off => {
                self.running.remove(server);
                self.strange.remove(server);
            }
            Power::On => {
                self.soft_accepted.remove(server);
                let body = self.body(server);
                if body.held_by.is_none() && body.release.is_none() {
                    self.strange.insert(server.clone());
                }
            }
        }
    }

    // ---- invariant 9 ------------------------------------------------------------------------------------------------------

    pub fn observed(&mut self, server: &Name, asked_at: Tick, power: Power) {
        if power == Power::On {
            self.on_asked_at.insert(server.clone(), asked_at);
        }
    }

    /// The shortest that any binding grants: whose the body was when the command left may have changed since.
    fn grace(&self) -> Duration {
        self.objects.bindings.values().map(|b| b.spec.shutdown.grace.0).min().unwrap_or_default()
    }

    /// The controller is about to send an operation.
    pub fn sending(&mut self, server: &Name, op: &Op, _now: Tick) {
        self.ops += 1;
        let Op::PowerOff { how, .. } = op else { return };
        self.offs += 1;
        let stored = self.body(server).off.map(|intent| match how {
            Off::Soft => intent.soft,
            Off::Hard => intent.hard,
        });
        if stored.is_none_or(|sending| sending.last != Sent::Unknown) {
            self.violated(&[server], format!("invariant 9: {op} leaves, and nothing stored says that it may have"));
        }
        // A request that is late on its way may arrive when the body is somebody else's: what counts is whose it was when it left.
        if !self.is_strange(server) {
            self.allowed_offs.insert(server.clone());
        }
    }

    /// A machine that runs is asked to shut down, and has its whole grace, before its power is cut.
    fn gentle(&mut self, server: &Name, control: Control, now: Tick) {
        match control {
            Control::Soft => drop(self.soft_accepted.entry(server.clone()).or_insert(now)),
            Control::Off => {
                let grace = self.grace();
                let gentle = self.soft_accepted.get(server).is_some_and(|at| now.since(*at) >= grace);
                let by_word = grace.is_zero() || self.hard_allowed.contains(server) || self.objects.policy().limits.hard_off_without_soft;
                if !gentle && !by_word {
                    let since = self.soft_accepted.get(server).map(|at| format!("{:?} after", now.since(*at)));
                    let since = since.unwrap_or_else(|| "without".to_owned());
                    self.violated(&[server], format!("invariant 9: the power of {server} is cut {since} a soft-off that its BMC accepted"));
                }
            }
            Control::On | Control::Cycle | Control::Reset => {}
        }
    }

    /// A person said `--hard`.
    pub fn hard_allowed(&mut self, server: &Name) {
        self.hard_allowed.insert(server.clone());
    }

    // ---- invariant 10 -----------------------------------------------------------------------------------------------------

    pub fn control(&mut self, server: &Name, control: Control, now: Tick) {
        let on = self.power.get(server) == Some(&Power::On);
        if on {
            self.gentle(server, control, now);
        }
        match control {
            Control::Cycle | Control::Reset => self.violated(&[server], format!("{server} was sent {control:?}, which embody never sends")),
            Control::Off | Control::Soft if !self.allowed_offs.remove(server) && on && self.is_strange(server) => {
                self.violated(&[server], format!("invariant 10: {server} was found running, and is switched off without approval"));
            }
            Control::Off | Control::Soft | Control::On => {}
        }
    }

    pub fn boot_flags(&mut self, server: &Name, _now: Tick) {
        if self.is_strange(server) {
            self.violated(&[server], format!("invariant 10: {server} was found running, and its boot device is written without approval"));
        }
    }

    // ---- invariant 8 ------------------------------------------------------------------------------------------------------

    /// The server at the other end of a port.
    pub fn wired(&self, switch: &Name, port: &str) -> Option<Name> {
        let here = |n: &crate::model::server::Nic| n.switch.as_ref() == Some(switch) && n.port.as_deref() == Some(port);
        self.objects.servers.iter().find(|(_, s)| s.spec.nics.iter().any(here)).map(|(name, _)| name.clone())
    }

    pub fn port(&mut self, switch: &Name, change: &Change, runs: &Runs, now: Tick) {
        let key = (switch.clone(), change.port.clone());
        if change.who == Who::Human {
            self.by_hand.insert(key, (now, carried(&change.to).union(&carried(&change.from)).copied().collect()));
            return;
        }
        let Some(server) = self.wired(switch, &change.port) else { return self.unnamed(switch, change) };
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
        self.carries_what_is_wished(&server, &key, change, runs, now);
    }

    fn carries_what_is_wished(&mut self, server: &Name, key: &PortName, change: &Change, runs: &Runs, now: Tick) {
        let history = self.desired.get(key).map(Vec::as_slice).unwrap_or_default();
        // In force at some time since: the last one before, and all after.
        let since = history.iter().rposition(|(at, _)| now.since(*at) >= OLD_WISH).unwrap_or(0);
        let recent = &history[since.min(history.len())..];
        let mut allowed: BTreeSet<Vlan> = recent.iter().flat_map(|(_, w)| w.vlans.iter().copied()).collect();
        let quarantine = self.objects.networks.values().find(|n| n.spec.role == Role::Quarantine).map(|n| n.spec.vlan);
        allowed.extend(quarantine);
        allowed.extend(self.by_hand.get(key).filter(|(at, _)| now.since(*at) < AT_ONCE).into_iter().flat_map(|(_, v)| v.iter().copied()));
        let opens = change.from.admin == Admin::Down;
        let was = if opens { BTreeSet::new() } else { carried(&change.from) };
        let foreign: Vec<Vlan> = carried(&change.to).into_iter().filter(|v| !was.contains(v) && !allowed.contains(v)).collect();
        if !foreign.is_empty() {
            let (switch, port) = key;
            let sentence = format!(
                "invariant 8: {switch} {port} is up and carries {} ({foreign:?}), which is neither the old desired state nor the new one",
                change.to
            );
            return self.violated(&[server, switch], sentence);
        }
        if let Runs::Persona(persona) = runs {
            let of_it: BTreeSet<Vlan> =
                recent.iter().filter(|(_, w)| w.persona.as_ref() == Some(persona)).flat_map(|(_, w)| w.vlans.iter().copied()).collect();
            let by_hand = self.by_hand.get(key).filter(|(at, _)| now.since(*at) < AT_ONCE).map(|(_, v)| v.clone()).unwrap_or_default();
            let added: Vec<Vlan> =
                carried(&change.to).into_iter().filter(|v| !was.contains(v) && !of_it.contains(v) && !by_hand.contains(v)).collect();
            if !added.is_empty() {
                let (switch, port) = key;
                let sentence = format!(
                    "invariant 8: {switch} {port} is opened to {} ({added:?}), while {server} runs persona {persona}, which has no desired state for it",
                    change.to
                );
                self.violated(&[server, switch, persona], sentence);
            }
        }
    }

    /// A port that no server names: an uplink may get the tags of VLANs that embody made, and nothing else.
    fn unnamed(&mut self, switch: &Name, change: &Change) {
        let spec = self.objects.switches.get(switch).map(|s| &s.spec);
        let creates = spec.is_some_and(|s| s.vlans == VlanPolicy::Create && s.uplinks.contains(&change.port));
        let PortView { admin, ingress, untagged, tagged } = &change.to;
        let same = (admin, ingress, untagged) == (&change.from.admin, &change.from.ingress, &change.from.untagged);
        let named: BTreeSet<Vlan> = self.objects.networks.values().map(|n| n.spec.vlan).collect();
        let only_more = tagged.is_superset(&change.from.tagged) && tagged.difference(&change.from.tagged).all(|v| named.contains(v));
        if !(creates && same && only_more) {
            self.violated(
                &[switch],
                format!("invariant 8: {switch} {} is named by no manifest, and was written: {} → {}", change.port, change.from, change.to),
            );
        }
    }
}

fn carried(view: &PortView) -> BTreeSet<Vlan> {
    view.ingress.iter().chain(&view.untagged).chain(&view.tagged).copied().collect()
}
