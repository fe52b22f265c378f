//! Paths of an image, with its symbolic links followed as the system would: `/lib` is often a link to `usr/lib`.
//!
//! Leaves out: reading. Invariant: no path leads out of the image, and a ring of links ends. Shown by the tests below.

use std::io;

use crate::image::initrd::{Files, InitrdError, Kind};

/// As Linux: path_resolution(7).
const LINKS: u32 = 40;

/// The path without links; none: there is nothing. What is there may be of any kind.
pub(crate) fn resolve(files: &dyn Files, path: &str) -> io::Result<Option<(String, Kind)>> {
    let mut links = LINKS;
    // The next part is the last.
    let mut ahead: Vec<String> = parts(path);
    let mut behind: Vec<String> = Vec::new();
    let mut kind = Kind::Directory;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            behind.pop();
            kind = Kind::Directory;
            continue;
        }
        if kind != Kind::Directory {
            return Ok(None);
        }
        behind.push(part);
        let Some(found) = files.look(&behind.join("/"))? else { return Ok(None) };
        kind = found;
        if let Kind::Link(to) = &kind {
            let Some(left) = links.checked_sub(1) else { return Ok(None) };
            links = left;
            behind.pop();
            if to.starts_with('/') {
                behind.clear();
            }
            ahead.extend(parts(to));
            kind = Kind::Directory;
        }
    }
    Ok(Some((behind.join("/"), kind)))
}

/// A regular file, by its path without links.
pub(crate) fn file(files: &dyn Files, path: &str) -> Result<Option<String>, InitrdError> {
    match resolve(files, path) {
        Ok(Some((path, Kind::File))) => Ok(Some(path)),
        Ok(_) => Ok(None),
        Err(source) => Err(InitrdError::Read { path: path.to_owned(), source }),
    }
}

/// All of a file, through links; none: there is no such file.
pub(crate) fn read(files: &dyn Files, path: &str) -> Result<Option<Vec<u8>>, InitrdError> {
    let Some(path) = file(files, path)? else { return Ok(None) };
    files.read(&path).map(Some).map_err(|source| InitrdError::Read { path, source })
}

pub(crate) fn text(files: &dyn Files, path: &str) -> Result<Option<String>, InitrdError> {
    Ok(read(files, path)?.map(|octets| String::from_utf8_lossy(&octets).into_owned()))
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Links(&'static [(&'static str, Kind)]);

    impl Files for Links {
        fn look(&self, path: &str) -> io::Result<Option<Kind>> {
            Ok(self.0.iter().find(|(at, _)| *at == path).map(|(_, kind)| kind.clone()))
        }

        fn read(&self, _: &str) -> io::Result<Vec<u8>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn links_are_followed_within_the_image() {
        let link = |to: &str| Kind::Link(to.to_owned());
        let image = Box::leak(Box::new([
            ("lib", link("usr/lib")),
            ("usr", Kind::Directory),
            ("usr/lib", Kind::Directory),
            ("usr/lib/a", Kind::File),
            ("usr/lib/up", link("../../../../usr/lib/a")),
            ("usr/lib/absolute", link("/lib/a")),
            ("ring", link("ring")),
            ("ring2", link("ring2/x")),
        ]));
        let image = Links(image);
        let found = |path| resolve(&image, path).unwrap().map(|(path, _)| path);
        for path in ["lib/a", "/lib/a", "usr/lib/up", "lib/absolute", "lib/../lib/./a", "../../lib/a"] {
            assert_eq!(found(path).as_deref(), Some("usr/lib/a"), "{path}");
        }
        for path in ["lib/b", "ring", "ring2", "lib/a/x", "x/../lib/a"] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(found("").as_deref(), Some(""));
    }
}
