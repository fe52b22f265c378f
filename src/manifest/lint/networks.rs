//! Addresses, roots and names that personas and bindings must not share, and networks that are one on a switch.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Claim, Lay, Of};
use crate::manifest::codes;
use crate::manifest::fault::{At, Fault, steps};
use crate::manifest::validate::usable;
use crate::manifest::yaml::Step;
use crate::model::binding::BindingNic;
use crate::model::claim::{self, ClaimIndex, SharedRoot};
use crate::model::network::Role;
use crate::model::persona::PersonaNic;
use crate::model::{Kind, Name, PersonaSpec};

pub(super) fn lint(lay: &mut Lay<'_>) {
    quarantines(lay);
    not_carried(lay);
    addresses(lay);
    roots(lay);
    shared_identity(lay);
}

fn quarantines(lay: &mut Lay<'_>) {
    let networks = lay.networks();
    let of_role = networks.iter().filter(|n| n.spec.role == Role::Quarantine);
    let claims = of_role.map(|n| ((), Claim { who: n.name.to_string(), at: At::value(n.item, steps!["spec", "role"]) })).collect();
    lay.clash(claims, |(), claim, _| {
        let fault = Fault::error(codes::SEVERAL_QUARANTINES, claim.at.clone(), "two networks have the role quarantine");
        Some(fault.label(format!("`{}` has it here", claim.who)).hint("keep one; `segments` give it other VLAN ids on other switches"))
    });
}

/// A fixed address: where it stands, on which network, whose it is.
struct Fixed<'a> {
    address: IpNet,
    network: Option<&'a Name>,
    /// The persona, of whichever object the address stands in.
    persona: &'a Name,
    claim: Claim,
}

/// Those of one NIC. `nic`: as the persona has it, where that is known.
fn of_nic<'a>(
    (item, owner, persona): (usize, &Name, &'a Name),
    (n, name): (usize, &Name),
    (address, tagged): (Option<IpNet>, &'a BTreeMap<Name, IpNet>),
    nic: Option<&'a PersonaNic>,
) -> Vec<Fixed<'a>> {
    let path = steps!["spec", "nics", n];
    let claim = |field: Vec<Step>| Claim { who: format!("{owner}/{name}"), at: At::value(item, [path.clone(), field].concat()) };
    let network = nic.and_then(|nic| nic.untagged.as_ref());
    let untagged = address.map(|address| Fixed { address, network, persona, claim: claim(steps!["address"]) });
    let tagged = tagged.iter().map(|(network, address)| {
        let claim = claim(steps!["taggedAddresses", network.as_str()]);
        Fixed { address: *address, network: Some(network), persona, claim }
    });
    untagged.into_iter().chain(tagged).collect()
}

fn fixed<'a>(lay: &Lay<'a>) -> Vec<Fixed<'a>> {
    let mut found = Vec::new();
    for persona in lay.personas() {
        for (n, nic) in persona.spec.nics.iter().enumerate() {
            let said = (nic.address, &nic.tagged_addresses);
            found.extend(of_nic((persona.item, persona.name, persona.name), (n, &nic.name), said, Some(nic)));
        }
    }
    for binding in lay.bindings() {
        let persona = lay.persona(&binding.spec.persona);
        for (n, own) in binding.spec.nics.iter().enumerate() {
            let nic = persona.as_ref().and_then(|persona| persona.spec.nics.iter().find(|nic| nic.name == own.name));
            let said = (own.address, &own.tagged_addresses);
            found.extend(of_nic((binding.item, binding.name, &binding.spec.persona), (n, &own.name), said, nic));
        }
    }
    found
}

/// An address on a network that the persona's NIC does not carry.
fn not_carried(lay: &mut Lay<'_>) {
    for binding in lay.bindings() {
        let Some(persona) = lay.persona(&binding.spec.persona) else { continue };
        for (n, own) in binding.spec.nics.iter().enumerate() {
            let Some((p, nic)) = persona.spec.nics.iter().enumerate().find(|(_, nic)| nic.name == own.name) else { continue };
            for network in own.tagged_addresses.keys().filter(|network| !nic.tagged.contains(network)) {
                let at = At::value(binding.item, steps!["spec", "nics", n, "taggedAddresses", network.as_str()]);
                let fault = Fault::error(codes::BAD_VALUE, at, "an address on a network that is not on this NIC");
                let fault = fault.label(format!("the persona `{}` has not `{network}` in `tagged` there", persona.name));
                lay.faults.push(fault.also("the NIC", At::value(persona.item, steps!["spec", "nics", p])));
            }
        }
    }
}

