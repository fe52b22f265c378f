//! The referee of a simulation: invariants 5 to 11 and 16 of the product, checked at every step against the truth, not against what embody thinks.
//!
//! It hears what leaves, what the devices really did, what was stored, and what people said. The first sentence that is violated stands. What
//! leaves is checked in `authority` and `offs`, and as an operation (`leaving`) in `shown`, `stops`, `unasked` and `rolling`; what sources bring in `sources`; what happens at ports in `ports`, what disks
//! start in `disks`, what machines are told and say in `starts`. Leaves out: whether things converge (`tests/simulate.rs`, which also shows that the checkers bite).

mod authority;
mod disks;
mod leaving;
mod offs;
mod ports;
mod rolling;
mod shown;
mod sources;
mod starts;
mod stops;
mod unasked;

use std::collections::{BTreeMap, BTreeSet};

use super::bmc::Cause;
use super::switch::PortView;
use crate::model::binding::RunState;
use crate::model::body::{Body, Found, Hold};
use crate::model::claim::Claim;
use crate::model::fact::{Power, Tick};
use crate::model::image::ImageName;
use crate::model::network::Role;
use crate::model::objects::server_switches;
use crate::model::op::Op;
use crate::model::persona::{Kernel, Root};
use crate::model::switch::VlanPolicy;
use crate::model::{Kind, Name, Object, Objects, Vlan};
use crate::plan::approval::Approval;
use crate::store::keys::Key;

pub use authority::Host;
pub use ports::Write;

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
pub(crate) type PortName = (Name, String);

/// Who wrote to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Controller,
    /// People, and accidents.
    Others,
}

#[derive(Default)]
pub struct Judge {
    pub violation: Option<Violation>,
    /// Operations of the controller so far.
    pub ops: u64,
    /// Switchings-off so far.
    pub switched_off: u64,
    objects: Objects,
    bodies: BTreeMap<Name, Body>,
    power: BTreeMap<Name, Power>,
    /// The persona, and what it claims.
    running: BTreeMap<Name, (Name, BTreeSet<Claim>)>,
    /// What it was answered there, where its persona has a rollout.
    content: BTreeMap<Name, String>,
    /// Running something that embody was never asked to care for.
    strange: BTreeSet<Name>,
    /// The same, whoever approved what of it, until it is off or embody cares for it.
    found_running: BTreeSet<Name>,
    authority: authority::Authority,
    offs: offs::Offs,
    disks: disks::Disks,
    ports: ports::Ports,
    leaving: leaving::Leaving,
    rolling: rolling::Rolling,
    shown: shown::Shown,
    sources: sources::Sources,
    starts: starts::Starts,
    stops: stops::Stops,
    unasked: unasked::Unasked,
    /// What ran until embody switched it off, by persona; forgotten once it runs again.
    ended: BTreeMap<Name, Ended>,
    /// When a binding last became another one, or a person last had a hand in it.
    touched: BTreeMap<Name, Tick>,
    generations: BTreeMap<(Kind, Name), u64>,
    /// As they are stored: the binding's uid and generation, and what may be done.
    approvals: BTreeMap<Name, Approval>,
    /// When a record last became unreadable: it fences everything.
    unreadable_at: Option<Tick>,
    /// Those that there are: what names one that is not there desires something else once it comes.
    images: BTreeSet<ImageName>,
    /// When the next start of a body began to wait for a word, after a store was accepted.
    unconfirmed_at: BTreeMap<Name, Tick>,
}

/// A persona's life that embody ended.
#[derive(Debug, Clone)]
struct Ended {
    server: Name,
    /// Whose it was.
    binding: Option<Name>,
    /// When the first command for it left.
    at: Tick,
}

