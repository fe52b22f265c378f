//! The power and boot facets: the way to off through one stored intent, and the way to on once everything else is seen ready.
//!
//! Leaves out: what is sent next for an off (`off`), and why a body must be off (`fence`).

use std::time::Duration;

use super::desired::{Authority, Desired, Holder};
use super::fence::{self, WhyOff};
use super::observed::{Observed, SeenOff};
use super::off::{self, HardWithoutSoft, Next, Terms};
use super::record::Record;
use super::{Plan, Step, Wait, consent, network, rollout};
use crate::limits;
use crate::model::binding::{Mode, Plane, RunState};
use crate::model::body::{Evidence, OffIntent, Phase, Sent};
use crate::model::fact::{BootDevice, Power, Tick};
use crate::model::op::{Device, Off, Op};
use crate::model::{Name, Reason};

/// What holds for a switching-off here, now.
pub(crate) fn terms(want: &Desired, seen: &Observed, now: Tick) -> Terms {
    let releaser = want.releaser.as_ref().filter(|_| seen.body.release.is_some());
    let authority = releaser.or(want.holder.as_ref().map(|h| &h.authority));
    let hard_without_soft = authority.map(|a| seen.hard_word(a, &want.server)).unwrap_or_default();
    Terms { grace: fence::grace(want, seen), hard_without_soft, on_asked_at: seen.memory.on_asked_at, now }
}

/// The way to off, when the body must be off.
pub(crate) fn plan(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let Some(why) = fence::why_off(want, seen) else { return dropping(want, seen, now, plan) };
    if let Some(Wait { reason, message, .. }) = nothing_after(want, seen) {
        plan.wait(reason, format!("server {} is not switched off ({}): {message}", want.server, why.because));
        return;
    }
    let next = off::next(seen.body.off.as_ref(), &seen.memory, &terms(want, seen, now));
    let how = match next {
        Next::Send(how) => how,
        Next::Until(..) | Next::Stuck(..) => Off::Soft,
    };
    let step = off_step(&why, seen, &want.server, how);
    let refusal = consent::refusal(why.authority, Plane::Power, &step.op, seen);
    let Some(power) = &seen.power else { return unknown(want, seen, plan) };
    let is_sent_now = power.value == Power::On && matches!(next, Next::Send(_));
    if refusal.is_none() && !why.withdraw.is_empty() && !is_sent_now {
        plan.records.extend(why.withdraw.iter().cloned().map(Record::Withdraw));
        return;
    }
    match (power.value, next) {
        (Power::Off, _) => match refusal {
            None => until_seen_off(want, seen, now, plan),
            Some(wait) => plan.waits.push(wait),
        },
        (Power::On, Next::Until(at, what)) => {
            let because = seen.body.off.as_ref().map_or(why.because.as_str(), |i| i.because.as_str());
            plan.wait(Reason::SwitchingOff, format!("{what} ({because})"));
            plan.waits.extend(refusal);
            ask_after(at, &want.server, now, plan);
        }
        (Power::On, Next::Stuck(reason, what)) => {
            // After hard offs that lead to nothing, one more word for them does not either.
            let in_vain = |intent: &OffIntent| intent.hard.tries >= limits::HARD_OFF_TRIES || matches!(intent.hard.last, Sent::Refused(_));
            let then = if seen.body.off.as_ref().is_some_and(in_vain) {
                String::new()
            } else {
                format!(": `embody approve {} --hard`", why.authority.binding)
            };
            plan.problem(reason, format!("server {}: {what}{then}", want.server));
        }
        (Power::On, Next::Send(how)) if !may_touch(how, why.authority, &want.server, seen, now, plan) => {}
        (Power::On, Next::Send(_)) => match &seen.bmc_trouble {
            Some(trouble) => plan.wait(trouble.reason, trouble.message.clone()),
            None => drop(consent::admit(why.authority, step, seen, plan)),
        },
    }
}

