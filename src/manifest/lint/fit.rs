//! Whether each binding's persona fits its server: NICs, architecture, capacity, and the VLANs that its networks have there.

use std::collections::{BTreeMap, BTreeSet};

use super::wires::plugged;
use super::{Lay, Of};
use crate::manifest::codes;
use crate::manifest::fault::{At, Fault, steps};
use crate::manifest::wiring::match_nics;
use crate::model::network::Role;
use crate::model::{BindingSpec, Name, NetworkSpec, PersonaSpec, ServerSpec, Vlan};

/// The networks of each VLAN id of each switch, with where the first use stands.
type Used<'a> = BTreeMap<(&'a Name, Vlan), BTreeMap<&'a Name, At>>;

pub(super) fn lint(lay: &mut Lay<'_>) {
    let mut used: Used<'_> = BTreeMap::new();
    for binding in lay.bindings() {
        let server = binding.spec.target.server.as_ref().and_then(|s| lay.server(s));
        let (Some(server), Some(persona)) = (server, lay.persona(&binding.spec.persona)) else { continue };
        if binding.whole && server.whole && persona.whole {
            capacity(lay, &binding, &server, &persona);
            wiring(lay, &binding, &server, &persona, &mut used);
        }
    }
    quarantine(lay, &mut used);
    collisions(lay, &used);
}

fn capacity(lay: &mut Lay<'_>, binding: &Of<'_, BindingSpec>, server: &Of<'_, ServerSpec>, persona: &Of<'_, PersonaSpec>) {
    let target = At::value(binding.item, steps!["spec", "target", "server"]);
    let unfit = |what: String, wanted: At, had: At| {
        let fault = Fault::error(
            codes::PERSONA_DOES_NOT_FIT,
            target.clone(),
            format!("the persona `{}` does not fit the server `{}`", persona.name, server.name),
        );
        fault.label(what).also("what it needs", wanted).also("what the server has", had)
    };
    let needs = |field| At::value(persona.item, steps!["spec", "needs", field]);
    let has = |field| At::value(server.item, steps!["spec", "capacity", field]);
    let (wanted, had) = (persona.spec.os.arch, server.spec.arch);
    if wanted != had {
        let label = format!("it runs on {}, the server is {}", wanted.as_str(), had.as_str());
        let fault = unfit(label, At::value(persona.item, steps!["spec", "os", "arch"]), At::value(server.item, steps!["spec", "arch"]));
        lay.faults.push(fault);
    }
    let (Some(need), Some(capacity)) = (persona.spec.needs, server.spec.capacity) else { return };
    if let Some(cpus) = need.cpus.filter(|n| *n > capacity.cpus) {
        lay.faults.push(unfit(format!("it needs {cpus} processors, the server has {}", capacity.cpus), needs("cpus"), has("cpus")));
    }
    if let Some(memory) = need.memory.filter(|n| *n > capacity.memory) {
        lay.faults.push(unfit(format!("it needs {memory} of memory, the server has {}", capacity.memory), needs("memory"), has("memory")));
    }
}

fn wiring<'a>(
    lay: &mut Lay<'a>,
    binding: &Of<'a, BindingSpec>,
    server: &Of<'a, ServerSpec>,
    persona: &Of<'a, PersonaSpec>,
    used: &mut Used<'a>,
) {
    let matched = match match_nics(server.spec, persona.spec, binding.spec) {
        Ok(matched) => matched,
        Err(error) => {
            let entry = error.binding_nic().and_then(|nic| binding.spec.nics.iter().rposition(|n| n.name == *nic));
            let path = entry.map_or_else(|| steps!["spec", "target", "server"], |i| steps!["spec", "nics", i]);
            let message = format!("the NICs of the persona `{}` do not match those of the server `{}`", persona.name, server.name);
            let fault = Fault::error(codes::NICS_DO_NOT_MATCH, At::value(binding.item, path), message).label(error.to_string());
            let fault = fault.also("the persona's NICs", At::key(persona.item, steps!["spec", "nics"]));
            return lay.faults.push(fault.also("the server's NICs", At::key(server.item, steps!["spec", "nics"])).hint(error.hint()));
        }
    };
    for (nic_index, nic) in persona.spec.nics.iter().enumerate() {
        let places = plugged(server.spec);
        let on = places.into_iter().filter(|(place, ..)| matched.get(&nic.name) == Some(*place));
        for (_, switch, port, port_path) in on {
            let untagged = nic.untagged.iter().map(|n| (n, steps!["spec", "nics", nic_index, "untagged"]));
            let tagged = nic.tagged.iter().enumerate().map(|(t, n)| (n, steps!["spec", "nics", nic_index, "tagged", t]));
            for (network, path) in untagged.chain(tagged) {
                let at = At::value(persona.item, path);
                let plug = (
                    At::value(server.item, port_path.clone()),
                    format!("`{switch}/{port}`, where `{}` has it on `{}`", binding.name, server.name),
                );
                carry(lay, (network, at), switch, Some(plug), used);
            }
        }
    }
}

