//! An image as one tar: GNU format, which holds every name, owner, time and device number.
//!
//! GNU tar manual, "Basic Tar Format"; numbers that do not fit into octal are big-endian with the first bit set. Leaves out sockets, which tar has no
//! type for: named. The root is the first entry, `./`; mksquashfs passes it over, so it is to be told -root-mode, -root-uid, -root-gid and
//! -root-time. Invariant: the same index gives the same bytes: every directory with all that is below it, by name, no names of owners, no other
//! times. Shown by `tests/importing/tar.rs` against GNU tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

use serde::Serialize;

use super::super::digest::Digest;
use super::super::index::{Attributes, Index, Inode, Node, escaped};
use super::super::source::Names;
use super::super::store::Objects;
use super::ExportError;

const BLOCK: usize = 512;
/// A name or target that is longer goes into a member of its own.
const NAME: usize = 100;
/// GNU tar writes records of 20 blocks, and warns of what ends elsewhere.
const RECORD: u64 = 20 * 512;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExportedTar {
    pub entries: u64,
    /// Of the tar.
    pub bytes: u64,
    pub sockets_left_out: Names,
}

pub(crate) struct Writer<'w> {
    to: &'w mut dyn Write,
    at: u64,
}

/// Octal with a final NUL, or GNU's big-endian numbers.
fn number(field: &mut [u8], value: i64) {
    let digits = field.len() - 1;
    let fits = value >= 0 && u32::try_from(3 * digits).is_ok_and(|bits| bits >= 63 || value < 1 << bits);
    if fits {
        let text = format!("{value:0digits$o}\0");
        field.copy_from_slice(text.as_bytes());
        return;
    }
    let bytes = i128::from(value).to_be_bytes();
    for (to, from) in field.iter_mut().rev().zip(bytes.iter().rev()) {
        *to = *from;
    }
    if let Some(first) = field.first_mut() {
        *first = if value < 0 { 0xff } else { 0x80 };
    }
}

fn put(block: &mut [u8; BLOCK], from: usize, bytes: &[u8]) {
    for (to, byte) in block.iter_mut().skip(from).zip(bytes) {
        *to = *byte;
    }
}

fn put_number(block: &mut [u8; BLOCK], from: usize, len: usize, value: i64) {
    if let Some(field) = block.get_mut(from..from + len) {
        number(field, value);
    }
}

/// All of a header but its checksum.
pub(crate) struct Fields<'f> {
    pub path: &'f [u8],
    pub target: &'f [u8],
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub size: u64,
    pub device: Option<(u32, u32)>,
    pub type_flag: u8,
}

fn header(fields: &Fields<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, fields.path.get(..NAME).unwrap_or(fields.path));
    put_number(&mut block, 100, 8, i64::from(fields.mode));
    put_number(&mut block, 108, 8, i64::from(fields.uid));
    put_number(&mut block, 116, 8, i64::from(fields.gid));
    put_number(&mut block, 124, 12, fields.size.cast_signed());
    put_number(&mut block, 136, 12, fields.mtime);
    put(&mut block, 148, b"        ");
    put(&mut block, 156, &[fields.type_flag]);
    put(&mut block, 157, fields.target.get(..NAME).unwrap_or(fields.target));
    put(&mut block, 257, b"ustar  \0");
    if let Some((major, minor)) = fields.device {
        put_number(&mut block, 329, 8, i64::from(major));
        put_number(&mut block, 337, 8, i64::from(minor));
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

impl<'w> Writer<'w> {
    pub(crate) fn new(to: &'w mut dyn Write) -> Writer<'w> {
        Writer { to, at: 0 }
    }

    /// The next member has these extended attributes (POSIX.1-2001, pax, type x; the names as GNU tar and bsdtar write them). Their values are left out.
    pub(crate) fn attributes(&mut self, names: &[&str]) -> Result<(), ExportError> {
        let record = |name: &&str| {
            let text = format!(" SCHILY.xattr.{name}=1\n");
            let length = (1..).find(|digits| (text.len() + digits).to_string().len() == *digits).unwrap_or(2);
            format!("{}{text}", text.len() + length)
        };
        let records: String = names.iter().map(record).collect();
        let (path, target, size) = (&b"./PaxHeaders"[..], &b""[..], records.len() as u64);
        self.write(&header(&Fields { path, target, mode: 0o644, uid: 0, gid: 0, mtime: 0, size, device: None, type_flag: b'x' }))?;
        self.write(records.as_bytes())?;
        self.fill(BLOCK as u64)
    }

    /// So many bytes of a reader, zeros where it has less. Whether it had just these.
    pub(crate) fn exactly(&mut self, from: &mut impl Read, size: u64) -> io::Result<bool> {
        let mut buffer = vec![0; 256 * 1024];
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = match from.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.write(buffer.get(..read).unwrap_or_default()).map_err(ExportError::into_io)?;
            left -= read as u64;
        }
        let short = left > 0;
        buffer.fill(0);
        while left > 0 {
            let zeros = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.write(buffer.get(..zeros).unwrap_or_default()).map_err(ExportError::into_io)?;
            left -= zeros as u64;
        }
        self.fill(BLOCK as u64).map_err(ExportError::into_io)?;
        Ok(!short && from.read(&mut [0]).is_ok_and(|read| read == 0))
    }

    pub(crate) fn end(&mut self) -> Result<(), ExportError> {
        self.write(&[0; 2 * BLOCK])?;
        self.fill(RECORD)?;
        self.to.flush().map_err(|source| ExportError::Io { doing: "write", path: "the tar".to_owned(), source })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.at += bytes.len() as u64;
        let error = |source| ExportError::Io { doing: "write", path: "the tar".to_owned(), source };
        self.to.write_all(bytes).map_err(error)
    }

    /// Up to the end of a block or record.
    fn fill(&mut self, to: u64) -> Result<(), ExportError> {
        let missing = (to - self.at % to) % to;
        self.write(&vec![0; usize::try_from(missing).unwrap_or_default()])
    }

    /// A name that does not fit into a header: type L for a path, K for a target.
    fn long(&mut self, type_flag: u8, name: &[u8]) -> Result<(), ExportError> {
        let (path, target, size) = (&b"././@LongLink"[..], &b""[..], name.len() as u64 + 1);
        self.write(&header(&Fields { path, target, mode: 0o644, uid: 0, gid: 0, mtime: 0, size, device: None, type_flag }))?;
        self.write(name)?;
        self.write(&[0])?;
        self.fill(BLOCK as u64)
    }

    pub(crate) fn header(&mut self, fields: &Fields<'_>) -> Result<(), ExportError> {
        if fields.target.len() > NAME {
            self.long(b'K', fields.target)?;
        }
        if fields.path.len() > NAME {
            self.long(b'L', fields.path)?;
        }
        self.write(&header(fields))
    }

    fn contents(&mut self, object: &mut File, path: &[u8], digest: &Digest, size: u64) -> Result<(), ExportError> {
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, 256 * 1024)];
        let mut found = 0;
        loop {
            let read = match object.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ExportError::Io { doing: "read the contents of", path: escaped(path), source }),
            };
            found += read as u64;
            if found > size {
                break;
            }
            self.write(buffer.get(..read).unwrap_or_default())?;
        }
        if found != size {
            return Err(ExportError::Short { path: escaped(path), digest: *digest, found, expected: size });
        }
        self.fill(BLOCK as u64)
    }
}

