//! ONC RPC, version 2 (RFC 5531): the head of a call, who is calling, and the heads of replies.
//!
//! Leaves out: the programs. RPCSEC_GSS and TLS are refused with AUTH_BADCRED, as knfsd does where it has none. Invariant: whatever octets come in,
//! the outcome is a call, an answer that says what is wrong with it, or the end of the connection. Shown by `tests/nfs/hostile.rs`.

use crate::server::nfs::exports::{Attributes, Kind};
use crate::server::nfs::xdr::{Garbled, Reader, Writer};

// RFC 5531, section 9.
const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;
const SUCCESS: u32 = 0;
const PROG_UNAVAIL: u32 = 1;
const PROG_MISMATCH: u32 = 2;
const PROC_UNAVAIL: u32 = 3;
const GARBAGE_ARGS: u32 = 4;
const RPC_MISMATCH: u32 = 0;
const AUTH_ERROR: u32 = 1;
const AUTH_BADCRED: u32 = 1;
/// RFC 5531, section 8.2: the body of a credential or verifier.
const AUTH_BYTES: usize = 400;
pub(crate) const AUTH_NONE: u32 = 0;
pub(crate) const AUTH_SYS: u32 = 1;
/// RFC 5531, appendix A.
const MACHINE_NAME: usize = 255;
const GROUPS: usize = 16;
/// The user and group of one that says nothing of itself (exports(5), `anonuid`).
const NOBODY: u32 = 65_534;

/// Whom the client's kernel says that a call is for. Nothing proves it: what is kept from a user of a client is kept from it by that client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    uid: u32,
    gid: u32,
    groups: [u32; GROUPS],
    count: usize,
}

/// Permissions, as in the lower three bits of a mode.
pub(crate) const READ: u16 = 4;
pub(crate) const WRITE: u16 = 2;
pub(crate) const EXECUTE: u16 = 1;

impl Caller {
    const ANYBODY: Caller = Caller { uid: NOBODY, gid: NOBODY, groups: [0; GROUPS], count: 0 };

    /// `authsys_parms` (RFC 5531, appendix A).
    fn read(body: &[u8]) -> Result<Caller, Garbled> {
        let mut reader = Reader::new(body);
        let _stamp = reader.u32()?;
        reader.opaque(MACHINE_NAME)?;
        let mut caller = Caller { uid: reader.u32()?, gid: reader.u32()?, ..Caller::ANYBODY };
        caller.count = usize::try_from(reader.u32()?).map_err(|_| Garbled)?;
        for group in caller.groups.get_mut(..caller.count).ok_or(Garbled)? {
            *group = reader.u32()?;
        }
        Ok(caller)
    }

    fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.iter().take(self.count).any(|group| *group == gid)
    }

    /// By the bits of the mode. The root user may do all but execute what nobody may (path_resolution(7)).
    pub(crate) fn may(&self, what: u16, of: &Attributes) -> bool {
        if self.uid == 0 {
            return what & EXECUTE == 0 || of.kind == Kind::Directory || of.mode & 0o111 != 0;
        }
        let shift = match (self.uid == of.uid, self.is_in(of.gid)) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        (of.mode >> shift) & what == what
    }

    /// Whether READ is answered. More than `open` allows, as in knfsd (`nfsd_permission`): the owner may have taken the right from itself after
    /// opening, and a page of a program is read for one that may only execute it; the client's `open` has asked ACCESS before.
    pub(crate) fn may_read(&self, of: &Attributes) -> bool {
        self.uid == of.uid || self.may(READ, of) || self.may(EXECUTE, of)
    }
}

pub(crate) struct Call<'a> {
    pub(crate) xid: u32,
    pub(crate) program: u32,
    pub(crate) version: u32,
    pub(crate) procedure: u32,
    pub(crate) caller: Caller,
    pub(crate) arguments: Reader<'a>,
}

pub(crate) enum Incoming<'a> {
    Call(Call<'a>),
    /// Not to be carried out; this is said.
    Refused(Writer),
    /// Nobody speaks this protocol here: there is nothing to answer to.
    Noise,
}

pub(crate) fn read(record: &[u8]) -> Incoming<'_> {
    let mut reader = Reader::new(record);
    let (Ok(xid), Ok(CALL), Ok(version)) = (reader.u32(), reader.u32(), reader.u32()) else { return Incoming::Noise };
    if version != RPC_VERSION {
        let mut writer = denied(xid, RPC_MISMATCH);
        writer.u32(RPC_VERSION).u32(RPC_VERSION);
        return Incoming::Refused(writer);
    }
    let Ok(head) = head(&mut reader) else { return Incoming::Noise };
    let [program, version, procedure] = head.target;
    let caller = match head.flavor {
        AUTH_NONE => Ok(Caller::ANYBODY),
        AUTH_SYS => Caller::read(head.body),
        _ => Err(Garbled),
    };
    let Ok(caller) = caller else {
        let mut writer = denied(xid, AUTH_ERROR);
        writer.u32(AUTH_BADCRED);
        return Incoming::Refused(writer);
    };
    Incoming::Call(Call { xid, program, version, procedure, caller, arguments: reader })
}

