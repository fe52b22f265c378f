//! One SNMP agent over UDP: get, walk and set, with tries, timeouts and what the replies must look like.
//!
//! A read is tried again, with a fresh id each time; a SET is sent once, and no answer to it is `Fault::Unknown`. One request at a time
//! (`&mut self`): cheap switches answer no faster when asked twice. A reply must name objects that were asked for, in their order, else
//! it is `Fault::Garbled`. Credentials that are not proven here are shown in turn (`credentials`): a v2c community with the first request,
//! a v3 user once discovery was answered. Leaves out: SNMPv3 (`session`), what to ask. Shown by `tests/snmp/` against net-snmp and the
//! simulated agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::codec::{self, Kind, Pdu, Unreadable, status_word};
use super::keys::Extension;
use super::session::{Login, Session};
use super::transport::{Listening, SnmpSocket, Unanswered, elsewhere};
use super::walk::{Ask, REPLY_BINDINGS_MAX, Walk};
use super::{Agent, Binding, Cut, Leave, Oid, SetAnswer, Walked, not_let_out};
use crate::drivers::Fault;
use crate::drivers::credentials::{Turn, Turns};
use crate::drivers::gate::Datagram;
use crate::model::net::HostPort;
use crate::model::op::Device;
use crate::model::secret::SnmpLogin;
use async_trait::async_trait;

/// RFC 3417 section 3.1.
const PORT: u16 = 161;
/// RFC 3416 section 3, error-status.
const NO_SUCH_NAME: u32 = 2;
/// SNMPv2-MIB::sysUpTime, which every agent has.
const SYS_UP_TIME: [u32; 8] = [1, 3, 6, 1, 2, 1, 1, 3];

/// How long a device waits until it may show credentials that are not proven: a failed poll, which the worker begins again later.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// How long to wait for a reply, and how often to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The wait for the answer to the first try of a read; later tries wait twice as long.
    pub read: Duration,
    /// The wait for the answer to a SET, which is sent once.
    pub write: Duration,
    /// Tries of a read.
    pub tries: u32,
}

impl Default for Timing {
    /// Cheap switches take seconds to answer a SET (net-snmp issue 194: a GS724TP).
    fn default() -> Timing {
        Timing { read: Duration::from_secs(2), write: Duration::from_secs(5), tries: 3 }
    }
}

impl Timing {
    fn reads(&self) -> Vec<Duration> {
        (0..self.tries.max(1)).map(|attempt| if attempt == 0 { self.read } else { self.read * 2 }).collect()
    }
}

/// Whether an agent answers GETBULK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bulk {
    NotTried,
    /// The first was met with silence, and nothing else was answered since.
    Unanswered,
    Answered,
    /// It answers GETNEXT in its place: rows are read one by one from then on.
    Absent,
}

/// One agent. Its name is resolved when it is first asked, and again after silence.
pub struct UdpAgent {
    pub(super) device: String,
    pub(super) socket: Arc<SnmpSocket>,
    address: HostPort,
    login: SnmpLogin,
    pub(super) timing: Timing,
    peer: Option<SocketAddr>,
    /// How often `address` was resolved: each time the next of its addresses has its turn.
    resolved: usize,
    pub(super) session: Option<Session>,
    /// The extension that worked last; see `keys::Extension`.
    pub(super) extension: Extension,
    /// Smaller than `REPLY_BINDINGS_MAX` once the agent has said tooBig.
    bindings_max: usize,
    /// The turns of its credentials, and the device that takes one.
    turns: Option<(Device, Arc<Turns>)>,
    /// The community was taken here.
    community_taken: bool,
    /// See `Agent::unfinished`.
    unfinished: Option<(Oid, usize)>,
    bulk: Bulk,
    /// Where the first answer came from that was not from the address that is asked.
    pub(super) elsewhere: Option<SocketAddr>,
}

