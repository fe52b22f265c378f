//! SNMPv3 messages as bytes (RFC 3412 section 6, RFC 3414 section 2.4), with authentication and privacy.
//!
//! ```text
//! SEQUENCE { version 3,
//!            SEQUENCE { msgID, msgMaxSize, msgFlags, msgSecurityModel 3 },
//!            OCTETS { SEQUENCE { engineID, boots, time, user, digest, salt } },
//!            SEQUENCE { contextEngineID, contextName, PDU }   or, encrypted, OCTETS }
//! ```
//!
//! Reading is by snmp2's `AsnReader`, not by its `Pdu::from_bytes_with_security`: that one writes through a shared reference, believes the
//! engine's boots and time before it has checked the digest, compares digests in variable time, and refuses msgMaxSize above 65,507.
//! Leaves out: whether a message is timely and what follows from it (`session`). Invariant: `read` believes nothing; only `verify` says
//! that a key's owner wrote the message, and `open` wants the level that it has. Shown by the tests below, and by `tests/snmp/`.

use snmp2::{AsnReader, asn1, snmp};
use subtle::ConstantTimeEq;

use super::codec::{self, Pdu, Unreadable, number, put, put_integer, wrap};
use super::keys::{Keys, digest, digest_bytes};
use super::privacy::{self, Clock};
use crate::model::secret::{AuthProtocol, PrivProtocol};

/// The User-based Security Model (RFC 3411 section 5, SnmpSecurityModel).
const USM: i64 = 3;
/// The largest message that we take: the largest UDP payload over IPv4.
const MESSAGE_BYTES_MAX: i64 = 65_507;

/// Security levels (RFC 3411 section 3.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    NoAuthNoPriv,
    AuthNoPriv,
    AuthPriv,
}

impl Level {
    fn flags(self) -> u8 {
        match self {
            Level::NoAuthNoPriv => 0,
            Level::AuthNoPriv => snmp::V3_MSG_FLAGS_AUTH,
            Level::AuthPriv => snmp::V3_MSG_FLAGS_AUTH | snmp::V3_MSG_FLAGS_PRIVACY,
        }
    }
}

impl PrivProtocol {
    /// At which level a user with this protocol speaks.
    pub(crate) fn level(self) -> Level {
        match self {
            PrivProtocol::None => Level::AuthNoPriv,
            PrivProtocol::Des | PrivProtocol::Aes128 | PrivProtocol::Aes256 => Level::AuthPriv,
        }
    }
}

/// How a user's messages are protected.
#[derive(Clone)]
pub struct Protection {
    pub auth: AuthProtocol,
    pub privacy: PrivProtocol,
    pub keys: Keys,
}

/// A message to be written. `protection` is not asked at `Level::NoAuthNoPriv`.
pub struct Outgoing<'a> {
    pub id: u32,
    pub level: Level,
    /// Whether a Report may answer it (RFC 3412 section 6.4): so with requests, not with replies.
    pub reportable: bool,
    pub engine: &'a [u8],
    pub clock: Clock,
    pub user: &'a [u8],
    pub protection: Option<&'a Protection>,
    pub salt: u64,
    pub context: &'a [u8],
    pub pdu: &'a Pdu,
}

