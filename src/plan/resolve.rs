//! From the objects to the `Desired` of one server: references resolved, NICs matched, networks turned into VLANs per switch. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use embody_protocol::Ready;
use ipnet::{IpNet, Ipv4Net};
use sha2::{Digest, Sha256};

use super::Problem;
use super::desired::{Authority, Desired, DesiredPort, Holder, Past};
use super::links;
use super::observed::PortKey;
use crate::manifest::wiring::match_nics;
use crate::model::binding::{Mode, Plane, RunState};
use crate::model::body::{Body, BootsOnce, Hold, LOCAL, Once, Snapshot, port_of};
use crate::model::claim::claims;
use crate::model::fact::{Admin, BootDevice};
use crate::model::file::{PersonaFile, SecretKey};
use crate::model::network::{NetworkSpec, Role};
use crate::model::objects::{Held, server_switches};
use crate::model::persona::{Agent, DiskRoot, Os, OsFamily, PersonaNic, Root};
use crate::model::references::{self, Reference};
use crate::model::server::Firmware;
use crate::model::{BindingSpec, Kind, Mac, Name, Objects, PersonaSpec, Reason, ServerSpec, Vlan};

/// How a switch names the port that a manifest names.
pub trait PortNames {
    /// The port's key. Where the switch was not seen yet: the name as it is written. `Err`: no such port, or several.
    fn key(&self, switch: &Name, port: &str) -> Result<String, String>;
}

/// Everything that is desired of one server.
pub fn want(server: &Name, objects: &Objects, body: &Body, names: &dyn PortNames) -> Desired {
    let held = objects.servers.get(server);
    let mut problems = Vec::new();
    let plugs = held.map_or_else(Vec::new, |s| plugs(server, &s.spec, names, &mut problems));
    let chosen = binding_of(server, objects, body);
    let holder = match (held, chosen) {
        (Some(held), Some(binding)) => Some(holder(server, &held.spec, binding, once(binding, body), objects, &plugs)),
        (None | Some(_), _) => None,
    };
    // A body without its Server object is left alone: deleting never touches hardware.
    let past =
        body.held_by.as_ref().filter(|_| held.is_some()).filter(|h| holder.as_ref().is_none_or(|n| n.authority.uid != h.uid)).map(|h| {
            match alive(h, objects) {
                Some(_) => Past::Moved,
                None => Past::Deleted,
            }
        });
    let releaser = body.release.as_ref().filter(|_| held.is_some()).and_then(|r| alive(r, objects)).map(|b| authority_of(b, None, objects));
    let released_ports = plugs.iter().filter_map(|plug| release(plug, objects).map(|w| (plug.key.clone(), w))).collect();
    let maintenance = held.and_then(|s| s.spec.maintenance.as_ref()).map(|m| m.reason.clone());
    let debts = debts(server, objects, body, &plugs, names);
    let efi = held.is_some_and(|s| s.spec.firmware == Firmware::Uefi);
    let exists = held.is_some();
    // Whoever has still to release it does not wait for where that one goes.
    let moved = body.held_by.as_ref().filter(|_| past == Some(Past::Moved) && body.release.is_none());
    let moved = moved.and_then(|hold| objects.bindings.get(&hold.binding));
    let unresolved = held.and_then(|held| not_there(server, &held.spec, objects).or_else(|| nowhere(moved?, objects)));
    Desired {
        server: server.clone(),
        holder,
        exists,
        efi,
        past,
        releaser,
        released_ports,
        debts,
        unresolved,
        port_problems: problems,
        maintenance,
    }
}

/// The first of what a server, or a switch that it is on, names, and that is not there.
fn not_there(server: &Name, spec: &ServerSpec, objects: &Objects) -> Option<Problem> {
    let of_switch = |name: &Name| missing(references::switch(&objects.switches.get(name)?.spec), Kind::Switch, name, objects);
    missing(references::server(spec), Kind::Server, server, objects).or_else(|| server_switches(spec).iter().find_map(of_switch))
}

