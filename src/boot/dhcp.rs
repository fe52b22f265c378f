//! What a machine that asks by DHCP is answered. Pure: from its packet, the place where it asks, and the view.
//!
//! Leaves out: who else gives addresses there, which decides what is served (`server::boot::dhcp`). Invariants: a fixed address is offered only while
//! its answer stands; a boot file goes to the NIC that the server boots over alone; nobody gets an address that another one has. Shown by
//! `tests/boot.rs` and `tests/simulate.rs`.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::DhcpOption as Opt;

use super::view::{BootNetwork, Lease, Machine, View};
use super::wire::{Firmware, Kind, Packet, Reply, no_proxy};
use crate::model::Mac;
use crate::model::network::AddressRange;
use crate::model::server::Loader;

/// How long an address is given for: to what runs, and to a machine that is parked or not known, which soon gets another one.
const RUNS: Duration = Duration::from_secs(3600);
const WAITS: Duration = Duration::from_secs(600);

/// What is given on a network at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    Nothing,
    /// Boot files beside another server's addresses.
    Proxy,
    /// To the machines of manifests.
    Reservations,
    Full,
}

/// Where it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub network: &'a BootNetwork,
    pub serves: Serves,
    /// This server's address there.
    pub own: Ipv4Addr,
    /// `http://10.1.10.5`, without a slash at the end.
    pub base: &'a str,
    /// It was given our loader a moment ago: what asks now is that.
    pub chained: bool,
}

/// Whether an address of the range can be given, and to whom it is leased.
pub type IsFree<'a> = &'a dyn Fn(Ipv4Addr, Option<&Lease>) -> bool;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Nothing(Why),
    Answer(Reply),
    /// An address of the range, which nobody had before: the answer is sent once that is stored.
    Lease {
        address: Ipv4Addr,
        reply: Reply,
    },
    /// The client says that somebody else has this address.
    Declined(Ipv4Addr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is for another server, or for nobody here.
    NotOurs,
    /// No manifest names the machine, and strangers get nothing here.
    Stranger,
    /// Every address of the range is taken.
    RangeIsFull,
    /// It wants nothing that is given here.
    NothingForIt,
}

/// What is said of a boot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// The loader by TFTP, or the URL of the loader or of a script.
    Loader(String),
    Script(String),
    /// The client wants none.
    NotWanted,
    /// It wants one, and this is why it gets none.
    Refused(String),
}

/// The boot file for a client.
pub fn file(packet: &Packet, machine: Option<&Machine>, place: &Place<'_>) -> File {
    if packet.firmware == Firmware::None && packet.ipxe.is_none() {
        return File::NotWanted;
    }
    if let Some(nic) = machine.and_then(|machine| machine.boots_over.as_ref()) {
        return File::Refused(format!("its server boots over NIC {nic}"));
    }
    let loader = machine.map(|machine| machine.loader).unwrap_or_default();
    if let Some(ipxe) = packet.ipxe
        && (place.chained || (ipxe.http && loader != Loader::Chain))
    {
        return File::Script(format!("{}/boot.ipxe", place.base));
    }
    let no = |what: &str| File::Refused(format!("it asks for {what}, and its server has `loader: {}`", name_of(loader)));
    match (packet.firmware, loader) {
        (Firmware::Pxe | Firmware::None, Loader::Http) => no("PXE"),
        (Firmware::Http, Loader::Pxe) => no("UEFI HTTP boot"),
        (firmware, _) => match binary(packet.arch) {
            Some(name) if firmware == Firmware::Http => File::Loader(format!("{}/loader/{name}", place.base)),
            Some(name) => File::Loader(name.to_owned()),
            None => File::Refused(format!("there is no loader for its architecture {}", packet.arch.unwrap_or(0))),
        },
    }
}

fn name_of(loader: Loader) -> &'static str {
    match loader {
        Loader::Auto => "auto",
        Loader::Pxe => "pxe",
        Loader::Http => "http",
        Loader::Chain => "chain",
    }
}

