//! How much of the machine clients may take together, and each of them.
//!
//! Leaves out: who counts (`share`, `files`, `connection`). Invariant: a limit that would stop every client, such as fewer bytes for one peer than one
//! reply has, is raised to the least with which all works. Shown by the tests at the end.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::server::nfs::buffers;

/// Octets that one READ carries at most. Linux asks for no more (NFS_MAX_FILE_IO_SIZE), and larger ones gain nothing over TCP.
pub const READ_BYTES: u32 = 1 << 20;
/// Octets of one reply to READDIR or READDIRPLUS: Linux takes what `dtpref` says, which is less.
pub(crate) const LIST_BYTES: u32 = 256 << 10;
/// What every other reply is counted as: the largest one has the text of a symbolic link (PATH_MAX).
pub(crate) const SMALL_BYTES: usize = 5 << 10;

#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time: a Linux client has one for each server, and 16 with `nconnect=16`. 1,024 are a site of 500 servers that boot together.
    pub connections: usize,
    /// Of one address: `nconnect=16`, what MOUNT and portmap need besides, and those of the start before that were never closed.
    pub connections_of_one: usize,
    /// Calls of one connection that are not answered yet; further ones wait in the socket. A Linux client reads ahead by some 16 calls for each file.
    pub calls: usize,
    /// Bytes of all replies from when they are made to when the kernel has taken them: 256 clients with a megabyte each.
    pub memory: usize,
    /// The same, for one address: what fills a link of 10 Gbit/s at a round trip of 10 ms.
    pub memory_of_one: usize,
    /// Bytes of reply buffers that are kept for the next reply, so that a megabyte isn't mapped anew for each.
    pub memory_kept: usize,
    /// Files that are kept open between reads: those that a persona reads while it boots, some thousands. Opening again may mean to verify again.
    pub open_files: usize,
    /// Files that are being opened at a time, which may mean to hash them whole: as many as leave processors for others.
    pub opens: usize,
    pub opens_of_one: usize,
    /// Look-ups of MOUNT at a time, each of which may read an index: not among the opens, since MOUNT has no word for "try again".
    pub mounts: usize,
    pub mounts_of_one: usize,
    /// How long a READ waits for a file to be opened; then the client is told to try again (Linux does after 5 s, NFS_JUKEBOX_RETRY_TIME).
    pub open_within: Duration,
    /// How long a file that could not be opened is not tried again, so that a client cannot have it hashed all the time.
    pub failure_for: Duration,
    /// Reads that wait for a disk at a time: each has a thread. Deep enough for an array of SSDs.
    pub disk_reads: usize,
    pub disk_reads_of_one: usize,
    /// One call, in octets. A READ has some 200; a WRITE, which is refused, has up to 32 KiB, as FSINFO says.
    pub record: usize,
    /// How long a connection may take for its first call, and for each call from its first octet to its last.
    pub record_within: Duration,
    /// How long a connection may be silent. Linux closes after 5 minutes of itself and a client that sleeps comes back; hours are for those that keep it.
    pub idle: Duration,
    /// How long the client may take to receive one batch of replies, which has at least one reply and about a quarter of a megabyte or one large reply.
    pub write_within: Duration,
    /// When the kernel first asks a silent peer whether it is still there, and how often after that, three times.
    pub keepalive: Duration,
    pub keepalive_every: Duration,
    /// How long calls that run may go on when the server stops.
    pub drain: Duration,
    /// Refusals that are told at once, and then per second.
    pub refusals: f64,
    pub refusals_per_second: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1_024,
            connections_of_one: 32,
            calls: 64,
            memory: 256 << 20,
            memory_of_one: 16 << 20,
            memory_kept: 16 << 20,
            open_files: 4_096,
            opens: 8,
            opens_of_one: 4,
            mounts: 8,
            mounts_of_one: 2,
            open_within: Duration::from_secs(20),
            failure_for: Duration::from_secs(10),
            disk_reads: 64,
            disk_reads_of_one: 16,
            record: 64 << 10,
            record_within: Duration::from_secs(30),
            idle: Duration::from_secs(6 * 3600),
            write_within: Duration::from_secs(30),
            keepalive: Duration::from_secs(60),
            keepalive_every: Duration::from_secs(15),
            drain: Duration::from_secs(2),
            refusals: 20.0,
            refusals_per_second: 2.0,
        }
    }
}

impl Limits {
    /// With each limit at least what one call of one client needs, and connections and open files each at most a quarter of what this process may have
    /// open (RLIMIT_NOFILE): the rest of it needs some as well.
    pub(crate) fn usable(mut self) -> Limits {
        let quarter = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most / 4).unwrap_or(usize::MAX));
        self.connections = self.connections.min(quarter);
        self.open_files = self.open_files.min(quarter);
        let one = buffers::largest();
        self.memory_of_one = self.memory_of_one.max(one);
        self.memory = self.memory.max(self.memory_of_one);
        for least_one in [
            &mut self.connections,
            &mut self.connections_of_one,
            &mut self.calls,
            &mut self.open_files,
            &mut self.opens,
            &mut self.opens_of_one,
            &mut self.mounts,
            &mut self.mounts_of_one,
            &mut self.disk_reads,
            &mut self.disk_reads_of_one,
        ] {
            *least_one = (*least_one).max(1);
        }
        // A LINK with two handles and the longest name that is worth an answer.
        self.record = self.record.max(4 << 10);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_stops_every_client() {
        let none = Limits { memory: 0, memory_of_one: 0, calls: 0, opens: 0, record: 0, ..Limits::default() }.usable();
        assert!(none.memory_of_one > READ_BYTES as usize && none.memory >= none.memory_of_one);
        assert_eq!((none.calls, none.opens, none.record), (1, 1, 4096));
    }
}
