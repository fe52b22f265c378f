//! Router solicitations and advertisements (RFC 4861 sections 4.1, 4.2), on one interface.
//!
//! Leaves out: whom to answer, and when (`advertise`). Invariant: what is handed on was sent on this very link (hop limit 255) and passes the
//! tests of RFC 4861 sections 6.1.1 and 6.1.2. Shown by `tests/network/advertise.rs`, with tcpdump as referee.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::interfaces::Interface;
use super::{Mac, sockets};

pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(super) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Without options: RFC 4861 sections 4.1 and 4.2.
const SOLICITATION_BYTES: usize = 8;
const ADVERTISEMENT_BYTES: usize = 16;
/// Options are counted in these (RFC 4861 section 4.6).
const OPTION_UNIT: usize = 8;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
/// A router could not have forwarded it.
const HOP_LIMIT: u8 = 255;

/// The smallest MTU of IPv6 is 1,280, and an advertisement is not fragmented; the rest of a longer one is not read.
const MESSAGE_BYTES: usize = 2048;
/// A hundred messages that wait. More is a flood.
const WAITING_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// From `::` where the sender has no address yet.
    Solicitation {
        from: Ipv6Addr,
    },
    Advertisement {
        from: Ipv6Addr,
        lifetime_s: u16,
    },
}

/// Why an ICMPv6 socket cannot be had.
#[derive(Debug)]
pub(super) enum Refused {
    MayNot(io::Error),
    NoIpv6(io::Error),
    /// The link-local address is being looked for on the link by duplicate address detection, or was found there.
    Tentative(io::Error),
    Other(io::Error),
}

/// An ICMPv6 socket with one address of one interface.
#[derive(Debug)]
pub(super) struct Door {
    socket: UdpSocket,
    index: u32,
}

impl Door {
    pub(super) fn open(interface: &Interface, link_local: Ipv6Addr) -> Result<Door, Refused> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Refused::MayNot(error),
            Some(libc::EAFNOSUPPORT) => Refused::NoIpv6(error),
            _ => Refused::Other(error),
        })?;
        set_up(&socket, interface).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Refused::MayNot(error),
            _ => Refused::Other(error),
        })?;
        // Hosts take advertisements from link-local addresses alone (RFC 4861 section 6.1.2): the kernel might choose another one.
        let own = SocketAddrV6::new(link_local, 0, 0, interface.index);
        socket.bind(&own.into()).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => Refused::Tentative(error),
            _ => Refused::Other(error),
        })?;
        let socket = sockets::datagrams(socket).map_err(Refused::Other)?;
        Ok(Door { socket, index: interface.index })
    }

    /// The next message that is one. Dropping it loses nothing.
    pub(super) async fn receive(&self) -> io::Result<Heard> {
        loop {
            if let Some(heard) = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await? {
                return Ok(heard);
            }
        }
    }

    /// As much as fits without waiting. The kernel writes the checksum (RFC 3542 section 3.1).
    pub(super) fn send(&self, message: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let to = SocketAddrV6::new(to, 0, 0, self.index);
        // Not through the runtime, which says "later" of a socket that it has not yet seen to be ready.
        SockRef::from(&self.socket).send_to(message, &to.into()).map(drop)
    }
}

fn set_up(socket: &Socket, interface: &Interface) -> io::Result<()> {
    socket.attach_filter(&ROUTERS_ONLY)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_recv_buffer_size(WAITING_BYTES)?;
    socket.set_recv_hoplimit_v6(true)?;
    socket.set_unicast_hops_v6(u32::from(HOP_LIMIT))?;
    socket.set_multicast_hops_v6(u32::from(HOP_LIMIT))?;
    socket.set_multicast_if_v6(interface.index)?;
    // What is sent to all routers is not heard again.
    socket.set_multicast_loop_v6(false)?;
    socket.join_multicast_v6(&ALL_ROUTERS, interface.index)
}

/// What RFC 3542 section 3.2 does by ICMP6_FILTER, as a classic BPF program over the ICMPv6 message: every ping and neighbour solicitation of the
/// link would wake this process otherwise. It only saves work: `parse` tests everything again.
const ROUTERS_ONLY: [SockFilter; 5] = [
    // BPF_LD | BPF_B | BPF_ABS: the type.
    SockFilter::new(0x30, 0, 0, 0),
    // BPF_JMP | BPF_JEQ | BPF_K: over so many instructions if equal, if not.
    SockFilter::new(0x15, 1, 0, ROUTER_SOLICITATION as u32),
    SockFilter::new(0x15, 0, 1, ROUTER_ADVERTISEMENT as u32),
    // BPF_RET | BPF_K: all of it, or nothing.
    SockFilter::new(0x06, 0, 0, u32::MAX),
    SockFilter::new(0x06, 0, 0, 0),
];

