//! The one hard argument: why a body must be switched off, when a persona may start on it, and when a move may begin.
//!
//! Invariant 6: what a persona claims may be in use on one body only. Evidence begins with the boot answer and ends when the body is seen off
//! after the answer was withdrawn (`evidence`). Unknown means wait, with the reason and the age of the last answer.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::desired::{Authority, Desired, Holder, Past};
use super::observed::{Elsewhere, Observed, Ready, SeenOff, There};
use super::record::Record;
use super::{Plan, Problem, consent, evidence, network, rollout, starting};
use crate::limits;
use crate::model::binding::{Mode, Plane, RunState};
use crate::model::body::{Body, Found, Hold, Phase};
use crate::model::fact::{BootDevice, Power, Tick};
use crate::model::op::{Device, Off, Op};
use crate::model::{Name, Reason};

/// A reason to switch a body off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WhyOff<'a> {
    pub authority: &'a Authority,
    pub because: String,
    /// Boot answers that must be withdrawn first.
    pub withdraw: Vec<Name>,
}

pub(crate) fn why_off<'a>(want: &'a Desired, seen: &Observed) -> Option<WhyOff<'a>> {
    let standing = |but: Option<&Name>| -> Vec<Name> {
        seen.body.evidence.iter().filter(|(p, e)| e.stands() && Some(*p) != but).map(|(p, _)| p.clone()).collect()
    };
    let on = !seen.is(Power::Off);
    let evidence = !seen.body.evidence.is_empty();
    if let (Some(releaser), Some(_)) = (&want.releaser, &seen.body.release) {
        let because = format!("binding {} has moved away", releaser.binding);
        return (evidence || on).then(|| WhyOff { authority: releaser, because, withdraw: standing(None) });
    }
    let holder = want.holder.as_ref().filter(|h| h.problems.is_empty())?;
    let why = |because: String, withdraw| Some(WhyOff { authority: &holder.authority, because, withdraw });
    match holder.state {
        RunState::Stopped if evidence || on => why(format!("binding {} is Stopped", holder.authority.binding), standing(None)),
        RunState::Stopped => None,
        RunState::Running => running_but_wrong(holder, seen).and_then(|(because, own)| {
            let mut withdraw = standing(Some(&holder.persona));
            withdraw.extend(own.then(|| holder.persona.clone()));
            why(because, withdraw)
        }),
    }
}

/// Why a body that should run the persona must go off first, and whether the persona's own answer must be withdrawn for it.
fn running_but_wrong(holder: &Holder, seen: &Observed) -> Option<(String, bool)> {
    let persona = &holder.persona;
    if once_waits(holder, seen) {
        return None;
    }
    if seen.is(Power::On) && seen.body.found_evidence().next().is_some() {
        return Some((format!("what it runs is not known to be persona {persona}"), false));
    }
    if let Some(other) = seen.body.evidence.keys().find(|p| *p != persona) {
        return Some((format!("it may run persona {other}, not {persona}"), false));
    }
    let on = seen.power.as_ref().filter(|p| p.value == Power::On);
    let answered_at = seen.memory.answered_at.get(persona).copied().unwrap_or(Tick::START);
    let Some(evidence) = seen.body.evidence.get(persona) else {
        if starts_by_itself(holder, seen) {
            return None;
        }
        return on.map(|_| (format!("what it runs is not known to be persona {persona}"), false));
    };
    let other_content = evidence.snapshot.digest != holder.snapshot.digest;
    if evidence.withdrawn {
        return withdrawn(holder, seen, other_content);
    }
    match evidence.phase {
        // It asks within seconds, or is switched off after a minute.
        Phase::Answered if starts_by_itself(holder, seen) => None,
        Phase::Answered => on
            .filter(|p| p.asked_at > answered_at)
            .map(|_| (format!("it was started before it was seen ready for persona {persona}"), true)),
        // What it boots next would be the old content.
        Phase::Started if seen.body.restart_done < holder.restart && !restart_waits(holder, seen) => {
            Some((format!("restart {} is desired", holder.restart), other_content))
        }
        Phase::Started if rollout::goes(holder, seen) => on.map(|_| (rollout::because(holder, seen), true)),
        Phase::Started if no_ports_after(holder, seen).is_none() => starting::retry(holder, seen).map(|because| (because, false)),
        // One Off alone may be a BMC that restarts, over a machine that runs.
        Phase::Armed if is_outdated(holder, seen) && seen.seen_off(Tick::START) == SeenOff::Yes => {
            Some((format!("what is answered here is not what {persona} is now"), true))
        }
        Phase::Started | Phase::Armed | Phase::Found => None,
    }
}

