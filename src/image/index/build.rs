//! Building an index, entry by entry in the order of paths: the one place where what an index promises is checked.
//!
//! Leaves out where entries come from (`text` and `tree`). Invariant: what `finish` gives was checked entry by entry. Shown by
//! `tests/importing/index.rs`.

use std::cmp::Ordering;

use super::super::digest::Digest;
use super::text::escaped;
use super::{Attributes, Contents, Index, Inode, Kind, MOST_ENTRIES, MOST_TEXT, NAME_LONGEST, Node, PATH_LONGEST, Row};

/// Linux has 12 bits of a major and 20 of a minor number: MINORBITS, linux/kdev_t.h.
const MAJOR_HIGHEST: u32 = (1 << 12) - 1;
const MINOR_HIGHEST: u32 = (1 << 20) - 1;

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub found: String,
    pub expected: String,
}

fn fault(found: impl Into<String>, expected: impl Into<String>) -> Fault {
    Fault { found: found.into(), expected: expected.into() }
}

/// What was pushed so far. Paths are kept whole until the end: parents and hard links are found in them.
#[derive(Debug, Default)]
pub struct Builder {
    rows: Vec<Row>,
    files: Vec<Contents>,
    bytes: Vec<u8>,
    paths: Vec<u8>,
    ends: Vec<usize>,
    total_bytes: u64,
}

/// Checks the components of an absolute path; gives its parent and its name (both empty for the root).
fn split(path: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let shown = || escaped(path).chars().take(200).collect::<String>();
    if path.len() > PATH_LONGEST {
        return Err(fault(format!("a path of {} bytes, {}…", path.len(), shown()), format!("at most {PATH_LONGEST} bytes")));
    }
    let Some(inner) = path.strip_prefix(b"/") else { return Err(fault(format!("the path {:?}", shown()), "a path that begins with /")) };
    if inner.is_empty() {
        return Ok((b"", b""));
    }
    for name in inner.split(|c| *c == b'/') {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&0) {
            return Err(fault(format!("the path {:?}", shown()), "no component that is empty, . or .. or has a NUL"));
        }
        if name.len() > NAME_LONGEST {
            return Err(fault(format!("a name of {} bytes in {:?}", name.len(), shown()), format!("at most {NAME_LONGEST} bytes")));
        }
    }
    let slash = path.iter().rposition(|c| *c == b'/').unwrap_or_default();
    Ok((path.get(..slash.max(1)).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()))
}

impl Builder {
    fn path_at(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.ends.get(at).and_then(|end| self.paths.get(from..*end)).unwrap_or_default()
    }

