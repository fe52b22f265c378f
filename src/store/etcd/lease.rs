//! The right to act, as a key bound to an etcd lease.
//!
//! Leaves out: the compare in every write (`etcd`). Invariants: `remaining` counts from when the last answered keep-alive was *sent*, so it ends
//! before etcd can give the key to another (etcd counts its time to live from when it got the keep-alive, which is later, and `MARGIN` is taken
//! off), and whoever gives it up ends it before it tells etcd; a lease that was lost once stays lost, and all writes through its store are `Fenced` until
//! the next `acquire`. Tests: `tests/store.rs`, rows on leases.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, LeaseClient, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    EtcdStore,
    call::{self, Failure, REQUEST, again, nothing_written, once},
};
use crate::clock::BootClock;
use crate::store::{Lease, LeaseEnd, StoreError};

/// Taken off what etcd grants: a packet that was sent in the last moment is still on its way.
const MARGIN: Duration = Duration::from_secs(3);
/// How long a candidate trusts its watch before it looks by itself.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often whoever holds the lease lets etcd forget history.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// A lease that is, or was, ours.
pub(super) struct Held {
    pub(super) name: String,
    pub(super) key: String,
    /// The fence: nobody else's key has the same.
    pub(super) created: i64,
    id: i64,
    /// How long it may be acted on after a keep-alive was sent.
    good_for: Duration,
    until: Arc<LeaseEnd>,
    over: watch::Sender<bool>,
}

impl Held {
    pub(super) fn remaining(&self) -> Duration {
        self.until.remaining()
    }

    /// Over, or so late that it must be taken as over.
    pub(super) fn lost(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Whether it was held until now.
    pub(super) fn end(&self) -> bool {
        self.until.end();
        !self.over.send_replace(true)
    }
}

impl EtcdStore {
    pub(super) async fn acquire_lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lease>, StoreError> {
        let key = format!("{}leases/{name}", self.prefix);
        loop {
            let held = again(|| {
                let (mut kv, key) = (self.kv.clone(), key.clone());
                async move { kv.get(key, None).await }
            })
            .await
            .map_err(|failure| nothing_written(&self.place, failure))?;
            if !held.kvs().is_empty() {
                self.wait_until_free(&key, held.header().map_or(0, |h| h.revision())).await;
            } else if let Some(held) = self.try_acquire(name, &key, holder, ttl).await? {
                let held = Arc::new(held);
                *self.fence.lock().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
                tokio::spawn(keep(self.alone(), held.clone()));
                tokio::spawn(forget(self.alone(), held.clone()));
                return Ok(Box::new(EtcdLease { held, client: self.client.lease_client() }));
            }
        }
    }

