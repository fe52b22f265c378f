//! The client's side of DHCP (RFC 2131), as far as a start needs it: an address, once.
//!
//! Leaves out: renewing, which the system does (`settle` tells systemd-networkd to keep this very lease), and probing for conflicts. Invariants:
//! what does not answer this client's own question is not looked at; the client id is the one that systemd-networkd has with
//! `ClientIdentifier=mac`, so that a server sees one client, not two. Shown by the tests below and `tests/guests.py`.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, DhcpOptions, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use socket2::{Domain, Protocol, Socket, Type};

use crate::command_line::{Mac, written};
use crate::console::{chain, say};
use crate::netlink::Route;

/// RFC 2131, section 4.1.
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Ethernet, IANA's hardware types.
const ETHERNET: u8 = 1;
/// A switch port may forward nothing for 30 s after its link came up (IEEE 802.1D, two times the forward delay of 15 s).
const WITHIN: Duration = Duration::from_secs(120);
/// RFC 2131 waits 4 s first; links that just came up lose the first question often.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// For the offer of the server that gives the address that the firmware had.
const FORMER_WITHIN: Duration = Duration::from_secs(1);
const REQUESTS: u32 = 4;
/// An Ethernet frame's worth.
const PACKET: usize = 1_500;
const LEAST_MTU: u16 = 576;
/// RFC 2131, section 3, and figure 1.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const MAGIC_AT: usize = 236;
/// RFC 1542, section 2.1: of a BOOTP message, which relays may insist on.
const LEAST_BYTES: usize = 300;

#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    #[error("no DHCP server gave {interface} with MAC {mac} an address within {} s: {last}", WITHIN.as_secs())]
    NoLease { interface: String, mac: String, last: String },
    #[error("DHCP cannot be asked on {interface}")]
    Socket { interface: String, source: io::Error },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub server: Ipv4Addr,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub routes: Vec<Route>,
    pub routers: Vec<Ipv4Addr>,
    pub name_servers: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub time_servers: Vec<Ipv4Addr>,
    pub mtu: Option<u16>,
    pub seconds: Option<u32>,
    pub hostname: Option<String>,
}

#[cfg(test)]
impl Lease {
    pub fn at(address: Ipv4Addr, prefix: u8) -> Self {
        Self {
            server: Ipv4Addr::UNSPECIFIED,
            address,
            prefix,
            routes: Vec::new(),
            routers: Vec::new(),
            name_servers: Vec::new(),
            domain: None,
            time_servers: Vec::new(),
            mtu: None,
            seconds: None,
            hostname: None,
        }
    }
}

struct Client<'a> {
    socket: UdpSocket,
    interface: &'a str,
    mac: Mac,
    hostname: Option<&'a str>,
    former: Option<Ipv4Addr>,
    begun: Instant,
}

/// What is asked for: of whom, and which address.
#[derive(Clone, Copy)]
struct Offer {
    server: Ipv4Addr,
    address: Ipv4Addr,
}

pub fn lease(interface: &str, mac: Mac, hostname: Option<&str>, former: Option<Ipv4Addr>) -> Result<Lease, DhcpError> {
    let socket = open(interface).map_err(|source| DhcpError::Socket { interface: interface.to_owned(), source })?;
    Client { socket, interface, mac, hostname, former, begun: Instant::now() }.lease()
}

fn open(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
    Ok(socket.into())
}

