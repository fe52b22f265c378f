//! What a store holds: objects and records under their keys, what the store says of itself, and the rows and the mark around them.
//!
//! The input is a key, a line break, and the value. Three keys are of no store: `mark` is the file beside it, `event` an event, which has a number
//! and no key, `row` a row of the embedded one with its revision (8 octets, LE) in front.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::hold;
use crate::control::{records, upgrade};
use crate::model::status::Event;
use crate::model::{Object, Objects};
use crate::store::Entry;
use crate::store::embedded::record::{self, Record, What, open_event, seal_event};
use crate::store::keys::{self, Key};
use crate::store::mark::{self, Known};
use crate::store::records::{Found, found, number};

/// One stored entry.
pub fn stored(bytes: &[u8]) -> Result<(), String> {
    let (key, value) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let Ok(key) = std::str::from_utf8(key) else { return Ok(()) };
    row(key, value)?;
    match key {
        "mark" => match mark::parse(value) {
            Known::At(point) => same("the mark", value, &mark::line(point)),
            Known::Nothing | Known::Unreadable(_) => Ok(()),
        },
        "row" => match value.split_first_chunk().map(|(revision, row)| (u64::from_le_bytes(*revision), row)) {
            Some((revision, row)) => Record::decode(row, revision).map_or(Ok(()), |record| same("the row", row, &record.encode(revision))),
            None => Ok(()),
        },
        "event" => again::<Event>(value),
        keys::ID | keys::SEQ => meta(key, value),
        keys::DIRECTORY => again::<Vec<String>>(value),
        _ => match Key::parse(key) {
            Some(parsed) => {
                hold(parsed.to_string() == key, || format!("the key `{key}` is read, and written as `{parsed}`"))?;
                entry(&parsed, Entry { key: key.to_owned(), value: value.to_vec(), revision: 7, damaged: false })
            }
            None => Ok(()),
        },
    }
}

/// What is read of JSON, written and read again.
fn again<T: DeserializeOwned + Serialize + PartialEq>(value: &[u8]) -> Result<(), String> {
    let Ok(read) = serde_json::from_slice::<T>(value) else { return Ok(()) };
    let written = serde_json::to_vec(&read).map_err(|why| format!("what was read cannot be written: {why}"))?;
    let back = serde_json::from_slice::<T>(&written).map_err(|why| format!("what was written does not read: {why}"))?;
    hold(back == read, || format!("{} reads as something else", String::from_utf8_lossy(&written)))
}

/// What has a checksum reads only if it is what would be written.
fn same(what: &str, found: &[u8], written: &[u8]) -> Result<(), String> {
    hold(written == found, || format!("{what} reads, and is written otherwise: {found:02x?}"))
}

/// The value as a row and as an event of the embedded store: whole it reads back, bent it is nothing.
fn row(key: &str, value: &[u8]) -> Result<(), String> {
    let revision = value.len() as u64;
    let mut row = Record { what: What::Put, before: revision / 2, key, value }.encode(revision);
    let entry = record::entry(key, revision, &row);
    hold(!entry.damaged && entry.value == value, || format!("a row of {} octets is read back as {entry:?}", row.len()))?;
    let mut event = seal_event(revision, value);
    hold(open_event(revision, &event) == Some(value), || format!("an event of {} octets is not read back", value.len()))?;
    let (at, bit) = (value.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 1 << (value.len() % 8));
    for bytes in [&mut row, &mut event] {
        let at = at % bytes.len();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= bit;
        }
    }
    hold(record::entry(key, revision, &row).damaged, || format!("a row with an octet bent by {bit:02x} still reads"))?;
    hold(open_event(revision, &event).is_none(), || format!("an event with an octet bent by {bit:02x} still reads"))
}

/// The other half of what the store says of itself is whole.
fn meta(key: &str, value: &[u8]) -> Result<(), String> {
    let entry = |key: &str, value: &[u8]| Entry { key: key.to_owned(), value: value.to_vec(), revision: 7, damaged: false };
    let both = |id: &[u8], seq: &[u8]| found(&[entry(keys::ID, id), entry(keys::SEQ, seq)]);
    let read = match key {
        keys::ID => both(value, b"41 3"),
        _ => both(b"00000000-0000-4000-8000-000000000000", value),
    };
    match &read {
        Found::Meta(meta) => {
            let seq = meta.records.map_or_else(|| meta.point.seq.to_string(), |records| number(meta.point.seq, records));
            let again = both(meta.point.id.to_string().as_bytes(), seq.as_bytes());
            hold(again == read, || format!("{read:?} is written, and read as {again:?}"))
        }
        Found::Nothing => Err("what is there is nothing".to_owned()),
        Found::Broken(why) => hold(why.contains(key), || format!("`{why}` does not name `{key}`")),
    }
}

fn entry(key: &Key, entry: Entry) -> Result<(), String> {
    match key {
        Key::Object(..) => object(&entry.value),
        Key::Old(inner) => old(inner, &entry),
        Key::Body(_)
        | Key::Approval(_)
        | Key::Pause(_)
        | Key::Pin(..)
        | Key::Login(..)
        | Key::Lease(_)
        | Key::Image(_)
        | Key::Signing
        | Key::Doubt => {
            let damaged = records::rewritten(key, &Entry { damaged: true, ..entry.clone() });
            hold(damaged.is_err(), || "a damaged record reads".to_owned())?;
            let Ok(written) = records::rewritten(key, &entry) else { return Ok(()) };
            let again = records::rewritten(key, &Entry { value: written.clone(), ..entry });
            let text = String::from_utf8_lossy(&written);
            hold(again.as_ref() == Ok(&written), || format!("`{text}` is written, and read as {again:?}"))
        }
    }
}

fn object(value: &[u8]) -> Result<(), String> {
    let Ok(object) = serde_json::from_slice(value).map_err(drop).and_then(|json| Object::from_json(json).map_err(drop)) else {
        return Ok(());
    };
    let json = object.to_json();
    let again = Object::from_json(json.clone()).map_err(|why| format!("{json} is stored, and does not read: {why}"))?;
    hold(again == object, || format!("{json} is stored, and reads as another object"))
}

/// A record of the first version: what it becomes reads, or did not read before and does not either.
fn old(inner: &Key, entry: &Entry) -> Result<(), String> {
    let Some([put, delete]) = upgrade::writes(entry, &Objects::default(), &BTreeMap::new()) else {
        return Err(format!("`{}` is left where it was", entry.key));
    };
    hold(Key::parse(&put.key).as_ref() == Some(inner), || format!("`{}` becomes `{}`", entry.key, put.key))?;
    hold(delete.key == entry.key && delete.value.is_none(), || format!("in place of `{}` goes `{}`", entry.key, delete.key))?;
    let value = put.value.unwrap_or_default();
    let new = Entry { key: put.key, value, ..entry.clone() };
    let reads = records::rewritten(inner, &new).is_ok();
    // It had a text for a pin, and an object for a body.
    let begins = |with: &[u8]| entry.value.trim_ascii_start().starts_with(with);
    let was_one = match inner {
        Key::Pin(..) => begins(b"\""),
        Key::Body(_) => begins(b"{"),
        Key::Approval(_)
        | Key::Pause(_)
        | Key::Login(..)
        | Key::Lease(_)
        | Key::Image(_)
        | Key::Signing
        | Key::Doubt
        | Key::Object(..)
        | Key::Old(_) => true,
    };
    let text = String::from_utf8_lossy(&new.value);
    hold(!reads || was_one, || format!("what did not read becomes `{text}`, by which nothing is known of it"))
}
