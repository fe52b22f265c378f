//! Attributes as NFSv3 has them: `fattr3`, `post_op_attr`, `wcc_data` (RFC 1813, section 2.6), and statuses.
//!
//! Leaves out: where they come from. Invariant: modes go out whole, and a fileid is never 0, since `readdir(3)` skips such entries. Shown by
//! `tests/nfs/serve.rs`, `modes_and_kinds_are_whole`.

use crate::server::nfs::exports::{Attributes, Kind};
use crate::server::nfs::xdr::Writer;

/// `nfsstat3` (RFC 1813, section 2.6): those that are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    NoEntry = 2,
    Io = 5,
    Access = 13,
    NotDirectory = 20,
    IsDirectory = 21,
    Invalid = 22,
    ReadOnly = 30,
    NameTooLong = 63,
    Stale = 70,
    BadHandle = 10_001,
    TooSmall = 10_005,
    ServerFault = 10_006,
    Jukebox = 10_008,
}

/// Octets of `post_op_attr` with attributes: a word, and `fattr3`.
pub(crate) const POST_OP_BYTES: usize = 4 + 84;

/// Of which file system, and which file of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) tree: [u8; 16],
    pub(crate) inode: u32,
}

impl Identity {
    fn fsid(&self) -> u64 {
        self.tree.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    pub(crate) fn fileid(&self) -> u64 {
        u64::from(self.inode) + 1
    }
}

/// `ftype3`.
const fn ftype(kind: Kind) -> u32 {
    match kind {
        Kind::File => 1,
        Kind::Directory => 2,
        Kind::Block => 3,
        Kind::Character => 4,
        Kind::Symlink => 5,
        Kind::Socket => 6,
        Kind::Fifo => 7,
    }
}

impl Writer {
    pub(crate) fn status(&mut self, status: Status) -> &mut Writer {
        self.u32(status as u32)
    }

    /// `fattr3`.
    pub(crate) fn attributes(&mut self, of: Identity, its: &Attributes) -> &mut Writer {
        self.u32(ftype(its.kind)).u32(u32::from(its.mode & 0o7777)).u32(its.links).u32(its.uid).u32(its.gid);
        // Used: whole blocks of 512 octets, the unit of `st_blocks`.
        self.u64(its.size).u64(its.size.checked_next_multiple_of(512).unwrap_or(its.size));
        self.u32(its.device.0).u32(its.device.1).u64(of.fsid()).u64(of.fileid());
        // It was never read nor changed since.
        (0..3).for_each(|_| self.time(its.mtime));
        self
    }

    fn time(&mut self, (seconds, nanoseconds): (i64, u32)) {
        // Unsigned in the protocol: from 1970 to 2106.
        let within = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        self.u32(within).u32(if seconds < 0 { 0 } else { nanoseconds.min(999_999_999) });
    }

    pub(crate) fn post_op(&mut self, of: Identity, its: &Attributes) -> &mut Writer {
        self.bool(true).attributes(of, its)
    }

    /// `wcc_data` of what did not change.
    pub(crate) fn unchanged(&mut self, of: Identity, its: &Attributes) -> &mut Writer {
        self.bool(true).u64(its.size);
        (0..2).for_each(|_| self.time(its.mtime));
        self.post_op(of, its)
    }

    /// So many optional things that are not there.
    pub(crate) fn nothing(&mut self, times: usize) -> &mut Writer {
        (0..times).for_each(|_| self.bool(false).end());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_length_of_the_protocol() {
        let its = Attributes {
            kind: Kind::File,
            mode: 0o4755,
            links: 1,
            uid: 0,
            gid: 0,
            size: u64::MAX,
            device: (0, 0),
            mtime: (i64::MAX, u32::MAX),
        };
        let mut writer = Writer::default();
        writer.post_op(Identity { tree: [0; 16], inode: u32::MAX }, &its);
        assert_eq!(writer.len(), POST_OP_BYTES);
        let mut old = Writer::default();
        old.time((-1, 5));
        assert_eq!(old.into_bytes(), [0; 8]);
    }
}