impl UdpAgent {
    pub fn new(device: String, socket: Arc<SnmpSocket>, address: HostPort, login: SnmpLogin, timing: Timing) -> UdpAgent {
        UdpAgent {
            device,
            socket,
            address,
            login,
            timing,
            peer: None,
            resolved: 0,
            session: None,
            extension: Extension::Blumenthal,
            bindings_max: REPLY_BINDINGS_MAX,
            turns: None,
            community_taken: false,
            unfinished: None,
            bulk: Bulk::NotTried,
            elsewhere: None,
        }
    }

    /// As this device, which shares its credentials with others.
    pub fn in_turn(mut self, device: Device, turns: Arc<Turns>) -> UdpAgent {
        self.turns = Some((device, turns));
        self
    }

    /// The right to show the credentials. It is to be held until they were answered.
    pub(super) async fn turn(&self) -> Result<Option<Turn>, Fault> {
        let Some((device, turns)) = &self.turns else { return Ok(None) };
        match tokio::time::timeout(TURN_WAIT, turns.pass(device)).await {
            Ok(turn) => turn.map(Some),
            Err(_) => {
                let why =
                    format!("other devices have been trying the same credentials for {TURN_WAIT:?}, which have not worked anywhere yet");
                Err(Fault::NotSent { device: self.device.clone(), what: "anything with credentials".to_owned(), why })
            }
        }
    }

    /// What became of credentials that were shown in turn: known before the turn ends.
    pub(super) fn shown<T>(&self, answer: &Result<T, Fault>) {
        match (&self.turns, answer) {
            (Some((device, turns)), Ok(_)) => turns.worked(device),
            (Some((device, turns)), Err(Fault::Denied { .. })) => turns.refused(device),
            (_, _) => {}
        }
    }

