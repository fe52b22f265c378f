//! Firmware that the modules of an initrd may ask for, as far as the image has it.
//!
//! Leaves out: which of it a machine needs, which is seen only there. Invariant: a file is in the initrd once; another name of it is a link. Shown by
//! `tests/importing/initrd.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::initrd::unpack::Packed;
use crate::image::initrd::{Files, InitrdError, Missing, tree};

/// Names, with a module that named each.
#[derive(Debug, Default)]
pub(crate) struct Named(BTreeMap<String, String>);

#[derive(Debug, Default)]
pub(crate) struct Firmware {
    pub found: Vec<Found>,
    pub missing: BTreeSet<Missing>,
}

/// Either packed at a path of the image, or the same as an earlier name.
#[derive(Debug)]
pub(crate) struct Found {
    pub name: String,
    pub file: Result<(String, Packed), String>,
}

impl Named {
    pub(crate) fn add(&mut self, module: &str, names: Vec<&str>) {
        for name in names {
            self.0.entry(name.to_owned()).or_insert_with(|| module.to_owned());
        }
    }

    pub(crate) fn find(self, files: &dyn Files, kernel: &str) -> Result<Firmware, InitrdError> {
        let mut firmware = Firmware::default();
        let mut first: BTreeMap<String, String> = BTreeMap::new();
        for (name, module) in self.0 {
            match find(files, kernel, &name)? {
                None => {
                    firmware.missing.insert(Missing { firmware: name, module });
                }
                Some((path, packed)) => {
                    let same = first.get(&path).cloned();
                    first.entry(path.clone()).or_insert_with(|| name.clone());
                    firmware.found.push(Found { name, file: same.map_or(Ok((path, packed)), Err) });
                }
            }
        }
        Ok(firmware)
    }
}

/// In the places where the kernel would look (admin-guide: firmware search paths), by the path without links.
fn find(files: &dyn Files, kernel: &str, name: &str) -> Result<Option<(String, Packed)>, InitrdError> {
    // What leads elsewhere is no name of a firmware.
    if name.starts_with('/') || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Ok(None);
    }
    for library in ["lib", "usr/lib"] {
        for place in [format!("updates/{kernel}"), "updates".to_owned(), kernel.to_owned(), ".".to_owned()] {
            for packed in Packed::FIRMWARE {
                let path = format!("{library}/firmware/{place}/{name}{}", packed.suffix());
                if let Some(path) = tree::file(files, &path)? {
                    // A link may lead to a file that is packed in another way than its own name says.
                    let (_, packed) = Packed::of(&path);
                    return Ok(Some((path, packed)));
                }
            }
        }
    }
    Ok(None)
}
