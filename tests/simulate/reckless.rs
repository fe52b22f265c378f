//! For the test of the checkers: drivers that do not care whether the gate is open, as if it were nowhere asked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use embody::testing::clock::BootClock;
use embody::testing::drivers::credentials::Turns;
use embody::testing::drivers::gate::{Gate, Key, Permit};
use embody::testing::drivers::{Depth, Devices, Driver, Fault, Notes, Observation};
use embody::testing::model::op::Op;
use embody::testing::model::secret::{BmcLogin, SnmpLogin};
use embody::testing::model::{Name, ServerSpec, SwitchSpec};
use embody::testing::store::LeaseEnd;
use tokio::time::Instant;

pub struct RecklessDevices(pub Arc<dyn Devices>);

impl Devices for RecklessDevices {
    fn bmc(&self, server: &Name, spec: &ServerSpec, login: BmcLogin, spacing: Duration, turns: Arc<Turns>) -> Box<dyn Driver> {
        Box::new(Reckless(self.0.bmc(server, spec, login, spacing, turns)))
    }

    fn switch(&self, switch: &Name, spec: &SwitchSpec, login: SnmpLogin, turns: Arc<Turns>) -> Box<dyn Driver> {
        Box::new(Reckless(self.0.switch(switch, spec, login, turns)))
    }
}

struct Reckless(Box<dyn Driver>);

#[async_trait]
impl Driver for Reckless {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        self.0.observe(depth, deadline).await
    }

    /// By a permit of its own making, which nobody takes back and no lease ends. Its clock stands still, so that no answer is too old.
    async fn execute(&mut self, op: &Op, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        let clock = BootClock::Virtual(Instant::now() + Duration::from_secs(1_000_000));
        let gate = Gate::new(LeaseEnd::never(clock), clock);
        let mut own = gate.permit(Key::of(op), permit.pinned.clone());
        own.begin(Duration::from_secs(3600));
        self.0.execute(op, &own, deadline).await
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}
