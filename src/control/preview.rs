//! The writes of a forecast: asked of the workers, whose drivers know what their devices last showed.
//!
//! Leaves out: which operations (`plan::forecast`), and the words (`Driver::preview`). Invariant: the controller never waits for a worker; a device
//! that is slow or silent costs the person who asked `limits::PREVIEW_WAIT`, once. Shown by `tests/previews.rs`.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::controller::Controller;
use super::worker::Job;
use crate::control::operator::Forecast;
use crate::drivers::NOT_READ;
use crate::limits;
use crate::model::op::{Device, Op};
use crate::model::{Object, Spec};

const BUSY: &str = "busy: what would be sent is not known at the moment";
const OTHER_WISH: &str = "not known before this manifest of the device is applied";

impl Controller {
    /// Answers with the forecast when its writes are known, or when the time for that is over. `ops` are those of its steps, one for each.
    pub(super) fn add_writes(&self, mut forecast: Forecast, ops: Vec<Op>, otherwise: &BTreeSet<Device>, reply: oneshot::Sender<Forecast>) {
        let mut by_device: BTreeMap<Device, Vec<(usize, Op)>> = BTreeMap::new();
        for (place, op) in ops.into_iter().enumerate() {
            by_device.entry(op.device()).or_default().push((place, op));
        }
        let mut say = |places: &[usize], word: &str| {
            for place in places {
                forecast.steps.get_mut(*place).into_iter().for_each(|step| step.writes = vec![word.to_owned()]);
            }
        };
        let mut asked = Vec::new();
        for (device, list) in by_device {
            let (places, ops): (Vec<usize>, Vec<Op>) = list.into_iter().unzip();
            if otherwise.contains(&device) {
                say(&places, OTHER_WISH);
                continue;
            }
            say(&places, if self.fleet.has(&device) { BUSY } else { NOT_READ });
            let (answer, said) = oneshot::channel();
            if self.fleet.send(&device, Job::Preview(ops, answer)) {
                asked.push((places, said));
            }
        }
        tokio::spawn(async move {
            let until = Instant::now() + limits::PREVIEW_WAIT;
            for (places, said) in asked {
                let Ok(Ok(words)) = timeout_at(until, said).await else { continue };
                for (place, writes) in places.into_iter().zip(words) {
                    forecast.steps.get_mut(place).into_iter().for_each(|step| step.writes.clone_from(&writes));
                }
            }
            // A reply that nobody waits for any more is no failure.
            let _ = reply.send(forecast);
        });
    }

    /// The devices that these changes reach otherwise than they are reached today: their drivers know other rules.
    pub(super) fn reached_otherwise(&self, changes: &[Object]) -> BTreeSet<Device> {
        let other = |change: &Object| match &change.spec {
            Spec::Switch(spec) => {
                let same = self.cache.objects.switches.get(change.name()).is_some_and(|held| held.spec == *spec);
                (!same).then(|| Device::Switch(change.name().clone()))
            }
            Spec::Server(spec) => {
                let same = self.cache.objects.servers.get(change.name()).is_some_and(|held| held.spec.bmc == spec.bmc);
                (!same).then(|| Device::Bmc(change.name().clone()))
            }
            Spec::Policy(_) | Spec::Secret(_) | Spec::Network(_) | Spec::Persona(_) | Spec::Binding(_) => None,
        };
        changes.iter().filter_map(other).collect()
    }
}
