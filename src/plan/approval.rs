//! What a person approved: operations of one binding, as they were shown, and how far they are done. Pure.
//!
//! Leaves out: what needs an approval (`consent`), how it is shown, given and stored (`control::approve`). Invariant 11: an operation is
//! covered if it is listed, was not yet seen done, and starts from the state that was shown, or from one that an operation listed before it
//! leads to. Shown by `tests/plan/approvals.rs`.

use serde::{Deserialize, Serialize};

use super::desired::Authority;
use super::observed::{Observed, SeenOff};
use crate::model::Name;
use crate::model::fact::{Power, Tick};
use crate::model::op::Op;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    pub uid: String,
    pub generation: u64,
    /// The digest of what the persona would be answered (`Authority::answer`).
    pub answer: String,
    /// The digest of what else it was given for: the persona, its networks and the cables of its target (`resolve::made_from`).
    #[serde(default)]
    pub made_from: String,
    /// In the order in which they were shown.
    pub ops: Vec<Listed>,
    /// A hard off may follow where no soft-off was accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hard: bool,
    /// One of them was sent: from then on it does not end by time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listed {
    pub op: Op,
    /// What it starts from was seen: what it leads to is its doing from then on. (A port may be so already before somebody else changes it.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reached: bool,
    /// It was seen done: once more was not shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl Listed {
    pub fn new(op: Op) -> Listed {
        Listed { op, reached: false, done: false }
    }
}

impl Approval {
    pub fn is_for(&self, authority: &Authority) -> bool {
        self.uid == authority.uid && self.generation == authority.generation && self.answer == authority.answer
    }

    /// Everything that it lists was seen done. One without operations is for a record alone, and lasts.
    pub fn is_over(&self) -> bool {
        !self.ops.is_empty() && self.ops.iter().all(|listed| listed.done)
    }

    pub fn covers(&self, op: &Op) -> bool {
        self.ops.iter().enumerate().any(|(at, listed)| !listed.done && is_it(&listed.op, op) && self.is_reached(at, op))
    }

    /// Whether the port is as it was shown before the operation listed at `at`, or as one listed earlier makes it.
    fn is_reached(&self, at: usize, op: &Op) -> bool {
        let Op::SetPort { switch, port, from, .. } = op else { return true };
        self.ops.iter().take(at.saturating_add(1)).enumerate().any(|(n, listed)| match &listed.op {
            Op::SetPort { switch: s, port: p, from: shown, to } => {
                s == switch && p == port && if n == at { shown == from } else { to == from }
            }
            _ => false,
        })
    }

    /// An operation that it covers is sent. Whether that changed anything.
    pub fn begins(&mut self, op: &Op) -> bool {
        let first = !self.begun && self.covers(op);
        self.begun |= first;
        first
    }

    /// The driver read back that an operation is done. Power is not read back, but seen. Whether that changed anything.
    pub fn is_done(&mut self, op: &Op) -> bool {
        match op {
            Op::PowerOn { .. } | Op::PowerOff { .. } | Op::Save { .. } => false,
            // Set before every start: it belongs to the start that is shown after it.
            Op::SetBoot { server, .. } => {
                let starts = |listed: &Listed| !listed.done && matches!(&listed.op, Op::PowerOn { server: s } if s == server);
                !self.ops.iter().any(starts) && self.mark(|listed| is_it(listed, op))
            }
            Op::SetPort { .. } | Op::CreateVlan { .. } => self.mark(|listed| is_it(listed, op)),
        }
    }

    /// What is seen of a server, told to the first operation of each thing that is not done. Whether any of them came further.
    pub fn sees(&mut self, server: &Name, seen: &Observed) -> bool {
        let mut told: Vec<Thing> = Vec::new();
        let mut changed = false;
        let mut started = false;
        for listed in self.ops.iter_mut().filter(|listed| !listed.done) {
            let Some(thing) = Thing::of(&listed.op) else { continue };
            if told.contains(&thing) {
                continue;
            }
            let (from, to) = shows(&listed.op, server, seen);
            told.push(thing);
            if listed.reached && to {
                (listed.done, changed) = (true, true);
                started |= matches!(listed.op, Op::PowerOn { .. });
            } else if !listed.reached && from {
                (listed.reached, changed) = (true, true);
            }
        }
        if started {
            self.mark(|op| matches!(op, Op::SetBoot { server: s, .. } if s == server));
        }
        changed
    }

    /// The first that is not done of those that it is.
    fn mark(&mut self, is_it: impl Fn(&Op) -> bool) -> bool {
        let found = self.ops.iter_mut().find(|listed| !listed.done && is_it(&listed.op));
        found.map(|listed| listed.done = true).is_some()
    }
}

/// What is seen of devices, and changed by one operation after another.
#[derive(PartialEq, Eq)]
enum Thing {
    Power(Name),
    Port(Name, String),
}

impl Thing {
    fn of(op: &Op) -> Option<Thing> {
        match op {
            Op::PowerOn { server } | Op::PowerOff { server, .. } => Some(Thing::Power(server.clone())),
            Op::SetPort { switch, port, .. } => Some(Thing::Port(switch.clone(), port.clone())),
            Op::SetBoot { .. } | Op::CreateVlan { .. } | Op::Save { .. } => None,
        }
    }
}

/// Whether its thing is as before an operation, and as after it, as far as that is seen at this server.
fn shows(op: &Op, at: &Name, seen: &Observed) -> (bool, bool) {
    match op {
        Op::PowerOn { server } if server == at => (seen.is(Power::Off), seen.is(Power::On)),
        // One Off alone may be a BMC that restarts.
        Op::PowerOff { server, .. } if server == at => {
            (seen.is(Power::On), seen.is(Power::Off) && seen.seen_off(Tick::START) == SeenOff::Yes)
        }
        Op::SetPort { switch, port, from, to } => {
            let found = seen.ports.get(&(switch.clone(), port.clone())).map(|found| &found.config);
            (found == Some(from), found == Some(to))
        }
        _ => (false, false),
    }
}

/// Whether an operation is the listed one, whatever it starts from. A soft-off is shown as "soft, hard after 2m", and covers both.
fn is_it(listed: &Op, op: &Op) -> bool {
    match (listed, op) {
        (Op::PowerOff { server: listed, .. }, Op::PowerOff { server, .. }) => listed == server,
        (Op::SetPort { switch: s, port: p, to: t, .. }, Op::SetPort { switch, port, to, .. }) => (s, p, t) == (switch, port, to),
        (listed, op) => listed == op,
    }
}
