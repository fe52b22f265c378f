//! `serve --manifests DIR`: what the directory holds is created and updated, all of it or nothing.
//!
//! Level-triggered: notify is a hint, the rescan is the truth. A broken file changes nothing and is a condition on Policy/default.
//! Invariants: deletes only with `--prune`, only what this directory created, and never everything: an empty directory deletes nothing. What was
//! applied before and has been replaced since is not applied again by an instance that did not see its directory change to it after that: the
//! checkout of a standby may be older. Shown by `tests/rack/process.rs` and `tests/simulate.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};

use crate::control::controller::Message;
use crate::control::status_writer::{Site, SiteCondition};
use crate::limits;
use crate::manifest;
use crate::model::{Kind, Name, Object};
use crate::server::api::apply::apply;
use crate::server::api::objects::{Outcome, Preconditions, SOURCE};
use crate::server::api::source::Pending;
use crate::server::api::{Backend, DryRun};
use crate::store::{Expect, keys};

type ToController = watch::Receiver<Option<mpsc::Sender<Message>>>;

/// The condition that tells how the last scan went.
const CONDITION: &str = "ManifestsApplied";

pub(crate) async fn run(directory: PathBuf, prune: bool, backend: Arc<Backend>, mut controller: ToController, site: Site) {
    let (hint, mut hints) = mpsc::channel(1);
    let _watcher = watch_directory(&directory, hint);
    let mut source = Directory::new(directory, prune, backend);
    loop {
        let loaded = source.look().await;
        // Only the controller that acts writes desired state from its directory; the others see how theirs changes.
        let acts = controller.borrow_and_update().is_some();
        if acts {
            let outcome = match loaded {
                Ok(content) => source.apply(content).await,
                Err(why) => Err(Not::Broken(why)),
            };
            tell(outcome, &site);
        } else {
            source.backend.source.waits_for(None);
        }
        tokio::select! {
            biased;
            changed = controller.changed() => if changed.is_err() {
                return;
            },
            () = source.backend.source.said() => {}
            hinted = hints.recv() => if hinted.is_some() {
                // Editors and git write many files: wait for the last of them.
                tokio::time::sleep(limits::SETTLE).await;
                while hints.try_recv().is_ok() {}
            } else {
                tokio::time::sleep(limits::RESCAN).await;
            },
            () = tokio::time::sleep(limits::RESCAN) => {}
        }
    }
}

fn watch_directory(directory: &Path, hint: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let told = move |_: notify::Result<notify::Event>| {
        // One hint waiting is enough.
        let _ = hint.try_send(());
    };
    let watcher = notify::recommended_watcher(told).and_then(|mut w| w.watch(directory, RecursiveMode::Recursive).map(|()| w));
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(error = %error, "the directory cannot be watched; it is read every 30 s");
            None
        }
    }
}

/// Why nothing was applied.
#[derive(Debug)]
pub enum Not {
    Broken(String),
    /// A person has to say so first.
    Waits(String),
}

fn tell(outcome: Result<String, Not>, site: &Site) {
    let word = match outcome {
        Ok(message) => SiteCondition { ok: true, reason: "Applied", message },
        Err(Not::Broken(message)) => SiteCondition { ok: false, reason: "Broken", message },
        Err(Not::Waits(message)) => SiteCondition { ok: false, reason: "ApprovalNeeded", message },
    };
    site.send_if_modified(|site| {
        let new = site.insert(CONDITION, word.clone()).as_ref() != Some(&word);
        if new && !word.ok {
            tracing::warn!(error = word.message, "the directory of manifests was not applied");
        }
        new
    });
}

/// What the directory holds.
pub struct Content {
    objects: Vec<Object>,
    files: usize,
    digest: String,
}

pub struct Directory {
    path: PathBuf,
    prune: bool,
    backend: Arc<Backend>,
    /// What it held when this instance last read it.
    seen: Option<String>,
    /// What this instance saw it change to.
    changed_to: Option<String>,
    /// What had been applied last when it came to hold this, if that could be read.
    applied_then: Option<Option<String>>,
}

impl Directory {
    pub fn new(path: PathBuf, prune: bool, backend: Arc<Backend>) -> Directory {
        Directory { path, prune, backend, seen: None, changed_to: None, applied_then: None }
    }

    async fn look(&mut self) -> Result<Content, String> {
        let existing = self.backend.all().await.map_err(|e| e.message)?;
        let path = self.path.clone();
        let load = move || manifest::load(&manifest::read(&[path], true), &existing);
        let loaded = tokio::task::spawn_blocking(load).await.map_err(|e| e.to_string())?;
        if loaded.has_errors() {
            return Err(loaded.render(false));
        }
        Ok(self.saw(loaded.objects, loaded.files).await)
    }

    /// It holds this now.
    pub async fn saw(&mut self, objects: Vec<Object>, files: usize) -> Content {
        let digest = digest_of(&objects);
        if self.seen.as_ref() != Some(&digest) {
            self.applied_then = None;
        }
        if let (None, Ok((history, _))) = (&self.applied_then, self.history().await) {
            self.applied_then = Some(history.last().cloned());
        }
        if self.seen.as_ref().is_some_and(|seen| *seen != digest) {
            self.changed_to = Some(digest.clone());
        }
        self.seen = Some(digest.clone());
        Content { objects, files, digest }
    }