impl Judge {
    fn violated(&mut self, about: &[&Name], sentence: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { sentence, about: about.iter().map(|n| (*n).clone()).collect() });
        }
    }

    /// Who a system is was told to another one than the one that asked first.
    pub fn told_twice(&mut self, server: &Name) {
        self.violated(&[server], format!("who {server} is was told to a second system with the token of one start"));
    }

    pub fn found(&mut self, server: &Name, running: bool) {
        self.power.insert(server.clone(), if running { Power::On } else { Power::Off });
        if running {
            self.is_found_running(server);
        }
    }

    fn is_found_running(&mut self, server: &Name) {
        self.strange.insert(server.clone());
        self.found_running.insert(server.clone());
    }

    /// Its firmware asks what to boot, and is told to wait: nothing runs there. What was bound before it asked was found running all the same.
    pub fn waits(&mut self, server: &Name) {
        // As long as no controller has said how it was found, what asks what to boot was not found running.
        let body = self.body(server);
        if body.held_by.is_none() || body.found == Found::Unknown {
            self.strange.remove(server);
            self.found_running.remove(server);
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

    /// A person did something to this binding, persona or server, by hand or by word.
    pub fn touched(&mut self, name: &Name, now: Tick) {
        self.touched.insert(name.clone(), now);
    }

    /// A person approves what is planned for a binding, or says that its server runs the persona.
    pub fn approved(&mut self, binding: &Name) {
        if let Some(server) = self.objects.bindings.get(binding).and_then(|b| b.spec.target.server.clone()) {
            self.strange.remove(&server);
        }
        let owing = |body: &Body| body.release.iter().chain(&body.held_by).any(|r| r.binding == *binding);
        let releasing: Vec<Name> = self.bodies.iter().filter(|(_, b)| owing(b)).map(|(s, _)| s.clone()).collect();
        self.strange.retain(|server| !releasing.contains(server));
    }

    pub fn stored(&mut self, key: &str, value: Option<&[u8]>, by: By, now: Tick) {
        match (Key::parse(key), value) {
            (Some(Key::Object(..)), Some(value)) => {
                if let Ok(object) = serde_json::from_slice(value).map_err(drop).and_then(|v| Object::from_json(v).map_err(drop)) {
                    let key = (object.kind(), object.name().clone());
                    self.vlans_are_named(now);
                    if by == By::Controller {
                        self.status_is_stored(&object, now);
                    }
                    // A status alone changes nothing else here.
                    if self.generations.insert(key, object.meta.generation) != Some(object.meta.generation) {
                        self.touched.insert(object.name().clone(), now);
                        self.objects.insert(&object);
                        self.object_is_shown(&object, now);
                        self.source_is_stored(&object);
                        self.desired_changed(now);
                    }
                }
            }
            (Some(Key::Object(kind, name)), None) => {
                self.vlans_are_named(now);
                self.touched.insert(name.clone(), now);
                self.generations.remove(&(kind, name.clone()));
                self.objects.remove(kind, &name);
                if kind == Kind::Binding {
                    self.version(&name, now);
                }
                self.desired_changed(now);
            }
            (Some(Key::Body(server)), Some(value)) => match serde_json::from_slice::<Body>(value) {
                Ok(body) => {
                    self.record_is_anybodys(&server, by);
                    self.starts_are_stored(&server, &body, now);
                    self.hold_is_stored(&server, body.held.as_ref(), now);
                    self.body_stored(&server, body, by, now);
                }
                Err(_) => {
                    self.record_is_anybodys(&server, By::Others);
                    // Nobody learns from it any more that it was held.
                    self.hold_is_over(&server);
                    self.unreadable_at = Some(now);
                }
            },
            (Some(Key::Body(server)), None) => self.record_is_anybodys(&server, By::Others),
            (Some(Key::Lease(_)), _) if by == By::Others => self.addresses_are_anybodys(),
            (Some(Key::Pause(id)), value) => self.pause_is_stored(&id, value, by, now),
            (Some(Key::Approval(binding)), value) => {
                self.approval_is_stored(&binding, by);
                let approval = value.and_then(|v| serde_json::from_slice::<serde_json::Value>(v).ok());
                match approval.and_then(|v| serde_json::from_value(v.get("approval")?.clone()).ok()) {
                    Some(approval) => drop(self.approvals.insert(binding, approval)),
                    None => drop(self.approvals.remove(&binding)),
                }
            }
            (Some(Key::Image(name)), value) => {
                let changed = if value.is_some() { self.images.insert(name) } else { self.images.remove(&name) };
                if changed {
                    self.desired_changed(now);
                }
            }
            (Some(Key::Pin(kind, name)), Some(value)) => {
                if let Ok(pin) = serde_json::from_slice(value) {
                    self.pinned(kind, &name, pin);
                }
            }
            (_, _) => {}
        }
    }

    /// Until this change.
    fn vlans_are_named(&mut self, now: Tick) {
        let named = self.objects.networks.values().map(|n| (n.spec.vlan, now));
        self.ports.named_at.extend(named);
        let makes = self.objects.switches.iter().filter(|(_, s)| s.spec.vlans == VlanPolicy::Create);
        let uplinks = makes.flat_map(|(name, s)| s.spec.uplinks.iter().map(move |port| ((name.clone(), port.clone()), now)));
        self.ports.uplink_at.extend(uplinks);
        let nics = self.objects.servers.values().flat_map(|s| &s.spec.nics);
        let wired = nics.filter_map(|nic| Some(((nic.switch.clone()?, nic.port.clone()?), now)));
        self.ports.wired_at.extend(wired);
    }

    fn desired_changed(&mut self, now: Tick) {
        self.policy_changed(now);
        self.rollouts_are_of_now(now);
        let all = self.desired();
        self.wanted_changed(&all);
        for (port, desired) in all {
            let history = self.ports.desired.entry(port).or_default();
            if history.last().is_none_or(|(_, last)| *last != desired) {
                history.push((now, desired));
            }
        }
    }

    /// By the names of NICs alone: the worlds of the simulator name them alike on servers and personas.
    fn desired(&self) -> Vec<(PortName, Intent)> {
        self.objects.servers.keys().flat_map(|server| self.desired_of(server)).collect()
    }

    fn desired_of(&self, server: &Name) -> Vec<(PortName, Intent)> {
        let quarantine = self.objects.networks.values().find(|n| n.spec.role == Role::Quarantine);
        let mut out = Vec::new();
        if let Some(held) = self.objects.servers.get(server) {
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
        self.desired_of(server).into_iter().map(|(port, desired)| (port, desired.vlans)).collect()
    }

    fn body_stored(&mut self, server: &Name, body: Body, by: By, now: Tick) {
        if body.confirm_start && !self.body(server).confirm_start {
            self.unconfirmed_at.insert(server.clone(), now);
        }
        // A person had it boot something else for once: what is bound follows, or finds that it cannot.
        if body.once.is_none() && self.body(server).once.is_some() {
            self.touched.insert(server.clone(), now);
        }
        let nobodys = body.held_by.is_none() && body.release.is_none();
        if nobodys && self.power.get(server) == Some(&Power::On) {
            self.is_found_running(server);
        }
        if body.found == Found::Managed {
            self.found_running.remove(server);
        }
        self.half_way_is_stored(server, &body);
        // What people do to the store switches nothing off, and nothing back on.
        if by == By::Controller {
            self.offs.intent_stored(server, body.off.is_some());
        }
        // What a person approved before it was taken was shown all the same.
        if body.held_by.iter().any(|hold| self.may_switch_off(hold, server)) {
            self.strange.remove(server);
        }
        self.bodies.insert(server.clone(), body);
        self.may_be_up(server);
    }

    fn may_switch_off(&self, hold: &Hold, server: &Name) -> bool {
        let Some(approval) = self.approvals.get(&hold.binding).filter(|a| a.uid == hold.uid) else { return false };
        let of_now = self.objects.bindings.get(&hold.binding).is_some_and(|b| b.meta.generation == approval.generation);
        of_now && approval.ops.iter().any(|l| !l.done && matches!(&l.op, Op::PowerOff { server: s, .. } if s == server))
    }

    // ---- invariant 6 ------------------------------------------------------------------------------------------------------

    /// What a machine was answered, and runs now. `root`: what the script itself mounts to write.
    pub fn runs(&mut self, server: &Name, persona: &Name, root: Option<Claim>) {
        let claims = self.body(server).evidence.get(persona).map(|e| e.snapshot.claims.clone());
        let Some(mut claims) = claims else {
            return self.violated(
                &[server, persona],
                format!("invariant 6: {server} is answered with persona {persona}, of which nothing is stored"),
            );
        };
        if self.stands_on_disk(server).as_ref() == Some(persona) {
            self.disks.started(server, persona, &claims);
        }
        claims.extend(root);
        self.ended.remove(persona);
        self.disks.is_no_stray(server);
        let clash = self.clash(server, &claims).filter(|(other, _)| !self.disks.is_unknown(other, server));
        self.running.insert(server.clone(), (persona.clone(), claims));
        let answered = self.body(server).evidence.remove(persona).map(|e| content(&e.snapshot.root, &e.snapshot.kernel));
        self.content.insert(server.clone(), answered.unwrap_or_default());
        self.may_be_up(server);
        self.body_may_be_met(server);
        if let Some((other, claim)) = clash {
            self.violated(&[server, &other, persona], format!("invariant 6: {claim} is in use on {server} and on {other}"));
        }
    }

    /// Another server on which one of these claims is in use.
    fn clash(&self, server: &Name, claims: &BTreeSet<Claim>) -> Option<(Name, Claim)> {
        let overlaps = |theirs: &BTreeSet<Claim>| claims.iter().find(|mine| theirs.iter().any(|other| mine.overlaps(other)));
        let mut others = self.running.iter().filter(|(s, _)| *s != server);
        others.find_map(|(s, (_, theirs))| Some((s.clone(), overlaps(theirs)?.clone())))
    }

    pub fn power(&mut self, server: &Name, power: Power, cause: Cause, now: Tick) {
        self.power.insert(server.clone(), power);
        self.disks.is_no_stray(server);
        match power {
            Power::Off => {
                let ran = self.running.remove(server).map(|(persona, _)| persona);
                let runs_on = |persona: &Name| self.running.values().any(|(other, _)| other == persona);
                if let Some(persona) = ran.filter(|persona| cause != Cause::Button && !runs_on(persona)) {
                    let bindings = self.objects.bindings_of_persona(&persona);
                    let held = self.body(server).release.or(self.body(server).held_by).map(|h| h.binding);
                    let binding = held.filter(|held| bindings.into_iter().any(|b| b == held));
                    let at = self.offs.began_at(server).unwrap_or(now);
                    self.ended.insert(persona, Ended { server: server.clone(), binding, at });
                }
                self.strange.remove(server);
                self.found_running.remove(server);
                self.uses(server, None);
            }
            Power::On => {
                self.offs.came_on(server);
                let body = self.body(server);
                if body.held_by.is_none() && body.release.is_none() {
                    self.is_found_running(server);
                }
                self.may_be_up(server);
            }
        }
        self.body_may_be_met(server);
    }

    /// Switchings-off by rollouts so far.
    pub fn rolled_off(&self) -> u64 {
        self.rolling.offs
    }

    /// Personas that ran, were switched off by embody, and run nowhere, although nobody has changed anything of theirs since and their binding says
    /// Running: the binding, and a sentence.
    pub fn nowhere(&self) -> Vec<(Name, String)> {
        let since = |name: &Name, at: Tick| self.touched.get(name).is_some_and(|t| *t >= at);
        let mut out = Vec::new();
        for (persona, Ended { server, binding: whose, at }) in &self.ended {
            let of_it = |name: &Name| whose.as_ref() == Some(name);
            for (name, binding) in self.objects.bindings.iter().filter(|(name, b)| of_it(name) && b.spec.persona == *persona) {
                let target = binding.spec.target.server.as_ref();
                let theirs =
                    target.map(|t| self.body(t)).into_iter().flat_map(|b| b.held_by.into_iter().chain(b.release)).map(|h| h.binding);
                let of_target = target.into_iter().flat_map(|t| self.objects.bindings_of_server(t)).cloned();
                // What its networks are is of the persona's content as well.
                let nics = self.objects.personas.get(persona).into_iter().flat_map(|held| &held.spec.nics);
                let networks = nics.flat_map(|nic| nic.untagged.iter().chain(&nic.tagged));
                let mut hands = [name, persona, server].into_iter().chain(target).chain(networks).cloned().chain(theirs).chain(of_target);
                // A device that was exchanged is known for another one at the next poll, and then a person is asked.
                let polled = self.objects.policy().switch.poll_interval.0 * 2;
                let unpolled = |n: &Name| self.touched.get(n).is_some_and(|t| t.plus(polled) >= *at);
                let mut devices = target.iter().filter_map(|t| self.objects.servers.get(*t)).flat_map(|s| server_switches(&s.spec));
                let exchanged = devices.any(|switch| unpolled(&switch) || since(&switch, *at)) || target.is_some_and(unpolled);
                // What is not obeyed, or not answered, three times is for a person to end (invariant 9).
                let is_stuck = |s: &Name| self.offs.is_stuck(&self.body(s));
                // What began to wait for a person after the off had left.
                let later = |t: Option<&Tick>| t.is_some_and(|t| *t > *at);
                let ports = target.into_iter().flat_map(|t| self.desired_of(t));
                let by_hand = ports.into_iter().any(|(port, _)| later(self.ports.by_hand.get(&port).map(|(t, _)| t)));
                let unconfirmed = target.is_some_and(|t| self.body(t).confirm_start && later(self.unconfirmed_at.get(t)));
                let changed = exchanged
                    || by_hand
                    || unconfirmed
                    || target.is_some_and(is_stuck)
                    || hands.any(|n| since(&n, *at))
                    || self.unreadable_at.is_some_and(|t| t >= *at);
                if binding.spec.state == RunState::Running && !changed {
                    let sentence = format!("persona {persona} was switched off on {server} by embody, and runs nowhere since");
                    out.push((name.clone(), sentence));
                }
            }
        }
        out
    }
}

/// What a rollout is about.
fn content(root: &Root, kernel: &Option<Kernel>) -> String {
    format!("{root:?} {kernel:?}")
}

fn carried(view: &PortView) -> BTreeSet<Vlan> {
    view.ingress.iter().chain(&view.untagged).chain(&view.tagged).copied().collect()
}
