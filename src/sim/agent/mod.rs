//! The wire endpoint of a simulated SNMP agent: datagrams in, datagrams out, over any `Mib`.
//!
//! `SimAgent::answer` has no sockets and no clock of its own making; `serve` puts it on a UDP socket and plays the faults of the network.
//! Leaves out: what the objects mean and the rules between them (`Mib`). Invariant: no datagram makes it panic, and with the same seed
//! and the same requests it does the same. Shown by `tests/snmp/`, where net-snmp's programs are its managers.

mod secure;
pub(crate) mod table;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::drivers::switch::snmp::codec::{self, Kind, Pdu};
use crate::drivers::switch::snmp::keys::Extension;
use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::model::secret::SnmpLogin;
use crate::sim::mib::Mib;

pub use secure::SimUser;
pub use table::Table;

/// RFC 3416 section 3, the ones that this file says by itself.
const TOO_BIG: u32 = 1;
const GEN_ERR: u32 = 5;
const NO_ACCESS: u32 = 6;
/// A GETBULK for more is cut here, like net-snmp's at 100, only later.
const BINDINGS_MAX: usize = 1_000;
/// A reply that does not fit is cut (GETBULK) or tooBig: the largest UDP payload, less room for the message around the PDU.
const PDU_BYTES_MAX: usize = 65_000;

/// What goes wrong, chosen by the test. All off by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Requests lost on their way in, and replies on their way out, of a hundred each.
    pub lose_percent: u8,
    /// Replies, of a hundred, that come `late_by` later.
    pub late_percent: u8,
    pub late_by: Duration,
    /// Replies, of a hundred, that come twice.
    pub duplicate_percent: u8,
    /// Replies with more octets than this are lost, as their fragments are in some management networks.
    pub lose_above: Option<usize>,
    /// SETs are answered with a lie.
    pub lie: Option<Lie>,
    /// GETBULK replies end after this many bindings.
    pub reply_bindings_max: Option<usize>,
    /// Replies with a larger PDU than this are tooBig instead, GETBULK's too, as some agents do against RFC 3416.
    pub too_big_above: Option<usize>,
    /// v3: what cannot be decrypted is dropped without a Report, as net-snmp does.
    pub mute_on_wrong_key: bool,
    /// v3: unauthenticated Reports tell these boots instead of the true ones.
    pub false_boots: Option<u32>,
    /// This column has no end: after each row there is another one.
    pub endless: Option<Oid>,
    /// What is asked for in these subtrees, or after them up to their end, is answered with genErr.
    pub gen_err: Vec<Oid>,
    /// What is asked for there is not answered.
    pub mute: Vec<Oid>,
    /// The rows of these columns come in another order than that of their OIDs: the second half of them first.
    pub unordered: Vec<Oid>,
    /// After the last row of this column comes its first one again.
    pub loops: Option<Oid>,
    /// What becomes of a GETBULK.
    pub bulk: Option<NoBulk>,
    /// Replies leave from another address than the one that was asked.
    pub from_elsewhere: bool,
    /// Nothing is answered at all.
    pub silent: bool,
}

/// How an agent is without GETBULK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoBulk {
    GenErr,
    Silent,
}

/// How an agent lies about a SET. Each was seen: a Netgear GS110, a Foundry, and snmpsim (the last two).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// All is acknowledged, the first binding is done.
    FirstOnly,
    /// All is done, and genErr said.
    RefusedButDone,
    /// All is acknowledged, nothing is done.
    AcceptedNotDone,
    /// error-status 0, with noSuchInstance for values, and nothing is done.
    NoSuchInstance,
}

/// What a community or a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Read,
    Write,
}

/// One agent.
pub struct SimAgent {
    mib: Box<dyn Mib>,
    communities: Vec<(String, Access)>,
    engine: secure::Engine,
    pub faults: Faults,
    luck: StdRng,
    requests: u64,
}

