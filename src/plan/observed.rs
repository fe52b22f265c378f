//! What `plan` knows of one server beside its desired state: its record, what devices showed of it, and when they were asked. Put together by
//! `control::cache`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::approval::Approval;
use super::desired::Authority;
use super::off::{Grace, HardWithoutSoft};
use super::record::Record;
use super::rollout::Turn;
use crate::limits;
use crate::model::body::{Body, Sent, port_id};
use crate::model::fact::{BootOverride, PortConfig, Power, Seen, Tick};
use crate::model::op::{Device, Off, Op};
use crate::model::{Name, Reason, Vlan};

/// A port: the switch, and the port's key there (its ifName).
pub type PortKey = (Name, String);

#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub body: Body,
    /// The record of this body does not read: it may run anything.
    pub unreadable: bool,
    pub memory: Memory,
    /// The last answer about power. Nothing: not answered since this process started, or voided (another BMC, another address).
    pub power: Option<Seen<Power>>,
    /// The last answer about the boot device.
    pub boot: Option<Seen<BootOverride>>,
    /// Why nothing may be sent to the BMC: silent, credentials refused, another identity.
    pub bmc_trouble: Option<Trouble>,
    pub ports: BTreeMap<PortKey, PortObserved>,
    pub switches: BTreeMap<Name, SwitchObserved>,
    /// Ports of which a write is on its way.
    pub in_flight: BTreeSet<PortKey>,
    /// Other bodies and bindings that have what the holder's persona claims.
    pub elsewhere: Vec<Elsewhere>,
    /// Where its binding has moved away: whether the new body could take over now, and why not.
    pub takeover: Option<Result<Ready, String>>,
    /// Where its persona has a rollout, and another revision runs here: whether it is restarted now.
    pub turn: Turn,
    /// Approvals in force, by binding.
    pub approvals: BTreeMap<Name, Approval>,
    /// Bindings that a person or a guardrail has stopped, and why.
    pub stopped: BTreeMap<Name, Trouble>,
    /// A guardrail holds it, also where it is looked at as if it did not.
    pub held: bool,
    /// The Policy's `hardOffWithoutSoft`.
    pub hard_off_without_soft: bool,
    /// For the forecast alone: as if every approval were given.
    pub as_if_approved: bool,
}

/// What it rests on that a new body could take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// When the question was asked whose answer is the oldest of them.
    pub oldest: Tick,
    /// Whom to ask again.
    pub devices: BTreeSet<Device>,
    /// Bodies that others have to leave for it, and that run: where one of them is not let go, this one would be left for nothing.
    pub bodies: BTreeSet<Name>,
}

impl Ready {
    /// Whether all of it was asked after this moment.
    pub fn is_known_since(&self, moment: Tick) -> bool {
        self.oldest > moment
    }
}

/// Who is asked about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Bmc,
    Switches,
}

/// A reason, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub reason: Reason,
    pub message: String,
}

