//! What tells one device from another: sources that a device shows of itself, each remembered by itself at first sight, and compared.
//!
//! Leaves out: who reads them (drivers) and where they are kept (`store`). Invariant: what is not told this time says nothing; one source
//! that differs is another device, whatever the others say; and a device is recognised only by a source that it shows.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::net::HostPort;
use super::server::Bmc;

/// Sources of identity: what is pinned of a device, or what it shows at one time. All in lower case, as received.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Identity {
    /// A BMC's GUID as its RAKP 2 tells it (IPMI 2.0, table 13-12): 32 hexadecimal digits. Nothing where it is all zeros or all ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// Pinned: it showed no GUID, or that of another one, and is known by the address in its manifest. Shown: the address that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A switch's serial numbers (ENTITY-MIB, entPhysicalSerialNum of its chassis): of a stack several, of which one must be left.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub serials: BTreeSet<String>,
    /// SNMP-FRAMEWORK-MIB, snmpEngineID, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// BRIDGE-MIB, dot1dBaseBridgeAddress, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// How what a device shows compares with what is pinned of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sameness {
    /// At least one source is shown equal, none different.
    Same,
    /// No source that is pinned was shown: it says nothing.
    NotTold,
    /// This source differs.
    Different { pinned: String, shown: String },
}

impl Identity {
    pub fn is_empty(&self) -> bool {
        *self == Identity::default()
    }

    /// Of a device whose record does not read: whatever is shown is another one, until a person accepts it.
    pub fn nobodys() -> Identity {
        let unreadable = || Some("(unreadable)".to_owned());
        Identity {
            guid: unreadable(),
            address: None,
            serials: unreadable().into_iter().collect(),
            engine: unreadable(),
            base: unreadable(),
        }
    }

    /// What tells one machine behind a BMC from another: its GUID, or where it has none the address at which it answers, whatever its notation.
    pub fn machine(&self) -> Option<String> {
        let at = |address: &String| {
            let host: Option<HostPort> = address.parse().ok();
            let (host, port) = host.map_or((address.clone(), Bmc::PORT), |host| host.with_port(Bmc::PORT));
            let host = host.parse::<IpAddr>().map_or(host, |ip| ip.to_canonical().to_string());
            format!("address {host}, port {port}")
        };
        self.guid.clone().or_else(|| self.address.as_ref().map(at))
    }

    /// Whether `shown` is the device that this was pinned of.
    pub fn compare(&self, shown: &Identity) -> Sameness {
        let mut equal = false;
        // An address is no proof against a GUID that appears where there was none.
        let appeared = self.guid.is_none() && self.address.is_some() && shown.guid.is_some();
        if appeared {
            return different("no GUID", &format!("GUID {}", shown.guid.as_deref().unwrap_or_default()));
        }
        let single = [("GUID", &self.guid, &shown.guid), ("engine", &self.engine, &shown.engine), ("bridge", &self.base, &shown.base)];
        for (name, pinned, shown) in single {
            match (pinned, shown) {
                (Some(pinned), Some(shown)) if pinned != shown => {
                    return different(&format!("{name} {pinned}"), &format!("{name} {shown}"));
                }
                (Some(_), Some(_)) => equal = true,
                (Some(_) | None, None) | (None, Some(_)) => {}
            }
        }
        if !self.serials.is_empty() && !shown.serials.is_empty() {
            if self.serials.is_disjoint(&shown.serials) {
                return different(&format!("serial {}", list(&self.serials)), &format!("serial {}", list(&shown.serials)));
            }
            equal = true;
        }
        if let (Some(pinned), Some(shown)) = (&self.address, &shown.address) {
            if pinned != shown {
                return different(&format!("address {pinned}"), &format!("address {shown}"));
            }
            equal |= self.guid.is_none();
        }
        if equal { Sameness::Same } else { Sameness::NotTold }
    }

    /// Whether a source is shown for the first time: what `extended` adds.
    pub fn lacks(&self, shown: &Identity) -> bool {
        let Identity { guid, address, serials, engine, base } = self;
        let nothing_else = |of: &Identity| Identity { address: None, ..of.clone() }.is_empty();
        guid.is_none() && address.is_none() && shown.guid.is_some()
            || serials.is_empty() && !shown.serials.is_empty()
            || engine.is_none() && shown.engine.is_some()
            || base.is_none() && shown.base.is_some()
            || address.is_none() && shown.address.is_some() && nothing_else(self) && nothing_else(shown)
    }

    /// With each source that is shown for the first time: to be pinned as well. The address is pinned only on a person's word, or where
    /// there is nothing else.
    pub fn extended(&self, shown: &Identity) -> Identity {
        let mut all = self.clone();
        let by_address_alone = self.address.is_some();
        if !by_address_alone {
            all.guid = self.guid.clone().or_else(|| shown.guid.clone());
        }
        all.engine = self.engine.clone().or_else(|| shown.engine.clone());
        all.base = self.base.clone().or_else(|| shown.base.clone());
        if all.serials.is_empty() {
            all.serials.clone_from(&shown.serials);
        }
        let nothing_else = Identity { address: None, ..all.clone() }.is_empty();
        if nothing_else && all.address.is_none() {
            all.address.clone_from(&shown.address);
        }
        all
    }

