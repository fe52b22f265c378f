//! Encryption of a scoped PDU: CBC-DES (RFC 3414 section 8), AES-128 in CFB (RFC 3826), and the same with AES-256.
//!
//! Own code on the RustCrypto ciphers: snmp2's is bound to its session state, which it changes before it has checked a message.
//! Leaves out: keys (`keys`), who may say what (`usm`). Invariant: a key or a salt of another length is an error, never a panic.
//! Shown by the tests below and by `tests/snmp/` against net-snmp.

use aes::{Aes128, Aes256};
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut};
use cipher::{AsyncStreamCipher, KeyIvInit, block_padding::NoPadding};
use des::Des;

use super::codec::Unreadable;
use crate::model::secret::PrivProtocol;

const DES_BLOCK: usize = 8;

/// The engine's clock, which is a part of AES's IV (RFC 3826 3.1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    pub boots: u32,
    pub time: u32,
}

/// The ciphertext, and the salt to send as msgPrivacyParameters. `salt` must be new each time.
pub(crate) fn encrypt(protocol: PrivProtocol, key: &[u8], clock: Clock, salt: u64, plain: &[u8]) -> Result<(Vec<u8>, [u8; 8]), Unreadable> {
    let mut data = plain.to_vec();
    match protocol {
        PrivProtocol::None => Err(Unreadable::Cipher),
        PrivProtocol::Des => {
            // RFC 3414 8.1.1.1: the engine's boots, and a counter of 32 bits.
            let salt: u64 = u64::from(clock.boots) << 32 | salt & 0xffff_ffff;
            let salt = salt.to_be_bytes();
            let (key, iv) = des_key(key, &salt)?;
            let length = data.len().next_multiple_of(DES_BLOCK);
            data.resize(length, 0);
            let cipher = cbc::Encryptor::<Des>::new_from_slices(key, &iv).map_err(|_| Unreadable::Cipher)?;
            cipher.encrypt_padded_mut::<NoPadding>(&mut data, length).map_err(|_| Unreadable::Cipher)?;
            Ok((data, salt))
        }
        PrivProtocol::Aes128 => {
            let salt = salt.to_be_bytes();
            let cipher = cfb_mode::Encryptor::<Aes128>::new_from_slices(key, &aes_iv(clock, &salt)).map_err(|_| Unreadable::Cipher)?;
            cipher.encrypt(&mut data);
            Ok((data, salt))
        }
        PrivProtocol::Aes256 => {
            let salt = salt.to_be_bytes();
            let cipher = cfb_mode::Encryptor::<Aes256>::new_from_slices(key, &aes_iv(clock, &salt)).map_err(|_| Unreadable::Cipher)?;
            cipher.encrypt(&mut data);
            Ok((data, salt))
        }
    }
}

/// The plaintext, with what DES padded it by behind it.
pub(crate) fn decrypt(protocol: PrivProtocol, key: &[u8], clock: Clock, salt: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let salt: &[u8; 8] = salt.try_into().map_err(|_| Unreadable::Cipher)?;
    let mut data = ciphertext.to_vec();
    match protocol {
        PrivProtocol::None => return Err(Unreadable::Cipher),
        PrivProtocol::Des => {
            let (key, iv) = des_key(key, salt)?;
            let cipher = cbc::Decryptor::<Des>::new_from_slices(key, &iv).map_err(|_| Unreadable::Cipher)?;
            cipher.decrypt_padded_mut::<NoPadding>(&mut data).map_err(|_| Unreadable::Cipher)?;
        }
        PrivProtocol::Aes128 => {
            let cipher = cfb_mode::Decryptor::<Aes128>::new_from_slices(key, &aes_iv(clock, salt)).map_err(|_| Unreadable::Cipher)?;
            cipher.decrypt(&mut data);
        }
        PrivProtocol::Aes256 => {
            let cipher = cfb_mode::Decryptor::<Aes256>::new_from_slices(key, &aes_iv(clock, salt)).map_err(|_| Unreadable::Cipher)?;
            cipher.decrypt(&mut data);
        }
    }
    Ok(data)
}

/// RFC 3414 8.1.1.1: the first eight octets are the key, the next eight, xor the salt, the IV.
fn des_key<'k>(key: &'k [u8], salt: &[u8; 8]) -> Result<(&'k [u8], [u8; 8]), Unreadable> {
    let (key, rest) = key.split_at_checked(DES_BLOCK).ok_or(Unreadable::Cipher)?;
    let before: [u8; 8] = rest.get(..DES_BLOCK).and_then(|iv| iv.try_into().ok()).ok_or(Unreadable::Cipher)?;
    Ok((key, std::array::from_fn(|at| before[at] ^ salt[at])))
}

fn aes_iv(clock: Clock, salt: &[u8; 8]) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..4].copy_from_slice(&clock.boots.to_be_bytes());
    iv[4..8].copy_from_slice(&clock.time.to_be_bytes());
    iv[8..].copy_from_slice(salt);
    iv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_decrypts_and_odd_lengths_are_errors() {
        let clock = Clock { boots: 3, time: 4711 };
        for (protocol, length) in [(PrivProtocol::Des, 16), (PrivProtocol::Aes128, 16), (PrivProtocol::Aes256, 32)] {
            let key: Vec<u8> = (1..=length).collect();
            let plain: Vec<u8> = (0..=36).collect();
            let (secret, salt) = encrypt(protocol, &key, clock, 99, &plain).unwrap();
            assert_ne!(secret[..8], plain[..8]);
            let back = decrypt(protocol, &key, clock, &salt, &secret).unwrap();
            assert_eq!(back[..plain.len()], plain);
            assert!(decrypt(protocol, &key, clock, &salt[1..], &secret).is_err());
            assert!(decrypt(protocol, &key[..4], clock, &salt, &secret).is_err());
            assert!(encrypt(protocol, &[], clock, 1, &plain).is_err());
        }
        assert!(decrypt(PrivProtocol::Des, &[1; 16], clock, &[0; 8], &[1, 2, 3]).is_err());
    }
}
