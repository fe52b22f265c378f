//! What an NFS client sends: all octets of one connection, against a small tree.
//!
//! The key and the tree are always the same, so that handles in an input are good. What is answered is whole records, none of them larger than a reply
//! may be, each to a call that was made; and what is read of a file is what it has. Twice the same input, twice the same answers, in whatever order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::hold;
use crate::server::nfs::connection::{Client, converse};
use crate::server::nfs::record::Records;
use crate::server::nfs::rpc::{self, Incoming, LAST_FRAGMENT};
use crate::server::nfs::server::Server;
use crate::server::nfs::share::Crowd;
use crate::server::nfs::{Attributes, Event, Exports, Found, Kind, Limits, READ_BYTES, Refused, Tree};

const KEY: [u8; 32] = *b"the key of the handles to fuzz..";
const ID: [u8; 16] = *b"the tree to fuzz";
const PATH: &[u8] = b"/image/server/nonce-signature";
const PORT: u16 = 2049;
/// Around the octets of a READ: the head of the reply, attributes, counts, padding.
const AROUND: usize = 200;
/// RFC 1813: the program, and READ.
const NFS: u32 = 100_003;
const READ: u32 = 6;
/// Where a reply to READ says how many octets it has: behind its head, the status, and attributes of 84 octets that are there.
const COUNT: usize = 24 + 4 + 4 + 84;

struct Node {
    name: &'static str,
    kind: Kind,
    mode: u16,
    owner: u32,
    text: &'static str,
}

const fn node(name: &'static str, kind: Kind, mode: u16, owner: u32, text: &'static str) -> Node {
    Node { name, kind, mode, owner, text }
}

/// By inode. The directory `d` has more entries than a short listing holds, and `broken` is shorter than the tree says.
static NODES: [Node; 7] = [
    node("", Kind::Directory, 0o755, 0, ""),
    node("file", Kind::File, 0o644, 0, "what is read of a file is what it has, from wherever on"),
    node("secret", Kind::File, 0o600, 33, "for its owner"),
    node("link", Kind::Symlink, 0o777, 0, "../d/file"),
    node("null", Kind::Character, 0o666, 0, ""),
    node("broken", Kind::File, 0o644, 0, ""),
    node("d", Kind::Directory, 0o1777, 0, ""),
];
const DIRECTORY: u32 = 6;
const BROKEN: u32 = 5;
const ENTRIES: u32 = 50;

struct Small;

fn at(inode: u32) -> Option<&'static Node> {
    usize::try_from(inode).ok().and_then(|at| NODES.get(at))
}

impl Tree for Small {
    fn id(&self) -> [u8; 16] {
        ID
    }

    fn attributes(&self, inode: u32) -> Option<Attributes> {
        let Node { kind, mode, owner, text, .. } = *at(inode)?;
        let size = if inode == BROKEN { 10 } else { text.len() as u64 };
        Some(Attributes { kind, mode, links: 1, uid: owner, gid: owner, size, device: (1, 3), mtime: (-1, 7) })
    }

    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let mut found = None;
        self.list(dir, 0, &mut |_, listed, inode| {
            found = (listed == name).then_some(inode);
            found.is_none()
        });
        found
    }

    fn parent(&self, _dir: u32) -> u32 {
        0
    }

    fn list(&self, dir: u32, after: u64, each: &mut dyn FnMut(u64, &[u8], u32) -> bool) {
        let names: Vec<(String, u32)> = match dir {
            0 => (1..).map_while(|inode| Some((at(inode)?.name.to_owned(), inode))).collect(),
            DIRECTORY => (0..ENTRIES).map(|number| (format!("entry-{number}"), 1)).collect(),
            _ => Vec::new(),
        };
        let all = (1..).zip(&names).filter(|(cookie, _)| *cookie > after);
        all.take_while(|(cookie, (name, inode))| each(*cookie, name.as_bytes(), *inode)).for_each(drop);
    }

    fn link(&self, inode: u32) -> Option<Vec<u8>> {
        at(inode).map(|node| node.text.as_bytes().to_vec())
    }

    fn open(&self, inode: u32) -> io::Result<Arc<File>> {
        let text = at(inode).ok_or(io::ErrorKind::NotFound)?.text;
        let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        Ok(Arc::new(file))
    }

    fn totals(&self) -> (u64, u64) {
        (1, 2)
    }
}

struct One;

impl Exports for One {
    fn mount(&self, path: &[u8], _peer: SocketAddr) -> Result<Arc<dyn Tree>, Refused> {
        if path == PATH { Ok(Arc::new(Small)) } else { Err(Refused::Unknown("another path".to_owned())) }
    }

