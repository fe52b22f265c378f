//! Invariants 10 and 11: what needs a person's word leaves only if a person was shown exactly that, and said yes to it.
//!
//! It judges by the text that was shown, and by what leaves; of how the product keeps its approvals it knows nothing. An operation was shown if its
//! line was among those shown, for the binding, generation and persona of then, if it starts from where it was shown to start, or from where a line
//! before it leads to, and if it was not seen done since. Leaves out: whether what was shown is right.

use std::collections::BTreeMap;
use std::time::Duration;

use super::authority::Host;
use super::leaving::{Departure, IN_FLIGHT};
use super::{By, Judge};
use crate::limits;
use crate::model::binding::{Mode, Plane};
use crate::model::fact::{Power, Tick};
use crate::model::objects::Held;
use crate::model::op::Op;
use crate::model::persona::PersonaSpec;
use crate::model::{Name, Object, Spec};
use crate::telemetry;

/// So long nothing but Off was told: then a switching-off was seen done, whatever was sent before.
const SEEN_OFF: Duration = Duration::from_secs(75);

#[derive(Default)]
pub(super) struct Shown {
    versions: BTreeMap<Name, Vec<Version>>,
    words: Vec<Word>,
    /// Who was told of this server nothing but Off, since when.
    off_since: BTreeMap<Name, (Host, Tick)>,
}

/// What a binding was from a moment on.
#[derive(Debug, Clone)]
struct Version {
    from: Tick,
    /// Nothing: it is deleted.
    of: Option<Of>,
}

/// What an approval is for.
#[derive(Debug, Clone, PartialEq)]
struct Of {
    uid: String,
    generation: u64,
    /// As it is answered: the persona's kernel, root and claims.
    persona: String,
    /// The VLANs of the networks that it names.
    vlans: String,
    modes: [Mode; 3],
}

/// A person's yes.
#[derive(Debug, Clone)]
struct Word {
    binding: Name,
    of: Vec<Of>,
    lines: Vec<Line>,
    at: Tick,
    /// The same by the wall clock.
    at_seconds: i64,
    begun: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Line {
    /// What is changed: the power of a server one way or the other, a port.
    what: String,
    from: Option<String>,
    to: String,
    /// What it starts from was told after it was approved.
    reached: bool,
    done: Option<(Host, Tick)>,
}

/// `IPMI s1 soft-off`, `SNMP tor-1 port3 1 → 120`, `IPMI s1 soft-off, hard after 2m`.
fn line(text: &str) -> Line {
    let new = |what: String, from: Option<&str>, to: &str| Line {
        what,
        from: from.map(str::to_owned),
        to: to.to_owned(),
        reached: false,
        done: None,
    };
    let text = text.split(", hard after ").next().unwrap_or(text);
    if let Some((left, to)) = text.split_once(" → ") {
        let words: Vec<&str> = left.splitn(4, ' ').collect();
        return new(words.iter().take(3).copied().collect::<Vec<_>>().join(" "), words.get(3).copied(), to);
    }
    let off = text.strip_suffix(" soft-off").or_else(|| text.strip_suffix(" power off"));
    new(off.map_or_else(|| text.to_owned(), |server| format!("{server} off")), None, "")
}

impl Word {
    /// The line that shows this operation.
    fn shows(&self, op: &Op) -> bool {
        let leaves = line(&op.to_string());
        let same = |shown: &Line| shown.what == leaves.what && shown.to == leaves.to;
        let reached = |at: usize, shown: &Line| {
            let before = self.lines.iter().take(at).any(|l| l.what == leaves.what && Some(&l.to) == leaves.from.as_ref());
            before || shown.from == leaves.from
        };
        self.lines.iter().enumerate().any(|(at, shown)| same(shown) && reached(at, shown))
    }

    /// All its lines that show it were seen done by this process, long enough ago.
    fn is_used_up(&self, departure: &Departure<'_>, began: Tick) -> bool {
        let leaves = line(&departure.op.to_string());
        let old = |(host, at): &(Host, Tick)| *host == departure.host && *at > began && departure.now.since(*at) > IN_FLIGHT;
        let mut lines = self.lines.iter().filter(|l| l.what == leaves.what && l.to == leaves.to);
        lines.all(|l| l.done.as_ref().is_some_and(old))
    }
}

impl Shown {
    /// A copy has left of what was approved: from then on it does not end by time.
    pub(super) fn left(&mut self, departure: &Departure<'_>) {
        for word in self.words.iter_mut().filter(|word| departure.bindings.contains(&word.binding) && word.shows(departure.op)) {
            word.begun = true;
        }
    }

