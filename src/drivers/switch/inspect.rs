//! What people see of a switch: the JSON of `embody inspect switch`, and which port a name means.
//!
//! Leaves out: colours and tables (`cli`).

use serde_json::{Value, json};

use crate::model::fact::{PortSeen, Quality, SwitchSeen};

/// Why a name means no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("no port is named `{wanted}`{}", not_whole(.untold))]
    None {
        wanted: String,
        /// What the switch does not tell of its names.
        untold: Vec<String>,
    },
    #[error("`{wanted}` names several ports: {}", .ports.join(", "))]
    Several { wanted: String, ports: Vec<String> },
}

/// The key of the port that a manifest names: exactly, else by the one port that has the name as ifName, ifAlias or ifDescr.
pub fn resolve<'a>(seen: &'a SwitchSeen, wanted: &str) -> Result<&'a str, Unresolved> {
    if let Some((key, _)) = seen.ports.get_key_value(wanted) {
        return Ok(key);
    }
    let named: Vec<&'a String> = seen.ports.iter().filter(|(_, port)| port.also.iter().any(|a| a == wanted)).map(|(key, _)| key).collect();
    match named.as_slice() {
        [one] => Ok(one),
        [] => {
            let of_names = |note: &&String| note.starts_with("ifTable ") || note.starts_with("ifXTable ");
            Err(Unresolved::None { wanted: wanted.to_owned(), untold: seen.notes.iter().filter(of_names).cloned().collect() })
        }
        several => Err(Unresolved::Several { wanted: wanted.to_owned(), ports: several.iter().map(|key| (*key).clone()).collect() }),
    }
}

fn not_whole(untold: &[String]) -> String {
    if untold.is_empty() { String::new() } else { format!(", and not all names are told: {}", untold.join("; ")) }
}

/// `embody inspect switch -o json`: the ports in the order of ifIndex.
pub fn to_json(seen: &SwitchSeen) -> Value {
    let mut ports: Vec<(&String, &PortSeen)> = seen.ports.iter().collect();
    ports.sort_by_key(|(_, port)| port.if_index);
    let port = |(name, port): (&String, &PortSeen)| {
        let neighbour = port.neighbour.as_ref().map(
            |n| json!({ "chassis": n.chassis, "port": n.port, "system": n.system, "via": format!("{:?}", n.via), "bridge": n.bridge }),
        );
        json!({
            "name": name,
            "ifIndex": port.if_index,
            "admin": format!("{:?}", port.config.admin),
            "oper": format!("{:?}", port.oper),
            "mode": format!("{:?}", port.mode),
            "untagged": port.config.untagged.map(crate::model::Vlan::id),
            "tagged": port.config.tagged.iter().map(|v| v.id()).collect::<Vec<u16>>(),
            "neighbour": neighbour,
            "quality": quality(&port.quality),
        })
    };
    let mut all = json!({
        "sysObjectID": seen.identity.sys_object_id,
        "sysDescr": seen.identity.sys_descr,
        "profile": seen.profile,
        "writable": seen.writable,
        "ports": ports.into_iter().map(port).collect::<Vec<Value>>(),
    });
    if !seen.notes.is_empty() {
        all["notes"] = json!(seen.notes);
    }
    all
}

fn quality(quality: &Quality) -> String {
    match quality {
        Quality::Exact => "Exact".to_owned(),
        Quality::Inconsistent(why) => format!("Inconsistent: {why}"),
        Quality::Unknown(why) => format!("Unknown: {why}"),
    }
}
