//! NFS_ACL version 3, as Linux has it (`include/uapi/linux/nfsacl.h`, `fs/nfs/nfs3acl.c`): no file has an access control list.
//!
//! Without this program overlayfs above the mount answers EOPNOTSUPP to every access by a non-owner. Leaves out: lists; the index has none.
//! Invariant: a client that shows a handle of ours is never told to try again: Linux does not repeat this call. Shown by `tests/nfs/serve.rs` and
//! `tests/nfs/guest.rs`.

use crate::server::nfs::attributes::Status;
use crate::server::nfs::connection::{Client, Outcome};
use crate::server::nfs::procedures::{Asked, HANDLE_MAX};
use crate::server::nfs::rpc::{self, Call};
use crate::server::nfs::xdr::{Garbled, Reader, Writer};

pub(crate) const PROGRAM: u32 = 100_227;
pub(crate) const VERSION: u32 = 3;
/// NFS_ACL, NFS_ACLCNT, NFS_DFACL, NFS_DFACLCNT.
const MASK: u32 = 0x0f;

pub(crate) fn answer(client: &Client, call: Call) -> Outcome {
    let Call { xid, version, procedure, caller, mut arguments, .. } = call;
    if version != VERSION {
        return Outcome::Now(rpc::no_version(xid, VERSION, VERSION));
    }
    let asked = Asked { client, caller };
    let mut out = rpc::success(xid);
    let done = match procedure {
        0 => Ok(()),
        1 => get(&asked, &mut arguments, &mut out),
        2 => set(&asked, &mut arguments, &mut out),
        _ => return Outcome::Now(rpc::no_procedure(xid)),
    };
    Outcome::Now(if done.is_ok() { out } else { rpc::garbage(xid) })
}

/// GETACL: attributes, the mask that was asked for, and two lists, each with its count before it and again as that of an array.
fn get(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let located = asked.locate(args.opaque(HANDLE_MAX)?);
    let mask = args.u32()?;
    match located {
        Ok(place) if mask & !MASK != 0 => return out.status(Status::Invalid).post_op(place.identity, &place.its).done(),
        Ok(place) => out.status(Status::Ok).post_op(place.identity, &place.its),
        // What is true of every file is true of this one.
        Err(Status::Jukebox) => out.status(Status::Ok).nothing(1),
        Err(status) => return out.status(status).nothing(1).done(),
    };
    out.u32(mask & MASK).u32(0).u32(0).u32(0).u32(0);
    Ok(())
}

fn set(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    if let Some(place) = asked.place(args, out, 1)? {
        out.status(Status::ReadOnly).post_op(place.identity, &place.its);
    }
    Ok(())
}
