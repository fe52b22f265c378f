//! Credentials: from a Secret to a login, and the gate that keeps one typo from locking every BMC of a site.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drivers::Fault;
use crate::model::secret::{BmcLogin, Hidden, SecretSpec, SnmpLogin};
use crate::model::switch::SnmpVersion;
use crate::plan::op::Device;

/// Devices that may try unproven credentials side by side.
const CANARIES: usize = 2;

/// All devices that use one Secret in one version. Until the credentials have worked somewhere, two devices at a time may try them; when
/// two have refused them, no device tries them where they have not worked before.
pub struct Gate {
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

impl Default for Gate {
    fn default() -> Self {
        Gate { turns: Arc::new(Semaphore::new(CANARIES)), known: Mutex::default() }
    }
}

impl Gate {
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

/// Why a Secret gives no login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    #[error("secret {secret} has no `{key}`")]
    Missing { secret: String, key: &'static str },
    #[error("secret {secret}: {key}: {why}")]
    Bad { secret: String, key: &'static str, why: String },
    #[error("secret {secret}: {place} cannot be read: {why}")]
    Source { secret: String, place: String, why: String },
}

/// The values of a Secret, read from where it says. A file is at most 64 KiB.
pub fn values(name: &str, secret: &SecretSpec) -> Result<BTreeMap<String, Hidden>, BadSecret> {
    let Some(from) = &secret.from else { return Ok(secret.string_data.clone()) };
    let unreadable = |place: &str, why: String| BadSecret::Source { secret: name.to_owned(), place: place.to_owned(), why };
    let text = match (&from.file, &from.env) {
        (Some(file), _) => std::fs::read_to_string(file).map_err(|e| unreadable(file, e.to_string()))?,
        (None, Some(env)) => std::env::var(env).map_err(|_| unreadable(env, "no such environment variable".to_owned()))?,
        (None, None) => return Err(unreadable("from", "it names neither file nor env".to_owned())),
    };
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    Ok(lines.filter_map(|l| l.split_once('=')).map(|(k, v)| (k.trim().to_owned(), Hidden::new(v.trim().to_owned()))).collect())
}

fn needed(name: &str, values: &BTreeMap<String, Hidden>, key: &'static str) -> Result<Hidden, BadSecret> {
    values.get(key).cloned().ok_or(BadSecret::Missing { secret: name.to_owned(), key })
}

pub fn bmc_login(name: &str, secret: &SecretSpec) -> Result<BmcLogin, BadSecret> {
    let values = values(name, secret)?;
    let username = needed(name, &values, "username")?.reveal().to_owned();
    Ok(BmcLogin { username, password: needed(name, &values, "password")?, kg: values.get("kg").cloned() })
}

pub fn snmp_login(name: &str, version: SnmpVersion, secret: &SecretSpec) -> Result<SnmpLogin, BadSecret> {
    let values = values(name, secret)?;
    let get = |key| needed(name, &values, key);
    let bad = |key: &'static str, why: String| BadSecret::Bad { secret: name.to_owned(), key, why };
    match version {
        SnmpVersion::V2c => Ok(SnmpLogin::V2c { community: get("community")? }),
        SnmpVersion::V3 => Ok(SnmpLogin::V3 {
            username: get("username")?.reveal().to_owned(),
            auth: get("authProtocol")?
                .reveal()
                .parse()
                .map_err(|e: crate::model::secret::BadProtocol| bad("authProtocol", e.to_string()))?,
            auth_password: get("authPassword")?,
            privacy: get("privProtocol")?
                .reveal()
                .parse()
                .map_err(|e: crate::model::secret::BadProtocol| bad("privProtocol", e.to_string()))?,
            priv_password: get("privPassword")?,
        }),
    }
}
