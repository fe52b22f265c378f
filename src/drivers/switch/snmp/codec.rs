//! SNMP PDUs and v2c messages as bytes (RFC 3416, RFC 1901; BER of RFC 3417 section 8).
//!
//! Reading is by snmp2's `AsnReader` and its tags, but not by its `Pdu` and `Varbinds`: that iterator ends without a word at the first
//! binding it cannot read, so that a VLAN may seem to have no ports. Here an unreadable binding makes the whole message unreadable.
//! Writing is ours altogether: `snmp2::Pdu` cannot be built from outside its crate.
//! Leaves out: v3 (`usm`). Invariant: what `message` writes, `read_message` reads back equal, and no input makes either panic.
//! Shown by the tests below and by `tests/snmp/` against net-snmp.

use snmp2::{AsnReader, asn1, snmp};

use super::{Binding, Oid, Value};

/// Why a message does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not BER of the expected shape ({place})")]
    Shape { place: &'static str },
    #[error("{place} has a value out of its range")]
    Range { place: &'static str },
    #[error("a variable binding has the unknown type 0x{tag:02x}")]
    Type { tag: u8 },
    #[error("octets follow {place}")]
    Trailing { place: &'static str },
    #[error("its digest is wrong")]
    Digest,
    #[error("it cannot be decrypted")]
    Cipher,
}

/// PDU tags (RFC 3416 section 3), as far as a manager or an agent uses them here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Get,
    GetNext,
    GetBulk,
    Set,
    Response,
    Report,
}

impl Kind {
    fn tag(self) -> u8 {
        match self {
            Kind::Get => snmp::MSG_GET,
            Kind::GetNext => snmp::MSG_GET_NEXT,
            Kind::GetBulk => snmp::MSG_GET_BULK,
            Kind::Set => snmp::MSG_SET,
            Kind::Response => snmp::MSG_RESPONSE,
            Kind::Report => snmp::MSG_REPORT,
        }
    }

    fn of(tag: u8) -> Result<Kind, Unreadable> {
        [Kind::Get, Kind::GetNext, Kind::GetBulk, Kind::Set, Kind::Response, Kind::Report]
            .into_iter()
            .find(|kind| kind.tag() == tag)
            .ok_or(Unreadable::Shape { place: "the kind of PDU" })
    }
}

/// A PDU. In a GetBulk, `status` is non-repeaters and `index` is max-repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    pub kind: Kind,
    pub request: i32,
    pub status: u32,
    pub index: u32,
    pub bindings: Vec<Binding>,
}

impl Pdu {
    /// A request for the values of `oids`.
    pub fn asking(kind: Kind, request: i32, oids: impl IntoIterator<Item = Oid>) -> Pdu {
        Pdu { kind, request, status: 0, index: 0, bindings: oids.into_iter().map(|oid| (oid, Value::Null)).collect() }
    }
}

/// error-status in words (RFC 3416 section 3).
pub(crate) fn status_word(status: u32) -> String {
    const WORDS: [&str; 19] = [
        "noError",
        "tooBig",
        "noSuchName",
        "badValue",
        "readOnly",
        "genErr",
        "noAccess",
        "wrongType",
        "wrongLength",
        "wrongEncoding",
        "wrongValue",
        "noCreation",
        "inconsistentValue",
        "resourceUnavailable",
        "commitFailed",
        "undoFailed",
        "authorizationError",
        "notWritable",
        "inconsistentName",
    ];
    let word = WORDS.get(status as usize).unwrap_or(&"unknown error");
    format!("{word}({status})")
}

pub(super) const TOO_BIG: u32 = snmp::ERRSTATUS_TOOBIG;

/// `tag`, length and content.
pub(crate) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    put(&mut out, tag, content);
    out
}

/// Append `tag`, length and content.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let used = &bytes[length.leading_zeros() as usize / 8..];
        out.push(0x80 | used.len() as u8);
        out.extend_from_slice(used);
    }
    out.extend_from_slice(content);
}

