//! SNMPv3 of one agent: discovery, the engine's clock, and what its Reports mean (RFC 3412, RFC 3414).
//!
//! The first discovery is believed as far as it must be: its engine id makes the keys, and an authenticated answer to a read with those
//! keys (`confirm`) is what makes a session. From then on only authenticated messages move the clock. Those may move it backwards too, for
//! agents that forget their boots: every believed message carries the fresh msgID of our own request, so it cannot be an old one.
//! A Report says that a request was not processed: after an authenticated one the request goes out once more, a SET too (through the gate
//! again). To another engine than it was meant for only a read goes; of a SET after a Report that nobody signed, the outcome is unknown.
//! Leaves out: tries and timeouts (`agent`, `transport`). Shown by `tests/snmp/`: every pair of protocols, wrong passwords, restarts.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::agent::{UdpAgent, datagram, try_of};
use super::codec::{Kind, Pdu, Unreadable};
use super::keys::{self, PASSWORD_CHARS_MIN};
use super::privacy::Clock;
use super::transport::{Listening, Unanswered, elsewhere};
use super::usm::{self, Level, Outgoing, Protection};
use super::{Leave, Oid};
use crate::drivers::Fault;
use crate::model::secret::{AuthProtocol, Hidden, PrivProtocol};

/// RFC 3414 section 3.2: usmStats, all under 1.3.6.1.6.3.15.1.1, each a Counter32 with the instance 0.
const USM_STATS: [u32; 9] = [1, 3, 6, 1, 6, 3, 15, 1, 1];
/// SNMPv2-MIB::sysUpTime.0, which every agent has: the read that confirms a session.
const SYS_UP_TIME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 3, 0];
/// RFC 3411 section 5, SnmpEngineID. It also wants five at least; nothing depends on that.
const ENGINE_ID_BYTES_MAX: usize = 32;

/// A v3 login, apart from the enum that it comes in.
pub(super) struct Login {
    pub username: String,
    pub auth: AuthProtocol,
    pub auth_password: Hidden,
    pub privacy: PrivProtocol,
    pub priv_password: Hidden,
}

/// What is known of an agent's engine.
#[derive(Clone)]
pub(crate) struct Session {
    pub engine: Vec<u8>,
    clock: Clock,
    /// When `clock` was right.
    since: Instant,
    user: String,
    protection: Protection,
}

impl Session {
    pub(crate) fn new(engine: Vec<u8>, clock: Clock, user: String, protection: Protection) -> Session {
        Session { engine, clock, since: Instant::now(), user, protection }
    }

    fn clock(&self) -> Clock {
        let passed = u32::try_from(self.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        Clock { time: self.clock.time.saturating_add(passed).min(i32::MAX as u32), ..self.clock }
    }

    fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
        self.since = Instant::now();
    }
}

/// Why the agent did not process a request (RFC 3414 section 3.2, RFC 3412 section 7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Complaint {
    UnsupportedLevel,
    NotInTimeWindow,
    UnknownUser,
    UnknownEngine,
    WrongDigest,
    Decryption,
    Other(Oid),
}

impl Complaint {
    fn of(pdu: &Pdu) -> Complaint {
        let Some((oid, _)) = pdu.bindings.first() else { return Complaint::Other(Oid::default()) };
        match oid.0.strip_prefix(&USM_STATS) {
            Some([1, ..]) => Complaint::UnsupportedLevel,
            Some([2, ..]) => Complaint::NotInTimeWindow,
            Some([3, ..]) => Complaint::UnknownUser,
            Some([4, ..]) => Complaint::UnknownEngine,
            Some([5, ..]) => Complaint::WrongDigest,
            Some([6, ..]) => Complaint::Decryption,
            Some(_) | None => Complaint::Other(oid.clone()),
        }
    }
}

/// A reply that may be believed as far as its level goes.
pub(crate) enum Reply {
    /// At our own level, with the engine's clock and the address that it came from.
    Response(Pdu, Clock, SocketAddr),
    /// The clock only where the Report was authenticated.
    Report(Complaint, Option<Clock>),
    /// Ours by its digest, but it does not read.
    Unreadable(Unreadable),
}

impl Reply {
    /// Whether it is the agent's, wherever it came from: it was authenticated. And what makes a session begin anew proves itself by that.
    fn counts_from_anywhere(&self) -> bool {
        match self {
            Reply::Response(..) | Reply::Unreadable(_) | Reply::Report(_, Some(_)) | Reply::Report(Complaint::UnknownEngine, None) => true,
            Reply::Report(_, None) => false,
        }
    }
}

