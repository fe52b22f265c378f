//! Whether the cable of a port leads where the manifest says: what the switches learned, against what is declared.
//!
//! Leaves out: neighbours that announce themselves, and everything else for which a port is not written (`cache`). Invariants: an address
//! counts as plugged in where it was learned, unless that port leads on to others (an uplink, an aggregation, a neighbour that is a bridge,
//! too many addresses, or those of several servers); the work for one port does not grow with the fleet (`Cables` is an index). Shown by the
//! tests below.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::Cache;
use crate::drivers::switch::resolve;
use crate::limits;
use crate::model::fact::{Lag, PortSeen, SwitchSeen};
use crate::model::server::{Nic, ServerSpec};
use crate::model::switch::covers;
use crate::model::{Mac, Name};

/// Where addresses were learned, on ports that may lead to a machine.
#[derive(Default)]
pub struct Cables {
    places: BTreeMap<Mac, BTreeSet<(Name, String)>>,
    by_switch: BTreeMap<Name, BTreeSet<(Mac, String)>>,
}

impl Cables {
    /// What a switch shows now. The addresses whose places changed by it.
    pub fn learn(&mut self, switch: &Name, seen: &SwitchSeen) -> BTreeSet<Mac> {
        let edge = seen.ports.iter().filter(|(_, port)| !leads_on(port));
        self.replace(switch, edge.flat_map(|(key, port)| port.macs.iter().map(|mac| (*mac, key.clone()))).collect())
    }

    pub fn forget(&mut self, switch: &Name) -> BTreeSet<Mac> {
        self.replace(switch, BTreeSet::new())
    }

    fn replace(&mut self, switch: &Name, now: BTreeSet<(Mac, String)>) -> BTreeSet<Mac> {
        let before = self.by_switch.remove(switch).unwrap_or_default();
        for (mac, port) in before.difference(&now) {
            if let Some(places) = self.places.get_mut(mac) {
                places.remove(&(switch.clone(), port.clone()));
                if places.is_empty() {
                    self.places.remove(mac);
                }
            }
        }
        for (mac, port) in now.difference(&before) {
            self.places.entry(*mac).or_default().insert((switch.clone(), port.clone()));
        }
        let changed = before.symmetric_difference(&now).map(|(mac, _)| *mac).collect();
        if !now.is_empty() {
            self.by_switch.insert(switch.clone(), now);
        }
        changed
    }
}

/// By what the port itself shows.
fn leads_on(port: &PortSeen) -> bool {
    let bridge = port.neighbour.as_ref().is_some_and(|neighbour| neighbour.bridge == Some(true));
    matches!(port.lag, Lag::Member(_) | Lag::Aggregate) || bridge || port.macs.len() >= limits::MACS_PER_PORT
}

impl Cache {
    /// Why the cable of this port is not the one that is declared for the server.
    pub(super) fn contradicted(&self, server: &Name, switch: &Name, port: &str, found: &PortSeen, all: &SwitchSeen) -> Option<String> {
        let spec = &self.objects.servers.get(server)?.spec;
        let here = |nic: &Nic| {
            let named = nic.port.as_deref().is_some_and(|name| resolve(all, name).is_ok_and(|key| key == port));
            nic.switch.as_ref() == Some(switch) && named
        };
        // The members of a bond share an address.
        let alone = |nic: &&Nic| !spec.bonds.iter().any(|bond| bond.members.contains(&nic.name));
        let confirmed = spec.nics.iter().any(|nic| here(nic) && found.macs.contains(&nic.mac));
        if !confirmed {
            for nic in spec.nics.iter().filter(alone) {
                if here(nic) {
                    if let Some((other, place)) = self.plugged_in(nic.mac, server) {
                        return Some(format!(
                            "port {port} of switch {switch} is declared for NIC {} of server {server}, but its address {} was learned on port {place} of switch {other}",
                            nic.name, nic.mac
                        ));
                    }
                } else if nic.port.is_some() && found.lag == Lag::None && found.macs.contains(&nic.mac) {
                    return Some(format!(
                        "port {port} of switch {switch} is declared for another NIC of server {server} than {}, but its address {} was learned on it",
                        nic.name, nic.mac
                    ));
                }
            }
        }
        let foreign = found.macs.iter().filter(|mac| !spec.nics.iter().any(|nic| nic.mac == **mac)).count();
        (foreign > limits::FOREIGN_MACS && !many_macs(spec, switch, port, all, here)).then(|| {
            format!(
                "{foreign} addresses that are not of server {server} were learned on port {port} of switch {switch}: does it lead to a switch? (a server with guests or containers says `manyMacs: true` at its NIC)"
            )
        })
    }

