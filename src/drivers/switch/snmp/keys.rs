//! USM keys from passwords (RFC 3414 A.2, RFC 7860; the extensions of draft-reeder-snmpv3-usm-3desede and draft-blumenthal-aes-usm).
//!
//! Own code on the RustCrypto hashes, because snmp2's derivation cannot be called alone, indexes into an empty password, and blocks.
//! A password hashes a megabyte (4 to 11 ms): that is done on a blocking thread and cached by protocol and password. The key of one
//! engine takes one more short hash, so that a thousand switches with one password cost one derivation, not a thousand.
//! Invariant: no password is in the cache's index, no key in `Debug`, and key vectors are wiped when dropped. Shown by the sample keys of
//! RFC 3414 A.3 and draft-reeder below.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::{Mac, SimpleHmac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::model::secret::{AuthProtocol, Hidden, PrivProtocol};

/// RFC 3414 11.2: a password has at least eight characters.
pub(crate) const PASSWORD_CHARS_MIN: usize = 8;
/// RFC 3414 A.2: the password is repeated to this many octets.
const REPEATED_BYTES: usize = 1 << 20;
/// Passwords remembered; more than this is churn, and a miss costs milliseconds.
const CACHED: usize = 256;

pub(crate) type Key = Zeroizing<Vec<u8>>;

/// How a key too short for the cipher is made longer. No message tells which one an agent uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// draft-blumenthal-aes-usm-04, 3.1.2.1: net-snmp and most others.
    Blumenthal,
    /// draft-reeder-snmpv3-usm-3desede-00, 2.1: Cisco and some others.
    Reeder,
}

impl Extension {
    pub fn other(self) -> Extension {
        match self {
            Extension::Blumenthal => Extension::Reeder,
            Extension::Reeder => Extension::Blumenthal,
        }
    }
}

/// The localized keys of one user on one engine.
#[derive(Clone)]
pub struct Keys {
    pub auth: Key,
    pub privacy: Key,
}

/// `$body` with `$hash` as the hash of `$protocol`.
macro_rules! with_hash {
    ($protocol:expr, $hash:ident => $body:expr) => {
        match $protocol {
            AuthProtocol::Md5 => {
                type $hash = md5::Md5;
                $body
            }
            AuthProtocol::Sha1 => {
                type $hash = sha1::Sha1;
                $body
            }
            AuthProtocol::Sha224 => {
                type $hash = sha2::Sha224;
                $body
            }
            AuthProtocol::Sha256 => {
                type $hash = sha2::Sha256;
                $body
            }
            AuthProtocol::Sha384 => {
                type $hash = sha2::Sha384;
                $body
            }
            AuthProtocol::Sha512 => {
                type $hash = sha2::Sha512;
                $body
            }
        }
    };
}

fn hash(protocol: AuthProtocol, parts: &[&[u8]]) -> Key {
    with_hash!(protocol, Hash => {
        let mut hash = Hash::new();
        parts.iter().for_each(|part| hash.update(part));
        Zeroizing::new(hash.finalize().to_vec())
    })
}

/// The message digest, not yet shortened.
pub(crate) fn digest(protocol: AuthProtocol, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    with_hash!(protocol, Hash => match SimpleHmac::<Hash>::new_from_slice(key) {
        Ok(mut mac) => {
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes().to_vec()
        }
        Err(_) => Vec::new(), // An HMAC takes a key of any length; no digest is a digest that matches nothing.
    })
}

/// How many octets of the digest are sent (RFC 3414 6.3.1 and 7.3.1, RFC 7860 4.1).
pub(crate) fn digest_bytes(protocol: AuthProtocol) -> usize {
    match protocol {
        AuthProtocol::Md5 | AuthProtocol::Sha1 => 12,
        AuthProtocol::Sha224 => 16,
        AuthProtocol::Sha256 => 24,
        AuthProtocol::Sha384 => 32,
        AuthProtocol::Sha512 => 48,
    }
}

/// Octets of key that the privacy protocol takes; DES: eight of key and eight of pre-IV.
pub(crate) fn privacy_bytes(protocol: PrivProtocol) -> usize {
    match protocol {
        PrivProtocol::None => 0,
        PrivProtocol::Des | PrivProtocol::Aes128 => 16,
        PrivProtocol::Aes256 => 32,
    }
}

/// Whether the two extensions give different keys for this pair.
pub(crate) fn is_extended(auth: AuthProtocol, privacy: PrivProtocol) -> bool {
    hash(auth, &[]).len() < privacy_bytes(privacy)
}

/// Ku: a megabyte of the password, hashed. An empty password has the key of nothing at all; callers refuse it earlier.
pub(crate) fn master(protocol: AuthProtocol, password: &[u8]) -> Key {
    if password.is_empty() {
        return hash(protocol, &[]);
    }
    let whole = REPEATED_BYTES / password.len();
    let rest = &password[..REPEATED_BYTES % password.len()];
    with_hash!(protocol, Hash => {
        let mut hash = Hash::new();
        (0..whole).for_each(|_| hash.update(password));
        hash.update(rest);
        Zeroizing::new(hash.finalize().to_vec())
    })
}

