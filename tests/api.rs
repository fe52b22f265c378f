//! The API from outside: HTTP over a real unix socket, a store in memory, a stand-in for the controller.
//!
//! Leaves out: the command line (`tests/cli.rs`). Each test is one promise of the wire.

mod site;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use embody::testing::control::status_writer::SiteCondition;
use embody::testing::model::Kind;
use embody::testing::server::api::{BindError, Listener};
use embody::testing::store::Store;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use site::{Site, binding, network, persona, secret, server};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn kubernetes_clients_find_their_way() {
    let site = Site::start().await;
    let (_, groups) = site.call("GET", "/apis", Value::Null).await;
    assert_eq!(groups["groups"][0]["preferredVersion"]["groupVersion"], "embody.dev/v1alpha1");
    let (_, resources) = site.call("GET", "/apis/embody.dev/v1alpha1", Value::Null).await;
    let names: Vec<&str> = resources["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["policies", "secrets", "networks", "switches", "servers", "personas", "bindings"]);
    let (_, version) = site.call("GET", "/version", Value::Null).await;
    assert_eq!(version["major"], "1");
    for (method, path, code, reason) in
        [("GET", "/nope", 404, "NotFound"), ("GET", "/pods", 404, "NotFound"), ("PUT", "/networks", 405, "MethodNotAllowed")]
    {
        let (status, answer) = site.call(method, path, Value::Null).await;
        assert_eq!((status, &answer["kind"], &answer["reason"]), (code, &json!("Status"), &json!(reason)), "{method} {path}");
    }
    let health = site.send("GET", "/healthz", "", Vec::new()).await;
    assert_eq!(health.into_body().collect().await.unwrap().to_bytes(), "ok");
}

#[tokio::test]
async fn an_object_lives() {
    let site = Site::start().await;
    let mut first = network("web", 120);
    first["status"] = json!({ "conditions": [] });
    first["metadata"]["uid"] = json!("");
    first["metadata"]["generation"] = json!(7);
    let made = site.create(first.clone()).await;
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(made.get("status").is_none());
    assert_eq!(site.call("POST", "/networks", first).await.1["reason"], "AlreadyExists");

    // The same again is no write.
    let before = site.store.revision();
    let (status, same) = site.call("PUT", "/networks/web", network("web", 120)).await;
    assert_eq!((status, &same["metadata"], site.store.revision()), (200, &made["metadata"], before));

    // Labels are no change of the spec; a vlan is.
    let mut labelled = network("web", 120);
    labelled["metadata"]["labels"] = json!({ "tier": "front" });
    let (_, now) = site.call("PUT", "/networks/web", labelled).await;
    assert_eq!((now["metadata"]["generation"].as_u64(), revision(&now)), (Some(1), before + 1));
    let (_, now) = site.call("PUT", "/networks/web", network("web", 121)).await;
    assert_eq!((now["metadata"]["generation"].as_u64(), now["metadata"].get("labels")), (Some(2), None));

    // A stale writer is refused.
    let (status, refused) = site
        .call("PUT", "/networks/web", {
            let mut o = made.clone();
            o["spec"]["vlan"] = 5.into();
            o
        })
        .await;
    assert_eq!((status, &refused["reason"]), (409, &json!("Conflict")));

    // Status is the controller's, before and after a client's write.
    site.store.set_status(Kind::Network, "web", json!({ "observedGeneration": 2, "conditions": [] })).await;
    let (_, now) = site.call("PATCH", "/networks/web", json!({ "spec": { "vlan": 122 }, "status": { "observedGeneration": 99 } })).await;
    assert_eq!((&now["status"]["observedGeneration"], &now["metadata"]["generation"]), (&json!(2), &json!(3)));

    let (status, gone) = site.call("DELETE", "/networks/web", Value::Null).await;
    assert_eq!((status, &gone["status"], &gone["details"]["uid"]), (200, &json!("Success"), &made["metadata"]["uid"]));
    let (status, answer) = site.call("GET", "/networks/web", Value::Null).await;
    assert_eq!((status, &answer["message"]), (404, &json!("networks.embody.dev \"web\" not found")));
    assert_eq!(site.call("PUT", "/networks/web", network("web", 1)).await.0, 404);
}

#[tokio::test]
async fn unknown_fields_are_errors_with_their_path() {
    let site = Site::start().await;
    site.create(network("web", 120)).await;
    let vlann = json!({ "vlan": 1, "vlann": 2 });
    let said = |answer: &Value| answer["message"].as_str().unwrap().to_owned();
    let (status, answer) = site.call("POST", "/networks", site::object("Network", "x", vlann)).await;
    assert_eq!((status, said(&answer)), (400, "strict decoding error: unknown field \"spec.vlann\"".to_owned()));
    let (status, answer) = site
        .call("PATCH", "/networks/web", json!({ "spec": { "segments": [{ "switches": { "matchLabels": {}, "x": 1 }, "vlan": 1 }] } }))
        .await;
    assert_eq!((status, said(&answer)), (400, "strict decoding error: unknown field \"spec.segments[0].switches.x\"".to_owned()));
    for (object, field) in [
        (
            json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Network", "metadata": { "name": "x" }, "spec": { "vlan": 1 }, "specc": {} }),
            "specc",
        ),
        (
            json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Network", "metadata": { "name": "x", "nam": "y" }, "spec": { "vlan": 1 } }),
            "metadata.nam",
        ),
    ] {
        assert_eq!(said(&site.call("POST", "/networks", object).await.1), format!("strict decoding error: unknown field \"{field}\""));
    }
    let mut per_plane = binding("b", "p", "s");
    per_plane["spec"]["correct"] = json!({ "power": "observe", "disk": "observe" });
    assert!(said(&site.call("POST", "/bindings", per_plane).await.1).contains("\"spec.correct.disk\""));
    for (bad, word) in
        [(json!({}), "missing field `vlan`"), (json!({ "vlan": 5000 }), "from 1 to 4094"), (json!({ "vlan": "x" }), "invalid type")]
    {
        let (status, answer) = site.call("POST", "/networks", site::object("Network", "x", bad)).await;
        assert!(status == 400 && said(&answer).contains(word), "{answer}");
    }
    assert_eq!(site.call("POST", "/servers", network("x", 1)).await.0, 400);
    assert_eq!(site.call("PUT", "/networks/web", network("other", 1)).await.0, 400);
}

#[tokio::test]
async fn a_post_is_json_and_no_key_is_there_twice() {
    let site = Site::start().await;
    let group = "/apis/embody.dev/v1alpha1";
    let read = async |response: hyper::Response<Incoming>| {
        let status = response.status().as_u16();
        let answer: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        (status, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    // What a form or a script of a web page can send without being asked first.
    for content_type in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=application/json"] {
        for (path, body) in
            [("/networks", network("web", 7).to_string()), ("/store/accept", String::new()), ("/breaker/close", String::new())]
        {
            let (status, said) = read(site.send("POST", &format!("{group}{path}"), content_type, body.into_bytes()).await).await;
            assert!(status == 415 && said.contains("`Content-Type: application/json`"), "{path} {content_type}: {status} {said}");
        }
    }
    assert!(site.control.told.lock().unwrap().is_empty());
    let whole = network("web", 7).to_string().into_bytes();
    let (status, _) = read(site.send("POST", &format!("{group}/networks"), "Application/JSON; charset=utf-8", whole).await).await;
    assert_eq!(status, 201);
    let head = "\"apiVersion\":\"embody.dev/v1alpha1\",\"kind\":\"Network\"";
    for (twice, key) in [
        (format!("{{{head},\"metadata\":{{\"name\":\"a\"}},\"spec\":{{\"vlan\":1,\"vlan\":2}}}}"), "vlan"),
        (format!("{{{head},\"metadata\":{{\"name\":\"a\",\"labels\":{{\"x\":\"1\",\"x\":\"1\"}}}},\"spec\":{{\"vlan\":1}}}}"), "x"),
    ] {
        let (status, said) =
            read(site.send("POST", &format!("{group}/networks"), "application/json", twice.clone().into_bytes()).await).await;
        assert!(status == 400 && said.contains(&format!("the key `{key}` is there twice")), "{status} {said}");
        let items = format!("{{\"items\":[{twice}]}}").into_bytes();
        assert_eq!(read(site.send("POST", &format!("{group}/apply"), "application/json", items).await).await.0, 400);
    }
}

#[tokio::test]
async fn secrets_are_write_only() {
    let site = Site::start().await;
    let mut first = secret("bmc", "hunter2");
    first["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/last-applied-configuration": "{\"password\":\"hunter2\"}" });
    let mut watch = Lines::open(&site, "/secrets?watch=true").await;
    let mut seen = vec![site.create(first).await, watch.next().await];
    seen.push(site.call("GET", "/secrets/bmc", Value::Null).await.1);
    seen.push(site.call("GET", "/secrets", Value::Null).await.1);
    seen.push(site.call("POST", "/apply?dryRun=All", json!({ "items": [secret("bmc", "hunter2")] })).await.1);
    seen.push(site.call("POST", "/secrets", secret("bmc", "hunter2")).await.1);
    seen.push(site.call("PATCH", "/secrets/bmc", json!({ "stringData": { "password": ["hunter2"] } })).await.1);
    for answer in &seen {
        assert!(!answer.to_string().contains("hunter2"), "{answer}");
    }
    assert_eq!(seen[2]["stringData"]["password"], "(hidden)");
    // What is shown can be sent back and changes nothing but what was changed.
    let mut back = seen[2].clone();
    back["stringData"]["username"] = json!("root");
    assert_eq!(site.call("PUT", "/secrets/bmc", back).await.0, 200);
    let stored = site.store.get("objects/secrets/bmc").await.unwrap().unwrap();
    let stored: Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!(stored["stringData"], json!({ "username": "root", "password": "hunter2" }));
    assert!(stored["metadata"].get("resourceVersion").is_none());
    // But it is not a value of its own.
    assert_eq!(site.call("POST", "/secrets", secret("other", "(hidden)")).await.0, 400);
}

struct Lines {
    body: Incoming,
    rest: String,
}

impl Lines {
    async fn open(site: &Site, path: &str) -> Lines {
        let response = site.send("GET", &format!("/apis/embody.dev/v1alpha1{path}"), "", Vec::new()).await;
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body(), rest: String::new() }
    }

    async fn next(&mut self) -> Value {
        self.maybe().await.expect("another change")
    }

    async fn maybe(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let value = serde_json::from_str(line).unwrap();
                self.rest = rest.to_owned();
                return Some(value);
            }
            let frame = timeout(LONG, self.body.frame()).await.expect("a change in time")?;
            self.rest.push_str(std::str::from_utf8(&frame.ok()?.into_data().unwrap()).unwrap());
        }
    }

    async fn brief(&mut self) -> (String, String) {
        let change = self.next().await;
        (change["type"].as_str().unwrap().to_owned(), change["object"]["metadata"]["name"].as_str().unwrap().to_owned())
    }
}