impl Outgoing<'_> {
    /// An error where `protection` does not fit the level.
    pub fn bytes(&self) -> Result<Vec<u8>, Unreadable> {
        let mut scoped = Vec::new();
        put(&mut scoped, asn1::TYPE_OCTETSTRING, self.engine);
        put(&mut scoped, asn1::TYPE_OCTETSTRING, self.context);
        scoped.extend_from_slice(&codec::pdu_bytes(self.pdu));
        let scoped = wrap(asn1::TYPE_SEQUENCE, &scoped);
        let (data, salt) = match (self.level, self.protection) {
            (Level::NoAuthNoPriv | Level::AuthNoPriv, _) => (scoped, Vec::new()),
            (Level::AuthPriv, Some(with)) => {
                let (secret, salt) = privacy::encrypt(with.privacy, &with.keys.privacy, self.clock, self.salt, &scoped)?;
                (wrap(asn1::TYPE_OCTETSTRING, &secret), salt.to_vec())
            }
            (Level::AuthPriv, None) => return Err(Unreadable::Cipher),
        };
        let digest_length = match (self.level, self.protection) {
            (Level::NoAuthNoPriv, _) => 0,
            (Level::AuthNoPriv | Level::AuthPriv, Some(with)) => digest_bytes(with.auth),
            (Level::AuthNoPriv | Level::AuthPriv, None) => return Err(Unreadable::Digest),
        };
        let mut bytes = self.whole(&data, &vec![0; digest_length], &salt);
        if let (Level::AuthNoPriv | Level::AuthPriv, Some(with)) = (self.level, self.protection) {
            // The digest goes where its zeros are now: at the same distance from the end.
            let behind = wrap(asn1::TYPE_OCTETSTRING, &salt).len() + data.len();
            let at = bytes.len() - behind - digest_length;
            let code = digest(with.auth, &with.keys.auth, &[&bytes]);
            bytes[at..at + digest_length].copy_from_slice(&code[..digest_length]);
        }
        Ok(bytes)
    }

    fn whole(&self, data: &[u8], digest: &[u8], salt: &[u8]) -> Vec<u8> {
        let mut header = Vec::new();
        put_integer(&mut header, asn1::TYPE_INTEGER, i64::from(self.id));
        put_integer(&mut header, asn1::TYPE_INTEGER, MESSAGE_BYTES_MAX);
        let reportable = if self.reportable { snmp::V3_MSG_FLAGS_REPORTABLE } else { 0 };
        put(&mut header, asn1::TYPE_OCTETSTRING, &[self.level.flags() | reportable]);
        put_integer(&mut header, asn1::TYPE_INTEGER, USM);

        let mut security = Vec::new();
        put(&mut security, asn1::TYPE_OCTETSTRING, self.engine);
        put_integer(&mut security, asn1::TYPE_INTEGER, i64::from(self.clock.boots));
        put_integer(&mut security, asn1::TYPE_INTEGER, i64::from(self.clock.time));
        put(&mut security, asn1::TYPE_OCTETSTRING, self.user);
        put(&mut security, asn1::TYPE_OCTETSTRING, digest);
        put(&mut security, asn1::TYPE_OCTETSTRING, salt);

        let mut body = Vec::new();
        put_integer(&mut body, asn1::TYPE_INTEGER, snmp2::Version::V3 as i64);
        put(&mut body, asn1::TYPE_SEQUENCE, &header);
        put(&mut body, asn1::TYPE_OCTETSTRING, &wrap(asn1::TYPE_SEQUENCE, &security));
        body.extend_from_slice(data);
        wrap(asn1::TYPE_SEQUENCE, &body)
    }
}

/// A message as it came. Nothing in it is to be believed before `verify`.
#[derive(Debug)]
pub struct Incoming<'a> {
    whole: &'a [u8],
    pub id: u32,
    /// The largest message that the sender takes.
    pub bytes_max: u32,
    pub level: Level,
    pub reportable: bool,
    pub engine: &'a [u8],
    pub clock: Clock,
    pub user: &'a [u8],
    digest: &'a [u8],
    salt: &'a [u8],
    data: AsnReader<'a>,
}

/// A scoped PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoped {
    pub engine: Vec<u8>,
    pub context: Vec<u8>,
    pub pdu: Pdu,
}