    /// What a binding was at some time since then.
    fn since(&self, binding: &Name, from: Tick) -> Vec<Option<&Of>> {
        let all = self.versions.get(binding).map(Vec::as_slice).unwrap_or_default();
        let first = all.iter().rposition(|version| version.from <= from).unwrap_or(0);
        all.get(first..).unwrap_or_default().iter().map(|version| version.of.as_ref()).collect()
    }

    /// What a binding was since then for so long that everybody knows.
    fn stood_since(&self, binding: &Name, from: Tick, now: Tick) -> impl Iterator<Item = Option<&Of>> {
        let all = self.versions.get(binding).map(Vec::as_slice).unwrap_or_default();
        let until = all.iter().skip(1).map(|next| next.from).chain([now]);
        let stood = move |(version, until): &(&Version, Tick)| version.from >= from && until.since(version.from) > IN_FLIGHT;
        all.iter().zip(until).filter(stood).map(|(version, _)| version.of.as_ref())
    }
}

fn before(now: Tick, by: Duration) -> Tick {
    Tick(now.0.saturating_sub(by.as_micros() as u64))
}

impl Judge {
    // ---- what is shown and said -------------------------------------------------------------------------------------------

    /// A person who was shown these lines at that time is about to say yes to them.
    pub fn says_yes(&mut self, binding: &Name, shown: &[String], shown_at: Tick, now: Tick) {
        let of = self.shown.since(binding, before(shown_at, Duration::from_secs(5))).into_iter().flatten().cloned().collect();
        let lines = shown.iter().map(|text| line(text)).collect();
        self.shown.words.push(Word { binding: binding.clone(), of, lines, at: now, at_seconds: telemetry::seconds(), begun: false });
    }

    /// It was refused for certain.
    pub fn was_refused(&mut self, binding: &Name, now: Tick) {
        if let Some(at) = self.shown.words.iter().rposition(|word| word.binding == *binding && word.at <= now) {
            self.shown.words.remove(at);
        }
    }

    pub(super) fn object_is_shown(&mut self, object: &Object, now: Tick) {
        match &object.spec {
            Spec::Binding(_) => self.version(object.name(), now),
            Spec::Persona(_) | Spec::Policy(_) | Spec::Network(_) => {
                let bindings: Vec<Name> = self.objects.bindings.keys().cloned().collect();
                bindings.iter().for_each(|binding| self.version(binding, now));
            }
            Spec::Secret(_) | Spec::Server(_) | Spec::Switch(_) => {}
        }
    }

    /// What a binding is now.
    pub(super) fn version(&mut self, binding: &Name, now: Tick) {
        let site = self.objects.policy().correct;
        let of = self.objects.bindings.get(binding).map(|held| Of {
            uid: held.meta.uid.clone(),
            generation: held.meta.generation,
            persona: self
                .objects
                .personas
                .get(&held.spec.persona)
                .map(|p| format!("{:?} {:?}", p.spec.root, p.spec.kernel))
                .unwrap_or_default(),
            vlans: self.objects.personas.get(&held.spec.persona).map(|p| self.vlans_of(p)).unwrap_or_default(),
            modes: [Plane::Power, Plane::Boot, Plane::Network].map(|plane| held.spec.mode(plane, site)),
        });
        let versions = self.shown.versions.entry(binding.clone()).or_default();
        if versions.last().is_none_or(|last| last.of != of) {
            versions.push(Version { from: now, of });
        }
    }

    fn vlans_of(&self, persona: &Held<PersonaSpec>) -> String {
        let networks = persona.spec.nics.iter().flat_map(|nic| nic.untagged.iter().chain(&nic.tagged));
        networks.map(|name| format!("{name} {:?} ", self.objects.networks.get(name).map(|n| n.spec.vlan))).collect()
    }

