//! The store in an etcd cluster, which several controllers can share.
//!
//! Leaves out: watching (`watch`), leases (`lease`), events (`events`), what a failed request means (`call`). Invariants: every write compares
//! its keys' `mod_revision`s, and the lease key's `create_revision` once a lease was acquired, in the same transaction; nothing waits longer
//! than `call::PATIENCE` and one request; a write whose answer was lost is decided by the compare of the next attempt or is `Unknown`.
//! Keys: `PREFIX kv/KEY`, `PREFIX leases/NAME`, `PREFIX events/SLOT`, `PREFIX event-count`. Tests: `tests/store.rs`, against a real etcd.

mod call;
mod events;
mod lease;
mod watch;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, KeyValue, KvClient, TlsOptions, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};

use self::{
    call::{Failure, OUT_OF_RANGE, Pace, again, nothing_written, once},
    lease::Held,
};
use super::{Changes, Entry, Expect, Lease, Revision, Store, StoreError, Write, check_size, check_writes, weigh};
use crate::{byte_channel, limits, model::secret::Hidden};

/// HTTP/2 pings. etcd cuts connections that ping more often than every 5 s (`--grpc-keepalive-min-time`, etcd 3.4): with an interval of 1 s
/// an idle watch was cut every 4 s, for ever (measured).
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
const CONNECT: Duration = Duration::from_secs(2);
/// tonic's own limit of 4 MiB is less than a page of large values; a watch that hits it hits it again for ever (measured).
const MESSAGE_BYTES: usize = 64 << 20;
/// First page of a list; as many values of `limits::VALUE_BYTES` as fit a message.
const PAGE_FIRST: i64 = 32;
const PAGE_MOST: i64 = 1_024;

/// Files in PEM. Any of them makes the connections TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdTls {
    /// Whom to trust; needed for TLS.
    pub ca: Option<PathBuf>,
    /// Ours, with `key`, where etcd asks for one.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct EtcdLogin {
    pub user: String,
    pub password: Hidden,
}

impl fmt::Debug for EtcdLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

pub struct EtcdStore {
    client: Client,
    kv: KvClient,
    /// For people.
    place: String,
    prefix: String,
    version: String,
    tls: bool,
    fence: Mutex<Option<Arc<Held>>>,
    /// How many events there were when we last looked, and the revision that says so.
    event_count: tokio::sync::Mutex<Option<events::Count>>,
}

impl EtcdStore {
    /// Connects, and asks one member for its version, so that a wrong address is told at once.
    pub async fn connect(endpoints: &[String], tls: EtcdTls, prefix: &str, login: Option<EtcdLogin>) -> Result<Arc<EtcdStore>, StoreError> {
        let place = format!("etcd://{}", endpoints.join(","));
        let encrypted = tls != EtcdTls::default();
        let mut options = ConnectOptions::new()
            .with_keep_alive(PING.0, PING.1)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(CONNECT)
            .with_require_leader(true);
        if encrypted {
            options = options.with_tls(tls_options(&place, tls).await?);
        }
        if let Some(login) = login {
            options = options.with_user(login.user, login.password.reveal()).with_auto_token_refresh(true);
        }
        let connected = once(Client::connect(endpoints, Some(options))).await;
        let client = connected.map_err(|failure| nothing_written(&place, failure))?;
        let status = again(|| {
            let mut maintenance = client.maintenance_client();
            async move { maintenance.status().await }
        });
        let version = status.await.map_err(|failure| nothing_written(&place, failure))?.version().to_owned();
        let kv = client.kv_client().max_decoding_message_size(MESSAGE_BYTES);
        let prefix = prefix.to_owned();
        Ok(Arc::new(EtcdStore {
            client,
            kv,
            place,
            prefix,
            version,
            tls: encrypted,
            fence: Mutex::default(),
            event_count: tokio::sync::Mutex::default(),
        }))
    }

    /// What the member that was asked first said.
    pub fn server_version(&self) -> &str {
        &self.version
    }

    /// The same connection for a task of our own; it has no fence.
    fn alone(&self) -> EtcdStore {
        EtcdStore {
            client: self.client.clone(),
            kv: self.kv.clone(),
            place: self.place.clone(),
            prefix: self.prefix.clone(),
            version: self.version.clone(),
            tls: self.tls,
            fence: Mutex::default(),
            event_count: tokio::sync::Mutex::default(),
        }
    }

