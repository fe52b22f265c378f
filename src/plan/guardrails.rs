//! The guardrails across servers: contention, the breaker, the hold on mass changes, bodies unavailable at one time. Pure: ticks in, words out.
//!
//! What one server's plan cannot know: how many others are in the same state. The controller stores who is held and who was disrupted, in their
//! bodies' records, and that the breaker is open; all else is seen anew after a restart, and what is first seen is no drift. Invariant: a guardrail
//! only ever stops steps. Shown by the tests below, `tests/approvals.rs` and the checkers of `tests/simulate.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::desired::Holder;
use super::observed::Trouble;
use crate::model::fact::{Power, Tick};
use crate::model::op::Op;
use crate::model::policy::Limits;
use crate::model::{Name, Reason};

/// Three corrections of one thing in ten minutes: something else changes it, and each correction disturbs.
const CORRECTIONS: usize = 3;
const CONTENTION_WINDOW: Duration = Duration::from_secs(600);
/// Changes that drip in are one change: what was disrupted in the last ten minutes counts with what waits.
pub(crate) const CHANGE_WINDOW: Duration = Duration::from_secs(600);
/// Names in one sentence.
const NAMED: usize = 5;
/// Drift of up to five bodies is an accident of each, whatever the size of the fleet.
const DRIFTED_AT_LEAST: usize = 5;

/// Tells one set of desired state for a server from another: the binding, and what it, its persona and networks make of it. Two that are equal by
/// chance (1 in 2^64) would make a change of desired state count as drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DesiredKey(u64);

impl DesiredKey {
    pub(crate) fn of(holder: &Holder) -> DesiredKey {
        let Holder {
            authority,
            server: _,
            persona,
            snapshot,
            state,
            efi,
            restart,
            ports,
            fetches: _,
            boot_bond: _,
            says_hello: _,
            boot: _,
            once: _,
            rolls,
            problems: _,
            unresolved: _,
        } = holder;
        let mut text = format!("{:?}", (&authority.uid, persona, &snapshot.digest, state, efi, restart, ports));
        // Whoever gives a rollout to what is outdated already desires something else: that is no drift.
        if *rolls {
            text.push_str("rolls");
        }
        // Fixed keys: the same in every process.
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&text, &mut hasher);
        DesiredKey(std::hash::Hasher::finish(&hasher))
    }
}

/// 16 hexadecimal digits; nothing where nobody desires anything of the body.
fn stored(desired: &Option<DesiredKey>) -> String {
    desired.map_or_else(String::new, |DesiredKey(key)| format!("{key:016x}"))
}

fn read(stored: &str) -> Option<DesiredKey> {
    u64::from_str_radix(stored, 16).ok().map(DesiredKey)
}

#[derive(Debug, Default)]
pub(crate) struct Guardrails {
    /// For which desired state a body was last seen as desired, with nothing done for another one since: what differs after that, with the same
    /// desired state, is drift.
    settled: BTreeMap<Name, DesiredKey>,
    /// Bodies that were seen running as they should.
    ran: BTreeSet<Name>,
    drifted: BTreeMap<Name, Drift>,
    /// Devices that began or ceased to answer, and when.
    flipped: BTreeMap<String, Tick>,
    /// Drift that a person has seen and let be corrected.
    lift: BTreeSet<Name>,
    /// Bodies that the desired state of now would disrupt, unasked, and what that is.
    affected: BTreeMap<Name, Change>,
    /// Bodies that were disrupted unasked: when that began last, and for which desired state.
    disrupted: BTreeMap<Name, (Tick, Change)>,
    /// For which desired state.
    held: BTreeMap<Name, Option<DesiredKey>>,
    /// When the hold was judged last: how many may be disrupted unasked, and how many were.
    room: (usize, usize),
    corrections: BTreeMap<(Name, String), VecDeque<Tick>>,
    /// Bindings whose persona embody has taken down and not yet brought back.
    down: BTreeSet<Name>,
    /// Servers that wait until one of those runs again.
    waiting: VecDeque<Name>,
    /// What is affected, disrupted or held is not what it was when that was judged last.
    changed: bool,
    /// Servers that are held or not otherwise than is stored of them.
    unstored: BTreeSet<Name>,
}

