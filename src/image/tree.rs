//! A tree while it is read: paths in any order, replaced, linked and taken away by layers, and turned into an `Index` at the end.
//!
//! Leaves out contents and where entries come from (`source`). Nothing here touches a file system, so a symlink as a parent directory is followed
//! within the tree, as containers' runtimes do, and cannot lead out of it. Invariants: a path's parents are directories of this tree; the last entry
//! of a path wins; what a layer takes away is never its own. Shown by the tests in `tree/tests.rs` and by `tests/importing/tar.rs`,
//! `tests/importing/oci.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::index::{Attributes, Builder, Fault, Index, Node, PATH_LONGEST, escaped};

/// MAXSYMLINKS, linux/namei.h.
const SYMLINKS_FOLLOWED: usize = 40;

/// What a tree may grow to, against archives that are made to fill a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries that are read, replaced ones included.
    pub entries: u64,
    /// Bytes that are unpacked, of contents and headers.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: super::index::MOST_ENTRIES as u64, bytes: 256 << 30 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("the path {path:?} leads out of the image: expected no component \"..\"")]
    Outside { path: String },
    #[error("{path:?}: {parent:?} is no directory; expected every parent of a path to be one")]
    ParentIsNoDirectory { path: String, parent: String },
    #[error("{path:?}: more than {SYMLINKS_FOLLOWED} symlinks lead to its directory; expected no loop of symlinks")]
    Loop { path: String },
    #[error("{path:?} is a hard link to {target:?}: expected a file that comes before it and is no directory")]
    LinkWithoutTarget { path: String, target: String },
    #[error("{path:?}: found {found}, expected {expected}")]
    Entry { path: String, found: String, expected: String },
    #[error("more than {most} entries were read: expected fewer; if the image is really as large, raise the limit")]
    TooManyEntries { most: u64 },
}

/// A node of the tree: what an index will have of it, and what only warnings need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub attributes: Attributes<'static>,
    /// It has file capabilities, which NFS does not carry.
    pub has_capabilities: bool,
    /// It has an SELinux label, which NFS does not carry.
    pub has_label: bool,
}

impl Item {
    pub fn new(attributes: Attributes<'static>) -> Item {
        Item { attributes, has_capabilities: false, has_label: false }
    }

    fn directory() -> Item {
        Item::new(Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0, node: Node::Directory })
    }
}

/// Which item a path names, and in which layer it was last written.
#[derive(Debug, Clone, Copy)]
struct Slot {
    item: usize,
    layer: u32,
}

#[derive(Debug)]
pub struct Tree {
    slots: BTreeMap<Box<[u8]>, Slot>,
    items: Vec<Item>,
    layer: u32,
    most: u64,
}

/// A path without `.`, empty components and the leading slash of tar, absolute.
fn normal(raw: &[u8]) -> Result<Vec<u8>, TreeError> {
    let mut path = Vec::with_capacity(raw.len() + 1);
    for name in raw.split(|c| *c == b'/').filter(|name| !name.is_empty() && *name != b".") {
        if name == b".." {
            return Err(TreeError::Outside { path: escaped(raw) });
        }
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(path)
}

/// Parent and name of a normal path; None for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|c| *c == b'/')?;
    let name = path.get(slash + 1..).filter(|name| !name.is_empty())?;
    path.get(..slash.max(1)).map(|parent| (parent, name))
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let dir = if dir == b"/" { b"" } else { dir };
    [dir, b"/", name].concat()
}

/// The bounds of all paths below a directory: from `dir/` to before `dir0`, the byte after the slash.
fn below(dir: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let dir = if dir == b"/" { b"" } else { dir };
    (Bound::Excluded([dir, b"/"].concat()), Bound::Excluded([dir, b"0"].concat()))
}

impl Tree {
    pub fn new(limits: Limits) -> Tree {
        let root = Slot { item: 0, layer: 0 };
        Tree { slots: BTreeMap::from([(b"/".to_vec().into(), root)]), items: vec![Item::directory()], layer: 0, most: limits.entries }
    }

