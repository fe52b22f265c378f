//! The index of one tree: every path with its type, mode, owner, time and contents' digest, in memory. Its text (`text`) is what an image's digest
//! is of.
//!
//! Leaves out contents (`store`), building one up in any order (`tree`), extended attributes (NFSv3 has none; `warnings` names what needs them).
//! Invariant: an `Index` satisfies all that `build` checks, so whoever walks it meets no loop, no missing parent and no path that leaves the
//! root; numbers and cookies are positions in the text and so the same in every process. Shown by `tests/importing/index.rs`.
//!
//! An entry costs about 40 bytes and its name, a file 40 more: 300,000 entries are about 30 MB.

mod build;
mod text;

use std::borrow::Cow;

pub use build::Builder;
pub(crate) use build::Fault;
pub(crate) use text::{IndexError, escaped};

use super::digest::Digest;

/// Entries of one tree; a full desktop has half a million.
pub(crate) const MOST_ENTRIES: usize = 2_000_000;
/// The text of an index.
pub(crate) const MOST_TEXT: usize = 512 * 1024 * 1024;
/// NAME_MAX, linux/limits.h.
pub(crate) const NAME_LONGEST: usize = 255;
/// PATH_MAX, linux/limits.h: with the leading `/`, without a final NUL.
pub(crate) const PATH_LONGEST: usize = 4096;

/// A number of a file, directory or other node: the position of its first entry, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(u32);

impl Inode {
    pub const ROOT: Inode = Inode(1);

    /// A number from outside, such as a file handle: `Index::attributes` says whether there is one.
    pub fn new(number: u32) -> Inode {
        Inode(number)
    }

    pub fn number(self) -> u32 {
        self.0
    }
}

/// What a node is, and what only nodes of its type have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node<'a> {
    Directory,
    File { size: u64, digest: Digest },
    Symlink { target: Cow<'a, [u8]> },
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// All that an index has of a node but its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// The twelve bits of a mode: 0o4755, 0o1777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub node: Node<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
    /// A further name of a file.
    Link,
}

/// `a` and `b`: of a directory where its children begin and how many; of a file its place in `files`; of a symlink where its target is and how long;
/// of a device major and minor; of a link the position of its file.
#[derive(Debug, Clone, Copy)]
struct Row {
    mtime: i64,
    name: u32,
    parent: u32,
    uid: u32,
    gid: u32,
    links: u32,
    a: u32,
    b: u32,
    mode: u16,
    name_len: u8,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
struct Contents {
    size: u64,
    digest: Digest,
}

/// An immutable tree.
#[derive(Debug)]
pub struct Index {
    rows: Vec<Row>,
    files: Vec<Contents>,
    /// Names and targets, one after the other.
    bytes: Vec<u8>,
    /// Positions, by directory, in the order of names.
    children: Vec<u32>,
    total_bytes: u64,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child<'a> {
    pub name: &'a [u8],
    pub inode: Inode,
    /// To go on after this name. At least 3: 1 and 2 are left for `.` and `..`.
    pub cookie: u64,
}

/// A path and its node; `is_link` where an earlier path has the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub inode: Inode,
    pub is_link: bool,
}

impl Index {
    /// How many entries, further hard links included.
    pub fn entries_len(&self) -> usize {
        self.rows.len()
    }