/// None: a message that says nothing to a router.
fn receive(socket: &UdpSocket) -> io::Result<Option<Heard>> {
    let mut message = [0; MESSAGE_BYTES];
    let mut control = nix::cmsg_space!(libc::c_int);
    let mut parts = [IoSliceMut::new(&mut message)];
    let received = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let hop_limit = received.cmsgs()?.find_map(|c| if let ControlMessageOwned::Ipv6HopLimit(limit) = c { Some(limit) } else { None });
    let (from, length) = (received.address.map(|from| from.ip()), received.bytes);
    Ok(from.zip(hop_limit).and_then(|(from, hop_limit)| parse(message.get(..length)?, from, hop_limit)))
}

fn parse(message: &[u8], from: Ipv6Addr, hop_limit: i32) -> Option<Heard> {
    let (&[kind, 0], true) = (message.first_chunk()?, hop_limit == i32::from(HOP_LIMIT)) else { return None };
    match kind {
        ROUTER_SOLICITATION => {
            let mut options = option_kinds(message.get(SOLICITATION_BYTES..)?)?.into_iter();
            let names_nobody = from.is_unspecified() && options.any(|kind| kind == SOURCE_LINK_LAYER_ADDRESS);
            Some(Heard::Solicitation { from }).filter(|_| !names_nobody && !from.is_multicast())
        }
        ROUTER_ADVERTISEMENT => {
            option_kinds(message.get(ADVERTISEMENT_BYTES..)?)?;
            let lifetime_s = u16::from_be_bytes(message.get(6..8)?.try_into().ok()?);
            Some(Heard::Advertisement { from, lifetime_s }).filter(|_| from.is_unicast_link_local())
        }
        _ => None,
    }
}

/// None: one has no length, or more than there is, and the whole message is to be thrown away.
fn option_kinds(mut options: &[u8]) -> Option<Vec<u8>> {
    let mut kinds = Vec::new();
    while let [kind, units, ..] = options {
        let length = usize::from(*units) * OPTION_UNIT;
        options = options.get(length..).filter(|_| length > 0)?;
        kinds.push(*kind);
    }
    Some(kinds).filter(|_| options.is_empty())
}

/// "Who is a router here?"
pub(super) fn solicitation(mac: Option<Mac>) -> Vec<u8> {
    let mut out = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    source_link_layer_address(&mut out, mac);
    out
}

/// "I am none": type, code, checksum; hop limit (0: not said), flags (no DHCPv6; the preference is 0 with a lifetime of 0, RFC 4191 section 2.2),
/// router lifetime 0; reachable time and retransmission timer (0: not said). No prefix.
pub(super) fn advertisement(mac: Option<Mac>) -> Vec<u8> {
    let mut out = vec![0; ADVERTISEMENT_BYTES];
    if let Some(kind) = out.first_mut() {
        *kind = ROUTER_ADVERTISEMENT;
    }
    source_link_layer_address(&mut out, mac);
    out
}

/// RFC 4861 section 4.6.1, for Ethernet (RFC 2464 section 6): one unit.
fn source_link_layer_address(out: &mut Vec<u8>, mac: Option<Mac>) {
    if let Some(mac) = mac {
        out.extend([SOURCE_LINK_LAYER_ADDRESS, 1]);
        out.extend(mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn own_messages_are_valid() {
        let asked = Heard::Solicitation { from: HOST };
        let said = Heard::Advertisement { from: HOST, lifetime_s: 0 };
        for mac in [None, Some(MAC)] {
            assert_eq!(parse(&solicitation(mac), HOST, 255), Some(asked));
            assert_eq!(parse(&advertisement(mac), HOST, 255), Some(said));
        }
        assert_eq!(advertisement(Some(MAC)), [&[134][..], &[0; 15], &[1, 1], &MAC].concat());
    }

    #[test]
    fn what_came_from_afar_or_is_malformed_is_nothing() {
        let nobody = Ipv6Addr::UNSPECIFIED;
        for hop_limit in [0, 64, 254, 256] {
            assert_eq!(parse(&solicitation(None), HOST, hop_limit), None);
            assert_eq!(parse(&advertisement(None), HOST, hop_limit), None);
        }
        assert_eq!(parse(&solicitation(None), nobody, 255), Some(Heard::Solicitation { from: nobody }));
        assert_eq!(parse(&solicitation(Some(MAC)), nobody, 255), None);
        assert_eq!(parse(&advertisement(None), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 255), None);
        for message in [solicitation(Some(MAC)), advertisement(Some(MAC))] {
            let whole = [message.len(), message.len() - 8];
            for length in (0..message.len()).filter(|length| !whole.contains(length)) {
                assert_eq!(parse(&message[..length], HOST, 255), None, "{length} bytes");
            }
            let mut endless = message.clone();
            endless[message.len() - 7] = 0;
            assert_eq!(parse(&endless, HOST, 255), None);
            let mut coded = message;
            coded[1] = 1;
            assert_eq!(parse(&coded, HOST, 255), None);
        }
    }
}
