//! What a BMC sends: the replies of the handshake, and those in a session.
//!
//! The first octet of the input picks the cipher suite (bit 0: 17, else 3), and whether a session is open already (bit 1). Frames follow: a
//! kind, a length (2 octets, LE), and as many octets as that.
//!
//! ```text
//!  0  a datagram as it came
//!  1  the payload of one, sealed here with the session's keys: an IPMI LAN message
//!  2  the completion code and data of the reply to the request in flight, made a message and sealed
//! ```
//! The console has a fixed id, a fixed random number and the login `ADMIN`/`fuzz`, so that what a real BMC answered to them is understood.

use ipmi_rs::app::GetDeviceId;
use ipmi_rs::connection::{CompletionErrorCode, IpmiCommand, Message};

use super::hold;
use crate::drivers::bmc::ipmi::commands::{self, GetBootFlags, GetChassisStatus, GetSystemGuid, SetSessionPrivilege};
use crate::drivers::bmc::ipmi::crypto::{Exchange, Keys, Suite};
use crate::drivers::bmc::ipmi::session::{Credentials, Heard, Reply, Session, level};
use crate::drivers::bmc::ipmi::wire::{self, LanMessage};
use crate::drivers::gate::Datagram;
use crate::model::secret::{BmcLogin, Hidden};
use crate::model::server::Privilege;

/// The console's id of the session, and its random number.
const CONSOLE: u32 = 0x5a5a_0001;
const RANDOM: [u8; 16] = *b"a random number.";
const NAME: &str = "ADMIN";
const PASSWORD: &str = "fuzz";
/// Role of RAKP 1: administrator, looked up by name alone.
const ROLE: u8 = 0x14;
/// Frames of one input.
const FRAMES: usize = 64;
/// Of one frame: four times what a BMC sends.
const FRAME_BYTES: usize = 1024;
/// Behind what a real BMC has sent.
const SEALED_FROM: u32 = 1 << 16;
/// The BMC's of a session that is opened here.
const SID: u32 = 0x0200_0007;
const BMC_RANDOM: [u8; 16] = *b"another number..";
const GUID: [u8; 16] = *b"0123456789abcdef";

/// The login of the session.
fn login() -> BmcLogin {
    BmcLogin { username: NAME.to_owned(), password: Hidden::new(PASSWORD.to_owned()), kg: None }
}

/// Datagrams as a BMC sends them.
pub fn ipmi(bytes: &[u8]) -> Result<(), String> {
    let Some((how, rest)) = bytes.split_first() else { return Ok(()) };
    let suite = if how & 1 == 1 { Suite::Seventeen } else { Suite::Three };
    let credentials = Credentials::new(&login(), Privilege::Administrator).map_err(|why| why.to_string())?;
    let mut console = Console::new(Session::new(credentials, suite, CONSOLE, RANDOM), suite);
    if how & 2 == 2 {
        console.shake_hands()?;
    }
    for (kind, frame) in frames(rest) {
        match kind % 3 {
            0 => console.hears(frame)?,
            1 => console.hears_sealed(frame)?,
            _ => console.hears_reply(frame)?,
        }
    }
    Ok(())
}

fn frames(mut rest: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some(([kind, low, high], behind)) = rest.split_first_chunk::<3>()
        && found.len() < FRAMES
    {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len()).min(FRAME_BYTES);
        let (frame, next) = behind.split_at(length);
        found.push((*kind, frame));
        rest = next;
    }
    found
}

/// Our side of the session, and what the other side knows of it.
struct Console {
    session: Session,
    suite: Suite,
    exchange: Exchange,
    /// Once the session is open.
    keys: Option<Keys>,
    /// Of the last datagram that was sealed here.
    sequence: u32,
    /// The number of the request in flight, and how many were made.
    asked: Option<usize>,
    requests: usize,
    /// A refusal ends everything.
    refused: bool,
    sent: usize,
}

impl Console {
    fn new(mut session: Session, suite: Suite) -> Console {
        let exchange = Exchange { sid_m: CONSOLE, random_m: RANDOM, role: ROLE, name: NAME.into(), ..Exchange::default() };
        session.begin();
        Console { session, suite, exchange, keys: None, sequence: SEALED_FROM, asked: None, requests: 0, refused: false, sent: 0 }
    }

    fn user_key() -> [u8; 20] {
        std::array::from_fn(|at| PASSWORD.as_bytes().get(at).copied().unwrap_or(0))
    }

