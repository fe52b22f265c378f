//! DHCP on the interfaces of this machine: one task for each interface that has an address, while a network boots and this controller acts.
//!
//! Leaves out: what is answered (`boot::dhcp`). Invariants: without `boot` in a Network nothing is sent at all; what is answered is answered while the
//! lease holds, from the view of the moment; an address is acknowledged once it is stored. Shown by `tests/boot.rs`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::Desk;
use super::foreign::Listening;
use super::network::advertise;
use super::network::interfaces::{self, Interface};
use super::network::sockets::{CLIENT_PORT, SERVER_PORT, dhcp as socket};
use super::pool::Pool;
use crate::boot::dhcp::{self, Decision, File, Place, Serves, Why};
use crate::boot::view::{BootNetwork, Lease, Machine, View};
use crate::boot::wire::{self, Firmware, Kind, Packet, Reply};
use crate::control::controller::Message;
use crate::control::status_writer::NOT_REACHED;
use crate::control::timeline::{Stage, Stranger};
use crate::limits;
use crate::model::server::Loader;
use crate::model::{Mac, Name};
use crate::server::api::fault::chain;

/// How often interfaces are looked at without a notice.
const LOOKS: Duration = Duration::from_secs(10);
/// A loader that was given is what asks next, for so long.
const CHAINED_FOR: Duration = Duration::from_secs(120);
const CONDITION: &str = "DhcpServed";
/// PXE 2.1, section 2.2.5: where firmware asks a boot server.
const PXE_PORT: u16 = 4011;
/// An Ethernet frame's worth, and what an option of a relay adds.
const PACKET: usize = 2_048;

/// A relay that brought a question is there, for so long.
const RELAYED_FOR: Duration = Duration::from_secs(3_600);

/// What all interfaces share.
struct Dhcp {
    desk: Desk,
    state: Mutex<State>,
    give: mpsc::Sender<Giving>,
    /// Since when this process answers: who was not heard since may be gone.
    since: Instant,
}

#[derive(Default)]
struct State {
    pool: Pool,
    /// Whom a loader was given.
    chained: BTreeMap<Mac, Chained>,
    /// Networks that a relay brought a question of: when last.
    relayed: BTreeMap<Name, Instant>,
    /// What is to be told of each interface.
    told: BTreeMap<String, Result<String, String>>,
}

/// A loader that was given. A transaction id is that of one program's questions, those that it repeats included: another one is another program.
struct Chained {
    at: Instant,
    /// Of what was given the loader.
    before: u32,
    /// Of the loader, once that was given its script; what asks by another one then is the next start.
    after: Option<u32>,
}

/// An answer that waits for its address to be stored.
struct Giving {
    wanted: (Ipv4Addr, Mac, Name),
    send: Sending,
    machine: Option<Name>,
}

/// Octets on their way.
struct Sending {
    socket: Arc<UdpSocket>,
    bytes: Vec<u8>,
    to: SocketAddr,
}

impl Dhcp {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, interface: &str, word: Option<Result<String, String>>) {
        let mut state = self.state();
        match word {
            Some(word) => drop(state.told.insert(interface.to_owned(), word)),
            None => drop(state.told.remove(interface)),
        }
        let wrong: Vec<&String> = state.told.values().filter_map(|word| word.as_ref().err()).collect();
        let (ok, reason, words) = match wrong.is_empty() {
            true => (true, "Listening", state.told.values().filter_map(|word| word.as_ref().ok()).collect()),
            false => (false, "NotServed", wrong),
        };
        let message = words.into_iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join("; ");
        self.desk.condition(CONDITION, ok, reason, message);
    }
}

