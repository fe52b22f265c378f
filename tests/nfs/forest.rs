//! Trees in memory whose contents lie in files, or a directory as it is; a tree may be missing, a file slow or broken.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::server::nfs::{Attributes, Event, Exports, Found, Kind, Refused, Tree};

pub struct Node {
    pub its: Attributes,
    parent: u32,
    names: BTreeMap<Vec<u8>, u32>,
    /// By name, so that a cookie is a place in it.
    order: Vec<(Vec<u8>, u32)>,
    content: Option<PathBuf>,
    link: Option<Vec<u8>>,
}

pub fn its(kind: Kind, mode: u16) -> Attributes {
    Attributes { kind, mode, links: 1, uid: 0, gid: 0, size: 0, device: (0, 0), mtime: (1_700_000_000, 123_456_789) }
}

pub struct Planted {
    id: [u8; 16],
    nodes: Vec<Node>,
    /// What `open` says of an inode.
    pub broken: Mutex<BTreeMap<u32, io::ErrorKind>>,
    pub slow: Mutex<BTreeMap<u32, Duration>>,
    pub opened: AtomicUsize,
    /// At a time, and at most.
    opening: AtomicUsize,
    pub most_opening: AtomicUsize,
}

impl Planted {
    pub fn new(id: u8) -> Planted {
        let root =
            Node { its: its(Kind::Directory, 0o755), parent: 0, names: BTreeMap::new(), order: Vec::new(), content: None, link: None };
        Planted {
            id: [id; 16],
            nodes: vec![root],
            broken: Mutex::default(),
            slow: Mutex::default(),
            opened: AtomicUsize::new(0),
            opening: AtomicUsize::new(0),
            most_opening: AtomicUsize::new(0),
        }
    }

    /// A directory as it is, hard links included.
    pub fn of(id: u8, dir: &Path) -> Planted {
        let mut tree = Planted::new(id);
        tree.nodes[0].its = of_metadata(&fs::symlink_metadata(dir).unwrap());
        tree.walk(0, dir, &mut BTreeMap::new());
        tree
    }

    fn walk(&mut self, at: u32, dir: &Path, seen: &mut BTreeMap<u64, u32>) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let metadata = entry.metadata().unwrap();
            let name = entry.file_name().as_bytes().to_vec();
            if !metadata.is_dir()
                && let Some(inode) = seen.get(&metadata.ino())
            {
                self.enter(at, name, *inode);
                continue;
            }
            let inode = self.add(at, &name, of_metadata(&metadata));
            seen.insert(metadata.ino(), inode);
            if metadata.is_dir() {
                self.walk(inode, &entry.path(), seen);
            } else if metadata.is_symlink() {
                self.nodes[inode as usize].link = Some(fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec());
            } else {
                self.nodes[inode as usize].content = Some(entry.path());
            }
        }
    }

    fn enter(&mut self, dir: u32, name: Vec<u8>, inode: u32) {
        let dir = &mut self.nodes[dir as usize];
        dir.names.insert(name.clone(), inode);
        let at = dir.order.partition_point(|(before, _)| *before < name);
        dir.order.insert(at, (name, inode));
    }

    pub fn add(&mut self, dir: u32, name: &[u8], its: Attributes) -> u32 {
        let inode = self.nodes.len() as u32;
        self.nodes.push(Node { its, parent: dir, names: BTreeMap::new(), order: Vec::new(), content: None, link: None });
        self.enter(dir, name.to_vec(), inode);
        inode
    }

    pub fn dir(&mut self, dir: u32, name: &str) -> u32 {
        self.add(dir, name.as_bytes(), its(Kind::Directory, 0o755))
    }

    pub fn link(&mut self, dir: u32, name: &str, to: &str) -> u32 {
        let inode = self.add(dir, name.as_bytes(), Attributes { size: to.len() as u64, ..its(Kind::Symlink, 0o777) });
        self.nodes[inode as usize].link = Some(to.as_bytes().to_vec());
        inode
    }

    /// The size is that of the content now.
    pub fn file(&mut self, dir: u32, name: &str, mode: u16, owner: u32, content: &Path) -> u32 {
        let size = fs::metadata(content).unwrap().len();
        let attributes = Attributes { size, uid: owner, gid: owner, ..its(Kind::File, mode) };
        let inode = self.add(dir, name.as_bytes(), attributes);
        self.nodes[inode as usize].content = Some(content.to_owned());
        inode
    }
}

