//! What of an image will be missing or behave otherwise when it is booted from the network: told at import, by name.
//!
//! Leaves out judging: an import with warnings succeeds. Invariant: each warning names what it is about. Shown by the tests in `warnings/tests.rs`
//! and by `tests/importing/tar.rs`, `tests/importing/dir.rs`.

mod elf;
mod firmware;

use std::fmt;

use serde::Serialize;

use super::index::{Node, escaped};
use super::kernel::Kernel;
use super::source::Names;
use super::store::{Session, StoreError};
use super::tree::Tree;

/// A module and the firmware that it names and the image lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingFirmware {
    pub module: String,
    pub files: Names,
    /// How many files it names: drivers name those of several models and releases, and need one.
    pub of: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "warning", rename_all = "kebab-case")]
pub enum Warning {
    FileCapabilities { files: Names },
    SelinuxLabels { count: u64 },
    MissingFirmware { kernel: String, modules: Vec<MissingFirmware> },
    OnlyNetworkManager { name: String },
    NoKernel,
    NoInit,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::FileCapabilities { files } => {
                write!(f, "{} files have file capabilities, which a network root does not keep: {files}", files.len())
            }
            Warning::SelinuxLabels { count } => write!(f, "{count} files have SELinux labels, which a network root does not keep"),
            Warning::MissingFirmware { kernel, modules } => {
                write!(f, "{} network drivers of kernel {kernel} name firmware that is not in the image:", modules.len())?;
                modules.iter().try_for_each(|missing| {
                    write!(f, "\n  {} lacks {} of {}: {}", missing.module, missing.files.len(), missing.of, missing.files)
                })
            }
            Warning::OnlyNetworkManager { name } => {
                write!(f, "{name} is the only network manager: it may take the boot NIC's address away unless it is told to leave it")
            }
            Warning::NoKernel => f.write_str("no kernel with its modules was found: name one to boot this image with"),
            Warning::NoInit => f.write_str("no /sbin/init, /etc/init or /bin/init was found: nothing would start"),
        }
    }
}

/// All that there is to tell of a tree.
pub(crate) fn warnings(tree: &Tree, kernel: Option<&Kernel>, session: &Session<'_>) -> Result<Vec<Warning>, StoreError> {
    let mut warnings = Vec::new();
    let mut files = Names::default();
    let mut count = 0;
    for (path, item) in tree.walk(b"/") {
        if item.has_capabilities {
            files.push(escaped(path));
        }
        count += u64::from(item.has_label);
    }
    if !files.is_empty() {
        warnings.push(Warning::FileCapabilities { files });
    }
    if count > 0 {
        warnings.push(Warning::SelinuxLabels { count });
    }
    match kernel {
        None => warnings.push(Warning::NoKernel),
        Some(kernel) => {
            let modules = firmware::missing(tree, &kernel.version, session)?;
            if !modules.is_empty() {
                warnings.push(Warning::MissingFirmware { kernel: kernel.version.clone(), modules });
            }
        }
    }
    if !has_init(tree) {
        warnings.push(Warning::NoInit);
    }
    warnings.extend(only_manager(tree).map(|name| Warning::OnlyNetworkManager { name: name.to_owned() }));
    Ok(warnings)
}

/// What the kernel starts where its command line says nothing (kernel_init, init/main.c), but for the shell.
fn has_init(tree: &Tree) -> bool {
    ["/sbin/init", "/etc/init", "/bin/init"].iter().any(|path| {
        let item = tree.resolve(path.as_bytes()).map(|(_, item)| &item.attributes);
        item.is_some_and(|attributes| matches!(attributes.node, Node::File { .. }) && attributes.mode & 0o111 != 0)
    })
}

/// Whether systemd starts a unit by itself.
fn is_enabled(tree: &Tree, unit: &str) -> bool {
    ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"].iter().any(|dir| {
        let dir = tree.resolve(dir.as_bytes()).map(|(dir, _)| dir);
        dir.is_some_and(|dir| {
            let is_wanted =
                |(path, _): (&[u8], _)| path.ends_with(b".wants") && tree.get(&[path, b"/", unit.as_bytes()].concat()).is_some();
            tree.list(&dir).any(is_wanted)
        })
    })
}

/// NetworkManager or netplan, where nothing else would configure NICs.
fn only_manager(tree: &Tree) -> Option<&'static str> {
    let others = ["systemd-networkd.service", "networking.service", "network.service", "wicked.service", "connman.service"];
    if others.iter().any(|unit| is_enabled(tree, unit)) {
        return None;
    }
    if is_enabled(tree, "NetworkManager.service") {
        return Some("NetworkManager");
    }
    tree.resolve(b"/usr/sbin/netplan").map(|_| "netplan")
}

#[cfg(test)]
mod tests;