/// It is on, runs nothing, and asks what to boot: it starts what is answered, without being switched off and on. Where a person is to approve
/// that, there is no operation to approve but to switch it off first.
pub(crate) fn starts_by_itself(holder: &Holder, seen: &Observed) -> bool {
    // What is stopped, or was found running, is for an approval of operations, and there is none here to approve.
    // What was begun of a held one by a person's word is ended: both looks at it, with the hold and without, must say so.
    let begun = seen.held && seen.body.off.is_some();
    let is_free = !begun && !seen.stopped.contains_key(&holder.authority.binding) && matches!(seen.body.found, Found::Off | Found::Managed);
    is_free && seen.waits_parked() && may_start_by_itself(holder)
}

/// The same, as far as that is up to what is desired.
pub(crate) fn may_start_by_itself(holder: &Holder) -> bool {
    let enforced = |plane| holder.authority.mode(plane) == Mode::Enforce;
    holder.fetches && holder.snapshot.boot == BootDevice::Pxe && enforced(Plane::Power) && enforced(Plane::Boot)
}

/// Off, as far as one answer tells, and what it would boot is not what the persona is now.
pub(crate) fn is_outdated(holder: &Holder, seen: &Observed) -> bool {
    let evidence = seen.body.evidence.get(&holder.persona);
    let armed = evidence.is_some_and(|e| e.stands() && e.phase == Phase::Armed && e.snapshot.digest != holder.snapshot.digest);
    armed && seen.is(Power::Off) && !rollout::stays(holder, seen)
}

/// Whether a restart would end what runs and start nothing: what it is to run after it claims what is in use elsewhere, or its ports could not
/// be brought to the desired state.
pub(crate) fn restart_waits(holder: &Holder, seen: &Observed) -> bool {
    let other_content = seen.body.evidence.get(&holder.persona).is_some_and(|e| e.snapshot.digest != holder.snapshot.digest);
    // The same content claims nothing new, but no start goes past a body that may run it (`is_alone`).
    let claimed = seen.elsewhere.iter().any(|other| other_content || other.server().is_some());
    seen.body.restart_done < holder.restart && (claimed || no_ports_after(holder, seen).is_some())
}

/// What is to be booted once could not start. What runs is not ended for it.
pub(crate) fn once_waits(holder: &Holder, seen: &Observed) -> bool {
    let is_to_come = holder.once.is_some() && !seen.body.evidence.contains_key(&holder.persona);
    is_to_come && seen.is(Power::On) && why_not_once(holder, seen).is_some()
}

/// It claims what is in use elsewhere, or its ports could not be brought to the desired state.
pub(crate) fn why_not_once(holder: &Holder, seen: &Observed) -> Option<String> {
    let claimed = seen.elsewhere.first().map(|other| in_words(other, holder, None));
    claimed.or_else(|| no_ports_after(holder, seen))
}

/// Why the persona would not be switched on again, as far as that is up to its ports.
pub(crate) fn no_ports_after(holder: &Holder, seen: &Observed) -> Option<String> {
    if network::ready(&holder.ports, seen) {
        return None;
    }
    let made = |(switch, vlan)| format!("VLAN {vlan} is made on switch {switch} first");
    network::could_be_ready(&holder.ports, seen).err().or_else(|| network::vlan_to_make(&holder.ports, seen).map(made))
}

