//! An image that is a directory, as the maker of initrds reads it.
//!
//! Leaves out: owners and modes, which nothing there asks for. Invariant: links are given as they are, and never followed here.

use std::fs;
use std::io;
use std::path::PathBuf;

use embody::testing::image::initrd::{Files, Kind};

pub struct Directory(pub PathBuf);

impl Files for Directory {
    fn look(&self, path: &str) -> io::Result<Option<Kind>> {
        let path = self.0.join(path);
        let about = match fs::symlink_metadata(&path) {
            Ok(about) => about,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(match about.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => Kind::File,
            kind if kind.is_symlink() => Kind::Link(fs::read_link(&path)?.to_string_lossy().into_owned()),
            _ => Kind::Other,
        }))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(path))
    }
}
