//! Which image of a layout is meant, and what its layers are.
//!
//! Leaves out reading layers. Invariant: manifests, indexes and configs are hashed before they are parsed; one image matches, or the error lists what
//! there is. Shown by `tests/importing/oci.rs`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::super::digest::Digest;
use super::super::SourceError;
use super::Select;
use super::blobs::Blobs;

/// Indexes in indexes.
const DEEPEST: usize = 4;
const MOST_IMAGES: usize = 1_000;
const MOST_LAYERS: usize = 1_000;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// An index or a manifest: which one it is, is told by what it has.
#[derive(Debug, Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(flatten)]
    platform: Platform,
    rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// One entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A layer: its part's name, and what it must hash to as it is and unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) packed: Option<(Digest, u64)>,
    pub(super) unpacked: Option<Digest>,
}

/// An image that could be meant.
#[derive(Debug, Clone)]
pub(super) struct Image {
    id: String,
    tags: Vec<String>,
    platform: Platform,
    pub(super) layers: Vec<Layer>,
}

impl Image {
    fn says(&self) -> String {
        let Platform { os, architecture } = &self.platform;
        let tags = if self.tags.is_empty() { "without a tag".to_owned() } else { self.tags.join(" ") };
        format!("{tags} ({os}/{architecture}, {})", self.id.chars().take(19).collect::<String>())
    }
}

fn parse<T: DeserializeOwned>(blobs: &Blobs, name: &str, bytes: &[u8]) -> Result<T, SourceError> {
    serde_json::from_slice(bytes).map_err(|e| {
        let what = format!("{name} in {}", blobs.what());
        SourceError::container(what, e.to_string(), "JSON as the OCI image specification has it")
    })
}

fn digest(blobs: &Blobs, text: &str) -> Result<Digest, SourceError> {
    let hex = text.strip_prefix("sha256:").and_then(|hex| Digest::from_hex(hex.as_bytes()));
    hex.ok_or_else(|| SourceError::container(blobs.what(), format!("the digest {text:?}"), "sha256: and 64 lower-case hexadecimal digits"))
}

fn part(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}

/// A part, checked against its descriptor.
fn checked(blobs: &Blobs, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
    let digest = digest(blobs, &descriptor.digest)?;
    let bytes = blobs.json(&part(&digest))?;
    let found = Digest::of(&bytes);
    if found != digest || bytes.len() as u64 != descriptor.size {
        let found = format!("sha256:{found} of {} bytes", bytes.len());
        return Err(SourceError::container(blobs.what(), found, format!("sha256:{digest} of {} bytes", descriptor.size)));
    }
    Ok(bytes)
}

/// The one image that is meant.
pub(super) fn pick(blobs: &Blobs, select: &Select) -> Result<Image, SourceError> {
    let mut images = Vec::new();
    if blobs.has("index.json") {
        let index: Document = parse(blobs, "index.json", &blobs.json("index.json")?)?;
        for descriptor in index.manifests.unwrap_or_default() {
            collect(blobs, &descriptor, &[], DEEPEST, &mut images)?;
        }
    } else if blobs.has("manifest.json") {
        for saved in parse::<Vec<Saved>>(blobs, "manifest.json", &blobs.json("manifest.json")?)? {
            images.push(saved_image(blobs, saved)?);
        }
    } else {
        let found = "neither index.json nor manifest.json";
        return Err(SourceError::container(blobs.what(), found, "an OCI layout, or what docker save or podman save wrote"));
    }
    choose(blobs, images, select)
}

/// Names under which clients know an architecture.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn choose(blobs: &Blobs, images: Vec<Image>, select: &Select) -> Result<Image, SourceError> {
    let listed = images.iter().map(Image::says).collect::<Vec<_>>().join(", ");
    let listed = if listed.is_empty() { "no image".to_owned() } else { listed };
    let arch = architecture(&select.arch);
    // `web:1` is a name for `docker.io/library/web:1`.
    let is_tag = |tag: &String, wanted: &str| tag.strip_suffix(wanted).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    let is_meant = |image: &Image| {
        let tagged = select.reference.as_ref().is_none_or(|wanted| image.tags.iter().any(|tag| is_tag(tag, wanted)));
        tagged && image.platform.os == "linux" && architecture(&image.platform.architecture) == arch
    };
    let mut meant: Vec<Image> = Vec::new();
    for image in images.into_iter().filter(is_meant) {
        // Two tags of one image are no question.
        if !meant.iter().any(|other| other.id == image.id) {
            meant.push(image);
        }
    }
    let wanted = select.reference.as_ref().map(|wanted| format!(" with the tag {wanted:?}")).unwrap_or_default();
    if meant.len() > 1 {
        let several = meant.iter().map(Image::says).collect::<Vec<_>>().join(", ");
        let expected = format!("one for linux/{arch}{wanted}: say which by its tag");
        return Err(SourceError::container(blobs.what(), format!("several images: {several}"), expected));
    }
    let none = || SourceError::container(blobs.what(), listed, format!("an image for linux/{arch}{wanted}"));
    meant.into_iter().next().ok_or_else(none)
}

