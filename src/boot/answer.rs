//! The boot answer: which persona a MAC address starts now, or why nothing. Pure: from the view, changes nothing.
//!
//! Invariant: what is answered is the snapshot that stands on that server, never the spec of the moment; everybody else is parked.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::view::{Halt, Machine, View};
use crate::model::body::Snapshot;
use crate::model::server::Arch;
use crate::model::{Mac, Name};

/// Who asks what to boot, as its firmware says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub mac: Mac,
    pub uuid: Option<String>,
    pub arch: Arch,
    /// From which address.
    pub from: Option<Ipv4Addr>,
    /// Addresses are ours to give where it asks from: what it has is known.
    pub ours: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is to be started.
    Parked(Parked),
    /// This one is. Its start is recorded before it is told.
    Starts { server: Name, snapshot: Arc<Snapshot> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub why: String,
    pub server: Option<Name>,
    /// Something stands there, and the machine is parked for what it says of itself.
    pub by_itself: bool,
    /// Where nothing has come up there, this may be why.
    pub told: bool,
    /// As far as can be seen here it runs nothing, and waits for something to boot.
    pub waits: bool,
    /// It asks from another address than it was given: it is to take one anew before it asks again.
    pub elsewhere: bool,
}

/// Whether who asks has the address that this NIC was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whence {
    Itself,
    /// None that we know of was given to it there: somebody else gives addresses.
    Unknown,
    Elsewhere,
}

/// What the SMBIOS UUID of a machine is compared by; nothing where it says none, or all zeros or all ones, as boards do that were given none.
pub(crate) fn uuid(text: &str) -> Option<String> {
    let text = plain(text).to_ascii_lowercase();
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let said = digits.len() == 32 && digits.iter().any(|d| *d != b'0') && digits.iter().any(|d| *d != b'f');
    said.then_some(text)
}

/// The answer for a NIC's address.
pub fn judge(ask: &Ask, view: &View) -> Verdict {
    let Some(machine) = view.machine(ask.mac) else {
        let why = "no server has this MAC address".to_owned();
        return Verdict::Parked(Parked { why, server: None, by_itself: false, told: false, waits: false, elsewhere: false });
    };
    let server = Some(machine.server.clone());
    // Whoever asks from elsewhere is not taken for it: neither for a start of it, nor for a machine that waits.
    let whence = whence(ask, machine, view);
    let elsewhere = whence == Whence::Elsewhere;
    if let Some(halt) = parked(ask, machine, view) {
        let waits = halt.waits && whence == Whence::Itself;
        return Verdict::Parked(Parked { why: halt.why, server, by_itself: false, told: halt.told, waits, elsewhere });
    }
    let Some(snapshot) = &machine.standing else {
        let why = format!("nothing is to run on {}", machine.server);
        return Verdict::Parked(Parked { why, server, by_itself: false, told: false, waits: whence == Whence::Itself, elsewhere });
    };
    if elsewhere {
        let why = format!("{} asks from {}, which is not the address that it was given", ask.mac, shown(ask.from));
        return Verdict::Parked(Parked { why, server, by_itself: false, told: false, waits: false, elsewhere });
    }
    match not_it(ask, machine, snapshot, view) {
        Some(why) => Verdict::Parked(Parked { why, server, by_itself: true, told: false, waits: false, elsewhere: false }),
        None => Verdict::Starts { server: machine.server.clone(), snapshot: Arc::clone(snapshot) },
    }
}

fn shown(from: Option<Ipv4Addr>) -> String {
    from.map_or_else(|| "no address".to_owned(), |from| from.to_string())
}

/// By the address that was given out of a range, and the fixed one of what stands. A machine that was given one asks from there, and from nowhere
/// outside of the networks that machines boot over.
fn whence(ask: &Ask, machine: &Machine, view: &View) -> Whence {
    let Some(from) = ask.from.filter(|_| ask.ours) else { return Whence::Unknown };
    let fixed = machine.standing.as_ref().and_then(|snapshot| snapshot.addresses.get(&ask.mac)).map(|address| address.addr());
    let Some(network) = view.network_of(from) else {
        let has_one = fixed.is_some_and(|address| view.network_of(address).is_some())
            || view.networks.iter().any(|network| view.lease(ask.mac, &network.name).is_some());
        return if has_one { Whence::Elsewhere } else { Whence::Unknown };
    };
    let fixed = fixed.filter(|address| network.subnet.contains(address));
    let leased = view.lease(ask.mac, &network.name).filter(|address| network.subnet.contains(address));
    match (fixed, leased) {
        (None, None) => Whence::Unknown,
        (fixed, leased) if [fixed, leased].contains(&Some(from)) => Whence::Itself,
        _ => Whence::Elsewhere,
    }
}

/// Whether an address is none that any NIC of a server has, as far as addresses are ours to give there.
pub(crate) fn is_elsewhere(server: &Name, from: Ipv4Addr, ours: bool, view: &View) -> bool {
    let of_nic = |mac: Mac| {
        let machine = view.machine(mac)?;
        Some(whence(&Ask { mac, uuid: None, arch: Arch::X86_64, from: Some(from), ours }, machine, view))
    };
    let all: Vec<Whence> = view.macs_of(server).filter_map(of_nic).collect();
    all.contains(&Whence::Elsewhere) && !all.contains(&Whence::Itself)
}

/// Whatever the machine says of itself.
fn parked(ask: &Ask, machine: &Machine, view: &View) -> Option<Halt> {
    let network = ask.from.and_then(|from| view.network_of(from));
    let quarantine = network.filter(|network| network.quarantine).map(|n| format!("{} is the network of role quarantine", n.name));
    let other =
        || machine.boots_over.as_ref().map(|nic| format!("{} boots over its NIC {nic}, and {} is another one", machine.server, ask.mac));
    let waits = |why| Halt { why, waits: machine.boots_over.is_none(), told: false };
    machine.parked.clone().or_else(|| view.stop.clone().or(quarantine).or_else(other).map(waits))
}

/// What it says of itself is not what was started there.
fn not_it(ask: &Ask, machine: &Machine, snapshot: &Snapshot, view: &View) -> Option<String> {
    let server = &machine.server;
    let shown = ask.uuid.as_deref().and_then(uuid);
    if let Some(shown) = &shown {
        if let Some(pinned) = machine.smbios.as_ref().filter(|pinned| !pinned.eq_ignore_ascii_case(shown)) {
            return Some(format!("the machine says it is {shown}, and {pinned} was started on {server}"));
        }
        if let Some(other) = view.uuids.get(shown).filter(|other| *other != server) {
            return Some(format!("the machine says it is {shown}, and that was started on {other}"));
        }
    }
    let (needs, has) = (snapshot.arch.as_str(), ask.arch.as_str());
    (snapshot.arch != ask.arch).then(|| format!("persona {} is for {needs}, the machine says {has}", snapshot.persona))
}

/// What a machine says of itself, fit for a log and for its own script: at most the 36 characters of a UUID.
pub(crate) fn plain(text: &str) -> String {
    text.chars().take(36).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '?' }).collect()
}
