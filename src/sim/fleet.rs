//! A fleet by number: manifests of so many servers and switches, whose devices `sim::rack` can hold on the loopback.
//!
//! Leaves out: the devices. Invariant: the same numbers give the same manifests. Shown by its own tests, and by `tests/sim.rs`.

use std::fmt::Write;
use std::net::Ipv4Addr;

/// Servers to a file: some hundred KB.
const IN_A_FILE: usize = 500;
/// Each device has an address of its own, and all have this UDP port: one above 1023 needs no rights.
pub(crate) const PORT: u16 = 6230;
/// 127.96.0.0/11 and 127.64.0.0/11, RFC 1122, section 3.2.1.3: the loopback of the machine.
const BMCS: u32 = 0x7f60_0000;
const SWITCHES: u32 = 0x7f40_0000;
/// Every tenth server runs a persona that lives once, and writes its root.
const OWN_PERSONA: usize = 10;

/// How many, at most: their addresses.
pub(crate) const SERVERS_MAX: usize = 100_000;
pub(crate) const SWITCHES_MAX: usize = 10_000;

/// Names and texts of the manifests of a fleet: `policy.yaml`, `switches.yaml`, `servers-00000.yaml` and so on.
pub(crate) fn manifests(servers: usize, switches: usize, port: u16) -> Vec<(String, String)> {
    let switches = switches.max(1);
    let ports = servers.div_ceil(switches);
    let mut files = vec![("policy.yaml".to_owned(), COMMON.to_owned()), ("switches.yaml".to_owned(), all_switches(switches, ports, port))];
    for first in (0..servers).step_by(IN_A_FILE) {
        let text = (first..servers.min(first + IN_A_FILE)).map(|n| server(n, switches, port)).collect();
        files.push((format!("servers-{first:05}.yaml"), text));
    }
    files
}

/// Limits that a fleet on the loopback needs: nobody is harmed when all of it is switched on at once.
const COMMON: &str = r#"apiVersion: embody.dev/v1alpha1
kind: Policy
metadata: { name: default }
spec:
  correct: enforce
  limits:
    maxPowerChanges: { atOnce: 1000, perMinute: 100000 }
    maxPortWrites: { atOnce: 1000, perMinute: 100000, perSwitch: 1 }
---
apiVersion: embody.dev/v1alpha1
kind: Secret
metadata: { name: bmc }
stringData: { username: ADMIN, password: fleet }
---
apiVersion: embody.dev/v1alpha1
kind: Secret
metadata: { name: snmp }
stringData: { community: fleet }
---
apiVersion: embody.dev/v1alpha1
kind: Network
metadata: { name: web }
spec: { vlan: 120 }
---
apiVersion: embody.dev/v1alpha1
kind: Network
metadata: { name: quarantine }
spec: { vlan: 999, role: quarantine }
---
apiVersion: embody.dev/v1alpha1
kind: Persona
metadata: { name: app }
spec:
  os: { family: linux }
  root: { nfs: { server: 10.0.20.5, path: /personas/app, mode: overlay } }
  kernel: { path: boot/vmlinuz, initrd: boot/initrd.img }
  nics: [ { name: front, untagged: web, boot: true } ]
"#;

fn all_switches(switches: usize, ports: usize, udp: u16) -> String {
    let mut out = String::new();
    for n in 0..switches {
        let address = address(SWITCHES, n);
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "---\napiVersion: embody.dev/v1alpha1\nkind: Switch\nmetadata: {{ name: switch-{n:04} }}\nspec:\n  address: \"{address}:{udp}\"\n  \
             snmp: {{ version: v2c, insecure: true, secretRef: {{ name: snmp }} }}\n  profile: q-bridge\n  \
             manage: {{ ports: [ \"port1-{ports}\" ] }}\n"
        );
    }
    out
}

/// Server, binding, and the persona where it has one of its own.
fn server(n: usize, switches: usize, udp: u16) -> String {
    let (address, mac) = (address(BMCS, n), mac(n));
    let (switch, port) = (n % switches, n / switches + 1);
    let mut out = format!(
        "---\napiVersion: embody.dev/v1alpha1\nkind: Server\nmetadata: {{ name: server-{n:05} }}\nspec:\n  \
         bmc: {{ address: \"{address}:{udp}\", secretRef: {{ name: bmc }} }}\n  \
         nics: [ {{ name: nic1, mac: \"{mac}\", switch: switch-{switch:04}, port: port{port}, boot: true }} ]\n"
    );
    let own = n.is_multiple_of(OWN_PERSONA);
    let persona = if own { format!("app-{n:05}") } else { "app".to_owned() };
    if own {
        let _ = write!(
            out,
            "---\napiVersion: embody.dev/v1alpha1\nkind: Persona\nmetadata: {{ name: {persona} }}\nspec:\n  os: {{ family: linux }}\n  \
             root: {{ nfs: {{ server: 10.0.20.5, path: /personas/{persona}, mode: writable }} }}\n  kernel: {{ path: boot/vmlinuz }}\n  \
             nics: [ {{ name: front, untagged: web, boot: true }} ]\n"
        );
    }
    let _ = write!(
        out,
        "---\napiVersion: embody.dev/v1alpha1\nkind: Binding\nmetadata: {{ name: run-{n:05} }}\nspec: {{ persona: {persona}, target: {{ server: server-{n:05} }} }}\n"
    );
    out
}

fn address(base: u32, n: usize) -> Ipv4Addr {
    Ipv4Addr::from(base.saturating_add(u32::try_from(n).unwrap_or(u32::MAX)).saturating_add(1))
}

/// Locally administered.
fn mac(n: usize) -> String {
    let [_, a, b, c] = u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    format!("02:00:00:{a:02x}:{b:02x}:{c:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, Source};
    use crate::model::Kind;

    #[test]
    fn a_fleet_is_sound_and_as_large_as_it_was_asked_for() {
        for (servers, switches) in [(1, 1), (7, 3), (1_203, 31)] {
            let files = manifests(servers, switches, PORT);
            let sources: Vec<Source> = files.iter().map(|(name, text)| Source::text(name.as_str(), text.as_str())).collect();
            let loaded = manifest::load(&sources, &[]);
            assert!(!loaded.has_errors(), "{}", loaded.render(false));
            let count = |kind| loaded.objects.iter().filter(|o| o.kind() == kind).count();
            assert_eq!((count(Kind::Server), count(Kind::Binding), count(Kind::Switch)), (servers, servers, switches));
        }
    }
}