/// The answer was withdrawn, and the persona is to run here: it stands again where nothing has come of it, else the body goes off first.
fn withdrawn(holder: &Holder, seen: &Observed, other_content: bool) -> Option<(String, bool)> {
    let persona = &holder.persona;
    if can_stand_again(holder, seen) {
        return None;
    }
    if other_content && seen.body.restart_done < holder.restart {
        return Some((format!("restart {} is desired", holder.restart), false));
    }
    if seen.is(Power::On) && rollout::goes(holder, seen) {
        return Some((rollout::because(holder, seen), false));
    }
    // Switched off under an intent that is still open and would not be needed now, or seen off once: what comes next is its end.
    if seen.is(Power::Off) || (seen.body.off.is_some() && would_stand_again(holder, seen)) {
        return None;
    }
    Some((format!("the boot answer of persona {persona} was withdrawn while it ran"), false))
}

/// Whether the answer of the holder's persona can stand again as if it had never been withdrawn: it runs, and nothing is on its way.
pub(crate) fn can_stand_again(holder: &Holder, seen: &Observed) -> bool {
    seen.body.off.is_none() && would_stand_again(holder, seen)
}

/// The same, once nothing is on its way any more.
fn would_stand_again(holder: &Holder, seen: &Observed) -> bool {
    let persona = &holder.persona;
    let alone = seen.body.evidence.len() == 1 && seen.body.release.is_none() && seen.body.declared.is_none();
    let ran = seen.body.evidence.get(persona).is_some_and(|e| e.withdrawn && e.phase == Phase::Started);
    let restarts = seen.body.restart_done < holder.restart || rollout::goes(holder, seen);
    alone && ran && !restarts && seen.is(Power::On) && holder.state == RunState::Running
}

/// How long a soft-off may take here; a bound where nobody is left to say.
pub(crate) fn grace(want: &Desired, seen: &Observed) -> Duration {
    let releaser = want.releaser.as_ref().filter(|_| seen.body.release.is_some());
    releaser.or(want.holder.as_ref().map(|h| &h.authority)).map_or(limits::HARD_OFF_WAIT, |a| a.grace)
}

/// What `approve --adopt` records: a person declares that this body, which was found running, runs the holder's persona. Refused where
/// that would claim something twice, or deny evidence of another persona.
pub fn adopt(holder: &Holder, seen: &Observed) -> Result<Vec<Record>, Problem> {
    let (binding, persona) = (&holder.authority.binding, &holder.persona);
    let refuse = |reason, message: String| Err(Problem::new(reason, message));
    // What is booted once is not what the binding says that it runs.
    if holder.once.is_some() {
        return refuse(
            Reason::NothingToAdopt,
            format!("something else is booted once there: `embody boot {} --cancel` first", holder.server),
        );
    }
    if seen.body.evidence.contains_key(persona) && seen.body.found != Found::Running {
        return refuse(Reason::NothingToAdopt, format!("the server of binding {binding} is known to run persona {persona} already"));
    }
    let held = seen.body.held_by.as_ref().is_some_and(|h| h.uid == holder.authority.uid);
    let unknown = seen.unreadable || seen.body.anything;
    if unknown && seen.body.release.is_none() {
        // A person knows what nothing here tells.
    } else if !held || seen.body.release.is_some() || seen.body.found != Found::Running {
        return refuse(Reason::NothingToAdopt, format!("the server of binding {binding} was not found running when it was taken"));
    }
    if !seen.is(Power::On) || seen.bmc_trouble.is_some() {
        return refuse(Reason::PowerUnknown, format!("the server of binding {binding} is not seen running now"));
    }
    let found = |p: &Name| seen.body.found_evidence().any(|f| f == p);
    if let Some(other) = seen.body.evidence.keys().find(|p| *p != persona && !found(p)) {
        return refuse(Reason::PersonaUnclear, format!("by evidence the server of binding {binding} may run persona {other}"));
    }
    if let Some(other) = seen.elsewhere.first() {
        return refuse(Reason::PersonaElsewhere, in_words(other, holder, None));
    }
    let adopt = Record::Adopt(Box::new(holder.snapshot.clone()));
    let hold = Hold { binding: binding.clone(), uid: holder.authority.uid.clone() };
    Ok(if unknown { vec![Record::Renew, Record::Take { hold, found: Found::Running }, adopt] } else { vec![adopt] })
}

