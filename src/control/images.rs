//! Images in the controller: their records, which of them are here whole, and who needs them.
//!
//! Leaves out: their files (`image`, `server::images`). Invariants: a name that has a content keeps it; an image that a persona names, or that may be
//! running, is not removed; one that is not here whole starts nothing. Shown by `tests/images.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::controller::Controller;
use super::operator::{ImageRow, Refusal};
use crate::limits;
use crate::model::Name;
use crate::model::body::Snapshot;
use crate::model::image::{Blob, Delivery, Image, ImageName, KnownImage};
use crate::model::persona::Root;
use crate::store::{Expect, Revision, Write, keys};

/// What the controller and those who keep the files tell each other.
#[derive(Clone, Default)]
pub struct Images {
    /// Every image that there is a record of. Nothing: no controller has read them yet.
    pub known: watch::Sender<Option<Arc<Known>>>,
    here: Arc<Mutex<BTreeMap<String, Here>>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub images: BTreeMap<ImageName, Image>,
    /// The digests of those that some machine reads into its memory.
    pub ram: BTreeSet<String>,
    /// Of those that may be running, whatever names there are.
    pub runs: BTreeSet<String>,
}

/// What of an image is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Nothing: it is here whole.
    pub lacks: Option<String>,
    /// What machines read into their memory, or why it is not there.
    pub ram: Result<Blob, String>,
}

impl Default for Here {
    fn default() -> Here {
        Here { lacks: Some("it is looked whether all of its files are there".to_owned()), ram: Err("it is packed first".to_owned()) }
    }
}

impl Images {
    /// By an image's digest.
    pub fn here(&self, digest: &str) -> Here {
        self.here.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned().unwrap_or_default()
    }

    /// Whether that is news.
    pub fn is(&self, digest: &str, is: Here) -> bool {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.insert(digest.to_owned(), is.clone()) != Some(is)
    }