impl Client<'_> {
    fn lease(&self) -> Result<Lease, DhcpError> {
        let mut wait = FIRST_WAIT;
        let mut last = "nothing was offered".to_owned();
        // The same while it is asked again (RFC 2131, section 4.1): who first looks whether an address is in use offers it after some seconds.
        let mut xid = xid(self.mac, self.begun);
        while self.begun.elapsed() < WITHIN {
            match self.offer(xid, wait) {
                Ok(Some(offer)) => {
                    match self.request(xid, offer) {
                        Ok(Some(lease)) => return Ok(lease),
                        Ok(None) => last = format!("{} offered {} and did not acknowledge it", offer.server, offer.address),
                        Err(error) => last = chain(&error),
                    }
                    xid = xid.wrapping_add(1);
                }
                Ok(None) => {}
                Err(error) => last = chain(&error),
            }
            say(&format!("{}: DHCP: {last}; it is asked again", self.interface));
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Err(DhcpError::NoLease { interface: self.interface.to_owned(), mac: written(self.mac), last })
    }

    /// The offer of the former address, else the first one.
    fn offer(&self, xid: u32, wait: Duration) -> io::Result<Option<Offer>> {
        self.send(xid, MessageType::Discover, None)?;
        let asked = Instant::now();
        let mut until = asked + wait;
        let mut first = None;
        while let Some(answer) = self.receive(xid, until)? {
            let (Some(MessageType::Offer), Some(server)) = (kind(&answer), server(&answer)) else { continue };
            let offer = Offer { server, address: answer.yiaddr() };
            if offer.address.is_unspecified() {
                continue;
            }
            if self.former.is_none_or(|former| former == offer.address) {
                return Ok(Some(offer));
            }
            first = first.or(Some(offer));
            until = until.min(asked + FORMER_WITHIN);
        }
        Ok(first)
    }

    fn request(&self, xid: u32, offer: Offer) -> io::Result<Option<Lease>> {
        let mut wait = FIRST_WAIT;
        for _ in 0..REQUESTS {
            self.send(xid, MessageType::Request, Some(offer))?;
            let until = Instant::now() + wait;
            while let Some(answer) = self.receive(xid, until)? {
                match kind(&answer) {
                    Some(MessageType::Ack) if server(&answer).is_none_or(|server| server == offer.server) => {
                        return Ok(understood(&answer, offer.server));
                    }
                    Some(MessageType::Nak) => return Ok(None),
                    _ => {}
                }
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Ok(None)
    }

    fn send(&self, xid: u32, kind: MessageType, offer: Option<Offer>) -> io::Result<()> {
        let mut options = DhcpOptions::default();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ClientIdentifier([&[ETHERNET], self.mac.as_slice()].concat()));
        options.insert(DhcpOption::MaxMessageSize(1_500));
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::ClasslessStaticRoute,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::Hostname,
            OptionCode::DomainName,
            OptionCode::InterfaceMtu,
            OptionCode::NtpServers,
        ]));
        if let Some(hostname) = self.hostname {
            options.insert(DhcpOption::Hostname(hostname.to_owned()));
        }
        if let Some(offer) = offer {
            options.insert(DhcpOption::ServerIdentifier(offer.server));
        }
        if let Some(address) = offer.map(|offer| offer.address).or(self.former) {
            options.insert(DhcpOption::RequestedIpAddress(address));
        }
        let mut packet = head(xid, self.begun.elapsed(), self.mac);
        packet.extend(options.to_vec().map_err(io::Error::other)?);
        packet.resize(packet.len().max(LEAST_BYTES), 0);
        self.socket.send_to(&packet, (Ipv4Addr::BROADCAST, SERVER_PORT)).map(drop)
    }

    /// The next answer to this question, if one comes in time.
    fn receive(&self, xid: u32, until: Instant) -> io::Result<Option<Message>> {
        let mut packet = [0; PACKET];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match self.socket.recv(&mut packet) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(answer) = answer(packet.get(..length).unwrap_or_default(), xid, self.mac) {
                return Ok(Some(answer));
            }
        }
    }
}

/// RFC 2131, figure 1, up to the options. By hand: dhcproto's own message begins with a random number, and the kernel has none for minutes on a
/// machine that just started.
fn head(xid: u32, since: Duration, mac: Mac) -> Vec<u8> {
    let seconds = u16::try_from(since.as_secs()).unwrap_or(u16::MAX);
    // A question; hardware, and the length of its addresses; no relay.
    let mut head = vec![1, ETHERNET, u8::try_from(mac.len()).unwrap_or_default(), 0];
    head.extend(xid.to_be_bytes());
    head.extend(seconds.to_be_bytes());
    // Until it has its address the kernel takes only what is broadcast.
    head.extend(u16::from(Flags::default().set_broadcast()).to_be_bytes());
    // No address of anyone: ciaddr, yiaddr, siaddr, giaddr.
    head.extend([0; 16]);
    head.extend(mac);
    head.resize(MAGIC_AT, 0);
    head.extend(MAGIC);
    head
}

/// What answers this question of this machine.
fn answer(packet: &[u8], xid: u32, mac: Mac) -> Option<Message> {
    packet.get(MAGIC_AT..)?.starts_with(&MAGIC).then_some(())?;
    let answer = Message::decode(&mut Decoder::new(packet)).ok()?;
    let is_ours = answer.opcode() == Opcode::BootReply && answer.xid() == xid;
    // The length is the sender's word: dhcproto's `chaddr()` trusts it.
    (is_ours && usize::from(answer.hlen()) == mac.len() && answer.chaddr() == mac).then_some(answer)
}

/// Machines that start at the same moment differ in their MAC, and questions of one machine in their time.
fn xid(mac: Mac, begun: Instant) -> u32 {
    let [_, _, a, b, c, d] = mac;
    u32::from_be_bytes([a, b, c, d]) ^ u32::try_from(begun.elapsed().as_millis()).unwrap_or_default().rotate_left(16) ^ std::process::id()
}

fn kind(message: &Message) -> Option<MessageType> {
    message.opts().msg_type()
}

