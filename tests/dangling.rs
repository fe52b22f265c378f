//! Objects that come one by one and name what is not there: what runs stays as it is on every plane, the status says what is missing, and all goes on once
//! it is there. The whole controller in virtual time. Every world of the planner: `tests/plan/unresolved.rs`.

mod small;

use std::time::Duration;

use embody::testing::control::operator::Control;
use embody::testing::model::{Kind as ObjectKind, Object};
use embody::testing::server::api::DryRun;
use embody::testing::server::api::objects::{Intent, Preconditions};
use embody::testing::sim::switch::Kind;
use embody::testing::store::Store;
use serde_json::{Value, json};
use small::{Small, name};
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_secs(60);

fn of(kind: &str, name: &str, spec: Value) -> Object {
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })).unwrap()
}

fn binding(persona: &str, server: &str) -> Object {
    of("Binding", "b", json!({ "persona": persona, "target": { "server": server }, "correct": "enforce", "restart": 1 }))
}

fn persona(network: &str) -> Object {
    let root = json!({ "nfs": { "server": "10.0.20.5", "path": "/p", "mode": "overlay" } });
    let nics = json!([{ "name": "front", "untagged": network, "boot": true }]);
    of("Persona", "p", json!({ "os": { "family": "linux" }, "root": root, "kernel": { "path": "boot/vmlinuz" }, "nics": nics }))
}

fn server(switch: &str, secret: &str) -> Object {
    let nic = json!({ "name": "nic1", "mac": "02:00:00:00:00:01", "switch": switch, "port": "port1", "boot": true });
    of("Server", "s", json!({ "bmc": { "address": "192.0.2.9", "secretRef": { "name": secret } }, "nics": [nic] }))
}

impl Small {
    /// As clients do that know no batches; what it names and is not there.
    async fn put(&self, object: Object) -> Vec<String> {
        self.backend.write(object, Intent::Replace, DryRun::No).await.unwrap().warnings
    }

    async fn says(&self, kind: ObjectKind, of: &str, reason: &str) {
        let status = self.status(kind, of).await;
        let is = |c: &Value| c["type"] == "Ready" && c["status"] != "True" && c["reason"] == reason;
        assert!(status["conditions"].as_array().unwrap().iter().any(is), "no {reason} in {status}");
    }

    /// What was sent to any device.
    async fn sent(&self) -> usize {
        self.events().await.iter().filter(|event| event.contains(" Sent ")).count()
    }

    fn vlan(&self) -> Option<u16> {
        self.centre.switch(&name("tor-1"), |sim| sim.ports().get("port1").and_then(|c| c.untagged).map(|v| v.id())).flatten()
    }
}

