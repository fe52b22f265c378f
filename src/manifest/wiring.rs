//! Which server NIC (or bond) each of a persona's NICs is on. One pure function, for lint, the planner and status alike.
//!
//! Rules, in this order: the binding's `interface`; the persona's boot NIC on the server's boot NIC; equal names; one left on each side.
//! Anything else is an error. Invariant: the order of a list never decides (`the_order_of_lists_never_decides`). A member of a bond
//! is not matched by itself: the bond is.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{BindingSpec, Name, PersonaSpec, ServerSpec};

/// Why a persona's NICs have no place, or no certain one, on a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WiringError {
    #[error("the binding names NIC `{nic}`, which the persona does not have")]
    NoPersonaNic { nic: Name, known: Vec<Name> },
    #[error("the binding puts NIC `{nic}` on `{on}`, which the server does not have")]
    NoServerNic { nic: Name, on: Name, known: Vec<Name> },
    #[error("the binding puts NIC `{nic}` on `{on}`, a member of the bond `{bond}`")]
    BondMember { nic: Name, on: Name, bond: Name },
    #[error("the binding names NIC `{nic}` twice")]
    NamedTwice { nic: Name },
    #[error("the binding puts both `{first}` and `{second}` on `{on}`")]
    OneForTwo { first: Name, second: Name, on: Name },
    #[error("the persona boots over NIC `{nic}`, and the binding puts `{other}` on the server's boot NIC `{on}`")]
    BootTaken { nic: Name, other: Name, on: Name },
    #[error("no place is certain for the persona's {}: the server has {} left", list(.left), if .free.is_empty() { "none".to_owned() } else { list(.free) })]
    TooFew { left: Vec<Name>, free: Vec<Name> },
    #[error("it is not certain where the persona's {} belongs: the server has {} left", list(.left), list(.free))]
    Ambiguous { left: Vec<Name>, free: Vec<Name> },
}

fn list(names: &[Name]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

impl WiringError {
    /// What a person can do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            WiringError::NoPersonaNic { known, .. } if known.is_empty() => "the persona has no NICs".to_owned(),
            WiringError::NoPersonaNic { known, .. } => format!("the persona has {}", list(known)),
            WiringError::NoServerNic { known, .. } if known.is_empty() => "the server has no NICs".to_owned(),
            WiringError::NoServerNic { known, .. } => format!("the server has {}", list(known)),
            WiringError::BondMember { nic, bond, .. } => {
                format!("write `{{ name: {nic}, interface: {bond} }}`: VLANs go to the aggregation")
            }
            WiringError::NamedTwice { nic } => format!("keep one entry for `{nic}` in the binding's `nics`"),
            WiringError::OneForTwo { second, .. } => format!("give `{second}` another `interface`"),
            WiringError::BootTaken { nic, .. } => {
                format!("name a place for `{nic}` as well: `nics: [ {{ name: {nic}, interface: ... }} ]`")
            }
            WiringError::TooFew { .. } => "choose a server with more NICs, or declare those that it has".to_owned(),
            WiringError::Ambiguous { left, free } => match (left.first(), free.first()) {
                (Some(nic), Some(on)) => format!("name them in the binding: `nics: [ {{ name: {nic}, interface: {on} }} ]`"),
                _ => "name them in the binding's `nics`".to_owned(),
            },
        }
    }

    /// The NIC of the binding's `nics` that is at fault, where it is one of them.
    pub(crate) fn binding_nic(&self) -> Option<&Name> {
        match self {
            WiringError::NoPersonaNic { nic, .. }
            | WiringError::NoServerNic { nic, .. }
            | WiringError::BondMember { nic, .. }
            | WiringError::NamedTwice { nic } => Some(nic),
            WiringError::OneForTwo { second, .. } => Some(second),
            WiringError::BootTaken { other, .. } => Some(other),
            WiringError::TooFew { .. } | WiringError::Ambiguous { .. } => None,
        }
    }
}

