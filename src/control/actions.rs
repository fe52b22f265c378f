//! What people say and ask, beside their desired state (and approvals: `approve`): pauses, retries, forecasts, `why`. The API's side (`Operators`) sends messages; the
//! controller answers them in its own order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::controller::{Controller, Message};
use super::operator::{Approving, Declaring};
use super::status_writer::SiteCondition;
use super::stops::Pause;
use super::worker::Job;
use crate::control::operator::{
    ApprovalShown, Control, DiscoveredRow, Forecast, ForecastStep, ImageRow, LeaseRow, PauseRow, PortRow, Refusal, Scope, StartRow,
};
use crate::drivers::gate::{Gate, Key};
use crate::limits;
use crate::model::body::BootsOnce;
use crate::model::fact::{Power, Tick};
use crate::model::image::{Image, ImageName};
use crate::model::objects::server_switches;
use crate::model::op::{Device, Disruption, Op};
use crate::model::{Kind, Meta, Name, Object, Objects, Reason};
use crate::plan::forecast::{self, Future};
use crate::plan::observed::{Observed, Trouble};
use crate::plan::{fence, power, rollout};
use crate::store::{Expect, Store, StoreError, Write, keys};
use crate::telemetry::timestamp;

type Reply<T> = oneshot::Sender<T>;

#[derive(Debug)]
pub enum Ask {
    Forecast { changes: Vec<Object>, reply: Reply<Forecast> },
    Why { kind: Kind, name: Name, reply: Reply<Result<String, Refusal>> },
    Ports { reply: Reply<Vec<PortRow>> },
    Pauses { reply: Reply<Vec<PauseRow>> },
    Leases { reply: Reply<Vec<LeaseRow>> },
    Discovered { reply: Reply<Vec<DiscoveredRow>> },
    Starts { server: Option<Name>, reply: Reply<Vec<StartRow>> },
    RotateKey { who: String, reply: Reply<Result<String, Refusal>> },
    ShowApproval { binding: Name, word: Approving, reply: Reply<Result<ApprovalShown, Refusal>> },
    Approve { binding: Name, word: Approving, digest: String, who: String, reply: Reply<Result<String, Refusal>> },
    Declare { server: Name, what: Declaring, reason: String, who: String, reply: Reply<Result<String, Refusal>> },
    BootOnce { server: Name, boots: Option<BootsOnce>, who: String, reply: Reply<Result<String, Refusal>> },
    Images { reply: Reply<Vec<ImageRow>> },
    AddImage { name: ImageName, image: Box<Image>, reply: Reply<Result<String, Refusal>> },
    RemoveImage { name: ImageName, force: bool, who: String, reply: Reply<Result<String, Refusal>> },
    AcceptStore { who: String, reply: Reply<Result<String, Refusal>> },
    CloseBreaker { who: String, reply: Reply<Result<String, Refusal>> },
    Accept { kind: Kind, name: Name, who: String, reply: Reply<Result<String, Refusal>> },
    Retry { kind: Kind, name: Name, who: String, reply: Reply<Result<String, Refusal>> },
    Pause { scope: Scope, reason: String, seconds: Option<u64>, who: String, reply: Reply<Result<String, Refusal>> },
    Resume { scope: Scope, who: String, reply: Reply<Result<String, Refusal>> },
    MayDelete { kind: Kind, name: Name, reply: Reply<Result<(), Refusal>> },
    Alive { binding: Name, reply: Reply<Option<String>> },
}

/// The API's side. While this controller does not act there is no controller to ask.
pub struct Operators {
    pub controller: watch::Receiver<Option<mpsc::Sender<Message>>>,
    pub store: std::sync::Arc<dyn Store>,
    pub lease: &'static str,
}

