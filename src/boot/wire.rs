//! DHCP packets (RFC 2131) as values, in and out; the codec is dhcproto's.
//!
//! Leaves out: what is answered (`dhcp`). Invariant: a packet of any octets reads or is refused, and no answer is longer than 1,500 octets.
//! Shown by the fuzz target `dhcp`.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, DhcpOptions, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};

use crate::model::Mac;

/// RFC 2131, section 3: the first four octets of the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Up to the cookie, and with it.
const FIXED: usize = 240;
/// RFC 1542, 2.1: shorter ones are dropped by relays and firmware.
const SHORTEST: usize = 300;
/// iPXE's encapsulated options, in its own encoding of single-octet codes and lengths.
const IPXE: u8 = 175;

/// Options that an answer depends on (RFC 2132; RFC 3004, 3046, 4578). Others may be as wrong as they like, and dhcproto trusts some of their lengths.
const USED: [u8; 9] = [50, 53, 54, 60, 77, 82, 93, 97, IPXE];
/// RFC 2132, 3.1 and 3.2: the two without a length.
const PAD: u8 = 0;
const END: u8 = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
}

/// What firmware says that it wants to boot by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// It wants an address alone.
    None,
    /// Option 60 begins with `PXEClient`.
    Pxe,
    /// Option 60 begins with `HTTPClient`.
    Http,
}

/// An iPXE, in the firmware or ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipxe {
    /// It can fetch by HTTP.
    pub http: bool,
}

/// A packet, as far as an answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// It was sent by a client.
    pub is_request: bool,
    pub kind: Kind,
    pub mac: Mac,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    pub firmware: Firmware,
    /// Option 93 (RFC 4578, 2.1; IANA's processor architecture types).
    pub arch: Option<u16>,
    pub ipxe: Option<Ipxe>,
    /// The SMBIOS UUID of option 97, in the order in which it was sent.
    pub uuid: Option<[u8; 16]>,
    /// What an answer repeats.
    pub echo: Echo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    xid: u32,
    flags: u16,
    hops: u8,
    chaddr: Vec<u8>,
    /// Options 82 (RFC 3046) and 97 (RFC 4578, 2.3).
    options: Vec<DhcpOption>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    #[error("it has {0} octets, expected at least {FIXED}")]
    Short(usize),
    #[error("it is for no Ethernet address (type {htype}, {hlen} octets)")]
    NoEthernet { htype: u8, hlen: u8 },
    #[error("its hardware address is a group's, or all zeros")]
    Group,
    #[error("it has no DHCP options")]
    NoDhcp,
    #[error("it does not read: {0}")]
    Garbled(String),
    #[error("it says no message type, or an unknown one")]
    NoType,
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub kind: Kind,
    pub yiaddr: Ipv4Addr,
    /// This server: option 54, and siaddr where there is a boot file.
    pub server: Ipv4Addr,
    pub options: Vec<DhcpOption>,
    /// By TFTP a path, by HTTP an URL.
    pub file: Option<String>,
}

impl Packet {
    pub fn parse(bytes: &[u8]) -> Result<Packet, BadPacket> {
        let fixed = bytes.get(..FIXED).ok_or(BadPacket::Short(bytes.len()))?;
        // RFC 2131, figure 1: htype and hlen; 1 and 6 for Ethernet. dhcproto takes any, and trusts the length.
        let [_, htype, hlen, ..] = *fixed else { return Err(BadPacket::Short(bytes.len())) };
        if (htype, hlen) != (1, 6) {
            return Err(BadPacket::NoEthernet { htype, hlen });
        }
        if !fixed.ends_with(&COOKIE) {
            return Err(BadPacket::NoDhcp);
        }
        let used = with_used_options(fixed, bytes.get(FIXED..).unwrap_or_default())?;
        let message = Message::decode(&mut Decoder::new(&used)).map_err(|error| BadPacket::Garbled(error.to_string()))?;
        Packet::of(&message)
    }