    /// As a BMC does it that has no quirks.
    fn shake_hands(&mut self) -> Result<(), String> {
        let head = [&[CONSOLE as u8, 0, 0, 0][..], &CONSOLE.to_le_bytes()].concat();
        let algorithm = |(kind, algorithm): (u8, u8)| [kind, 0, 0, 8, algorithm, 0, 0, 0];
        let algorithms: Vec<u8> = (0u8..).zip(self.suite.algorithms()).flat_map(algorithm).collect();
        self.hears(&wire::bare(wire::OPEN_RESPONSE, &[&head[..], &SID.to_le_bytes(), &algorithms].concat()))?;
        let mut known = self.exchange.clone();
        (known.sid_c, known.random_c, known.guid_c) = (SID, BMC_RANDOM, GUID);
        let code = known.rakp2(self.suite, &Console::user_key());
        self.hears(&wire::bare(wire::RAKP_2, &[&head[..], &BMC_RANDOM, &GUID, &code].concat()))?;
        let check = known.rakp4(self.suite, &known.sik(self.suite, &Console::user_key()));
        self.hears(&wire::bare(wire::RAKP_4, &[&head[..], &check].concat()))?;
        hold(self.keys.is_some(), || "a handshake without a fault opens no session".to_owned())
    }

    fn hears(&mut self, datagram: &[u8]) -> Result<(), String> {
        self.taken_apart(datagram)?;
        let heard = self.session.handle(datagram);
        let again = self.session.handle(datagram);
        hold(again == Heard::Nothing, || format!("a datagram that came twice is heard a second time: {again:?}"))?;
        hold(!self.refused || heard == Heard::Nothing, || format!("after a refusal {heard:?}"))?;
        match heard {
            Heard::Nothing => Ok(()),
            Heard::Send(datagram) => {
                self.sent += 1;
                let asks = matches!(datagram, Datagram::Asks(_));
                hold(self.sent <= 2 && asks, || format!("message {} of the handshake, which changes something: {}", self.sent + 1, !asks))
            }
            Heard::Open => {
                hold(self.keys.is_none(), || "an open session opens".to_owned())?;
                hold(self.session.managed_id() == Some(self.exchange.sid_c), || "it is open under another id than was told".to_owned())?;
                hold(self.session.guid() == self.exchange.guid_c, || "it shows another GUID than was told".to_owned())?;
                self.keys = Some(Keys::new(self.suite, &self.exchange.sik(self.suite, &Console::user_key())));
                self.ask()
            }
            Heard::Refused(refusal) => {
                self.refused = true;
                hold(!refusal.to_string().is_empty(), || "a refusal says nothing".to_owned())?;
                hold(self.session.request(0, 1, &[], [0; 16]).is_none(), || "there is a session after a refusal".to_owned())
            }
            Heard::Reply(reply) => {
                let Some(request) = self.asked.take() else { return Err(format!("{reply:?} to no question")) };
                hold(reply.data.len() < datagram.len(), || "a reply is longer than its datagram".to_owned())?;
                understood(request, &reply)?;
                self.ask()
            }
        }
    }

    /// A packet is made of its parts again, and what the handshake tells is noted as the other side knows it.
    fn taken_apart(&mut self, datagram: &[u8]) -> Result<(), String> {
        let Some(packet) = wire::packet(datagram) else { return Ok(()) };
        let kind = packet.payload_type | if packet.encrypted { 0x80 } else { 0 } | if packet.authenticated { 0x40 } else { 0 };
        let header = wire::header(kind, packet.session, packet.sequence, packet.payload.len());
        let as_sent = datagram.get(wire::AUTHENTICATED_FROM..wire::HEADER);
        hold(header.get(wire::AUTHENTICATED_FROM..) == as_sent, || format!("the header of {packet:?} is written as {header:02x?}"))?;
        hold(packet.payload.len() + wire::HEADER <= datagram.len(), || "a payload is longer than its datagram".to_owned())?;
        if let Some(message) = wire::lan_message(packet.payload) {
            let written = wire::lan_bytes(wire::CONSOLE_ADDRESS, wire::BMC_ADDRESS, &message);
            hold(wire::lan_message(&written) == Some(message), || format!("{message:?} is written as {written:02x?}"))?;
        }
        let payload = packet.payload;
        match (packet.payload_type, self.sent) {
            (wire::OPEN_RESPONSE, 0) => self.exchange.sid_c = wire::u32_at(payload, 8).unwrap_or(self.exchange.sid_c),
            (wire::RAKP_2, 1) => {
                self.exchange.random_c = wire::array_at(payload, 8).unwrap_or(self.exchange.random_c);
                self.exchange.guid_c = wire::array_at(payload, 24).unwrap_or(self.exchange.guid_c);
            }
            _ => {}
        }
        Ok(())
    }