/// The persona's NICs, each with the server's NIC or bond that it is on.
pub(crate) fn match_nics(server: &ServerSpec, persona: &PersonaSpec, binding: &BindingSpec) -> Result<BTreeMap<Name, Name>, WiringError> {
    let bond_of: BTreeMap<&Name, &Name> = server.bonds.iter().flat_map(|b| b.members.iter().map(move |m| (m, &b.name))).collect();
    let places: BTreeSet<&Name> =
        server.nics.iter().map(|n| &n.name).filter(|n| !bond_of.contains_key(n)).chain(server.bonds.iter().map(|b| &b.name)).collect();
    let wanted: BTreeSet<&Name> = persona.nics.iter().map(|n| &n.name).collect();
    let mut found = named_by_binding(binding, &wanted, &places, &bond_of)?;
    place_boot(server, persona, &bond_of, &mut found)?;
    let taken = |found: &BTreeMap<Name, Name>, place: &Name| found.values().any(|p| p == place);
    for nic in &wanted {
        if !found.contains_key(*nic) && places.contains(nic) && !taken(&found, nic) {
            found.insert((*nic).clone(), (*nic).clone());
        }
    }
    let left: Vec<Name> = wanted.iter().filter(|n| !found.contains_key(**n)).map(|n| (*n).clone()).collect();
    let free: Vec<Name> = places.iter().filter(|p| !taken(&found, p)).map(|p| (*p).clone()).collect();
    match (left.as_slice(), free.as_slice()) {
        ([], _) => Ok(found),
        ([nic], [place]) => {
            found.insert(nic.clone(), place.clone());
            Ok(found)
        }
        (l, f) if l.len() > f.len() => Err(WiringError::TooFew { left, free }),
        _ => Err(WiringError::Ambiguous { left, free }),
    }
}

/// Rule 1, and the sanity of every entry of the binding's `nics`.
fn named_by_binding(
    binding: &BindingSpec,
    wanted: &BTreeSet<&Name>,
    places: &BTreeSet<&Name>,
    bond_of: &BTreeMap<&Name, &Name>,
) -> Result<BTreeMap<Name, Name>, WiringError> {
    let known = |set: &BTreeSet<&Name>| set.iter().map(|n| (*n).clone()).collect();
    let (mut found, mut seen): (BTreeMap<Name, Name>, BTreeSet<&Name>) = Default::default();
    for entry in &binding.nics {
        let nic = &entry.name;
        if !wanted.contains(nic) {
            return Err(WiringError::NoPersonaNic { nic: nic.clone(), known: known(wanted) });
        }
        if !seen.insert(nic) {
            return Err(WiringError::NamedTwice { nic: nic.clone() });
        }
        let Some(on) = &entry.interface else { continue };
        if let Some(bond) = bond_of.get(on) {
            return Err(WiringError::BondMember { nic: nic.clone(), on: on.clone(), bond: (*bond).clone() });
        }
        if !places.contains(on) {
            return Err(WiringError::NoServerNic { nic: nic.clone(), on: on.clone(), known: known(places) });
        }
        if let Some((first, _)) = found.iter().find(|(_, p)| *p == on) {
            return Err(WiringError::OneForTwo { first: first.clone(), second: nic.clone(), on: on.clone() });
        }
        found.insert(nic.clone(), on.clone());
    }
    Ok(found)
}

