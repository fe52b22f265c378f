//! Takes out of an image what belongs to the one machine that it was made on: named steps, each with a report, each of which can be switched off.
//!
//! Leaves out what is put in its place at boot (hostname, addresses, host keys), and logs. Steps work on the tree alone; where contents change
//! (fstab, crypttab) there is a new object and the old one is not kept. Invariants: a step does the same to a tree that it was done to (nothing); a
//! path is changed itself, never what a symlink or a hard link of it names. Shown by `tests/importing/generalise.rs`.

mod identity;
mod mounts;
mod network;

use std::collections::BTreeSet;

use serde::Serialize;

use super::index::{Attributes, Node, escaped};
use super::store::{Session, StoreError};
use super::tree::{Item, Tree, TreeError};

/// Configuration files are small; a larger one is left as it is.
const LARGEST: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no step {found:?}: expected some of {}", known())]
pub struct UnknownStep {
    pub found: String,
}

fn known() -> String {
    STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ")
}

#[derive(Debug, thiserror::Error)]
pub enum GeneraliseError {
    #[error("the step {step} could not keep or read contents")]
    Store { step: &'static str, source: StoreError },
    #[error("the step {step} could not change an entry")]
    Tree { step: &'static str, source: TreeError },
}

/// A step: its name, what it does, in a sentence, and the doing.
pub struct Step {
    pub name: &'static str,
    pub sentence: &'static str,
    run: fn(&mut Work<'_, '_>) -> Result<(), Fault>,
}

/// All steps, in the order in which they are done.
pub const STEPS: [Step; 11] = [
    Step { name: "machine-id", sentence: "Empties /etc/machine-id and removes the copy of D-Bus.", run: identity::machine_id },
    Step { name: "ssh-host-keys", sentence: "Removes the keys by which ssh knows a host.", run: identity::ssh_host_keys },
    Step { name: "hostname", sentence: "Removes /etc/hostname.", run: identity::hostname },
    Step { name: "fstab", sentence: "Comments out /, /usr, /boot, /efi and swap in /etc/fstab.", run: mounts::fstab },
    Step { name: "nic-names", sentence: "Removes what names or configures NICs by their MAC.", run: network::nic_names },
    Step { name: "random-seed", sentence: "Removes saved random seeds.", run: identity::random_seed },
    Step { name: "resolv", sentence: "Removes /etc/resolv.conf where it is a file.", run: network::resolv },
    Step { name: "dhcp-leases", sentence: "Removes leases and identifiers of DHCP clients.", run: network::dhcp_leases },
    Step {
        name: "cloud-init",
        sentence: "Removes what cloud-init remembers in /var/lib/cloud, but for its seed.",
        run: identity::cloud_init,
    },
    Step { name: "storage-ids", sentence: "Removes the names and sessions of iSCSI and NVMe.", run: identity::storage_ids },
    Step { name: "disks", sentence: "Removes the device to resume from and comments out /etc/crypttab.", run: mounts::disks },
];

/// Every step's name and what it does, a line each: for `--help`.
pub(crate) fn sentences() -> String {
    STEPS.iter().map(|step| format!("\n  {:<14} {}", step.name, step.sentence)).collect()
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    pub name: &'static str,
    pub sentence: &'static str,
    /// False where it was switched off.
    pub ran: bool,
    /// Paths, and what was done to them.
    pub changes: Vec<String>,
}

/// Which steps are done: all, but for those that were switched off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    off: BTreeSet<&'static str>,
}

impl Steps {
    /// All steps but those named.
    pub fn without<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Steps, UnknownStep> {
        let find = |name: &str| STEPS.iter().find(|step| step.name == name).map(|step| step.name);
        let off = names.into_iter().map(|name| find(name).ok_or_else(|| UnknownStep { found: name.chars().take(80).collect() }));
        Ok(Steps { off: off.collect::<Result<_, _>>()? })
    }

    /// No step at all.
    pub fn none() -> Steps {
        Steps { off: STEPS.iter().map(|step| step.name).collect() }
    }
}

enum Fault {
    Store(StoreError),
    Tree(TreeError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Fault {
        Fault::Tree(error)
    }
}

/// What steps work on, and what the one that runs has changed.
struct Work<'w, 'o> {
    tree: &'w mut Tree,
    session: &'w mut Session<'o>,
    changes: Vec<String>,
}

impl Work<'_, '_> {
    /// The path itself, when the symlinks of its directory were followed; None where nothing is there.
    fn at(&self, path: &str) -> Option<Vec<u8>> {
        let (dir, name) = path.rsplit_once('/')?;
        let (dir, _) = self.tree.resolve(if dir.is_empty() { b"/" } else { dir.as_bytes() })?;
        let path = if dir == b"/" { format!("/{name}").into_bytes() } else { [&dir, &b"/"[..], name.as_bytes()].concat() };
        self.tree.get(&path).map(|_| path)
    }

