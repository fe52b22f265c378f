//! Lists in parts: what was there when the first part was asked for is kept for a while for those who come back for the rest.
//!
//! Invariants: all parts are of one moment; what is kept is bounded in number, bytes and time, and who comes too late is told (410), never given less.
//! Shown by `tests/api.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::fault::ApiError;
use crate::limits::{LISTS_KEPT, LISTS_KEPT_BYTES, LISTS_KEPT_FOR};
use crate::store::Revision;

/// A list as it was.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub items: Arc<[Box<RawValue>]>,
    pub revision: Revision,
}

struct Kept {
    id: String,
    /// The kind and the selectors that it was asked with.
    of: String,
    snapshot: Snapshot,
    bytes: usize,
    until: Instant,
}

#[derive(Default)]
pub(super) struct Pages(Mutex<VecDeque<Kept>>);

/// One part.
pub(super) struct Part {
    pub items: Vec<Box<RawValue>>,
    pub revision: Revision,
    /// With which the next part is asked for, and how many follow.
    pub next: Option<(String, usize)>,
}

impl Pages {
    /// The first part, at most `limit` items; the rest is kept.
    pub(super) fn begin(&self, of: &str, snapshot: Snapshot, limit: usize) -> Part {
        let id = uuid::Uuid::new_v4().to_string();
        let part = part(&id, &snapshot, 0, limit);
        if part.next.is_some() {
            let bytes = snapshot.items.iter().map(|item| item.get().len()).sum();
            let until = Instant::now() + LISTS_KEPT_FOR;
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(Kept { id, of: of.to_owned(), snapshot, bytes, until });
            // The newest always stays: whoever asked for it just now shall have it.
            while kept.len() > LISTS_KEPT || (kept.len() > 1 && kept.iter().map(|one| one.bytes).sum::<usize>() > LISTS_KEPT_BYTES) {
                kept.pop_front();
            }
        }
        part
    }

    pub(super) fn go_on(&self, of: &str, token: &str, limit: usize) -> Result<Part, ApiError> {
        let (id, from) = token.split_once(':').unwrap_or_default();
        let from: usize = from.parse().map_err(|_| ApiError::bad_request("the continue parameter is none that was given here"))?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|one| one.until > now);
        let Some(one) = kept.iter().find(|one| one.id == id) else {
            return Err(ApiError::expired("the list that this continues is not kept any more: list again"));
        };
        if one.of != of {
            return Err(ApiError::bad_request("the continue parameter is that of another list: of another kind, or with other selectors"));
        }
        let (id, snapshot) = (one.id.clone(), one.snapshot.clone());
        drop(kept);
        Ok(part(&id, &snapshot, from, limit))
    }
}

fn part(id: &str, snapshot: &Snapshot, from: usize, limit: usize) -> Part {
    let rest = snapshot.items.get(from..).unwrap_or_default();
    let items: Vec<Box<RawValue>> = rest.iter().take(limit).cloned().collect();
    let left = rest.len() - items.len();
    let next = (left > 0).then(|| (format!("{id}:{}", from + items.len()), left));
    Part { items, revision: snapshot.revision, next }
}