/// A binding that names a server which is not there has not moved anywhere.
fn nowhere(binding: &Held<BindingSpec>, objects: &Objects) -> Option<Problem> {
    let server = references::binding(&binding.spec).filter(|reference| reference.kind == Kind::Server);
    missing(server, Kind::Binding, &binding.meta.name, objects)
}

/// The first of what a persona names that is not there, or the persona itself.
fn lacks(bound: &Bound<'_>, objects: &Objects) -> Option<Problem> {
    let name = &bound.binding.persona;
    match bound.persona.as_deref() {
        Some(persona) => missing(references::persona(persona), Kind::Persona, name, objects),
        None => Some(Problem::new(Reason::PersonaMissing, format!("there is no persona {name}"))),
    }
}

/// The first of those names that nothing has.
pub(crate) fn missing<'a>(mut named: impl Iterator<Item = Reference<'a>>, kind: Kind, by: &Name, objects: &Objects) -> Option<Problem> {
    let reference = named.find(|reference| !objects.has(reference.kind, reference.name))?;
    let reason = match reference.kind {
        Kind::Persona => Reason::PersonaMissing,
        Kind::Network => Reason::NetworkMissing,
        Kind::Switch => Reason::SwitchMissing,
        Kind::Server => Reason::ServerMissing,
        Kind::Secret | Kind::Policy | Kind::Binding => Reason::SecretMissing,
    };
    let what = reference.kind.singular().to_lowercase();
    Some(Problem::new(reason, format!("there is no {what} {}, which {} {by} names", reference.name, kind.singular().to_lowercase())))
}

/// One end of a cable: a NIC or bond, and a port.
struct Plug {
    /// The NIC or bond.
    interface: Name,
    key: PortKey,
    /// The port as the manifest names it.
    written: String,
    carries_bmc: bool,
}

fn plugs(server: &Name, spec: &ServerSpec, names: &dyn PortNames, problems: &mut Vec<Problem>) -> Vec<Plug> {
    let members: BTreeSet<&Name> = spec.bonds.iter().flat_map(|b| &b.members).collect();
    let nics = spec.nics.iter().filter(|n| !members.contains(&n.name));
    let nics = nics.filter_map(|n| Some((&n.name, n.switch.as_ref()?, n.port.as_ref()?)));
    let bonds = spec.bonds.iter().flat_map(|b| b.attach.iter().map(move |a| (&b.name, &a.switch, &a.port)));
    let mut out = Vec::new();
    for (interface, switch, port) in nics.chain(bonds) {
        match names.key(switch, port) {
            Ok(key) => out.push(Plug {
                interface: interface.clone(),
                key: (switch.clone(), key),
                written: port.clone(),
                carries_bmc: spec.bmc.via == interface.as_str(),
            }),
            Err(why) => problems.push(Problem::new(Reason::PortNotFound, format!("{server}/{interface}: {why}"))),
        }
    }
    out
}

/// Ports that were written for this server, and that no server names now: they are released as its own would be.
fn debts(server: &Name, objects: &Objects, body: &Body, plugs: &[Plug], names: &dyn PortNames) -> BTreeMap<PortKey, DesiredPort> {
    let mut out = BTreeMap::new();
    for (switch, port) in body.ports.keys().filter_map(|id| port_of(id)) {
        let key: PortKey = (switch, port.to_owned());
        if !objects.servers.contains_key(server) || plugs.iter().any(|p| p.key == key) || named_by_another(server, &key, objects, names) {
            continue;
        }
        let plug = Plug { interface: server.clone(), written: key.1.clone(), key, carries_bmc: false };
        let desired = release(&plug, objects);
        out.extend(desired.map(|d| (plug.key, DesiredPort { because: "no server is at this port any more: quarantine".to_owned(), ..d })));
    }
    out
}

fn named_by_another(server: &Name, key: &PortKey, objects: &Objects, names: &dyn PortNames) -> bool {
    let names_it = |spec: &ServerSpec| {
        let nics = spec.nics.iter().filter_map(|n| Some((n.switch.as_ref()?, n.port.as_ref()?)));
        let bonds = spec.bonds.iter().flat_map(|b| b.attach.iter().map(|a| (&a.switch, &a.port)));
        nics.chain(bonds).any(|(switch, port)| *switch == key.0 && names.key(switch, port).is_ok_and(|k| k == key.1))
    };
    let others = objects.servers_on_switch(&key.0).filter(|s| *s != server).filter_map(|s| objects.servers.get(s));
    others.into_iter().any(|s| names_it(&s.spec))
}

