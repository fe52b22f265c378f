//! Kernel modules of the initrd: for the devices that are there, for the root, and for what the kernel asks for.
//!
//! Leaves out: which modules an initrd has, and unpacking them, which its builder did; `/embody/modules` is its list. Invariant: a module comes after
//! all that it depends on, once; that a driver fails is said and is not the end, since another card may be the one. Shown by the tests below and
//! `tests/guests.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use rustix::io::Errno;

use crate::command_line::CommandLine;
use crate::console::say;

const LIST: &str = "/embody/modules";
/// No tree of devices is deeper.
const DEEPEST: u32 = 40;

#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("the module {0} is neither in this initrd nor built into this kernel: build the initrd from this kernel's image")]
    Missing(String),
    #[error("the module {module} cannot be loaded{}", says(*.source))]
    Refused { module: String, source: Errno },
}

/// errors of finit_module(2) that say more than their text.
fn says(error: Errno) -> &'static str {
    match error {
        Errno::NOEXEC => " (it was built for another kernel)",
        Errno::KEYREJECTED | Errno::NOKEY | Errno::PERM => " (the kernel takes only modules with a signature that it knows)",
        _ => "",
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Module {
    path: String,
    needs: Vec<String>,
    /// Softer: loaded before it, or after it, where they are there.
    before: Vec<String>,
    after: Vec<String>,
}

#[derive(Debug, Default)]
struct List {
    modules: BTreeMap<String, Module>,
    aliases: Vec<(String, String)>,
    built_in: BTreeSet<String>,
}

pub struct Modules {
    list: List,
    line: CommandLine,
    /// Loaded, or tried.
    done: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl List {
    /// `m NAME PATH NEEDS BEFORE AFTER` (lists with commas, `-`: none), `a PATTERN NAME`, `b NAME` (built in). Other lines are of a later version.
    fn parse(text: &str) -> Self {
        let mut list = Self::default();
        let names = |text: &str| text.split(',').filter(|name| !name.is_empty() && *name != "-").map(str::to_owned).collect();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["m", name, path, needs, before, after] => {
                    let module = Module { path: (*path).to_owned(), needs: names(needs), before: names(before), after: names(after) };
                    list.modules.insert((*name).to_owned(), module);
                }
                ["a", pattern, name] => list.aliases.push(((*pattern).to_owned(), (*name).to_owned())),
                ["b", name] => {
                    list.built_in.insert((*name).to_owned());
                }
                _ => {}
            }
        }
        list
    }

    /// All modules for an alias, as modprobe(8) takes them.
    fn for_alias(&self, alias: &str) -> Vec<String> {
        let alias = underscored(alias);
        let matching = self.aliases.iter().filter(|(pattern, _)| matches(pattern.as_bytes(), alias.as_bytes()));
        matching.map(|(_, name)| name.clone()).collect()
    }
}

impl Modules {
    pub fn of_this_initrd(line: CommandLine) -> Self {
        let text = std::fs::read_to_string(LIST).unwrap_or_else(|error| {
            say(&format!("{LIST}: {error}: no modules are loaded"));
            String::new()
        });
        Self { list: List::parse(&text), line, done: BTreeSet::new(), seen: BTreeSet::new() }
    }

    /// For every device that appeared since the last time, and for those that appear behind it: cards of a virtio bus behind virtio_pci.
    pub fn coldplug(&mut self) {
        while self.pass() {}
    }

    /// Whether there was a device that had not been seen.
    fn pass(&mut self) -> bool {
        let seen = self.seen.len();
        let mut found = Vec::new();
        modaliases(Path::new("/sys/devices"), DEEPEST, &mut found);
        for alias in found {
            if !self.seen.insert(alias.clone()) {
                continue;
            }
            for name in self.list.for_alias(&alias) {
                if self.line.is_blacklisted(&name) || self.done.contains(&name) {
                    continue;
                }
                match self.need(&name) {
                    Ok(()) => say(&format!("{name} is loaded for {alias}")),
                    // What has no device after all.
                    Err(ModuleError::Refused { source: Errno::NODEV, .. }) => {}
                    Err(error) => say(&error.to_string()),
                }
            }
        }
        self.seen.len() > seen
    }

    pub fn need(&mut self, name: &str) -> Result<(), ModuleError> {
        if self.list.built_in.contains(name) || !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(module) = self.list.modules.get(name) else { return Err(ModuleError::Missing(name.to_owned())) };
        let (path, needs) = (module.path.clone(), module.needs.clone());
        let (before, after) = (module.before.clone(), module.after.clone());
        for softer in &before {
            let _ = self.need(softer);
        }
        for needed in &needs {
            self.need(needed)?;
        }
        self.load(name, &path).map_err(|source| ModuleError::Refused { module: name.to_owned(), source })?;
        for softer in &after {
            let _ = self.need(softer);
        }
        Ok(())
    }

