//! Desired and observed in, the next steps out. Pure: no I/O, no clock, no log, no failure.
//!
//! `plan` is about one server. It returns bookkeeping first (`records`: what the facts prove), and steps only when there is none left
//! to do: the caller stores the records and plans again. Steps are the ones whose preconditions are *seen*; the next wave comes with the
//! next observation. No list of steps is ever stored.
//!
//! Where to begin: `evidence` (what facts prove), `fence` (why a body must be off, when a persona may start, when a move may begin), `off` (what
//! is sent next to switch a body off), `power`, `network`, `consent` (modes, who must approve), `approval` (what was approved), `budget` and `guardrails` (across servers), `rollout` (one body runs another
//! revision) and `rollouts` (whose turn it is), `save` (switches), `forecast` (the whole future). Shown by `tests/plan.rs`.

pub(crate) mod approval;
pub(crate) mod budget;
pub(crate) mod consent;
pub(crate) mod desired;
pub(crate) mod evidence;
pub(crate) mod fence;
pub(crate) mod forecast;
pub(crate) mod guardrails;
mod links;
pub(crate) mod network;
pub(crate) mod observed;
pub(crate) mod off;
pub(crate) mod power;
pub(crate) mod record;
pub(crate) mod resolve;
pub(crate) mod rollout;
pub(crate) mod rollouts;
pub(crate) mod save;
pub(crate) mod starting;
pub(crate) mod wanted;

use std::panic::Location;

use crate::limits;

use crate::model::binding::Plane;
use crate::model::body::{Declaration, Found};
use crate::model::fact::Power;
use crate::model::fact::Tick;
use crate::model::op::{Device, Op};
use crate::model::{Name, Reason};
use desired::Desired;
use observed::{Observed, SeenOff};
use record::Record;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// To be stored, in this order; then plan again. When there are any, there are no steps.
    pub records: Vec<Record>,
    /// May start now, side by side on different devices, in order on one.
    pub steps: Vec<Step>,
    /// Would start now, if a person or a mode allowed it.
    pub held: Vec<Step>,
    pub waits: Vec<Wait>,
    pub problems: Vec<Problem>,
    /// Fresher evidence is needed of these before anything can go on.
    pub polls: Vec<Device>,
    /// When the plan may change by time alone.
    pub wake_at: Option<Tick>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub op: Op,
    /// In whose name.
    pub binding: Name,
    pub plane: Plane,
    pub because: String,
    /// Stored together before the operation is sent, or it is not sent.
    pub write_ahead: Vec<Record>,
    /// It ends what was begun: of what stops other steps, only a person's pause and the store stop it.
    pub debt: bool,
}

/// Why something does not happen yet; it needs no person, or (`ApprovalNeeded`, `Observing`, `Paused`) a word of one.
#[derive(Debug, Clone)]
pub struct Wait {
    pub reason: Reason,
    pub message: String,
    pub decided_at: &'static Location<'static>,
}

impl PartialEq for Wait {
    fn eq(&self, other: &Wait) -> bool {
        (self.reason, &self.message) == (other.reason, &other.message)
    }
}

/// Something that does not heal by waiting.
#[derive(Debug, Clone)]
pub struct Problem {
    pub reason: Reason,
    pub message: String,
    pub decided_at: &'static Location<'static>,
}

impl PartialEq for Problem {
    fn eq(&self, other: &Problem) -> bool {
        (self.reason, &self.message) == (other.reason, &other.message)
    }
}
impl Eq for Problem {}

impl Problem {
    #[track_caller]
    pub fn new(reason: Reason, message: impl Into<String>) -> Problem {
        Problem { reason, message: message.into(), decided_at: Location::caller() }
    }
}

impl Wait {
    #[track_caller]
    pub fn new(reason: Reason, message: impl Into<String>) -> Wait {
        Wait { reason, message: message.into(), decided_at: Location::caller() }
    }
}

impl Plan {
    #[track_caller]
    pub fn wait(&mut self, reason: Reason, message: impl Into<String>) {
        self.waits.push(Wait::new(reason, message));
    }

    #[track_caller]
    pub fn problem(&mut self, reason: Reason, message: impl Into<String>) {
        self.problems.push(Problem::new(reason, message));
    }

    pub fn wake(&mut self, at: Tick) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }

    /// Whether it does and says the same as another plan, ages aside.
    pub fn does_the_same(&self, other: &Plan) -> bool {
        let ops = |steps: &[Step]| steps.iter().map(|s| s.op.clone()).collect::<Vec<Op>>();
        let reasons =
            |plan: &Plan| plan.waits.iter().map(|w| w.reason).chain(plan.problems.iter().map(|p| p.reason)).collect::<Vec<Reason>>();
        self.records == other.records
            && ops(&self.steps) == ops(&other.steps)
            && ops(&self.held) == ops(&other.held)
            && reasons(self) == reasons(other)
            && self.polls == other.polls
    }

    /// Nothing is done, nothing is waited for, nothing is wrong.
    pub fn is_converged(&self) -> bool {
        self.records.is_empty() && self.steps.is_empty() && self.held.is_empty() && self.waits.is_empty() && self.problems.is_empty()
    }
}

