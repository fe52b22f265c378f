//! The ports of a switch: which interfaces are ports, what they are called, where they stand in the bridge, and which belong together.
//!
//! Leaves out: their VLANs (`read`, `seen`). Invariant: a name means one port; of two interfaces that share an ifName the one that is a
//! port of the bridge has it. Shown by `tests/recordings.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::Asking;
use super::objects::{self as o, Arcs};
use super::value::{numbers, texts};
use crate::drivers::Fault;

/// Ethernet ports and aggregations, by ifIndex.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(pub BTreeMap<u32, Place>);

#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub key: String,
    /// The object that the key was read from and what it held: ifName or ifDescr; nothing where the port has neither.
    pub name: Option<(Arcs, String)>,
    pub also: Vec<String>,
    pub base_ports: Vec<u32>,
    pub aggregate: bool,
}

impl Places {
    /// The one port of this name, by key or by another of its names.
    pub(crate) fn named(&self, name: &str) -> Option<u32> {
        let unique = |mut found: Vec<u32>| if found.len() == 1 { found.pop() } else { None };
        let by = |test: &dyn Fn(&Place) -> bool| unique(self.0.iter().filter(|(_, p)| test(p)).map(|(i, _)| *i).collect());
        by(&|p| p.key == name).or_else(|| by(&|p| p.also.iter().any(|a| a == name)))
    }

    pub(crate) fn by_base_port(&self, base_port: u32) -> Option<u32> {
        self.0.iter().find(|(_, place)| place.base_ports.contains(&base_port)).map(|(index, _)| *index)
    }
}

/// The names of all interfaces, and the types.
pub(super) struct Interfaces {
    types: BTreeMap<u32, i64>,
    pub names: BTreeMap<u32, String>,
    descrs: BTreeMap<u32, String>,
    aliases: BTreeMap<u32, String>,
}

impl Interfaces {
    pub(super) async fn read(asking: &mut Asking<'_>) -> Result<Interfaces, Fault> {
        let [types, names, descrs, aliases] = asking.told([o::IF_TYPE, o::IF_NAME, o::IF_DESCR, o::IF_ALIAS], 64).await?;
        let (names, descrs, aliases) = (texts(&names.rows), texts(&descrs.rows), texts(&aliases.rows));
        Ok(Interfaces { types: numbers(&asking.needed(o::IF_TYPE, types)?), names, descrs, aliases })
    }

    /// Which of them are ports, and whether one is an aggregation. `channels`: where aggregations may be propVirtual, as on a Cisco, what
    /// tells them from its VLAN and stacking interfaces. (Junos stacks propVirtual units over every port.)
    fn ports(&self, channels: Option<&Groups>) -> BTreeMap<u32, bool> {
        let ethernet = |index: &u32| self.types.get(index).is_some_and(|kind| o::ETHERNET_TYPES.contains(kind));
        let channel = |index: &u32| {
            let stacked = |groups: &Groups| groups.stack.iter().any(|(higher, lower)| higher == index && ethernet(lower));
            let grouped = |groups: &Groups| groups.of.values().any(|group| group == index);
            let named = || self.names.get(index).is_some_and(|name| names_a_channel(name));
            channels.is_some_and(|groups| stacked(groups) || grouped(groups) || named())
        };
        let port = |(index, kind): (&u32, &i64)| match *kind {
            o::LAG_TYPE => Some((*index, true)),
            o::PROP_VIRTUAL_TYPE if channel(index) => Some((*index, true)),
            _ => ethernet(index).then_some((*index, false)),
        };
        self.types.iter().filter_map(port).collect()
    }

    /// The ports; `base` are their places in the bridge.
    pub(super) fn places(&self, base: &BTreeMap<u32, i64>, channels: Option<&Groups>) -> Places {
        let ports = self.ports(channels);
        let base_ports = |index: u32| base.iter().filter(move |(_, i)| **i == i64::from(index)).map(|(port, _)| *port);
        let in_bridge: BTreeSet<u32> = ports.keys().copied().filter(|index| base_ports(*index).next().is_some()).collect();
        let keys = keys(&ports.keys().copied().collect(), &in_bridge, &self.names, &self.descrs);
        let place = |(index, aggregate): (&u32, &bool)| {
            let key = keys.get(index).cloned().unwrap_or_else(|| format!("ifIndex {index}"));
            let held = |arcs: Arcs, column: &BTreeMap<u32, String>| column.get(index).map(|name| (arcs, name.clone()));
            let of_key = |name: &Option<(Arcs, String)>| name.as_ref().is_some_and(|(_, name)| *name == key);
            let candidates = [held(o::IF_NAME, &self.names), held(o::IF_DESCR, &self.descrs)];
            let name = candidates.iter().find(|name| of_key(name)).or(candidates.iter().find(|name| name.is_some())).cloned().flatten();
            let mut also: Vec<String> = Vec::new();
            for name in [self.names.get(index), self.aliases.get(index), self.descrs.get(index)].into_iter().flatten() {
                if *name != key && !also.contains(name) {
                    also.push(name.clone());
                }
            }
            (*index, Place { key, name, also, base_ports: base_ports(*index).collect(), aggregate: *aggregate })
        };
        Places(ports.iter().map(place).collect())
    }
}

