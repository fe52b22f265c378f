//! Puts an initrd together.
//!
//! Leaves out: choosing (`selection`, `firmware`) and form (`archive`). Invariant: the order of what is put in depends on names alone. Shown by
//! `tests/importing/initrd.rs`.

use std::collections::BTreeMap;
use std::io::Write;

use crate::image::initrd::archive::{Archive, Compression};
use crate::image::initrd::firmware::Named;
use crate::image::initrd::kernel::Kernel;
use crate::image::initrd::selection::{self, Selection};
use crate::image::initrd::unpack::Packed;
use crate::image::initrd::{Files, InitrdError, Part, Report, modinfo, tree};

const DIRECTORIES: [&str; 10] = ["dev", "embody", "lib/firmware", "lib/modules", "newroot", "proc", "run", "sbin", "sys", "tmp"];
const LIST: &str = "embody/modules";

/// Writes the initrd of an image for one of its kernels (`versions`), with `agent` as its first program.
pub fn build(files: &dyn Files, kernel: &str, agent: &[u8], to: impl Write) -> Result<Report, InitrdError> {
    let kernel = Kernel::read(files, kernel)?;
    let selection = selection::select(&kernel, |module, symbol| {
        Ok(content(files, &kernel, module)?.is_some_and(|(_, module)| modinfo::names_symbol(&module, symbol)))
    })?;
    let compression = compression(files, &kernel.version)?;
    let mut archive = Archive::new(compression, to)?;
    start(&mut archive, agent)?;
    let paths = places(&kernel, &selection);
    archive.file(LIST, 0o444, selection::list(&kernel, &selection, &paths).as_bytes())?;

    let mut named = Named::default();
    let mut modules = Vec::new();
    for (name, path) in &paths {
        let Some((from, module)) = content(files, &kernel, name)? else {
            let path = kernel.modules.get(name).map(|module| kernel.path(module)).unwrap_or_default();
            return Err(InitrdError::Read { path, source: std::io::ErrorKind::NotFound.into() });
        };
        drop(from);
        named.add(name, modinfo::values(&module, "firmware"));
        archive.file(path, 0o444, &module)?;
        modules.push(Part { name: name.clone(), bytes: module.len() as u64 });
    }

    let found = named.find(files, &kernel.version)?;
    let mut firmware = Vec::new();
    for part in found.found {
        let path = format!("lib/firmware/{}", part.name);
        let bytes = match part.file {
            Ok((from, packed)) => {
                let content = unpacked(files, &from, packed)?;
                archive.file(&path, 0o444, &content)?;
                content.len() as u64
            }
            Err(same) => archive.link(&path, &format!("/lib/firmware/{same}")).map(|()| 0)?,
        };
        firmware.push(Part { name: part.name, bytes });
    }

    let (sizes, _) = archive.finish()?;
    Ok(Report {
        compression,
        packed_bytes: sizes.packed,
        unpacked_bytes: sizes.unpacked,
        modules,
        firmware,
        missing_firmware: found.missing.into_iter().collect(),
        built_in: selection.built_in.into_iter().collect(),
    })
}

/// What is there before the kernel's own file systems are: a program that is started needs a console, and one that starts another a null device.
fn start<W: Write>(archive: &mut Archive<W>, agent: &[u8]) -> Result<(), InitrdError> {
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    // Linux, admin-guide/devices.txt
    archive.characters("dev/console", 0o600, (5, 1))?;
    archive.characters("dev/null", 0o666, (1, 3))?;
    archive.file("init", 0o755, agent)?;
    // The kernel asks for modules by this name (/proc/sys/kernel/modprobe).
    archive.link("sbin/modprobe", "/init")
}

fn compression(files: &dyn Files, kernel: &str) -> Result<Compression, InitrdError> {
    // Debian and its kin; Fedora and its kin.
    for path in [format!("boot/config-{kernel}"), format!("lib/modules/{kernel}/config")] {
        if let Some(text) = tree::text(files, &path)? {
            return Ok(Compression::of(Some(&text)));
        }
    }
    Ok(Compression::of(None))
}

/// Where each module is in the initrd, by its name.
fn places(kernel: &Kernel, selection: &Selection) -> BTreeMap<String, String> {
    let place = |name: &String| {
        let path = kernel.path(kernel.modules.get(name)?);
        let (path, _) = Packed::of(path.trim_start_matches('/'));
        Some((name.clone(), path.to_owned()))
    };
    selection.modules.iter().filter_map(place).collect()
}

/// A module as the kernel takes it, and where it was.
fn content(files: &dyn Files, kernel: &Kernel, name: &str) -> Result<Option<(String, Vec<u8>)>, InitrdError> {
    let Some(module) = kernel.modules.get(name) else { return Ok(None) };
    let Some(path) = tree::file(files, &kernel.path(module))? else { return Ok(None) };
    let (_, packed) = Packed::of(&path);
    let content = unpacked(files, &path, packed)?;
    Ok(Some((path, content)))
}

fn unpacked(files: &dyn Files, path: &str, packed: Packed) -> Result<Vec<u8>, InitrdError> {
    let octets = files.read(path).map_err(|source| InitrdError::Read { path: path.to_owned(), source })?;
    packed.unpack(octets).map_err(|source| InitrdError::Unpack { path: path.to_owned(), source })
}
