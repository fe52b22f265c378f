//! What the tests and benches need of the inside, in one place: drivers carried out without a controller.
//!
//! Leaves out: anything that the product uses. It is no promise to anybody.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::BootClock;
use crate::drivers::gate::{Freshness, Gate, Key, Permit};
use crate::drivers::switch::snmp::Leave;
use crate::drivers::{Depth, Driver, Fault, Observation};
use crate::model::identity::Identity;
use crate::model::op::Op;
use crate::store::LeaseEnd;

/// Does these operations in this order, as a controller that holds its lease would, on the device that answers now.
pub async fn carry_out(driver: &mut dyn Driver, ops: &[Op], deadline: Instant) -> Result<(), Fault> {
    let pinned = match driver.observe(Depth::State, deadline).await? {
        Observation::Bmc(seen) => Identity::default().extended(&seen.shown),
        Observation::Switch(seen) => Identity::default().extended(&seen.shown),
    };
    carry_out_on(driver, &pinned, ops, deadline).await
}

/// The same, on this device alone.
pub async fn carry_out_on(driver: &mut dyn Driver, pinned: &Identity, ops: &[Op], deadline: Instant) -> Result<(), Fault> {
    let gate = Gate::new(LeaseEnd::never(BootClock::Kernel), BootClock::Kernel);
    for op in ops {
        let mut permit = gate.permit(Key::of(op), pinned.clone());
        permit.begin(deadline.saturating_duration_since(Instant::now()));
        driver.execute(op, &permit, deadline).await?;
    }
    Ok(())
}

/// A permit of a controller that holds its lease, for a minute and for whatever device.
pub fn permit() -> Permit {
    let mut permit = Gate::new(LeaseEnd::never(BootClock::Kernel), BootClock::Kernel).permit(Key::Saved, Identity::default());
    permit.begin(Duration::from_secs(60));
    permit
}

/// By this permit, one SET that rests on an answer of this moment.
pub fn leave(permit: &Permit) -> Leave<'_> {
    Leave { permit, fresh: Freshness::within(permit.now(), Duration::ZERO), half_way: false }
}