    pub async fn apply(&mut self, content: Content) -> Result<String, Not> {
        let broken = |e: crate::server::api::fault::ApiError| Not::Broken(e.message);
        let existing = self.backend.all().await.map_err(broken)?;
        let source = format!("directory:{}", self.path.display());
        let present: BTreeSet<(Kind, Name)> = content.objects.iter().map(|o| (o.kind(), o.name().clone())).collect();
        let gone: Vec<&Object> = existing
            .iter()
            .map(std::convert::AsRef::as_ref)
            .filter(|o| created_by(o, &source) && !present.contains(&(o.kind(), o.name().clone())))
            .collect();
        let prunes = self.prune && !present.is_empty();
        let (mut history, expect) = self.history().await.map_err(Not::Broken)?;
        let is_newest = history.last() == Some(&content.digest);
        let is_older = !is_newest && history.contains(&content.digest);
        // Whatever came here before another one was applied, as to a standby whose checkout stays behind, is no answer to that one.
        let overtaken = !is_newest && self.applied_then.as_ref().is_some_and(|then| then.as_ref() != history.last());
        if overtaken || (is_older && self.changed_to.as_ref() != Some(&content.digest)) {
            self.is_approved(&content, &source, if prunes { &gone } else { &[] }).await?;
        }
        if !is_newest {
            history.retain(|digest| *digest != content.digest);
            history.push(content.digest.clone());
            let excess = history.len().saturating_sub(limits::SOURCE_HISTORY);
            history.drain(..excess);
            let value = serde_json::to_vec(&history).unwrap_or_default();
            self.backend.store.put_if(keys::DIRECTORY, value, expect).await.map_err(|e| Not::Broken(e.to_string()))?;
        }
        self.backend.source.waits_for(None);
        let mut message = format!("{} objects of {} files", present.len(), content.files);
        apply(&self.backend, content.objects, Some(&source), DryRun::No).await.map_err(broken)?;
        if prunes {
            message.push_str(&delete(&self.backend, &gone).await.map_err(Not::Broken)?);
        } else if !gone.is_empty() {
            message.push_str(&format!("; {} objects that it created before are no longer in it (they stay: no --prune)", gone.len()));
        }
        Ok(message)
    }

    /// The digests of what directories held when it was applied, the newest last. One that does not read is none: it is begun anew.
    async fn history(&self) -> Result<(Vec<String>, Expect), String> {
        let entry = self.backend.store.get(keys::DIRECTORY).await.map_err(|e| e.to_string())?;
        Ok(match entry {
            Some(entry) => (serde_json::from_slice(&entry.value).unwrap_or_default(), Expect::At(entry.revision)),
            None => (Vec::new(), Expect::Absent),
        })
    }

    /// Whether a person has approved exactly what would be written and deleted now.
    async fn is_approved(&self, content: &Content, source: &str, gone: &[&Object]) -> Result<(), Not> {
        let would = apply(&self.backend, content.objects.clone(), Some(source), DryRun::All).await;
        let would = would.map_err(|e| Not::Broken(e.message))?;
        let unchanged = Outcome::Unchanged.as_str();
        let writes = would.iter().filter(|one| one.result != unchanged).map(|one| format!("{}/{} {}", one.kind, one.name, one.result));
        let deletes = gone.iter().map(|o| format!("{}/{} deleted", o.kind(), o.name()));
        let writes: Vec<String> = writes.chain(deletes).collect();
        if writes.is_empty() {
            return Ok(());
        }
        let digest = short(&[content.digest.as_bytes(), writes.join("\n").as_bytes()].concat());
        if self.backend.source.takes_approval(&digest) {
            return Ok(());
        }
        let what = writes.join(", ");
        self.backend.source.waits_for(Some(Pending { digest, writes }));
        Err(Not::Waits(format!(
            "the directory holds what was applied before, or came before what was applied last; this controller did not see it change since, so it \
             may be an older checkout. Nothing is applied ({what}) before `embody approve source/directory`"
        )))
    }
}

fn short(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(6).map(|b| format!("{b:02x}")).collect()
}

/// Of the objects, whatever the files are called: 12 hexadecimal digits.
fn digest_of(objects: &[Object]) -> String {
    let texts: BTreeSet<String> = objects.iter().map(|object| object.to_json().to_string()).collect();
    short(texts.into_iter().collect::<Vec<String>>().join("\n").as_bytes())
}

fn created_by(object: &Object, source: &str) -> bool {
    object.meta.annotations.get(SOURCE).is_some_and(|s| s == source)
}

/// What refers to others goes first.
async fn delete(backend: &Backend, gone: &[&Object]) -> Result<String, String> {
    let mut order: Vec<&&Object> = gone.iter().collect();
    order.sort_by_key(|o| std::cmp::Reverse(o.kind()));
    let mut done = 0;
    for object in order {
        let same = Preconditions { uid: Some(object.meta.uid.clone()), ..Preconditions::default() };
        backend.delete(object.kind(), object.name(), &same, DryRun::No).await.map_err(|e| {
            format!("{}/{} is no longer in the directory but cannot be deleted: {}", object.kind(), object.name(), e.message)
        })?;
        done += 1;
    }
    Ok(if done == 0 { String::new() } else { format!("; {done} deleted") })
}
