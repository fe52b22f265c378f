//! A store that has bad days: slow, failing before or after the write, losing its watch, or the last thing that a controller touches.
//!
//! It wraps any store; the checkers hear of every write that happened. Leaves out: persistence. Shown by `tests/simulate.rs`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::broadcast;
use tokio::time::sleep;

use super::centre::Centre;
use super::checkers::{By, Host};
use super::leases::Leases;
use crate::byte_channel;
use crate::model::fact::Tick;
use crate::store::{Changes, Entry, Lease, Revision, Store, StoreError, Write, keys::Key, weigh};

/// How long a request takes that gets no answer.
const CUT_OFF: Duration = Duration::from_secs(2);

/// How often things go wrong, each from 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StoreLuck {
    pub unreachable: f64,
    /// The write happened, and nobody says so.
    pub applied_unknown: f64,
    /// It did not happen, and nobody says so.
    pub lost_unknown: f64,
    /// It happened, and a conflict with it is reported, as a client says that retries by itself.
    pub applied_conflict: f64,
    /// The controller is killed right before or right after a write.
    pub crash: f64,
    /// At most, per call.
    pub takes: Duration,
}

pub struct TrialStore {
    inner: Arc<dyn Store>,
    centre: Arc<Centre>,
    leases: Arc<Leases>,
    /// Nothing: this is how people reach the store, who have no bad days here.
    process: Option<Process>,
    watches_end: broadcast::Sender<()>,
}

/// Whose handle it is.
struct Process {
    host: Host,
    luck: Mutex<(StoreLuck, StdRng)>,
    full: Mutex<Full>,
    /// The number of the lease that its writes are fenced by.
    fence: Mutex<Option<u64>>,
}

/// A store that takes no more writes for a while.
#[derive(Debug, Clone, Copy, Default)]
pub struct Full {
    pub until: Tick,
    /// It says that it does, all the same: for the test of the checkers.
    pub pretends: bool,
}

enum Day {
    Good,
    Full,
    Unreachable,
    AppliedUnknown,
    LostUnknown,
    AppliedConflict,
    CrashBefore,
    CrashAfter,
}

fn trouble() -> Box<dyn std::error::Error + Send + Sync> {
    "simulated".into()
}

fn full() -> StoreError {
    StoreError::Unusable { place: "simulation".to_owned(), why: "no space left".to_owned(), source: Some(trouble()) }
}

fn unreachable() -> StoreError {
    StoreError::Unreachable { place: "simulation".to_owned(), source: trouble() }
}

impl TrialStore {
    pub fn of_operators(inner: Arc<dyn Store>, centre: Arc<Centre>, leases: Arc<Leases>) -> TrialStore {
        TrialStore { inner, centre, leases, process: None, watches_end: broadcast::channel(1).0 }
    }

    pub fn of_controller(inner: Arc<dyn Store>, centre: Arc<Centre>, leases: Arc<Leases>, host: Host, seed: u64) -> TrialStore {
        let luck = Mutex::new((StoreLuck::default(), StdRng::seed_from_u64(seed)));
        let process = Some(Process { host, luck, full: Mutex::default(), fence: Mutex::default() });
        TrialStore { inner, centre, leases, process, watches_end: broadcast::channel(1).0 }
    }

    pub fn set_luck(&self, new: StoreLuck) {
        if let Some(process) = &self.process {
            process.luck.lock().unwrap_or_else(PoisonError::into_inner).0 = new;
        }
    }

    pub fn set_full(&self, full: Full) {
        if let Some(process) = &self.process {
            *process.full.lock().unwrap_or_else(PoisonError::into_inner) = full;
        }
    }

    /// Nothing: it takes writes.
    fn full(&self) -> Option<Full> {
        let full = *self.process.as_ref()?.full.lock().unwrap_or_else(PoisonError::into_inner);
        (self.centre.now() < full.until).then_some(full)
    }

    async fn awake(&self) {
        if let Some(process) = &self.process {
            self.centre.freezer.awake(process.host).await;
        }
    }

    /// What etcd compares in the transaction.
    fn fenced(&self) -> Result<(), StoreError> {
        let fence = self.process.as_ref().and_then(|p| *p.fence.lock().unwrap_or_else(PoisonError::into_inner));
        match fence {
            Some(number) if !self.leases.is_held(number) => Err(StoreError::Fenced { lease: "controller".to_owned() }),
            Some(_) | None => Ok(()),
        }
    }

    /// All watches end with an error.
    pub fn end_watches(&self) {
        // Nobody watches: nothing ends.
        let _ = self.watches_end.send(());
    }

    async fn day(&self, writes: bool) -> Day {
        self.awake().await;
        let Some(process) = &self.process else { return Day::Good };
        if self.leases.is_cut_off(process.host) {
            sleep(CUT_OFF).await;
            return Day::Unreachable;
        }
        let (day, takes) = {
            let mut luck = process.luck.lock().unwrap_or_else(PoisonError::into_inner);
            let (now, rng) = &mut *luck;
            let takes = now.takes.mul_f64(rng.random_range(0.0..1.0));
            let (x, side) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
            let write = |chance: f64| if writes { chance } else { 0.0 };
            let crash = if side < 0.5 { Day::CrashBefore } else { Day::CrashAfter };
            let mut sum = 0.0;
            let days = [
                (now.unreachable, Day::Unreachable),
                (write(now.applied_unknown), Day::AppliedUnknown),
                (write(now.lost_unknown), Day::LostUnknown),
                (write(now.applied_conflict), Day::AppliedConflict),
                (write(now.crash), crash),
            ];
            let found = days.into_iter().find(|(chance, _)| {
                sum += chance;
                x < sum
            });
            let full = writes && self.full().is_some();
            (found.map_or(if full { Day::Full } else { Day::Good }, |(_, day)| day), takes)
        };
        if !takes.is_zero() {
            sleep(takes).await;
            self.awake().await;
        }
        day
    }

