//! One task per device. It owns the driver, so that requests to a device never interleave; it observes it from time to time, and does what
//! `reconcile` sends, in order. It decides nothing.
//!
//! Leaves out: turns at credentials (the drivers take them, once a device has answered). Invariants: every report carries the tick at which
//! the question was asked, taken before the request is sent; a device that fails is asked at a growing distance, whatever the plan asks for,
//! up to its poll interval. Shown by the tests below and `tests/rack.rs`.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::drivers::credentials::{self, Turns};
use crate::drivers::gate::{Gate, Permit};
use crate::drivers::{Depth, Driver, Fault, Notes, Observation};
use crate::limits;
use crate::model::fact::{Power, Tick};
use crate::model::op::{Device, Op};
use crate::store::LeaseEnd;

/// What `reconcile` sends.
pub(crate) enum Job {
    Do(Box<(Op, Permit)>),
    Observe(Depth),
    /// How often it is polled from now on.
    Pace(Duration),
    /// What the device refused is forgotten: a person says that it may be otherwise now.
    ForgetRefusals,
    /// What would be written for these operations, in words. Nothing is asked of the device.
    Preview(Vec<Op>, oneshot::Sender<Vec<Vec<String>>>),
}

/// What comes back.
#[derive(Debug)]
pub struct Report {
    pub device: Device,
    /// Which worker of this device: an answer of an older one, to another address or with other credentials, is dropped.
    pub worker: u64,
    pub asked_at: Tick,
    pub said: Outcome,
    /// The device fails: when it is asked again. Nothing: it does not, or refuses the credentials and is not asked again.
    pub again_at: Option<Tick>,
    /// The credentials worked here for the first time (since they are remembered): to be stored. Said once.
    pub proved: bool,
    /// How much was looked at.
    pub depth: Depth,
}

#[derive(Debug)]
pub enum Outcome {
    Observed(Result<Observation, Fault>),
    Done(Op, Result<Notes, Fault>),
}

/// What a worker needs beside its driver.
pub(crate) struct Setting {
    pub pace: Pace,
    /// When it polls for the first time.
    pub first_turn: Instant,
    pub turns: Arc<Turns>,
    pub clock: Clock,
    pub reports: mpsc::Sender<Report>,
    pub lease: Arc<LeaseEnd>,
}

#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub poll_every: Duration,
    pub deadline: Duration,
}

pub(crate) struct Worker {
    pub id: u64,
    jobs: mpsc::Sender<Job>,
    gate: Arc<Gate>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    /// A worker that was not ended may be in the middle of a request: what it then learns is of no use to anybody.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Worker {
    /// Queues a job; `false` when the worker is so far behind that its queue is full (the job is planned again later).
    pub(crate) fn send(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// What leaves for this device leaves through it.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Ends the worker: jobs that wait are dropped, the device's session is closed. A port between its first and its last SET is finished first:
    /// nobody may come who would. A request that hangs is cut off. Resolves when nothing of this worker speaks to the device any more.
    pub(crate) fn end(mut self) -> impl Future<Output = ()> + Send + 'static {
        let half_way = !self.gate.void_all_but_half_way().is_empty();
        let patience = if half_way { limits::HALF_WAY_WAIT } else { Duration::ZERO } + limits::WORKER_END;
        let gate = Arc::clone(&self.gate);
        if let Some(stop) = self.stop.take() {
            // A worker that is gone already needs no telling.
            let _ = stop.send(());
        }
        let task = self.task.take();
        async move {
            let Some(mut task) = task else { return };
            if tokio::time::timeout(patience, &mut task).await.is_err() {
                gate.void_all();
                task.abort();
                // Cancelled, as asked.
                let _ = task.await;
            }
        }
    }

