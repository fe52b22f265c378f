//! What must not have two owners at one time: a root that is written, a disk, an initiator's name, an address, an exclusive persona.
//!
//! One function says what a persona claims, for manifests (`manifest::lint`) and for bodies (`plan::fence`); and one says whether two claims
//! are about the same thing. Leaves out: whose claim comes first. The disk of a machine is no claim: nobody else can write it.
//! Invariant: `overlaps` is symmetric, and a claim overlaps itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::persona::{PersonaSpec, RootMode};
use super::{BindingSpec, HostPort, Name};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Claim {
    /// A directory that is written: normalised, from `/`.
    Directory {
        server: String,
        path: String,
    },
    /// A logical unit that is written: the target's name, which is one in the world (RFC 7143, 4.2.7), or a WWPN; and the number.
    Unit {
        target: String,
        lun: u16,
    },
    Initiator(String),
    Address(IpAddr),
    /// An exclusive persona.
    Persona(Name),
}

impl Claim {
    /// Whether both are about the same thing: equal, or one directory in the other.
    pub fn overlaps(&self, other: &Claim) -> bool {
        match (self, other) {
            (Claim::Directory { server: a, path: p }, Claim::Directory { server: b, path: q }) => same_host(a, b) && nested(p, q),
            (a, b) => a == b,
        }
    }
}

/// What a persona claims in the life that a binding gives it.
pub fn claims(name: &Name, persona: &PersonaSpec, binding: Option<&BindingSpec>) -> BTreeSet<Claim> {
    let mut claims = root_claims(persona);
    if persona.is_exclusive() {
        claims.insert(Claim::Persona(name.clone()));
    }
    for nic in &persona.nics {
        let untagged = binding.map_or(nic.address, |binding| binding.address(nic));
        let tagged = |network: &Name| match binding {
            Some(binding) => binding.tagged_address(nic, network),
            None => nic.tagged_addresses.get(network).copied(),
        };
        let all = untagged.into_iter().chain(nic.tagged.iter().filter_map(tagged));
        claims.extend(all.map(|address| Claim::Address(bare(address.addr()))));
    }
    if let Some(initiator) = persona.root.iscsi.as_ref().and_then(|i| i.initiator.as_ref()) {
        // RFC 7143, 4.2.7.1: names compare without regard to case.
        claims.insert(Claim::Initiator(initiator.to_ascii_lowercase()));
    }
    claims
}

/// The claim on the root alone, where it is written.
pub(crate) fn root_claims(persona: &PersonaSpec) -> BTreeSet<Claim> {
    root(persona).filter(|root| root.written).map(|root| root.claim).into_iter().collect()
}

/// A root that several machines can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedRoot {
    /// What its users would claim if all of them wrote it.
    pub claim: Claim,
    pub written: bool,
    /// The field of `spec.root` that names it.
    pub field: &'static str,
}

/// Nothing for a disk of the machine's own.
pub(crate) fn root(persona: &PersonaSpec) -> Option<SharedRoot> {
    let root = &persona.root;
    let unit = |target: &str, lun| Claim::Unit { target: target.to_ascii_lowercase(), lun };
    let written = |mode| mode == RootMode::Writable;
    if let Some(nfs) = &root.nfs {
        return Some(SharedRoot { claim: directory(&nfs.server, &nfs.path), written: written(nfs.mode), field: "nfs" });
    }
    if let Some(iscsi) = &root.iscsi {
        return Some(SharedRoot { claim: unit(&iscsi.target, iscsi.lun), written: written(iscsi.mode), field: "iscsi" });
    }
    root.fc.as_ref().map(|fc| SharedRoot { claim: unit(&fc.wwpn, fc.lun), written: true, field: "fc" })
}

/// A directory of an NFS server, whoever writes it how.
pub fn directory(server: &HostPort, path: &str) -> Claim {
    Claim::Directory { server: host(server), path: normal(path) }
}

/// Lower case, without a port, without the dot at the end; an IPv4 address in IPv6 form is that address.
fn host(address: &HostPort) -> String {
    let text = address.host.trim_end_matches('.').to_ascii_lowercase();
    text.trim_matches(['[', ']']).parse::<IpAddr>().map_or(text, |ip| bare(ip).to_string())
}

/// An IPv4 address in IPv6 form is that address.
pub(crate) fn bare(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A name and an address may be one server, and so may a name and its longer form: what cannot be told apart counts as the same.
fn same_host(a: &str, b: &str) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().is_ok();
    let first = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
    match (address(a), address(b)) {
        (true, true) => a == b,
        (true, false) | (false, true) => true,
        (false, false) => a == b || (first(a) == first(b) && a.contains('.') != b.contains('.')),
    }
}

/// `/p//a/./b/../c/` is `/p/a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

fn nested(a: &str, b: &str) -> bool {
    let inside =
        |outer: &str, inner: &str| outer == "/" || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    inside(a, b) || inside(b, a)
}