fn server(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => None,
    }
}

fn understood(ack: &Message, server: Ipv4Addr) -> Option<Lease> {
    let address = Some(ack.yiaddr()).filter(|address| !address.is_unspecified())?;
    let mut lease = Lease {
        server,
        address,
        prefix: class(address),
        routes: Vec::new(),
        routers: Vec::new(),
        name_servers: Vec::new(),
        domain: None,
        time_servers: Vec::new(),
        mtu: None,
        seconds: None,
        hostname: None,
    };
    let mut classless = Vec::new();
    for (_, option) in ack.opts().iter() {
        match option {
            DhcpOption::SubnetMask(mask) => lease.prefix = prefix(*mask).unwrap_or(lease.prefix),
            DhcpOption::Router(routers) => lease.routers.clone_from(routers),
            DhcpOption::DomainNameServer(servers) => lease.name_servers.clone_from(servers),
            DhcpOption::DomainName(name) => lease.domain = plain(name).filter(|name| crate::command_line::is_hostname(name)),
            DhcpOption::Hostname(name) => lease.hostname = plain(name).filter(|name| crate::command_line::is_hostname(name)),
            DhcpOption::NtpServers(servers) => lease.time_servers.clone_from(servers),
            DhcpOption::InterfaceMtu(mtu) => lease.mtu = Some(*mtu).filter(|mtu| *mtu >= LEAST_MTU),
            // RFC 2131, section 3.3: all ones is for ever.
            DhcpOption::AddressLeaseTime(seconds) => lease.seconds = Some(*seconds).filter(|seconds| *seconds != u32::MAX),
            DhcpOption::ClasslessStaticRoute(routes) => classless.clone_from(routes),
            _ => {}
        }
    }
    // RFC 3442: who gives these is not asked for its routers.
    let wanted: Vec<(Ipv4Addr, u8, Ipv4Addr)> = match classless.as_slice() {
        [] => lease.routers.first().map(|router| (Ipv4Addr::UNSPECIFIED, 0, *router)).into_iter().collect(),
        routes => routes.iter().map(|(net, router)| (net.network(), net.prefix_len(), *router)).collect(),
    };
    lease.routes = wanted.into_iter().map(|(to, prefix, router)| route(&lease, to, prefix, router)).collect();
    // A router behind another one comes after what is on the link.
    lease.routes.sort_by_key(|route| route.router.is_some());
    Some(lease)
}

fn route(lease: &Lease, to: Ipv4Addr, prefix: u8, router: Ipv4Addr) -> Route {
    let router = Some(router).filter(|router| !router.is_unspecified());
    let mask = u32::MAX.checked_shl(32 - u32::from(lease.prefix)).unwrap_or_default();
    let is_outside = router.is_some_and(|router| (router.to_bits() ^ lease.address.to_bits()) & mask != 0);
    Route { to, prefix, router, is_outside }
}

/// Some servers end a name with a NUL.
fn plain(text: &str) -> Option<String> {
    Some(text.trim_end_matches('\0').trim_end_matches('.').to_owned()).filter(|text| !text.is_empty())
}

fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then_some(u8::try_from(ones).ok()?)
}

