//! The world in memory: what is desired (objects), what is stored about bodies, what devices showed. One task owns it.
//!
//! It is rebuilt from the store and from fresh observations at every start; losing it costs time, never correctness. Nothing here decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::approve::Given;
use super::machines::BootChanges;
use super::stops::Pause;
use crate::control::cables::Cables;
use crate::control::twins::{Twin, Twins};
use crate::drivers::switch::resolve;
use crate::model::body::{Body, Evidence, Phase, port_of};
use crate::model::claim::{Claim, ClaimIndex, claims};
use crate::model::fact::{BmcSeen, BootOverride, Lag, PortSeen, Power, Quality, Seen, SwitchSeen, Tick};
use crate::model::identity::Identity;
use crate::model::image::ImageName;
use crate::model::switch::SwitchSpec;
use crate::model::{Kind, Mac, Name, Objects, Reason};
use crate::plan::desired::{Desired, Holder};
use crate::plan::fence;
use crate::plan::observed::{Elsewhere, Memory, Observed, PortKey, PortObserved, Ready, SwitchObserved, There, Trouble};
use crate::plan::resolve::{self, PortNames};
use crate::plan::rollouts::Rollouts;
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
    /// With trouble: when it is asked again. Nothing: not before something changes.
    pub again_at: Option<Tick>,
    /// Since when `seen.value` is as it is, and since when the trouble: for people.
    pub since: String,
    pub trouble_since: String,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known { seen: None, trouble: None, again_at: None, since: String::new(), trouble_since: String::new() }
    }
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
    pub bodies: BTreeMap<Name, Stored<Body>>,
    pub memory: BTreeMap<Name, Memory>,
    pub bmcs: BTreeMap<Name, BmcFacts>,
    pub switches: BTreeMap<Name, Known<Arc<SwitchSeen>>>,
    /// Where addresses were learned.
    pub cables: Cables,
    /// When it was last told what is plugged in at a switch: neighbours, aggregations, learned addresses.
    pub cables_told_at: BTreeMap<Name, Tick>,
    /// Switches that we changed, and that were not saved since.
    pub unsaved: BTreeMap<Name, Unsaved>,
    pub(super) approvals: BTreeMap<Name, Given>,
    pub pauses: BTreeMap<String, (Pause, Option<Tick>)>,
    /// What identifies a device, as remembered.
    pub pins: BTreeMap<(Kind, Name), Stored<Identity>>,
    /// Servers that guardrails hold.
    pub stopped_by_guardrails: BTreeMap<Name, Trouble>,
    /// How the bodies of each persona stand, for its rollout.
    pub(super) rollouts: Rollouts,
    /// Records of bodies that do not read, by the revision at which they stand.
    pub unreadable: BTreeMap<Name, Revision>,
    /// Bodies of which nothing is known.
    pub(super) anything: BTreeSet<Name>,
    /// Those where a start waits for a person's word, since the store went backwards.
    starts_unconfirmed: BTreeSet<Name>,
    /// A store that went backwards was taken as it is, and not all that was in doubt is known yet: of a server without a record nothing is.
    pub doubt: Option<Revision>,
    /// When that ended last: the watch may still tell of it.
    pub doubt_ended: Revision,
    /// Ports of which a write is on its way.
    pub ports_in_flight: BTreeSet<PortKey>,
    /// The store holds less than it once acknowledged: nothing is recorded, and nothing is sent to devices.
    pub store_stop: Option<Trouble>,
    /// Keys of objects that do not read: what they desire is not known, so nothing is recorded or sent either.
    pub unreadable_objects: BTreeSet<String>,
    /// What evidence claims, by body.
    pub(super) claimed: ClaimIndex<Name>,
    /// What bindings reserve.
    pub(super) reserved: ClaimIndex<Name>,
    reserved_by: BTreeMap<Name, BTreeSet<Claim>>,
    /// The bodies whose snapshots hold a MAC, and those whose disks hold a persona.
    pub(super) by_snapshot_mac: BTreeMap<Mac, BTreeSet<Name>>,
    on_disk_at: BTreeMap<Name, BTreeSet<Name>>,
    /// The bodies that a binding holds or is to release.
    by_hold: BTreeMap<Name, BTreeSet<Name>>,
    /// Servers by what tells their machines apart (`Identity::machine`): shown, or pinned.
    machines: BTreeMap<String, BTreeSet<Name>>,
    /// Which Switch objects name one switch.
    pub(super) twins: Twins,
    /// The revisions at which addresses that were given are stored.
    pub(super) lease_revisions: BTreeMap<Ipv4Addr, Revision>,
    /// The same of images.
    pub(super) image_revisions: BTreeMap<ImageName, Revision>,
    /// Servers that boot services may have to tell something else since the view was published last.
    pub(super) boot_changes: BootChanges,
}

