//! From a plan to what people read: conditions after kstatus, want and have per plane. Times come in when a status is stored (`add_times`): what is
//! told here is told apart from what was told before by `digest`, which knows neither them nor ages.

use std::collections::BTreeMap;
use std::hash::Hasher;

use serde_json::Value;

use super::cache::Cache;
use super::logins::Reading;
use super::status_writer::{NOT_REACHED, SiteCondition};
use crate::limits;
use crate::model::binding::RunState;
use crate::model::body::{Outdated, Phase, Snapshot};
use crate::model::fact::{PortConfig, Power, Tick};
use crate::model::references;
use crate::model::status::{
    BindingStatus, Condition, PersonaStatus, PlainStatus, PlaneStatus, ServerStatus, SwitchStatus, Truth, WaitStatus,
};
use crate::model::{Kind, Name, Reason};
use crate::plan::desired::{Desired, Holder};
use crate::plan::observed::{Observed, Trouble};
use crate::plan::resolve;
use crate::plan::rollouts::Stage;
use crate::plan::starting;
use crate::plan::{Plan, network};

struct Conditions {
    generation: u64,
    out: Vec<Condition>,
}

impl Conditions {
    fn of(generation: u64) -> Conditions {
        Conditions { generation, out: Vec::new() }
    }

    fn set(&mut self, kind: &str, status: Truth, reason: &str, message: impl Into<String>) {
        self.out.push(Condition {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: String::new(),
            observed_generation: self.generation,
        });
    }

    /// It is not so, whatever else speaks for it.
    fn is_not(&mut self, kind: &str, reason: &str, message: &str) {
        self.out.retain(|condition| condition.kind != kind);
        self.set(kind, Truth::False, reason, message);
    }

    fn done(self) -> Vec<Condition> {
        self.out
    }
}

fn truth(is: bool) -> Truth {
    if is { Truth::True } else { Truth::False }
}

/// The same thing said, whatever numbers of seconds are in it: such a difference is no reason to write.
pub(crate) fn says_the_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| says_the_same(v, w))),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(v, w)| says_the_same(v, w)),
        (Value::String(a), Value::String(b)) => a == b || without_ages(a) == without_ages(b),
        (a, b) => a == b,
    }
}

/// Ages (`42s ago`, `in 3m`) are taken out of a sentence.
fn without_ages(text: &str) -> String {
    text.split(' ').filter(|word| !is_age(word.as_bytes())).collect::<Vec<_>>().join(" ")
}

