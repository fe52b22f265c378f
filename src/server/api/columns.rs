//! What a table of objects shows: the columns of each kind, and the cells of an object as `have→want` where they differ.
//!
//! Shared by `embody get` and by the tables that kubectl asks for. Leaves out: widths and colours. Works on JSON, so that a client can
//! show what a newer server sends. Invariant: a cell never holds a control character. Shown by `tests/cli.rs`.

use serde_json::{Value, json};

use crate::manifest::escaped;
use crate::model::Kind;

/// The columns of a kind: those always shown, AGE last, and those only of `-o wide`.
pub(crate) fn columns(kind: Kind) -> (&'static [&'static str], &'static [&'static str]) {
    match kind {
        Kind::Binding => {
            (&["NAME", "PERSONA", "TARGET", "READY", "POWER", "BOOT", "NETWORK", "AGE"], &["STATE", "CORRECT", "REASON", "MESSAGE"])
        }
        Kind::Server => {
            (&["NAME", "POWER", "BOOT", "BOUND-TO", "BMC", "AGE"], &["READY", "ARCH", "FIRMWARE", "MAY-RUN", "REASON", "MESSAGE"])
        }
        Kind::Switch => {
            (&["NAME", "READY", "PROFILE", "PORTS", "ADDRESS", "AGE"], &["SNMP", "VLANS", "UNSAVED", "SYSNAME", "REASON", "MESSAGE"])
        }
        Kind::Network => (&["NAME", "VLAN", "ROLE", "SUBNET", "AGE"], &["GATEWAY", "SEGMENTS"]),
        Kind::Persona => {
            (&["NAME", "OS", "ARCH", "ROOT", "BINDINGS", "UPDATED", "READY", "ROLLOUT", "AGE"], &["NICS", "EXCLUSIVE", "REVISION", "NEEDS"])
        }
        Kind::Policy => (&["NAME", "CORRECT", "READY", "AGE"], &["REASON", "MESSAGE"]),
        Kind::Secret => (&["NAME", "KEYS", "AGE"], &[]),
    }
}

/// The fields that columns show one by one, and that a field selector may ask for.
pub(crate) fn fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Binding => &["spec.persona", "spec.target.server", "spec.state", "spec.correct", "status.server"],
        Kind::Server => &["spec.bmc.address", "spec.arch", "status.power", "status.boot", "status.boundTo", "status.bmc.firmware"],
        Kind::Switch => {
            &["spec.address", "spec.profile", "spec.snmp.version", "spec.vlans", "status.profile", "status.ports", "status.unsaved"]
        }
        Kind::Network => &["spec.vlan", "spec.role", "spec.subnet", "spec.gateway"],
        Kind::Persona => &["spec.os.family", "spec.os.arch", "spec.exclusive", "status.bindings", "status.running", "status.rollout"],
        Kind::Policy => &["spec.correct"],
        Kind::Secret => &[],
    }
}

/// The cells of one object, one for each column.
pub(crate) fn cells(kind: Kind, object: &Value) -> Vec<String> {
    let at = |pointer: &str| text(object.pointer(pointer));
    let spec = |pointer: &str, default: &str| {
        let found = at(&format!("/spec/{pointer}"));
        if found == NOTHING { default.to_owned() } else { found }
    };
    let name = at("/metadata/name");
    let age = age_of(object);
    let (ready, reason, message) = condition(object, "Ready");
    let cells = match kind {
        Kind::Binding => {
            let plane = |p: &str| plane(object, p);
            let (state, correct) = (spec("state", "Running"), correct(object));
            let (power, boot, network) = (plane("power"), plane("boot"), plane("network"));
            vec![name, at("/spec/persona"), target(object), ready, power, boot, network, age, state, correct, reason, message]
        }
        Kind::Server => {
            let (power, boot, bound) = (at("/status/power"), at("/status/boot"), at("/status/boundTo"));
            let (firmware, may_run) = (at("/status/bmc/firmware"), at("/status/mayRun"));
            vec![name, power, boot, bound, at("/spec/bmc/address"), age, ready, spec("arch", "x86_64"), firmware, may_run, reason, message]
        }
        Kind::Switch => {
            let profile = Some(at("/status/profile")).filter(|p| p != NOTHING && !p.is_empty()).unwrap_or_else(|| spec("profile", "auto"));
            let (ports, version) = (at("/status/ports"), at("/spec/snmp/version"));
            let (unsaved, sys_name) = (at("/status/unsaved"), at("/status/identity/sysName"));
            let vlans = spec("vlans", "Expect");
            vec![name, ready, profile, ports, at("/spec/address"), age, version, vlans, unsaved, sys_name, reason, message]
        }
        Kind::Network => {
            let segments = object.pointer("/spec/segments").and_then(Value::as_array).map_or(0, Vec::len);
            vec![name, at("/spec/vlan"), spec("role", "service"), at("/spec/subnet"), age, at("/spec/gateway"), segments.to_string()]
        }
        Kind::Persona => persona(object, name, age),
        Kind::Policy => vec![name, spec("correct", "approve"), ready, age, reason, message],
        Kind::Secret => vec![name, secret_keys(object), age],
    };
    cells.iter().map(|c| clean(c)).collect()
}

