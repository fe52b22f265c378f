//! Whether a file that was found in a directory is of another tool: then it is left out, and that is said.
//!
//! Invariant: what may be an object of ours is never foreign, however wrong it is: an error is loud, and a file that is left out is not. Shown by
//! `tests/manifest.rs`.

use super::yaml::{self, Node};
use crate::model::kind::KINDS;

/// The group of our API version: a file that mentions it is ours.
const GROUP: &str = "embody.dev/";

/// Whether there are documents, and none of them is ours.
pub(super) fn is_foreign(text: &str) -> bool {
    if text.contains(GROUP) {
        return false;
    }
    let documents = yaml::documents(text);
    !documents.is_empty()
        && documents.iter().all(|document| document.parse().map_or_else(|_| !names_a_kind(document.text), |node| !is_ours(&node)))
}

/// A template of another tool may be no YAML at all.
fn names_a_kind(text: &str) -> bool {
    let kind = |line: &str| line.trim_start_matches([' ', '-']).strip_prefix("kind:").map(|kind| kind.trim().to_owned());
    text.lines().filter_map(kind).any(|kind| is_kind(&kind))
}

fn is_kind(kind: &str) -> bool {
    KINDS.iter().any(|k| k.singular() == kind)
}

fn is_ours(node: &Node) -> bool {
    let text = |key: &str| node.get(key).and_then(Node::text);
    // `v1` and `Secret` are those of Kubernetes; a group other than ours is somebody else's.
    let another = |version: &str| version.contains('/') || (version == "v1" && text("kind") == Some("Secret"));
    match (text("apiVersion"), text("kind")) {
        (_, Some("List")) => node.get("items").is_some_and(|items| matches!(items, Node::List(items) if items.iter().any(is_ours))),
        (Some(version), _) if another(version) => false,
        (_, Some(kind)) => is_kind(kind) || (node.get("apiVersion").is_none() && node.get("spec").is_some()),
        (_, None) => node.get("metadata").is_some() && node.get("spec").is_some(),
    }
}