fn is_age(word: &[u8]) -> bool {
    let end = word.iter().rposition(|b| !b");,.:".contains(b)).map_or(0, |last| last + 1);
    match &word[..end] {
        [digits @ .., b's' | b'm' | b'h'] if !digits.is_empty() => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Tells what is said, as JSON, from what else could be said: two that differ in an age only are one. Two others that are one by chance (1 in 2^64)
/// leave what was said before until the next change.
pub(crate) fn digest(json: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    json.split(|b| *b == b' ' || *b == b'"').filter(|word| !is_age(word)).for_each(|word| hasher.write(word));
    hasher.finish()
}

/// Since when things are as this status says, where the one before said the same of them; else since `now`.
pub(crate) fn add_times(status: &mut Value, before: &Value, now: &str) {
    let same = |one: &Value, other: &Value, keys: &[&str]| keys.iter().all(|key| one.get(key) == other.get(key));
    let mut keep = |list: &str, of: &[&str], time: &str| {
        let old = before.get(list).and_then(Value::as_array);
        for item in status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let known = old.into_iter().flatten().find(|o| same(item, o, of)).and_then(|o| o.get(time)).cloned();
            item[time] = known.unwrap_or_else(|| now.into());
        }
    };
    keep("conditions", &["type", "status"], "lastTransitionTime");
    keep("waits", &["reason"], "since");
    for (name, plane) in status.get_mut("planes").and_then(Value::as_object_mut).into_iter().flatten() {
        let old = before.get("planes").and_then(|planes| planes.get(name)).filter(|old| same(plane, old, &["have"]));
        plane["since"] = old.and_then(|old| old.get("since")).cloned().unwrap_or_else(|| now.into());
    }
}

/// The status of the binding that holds, or wants to hold, the server.
pub(crate) fn binding(holder: &Holder, want: &Desired, seen: &Observed, plan: &Plan, busy: &[String], now: Tick) -> BindingStatus {
    let planes = planes(holder, want, seen);
    let mut pending: Vec<String> = busy.to_vec();
    pending.extend(plan.steps.iter().chain(&plan.held).map(|s| s.op.to_string()));
    pending.dedup();
    let waits = waits(plan);
    let mut conditions = Conditions::of(holder.authority.generation);
    summarise(&mut conditions, holder, seen, plan, &planes, busy);
    for (plane, kind) in [("power", "PowerReady"), ("boot", "BootReady"), ("network", "NetworkReady")] {
        let Some(p) = planes.get(plane) else { continue };
        let status = if p.have == "Unknown" { Truth::Unknown } else { truth(p.in_sync) };
        let message = if p.in_sync { p.have.clone() } else { format!("{} is wanted, {} is seen", p.want, p.have) };
        conditions.set(kind, status, if p.in_sync { "InSync" } else { "Differs" }, message);
    }
    units(&mut conditions, holder, seen);
    agent(&mut conditions, holder, seen, now);
    BindingStatus {
        observed_generation: holder.authority.generation,
        conditions: conditions.done(),
        server: Some(want.server.clone()),
        restarted: if seen.body.held_by.as_ref().is_some_and(|hold| hold.uid == holder.authority.uid) { seen.body.restart_done } else { 0 },
        planes,
        waits,
        pending,
    }
}

/// A binding whose server is not there; nothing where it is: then that is planned, and says how it stands.
pub(crate) fn without_server(cache: &Cache, name: &Name) -> Option<BindingStatus> {
    let held = cache.objects.bindings.get(name)?;
    let server = held.spec.target.server.as_ref().filter(|server| !cache.objects.servers.contains_key(*server))?;
    let mut conditions = Conditions::of(held.meta.generation);
    let (reason, message) = (Reason::ServerMissing.as_str(), format!("there is no server {server}"));
    conditions.set("Ready", Truth::False, reason, message.clone());
    conditions.set("Reconciling", Truth::False, "Idle", "");
    conditions.set("Stalled", Truth::True, reason, message);
    let server = cache.held_by(name).next().cloned();
    Some(BindingStatus { observed_generation: held.meta.generation, conditions: conditions.done(), server, ..BindingStatus::default() })
}

/// What a system that said hello told of its units. It holds nothing up: what is Ready is what the manifests ask for.
fn units(conditions: &mut Conditions, holder: &Holder, seen: &Observed) {
    let run = seen.body.evidence.get(&holder.persona).filter(|e| e.phase == Phase::Started).and_then(|e| e.run.as_ref());
    let Some(run) = run.filter(|run| holder.says_hello && run.hello.is_some()) else { return };
    match run.failed.as_slice() {
        [] => conditions.set("UnitsRunning", Truth::True, "NoneFailed", "none had failed when it came up"),
        failed => conditions.set("UnitsRunning", Truth::False, "UnitsFailed", format!("failed when it came up: {}", failed.join(", "))),
    }
}

/// What the agent of a system says again and again: no evidence, and nothing is done for it.
fn agent(conditions: &mut Conditions, holder: &Holder, seen: &Observed, now: Tick) {
    if !starting::has_agent(holder, seen) {
        return;
    }
    let heard = seen.memory.heard;
    if heard.is_silent(now) {
        let silent =
            format!("its agent has not said for {} that the system is up", crate::plan::power::seconds(limits::AGENT_HEARD_WITHIN));
        return conditions.set("AgentHeard", Truth::Unknown, "Silent", silent);
    }
    conditions.set("AgentHeard", Truth::True, "Heard", "its agent says that the system is up");
    match (heard.written_most, heard.is_filling()) {
        (0, _) => {}
        (_, false) => conditions.set("RootHasRoom", Truth::True, "Room", "less than 80% of the memory for what it writes is taken"),
        (most, true) => {
            let message = format!(
                "80% and more of the {} MiB of memory for what it writes over its root are taken: see `root.overlay.size`",
                most >> 20
            );
            conditions.set("RootHasRoom", Truth::False, "Filling", message);
        }
    }
}

fn summarise(
    conditions: &mut Conditions,
    holder: &Holder,
    seen: &Observed,
    plan: &Plan,
    planes: &BTreeMap<String, PlaneStatus>,
    busy: &[String],
) {
    let lives = match holder.state {
        RunState::Running => {
            seen.body.evidence.get(&holder.persona).is_some_and(|e| e.stands() && e.phase == Phase::Started && starting::came_up(holder, e))
        }
        RunState::Stopped => seen.body.evidence.is_empty(),
    };
    let in_sync = planes.values().all(|p| p.in_sync);
    let blind = seen.power.is_none() || seen.bmc_trouble.is_some();
    // A restart that was only begun looks like the state before it.
    let under_way = !busy.is_empty() || !plan.steps.is_empty() || !plan.held.is_empty() || seen.body.off.is_some();
    // What is booted once is not what the binding says.
    let ready = lives && in_sync && !blind && plan.problems.is_empty() && !under_way && holder.once.is_none();
    let (reason, message) = reason(plan, seen, busy, ready);
    let status = if ready {
        Truth::True
    } else if blind {
        Truth::Unknown
    } else {
        Truth::False
    };
    conditions.set("Ready", status, reason.as_str(), message.clone());
    let stalled = plan.problems.first().map(|p| (p.reason, p.message.clone())).or_else(|| {
        let person = plan.waits.iter().find(|w| w.reason.needs_a_person());
        person.map(|w| (w.reason, w.message.clone()))
    });
    let moving = !ready && stalled.is_none();
    conditions.set(
        "Reconciling",
        truth(moving),
        if moving { reason.as_str() } else { "Idle" },
        if moving { message } else { String::new() },
    );
    let (reason, message) = stalled.clone().map_or(("Free", String::new()), |(reason, message)| (reason.as_str(), message));
    conditions.set("Stalled", truth(stalled.is_some()), reason, message);
    up_to_date(conditions, holder, seen);
}

/// Whether what was answered is what would be answered now: an edit takes effect at the next start that embody makes.
fn up_to_date(conditions: &mut Conditions, holder: &Holder, seen: &Observed) {
    if !seen.body.evidence.contains_key(&holder.persona) {
        return;
    }
    match outdated(holder, seen) {
        Some(why) => conditions.set("UpToDate", Truth::False, "RestartNeeded", why),
        None => conditions.set("UpToDate", Truth::True, "Current", format!("content {}", holder.snapshot.digest)),
    }
}

/// What it was started with is not what the manifests say now: both, and what to do.
pub(crate) fn outdated(holder: &Holder, seen: &Observed) -> Option<String> {
    let was = &seen.body.evidence.get(&holder.persona)?.snapshot;
    let is = &holder.snapshot;
    let way = match was.outdated(is) {
        Outdated::No => return None,
        Outdated::Revision if holder.rolls => "its persona's rollout takes it over",
        Outdated::Revision | Outdated::Otherwise => "raise `restart` to take it over",
    };
    let named = |snapshot: &Snapshot| {
        let image = snapshot.root.image.as_ref().map(|image| format!("{}, ", image.name)).unwrap_or_default();
        format!("{image}content {}", snapshot.digest)
    };
    Some(format!("it was started with {}, and the manifests say {} now: {way}", named(was), named(is)))
}

/// The one thing to say first.
fn reason(plan: &Plan, seen: &Observed, busy: &[String], ready: bool) -> (Reason, String) {
    if ready {
        return (Reason::AsDesired, "power, boot and ports are read back as desired".to_owned());
    }
    if let Some(problem) = plan.problems.first() {
        return (problem.reason, problem.message.clone());
    }
    if let Some(trouble) = &seen.bmc_trouble {
        return (trouble.reason, trouble.message.clone());
    }
    if let Some(op) = busy.first() {
        return (Reason::Working, op.clone());
    }
    // That it waits for its ports is a consequence of what keeps the ports.
    let cause = plan.waits.iter().find(|w| w.reason != Reason::PortsFirst);
    if let Some(wait) = cause.or(plan.waits.first()) {
        return (wait.reason, wait.message.clone());
    }
    match plan.steps.first() {
        Some(step) => (Reason::Working, step.op.to_string()),
        None => (Reason::Waiting, "for the next poll".to_owned()),
    }
}

fn waits(plan: &Plan) -> Vec<WaitStatus> {
    let one = |reason: Reason, message: &str, at: &std::panic::Location<'_>| WaitStatus {
        reason: reason.to_string(),
        message: message.to_owned(),
        since: String::new(),
        decided_at: format!("{}:{}", at.file(), at.line()),
    };
    let problems = plan.problems.iter().map(|p| one(p.reason, &p.message, p.decided_at));
    problems.chain(plan.waits.iter().map(|w| one(w.reason, &w.message, w.decided_at))).collect()
}

