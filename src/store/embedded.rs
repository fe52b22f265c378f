//! The store in a file beside the controller: redb, one writer, durable before it is acknowledged.
//!
//! Leaves out: the tables (`engine`), the directory and its lock (`place`). One thread writes: it drains a queue into one transaction, so that
//! many callers share one fsync. Watchers read the log by revision and are woken by the newest one: nothing can be missed or seen twice,
//! and a watcher that is slower than `limits::REVISIONS` is told so by `Compacted`. One process at a time: the lock on the directory is the
//! fence, so a lease is granted at once and lasts as long as the process. After an I/O error (a full disk) the file is opened anew at the
//! next call: the store goes on when there is space again. Tests: `tests/store.rs`.

mod caught;
mod engine;
mod opening;
mod place;
pub(crate) mod record;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
};

use self::{
    engine::{Answer, Engine, Shared, Work},
    place::Place,
};
use super::{AtOnce, Change, Changes, Entry, Lease, LeaseEnd, Revision, Store, StoreError, Write, check_size, check_writes, weigh};
use crate::{byte_channel, clock::BootClock, limits};

/// Callers that may wait for the writer; more wait for room.
const QUEUE: usize = 1_024;
/// Bounds of one transaction.
const BATCH: usize = 512;
struct Ask {
    work: Work,
    answer: oneshot::Sender<Answer>,
}

enum Writer {
    /// The queue is taken out first when the store is dropped: that ends the thread.
    Thread { queue: Option<mpsc::Sender<Ask>>, thread: Option<std::thread::JoinHandle<()>> },
    /// In memory there is nothing to wait for, and the order of writes is the order of calls (which replays under a paused clock).
    Inline(Mutex<Engine>),
}

/// The name of a lease and whether it was given up.
type Fence = (String, Arc<watch::Sender<bool>>);

pub struct EmbeddedStore {
    shared: Arc<Shared>,
    writer: Writer,
    fence: Mutex<Option<Fence>>,
    holders: Arc<Mutex<BTreeMap<String, String>>>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is made (for this user only) where it is missing. Blocks while a damaged end is repaired.
    pub fn open(dir: &Path) -> Result<Arc<EmbeddedStore>, StoreError> {
        let shared = Arc::new(Shared::open(Place::claim(dir)?)?);
        let (queue, asks) = mpsc::channel(QUEUE);
        let engine = Engine::new(shared.clone());
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || serve(&engine, asks)).map_err(|source| {
            let why = "its writer cannot be started".to_owned();
            StoreError::Unusable { place: dir.display().to_string(), why, source: Some(Box::new(source)) }
        })?;
        Ok(Arc::new(EmbeddedStore::new(shared, Writer::Thread { queue: Some(queue), thread: Some(thread) })))
    }

    /// The same store without a file: for simulations and tests. Every call is done when it returns.
    pub fn in_memory() -> Result<Arc<EmbeddedStore>, StoreError> {
        let shared = Arc::new(Shared::open(Place::memory())?);
        let engine = Engine::new(shared.clone());
        Ok(Arc::new(EmbeddedStore::new(shared, Writer::Inline(Mutex::new(engine)))))
    }

    fn new(shared: Arc<Shared>, writer: Writer) -> EmbeddedStore {
        EmbeddedStore { shared, writer, fence: Mutex::new(None), holders: Arc::default() }
    }

    async fn submit(&self, work: Work) -> Answer {
        match &self.writer {
            Writer::Inline(engine) => {
                // Nothing below ever waits: a caller in a loop would keep everybody else from running.
                tokio::task::consume_budget().await;
                let engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = engine.apply(std::slice::from_ref(&work)).pop();
                engine.tidy();
                answer.unwrap_or_else(|| Err(self.shared.closed()))
            }
            Writer::Thread { queue, .. } => {
                let (answer, answered) = oneshot::channel();
                let Some(queue) = queue else { return Err(self.shared.closed()) };
                queue.send(Ask { work, answer }).await.map_err(|_| self.shared.closed())?;
                // The writer ended with the question in its hands.
                answered.await.unwrap_or_else(|gone| Err(StoreError::Unknown { source: Box::new(gone) }))
            }
        }
    }

    /// Reads off the async threads. A read that fails lets the writer open the file anew, and is tried once more.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Shared) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let Writer::Thread { .. } = self.writer else {
            tokio::task::consume_budget().await;
            return read(&self.shared);
        };
        let read = Arc::new(read);
        let once = || {
            let (read, shared) = (read.clone(), self.shared.clone());
            async move {
                let closed = shared.clone();
                spawn_blocking(move || read(&shared)).await.unwrap_or_else(|_| Err(closed.closed()))
            }
        };
        match once().await {
            Err(StoreError::Unusable { .. }) => {
                self.submit(Work::Reopen).await?;
                once().await
            }
            done => done,
        }
    }

    fn fenced(&self) -> Result<(), StoreError> {
        match &*self.fence.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((lease, over)) if *over.borrow() => Err(StoreError::Fenced { lease: lease.clone() }),
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Writer::Thread { queue, thread } = &mut self.writer {
            *queue = None;
            // What was acknowledged is on disk already; waiting lets the next opening find the lock free.
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// The writer's thread, until nobody can ask any more.
fn serve(engine: &Engine, mut asks: mpsc::Receiver<Ask>) {
    while let Some(first) = asks.blocking_recv() {
        let mut next = Some(first);
        while let Some(first) = next {
            let mut bytes = size(&first.work);
            let (mut works, mut answers) = (vec![first.work], vec![first.answer]);
            while works.len() < BATCH
                && bytes < 8 * limits::VALUE_BYTES
                && let Ok(ask) = asks.try_recv()
            {
                bytes += size(&ask.work);
                works.push(ask.work);
                answers.push(ask.answer);
            }
            for (to, answer) in answers.into_iter().zip(engine.apply(&works)) {
                // Nobody there: the caller was cancelled.
                let _ = to.send(answer);
            }
            next = asks.try_recv().ok();
            while next.is_none() && engine.tidy() {
                next = asks.try_recv().ok();
            }
        }
    }
}

fn size(work: &Work) -> usize {
    match work {
        Work::Writes(writes) => writes.iter().filter_map(|write| write.value.as_ref()).map(Vec::len).sum(),
        Work::Events(values) => values.iter().map(Vec::len).sum(),
        Work::Compact(_) | Work::Reopen => 0,
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.read(move |shared| shared.get(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |shared| shared.list(&prefix)).await
    }

    async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        check_writes(&self.shared.name(), writes, self.most_at_once())?;
        self.fenced()?;
        self.submit(Work::Writes(writes.to_vec())).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let (to, changes) = byte_channel::channel(limits::WATCH_BYTES, weigh);
        let follower = Follower {
            shared: Arc::downgrade(&self.shared),
            newest: self.shared.newest.subscribe(),
            inline: matches!(self.writer, Writer::Inline(_)),
            prefix: prefix.to_owned(),
            to,
        };
        tokio::spawn(follower.run(after));
        Ok(changes)
    }

    async fn acquire(&self, name: &str, holder: &str, _: Duration) -> Result<Box<dyn Lease>, StoreError> {
        let over = Arc::new(watch::Sender::new(false));
        // In memory is the simulator, where tokio's clock is the only one.
        let clock = match self.writer {
            Writer::Inline(_) => BootClock::virtual_from_now(),
            Writer::Thread { .. } => BootClock::Kernel,
        };
        *self.fence.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), over.clone()));
        self.holders.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), holder.to_owned());
        Ok(Box::new(EmbeddedLease { name: name.to_owned(), over, until: LeaseEnd::never(clock), holders: self.holders.clone() }))
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.holders.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        let keys = keys.to_vec();
        self.read(move |shared| shared.get_all(&keys)).await
    }

    async fn heads(&self, prefix: &str) -> Result<Vec<(String, Revision)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |shared| shared.heads(&prefix)).await
    }

    /// All of an apply, so that it is done or not.
    fn most_at_once(&self) -> AtOnce {
        AtOnce { writes: limits::MANIFEST_OBJECTS, bytes: limits::API_BODY_BYTES }
    }

    async fn record_events(&self, values: Vec<Vec<u8>>) -> Result<(), StoreError> {
        values.iter().try_for_each(|value| check_size("an event", value))?;
        self.submit(Work::Events(values)).await.map(|_| ())
    }

    async fn events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(move |shared| shared.events(most)).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.submit(Work::Compact(through)).await.map(|_| ())
    }
}

