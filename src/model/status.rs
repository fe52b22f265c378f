//! What embody says of an object: conditions after kstatus, and want and have of each plane. Written by `control::status` alone,
//! and only when something changed: nothing here counts or tells the time of a poll.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Name;
use super::fact::{BmcIdentity, SwitchIdentity, Writable};

/// As in Kubernetes (meta/v1 Condition). Summary types: `Ready`, `Reconciling`, `Stalled` (kstatus).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: Truth,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// RFC 3339, UTC: when `status` last changed.
    pub last_transition_time: String,
    pub observed_generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) enum Truth {
    True,
    False,
    Unknown,
}

/// Desired and have of one plane of a binding: power, boot, network, agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlaneStatus {
    pub want: String,
    /// `Unknown` where it is not known.
    pub have: String,
    /// RFC 3339, UTC: since when `have` is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Who says so: `bmc/web-1`, `switch/tor-1`, `boot`.
    pub source: String,
    pub in_sync: bool,
}

/// Why something does not happen yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitStatus {
    /// One CamelCase word.
    pub reason: String,
    pub message: String,
    /// RFC 3339, UTC.
    pub since: String,
    /// The source line that decided it: `src/plan/fence.rs:88`.
    pub decided_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BindingStatus {
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
    /// The body that it lives in, or is moving to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Name>,
    /// The highest `restart` that was done there.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarted: u64,
    pub planes: BTreeMap<String, PlaneStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<WaitStatus>,
    /// What would be done, or is being done, next: the operations in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServerStatus {
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
    /// `On`, `Off` or `Unknown`.
    pub power: String,
    /// The boot override as read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcIdentity>,
    /// The binding that holds this body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<Name>,
    /// Personas that this body may run, by evidence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub may_run: Vec<Name>,
    /// What is still to be done here for a binding that moved away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SwitchStatus {
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<SwitchIdentity>,
    pub profile: String,
    pub writable: Writable,
    pub ports: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How far the bodies of a persona are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PersonaStatus {
    pub observed_generation: u64,
    /// Ready: all that are to run are up, with whatever revision.
    pub conditions: Vec<Condition>,
    pub bindings: usize,
    /// Of those, the ones that are to run.
    pub running: usize,
    /// Of those, the ones that were started with the revision of now.
    pub updated: usize,
    /// Of those, the ones that are up as desired, with whatever revision.
    pub ready: usize,
    /// `complete`, `1 of 3`, `halted: web-2`, `paused after 1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
}

/// The status of kinds of which there is only this to say: Network, Policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PlainStatus {
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
}

/// Something happened to an object. Kept in the store's own capped list, not among the objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    /// RFC 3339, UTC.
    pub time: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `Binding/web-1`.
    pub regarding: String,
    /// One CamelCase word.
    pub reason: String,
    pub message: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
