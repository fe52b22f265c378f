//! One task per device. It owns the driver, so that requests to a device never interleave; it looks at it from time to time, and does what
//! `reconcile` sends, in order. It decides nothing.
//!
//! Every report carries the tick at which the question was asked: taken before the request is sent.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::clock::Clock;
use super::secrets::Gate;
use crate::drivers::{Depth, Driver, Fault, Observation};
use crate::limits;
use crate::model::fact::Tick;
use crate::plan::op::{Device, Op};

/// What `reconcile` sends.
#[derive(Debug)]
pub enum Job {
    Do(Op),
    Look(Depth),
    /// What would be written for these operations, in words. Nothing is asked of the device.
    Preview(Vec<Op>, oneshot::Sender<Vec<Vec<String>>>),
}

/// What comes back.
#[derive(Debug)]
pub struct Report {
    pub device: Device,
    /// Which lane of this device: an answer of an older one, to another address or with other credentials, is dropped.
    pub lane: u64,
    pub asked_at: Tick,
    pub said: Said,
}

#[derive(Debug)]
pub enum Said {
    Looked(Result<Observation, Fault>),
    Did(Op, Result<(), Fault>),
    /// It was not begun: it was recalled while it waited.
    Recalled(Op),
}

/// What a lane needs beside its driver.
pub struct Setting {
    pub pace: Pace,
    pub gate: Arc<Gate>,
    pub clock: Clock,
    pub reports: mpsc::Sender<Report>,
}

#[derive(Clone, Copy)]
pub struct Pace {
    pub poll_every: Duration,
    pub deadline: Duration,
}

/// One sending of an operation: raised when it is not to be begun any more. The next sending of the same operation has another one, so that
/// a word that comes too late hits nothing.
type Recalled = Arc<AtomicBool>;

/// A job on its way, with its flag.
type Queued = (Job, Recalled);

pub struct Lane {
    pub id: u64,
    jobs: mpsc::Sender<Queued>,
    /// The last sending of each switching-off; nothing else is ever recalled.
    offs: Mutex<BTreeMap<Op, Recalled>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Lane {
    /// A lane that was not ended may be in the middle of a request: what it then learns is of no use to anybody.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Lane {
    /// Queues a job; `false` when the lane is so far behind that its queue is full (the job is planned again later).
    pub fn send(&self, job: Job) -> bool {
        let recalled = Recalled::default();
        if let Job::Do(op @ Op::PowerOff { .. }) = &job {
            self.offs().insert(op.clone(), Arc::clone(&recalled));
        }
        self.jobs.try_send((job, recalled)).is_ok()
    }

    /// Takes back a switching-off that waits. One that was begun already goes on.
    pub fn recall(&self, op: &Op) {
        if let Some(recalled) = self.offs().get(op) {
            recalled.store(true, Ordering::Relaxed);
        }
    }

    fn offs(&self) -> MutexGuard<'_, BTreeMap<Op, Recalled>> {
        self.offs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the lane: jobs that wait are dropped, the device's session is closed. A request that hangs is cut off. Resolves when nothing of
    /// this lane speaks to the device any more.
    pub fn end(mut self) -> impl Future<Output = ()> + Send + 'static {
        if let Some(stop) = self.stop.take() {
            // A lane that is gone already needs no telling.
            let _ = stop.send(());
        }
        let task = self.task.take();
        async move {
            let Some(mut task) = task else { return };
            if tokio::time::timeout(limits::LANE_END, &mut task).await.is_err() {
                task.abort();
                // Cancelled, as asked.
                let _ = task.await;
            }
        }
    }