    /// `after`: the end of the worker that spoke to this device before.
    pub(crate) fn start(
        id: u64,
        device: Device,
        driver: Box<dyn Driver>,
        setting: Setting,
        after: impl Future<Output = ()> + Send + 'static,
    ) -> Worker {
        let (jobs, inbox) = mpsc::channel(limits::WORKER_JOBS);
        let (stop, stopped) = oneshot::channel();
        let seed = device.to_string().bytes().fold(id, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
        let Setting { pace, first_turn, turns, clock, reports, lease } = setting;
        let gate = Gate::new(Arc::clone(&lease), lease.clock());
        let rng = StdRng::seed_from_u64(seed);
        let floor = Floor::new(pace.poll_every);
        let work = Work {
            id,
            device,
            driver,
            pace,
            turns,
            clock,
            reports,
            rng,
            floor,
            waiting: VecDeque::new(),
            unseen: None,
            next_poll: first_turn,
            looks: 0,
            took: Duration::ZERO,
            fast_until: None,
            denied: None,
        };
        let task = tokio::spawn(async move {
            after.await;
            work.run(inbox, stopped).await;
        });
        Worker { id, jobs, gate, stop: Some(stop), task: Some(task) }
    }
}

/// When a device may be asked again. It holds for all that is asked: polls, observations that the plan asks for, operations.
struct Floor {
    at_most: Duration,
    /// In a row, observations and operations alike.
    failures: u32,
    /// Nothing is begun before.
    not_before: Instant,
    /// No observation that was asked for is begun before: a loop of plans cannot spin.
    asked_not_before: Instant,
}

impl Floor {
    fn new(at_most: Duration) -> Floor {
        let now = Instant::now();
        Floor { at_most, failures: 0, not_before: now, asked_not_before: now }
    }

    fn failed(&mut self) {
        let distance = limits::ASK_AGAIN_FIRST.saturating_mul(1 << self.failures.min(16)).min(self.at_most);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + distance;
    }

    fn worked(&mut self) {
        self.failures = 0;
        self.not_before = Instant::now();
    }

    fn observed(&mut self) {
        self.asked_not_before = Instant::now() + limits::BETWEEN_LOOKS;
    }

    fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

/// What is to be done, in this order.
enum Waiting {
    Do(Box<(Op, Permit)>),
    Observe(Depth),
}

/// An operation that was carried out, and not observed after yet.
struct Unseen {
    asked_at: Tick,
    op: Op,
    result: Result<Notes, Fault>,
}

struct Work {
    id: u64,
    device: Device,
    driver: Box<dyn Driver>,
    pace: Pace,
    turns: Arc<Turns>,
    clock: Clock,
    reports: mpsc::Sender<Report>,
    rng: StdRng,
    floor: Floor,
    waiting: VecDeque<Waiting>,
    unseen: Option<Unseen>,
    next_poll: Instant,
    looks: u32,
    /// How long the last look at the state took.
    took: Duration,
    /// After a power operation the device is observed often, until it shows the effect, or had its time.
    fast_until: Option<(Instant, Power)>,
    /// The device refused the credentials, with these words: it is not asked again by this worker.
    denied: Option<String>,
}

impl Work {
    async fn run(mut self, mut inbox: mpsc::Receiver<Job>, mut stopped: oneshot::Receiver<()>) {
        loop {
            let room = self.waiting.len() < limits::WORKER_JOBS;
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                job = inbox.recv(), if room => match job {
                    Some(job) => self.take(job),
                    None => break,
                },
                () = tokio::time::sleep_until(self.due()) => self.begin().await,
            }
        }
        self.driver.close().await;
    }

    /// Observations that wait in a row are one: one question answers all that wait for an answer.
    fn take(&mut self, job: Job) {
        match (job, self.waiting.back_mut()) {
            (Job::Observe(depth), Some(Waiting::Observe(waits))) => *waits = depth.max(*waits),
            (Job::Observe(depth), _) => self.waiting.push_back(Waiting::Observe(depth)),
            (Job::Do(op), _) => self.waiting.push_back(Waiting::Do(op)),
            (Job::Pace(every), _) if every != self.pace.poll_every => {
                self.pace.poll_every = every;
                self.floor.at_most = every;
                let next = Instant::now() + self.jitter(every);
                self.next_poll = self.next_poll.min(next);
            }
            (Job::Pace(_), _) => {}
            // Nothing is asked of the device.
            (Job::ForgetRefusals, _) => self.driver.forget_refusals(),
            (Job::Preview(ops, reply), _) => drop(reply.send(self.driver.preview(&ops))),
        }
    }

    /// When the next request is begun.
    fn due(&self) -> Instant {
        if self.denied.is_some() {
            let idle = self.unseen.is_none() && self.waiting.is_empty();
            return Instant::now() + if idle { limits::IDLE } else { Duration::ZERO };
        }
        let poll = self.next_poll.max(self.floor.not_before);
        self.job_due().map_or(poll, |at| at.min(poll))
    }