    /// What was restored is not seen done any more.
    pub(super) fn approval_is_stored(&mut self, binding: &Name, by: By) {
        if by == By::Others {
            let lines = self.shown.words.iter_mut().filter(|word| word.binding == *binding).flat_map(|word| &mut word.lines);
            lines.for_each(|line| line.done = None);
        }
    }

    // ---- what is seen done ------------------------------------------------------------------------------------------------

    /// A process was told the power of a server.
    pub(super) fn done_is_told(&mut self, host: Host, server: &Name, power: Power, now: Tick) {
        let (on, off) = (format!("IPMI {server} power on"), format!("IPMI {server} off"));
        let since = match power {
            Power::On => self.shown.off_since.remove(server).map(|_| now),
            Power::Off => {
                let since = self.shown.off_since.entry(server.clone()).or_insert((host, now));
                if since.0 != host {
                    *since = (host, now);
                }
                Some(since.1)
            }
        };
        let is_seen = power == Power::On || since.is_some_and(|since| now.since(since) > SEEN_OFF);
        for word in &mut self.shown.words {
            let Some(line) = word.lines.iter_mut().find(|line| line.done.is_none() && (line.what == on || line.what == off)) else {
                continue;
            };
            let leads_to = if line.what == on { Power::On } else { Power::Off };
            if power != leads_to {
                line.reached = true;
            } else if line.reached && is_seen {
                line.done = Some((host, now));
            }
        }
    }

    // ---- what leaves ------------------------------------------------------------------------------------------------------

    /// Whether a person approved this, for one of those in whose name it may be.
    pub(super) fn is_approved(&self, departure: &Departure<'_>) -> bool {
        let (now, began) = (departure.now, self.began_at(departure.host));
        self.shown.words.iter().filter(|word| departure.bindings.contains(&word.binding)).any(|word| {
            let lately = self.shown.since(&word.binding, before(now, IN_FLIGHT));
            let same = |of: &Of| {
                let what = |of: &Of| (of.uid.clone(), of.generation, of.persona.clone(), of.vlans.clone());
                word.of.iter().any(|w| what(w) == what(of))
            };
            let stands = lately.into_iter().flatten().any(same);
            let was_otherwise = self.shown.stood_since(&word.binding, word.at, now).any(|of| !of.is_some_and(same));
            stands && !was_otherwise && self.is_in_time(word, now) && word.shows(departure.op) && !word.is_used_up(departure, began)
        })
    }

    /// Within an hour, by the clock of the process that was there; what was stored meanwhile is as old as the wall clock says.
    fn is_in_time(&self, word: &Word, now: Tick) -> bool {
        let hour = limits::APPROVAL_FOR;
        let by_the_wall = telemetry::seconds() - word.at_seconds;
        let restarted = self.began_since(word.at);
        word.begun || now.since(word.at) <= hour + IN_FLIGHT || (restarted && u64::try_from(by_the_wall).is_ok_and(|s| s <= hour.as_secs()))
    }

    /// In the mode of approvals all; of a body that was found running what disturbs it.
    pub(super) fn needs_a_word(&mut self, departure: &Departure<'_>) {
        let Departure { op, server, now, .. } = departure;
        let lately = |binding: &Name| self.shown.since(binding, before(*now, IN_FLIGHT));
        let plane = departure.plane();
        let mode = |of: &Of| of.modes[plane as usize];
        let waits = |binding: &Name| {
            let lately = lately(binding);
            !lately.is_empty() && lately.iter().all(|of| of.is_some_and(|of| mode(of) != Mode::Enforce))
        };
        let in_the_mode = !departure.bindings.is_empty() && departure.bindings.iter().all(waits);
        let found_running = departure.on && self.found_running.contains(server) && (departure.disrupts || matches!(op, Op::SetBoot { .. }));
        if (!in_the_mode && !found_running) || departure.ends_what_was_begun || self.is_approved(departure) {
            return;
        }
        let why = if found_running { "it was found running" } else { "its changes wait for an approval" };
        let sentence = format!("invariant 11: {op} leaves for {server}: {why}, and nobody was shown that and said yes to it");
        let about: Vec<&Name> = departure.bindings.iter().chain([server]).collect();
        self.violated(&about, sentence);
    }
}