/// Rule 2. Where the server's boot NIC is a bond's member, the bond is meant.
fn place_boot(
    server: &ServerSpec,
    persona: &PersonaSpec,
    bond_of: &BTreeMap<&Name, &Name>,
    found: &mut BTreeMap<Name, Name>,
) -> Result<(), WiringError> {
    let Some(nic) = persona.nics.iter().find(|n| n.boot).map(|n| &n.name).filter(|n| !found.contains_key(*n)) else { return Ok(()) };
    let Some(boot) = server.nics.iter().find(|n| n.boot).map(|n| &n.name) else { return Ok(()) };
    let on = bond_of.get(boot).copied().unwrap_or(boot);
    if let Some((other, _)) = found.iter().find(|(_, p)| *p == on) {
        return Err(WiringError::BootTaken { nic: nic.clone(), other: other.clone(), on: on.clone() });
    }
    found.insert(nic.clone(), on.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn server(nics: Value, bonds: Value) -> ServerSpec {
        let mut nics = nics;
        for (i, nic) in nics.as_array_mut().unwrap().iter_mut().enumerate() {
            nic["mac"] = format!("02:00:00:00:00:{:02x}", i + 1).into();
        }
        let bmc = json!({ "address": "127.0.0.1", "secretRef": { "name": "s" } });
        serde_json::from_value(json!({ "bmc": bmc, "nics": nics, "bonds": bonds })).unwrap()
    }
    fn persona(nics: Value) -> PersonaSpec {
        serde_json::from_value(json!({ "os": { "family": "linux" }, "root": { "disk": {} }, "nics": nics })).unwrap()
    }
    fn matched(server: &ServerSpec, persona: &PersonaSpec, on: Value) -> Result<Vec<(String, String)>, WiringError> {
        let binding = serde_json::from_value(json!({ "persona": "p", "target": {}, "nics": on })).unwrap();
        let pairs = match_nics(server, persona, &binding)?;
        Ok(pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect())
    }
    fn pairs(list: &[(&str, &str)]) -> Result<Vec<(String, String)>, WiringError> {
        Ok(list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect())
    }

    #[test]
    fn each_rule_in_its_turn() {
        let three = server(json!([{ "name": "nic1", "boot": true }, { "name": "nic2" }, { "name": "nic3" }]), json!([]));
        let two = server(json!([{ "name": "nic1", "boot": true }, { "name": "nic2" }]), json!([]));
        let san_front = persona(json!([{ "name": "san", "boot": true }, { "name": "front" }]));
        assert_eq!(matched(&two, &san_front, json!([])), pairs(&[("front", "nic2"), ("san", "nic1")]));
        assert!(matches!(matched(&three, &san_front, json!([])), Err(WiringError::Ambiguous { .. })));
        let on3 = json!([{ "name": "front", "interface": "nic3" }]);
        assert_eq!(matched(&three, &san_front, on3), pairs(&[("front", "nic3"), ("san", "nic1")]));
        let swapped = persona(json!([{ "name": "nic2", "boot": true }, { "name": "nic1" }]));
        assert_eq!(matched(&two, &swapped, json!([])), pairs(&[("nic1", "nic2"), ("nic2", "nic1")]));
        assert_eq!(matched(&three, &persona(json!([{ "name": "nic3" }])), json!([])), pairs(&[("nic3", "nic3")]));
        assert_eq!(matched(&three, &persona(json!([])), json!([])), pairs(&[]));
    }

    #[test]
    fn a_bond_stands_for_its_members() {
        let nics = json!([{ "name": "nic1", "boot": true }, { "name": "nic2" }, { "name": "nic3" }]);
        let bonded = server(nics, json!([{ "name": "bond0", "members": ["nic2", "nic3"], "attach": [] }]));
        let san_front = persona(json!([{ "name": "san", "boot": true }, { "name": "front" }]));
        assert_eq!(matched(&bonded, &san_front, json!([])), pairs(&[("front", "bond0"), ("san", "nic1")]));
        let member = matched(&bonded, &san_front, json!([{ "name": "front", "interface": "nic2" }]));
        assert!(matches!(member, Err(WiringError::BondMember { .. })), "{member:?}");
    }

    #[test]
    fn what_a_binding_may_not_say() {
        let two = server(json!([{ "name": "nic1", "boot": true }, { "name": "nic2" }]), json!([]));
        let p = persona(json!([{ "name": "san", "boot": true }, { "name": "front" }]));
        let err = |on| matched(&two, &p, on).unwrap_err();
        assert!(matches!(err(json!([{ "name": "x" }])), WiringError::NoPersonaNic { .. }));
        assert!(matches!(err(json!([{ "name": "san", "interface": "nic9" }])), WiringError::NoServerNic { .. }));
        assert!(matches!(err(json!([{ "name": "san" }, { "name": "san" }])), WiringError::NamedTwice { .. }));
        assert!(matches!(err(json!([{ "name": "front", "interface": "nic1" }])), WiringError::BootTaken { .. }));
        assert!(matches!(
            err(json!([{ "name": "san", "interface": "nic1" }, { "name": "front", "interface": "nic1" }])),
            WiringError::OneForTwo { .. }
        ));
        let many = persona(json!([{ "name": "a" }, { "name": "b" }, { "name": "c" }]));
        let few = matched(&two, &many, json!([])).unwrap_err();
        assert_eq!(few.to_string(), "no place is certain for the persona's `a`, `b`, `c`: the server has `nic1`, `nic2` left");
    }

    proptest::proptest! {
        #[test]
        fn the_order_of_lists_never_decides(server_order in proptest::sample::subsequence((0..5usize).collect::<Vec<_>>(), 0..=5),
            persona_order in proptest::sample::subsequence((0..5usize).collect::<Vec<_>>(), 0..=4), boot in 0..5usize) {
            let nic = |prefix: &str, i: &usize| json!({ "name": format!("{prefix}{i}"), "boot": *i == boot });
            let build = |order: &[usize], kept: &[usize]| {
                let p = persona(order.iter().map(|i| nic(if i % 2 == 0 { "n" } else { "p" }, i)).collect());
                let mut s = server(kept.iter().map(|i| nic("n", i)).collect(), json!([]));
                s.nics.sort_by(|a, b| a.name.cmp(&b.name));
                (s, p)
            };
            let (s, p) = build(&persona_order, &server_order);
            let (mut s2, mut p2) = (s.clone(), p.clone());
            s2.nics.reverse();
            p2.nics.reverse();
            proptest::prop_assert_eq!(matched(&s, &p, json!([])), matched(&s2, &p2, json!([])));
        }
    }
}
