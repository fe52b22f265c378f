//! Members of a tar into a tree: a whole image, or one layer of a container image.
//!
//! Leaves out the format (`archive`), and where a layer comes from (`oci`). Invariant: only a layer has whiteouts; in a plain tar `.wh.x` is a file
//! of that name. Shown by `tests/importing/tar.rs`, `tests/importing/oci.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::super::index::{Attributes, Node, escaped};
use super::super::tree::{Item, TreeError, symlink};
use super::archive::{Archive, Member, MemberKind, Skip};
use super::{Reading, SourceError, added, unpack};

/// OCI image specification, "Image Layer Filesystem Changeset", Whiteouts.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// Opens a file, or standard input for `-`.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, SourceError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|source| SourceError::Io { doing: "open", path: path.to_owned(), source })?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        let what = format!("{}", path.display());
        return Err(SourceError::container(what, "a directory", "a tar; a directory is imported as dir:PATH or oci:PATH"));
    }
    Ok(Box::new(file))
}

/// Reads one tar as the whole image.
pub(super) fn read(path: &Path, reading: &mut Reading<'_, '_>) -> Result<(), SourceError> {
    let what = if path == Path::new("-") { "the tar on standard input".to_owned() } else { format!("the tar {}", path.display()) };
    let (_, stream) = unpack::unpacked(open(path)?, &what)?;
    let mut archive = Archive::new(stream, what.clone(), reading.left, reading.most);
    unpack_into(&mut archive, reading, false)?;
    let has = |path: &[u8]| reading.tree.get(path).is_some();
    if has(b"/oci-layout") && has(b"/index.json") || has(b"/manifest.json") && !has(b"/etc") && !has(b"/usr") {
        return Err(SourceError::container(what, "the parts of a container image", "a tree; a container image is imported as oci:PATH"));
    }
    if reading.tree.is_empty() {
        return Err(SourceError::container(what, "no entry", "the tree of an image"));
    }
    Ok(())
}

/// Puts all members into the tree.
pub(super) fn unpack_into<R: Skip>(archive: &mut Archive<R>, reading: &mut Reading<'_, '_>, is_layer: bool) -> Result<(), SourceError> {
    while let Some(member) = archive.next()? {
        if is_layer && whiteout(archive.what(), &member.path, reading)? {
            continue;
        }
        place(archive, member, reading)?;
    }
    reading.left = archive.left();
    Ok(())
}

fn in_tree(what: &str) -> impl FnOnce(TreeError) -> SourceError {
    let what = what.to_owned();
    move |source| SourceError::Tree { what, source }
}

/// Whether a layer's member was a whiteout, which then was carried out.
fn whiteout(what: &str, path: &[u8], reading: &mut Reading<'_, '_>) -> Result<bool, SourceError> {
    let slash = path.iter().rposition(|c| *c == b'/').map_or(0, |slash| slash + 1);
    let (dir, name) = path.split_at(slash);
    if name == OPAQUE {
        reading.tree.opaque(dir).map_err(in_tree(what))?;
    } else if name.starts_with(AUFS) {
        // Nothing that an image is of.
    } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
        if matches!(gone, b"" | b"." | b"..") {
            let path = escaped(path);
            return Err(SourceError::container(what, format!("the whiteout {path:?}"), "one that names a file"));
        }
        reading.tree.whiteout(&[dir, gone].concat()).map_err(in_tree(what))?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn place<R: Skip>(archive: &mut Archive<R>, member: Member, reading: &mut Reading<'_, '_>) -> Result<(), SourceError> {
    let what = archive.what().to_owned();
    let (major, minor) = member.device;
    let node = match member.kind {
        MemberKind::Link => return reading.tree.link(&member.path, &member.target).map_err(in_tree(&what)),
        MemberKind::Directory => Node::Directory,
        MemberKind::Symlink => symlink(&member.target),
        MemberKind::Char => Node::Char { major, minor },
        MemberKind::Block => Node::Block { major, minor },
        MemberKind::Fifo => Node::Fifo,
        MemberKind::File => contents(archive, &member, reading)?,
    };
    // Linux gives every symlink 777; archivers of other systems do not.
    let mode = if member.kind == MemberKind::Symlink { 0o777 } else { member.mode };
    let Member { uid, gid, mtime, has_capabilities, has_label, .. } = member;
    let item = Item { attributes: Attributes { mode, uid, gid, mtime, node }, has_capabilities, has_label };
    reading.tree.insert(&member.path, item).map_err(in_tree(&what))
}

fn contents<R: Skip>(archive: &mut Archive<R>, member: &Member, reading: &mut Reading<'_, '_>) -> Result<Node<'static>, SourceError> {
    let (what, at) = (archive.what().to_owned(), archive.at());
    let mut contents = archive.contents(member);
    let result = reading.session.add(&mut contents);
    if let Some(failed) = contents.failed.take() {
        return Err(failed);
    }
    let (digest, size) = added(result, &member.path, |path, source| {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            let found = format!("the end of the archive in {path:?}");
            return SourceError::Format { what, at, found, expected: "the rest of it: it was cut short".into() };
        }
        SourceError::Read { what: format!("{what}, {path:?}"), at, source }
    })?;
    Ok(Node::File { size, digest })
}
