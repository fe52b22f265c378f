//! One seed: the whole controller in virtual time, chaos, calm, convergence, silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use embody::cli::serve::run as serve;
use embody::clock::Clock;
use embody::control::actions::Operators as Words;
use embody::control::controller::{Controller, Message, Parts, Remembered};
use embody::drivers::Devices;
use embody::limits;
use embody::model::fact::{Admin, Power};
use embody::model::{Kind, Mac, Name};
use embody::server::api::Backend;
use embody::sim::bmc::BmcConfig;
use embody::sim::centre::{Centre, Runs, VirtualDevices};
use embody::sim::line::Line;
use embody::sim::switch::{Kind as SwitchKind, SimSwitch};
use embody::sim::trial_store::{StoreLuck, TrialStore};
use embody::store::{EmbeddedStore, Lease, Records, Store};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::operators::{Operators, TEND_EVERY, server, switch};
use crate::plan::{Act, Plan};

/// Calm begins; so long may it take until everything is as desired, people's words included.
pub const CONVERGES_WITHIN: Duration = Duration::from_secs(3600);
const SILENT_FOR: Duration = Duration::from_secs(3600);

/// Changes of the rules, for the tests of the checkers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// The BMCs report Off while the machines are on.
    ReportsOff,
    /// Machines boot what they booted before, whatever they are answered: as if a withdrawn answer still stood.
    BootsFromMemory,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub hash: u64,
    pub events: usize,
    pub ops: u64,
    pub offs: u64,
    /// From the beginning of calm.
    pub converged_after: Duration,
    pub tended: usize,
}

pub struct Failure {
    pub sentence: String,
    pub story: String,
}

type ToController = watch::Sender<Option<mpsc::Sender<Message>>>;

struct Site {
    centre: Arc<Centre>,
    inner: Arc<EmbeddedStore>,
    store: Arc<TrialStore>,
    lease: Arc<dyn Lease>,
    to_controller: Arc<ToController>,
    lines: Arc<AtomicU64>,
}

pub fn run(plan: &Plan, loud: bool, sabotage: Sabotage) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    if loud {
        eprintln!("{plan}");
    }
    let lines = Arc::new(AtomicU64::new(0));
    let _in = runtime.enter();
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
    let lease: Arc<dyn Lease> = Arc::from(inner.acquire(serve::LEASE, "simulation", limits::LEASE_TTL).await.unwrap());
    let (to_controller, controller) = watch::channel(None);
    let store = Arc::new(TrialStore::of_controller(inner.clone(), Arc::clone(&centre), plan.seed));
    let site = Site { centre: Arc::clone(&centre), inner: inner.clone(), store, lease, to_controller: Arc::new(to_controller), lines };
    furnish(plan, &centre);
    let public: Arc<dyn Store> = Arc::new(TrialStore::of_operators(inner, Arc::clone(&centre)));
    let words = Arc::new(Words { controller: controller.clone(), store: Arc::clone(&public), lease: serve::LEASE });
    let backend = Backend::new(public, words.clone(), serve::check());
    let people = Operators::new(plan, Arc::clone(&centre), backend, words);
    people.heal();
    people.move_in().await;
    for n in 0..plan.machines.len() {
        tokio::spawn(Arc::clone(&centre).live(server(n), controller.clone()));
        match sabotage {
            Sabotage::None => {}
            Sabotage::ReportsOff => centre.report_off(&server(n), true),
            Sabotage::BootsFromMemory => centre.boot_from_memory(&server(n)),
        }
    }
    let mut controller = Some(site.start());
    let mut people = site.chaos(plan, people, &mut controller).await?;
    people.heal();
    site.store.set_luck(StoreLuck::default());
    if controller.is_none() {
        controller = Some(site.start());
    }
    centre.note(&[], "calm");
    people.enforce().await;
    let (converged_after, tended) = site.converge(plan, &people, &mut controller).await?;
    site.silence(&mut controller).await?;
    let state = centre.state();
    Ok(Outcome {
        hash: state.trace.hash(),
        events: state.trace.len(),
        ops: state.judge.ops,
        offs: state.judge.offs,
        converged_after,
        tended,
    })
}