    async fn crash(&self, when: &str, key: &str) {
        self.centre.note(&[], format!("the controller is killed {when} {key} is written"));
        if let Some(process) = &self.process {
            self.centre.crash(process.host);
        }
        std::future::pending::<()>().await;
    }

    fn tell(&self, key: &str, value: Option<&[u8]>) {
        let what = if value.is_some() { "stored" } else { "deleted" };
        let server = match Key::parse(key) {
            Some(Key::Body(server)) => Some(server),
            Some(_) | None => None,
        };
        let mut text = format!("{what} {key}");
        if let (Some(_), Some(value)) = (&server, value) {
            text.push_str(&without_uids(value));
        }
        let about: Vec<&crate::model::Name> = server.iter().collect();
        self.centre.note(&about, text);
        let by = if self.process.is_some() { By::Controller } else { By::Others };
        self.centre.judge(|judge, now| judge.stored(key, value, by, now));
    }

    async fn write(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        let apply = async {
            self.fenced()?;
            let done = self.inner.write_all(writes).await;
            if done.is_ok() {
                writes.iter().for_each(|write| self.tell(&write.key, write.value.as_deref()));
            }
            done
        };
        let key = writes.first().map_or("", |write| write.key.as_str());
        match self.day(true).await {
            Day::Good => apply.await,
            Day::Full if self.full().is_some_and(|full| full.pretends) => Ok(vec![Revision::MAX; writes.len()]),
            Day::Full => Err(full()),
            Day::Unreachable => Err(unreachable()),
            Day::LostUnknown => Err(StoreError::Unknown { source: trouble() }),
            Day::AppliedUnknown => {
                apply.await?;
                Err(StoreError::Unknown { source: trouble() })
            }
            Day::AppliedConflict => {
                apply.await?;
                Err(StoreError::Conflict { key: key.to_owned(), found: self.inner.get(key).await? })
            }
            Day::CrashBefore => {
                self.crash("before", key).await;
                Err(unreachable())
            }
            Day::CrashAfter => {
                let done = apply.await;
                self.crash("after", key).await;
                done
            }
        }
    }
}

/// A body's record as people may read it, the same in every run.
fn without_uids(value: &[u8]) -> String {
    let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(value) else { return String::new() };
    for hold in ["heldBy", "release"] {
        if let Some(hold) = body.get_mut(hold) {
            *hold = hold.get("binding").cloned().unwrap_or_default();
        }
    }
    // What tells one desired state from another is made of uids too.
    if let Some(held) = body.get_mut("held") {
        *held = true.into();
    }
    if let Some(disrupted) = body.get_mut("disrupted").and_then(serde_json::Value::as_object_mut) {
        disrupted.remove("desired");
    }
    if let Some(declared) = body.get_mut("declared").and_then(serde_json::Value::as_object_mut) {
        declared.remove("at");
    }
    let evidence = body.get_mut("evidence").and_then(serde_json::Value::as_object_mut);
    for run in evidence.into_iter().flatten().filter_map(|(_, evidence)| evidence.get_mut("run")) {
        let hello = run.get("hello").is_some();
        *run = serde_json::json!({ "hello": hello });
    }
    format!(" {body}")
}

#[async_trait]
impl Store for TrialStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        if let Day::Unreachable = self.day(false).await {
            return Err(unreachable());
        }
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        if let Day::Unreachable = self.day(false).await {
            return Err(unreachable());
        }
        self.inner.list(prefix).await
    }

    async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        self.write(writes).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let mut changes = self.inner.watch(prefix, after).await?;
        let mut over = self.watches_end.subscribe();
        let (to, out) = byte_channel::channel(crate::limits::WATCH_BYTES, weigh);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = to.closed() => return,
                    _ = over.recv() => {
                        to.send_last(Err(unreachable()));
                        return;
                    }
                    change = changes.recv() => match change {
                        Some(change) => if to.send(change).await.is_err() { return },
                        None => return,
                    },
                }
            }
        });
        Ok(out)
    }

    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lease>, StoreError> {
        let Some(process) = &self.process else { return self.inner.acquire(name, holder, ttl).await };
        let lease = self.leases.acquire(process.host, holder, ttl).await;
        *process.fence.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease.number);
        Ok(Box::new(lease))
    }

    async fn holder(&self, _name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.leases.holder())
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        if let Day::Unreachable = self.day(false).await {
            return Err(unreachable());
        }
        self.inner.get_all(keys).await
    }

    async fn heads(&self, prefix: &str) -> Result<Vec<(String, Revision)>, StoreError> {
        if let Day::Unreachable = self.day(false).await {
            return Err(unreachable());
        }
        self.inner.heads(prefix).await
    }

    async fn record_events(&self, values: Vec<Vec<u8>>) -> Result<(), StoreError> {
        if let Day::Unreachable = self.day(false).await {
            return Err(unreachable());
        }
        if self.full().is_some_and(|full| !full.pretends) {
            return Err(full());
        }
        self.inner.record_events(values).await
    }

    async fn events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.events(most).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.inner.compact(through).await
    }
}
