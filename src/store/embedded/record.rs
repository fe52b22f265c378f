//! One change as bytes in the log of the embedded store.
//!
//! Leaves out: the revision (it is the key of the log). Invariant: `decode(encode(r)) == r`, and no bytes make `decode` fail otherwise than
//! with nothing.
//!
//! ```text
//! offset  0     1..9                  9..13              13..13+n  13+n..
//!         what  revision before, LE   n = key bytes, LE  key       value
//! ```
//! what: 1 put, 2 delete. The revision before is 0 where the key did not exist.

use crate::store::{Change, Entry, Revision};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Put,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) what: What,
    pub(super) before: Revision,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

const HEADER: usize = 13;

impl<'a> Record<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.key.len() + self.value.len());
        bytes.push(match self.what {
            What::Put => 1,
            What::Delete => 2,
        });
        bytes.extend(self.before.to_le_bytes());
        // Keys are limited to far less than 4 GiB before they come here.
        bytes.extend(u32::try_from(self.key.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.key.as_bytes());
        bytes.extend(self.value);
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let what = match header[0] {
            1 => What::Put,
            2 => What::Delete,
            _ => return None,
        };
        let before = u64::from_le_bytes(header[1..9].try_into().ok()?);
        let length = u32::from_le_bytes(header[9..13].try_into().ok()?) as usize;
        let (key, value) = rest.split_at_checked(length)?;
        Some(Record { what, before, key: std::str::from_utf8(key).ok()?, value })
    }

    pub(super) fn entry(&self, revision: Revision) -> Entry {
        Entry { key: self.key.to_owned(), value: self.value.to_vec(), revision }
    }

    pub(super) fn change(&self, revision: Revision) -> Change {
        match self.what {
            What::Put => Change::Put(self.entry(revision)),
            What::Delete => Change::Deleted { key: self.key.to_owned(), revision },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for record in [
            Record { what: What::Put, before: 0, key: "a/b", value: b"\0\xff" },
            Record { what: What::Delete, before: u64::MAX, key: "ä", value: b"" },
        ] {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Some(record));
            for cut in 0..HEADER + record.key.len() {
                assert_eq!(Record::decode(&bytes[..cut]), None, "cut to {cut} bytes");
            }
        }
        assert_eq!(Record::decode(&[3; 40]), None);
    }
}
