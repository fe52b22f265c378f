//! READDIR and READDIRPLUS (RFC 1813, sections 3.3.16 and 3.3.17).
//!
//! The cookies 1 and 2 are those of `.` and `..`; those of the tree come after. The verifier is always zero and none is refused: a cookie is valid
//! for ever. Leaves out: the order (`Tree::list`). Invariant: a reply is no longer than the client or `LIST_BYTES` says, and a listing in parts is
//! complete. Shown by `tests/nfs/serve.rs`, `a_directory_in_parts_is_complete`.

use crate::server::nfs::attributes::{POST_OP_BYTES, Status};
use crate::server::nfs::exports::Kind;
use crate::server::nfs::handle::{self, Signer};
use crate::server::nfs::limits::LIST_BYTES;
use crate::server::nfs::procedures::{Asked, HANDLE_MAX, Place};
use crate::server::nfs::rpc::READ;
use crate::server::nfs::xdr::{Garbled, Reader, Writer, padding};

const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// After the last entry: that there is none, and whether that was the end.
const TAIL_BYTES: usize = 8;

struct Page<'a> {
    dir: &'a Place,
    /// For READDIRPLUS.
    signer: Option<Signer>,
    out: &'a mut Writer,
    /// Where the result is full.
    end: usize,
    /// What may still come of names and cookies alone.
    names: usize,
    entries: usize,
}

impl Page<'_> {
    /// False: it is full, and this entry is not in it.
    fn add(&mut self, cookie: u64, name: &[u8], inode: u32) -> bool {
        let of_name = 24 + name.len() + padding(name.len());
        let plus = if self.signer.is_some() { POST_OP_BYTES + 8 + handle::BYTES } else { 0 };
        if self.out.len() + of_name + plus + TAIL_BYTES > self.end || (self.entries > 0 && of_name > self.names) {
            return false;
        }
        self.names = self.names.saturating_sub(of_name);
        self.entries += 1;
        let identity = self.dir.identity_of(inode);
        self.out.bool(true).u64(identity.fileid()).opaque(name).u64(cookie);
        let Some(signer) = &self.signer else { return true };
        match self.dir.tree.attributes(inode) {
            Some(its) => self.out.post_op(identity, &its).bool(true).opaque(&signer.handle(&identity.tree, inode)),
            None => self.out.nothing(2),
        };
        true
    }

    /// Whether all of it was listed.
    fn fill(&mut self, after: u64) -> bool {
        let (dir, parent) = (self.dir.inode(), self.dir.tree.parent(self.dir.inode()));
        if after < DOT && !self.add(DOT, b".", dir) || after < DOT_DOT && !self.add(DOT_DOT, b"..", parent) {
            return false;
        }
        let mut all = true;
        let tree = std::sync::Arc::clone(&self.dir.tree);
        tree.list(dir, after.saturating_sub(DOT_DOT), &mut |cookie, name, inode| {
            all = self.add(cookie.saturating_add(DOT_DOT), name, inode);
            all
        });
        all
    }
}

/// What both are asked for.
struct Range<'a> {
    handle: &'a [u8],
    after: u64,
}

fn range<'a>(args: &mut Reader<'a>) -> Result<Range<'a>, Garbled> {
    let range = Range { handle: args.opaque(HANDLE_MAX)?, after: args.u64()? };
    let _verifier = args.u64()?;
    Ok(range)
}

pub(crate) fn read(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let range = range(args)?;
    let count = args.u32()?;
    list(asked, &range, [count, count], None, out);
    Ok(())
}

pub(crate) fn read_plus(asked: &Asked, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let range = range(args)?;
    let counts = [args.u32()?, args.u32()?];
    list(asked, &range, counts, Signer::of(&*asked.client.server.exports), out);
    Ok(())
}

/// `counts`: octets of names and cookies, and octets in all, without the status.
fn list(asked: &Asked, range: &Range, counts: [u32; 2], signer: Option<Signer>, out: &mut Writer) {
    let dir = match asked.locate(range.handle) {
        Ok(dir) => dir,
        Err(status) => return out.status(status).nothing(1).end(),
    };
    let refusal = match dir.its.kind {
        Kind::Directory if asked.caller.may(READ, &dir.its) => None,
        Kind::Directory => Some(Status::Access),
        _ => Some(Status::NotDirectory),
    };
    if let Some(status) = refusal {
        return out.status(status).post_op(dir.identity, &dir.its).end();
    }
    let [names, all] = counts.map(|count| usize::try_from(count.min(LIST_BYTES)).unwrap_or(0));
    let begin = out.len();
    out.status(Status::Ok);
    let end = out.len().saturating_add(all);
    out.post_op(dir.identity, &dir.its).u64(0);
    let mut page = Page { dir: &dir, signer, out, end, names, entries: 0 };
    let complete = page.fill(range.after);
    if page.entries == 0 && !complete {
        out.cut(begin);
        return out.status(Status::TooSmall).post_op(dir.identity, &dir.its).end();
    }
    out.bool(false).bool(complete);
}
