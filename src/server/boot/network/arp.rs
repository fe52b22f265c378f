//! ARP on an Ethernet interface: who has an address, and that this machine has it now.
//!
//! Leaves out: when to say so (`vip`). Frames leave through a packet(7) socket, since the kernel announces an address by itself only where a link
//! comes up. Shown by `tests/network/vip.rs`, with tcpdump and the neighbours' tables as referees.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Mac, interfaces, sockets};

/// RFC 5227 section 2.1.1 sends three probes over seconds. A move may not wait for that: an answer within a data centre takes less than a millisecond.
const PROBES: u32 = 2;
const PROBES_APART: Duration = Duration::from_millis(200);

const BROADCAST: Mac = [0xff; 6];
const NOBODY: Mac = [0; 6];
/// Ethernet header 14, ARP for IPv4 over Ethernet 28 (RFC 826). The driver pads it to 60.
const FRAME_BYTES: usize = 42;
/// Ethernet and IPv4, with addresses of 6 and 4 bytes (RFC 826).
const HARDWARE_AND_PROTOCOL: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum ArpError {
    #[error("a packet socket may not be opened: it needs CAP_NET_RAW")]
    MayNot { source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Of one ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arp {
    operation: u8,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
}

impl Arp {
    ///  0        6        12   14               20 21        22     28     32     38     42
    ///  | to     | from   | 0806 | 0001 0800 06 04 | operation | sender MAC, IP | target MAC, IP |
    fn frame(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_BYTES);
        out.extend(BROADCAST);
        out.extend(self.sender.0);
        out.extend(ETHERTYPE_ARP);
        out.extend(HARDWARE_AND_PROTOCOL);
        out.extend([0, self.operation]);
        for (mac, ip) in [self.sender, self.target] {
            out.extend(mac);
            out.extend(ip.octets());
        }
        out
    }

    fn parse(frame: &[u8]) -> Option<Arp> {
        let head = [&ETHERTYPE_ARP[..], &HARDWARE_AND_PROTOCOL].concat();
        let operation = match frame.get(20..22)? {
            [0, operation] if frame.get(12..20)? == head => *operation,
            _ => return None,
        };
        let mac = |at: usize| Mac::try_from(frame.get(at..at + 6)?).ok();
        let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
        Some(Arp { operation, sender: (mac(22)?, ip(28)?), target: (mac(32)?, ip(38)?) })
    }

    /// Who else than `mac` has the address, or is about to take it (RFC 5227 section 2.1.1).
    fn contests(self, address: Ipv4Addr, mac: Mac) -> Option<Mac> {
        let has = self.sender.1 == address;
        let probes = self.operation == REQUEST && self.sender.1.is_unspecified() && self.target.1 == address;
        Some(self.sender.0).filter(|sender| *sender != mac && (has || probes))
    }
}

/// A socket of one interface, and the interface's own MAC as it is now (a bond's changes). None: it is not an Ethernet (or gone), and
/// has no ARP.
///
/// `hears`: of ARP; otherwise it hears nothing, and nothing piles up in it.
fn open(index: u32, hears: bool) -> Result<Option<(Socket, Mac)>, ArpError> {
    let protocol = if hears { i32::from(u16::from_ne_bytes(ETHERTYPE_ARP)) } else { 0 };
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol))).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ArpError::MayNot { source },
        _ => ArpError::Io(source),
    })?;
    let Some(link) = interfaces::link_address(index)? else { return Ok(None) };
    let Some(mac) = interfaces::mac(&link) else { return Ok(None) };
    // The protocol of this address is 0, which leaves that of the socket as it is.
    nix::sys::socket::bind(socket.as_raw_fd(), &link).map_err(io::Error::from)?;
    Ok(Some((socket, mac)))
}

/// Whether this process may speak ARP on an interface.
pub(super) fn is_allowed(index: u32) -> Result<(), ArpError> {
    open(index, false).map(drop)
}

/// Tells everybody on the link that the address is here: as a request, and as a reply, since some listen to the one and some to the other
/// (RFC 5227 section 3). Linux takes a reply for an announcement only where its target is the sender.
pub(super) fn announce(index: u32, address: Ipv4Addr) -> Result<(), ArpError> {
    let Some((socket, mac)) = open(index, false)? else { return Ok(()) };
    for (operation, target) in [(REQUEST, NOBODY), (REPLY, mac)] {
        socket.send(&Arp { operation, sender: (mac, address), target: (target, address) }.frame())?;
    }
    Ok(())
}

/// Who has the address already, asked as one who has it not. Takes `PROBES` times `PROBES_APART` where nobody answers: 400 ms.
pub(super) async fn probe(index: u32, address: Ipv4Addr) -> Result<Option<Mac>, ArpError> {
    let Some((socket, mac)) = open(index, true)? else { return Ok(None) };
    let socket = sockets::datagrams(socket)?;
    let question = Arp { operation: REQUEST, sender: (mac, Ipv4Addr::UNSPECIFIED), target: (NOBODY, address) }.frame();
    for _ in 0..PROBES {
        let until = Instant::now() + PROBES_APART;
        match socket.send(&question).await {
            Ok(_) => {}
            // Nobody can be asked on a link that is down.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if let Ok(contestant) = timeout_at(until, contestant(&socket, address, mac)).await {
            return contestant;
        }
    }
    Ok(None)
}

async fn contestant(socket: &UdpSocket, address: Ipv4Addr, mac: Mac) -> Result<Option<Mac>, ArpError> {
    let mut buffer = [0; 128];
    loop {
        let length = match socket.recv(&mut buffer).await {
            Ok(length) => length,
            // The link went down; the time is waited out, since it may come back.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                sleep(PROBES_APART).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let arp = buffer.get(..length).and_then(Arp::parse);
        if let Some(by) = arp.and_then(|arp| arp.contests(address, mac)) {
            return Ok(Some(by));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    #[test]
    fn a_frame_reads_as_it_was_written_and_no_other_bytes_do() {
        let arp = Arp { operation: REPLY, sender: (A, VIP), target: (B, Ipv4Addr::new(10, 0, 0, 1)) };
        let frame = arp.frame();
        assert_eq!(frame.len(), FRAME_BYTES);
        assert_eq!(Arp::parse(&frame), Some(arp));
        for length in 0..FRAME_BYTES {
            assert_eq!(Arp::parse(&frame[..length]), None);
        }
        for at in 12..21 {
            let mut other = frame.clone();
            other[at] ^= 1;
            assert_eq!(Arp::parse(&other), None);
        }
    }

    #[test]
    fn an_address_is_contested_by_one_who_has_it_or_asks_for_it_as_we_do() {
        let has = |sender| Arp { operation: REPLY, sender: (sender, VIP), target: (B, VIP) }.contests(VIP, A);
        assert_eq!((has(A), has(B)), (None, Some(B)));
        let asks = |ip| Arp { operation: REQUEST, sender: (B, ip), target: (NOBODY, VIP) }.contests(VIP, A);
        assert_eq!(asks(Ipv4Addr::UNSPECIFIED), Some(B));
        assert_eq!(asks(Ipv4Addr::new(10, 0, 0, 1)), None);
    }
}