    fn hears_sealed(&mut self, payload: &[u8]) -> Result<(), String> {
        let Some(keys) = &self.keys else { return Ok(()) };
        self.sequence += 1;
        let mut sealed = keys.seal(CONSOLE, self.sequence, payload, [self.sequence as u8; 16]);
        let opened = wire::packet(&sealed).and_then(|packet| keys.open(&packet));
        hold(opened.as_deref() == Some(payload), || format!("{payload:02x?} is sealed, and opened as {opened:02x?}"))?;
        self.hears(&sealed)?;
        let at = wire::AUTHENTICATED_FROM + payload.len() % (sealed.len() - wire::AUTHENTICATED_FROM);
        if let Some(octet) = sealed.get_mut(at) {
            *octet ^= 0x10;
        }
        let heard = self.session.handle(&sealed);
        hold(heard == Heard::Nothing, || format!("with octet {at} bent it is still heard: {heard:?}"))
    }

    fn hears_reply(&mut self, body: &[u8]) -> Result<(), String> {
        let Some(request) = self.asked else { return self.hears_sealed(body) };
        let question = question(request);
        let message = LanMessage { netfn: question.netfn_raw() | 1, rq_seq: (self.requests & 0x3f) as u8, cmd: question.cmd(), data: body };
        self.hears_sealed(&wire::lan_bytes(wire::CONSOLE_ADDRESS, wire::BMC_ADDRESS, &message))?;
        // Without a code it is none, and a duplicate's is of another copy.
        let counts = body.first().is_some_and(|code| *code != 0xcf);
        hold(counts == (self.asked != Some(request)), || format!("the reply {body:02x?} to a question is not taken as one: {counts}"))
    }

    /// The next question, once the one before is answered.
    fn ask(&mut self) -> Result<(), String> {
        let question = question(self.requests);
        let datagram = self.session.request(question.netfn_raw(), question.cmd(), question.data(), [0; 16]);
        hold(matches!(datagram, Some(Datagram::Asks(_))), || format!("{question:?} is no question, or there is no session"))?;
        self.asked = Some(self.requests);
        self.requests += 1;
        Ok(())
    }
}

/// What is asked in a session, in turn.
fn question(number: usize) -> Message {
    match number % 5 {
        0 => GetChassisStatus.into(),
        1 => GetDeviceId.into(),
        2 => GetSystemGuid.into(),
        3 => GetBootFlags.into(),
        _ => SetSessionPrivilege(level(Privilege::Administrator)).into(),
    }
}

/// A reply as the driver reads it: what is too short is an error, all else a value.
fn understood(number: usize, Reply { code, data }: &Reply) -> Result<(), String> {
    let words = [commands::words(*code), commands::privilege_words(*code)];
    hold(words.iter().all(|words| words.contains(&format!("{code:02X}h"))), || format!("the code {code:02x} is called {words:?}"))?;
    if CompletionErrorCode::try_from(*code).is_ok() {
        return Ok(());
    }
    let (read, least) = match number % 5 {
        0 => (GetChassisStatus::parse_success_response(data).is_ok(), 1),
        1 => (GetDeviceId::parse_success_response(data).is_ok(), 11),
        2 => (GetSystemGuid::parse_success_response(data).is_ok(), 16),
        3 => (boot_flags(data)?, 4),
        _ => (SetSessionPrivilege::parse_success_response(data).is_ok(), 1),
    };
    hold(read == (data.len() >= least), || format!("{} octets of data of question {} are read: {read}", data.len(), number % 5))
}

fn boot_flags(data: &[u8]) -> Result<bool, String> {
    let Ok(flags) = GetBootFlags::parse_success_response(data) else { return Ok(false) };
    if let Some(flags) = flags {
        let read = commands::flags_of(flags);
        let back = commands::flags_of(commands::flag_bytes(read));
        hold(back == read, || format!("{read:?} is written, and read as {back:?}"))?;
    }
    Ok(true)
}
