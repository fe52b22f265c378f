//! NFS version 3 (RFC 1813): its 22 procedures on a file system that does not change.
//!
//! What changes something is answered with NFS3ERR_ROFS, with attributes before and after. Leaves out: READ (`read`), directories (`directory`).
//! Invariant: without a handle that is ours nothing of a tree is told. Shown by `tests/nfs/serve.rs`.

use std::sync::Arc;

use crate::server::nfs::attributes::{Identity, Status};
use crate::server::nfs::connection::{Client, Outcome};
use crate::server::nfs::directory;
use crate::server::nfs::exports::{Attributes, Found, Kind, Tree};
use crate::server::nfs::handle::Signer;
use crate::server::nfs::limits::{LIST_BYTES, READ_BYTES};
use crate::server::nfs::read;
use crate::server::nfs::rpc::{self, Call, Caller, EXECUTE, READ, WRITE};
use crate::server::nfs::xdr::{Garbled, Reader, Writer};

pub(crate) const PROGRAM: u32 = 100_003;
pub(crate) const VERSION: u32 = 3;
/// NFS3_FHSIZE.
pub(crate) const HANDLE_MAX: usize = 64;
/// `maxnamlen`, as PATHCONF says: NAME_MAX.
pub(crate) const NAME_MAX: usize = 255;
/// PATH_MAX: longer texts of symbolic links do not exist on Linux.
const LINK_MAX: usize = 4_096;

/// What a handle stands for.
pub(crate) struct Place {
    pub(crate) tree: Arc<dyn Tree>,
    pub(crate) identity: Identity,
    pub(crate) its: Attributes,
}

impl Place {
    pub(crate) fn inode(&self) -> u32 {
        self.identity.inode
    }

    pub(crate) fn identity_of(&self, inode: u32) -> Identity {
        Identity { inode, ..self.identity }
    }
}

/// One call, being answered.
pub(crate) struct Asked<'a> {
    pub(crate) client: &'a Client,
    pub(crate) caller: Caller,
}

impl Asked<'_> {
    pub(crate) fn locate(&self, handle: &[u8]) -> Result<Place, Status> {
        let exports = &*self.client.server.exports;
        let signer = Signer::of(exports).ok_or(Status::Jukebox)?;
        let (id, inode) = signer.open(handle).ok_or(Status::BadHandle)?;
        self.client.seat.guest.is_known();
        let tree = match exports.tree(&id) {
            Found::Here(tree) => tree,
            Found::Later => return Err(Status::Jukebox),
        };
        let its = tree.attributes(inode).ok_or(Status::Stale)?;
        Ok(Place { tree, identity: Identity { tree: id, inode }, its })
    }

    /// The place of the handle that comes next. If there is none, that is said, and so many optional results are left out.
    pub(crate) fn place(&self, arguments: &mut Reader, out: &mut Writer, optional: usize) -> Result<Option<Place>, Garbled> {
        let located = self.locate(arguments.opaque(HANDLE_MAX)?);
        if let Err(status) = located {
            out.status(status).nothing(optional);
        }
        Ok(located.ok())
    }
}

pub(crate) fn answer(client: &Client, call: Call) -> Outcome {
    let Call { xid, caller, procedure, mut arguments, .. } = call;
    let asked = Asked { client, caller };
    let mut out = rpc::success(xid);
    let (args, into) = (&mut arguments, &mut out);
    let done = match procedure {
        0 => Ok(()),
        1 => get_attributes(&asked, args, into),
        3 => look_up(&asked, args, into),
        4 => access(&asked, args, into),
        5 => read_link(&asked, args, into),
        6 => return read::answer(&asked, xid, arguments),
        16 => directory::read(&asked, args, into),
        17 => directory::read_plus(&asked, args, into),
        18 => usage(&asked, args, into),
        19 => about(&asked, args, into),
        20 => path_limits(&asked, args, into),
        // SETATTR, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, COMMIT: one handle.
        2 | 7..=13 | 21 => not_changed(&asked, args, into),
        14 => not_renamed(&asked, args, into),
        15 => not_linked(&asked, args, into),
        _ => return Outcome::Now(rpc::no_procedure(xid)),
    };
    Outcome::Now(if done.is_ok() { out } else { rpc::garbage(xid) })
}

fn get_attributes(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    if let Some(place) = asked.place(args, out, 0)? {
        out.status(Status::Ok).attributes(place.identity, &place.its);
    }
    Ok(())
}

fn look_up(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let handle = args.opaque(HANDLE_MAX)?;
    let name = args.opaque(usize::MAX)?;
    let dir = match asked.locate(handle) {
        Ok(dir) => dir,
        Err(status) => return out.status(status).nothing(1).done(),
    };
    match found(asked, &dir, name) {
        Ok((handle, inode, its)) => {
            out.status(Status::Ok).opaque(&handle).post_op(dir.identity_of(inode), &its).post_op(dir.identity, &dir.its);
        }
        Err(status) => out.status(status).post_op(dir.identity, &dir.its).end(),
    }
    Ok(())
}

type Entry = ([u8; crate::server::nfs::handle::BYTES], u32, Attributes);

fn found(asked: &Asked, dir: &Place, name: &[u8]) -> Result<Entry, Status> {
    if dir.its.kind != Kind::Directory {
        return Err(Status::NotDirectory);
    }
    if !asked.caller.may(EXECUTE, &dir.its) {
        return Err(Status::Access);
    }
    if name.len() > NAME_MAX {
        return Err(Status::NameTooLong);
    }
    let inode = match name {
        b"." => dir.inode(),
        b".." => dir.tree.parent(dir.inode()),
        _ => dir.tree.lookup(dir.inode(), name).ok_or(Status::NoEntry)?,
    };
    let its = dir.tree.attributes(inode).ok_or(Status::ServerFault)?;
    let signer = Signer::of(&*asked.client.server.exports).ok_or(Status::Jukebox)?;
    Ok((signer.handle(&dir.identity.tree, inode), inode, its))
}

