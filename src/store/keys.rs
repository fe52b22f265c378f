//! The keys of the store: how they are built, and how they are read back. Everything else treats keys as opaque.
//!
//! What only the acting controller writes lies under a format number, `records/2/`, apart from what people desire. The first version had it
//! without one: `Key::Old`. It would not see what lies here, and take every body for free: after an upgrade on etcd it must never run on that
//! prefix again (the embedded store refuses it by its own format). A change of what a record means needs the next number.
//!
//! Leaves out: what the values mean. Invariant: `parse` of a built key gives back what it was built from, and two different things never
//! share a key (the tests below). Names cannot hold `/`, and ids are refused by `parse` where they do.

use std::fmt::Display;
use std::net::Ipv4Addr;

use crate::model::image::ImageName;
use crate::model::{Kind, Name};

/// What people desire: one object each.
pub(crate) const OBJECTS: &str = "objects/";
/// What only the acting controller writes, of every format.
const RECORDS: &str = "records/";
/// Of this version's format.
pub const CURRENT: &str = "records/2/";
/// What is stored about a server's body: claims, evidence, intents of destructive operations.
pub(crate) const BODIES: &str = "records/2/bodies/";
/// Approvals of what a binding's plan would disrupt.
pub(crate) const APPROVALS: &str = "records/2/approvals/";
pub(crate) const PAUSES: &str = "records/2/pauses/";
/// Identities that devices had when they were first seen, or accepted.
pub(crate) const PINS: &str = "records/2/pins/";
/// Where credentials worked, by device.
pub(crate) const LOGINS: &str = "records/2/logins/";
/// Addresses that machines were given, by address.
pub(crate) const LEASES: &str = "records/2/leases/";
/// What images there are, by name and version.
pub(crate) const IMAGES: &str = "records/2/images/";
/// What signs the tokens of starts.
pub(crate) const SITE_KEY: &str = "records/2/site/key";
/// A person took a store that went backwards as it was, and not everything that was in doubt then is known by now.
pub(crate) const DOUBT: &str = "records/2/doubt/store";
/// The digests of what a directory of manifests held when it was applied. No record: it says nothing of devices.
pub(crate) const DIRECTORY: &str = "sources/directory";
/// What the store says of itself.
pub(crate) const META: &str = "meta/";
/// A random name, given once.
pub(crate) const ID: &str = "meta/id";
/// How many transactions of records there were, in decimal.
pub const SEQ: &str = "meta/seq";

pub(crate) fn object(kind: Kind, name: &Name) -> String {
    format!("{OBJECTS}{}/{name}", kind.plural())
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

pub(crate) fn login(kind: Kind, name: &Name) -> String {
    format!("{LOGINS}{}/{name}", kind.plural())
}

pub(crate) fn lease(address: Ipv4Addr) -> String {
    format!("{LEASES}{address}")
}

pub(crate) fn image(name: &ImageName) -> String {
    format!("{IMAGES}{name}")
}

/// A key, read back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Object(Kind, Name),
    Body(Name),
    Approval(Name),
    Pause(String),
    Pin(Kind, Name),
    Login(Kind, Name),
    Lease(Ipv4Addr),
    Image(ImageName),
    Signing,
    Doubt,
    /// A record where the first version had it; inside is what it is now.
    Old(Box<Key>),
}

impl Key {
    /// Nothing where the key is neither an object's nor a record's of a known format.
    pub(crate) fn parse(key: &str) -> Option<Key> {
        if let Some(rest) = key.strip_prefix(OBJECTS) {
            kind_and_name(rest).map(|(kind, name)| Key::Object(kind, name))
        } else if let Some(rest) = key.strip_prefix(CURRENT) {
            record(rest)
        } else {
            // It had neither of these.
            record(key)
                .filter(|record| !matches!(record, Key::Lease(_) | Key::Image(_) | Key::Signing))
                .map(|record| Key::Old(Box::new(record)))
        }
    }
}

/// Whether a newer version wrote this record: whoever cannot read it must not act beside it.
pub(crate) fn of_newer_version(key: &str) -> bool {
    key.starts_with(RECORDS) && !key.starts_with(CURRENT)
}