impl Operators {
    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refusal> {
        // One that has just begun acts in a moment.
        let mut controller = self.controller.clone();
        let acts = tokio::time::timeout(limits::BEGINS_WITHIN, controller.wait_for(Option::is_some));
        let to_controller = acts.await.ok().and_then(Result::ok).and_then(|controller| controller.clone());
        let Some(to_controller) = to_controller else { return Err(self.not_leader().await) };
        let (reply, answer) = oneshot::channel();
        if to_controller.send(Message::Ask(make(reply))).await.is_err() {
            return Err(self.not_leader().await);
        }
        answer.await.map_err(|_| Refusal::Refused { why: "the controller was interrupted; ask again".to_owned() })
    }

    async fn not_leader(&self) -> Refusal {
        let leader = self.store.holder(self.lease).await.ok().flatten().unwrap_or_else(|| "nobody yet".to_owned());
        Refusal::NotLeader { leader }
    }
}

#[async_trait]
impl Control for Operators {
    async fn forecast(&self, changes: Vec<Object>) -> Forecast {
        match self.ask(|reply| Ask::Forecast { changes, reply }).await {
            Ok(forecast) => forecast,
            Err(refusal) => Forecast { problems: vec![refusal.to_string()], ..Forecast::default() },
        }
    }
    async fn why(&self, kind: Kind, name: &Name) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Why { kind, name: name.clone(), reply }).await?
    }
    async fn ports(&self) -> Vec<PortRow> {
        self.ask(|reply| Ask::Ports { reply }).await.unwrap_or_default()
    }
    async fn pauses(&self) -> Vec<PauseRow> {
        self.ask(|reply| Ask::Pauses { reply }).await.unwrap_or_default()
    }
    async fn leases(&self) -> Vec<LeaseRow> {
        self.ask(|reply| Ask::Leases { reply }).await.unwrap_or_default()
    }
    async fn discovered(&self) -> Vec<DiscoveredRow> {
        self.ask(|reply| Ask::Discovered { reply }).await.unwrap_or_default()
    }
    async fn starts(&self, server: Option<Name>) -> Vec<StartRow> {
        self.ask(|reply| Ask::Starts { server, reply }).await.unwrap_or_default()
    }
    async fn rotate_key(&self, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::RotateKey { who: who.to_owned(), reply }).await?
    }
    async fn show_approval(&self, binding: &Name, word: Approving) -> Result<ApprovalShown, Refusal> {
        self.ask(|reply| Ask::ShowApproval { binding: binding.clone(), word, reply }).await?
    }
    async fn approve(&self, binding: &Name, word: Approving, digest: &str, who: &str) -> Result<String, Refusal> {
        let (binding, digest, who) = (binding.clone(), digest.to_owned(), who.to_owned());
        self.ask(|reply| Ask::Approve { binding, word, digest, who, reply }).await?
    }
    async fn declare(&self, server: &Name, what: Declaring, reason: &str, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Declare { server: server.clone(), what, reason: reason.to_owned(), who: who.to_owned(), reply }).await?
    }
    async fn boot_once(&self, server: &Name, boots: Option<BootsOnce>, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::BootOnce { server: server.clone(), boots, who: who.to_owned(), reply }).await?
    }
    async fn images(&self) -> Result<Vec<ImageRow>, Refusal> {
        self.ask(|reply| Ask::Images { reply }).await
    }
    async fn add_image(&self, name: &ImageName, image: Image) -> Result<String, Refusal> {
        self.ask(|reply| Ask::AddImage { name: name.clone(), image: Box::new(image), reply }).await?
    }
    async fn remove_image(&self, name: &ImageName, force: bool, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::RemoveImage { name: name.clone(), force, who: who.to_owned(), reply }).await?
    }
    async fn accept_store(&self, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::AcceptStore { who: who.to_owned(), reply }).await?
    }
    async fn close_breaker(&self, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::CloseBreaker { who: who.to_owned(), reply }).await?
    }
    async fn accept(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Accept { kind, name: name.clone(), who: who.to_owned(), reply }).await?
    }
    async fn retry(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Retry { kind, name: name.clone(), who: who.to_owned(), reply }).await?
    }
    async fn pause(&self, scope: Scope, reason: &str, seconds: Option<u64>, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Pause { scope, reason: reason.to_owned(), seconds, who: who.to_owned(), reply }).await?
    }
    async fn resume(&self, scope: Scope, who: &str) -> Result<String, Refusal> {
        self.ask(|reply| Ask::Resume { scope, who: who.to_owned(), reply }).await?
    }
    async fn may_delete(&self, kind: Kind, name: &Name) -> Result<(), Refusal> {
        self.ask(|reply| Ask::MayDelete { kind, name: name.clone(), reply }).await?
    }
    async fn alive(&self, binding: &Name) -> Result<Option<String>, Refusal> {
        self.ask(|reply| Ask::Alive { binding: binding.clone(), reply }).await
    }
}

