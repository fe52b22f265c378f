//! One seed: the whole controller in virtual time, chaos, calm, convergence, silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use embody::testing::cli::serve::run as serve;
use embody::testing::control::actions::Operators as Words;
use embody::testing::limits;
use embody::testing::model::fact::{Admin, Power};
use embody::testing::model::{Kind, Mac, Name, Spec};
use embody::testing::server::api::Backend;
use embody::testing::sim::bmc::BmcConfig;
use embody::testing::sim::centre::{Centre, Runs};
use embody::testing::sim::leases::Leases;
use embody::testing::sim::line::Line;
use embody::testing::sim::network::Wires;
use embody::testing::sim::switch::{Kind as SwitchKind, SimSwitch};
use embody::testing::sim::trial_store::{Full, StoreLuck, TrialStore};
use embody::testing::store::{EmbeddedStore, Entry, Expect, Store, Write, keys};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::checkouts::Checkouts;
use crate::hosts::{Acting, Host, Reach};
use crate::operators::{Operators, guid, server, switch};
use crate::people::listed;
use crate::plan::{Act, Plan};
use crate::tend::TEND_EVERY;

/// Calm begins; so long may it take until everything is as desired, people's words included.
pub const CONVERGES_WITHIN: Duration = Duration::from_secs(3600);
/// All that a device says of itself is read at every fifteenth poll.
const ALL_READ_WITHIN: Duration = Duration::from_secs(360);
/// An hour in every fourth seed. In the others long enough for everything that is done now and then: a full list is made every ten minutes.
const SILENT_FOR: Duration = Duration::from_secs(3600);
const SILENT_AT_LEAST: Duration = Duration::from_secs(900);
/// All faults have ended: a switch is asked again after ten minutes at most, and a start takes one.
const STARTS_AGAIN_WITHIN: Duration = Duration::from_secs(900);

/// Changes of the rules, for the tests of the checkers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// The BMCs report Off while the machines are on.
    ReportsOff,
    /// Machines boot what they booted before, whatever they are answered: as if a withdrawn answer still stood.
    BootsFromMemory,
    /// Drivers send without asking the gate.
    IgnoresTheGate,
    /// What runs says no hello.
    NeverSaysHello,
    /// A store that is full says that it has stored.
    PretendsToStore,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub hash: u64,
    pub events: usize,
    pub ops: u64,
    pub offs: u64,
    /// Of those, by rollouts.
    pub rolled: u64,
    /// From the beginning of calm.
    pub converged_after: Duration,
    pub tended: usize,
}

pub struct Failure {
    pub sentence: String,
    pub story: String,
}

struct Site {
    centre: Arc<Centre>,
    inner: Arc<EmbeddedStore>,
    /// As people and accidents reach it.
    public: Arc<dyn Store>,
    backup: Vec<Entry>,
    leases: Arc<Leases>,
    hosts: Vec<Host>,
    lines: Arc<AtomicU64>,
    sabotage: Sabotage,
}

pub fn run(plan: &Plan, loud: bool, sabotage: Sabotage) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    if loud {
        eprintln!("{plan}");
    }
    let lines = Arc::new(AtomicU64::new(0));
    let _in = runtime.enter();
    embody::testing::telemetry::virtual_from_now();
    let centre = Arc::new(Centre::new(loud));
    let ear = crate::listener::Ear { centre: Arc::clone(&centre), lines: Arc::clone(&lines) };
    let out = tracing::subscriber::with_default(ear, || runtime.block_on(live(plan, Arc::clone(&centre), lines, sabotage)));
    // Tasks hold drivers that hold the centre: they end with the runtime.
    out.map_err(|failure| tell(plan, &centre, failure))
}

struct Broken {
    sentence: String,
    about: Vec<Name>,
}

fn tell(plan: &Plan, centre: &Centre, broken: Broken) -> Failure {
    let mut story = format!("seed {}: {}\n{plan}\n", plan.seed, broken.sentence);
    let state = centre.state();
    let events: Vec<String> = state.trace.last(30, &broken.about).iter().map(|e| format!("  {e}\n")).collect();
    story.push_str(&format!(
        "the last {} events of {:?}:\n{}",
        events.len(),
        broken.about.iter().map(Name::as_str).collect::<Vec<_>>(),
        events.concat()
    ));
    story.push_str(&format!("replay: SEED={} cargo test --test simulate seeds -- --nocapture\n", plan.seed));
    Failure { sentence: broken.sentence, story }
}

