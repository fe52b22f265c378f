//! `kind: Policy`: one object, named `default`: how far and how fast embody may go at this site.

use serde::{Deserialize, Serialize};

use super::Period;
use super::binding::Mode;

/// The only name that a Policy may have.
pub(crate) const DEFAULT: &str = "default";

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicySpec {
    /// The mode of bindings that name none.
    pub correct: Mode,
    /// How much may change at once.
    pub limits: Limits,
    /// How BMCs are asked.
    pub bmc: BmcPolicy,
    /// How switches are asked.
    pub switch: SwitchPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Switching on and off.
    pub max_power_changes: PowerChanges,
    /// Port writes.
    pub max_port_writes: PortWrites,
    /// Bodies of running bindings that may be down because of embody at one time: a number or a percentage.
    pub max_unavailable: Share,
    /// One change of desired state that disrupts more than this is held until approved: the larger of both.
    pub max_affected_by_change: Affected,
    /// Objects that a directory may delete in ten minutes before a person is asked (`embody approve source/directory`).
    pub max_deletes: MaxDeletes,
    /// Whether a hard off may follow, once the grace is over, where no soft-off was accepted. Default: no, a person approves it (`embody approve BINDING --hard`).
    pub hard_off_without_soft: bool,
    /// When more bodies than this (and more than 5) seem to drift or change reachability at once, correction stops.
    pub stop_if_drifted: Drifted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PowerChanges {
    /// In flight at one time.
    pub at_once: u32,
    /// Begun in a minute.
    pub per_minute: u32,
}

impl Default for PowerChanges {
    fn default() -> Self {
        PowerChanges { at_once: 4, per_minute: 10 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PortWrites {
    /// In flight at one time.
    pub at_once: u32,
    /// Begun in a minute.
    pub per_minute: u32,
    /// In flight at one time on one switch.
    pub per_switch: u32,
}

impl Default for PortWrites {
    fn default() -> Self {
        PortWrites { at_once: 8, per_minute: 60, per_switch: 1 }
    }
}

/// `7` or `10%`. Percentages round up and are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Count(u32),
    Percent(u8),
}

impl Default for Share {
    fn default() -> Self {
        Share::Percent(10)
    }
}

impl Share {
    /// How many of `all` that is.
    pub fn of(self, all: usize) -> usize {
        match self {
            Share::Count(n) => n as usize,
            Share::Percent(p) => (all * p as usize).div_ceil(100).max(1),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected a number, or a percentage from 0% to 100%")]
pub struct BadShare {
    pub found: String,
}

impl std::str::FromStr for Share {
    type Err = BadShare;
    fn from_str(text: &str) -> Result<Self, BadShare> {
        let bad = || BadShare { found: text.to_owned() };
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        match text.strip_suffix('%') {
            Some(p) if digits(p) => p.parse().ok().filter(|p| *p <= 100).map(Share::Percent).ok_or_else(bad),
            None if digits(text) => text.parse().map(Share::Count).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Share::Count(n) => write!(f, "{n}"),
            Share::Percent(p) => write!(f, "{p}%"),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Share::Count(n) => to.serialize_u32(*n),
            Share::Percent(_) => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Count(u32),
            Text(String),
        }
        match Raw::deserialize(from)? {
            Raw::Count(n) => Ok(Share::Count(n)),
            Raw::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl schemars::JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["integer", "string"], "format": "share", "examples": [7, "10%"] })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Affected {
    /// Servers.
    pub count: u32,
    /// Servers, in percent of all.
    pub percent: u8,
}

impl Default for Affected {
    fn default() -> Self {
        Affected { count: 5, percent: 5 }
    }
}

impl Affected {
    /// How many of `all` that is: the larger of both.
    pub fn of(self, all: usize) -> usize {
        Share::Percent(self.percent).of(all).max(self.count as usize)
    }
}

/// A number of objects whose default is 5: a decommissioned server with its binding and persona, and room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct MaxDeletes(pub u32);

impl Default for MaxDeletes {
    fn default() -> Self {
        MaxDeletes(5)
    }
}

/// A share whose default is 20 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Drifted(pub Share);

impl Default for Drifted {
    fn default() -> Self {
        Drifted(Share::Percent(20))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BmcPolicy {
    /// How often power is read, from 1s, and the boot device with every tenth time. Up to 45s keeps the session open: BMCs end one that is idle for a minute.
    pub poll_interval: Period,
    /// The least time between two requests to one BMC.
    pub spacing: Period,
}

impl Default for BmcPolicy {
    fn default() -> Self {
        BmcPolicy { poll_interval: Period::secs(20), spacing: Period(std::time::Duration::from_millis(100)) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SwitchPolicy {
    /// How often ports are read, from 1s; less often by itself where the switch needs more than a tenth of that to answer.
    pub poll_interval: Period,
}

impl Default for SwitchPolicy {
    fn default() -> Self {
        SwitchPolicy { poll_interval: Period::secs(10) }
    }
}
