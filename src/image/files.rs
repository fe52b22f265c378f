//! An image's files, as the maker of initrds reads them. Leaves out: owners and modes, which nothing there asks for.
//!
//! Invariant: what is read was compared with its digest.

use std::io;

use super::index::{Index, Node};
use super::initrd::{Files, Kind};
use super::store::Objects;

/// The largest file that is read whole: a kernel module with all its symbols has some 10 MB, the firmware of a network card up to 50.
const LARGEST: u64 = 256 << 20;

pub(crate) struct OfImage<'i> {
    index: &'i Index,
    objects: &'i Objects,
}

impl<'i> OfImage<'i> {
    pub(crate) fn new(index: &'i Index, objects: &'i Objects) -> OfImage<'i> {
        OfImage { index, objects }
    }

    fn node(&self, path: &str) -> Option<Node<'_>> {
        let inode = self.index.find(format!("/{path}").as_bytes())?;
        self.index.attributes(inode).map(|attributes| attributes.node)
    }
}

impl Files for OfImage<'_> {
    fn look(&self, path: &str) -> io::Result<Option<Kind>> {
        Ok(self.node(path).map(|node| match node {
            Node::Directory => Kind::Directory,
            Node::File { .. } => Kind::File,
            Node::Symlink { target } => Kind::Link(String::from_utf8_lossy(&target).into_owned()),
            Node::Char { .. } | Node::Block { .. } | Node::Fifo | Node::Socket => Kind::Other,
        }))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match self.node(path) {
            Some(Node::File { size, digest }) => self.objects.read(&digest, size, LARGEST).map_err(io::Error::other),
            Some(_) => Err(io::Error::other("it is no regular file")),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