fn brief(word: &str, name: &str) -> (String, String) {
    (word.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_every_change() {
    let mut site = Site::start().await;
    site.create(network("a", 1)).await;
    site.store.set_status(Kind::Network, "a", json!({ "conditions": [] })).await;
    let (_, list) = site.call("GET", "/networks", Value::Null).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut all = Lines::open(&site, "/networks?watch=true").await;
    let mut blue = Lines::open(&site, "/networks?watch=true&labelSelector=colour%3Dblue").await;
    assert_eq!(all.brief().await, brief("ADDED", "a"));
    site.create(network("b", 2)).await;
    site.create(server("s")).await;
    site.call("PATCH", "/networks/a", json!({ "metadata": { "labels": { "colour": "blue" } } })).await;
    site.call("PATCH", "/networks/a", json!({ "spec": { "vlan": 3 } })).await;
    site.call("PATCH", "/networks/a", json!({ "metadata": { "labels": { "colour": null } } })).await;
    site.call("DELETE", "/networks/b", Value::Null).await;
    for expected in [("ADDED", "b"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "b")] {
        assert_eq!(all.brief().await, brief(expected.0, expected.1));
    }
    for expected in [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")] {
        assert_eq!(blue.brief().await, brief(expected.0, expected.1));
    }
    // From a revision on: what came after it, and only that.
    let mut later = Lines::open(&site, &format!("/networks?watch=true&resourceVersion={from}")).await;
    let first = later.next().await;
    assert_eq!((&first["type"], &first["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("b")));
    assert!(revision(&first["object"]) > from.parse().unwrap());
    assert_eq!(later.brief().await, brief("MODIFIED", "a"));
    // What was there at that revision and is gone before the watch begins is DELETED.
    site.create(network("c", 4)).await;
    let from = site.store.revision();
    site.call("DELETE", "/networks/c", Value::Null).await;
    for selection in ["", "&fieldSelector=metadata.name%3Dc"] {
        let mut late = Lines::open(&site, &format!("/networks?watch=true&resourceVersion={from}{selection}")).await;
        assert_eq!(late.brief().await, brief("DELETED", "c"));
    }
    // A history that is gone is said.
    site.store.compact(site.store.revision()).await.unwrap();
    let mut expired = Lines::open(&site, &format!("/networks?watch=true&resourceVersion={from}")).await;
    let error = expired.next().await;
    assert_eq!((&error["type"], &error["object"]["code"], &error["object"]["reason"]), (&json!("ERROR"), &json!(410), &json!("Expired")));
    assert_eq!(expired.maybe().await, None);
    // One object, for a time.
    let mut one = Lines::open(&site, "/networks?watch=true&fieldSelector=metadata.name%3Dzz&timeoutSeconds=1").await;
    assert_eq!(one.maybe().await, None);
    // A server that stops does not wait for watchers.
    timeout(LONG, site.stop()).await.expect("stops in time").unwrap();
    while all.maybe().await.is_some() {}
    assert!(!site.socket.exists());
}

#[tokio::test]
async fn an_apply_is_all_or_nothing() {
    let site = Site::start().await;
    let items = json!([binding("b", "p", "s"), persona("p"), network("web", 1), secret("bmc", "x"), server("s")]);
    let (status, dry) = site.call("POST", "/apply", json!({ "items": items, "dryRun": true })).await;
    assert_eq!((status, site.store.revision()), (200, 0), "{dry}");
    let mut wrong = items.as_array().unwrap().clone();
    wrong.extend([network("bad-1", 2), network("bad-2", 3)]);
    let (status, refused) = site.call("POST", "/apply", json!({ "items": wrong })).await;
    assert_eq!((status, refused["details"]["causes"].as_array().map(Vec::len)), (422, Some(2)));
    wrong = vec![network("n", 1), network("n", 2), site::object("Network", "m", json!({ "vlann": 1 }))];
    let (status, refused) = site.call("POST", "/apply", json!({ "items": wrong })).await;
    assert_eq!((status, refused["details"]["causes"].as_array().map(Vec::len)), (400, Some(2)), "{refused}");
    assert_eq!(site.store.revision(), 0);

    let (status, done) = site.call("POST", "/apply", json!({ "items": items, "source": "directory:/rack" })).await;
    let results = |answer: &Value| -> Vec<String> {
        let item = |i: &Value| format!("{}/{} {}", i["kind"].as_str().unwrap(), i["name"].as_str().unwrap(), i["result"].as_str().unwrap());
        answer["items"].as_array().unwrap().iter().map(item).collect()
    };
    assert_eq!(status, 200, "{done}");
    assert_eq!(results(&done), ["Binding/b created", "Persona/p created", "Network/web created", "Secret/bmc created", "Server/s created"]);
    assert_eq!(done["items"][0]["object"]["metadata"]["annotations"]["embody.dev/source"], "directory:/rack");
    // What others refer to was written first.
    let mut written: Vec<(u64, Value)> =
        done["items"].as_array().unwrap().iter().map(|i| (revision(&i["object"]), i["kind"].clone())).collect();
    written.sort_by_key(|(r, _)| *r);
    assert_eq!(written.iter().map(|(_, k)| k.as_str().unwrap()).collect::<Vec<_>>(), ["Secret", "Network", "Server", "Persona", "Binding"]);

    // Again, by a person, with one change: one write, and the source stays.
    let before = site.store.revision();
    let mut items = items.as_array().unwrap().clone();
    items[2]["spec"]["vlan"] = 2.into();
    let (_, done) = site.call("POST", "/apply", json!({ "items": items })).await;
    assert_eq!(results(&done)[1..4], ["Persona/p unchanged", "Network/web configured", "Secret/bmc unchanged"]);
    assert_eq!(site.store.revision(), before + 1);
    assert_eq!(done["items"][2]["object"]["metadata"]["annotations"]["embody.dev/source"], "directory:/rack");
    // A single write is checked as well, with what is there; that something is not there yet is said, and no reason to refuse.
    assert_eq!(site.call("POST", "/networks", network("bad", 1)).await.0, 422);
    let body = binding("c", "nobody", "s").to_string().into_bytes();
    let path = "/apis/embody.dev/v1alpha1/bindings?dryRun=All";
    let early = site.send("POST", path, "application/json", body).await;
    assert_eq!(
        (early.status().as_u16(), early.headers()["warning"].to_str().unwrap()),
        (201, "299 embody \"Binding/c: no persona `nobody`\"")
    );
    assert_eq!(site.call("POST", "/bindings?dryRun=All", binding("c", "p", "s")).await.0, 201);
    assert_eq!(site.call("POST", "/bindings?dryRun=maybe", binding("c", "p", "s")).await.0, 400);
    assert_eq!(site.store.revision(), before + 1);
}

#[tokio::test]
async fn a_deletion_says_who_holds_the_object() {
    let site = Site::start().await;
    for object in [secret("bmc", "x"), network("web", 1), server("s"), server("held"), persona("p"), binding("b", "p", "s")] {
        site.create(object).await;
    }
    for (path, holder) in [
        ("/secrets/bmc", "Server/held, Server/s refer to it"),
        ("/networks/web", "Persona/p refers to it"),
        ("/personas/p", "Binding/b refers to it"),
        ("/servers/s", "Binding/b refers to it"),
        ("/servers/held", "held may still run web"),
    ] {
        let (status, answer) = site.call("DELETE", path, Value::Null).await;
        assert!(status == 409 && answer["message"].as_str().unwrap().contains(holder), "{path}: {answer}");
    }
    assert_eq!(site.call("DELETE", "/bindings/b?dryRun=All", Value::Null).await.0, 200);
    let stale = json!({ "preconditions": { "resourceVersion": "1" } });
    assert_eq!(site.call("DELETE", "/bindings/b", stale).await.0, 409);
    assert_eq!(site.call("DELETE", "/bindings/b", json!({ "propagationPolicy": "Background" })).await.0, 200);
    assert_eq!(site.call("DELETE", "/servers/s", Value::Null).await.0, 200);
}

#[tokio::test]
async fn people_are_heard_by_name() {
    let site = Site::start().await;
    for object in [secret("bmc", "x"), network("web", 1), server("s"), persona("p"), binding("b", "p", "s"), binding("idle", "p", "s")] {
        site.create(object).await;
    }
    let post = async |path: &str, body: Value| site.call("POST", path, body).await;
    let shown = async |query: &str| site.call("GET", &format!("/bindings/b/approval{query}"), Value::Null).await.1["digest"].clone();
    let late = post("/bindings/b/approve", json!({ "digest": shown("").await })).await;
    assert!(late.0 == 409 && late.1["message"].as_str().unwrap().contains("look at it again"), "{late:?}");
    let adopt = json!({ "adopt": true, "digest": shown("?adopt=true").await });
    assert_eq!(post("/bindings/b/approve", adopt).await.0, 200);
    assert_eq!(post("/bindings/b/approve", json!({ "digest": shown("").await })).await.0, 200);
    assert_eq!(post("/servers/s/accept", Value::Null).await.0, 200);
    assert_eq!(post("/servers/s/retry", Value::Null).await.0, 200);
    assert_eq!(
        post("/pauses", json!({ "scope": { "object": { "kind": "Server", "name": "s" } }, "reason": "disk", "seconds": 60 })).await.0,
        200
    );
    assert_eq!(post("/resumes", json!({ "scope": "everything" })).await.0, 200);
    let told = site.control.told.lock().unwrap().join("\n");
    for part in
        ["approve b Adopt", "approve b ThePlan", "accept Server/s", "retry Server/s", "because disk for Some(60)", "resume Everything"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(told.lines().all(|l| l.contains(" by ") && !l.ends_with("unknown")), "{told}");
    for (path, body, code) in [
        ("/bindings/b/approve", Value::Null, 400),
        ("/bindings/b/approve", json!({ "adopt": true, "hard": true, "digest": "x" }), 400),
        ("/servers/s/approve", json!({ "digest": "x" }), 400),
        ("/bindings/none/approve", json!({ "digest": "x" }), 404),
        ("/personas/p/accept", Value::Null, 400),
        ("/bindings/b/dance", Value::Null, 404),
        ("/pauses", json!({ "scope": "everything", "reason": " " }), 400),
        ("/pauses", json!({ "reason": "x" }), 400),
    ] {
        assert_eq!(post(path, body).await.0, code, "{path}");
    }
    let (_, why) = site.call("GET", "/bindings/b/why", Value::Null).await;
    assert_eq!(why["message"], "Binding/b waits for its ports.");
    let (_, plan) = post("/plan", json!({ "items": [network("web", 7)] })).await;
    assert_eq!((&plan["linkFlaps"], &plan["steps"][0]["op"]), (&json!(2), &json!("SNMP tor-1 Gi1/0/1 1 → web")));
    assert_eq!(post("/plan", json!({ "items": [network("bad", 7)] })).await.0, 422);
    let event = json!({ "time": "2026-11-22T08:00:00Z", "type": "Normal", "regarding": "Binding/b", "reason": "Moved", "message": "m" });
    site.store.record_event(event.to_string().into_bytes()).await.unwrap();
    let (_, ours) = site.call("GET", "/events", Value::Null).await;
    assert_eq!(ours["items"], json!([event]));
    let (_, theirs) = site.call("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Db", Value::Null).await;
    assert_eq!(theirs["items"][0]["involvedObject"]["kind"], "Binding");
    let (_, theirs) = site.call("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dx", Value::Null).await;
    assert_eq!(theirs["items"], json!([]));
}

#[tokio::test]
async fn two_writers_lose_nothing() {
    let site = Site::start().await;
    site.create(network("web", 1)).await;
    let store = site.store.clone();
    let status = tokio::spawn(async move {
        for i in 0..200 {
            store.set_status(Kind::Network, "web", json!({ "observedGeneration": i, "conditions": [] })).await;
            tokio::task::yield_now().await;
        }
    });
    for vlan in 2..60 {
        let (status, answer) = site.call("PATCH", "/networks/web", json!({ "spec": { "vlan": vlan } })).await;
        assert_eq!(status, 200, "{answer}");
    }
    status.await.unwrap();
    let (_, now) = site.call("GET", "/networks/web", Value::Null).await;
    assert_eq!(
        (&now["spec"]["vlan"], &now["metadata"]["generation"], &now["status"]["observedGeneration"]),
        (&json!(59), &json!(59), &json!(199))
    );
}

#[tokio::test]
async fn requests_are_bounded_and_of_one_type() {
    let site = Site::start().await;
    site.create(network("web", 1)).await;
    let path = "/apis/embody.dev/v1alpha1/networks";
    let code = async |method: &str, path: &str, of: &str, body: Vec<u8>| site.send(method, path, of, body).await.status().as_u16();
    assert_eq!(code("POST", path, "application/json", vec![b' '; (64 << 20) + 1]).await, 413);
    assert_eq!(code("POST", path, "application/yaml", b"kind: Network".to_vec()).await, 415);
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(code("PATCH", &format!("{path}/web"), strategic, b"{}".to_vec()).await, 415);
    assert_eq!(code("PATCH", &format!("{path}/web"), "application/json-patch+json", b"{}".to_vec()).await, 400);
    assert_eq!(code("PATCH", &format!("{path}/web"), "application/merge-patch+json", b"[]".to_vec()).await, 400);
    assert_eq!(code("POST", path, "application/json", b"{".to_vec()).await, 400);
    assert_eq!(code("POST", path, "application/json", vec![b'['; 100_000]).await, 400);
    assert_eq!(code("GET", &format!("{path}?labelSelector=a%20b"), "", Vec::new()).await, 400);
    assert_eq!(code("GET", &format!("{path}/Web"), "", Vec::new()).await, 400);
}

#[tokio::test]
async fn the_socket_is_ours_alone() {
    let site = Site::start().await;
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&site.socket), mode(site.socket.parent().unwrap())), (0o600, 0o700));
    assert!(matches!(Listener::bind(&site.socket), Err(BindError::InUse { .. })));
    assert_eq!(site.call("GET", "/networks", Value::Null).await.0, 200);

    // Left by a process that was killed: nobody accepts.
    let stale = site.dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    drop(Listener::bind(&stale).unwrap());
    assert!(!stale.exists());

    // Of another program, which lives.
    let live = site.dir.path().join("live.sock");
    let _other = std::os::unix::net::UnixListener::bind(&live).unwrap();
    assert!(matches!(Listener::bind(&live), Err(BindError::InUse { .. })));
    let file = site.dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(Listener::bind(&file), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}

/// As logind does with a user's directory, and a cleaner with /tmp.
#[tokio::test]
async fn a_socket_that_somebody_removes_is_bound_anew_and_another_controllers_is_left() {
    let site = Site::start().await;
    let directory = site.socket.parent().unwrap();
    let answers = async || {
        for _ in 0..600 {
            if std::os::unix::net::UnixStream::connect(&site.socket).is_ok() {
                return site.call("GET", "/networks", Value::Null).await.0;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("nobody answers after a minute");
    };
    assert_eq!(answers().await, 200);
    // Whoever is connected goes on.
    let watch = site.send("GET", "/apis/embody.dev/v1alpha1/networks?watch=true", "", Vec::new()).await;
    for removed in [&site.socket, &site.socket.with_extension("sock.lock"), directory] {
        if removed.is_dir() { std::fs::remove_dir_all(removed) } else { std::fs::remove_file(removed) }.unwrap();
        assert_eq!(answers().await, 200);
        let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&site.socket), mode(directory)), (0o600, 0o700));
        assert!(matches!(Listener::bind(&site.socket), Err(BindError::InUse { .. })));
    }
    site.create(network("late", 7)).await;
    let told = watch.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&told).contains("\"late\""), "{told:?}");

    // Another controller is quicker: it keeps what it has, and what it leaves is taken.
    std::fs::remove_dir_all(directory).unwrap();
    let other = Listener::bind(&site.socket).unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&site.socket).unwrap());
    let before = inode();
    for _ in 0..12 {
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        tokio::time::resume();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(inode(), before);
    drop(other);
    assert_eq!(answers().await, 200);
}

