//! The initrd of an image: the first program, and of the image's own kernel what reaches the network and mounts the root.
//!
//! Leaves out: everything of the image's user space, so that an image needs neither dracut nor initramfs-tools, and one program starts all of them.
//! Invariants: the same image, kernel and first program give the same octets; what a root needs and this kernel does not have is an error here, not a
//! machine that hangs. One file of the image at a time is in memory. Shown by `tests/importing/initrd.rs`.

mod archive;
mod builder;
mod firmware;
mod kernel;
mod modinfo;
mod selection;
mod tree;
mod unpack;

use std::io;

pub use archive::Compression;
pub use builder::build;

/// An image's files. Paths have no slash at their ends and no `.` or `..`; the root directory is the empty path.
pub trait Files {
    /// What is at a path, links not followed. Nothing there is `None`.
    fn look(&self, path: &str) -> io::Result<Option<Kind>>;
    /// All of a regular file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    /// A symbolic link, and where it leads.
    Link(String),
    Other,
}

#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    #[error(
        "the image has no modules of the kernel {kernel}: expected lib/modules/{kernel}/modules.dep (is the kernel's package whole, did depmod(8) run?)"
    )]
    NoModules { kernel: String },
    #[error("the kernel {kernel} has `{module}` neither as a module nor built in: without it no root can be mounted ({used})")]
    Needed { kernel: String, module: &'static str, used: &'static str },
    #[error("{path} of the image cannot be read")]
    Read { path: String, source: io::Error },
    #[error("{path} of the image cannot be unpacked")]
    Unpack { path: String, source: io::Error },
    #[error("{path} is too large for an initrd: {size} octets")]
    TooLarge { path: String, size: usize },
    #[error("the initrd cannot be written")]
    Write(#[source] io::Error),
}

/// What an initrd came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub compression: Compression,
    /// As it is sent.
    pub packed_bytes: u64,
    /// As it is in memory.
    pub unpacked_bytes: u64,
    /// By name.
    pub modules: Vec<Part>,
    pub firmware: Vec<Part>,
    /// What a module may ask for and the image does not have: cards that need it will not work.
    pub missing_firmware: Vec<Missing>,
    /// Of what was looked for by name, what the kernel has built in.
    pub built_in: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    pub firmware: String,
    pub module: String,
}