/// One watch: walks the log from revision to revision, at the watcher's own pace.
struct Follower {
    /// Weak: a watch does not keep a store open.
    shared: Weak<Shared>,
    newest: watch::Receiver<Revision>,
    inline: bool,
    prefix: String,
    to: byte_channel::Sender<Result<Change, StoreError>>,
}

impl Follower {
    async fn run(mut self, mut after: Revision) {
        loop {
            // Marked as seen before the log is read: a change that comes in between wakes us again.
            self.newest.borrow_and_update();
            let Some(page) = self.page(after).await else { return };
            match page {
                Ok(page) => {
                    for change in page.changes {
                        if self.to.send(Ok(change)).await.is_err() {
                            return;
                        }
                    }
                    after = page.through;
                    if !page.last {
                        continue;
                    }
                }
                Err(error) => {
                    self.to.send_last(Err(error));
                    return;
                }
            }
            tokio::select! {
                biased;
                () = self.to.closed() => return,
                changed = self.newest.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn page(&self, after: Revision) -> Option<Result<engine::Page, StoreError>> {
        let shared = self.shared.upgrade()?;
        if self.inline {
            return Some(shared.page(&self.prefix, after));
        }
        let prefix = self.prefix.clone();
        spawn_blocking(move || shared.page(&prefix, after)).await.ok()
    }
}

/// Held until it is given up: the lock on the directory does not expire.
struct EmbeddedLease {
    name: String,
    over: Arc<watch::Sender<bool>>,
    until: Arc<LeaseEnd>,
    holders: Arc<Mutex<BTreeMap<String, String>>>,
}

impl EmbeddedLease {
    fn end(&self) {
        self.until.end();
        if !self.over.send_replace(true) {
            self.holders.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        }
    }
}

#[async_trait]
impl Lease for EmbeddedLease {
    fn until(&self) -> Arc<LeaseEnd> {
        Arc::clone(&self.until)
    }

    async fn lost(&self) {
        // The sender lives in this lease, so this resolves only when it was given up.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    async fn release(&self) {
        self.end();
    }
}

impl Drop for EmbeddedLease {
    fn drop(&mut self) {
        self.end();
    }
}
