//! Files that are open: each once, however many ask, and the ones not used for the longest time are closed.
//!
//! Leaves out: verifying (`Tree::open`). Invariant: no more files are being opened than the limits say, and one that cannot be opened is not tried
//! again at once. Shown by `tests/nfs/reads.rs`, `a_file_that_cannot_be_read_is_an_error_and_an_event`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

use crate::server::nfs::exports::{Event, Exports, Tree};
use crate::server::nfs::limits::Limits;
use crate::server::nfs::share::{Peer, of_both, semaphore};

type Key = ([u8; 16], u32);

pub(crate) struct Files {
    limits: Limits,
    exports: Arc<dyn Exports>,
    opens: Arc<Semaphore>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    tick: u64,
    by_key: BTreeMap<Key, (u64, Arc<Slot>)>,
    by_use: BTreeMap<u64, Key>,
}

#[derive(Default)]
struct Slot {
    opened: OnceCell<Option<Arc<File>>>,
    /// Opened or read without success, when.
    failed: OnceLock<Instant>,
}

/// Why there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// It was told as an event.
    Failed,
    /// Whoever asks again may get it.
    NotYet,
}

impl Files {
    pub(crate) fn of(limits: &Limits, exports: &Arc<dyn Exports>) -> Files {
        let opens = semaphore(limits.opens);
        Files { limits: limits.clone(), exports: Arc::clone(exports), opens, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of an inode. Opening goes on when nobody waits any more.
    pub(crate) async fn get(self: &Arc<Self>, peer: &Arc<Peer>, tree: &Arc<dyn Tree>, inode: u32) -> Result<Arc<File>, Without> {
        let key = (tree.id(), inode);
        let slot = self.kept().slot(key, &self.limits);
        if slot.failed.get().is_some() {
            return Err(Without::Failed);
        }
        if let Some(Some(file)) = slot.opened.get() {
            return Ok(Arc::clone(file));
        }
        let opening = async {
            let place = Arc::clone(&peer.opening).acquire_owned().await.ok()?;
            let open = open(Arc::clone(self), Arc::clone(&slot), Arc::clone(peer), Arc::clone(tree), inode);
            let task = tokio::spawn(async move {
                let _place = place;
                open.await
            });
            task.await.ok().flatten()
        };
        let opened = timeout(self.limits.open_within, opening).await.ok().flatten();
        opened.ok_or(if slot.failed.get().is_some() { Without::Failed } else { Without::NotYet })
    }

    /// A file that was opened cannot be read, or not all of it.
    pub(crate) fn cannot_read(&self, tree: &dyn Tree, inode: u32, error: &io::Error) {
        let slot = self.kept().slot((tree.id(), inode), &self.limits);
        self.fails(&slot, tree, inode, error);
    }

    /// Told once.
    fn fails(&self, slot: &Slot, tree: &dyn Tree, inode: u32, error: &io::Error) {
        if slot.failed.set(Instant::now()).is_ok() {
            let path = tree.path(inode);
            self.exports.event(Event::Unreadable { tree: tree.id(), inode, path, error: error.to_string() });
        }
    }

    fn forget(&self, key: Key, slot: &Arc<Slot>) {
        let mut kept = self.kept();
        if kept.by_key.get(&key).is_some_and(|(_, there)| Arc::ptr_eq(there, slot))
            && let Some((tick, _)) = kept.by_key.remove(&key)
        {
            kept.by_use.remove(&tick);
        }
    }
}

/// One at a time for each file: all others that ask for it wait for the same.
async fn open(files: Arc<Files>, slot: Arc<Slot>, peer: Arc<Peer>, tree: Arc<dyn Tree>, inode: u32) -> Option<Arc<File>> {
    let key = (tree.id(), inode);
    let opened = slot.opened.get_or_init(|| async {
        let _turn = of_both(&peer.opens, &files.opens, 1).await?;
        let (its, of) = (Arc::clone(&slot), Arc::clone(&files));
        let opened = tokio::task::spawn_blocking(move || match tree.open(inode) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                of.fails(&its, &*tree, inode, &error);
                None
            }
        });
        opened.await.ok().flatten()
    });
    let opened = opened.await.clone();
    if opened.is_none() && slot.failed.get().is_none() {
        files.forget(key, &slot);
    }
    opened
}

impl Kept {
    /// The slot of a file, as the one used last; a new one where a failure is long ago.
    fn slot(&mut self, key: Key, limits: &Limits) -> Arc<Slot> {
        self.tick += 1;
        let tick = self.tick;
        self.by_use.insert(tick, key);
        if let Some((used, slot)) = self.by_key.get_mut(&key) {
            self.by_use.remove(used);
            *used = tick;
            if slot.failed.get().is_some_and(|when| when.elapsed() >= limits.failure_for) {
                *slot = Arc::default();
            }
            return Arc::clone(slot);
        }
        if self.by_key.len() >= limits.open_files
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        let slot = Arc::<Slot>::default();
        self.by_key.insert(key, (tick, Arc::clone(&slot)));
        slot
    }
}