/// By option 93 (IANA, processor architecture types).
pub fn binary(arch: Option<u16>) -> Option<&'static str> {
    match arch {
        None | Some(0) => Some("undionly.kpxe"),
        Some(7 | 9 | 16) => Some("snponly.efi"),
        Some(11 | 19) => Some("snponly-arm64.efi"),
        Some(_) => None,
    }
}

/// What a packet is answered.
pub fn decide(packet: &Packet, place: &Place<'_>, view: &View, is_free: IsFree<'_>) -> Decision {
    let machine = view.machine(packet.mac).map(AsRef::as_ref);
    if !packet.is_request || place.serves == Serves::Nothing {
        return Decision::Nothing(Why::NotOurs);
    }
    if machine.is_none() && !serves_strangers(place) {
        return Decision::Nothing(Why::Stranger);
    }
    let boot = file(packet, machine, place);
    if place.serves == Serves::Proxy {
        return proxy(packet, place, &boot);
    }
    match packet.kind {
        Kind::Decline if packet.server == Some(place.own) => packet.requested.map_or(Decision::Nothing(Why::NotOurs), Decision::Declined),
        Kind::Inform => Decision::Answer(reply(Kind::Ack, None, packet, machine, place, &boot)),
        Kind::Discover | Kind::Request => address(packet, place, machine, view, is_free, &boot),
        Kind::Decline | Kind::Release | Kind::Offer | Kind::Ack | Kind::Nak => Decision::Nothing(Why::NotOurs),
    }
}

fn serves_strangers(place: &Place<'_>) -> bool {
    place.network.boot.range.is_some() && place.serves != Serves::Reservations
}

/// Beside another server: the boot file alone (PXE 2.1, section 2.2.3).
fn proxy(packet: &Packet, place: &Place<'_>, boot: &File) -> Decision {
    match boot {
        File::Loader(_) | File::Script(_) if packet.kind == Kind::Discover => Decision::Answer(Reply {
            kind: Kind::Offer,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            server: place.own,
            options: booting(packet, place, boot),
            file: path(boot),
        }),
        File::Loader(_) | File::Script(_) | File::NotWanted | File::Refused(_) => Decision::Nothing(Why::NothingForIt),
    }
}

/// The answer of a boot server on port 4011 (PXE 2.1, section 2.2.5).
pub fn boot_server(packet: &Packet, place: &Place<'_>, view: &View) -> Option<Reply> {
    let machine = view.machine(packet.mac).map(AsRef::as_ref);
    if !packet.is_request || packet.kind != Kind::Request || (machine.is_none() && !serves_strangers(place)) {
        return None;
    }
    let boot = file(packet, machine, place);
    let file = path(&boot)?;
    Some(Reply {
        kind: Kind::Ack,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        server: place.own,
        options: booting(packet, place, &boot),
        file: Some(file),
    })
}

/// Which address it has, or is to get.
enum Has {
    Already(Ipv4Addr),
    New(Ipv4Addr),
    None,
}

fn has(mac: Mac, place: &Place<'_>, machine: Option<&Machine>, view: &View, is_free: IsFree<'_>) -> Has {
    let network = place.network;
    if let Some(address) = machine.and_then(|machine| fixed(mac, machine, network, view)) {
        return Has::Already(address);
    }
    let Some(range) = network.boot.range else { return Has::None };
    if let Some(address) = view.lease(mac, &network.name).filter(|address| range.contains(*address) && !is_kept(*address, place)) {
        return Has::Already(address);
    }
    let first = mac.octets().iter().fold(0_u32, |hash, octet| hash.wrapping_mul(31).wrapping_add(u32::from(*octet)));
    let all = (0..range.len()).map(|n| range.nth(first.wrapping_add(n)));
    let mut free = all
        .filter(|address| network.subnet.contains(address) && !is_kept(*address, place))
        .filter(|address| machine.is_some() || !is_reserved(range, *address));
    free.find(|address| is_free(*address, view.leases.get(address).map(AsRef::as_ref))).map_or(Has::None, Has::New)
}

