//! One RMCP+ session as seen by the console: a state machine that takes datagrams and gives datagrams, without socket, clock or randomness.
//!
//! Closed → Opening → Rakp2 → Rakp4 → Active. A handshake is not repeated message by message: it starts again as a new `Session`, with a
//! new id. Inside a session a request is repeated with its own rqSeq and a new session sequence number. Invariant: a reply counts only
//! when session id, authentication code, receive window, rqSeq, network function and command all fit; all else is dropped, never an error.
//! Shown by `tests/ipmi.rs` (`late_and_doubled_replies_never_answer_another_question`) and the tests below.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::crypto::{self, Exchange, Keys, Suite};
use super::wire::{self, LanMessage, Packet, Status};
use crate::drivers::gate::Datagram;
use crate::model::secret::BmcLogin;
use crate::model::server::Privilege;

/// RAKP 1: the user is looked up by name alone, whatever privilege is asked for (IPMI 2.0, table 13-11; ipmitool and FreeIPMI do so).
const NAME_ONLY: u8 = 0x10;

/// Who we are, in the forms that the handshake needs.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Credentials {
    name: Vec<u8>,
    user_key: [u8; 20],
    kg: Option<[u8; 20]>,
    level: u8,
}

/// Why credentials cannot be sent at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLogin {
    #[error("the user name is longer than 16 bytes")]
    Name,
    #[error("the password is longer than 20 bytes")]
    Password,
    #[error("the BMC key (kg) is longer than 20 bytes, or not hex after 0x")]
    Key,
}

/// IPMI 2.0, table 6-8.
pub(crate) fn level(privilege: Privilege) -> u8 {
    match privilege {
        Privilege::Operator => 3,
        Privilege::Administrator => 4,
    }
}

fn padded(bytes: &[u8]) -> Option<[u8; 20]> {
    let mut out = [0; 20];
    out.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(out)
}

fn key_bytes(text: &str) -> Option<[u8; 20]> {
    let Some(digits) = text.strip_prefix("0x") else { return padded(text.as_bytes()) };
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect();
    padded(&bytes?)
}

impl Credentials {
    pub fn new(login: &BmcLogin, privilege: Privilege) -> Result<Credentials, BadLogin> {
        let name = login.username.as_bytes().to_vec();
        if name.len() > 16 {
            return Err(BadLogin::Name);
        }
        let user_key = padded(login.password.reveal().as_bytes()).ok_or(BadLogin::Password)?;
        let kg = match &login.kg {
            Some(text) => Some(key_bytes(text.reveal()).ok_or(BadLogin::Key)?),
            None => None,
        };
        // A key of zeros means that there is none (IPMI 2.0, 13.31).
        Ok(Credentials { name, user_key, kg: kg.filter(|k| *k != [0; 20]), level: level(privilege) })
    }

    fn bmc_key(&self) -> &[u8; 20] {
        self.kg.as_ref().unwrap_or(&self.user_key)
    }
}

/// Why a BMC did not open a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not have the cipher suite: another may be tried.
    #[error("cipher suite not accepted: {0}")]
    Suite(Status),
    /// Later.
    #[error("{0}")]
    Busy(Status),
    #[error("no such user: {0}")]
    User(Status),
    #[error("the user may not have this privilege: {0}")]
    Privilege(Status),
    /// Its RAKP 2 was made with another password: ours is wrong, or it answers unknown users alike.
    #[error("wrong password, or no such user (RAKP 2 does not verify)")]
    Password,
    /// The password is right, the session key is not.
    #[error("wrong BMC key kg (RAKP 4 does not verify)")]
    Key,
    /// Of no meaning for the credentials: the BMC forgot the handshake, or mixed up two. Begin again.
    #[error("the handshake broke off: {0}")]
    Broken(Status),
    /// It chose another cipher suite than was proposed, as virtualbmc does: that one may be proposed.
    #[error("it chose another cipher suite than was proposed")]
    OtherSuite,
    /// Any other no. Of RAKP 2 it may be about the user, so nothing is tried again at once.
    #[error("no session: {0}")]
    Other(Status),
    #[error("{0}")]
    Odd(&'static str),
}

/// A reply to the request in flight: completion code and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u8,
    pub data: Vec<u8>,
}

/// What a datagram led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not ours, late, doubled, forged: nothing.
    Nothing,
    /// The handshake goes on with this.
    Send(Datagram),
    /// The session is open.
    Open,
    Refused(Refusal),
    Reply(Reply),
}

enum State {
    Closed,
    Opening,
    Rakp2,
    /// The keys are known already; the BMC has opened its side when it got RAKP 3.
    Rakp4 {
        keys: Keys,
        check: zeroize::Zeroizing<Vec<u8>>,
    },
    Active(Active),
}