/// What runs is not ended for a persona that could not start after it, as far as its ports tell. What was begun is ended, and a person's word for a hard
/// off is stronger.
pub(crate) fn nothing_after(want: &Desired, seen: &Observed) -> Option<Wait> {
    let holder = want.holder.as_ref().filter(|h| h.state == RunState::Running && seen.is(Power::On) && seen.body.release.is_none())?;
    let is_begun = |e: &Evidence| e.withdrawn || e.phase == Phase::Answered;
    let own = seen.body.evidence.get(&holder.persona);
    if seen.body.off.is_some() || own.is_some_and(is_begun) || seen.hard_word(&holder.authority, &want.server) == HardWithoutSoft::Now {
        return None;
    }
    if let Some(wait) = unconfirmed_after(holder, seen) {
        return Some(wait);
    }
    let why = network::could_be_ready(&holder.ports, seen).err().filter(|_| !network::ready(&holder.ports, seen))?;
    Some(Wait::new(Reason::PortsFirst, format!("persona {} could not start after it: {why}", holder.persona)))
}

/// A store that went backwards says nothing of what began since: a person says whether it starts again.
pub(crate) fn unconfirmed_after(holder: &Holder, seen: &Observed) -> Option<Wait> {
    let start = Op::PowerOn { server: holder.server.clone() };
    let is_asked = seen.body.confirm_start && !seen.as_if_approved && !consent::is_approved(&holder.authority, &start, seen);
    is_asked.then(|| consent::unconfirmed(&holder.authority.binding))
}

/// A body that a binding leaves, and that may still serve, is told to go, and is cut, only while the new one can take over: its binding may have
/// been aimed elsewhere since it was released. Of one that was told, a person's word is stronger: it says how, not whether.
fn may_touch(how: Off, authority: &Authority, server: &Name, seen: &Observed, now: Tick, plan: &mut Plan) -> bool {
    let told = seen.body.off.as_ref().is_some_and(|intent| intent.soft.tries + intent.hard.tries > 0);
    let said = seen.hard_word(authority, server) == HardWithoutSoft::Now;
    if seen.body.release.is_none() || (told && (how == Off::Soft || said)) {
        return true;
    }
    match &seen.takeover {
        Some(Err(why)) => {
            let what = if told { "its time to shut down is over, but it is not cut" } else { "it is not switched off" };
            plan.wait(Reason::TakeoverNotPossible, format!("{what} while the new body cannot take over: {why}"));
            false
        }
        Some(Ok(ready)) if now.since(ready.oldest) > limits::BEFORE_CUT => {
            super::ask_first(ready, "it is switched off", now, plan);
            false
        }
        Some(Ok(_)) | None => true,
    }
}

fn off_step(why: &WhyOff<'_>, seen: &Observed, server: &Name, how: Off) -> Step {
    let sending = Record::Off(off::sending(seen.body.off.as_ref(), how, &why.because));
    Step {
        op: Op::PowerOff { server: server.clone(), how },
        binding: why.authority.binding.clone(),
        plane: Plane::Power,
        because: why.because.clone(),
        // An answer ends with the first command, and not before: what waits for a limit starts again under it.
        write_ahead: why.withdraw.iter().cloned().map(Record::Withdraw).chain([sending]).collect(),
        debt: false,
    }
}

/// The hard off that may follow an accepted soft-off, and to which nobody has said yes: the word for the soft one may be void by now.
pub(crate) fn hard_off_to_approve(want: &Desired, seen: &Observed) -> Option<Step> {
    seen.body.off.as_ref().filter(|intent| intent.soft.last == Sent::Accepted && seen.is(Power::On))?;
    // Whoever comes next has no say yet.
    let left = Desired { holder: None, ..want.clone() };
    let want = if want.past.is_some() && seen.body.held_by.is_some() { &left } else { want };
    let why = fence::why_off(want, seen)?;
    let step = off_step(&why, seen, &want.server, Off::Hard);
    let today = Observed { as_if_approved: false, ..seen.clone() };
    let waits = consent::refusal(why.authority, Plane::Power, &step.op, &today).is_some();
    let said = consent::is_approved(why.authority, &step.op, &today);
    (waits && !said && why.authority.mode(Plane::Power) != Mode::Observe).then_some(step)
}

