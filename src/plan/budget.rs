//! The Policy's limits across servers: how many power changes and port writes are in flight, and how many began in the last minute. Pure.
//!
//! Invariant: an operation that was not admitted was not sent; its server waits at the limit (`control::in_flight`) and is planned again when
//! there is room.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::model::fact::Tick;
use crate::model::op::{Device, Op};
use crate::model::policy::Limits;

const MINUTE: Duration = Duration::from_secs(60);

/// One limit of the Policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limit {
    PowerAtOnce,
    PowerPerMinute,
    PortsAtOnce,
    PortsPerMinute,
    /// At one switch.
    PortsPerSwitch(Device),
}

impl Limit {
    pub(crate) fn of(&self, limits: &Limits) -> usize {
        (match self {
            Limit::PowerAtOnce => limits.max_power_changes.at_once,
            Limit::PowerPerMinute => limits.max_power_changes.per_minute,
            Limit::PortsAtOnce => limits.max_port_writes.at_once,
            Limit::PortsPerMinute => limits.max_port_writes.per_minute,
            Limit::PortsPerSwitch(_) => limits.max_port_writes.per_switch,
        }) as usize
    }

    /// As it stands in a Policy.
    fn field(&self) -> &'static str {
        match self {
            Limit::PowerAtOnce => "maxPowerChanges.atOnce",
            Limit::PowerPerMinute => "maxPowerChanges.perMinute",
            Limit::PortsAtOnce => "maxPortWrites.atOnce",
            Limit::PortsPerMinute => "maxPortWrites.perMinute",
            Limit::PortsPerSwitch(_) => "maxPortWrites.perSwitch",
        }
    }
}

/// A limit that is reached, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Full {
    pub limit: Limit,
    pub is: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} ({}) is reached", self.limit.field(), self.is)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Budget {
    power_in_flight: usize,
    ports_in_flight: usize,
    ports_of: BTreeMap<Device, usize>,
    power_begun: VecDeque<Tick>,
    ports_begun: VecDeque<Tick>,
}

/// The limits that an operation counts for.
fn limits_of(op: &Op) -> Vec<Limit> {
    match op {
        Op::PowerOn { .. } | Op::PowerOff { .. } => vec![Limit::PowerAtOnce, Limit::PowerPerMinute],
        Op::SetPort { .. } | Op::CreateVlan { .. } => vec![Limit::PortsAtOnce, Limit::PortsPerSwitch(op.device()), Limit::PortsPerMinute],
        Op::SetBoot { .. } | Op::Save { .. } => Vec::new(),
    }
}

impl Budget {
    /// Whether the operation may begin; the first limit that is reached, if not. `room` tells when there is room again.
    pub(crate) fn admits(&mut self, op: &Op, limits: &Limits, now: Tick) -> Result<(), Full> {
        match limits_of(op).into_iter().find(|limit| self.room(limit, limits, now).0 == 0) {
            Some(limit) => Err(Full { is: limit.of(limits), limit }),
            None => Ok(()),
        }
    }

    /// How many more may begin under this limit now, and when there may be one more without an operation that comes back.
    pub(crate) fn room(&mut self, limit: &Limit, limits: &Limits, now: Tick) -> (usize, Option<Tick>) {
        let most = limit.of(limits);
        match limit {
            Limit::PowerAtOnce => (most.saturating_sub(self.power_in_flight), None),
            Limit::PortsAtOnce => (most.saturating_sub(self.ports_in_flight), None),
            Limit::PortsPerSwitch(switch) => (most.saturating_sub(self.ports_of.get(switch).copied().unwrap_or(0)), None),
            Limit::PowerPerMinute => in_window(&mut self.power_begun, most, now),
            Limit::PortsPerMinute => in_window(&mut self.ports_begun, most, now),
        }
    }

    /// The operation begins. What was begun before and must be ended takes its place where there is none, too.
    pub(crate) fn take(&mut self, op: &Op, now: Tick) {
        for limit in limits_of(op) {
            match limit {
                Limit::PowerAtOnce => self.power_in_flight += 1,
                Limit::PortsAtOnce => self.ports_in_flight += 1,
                Limit::PortsPerSwitch(switch) => *self.ports_of.entry(switch).or_default() += 1,
                Limit::PowerPerMinute => self.power_begun.push_back(now),
                Limit::PortsPerMinute => self.ports_begun.push_back(now),
            }
        }
    }