struct Active {
    keys: Keys,
    /// Of the last packet sent.
    sequence: u32,
    window: Window,
    rq_seq: u8,
    /// The request that waits for its reply: network function, command, data.
    in_flight: Option<(u8, u8, Vec<u8>)>,
}

pub struct Session {
    credentials: Credentials,
    suite: Suite,
    /// Message tag of the handshake.
    tag: u8,
    exchange: Exchange,
    state: State,
}

impl Session {
    /// A session that is not open yet. `console` is its id on our side, never 0: that means "no session".
    pub fn new(credentials: Credentials, suite: Suite, console: u32, random: [u8; 16]) -> Session {
        let role = credentials.level | NAME_ONLY;
        let exchange = Exchange { sid_m: console, random_m: random, role, name: credentials.name.clone(), ..Exchange::default() };
        Session { credentials, suite, tag: console as u8, exchange, state: State::Closed }
    }

    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The BMC's GUID as RAKP 2 told it.
    pub fn guid(&self) -> [u8; 16] {
        self.exchange.guid_c
    }

    /// The BMC's id of the session, once it is open.
    pub fn managed_id(&self) -> Option<u32> {
        matches!(self.state, State::Active(_)).then_some(self.exchange.sid_c)
    }

    /// Open Session Request (IPMI 2.0, table 13-9).
    pub fn begin(&mut self) -> Datagram {
        let mut out = vec![self.tag, self.credentials.level, 0, 0];
        out.extend_from_slice(&self.exchange.sid_m.to_le_bytes());
        for (kind, algorithm) in (0u8..).zip(self.suite.algorithms()) {
            out.extend_from_slice(&[kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        self.state = State::Opening;
        Datagram::Asks(wire::bare(wire::OPEN_REQUEST, &out))
    }

    pub fn handle(&mut self, datagram: &[u8]) -> Heard {
        let Some(packet) = wire::packet(datagram) else { return Heard::Nothing };
        let heard = match (&mut self.state, packet.payload_type) {
            (State::Opening, wire::OPEN_RESPONSE) => self.open_response(packet.payload),
            (State::Rakp2, wire::RAKP_2) => self.rakp2(packet.payload),
            (State::Rakp4 { .. }, wire::RAKP_4) => self.rakp4(packet.payload),
            (State::Active(active), wire::PAYLOAD_IPMI) => active.reply(self.exchange.sid_m, &packet),
            (State::Closed | State::Opening | State::Rakp2 | State::Rakp4 { .. } | State::Active(_), _) => None,
        };
        if let Some(Heard::Refused(_)) = heard {
            self.state = State::Closed;
        }
        heard.unwrap_or(Heard::Nothing)
    }

    /// Tag, status and our id stand first in every answer of the handshake. A refusal may leave out the id.
    fn status(&self, payload: &[u8]) -> Option<Status> {
        let [tag, status] = wire::array_at(payload, 0)?;
        let fits = match wire::u32_at(payload, 4) {
            Some(id) if id == self.exchange.sid_m => true,
            None | Some(0) => status != 0,
            Some(_) => false,
        };
        (tag == self.tag && fits).then_some(Status(status))
    }

    /// IPMI 2.0, table 13-10: tag, status, privilege, reserved, console id, BMC id, three algorithms.
    fn open_response(&mut self, payload: &[u8]) -> Option<Heard> {
        let status = self.status(payload)?;
        if status == Status::ILLEGAL_PARAMETER {
            // Boards without the suite say so too.
            return Some(Heard::Refused(Refusal::Suite(status)));
        }
        if status != Status::OK {
            return Some(Heard::Refused(refusal(status)));
        }
        self.exchange.sid_c = wire::u32_at(payload, 8)?;
        let chosen = [*payload.get(16)?, *payload.get(24)?, *payload.get(32)?].map(|a| a & 0x3f);
        if chosen != self.suite.algorithms() {
            return Some(Heard::Refused(Refusal::OtherSuite));
        }
        if self.exchange.sid_c == 0 {
            return Some(Heard::Refused(Refusal::Odd("Open Session: session id 0")));
        }
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend_from_slice(&self.exchange.sid_c.to_le_bytes());
        out.extend_from_slice(&self.exchange.random_m);
        out.extend_from_slice(&[self.exchange.role, 0, 0, self.exchange.name.len() as u8]);
        out.extend_from_slice(&self.exchange.name);
        self.state = State::Rakp2;
        Some(Heard::Send(Datagram::Asks(wire::bare(wire::RAKP_1, &out))))
    }

    /// IPMI 2.0, table 13-12: tag, status, reserved, console id, random, GUID, code.
    fn rakp2(&mut self, payload: &[u8]) -> Option<Heard> {
        let status = self.status(payload)?;
        if status != Status::OK {
            return Some(Heard::Refused(refusal(status)));
        }
        self.exchange.random_c = wire::array_at(payload, 8)?;
        self.exchange.guid_c = wire::array_at(payload, 24)?;
        if !crypto::same(&self.exchange.rakp2(self.suite, &self.credentials.user_key), payload.get(40..)?) {
            return Some(Heard::Refused(Refusal::Password));
        }
        let sik = self.exchange.sik(self.suite, self.credentials.bmc_key());
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend_from_slice(&self.exchange.sid_c.to_le_bytes());
        out.extend_from_slice(&self.exchange.rakp3(self.suite, &self.credentials.user_key));
        self.state = State::Rakp4 { keys: Keys::new(self.suite, &sik), check: self.exchange.rakp4(self.suite, &sik) };
        Some(Heard::Send(Datagram::Asks(wire::bare(wire::RAKP_3, &out))))
    }

    /// IPMI 2.0, table 13-14: tag, status, reserved, console id, check value.
    fn rakp4(&mut self, payload: &[u8]) -> Option<Heard> {
        let status = self.status(payload)?;
        let State::Rakp4 { check, .. } = &self.state else { return None };
        if status == Status::INVALID_CHECK {
            // RAKP 2 verified, so the password is right: the BMC saw RAKP 1 twice and made itself another random number.
            return Some(Heard::Refused(Refusal::Broken(status)));
        }
        if status != Status::OK {
            return Some(Heard::Refused(refusal(status)));
        }
        if !crypto::same(check, payload.get(8..)?) {
            return Some(Heard::Refused(Refusal::Key));
        }
        if let State::Rakp4 { keys, .. } = std::mem::replace(&mut self.state, State::Closed) {
            let window = Window::default();
            self.state = State::Active(Active { keys, sequence: 0, window, rq_seq: 0, in_flight: None });
        }
        Some(Heard::Open)
    }

    /// A new request; the one before is given up. Nothing where the session is not open.
    pub fn request(&mut self, netfn: u8, cmd: u8, data: &[u8], iv: [u8; 16]) -> Option<Datagram> {
        let State::Active(active) = &mut self.state else { return None };
        active.rq_seq = (active.rq_seq + 1) & 0x3f;
        active.in_flight = Some((netfn, cmd, data.to_vec()));
        active.transmit(self.exchange.sid_c, iv)
    }

    /// The same request again: the same rqSeq, so that the BMC knows it, and a new sequence number, so that its window takes it.
    pub fn again(&mut self, iv: [u8; 16]) -> Option<Datagram> {
        match &mut self.state {
            State::Active(active) => active.transmit(self.exchange.sid_c, iv),
            State::Closed | State::Opening | State::Rakp2 | State::Rakp4 { .. } => None,
        }
    }

    /// Close Session, to be sent without waiting: also where RAKP 4 never came, since the BMC may have opened its side.
    pub fn farewell(&mut self, iv: [u8; 16]) -> Option<Datagram> {
        let id = self.exchange.sid_c.to_le_bytes();
        if let State::Rakp4 { .. } = self.state
            && let State::Rakp4 { keys, .. } = std::mem::replace(&mut self.state, State::Closed)
        {
            self.state = State::Active(Active { keys, sequence: 0, window: Window::default(), rq_seq: 0, in_flight: None });
        }
        // App, Close Session (IPMI 2.0, 22.19).
        self.request(0x06, 0x3c, &id, iv)
    }
}

/// What a status in Open Session, RAKP 2 or RAKP 4 means for us.
fn refusal(status: Status) -> Refusal {
    match status {
        Status::NO_RESOURCES | Status::NO_RESOURCES_AT_ROLE => Refusal::Busy(status),
        Status::INVALID_ROLE | Status::UNAUTHORIZED_ROLE => Refusal::Privilege(status),
        Status::INVALID_NAME_LENGTH | Status::UNAUTHORIZED_NAME => Refusal::User(status),
        Status::INVALID_SESSION | Status::INACTIVE_SESSION | Status::INVALID_CHECK => Refusal::Broken(status),
        other if other.about_suite() => Refusal::Suite(other),
        other => Refusal::Other(other),
    }
}

/// What a request does to the BMC. What is not known to change nothing counts as a change, which leaves through the gate alone.
fn datagram(netfn: u8, cmd: u8, bytes: Vec<u8>) -> Datagram {
    match (netfn, cmd) {
        // Get Chassis Status, Get System Boot Options; Get Device ID, Get System GUID, Set Session Privilege, Close Session.
        (0x00, 0x01 | 0x09) | (0x06, 0x01 | 0x37 | 0x3b | 0x3c) => Datagram::Asks(bytes),
        // Chassis Control (02h), Set System Boot Options (08h), and whatever is added.
        _ => Datagram::Changes(bytes),
    }
}

impl Active {
    fn transmit(&mut self, session: u32, iv: [u8; 16]) -> Option<Datagram> {
        let (netfn, cmd, data) = self.in_flight.as_ref()?;
        // 0 is for packets outside of a session (IPMI 2.0, 6.12.13).
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        let message = LanMessage { netfn: *netfn, rq_seq: self.rq_seq, cmd: *cmd, data };
        let bytes = wire::lan_bytes(wire::BMC_ADDRESS, wire::CONSOLE_ADDRESS, &message);
        Some(datagram(*netfn, *cmd, self.keys.seal(session, self.sequence, &bytes, iv)))
    }

    fn reply(&mut self, console: u32, packet: &Packet<'_>) -> Option<Heard> {
        // Some boards leave the id out (FreeIPMI's `idzero`: Tyan); the authentication code still says whose it is.
        if packet.session != console && packet.session != 0 {
            return None;
        }
        let payload = self.keys.open(packet)?;
        if !self.window.take(packet.sequence) {
            return None;
        }
        let message = wire::lan_message(&payload)?;
        let (netfn, cmd, _) = self.in_flight.as_ref()?;
        if message.netfn != netfn | 1 || message.cmd != *cmd || message.rq_seq != self.rq_seq {
            return None;
        }
        let (&code, data) = message.data.split_first()?;
        // Cannot execute duplicate request: it means a copy of ours, the answer to the first is still to come (ipmitool does the same).
        if code == 0xcf {
            return None;
        }
        let data = data.to_vec();
        self.in_flight = None;
        Some(Heard::Reply(Reply { code, data }))
    }
}

/// Which sequence numbers were heard: the highest, and the 32 up to it (IPMI 2.0, 6.12.13 demands at least 16 either way).
#[derive(Default)]
struct Window {
    highest: u32,
    /// Bit n: `highest - n` was heard.
    heard: u32,
}

impl Window {
    fn take(&mut self, sequence: u32) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.heard = self.heard.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        let fresh = sequence != 0 && behind < 32 && self.heard & (1 << behind) == 0;
        if fresh {
            self.heard |= 1 << behind;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Hidden;

    #[test]
    fn only_what_is_known_to_ask_is_a_question() {
        let changes = |netfn, cmd| matches!(datagram(netfn, cmd, Vec::new()), Datagram::Changes(_));
        assert!(changes(0x00, 0x02) && changes(0x00, 0x08));
        let questions: Vec<(u8, u8)> =
            (0..0x40).flat_map(|netfn| (0..=0xff).map(move |cmd| (netfn, cmd))).filter(|(netfn, cmd)| !changes(*netfn, *cmd)).collect();
        assert_eq!(questions, [(0x00, 0x01), (0x00, 0x09), (0x06, 0x01), (0x06, 0x37), (0x06, 0x3b), (0x06, 0x3c)]);
    }

    #[test]
    fn a_window_takes_each_number_once() {
        let mut w = Window::default();
        for (sequence, taken) in [(0, false), (1, true), (1, false), (40, true), (9, true), (9, false), (8, false), (1, false), (39, true)]
        {
            assert_eq!(w.take(sequence), taken, "{sequence}");
        }
        assert!(w.take(u32::MAX));
        assert!(!w.take(u32::MAX));
    }

    #[test]
    fn logins_that_do_not_fit_are_named() {
        let login = |name: &str, password: &str, kg: Option<&str>| BmcLogin {
            username: name.into(),
            password: Hidden::new(password.into()),
            kg: kg.map(|k| Hidden::new(k.into())),
        };
        let made = |l: BmcLogin| Credentials::new(&l, Privilege::Administrator).map(|c| c.kg);
        assert_eq!(made(login("12345678901234567", "p", None)), Err(BadLogin::Name));
        assert_eq!(made(login("u", "123456789012345678901", None)), Err(BadLogin::Password));
        for bad in ["123456789012345678901", "0x1", "0xzz", "0x000000000000000000000000000000000000000000"] {
            assert_eq!(made(login("u", "p", Some(bad))), Err(BadLogin::Key), "{bad}");
        }
        assert_eq!(made(login("u", "p", Some("0x0102"))), Ok(padded(&[1, 2])));
        assert_eq!(made(login("u", "p", Some("ab"))), Ok(padded(b"ab")));
        assert_eq!(made(login("u", "p", Some("0x00"))), Ok(None));
    }
}
