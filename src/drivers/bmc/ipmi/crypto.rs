//! The cryptography of RMCP+: cipher suites 3 and 17, the codes of RAKP, session keys, sealing and opening of packets.
//!
//! Leaves out the order of messages (`session`) and randomness (given in). Codes are compared in constant time; keys are wiped.
//! Shown by the tests below, and by ipmitool and FreeIPMI against the simulated BMC.

use aes::Aes128;
use cipher::block_padding::NoPadding;
use cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::wire::{self, Packet};

/// The cipher suites that are spoken, the stronger last (IPMI 2.0, table 22-20). Suites without authentication or encryption never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

/// AES-CBC-128 (IPMI 2.0, table 13-19).
const AES_CBC_128: u8 = 0x01;
const BLOCK: usize = 16;

impl Suite {
    pub fn id(self) -> u8 {
        match self {
            Suite::Three => 3,
            Suite::Seventeen => 17,
        }
    }

    /// Of a suite that is spoken.
    pub fn of_id(id: u8) -> Option<Suite> {
        [Suite::Three, Suite::Seventeen].into_iter().find(|suite| suite.id() == id)
    }

    /// Authentication, integrity and confidentiality algorithm (IPMI 2.0, tables 13-17 to 13-19).
    pub fn algorithms(self) -> [u8; 3] {
        match self {
            Suite::Three => [0x01, 0x01, AES_CBC_128],
            Suite::Seventeen => [0x03, 0x04, AES_CBC_128],
        }
    }

    pub fn of_algorithms(algorithms: [u8; 3]) -> Option<Suite> {
        [Suite::Three, Suite::Seventeen].into_iter().find(|s| s.algorithms() == algorithms)
    }

    /// Bytes of an integrity check value and of a packet's authentication code.
    pub fn check_len(self) -> usize {
        match self {
            Suite::Three => 12,
            Suite::Seventeen => 16,
        }
    }
}

/// An HMAC over the parts, whole.
pub(crate) fn code(suite: Suite, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut keyed = Keyed::new(suite, key);
    for part in parts {
        keyed.update(part);
    }
    keyed.finish()
}

/// Whether `code` begins with the expected one. Some boards send more bytes than the suite has (FreeIPMI's `supermicro20`).
pub(crate) fn same(expected: &[u8], code: &[u8]) -> bool {
    code.get(..expected.len()).is_some_and(|c| bool::from(c.ct_eq(expected)))
}

/// An HMAC whose key is already worked in: saves two compressions for each packet.
#[derive(Clone)]
enum Keyed {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

/// HMAC keys of any length are allowed; the `Err` of `new_from_slice` cannot happen, and leads to a key of zeros rather than a panic.
fn keyed<M: Mac + hmac::digest::KeyInit>(key: &[u8]) -> M {
    <M as Mac>::new_from_slice(key).unwrap_or_else(|_| <M as Mac>::new(&Default::default()))
}

impl Keyed {
    fn new(suite: Suite, key: &[u8]) -> Keyed {
        match suite {
            Suite::Three => Keyed::Sha1(keyed(key)),
            Suite::Seventeen => Keyed::Sha256(keyed(key)),
        }
    }

    fn update(&mut self, part: &[u8]) {
        match self {
            Keyed::Sha1(mac) => mac.update(part),
            Keyed::Sha256(mac) => mac.update(part),
        }
    }

    fn finish(self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Keyed::Sha1(mac) => mac.finalize().into_bytes().to_vec(),
            Keyed::Sha256(mac) => mac.finalize().into_bytes().to_vec(),
        })
    }
}

/// What both sides of a handshake know once RAKP 2 was sent. The names are those of IPMI 2.0, 13.31: M is the console, C the BMC.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Exchange {
    pub sid_m: u32,
    pub sid_c: u32,
    pub random_m: [u8; 16],
    pub random_c: [u8; 16],
    pub guid_c: [u8; 16],
    /// The whole privilege byte of RAKP 1, with the name-only bit.
    pub role: u8,
    pub name: Vec<u8>,
}

impl Exchange {
    fn who(&self) -> [u8; 2] {
        [self.role, self.name.len() as u8]
    }

    /// The code of RAKP 2, by which the BMC shows that it knows the user's password.
    pub(crate) fn rakp2(&self, suite: Suite, user_key: &[u8]) -> Zeroizing<Vec<u8>> {
        let (m, c) = (self.sid_m.to_le_bytes(), self.sid_c.to_le_bytes());
        code(suite, user_key, &[&m, &c, &self.random_m, &self.random_c, &self.guid_c, &self.who(), &self.name])
    }

    /// The code of RAKP 3, by which the console shows the same.
    pub(crate) fn rakp3(&self, suite: Suite, user_key: &[u8]) -> Zeroizing<Vec<u8>> {
        code(suite, user_key, &[&self.random_c, &self.sid_m.to_le_bytes(), &self.who(), &self.name])
    }

    /// The session integrity key, under the BMC key where there is one, else under the user's.
    pub(crate) fn sik(&self, suite: Suite, kg: &[u8]) -> Zeroizing<Vec<u8>> {
        code(suite, kg, &[&self.random_m, &self.random_c, &self.who(), &self.name])
    }

