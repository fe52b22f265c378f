//! A UDP socket for DHCP, on one interface.
//!
//! Leaves out: what is said on it. Invariant: what is sent to `0.0.0.0:port` or broadcast arrives only from the interface that is named, and what
//! is sent leaves by it. Shown by `tests/network/sockets.rs`.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// RFC 2131 section 4.1.
pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;

/// What waits until it is read: a thousand questions at once, each with what the kernel keeps beside it (twice as much is counted). Its default holds
/// some 250 of them, and who is not heard asks again after 4 s, 8 s, 16 s.
const WAITING: usize = 2 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("UDP port {port} of {interface} may not be used: ports below 1024 need CAP_NET_BIND_SERVICE")]
    MayNotBind { interface: String, port: u16, source: io::Error },
    #[error("a socket may not be bound to {interface}: before Linux 5.7 that needs CAP_NET_RAW")]
    MayNotBindDevice { interface: String, source: io::Error },
    #[error("UDP port {port} of {interface} is in use: {}", who_else(*port))]
    InUse { interface: String, port: u16, source: io::Error },
    #[error("no interface `{interface}`")]
    NoInterface { interface: String, source: io::Error },
    #[error("UDP port {port} of {interface} cannot be opened")]
    Other { interface: String, port: u16, source: io::Error },
}

fn who_else(port: u16) -> &'static str {
    match port {
        SERVER_PORT => "by another DHCP server (dnsmasq, Kea, dhcpd, systemd-networkd) or relay; `ss -ulpn sport = :67` names it",
        CLIENT_PORT => "by a DHCP client (dhclient, dhcpcd, NetworkManager, systemd-networkd); `ss -ulpn sport = :68` names it",
        _ => "`ss -ulpn` names the program",
    }
}

/// A socket that may send and receive broadcasts. Port 0: any. Within a runtime.
///
/// SO_REUSEADDR lets two programs that both set it have the port at the same time: a broadcast reaches both, a datagram to one address that one
/// whose socket is bound to the interface, or the younger. Where clients listen that is wanted. Where servers do it is not: another DHCP server of
/// this machine would be heard by nobody here, and both would answer.
pub fn dhcp(interface: &str, port: u16) -> Result<UdpSocket, SocketError> {
    open(interface, port).map_err(|(at, source)| explained(at, interface, port, source))
}

/// A socket that the runtime watches. tokio has a type for UDP alone, but what it does by recv(2) and send(2) holds for datagrams of any family
/// (`AsyncFd`, which would say so, is unsafe to make).
pub(super) fn datagrams(socket: Socket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// Where opening failed.
enum At {
    Device,
    Port,
    Elsewhere,
}

fn open(interface: &str, port: u16) -> Result<UdpSocket, (At, io::Error)> {
    let elsewhere = |error| (At::Elsewhere, error);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(elsewhere)?;
    socket.set_reuse_address(port != SERVER_PORT).map_err(elsewhere)?;
    socket.set_broadcast(true).map_err(elsewhere)?;
    // Beyond what net.core.rmem_max allows, where this process may.
    if setsockopt(&socket, RcvBufForce, &WAITING).is_err() {
        socket.set_recv_buffer_size(WAITING).map_err(elsewhere)?;
    }
    // Before the port: the port is then that of the interface, and is free where another interface has a server of its own.
    socket.bind_device(Some(interface.as_bytes())).map_err(|error| (At::Device, error))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()).map_err(|error| (At::Port, error))?;
    datagrams(socket).map_err(elsewhere)
}

fn explained(at: At, interface: &str, port: u16, source: io::Error) -> SocketError {
    let interface = interface.to_owned();
    match (at, source.raw_os_error()) {
        (At::Device, Some(libc::EPERM | libc::EACCES)) => SocketError::MayNotBindDevice { interface, source },
        // A name that is too long is EINVAL.
        (At::Device, Some(libc::ENODEV | libc::EINVAL)) => SocketError::NoInterface { interface, source },
        (At::Port, Some(libc::EPERM | libc::EACCES)) => SocketError::MayNotBind { interface, port, source },
        (At::Port, Some(libc::EADDRINUSE)) => SocketError::InUse { interface, port, source },
        _ => SocketError::Other { interface, port, source },
    }
}