/// What discovery found: nothing of it is authenticated.
struct Discovered {
    engine: Vec<u8>,
    clock: Clock,
}

/// How a session that was to be confirmed failed, when another key extension may still do better.
enum Unconfirmed {
    Encryption(Fault),
    Final(Fault),
}

impl UdpAgent {
    /// One request and its Response, at authPriv, or authNoPriv where the login has no privacy protocol.
    pub(super) async fn secured(
        &mut self,
        peer: SocketAddr,
        pdu: &Pdu,
        what: &str,
        leave: Option<Leave<'_>>,
        login: &Login,
    ) -> Result<Pdu, Fault> {
        self.check(login)?;
        // A copy, so that a request given up in the middle leaves the session as it was.
        let mut session = match self.session.clone() {
            Some(session) => session,
            None => self.open(peer, login).await?,
        };
        let answer = self.in_session(peer, &mut session, pdu, what, leave, login).await;
        self.session = Some(session);
        answer
    }

    /// RFC 3414 11.2. A shorter password is refused by every agent, and an empty one has no key.
    fn check(&self, login: &Login) -> Result<(), Fault> {
        let encrypts = login.privacy != PrivProtocol::None;
        let passwords = [("authentication", &login.auth_password, true), ("privacy", &login.priv_password, encrypts)];
        for (name, password, _) in passwords.into_iter().filter(|(.., asked)| *asked) {
            let length = password.reveal().chars().count();
            if length < PASSWORD_CHARS_MIN {
                let why =
                    format!("the {name} password has {length} characters, SNMPv3 wants at least {PASSWORD_CHARS_MIN} (nothing was sent)");
                return Err(self.denied(why));
            }
        }
        Ok(())
    }

    async fn in_session(
        &mut self,
        peer: SocketAddr,
        session: &mut Session,
        pdu: &Pdu,
        what: &str,
        leave: Option<Leave<'_>>,
        login: &Login,
    ) -> Result<Pdu, Fault> {
        let (mut resynced, mut rediscovered) = (false, false);
        loop {
            match self.once(peer, session, pdu, &self.waits(pdu.kind), leave).await {
                Ok(Reply::Response(reply, clock, from)) => {
                    session.set_clock(clock);
                    self.elsewhere = self.elsewhere.or(elsewhere(from, peer));
                    return Ok(reply);
                }
                Ok(Reply::Report(Complaint::NotInTimeWindow, Some(clock))) if !resynced => {
                    session.set_clock(clock);
                    resynced = true;
                }
                Ok(Reply::Report(Complaint::UnknownEngine | Complaint::NotInTimeWindow, _)) if !rediscovered => {
                    // The Report was not authenticated, and perhaps not the agent's: a SET may have been processed.
                    let unknown = Fault::Unknown { device: self.device.clone(), what: what.to_owned() };
                    let found = match (self.open(peer, login).await, leave) {
                        (Err(_), Some(_)) => return Err(unknown),
                        (found, _) => found?,
                    };
                    let other = found.engine != session.engine;
                    let before = std::mem::replace(session, found);
                    match leave {
                        Some(leave) if other => return Err(self.other_engine(&before, session, what, leave)),
                        Some(_) => return Err(unknown),
                        None => rediscovered = true,
                    }
                }
                Ok(Reply::Report(complaint, _)) => return Err(self.complained(&complaint, login)),
                Ok(Reply::Unreadable(unreadable)) => return Err(self.unreadable(pdu.kind, what, unreadable)),
                Err(unanswered) => return Err(self.unanswered(pdu.kind, what, unanswered)),
            }
        }
    }

    /// A SET was sent to an engine that is not there (any more), and one that is refused it: to that one it is not sent.
    fn other_engine(&self, before: &Session, now: &Session, what: &str, leave: Leave<'_>) -> Fault {
        let hex = |engine: &[u8]| engine.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let (expected, found) = (format!("engine {}", hex(&before.engine)), format!("engine {}", hex(&now.engine)));
        match leave.permit.pinned.engine.is_some() {
            true => Fault::OtherDevice { device: self.device.clone(), expected, found },
            false => self.not_sent(what, format!("{found} answers in place of {expected}")),
        }
    }

    fn not_sent(&self, what: &str, why: String) -> Fault {
        Fault::NotSent { device: self.device.clone(), what: what.to_owned(), why }
    }

    /// Discovery, keys, and one read that proves them. Where two key extensions are possible, the one that answers.
    async fn open(&mut self, peer: SocketAddr, login: &Login) -> Result<Session, Fault> {
        let found = self.discover(peer).await?;
        // Only now: a device that is not there keeps nobody waiting.
        let _turn = self.turn().await?;
        let opened = self.prove(peer, login, &found).await;
        self.shown(&opened);
        opened
    }