/// Kul: the key of one engine (RFC 3414 2.6).
pub(crate) fn localize(protocol: AuthProtocol, master: &[u8], engine: &[u8]) -> Key {
    hash(protocol, &[master, engine, master])
}

/// Kul made long enough. Reeder's way hashes a megabyte.
pub(crate) fn extend(protocol: AuthProtocol, key: &[u8], engine: &[u8], need: usize, how: Extension) -> Key {
    // Room for the last piece too: a vector that grows leaves its old octets behind, unwiped.
    let mut out = Zeroizing::new(Vec::with_capacity(need + 2 * key.len()));
    out.extend_from_slice(key);
    let mut last = Zeroizing::new(key.to_vec());
    while out.len() < need {
        let more = match how {
            Extension::Blumenthal => hash(protocol, &[&out]),
            Extension::Reeder => localize(protocol, &master(protocol, &last), engine),
        };
        out.extend_from_slice(&more);
        last = more;
    }
    out.truncate(need);
    out
}

/// By protocol and SHA-256 of the password.
type Cache = BTreeMap<(AuthProtocol, [u8; 32]), Arc<Key>>;

/// The keys of passwords.
#[derive(Default)]
pub(crate) struct MasterKeys(Mutex<Cache>);

impl MasterKeys {
    /// The master key of a password: from the cache, or derived on a blocking thread.
    pub(crate) async fn of(&self, protocol: AuthProtocol, password: &Hidden) -> io::Result<Arc<Key>> {
        let index = (protocol, Sha256::digest(password.reveal().as_bytes()).into());
        if let Some(key) = self.lock().get(&index) {
            return Ok(key.clone());
        }
        let password = password.clone();
        let derived = tokio::task::spawn_blocking(move || master(protocol, password.reveal().as_bytes())).await;
        let key = Arc::new(derived.map_err(io::Error::other)?);
        let mut cache = self.lock();
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(index, key.clone());
        Ok(key)
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of one user on one engine. On a blocking thread where that takes a megabyte's hash.
pub(crate) async fn localized(
    masters: (Arc<Key>, Arc<Key>),
    protocols: (AuthProtocol, PrivProtocol),
    engine: &[u8],
    how: Extension,
) -> io::Result<Keys> {
    let (auth, privacy) = protocols;
    let engine = engine.to_vec();
    let make = move || {
        let short = localize(auth, &masters.1, &engine);
        Keys { auth: localize(auth, &masters.0, &engine), privacy: extend(auth, &short, &engine, privacy_bytes(privacy), how) }
    };
    match how {
        Extension::Reeder if is_extended(auth, privacy) => tokio::task::spawn_blocking(make).await.map_err(io::Error::other),
        Extension::Reeder | Extension::Blumenthal => Ok(make()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 3414 A.3.1 and A.3.2.
    #[test]
    fn the_rfc_s_sample_keys() {
        let engine = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        let md5 = master(AuthProtocol::Md5, b"maplesyrup");
        assert_eq!(hex(&md5), "9faf3283884e92834ebc9847d8edd963");
        assert_eq!(hex(&localize(AuthProtocol::Md5, &md5, &engine)), "526f5eed9fcce26f8964c2930787d82b");
        let sha = master(AuthProtocol::Sha1, b"maplesyrup");
        assert_eq!(hex(&sha), "9fb5cc0381497b3793528939ff788d5d79145211");
        assert_eq!(hex(&localize(AuthProtocol::Sha1, &sha, &engine)), "6695febc9288e36282235fc7151f128497b38f3f");
    }

    #[test]
    fn extensions_begin_alike_and_end_differently() {
        let engine = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        let key = localize(AuthProtocol::Sha1, &master(AuthProtocol::Sha1, b"maplesyrup"), &engine);
        let blumenthal = extend(AuthProtocol::Sha1, &key, &engine, 32, Extension::Blumenthal);
        let reeder = extend(AuthProtocol::Sha1, &key, &engine, 32, Extension::Reeder);
        assert_eq!((blumenthal.len(), reeder.len()), (32, 32));
        assert_eq!((&blumenthal[..20], &reeder[..20]), (&key[..], &key[..]));
        assert_ne!(blumenthal[20..], reeder[20..]);
        // draft-reeder-snmpv3-usm-3desede-00, 3.2: the sample of a SHA key extended with maplesyrup and this engine.
        assert_eq!(hex(&reeder), "6695febc9288e36282235fc7151f128497b38f3f9b8b6d78936ba6e7d19dfd9c");
        assert!(is_extended(AuthProtocol::Sha224, PrivProtocol::Aes256) && !is_extended(AuthProtocol::Sha256, PrivProtocol::Aes256));
    }

    #[test]
    fn an_empty_password_does_not_panic() {
        assert_eq!(master(AuthProtocol::Sha1, b"").len(), 20);
    }

    #[tokio::test]
    async fn a_password_is_hashed_once() -> io::Result<()> {
        let keys = MasterKeys::default();
        let password = Hidden::new("maplesyrup".into());
        let (first, second) = (keys.of(AuthProtocol::Sha1, &password).await?, keys.of(AuthProtocol::Sha1, &password).await?);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &keys.of(AuthProtocol::Md5, &password).await?));
        Ok(())
    }
}