impl Cache {
    pub fn body(&self, server: &Name) -> Body {
        self.bodies.get(server).map(|b| b.value.clone()).unwrap_or_default()
    }

    pub fn set_body(&mut self, server: &Name, body: Body, revision: Revision) {
        if let Some(old) = self.bodies.remove(server) {
            self.index(server, &old.value, false);
        }
        self.index(server, &body, true);
        self.unreadable.remove(server);
        self.bodies.insert(server.clone(), Stored { value: body, revision });
    }

    /// As if there had never been a record of it.
    pub fn forget_body(&mut self, server: &Name) {
        if let Some(old) = self.bodies.remove(server) {
            self.index(server, &old.value, false);
        }
    }

    fn index(&mut self, server: &Name, body: &Body, is: bool) {
        self.boot_changes.of_body(server, body);
        for evidence in body.evidence.values() {
            for claim in &evidence.snapshot.claims {
                match is {
                    true => self.claimed.insert(claim, server),
                    false => self.claimed.remove(claim, server),
                }
            }
            for mac in &evidence.snapshot.macs {
                note(&mut self.by_snapshot_mac, *mac, server, is);
            }
        }
        match is && body.anything {
            true => drop(self.anything.insert(server.clone())),
            false => drop(self.anything.remove(server)),
        }
        let runs = body.standing().is_some_and(|(_, e)| e.phase == Phase::Started);
        match is && body.confirm_start && !runs {
            true => drop(self.starts_unconfirmed.insert(server.clone())),
            false => drop(self.starts_unconfirmed.remove(server)),
        }
        for persona in &body.on_disk {
            note(&mut self.on_disk_at, persona.clone(), server, is);
        }
        for hold in body.held_by.iter().chain(&body.release) {
            note(&mut self.by_hold, hold.binding.clone(), server, is);
        }
    }

    /// The bodies that a binding of this name holds, or is to release.
    pub fn held_by(&self, binding: &Name) -> impl Iterator<Item = &Name> {
        self.by_hold.get(binding).into_iter().flatten()
    }

    /// A binding or its persona changed: what it reserves. The others that may have waited for what it had.
    pub fn reserve(&mut self, binding: &Name) -> BTreeSet<Name> {
        let before = self.reserved_by.remove(binding).unwrap_or_default();
        before.iter().for_each(|claim| self.reserved.remove(claim, binding));
        let waited = before.iter().flat_map(|claim| self.reserved.overlapping(claim)).collect();
        let Some(held) = self.objects.bindings.get(binding) else { return waited };
        let Some(persona) = self.objects.personas.get(&held.spec.persona) else { return waited };
        let claims = claims(&held.spec.persona, &persona.spec, Some(&held.spec));
        claims.iter().for_each(|claim| self.reserved.insert(claim, binding));
        self.reserved_by.insert(binding.clone(), claims);
        waited
    }

    /// A record that does not read: its body may run anything, and nobody else gets what it might have.
    pub fn does_not_read(&mut self, server: &Name, revision: Revision, why: &str) {
        tracing::error!(server = %server, error = why, "what is stored of a body does not read: it may run anything");
        if let Some(old) = self.bodies.remove(server) {
            self.index(server, &old.value, false);
        }
        self.unreadable.insert(server.clone(), revision);
        self.boot_changes.insert(server);
        // It is parked from now on: no earlier Off says that it runs nothing.
        self.memory_of(server).may_be_on();
    }

