//! What an SNMP agent sends: v2c and v3 messages, whether they are believed, and what a walk makes of them.
//!
//! The input is any number of messages, one behind the other, as they are in the datagrams: each is as long as its outermost BER length says.
//! Keys are those of the user `fuzz` (SHA-256 and AES, password `fuzzfuzzfuzz`), so that what a real agent encrypted for him is decrypted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::LazyLock;

use super::hold;
use crate::drivers::switch::snmp::agent;
use crate::drivers::switch::snmp::codec::{Kind, Pdu, message, read_message, reply_id};
use crate::drivers::switch::snmp::keys::{Extension, Key, Keys, extend, localize, master, privacy_bytes};
use crate::drivers::switch::snmp::session::{self, Reply, Session};
use crate::drivers::switch::snmp::usm::{self, Level, Outgoing, Protection};
use crate::drivers::switch::snmp::walk::Walk;
use crate::drivers::switch::snmp::{Binding, Cut, Oid, Value};
use crate::model::secret::{AuthProtocol, PrivProtocol};

const COMMUNITY: &[u8] = b"public";
const USER: &str = "fuzz";
const PASSWORD: &[u8] = b"fuzzfuzzfuzz";
const AUTH: AuthProtocol = AuthProtocol::Sha256;
const PRIVACY: PrivProtocol = PrivProtocol::Aes128;
/// Of one input.
const MESSAGES: usize = 64;
/// The shortest binding: `30 04 06 00 05 00`.
const BINDING_BYTES: usize = 6;

static MASTER: LazyLock<Key> = LazyLock::new(|| master(AUTH, PASSWORD));

/// Messages as an agent sends them.
pub fn snmp(bytes: &[u8]) -> Result<(), String> {
    let mut replies = Vec::new();
    for one in messages(bytes) {
        let pdu = match plain(one)? {
            Some(pdu) => Some(pdu),
            None => secured(one, bytes.len())?,
        };
        replies.extend(pdu.filter(|pdu| pdu.kind == Kind::Response).map(|pdu| pdu.bindings));
    }
    walk(&replies, bytes.len())
}

