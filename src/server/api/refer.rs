//! What a deletion must not leave hanging. Leaves out: who names whom (`model::references`). Shown by `tests/api.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::references;
use crate::model::{Kind, Name, Object};

/// Of what is to be deleted, that to which some of the others refer: a sentence each, in the order of kinds and names.
pub(super) fn held<'a>(deleted: &[(Kind, &Name)], others: impl Iterator<Item = &'a Object>) -> Vec<String> {
    let deleted: BTreeSet<(Kind, &Name)> = deleted.iter().copied().collect();
    let mut holders: BTreeMap<(Kind, &Name), BTreeSet<(Kind, &Name)>> = BTreeMap::new();
    for other in others {
        for one in references::of(&other.spec).iter().map(|reference| (reference.kind, reference.name)) {
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
