//! Who keeps the files of images: takes them in, looks whether each image is here whole, makes its initrd, and gives its files to boot services.
//!
//! Leaves out: names (`control::images`), and what is in an image (`image`). Invariants: what is served was compared with its digest; content goes only
//! when its name was removed while this controller acted, never because a name is not known.
//! Shown by `tests/images.rs`.

mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncWriteExt;
use tokio::sync::{MutexGuard, Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::boot::Controller;
use crate::boot::script::RAM;
use crate::boot::token::SiteKey;
use crate::control::booting::Shared;
use crate::control::controller::Message;
use crate::control::images::{Here, Known};
use crate::image::digest::Digest;
use crate::image::files::OfImage;
use crate::image::generalise::{StepReport, Steps};
use crate::image::index::{Inode, Node};
use crate::image::source::Source;
use crate::image::squash::squash;
use crate::image::store::{Damage, Damaged, Objects, StoreError};
use crate::image::warnings::Warning;
use crate::image::{self, agent, digest, export, index, initrd};
use crate::limits;
use crate::model::image::{Blob, Image, ImageKernel, ImageName};
use crate::server::api::fault::chain;
use crate::store::{Store, keys};

pub(crate) use copy::PEER;

/// Where what is imported waits until it is read.
const INCOMING: &str = "incoming";

/// What an import is told of.
#[derive(Debug)]
pub(crate) struct Imported {
    pub digest: String,
    pub entries: u64,
    pub bytes: u64,
    pub kernel: Option<ImageKernel>,
    pub init: bool,
    pub warnings: Vec<String>,
    pub generalised: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Verified {
    pub files: u64,
    pub bytes: u64,
    /// Sentences.
    pub damaged: Vec<String>,
}

/// Why a body was not taken: for what its sender did, or for what is wrong here.
pub(crate) enum NotTaken {
    Theirs(String),
    Ours(String),
}

/// An image that is here whole.
pub(crate) struct Whole {
    pub digest: Digest,
    pub index: index::Index,
    kernel: Option<ImageKernel>,
    /// Ours, for that kernel.
    initrd: Option<PathBuf>,
}

/// A file of an image that a boot loader asks for.
pub(crate) enum Wanted {
    Kernel,
    Initrd,
    StockInitrd,
    /// By its digest.
    Ram(String),
}

pub struct Keeper {
    objects: Objects,
    data: PathBuf,
    store: Arc<dyn Store>,
    shared: Shared,
    controller: Controller,
    /// Where the controller that acts is, if this one does not.
    leader: Option<SocketAddr>,
    importing: tokio::sync::Mutex<()>,
    again: Notify,
    whole: watch::Sender<BTreeMap<Digest, Arc<Whole>>>,
    /// Those of which `verify` found something damaged, and what: nothing is started with them. What runs goes on, but for what is damaged.
    damaged: Mutex<BTreeMap<Digest, String>>,
    /// Those that could not be completed, or (true) packed: why, and when that was tried.
    failed: Mutex<BTreeMap<(Digest, bool), (String, Instant)>>,
    key: Mutex<Option<Arc<SiteKey>>>,
}

impl Keeper {
    /// In a directory of local files.
    pub(crate) fn open(
        data: &Path,
        store: Arc<dyn Store>,
        shared: Shared,
        controller: Controller,
        leader: Option<SocketAddr>,
    ) -> Result<Arc<Keeper>, StoreError> {
        let objects = Objects::at(data.join("images"))?;
        // What an import or a copy left that did not end: one process has this directory.
        for left in ["tmp", INCOMING] {
            let entries = std::fs::read_dir(objects.root().join(left)).into_iter().flatten().flatten();
            for entry in entries.map(|entry| entry.path()) {
                let _gone = if entry.is_dir() { std::fs::remove_dir_all(&entry) } else { std::fs::remove_file(&entry) };
            }
        }
        let keeper = Keeper {
            objects,
            data: data.to_owned(),
            store,
            shared,
            controller,
            leader,
            importing: tokio::sync::Mutex::default(),
            again: Notify::new(),
            whole: watch::Sender::default(),
            damaged: Mutex::default(),
            failed: Mutex::default(),
            key: Mutex::default(),
        };
        match keeper.read_key() {
            Ok(key) => *keeper.key.lock().unwrap_or_else(PoisonError::into_inner) = key.map(Arc::new),
            Err(error) => tracing::warn!(error = %error, "the site's key, as it was last known here, does not read"),
        }
        Ok(Arc::new(keeper))
    }

    // ---- what is here ----------------------------------------------------------------------------------------------------

    /// Follows what images there are, until the process ends.
    pub(crate) async fn run(self: Arc<Keeper>) {
        let mut known = self.shared.images.known.subscribe();
        let mut views = self.shared.view.subscribe();
        let mut before = BTreeSet::new();
        self.begin().await;
        loop {
            self.learn_key().await;
            let acting = known.borrow_and_update().clone();
            views.mark_unchanged();
            let acts = acting.is_some();
            let Known { images, ram, runs } = match &acting {
                Some(known) => known.as_ref().clone(),
                None => Known { images: self.stored().await, ..Known::default() },
            };
            let all: BTreeMap<Digest, &Image> = images.values().filter_map(|image| Some((image.digest.parse().ok()?, image))).collect();
            for (digest, image) in &all {
                self.look_at(*digest, image.kernel.clone(), ram.contains(&image.digest)).await;
                if !acts && self.whole(digest).is_none() {
                    self.copy(*digest).await;
                    self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&(*digest, false));
                    self.look_at(*digest, image.kernel.clone(), false).await;
                } else if !acts {
                    self.offer(*digest).await;
                }
            }
            let now: BTreeSet<Digest> = all.keys().copied().collect();
            if acts {
                // What may be running stays, and is looked at again.
                let (stays, gone): (BTreeSet<Digest>, BTreeSet<Digest>) =
                    before.difference(&now).copied().partition(|digest| runs.contains(&digest.to_string()));
                // What cannot go now, since an import runs, goes later.
                let left = if self.collect(&gone).await { BTreeSet::new() } else { gone };
                before = now.union(&stays).chain(&left).copied().collect();
            }
            tokio::select! {
                biased;
                _ = known.changed() => {}
                _ = views.changed() => {}
                () = self.again.notified() => {}
                () = tokio::time::sleep(limits::IMAGES_LOOKED_AT) => {}
            }
        }
    }

    /// What is on the disk: systems that run go on reading it, whoever acts and whether the store answers or not.
    async fn begin(self: &Arc<Keeper>) {
        let found = self.blocking(|keeper| {
            let indexes = keeper.objects.indexes().map_err(|error| chain(&error))?;
            for digest in indexes {
                if let Err(why) = keeper.complete(digest, None) {
                    tracing::debug!(image = %digest, why, "an image is not whole");
                }
            }
            Ok(())
        });
        if let Err(why) = found.await.unwrap_or_else(Err) {
            tracing::warn!("images cannot be listed: {why}");
        }
    }

    /// As the store has them, where another controller acts.
    async fn stored(&self) -> BTreeMap<ImageName, Image> {
        let listed = match self.store.list(keys::IMAGES).await {
            Ok((entries, _)) => entries,
            Err(error) => {
                tracing::debug!(error = %error, "images cannot be read from the store");
                return BTreeMap::new();
            }
        };
        let read = |entry: &crate::store::Entry| match keys::Key::parse(&entry.key) {
            Some(keys::Key::Image(name)) if !entry.damaged => serde_json::from_slice(&entry.value).ok().map(|image| (name, image)),
            _ => None,
        };
        listed.iter().filter_map(read).collect()
    }

    /// What one lacks that was imported just now.
    pub(crate) async fn look(self: &Arc<Keeper>, image: &Image) -> Option<String> {
        let digest = image.digest.parse().ok()?;
        self.look_at(digest, image.kernel.clone(), false).await;
        self.shared.images.here(&image.digest).lacks
    }

    /// What of an image is here, and tells where that is news. `ram`: some machine reads it into its memory.
    async fn look_at(self: &Arc<Keeper>, digest: Digest, kernel: Option<ImageKernel>, ram: bool) {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        let lacks = match damaged.or_else(|| self.failed_lately(digest, false)) {
            Some(why) => Some(why),
            None if self.whole(&digest).is_some_and(|whole| whole.kernel == kernel) => None,
            None => {
                let complete = self.blocking(move |keeper| keeper.complete(digest, kernel)).await.unwrap_or_else(Err);
                complete.inspect_err(|why| self.has_failed(digest, false, why)).err()
            }
        };
        // Before it is packed: that takes longer.
        let before = self.shared.images.here(&digest.to_string());
        self.tell(digest, Here { lacks: lacks.clone(), ram: before.ram.clone() }).await;
        let to_pack = ram && before.ram.is_err() && self.failed_lately(digest, true).is_none();
        if let (Some(whole), true, None) = (self.whole(&digest), to_pack, &lacks) {
            let ram = self.blocking(move |keeper| keeper.packed(&whole)).await.unwrap_or_else(Err);
            let ram = ram.inspect_err(|why| self.has_failed(digest, true, why));
            self.tell(digest, Here { lacks, ram }).await;
        }
    }

    /// What takes seconds is not tried each time that somebody looks.
    fn failed_lately(&self, digest: Digest, packed: bool) -> Option<String> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&(digest, packed)).filter(|(_, at)| at.elapsed() < limits::IMAGE_TRIED_AGAIN).map(|(why, _)| why.clone())
    }

    fn has_failed(&self, digest: Digest, packed: bool, why: &str) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert((digest, packed), (why.to_owned(), Instant::now()));
    }

    async fn tell(&self, digest: Digest, here: Here) {
        let before = self.shared.images.here(&digest.to_string());
        for why in
            here.lacks.iter().filter(|_| before.lacks != here.lacks).chain(here.ram.as_ref().err().filter(|_| before.ram != here.ram))
        {
            tracing::warn!(image = %digest, "an image is not here whole: {why}");
        }
        if self.shared.images.is(&digest.to_string(), here) {
            let controller = self.controller.borrow().clone();
            if let Some(controller) = controller {
                let _ended = controller.send(Message::Images).await;
            }
        }
    }

    /// What machines read into their memory: made once, and found again by its digest.
    fn packed(&self, whole: &Whole) -> Result<Blob, String> {
        let directory = self.derived(&whole.digest);
        let failed = |error: io::Error| format!("it cannot be packed in {}: {error}", directory.display());
        std::fs::create_dir_all(&directory).map_err(failed)?;
        for entry in std::fs::read_dir(&directory).map_err(failed)?.flatten() {
            let Some(named) =
                entry.file_name().to_str().and_then(|name| name.strip_prefix(RAM)).and_then(|name| name.parse::<Digest>().ok())
            else {
                continue;
            };
            let (found, size) = File::open(entry.path()).and_then(Digest::of_reader).map_err(failed)?;
            if found == named {
                return Ok(Blob { sha256: found.to_string(), size });
            }
            let _damaged = std::fs::remove_file(entry.path());
        }
        let mut made = NamedTempFile::new_in(&directory).map_err(failed)?;
        squash(&whole.index, &self.objects, made.as_file_mut()).map_err(|error| chain(&error))?;
        made.as_file().sync_all().map_err(failed)?;
        let (found, size) = File::open(made.path()).and_then(Digest::of_reader).map_err(failed)?;
        made.persist(directory.join(format!("{RAM}{found}"))).map_err(|error| failed(error.error))?;
        tracing::info!(image = %whole.digest, bytes = size, "an image was packed for memory");
        Ok(Blob { sha256: found.to_string(), size })
    }

    fn derived(&self, digest: &Digest) -> PathBuf {
        self.objects.root().join("derived").join(digest.to_string())
    }

    fn complete(&self, digest: Digest, kernel: Option<ImageKernel>) -> Result<(), String> {
        let index = self.objects.index(&digest).map_err(|error| chain(&error))?;
        let missing = self.objects.missing(index.contents());
        if !missing.is_empty() {
            return Err(format!("{} of its files are not here", missing.len()));
        }
        let initrd = match &kernel {
            Some(kernel) => Some(self.initrd(digest, &index, kernel)?),
            None => None,
        };
        let whole = Whole { digest, index, kernel, initrd };
        self.whole.send_modify(|all| drop(all.insert(digest, Arc::new(whole))));
        Ok(())
    }

    /// Made once for each agent: the same image and agent always give the same initrd.
    fn initrd(&self, digest: Digest, index: &index::Index, kernel: &ImageKernel) -> Result<PathBuf, String> {
        let directory = self.derived(&digest);
        let agent = agent::of_this_machine();
        let of_agent: String = Digest::of(agent).to_string().chars().take(12).collect();
        let path = directory.join(format!("initrd-{of_agent}"));
        if path.exists() {
            return Ok(path);
        }
        let failed = |error: io::Error| format!("its initrd could not be written to {}: {error}", path.display());
        std::fs::create_dir_all(&directory).map_err(failed)?;
        // What an earlier version made is of no use any more.
        let is_initrd = |entry: &std::fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with("initrd-"));
        for old in std::fs::read_dir(&directory).map_err(failed)?.flatten().filter(is_initrd) {
            let _gone = std::fs::remove_file(old.path());
        }
        let files = OfImage::new(index, &self.objects);
        let mut made = NamedTempFile::new_in(&directory).map_err(failed)?;
        let report = initrd::build(&files, &kernel.version, agent, made.as_file_mut()).map_err(|error| chain(&error))?;
        made.as_file().sync_all().map_err(failed)?;
        made.persist(&path).map_err(|error| failed(error.error))?;
        tracing::info!(image = %digest, kernel = kernel.version, bytes = report.packed_bytes, modules = report.modules.len(), "an initrd was made");
        Ok(path)
    }

    /// Removes the content of names that were removed. Whether it is gone.
    async fn collect(self: &Arc<Keeper>, gone: &BTreeSet<Digest>) -> bool {
        if gone.is_empty() {
            return true;
        }
        self.whole.send_modify(|all| all.retain(|digest, _| !gone.contains(digest)));
        gone.iter().for_each(|digest| self.shared.images.forget(&digest.to_string()));
        let all = gone.clone();
        let collected = self.blocking(move |keeper| {
            let keep: BTreeSet<Digest> = keeper.objects.indexes()?.into_iter().filter(|digest| !all.contains(digest)).collect();
            let swept = keeper.objects.remove_unreferenced(&keep, Duration::ZERO)?;
            for digest in &all {
                let _none = std::fs::remove_dir_all(keeper.derived(digest));
            }
            Ok(swept)
        });
        let why = match collected.await {
            Ok(Ok(swept)) => {
                tracing::info!(objects = swept.objects, bytes = swept.bytes, "the files of removed images are gone");
                return true;
            }
            Ok(Err(StoreError::Busy { .. })) => return false,
            Ok(Err(error)) => chain(&error),
            Err(lost) => lost,
        };
        tracing::warn!(error = why, "the files of removed images could not be removed; it is tried again");
        false
    }

    /// Something was done about it.
    pub(crate) fn look_again(&self) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.again.notify_one();
    }

    pub(crate) fn whole(&self, digest: &Digest) -> Option<Arc<Whole>> {
        self.whole.borrow().get(digest).cloned()
    }

    /// Until there is an image here.
    pub(crate) async fn has_any(&self) {
        // The sender is our own.
        let mut all = self.whole.subscribe();
        let _never = all.wait_for(|all| !all.is_empty()).await;
    }

    /// One whose digest begins with these octets.
    pub(crate) fn whole_by(&self, id: &[u8; 16]) -> Option<Arc<Whole>> {
        let whole = self.whole.borrow();
        whole.iter().find(|(digest, _)| digest.as_bytes().starts_with(id)).map(|(_, whole)| Arc::clone(whole))
    }

    async fn blocking<T: Send + 'static>(self: &Arc<Keeper>, work: impl FnOnce(&Keeper) -> T + Send + 'static) -> Result<T, String> {
        let keeper = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&keeper)).await.map_err(|error| error.to_string())
    }

    // ---- imports ---------------------------------------------------------------------------------------------------------

    /// Whether there are such steps.
    pub(crate) fn steps(&self, keep: &[String]) -> Result<(), String> {
        Steps::without(keep.iter().map(String::as_str)).map(drop).map_err(|error| error.to_string())
    }

    /// One after the other: each reads and writes a disk as fast as it goes.
    pub(crate) async fn one_import(&self) -> MutexGuard<'_, ()> {
        self.importing.lock().await
    }

    /// A file that is gone with its handle.
    pub(crate) fn scratch(&self) -> io::Result<NamedTempFile> {
        // Not where collecting garbage looks for leftovers.
        let directory = self.objects.root().join(INCOMING);
        std::fs::create_dir_all(&directory)?;
        NamedTempFile::new_in(directory)
    }

    /// A body of at most so many bytes as a file, which is gone with its path.
    pub(crate) async fn spool(&self, mut body: Body, most: u64) -> Result<TempPath, NotTaken> {
        let ours = |error: io::Error| NotTaken::Ours(format!("what comes could not be written down: {error}"));
        let (file, path) = self.scratch().map_err(ours)?.into_parts();
        let mut left = most;
        let mut to = tokio::io::BufWriter::with_capacity(1 << 20, tokio::fs::File::from_std(file));
        loop {
            let frame = tokio::time::timeout(limits::IMPORT_SILENT_FOR, body.frame()).await;
            let late = |_| NotTaken::Theirs(format!("nothing came for {} s", limits::IMPORT_SILENT_FOR.as_secs()));
            let Some(frame) = frame.map_err(late)? else { break };
            let frame = frame.map_err(|error| NotTaken::Theirs(format!("the body ended before its end ({error})")))?;
            if let Some(bytes) = frame.data_ref() {
                left = left.checked_sub(bytes.len() as u64).ok_or_else(|| NotTaken::Theirs(format!("it has more than {most} bytes")))?;
                to.write_all(bytes).await.map_err(ours)?;
            }
        }
        to.flush().await.map_err(ours)?;
        Ok(path)
    }

    pub(crate) async fn import(self: &Arc<Keeper>, from: TempPath, keep: Vec<String>) -> Result<Imported, String> {
        let imported = self.blocking(move |keeper| keeper.import_now(&from, &keep)).await??;
        // What was missing of it, or set aside, is there again.
        if let Ok(digest) = imported.digest.parse() {
            self.damaged.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        }
        Ok(imported)
    }

    fn import_now(&self, from: &Path, keep: &[String]) -> Result<Imported, String> {
        let steps = Steps::without(keep.iter().map(String::as_str)).map_err(|error| error.to_string())?;
        // Whoever sends it knows it by another name.
        let in_words = |error: &dyn std::error::Error| chain(error).replace(&from.display().to_string(), "what was sent");
        let source = Source::of_file(from).map_err(|error| in_words(&error))?;
        let options = image::Options { steps, ..image::Options::default() };
        let imported = image::import(&source, &options, &self.objects).map_err(|error| in_words(&error))?;
        let told = |step: &StepReport| (!step.changes.is_empty()).then(|| format!("{}: {}", step.name, step.changes.join(", ")));
        Ok(Imported {
            digest: imported.digest.to_string(),
            entries: imported.entries as u64,
            bytes: imported.bytes,
            kernel: imported.kernel.map(|kernel| ImageKernel { version: kernel.version, path: kernel.path }),
            init: !imported.warnings.contains(&Warning::NoInit),
            warnings: imported.warnings.iter().map(ToString::to_string).collect(),
            generalised: imported.generalised.iter().filter_map(told).collect(),
        })
    }

    /// Something of it was found damaged: nothing is started with it. What runs goes on, but for that.
    fn is_damaged(&self, digest: &Digest, why: String) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.insert(*digest, format!("{why}; importing the same content again under its name heals it"));
        drop(damaged);
        self.look_again();
    }

    /// What of it is damaged, and would be in whatever is made of it.
    pub(crate) async fn is_good(self: &Arc<Keeper>, digest: &str) -> Result<(), String> {
        let found = self.verify(digest).await?;
        if found.damaged.is_empty() { Ok(()) } else { Err(found.damaged.join("; ")) }
    }

    /// Reads all of an image again. What is damaged is set aside, so that importing the same content again heals it.
    pub(crate) async fn verify(self: &Arc<Keeper>, digest: &str) -> Result<Verified, String> {
        let digest: Digest = digest.parse().map_err(|error: digest::BadDigest| error.to_string())?;
        let verified = match self.blocking(move |keeper| keeper.verify_now(digest)).await? {
            Ok(verified) => verified,
            Err(why) => {
                self.is_damaged(&digest, why.clone());
                return Err(why);
            }
        };
        match verified.damaged.is_empty() {
            true => {
                self.damaged.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
                self.look_again();
            }
            false => self.is_damaged(&digest, format!("{} of its files are damaged", verified.damaged.len())),
        }
        Ok(verified)
    }

    fn verify_now(&self, digest: Digest) -> Result<Verified, String> {
        let found = self.objects.verify(&digest).map_err(|error| chain(&error))?;
        for damaged in found.damaged.iter().filter(|damaged| damaged.damage != Damage::Missing) {
            self.objects.set_aside(&damaged.digest).map_err(|error| chain(&error))?;
        }
        Ok(Verified { files: found.objects, bytes: found.bytes, damaged: found.damaged.iter().map(in_words).collect() })
    }

    /// All of it as a tar.
    pub(crate) async fn tar(self: &Arc<Keeper>, digest: Digest) -> Result<ReceiverStream<io::Result<Bytes>>, String> {
        let index = self.blocking(move |keeper| keeper.objects.index(&digest)).await?.map_err(|error| chain(&error))?;
        let (to, chunks) = mpsc::channel(limits::TREE_CHUNKS);
        let keeper = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut out = io::BufWriter::with_capacity(limits::TREE_CHUNK, Chunks { to: to.clone() });
            let done = export::export_tar(&index, &keeper.objects, &mut out).map(drop).map_err(|error| io::Error::other(chain(&error)));
            if let Err(error) = done.and_then(|()| out.flush()) {
                let _gone = to.blocking_send(Err(error));
            }
        });
        Ok(ReceiverStream::new(chunks))
    }

    // ---- what is served --------------------------------------------------------------------------------------------------

    /// Where a file is that is asked for at a boot, compared with its digest.
    pub(crate) async fn file(self: &Arc<Keeper>, digest: &str, wanted: Wanted) -> Result<Option<PathBuf>, String> {
        let Some(whole) = digest.parse().ok().and_then(|digest| self.whole(&digest)) else { return Ok(None) };
        self.blocking(move |keeper| keeper.wanted(&whole, wanted)).await?
    }

    fn wanted(&self, whole: &Whole, wanted: Wanted) -> Result<Option<PathBuf>, String> {
        let path = match (wanted, &whole.kernel) {
            (Wanted::Initrd, _) => return Ok(whole.initrd.clone()),
            (Wanted::Ram(sha256), _) => {
                // A digest, and no path to anywhere else.
                let named = sha256.parse::<Digest>().map_err(|error| error.to_string())?;
                let path = self.derived(&whole.digest).join(format!("{RAM}{named}"));
                return Ok(path.exists().then_some(path));
            }
            (Wanted::Kernel, Some(kernel)) => kernel.path.clone(),
            (Wanted::StockInitrd, Some(kernel)) => format!("/boot/initrd.img-{}", kernel.version),
            (Wanted::Kernel | Wanted::StockInitrd, None) => return Ok(None),
        };
        let Some(inode) = whole.index.find(path.as_bytes()) else { return Ok(None) };
        match whole.index.attributes(inode).map(|attributes| attributes.node) {
            Some(Node::File { digest, size }) => {
                self.objects.verified_path(&digest, size).map(Some).map_err(|error| self.not_opened(whole, inode, &error))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The content of a regular file of an image.
    pub(crate) fn content(&self, whole: &Whole, inode: Inode) -> Result<File, String> {
        match whole.index.attributes(inode).map(|attributes| attributes.node) {
            Some(Node::File { digest, size }) => {
                self.objects.open_verified(&digest, size).map_err(|error| self.not_opened(whole, inode, &error))
            }
            Some(_) | None => Err("it is no regular file".to_owned()),
        }
    }

    /// Why, by the file's name. Where that is its content, the image is not here whole any more; a system without free file handles damages nothing.
    fn not_opened(&self, whole: &Whole, inode: Inode, error: &StoreError) -> String {
        let why = format!("{}: {}", index::escaped(&whole.index.path(inode)), chain(error));
        if matches!(error, StoreError::Missing { .. } | StoreError::Size { .. } | StoreError::Flipped { .. }) {
            self.is_damaged(&whole.digest, why.clone());
        }
        why
    }

    // ---- the site's key --------------------------------------------------------------------------------------------------

    /// As it was last known here: what it has signed is served with no store and no leader.
    pub(crate) fn key(&self) -> Option<Arc<SiteKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn key_file(&self) -> PathBuf {
        self.data.join("site.key")
    }

    fn read_key(&self) -> io::Result<Option<SiteKey>> {
        match std::fs::read(self.key_file()) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// From the controller of this process, or from the store where another one acts.
    async fn learn_key(&self) {
        let view = self.shared.view.borrow().clone();
        let stored = async {
            let entry = self.store.get(keys::SITE_KEY).await.ok()??;
            serde_json::from_slice(&entry.value).ok().filter(|_| !entry.damaged).map(Arc::new)
        };
        let key = match view.and_then(|view| view.key.clone()) {
            Some(key) => Some(key),
            None => stored.await,
        };
        let Some(key) = key else { return };
        let mut known = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() == Some(&key) {
            return;
        }
        // A name of its own until it is whole; made for this user alone.
        let written = NamedTempFile::new_in(&self.data).and_then(|mut file| {
            serde_json::to_writer(file.as_file_mut(), key.as_ref()).map_err(io::Error::other)?;
            file.as_file().sync_all()?;
            file.persist(self.key_file()).map_err(|error| error.error)
        });
        if let Err(error) = written {
            tracing::warn!(error = %error, "the site's key could not be kept here: after a restart, roots are served once the store answers");
        }
        *known = Some(key);
    }
}

/// What is wrong with an object, and where it is used.
fn in_words(damaged: &Damaged) -> String {
    let what = match &damaged.damage {
        Damage::Missing => "is not there".to_owned(),
        Damage::Size { found, expected } => format!("has {found} bytes instead of {expected}"),
        Damage::Flipped { found } => format!("has other content ({found})"),
        Damage::Unreadable { because } => format!("does not read ({because})"),
    };
    let more = if damaged.more_paths > 0 { format!(" and {} more", damaged.more_paths) } else { String::new() };
    format!("{}{more} {what}", damaged.paths.join(", "))
}

struct Chunks {
    to: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