    /// While the store is in doubt: a server without a record may run anything.
    pub fn doubt(&mut self, server: &Name) {
        if self.doubt.is_some() && !self.bodies.contains_key(server) && !self.unreadable.contains_key(server) {
            self.set_body(server, Body { anything: true, confirm_start: true, ..Body::default() }, 0);
        }
    }

    pub fn doubt_all(&mut self) {
        let servers: Vec<Name> = self.objects.servers.keys().cloned().collect();
        servers.iter().for_each(|server| self.doubt(server));
    }

    /// Whether nothing is left of what was in doubt.
    pub fn is_all_known(&self) -> bool {
        !self.bodies.is_empty() && self.anything.is_empty() && self.starts_unconfirmed.is_empty() && self.unreadable.is_empty()
    }

    /// The servers that may run a persona, by evidence.
    pub fn may_run<'a>(&'a self, persona: &'a Name) -> impl Iterator<Item = &'a Name> {
        self.bodies.iter().filter(|(_, body)| body.value.evidence.contains_key(persona)).map(|(server, _)| server)
    }

    /// The bindings that wait for what this body claims.
    pub fn waiting_for(&self, body: &Body) -> BTreeSet<Name> {
        let claims = body.evidence.values().flat_map(|e| &e.snapshot.claims);
        claims.flat_map(|claim| self.reserved.overlapping(claim)).collect()
    }

    /// Who else has what a holder claims.
    fn elsewhere(&self, server: &Name, holder: &Holder) -> Vec<Elsewhere> {
        let claims = &holder.snapshot.claims;
        if claims.is_empty() {
            return Vec::new();
        }
        let bodies: BTreeSet<Name> = claims.iter().flat_map(|claim| self.claimed.overlapping(claim)).collect();
        let mut out: Vec<Elsewhere> = bodies.iter().filter(|s| *s != server).flat_map(|s| self.evidence_at(s, claims)).collect();
        let unreadable = self.unreadable.keys().chain(&self.anything).filter(|s| *s != server);
        out.extend(unreadable.map(|s| Elsewhere::Unreadable { server: s.clone(), there: self.there(s) }));
        let on_disk = self.on_disk_at.get(&holder.persona).into_iter().flatten().filter(|s| *s != server);
        // Of a server that is in no manifest any more nothing is asked.
        let is_asked = |s: &Name| self.objects.servers.contains_key(s) && !self.power_is(s, Power::Off);
        let strays = |s: &Name| is_asked(s) && self.bodies.get(s).is_some_and(|b| b.value.may_run_from_disk(&holder.persona));
        out.extend(on_disk.filter(|s| strays(s)).map(|s| Elsewhere::Disk { server: s.clone(), there: self.there(s) }));
        out.extend(self.reserved_by_others(&holder.authority.binding, claims));
        out
    }

    fn evidence_at(&self, server: &Name, claims: &BTreeSet<Claim>) -> Vec<Elsewhere> {
        let Some(body) = self.bodies.get(server).map(|b| &b.value).filter(|b| b.fences()) else { return Vec::new() };
        let there = self.there(server);
        let found = |(persona, evidence): (&Name, &Evidence)| {
            let claim = evidence.snapshot.overlap(claims)?.to_string();
            Some(Elsewhere::Evidence { server: server.clone(), persona: persona.clone(), claim, there })
        };
        body.evidence.iter().filter_map(found).collect()
    }

    /// Of two bindings that claim one thing, which manifests refuse, the older one has it.
    fn reserved_by_others(&self, binding: &Name, claims: &BTreeSet<Claim>) -> Vec<Elsewhere> {
        let age = |name: &Name| self.objects.bindings.get(name).map(|b| (b.meta.creation_timestamp.clone(), name.clone()));
        let mut out = Vec::new();
        for claim in claims {
            for other in self.reserved.overlapping(claim).into_iter().filter(|o| o != binding) {
                let is = Elsewhere::Reserved { binding: other.clone(), claim: claim.to_string() };
                if age(&other) < age(binding) && !out.contains(&is) {
                    out.push(is);
                }
            }
        }
        out
    }

    fn power_is(&self, server: &Name, power: Power) -> bool {
        self.bmcs.get(server).and_then(|f| f.power.as_ref()).is_some_and(|p| p.value == power)
    }

    pub fn want(&self, server: &Name) -> Desired {
        self.want_with(server, &self.body(server), &self.objects)
    }