async fn live(plan: &Plan, centre: Arc<Centre>, lines: Arc<AtomicU64>, sabotage: Sabotage) -> Result<Outcome, Broken> {
    let inner = EmbeddedStore::in_memory().unwrap();
    let leases = Leases::new(Arc::clone(&centre));
    let acting = Acting::new();
    let reach = Reach { wires: plan.wired.then(|| Wires::new(Arc::clone(&centre))), reckless: sabotage == Sabotage::IgnoresTheGate };
    let host = |number: usize| {
        let (inner, centre, leases) = (inner.clone(), Arc::clone(&centre), Arc::clone(&leases));
        let store = TrialStore::of_controller(inner, Arc::clone(&centre), leases, number, plan.seed + 1000 * number as u64);
        Host::new(number, &centre, Arc::new(store), &acting, reach.clone())
    };
    let hosts = (0..plan.controllers).map(host).collect();
    furnish(plan, &centre);
    let public: Arc<dyn Store> = Arc::new(TrialStore::of_operators(inner.clone(), Arc::clone(&centre), Arc::clone(&leases)));
    let mut site =
        Site { centre: Arc::clone(&centre), inner, public: Arc::clone(&public), backup: Vec::new(), leases, hosts, lines, sabotage };
    let words = Arc::new(Words { controller: acting.controller(), store: Arc::clone(&public), lease: serve::LEASE });
    let backend = || Backend::new(Arc::clone(&public), words.clone(), serve::check(), Default::default());
    let mut people = Operators::new(plan, Arc::clone(&centre), reach.wires.clone(), backend(), words.clone());
    if plan.sourced {
        let checkouts = Checkouts::new(&centre);
        site.hosts.iter_mut().for_each(|host| host.source = Some((checkouts.clone(), Arc::new(backend()))));
        people.checkouts = Some(checkouts);
    }
    people.heal();
    people.move_in().await;
    for n in 0..plan.machines.len() {
        tokio::spawn(Arc::clone(&centre).live(server(n), acting.answers()));
        match sabotage {
            Sabotage::None | Sabotage::IgnoresTheGate | Sabotage::PretendsToStore => {}
            Sabotage::ReportsOff => centre.report_off(&server(n)),
            Sabotage::NeverSaysHello => centre.never_says_hello(&server(n)),
            Sabotage::BootsFromMemory => centre.boot_from_memory(&server(n)),
        }
    }
    site.start();
    let mut people = site.chaos(plan, people).await?;
    people.heal();
    site.calm();
    site.start();
    centre.note(&[], "calm");
    site.wait(Instant::now() + limits::LEASE_TTL * 2).await?;
    people.after_accidents().await;
    site.untended(&people).await?;
    people.enforce().await;
    let (converged_after, tended) = site.converge(plan, &mut people).await?;
    site.silence(if plan.seed.is_multiple_of(4) && !plan.is_large() { SILENT_FOR } else { SILENT_AT_LEAST }).await?;
    let state = centre.state();
    Ok(Outcome {
        hash: state.trace.hash(),
        events: state.trace.len(),
        ops: state.judge.ops,
        offs: state.judge.switched_off,
        rolled: state.judge.rolled_off(),
        converged_after,
        tended,
    })
}

fn furnish(plan: &Plan, centre: &Centre) {
    for (n, machine) in plan.machines.iter().enumerate() {
        let config = BmcConfig {
            guid: guid(n, 0),
            on_takes: machine.on_takes,
            off_takes: machine.off_takes,
            soft_off: machine.soft_off,
            power: if machine.on { Power::On } else { Power::Off },
            ..BmcConfig::default()
        };
        let mac: Mac = format!("02:00:00:00:{n:02x}:00").parse().unwrap();
        centre.add_machine(&server(n), mac, config, machine.firmware_takes, Line::new(plan.seed * 100 + n as u64));
        centre.shows_uuid(&server(n));
    }
    for n in 0..plan.switches() {
        let kind = match (n.is_multiple_of(2), plan.seed.is_multiple_of(3)) {
            (true, false) => SwitchKind::QBridge,
            (true, true) => SwitchKind::Comware,
            (false, false) => SwitchKind::Cisco,
            (false, true) => SwitchKind::Foundry { dual_mode: plan.seed.is_multiple_of(2) },
        };
        let sim = SimSwitch::new(kind, switch(n).as_str(), plan.ports() as u32);
        centre.add_switch(&switch(n), sim, Line::new(plan.seed * 100 + 50 + n as u64));
    }
}

