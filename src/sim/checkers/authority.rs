//! Invariants 5 and 7: nothing that changes a device leaves after the end of the sender's lease, once a pause was answered, or for another device
//! than the one that is remembered.
//!
//! Leases are known from the service that grants them, pauses from what people were answered, never from what a controller thinks of either.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Judge;
use crate::control::operator::Scope;
use crate::drivers::gate::Key;
use crate::model::fact::Tick;
use crate::model::identity::Identity;
use crate::model::objects::server_switches;
use crate::model::op::Op;
use crate::model::{Kind, Name};
use crate::telemetry;

/// How old an answer may be that a change relies on (`drivers::gate::Freshness`).
const FRESH_AT_MOST: Duration = Duration::from_secs(10);

/// One of the processes that run a controller.
pub type Host = usize;

#[derive(Default)]
pub(super) struct Authority {
    /// When each process began its present controller: what an earlier one counted is forgotten.
    began: BTreeMap<Host, Tick>,
    /// Who may act, and until when by the last word that it got. Nothing: leases are not simulated.
    leases: BTreeMap<Host, Tick>,
    /// Since when, and until when where that was said.
    paused: BTreeMap<Scope, (Tick, Option<Tick>)>,
    /// The ends that were said, by the wall clock, in seconds.
    ends: BTreeMap<Scope, i64>,
    /// Pauses that are over: of what, from, to.
    were_paused: Vec<(Scope, Tick, Tick)>,
    /// What is remembered of devices.
    pins: BTreeMap<(Kind, Name), Identity>,
}

impl Judge {
    /// A controller begins in this process, and knows only what is stored.
    pub fn began(&mut self, host: Host, now: Tick) {
        self.authority.began.insert(host, now);
        self.counts_are_forgotten();
        self.count_may_be_forgotten();
        // It goes by the end that was said, and by the wall clock of now.
        let seconds = telemetry::seconds();
        for (scope, (_, until)) in &mut self.authority.paused {
            let left = self.authority.ends.get(scope).map(|end| Duration::from_secs(u64::try_from(end - seconds).unwrap_or(0)));
            *until = until.map(|until| left.map_or(until, |left| until.min(now.plus(left))));
        }
    }

    pub(super) fn began_at(&self, host: Host) -> Tick {
        self.authority.began.get(&host).copied().unwrap_or(Tick::START)
    }

    /// Whether any process began a controller since then.
    pub(super) fn began_since(&self, since: Tick) -> bool {
        self.authority.began.values().any(|began| *began > since)
    }

    /// The service of leases told this process until when it may act.
    pub fn may_act(&mut self, host: Host, until: Tick) {
        self.authority.leases.insert(host, until);
    }

    /// A pause was answered, perhaps with its end.
    pub fn paused(&mut self, scope: Scope, until: Option<Tick>, now: Tick) {
        self.end_pauses(now);
        // A pause that is there already does not become shorter.
        let before = self.authority.paused.get(&scope).map(|(_, until)| *until);
        if before.is_some_and(|before| before.is_none_or(|before| until.is_some_and(|until| until < before))) {
            return;
        }
        match until {
            Some(until) => {
                let left = i64::try_from(until.since(now).as_secs()).unwrap_or(0);
                self.authority.ends.insert(scope.clone(), telemetry::seconds() + left);
            }
            None => drop(self.authority.ends.remove(&scope)),
        }
        self.authority.paused.entry(scope).or_insert((now, None)).1 = until;
    }

    /// Those that are over by themselves.
    fn end_pauses(&mut self, now: Tick) {
        let over =
            self.authority.paused.iter().filter_map(|(scope, (from, until))| Some((scope.clone(), *from, until.filter(|u| *u <= now)?)));
        let over: Vec<(Scope, Tick, Tick)> = over.collect();
        for (scope, from, until) in over {
            self.authority.paused.remove(&scope);
            self.authority.were_paused.push((scope, from, until));
        }
    }

    /// A person is about to end it.
    pub fn resuming(&mut self, scope: &Scope, now: Tick) {
        self.end_pauses(now);
        if let Some((from, _)) = self.authority.paused.remove(scope) {
            self.authority.were_paused.push((scope.clone(), from, now));
        }
    }

    /// Nobody has paused anything any more.
    pub fn no_more_pauses(&mut self, now: Tick) {
        let all: Vec<Scope> = self.authority.paused.keys().cloned().collect();
        all.iter().for_each(|scope| self.resuming(scope, now));
    }