    async fn prove(&mut self, peer: SocketAddr, login: &Login, found: &Discovered) -> Result<Session, Fault> {
        let no_keys = |source: io::Error| Fault::Network { device: self.device.clone(), source };
        let masters = (
            self.socket.master_keys().of(login.auth, &login.auth_password).await.map_err(no_keys)?,
            self.socket.master_keys().of(login.auth, &login.priv_password).await.map_err(no_keys)?,
        );
        let ways =
            if keys::is_extended(login.auth, login.privacy) { vec![self.extension, self.extension.other()] } else { vec![self.extension] };
        let mut last = None;
        for way in ways {
            let keys = keys::localized(masters.clone(), (login.auth, login.privacy), &found.engine, way).await;
            let keys = keys.map_err(|source| Fault::Network { device: self.device.clone(), source })?;
            let protection = Protection { auth: login.auth, privacy: login.privacy, keys };
            let session = Session::new(found.engine.clone(), found.clock, login.username.clone(), protection);
            match self.confirm(peer, session, login).await {
                Ok(session) => {
                    self.extension = way;
                    return Ok(session);
                }
                // Silence outweighs a refusal: it may have been the right keys' answer that was lost.
                Err(Unconfirmed::Encryption(fault)) => last = last.filter(|before| matches!(before, Fault::Silent { .. })).or(Some(fault)),
                Err(Unconfirmed::Final(fault)) => return Err(fault),
            }
        }
        Err(last.unwrap_or_else(|| self.garbled("no key extension was tried".to_owned())))
    }

    /// The engine id, and a first guess at its clock (RFC 3414 section 4).
    async fn discover(&self, peer: SocketAddr) -> Result<Discovered, Fault> {
        let encode = |id: u32, _| {
            let pdu = Pdu { request: id as i32, ..Pdu::asking(Kind::Get, 0, []) };
            let clock = Clock { boots: 0, time: 0 };
            let level = Level::NoAuthNoPriv;
            let message =
                Outgoing { id, level, reportable: true, engine: b"", clock, user: b"", protection: None, salt: 0, context: b"", pdu: &pdu };
            // At this level nothing can go wrong; an empty datagram would be silence.
            datagram(pdu.kind, message.bytes().unwrap_or_default())
        };
        let judge = |bytes: &[u8], _: SocketAddr, _: &Listening| {
            let incoming = usm::read(bytes).ok()?;
            (1..=ENGINE_ID_BYTES_MAX)
                .contains(&incoming.engine.len())
                .then(|| Discovered { engine: incoming.engine.to_vec(), clock: incoming.clock })
        };
        let answer = self.socket.ask(peer, &self.waits(Kind::Get), None, encode, judge).await;
        answer.map_err(|unanswered| self.unanswered(Kind::Get, "discovery", unanswered))
    }

    /// One authenticated and encrypted read (as far as the login encrypts); the clock is set by its answer.
    async fn confirm(&self, peer: SocketAddr, mut session: Session, login: &Login) -> Result<Session, Unconfirmed> {
        let pdu = Pdu::asking(Kind::Get, 0, [Oid(SYS_UP_TIME.to_vec())]);
        let mut resynced = false;
        loop {
            match self.once(peer, &session, &pdu, &self.waits(Kind::Get), None).await {
                Ok(Reply::Response(_, clock, _)) => {
                    session.set_clock(clock);
                    return Ok(session);
                }
                Ok(Reply::Report(Complaint::NotInTimeWindow, Some(clock))) if !resynced => {
                    session.set_clock(clock);
                    resynced = true;
                }
                Ok(Reply::Report(Complaint::Decryption, _)) => {
                    return Err(Unconfirmed::Encryption(self.complained(&Complaint::Decryption, login)));
                }
                Ok(Reply::Report(complaint, _)) => return Err(Unconfirmed::Final(self.complained(&complaint, login))),
                Ok(Reply::Unreadable(unreadable)) => return Err(Unconfirmed::Encryption(self.garbled(unreadable.to_string()))),
                Err(Unanswered::Silence { attempts, waited }) => return Err(Unconfirmed::Encryption(self.silent(login, attempts, waited))),
                Err(unanswered @ (Unanswered::Network(_) | Unanswered::Closed(_))) => {
                    return Err(Unconfirmed::Final(self.unanswered(Kind::Get, "the proof of the keys", unanswered)));
                }
            }
        }
    }