    /// The position of a path that was pushed.
    fn position(&self, path: &[u8]) -> Option<u32> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.path_at(middle).cmp(path) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return u32::try_from(middle + 1).ok(),
            }
        }
        None
    }

    fn row(&self, position: u32) -> Option<&Row> {
        self.rows.get((position as usize).checked_sub(1)?)
    }

    fn row_mut(&mut self, position: u32) -> Option<&mut Row> {
        self.rows.get_mut((position as usize).checked_sub(1)?)
    }

    /// Remembers bytes; where they are.
    fn keep(&mut self, bytes: &[u8]) -> u32 {
        let at = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(bytes);
        at
    }

    /// Checks a path against those before it; gives the position of its parent and its name.
    fn place<'p>(&self, path: &'p [u8]) -> Result<(u32, &'p [u8]), Fault> {
        let (parent, name) = split(path)?;
        let shown = escaped(path);
        if self.rows.len() >= MOST_ENTRIES {
            return Err(fault(format!("more than {MOST_ENTRIES} entries"), format!("at most {MOST_ENTRIES}")));
        }
        if self.paths.len() + path.len() > MOST_TEXT {
            return Err(fault(format!("more than {MOST_TEXT} bytes of paths"), format!("at most {MOST_TEXT}")));
        }
        if self.rows.is_empty() != name.is_empty() {
            return Err(fault(format!("the path {shown:?}"), "/ as the first entry, and once"));
        }
        if self.rows.is_empty() {
            return Ok((Inode::ROOT.0, name));
        }
        let before = self.path_at(self.ends.len() - 1);
        if before >= path {
            return Err(fault(format!("{shown:?} after {:?}", escaped(before)), "paths in the order of their bytes, each once"));
        }
        let is_directory = |position: &u32| self.row(*position).is_some_and(|row| row.kind == Kind::Directory);
        match self.position(parent).filter(is_directory) {
            Some(position) => Ok((position, name)),
            None => Err(fault(format!("{shown:?}"), format!("{:?} as a directory before it", escaped(parent)))),
        }
    }

    fn add(&mut self, path: &[u8], parent: u32, row: Row) {
        let directory = row.kind == Kind::Directory;
        let is_root = self.rows.is_empty();
        self.rows.push(row);
        self.paths.extend_from_slice(path);
        self.ends.push(self.paths.len());
        if let Some(parent) = self.row_mut(parent).filter(|_| !is_root) {
            parent.b += 1;
            parent.links += u32::from(directory);
        }
    }

    /// Adds the first entry of a node.
    pub fn push(&mut self, path: &[u8], attributes: &Attributes<'_>) -> Result<(), Fault> {
        let (parent, name) = self.place(path)?;
        if attributes.mode > 0o7777 {
            return Err(fault(format!("the mode {:o}", attributes.mode), "a mode of at most 7777"));
        }
        if name.is_empty() && attributes.node != Node::Directory {
            return Err(fault("a root that is no directory", "a directory at /"));
        }
        let (kind, a, b) = self.keep_node(attributes)?;
        let links = if kind == Kind::Directory { 2 } else { 1 };
        let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let Attributes { mode, uid, gid, mtime, .. } = *attributes;
        let name = self.keep(name);
        self.add(path, parent, Row { mtime, name, parent, uid, gid, links, a, b, mode, name_len, kind });
        Ok(())
    }

    fn keep_node(&mut self, attributes: &Attributes<'_>) -> Result<(Kind, u32, u32), Fault> {
        Ok(match &attributes.node {
            Node::Directory => (Kind::Directory, 0, 0),
            Node::Fifo => (Kind::Fifo, 0, 0),
            Node::Socket => (Kind::Socket, 0, 0),
            Node::File { size, digest } => {
                // A file's size is an off_t.
                let total = self.total_bytes.checked_add(*size).filter(|total| i64::try_from(*total).is_ok());
                self.total_bytes = total.ok_or_else(|| fault(format!("a size of {size}"), "a sum of sizes below 2^63"))?;
                self.files.push(Contents { size: *size, digest: *digest });
                (Kind::File, u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX), 0)
            }
            Node::Symlink { target } => {
                if attributes.mode != 0o777 {
                    return Err(fault(format!("a symlink of mode {:o}", attributes.mode), "777, as Linux has it"));
                }
                if target.is_empty() || target.len() >= PATH_LONGEST || target.contains(&0) {
                    let found = format!("a symlink's target of {} bytes, {:?}", target.len(), escaped(target.get(..200).unwrap_or(target)));
                    return Err(fault(found, format!("1 to {} bytes, none of them NUL", PATH_LONGEST - 1)));
                }
                (Kind::Symlink, self.keep(target), u32::try_from(target.len()).unwrap_or(u32::MAX))
            }
            Node::Char { major, minor } | Node::Block { major, minor } => {
                if *major > MAJOR_HIGHEST || *minor > MINOR_HIGHEST {
                    return Err(fault(format!("the device {major},{minor}"), format!("at most {MAJOR_HIGHEST},{MINOR_HIGHEST}")));
                }
                (if matches!(attributes.node, Node::Char { .. }) { Kind::Char } else { Kind::Block }, *major, *minor)
            }
        })
    }

    /// Adds a further name of the file whose first path is `first`.
    pub(crate) fn push_link(&mut self, path: &[u8], first: &[u8]) -> Result<(), Fault> {
        let (parent, name) = self.place(path)?;
        let is_file = |position: &u32| self.row(*position).is_some_and(|row| row.kind == Kind::File);
        let Some(a) = self.position(first).filter(is_file) else {
            return Err(fault(format!("a hard link to {:?}", escaped(first)), "the first path of a file (f), before it"));
        };
        let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let name = self.keep(name);
        if let Some(file) = self.row_mut(a) {
            file.links += 1;
        }
        let kind = Kind::Link;
        self.add(path, parent, Row { mtime: 0, name, parent, uid: 0, gid: 0, links: 0, a, b: 0, mode: 0, name_len, kind });
        Ok(())
    }

    /// The positions of children, by directory.
    fn children(&mut self) -> Vec<u32> {
        let mut next = Vec::with_capacity(self.rows.len());
        let mut begun = 0;
        for row in &mut self.rows {
            next.push(begun);
            if row.kind == Kind::Directory {
                row.a = begun;
                begun += row.b;
            }
        }
        let mut children = vec![0; begun as usize];
        for (position, row) in (1u32..).zip(&self.rows).skip(1) {
            let Some(free) = next.get_mut((row.parent as usize).saturating_sub(1)) else { continue };
            if let Some(child) = children.get_mut(*free as usize) {
                *child = position;
            }
            *free += 1;
        }
        children
    }

    /// Equal contents have one size: the position of a file that says otherwise.
    fn disagrees(&self) -> Option<(u32, Fault)> {
        let mut order: Vec<u32> = (0u32..).take(self.files.len()).collect();
        let key = |at: &u32| self.files.get(*at as usize).map(|contents| (contents.digest, contents.size));
        order.sort_unstable_by_key(key);
        let differ = |pair: &&[u32]| match pair {
            [one, other] => key(one).map(|k| k.0) == key(other).map(|k| k.0) && key(one) != key(other),
            _ => false,
        };
        let pair = order.windows(2).find(differ)?;
        let (one, other): ((Digest, u64), (Digest, u64)) = (key(pair.first()?)?, key(pair.last()?)?);
        let at = self.rows.iter().position(|row| row.kind == Kind::File && Some(&row.a) == pair.last())?;
        let found = format!("the sizes {} and {} of {}", one.1, other.1, one.0);
        Some((u32::try_from(at + 1).ok()?, fault(found, "one size for one digest")))
    }

    /// The index; or at which entry it is wrong.
    pub fn finish(mut self) -> Result<Index, (u32, Fault)> {
        if self.rows.is_empty() {
            return Err((1, fault("no entry", "a directory at /")));
        }
        if let Some(found) = self.disagrees() {
            return Err(found);
        }
        let children = self.children();
        self.rows.shrink_to_fit();
        self.bytes.shrink_to_fit();
        self.files.shrink_to_fit();
        Ok(Index { rows: self.rows, files: self.files, bytes: self.bytes, children, total_bytes: self.total_bytes })
    }
}
