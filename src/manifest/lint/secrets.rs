//! Secrets against those who use them: keys that are missing, values that cannot be right. The values are observed and never shown.

use std::collections::BTreeSet;

use super::{Lay, Of};
use crate::manifest::codes;
use crate::manifest::diagnostic::shown;
use crate::manifest::fault::{At, Fault, did_you_mean, listed, steps};
use crate::model::file::SecretKey;
use crate::model::secret::{AuthProtocol, PrivProtocol};
use crate::model::switch::SnmpVersion;
use crate::model::{Name, SecretSpec};

/// What one user needs of a Secret.
struct Need<'a> {
    secret: &'a Name,
    user: String,
    at: At,
    keys: &'static [&'static str],
}

pub(super) fn lint(lay: &mut Lay<'_>) {
    let mut needs: Vec<Need<'_>> = Vec::new();
    for server in lay.servers() {
        let at = At::value(server.item, steps!["spec", "bmc", "secretRef", "name"]);
        let user = format!("the BMC of `{}`", server.name);
        needs.push(Need { secret: &server.spec.bmc.secret_ref.name, user, at, keys: &["username", "password"] });
    }
    for switch in lay.switches() {
        let keys: &[&str] = match switch.spec.snmp.version {
            SnmpVersion::V2c => &["community"],
            SnmpVersion::V3 if switch.spec.snmp.insecure && !encrypts(lay, &switch.spec.snmp.secret_ref.name) => {
                &["username", "authProtocol", "authPassword"]
            }
            SnmpVersion::V3 => &["username", "authProtocol", "authPassword", "privProtocol", "privPassword"],
        };
        let at = At::value(switch.item, steps!["spec", "snmp", "secretRef", "name"]);
        needs.push(Need { secret: &switch.spec.snmp.secret_ref.name, user: format!("the switch `{}`", switch.name), at, keys });
    }
    let of_files = files(lay);
    lay.faults.extend(of_files);
    // Many servers use one Secret: each fault of it is told once.
    let mut told: BTreeSet<(&Name, &str)> = BTreeSet::new();
    for need in needs {
        let Some(secret) = lay.secret(need.secret).filter(|s| s.whole && !s.spec.string_data.is_empty()) else { continue };
        for key in need.keys {
            if !secret.spec.string_data.contains_key(*key) && told.insert((secret.name, key)) {
                let at = At::key(secret.item, steps!["stringData"]);
                let message = format!("the Secret `{}` lacks `{key}`, which {} needs", secret.name, need.user);
                let fault = Fault::error(codes::SECRET_INCOMPLETE, at, message).label(format!("expected `{key}` in here"));
                let without = if key.starts_with("priv") { "; without encryption only where `snmp` says `insecure: true`" } else { "" };
                lay.faults.push(fault.also("its user", need.at.clone()).hint(format!("it needs {}{without}", need.keys.join(", "))));
            }
        }
        for (key, why) in wrong_values(&secret, need.keys.contains(&"password")) {
            if told.insert((secret.name, why)) {
                let at = At::key(secret.item, steps!["stringData", key]);
                let fault = Fault::error(codes::SECRET_VALUE, at, format!("`{key}` of the Secret `{}` cannot be right", secret.name));
                lay.faults.push(fault.label(why).also("its user", need.at.clone()));
            }
        }
    }
}

/// Files of personas that are values of Secrets.
fn files(lay: &Lay<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for persona in lay.personas() {
        for (f, SecretKey { name, key }) in
            persona.spec.files.iter().enumerate().filter_map(|(f, file)| Some((f, file.secret_ref.as_ref()?)))
        {
            let Some(secret) = lay.secret(name).filter(|s| s.whole && !s.spec.string_data.is_empty()) else { continue };
            if secret.spec.string_data.contains_key(key) {
                continue;
            }
            let known: Vec<&str> = secret.spec.string_data.keys().map(String::as_str).collect();
            let at = At::value(persona.item, steps!["spec", "files", f, "secretRef", "key"]);
            let message = format!("the Secret `{name}` has no `{}`, which a file of `{}` is to hold", shown(key), persona.name);
            let hint = did_you_mean(key, known.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
            let fault = Fault::error(codes::SECRET_INCOMPLETE, at, message).label("no such key");
            faults.push(fault.hint(hint.unwrap_or_else(|| format!("it has {}", listed(known)))));
        }
    }
    faults
}

/// Whether this Secret names anything to encrypt with.
fn encrypts(lay: &Lay<'_>, name: &Name) -> bool {
    let names = |secret: &SecretSpec| ["privProtocol", "privPassword"].iter().any(|key| secret.string_data.contains_key(*key));
    lay.secret(name).is_some_and(|secret| names(secret.spec))
}

/// IPMI 2.0, 22.28 and 22.30; RFC 3414, 11.2.
fn wrong_values(secret: &Of<'_, SecretSpec>, bmc: bool) -> Vec<(&'static str, &'static str)> {
    let value = |key: &str| secret.spec.string_data.get(key).map(|v| v.reveal());
    let is = |key: &str, test: &dyn Fn(&str) -> bool| value(key).is_some_and(test);
    let key_bytes = |kg: &str| kg.strip_prefix("0x").map_or(kg.len(), |hex| hex.len().div_ceil(2));
    let bad_hex = |kg: &str| kg.strip_prefix("0x").is_some_and(|hex| hex.len() % 2 == 1 || !hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let tests: &[(&'static str, &'static str, bool)] = if bmc {
        &[
            ("username", "an IPMI user name has at most 16 bytes", is("username", &|v| v.len() > 16)),
            ("password", "an IPMI password has at most 20 bytes", is("password", &|v| v.len() > 20)),
            ("kg", "a BMC key has at most 20 bytes", is("kg", &|v| key_bytes(v) > 20)),
            ("kg", "expected pairs of hexadecimal digits after `0x`", is("kg", &bad_hex)),
        ]
    } else {
        &[
            ("authPassword", "an SNMPv3 authentication password has at least 8 characters", is("authPassword", &|v| v.chars().count() < 8)),
            ("privPassword", "an SNMPv3 privacy password has at least 8 characters", is("privPassword", &|v| v.chars().count() < 8)),
            (
                "authProtocol",
                "expected MD5, SHA, SHA-224, SHA-256, SHA-384 or SHA-512",
                is("authProtocol", &|v| v.parse::<AuthProtocol>().is_err()),
            ),
            ("privProtocol", "expected DES, AES or AES-256", is("privProtocol", &|v| v.parse::<PrivProtocol>().is_err())),
            ("community", "the community is empty", is("community", &str::is_empty)),
        ]
    };
    tests.iter().filter(|(.., wrong)| *wrong).map(|(key, why, _)| (*key, *why)).collect()
}
