//! What depmod(8) wrote of a kernel's modules: which there are, what each needs, and for which devices each is.
//!
//! Leaves out: which of them are wanted (`selection`). Invariant: names are as the kernel has them, with underscores, so that `virtio-net` and
//! `virtio_net` are one. Shown by the tests below.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::initrd::unpack::Packed;
use crate::image::initrd::{Files, InitrdError, tree};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// As depmod wrote it: below the directory of the kernel's modules.
    pub path: String,
    pub needs: Vec<String>,
    /// Softer: before it, after it, where they are there (softdep of modprobe.d(5)). Names or aliases.
    pub before: Vec<String>,
    pub after: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub version: String,
    pub modules: BTreeMap<String, Module>,
    /// Patterns and names, in the order of the file.
    pub aliases: Vec<(String, String)>,
    pub built_in: BTreeSet<String>,
}

impl Kernel {
    pub(crate) fn read(files: &dyn Files, version: &str) -> Result<Self, InitrdError> {
        let none = || InitrdError::NoModules { kernel: version.to_owned() };
        if version.is_empty() || version.contains('/') || version.starts_with('.') {
            return Err(none());
        }
        let text = |name: &str| tree::text(files, &format!("lib/modules/{version}/{name}"));
        let mut kernel = Self { version: version.to_owned(), ..Self::default() };
        kernel.dependencies(&text("modules.dep")?.ok_or_else(none)?);
        kernel.soft_dependencies(&text("modules.softdep")?.unwrap_or_default());
        kernel.aliases(&text("modules.alias")?.unwrap_or_default());
        let built_in = text("modules.builtin")?.unwrap_or_default();
        kernel.built_in = built_in.lines().map(name_of).collect();
        Ok(kernel)
    }

    /// A path of the image for one of depmod's, which are below its own directory unless they are absolute.
    pub(crate) fn path(&self, module: &Module) -> String {
        if module.path.starts_with('/') { module.path.clone() } else { format!("lib/modules/{}/{}", self.version, module.path) }
    }

    /// Modules by a name or an alias, as softdep gives either.
    pub(crate) fn named(&self, name: &str) -> Vec<String> {
        let name = underscored(name);
        if self.modules.contains_key(&name) {
            return vec![name];
        }
        self.aliases.iter().filter(|(alias, _)| *alias == name).map(|(_, module)| module.clone()).collect()
    }

    /// `kernel/fs/nfs/nfsv3.ko: kernel/fs/nfs/nfs.ko …`
    fn dependencies(&mut self, text: &str) {
        for (path, needs) in text.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(name_of).collect();
            self.modules.insert(name_of(path), Module { path: path.to_owned(), needs, ..Module::default() });
        }
    }

    /// `softdep NAME pre: … post: …`
    fn soft_dependencies(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { continue };
            let Some(module) = self.modules.get_mut(&underscored(name)) else { continue };
            let mut which = None;
            for word in words {
                match (word, which) {
                    ("pre:", _) => which = Some(true),
                    ("post:", _) => which = Some(false),
                    (word, Some(true)) => module.before.push(word.to_owned()),
                    (word, Some(false)) => module.after.push(word.to_owned()),
                    (_, None) => {}
                }
            }
        }
    }

    /// `alias PATTERN NAME`
    fn aliases(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name), None) = (words.next(), words.next(), words.next(), words.next()) {
                self.aliases.push((underscored(pattern), underscored(name)));
            }
        }
    }
}

/// `kernel/drivers/net/virtio-net.ko.xz` is virtio_net.
pub(crate) fn name_of(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    let (file, _) = Packed::of(file);
    underscored(file.strip_suffix(".ko").unwrap_or(file))
}

/// As modprobe(8) compares names: hyphens are underscores, except within brackets.
fn underscored(alias: &str) -> String {
    let mut within = false;
    let underscore = |c| {
        within = (within || c == '[') && c != ']';
        if c == '-' && !within { '_' } else { c }
    };
    alias.chars().map(underscore).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depmod_writes_is_read() {
        let mut kernel = Kernel::default();
        kernel.dependencies("kernel/a-b.ko.xz: kernel/lib/c.ko.xz kernel/d.ko.xz\nkernel/lib/c.ko.xz:\nkernel/d.ko.xz:\nkernel/e.ko.xz:\n");
        kernel.soft_dependencies("# words\nsoftdep a-b pre: d crypto-x post: e\nsoftdep unknown pre: d\nsoftdep d gcm\n");
        kernel.aliases("# words\nalias pci:v[1-3]-* a-b\nalias crypto-x e\nalias three words too many\n");
        let module = &kernel.modules["a_b"];
        assert_eq!((module.path.as_str(), module.needs.join(" ").as_str()), ("kernel/a-b.ko.xz", "c d"));
        assert_eq!((module.before.join(" ").as_str(), module.after.join(" ").as_str()), ("d crypto-x", "e"));
        assert_eq!(kernel.aliases[0], ("pci:v[1-3]_*".to_owned(), "a_b".to_owned()));
        assert_eq!(
            (kernel.named("crypto-x"), kernel.named("a-b"), kernel.named("nothing")),
            (vec!["e".to_owned()], vec!["a_b".to_owned()], vec![])
        );
        assert!(kernel.modules["d"].before.is_empty());
    }
}