/// What each port is called: by its ifName, else its ifDescr, where that is its alone or it alone is a port of the bridge among those that share
/// it. IF-MIB (RFC 2863) lets interfaces share an ifName, as a port and what is stacked on it do. One that has lost its name to another is called
/// after both.
fn keys(
    ports: &BTreeSet<u32>,
    in_bridge: &BTreeSet<u32>,
    names: &BTreeMap<u32, String>,
    descrs: &BTreeMap<u32, String>,
) -> BTreeMap<u32, String> {
    let owners = |column: &BTreeMap<u32, String>| {
        let mut sharing: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        ports.iter().filter_map(|i| Some((i, column.get(i)?))).for_each(|(i, name)| sharing.entry(name.clone()).or_default().push(*i));
        let owner = |all: Vec<u32>| {
            let bridged: Vec<u32> = all.iter().filter(|index| in_bridge.contains(index)).copied().collect();
            match (all.as_slice(), bridged.as_slice()) {
                ([one], _) | (_, [one]) => Some(*one),
                (_, _) => None,
            }
        };
        sharing.into_iter().map(|(name, all)| (name, owner(all))).collect::<BTreeMap<String, Option<u32>>>()
    };
    let (by_name, by_descr) = (owners(names), owners(descrs));
    let key = |index: &u32| {
        let owned = |column: &BTreeMap<u32, String>, owners: &BTreeMap<String, Option<u32>>| {
            column.get(index).filter(|name| owners.get(*name) == Some(&Some(*index))).cloned()
        };
        let lost = || names.get(index).filter(|name| by_name.get(*name).is_some_and(Option::is_some));
        owned(names, &by_name)
            .or_else(|| owned(descrs, &by_descr).filter(|descr| !by_name.contains_key(descr)))
            .or_else(|| lost().map(|name| format!("{name} (ifIndex {index})")))
            .unwrap_or_else(|| format!("ifIndex {index}"))
    };
    ports.iter().map(|index| (*index, key(index))).collect()
}

/// Which ports belong together, by ifIndex.
pub(super) struct Groups {
    /// By IEEE8023-LAG-MIB, and before it was by CISCO-PAGP-MIB: port → aggregation.
    of: BTreeMap<u32, u32>,
    /// ifStackHigherLayer, ifStackLowerLayer.
    stack: Vec<(u32, u32)>,
    /// Why there may be more.
    pub untold: Option<String>,
}

impl Groups {
    pub(super) async fn read(asking: &mut Asking<'_>) -> Result<Groups, Fault> {
        let [attached, pagp] = asking.told([o::LAG_ATTACHED, o::PAGP_GROUP], 64).await?;
        let [stack] = asking.told([o::IF_STACK_STATUS], 64).await?;
        // 0: of no group; its own index: an aggregation of one, which is a port.
        let group = |(port, group): (u32, i64)| Some((port, u32::try_from(group).ok().filter(|group| *group != 0 && *group != port)?));
        let layers = |index: &Vec<u32>| if let [higher, lower] = index.as_slice() { Some((*higher, *lower)) } else { None };
        Ok(Groups {
            of: numbers(&pagp.rows).into_iter().chain(numbers(&attached.rows)).filter_map(group).collect(),
            stack: stack.rows.keys().filter_map(layers).collect(),
            untold: attached.untold.or(pagp.untold).or(stack.untold),
        })
    }

    /// Members of aggregations, each with the name of its aggregation, where that has one.
    pub(super) fn members(&self, places: &Places, names: &BTreeMap<u32, String>) -> BTreeMap<u32, Option<String>> {
        let is = |index: &u32, aggregate| places.0.get(index).is_some_and(|p| p.aggregate == aggregate);
        let stacked =
            self.stack.iter().filter(|(higher, lower)| is(higher, true) && is(lower, false)).map(|(higher, lower)| (lower, higher));
        let members = self.of.iter().chain(stacked).filter(|(port, _)| places.0.contains_key(port));
        members.map(|(port, group)| (*port, names.get(group).cloned())).collect()
    }
}

/// `Po1`, `port-channel11`: also while it has no member.
fn names_a_channel(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let number = name.strip_prefix("port-channel").or_else(|| name.strip_prefix("po"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