/// The binding whose target this is. Of several (which lint refuses) the one that holds the body already, else none.
fn binding_of<'a>(server: &Name, objects: &'a Objects, body: &Body) -> Option<&'a Held<BindingSpec>> {
    let all: Vec<&Held<BindingSpec>> = objects
        .bindings_of_server(server)
        .filter_map(|b| objects.bindings.get(b))
        .filter(|b| b.meta.deletion_timestamp.is_none())
        .collect();
    match all.as_slice() {
        [one] => Some(one),
        several => several.iter().copied().find(|b| body.held_by.as_ref().is_some_and(|h| h.uid == b.meta.uid)),
    }
}

fn alive<'a>(hold: &Hold, objects: &'a Objects) -> Option<&'a Held<BindingSpec>> {
    objects.bindings.get(&hold.binding).filter(|b| b.meta.uid == hold.uid && b.meta.deletion_timestamp.is_none())
}

/// What is booted once instead of what this binding names.
fn once<'a>(binding: &Held<BindingSpec>, body: &'a Body) -> Option<&'a Once> {
    body.once.as_ref().filter(|once| once.uid == binding.meta.uid && body.held_by.as_ref().is_some_and(|hold| hold.uid == once.uid))
}

/// In whose name it is that this binding does something now, on this body of its server.
pub fn authority_of(binding: &Held<BindingSpec>, body: Option<&Body>, objects: &Objects) -> Authority {
    authority(binding, answer_of(binding, body, objects), objects)
}

/// The digest of what the operations of a binding follow from, beside its own spec: the persona, its networks, the quarantine, and the cables of its
/// target. What was edited and edited back is another one.
pub(crate) fn made_from(binding: &Held<BindingSpec>, objects: &Objects) -> String {
    let persona = objects.personas.get(&binding.spec.persona);
    let nics = persona.into_iter().flat_map(|p| &p.spec.nics);
    let used: BTreeSet<&Name> = nics.flat_map(|nic| nic.untagged.iter().chain(&nic.tagged)).collect();
    let is_part = |name: &Name, held: &Held<NetworkSpec>| used.contains(name) || held.spec.role == Role::Quarantine;
    let networks = objects.networks.iter().filter(|(name, held)| is_part(name, held));
    let networks: Vec<_> = networks.map(|(name, held)| (name, &held.meta.uid, held.meta.generation)).collect();
    let target = binding.spec.target.server.as_ref().and_then(|name| objects.servers.get(name));
    let labels = |switch: &Name| objects.switches.get(switch).map(|s| &s.meta.labels);
    let switches = target.map(|s| server_switches(&s.spec)).unwrap_or_default();
    let switches: Vec<_> = switches.iter().map(|switch| (switch, labels(switch))).collect();
    let cables = target.map(|s| (&s.meta.uid, &s.spec.nics, &s.spec.bonds));
    let persona = persona.map(|p| (&p.meta.uid, p.meta.generation));
    let text = format!("{:?}", (persona, networks, switches, cables));
    Sha256::digest(text.as_bytes()).iter().take(6).map(|b| format!("{b:02x}")).collect()
}

/// The digest of what would be answered on the server that a binding names.
fn answer_of(binding: &Held<BindingSpec>, body: Option<&Body>, objects: &Objects) -> String {
    let target = binding.spec.target.server.as_ref();
    let server = target.and_then(|name| Some((name, &objects.servers.get(name)?.spec)));
    let once = body.and_then(|body| once(binding, body));
    let answer = |(name, spec): (&Name, &ServerSpec)| Bound::of(binding, once, spec, objects).snapshot(name, spec, objects).digest;
    server.map(answer).unwrap_or_default()
}

/// What is to live on a server: a persona, as its binding says, or something else for one start.
struct Bound<'a> {
    binding: Cow<'a, BindingSpec>,
    persona: Option<Cow<'a, PersonaSpec>>,
}

