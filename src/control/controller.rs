//! The one task that owns the cache. Messages in (store, workers, people, boot requests), reconciles when names are due.
//!
//! One pass: everything that has come in is taken in; then all that is due is planned; then the guardrails judge all of it; then it is sent. Whoever
//! waits for its turn, a place under a limit, or fresh facts waits there, and is woken by what it waits for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use embody_protocol::{Alive, Identity as Who, Question};
use tokio::sync::{mpsc, oneshot};

use super::absorb;
use super::actions::{Ask, seconds_since};
use super::booting::{Answer, Booting, Shared};
use super::cache::{Cache, Stored};
use super::fleet::Fleet;
use super::in_flight::InFlight;
use super::queue::Queue;
use super::reconcile::{Awaited, Planned, Until};
use super::records::{Ledger, Owed};
use super::status_writer::{Site, StatusWriter};
use super::stops::Pause;
use super::systems::{Hello, Identified, Look};
use super::worker::{Outcome, Report};
use crate::boot::answer::{Ask as BootAsk, Parked};
use crate::boot::token::{SiteKey, Token};
use crate::boot::view::Lease;
use crate::clock::Clock;
use crate::drivers::{Depth, Devices};
use crate::limits;
use crate::model::binding::RunState;
use crate::model::body::Body;
use crate::model::fact::Tick;
use crate::model::identity::Identity;
use crate::model::image::{Image, ImageName};
use crate::model::op::Device;
use crate::model::{Kind, Mac, Name, Object};
use crate::plan::guardrails::{CHANGE_WINDOW, Guardrails};
use crate::plan::record::Record;
use crate::store::{Change, Changes, Expect, Lease as StoreLease, Records, Revision, Store, StoreError, keys};
use crate::telemetry::timestamp;

#[derive(Debug)]
pub enum Message {
    Ask(Ask),
    /// A machine asks what to boot. `base` is where it reaches whoever answers: `http://10.1.10.5`.
    Boot {
        ask: BootAsk,
        base: String,
        reply: oneshot::Sender<Answer>,
    },
    /// One was answered from the view that it is parked.
    Parked(Parked),
    /// One asked for an address, or runs and renews it.
    Alive(Name),
    /// Whoever asks with this token is about to be asked for its port: it is told when the switch of this NIC has answered.
    LookAt {
        server: Name,
        token: Token,
        mac: Mac,
        reply: oneshot::Sender<()>,
    },
    /// What runs on a server asks who it is, with this token.
    Identify {
        server: Name,
        token: Token,
        question: Question,
        reply: oneshot::Sender<Identified>,
    },
    /// What is told of a start in plain words: what is nobody else's to know is not in it. Nothing: there is no such start, or it has an agent of ours.
    Describe {
        server: Name,
        token: Token,
        reply: oneshot::Sender<Option<Box<Who>>>,
    },
    /// What runs on a server says hello with this token, and with what it is known by, if it is.
    Hello {
        server: Name,
        token: Token,
        secret: Option<String>,
        /// Units of it that had failed.
        failed: Vec<String>,
        reply: oneshot::Sender<Hello>,
    },
    /// What runs on a server says that it is up still.
    StillUp {
        server: Name,
        token: Token,
        said: Alive,
        reply: oneshot::Sender<Hello>,
    },
    /// Machines are to get these addresses, each on its network: which of them are stored.
    Give {
        addresses: Vec<(Ipv4Addr, Mac, Name)>,
        reply: oneshot::Sender<Vec<bool>>,
    },
    /// Something that boot services saw, as an event about a server: its reason, and the sentence.
    BootEvent {
        server: Name,
        reason: &'static str,
        message: String,
    },
    /// A step of a start failed, or (nothing) what failed before was done now.
    StartFailed {
        server: Name,
        what: Option<String>,
    },
    /// What is up on a server, and is not ready, says what it waits for.
    WaitsFor {
        server: Name,
        what: String,
    },
    /// An image is here whole now, or lacks something.
    Images,
}

