//! Who keeps the files of images: takes them in, looks whether each image is here whole, makes its initrd, and gives its files to boot services.
//!
//! Leaves out: names (`control::images`), and what is in an image (`image`). Invariants: what is served was compared with its digest; content goes only
//! when its name was removed while this controller acted, never because a name is not known.
//! Shown by `tests/images.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tempfile::{NamedTempFile, TempPath};
use tokio::sync::{MutexGuard, Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::boot::Controller;
use crate::boot::token::SiteKey;
use crate::control::booting::Shared;
use crate::control::controller::Message;
use crate::image::digest::Digest;
use crate::image::files::OfImage;
use crate::image::generalise::{StepReport, Steps};
use crate::image::index::{Inode, Node};
use crate::image::source::Source;
use crate::image::store::{Damage, Damaged, Objects, StoreError};
use crate::image::{self, agent, digest, export, index, initrd};
use crate::limits;
use crate::model::image::{Image, ImageKernel, ImageName};
use crate::server::api::fault::chain;
use crate::store::{Store, keys};

/// What an import is told of.
#[derive(Debug)]
pub(crate) struct Imported {
    pub digest: String,
    pub entries: u64,
    pub bytes: u64,
    pub kernel: Option<ImageKernel>,
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
}

pub struct Keeper {
    objects: Objects,
    data: PathBuf,
    store: Arc<dyn Store>,
    shared: Shared,
    controller: Controller,
    importing: tokio::sync::Mutex<()>,
    again: Notify,
    whole: Mutex<BTreeMap<Digest, Arc<Whole>>>,
    /// Those of which `verify` found something damaged, and what: nothing is started with them. What runs goes on, but for what is damaged.
    damaged: Mutex<BTreeMap<Digest, String>>,
    key: Mutex<Option<Arc<SiteKey>>>,
}

impl Keeper {
    /// In a directory of local files.
    pub(crate) fn open(data: &Path, store: Arc<dyn Store>, shared: Shared, controller: Controller) -> Result<Arc<Keeper>, StoreError> {
        let objects = Objects::at(data.join("images"))?;
        let keeper = Keeper {
            objects,
            data: data.to_owned(),
            store,
            shared,
            controller,
            importing: tokio::sync::Mutex::default(),
            again: Notify::new(),
            whole: Mutex::default(),
            damaged: Mutex::default(),
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
        loop {
            self.learn_key();
            let acting = known.borrow_and_update().clone();
            views.mark_unchanged();
            let acts = acting.is_some();
            let images = match acting {
                Some(images) => images,
                None => Arc::new(self.stored().await),
            };
            let all: BTreeMap<Digest, &Image> = images.values().filter_map(|image| Some((image.digest.parse().ok()?, image))).collect();
            for (digest, image) in &all {
                self.look(*digest, image.kernel.clone()).await;
            }
            let now: BTreeSet<Digest> = all.keys().copied().collect();
            if acts {
                let gone: BTreeSet<Digest> = before.difference(&now).copied().collect();
                self.collect(gone).await;
                before = now;
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

    /// Whether an image is here whole, and tells where that is news.
    async fn look(self: &Arc<Keeper>, digest: Digest, kernel: Option<ImageKernel>) {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        let lacks = match damaged {
            Some(why) => Some(why),
            None if self.whole(&digest).is_some() => None,
            None => self.blocking(move |keeper| keeper.complete(digest, kernel)).await.unwrap_or_else(Err).err(),
        };
        if let (Some(why), true) = (&lacks, self.shared.images.lacks(&digest.to_string()) != lacks) {
            tracing::warn!(image = %digest, "an image is not here whole: {why}");
        }
        if self.shared.images.is(&digest.to_string(), lacks) {
            let controller = self.controller.borrow().clone();
            if let Some(controller) = controller {
                let _ended = controller.send(Message::Images).await;
            }
        }
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
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, Arc::new(whole));
        Ok(())
    }

    /// Made once for each agent: the same image and agent always give the same initrd.
    fn initrd(&self, digest: Digest, index: &index::Index, kernel: &ImageKernel) -> Result<PathBuf, String> {
        let directory = self.objects.root().join("derived").join(digest.to_string());
        let agent = agent::of_this_machine();
        let of_agent: String = Digest::of(agent).to_string().chars().take(12).collect();
        let path = directory.join(format!("initrd-{of_agent}"));
        if path.exists() {
            return Ok(path);
        }
        let failed = |error: io::Error| format!("its initrd could not be written to {}: {error}", path.display());
        std::fs::create_dir_all(&directory).map_err(failed)?;
        // What an earlier version made is of no use any more.
        for old in std::fs::read_dir(&directory).map_err(failed)?.flatten() {
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

    /// Removes the content of names that were removed.
    async fn collect(self: &Arc<Keeper>, gone: BTreeSet<Digest>) {
        if gone.is_empty() {
            return;
        }
        {
            let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            whole.retain(|digest, _| !gone.contains(digest));
        }
        gone.iter().for_each(|digest| self.shared.images.forget(&digest.to_string()));
        let collected = self.blocking(move |keeper| {
            let keep: BTreeSet<Digest> = keeper.objects.indexes()?.into_iter().filter(|digest| !gone.contains(digest)).collect();
            for digest in &gone {
                let _none = std::fs::remove_dir_all(keeper.objects.root().join("derived").join(digest.to_string()));
            }
            keeper.objects.remove_unreferenced(&keep, Duration::ZERO)
        });
        match collected.await {
            Ok(Ok(swept)) => tracing::info!(objects = swept.objects, bytes = swept.bytes, "the files of removed images are gone"),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the files of removed images could not be removed"),
            Err(lost) => tracing::warn!(error = lost, "the files of removed images could not be removed"),
        }
    }

    pub(crate) fn look_again(&self) {
        self.again.notify_one();
    }

    pub(crate) fn whole(&self, digest: &Digest) -> Option<Arc<Whole>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(crate) fn has_any(&self) -> bool {
        !self.whole.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// One whose digest begins with these octets.
    pub(crate) fn whole_by(&self, id: &[u8; 16]) -> Option<Arc<Whole>> {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
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
        NamedTempFile::new_in(self.objects.root().join("tmp"))
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
        let source = Source::of_file(from).map_err(|error| chain(&error))?;
        let options = image::Options { steps, ..image::Options::default() };
        let imported = image::import(&source, &options, &self.objects).map_err(|error| chain(&error))?;
        let told = |step: &StepReport| (!step.changes.is_empty()).then(|| format!("{}: {}", step.name, step.changes.join(", ")));
        Ok(Imported {
            digest: imported.digest.to_string(),
            entries: imported.entries as u64,
            bytes: imported.bytes,
            kernel: imported.kernel.map(|kernel| ImageKernel { version: kernel.version, path: kernel.path }),
            warnings: imported.warnings.iter().map(ToString::to_string).collect(),
            generalised: imported.generalised.iter().filter_map(told).collect(),
        })
    }

    /// Reads all of an image again. What is damaged is set aside, so that importing the same content again heals it.
    pub(crate) async fn verify(self: &Arc<Keeper>, digest: &str) -> Result<Verified, String> {
        let digest: Digest = digest.parse().map_err(|error: digest::BadDigest| error.to_string())?;
        let verified = self.blocking(move |keeper| keeper.verify_now(digest)).await??;
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        match verified.damaged.is_empty() {
            true => drop(damaged.remove(&digest)),
            false => {
                drop(damaged.insert(digest, format!("{} of its files are damaged: import the same content again", verified.damaged.len())))
            }
        }
        drop(damaged);
        self.look_again();
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
    pub(crate) async fn tar(self: &Arc<Keeper>, digest: &str) -> Result<ReceiverStream<io::Result<Bytes>>, String> {
        let digest: Digest = digest.parse().map_err(|error: digest::BadDigest| error.to_string())?;
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

    /// A file that a boot loader asks for, compared with its digest, and its size.
    pub(crate) async fn file(self: &Arc<Keeper>, digest: &str, wanted: Wanted) -> Result<Option<(File, u64)>, String> {
        let Some(whole) = digest.parse().ok().and_then(|digest| self.whole(&digest)) else { return Ok(None) };
        self.blocking(move |keeper| keeper.wanted(&whole, wanted)).await?
    }

    fn wanted(&self, whole: &Whole, wanted: Wanted) -> Result<Option<(File, u64)>, String> {
        let path = match (wanted, &whole.kernel) {
            (Wanted::Initrd, _) => {
                let Some(path) = &whole.initrd else { return Ok(None) };
                let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let size = file.metadata().map_err(|error| format!("{}: {error}", path.display()))?.len();
                return Ok(Some((file, size)));
            }
            (Wanted::Kernel, Some(kernel)) => kernel.path.clone(),
            (Wanted::StockInitrd, Some(kernel)) => format!("/boot/initrd.img-{}", kernel.version),
            (Wanted::Kernel | Wanted::StockInitrd, None) => return Ok(None),
        };
        let Some(inode) = whole.index.find(path.as_bytes()) else { return Ok(None) };
        self.content(whole, inode).map(Some)
    }

    /// The content of a regular file of an image.
    pub(crate) fn content(&self, whole: &Whole, inode: Inode) -> Result<(File, u64), String> {
        match whole.index.attributes(inode).map(|attributes| attributes.node) {
            Some(Node::File { digest, size }) => {
                let named = |error: StoreError| format!("{}: {}", index::escaped(&whole.index.path(inode)), chain(&error));
                Ok((self.objects.open_verified(&digest, size).map_err(named)?, size))
            }
            Some(_) | None => Err("it is no regular file".to_owned()),
        }
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

    fn learn_key(&self) {
        let view = self.shared.view.borrow().clone();
        let Some(key) = view.and_then(|view| view.key.clone()) else { return };
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