/// What disrupts a body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    desired: Option<DesiredKey>,
    /// Other bodies that are disrupted for it: it leads to nothing without that.
    with: BTreeSet<Name>,
}

/// That a body was found otherwise than it was made.
#[derive(Debug)]
struct Drift {
    since: Tick,
    /// It still is. What is corrected at once counts for two polls all the same: in a large fleet each is seen at another moment.
    lasts: bool,
}

/// What a poll at one server's plan tells the guardrails.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    pub server: &'a Name,
    /// What is desired of it, if a binding holds it.
    pub desired: Option<DesiredKey>,
    pub converged: bool,
    /// Its plan has steps, or differs in a way that a mode only shows.
    pub differs: bool,
    /// A step of it disrupts, and no approval covers that step.
    pub disrupts: bool,
    /// Other bodies that are disrupted for it.
    pub with: BTreeSet<Name>,
    /// Nothing: it is not known, or not known any more.
    pub power: Option<Power>,
    /// Its persona was started, is to run, and nothing has begun to end it.
    pub to_run: bool,
}

impl Guardrails {
    /// Whether what differs on this server differs although its desired state have been met before.
    pub(crate) fn is_drift(&self, server: &Name, desired: Option<DesiredKey>) -> bool {
        desired.is_some() && self.settled.get(server).copied() == desired
    }

    pub(crate) fn assess(&mut self, assess: &Standing<'_>, now: Tick) {
        let server = assess.server;
        let drift = assess.differs && self.is_drift(server, assess.desired);
        let fell = self.fell(assess);
        self.note_drift(server, drift, fell, now);
        let change = || Change { desired: assess.desired, with: assess.with.clone() };
        let is = assess.disrupts && !drift;
        self.changed |= match is {
            true if self.affected.get(server).is_some_and(|was| was.desired == assess.desired && was.with == assess.with) => false,
            true => {
                self.affected.insert(server.clone(), change());
                true
            }
            false => self.affected.remove(server).is_some(),
        };
        if !is {
            self.may_end_hold(assess);
        }
        if assess.converged {
            match assess.desired {
                Some(desired) => drop(self.settled.insert(server.clone(), desired)),
                None => drop(self.settled.remove(server)),
            }
            self.lift.remove(server);
        }
    }

    /// Whether it ran, and is off now although it should run: drift, whatever else is desired of it since.
    fn fell(&mut self, assess: &Standing<'_>) -> bool {
        let server = assess.server;
        match (assess.power, assess.to_run) {
            (Some(Power::On), true) => {
                set(&mut self.ran, server, true);
                false
            }
            (Some(Power::Off), to_run) => self.ran.remove(server) && to_run,
            (Some(Power::On), false) => {
                self.ran.remove(server);
                false
            }
            (None, _) => false,
        }
    }

    fn note_drift(&mut self, server: &Name, drift: bool, fell: bool, now: Tick) {
        match (drift || fell, self.drifted.get_mut(server)) {
            (true, Some(known)) if known.lasts => known.lasts = drift,
            (true, _) => drop(self.drifted.insert(server.clone(), Drift { since: now, lasts: drift })),
            // A person has seen it: it does not count once more.
            (false, Some(_)) if self.lift.contains(server) => drop(self.drifted.remove(server)),
            (false, Some(known)) => known.lasts = false,
            (false, None) => {}
        }
    }

    /// Nothing disrupts this body at present that is not approved. It may be paused, not answer, or be off: another stop, or an accident, is no word
    /// about this one. Nor is an approval about more than it lists: what that does not list stays held, until all is as desired.
    fn may_end_hold(&mut self, assess: &Standing<'_>) {
        let server = assess.server;
        let Some(held) = self.held.get(server).copied() else { return };
        let back = assess.desired.is_some() && self.settled.get(server).copied() == assess.desired;
        let otherwise = held != assess.desired;
        if assess.converged || (otherwise && (assess.power == Some(Power::On) || back)) {
            self.held.remove(server);
        } else if otherwise {
            // What is off, or may be, would be started as nobody was asked about, now as before.
            self.held.insert(server.clone(), assess.desired);
        } else {
            return;
        }
        self.changed = true;
        self.unstored.insert(server.clone());
    }