fn planes(holder: &Holder, want: &Desired, seen: &Observed) -> BTreeMap<String, PlaneStatus> {
    let server = &want.server;
    let plane = |name: &str, want: String, have: String, source: String, in_sync: bool| {
        (name.to_owned(), PlaneStatus { want, have, since: None, source, in_sync })
    };
    let wanted = if holder.state == RunState::Running { Power::On } else { Power::Off };
    let blind = seen.bmc_trouble.is_some();
    let power = seen.power.as_ref().filter(|_| !blind).map_or("Unknown".to_owned(), |p| p.value.to_string());
    let power_sync = power == wanted.to_string();
    let bmc = format!("bmc/{server}");
    let device = seen.boot.as_ref().filter(|_| !blind).map_or("Unknown".to_owned(), |b| b.value.device.to_string());
    let ours = crate::plan::power::boot_device(holder, seen);
    let drift = seen.boot.as_ref().is_some_and(|b| b.value.device != ours && b.value.device != crate::model::fact::BootDevice::None);
    let boot_sync = holder.state == RunState::Stopped || !drift || seen.power.as_ref().is_some_and(|p| p.value == Power::Off);
    let boot_have = if boot_sync && device == "None" { ours.to_string() } else { device };
    let (network_want, network_have) = network_text(holder, seen);
    let network_sync = network::ready(&holder.ports, seen);
    [
        plane("power", wanted.to_string(), power, bmc.clone(), power_sync),
        plane("boot", ours.to_string(), boot_have, bmc, boot_sync),
        plane("network", network_want, network_have, "switches".to_owned(), network_sync),
    ]
    .into()
}

