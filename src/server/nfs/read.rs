//! READ (RFC 1813, section 3.3.6): from the page cache at once, from the disk on a thread that may wait.
//!
//! The octets are read to where they are sent from. Leaves out: opening (`files`). Invariant: a reply is what the tree says that the file has, to its
//! full length, or an error; a file that has become shorter is an error. Shown by `tests/nfs/reads.rs`.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::ReadWriteFlags;

use crate::server::nfs::attributes::{POST_OP_BYTES, Status};
use crate::server::nfs::buffers::{Buffer, Buffers};
use crate::server::nfs::connection::{Outcome, Sendable};
use crate::server::nfs::exports::Kind;
use crate::server::nfs::files::Without;
use crate::server::nfs::limits::READ_BYTES;
use crate::server::nfs::procedures::{Asked, HANDLE_MAX, Place};
use crate::server::nfs::rpc;
use crate::server::nfs::server::Server;
use crate::server::nfs::share::{Peer, of_both};
use crate::server::nfs::xdr::{Garbled, Reader, Writer, padding};

/// Octets before those of the file: the head of the reply, status, attributes, count, end of file, length.
pub(crate) const HEAD_BYTES: usize = rpc::HEAD_BYTES + 4 + POST_OP_BYTES + 12;

/// What is to be read, once all that was asked is known to be in order.
struct Reading {
    server: Arc<Server>,
    peer: Arc<Peer>,
    xid: u32,
    place: Place,
    offset: u64,
    count: usize,
}

pub(crate) fn answer(asked: &Asked, xid: u32, mut args: Reader) -> Outcome {
    let Ok((handle, offset, count)) = arguments(&mut args) else { return Outcome::Now(rpc::garbage(xid)) };
    let mut out = rpc::success(xid);
    let place = match asked.locate(handle) {
        Ok(place) => place,
        Err(status) => {
            out.status(status).nothing(1);
            return Outcome::Now(out);
        }
    };
    let refusal = match place.its.kind {
        Kind::File if asked.caller.may_read(&place.its) => None,
        Kind::File => Some(Status::Access),
        Kind::Directory => Some(Status::IsDirectory),
        _ => Some(Status::Invalid),
    };
    if let Some(status) = refusal {
        out.status(status).post_op(place.identity, &place.its);
        return Outcome::Now(out);
    }
    let there = place.its.size.saturating_sub(offset).min(u64::from(count.min(READ_BYTES)));
    let count = usize::try_from(there).unwrap_or(0);
    let server = Arc::clone(&asked.client.server);
    let reading = Reading { server, peer: Arc::clone(&asked.client.seat.guest.peer), xid, place, offset, count };
    if count == 0 {
        return Outcome::Now(reading.head());
    }
    Outcome::Later(Box::pin(reading.perform()))
}

fn arguments<'a>(args: &mut Reader<'a>) -> Result<(&'a [u8], u64, u32), Garbled> {
    Ok((args.opaque(HANDLE_MAX)?, args.u64()?, args.u32()?))
}

impl Reading {
    /// All before the octets.
    fn head(&self) -> Writer {
        let mut head = rpc::success(self.xid);
        let length = u32::try_from(self.count).unwrap_or(0);
        let end = self.offset.saturating_add(u64::from(length));
        head.status(Status::Ok).post_op(self.place.identity, &self.place.its);
        head.u32(length).bool(end >= self.place.its.size).u32(length);
        head
    }

    fn failed(&self, status: Status) -> Sendable {
        let mut out = rpc::success(self.xid);
        out.status(status).post_op(self.place.identity, &self.place.its);
        Sendable { buffer: Buffer::of(out), held: None }
    }

    async fn perform(self) -> Option<Sendable> {
        let server = Arc::clone(&self.server);
        let file = match server.files.get(&self.peer, &self.place.tree, self.place.inode()).await {
            Ok(file) => file,
            Err(Without::Failed) => return Some(self.failed(Status::Io)),
            Err(Without::NotYet) => return Some(self.failed(Status::Jukebox)),
        };
        let bytes = HEAD_BYTES + self.count + padding(self.count);
        let held = server.memory.hold(&self.peer, Buffers::cost(bytes)).await?;
        let mut buffer = server.buffers.take(bytes);
        let got = from_cache(&file, self.part(&mut buffer), self.offset);
        if got < self.count {
            server.stats.disk_reads.add(1);
            let _turn = of_both(&self.peer.disk, &server.disk, 1).await?;
            let (tree, inode, files) = (Arc::clone(&self.place.tree), self.place.inode(), Arc::clone(&server.files));
            let (count, at) = (self.count, self.offset.saturating_add(got as u64));
            let read = tokio::task::spawn_blocking(move || {
                let rest = buffer.bytes_mut().get_mut(HEAD_BYTES + got..HEAD_BYTES + count)?;
                match file.read_exact_at(rest, at) {
                    Ok(()) => Some(buffer),
                    Err(error) => {
                        files.cannot_read(&*tree, inode, &error);
                        None
                    }
                }
            });
            let Ok(Some(filled)) = read.await else { return Some(self.failed(Status::Io)) };
            buffer = filled;
        }
        server.stats.reads.add(1);
        server.stats.bytes.add(self.count as u64);
        self.finish(&mut buffer);
        Some(Sendable { buffer, held: Some(held) })
    }

    /// Where the octets of the file go.
    fn part<'a>(&self, buffer: &'a mut Buffer) -> &'a mut [u8] {
        buffer.bytes_mut().get_mut(HEAD_BYTES..HEAD_BYTES + self.count).unwrap_or_default()
    }

    /// Writes what stands before and after them.
    fn finish(&self, buffer: &mut Buffer) {
        let head = self.head().into_bytes();
        let all = buffer.bytes_mut();
        let mark = rpc::mark(all.len());
        all.iter_mut().zip(&head).for_each(|(to, from)| *to = *from);
        all.iter_mut().zip(mark).for_each(|(to, from)| *to = from);
        all.iter_mut().skip(HEAD_BYTES + self.count).for_each(|to| *to = 0);
    }
}

/// What can be had without waiting for a disk; less where the file system cannot tell.
fn from_cache(file: &File, into: &mut [u8], offset: u64) -> usize {
    rustix::io::preadv2(file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
}