/// How many seconds from now an RFC 3339 moment is; 0 when it is past or does not read.
pub(crate) fn seconds_until(moment: &str) -> u64 {
    let Ok(until) = moment.parse::<jiff::Timestamp>() else { return 0 };
    let Ok(now) = timestamp().parse::<jiff::Timestamp>() else { return 0 };
    u64::try_from(until.as_second() - now.as_second()).unwrap_or(0)
}

/// How long ago a moment was, in seconds; none where it is still to come, as where somebody has set the clock back.
pub(super) fn seconds_since(moment: &str) -> u64 {
    let Ok(then) = moment.parse::<jiff::Timestamp>() else { return 0 };
    let Ok(now) = timestamp().parse::<jiff::Timestamp>() else { return 0 };
    u64::try_from(now.as_second() - then.as_second()).unwrap_or(0)
}

impl Controller {
    pub(super) async fn answer(&mut self, ask: Ask) {
        // A reply that nobody waits for any more is no failure.
        match ask {
            Ask::Forecast { changes, reply } => {
                let otherwise = self.reached_otherwise(&changes);
                let (forecast, ops) = self.forecast(changes);
                self.add_writes(forecast, ops, &otherwise, reply);
            }
            Ask::Why { kind, name, reply } => drop(reply.send(self.why(kind, &name))),
            Ask::Ports { reply } => drop(reply.send(self.ports())),
            Ask::Leases { reply } => drop(reply.send(self.leases())),
            Ask::Discovered { reply } => drop(reply.send(self.discovered())),
            Ask::Starts { server, reply } => {
                let rows = self.booting.timelines().starts(server.as_ref(), tokio::time::Instant::now());
                drop(reply.send(rows));
            }
            Ask::RotateKey { who, reply } => {
                let done = self.rotate_key(&who).await;
                drop(reply.send(done));
            }
            Ask::Pauses { reply } => drop(reply.send(self.cache.pauses.values().map(|(pause, _)| pause.row()).collect())),
            Ask::ShowApproval { binding, word, reply } => drop(reply.send(self.show_approval(&binding, &word))),
            Ask::Approve { binding, word, digest, who, reply } => drop(reply.send(self.approve(&binding, &word, &digest, &who).await)),
            Ask::Declare { server, what, reason, who, reply } => drop(reply.send(self.declare(&server, what, &reason, &who).await)),
            Ask::BootOnce { server, boots, who, reply } => drop(reply.send(self.boot_once(&server, boots, &who).await)),
            Ask::Images { reply } => drop(reply.send(self.images())),
            Ask::AddImage { name, image, reply } => drop(reply.send(self.add_image(&name, *image).await)),
            Ask::RemoveImage { name, force, who, reply } => drop(reply.send(self.remove_image(&name, force, &who).await)),
            Ask::AcceptStore { who, reply } => drop(reply.send(self.accept_store(&who).await)),
            Ask::CloseBreaker { who, reply } => drop(reply.send(self.close_breaker(&who).await)),
            Ask::Accept { kind, name, who, reply } => drop(reply.send(self.accept(kind, &name, &who).await)),
            Ask::Retry { kind, name, who, reply } => drop(reply.send(self.retry(kind, &name, &who).await)),
            Ask::Pause { scope, reason, seconds, who, reply } => self.pause(scope, reason, seconds, who, reply).await,
            Ask::Resume { scope, who, reply } => drop(reply.send(self.resume(&scope, &who).await)),
            Ask::MayDelete { kind, name, reply } => drop(reply.send(self.may_delete(kind, &name))),
            Ask::Alive { binding, reply } => drop(reply.send(self.alive(&binding))),
        }
    }

