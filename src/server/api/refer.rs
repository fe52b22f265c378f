//! Who refers to whom: what a deletion must not leave hanging. Leaves out: whether a reference resolves (`manifest::lint`).
//!
//! Invariant: every field of the model that names another object is listed here. Shown by `tests/api.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Kind, Name, Object, Spec};

/// What an object refers to.
fn references(object: &Object) -> Vec<(Kind, &Name)> {
    match &object.spec {
        Spec::Policy(_) | Spec::Secret(_) | Spec::Network(_) => Vec::new(),
        Spec::Switch(s) => vec![(Kind::Secret, &s.snmp.secret_ref.name)],
        Spec::Server(s) => {
            let nics = s.nics.iter().filter_map(|n| n.switch.as_ref());
            let bonds = s.bonds.iter().flat_map(|b| b.attach.iter().map(|a| &a.switch));
            let switches = nics.chain(bonds).map(|n| (Kind::Switch, n));
            std::iter::once((Kind::Secret, &s.bmc.secret_ref.name)).chain(switches).collect()
        }
        Spec::Persona(s) => {
            let networks = s.nics.iter().flat_map(|n| n.untagged.iter().chain(&n.tagged)).map(|n| (Kind::Network, n));
            let chap = s.root.iscsi.iter().filter_map(|i| i.chap_secret_ref.as_ref()).map(|r| (Kind::Secret, &r.name));
            networks.chain(chap).collect()
        }
        Spec::Binding(s) => {
            let server = s.target.server.iter().map(|n| (Kind::Server, n));
            std::iter::once((Kind::Persona, &s.persona)).chain(server).collect()
        }
    }
}

/// Of what is to be deleted, that to which some of the others refer: a sentence each, in the order of kinds and names.
pub(super) fn held<'a>(deleted: &[(Kind, &Name)], others: impl Iterator<Item = &'a Object>) -> Vec<String> {
    let deleted: BTreeSet<(Kind, &Name)> = deleted.iter().copied().collect();
    let mut holders: BTreeMap<(Kind, &Name), BTreeSet<(Kind, &Name)>> = BTreeMap::new();
    for other in others {
        for one in references(other) {
            if let Some(found) = deleted.get(&one) {
                holders.entry(*found).or_default().insert((other.kind(), other.name()));
            }
        }
    }
    let sentence = |((kind, name), by): (&(Kind, &Name), &BTreeSet<(Kind, &Name)>)| {
        let names: Vec<String> = by.iter().map(|(kind, name)| format!("{kind}/{name}")).collect();
        format!("{kind}/{name} is not deleted: {} refer{} to it", names.join(", "), if by.len() == 1 { "s" } else { "" })
    };
    holders.iter().map(sentence).collect()
}
