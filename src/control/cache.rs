//! The world in memory: what is desired (objects), what is stored about bodies, what devices showed. One task owns it.
//!
//! It is rebuilt from the store and from fresh observations at every start; losing it costs time, never correctness. Nothing here decides.

use std::collections::{BTreeMap, BTreeSet};

use crate::boot::answer::BootView;
use crate::control::cables::Cables;
use crate::control::operator::Scope;
use crate::drivers::switch::resolve;
use crate::model::body::Body;
use crate::model::fact::{BmcSeen, BootOverride, Lag, PortSeen, Power, Quality, Seen, SwitchSeen, Tick};
use crate::model::identity::Identity;
use crate::model::objects::server_switches;
use crate::model::switch::SwitchSpec;
use crate::model::{Kind, Mac, Name, Objects};
use crate::plan::desired::Desired;
use crate::plan::observed::{Approval, Elsewhere, Memory, Observed, PortKey, PortSeenHere, SwitchSeenHere, Trouble};
use crate::plan::resolve::{self, PortNames};
use crate::plan::save::Unsaved;
use crate::store::Revision;

/// A value and the store's revision of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stored<T> {
    pub value: T,
    /// 0: not stored yet.
    pub revision: Revision,
}

/// What is known of one device.
#[derive(Debug, Clone)]
pub struct Known<T> {
    pub seen: Option<Seen<T>>,
    /// Why nothing may be sent to it. Reads go on.
    pub trouble: Option<Trouble>,
    /// Since when `seen.value` is as it is, and since when the trouble: for people.
    pub since: String,
    pub trouble_since: String,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known { seen: None, trouble: None, since: String::new(), trouble_since: String::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    pub scope: Scope,
    pub reason: String,
    pub by: String,
    /// RFC 3339.
    pub since: String,
    /// RFC 3339; nothing: until resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The last word about power and boot of one server.
#[derive(Debug, Clone, Default)]
pub struct BmcFacts {
    pub known: Known<BmcSeen>,
    pub power: Option<Seen<Power>>,
    pub boot: Option<Seen<BootOverride>>,
    pub power_since: String,
}

#[derive(Default)]
pub struct Cache {
    pub objects: Objects,
    /// The revision and the status of each object, as last stored.
    pub stored: BTreeMap<(Kind, Name), Stored<serde_json::Value>>,
    pub bodies: BTreeMap<Name, Stored<Body>>,
    pub memory: BTreeMap<Name, Memory>,
    pub bmcs: BTreeMap<Name, BmcFacts>,
    pub switches: BTreeMap<Name, Known<SwitchSeen>>,
    /// Where addresses were learned.
    pub cables: Cables,
    /// Switches that we changed, and that were not saved since.
    pub unsaved: BTreeMap<Name, Unsaved>,
    /// Each with the tick until which it holds.
    pub approvals: BTreeMap<Name, (Approval, Tick)>,
    pub pauses: BTreeMap<String, (Pause, Option<Tick>)>,
    /// What identifies a device, as remembered.
    pub pins: BTreeMap<(Kind, Name), Stored<Identity>>,
    /// Guardrails that have stopped a server's corrections: contended, held.
    pub stopped_by_guardrails: BTreeMap<Name, Trouble>,
    /// The site's breaker: while it is open nothing is sent.
    pub breaker: Option<Trouble>,
    /// Where each persona may run, by evidence.
    may_run_at: BTreeMap<Name, BTreeSet<Name>>,
    guids: BTreeMap<String, BTreeSet<Name>>,
}

impl Cache {
    pub fn body(&self, server: &Name) -> Body {
        self.bodies.get(server).map(|b| b.value.clone()).unwrap_or_default()
    }

    pub fn set_body(&mut self, server: &Name, body: Body, revision: Revision) {
        if let Some(old) = self.bodies.get(server) {
            for persona in old.value.may_run.keys() {
                if let Some(at) = self.may_run_at.get_mut(persona) {
                    at.remove(server);
                }
            }
        }
        for persona in body.may_run.keys() {
            self.may_run_at.entry(persona.clone()).or_default().insert(server.clone());
        }
        self.bodies.insert(server.clone(), Stored { value: body, revision });
    }

    /// The servers that may run a persona, by evidence.
    pub fn may_run(&self, persona: &Name) -> impl Iterator<Item = &Name> {
        self.may_run_at.get(persona).into_iter().flatten()
    }

    pub fn want(&self, server: &Name) -> Desired {
        self.want_with(server, &self.body(server), &self.objects)
    }

    pub fn want_with(&self, server: &Name, body: &Body, objects: &Objects) -> Desired {
        resolve::want(server, objects, body, self)
    }

    /// Everything that `plan` may know of one server.
    pub fn seen(&self, server: &Name, want: &Desired) -> Observed {
        let facts = self.bmcs.get(server);
        let holder = want.holder.as_ref().map(|h| (&h.authority.binding, &h.persona));
        let mut seen = Observed {
            body: self.body(server),
            memory: self.memory.get(server).cloned().unwrap_or_default(),
            power: facts.and_then(|f| f.power.clone()),
            boot: facts.and_then(|f| f.boot.clone()),
            bmc_trouble: facts.and_then(|f| f.known.trouble.clone()),
            ..Observed::default()
        };
        if let Some((_, persona)) = holder {
            let others = self.may_run(persona).filter(|s| *s != server);
            let elsewhere = others.map(|s| Elsewhere { server: s.clone(), asked_at: self.answered_at(s) }).collect();
            seen.elsewhere.insert(persona.clone(), elsewhere);
        }
        let bindings: Vec<&Name> = holder.iter().map(|h| h.0).chain(want.releaser.iter().map(|r| &r.binding)).collect();
        for binding in bindings {
            if let Some((approval, _)) = self.approvals.get(binding) {
                seen.approvals.insert(binding.clone(), approval.clone());
            }
            if let Some(trouble) = self.stopped(server, binding) {
                seen.stopped.insert(binding.clone(), trouble);
            }
        }
        let desired = want.holder.iter().flat_map(|h| h.ports.keys()).chain(want.released_ports.keys());
        for key in desired.cloned().collect::<BTreeSet<PortKey>>() {
            self.add_port(server, &key, &mut seen);
        }
        seen
    }

    fn answered_at(&self, server: &Name) -> Option<Tick> {
        self.bmcs.get(server)?.power.as_ref().map(|p| p.asked_at)
    }

    fn add_port(&self, server: &Name, key: &PortKey, seen: &mut Observed) {
        let (switch, port) = key;
        let Some(held) = self.objects.switches.get(switch) else {
            let message = format!("there is no switch {switch}");
            let trouble = Some(Trouble { reason: "SwitchMissing", message });
            seen.switches.insert(switch.clone(), SwitchSeenHere { trouble, ..SwitchSeenHere::default() });
            return;
        };
        let known = self.switches.get(switch);
        let facts = known.and_then(|k| k.seen.as_ref());
        if !seen.switches.contains_key(switch) {
            seen.switches.insert(switch.clone(), switch_here(switch, &held.spec, known));
        }
        let Some(facts) = facts else { return };
        if let Some(found) = facts.value.ports.get(port) {
            let refuse = self.refuse(server, switch, port, found, &held.spec, &facts.value);
            seen.ports.insert(key.clone(), PortSeenHere { config: found.config.clone(), asked_at: facts.asked_at, refuse });
        }
    }

    /// Invariant 6: why a port is never written.
    fn refuse(&self, server: &Name, switch: &Name, port: &str, found: &PortSeen, spec: &SwitchSpec, all: &SwitchSeen) -> Option<Trouble> {
        let because = |reason, message| Some(Trouble { reason, message });
        let names = std::iter::once(port).chain(found.also.iter().map(String::as_str));
        if !names.into_iter().any(|name| spec.manages(name)) {
            return because("PortNotManaged", format!("port {port} of switch {switch} is not in its manage.ports: it is only observed"));
        }
        if let Lag::Member(of) = &found.lag {
            let of = of.as_deref().unwrap_or("an aggregation");
            return because("LinkAggregation", format!("port {port} of switch {switch} is a member of {of}: it is not written by itself"));
        }
        // Who is at the other end of an aggregation is heard on its members.
        let part = |p: &&PortSeen| matches!(&p.lag, Lag::Member(Some(of)) if of == port || found.also.contains(of));
        let members = all.ports.values().filter(part).filter(|_| found.lag == Lag::Aggregate);
        let mut neighbours = std::iter::once(found).chain(members).filter_map(|p| p.neighbour.as_ref());
        if let Some(n) = neighbours.find(|n| n.bridge == Some(true)) {
            let who = n.system.as_deref().unwrap_or(&n.chassis);
            return because(
                "CableContradicted",
                format!("port {port} of switch {switch} leads to the switch or router {who} ({} {})", n.chassis, n.port),
            );
        }
        let foreign = |mac: &Mac| self.objects.server_of_mac(*mac).filter(|owner| *owner != server).map(|owner| (*mac, owner.clone()));
        if let Some((mac, owner)) = found.macs.iter().find_map(foreign) {
            return because(
                "CableContradicted",
                format!("port {port} of switch {switch} is declared for server {server}, but {mac} of server {owner} was learned on it"),
            );
        }
        if let Some(why) = self.contradicted(server, switch, port, found, all) {
            return because("CableContradicted", why);
        }
        if let Quality::Unknown(why) = &found.quality {
            return because("PortUnreadable", format!("port {port} of switch {switch}: {why}"));
        }
        if !all.writable.admin || !all.writable.access {
            let profile = all.profile;
            return because(
                "SwitchNotWritable",
                format!("switch {switch} cannot be written by the profile {profile}: it is only observed"),
            );
        }
        None
    }

    /// Why nothing is done in this binding's name.
    fn stopped(&self, server: &Name, binding: &Name) -> Option<Trouble> {
        let paused = |(pause, _): &&(Pause, Option<Tick>)| match &pause.scope {
            Scope::Everything => true,
            Scope::Object { kind: Kind::Binding, name } => name == binding,
            Scope::Object { kind: Kind::Server, name } => name == server,
            Scope::Object { kind: Kind::Persona, name } => self.objects.bindings.get(binding).is_some_and(|b| b.spec.persona == *name),
            Scope::Object { kind: Kind::Switch, name } => {
                self.objects.servers.get(server).is_some_and(|s| server_switches(&s.spec).contains(name))
            }
            Scope::Object { kind: Kind::Policy | Kind::Secret | Kind::Network, .. } => false,
            Scope::Labels { match_labels } => {
                let all_in = |labels: &BTreeMap<String, String>| match_labels.iter().all(|(k, v)| labels.get(k) == Some(v));
                self.objects.bindings.get(binding).is_some_and(|b| all_in(&b.meta.labels))
                    || self.objects.servers.get(server).is_some_and(|s| all_in(&s.meta.labels))
            }
        };
        if let Some((pause, _)) = self.pauses.values().find(paused) {
            return Some(Trouble { reason: "Paused", message: format!("paused by {}: {}", pause.by, pause.reason) });
        }
        // An approval says that what is held may go.
        let stopped_by_guardrails = self.stopped_by_guardrails.get(server).filter(|_| !self.approvals.contains_key(binding));
        self.breaker.clone().or_else(|| stopped_by_guardrails.cloned())
    }

    /// Remembers which servers show which GUID; the others that show the same one.
    pub fn same_guid(&mut self, server: &Name, guid: &str) -> Option<Name> {
        let before = self.bmcs.get(server).and_then(|f| f.known.seen.as_ref()).and_then(|s| s.value.shown.guid.as_deref());
        if let Some(holders) = before.filter(|b| *b != guid).and_then(|b| self.guids.get_mut(b)) {
            holders.remove(server);
        }
        let holders = self.guids.entry(guid.to_owned()).or_default();
        holders.insert(server.clone());
        holders.iter().find(|s| *s != server).cloned()
    }

    pub fn forget_device_of_server(&mut self, server: &Name) {
        self.guids.values_mut().for_each(|servers| {
            servers.remove(server);
        });
        self.bmcs.remove(server);
    }

    /// Its worker ended: what it was about to save is to be saved all the same.
    pub fn forget_device_of_switch(&mut self, switch: &Name) {
        self.cables.forget(switch);
        self.switches.remove(switch);
        self.unsaved.get_mut(switch).into_iter().for_each(|unsaved| unsaved.sent = false);
    }

    /// Whether anything may be written to a switch as such.
    pub fn may_save(&self, switch: &Name) -> bool {
        let Some(held) = self.objects.switches.get(switch) else { return false };
        let paused = |(pause, _): &(Pause, Option<Tick>)| match &pause.scope {
            Scope::Everything => true,
            Scope::Object { kind, name } => *kind == Kind::Switch && name == switch,
            Scope::Labels { match_labels } => match_labels.iter().all(|(k, v)| held.meta.labels.get(k) == Some(v)),
        };
        let answers = self.switches.get(switch).is_some_and(|known| known.trouble.is_none() && known.seen.is_some());
        answers && held.spec.maintenance.is_none() && self.breaker.is_none() && !self.pauses.values().any(paused)
    }

    /// What a boot answer for this address depends on.
    pub fn boot_view(&self, mac: Mac) -> BootView<'_> {
        let Some(server) = self.server_of(mac) else { return BootView::default() };
        let body = self.bodies.get(server).map(|b| &b.value);
        let standing = body.and_then(|b| b.may_run.iter().find(|(_, phase)| phase.stands()));
        let standing = standing.map(|(name, _)| (name, self.objects.personas.get(name).map(|p| &p.spec)));
        let binding = body.and_then(|b| b.held_by.as_ref()).and_then(|h| self.objects.bindings.get(&h.binding));
        BootView { server: Some(server), standing, hostname: binding.and_then(|b| b.spec.hostname.as_deref()) }
    }

    /// The server that owns a MAC address.
    pub fn server_of(&self, mac: Mac) -> Option<&Name> {
        self.objects.server_of_mac(mac)
    }

    /// What is remembered of a device's identity; nothing, where it was never seen.
    pub fn pinned(&self, kind: Kind, name: &Name) -> Identity {
        self.pins.get(&(kind, name.clone())).map(|pin| pin.value.clone()).unwrap_or_default()
    }

    pub fn memory_of(&mut self, server: &Name) -> &mut Memory {
        self.memory.entry(server.clone()).or_default()
    }
}

impl PortNames for Cache {
    fn key(&self, switch: &Name, port: &str) -> Result<String, String> {
        match self.switches.get(switch).and_then(|k| k.seen.as_ref()) {
            Some(seen) => resolve(&seen.value, port).map(str::to_owned).map_err(|e| format!("switch {switch}: {e}")),
            None => Ok(port.to_owned()),
        }
    }
}

fn switch_here(switch: &Name, spec: &SwitchSpec, known: Option<&Known<SwitchSeen>>) -> SwitchSeenHere {
    let seen = known.and_then(|k| k.seen.as_ref());
    let maintenance = spec
        .maintenance
        .as_ref()
        .map(|m| Trouble { reason: "Maintenance", message: format!("switch {switch} is in maintenance: {}", m.reason) });
    let unseen = || Some(Trouble { reason: "SwitchUnknown", message: format!("switch {switch} was not seen yet") });
    let trouble = match known {
        Some(known) => known.trouble.clone().or_else(|| if known.seen.is_none() { unseen() } else { None }),
        None => unseen(),
    };
    SwitchSeenHere {
        vlans: seen.map(|s| s.value.vlans.clone()).unwrap_or_default(),
        creates_vlans: spec.vlans == crate::model::switch::VlanPolicy::Create && seen.is_some_and(|s| s.value.writable.vlan_create),
        protected: spec.protected_vlans.iter().copied().collect(),
        trouble: maintenance.or(trouble),
    }
}
