//! The boot services: DHCP, TFTP and HTTP. What they answer is `boot`, from the view that the controller of this process publishes.
//!
//! What they *decide* (an address, a script) is told only by the controller that acts, while its lease holds. What they *hold* (loaders, kernels,
//! initrds) is served always, from this machine's disk, without the store. Invariant: a port that somebody else has is a condition, not the end.

mod address;
pub(crate) mod dhcp;
mod exchange;
mod foreign;
pub(crate) mod http;
mod joined;
pub(crate) mod network;
mod nocloud;
mod peers;
pub(crate) mod pool;
mod roots;
mod tftp;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::boot::answer;
use crate::boot::token::Token;
use crate::boot::view::{BootNetwork, View};
use crate::control::booting::Shared;
use crate::control::controller::Message;
use crate::control::status_writer::{Site, SiteCondition};
use crate::control::timeline::{Stage, Timelines};
use crate::limits;
use crate::model::network::BootMode;
use crate::model::{Mac, Name};
use crate::server::images::Keeper;
use crate::store::LeaseEnd;

/// The channel to the controller, while this controller acts.
pub(crate) type Controller = watch::Receiver<Option<mpsc::Sender<Message>>>;
/// The lease that this controller holds, while it acts.
pub(crate) type Holding = watch::Receiver<Option<Arc<LeaseEnd>>>;

/// Who is connected, and to which of our addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub ours: SocketAddr,
    pub theirs: SocketAddr,
}

impl Ends {
    pub(crate) fn of(stream: &tokio::net::TcpStream) -> Option<Ends> {
        let (ours, theirs) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
        // An IPv4 address in IPv6 form, as a listener of both has it, is that address.
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Some(Ends { ours: plain(ours), theirs: plain(theirs) })
    }
}

/// Whether addresses are given on a network.
enum Gives {
    UndecidedSince(Instant),
    Decided(bool),
}

/// What is served, and where.
#[derive(Clone)]
pub struct Options {
    /// Where scripts and files are served over HTTP.
    pub address: SocketAddr,
    /// It was said so: it is served whether a network boots or not.
    pub always: bool,
    /// Kernels and initrds.
    pub files: PathBuf,
    /// iPXE's binaries.
    pub loaders: PathBuf,
    /// The address that moves with the lease, and its interface where that is not the one with an address beside it.
    pub vip: Option<(Ipv4Net, Option<String>)>,
    /// The TCP port where systems are told who they are.
    pub exchange: u16,
    /// Who has the files of images.
    pub keeper: Option<Arc<Keeper>>,
}

/// Who answers, by what right, and what is known of who asks.
#[derive(Clone)]
pub(crate) struct Desk {
    pub controller: Controller,
    pub lease: Holding,
    pub shared: Shared,
    pub site: Site,
    pub options: Arc<Options>,
    /// Which machine has which address, as it was given.
    addresses: Arc<Mutex<Addresses>>,
    told: Arc<Mutex<std::collections::BTreeMap<(Name, bool), Instant>>>,
    /// Networks of mode auto on which addresses are given now.
    gives: Arc<Mutex<BTreeMap<Name, Gives>>>,
    /// The address that moves with the lease is here, or there is none.
    has_address: Arc<AtomicBool>,
}

#[derive(Default)]
struct Addresses(std::collections::BTreeMap<Ipv4Addr, Mac>);

impl Desk {
    pub(crate) fn new(controller: Controller, lease: Holding, shared: Shared, site: Site, options: Options) -> Desk {
        let has_address = Arc::new(AtomicBool::new(options.vip.is_none()));
        Desk {
            controller,
            lease,
            shared,
            site,
            options: Arc::new(options),
            addresses: Arc::default(),
            told: Arc::default(),
            gives: Arc::default(),
            has_address,
        }
    }

    /// What is answered from, and the right to: none where another controller acts, or none yet.
    pub(crate) fn view(&self) -> Option<(Arc<View>, Arc<LeaseEnd>)> {
        // The lease first: of a newer controller's view an older lease says no, never the other way round.
        let lease = self.lease.borrow().clone()?;
        let view = self.shared.view.borrow().clone()?;
        (lease.holds() && self.has_address.load(Ordering::Acquire)).then_some((view, lease))
    }