    /// Of all contents, each file counted once however many names it has.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn row(&self, position: u32) -> Option<&Row> {
        self.rows.get(usize::try_from(position).ok()?.checked_sub(1)?)
    }

    fn slice(&self, from: u32, len: usize) -> &[u8] {
        let from = from as usize;
        self.bytes.get(from..from + len).unwrap_or_default()
    }

    fn name(&self, row: &Row) -> &[u8] {
        self.slice(row.name, usize::from(row.name_len))
    }

    fn inode_of(&self, position: u32) -> Inode {
        match self.row(position) {
            Some(Row { kind: Kind::Link, a, .. }) => Inode(*a),
            _ => Inode(position),
        }
    }

    /// None for a number that is of no node (a link's position is of none).
    pub fn attributes(&self, inode: Inode) -> Option<Attributes<'_>> {
        let row = self.row(inode.0)?;
        let (major, minor) = (row.a, row.b);
        let node = match row.kind {
            Kind::Directory => Node::Directory,
            Kind::File => {
                let Contents { size, digest } = *self.files.get(row.a as usize)?;
                Node::File { size, digest }
            }
            Kind::Symlink => Node::Symlink { target: Cow::Borrowed(self.slice(row.a, row.b as usize)) },
            Kind::Char => Node::Char { major, minor },
            Kind::Block => Node::Block { major, minor },
            Kind::Fifo => Node::Fifo,
            Kind::Socket => Node::Socket,
            Kind::Link => return None,
        };
        Some(Attributes { mode: row.mode, uid: row.uid, gid: row.gid, mtime: row.mtime, node })
    }

    /// How many names a node has; of a directory 2 and one per directory in it.
    pub fn nlink(&self, inode: Inode) -> Option<u32> {
        self.row(inode.0).filter(|row| row.kind != Kind::Link).map(|row| row.links)
    }

    fn positions(&self, dir: Inode) -> Option<&[u32]> {
        let row = self.row(dir.0).filter(|row| row.kind == Kind::Directory)?;
        let from = row.a as usize;
        self.children.get(from..from + row.b as usize)
    }

    /// None where `dir` is no directory or has no such name. `.` and `..` are the caller's.
    pub fn lookup(&self, dir: Inode, name: &[u8]) -> Option<Inode> {
        let positions = self.positions(dir)?;
        let name_at = |position: &u32| self.row(*position).map(|row| self.name(row)).unwrap_or_default();
        let at = positions.binary_search_by(|position| name_at(position).cmp(name)).ok()?;
        positions.get(at).map(|position| self.inode_of(*position))
    }

    /// The names of a directory in a stable order, from after a cookie (0: from the first). None where it is no directory.
    pub fn children(&self, dir: Inode, after: u64) -> Option<impl Iterator<Item = Child<'_>>> {
        let positions = self.positions(dir)?;
        let from = positions.partition_point(|position| u64::from(*position) < after);
        Some(positions.get(from..).unwrap_or_default().iter().filter_map(move |position| {
            let row = self.row(*position)?;
            Some(Child { name: self.name(row), inode: self.inode_of(*position), cookie: u64::from(*position) + 1 })
        }))
    }

    /// The directory that a node (by its first name) is in; the root's is the root.
    pub fn parent(&self, inode: Inode) -> Option<Inode> {
        self.row(inode.0).map(|row| Inode(row.parent))
    }

    fn path_of(&self, mut position: u32) -> Vec<u8> {
        let mut names = Vec::new();
        while let Some(row) = self.row(position).filter(|_| position != Inode::ROOT.0) {
            names.push(self.name(row));
            position = row.parent;
        }
        if names.is_empty() {
            return b"/".to_vec();
        }
        names.iter().rev().fold(Vec::new(), |mut path, name| {
            path.push(b'/');
            path.extend_from_slice(name);
            path
        })
    }

    /// The first path of a node.
    pub fn path(&self, inode: Inode) -> Vec<u8> {
        self.path_of(inode.0)
    }

    /// The node at a path, as it is written: symlinks are not followed.
    pub fn find(&self, path: &[u8]) -> Option<Inode> {
        let names = path.strip_prefix(b"/")?;
        if names.is_empty() {
            return Some(Inode::ROOT);
        }
        names.split(|c| *c == b'/').try_fold(Inode::ROOT, |dir, name| self.lookup(dir, name))
    }

    /// All entries in the order of the text: a directory before what is in it.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (1u32..).zip(&self.rows).map(|(position, row)| Entry {
            path: self.path_of(position),
            inode: self.inode_of(position),
            is_link: row.kind == Kind::Link,
        })
    }

    /// The contents that this tree needs, by digest and size; those of equal files come as often as there are files.
    pub fn contents(&self) -> impl Iterator<Item = (Digest, u64)> + '_ {
        self.files.iter().map(|contents| (contents.digest, contents.size))
    }
}