    // ---- forecast ------------------------------------------------------------------------------------------------------

    /// With `changes` laid over the desired state; a new object gets the uid that it would have: one of its own. And the operations of its steps.
    fn forecast(&self, changes: Vec<Object>) -> (Forecast, Vec<Op>) {
        let is_change = !changes.is_empty();
        let mut objects = self.cache.objects.clone();
        for mut change in changes {
            let present = objects.bindings.get(change.name()).filter(|_| change.kind() == Kind::Binding).map(|b| b.meta.clone());
            change.meta.uid = present.map_or_else(|| format!("new-{}", change.name()), |m| m.uid);
            objects.insert(&change);
        }
        let future = self.future(&objects, &|_, _| {});
        let mut forecast = shown(&future);
        if is_change {
            self.foresee_hold(&objects, &future, &mut forecast);
        }
        forecast.waits.extend(turns(&objects, &future));
        (forecast, future.steps.into_iter().map(|s| s.step.op).collect())
    }

    /// Says of a change that it would be held, for it would disrupt too many.
    fn foresee_hold(&self, objects: &Objects, future: &Future, forecast: &mut Forecast) {
        let unasked = future.steps.iter().filter(|s| s.disruption != Disruption::None && !s.held);
        let disrupted: BTreeSet<&Name> = unasked.map(|s| &s.server).collect();
        let limit = objects.policy().limits.max_affected_by_change.of(objects.servers.len());
        let lately = self.guardrails.disrupted_lately(self.clock.now()).filter(|server| !disrupted.contains(server)).count();
        if disrupted.len() + lately <= limit {
            return;
        }
        let held: BTreeSet<&Name> = future.steps.iter().filter(|s| s.held).map(|s| &s.server).chain(disrupted.iter().copied()).collect();
        forecast.held = held.len();
        forecast.waits.push(format!(
            "{} servers would be disrupted, {lately} were in the last ten minutes, and limits.maxAffectedByChange lets {limit} be disrupted unasked: it is held until `embody approve BINDING` of each",
            disrupted.len()
        ));
    }

    /// `said`: what a person would say first, brought into what is seen of a server.
    pub(super) fn future(&self, objects: &Objects, said: &dyn Fn(&Name, &mut Observed)) -> Future {
        let names = objects.servers.keys().chain(self.cache.bodies.keys());
        let mut servers: BTreeMap<Name, Observed> = BTreeMap::new();
        for name in names {
            if !servers.contains_key(name) {
                let want = self.cache.want_with(name, &self.cache.body(name), objects);
                let mut seen = self.cache.seen(name, &want);
                said(name, &mut seen);
                servers.insert(name.clone(), seen);
            }
        }
        let want_of = |name: &Name, body: &crate::model::body::Body| self.cache.want_with(name, body, objects);
        forecast::forecast(servers, &want_of, self.clock.now())
    }

    // ---- words of people -----------------------------------------------------------------------------------------------

    async fn retry(&mut self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        if !self.cache.objects.has(kind, name) {
            return Err(Refusal::NotFound { what: format!("{kind}/{name}") });
        }
        let servers: Vec<Name> = match kind {
            Kind::Server => vec![name.clone()],
            Kind::Switch => {
                self.retry_device(&Device::Switch(name.clone()));
                self.cache.objects.servers_on_switch(name).cloned().collect()
            }
            Kind::Binding => self.cache.objects.bindings.get(name).and_then(|b| b.spec.target.server.clone()).into_iter().collect(),
            Kind::Policy | Kind::Secret | Kind::Network | Kind::Persona => {
                return Err(Refusal::Refused { why: format!("there is nothing to retry for a {kind}") });
            }
        };
        for server in &servers {
            self.in_flight.forget_failures(server);
            self.guardrails.forget_corrections(server);
            let memory = self.cache.memory_of(server);
            memory.on_tries = 0;
            memory.boot_refused = None;
            if kind != Kind::Switch {
                self.retry_device(&Device::Bmc(server.clone()));
                let switches = self.cache.objects.servers.get(server).map(|s| server_switches(&s.spec)).unwrap_or_default();
                for switch in switches {
                    self.fleet.send(&Device::Switch(switch), Job::ForgetRefusals);
                }
            }
            self.wake(server);
        }
        self.status.event("Normal", &format!("{kind}/{name}"), "Retry", &format!("by {who}"));
        Ok(format!("{kind} {name}: failures are forgotten, it is observed now"))
    }

