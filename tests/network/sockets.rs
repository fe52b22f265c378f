//! DHCP sockets: one interface each, and what is said where they cannot be had.

// The kernel's clock is the real one.
#![allow(clippy::disallowed_methods)]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::common::Lan;
use embody::testing::server::boot::network::sockets::{CLIENT_PORT, SERVER_PORT, dhcp};
use tokio::time::timeout;

#[test]
fn a_broadcast_is_heard_on_its_own_interface_only_and_answered_by_broadcast() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(2);
    let server = &lan.hosts[0];
    server.ip("link add eth1 type veth peer name eth2");
    server.ip("link set eth2 up");
    server.ip("addr add 10.9.0.1/24 dev eth1");
    server.ip("link set eth1 up");
    let answers = server.start(|| async {
        let here = dhcp("eth0", SERVER_PORT).unwrap();
        let there = dhcp("eth1", SERVER_PORT).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = timeout(Duration::from_secs(5), here.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!((&buffer[..length], from.port()), (&b"discover"[..], 68));
        assert!(timeout(Duration::from_millis(200), there.recv_from(&mut buffer)).await.is_err(), "of another interface");
        here.send_to(b"offer", (Ipv4Addr::BROADCAST, 68)).await.unwrap();
    });
    // A client without an address.
    lan.hosts[1].ip("addr flush dev eth0");
    std::thread::sleep(Duration::from_millis(300));
    let offered = lan.hosts[1].within(|| async {
        let client = dhcp("eth0", CLIENT_PORT).unwrap();
        client.send_to(b"discover", (Ipv4Addr::BROADCAST, 67)).await.unwrap();
        let mut buffer = [0; 64];
        let (length, from) = timeout(Duration::from_secs(5), client.recv_from(&mut buffer)).await.unwrap().unwrap();
        (buffer[..length].to_vec(), from.to_string())
    });
    answers.join().unwrap();
    assert_eq!(offered, (b"offer".to_vec(), "10.7.0.1:67".to_owned()));
}

#[test]
fn a_fault_says_what_to_do() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    let (used, missing, long) = lan.hosts[0].within(|| async {
        let _other = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).unwrap();
        let used = dhcp("eth0", SERVER_PORT).unwrap_err().to_string();
        (used, dhcp("eth9", SERVER_PORT).unwrap_err().to_string(), dhcp("an-interface-with-a-long-name", 0).unwrap_err().to_string())
    });
    assert!(used.starts_with("UDP port 67 of eth0 is in use: by another DHCP server"), "{used}");
    assert_eq!(missing, "no interface `eth9`");
    assert_eq!(long, "no interface `an-interface-with-a-long-name`");
}
