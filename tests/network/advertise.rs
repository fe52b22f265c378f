//! Router advertisements as tcpdump and another machine's kernel see them.

// The kernel's clock is the real one.
#![allow(clippy::disallowed_methods)]

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use super::common::{Dump, Lan, Netns, eventually};
use embody::testing::server::boot::network::advertise::{AdvertiseError, serve};
use embody::testing::server::boot::network::interfaces::{Interface, look};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

const ALL_NODES: &str = "ff02::1";
const ALL_ROUTERS: &str = "ff02::2";

fn eth0() -> Interface {
    look().unwrap().into_iter().find(|i| i.name == "eth0").unwrap()
}

/// Sends bytes of ICMPv6 from `eth0` of a namespace; the kernel adds the checksum.
fn say(host: &Netns, message: &'static [u8], to: &str, hops: u32) {
    let to: Ipv6Addr = to.parse().unwrap();
    host.within(move || async move {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_multicast_hops_v6(hops).unwrap();
        let to = SocketAddrV6::new(to, 0, 0, eth0().index);
        assert_eq!(socket.send_to(message, &to.into()).unwrap(), message.len());
    });
}

/// A solicitation of a machine that has no address yet, with the IPv6 header and the checksum that the kernel would write otherwise.
fn say_nameless(host: &Netns) {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
    packet.extend(Ipv6Addr::UNSPECIFIED.octets());
    packet.extend(ALL_ROUTERS.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend([133, 0, 0x7b, 0xb8, 0, 0, 0, 0]);
    host.within(|| async move {
        // IPPROTO_RAW: with a header.
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(255))).unwrap();
        let to = SocketAddrV6::new(ALL_ROUTERS.parse().unwrap(), 0, 0, eth0().index);
        assert_eq!(socket.send_to(&packet, &to.into()).unwrap(), packet.len());
    });
}