    /// It holds before it is stored; and it is answered when nothing leaves any more.
    async fn pause(&mut self, scope: Scope, reason: String, seconds: Option<u64>, who: String, reply: Reply<Result<String, Refusal>>) {
        if scope == Scope::Breaker {
            return drop(
                reply.send(Err(Refusal::Refused { why: "the breaker opens by itself; `embody pause --all` stops everything".to_owned() })),
            );
        }
        if let Err(refusal) = self.can_be_paused(&scope, seconds) {
            return drop(reply.send(Err(refusal)));
        }
        let until_text = seconds.and_then(|s| {
            let now: jiff::Timestamp = timestamp().parse().ok()?;
            jiff::Timestamp::from_second(now.as_second().saturating_add(i64::try_from(s).ok()?)).ok().map(|t| t.to_string())
        });
        let pause = Pause { scope: scope.clone(), reason, by: who, since: timestamp(), until: until_text };
        let id = pause_id(&scope);
        let until: Option<Tick> = seconds.map(|s| self.clock.now().plus(Duration::from_secs(s)));
        let before = self.cache.pauses.get(&id).cloned();
        // Two people's pauses of one thing are one, which lasts as long as the longer.
        if let Some((before, end)) = before.as_ref().filter(|(_, end)| end.is_none_or(|end| until.is_some_and(|until| until <= end))) {
            let stays = if end.is_none() { "until it is resumed".to_owned() } else { before.until_in_words() };
            let (what, by, why, resume) = (scope.in_words(), &before.by, &before.reason, scope.resume());
            let text = format!("{what} is paused {stays} already, by {by}: {why}; that stays as it is, `{resume}` ends it");
            return drop(reply.send(Ok(text)));
        }
        self.cache.pauses.insert(id.clone(), (pause.clone(), until));
        let half_way = self.void_paused(scope == Scope::Everything);
        let resume = scope.resume();
        self.wake_all();
        let stored = self.put(&keys::pause(&id), serde_json::to_vec(&pause).unwrap_or_default()).await;
        self.status.event("Normal", &id, "Paused", &format!("by {}: {}", pause.by, pause.reason));
        let instead = before.map_or(String::new(), |(before, _)| {
            format!("; in place of the pause {} by {}: {}", before.until_in_words(), before.by, before.reason)
        });
        let nobody = if self.covers_anything(&scope) { "" } else { "; no binding and no server has these labels at present" };
        tokio::spawn(async move {
            let left = finished(half_way).await;
            let until = pause.until_in_words();
            let text = format!("paused {until}: nothing is written, everything is still watched{instead}{nobody}");
            let half_way = match left.as_slice() {
                [] => String::new(),
                left => format!("; left between two states, and ended first after `{resume}`: {}", list(left)),
            };
            let answer = match stored {
                Ok(_) => Ok(format!("{text}{half_way}")),
                Err(why) => Err(Refusal::Store {
                    why: format!("{text}{half_way}; but it is not stored, and is over when this controller ends ({why})"),
                }),
            };
            // A reply that nobody waits for any more is no failure.
            let _ = reply.send(answer);
        });
    }

