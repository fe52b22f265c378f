//! Where the stored bytes of a sparse member belong: GNU's old format and its PAX formats 0.0, 0.1 and 1.0.
//!
//! GNU tar manual, "Storing Sparse Files". Leaves out reading them (`Contents`). Invariant: extents are in order, do not overlap, end within the
//! size, and are as many bytes as are stored. Shown by `tests/importing/tar.rs` with archives of GNU tar in all four formats.

use super::super::SourceError;
use super::header::{Header, field, number};
use super::pax::Pax;
use super::{Archive, BLOCK, LONGEST_HEADER, Skip, padding};

/// Of one member: 16 bytes each.
pub(super) const MOST_EXTENTS: usize = 65_536;

/// A run of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Extent {
    pub(super) from: u64,
    pub(super) bytes: u64,
}

/// `struct oldgnu_header`: four extents in the header, whether more follow, the real size.
const MAP: (usize, usize) = (386, 4 * 24);
const MORE: usize = 482;
const REAL_SIZE: (usize, usize) = (483, 12);
/// `struct sparse_header`: 21 extents in a block, whether more follow.
const NEXT_MAP: (usize, usize) = (0, 21 * 24);
const NEXT_MORE: usize = 504;

fn pairs(numbers: &[u64]) -> Vec<Extent> {
    numbers
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [from, bytes] => Some(Extent { from: *from, bytes: *bytes }),
            _ => None,
        })
        .collect()
}

type Sparse = (Option<u64>, Option<Vec<Extent>>);

impl<R: Skip> Archive<R> {
    /// The real size and the map of a member, where it is sparse.
    pub(super) fn sparse(&mut self, header: &Header, pax: &Pax) -> Result<Sparse, SourceError> {
        let (size, extents) = if header.type_flag == b'S' {
            self.old_gnu(header)?
        } else if let Some(major) = pax.sparse_major.filter(|major| *major > 0) {
            if major != 1 {
                return Err(self.format_error(format!("the sparse format {major}"), "0.0, 0.1 or 1.0"));
            }
            (self.real_size(pax)?, self.map_before_contents()?)
        } else if pax.sparse_size.is_some() {
            (self.real_size(pax)?, pairs(&pax.sparse_map))
        } else {
            return Ok((None, None));
        };
        let mut end = 0;
        let mut stored = 0u64;
        for extent in &extents {
            let next = extent.from.checked_add(extent.bytes).filter(|next| extent.from >= end && *next <= size);
            end = next
                .ok_or_else(|| self.format_error("a sparse map that is out of order or too long", "extents in order, within the size"))?;
            stored += extent.bytes;
        }
        if stored != self.stored {
            return Err(self.format_error(format!("a sparse map of {stored} bytes"), format!("one of the {} that are stored", self.stored)));
        }
        Ok((Some(size), Some(extents)))
    }

    fn real_size(&self, pax: &Pax) -> Result<u64, SourceError> {
        pax.sparse_size.ok_or_else(|| self.format_error("a sparse member without GNU.sparse.realsize", "its real size"))
    }

    fn old_gnu(&mut self, header: &Header) -> Result<(u64, Vec<Extent>), SourceError> {
        let bad = |archive: &Self| archive.format_error("a sparse map whose numbers do not read", "octal numbers");
        let size = number(field(&header.block, REAL_SIZE)).and_then(|size| u64::try_from(size).ok()).ok_or_else(|| bad(self))?;
        let mut extents = Vec::new();
        let (mut block, mut map, mut more) = (header.block, MAP, MORE);
        loop {
            for pair in field(&block, map).chunks_exact(24) {
                let (from, bytes) = pair.split_at(12);
                let read = |field| number(field).and_then(|n| u64::try_from(n).ok());
                if from.first() == Some(&0) {
                    break;
                }
                let (from, bytes) = read(from).zip(read(bytes)).ok_or_else(|| bad(self))?;
                extents.push(Extent { from, bytes });
            }
            if extents.len() > MOST_EXTENTS {
                return Err(self.format_error("a sparse map that is too long", format!("at most {MOST_EXTENTS} extents")));
            }
            if block.get(more).is_none_or(|more| *more == 0) {
                return Ok((size, extents));
            }
            // These blocks are not part of the stored bytes.
            block = self.block()?.ok_or_else(|| bad(self))?;
            (map, more) = (NEXT_MAP, NEXT_MORE);
        }
    }

    /// Format 1.0: decimal numbers, one a line, before the contents and counted among the stored bytes, filled up to a block.
    fn map_before_contents(&mut self) -> Result<Vec<Extent>, SourceError> {
        let mut numbers = Vec::new();
        let mut open: Option<u64> = None;
        let mut read = 0;
        let bad = |archive: &Self| archive.format_error("a sparse map whose numbers do not read", "decimal numbers, one a line");
        loop {
            if read > LONGEST_HEADER || self.stored < BLOCK {
                return Err(bad(self));
            }
            let block = self.block()?.ok_or_else(|| bad(self))?;
            read += BLOCK;
            self.stored -= BLOCK;
            self.padding = padding(self.stored);
            for byte in block {
                match (byte, open) {
                    (b'0'..=b'9', n) => {
                        let n = n.unwrap_or_default().checked_mul(10).and_then(|n| n.checked_add(u64::from(byte - b'0')));
                        open = Some(n.ok_or_else(|| bad(self))?);
                    }
                    (b'\n', Some(n)) => {
                        numbers.push(n);
                        open = None;
                    }
                    _ => return Err(bad(self)),
                }
                if let Some((count, map)) = numbers.split_first() {
                    if *count > MOST_EXTENTS as u64 {
                        return Err(self.format_error("a sparse map that is too long", format!("at most {MOST_EXTENTS} extents")));
                    }
                    if map.len() as u64 == 2 * count {
                        return Ok(pairs(map));
                    }
                }
            }
        }
    }
}