    async fn peer(&mut self) -> Result<SocketAddr, Fault> {
        if let Some(peer) = self.peer {
            return Ok(peer);
        }
        let unreachable = |source| Fault::Network { device: self.device.clone(), source };
        let (host, port) = self.address.with_port(PORT);
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await.map_err(unreachable)?.collect();
        let nobody = || unreachable(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"));
        let peer = found.get(self.resolved % found.len().max(1)).copied().ok_or_else(nobody)?;
        self.resolved = self.resolved.wrapping_add(1);
        self.peer = Some(peer);
        Ok(peer)
    }

    /// One request and its Response.
    async fn exchange(&mut self, pdu: &Pdu, what: &str, leave: Option<Leave<'_>>) -> Result<Pdu, Fault> {
        let peer = self.peer().await?;
        let answer = match self.login.clone() {
            SnmpLogin::V2c { community } => {
                let community = community.reveal().as_bytes();
                let answer = match self.community_taken {
                    true => self.plain(peer, pdu, what, community, leave).await,
                    false => self.plain_in_turn(peer, pdu, what, community, leave).await,
                };
                self.community_taken |= answer.is_ok();
                answer.map(|(reply, from)| {
                    self.elsewhere = self.elsewhere.or(elsewhere(from, peer));
                    reply
                })
            }
            SnmpLogin::V3 { username, auth, auth_password, privacy, priv_password } => {
                let login = Login { username, auth, auth_password, privacy, priv_password };
                self.secured(peer, pdu, what, leave, &login).await
            }
        };
        if matches!(answer, Err(Fault::Silent { .. } | Fault::Unknown { .. } | Fault::Network { .. })) {
            self.peer = None;
        }
        answer
    }

    /// A wrong community is met with silence, as nobody is: the turn ends when the first copy had its time.
    async fn plain_in_turn(
        &self,
        peer: SocketAddr,
        pdu: &Pdu,
        what: &str,
        community: &[u8],
        leave: Option<Leave<'_>>,
    ) -> Result<(Pdu, SocketAddr), Fault> {
        let turn = self.turn().await?;
        let mut asking = std::pin::pin!(self.plain(peer, pdu, what, community, leave));
        let answer = match tokio::time::timeout(self.timing.read, &mut asking).await {
            Ok(answer) => answer,
            Err(_) => {
                drop(turn);
                let answer = asking.await;
                self.shown(&answer);
                return answer;
            }
        };
        self.shown(&answer);
        drop(turn);
        answer
    }

    /// The Response, and where it came from.
    async fn plain(
        &self,
        peer: SocketAddr,
        pdu: &Pdu,
        what: &str,
        community: &[u8],
        leave: Option<Leave<'_>>,
    ) -> Result<(Pdu, SocketAddr), Fault> {
        let encode = |id, attempt| datagram(pdu.kind, codec::message(community, &try_of(pdu, id, attempt)));
        let judge = |bytes: &[u8], from: SocketAddr, listening: &Listening| {
            let reply = judge(bytes, community, elsewhere(from, peer).is_none(), |id| listening.has(id))?;
            Some(reply.map(|reply| (reply, from)))
        };
        match self.socket.ask(peer, &self.waits(pdu.kind), leave, encode, judge).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(unreadable)) => Err(self.unreadable(pdu.kind, what, unreadable)),
            Err(unanswered) => Err(self.unanswered(pdu.kind, what, unanswered)),
        }
    }

    pub(super) fn waits(&self, kind: Kind) -> Vec<Duration> {
        match kind {
            Kind::Set => vec![self.timing.write],
            Kind::Get | Kind::GetNext | Kind::GetBulk | Kind::Response | Kind::Report => self.timing.reads(),
        }
    }

    pub(super) fn unanswered(&self, kind: Kind, what: &str, unanswered: Unanswered) -> Fault {
        let device = self.device.clone();
        match unanswered {
            Unanswered::Network(source) => Fault::Network { device, source },
            Unanswered::Closed(closed) => not_let_out(&device, what, &closed),
            Unanswered::Silence { .. } if kind == Kind::Set => Fault::Unknown { device, what: what.to_owned() },
            Unanswered::Silence { attempts, waited } => Fault::Silent { device, attempts, waited },
        }
    }

    /// A SET whose answer does not read has perhaps happened.
    pub(super) fn unreadable(&self, kind: Kind, what: &str, unreadable: Unreadable) -> Fault {
        match kind {
            Kind::Set => Fault::Unknown { device: self.device.clone(), what: format!("{what} (its reply does not read: {unreadable})") },
            Kind::Get | Kind::GetNext | Kind::GetBulk | Kind::Response | Kind::Report => self.garbled(unreadable.to_string()),
        }
    }

    pub(super) fn garbled(&self, why: String) -> Fault {
        Fault::Garbled { device: self.device.clone(), why }
    }

    fn refused(&self, what: String, reply: &Pdu) -> Fault {
        Fault::Refused { device: self.device.clone(), what, code: status_word(reply.status) }
    }

    /// One GETBULK. False where its rows are to be asked for by GETNEXT: that tells which column is at fault, or that GETBULK is.
    async fn walk_bulk(&mut self, walk: &mut Walk, ask: &Ask, what: &str) -> Result<bool, Fault> {
        let reply = match self.ask_rows(Kind::GetBulk, ask, what).await {
            Err(Fault::Silent { .. }) if self.bulk == Bulk::NotTried => {
                self.bulk = Bulk::Unanswered;
                return Ok(false);
            }
            reply => reply?,
        };
        match reply.status {
            0 => {
                self.bulk = Bulk::Answered;
                walk.take(ask, reply.bindings).map_err(|why| self.garbled(why))?;
            }
            codec::TOO_BIG if walk.halve(ask) => self.bindings_max = walk.bindings_max(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// One GETNEXT; where it is refused, one for each of its columns.
    async fn walk_rows(&mut self, walk: &mut Walk, ask: &Ask, what: &str) -> Result<(), Fault> {
        let mut asks = vec![ask.by_row()];
        while let Some(ask) = asks.pop() {
            let reply = self.ask_rows(Kind::GetNext, &ask, what).await?;
            match reply.status {
                0 => {
                    walk.take(&ask, reply.bindings).map_err(|why| self.garbled(why))?;
                    self.without_bulk(what).await?;
                }
                _ if ask.after.len() > 1 => asks.extend(ask.singly()),
                // As SNMPv1 says that there is no more (RFC 3584 section 4.4).
                NO_SUCH_NAME => walk.end(&ask, None),
                status => walk.end(&ask, Some(&Cut::Refused(status_word(status)))),
            }
        }
        Ok(())
    }

    /// A row was answered that GETBULK did not get. That may have been the fault of a row behind it: the agent has no GETBULK if it refuses
    /// one for sysUpTime as well.
    async fn without_bulk(&mut self, what: &str) -> Result<(), Fault> {
        self.bulk = match self.bulk {
            Bulk::Answered | Bulk::Absent => self.bulk,
            Bulk::Unanswered => Bulk::Absent,
            Bulk::NotTried => match self.ask_rows(Kind::GetBulk, &Ask::one(&Oid(SYS_UP_TIME.to_vec())), what).await {
                Ok(reply) if reply.status == 0 => Bulk::Answered,
                Ok(_) | Err(Fault::Silent { .. }) => Bulk::Absent,
                Err(other) => return Err(other),
            },
        };
        Ok(())
    }

    /// Whether it answers at all.
    async fn answers(&mut self) -> bool {
        self.get_some(&[Oid([SYS_UP_TIME.as_slice(), &[0]].concat())]).await.is_ok()
    }

    async fn ask_rows(&mut self, kind: Kind, ask: &Ask, what: &str) -> Result<Pdu, Fault> {
        let mut pdu = Pdu::asking(kind, 0, ask.after.iter().cloned());
        if kind == Kind::GetBulk {
            pdu.index = ask.rows;
        }
        self.exchange(&pdu, what, None).await
    }

    /// One GET: the first of these objects, one at least; nothing where the agent said tooBig.
    async fn get_some(&mut self, oids: &[Oid]) -> Result<Option<Vec<Binding>>, Fault> {
        let what = format!("the reading of {}", listed(oids));
        let reply = self.exchange(&Pdu::asking(Kind::Get, 0, oids.iter().cloned()), &what, None).await?;
        match reply.status {
            0 => {}
            codec::TOO_BIG if oids.len() > 1 => return Ok(None),
            _ => {
                let culprit = (reply.index as usize).checked_sub(1).and_then(|at| oids.get(at));
                return Err(self.refused(culprit.map_or(what, |oid| format!("the reading of {oid}")), &reply));
            }
        }
        let found: Vec<Oid> = reply.bindings.iter().map(|(oid, _)| oid.clone()).collect();
        if found.is_empty() || !oids.starts_with(&found) {
            return Err(self.garbled(format!("asked for {}, it sent {}", listed(oids), listed(&found))));
        }
        Ok(Some(reply.bindings))
    }
}

#[async_trait]
impl Agent for UdpAgent {
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault> {
        self.unfinished = None;
        let mut found = Vec::with_capacity(oids.len());
        let mut most = self.bindings_max;
        while found.len() < oids.len() {
            let rest = &oids[found.len()..];
            let some = &rest[..rest.len().min(most)];
            match self.get_some(some).await? {
                Some(bindings) => {
                    most = if bindings.len() < some.len() { bindings.len() } else { most };
                    found.extend(bindings);
                }
                None => {
                    most = (some.len() / 2).max(1);
                    self.bindings_max = most;
                }
            }
        }
        Ok(found)
    }

    async fn walk(&mut self, columns: &[Oid], rows: usize) -> Result<Vec<Walked>, Fault> {
        let what = format!("the reading of {}", listed(columns));
        let mut walk = Walk::new(columns, rows, self.bindings_max);
        let mut by_row = self.bulk == Bulk::Absent;
        self.unfinished = None;
        while let Some(ask) = walk.ask() {
            let asked = match by_row {
                true => self.walk_rows(&mut walk, &ask, &what).await,
                false => self.walk_bulk(&mut walk, &ask, &what).await.map(|answered| by_row = !answered),
            };
            match asked {
                Err(Fault::Silent { .. }) if self.answers().await => walk.end(&ask, Some(&Cut::Silent)),
                asked => asked?,
            }
            self.unfinished = walk.longest().map(|(table, rows)| (table.clone(), rows));
        }
        self.unfinished = None;
        Ok(walk.walked())
    }

    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault> {
        let oids: Vec<Oid> = bindings.iter().map(|(oid, _)| oid.clone()).collect();
        let what = format!("the writing of {}", listed(&oids));
        let pdu = Pdu { kind: Kind::Set, request: 0, status: 0, index: 0, bindings: bindings.to_vec() };
        let reply = self.exchange(&pdu, &what, Some(leave)).await?;
        Ok(match reply.status {
            0 => SetAnswer::Accepted(reply.bindings),
            status => SetAnswer::Refused { status, index: reply.index },
        })
    }

    fn engine_id(&self) -> Option<Vec<u8>> {
        self.session.as_ref().map(|session| session.engine.clone())
    }

    fn unfinished(&self) -> Option<(Oid, usize)> {
        self.unfinished.clone().filter(|(_, rows)| *rows > 0)
    }

    fn notes(&self) -> Vec<String> {
        let by_row =
            (self.bulk == Bulk::Absent).then(|| "it does not answer GETBULK: its tables are read row by row, with GETNEXT".to_owned());
        let elsewhere = self.elsewhere.map(|from| match self.peer.is_some_and(|peer| peer.ip() == from.ip()) {
            // Perhaps another one each time.
            true => format!("it is asked at {} and answers from another port", self.address),
            false => format!("it is asked at {} and answers from {}", self.address, from.ip()),
        });
        by_row.into_iter().chain(elsewhere).collect()
    }
}

/// What a datagram is to one who asked with this community and these request-ids: the Response, why it does not read, or nothing where it is not
/// to be believed.
pub(crate) fn judge(bytes: &[u8], community: &[u8], from_peer: bool, asked: impl Fn(i32) -> bool) -> Option<Result<Pdu, Unreadable>> {
    match codec::read_message(bytes) {
        Ok((theirs, reply)) => (theirs == community && reply.kind == Kind::Response && asked(reply.request)).then_some(Ok(reply)),
        // What does not read shows nothing that fits but its sender.
        Err(unreadable) => from_peer.then_some(Err(unreadable)),
    }
}

/// A SET changes the agent, whatever its bytes are; nothing else does.
pub(super) fn datagram(kind: Kind, bytes: Vec<u8>) -> Datagram {
    match kind {
        Kind::Set => Datagram::Changes(bytes),
        Kind::Get | Kind::GetNext | Kind::GetBulk | Kind::Response | Kind::Report => Datagram::Asks(bytes),
    }
}

/// The PDU of one try. Each further try of a read asks for a quarter as much: a large reply may be what gets lost.
pub(super) fn try_of(pdu: &Pdu, id: u32, attempt: usize) -> Pdu {
    let less = |count: usize| (count >> (2 * attempt).min(31)).max(1);
    let mut pdu = Pdu { request: id as i32, ..pdu.clone() };
    match pdu.kind {
        Kind::Get => pdu.bindings.truncate(less(pdu.bindings.len())),
        Kind::GetBulk => pdu.index = less(pdu.index as usize) as u32,
        Kind::GetNext | Kind::Set | Kind::Response | Kind::Report => {}
    }
    pdu
}

/// The first few, for people.
fn listed(oids: &[Oid]) -> String {
    const SHOWN: usize = 3;
    let mut text = oids.iter().take(SHOWN).map(Oid::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more) = oids.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
