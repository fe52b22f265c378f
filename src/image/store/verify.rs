//! Whether all objects of an index are there and are what they are called; setting aside those that are not.
//!
//! Leaves out healing: an import of the same image writes anew what was set aside. Invariant: every byte is read from the file (though perhaps from
//! the page cache), whatever was verified before. Shown by `tests/importing/store.rs`.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use super::super::digest::Digest;
use super::super::index::{Inode, Node, escaped};
use super::{Objects, StoreError, hash_from_start, io_error};

/// Paths that are told of one object.
const PATHS_TOLD: usize = 16;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    Missing,
    Size { found: u64, expected: u64 },
    Flipped { found: Digest },
    Unreadable { because: String },
}

/// An object, what is wrong with it and which paths use it (the first of them, as the index writes them).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    pub digest: Digest,
    pub damage: Damage,
    pub paths: Vec<String>,
    pub more_paths: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    pub objects: u64,
    pub bytes: u64,
    pub damaged: Vec<Damaged>,
}

impl Objects {
    fn damage(&self, digest: &Digest, size: u64) -> Option<Damage> {
        let file = match self.open(digest, size) {
            Ok(file) => file,
            Err(StoreError::Missing { .. }) => return Some(Damage::Missing),
            Err(StoreError::Size { found, expected, .. }) => return Some(Damage::Size { found, expected }),
            Err(StoreError::Io { source, .. }) => return Some(Damage::Unreadable { because: source.to_string() }),
            Err(other) => return Some(Damage::Unreadable { because: other.to_string() }),
        };
        match hash_from_start(&file) {
            Ok(found) if found == *digest => None,
            Ok(found) => Some(Damage::Flipped { found }),
            Err(e) => Some(Damage::Unreadable { because: e.to_string() }),
        }
    }

    /// Hashes the index and every object that it names.
    pub fn verify(&self, index: &Digest) -> Result<Verification, StoreError> {
        let index = self.index(index)?;
        let mut users: BTreeMap<Digest, (u64, Vec<Inode>)> = BTreeMap::new();
        for entry in index.entries().filter(|entry| !entry.is_link) {
            if let Some(Node::File { size, digest }) = index.attributes(entry.inode).map(|attributes| attributes.node) {
                users.entry(digest).or_insert((size, Vec::new())).1.push(entry.inode);
            }
        }
        let mut report = Verification { objects: 0, bytes: 0, damaged: Vec::new() };
        for (digest, (size, inodes)) in users {
            report.objects += 1;
            report.bytes += size;
            if let Some(damage) = self.damage(&digest, size) {
                let paths = inodes.iter().take(PATHS_TOLD).map(|inode| escaped(&index.path(*inode))).collect();
                let more_paths = inodes.len().saturating_sub(PATHS_TOLD);
                report.damaged.push(Damaged { digest, damage, paths, more_paths });
            }
        }
        Ok(report)
    }

    /// Moves an object to `damaged/`, so that the next import of what it should be writes it anew.
    pub fn set_aside(&self, digest: &Digest) -> Result<(), StoreError> {
        let dir = self.root.join("damaged");
        fs::create_dir_all(&dir).map_err(io_error("make the directory", &dir))?;
        let path = self.object_path(digest);
        fs::rename(&path, dir.join(digest.to_string())).map_err(io_error("move aside", &path))
    }
}
