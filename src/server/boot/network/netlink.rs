//! The few words of rtnetlink(7) that are needed: an IPv4 address is put on an interface, or taken off; something changed.
//!
//! Leaves out: reading (`interfaces` asks getifaddrs(3)). Invariant: a request is answered before its function returns, and never waits longer
//! than `REPLY_WITHIN`, so that it may be used where something is dropped. Shown by `tests/network/vip.rs`.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::libc;
use nix::sys::socket::NetlinkAddr;
use socket2::{Domain, Protocol, Socket, Type};

/// The kernel answers within the call that asks; this is for a kernel that does not.
const REPLY_WITHIN: Duration = Duration::from_secs(1);
/// An answer repeats the question, which has 60 bytes here. Notices are cut off: only that they came matters.
pub(super) const MESSAGE_BYTES: usize = 4096;

// struct nlmsghdr, linux/netlink.h: length u32, type u16, flags u16, sequence u32, port u32, all in the machine's byte order.
const HEADER_BYTES: usize = 16;
/// Of the one question that a socket is opened for.
const SEQUENCE: u32 = 1;
/// linux/if_addr.h, struct ifa_cacheinfo: preferred and valid lifetime in seconds, and two stamps that only the kernel writes.
const CACHEINFO_BYTES: usize = 16;

/// How an interface was before an address was put on it, or taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Present,
    Absent,
}

/// A socket that hears of these groups (RTMGRP_* of linux/rtnetlink.h; 0: of none).
pub(super) fn open(groups: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Puts an address on an interface, or gives one that is there another lifetime. No lifetime: for ever.
pub(super) fn put_address(index: u32, address: Ipv4Net, lives: Option<Duration>) -> io::Result<Before> {
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    match ask(&address_message(libc::RTM_NEWADDR, create, index, address, lives)) {
        Ok(()) => Ok(Before::Absent),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            ask(&address_message(libc::RTM_NEWADDR, libc::NLM_F_REPLACE, index, address, lives))?;
            Ok(Before::Present)
        }
        Err(error) => Err(error),
    }
}

/// Takes an address off an interface. That either of them is gone already is fine.
pub(super) fn remove_address(index: u32, address: Ipv4Net) -> io::Result<Before> {
    match ask(&address_message(libc::RTM_DELADDR, 0, index, address, None)) {
        Ok(()) => Ok(Before::Present),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(Before::Absent),
        Err(error) => Err(error),
    }
}

fn ask(question: &[u8]) -> io::Result<()> {
    let mut socket = open(0)?;
    socket.set_read_timeout(Some(REPLY_WITHIN))?;
    socket.send(question)?;
    let mut buffer = [0; MESSAGE_BYTES];
    let length = socket.read(&mut buffer)?;
    answer(buffer.get(..length).unwrap_or_default())
}

/// What an acknowledgement says: struct nlmsgerr is an i32, 0 or an errno below zero, after the header.
fn answer(message: &[u8]) -> io::Result<()> {
    let kind = message.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let sequence = message.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let code = message.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match (kind.map(i32::from), sequence, code) {
        (Some(libc::NLMSG_ERROR), Some(SEQUENCE), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(SEQUENCE), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "rtnetlink answered with something else than an acknowledgement")),
    }
}

/// A header, struct ifaddrmsg (family u8, prefix length u8, flags u8, scope u8, index u32), attributes.
fn address_message(kind: u16, flags: i32, index: u32, address: Ipv4Net, lives: Option<Duration>) -> Vec<u8> {
    let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or_default();
    let mut out = Vec::with_capacity(64);
    out.extend(0_u32.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(SEQUENCE.to_ne_bytes());
    out.extend(0_u32.to_ne_bytes());
    out.extend([u8::try_from(libc::AF_INET).unwrap_or_default(), address.prefix_len(), 0, libc::RT_SCOPE_UNIVERSE]);
    out.extend(index.to_ne_bytes());
    attribute(&mut out, libc::IFA_LOCAL, &address.addr().octets());
    attribute(&mut out, libc::IFA_ADDRESS, &address.addr().octets());
    if let Some(lives) = lives {
        // At least a second: the kernel refuses 0.
        let seconds = u32::try_from(lives.as_secs()).unwrap_or(u32::MAX).max(1).to_ne_bytes();
        let mut cacheinfo = [0; CACHEINFO_BYTES];
        for (to, from) in cacheinfo.iter_mut().zip(seconds.iter().chain(&seconds)) {
            *to = *from;
        }
        attribute(&mut out, libc::IFA_CACHEINFO, &cacheinfo);
    }
    let length = u32::try_from(out.len()).unwrap_or_default().to_ne_bytes();
    for (to, from) in out.iter_mut().zip(length) {
        *to = from;
    }
    out
}

/// struct rtattr: length u16 with these four bytes, type u16, value. All values here are multiples of four: no padding.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(value.len() + 4).unwrap_or_default().to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_layout_of_the_kernel() {
        let message =
            address_message(libc::RTM_NEWADDR, libc::NLM_F_CREATE, 7, "10.0.0.9/24".parse().unwrap(), Some(Duration::from_secs(15)));
        let mut expected = Vec::new();
        expected.extend(60_u32.to_ne_bytes());
        expected.extend([20_u16.to_ne_bytes(), 0x405_u16.to_ne_bytes()].concat());
        expected.extend([1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
        expected.extend([2, 24, 0, 0]);
        expected.extend(7_u32.to_ne_bytes());
        expected.extend([8_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
        expected.extend([10, 0, 0, 9]);
        expected.extend([8_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
        expected.extend([10, 0, 0, 9]);
        expected.extend([20_u16.to_ne_bytes(), 6_u16.to_ne_bytes()].concat());
        expected.extend([15_u32.to_ne_bytes(), 15_u32.to_ne_bytes(), [0; 4], [0; 4]].concat());
        assert_eq!(message, expected);
    }

    #[test]
    fn an_answer_of_any_bytes_is_a_value() {
        let mut ack = [0; 36];
        ack[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        ack[8..12].copy_from_slice(&SEQUENCE.to_ne_bytes());
        assert!(answer(&ack).is_ok());
        ack[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(answer(&ack).unwrap_err().raw_os_error(), Some(libc::EPERM));
        ack[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert!(answer(&ack).is_err());
        for length in 0..20 {
            assert!(answer(&ack[..length]).is_err());
        }
    }
}