/// Whether a persona may be answered here as far as other bodies and bindings are concerned; says why not.
pub(crate) fn is_clear(holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) -> bool {
    wait_for(seen.elsewhere.iter(), holder, now, plan)
}

/// Of one that runs: a body that was declared off, and is on all the same, may run it a second time.
pub(crate) fn runs_twice(holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) {
    let by_mistake = |other: &&Elsewhere| matches!(other, Elsewhere::Evidence { there, .. } if there.runs_by_mistake);
    for other in seen.elsewhere.iter().filter(by_mistake) {
        plan.problem(Reason::DeclaredOffButRuns, in_words(other, holder, Some(now)));
    }
}

/// The same once it is answered here: what is only reserved must wait for this.
pub(crate) fn is_alone(holder: &Holder, seen: &Observed, now: Tick, plan: &mut Plan) -> bool {
    wait_for(seen.elsewhere.iter().filter(|other| other.server().is_some()), holder, now, plan)
}

fn wait_for<'a>(others: impl Iterator<Item = &'a Elsewhere>, holder: &Holder, now: Tick, plan: &mut Plan) -> bool {
    let mut clear = true;
    for other in others {
        let reason = match other {
            Elsewhere::Evidence { there, .. } if there.runs_by_mistake => Reason::DeclaredOffButRuns,
            Elsewhere::Evidence { .. } => Reason::PersonaElsewhere,
            Elsewhere::Unreadable { .. } => Reason::EvidenceUnreadable,
            Elsewhere::Disk { .. } => Reason::MayRunFromDisk,
            Elsewhere::Reserved { .. } => Reason::ClaimReserved,
        };
        plan.wait(reason, in_words(other, holder, Some(now)));
        clear = false;
    }
    clear
}

/// `persona apache may still run on alpha, which has the writable root 10.0.20.5:/p: its BMC last answered 3m ago; …`.
fn in_words(other: &Elsewhere, holder: &Holder, now: Option<Tick>) -> String {
    let (persona, binding) = (&holder.persona, &holder.authority.binding);
    let age = |there: &There| match (there.asked_at, now) {
        (Some(at), Some(now)) => format!("its BMC last answered {} ago", super::power::seconds(now.since(at))),
        (Some(_), None) => "its BMC has answered".to_owned(),
        (None, _) => "its BMC has not answered since this controller started".to_owned(),
    };
    let way = |server: &Name, there: &There| match (there.answers, there.bound) {
        (true, bound) if there.found_running => format!(
            "; it was found running when it was bound, and nobody has said what it runs: switch it off{}, or say that it is something else: {}",
            if bound { String::new() } else { format!(" (`embody approve {binding} --release {server}`)") },
            foreign(server)
        ),
        _ if there.runs_by_mistake => format!("; {server} was declared off, and is on all the same: switch it off"),
        (false, _) => format!("; if its power is cut for certain: `embody declare server {server} off --reason \"its power is cut\"`"),
        (true, true) => String::new(),
        (true, false) => format!(
            "; no binding names it: switch it off, or have it switched off as a move would: `embody approve {binding} --release {server}`"
        ),
    };
    match other {
        Elsewhere::Evidence { server, persona: that, claim, there } if that == persona => {
            format!("persona {persona} may still run on {server} ({claim}): {}{}", age(there), way(server, there))
        }
        Elsewhere::Evidence { server, persona: that, claim, there } => {
            format!("{claim} may still be in use by persona {that} on {server}: {}{}", age(there), way(server, there))
        }
        Elsewhere::Unreadable { server, there } => {
            let way = match there.answers {
                true => format!("; switch it off, or say what is so: {}", foreign(server)),
                false => way(server, there),
            };
            format!("nothing is known of what server {server} runs, so it may be anything: {}{way}", age(there))
        }
        Elsewhere::Disk { server, there } if there.answers => {
            format!("server {server} is on without an answer of embody's, and its disk holds persona {persona}{}", way(server, there))
        }
        Elsewhere::Disk { server, there } => {
            format!("server {server} may be on, and its disk holds persona {persona}: {}{}", age(there), way(server, there))
        }
        Elsewhere::Reserved { binding, claim } => format!("{claim} is reserved by binding {binding}"),
    }
}