    /// Each source of a switch by itself, as a key: whoever has none of them in common is not the same one.
    pub fn sources(&self) -> Vec<String> {
        let serials = self.serials.iter().map(|serial| format!("serial {serial}"));
        let engine = self.engine.iter().map(|engine| format!("engine {engine}"));
        let base = self.base.iter().map(|base| format!("bridge {base}"));
        serials.chain(engine).chain(base).collect()
    }

    /// What both tell alike of a switch.
    pub fn shared(&self, other: &Identity) -> Identity {
        Identity {
            serials: self.serials.intersection(&other.serials).cloned().collect(),
            engine: self.engine.clone().filter(|_| self.engine == other.engine),
            base: self.base.clone().filter(|_| self.base == other.base),
            ..Identity::default()
        }
    }
}

fn different(pinned: &str, shown: &str) -> Sameness {
    Sameness::Different { pinned: pinned.to_owned(), shown: shown.to_owned() }
}

fn list(set: &BTreeSet<String>) -> String {
    set.iter().map(String::as_str).collect::<Vec<_>>().join("+")
}

impl fmt::Display for Identity {
    /// `GUID 0123…`, `serial ABC, engine 8000…`, `none, by address 192.0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.guid.iter().map(|g| format!("GUID {g}")));
        parts.extend((!self.serials.is_empty()).then(|| format!("serial {}", list(&self.serials))));
        parts.extend(self.engine.iter().map(|e| format!("engine {e}")));
        parts.extend(self.base.iter().map(|b| format!("bridge {b}")));
        parts.extend(self.address.iter().map(|a| format!("by address {a}")));
        f.pad(&if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guid(guid: &str, address: &str) -> Identity {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Identity { guid: some(guid), address: some(address), ..Identity::default() }
    }

    #[test]
    fn a_bmc_is_known_by_its_guid_and_by_its_address_only_where_it_has_none() {
        let pinned = Identity::default().extended(&guid("aa", "192.0.2.1"));
        assert_eq!(pinned, guid("aa", ""));
        assert_eq!(pinned.compare(&guid("aa", "192.0.2.2")), Sameness::Same);
        assert!(matches!(pinned.compare(&guid("bb", "192.0.2.1")), Sameness::Different { .. }));
        assert_eq!(pinned.compare(&guid("", "192.0.2.1")), Sameness::NotTold, "one that shows none is not taken for it");
        let by_address = Identity::default().extended(&guid("", "192.0.2.1"));
        assert_eq!(by_address, guid("", "192.0.2.1"));
        assert_eq!(by_address.compare(&guid("", "192.0.2.1")), Sameness::Same);
        assert!(matches!(by_address.compare(&guid("", "192.0.2.9")), Sameness::Different { .. }));
        assert!(matches!(by_address.compare(&guid("cc", "192.0.2.1")), Sameness::Different { .. }));
    }

    #[test]
    fn what_is_lacked_is_what_an_extension_adds() {
        let sources = |bits: u32, which: &str| {
            let some = |bit: u32, name: &str| (bits & bit != 0).then(|| format!("{name}{which}"));
            let serials = some(4, "s").into_iter().collect();
            Identity { guid: some(1, "g"), address: some(2, "a"), serials, engine: some(8, "e"), base: some(16, "b") }
        };
        for (pinned, shown) in (0..32).flat_map(|pinned| (0..32).map(move |shown| (sources(pinned, ""), sources(shown, "2")))) {
            assert_eq!(pinned.lacks(&shown), pinned.extended(&shown) != pinned, "{pinned:?} {shown:?}");
        }
    }

    #[test]
    fn twins_are_told_apart_by_the_address_that_a_person_accepted() {
        let twin = guid("aa", "192.0.2.1");
        assert_eq!(twin.compare(&guid("aa", "192.0.2.1")), Sameness::Same);
        assert!(matches!(twin.compare(&guid("aa", "192.0.2.2")), Sameness::Different { .. }));
    }

    #[test]
    fn a_stack_that_lost_a_member_is_the_same_switch() {
        let stack = |serials: &[&str], engine: &str| Identity {
            serials: serials.iter().map(|s| (*s).to_owned()).collect(),
            engine: (!engine.is_empty()).then(|| engine.to_owned()),
            ..Identity::default()
        };
        let pinned = stack(&["A", "B"], "80");
        assert_eq!(pinned.compare(&stack(&["B", "C"], "")), Sameness::Same);
        assert!(matches!(pinned.compare(&stack(&["C"], "80")), Sameness::Different { .. }));
        assert!(matches!(pinned.compare(&stack(&["A"], "81")), Sameness::Different { .. }));
        assert_eq!(pinned.compare(&stack(&[], "")), Sameness::NotTold);
        assert_eq!(stack(&[], "80").extended(&stack(&["A"], "80")), stack(&["A"], "80"), "a source first told later is pinned then");
    }
}
