//! Which Switch objects name one and the same switch, by another address or another port of it.
//!
//! Two owners of one port would write it in turns for ever. Leaves out: what is done about it (`absorb`), and BMCs, which are told apart by
//! their GUIDs alone (`Cache::same_guid`). Invariant: a poll that shows what the one before showed costs the same, however many switches there
//! are: others are compared only where something that one of them shows, or that is pinned, is not as it was.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Name;
use crate::model::identity::{Identity, Sameness};

/// Another Switch object that is the same switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    pub other: Name,
    pub shared: Identity,
    /// The other one shows it now; else it is what is remembered of it.
    pub is_shown: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Twins {
    shown: BTreeMap<Name, Identity>,
    pinned: BTreeMap<Name, Identity>,
    /// Who shows a source of identity, or has it pinned.
    holders: BTreeMap<String, BTreeSet<Name>>,
    /// Raised by whatever may make a twin or end one.
    version: u64,
    /// What was found of a switch, at which version.
    found: BTreeMap<Name, (u64, Option<Twin>)>,
}

impl Twins {
    pub(crate) fn shows(&mut self, switch: &Name, shown: &Identity) {
        if self.shown.get(switch) != Some(shown) {
            self.hold(switch, false);
            self.shown.insert(switch.clone(), shown.clone());
            self.hold(switch, true);
        }
    }

    pub(crate) fn is_pinned(&mut self, switch: &Name, pin: &Identity) {
        if self.pinned.get(switch) != Some(pin) {
            self.hold(switch, false);
            self.pinned.insert(switch.clone(), pin.clone());
            self.hold(switch, true);
        }
    }

    /// It is asked anew, elsewhere or not at all: what it showed was perhaps another one. What is pinned stays, as it does in the store.
    pub(crate) fn forget(&mut self, switch: &Name) {
        self.hold(switch, false);
        self.shown.remove(switch);
        self.found.remove(switch);
        self.hold(switch, true);
    }

    /// A Switch object came or went.
    pub(crate) fn look_again(&mut self) {
        self.version += 1;
    }

    /// One that is the same switch, of those that there still are.
    pub(crate) fn of(&mut self, switch: &Name, exists: impl Fn(&Name) -> bool) -> Option<Twin> {
        if let Some((_, twin)) = self.found.get(switch).filter(|(version, _)| *version == self.version) {
            return twin.clone();
        }
        let sources = self.sources(switch);
        let holders = sources.iter().filter_map(|source| self.holders.get(source)).flatten();
        let others: BTreeSet<&Name> = holders.filter(|other| *other != switch && exists(other)).collect();
        let twin = others.into_iter().find_map(|other| self.twin(switch, other));
        self.found.insert(switch.clone(), (self.version, twin.clone()));
        twin
    }

    fn twin(&self, switch: &Name, other: &Name) -> Option<Twin> {
        let (shown, pinned) = (self.shown.get(switch), self.pinned.get(switch));
        let (other_shown, other_pinned) = (self.shown.get(other), self.pinned.get(other));
        let is_same = |a: &Identity, b: &Identity| a.compare(b) == Sameness::Same;
        // Where another one answers than is remembered, what is remembered is somewhere else.
        let moved =
            other_pinned.zip(other_shown).is_some_and(|(pinned, shown)| matches!(pinned.compare(shown), Sameness::Different { .. }));
        let of_pin = shown.zip(other_pinned.filter(|_| !moved)).map(|pair| (pair, false));
        let pairs = [shown.zip(other_shown).map(|pair| (pair, true)), pinned.zip(other_shown).map(|pair| (pair, true)), of_pin];
        let ((mine, theirs), is_shown) = pairs.into_iter().flatten().find(|((mine, theirs), _)| is_same(mine, theirs))?;
        Some(Twin { other: other.clone(), shared: mine.shared(theirs), is_shown })
    }

    fn sources(&self, switch: &Name) -> BTreeSet<String> {
        let of = |all: &BTreeMap<Name, Identity>| all.get(switch).map(Identity::sources).unwrap_or_default();
        of(&self.shown).into_iter().chain(of(&self.pinned)).collect()
    }

    fn hold(&mut self, switch: &Name, is: bool) {
        self.version += 1;
        for source in self.sources(switch) {
            let holders = self.holders.entry(source.clone()).or_default();
            match is {
                true => drop(holders.insert(switch.clone())),
                false => drop(holders.remove(switch)),
            }
            if holders.is_empty() {
                self.holders.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn identity(serials: &[&str], engine: &str, base: &str) -> Identity {
        let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Identity {
            serials: serials.iter().map(|s| (*s).to_owned()).collect(),
            engine: told(engine),
            base: told(base),
            ..Identity::default()
        }
    }

    fn pair(a: &Identity, b: &Identity) -> Twins {
        let mut twins = Twins::default();
        twins.shows(&name("a"), a);
        twins.shows(&name("b"), b);
        twins
    }

    fn other_of(twins: &mut Twins, switch: &str) -> Option<String> {
        twins.of(&name(switch), |_| true).map(|twin| twin.other.to_string())
    }

    #[test]
    fn one_switch_is_known_by_a_source_that_is_equal_where_none_differs() {
        let is_one = |a: &Identity, b: &Identity| {
            let mut twins = pair(a, b);
            let found = (other_of(&mut twins, "a").is_some(), other_of(&mut twins, "b").is_some());
            assert_eq!(found.0, found.1, "{a} and {b}");
            found.0
        };
        assert!(is_one(&identity(&["1", "2"], "", ""), &identity(&["2", "3"], "", "")), "a stack");
        assert!(is_one(&identity(&[], "", "0a"), &identity(&[], "", "0a")));
        assert!(is_one(&identity(&["1"], "80", ""), &identity(&[], "80", "0a")), "nothing but the engine is told by both");
        assert!(!is_one(&identity(&["1"], "80", ""), &identity(&["2"], "80", "")), "cloned engines");
        assert!(!is_one(&identity(&["none"], "", "0a"), &identity(&["none"], "", "0b")), "a serial number that says nothing");
        assert!(!is_one(&identity(&["1"], "", ""), &identity(&[], "80", "0a")), "nothing is told by both");
    }

    #[test]
    fn what_is_remembered_of_a_silent_one_counts_and_what_is_forgotten_does_not() {
        let (a, b) = (name("a"), name("b"));
        let mut twins = Twins::default();
        twins.is_pinned(&b, &identity(&["1"], "", ""));
        twins.shows(&a, &identity(&["1"], "", ""));
        let twin = twins.of(&a, |_| true).unwrap();
        assert_eq!((twin.other, twin.is_shown), (b.clone(), false));
        // Another one answers there: what is remembered of it has moved here.
        twins.shows(&b, &identity(&["2"], "", ""));
        assert_eq!(other_of(&mut twins, "a"), None);
        twins.shows(&b, &identity(&["1"], "", ""));
        assert_eq!(other_of(&mut twins, "a").as_deref(), Some("b"));
        twins.look_again();
        assert_eq!(twins.of(&a, |_| false), None, "its object is gone");
        twins.look_again();
        twins.forget(&b);
        twins.is_pinned(&b, &identity(&["3"], "", ""));
        assert_eq!(other_of(&mut twins, "a"), None);
        assert_eq!(twins.holders.len(), 2, "nothing is kept of what nobody shows");
    }
}