/// Append an integer in the fewest octets, two's complement.
pub(crate) fn put_integer(out: &mut Vec<u8>, tag: u8, value: i64) {
    let bytes = value.to_be_bytes();
    let superfluous = |pair: &[u8]| matches!((pair[0], pair[1] & 0x80), (0, 0) | (0xff, 0x80));
    let skip = bytes.windows(2).take_while(|pair| superfluous(pair)).count();
    put(out, tag, &bytes[skip..]);
}

fn put_counter64(out: &mut Vec<u8>, value: u64) {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&value.to_be_bytes());
    let skip = bytes.windows(2).take_while(|pair| pair[0] == 0 && pair[1] & 0x80 == 0).count();
    put(out, snmp::TYPE_COUNTER64, &bytes[skip..]);
}

fn put_oid(out: &mut Vec<u8>, oid: &Oid) {
    let arc = |at: usize| u64::from(oid.0.get(at).copied().unwrap_or(0));
    let mut content = Vec::with_capacity(oid.0.len() + 4);
    let mut sub = |value: u64| {
        let groups = (64 - value.leading_zeros()).div_ceil(7).max(1);
        for group in (0..groups).rev() {
            let more = if group == 0 { 0 } else { 0x80 };
            content.push((value >> (7 * group)) as u8 & 0x7f | more);
        }
    };
    sub(arc(0) * 40 + arc(1));
    oid.0.iter().skip(2).for_each(|&arc| sub(u64::from(arc)));
    put(out, asn1::TYPE_OBJECTIDENTIFIER, &content);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Integer(number) => put_integer(out, asn1::TYPE_INTEGER, *number),
        Value::Octets(octets) => put(out, asn1::TYPE_OCTETSTRING, octets),
        Value::Oid(oid) => put_oid(out, oid),
        Value::Null => put(out, asn1::TYPE_NULL, &[]),
        Value::IpAddress(octets) => put(out, snmp::TYPE_IPADDRESS, octets),
        Value::Counter32(number) => put_integer(out, snmp::TYPE_COUNTER32, i64::from(*number)),
        Value::Unsigned32(number) => put_integer(out, snmp::TYPE_UNSIGNED32, i64::from(*number)),
        Value::TimeTicks(number) => put_integer(out, snmp::TYPE_TIMETICKS, i64::from(*number)),
        Value::Counter64(number) => put_counter64(out, *number),
        Value::Opaque(octets) => put(out, snmp::TYPE_OPAQUE, octets),
        Value::NoSuchObject => put(out, snmp::SNMP_NOSUCHOBJECT, &[]),
        Value::NoSuchInstance => put(out, snmp::SNMP_NOSUCHINSTANCE, &[]),
        Value::EndOfMibView => put(out, snmp::SNMP_ENDOFMIBVIEW, &[]),
    }
}

/// The PDU, with its tag.
pub(crate) fn pdu_bytes(pdu: &Pdu) -> Vec<u8> {
    let mut list = Vec::new();
    for (oid, value) in &pdu.bindings {
        let mut pair = Vec::new();
        put_oid(&mut pair, oid);
        put_value(&mut pair, value);
        put(&mut list, asn1::TYPE_SEQUENCE, &pair);
    }
    let mut body = Vec::with_capacity(list.len() + 24);
    put_integer(&mut body, asn1::TYPE_INTEGER, i64::from(pdu.request));
    put_integer(&mut body, asn1::TYPE_INTEGER, i64::from(pdu.status));
    put_integer(&mut body, asn1::TYPE_INTEGER, i64::from(pdu.index));
    put(&mut body, asn1::TYPE_SEQUENCE, &list);
    wrap(pdu.kind.tag(), &body)
}

