//! Ports for servers that are told their port before they start, and keep it while they are down.
//!
//! A port that the kernel gave for 0 and that was let go again may be any client's before the server binds it. These lie below the kernel's range, so
//! nobody gets one unasked, and each belongs to one test process as long as that lives.

use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

const FIRST: u16 = 10_000;

/// What the kernel does not give to those who ask for any port; where it gives all of them, all.
fn never_given() -> Range<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok());
    FIRST..lowest.filter(|low| *low > FIRST + 1_000).unwrap_or(u16::MAX)
}

/// Free for TCP and for UDP.
pub fn free_port() -> u16 {
    let ports = never_given();
    // Processes begin at different ones: most find theirs at the first try.
    let (begin, all) = (std::process::id() % u32::from(ports.end - ports.start), u32::from(ports.end - ports.start));
    for step in 0..all {
        let port = ports.start + u16::try_from((begin + step * 7) % all).expect("it is within the range");
        let claim = SocketAddr::from_abstract_name(format!("embody-test-port-{port}")).and_then(|name| UnixListener::bind_addr(&name));
        let Ok(claim) = claim else { continue };
        // At every address: `embody sim` has many.
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            // Until the process ends.
            std::mem::forget(claim);
            return port;
        }
    }
    panic!("none of the ports {ports:?} is free")
}