impl Site {
    fn start(&mut self) {
        self.hosts.iter_mut().for_each(Host::start);
    }

    /// Stores and leases are as they should be.
    fn calm(&self) {
        for host in &self.hosts {
            host.store.set_luck(StoreLuck::default());
            host.store.set_full(Full::default());
            self.leases.cut_off(host.number, false);
            host.keeper.heal();
        }
    }

    /// The one that acts, else the first.
    fn acting(&self) -> usize {
        self.leases.acting().unwrap_or(0)
    }

    async fn kill(&mut self, host: usize, down: Duration) {
        self.hosts[host].kill().await;
        self.hosts[host].back_at = Some(Instant::now() + down);
    }

    fn verdict(&self) -> Result<(), Broken> {
        match &self.centre.state().judge.violation {
            Some(v) => Err(Broken { sentence: v.sentence.clone(), about: v.about.clone() }),
            None => Ok(()),
        }
    }

    /// Until `until`; a controller that is killed meanwhile is started again, a checker's word ends it.
    async fn wait(&mut self, until: Instant) -> Result<(), Broken> {
        let centre = Arc::clone(&self.centre);
        loop {
            let next = self.hosts.iter().filter_map(|h| h.back_at).fold(until, Instant::min);
            tokio::select! {
                biased;
                () = centre.broken.notified() => return self.verdict(),
                () = centre.crash.notified() => {
                    for host in centre.crashed() {
                        self.kill(host, Duration::from_secs(3)).await;
                    }
                }
                () = sleep_until(next) => {
                    let now = Instant::now();
                    self.hosts.iter_mut().filter(|h| h.back_at.is_some_and(|at| at <= now)).for_each(Host::start);
                    if now >= until {
                        return self.verdict();
                    }
                }
            }
        }
    }

    async fn chaos(&mut self, plan: &Plan, mut people: Operators) -> Result<Operators, Broken> {
        let begun = Instant::now();
        let (to_people, mut acts) = mpsc::unbounded_channel::<Act>();
        let mut hands = tokio::spawn(async move {
            while let Some(act) = acts.recv().await {
                // A controller that dies over a question leaves it unanswered.
                let _ = timeout(Duration::from_secs(60), people.act(&act)).await;
            }
            people
        });
        for (at, act) in &plan.acts {
            self.wait(begun + *at).await?;
            self.centre.note(&[], format!("{act:?}"));
            if !self.happens_to_processes(act).await {
                let _ = to_people.send(act.clone());
            }
        }
        self.wait(begun + plan.chaos).await?;
        drop(to_people);
        self.centre.no_more_crashes();
        while let Some(at) = self.hosts.iter().filter_map(|h| h.back_at).max() {
            self.wait(at).await?;
        }
        loop {
            let until = Instant::now() + Duration::from_secs(5);
            tokio::select! {
                biased;
                people = &mut hands => return Ok(people.unwrap()),
                waited = self.wait(until) => waited?,
            }
        }
    }

    /// What happens to the processes and their store. False: it is not of that kind.
    async fn happens_to_processes(&mut self, act: &Act) -> bool {
        let acting = self.acting();
        match act {
            Act::Kill { down } => self.kill(acting, *down).await,
            Act::KillAtNextOp => self.centre.crash_at_next_op(),
            Act::Freeze(takes) => self.centre.freeze(acting, *takes),
            Act::FreezeAtNextOp(takes) => self.centre.freeze_at_next_op(*takes),
            Act::CutOff(cut) => self.leases.cut_off(acting, *cut),
            Act::Store(luck) => self.hosts.iter().for_each(|h| h.store.set_luck(*luck)),
            Act::StoreFull(takes) => self.fill(*takes),
            Act::WatchesEnd => self.hosts.iter().for_each(|h| h.store.end_watches()),
            Act::Backup => self.backup = self.inner.list("").await.unwrap().0,
            Act::Restore => self.becomes(self.backup.clone()).await,
            Act::Wipe => self.becomes(Vec::new()).await,
            Act::Garble(n) => self.write(&keys::body(&server(*n)), Some(b"{\"later\":1}".to_vec())).await,
            Act::ForgetDisk(n) => {
                let Some(entry) = self.inner.get(&keys::body(&server(*n))).await.unwrap() else { return true };
                let mut body: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
                body.as_object_mut().unwrap().remove("onDisk");
                self.write(&entry.key, Some(body.to_string().into_bytes())).await;
            }
            Act::ClockJumps(seconds) => embody::testing::telemetry::jump(*seconds),
            Act::ImagesMissing(host, takes) => self.hosts[*host].keeper.miss(*takes),
            // What a directory holds that was changed while its process was down is an edit: nobody can tell it from an older checkout.
            Act::Pull(host) if self.hosts[*host].back_at.is_some() => {}
            Act::DeleteRecord(n) => self.write(&keys::body(&server(*n)), None).await,
            _ => return false,
        }
        true
    }

