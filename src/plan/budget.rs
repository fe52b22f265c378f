//! The Policy's limits across servers: how many power changes and port writes are in flight, and how many began in the last minute. Pure.
//!
//! Invariant: an operation that was not admitted was not sent; it is planned again at the time that is given.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::model::fact::Tick;
use crate::model::op::{Device, Op};
use crate::model::policy::Limits;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Budget {
    power_in_flight: usize,
    ports_in_flight: BTreeMap<Device, usize>,
    power_begun: VecDeque<Tick>,
    ports_begun: VecDeque<Tick>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Power,
    Port,
    Free,
}

fn class(op: &Op) -> Class {
    match op {
        Op::PowerOn { .. } | Op::PowerOff { .. } => Class::Power,
        Op::SetPort { .. } | Op::CreateVlan { .. } => Class::Port,
        Op::SetBoot { .. } | Op::Save { .. } => Class::Free,
    }
}

impl Budget {
    /// Takes the operation's share, or says which limit is full and when to try again (a release may make it earlier).
    pub(crate) fn take(&mut self, op: &Op, limits: &Limits, now: Tick) -> Result<(), (String, Tick)> {
        let device = op.device();
        match class(op) {
            Class::Free => Ok(()),
            Class::Power => {
                let (at_once, per_minute) = (limits.max_power_changes.at_once as usize, limits.max_power_changes.per_minute as usize);
                full(self.power_in_flight, at_once, "maxPowerChanges.atOnce", now)?;
                in_window(&mut self.power_begun, per_minute, "maxPowerChanges.perMinute", now)?;
                self.power_in_flight += 1;
                self.power_begun.push_back(now);
                Ok(())
            }
            Class::Port => {
                let (at_once, per_switch) = (limits.max_port_writes.at_once as usize, limits.max_port_writes.per_switch as usize);
                full(self.ports_in_flight.values().sum(), at_once, "maxPortWrites.atOnce", now)?;
                full(self.ports_in_flight.get(&device).copied().unwrap_or(0), per_switch, "maxPortWrites.perSwitch", now)?;
                in_window(&mut self.ports_begun, limits.max_port_writes.per_minute as usize, "maxPortWrites.perMinute", now)?;
                *self.ports_in_flight.entry(device).or_default() += 1;
                self.ports_begun.push_back(now);
                Ok(())
            }
        }
    }

    /// The operation has come back, however it ended.
    pub(crate) fn release(&mut self, op: &Op) {
        match class(op) {
            Class::Free => {}
            Class::Power => self.power_in_flight = self.power_in_flight.saturating_sub(1),
            Class::Port => {
                if let Some(n) = self.ports_in_flight.get_mut(&op.device()) {
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        self.ports_in_flight.remove(&op.device());
                    }
                }
            }
        }
    }
}

fn full(now_in_flight: usize, limit: usize, name: &str, now: Tick) -> Result<(), (String, Tick)> {
    if now_in_flight < limit { Ok(()) } else { Err((format!("limit {name} ({limit}) is reached"), now.plus(Duration::from_secs(1)))) }
}

fn in_window(begun: &mut VecDeque<Tick>, limit: usize, name: &str, now: Tick) -> Result<(), (String, Tick)> {
    while begun.front().is_some_and(|t| now.since(*t) >= MINUTE) {
        begun.pop_front();
    }
    match begun.front() {
        Some(first) if begun.len() >= limit => Err((format!("limit {name} ({limit}) is reached"), first.plus(MINUTE))),
        None if limit == 0 => Err((format!("limit {name} is 0"), now.plus(MINUTE))),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    fn on(server: &str) -> Op {
        Op::PowerOn { server: server.parse::<Name>().unwrap() }
    }

    #[test]
    fn no_more_at_once_and_per_minute_than_the_policy_says() {
        let (mut budget, limits) = (Budget::default(), Limits::default());
        for n in 0..4 {
            assert_eq!(budget.take(&on(&format!("s{n}")), &limits, Tick(1)), Ok(()));
        }
        assert!(budget.take(&on("s4"), &limits, Tick(1)).unwrap_err().0.contains("atOnce"));
        for n in 0..6 {
            budget.release(&on("s"));
            assert_eq!(budget.take(&on(&format!("t{n}")), &limits, Tick(2)), Ok(()));
        }
        budget.release(&on("s"));
        let (why, again) = budget.take(&on("u"), &limits, Tick(3)).unwrap_err();
        assert!(why.contains("perMinute"));
        assert_eq!(budget.take(&on("u"), &limits, again), Ok(()));
    }
}