fn kind_and_name(rest: &str) -> Option<(Kind, Name)> {
    let (plural, name) = rest.split_once('/')?;
    let kind = crate::model::kind::KINDS.into_iter().find(|k| k.plural() == plural)?;
    Some((kind, name.parse::<Name>().ok()?))
}

/// What comes after the format number.
fn record(rest: &str) -> Option<Key> {
    let (what, rest) = rest.split_once('/')?;
    match what {
        "bodies" => rest.parse().ok().map(Key::Body),
        "approvals" => rest.parse().ok().map(Key::Approval),
        "pauses" => (!rest.is_empty() && !rest.contains('/')).then(|| Key::Pause(rest.to_owned())),
        "pins" => kind_and_name(rest).map(|(kind, name)| Key::Pin(kind, name)),
        "logins" => kind_and_name(rest).map(|(kind, name)| Key::Login(kind, name)),
        "leases" => rest.parse().ok().map(Key::Lease),
        "images" => rest.parse().ok().map(Key::Image),
        "site" => (rest == "key").then_some(Key::Signing),
        "doubt" => (rest == "store").then_some(Key::Doubt),
        _ => None,
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
            Key::Login(kind, name) => login(*kind, name),
            Key::Lease(address) => lease(*address),
            Key::Image(name) => image(name),
            Key::Signing => SITE_KEY.to_owned(),
            Key::Doubt => DOUBT.to_owned(),
            Key::Old(record) => record.to_string().replacen(CURRENT, "", 1),
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
        let mut keys = vec![Key::Body(name.clone()), Key::Approval(name.clone()), Key::Pause("everything".into()), Key::Doubt];
        keys.extend([Key::Signing, Key::Lease(Ipv4Addr::new(10, 1, 10, 7)), Key::Image("web:2026.11".parse().unwrap())]);
        keys.extend(KINDS.map(|kind| Key::Object(kind, name.clone())));
        keys.extend(KINDS.map(|kind| Key::Pin(kind, name.clone())));
        keys.extend(KINDS.map(|kind| Key::Login(kind, name.clone())));
        let records: Vec<Key> =
            keys.iter().filter(|key| !matches!(key, Key::Object(..) | Key::Lease(_) | Key::Image(_) | Key::Signing)).cloned().collect();
        keys.extend(records.into_iter().map(|record| Key::Old(Box::new(record))));
        let texts: std::collections::BTreeSet<String> = keys.iter().map(Key::to_string).collect();
        assert_eq!(texts.len(), keys.len());
        for key in keys {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        assert_eq!(object(Kind::Policy, &name), "objects/policies/web-1.rack2");
        assert_eq!(body(&name), "records/2/bodies/web-1.rack2");
    }

    #[test]
    fn the_first_versions_records_are_read_as_such() {
        let name: Name = "alpha".parse().unwrap();
        let old = |key: &str| match Key::parse(key) {
            Some(Key::Old(record)) => *record,
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(old("bodies/alpha"), Key::Body(name.clone()));
        assert_eq!(old("approvals/alpha"), Key::Approval(name.clone()));
        assert_eq!(old("pauses/everything"), Key::Pause("everything".into()));
        assert_eq!(old("pins/servers/alpha"), Key::Pin(Kind::Server, name));
    }

    #[test]
    fn a_newer_versions_records_are_known_for_what_they_are() {
        for (key, newer) in
            [("records/3/bodies/a", true), ("records/20/bodies/a", true), ("records/2/bodies/a", false), ("bodies/a", false)]
        {
            assert_eq!((of_newer_version(key), Key::parse(key).is_none()), (newer, newer), "{key}");
        }
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        for alien in [
            "",
            "objects/",
            "objects/servers",
            "objects/servers/A",
            "objects/Server/a",
            "bodies/a/b",
            "pauses/",
            "pauses/a/b",
            "x/y",
            "meta/id",
            "records/2/bodies/a/b",
            "records/2/pauses/",
            "records/2/x",
            "records/2/objects/servers/a",
        ] {
            assert_eq!(Key::parse(alien), None, "{alien}");
        }
    }
}