/// When things happened in this process. What the record says and this does not happened before: at `Tick::START`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub answered_at: BTreeMap<Name, Tick>,
    pub withdrawn_at: BTreeMap<Name, Tick>,
    /// When the last soft-off and the last hard off may have left.
    pub soft_at: Tick,
    pub hard_at: Tick,
    /// How much of the grace of an accepted soft-off is over.
    pub grace: Grace,
    /// When a write of a port was begun, or came back: an older sight of it says nothing of that write.
    pub port_at: BTreeMap<String, Tick>,
    /// When a binding took the body.
    pub taken_at: Tick,
    /// When a person declared something of the body.
    pub declared_at: Tick,
    /// It was answered On after that, whenever that was asked: a question on its way tells of a machine that runs as well as a later one.
    pub on_since_declared: bool,
    /// When the boot device was last set and read back.
    pub boot_set_at: Option<Tick>,
    /// What it then read as: some BMCs drop persistence.
    pub boot_echo: Option<BootOverride>,
    /// When the BMC last refused to have its boot device set, and how it said so. It is tried again before the next start.
    pub boot_refused: Option<(Tick, String)>,
    /// When the power was last asked for and answered On.
    pub on_asked_at: Tick,
    /// When power-on was last sent, and how often, since the body was last seen on and since the boot answer stands.
    pub on_sent_at: Tick,
    pub on_tries: u32,
    /// When what had come up here last fetched its script anew, without having been switched on.
    pub began_anew_at: Tick,
    /// When it, or somebody with its MAC, last asked for anything: what to boot, an address, a file.
    pub boot_asked_at: Option<Tick>,
    /// The longest that its firmware took from power-on to its first question, of the starts that this process saw.
    pub slowest_firmware: Option<Duration>,
    /// When a start was last told to it.
    pub told_at: Option<Tick>,
    /// When what ran here last began anew by itself: the last times of those.
    pub begun_anew: Vec<Tick>,
    /// What its script or its initrd said that failed, and when last.
    pub failed: Option<(Tick, String)>,
    /// What is up there said that its hello waits for, and when last.
    pub waits_for: Option<(Tick, String)>,
    /// It asked what to boot, and was told to wait, whatever for.
    pub was_parked: bool,
    /// It was parked then, although something is to run there: when, and why.
    pub parked: Option<(Tick, String)>,
    /// It asks what to boot again and again, and is told to wait, since nothing is to run there: from when, and when last.
    pub waits_parked: Option<(Tick, Tick)>,
    /// Since when the new body of its binding could take over, as far as is known: what is asked of that one after this decides.
    pub takeover_since: Option<Tick>,
    /// What the agent in it said last.
    pub heard: Heard,
    /// When power was last asked for and answered Off; and On, for the first time after that.
    pub last_off_at: Tick,
    pub came_on_at: Tick,
    off_asked: OffStreak,
}

/// That a system says again and again that it is up. No evidence: whether it runs is told by other things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// When last; when this process started, if not since.
    pub at: Tick,
    /// How much of the memory for what it writes over its root is taken, and of how much, in octets.
    pub written: u64,
    pub written_most: u64,
}

impl Heard {
    pub fn is_silent(&self, now: Tick) -> bool {
        now.since(self.at) > limits::AGENT_HEARD_WITHIN
    }

    /// 80 % and more.
    pub fn is_filling(&self) -> bool {
        self.written_most > 0 && self.written / 4 >= self.written_most / 5
    }
}

/// When power was asked for and answered Off, with nothing else between: the first time, and the later ones, of which not all are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OffStreak(Vec<Tick>);

/// Of a body that is polled every two seconds: half a minute.
const STREAK: usize = 16;

impl OffStreak {
    fn asked(&mut self, at: Tick) {
        if self.0.last().is_some_and(|last| at <= *last) {
            return;
        }
        // Asked quickly, the newest takes the place of the one before it: what is kept reaches back further than `SEEN_OFF_APART`, or each question would
        // push out the one that it was to follow.
        let before = self.0.len().checked_sub(2).and_then(|n| self.0.get(n));
        if before.is_some_and(|before| at.since(*before) < limits::FAST_POLL) {
            self.0.pop();
        }
        if self.0.len() == STREAK {
            // The first stays, so that a body that is off for long is known to be so.
            self.0.remove(1);
        }
        self.0.push(at);
    }
}

/// Whether a body is seen off: two questions after a moment, some time apart, and nothing but Off between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenOff {
    Yes,
    /// A question at this time would show it, if it is answered Off.
    AskAt(Tick),
}

