//! The one task that owns the cache. Messages in (store, workers, people, boot requests), reconciles when names are due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::absorb;
use super::actions::Ask;
use super::cache::{Cache, Pause};
use super::fleet::Fleet;
use super::in_flight::InFlight;
use super::queue::Queue;
use super::records::Ledger;
use super::status_writer::{Site, StatusWriter};
use super::worker::{Job, Outcome, Report};
use crate::boot::answer::Answer;
use crate::clock::Clock;
use crate::drivers::{Depth, Devices};
use crate::limits;
use crate::model::body::{Body, Declaration};
use crate::model::fact::Tick;
use crate::model::identity::Identity;
use crate::model::op::Device;
use crate::model::server::Arch;
use crate::model::{Kind, Mac, Name, Object};
use crate::plan::guardrails::Guardrails;
use crate::plan::record::Record;
use crate::store::{Changes, Expect, Lease, Records, Revision, Store, StoreError, Write, keys};
use crate::telemetry::timestamp;

#[derive(Debug)]
pub enum Message {
    Ask(Ask),
    /// A machine asks what to boot. `uuid` is its SMBIOS UUID, where its firmware says it.
    Boot {
        mac: Mac,
        uuid: Option<String>,
        arch: Arch,
        reply: oneshot::Sender<Answer>,
    },
}

/// What a controller of this process knew when it ended: merged back where a person takes a store that holds less.
#[derive(Debug, Default, Clone)]
pub struct Remembered {
    /// Nobody else acted since: what it does not know of was not there.
    pub(super) all: bool,
    pub(super) bodies: BTreeMap<Name, Body>,
    pub(super) pauses: BTreeMap<String, Pause>,
    pub(super) pins: BTreeMap<(Kind, Name), Identity>,
}

impl Remembered {
    /// Another one may have acted since.
    pub fn may_be_old(&mut self) {
        self.all = false;
    }
}

/// What a controller is made of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub records: Arc<Records>,
    pub devices: Arc<dyn Devices>,
    pub lease: Arc<dyn Lease>,
    pub clock: Clock,
    pub reports: mpsc::Sender<Report>,
    pub site: Site,
    /// Of the controller that this process had before.
    pub remembered: Remembered,
}

pub struct Controller {
    pub(super) cache: Cache,
    pub(super) queue: Queue,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) ledger: Ledger,
    pub(super) lease: Arc<dyn Lease>,
    pub(super) in_flight: InFlight,
    pub(super) guardrails: Guardrails,
    pub(super) fleet: Fleet,
    pub(super) status: StatusWriter,
    /// When the next switch is to be saved.
    save_at: Option<Tick>,
    /// Assessed at, and still to be reconciled.
    todo: BTreeSet<Name>,
    /// Desired state is arriving: since when, and until when to wait for more.
    settling: Option<(Tick, Tick)>,
}

impl Controller {
    /// Loads everything there is. The revision from which to watch on.
    pub async fn load(parts: Parts) -> Result<(Controller, Revision), StoreError> {
        let Parts { store, records, devices, lease, clock, reports, site, remembered } = parts;
        let fleet = Fleet::new(devices, lease.until(), clock, reports);
        let status = StatusWriter::new(Arc::clone(&store), site);
        let mut controller = Controller {
            cache: Cache::default(),
            queue: Queue::default(),
            clock,
            store,
            ledger: Ledger::new(records, remembered),
            lease,
            in_flight: InFlight::default(),
            guardrails: Guardrails::default(),
            fleet,
            status,
            save_at: None,
            todo: BTreeSet::new(),
            settling: None,
        };
        controller.take_over().await?;
        let (entries, revision) = controller.store.list("").await?;
        if let Some(newer) = entries.iter().find(|e| keys::of_newer_version(&e.key)) {
            let why = format!("a newer version has written `{}`: this one does not know what servers run, and does nothing", newer.key);
            return Err(StoreError::Unusable { place: "this prefix".to_owned(), why, source: None });
        }
        for entry in &entries {
            controller.absorb_entry(entry);
        }
        controller.upgrade(&entries).await?;
        controller.cache.doubt_all();
        controller.tell_store();
        controller.tell_breaker();
        controller.default_policy().await?;
        controller.all_workers();
        controller.wake_all();
        Ok((controller, revision))
    }

