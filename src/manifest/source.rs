//! Files, directories and standard input, read whole: the only I/O of `manifest`.
//!
//! In a directory what counts is *.yaml and *.yml that is not hidden and not in `.embodyignore`. Links are followed where they lead into the
//! directory. Leaves out: waiting until nobody writes any more (`gitops`, by comparing surveys).
//! Invariants: no more than the limit is read of any file; what cannot be read is a diagnostic like any other, not the end; what is not a
//! regular file is never opened in a directory, and a file that is another one than was found there is not taken.

use std::collections::BTreeSet;
use std::fs::{FileType, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::ignore::Ignore;
use crate::limits;

/// One text and its name for people.
pub struct Source {
    pub name: String,
    pub content: Content,
    /// It was found in a directory: nobody named it, and it may be of another tool.
    pub found: bool,
}

pub enum Content {
    Text(String),
    Unreadable { why: String, hint: &'static str },
    TooLarge { bytes: usize },
}

impl Source {
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source::bytes(name.into(), text.into().into_bytes())
    }

    /// As if it had been found in a directory.
    pub fn found(self) -> Source {
        Source { found: true, ..self }
    }

    pub(crate) fn bytes(name: String, bytes: Vec<u8>) -> Source {
        if bytes.len() > limits::MANIFEST_BYTES {
            return Source { name, content: Content::TooLarge { bytes: bytes.len() }, found: false };
        }
        let content = match String::from_utf8(bytes) {
            Ok(text) => Content::Text(text),
            Err(_) => Content::Unreadable { why: "it is not UTF-8 text".to_owned(), hint: "save it as UTF-8" },
        };
        Source { name, content, found: false }
    }

    fn unreadable(name: String, why: impl ToString, hint: &'static str) -> Source {
        Source { name, content: Content::Unreadable { why: why.to_string(), hint }, found: false }
    }

    /// It is empty, or ends within a line: as does one that somebody has begun to write.
    pub(crate) fn may_go_on(&self) -> bool {
        matches!(&self.content, Content::Text(text) if !text.ends_with('\n'))
    }
}

/// What `-f` names: files, directories (their *.yaml and *.yml files in the order of their names; with `recursive` those below as well),
/// and `-` for standard input.
pub fn read<P: AsRef<Path>>(paths: &[P], recursive: bool) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        if path == Path::new("-") {
            sources.push(limited("standard input".to_owned(), std::io::stdin().lock()));
        } else if path.is_dir() {
            sources.extend(Survey::of(path, recursive).read());
        } else {
            sources.push(file(path));
        }
    }
    sources
}

fn file(path: &Path) -> Source {
    let name = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(open) => limited(name, open),
        Err(error) => Source::unreadable(name, error, "is the path right?"),
    }
}

fn limited(name: String, from: impl Read) -> Source {
    let mut bytes = Vec::new();
    match from.take(limits::MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) => Source::bytes(name, bytes),
        Err(error) => Source::unreadable(name, error, ""),
    }
}

// ---- directories -----------------------------------------------------------------------------------------------------------

/// Which files a directory holds, without what is in them. Two of one directory are equal where nothing has changed that counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Survey {
    directory: String,
    recursive: bool,
    files: Vec<Found>,
    /// What cannot be taken, why, and what to do.
    faults: Vec<(String, String, &'static str)>,
    /// Of `.embodyignore` files.
    ignores: Vec<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// For people.
    name: String,
    real: PathBuf,
    stamp: Stamp,
}

/// Tells that a file was written or replaced: device, inode, size, and the times of its content and of its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

const OUTSIDE: &str = "copy what it leads to into the directory, or name it by itself";

impl Survey {
    pub(crate) fn of(directory: &Path, recursive: bool) -> Survey {
        let mut survey = Survey { directory: directory.display().to_string(), recursive, ..Survey::default() };
        match directory.canonicalize() {
            Ok(root) => {
                let mut walk = Walk { root: root.clone(), seen: BTreeSet::from([root.clone()]), survey: &mut survey };
                walk.directory(&root, directory, &[], 0);
            }
            Err(error) => survey.fault(directory, &error, "is the path right?"),
        }
        survey
    }

    fn fault(&mut self, path: &Path, why: &dyn std::fmt::Display, hint: &'static str) {
        if self.faults.len() < limits::DIAGNOSTICS {
            self.faults.push((path.display().to_string(), why.to_string(), hint));
        }
    }

    /// One file that differs, for people.
    pub(crate) fn differs(&self, other: &Survey) -> Option<&str> {
        let known = |found: &&Found| !other.files.contains(found);
        self.files.iter().find(known).map(|found| found.name.as_str())
    }

    /// The files as they were found; those that are other ones by now are not readable.
    pub(crate) fn read(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = self.faults.iter().map(|(name, why, hint)| Source::unreadable(name.clone(), why, hint)).collect();
        let mut bytes = 0;
        for found in &self.files {
            bytes += found.stamp.size;
            if bytes > limits::MANIFESTS_BYTES {
                let why = format!("the files of the directory have more than {} MiB", limits::MANIFESTS_BYTES >> 20);
                sources.push(Source::unreadable(found.name.clone(), why, "split it into several directories"));
                break;
            }
            sources.push(found.read().found());
        }
        if sources.is_empty() {
            let hint = if self.recursive { "name a directory with manifests" } else { "-R looks into the directories below as well" };
            sources.push(Source::unreadable(self.directory.clone(), "the directory holds no *.yaml or *.yml file", hint));
        }
        sources
    }
}

