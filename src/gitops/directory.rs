//! `serve --manifests DIR`: what the directory holds is created and updated, all of it or nothing.
//!
//! Level-triggered: what happens there is a hint (`lookout`), the rescan is the truth. A broken file changes nothing and is a condition on Policy/default.
//! Invariants: deletes only with `--prune`, only what this directory created, and never everything: an empty directory deletes nothing. Deletions that
//! empty a kind, leave a body alive, or are more than the Policy's limits wait for a person, together with all writes. What was
//! applied before and has been replaced since is not applied again by an instance that did not see its directory change to it after that: the
//! checkout of a standby may be older. Shown by `tests/directory.rs`, `tests/rack/process.rs` and `tests/simulate.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::lookout::Lookout;
use super::rest;
use crate::control::controller::Message;
use crate::control::operator::Control;
use crate::control::status_writer::{Site, SiteCondition};
use crate::limits;
use crate::manifest::{self, Survey};
use crate::model::{Kind, Name, Object, Spec};
use crate::server::api::change::Change;
use crate::server::api::fault::ApiError;
use crate::server::api::objects::SOURCE;
use crate::server::api::source::Pending;
use crate::server::api::{Backend, DryRun};
use crate::store::{Expect, keys};

type ToController = watch::Receiver<Option<mpsc::Sender<Message>>>;

/// The condition that tells how the last scan went.
const CONDITION: &str = "ManifestsApplied";

