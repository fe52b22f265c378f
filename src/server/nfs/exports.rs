//! What the server asks of whoever has the files: which tree is at a path, what is in it, and the bytes of a file.
//!
//! Leaves out: where trees come from and how they are stored. Invariant: a tree never changes. Its id stands for its content, and inodes and cookies
//! are a pure function of that, so that a handle or a cookie that was given once means the same after a restart and on another controller. Shown by
//! `tests/nfs/reads.rs`, `handles_survive_a_restart`.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// All but `mount` is called on a thread of the runtime, for every call: it answers from memory.
pub trait Exports: Send + Sync + 'static {
    /// What is mounted at a path by a peer; the path holds an unguessable token. May block.
    fn mount(&self, path: &[u8], peer: SocketAddr) -> Result<Arc<dyn Tree>, Refused>;
    /// The tree of a handle's id.
    fn tree(&self, id: &[u8; 16]) -> Found;
    /// Signs handles: the same on every controller of the site and after a restart. Nothing: it is not known yet, and clients wait.
    fn key(&self) -> Option<[u8; 32]>;
    /// For status and timelines. May be called from any thread, and returns at once.
    fn event(&self, event: Event);
}

/// A file system that does not change. All but `open` and `path` answers from memory, and does not block.
pub trait Tree: Send + Sync + 'static {
    fn id(&self) -> [u8; 16];
    /// The inode of `/`.
    fn root(&self) -> u32 {
        0
    }
    fn attributes(&self, inode: u32) -> Option<Attributes>;
    /// Neither `.` nor `..` is ever asked for.
    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32>;
    /// The root is its own parent.
    fn parent(&self, dir: u32) -> u32;
    /// Entries of a directory after a cookie, 0 being before the first one, in an order that is always the same: cookie, name, inode. Cookies are
    /// greater than 0 and less than 2^62. Neither `.` nor `..` is listed. Ends when `each` says false.
    fn list(&self, dir: u32, after: u64, each: &mut dyn FnMut(u64, &[u8], u32) -> bool);
    /// The text of a symbolic link as it is stored, relative or absolute.
    fn link(&self, inode: u32) -> Option<Vec<u8>>;
    /// May verify the whole file: called on a thread that may block, once while the file stays open. `WouldBlock`: not now, the client tries again.
    fn open(&self, inode: u32) -> io::Result<Arc<File>>;
    /// Bytes and files, for `df`.
    fn totals(&self) -> (u64, u64);

    /// A path of an inode, for the event that it cannot be served; asked on a thread that may block. As written here it is a walk.
    fn path(&self, inode: u32) -> Option<Vec<u8>> {
        let mut open = VecDeque::from([(self.root(), Vec::new())]);
        while let Some((dir, path)) = open.pop_front() {
            let mut found = None;
            self.list(dir, 0, &mut |_, name, entry| {
                let mut at = path.clone();
                at.push(b'/');
                at.extend_from_slice(name);
                if entry == inode {
                    found = Some(at);
                    return false;
                }
                if self.attributes(entry).is_some_and(|its| its.kind == Kind::Directory) {
                    open.push_back((entry, at));
                }
                true
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Whether a tree is here. That it never will be is not said: a system that is told so is lost, and one that waits goes on once it is.
pub enum Found {
    /// Whole.
    Here(Arc<dyn Tree>),
    /// It will be: the client is told to try again (NFS3ERR_JUKEBOX).
    Later,
}

/// Why nothing is mounted. The reason is for the log; the client is told one number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("nothing is exported there: {0}")]
    Unknown(String),
    #[error("this peer may not mount that: {0}")]
    Denied(String),
    #[error("not yet: {0}")]
    Later(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Mounted {
        peer: SocketAddr,
        tree: [u8; 16],
    },
    /// At most a few per second, since whoever reaches the port can ask; how many were left out before this one.
    Refused {
        peer: SocketAddr,
        because: Refused,
        left_out: u64,
    },
    /// A client was told that reading failed (NFS3ERR_IO). Told once while the failure is remembered (`Limits::failure_for`).
    Unreadable {
        tree: [u8; 16],
        inode: u32,
        path: Option<Vec<u8>>,
        error: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Block,
    Character,
    Fifo,
    Socket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub kind: Kind,
    /// The lower 12 bits of `st_mode`: set-uid, set-gid and sticky as they are.
    pub mode: u16,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Major and minor, of a device.
    pub device: (u32, u32),
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
}