/// What a controller of this process knew when it ended: merged back where a person takes a store that holds less.
#[derive(Debug, Default, Clone)]
pub struct Remembered {
    /// Nobody else acted since: what it does not know of was not there.
    pub(super) all: bool,
    pub(super) bodies: BTreeMap<Name, Body>,
    pub(super) pauses: BTreeMap<String, Pause>,
    pub(super) pins: BTreeMap<(Kind, Name), Identity>,
    pub(super) leases: BTreeMap<Ipv4Addr, Lease>,
    pub(super) images: BTreeMap<ImageName, Image>,
    pub(super) key: Option<SiteKey>,
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
    pub lease: Arc<dyn StoreLease>,
    pub clock: Clock,
    pub reports: mpsc::Sender<Report>,
    pub site: Site,
    /// Of the controller that this process had before.
    pub remembered: Remembered,
    /// What boot services of this process answer from.
    pub boot: Shared,
}

pub struct Controller {
    pub(super) cache: Cache,
    pub(super) queue: Queue,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) ledger: Ledger,
    pub(super) lease: Arc<dyn StoreLease>,
    pub(super) in_flight: InFlight,
    pub(super) guardrails: Guardrails,
    pub(super) fleet: Fleet,
    pub(super) status: StatusWriter,
    pub(super) booting: Booting,
    pub(super) looks: Vec<Look>,
    /// Switches that were changed and not saved, and when it is to be looked at whether they can be.
    pub(super) saves: BTreeMap<Name, Tick>,
    /// Everything that was stored when the term began is known.
    pub(super) is_loaded: bool,
    /// When it is looked next whose hour is over.
    pub(super) approvals_end_at: Tick,
    /// When a limit that somebody waits for has room again, by time alone.
    room_at: Option<Tick>,
    /// Assessed, with something to do: first in, first out.
    todo: VecDeque<Name>,
    /// The same.
    waiting: BTreeSet<Name>,
    /// Servers for which another look is news although it shows the same.
    pub(super) awaited: BTreeMap<Name, Awaited>,
    /// Bodies of which a record may have been written or not, as they were known before, and when it is looked next.
    pub(super) unsure: BTreeMap<Name, (Option<Stored<Body>>, Option<Revision>)>,
    pub(super) unsure_until: Tick,
    /// What is to be remembered of devices, and is not stored yet.
    pub(super) owed: Owed,
    /// Desired state is arriving: since when, and until when to wait for more.
    settling: Option<(Tick, Tick)>,
}

impl Controller {
    /// Loads everything there is. The revision from which to watch on.
    pub async fn load(parts: Parts) -> Result<(Controller, Revision), StoreError> {
        let Parts { store, records, devices, lease, clock, reports, site, remembered, boot } = parts;
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
            booting: Booting::new(boot),
            looks: Vec::new(),
            saves: BTreeMap::new(),
            is_loaded: false,
            approvals_end_at: Tick::START,
            room_at: None,
            todo: VecDeque::new(),
            waiting: BTreeSet::new(),
            awaited: BTreeMap::new(),
            unsure: BTreeMap::new(),
            unsure_until: Tick::START,
            owed: Owed::default(),
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
        controller.count_taken_down();
        controller.hold_what_was_held();
        controller.cache.doubt_all();
        controller.tell_store();
        controller.tell_breaker();
        controller.default_policy().await?;
        controller.site_key().await?;
        controller.all_workers();
        controller.tell_secrets();
        controller.doubt_rollouts();
        controller.is_loaded = true;
        controller.wake_all();
        controller.publish();
        Ok((controller, revision))
    }

    /// What an earlier controller was about to switch off and on again counts with what this one will: the limit is the site's.
    pub(super) fn count_taken_down(&mut self) {
        for body in self.cache.bodies.values().map(|body| &body.value).filter(|body| body.off.is_some()) {
            let binding = body.release.as_ref().or(body.held_by.as_ref()).and_then(|hold| self.cache.objects.bindings.get(&hold.binding));
            if let Some(held) = binding.filter(|held| held.spec.state == RunState::Running) {
                self.guardrails.was_taken_down(&held.meta.name);
            }
        }
    }

    /// Only the word for it lifts a hold, and what an earlier controller disrupted counts for as long as if it had been this one. Where somebody has set
    /// the clock back since, it counts as of now.
    pub(super) fn hold_what_was_held(&mut self) {
        let servers: Vec<Name> = self.cache.bodies.keys().cloned().collect();
        servers.iter().for_each(|server| self.hold_as_stored(server));
        self.cache.stopped_by_guardrails = self.guardrails.held();
    }

