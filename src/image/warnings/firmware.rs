//! Firmware that network drivers name and the image lacks.
//!
//! Leaves out drivers built into the kernel, and those of wireless, CAN and such networks, from which no server boots. Invariant: a module that does
//! not read as one is passed over, never an error: it may be for another architecture. Shown by `warnings/tests.rs`.

use super::super::index::Node;
use super::super::kernel;
use super::super::source::{Names, unpack_small};
use super::super::store::{Session, StoreError};
use super::super::tree::Tree;
use super::{MissingFirmware, elf};

/// A driver has a few MiB.
const LARGEST_MODULE: u64 = 64 * 1024 * 1024;
/// Below drivers/net.
const NOT_BOOTED_FROM: [&[u8]; 7] = [b"wireless", b"wwan", b"can", b"hamradio", b"ieee802154", b"mctp", b"plip"];
/// What the kernel tries besides the plain name (drivers/base/firmware_loader/main.c).
const PACKED: [&str; 3] = ["", ".zst", ".xz"];

/// The name of a module's file without `.ko` and its packing.
fn module_name(path: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(path.rsplit(|c| *c == b'/').next()?).ok()?;
    let (name, packing) = name.split_once(".ko")?;
    matches!(packing, "" | ".xz" | ".zst" | ".gz").then(|| name.to_owned())
}

/// The firmware that a module's file names.
fn named(module: &[u8]) -> Option<Vec<String>> {
    let module = unpack_small(module, LARGEST_MODULE)?;
    let modinfo = elf::section(&module, b".modinfo")?;
    let files = modinfo.split(|byte| *byte == 0).filter_map(|field| field.strip_prefix(b"firmware="));
    Some(files.filter_map(|file| String::from_utf8(file.to_vec()).ok()).collect())
}

fn is_there(tree: &Tree, version: &str, file: &str) -> bool {
    // fw_path, drivers/base/firmware_loader/main.c
    let dirs = [format!("updates/{version}/"), "updates/".to_owned(), format!("{version}/"), String::new()];
    dirs.iter().any(|dir| PACKED.iter().any(|packed| tree.resolve(format!("/lib/firmware/{dir}{file}{packed}").as_bytes()).is_some()))
}

/// Network drivers of a kernel, and what each lacks.
pub(super) fn missing(tree: &Tree, version: &str, session: &Session<'_>) -> Result<Vec<MissingFirmware>, StoreError> {
    let Some(modules) = kernel::modules(tree, version) else { return Ok(Vec::new()) };
    let drivers = [&modules, &b"/kernel/drivers/net"[..]].concat();
    let mut found = Vec::new();
    for (path, item) in tree.walk(&drivers) {
        let below = path.get(drivers.len() + 1..).unwrap_or_default().split(|c| *c == b'/').next().unwrap_or_default();
        let (Node::File { size, digest }, Some(module)) = (&item.attributes.node, module_name(path)) else { continue };
        if NOT_BOOTED_FROM.contains(&below) || *size > LARGEST_MODULE {
            continue;
        }
        let Some(files) = named(&session.read(digest, *size, LARGEST_MODULE)?) else { continue };
        let mut lacks = Names::default();
        // A name with * stands for those of many boards.
        for file in files.iter().filter(|file| !file.contains('*') && !is_there(tree, version, file)) {
            lacks.push(file.as_str());
        }
        if !lacks.is_empty() {
            found.push(MissingFirmware { module, files: lacks, of: files.len() });
        }
    }
    Ok(found)
}