    fn of(message: &Message) -> Result<Packet, BadPacket> {
        let options = message.opts();
        let kind = options.msg_type().and_then(kind_of).ok_or(BadPacket::NoType)?;
        let address = |code| match options.get(code) {
            Some(DhcpOption::RequestedIpAddress(address) | DhcpOption::ServerIdentifier(address)) => Some(*address),
            _ => None,
        };
        let bytes = |code| octets(options, code).unwrap_or_default();
        let mac: [u8; 6] = message.chaddr().try_into().map_err(|_| BadPacket::NoType)?;
        let echoed = [OptionCode::RelayAgentInformation, OptionCode::ClientMachineIdentifier];
        Ok(Packet {
            is_request: message.opcode() == Opcode::BootRequest,
            kind,
            mac: Mac::seen(mac).ok_or(BadPacket::Group)?,
            ciaddr: message.ciaddr(),
            yiaddr: message.yiaddr(),
            giaddr: message.giaddr(),
            requested: address(OptionCode::RequestedIpAddress),
            server: address(OptionCode::ServerIdentifier),
            firmware: firmware(&bytes(OptionCode::ClassIdentifier)),
            arch: match options.get(OptionCode::ClientSystemArchitecture) {
                Some(DhcpOption::ClientSystemArchitecture(arch)) => Some(u16::from(*arch)),
                _ => None,
            },
            ipxe: ipxe(&bytes(OptionCode::UserClass), octets(options, OptionCode::Unknown(IPXE)).as_deref()),
            uuid: uuid(&bytes(OptionCode::ClientMachineIdentifier)),
            echo: Echo {
                xid: message.xid(),
                flags: u16::from(message.flags()),
                hops: message.hops(),
                chaddr: message.chaddr().to_vec(),
                options: echoed.iter().filter_map(|code| options.get(*code)).filter(|option| is_one(option)).cloned().collect(),
            },
        })
    }

    /// The transaction: a client chooses another one for each attempt.
    pub fn xid(&self) -> u32 {
        self.echo.xid
    }

    /// Behind a relay agent.
    pub fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// It cannot hear what is sent to its address (RFC 2131, 4.1).
    pub fn wants_broadcast(&self) -> bool {
        self.echo.flags & 0x8000 != 0
    }

    /// The answer's octets.
    pub fn answer(&self, reply: &Reply) -> Result<Vec<u8>, String> {
        let siaddr = if reply.file.is_some() { reply.server } else { Ipv4Addr::UNSPECIFIED };
        let ciaddr = if reply.kind == Kind::Ack { self.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        let mut message = Message::new_with_id(self.echo.xid, ciaddr, reply.yiaddr, siaddr, self.giaddr, &self.echo.chaddr);
        message.set_opcode(Opcode::BootReply).set_flags(Flags::new(self.echo.flags)).set_hops(self.echo.hops);
        if let Some(file) = reply.file.as_deref().filter(|file| file.len() < 128) {
            message.set_fname_str(file);
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(type_of(reply.kind)));
        options.insert(DhcpOption::ServerIdentifier(reply.server));
        for option in self.echo.options.iter().chain(&reply.options) {
            options.insert(option.clone());
        }
        if let Some(file) = &reply.file {
            options.insert(DhcpOption::BootfileName(file.as_bytes().to_vec()));
        }
        let mut bytes = message.to_vec().map_err(|error| error.to_string())?;
        if bytes.len() < SHORTEST {
            bytes.resize(SHORTEST, 0);
        }
        Ok(bytes)
    }
}

/// Not one that was sent in several pieces (RFC 3396): no relay and no firmware does that with these, and the answer has to fit.
fn is_one(option: &DhcpOption) -> bool {
    option.to_vec().is_ok_and(|octets| octets.len() <= 2 + usize::from(u8::MAX))
}

/// The packet without the options that nothing depends on.
fn with_used_options(fixed: &[u8], options: &[u8]) -> Result<Vec<u8>, BadPacket> {
    let (mut used, mut rest) = (fixed.to_vec(), options);
    loop {
        match rest {
            [] | [END, ..] => break,
            [PAD, after @ ..] => rest = after,
            [code, length, after @ ..] if usize::from(*length) <= after.len() => {
                let (value, next) = after.split_at(usize::from(*length));
                if USED.contains(code) {
                    used.extend([*code, *length]);
                    used.extend(value);
                }
                rest = next;
            }
            [code, ..] => return Err(BadPacket::Garbled(format!("option {code} is longer than the packet"))),
        }
    }
    used.push(END);
    Ok(used)
}

/// A question of ours: whether anybody gives addresses here.
pub fn discover(mac: Mac, xid: u32) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, none, none, none, &mac.octets());
    message.set_flags(Flags::new(0x8000));
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
    let wanted = vec![OptionCode::SubnetMask, OptionCode::Router];
    message.opts_mut().insert(DhcpOption::ParameterRequestList(wanted));
    let mut bytes = message.to_vec().unwrap_or_default();
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}