    pub(crate) fn forget(&mut self, server: &Name) {
        self.settled.remove(server);
        self.ran.remove(server);
        self.drifted.remove(server);
        self.affected.remove(server);
        self.disrupted.remove(server);
        self.held.remove(server);
        self.unstored.remove(server);
        self.lift.remove(server);
        self.changed = true;
    }

    pub(crate) fn flipped(&mut self, device: String, now: Tick) {
        self.flipped.insert(device, now);
    }

    /// The breaker: why all correction stops, when too many bodies drift or change reachability within two polls. `bodies`: all servers.
    pub(crate) fn breaker(&mut self, bodies: usize, limits: &Limits, two_polls: Duration, now: Tick) -> Option<Trouble> {
        if self.drifted.is_empty() && self.flipped.is_empty() {
            return None;
        }
        self.flipped.retain(|_, at| now.since(*at) < two_polls);
        self.drifted.retain(|_, drift| drift.lasts || now.since(drift.since) < two_polls);
        let limit = limits.stop_if_drifted.0.of(bodies).max(DRIFTED_AT_LEAST);
        let drifted = self.drifted.keys().filter(|server| !self.lift.contains(*server));
        let (which, what) = if self.drifted.len() > limit && drifted.clone().count() > limit {
            (drifted.map(Name::as_str).collect(), "bodies drifted")
        } else if self.flipped.len() > limit {
            (self.flipped.keys().map(String::as_str).collect(), "devices began or ceased to answer")
        } else {
            return None;
        };
        let message = format!(
            "{} {what} within {} s ({}), more than {limit}: correction has stopped. See `embody get bindings`; `embody resume breaker` lets it go on",
            Vec::len(&which),
            two_polls.as_secs(),
            some(&which)
        );
        Some(Trouble { reason: Reason::BreakerOpen, message })
    }

    /// A person has looked: what drifts now may be corrected, and what flipped is forgotten.
    pub(crate) fn lift(&mut self) {
        self.drifted.retain(|_, drift| drift.lasts);
        self.lift = self.drifted.keys().cloned().collect();
        self.flipped.clear();
    }

    /// Something is done for this desired state: what a body was before it is past.
    pub(crate) fn acts(&mut self, server: &Name, desired: Option<DesiredKey>) {
        if self.settled.get(server).copied() != desired {
            self.settled.remove(server);
        }
    }

    /// The hold: bodies that changes of desired state would disrupt, when they and those that were disrupted a moment ago are more than the Policy
    /// lets go unasked. What was begun is not held in its middle. Whether anything may be otherwise than when it was asked last: as time passes, less
    /// counts, and what is held stays so.
    pub(crate) fn hold(&mut self, bodies: usize, limits: &Limits, now: Tick) -> bool {
        if !std::mem::take(&mut self.changed) {
            return false;
        }
        self.disrupted.retain(|_, (at, _)| now.since(*at) < CHANGE_WINDOW);
        // What was begun is ended, with all that it needs. What else is desired of a body that was disrupted is another change of it.
        let is_begun = |server: &Name, change: &Change| {
            let begun = self.disrupted.get(server).is_some_and(|(_, of)| of.desired == change.desired);
            begun || self.disrupted.values().any(|(_, of)| of.with.contains(server))
        };
        let waiting: Vec<(&Name, &Change)> = self.affected.iter().filter(|(server, change)| !is_begun(server, change)).collect();
        let all = waiting.iter().flat_map(|(server, change)| std::iter::once(*server).chain(&change.with));
        let further: BTreeSet<&Name> = all.filter(|server| !self.disrupted.contains_key(*server)).collect();
        self.room = (limits.max_affected_by_change.of(bodies), self.disrupted.len());
        if self.disrupted.len() + further.len() > self.room.0 {
            let waiting: Vec<(Name, Option<DesiredKey>)> =
                waiting.iter().map(|(server, change)| ((*server).clone(), change.desired)).collect();
            self.unstored.extend(
                waiting.iter().filter(|(server, desired)| self.held.get(server) != Some(desired)).map(|(server, _)| server.clone()),
            );
            self.held.extend(waiting);
        }
        true
    }

