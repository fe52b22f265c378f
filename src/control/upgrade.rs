//! From the records of the first version (`Key::Old`) to those of this one: once, when a term begins, before anything is decided.
//!
//! The first version kept the name of a persona where this one keeps a snapshot of what was answered. What was answered then is not known:
//! what the manifests say now stands for it, and a body whose persona is gone may run anything. Leaves out: formats of the store itself.
//! Invariant: no record is deleted before what it became is stored, in one transaction. Shown by the tests below and `tests/store.rs`.

use std::collections::BTreeMap;

use embody_protocol::Ready;
use serde::Deserialize;

use crate::model::body::{Body, Evidence, Found, Hold, OffIntent, Phase, Sending, Sent, Snapshot};
use crate::model::fact::BootDevice;
use crate::model::identity::Identity;
use crate::model::{Kind, Name, Objects};
use crate::store::keys::Key;
use crate::store::{Entry, Expect, Write};

/// A body's record as the first version wrote it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct OldBody {
    held_by: Option<Hold>,
    found: Found,
    may_run: BTreeMap<Name, OldPhase>,
    off: Option<OldIntent>,
    release: Option<Hold>,
    restart_done: u64,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
enum OldPhase {
    Answered,
    Armed,
    Started,
    Withdrawn,
}

#[derive(Deserialize)]
struct OldIntent {
    attempt: u32,
    hard: bool,
    because: String,
}

/// In place of a record that did not read: it must not read as this version's either, which may well take what the first one could not.
const UNREADABLE: &[u8] = b"did not read in the first version";

/// The writes that put a record of the first version where and how this one has it; nothing, where it is none. One that does not read does not
/// read there either: its body may run anything, its device is nobody's.
pub(crate) fn writes(entry: &Entry, objects: &Objects, pins: &BTreeMap<Name, Identity>) -> Option<[Write; 2]> {
    let Some(Key::Old(key)) = Key::parse(&entry.key) else { return None };
    let value = match &*key {
        Key::Body(server) => body(&entry.value, server, objects, pins).unwrap_or_else(|| UNREADABLE.to_vec()),
        Key::Pin(kind, _) => pin(&entry.value, *kind).and_then(|p| serde_json::to_vec(&p).ok()).unwrap_or_else(|| UNREADABLE.to_vec()),
        Key::Approval(_)
        | Key::Pause(_)
        | Key::Login(..)
        | Key::Lease(_)
        | Key::Image(_)
        | Key::Signing
        | Key::Doubt
        | Key::Object(..)
        | Key::Old(_) => entry.value.clone(),
    };
    Some([Write::put(key.to_string(), value, Expect::Absent), Write::delete(&entry.key, entry.revision)])
}

/// What the first version remembered of a device: one text.
pub(super) fn pin(value: &[u8], kind: Kind) -> Option<Identity> {
    let text: String = serde_json::from_slice(value).ok()?;
    let some = |text: &str| Some(text.to_owned());
    Some(match (kind, text.split_once(':')) {
        (Kind::Switch, Some(("serial", serial))) => Identity { serials: [serial.to_owned()].into(), ..Identity::default() },
        (Kind::Switch, Some(("engine", engine))) => Identity { engine: some(engine), ..Identity::default() },
        (Kind::Switch, Some(("base", base))) => Identity { base: some(base), ..Identity::default() },
        _ => Identity { guid: some(&text), ..Identity::default() },
    })
}

fn body(value: &[u8], server: &Name, objects: &Objects, pins: &BTreeMap<Name, Identity>) -> Option<Vec<u8>> {
    // serde takes a list for a struct as well, and fills what is missing.
    let old: OldBody = value.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(value).ok())??;
    let mut new = Body { held_by: old.held_by, found: old.found, release: old.release, restart_done: old.restart_done, ..Body::default() };
    for (persona, phase) in &old.may_run {
        match snapshot(persona, server, objects) {
            Some(snapshot) => drop(new.evidence.insert(persona.clone(), evidence(*phase, snapshot))),
            None => new.anything = true,
        }
    }
    new.off = old.off.map(|off| {
        let sent = |tries| Sending { tries, last: if tries == 0 { Sent::Nothing } else { Sent::Unknown } };
        let hard = if off.hard { off.attempt.saturating_sub(1).max(1) } else { 0 };
        OffIntent { because: off.because, soft: sent(1), hard: sent(hard) }
    });
    if new.is_of_a_device() {
        new.made_on = pins.get(server).cloned().unwrap_or_default();
    }
    serde_json::to_vec(&new).ok()
}

