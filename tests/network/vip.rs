//! An address that moves between namespaces on one bridge; a peer's table of neighbours and tcpdump as referees.

// The kernel's clock is the real one.
#![allow(clippy::disallowed_methods)]

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::common::{Lan, Netns, eventually};
use embody::testing::server::boot::network::vip::{Claim, Vip, VipError, claim};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

const VIP: &str = "10.7.0.100";

fn put(named: Option<&str>) -> Result<Vip, VipError> {
    Vip::put(format!("{VIP}/24").parse().unwrap(), named)
}

/// The neighbours' table has an entry only of those that were spoken to.
fn speak_to_vip(peer: &Netns) {
    peer.within(|| async { UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"?", (VIP, 9)).unwrap() });
}

fn knows(peer: &Netns, mac: &str) -> bool {
    peer.ip(&format!("neigh show {VIP}")).contains(mac)
}

fn has(host: &Netns) -> bool {
    host.ip("addr").contains(&format!("inet {VIP}/"))
}

#[test]
fn the_address_moves_and_the_peer_follows_within_a_second() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(3);
    let [a, b, peer] = &lan.hosts[..] else { unreachable!() };
    let dump = peer.tcpdump("eth0", "arp");
    let (stop_a, stopped) = watch::channel(false);
    let held = a.start(|| async move { put(None).unwrap().hold(&Notify::new(), stopped).await });
    eventually("a has it", || has(a));
    speak_to_vip(peer);
    eventually("the peer knows a", || knows(peer, &lan.mac(0)));
    stop_a.send(true).unwrap();
    held.join().unwrap().unwrap();
    assert!(!has(a));

    let before = dump.lines().len();
    let again = Arc::new(Notify::new());
    let (stop_b, stopped) = watch::channel(false);
    let moved = Instant::now();
    let held = b.start({
        let again = Arc::clone(&again);
        move || async move { put(None).unwrap().hold(&again, stopped).await }
    });
    eventually("the peer follows", || knows(peer, &lan.mac(1)));
    let took = moved.elapsed();
    println!("the peer followed after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(b.ip("addr show eth0").contains(&format!("inet {VIP}/32 scope global dynamic eth0")), "{}", b.ip("addr show eth0"));

    // Two announcements, two seconds apart, in both forms.
    let announced = || {
        let lines = dump.lines().split_off(before);
        let of =
            |what: &str| lines.iter().filter(|(_, l)| l.contains(what) && l.contains(&lan.mac(1))).map(|(at, _)| *at).collect::<Vec<_>>();
        (of(&format!("Request who-has {VIP}")), of(&format!("Reply {VIP} is-at {}", lan.mac(1))))
    };
    std::thread::sleep(Duration::from_millis(2_500));
    let (requests, replies) = announced();
    assert_eq!((requests.len(), replies.len()), (2, 2), "{}", dump.text());
    let apart = requests[1] - requests[0];
    assert!((1_900..2_300).contains(&apart.as_millis()), "{apart:?}");
    assert!(
        dump.text().contains(&format!("Announcement {VIP}")) || dump.text().contains(&format!("who-has {VIP} tell {VIP}")),
        "{}",
        dump.text()
    );
    // When asked, twice more.
    again.notify_one();
    std::thread::sleep(Duration::from_millis(2_500));
    let (requests, replies) = announced();
    assert_eq!((requests.len(), replies.len()), (4, 4), "{}", dump.text());
    stop_b.send(true).unwrap();
    held.join().unwrap().unwrap();
    assert!(!has(b));
}

#[test]
fn a_claim_meets_who_has_it_already() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(2);
    lan.hosts[1].ip(&format!("addr add {VIP}/24 dev eth0"));
    let dump = lan.hosts[1].tcpdump("eth0", "arp");
    let claimed = |lan: &Lan| {
        lan.hosts[0].within(|| async {
            let start = Instant::now();
            let claim = claim(format!("{VIP}/24").parse().unwrap(), None).await.unwrap();
            let by = if let Claim::Conflict { by } = &claim { Some(*by) } else { None };
            (by, start.elapsed())
        })
    };
    let (by, _) = claimed(&lan);
    assert_eq!(by.map(|m| m.map(|b| format!("{b:02x}")).join(":")), Some(lan.mac(1)));
    assert!(!has(&lan.hosts[0]));
    eventually("the probe is seen", || dump.count(&format!("who-has {VIP} tell 0.0.0.0")) == 1);
    lan.hosts[1].ip(&format!("addr del {VIP}/24 dev eth0"));
    let (by, took) = claimed(&lan);
    println!("a claim that nobody contests took {took:?}");
    assert_eq!(by, None);
    // Twice the time that somebody has to say no.
    assert!(took.as_millis() >= 390, "{took:?}");
}