    fn fill(&self, takes: Duration) {
        let full = Full { until: self.centre.now().plus(takes), pretends: self.sabotage == Sabotage::PretendsToStore };
        self.hosts.iter().for_each(|h| h.store.set_full(full));
    }

    /// Somebody else writes to the store, where there is such a key.
    async fn write(&self, key: &str, value: Option<Vec<u8>>) {
        let Some(entry) = self.inner.get(key).await.unwrap() else { return };
        let write = Write { key: key.to_owned(), value, expect: Expect::At(entry.revision) };
        self.public.write_all(&[write]).await.unwrap();
    }

    /// The store has been down, and holds this now.
    async fn becomes(&mut self, entries: Vec<Entry>) {
        let present = self.inner.list("").await.unwrap().0;
        let find = |all: &[Entry], key: &str| all.iter().find(|e| e.key == key).cloned();
        let mut writes = Vec::new();
        for there in &present {
            let value = find(&entries, &there.key).map(|e| e.value);
            if value.as_ref() != Some(&there.value) {
                writes.push(Write { key: there.key.clone(), value, expect: Expect::At(there.revision) });
            }
        }
        let absent = entries.iter().filter(|e| find(&present, &e.key).is_none());
        writes.extend(absent.map(|e| Write::put(e.key.clone(), e.value.clone(), Expect::Absent)));
        for some in writes.chunks(limits::WRITES_AT_ONCE) {
            self.public.write_all(some).await.unwrap();
        }
        self.hosts.iter().for_each(|h| h.store.end_watches());
    }

    /// Before anybody tends to anything: what embody has switched off in a persona's name it starts again.
    async fn untended(&mut self, people: &Operators) -> Result<(), Broken> {
        let until = Instant::now() + STARTS_AGAIN_WITHIN;
        loop {
            let nowhere = self.centre.judge(|judge, _| judge.nowhere());
            let Some((binding, sentence)) = nowhere.into_iter().next() else { return Ok(()) };
            if Instant::now() >= until {
                let statuses = self.statuses(people).await;
                return Err(Broken { sentence: format!("invariant 10: {sentence}{statuses}"), about: vec![binding] });
            }
            self.wait(Instant::now() + Duration::from_secs(5)).await?;
        }
    }

    async fn converge(&mut self, plan: &Plan, people: &mut Operators) -> Result<(Duration, usize), Broken> {
        let (begun, mut tended, mut tend_at) = (Instant::now(), 0, Instant::now() + TEND_EVERY);
        loop {
            let lacking = self.lacking(plan, people).await;
            let Some((about, what)) = lacking else { return Ok((begun.elapsed(), tended)) };
            if begun.elapsed() > CONVERGES_WITHIN {
                return Err(Broken { sentence: format!("it does not converge: {what}{}", self.statuses(people).await), about });
            }
            self.wait(Instant::now() + Duration::from_secs(5)).await?;
            if Instant::now() >= tend_at {
                tended += people.tend().await;
                tend_at = Instant::now() + TEND_EVERY;
            }
        }
    }