    pub fn forget(&self, digest: &str) {
        self.here.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

impl Controller {
    pub(super) fn image_stored(&mut self, name: &ImageName, image: Image, revision: Revision) {
        let Here { lacks, ram } = self.booting.images().here(&image.digest);
        self.cache.image_revisions.insert(name.clone(), revision);
        self.cache.objects.images.insert(name.clone(), KnownImage { image, lacks, ram_lacks: ram.err() });
        self.images_are_others(name);
    }

    fn image_removed(&mut self, name: &ImageName) {
        self.cache.image_revisions.remove(name);
        self.cache.objects.images.remove(name);
        self.images_are_others(name);
    }

    /// Whoever keeps the files is told, and whoever waits for the image or has it.
    fn images_are_others(&mut self, name: &ImageName) {
        self.images_are_wanted();
        self.wake_image(name);
    }

    pub(super) fn images_are_wanted(&mut self) {
        self.booting.images_are_others = true;
    }

    /// For those who keep the files.
    pub(super) fn publish_images(&mut self) {
        // What a store that went backwards does not hold is not removed.
        if self.cache.store_stop.is_none() && std::mem::take(&mut self.booting.images_are_others) {
            let images = self.cache.objects.images.iter().map(|(name, known)| (name.clone(), known.image.clone())).collect();
            let is_ram = |root: &Root| root.image.as_ref().is_some_and(|image| image.delivery == Delivery::Ram);
            let personas = self.cache.objects.personas.values().filter(|held| is_ram(&held.spec.root)).filter_map(|held| held.spec.image());
            let named = personas.filter_map(|name| self.cache.objects.images.get(name)).map(|known| known.image.digest.clone());
            let evidence = self.cache.bodies.values().flat_map(|body| body.value.evidence.values()).map(|evidence| &evidence.snapshot);
            let standing: Vec<(bool, String)> =
                evidence.filter_map(|snapshot| Some((is_ram(&snapshot.root), snapshot.image.clone()?))).collect();
            let in_memory = standing.iter().filter(|(ram, _)| *ram).map(|(_, digest)| digest.clone());
            let ram = named.chain(in_memory).collect();
            let known = Known { images, ram, runs: standing.into_iter().map(|(_, digest)| digest).collect() };
            self.booting.images().known.send_if_modified(|before| {
                let is_news = before.as_deref() != Some(&known);
                if is_news {
                    *before = Some(Arc::new(known));
                }
                is_news
            });
        }
    }

    fn wake_image(&mut self, name: &ImageName) {
        let personas = self.cache.objects.personas.iter().filter(|(_, held)| held.spec.image() == Some(name));
        let bindings: Vec<Name> = personas.flat_map(|(persona, _)| self.cache.objects.bindings_of_persona(persona)).cloned().collect();
        bindings.iter().for_each(|binding| self.wake_binding(binding));
    }

    /// Some image may be here now, or lack something.
    pub(super) fn images_changed(&mut self) {
        let images = self.booting.images().clone();
        let mut changed = Vec::new();
        for (name, known) in &mut self.cache.objects.images {
            let Here { lacks, ram } = images.here(&known.image.digest);
            let now = KnownImage { image: known.image.clone(), lacks, ram_lacks: ram.err() };
            if *known != now {
                *known = now;
                changed.push(name.clone());
            }
        }
        changed.iter().for_each(|name| self.wake_image(name));
    }

    /// What stands somewhere, as it is served from here, or why it cannot be. What is read into a machine's memory, where that is so.
    pub(super) fn image_of(&self, snapshot: &Snapshot) -> Result<Option<Blob>, String> {
        let Some(digest) = &snapshot.image else { return Ok(None) };
        let Here { lacks, ram } = self.booting.images().here(digest);
        match (lacks, snapshot.root.image.as_ref().map(|image| image.delivery)) {
            (Some(why), _) => Err(why),
            (None, Some(Delivery::Ram)) => ram.map(Some),
            (None, Some(Delivery::Nfs) | None) => Ok(None),
        }
    }

    /// A name gets its content, once.
    pub(super) async fn add_image(&mut self, name: &ImageName, image: Image) -> Result<String, Refusal> {
        let refused = |why: String| Err(Refusal::Refused { why });
        if let Some(trouble) = self.cache.site_stop() {
            return refused(trouble.message);
        }
        if let Some(known) = self.cache.objects.images.get(name) {
            return refused(in_words(name, known, &image));
        }
        if self.cache.objects.images.len() >= limits::IMAGES {
            return refused(format!("there are {} images, the most there can be: `embody image rm` removes one", limits::IMAGES));
        }
        let value = serde_json::to_vec(&image).unwrap_or_default();
        let revision = self.write_one(Write::put(keys::image(name), value, Expect::Absent)).await.map_err(super::actions::in_words)?;
        let text = format!("image {name} is {}, {} files and directories", short(&image.digest), image.entries);
        self.status.event("Normal", "Policy/default", "ImageImported", &format!("{text}, by {}", image.by));
        self.image_stored(name, image, revision);
        Ok(text)
    }

    /// `force`: although it is one of the last of its name.
    pub(super) async fn remove_image(&mut self, name: &ImageName, force: bool, who: &str) -> Result<String, Refusal> {
        if let Some(trouble) = self.cache.site_stop() {
            return Err(Refusal::Refused { why: trouble.message });
        }
        let Some(known) = self.cache.objects.images.get(name) else {
            return Err(Refusal::NotFound { what: format!("image {name}") });
        };
        if let Some(why) = self.why_kept(name, &known.image.digest, force) {
            return Err(Refusal::Refused { why: format!("image {name} is kept: {why}") });
        }
        let revision = self.cache.image_revisions.get(name).copied().unwrap_or_default();
        self.write_one(Write::delete(keys::image(name), revision)).await.map_err(super::actions::in_words)?;
        self.image_removed(name);
        self.status.event("Normal", "Policy/default", "ImageRemoved", &format!("{name}, by {who}"));
        Ok(format!("image {name} is removed"))
    }

    fn why_kept(&self, name: &ImageName, digest: &str, force: bool) -> Option<String> {
        if let Some((persona, _)) = self.cache.objects.personas.iter().find(|(_, held)| held.spec.image() == Some(name)) {
            return Some(format!("persona {persona} names it"));
        }
        // Under another name its content stays.
        let is_last_name = !self.cache.objects.images.iter().any(|(other, known)| other != name && known.image.digest == digest);
        if let Some(why) = self.may_run_image(digest).filter(|_| is_last_name) {
            return Some(why);
        }
        let mut versions: Vec<(&String, &ImageName)> = self
            .cache
            .objects
            .images
            .iter()
            .filter(|(other, _)| other.family() == name.family())
            .map(|(other, known)| (&known.image.imported, other))
            .collect();
        versions.sort();
        let is_last = versions.iter().rev().take(limits::IMAGES_KEPT).any(|(_, other)| *other == name);
        let why = || {
            format!("it is one of the last {} of {}, to which one can go back (`--force` removes it)", limits::IMAGES_KEPT, name.family())
        };
        (is_last && !force).then(why)
    }

    /// By evidence, or because nothing is known of what runs somewhere.
    fn may_run_image(&self, digest: &str) -> Option<String> {
        if let Some(server) = self.cache.unreadable.keys().chain(&self.cache.anything).next() {
            return Some(format!("server {server} may run anything (`embody why server/{server}`)"));
        }
        self.cache.bodies.iter().find_map(|(server, body)| {
            let evidence = body.value.evidence.iter().find(|(_, e)| e.snapshot.image.as_deref() == Some(digest));
            evidence.map(|(persona, _)| format!("server {server} may run it (persona {persona})"))
        })
    }

    pub(super) fn images(&self) -> Vec<ImageRow> {
        let row = |(name, known): (&ImageName, &KnownImage)| {
            let personas = self.cache.objects.personas.iter().filter(|(_, held)| held.spec.image() == Some(name));
            let runs =
                |body: &crate::model::body::Body| body.evidence.values().any(|e| e.snapshot.image.as_deref() == Some(&known.image.digest));
            ImageRow {
                name: name.clone(),
                image: known.image.clone(),
                lacks: known.lacks.clone(),
                ram: self.booting.images().here(&known.image.digest).ram.ok().map(|blob| blob.size),
                personas: personas.map(|(persona, _)| persona.clone()).collect(),
                servers: self.cache.bodies.iter().filter(|(_, body)| runs(&body.value)).map(|(server, _)| server.clone()).collect(),
            }
        };
        self.cache.objects.images.iter().map(row).collect()
    }
}

/// What people compare: the first 12 digits.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn in_words(name: &ImageName, known: &KnownImage, image: &Image) -> String {
    let (there, new) = (short(&known.image.digest), short(&image.digest));
    match known.image.digest == image.digest {
        true => format!("image {name} is there already, with the same content ({there}): imported {}", known.image.imported),
        false => format!(
            "image {name} is there already, as {there} of {}, and this is {new}: a name keeps its content; give this one another version",
            known.image.imported
        ),
    }
}
