//! Whether something happened to a directory, or another one stands at its path: a hint that it is worth a look.
//!
//! The kernel tells of changes within the directory that it was asked to watch, whatever path that has later. That a path leads to another directory
//! (a symlink is swapped, here or further up; it is moved away and made anew) is told by nobody, and is looked for.
//! Leaves out: what a change means; a hint may be about nothing, and one may be missing (`limits::RESCAN`). Shown by `tests/directory.rs`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::event::{AccessKind, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::limits;

/// Which directory a path leads to. File systems use an inode's number again, at once, and keep when it was made where they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Which {
    device: u64,
    inode: u64,
    made: Option<SystemTime>,
}

pub struct Lookout {
    directory: PathBuf,
    hint: mpsc::Sender<()>,
    hints: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    /// What stood at the path when it was begun to be watched.
    which: Option<Which>,
    /// It has been said that it cannot be watched.
    is_blind: bool,
}

impl Lookout {
    pub fn new(directory: PathBuf) -> Lookout {
        let (hint, hints) = mpsc::channel(1);
        Lookout { directory, hint, hints, watcher: None, which: None, is_blind: false }
    }

    /// Watches what stands at the path now, from now on: to be called before each look at it.
    pub async fn begin(&mut self) {
        // One after the other: what the second one reads would be hints of the first.
        let before = self.watcher.take();
        let (directory, hint) = (self.directory.clone(), self.hint.clone());
        let begun = spawn_blocking(move || {
            drop(before);
            // Before it is watched: what takes its place in between is seen to be another one.
            let which = which(&directory);
            (which, which.map(|_| watch(&directory, hint)))
        });
        let Ok((which, watched)) = begun.await else { return };
        self.which = which;
        match watched {
            Some(Ok(watcher)) => (self.watcher, self.is_blind) = (Some(watcher), false),
            Some(Err(error)) if !self.is_blind => {
                tracing::warn!(error = %error, "the directory cannot be watched; it is read every 30 s");
                self.is_blind = true;
            }
            // That there is none, whoever looks at it says.
            Some(Err(_)) | None => {}
        }
    }

    /// Waits for a hint.
    pub async fn hint(&mut self) {
        let another = async {
            // At once: what was not there yet when it was begun may have been by the look after it, and is not watched.
            loop {
                let directory = self.directory.clone();
                if spawn_blocking(move || which(&directory)).await.is_ok_and(|which| which != self.which) {
                    return;
                }
                sleep(limits::DIRECTORY_LOOKED_AT).await;
            }
        };
        tokio::select! {
            biased;
            _ = self.hints.recv() => {}
            () = another => {}
        }
    }
}

fn which(directory: &Path) -> Option<Which> {
    let found = fs::metadata(directory).ok()?;
    Some(Which { device: found.dev(), inode: found.ino(), made: found.created().ok() })
}

fn watch(directory: &Path, hint: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // That somebody opens a file, as is done here, changes none. One hint waiting is enough.
        if !event.is_ok_and(|e| matches!(e.kind, EventKind::Access(AccessKind::Open(_) | AccessKind::Read))) {
            let _ = hint.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(told)?;
    watcher.watch(directory, RecursiveMode::Recursive)?;
    Ok(watcher)
}
