//! The tar format: headers with GNU and PAX extensions, and contents with their holes.
//!
//! POSIX.1-2017 pax, "ustar Interchange Format" and "pax Interchange Format"; the GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
//! Leaves out what members mean for a tree (`tar`), multi-volume archives and types that no file system has: refused. Invariants: no allocation
//! exceeds `LONGEST_HEADER` or `MOST_EXTENTS`; every byte that is read or made counts against the budget. Shown by `tests/importing/tar.rs` against
//! GNU tar.

mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

use super::SourceError;
use header::Header;
use pax::Pax;
pub(super) use sparse::Extent;

const BLOCK: u64 = 512;
/// Of one extended header: names have at most 4096 bytes, xattrs 64 KiB each.
const LONGEST_HEADER: u64 = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Link,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// One member: all that its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) kind: MemberKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    /// Of the contents, holes included.
    pub(super) size: u64,
    /// What a link or symlink names.
    pub(super) target: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) has_capabilities: bool,
    pub(super) has_label: bool,
    /// Where the stored bytes belong; None: one after the other from the beginning.
    extents: Option<Vec<Extent>>,
}

/// A stream that can leave bytes out.
pub(super) trait Skip: Read {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Skip for super::unpack::Stream<'_> {}

/// A tar that is being read.
pub(super) struct Archive<R> {
    reader: R,
    what: String,
    at: u64,
    /// Stored bytes of the current member that were not read yet, and what fills its last block.
    stored: u64,
    padding: u64,
    global: Pax,
    /// Bytes that may still be read, of `most`.
    left: u64,
    most: u64,
    /// A layer, whose digest is checked, may end without the two zero blocks.
    may_end_early: bool,
}

impl<R: Skip> Archive<R> {
    pub(super) fn new(reader: R, what: impl Into<String>, left: u64, most: u64) -> Archive<R> {
        let what = what.into();
        Archive { reader, what, at: 0, stored: 0, padding: 0, global: Pax::default(), left, most, may_end_early: false }
    }

    pub(super) fn may_end_early(self) -> Archive<R> {
        Archive { may_end_early: true, ..self }
    }

    /// Bytes that may still be unpacked.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Where the contents of the current member begin.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn format_error(&self, found: impl Into<String>, expected: impl Into<String>) -> SourceError {
        SourceError::Format { what: self.what.clone(), at: self.at, found: found.into(), expected: expected.into() }
    }