#[tokio::test]
async fn every_answer_says_that_statuses_are_old() {
    let site = Site::start().await;
    site.create(network("web", 1)).await;
    let path = "/apis/embody.dev/v1alpha1/networks";
    let warning = async || {
        let answer = site.send("GET", path, "", Vec::new()).await;
        assert_eq!(answer.status().as_u16(), 200);
        answer.headers().get("warning").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(warning().await, None);
    let message = "statuses cannot be stored since 2026-11-27T05:00:00Z: there is no space left".to_owned();
    let word = SiteCondition { ok: false, reason: "StatusesNotStored", message };
    site.conditions.send_modify(|all| drop(all.insert("StatusesStored", word)));
    assert_eq!(warning().await.unwrap(), "299 embody \"statuses cannot be stored since 2026-11-27T05:00:00Z: there is no space left\"");
}

#[tokio::test]
async fn a_json_patch_changes_parts_and_moves_no_secret() {
    let site = Site::start().await;
    site.create(network("web", 1)).await;
    site.create(secret("bmc", "calvin")).await;
    let patch = async |path: &str, operations: Value| {
        let path = format!("/apis/embody.dev/v1alpha1/{path}");
        let answer = site.send("PATCH", &path, "application/json-patch+json", operations.to_string().into_bytes()).await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let vlan =
        |to: u16| json!([{ "op": "test", "path": "/spec/vlan", "value": 1 }, { "op": "replace", "path": "/spec/vlan", "value": to }]);
    let (status, now) = patch("networks/web", vlan(2)).await;
    assert_eq!((status, &now["spec"]["vlan"], &now["metadata"]["generation"]), (200, &json!(2), &json!(2)));
    // What it was made from is no more so, or is nowhere.
    for operations in [vlan(3), json!([{ "op": "remove", "path": "/spec/nowhere" }])] {
        let (status, refused) = patch("networks/web", operations).await;
        assert_eq!((status, &refused["reason"]), (422, &json!("Invalid")), "{refused}");
    }
    let unknown = json!([{ "op": "add", "path": "/spec/vlann", "value": 3 }]);
    let (status, refused) = patch("networks/web", unknown).await;
    assert_eq!((status, refused["message"].as_str().unwrap()), (400, "strict decoding error: unknown field \"spec.vlann\""));

    // A value goes neither into a label nor under another key, and what is tested of it says nothing.
    for to in ["/metadata/annotations", "/stringData/copied"] {
        let operations = json!([{ "op": "copy", "from": "/stringData/password", "path": to }]);
        let (status, answer) = patch("secrets/bmc", operations).await;
        assert!(status >= 400 && !answer.to_string().contains("calvin"), "{answer}");
    }
    let guess = json!([{ "op": "test", "path": "/stringData/password", "value": "calvin" }]);
    assert_eq!(patch("secrets/bmc", guess).await.0, 422);
    let labelled = json!([{ "op": "add", "path": "/metadata/labels", "value": { "site": "a" } }]);
    assert_eq!(patch("secrets/bmc", labelled).await.0, 200);
    let stored = site.store.get("objects/secrets/bmc").await.unwrap().unwrap();
    assert!(String::from_utf8(stored.value).unwrap().contains("calvin"), "its values stay");
}

/// What kubectl explains and asks before a dry run (it is tried itself in `tests/kubectl.rs`).
#[tokio::test]
async fn the_schema_is_whole_and_has_no_word_that_yaml_reads_otherwise() {
    fn each<'a>(value: &'a Value, see: &mut dyn FnMut(&str, &'a Value)) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, field)| {
                see(key, field);
                each(field, see);
            }),
            Value::Array(items) => items.iter().for_each(|item| each(item, see)),
            _ => {}
        }
    }
    let site = Site::start().await;
    let get = async |path: &str| {
        let answer = site.send("GET", path, "", Vec::new()).await;
        assert_eq!(answer.status(), 200, "{path}");
        let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (serde_json::from_slice::<Value>(&body).unwrap(), tag)
    };
    let (root, _) = get("/openapi/v3").await;
    let url = root["paths"]["apis/embody.dev/v1alpha1"]["serverRelativeURL"].as_str().unwrap();
    let (document, tag) = get(url).await;
    assert!(url.contains(tag.unwrap().trim_matches('"')), "{url}");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let (mut references, mut words) = (0, Vec::new());
    each(&document, &mut |key, field| match (key, field) {
        ("$ref", Value::String(target)) => {
            references += 1;
            assert!(schemas.contains_key(target.rsplit('/').next().unwrap()), "{target}");
        }
        ("properties", Value::Object(fields)) => words.extend(fields.keys().cloned()),
        ("enum", Value::Array(all)) => words.extend(all.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => {}
    });
    // The status of a condition is Kubernetes's own, and written by no manifest.
    let odd = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"];
    let is_odd = |word: &&String| odd.contains(&word.to_lowercase().as_str()) && !["True", "False"].contains(&word.as_str());
    assert_eq!((words.iter().filter(is_odd).collect::<Vec<_>>(), references > 100, words.len() > 200), (vec![], true, true));
    // Of what is a value, the type is said where it is used; the rest are objects.
    assert!(schemas.values().all(|schema| schema["type"] == "object"), "{schemas:?}");
    let patch = &document["paths"]["/apis/embody.dev/v1alpha1/bindings/{name}"]["patch"];
    let names: Vec<&str> = patch["parameters"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(
        (names, &patch["x-kubernetes-group-version-kind"]["kind"]),
        (vec!["dryRun", "fieldManager", "fieldValidation"], &json!("Binding"))
    );
}

/// Clients that list by watching wait for the one after what was there (KEP-3157); a table tells its columns once.
#[tokio::test]
async fn a_watch_says_where_what_was_there_ends() {
    let site = Site::start().await;
    site.create(network("web", 1)).await;
    site.create(network("db", 2)).await;
    let mut lines =
        Lines::open(&site, "/networks?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true").await;
    let types: Vec<Value> = [lines.next().await, lines.next().await].iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["ADDED", "ADDED"]);
    let end = lines.next().await;
    assert_eq!((&end["type"], &end["object"]["kind"]), (&json!("BOOKMARK"), &json!("Network")));
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(end["object"]["metadata"]["resourceVersion"], site.store.revision().to_string());
    site.create(network("backup", 3)).await;
    assert_eq!(lines.next().await["type"], "ADDED");
}