/// Serves until the process ends.
pub(super) async fn serve(desk: Desk) {
    let mut views = desk.shared.view.subscribe();
    let (give, given) = mpsc::channel(limits::ADDRESSES_WAITING);
    let dhcp = Arc::new(Dhcp { desk, state: Mutex::default(), give, since: Instant::now() });
    let giver = tokio::spawn(give_all(Arc::clone(&dhcp), given));
    let mut tasks: BTreeMap<u32, (Interface, JoinHandle<()>)> = BTreeMap::new();
    let mut changes = interfaces::Changes::open().ok().map(|(changes, _)| changes);
    loop {
        let networks = views.borrow_and_update().as_ref().map(|view| Arc::clone(&view.networks)).unwrap_or_default();
        let all = if networks.is_empty() { Vec::new() } else { interfaces::look().unwrap_or_default() };
        let wanted: Vec<Interface> = all.into_iter().map(|interface| without(interface, dhcp.desk.vip())).filter(serves).collect();
        tasks.retain(|index, (was, task)| {
            let stays = wanted.iter().any(|now| now.index == *index && now.name == was.name && now.v4 == was.v4) && !task.is_finished();
            if !stays {
                task.abort();
                dhcp.tell(&was.name, None);
            }
            stays
        });
        for interface in wanted {
            tasks.entry(interface.index).or_insert_with(|| {
                let task = tokio::spawn(at_interface(Arc::clone(&dhcp), interface.clone()));
                (interface, task)
            });
        }
        unreached(&dhcp, &networks, &tasks);
        tokio::select! {
            biased;
            changed = views.changed() => if changed.is_err() { break },
            _ = next(&mut changes) => {}
            () = tokio::time::sleep(LOOKS) => {}
        }
    }
    giver.abort();
}

