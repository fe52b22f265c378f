//! What `plan` observes: one server's record, what devices showed of it, and when it was asked. Put together by `control::cache`.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Record;
use crate::model::body::Body;
use crate::model::fact::{BootOverride, PortConfig, Power, Seen, Tick};
use crate::model::op::Op;
use crate::model::{Name, Vlan};

/// A port: the switch, and the port's key there (its ifName).
pub type PortKey = (Name, String);

#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub body: Body,
    pub memory: Memory,
    /// The last answer about power. Nothing: not answered since this process started, or voided (another BMC, another address).
    pub power: Option<Seen<Power>>,
    /// The last answer about the boot device.
    pub boot: Option<Seen<BootOverride>>,
    /// Why nothing may be sent to the BMC: silent, credentials refused, another identity.
    pub bmc_trouble: Option<Trouble>,
    pub ports: BTreeMap<PortKey, PortSeenHere>,
    pub switches: BTreeMap<Name, SwitchSeenHere>,
    /// Other bodies that may run a persona, for the personas of interest here.
    pub elsewhere: BTreeMap<Name, Vec<Elsewhere>>,
    /// Approvals in force, by binding.
    pub approvals: BTreeMap<Name, Approval>,
    /// Bindings that a person or a guardrail has stopped, and why.
    pub stopped: BTreeMap<Name, Trouble>,
    /// For the forecast alone: as if every approval were given.
    pub as_if_approved: bool,
}

/// A reason in one CamelCase word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub reason: &'static str,
    pub message: String,
}

/// When things happened in this process. What the record says and this does not happened before: at `Tick::START`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub taken_at: Tick,
    pub answered_at: BTreeMap<Name, Tick>,
    pub withdrawn_at: BTreeMap<Name, Tick>,
    /// When the last attempt of the off intent was stored.
    pub attempt_at: Tick,
    /// When the boot device was last set and read back.
    pub boot_set_at: Option<Tick>,
    /// What it then read as: some BMCs drop persistence.
    pub boot_echo: Option<BootOverride>,
    /// Since when the body is seen off: the first answer Off after another one, or after the start of this process.
    pub off_seen_at: Option<Tick>,
    /// When power-on was last sent, and how often, since the body was last seen on and since the boot answer stands.
    pub on_sent_at: Option<Tick>,
    pub on_tries: u32,
    /// The last sign of a new start: a boot request that was answered with a persona, an agent's hello. A request that was only parked
    /// does not count: a body that loops in its firmware asks for ever, and would never be switched off hard.
    pub start_seen_at: Option<Tick>,
}

impl Memory {
    /// A record is in force from `at` on: stored, and obeyed by the boot services. A time before that would let an older answer of a
    /// BMC end evidence too early.
    pub fn recorded(&mut self, record: &Record, at: Tick) {
        match record {
            Record::Take { .. } => self.taken_at = at,
            Record::Answer(persona) | Record::Adopt(persona) => {
                self.answered_at.insert(persona.clone(), at);
                // A power-on for another persona is not this one's.
                (self.on_sent_at, self.on_tries) = (None, 0);
            }
            Record::Withdraw(persona) => drop(self.withdrawn_at.insert(persona.clone(), at)),
            Record::End(persona) => {
                self.answered_at.remove(persona);
                self.withdrawn_at.remove(persona);
            }
            Record::Off(_) => self.attempt_at = at,
            Record::FoundAs(_) | Record::Release(_) | Record::Leave | Record::Released | Record::Arm(_) | Record::Start(_) => {}
            Record::OffDone | Record::Restarted(_) => {}
        }
    }

    /// An operation is about to be sent.
    pub fn sent(&mut self, op: &Op, at: Tick) {
        match op {
            Op::PowerOn { .. } => {
                self.on_sent_at = Some(at);
                self.on_tries = self.on_tries.saturating_add(1);
            }
            Op::SetBoot { .. } | Op::PowerOff { .. } | Op::CreateVlan { .. } | Op::SetPort { .. } | Op::Save { .. } => {}
        }
    }

    /// Power was read, and was known as `before` until now.
    pub fn saw_power(&mut self, before: Option<Power>, seen: &Seen<Power>) {
        match seen.value {
            Power::Off if before != Some(Power::Off) => self.off_seen_at = Some(seen.asked_at),
            Power::Off => {}
            Power::On => (self.on_sent_at, self.on_tries) = (None, 0),
        }
    }

    /// The boot device was set by a question asked at `at`, and then read as `echo`.
    pub fn boot_was_set(&mut self, echo: Option<BootOverride>, at: Tick) {
        self.boot_set_at = Some(at);
        self.boot_echo = echo;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSeenHere {
    pub config: PortConfig,
    pub asked_at: Tick,
    /// Why it is never written: cable contradicted, member of an aggregation, not managed, cannot be told.
    pub refuse: Option<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwitchSeenHere {
    pub vlans: BTreeSet<Vlan>,
    /// The manifest says `vlans: Create` and the profile can.
    pub creates_vlans: bool,
    pub protected: BTreeSet<Vlan>,
    /// Why nothing may be written to it: silent, read-only, maintenance, another identity.
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    pub server: Name,
    /// When that server's BMC was last asked a question that it answered.
    pub asked_at: Option<Tick>,
}

/// What a person approved: this generation of a binding, these disruptive operations.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    pub uid: String,
    pub generation: u64,
    /// `consent::signature` of each disruptive operation of the forecast.
    pub ops: BTreeSet<String>,
}
