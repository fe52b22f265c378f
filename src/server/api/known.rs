//! All objects, as far as a write of desired state has to know them: what was read before is read again only where it has changed.
//!
//! Leaves out: statuses. Invariant: what is returned was all there at some moment after the call began, but for what is written meanwhile, which the
//! compare of the write itself meets.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::fault::ApiError;
use super::objects::{PREFIX, decode};
use crate::limits;
use crate::model::Object;
use crate::store::{Revision, Store};

/// As it was read at this revision; nothing: it does not read.
type Read = (Revision, Option<Arc<Object>>);

#[derive(Default)]
pub(super) struct Known(Mutex<BTreeMap<String, Read>>);

impl Known {
    /// In the order of their keys. One that does not read is left out, and said in the log.
    pub(super) async fn all(&self, store: &dyn Store) -> Result<Vec<Arc<Object>>, ApiError> {
        let mut known = self.0.lock().await;
        let heads: BTreeMap<String, Revision> = store.heads(PREFIX).await?.into_iter().collect();
        known.retain(|key, _| heads.contains_key(key));
        let changed = |(key, revision): &(&String, &Revision)| known.get(*key).is_none_or(|(read, _)| read != *revision);
        let changed: Vec<String> = heads.iter().filter(changed).map(|(key, _)| key.clone()).collect();
        for some in changed.chunks(limits::OBJECTS_READ_AT_ONCE) {
            for (key, entry) in some.iter().zip(store.get_all(some).await?) {
                let Some(entry) = entry else {
                    known.remove(key);
                    continue;
                };
                let read = decode(&entry).inspect_err(|e| tracing::warn!(key, error = %e, "a stored object does not read"));
                let object = read.ok().map(|object| Arc::new(Object { status: serde_json::Value::Null, ..object }));
                known.insert(key.clone(), (entry.revision, object));
            }
        }
        Ok(known.values().filter_map(|(_, object)| object.clone()).collect())
    }
}
