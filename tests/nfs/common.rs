//! What the tests of the NFS server share: the server itself, octets to serve, and the memory that some of them measure.
//!
//! Leaves out: any code of the server, so that an error of that cannot hide in this.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embody::testing::server::nfs::{Exports, Limits, Stats, serve};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};
use tokio::task::JoinHandle;

use super::forest::Forest;

/// The memory of this process: whoever measures it has it alone.
static MEMORY: RwLock<()> = RwLock::const_new(());

pub enum Memory {
    Shared(#[allow(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// For a server, or while something large is made. A test has one of these at a time: for a second one it might wait for itself.
pub async fn shared() -> Memory {
    Memory::Shared(MEMORY.read().await)
}

pub async fn alone() -> Memory {
    Memory::Alone(MEMORY.write().await)
}

pub struct Running {
    pub at: SocketAddr,
    pub second: SocketAddr,
    pub stats: Arc<Stats>,
    pub forest: Arc<Forest>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _memory: Memory,
}

impl Running {
    pub async fn with(forest: Arc<Forest>, limits: Limits) -> Running {
        Running::within(shared().await, forest, limits).await
    }

    pub async fn within(memory: Memory, forest: Arc<Forest>, limits: Limits) -> Running {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, other) = (first.local_addr().unwrap(), second.local_addr().unwrap());
        let (stop, told) = watch::channel(false);
        let stats = Arc::<Stats>::default();
        let exports: Arc<dyn Exports> = Arc::<Forest>::clone(&forest);
        let task = tokio::spawn(serve(vec![first, second], exports, limits, Arc::clone(&stats), told));
        Running { at, second: other, stats, forest, stop, task, _memory: memory }
    }

    pub async fn of(forest: Forest) -> Running {
        Running::with(Arc::new(forest), Limits::default()).await
    }

    pub async fn end(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

/// A program of another peer, or a word that it is not there.
pub fn tool(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"];
    let found = folders.map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists());
    if found.is_none() {
        missing(&format!("{name} is not installed"));
    }
    found
}

pub fn missing(what: &str) {
    assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{what}");
    eprintln!("SKIP: {what}");
}

/// Memory of this process, in octets (proc(5), VmRSS).
pub fn resident() -> usize {
    resident_of("self")
}

pub fn resident_of(process: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

pub fn content(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Octets that differ everywhere.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(bytes).collect()
}