/// Nobody wants the body off any more, but an accepted command may still be obeyed.
fn dropping(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let Some(intent) = seen.body.off.as_ref() else { return };
    if seen.is(Power::Off) {
        return until_seen_off(want, seen, now, plan);
    }
    let what = format!("a switching-off is no longer desired, but was accepted ({}): it may still go off", intent.because);
    plan.wait(Reason::SwitchingOff, what);
    match off::next(Some(intent), &seen.memory, &terms(want, seen, now)) {
        Next::Until(at, _) => ask_after(at, &want.server, now, plan),
        Next::Send(_) | Next::Stuck(..) => {}
    }
}

/// It is answered Off, and is to be seen so once more.
fn until_seen_off(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let withdrawn = seen.body.evidence.keys().filter_map(|p| seen.memory.withdrawn_at.get(p)).max().copied();
    let since = withdrawn.unwrap_or(Tick::START).max(seen.memory.declared_at).max(if seen.body.off.is_some() {
        seen.memory.soft_at.max(seen.memory.hard_at)
    } else {
        Tick::START
    });
    let SeenOff::AskAt(at) = seen.seen_off(since) else { return };
    let left = seconds(at.since(now));
    let but = seen.memory.boot_asked_at.filter(|asked| now.since(*asked) < limits::BOOT_ASKED_LATELY).map_or(String::new(), |asked| {
        format!(", but something with its MAC address asked what to boot {} ago", seconds(now.since(asked)))
    });
    plan.wait(Reason::AskingAgain, format!("server {} is answered off{but}; it is asked once more in {left} to be certain", want.server));
    ask_after(at, &want.server, now, plan);
}

/// What is known is older than what it is to show.
pub(crate) fn ask_again(want: &Desired, plan: &mut Plan, why: &str) {
    plan.wait(Reason::AskingAgain, format!("server {} {why}; it is asked again", want.server));
    plan.polls.push(Device::Bmc(want.server.clone()));
}

pub(crate) fn unknown(want: &Desired, seen: &Observed, plan: &mut Plan) {
    match &seen.bmc_trouble {
        Some(trouble) => plan.wait(trouble.reason, trouble.message.clone()),
        None => plan.wait(Reason::PowerUnknown, format!("the power of server {} is not known yet", want.server)),
    }
}

/// How it was found is to be seen: off by two answers, on by one.
pub(crate) fn find(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    match &seen.power {
        None => unknown(want, seen, plan),
        Some(power) if power.asked_at <= seen.memory.taken_at => ask_again(want, plan, "was last seen before it was taken"),
        Some(_) if seen.parked_lately().is_some() && want.holder.as_ref().is_some_and(fence::may_start_by_itself) => {
            let what = "is on, and has asked what to boot: if it asks again it runs nothing";
            plan.wait(Reason::AskingAgain, format!("server {} {what}", want.server));
            plan.wake(now.plus(limits::PARKED_ASKS_WITHIN));
        }
        Some(_) => until_seen_off(want, seen, now, plan),
    }
}

/// Something is to run here, and the machine that asked for it did not get it.
pub(super) fn parked(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let parked = seen.memory.parked.as_ref().filter(|(at, _)| want.holder.is_some() && now.since(*at) < limits::PARKED_NAMED_FOR);
    let Some((at, why)) = parked else { return };
    let server = &want.server;
    let accept = if seen.body.smbios.is_some() && why.contains("the machine says it is") {
        format!("; `embody accept server {server}` takes it as it is")
    } else {
        String::new()
    };
    let ago = seconds(now.since(*at));
    plan.problem(
        Reason::Parked,
        format!("a machine with a MAC address of server {server} asked what to boot {ago} ago, and was {why}{accept}"),
    );
    plan.wake(at.plus(limits::PARKED_NAMED_FOR));
}

/// A question asked after this moment decides.
fn ask_after(moment: Tick, server: &Name, now: Tick, plan: &mut Plan) {
    if now > moment {
        plan.polls.push(Device::Bmc(server.clone()));
    } else {
        plan.wake(moment);
    }
}