/// A v2c message: `SEQUENCE { version 1, community, PDU }`.
pub fn message(community: &[u8], pdu: &Pdu) -> Vec<u8> {
    let mut body = Vec::new();
    put_integer(&mut body, asn1::TYPE_INTEGER, snmp2::Version::V2C as i64);
    put(&mut body, asn1::TYPE_OCTETSTRING, community);
    body.extend_from_slice(&pdu_bytes(pdu));
    wrap(asn1::TYPE_SEQUENCE, &body)
}

/// A v2c message's community and PDU.
pub fn read_message(bytes: &[u8]) -> Result<(&[u8], Pdu), Unreadable> {
    let (version, mut reader) = open_message(bytes)?;
    if version != snmp2::Version::V2C as i64 {
        return Err(Unreadable::Range { place: "the version" });
    }
    let community = reader.read_asn_octetstring().map_err(|_| Unreadable::Shape { place: "the community" })?;
    let pdu = read_pdu(&mut reader)?;
    Ok((community, pdu))
}

/// The outermost sequence: the version, and a reader of what follows.
pub(crate) fn open_message(bytes: &[u8]) -> Result<(i64, AsnReader<'_>), Unreadable> {
    let mut outer = AsnReader::from_bytes(bytes);
    let content = outer.read_raw(asn1::TYPE_SEQUENCE).map_err(|_| Unreadable::Shape { place: "the message" })?;
    let mut reader = AsnReader::from_bytes(content);
    let version = reader.read_asn_integer().map_err(|_| Unreadable::Shape { place: "the version" })?;
    Ok((version, reader))
}

/// What a reply is matched by, read from a datagram before anything in it is believed: the request-id of v2c, the msgID of v3.
pub(crate) fn reply_id(bytes: &[u8]) -> Option<u32> {
    let (version, mut reader) = open_message(bytes).ok()?;
    let id = if version == snmp2::Version::V3 as i64 {
        AsnReader::from_bytes(reader.read_raw(asn1::TYPE_SEQUENCE).ok()?).read_asn_integer().ok()?
    } else {
        reader.read_asn_octetstring().ok()?;
        let tag = reader.peek_byte().ok()?;
        AsnReader::from_bytes(reader.read_raw(tag).ok()?).read_asn_integer().ok()?
    };
    u32::try_from(id).ok()
}

/// One PDU, and nothing behind it.
pub(crate) fn read_pdu(reader: &mut AsnReader<'_>) -> Result<Pdu, Unreadable> {
    let shape = |place| move |_| Unreadable::Shape { place };
    let tag = reader.peek_byte().map_err(shape("the PDU"))?;
    let kind = Kind::of(tag)?;
    let mut body = AsnReader::from_bytes(reader.read_raw(tag).map_err(shape("the PDU"))?);
    if reader.bytes_left() > 0 {
        return Err(Unreadable::Trailing { place: "the PDU" });
    }
    let request = body.read_asn_integer().map_err(shape("the request-id"))?;
    let request = i32::try_from(request).map_err(|_| Unreadable::Range { place: "the request-id" })?;
    let status = number(&mut body, "error-status")?;
    let index = number(&mut body, "error-index")?;
    let mut list = AsnReader::from_bytes(body.read_raw(asn1::TYPE_SEQUENCE).map_err(shape("the variable bindings"))?);
    if body.bytes_left() > 0 {
        return Err(Unreadable::Trailing { place: "the variable bindings" });
    }
    let mut bindings = Vec::new();
    while list.bytes_left() > 0 {
        let mut pair = AsnReader::from_bytes(list.read_raw(asn1::TYPE_SEQUENCE).map_err(shape("a variable binding"))?);
        let name = read_oid(&mut pair)?;
        let value = read_value(&mut pair)?;
        if pair.bytes_left() > 0 {
            return Err(Unreadable::Trailing { place: "a variable binding" });
        }
        bindings.push((name, value));
    }
    Ok(Pdu { kind, request, status, index, bindings })
}