    /// The address that moves with the lease.
    pub(crate) fn vip(&self) -> Option<Ipv4Addr> {
        self.options.vip.as_ref().map(|(address, _)| address.addr())
    }

    pub(crate) fn timelines(&self) -> &Timelines {
        &self.shared.timelines
    }

    /// What the controller of this process answers. Nothing: it does not act, or not in time.
    pub(crate) async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let controller = self.controller.borrow().clone()?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            controller.send(make(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(limits::BOOT_ANSWER_WITHIN, asked).await.ok().flatten()
    }

    /// Something for the controller, if it can take it now: what is told so is told again by the machine's next question.
    pub(crate) fn tell(&self, message: Message) {
        if let Some(controller) = self.controller.borrow().as_ref() {
            let _full = controller.try_send(message);
        }
    }

    /// A machine is alive.
    pub(crate) fn is_alive(&self, server: &Name) {
        if self.is_due(server, false) {
            self.tell(Message::Alive(server.clone()));
        }
    }

    /// Whether something of a machine is to be told, that it is parked or only that it is alive: once a second is enough.
    pub(crate) fn is_due(&self, server: &Name, parked: bool) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.get(&(server.clone(), parked)).is_some_and(|at| now.saturating_duration_since(*at) < Duration::from_secs(1)) {
            return false;
        }
        // Servers that no view names any more are forgotten with all others: that costs a message.
        if told.len() == limits::BOOT_MACS_TOLD {
            told.clear();
        }
        told.insert((server.clone(), parked), now);
        true
    }

    /// A step of a start failed, for people and for what is Ready.
    pub(crate) fn failed(&self, server: &Name, what: String) {
        let now = Instant::now();
        // The script says that a step failed of which it was told why a moment before; and says so again and again.
        if self.timelines().failed_lately(server, limits::FAILED_TOLD_EVERY, now) {
            return;
        }
        self.timelines().failed(server, &what, now);
        self.tell(Message::StartFailed { server: server.clone(), what: Some(what) });
    }

    /// An event about a server, once an hour.
    pub(crate) fn note(&self, server: &Name, reason: &'static str, message: String) {
        if self.timelines().is_news(server, reason, limits::NOTE_EVERY, Instant::now()) {
            self.tell(Message::BootEvent { server: server.clone(), reason, message });
        }
    }

    pub(crate) fn has(&self, mac: Mac, address: Ipv4Addr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if addresses.0.len() == limits::BOOT_MACS_TOLD {
            addresses.0.pop_first();
        }
        addresses.0.insert(address, mac);
    }

    /// Whether addresses are given on a network of mode auto: nobody else was heard there.
    pub(crate) fn gives(&self, network: &Name, gives: bool) {
        self.gives.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(network.clone(), Gives::Decided(gives));
    }

