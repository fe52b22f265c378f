//! How a persona is wired up inside a machine: each of its NICs with the machine's, and what their networks are to a system in them.
//!
//! Leaves out: the switches (`network`), and how a system sets it up (the agent). Invariant: it says of each port what `resolve` writes to it. Pure. Shown by
//! `tests/boot/exchange.rs` and the tests below.

use std::collections::BTreeMap;
use std::net::IpAddr;

use embody_protocol::{Addressing, Link, Tagged};
use ipnet::IpNet;

use crate::manifest::wiring::match_nics;
use crate::model::network::{Boot, NetworkSpec, Role};
use crate::model::persona::PersonaNic;
use crate::model::server::Nic;
use crate::model::{BindingSpec, Name, Objects, PersonaSpec, ServerSpec};

/// Of several ways out that of the persona's first NIC by name is taken, before any that DHCP tells of (systemd.network(5): 1024).
const FIRST_METRIC: u32 = 100;

/// Nothing where it is not certain which NIC is where: that is a problem of the binding.
pub(super) fn links(server: &ServerSpec, persona: &PersonaSpec, binding: &BindingSpec, objects: &Objects) -> Vec<Link> {
    let Ok(on) = match_nics(server, persona, binding) else { return Vec::new() };
    let nics: BTreeMap<&Name, &PersonaNic> = persona.nics.iter().map(|nic| (&nic.name, nic)).collect();
    let metrics = (FIRST_METRIC..).step_by(100);
    nics.values().zip(metrics).filter_map(|(nic, metric)| link(server, nic, on.get(&nic.name)?, binding, objects, metric)).collect()
}

fn link(server: &ServerSpec, nic: &PersonaNic, place: &Name, binding: &BindingSpec, objects: &Objects, metric: u32) -> Option<Link> {
    let bond = server.bonds.iter().find(|bond| bond.name == *place);
    let is_it = |card: &&Nic| bond.map_or(card.name == *place, |bond| bond.members.contains(&card.name));
    let cards: Vec<&Nic> = server.nics.iter().filter(is_it).collect();
    let boot = cards.iter().any(|card| server.boot_nic().is_some_and(|boot| boot.name == card.name));
    let switch = bond.map_or_else(|| cards.first()?.switch.as_ref(), |bond| Some(&bond.attach.first()?.switch));
    fn at<'a>(name: &'a Name, switch: Option<&Name>, objects: &'a Objects) -> Option<(&'a Name, At<'a>)> {
        Some((name, At::of(&objects.networks.get(name)?.spec, switch, objects)))
    }
    let untagged =
        nic.untagged.as_ref().and_then(|name| at(name, switch, objects)).map(|(_, at)| at.addressing(binding.address(nic), boot, metric));
    let tagged = |((name, at), metric): ((&Name, At<'_>), u32)| Tagged {
        vlan: at.vlan,
        network: name.to_string(),
        addressing: at.addressing(binding.tagged_address(nic, name), false, metric),
    };
    let vlans = nic.tagged.iter().filter_map(|name| at(name, switch, objects)).zip(metric.saturating_add(1)..).map(tagged).collect();
    let macs = cards.iter().map(|card| card.mac.to_string()).collect();
    Some(Link { name: nic.name.to_string(), macs, bond: bond.is_some(), boot, untagged, vlans })
}

/// A network, as it is at one switch.
struct At<'a> {
    vlan: u16,
    role: Role,
    gateway: Option<IpAddr>,
    mtu: Option<u16>,
    boot: Option<&'a Boot>,
}