    fn can_be_paused(&self, scope: &Scope, seconds: Option<u64>) -> Result<(), Refusal> {
        if seconds == Some(0) {
            return Err(Refusal::Refused { why: "a pause of no time is none: say how long, or leave that out".to_owned() });
        }
        match scope {
            Scope::Object { kind, name } if !self.cache.objects.has(*kind, name) => {
                Err(Refusal::NotFound { what: format!("{kind}/{name}") })
            }
            Scope::Object { kind: kind @ (Kind::Network | Kind::Policy | Kind::Secret), .. } => Err(Refusal::Refused {
                why: format!("nothing is done to a {kind}: pause a server, a switch, a binding, a persona, `-l LABELS` or `--all`"),
            }),
            Scope::Object { .. } | Scope::Labels { .. } | Scope::Everything | Scope::Breaker => Ok(()),
        }
    }

    fn covers_anything(&self, scope: &Scope) -> bool {
        let Scope::Labels { match_labels } = scope else { return true };
        let has = |meta: &Meta| match_labels.iter().all(|(k, v)| meta.labels.get(k) == Some(v));
        let objects = &self.cache.objects;
        objects.bindings.values().any(|held| has(&held.meta)) || objects.servers.values().any(|held| has(&held.meta))
    }

    /// Takes back what is on its way and paused. What is between its first and its last datagram may finish: those are given back.
    fn void_paused(&self, everything: bool) -> Vec<HalfWay> {
        let mut half_way = Vec::new();
        if everything {
            for (device, gate) in self.fleet.gates() {
                let gate = Arc::clone(gate);
                let keys = gate.void_all_but_half_way();
                half_way.extend(keys.into_iter().map(|key| HalfWay { gate: Arc::clone(&gate), device: device.clone(), key }));
            }
            return half_way;
        }
        for (op, server) in self.in_flight.iter() {
            let want = self.cache.want(server);
            let bindings = self.cache.acting(server, &want);
            let Some(gate) = self.fleet.gate(&op.device()).filter(|_| bindings.iter().any(|b| self.cache.is_paused(server, b))) else {
                continue;
            };
            let key = Key::of(op);
            match gate.half_way().contains(&key) {
                true => half_way.push(HalfWay { gate: Arc::clone(gate), device: op.device(), key }),
                false => gate.void(&key),
            }
        }
        half_way
    }

    async fn resume(&mut self, scope: &Scope, who: &str) -> Result<String, Refusal> {
        if *scope == Scope::Breaker {
            return self.close_breaker(who).await;
        }
        // The word for one pause is no word for another, which somebody else may have set for another reason.
        // One that did not read counts as one of everything.
        let ids: Vec<String> = self.cache.pauses.iter().filter(|(_, (pause, _))| pause.scope == *scope).map(|(id, _)| id.clone()).collect();
        let others = self.cache.pauses.values().map(|(pause, _)| pause).filter(|pause| pause.scope != *scope);
        let stays = |pause: &Pause| match pause.scope {
            Scope::Breaker => format!("the breaker is open: `{}`", pause.scope.resume()),
            _ => format!("{} is paused by {}: `{}`", pause.scope.in_words(), pause.by, pause.scope.resume()),
        };
        let others: Vec<String> = others.map(stays).collect();
        let others = if others.is_empty() { String::new() } else { format!("; {}", others.join("; ")) };
        if ids.is_empty() {
            let why = format!("{} is not paused{others}", scope.in_words());
            // What it asks for is so: a script may say it without looking.
            return if *scope == Scope::Everything { Ok(why) } else { Err(Refusal::Refused { why }) };
        }
        for id in ids {
            self.forget_pause(&id).await.map_err(in_words)?;
            self.cache.pauses.remove(&id);
            self.status.event("Normal", &id, "Resumed", &format!("by {who}"));
        }
        self.wake_all();
        Ok(format!("{} goes on{others}", scope.in_words()))
    }

    pub(super) async fn forget_pause(&mut self, id: &str) -> Result<(), StoreError> {
        let key = keys::pause(id);
        match self.store.get(&key).await? {
            Some(entry) => self.write_one(Write::delete(key, entry.revision)).await.map(drop),
            None => Ok(()),
        }
    }