/// The next wave for one server.
pub fn plan(want: &Desired, seen: &Observed, now: Tick) -> Plan {
    let leaves = want.past.is_some() && seen.body.held_by.is_some();
    match leaves || (seen.body.release.is_some() && want.names_nothing().is_some()) {
        // Whoever comes next has no say before the one that leaves has let go.
        true => next_wave(&Desired { holder: None, ..want.clone() }, seen, now),
        false => next_wave(want, seen, now),
    }
}

fn next_wave(want: &Desired, seen: &Observed, now: Tick) -> Plan {
    if seen.unreadable || seen.body.anything {
        return unreadable(want, seen, now);
    }
    if let Some(problem) = want.unresolved(&seen.body) {
        return unresolved(problem, seen);
    }
    let mut plan = Plan { records: evidence::records(want, seen), ..Plan::default() };
    if !plan.records.is_empty() {
        return plan;
    }
    if let Some(reason) = &want.maintenance {
        if want.holder.is_some() || seen.body.release.is_some() {
            plan.wait(Reason::Maintenance, format!("server {} is in maintenance: {reason}", want.server));
        }
        for port in network::left_half_way(seen) {
            plan.problem(
                Reason::Maintenance,
                format!("{port} was left between two states; server {} is in maintenance: {reason}", want.server),
            );
        }
        return plan;
    }
    if let Some(holder) = &want.holder {
        plan.problems.extend(holder.problems.iter().cloned());
    }
    if want.holder.is_some() || want.releaser.is_some() {
        plan.problems.extend(want.port_problems.iter().cloned());
    }
    if let Some(declared) = seen.body.declared.as_ref().filter(|d| d.what == Declaration::OffButRuns) {
        let what = format!("server {} was declared off by {} ({}), and is on all the same", want.server, declared.by, declared.reason);
        plan.problem(Reason::DeclaredOffButRuns, what);
    }
    power::parked(want, seen, now, &mut plan);
    starting::once(want, seen, now, &mut plan);
    starting::plan(want, seen, now, &mut plan);
    match (&want.past, &seen.takeover) {
        (Some(desired::Past::Moved), Some(Err(why))) => {
            plan.wait(Reason::TakeoverNotPossible, format!("its binding has moved, but the new body cannot take over yet: {why}"));
        }
        (Some(desired::Past::Moved), Some(Ok(ready))) => {
            ask_first(ready, "it is touched", now, &mut plan);
            return plan;
        }
        (Some(desired::Past::Moved | desired::Past::Deleted) | None, Some(_) | None) => {}
    }
    let ours = seen.body.held_by.is_some() || seen.body.release.is_some();
    // One answer Off says nothing yet of a body that was found running.
    if ours && (seen.body.found == Found::Unknown || (matches!(seen.body.found, Found::Running | Found::Adopted) && seen.is(Power::Off))) {
        power::find(want, seen, now, &mut plan);
        if seen.body.declared.is_some() {
            network::plan(want, seen, &mut plan);
        }
        return plan;
    }
    power::plan(want, seen, now, &mut plan);
    if plan.records.is_empty() {
        network::plan(want, seen, &mut plan);
        power::start(want, seen, now, &mut plan);
    }
    if !plan.records.is_empty() {
        plan.steps.clear();
        plan.held.clear();
    }
    // What was begun is ended first.
    plan.steps.sort_by_key(|step| !step.debt);
    plan
}

/// What is there stays as it is, and so does what is known of it.
fn unresolved(problem: &Problem, seen: &Observed) -> Plan {
    let mut plan = Plan::default();
    plan.problems.push(problem.clone());
    for port in network::left_half_way(seen) {
        plan.problem(problem.reason, format!("{port} was left between two states; {}", problem.message));
    }
    plan
}

/// Those that a new body needs are asked once more before something is done to the old one.
pub(super) fn ask_first(ready: &observed::Ready, before: &str, now: Tick, plan: &mut Plan) {
    plan.wait(Reason::AskingAgain, format!("what the new body needs is looked at once more before {before}"));
    plan.polls.extend(ready.devices.iter().cloned());
    plan.wake(now.plus(limits::FAST_POLL));
}

/// A record that does not read: the body may run anything until it is seen off, or a person says otherwise.
fn unreadable(want: &Desired, seen: &Observed, now: Tick) -> Plan {
    let mut plan = Plan::default();
    plan.problem(
        Reason::EvidenceUnreadable,
        format!(
            "{}, so it may run anything; switch it off, or say what is so: {}",
            match seen.unreadable {
                true => format!("what is stored of server {} does not read", want.server),
                false => format!("nothing is known of what server {} runs", want.server),
            },
            fence::foreign(&want.server)
        ),
    );
    match seen.seen_off(Tick::START) {
        SeenOff::Yes if seen.is(Power::Off) => plan.records.push(Record::Renew),
        SeenOff::AskAt(at) if seen.is(Power::Off) && at > now => plan.wake(at),
        SeenOff::AskAt(_) if seen.is(Power::Off) => plan.polls.push(Device::Bmc(want.server.clone())),
        SeenOff::Yes | SeenOff::AskAt(_) => {}
    }
    plan
}