    /// etcd's key. Its own namespaces do not cover watches, hence ours.
    fn full(&self, key: &str) -> Vec<u8> {
        format!("{}kv/{key}", self.prefix).into_bytes()
    }

    /// Ours, from etcd's.
    fn own(&self, key: &[u8]) -> Option<String> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix("kv/").map(str::to_owned)
    }

    fn entry(&self, kv: &KeyValue) -> Option<Entry> {
        Some(Entry { key: self.own(kv.key())?, value: kv.value().to_vec(), revision: as_revision(kv.mod_revision()), damaged: false })
    }

    fn current_fence(&self) -> Result<Option<Arc<Held>>, StoreError> {
        let fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match fence {
            Some(held) if held.lost() => Err(StoreError::Fenced { lease: held.name.clone() }),
            fence => Ok(fence),
        }
    }

    /// All of the writes in one transaction.
    ///
    /// After an attempt without an answer the same transaction is sent again: at most one of them can be applied, because all expect the
    /// same revisions. If the second is refused and every key holds exactly what we write, the first was applied (or somebody else
    /// wrote the same bytes upon the same revisions, which comes to the same); otherwise nobody can tell.
    async fn write(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        let fence = self.current_fence()?;
        let txn = self.transaction(writes, fence.as_deref());
        let mut pace = Pace::new();
        let mut unanswered = false;
        loop {
            let mut kv = self.kv.clone();
            let failure = match once(kv.txn(txn.clone())).await {
                Ok(answer) if answer.succeeded() => {
                    return Ok(vec![answer.header().map_or(0, |header| as_revision(header.revision())); writes.len()]);
                }
                Ok(answer) => return self.refused(writes, &answer, fence.as_deref(), unanswered),
                Err(failure) => failure,
            };
            let for_good = matches!(failure, Failure::Refused { .. });
            unanswered |= matches!(failure, Failure::Ambiguous(_));
            if for_good || !pace.next().await {
                return Err(given_up(&self.place, failure, unanswered));
            }
        }
    }

    /// Refused, it says what each key holds, and whose the lease is.
    fn transaction(&self, writes: &[Write], fence: Option<&Held>) -> Txn {
        let full = |write: &Write| self.full(&write.key);
        let as_expected = |write: &Write| Compare::mod_revision(full(write), CompareOp::Equal, expected(write));
        let mut compares: Vec<Compare> = writes.iter().map(as_expected).collect();
        let mut otherwise: Vec<TxnOp> = writes.iter().map(|write| TxnOp::get(full(write), None)).collect();
        let ops: Vec<TxnOp> = writes
            .iter()
            .filter(|write| write.changes())
            .map(|write| match &write.value {
                Some(value) => TxnOp::put(full(write), value.clone(), None),
                None => TxnOp::delete(full(write), Some(DeleteOptions::new())),
            })
            .collect();
        if let Some(held) = fence {
            compares.push(Compare::create_revision(held.key.as_str(), CompareOp::Equal, held.created));
            otherwise.push(TxnOp::get(held.key.as_str(), Some(GetOptions::new().with_keys_only())));
        }
        Txn::new().when(compares).and_then(ops).or_else(otherwise)
    }

    /// etcd refused the compares: whose fault was it, and had an earlier attempt come through?
    fn refused(&self, writes: &[Write], answer: &TxnResponse, fence: Option<&Held>, unanswered: bool) -> Result<Vec<Revision>, StoreError> {
        let mut found: Vec<Option<KeyValue>> = answer
            .op_responses()
            .into_iter()
            .map(|op| match op {
                TxnOpResponse::Get(mut got) => got.take_kvs().pop(),
                TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
            })
            .collect();
        let lease_key = fence.and_then(|_| found.pop().flatten());
        let now = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, KeyValue::mod_revision);
        let pairs = || writes.iter().zip(&found);
        // One key that we would have changed and nobody has: no attempt was applied, and none can be any more.
        let untouched = pairs().any(|(write, kv)| write.changes() && now(kv) == expected(write));
        if unanswered && !untouched {
            return match applied(pairs()) {
                Some(at) => Ok(vec![as_revision(at); writes.len()]),
                None => Err(StoreError::Unknown { source: "an attempt was not answered, and the keys have changed since".into() }),
            };
        }
        if let Some(held) = fence
            && lease_key.map(|kv| kv.create_revision()) != Some(held.created)
        {
            held.end();
            return Err(StoreError::Fenced { lease: held.name.clone() });
        }
        let first = pairs().find(|(write, kv)| now(kv) != expected(write));
        Err(match first {
            Some((write, kv)) => StoreError::Conflict { key: write.key.clone(), found: kv.as_ref().and_then(|kv| self.entry(kv)) },
            None => StoreError::Unknown { source: "etcd refused a transaction whose keys are all as expected".into() },
        })
    }

    /// Every key under a prefix, as of one revision; nothing if that revision was compacted meanwhile.
    async fn list_once(&self, prefix: &str) -> Result<Option<(Vec<Entry>, Revision)>, StoreError> {
        let (mut entries, mut at, mut limit) = (Vec::new(), 0, PAGE_FIRST);
        let mut from = self.full(prefix);
        let end = end_of(&from);
        loop {
            let page = again(|| {
                let options = GetOptions::new().with_range(end.clone()).with_limit(limit).with_revision(at);
                let (mut kv, from) = (self.kv.clone(), from.clone());
                async move { kv.get(from, Some(options)).await }
            });
            let page = match page.await {
                Ok(page) => page,
                Err(failure @ Failure::Refused { code: OUT_OF_RANGE, .. }) if failure.says("compacted") => return Ok(None),
                // The values have become large since the last page.
                Err(failure @ Failure::Refused { code: OUT_OF_RANGE, .. }) if failure.says("message length") && limit > PAGE_FIRST => {
                    limit = PAGE_FIRST;
                    continue;
                }
                Err(failure) => return Err(nothing_written(&self.place, failure)),
            };
            if at == 0 {
                at = page.header().map_or(0, |header| header.revision());
            }
            let bytes: usize = page.kvs().iter().map(|kv| kv.value().len()).sum();
            entries.extend(page.kvs().iter().filter_map(|kv| self.entry(kv)));
            let Some(last) = page.kvs().last().filter(|_| page.more()) else {
                return Ok(Some((entries, as_revision(at))));
            };
            from = last.key().to_vec();
            from.push(0);
            limit = if bytes < MESSAGE_BYTES / 16 { (limit * 2).min(PAGE_MOST) } else { PAGE_FIRST };
        }
    }

    /// Lets etcd forget history up to a revision that was current a while ago, and says what is current now.
    async fn forget_up_to(&self, through: Revision) -> Result<Revision, StoreError> {
        let now = self.list("\0").await?.1;
        let through = through.min(now.saturating_sub(limits::REVISIONS));
        if through > 0 {
            self.compact(through).await?;
        }
        Ok(now)
    }
}