fn addresses(lay: &mut Lay<'_>) {
    let all = fixed(lay);
    for one in &all {
        outside(lay, one);
        in_range(lay, one);
    }
    // On whichever network: a body claims the address alone.
    let mut owners: BTreeMap<IpAddr, Vec<&Fixed<'_>>> = BTreeMap::new();
    for one in &all {
        owners.entry(claim::bare(one.address.addr())).or_default().push(one);
    }
    for (address, of) in owners {
        for (index, one) in of.iter().enumerate() {
            let Some(other) = of[..index].iter().find(|o| twice(lay, o, one)) else { continue };
            let fault = Fault::error(codes::ADDRESS_TWICE, one.claim.at.clone(), format!("the address {address} is given twice"));
            let fault = fault.label(format!("to `{}` here", one.claim.who));
            lay.faults.push(fault.also(format!("`{}`", other.claim.who), other.claim.at.clone()));
        }
    }
}

/// A binding may repeat the address of its own persona.
fn twice(lay: &Lay<'_>, a: &Fixed<'_>, b: &Fixed<'_>) -> bool {
    let own = lay.find(Kind::Persona, a.persona).map(|(item, _)| item);
    a.persona != b.persona || own.is_none_or(|item| item != a.claim.at.item && item != b.claim.at.item)
}

/// An address against the subnets of its network: that of the network, or of one of its segments.
fn outside(lay: &mut Lay<'_>, one: &Fixed<'_>) {
    let Some(network) = one.network.and_then(|n| lay.network(n)).filter(|n| n.whole) else { return };
    let segments = network.spec.segments.iter().enumerate();
    let places = std::iter::once((network.spec.subnet, network.spec.gateway, steps!["spec", "subnet"]))
        .chain(segments.map(|(i, s)| (s.subnet, s.gateway, steps!["spec", "segments", i, "subnet"])));
    let subnets: Vec<_> = places.filter_map(|(subnet, gateway, path)| subnet.map(|s| (s, gateway, path))).collect();
    let Some((first, ..)) = subnets.first() else { return };
    let address = one.address.addr();
    let place = |path: &Vec<_>| At::value(network.item, path.clone());
    let error = |code, message: String| Fault::error(code, one.claim.at.clone(), message);
    let fault = match subnets.iter().find(|(s, ..)| s.contains(&address)) {
        None => {
            let fault = error(codes::ADDRESS_OUTSIDE_SUBNET, format!("{address} is not in the subnet of the network `{}`", network.name));
            let expected = subnets.iter().map(|(s, ..)| s.to_string()).collect::<Vec<_>>().join(" or ");
            fault.label(format!("expected an address in {expected}")).also(format!("subnet {first}"), place(&subnets[0].2))
        }
        Some((subnet, _, path)) if !usable(*subnet, address) => {
            let fault = error(codes::ADDRESS_OUTSIDE_SUBNET, format!("no host can have {address} in {subnet}"));
            fault.label("the subnet's own or its broadcast address").also(format!("subnet {subnet}"), place(path))
        }
        Some((subnet, _, path)) if subnet.prefix_len() != one.address.prefix_len() => {
            let fault = error(
                codes::ADDRESS_OUTSIDE_SUBNET,
                format!("{} has not the prefix length of the network `{}`", one.address, network.name),
            );
            fault.label(format!("expected {address}/{}", subnet.prefix_len())).also(format!("subnet {subnet}"), place(path))
        }
        Some((subnet, Some(gateway), path)) if *gateway == address => {
            let fault = error(codes::ADDRESS_TWICE, format!("{address} is the gateway of the network `{}`", network.name));
            fault.label(format!("to `{}` here", one.claim.who)).also(format!("gateway of {subnet}"), place(path))
        }
        Some(_) => return,
    };
    lay.faults.push(fault);
}

/// A fixed address against the ranges out of which machines of its network are given theirs.
fn in_range(lay: &mut Lay<'_>, one: &Fixed<'_>) {
    let (Some(network), IpAddr::V4(address)) = (one.network.and_then(|n| lay.network(n)), one.address.addr()) else { return };
    let segments = network.spec.segments.iter().enumerate();
    let ranges = std::iter::once((network.spec.boot.as_ref(), steps!["spec", "boot", "range"]))
        .chain(segments.map(|(i, s)| (s.boot.as_ref(), steps!["spec", "segments", i, "boot", "range"])));
    let mut ranges = ranges.filter_map(|(boot, path)| Some((boot?.range?, path)));
    let Some((range, path)) = ranges.find(|(range, _)| range.contains(address)) else { return };
    let message = format!("{address} is in the range out of which machines of the network `{}` are given addresses", network.name);
    let fault = Fault::error(codes::ADDRESS_IN_RANGE, one.claim.at.clone(), message).label("another machine may have it");
    lay.faults
        .push(fault.also(format!("range {range}"), At::value(network.item, path)).hint("choose one outside the range, or a smaller range"));
}