    /// The operation has come back, however it ended.
    pub(crate) fn release(&mut self, op: &Op) {
        for limit in limits_of(op) {
            match limit {
                Limit::PowerAtOnce => self.power_in_flight = self.power_in_flight.saturating_sub(1),
                Limit::PortsAtOnce => self.ports_in_flight = self.ports_in_flight.saturating_sub(1),
                Limit::PortsPerSwitch(switch) => {
                    let left = self.ports_of.remove(&switch).unwrap_or(0).saturating_sub(1);
                    if left > 0 {
                        self.ports_of.insert(switch, left);
                    }
                }
                Limit::PowerPerMinute | Limit::PortsPerMinute => {}
            }
        }
    }
}

fn in_window(begun: &mut VecDeque<Tick>, most: usize, now: Tick) -> (usize, Option<Tick>) {
    while begun.front().is_some_and(|t| now.since(*t) >= MINUTE) {
        begun.pop_front();
    }
    let left = most.saturating_sub(begun.len());
    // A limit that was lowered has more behind it than it lets go: the one whose end makes room.
    let next = begun.len().checked_sub(most).and_then(|nth| begun.get(nth));
    (left, next.map(|t| t.plus(MINUTE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    fn on(server: &str) -> Op {
        Op::PowerOn { server: server.parse::<Name>().unwrap() }
    }

    fn begin(budget: &mut Budget, server: &str, limits: &Limits, now: Tick) -> Result<(), String> {
        budget.admits(&on(server), limits, now).map_err(|full| full.to_string())?;
        budget.take(&on(server), now);
        Ok(())
    }

    #[test]
    fn no_more_at_once_and_per_minute_than_the_policy_says() {
        let (mut budget, limits) = (Budget::default(), Limits::default());
        for n in 0..4 {
            assert_eq!(begin(&mut budget, &format!("s{n}"), &limits, Tick(1)), Ok(()));
        }
        assert_eq!(begin(&mut budget, "s4", &limits, Tick(1)).unwrap_err(), "limit maxPowerChanges.atOnce (4) is reached");
        assert_eq!(budget.room(&Limit::PowerAtOnce, &limits, Tick(1)), (0, None));
        for n in 0..6 {
            budget.release(&on("s"));
            assert_eq!(begin(&mut budget, &format!("t{n}"), &limits, Tick(2)), Ok(()));
        }
        budget.release(&on("s"));
        assert!(begin(&mut budget, "u", &limits, Tick(3)).unwrap_err().contains("perMinute"));
        let (room, again) = budget.room(&Limit::PowerPerMinute, &limits, Tick(3));
        assert_eq!((room, again), (0, Some(Tick(1).plus(MINUTE))));
        assert_eq!(begin(&mut budget, "u", &limits, again.unwrap()), Ok(()));
    }

    #[test]
    fn what_must_be_ended_takes_a_place_that_there_is_not() {
        let (mut budget, mut limits) = (Budget::default(), Limits::default());
        limits.max_power_changes.at_once = 1;
        (0..3).for_each(|_| budget.take(&on("s"), Tick(1)));
        for _ in 0..2 {
            budget.release(&on("s"));
            assert_eq!(budget.room(&Limit::PowerAtOnce, &limits, Tick(1)).0, 0);
        }
        budget.release(&on("s"));
        assert_eq!(budget.room(&Limit::PowerAtOnce, &limits, Tick(1)).0, 1);
    }

    #[test]
    fn a_limit_that_was_lowered_lets_go_when_enough_is_past() {
        let (mut budget, mut limits) = (Budget::default(), Limits::default());
        (1..=5).for_each(|at| budget.take(&on("s"), Tick(at)));
        limits.max_power_changes.per_minute = 2;
        assert_eq!(budget.room(&Limit::PowerPerMinute, &limits, Tick(6)), (0, Some(Tick(4).plus(MINUTE))));
        limits.max_power_changes.per_minute = 0;
        assert_eq!(budget.room(&Limit::PowerPerMinute, &limits, Tick(6)), (0, None));
    }
}