pub(crate) async fn run(directory: PathBuf, prune: bool, backend: Arc<Backend>, mut controller: ToController, site: Site) {
    let mut lookout = Lookout::new(directory.clone());
    let mut source = Directory::new(directory, prune, backend);
    loop {
        lookout.begin().await;
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
            () = lookout.hint() => {}
            () = tokio::time::sleep(limits::RESCAN) => {}
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
    /// Files of other tools.
    skipped: Vec<String>,
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
    /// Its files, when they were read last.
    read: Option<Survey>,
    /// When how many objects were deleted that no person had to be asked about.
    deleted: VecDeque<(Instant, usize)>,
}

impl Directory {
    pub fn new(path: PathBuf, prune: bool, backend: Arc<Backend>) -> Directory {
        Directory { path, prune, backend, seen: None, changed_to: None, applied_then: None, read: None, deleted: VecDeque::new() }
    }

    /// Reads it, once it is at rest.
    pub async fn look(&mut self) -> Result<Content, String> {
        let files = rest::read(&self.path, &mut self.read).await?;
        let mut existing = self.backend.all().await.map_err(|e| e.message)?;
        if self.prune {
            // What it created is replaced by what it holds now, and is gone otherwise.
            let source = self.source();
            existing.retain(|o| !created_by(o, &source));
        }
        let loaded = tokio::task::spawn_blocking(move || manifest::load(&files, &existing)).await.map_err(|e| e.to_string())?;
        if loaded.has_errors() {
            return Err(first_of(loaded.diagnostics.iter().filter(|d| d.is_error()).map(manifest::Diagnostic::line).collect()));
        }
        let content = self.saw(loaded.objects, loaded.files).await;
        Ok(Content { skipped: loaded.skipped, ..content })
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
        Content { objects, files, digest, skipped: Vec::new() }
    }

    pub async fn apply(&mut self, content: Content) -> Result<String, Not> {
        let broken = |e: ApiError| Not::Broken(e.message);
        let source = self.source();
        let present: BTreeSet<(Kind, Name)> = content.objects.iter().map(|o| (o.kind(), o.name().clone())).collect();
        let is_gone = |o: &Object| created_by(o, &source) && !present.contains(&(o.kind(), o.name().clone()));
        let prunes = self.prune && !present.is_empty();
        let backend = Arc::clone(&self.backend);
        let change = backend.change(content.objects, &|o| prunes && is_gone(o)).await.map_err(broken)?;
        let (mut history, expect) = self.history().await.map_err(Not::Broken)?;
        let is_newest = history.last() == Some(&content.digest);
        let is_older = !is_newest && history.contains(&content.digest);
        // Whatever came here before another one was applied, as to a standby whose checkout stays behind, is no answer to that one.
        let overtaken = !is_newest && self.applied_then.as_ref().is_some_and(|then| then.as_ref() != history.last());
        let mut because = Vec::new();
        if overtaken || (is_older && self.changed_to.as_ref() != Some(&content.digest)) {
            because.push(OLDER.to_owned());
        }
        let deleted = Deleted { change: &change, source: &source, present: &present };
        because.extend(deleted.needs_a_word(self.deleted_lately(), &*backend.control).await.map_err(Not::Broken)?);
        if let Err(not) = self.is_approved(&change, &content.digest, &because) {
            if overtaken && !history.contains(&content.digest) {
                self.keep_overtaken(history, expect, &content.digest).await;
            }
            return Err(not);
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
        let (deletes, left) = (change.deleted().len(), change.before().iter().filter(|o| !prunes && is_gone(o)).count());
        if deletes > 0 && because.is_empty() {
            self.deleted.push_back((Instant::now(), deletes));
        }
        let skipped = in_words(&content.skipped);
        change.carry_out(Some(&source), DryRun::No).await.map_err(broken)?;
        if deletes > 0 {
            message.push_str(&format!("; {deletes} deleted"));
        } else if left > 0 {
            message.push_str(&format!("; {left} objects that it created before are no longer in it (they stay: no --prune)"));
        }
        Ok(message + &skipped)
    }

    /// What objects that it creates are annotated with.
    fn source(&self) -> String {
        format!("directory:{}", self.path.display())
    }

    /// How many objects went in the last while without a person's word.
    fn deleted_lately(&mut self) -> usize {
        self.deleted.retain(|(at, _)| at.elapsed() < limits::DELETED_LATELY);
        self.deleted.iter().map(|(_, count)| count).sum()
    }

    /// The digests of what directories held when it was applied, the newest last. One that does not read is none: it is begun anew.
    async fn history(&self) -> Result<(Vec<String>, Expect), String> {
        let entry = self.backend.store.get(keys::DIRECTORY).await.map_err(|e| e.to_string())?;
        Ok(match entry {
            Some(entry) => (serde_json::from_slice(&entry.value).unwrap_or_default(), Expect::At(entry.revision)),
            None => (Vec::new(), Expect::Absent),
        })
    }

    /// As one that was applied before the last: what waits for a person's word waits for it after a restart too.
    async fn keep_overtaken(&self, mut history: Vec<String>, expect: Expect, digest: &str) {
        // Never as the newest: that would be applied unasked.
        let Some(last) = history.len().checked_sub(1) else { return };
        history.insert(last, digest.to_owned());
        let excess = history.len().saturating_sub(limits::SOURCE_HISTORY);
        history.drain(..excess);
        let value = serde_json::to_vec(&history).unwrap_or_default();
        // One that could not be stored is tried with the next look.
        if let Err(error) = self.backend.store.put_if(keys::DIRECTORY, value, expect).await {
            tracing::debug!(error = %error, "what another content has overtaken could not be remembered");
        }
    }

    /// Whether a person has approved exactly what would be written and deleted now, where there is a reason to ask.
    fn is_approved(&self, change: &Change<'_>, content: &str, because: &[String]) -> Result<(), Not> {
        let mut lines = Vec::new();
        let mut exactly = vec![content.to_owned()];
        for (object, outcome) in change.written() {
            lines.push(format!("{}/{} {}", object.kind(), object.name(), outcome.as_str()));
        }
        lines.extend(change.deleted().iter().map(|o| format!("{}/{} deleted", o.kind(), o.name())));
        if because.is_empty() || lines.is_empty() {
            return Ok(());
        }
        exactly.extend(lines.iter().cloned());
        // What is written over, and what is deleted, as it is now: another edit of it meanwhile was not shown.
        let named: BTreeSet<(Kind, &Name)> =
            change.written().map(|(o, _)| o).chain(change.deleted().iter().map(AsRef::as_ref)).map(key).collect();
        let before = change.before().iter().filter(|o| named.contains(&key(o)));
        exactly.extend(before.map(|o| format!("{}/{} {} {}", o.kind(), o.name(), o.meta.uid, o.meta.generation)));
        let digest = short(exactly.join("\n").as_bytes());
        if self.backend.source.takes_approval(&digest) {
            return Ok(());
        }
        let what = first_of(lines.clone());
        self.backend.source.waits_for(Some(Pending { digest, writes: lines }));
        Err(Not::Waits(format!("{}. Nothing is applied ({what}) before `embody approve source/directory`", because.join("; "))))
    }
}

fn in_words(skipped: &[String]) -> String {
    match skipped {
        [] => String::new(),
        [one] => format!("; without {one}, which holds no object of embody's"),
        [first, rest @ ..] => format!("; without {first} and {} other files, which hold no object of embody's", rest.len()),
    }
}

/// What fits into a condition; an approval, and a dry run, show all.
fn first_of(lines: Vec<String>) -> String {
    const SHOWN: usize = 20;
    match lines.get(..SHOWN) {
        Some(first) if lines.len() > SHOWN => format!("{} and {} more", first.join(", "), lines.len() - SHOWN),
        _ => lines.join(", "),
    }
}

const OLDER: &str = "the directory holds what was applied before, or came before what was applied last; this controller did not see it change since, \
                     so it may be an older checkout";

fn key(object: &Object) -> (Kind, &Name) {
    (object.kind(), object.name())
}

/// What a change deletes, and what the directory holds then.
struct Deleted<'a> {
    change: &'a Change<'a>,
    source: &'a str,
    present: &'a BTreeSet<(Kind, Name)>,
}

impl Deleted<'_> {
    /// Why a person has to be asked before these deletions: a sentence each. The Policy that counts is the one that stands, not the one that would
    /// be written.
    async fn needs_a_word(&self, lately: usize, control: &dyn Control) -> Result<Vec<String>, String> {
        let deleted = self.change.deleted();
        let (mut because, mut alive) = (self.whole_kinds(), None);
        for binding in deleted.iter().filter(|o| o.kind() == Kind::Binding) {
            if let Some(why) = control.alive(binding.name()).await.map_err(|refusal| refusal.to_string())? {
                alive.get_or_insert_with(|| (binding.name(), why, 0)).2 += 1;
            }
        }
        if let Some((name, why, count)) = alive {
            let others = if count > 1 { format!(", and {} more like it", count - 1) } else { String::new() };
            because.push(format!("Binding/{name} is not there any more, and {why}{others}"));
        }
        let before = self.change.before();
        let policy = before.iter().find_map(|o| if let Spec::Policy(policy) = &o.spec { Some(policy.limits.clone()) } else { None });
        let limits = policy.unwrap_or_default();
        let most = limits.max_deletes.0 as usize;
        if !deleted.is_empty() && deleted.len() + lately > most {
            let earlier = if lately > 0 { format!(" ({lately} were in the last ten minutes)") } else { String::new() };
            because.push(format!(
                "{} objects would be deleted{earlier}, and limits.maxDeletes lets {most} be deleted in ten minutes unasked",
                deleted.len()
            ));
        }
        let servers: BTreeSet<&Name> = deleted.iter().filter_map(|o| server_of(o)).collect();
        let most = limits.max_affected_by_change.of(before.iter().filter(|o| o.kind() == Kind::Server).count());
        if servers.len() > most {
            because.push(format!(
                "what is deleted concerns {} servers, and limits.maxAffectedByChange lets {most} be concerned unasked",
                servers.len()
            ));
        }
        Ok(because)
    }

    /// Kinds of which the directory held something, and holds nothing any more.
    fn whole_kinds(&self) -> Vec<String> {
        let kinds: BTreeSet<Kind> = self.change.deleted().iter().map(|o| o.kind()).collect();
        let empty = kinds.into_iter().filter(|kind| !self.present.iter().any(|(present, _)| present == kind));
        let count = |kind: Kind| self.change.before().iter().filter(|o| o.kind() == kind && created_by(o, self.source)).count();
        empty.map(|kind| format!("no {kind} is left in the directory, of {} that it created", count(kind))).collect()
    }
}

/// The server that the deletion of an object concerns.
fn server_of(object: &Object) -> Option<&Name> {
    match &object.spec {
        Spec::Server(_) => Some(object.name()),
        Spec::Binding(binding) => binding.target.server.as_ref(),
        Spec::Policy(_) | Spec::Secret(_) | Spec::Network(_) | Spec::Switch(_) | Spec::Persona(_) => None,
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