pub(crate) const NOTHING: &str = "-";

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::String(s)) if s.is_empty() => NOTHING.to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(list)) if list.is_empty() => NOTHING.to_owned(),
        Some(Value::Array(list)) => list.iter().map(|v| text(Some(v))).collect::<Vec<_>>().join(","),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_))) => other.to_string(),
    }
}

/// Status, reason and message of a condition.
fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let list = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = list.and_then(|l| l.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind)));
    let field = |name: &str| text(found.and_then(|c| c.get(name)));
    let status = if found.is_none() { "Unknown".to_owned() } else { field("status") };
    (status, field("reason"), field("message"))
}

/// `have→want` where they differ, else `have`.
pub(crate) fn drift(have: &str, want: &str, in_sync: bool) -> String {
    if in_sync || have == want { have.to_owned() } else { format!("{have}→{want}") }
}

fn plane(object: &Value, name: &str) -> String {
    let Some(plane) = object.pointer(&format!("/status/planes/{name}")) else { return NOTHING.to_owned() };
    let in_sync = plane.get("inSync").and_then(Value::as_bool).unwrap_or(false);
    let (have, want) = (text(plane.get("have")), text(plane.get("want")));
    if in_sync {
        return have;
    }
    match (by_port(&have), by_port(&want)) {
        // Port by port: which of them differs is the question.
        (Some(have), Some(want)) if have.iter().map(|(port, _)| port).eq(want.iter().map(|(port, _)| port)) => {
            let each = have.iter().zip(&want).map(|((port, have), (_, want))| format!("{port}={}", drift(have, want, false)));
            each.collect::<Vec<_>>().join(" ")
        }
        _ => drift(&have, &want, false),
    }
}

/// `tor-1/Gi1/0/1=120 tor-2/Gi1/0/1=120 down` as ports and what they are; nothing where it is no such list.
fn by_port(list: &str) -> Option<Vec<(String, String)>> {
    let mut ports: Vec<(String, String)> = Vec::new();
    for word in list.split(' ') {
        match word.split_once('=') {
            Some((port, config)) => ports.push((port.to_owned(), config.to_owned())),
            None => {
                let (_, config) = ports.last_mut()?;
                config.push(' ');
                config.push_str(word);
            }
        }
    }
    Some(ports)
}

fn target(object: &Value) -> String {
    let wanted = text(object.pointer("/spec/target/server"));
    match object.pointer("/status/server").and_then(Value::as_str) {
        Some(now) => drift(now, &wanted, wanted == NOTHING),
        None => wanted,
    }
}

fn correct(object: &Value) -> String {
    match object.pointer("/spec/correct") {
        Some(Value::Object(planes)) => planes.iter().map(|(k, v)| format!("{k}={}", text(Some(v)))).collect::<Vec<_>>().join(","),
        Some(all) => text(Some(all)),
        None => "(policy)".to_owned(),
    }
}