/// Without the leading slash; of a directory with a final one, of the root `./`.
fn member_name(path: &[u8], is_directory: bool) -> Vec<u8> {
    match path.strip_prefix(b"/").unwrap_or(path) {
        b"" => b"./".to_vec(),
        name if is_directory => [name, b"/"].concat(),
        name => name.to_vec(),
    }
}

/// Export of one image: hard links name the path that came first in the tar.
struct Export<'e, 'w> {
    writer: Writer<'w>,
    index: &'e Index,
    objects: &'e Objects,
    linked: BTreeMap<Inode, Vec<u8>>,
    done: ExportedTar,
}

impl Export<'_, '_> {
    /// Writes one name of a node; whether it is a directory.
    fn entry(&mut self, full: &[u8], inode: Inode) -> Result<bool, ExportError> {
        let Some(Attributes { mode, uid, gid, mtime, node }) = self.index.attributes(inode) else { return Ok(false) };
        let path = member_name(full, node == Node::Directory);
        let mut fields = Fields { path: &path, target: b"", mode, uid, gid, mtime, size: 0, device: None, type_flag: b'0' };
        match &node {
            Node::Directory => fields.type_flag = b'5',
            Node::Symlink { target } => (fields.type_flag, fields.target) = (b'2', target),
            Node::Char { major, minor } => (fields.type_flag, fields.device) = (b'3', Some((*major, *minor))),
            Node::Block { major, minor } => (fields.type_flag, fields.device) = (b'4', Some((*major, *minor))),
            Node::Fifo => fields.type_flag = b'6',
            Node::Socket => {
                self.done.sockets_left_out.push(escaped(full));
                return Ok(false);
            }
            Node::File { .. } if let Some(first) = self.linked.get(&inode) => (fields.type_flag, fields.target) = (b'1', first),
            Node::File { size, digest } => {
                let opened = self.objects.open_verified(digest, *size);
                let mut object = opened.map_err(|source| ExportError::Contents { path: escaped(full), source })?;
                fields.size = *size;
                self.writer.header(&fields)?;
                self.writer.contents(&mut object, full, digest, *size)?;
                if self.index.nlink(inode).is_some_and(|names| names > 1) {
                    self.linked.insert(inode, path);
                }
                self.done.entries += 1;
                return Ok(false);
            }
        }
        self.writer.header(&fields)?;
        self.done.entries += 1;
        Ok(node == Node::Directory)
    }

    /// Each directory with all that is below it: GNU tar, when it unpacks, gives a directory its time as soon as something from elsewhere comes, and
    /// in the order of an index `/a-b` is between `/a` and `/a/c`.
    fn tree(&mut self) -> Result<(), ExportError> {
        let index = self.index;
        self.entry(b"/", Inode::ROOT)?;
        let mut open = vec![(Inode::ROOT, 0)];
        while let Some((dir, after)) = open.pop() {
            let Some(child) = index.children(dir, after).and_then(|mut children| children.next()) else { continue };
            open.push((dir, child.cookie));
            let parent = if dir == Inode::ROOT { Vec::new() } else { index.path(dir) };
            if self.entry(&[&parent, &b"/"[..], child.name].concat(), child.inode)? {
                open.push((child.inode, 0));
            }
        }
        Ok(())
    }
}

/// Writes an image as a tar.
pub fn export_tar(index: &Index, objects: &Objects, to: &mut dyn Write) -> Result<ExportedTar, ExportError> {
    let (linked, done) = (BTreeMap::new(), ExportedTar::default());
    let mut export = Export { writer: Writer { to, at: 0 }, index, objects, linked, done };
    export.tree()?;
    let Export { mut writer, mut done, .. } = export;
    writer.end()?;
    done.bytes = writer.at;
    Ok(done)
}
