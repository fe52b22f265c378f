//! What is stored about a body: who holds it, what it may run by evidence, a switching-off that was begun, what is still still to be released.
//!
//! Evidence outlives the objects that it came from. There are no times in it: ticks of another process mean nothing here, so what a
//! record says counts as said when this process started (`Tick::START`). `plan::record` alone changes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Name;

/// Stored under `records/2/bodies/<server>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Body {
    /// The binding that holds this body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Hold>,
    /// How it was found when that binding took it.
    pub found: Found,
    /// Personas that may run here: the evidence of the fence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub may_run: BTreeMap<Name, Phase>,
    /// A switching-off that was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<OffIntent>,
    /// What a binding that moved away still must still release here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<Hold>,
    /// The value of the holder's `restart` that this body has been off for.
    #[serde(skip_serializing_if = "is_zero")]
    pub restart_done: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A binding, by name and by uid: a new binding of the same name is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    pub binding: Name,
    pub uid: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Found {
    /// Its power was not seen yet since it was taken.
    #[default]
    Unknown,
    /// Off: nothing of anybody's ran here.
    Off,
    /// Running something that nobody has declared: nothing here is disturbed before a person approves.
    Running,
    /// Under embody's care without a gap: moved to and fro, or adopted.
    Managed,
}

/// How far a persona's life on a body has come, by evidence. Every phase means: it may run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The boot answer stands. Whether the body was off since is not known.
    Answered,
    /// It was seen off while the answer stood: the next start is this persona's.
    Armed,
    /// A start was seen after that.
    Started,
    /// The boot answer was withdrawn. Ends when the body is seen off by a question asked after that.
    Withdrawn,
}

impl Phase {
    /// Whether the boot services answer with this persona.
    pub fn stands(self) -> bool {
        match self {
            Phase::Answered | Phase::Armed | Phase::Started => true,
            Phase::Withdrawn => false,
        }
    }
}

/// One desired state to have the body off, and how far it got. Stored before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffIntent {
    /// Attempts so far, this one included, from 1.
    pub attempt: u32,
    /// What the last attempt sent.
    pub hard: bool,
    /// Why, for people.
    pub because: String,
}
