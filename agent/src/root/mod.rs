//! The root of the system: what the persona is, read-only, and above it a layer in memory for all that is written.
//!
//! Leaves out: storage that outlives a start. Invariant: what is below is never written to, and is mounted only once it is what was asked for.
//! Shown by `tests/guests.py`.

mod memory;
mod nfs;
mod ram;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::command_line::{CommandLine, Root, WrongParameter};
use crate::console::say;
use crate::modules::{ModuleError, Modules};

/// Where the new root is until it is the root.
pub const NEW_ROOT: &str = "/newroot";
const BELOW: &str = "/embody/below";
const ABOVE: &str = "/embody/above";

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error(transparent)]
    Parameter(#[from] WrongParameter),
    #[error("the root cannot be mounted")]
    Module(#[from] ModuleError),
    #[error("the root nfs {address}:{path} cannot be mounted after {seconds} s{}", nfs::hint(*.source))]
    Nfs { address: String, path: String, seconds: u64, source: Errno },
    #[error("the root of {need} MiB does not fit into memory: {available} of {total} MiB are free, and the system needs some of it")]
    Memory { need: u64, available: u64, total: u64 },
    #[error("the root cannot be fetched")]
    Fetch(#[from] crate::http::HttpError),
    #[error("the root is not what was asked for: its SHA-256 is {found}, expected {expected}")]
    Digest { found: String, expected: String },
    #[error("{what}")]
    Io { what: &'static str, source: io::Error },
    #[error("{what} cannot be mounted")]
    Mount { what: &'static str, source: Errno },
}

/// Mounts the root of the command line at `NEW_ROOT`.
pub fn mount_all(line: &CommandLine, modules: &mut Modules) -> Result<(), RootError> {
    let root = line.root()?;
    let size = line.overlay()?;
    for module in root.modules() {
        modules.need(module)?;
    }
    for directory in [BELOW, ABOVE, NEW_ROOT] {
        fs::create_dir_all(directory).map_err(doing("a directory of the initrd cannot be made"))?;
    }
    match &root {
        Root::Nfs { address, port, path } => nfs::mount_at(BELOW, *address, *port, path, line.patience())?,
        Root::Ram { url, sha256, size } => ram::mount_at(BELOW, url, sha256, *size, line.patience())?,
    }
    overlay(&size.to_string())?;
    say(&format!("the root is mounted, with up to {size} of memory for what is written"));
    Ok(())
}

fn overlay(size: &str) -> Result<(), RootError> {
    let options = format!("mode=0755,size={size}");
    tmpfs(ABOVE, &options).map_err(|source| RootError::Mount { what: "the memory for what is written", source })?;
    let (upper, work) = (format!("{ABOVE}/upper"), format!("{ABOVE}/work"));
    for directory in [&upper, &work] {
        fs::create_dir(directory).map_err(doing("a directory for what is written cannot be made"))?;
    }
    // The root directory has the owner and mode of the upper one.
    let below = fs::metadata(BELOW).map_err(doing("the root has no root directory that can be read"))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(below.mode() & 0o7777)).map_err(doing("the mode of the root directory"))?;
    chown(&upper, Some(below.uid()), Some(below.gid())).map_err(doing("the owner of the root directory"))?;
    let options = format!("lowerdir={BELOW},upperdir={upper},workdir={work}");
    mount_with("overlay", NEW_ROOT, "overlay", MountFlags::empty(), &options)
        .map_err(|source| RootError::Mount { what: "the layer for what is written", source })?;
    // Overlayfs has mounts of its own of both: without these nothing that the system unmounts at its end is below its root.
    for below in [BELOW, ABOVE] {
        unmount(below, UnmountFlags::DETACH).map_err(|source| RootError::Mount { what: "below the root something", source })?;
    }
    Ok(())
}

fn tmpfs(at: &str, options: &str) -> Result<(), Errno> {
    mount_with("embody", at, "tmpfs", MountFlags::empty(), options)
}

fn mount_with(source: &str, at: &str, kind: &str, flags: MountFlags, options: &str) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount(source, Path::new(at), kind, flags, options.as_c_str())
}

fn doing(what: &'static str) -> impl Fn(io::Error) -> RootError {
    move |source| RootError::Io { what, source }
}