impl<'a> Bound<'a> {
    fn of(binding: &'a Held<BindingSpec>, once: Option<&Once>, server: &ServerSpec, objects: &'a Objects) -> Bound<'a> {
        let persona = |name: &Name| objects.personas.get(name).map(|persona| Cow::Borrowed(&persona.spec));
        let Some(once) = once else { return Bound { binding: Cow::Borrowed(&binding.spec), persona: persona(&binding.spec.persona) } };
        // What the binding says of identity and NICs is its persona's.
        let instead = |persona| BindingSpec { persona, hostname: None, nics: Vec::new(), ..binding.spec.clone() };
        match (&once.boots, LOCAL.parse()) {
            (BootsOnce::Persona(name), _) => Bound { binding: Cow::Owned(instead(name.clone())), persona: persona(name) },
            (BootsOnce::Local, Ok(local)) => Bound { binding: Cow::Owned(instead(local)), persona: Some(Cow::Owned(own_disk(server))) },
            (BootsOnce::Local, Err(_)) => Bound { binding: Cow::Borrowed(&binding.spec), persona: None },
        }
    }

    /// What would be answered now. Of a persona that is not there: nothing that ever is (the holder has a problem).
    fn snapshot(&self, server_name: &Name, server: &ServerSpec, objects: &Objects) -> Snapshot {
        let (binding, persona) = (self.binding.as_ref(), self.persona.as_deref());
        let from_disk = persona.is_some_and(|p| p.root.disk.is_some());
        let snapshot = Snapshot {
            persona: binding.persona.clone(),
            hostname: binding.hostname.clone().unwrap_or_else(|| server_name.to_string()),
            arch: persona.map_or(server.arch, |p| p.os.arch),
            boot: if from_disk { BootDevice::Disk } else { BootDevice::Pxe },
            root: persona.map(|p| p.root.clone()).unwrap_or_default(),
            kernel: persona.and_then(|p| p.kernel.clone()),
            image: persona.and_then(|p| objects.images.get(p.image()?)).map(|known| known.image.digest.clone()),
            claims: persona.map(|p| claims(&binding.persona, p, Some(binding))).unwrap_or_default(),
            macs: server.nics.iter().map(|n| n.mac).collect(),
            addresses: persona.map(|p| addresses(server, p, binding)).unwrap_or_default(),
            links: persona.map(|p| links::links(server, p, binding, objects)).unwrap_or_default(),
            files: persona.map(|p| p.files.clone()).unwrap_or_default(),
            ready: persona.and_then(|p| p.ready.clone()).map(|of| Ready { unit: of.unit, http: of.http }).unwrap_or_default(),
            arguments: arguments(server),
            digest: String::new(),
        };
        snapshot.sealed()
    }
}

/// A server as it boots by itself: it has no network here.
fn own_disk(server: &ServerSpec) -> PersonaSpec {
    let root = Root { disk: Some(DiskRoot {}), ..Root::default() };
    let os = Os { family: OsFamily::Linux, arch: server.arch };
    PersonaSpec {
        os,
        root,
        kernel: None,
        exclusive: Some(false),
        nics: Vec::new(),
        files: Vec::new(),
        needs: None,
        ready: None,
        agent: Agent::None,
        rollout: None,
    }
}

fn authority(binding: &Held<BindingSpec>, answer: String, objects: &Objects) -> Authority {
    let site: Mode = objects.policy().correct;
    let modes = [Plane::Power, Plane::Boot, Plane::Network].map(|plane| (plane, binding.spec.mode(plane, site)));
    Authority {
        binding: binding.meta.name.clone(),
        uid: binding.meta.uid.clone(),
        generation: binding.meta.generation,
        answer,
        modes: modes.into(),
        grace: binding.spec.shutdown.grace.0,
    }
}