/// Who has which claims, found without a walk over all of them.
#[derive(Debug, Clone)]
pub(crate) struct ClaimIndex<O> {
    exact: BTreeMap<Claim, BTreeSet<O>>,
    /// By path, then by server.
    directories: BTreeMap<String, BTreeSet<(String, O)>>,
}

impl<O> Default for ClaimIndex<O> {
    fn default() -> Self {
        ClaimIndex { exact: BTreeMap::new(), directories: BTreeMap::new() }
    }
}

impl<O: Ord + Clone> ClaimIndex<O> {
    pub(crate) fn insert(&mut self, claim: &Claim, owner: &O) {
        match claim {
            Claim::Directory { server, path } => {
                self.directories.entry(path.clone()).or_default().insert((server.clone(), owner.clone()));
            }
            other => drop(self.exact.entry(other.clone()).or_default().insert(owner.clone())),
        }
    }

    pub(crate) fn remove(&mut self, claim: &Claim, owner: &O) {
        match claim {
            Claim::Directory { server, path } => {
                let Some(at) = self.directories.get_mut(path) else { return };
                at.remove(&(server.clone(), owner.clone()));
                if at.is_empty() {
                    self.directories.remove(path);
                }
            }
            other => {
                let Some(owners) = self.exact.get_mut(other) else { return };
                owners.remove(owner);
                if owners.is_empty() {
                    self.exact.remove(other);
                }
            }
        }
    }

    /// The owners of claims that overlap with this one.
    pub(crate) fn overlapping(&self, claim: &Claim) -> BTreeSet<O> {
        let Claim::Directory { server, path } = claim else {
            return self.exact.get(claim).cloned().unwrap_or_default();
        };
        // The directory itself and those above it, then those in it.
        let ends = path.char_indices().filter(|(at, c)| *c == '/' && *at > 0).map(|(at, _)| at).chain([path.len()]);
        let above = ends.filter_map(|end| path.get(..end)).chain((path != "/").then_some("/"));
        let mut found: BTreeSet<O> = BTreeSet::new();
        let mut take = |at: &BTreeSet<(String, O)>| {
            found.extend(at.iter().filter(|(host, _)| same_host(host, server)).map(|(_, owner)| owner.clone()));
        };
        above.filter_map(|path| self.directories.get(path)).for_each(&mut take);
        let inside = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let below = self.directories.range(inside.clone()..).take_while(|(path, _)| path.starts_with(&inside));
        below.map(|(_, at)| at).for_each(&mut take);
        found
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Directory { server, path } => write!(f, "the writable root {server}:{path}"),
            Claim::Unit { target, lun } => write!(f, "the disk {target} unit {lun}"),
            Claim::Initiator(name) => write!(f, "the initiator {name}"),
            Claim::Address(address) => write!(f, "the address {address}"),
            Claim::Persona(name) => write!(f, "persona {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(server: &str, path: &str) -> Claim {
        directory(&server.parse().unwrap(), path)
    }

    #[test]
    fn one_directory_however_it_is_written() {
        let a = dir("10.0.20.5", "/p/apache");
        for same in [
            dir("10.0.20.5:2049", "/p/apache/"),
            dir("10.0.20.5", "//p/./apache"),
            dir("[::ffff:10.0.20.5]", "/p/x/../apache"),
            dir("10.0.20.5", "/p"),
            dir("10.0.20.5", "/p/apache/var"),
            dir("10.0.20.5", "/"),
            dir("filer", "/p/apache"),
        ] {
            assert!(a.overlaps(&same) && same.overlaps(&a), "{same}");
        }
        for other in [dir("10.0.20.6", "/p/apache"), dir("10.0.20.5", "/p/apache-2"), dir("10.0.20.5", "/q")] {
            assert!(!a.overlaps(&other) && !other.overlaps(&a), "{other}");
        }
        assert!(dir("Filer.example.com", "/p").overlaps(&dir("filer", "/p")));
        assert!(!dir("filer-a", "/p").overlaps(&dir("filer-b", "/p")));
        assert!(!dir("filer.a.example", "/p").overlaps(&dir("filer.b.example", "/p")));
    }

    #[test]
    fn the_index_finds_what_overlaps() {
        let claims = [
            dir("a", "/"),
            dir("a", "/p"),
            dir("a", "/p/q"),
            dir("a", "/p-q"),
            dir("b", "/p"),
            dir("10.0.0.1", "/p/q/r"),
            Claim::Address("10.0.0.1".parse().unwrap()),
            Claim::Unit { target: "iqn.x".into(), lun: 1 },
            Claim::Persona("p".parse().unwrap()),
        ];
        let mut index = ClaimIndex::default();
        for (n, claim) in claims.iter().enumerate() {
            index.insert(claim, &n);
        }
        for claim in &claims {
            let by_hand: BTreeSet<usize> = claims.iter().enumerate().filter(|(_, c)| c.overlaps(claim)).map(|(n, _)| n).collect();
            assert_eq!(index.overlapping(claim), by_hand, "{claim}");
        }
        for (n, claim) in claims.iter().enumerate() {
            index.remove(claim, &n);
        }
        assert!(index.exact.is_empty() && index.directories.is_empty());
    }
}