/// The message's outside.
pub fn read(bytes: &[u8]) -> Result<Incoming<'_>, Unreadable> {
    let shape = |place| move |_| Unreadable::Shape { place };
    let (version, mut body) = codec::open_message(bytes)?;
    if version != snmp2::Version::V3 as i64 {
        return Err(Unreadable::Range { place: "the version" });
    }
    let mut header = AsnReader::from_bytes(body.read_raw(asn1::TYPE_SEQUENCE).map_err(shape("the header"))?);
    let id = number(&mut header, "msgID")?;
    let bytes_max = number(&mut header, "msgMaxSize")?;
    let flags = header.read_asn_octetstring().map_err(shape("msgFlags"))?;
    let flags = *flags.first().ok_or(Unreadable::Shape { place: "msgFlags" })?;
    if header.read_asn_integer().map_err(shape("msgSecurityModel"))? != USM {
        return Err(Unreadable::Range { place: "msgSecurityModel" });
    }
    let level = match (flags & snmp::V3_MSG_FLAGS_AUTH != 0, flags & snmp::V3_MSG_FLAGS_PRIVACY != 0) {
        (false, false) => Level::NoAuthNoPriv,
        (true, false) => Level::AuthNoPriv,
        (true, true) => Level::AuthPriv,
        (false, true) => return Err(Unreadable::Range { place: "msgFlags" }),
    };
    let security = body.read_asn_octetstring().map_err(shape("the security parameters"))?;
    let mut security = AsnReader::from_bytes(security);
    let mut security = AsnReader::from_bytes(security.read_raw(asn1::TYPE_SEQUENCE).map_err(shape("the security parameters"))?);
    let engine = security.read_asn_octetstring().map_err(shape("the engine id"))?;
    let boots = number(&mut security, "the engine's boots")?;
    let time = number(&mut security, "the engine's time")?;
    let user = security.read_asn_octetstring().map_err(shape("the user"))?;
    let digest = security.read_asn_octetstring().map_err(shape("the digest"))?;
    let salt = security.read_asn_octetstring().map_err(shape("the salt"))?;
    let reportable = flags & snmp::V3_MSG_FLAGS_REPORTABLE != 0;
    Ok(Incoming { whole: bytes, id, bytes_max, level, reportable, engine, clock: Clock { boots, time }, user, digest, salt, data: body })
}

impl Incoming<'_> {
    /// Whether the owner of this key wrote the message, in constant time. False for one without authentication.
    pub fn verify(&self, auth: AuthProtocol, key: &[u8]) -> bool {
        if self.level == Level::NoAuthNoPriv || self.digest.len() != digest_bytes(auth) {
            return false;
        }
        // The digest is a slice of the message: its place is the distance of their addresses.
        let at = self.digest.as_ptr().addr().wrapping_sub(self.whole.as_ptr().addr());
        let (Some(before), Some(behind)) = (self.whole.get(..at), self.whole.get(at + self.digest.len()..)) else { return false };
        let zeros = vec![0; self.digest.len()];
        let code = digest(auth, key, &[before, &zeros, behind]);
        code.get(..self.digest.len()).is_some_and(|code| code.ct_eq(self.digest).into())
    }

    /// The PDU, decrypted where it is encrypted. To be called on a message that was verified, or that needs no verification.
    pub fn open(&self, protection: Option<&Protection>) -> Result<Scoped, Unreadable> {
        let mut data = self.data.clone();
        match (self.level, protection) {
            (Level::NoAuthNoPriv | Level::AuthNoPriv, _) => scoped(&mut data),
            (Level::AuthPriv, Some(with)) => {
                let secret = data.read_asn_octetstring().map_err(|_| Unreadable::Shape { place: "the encrypted PDU" })?;
                let plain = privacy::decrypt(with.privacy, &with.keys.privacy, self.clock, self.salt, secret)?;
                // A wrong key gives noise, which does not read.
                scoped(&mut AsnReader::from_bytes(&plain))
                    .map_err(|error| if plain.first() == Some(&0x30) { error } else { Unreadable::Cipher })
            }
            (Level::AuthPriv, None) => Err(Unreadable::Cipher),
        }
    }
}

