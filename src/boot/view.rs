//! All that boot answers depend on, as one immutable value. The controller publishes the next one after each change, and before a withdrawal is
//! recorded; whoever answers reads the last one.
//!
//! Invariant: to publish a change costs what has changed, not the fleet: the maps share what is the same.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::token::SiteKey;
use crate::model::body::Snapshot;
use crate::model::network::Boot;
use crate::model::server::Loader;
use crate::model::{Mac, Name};

/// One NIC of a machine that manifests name, or that what may be alive was answered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub server: Name,
    /// The NIC that the server boots over, where this is another one: that one alone gets a boot file.
    pub boots_over: Option<Name>,
    /// Why it is parked whatever stands there.
    pub parked: Option<Halt>,
    /// What stands there, as it was when it began to.
    pub standing: Option<Arc<Snapshot>>,
    /// The SMBIOS UUID that the machine showed at the first request of this start.
    pub smbios: Option<String>,
    /// The nonce of the last start.
    pub run: Option<String>,
    pub loader: Loader,
}

impl Machine {
    fn address(&self, mac: Mac) -> Option<Ipv4Addr> {
        Some(self.standing.as_ref()?.addresses.get(&mac)?.addr())
    }
}

/// Why a machine is parked whatever stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub why: String,
    /// It is the machine that it is thought to be, and runs nothing: it waits. Otherwise that it asks says nothing of what the server runs.
    pub waits: bool,
    /// Where nothing has come up there, this may be why.
    pub told: bool,
}

/// A network over which machines boot, or a segment of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootNetwork {
    pub name: Name,
    pub subnet: Ipv4Net,
    pub router: Option<Ipv4Addr>,
    /// Whoever asks here is parked.
    pub quarantine: bool,
    pub boot: Boot,
}

/// An address that was given out of a range.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lease {
    pub mac: Mac,
    pub network: Name,
    /// RFC 3339: when it was given first.
    pub since: String,
}

#[derive(Clone, Default)]
pub struct View {
    machines: RedBlackTreeMapSync<Mac, Arc<Machine>>,
    /// The same NICs, by their servers.
    nics: RedBlackTreeSetSync<(Name, Mac)>,
    /// The fixed addresses of what stands, and the NICs that they were answered for.
    standing_at: RedBlackTreeMapSync<Ipv4Addr, Mac>,
    pub networks: Arc<Vec<BootNetwork>>,
    pub leases: RedBlackTreeMapSync<Ipv4Addr, Arc<Lease>>,
    /// The same, by whom they were given to.
    pub leased: RedBlackTreeMapSync<(Mac, Name), Ipv4Addr>,
    /// Which server has shown which SMBIOS UUID, in lower case.
    pub uuids: RedBlackTreeMapSync<String, Name>,
    /// Signs what a start is recognised by. Nothing: not read yet, so nothing starts.
    pub key: Option<Arc<SiteKey>>,
    /// Why nobody gets anything but parked.
    pub stop: Option<String>,
}

impl View {
    pub fn machine(&self, mac: Mac) -> Option<&Arc<Machine>> {
        self.machines.get(&mac)
    }

    /// A NIC's machine. All NICs of a server tell the same of what stands there.
    pub fn machine_of(&self, server: &Name) -> Option<&Arc<Machine>> {
        let from = (server.clone(), Mac::LEAST);
        let (_, mac) = self.nics.range(from..).next().filter(|(of, _)| of == server)?;
        self.machine(*mac)
    }

    /// All NICs of a server.
    pub fn macs_of(&self, server: &Name) -> impl Iterator<Item = Mac> + '_ {
        let (from, server) = ((server.clone(), Mac::LEAST), server.clone());
        self.nics.range(from..).take_while(move |(of, _)| *of == server).map(|(_, mac)| *mac)
    }

    /// The NIC that a fixed address was answered for.
    pub fn standing_at(&self, address: Ipv4Addr) -> Option<Mac> {
        self.standing_at.get(&address).copied()
    }

    /// The machine that an address was given to, out of a range.
    pub fn leased_to(&self, address: Ipv4Addr) -> Option<&Arc<Machine>> {
        self.machine(self.leases.get(&address)?.mac)
    }

    pub fn insert(&mut self, mac: Mac, machine: Machine) {
        self.remove(mac);
        if let Some(address) = machine.address(mac) {
            self.standing_at.insert_mut(address, mac);
        }
        self.nics.insert_mut((machine.server.clone(), mac));
        self.machines.insert_mut(mac, Arc::new(machine));
    }

    /// Whether there was one.
    pub fn remove(&mut self, mac: Mac) -> bool {
        let Some(old) = self.machines.get(&mac).cloned() else { return false };
        if let Some(address) = old.address(mac).filter(|address| self.standing_at(*address) == Some(mac)) {
            self.standing_at.remove_mut(&address);
        }
        self.nics.remove_mut(&(old.server.clone(), mac));
        self.machines.remove_mut(&mac)
    }

    /// The address that was given to this MAC on a network.
    pub fn lease(&self, mac: Mac, network: &Name) -> Option<Ipv4Addr> {
        self.leased.get(&(mac, network.clone())).copied()
    }

    pub fn insert_lease(&mut self, address: Ipv4Addr, lease: Arc<Lease>) {
        self.remove_lease(address);
        self.leased.insert_mut((lease.mac, lease.network.clone()), address);
        self.leases.insert_mut(address, lease);
    }

    pub fn remove_lease(&mut self, address: Ipv4Addr) {
        if let Some(old) = self.leases.get(&address).cloned() {
            self.leased.remove_mut(&(old.mac, old.network.clone()));
            self.leases.remove_mut(&address);
        }
    }

    /// The network of an address.
    pub fn network_of(&self, address: Ipv4Addr) -> Option<&BootNetwork> {
        self.networks.iter().find(|network| network.subnet.contains(&address))
    }
}
