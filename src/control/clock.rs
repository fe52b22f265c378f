//! Ticks: tokio's clock, counted from the start of the process, so that the simulator's paused time is the only time there is.

use tokio::time::Instant;

use crate::model::fact::Tick;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { started: Instant::now() }
    }

    /// Never `Tick::START`, which is before everything that this process does.
    pub fn now(self) -> Tick {
        Tick(1 + self.started.elapsed().as_micros() as u64)
    }

    pub fn instant(self, tick: Tick) -> Instant {
        self.started + std::time::Duration::from_micros(tick.0)
    }
}
