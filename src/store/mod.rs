//! Where desired state, evidence and events are kept: a small key-value store with revisions, compare-and-set, watches and leases.
//!
//! Two backends with one meaning: `embedded` (redb, the default) and `etcd`. Only this module knows etcd. Values are bytes to it.
//! Keys are paths (`objects/servers/web-1`), sorted bytewise; a revision counts all changes of the store, from 1, without holes.
//! On etcd revisions are etcd's own (`mod_revision`): others may write to the cluster, so there they have gaps, and only their order counts.
//! The conformance suite `tests/store.rs` runs over both.

mod checksum;
pub(crate) mod embedded;
pub(crate) mod etcd;
mod file_id;
pub(crate) mod keys;
mod lease;
pub(crate) mod mark;
pub(crate) mod records;
mod spec;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::{
    embedded::EmbeddedStore,
    etcd::{EtcdLogin, EtcdStore, EtcdTls},
    lease::LeaseEnd,
    records::Records,
    spec::StoreSpec,
};
use crate::{byte_channel, limits};

/// Opens the store that a specification names.
pub async fn open(spec: &StoreSpec) -> Result<Arc<dyn Store>, StoreError> {
    match spec {
        StoreSpec::Embedded { dir } => {
            let dir = dir.clone();
            let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&dir)).await;
            let store: Arc<dyn Store> = opened.map_err(|source| StoreError::Unknown { source: Box::new(source) })??;
            Ok(store)
        }
        StoreSpec::Etcd { endpoints, tls, prefix, login } => Ok(EtcdStore::connect(endpoints, tls.clone(), prefix, login.clone()).await?),
    }
}

fn check_size(what: &str, value: &[u8]) -> Result<(), StoreError> {
    within(what, value.len(), limits::VALUE_BYTES)
}

fn within(what: &str, found: usize, limit: usize) -> Result<(), StoreError> {
    if found <= limit {
        return Ok(());
    }
    Err(StoreError::TooLarge { what: what.to_owned(), found, limit })
}

/// Bounds of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtOnce {
    pub writes: usize,
    /// Of the values together.
    pub bytes: usize,
}

/// What both backends refuse before they begin: too much at once, and one key twice.
fn check_writes(place: &str, writes: &[Write], most: AtOnce) -> Result<(), StoreError> {
    let refuse = |why: String| Err(StoreError::Unusable { place: place.to_owned(), why, source: None });
    if writes.len() > most.writes {
        return refuse(format!("{} writes at once; it takes {}", writes.len(), most.writes));
    }
    let mut keys = BTreeSet::new();
    let mut bytes = 0;
    for write in writes {
        if !keys.insert(write.key.as_str()) {
            return refuse(format!("the key `{}` is there twice among writes that are done at once", write.key));
        }
        let value = write.value.as_deref().unwrap_or_default();
        check_size(&write.key, value)?;
        bytes += value.len();
    }
    within("all that is written at once", bytes, most.bytes)
}

/// A revision of the whole store.
pub type Revision = u64;

/// What was written here: a watch tells of it as well.
#[derive(Debug, Default)]
pub(crate) struct Own(std::collections::BTreeSet<Revision>);

impl Own {
    pub(crate) fn wrote(&mut self, revisions: impl IntoIterator<Item = Revision>) {
        self.0.extend(revisions);
    }

    /// Whether the change that the watch tells of was written here. It tells in the order of revisions.
    pub(crate) fn is(&mut self, revision: Revision) -> bool {
        while self.0.first().is_some_and(|first| *first < revision) {
            self.0.pop_first();
        }
        self.0.contains(&revision)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// The revision that last changed it.
    pub revision: Revision,
    /// What was stored is damaged and may have been anything: the value is empty then, which reads as none of ours. Writing or deleting the key
    /// mends it.
    pub damaged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Entry),
    Deleted { key: String, revision: Revision },
}

/// What a watch tells, in the order of revisions; the last of it may be why it ends.
pub type Changes = byte_channel::Receiver<Result<Change, StoreError>>;

/// What a change that waits for its watcher weighs, in bytes.
pub(crate) fn weigh(change: &Result<Change, StoreError>) -> usize {
    match change {
        Ok(Change::Put(entry)) => entry.key.len() + entry.value.len(),
        Ok(Change::Deleted { key, .. }) => key.len(),
        Err(_) => 0,
    }
}

/// What a compare-and-set expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the key does not exist.
    Absent,
    /// The key exists and this revision last changed it.
    At(Revision),
}

/// One of the writes that are done together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    /// Nothing deletes the key (and where `expect` is `Absent`, only sees to it that it is not there).
    pub value: Option<Vec<u8>>,
    pub expect: Expect,
}