    /// It holds before it is stored, and stays until its word is said: another controller finds it open.
    pub(super) async fn open_breaker(&mut self, why: Trouble) {
        let id = pause_id(&Scope::Breaker);
        let pause = Pause { scope: Scope::Breaker, reason: why.message, by: "embody".to_owned(), since: timestamp(), until: None };
        self.cache.pauses.insert(id.clone(), (pause.clone(), None));
        self.tell_breaker();
        self.wake_all();
        if let Err(error) = self.put(&keys::pause(&id), serde_json::to_vec(&pause).unwrap_or_default()).await {
            tracing::warn!(error = %error, "the breaker is open, and that could not be stored; it is tried again");
            self.write_again(keys::Key::Pause(id));
        }
    }

    pub(super) fn tell_breaker(&self) {
        let word = match self.cache.breaker() {
            Some(trouble) => SiteCondition { ok: false, reason: trouble.reason.as_str(), message: trouble.message },
            None => SiteCondition { ok: true, reason: Reason::BreakerClosed.as_str(), message: String::new() },
        };
        tracing::debug!(closed = word.ok, message = word.message, "the breaker");
        self.status.site_is("Correcting", word);
    }

    /// The one word that closes the breaker: another stop's word is not about this.
    async fn close_breaker(&mut self, who: &str) -> Result<String, Refusal> {
        let Some(breaker) = self.cache.breaker() else {
            return Err(Refusal::Refused { why: "the breaker is not open".to_owned() });
        };
        let id = pause_id(&Scope::Breaker);
        self.forget_pause(&id).await.map_err(in_words)?;
        self.cache.pauses.remove(&id);
        self.guardrails.lift();
        self.tell_breaker();
        self.wake_all();
        self.status.event("Normal", "Policy/default", "BreakerClosed", &format!("by {who}: {}", breaker.message));
        Ok("correction goes on".to_owned())
    }

    fn may_delete(&self, kind: Kind, name: &Name) -> Result<(), Refusal> {
        if kind != Kind::Server {
            return Ok(());
        }
        let refuse = |why: String| Err(Refusal::Refused { why });
        if self.cache.unreadable.contains_key(name) {
            return refuse(format!("what is stored of server {name} does not read, so it may run anything"));
        }
        let (body, way, foreign) = (self.cache.body(name), self.way_off(name), fence::foreign(name));
        if body.anything && body.fences() {
            return refuse(format!("nothing is known of what server {name} runs; {way}; or say what is so: {foreign}"));
        }
        if let Some(persona) = body.found_evidence().next() {
            return refuse(format!(
                "server {name} was found running when a binding named it for persona {persona}, and nobody has said what it runs; {way}; or say what is so: {foreign}"
            ));
        }
        match body.evidence.keys().next() {
            Some(persona) => refuse(format!("by evidence server {name} may still run persona {persona}; {way}")),
            None => Ok(()),
        }
    }

    fn alive(&self, binding: &Name) -> Option<String> {
        let target = self.cache.objects.bindings.get(binding).and_then(|held| held.spec.target.server.as_ref());
        let servers: BTreeSet<&Name> = self.cache.held_by(binding).chain(target).collect();
        servers.into_iter().find_map(|server| {
            if self.cache.unreadable.contains_key(server) {
                return Some(format!("what is stored of server {server} does not read, so it may run anything"));
            }
            let body = self.cache.body(server);
            if let Some(persona) = body.evidence.keys().next() {
                return Some(format!("by evidence server {server} may run persona {persona}"));
            }
            match self.cache.bmcs.get(server).and_then(|facts| facts.power.as_ref()).map(|power| power.value) {
                Some(Power::Off) if body.anything => Some(format!("nothing is known of what server {server} runs")),
                Some(Power::Off) => None,
                Some(Power::On) => Some(format!("server {server} is on")),
                None => Some(format!("whether server {server} is on is not known")),
            }
        })
    }