    /// What is not as desired, in truth or in the status.
    async fn lacking(&self, plan: &Plan, people: &Operators) -> Option<(Vec<Name>, String)> {
        let bindings = self.centre.judge(|judge, _| judge.objects().bindings.clone());
        for (name, held) in &bindings {
            let target = held.spec.target.server.clone()?;
            let about = vec![name.clone(), target.clone(), held.spec.persona.clone()];
            let runs = self.centre.runs(&target);
            let running = held.spec.state == embody::testing::model::binding::RunState::Running;
            let wanted = if running { Runs::Persona(held.spec.persona.clone()) } else { Runs::Nothing };
            if runs.as_ref() != Some(&wanted) {
                return Some((about, format!("binding {name} desired state {wanted:?} on {target}, and it runs {runs:?}")));
            }
            if let Some(what) = self.ports_lacking(&target) {
                return Some((about, what));
            }
            let Ok(object) = people.backend.read(Kind::Binding, name.as_str()).await else { continue };
            let ready = object
                .status
                .get("conditions")
                .and_then(|c| c.as_array())
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            if !ready || object.status["observedGeneration"] != object.meta.generation {
                let conditions = &object.status["conditions"];
                return Some((about, format!("binding {name} is not Ready: {conditions} {}", object.status["waits"])));
            }
        }
        if let Some(what) = people.rollout_lacks().await {
            return Some((Vec::new(), what));
        }
        for n in 0..plan.machines.len() {
            let body = self.centre.judge(|judge, _| judge.body(&server(n)));
            if let Some(release) = &body.release {
                return Some((vec![server(n), release.binding.clone()], format!("{} is not released by {}", server(n), release.binding)));
            }
        }
        None
    }

    /// What the product says of everything that is not well.
    async fn statuses(&self, people: &Operators) -> String {
        let mut out = String::new();
        for kind in [Kind::Binding, Kind::Server, Kind::Switch, Kind::Policy] {
            for object in listed(&people.backend, kind).await {
                let s = &object.status;
                let bad: Vec<String> = s["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|c| c["status"] != "True" && c["message"] != "")
                    .map(|c| format!("{}: {}", c["type"], c["message"]))
                    .collect();
                let names = match &object.spec {
                    Spec::Binding(binding) => format!(" of {:?} on {:?}, {:?}", binding.persona, binding.target.server, binding.state),
                    _ => String::new(),
                };
                out.push_str(&format!(
                    "\n  {kind}/{}{names}: {} waits {} must still release {}",
                    object.name(),
                    bad.join("; "),
                    s["waits"],
                    s["obligations"]
                ));
            }
        }
        out
    }

    fn ports_lacking(&self, server: &Name) -> Option<String> {
        for (key, vlans) in self.centre.judge(|judge, _| judge.desired_ports(server)) {
            let (sw, port) = key;
            let view = self.centre.switch(&sw, |sim| sim.views().get(&port).cloned()).flatten()?;
            let carried: std::collections::BTreeSet<_> = view.untagged.iter().chain(&view.tagged).copied().collect();
            if view.admin != Admin::Up || carried != vlans || view.ingress.is_none_or(|v| !view.untagged.contains(&v)) {
                return Some(format!("{sw} {port} of {server} is {view}, and {vlans:?} are desired"));
            }
        }
        None
    }

    /// An hour in which nothing is done, said or written. A save that failed in the chaos may be tried again up to an hour later: then it
    /// is the hour after that.
    async fn silence(&mut self, time: Duration) -> Result<(), Broken> {
        // What was under way when the last thing became true may end first.
        self.wait(Instant::now() + limits::FAST_POLL_FOR + ALL_READ_WITHIN).await?;
        let first = self.is_silent(time).await?;
        let saves =
            |line: &String| line.contains("saved") || line.contains("save configuration") || line.contains("stored objects/switches/");
        let second = if !first.is_empty() && first.iter().all(saves) { self.is_silent(SILENT_FOR).await? } else { first };
        match second.as_slice() {
            [] => Ok(()),
            said => {
                let said: Vec<String> = said.iter().take(12).map(|line| format!("\n  {line}")).collect();
                Err(Broken { sentence: format!("invariant 12: a converged site is not silent:{}", said.concat()), about: Vec::new() })
            }
        }
    }

    /// What the controller did, said or wrote in this time.
    async fn is_silent(&mut self, time: Duration) -> Result<Vec<String>, Broken> {
        let (centre, lines) = (Arc::clone(&self.centre), Arc::clone(&self.lines));
        let count = || (centre.state().judge.ops, lines.load(Ordering::Relaxed));
        let (before, revision) = (count(), self.inner.list("").await.unwrap().1);
        let from = self.centre.state().trace.len();
        self.wait(Instant::now() + time).await?;
        let (after, now) = (count(), self.inner.list("").await.unwrap().1);
        if before == after && revision == now {
            return Ok(Vec::new());
        }
        let state = self.centre.state();
        let own = state.trace.since(from).iter().filter(|e| !e.text.starts_with("is parked"));
        let counted = format!("operations and lines {before:?} → {after:?}, revision {revision} → {now}");
        Ok(own.map(ToString::to_string).chain((revision == now).then_some(counted)).collect())
    }
}
