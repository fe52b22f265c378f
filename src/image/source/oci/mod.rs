//! A container image: which one it is, and its layers one over the other.
//!
//! OCI image specification 1.1: image layout, index, manifest, config, layer; Docker Image Specification 1.2 for `manifest.json` of `docker save`.
//! Leaves out registries (`skopeo copy` makes an archive), encrypted layers, and what only a container has (entry point, environment). Invariant:
//! every byte that is used was hashed against the digest that names it; where two images could be meant none is taken. Shown by
//! `tests/importing/oci.rs`.

mod blobs;
mod pick;

use std::io::{self, Read};
use std::path::Path;

use super::super::digest::{Digest, Hasher};
use super::archive::{Archive, Skip};
use super::{Reading, SourceError, tar, unpack};
use blobs::Blobs;
use pick::{Image, Layer};

/// Which image, where there is more than one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// As OCI and Go write it: amd64, arm64.
    pub arch: String,
    /// A tag: `org.opencontainers.image.ref.name`, or one of `docker save`.
    pub reference: Option<String>,
}

impl Default for Select {
    fn default() -> Select {
        Select { arch: "amd64".to_owned(), reference: None }
    }
}

/// Reads the one image that is meant.
pub(super) fn read(path: &Path, select: &Select, reading: &mut Reading<'_, '_>) -> Result<(), SourceError> {
    let blobs = Blobs::open(path, reading)?;
    let image = pick::pick(&blobs, select)?;
    let Image { layers, .. } = image;
    for (number, layer) in layers.iter().enumerate() {
        let what = format!("layer {} of {} ({}) in {}", number + 1, layers.len(), layer.name, blobs.what());
        read_layer(&blobs, layer, &what, reading)?;
        reading.tree.next_layer();
    }
    if reading.tree.is_empty() {
        return Err(SourceError::container(blobs.what(), "layers without an entry", "the tree of an image"));
    }
    Ok(())
}

/// Hashes what passes through.
struct Hashing<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<R: Read> Skip for &mut Hashing<R> {}

fn check(what: &str, kind: &str, hasher: Hasher, expected: Option<(Digest, Option<u64>)>) -> Result<(), SourceError> {
    let Some((digest, size)) = expected else { return Ok(()) };
    let (found, bytes) = hasher.finish();
    if found != digest || size.is_some_and(|size| size != bytes) {
        let expected = format!("{kind} sha256:{digest}{}", size.map(|size| format!(" of {size} bytes")).unwrap_or_default());
        return Err(SourceError::container(what, format!("sha256:{found} of {bytes} bytes"), expected));
    }
    Ok(())
}

fn read_layer(blobs: &Blobs, layer: &Layer, what: &str, reading: &mut Reading<'_, '_>) -> Result<(), SourceError> {
    let mut packed = Hashing { reader: blobs.read(&layer.name)?, hasher: Hasher::default() };
    let plain = read_unpacked(&mut packed, what, reading)?;
    check(what, "the unpacked layer", plain, layer.unpacked.map(|digest| (digest, None)))?;
    let rest = io::copy(&mut packed, &mut io::sink());
    rest.map_err(|source| SourceError::Read { what: what.to_owned(), at: packed.hasher.bytes(), source })?;
    check(what, "the layer", packed.hasher, layer.packed.map(|(digest, size)| (digest, Some(size))))
}

/// Puts a layer into the tree; the hash of all of it, unpacked.
fn read_unpacked(packed: &mut dyn Read, what: &str, reading: &mut Reading<'_, '_>) -> Result<Hasher, SourceError> {
    let mut plain = Hashing { reader: unpack::unpacked(packed, what)?.1, hasher: Hasher::default() };
    let mut archive = Archive::new(&mut plain, what, reading.left, reading.most).may_end_early();
    tar::unpack_into(&mut archive, reading, true)?;
    Ok(plain.hasher)
}