impl<'a> At<'a> {
    fn of(network: &'a NetworkSpec, switch: Option<&Name>, objects: &Objects) -> At<'a> {
        let labels = switch.and_then(|name| objects.switches.get(name)).map(|switch| switch.meta.labels.clone()).unwrap_or_default();
        let (vlan, gateway, boot) = match network.segments.iter().find(|segment| segment.switches.matches(&labels)) {
            Some(segment) => (segment.vlan, segment.gateway, segment.boot.as_ref()),
            None => (network.vlan, network.gateway, network.boot.as_ref()),
        };
        At { vlan: vlan.id(), role: network.role, gateway, mtu: network.mtu, boot }
    }

    /// The card that the root is read over has its address by DHCP, a fixed one as well.
    fn addressing(&self, address: Option<IpNet>, boots: bool, metric: u32) -> Addressing {
        let fixed = address.filter(|_| !boots);
        let same = |router: &IpAddr| fixed.is_some_and(|fixed| fixed.addr().is_ipv4() == router.is_ipv4());
        let router = self.gateway.filter(|router| same(router) && self.role == Role::Service);
        Addressing {
            addresses: fixed.iter().map(ToString::to_string).collect(),
            dhcp: fixed.is_none() && self.boot.is_some(),
            gateway: router,
            metric: if router.is_some() { metric } else { 0 },
            mtu: self.boot.and_then(|boot| boot.mtu).or(self.mtu),
            dns: self.boot.iter().flat_map(|boot| boot.dns.iter().map(|server| IpAddr::V4(*server))).collect(),
            domain: self.boot.and_then(|boot| boot.domain.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Object;

    fn objects() -> Objects {
        let mut objects = Objects::default();
        let mut add = |kind: &str, name: &str, labels: Value, spec: Value| {
            let meta = json!({ "name": name, "labels": labels });
            let object = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec });
            objects.insert(&Object::from_json(object).unwrap());
        };
        let segment =
            json!({ "switches": { "matchLabels": { "rack": "r7" } }, "vlan": 620, "subnet": "10.6.20.0/24", "gateway": "10.6.20.1" });
        add("Network", "web", json!({}), json!({ "vlan": 120, "subnet": "10.1.20.0/24", "gateway": "10.1.20.1", "segments": [segment] }));
        add(
            "Network",
            "san",
            json!({}),
            json!({ "vlan": 30, "role": "storage", "subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "boot": { "mtu": 9000 } }),
        );
        add("Network", "vms", json!({}), json!({ "vlan": 40, "subnet": "10.8.0.0/24", "gateway": "10.8.0.1", "mtu": 1400 }));
        let snmp = json!({ "version": "v3", "secretRef": { "name": "s" } });
        add("Switch", "tor", json!({ "rack": "r7" }), json!({ "address": "192.0.2.1", "snmp": snmp }));
        objects
    }

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    /// A bond is all its cards; a network is what it is at the switch; only a service leads everywhere else.
    #[test]
    fn a_link_is_what_the_switch_carries_to_its_cards() {
        let mac = |n: u8| format!("52:54:00:77:00:0{n}");
        let nics = json!([{ "name": "n1", "mac": mac(1), "boot": true }, { "name": "n2", "mac": mac(2) }, { "name": "n3", "mac": mac(3) }]);
        let bonds = json!([{ "name": "bond0", "members": ["n2", "n3"], "attach": [{ "switch": "tor", "port": "Po3" }] }]);
        let bmc = json!({ "address": "192.0.2.9", "secretRef": { "name": "b" } });
        let server: ServerSpec = of(json!({ "bmc": bmc, "nics": nics, "bonds": bonds }));
        let persona: PersonaSpec = of(json!({ "os": { "family": "linux" }, "root": { "image": { "name": "web:1" } }, "nics": [
            { "name": "boot", "untagged": "san", "boot": true, "address": "10.9.0.7/24" },
            { "name": "front", "untagged": "web", "tagged": ["san", "vms"], "address": "10.6.20.9/24", "taggedAddresses": { "vms": "10.8.0.9/24" } },
        ] }));
        let own = json!({ "name": "front", "taggedAddresses": { "san": "10.9.0.9/24" } });
        let binding: BindingSpec = of(json!({ "persona": "p", "target": { "server": "s" }, "nics": [own] }));
        let links = links(&server, &persona, &binding, &objects());
        let [boot, front] = links.as_slice() else { panic!("{links:?}") };
        let untagged = boot.untagged.clone().unwrap();
        assert_eq!((boot.macs.as_slice(), boot.boot, boot.bond), (&[mac(1)][..], true, false));
        assert_eq!(
            (untagged.addresses.len(), untagged.dhcp, untagged.gateway, untagged.mtu),
            (0, true, None, Some(9000)),
            "by DHCP, its fixed one too"
        );
        let untagged = front.untagged.clone().unwrap();
        assert_eq!((front.macs.as_slice(), front.boot, front.bond), (&[mac(2), mac(3)][..], false, true));
        assert_eq!(
            (untagged.addresses.as_slice(), untagged.gateway),
            (&["10.6.20.9/24".to_owned()][..], Some("10.6.20.1".parse().unwrap()))
        );
        let [san, vms] = front.vlans.as_slice() else { panic!("{front:?}") };
        let said = |vlan: &Tagged| (vlan.vlan, vlan.addressing.addresses.clone(), vlan.addressing.gateway.is_some(), vlan.addressing.mtu);
        assert_eq!(said(san), (30, vec!["10.9.0.9/24".to_owned()], false, Some(9000)), "of its binding, and no way out");
        assert_eq!(said(vms), (40, vec!["10.8.0.9/24".to_owned()], true, Some(1400)), "of the persona; an MTU where nobody boots");
        assert!(untagged.metric < vms.addressing.metric && san.addressing.metric == 0, "{front:?}");
    }
}