    /// `after`: the end of the lane that spoke to this device before.
    pub fn start(
        id: u64,
        device: Device,
        driver: Box<dyn Driver>,
        setting: Setting,
        after: impl Future<Output = ()> + Send + 'static,
    ) -> Lane {
        let (jobs, inbox) = mpsc::channel(limits::LANE_JOBS);
        let (stop, stopped) = oneshot::channel();
        let seed = device.to_string().bytes().fold(id, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
        let Setting { pace, gate, clock, reports } = setting;
        let rng = StdRng::seed_from_u64(seed);
        let work = Work { id, device, driver, pace, gate, clock, reports, rng, looks: 0, fast_until: None, denied: false };
        let task = tokio::spawn(async move {
            after.await;
            work.run(inbox, stopped).await;
        });
        Lane { id, jobs, offs: Mutex::default(), stop: Some(stop), task: Some(task) }
    }
}

struct Work {
    id: u64,
    device: Device,
    driver: Box<dyn Driver>,
    pace: Pace,
    gate: Arc<Gate>,
    clock: Clock,
    reports: mpsc::Sender<Report>,
    rng: StdRng,
    looks: u32,
    /// After a power operation the device is looked at often, until it had its time.
    fast_until: Option<Instant>,
    /// The device refused the credentials: it is not asked again by this lane.
    denied: bool,
}

impl Work {
    async fn run(mut self, mut inbox: mpsc::Receiver<Queued>, mut stopped: oneshot::Receiver<()>) {
        let mut next_poll = Instant::now() + self.jitter(self.pace.poll_every.min(limits::FIRST_POLL_WITHIN));
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                job = inbox.recv() => match job {
                    Some((Job::Do(op), recalled)) => self.act(op, &recalled).await,
                    Some((Job::Look(depth), _)) => {
                        let (depth, next) = all_looks(depth, &mut inbox);
                        self.look(depth).await;
                        if !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                            break;
                        }
                        match next {
                            Some((Job::Do(op), recalled)) => self.act(op, &recalled).await,
                            Some((Job::Look(depth), _)) => self.look(depth).await,
                            Some((Job::Preview(ops, reply), _)) => drop(reply.send(self.driver.preview(&ops))),
                            None => {}
                        }
                    }
                    // Not a look: the next poll stays where it is.
                    Some((Job::Preview(ops, reply), _)) => {
                        let _ = reply.send(self.driver.preview(&ops));
                        continue;
                    }
                    None => break,
                },
                () = tokio::time::sleep_until(next_poll) => {
                    let depth = if self.looks.is_multiple_of(limits::LOOKS_PER_FULL_LOOK) { Depth::Everything } else { Depth::State };
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
        let _turn = match self.gate.pass(&self.device).await {
            Ok(turn) => turn,
            Err(fault) => {
                let asked_at = self.clock.now();
                return self.report(asked_at, Said::Looked(Err(fault))).await;
            }
        };
        let asked_at = self.clock.now();
        let result = self.driver.observe(depth, Instant::now() + self.pace.deadline).await;
        self.looks = self.looks.wrapping_add(1);
        self.learn(result.as_ref().err(), result.is_ok());
        self.report(asked_at, Said::Looked(result)).await;
    }

    async fn act(&mut self, op: Op, recalled: &Recalled) {
        let asked_at = self.clock.now();
        if recalled.load(Ordering::Relaxed) {
            return self.report(asked_at, Said::Recalled(op)).await;
        }
        let result = match self.denied {
            true => Err(Fault::Denied { device: self.device.to_string(), why: "they were refused before".to_owned() }),
            false => self.driver.execute(std::slice::from_ref(&op), Instant::now() + self.pace.deadline).await,
        };
        if matches!(op, Op::PowerOn { .. } | Op::PowerOff { .. }) {
            self.fast_until = Some(Instant::now() + limits::FAST_POLL_FOR);
        }
        self.learn(result.as_ref().err(), false);
        // The look comes first: as long as the operation counts as in flight, it is not planned again on what was seen before it.
        self.look(Depth::State).await;
        self.report(asked_at, Said::Did(op, result)).await;
    }

    fn learn(&mut self, fault: Option<&Fault>, worked: bool) {
        if let Some(Fault::Denied { .. }) = fault {
            self.denied = true;
            self.gate.refused(&self.device);
        } else if worked {
            self.gate.worked(&self.device);
        }
    }

    async fn report(&mut self, asked_at: Tick, said: Said) {
        // A closed channel means that the controller is going down.
        let _ = self.reports.send(Report { device: self.device.clone(), lane: self.id, asked_at, said }).await;
    }
}

/// The looks that wait in a row, as one, and the job behind them. One question answers all that wait for an answer: with a device that is
/// slow to answer they would pile up, and what is to be done would wait behind them.
fn all_looks(mut depth: Depth, inbox: &mut mpsc::Receiver<Queued>) -> (Depth, Option<Queued>) {
    loop {
        match inbox.try_recv() {
            Ok((Job::Look(other), _)) => depth = depth.max(other),
            Ok(other) => return (depth, Some(other)),
            Err(_) => return (depth, None),
        }
    }
}
