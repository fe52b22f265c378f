//! Who is at the other end of a port: LLDP (IEEE 802.1AB-2005) and CDP, as agents really answer them.
//!
//! Leaves out: what follows from it. Invariant: a neighbour that says it is a bridge is never hidden by another one on the same port.
//! Shown by `tests/recordings.rs`.

use std::collections::BTreeMap;

use super::ask::Asking;
use super::objects as o;
use super::places::Places;
use super::snmp::Value;
use super::value::{Column, number, octets, text};
use crate::drivers::Fault;
use crate::model::fact::{Neighbour, Via};

/// What an agent tells of neighbours.
pub(super) struct Neighbours {
    /// By ifIndex.
    pub at: BTreeMap<u32, Neighbour>,
    /// It tells neighbours at all: it has ports that speak LLDP, or knows somebody.
    pub told: bool,
    /// There may be more.
    pub untold: bool,
}

pub(super) async fn read(asking: &mut Asking<'_>, places: &Places) -> Result<Neighbours, Fault> {
    let mut found: BTreeMap<u32, Vec<Neighbour>> = BTreeMap::new();
    let (lldp, lldp_untold) = lldp(asking, places).await?;
    let (cdp, cdp_untold) = cdp(asking).await?;
    let knows_nobody = lldp.is_empty() && cdp.is_empty();
    let told = !knows_nobody || !asking.columns([o::LLDP_LOC_PORT_ID], 64).await?[0].is_empty();
    for (port, neighbour) in lldp.into_iter().chain(cdp) {
        found.entry(port).or_default().push(neighbour);
    }
    let pick = |mut all: Vec<Neighbour>| {
        let at = all.iter().position(|n| n.bridge == Some(true)).unwrap_or(0);
        all.swap_remove(at)
    };
    let untold = lldp_untold || cdp_untold;
    Ok(Neighbours { at: found.into_iter().map(|(port, all)| (port, pick(all))).collect(), told: told && !untold, untold })
}

type Found = (Vec<(u32, Neighbour)>, bool);

async fn lldp(asking: &mut Asking<'_>, places: &Places) -> Result<Found, Fault> {
    let [chassis_type, chassis, port_type, port] =
        asking.told([o::LLDP_REM_CHASSIS_SUBTYPE, o::LLDP_REM_CHASSIS, o::LLDP_REM_PORT_SUBTYPE, o::LLDP_REM_PORT], 24).await?;
    let untold = chassis.untold.is_some();
    if chassis.rows.is_empty() {
        return Ok((Vec::new(), untold));
    }
    let [system, capabilities] = asking.told([o::LLDP_REM_SYS_NAME, o::LLDP_REM_CAPABILITIES], 24).await?;
    let [local_id, local_desc] = asking.columns([o::LLDP_LOC_PORT_ID, o::LLDP_LOC_PORT_DESC], 64).await?;
    let mut seen = Vec::new();
    let mut nowhere = 0;
    for (index, id) in &chassis.rows {
        let at = remote_port(index).and_then(|local| local_port(local, [&local_id, &local_desc], places));
        let Some(at) = at else {
            nowhere += 1;
            continue;
        };
        let kind = |column: &Column| column.get(index).and_then(number);
        let Some(chassis) = lldp_id(id, kind(&chassis_type.rows), [4, 5]) else { continue };
        let port = port.rows.get(index).and_then(|p| lldp_id(p, kind(&port_type.rows), [3, 4])).unwrap_or_default();
        let system = system.rows.get(index).and_then(text);
        let bridge = capabilities.rows.get(index).and_then(octets).and_then(lldp_bridge);
        seen.push((at, Neighbour { chassis, port, system, via: Via::Lldp, bridge }));
    }
    if nowhere > 0 {
        asking.notes.insert(format!("of its LLDP neighbours {nowhere} stand at no port that is known"));
    }
    Ok((seen, untold || capabilities.untold.is_some()))
}

/// lldpRemLocalPortNum of an index of lldpRemTable: lldpRemTimeMark, lldpRemLocalPortNum, lldpRemIndex. Some agents leave out the time mark.
fn remote_port(index: &[u32]) -> Option<u32> {
    match index {
        [_, local, _] | [local, _] => Some(*local),
        _ => None,
    }
}

/// lldpLocPortNum is a number of its own on some agents, the base port or the ifIndex on others: the names that LLDP itself gives to
/// the local port decide first.
fn local_port(local: u32, names: [&Column; 2], places: &Places) -> Option<u32> {
    let named = names.into_iter().filter_map(|column| column.get([local].as_slice()).and_then(text)).find_map(|name| places.named(&name));
    named.or_else(|| places.by_base_port(local)).or_else(|| places.0.contains_key(&local).then_some(local))
}

