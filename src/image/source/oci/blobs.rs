//! Named parts of a container image: in a directory, or in a tar that is read by position.
//!
//! Leaves out what the parts mean. A tar that is packed or comes on standard input is first written to a nameless file beside the objects, since its
//! parts are needed in another order than they come. Invariant: a name leads to a file below the directory, or to a member of the tar, and to nothing
//! else. Shown by `tests/importing/oci.rs`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::archive::{Archive, MemberKind, Skip};
use super::super::unpack::{self, Packing};
use super::super::{Reading, SourceError, tar};

/// Parts of one image; each has at most a few thousand layers.
const MOST_MEMBERS: usize = 100_000;
/// A manifest has at most 4 MiB (OCI distribution specification 1.1, "Pushing Manifests").
pub(super) const LONGEST_JSON: u64 = 4 * 1024 * 1024;
/// `docker save` once wrote layers as symlinks to other layers.
const LINKS_FOLLOWED: usize = 4;

#[derive(Debug, Clone)]
pub(super) enum Member {
    At { from: u64, bytes: u64 },
    Link(String),
}

pub(super) enum Blobs {
    Directory { root: PathBuf, what: String },
    Tar { file: File, members: BTreeMap<String, Member>, what: String },
}

/// A part of a file, read by position.
pub(super) struct Part<'f> {
    file: &'f File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Skip for Part<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += bytes;
        self.left -= bytes;
        Ok(())
    }
}

/// A relative path without `.`; None where it would lead elsewhere.
fn plain(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty() && !name.contains('\0')).then(|| parts.join("/"))
}

impl Blobs {
    pub(super) fn open(path: &Path, reading: &mut Reading<'_, '_>) -> Result<Blobs, SourceError> {
        let what = if path == Path::new("-") { "the image on standard input".to_owned() } else { format!("the image {}", path.display()) };
        if path.is_dir() {
            return Ok(Blobs::Directory { root: path.to_owned(), what });
        }
        let (packing, mut stream) = unpack::unpacked(tar::open(path)?, &what)?;
        // Of a pipe with a path there is one reading as well.
        let file = if packing == Packing::Plain && path.is_file() {
            File::open(path).map_err(|source| SourceError::Io { doing: "open", path: path.to_owned(), source })?
        } else {
            let error = |source| SourceError::Read { what: what.clone(), at: 0, source };
            let mut scratch = reading.session.scratch()?;
            // One more byte tells that there were too many.
            let copied = io::copy(&mut (&mut stream).take(reading.left.saturating_add(1)), &mut scratch).map_err(error)?;
            reading.left = reading.left.checked_sub(copied).ok_or(SourceError::TooLarge { what: what.clone(), most: reading.most })?;
            scratch.seek(SeekFrom::Start(0)).map_err(error)?;
            scratch
        };
        let members = list(&file, &what)?;
        Ok(Blobs::Tar { file, members, what })
    }

    pub(super) fn what(&self) -> &str {
        match self {
            Blobs::Directory { what, .. } | Blobs::Tar { what, .. } => what,
        }
    }

    fn missing(&self, name: &str) -> SourceError {
        let expected = "it: the image is not complete, or its layers are to be fetched from elsewhere";
        SourceError::container(self.what(), format!("no part {name:?}"), expected)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Blobs::Directory { root, .. } => root.join(name).is_file(),
            Blobs::Tar { members, .. } => members.contains_key(name),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Box<dyn Read + '_>, SourceError> {
        let mut name = plain(name).ok_or_else(|| self.missing(name))?;
        match self {
            Blobs::Directory { root, .. } => {
                let path = root.join(&name);
                // A symlink may lead to another part, and nowhere else.
                let inside = fs::canonicalize(&path).ok().zip(fs::canonicalize(root).ok());
                let Some((path, _)) = inside.filter(|(path, root)| path.starts_with(root)) else { return Err(self.missing(&name)) };
                let file = File::open(&path).map_err(|source| SourceError::Io { doing: "open", path, source })?;
                Ok(Box::new(file))
            }
            Blobs::Tar { file, members, .. } => {
                for _ in 0..=LINKS_FOLLOWED {
                    match members.get(&name) {
                        Some(Member::At { from, bytes }) => return Ok(Box::new(Part { file, at: *from, left: *bytes })),
                        Some(Member::Link(target)) => name.clone_from(target),
                        None => break,
                    }
                }
                Err(self.missing(&name))
            }
        }
    }

    /// A part that is JSON, whole.
    pub(super) fn json(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        let error = |source| SourceError::Read { what: format!("{name} in {}", self.what()), at: 0, source };
        self.read(name)?.take(LONGEST_JSON + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > LONGEST_JSON {
            return Err(SourceError::container(self.what(), format!("{name:?} of more than {LONGEST_JSON} bytes"), "less"));
        }
        Ok(bytes)
    }
}

/// Where each member of a tar is. Its contents are not read, so they do not count against the budget.
fn list(file: &File, what: &str) -> Result<BTreeMap<String, Member>, SourceError> {
    let bytes = file.metadata().map_err(|source| SourceError::Read { what: what.to_owned(), at: 0, source })?.len();
    let mut archive = Archive::new(Part { file, at: 0, left: bytes }, what, u64::MAX, u64::MAX);
    let mut members = BTreeMap::new();
    while let Some(member) = archive.next()? {
        let Some(name) = std::str::from_utf8(&member.path).ok().and_then(plain) else { continue };
        let target = String::from_utf8_lossy(&member.target);
        let beside = name.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
        let found = match member.kind {
            MemberKind::File => Some(Member::At { from: archive.at(), bytes: member.size }),
            MemberKind::Link => plain(&target).map(Member::Link),
            MemberKind::Symlink => plain(&format!("{beside}{target}")).map(Member::Link),
            _ => None,
        };
        members.extend(found.map(|found| (name, found)));
        if members.len() > MOST_MEMBERS {
            return Err(archive.format_error(format!("more than {MOST_MEMBERS} members"), "the parts of a container image"));
        }
    }
    Ok(members)
}
