//! Whether a file is a tar of a tree, or a container image, which is a tar as well.
//!
//! Leaves out: reading it. Invariant: what is neither is called a tar, whose reader says what is wrong with it. Shown by `tests/images.rs`.

use std::path::Path;

use super::archive::Archive;
use super::{Source, SourceError, tar, unpack};

/// Members that are looked at: a container image has its names among the first, or last behind a few layers.
const LOOKED_AT: usize = 10_000;
const MOST: u64 = u64::MAX;

impl Source {
    pub(crate) fn of_file(path: &Path) -> Result<Source, SourceError> {
        let what = format!("{}", path.display());
        let (_, stream) = unpack::unpacked(tar::open(path)?, &what)?;
        let mut archive = Archive::new(stream, what, MOST, MOST);
        for _ in 0..LOOKED_AT {
            let Ok(Some(member)) = archive.next() else { break };
            match member.path.split(|c| *c == b'/').find(|part| !matches!(*part, b"" | b".")) {
                Some(b"oci-layout" | b"manifest.json") => return Ok(Source::Oci(path.to_owned())),
                // Of a tree.
                Some(b"etc" | b"usr" | b"bin" | b"sbin" | b"lib") => break,
                Some(_) | None => {}
            }
        }
        Ok(Source::Tar(path.to_owned()))
    }
}