/// All ports that the persona needs, as `tor-1/Gi1/0/1=120`; what is seen of them.
fn network_text(holder: &Holder, seen: &Observed) -> (String, String) {
    let (mut want, mut have) = (Vec::new(), Vec::new());
    for ((switch, port), wanted) in holder.ports.iter().filter(|(_, w)| w.needed) {
        let sight = seen.ports.get(&(switch.clone(), port.clone()));
        let desired: Option<PortConfig> = sight.map(|s| wanted.over(&s.config));
        let plain =
            PortConfig { admin: wanted.admin, untagged: wanted.untagged.flatten(), tagged: wanted.tagged.clone().unwrap_or_default() };
        want.push(format!("{switch}/{port}={}", desired.unwrap_or(plain)));
        have.push(sight.map_or_else(|| "Unknown".to_owned(), |s| format!("{switch}/{port}={}", s.config)));
    }
    if want.is_empty() {
        return ("-".to_owned(), "-".to_owned());
    }
    let unknown = have.iter().all(|h| h == "Unknown");
    (want.join(" "), if unknown { "Unknown".to_owned() } else { have.join(" ") })
}

pub(crate) fn server(cache: &Cache, name: &Name, want: &Desired, seen: &Observed, plan: &Plan) -> ServerStatus {
    let held = cache.objects.servers.get(name);
    let generation = held.map_or(0, |h| h.meta.generation);
    let mut conditions = Conditions::of(generation);
    reachable(&mut conditions, seen.bmc_trouble.as_ref(), seen.power.is_some());
    if let Some(problem) = &want.unresolved {
        conditions.is_not("Ready", problem.reason.as_str(), &problem.message);
    }
    if let Some((_, code)) = &seen.memory.boot_refused {
        let message = format!("its BMC refuses to set the boot device ({code}): what it starts from is up to its firmware");
        conditions.set("BootDeviceSet", Truth::False, Reason::BootDeviceRefused.as_str(), message);
    }
    let facts = cache.bmcs.get(name);
    let mut obligations = Vec::new();
    if let Some(release) = &seen.body.release {
        let open: Vec<String> = plan.steps.iter().chain(&plan.held).map(|s| s.op.to_string()).collect();
        obligations
            .push(format!("released by binding {}: off, ports in quarantine {}", release.binding, open.join(", ")).trim_end().to_owned());
        // Nobody may hold this body any more: then no binding's status says why its release does not go on.
        obligations.extend(plan.problems.iter().map(|p| p.message.clone()).chain(plan.waits.iter().map(|w| w.message.clone())));
    }
    let blind = seen.bmc_trouble.is_some();
    ServerStatus {
        observed_generation: generation,
        conditions: conditions.done(),
        power: seen.power.as_ref().filter(|_| !blind).map_or("Unknown".to_owned(), |p| p.value.to_string()),
        boot: seen.boot.as_ref().map(|b| b.value.device.to_string()),
        bmc: facts.and_then(|f| f.known.seen.as_ref()).map(|s| s.value.identity.clone()),
        bound_to: want.holder.as_ref().map(|h| h.authority.binding.clone()),
        may_run: seen.body.evidence.keys().cloned().collect(),
        obligations,
    }
}