async fn next(changes: &mut Option<interfaces::Changes>) {
    match changes {
        Some(open) => {
            if open.next().await.is_err() {
                *changes = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// The address that comes and goes with the lease makes no other interface of it.
fn without(mut interface: Interface, vip: Option<Ipv4Addr>) -> Interface {
    interface.v4.retain(|own| Some(own.addr()) != vip);
    interface
}

fn serves(interface: &Interface) -> bool {
    interface.is_up && interface.mac.is_some() && !interface.v4.is_empty()
}

/// Networks that nobody brings questions from: no fault of this machine's, since a relay may be there that has nothing to bring yet.
const REACHED: &str = "BootNetworksReached";

/// A network that no interface is in is reached by a relay or by nobody.
fn unreached(dhcp: &Dhcp, networks: &[BootNetwork], tasks: &BTreeMap<u32, (Interface, JoinHandle<()>)>) {
    let is_here = |network: &&BootNetwork| tasks.values().any(|(i, _)| i.v4.iter().any(|own| network.subnet.contains(&own.addr())));
    let now = Instant::now();
    let relayed = dhcp.state().relayed.clone();
    let by_relay = |network: &&BootNetwork| relayed.get(&network.name).is_some_and(|at| now.saturating_duration_since(*at) < RELAYED_FOR);
    let named = |n: &BootNetwork| format!("{} ({})", n.name, n.subnet);
    let missing: Vec<String> = networks.iter().filter(|n| !is_here(n) && !by_relay(n)).map(named).collect();
    match missing.as_slice() {
        [] if !dhcp.desk.has_condition(REACHED) => {}
        [] => dhcp.desk.condition(REACHED, true, "Reached", String::new()),
        [..] => {
            let what = "and no relay agent has brought a question from there in the last hour";
            let message = format!("no interface of this machine has an address in {}, {what}", missing.join(", "));
            dhcp.desk.condition(REACHED, false, NOT_REACHED, message);
        }
    }
}

/// The sockets of one interface.
struct Sockets {
    server: Arc<UdpSocket>,
    /// Where boot servers are asked; nothing where somebody else has it.
    pxe: Option<UdpSocket>,
    /// Where answers of others are heard.
    client: Option<UdpSocket>,
}

impl Sockets {
    /// Those that are not there yet; why one still is not, in the order of boot servers' and clients'.
    fn open_rest(&mut self, interface: &Interface) -> [Option<String>; 2] {
        [(&mut self.pxe, PXE_PORT), (&mut self.client, CLIENT_PORT)].map(|(place, port)| {
            if place.is_none() {
                match socket(&interface.name, port) {
                    Ok(socket) => *place = Some(socket),
                    Err(error) => return Some(chain(&error)),
                }
            }
            None
        })
    }
}

fn boots_here(dhcp: &Dhcp, interface: &Interface) -> bool {
    let view = dhcp.desk.shared.view.borrow().clone();
    view.is_some_and(|view| dhcp::network_at(&view, &interface.v4, Ipv4Addr::UNSPECIFIED).is_some())
}

async fn at_interface(dhcp: Arc<Dhcp>, interface: Interface) {
    let server = loop {
        match socket(&interface.name, SERVER_PORT) {
            Ok(server) => break server,
            // Where no network boots only a relay could come in: who else has the port there is told, and is no fault.
            Err(error) if boots_here(&dhcp, &interface) => dhcp.tell(&interface.name, Some(Err(chain(&error)))),
            Err(error) => dhcp.tell(&interface.name, Some(Ok(chain(&error)))),
        }
        tokio::time::sleep(LOOKS).await;
    };
    let mut sockets = Sockets { server: Arc::new(server), pxe: None, client: None };
    // It ends with this task.
    let (_advertises, stop) = watch::channel(false);
    let advertising = advertise_routers(Arc::clone(&dhcp), interface.clone(), stop);
    let mut advertising = std::pin::pin!(advertising);
    let mut here = Here { dhcp, interface, listening: Listening::begin(Instant::now()), lacks: Vec::new() };
    here.tell();
    let (mut server, mut pxe, mut client) = ([0; PACKET], [0; PACKET], [0; PACKET]);
    loop {
        let probe_at = here.listening.probe_at();
        tokio::select! {
            biased;
            got = sockets.server.recv_from(&mut server) => if let Ok((length, from)) = got {
                here.asked(&sockets, server.get(..length).unwrap_or_default(), from).await;
            },
            got = receive(sockets.pxe.as_ref(), &mut pxe) => if let Some((length, from)) = got {
                here.boot_server(&sockets, pxe.get(..length).unwrap_or_default(), from).await;
            },
            got = receive(sockets.client.as_ref(), &mut client) => if let Some((length, _)) = got {
                here.heard_answer(client.get(..length).unwrap_or_default());
            },
            () = sleep_until(probe_at) => here.probe(&mut sockets).await,
            never = &mut advertising => match never {},
        }
    }
}

/// Tells iPXE that there is no IPv6 router, where addresses are given: it waits 16 s for one otherwise. What keeps it from that is no fault.
async fn advertise_routers(dhcp: Arc<Dhcp>, interface: Interface, stop: watch::Receiver<bool>) -> std::convert::Infallible {
    let mut told = String::new();
    loop {
        let gives = |view: &View| {
            let here = dhcp::network_at(view, &interface.v4, Ipv4Addr::UNSPECIFIED);
            here.is_some_and(|(network, _)| network.boot.range.is_some())
        };
        if dhcp.desk.view().is_some_and(|(view, _)| gives(&view)) {
            // Its link-local address comes seconds after the link.
            let now = interfaces::look()
                .unwrap_or_default()
                .into_iter()
                .find(|i| i.index == interface.index)
                .unwrap_or_else(|| interface.clone());
            let ended = advertise::serve(&now, stop.clone()).await;
            let why = ended.err().map(|error| chain(&error)).unwrap_or_default();
            if why != told {
                tracing::info!(interface = interface.name, why, "no router advertisements here: iPXE waits for them in each boot");
                told = why;
            }
        }
        tokio::time::sleep(LOOKS).await;
    }
}

/// Never, where there is no socket.
async fn receive(socket: Option<&UdpSocket>, into: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(into).await.ok(),
        None => std::future::pending().await,
    }
}

/// One interface.
struct Here {
    dhcp: Arc<Dhcp>,
    interface: Interface,
    listening: Listening,
    /// Ports that are wanted here and that somebody else has.
    lacks: Vec<String>,
}

impl Here {
    /// What is served here, for the condition.
    fn tell(&self) {
        let Some(view) = self.dhcp.desk.shared.view.borrow().clone() else { return };
        let Some((network, _)) = dhcp::network_at(&view, &self.interface.v4, Ipv4Addr::UNSPECIFIED) else {
            return self.dhcp.tell(&self.interface.name, Some(Ok(String::new())));
        };
        let now = Instant::now();
        let foreign = self.listening.foreign(now).map(|server| format!(", since the DHCP server {server} answers there"));
        let serves = self.listening.serves(network, false, now);
        // As long as nothing is served it is not known who gives addresses.
        if serves != Serves::Nothing {
            self.dhcp.desk.gives(&network.name, serves != Serves::Proxy);
        }
        let what = match serves {
            Serves::Nothing => "nothing yet".to_owned(),
            Serves::Proxy => format!("boot files without addresses{}", foreign.unwrap_or_default()),
            Serves::Reservations => "addresses and boot files to known machines".to_owned(),
            Serves::Full => "addresses and boot files".to_owned(),
        };
        let what = format!("{} on {}: {what}", network.name, self.interface.name);
        let word = if self.lacks.is_empty() { Ok(what) } else { Err(format!("{}; {what}", self.lacks.join("; "))) };
        self.dhcp.tell(&self.interface.name, Some(word));
    }

    /// Asks whether anybody else gives addresses, where that matters.
    async fn probe(&mut self, sockets: &mut Sockets) {
        let [no_pxe, no_client] = sockets.open_rest(&self.interface);
        let asks = self.asks();
        self.lacks = no_client
            .filter(|_| asks)
            .map(|why| format!("no address is given, since nobody else would be heard: {why}"))
            .into_iter()
            .collect();
        self.lacks.extend(no_pxe);
        let is_asked = match (self.interface.mac.and_then(Mac::seen), &sockets.client) {
            (Some(mac), Some(client)) if asks => {
                let bytes = wire::discover(mac, rand::random());
                client.send_to(&bytes, (Ipv4Addr::BROADCAST, SERVER_PORT)).await.is_ok()
            }
            _ => false,
        };
        match is_asked {
            true => self.listening.probed(Instant::now()),
            false => self.listening.deaf(Instant::now()),
        }
        self.tell();
    }

    /// Only where it would be told by nobody else, and only by who acts.
    fn asks(&self) -> bool {
        let Some((view, _)) = self.dhcp.desk.view() else { return false };
        dhcp::network_at(&view, &self.interface.v4, Ipv4Addr::UNSPECIFIED)
            .is_some_and(|(network, _)| network.boot.range.is_some() && network.boot.mode == crate::model::network::BootMode::Auto)
    }

    /// An answer that somebody gave to a client here.
    fn heard_answer(&mut self, bytes: &[u8]) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        // A proxy gives no address: it is no other server in this sense.
        let gives = matches!(packet.kind, Kind::Offer | Kind::Ack) && !packet.yiaddr.is_unspecified();
        if let Some(server) = packet.server.filter(|_| !packet.is_request && (gives || packet.kind == Kind::Nak)) {
            self.heard(server, true);
        }
    }

    /// `itself`: it answered, and was not only named by a client.
    fn heard(&mut self, server: Ipv4Addr, itself: bool) {
        if self.interface.v4.iter().any(|own| own.addr() == server) || self.dhcp.desk.vip() == Some(server) {
            return;
        }
        let now = Instant::now();
        if if itself { self.listening.heard(server, now) } else { self.listening.named(server, now) } {
            tracing::warn!(interface = self.interface.name, server = %server, itself, "another DHCP server is there: no address is given any more");
            self.tell();
        }
    }

    /// Our address where a packet came in, and what is served there.
    fn place<'a>(&self, packet: &Packet, view: &'a View) -> Option<(&'a BootNetwork, Ipv4Addr, Serves)> {
        let (network, own) = dhcp::network_at(view, &self.interface.v4, packet.giaddr)?;
        let vip = self.dhcp.desk.vip().filter(|vip| packet.is_relayed() || network.subnet.contains(vip));
        let own = vip.or(own).or_else(|| interfaces::source_towards(packet.giaddr, None).ok())?;
        Some((network, own, self.listening.serves(network, packet.is_relayed(), Instant::now())))
    }

    async fn asked(&mut self, sockets: &Sockets, bytes: &[u8], from: SocketAddr) {
        let packet = match Packet::parse(bytes) {
            Ok(packet) if packet.is_request && Some(packet.mac.octets()) != self.interface.mac => packet,
            Ok(_) => return,
            Err(error) => return tracing::debug!(from = %from, error = %error, "a DHCP packet that does not read"),
        };
        if packet.kind == Kind::Request
            && let Some(server) = packet.server
            && !packet.is_relayed()
        {
            let is_ours = self.dhcp.desk.view().and_then(|(view, _)| Some(self.place(&packet, &view)?.1)) == Some(server);
            if !is_ours {
                self.heard(server, false);
            }
        }
        let Some((view, lease)) = self.dhcp.desk.view() else { return };
        let Some((network, own, serves)) = self.place(&packet, &view) else { return };
        let base = self.dhcp.desk.base(own);
        let now = Instant::now();
        let machine = view.machine(packet.mac).cloned();
        let decision = {
            let mut state = self.dhcp.state();
            state.pool.heard(packet.mac, now);
            if packet.is_relayed() {
                state.relayed.insert(network.name.clone(), now);
            }
            let chained = state.has_loader(&packet, now);
            let place = Place { network, serves, own, base: &base, chained };
            let since = self.dhcp.since;
            let is_free = |address: Ipv4Addr, lease: Option<&Lease>, reclaims: bool| {
                state.pool.is_free(packet.mac, address, lease, &view, reclaims.then_some(since), now)
            };
            let mut decision = dhcp::decide(&packet, &place, &view, &|address, lease| is_free(address, lease, false));
            if decision == Decision::Nothing(Why::RangeIsFull) {
                decision = dhcp::decide(&packet, &place, &view, &|address, lease| is_free(address, lease, true));
            }
            state.remember(&packet, &place, machine.as_deref(), &decision, now);
            decision
        };
        self.seen(&packet, network, machine.as_ref().map(|m| &m.server), &decision, &base, own);
        // No await from the lease's check to the sending, but where the address is stored first.
        let machine = machine.map(|machine| machine.server.clone());
        match decision {
            Decision::Answer(reply) if lease.holds() => {
                if let Some(sending) = self.sending(sockets, &packet, &reply) {
                    self.was_given(&packet, &reply, machine.as_ref());
                    sending.go();
                }
            }
            Decision::Lease { address, reply } => {
                let Some(send) = self.sending(sockets, &packet, &reply) else { return };
                self.was_given(&packet, &reply, None);
                // Where more wait than can, the client asks again.
                let _full = self.dhcp.give.try_send(Giving { wanted: (address, packet.mac, network.name.clone()), send, machine });
            }
            Decision::Declined(address) => {
                tracing::warn!(address = %address, mac = %packet.mac, "a machine says that somebody else has the address that it was given");
            }
            Decision::Answer(_) | Decision::Nothing(_) => {}
        }
    }

    async fn boot_server(&mut self, sockets: &Sockets, bytes: &[u8], from: SocketAddr) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let (Some((view, lease)), Some(pxe)) = (self.dhcp.desk.view(), &sockets.pxe) else { return };
        let Some((network, own, serves)) = self.place(&packet, &view) else { return };
        let base = self.dhcp.desk.base(own);
        let place = Place { network, serves, own, base: &base, chained: false };
        let Some(reply) = dhcp::boot_server(&packet, &place, &view) else { return };
        if let (Ok(bytes), true) = (packet.answer(&reply), lease.holds()) {
            let _unsent = pxe.try_send_to(&bytes, from);
        }
    }

    /// To whom, and how: RFC 2131, 4.1. Clients without an address are answered by broadcast: they have said nothing that ARP could find them by.
    fn sending(&self, sockets: &Sockets, packet: &Packet, reply: &Reply) -> Option<Sending> {
        let bytes = packet.answer(reply).inspect_err(|error| tracing::warn!(error, "a DHCP answer cannot be written")).ok()?;
        let to = if packet.is_relayed() {
            SocketAddr::from((packet.giaddr, SERVER_PORT))
        } else if !packet.ciaddr.is_unspecified() && reply.kind != Kind::Nak {
            SocketAddr::from((packet.ciaddr, CLIENT_PORT))
        } else {
            SocketAddr::from((Ipv4Addr::BROADCAST, CLIENT_PORT))
        };
        Some(Sending { socket: Arc::clone(&sockets.server), bytes, to })
    }

    fn was_given(&self, packet: &Packet, reply: &Reply, machine: Option<&Name>) {
        if reply.kind == Kind::Ack && !reply.yiaddr.is_unspecified() {
            self.dhcp.desk.has(packet.mac, reply.yiaddr);
        }
        if let Some(server) = machine {
            self.dhcp.desk.is_alive(server);
        }
    }

    /// What people are told of a question.
    fn seen(&self, packet: &Packet, network: &BootNetwork, machine: Option<&Name>, decision: &Decision, base: &str, own: Ipv4Addr) {
        let desk = &self.dhcp.desk;
        let boots = packet.firmware != Firmware::None || packet.ipxe.is_some();
        let Some(server) = machine else {
            let refused = if *decision == Decision::Nothing(Why::RangeIsFull) { ": no address, the range is full" } else { "" };
            let mut stranger = Stranger::now(packet.mac, network.name.as_str(), dhcp::described(packet) + refused);
            // In SMBIOS order, as every firmware was seen to send it.
            stranger.uuid = packet.uuid.map(|uuid| uuid::Uuid::from_bytes_le(uuid).to_string());
            stranger.arch = packet.arch;
            stranger.relay = packet.is_relayed().then(|| packet.giaddr.to_string());
            return desk.timelines().met(stranger);
        };
        desk.is_alive(server);
        if !boots {
            return;
        }
        desk.saw(server, Stage::Dhcp, &dhcp::described(packet));
        let Some((view, _)) = desk.view() else { return };
        let Some(machine) = view.machine(packet.mac) else { return };
        let place = Place { network, serves: Serves::Full, own, base, chained: false };
        if let File::Refused(why) = dhcp::file(packet, Some(machine), &place) {
            desk.note(server, "NoBootFile", format!("its NIC {} asks for something to boot, and gets an address alone: {why}", packet.mac));
        }
        if *decision == Decision::Nothing(Why::RangeIsFull) {
            let range = network.boot.range.map(|range| range.to_string()).unwrap_or_default();
            desk.note(server, "RangeIsFull", format!("it gets no address: all of the range {range} of network {} are taken", network.name));
        }
    }
}

