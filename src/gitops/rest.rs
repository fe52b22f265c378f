//! A directory at rest: what nobody is writing any more.
//!
//! Editors, git and rsync write many files, and each in several steps. A directory is read when two looks show the same files and nothing changed for a
//! while; what was read counts if a third look still shows the same. Leaves out: which files count (`manifest::source`).
//! Invariant: what is returned was there, all of it, at one moment. Shown by `tests/directory.rs`.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::limits;
use crate::manifest::{Source, Survey};

/// Its files, once nothing changed for `limits::SETTLE`, and for `limits::SETTLE_MAX` where one is empty or ends within a line: so does one that
/// is written in two steps. Why not, where it does not come to rest. `last` is what it held when it was read last, and becomes what is read.
pub(super) async fn read(directory: &Path, last: &mut Option<Survey>) -> Result<Vec<Source>, String> {
    let begun = Instant::now();
    let mut shown = survey(directory).await?;
    let mut since = Instant::now();
    let mut restless = None;
    while begun.elapsed() < 2 * limits::SETTLE_MAX {
        let is_known = last.as_ref() == Some(&shown);
        if is_known || since.elapsed() >= limits::SETTLE {
            let found = shown.clone();
            let files = blocking(move || found.read()).await?;
            let is_whole = is_known || since.elapsed() >= limits::SETTLE_MAX || !files.iter().any(Source::may_go_on);
            if is_whole && survey(directory).await? == shown {
                *last = Some(shown);
                return Ok(files);
            }
        }
        sleep(limits::SETTLE / 3).await;
        let now = survey(directory).await?;
        if now != shown {
            restless = now.differs(&shown).map(str::to_owned).or(restless);
            (shown, since) = (now, Instant::now());
        }
    }
    let what = restless.unwrap_or_else(|| directory.display().to_string());
    Err(format!("`{what}` keeps changing: nothing of the directory is applied before it is at rest for {} ms", limits::SETTLE.as_millis()))
}

async fn survey(directory: &Path) -> Result<Survey, String> {
    let directory: PathBuf = directory.to_owned();
    blocking(move || Survey::of(&directory, true)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    spawn_blocking(work).await.map_err(|e| e.to_string())
}