    fn node(&self, path: &[u8]) -> Option<&Node<'static>> {
        self.tree.get(path).map(|item| &item.attributes.node)
    }

    fn is_symlink(&self, path: &[u8]) -> bool {
        matches!(self.node(path), Some(Node::Symlink { .. }))
    }

    /// Paths in a directory, symlinks to it followed.
    fn list(&self, dir: &str) -> Vec<Vec<u8>> {
        let dir = self.tree.resolve(dir.as_bytes()).map(|(dir, _)| dir);
        dir.map(|dir| self.tree.list(&dir).map(|(path, _)| path.to_vec()).collect()).unwrap_or_default()
    }

    fn remove(&mut self, path: &[u8]) {
        if self.tree.remove(path) {
            self.changes.push(format!("{} removed", escaped(path)));
        }
    }

    /// Removes a path that may be there.
    fn remove_at(&mut self, path: &str) {
        if let Some(path) = self.at(path) {
            self.remove(&path);
        }
    }

    /// Removes the files of a directory whose names are meant.
    fn remove_named(&mut self, dir: &str, is_meant: impl Fn(&str) -> bool) {
        for path in self.list(dir) {
            let name = path.rsplit(|c| *c == b'/').next().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            if is_meant(name) && self.node(&path) != Some(&Node::Directory) {
                self.remove(&path);
            }
        }
    }

    /// The contents of a configuration file; None where it is none, is not text or is too large.
    fn text(&self, path: &[u8]) -> Result<Option<String>, Fault> {
        match self.node(path) {
            Some(Node::File { size, digest }) if *size <= LARGEST => Ok(String::from_utf8(self.session.read(digest, *size, LARGEST)?).ok()),
            _ => Ok(None),
        }
    }

    /// Gives a path contents of its own, and what else it had.
    fn write(&mut self, path: &[u8], contents: &[u8], what: &str) -> Result<(), Fault> {
        let (digest, size) = self.session.add_bytes(contents)?;
        let node = Node::File { size, digest };
        let attributes = match self.tree.get(path).map(|item| &item.attributes) {
            Some(Attributes { mode, uid, gid, mtime, node: Node::File { .. } }) => {
                Attributes { mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, node }
            }
            _ => Attributes { mode: 0o444, uid: 0, gid: 0, mtime: 0, node },
        };
        self.tree.insert(path, Item::new(attributes))?;
        self.changes.push(format!("{} {what}", escaped(path)));
        Ok(())
    }

    /// Comments lines out; what is told of each line that was.
    fn comment_out(&mut self, path: &[u8], mut is_meant: impl FnMut(&[&str]) -> bool) -> Result<(), Fault> {
        let Some(text) = self.text(path)? else { return Ok(()) };
        let mut told = Vec::new();
        let mut changed = String::with_capacity(text.len() + 64);
        for line in text.split_inclusive('\n') {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.first().is_some_and(|first| !first.starts_with('#')) && is_meant(&fields) {
                changed.push_str("# taken out for network boot: ");
                told.push(fields.into_iter().take(2).collect::<Vec<_>>().join(" "));
            }
            changed.push_str(line);
        }
        if told.is_empty() { Ok(()) } else { self.write(path, changed.as_bytes(), &format!("without {}", told.join(", "))) }
    }
}

/// Does the steps; a report for each, also for those that are switched off or found nothing.
pub(crate) fn generalise(tree: &mut Tree, session: &mut Session<'_>, steps: &Steps) -> Result<Vec<StepReport>, GeneraliseError> {
    let mut reports = Vec::with_capacity(STEPS.len());
    for Step { name, sentence, run } in &STEPS {
        let ran = !steps.off.contains(name);
        let mut work = Work { tree, session, changes: Vec::new() };
        if ran {
            run(&mut work).map_err(|fault| match fault {
                Fault::Store(source) => GeneraliseError::Store { step: name, source },
                Fault::Tree(source) => GeneraliseError::Tree { step: name, source },
            })?;
        }
        reports.push(StepReport { name, sentence, ran, changes: work.changes });
    }
    Ok(reports)
}