/// The command that says so of a body of which nothing is known.
pub(crate) fn foreign(server: &Name) -> String {
    format!("`embody declare server {server} foreign --reason \"it runs nothing of ours\"`")
}

/// What a chain of moves is followed by.
pub struct Bodies<'a> {
    /// The server that a binding names now.
    pub target: &'a dyn Fn(&Name) -> Option<Name>,
    /// What is desired and seen of a server.
    pub look: &'a dyn Fn(&Name) -> Option<(Desired, Observed)>,
}

/// Invariant 10: whether the new body of a binding could take over, if `from` were off. Asked before the old body is touched. Where another
/// binding is still on the new body, or leaves one that runs what the new body is to run, that one must be able to go as well, and so on; a ring
/// of them can.
pub fn takeover(binding: &Name, from: &Name, bodies: &Bodies<'_>) -> Result<Ready, String> {
    let mut chain = Chain {
        asked: BTreeSet::new(),
        moves: vec![Move { binding: binding.clone(), from: from.clone(), leaves: None }],
        left: BTreeSet::from([from.clone()]),
        in_the_way: VecDeque::new(),
        ready: Ready { oldest: Tick(u64::MAX), devices: BTreeSet::new(), bodies: BTreeSet::new() },
    };
    loop {
        while let Some(next) = chain.moves.pop() {
            chain.follow(next, from, bodies)?;
        }
        let Some((server, why)) = chain.in_the_way.pop_front() else { return Ok(chain.ready) };
        if chain.left.contains(&server) {
            continue;
        }
        if let Some((want, seen)) = (bodies.look)(&server) {
            chain.is_left(&want, seen)?;
        }
        if !chain.left.contains(&server) {
            return Err(why);
        }
    }
}

struct Move {
    binding: Name,
    from: Name,
    /// The body that it is still on, and has yet to release.
    leaves: Option<Observed>,
}

/// Moves that need each other.
struct Chain {
    asked: BTreeSet<Name>,
    moves: Vec<Move>,
    /// Bodies that are left on the way, and those that must be, each with why.
    left: BTreeSet<Name>,
    in_the_way: VecDeque<(Name, String)>,
    ready: Ready,
}

impl Chain {
    fn follow(&mut self, next: Move, from: &Name, bodies: &Bodies<'_>) -> Result<(), String> {
        let Move { binding, from: left, leaves } = next;
        let again = !self.asked.insert(binding.clone());
        if again && left == *from {
            return Ok(());
        }
        let Some((want, seen)) = (bodies.target)(&binding).and_then(|server| (bodies.look)(&server)) else {
            return Err(format!("binding {binding} names no server"));
        };
        if let (Some(old), Some(holder)) = (&leaves, &want.holder) {
            can_leave(&holder.authority, &left, old, &seen)?;
        }
        if again {
            // It holds two bodies: a move of its own was changed before it was over.
            return Ok(());
        }
        self.in_the_way.extend(can_take_over(&want, &seen, &binding, &left)?);
        rests_on(&mut self.ready, &want, &seen);
        self.is_left(&want, seen)
    }