    fn load(&self, name: &str, path: &str) -> Result<(), Errno> {
        let parameters = CString::new(self.line.module_parameters(name)).unwrap_or_default();
        let file = File::open(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        match rustix::system::finit_module(&file, &parameters, 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// `/sbin/modprobe -q -- NAME`, by the kernel itself: for a file system, a cipher, a protocol.
pub fn asked_by_kernel(alias: Option<OsString>) -> ExitCode {
    let Some(alias) = alias.as_ref().and_then(|alias| alias.to_str()) else { return ExitCode::FAILURE };
    let mut modules = Modules::of_this_initrd(CommandLine::of_this_start());
    let mut names = modules.list.for_alias(alias);
    names.extend(Some(underscored(alias)).filter(|name| modules.list.modules.contains_key(name)));
    let loaded = names.iter().filter(|name| modules.need(name).is_ok()).count();
    if loaded > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn modaliases(directory: &Path, deeper: u32, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && deeper > 0 {
            modaliases(&entry.path(), deeper - 1, found);
        } else if kind.is_file() && entry.file_name() == "modalias" {
            found.extend(std::fs::read_to_string(entry.path()).ok().map(|alias| alias.trim().to_owned()).filter(|alias| !alias.is_empty()));
        }
    }
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

/// fnmatch(3) without flags: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before what stands for itself.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on if what follows the last star does not match here.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, text));
                Some((rest, text))
            }
            ([], []) => return true,
            (_, [first, left @ ..]) => one(pattern, *first).map(|rest| (rest, left)),
            (_, []) => None,
        };
        (pattern, text) = match (step, retry) {
            (Some(next), _) => next,
            (None, Some((after, [_, left @ ..]))) => {
                retry = Some((after, left));
                (after, left)
            }
            (None, _) => return false,
        };
    }
}

/// What is left of a pattern once its first part took this octet.
fn one(pattern: &[u8], octet: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => {
            let (is_not, set) = match rest {
                [b'!' | b'^', set @ ..] => (true, set),
                set => (false, set),
            };
            // A bracket that comes first stands for itself.
            let end = 1 + set.iter().skip(1).position(|b| *b == b']')?;
            let (set, rest) = (set.get(..end)?, set.get(end + 1..)?);
            (is_in(set, octet) != is_not).then_some(rest)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == octet).then_some(rest),
        [] => None,
    }
}

fn is_in(set: &[u8], octet: u8) -> bool {
    let mut set = set;
    loop {
        set = match set {
            [low, b'-', high, ..] if (*low..=*high).contains(&octet) => return true,
            [_, b'-', _, rest @ ..] => rest,
            [single, ..] if *single == octet => return true,
            [_, rest @ ..] => rest,
            [] => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        let cases = [
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            ("pci:v000015ADd000007B0sv*sd*bc*sc*i*", "pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00", true),
            ("pci:v*d*sv*sd*bc0Csc03i30*", "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30", true),
            ("usb:v0B95p1790d*", "usb:v0B95p1790d0100dc00", true),
            ("cpu:type:x86,ven*fam*mod*:feature:*0099*", "cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0099,00A0", true),
            ("a[0-9]?c", "a5bc", true),
            ("a[!0-9]c", "a5c", false),
            ("a[]x]c", "a]c", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbx", false),
            ("[", "[", false),
            ("", "", true),
            ("*", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    /// A star in each place takes no longer than their product.
    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(20_000).as_bytes()));
    }

    #[test]
    fn the_list_is_read_and_names_are_those_of_modprobe() {
        let list = List::parse(
            "m nfsv3 /lib/modules/6.1/kernel/fs/nfs/nfsv3.ko nfs,sunrpc - -\nm nfs /n.ko - a,b c\na virtio:d00000001v* virtio_net\na fs_nfs nfs\nb overlay\nz later\n",
        );
        assert_eq!(list.modules["nfsv3"].needs, ["nfs", "sunrpc"]);
        assert_eq!((list.modules["nfs"].before.len(), list.modules["nfs"].after.len()), (2, 1));
        assert_eq!(list.for_alias("fs-nfs"), ["nfs"]);
        assert!(list.built_in.contains("overlay"));
        assert_eq!(underscored("of:N-x[a-z]-y"), "of:N_x[a-z]_y");
    }

    #[test]
    fn what_is_in_neither_is_said_by_name() {
        let list = List::parse("b overlay\n");
        let mut modules = Modules { list, line: CommandLine::default(), done: BTreeSet::new(), seen: BTreeSet::new() };
        modules.need("overlay").unwrap();
        let said = modules.need("squashfs").unwrap_err().to_string();
        assert!(said.starts_with("the module squashfs is neither in this initrd nor built into"), "{said}");
    }
}
