//! The two clocks: ticks, by which everything is decided and planned, and the boot clock, by which authority ends.
//!
//! Leaves out: the wall clock, which people read and nothing decides by (`telemetry`).

use std::time::Duration;

use tokio::time::Instant;

use crate::model::fact::Tick;

/// Ticks: tokio's clock, counted from the start of the process, so that the simulator's paused time is the only time there is.
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
        self.started + Duration::from_micros(tick.0)
    }
}

/// Time that goes on while the process is stopped and while the machine sleeps: leases and deadlines end by it.
#[derive(Debug, Clone, Copy)]
pub enum BootClock {
    /// `CLOCK_BOOTTIME`, clock_gettime(2). tokio's clock stands still while the machine is suspended.
    Kernel,
    /// tokio's clock, since then: for the simulator.
    Virtual(Instant),
}

impl BootClock {
    pub fn virtual_from_now() -> BootClock {
        BootClock::Virtual(Instant::now())
    }

    /// Since the machine started, or since the simulation did.
    pub fn now(self) -> Duration {
        match self {
            BootClock::Kernel => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
            }
            BootClock::Virtual(since) => since.elapsed(),
        }
    }
}