    fn job_due(&self) -> Option<Instant> {
        match (&self.unseen, self.waiting.front()) {
            (Some(_), _) | (None, Some(Waiting::Do(..))) => Some(self.floor.not_before),
            (None, Some(Waiting::Observe(_))) => Some(self.floor.not_before.max(self.floor.asked_not_before)),
            (None, None) => None,
        }
    }

    /// One request, of whatever is due.
    async fn begin(&mut self) {
        // An operation is reported after the poll: as long as it counts as in flight, it is not planned again on what was seen before it.
        if let Some(Unseen { asked_at, op, result }) = self.unseen.take() {
            let depth = self.asked_depth().unwrap_or(Depth::State);
            // What it shows may be of the time before the operation has come back: only a later look shows the effect for certain.
            let fast_until = self.fast_until;
            self.look(depth).await;
            self.fast_until = fast_until;
            self.report(asked_at, Outcome::Done(op, result)).await;
        } else if let Some(Waiting::Do(op)) = self.waiting.pop_front_if(|next| matches!(next, Waiting::Do(..))) {
            let (op, permit) = *op;
            self.act(op, permit).await;
        } else {
            let is_poll = self.next_poll <= Instant::now();
            let due = is_poll && self.looks.is_multiple_of(limits::POLLS_PER_FULL_POLL);
            let poll = if due { Depth::Everything } else { Depth::Power };
            let depth = self.asked_depth().map_or(poll, |asked| asked.max(poll));
            if self.denied.is_none() {
                self.look(depth).await;
            }
        }
        let next = self.clock.now().plus(self.pause());
        // Devices that are due at nearly the same time are asked at the same time: the process wakes once for all.
        self.next_poll = self.clock.instant(Tick(next.0.next_multiple_of(limits::POLLS_TOGETHER.as_micros() as u64)));
    }

    /// How much the observation at the head asks for; the one that is begun now answers it.
    fn asked_depth(&mut self) -> Option<Depth> {
        match self.waiting.pop_front_if(|next| matches!(next, Waiting::Observe(_))) {
            Some(Waiting::Observe(depth)) => Some(depth),
            Some(Waiting::Do(..)) | None => None,
        }
    }

    /// Until the next poll: the interval, ±10 % so that a fleet spreads out, longer for a switch that is slow to answer; soon after a power operation; as soon as it may be where the
    /// device fails.
    fn pause(&mut self) -> Duration {
        if self.floor.is_failing() {
            return self.floor.not_before.saturating_duration_since(Instant::now());
        }
        if self.fast_until.is_some_and(|(until, _)| Instant::now() < until) {
            return limits::FAST_POLL.min(self.pace.poll_every);
        }
        self.fast_until = None;
        let slow = if matches!(self.device, Device::Switch(_)) { self.took * limits::POLL_SHARE } else { Duration::ZERO };
        self.pace.poll_every.max(slow).mul_f64(self.rng.random_range(0.9..1.1))
    }

    fn jitter(&mut self, within: Duration) -> Duration {
        within.mul_f64(self.rng.random_range(0.0..1.0))
    }

    async fn look(&mut self, depth: Depth) {
        let asked_at = self.clock.now();
        let result = match self.refusal() {
            Some(fault) => Err(fault),
            None => {
                let begun = Instant::now();
                let result = self.driver.observe(depth, begun + self.pace.deadline).await;
                if depth != Depth::Everything {
                    self.took = begun.elapsed();
                }
                self.looks = self.looks.wrapping_add(1);
                result.map_err(|fault| self.in_full(fault))
            }
        };
        match &result {
            Ok(observation) => {
                self.turns.worked(&self.device);
                self.floor.worked();
                let shows = |power| matches!(observation, Observation::Bmc(seen) if seen.power == power);
                self.fast_until = self.fast_until.filter(|(_, power)| !shows(*power));
            }
            Err(fault) => self.learn(fault),
        }
        self.floor.observed();
        self.tell(asked_at, Outcome::Observed(result), depth).await;
    }