    fn tree(&self, id: &[u8; 16]) -> Found {
        if *id == ID { Found::Here(Arc::new(Small)) } else { Found::Later }
    }

    fn key(&self) -> Option<[u8; 32]> {
        Some(KEY)
    }

    fn event(&self, _event: Event) {}
}

/// The octets of a connection.
pub fn nfs(bytes: &[u8]) -> Result<(), String> {
    let runtime = Builder::new_current_thread().enable_time().build().map_err(|why| why.to_string())?;
    let limits = Limits::default().usable();
    let calls = runtime.block_on(calls(bytes, &limits));
    let mut all = Vec::new();
    for _ in 0..2 {
        let mut answers = records(&runtime.block_on(said_to(bytes, &limits))?)?;
        answers.iter().try_for_each(|answer| fits(answer, &calls))?;
        let asked: usize = calls.values().map(Vec::len).sum();
        hold(answers.len() <= asked, || format!("{} answers to {asked} calls", answers.len()))?;
        answers.sort_unstable();
        all.push(answers);
    }
    hold(all.windows(2).all(|two| two.first() == two.last()), || format!("other answers the second time: {all:02x?}"))
}

/// What is sent back.
async fn said_to(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, String> {
    let (address, ours) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 700)), SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let seat = Crowd::of(limits).seat(address.ip()).ok_or("there is no seat for the first of all")?;
    let server = Arc::new(Server::of(Arc::new(One), limits.clone(), Arc::default(), PORT));
    let client = Client { server, seat, address, ours };
    let (_never, mut stop) = watch::channel(false);
    let mut written = Vec::new();
    let _ended = converse(bytes, &mut written, &client, &mut stop).await;
    Ok(written)
}

/// The calls of an input by their ids.
async fn calls(bytes: &[u8], limits: &Limits) -> BTreeMap<u32, Vec<Vec<u8>>> {
    let mut found: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    let mut records = Records::of(bytes, limits);
    while let Ok(record) = records.next().await {
        if let Some(id) = record.first_chunk() {
            found.entry(u32::from_be_bytes(*id)).or_default().push(record.to_vec());
        }
    }
    found
}

/// Whole ones, each of one fragment.
fn records(mut rest: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    while let Some((mark, behind)) = rest.split_first_chunk() {
        let mark = u32::from_be_bytes(*mark);
        let length = (mark & !LAST_FRAGMENT) as usize;
        let whole = mark & LAST_FRAGMENT != 0 && length.is_multiple_of(4) && length <= READ_BYTES as usize + AROUND;
        hold(whole && length <= behind.len(), || format!("a record of {length} octets, where {} are left", behind.len()))?;
        let (record, next) = behind.split_at(length);
        found.push(record.to_vec());
        rest = next;
    }
    hold(rest.is_empty(), || format!("{} octets behind the last record", rest.len()))?;
    Ok(found)
}

/// A word of a reply.
fn word(of: &[u8], at: usize) -> Option<u32> {
    of.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn fits(answer: &[u8], calls: &BTreeMap<u32, Vec<Vec<u8>>>) -> Result<(), String> {
    let asked = word(answer, 0).and_then(|id| calls.get(&id)).ok_or_else(|| format!("{answer:02x?} to nothing that was asked"))?;
    hold(word(answer, 4) == Some(1), || format!("{answer:02x?} is no reply"))?;
    let [only] = asked.as_slice() else { return Ok(()) };
    let Incoming::Call(mut call) = rpc::read(only) else { return Ok(()) };
    if (call.program, call.version, call.procedure) != (NFS, 3, READ) {
        return Ok(());
    }
    // RFC 1813, section 3.3.6: accepted, and NFS3_OK; then attributes, how many, whether that was the end, and the octets.
    let is_read = [8, 12, 16, 20, 24].iter().all(|at| word(answer, *at) == Some(0));
    let (Ok(handle), Ok(offset), Ok(count)) = (call.arguments.opaque(64), call.arguments.u64(), call.arguments.u32()) else {
        return hold(!is_read, || "a READ that does not read is answered".to_owned());
    };
    if !is_read {
        return Ok(());
    }
    let text = word(handle, ID.len()).and_then(at).ok_or_else(|| format!("octets are read of {handle:02x?}"))?.text.as_bytes();
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let expected = text.get(from..from.saturating_add(count as usize).min(text.len())).unwrap_or_default();
    let told = word(answer, COUNT).map(|told| told as usize);
    let octets = answer.get(COUNT + 12..).and_then(|rest| rest.get(..expected.len()));
    hold(told == Some(expected.len()) && octets == Some(expected), || format!("{answer:02x?} is read, where {expected:02x?} is"))
}
