//! What was switched on comes up: its boot script is fetched in this start, and what is to say hello says it; or it is begun anew, as often as its
//! binding says.
//!
//! Leaves out: stages, which are for people (`control::timeline`). Invariant: what came up stays so over a restart of the controller: it is in the
//! body's record. Shown by `tests/boots.rs`.

use std::time::Duration;

use super::Plan;
use super::desired::{Desired, Holder};
use super::fence;
use super::observed::Observed;
use super::power::seconds;
use super::record::Record;
use crate::limits;
use crate::model::Reason;
use crate::model::binding::RunState;
use crate::model::body::{Evidence, Outdated, Phase};
use crate::model::fact::{Power, Tick};
use crate::model::op::{Device, Op};

/// As far as is waited for: where machines boot over its network, its script was fetched in this start; where something in it says hello, it has.
/// What was started with other content than the manifests' is not waited for where that content fetches nothing, or has no token to say hello with.
pub(crate) fn came_up(holder: &Holder, evidence: &Evidence) -> bool {
    let (was, run) = (&evidence.snapshot, evidence.run.as_ref());
    let is_of_now = was.digest == holder.snapshot.digest;
    let fetches = holder.fetches && was.root.disk.is_none();
    let says_hello = holder.says_hello && (is_of_now || was.kernel.is_some() || was.root.image.is_some());
    (!fetches || run.is_some()) && (!says_hello || run.is_some_and(|run| run.hello.is_some()))
}

/// Since when it starts, as far as this process knows: since it is on, or since it began anew by itself after it had come up.
pub(crate) fn starts_since(seen: &Observed) -> Tick {
    let memory = &seen.memory;
    memory.on_sent_at.max(memory.came_on_at).max(memory.began_anew_at)
}

/// What stands here was started, and has not come up.
fn not_up<'a>(holder: &Holder, seen: &'a Observed) -> Option<&'a Evidence> {
    let evidence = seen.body.evidence.get(&holder.persona).filter(|e| e.stands() && e.phase == Phase::Started)?;
    let waits = holder.state == RunState::Running && seen.is(Power::On) && seen.memory.parked.is_none();
    (waits && !came_up(holder, evidence)).then_some(evidence)
}

/// Its time is over, by an answer of its BMC that it is on still, and its binding says that it is begun anew so often: which time that is.
pub(crate) fn retry(holder: &Holder, seen: &Observed) -> Option<String> {
    let evidence = not_up(holder, seen)?;
    // Nobody saw it start, and embody did not start it: it was adopted, and runs.
    if seen.body.starts == 0 && evidence.run.is_none() && starts_since(seen) == Tick::START {
        return None;
    }
    let asked_at = seen.power.as_ref()?.asked_at;
    // What was up before may say yet that it is so still, and that somebody else asked.
    let before = evidence.run.as_ref().and_then(|run| run.before.as_ref());
    if before.is_some() && asked_at.since(seen.memory.heard.at) < limits::AGENT_GONE_AFTER {
        return None;
    }
    let deadline = holder.boot.deadline.0;
    let late = asked_at.since(starts_since(seen)) > deadline;
    let starts = seen.body.starts.max(1);
    (late && starts <= holder.boot.retries)
        .then(|| format!("it has not come up within {}: retry {starts} of {}", seconds(deadline), holder.boot.retries))
}

/// What `boot.retries` counts, and what ends a switching-off that was begun: nothing else changes the server, however often.
pub(crate) fn begins_anew(holder: &Holder, seen: &Observed, op: &Op) -> bool {
    match op {
        Op::PowerOff { .. } => retry(holder, seen).is_some() || seen.body.off.as_ref().is_some_and(|off| off.soft.tries > 0),
        Op::PowerOn { .. } | Op::SetBoot { .. } => seen.is(Power::Off) && (1..=holder.boot.retries).contains(&seen.body.starts),
        Op::SetPort { .. } | Op::CreateVlan { .. } | Op::Save { .. } => false,
    }
}

/// What it took to come up says nothing of the next start.
pub(crate) fn records(want: &Desired, seen: &Observed) -> Option<Record> {
    let holder = want.holder.as_ref().filter(|holder| holder.fetches || holder.says_hello)?;
    let evidence = seen.body.evidence.get(&holder.persona).filter(|e| e.stands() && e.phase == Phase::Started)?;
    (seen.body.starts > 0 && seen.is(Power::On) && came_up(holder, evidence)).then_some(Record::CameUp)
}

/// It boots something else than what is bound.
pub(crate) fn once(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let Some((holder, once)) = want.holder.as_ref().and_then(|holder| Some((holder, holder.once.as_ref()?))) else { return };
    let (server, binding) = (&want.server, &holder.authority.binding);
    let then =
        format!("what binding {binding} names follows when it was seen off after that, or at the word `embody boot {server} --cancel`");
    if fence::once_waits(holder, seen) {
        fence::is_clear(holder, seen, now, plan);
        if let Some(why) = fence::no_ports_after(holder, seen) {
            plan.wait(Reason::PortsFirst, format!("what runs on server {server} goes on, since nothing could start after it: {why}"));
        }
    }
    plan.wait(
        Reason::BootsOnce,
        format!("server {server} boots {} once, as {} said at {}: {then}", once.boots.in_words(), once.by, once.at),
    );
}