/// All parts are of one moment, and nobody who comes too late is given less than there is.
#[tokio::test]
async fn a_list_comes_in_parts_of_one_moment() {
    let site = Site::start().await;
    for n in 1..=5 {
        site.create(network(&format!("n{n}"), n)).await;
    }
    let names = |list: &Value| list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect::<Vec<_>>();
    let (_, first) = site.call("GET", "/networks?limit=2", Value::Null).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec![json!("n1"), json!("n2")], &json!(3)));
    // What happens meanwhile is not in it.
    site.call("DELETE", "/networks/n3", Value::Null).await;
    site.create(network("n9", 9)).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let next = |token: &str| format!("/networks?limit=2&continue={}", token.replace(':', "%3A"));
    let (_, second) = site.call("GET", &next(token), Value::Null).await;
    assert_eq!(
        (names(&second), &second["metadata"]["resourceVersion"]),
        (vec![json!("n3"), json!("n4")], &first["metadata"]["resourceVersion"])
    );
    let (_, last) = site.call("GET", &next(second["metadata"]["continue"].as_str().unwrap()), Value::Null).await;
    assert_eq!((names(&last), last["metadata"].get("continue")), (vec![json!("n5")], None));
    // Asked once more, as after an answer that was lost, it is the same.
    assert_eq!(site.call("GET", &next(token), Value::Null).await.1, second);
    let (status, refused) = site.call("GET", "/servers?limit=2&continue=1%3A2", Value::Null).await;
    assert_eq!((status, &refused["reason"]), (410, &json!("Expired")));
    assert_eq!(site.call("GET", &next(token).replace("networks", "servers"), Value::Null).await.0, 400);
    assert_eq!(site.call("GET", "/networks?continue=x", Value::Null).await.0, 400);
    // Who asks for many lists and comes back for none does not fill the memory, and the newest is still there.
    let mut tokens = Vec::new();
    for _ in 0..20 {
        let (_, list) = site.call("GET", "/networks?limit=1", Value::Null).await;
        tokens.push(list["metadata"]["continue"].as_str().unwrap().to_owned());
    }
    let codes = [site.call("GET", &next(&tokens[0]), Value::Null).await.0, site.call("GET", &next(&tokens[19]), Value::Null).await.0];
    assert_eq!(codes, [410, 200]);
}