    /// Its time begins now, however long it has waited; what was taken back meanwhile is not begun.
    async fn act(&mut self, op: Op, mut permit: Permit) {
        let asked_at = self.clock.now();
        if let Some(fault) = self.refusal() {
            self.unseen = Some(Unseen { asked_at, op, result: Err(fault) });
            return;
        }
        permit.begin(self.pace.deadline);
        if let Err(closed) = permit.check() {
            let fault = Fault::NotSent { device: self.device.to_string(), what: op.to_string(), why: closed.to_string() };
            return self.report(asked_at, Outcome::Done(op, Err(fault))).await;
        }
        let result = self.driver.execute(&op, &permit, Instant::now() + self.pace.deadline).await;
        let result = result.map_err(|fault| self.in_full(fault));
        let effect = match op {
            Op::PowerOn { .. } => Some(Power::On),
            Op::PowerOff { .. } => Some(Power::Off),
            Op::SetBoot { .. } | Op::SetPort { .. } | Op::CreateVlan { .. } | Op::Save { .. } => None,
        };
        self.fast_until = effect.map(|power| (Instant::now() + limits::FAST_POLL_FOR, power)).or(self.fast_until);
        match &result {
            Ok(_) => self.floor.worked(),
            // The device did nothing wrong, or was not asked at all.
            Err(Fault::NotSent { .. } | Fault::Unsupported { .. }) => {}
            Err(fault) => self.learn(fault),
        }
        if let Err(Fault::Silent { device, attempts, waited }) = &result {
            // Nothing of it left, and asking once more would only be silence again: people wait for the word.
            let silent = Fault::Silent { device: device.clone(), attempts: *attempts, waited: *waited };
            self.report(asked_at, Outcome::Observed(Err(silent))).await;
            return self.report(asked_at, Outcome::Done(op, result)).await;
        }
        self.unseen = Some(Unseen { asked_at, op, result });
    }

    /// With what a person can do, where nothing else helps.
    fn in_full(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Denied { device, why } => Fault::Denied { device, why: format!("{why}; {}", credentials::until(&self.device)) },
            other => other,
        }
    }

    /// What this worker says where it was refused before.
    fn refusal(&self) -> Option<Fault> {
        self.denied.clone().map(|why| Fault::Denied { device: self.device.to_string(), why })
    }

    /// Refused credentials alone end the asking: with any other fault the device goes on being observed.
    fn learn(&mut self, fault: &Fault) {
        self.floor.failed();
        if let Fault::Denied { why, .. } = fault {
            self.denied = Some(why.clone());
            self.turns.refused(&self.device);
        }
    }

    async fn report(&mut self, asked_at: Tick, said: Outcome) {
        self.tell(asked_at, said, Depth::Power).await;
    }