impl Found {
    fn read(&self) -> Source {
        let same = |metadata: std::io::Result<Metadata>| metadata.is_ok_and(|m| m.is_file() && Stamp::of(&m) == self.stamp);
        // What took the file's place may be a FIFO: nothing is waited for.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let open = OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(&self.real);
        match open {
            Err(error) => Source::unreadable(self.name.clone(), error, "may it be read by this user?"),
            Ok(open) => {
                let source = limited(self.name.clone(), &open);
                if same(open.metadata()) {
                    source
                } else {
                    Source::unreadable(self.name.clone(), "it changes while it is read", "try again")
                }
            }
        }
    }
}

struct Walk<'a> {
    root: PathBuf,
    /// Files and directories that were met, by their real paths.
    seen: BTreeSet<PathBuf>,
    survey: &'a mut Survey,
}

/// What an `.embodyignore` says, and below how many names of the path it stands.
type Ignores = Vec<(Ignore, usize)>;

impl Walk<'_> {
    /// `real` is read, and shown as `shown`.
    fn directory(&mut self, real: &Path, shown: &Path, above: &[(Ignore, usize)], depth: usize) {
        if depth > limits::MANIFEST_DEPTH {
            return self.survey.fault(shown, &"the directories nest too deeply", "move the manifests up");
        }
        let mut ignores: Ignores = above.to_vec();
        ignores.extend(self.ignore(real, shown).map(|ignore| (ignore, shown.components().count())));
        let entries =
            std::fs::read_dir(real).and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect::<std::io::Result<BTreeSet<_>>>());
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.survey.fault(shown, &error, "is the path right?"),
        };
        for name in entries {
            // Hidden ones (.git, and a ConfigMap's ..data) are left out, but for what a link leads to.
            if !name.to_string_lossy().starts_with('.') {
                self.entry(&real.join(&name), &shown.join(&name), &ignores, depth);
            }
        }
    }

    fn ignore(&mut self, real: &Path, shown: &Path) -> Option<Ignore> {
        let path = real.join(".embodyignore");
        let metadata = std::fs::symlink_metadata(&path).ok()?;
        let found = Found { name: shown.join(".embodyignore").display().to_string(), real: path, stamp: Stamp::of(&metadata) };
        self.survey.ignores.push(found.stamp);
        match found.read().content {
            Content::Text(text) => Some(Ignore::parse(&text)),
            Content::Unreadable { why, hint } => {
                self.survey.fault(Path::new(&found.name), &why, hint);
                None
            }
            Content::TooLarge { .. } => {
                self.survey.fault(Path::new(&found.name), &"it is too large", "write fewer patterns");
                None
            }
        }
    }

    fn entry(&mut self, path: &Path, shown: &Path, ignores: &[(Ignore, usize)], depth: usize) {
        let is_manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return self.survey.fault(shown, &error, "try again"),
        };
        let (real, kind) = match metadata.file_type() {
            link if link.is_symlink() => match path.canonicalize().and_then(|real| real.metadata().map(|m| (real, m.file_type()))) {
                Ok(target) => target,
                Err(_) if !is_manifest || is_ignored(ignores, shown, false) => return,
                Err(error) => return self.survey.fault(shown, &format!("it is a link that leads nowhere: {error}"), OUTSIDE),
            },
            kind => (path.to_owned(), kind),
        };
        let counts = if kind.is_dir() { self.survey.recursive } else { is_manifest };
        if !counts || is_ignored(ignores, shown, kind.is_dir()) {
            return;
        }
        if !real.starts_with(&self.root) {
            return self.survey.fault(shown, &"it is a link that leads out of the directory", OUTSIDE);
        }
        // Once, however many links lead to it; so none leads in a circle.
        if !self.seen.insert(real.clone()) {
            return;
        }
        if kind.is_dir() {
            return self.directory(&real, shown, ignores, depth + 1);
        }
        if let Some(what) = special(kind) {
            let hint = "only regular files are read; say in .embodyignore what is none of embody's";
            return self.survey.fault(shown, &format!("it is {what}, and is not opened"), hint);
        }
        if self.survey.files.len() == limits::MANIFEST_FILES {
            return self.survey.fault(shown, &format!("the directory has more than {} files", limits::MANIFEST_FILES), "join some of them");
        }
        match real.metadata() {
            Ok(metadata) => self.survey.files.push(Found { name: shown.display().to_string(), real, stamp: Stamp::of(&metadata) }),
            Err(error) => self.survey.fault(shown, &error, "try again"),
        }
    }
}

/// The nearest file that says anything decides.
fn is_ignored(ignores: &[(Ignore, usize)], shown: &Path, is_directory: bool) -> bool {
    let says = |(ignore, above): &(Ignore, usize)| {
        let below: PathBuf = shown.components().skip(*above).collect();
        ignore.says(&below.to_string_lossy(), is_directory)
    };
    ignores.iter().rev().find_map(says).unwrap_or(false)
}

fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_fifo() => Some("a FIFO"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}