#[tokio::test]
async fn fields_select_and_forms_are_as_asked_for() {
    let site = Site::start().await;
    for (name, vlan) in [("web", 1), ("db", 2)] {
        site.create(network(name, vlan)).await;
    }
    let names = async |selector: &str| {
        let (status, list) = site.call("GET", &format!("/networks?fieldSelector={selector}"), Value::Null).await;
        assert_eq!(status, 200, "{list}");
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("spec.vlan%3D2").await, ["db"]);
    assert_eq!(names("spec.vlan!%3D2,metadata.name%3Dweb").await, ["web"]);
    assert_eq!(names("metadata.name!%3Dweb").await, ["db"]);
    // What cannot be asked for is refused: to leave it out would be to tell of all.
    let (status, refused) = site.call("GET", "/networks?fieldSelector=spec.vlann%3D2", Value::Null).await;
    assert!(status == 400 && refused["message"].as_str().unwrap().contains("spec.vlan,"), "{refused}");
    let mut watch = Lines::open(&site, "/networks?watch=true&fieldSelector=spec.vlan%3D2").await;
    assert_eq!(watch.brief().await, brief("ADDED", "db"));
    site.call("PATCH", "/networks/db", json!({ "spec": { "vlan": 3 } })).await;
    assert_eq!(watch.brief().await, brief("DELETED", "db"));
    site.call("PATCH", "/networks/web", json!({ "spec": { "vlan": 2 } })).await;
    assert_eq!(watch.brief().await.1, "web");

    let asked = async |path: &str, accept: &str| {
        let stream = tokio::net::UnixStream::connect(&site.socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            hyper::Request::builder().uri(format!("/apis/embody.dev/v1alpha1{path}")).header("host", "x").header("accept", accept);
        let answer = sender.send_request(request.body(http_body_util::Empty::<hyper::body::Bytes>::new()).unwrap()).await.unwrap();
        serde_json::from_slice::<Value>(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    };
    let form = |form: &str| format!("application/json;as={form};g=meta.k8s.io;v=v1,application/json");
    let list = asked("/networks", &form("PartialObjectMetadataList")).await;
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata")));
    assert!(list["items"][0]["metadata"]["uid"].is_string() && list["items"][0].get("spec").is_none(), "{list}");
    assert_eq!(asked("/networks/db", &form("PartialObjectMetadata")).await["metadata"]["name"], "db");
    assert_eq!(asked("/networks/db", &form("Table")).await["rows"][0]["cells"][0], "db");
    // Of several forms the first that is known.
    assert_eq!(asked("/networks/db", "application/json;as=Other;g=x;v=v1,application/json").await["kind"], "Network");
}
