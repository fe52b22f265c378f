//! What was switched on comes up: its boot script is fetched in this start, and what is to say hello says it. Sends nothing, and stops nothing.
//!
//! Leaves out: stages, which are for people (`control::timeline`). Invariant: what came up stays so over a restart of the controller: it is in the
//! body's record. Shown by `tests/boots.rs`.

use super::Plan;
use super::desired::{Desired, Holder};
use super::observed::Observed;
use super::power::seconds;
use crate::limits;
use crate::model::Reason;
use crate::model::binding::RunState;
use crate::model::body::{Evidence, Phase};
use crate::model::fact::{Power, Tick};

/// As far as is waited for: where machines boot over its network, its script was fetched in this start; where something in it says hello, it has.
/// What was started with other content than the manifests' is not waited for where that content fetches nothing, or has no token to say hello with.
pub(crate) fn came_up(holder: &Holder, evidence: &Evidence) -> bool {
    let (was, run) = (&evidence.snapshot, evidence.run.as_ref());
    let is_of_now = was.digest == holder.snapshot.digest;
    let fetches = holder.fetches && was.root.disk.is_none();
    let says_hello = holder.says_hello && (is_of_now || was.kernel.is_some());
    (!fetches || run.is_some()) && (!says_hello || run.is_some_and(|run| run.hello.is_some()))
}

pub(crate) fn plan(want: &Desired, seen: &Observed, now: Tick, plan: &mut Plan) {
    let Some(holder) = want.holder.as_ref().filter(|holder| holder.state == RunState::Running && want.past.is_none()) else { return };
    let Some(evidence) = seen.body.evidence.get(&holder.persona).filter(|e| e.stands() && e.phase == Phase::Started) else { return };
    if !seen.is(Power::On) || seen.body.off.is_some() || came_up(holder, evidence) || seen.memory.parked.is_some() {
        return;
    }
    let (server, persona) = (&want.server, &holder.persona);
    let since = seen.memory.on_sent_at.max(seen.memory.came_on_at);
    let asked = seen.memory.boot_asked_at.filter(|at| *at >= since);
    let (by, reason, what) = match (&evidence.run, asked) {
        (Some(_), _) => (
            limits::HELLO_WITHIN,
            Reason::NoHello,
            format!("has fetched the script of persona {persona}, and nothing in it has said hello"),
        ),
        (None, Some(_)) => {
            (limits::FIRMWARE_WITHIN, Reason::NoBootRequest, "has asked for an address, and has fetched no boot script".to_owned())
        }
        (None, None) => (limits::FIRMWARE_WITHIN, Reason::NoBootRequest, "has not asked for an address or what to boot".to_owned()),
    };
    let until = since.plus(by);
    let age = seconds(now.since(since));
    if now < until {
        plan.wait(Reason::Starting, format!("server {server} is on since {age}, and {what} yet"));
        plan.wake(until);
    } else {
        let look = "see its console, its boot order, the network of its boot NIC, and `embody describe server`";
        plan.problem(reason, format!("server {server} is on since {age}, and {what}: {look} {server}"));
    }
}