impl SimAgent {
    /// Nobody may ask it anything yet. `seed` decides about its luck and its engine id.
    pub fn new(mib: Box<dyn Mib>, seed: u64) -> SimAgent {
        // RFC 3411 section 5, SnmpEngineID: an enterprise number (32473, RFC 5612's for examples), format 5 (octets).
        let engine = [&[0x80, 0, 0x7e, 0xd9, 5], seed.to_be_bytes().as_slice()].concat();
        SimAgent {
            mib,
            communities: Vec::new(),
            engine: secure::Engine::new(engine, seed),
            faults: Faults::default(),
            luck: StdRng::seed_from_u64(seed),
            requests: 0,
        }
    }

    /// SNMPv2c.
    pub fn with_community(mut self, community: &str, access: Access) -> SimAgent {
        self.communities.push((community.to_owned(), access));
        self
    }

    /// SNMPv3, at authPriv. Its keys take some milliseconds.
    pub fn with_user(mut self, user: SimUser) -> SimAgent {
        self.engine.add(user);
        self
    }

    /// Whoever has these credentials may write.
    pub fn with_login(self, login: &SnmpLogin) -> SimAgent {
        match login {
            SnmpLogin::V2c { community } => self.with_community(community.reveal(), Access::Write),
            SnmpLogin::V3 { username, auth, auth_password, privacy, priv_password } => self.with_user(SimUser {
                name: username.clone(),
                auth: *auth,
                auth_password: auth_password.reveal().to_owned(),
                privacy: *privacy,
                priv_password: priv_password.reveal().to_owned(),
                extension: Extension::Blumenthal,
                access: Access::Write,
            }),
        }
    }

    /// The engine starts again: one boot more, its time from zero.
    pub fn reboot(&mut self) {
        self.engine.reboot();
    }

    /// Another engine, as after a replacement: its users have the same passwords, and so other keys.
    pub fn replace_engine(&mut self, id: Vec<u8>, boots: u32) {
        self.engine.replace(id, boots);
    }

    /// Requests that came in so far, lost ones not counted.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Reports sent so far.
    pub fn reports(&self) -> u32 {
        self.engine.reports()
    }

    pub fn mib(&mut self) -> &mut dyn Mib {
        self.mib.as_mut()
    }

