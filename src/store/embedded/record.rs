//! One change as bytes in the log of the embedded store, and one event, both with a checksum.
//!
//! Leaves out: the revision (it is the key of the log, and is covered by the checksum). Invariant: `decode(encode(r)) == r` at its own revision, and
//! any other bytes, or the same at another revision, decode to nothing. Tests: below.
//!
//! ```text
//! offset  0     1..9                  9..13              13..17            17..17+n  17+n..
//!         what  revision before, LE   n = key bytes, LE  CRC-32C, LE       key       value
//! ```
//! what: 1 put, 2 delete, 3 lost (its bytes were damaged; only the key is known, from elsewhere). The revision before is 0 where the key did not
//! exist. The checksum is of the revision (8 bytes, LE) and of all bytes but its own. Format 1 had none: the key began at 13.

use crate::store::{Change, Entry, Revision, checksum::crc32c};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Put,
    Delete,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) what: What,
    pub(crate) before: Revision,
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
}

const HEADER: usize = 13;
const SUM: usize = 4;

impl<'a> Record<'a> {
    /// Stands in for a record whose bytes were damaged.
    pub(crate) fn lost(key: &'a str) -> Record<'a> {
        Record { what: What::Lost, before: 0, key, value: &[] }
    }

    pub(crate) fn encode(&self, revision: Revision) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + SUM + self.key.len() + self.value.len());
        bytes.push(match self.what {
            What::Put => 1,
            What::Delete => 2,
            What::Lost => 3,
        });
        bytes.extend(self.before.to_le_bytes());
        // Keys are limited to far less than 4 GiB before they come here.
        bytes.extend(u32::try_from(self.key.len()).unwrap_or(u32::MAX).to_le_bytes());
        let sum = crc32c(&[&revision.to_le_bytes(), &bytes, self.key.as_bytes(), self.value]);
        bytes.extend(sum.to_le_bytes());
        bytes.extend(self.key.as_bytes());
        bytes.extend(self.value);
        bytes
    }

    pub(crate) fn decode(bytes: &'a [u8], revision: Revision) -> Option<Record<'a>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let (sum, body) = rest.split_first_chunk::<SUM>()?;
        let whole = u32::from_le_bytes(*sum) == crc32c(&[&revision.to_le_bytes(), header, body]);
        if whole { Record::of(header, body) } else { None }
    }

    /// As format 1 had it.
    pub(crate) fn decode_unsummed(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (header, body) = bytes.split_first_chunk::<HEADER>()?;
        Record::of(header, body)
    }

    fn of(header: &[u8; HEADER], body: &'a [u8]) -> Option<Record<'a>> {
        let what = match header[0] {
            1 => What::Put,
            2 => What::Delete,
            3 => What::Lost,
            _ => return None,
        };
        let before = u64::from_le_bytes(header[1..9].try_into().ok()?);
        let length = u32::from_le_bytes(header[9..13].try_into().ok()?) as usize;
        let (key, value) = body.split_at_checked(length)?;
        Some(Record { what, before, key: std::str::from_utf8(key).ok()?, value })
    }

    /// Nothing where the record was lost: the change is not known.
    pub(crate) fn change(&self, revision: Revision) -> Option<Change> {
        match self.what {
            What::Put => Some(Change::Put(Entry { key: self.key.to_owned(), value: self.value.to_vec(), revision, damaged: false })),
            What::Delete => Some(Change::Deleted { key: self.key.to_owned(), revision }),
            What::Lost => None,
        }
    }
}

/// What the key holds by this record, which the key's own place in the store leads to: damaged unless it is whole and of this key.
pub(crate) fn entry(key: &str, revision: Revision, bytes: &[u8]) -> Entry {
    match Record::decode(bytes, revision) {
        Some(record) if record.key == key && record.what == What::Put => {
            Entry { key: key.to_owned(), value: record.value.to_vec(), revision, damaged: false }
        }
        Some(_) | None => Entry { key: key.to_owned(), value: Vec::new(), revision, damaged: true },
    }
}

/// An event with its checksum in front, which covers its number too.
pub(crate) fn seal_event(number: u64, event: &[u8]) -> Vec<u8> {
    [&crc32c(&[&number.to_le_bytes(), event]).to_le_bytes(), event].concat()
}

pub(crate) fn open_event(number: u64, sealed: &[u8]) -> Option<&[u8]> {
    let (sum, event) = sealed.split_first_chunk::<SUM>()?;
    (u32::from_le_bytes(*sum) == crc32c(&[&number.to_le_bytes(), event])).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is() {
        for record in [
            Record { what: What::Put, before: 0, key: "a/b", value: b"\0\xff" },
            Record { what: What::Delete, before: u64::MAX, key: "ä", value: b"" },
            Record::lost("a"),
        ] {
            let bytes = record.encode(7);
            assert_eq!(Record::decode(&bytes, 7), Some(record));
            assert_eq!(Record::decode(&bytes, 8), None, "at another revision");
            for at in 0..bytes.len() {
                assert_eq!(Record::decode(&bytes[..at], 7), None, "cut to {at} bytes");
                for bit in 0..8 {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= 1 << bit;
                    assert_eq!(Record::decode(&damaged, 7), None, "bit {bit} of byte {at}");
                }
            }
        }
        assert_eq!(Record::decode(&[3; 40], 7), None);
        let sealed = seal_event(5, b"an event");
        assert_eq!((open_event(5, &sealed), open_event(6, &sealed)), (Some(&b"an event"[..]), None));
    }

    #[test]
    fn an_entry_is_what_its_own_key_has() {
        let put = Record { what: What::Put, before: 0, key: "a", value: b"1" }.encode(7);
        assert!(!entry("a", 7, &put).damaged);
        let delete = Record { what: What::Delete, before: 6, key: "a", value: b"" }.encode(7);
        for (key, bytes) in [("b", &put), ("a", &delete), ("a", &Record::lost("a").encode(7)), ("a", &Vec::new())] {
            let found = entry(key, 7, bytes);
            assert!(found.damaged && found.value.is_empty() && found.key == key, "{found:?}");
        }
    }
}
