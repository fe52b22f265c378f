//! The octets of replies, and the buffers of large ones, which are used again.
//!
//! Leaves out: how many there may be (`share::Memory`). Invariant: what a buffer held before is never sent: only what was filled since it was taken is.
//! Shown by the tests at the end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::nfs::limits::READ_BYTES;
use crate::server::nfs::read;
use crate::server::nfs::rpc;
use crate::server::nfs::xdr::Writer;

/// Sizes of buffers of READ replies: the usual `rsize`s, 64 KiB to 1 MiB, with room for the head.
const CLASSES: [usize; 5] =
    [(64 << 10) + SLACK, (128 << 10) + SLACK, (256 << 10) + SLACK, (512 << 10) + SLACK, READ_BYTES as usize + SLACK];
const SLACK: usize = 4 << 10;
const _: () = assert!(read::HEAD_BYTES + 3 <= SLACK && READ_BYTES as usize > 512 << 10);

/// The largest one.
pub(crate) const fn largest() -> usize {
    READ_BYTES as usize + SLACK
}

#[derive(Debug)]
pub(crate) struct Buffers {
    /// Of unused buffers, so many octets are kept.
    keep: usize,
    unused: Mutex<Unused>,
}

#[derive(Debug, Default)]
struct Unused {
    by_class: [Vec<Vec<u8>>; CLASSES.len()],
    bytes: usize,
}

/// The octets of one reply.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
    /// Where it goes afterwards, and its class.
    home: Option<(Arc<Buffers>, usize)>,
}

impl Buffers {
    pub(crate) fn keeping(keep: usize) -> Arc<Buffers> {
        Arc::new(Buffers { keep, unused: Mutex::default() })
    }

    fn unused(&self) -> MutexGuard<'_, Unused> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a buffer for so many octets counts.
    pub(crate) fn cost(bytes: usize) -> usize {
        CLASSES.into_iter().find(|class| *class >= bytes).unwrap_or(bytes)
    }

    /// So many octets, which are to be filled.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        // What is much smaller than the smallest is not worth keeping, and counts as the smallest.
        let class = CLASSES.iter().position(|class| *class >= bytes).filter(|class| *class > 0 || bytes > SLACK);
        let Some((class, size)) = class.and_then(|class| Some((class, *CLASSES.get(class)?))) else {
            return Buffer { bytes: vec![0; bytes], used: bytes, home: None };
        };
        let mut unused = self.unused();
        let kept = unused.by_class.get_mut(class).and_then(Vec::pop);
        unused.bytes -= kept.as_ref().map_or(0, Vec::len);
        drop(unused);
        Buffer { bytes: kept.unwrap_or_else(|| vec![0; size]), used: bytes, home: Some((Arc::clone(self), class)) }
    }
}

impl Buffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.used).unwrap_or_default()
    }

    /// A small reply, with its mark.
    pub(crate) fn of(reply: Writer) -> Buffer {
        let mut bytes = reply.into_bytes();
        let used = bytes.len();
        if let Some(mark) = bytes.first_chunk_mut() {
            *mark = rpc::mark(used);
        }
        Buffer { bytes, used, home: None }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some((home, class)) = self.home.take() else { return };
        let bytes = std::mem::take(&mut self.bytes);
        let mut unused = home.unused();
        if unused.bytes + bytes.len() > home.keep {
            return;
        }
        unused.bytes += bytes.len();
        if let Some(of_class) = unused.by_class.get_mut(class) {
            of_class.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_no_more_are_kept_than_was_said() {
        let buffers = Buffers::keeping(2 * largest());
        let large: Vec<Buffer> = (0..4).map(|_| buffers.take(1 << 20)).collect();
        assert!(large.iter().all(|buffer| buffer.bytes().len() == 1 << 20));
        drop(large);
        assert_eq!(buffers.unused().bytes, 2 * largest());
        let again = buffers.take((1 << 20) - 5);
        assert_eq!((again.bytes().len(), buffers.unused().bytes), ((1 << 20) - 5, largest()));
        // A small one takes none of them.
        assert_eq!((buffers.take(100).bytes().len(), buffers.unused().bytes), (100, largest()));
    }

    #[test]
    fn what_a_buffer_counts_is_what_it_has() {
        let buffers = Buffers::keeping(0);
        for bytes in [1, 4096, 4097, 65 << 10, 100 << 10, 1 << 20, (1 << 20) + 135] {
            assert!(buffers.take(bytes).bytes.len() <= Buffers::cost(bytes), "{bytes}");
        }
    }
}