    /// That an object was away is no word about what is to be done to its body.
    pub(super) fn hold_as_stored(&mut self, server: &Name) {
        let now = self.clock.now();
        let Some(Stored { value: body, .. }) = self.cache.bodies.get(server) else { return };
        if let Some(desired) = &body.held {
            self.guardrails.was_held(server, desired);
        }
        let Some(disrupted) = &body.disrupted else { return };
        let ago = seconds_since(&disrupted.at);
        if ago < CHANGE_WINDOW.as_secs() {
            self.guardrails.was_disrupted(server, Tick(now.0.saturating_sub(ago * 1_000_000)), &disrupted.desired);
        }
    }

    /// A hold outlives the controller that made it.
    async fn store_holds(&mut self) {
        if self.cache.site_stop().is_some() {
            return;
        }
        let (unsure, news): (Vec<Name>, Vec<Name>) =
            self.guardrails.take_unstored().into_iter().partition(|server| self.unsure.contains_key(server));
        let mut recordings = Vec::new();
        for server in &news {
            let held = self.guardrails.held_for(server);
            if self.cache.bodies.get(server).is_some_and(|body| body.value.held != held) {
                recordings.push(self.begin_recording(server, vec![Record::Held(held)]));
            }
        }
        let wanted: Vec<Name> = recordings.iter().map(|recording| recording.server.clone()).collect();
        let stored: BTreeSet<Name> = self.store_all(recordings).await.into_iter().collect();
        let missing = wanted.iter().filter(|server| !stored.contains(*server));
        missing.chain(&unsure).for_each(|server| self.guardrails.is_unstored(server));
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

    /// Until a channel closes.
    pub async fn run(&mut self, mut inbox: mpsc::Receiver<Message>, mut reports: mpsc::Receiver<Report>, watch: Changes) {
        let mut site = self.status.subscribe();
        site.mark_changed();
        // What was found while nobody could be told.
        self.images_changed();
        // Without it nobody knows what is desired: nothing is planned.
        let (mut watch, mut watch_at) = (Some(watch), Tick::START);
        let mut next_turn = Tick::START;
        loop {
            let due = if watch.is_some() { self.due() } else { watch_at };
            tokio::select! {
                biased;
                change = next(&mut watch) => self.absorb_watched(change, &mut watch),
                report = reports.recv() => match report {
                    Some(report) => self.absorb_report(report).await,
                    None => return,
                },
                message = inbox.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                attempt = self.fleet.logins.files.next() => self.secret_was_read(attempt),
                // The sender is our own: it does not close while we run.
                _ = site.changed() => self.status.tell_site(&self.cache),
                () = tokio::time::sleep_until(self.clock.instant(due)) => {}
            }
            // What comes soon after one another is one turn.
            tokio::time::sleep_until(self.clock.instant(next_turn)).await;
            self.absorb_what_is_there(&mut inbox, &mut reports, &mut watch).await;
            if watch.is_none() && self.clock.now() >= watch_at {
                watch = self.watch_again().await;
                watch_at = self.clock.now().plus(limits::RETRY_FIRST);
            }
            if watch.is_some() {
                self.work().await;
            }
            self.publish();
            self.status.write_changed(&self.cache);
            next_turn = self.clock.now().plus(limits::BETWEEN_TURNS);
        }
    }

    /// When there is something to do, if nothing comes in.
    fn due(&self) -> Tick {
        let now = self.clock.now();
        if !self.todo.is_empty() && self.settling.is_none() {
            return now;
        }
        let times =
            self.queue.next_due().into_iter().chain(self.saves.values().min().copied()).chain(self.room_at).chain(self.ledger.look_at);
        let times = times.chain((!self.unsure.is_empty()).then_some(self.unsure_until));
        let due = times.fold(now.plus(limits::IDLE), Tick::min);
        // Nothing before it is settled, and then what is said of it, also where no server waits for that.
        self.settling.map_or(due, |(_, until)| until)
    }

    /// Before anything is planned: what else has come in. A source that does not end shall not keep the others waiting.
    async fn absorb_what_is_there(
        &mut self,
        inbox: &mut mpsc::Receiver<Message>,
        reports: &mut mpsc::Receiver<Report>,
        watch: &mut Option<Changes>,
    ) {
        for _ in 0..limits::ABSORBED_AT_ONCE {
            let Some(change) = watch.as_mut().and_then(Changes::try_recv) else { break };
            self.absorb_watched(Some(change), watch);
        }
        for _ in 0..limits::ABSORBED_AT_ONCE {
            let Ok(report) = reports.try_recv() else { break };
            self.absorb_report(report).await;
        }
        for _ in 0..limits::ANSWERED_AT_ONCE {
            let Ok(message) = inbox.try_recv() else { break };
            self.take(message).await;
        }
    }

    fn absorb_watched(&mut self, change: Option<Result<Change, StoreError>>, watch: &mut Option<Changes>) {
        match change {
            Some(Ok(change)) => self.absorb_change(change),
            Some(Err(error)) => {
                tracing::warn!(error = %error, "the watch of the store ended; what is desired is read again");
                *watch = None;
            }
            None => *watch = None,
        }
    }

    /// Reads again what may have changed while nobody watched, and watches on from there.
    async fn watch_again(&mut self) -> Option<Changes> {
        let watched = async {
            let (entries, revision) = self.store.list("").await?;
            Ok::<_, StoreError>((entries, revision, self.store.watch("", revision).await?))
        };
        match watched.await {
            Ok((entries, revision, watch)) => {
                self.absorb_all(entries, revision);
                Some(watch)
            }
            Err(error) => {
                tracing::warn!(error = %error, "the store cannot be read; it is tried again, and nothing is changed until then");
                None
            }
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Ask(ask) => self.answer(ask).await,
            Message::Boot { ask, base, reply } => {
                let answer = self.boot(ask, &base).await;
                // A machine that gave up asks again.
                let _ = reply.send(answer);
            }
            Message::Parked(parked) => self.was_parked(&parked).await,
            Message::Alive(server) => self.asked(&server),
            Message::LookAt { server, token, mac, reply } => self.look_at(&server, &token, mac, reply),
            Message::Identify { server, token, question, reply } => {
                let identified = self.identify(&server, &token, &question).await;
                let _ = reply.send(identified);
            }
            Message::Describe { server, token, reply } => {
                let _ = reply.send(self.described(&server, &token));
            }
            Message::Hello { server, token, secret, failed, reply } => {
                let hello = self.hello(&server, &token, secret.as_deref(), failed).await;
                let _ = reply.send(hello);
            }
            Message::StillUp { server, token, said, reply } => {
                let said = self.still_up(&server, &token, &said).await;
                let _ = reply.send(said);
            }
            Message::Give { addresses, reply } => {
                let given = self.give(addresses).await;
                let _ = reply.send(given);
            }
            Message::StartFailed { server, what } => self.start_failed(&server, what),
            Message::WaitsFor { server, what } => self.waits_for(&server, what),
            Message::Images => self.images_changed(),
            Message::BootEvent { server, reason, message } => {
                self.status.event("Warning", &format!("Server/{server}"), reason, &message);
            }
        }
    }

    /// Everything that is due: how each server stands, and then, when the guardrails know of all of them, the steps.
    async fn work(&mut self) {
        self.make_sure().await;
        self.store_owed().await;
        self.expire().await;
        self.look_at_store().await;
        self.end_doubt().await;
        let now = self.clock.now();
        match self.settling {
            Some((_, until)) if now < until => return,
            Some(_) => self.settling = None,
            None => {}
        }
        self.wake_where_there_is_room();
        let due: Vec<Name> = std::iter::from_fn(|| self.queue.pop(now)).collect();
        // Whoever waits for its turn is planned again when that comes.
        let due: Vec<Name> = due.into_iter().filter(|server| !self.waiting.contains(server)).collect();
        due.iter().for_each(|server| self.stands_otherwise(server));
        let mut fresh = BTreeMap::new();
        let assess = |controller: &mut Controller, planned: Planned| {
            let Some(planned) = controller.assessed(planned) else { return };
            let server = planned.server.clone();
            controller.waiting.insert(server.clone());
            controller.todo.push_back(server.clone());
            if controller.todo.len() <= limits::RECONCILES_AT_ONCE {
                fresh.insert(server, planned);
            }
        };
        self.settle(due, Until::Withdrawal, assess).await;
        self.apply_guardrails().await;
        // In portions: a boot request must not wait for a thousand servers.
        let (mut ready, mut again) = (Vec::new(), Vec::new());
        for _ in 0..limits::RECONCILES_AT_ONCE {
            let Some(server) = self.todo.pop_front() else { break };
            self.waiting.remove(&server);
            match fresh.remove(&server).filter(|planned| self.holds(planned)) {
                Some(planned) => ready.push(planned),
                None => again.push(server),
            }
        }
        self.settle(again, Until::Done, |_, planned| ready.push(planned)).await;
        self.act(ready).await;
        self.wake_where_there_is_room();
        self.save_switches();
    }

    /// Whoever waits at a limit is planned again, one by one, as there is room.
    fn wake_where_there_is_room(&mut self) {
        let now = self.clock.now();
        let objects = &self.cache.objects;
        let (mut servers, again) = self.in_flight.with_room(&objects.policy().limits, now);
        servers.extend(self.guardrails.with_room(objects.running(), &objects.policy().limits));
        self.room_at = again;
        servers.iter().for_each(|server| self.wake(server));
        self.wake_whose_turn_it_is();
    }

    /// What the guardrails say of all servers together.
    async fn apply_guardrails(&mut self) {
        let policy = self.cache.objects.policy();
        let bodies = self.cache.objects.servers.len();
        if self.guardrails.hold(bodies, &policy.limits, self.clock.now()) {
            self.cache.stopped_by_guardrails = self.guardrails.held();
        }
        self.store_holds().await;
        let policy = self.cache.objects.policy();
        // The silence of a device shows when a poll of it has come to its end.
        let two_polls = policy.bmc.poll_interval.0 * 2 + limits::BMC_DEADLINE;
        let breaker = self.guardrails.breaker(bodies, &policy.limits, two_polls, self.clock.now());
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
        let now = self.clock.now();
        self.saves.extend(self.cache.unsaved.keys().map(|switch| (switch.clone(), now)));
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
        let target = self.cache.objects.bindings.get(binding).and_then(|b| b.spec.target.server.as_ref());
        let names: Vec<Name> = target.into_iter().chain(self.cache.held_by(binding)).cloned().collect();
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
            self.owed.logins.insert(report.device.clone());
        }
        if let Device::Switch(switch) = &report.device {
            self.look_whether_to_save(switch);
        }
        let changed = absorb::report(&mut self.cache, &report);
        let mut cables = None;
        if let (Device::Switch(switch), Depth::Everything, Outcome::Observed(Ok(_))) = (&report.device, report.depth, &report.said) {
            self.cache.cables_told_at.insert(switch.clone(), self.clock.now());
            cables = Some(switch.clone());
        }
        if let Some((kind, name, pin)) = changed.pin {
            self.owed.pins.insert((kind, name), pin);
        }
        if let Some(up) = changed.reachability {
            self.guardrails.flipped(report.device.to_string(), self.clock.now());
            self.status.tell_reachability(&report.device, up, &self.cache);
        }
        for server in &changed.servers {
            self.wake(server);
        }
        for server in &changed.looked_at {
            if self.awaits(server, &report.device) {
                self.wake(server);
            }
        }
        if let Some((kind, name)) = changed.device {
            self.status.changed(kind, &name);
        }
        if let Some(switch) = cables {
            self.looked_at(&switch, report.asked_at);
        }
    }

    /// Whether an answer of this device that shows the same is news to the server.
    fn awaits(&self, server: &Name, device: &Device) -> bool {
        self.awaited.get(server).is_some_and(|awaited| match device {
            Device::Bmc(_) => awaited.bmc,
            Device::Switch(_) => awaited.switches,
        })
    }

    /// Ends all workers, and tells what was known.
    pub async fn close(mut self) -> Remembered {
        let remembered = self.remembers();
        self.booting.end();
        self.fleet.close().await;
        self.status.close().await;
        remembered
    }
}

/// Never, where the watch has ended.
async fn next(watch: &mut Option<Changes>) -> Option<Result<Change, StoreError>> {
    match watch {
        Some(watch) => watch.recv().await,
        None => std::future::pending().await,
    }
}
