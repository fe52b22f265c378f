//! The power and boot facets: one stored intent for every switching-off; on only after everything else is seen ready.

use std::time::Duration;

use super::desired::{Desired, Holder};
use super::fence::{self, WhyOff};
use super::observed::Observed;
use super::record::Record;
use super::{Plan, Step, consent, network};
use crate::limits;
use crate::model::Name;
use crate::model::binding::{Plane, RunState};
use crate::model::body::{OffIntent, Phase};
use crate::model::fact::{BootDevice, Power, Tick};
use crate::model::op::{Device, Off, Op};

/// Reasons of waits for what was sent already.
pub const SWITCHING_OFF: &str = "SwitchingOff";
pub const SWITCHING_ON: &str = "SwitchingOn";

/// The way to off, when the body must be off.
pub fn plan(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let Some(why) = fence::why_off(want, seen) else { return };
    let (hard, attempt) = next_attempt(&why, seen);
    let how = if hard { Off::Hard } else { Off::Soft };
    let op = Op::PowerOff { server: want.server.clone(), how };
    let intent = OffIntent { attempt, hard, because: why.because.clone() };
    let step = Step {
        op,
        binding: why.authority.binding.clone(),
        plane: Plane::Power,
        because: why.because.clone(),
        write_ahead: Some(Record::Off(intent)),
    };
    let refusal = consent::refusal(why.authority, Plane::Power, &step.op, seen);
    if refusal.is_none() && !why.withdraw.is_empty() {
        plan.records.extend(why.withdraw.iter().cloned().map(Record::Withdraw));
        return;
    }
    let Some(power) = &seen.power else { return unknown(want, seen, plan) };
    match power.value {
        Power::Off => match refusal {
            None => ask_again(want, plan, "was seen off before its boot answer was withdrawn"),
            Some((reason, message)) => plan.wait(reason, message),
        },
        Power::On if in_time(&want.server, seen, &why, now, plan) && obeys(seen, plan) => {
            if let Some(trouble) = &seen.bmc_trouble {
                plan.wait(trouble.reason, trouble.message.clone());
            } else {
                consent::admit(why.authority, step, seen, plan);
            }
        }
        Power::On => {}
    }
}

/// What is known is older than what it is to show.
pub fn ask_again(want: &Desired, plan: &mut Plan, why: &str) {
    plan.wait("AskingAgain", format!("server {} {why}; it is asked again", want.server));
    plan.looks.push(Device::Bmc(want.server.clone()));
}

pub fn unknown(want: &Desired, seen: &Observed, plan: &mut Plan) {
    match &seen.bmc_trouble {
        Some(trouble) => plan.wait(trouble.reason, trouble.message.clone()),
        None => plan.wait("PowerUnknown", format!("the power of server {} is not known yet", want.server)),
    }
    plan.looks.push(Device::Bmc(want.server.clone()));
}

/// Soft first; hard when the grace is over, and at once where there is none.
fn next_attempt(why: &WhyOff<'_>, seen: &Observed) -> (bool, u32) {
    match &seen.body.off {
        None => (why.authority.grace.is_zero(), 1),
        Some(intent) => (true, intent.attempt + 1),
    }
}

/// Whether another attempt may be sent: there was none yet, or power was read On by a question asked after its deadline.
fn in_time(server: &Name, seen: &Observed, why: &WhyOff<'_>, now: Tick, plan: &mut Plan) -> bool {
    let Some(intent) = &seen.body.off else { return true };
    let deadline = seen.memory.attempt_at.plus(if intent.hard { limits::HARD_OFF_WAIT } else { why.authority.grace });
    if seen.power.as_ref().is_some_and(|p| p.asked_at > deadline) {
        return true;
    }
    let what = if intent.hard { "power off" } else { "soft-off" };
    let then = if now >= deadline { "it is asked again now".to_owned() } else { format!("hard off in {}", seconds(deadline.since(now))) };
    plan.wait(SWITCHING_OFF, format!("{what} was sent {} ago ({}); {then}", seconds(now.since(seen.memory.attempt_at)), intent.because));
    at(deadline, server, now, plan);
    false
}

/// When the deadline is over, a question asked after it decides.
fn at(deadline: Tick, server: &Name, now: Tick, plan: &mut Plan) {
    if now > deadline {
        plan.looks.push(Device::Bmc(server.clone()));
    } else {
        plan.wake(deadline);
    }
}

fn obeys(seen: &Observed, plan: &mut Plan) -> bool {
    let tries = seen.body.off.as_ref().map_or(0, |i| i.attempt);
    if tries >= limits::OFF_ATTEMPTS {
        plan.problem(
            "DoesNotSwitchOff",
            format!("the server is still on after {tries} attempts to switch it off; switch it off by hand, or `embody retry`"),
        );
        return false;
    }
    true
}

