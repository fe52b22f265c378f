//! The keys of the store: how they are built, and how they are read back. Everything else treats keys as opaque.
//!
//! Leaves out: what the values mean. Invariant: `parse` of a built key gives back what it was built from, and two different things never
//! share a key (the tests below). Names cannot hold `/`, and ids are refused by `parse` where they do.

use std::fmt::Display;

use crate::model::{Kind, Name};

/// What people desired state: one object each.
pub const OBJECTS: &str = "objects/";
/// What is stored about a server's body: claims, evidence, intents of destructive operations.
pub const BODIES: &str = "bodies/";
/// Approvals of what a binding's plan would disrupt.
pub const APPROVALS: &str = "approvals/";
pub const PAUSES: &str = "pauses/";
/// Changes that wait for a person, such as mass changes.
/// Identities that devices had when they were first seen, or accepted.
pub const PINS: &str = "pins/";

/// What the store says of itself.
pub const META: &str = "meta/";
/// A random name, given once.
pub const ID: &str = "meta/id";
/// How many transactions of records there were, in decimal.
pub const SEQ: &str = "meta/seq";

pub fn object(kind: Kind, name: &Name) -> String {
    format!("{OBJECTS}{}/{name}", kind.plural())
}

/// All objects of one kind.
pub fn objects(kind: Kind) -> String {
    format!("{OBJECTS}{}/", kind.plural())
}

pub fn body(server: &Name) -> String {
    format!("{BODIES}{server}")
}

pub fn approval(binding: &Name) -> String {
    format!("{APPROVALS}{binding}")
}

pub fn pause(id: impl Display) -> String {
    format!("{PAUSES}{id}")
}

pub fn pin(kind: Kind, name: &Name) -> String {
    format!("{PINS}{}/{name}", kind.plural())
}

/// A key, read back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Object(Kind, Name),
    Body(Name),
    Approval(Name),
    Pause(String),
    Pin(Kind, Name),
}

impl Key {
    /// Nothing where the key is none of ours (one written by a newer version, for example).
    pub fn parse(key: &str) -> Option<Key> {
        let kind_and_name = |rest: &str| {
            let (plural, name) = rest.split_once('/')?;
            let kind = crate::model::kind::KINDS.into_iter().find(|k| k.plural() == plural)?;
            Some((kind, name.parse::<Name>().ok()?))
        };
        let id = |rest: &str| (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned());
        if let Some(rest) = key.strip_prefix(OBJECTS) {
            kind_and_name(rest).map(|(kind, name)| Key::Object(kind, name))
        } else if let Some(rest) = key.strip_prefix(BODIES) {
            rest.parse().ok().map(Key::Body)
        } else if let Some(rest) = key.strip_prefix(APPROVALS) {
            rest.parse().ok().map(Key::Approval)
        } else if let Some(rest) = key.strip_prefix(PAUSES) {
            id(rest).map(Key::Pause)
        } else if let Some(rest) = key.strip_prefix(PINS) {
            kind_and_name(rest).map(|(kind, name)| Key::Pin(kind, name))
        } else {
            None
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&match self {
            Key::Object(kind, name) => object(*kind, name),
            Key::Body(server) => body(server),
            Key::Approval(binding) => approval(binding),
            Key::Pause(id) => pause(id),
            Key::Pin(kind, name) => pin(*kind, name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kind::KINDS;

    #[test]
    fn what_is_built_is_read_back() {
        let name: Name = "web-1.rack2".parse().unwrap();
        let mut keys = vec![Key::Body(name.clone()), Key::Approval(name.clone()), Key::Pause("everything".into())];
        keys.extend(KINDS.map(|kind| Key::Object(kind, name.clone())));
        keys.extend(KINDS.map(|kind| Key::Pin(kind, name.clone())));
        let texts: std::collections::BTreeSet<String> = keys.iter().map(Key::to_string).collect();
        assert_eq!(texts.len(), keys.len());
        for key in keys {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        assert_eq!(object(Kind::Policy, &name), "objects/policies/web-1.rack2");
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        for alien in
            ["", "objects/", "objects/servers", "objects/servers/A", "objects/Server/a", "bodies/a/b", "pauses/", "pauses/a/b", "x/y"]
        {
            assert_eq!(Key::parse(alien), None, "{alien}");
        }
    }
}