    async fn tell(&mut self, asked_at: Tick, said: Outcome, depth: Depth) {
        let again_at = (self.floor.is_failing() && self.denied.is_none())
            .then(|| self.clock.now().plus(self.floor.not_before.saturating_duration_since(Instant::now())));
        let proved = self.turns.newly_proved(&self.device);
        // A closed channel means that the controller is going down.
        let _ = self.reports.send(Report { device: self.device.clone(), worker: self.id, asked_at, said, again_at, proved, depth }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::clock::BootClock;
    use crate::drivers::gate::Key;
    use crate::model::Reason;
    use crate::model::fact::{BmcIdentity, BmcSeen};
    use crate::model::identity::Identity;

    const POLL: Duration = Duration::from_secs(60);

    type Says = Arc<Mutex<Option<fn(&'static str) -> Fault>>>;

    /// A device that says what it is told to, and when it was asked for what.
    struct Scripted {
        says: Says,
        began: Instant,
        asked: Arc<Mutex<Vec<(u128, &'static str)>>>,
    }

    impl Scripted {
        fn answer(&self, what: &'static str) -> Result<(), Fault> {
            self.asked.lock().unwrap().push((self.began.elapsed().as_millis(), what));
            self.says.lock().unwrap().map_or(Ok(()), |fault| Err(fault(what)))
        }
    }

    #[async_trait::async_trait]
    impl Driver for Scripted {
        async fn observe(&mut self, _: Depth, _: Instant) -> Result<Observation, Fault> {
            let seen = BmcSeen { shown: Identity::default(), identity: BmcIdentity::default(), power: Power::Off, boot: None, suite: 17 };
            self.answer("look").map(|()| Observation::Bmc(seen))
        }

        async fn execute(&mut self, _: &Op, permit: &Permit, _: Instant) -> Result<Notes, Fault> {
            assert_eq!(permit.check(), Ok(()), "its time begins with it");
            self.answer("act").map(|()| Vec::new())
        }

        async fn close(&mut self) {}
    }

    struct Bench {
        worker: Worker,
        says: Says,
        asked: Arc<Mutex<Vec<(u128, &'static str)>>>,
        reports: mpsc::Receiver<Report>,
    }

    fn name() -> crate::model::Name {
        "a".parse().unwrap()
    }

    fn busy(what: &'static str) -> Fault {
        Fault::Busy { device: "bmc/a".to_owned(), code: what.to_owned() }
    }

    impl Bench {
        fn start(says: Option<fn(&'static str) -> Fault>) -> Bench {
            let (says, asked): (Says, Arc<Mutex<Vec<_>>>) = (Arc::new(Mutex::new(says)), Arc::default());
            let driver = Scripted { says: Arc::clone(&says), began: Instant::now(), asked: Arc::clone(&asked) };
            let (to, reports) = mpsc::channel(4_096);
            let clock = Clock::start();
            let setting = Setting {
                pace: Pace { poll_every: POLL, deadline: Duration::from_secs(20) },
                first_turn: Instant::now(),
                turns: Arc::default(),
                clock,
                reports: to,
                lease: LeaseEnd::never(BootClock::virtual_from_now()),
            };
            let worker = Worker::start(1, Device::Bmc(name()), Box::new(driver), setting, async {});
            Bench { worker, says, asked, reports }
        }

        fn act(&self) {
            let permit = self.worker.gate().permit(Key::Power, Identity::default());
            assert!(self.worker.send(Job::Do(Box::new((Op::PowerOn { server: name() }, permit)))));
        }

        fn asked(&self) -> Vec<(u128, &'static str)> {
            self.asked.lock().unwrap().clone()
        }

        async fn next(&mut self) -> Report {
            self.reports.recv().await.unwrap()
        }
    }

    fn gaps(asked: &[(u128, &'static str)]) -> Vec<u128> {
        asked.windows(2).map(|two| two[1].0 - two[0].0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_fails_is_asked_at_a_growing_distance_whatever_the_plan_asks_for() {
        let mut bench = Bench::start(Some(busy));
        for _ in 0..3_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bench.worker.send(Job::Observe(Depth::Everything));
        }
        let seconds: Vec<u128> = gaps(&bench.asked()).iter().map(|gap| (gap + 10) / 1_000).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let said = bench.next().await;
        assert_eq!(said.again_at.map(|at| at.since(said.asked_at).as_millis()), Some(1_000), "people are told when");
        *bench.says.lock().unwrap() = None;
        let before = bench.asked().len();
        tokio::time::sleep(POLL).await;
        *bench.says.lock().unwrap() = Some(busy);
        tokio::time::sleep(3 * POLL).await;
        let seconds: Vec<u128> = gaps(&bench.asked()[before..]).iter().map(|gap| (gap + 10) / 1_000).collect();
        assert!(seconds.windows(6).any(|six| six == [1, 2, 4, 8, 16, 32]), "an answer ends it: {seconds:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_waits_as_well_and_what_was_taken_back_meanwhile_is_not_begun() {
        let mut bench = Bench::start(Some(busy));
        while bench.asked().len() < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bench.act();
        tokio::time::sleep(Duration::from_secs(10)).await;
        bench.worker.gate().void(&Key::Power);
        bench.act();
        assert_eq!(bench.asked().len(), 5);
        tokio::time::sleep(Duration::from_secs(7)).await;
        let asked = bench.asked();
        assert_eq!((asked.len(), asked[5].1), (6, "act"), "the second alone: {asked:?}");
        assert!(asked[5].0 - asked[4].0 >= 16_000);
        let mut done = Vec::new();
        for _ in 0..6 {
            if let Outcome::Done(_, result) = bench.next().await.said {
                done.push(result.map_err(|f| f.reason()));
            }
        }
        assert_eq!(done, [Err(Reason::NotSent)]);
        *bench.says.lock().unwrap() = None;
        let (look, act) = (bench.next().await, bench.next().await);
        assert!(matches!((look.said, act.said), (Outcome::Observed(Ok(_)), Outcome::Done(_, Err(Fault::Busy { .. })))));
        assert!(bench.asked()[6].0 - asked[5].0 >= 32_000, "the look after it waits too");
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_keep_their_order_and_observations_in_a_row_are_one() {
        let bench = Bench::start(None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        bench.asked.lock().unwrap().clear();
        for _ in 0..10 {
            bench.worker.send(Job::Observe(Depth::State));
        }
        bench.act();
        bench.act();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let order: Vec<&str> = bench.asked().iter().map(|(_, what)| *what).collect();
        assert_eq!(order, ["look", "act", "look", "act", "look"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_of_plans_does_not_spin() {
        let mut bench = Bench::start(None);
        bench.next().await;
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            bench.worker.send(Job::Observe(Depth::State));
            bench.next().await;
        }
        assert!((45..=52).contains(&bench.asked().len()), "{}", bench.asked().len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_action_leaves_the_looks_alone_and_refused_credentials_end_them_with_a_word() {
        let mut bench = Bench::start(None);
        bench.next().await;
        *bench.says.lock().unwrap() =
            Some(|_| Fault::Forbidden { device: "bmc/a".to_owned(), what: "Chassis Control".to_owned(), code: "D4h".to_owned() });
        bench.act();
        tokio::time::sleep(Duration::from_millis(1)).await;
        *bench.says.lock().unwrap() = None;
        assert!(matches!(bench.next().await.said, Outcome::Observed(Ok(_))));
        assert!(matches!(bench.next().await.said, Outcome::Done(_, Err(Fault::Forbidden { .. }))));
        assert!(matches!(bench.next().await.said, Outcome::Observed(Ok(_))), "it goes on being observed");
        *bench.says.lock().unwrap() = Some(|_| Fault::Denied { device: "bmc/a".to_owned(), why: "no such user".to_owned() });
        bench.act();
        let told = bench.next().await;
        assert!(
            matches!(&told.said, Outcome::Observed(Err(Fault::Denied { why, .. })) if why.contains("`embody retry server a`")),
            "{told:?}"
        );
        assert_eq!(told.again_at, None);
        assert!(matches!(bench.next().await.said, Outcome::Done(_, Err(Fault::Denied { .. }))));
        let asked = bench.asked().len();
        bench.act();
        bench.worker.send(Job::Observe(Depth::Everything));
        assert!(matches!(bench.next().await.said, Outcome::Observed(Err(Fault::Denied { .. }))));
        tokio::time::sleep(20 * POLL).await;
        assert_eq!(bench.asked().len(), asked, "it is not asked again");
    }

    #[tokio::test(start_paused = true)]
    async fn that_the_credentials_worked_is_said_once() {
        let mut bench = Bench::start(None);
        assert!(bench.next().await.proved);
        assert!(!bench.next().await.proved);
    }

    /// Writes a port in two datagrams, some seconds apart. What became of the second.
    struct Slow(Arc<Mutex<Option<bool>>>);

    #[async_trait::async_trait]
    impl Driver for Slow {
        async fn observe(&mut self, _: Depth, _: Instant) -> Result<Observation, Fault> {
            std::future::pending().await
        }

        async fn execute(&mut self, _: &Op, permit: &Permit, _: Instant) -> Result<Notes, Fault> {
            permit.pass(None, true, || ()).unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
            *self.0.lock().unwrap() = Some(permit.pass(None, false, || ()).is_ok());
            Ok(Vec::new())
        }

        async fn close(&mut self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_ends_finishes_what_is_between_two_states_and_begins_nothing() {
        let second = Arc::new(Mutex::new(None));
        let (to, _reports) = mpsc::channel(16);
        let setting = Setting {
            pace: Pace { poll_every: 100 * POLL, deadline: Duration::from_secs(20) },
            first_turn: Instant::now(),
            turns: Arc::default(),
            clock: Clock::start(),
            reports: to,
            lease: LeaseEnd::never(BootClock::virtual_from_now()),
        };
        let worker = Worker::start(1, Device::Bmc(name()), Box::new(Slow(Arc::clone(&second))), setting, async {});
        for key in [Key::Boot, Key::Power] {
            let permit = worker.gate().permit(key, Identity::default());
            assert!(worker.send(Job::Do(Box::new((Op::PowerOn { server: name() }, permit)))));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        worker.end().await;
        assert_eq!((*second.lock().unwrap(), began.elapsed().as_secs()), (Some(true), 4), "the other one is not begun");
    }
}