/// The last quarter of a range is for machines that manifests name: however many others ask, these find an address.
fn is_reserved(range: AddressRange, address: Ipv4Addr) -> bool {
    let open = range.len() - range.len() / 4;
    range.place_of(address).is_some_and(|place| place >= open)
}

/// The address of the persona whose answer stands, on this NIC and in this subnet.
fn fixed(mac: Mac, machine: &Machine, network: &BootNetwork, view: &View) -> Option<Ipv4Addr> {
    let standing = machine.standing.as_ref().filter(|_| machine.parked.is_none() && view.stop.is_none() && !network.quarantine)?;
    standing.addresses.get(&mac).map(|net| net.addr()).filter(|address| network.subnet.contains(address))
}

/// Never given: ours, the router's, those of servers that machines are told of, and the subnet's own two.
fn is_kept(address: Ipv4Addr, place: &Place<'_>) -> bool {
    let network = place.network;
    let edge = address == network.subnet.network() || address == network.subnet.broadcast();
    edge || address == place.own
        || network.router == Some(address)
        || network.boot.dns.contains(&address)
        || network.boot.ntp.contains(&address)
}

fn address(packet: &Packet, place: &Place<'_>, machine: Option<&Machine>, view: &View, is_free: IsFree<'_>, boot: &File) -> Decision {
    let asked_for = packet.requested.or(Some(packet.ciaddr).filter(|address| !address.is_unspecified()));
    if packet.kind == Kind::Request && packet.server.is_some_and(|server| server != place.own) {
        return Decision::Nothing(Why::NotOurs);
    }
    let has = has(packet.mac, place, machine, view, is_free);
    if packet.kind == Kind::Discover {
        return match has {
            Has::Already(address) | Has::New(address) => Decision::Answer(reply(Kind::Offer, Some(address), packet, machine, place, boot)),
            Has::None => Decision::Nothing(if place.network.boot.range.is_some() { Why::RangeIsFull } else { Why::NothingForIt }),
        };
    }
    match has {
        Has::Already(address) if asked_for == Some(address) => {
            Decision::Answer(reply(Kind::Ack, Some(address), packet, machine, place, boot))
        }
        // One that never asked us is answered only by who gave it what it has.
        Has::New(address) if asked_for == Some(address) && packet.server.is_some() => {
            Decision::Lease { address, reply: reply(Kind::Ack, Some(address), packet, machine, place, boot) }
        }
        Has::Already(_) | Has::New(_) | Has::None => refusal(packet, place, view, asked_for),
    }
}

/// It asks for what it does not have. An address that was never ours to give is somebody else's to refuse.
fn refusal(packet: &Packet, place: &Place<'_>, view: &View, asked_for: Option<Ipv4Addr>) -> Decision {
    let in_range = |address: &Ipv4Addr| place.network.boot.range.is_some_and(|range| range.contains(*address));
    let here = asked_for.filter(|address| place.network.subnet.contains(address));
    let whose = here.and_then(|address| view.standing_at(address));
    if whose == Some(packet.mac) && packet.server != Some(place.own) {
        // It is not given now, and what may run there keeps what it has.
        return Decision::Nothing(Why::NotOurs);
    }
    let ours = asked_for.is_some_and(|address| in_range(&address) || view.leases.contains_key(&address)) || whose.is_some();
    if packet.server == Some(place.own) || ours {
        let said = Opt::Message("this address is not this machine's here".to_owned());
        return Decision::Answer(Reply {
            kind: Kind::Nak,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            server: place.own,
            options: vec![said],
            file: None,
        });
    }
    Decision::Nothing(Why::NotOurs)
}