    /// A port that was written for this server, and that its manifest does not name any more, although one of its addresses is learned there:
    /// whoever takes `port` out of a NIC does not pull its cable.
    pub(super) fn still_in(&self, server: &Name, switch: &Name, port: &str, found: &PortSeen, all: &SwitchSeen) -> Option<String> {
        let spec = &self.objects.servers.get(server)?.spec;
        let is_it = |name: &str| resolve(all, name).is_ok_and(|key| key == port);
        let by_nic = spec.nics.iter().any(|nic| nic.switch.as_ref() == Some(switch) && nic.port.as_deref().is_some_and(is_it));
        let by_bond = spec.bonds.iter().any(|bond| bond.attach.iter().any(|a| a.switch == *switch && is_it(&a.port)));
        let nic = spec.nics.iter().find(|nic| found.macs.contains(&nic.mac)).filter(|_| !by_nic && !by_bond)?;
        Some(format!(
            "port {port} of switch {switch} is declared for no NIC of server {server}, but the address {} of its NIC {} was learned on it: it is left as it is until that is plugged in elsewhere, or declared here",
            nic.mac, nic.name
        ))
    }

    /// Where a NIC seems to be plugged in, if that is another port than the one that is declared: as far as the switches told it.
    pub(super) fn is_at_another_port(&self, server: &Name, nic: &Nic) -> Option<String> {
        let (switch, port) = (nic.switch.as_ref()?, nic.port.as_deref()?);
        let all = &self.switches.get(switch)?.seen.as_ref()?.value;
        let key = resolve(all, port).ok()?;
        if all.ports.get(key).is_none_or(|found| found.macs.contains(&nic.mac)) {
            return None;
        }
        let (other, place) = self.plugged_in(nic.mac, server)?;
        let is_there = other == switch && place == key;
        (!is_there).then(|| format!("{} was learned on port {place} of switch {other}, and not on port {port} of switch {switch}", nic.mac))
    }

    /// A port at which this address of the server seems to be plugged in.
    fn plugged_in(&self, mac: Mac, server: &Name) -> Option<&(Name, String)> {
        let leads_to_one = |(switch, port): &&(Name, String)| {
            let uplink = self.objects.switches.get(switch).is_some_and(|held| covers(&held.spec.uplinks, port));
            let macs = self.switches.get(switch).and_then(|k| k.seen.as_ref()).and_then(|s| s.value.ports.get(port)).map(|p| &p.macs);
            let owners = macs.into_iter().flatten().filter_map(|mac| self.objects.server_of_mac(*mac)).filter(|owner| *owner != server);
            !uplink && owners.collect::<BTreeSet<_>>().len() < 2
        };
        self.cables.places.get(&mac)?.iter().find(leads_to_one)
    }
}