    pub fn want_with(&self, server: &Name, body: &Body, objects: &Objects) -> Desired {
        resolve::want(server, objects, body, self)
    }

    /// Everything that `plan` may know of one server.
    pub fn seen(&self, server: &Name, want: &Desired) -> Observed {
        self.seen_where(server, want, &|_| true)
    }

    /// As if nothing were held.
    pub fn seen_unheld(&self, server: &Name, want: &Desired) -> Observed {
        self.seen_where(server, want, &|trouble| trouble.reason != Reason::Held)
    }

    fn seen_where(&self, server: &Name, want: &Desired, stops: &dyn Fn(&Trouble) -> bool) -> Observed {
        let mut seen = self.seen_alone(server, want, stops);
        seen.takeover = fence::leaves(want, &seen.body).map(|binding| self.takeover_where(binding, server, stops));
        seen
    }

    /// Whether the server that a binding names could take over from another one, once nothing of it is held.
    pub fn takeover(&self, binding: &Name, from: &Name) -> Result<(), String> {
        self.takeover_where(binding, from, &|trouble| trouble.reason != Reason::Held).map(drop)
    }

    fn takeover_where(&self, binding: &Name, from: &Name, stops: &dyn Fn(&Trouble) -> bool) -> Result<Ready, String> {
        let target = |binding: &Name| self.objects.bindings.get(binding)?.spec.target.server.clone();
        let look = |server: &Name| {
            let want = self.want(server);
            let seen = self.seen_alone(server, &want, stops);
            Some((want, seen))
        };
        fence::takeover(binding, from, &fence::Bodies { target: &target, look: &look })
    }

    fn seen_alone(&self, server: &Name, want: &Desired, stops: &dyn Fn(&Trouble) -> bool) -> Observed {
        let facts = self.bmcs.get(server);
        let mut seen = Observed {
            body: self.body(server),
            unreadable: self.unreadable.contains_key(server),
            memory: self.memory.get(server).cloned().unwrap_or_default(),
            power: facts.and_then(|f| f.power.clone()),
            boot: facts.and_then(|f| f.boot.clone()),
            bmc_trouble: facts.and_then(|f| f.known.trouble.clone()),
            elsewhere: want.holder.as_ref().map(|h| self.elsewhere(server, h)).unwrap_or_default(),
            turn: self.turn(want),
            held: self.stopped_by_guardrails.contains_key(server),
            hard_off_without_soft: self.objects.policy().limits.hard_off_without_soft,
            ..Observed::default()
        };
        for binding in &self.acting(server, want) {
            if let Some(given) = self.approvals.get(binding) {
                seen.approvals.insert(binding.clone(), given.approval.clone());
            }
            if let Some(trouble) = self.stopped(server, binding).filter(|trouble| stops(trouble)) {
                seen.stopped.insert(binding.clone(), trouble);
            }
        }
        let wanted = want.holder.iter().flat_map(|h| h.ports.keys()).chain(want.released_ports.keys()).chain(want.debts.keys());
        let begun = seen.body.begun().filter_map(|(id, _)| port_of(id)).map(|(switch, port)| (switch, port.to_owned()));
        for key in wanted.cloned().chain(begun).collect::<BTreeSet<PortKey>>() {
            if self.ports_in_flight.contains(&key) {
                seen.in_flight.insert(key.clone());
            }
            self.add_port(server, &key, &mut seen);
        }
        seen
    }

    /// The bindings in whose names something may be done here; of one that is gone, to end a write that it began.
    pub fn acting(&self, server: &Name, want: &Desired) -> BTreeSet<Name> {
        let now = want.holder.iter().map(|h| &h.authority).chain(&want.releaser).map(|authority| authority.binding.clone());
        let body = self.bodies.get(server).map(|b| &b.value);
        now.chain(body.into_iter().flat_map(Body::begun).filter_map(|(_, by)| by.cloned())).collect()
    }

