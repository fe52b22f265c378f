//! Interfaces of namespaces, beside what iproute2 says of them.

// The kernel's clock is the real one.
#![allow(clippy::disallowed_methods)]

use std::net::Ipv4Addr;
use std::time::Duration;

use super::common::{Lan, Netns};
use embody::testing::server::boot::network::interfaces::{Changes, Interface, look, source_towards};
use tokio::time::{sleep, timeout};

/// Whatever takes longer does not come at all.
const LONG: Duration = Duration::from_secs(5);

fn named(interfaces: &[Interface], name: &str) -> Interface {
    interfaces.iter().find(|i| i.name == name).unwrap().clone()
}

#[test]
fn interfaces_are_what_iproute2_says() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    host.ip("addr add 10.7.0.8/24 dev eth0 label eth0:more");
    host.ip("addr add 192.0.2.1/32 dev eth0");
    host.ip("tuntap add tun0 mode tun");
    host.ip("addr add 10.6.0.1/30 dev tun0");
    let found = host.within(|| async { look().unwrap() });
    let eth0 = named(&found, "eth0");
    assert_eq!(eth0.mac.map(|m| m.map(|b| format!("{b:02x}")).join(":")), Some(lan.mac(0)));
    let mut v4 = eth0.v4.iter().map(ToString::to_string).collect::<Vec<_>>();
    v4.sort();
    assert_eq!(v4, ["10.7.0.1/24", "10.7.0.8/24", "192.0.2.1/32"]);
    assert!(eth0.is_up && eth0.has_carrier && host.ip("-o link show eth0").starts_with(&format!("{}:", eth0.index)));
    let link_local = eth0.link_local.unwrap().to_string();
    assert!(host.ip("-6 addr show dev eth0").contains(&format!("{link_local}/64 scope link")), "{link_local}");
    let tun0 = named(&found, "tun0");
    assert!(host.ip("-o link show tun0").starts_with(&format!("{}:", tun0.index)));
    assert_eq!((named(&found, "lo").mac, tun0.mac, tun0.is_up, tun0.v4), (None, None, false, vec!["10.6.0.1/30".parse().unwrap()]));
}

#[test]
fn changes_are_told_once_each_and_silence_is_silence() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    let name = lan.hosts[0].0.clone();
    let told = lan.hosts[0].within(move || async move {
        let host = Netns(name);
        // The link-local address may still come.
        sleep(Duration::from_secs(3)).await;
        let (mut changes, first) = Changes::open().unwrap();
        assert!(timeout(Duration::from_millis(500), changes.next()).await.is_err(), "nothing changed");
        host.ip("addr add 10.8.0.1/24 dev eth0");
        let added = timeout(LONG, changes.next()).await.unwrap().unwrap();
        assert_ne!(first, added);
        assert!(named(&added, "eth0").v4.contains(&"10.8.0.1/24".parse().unwrap()));
        // What does not change what is known of it is not told: here and back again.
        host.ip("addr add 10.8.0.2/24 dev eth0");
        host.ip("addr del 10.8.0.2/24 dev eth0");
        assert!(timeout(Duration::from_millis(500), changes.next()).await.is_err(), "as before");
        let lines: String = (1..=200).map(|n| format!("addr add 10.9.0.{n}/32 dev eth0\n")).collect();
        let batch = std::env::temp_dir().join(format!("{}.batch", host.0));
        std::fs::write(&batch, lines).unwrap();
        host.ip(&format!("-batch {}", batch.display()));
        std::fs::remove_file(batch).unwrap();
        let mut told = 0;
        while let Ok(now) = timeout(Duration::from_millis(600), changes.next()).await {
            told += 1;
            if named(&now.unwrap(), "eth0").v4.len() == 202 {
                break;
            }
        }
        // Dropped while something is due, it is not forgotten.
        host.ip("link set eth0 down");
        assert!(timeout(Duration::from_millis(20), changes.next()).await.is_err());
        let down = timeout(LONG, changes.next()).await.unwrap().unwrap();
        assert!(!named(&down, "eth0").is_up);
        host.ip("link set eth0 up");
        std::mem::forget(host);
        told
    });
    assert!((1..=3).contains(&told), "200 addresses were told {told} times");
}

#[test]
fn the_source_is_that_of_the_kernel() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    host.ip("link add eth1 type veth peer name eth2");
    host.ip("link set eth1 up");
    host.ip("link set eth2 up");
    host.ip("addr add 10.8.0.1/24 dev eth1");
    host.ip("addr add 10.8.0.2/24 dev eth1");
    host.ip("route add 10.20.0.0/16 via 10.7.0.254");
    host.ip("route add 10.21.0.0/16 via 10.8.0.254 src 10.8.0.2");
    host.ip("route add default via 10.7.0.254");
    let targets = ["10.7.0.9", "10.8.0.9", "10.20.1.1", "10.21.1.1", "198.51.100.1", "10.7.0.1"];
    for target in targets {
        let said = host.ip(&format!("route get {target}"));
        let expected = said.split(" src ").nth(1).unwrap().split_whitespace().next().unwrap().parse::<Ipv4Addr>().unwrap();
        let to: Ipv4Addr = target.parse().unwrap();
        assert_eq!(host.within(move || async move { source_towards(to, None).unwrap() }), expected, "{target}");
    }
    let (out_of, unspecified, no_route) = host.within(|| async {
        let to = Ipv4Addr::new(10, 20, 1, 1);
        let unspecified = source_towards(Ipv4Addr::UNSPECIFIED, None);
        (source_towards(to, Some("eth1")), unspecified, source_towards(to, Some("lo")).map_err(|e| e.to_string()))
    });
    println!("out of eth1: {out_of:?}, out of lo: {no_route:?}");
    assert!(unspecified.is_err());
    host.ip("route del default");
    assert!(host.within(|| async { source_towards(Ipv4Addr::new(198, 51, 100, 1), None) }).is_err());
}