    /// Those that changes have disrupted, unasked, a moment ago.
    pub(crate) fn disrupted_lately(&self, now: Tick) -> impl Iterator<Item = &Name> {
        self.disrupted.iter().filter(move |(_, (at, _))| now.since(*at) < CHANGE_WINDOW).map(|(server, _)| server)
    }

    /// Whose hold is to be stored, or that it has none any more.
    pub(crate) fn take_unstored(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.unstored)
    }

    /// It could not be stored.
    pub(crate) fn is_unstored(&mut self, server: &Name) {
        self.unstored.insert(server.clone());
    }

    /// As it is stored: for which desired state a server is held.
    pub(crate) fn held_for(&self, server: &Name) -> Option<String> {
        self.held.get(server).map(stored)
    }

    /// An earlier controller held it for this desired state.
    pub(crate) fn was_held(&mut self, server: &Name, desired: &str) {
        self.held.insert(server.clone(), read(desired));
    }

    /// An earlier controller disrupted it then, for this desired state.
    pub(crate) fn was_disrupted(&mut self, server: &Name, at: Tick, desired: &str) {
        let change = || (at, Change { desired: read(desired), with: BTreeSet::new() });
        // What this one has seen itself knows more: what else was begun with it.
        self.disrupted.entry(server.clone()).or_insert_with(change);
        self.changed = true;
    }

    /// For which desired state what disrupts a server now is counted, as it is stored, if it is.
    pub(crate) fn counts_for(&self, server: &Name) -> Option<String> {
        self.affected.get(server).map(|change| stored(&change.desired))
    }

    /// A step that disrupts was sent.
    pub(crate) fn begun(&mut self, server: &Name, now: Tick) {
        if let Some(change) = self.affected.get(server) {
            self.disrupted.insert(server.clone(), (now, change.clone()));
            self.changed = true;
        }
    }

    /// The servers that are held, and why. Who is to approve it depends on in whose name it is done.
    pub(crate) fn held(&self) -> BTreeMap<Name, Trouble> {
        let (limit, lately) = self.room;
        let lately = if lately > 0 { format!(", and have disrupted {lately} in the last ten minutes") } else { String::new() };
        let message = format!(
            "changes would disrupt {} more{lately}; limits.maxAffectedByChange lets them disrupt {limit} unasked",
            servers(self.held.len())
        );
        self.held.keys().map(|server| (server.clone(), Trouble { reason: Reason::Held, message: message.clone() })).collect()
    }

    /// Counts a correction of drift that was made.
    pub(crate) fn corrected(&mut self, server: &Name, op: &Op, now: Tick) {
        let times = self.corrections.entry((server.clone(), thing(op))).or_default();
        while times.front().is_some_and(|t| now.since(*t) >= CONTENTION_WINDOW) {
            times.pop_front();
        }
        times.push_back(now);
    }

    /// Whether the thing was corrected too often to be corrected now, and when it is corrected again.
    pub(crate) fn contended(&self, server: &Name, op: &Op, now: Tick) -> Option<(Trouble, Tick)> {
        let thing = thing(op);
        let times = self.corrections.get(&(server.clone(), thing.clone()))?;
        let lately: Vec<&Tick> = times.iter().filter(|t| now.since(**t) < CONTENTION_WINDOW).collect();
        let first = lately.first().filter(|_| lately.len() >= CORRECTIONS)?;
        let message = format!(
            "{thing} was corrected {CORRECTIONS} times in ten minutes: something else changes it. It is left alone for now; `embody retry server {server}` corrects it at once"
        );
        Some((Trouble { reason: Reason::Contended, message }, first.plus(CONTENTION_WINDOW)))
    }

    /// A person says: try again.
    pub(crate) fn forget_corrections(&mut self, server: &Name) {
        self.corrections.retain(|(s, _), _| s != server);
    }

    /// Whether a body of a running binding may be taken down. `needed_by_down`: another binding that is down waits for this body. If not, its server
    /// waits until there is room.
    pub(crate) fn take_down(
        &mut self,
        server: &Name,
        binding: &Name,
        running: usize,
        needed_by_down: bool,
        limits: &Limits,
    ) -> Result<(), String> {
        let limit = limits.max_unavailable.of(running);
        if self.down.contains(binding) || needed_by_down || self.down.len() < limit {
            self.down.insert(binding.clone());
            return Ok(());
        }
        if !self.waiting.contains(server) {
            self.waiting.push_back(server.clone());
        }
        Err(self.full(limit))
    }

    fn full(&self, limit: usize) -> String {
        let down: Vec<&str> = self.down.iter().map(Name::as_str).collect();
        format!("limit maxUnavailable ({limit}) is reached: {}", some(&down))
    }

    /// Why a server waits to be taken down, if it does.
    pub(crate) fn waits(&self, server: &Name, running: usize, limits: &Limits) -> Option<String> {
        self.waiting.contains(server).then(|| self.full(limits.max_unavailable.of(running)))
    }

    /// An earlier controller has taken it down, and it was not seen to run since.
    pub(crate) fn was_taken_down(&mut self, binding: &Name) {
        self.down.insert(binding.clone());
    }

    /// The servers that waited to be taken down and for which there is room, each taken out.
    pub(crate) fn with_room(&mut self, running: usize, limits: &Limits) -> Vec<Name> {
        let room = limits.max_unavailable.of(running).saturating_sub(self.down.len()).min(self.waiting.len());
        self.waiting.drain(..room).collect()
    }

    pub(crate) fn is_down(&self, binding: &Name) -> bool {
        self.down.contains(binding)
    }

    /// It runs again, is desired to be stopped, or is gone.
    pub(crate) fn is_up(&mut self, binding: &Name) {
        self.down.remove(binding);
    }
}