    fn there(&self, server: &Name) -> There {
        let facts = self.bmcs.get(server);
        let body = self.bodies.get(server).map(|b| &b.value);
        let asked_at = facts.and_then(|f| f.power.as_ref()).map(|p| p.asked_at);
        let answers = asked_at.is_some() && facts.is_some_and(|f| f.known.trouble.is_none());
        There {
            asked_at,
            answers,
            bound: body.is_some_and(|b| b.held_by.is_some() || b.release.is_some()),
            runs_by_mistake: body.is_some_and(Body::runs_by_mistake),
            found_running: body.is_some_and(|b| b.found_evidence().next().is_some()),
        }
    }

    fn add_port(&self, server: &Name, key: &PortKey, seen: &mut Observed) {
        let (switch, port) = key;
        let Some(held) = self.objects.switches.get(switch) else {
            let message = format!("there is no switch {switch}");
            let trouble = Some(Trouble { reason: Reason::SwitchMissing, message });
            seen.switches.insert(switch.clone(), SwitchObserved { trouble, ..SwitchObserved::default() });
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
            seen.ports.insert(key.clone(), PortObserved { config: found.compared(), asked_at: facts.asked_at, refuse });
        }
    }

    /// Invariant 6: why a port is never written.
    pub(super) fn refuse(
        &self,
        server: &Name,
        switch: &Name,
        port: &str,
        found: &PortSeen,
        spec: &SwitchSpec,
        all: &SwitchSeen,
    ) -> Option<Trouble> {
        let because = |reason: Reason, message: String| Some(Trouble { reason, message });
        let names = std::iter::once(port).chain(found.also.iter().map(String::as_str));
        if !names.into_iter().any(|name| spec.manages(name)) {
            return because(
                Reason::PortNotManaged,
                format!("port {port} of switch {switch} is not in its manage.ports: it is only observed"),
            );
        }
        if let Lag::Member(of) = &found.lag {
            let of = of.as_deref().unwrap_or("an aggregation");
            return because(
                Reason::LinkAggregation,
                format!("port {port} of switch {switch} is a member of {of}: it is not written by itself"),
            );
        }
        if let Lag::NotTold(why) = &found.lag {
            let unknown = format!("whether port {port} of switch {switch} belongs to an aggregation is not known: {why}");
            return because(Reason::PortUnreadable, unknown);
        }
        // Who is at the other end of an aggregation is heard on its members.
        let part = |p: &&PortSeen| matches!(&p.lag, Lag::Member(Some(of)) if of == port || found.also.contains(of));
        let members = all.ports.values().filter(part).filter(|_| found.lag == Lag::Aggregate);
        let mut neighbours = std::iter::once(found).chain(members).filter_map(|p| p.neighbour.as_ref());
        if let Some(n) = neighbours.find(|n| n.bridge == Some(true)) {
            let who = n.system.as_deref().unwrap_or(&n.chassis);
            return because(
                Reason::CableContradicted,
                format!("port {port} of switch {switch} leads to the switch or router {who} ({} {})", n.chassis, n.port),
            );
        }
        let foreign = |mac: &Mac| self.objects.server_of_mac(*mac).filter(|owner| *owner != server).map(|owner| (*mac, owner.clone()));
        if let Some((mac, owner)) = found.macs.iter().find_map(foreign) {
            return because(
                Reason::CableContradicted,
                format!("port {port} of switch {switch} is declared for server {server}, but {mac} of server {owner} was learned on it"),
            );
        }
        if let Some(why) = self.still_in(server, switch, port, found, all) {
            return because(Reason::StillPluggedIn, why);
        }
        if let Some(why) = self.contradicted(server, switch, port, found, all) {
            return because(Reason::CableContradicted, why);
        }
        if let Quality::Unknown(why) = &found.quality {
            return because(Reason::PortUnreadable, format!("port {port} of switch {switch}: {why}"));
        }
        if !all.writable.admin || !all.writable.access {
            let reason = if all.writable.admin && !all.refused.is_empty() { Reason::WriteRefused } else { Reason::SwitchNotWritable };
            return because(reason, format!("switch {switch}: {}", all.not_writable(switch).1));
        }
        None
    }