fn furnish(plan: &Plan, centre: &Centre) {
    for (n, machine) in plan.machines.iter().enumerate() {
        let mut guid = [0x20; 16];
        guid[0] = n as u8;
        let config = BmcConfig {
            guid,
            on_takes: machine.on_takes,
            off_takes: machine.off_takes,
            soft_off: machine.soft_off,
            power: if machine.on { Power::On } else { Power::Off },
            ..BmcConfig::default()
        };
        let mac: Mac = format!("02:00:00:00:{n:02x}:00").parse().unwrap();
        centre.add_machine(&server(n), mac, config, machine.firmware_takes, Line::new(plan.seed * 100 + n as u64));
    }
    for (n, kind) in [SwitchKind::QBridge, SwitchKind::Cisco].into_iter().enumerate() {
        let sim = SimSwitch::new(kind, switch(n).as_str(), 8);
        centre.add_switch(&switch(n), sim, Line::new(plan.seed * 100 + 50 + n as u64));
    }
}

/// As the product does it: a controller, and another one whenever the watch of the store ends.
async fn think(store: Arc<dyn Store>, devices: Arc<dyn Devices>, lease: Arc<dyn Lease>, to_controller: Arc<ToController>) {
    let records = Arc::new(Records::in_memory(Arc::clone(&store)));
    let mut remembered = Remembered::default();
    loop {
        let (reports, inbound) = mpsc::channel(limits::REPORTS);
        let (messages, inbox) = mpsc::channel(limits::REPORTS);
        let parts = Parts {
            store: Arc::clone(&store),
            records: Arc::clone(&records),
            devices: Arc::clone(&devices),
            lease: Arc::clone(&lease),
            clock: Clock::start(),
            reports,
            site: watch::Sender::default(),
            remembered: remembered.clone(),
        };
        let loaded = Controller::load(parts).await;
        let watched = match loaded {
            Ok((controller, revision)) => store.watch("", revision).await.map(|watch| (controller, watch)),
            Err(error) => Err(error),
        };
        match watched {
            Ok((mut controller, watch)) => {
                to_controller.send_replace(Some(messages));
                controller.run(inbox, inbound, watch).await;
                to_controller.send_replace(None);
                remembered = controller.close().await;
            }
            Err(_) => sleep(limits::RETRY_FIRST).await,
        }
    }
}

impl Site {
    fn start(&self) -> JoinHandle<()> {
        self.centre.note(&[], "the controller starts");
        let devices: Arc<dyn Devices> = Arc::new(VirtualDevices(Arc::clone(&self.centre)));
        tokio::spawn(think(self.store.clone(), devices, Arc::clone(&self.lease), Arc::clone(&self.to_controller)))
    }

    async fn kill(&self, controller: &mut Option<JoinHandle<()>>) {
        if let Some(task) = controller.take() {
            self.centre.note(&[], "the controller is dead");
            task.abort();
            let _ = task.await;
            self.to_controller.send_replace(None);
        }
    }

    fn verdict(&self) -> Result<(), Broken> {
        match &self.centre.state().judge.violation {
            Some(v) => Err(Broken { sentence: v.sentence.clone(), about: v.about.clone() }),
            None => Ok(()),
        }
    }

    /// Until `until`; the controller that is killed meanwhile is started again, a checker's word ends it.
    async fn wait(&self, until: Instant, controller: &mut Option<JoinHandle<()>>, back_at: &mut Option<Instant>) -> Result<(), Broken> {
        loop {
            let next = back_at.map_or(until, |at| at.min(until));
            tokio::select! {
                biased;
                () = self.centre.broken.notified() => return self.verdict(),
                () = self.centre.crash.notified() => {
                    self.kill(controller).await;
                    *back_at = Some(Instant::now() + Duration::from_secs(3));
                }
                () = sleep_until(next) => {
                    if back_at.is_some_and(|at| at <= Instant::now()) {
                        *back_at = None;
                        if controller.is_none() {
                            *controller = Some(self.start());
                        }
                    }
                    if Instant::now() >= until {
                        return self.verdict();
                    }
                }
            }
        }
    }