/// The way to on, when the body is ours and off; and the boot device of one that runs.
pub(crate) fn start(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    park(want, seen, plan);
    let Some(holder) = want.holder.as_ref().filter(|h| h.problems.is_empty() && h.state == RunState::Running) else { return };
    if fence::why_off(want, seen).is_some() || seen.body.release.is_some() || seen.body.held_by.is_none() || seen.body.off.is_some() {
        return;
    }
    if fence::can_stand_again(holder, seen) {
        plan.records.push(Record::StandAgain(holder.persona.clone()));
        return;
    }
    let Some(power) = &seen.power else { return unknown(want, seen, plan) };
    let evidence = seen.body.evidence.get(&holder.persona);
    if evidence.is_some_and(|e| e.withdrawn) {
        return until_seen_off(want, seen, now, plan);
    }
    match (evidence.map(|e| e.phase), power.value) {
        (None, Power::Off) => answer(want, holder, seen, now, plan),
        (None, Power::On) if fence::starts_by_itself(holder, seen) => answer(want, holder, seen, now, plan),
        (Some(Phase::Answered | Phase::Armed), Power::On) if fence::starts_by_itself(holder, seen) => {
            tell_parked(want, holder, seen, now, plan)
        }
        (Some(Phase::Started), Power::Off) if holder.once.is_some() => until_seen_off(want, seen, now, plan),
        (Some(Phase::Answered), Power::Off | Power::On) | (Some(Phase::Started), Power::Off) => {
            ask_again(want, plan, "was last seen before its boot answer stood");
        }
        // A store that went backwards knows nothing of what began elsewhere since.
        (Some(Phase::Armed), Power::Off) if !fence::is_alone(holder, seen, now, plan) => {}
        // The new content is answered once it is certain that nothing runs.
        (Some(Phase::Armed), Power::Off) if fence::is_outdated(holder, seen) => until_seen_off(want, seen, now, plan),
        (Some(Phase::Armed), Power::Off) => switch_on(want, holder, seen, now, plan),
        (Some(Phase::Started), Power::On) => {
            fence::runs_twice(holder, seen, now, plan);
            if seen.body.confirm_start && seen.memory.was_parked {
                confirm(holder, seen, plan);
            }
            if fence::restart_waits(holder, seen) {
                fence::is_clear(holder, seen, now, plan);
                if let Some(why) = fence::no_ports_after(holder, seen) {
                    plan.wait(Reason::PortsFirst, format!("restart {} waits, since nothing could start after it: {why}", holder.restart));
                }
            } else {
                rollout::waits(holder, seen, now, plan);
            }
            boot_device_of_running(want, holder, seen, plan);
        }
        // `evidence` or `fence::why_off` has spoken already.
        (None | Some(Phase::Armed), Power::On) | (Some(Phase::Found), Power::Off | Power::On) => {}
    }
}

/// It runs by the word of a store that went backwards, and asks what to boot: it is parked until a person says that it may start.
fn confirm(holder: &Holder, seen: &Observed, plan: &mut Plan) {
    match seen.approval(&holder.authority).filter(|approval| !approval.is_over()) {
        Some(_) => plan.records.push(Record::Confirm),
        None => plan.waits.push(consent::unconfirmed(&holder.authority.binding)),
    }
}

/// What is set before every start. Whoever allows it allows the boot answer; where it is only observed, whoever allows the start.
pub(crate) fn boot_op(holder: &Holder) -> Op {
    Op::SetBoot { server: holder.server.clone(), device: holder.snapshot.boot, efi: holder.efi }
}

/// One that is on and waits is told what to start once its ports are read back; it asks every few seconds.
fn tell_parked(want: &Desired, holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    let (server, persona) = (&want.server, &holder.persona);
    if !want.port_problems.is_empty() || !network::ready(&holder.ports, seen) {
        let what = "is on and waits for something to boot: it is told once its switch ports are read back as desired";
        plan.wait(Reason::PortsFirst, format!("server {server} {what}"));
    } else if seen.body.evidence.get(persona).is_some_and(|evidence| evidence.phase == Phase::Answered) {
        plan.records.push(Record::Arm(persona.clone()));
    } else {
        plan.wait(Reason::Starting, format!("server {server} is on and asks every few seconds what to boot: it is told persona {persona}"));
        plan.wake(now.plus(limits::PARKED_ASKS_WITHIN));
    }
}