/// Whether that is new.
fn set(of: &mut BTreeSet<Name>, server: &Name, is: bool) -> bool {
    match is {
        true if of.contains(server) => false,
        true => of.insert(server.clone()),
        false => of.remove(server),
    }
}

/// `a, b, c, d, e and 7 more`.
fn some(names: &[&str]) -> String {
    let (first, more) = names.split_at(names.len().min(NAMED));
    let and = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{and}", first.join(", "))
}

fn servers(count: usize) -> String {
    if count == 1 { "1 server".to_owned() } else { format!("{count} servers") }
}

/// What is corrected, whatever the correction is.
fn thing(op: &Op) -> String {
    match op {
        Op::SetPort { switch, port, .. } => format!("port {port} of switch {switch}"),
        Op::PowerOn { server } | Op::PowerOff { server, .. } => format!("the power of server {server}"),
        Op::SetBoot { server, .. } => format!("the boot device of server {server}"),
        Op::CreateVlan { switch, vlan } => format!("VLAN {vlan} of switch {switch}"),
        Op::Save { switch } => format!("the saved configuration of switch {switch}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn look(guardrails: &mut Guardrails, server: &str, desired: u64, converged: bool, disrupts: bool) {
        let server = name(server);
        guardrails.assess(
            &Standing {
                server: &server,
                desired: Some(DesiredKey(desired)),
                converged,
                differs: !converged,
                disrupts,
                with: BTreeSet::new(),
                power: Some(Power::On),
                to_run: true,
            },
            Tick(9),
        );
    }

    #[test]
    fn six_bodies_that_drift_open_the_breaker_and_a_person_closes_it() {
        let (mut guardrails, limits) = (Guardrails::default(), Limits::default());
        for n in 0..6 {
            look(&mut guardrails, &format!("s{n}"), 1, true, false);
        }
        for n in 0..6 {
            assert_eq!(guardrails.breaker(20, &limits, Duration::from_secs(120), Tick(9)), None, "before body {n} drifts");
            look(&mut guardrails, &format!("s{n}"), 1, false, true);
        }
        assert_eq!(guardrails.breaker(20, &limits, Duration::from_secs(120), Tick(9)).map(|t| t.reason), Some(Reason::BreakerOpen));
        guardrails.lift();
        assert_eq!(guardrails.breaker(20, &limits, Duration::from_secs(120), Tick(9)), None);
    }

    /// In a large fleet each is seen at another moment, and corrected before the next one is.
    #[test]
    fn what_drifts_and_is_corrected_at_once_counts_for_two_polls() {
        let limits = Limits::default();
        let at = |s: u64| Tick(1 + s * 1_000_000);
        let seen = |guardrails: &mut Guardrails, n: u64, differs: bool| {
            let server = name(&format!("s{n}"));
            let power = Some(if differs { Power::Off } else { Power::On });
            let standing = Standing {
                server: &server,
                desired: Some(DesiredKey(1)),
                converged: !differs,
                differs,
                disrupts: false,
                with: BTreeSet::new(),
                power,
                to_run: true,
            };
            guardrails.assess(&standing, at(n * 5));
            guardrails.breaker(20, &limits, Duration::from_secs(60), at(n * 5)).is_some()
        };
        for (apart, opens) in [(1, true), (5, false)] {
            let mut guardrails = Guardrails::default();
            (0..6).for_each(|n| assert!(!seen(&mut guardrails, n, false)));
            let opened = (1..=6).map(|n| n * apart).filter(|n| {
                seen(&mut guardrails, *n, false);
                let open = seen(&mut guardrails, *n, true);
                seen(&mut guardrails, *n, false);
                open
            });
            assert_eq!(opened.count() == 1, opens, "{apart}");
        }
        // What falls while another desired state waits is drift as well.
        let mut guardrails = Guardrails::default();
        for n in 0..6 {
            let server = name(&format!("s{n}"));
            let fallen = |power, differs| Standing {
                server: &server,
                desired: Some(DesiredKey(2)),
                converged: false,
                differs,
                disrupts: false,
                with: BTreeSet::new(),
                power: Some(power),
                to_run: true,
            };
            guardrails.assess(&fallen(Power::On, true), at(0));
            guardrails.assess(&fallen(Power::Off, true), at(n));
        }
        assert!(guardrails.breaker(20, &limits, Duration::from_secs(60), at(9)).is_some());
        guardrails.lift();
        assert!(guardrails.breaker(20, &limits, Duration::from_secs(60), at(9)).is_none());
    }

    #[test]
    fn what_was_never_as_desired_is_no_drift_and_is_held_when_it_is_much() {
        let (mut guardrails, limits) = (Guardrails::default(), Limits::default());
        for n in 0..6 {
            look(&mut guardrails, &format!("s{n}"), 2, false, true);
        }
        assert_eq!(guardrails.breaker(20, &limits, Duration::from_secs(120), Tick(9)), None);
        guardrails.hold(20, &limits, Tick(9));
        assert_eq!(guardrails.held().len(), 6);
        look(&mut guardrails, "s0", 2, false, false);
        assert_eq!(guardrails.held().len(), 6, "an approval that covers it lets that through, and nothing else");
        look(&mut guardrails, "s0", 2, true, false);
        assert!(!guardrails.held().contains_key(&name("s0")), "all is as desired");
    }

    #[test]
    fn what_is_held_stays_so_while_it_is_paused_or_does_not_answer() {
        let (mut guardrails, limits) = (Guardrails::default(), Limits::default());
        for n in 0..6 {
            look(&mut guardrails, &format!("s{n}"), 2, false, true);
        }
        guardrails.hold(20, &limits, Tick(9));
        let server = name("s0");
        let paused = |desired| Standing {
            server: &server,
            desired: Some(DesiredKey(desired)),
            converged: false,
            differs: true,
            disrupts: false,
            with: BTreeSet::new(),
            power: None,
            to_run: true,
        };
        for n in 1..6 {
            look(&mut guardrails, &format!("s{n}"), 2, true, false);
        }
        guardrails.assess(&paused(2), Tick(9));
        guardrails.hold(20, &limits, Tick(9));
        assert_eq!(guardrails.held().keys().collect::<Vec<_>>(), [&server]);
        guardrails.assess(&paused(3), Tick(9));
        assert_eq!(guardrails.held().len(), 1, "something else is desired, and what it does is not known");
        guardrails.assess(&Standing { power: Some(Power::On), ..paused(4) }, Tick(9));
        assert!(guardrails.held().is_empty(), "it is no longer desired");
    }

    #[test]
    fn changes_that_drip_in_are_held_as_one() {
        let (mut guardrails, limits) = (Guardrails::default(), Limits::default());
        let at = |s: u64| Tick(1 + s * 1_000_000);
        for n in 0..5 {
            look(&mut guardrails, &format!("s{n}"), 2, false, true);
            guardrails.hold(20, &limits, at(60 * n));
            assert!(guardrails.held().is_empty(), "{n}");
            guardrails.begun(&name(&format!("s{n}")), at(60 * n));
            // It is off and starts again.
            look(&mut guardrails, &format!("s{n}"), 2, n % 2 == 0, false);
        }
        // One that is under way has another step to go.
        look(&mut guardrails, "s3", 2, false, true);
        look(&mut guardrails, "s5", 2, false, true);
        guardrails.hold(20, &limits, at(300));
        assert_eq!(guardrails.held().keys().collect::<Vec<_>>(), [&name("s5")]);
        // A body that was disrupted is free to end that, and for nothing else.
        look(&mut guardrails, "s0", 2, false, true);
        guardrails.hold(20, &limits, at(300));
        assert!(!guardrails.held().contains_key(&name("s0")));
        look(&mut guardrails, "s0", 3, false, true);
        guardrails.changed = true;
        guardrails.hold(20, &limits, at(300));
        assert!(guardrails.held().contains_key(&name("s0")), "another change");
        // The first of them are past.
        let mut later = Guardrails { held: BTreeMap::new(), ..guardrails };
        later.hold(20, &limits, at(700));
        assert!(later.held().is_empty());
    }

    /// A ring of moves leads to nothing unless all of it is let go.
    #[test]
    fn what_a_change_needs_of_other_bodies_counts_with_it_and_is_ended_with_it() {
        let limits = Limits::default();
        let look = |guardrails: &mut Guardrails, server: &str, with: &[&str]| {
            let server = name(server);
            let with = with.iter().map(|other| name(other)).collect();
            let (desired, power) = (Some(DesiredKey(2)), Some(Power::On));
            let standing =
                Standing { server: &server, desired, converged: false, differs: true, disrupts: true, with, power, to_run: true };
            guardrails.assess(&standing, Tick(9));
            guardrails.hold(20, &limits, Tick(9));
        };
        let mut guardrails = Guardrails::default();
        look(&mut guardrails, "s0", &["s1", "s2", "s3", "s4", "s5"]);
        assert_eq!(guardrails.held().len(), 1, "six of them, of which five may go");
        let mut guardrails = Guardrails::default();
        look(&mut guardrails, "s0", &["s1"]);
        guardrails.begun(&name("s0"), Tick(9));
        for n in 2..7 {
            look(&mut guardrails, &format!("s{n}"), &[]);
        }
        look(&mut guardrails, "s1", &["s0"]);
        assert!(!guardrails.held().contains_key(&name("s1")), "it was begun with the first");
        assert!(guardrails.held().contains_key(&name("s6")));
    }

    #[test]
    fn the_fourth_correction_of_one_thing_in_ten_minutes_is_not_made() {
        let mut guardrails = Guardrails::default();
        let (server, op) = (name("s"), Op::PowerOn { server: name("s") });
        let at = |s: u64| Tick(1 + s * 1_000_000);
        for n in 0..3 {
            assert_eq!(guardrails.contended(&server, &op, at(n)), None);
            guardrails.corrected(&server, &op, at(n));
        }
        let (trouble, again) = guardrails.contended(&server, &op, at(100)).unwrap();
        assert_eq!((trouble.reason, again), (Reason::Contended, at(600)));
        assert_eq!(guardrails.contended(&server, &op, again), None);
        guardrails.forget_corrections(&server);
        assert_eq!(guardrails.contended(&server, &op, at(100)), None);
    }

    #[test]
    fn no_more_bodies_are_taken_down_than_may_be_unavailable() {
        let (mut guardrails, limits) = (Guardrails::default(), Limits::default());
        assert!(guardrails.take_down(&name("s"), &name("a"), 2, false, &limits).is_ok());
        assert!(guardrails.take_down(&name("t"), &name("b"), 2, false, &limits).unwrap_err().contains("maxUnavailable (1)"));
        assert!(guardrails.take_down(&name("t"), &name("b"), 2, true, &limits).is_ok(), "a swap must end");
        assert_eq!(guardrails.with_room(2, &limits), []);
        guardrails.is_up(&name("a"));
        guardrails.is_up(&name("b"));
        assert_eq!(guardrails.with_room(2, &limits), [name("t")], "it waited");
        assert!(guardrails.take_down(&name("u"), &name("c"), 2, false, &limits).is_ok());
    }
}