    /// As long as that is not decided yet, as just after this controller began, whoever was given an address has it.
    fn gives_in(&self, network: &Name) -> bool {
        let (now, mut all) = (Instant::now(), self.gives.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        match all.entry(network.clone()).or_insert(Gives::UndecidedSince(now)) {
            Gives::Decided(gives) => *gives,
            Gives::UndecidedSince(asked) => now.saturating_duration_since(*asked) < limits::ADDRESSES_UNDECIDED,
        }
    }

    /// Whether whoever has an address has it from us: by its network, or where it is in none by all of them.
    pub(crate) fn gives_addresses_to(&self, from: Ipv4Addr) -> bool {
        let Some(view) = self.shared.view.borrow().clone() else { return false };
        let gives = |network: &BootNetwork| match network.boot.mode {
            BootMode::Full | BootMode::Reservations => true,
            BootMode::Proxy => false,
            BootMode::Auto => self.gives_in(&network.name),
        };
        view.network_of(from).map_or_else(|| !view.networks.is_empty() && view.networks.iter().all(gives), gives)
    }

    /// Whether what firmware asks for first is there.
    pub(crate) fn loaders_are_there(&self) {
        let dir = &self.options.loaders;
        let missing: Vec<&str> = ["undionly.kpxe", "snponly.efi"].into_iter().filter(|loader| !dir.join(loader).exists()).collect();
        let message = format!(
            "{} is not in {}: firmware that is no iPXE gets no loader; install the package ipxe, or name its directory with --ipxe-dir",
            missing.join(" and "),
            dir.display()
        );
        match missing.is_empty() {
            true => self.condition("LoadersThere", true, "Found", format!("in {}", dir.display())),
            false => self.condition("LoadersThere", false, "LoaderMissing", message),
        }
    }

    /// The server at an address, as far as it got that from here.
    pub(crate) fn server_at(&self, address: IpAddr) -> Option<Name> {
        let IpAddr::V4(address) = address else { return None };
        let mac = self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0.get(&address).copied()?;
        let view = self.shared.view.borrow().clone()?;
        view.machine(mac).map(|machine| machine.server.clone())
    }

    /// Why an address is not that of a server, as far as that is known.
    pub(crate) fn is_its_address(&self, server: &Name, from: IpAddr) -> Result<(), String> {
        let Some((view, _)) = self.view() else { return Ok(()) };
        if let Some(other) = self.server_at(from).filter(|other| other != server) {
            return Err(format!("this is the address of {other}"));
        }
        let elsewhere = |from| answer::is_elsewhere(server, from, self.gives_addresses_to(from), &view);
        match from {
            IpAddr::V4(from) if elsewhere(from) => Err("this is not the address that it was given".to_owned()),
            IpAddr::V4(_) => Ok(()),
            // They boot over IPv4, and have no other address then.
            IpAddr::V6(_) => Err("machines boot over IPv4".to_owned()),
        }
    }

    /// The server of a token, and what it says, if this site has made it.
    pub(crate) fn run_of(&self, server: &str, token: &str) -> Option<(Name, Token)> {
        let server: Name = server.parse().ok()?;
        let view = self.shared.view.borrow().clone()?;
        let token = view.key.as_ref()?.check(&server, token)?;
        Some((server, token))
    }

    pub(crate) fn saw(&self, server: &Name, stage: Stage, what: &str) {
        if self.timelines().saw(server, stage, what, Instant::now()) {
            self.tell(Message::StartFailed { server: server.clone(), what: None });
        }
    }

    pub(crate) fn has_condition(&self, name: &'static str) -> bool {
        self.site.borrow().contains_key(name)
    }

    pub(crate) fn condition(&self, name: &'static str, ok: bool, reason: &'static str, message: String) {
        let word = SiteCondition { ok, reason, message };
        let mut is_news = false;
        self.site.send_if_modified(|site| {
            let before = site.insert(name, word.clone());
            is_news = before.as_ref().is_none_or(|before| (before.ok, before.reason) != (word.ok, word.reason));
            site.get(name) != before.as_ref()
        });
        if is_news && !ok {
            tracing::warn!(condition = name, reason, "{}", word.message);
        }
    }

    /// `http://10.1.10.5:8080`: where a machine reaches what is served at this address.
    pub(crate) fn base(&self, own: Ipv4Addr) -> String {
        base(SocketAddr::from((own, self.options.address.port())))
    }
}

/// Why a port cannot be had, as the reason of a condition, and what to do.
pub(crate) fn of_ports(error: &std::io::Error) -> (&'static str, &'static str) {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => ("NotPermitted", "; ports below 1024 need CAP_NET_BIND_SERVICE"),
        std::io::ErrorKind::AddrNotAvailable => ("NoSuchAddress", "; no interface of this machine has that address"),
        _ => ("AddressInUse", "; free it: `ss -lnp` names who has it"),
    }
}

pub(crate) fn base(address: SocketAddr) -> String {
    match address.port() {
        80 => format!("http://{}", address.ip()),
        _ => format!("http://{address}"),
    }
}

/// Serves until the process ends.
pub async fn serve(controller: Controller, lease: Holding, shared: Shared, site: Site, options: Options) {
    let vip = options.vip.clone();
    let desk = Desk::new(controller, lease, shared, site, options);
    let mut tasks = JoinSet::new();
    if let Some((address, interface)) = vip {
        tasks.spawn(address::serve(desk.clone(), address, interface));
    }
    tasks.spawn(http::serve(desk.clone()));
    tasks.spawn(dhcp::serve(desk.clone()));
    if let Some(keeper) = desk.options.keeper.clone() {
        tasks.spawn(exchange::serve(desk.clone(), Arc::clone(&keeper)));
        tasks.spawn(roots::serve(desk.clone(), keeper));
    }
    tasks.spawn(tftp::serve(desk));
    while tasks.join_next().await.is_some() {}
}