    /// Stores a person's word under its key, whatever is there.
    pub(super) async fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Refusal> {
        let present = self.store.get(key).await.map_err(in_words)?;
        let expect = present.map_or(Expect::Absent, |e| Expect::At(e.revision));
        self.write_one(Write::put(key, value, expect)).await.map(drop).map_err(in_words)
    }
}

pub(super) fn in_words(error: StoreError) -> Refusal {
    Refusal::Store { why: error.to_string() }
}

/// An operation between its first and its last datagram.
struct HalfWay {
    gate: Arc<Gate>,
    device: Device,
    key: Key,
}

/// Waits until they are whole, for `limits::HALF_WAY_WAIT` at most; what is not then is taken back too, and named.
async fn finished(half_way: Vec<HalfWay>) -> Vec<String> {
    let until = Instant::now() + limits::HALF_WAY_WAIT;
    let open = || half_way.iter().filter(|h| h.gate.half_way().contains(&h.key));
    while open().next().is_some() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left: Vec<String> = open().map(|h| format!("{} {}", h.device, h.key)).collect();
    half_way.iter().for_each(|h| h.gate.void(&h.key));
    left
}

/// One pause for each scope: pausing again may make it longer.
fn pause_id(scope: &Scope) -> String {
    match scope {
        Scope::Everything => "everything".to_owned(),
        Scope::Breaker => "breaker".to_owned(),
        Scope::Object { kind, name } => format!("{}.{name}", kind.plural()),
        Scope::Labels { match_labels } => {
            let text: Vec<String> = match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let hex: String = text.join(",").bytes().map(|b| format!("{b:02x}")).collect();
            format!("labels.{hex}")
        }
    }
}

/// The waves show what each body goes through; of a rollout, how many of them do so at one time.
fn turns(objects: &Objects, future: &Future) -> Vec<String> {
    let mut all: BTreeMap<Name, usize> = BTreeMap::new();
    for step in future.steps.iter().filter(|s| matches!(s.step.op, Op::PowerOff { .. })) {
        let rolled = step.step.because.strip_prefix(rollout::BECAUSE).and_then(|rest| rest.split(':').next()?.parse().ok());
        rolled.into_iter().for_each(|persona| *all.entry(persona).or_default() += 1);
    }
    let told = |(persona, bodies): (Name, usize)| {
        let rollout = objects.personas.get(&persona).and_then(|held| held.spec.rollout).unwrap_or_default();
        let running = objects.running_of(&persona);
        let most = rollout.max_unavailable.of(running).max(1);
        let pause = rollout.pause_after.map_or(String::new(), |after| format!(", and it pauses after {after}"));
        format!("the rollout of persona {persona} restarts {bodies} in turns: {most} of {running} may be unavailable{pause}")
    };
    all.into_iter().map(told).collect()
}

/// A forecast as people read it.
pub(super) fn shown(future: &Future) -> Forecast {
    let servers = |held: bool| future.steps.iter().filter(|s| s.held || !held).map(|s| &s.server).collect::<BTreeSet<&Name>>().len();
    let count = |d: Disruption| future.steps.iter().filter(|s| s.disruption == d).count();
    Forecast {
        servers: servers(false),
        link_flaps: count(Disruption::LinkFlap),
        power_offs: count(Disruption::PowerOff),
        held: servers(true),
        steps: future.steps.iter().map(foreseen).collect(),
        waits: future.waits.iter().map(|(server, w)| format!("{server}: {}", w.message)).collect(),
        problems: future.problems.iter().map(|(server, p)| format!("{server}: {}", p.message)).collect(),
    }
}

fn foreseen(step: &forecast::Foreseen) -> ForecastStep {
    let hard = step.hard_after.map_or(String::new(), |grace| format!(", hard after {}", power::seconds(grace)));
    ForecastStep {
        wave: step.wave,
        server: step.server.clone(),
        op: format!("{}{hard}", step.step.op),
        disruption: step.disruption.to_string(),
        because: step.step.because.clone(),
        writes: Vec::new(),
    }
}

pub(super) fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