impl State {
    fn remember(&mut self, packet: &Packet, place: &Place<'_>, machine: Option<&Machine>, decision: &Decision, now: Instant) {
        match decision {
            Decision::Answer(reply) if reply.kind == Kind::Offer && place.network.boot.range.is_some_and(|r| r.contains(reply.yiaddr)) => {
                self.pool.offer(packet.mac, reply.yiaddr, now);
            }
            Decision::Declined(address) => self.pool.decline(*address, now),
            Decision::Answer(_) | Decision::Lease { .. } | Decision::Nothing(_) => {}
        }
        // A loader for an iPXE: what asks next is ours. That is used up by its script.
        let chains = packet.ipxe.is_some_and(|ipxe| !ipxe.http) || machine.is_some_and(|machine| machine.loader == Loader::Chain);
        let is_told = match decision {
            Decision::Answer(reply) => reply.kind == Kind::Ack || (reply.kind == Kind::Offer && place.serves == Serves::Proxy),
            Decision::Lease { .. } => true,
            Decision::Declined(_) | Decision::Nothing(_) => false,
        };
        if !is_told {
            return;
        }
        if packet.ipxe.is_some() && place.chained {
            self.chained.entry(packet.mac).and_modify(|chained| chained.after = Some(packet.xid()));
        } else if chains {
            if self.chained.len() >= limits::BOOT_MACS_TOLD {
                self.chained.pop_first();
            }
            self.chained.insert(packet.mac, Chained { at: now, before: packet.xid(), after: None });
        }
    }