pub(crate) fn switch(cache: &Cache, name: &Name) -> Option<SwitchStatus> {
    let held = cache.objects.switches.get(name)?;
    let mut conditions = Conditions::of(held.meta.generation);
    let known = cache.switches.get(name);
    let seen = known.and_then(|k| k.seen.as_ref()).map(|s| &s.value);
    reachable(&mut conditions, known.and_then(|k| k.trouble.as_ref()), seen.is_some());
    if let Some(seen) = seen {
        let writable = seen.writable.admin && seen.writable.access;
        let (reason, message) = if writable { ("Writable", String::new()) } else { seen.not_writable(name) };
        conditions.set("Writable", truth(writable), reason, message);
        let (reason, message) = match seen.neighbours_told {
            true => ("NeighboursTold", ""),
            false => ("NeighboursNotTold", "it shows neither LLDP or CDP neighbours nor learned addresses: cables are not checked"),
        };
        conditions.set("NeighboursTold", truth(seen.neighbours_told), reason, message.to_owned());
    }
    let ours = cache.unsaved.get(name);
    if let Some(trouble) = ours.and_then(|unsaved| unsaved.trouble.as_ref()) {
        conditions.set("Saved", Truth::False, trouble.reason.as_str(), trouble.message.clone());
    }
    Some(SwitchStatus {
        observed_generation: held.meta.generation,
        conditions: conditions.done(),
        identity: seen.map(|s| s.identity.clone()),
        profile: seen.map_or_else(String::new, |s| s.profile.to_owned()),
        writable: seen.map(|s| s.writable).unwrap_or_default(),
        ports: seen.map_or(0, |s| s.ports.len()),
        unsaved: seen.and_then(|s| s.unsaved).or(ours.map(|_| true)),
        notes: seen.into_iter().flat_map(|s| s.notes.iter().cloned().chain(s.refused.iter().map(refusal))).collect(),
    })
}

