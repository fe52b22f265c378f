//! What interfaces this machine has now, that they changed, and by which address it would be seen from somewhere.
//!
//! Leaves out: changing anything (`vip`). Reading is getifaddrs(3), hearing is rtnetlink(7): a notice only says "look again", so that a lost one, or
//! one not understood, costs nothing but the look. Shown by `tests/network/interfaces.rs`.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::LinkAddr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Mac, netlink, sockets};

/// A cable that is plugged in, or a daemon that configures an interface, makes a dozen notices within this time.
const SETTLE: Duration = Duration::from_millis(100);
/// What the kernel keeps of notices that nobody has heard yet. Where there are more it says so, which is a notice as well.
const NOTICES_BYTES: usize = 64 << 10;

/// One interface, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// None: not an Ethernet interface (loopback, tunnels, InfiniBand).
    pub mac: Option<Mac>,
    /// Set up by whoever administers it (IFF_UP).
    pub is_up: bool,
    /// There is somebody at the other end, as far as the driver can tell (IFF_RUNNING).
    pub has_carrier: bool,
    /// In the order in which the kernel has them. With those that `vip` put there.
    pub v4: Vec<Ipv4Net>,
    /// None: IPv6 is disabled, or the interface is not up. It may still be tentative (RFC 4862 section 5.4).
    pub link_local: Option<Ipv6Addr>,
}

/// All interfaces, by index. Two questions to the kernel: some ten microseconds for a usual machine.
pub fn look() -> io::Result<Vec<Interface>> {
    let mut by_name: BTreeMap<String, Interface> = BTreeMap::new();
    let entries: Vec<_> = getifaddrs()?.collect();
    for entry in &entries {
        let name = entry.interface_name.clone();
        let (index, mac) = match entry.address.as_ref().map(|a| a.as_link_addr()) {
            Some(Some(link)) => (u32::try_from(link.ifindex()).ok(), mac(link)),
            // A tunnel that has no address at all on its link, such as WireGuard's. It may be gone since it was listed.
            None => (if_nametoindex(name.as_str()).ok(), None),
            Some(None) => continue,
        };
        let Some(index) = index else { continue };
        let is_up = entry.flags.contains(InterfaceFlags::IFF_UP);
        let has_carrier = entry.flags.contains(InterfaceFlags::IFF_RUNNING);
        let interface = Interface { index, name: name.clone(), mac, is_up, has_carrier, v4: Vec::new(), link_local: None };
        by_name.insert(name, interface);
    }
    for entry in &entries {
        // An IPv4 address is listed under its label, which is "eth0" or "eth0:something". Names of interfaces have no colon.
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        let Some(interface) = by_name.get_mut(name) else { continue };
        let Some(address) = &entry.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            let mask = entry.netmask.as_ref().and_then(|m| m.as_sockaddr_in()).map_or(Ipv4Addr::BROADCAST, |m| m.ip());
            interface.v4.extend(Ipv4Net::with_netmask(v4.ip(), mask));
        } else if let Some(v6) = address.as_sockaddr_in6().filter(|v6| v6.ip().is_unicast_link_local()) {
            interface.link_local.get_or_insert(v6.ip());
        }
    }
    let mut interfaces: Vec<Interface> = by_name.into_values().collect();
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

pub(super) fn mac(link: &LinkAddr) -> Option<Mac> {
    let is_ethernet = link.hatype() == libc::ARPHRD_ETHER && link.halen() == 6;
    link.addr().filter(|_| is_ethernet)
}

/// What a packet(7) socket is bound to. None: there is no such interface, or it has no address on its link.
pub(super) fn link_address(index: u32) -> io::Result<Option<LinkAddr>> {
    let is_it = |link: &LinkAddr| u32::try_from(link.ifindex()) == Ok(index);
    Ok(getifaddrs()?.find_map(|entry| entry.address.and_then(|a| a.as_link_addr().copied()).filter(is_it)))
}

/// The address from which the kernel would send to another one, out of this interface if one is named. An error: there is no way to it.
///
/// Asked of a connected socket, from which nothing is sent: the kernel's own choice, with its rules and preferred sources. Where an interface is
/// named, the kernel takes everybody for reachable through it.
pub fn source_towards(to: Ipv4Addr, out_of: Option<&str>) -> io::Result<Ipv4Addr> {
    if to.is_unspecified() {
        // The kernel takes 0.0.0.0 for this machine.
        return Err(io::Error::new(ErrorKind::AddrNotAvailable, "0.0.0.0 is no address to send to"));
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(out_of.map(str::as_bytes))?;
    socket.set_broadcast(true)?;
    // Any port will do; 9 is discard (RFC 863).
    socket.connect(&SocketAddr::new(IpAddr::V4(to), 9).into())?;
    let source = socket.local_addr()?.as_socket_ipv4();
    source.map(|source| *source.ip()).filter(|ip| !ip.is_unspecified()).ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

/// Tells when the interfaces are other than they were.
#[derive(Debug)]
pub struct Changes {
    notices: UdpSocket,
    last: Vec<Interface>,
    /// A notice was heard that was not looked after: `next` was dropped meanwhile.
    is_due: bool,
}

impl Changes {
    /// With what there is now: whatever changes after that is told. Within a runtime.
    pub fn open() -> io::Result<(Changes, Vec<Interface>)> {
        // IPv6 addresses too, for `Interface::link_local`, which comes seconds after the link.
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let socket = netlink::open(u32::try_from(groups).unwrap_or_default())?;
        socket.set_recv_buffer_size(NOTICES_BYTES)?;
        let notices = sockets::datagrams(socket)?;
        let last = look()?;
        Ok((Changes { notices, last: last.clone(), is_due: false }, last))
    }

    /// Waits until something is other than it was told last. Dropping it loses nothing.
    pub async fn next(&mut self) -> io::Result<Vec<Interface>> {
        loop {
            if !self.is_due {
                // Whether there is really something, `drain` tells.
                self.notices.readable().await?;
                self.is_due = self.drain()?;
                if !self.is_due {
                    continue;
                }
            }
            tokio::time::sleep(SETTLE).await;
            self.drain()?;
            let now = look()?;
            self.is_due = false;
            if now != self.last {
                self.last.clone_from(&now);
                return Ok(now);
            }
        }
    }

    /// Whether there were notices.
    fn drain(&mut self) -> io::Result<bool> {
        let mut any = false;
        let mut buffer = [0; netlink::MESSAGE_BYTES];
        loop {
            match self.notices.try_recv(&mut buffer) {
                Ok(_) => any = true,
                // Notices were lost, which is one as well.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