fn evidence(phase: OldPhase, snapshot: Snapshot) -> Evidence {
    let (phase, withdrawn) = match phase {
        OldPhase::Answered => (Phase::Answered, false),
        OldPhase::Armed => (Phase::Armed, false),
        OldPhase::Started => (Phase::Started, false),
        OldPhase::Withdrawn => (Phase::Started, true),
    };
    Evidence { phase, withdrawn, snapshot, run: None }
}

fn snapshot(persona: &Name, server: &Name, objects: &Objects) -> Option<Snapshot> {
    let spec = &objects.personas.get(persona)?.spec;
    let binding = objects.bindings_of_server(server).filter_map(|b| objects.bindings.get(b)).find(|b| b.spec.persona == *persona);
    let binding = binding.map(|b| &b.spec);
    let held = objects.servers.get(server);
    let snapshot = Snapshot {
        image: None,
        persona: persona.clone(),
        hostname: binding.and_then(|b| b.hostname.clone()).unwrap_or_else(|| server.to_string()),
        arch: spec.os.arch,
        boot: if spec.root.disk.is_some() { BootDevice::Disk } else { BootDevice::Pxe },
        root: spec.root.clone(),
        kernel: spec.kernel.clone(),
        claims: crate::model::claim::claims(persona, spec, binding),
        macs: held.map(|s| s.spec.nics.iter().map(|n| n.mac).collect()).unwrap_or_default(),
        addresses: BTreeMap::new(),
        links: Vec::new(),
        files: Vec::new(),
        ready: Ready::default(),
        arguments: String::new(),
        digest: String::new(),
    };
    Some(snapshot.sealed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> Entry {
        Entry { key: key.to_owned(), value: value.as_bytes().to_vec(), revision: 7, damaged: false }
    }

    #[test]
    fn a_body_of_the_first_version_keeps_what_it_may_run() {
        let old = entry(
            "bodies/alpha",
            r#"{"heldBy":{"binding":"web","uid":"u"},"found":"Off","mayRun":{"gone":"Started"},"off":{"attempt":3,"hard":true,"because":"b"}}"#,
        );
        let [put, delete] = writes(&old, &Objects::default(), &BTreeMap::new()).unwrap();
        let body: Body = serde_json::from_slice(&put.value.unwrap()).unwrap();
        assert_eq!((put.key.as_str(), delete.key.as_str(), delete.value), ("records/2/bodies/alpha", "bodies/alpha", None));
        assert!(body.anything, "its persona is not there: it may run anything");
        let off = body.off.unwrap();
        assert_eq!((off.soft.tries, off.hard.tries, off.hard.last), (1, 2, Sent::Unknown));
    }

    #[test]
    fn identities_of_the_first_version_are_sources_now() {
        assert_eq!(pin(b"\"aabb\"", Kind::Server).unwrap().guid.as_deref(), Some("aabb"));
        assert!(pin(b"\"serial:X:1\"", Kind::Switch).unwrap().serials.contains("X:1"));
        assert_eq!(pin(b"\"engine:80\"", Kind::Switch).unwrap().engine.as_deref(), Some("80"));
        assert_eq!(writes(&entry("records/2/bodies/a", "{}"), &Objects::default(), &BTreeMap::new()), None);
        for (key, value) in [("bodies/a", "{"), ("bodies/a", "[]"), ("pins/servers/a", "{}")] {
            let [put, _] = writes(&entry(key, value), &Objects::default(), &BTreeMap::new()).unwrap();
            assert_eq!(put.value.as_deref(), Some(UNREADABLE), "what does not read stays so: {key} {value}");
        }
    }
}
