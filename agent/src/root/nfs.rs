//! A root that is read over NFSv3, as it is used.
//!
//! Leaves out: locks (`nolock`), since nothing is written there; version 4, over which overlayfs cannot write (its ACLs are copied up). Invariant: a
//! server that is away for a while is waited for, at first here, later by the kernel (`hard`). Shown by `tests/guests.py`.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::{RootError, mount_with};
use crate::console::say;

const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// A server that says no may not have been told yet of this start; after that it means it.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

pub(super) fn mount_at(at: &str, address: Ipv4Addr, port: Option<u16>, path: &str, patience: Duration) -> Result<(), RootError> {
    let (source, options) = (format!("{address}:{path}"), options(address, port));
    let begun = Instant::now();
    let mut again = AGAIN_MIN;
    let mut told = None;
    loop {
        let error = match mount_with(&source, at, "nfs", MountFlags::RDONLY, &options) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if told != Some(error) {
            say(&format!("nfs {source}: {error}{}; it is tried again", hint(error)));
            told = Some(error);
        }
        let patience = if is_no(error) { patience.min(REFUSED_WITHIN) } else { patience };
        if begun.elapsed() + again > patience {
            let seconds = begun.elapsed().as_secs();
            return Err(RootError::Nfs { address: address.to_string(), path: path.to_owned(), seconds, source: error });
        }
        sleep(again);
        again = (again * 2).min(AGAIN_MAX);
    }
}

/// nfs(5). Without a port the server's portmapper knows that of the mount protocol; NFS itself has its usual one.
fn options(address: Ipv4Addr, port: Option<u16>) -> String {
    let port = port.map_or_else(|| format!("port={}", crate::command_line::NFS_PORT), |port| format!("port={port},mountport={port}"));
    format!("vers=3,proto=tcp,mountproto=tcp,mountvers=3,{port},hard,nolock,nocto,actimeo=3600,addr={address},mountaddr={address}")
}

/// The server answered, and said no.
fn is_no(error: Errno) -> bool {
    matches!(error, Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOTDIR | Errno::INVAL | Errno::NODEV | Errno::PROTONOSUPPORT)
}

pub(super) fn hint(error: Errno) -> &'static str {
    match error {
        Errno::ACCESS | Errno::PERM => " (its server does not give it to this machine)",
        Errno::NOENT | Errno::NOTDIR => " (its server does not have it)",
        Errno::CONNREFUSED => " (nothing listens there)",
        Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => " (its server does not answer)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_that_of_both_protocols() {
        let with = options(Ipv4Addr::new(10, 0, 0, 1), Some(2050));
        assert!(with.contains(",port=2050,mountport=2050,") && with.ends_with(",addr=10.0.0.1,mountaddr=10.0.0.1"), "{with}");
        let without = options(Ipv4Addr::new(10, 0, 0, 1), None);
        assert!(without.contains(",port=2049,hard") && !without.contains("mountport"), "{without}");
    }
}