/// What a write that will not be tried again means: `unanswered` where one attempt may have been carried out.
fn given_up(place: &str, failure: Failure, unanswered: bool) -> StoreError {
    if unanswered { StoreError::Unknown { source: failure.cause() } } else { nothing_written(place, failure) }
}

/// etcd's word for what a write expects: 0 is a key that does not exist.
fn expected(write: &Write) -> i64 {
    match write.expect {
        Expect::Absent => 0,
        Expect::At(revision) => i64::try_from(revision).unwrap_or(i64::MAX),
    }
}

/// The revision at which all of these writes were done, if what is there now shows that they were: every value is ours and of one revision,
/// and what we delete is gone. Deletions alone show nothing.
fn applied<'a>(pairs: impl Iterator<Item = (&'a Write, &'a Option<KeyValue>)>) -> Option<i64> {
    let mut at = None;
    for (write, kv) in pairs {
        match (&write.value, kv) {
            (Some(value), Some(kv)) if value == kv.value() && kv.mod_revision() > expected(write) => {
                if at.is_some_and(|at| at != kv.mod_revision()) {
                    return None;
                }
                at = Some(kv.mod_revision());
            }
            (None, None) => {}
            (Some(_), _) | (None, Some(_)) => return None,
        }
    }
    at
}

/// etcd's revisions are never negative.
fn as_revision(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or(0)
}

/// The first key after all that begin with this one. Our keys are UTF-8, which has no byte 0xff.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