struct Head<'a> {
    /// Program, version, procedure.
    target: [u32; 3],
    flavor: u32,
    body: &'a [u8],
}

fn head<'a>(reader: &mut Reader<'a>) -> Result<Head<'a>, Garbled> {
    let target = [reader.u32()?, reader.u32()?, reader.u32()?];
    let flavor = reader.u32()?;
    let body = reader.opaque(AUTH_BYTES)?;
    let _flavor_of_verifier = reader.u32()?;
    reader.opaque(AUTH_BYTES)?;
    Ok(Head { target, flavor, body })
}

/// Octets before the results: the mark of the record, and the head of an accepted reply.
pub(crate) const HEAD_BYTES: usize = 28;

/// With room for the record mark (RFC 5531, section 11), which is set when the length is known.
fn begun(xid: u32, accepted: u32, capacity: usize) -> Writer {
    let mut writer = Writer::with_capacity(capacity);
    writer.u32(0).u32(xid).u32(REPLY).u32(accepted);
    writer
}

fn denied(xid: u32, why: u32) -> Writer {
    let mut writer = begun(xid, MSG_DENIED, 32);
    writer.u32(why);
    writer
}

fn accepted(xid: u32, outcome: u32, capacity: usize) -> Writer {
    let mut writer = begun(xid, MSG_ACCEPTED, capacity);
    writer.u32(AUTH_NONE).u32(0).u32(outcome);
    writer
}

/// The results follow.
pub(crate) fn success(xid: u32) -> Writer {
    accepted(xid, SUCCESS, 256)
}

pub(crate) fn no_program(xid: u32) -> Writer {
    accepted(xid, PROG_UNAVAIL, HEAD_BYTES)
}

pub(crate) fn no_version(xid: u32, low: u32, high: u32) -> Writer {
    let mut writer = accepted(xid, PROG_MISMATCH, HEAD_BYTES + 8);
    writer.u32(low).u32(high);
    writer
}

pub(crate) fn no_procedure(xid: u32) -> Writer {
    accepted(xid, PROC_UNAVAIL, HEAD_BYTES)
}

pub(crate) fn garbage(xid: u32) -> Writer {
    accepted(xid, GARBAGE_ARGS, HEAD_BYTES)
}

/// What stands before a reply of so many octets, itself included: one fragment, the last (RFC 5531, section 11).
pub(crate) fn mark(reply: usize) -> [u8; 4] {
    let length = u32::try_from(reply.saturating_sub(4)).unwrap_or(0);
    (length | LAST_FRAGMENT).to_be_bytes()
}

pub(crate) const LAST_FRAGMENT: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mode: u16) -> Attributes {
        Attributes { kind: Kind::File, mode, links: 1, uid: 33, gid: 44, size: 0, device: (0, 0), mtime: (0, 0) }
    }

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        let mut body = Writer::default();
        body.u32(0).opaque(b"host").u32(uid).u32(gid).u32(groups.len() as u32);
        groups.iter().for_each(|group| body.u32(*group).end());
        Caller::read(&body.into_bytes()).unwrap()
    }

    #[test]
    fn modes_are_for_the_owner_the_group_and_the_others() {
        let (owner, member, other, root) = (caller(33, 1, &[]), caller(1, 1, &[2, 44]), caller(1, 1, &[2]), caller(0, 0, &[]));
        for (mode, what, allowed) in [
            (0o640, READ, [true, true, false, true]),
            (0o640, WRITE, [true, false, false, true]),
            (0o640, EXECUTE, [false, false, false, false]),
            (0o007, READ, [false, false, true, true]),
            (0o711, EXECUTE, [true, true, true, true]),
        ] {
            assert_eq!([owner, member, other, root].map(|who| who.may(what, &of(mode))), allowed, "{mode:o} {what}");
        }
        // Closed to its owner, and executable only.
        assert_eq!([owner, member, other].map(|who| who.may_read(&of(0o000))), [true, false, false]);
        assert_eq!([owner, member, other].map(|who| who.may_read(&of(0o111))), [true, true, true]);
        assert!(!Caller::ANYBODY.may(READ, &of(0o640)) && Caller::ANYBODY.may(READ, &of(0o644)));
    }

    #[test]
    fn seventeen_groups_are_refused() {
        let mut body = Writer::default();
        body.u32(0).opaque(b"host").u32(0).u32(0).u32(17);
        (0..17).for_each(|group| body.u32(group).end());
        assert_eq!(Caller::read(&body.into_bytes()), Err(Garbled));
    }
}