/// What is lost, whose status says so and how, and what is there again.
fn lost() -> Vec<(Object, ObjectKind, &'static str, Object)> {
    vec![
        (binding("none", "s"), ObjectKind::Binding, "PersonaMissing", binding("p", "s")),
        (binding("p", "none"), ObjectKind::Binding, "ServerMissing", binding("p", "s")),
        (persona("none"), ObjectKind::Binding, "NetworkMissing", persona("web")),
        (server("none", "bmc"), ObjectKind::Binding, "SwitchMissing", server("tor-1", "bmc")),
        (server("tor-1", "none"), ObjectKind::Binding, "SecretMissing", server("tor-1", "bmc")),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_names_nothing_is_neither_corrected_nor_let_go() {
    for (object, kind, reason, again) in lost() {
        let mut site = Small::start(Kind::QBridge, json!({}), "enforce").await;
        site.ready().await;
        let sent = site.sent().await;
        let warnings = site.put(object).await;
        assert!(warnings.len() == 1 && warnings[0].contains("`none`, which does not exist"), "{warnings:?}");
        sleep(MINUTE).await;
        // A button and a hand at the switch: neither is put right, by this process or the next.
        site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
        sleep(10 * MINUTE).await;
        site.restart();
        sleep(60 * MINUTE).await;
        site.says(kind, "b", reason).await;
        assert_eq!((site.sent().await, site.vlan()), (sent, Some(120)), "{reason}: {:?}", site.events().await);
        assert!(site.words.why(ObjectKind::Binding, &name("b")).await.unwrap().contains("there is no"), "{reason}");
        // The same again writes nothing.
        let before = site.store.list("").await.unwrap().1;
        sleep(60 * MINUTE).await;
        assert_eq!(site.store.list("").await.unwrap().1, before, "{reason}");
        assert!(site.put(again).await.is_empty());
        site.ready().await;
        assert!(site.sent().await > sent, "{reason}");
    }
}

fn secret(name: &str, data: Value) -> Object {
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Secret", "metadata": { "name": name }, "stringData": data }))
        .unwrap()
}

/// Nothing else is said then: what is created is what was missing.
#[tokio::test(start_paused = true)]
async fn what_was_missing_is_enough() {
    let of_bmc = secret("none", json!({ "username": "admin", "password": "admin" }));
    for (object, missing) in [(server("tor-1", "none"), of_bmc), (persona("none"), small::network("none", 130))] {
        let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
        site.ready().await;
        site.put(object).await;
        sleep(10 * MINUTE).await;
        assert!(!site.is_ready().await);
        let created = site.backend.write(missing, Intent::Create, DryRun::No).await.unwrap();
        assert!(created.warnings.is_empty());
        site.ready().await;
        sleep(MINUTE).await;
        let status = site.status(ObjectKind::Persona, "p").await;
        assert_eq!(status["conditions"][0]["status"], "True", "{status}");
    }
}

/// A Secret that only a file of a persona names is named as well, and is not deleted.
#[tokio::test(start_paused = true)]
async fn a_secret_of_a_file_is_one_that_is_named() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    let file = json!({ "path": "/etc/token", "secretRef": { "name": "token", "key": "value" } });
    let spec = json!({ "os": { "family": "linux" }, "root": { "image": { "name": "web:1" } }, "agent": "required", "files": [file],
        "nics": [{ "name": "front", "untagged": "web", "boot": true }] });
    let warnings = site.backend.write(of("Persona", "q", spec), Intent::Create, DryRun::No).await.unwrap().warnings;
    assert_eq!(warnings, ["Persona `q` names the Secret `token`, which does not exist"]);
    sleep(MINUTE).await;
    site.says(ObjectKind::Persona, "q", "SecretMissing").await;
    site.apply(vec![secret("token", json!({ "value": "x" }))]).await;
    sleep(MINUTE).await;
    assert_eq!(site.status(ObjectKind::Persona, "q").await["conditions"][0]["status"], "True");
    let refused = site.backend.delete(ObjectKind::Secret, &name("token"), &Preconditions::default(), DryRun::No).await.unwrap_err();
    assert!(refused.message.contains("Persona/q refers to it"), "{refused:?}");
}

/// From nothing, in the order that is worst: each refers to what comes after it.
#[tokio::test(start_paused = true)]
async fn objects_come_in_any_order() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    let create = async |object: Object| site.backend.write(object, Intent::Create, DryRun::No).await.unwrap().warnings.len();
    let bound = json!({ "persona": "q", "target": { "server": "t" }, "correct": "enforce" });
    assert_eq!(create(of("Binding", "late", bound)).await, 2);
    sleep(MINUTE).await;
    site.says(ObjectKind::Binding, "late", "ServerMissing").await;
    let spec = json!({ "os": { "family": "linux" }, "root": { "ram": {} }, "kernel": { "path": "vmlinuz" }, "nics": [{ "name": "front", "untagged": "new", "boot": true }] });
    assert_eq!(create(of("Persona", "q", spec)).await, 1);
    sleep(MINUTE).await;
    site.says(ObjectKind::Persona, "q", "NetworkMissing").await;
    assert_eq!(create(small::network("new", 110)).await, 0);
    site.add_machine("t", 7).await;
    for _ in 0..600 {
        let status = site.status(ObjectKind::Binding, "late").await;
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        if status["conditions"].as_array().is_some_and(|all| all.iter().any(ready)) {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("{}", site.status(ObjectKind::Binding, "late").await);
}
