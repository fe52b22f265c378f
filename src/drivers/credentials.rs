//! The turns that keep one typo from locking every BMC of a site: who may show unproven credentials to a device.
//!
//! Leaves out: where the credentials come from (`control::secrets`). Invariant: credentials that two devices have refused are not shown to a
//! third one where they never worked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Fault;
use crate::model::op::Device;

/// Devices that may try unproven credentials side by side.
const CANARIES: usize = 2;

/// All devices that use one Secret in one version. Until the credentials have worked somewhere, two devices at a time may try them; when
/// two have refused them, no device tries them where they have not worked before.
pub struct Turns {
    turns: Arc<Semaphore>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    worked: BTreeSet<Device>,
    refused: BTreeSet<Device>,
}

/// Held while unproven credentials are tried.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Turns { turns: Arc::new(Semaphore::new(CANARIES)), known: Mutex::default() }
    }
}

impl Turns {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub async fn pass(&self, device: &Device) -> Result<Turn, Fault> {
        if self.known().worked.contains(device) {
            return Ok(Turn { _permit: None });
        }
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        let (refused, proven) = {
            let known = self.known();
            (known.refused.iter().map(Device::to_string).collect::<Vec<_>>(), !known.worked.is_empty())
        };
        if refused.len() >= CANARIES {
            let why = format!(
                "they were refused by {}; they are not tried here before the Secret changes or `embody retry`",
                refused.join(" and ")
            );
            return Err(Fault::Denied { device: device.to_string(), why });
        }
        Ok(Turn { _permit: permit.filter(|_| !proven) })
    }

    pub fn worked(&self, device: &Device) {
        let mut known = self.known();
        known.refused.remove(device);
        known.worked.insert(device.clone());
    }

    pub fn refused(&self, device: &Device) {
        let mut known = self.known();
        known.worked.remove(device);
        known.refused.insert(device.clone());
    }
}