fn messages(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !rest.is_empty() && found.len() < MESSAGES {
        let length = match rest {
            [_, short @ 0..=0x7f, ..] => 2 + usize::from(*short),
            [_, 0x81, length, ..] => 3 + usize::from(*length),
            [_, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => rest.len(),
        };
        let (one, behind) = rest.split_at(length.min(rest.len()));
        found.push(one);
        rest = behind;
    }
    found
}

/// A v2c message.
fn plain(bytes: &[u8]) -> Result<Option<Pdu>, String> {
    let (community, pdu) = match read_message(bytes) {
        Ok(read) => read,
        Err(_) => {
            hold(agent::judge(bytes, COMMUNITY, false, |_| true).is_none(), || "what does not read is believed from anywhere".to_owned())?;
            return Ok(None);
        }
    };
    small(&pdu, bytes.len())?;
    hold(reply_id(bytes) == u32::try_from(pdu.request).ok(), || {
        format!("{} is not the request-id {}", or_none(reply_id(bytes)), pdu.request)
    })?;
    let written = message(community, &pdu);
    hold(read_message(&written) == Ok((community, pdu.clone())), || format!("{pdu:?} is written as {written:02x?}"))?;
    let judged = |community: &[u8], asked: i32| agent::judge(bytes, community, true, |id| id == asked);
    let answer = judged(community, pdu.request);
    let expected = (pdu.kind == Kind::Response).then(|| Ok(pdu.clone()));
    hold(answer == expected, || format!("to who asked for it {pdu:?} is {answer:?}"))?;
    let others = [judged(&[community, b"x"].concat(), pdu.request), judged(community, pdu.request.wrapping_add(1))];
    hold(others == [None, None], || format!("{pdu:?} is believed by who did not ask for it"))?;
    Ok(Some(pdu))
}

fn or_none(id: Option<u32>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
}

/// A v3 message. `seed` picks what is bent.
fn secured(bytes: &[u8], seed: usize) -> Result<Option<Pdu>, String> {
    let Ok(incoming) = usm::read(bytes) else { return Ok(None) };
    hold(reply_id(bytes) == Some(incoming.id), || format!("{} is not the msgID {}", or_none(reply_id(bytes)), incoming.id))?;
    hold(incoming.engine.len() + incoming.user.len() <= bytes.len(), || "its names are longer than the message".to_owned())?;
    let protection = protection(incoming.engine);
    let session = Session::new(incoming.engine.to_vec(), incoming.clock, USER.to_owned(), protection.clone());
    let from = SocketAddr::from(([192, 0, 2, 1], 161));
    let is_ours = incoming.user == USER.as_bytes() && incoming.verify(AUTH, &protection.keys.auth);
    let scoped = incoming.open(Some(&protection));
    let (asked, none) = (session::judge(bytes, from, |_| true, &session), session::judge(bytes, from, |_| false, &session));
    let is_response = |reply: &Option<Reply>| matches!(reply, Some(Reply::Response(..)));
    let is_reply = scoped.as_ref().is_ok_and(|scoped| scoped.pdu.kind == Kind::Response);
    let believed = is_ours && is_reply && incoming.level == Level::AuthPriv;
    hold(is_response(&asked) == believed, || format!("a Response at {:?}: signed {is_ours}, believed {}", incoming.level, !believed))?;
    hold(!is_response(&none), || "a Response is believed that nobody asked for".to_owned())?;
    let Ok(scoped) = scoped else { return Ok(None) };
    small(&scoped.pdu, bytes.len())?;
    let outgoing = Outgoing {
        id: incoming.id,
        level: Level::AuthPriv,
        reportable: incoming.reportable,
        engine: incoming.engine,
        clock: incoming.clock,
        user: USER.as_bytes(),
        protection: Some(&protection),
        salt: seed as u64,
        context: &scoped.context,
        pdu: &scoped.pdu,
    };
    let mut written = outgoing.bytes().map_err(|why| format!("it cannot be written: {why}"))?;
    let again = usm::read(&written).map_err(|why| format!("what is written does not read: {why}"))?;
    hold(again.verify(AUTH, &protection.keys.auth), || "what is signed does not verify".to_owned())?;
    let back = again.open(Some(&protection)).map_err(|why| format!("what is encrypted does not decrypt: {why}"))?;
    hold(back.pdu == scoped.pdu && back.context == scoped.context, || format!("{:?} is read back as {:?}", scoped.pdu, back.pdu))?;
    let (at, bit) = (seed % written.len(), seed / written.len() % 8);
    if let Some(octet) = written.get_mut(at) {
        *octet ^= 1 << bit;
    }
    let bent = session::judge(&written, from, |_| true, &session);
    hold(!is_response(&bent), || format!("with bit {bit} of octet {at} bent it is still believed"))?;
    Ok(Some(scoped.pdu))
}

fn protection(engine: &[u8]) -> Protection {
    let short = localize(AUTH, &MASTER, engine);
    let privacy = extend(AUTH, &short, engine, privacy_bytes(PRIVACY), Extension::Blumenthal);
    Protection { auth: AUTH, privacy: PRIVACY, keys: Keys { auth: short, privacy } }
}

/// Nothing that is read takes more than the message has.
fn small(pdu: &Pdu, length: usize) -> Result<(), String> {
    let octets = |value: &Value| if let Value::Octets(octets) | Value::Opaque(octets) = value { octets.len() } else { 0 };
    let held: usize = pdu.bindings.iter().map(|(_, value)| octets(value)).sum();
    let arcs: usize = pdu.bindings.iter().map(|(oid, _)| oid.0.len()).sum();
    let count = pdu.bindings.len();
    let fits = count * BINDING_BYTES <= length && held <= length && arcs <= length + count;
    hold(fits, || format!("{count} bindings with {held} octets and {arcs} arcs are read from {length} octets"))
}

/// An agent that answers a walk with these replies, over and over.
fn walk(replies: &[Vec<Binding>], seed: usize) -> Result<(), String> {
    const COLUMNS: usize = 40;
    let oids: BTreeSet<&Oid> = replies.iter().flatten().map(|(oid, _)| oid).collect();
    let parent = |oid: &&Oid| Oid(oid.0.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default());
    let columns: BTreeSet<Oid> = oids.iter().map(parent).filter(|column| !column.0.is_empty()).take(COLUMNS).collect();
    let columns: Vec<Oid> = columns.into_iter().collect();
    // Each request brings a row, or the end of a column.
    let most = (oids.len() + 1) * columns.len();
    let mut walk = Walk::new(&columns, seed % 50, 1 + seed % 64);
    let mut requests = 0;
    for reply in replies.iter().cycle() {
        let Some(ask) = walk.ask() else { break };
        requests += 1;
        hold(requests <= most, || {
            format!("{requests} requests, and the walk of {} columns over {} rows goes on", columns.len(), oids.len())
        })?;
        let asked = ask.after.len() * ask.rows as usize;
        hold((1..=64).contains(&asked), || format!("one request for {asked} bindings"))?;
        // An empty reply ends the walk, and the driver says so.
        if walk.take(&ask, reply.clone()).is_err() {
            break;
        }
    }
    for (column, walked) in columns.iter().zip(walk.walked()) {
        let rows: BTreeSet<&Oid> = walked.rows.iter().map(|(oid, _)| oid).collect();
        hold(rows.len() == walked.rows.len(), || format!("{column} has a row twice"))?;
        hold(rows.iter().all(|oid| oid.starts_with(column) && *oid != column), || format!("{column} has a row of another column"))?;
        let ordered = walked.rows.is_sorted_by_key(|(oid, _)| oid);
        hold(ordered != walked.unordered, || format!("{column} is said to be unordered: {}", walked.unordered))?;
        if let Some(Cut::Loops(oid)) = &walked.cut {
            hold(rows.contains(oid), || format!("{column} is said to loop at {oid}, which came once"))?;
        }
    }
    Ok(())
}