/// RFC 791: what an address without a mask has.
fn class(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn ack(options: Vec<DhcpOption>) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(7, none, ip("10.1.2.3"), none, none, &[2; 6]);
        message.set_opcode(Opcode::BootReply);
        for option in options {
            message.opts_mut().insert(option);
        }
        Message::decode(&mut Decoder::new(&message.to_vec().unwrap())).unwrap()
    }

    #[test]
    fn a_whole_answer_is_understood() {
        let lease = understood(
            &ack(vec![
                DhcpOption::SubnetMask(ip("255.255.254.0")),
                DhcpOption::Router(vec![ip("10.1.2.1"), ip("10.1.2.2")]),
                DhcpOption::DomainNameServer(vec![ip("10.1.0.53")]),
                DhcpOption::DomainName("rack.example\0".to_owned()),
                DhcpOption::NtpServers(vec![ip("10.1.0.123")]),
                DhcpOption::InterfaceMtu(9000),
                DhcpOption::AddressLeaseTime(3600),
                DhcpOption::Hostname("web-1".to_owned()),
            ]),
            ip("10.1.2.1"),
        )
        .unwrap();
        assert_eq!((lease.address, lease.prefix, lease.mtu, lease.seconds), (ip("10.1.2.3"), 23, Some(9000), Some(3600)));
        assert_eq!(lease.routes, [Route { to: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(ip("10.1.2.1")), is_outside: false }]);
        assert_eq!((lease.domain.as_deref(), lease.hostname.as_deref()), (Some("rack.example"), Some("web-1")));
    }

    #[test]
    fn classless_routes_stand_for_the_routers_and_what_is_on_the_link_comes_first() {
        let lease = understood(
            &ack(vec![
                DhcpOption::SubnetMask(ip("255.255.255.255")),
                DhcpOption::Router(vec![ip("10.9.9.9")]),
                DhcpOption::ClasslessStaticRoute(vec![
                    ("0.0.0.0/0".parse().unwrap(), ip("10.1.2.1")),
                    ("10.1.2.1/32".parse().unwrap(), Ipv4Addr::UNSPECIFIED),
                ]),
            ]),
            ip("10.1.2.1"),
        )
        .unwrap();
        let link = Route { to: ip("10.1.2.1"), prefix: 32, router: None, is_outside: false };
        let default = Route { to: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(ip("10.1.2.1")), is_outside: true };
        assert_eq!(lease.routes, [link, default]);
    }

    /// An independent reader of the format finds what is meant.
    #[test]
    fn a_question_is_one_of_this_machine() {
        let mac = [2, 0, 0, 0, 0, 7];
        let mut packet = head(0x0102_0304, Duration::from_secs(70_000), mac);
        assert_eq!(packet.len(), 240);
        packet.extend([53, 1, 1, 255]);
        let question = Message::decode(&mut Decoder::new(&packet)).unwrap();
        assert_eq!((question.opcode(), question.xid(), question.secs()), (Opcode::BootRequest, 0x0102_0304, u16::MAX));
        assert!(question.flags().broadcast() && question.chaddr() == mac && question.ciaddr().is_unspecified());
    }

    #[test]
    fn what_does_not_answer_this_question_is_not_looked_at() {
        let mac = [2; 6];
        let whole = ack(vec![DhcpOption::MessageType(MessageType::Offer)]).to_vec().unwrap();
        assert!(answer(&whole, 7, mac).is_some());
        assert!(answer(&whole, 8, mac).is_none() && answer(&whole, 7, [3; 6]).is_none());
        for length in 0..MAGIC_AT + 4 {
            assert!(answer(&whole[..length], 7, mac).is_none());
        }
        for (at, value) in [(0, 1), (2, 255), (2, 0), (MAGIC_AT, 0)] {
            let mut changed = whole.clone();
            changed[at] = value;
            assert!(answer(&changed, 7, mac).is_none(), "{at} {value}");
        }
    }

    #[test]
    fn what_is_odd_is_left_out_and_no_address_is_no_lease() {
        let odd = ack(vec![
            DhcpOption::SubnetMask(ip("255.0.255.0")),
            DhcpOption::InterfaceMtu(68),
            DhcpOption::DomainName("a b\nnameserver 6.6.6.6".to_owned()),
            DhcpOption::AddressLeaseTime(u32::MAX),
        ]);
        let lease = understood(&odd, ip("10.1.2.1")).unwrap();
        assert_eq!((lease.prefix, lease.mtu, lease.domain, lease.seconds, lease.routes), (8, None, None, None, Vec::new()));
        let mut nothing = odd;
        nothing.set_yiaddr(Ipv4Addr::UNSPECIFIED);
        assert_eq!(understood(&nothing, ip("10.1.2.1")), None);
    }

    /// A hundred thousand answers with octets changed, cut, or added: whatever is sent on this network, the start goes on.
    #[test]
    fn hostile_answers_are_survived() {
        let mac = [2; 6];
        let whole = ack(vec![
            DhcpOption::MessageType(MessageType::Ack),
            DhcpOption::SubnetMask(ip("255.255.255.0")),
            DhcpOption::Router(vec![ip("10.1.2.1")]),
            DhcpOption::DomainName("rack.example".to_owned()),
            DhcpOption::ClasslessStaticRoute(vec![("0.0.0.0/0".parse().unwrap(), ip("10.1.2.1"))]),
        ])
        .to_vec()
        .unwrap();
        // Numerical Recipes' generator: the same each time.
        let mut seed = 1_u32;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        let mut understood_some = 0;
        for _ in 0..100_000 {
            let mut packet = whole.clone();
            for _ in 0..=random(6) {
                // Mostly in the options.
                let from = if random(4) == 0 { 0 } else { MAGIC_AT + 4 };
                let at = from + random(packet.len() - from);
                packet[at] = u8::try_from(random(256)).unwrap();
            }
            match random(4) {
                0 => packet.truncate(random(packet.len())),
                1 => packet.extend((0..random(64)).map(|n| n as u8)),
                _ => {}
            }
            if let Some(answer) = answer(&packet, 7, mac) {
                let _ = (kind(&answer), server(&answer));
                understood_some += usize::from(understood(&answer, ip("10.1.2.1")).is_some());
            }
        }
        assert!(understood_some > 1_000, "{understood_some}");
    }
}