    /// Whether this is the loader that was given.
    fn has_loader(&self, packet: &Packet, now: Instant) -> bool {
        let Some(chained) = self.chained.get(&packet.mac) else { return false };
        let is_fresh = now.saturating_duration_since(chained.at) < CHAINED_FOR;
        is_fresh && packet.xid() != chained.before && chained.after.is_none_or(|after| after == packet.xid())
    }
}

impl Sending {
    fn go(self) {
        if let Err(error) = self.socket.try_send_to(&self.bytes, self.to) {
            tracing::debug!(to = %self.to, error = %error, "a DHCP answer was not sent");
        }
    }
}

/// Stores addresses that are to be given, those that wait together, and answers then.
async fn give_all(dhcp: Arc<Dhcp>, mut given: mpsc::Receiver<Giving>) {
    let mut batch = Vec::new();
    while given.recv_many(&mut batch, limits::ADDRESSES_WAITING).await > 0 {
        let addresses: Vec<_> = batch.iter().map(|giving| giving.wanted.clone()).collect();
        let (reply, answer) = oneshot::channel();
        let controller = dhcp.desk.controller.borrow().clone();
        let stored = match controller {
            Some(controller) if controller.send(Message::Give { addresses, reply }).await.is_ok() => answer.await.unwrap_or_default(),
            Some(_) | None => Vec::new(),
        };
        for (n, giving) in batch.drain(..).enumerate() {
            let (address, ..) = giving.wanted;
            match stored.get(n) {
                Some(true) if dhcp.desk.view().is_some_and(|(_, lease)| lease.holds()) => {
                    giving.machine.iter().for_each(|server| dhcp.desk.is_alive(server));
                    giving.send.go();
                }
                // Somebody claims it: another one is offered next.
                Some(false) => dhcp.state().pool.decline(address, Instant::now()),
                Some(true) | None => {}
            }
        }
    }
}