    async fn chaos(&self, plan: &Plan, mut people: Operators, controller: &mut Option<JoinHandle<()>>) -> Result<Operators, Broken> {
        let begun = Instant::now();
        let (to_people, mut acts) = mpsc::unbounded_channel::<Act>();
        let hands = tokio::spawn(async move {
            while let Some(act) = acts.recv().await {
                // A controller that dies over a question leaves it unanswered.
                let _ = timeout(Duration::from_secs(60), people.act(&act)).await;
            }
            people
        });
        let mut back_at = None;
        for (at, act) in &plan.acts {
            self.wait(begun + *at, controller, &mut back_at).await?;
            self.centre.note(&[], format!("{act:?}"));
            match act {
                Act::Kill { down } => {
                    self.kill(controller).await;
                    back_at = Some(Instant::now() + *down);
                }
                Act::KillAtNextOp => self.centre.crash_at_next_op(),
                Act::Store(luck) => self.store.set_luck(*luck),
                Act::WatchesEnd => self.store.end_watches(),
                other => drop(to_people.send(other.clone())),
            }
        }
        self.wait(begun + plan.chaos, controller, &mut back_at).await?;
        drop(to_people);
        self.centre.no_more_crashes();
        if let Some(at) = back_at {
            self.wait(at, controller, &mut back_at).await?;
        }
        let mut hands = hands;
        loop {
            tokio::select! {
                biased;
                people = &mut hands => return Ok(people.unwrap()),
                waited = self.wait(Instant::now() + Duration::from_secs(5), controller, &mut back_at) => waited?,
            }
        }
    }

    async fn converge(
        &self,
        plan: &Plan,
        people: &Operators,
        controller: &mut Option<JoinHandle<()>>,
    ) -> Result<(Duration, usize), Broken> {
        let (begun, mut tended, mut tend_at) = (Instant::now(), 0, Instant::now() + TEND_EVERY);
        let mut back_at = None;
        loop {
            let lacking = self.lacking(plan, people).await;
            let Some((about, what)) = lacking else { return Ok((begun.elapsed(), tended)) };
            if begun.elapsed() > CONVERGES_WITHIN {
                return Err(Broken { sentence: format!("it does not converge: {what}{}", self.statuses(people).await), about });
            }
            self.wait(Instant::now() + Duration::from_secs(5), controller, &mut back_at).await?;
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
            let about = vec![name.clone(), target.clone(), held.spec.persona.clone(), switch(0), switch(1)];
            let runs = self.centre.runs(&target);
            let running = held.spec.state == embody::model::binding::RunState::Running;
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
            for object in people.backend.list(kind).await.map(|(all, _)| all).unwrap_or_default() {
                let s = &object.status;
                let bad: Vec<String> = s["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|c| c["status"] != "True" && c["message"] != "")
                    .map(|c| format!("{}: {}", c["type"], c["message"]))
                    .collect();
                out.push_str(&format!(
                    "\n  {kind}/{}: {} waits {} must still release {}",
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
    async fn silence(&self, controller: &mut Option<JoinHandle<()>>) -> Result<(), Broken> {
        // What was under way when the last thing became true may end first.
        self.wait(Instant::now() + limits::FAST_POLL_FOR + Duration::from_secs(60), controller, &mut None).await?;
        let first = self.hour(controller).await?;
        let saves =
            |line: &String| line.contains("saved") || line.contains("save configuration") || line.contains("stored objects/switches/");
        let second = if !first.is_empty() && first.iter().all(saves) { self.hour(controller).await? } else { first };
        match second.as_slice() {
            [] => Ok(()),
            said => {
                let said: Vec<String> = said.iter().take(12).map(|line| format!("\n  {line}")).collect();
                Err(Broken { sentence: format!("invariant 9: a converged site is not silent:{}", said.concat()), about: Vec::new() })
            }
        }
    }

    /// What the controller did, said or wrote in an hour.
    async fn hour(&self, controller: &mut Option<JoinHandle<()>>) -> Result<Vec<String>, Broken> {
        let count = || (self.centre.state().judge.ops, self.lines.load(Ordering::Relaxed));
        let (before, revision) = (count(), self.inner.list("").await.unwrap().1);
        let from = self.centre.state().trace.len();
        self.wait(Instant::now() + SILENT_FOR, controller, &mut None).await?;
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
