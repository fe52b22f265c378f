//! The endpoint of a simulated BMC that speaks RMCP+: datagrams in, datagrams out; suites 3 and 17; and `serve`, which puts it on a real socket.
//!
//! Leaves out IPMI 1.5 sessions, SOL and bridging. Sessions are limited as the BMC's configuration says, end when idle, and are lost in a
//! reboot. All chance comes from one seed. Repeated requests are carried out again, as ipmi_sim does, unless they are the same datagram.
//! Held to ipmitool (-C 3 and -C 17) and FreeIPMI in `tests/ipmi.rs`, since client and simulator share `wire` and `crypto`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::bmc::{ADMINISTRATOR, Bmc, USER};
use crate::drivers::bmc::ipmi::crypto::{self, Exchange, Keys, Suite};
use crate::drivers::bmc::ipmi::wire::{self, LanMessage, Packet, Status};
use crate::model::fact::Tick;

/// Handshakes that were begun and not ended: the oldest is forgotten for a new one.
const HALF_OPEN: usize = 16;
/// Datagrams that are remembered for whoever checks.
const RECEIVED: usize = 256;
/// RMCP class ASF, presence ping and pong (IPMI 2.0, 13.2.3; ASF 2.0, 3.2.4).
const CLASS_ASF: u8 = 0x06;
const PING: u8 = 0x80;
const PONG: u8 = 0x40;
/// Where the message starts in an IPMI 1.5 packet without authentication: its length stands one before.
const V15_MESSAGE: usize = 14;

struct Session {
    console: u32,
    suite: Suite,
    heard_at: Tick,
    /// The last message of the handshake and what it was answered: a double gets the same answer.
    answered: Option<(Vec<u8>, Vec<u8>)>,
    state: State,
}

enum State {
    Opened { requested: u8 },
    Rakp { exchange: Box<Exchange>, user_key: [u8; 20], limit: u8 },
    Active(Active),
}

struct Active {
    keys: Keys,
    sequence: u32,
    heard: Window,
    level: u8,
    limit: u8,
}

/// A bit for each of the 32 sequence numbers up to the highest.
#[derive(Default)]
struct Window {
    highest: u32,
    heard: u32,
}

impl Window {
    fn take(&mut self, sequence: u32) -> bool {
        let ahead = sequence.saturating_sub(self.highest);
        if ahead > 0 {
            self.heard = self.heard.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = sequence;
            return true;
        }
        let bit = 1u32.checked_shl(self.highest - sequence).unwrap_or(0);
        let fresh = bit != 0 && self.heard & bit == 0;
        self.heard |= bit;
        fresh
    }
}

/// A datagram as the BMC took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Open Session Request, RAKP 1, RAKP 3: by payload type.
    Handshake(u8),
    /// In a session.
    Command { netfn: u8, cmd: u8, data: Vec<u8> },
}

/// What stands between the sessions and the BMC: sees network function, command and data first, and may answer in its place (completion
/// code and data; nothing at all: no answer).
pub(crate) type Interrupt = Box<dyn FnMut(u8, u8, &[u8]) -> Option<Vec<u8>> + Send>;

/// How the session layer of some boards is not as it should be.
#[derive(Default)]
pub struct Oddities {
    /// With these status codes Open Session and RAKP 1 are answered.
    pub open: Option<u8>,
    pub rakp_1: Option<u8>,
    /// What was proposed does not matter, as with virtualbmc.
    pub always_suite: Option<Suite>,
    /// An Open Session Request with this suite is not answered.
    pub unanswered: Option<Suite>,
    /// So many answers to RAKP 1 come with one bit flipped.
    pub flipped: u32,
    pub interrupt: Option<Interrupt>,
    /// This command (network function, command) is carried out and not answered.
    pub mute: Option<(u8, u8)>,
}

/// A BMC and its sessions.
pub struct Endpoint {
    pub bmc: Bmc,
    pub odd: Oddities,
    received: VecDeque<(Tick, Received)>,
    sessions: BTreeMap<u32, Session>,
    random: StdRng,
    reboots: u32,
    heard: u64,
}

impl Endpoint {
    pub fn new(bmc: Bmc, seed: u64) -> Endpoint {
        Endpoint {
            bmc,
            odd: Oddities::default(),
            received: VecDeque::new(),
            sessions: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            reboots: 0,
            heard: 0,
        }
    }

    /// The last datagrams that were part of a handshake, or verified in their session.
    pub fn received(&self) -> impl Iterator<Item = &(Tick, Received)> {
        self.received.iter()
    }