    /// Whoever leaves this body, or did and has still to release it, goes as well.
    fn is_left(&mut self, want: &Desired, seen: Observed) -> Result<(), String> {
        if let Some(releaser) = want.releaser.as_ref().filter(|_| seen.body.release.is_some()) {
            // Whoever left it before must be able to switch it off, and does so only while it can be had elsewhere itself (`power::may_touch`).
            can_leave(releaser, &want.server, &seen, &seen)?;
            let before = seen.body.release.as_ref().filter(|_| !seen.is(Power::Off));
            self.left.extend(before.map(|_| want.server.clone()));
            self.moves.extend(before.map(|hold| Move { binding: hold.binding.clone(), from: want.server.clone(), leaves: None }));
        }
        let partner = seen.body.held_by.as_ref().filter(|_| want.past == Some(Past::Moved) && !evidence::is_strange(&seen));
        let Some(partner) = partner.map(|hold| hold.binding.clone()) else { return Ok(()) };
        if !(seen.is(Power::Off) && seen.body.evidence.is_empty()) {
            self.ready.bodies.insert(want.server.clone());
        }
        self.left.insert(want.server.clone());
        self.moves.push(Move { binding: partner, from: want.server.clone(), leaves: Some(seen) });
        Ok(())
    }
}

/// The answers that a start there would follow from.
fn rests_on(ready: &mut Ready, want: &Desired, seen: &Observed) {
    let Some(holder) = want.holder.as_ref().filter(|h| h.state == RunState::Running) else { return };
    let power = seen.power.iter().map(|power| (Device::Bmc(want.server.clone()), power.asked_at));
    let needed = holder.ports.iter().filter(|(_, desired)| desired.needed);
    let ports = needed.filter_map(|(key, _)| Some((Device::Switch(key.0.clone()), seen.ports.get(key)?.asked_at)));
    for (device, asked_at) in power.chain(ports) {
        ready.oldest = ready.oldest.min(asked_at);
        ready.devices.insert(device);
    }
}

/// Whose move decides whether this body may be touched: of a binding that has moved away, or did, and has still to release it.
pub fn leaves<'a>(want: &Desired, body: &'a Body) -> Option<&'a Name> {
    let moved = body.held_by.as_ref().filter(|_| want.past == Some(Past::Moved));
    let released = body.release.as_ref().filter(|_| want.releaser.is_some());
    moved.or(released).map(|hold| &hold.binding)
}

/// Whether the partner of a swap may switch off the body that it leaves.
fn can_leave(authority: &Authority, from: &Name, old: &Observed, new: &Observed) -> Result<(), String> {
    let off = Op::PowerOff { server: from.clone(), how: Off::Soft };
    let here = Observed { approvals: new.approvals.clone(), stopped: new.stopped.clone(), ..old.clone() };
    let nothing_to_do = old.is(Power::Off) && old.body.evidence.is_empty();
    match consent::refusal(authority, Plane::Power, &off, &here).filter(|_| !nothing_to_do) {
        Some(wait) if !is_for_all(wait.reason) => Err(format!("binding {} is still on server {from}: {}", authority.binding, wait.message)),
        Some(_) | None => Ok(()),
    }
}

/// What stops the old body as well: a move that waits for that does not begin either way.
fn is_for_all(reason: Reason) -> bool {
    reason == Reason::BreakerOpen
}

/// Whether the holder, which comes from another body, could run here if that were off, and those that are named, each with why.
fn can_take_over(want: &Desired, seen: &Observed, binding: &Name, from: &Name) -> Result<Vec<(Name, String)>, String> {
    let server = &want.server;
    let holder = want.holder.as_ref().filter(|h| h.authority.binding == *binding);
    let Some(holder) = holder else { return Err(format!("server {server} is not there, or is held by another binding")) };
    if holder.state == RunState::Stopped {
        return Ok(Vec::new());
    }
    if let Some(problem) = want.unresolved.iter().chain(&holder.problems).chain(&want.port_problems).next() {
        return Err(problem.message.clone());
    }
    if let Some(reason) = &want.maintenance {
        return Err(format!("server {server} is in maintenance: {reason}"));
    }
    if let Some(trouble) = &seen.bmc_trouble {
        return Err(trouble.message.clone());
    }
    if seen.power.is_none() {
        return Err(format!("the power of server {server} is not known yet"));
    }
    // Whoever leaves it switches it off first.
    let runs_by_mistake = seen.body.runs_by_mistake() && !is_left(want, seen);
    if seen.unreadable || seen.body.anything || runs_by_mistake {
        return Err(format!("what server {server} runs is not known"));
    }
    let mut in_the_way = Vec::new();
    for other in seen.elsewhere.iter().filter(|other| other.server() != Some(from)) {
        let why = in_words(other, holder, None);
        match other.server() {
            Some(server) => in_the_way.push((server.clone(), why)),
            None => return Err(why),
        }
    }
    consented(holder, want, seen)?;
    network::could_be_ready(&holder.ports, seen)?;
    starts_here(holder, seen)?;
    Ok(in_the_way)
}