    /// Remembers which servers show which machine, or are pinned with it; another one that has the same.
    pub fn same_machine(&mut self, server: &Name, machine: &str) -> Option<Name> {
        let before = self.bmcs.get(server).and_then(|f| f.known.seen.as_ref()).and_then(|s| s.value.shown.machine());
        if let Some(before) = before.filter(|b| b != machine) {
            self.forget_machine(server, &before);
        }
        if !self.machines.get(machine).is_some_and(|holders| holders.contains(server)) {
            self.machines.entry(machine.to_owned()).or_default().insert(server.clone());
        }
        let holders = self.machines.get(machine)?;
        holders.iter().find(|s| *s != server && self.objects.servers.contains_key(*s)).cloned()
    }

    /// Another Switch object that is the same switch, if there is one.
    pub(super) fn twin_of_switch(&mut self, switch: &Name) -> Option<Twin> {
        let switches = &self.objects.switches;
        self.twins.of(switch, |other| switches.contains_key(other))
    }

    /// The address in the manifest of a switch, as it is pinned where nothing else tells it from another one.
    pub fn address_of_switch(&self, switch: &Name) -> Option<String> {
        self.objects.switches.get(switch).map(|held| held.spec.address.to_string())
    }

    fn forget_machine(&mut self, server: &Name, machine: &str) {
        if let Some(holders) = self.machines.get_mut(machine) {
            holders.remove(server);
            if holders.is_empty() {
                self.machines.remove(machine);
            }
        }
    }

    /// What is remembered of a device from now on.
    pub fn set_pin(&mut self, kind: Kind, name: &Name, pin: Identity, revision: Revision) {
        if kind == Kind::Server {
            if let Some(machine) = self.pinned(kind, name).machine() {
                self.forget_machine(name, &machine);
            }
            if let Some(machine) = pin.machine() {
                self.machines.entry(machine).or_default().insert(name.clone());
            }
        }
        if kind == Kind::Switch {
            self.twins.is_pinned(name, &pin);
        }
        self.pins.insert((kind, name.clone()), Stored { value: pin, revision });
    }

    pub fn forget_device_of_server(&mut self, server: &Name) {
        let shown = self.bmcs.remove(server).and_then(|f| f.known.seen).and_then(|s| s.value.shown.machine());
        if let Some(shown) = shown.filter(|shown| self.pinned(Kind::Server, server).machine().as_ref() != Some(shown)) {
            self.forget_machine(server, &shown);
        }
        // Another one may answer from now on: what was seen off was not that.
        self.memory_of(server).may_be_on();
    }

    /// Its worker ended: what it was about to save is to be saved all the same.
    pub fn forget_device_of_switch(&mut self, switch: &Name) {
        self.cables.forget(switch);
        self.twins.forget(switch);
        self.switches.remove(switch);
        self.unsaved.get_mut(switch).into_iter().for_each(|unsaved| unsaved.sent = false);
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

fn switch_here(switch: &Name, spec: &SwitchSpec, known: Option<&Known<Arc<SwitchSeen>>>) -> SwitchObserved {
    let seen = known.and_then(|k| k.seen.as_ref());
    let maintenance = spec
        .maintenance
        .as_ref()
        .map(|m| Trouble { reason: Reason::Maintenance, message: format!("switch {switch} is in maintenance: {}", m.reason) });
    let unseen = || Some(Trouble { reason: Reason::SwitchUnknown, message: format!("switch {switch} was not seen yet") });
    let trouble = match known {
        Some(known) => known.trouble.clone().or_else(|| if known.seen.is_none() { unseen() } else { None }),
        None => unseen(),
    };
    SwitchObserved {
        vlans: seen.map(|s| s.value.vlans.clone()).unwrap_or_default(),
        creates_vlans: spec.vlans == crate::model::switch::VlanPolicy::Create && seen.is_some_and(|s| s.value.writable.vlan_create),
        protected: spec.protected_vlans.iter().copied().collect(),
        tagged_refused: seen.filter(|s| !s.value.writable.trunk).map(|s| format!("switch {switch}: {}", s.value.not_writable(switch).1)),
        trouble: maintenance.or(trouble),
    }
}

fn note<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Name>>, key: K, server: &Name, is: bool) {
    if is {
        index.entry(key).or_default().insert(server.clone());
    } else if let Some(servers) = index.get_mut(&key) {
        servers.remove(server);
        if servers.is_empty() {
            index.remove(&key);
        }
    }
}
