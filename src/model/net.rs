//! Small types of networking: VLAN ids, MAC addresses, host:port. Each knows its text form and says what was wrong with another.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A VLAN id, 1..=4094 (IEEE 802.1Q: 0 and 4095 are reserved).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Vlan(u16);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected a VLAN id from 1 to 4094")]
pub struct BadVlan {
    pub found: i64,
}

impl Vlan {
    /// IEEE 802.1Q, table 9-2: the default PVID.
    pub const DEFAULT: Vlan = Vlan(1);

    pub fn id(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Vlan {
    type Error = BadVlan;
    fn try_from(id: i64) -> Result<Self, BadVlan> {
        if (1..=4094).contains(&id) { Ok(Vlan(id as u16)) } else { Err(BadVlan { found: id }) }
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Vlan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vlan::try_from(i64::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Vlan {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Vlan".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 4094, "format": "vlan" })
    }
}

/// A unicast MAC address. Reads `00:17:a4:77:00:01`, with `-` for `:`, and `0017.a477.0001`; writes the first, lower-case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The first one in order.
    pub(crate) const LEAST: Mac = Mac([0; 6]);
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMac {
    #[error("found `{found}`, expected a MAC address such as \"00:17:a4:77:00:01\"")]
    Text { found: String },
    #[error("found `{found}`, a group (multicast or broadcast) address, expected the unicast MAC address of a NIC")]
    Group { found: String },
    #[error("found `{found}`, expected the unicast MAC address of a NIC, not all zeros")]
    Zero { found: String },
}

impl Mac {
    /// The six octets, first on the wire first.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
    /// An address that a device reported: any six octets, or nothing when the group bit is set or all are zero.
    pub fn seen(octets: [u8; 6]) -> Option<Mac> {
        (octets[0] & 1 == 0 && octets != [0; 6]).then_some(Mac(octets))
    }
}

impl FromStr for Mac {
    type Err = BadMac;
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac::Text { found: text.to_owned() };
        let parts: Vec<&str> = text.split(['-', ':', '.']).collect();
        let width = match parts.len() {
            6 => 2,
            3 if text.contains('.') => 4,
            _ => return Err(bad()),
        };
        if parts.iter().any(|p| p.len() != width || !p.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(bad());
        }
        let digits = parts.concat();
        let mut octets = [0u8; 6];
        for (i, o) in octets.iter_mut().enumerate() {
            *o = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        match octets {
            [0, 0, 0, 0, 0, 0] => Err(BadMac::Zero { found: text.to_owned() }),
            [first, ..] if first & 1 == 1 => Err(BadMac::Group { found: text.to_owned() }),
            _ => Ok(Mac(octets)),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A host (name, IPv4 or IPv6 address) with an optional port: `host`, `host:port`, `[v6]`, `[v6]:port`, bare `v6`. A link-local address names its
/// zone (RFC 4007): `fe80::1%eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected host, host:port or [v6]:port, with a port from 1 to 65535")]
pub struct BadHostPort {
    pub found: String,
}

impl HostPort {
    /// `host:port` for a resolver, with `default` where the text named no port.
    pub fn with_port(&self, default: u16) -> (String, u16) {
        (self.host.clone(), self.port.unwrap_or(default))
    }

    /// What it means is looked up, and may be something else the next time.
    pub fn is_a_name(&self) -> bool {
        !is_v6(&self.host) && self.host.parse::<std::net::Ipv4Addr>().is_err()
    }
}

impl FromStr for HostPort {
    type Err = BadHostPort;
    fn from_str(text: &str) -> Result<Self, BadHostPort> {
        let bad = || BadHostPort { found: text.to_owned() };
        let port = |p: &str| match p.parse::<u16>() {
            Ok(n) if n > 0 && p.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(n)),
            _ => Err(bad()),
        };
        if is_v6(text) {
            return Ok(HostPort { host: text.to_owned(), port: None });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
            if !is_v6(host) {
                return Err(bad());
            }
            let port = match tail.strip_prefix(':') {
                Some(p) => port(p)?,
                None if tail.is_empty() => None,
                None => return Err(bad()),
            };
            return Ok(HostPort { host: host.to_owned(), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, p)) => (host, port(p)?),
            None => (text, None),
        };
        let label = |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let good = if numeric { host.parse::<std::net::Ipv4Addr>().is_ok() } else { host.len() <= 253 && host.split('.').all(label) };
        if good { Ok(HostPort { host: host.to_owned(), port }) } else { Err(bad()) }
    }
}

/// With or without a zone: an interface's name, or its number.
fn is_v6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let is_name = |zone: &str| (1..16).contains(&zone.len()) && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_name)
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

macro_rules! as_text {
    ($($type:ident $format:literal),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format })
            }
        }
    )* };
}
as_text!(Mac "mac", HostPort "host-port");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_in_three_notations_and_the_bad_ones() {
        for text in ["00:17:A4:77:00:01", "00-17-a4-77-00-01", "0017.a477.0001"] {
            assert_eq!(text.parse::<Mac>().map(|m| m.to_string()), Ok("00:17:a4:77:00:01".into()));
        }
        for bad in ["", "00:17:a4:77:00", "00:17:a4:77:00:0g", "0:17:a4:77:0:1", "0017a4770001", "00:17:a4:77:00:01:02"] {
            assert!(matches!(bad.parse::<Mac>(), Err(BadMac::Text { .. })), "{bad}");
        }
        assert!(matches!("01:00:5e:00:00:01".parse::<Mac>(), Err(BadMac::Group { .. })));
        assert!(matches!("00:00:00:00:00:00".parse::<Mac>(), Err(BadMac::Zero { .. })));
    }

    #[test]
    fn host_and_port() {
        let ok = |t: &str| t.parse::<HostPort>().map(|h| (h.host, h.port)).ok();
        assert_eq!(ok("192.0.2.1"), Some(("192.0.2.1".into(), None)));
        assert_eq!(ok("bmc.lan:6230"), Some(("bmc.lan".into(), Some(6230))));
        assert_eq!(ok("[fd00::1]:161"), Some(("fd00::1".into(), Some(161))));
        assert_eq!(ok("fd00::1"), Some(("fd00::1".into(), None)));
        assert_eq!(ok("[fe80::1%eth0]:623"), Some(("fe80::1%eth0".into(), Some(623))));
        assert_eq!(ok("fe80::1%2"), Some(("fe80::1%2".into(), None)));
        let zones = ["fe80::1%", "192.0.2.1%eth0", "[fe80::1%a b]:1", "bmc%eth0"];
        for bad in ["", "h:", "h:0", "h:70000", "h:1:2", "[fd00::1", "[x]:1", "300.1.1.1", "a b", "h:+1"].into_iter().chain(zones) {
            assert_eq!(ok(bad), None, "{bad}");
        }
    }
}