/// What it boots says that it fails, or ends again and again: nobody else would tell, where nothing in it says hello.
fn fails(holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    let is_started = seen.body.evidence.get(&holder.persona).is_some_and(|e| e.stands() && e.phase == Phase::Started);
    if !is_started || holder.state != RunState::Running || !seen.is(Power::On) {
        return;
    }
    let (server, memory) = (&holder.server, &seen.memory);
    if let Some((at, what)) = memory.failed.as_ref().filter(|(at, _)| now.since(*at) < limits::FAILED_FOR) {
        plan.problem(Reason::StartFails, format!("server {server}: {what}{}", of_before(holder, seen)));
        plan.wake(at.plus(limits::FAILED_FOR));
    }
    let first = memory.begun_anew.first().filter(|_| memory.begun_anew.len() == limits::ENDS_OFTEN);
    if let Some(first) = first.filter(|first| now.since(**first) < limits::ENDS_WITHIN) {
        let (times, minutes) = (limits::ENDS_OFTEN, seconds(limits::ENDS_WITHIN));
        let what = format!("has begun persona {} anew {times} times within {minutes}, by itself", holder.persona);
        plan.problem(Reason::EndsAgain, format!("server {server} {what}: what it boots ends, see its console"));
        plan.wake(first.plus(limits::ENDS_WITHIN));
    }
}

/// What fails may be mended in the manifests already: the word that takes it over.
fn of_before(holder: &Holder, seen: &Observed) -> String {
    let is_old = seen.body.evidence.get(&holder.persona).is_some_and(|e| e.snapshot.outdated(&holder.snapshot) != Outdated::No);
    let way =
        format!("; it boots what it was started with: `embody restart {}` takes over what the manifests say now", holder.authority.binding);
    if is_old && !holder.rolls { way } else { String::new() }
}

/// How long its firmware may take to ask for something: twice as long as it ever did, where that was seen.
fn firmware_within(seen: &Observed) -> Duration {
    let of_its_own = seen.memory.slowest_firmware.map(|slowest| (slowest * 2).max(limits::FIRMWARE_AT_LEAST));
    of_its_own.unwrap_or(limits::FIRMWARE_WITHIN)
}

/// Whether an agent of ours is up in what was started, so that it says so again and again.
pub(crate) fn has_agent(holder: &Holder, seen: &Observed) -> bool {
    let evidence = seen.body.evidence.get(&holder.persona).filter(|e| e.stands() && e.phase == Phase::Started);
    evidence.and_then(|e| e.run.as_ref()).is_some_and(|run| run.secret.is_some() && run.hello.is_some()) && seen.is(Power::On)
}

pub(crate) fn plan(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let Some(holder) = want.holder.as_ref().filter(|_| want.past.is_none()) else { return };
    if has_agent(holder, seen) && !seen.memory.heard.is_silent(now) {
        plan.wake(seen.memory.heard.at.plus(limits::AGENT_HEARD_WITHIN + Duration::from_secs(1)));
    }
    fails(holder, seen, now, plan);
    let Some(evidence) = not_up(holder, seen).filter(|_| seen.body.off.is_none()) else { return };
    let (server, persona) = (&want.server, &holder.persona);
    let since = starts_since(seen);
    let asked = seen.memory.boot_asked_at.filter(|at| *at >= since);
    let deadline = holder.boot.deadline.0;
    let firmware = firmware_within(seen).min(deadline);
    let waits_for = seen.memory.waits_for.as_ref().filter(|(at, _)| *at >= since && now.since(*at) < limits::AGENT_HEARD_WITHIN);
    let (by, reason) = if evidence.run.is_some() { (deadline, Reason::NoHello) } else { (firmware, Reason::NoBootRequest) };
    let until = since.plus(by);
    let yet = if now < until { " yet" } else { "" };
    let what = match (&evidence.run, asked, waits_for) {
        (Some(_), _, Some((_, what))) => format!("has fetched the script of persona {persona}, is up, and is not ready{yet}: {what}"),
        (Some(_), _, None) => format!("has fetched the script of persona {persona}, and nothing in it has said hello{yet}"),
        (None, Some(_), _) => format!("has asked for an address, and has fetched no boot script{yet}"),
        (None, None, _) => format!("has not asked for an address or what to boot{yet}"),
    };
    let age = seconds(now.since(since));
    if now < until {
        plan.wait(Reason::Starting, format!("server {server} was started {age} ago, and {what}"));
        plan.wake(until);
        return;
    }
    let look = match waits_for {
        Some(_) => "see that system, and `embody why server",
        None => "see its console, its boot order, the network of its boot NIC, and `embody why server",
    };
    let bond = holder.boot_bond.as_ref().filter(|_| reason == Reason::NoBootRequest).map(|bond| {
        format!("; its boot NIC is a member of {bond}: firmware speaks no LACP, so the aggregation needs its fallback to single ports")
    });
    let bond = bond.unwrap_or_default();
    plan.problem(reason, format!("server {server} was started {age} ago, and {what}: {look}/{server}`{bond}{}", of_before(holder, seen)));
    // Then it is begun anew, by a question that is asked after its time.
    let retries = seen.body.starts.max(1) <= holder.boot.retries;
    if retries && now < since.plus(deadline) {
        plan.wake(since.plus(deadline));
    } else if retries {
        plan.polls.push(Device::Bmc(server.clone()));
    }
}