impl Memory {
    /// A record is in force from `at` on: stored, and obeyed by the boot services. A time before that would let an older answer of a
    /// BMC end evidence too early.
    pub fn recorded(&mut self, record: &Record, at: Tick) {
        match record {
            Record::Answer(snapshot) | Record::Adopt(snapshot) => {
                self.answered_at.insert(snapshot.persona.clone(), at);
                // A power-on for another persona is not this one's.
                self.on_tries = 0;
            }
            Record::StandAgain(persona) => drop(self.answered_at.insert(persona.clone(), at)),
            Record::Withdraw(persona) => drop(self.withdrawn_at.insert(persona.clone(), at)),
            Record::End(persona) => {
                self.answered_at.remove(persona);
                self.withdrawn_at.remove(persona);
            }
            Record::Off(intent) => match intent.hard.tries {
                0 => self.soft_at = at,
                _ => self.hard_at = at,
            },
            // The command left at some time before its answer came.
            Record::OffSent { how: Off::Soft, sent } => {
                self.soft_at = at;
                if *sent == Sent::Accepted {
                    self.grace = Grace::begin(at);
                }
            }
            Record::OffSent { how: Off::Hard, .. } => self.hard_at = at,
            Record::PortBegun { id, .. } => drop(self.port_at.insert(id.clone(), at)),
            Record::PortEnded(id) | Record::PortForgotten(id) => drop(self.port_at.remove(id)),
            Record::OffDone => self.grace = Grace::default(),
            Record::OnSent => (self.on_sent_at, self.begun_anew, self.failed) = (at, Vec::new(), None),
            Record::Run { .. } => self.waits_parked = None,
            Record::Hello { .. } => self.failed = None,
            Record::Take { .. } => self.taken_at = at,
            // What stood there stands no longer from now on: no earlier Off ends it.
            Record::Declare(_) => {
                self.declared_at = at;
                self.on_since_declared = false;
                self.may_be_on();
            }
            Record::Anything => self.may_be_on(),
            _ => {}
        }
    }

    /// An operation is about to be sent.
    pub fn sent(&mut self, op: &Op, at: Tick) {
        if let Op::PowerOn { .. } = op {
            self.on_sent_at = at;
            self.on_tries = self.on_tries.saturating_add(1);
        }
    }

    /// An operation came back: whatever it was, it may have left until now.
    pub fn came_back(&mut self, op: &Op, at: Tick) {
        match op {
            Op::PowerOn { .. } => self.on_sent_at = at,
            Op::PowerOff { how: Off::Soft, .. } => self.soft_at = at,
            Op::PowerOff { how: Off::Hard, .. } => self.hard_at = at,
            Op::SetPort { switch, port, .. } => drop(self.port_at.insert(port_id(switch, port), at)),
            Op::SetBoot { .. } | Op::CreateVlan { .. } | Op::Save { .. } => {}
        }
    }

    pub fn saw_power(&mut self, seen: &Seen<Power>) {
        match seen.value {
            Power::Off => {
                self.waits_parked = None;
                self.off_asked.asked(seen.asked_at);
                self.last_off_at = self.last_off_at.max(seen.asked_at);
            }
            Power::On => {
                if self.last_off_at > self.on_asked_at && seen.asked_at > self.last_off_at {
                    self.came_on_at = seen.asked_at;
                }
                self.off_asked = OffStreak::default();
                self.on_since_declared = true;
                self.on_tries = 0;
                self.on_asked_at = self.on_asked_at.max(seen.asked_at);
            }
        }
    }

    /// A boot request, a hello, another BMC: it is not off, or nothing is known of it.
    pub fn may_be_on(&mut self) {
        self.off_asked = OffStreak::default();
    }

    /// What was found of the new body of its binding, if it has one: since when it could take over.
    pub fn saw_takeover(&mut self, takeover: Option<&Result<Ready, String>>, now: Tick) {
        self.takeover_since = match takeover {
            Some(Ok(_)) => self.takeover_since.or(Some(now)),
            Some(Err(_)) | None => None,
        };
    }

    /// What ran here asks what to boot, and nobody has switched it off and on.
    pub fn begins_anew(&mut self, at: Tick) {
        if self.begun_anew.len() == limits::ENDS_OFTEN {
            self.begun_anew.remove(0);
        }
        self.begun_anew.push(at);
    }

