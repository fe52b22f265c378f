//! All that boot answers depend on, as one immutable value. The controller publishes the next one after each change, and before a withdrawal is
//! recorded; whoever answers reads the last one.
//!
//! Invariant: to publish a change costs what has changed, not the fleet: the maps share what is the same.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rpds::RedBlackTreeMapSync;

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
    pub parked: Option<String>,
    /// What stands there, as it was when it began to.
    pub standing: Option<Arc<Snapshot>>,
    /// The SMBIOS UUID that the machine showed at the first request of this start.
    pub smbios: Option<String>,
    /// The nonce of the last start.
    pub run: Option<String>,
    pub loader: Loader,
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
    pub machines: RedBlackTreeMapSync<Mac, Arc<Machine>>,
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