    fn covers(&self, scope: &Scope, server: &Name) -> bool {
        let body = self.body(server);
        let holds = |binding: &Name| body.release.iter().chain(&body.held_by).any(|h| h.binding == *binding);
        match scope {
            Scope::Everything => true,
            Scope::Object { kind: Kind::Server, name } => name == server,
            Scope::Object { kind: Kind::Binding, name } => body.release.is_none() && holds(name),
            Scope::Object { kind: Kind::Persona, name } => {
                let runs = |binding: &Name| self.objects.bindings.get(binding).is_some_and(|b| b.spec.persona == *name);
                body.release.is_none() && body.held_by.iter().any(|h| runs(&h.binding))
            }
            Scope::Object { kind: Kind::Switch, name } => {
                self.objects.servers.get(server).is_some_and(|held| server_switches(&held.spec).contains(name))
            }
            Scope::Object { .. } | Scope::Labels { .. } | Scope::Breaker => false,
        }
    }

    /// For how long a person had this body paused since a moment.
    pub(super) fn paused_since(&self, server: &Name, since: Tick, now: Tick) -> Duration {
        let open = self.authority.paused.iter().map(|(scope, (from, until))| (scope, *from, until.map_or(now, |until| until.min(now))));
        let all = open.chain(self.authority.were_paused.iter().map(|(scope, from, to)| (scope, *from, *to)));
        let spans = all.filter(|(scope, _, to)| self.covers(scope, server) && *to > since).map(|(_, from, to)| to.since(from.max(since)));
        // Pauses may overlap: the longest is sure.
        spans.max().unwrap_or_default()
    }

    /// Something that changes a device leaves now. `server`: whose it is, where it is somebody's.
    pub(super) fn authorised(&mut self, host: Host, what: &str, server: Option<&Name>, now: Tick) {
        self.ops += 1;
        let about: Vec<&Name> = server.into_iter().collect();
        self.leased(host, what, &about, now);
        self.end_pauses(now);
        let paused = self.authority.paused.iter().find(|(scope, _)| match server {
            Some(server) => self.covers(scope, server),
            None => **scope == Scope::Everything,
        });
        if let Some(since) = paused.map(|(_, (since, _))| now.since(*since)) {
            self.violated(&about, format!("invariant 5: {what} leaves {since:?} after a pause of it was answered"));
        }
    }

    /// A boot answer other than "parked" reaches a machine.
    pub fn answering(&mut self, host: Host, server: &Name, now: Tick) {
        self.leased(host, "a boot answer", &[server], now);
    }

    fn leased(&mut self, host: Host, what: &str, about: &[&Name], now: Tick) {
        if let Some(until) = self.authority.leases.get(&host).copied().filter(|until| now >= *until) {
            let late = now.since(until);
            self.violated(about, format!("invariant 5: {what} leaves controller {host} {late:?} after the end of its lease"));
        }
    }

    pub(super) fn pinned(&mut self, kind: Kind, name: &Name, pin: Identity) {
        self.authority.pins.insert((kind, name.clone()), pin);
    }

    /// Something that changes a device leaves; this is what the device truly shows, since then. The question before it is ten seconds old at most.
    pub fn reaches(&mut self, kind: Kind, name: &Name, shows: Option<&str>, since: Tick, now: Tick) {
        let Some(pin) = self.authority.pins.get(&(kind, name.clone())) else { return };
        let serials = pin.serials.iter();
        let known: Vec<&String> = pin.guid.iter().chain(serials).collect();
        let other = !known.is_empty() && !known.iter().any(|k| Some(k.as_str()) == shows);
        if other && now.since(since) > FRESH_AT_MOST {
            let sentence = format!("invariant 7: a change leaves for {name}, which shows {shows:?}, and {pin} is remembered of it");
            self.violated(&[name], sentence);
        }
    }

    /// A SET leaves.
    pub fn setting(&mut self, host: Host, switch: &Name, key: &Key, now: Tick) {
        let server = match key {
            Key::Port(port) => self.wired(switch, port),
            Key::Power | Key::Boot | Key::Vlan(_) | Key::Saved => None,
        };
        self.authorised(host, &format!("a SET to {switch} ({key:?})"), server.as_ref(), now);
        self.set_leaves(host, switch, key, now);
    }

    /// A datagram leaves for a BMC that is a part of an operation.
    pub fn sending_part(&mut self, host: Host, server: &Name, now: Tick) {
        self.authorised(host, "a part of a change", Some(server), now);
    }

    /// What left as a question changes the device that gets it.
    pub fn past_the_gate(&mut self, device: &Name) {
        self.violated(&[device], format!("invariant 5: {device} is changed by a datagram that did not pass the gate"));
    }

    /// An operation leaves for a BMC.
    pub fn sending(&mut self, host: Host, server: &Name, op: &Op, now: Tick) {
        self.authorised(host, &op.to_string(), Some(server), now);
        self.leaves(host, op, now);
        match op {
            Op::PowerOff { how, .. } => self.switching_off(host, server, *how, now),
            Op::PowerOn { .. } => self.disks.on_leaves(server, now),
            Op::SetBoot { .. } | Op::CreateVlan { .. } | Op::SetPort { .. } | Op::Save { .. } => {}
        }
    }
}