    /// The check value of RAKP 4.
    pub(crate) fn rakp4(&self, suite: Suite, sik: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut check = code(suite, sik, &[&self.random_m, &self.sid_c.to_le_bytes(), &self.guid_c]);
        check.truncate(suite.check_len());
        check
    }
}

/// The keys of an established session.
pub(crate) struct Keys {
    suite: Suite,
    integrity: Keyed,
    aes: Zeroizing<[u8; 16]>,
}

impl Keys {
    pub(crate) fn new(suite: Suite, sik: &[u8]) -> Keys {
        // Constants of 20 bytes for every suite, SHA-256 too: ipmitool, FreeIPMI and real boards agree (IPMI 2.0, 13.32 names SHA-1 only).
        let k1 = code(suite, sik, &[&[0x01; 20]]);
        let k2 = code(suite, sik, &[&[0x02; 20]]);
        let mut aes = Zeroizing::new([0; 16]);
        for (to, from) in aes.iter_mut().zip(k2.iter()) {
            *to = *from;
        }
        Keys { suite, integrity: Keyed::new(suite, &k1), aes }
    }

    /// A packet of a session: encrypted, then authenticated.
    pub(crate) fn seal(&self, session: u32, sequence: u32, payload: &[u8], iv: [u8; 16]) -> Vec<u8> {
        // Confidentiality trailer: 1, 2, 3, ... and how many (IPMI 2.0, table 13-20).
        let pad = (BLOCK - (payload.len() + 1) % BLOCK) % BLOCK;
        let plain = payload.len() + pad + 1;
        let mut out = wire::header(wire::PAYLOAD_IPMI | 0xc0, session, sequence, BLOCK + plain);
        out.extend_from_slice(&iv);
        let from = out.len();
        out.extend_from_slice(payload);
        out.extend(1..=pad as u8);
        out.push(pad as u8);
        // The length is a multiple of the block: NoPadding cannot fail.
        let _ = cbc::Encryptor::<Aes128>::new((&*self.aes).into(), (&iv).into()).encrypt_padded_mut::<NoPadding>(&mut out[from..], plain);
        // Integrity pad: from the authentication type to the next header a multiple of 4 (IPMI 2.0, table 13-8).
        let pad = (4 - (out.len() - wire::AUTHENTICATED_FROM + 2) % 4) % 4;
        out.resize(out.len() + pad, 0xff);
        out.extend_from_slice(&[pad as u8, 0x07]);
        let check = self.check(&out[wire::AUTHENTICATED_FROM..]);
        out.extend_from_slice(&check[..self.suite.check_len()]);
        out
    }

    fn check(&self, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut mac = self.integrity.clone();
        mac.update(bytes);
        mac.finish()
    }

    /// The payload of a packet, if it is ours: encrypted and authenticated with these keys. The code is what stands last, and covers all
    /// before it, so that boards with a wrong integrity pad (ipmitool's `icts`) read as well.
    pub(crate) fn open(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        if !packet.encrypted || !packet.authenticated {
            return None;
        }
        let end = packet.datagram.len().checked_sub(self.suite.check_len())?;
        let (covered, sent) = packet.datagram.split_at_checked(end)?;
        let check = self.check(covered.get(wire::AUTHENTICATED_FROM..)?);
        // What is covered holds the whole payload: else bytes of the code would be decrypted.
        if !same(&check[..self.suite.check_len()], sent) || covered.len() < wire::HEADER + packet.payload.len() {
            return None;
        }
        let (iv, cipher) = packet.payload.split_first_chunk::<BLOCK>()?;
        let mut plain = cipher.to_vec();
        cbc::Decryptor::<Aes128>::new((&*self.aes).into(), iv.into()).decrypt_padded_mut::<NoPadding>(&mut plain).ok()?;
        let pad = usize::from(*plain.last()?);
        plain.truncate(plain.len().checked_sub(pad + 1)?);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        for suite in [Suite::Three, Suite::Seventeen] {
            let keys = Keys::new(suite, &[9; 20]);
            for length in 0..40 {
                let payload = vec![0x5a; length];
                let sealed = keys.seal(7, 1, &payload, [3; 16]);
                assert_eq!((sealed.len() - suite.check_len() - wire::AUTHENTICATED_FROM) % 4, 0);
                assert_eq!(wire::packet(&sealed).and_then(|p| keys.open(&p)), Some(payload));
                for at in wire::AUTHENTICATED_FROM..sealed.len() {
                    let mut bad = sealed.clone();
                    bad[at] ^= 0x10;
                    assert_eq!(wire::packet(&bad).and_then(|p| keys.open(&p)), None, "{at}");
                }
                for end in 0..sealed.len() {
                    assert_eq!(wire::packet(&sealed[..end]).and_then(|p| keys.open(&p)), None);
                }
            }
            let other = Keys::new(suite, &[8; 20]);
            let sealed = other.seal(7, 1, &[1], [3; 16]);
            assert_eq!(wire::packet(&sealed).and_then(|p| keys.open(&p)), None);
        }
    }

    /// RFC 2202, test case 2, and RFC 4231, test case 2: same key and text.
    #[test]
    fn hmac_is_hmac() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let text: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        assert_eq!(hex(&code(Suite::Three, b"Jefe", &text)), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert!(hex(&code(Suite::Seventeen, b"Jefe", &text)).starts_with("5bdcc146bf60754e6a042426089575c7"));
    }
}
