//! An image as one squashfs, which a machine reads into its memory: with owners, modes, times and devices, packed with zstd.
//!
//! Leaves out: hard links, which become files of their own that share their blocks. Invariant: the same image gives the same octets, and each of its
//! files was compared with its digest. Shown by `tests/images.rs` (unsquashfs) and `tests/machines.rs`.

use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backhand::compression::{CompressionOptions, Compressor, Zstd};
use backhand::{BackhandError, FilesystemCompressor, FilesystemWriter, NodeHeader};

use super::index::{Attributes, Index, Inode, Node, escaped};
use super::store::{Objects, StoreError};

/// A tree of 244 MB: 82 MB in 1.3 s. Higher ones take ten times as long for a tenth less.
const LEVEL: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SquashError {
    #[error("{path} cannot be read")]
    Content { path: String, source: StoreError },
    #[error("{path} cannot be put into a squashfs")]
    Entry { path: String, source: BackhandError },
    #[error("the squashfs cannot be written")]
    Write(#[source] BackhandError),
}

pub(crate) fn squash(index: &Index, objects: &Objects, to: impl Write + Seek) -> Result<(), SquashError> {
    let options = CompressionOptions::Zstd(Zstd { compression_level: LEVEL });
    let mut writer = FilesystemWriter::default();
    writer.set_compressor(FilesystemCompressor::new(Compressor::Zstd, Some(options)).map_err(SquashError::Write)?);
    if let Some(root) = index.attributes(Inode::ROOT) {
        writer.set_root_mode(root.mode);
        writer.set_root_uid(root.uid);
        writer.set_root_gid(root.gid);
    }
    for entry in index.entries().filter(|entry| entry.path != b"/") {
        let Some(attributes) = index.attributes(entry.inode) else { continue };
        push(&mut writer, &entry.path, attributes, objects)?;
    }
    writer.write(to).map(drop).map_err(SquashError::Write)
}

fn push(writer: &mut FilesystemWriter<'_, '_, '_>, path: &[u8], about: Attributes<'_>, objects: &Objects) -> Result<(), SquashError> {
    let header = NodeHeader {
        permissions: about.mode,
        uid: about.uid,
        gid: about.gid,
        // It has 32 bits without a sign.
        mtime: u32::try_from(about.mtime.max(0)).unwrap_or(u32::MAX),
    };
    let at = Path::new(OsStr::from_bytes(path));
    // As the kernel encodes them (new_encode_dev, linux/kdev_t.h).
    let device = |major: u32, minor: u32| (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    let pushed = match about.node {
        Node::Directory => writer.push_dir(at, header),
        Node::File { size, digest } => {
            let content = |source| SquashError::Content { path: escaped(path), source };
            let from = objects.verified_path(&digest, size).map_err(content)?;
            writer.push_file_from_path(from, at, header)
        }
        Node::Symlink { target } => writer.push_symlink(OsStr::from_bytes(&target), at, header),
        Node::Char { major, minor } => writer.push_char_device(device(major, minor), at, header),
        Node::Block { major, minor } => writer.push_block_device(device(major, minor), at, header),
        Node::Fifo => writer.push_fifo(at, header),
        Node::Socket => writer.push_socket(at, header),
    };
    pushed.map_err(|source| SquashError::Entry { path: escaped(path), source })
}