#[test]
fn dropped_or_cancelled_it_is_gone() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    host.within(|| async { drop(put(None).unwrap()) });
    assert!(!has(host));
    host.within(|| async {
        let (_stop, stopped) = watch::channel(false);
        let again = Notify::new();
        let vip = put(Some("eth0")).unwrap();
        assert_eq!((vip.interface(), vip.address().to_string()), ("eth0", format!("{VIP}/32")));
        assert!(tokio::time::timeout(Duration::from_millis(100), vip.hold(&again, stopped)).await.is_err());
    });
    assert!(!has(host));
    assert!(host.ip("addr show eth0").contains("10.7.0.1/24"));
}

#[test]
fn one_that_is_there_is_taken_over_and_one_elsewhere_taken_away() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    host.ip("link add eth1 type veth peer name eth2");
    host.ip(&format!("addr add {VIP}/32 dev eth1"));
    host.ip(&format!("addr add {VIP}/24 dev eth0"));
    let name = host.0.clone();
    host.within(|| async move {
        let host = std::mem::ManuallyDrop::new(Netns(name));
        let first = put(None).unwrap();
        assert_eq!(first.address().prefix_len(), 24);
        assert!(!host.ip("addr show eth1").contains(VIP) && host.ip("addr show eth0").contains(VIP));
        // One more that has it: both take it away, and that is fine.
        let second = put(None).unwrap();
        first.take_away().unwrap();
        second.take_away().unwrap();
    });
    assert!(!has(host));
}

#[test]
fn a_killed_process_leaves_it_for_seconds_only_and_a_lost_one_comes_back() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(2);
    let [killed, host] = &lan.hosts[..] else { unreachable!() };
    killed.within(|| async { std::mem::forget(put(None).unwrap()) });
    let since = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let address = "10.7.0.101/24".parse().unwrap();
    let held = host.start(move || async move { Vip::put(address, None).unwrap().hold(&Notify::new(), stopped).await });
    eventually("it is there", || host.ip("addr").contains("10.7.0.101/32"));
    host.ip("addr del 10.7.0.101/32 dev eth0");
    std::thread::sleep(Duration::from_millis(5_300));
    assert!(host.ip("addr").contains("10.7.0.101/32"), "it was put there again");
    assert!(has(killed));
    while has(killed) {
        assert!(since.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("gone {:?} after the process", since.elapsed());
    // The other one is renewed.
    std::thread::sleep(Duration::from_secs(6));
    assert!(host.ip("addr").contains("10.7.0.101/32"), "it is renewed");
    // With the interface, it ends.
    host.ip("link del eth0");
    assert!(held.join().unwrap().is_err());
    drop(stop);
}

#[test]
fn addresses_that_would_go_with_it_stay() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    host.exec("sysctl -qw net.ipv4.conf.all.promote_secondaries=0 net.ipv4.conf.eth0.promote_secondaries=0");
    // The address comes first, and is the primary one of the subnet.
    host.ip("addr flush dev eth0");
    let name = host.0.clone();
    host.within(|| async move {
        let host = std::mem::ManuallyDrop::new(Netns(name));
        let vip = put(Some("eth0")).unwrap();
        assert_eq!(vip.address().prefix_len(), 24);
        host.ip("addr add 10.7.0.1/24 dev eth0");
        host.ip("addr add 10.7.0.2/24 dev eth0");
        assert!(host.ip("addr show eth0").contains("10.7.0.1/24 scope global secondary"));
        sleep(Duration::from_millis(50)).await;
        vip.take_away().unwrap();
    });
    let after = host.ip("addr show eth0");
    assert!(!has(host) && after.contains("10.7.0.1/24") && after.contains("10.7.0.2/24"), "{after}");
}

#[test]
fn where_there_is_no_ethernet_nothing_is_announced() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(1);
    lan.hosts[0].within(|| async {
        let vip = put(Some("lo")).unwrap();
        assert_eq!(vip.address().prefix_len(), 24);
        assert_eq!(put(Some("eth9")).unwrap_err().to_string(), format!("no interface `eth9` for {VIP}/24"));
        let address = "192.0.2.9/24".parse().unwrap();
        assert!(matches!(Vip::put(address, None), Err(VipError::NoSubnet { .. })));
    });
}