/// The way to on, when the body is ours and off; and the boot device of one that runs.
pub fn start(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let Some(holder) = want.holder.as_ref().filter(|h| h.problems.is_empty() && h.state == RunState::Running) else { return };
    if fence::why_off(want, seen).is_some() || seen.body.release.is_some() || seen.body.held_by.is_none() {
        return;
    }
    let Some(power) = &seen.power else { return unknown(want, seen, plan) };
    match (seen.body.may_run.get(&holder.persona), power.value) {
        (None, Power::Off) => answer(want, holder, seen, now, plan),
        (Some(Phase::Answered), Power::Off | Power::On) | (Some(Phase::Started), Power::Off) => {
            ask_again(want, plan, "was last seen before its boot answer stood");
        }
        (Some(Phase::Armed), Power::Off) => switch_on(want, holder, seen, now, plan),
        (Some(Phase::Started), Power::On) => boot_device_of_running(want, holder, seen, plan),
        // The ledger or `fence::why_off` has spoken already.
        (None | Some(Phase::Armed | Phase::Withdrawn), Power::On) | (Some(Phase::Withdrawn), Power::Off) => {}
    }
}

/// The boot answer: the claim of the persona on this body. Everything that may start it follows from here.
fn answer(want: &Desired, holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    let like = Op::SetBoot { server: want.server.clone(), device: holder.boot, efi: holder.efi };
    if let Some((reason, message)) = consent::refusal(&holder.authority, Plane::Boot, &like, seen) {
        plan.wait(reason, message);
        return;
    }
    if fence::is_clear(holder, seen, now, plan) {
        plan.records.push(Record::Answer(holder.persona.clone()));
    }
}

fn switch_on(want: &Desired, holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    let server = &want.server;
    let step = |op, plane, because: &str| Step {
        op,
        binding: holder.authority.binding.clone(),
        plane,
        because: because.to_owned(),
        write_ahead: None,
    };
    if let Some(trouble) = &seen.bmc_trouble {
        plan.wait(trouble.reason, trouble.message.clone());
        return;
    }
    let set = Op::SetBoot { server: server.clone(), device: holder.boot, efi: holder.efi };
    // Since it went off, and since it is this persona that it is set for.
    let answered_at = seen.memory.answered_at.get(&holder.persona).copied().unwrap_or(Tick::START);
    let since = answered_at.max(seen.memory.off_seen_at.unwrap_or(Tick::START));
    let boot_ready = seen.memory.boot_set_at.is_some_and(|at| at > since);
    let watched_only = holder.authority.mode(Plane::Boot) == crate::model::binding::Mode::Observe;
    if !boot_ready && !watched_only {
        consent::admit(&holder.authority, step(set, Plane::Boot, "before every start"), seen, plan);
        return;
    }
    if !want.port_problems.is_empty() || !network::ready(&holder.ports, seen) {
        plan.wait("PortsFirst", format!("server {server} is switched on once its switch ports are read back as desired"));
        return;
    }
    if on_in_time(server, seen, now, plan) {
        let because = format!("persona {} is to run here", holder.persona);
        consent::admit(&holder.authority, step(Op::PowerOn { server: server.clone() }, Plane::Power, &because), seen, plan);
    }
}

/// Whether power-on may be sent now: not while the last one has its time, and not for ever.
fn on_in_time(server: &Name, seen: &Observed, now: Tick, plan: &mut Plan) -> bool {
    let Some(sent) = seen.memory.on_sent_at else { return true };
    let deadline = sent.plus(limits::ON_WAIT);
    let off_since = seen.power.as_ref().is_some_and(|p| p.asked_at > deadline);
    if seen.memory.on_tries >= limits::ON_ATTEMPTS && off_since {
        plan.problem(
            "DoesNotSwitchOn",
            format!(
                "server {server} is still off after {} attempts to switch it on; look at it, then `embody retry`",
                seen.memory.on_tries
            ),
        );
        return false;
    }
    if !off_since {
        plan.wait(SWITCHING_ON, format!("power-on was sent to server {server} {} ago", seconds(now.since(sent))));
        at(deadline, server, now, plan);
    }
    off_since
}

/// Another boot device than ours on a running body is drift. None at all is not, unless the BMC is known to keep what we set; nor is any,
/// where the BMC showed another one right after ours was set: it would be set for ever. Before the next start it is set again anyway.
fn boot_device_of_running(want: &Desired, holder: &Holder, seen: &Observed, plan: &mut Plan) {
    let Some(boot) = &seen.boot else { return };
    let keeps = seen.memory.boot_echo.is_some_and(|e| e.persistent && e.device == holder.boot);
    let in_vain = seen.memory.boot_echo.is_some_and(|e| e.device != holder.boot);
    let drifted = match boot.value.device {
        BootDevice::None => keeps,
        device => device != holder.boot && !in_vain,
    };
    if drifted && seen.bmc_trouble.is_none() {
        let step = Step {
            op: Op::SetBoot { server: want.server.clone(), device: holder.boot, efi: holder.efi },
            binding: holder.authority.binding.clone(),
            plane: Plane::Boot,
            because: format!("the boot device is {}, not {}", boot.value.device, holder.boot),
            write_ahead: None,
        };
        consent::admit(&holder.authority, step, seen, plan);
    }
}

/// `42s`, `3m`, `2h`: ages in messages.
pub fn seconds(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s => format!("{}h", s / 3600),
    }
}
