//! The kernel of an image: the newest one that has its modules.
//!
//! Leaves out initrds (images are booted with one of ours) and unified kernel images. Invariant: version 6.1.0-10 is newer than 6.1.0-9 and than
//! 6.1.0-10-rc1; a kernel without /lib/modules/VERSION is none, since it could not mount its root. Shown by the tests below.

use std::cmp::Ordering;

use serde::Serialize;

use super::digest::Digest;
use super::index::{Node, escaped};
use super::tree::Tree;

/// A kernel: its version as `uname -r` gives it, where it is (as an index writes paths), and its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    pub version: String,
    pub path: String,
    pub digest: Digest,
    pub size: u64,
}

/// Runs of digits and of other bytes; `-rc1` comes before nothing, as `~` does in Debian's versions.
fn parts(version: &str) -> Vec<(i8, &str)> {
    let mut parts = Vec::new();
    let mut rest = version;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let rank = match part {
            _ if digits => 2,
            "-rc" | "~rc" | "~" => -1,
            _ => 1,
        };
        parts.push((rank, part));
        rest = after;
    }
    parts
}

/// Compares versions: numbers by value, other runs by their bytes.
pub(crate) fn compare_versions(one: &str, other: &str) -> Ordering {
    let (one, other) = (parts(one), parts(other));
    for at in 0..one.len().max(other.len()) {
        // The end comes before everything but a release candidate.
        let (a, b) = (one.get(at).copied().unwrap_or((0, "")), other.get(at).copied().unwrap_or((0, "")));
        let order = a.0.cmp(&b.0).then_with(|| {
            if a.0 == 2 {
                let (a, b) = (a.1.trim_start_matches('0'), b.1.trim_start_matches('0'));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            } else {
                a.1.cmp(b.1)
            }
        });
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// The kernel file at a path, symlinks followed.
fn kernel(tree: &Tree, version: &str, path: &[u8]) -> Option<Kernel> {
    let (path, item) = tree.resolve(path)?;
    match item.attributes.node {
        Node::File { size, digest } if size > 0 => Some(Kernel { version: version.to_owned(), path: escaped(&path), digest, size }),
        _ => None,
    }
}

/// The directory of a kernel's modules.
pub(crate) fn modules(tree: &Tree, version: &str) -> Option<Vec<u8>> {
    let (path, item) = tree.resolve(format!("/lib/modules/{version}").as_bytes())?;
    (item.attributes.node == Node::Directory).then_some(path)
}

/// The newest /boot/vmlinuz-VERSION with modules, or /usr/lib/modules/VERSION/vmlinuz; of one version the one in /boot.
pub(crate) fn find(tree: &Tree) -> Option<Kernel> {
    let mut found: Vec<Kernel> = Vec::new();
    let (dir, _) = tree.resolve(b"/lib/modules")?;
    for (path, _) in tree.list(&dir) {
        let name = path.rsplit(|c| *c == b'/').next().unwrap_or_default();
        let Some(version) = std::str::from_utf8(name).ok().filter(|version| modules(tree, version).is_some()) else { continue };
        let boot = kernel(tree, version, format!("/boot/vmlinuz-{version}").as_bytes());
        found.extend(boot.or_else(|| kernel(tree, version, &[path, b"/vmlinuz"].concat())));
    }
    found.into_iter().max_by(|one, other| compare_versions(&one.version, &other.version))
}

#[cfg(test)]
mod tests {
    use super::super::index::Attributes;
    use super::super::tree::{Item, Limits, symlink};
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let ascending = [
            "4.19.0-27-amd64",
            "5.4.0-9-generic",
            "5.4.0-10-generic",
            "6.1.0-rc1",
            "6.1.0",
            "6.1.0-9-amd64",
            "6.1.0-10-amd64",
            "6.10.0-1-amd64",
            "6.12.41+deb13-amd64",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare_versions(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare_versions(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare_versions("6.01", "6.1"), Ordering::Equal);
    }

    fn tree(files: &[&str], links: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Limits::default());
        let item = |mode, node| Item::new(Attributes { mode, uid: 0, gid: 0, mtime: 0, node });
        for (path, target) in links {
            tree.insert(path.as_bytes(), item(0o777, symlink(target.as_bytes()))).unwrap();
        }
        for path in files {
            let node = Node::File { size: 1, digest: Digest::of(path.as_bytes()) };
            tree.insert(path.as_bytes(), item(0o644, node)).unwrap();
        }
        tree
    }

    #[test]
    fn the_newest_kernel_with_modules_is_taken() {
        assert_eq!(find(&tree(&["etc/hosts"], &[])), None);
        assert_eq!(find(&tree(&["boot/vmlinuz-6.1.0-9"], &[])), None, "it has no modules");
        let both = ["boot/vmlinuz-6.1.0-9", "usr/lib/modules/6.1.0-9/modules.dep", "boot/vmlinuz-6.1.0-10", "usr/lib/modules/6.1.0-10/x"];
        let kernel = find(&tree(&both, &[("lib", "usr/lib")])).unwrap();
        assert_eq!((kernel.version.as_str(), kernel.path.as_str()), ("6.1.0-10", "/boot/vmlinuz-6.1.0-10"));
        let beside = ["boot/vmlinuz-6.1.0-9", "usr/lib/modules/6.1.0-9/x", "usr/lib/modules/6.2.0/vmlinuz"];
        let kernel = find(&tree(&beside, &[("lib", "usr/lib")])).unwrap();
        assert_eq!(kernel.path, "/usr/lib/modules/6.2.0/vmlinuz");
        let linked = ["usr/lib/modules/6.2.0/vmlinuz"];
        let links = [("boot/vmlinuz-6.2.0", "../usr/lib/modules/6.2.0/vmlinuz"), ("lib", "usr/lib")];
        assert_eq!(find(&tree(&linked, &links)).unwrap().path, "/usr/lib/modules/6.2.0/vmlinuz");
    }
}
