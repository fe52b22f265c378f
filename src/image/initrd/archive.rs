//! The archive that the kernel unpacks into its first root: cpio of the form newc (Linux, driver-api/early-userspace/buffer-format), packed.
//!
//! Leaves out: owners and times: all is root's, of the year 1970, so that the same content gives the same octets. Invariant: a directory comes before
//! what is in it. Shown by `tests/importing/initrd.rs`, where cpio(1) is the judge.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};

use crate::image::initrd::InitrdError;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const ALIGNED: usize = 4;

// inode(7)
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTERS: u32 = 0o020_000;

/// Higher ones take several times as long and save a few parts in a hundred.
const ZSTD_LEVEL: i32 = 15;
const GZIP_LEVEL: u32 = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// By the configuration of a kernel. Each kernel that takes a packed initrd takes gzip, unless it was configured not to.
    pub(crate) fn of(configuration: Option<&str>) -> Self {
        let has_zstd = configuration.is_some_and(|text| text.lines().any(|line| line.trim() == "CONFIG_RD_ZSTD=y"));
        if has_zstd { Self::Zstd } else { Self::Gzip }
    }
}

enum Packer<W: Write> {
    Gzip(flate2::write::GzEncoder<Counted<W>>),
    Zstd(zstd::Encoder<'static, Counted<W>>),
}

struct Counted<W> {
    to: W,
    octets: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.to.write(octets)?;
        self.octets += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

pub(crate) struct Archive<W: Write> {
    packer: Packer<W>,
    written: u64,
    inode: u32,
    directories: BTreeSet<String>,
}

/// Packed and unpacked octets.
pub(crate) struct Sizes {
    pub packed: u64,
    pub unpacked: u64,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(compression: Compression, to: W) -> Result<Self, InitrdError> {
        let to = Counted { to, octets: 0 };
        let packer = match compression {
            Compression::Gzip => Packer::Gzip(flate2::GzBuilder::new().mtime(0).write(to, flate2::Compression::new(GZIP_LEVEL))),
            Compression::Zstd => Packer::Zstd(zstd::Encoder::new(to, ZSTD_LEVEL).map_err(InitrdError::Write)?),
        };
        Ok(Self { packer, written: 0, inode: 0, directories: BTreeSet::new() })
    }

    pub(crate) fn directory(&mut self, path: &str) -> Result<(), InitrdError> {
        self.parents_of(path)?;
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY | 0o755, (0, 0), &[])?;
        }
        Ok(())
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), InitrdError> {
        self.parents_of(path)?;
        self.entry(path, FILE | mode, (0, 0), content)
    }

    pub(crate) fn link(&mut self, path: &str, to: &str) -> Result<(), InitrdError> {
        self.parents_of(path)?;
        self.entry(path, LINK | 0o777, (0, 0), to.as_bytes())
    }

    pub(crate) fn characters(&mut self, path: &str, mode: u32, device: (u32, u32)) -> Result<(), InitrdError> {
        self.parents_of(path)?;
        self.entry(path, CHARACTERS | mode, device, &[])
    }

    pub(crate) fn finish(mut self) -> Result<(Sizes, W), InitrdError> {
        self.inode = 0;
        self.entry(TRAILER, 0, (0, 0), &[])?;
        let unpacked = self.written;
        let counted = match self.packer {
            Packer::Gzip(packer) => packer.finish(),
            Packer::Zstd(packer) => packer.finish(),
        };
        let Counted { mut to, octets } = counted.map_err(InitrdError::Write)?;
        to.flush().map_err(InitrdError::Write)?;
        Ok((Sizes { packed: octets, unpacked }, to))
    }

    fn parents_of(&mut self, path: &str) -> Result<(), InitrdError> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    /// A head of hexadecimal numbers, a name with a NUL, content; both end at a multiple of four.
    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<(), InitrdError> {
        let size = u32::try_from(content.len()).map_err(|_| InitrdError::TooLarge { path: path.to_owned(), size: content.len() })?;
        let name = u32::try_from(path.len() + 1).map_err(|_| InitrdError::TooLarge { path: path.to_owned(), size: path.len() })?;
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let mut head = MAGIC.to_owned();
        // Inode, mode, owner, group, links, time, size, the device it is on, the device it is, length of its name, no sum.
        for number in [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0] {
            head += &format!("{number:08x}");
        }
        head += path;
        head.push('\0');
        self.put(head.as_bytes())?;
        self.put(content)
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), InitrdError> {
        let padding = octets.len().next_multiple_of(ALIGNED) - octets.len();
        let zeros = [0; ALIGNED];
        for octets in [octets, zeros.get(..padding).unwrap_or_default()] {
            match &mut self.packer {
                Packer::Gzip(packer) => packer.write_all(octets),
                Packer::Zstd(packer) => packer.write_all(octets),
            }
            .map_err(InitrdError::Write)?;
            self.written += octets.len() as u64;
        }
        Ok(())
    }
}