const SOLICITATION: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0];
/// Router lifetime 1800 s.
const ROUTER: &[u8] = &[134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
const NO_ROUTER: &[u8] = &[134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn link_local(host: &Netns) -> String {
    host.within(|| async { eth0().link_local.unwrap().to_string() })
}

/// With link-local addresses that can be used, and kernels that ask nothing themselves.
fn settled(hosts: usize) -> Lan {
    let lan = Lan::new(hosts);
    for host in &lan.hosts {
        host.exec("sysctl -qw net.ipv6.conf.eth0.router_solicitations=0");
    }
    for host in &lan.hosts {
        eventually("link-local addresses", || {
            let said = host.ip("-6 addr show dev eth0");
            said.contains("fe80") && !said.contains("tentative")
        });
    }
    lan
}

/// Advertisements of `from`.
fn of(dump: &Dump, from: &str) -> Vec<String> {
    let lines = dump.text().replace("\n\t", " ");
    lines.lines().filter(|l| l.contains(&format!(" {from} > ")) && l.contains("router advertisement")).map(str::to_owned).collect()
}

#[test]
fn who_asks_is_answered_until_another_router_is_heard() {
    if super::common::is_unable() {
        return;
    }
    let lan = settled(3);
    let [server, client, router] = &lan.hosts[..] else { unreachable!() };
    let (here, asker) = (link_local(server), link_local(client));
    let dump = client.tcpdump("eth0", "icmp6");
    let (stop, stopped) = watch::channel(false);
    let served = server.start(|| async move { serve(&eth0(), stopped).await });
    eventually("it asks for routers itself", || {
        dump.text().contains(&format!("{here} > {ALL_ROUTERS}: [icmp6 sum ok] ICMP6, router solicitation"))
    });

    // While a router could still answer, nobody is told; then all are.
    say(client, SOLICITATION, ALL_ROUTERS, 255);
    let took = eventually("all are told", || !of(&dump, &here).is_empty());
    println!("told after {took:?}");
    assert!((500..1_500).contains(&took.as_millis()), "{took:?}");
    let told = of(&dump, &here);
    assert!(told[0].contains(&format!("> {ALL_NODES}: [icmp6 sum ok]")) && told[0].contains("hlim 255"), "{told:?}");
    assert!(told[0].contains("Flags [none]") && told[0].contains("router lifetime 0s") && !told[0].contains("prefix"), "{told:?}");
    assert!(told[0].contains(&format!("source link-address option (1), length 8 (1): {}", lan.mac(0))), "{told:?}");

    say(client, SOLICITATION, ALL_ROUTERS, 255);
    let took = eventually("who asks is told", || of(&dump, &here).len() == 2);
    println!("answered after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(of(&dump, &here)[1].contains(&format!("> {asker}: ")));

    // Of no consequence: what could come from afar, and who is no router.
    say(client, SOLICITATION, ALL_ROUTERS, 64);
    say(router, ROUTER, ALL_NODES, 64);
    say(router, NO_ROUTER, ALL_NODES, 255);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(of(&dump, &here).len(), 2);
    say(client, SOLICITATION, ALL_ROUTERS, 255);
    eventually("who asks is told", || of(&dump, &here).len() == 3);

    say(router, ROUTER, ALL_NODES, 255);
    std::thread::sleep(Duration::from_millis(100));
    say(client, SOLICITATION, ALL_ROUTERS, 255);
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!(of(&dump, &here).len(), 3, "silent beside a router");

    stop.send(true).unwrap();
    served.join().unwrap().unwrap();
}

#[test]
fn a_kernel_that_boots_is_told_and_gets_neither_a_route_nor_an_address() {
    if super::common::is_unable() {
        return;
    }
    let lan = settled(2);
    let [server, client] = &lan.hosts[..] else { unreachable!() };
    let (stop, stopped) = watch::channel(false);
    let served = server.start(|| async move { serve(&eth0(), stopped).await });
    std::thread::sleep(Duration::from_millis(1_200));
    let here = link_local(server);
    let dump = client.tcpdump("any", "icmp6");
    client.exec("sysctl -qw net.ipv6.conf.eth0.router_solicitations=3 net.ipv6.conf.eth0.accept_ra=2");
    client.ip("link set eth0 down");
    client.ip("link set eth0 up");
    eventually("the kernel is answered", || !of(&dump, &here).is_empty());
    std::thread::sleep(Duration::from_millis(4_500));
    let text = dump.text();
    assert_eq!(text.matches("router solicitation").count(), 1, "it asks no more: {text}");
    assert!(!client.ip("-6 route").contains("default") && !client.ip("-6 addr show dev eth0").contains("scope global"));
    stop.send(true).unwrap();
    served.join().unwrap().unwrap();
}

#[test]
fn a_nameless_flood_costs_one_answer_in_three_seconds() {
    if super::common::is_unable() {
        return;
    }
    let lan = settled(2);
    let [server, client] = &lan.hosts[..] else { unreachable!() };
    let here = link_local(server);
    let (stop, stopped) = watch::channel(false);
    let served = server.start(|| async move { serve(&eth0(), stopped).await });
    let dump = client.tcpdump("eth0", "icmp6");
    std::thread::sleep(Duration::from_millis(1_200));
    for _ in 0..20 {
        say_nameless(client);
        std::thread::sleep(Duration::from_millis(100));
    }
    eventually("the second", || of(&dump, &here).len() == 2);
    let text = dump.text().replace("\n\t", " ");
    assert!(text.contains(&format!(":: > {ALL_ROUTERS}: ")), "{text}");
    let times: Vec<_> = dump.lines().into_iter().filter(|(_, l)| l.contains("router advertisement")).map(|(at, _)| at).collect();
    assert!((2_900..3_300).contains(&(times[1] - times[0]).as_millis()), "{:?}", times[1] - times[0]);
    stop.send(true).unwrap();
    served.join().unwrap().unwrap();
}

#[test]
fn it_waits_for_its_address_and_says_where_there_is_none() {
    if super::common::is_unable() {
        return;
    }
    let lan = Lan::new(2);
    let [server, without] = &lan.hosts[..] else { unreachable!() };
    // At once: the address is tentative for a second or two.
    let (stop, stopped) = watch::channel(false);
    let served = server.start(|| async move {
        let mut interface = eth0();
        while interface.link_local.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            interface = eth0();
        }
        serve(&interface, stopped).await
    });
    std::thread::sleep(Duration::from_secs(3));
    assert!(!served.is_finished());
    stop.send(true).unwrap();
    served.join().unwrap().unwrap();

    without.exec("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    let (_stop, stopped) = watch::channel(false);
    let said = without.within(|| async move { serve(&eth0(), stopped).await.unwrap_err() });
    assert_eq!(said.to_string(), "eth0 has no IPv6 link-local address: IPv6 is disabled there, or it is not up");

    // An address that the interface no longer has.
    let (_stop, stopped) = watch::channel(false);
    let said = server.within(|| async move {
        let stale = Interface { link_local: Some("fe80::9".parse().unwrap()), ..eth0() };
        serve(&stale, stopped).await.unwrap_err()
    });
    assert!(matches!(said, AdvertiseError::NotUsable { .. }), "{said}");
    let (_stop, stopped) = watch::channel(false);
    let said = server.within(|| async move {
        let gone = Interface { index: 999, name: "eth9".to_owned(), ..eth0() };
        serve(&gone, stopped).await.unwrap_err()
    });
    assert_eq!(said.to_string(), "eth9 is gone, or not up");
}

/// A machine with iPXE in its NIC, on a tap of the bridge. Killed when it is dropped.
struct Machine(std::process::Child);

impl Machine {
    fn start(switch: &Netns) -> Machine {
        switch.ip("tuntap add tap0 mode tap");
        switch.ip("link set tap0 master br0 up");
        let words = "-machine pc,accel=tcg -m 128 -display none -serial none -monitor none -boot n -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:07 \
                     -netdev tap,id=n,ifname=tap0,script=no,downscript=no,vhost=off";
        let child = std::process::Command::new("ip")
            .args(["netns", "exec", &switch.0, "qemu-system-x86_64"])
            .args(words.split_whitespace())
            .spawn()
            .unwrap();
        Machine(child)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// How often iPXE solicits routers within so many seconds after it did so first.
fn ipxe_asks(is_served: bool) -> usize {
    let lan = settled(1);
    let server = &lan.hosts[0];
    let dump = server.tcpdump("eth0", "icmp6");
    let (stop, stopped) = watch::channel(false);
    let served = server.start(move || async move {
        if is_served {
            serve(&eth0(), stopped).await.unwrap()
        }
    });
    let _machine = Machine::start(&lan.switch);
    let asks = || {
        let lines = dump.lines();
        lines
            .iter()
            .filter(|(_, l)| l.contains("52:54:00:00:00:07 >") || l.contains("fe80::5054:ff:fe00:7 > ff02::2"))
            .filter(|(_, l)| l.contains("router solicitation"))
            .count()
    };
    let start = std::time::Instant::now();
    while asks() == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "iPXE asks nothing: {}", dump.text());
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(12));
    stop.send(true).unwrap_or_default();
    served.join().unwrap();
    println!("{}", dump.text());
    asks()
}

#[test]
#[ignore = "half a minute of a real iPXE: in `tests/run --long`"]
fn ipxe_asks_once_where_it_is_answered() {
    if super::common::is_unable() {
        return;
    }
    let (alone, served) = (ipxe_asks(false), ipxe_asks(true));
    println!("iPXE asks {alone} times within 12 s where nobody answers, {served} times where it is told");
    assert_eq!(served, 1);
    assert!(alone >= 3, "{alone}");
}
