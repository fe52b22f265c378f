//! What the controller recorded, when somebody else changed it: emptied, deleted, overwritten, left by the first version. The whole controller
//! in virtual time. The stores themselves: `tests/store.rs`.

mod small;

use std::time::Duration;

use embody::testing::control::operator::{Approving, Control, Declaring, Scope};
use embody::testing::model::fact::{Admin, BootDevice, PortConfig, Power};
use embody::testing::model::op::Device;
use embody::testing::model::{Kind as ObjectKind, Meta, Object};
use embody::testing::sim::line::Weather;
use embody::testing::sim::switch::Kind;
use embody::testing::store::{Entry, Expect, Store, StoreError, Write};
use serde_json::{Value, json};
use small::{Small, name, network};
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const BODY: &str = "records/2/bodies/s";

impl Small {
    async fn begun(mode: &str) -> Small {
        Small::start(Kind::QBridge, json!({}), mode).await
    }

    async fn converged() -> Small {
        let site = Small::begun("enforce").await;
        site.ready().await;
        site
    }

    async fn entries(&self, prefix: &str) -> Vec<Entry> {
        self.store.list(prefix).await.unwrap().0
    }

    /// Somebody takes everything under these prefixes away.
    async fn delete(&self, prefixes: &[&str]) {
        let mut writes = Vec::new();
        for prefix in prefixes {
            writes.extend(self.entries(prefix).await.into_iter().map(|e| Write::delete(e.key, e.revision)));
        }
        self.store.write_all(&writes).await.unwrap();
    }

    /// Somebody writes over a key, or makes it.
    async fn overwrite(&self, key: &str, value: &[u8]) {
        let there = self.store.get(key).await.unwrap();
        self.store.put_if(key, value.to_vec(), there.map_or(Expect::Absent, |e| Expect::At(e.revision))).await.unwrap();
    }

    async fn record(&self) -> Value {
        let entry = self.store.get(BODY).await.unwrap();
        entry.map_or(Value::Null, |e| serde_json::from_slice(&e.value).unwrap_or(Value::Null))
    }

    fn is_on(&self) -> bool {
        self.centre.power(&name("s")) == Some(Power::On)
    }

    fn vlan(&self) -> Option<u16> {
        self.centre.switch(&name("tor-1"), |sim| sim.ports().get("port1").and_then(|c| c.untagged).map(|v| v.id())).flatten()
    }

    /// In one text, what `why` says.
    async fn why(&self) -> String {
        self.words.why(ObjectKind::Binding, &name("b")).await.unwrap()
    }

    async fn site_says(&self) -> String {
        self.status(ObjectKind::Policy, "default").await.to_string()
    }

    async fn approve(&self) {
        self.say_yes(Approving::ThePlan).await;
    }

    async fn say_yes(&self, word: Approving) {
        let shown = self.words.show_approval(&name("b"), word.clone()).await.unwrap();
        self.words.approve(&name("b"), word, &shown.digest, "me").await.unwrap();
    }

    async fn button(&self) {
        self.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    }
}

