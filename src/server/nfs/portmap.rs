//! Portmap 2 (RFC 1833, section 3) and rpcbind 3 and 4 (section 2): where the programs of this server are.
//!
//! Leaves out: registering, which is refused, and indirect calls, since they hide who is calling. Invariant: the port told is one at which this
//! server listens. Shown by `tests/nfs/serve.rs`, `portmap_tells_the_port`.

use std::net::{IpAddr, SocketAddr};

use crate::server::nfs::connection::{Client, Outcome};
use crate::server::nfs::rpc::{self, Call};
use crate::server::nfs::xdr::{Garbled, Reader, Writer};
use crate::server::nfs::{acl, mount, procedures};

pub(crate) const PROGRAM: u32 = 100_000;
/// IANA: IPPROTO_TCP.
const TCP: u32 = 6;
/// What can be asked for, and found at the port of NFS.
const HERE: [(u32, u32); 3] = [(mount::PROGRAM, mount::VERSION), (procedures::PROGRAM, procedures::VERSION), (acl::PROGRAM, acl::VERSION)];
/// More than a universal address or the name of an owner has.
const TEXT_MAX: usize = 255;

pub(crate) fn answer(client: &Client, call: Call) -> Outcome {
    let Call { xid, version, procedure, mut arguments, .. } = call;
    let mut out = rpc::success(xid);
    let (args, into) = (&mut arguments, &mut out);
    let done = match (version, procedure) {
        (2..=4, 0) => Ok(()),
        // SET and UNSET.
        (2..=4, 1 | 2) => into.bool(false).done(),
        (2, 3) => port(client, args, into),
        (2, 4) => all_ports(client, into),
        // GETADDR, and GETVERSADDR of version 4, which asks for this version and no other.
        (3 | 4, 3) | (4, 9) => address(client, args, into),
        (3 | 4, 4) => all_addresses(client, into),
        (2..=4, _) => return Outcome::Now(rpc::no_procedure(xid)),
        _ => return Outcome::Now(rpc::no_version(xid, 2, 4)),
    };
    Outcome::Now(if done.is_ok() { out } else { rpc::garbage(xid) })
}

/// Whatever the version: one that is not here is told the port too, as rpcbind does, and there PROG_MISMATCH tells which ones are.
fn is_here(program: u32) -> bool {
    HERE.iter().any(|(its, _)| *its == program)
}

fn port(client: &Client, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let [program, _version, protocol, _port] = [args.u32()?, args.u32()?, args.u32()?, args.u32()?];
    out.u32(if protocol == TCP && is_here(program) { u32::from(client.server.port) } else { 0 });
    Ok(())
}

fn all_ports(client: &Client, out: &mut Writer) -> Result<(), Garbled> {
    for (program, version) in HERE {
        out.bool(true).u32(program).u32(version).u32(TCP).u32(u32::from(client.server.port));
    }
    out.bool(false).done()
}

/// The netid and the universal address (RFC 5665, section 5.2) of NFS, at the address of ours that the client has reached.
fn universal(client: &Client) -> (&'static str, String) {
    let port = client.server.port;
    let at = SocketAddr::new(client.ours.ip().to_canonical(), port);
    let netid = if matches!(at.ip(), IpAddr::V4(_)) { "tcp" } else { "tcp6" };
    (netid, format!("{}.{}.{}", at.ip(), port >> 8, port & 0xff))
}

fn address(client: &Client, args: &mut Reader, out: &mut Writer) -> Result<(), Garbled> {
    let [program, _version] = [args.u32()?, args.u32()?];
    let asked_for = args.opaque(TEXT_MAX)?;
    let _address = args.opaque(TEXT_MAX)?;
    let _owner = args.opaque(TEXT_MAX)?;
    let (netid, address) = universal(client);
    let here = is_here(program) && asked_for == netid.as_bytes();
    out.opaque(if here { address.as_bytes() } else { b"" });
    Ok(())
}

fn all_addresses(client: &Client, out: &mut Writer) -> Result<(), Garbled> {
    let (netid, address) = universal(client);
    for (program, version) in HERE {
        out.bool(true).u32(program).u32(version).opaque(netid.as_bytes()).opaque(address.as_bytes()).opaque(b"superuser");
    }
    out.bool(false).done()
}