fn persona(object: &Value, name: String, age: String) -> Vec<String> {
    let at = |pointer: &str| text(object.pointer(pointer));
    let root = object.pointer("/spec/root").and_then(Value::as_object);
    let kind = root.and_then(|r| r.keys().find(|k| *k != "revision")).map_or(NOTHING, String::as_str);
    let place = match kind {
        "nfs" => format!("nfs {}:{}", at("/spec/root/nfs/server"), at("/spec/root/nfs/path")),
        "iscsi" => format!("iscsi {}", at("/spec/root/iscsi/target")),
        other => other.to_owned(),
    };
    let nics = object.pointer("/spec/nics").and_then(Value::as_array).map_or(0, Vec::len).to_string();
    let arch = Some(at("/spec/os/arch")).filter(|a| a != NOTHING).unwrap_or_else(|| "x86_64".to_owned());
    let needs = object.pointer("/spec/needs").and_then(Value::as_object);
    let needs = needs.map_or(NOTHING.to_owned(), |n| n.iter().map(|(k, v)| format!("{k}={}", text(Some(v)))).collect::<Vec<_>>().join(","));
    let running = at("/status/running");
    let of_running = |k: String| if running == NOTHING { running.clone() } else { format!("{k}/{running}") };
    let (updated, ready) = (of_running(at("/status/updated")), of_running(at("/status/ready")));
    let (bindings, rollout) = (at("/status/bindings"), at("/status/rollout"));
    let more = [at("/spec/exclusive"), at("/spec/root/revision"), needs];
    [name, at("/spec/os/family"), arch, place, bindings, updated, ready, rollout, age, nics].into_iter().chain(more).collect()
}

fn secret_keys(object: &Value) -> String {
    if let Some(from) = object.get("from").and_then(Value::as_object) {
        return from.iter().map(|(k, v)| format!("from {k} {}", text(Some(v)))).collect::<Vec<_>>().join(",");
    }
    let keys = object.get("stringData").and_then(Value::as_object);
    keys.map_or(NOTHING.to_owned(), |k| k.keys().cloned().collect::<Vec<_>>().join(","))
}

fn age_of(object: &Value) -> String {
    object.pointer("/metadata/creationTimestamp").and_then(Value::as_str).map_or(NOTHING.to_owned(), age)
}

/// How long ago a moment in RFC 3339 was, as kubectl writes it: 42s, 3m, 5h, 2d.
pub(crate) fn age(moment: &str) -> String {
    let Ok(then) = moment.parse::<jiff::Timestamp>() else { return NOTHING.to_owned() };
    let seconds = jiff::Timestamp::now().as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Control characters and those that turn the direction of text, escaped: what a device calls itself must not move a cursor.
pub(crate) fn clean(text: &str) -> String {
    escaped(text)
}

/// meta.k8s.io/v1 Table: what kubectl shows.
pub(super) fn table(kind: Kind, items: Vec<Value>, meta: Value) -> Value {
    let (narrow, wide) = columns(kind);
    let define = |(name, priority): (&str, u8)| {
        let format = if name == "NAME" { "name" } else { "" };
        json!({ "name": name, "type": "string", "format": format, "description": "", "priority": priority })
    };
    let definitions: Vec<Value> = narrow.iter().map(|n| (*n, 0)).chain(wide.iter().map(|n| (*n, 1))).map(define).collect();
    let rows: Vec<Value> = items.into_iter().map(|o| json!({ "cells": cells(kind, &o), "object": o })).collect();
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": definitions, "rows": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_its_column() {
        for kind in crate::model::kind::KINDS {
            let (narrow, wide) = columns(kind);
            assert_eq!(cells(kind, &json!({})).len(), narrow.len() + wide.len(), "{kind}");
        }
    }

    #[test]
    fn ports_differ_one_by_one() {
        let cell =
            |have: &str, want: &str| plane(&json!({ "status": { "planes": { "network": { "have": have, "want": want } } } }), "network");
        assert_eq!(cell("a/1=1 down b/2=120", "a/1=120 b/2=120"), "a/1=1 down→120 b/2=120");
        assert_eq!(cell("Unknown", "a/1=120"), "Unknown→a/1=120");
        assert_eq!(cell("Unknown b/2=1", "a/1=120 b/2=1"), "Unknown b/2=1→a/1=120 b/2=1");
    }

    #[test]
    fn a_device_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\n\\u{202e}");
        assert_eq!(clean("1→120 Öl"), "1→120 Öl");
    }
}
