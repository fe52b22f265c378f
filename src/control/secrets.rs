//! From a Secret to a login. Leaves out: who may try it where (`drivers::credentials`).

use std::collections::BTreeMap;

use crate::model::secret::{BmcLogin, Hidden, SecretSpec, SnmpLogin};
use crate::model::switch::SnmpVersion;

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
