//! Images in the controller: their records, which of them are here whole, and who needs them.
//!
//! Leaves out: their files (`image`, `server::images`). Invariants: a name that has a content keeps it; an image that a persona names, or that may be
//! running, is not removed; one that is not here whole starts nothing. Shown by `tests/images.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::controller::Controller;
use super::operator::{ImageRow, Refusal};
use crate::limits;
use crate::model::Name;
use crate::model::image::{Image, ImageName, KnownImage};
use crate::store::{Expect, Revision, Write, keys};

/// What the controller and those who keep the files tell each other.
#[derive(Clone, Default)]
pub struct Images {
    /// Every image that there is a record of. Nothing: no controller has read them yet.
    pub known: watch::Sender<Option<Arc<BTreeMap<ImageName, Image>>>>,
    /// By digest, what each lacks here. Nothing: it is here whole.
    here: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl Images {
    pub fn lacks(&self, digest: &str) -> Option<String> {
        let here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.get(digest).cloned().unwrap_or_else(|| Some("it is looked whether all of its files are there".to_owned()))
    }

    /// Whether that is news.
    pub fn is(&self, digest: &str, lacks: Option<String>) -> bool {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.insert(digest.to_owned(), lacks.clone()) != Some(lacks)
    }

    pub fn forget(&self, digest: &str) {
        self.here.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

impl Controller {
    pub(super) fn image_stored(&mut self, name: &ImageName, image: Image, revision: Revision) {
        let lacks = self.booting.images().lacks(&image.digest);
        self.cache.image_revisions.insert(name.clone(), revision);
        self.cache.objects.images.insert(name.clone(), KnownImage { image, lacks });
        self.images_are_others(name);
    }

    fn image_removed(&mut self, name: &ImageName) {
        self.cache.image_revisions.remove(name);
        self.cache.objects.images.remove(name);
        self.images_are_others(name);
    }

    /// Whoever keeps the files is told, and whoever waits for the image or has it.
    fn images_are_others(&mut self, name: &ImageName) {
        self.booting.images_are_others = true;
        self.wake_image(name);
        if self.is_loaded {
            self.publish_images();
        }
    }

    /// For those who keep the files.
    pub(super) fn publish_images(&mut self) {
        // What a store that went backwards does not hold is not removed.
        if self.cache.store_stop.is_none() && std::mem::take(&mut self.booting.images_are_others) {
            let known = self.cache.objects.images.iter().map(|(name, known)| (name.clone(), known.image.clone())).collect();
            self.booting.images().known.send_replace(Some(Arc::new(known)));
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
            let lacks = images.lacks(&known.image.digest);
            if known.lacks != lacks {
                known.lacks = lacks;
                changed.push(name.clone());
            }
        }
        changed.iter().for_each(|name| self.wake_image(name));
    }

    /// Why what stands somewhere cannot be served from here.
    pub(super) fn image_lacks(&self, digest: &str) -> Option<String> {
        self.booting.images().lacks(digest)
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
        self.image_stored(name, image, revision);
        Ok(text)
    }

    /// `force`: although it is one of the last of its name.
    pub(super) async fn remove_image(&mut self, name: &ImageName, force: bool) -> Result<String, Refusal> {
        let Some(known) = self.cache.objects.images.get(name) else {
            return Err(Refusal::NotFound { what: format!("image {name}") });
        };
        if let Some(why) = self.why_kept(name, &known.image.digest, force) {
            return Err(Refusal::Refused { why: format!("image {name} is kept: {why}") });
        }
        let revision = self.cache.image_revisions.get(name).copied().unwrap_or_default();
        self.write_one(Write::delete(keys::image(name), revision)).await.map_err(super::actions::in_words)?;
        self.image_removed(name);
        Ok(format!("image {name} is removed"))
    }

    fn why_kept(&self, name: &ImageName, digest: &str, force: bool) -> Option<String> {
        if let Some((persona, _)) = self.cache.objects.personas.iter().find(|(_, held)| held.spec.image() == Some(name)) {
            return Some(format!("persona {persona} names it"));
        }
        let may_run = |(server, body): (&Name, &super::cache::Stored<crate::model::body::Body>)| {
            let evidence = body.value.evidence.iter().find(|(_, e)| e.snapshot.image.as_deref() == Some(digest));
            evidence.map(|(persona, _)| format!("server {server} may run it (persona {persona})"))
        };
        if let Some(why) = self.cache.bodies.iter().find_map(may_run) {
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

    pub(super) fn images(&self) -> Vec<ImageRow> {
        let row = |(name, known): (&ImageName, &KnownImage)| {
            let personas = self.cache.objects.personas.iter().filter(|(_, held)| held.spec.image() == Some(name));
            let runs =
                |body: &crate::model::body::Body| body.evidence.values().any(|e| e.snapshot.image.as_deref() == Some(&known.image.digest));
            ImageRow {
                name: name.clone(),
                image: known.image.clone(),
                lacks: known.lacks.clone(),
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