/// The planes beside power: who only observes one of them, or has not approved it, would switch off and start nothing.
fn starts_here(holder: &Holder, seen: &Observed) -> Result<(), String> {
    // It is off by then, and nobody's.
    let body = Body { found: Found::Managed, declared: None, ..seen.body.clone() };
    let power = seen.power.as_ref().map(|p| crate::model::fact::Seen { value: Power::Off, ..p.clone() });
    let off = Observed { body, power, ..seen.clone() };
    // What its firmware would start from is not known where the boot device is only observed: that is no reason to end what runs.
    let boot = super::power::boot_op(holder);
    let port = network::first_write(&holder.ports, seen).map(|op| (Plane::Network, op));
    for (plane, op) in [(Plane::Boot, boot)].into_iter().chain(port) {
        match consent::refusal(&holder.authority, plane, &op, &off) {
            Some(wait) if !is_for_all(wait.reason) => return Err(wait.message),
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// Somebody else leaves it, and frees it first (`can_leave`).
fn is_left(want: &Desired, seen: &Observed) -> bool {
    seen.body.release.is_some() || (want.past == Some(Past::Moved) && !evidence::is_strange(seen))
}

/// Whether it was seen to start this persona, and may run nothing else.
fn runs_only(persona: &Name, seen: &Observed) -> bool {
    let mut evidence = seen.body.evidence.iter();
    let own = evidence.next().is_some_and(|(name, e)| name == persona && e.phase == Phase::Started && !e.withdrawn);
    own && evidence.next().is_none()
}

/// What it needs is approved, or needs no approval.
fn consented(holder: &Holder, want: &Desired, seen: &Observed) -> Result<(), String> {
    let (authority, server) = (&holder.authority, &want.server);
    let plane = Plane::Power;
    let mine = seen.body.held_by.as_ref().is_some_and(|h| h.uid == authority.uid);
    let left = is_left(want, seen);
    let runs_something = seen.is(Power::On) && !left;
    let was_found = mine && matches!(seen.body.found, Found::Off | Found::Managed);
    if seen.is(Power::Off) && !left && !was_found && seen.seen_off(Tick::START) != SeenOff::Yes {
        return Err(format!("server {server} is answered off; it is asked once more to be certain"));
    }
    let op = match runs_something {
        true => Op::PowerOff { server: server.clone(), how: Off::Soft },
        false => Op::PowerOn { server: server.clone() },
    };
    if authority.mode(plane) == Mode::Observe {
        return Err(format!("binding {} only observes the power plane", authority.binding));
    }
    if runs_something && mine && runs_only(&holder.persona, seen) {
        // It is there already: a binding that took the name and the place of another.
        return Ok(());
    }
    let found = match (runs_something, mine) {
        (true, true) => seen.body.found,
        // It was not taken yet, so that nobody has said yet how it was found.
        (true, false) => Found::Running,
        (false, _) => Found::Managed,
    };
    let here = Observed { body: Body { found, ..seen.body.clone() }, ..seen.clone() };
    match consent::refusal(authority, plane, &op, &here) {
        None => Ok(()),
        Some(wait) if is_for_all(wait.reason) => Ok(()),
        Some(wait) if runs_something => Err(format!("server {server} runs something: {}", wait.message)),
        Some(wait) => Err(wait.message),
    }
}
