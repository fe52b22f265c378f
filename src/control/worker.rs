//! One task per device. It owns the driver, so that requests to a device never interleave; it observes it from time to time, and does what
//! `reconcile` sends, in order. It decides nothing.
//!
//! Every report carries the tick at which the question was asked: taken before the request is sent.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::drivers::credentials::Turns;
use crate::drivers::gate::{Gate, Permit};
use crate::drivers::{Depth, Driver, Fault, Notes, Observation};
use crate::limits;
use crate::model::fact::Tick;
use crate::model::op::{Device, Op};
use crate::store::LeaseEnd;

/// What `reconcile` sends.
pub enum Job {
    Do(Op, Box<Permit>),
    Observe(Depth),
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
}

#[derive(Debug)]
pub enum Outcome {
    Observed(Result<Observation, Fault>),
    Done(Op, Result<Notes, Fault>),
}

/// What a worker needs beside its driver.
pub struct Setting {
    pub pace: Pace,
    pub turns: Arc<Turns>,
    pub clock: Clock,
    pub reports: mpsc::Sender<Report>,
    pub lease: Arc<LeaseEnd>,
}

#[derive(Clone, Copy)]
pub struct Pace {
    pub poll_every: Duration,
    pub deadline: Duration,
}

pub struct Worker {
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
    pub fn send(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// What leaves for this device leaves through it.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Ends the worker: jobs that wait are dropped, the device's session is closed. A request that hangs is cut off. Resolves when nothing of
    /// this worker speaks to the device any more.
    pub fn end(mut self) -> impl Future<Output = ()> + Send + 'static {
        self.gate.void_all();
        if let Some(stop) = self.stop.take() {
            // A worker that is gone already needs no telling.
            let _ = stop.send(());
        }
        let task = self.task.take();
        async move {
            let Some(mut task) = task else { return };
            if tokio::time::timeout(limits::WORKER_END, &mut task).await.is_err() {
                task.abort();
                // Cancelled, as asked.
                let _ = task.await;
            }
        }
    }

    /// `after`: the end of the worker that spoke to this device before.
    pub fn start(
        id: u64,
        device: Device,
        driver: Box<dyn Driver>,
        setting: Setting,
        after: impl Future<Output = ()> + Send + 'static,
    ) -> Worker {
        let (jobs, inbox) = mpsc::channel(limits::WORKER_JOBS);
        let (stop, stopped) = oneshot::channel();
        let seed = device.to_string().bytes().fold(id, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
        let Setting { pace, turns, clock, reports, lease } = setting;
        let gate = Gate::new(Arc::clone(&lease), lease.clock());
        let rng = StdRng::seed_from_u64(seed);
        let work = Work { id, device, driver, pace, turns, clock, reports, rng, looks: 0, fast_until: None, denied: false };
        let task = tokio::spawn(async move {
            after.await;
            work.run(inbox, stopped).await;
        });
        Worker { id, jobs, gate, stop: Some(stop), task: Some(task) }
    }
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
    looks: u32,
    /// After a power operation the device is observed often, until it had its time.
    fast_until: Option<Instant>,
    /// The device refused the credentials: it is not asked again by this worker.
    denied: bool,
}

impl Work {
    async fn run(mut self, mut inbox: mpsc::Receiver<Job>, mut stopped: oneshot::Receiver<()>) {
        let mut next_poll = Instant::now() + self.jitter(self.pace.poll_every.min(limits::FIRST_POLL_WITHIN));
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                job = inbox.recv() => match job {
                    Some(Job::Do(op, permit)) => self.act(op, permit).await,
                    Some(Job::Observe(depth)) => {
                        let (depth, next) = all_observations(depth, &mut inbox);
                        self.look(depth).await;
                        if !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                            break;
                        }
                        match next {
                            Some(Job::Do(op, permit)) => self.act(op, permit).await,
                            Some(Job::Observe(depth)) => self.look(depth).await,
                            Some(Job::Preview(ops, reply)) => drop(reply.send(self.driver.preview(&ops))),
                            None => {}
                        }
                    }
                    // Not a poll: the next poll stays where it is.
                    Some(Job::Preview(ops, reply)) => {
                        let _ = reply.send(self.driver.preview(&ops));
                        continue;
                    }
                    None => break,
                },
                () = tokio::time::sleep_until(next_poll) => {
                    let depth = if self.looks.is_multiple_of(limits::POLLS_PER_FULL_POLL) { Depth::Everything } else { Depth::State };
                    self.look(depth).await;
                }
            }
            next_poll = Instant::now() + self.pause();
        }
        self.driver.close().await;
    }

    /// Until the next poll: the interval, ±10 % so that a fleet spreads out; soon after a power operation.
    fn pause(&mut self) -> Duration {
        if self.fast_until.is_some_and(|until| Instant::now() < until) {
            return limits::FAST_POLL.min(self.pace.poll_every);
        }
        self.fast_until = None;
        self.pace.poll_every.mul_f64(self.rng.random_range(0.9..1.1))
    }

    fn jitter(&mut self, within: Duration) -> Duration {
        within.mul_f64(self.rng.random_range(0.0..1.0))
    }

    async fn look(&mut self, depth: Depth) {
        if self.denied {
            return;
        }
        let _turn = match self.turns.pass(&self.device).await {
            Ok(turn) => turn,
            Err(fault) => {
                let asked_at = self.clock.now();
                return self.report(asked_at, Outcome::Observed(Err(fault))).await;
            }
        };
        let asked_at = self.clock.now();
        let result = self.driver.observe(depth, Instant::now() + self.pace.deadline).await;
        self.looks = self.looks.wrapping_add(1);
        self.learn(result.as_ref().err(), result.is_ok());
        self.report(asked_at, Outcome::Observed(result)).await;
    }

    async fn act(&mut self, op: Op, mut permit: Box<Permit>) {
        let asked_at = self.clock.now();
        let result = match self.denied {
            true => Err(Fault::Denied { device: self.device.to_string(), why: "they were refused before".to_owned() }),
            false => {
                permit.begin(self.pace.deadline);
                self.driver.execute(&op, &permit, Instant::now() + self.pace.deadline).await
            }
        };
        if matches!(op, Op::PowerOn { .. } | Op::PowerOff { .. }) {
            self.fast_until = Some(Instant::now() + limits::FAST_POLL_FOR);
        }
        self.learn(result.as_ref().err(), false);
        // The poll comes first: as long as the operation counts as in flight, it is not planned again on what was seen before it.
        self.look(Depth::State).await;
        self.report(asked_at, Outcome::Done(op, result)).await;
    }

    fn learn(&mut self, fault: Option<&Fault>, worked: bool) {
        if let Some(Fault::Denied { .. }) = fault {
            self.denied = true;
            self.turns.refused(&self.device);
        } else if worked {
            self.turns.worked(&self.device);
        }
    }

    async fn report(&mut self, asked_at: Tick, said: Outcome) {
        // A closed channel means that the controller is going down.
        let _ = self.reports.send(Report { device: self.device.clone(), worker: self.id, asked_at, said }).await;
    }
}

/// The looks that wait in a row, as one, and the job behind them. One question answers all that wait for an answer: with a device that is
/// slow to answer they would pile up, and what is to be done would wait behind them.
fn all_observations(mut depth: Depth, inbox: &mut mpsc::Receiver<Job>) -> (Depth, Option<Job>) {
    loop {
        match inbox.try_recv() {
            Ok(Job::Observe(other)) => depth = depth.max(other),
            Ok(other) => return (depth, Some(other)),
            Err(_) => return (depth, None),
        }
    }
}