/// iPXE: the address that it has is enough, no proxy is to be waited for (sub-option 176 in single octets is 8: no-pxedhcp).
pub fn no_proxy() -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(OptionCode::Unknown(IPXE), vec![8, 1, 1]))
}

fn octets(options: &DhcpOptions, code: OptionCode) -> Option<Vec<u8>> {
    match options.get(code)? {
        DhcpOption::ClassIdentifier(v) | DhcpOption::UserClass(v) | DhcpOption::ClientMachineIdentifier(v) => Some(v.clone()),
        DhcpOption::Unknown(option) => Some(option.data().to_vec()),
        _ => None,
    }
}

fn firmware(class: &[u8]) -> Firmware {
    if class.starts_with(b"PXEClient") {
        Firmware::Pxe
    } else if class.starts_with(b"HTTPClient") {
        Firmware::Http
    } else {
        Firmware::None
    }
}

/// By its user class, plain or with a length before it (RFC 3004), or by its encapsulated options, where code 19 says that it has HTTP.
fn ipxe(class: &[u8], encapsulated: Option<&[u8]>) -> Option<Ipxe> {
    let says_so = class.windows(4).any(|window| window == b"iPXE");
    if !says_so && encapsulated.is_none() {
        return None;
    }
    // Whoever lists no features is not asked for HTTP by a list.
    let http = encapsulated.is_none_or(|options| features(options).any(|(code, value)| code == 19 && value.first() != Some(&0)));
    Some(Ipxe { http })
}

fn features(options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = options;
    std::iter::from_fn(move || {
        let [code, length, after @ ..] = rest else { return None };
        let value = after.get(..usize::from(*length))?;
        rest = after.get(usize::from(*length)..)?;
        Some((*code, value))
    })
}

/// RFC 4578, 2.3: a type, 0 for a UUID, and 16 octets.
fn uuid(option: &[u8]) -> Option<[u8; 16]> {
    match option {
        [0, uuid @ ..] => uuid.try_into().ok().filter(|uuid: &[u8; 16]| uuid.iter().any(|b| *b != 0) && uuid.iter().any(|b| *b != 0xff)),
        _ => None,
    }
}

fn kind_of(of: MessageType) -> Option<Kind> {
    Some(match of {
        MessageType::Discover => Kind::Discover,
        MessageType::Offer => Kind::Offer,
        MessageType::Request => Kind::Request,
        MessageType::Decline => Kind::Decline,
        MessageType::Ack => Kind::Ack,
        MessageType::Nak => Kind::Nak,
        MessageType::Release => Kind::Release,
        MessageType::Inform => Kind::Inform,
        _ => return None,
    })
}

fn type_of(kind: Kind) -> MessageType {
    match kind {
        Kind::Discover => MessageType::Discover,
        Kind::Offer => MessageType::Offer,
        Kind::Request => MessageType::Request,
        Kind::Decline => MessageType::Decline,
        Kind::Ack => MessageType::Ack,
        Kind::Nak => MessageType::Nak,
        Kind::Release => MessageType::Release,
        Kind::Inform => MessageType::Inform,
    }
}