fn refusal(refused: &String) -> String {
    format!("it refused to have an object written: {refused}")
}

/// How far the bodies of a persona are; whether all of them were asked.
pub(crate) fn persona(cache: &Cache, name: &Name) -> Option<(bool, PersonaStatus)> {
    let held = cache.objects.personas.get(name)?;
    let progress = cache.progress(name, &held.spec);
    let running = cache.objects.running_of(name);
    let rollout = held.spec.rollout.map(|_| match &progress.stage {
        Stage::Halted(failed) => format!("halted: {failed}"),
        Stage::Paused => format!("paused after {}", progress.updated),
        Stage::Free if progress.updated == running && progress.ready == running => "complete".to_owned(),
        Stage::Free => format!("{} of {running}", progress.updated),
    });
    let (updated, ready) = (progress.updated, progress.ready);
    let bindings = cache.objects.bound(name);
    let mut conditions = Conditions::of(held.meta.generation);
    let (is, reason) = if ready == running { (Truth::True, "AllUp") } else { (Truth::False, "NotAllUp") };
    let down = cache.rollouts.down(name).filter(|_| ready < running);
    let down = down.map_or(String::new(), |of| format!(": {of} is not up, or not known to be (`embody why {of}`)"));
    conditions.set("Ready", is, reason, format!("{ready} of {running} that are to run are up{down}"));
    if let Some(problem) = resolve::missing(references::persona(&held.spec), Kind::Persona, name, &cache.objects) {
        conditions.is_not("Ready", problem.reason.as_str(), &problem.message);
    }
    let conditions = conditions.done();
    let status = PersonaStatus { observed_generation: held.meta.generation, conditions, bindings, running, updated, ready, rollout };
    Some((progress.is_known, status))
}

/// The site's own conditions stand on its Policy.
pub(crate) fn policy(cache: &Cache, site: &BTreeMap<&'static str, SiteCondition>) -> Option<PlainStatus> {
    let held = cache.objects.policies.values().next()?;
    let mut conditions = Conditions::of(held.meta.generation);
    let bad = site.values().find(|w| !w.ok && w.reason != NOT_REACHED);
    let (reason, message) = bad.map_or(("AllWell", String::new()), |w| (w.reason, w.message.clone()));
    conditions.set("Ready", truth(bad.is_none()), reason, message);
    for (condition, word) in site {
        conditions.set(condition, truth(word.ok), word.reason, word.message.clone());
    }
    Some(PlainStatus { observed_generation: held.meta.generation, conditions: conditions.done() })
}

/// Whether the file of a Secret reads.
pub(super) fn secret(generation: u64, reading: Option<&Reading<'_>>) -> PlainStatus {
    let mut conditions = Conditions::of(generation);
    let no = Reason::NoCredentials.as_str();
    let said = match reading {
        Some(Reading::Reads { file }) => Some((Truth::True, "Reads", format!("{file} reads"))),
        Some(Reading::NoMore(why)) => Some((Truth::False, no, format!("{why}; what it held before is still used"))),
        Some(Reading::Never(why)) => Some((Truth::False, no, format!("{why}; the devices that need it are not asked"))),
        Some(Reading::UnderWay) | None => None,
    };
    if let Some((status, reason, message)) = said {
        conditions.set("Readable", status, reason, message.clone());
        conditions.set("Ready", status, reason, message);
    }
    PlainStatus { observed_generation: generation, conditions: conditions.done() }
}

fn reachable(conditions: &mut Conditions, trouble: Option<&Trouble>, seen: bool) {
    let (status, reason, message) = match trouble {
        Some(trouble) => (Truth::False, trouble.reason.as_str(), trouble.message.clone()),
        None if seen => (Truth::True, "Answers", String::new()),
        None => (Truth::Unknown, "NotAskedYet", "it was not asked yet".to_owned()),
    };
    conditions.set("Reachable", status, reason, message.clone());
    conditions.set("Ready", status, reason, message);
}
