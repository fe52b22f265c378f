//! The way of a request to a simulated device and back, in virtual time: it takes its time, gets lost, loses its reply, or arrives late.
//!
//! A request that is under way arrives whatever becomes of the one who asked: the network does not know that a controller was killed.
//! Leaves out: what the device does with it. Shown by `tests/simulate.rs`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// How often things go wrong, each from 0.0 to 1.0, and how long things take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    pub request_lost: f64,
    pub reply_lost: f64,
    /// The request arrives after the one who asked has given up.
    pub late: f64,
    /// A datagram comes twice, there or back.
    pub doubled: f64,
    /// One way, from and to.
    pub takes: (Duration, Duration),
}

impl Weather {
    pub const FAIR: Weather = Weather {
        request_lost: 0.0,
        reply_lost: 0.0,
        late: 0.0,
        doubled: 0.0,
        takes: (Duration::from_millis(2), Duration::from_millis(20)),
    };
}

/// How long a late request is under way. BMCs act half a minute late, not more.
const LATE: (Duration, Duration) = (Duration::from_secs(11), Duration::from_secs(30));
/// Between a datagram and its double.
const DOUBLE: Duration = Duration::from_millis(1);

/// No reply came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReply;

/// One device's line: its luck is its own, so that one device more does not change that of the others.
#[derive(Clone)]
pub struct Line {
    weather: Arc<Mutex<Weather>>,
    rng: Arc<Mutex<StdRng>>,
}

struct Fate {
    there: Duration,
    back: Duration,
    arrives: bool,
    returns: bool,
    /// Each way.
    doubled: (bool, bool),
}

impl Line {
    pub fn new(seed: u64) -> Line {
        Line { weather: Arc::new(Mutex::new(Weather::FAIR)), rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    pub fn set_weather(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    fn fate(&self) -> Fate {
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let mut within = |(from, to): (Duration, Duration)| from + (to - from).mul_f64(rng.random_range(0.0..1.0));
        let (mut there, mut back, late) = (within(weather.takes), within(weather.takes), within(LATE));
        let mut is = |chance: f64| rng.random_range(0.0..1.0) < chance;
        let (lost, late_there, reply_lost, late_back) =
            (is(weather.request_lost), is(weather.late), is(weather.reply_lost), is(weather.late));
        if late_there {
            there = late;
        }
        if late_back {
            back = late;
        }
        Fate { there, back, arrives: !lost, returns: !reply_lost, doubled: (is(weather.doubled), is(weather.doubled)) }
    }

    /// One request: `deliver` is what the device does when it arrives, and says nothing where it does not answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        deliver: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Result<T, NoReply> {
        self.send(deliver).within(patience).await
    }

    /// The same, as soon as it has left.
    pub fn send<T: Send + 'static>(&self, deliver: impl FnOnce() -> Option<T> + Send + 'static) -> Reply<T> {
        let fate = self.fate();
        let (reply, answer) = oneshot::channel();
        if !fate.arrives {
            return Reply(None);
        }
        tokio::spawn(async move {
            sleep(fate.there).await;
            let said = deliver();
            sleep(fate.back).await;
            if let Some(said) = said.filter(|_| fate.returns) {
                // Nobody waits for it any more: it came too late.
                let _ = reply.send(said);
            }
        });
        Reply(Some(answer))
    }

    /// One datagram, and what the device answers to it. Whoever gave up waiting may still hear that.
    pub fn carry(&self, mut deliver: impl FnMut() -> Option<Vec<u8>> + Send + 'static, mut hear: impl FnMut(Vec<u8>) + Send + 'static) {
        let fate = self.fate();
        if !fate.arrives {
            return;
        }
        let copies = |doubled: bool| if doubled { 2 } else { 1 };
        tokio::spawn(async move {
            sleep(fate.there).await;
            let mut said = Vec::new();
            for copy in 0..copies(fate.doubled.0) {
                sleep(DOUBLE * copy).await;
                said.extend(deliver());
            }
            sleep(fate.back).await;
            for answer in said.into_iter().filter(|_| fate.returns) {
                (0..copies(fate.doubled.1)).for_each(|_| hear(answer.clone()));
            }
        });
    }
}

/// The reply to a request that has left; nothing where it does not even arrive.
pub struct Reply<T>(Option<oneshot::Receiver<T>>);

impl<T> Reply<T> {
    pub async fn within(self, patience: Duration) -> Result<T, NoReply> {
        let until = Instant::now() + patience;
        if let Some(answer) = self.0
            && let Ok(Ok(said)) = timeout_at(until, answer).await
        {
            return Ok(said);
        }
        tokio::time::sleep_until(until).await;
        Err(NoReply)
    }
}
