//! What a source of desired state has brought is not taken back by an older checkout of it.
//!
//! Known from what people committed, in their order, and from what is stored: an object that is stored as it was in an earlier commit than one that was
//! stored before is rolled back. Leaves out: deletions, and what people approve.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Judge;
use crate::model::{Kind, Name, Object};

#[derive(Default)]
pub(super) struct Sources {
    /// What each object was to be, the newest last, and which of these was stored so far.
    commits: BTreeMap<(Kind, Name), (Vec<Value>, usize)>,
}

fn spec(object: &Object) -> Value {
    object.to_json()["spec"].clone()
}

impl Judge {
    /// People commit these objects.
    pub fn committed(&mut self, objects: &[Object]) {
        for object in objects.iter().filter(|object| object.kind() != Kind::Secret) {
            let (specs, _) = self.sources.commits.entry((object.kind(), object.name().clone())).or_default();
            specs.push(spec(object));
        }
    }

    pub(super) fn source_is_stored(&mut self, object: &Object) {
        let Some((specs, newest)) = self.sources.commits.get_mut(&(object.kind(), object.name().clone())) else { return };
        let Some(at) = specs.iter().rposition(|committed| *committed == spec(object)) else { return };
        let before = std::mem::replace(newest, at.max(*newest));
        if at < before {
            let (kind, name) = (object.kind(), object.name().clone());
            let sentence = format!("invariant 13: {kind}/{name} is stored as it was {} commits ago, and nobody approved that", before - at);
            self.violated(&[&name], sentence);
        }
    }
}