/// Tags of a descriptor: of the OCI layout, of containerd.
fn tags(descriptor: &Descriptor) -> Vec<String> {
    let keys = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
    let annotations = descriptor.annotations.as_ref();
    let tags = keys.iter().filter_map(|key| annotations?.get(*key).cloned());
    tags.collect()
}

/// Adds the image of a manifest, or those of an index.
fn collect(blobs: &Blobs, descriptor: &Descriptor, above: &[String], depth: usize, images: &mut Vec<Image>) -> Result<(), SourceError> {
    let annotations = descriptor.annotations.as_ref();
    // What BuildKit puts beside images.
    let is_attestation = annotations.is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    let Some(depth) = depth.checked_sub(1).filter(|_| images.len() < MOST_IMAGES && !is_attestation) else { return Ok(()) };
    let mut tagged = tags(descriptor);
    if tagged.is_empty() {
        tagged = above.to_vec();
    }
    // A layout may name images of which it holds only one platform's.
    let is_elsewhere = descriptor.platform.is_some() && !blobs.has(&part(&digest(blobs, &descriptor.digest)?));
    if is_elsewhere {
        return Ok(());
    }
    let document: Document = parse(blobs, &descriptor.digest, &checked(blobs, descriptor)?)?;
    if let Some(manifests) = document.manifests {
        return manifests.iter().try_for_each(|inner| collect(blobs, inner, &tagged, depth, images));
    }
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        let found = format!("{} with neither manifests nor a config and layers", descriptor.digest);
        return Err(SourceError::container(blobs.what(), found, "an image index or an image manifest"));
    };
    let media_type = config.media_type.as_deref().unwrap_or_default();
    // A chart, a signature or another artifact.
    if !matches!(media_type, "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json") {
        return Ok(());
    }
    let config: Config = parse(blobs, "the config", &checked(blobs, &config)?)?;
    let layers = layers.iter().map(|layer| oci_layer(blobs, layer)).collect::<Result<_, _>>()?;
    images.push(bounded(blobs, Image { id: descriptor.digest.clone(), tags: tagged, platform: config.platform, layers })?);
    Ok(())
}

fn bounded(blobs: &Blobs, image: Image) -> Result<Image, SourceError> {
    if image.layers.len() > MOST_LAYERS {
        let found = format!("{} layers", image.layers.len());
        return Err(SourceError::container(blobs.what(), found, format!("at most {MOST_LAYERS}")));
    }
    Ok(image)
}

fn oci_layer(blobs: &Blobs, layer: &Descriptor) -> Result<Layer, SourceError> {
    let media_type = layer.media_type.as_deref().unwrap_or_default();
    // The packing itself is told by the first bytes; some registries' media types are wrong about it.
    let is_tar = matches!(
        media_type.strip_prefix("application/vnd.oci.image.layer."),
        Some(
            "v1.tar"
                | "v1.tar+gzip"
                | "v1.tar+zstd"
                | "nondistributable.v1.tar"
                | "nondistributable.v1.tar+gzip"
                | "nondistributable.v1.tar+zstd"
        )
    ) || matches!(
        media_type.strip_prefix("application/vnd.docker."),
        Some("image.rootfs.diff.tar" | "image.rootfs.diff.tar.gzip" | "image.rootfs.diff.tar.zstd" | "image.rootfs.foreign.diff.tar.gzip")
    );
    if !is_tar {
        let found = format!("a layer of the type {media_type:?}");
        return Err(SourceError::container(blobs.what(), found, "application/vnd.oci.image.layer.v1.tar, +gzip or +zstd"));
    }
    let digest = digest(blobs, &layer.digest)?;
    Ok(Layer { name: part(&digest), packed: Some((digest, layer.size)), unpacked: None })
}

/// Of `docker save`: layers are named by paths, so the config's digests of unpacked layers are what is checked.
fn saved_image(blobs: &Blobs, saved: Saved) -> Result<Image, SourceError> {
    let bytes = blobs.json(&saved.config)?;
    let id = Digest::of(&bytes);
    let hex = saved.config.trim_end_matches(".json").rsplit('/').next().unwrap_or_default();
    if Digest::from_hex(hex.as_bytes()).is_some_and(|named| named != id) {
        return Err(SourceError::container(blobs.what(), format!("the config sha256:{id}"), format!("sha256:{hex}")));
    }
    let config: Config = parse(blobs, &saved.config, &bytes)?;
    let unpacked = config.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if unpacked.len() != saved.layers.len() {
        let found = format!("{} layers and {} digests of them", saved.layers.len(), unpacked.len());
        return Err(SourceError::container(blobs.what(), found, "a digest for each layer"));
    }
    let layer = |(name, unpacked): (String, &String)| Ok(Layer { name, packed: None, unpacked: Some(digest(blobs, unpacked)?) });
    let layers = saved.layers.into_iter().zip(&unpacked).map(layer).collect::<Result<_, SourceError>>()?;
    bounded(blobs, Image { id: format!("sha256:{id}"), tags: saved.repo_tags.unwrap_or_default(), platform: config.platform, layers })
}