// ACCESS3_* (RFC 1813, section 3.3.4).
const ACCESS_READ: u32 = 0x01;
const ACCESS_LOOKUP: u32 = 0x02;
const ACCESS_MODIFY: u32 = 0x04;
const ACCESS_EXTEND: u32 = 0x08;
const ACCESS_EXECUTE: u32 = 0x20;

/// As in knfsd (`nfsd_access`) for a read-only export: nothing of it is changed, but a device, a pipe or a socket may be written to.
fn allowed(caller: &Caller, its: &Attributes) -> u32 {
    let bit = |what, bits| if caller.may(what, its) { bits } else { 0 };
    match its.kind {
        Kind::File => bit(READ, ACCESS_READ) | bit(EXECUTE, ACCESS_EXECUTE),
        Kind::Directory => bit(READ, ACCESS_READ) | bit(EXECUTE, ACCESS_LOOKUP),
        Kind::Symlink | Kind::Block | Kind::Character | Kind::Fifo | Kind::Socket => {
            bit(READ, ACCESS_READ) | bit(EXECUTE, ACCESS_EXECUTE) | bit(WRITE, ACCESS_MODIFY | ACCESS_EXTEND)
        }
    }
}

fn access(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let handle = args.opaque(HANDLE_MAX)?;
    let wanted = args.u32()?;
    match asked.locate(handle) {
        Ok(Place { identity, its, .. }) => out.status(Status::Ok).post_op(identity, &its).u32(wanted & allowed(&asked.caller, &its)),
        Err(status) => out.status(status).nothing(1),
    };
    Ok(())
}

fn read_link(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let Some(Place { tree, identity, its }) = asked.place(args, out, 1)? else { return Ok(()) };
    if its.kind != Kind::Symlink {
        return out.status(Status::Invalid).post_op(identity, &its).done();
    }
    match tree.link(identity.inode).filter(|text| text.len() <= LINK_MAX) {
        Some(text) => out.status(Status::Ok).post_op(identity, &its).opaque(&text),
        None => out.status(Status::ServerFault).post_op(identity, &its),
    };
    Ok(())
}

/// FSSTAT.
fn usage(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let Some(Place { tree, identity, its }) = asked.place(args, out, 1)? else { return Ok(()) };
    let (bytes, files) = tree.totals();
    out.status(Status::Ok).post_op(identity, &its).u64(bytes).u64(0).u64(0).u64(files).u64(0).u64(0);
    // invarsec: it does not change.
    out.u32(u32::MAX);
    Ok(())
}

/// Of what WRITE would carry, were it carried out: so that one fits into a record (`Limits::record`) and is refused in the words of the protocol.
const WRITE_BYTES: u32 = 32 << 10;
const BLOCK: u32 = 4_096;
/// What is asked of READDIR: some 500 entries with attributes.
const LIST_PREFERRED: u32 = 64 << 10;
const _: () = assert!(LIST_PREFERRED <= LIST_BYTES);
/// FSF3_LINK, FSF3_SYMLINK, FSF3_HOMOGENEOUS (RFC 1813, section 3.3.19).
const PROPERTIES: u32 = 0x01 | 0x02 | 0x08;

/// FSINFO.
fn about(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let Some(Place { identity, its, .. }) = asked.place(args, out, 1)? else { return Ok(()) };
    out.status(Status::Ok).post_op(identity, &its);
    for (most, unit) in [(READ_BYTES, BLOCK), (WRITE_BYTES, BLOCK)] {
        out.u32(most).u32(most).u32(unit);
    }
    // The largest file: a signed 64-bit offset. Times are in nanoseconds.
    out.u32(LIST_PREFERRED).u64(i64::MAX.unsigned_abs()).u32(0).u32(1).u32(PROPERTIES);
    Ok(())
}

/// PATHCONF.
fn path_limits(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let Some(Place { identity, its, .. }) = asked.place(args, out, 1)? else { return Ok(()) };
    let name_max = u32::try_from(NAME_MAX).unwrap_or(u32::MAX);
    out.status(Status::Ok).post_op(identity, &its).u32(u32::MAX).u32(name_max);
    // no_trunc, chown_restricted; case_insensitive; case_preserving.
    out.bool(true).bool(true).bool(false).bool(true);
    Ok(())
}

/// All that change one object, or one directory: what follows the handle makes no difference.
fn not_changed(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    if let Some(Place { identity, its, .. }) = asked.place(args, out, 2)? {
        out.status(Status::ReadOnly).unchanged(identity, &its);
    }
    Ok(())
}

fn not_renamed(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let from = args.opaque(HANDLE_MAX)?;
    args.opaque(usize::MAX)?;
    let to = args.opaque(HANDLE_MAX)?;
    match (asked.locate(from), asked.locate(to)) {
        (Ok(from), Ok(to)) => out.status(Status::ReadOnly).unchanged(from.identity, &from.its).unchanged(to.identity, &to.its),
        (Err(status), _) | (_, Err(status)) => out.status(status).nothing(4),
    };
    Ok(())
}

fn not_linked(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let object = args.opaque(HANDLE_MAX)?;
    let dir = args.opaque(HANDLE_MAX)?;
    match (asked.locate(object), asked.locate(dir)) {
        (Ok(object), Ok(dir)) => out.status(Status::ReadOnly).post_op(object.identity, &object.its).unchanged(dir.identity, &dir.its),
        (Err(status), _) | (_, Err(status)) => out.status(status).nothing(3),
    };
    Ok(())
}