    /// The tries of one request. A reply that is not for us, or not by the engine, is as if it had not come.
    async fn once(
        &self,
        peer: SocketAddr,
        session: &Session,
        pdu: &Pdu,
        waits: &[Duration],
        leave: Option<Leave<'_>>,
    ) -> Result<Reply, Unanswered> {
        let user = session.user.as_bytes();
        let encode = |id, attempt| {
            let pdu = try_of(pdu, id, attempt);
            let message = Outgoing {
                id,
                level: session.protection.privacy.level(),
                reportable: true,
                engine: &session.engine,
                clock: session.clock(),
                user,
                protection: Some(&session.protection),
                salt: self.socket.salt(),
                context: b"",
                pdu: &pdu,
            };
            datagram(pdu.kind, message.bytes().unwrap_or_default())
        };
        let judge = |bytes: &[u8], from: SocketAddr, listening: &Listening| {
            let reply = judge(bytes, from, |id| listening.has(id), session)?;
            (elsewhere(from, peer).is_none() || reply.counts_from_anywhere()).then_some(reply)
        };
        self.socket.ask(peer, waits, leave, encode, judge).await
    }

    fn denied(&self, why: String) -> Fault {
        Fault::Denied { device: self.device.clone(), why }
    }

    /// The agent answers discovery, so it is there; most drop what they cannot decrypt without a word.
    fn silent(&self, login: &Login, attempts: u32, waited: Duration) -> Fault {
        let hint = match login.privacy {
            PrivProtocol::None => "answers SNMPv3 discovery, but no request of this user",
            _ => "answers SNMPv3 discovery, but no encrypted request: is the privacy password or protocol wrong?",
        };
        Fault::Silent { device: format!("{} ({hint})", self.device), attempts, waited }
    }

    fn complained(&self, complaint: &Complaint, login: &Login) -> Fault {
        let user = &login.username;
        match complaint {
            Complaint::UnknownUser => self.denied(format!("it knows no SNMPv3 user `{user}` (unknownUserName)")),
            Complaint::WrongDigest => {
                self.denied(format!("the authentication password or protocol of the user `{user}` is wrong (wrongDigest)"))
            }
            Complaint::UnsupportedLevel => {
                self.denied(format!("the user `{user}` has no authentication and encryption there (unsupportedSecLevel)"))
            }
            Complaint::Decryption => {
                self.denied(format!("the privacy password or protocol of the user `{user}` is wrong (decryptionError)"))
            }
            Complaint::NotInTimeWindow => self.garbled("it finds our clock wrong again and again (notInTimeWindow)".to_owned()),
            Complaint::UnknownEngine => self.garbled("it does not know its own engine id (unknownEngineID)".to_owned()),
            Complaint::Other(oid) => self.garbled(format!("a Report of {oid}")),
        }
    }
}

/// What a datagram is to one who asked in this session and by these request-ids.
pub(crate) fn judge(bytes: &[u8], from: SocketAddr, asked: impl Fn(i32) -> bool, session: &Session) -> Option<Reply> {
    let incoming = usm::read(bytes).ok()?;
    let protection = &session.protection;
    let ours = incoming.engine == session.engine && incoming.user == session.user.as_bytes();
    if incoming.level > Level::NoAuthNoPriv && !(ours && incoming.verify(protection.auth, &protection.keys.auth)) {
        tracing::debug!("an SNMPv3 reply with a wrong digest");
        return None;
    }
    let scoped = match incoming.open(Some(protection)) {
        Ok(scoped) => scoped,
        Err(unreadable) => return (incoming.level > Level::NoAuthNoPriv).then_some(Reply::Unreadable(unreadable)),
    };
    match (scoped.pdu.kind, incoming.level) {
        // A reply that anybody could read is none to what was encrypted.
        (Kind::Response, level @ (Level::AuthNoPriv | Level::AuthPriv)) => {
            let fits = level == protection.privacy.level() && asked(scoped.pdu.request);
            fits.then_some(Reply::Response(scoped.pdu, incoming.clock, from))
        }
        (Kind::Report, Level::NoAuthNoPriv) => Some(Reply::Report(Complaint::of(&scoped.pdu), None)),
        (Kind::Report, Level::AuthNoPriv | Level::AuthPriv) => Some(Reply::Report(Complaint::of(&scoped.pdu), Some(incoming.clock))),
        (Kind::Response, Level::NoAuthNoPriv) => None,
        (Kind::Get | Kind::GetNext | Kind::GetBulk | Kind::Set, _) => None,
    }
}