/// Personas that share a root which one of them writes, or that write one inside the other's.
fn roots(lay: &mut Lay<'_>) {
    let mut users: Vec<(Of<'_, PersonaSpec>, SharedRoot)> =
        lay.personas().into_iter().filter_map(|persona| claim::root(persona.spec).map(|root| (persona, root))).collect();
    users.sort_by_key(|(persona, _)| (lay.known[persona.item].is_some_and(|known| known.changed), persona.item));
    let mut earlier = ClaimIndex::default();
    for (n, (persona, root)) in users.iter().enumerate() {
        let clashes = |(_, other): &&(Of<'_, PersonaSpec>, SharedRoot)| match other.claim == root.claim {
            true => other.written || root.written,
            false => other.written && root.written,
        };
        let overlapping = earlier.overlapping(&root.claim);
        earlier.insert(&root.claim, &n);
        let Some((other, theirs)) = overlapping.iter().filter_map(|m| users.get(*m)).find(clashes) else { continue };
        let at = |item, field: &'static str| At::value(item, steps!["spec", "root", field]);
        let (message, hint) = match theirs.claim == root.claim {
            true => ("two personas have one root, and it is written", "give each its own, or use `mode: overlay` in all that share it"),
            false => (
                "two personas write roots that may be one inside the other",
                "give each a directory of its own; name one NFS server in one way (a name and an address may be the same)",
            ),
        };
        let fault = Fault::error(codes::ROOT_SHARED, at(persona.item, root.field), message);
        let fault = fault.label(format!("`{}` has it here", persona.name));
        lay.faults.push(fault.also(format!("`{}`", other.name), at(other.item, theirs.field)).hint(hint));
    }
}

/// What is fixed in a persona that is not exclusive, once two bindings use it.
fn shared_identity(lay: &mut Lay<'_>) {
    let mut by_persona: BTreeMap<&Name, Vec<Of<'_, crate::model::BindingSpec>>> = BTreeMap::new();
    for binding in lay.bindings() {
        by_persona.entry(&binding.spec.persona).or_default().push(binding);
    }
    for persona in lay.personas().into_iter().filter(|p| !p.spec.is_exclusive()) {
        let users = by_persona.remove(persona.name).unwrap_or_default();
        let mut fixed = Vec::new();
        for (n, nic) in persona.spec.nics.iter().enumerate() {
            // Those of whom the binding says no other.
            let sharing = |is_own: &dyn Fn(&BindingNic) -> bool| -> Vec<_> {
                users.iter().filter(|user| !user.spec.nics.iter().any(|own| own.name == nic.name && is_own(own))).collect()
            };
            let nics = steps!["spec", "nics", n];
            if nic.address.is_some() {
                let users = sharing(&|own| own.address.is_some());
                fixed.push((format!("address on NIC `{}`", nic.name), [nics.clone(), steps!["address"]].concat(), users));
            }
            for network in nic.tagged_addresses.keys() {
                let users = sharing(&|own| own.tagged_addresses.contains_key(network));
                let what = format!("address on NIC `{}` in the network `{network}`", nic.name);
                fixed.push((what, [nics.clone(), steps!["taggedAddresses", network.as_str()]].concat(), users));
            }
        }
        if persona.spec.root.iscsi.as_ref().is_some_and(|i| i.initiator.is_some()) {
            fixed.push(("initiator name".to_owned(), steps!["spec", "root", "iscsi", "initiator"], users.iter().collect()));
        }
        for (what, path, users) in fixed {
            let [first, second, ..] = users.as_slice() else { continue };
            let at = |item| At::value(item, steps!["spec", "persona"]);
            let message = format!("the persona `{}` has a fixed {what}, and several bindings use it", persona.name);
            let fault =
                Fault::error(codes::FIXED_IDENTITY_SHARED, At::value(persona.item, path), message).label("all its bodies would have this");
            let fault = fault.also(format!("`{}`", first.name), at(first.item)).also(format!("`{}`", second.name), at(second.item));
            lay.faults.push(
                fault.hint("leave it out here; a binding's `nics` give addresses, and each binding gets an initiator name of its own"),
            );
        }
    }
}