fn reply(kind: Kind, address: Option<Ipv4Addr>, packet: &Packet, machine: Option<&Machine>, place: &Place<'_>, boot: &File) -> Reply {
    let network = place.network;
    let standing = machine.and_then(|m| m.standing.as_ref().filter(|_| m.parked.is_none()));
    let mut options = vec![Opt::SubnetMask(network.subnet.netmask()), Opt::BroadcastAddr(network.subnet.broadcast())];
    if address.is_some() {
        let lease = if standing.is_some() { RUNS } else { WAITS };
        let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        // RFC 2131, 4.4.5.
        options.extend([Opt::AddressLeaseTime(seconds), Opt::Renewal(seconds / 2), Opt::Rebinding(seconds / 8 * 7)]);
    }
    options.extend(network.router.map(|router| Opt::Router(vec![router])));
    let told = &network.boot;
    options.extend((!told.dns.is_empty()).then(|| Opt::DomainNameServer(told.dns.clone())));
    options.extend((!told.ntp.is_empty()).then(|| Opt::NtpServers(told.ntp.clone())));
    options.extend(told.mtu.map(Opt::InterfaceMtu));
    options.extend(told.domain.clone().map(Opt::DomainName));
    options.extend(standing.map(|snapshot| Opt::Hostname(snapshot.hostname.clone())));
    options.extend(booting(packet, place, boot));
    options.extend((packet.ipxe.is_some() && address.is_some()).then(no_proxy));
    Reply { kind, yiaddr: address.unwrap_or(Ipv4Addr::UNSPECIFIED), server: place.own, options, file: path(boot) }
}

/// What firmware wants beside the name of the file.
fn booting(packet: &Packet, place: &Place<'_>, boot: &File) -> Vec<Opt> {
    match (boot, packet.firmware) {
        (File::NotWanted | File::Refused(_), _) => Vec::new(),
        // UEFI 2.10, 24.7.3.1: an answer without it is not one to an HTTP client.
        (_, Firmware::Http) => vec![Opt::ClassIdentifier(b"HTTPClient".to_vec())],
        (_, Firmware::Pxe | Firmware::None) => vec![
            Opt::ClassIdentifier(b"PXEClient".to_vec()),
            // PXE 2.1, table 2-1: PXE_DISCOVERY_CONTROL, bit 3: the boot file of this answer, no question to port 4011.
            Opt::VendorExtensions(vec![6, 1, 8, 255]),
            Opt::TFTPServerName(place.own.to_string().into_bytes()),
        ],
    }
}

fn path(boot: &File) -> Option<String> {
    match boot {
        File::Loader(path) | File::Script(path) => Some(path.clone()),
        File::NotWanted | File::Refused(_) => None,
    }
}

/// What kind of client it is, for people.
pub fn described(packet: &Packet) -> String {
    let arch = packet.arch.map(|arch| format!(", architecture {arch}")).unwrap_or_default();
    match (packet.ipxe, packet.firmware) {
        (Some(_), _) => format!("iPXE{arch}"),
        (None, Firmware::Pxe) => format!("PXE{arch}"),
        (None, Firmware::Http) => format!("UEFI HTTP boot{arch}"),
        (None, Firmware::None) => "a running system".to_owned(),
    }
}

/// The network where a packet that came in at these addresses is to be answered, and the address that is ours there.
pub fn network_at<'a>(view: &'a View, addresses: &[ipnet::Ipv4Net], giaddr: Ipv4Addr) -> Option<(&'a BootNetwork, Option<Ipv4Addr>)> {
    if !giaddr.is_unspecified() {
        return view.network_of(giaddr).map(|network| (network, None));
    }
    let here = |network: &&BootNetwork| addresses.iter().any(|own| network.subnet.contains(&own.addr()));
    let network = view.networks.iter().find(here)?;
    let own = addresses.iter().map(ipnet::Ipv4Net::addr).find(|own| network.subnet.contains(own));
    Some((network, own))
}
