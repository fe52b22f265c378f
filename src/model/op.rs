//! What can be done to a device, as values. An operation knows its effect: `apply` is the one table that the forecast,
//! the simulated devices, the post-check of real ones and the safety proof share.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::fact::{Admin, BootDevice, PortConfig, Power};
use crate::model::{Kind, Name, Vlan};

/// A device that a worker owns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The BMC of a server.
    Bmc(Name),
    Switch(Name),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Op {
    /// Set the persistent boot device. No effect on a running system.
    SetBoot {
        server: Name,
        device: BootDevice,
        efi: bool,
    },
    PowerOn {
        server: Name,
    },
    /// The only destructive one; never sent without a stored intent.
    PowerOff {
        server: Name,
        how: Off,
    },
    /// Make a VLAN that does not exist, tagged on the switch's uplinks.
    CreateVlan {
        switch: Name,
        vlan: Vlan,
    },
    /// Bring one port from what was seen to what is wanted. Refused by the driver when the port is not as `from` says.
    SetPort {
        switch: Name,
        port: String,
        from: PortConfig,
        to: PortConfig,
    },
    /// Copy the running configuration to where the switch starts from.
    Save {
        switch: Name,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Off {
    /// Ask the operating system (ACPI soft-off).
    Soft,
    Hard,
}

/// What an operation disturbs, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disruption {
    None,
    /// A tagged VLAN goes.
    VlanTaken,
    /// The port becomes a trunk, or ceases to be one: some switches take the link down for that.
    MayFlap,
    LinkFlap,
    PowerOff,
}

/// What operations change: the state of one or more bodies and switches, without any of the reasons.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Facets {
    pub power: BTreeMap<Name, Power>,
    pub boot: BTreeMap<Name, (BootDevice, bool)>,
    pub ports: BTreeMap<(Name, String), PortConfig>,
    pub vlans: BTreeMap<Name, std::collections::BTreeSet<Vlan>>,
}

impl Op {
    pub fn device(&self) -> Device {
        match self {
            Op::SetBoot { server, .. } | Op::PowerOn { server } | Op::PowerOff { server, .. } => Device::Bmc(server.clone()),
            Op::CreateVlan { switch, .. } | Op::SetPort { switch, .. } | Op::Save { switch } => Device::Switch(switch.clone()),
        }
    }

    /// What it is to bring about, whatever it starts from and however it is done: `port tor-1 Gi1/0/1 120`.
    pub fn goal(&self) -> String {
        match self {
            Op::PowerOff { server, .. } => format!("power-off {server}"),
            Op::SetPort { switch, port, to, .. } => format!("port {switch} {port} {to}"),
            Op::SetBoot { server, device, .. } => format!("boot {server} {device}"),
            Op::PowerOn { server } => format!("power-on {server}"),
            Op::CreateVlan { switch, vlan } => format!("vlan {switch} {vlan}"),
            Op::Save { switch } => format!("save {switch}"),
        }
    }

    /// The effect, when it happens.
    pub fn apply(&self, facets: &mut Facets) {
        match self {
            Op::SetBoot { server, device, efi } => {
                facets.boot.insert(server.clone(), (*device, *efi));
            }
            Op::PowerOn { server } => {
                facets.power.insert(server.clone(), Power::On);
            }
            Op::PowerOff { server, .. } => {
                facets.power.insert(server.clone(), Power::Off);
            }
            Op::CreateVlan { switch, vlan } => {
                facets.vlans.entry(switch.clone()).or_default().insert(*vlan);
            }
            Op::SetPort { switch, port, to, .. } => {
                facets.ports.insert((switch.clone(), port.clone()), to.clone());
            }
            Op::Save { .. } => {}
        }
    }

    /// What it disturbs on a body that runs. A port that is down carries nothing, and more tagged VLANs on a trunk come without
    /// a flap.
    pub fn disruption(&self) -> Disruption {
        match self {
            Op::PowerOff { .. } => Disruption::PowerOff,
            Op::SetPort { from, to, .. } if from.admin == Admin::Up && (from.untagged != to.untagged || to.admin == Admin::Down) => {
                Disruption::LinkFlap
            }
            Op::SetPort { from, to, .. } if from.admin == Admin::Up && from.tagged.is_empty() != to.tagged.is_empty() => {
                Disruption::MayFlap
            }
            Op::SetPort { from, to, .. } if from.admin == Admin::Up && !from.tagged.is_subset(&to.tagged) => Disruption::VlanTaken,
            Op::SetPort { .. } | Op::SetBoot { .. } | Op::PowerOn { .. } | Op::CreateVlan { .. } | Op::Save { .. } => Disruption::None,
        }
    }
}

impl Device {
    /// The object that it belongs to, for events: `Server/web-1`.
    pub fn regarding(&self) -> String {
        match self {
            Device::Bmc(server) => format!("{}/{server}", Kind::Server),
            Device::Switch(switch) => format!("{}/{switch}", Kind::Switch),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Bmc(server) => write!(f, "bmc/{server}"),
            Device::Switch(switch) => write!(f, "switch/{switch}"),
        }
    }
}

impl fmt::Display for Disruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Disruption::None => "none",
            Disruption::VlanTaken => "VLAN taken",
            Disruption::MayFlap => "link may flap",
            Disruption::LinkFlap => "link flap",
            Disruption::PowerOff => "power off",
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::SetBoot { server, device, efi } => {
                write!(f, "IPMI {server} boot device {device}, persistent{}", if *efi { ", EFI" } else { "" })
            }
            Op::PowerOn { server } => write!(f, "IPMI {server} power on"),
            Op::PowerOff { server, how: Off::Soft } => write!(f, "IPMI {server} soft-off"),
            Op::PowerOff { server, how: Off::Hard } => write!(f, "IPMI {server} power off"),
            Op::CreateVlan { switch, vlan } => write!(f, "SNMP {switch} create VLAN {vlan}"),
            Op::SetPort { switch, port, from, to } => write!(f, "SNMP {switch} {port} {from} → {to}"),
            Op::Save { switch } => write!(f, "SNMP {switch} save configuration"),
        }
    }
}
