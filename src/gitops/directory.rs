//! `serve --manifests DIR`: what the directory holds is created and updated, all of it or nothing.
//!
//! Level-triggered: notify is a hint, the rescan is the truth. A broken file changes nothing and is a condition on Policy/default.
//! Invariant: deletes only with `--prune`, only what this directory created, and never everything: an empty directory deletes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use crate::control::controller::Message;
use crate::control::status_writer::{Site, SiteCondition};
use crate::limits;
use crate::manifest;
use crate::model::{Kind, Name, Object};
use crate::server::api::apply::apply;
use crate::server::api::objects::{Preconditions, SOURCE};
use crate::server::api::{Backend, DryRun};

type ToController = watch::Receiver<Option<mpsc::Sender<Message>>>;

/// The condition that tells how the last scan went.
const CONDITION: &str = "ManifestsApplied";

pub(crate) async fn run(directory: PathBuf, prune: bool, backend: Arc<Backend>, mut controller: ToController, site: Site) {
    let (hint, mut hints) = mpsc::channel(1);
    let _watcher = watch_directory(&directory, hint);
    loop {
        // Only the controller that acts writes desired state from its directory.
        if controller.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let outcome = scan(&directory, prune, &backend).await;
        tell(outcome, &site);
        tokio::select! {
            biased;
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

fn tell(outcome: Result<String, String>, site: &Site) {
    let word = match outcome {
        Ok(message) => SiteCondition { ok: true, reason: "Applied", message },
        Err(message) => SiteCondition { ok: false, reason: "Broken", message },
    };
    site.send_if_modified(|site| {
        let new = site.insert(CONDITION, word.clone()).as_ref() != Some(&word);
        if new && !word.ok {
            tracing::warn!(error = word.message, "the directory of manifests was not applied");
        }
        new
    });
}

/// One scan: what was done, or why nothing was.
async fn scan(directory: &Path, prune: bool, backend: &Backend) -> Result<String, String> {
    let (existing, _) = backend.all().await.map_err(|e| e.message)?;
    let path = directory.to_owned();
    let beneath = existing.clone();
    let loaded =
        tokio::task::spawn_blocking(move || manifest::load(&manifest::read(&[path], true), &beneath)).await.map_err(|e| e.to_string())?;
    if loaded.has_errors() {
        return Err(loaded.render(false));
    }
    let source = format!("directory:{}", directory.display());
    let present: BTreeSet<(Kind, Name)> = loaded.objects.iter().map(|o| (o.kind(), o.name().clone())).collect();
    let files = loaded.files;
    apply(backend, loaded.objects, Some(&source), DryRun::No).await.map_err(|e| e.message)?;
    let gone: Vec<&Object> =
        existing.iter().filter(|o| created_by(o, &source) && !present.contains(&(o.kind(), o.name().clone()))).collect();
    let mut message = format!("{} objects of {files} files", present.len());
    if prune && !present.is_empty() {
        message.push_str(&delete(backend, &gone).await?);
    } else if !gone.is_empty() {
        message.push_str(&format!("; {} objects that it created before are no longer in it (they stay: no --prune)", gone.len()));
    }
    Ok(message)
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
