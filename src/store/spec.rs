//! Which store to open, as people name it: `embedded`, or `etcd://host:port[,host:port]`.
//!
//! Leaves out: opening it (`super::open`). Invariant: no password is ever part of an address. Tests: below.

use std::path::{Path, PathBuf};

use super::{EtcdLogin, EtcdTls};

/// What the keys begin with in etcd, where nothing else is asked for.
pub(super) const ETCD_PREFIX: &str = "/embody/";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSpec {
    Embedded { dir: PathBuf },
    Etcd { endpoints: Vec<String>, tls: EtcdTls, prefix: String, login: Option<EtcdLogin> },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found store `{found}`, expected `embedded` or `etcd://HOST:PORT[,HOST:PORT]`: {why}")]
pub struct BadStoreSpec {
    pub found: String,
    pub why: String,
}

impl StoreSpec {
    /// `dir` is where `embedded` lives. TLS and login of etcd are added by the caller (`with_tls`, `with_login`).
    pub fn parse(text: &str, dir: &Path) -> Result<StoreSpec, BadStoreSpec> {
        if text == "embedded" {
            return Ok(StoreSpec::Embedded { dir: dir.to_owned() });
        }
        let bad = |found: &str, why: &str| BadStoreSpec { found: found.to_owned(), why: why.to_owned() };
        let Some(hosts) = text.strip_prefix("etcd://") else { return Err(bad(text, "the scheme is unknown")) };
        if let Some((_, hosts)) = hosts.rsplit_once('@') {
            return Err(bad(&format!("etcd://…@{hosts}"), "user and password have no place in an address"));
        }
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        let endpoints = hosts.split(',').map(|host| match host.parse::<crate::model::HostPort>() {
            Ok(parsed) if parsed.port.is_some() => Ok(host.to_owned()),
            Ok(_) => Err(bad(text, &format!("`{host}` has no port"))),
            Err(_) => Err(bad(text, &format!("`{host}` is not a host and a port"))),
        });
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        Ok(StoreSpec::Etcd { endpoints, tls: EtcdTls::default(), prefix: ETCD_PREFIX.to_owned(), login: None })
    }

    /// Nothing changes on the embedded store.
    #[must_use]
    pub fn with_tls(mut self, with: EtcdTls) -> StoreSpec {
        if let StoreSpec::Etcd { tls, .. } = &mut self {
            *tls = with;
        }
        self
    }

    /// Nothing changes on the embedded store.
    #[must_use]
    pub fn with_login(mut self, with: Option<EtcdLogin>) -> StoreSpec {
        if let StoreSpec::Etcd { login, .. } = &mut self {
            *login = with;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_stores_have_names() {
        let dir = Path::new("/var/lib/embody");
        assert_eq!(StoreSpec::parse("embedded", dir), Ok(StoreSpec::Embedded { dir: dir.to_owned() }));
        let Ok(StoreSpec::Etcd { endpoints, prefix, .. }) = StoreSpec::parse("etcd://a:2379,[::1]:2379", dir) else { panic!() };
        assert_eq!((endpoints, prefix.as_str()), (vec!["a:2379".to_owned(), "[::1]:2379".to_owned()], "/embody/"));
        for bad in ["", "etcd", "etcd://", "etcd://a", "etcd://a:b", "etcd://a:1,", "redis://a:1", "etcd://a:70000"] {
            assert!(StoreSpec::parse(bad, dir).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let refused = StoreSpec::parse("etcd://root:hunter2@a:2379", Path::new("/")).unwrap_err().to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