fn of_metadata(of: &fs::Metadata) -> Attributes {
    let its = of.file_type();
    let kind = match () {
        () if its.is_dir() => Kind::Directory,
        () if its.is_symlink() => Kind::Symlink,
        () if its.is_block_device() => Kind::Block,
        () if its.is_char_device() => Kind::Character,
        () if its.is_fifo() => Kind::Fifo,
        () if its.is_socket() => Kind::Socket,
        () => Kind::File,
    };
    let device = of.rdev();
    Attributes {
        kind,
        mode: (of.mode() & 0o7777) as u16,
        links: of.nlink() as u32,
        uid: of.uid(),
        gid: of.gid(),
        size: of.size(),
        device: (rustix::fs::major(device), rustix::fs::minor(device)),
        mtime: (of.mtime(), of.mtime_nsec() as u32),
    }
}

impl Tree for Planted {
    fn id(&self) -> [u8; 16] {
        self.id
    }

    fn attributes(&self, inode: u32) -> Option<Attributes> {
        self.nodes.get(inode as usize).map(|node| node.its)
    }

    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.nodes[dir as usize].names.get(name).copied()
    }

    fn parent(&self, dir: u32) -> u32 {
        self.nodes[dir as usize].parent
    }

    fn list(&self, dir: u32, after: u64, each: &mut dyn FnMut(u64, &[u8], u32) -> bool) {
        let order = &self.nodes[dir as usize].order;
        let after = usize::try_from(after).unwrap_or(usize::MAX).min(order.len());
        for (at, (name, inode)) in order.iter().enumerate().skip(after) {
            if !each(at as u64 + 1, name, *inode) {
                return;
            }
        }
    }

    fn link(&self, inode: u32) -> Option<Vec<u8>> {
        self.nodes[inode as usize].link.clone()
    }

    #[allow(clippy::disallowed_methods, reason = "this is called on a thread that may block")]
    fn open(&self, inode: u32) -> io::Result<Arc<File>> {
        let now = self.opening.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_opening.fetch_max(now, Ordering::SeqCst);
        self.opened.fetch_add(1, Ordering::SeqCst);
        let slow = self.slow.lock().unwrap().get(&inode).copied();
        if let Some(slow) = slow {
            std::thread::sleep(slow);
        }
        self.opening.fetch_sub(1, Ordering::SeqCst);
        if let Some(kind) = self.broken.lock().unwrap().get(&inode) {
            return Err((*kind).into());
        }
        let content = self.nodes[inode as usize].content.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(File::open(content)?))
    }

    fn totals(&self) -> (u64, u64) {
        (self.nodes.iter().map(|node| node.its.size).sum(), self.nodes.len() as u64)
    }
}

#[derive(Default)]
pub struct Forest {
    pub trees: Mutex<BTreeMap<[u8; 16], Arc<Planted>>>,
    pub paths: Mutex<BTreeMap<Vec<u8>, [u8; 16]>>,
    pub key: Mutex<Option<[u8; 32]>>,
    pub events: Mutex<Vec<Event>>,
}

pub const TOKEN: &str = "/p/7f3a9c";

impl Forest {
    pub fn of(tree: Planted) -> Forest {
        let forest = Forest { key: Mutex::new(Some([9; 32])), ..Forest::default() };
        forest.plant(TOKEN, tree);
        forest
    }

    pub fn plant(&self, path: &str, tree: Planted) -> Arc<Planted> {
        let tree = Arc::new(tree);
        self.paths.lock().unwrap().insert(path.as_bytes().to_vec(), tree.id);
        self.trees.lock().unwrap().insert(tree.id, Arc::clone(&tree));
        tree
    }

    pub fn the_tree(&self) -> Arc<Planted> {
        Arc::clone(self.trees.lock().unwrap().values().next().unwrap())
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl Exports for Forest {
    fn mount(&self, path: &[u8], _peer: SocketAddr) -> Result<Arc<dyn Tree>, Refused> {
        let id = self.paths.lock().unwrap().get(path).copied();
        let id = id.ok_or_else(|| Refused::Unknown("no such token".to_owned()))?;
        let tree = self.trees.lock().unwrap().get(&id).cloned();
        let tree = tree.ok_or_else(|| Refused::Denied("its tree is gone".to_owned()))?;
        Ok(tree)
    }

    fn tree(&self, id: &[u8; 16]) -> Found {
        match self.trees.lock().unwrap().get(id) {
            Some(tree) => Found::Here(Arc::<Planted>::clone(tree)),
            None => Found::Later,
        }
    }

    fn key(&self) -> Option<[u8; 32]> {
        *self.key.lock().unwrap()
    }

    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}