/// An INTEGER from 0 to 2^31-1.
pub(crate) fn number(reader: &mut AsnReader<'_>, place: &'static str) -> Result<u32, Unreadable> {
    let value = reader.read_asn_integer().map_err(|_| Unreadable::Shape { place })?;
    i32::try_from(value).ok().and_then(|v| u32::try_from(v).ok()).ok_or(Unreadable::Range { place })
}

fn read_oid(reader: &mut AsnReader<'_>) -> Result<Oid, Unreadable> {
    let raw = reader.read_asn_objectidentifier().map_err(|_| Unreadable::Shape { place: "an object identifier" })?;
    arcs(raw.as_bytes())
}

/// `snmp2::Oid::iter` takes the first octet alone for the first two arcs, and gives arcs of 64 bits; SMI's are of 32 (RFC 2578, 3.5).
fn arcs(content: &[u8]) -> Result<Oid, Unreadable> {
    const PLACE: &str = "an object identifier";
    if content.is_empty() {
        return Ok(Oid(vec![0, 0])); // Seen from agents that mean zeroDotZero.
    }
    let mut arcs = Vec::with_capacity(content.len() + 1);
    let mut value: u64 = 0;
    for &octet in content {
        value = value << 7 | u64::from(octet & 0x7f);
        if value > u64::from(u32::MAX) + 80 {
            return Err(Unreadable::Range { place: PLACE });
        }
        if octet & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (value / 40).min(2);
                arcs.push(first as u32);
                value -= first * 40;
            }
            arcs.push(u32::try_from(value).map_err(|_| Unreadable::Range { place: PLACE })?);
            value = 0;
        }
    }
    match content.last() {
        Some(octet) if octet & 0x80 == 0 => Ok(Oid(arcs)),
        _ => Err(Unreadable::Shape { place: PLACE }),
    }
}

fn read_value(reader: &mut AsnReader<'_>) -> Result<Value, Unreadable> {
    let tag = reader.peek_byte().map_err(|_| Unreadable::Shape { place: "a value" })?;
    match tag {
        snmp::TYPE_COUNTER32 => return word(reader, tag).map(Value::Counter32),
        snmp::TYPE_UNSIGNED32 => return word(reader, tag).map(Value::Unsigned32),
        snmp::TYPE_TIMETICKS => return word(reader, tag).map(Value::TimeTicks),
        _ => {}
    }
    match reader.next() {
        Some(snmp2::Value::Integer(number)) => Ok(Value::Integer(number)),
        Some(snmp2::Value::OctetString(octets)) => Ok(Value::Octets(octets.to_vec())),
        Some(snmp2::Value::ObjectIdentifier(oid)) => arcs(oid.as_bytes()).map(Value::Oid),
        Some(snmp2::Value::Null) => Ok(Value::Null),
        Some(snmp2::Value::IpAddress(octets)) => Ok(Value::IpAddress(octets)),
        Some(snmp2::Value::Counter64(number)) => Ok(Value::Counter64(number)),
        Some(snmp2::Value::Opaque(octets)) => Ok(Value::Opaque(octets.to_vec())),
        Some(snmp2::Value::NoSuchObject) => Ok(Value::NoSuchObject),
        Some(snmp2::Value::NoSuchInstance) => Ok(Value::NoSuchInstance),
        Some(snmp2::Value::EndOfMibView) => Ok(Value::EndOfMibView),
        // Not a match on our own enum: whatever else snmp2 reads is no SMI value.
        Some(_) | None => Err(Unreadable::Type { tag }),
    }
}