fn holder(server: &Name, spec: &ServerSpec, binding: &Held<BindingSpec>, once: Option<&Once>, objects: &Objects, plugs: &[Plug]) -> Holder {
    let bound = Bound::of(binding, once, spec, objects);
    let (name, persona) = (&bound.binding.persona, bound.persona.as_deref());
    let unresolved = lacks(&bound, objects);
    // Whoever asks whether it can live here at all is told as well.
    let mut problems = Vec::from_iter(unresolved.clone());
    let mut ports = BTreeMap::new();
    match persona {
        None => {}
        Some(persona) => match match_nics(spec, persona, &bound.binding) {
            Ok(on) => ports = desired(name, persona, &on, objects, plugs),
            Err(error) => problems.push(Problem::new(Reason::NicsDoNotMatch, format!("{error} (server {server}); {}", error.hint()))),
        },
    }
    // What is to be stopped needs none.
    let starts = binding.spec.state == RunState::Running;
    problems.extend(persona.filter(|_| starts).and_then(|persona| image_lacks(persona, objects)));
    problems.extend(persona.filter(|_| starts).and_then(|persona| files_lack(persona, objects)));
    if once.is_some_and(|once| once.boots == BootsOnce::Local) {
        // Whatever is on the disk has had an address once: it comes up where it disturbs nobody.
        ports.values_mut().for_each(|port| port.needed = true);
    }
    let snapshot = bound.snapshot(server, spec, objects);
    Holder {
        authority: authority(binding, snapshot.digest.clone(), objects),
        server: server.clone(),
        persona: name.clone(),
        snapshot,
        state: binding.spec.state,
        efi: spec.firmware == Firmware::Uefi,
        restart: binding.spec.restart,
        ports,
        fetches: persona.is_some_and(|p| boots_over_network(p, objects)),
        boot_bond: boot_bond(spec),
        boot: binding.spec.boot,
        says_hello: persona.is_some_and(|p| p.agent == Agent::Required),
        rolls: once.is_none() && persona.is_some_and(|p| p.rollout.is_some()),
        once: once.cloned(),
        problems,
        unresolved,
    }
}

/// What it boots is not here: nothing that runs is disturbed for it.
fn image_lacks(persona: &PersonaSpec, objects: &Objects) -> Option<Problem> {
    let name = persona.image()?;
    let said = |argument: &str| persona.kernel.as_ref().is_some_and(|kernel| kernel.cmdline.contains(argument));
    let why = match objects.images.get(name) {
        None => format!("there is no image {name}: `embody image import {name} PATH` makes it"),
        Some(known) if known.image.kernel.is_none() => {
            format!("image {name} has no kernel with its modules: nothing can be started with it")
        }
        Some(known) if !known.image.init && persona.root.image.is_some() && !said("init=") => {
            format!("image {name} has no /sbin/init: nothing would start in it (`kernel.cmdline` may name another one with `init=`)")
        }
        Some(known) => format!("image {name} is not here whole yet: {}", known.lacks(persona.delivery())?),
    };
    Some(Problem::new(Reason::ImageMissing, why))
}

/// What is in one of its files is not known. What a Secret reads from elsewhere is seen when it is asked for.
fn files_lack(persona: &PersonaSpec, objects: &Objects) -> Option<Problem> {
    let lacks = |file: &PersonaFile| {
        let SecretKey { name, key } = file.secret_ref.as_ref()?;
        // Where there is no such secret, nothing is planned (`lacks`).
        let held = objects.secrets.get(name)?;
        let has = held.spec.from.is_some() || held.spec.string_data.contains_key(key);
        (!has).then(|| format!("the file {} is `{key}` of the secret {name}, which has no such key", file.path))
    };
    Some(Problem::new(Reason::FileMissing, persona.files.iter().find_map(lacks)?))
}

/// The fixed addresses of the persona's NICs, by the MACs of the server's that they are on; of a bond, by each member's.
fn addresses(server: &ServerSpec, persona: &PersonaSpec, binding: &BindingSpec) -> BTreeMap<Mac, Ipv4Net> {
    let on = match_nics(server, persona, binding).unwrap_or_default();
    let mut out = BTreeMap::new();
    for nic in &persona.nics {
        let (Some(IpNet::V4(address)), Some(place)) = (binding.address(nic), on.get(&nic.name)) else { continue };
        let members = server.bonds.iter().find(|bond| bond.name == *place).map(|bond| &bond.members);
        let is_there = |name: &Name| name == place || members.is_some_and(|members| members.contains(name));
        out.extend(server.nics.iter().filter(|n| is_there(&n.name)).map(|n| (n.mac, address)));
    }
    out
}