/// The boot answer: the claim of the persona on this body. Everything that may start it follows from here.
fn answer(want: &Desired, holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    if seen.body.declared.is_some() {
        // What is declared of it is about what it ran before.
        return until_seen_off(want, seen, now, plan);
    }
    let refusal = match holder.authority.mode(Plane::Boot) {
        // What its firmware boots from is not ours to set; that it starts is what the power plane says.
        Mode::Observe => consent::refusal(&holder.authority, Plane::Power, &Op::PowerOn { server: holder.server.clone() }, seen),
        Mode::Approve | Mode::Enforce => consent::refusal(&holder.authority, Plane::Boot, &boot_op(holder), seen),
    };
    let allowed = refusal.is_none();
    // What a person has to say comes first; a move waits for that word as well.
    plan.waits.extend(refusal);
    if fence::is_clear(holder, seen, now, plan) && allowed {
        plan.records.push(Record::Answer(Box::new(holder.snapshot.clone())));
    }
}

fn switch_on(want: &Desired, holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    let server = &want.server;
    let step = |op, plane, because: &str, write_ahead| Step {
        op,
        binding: holder.authority.binding.clone(),
        plane,
        because: because.to_owned(),
        write_ahead,
        debt: false,
    };
    if let Some(trouble) = &seen.bmc_trouble {
        plan.wait(trouble.reason, trouble.message.clone());
        return;
    }
    let set = boot_op(holder);
    // Since it went off, and since it is this persona that it is set for.
    let answered_at = seen.memory.answered_at.get(&holder.persona).copied().unwrap_or(Tick::START);
    let since = answered_at.max(seen.memory.off_since().unwrap_or(Tick::START));
    let boot_ready = seen.memory.boot_set_at.is_some_and(|at| at > since);
    let watched_only = holder.authority.mode(Plane::Boot) == Mode::Observe;
    let refused = seen.memory.boot_refused.as_ref().filter(|(at, _)| *at > since && !boot_ready && !watched_only);
    if let Some((_, code)) = refused.filter(|_| holder.snapshot.boot == BootDevice::Pxe) {
        let what =
            format!("persona {} boots from the network, and the BMC of server {server} refuses to be told so ({code})", holder.persona);
        let way = "make its firmware boot from the network first, and say `correct: { boot: observe }` in its binding";
        plan.problem(Reason::BootDeviceRefused, format!("{what}: {way}; or `embody retry server {server}`"));
        return;
    }
    if !boot_ready && !watched_only && refused.is_none() {
        consent::admit(&holder.authority, step(set, Plane::Boot, "before every start", Vec::new()), seen, plan);
        return;
    }
    if !want.port_problems.is_empty() || !network::ready(&holder.ports, seen) {
        plan.wait(Reason::PortsFirst, format!("server {server} is switched on once its switch ports are read back as desired"));
        return;
    }
    if on_in_time(server, seen, now, plan) {
        let because = format!("persona {} is to run here", holder.persona);
        let on = step(Op::PowerOn { server: server.clone() }, Plane::Power, &because, vec![Record::OnSent]);
        consent::admit(&holder.authority, on, seen, plan);
    }
}

/// Whether power-on may be sent now: not while the last one has its time, and not for ever.
fn on_in_time(server: &Name, seen: &Observed, now: Tick, plan: &mut Plan) -> bool {
    if !seen.body.on_sent {
        return tries_left(server, seen, plan);
    }
    let sent = seen.memory.on_sent_at;
    let deadline = sent.plus(limits::ON_WAIT);
    if seen.power.as_ref().is_some_and(|p| p.asked_at > deadline) {
        return tries_left(server, seen, plan);
    }
    plan.wait(Reason::SwitchingOn, format!("power-on was sent to server {server} {} ago", seconds(now.since(sent))));
    ask_after(deadline, server, now, plan);
    false
}