/// What is named is what there is to do: a binding that can be told to stop, a button, or nothing.
#[tokio::test(start_paused = true)]
async fn a_server_that_runs_is_kept_with_words_that_can_be_followed() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    let words = async || {
        let declared = site.words.declare(&name("s"), Declaring::Off, "its power is cut", "me").await.unwrap_err().to_string();
        let deleted = site.words.may_delete(ObjectKind::Server, &name("s")).await.err().map(|refused| refused.to_string());
        (declared, deleted)
    };
    let (declared, deleted) = words().await;
    for said in [declared, deleted.unwrap()] {
        assert!(said.ends_with("say `state: Stopped` in binding b"), "{said}");
    }
    site.remove(ObjectKind::Binding, "b").await;
    sleep(Duration::from_secs(60)).await;
    let (declared, deleted) = words().await;
    for said in [declared, deleted.unwrap()] {
        assert!(said.ends_with("no binding names it: switch it off by hand, which its BMC will show"), "{said}");
    }
    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    let mut ends = false;
    for _ in 0..120 {
        sleep(Duration::from_secs(1)).await;
        let (declared, deleted) = words().await;
        ends |= declared.contains("ends by itself") && deleted.is_some_and(|said| said.contains("ends by itself"));
    }
    assert!(ends, "it was not said that two answers are waited for");
    let (declared, deleted) = words().await;
    assert!(declared.ends_with("it is off, and by evidence it runs nothing") && deleted.is_none(), "{declared} {deleted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_emptied_under_the_controller_stops_it_until_a_person_takes_it() {
    let site = Small::converged().await;
    site.delete(&["objects/", "records/", "meta/"]).await;
    sleep(10 * MINUTE).await;
    assert!(site.is_on());
    assert_eq!((site.vlan(), site.record().await), (Some(120), Value::Null), "nothing is changed, nothing recorded");
    assert!(site.events().await.iter().any(|e| e.contains("StoreWentBackwards") && e.contains("was emptied")));
    site.words.accept_store("me").await.unwrap();
    let record = site.record().await;
    assert_eq!(record["evidence"]["p"]["phase"], json!("Started"), "what this process knew is merged back: {record}");
    assert!(site.words.accept_store("me").await.is_err(), "nothing more to accept");
    sleep(10 * MINUTE).await;
    assert!(site.is_on(), "nobody desires anything of it now: it is left as it is");
}