impl Write {
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>, expect: Expect) -> Write {
        Write { key: key.into(), value: Some(value.into()), expect }
    }

    pub fn delete(key: impl Into<String>, at: Revision) -> Write {
        Write { key: key.into(), value: None, expect: Expect::At(at) }
    }

    /// Whether the key is another one afterwards.
    pub(crate) fn changes(&self) -> bool {
        self.value.is_some() || self.expect != Expect::Absent
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer was first; what is there now (nothing: no such key). Of several writes, the first that is not as expected.
    #[error("the key `{key}` is not as expected: it was changed at revision {}", .found.as_ref().map_or(0, |e| e.revision))]
    Conflict { key: String, found: Option<Entry> },
    /// The watch cannot begin there: list, and watch from the list's revision.
    #[error("revision {asked} is compacted; the oldest is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// This controller's lease is over: it may not write. Nothing was written.
    #[error("this controller no longer holds the lease `{lease}`")]
    Fenced { lease: String },
    /// The write may or may not have happened: read before trying again.
    #[error("no answer from the store; the write may or may not have happened")]
    Unknown {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not reachable; nothing was written.
    #[error("the store at {place} is not reachable")]
    Unreachable {
        place: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is not the store that it was, or an older state of it: a person has to accept it before anything is done upon it.
    #[error("{sentence}")]
    Backwards { sentence: String },
    /// Larger than the store takes.
    #[error("{what} has {found} bytes; the store takes {limit}")]
    TooLarge { what: String, found: usize, limit: usize },
    /// Written by a newer version, held by another process, damaged, disk full.
    #[error("the store at {place} cannot be used: {why}")]
    Unusable {
        place: String,
        why: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A lease held on the right to act. Writes through the store that gave it are refused (`Fenced`)
/// once it is lost. Dropping it gives it up (as soon as possible; the time to live is the bound).
#[async_trait]
pub trait Lease: Send + Sync {
    /// Until when this controller may send anything that changes a device, measured from when the last keep-alive was *sent* (less a
    /// margin). The gate at the wire reads it live.
    fn until(&self) -> Arc<LeaseEnd>;
    /// Zero: step down now.
    fn remaining(&self) -> Duration {
        self.until().remaining()
    }
    /// Resolves when the lease is lost.
    async fn lost(&self);
    /// Gives it up now, so that another need not wait.
    async fn release(&self);
}

#[async_trait]
pub trait Store: Send + Sync {
    /// The entry, if there is one. Reads see every write that was acknowledged before.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All entries whose keys begin with `prefix`, sorted by key, as of one revision, which is returned with them.
    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError>;

    /// Does all of these writes, or none: every key is as expected, and this store's lease is held, at one moment. As many as `most_at_once` says, no
    /// key twice. The new revision of each, in order: etcd gives one to all, the embedded store one after the
    /// other. Writing the same bytes again is a write (callers compare first).
    async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError>;

    /// Writes if the key is as expected; the new revision.
    async fn put_if(&self, key: &str, value: Vec<u8>, expect: Expect) -> Result<Revision, StoreError> {
        Ok(self.write_all(&[Write::put(key, value, expect)]).await?.into_iter().max().unwrap_or(0))
    }

    /// Deletes if the key was last changed at this revision; the new revision.
    async fn delete_if(&self, key: &str, at: Revision) -> Result<Revision, StoreError> {
        Ok(self.write_all(&[Write::delete(key, at)]).await?.into_iter().max().unwrap_or(0))
    }

    /// Every change after `after` under `prefix`, in order, none twice. The channel is bounded; an `Err` is the last item, after which
    /// the caller lists and watches again. Reconnecting inside is the backend's own business.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError>;

    /// Takes the named lease when it is free, waiting for it; `holder` is shown to others. From then on writes of this store are fenced by it.
    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lease>, StoreError>;

    /// Who holds the named lease, if anybody.
    async fn holder(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// The entries of these keys, in this order, as of one moment where they are at most `limits::WRITES_AT_ONCE`.
    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError>;

    /// The keys that begin with `prefix`, sorted, and the revision that last changed each, as of one moment.
    async fn heads(&self, prefix: &str) -> Result<Vec<(String, Revision)>, StoreError>;

    /// How much `write_all` takes.
    fn most_at_once(&self) -> AtOnce {
        AtOnce { writes: limits::WRITES_AT_ONCE, bytes: limits::WRITES_BYTES }
    }

    /// Appends to the events, which are kept outside the revisions: at most `limits::EVENTS`, the oldest go.
    async fn record_events(&self, values: Vec<Vec<u8>>) -> Result<(), StoreError>;

    async fn record_event(&self, value: Vec<u8>) -> Result<(), StoreError> {
        self.record_events(vec![value]).await
    }

    /// The newest events, oldest first, at most `most`.
    async fn events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Forgets the history of revisions up to and including `through` (what is current stays). The backend also does it by itself.
    async fn compact(&self, through: Revision) -> Result<(), StoreError>;

    /// What whoever runs the controller should know about this store, in whole sentences.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