    fn note(&mut self, received: Received, now: Tick) {
        if self.received.len() == RECEIVED {
            self.received.pop_front();
        }
        self.received.push_back((now, received));
    }

    /// Open sessions, without those whose handshake is not over.
    pub fn sessions(&self) -> usize {
        self.sessions.values().filter(|s| matches!(s.state, State::Active(_))).count()
    }

    /// Datagrams that came to it.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Forgets all sessions, as some BMCs do when somebody changes their configuration.
    pub fn drop_sessions(&mut self) {
        self.sessions.clear();
    }

    /// What a datagram says in its session (network function, command, data), for whoever looks at it on its way: nothing comes of that.
    pub fn read(&self, datagram: &[u8]) -> Option<(u8, u8, Vec<u8>)> {
        let packet = wire::packet(datagram)?;
        let State::Active(active) = &self.sessions.get(&packet.session)?.state else { return None };
        let payload = active.keys.open(&packet)?;
        let message = wire::lan_message(&payload)?;
        Some((message.netfn, message.cmd, message.data.to_vec()))
    }

    pub fn handle(&mut self, datagram: &[u8], now: Tick) -> Option<Vec<u8>> {
        self.heard += 1;
        if !self.bmc.reachable(now) {
            return None;
        }
        if self.reboots != self.bmc.reboots() {
            self.reboots = self.bmc.reboots();
            self.sessions.clear();
        }
        let idle = self.bmc.config.session_idle;
        self.sessions.retain(|_, s| now.since(s.heard_at) < idle);
        match (datagram.get(3)? & 0x1f, datagram.get(4)?) {
            (CLASS_ASF, _) => pong(datagram),
            (0x07, 0x00) => self.sessionless(datagram),
            (0x07, &wire::AUTH_RMCP_PLUS) => self.rmcp_plus(&wire::packet(datagram)?, now),
            _ => None,
        }
    }

    /// IPMI 1.5 format without a session: what consoles ask before they open one.
    fn sessionless(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let length = usize::from(*datagram.get(V15_MESSAGE - 1)?);
        let message = wire::lan_message(datagram.get(V15_MESSAGE..V15_MESSAGE + length)?)?;
        let data = self.before_session(&message).unwrap_or_else(|| vec![0xd4]);
        let reply = reply_to(&message, &data);
        let mut out = wire::RMCP_IPMI.to_vec();
        out.extend_from_slice(&[0; 9]);
        out.push(reply.len() as u8);
        out.extend_from_slice(&reply);
        Some(out)
    }

    /// Commands that need no session (IPMI 2.0, table G-1): authentication capabilities, cipher suites, GUID.
    fn before_session(&self, message: &LanMessage<'_>) -> Option<Vec<u8>> {
        match (message.netfn, message.cmd) {
            // Channel 1; IPMI 2.0 data follow; Kg set or not, named users; 2.0 connections only; no OEM (table 22-15).
            (0x06, 0x38) => {
                let kg = if self.bmc.config.kg.is_some() { 0x20 } else { 0 };
                Some(vec![0, 0x01, 0x80, 0x04 | kg, 0x02, 0, 0, 0, 0])
            }
            // Records of standard suites (table 22-19), 16 bytes for each list index.
            (0x06, 0x54) => {
                let index = usize::from(message.data.get(2).copied().unwrap_or(0) & 0x3f);
                let suites = [Suite::Three, Suite::Seventeen].into_iter().filter(|s| self.bmc.config.suites.contains(&s.id()));
                let records: Vec<u8> = suites
                    .flat_map(|s| {
                        let [auth, integrity, privacy] = s.algorithms();
                        [0xc0, s.id(), auth, 0x40 | integrity, 0x80 | privacy]
                    })
                    .collect();
                let part = records.chunks(16).nth(index).unwrap_or_default();
                Some([&[0, 0x01][..], part].concat())
            }
            (0x06, 0x37) => Some([&[0][..], &self.bmc.config.guid].concat()),
            _ => None,
        }
    }