/// What did not read before is no less unknown when the store has lost that as well.
#[tokio::test(start_paused = true)]
async fn a_record_that_did_not_read_before_the_store_was_emptied_is_not_nothing() {
    let site = Small::converged().await;
    site.overwrite(BODY, br#"{"found":"Off","aWordOfTheFuture":1}"#).await;
    sleep(MINUTE).await;
    site.delete(&["objects/", "records/", "meta/"]).await;
    sleep(10 * MINUTE).await;
    site.words.accept_store("me").await.unwrap();
    assert_eq!((site.is_on(), site.record().await["anything"].clone()), (true, json!(true)));
}

#[tokio::test(start_paused = true)]
async fn a_store_without_its_records_tells_a_new_process_nothing_and_what_runs_may_be_anything() {
    let mut site = Small::converged().await;
    site.stop();
    site.delete(&["records/", "meta/"]).await;
    site.restart();
    site.apply(vec![network("web", 130)]).await;
    sleep(10 * MINUTE).await;
    assert_eq!((site.is_on(), site.vlan()), (true, Some(120)), "nothing is sent");
    assert!(site.why().await.contains("StoreWentBackwards"), "{}", site.why().await);
    assert!(site.site_says().await.contains("embody accept store"));
    site.words.accept_store("me").await.unwrap();
    sleep(10 * MINUTE).await;
    assert_eq!((site.is_on(), site.record().await["anything"].clone()), (true, json!(true)));
    assert!(site.why().await.contains("EvidenceUnreadable"), "{}", site.why().await);
    site.button().await;
    sleep(10 * MINUTE).await;
    assert!(!site.is_on() && site.why().await.contains("may run elsewhere by now"), "{}", site.why().await);
    site.approve().await;
    site.ready().await;
    assert_eq!((site.is_on(), site.vlan(), site.record().await["anything"].clone()), (true, Some(130), Value::Null));
}

#[tokio::test(start_paused = true)]
async fn what_an_older_store_says_of_a_body_that_is_off_is_not_started_unasked() {
    let mut site = Small::converged().await;
    site.stop();
    site.delete(&["meta/"]).await;
    site.button().await;
    sleep(MINUTE).await;
    site.restart();
    sleep(MINUTE).await;
    site.words.accept_store("me").await.unwrap();
    sleep(10 * MINUTE).await;
    assert!(!site.is_on(), "by now it may run on a server that this store does not name");
    assert!(site.why().await.contains("`embody approve b`"), "{}", site.why().await);
    site.approve().await;
    site.ready().await;
    assert_eq!((site.is_on(), site.record().await["confirmStart"].clone()), (true, Value::Null));
    site.button().await;
    sleep(10 * MINUTE).await;
    assert!(site.is_on(), "that was said once");
}

/// What an older store says under a controller that runs adds to what that knows, and takes nothing from it.
#[tokio::test(start_paused = true)]
async fn an_older_store_under_the_controller_takes_no_evidence() {
    let site = Small::begun("enforce").await;
    while site.record().await.is_null() {
        sleep(SECOND).await;
    }
    let old = [site.entries(BODY).await, site.entries("meta/seq").await].concat();
    assert!(site.record().await.get("evidence").is_none(), "{}", site.record().await);
    site.ready().await;
    for entry in old {
        site.overwrite(&entry.key, &entry.value).await;
    }
    sleep(MINUTE).await;
    assert!(site.site_says().await.contains("StoreWentBackwards"), "{}", site.site_says().await);
    site.words.accept_store("me").await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(site.record().await["evidence"]["p"]["phase"], "Started", "{}", site.record().await);
    assert!(site.is_ready().await && site.is_on(), "{}", site.why().await);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_deleted_under_the_controller_is_written_again() {
    let site = Small::converged().await;
    // The port is looked at once more after it was written.
    sleep(MINUTE).await;
    let before = site.record().await;
    let pins = site.entries("records/2/pins/").await.len();
    assert!(pins >= 2, "of the server and of the switch");
    site.delete(&[BODY, "records/2/pins/"]).await;
    sleep(MINUTE).await;
    assert_eq!((site.record().await, site.entries("records/2/pins/").await.len()), (before, pins));
    assert!(site.is_ready().await);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_does_not_read_may_be_anything_until_a_person_says() {
    for restarts in [false, true] {
        let mut site = Small::converged().await;
        site.overwrite(BODY, br#"{"found":"Off","aWordOfTheFuture":1}"#).await;
        if restarts {
            site.restart();
        }
        site.apply(vec![network("web", 130)]).await;
        sleep(10 * MINUTE).await;
        assert_eq!((site.is_on(), site.vlan()), (true, Some(120)), "nothing is sent");
        let why = site.why().await;
        assert!(why.contains("EvidenceUnreadable") && why.contains("`embody declare server s foreign"), "{why}");
        site.words.declare(&name("s"), Declaring::Foreign, "it runs a tool of ours", "me").await.unwrap();
        sleep(10 * MINUTE).await;
        assert!(site.is_on(), "it was found running: a person approves first: {}", site.why().await);
        assert!(site.why().await.contains("ApprovalNeeded"), "{}", site.why().await);
    }
}

/// That server is in no manifest: only its record tells of it.
#[tokio::test(start_paused = true)]
async fn while_one_server_may_run_anything_what_lives_once_does_not_start_on_another() {
    for record in [&b"[]"[..], br#"{"anything":true}"#] {
        let site = Small::begun("enforce").await;
        let persona = site.store.get("objects/personas/p").await.unwrap().unwrap().value;
        let mut persona: Value = serde_json::from_slice(&persona).unwrap();
        persona["spec"]["exclusive"] = json!(true);
        site.overwrite("objects/personas/p", persona.to_string().as_bytes()).await;
        site.overwrite("records/2/bodies/other", record).await;
        sleep(10 * MINUTE).await;
        assert!(!site.is_on());
        assert!(site.why().await.contains("nothing is known of what server other runs"), "{}", site.why().await);
        assert!(site.why().await.contains("`embody declare server other off"), "{}", site.why().await);
        site.words.declare(&name("other"), Declaring::Off, "it was sold", "me").await.unwrap();
        site.ready().await;
    }
}

/// Nobody knows what it was: whoever takes it away makes nothing known, and the next process must not count it as nothing.
#[tokio::test(start_paused = true)]
async fn a_record_that_does_not_read_and_is_deleted_may_be_anything_for_the_next_process_too() {
    let mut site = Small::converged().await;
    site.overwrite(BODY, b"[]").await;
    sleep(MINUTE).await;
    site.delete(&[BODY]).await;
    sleep(MINUTE).await;
    assert_eq!(site.record().await["anything"], json!(true));
    site.restart();
    sleep(10 * MINUTE).await;
    assert!(site.is_on() && site.why().await.contains("EvidenceUnreadable"), "{}", site.why().await);
    assert!(!site.why().await.contains("StoreWentBackwards"), "{}", site.why().await);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_does_not_read_any_more_is_not_made_new_by_an_off_from_before() {
    let site = Small::begun("observe").await;
    sleep(5 * MINUTE).await;
    site.overwrite(BODY, b"[]").await;
    sleep(SECOND).await;
    assert_eq!(site.entries(BODY).await[0].value, b"[]", "it was off for minutes, and may have been started since");
    sleep(MINUTE).await;
    assert_ne!(site.record().await, Value::Null, "it was seen off twice");
}

#[tokio::test(start_paused = true)]
async fn a_mac_that_stands_in_what_another_body_may_run_is_parked() {
    let site = Small::converged().await;
    assert_eq!(site.boot().await.persona, Some(name("p")));
    let of_before = site.record().await.to_string();
    site.overwrite("records/2/bodies/other", of_before.as_bytes()).await;
    sleep(MINUTE).await;
    let answer = site.boot().await;
    assert_eq!(answer.persona, None);
    assert!(answer.says.contains("belongs to what may run on other"), "{}", answer.says);
}

/// The store says that it runs; it may have been started with something else since, and what the store says runs elsewhere.
#[tokio::test(start_paused = true)]
async fn what_an_older_store_says_runs_is_not_answered_again_unasked() {
    let mut site = Small::converged().await;
    site.stop();
    site.delete(&["meta/"]).await;
    site.restart();
    sleep(MINUTE).await;
    site.words.accept_store("me").await.unwrap();
    sleep(10 * MINUTE).await;
    assert!(site.is_on() && site.is_ready().await, "what runs is left in peace: {}", site.why().await);
    let answer = site.boot().await;
    assert!(answer.persona.is_none() && answer.says.contains("for a person to say"), "{}", answer.says);
    sleep(MINUTE).await;
    assert!(site.why().await.contains("`embody approve b`"), "{}", site.why().await);
    site.approve().await;
    sleep(MINUTE).await;
    assert_eq!(site.boot().await.persona, Some(name("p")));
    assert!(site.is_ready().await && site.record().await["confirmStart"] == Value::Null);
}

/// What it runs is the one life of what it claims: nothing is started beside it, whoever presses a button.
#[tokio::test(start_paused = true)]
async fn what_a_body_runs_that_was_declared_off_is_answered_to_nobody() {
    let site = Small::converged().await;
    let mut record = site.record().await;
    let snapshot = &mut record["evidence"]["p"]["snapshot"];
    (snapshot["claims"], snapshot["macs"]) = (json!([{ "persona": "p" }]), json!(["02:00:00:00:00:01"]));
    site.overwrite(BODY, record.to_string().as_bytes()).await;
    sleep(MINUTE).await;
    assert_eq!(site.boot().await.persona, Some(name("p")));
    record["evidence"]["p"]["snapshot"]["macs"] = json!(["02:00:00:00:00:77"]);
    record["evidence"]["p"]["withdrawn"] = json!(true);
    record["declared"] = json!({ "what": "Off", "by": "me", "reason": "its power is cut", "at": "" });
    let mut parked = async |what: &str| {
        record["declared"]["what"] = json!(what);
        site.overwrite("records/2/bodies/other", record.to_string().as_bytes()).await;
        sleep(MINUTE).await;
        site.boot().await
    };
    assert_eq!(parked("Off").await.persona, Some(name("p")), "what is off runs nothing");
    let answer = parked("OffButRuns").await;
    assert_eq!(answer.persona, None);
    assert!(answer.says.contains("other was declared off, is on all the same"), "{}", answer.says);
    // And what stands on the declared one itself starts there no more.
    record["declared"]["what"] = json!("Off");
    record["evidence"]["p"]["withdrawn"] = json!(false);
    site.overwrite("records/2/bodies/other", b"{}").await;
    site.overwrite(BODY, record.to_string().as_bytes()).await;
    sleep(SECOND).await;
    let answer = site.boot().await;
    assert!(answer.persona.is_none() && answer.says.contains("s was declared off"), "{}", answer.says);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_may_run_anything_is_parked_whatever_stands_there() {
    let site = Small::converged().await;
    let mut record = site.record().await;
    record["anything"] = json!(true);
    site.overwrite(BODY, record.to_string().as_bytes()).await;
    sleep(MINUTE).await;
    let answer = site.boot().await;
    assert_eq!(answer.persona, None);
    assert!(answer.says.contains("nothing is known of what s runs"), "{}", answer.says);
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_record_does_not_read_can_be_adopted() {
    let site = Small::converged().await;
    site.overwrite(BODY, b"[]").await;
    sleep(5 * MINUTE).await;
    assert!(site.why().await.contains("EvidenceUnreadable"), "{}", site.why().await);
    site.say_yes(Approving::Adopt).await;
    site.ready().await;
    let record = site.record().await;
    assert_eq!((&record["evidence"]["p"]["phase"], &record["found"]), (&json!("Started"), &json!("Managed")));
    assert!(site.is_on() && !site.events().await.iter().any(|e| e.contains("soft-off")), "it was not touched");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_read_stops_the_site_until_it_does() {
    let mut site = Small::converged().await;
    for restarts in [false, true] {
        let policy = site.store.get("objects/policies/default").await.unwrap().unwrap().value;
        site.overwrite("objects/policies/default", b"{").await;
        if restarts {
            site.restart();
        }
        let (vlan, next) = if restarts { (130, 120) } else { (120, 130) };
        site.apply(vec![network("web", next)]).await;
        sleep(10 * MINUTE).await;
        assert_eq!(site.vlan(), Some(vlan), "nobody knows what is desired");
        assert!(site.why().await.contains("policies/default does not read"), "{}", site.why().await);
        if restarts {
            // A person applies it again.
            let policy = Object::from_json(serde_json::from_slice(&policy).unwrap()).unwrap();
            let meta = Meta::named(policy.name().clone());
            site.apply(vec![Object { meta, ..policy }]).await;
        } else {
            site.overwrite("objects/policies/default", &policy).await;
        }
        sleep(5 * MINUTE).await;
        assert_eq!((site.vlan(), site.is_ready().await), (Some(next), true));
    }
    // Or deletes it, as the stop says.
    site.overwrite("objects/policies/default", b"{").await;
    sleep(MINUTE).await;
    assert!(site.why().await.contains("policies/default does not read"), "{}", site.why().await);
    assert!(site.remove(ObjectKind::Policy, "default").await.is_none(), "nobody can say what it was");
    site.apply(vec![network("web", 130)]).await;
    sleep(5 * MINUTE).await;
    assert_eq!((site.vlan(), site.is_ready().await), (Some(130), true));
}

#[tokio::test(start_paused = true)]
async fn while_the_site_is_stopped_a_machine_is_parked() {
    for emptied in [false, true] {
        let site = Small::converged().await;
        assert_eq!(site.boot().await.persona, Some(name("p")));
        if emptied {
            site.delete(&["objects/", "records/", "meta/"]).await;
        } else {
            site.overwrite("objects/policies/default", b"{").await;
        }
        sleep(MINUTE).await;
        let answer = site.boot().await;
        assert_eq!(answer.persona, None, "{}", answer.says);
        assert!(answer.says.contains(if emptied { "was emptied" } else { "policies/default does not read" }), "{}", answer.says);
    }
}

/// It is set without a record before it, so that nothing but the stop itself keeps it.
#[tokio::test(start_paused = true)]
async fn while_the_site_is_stopped_a_boot_device_is_left_as_it_is() {
    let site = Small::converged().await;
    let policy = site.store.get("objects/policies/default").await.unwrap().unwrap().value;
    site.overwrite("objects/policies/default", b"{").await;
    sleep(SECOND).await;
    site.centre.touch(&name("s"), |bmc, now| bmc.choose_disk(now));
    let boots = || site.centre.touch(&name("s"), |bmc, now| bmc.boot(now).device);
    sleep(10 * MINUTE).await;
    assert_eq!(boots(), Some(BootDevice::Disk));
    site.overwrite("objects/policies/default", &policy).await;
    sleep(5 * MINUTE).await;
    assert_eq!(boots(), Some(BootDevice::Pxe), "it is set once all reads");
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_does_not_read_is_one_of_everything() {
    let mut site = Small::converged().await;
    site.overwrite("records/2/pauses/servers.other", b"?").await;
    site.restart();
    site.apply(vec![network("web", 130)]).await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.vlan(), Some(120));
    assert!(site.why().await.contains("Paused"), "{}", site.why().await);
    site.words.resume(embody::testing::control::operator::Scope::Everything, "me").await.unwrap();
    site.ready().await;
    sleep(MINUTE).await;
    assert_eq!(site.vlan(), Some(130));
    assert_eq!(site.entries("records/2/pauses/").await, []);
}

/// A clock that is hours ahead when the controller starts must not end it, and whoever paused has not looked yet.
#[tokio::test(start_paused = true)]
async fn a_pause_whose_end_came_while_no_controller_ran_stays_until_resumed() {
    let mut site = Small::converged().await;
    let binding = Scope::Object { kind: ObjectKind::Binding, name: name("b") };
    site.words.pause(binding.clone(), "my hands are in it", Some(600), "me").await.unwrap();
    site.apply(vec![network("web", 130)]).await;
    sleep(9 * MINUTE).await;
    assert_eq!(site.vlan(), Some(120));
    sleep(3 * MINUTE).await;
    assert_eq!((site.vlan(), site.entries("records/2/pauses/").await.len()), (Some(130), 0), "it ends while one runs");

    site.stop();
    let old = json!({ "scope": { "object": { "kind": "Binding", "name": "b" } }, "reason": "r", "by": "me",
        "since": "2020-01-01T00:00:00Z", "until": "2020-01-01T08:00:00Z" });
    site.overwrite("records/2/pauses/bindings.b", old.to_string().as_bytes()).await;
    site.restart();
    site.apply(vec![network("web", 120)]).await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.vlan(), Some(130));
    assert!(site.why().await.contains("it stays, until `embody resume binding/b`"), "{}", site.why().await);
    site.words.resume(binding, "me").await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(site.vlan(), Some(120), "{}", site.why().await);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_does_not_read_is_nobodys_until_it_is_accepted() {
    let mut site = Small::converged().await;
    site.overwrite("records/2/pins/switches/tor-1", b"[]").await;
    site.restart();
    site.apply(vec![network("web", 130)]).await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.vlan(), Some(120), "{}", site.why().await);
    site.words.accept(ObjectKind::Switch, &name("tor-1"), "me").await.unwrap();
    sleep(5 * MINUTE).await;
    assert_eq!(site.vlan(), Some(130), "{}", site.why().await);
}

#[tokio::test(start_paused = true)]
async fn what_is_recorded_of_a_machine_goes_only_where_that_machine_is_shown() {
    let site = Small::converged().await;
    site.add_server("other", [0x22; 16]).await;
    sleep(2 * MINUTE).await;
    // Another machine answers at s, and that of s nowhere.
    site.centre.swap_bmc(&name("s"), [0x33; 16]);
    sleep(2 * MINUTE).await;
    let no = site.words.accept(ObjectKind::Server, &name("s"), "me").await.unwrap_err().to_string();
    assert!(no.contains("may run p") && no.contains("which no server shows now"), "{no}");
    assert_ne!(site.record().await["evidence"]["p"], Value::Null);
    // It answers at other: its cables were exchanged.
    site.centre.swap_bmc(&name("other"), [0x11; 16]);
    sleep(2 * MINUTE).await;
    // What is recorded at other is of a third machine: it would be lost.
    let third = json!({ "onSent": true, "madeOn": { "guid": "44".repeat(16) } });
    site.overwrite("records/2/bodies/other", third.to_string().as_bytes()).await;
    sleep(SECOND).await;
    let no = site.words.accept(ObjectKind::Server, &name("s"), "me").await.unwrap_err().to_string();
    assert!(no.contains("records of a third one"), "{no}");
    site.overwrite("records/2/bodies/other", b"{}").await;
    sleep(SECOND).await;
    let said = site.words.accept(ObjectKind::Server, &name("s"), "me").await.unwrap();
    assert!(said.contains("is at other now"), "{said}");
    let entry = site.store.get("records/2/bodies/other").await.unwrap().unwrap();
    let other: Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!((site.record().await["evidence"]["p"].clone(), &other["found"]), (Value::Null, &json!("Running")));
    assert_ne!(other["evidence"]["p"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn records_of_the_first_version_are_taken_over() {
    let mut site = Small::converged().await;
    site.stop();
    let binding = site.store.get("objects/bindings/b").await.unwrap().unwrap().value;
    let uid = serde_json::from_slice::<Value>(&binding).unwrap()["metadata"]["uid"].clone();
    site.delete(&["records/"]).await;
    let old = json!({ "heldBy": { "binding": "b", "uid": uid }, "found": "Managed", "mayRun": { "p": "Started" } });
    site.overwrite("bodies/s", old.to_string().as_bytes()).await;
    site.overwrite("pins/servers/s", format!("\"{}\"", "11".repeat(16)).as_bytes()).await;
    let pause =
        json!({ "scope": { "object": { "kind": "Server", "name": "other" } }, "reason": "r", "by": "me", "since": "2026-01-01T00:00:00Z" });
    site.overwrite("pauses/servers.other", pause.to_string().as_bytes()).await;
    // It did not count its records.
    site.overwrite("meta/seq", b"1000").await;
    site.restart();
    site.ready().await;
    sleep(10 * MINUTE).await;
    assert!(site.is_on() && site.is_ready().await);
    assert!(!site.events().await.iter().any(|e| e.contains("soft-off")), "it was not touched");
    let record = site.record().await;
    assert_eq!((&record["evidence"]["p"]["phase"], &record["heldBy"]["uid"]), (&json!("Started"), &uid));
    assert_eq!(site.entries("bodies/").await.len() + site.entries("pins/").await.len() + site.entries("pauses/").await.len(), 0);
    assert_eq!(site.entries("records/2/pauses/").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_credentials_worked_is_remembered_of_this_version_of_the_secret() {
    let site = Small::converged().await;
    let logins = site.entries("records/2/logins/").await;
    let keys: Vec<&str> = logins.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["records/2/logins/servers/s", "records/2/logins/switches/tor-1"]);
    let text: String = logins.iter().map(|e| String::from_utf8(e.value.clone()).unwrap()).collect();
    assert!(text.contains("192.0.2.9") && !text.contains("admin") && !text.contains("private"), "{text}");
    sleep(30 * MINUTE).await;
    assert_eq!(site.entries("records/2/logins/").await, logins, "written once");
}

#[tokio::test(start_paused = true)]
async fn a_newer_versions_records_stop_this_one() {
    let mut site = Small::converged().await;
    site.stop();
    site.overwrite("records/3/bodies/s", b"{}").await;
    assert!(site.refuses_to_begin().await.contains("a newer version has written `records/3/bodies/s`"));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_was_left_half_way_is_ended_although_its_binding_is_gone_but_not_while_all_is_paused() {
    let mut site = Small::converged().await;
    site.words.pause(Scope::Everything, "a fire", None, "me").await.unwrap();
    site.stop();
    let port = |vlan: u16| json!({ "admin": "Up", "untagged": vlan, "tagged": [] });
    let mut body = site.record().await;
    body["ports"]["tor-1/port1"] = json!({ "begun": [port(120), port(130)], "by": "b" });
    site.overwrite(BODY, body.to_string().as_bytes()).await;
    site.delete(&["objects/bindings/b"]).await;
    let shut = |site: &Small| site.centre.switch(&name("tor-1"), |sim| sim.ports()["port1"].admin == Admin::Down).unwrap();
    site.centre.switch(&name("tor-1"), |sim| {
        let config = PortConfig { admin: Admin::Down, ..sim.ports()["port1"].clone() };
        sim.set_port("port1", &config);
    });
    site.restart();
    sleep(10 * MINUTE).await;
    assert!(shut(&site), "nothing leaves after a pause has answered");
    site.words.resume(Scope::Everything, "me").await.unwrap();
    sleep(10 * MINUTE).await;
    assert_eq!((shut(&site), site.vlan(), site.is_on()), (false, Some(130), true));
}

/// The switch is slow, so that something is on its way whenever the word comes: a VLAN that is made, and the port that is to have it.
#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_does_not_leave_after_a_pause_or_when_the_store_is_gone() {
    let everything = || Some(Scope::Everything);
    let binding = || Some(Scope::Object { kind: ObjectKind::Binding, name: name("b") });
    for (moment, scope) in (0..4).flat_map(|n| [(n * SECOND, everything()), (n * SECOND, binding()), (n * SECOND, None)]) {
        let site = Small::start(Kind::QBridge, json!({ "vlans": "Create" }), "enforce").await;
        site.ready().await;
        let slow = Weather { takes: (SECOND, SECOND), ..Weather::FAIR };
        site.centre.set_weather(&Device::Switch(name("tor-1")), slow);
        site.apply(vec![network("web", 140)]).await;
        sleep(moment).await;
        match scope.clone() {
            Some(scope) => drop(site.words.pause(scope, "a fire", None, "me").await.unwrap()),
            None => {
                site.delete(&["meta/"]).await;
                sleep(SECOND / 10).await;
            }
        }
        let sent = site.centre.state().judge.ops;
        sleep(MINUTE).await;
        assert_eq!(site.centre.state().judge.ops, sent, "{scope:?} {moment:?} after the change");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_reloads_what_is_desired_and_forgets_nothing_else() {
    let mut site = Small::converged().await;
    let watch = site.restart_deaf();
    sleep(2 * MINUTE).await;
    site.apply(vec![network("web", 130), network("lab", 7)]).await;
    sleep(5 * MINUTE).await;
    assert_eq!((site.vlan(), site.is_ready().await), (Some(120), true), "nobody told it");
    let events = site.events().await.len();
    watch.send_last(Err(StoreError::Compacted { asked: 1, oldest: 2 }));
    sleep(2 * MINUTE).await;
    assert_eq!((site.vlan(), site.is_ready().await), (Some(130), true));
    let after = site.events().await;
    assert!(!after[events..].iter().any(|e| e.contains("Answers") || e.contains("IPMI")), "{:?}", &after[events..]);
    // It watches on, and knows what is gone.
    site.apply(vec![network("web", 120)]).await;
    sleep(MINUTE).await;
    assert_eq!(site.vlan(), Some(120));
    let watch = site.restart_deaf();
    sleep(MINUTE).await;
    site.remove(ObjectKind::Binding, "b").await;
    sleep(MINUTE).await;
    watch.send_last(Err(StoreError::Compacted { asked: 1, oldest: 2 }));
    sleep(2 * MINUTE).await;
    assert_eq!(site.status(ObjectKind::Server, "s").await["boundTo"], Value::Null);
    assert!(site.is_on(), "deleting touches nothing");
}

/// Whoever writes an older store back writes old statuses with it: what is so is said again.
#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_else_wrote_is_said_anew() {
    let site = Small::converged().await;
    for (kind, key) in [
        (ObjectKind::Switch, "objects/switches/tor-1"),
        (ObjectKind::Server, "objects/servers/s"),
        (ObjectKind::Binding, "objects/bindings/b"),
    ] {
        let entry = site.store.get(key).await.unwrap().unwrap();
        let mut object: Value = serde_json::from_slice(&entry.value).unwrap();
        object["status"]["conditions"] = json!([{ "type": "Ready", "status": "False", "reason": "Old", "message": "as it was once" }]);
        site.overwrite(key, object.to_string().as_bytes()).await;
        sleep(MINUTE).await;
        let name = key.rsplit('/').next().unwrap();
        assert!(!site.status(kind, name).await.to_string().contains("as it was once"), "{key}");
    }
}
