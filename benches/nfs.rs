//! How fast a large file is read over NFS, from the page cache over loopback: from embody, and from nfs-ganesha in the same run.
//!
//! NFSv3: by libnfs (`nfs-cat`) in one and four streams, by one connection with many READs at a time, as Linux has them, and by 64 clients at once; of ganesha NFSv4 by libnfs
//! as well. Beside it the memory and processor time of the server, which is a process of its own. Ganesha runs in a network namespace, since it must
//! tell an rpcbind of itself: that needs root, `nfs-ganesha-vfs` and `rpcbind`, and is left out without.

#[path = "../tests/nfs/client.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod client;
#[path = "../tests/nfs/common.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod common;
#[path = "../tests/nfs/forest.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod forest;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, NFS, reading};
use common::{resident_of, tool};
use embody::testing::server::nfs::Limits;
use forest::{Forest, Planted, TOKEN};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// This program, started once more: as the server, and as the client in ganesha's namespace.
const SERVED: &str = "EMBODY_NFS_SERVED";
const LISTENS: &str = "EMBODY_NFS_LISTENS";
const GANESHA: &str = "EMBODY_NFS_GANESHA";
const BYTES: u64 = 1 << 30;
/// Machines that boot together.
const CLIENTS: u64 = 64;
/// READs at a time, and KiB of each.
const PIPES: [(usize, u32); 5] = [(32, 64), (16, 128), (16, 256), (1, 1024), (8, 1024)];

const GANESHA_CONF: &str = "\
    NFS_CORE_PARAM { NFS_Port = 12049; MNT_Port = 12050; Protocols = 3, 4; Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = true; }\n\
    NFSV4 { Graceless = true; RecoveryBackend = fs; }\n\
    EXPORT { Export_Id = 1; Path = DIR; Pseudo = /b; Access_Type = RO; Squash = No_root_squash; SecType = sys, none;\n\
             Protocols = 3, 4; Transports = TCP; FSAL { Name = VFS; } }\n\
    LOG { Default_Log_Level = EVENT; }\n";
/// In a network namespace: the directory of its files, this program.
const GANESHA_RUN: &str = "\
    ip link set lo up\n\
    rpcbind -f & rpcbind=$!\n\
    sleep 1\n\
    ganesha.nfsd -F -f \"$1/conf\" -L \"$1/log\" -p \"$1/pid\" & ganesha=$!\n\
    trap 'kill -9 $ganesha $rpcbind' EXIT\n\
    EMBODY_NFS_GANESHA=$ganesha \"$2\"\n";