    fn rmcp_plus(&mut self, packet: &Packet<'_>, now: Tick) -> Option<Vec<u8>> {
        if let kind @ (wire::OPEN_REQUEST | wire::RAKP_1 | wire::RAKP_3) = packet.payload_type {
            self.note(Received::Handshake(kind), now);
        }
        match packet.payload_type {
            wire::OPEN_REQUEST => self.open(packet.payload, now),
            wire::RAKP_1 => self.handshake(packet.payload, now, Endpoint::rakp1),
            wire::RAKP_3 => self.handshake(packet.payload, now, Endpoint::rakp3),
            wire::PAYLOAD_IPMI if packet.session == 0 => {
                // Outside of a session in 2.0 format: ipmitool asks for cipher suites so.
                let message = wire::lan_message(packet.payload)?;
                let data = self.before_session(&message).unwrap_or_else(|| vec![0xd4]);
                Some(wire::bare(wire::PAYLOAD_IPMI, &reply_to(&message, &data)))
            }
            wire::PAYLOAD_IPMI => self.command(packet, now),
            _ => None,
        }
    }

    // ---- the handshake --------------------------------------------------------------------------------------------------

    fn open(&mut self, payload: &[u8], now: Tick) -> Option<Vec<u8>> {
        let &[tag, requested, _, _] = payload.first_chunk::<4>()?;
        let console = wire::u32_at(payload, 4)?;
        let proposed = [*payload.get(12)?, *payload.get(20)?, *payload.get(28)?];
        if self.odd.unanswered.is_some() && Suite::of_algorithms(proposed) == self.odd.unanswered {
            return None;
        }
        let suite = Suite::of_algorithms(proposed).filter(|s| self.bmc.config.suites.contains(&s.id()));
        let suite = self.odd.always_suite.or(suite);
        let status = match suite {
            _ if self.odd.open.is_some() => Status(self.odd.open.unwrap_or_default()),
            None => Status::NO_SUITE,
            Some(_) if self.sessions() >= self.bmc.config.sessions => Status::NO_RESOURCES,
            Some(_) => Status::OK,
        };
        let (Some(suite), Status::OK) = (suite, status) else {
            return Some(wire::bare(wire::OPEN_RESPONSE, &[&[tag, status.0, 0, 0][..], &console.to_le_bytes()].concat()));
        };
        let half_open = || self.sessions.iter().filter(|(_, s)| !matches!(s.state, State::Active(_)));
        if half_open().count() >= HALF_OPEN
            && let Some(oldest) = half_open().min_by_key(|(_, s)| s.heard_at).map(|(id, _)| *id)
        {
            self.sessions.remove(&oldest);
        }
        let id = loop {
            let id: u32 = self.random.random();
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        self.sessions.insert(id, Session { console, suite, heard_at: now, answered: None, state: State::Opened { requested } });
        let granted = if requested & 0x0f == 0 { ADMINISTRATOR } else { requested & 0x0f };
        let mut out = vec![tag, 0, granted, 0];
        out.extend_from_slice(&console.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
        for (kind, algorithm) in (0u8..).zip(suite.algorithms()) {
            out.extend_from_slice(&[kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        Some(wire::bare(wire::OPEN_RESPONSE, &out))
    }

    /// RAKP 1 and 3: find the session, answer doubles alike, drop the session where it is refused.
    fn handshake(&mut self, payload: &[u8], now: Tick, step: fn(&mut Endpoint, &mut Session, &[u8]) -> Option<Step>) -> Option<Vec<u8>> {
        let id = wire::u32_at(payload, 4)?;
        let mut session = self.sessions.remove(&id)?;
        if let Some((asked, answer)) = &session.answered
            && asked == payload
        {
            let answer = answer.clone();
            self.sessions.insert(id, session);
            return Some(answer);
        }
        let Some(step) = step(self, &mut session, payload) else {
            self.sessions.insert(id, session);
            return None;
        };
        let tag = *payload.first()?;
        let head = |status: Status| [&[tag, status.0, 0, 0][..], &session.console.to_le_bytes()].concat();
        match step {
            Step::Refused(kind, status) => Some(wire::bare(kind, &head(status))),
            Step::Answer(kind, body) => {
                let answer = wire::bare(kind, &[head(Status::OK), body].concat());
                session.answered = Some((payload.to_vec(), answer.clone()));
                session.heard_at = now;
                self.sessions.insert(id, session);
                Some(answer)
            }
        }
    }

    fn rakp1(&mut self, session: &mut Session, payload: &[u8]) -> Option<Step> {
        let State::Opened { requested } = session.state else { return None };
        let refused = |status| Some(Step::Refused(wire::RAKP_2, status));
        if let Some(status) = self.odd.rakp_1 {
            return refused(Status(status));
        }
        let role = *payload.get(24)?;
        let name = payload.get(28..28 + usize::from(*payload.get(27)?))?;
        let Some(user) = self.bmc.config.users.iter().find(|u| u.name.as_bytes() == name) else {
            return refused(Status::UNAUTHORIZED_NAME);
        };
        let (wanted, limit) = (role & 0x0f, user.level);
        if wanted > limit || requested & 0x0f > limit {
            return refused(Status::UNAUTHORIZED_ROLE);
        }
        let limit = if wanted == 0 { limit } else { wanted };
        let mut user_key = [0; 20];
        user_key.iter_mut().zip(user.password.bytes()).for_each(|(to, from)| *to = from);
        let exchange = Box::new(Exchange {
            sid_m: session.console,
            sid_c: wire::u32_at(payload, 4)?,
            random_m: wire::array_at(payload, 8)?,
            random_c: self.random.random(),
            guid_c: self.bmc.config.guid,
            role,
            name: name.to_vec(),
        });
        let mut code = exchange.rakp2(session.suite, &user_key);
        if self.odd.flipped > 0 {
            self.odd.flipped -= 1;
            code.iter_mut().take(1).for_each(|byte| *byte ^= 0x10);
        }
        let body = [&exchange.random_c[..], &exchange.guid_c, &code].concat();
        session.state = State::Rakp { exchange, user_key, limit };
        Some(Step::Answer(wire::RAKP_2, body))
    }

    fn rakp3(&mut self, session: &mut Session, payload: &[u8]) -> Option<Step> {
        let State::Rakp { exchange, user_key, limit } = &session.state else { return None };
        let suite = session.suite;
        let good = payload.get(1) == Some(&0) && crypto::same(&exchange.rakp3(suite, user_key), payload.get(8..)?);
        if !good {
            return Some(Step::Refused(wire::RAKP_4, Status::INVALID_CHECK));
        }
        let sik = exchange.sik(suite, self.bmc.config.kg.as_ref().unwrap_or(user_key));
        let check = exchange.rakp4(suite, &sik).to_vec();
        let limit = *limit;
        // A session begins at USER (IPMI 2.0, 22.18).
        let active = Active { keys: Keys::new(suite, &sik), sequence: 0, heard: Window::default(), level: limit.min(USER), limit };
        session.state = State::Active(active);
        Some(Step::Answer(wire::RAKP_4, check))
    }

    // ---- inside a session -----------------------------------------------------------------------------------------------

    fn command(&mut self, packet: &Packet<'_>, now: Tick) -> Option<Vec<u8>> {
        let iv = self.random.random();
        let session = self.sessions.get_mut(&packet.session)?;
        let State::Active(active) = &mut session.state else { return None };
        let payload = active.keys.open(packet)?;
        if !active.heard.take(packet.sequence) {
            return None;
        }
        session.heard_at = now;
        let message = wire::lan_message(&payload)?;
        let mut closed = None;
        let instead = self.odd.interrupt.as_mut().and_then(|i| i(message.netfn, message.cmd, message.data));
        if instead.as_ref().is_some_and(Vec::is_empty) {
            self.note(Received::Command { netfn: message.netfn, cmd: message.cmd, data: message.data.to_vec() }, now);
            return None;
        }
        let data = match (message.netfn, message.cmd) {
            _ if instead.is_some() => instead.unwrap_or_default(),
            (0x06, 0x3b) => active.privilege(message.data),
            (0x06, 0x3c) => {
                closed = wire::u32_at(message.data, 0);
                vec![if closed == Some(packet.session) { 0 } else { 0x87 }]
            }
            (0x06, 0x38 | 0x54) => Vec::new(),
            (netfn, cmd) => self.bmc.command(active.level, netfn, cmd, message.data, now),
        };
        active.sequence += 1;
        let (console, sequence) = (session.console, active.sequence);
        let data = if data.is_empty() { self.before_session(&message).unwrap_or_else(|| vec![0xc1]) } else { data };
        self.note(Received::Command { netfn: message.netfn, cmd: message.cmd, data: message.data.to_vec() }, now);
        let session = self.sessions.get(&packet.session)?;
        let State::Active(active) = &session.state else { return None };
        let sealed = active.keys.seal(console, sequence, &reply_to(&message, &data), iv);
        if closed == Some(packet.session) {
            self.sessions.remove(&packet.session);
        }
        (self.odd.mute != Some((message.netfn, message.cmd))).then_some(sealed)
    }
}

enum Step {
    Answer(u8, Vec<u8>),
    Refused(u8, Status),
}

impl Active {
    /// Set Session Privilege Level (IPMI 2.0, 22.18).
    fn privilege(&mut self, data: &[u8]) -> Vec<u8> {
        match data.first().map(|b| b & 0x0f) {
            None => vec![0xc7],
            Some(0) => vec![0, self.level],
            Some(level) if level > self.limit => vec![0x81],
            Some(level) if level < USER => vec![0xcc],
            Some(level) => {
                self.level = level;
                vec![0, level]
            }
        }
    }
}

fn reply_to(request: &LanMessage<'_>, data: &[u8]) -> Vec<u8> {
    let reply = LanMessage { netfn: request.netfn | 1, rq_seq: request.rq_seq, cmd: request.cmd, data };
    wire::lan_bytes(wire::CONSOLE_ADDRESS, wire::BMC_ADDRESS, &reply)
}

fn pong(datagram: &[u8]) -> Option<Vec<u8>> {
    // ASF's IANA number, type, tag, reserved, length.
    let &[a, b, c, d, kind, tag, ..] = datagram.get(4..12)? else { return None };
    let iana = [a, b, c, d];
    let head = [&[0x06, 0x00, 0xff, CLASS_ASF][..], &iana, &[PONG, tag, 0, 16], &iana].concat();
    // No OEM data; IPMI is supported, ASF 1.0; no interactions.
    (kind == PING).then(|| [&head[..], &[0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]].concat())
}

// ---- on a real socket ---------------------------------------------------------------------------------------------------

/// What the network between console and BMC does: shares from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub lost_in: f64,
    pub lost_out: f64,
    /// Datagrams that arrive twice, either way.
    pub doubled: f64,
    /// Every answer takes up to this.
    pub delay: Duration,
    /// Answers that take `late_by` more.
    pub late: f64,
    pub late_by: Duration,
    pub seed: u64,
}

impl Default for Line {
    /// A perfect one.
    fn default() -> Self {
        Line { lost_in: 0.0, lost_out: 0.0, doubled: 0.0, delay: Duration::ZERO, late: 0.0, late_by: Duration::ZERO, seed: 0 }
    }
}

/// Shared with who plays the human, or checks.
pub type SharedEndpoint = Arc<Mutex<Endpoint>>;

/// Answers on this socket until the future is dropped.
pub async fn serve<C>(socket: UdpSocket, endpoint: SharedEndpoint, clock: C, line: Line)
where
    C: Fn() -> Tick + Send,
{
    let socket = Arc::new(socket);
    let mut chance = StdRng::seed_from_u64(line.seed);
    let mut later = JoinSet::new();
    let mut buffer = [0; 1024];
    loop {
        let received = tokio::select! {
            biased;
            Some(_) = later.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((length, from)) = received else { continue };
        if chance.random_bool(line.lost_in) {
            continue;
        }
        for _ in 0..copies(&mut chance, line) {
            let answer = endpoint.lock().unwrap_or_else(PoisonError::into_inner).handle(&buffer[..length], clock());
            let Some(answer) = answer.filter(|_| !chance.random_bool(line.lost_out)) else { continue };
            for _ in 0..copies(&mut chance, line) {
                let mut delay = line.delay.mul_f64(chance.random());
                if chance.random_bool(line.late) {
                    delay += line.late_by;
                }
                if delay.is_zero() {
                    let _ = socket.send_to(&answer, from).await;
                } else {
                    later.spawn(send_later(socket.clone(), answer.clone(), from, delay));
                }
            }
        }
    }
}

fn copies(chance: &mut StdRng, line: Line) -> u32 {
    if chance.random_bool(line.doubled) { 2 } else { 1 }
}

async fn send_later(socket: Arc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr, delay: Duration) {
    tokio::time::sleep(delay).await;
    let _ = socket.send_to(&datagram, to).await;
}

/// Many BMCs, each on its own socket, in one task for each, until the future is dropped. The seed of each line is its own.
pub async fn serve_many<C>(bmcs: Vec<(UdpSocket, SharedEndpoint)>, clock: C, line: Line)
where
    C: Fn() -> Tick + Send + Clone + 'static,
{
    let mut tasks = JoinSet::new();
    for (seed, (socket, endpoint)) in (line.seed..).zip(bmcs) {
        tasks.spawn(serve(socket, endpoint, clock.clone(), Line { seed, ..line }));
    }
    while tasks.join_next().await.is_some() {}
}