fn tries_left(server: &Name, seen: &Observed, plan: &mut Plan) -> bool {
    let tries = seen.memory.on_tries;
    if tries >= limits::ON_ATTEMPTS {
        plan.problem(
            Reason::DoesNotSwitchOn,
            format!(
                "server {server} is still off after {tries} attempts to switch it on; see what it does, then `embody retry server {server}`"
            ),
        );
    }
    tries < limits::ON_ATTEMPTS
}

/// The boot device of what stands here: another root in the manifests is for the next start.
pub(crate) fn boot_device(holder: &Holder, seen: &Observed) -> BootDevice {
    seen.body.evidence.get(&holder.persona).map_or(holder.snapshot.boot, |evidence| evidence.snapshot.boot)
}

/// Another boot device than ours on a running body is drift. None at all is not, unless the BMC is known to keep what we set; nor is any,
/// where the BMC showed another one right after ours was set: it would be set for ever. Before the next start it is set again anyway.
/// The boot device is another one, where the BMC keeps what it is given.
pub(crate) fn boot_drifted(holder: &Holder, seen: &Observed) -> bool {
    let Some(boot) = &seen.boot else { return false };
    let ours = boot_device(holder, seen);
    let keeps = seen.memory.boot_echo.is_some_and(|e| e.persistent && e.device == ours);
    let in_vain = seen.memory.boot_echo.is_some_and(|e| e.device != ours);
    match boot.value.device {
        BootDevice::None => keeps,
        device => device != ours && !in_vain,
    }
}

fn boot_device_of_running(want: &Desired, holder: &Holder, seen: &Observed, plan: &mut Plan) {
    let Some(boot) = seen.boot.as_ref().filter(|_| boot_drifted(holder, seen)) else { return };
    let ours = boot_device(holder, seen);
    if seen.bmc_trouble.is_none() && seen.memory.boot_refused.is_none() {
        let step = Step {
            op: Op::SetBoot { server: want.server.clone(), device: ours, efi: holder.efi },
            binding: holder.authority.binding.clone(),
            plane: Plane::Boot,
            because: format!("the boot device is {}, not {ours}", boot.value.device),
            write_ahead: Vec::new(),
            debt: false,
        };
        consent::admit(&holder.authority, step, seen, plan);
    }
}

// ---- a released body ---------------------------------------------------------------------------------------------------------

/// A released body boots from the network, where it is parked: not from a disk that may hold a persona.
pub(crate) fn is_parked(want: &Desired, seen: &Observed) -> bool {
    if seen.body.held_by.is_some() || want.holder.is_some() || seen.body.on_disk.is_empty() {
        return true;
    }
    let observed_only = want.releaser.as_ref().is_some_and(|r| r.mode(Plane::Boot) == Mode::Observe);
    let since = seen.memory.off_since().unwrap_or(Tick::START);
    observed_only
        || seen.boot.as_ref().is_some_and(|b| b.value.device == BootDevice::Pxe)
        || seen.memory.boot_set_at.is_some_and(|at| at > since)
}

fn park(want: &Desired, seen: &Observed, plan: &mut Plan) {
    let (Some(releaser), Some(_)) = (&want.releaser, &seen.body.release) else { return };
    if !seen.is(Power::Off) || !seen.body.evidence.is_empty() || is_parked(want, seen) || seen.bmc_trouble.is_some() {
        return;
    }
    let step = Step {
        op: Op::SetBoot { server: want.server.clone(), device: BootDevice::Pxe, efi: want.efi },
        binding: releaser.binding.clone(),
        plane: Plane::Boot,
        because: "released: its disk holds a persona that may run elsewhere".to_owned(),
        write_ahead: Vec::new(),
        debt: false,
    };
    consent::admit(releaser, step, seen, plan);
}

/// `42s`, `3m`, `2h`: ages in messages.
pub(crate) fn seconds(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s => format!("{}h", s / 3600),
    }
}