/// A server that is measured.
struct Server {
    name: &'static str,
    /// Of libnfs, by protocol.
    urls: Vec<(&'static str, String)>,
    mount: SocketAddr,
    path: &'static str,
    nfs: SocketAddr,
    pid: String,
}

fn folder() -> PathBuf {
    env::temp_dir().join("embody-nfs-bench")
}

fn file() -> PathBuf {
    fs::create_dir_all(folder()).unwrap();
    let path = folder().join("big");
    if !fs::metadata(&path).is_ok_and(|there| there.len() == BYTES) {
        let mut random = File::open("/dev/urandom").unwrap().take(BYTES);
        std::io::copy(&mut random, &mut File::create(&path).unwrap()).unwrap();
    }
    // Into the page cache.
    std::io::copy(&mut File::open(&path).unwrap(), &mut std::io::sink()).unwrap();
    path
}

/// User and system time of a process, in seconds (proc(5), fields 14 and 15, in ticks of 10 ms).
fn processor(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

impl Server {
    async fn measured(&self, protocol: &str, what: &str, bytes: u64, run: impl Future<Output = ()>) {
        let (began, before) = (Instant::now(), processor(&self.pid));
        run.await;
        let (took, used) = (began.elapsed().as_secs_f64(), (processor(&self.pid) - before) * (1 << 30) as f64 / bytes as f64);
        let (rate, memory) = (bytes as f64 / took / 1e6, resident_of(&self.pid) >> 20);
        println!("{:<8} {protocol:<6} {what:<45} {rate:>6.0} MB/s   server: {used:.2} s of CPU per GiB, RSS {memory} MiB", self.name);
        std::io::stdout().flush().unwrap();
    }

    async fn all(&self) {
        for (protocol, url) in &self.urls {
            for streams in [1, 4] {
                self.measured(protocol, &format!("libnfs, {streams} streams"), BYTES * streams as u64, cat(url, streams)).await;
            }
        }
        for (window, kib) in PIPES {
            let what = format!("one connection, {window} READs of {kib} KiB at a time");
            self.measured("NFSv3", &what, BYTES, self.piped([127, 0, 0, 1], 0..BYTES, kib << 10, window)).await;
        }
        let (each, began) = (BYTES / CLIENTS, Instant::now());
        let mut took = Vec::new();
        let all = async {
            let one = |n: u64| {
                let reads = self.piped([127, 0, 1, u8::try_from(n).unwrap()], n * each..(n + 1) * each, 128 << 10, 8);
                tokio::spawn(async move {
                    reads.await;
                    began.elapsed().as_secs_f64()
                })
            };
            for client in (0..CLIENTS).map(one).collect::<Vec<_>>() {
                took.push(client.await.unwrap());
            }
        };
        self.measured("NFSv3", &format!("{CLIENTS} clients at once, each 8 READs of 128 KiB"), BYTES, all).await;
        took.sort_by(f64::total_cmp);
        let (first, last) = (took[0], took[took.len() - 1]);
        println!("{:<8} the first of them had its {} MiB after {first:.2} s, the last after {last:.2} s", self.name, each >> 20);
    }

    /// A part of the file, with so many READs at a time.
    fn piped(&self, own: [u8; 4], part: Range<u64>, count: u32, window: usize) -> impl Future<Output = ()> + Send + use<> {
        let Server { mount, path, nfs, .. } = *self;
        piped((mount, path, nfs), own, part, count, window)
    }
}

async fn piped((mount, path, nfs): (SocketAddr, &'static str, SocketAddr), own: [u8; 4], part: Range<u64>, count: u32, window: usize) {
    let root = Client::from(own, mount).await.unwrap().mount(path).await.unwrap();
    let mut client = Client::from(own, nfs).await.unwrap();
    let (file, _) = client.lookup(&root, b"big").await.unwrap();
    let mut next = part.step_by(count as usize);
    let (mut open, mut reply) = (BTreeMap::new(), Vec::new());
    loop {
        while open.len() < window
            && let Some(offset) = next.next()
        {
            open.insert(client.send([NFS, 3, 6], &reading(&file, offset, count)).await, offset);
        }
        if open.is_empty() {
            return;
        }
        // Into the same buffer each time: the client is not what is measured. The last four octets before the bytes are their number.
        let length = (client.stream.read_u32().await.unwrap() & !(1 << 31)) as usize;
        reply.resize(length, 0);
        client.stream.read_exact(&mut reply).await.unwrap();
        let (xid, bytes) = (word(&reply, 0), word(&reply, length - count as usize - 4));
        open.remove(&xid).unwrap();
        assert_eq!(bytes, count);
    }
}

async fn cat(url: &str, streams: usize) {
    let Some(program) = tool("nfs-cat") else { return };
    let children: Vec<Child> = (0..streams).map(|_| Command::new(&program).arg(url).stdout(Stdio::null()).spawn().unwrap()).collect();
    for mut child in children {
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(status.success());
    }
}

fn word(of: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(of[at..at + 4].try_into().unwrap())
}

async fn serve(path: &Path, at: &str) {
    let listener = TcpListener::bind(at).await.unwrap();
    let mut tree = Planted::new(1);
    tree.file(0, "big", 0o644, 0, path);
    let (_stop, told) = tokio::sync::watch::channel(false);
    embody::testing::server::nfs::serve(vec![listener], Arc::new(Forest::of(tree)), Limits::default(), Arc::default(), told).await;
}

async fn answers(at: SocketAddr) {
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(at).await.is_err() {
        assert!(Instant::now() < until, "nobody listens at {at}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// In its namespace.
async fn ganesha(pid: String) {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    answers(at(12_049)).await;
    // It listens before it has told rpcbind and ended its grace.
    sleep(Duration::from_secs(5)).await;
    let urls = vec![("NFSv3", "nfs://127.0.0.1/b/big".to_owned()), ("NFSv4", "nfs://127.0.0.1/b/big?version=4&nfsport=12049".to_owned())];
    Server { name: "ganesha", urls, mount: at(12_050), path: "/b", nfs: at(12_049), pid }.all().await;
}

fn beside() {
    if !rustix::process::geteuid().is_root()
        || ["ganesha.nfsd", "rpcbind", "unshare", "ip"].into_iter().any(|program| tool(program).is_none())
    {
        println!("nfs-ganesha is left out: it needs root, nfs-ganesha-vfs and rpcbind");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("conf"), GANESHA_CONF.replace("DIR", &folder().to_string_lossy())).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-euc", GANESHA_RUN, "sh"]).arg(dir.path()).arg(env::current_exe().unwrap());
    assert!(command.status().unwrap().success(), "{}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
}

#[tokio::main]
async fn main() {
    if let (Some(path), Ok(at)) = (env::var_os(SERVED), env::var(LISTENS)) {
        return serve(Path::new(&path), &at).await;
    }
    if let Ok(pid) = env::var(GANESHA) {
        return ganesha(pid).await;
    }
    let path = file();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let mut process = Command::new(env::current_exe().unwrap()).env(SERVED, &path).env(LISTENS, at.to_string()).spawn().unwrap();
    answers(at).await;
    let urls = vec![("NFSv3", format!("nfs://127.0.0.1{TOKEN}/big?nfsport={port}&mountport={port}"))];
    Server { name: "embody", urls, mount: at, path: TOKEN, nfs: at, pid: process.id().to_string() }.all().await;
    process.kill().unwrap();
    process.wait().unwrap();
    beside();
    fs::remove_dir_all(folder()).unwrap();
}