    /// The reply to one datagram, if it deserves one.
    pub fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        if codec::open_message(datagram).ok()?.0 == snmp2::Version::V3 as i64 {
            return self.answer_secured(datagram);
        }
        let (community, pdu) = codec::read_message(datagram).ok()?;
        let access = self.communities.iter().filter(|(name, _)| name.as_bytes() == community).map(|(_, access)| *access).max()?;
        let reply = self.respond(&pdu, access, PDU_BYTES_MAX)?;
        Some(codec::message(community, &reply))
    }

    /// The Response to a request PDU, of at most `room` octets.
    fn respond(&mut self, pdu: &Pdu, access: Access, room: usize) -> Option<Pdu> {
        self.requests += 1;
        let refused = |status, index| Pdu { kind: Kind::Response, status, index, ..pdu.clone() };
        match (pdu.kind, self.faults.bulk) {
            (Kind::GetBulk, Some(NoBulk::Silent)) => return None,
            (Kind::GetBulk, Some(NoBulk::GenErr)) => return Some(refused(GEN_ERR, 1)),
            _ => {}
        }
        if pdu.kind != Kind::Set && pdu.bindings.iter().any(|(oid, _)| self.faults.mute.iter().any(|under| oid.starts_with(under))) {
            return None;
        }
        let hidden = |(oid, _): &Binding| self.faults.gen_err.iter().any(|under| oid.starts_with(under));
        if let Some((index, _)) = (1..).zip(&pdu.bindings).find(|(_, binding)| pdu.kind != Kind::Set && hidden(binding)) {
            return Some(refused(GEN_ERR, index));
        }
        let bindings = match pdu.kind {
            Kind::Get => pdu.bindings.iter().map(|(oid, _)| (oid.clone(), self.mib.get(oid).unwrap_or(Value::NoSuchInstance))).collect(),
            Kind::GetNext => pdu.bindings.iter().map(|(oid, _)| self.next(oid)).collect(),
            Kind::GetBulk => self.bulk(pdu, room),
            Kind::Set if access < Access::Write => return Some(refused(NO_ACCESS, 1)),
            Kind::Set => match self.write(&pdu.bindings) {
                Ok(echoed) => echoed,
                Err((status, index)) => return Some(refused(status, index)),
            },
            Kind::Response | Kind::Report => return None,
        };
        let reply = Pdu { kind: Kind::Response, request: pdu.request, status: 0, index: 0, bindings };
        let limit = self.faults.too_big_above.unwrap_or(room).min(room);
        if codec::pdu_bytes(&reply).len() > limit {
            return Some(Pdu { status: TOO_BIG, bindings: Vec::new(), ..reply });
        }
        Some(reply)
    }

    /// What the reply to a SET holds, or its error-status and error-index.
    fn write(&mut self, bindings: &[Binding]) -> Result<Vec<Binding>, (u32, u32)> {
        let done = match self.faults.lie {
            None | Some(Lie::RefusedButDone) => bindings,
            Some(Lie::FirstOnly) => bindings.get(..1).unwrap_or_default(),
            Some(Lie::AcceptedNotDone | Lie::NoSuchInstance) => &[],
        };
        self.mib.set(done)?;
        match self.faults.lie {
            None | Some(Lie::FirstOnly | Lie::AcceptedNotDone) => Ok(bindings.to_vec()),
            Some(Lie::RefusedButDone) => Err((GEN_ERR, 1)),
            Some(Lie::NoSuchInstance) => Ok(bindings.iter().map(|(oid, _)| (oid.clone(), Value::NoSuchInstance)).collect()),
        }
    }

    fn next(&mut self, oid: &Oid) -> Binding {
        if let Some(row) = self.faults.endless.as_ref().and_then(|column| another(column, oid)) {
            return (row, Value::Integer(1));
        }
        if let Some(row) = self.out_of_order(oid) {
            return row;
        }
        self.mib.next(oid).unwrap_or_else(|| (oid.clone(), Value::EndOfMibView))
    }

    /// What comes next in a column whose rows do not come in order.
    fn out_of_order(&mut self, oid: &Oid) -> Option<Binding> {
        let column = self.faults.unordered.iter().chain(&self.faults.loops).find(|column| oid.starts_with(column))?.clone();
        let mut rows = self.mib.walked(&column).rows;
        if self.faults.unordered.contains(&column) {
            let half = rows.len() / 2;
            rows.rotate_left(half);
        }
        let at = match rows.iter().position(|(row, _)| row == oid) {
            Some(at) => at + 1,
            None => 0,
        };
        let behind = || if self.faults.loops.as_ref() == Some(&column) { rows.first().cloned() } else { None };
        rows.get(at).cloned().or_else(behind).or_else(|| self.mib.next(&Oid([column.0.as_slice(), &[u32::MAX]].concat())))
    }

    /// RFC 3416 section 4.2.3.
    fn bulk(&mut self, pdu: &Pdu, room: usize) -> Vec<Binding> {
        let most = self.faults.reply_bindings_max.unwrap_or(BINDINGS_MAX).min(BINDINGS_MAX);
        let (once, repeated) = pdu.bindings.split_at((pdu.status as usize).min(pdu.bindings.len()));
        let mut out: Vec<Binding> = once.iter().take(most).map(|(oid, _)| self.next(oid)).collect();
        let mut row: Vec<Oid> = repeated.iter().map(|(oid, _)| oid.clone()).collect();
        let mut bytes = 0;
        for _ in 0..pdu.index {
            let mut ended = true;
            for oid in &mut row {
                let binding = self.next(oid);
                *oid = binding.0.clone();
                ended &= binding.1 == Value::EndOfMibView;
                bytes += codec::pdu_bytes(&Pdu { bindings: vec![binding.clone()], ..pdu.clone() }).len();
                if out.len() >= most || bytes > room {
                    return out;
                }
                out.push(binding);
            }
            if ended {
                break;
            }
        }
        out
    }

    fn unlucky(&mut self, percent: u8) -> bool {
        percent > 0 && self.luck.random_range(0..100) < percent
    }

    /// One datagram through the faults: the replies to send, each after a while.
    fn suffer(&mut self, datagram: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let faults = self.faults.clone();
        if faults.silent || self.unlucky(faults.lose_percent) {
            return Vec::new();
        }
        let Some(reply) = self.answer(datagram) else { return Vec::new() };
        if faults.lose_above.is_some_and(|most| reply.len() > most) {
            return Vec::new();
        }
        let late = if self.unlucky(faults.late_percent) { faults.late_by } else { Duration::ZERO };
        let copies = if self.unlucky(faults.duplicate_percent) { 2 } else { 1 };
        if self.unlucky(faults.lose_percent) { Vec::new() } else { vec![(late, reply); copies] }
    }
}