    /// From now on whiteouts take away what came before now.
    pub(crate) fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Whether nothing but the root is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.len() == 1
    }

    /// The item at a path, as it is written.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Item> {
        self.slots.get(path).and_then(|slot| self.items.get(slot.item))
    }

    #[cfg(test)]
    pub(crate) fn get_mut(&mut self, path: &[u8]) -> Option<&mut Item> {
        self.slots.get(path).and_then(|slot| self.items.get_mut(slot.item))
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        self.get(path).is_some_and(|item| item.attributes.node == Node::Directory)
    }

    /// The path that symlinks lead to; the last component is followed as well. It need not exist.
    fn follow(&self, path: &[u8]) -> Result<Vec<u8>, TreeError> {
        let mut left: Vec<Vec<u8>> = path.split(|c| *c == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut at = b"/".to_vec();
        let mut followed = 0;
        while let Some(name) = left.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                // The parent of the root is the root, as in a chroot.
                b".." => {
                    at = split(&at).map_or(b"/".to_vec(), |(parent, _)| parent.to_vec());
                    continue;
                }
                _ => {}
            }
            let next = join(&at, &name);
            let Some(Node::Symlink { target }) = self.get(&next).map(|item| &item.attributes.node) else {
                at = next;
                continue;
            };
            followed += 1;
            // A target has at most 4095 bytes, so this also bounds the memory.
            if followed > SYMLINKS_FOLLOWED {
                return Err(TreeError::Loop { path: escaped(path) });
            }
            if target.starts_with(b"/") {
                at = b"/".to_vec();
            }
            left.extend(target.split(|c| *c == b'/').rev().map(<[u8]>::to_vec));
        }
        Ok(at)
    }

    /// The item that a path leads to when symlinks are followed, and its own path.
    pub(crate) fn resolve(&self, path: &[u8]) -> Option<(Vec<u8>, &Item)> {
        let path = self.follow(path).ok()?;
        self.get(&path).map(|item| (path.clone(), item))
    }

    fn add(&mut self, item: Item) -> Result<usize, TreeError> {
        if self.items.len() as u64 > self.most {
            return Err(TreeError::TooManyEntries { most: self.most });
        }
        self.items.push(item);
        Ok(self.items.len() - 1)
    }

    /// Where a path from an archive belongs: the symlinks of its parents are followed.
    fn locate(&self, raw: &[u8]) -> Result<Vec<u8>, TreeError> {
        if raw.len() > PATH_LONGEST {
            let found = format!("a path of {} bytes", raw.len());
            let path = escaped(raw.get(..200).unwrap_or(raw));
            return Err(TreeError::Entry { path, found, expected: format!("at most {PATH_LONGEST}") });
        }
        let path = normal(raw)?;
        match split(&path) {
            Some((parent, name)) if !self.is_directory(parent) => Ok(join(&self.follow(parent)?, name)),
            _ => Ok(path),
        }
    }

    /// Where a path belongs; missing parents are made.
    fn place(&mut self, raw: &[u8]) -> Result<Vec<u8>, TreeError> {
        let path = self.locate(raw)?;
        if let Some((parent, _)) = split(&path) {
            self.make_directory(parent, raw)?;
        }
        Ok(path)
    }

    /// Makes what is missing of a directory whose path has no symlink, and marks all of it as this layer's.
    fn make_directory(&mut self, dir: &[u8], whose: &[u8]) -> Result<(), TreeError> {
        let mut at = Some(dir);
        let mut missing = Vec::new();
        while let Some(path) = at {
            match self.slots.get_mut(path) {
                Some(slot) if self.items.get(slot.item).is_some_and(|item| item.attributes.node == Node::Directory) => {
                    if slot.layer == self.layer {
                        break;
                    }
                    slot.layer = self.layer;
                }
                Some(_) => return Err(TreeError::ParentIsNoDirectory { path: escaped(whose), parent: escaped(path) }),
                None => missing.push(path.to_vec()),
            }
            at = split(path).map(|(parent, _)| parent);
        }
        for path in missing.into_iter().rev() {
            let item = self.add(Item::directory())?;
            self.slots.insert(path.into(), Slot { item, layer: self.layer });
        }
        Ok(())
    }

    /// Puts an item at a path: a directory over a directory keeps what is in it, all else is replaced with all that is below.
    pub fn insert(&mut self, raw: &[u8], item: Item) -> Result<(), TreeError> {
        let path = self.place(raw)?;
        let is_directory = item.attributes.node == Node::Directory;
        if path == b"/" && !is_directory {
            return Err(TreeError::Entry { path: "/".into(), found: "a root that is no directory".into(), expected: "one".into() });
        }
        if !is_directory && self.is_directory(&path) {
            self.remove_below(&path, u32::MAX);
        }
        let item = self.add(item)?;
        self.slots.insert(path.into(), Slot { item, layer: self.layer });
        Ok(())
    }

    /// Makes a path a further name of what another path names now.
    pub fn link(&mut self, raw: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let path = self.place(raw)?;
        let error = || TreeError::LinkWithoutTarget { path: escaped(raw), target: escaped(target) };
        let target = normal(target)?;
        let (parent, name) = split(&target).ok_or_else(error)?;
        // The last component is not followed: a hard link to a symlink is one.
        let target = join(&self.follow(parent)?, name);
        let slot = self.slots.get(target.as_slice()).copied().filter(|_| !self.is_directory(&target)).ok_or_else(error)?;
        if target == path {
            return Ok(());
        }
        if self.is_directory(&path) {
            self.remove_below(&path, u32::MAX);
        }
        if self.slots.len() as u64 > self.most {
            return Err(TreeError::TooManyEntries { most: self.most });
        }
        self.slots.insert(path.into(), Slot { item: slot.item, layer: self.layer });
        Ok(())
    }

    /// Takes away what is below a directory and was written in a layer before `layer`.
    fn remove_below(&mut self, dir: &[u8], layer: u32) {
        let gone: Vec<_> =
            self.slots.range::<[u8], _>(refs(&below(dir))).filter(|(_, s)| s.layer < layer).map(|(p, _)| p.clone()).collect();
        for path in gone {
            self.slots.remove(&path);
        }
    }

    /// A layer's word that a path of the layers below is gone. What this layer writes there, before or after, stays.
    pub(crate) fn whiteout(&mut self, raw: &[u8]) -> Result<(), TreeError> {
        let path = self.locate(raw)?;
        self.remove_below(&path, self.layer);
        if path != b"/" && self.slots.get(path.as_slice()).is_some_and(|slot| slot.layer < self.layer) {
            self.slots.remove(path.as_slice());
        }
        Ok(())
    }

    /// A layer's word that nothing in a directory is of the layers below.
    pub(crate) fn opaque(&mut self, raw: &[u8]) -> Result<(), TreeError> {
        let path = self.follow(&normal(raw)?)?;
        self.remove_below(&path, self.layer);
        Ok(())
    }

    /// Takes a path away, with all that is below; whether there was one.
    pub(crate) fn remove(&mut self, path: &[u8]) -> bool {
        self.remove_below(path, u32::MAX);
        path != b"/" && self.slots.remove(path).is_some()
    }

    /// Paths and items in a directory (its path as written), in the order of names.
    pub(crate) fn list<'t>(&'t self, dir: &[u8]) -> impl Iterator<Item = (&'t [u8], &'t Item)> + use<'t> {
        let (mut from, to) = below(dir);
        let depth = if dir == b"/" { 1 } else { dir.len() + 1 };
        std::iter::from_fn(move || {
            loop {
                let (path, slot) = self.slots.range::<[u8], _>(refs(&(from.clone(), to.clone()))).next()?;
                let inner = path.get(depth..)?.iter().position(|c| *c == b'/');
                let Some(inner) = inner else {
                    from = Bound::Excluded(path.to_vec());
                    return self.items.get(slot.item).map(|item| (&**path, item));
                };
                // Below a child that was given already: go on behind all of it.
                from = Bound::Included([path.get(..depth + inner)?, b"0"].concat());
            }
        })
    }

    /// All paths and items below a directory.
    pub(crate) fn walk<'t>(&'t self, dir: &[u8]) -> impl Iterator<Item = (&'t [u8], &'t Item)> + use<'t> {
        let paths = self.slots.range::<[u8], _>(refs(&below(dir)));
        paths.filter_map(|(path, slot)| self.items.get(slot.item).map(|item| (&**path, item)))
    }

    /// The index of what is here now.
    pub fn index(&self) -> Result<Index, TreeError> {
        let at = |path: &[u8]| {
            let path = escaped(path.get(..400).unwrap_or(path));
            move |Fault { found, expected }: Fault| TreeError::Entry { path, found, expected }
        };
        let mut builder = Builder::default();
        let mut first: Vec<Option<&[u8]>> = vec![None; self.items.len()];
        for (path, slot) in &self.slots {
            let (Some(item), Some(first)) = (self.items.get(slot.item), first.get_mut(slot.item)) else { continue };
            let is_file = matches!(item.attributes.node, Node::File { .. });
            match first {
                // Further names of symlinks and devices are nodes of their own.
                Some(first) if is_file => builder.push_link(path, first).map_err(at(path))?,
                _ => builder.push(path, &item.attributes).map_err(at(path))?,
            }
            first.get_or_insert(path);
        }
        builder.finish().map_err(|(_, fault)| at(b"/")(fault))
    }
}

fn refs(bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice))
}

/// A symlink's target, owned.
pub(crate) fn symlink(target: &[u8]) -> Node<'static> {
    Node::Symlink { target: Cow::Owned(target.to_vec()) }
}

#[cfg(test)]
mod tests;