    /// A site without a Policy gets the one that holds anyway, so that there is an object to look at, to edit, and to hold the site's conditions.
    /// The watch brings it back.
    async fn default_policy(&self) -> Result<(), StoreError> {
        let Ok(name) = crate::model::policy::DEFAULT.parse::<Name>() else { return Ok(()) };
        let mut meta = crate::model::Meta::named(name.clone());
        meta.uid = uuid::Uuid::new_v4().to_string();
        meta.generation = 1;
        meta.creation_timestamp = Some(timestamp());
        let spec = crate::model::Spec::Policy(crate::model::PolicySpec::default());
        let object = Object { meta, spec, status: serde_json::Value::Null };
        let value = serde_json::to_vec(&object.to_json()).unwrap_or_default();
        match self.store.put_if(&keys::object(Kind::Policy, &name), value, Expect::Absent).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Until the channel closes or the store's watch ends.
    pub async fn run(&mut self, mut inbox: mpsc::Receiver<Message>, mut reports: mpsc::Receiver<Report>, mut watch: Changes) {
        let mut site = self.status.subscribe();
        site.mark_changed();
        loop {
            let due = self.queue.next_due().unwrap_or_else(|| self.clock.now().plus(limits::IDLE));
            let due = self.save_at.into_iter().chain(self.ledger.look_at).fold(due, Tick::min);
            let due = if self.todo.is_empty() { due } else { self.clock.now() };
            let due = self.settling.map_or(due, |(_, until)| due.max(until));
            tokio::select! {
                biased;
                change = watch.recv() => match change {
                    Some(Ok(change)) => self.absorb_change(change),
                    Some(Err(error)) => {
                        tracing::warn!(error = %error, "the watch of the store ended; everything is read again");
                        return;
                    }
                    None => return,
                },
                report = reports.recv() => match report {
                    Some(report) => self.absorb_report(report).await,
                    None => return,
                },
                message = inbox.recv() => match message {
                    Some(Message::Ask(ask)) => self.answer(ask).await,
                    Some(Message::Boot { mac, uuid, arch, reply }) => {
                        let answer = self.boot(mac, uuid, arch).await;
                        let _ = reply.send(answer);
                    }
                    None => return,
                },
                attempt = self.fleet.logins.files.next() => self.secret_was_read(attempt),
                // The sender is our own: it does not close while we run.
                _ = site.changed() => self.status.tell_site(&self.cache).await,
                () = tokio::time::sleep_until(self.clock.instant(due)) => {}
            }
            self.work().await;
        }
    }

    /// Everything that is due, in two passes: first how each server stands, then, when the guardrails know of all of them, the steps.
    async fn work(&mut self) {
        self.expire().await;
        self.look_at_store().await;
        self.end_doubt().await;
        let now = self.clock.now();
        match self.settling {
            Some((_, until)) if now < until => return,
            Some(_) => self.settling = None,
            None => {}
        }
        let mut due = Vec::new();
        while let Some(server) = self.queue.pop(now) {
            due.push(server);
        }
        for server in due {
            if !self.todo.contains(&server) && self.assess(&server).await {
                self.todo.insert(server);
            }
        }
        self.apply_guardrails().await;
        // In portions: a boot request must not wait for a thousand servers.
        for _ in 0..limits::RECONCILES_AT_ONCE {
            let Some(server) = self.todo.pop_first() else { break };
            self.reconcile(&server).await;
        }
        self.save_at = self.save_switches();
        self.status.write_changed(&mut self.cache).await;
    }

    /// What the guardrails say of all servers together.
    async fn apply_guardrails(&mut self) {
        let policy = self.cache.objects.policy();
        let bodies = self.cache.objects.servers.len();
        self.guardrails.hold(bodies, &policy.limits, self.clock.now());
        self.cache.stopped_by_guardrails = self.guardrails.held();
        let breaker = self.guardrails.breaker(bodies, &policy.limits, policy.bmc.poll_interval.0 * 2, self.clock.now());
        if let Some(why) = breaker.filter(|_| self.cache.breaker().is_none()) {
            tracing::warn!(message = why.message, "the breaker opens");
            self.open_breaker(why).await;
        }
    }

    /// One change of desired state arrives as many objects: what they ask for together is judged when the last of them is here.
    pub(super) fn desired_changed(&mut self) {
        let now = self.clock.now();
        let first = self.settling.map_or(now, |(first, _)| first);
        let until = now.plus(limits::SETTLE).min(first.plus(limits::SETTLE_MAX));
        self.settling = Some((first, until));
    }

    pub(super) fn wake(&mut self, server: &Name) {
        let now = self.clock.now();
        self.queue.wake(server, now);
    }

    pub(super) fn wake_all(&mut self) {
        let names: BTreeSet<Name> = self.cache.objects.servers.keys().chain(self.cache.bodies.keys()).cloned().collect();
        for name in names {
            self.wake(&name);
        }
    }

    async fn expire(&mut self) {
        let now = self.clock.now();
        self.end_approvals();
        let over: Vec<String> =
            self.cache.pauses.iter().filter(|(_, (_, until))| until.is_some_and(|u| now >= u)).map(|(k, _)| k.clone()).collect();
        for id in &over {
            self.cache.pauses.remove(id);
            // One that stays stored would come back with the next controller, which only errs on the safe side.
            if let Err(error) = self.forget_pause(id).await {
                tracing::warn!(pause = id, error = %error, "the end of a pause could not be stored");
            }
        }
        if !over.is_empty() {
            self.wake_all();
        }
    }

    pub(super) fn wake_binding(&mut self, binding: &Name) {
        let target = self.cache.objects.bindings.get(binding).and_then(|b| b.spec.target.server.clone());
        let others = self.cache.bodies.iter().filter(|(_, b)| {
            b.value.held_by.as_ref().is_some_and(|h| h.binding == *binding)
                || b.value.release.as_ref().is_some_and(|h| h.binding == *binding)
        });
        let names: Vec<Name> = target.into_iter().chain(others.map(|(s, _)| s.clone())).collect();
        for server in names {
            self.wake(&server);
        }
    }

    async fn absorb_report(&mut self, report: Report) {
        if !self.fleet.is_current(&report) {
            return;
        }
        match &report.said {
            Outcome::Done(op, result) => self.came_back(op, report.asked_at, result).await,
            Outcome::Observed(_) => {}
        }
        if report.proved {
            self.remember_login(&report.device).await;
        }
        let changed = absorb::report(&mut self.cache, &report);
        if let (Device::Switch(switch), true, Outcome::Observed(Ok(_))) = (&report.device, report.everything, &report.said) {
            self.cache.cables_told_at.insert(switch.clone(), self.clock.now());
        }
        if let Some((kind, name, pin)) = changed.pin {
            self.remember(kind, name, pin).await;
        }
        if let Some(up) = changed.reachability {
            self.guardrails.flipped(report.device.to_string(), self.clock.now());
            self.status.tell_reachability(&report.device, up, &self.cache).await;
        }
        for server in &changed.servers {
            self.wake(server);
        }
        if let Some((kind, name)) = changed.device {
            self.status.changed(kind, &name);
        }
    }

    /// Remembers what identifies a device, on first sight.
    async fn remember(&mut self, kind: Kind, name: Name, pin: Identity) {
        if self.cache.site_stop().is_some() {
            return;
        }
        let expect = self.cache.pins.get(&(kind, name.clone())).map_or(Expect::Absent, |p| Expect::At(p.revision));
        match self.write_one(Write::put(keys::pin(kind, &name), serde_json::to_vec(&pin).unwrap_or_default(), expect)).await {
            Ok(revision) => self.cache.set_pin(kind, &name, pin, revision),
            Err(error) => tracing::warn!(error = %error, "the identity of a device could not be stored; it is tried again"),
        }
    }

    async fn boot(&mut self, mac: Mac, uuid: Option<String>, arch: Arch) -> Answer {
        let answer = crate::boot::answer::answer(mac, uuid.as_deref(), arch, &self.cache.boot_view(mac));
        // Whatever it is answered: it is not off.
        let Some(server) = self.cache.boot_view(mac).server.cloned() else { return answer };
        let now = self.clock.now();
        self.cache.memory_of(&server).asked_what_to_boot(now);
        let body = self.cache.body(&server);
        let mut records = Vec::new();
        if body.declared.as_ref().is_some_and(|d| d.what != Declaration::OffButRuns) {
            records.push(Record::DeclaredAs(Declaration::OffButRuns));
        }
        if let (Some(uuid), None, Some(_)) = (uuid, &body.smbios, &answer.persona) {
            records.push(Record::Smbios(uuid));
        }
        if !records.is_empty() && !self.record(&server, &records).await {
            // Who it is could not be remembered: it asks again.
            return crate::boot::answer::parked(mac, "the store does not answer");
        }
        self.fleet.send(&Device::Bmc(server.clone()), Job::Observe(Depth::State));
        self.wake(&server);
        answer
    }

    /// Ends all workers, and tells what was known.
    pub async fn close(mut self) -> Remembered {
        let remembered = self.remembers();
        self.fleet.close().await;
        remembered
    }
}