    async fn try_acquire(&self, name: &str, key: &str, holder: &str, ttl: Duration) -> Result<Option<Held>, StoreError> {
        let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let mut client = self.client.lease_client();
        let sent = BootClock::Kernel.now();
        let granted = once(client.grant(seconds, None)).await.map_err(|failure| nothing_written(&self.place, failure))?;
        let id = granted.id();
        let txn = || {
            let txn = Txn::new()
                .when([Compare::create_revision(key, CompareOp::Equal, 0)])
                .and_then([TxnOp::put(key, holder, Some(PutOptions::new().with_lease(id)))])
                .or_else([TxnOp::get(key, None)]);
            let mut kv = self.kv.clone();
            async move { kv.txn(txn).await }
        };
        // May be done twice: the second finds the key of the first, with our lease.
        let answer = again(txn).await.map_err(|failure| match failure {
            Failure::Ambiguous(source) => StoreError::Unknown { source },
            other => nothing_written(&self.place, other),
        })?;
        let created = if answer.succeeded() {
            answer.header().map(|header| header.revision())
        } else {
            answer.op_responses().iter().find_map(|op| match op {
                TxnOpResponse::Get(got) => got.kvs().first().filter(|kv| kv.lease() == id).map(|kv| kv.create_revision()),
                TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
            })
        };
        let Some(created) = created else {
            let _ = once(client.revoke(id)).await;
            return Ok(None);
        };
        // etcd may grant more than was asked for, when that was very little; the shorter binds.
        let ttl = ttl.min(Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0)));
        let good_for = ttl.saturating_sub(MARGIN.min(ttl / 3));
        let (name, key) = (name.to_owned(), key.to_owned());
        let until = LeaseEnd::at(BootClock::Kernel, sent + good_for);
        Ok(Some(Held { name, key, created, id, good_for, until, over: watch::Sender::new(false) }))
    }

    /// Until the key is deleted, or for a while: what it finds is observed again in any case.
    async fn wait_until_free(&self, key: &str, seen: i64) {
        let wait = async {
            let options = WatchOptions::new().with_start_revision(seen + 1).with_fragment();
            let mut client = self.client.watch_client();
            let mut stream = once(client.watch(key, Some(options))).await.ok()?;
            while let Some(message) = stream.message().await.ok()? {
                if message.canceled() || message.events().iter().any(|event| event.event_type() == etcd_client::EventType::Delete) {
                    return Some(());
                }
            }
            None
        };
        match timeout(LOOK_AGAIN, wait).await {
            Ok(Some(())) | Err(_) => {}
            // The stream broke: not at once again.
            Ok(None) => sleep(Duration::from_millis(rand::random_range(100..=300))).await,
        }
    }

    pub(super) async fn lease_holder(&self, name: &str) -> Result<Option<String>, StoreError> {
        let key = format!("{}leases/{name}", self.prefix);
        let got = again(|| {
            let (mut kv, key) = (self.kv.clone(), key.clone());
            async move { kv.get(key, None).await }
        })
        .await
        .map_err(|failure| nothing_written(&self.place, failure))?;
        Ok(got.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
    }
}

/// Keeps the lease alive until it is over, one way or the other.
async fn keep(store: EtcdStore, held: Arc<Held>) {
    let every = held.good_for / 3;
    let mut pause = every;
    let mut over = held.over.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => return,
            () = sleep(pause.min(held.remaining())) => {}
        }
        let sent = BootClock::Kernel.now();
        let mut client = store.client.lease_client();
        // The answer counts only while it is of use.
        let limit = REQUEST.min(held.remaining());
        match timeout(limit, once(client.keep_alive(held.id))).await {
            Ok(Ok(_)) if !held.lost() => {
                held.until.extend(sent + held.good_for);
                pause = every;
            }
            Ok(Err(Failure::Refused { cause, .. })) => {
                if held.end() {
                    tracing::warn!(lease = held.name, error = %cause, "the lease is over: etcd does not know it any more");
                }
                return;
            }
            Ok(Ok(_) | Err(_)) | Err(_) => pause = Duration::from_millis(300),
        }
        if held.lost() {
            if held.end() {
                tracing::warn!(lease = held.name, "the lease is lost: no keep-alive was answered in time");
            }
            return;
        }
    }
}

/// Lets etcd forget history while the lease is held: apart from `keep`, which a slow answer must not hold up.
async fn forget(store: EtcdStore, held: Arc<Held>) {
    let mut over = held.over.subscribe();
    let mut current = 0;
    loop {
        tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => return,
            () = sleep(COMPACT_EVERY) => {}
        }
        current = store.forget_up_to(current).await.unwrap_or(current);
    }
}

struct EtcdLease {
    held: Arc<Held>,
    client: LeaseClient,
}

#[async_trait]
impl Lease for EtcdLease {
    fn until(&self) -> Arc<LeaseEnd> {
        Arc::clone(&self.held.until)
    }

    async fn lost(&self) {
        let mut over = self.held.over.subscribe();
        // The sender lives in `held`. The task that keeps it alive sets it, at the deadline at the latest.
        let _ = over.wait_for(|over| *over).await;
    }

    async fn release(&self) {
        if self.held.end() {
            let mut client = self.client.clone();
            // Not answered: it expires by itself.
            let _ = call::once(client.revoke(self.held.id)).await;
        }
    }
}

impl Drop for EtcdLease {
    fn drop(&mut self) {
        if self.held.end()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (mut client, id) = (self.client.clone(), self.held.id);
            runtime.spawn(async move {
                let _ = call::once(client.revoke(id)).await;
            });
        }
    }
}