/// Whether a NIC that is declared at this port, or at the aggregation that it is, is one of many addresses.
fn many_macs(spec: &ServerSpec, switch: &Name, port: &str, all: &SwitchSeen, here: impl Fn(&Nic) -> bool) -> bool {
    let attached = |name: &str| resolve(all, name).is_ok_and(|key| key == port);
    let bonds = spec.bonds.iter().filter(|bond| bond.attach.iter().any(|a| a.switch == *switch && attached(&a.port)));
    let members: BTreeSet<&Name> = bonds.flat_map(|bond| &bond.members).collect();
    spec.nics.iter().any(|nic| nic.many_macs && (here(nic) || members.contains(&nic.name)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::control::cache::Known;
    use crate::model::Object;
    use crate::model::fact::{Admin, Neighbour, Oper, PortConfig, PortMode, Quality, Seen, SwitchIdentity, Tick, Via, Writable};
    use crate::model::identity::Identity;

    const MACS: [&str; 5] = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04", "02:00:00:00:00:05"];

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn port(macs: &[&str]) -> PortSeen {
        PortSeen {
            if_index: 1,
            also: Vec::new(),
            config: PortConfig { admin: Admin::Up, untagged: None, tagged: BTreeSet::new() },
            oper: Oper::Up,
            mode: PortMode::Access,
            neighbour: None,
            macs: macs.iter().map(|mac| mac.parse().unwrap()).collect(),
            lag: Lag::None,
            quality: Quality::Exact,
        }
    }

    fn seen(ports: &[(&str, PortSeen)]) -> SwitchSeen {
        SwitchSeen {
            shown: Identity::default(),
            identity: SwitchIdentity { sys_object_id: String::new(), sys_descr: String::new(), sys_name: String::new() },
            profile: "q-bridge",
            writable: Writable::default(),
            ports: ports.iter().map(|(key, port)| ((*key).to_owned(), port.clone())).collect(),
            vlans: BTreeSet::new(),
            unsaved: None,
            neighbours_told: true,
            notes: Default::default(),
            refused: Default::default(),
        }
    }

    fn put(cache: &mut Cache, kind: &str, of: &str, spec: serde_json::Value) {
        let whole = json!({ "apiVersion": crate::model::kind::API_VERSION, "kind": kind, "metadata": { "name": of }, "spec": spec });
        cache.objects.insert(&Object::from_json(whole).unwrap());
    }

    fn with(nic: serde_json::Value) -> Cache {
        let mut cache = Cache::default();
        let bmc = json!({ "address": "192.0.2.1", "secretRef": { "name": "s" } });
        let mut first = json!({ "name": "nic1", "mac": MACS[0], "switch": "sw", "port": "p1" });
        first.as_object_mut().unwrap().extend(nic.as_object().unwrap().clone());
        let second = json!({ "name": "nic2", "mac": MACS[1], "switch": "sw", "port": "p2" });
        put(&mut cache, "Server", "a", json!({ "bmc": bmc, "nics": [first, second] }));
        for (server, mac) in [("b", MACS[2]), ("c", MACS[3])] {
            put(&mut cache, "Server", server, json!({ "bmc": bmc, "nics": [{ "name": "nic1", "mac": mac }] }));
        }
        let snmp = json!({ "version": "v2c", "secretRef": { "name": "s" }, "insecure": true });
        put(&mut cache, "Switch", "sw", json!({ "address": "192.0.2.2", "snmp": snmp, "uplinks": ["up"] }));
        cache
    }

    fn judge(cache: &mut Cache, of: &str, ports: &[(&str, PortSeen)]) -> Option<String> {
        let all = seen(ports);
        cache.cables.learn(&name("sw"), &all);
        let facts = Seen { value: Arc::new(all.clone()), asked_at: Tick(1) };
        cache.switches.insert(name("sw"), Known { seen: Some(facts), ..Known::default() });
        cache.contradicted(&name("a"), &name("sw"), of, &all.ports[of], &all)
    }

    #[test]
    fn an_address_that_was_learned_elsewhere_contradicts_its_port() {
        let mut cache = with(json!({}));
        assert_eq!(judge(&mut cache, "p1", &[("p1", port(&[])), ("p3", port(&[]))]), None, "not learned: nothing is known");
        assert_eq!(judge(&mut cache, "p1", &[("p1", port(&[MACS[0]])), ("p2", port(&[MACS[1]]))]), None);
        let why = judge(&mut cache, "p1", &[("p1", port(&[])), ("p3", port(&[MACS[0]]))]).unwrap();
        assert!(why.contains("p3") && why.contains(MACS[0]), "{why}");
        let swapped = [("p1", port(&[MACS[1]])), ("p2", port(&[MACS[0]]))];
        assert!(judge(&mut cache, "p1", &swapped).is_some() && judge(&mut cache, "p2", &swapped).is_some());
        assert_eq!(judge(&mut cache, "p1", &[("p1", port(&[MACS[0]])), ("p3", port(&[MACS[0]]))]), None, "it is here");
        let untold = PortSeen { lag: Lag::NotTold("LAG-MIB is not told".into()), ..port(&[MACS[0]]) };
        assert!(judge(&mut cache, "p1", &[("p1", port(&[])), ("p3", untold)]).is_some(), "that a table is not told clears nothing");
        // No longer learned there.
        assert_eq!(judge(&mut cache, "p1", &[("p1", port(&[])), ("p3", port(&[]))]), None);
    }

    #[test]
    fn a_port_that_leads_on_says_nothing_of_where_a_machine_is() {
        let mut cache = with(json!({}));
        let bridge = Neighbour { chassis: "x".into(), port: "1".into(), system: None, via: Via::Lldp, bridge: Some(true) };
        let many: Vec<String> = (1..=limits::MACS_PER_PORT).map(|n| format!("02:00:00:00:01:{n:02x}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain([MACS[0]]).collect();
        for (key, other) in [
            ("up", port(&[MACS[0]])),
            ("p3", PortSeen { lag: Lag::Aggregate, ..port(&[MACS[0]]) }),
            ("p3", PortSeen { lag: Lag::Member(None), ..port(&[MACS[0]]) }),
            ("p3", PortSeen { neighbour: Some(bridge), ..port(&[MACS[0]]) }),
            ("p3", port(&many)),
            ("p3", port(&[MACS[0], MACS[2], MACS[3]])),
        ] {
            assert_eq!(judge(&mut cache, "p1", &[("p1", port(&[])), (key, other.clone())]), None, "{other:?}");
        }
    }

    #[test]
    fn a_port_of_which_nobody_knows_whether_it_is_aggregated_is_not_written() {
        let cache = with(json!({}));
        let mut spec = cache.objects.switches[&name("sw")].spec.clone();
        spec.manage = Some(serde_json::from_value(json!({ "ports": ["p1"] })).unwrap());
        let why = |lag: Lag| {
            let found = PortSeen { lag, ..port(&[]) };
            let all =
                SwitchSeen { writable: Writable { admin: true, access: true, ..Writable::default() }, ..seen(&[("p1", found.clone())]) };
            cache.refuse(&name("a"), &name("sw"), "p1", &found, &spec, &all).map(|trouble| (trouble.reason, trouble.message))
        };
        assert_eq!(why(Lag::None), None);
        let (reason, message) = why(Lag::NotTold("dot3adAggPortTable is not told to its end: genErr(5)".into())).unwrap();
        assert!(reason == crate::model::Reason::PortUnreadable && message.contains("genErr(5)"), "{message}");
    }

    #[test]
    fn more_than_two_foreign_addresses_are_a_switch_unless_the_nic_says_otherwise() {
        let guests = ["06:00:00:00:00:01", "06:00:00:00:00:02", "06:00:00:00:00:03"];
        let mut cache = with(json!({}));
        assert_eq!(judge(&mut cache, "p1", &[("p1", port(&[MACS[0], guests[0], guests[1]]))]), None);
        let three = [("p1", port(&[MACS[0], guests[0], guests[1], guests[2]]))];
        assert!(judge(&mut cache, "p1", &three).is_some_and(|why| why.contains("manyMacs: true")));
        assert_eq!(judge(&mut with(json!({ "manyMacs": true })), "p1", &three), None);
    }
}
