//! A store whose writes of bodies' records can be made to fail, or to end so that nobody knows whether they happened.
//!
//! Leaves out: chance (`sim::trial_store`). What people write goes past it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use embody::testing::byte_channel;
use embody::testing::store::{Change, Changes, EmbeddedStore, Entry, Lease, Revision, Store, StoreError, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ends {
    #[default]
    Well,
    /// Nothing of a body is stored, and that is said.
    Refused,
    /// Nothing of a body is stored before this ends, and nothing is said of it.
    Waits,
    /// The next evidence is stored, nobody says so, and it cannot be read either: then `CannotBeRead`.
    StoredUnsaid,
    /// The record of server s can neither be read nor written, and no watch tells of it; all else goes on.
    CannotBeRead,
}

pub struct Doubtful {
    inner: Arc<EmbeddedStore>,
    ends: Arc<Mutex<Ends>>,
}

const OF_S: &str = "records/2/bodies/s";

fn is_of_a_body(key: &str) -> bool {
    key.starts_with("records/2/bodies/")
}

fn is_of_s(change: &Change) -> bool {
    match change {
        Change::Put(entry) => entry.key == OF_S,
        Change::Deleted { key, .. } => key == OF_S,
    }
}

fn is_evidence(write: &Write) -> bool {
    let text = String::from_utf8_lossy(write.value.as_deref().unwrap_or_default()).into_owned();
    is_of_a_body(&write.key) && text.contains("\"evidence\"")
}

fn unreachable() -> StoreError {
    StoreError::Unreachable { place: "test".to_owned(), source: "in doubt".into() }
}

impl Doubtful {
    pub fn new(inner: Arc<EmbeddedStore>) -> Arc<Doubtful> {
        Arc::new(Doubtful { inner, ends: Arc::default() })
    }

    /// Tells nothing of server s while anything is in doubt.
    pub async fn watch_but_s(&self, after: Revision) -> Changes {
        let (mut changes, ends) = (self.inner.watch("", after).await.unwrap(), Arc::clone(&self.ends));
        let (to, out) = byte_channel::channel(1 << 20, |_| 0);
        tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                let untold = *ends.lock().unwrap() != Ends::Well && change.as_ref().is_ok_and(is_of_s);
                if !untold && to.send(change).await.is_err() {
                    return;
                }
            }
        });
        out
    }

    pub fn ends(&self, ends: Ends) {
        *self.ends.lock().unwrap() = ends;
    }

    pub fn how(&self) -> Ends {
        *self.ends.lock().unwrap()
    }
}

#[async_trait]
impl Store for Doubtful {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        self.inner.list(prefix).await
    }
    async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        while self.how() == Ends::Waits && writes.iter().any(|w| is_of_a_body(&w.key)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match self.how() {
            Ends::Refused if writes.iter().any(|w| is_of_a_body(&w.key)) => {
                Err(StoreError::Unusable { place: "test".to_owned(), why: "no space left".to_owned(), source: None })
            }
            Ends::StoredUnsaid if writes.iter().any(is_evidence) => {
                self.inner.write_all(writes).await?;
                self.ends(Ends::CannotBeRead);
                Err(StoreError::Unknown { source: "in doubt".into() })
            }
            Ends::CannotBeRead if writes.iter().any(|w| w.key == OF_S) => Err(unreachable()),
            Ends::Well | Ends::Waits | Ends::Refused | Ends::StoredUnsaid | Ends::CannotBeRead => self.inner.write_all(writes).await,
        }
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        self.inner.watch(prefix, after).await
    }
    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lease>, StoreError> {
        self.inner.acquire(name, holder, ttl).await
    }
    async fn holder(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.inner.holder(name).await
    }
    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        if self.how() == Ends::CannotBeRead && keys.iter().any(|key| key == OF_S) {
            return Err(unreachable());
        }
        self.inner.get_all(keys).await
    }
    async fn heads(&self, prefix: &str) -> Result<Vec<(String, Revision)>, StoreError> {
        self.inner.heads(prefix).await
    }
    async fn record_events(&self, values: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.inner.record_events(values).await
    }
    async fn events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.events(most).await
    }
    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.inner.compact(through).await
    }
}
