//! Archives that are imported: tars, plain or packed, and container images.
//!
//! The input is the file, as it is and, where that is another one, with the checksums of tar headers made right. An import either leaves an image, whose files are whole and whose tar is imported as the same image; or it says what is
//! wrong, and leaves nothing. In both cases nothing is left once it is collected.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::hold;
use crate::image::digest::Digest;
use crate::image::export::export_tar;
use crate::image::generalise::Steps;
use crate::image::source::Source;
use crate::image::store::Objects;
use crate::image::tree::Limits;
use crate::image::{Options, import};

/// Far more than the corpus has.
const LIMITS: Limits = Limits { entries: 1_000, bytes: 1 << 20 };
/// Of a tar.
const BLOCK: usize = 512;
/// In memory, where there is such a place: an import waits for its disk.
const IN_MEMORY: &str = "/dev/shm";

pub fn archive(bytes: &[u8]) -> Result<(), String> {
    imported(bytes)?;
    let mut right = bytes.to_vec();
    right.chunks_exact_mut(BLOCK).for_each(with_checksum);
    if right == bytes { Ok(()) } else { imported(&right) }
}

/// A header has the magic of POSIX.1-1988 or of GNU at 257, and the sum of its octets, these taken as spaces, at 148.
fn with_checksum(block: &mut [u8]) {
    if block.get(257..262) != Some(b"ustar") {
        return;
    }
    let Some(field) = block.get_mut(148..156) else { return };
    field.fill(b' ');
    let sum: u32 = block.iter().map(|octet| u32::from(*octet)).sum();
    block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()).for_each(|(to, from)| *to = from);
}

fn imported(bytes: &[u8]) -> Result<(), String> {
    let place = if Path::new(IN_MEMORY).is_dir() { tempfile::tempdir_in(IN_MEMORY) } else { tempfile::tempdir() };
    let dir = place.map_err(|why| why.to_string())?;
    let file = dir.path().join("archive");
    fs::write(&file, bytes).map_err(|why| why.to_string())?;
    let objects = Objects::at(dir.path().join("store")).map_err(|why| why.to_string())?;
    if let Some(digest) = image(&file, &objects)? {
        again(&digest, &dir.path().join("again"), &objects)?;
    }
    let swept = objects.remove_unreferenced(&BTreeSet::new(), Duration::ZERO).map_err(|why| format!("it cannot be collected: {why}"))?;
    let left = objects.indexes().map_err(|why| why.to_string())?;
    hold(left.is_empty() && swept.leftovers == 0, || format!("{left:?} and {} leftovers stay", swept.leftovers))
}

/// The image that it is, if it is one.
fn image(file: &Path, objects: &Objects) -> Result<Option<Digest>, String> {
    let Ok(source) = Source::of_file(file) else { return Ok(None) };
    let options = Options { limits: LIMITS, steps: Steps::none(), ..Options::default() };
    let there = || objects.indexes().map_err(|why| why.to_string());
    let before = there()?;
    match import(&source, &options, objects) {
        Ok(imported) => {
            let within = imported.bytes <= LIMITS.bytes && imported.entries as u64 <= LIMITS.entries + 1;
            hold(within, || format!("{} entries of {} bytes are taken", imported.entries, imported.bytes))?;
            Ok(Some(imported.digest))
        }
        Err(wrong) => {
            hold(!wrong.to_string().is_empty(), || "it is wrong, and nothing is said of it".to_owned())?;
            let after = there()?;
            hold(before == after, || format!("{wrong}, and it left {after:?}"))?;
            Ok(None)
        }
    }
}

/// Written as a tar and imported once more.
fn again(digest: &Digest, file: &Path, objects: &Objects) -> Result<(), String> {
    let damaged = objects.verify(digest).map_err(|why| why.to_string())?.damaged;
    hold(damaged.is_empty(), || format!("what was imported is damaged: {damaged:?}"))?;
    let index = objects.index(digest).map_err(|why| why.to_string())?;
    let mut tar = Vec::new();
    let exported = export_tar(&index, objects, &mut tar).map_err(|why| format!("it cannot be exported: {why}"))?;
    fs::write(file, tar).map_err(|why| why.to_string())?;
    // A tar has no sockets.
    if !exported.sockets_left_out.is_empty() {
        return Ok(());
    }
    let back = image(file, objects)?;
    hold(back.as_ref() == Some(digest), || {
        format!("it is exported, and imported as {back:?}:\n{}", String::from_utf8_lossy(&index.format()))
    })
}