    pub fn asked_what_to_boot(&mut self, at: Tick) {
        let on_at = self.on_sent_at.max(self.came_on_at);
        let is_first = on_at > Tick::START && self.boot_asked_at.is_none_or(|before| before < on_at);
        // One that is later was not the firmware's: what asked first was not heard here.
        let took = Some(at.since(on_at)).filter(|took| is_first && *took <= limits::FIRMWARE_WITHIN);
        self.slowest_firmware = self.slowest_firmware.max(took);
        self.boot_asked_at = Some(at);
        self.may_be_on();
    }

    /// It asked, and was told to wait. `waits`: it is this machine, and runs nothing.
    pub fn was_parked(&mut self, waits: bool, at: Tick) {
        let since = self.waits_parked.filter(|(_, last)| at.since(*last) <= limits::PARKED_ASKS_WITHIN).map_or(at, |(since, _)| since);
        self.waits_parked = waits.then_some((since, at));
        self.was_parked = true;
        self.asked_what_to_boot(at);
    }

    /// Since when it is answered Off.
    pub fn off_since(&self) -> Option<Tick> {
        self.off_asked.0.first().copied()
    }

    /// The first question after this moment that was answered Off.
    pub fn off_after(&self, moment: Tick) -> Option<Tick> {
        self.off_asked.0.iter().copied().find(|at| *at > moment)
    }

    /// The boot device was set by a question asked at `at`, and then read as `echo`.
    pub fn boot_was_set(&mut self, echo: Option<BootOverride>, at: Tick) {
        self.boot_set_at = Some(at);
        self.boot_echo = echo;
        self.boot_refused = None;
    }
}

impl Observed {
    /// Whether the body is seen off since `moment`: by two answers to questions asked after it, ten seconds apart, nothing but Off between,
    /// and not within the minute after a power-on of which nothing is known.
    pub fn seen_off(&self, moment: Tick) -> SeenOff {
        let on = if self.body.on_sent { self.memory.on_sent_at.plus(limits::OFF_AFTER_ON) } else { Tick::START };
        let moment = moment.max(on);
        match (self.memory.off_after(moment), self.memory.off_asked.0.last()) {
            (Some(first), Some(last)) if last.since(first) >= limits::SEEN_OFF_APART => SeenOff::Yes,
            (Some(first), _) => SeenOff::AskAt(first.plus(limits::SEEN_OFF_APART)),
            (None, _) => SeenOff::AskAt(moment),
        }
    }

    /// As if the BMC, or the switches, were asked at these moments, and answered as it is now.
    pub fn asked_again(&self, what: Asked, at: &[Tick]) -> Observed {
        let mut seen = self.clone();
        for asked_at in at.iter().copied() {
            if what == Asked::Switches {
                seen.ports.values_mut().for_each(|port| port.asked_at = asked_at);
                continue;
            }
            if let Some(power) = &mut seen.power {
                power.asked_at = asked_at;
                seen.memory.saw_power(power);
            }
            seen.boot.iter_mut().for_each(|boot| boot.asked_at = asked_at);
        }
        seen
    }

    /// What another body is told of this one.
    pub fn there(&self) -> There {
        There {
            asked_at: self.power.as_ref().map(|p| p.asked_at),
            answers: self.power.is_some() && self.bmc_trouble.is_none(),
            bound: self.body.held_by.is_some() || self.body.release.is_some(),
            runs_by_mistake: self.body.runs_by_mistake(),
            found_running: self.body.found_evidence().next().is_some(),
        }
    }

    /// It is on and runs nothing: its firmware has asked more than once what to boot, lately too, and was told to wait each time.
    pub fn waits_parked(&self) -> bool {
        self.parked_lately().is_some_and(|(since, last)| since < last)
    }