    fn read_error(&self, source: io::Error) -> SourceError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return self.format_error("the end of the archive in the middle of a member", "the rest of it: it was cut short");
        }
        SourceError::Read { what: self.what.clone(), at: self.at, source }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), SourceError> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| SourceError::TooLarge { what: self.what.clone(), most: self.most })?;
        Ok(())
    }

    /// One block; None at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, SourceError> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.read_error(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.read_error(e)),
            }
        }
        self.spend(BLOCK)?;
        self.at += BLOCK;
        Ok(Some(block))
    }

    fn skip_contents(&mut self) -> Result<(), SourceError> {
        let bytes = self.stored + self.padding;
        self.spend(bytes)?;
        self.reader.skip(bytes).map_err(|e| self.read_error(e))?;
        self.at += bytes;
        (self.stored, self.padding) = (0, 0);
        Ok(())
    }

    /// Stored bytes of the current member, whole.
    fn small_contents(&mut self) -> Result<Vec<u8>, SourceError> {
        if self.stored > LONGEST_HEADER {
            return Err(self.format_error(format!("an extended header of {} bytes", self.stored), format!("at most {LONGEST_HEADER}")));
        }
        let mut bytes = vec![0; usize::try_from(self.stored).unwrap_or_default()];
        self.spend(self.stored)?;
        self.reader.read_exact(&mut bytes).map_err(|e| self.read_error(e))?;
        self.at += self.stored;
        self.stored = 0;
        self.skip_contents()?;
        Ok(bytes)
    }

    /// The next header; None at the end of the archive, which is read to the end of its stream.
    fn header(&mut self) -> Result<Option<Header>, SourceError> {
        self.skip_contents()?;
        let Some(block) = self.block()? else {
            if self.may_end_early {
                return Ok(None);
            }
            let found = "the end without an end marker";
            return Err(self.format_error(found, "two blocks of zeros: it is no tar, or was cut short"));
        };
        if block.iter().all(|byte| *byte == 0) {
            match self.block()? {
                None => {}
                Some(next) if next.iter().all(|byte| *byte == 0) => self.drain()?,
                Some(_) => return Err(self.format_error("a lone block of zeros", "two at the end, and none before")),
            }
            return Ok(None);
        }
        let header = Header::parse(&block).map_err(|(found, expected)| {
            self.at -= BLOCK;
            self.format_error(found, expected)
        })?;
        self.stored = if header.has_contents() { header.size } else { 0 };
        self.padding = padding(self.stored);
        Ok(Some(header))
    }

    /// So that a pipe's writer ends well, and that a digest is of everything.
    fn drain(&mut self) -> Result<(), SourceError> {
        let rest = io::copy(&mut (&mut self.reader).take(self.left), &mut io::sink()).map_err(|e| self.read_error(e))?;
        self.spend(rest)?;
        self.at += rest;
        if self.left == 0 { self.spend(1) } else { Ok(()) }
    }

    /// The next member. Contents of the one before are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Member>, SourceError> {
        let mut local = Pax::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            match header.type_flag {
                b'x' | b'X' => {
                    let records = self.small_contents()?;
                    local.read(&records).map_err(|(found, expected)| self.format_error(found, expected))?;
                }
                b'g' => {
                    let records = self.small_contents()?;
                    let mut global = std::mem::take(&mut self.global);
                    global.read(&records).map_err(|(found, expected)| self.format_error(found, expected))?;
                    self.global = global;
                }
                b'L' => local.set_path(&self.small_contents()?),
                b'K' => local.set_target(&self.small_contents()?),
                // A volume's label.
                b'V' => {}
                _ => {
                    let pax = local.over(&self.global);
                    return self.member(header, pax).map(Some);
                }
            }
        }
    }

    fn member(&mut self, header: Header, pax: Pax) -> Result<Member, SourceError> {
        let path = pax.sparse_name.clone().or(pax.path.clone()).unwrap_or_else(|| header.path.clone());
        let Some(kind) = header.kind(&path) else {
            let found = format!("{:?} of type {:?}", super::escaped(&path), char::from(header.type_flag));
            return Err(self.format_error(found, "a file, link, symlink, device, directory or fifo"));
        };
        if let Some(size) = pax.size.filter(|_| header.has_contents()) {
            (self.stored, self.padding) = (size, padding(size));
        }
        let mut size = if kind == MemberKind::File { self.stored } else { 0 };
        let mut extents = None;
        if kind == MemberKind::File {
            let (real, map) = self.sparse(&header, &pax)?;
            size = real.unwrap_or(size);
            extents = map;
        }
        let id = |what: &str, pax: Option<u64>, header: i64| {
            let found = pax.map_or(i128::from(header), i128::from);
            u32::try_from(found).map_err(|_| self.format_error(format!("the {what} {found}"), "0 to 4294967295"))
        };
        Ok(Member {
            kind,
            mode: header.mode,
            uid: id("uid", pax.uid, header.uid)?,
            gid: id("gid", pax.gid, header.gid)?,
            mtime: pax.mtime.unwrap_or(header.mtime),
            size,
            target: pax.target.unwrap_or(header.target),
            device: header.device,
            has_capabilities: pax.has_capabilities,
            has_label: pax.has_label,
            extents,
            path,
        })
    }

    /// The contents of the member that was read last.
    pub(super) fn contents<'a>(&'a mut self, member: &'a Member) -> Contents<'a, R> {
        let extents = member.extents.as_deref();
        Contents { archive: self, extents, at: 0, size: member.size, failed: None }
    }
}

/// What is left of a size's last block.
fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// A member's contents, holes as zeros.
pub(super) struct Contents<'a, R> {
    archive: &'a mut Archive<R>,
    extents: Option<&'a [Extent]>,
    at: u64,
    size: u64,
    /// An error that an `io::Error` cannot carry.
    pub(super) failed: Option<SourceError>,
}

impl<R: Skip> Contents<'_, R> {
    /// How many bytes from here are stored (true) or zeros (false).
    fn run(&mut self) -> (bool, u64) {
        let left = self.size - self.at;
        let Some(extents) = &mut self.extents else { return (true, left) };
        while let [first, rest @ ..] = extents {
            if first.from + first.bytes > self.at {
                break;
            }
            *extents = rest;
        }
        match extents.first() {
            Some(first) if first.from <= self.at => (true, first.from + first.bytes - self.at),
            Some(first) => (false, first.from - self.at),
            None => (false, left),
        }
    }

    fn spend(&mut self, bytes: u64) -> io::Result<()> {
        self.archive.spend(bytes).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("the limit of bytes is reached")
        })
    }
}

impl<R: Skip> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (stored, run) = self.run();
        let most = usize::try_from(run).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = if stored {
            match self.archive.reader.read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            }
        } else {
            buffer.fill(0);
            most
        };
        self.spend(read as u64)?;
        self.at += read as u64;
        if stored {
            self.archive.at += read as u64;
            self.archive.stored = self.archive.stored.saturating_sub(read as u64);
        }
        Ok(read)
    }
}
