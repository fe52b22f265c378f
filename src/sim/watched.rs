//! A driver whose operations the checkers know by name: a datagram to a switch does not say what it is a part of.
//!
//! Leaves out: judgement (`checkers`). Invariant: it changes nothing of what the driver does. Shown by `tests/simulate.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::centre::Centre;
use super::checkers::Host;
use crate::drivers::gate::Permit;
use crate::drivers::{Depth, Driver, Fault, Notes, Observation};
use crate::model::op::Op;

pub(super) struct Watched {
    driver: Box<dyn Driver>,
    centre: Arc<Centre>,
    host: Host,
}

impl Watched {
    pub(super) fn new(driver: Box<dyn Driver>, centre: &Arc<Centre>, host: Host) -> Watched {
        Watched { driver, centre: Arc::clone(centre), host }
    }
}

#[async_trait]
impl Driver for Watched {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        self.driver.observe(depth, deadline).await
    }

    async fn execute(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        self.centre.judge(|judge, _| judge.begins(self.host, op));
        let result = self.driver.execute(op, permit, deadline).await;
        self.centre.judge(|judge, now| judge.came_back(self.host, op, result.is_ok(), now));
        result
    }

    fn forget_refusals(&mut self) {
        self.driver.forget_refusals();
    }

    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        self.driver.preview(ops)
    }

    async fn close(&mut self) {
        self.driver.close().await;
    }
}
