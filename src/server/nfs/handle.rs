//! Handles of files: 16 octets tree id, 4 octets inode, 12 octets HMAC-SHA256 of both.
//!
//! Leaves out: whether the tree is here. Invariant: one that was not told a handle cannot make one, not even for another file of a tree of which it has
//! one; and a handle is valid for as long as the site keeps its key. Shown by the tests at the end.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::server::nfs::exports::Exports;

pub(crate) const BYTES: usize = 32;
const ID: usize = 16;
const TAG: usize = 12;
/// What else the site signs with this key, it signs under another name.
const PURPOSE: &[u8] = b"embody nfs handle 1";

/// Makes and reads handles.
pub(crate) struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    /// None while the key is not known.
    pub(crate) fn of(exports: &dyn Exports) -> Option<Signer> {
        let mut keyed = <Hmac<Sha256> as Mac>::new_from_slice(&exports.key()?).ok()?;
        keyed.update(PURPOSE);
        Some(Signer { keyed })
    }

    fn signed(&self, id: &[u8], inode: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(id);
        mac.update(inode);
        mac
    }

    pub(crate) fn handle(&self, id: &[u8; ID], inode: u32) -> [u8; BYTES] {
        let inode = inode.to_be_bytes();
        let tag = self.signed(id, &inode).finalize().into_bytes();
        let mut handle = [0; BYTES];
        let parts = id.iter().chain(&inode).chain(tag.iter().take(TAG));
        handle.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        handle
    }

    /// The tree and the inode, if this was signed with the key.
    pub(crate) fn open(&self, handle: &[u8]) -> Option<([u8; ID], u32)> {
        let (id, rest) = handle.split_first_chunk::<ID>()?;
        let (inode, tag) = rest.split_first_chunk::<4>()?;
        if tag.len() != TAG {
            return None;
        }
        // In constant time.
        self.signed(id, inode).verify_truncated_left(tag).ok()?;
        Some((*id, u32::from_be_bytes(*inode)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(key: u8) -> Signer {
        let mut keyed = <Hmac<Sha256> as Mac>::new_from_slice(&[key; 32]).unwrap();
        keyed.update(PURPOSE);
        Signer { keyed }
    }

    #[test]
    fn a_handle_is_opened_by_whoever_has_the_key_and_by_nobody_else() {
        let handle = signer(1).handle(&[7; 16], 42);
        assert_eq!(signer(1).open(&handle), Some(([7; 16], 42)));
        assert_eq!(signer(2).open(&handle), None);
        for bit in 0..BYTES * 8 {
            let mut bent = handle;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(signer(1).open(&bent), None, "bit {bit}");
        }
        for length in 0..BYTES {
            assert_eq!(signer(1).open(&handle[..length]), None);
        }
        assert_eq!(signer(1).open(&[&handle[..], &[0]].concat()), None);
    }
}