/// LldpChassisIdSubtype and LldpPortIdSubtype: `binary` are the subtypes that hold a MAC address and a network address.
fn lldp_id(value: &Value, subtype: Option<i64>, [mac, network]: [i64; 2]) -> Option<String> {
    let bytes = octets(value)?;
    if let Some(mac) = mac_of_text(bytes).filter(|_| subtype == Some(mac)) {
        return Some(mac);
    }
    match bytes {
        // networkAddress: an IANA address family (1 is IPv4), then the address
        [1, a, b, c, d] if subtype == Some(network) => Some(format!("{a}.{b}.{c}.{d}")),
        _ => shown(bytes),
    }
}

/// A MAC address that the agent sent as six octets, or as text in whatever notation.
fn mac_of_text(bytes: &[u8]) -> Option<String> {
    if bytes.len() == 6 {
        return Some(colons(bytes));
    }
    let digits: String = std::str::from_utf8(bytes).ok()?.chars().filter(|c| !matches!(c, ':' | '-' | '.' | ' ')).collect();
    let octet = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    if digits.len() != 12 {
        return None;
    }
    let octets: Option<Vec<u8>> = (0..12).step_by(2).map(octet).collect();
    octets.map(|octets| colons(&octets))
}

/// Text where all of it prints (some agents fill it up with NULs), else its octets.
fn shown(bytes: &[u8]) -> Option<String> {
    let bytes = &bytes[..bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)];
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control()) => Some(text.trim().to_owned()).filter(|t| !t.is_empty()),
        Ok(_) | Err(_) => Some(colons(bytes)),
    }
}

fn colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(":")
}

/// LldpSystemCapabilitiesMap: BITS, bridge(2) and router(4). Some agents send the words of a tool, `28 00 2 4`, instead.
fn lldp_bridge(bytes: &[u8]) -> Option<bool> {
    let first = match bytes {
        [] => return None,
        [a, b, b' ', ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
            std::str::from_utf8(&bytes[..2]).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())?
        }
        [first, ..] => *first,
    };
    (first != 0).then_some(first & 0b0010_1000 != 0)
}

async fn cdp(asking: &mut Asking<'_>) -> Result<Found, Fault> {
    let [device, port, capabilities] = asking.told([o::CDP_DEVICE, o::CDP_PORT, o::CDP_CAPABILITIES], 16).await?;
    let untold = device.untold.is_some() || capabilities.untold.is_some();
    let id = |value: &Value| octets(value).and_then(|b| if b.len() == 6 && !b.is_ascii() { Some(colons(b)) } else { shown(b) });
    let seen = device.rows.iter().filter_map(|(index, value)| {
        // ifIndex, cdpCacheDeviceIndex
        let [if_index, _] = index.as_slice() else { return None };
        let bridge = capabilities.rows.get(index).and_then(octets).and_then(cdp_bridge);
        let port = port.rows.get(index).and_then(id).unwrap_or_default();
        Some((*if_index, Neighbour { chassis: id(value)?, port, system: None, via: Via::Cdp, bridge }))
    });
    Ok((seen.collect(), untold))
}

/// CDP capabilities, the low octet: router 01, transparent bridge 02, source-route bridge 04, switch 08.
fn cdp_bridge(bytes: &[u8]) -> Option<bool> {
    let low = bytes.last()?;
    bytes.iter().any(|b| *b != 0).then_some(low & 0x0f != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_in_octets_and_in_words() {
        assert_eq!(lldp_bridge(&[0x28, 0]), Some(true));
        assert_eq!(lldp_bridge(b"28 00 2 4"), Some(true));
        assert_eq!(lldp_bridge(&[0x01, 0]), Some(false));
        assert_eq!(lldp_bridge(b"00 00 "), None);
        assert_eq!(lldp_bridge(&[]), None);
        assert_eq!(cdp_bridge(&[0, 0, 0, 0x29]), Some(true));
        assert_eq!(cdp_bridge(&[0, 0, 0, 0x90]), Some(false));
    }

    #[test]
    fn a_mac_address_in_any_notation() {
        for text in ["74:86:E2:0a:0c:04", "7486.e20a.0c04", "74 86 e2 0a 0c 04"] {
            assert_eq!(mac_of_text(text.as_bytes()).as_deref(), Some("74:86:e2:0a:0c:04"));
        }
        assert_eq!(mac_of_text(b"web-1"), None);
    }
}