/// A network is needed on a switch: under which VLAN id, and may it be?
fn carry<'a>(lay: &mut Lay<'a>, (network, at): (&'a Name, At), switch: &'a Name, plug: Option<(At, String)>, used: &mut Used<'a>) {
    let (Some(network), Some(switch)) = (lay.network(network), lay.switch(switch)) else { return };
    if !network.whole {
        return;
    }
    let vlan = network.spec.vlan_on(&switch.object.meta.labels);
    used.entry((switch.name, vlan)).or_default().entry(network.name).or_insert_with(|| vlan_place(&network, &switch.object.meta.labels));
    if let Some(index) = switch.spec.protected_vlans.iter().position(|v| *v == vlan) {
        let message = format!("the network `{}` has the VLAN {vlan} on the switch `{}`, which protects it", network.name, switch.name);
        let mut fault = Fault::error(codes::PROTECTED_VLAN, at, message).label("needed here");
        fault = fault.also("`protectedVlans`", At::value(switch.item, steps!["spec", "protectedVlans", index]));
        if let Some((at, what)) = plug {
            fault = fault.also(what, at);
        }
        if !lay.faults.iter().any(|f| f.code == fault.code && f.at == fault.at && f.message == fault.message) {
            lay.faults.push(fault.hint("give the network another VLAN id there (`segments`), or take it out of `protectedVlans`"));
        }
    }
}

fn vlan_place(network: &Of<'_, NetworkSpec>, labels: &BTreeMap<String, String>) -> At {
    let segment = network.spec.segments.iter().position(|s| s.switches.matches(labels));
    At::value(network.item, segment.map_or_else(|| steps!["spec", "vlan"], |i| steps!["spec", "segments", i, "vlan"]))
}

/// Released ports end in the quarantine: it is needed on every switch of which ports are written.
fn quarantine<'a>(lay: &mut Lay<'a>, used: &mut Used<'a>) {
    let networks = lay.networks();
    let Some(network) = networks.iter().find(|n| n.spec.role == Role::Quarantine) else { return };
    for switch in lay.switches().into_iter().filter(|s| s.spec.manage.is_some()) {
        let at = vlan_place(network, &switch.object.meta.labels);
        carry(lay, (network.name, at), switch.name, None, used);
    }
}

fn collisions(lay: &mut Lay<'_>, used: &Used<'_>) {
    let mut told: BTreeSet<(&Name, &Name)> = BTreeSet::new();
    for ((switch, vlan), networks) in used {
        let mut networks = networks.iter();
        let Some((first, first_at)) = networks.next() else { continue };
        for (second, at) in networks {
            if !told.insert((first, second)) {
                continue;
            }
            // The later one is at fault.
            let (one, two) = if at > first_at { ((second, at), (first, first_at)) } else { ((first, first_at), (second, at)) };
            let message = format!("the networks `{first}` and `{second}` are both VLAN {vlan} on the switch `{switch}`");
            let fault = Fault::error(codes::VLAN_COLLISION, one.1.clone(), message).label(format!("`{}` has it here", one.0));
            let fault = fault.also(format!("`{}`", two.0), two.1.clone());
            lay.faults.push(fault.hint("they would be one network there: change one of the ids, for all switches or in `segments`"));
        }
    }
}