fn scoped(data: &mut AsnReader<'_>) -> Result<Scoped, Unreadable> {
    let shape = |place| move |_| Unreadable::Shape { place };
    let mut inside = AsnReader::from_bytes(data.read_raw(asn1::TYPE_SEQUENCE).map_err(shape("the scoped PDU"))?);
    let engine = inside.read_asn_octetstring().map_err(shape("the context's engine id"))?.to_vec();
    let context = inside.read_asn_octetstring().map_err(shape("the context's name"))?.to_vec();
    Ok(Scoped { engine, context, pdu: codec::read_pdu(&mut inside)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::keys::{Extension, extend, localize, master, privacy_bytes};
    use super::super::{Oid, Value, codec::Kind};
    use super::*;

    const ENGINE: &[u8] = &[0x80, 0, 0x1f, 0x88, 4, 1, 2, 3];

    fn protection(auth: AuthProtocol, privacy: PrivProtocol) -> Protection {
        let short = |password: &[u8]| localize(auth, &master(auth, password), ENGINE);
        let long = extend(auth, &short(b"privpass123"), ENGINE, privacy_bytes(privacy), Extension::Blumenthal);
        Protection { auth, privacy, keys: Keys { auth: short(b"authpass123"), privacy: long } }
    }

    fn message(level: Level, with: &Protection, pdu: &Pdu) -> Vec<u8> {
        let clock = Clock { boots: 7, time: 1234 };
        Outgoing {
            id: 99,
            level,
            reportable: true,
            engine: ENGINE,
            clock,
            user: b"joe",
            protection: Some(with),
            salt: 5,
            context: b"",
            pdu,
        }
        .bytes()
        .unwrap()
    }

    fn pairs() -> Vec<(AuthProtocol, PrivProtocol)> {
        use AuthProtocol::{Md5, Sha1, Sha224, Sha256, Sha384, Sha512};
        use PrivProtocol::{Aes128, Aes256, Des};
        [Md5, Sha1, Sha224, Sha256, Sha384, Sha512].iter().flat_map(|auth| [Des, Aes128, Aes256].map(|privacy| (*auth, privacy))).collect()
    }

    #[test]
    fn every_pair_reads_back_and_a_bent_octet_is_noticed() {
        let pdu = Pdu {
            kind: Kind::Response,
            request: 99,
            status: 0,
            index: 0,
            bindings: vec![(Oid(vec![1, 3, 6]), Value::Octets(vec![7; 200]))],
        };
        for (auth, privacy) in pairs() {
            let with = protection(auth, privacy);
            for level in [Level::AuthNoPriv, Level::AuthPriv] {
                let bytes = message(level, &with, &pdu);
                let read_back = read(&bytes).unwrap();
                assert_eq!((read_back.id, read_back.level, read_back.user), (99, level, b"joe".as_slice()));
                assert!(read_back.verify(auth, &with.keys.auth));
                assert_eq!(read_back.open(Some(&with)).unwrap().pdu, pdu);
                let mut bent = bytes.clone();
                if let Some(last) = bent.last_mut() {
                    *last ^= 1;
                }
                assert!(!read(&bent).unwrap().verify(auth, &with.keys.auth));
            }
            let other = Protection {
                keys: Keys { privacy: with.keys.privacy.iter().map(|b| b ^ 1).collect::<Vec<_>>().into(), ..with.keys.clone() },
                ..with.clone()
            };
            assert!(read(&message(Level::AuthPriv, &with, &pdu)).unwrap().open(Some(&other)).is_err());
        }
    }

    /// RFC 3412 allows 484..2^31-1; snmp2 refuses agents that announce more than 65,507.
    #[test]
    fn an_agent_may_take_larger_messages_than_we_do() {
        let with = protection(AuthProtocol::Sha1, PrivProtocol::Des);
        let mut bytes = message(Level::NoAuthNoPriv, &with, &Pdu::asking(Kind::Get, 99, []));
        let at = bytes.windows(5).position(|octets| octets == [2, 3, 0, 0xff, 0xe3]).unwrap();
        bytes[at + 4] = 0xff;
        assert_eq!(read(&bytes).unwrap().bytes_max, 65_535);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..200, with: u8, cut in 0usize..200) {
            let protection = protection(AuthProtocol::Sha256, PrivProtocol::Aes128);
            let pdu = Pdu::asking(Kind::Get, 99, [Oid(vec![1, 3, 6])]);
            let mut bytes = message(Level::AuthPriv, &protection, &pdu);
            let at = at % bytes.len();
            bytes[at] = with;
            for bytes in [bytes.as_slice(), &bytes[..cut.min(bytes.len())]] {
                if let Ok(incoming) = read(bytes) {
                    let _ = (incoming.verify(AuthProtocol::Sha256, &protection.keys.auth), incoming.open(Some(&protection)));
                }
            }
        }
    }
}