async fn tls_options(place: &str, tls: EtcdTls) -> Result<TlsOptions, StoreError> {
    let read = |path: PathBuf| async move {
        tokio::fs::read(&path).await.map_err(|source| {
            let why = format!("the TLS file {} cannot be read", path.display());
            StoreError::Unusable { place: place.to_owned(), why, source: Some(Box::new(source)) }
        })
    };
    let lacking = |why: &str| StoreError::Unusable { place: place.to_owned(), why: why.to_owned(), source: None };
    let Some(ca) = tls.ca else { return Err(lacking("TLS needs the certificate of the authority to trust")) };
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca).await?));
    match (tls.cert, tls.key) {
        (Some(cert), Some(key)) => options = options.identity(Identity::from_pem(read(cert).await?, read(key).await?)),
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => return Err(lacking("a TLS certificate and its key come together")),
    }
    Ok(options)
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let got = again(|| {
            let (mut kv, key) = (self.kv.clone(), self.full(key));
            async move { kv.get(key, None).await }
        });
        let got = got.await.map_err(|failure| nothing_written(&self.place, failure))?;
        Ok(got.kvs().first().and_then(|kv| self.entry(kv)))
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        loop {
            if let Some(listed) = self.list_once(prefix).await? {
                return Ok(listed);
            }
        }
    }

    async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        check_writes(&self.place, writes, self.most_at_once())?;
        self.write(writes).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let (to, changes) = byte_channel::channel(limits::WATCH_BYTES, weigh);
        tokio::spawn(watch::run(self.alone(), prefix.to_owned(), after, to));
        Ok(changes)
    }

    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lease>, StoreError> {
        self.acquire_lease(name, holder, ttl).await
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.lease_holder(name).await
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        let mut entries = Vec::with_capacity(keys.len());
        for some in keys.chunks(limits::WRITES_AT_ONCE) {
            let txn = Txn::new().and_then(some.iter().map(|key| TxnOp::get(self.full(key), None)).collect::<Vec<_>>());
            let got = again(|| {
                let (mut kv, txn) = (self.kv.clone(), txn.clone());
                async move { kv.txn(txn).await }
            });
            let got = got.await.map_err(|failure| nothing_written(&self.place, failure))?;
            entries.extend(got.op_responses().into_iter().map(|op| match op {
                TxnOpResponse::Get(mut got) => got.take_kvs().pop().and_then(|kv| self.entry(&kv)),
                TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
            }));
        }
        Ok(entries)
    }

    async fn heads(&self, prefix: &str) -> Result<Vec<(String, Revision)>, StoreError> {
        let from = self.full(prefix);
        let got = again(|| {
            let options = GetOptions::new().with_range(end_of(&from)).with_keys_only();
            let (mut kv, from) = (self.kv.clone(), from.clone());
            async move { kv.get(from, Some(options)).await }
        });
        let got = got.await.map_err(|failure| nothing_written(&self.place, failure))?;
        Ok(got.kvs().iter().filter_map(|kv| Some((self.own(kv.key())?, as_revision(kv.mod_revision())))).collect())
    }

    async fn record_events(&self, values: Vec<Vec<u8>>) -> Result<(), StoreError> {
        values.iter().try_for_each(|value| check_size("an event", value))?;
        let mut values = values.into_iter().peekable();
        while values.peek().is_some() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while let Some(value) = values
                .next_if(|value| some.is_empty() || (some.len() < limits::WRITES_AT_ONCE && bytes + value.len() <= limits::WRITES_BYTES))
            {
                bytes += value.len();
                some.push(value);
            }
            self.append_events(&some).await?;
        }
        Ok(())
    }

    async fn events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.newest_events(most).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        let now = self.list("\0").await?.1;
        let through = i64::try_from(through.min(now)).unwrap_or(i64::MAX);
        let done = again(|| {
            let mut kv = self.kv.clone();
            async move { kv.compact(through, None).await }
        });
        match done.await {
            Ok(_) => Ok(()),
            Err(failure @ Failure::Refused { code: OUT_OF_RANGE, .. }) if failure.says("has been compacted") => Ok(()),
            Err(failure) => Err(nothing_written(&self.place, failure)),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.version.starts_with("3.4.") {
            let version = &self.version;
            warnings
                .push(format!("etcd {version} has known faults (stale reads after a pause, lost watch events): use a current 3.5 or 3.6"));
        }
        if !self.tls {
            warnings.push("the connection to etcd is not encrypted: secrets cross the network in the clear".to_owned());
        }
        warnings.push("etcd keeps secrets in the clear: whoever can read its data can read them".to_owned());
        warnings
    }
}