/// The row of a column without an end that comes after this one.
fn another(column: &Oid, after: &Oid) -> Option<Oid> {
    let index = after.index_in(column)?;
    let (last, before) = index.split_last().unwrap_or((&0, &[]));
    Some(Oid([column.0.as_slice(), before, &[last.checked_add(1)?]].concat()))
}

/// A second address of this host.
const ELSEWHERE: (std::net::Ipv4Addr, u16) = (std::net::Ipv4Addr::new(127, 0, 0, 2), 0);

/// Answer on this socket until the socket fails or the future is dropped. The agent can be observed and its faults changed meanwhile.
pub async fn serve(socket: UdpSocket, agent: Arc<Mutex<SimAgent>>) -> io::Result<()> {
    let socket = Arc::new(socket);
    let elsewhere = Arc::new(UdpSocket::bind(ELSEWHERE).await?);
    let mut late = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = tokio::select! {
            biased;
            Some(_) = late.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received?,
        };
        let (replies, from_elsewhere) = {
            let mut agent = agent.lock().unwrap_or_else(PoisonError::into_inner);
            (agent.suffer(&buffer[..length]), agent.faults.from_elsewhere)
        };
        let socket = if from_elsewhere { &elsewhere } else { &socket };
        for (wait, reply) in replies {
            if wait.is_zero() {
                // A reply that cannot be sent is a lost reply.
                drop(socket.send_to(&reply, from).await);
            } else {
                let socket = socket.clone();
                late.spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop(socket.send_to(&reply, from).await);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent() -> SimAgent {
        let table = Table::parse("1.3.6.1.2.1.1.5.0|4|sw1").unwrap_or_default().writable();
        SimAgent::new(Box::new(table), 1).with_community("private", Access::Write)
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..120), kind in 0usize..5, index: u32, at in 0usize..60, with: u8) {
            let kind = [Kind::Get, Kind::GetNext, Kind::GetBulk, Kind::Set, Kind::Response][kind];
            let index = index & 0x7fff_ffff;
            let asked = Pdu { index, status: index, ..Pdu::asking(kind, 1, [Oid(vec![1, 3]), Oid(vec![1, 3, 6, 1, 2, 1, 1, 5, 0])]) };
            let mut bytes = codec::message(b"private", &asked);
            let mut agent = agent();
            let _ = (agent.answer(&noise), agent.answer(&bytes));
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = agent.answer(&bytes);
        }
    }

    #[test]
    fn the_same_seed_has_the_same_luck() {
        let fates = || {
            let mut agent = agent();
            agent.faults = Faults { lose_percent: 30, duplicate_percent: 30, ..Faults::default() };
            let bytes = codec::message(b"private", &Pdu::asking(Kind::Get, 1, [Oid(vec![1, 3])]));
            (0..100).map(|_| agent.suffer(&bytes).len()).collect::<Vec<_>>()
        };
        assert_eq!(fates(), fates());
        assert!([0, 1, 2].iter().all(|copies| fates().contains(copies)));
    }
}