/// What the machine itself needs on the kernel's command line.
fn arguments(server: &ServerSpec) -> String {
    let console = server.console.as_ref().map(|console| format!("console={console}"));
    let own = (!server.kernel_args.is_empty()).then(|| server.kernel_args.clone());
    console.into_iter().chain(own).collect::<Vec<_>>().join(" ")
}

/// The persona's boot NIC is on a network over which machines boot: what starts here fetches its script from us.
fn boots_over_network(persona: &PersonaSpec, objects: &Objects) -> bool {
    let nic = persona.nics.iter().find(|nic| nic.boot);
    let network = nic.and_then(|nic| nic.untagged.as_ref()).and_then(|name| objects.networks.get(name));
    persona.root.disk.is_none() && network.is_some_and(|held| held.spec.boots().next().is_some())
}

fn boot_bond(server: &ServerSpec) -> Option<Name> {
    let nic = server.nics.iter().find(|nic| nic.boot)?;
    server.bonds.iter().find(|bond| bond.members.contains(&nic.name)).map(|bond| bond.name.clone())
}

/// The desired state for each port of the server: the networks of the persona's NIC on it, or release.
fn desired(
    persona_name: &Name,
    persona: &PersonaSpec,
    on: &BTreeMap<Name, Name>,
    objects: &Objects,
    plugs: &[Plug],
) -> BTreeMap<PortKey, DesiredPort> {
    let mut out = BTreeMap::new();
    for plug in plugs {
        let nic = persona.nics.iter().find(|n| on.get(&n.name) == Some(&plug.interface));
        let used = nic.filter(|n| n.untagged.is_some() || !n.tagged.is_empty());
        let desired = match used {
            Some(nic) => Some(carry(persona_name, nic, plug, objects)),
            None => release(plug, objects),
        };
        out.extend(desired.map(|w| (plug.key.clone(), w)));
    }
    out
}

fn carry(persona: &Name, nic: &PersonaNic, plug: &Plug, objects: &Objects) -> DesiredPort {
    let vlan = |network: &Name| vlan_of(network, &plug.key.0, objects);
    let untagged = nic.untagged.as_ref().and_then(vlan);
    let tagged: BTreeSet<Vlan> = nic.tagged.iter().filter_map(vlan).collect();
    let networks: Vec<&str> = nic.untagged.iter().chain(&nic.tagged).map(Name::as_str).collect();
    DesiredPort {
        admin: Admin::Up,
        untagged: Some(untagged),
        tagged: Some(tagged),
        needed: true,
        carries_bmc: plug.carries_bmc,
        because: format!("{} on NIC {} of persona {persona}", networks.join(", "), nic.name),
    }
}

fn vlan_of(network: &Name, switch: &Name, objects: &Objects) -> Option<Vlan> {
    // Of one that is not there nothing is planned (`lacks`).
    let held = objects.networks.get(network)?;
    let labels = objects.switches.get(switch).map(|s| s.meta.labels.clone()).unwrap_or_default();
    Some(held.spec.vlan_on(&labels))
}

/// Into quarantine; where there is none, it is left as it is. A port that carries the BMC only loses its tagged VLANs; one that embody does
/// not manage is left alone.
fn release(plug: &Plug, objects: &Objects) -> Option<DesiredPort> {
    let switch = objects.switches.get(&plug.key.0)?;
    if !switch.spec.manages(&plug.written) && !switch.spec.manages(&plug.key.1) {
        return None;
    }
    let quarantine = objects.networks.values().find(|n| n.spec.role == Role::Quarantine)?;
    let vlan = quarantine.spec.vlan_on(&switch.meta.labels);
    let (untagged, because) = match plug.carries_bmc {
        true => (None, "released; it carries the BMC".to_owned()),
        false => (Some(Some(vlan)), "released: quarantine".to_owned()),
    };
    Some(DesiredPort { admin: Admin::Up, untagged, tagged: Some(BTreeSet::new()), needed: false, carries_bmc: plug.carries_bmc, because })
}