/// A 32-bit unsigned value. snmp2 cuts a longer one off; agents that forget the leading zero octet make it negative, which is meant well.
fn word(reader: &mut AsnReader<'_>, tag: u8) -> Result<u32, Unreadable> {
    let value = reader.read_i64_type(tag).map_err(|_| Unreadable::Type { tag })?;
    match (u32::try_from(value), i32::try_from(value)) {
        (Ok(word), _) => Ok(word),
        (Err(_), Ok(negative)) => Ok(negative as u32),
        (Err(_), Err(_)) => Err(Unreadable::Range { place: "a value of 32 bits" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn oid() -> impl Strategy<Value = Oid> {
        (0u32..2, 0u32..40, proptest::collection::vec(any::<u32>(), 0..12))
            .prop_map(|(first, second, rest)| Oid([vec![first, second], rest].concat()))
    }

    fn value() -> impl Strategy<Value = Value> {
        let octets = || proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            any::<i64>().prop_map(Value::Integer),
            octets().prop_map(Value::Octets),
            oid().prop_map(Value::Oid),
            Just(Value::Null),
            any::<[u8; 4]>().prop_map(Value::IpAddress),
            any::<u32>().prop_map(Value::Counter32),
            any::<u32>().prop_map(Value::Unsigned32),
            any::<u32>().prop_map(Value::TimeTicks),
            any::<u64>().prop_map(Value::Counter64),
            octets().prop_map(Value::Opaque),
            Just(Value::NoSuchObject),
            Just(Value::NoSuchInstance),
            Just(Value::EndOfMibView),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(request in 0..i32::MAX, status in 0u32..19, bindings in proptest::collection::vec((oid(), value()), 0..20)) {
            let pdu = Pdu { kind: Kind::Response, request, status, index: 3, bindings };
            let bytes = message(b"public", &pdu);
            prop_assert_eq!(read_message(&bytes), Ok((b"public".as_slice(), pdu.clone())));
            prop_assert_eq!(reply_id(&bytes), u32::try_from(request).ok());
            // The second opinion: snmp2's own reader sees the same number of bindings, under the same names.
            let theirs = snmp2::Pdu::from_bytes(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(theirs.req_id, request);
            let names: Vec<Vec<u8>> = theirs.varbinds.map(|(name, _)| name.as_bytes().to_vec()).collect();
            prop_assert_eq!(names.len(), pdu.bindings.len());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..100, with: u8) {
            let _ = (read_message(&bytes), reply_id(&bytes));
            let good = Pdu::asking(Kind::Get, 7, [Oid(vec![1, 3, 6, 1, 2, 1, 1, 1, 0]), Oid(vec![2, 999, 70_000])]);
            let mut bent = message(b"public", &good);
            let at = at % bent.len();
            bent[at] = with;
            let _ = (read_message(&bent), reply_id(&bent));
        }
    }

    /// Types that end snmp2's iterator silently: here they are errors.
    #[test]
    fn an_unreadable_binding_is_an_error_not_the_end() {
        let broken: [(&[u8], Unreadable); 5] = [
            (&[0x45, 1, 0], Unreadable::Type { tag: 0x45 }),
            (&[0x47, 1, 0], Unreadable::Type { tag: 0x47 }),
            (&[0x02, 0], Unreadable::Type { tag: 0x02 }),
            (&[0x40, 3, 1, 2, 3], Unreadable::Type { tag: 0x40 }),
            (&[0x42, 5, 1, 0, 0, 0, 0], Unreadable::Range { place: "a value of 32 bits" }),
        ];
        for (value, expected) in broken {
            let name = [0x06, 3, 0x2b, 6, 1];
            let first = wrap(0x30, &[&name[..], &[0x02, 1, 1]].concat());
            let second = wrap(0x30, &[&name[..], value].concat());
            let list = wrap(0x30, &[first, second].concat());
            let body = wrap(0xa2, &[&[2, 1, 9, 2, 1, 0, 2, 1, 0], list.as_slice()].concat());
            let bytes = wrap(0x30, &[&[2, 1, 1, 4, 1, b'c'], body.as_slice()].concat());
            assert_eq!(read_message(&bytes), Err(expected));
        }
    }
}