    /// It is on, and has asked what to boot and was told to wait: from when, and when last. Once says nothing yet.
    pub fn parked_lately(&self) -> Option<(Tick, Tick)> {
        let power = self.power.as_ref().filter(|power| power.value == Power::On)?;
        let lately = |last: Tick| last.plus(limits::PARKED_ASKS_WITHIN) >= power.asked_at;
        self.memory.waits_parked.filter(|(_, last)| *last > self.memory.came_on_at && lately(*last))
    }

    pub fn is(&self, power: Power) -> bool {
        self.power.as_ref().is_some_and(|p| p.value == power)
    }

    /// The approval in force for what this binding is to do now.
    pub fn approval(&self, authority: &Authority) -> Option<&Approval> {
        self.approvals.get(&authority.binding).filter(|approval| approval.is_for(authority))
    }

    /// What allows a hard off here without an accepted soft-off.
    pub fn hard_word(&self, authority: &Authority, server: &Name) -> HardWithoutSoft {
        // One switching-off was shown: the next one is asked for again.
        let off = Op::PowerOff { server: server.clone(), how: Off::Hard };
        let said = self.approval(authority).is_some_and(|a| a.hard && (self.as_if_approved || a.covers(&off)));
        match (said, self.hard_off_without_soft) {
            (true, _) => HardWithoutSoft::Now,
            (false, true) => HardWithoutSoft::WhereSoftFails,
            (false, false) => HardWithoutSoft::No,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortObserved {
    pub config: PortConfig,
    pub asked_at: Tick,
    /// Why it is never written: cable contradicted, member of an aggregation, not managed, cannot be told.
    pub refuse: Option<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwitchObserved {
    pub vlans: BTreeSet<Vlan>,
    /// The manifest says `vlans: Create` and the profile can.
    pub creates_vlans: bool,
    pub protected: BTreeSet<Vlan>,
    /// Why no tagged VLAN can be written to it.
    pub tagged_refused: Option<String>,
    /// Why nothing may be written to it: silent, read-only, maintenance, another identity.
    pub trouble: Option<Trouble>,
}

/// Who else has what a persona claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// By evidence it may be in use on this body.
    Evidence { server: Name, persona: Name, claim: String, there: There },
    /// The record of this body does not read.
    Unreadable { server: Name, there: There },
    /// The disk of this body, which is on without an answer of ours or may be, holds the persona.
    Disk { server: Name, there: There },
    /// Another binding has reserved it.
    Reserved { binding: Name, claim: String },
}

/// What is known of the other body, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// When its power was last asked for and answered.
    pub asked_at: Option<Tick>,
    /// Its BMC answers, as the machine that is remembered.
    pub answers: bool,
    /// A binding holds it, or is to release it.
    pub bound: bool,
    /// It was declared off, and is on all the same.
    pub runs_by_mistake: bool,
    /// It was found running when it was bound, and nobody has said what it runs.
    pub found_running: bool,
}

impl Elsewhere {
    pub fn server(&self) -> Option<&Name> {
        match self {
            Elsewhere::Evidence { server, .. } | Elsewhere::Unreadable { server, .. } | Elsewhere::Disk { server, .. } => Some(server),
            Elsewhere::Reserved { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However quickly it is asked, what is kept reaches back far enough.
    #[test]
    fn a_body_that_is_asked_again_and_again_is_seen_off() {
        for apart in [10, 250, 300, 2_000, 20_000] {
            let mut seen = Observed::default();
            let at = |n: u64| Tick(100_000_000 + n * apart * 1_000);
            let since = at(40);
            let asked = (0..4_000).find(|n| {
                seen.memory.saw_power(&Seen { value: Power::Off, asked_at: at(*n) });
                *n > 40 && seen.seen_off(since) == SeenOff::Yes
            });
            let took = asked.map(|n| at(n).since(since)).unwrap_or_else(|| panic!("every {apart} ms: never"));
            let least = limits::SEEN_OFF_APART;
            assert!(
                took >= least && took <= least + 2 * limits::FAST_POLL + 2 * Duration::from_millis(apart),
                "every {apart} ms: {took:?}"
            );
        }
    }
}
