//! The four requests of rtnetlink(7) that a start makes: a link goes up, has an address, has a route; each is acknowledged.
//!
//! Leaves out: reading, which /sys/class/net does. Invariant: a request is answered before its function returns, and never waits longer than
//! `REPLY_WITHIN`. Shown by the tests below, which set up a loopback of their own where they may.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

/// The kernel answers within the call that asks; this is for a kernel that does not.
const REPLY_WITHIN: Duration = Duration::from_secs(5);
const SEQUENCE: u32 = 1;

// linux/netlink.h: struct nlmsghdr is length u32, type u16, flags u16, sequence u32, port u32, all in the machine's byte order.
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_DHCP: u8 = 16;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTNH_F_ONLINK: u32 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
// linux/if_link.h, linux/if_addr.h, linux/if.h
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFF_UP: u32 = 1;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;

/// As systemd-networkd gives the routes of DHCP (systemd.network(5), RouteMetric=): it takes these over, and one that a person writes comes first.
const METRIC: u32 = 1024;

/// A destination and the router to it; none: it is on the link itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub to: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    /// The router is on the link though not in the subnet of the address (RFC 3442).
    pub is_outside: bool,
}

pub fn link_up(index: u32) -> io::Result<()> {
    ask(&link(index, IFF_UP, IFF_UP, None))
}

pub fn set_mtu(index: u32, mtu: u16) -> io::Result<()> {
    ask(&link(index, 0, 0, Some(mtu.into())))
}

pub fn put_address(index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mut body = vec![AF_INET, prefix, 0, RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &address.octets());
    attribute(&mut body, IFA_ADDRESS, &address.octets());
    // RFC 3021: two addresses have no broadcast.
    if prefix < 31 {
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or_default();
        attribute(&mut body, IFA_BROADCAST, &(address.to_bits() | hosts).to_be_bytes());
    }
    ask(&message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body))
}

pub fn put_route(index: u32, route: Route) -> io::Result<()> {
    let scope = if route.router.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let flags = if route.is_outside { RTNH_F_ONLINK } else { 0 };
    let mut body = vec![AF_INET, route.prefix, 0, 0, RT_TABLE_MAIN, RTPROT_DHCP, scope, RTN_UNICAST];
    body.extend(flags.to_ne_bytes());
    if route.prefix > 0 {
        attribute(&mut body, RTA_DST, &route.to.octets());
    }
    if let Some(router) = route.router {
        attribute(&mut body, RTA_GATEWAY, &router.octets());
    }
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    attribute(&mut body, RTA_PRIORITY, &METRIC.to_ne_bytes());
    ask(&message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body))
}

/// struct ifinfomsg: family u8, padding u8, type u16, index i32, flags u32, which of them change u32.
fn link(index: u32, flags: u32, change: u32, mtu: Option<u32>) -> Vec<u8> {
    let mut body = vec![AF_UNSPEC, 0, 0, 0];
    for word in [index, flags, change] {
        body.extend(word.to_ne_bytes());
    }
    if let Some(mtu) = mtu {
        attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    }
    message(RTM_NEWLINK, 0, &body)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or_default();
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    out.extend(SEQUENCE.to_ne_bytes());
    out.extend(0_u32.to_ne_bytes());
    out.extend(body);
    out
}

/// struct rtattr: length u16 with these four octets, type u16, value. All values here are multiples of four: no padding.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(value.len() + 4).unwrap_or_default().to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
}

fn open() -> io::Result<OwnedFd> {
    // No protocol is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(REPLY_WITHIN))?;
    Ok(socket)
}

fn ask(question: &[u8]) -> io::Result<()> {
    let socket = open()?;
    send(&socket, question, SendFlags::empty())?;
    let mut buffer = [0; 4096];
    let (length, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
    acknowledged(buffer.get(..length).unwrap_or_default())
}

/// struct nlmsgerr is an i32, 0 or an errno below zero, after the header.
fn acknowledged(message: &[u8]) -> io::Result<()> {
    let kind = message.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let sequence = message.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let code = message.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, sequence, code) {
        (Some(NLMSG_ERROR), Some(SEQUENCE), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(SEQUENCE), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "rtnetlink answered with something else than an acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_headers_of_linux_say() {
        let up = link(1, IFF_UP, IFF_UP, None);
        assert_eq!(up.len(), 32);
        assert_eq!(up[..8], [32, 0, 0, 0, 16, 0, 5, 0]);
        assert_eq!(up[16..], [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(acknowledged(&message(NLMSG_ERROR, 0, &(-17_i32).to_ne_bytes())).unwrap_err().raw_os_error(), Some(17));
        assert!(acknowledged(&message(NLMSG_ERROR, 0, &[0; 4])).is_ok());
        assert!(acknowledged(&[0; 7]).is_err());
    }

    /// The kernel is the judge, in a network namespace of this thread's own.
    #[test]
    fn the_kernel_takes_them() {
        let lo = 1;
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("left out: a network namespace needs CAP_SYS_ADMIN");
            return;
        }
        link_up(lo).unwrap();
        set_mtu(lo, 9_000).unwrap();
        put_address(lo, Ipv4Addr::new(127, 99, 0, 5), 24).unwrap();
        let there = Route { to: Ipv4Addr::new(10, 9, 0, 0), prefix: 16, router: Some(Ipv4Addr::new(10, 8, 0, 1)), is_outside: true };
        put_route(lo, there).unwrap();
        assert!(put_route(lo, Route { is_outside: false, ..there }).is_err(), "a router that is nowhere");
        let found = std::net::UdpSocket::bind("127.99.0.5:0");
        assert!(found.is_ok(), "{found:?}");
        let wrong = put_route(lo, Route { to: Ipv4Addr::new(10, 255, 1, 1), prefix: 24, router: None, is_outside: false });
        assert_eq!(wrong.unwrap_err().raw_os_error(), Some(22), "host bits in a destination are EINVAL: the attribute arrived");
    }
}
