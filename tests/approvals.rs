//! What an approval covers, until when, and how often: exactly what was shown, once. The whole controller in virtual time; what a list covers in
//! itself: `tests/plan/approvals.rs`.

mod small;

use std::time::Duration;

use embody::testing::control::operator::{Approving, Control, Scope};
use embody::testing::model::fact::Power;
use embody::testing::model::{Object, Spec};
use embody::testing::sim::bmc::SoftOff;
use embody::testing::sim::switch::Kind;
use embody::testing::store::{Expect, Store};
use serde_json::json;
use small::{Small, binding, name, network};
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn persona(cmdline: &str) -> Object {
    let root = json!({ "nfs": { "server": "10.0.20.5", "path": "/p", "mode": "overlay" } });
    let spec = json!({ "os": { "family": "linux" }, "root": root, "kernel": { "path": "boot/vmlinuz", "cmdline": cmdline },
        "nics": [{ "name": "front", "untagged": "web", "boot": true }] });
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Persona", "metadata": { "name": "p" }, "spec": spec })).unwrap()
}

impl Small {
    /// Everything is known, and waits for a word.
    async fn asks() -> Small {
        let site = Small::start(Kind::QBridge, json!({}), "approve").await;
        sleep(2 * MINUTE).await;
        site.is_asked().await;
        site
    }

    async fn approve(&self) -> String {
        let shown = self.words.show_approval(&name("b"), Approving::ThePlan).await.unwrap();
        self.words.approve(&name("b"), Approving::ThePlan, &shown.digest, "me").await.unwrap()
    }

    async fn pause(&self) {
        self.words.pause(Scope::Everything, "wait a moment", None, "me").await.unwrap();
    }

    async fn resume(&self) {
        self.words.resume(Scope::Everything, "me").await.unwrap();
    }

    /// Off, and waiting for a person.
    async fn is_asked(&self) {
        assert_eq!(self.centre.power(&name("s")), Some(Power::Off));
        let why = self.words.why(embody::testing::model::Kind::Binding, &name("b")).await.unwrap();
        assert!(why.contains("`embody approve b`"), "{why}");
    }

    async fn until_sent(&self, op: &str) {
        for _ in 0..600 {
            if self.events().await.iter().any(|event| event.contains("Sent") && event.contains(op)) {
                return;
            }
            sleep(SECOND).await;
        }
        panic!("{op} is not sent: {:?}", self.events().await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_shown_is_what_is_started() {
    for change in [persona("autoinstall wipe=/dev/sda"), network("web", 130)] {
        let site = Small::asks().await;
        site.pause().await;
        site.approve().await;
        site.apply(vec![change]).await;
        site.resume().await;
        sleep(10 * MINUTE).await;
        site.is_asked().await;
        site.approve().await;
        site.ready().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_became_something_else_between_the_look_and_the_word_is_refused() {
    let site = Small::asks().await;
    let shown = site.words.show_approval(&name("b"), Approving::ThePlan).await.unwrap();
    site.apply(vec![network("web", 130)]).await;
    sleep(MINUTE).await;
    let refused = site.words.approve(&name("b"), Approving::ThePlan, &shown.digest, "me").await.unwrap_err();
    assert!(refused.to_string().contains("look at it again"), "{refused}");
    let hard = site.words.show_approval(&name("b"), Approving::Hard).await.unwrap();
    assert!(site.words.approve(&name("b"), Approving::ThePlan, &hard.digest, "me").await.is_err(), "another word was shown");
    sleep(10 * MINUTE).await;
    site.is_asked().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_approval_does_not_lift_is_said_with_the_word_that_does() {
    let mut site = Small::asks().await;
    site.pause().await;
    let said = site.approve().await;
    assert!(
        said.contains("does not lift what stops it now: everything is paused by me: wait a moment, until `embody resume --all`"),
        "{said}"
    );
    site.resume().await;
    site.ready().await;

    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    sleep(2 * MINUTE).await;
    site.is_asked().await;
    let breaker = json!({ "scope": "breaker", "reason": "drift; `embody resume breaker` lets it go on", "by": "embody", "since": "2026-01-01T00:00:00Z" });
    site.store.put_if("records/2/pauses/breaker", breaker.to_string().into_bytes(), Expect::Absent).await.unwrap();
    site.restart();
    sleep(2 * MINUTE).await;
    let said = site.approve().await;
    assert!(said.contains("does not lift what stops it now: drift; `embody resume breaker`"), "{said}");
    assert_eq!(site.centre.power(&name("s")), Some(Power::Off));
    site.words.close_breaker("me").await.unwrap();
    site.ready().await;

    // Of what is only observed nothing can be approved, and the way in which it would be done neither.
    let stopped = json!({ "persona": "p", "target": { "server": "s" }, "correct": "observe", "state": "Stopped" });
    let stopped = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": stopped });
    site.apply(vec![Object::from_json(stopped).unwrap()]).await;
    sleep(2 * MINUTE).await;
    for word in [Approving::Hard, Approving::ThePlan] {
        let refused = site.words.show_approval(&name("b"), word).await.unwrap_err().to_string();
        assert!(refused.contains("binding b only observes the power plane") && refused.contains("`correct: approve`"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_approval_is_used_once() {
    let mut site = Small::asks().await;
    site.approve().await;
    site.ready().await;
    let stored = site.store.list("records/2/approvals/").await.unwrap().0;
    assert!(stored.is_empty(), "what is done is not kept: {stored:?}");
    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    sleep(10 * MINUTE).await;
    site.is_asked().await;
    // What was done is stored: another process does it no more either.
    site.restart();
    sleep(10 * MINUTE).await;
    site.is_asked().await;
    site.approve().await;
    site.ready().await;
}

fn stopped(correct: &str, grace: &str) -> Object {
    let spec =
        json!({ "persona": "p", "target": { "server": "s" }, "correct": correct, "state": "Stopped", "shutdown": { "grace": grace } });
    object("Binding", "b", spec)
}

/// Its word is given once more while it goes off: that covers no other time that it is to go off.
#[tokio::test(start_paused = true)]
async fn an_approval_that_is_given_twice_is_used_once() {
    let site = Small::asks().await;
    site.approve().await;
    site.ready().await;
    site.apply(vec![stopped("approve", "1m")]).await;
    sleep(MINUTE).await;
    site.approve().await;
    while site.centre.power(&name("s")) == Some(Power::On) {
        sleep(SECOND).await;
    }
    sleep(SECOND).await;
    let again = site.words.show_approval(&name("b"), Approving::ThePlan).await;
    if let Ok(shown) = again {
        drop(site.words.approve(&name("b"), Approving::ThePlan, &shown.digest, "me").await);
    }
    site.ready().await;
    let sent = || async { site.events().await.iter().filter(|e| e.contains("Sent") && e.contains("off")).count() };
    let before = sent().await;
    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    sleep(10 * MINUTE).await;
    assert_eq!(site.centre.power(&name("s")), Some(Power::On));
    assert_eq!(sent().await, before, "{:?}", site.events().await);
}

/// Whoever stops it, and in whatever way: what was not counted meanwhile is still to come.
#[tokio::test(start_paused = true)]
async fn what_stops_a_hard_off_stops_the_grace() {
    for way in ["maintenance", "observe", "pause"] {
        let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
        site.ready().await;
        site.centre.touch(&name("s"), |bmc, _| bmc.config.soft_off = SoftOff::Ignored);
        site.apply(vec![stopped("enforce", "30s")]).await;
        site.until_sent("soft-off").await;
        sleep(5 * SECOND).await;
        let server = site.backend.read(embody::testing::model::Kind::Server, "s").await.unwrap();
        let as_it_was = object("Server", "s", server.to_json()["spec"].clone());
        let mut in_maintenance = as_it_was.to_json();
        in_maintenance["spec"]["maintenance"] = json!({ "reason": "flushing" });
        match way {
            "maintenance" => site.apply(vec![Object::from_json(in_maintenance).unwrap()]).await,
            "observe" => site.apply(vec![stopped("observe", "30s")]).await,
            _ => site.pause().await,
        }
        sleep(10 * MINUTE).await;
        match way {
            "maintenance" => site.apply(vec![as_it_was]).await,
            "observe" => site.apply(vec![stopped("enforce", "30s")]).await,
            _ => site.resume().await,
        }
        sleep(15 * SECOND).await;
        assert_eq!(site.centre.power(&name("s")), Some(Power::On), "{way}");
        sleep(MINUTE).await;
        assert_eq!(site.centre.power(&name("s")), Some(Power::Off), "{way}");
    }
}

/// The word for everything is no word for what somebody else has paused.
#[tokio::test(start_paused = true)]
async fn each_pause_ends_by_its_own_word() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    let b = Scope::Object { kind: embody::testing::model::Kind::Binding, name: name("b") };
    site.words.pause(b.clone(), "the database is flushing", None, "ann").await.unwrap();
    site.pause().await;
    site.apply(vec![stopped("enforce", "30s")]).await;
    let said = site.words.resume(Scope::Everything, "me").await.unwrap();
    assert!(said.contains("binding b is paused by ann: `embody resume binding/b`"), "{said}");
    sleep(10 * MINUTE).await;
    assert_eq!(site.centre.power(&name("s")), Some(Power::On));
    let said = site.words.resume(Scope::Everything, "me").await.unwrap();
    assert!(said.contains("everything is not paused; binding b is paused by ann"), "{said}");
    site.words.resume(b.clone(), "ann").await.unwrap();
    assert!(site.words.resume(b, "ann").await.unwrap_err().to_string().contains("binding b is not paused"));
    site.ready().await;
    assert_eq!(site.centre.power(&name("s")), Some(Power::Off));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_ends_in_the_middle_is_followed_by_one_that_goes_on() {
    for op in ["boot device", "power on", "port1"] {
        let mut site = Small::asks().await;
        site.approve().await;
        site.until_sent(op).await;
        site.stop();
        sleep(MINUTE).await;
        site.restart();
        site.ready().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_begun_within_an_hour_is_not_begun() {
    let site = Small::asks().await;
    site.pause().await;
    site.approve().await;
    sleep(61 * MINUTE).await;
    site.resume().await;
    sleep(10 * MINUTE).await;
    site.is_asked().await;
    site.approve().await;
    site.until_sent("boot device").await;
    site.pause().await;
    sleep(3 * 60 * MINUTE).await;
    site.resume().await;
    site.ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_is_approved_is_one_restart() {
    let site = Small::asks().await;
    site.approve().await;
    site.ready().await;
    let mut once_more = binding("approve");
    let embody::testing::model::Spec::Binding(spec) = &mut once_more.spec else { unreachable!() };
    spec.restart = 1;
    site.apply(vec![once_more]).await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.centre.power(&name("s")), Some(Power::On));
    let said = site.approve().await;
    let order: Vec<usize> = ["soft-off", "boot device", "power on"].iter().map(|op| said.find(op).unwrap_or(usize::MAX)).collect();
    assert!(order.is_sorted() && order[2] < said.len(), "{said}");
    sleep(5 * MINUTE).await;
    site.ready().await;
    assert_eq!(site.events().await.iter().filter(|e| e.contains("Sent") && e.contains("soft-off")).count(), 1);
}

/// An approval is for what was shown: what was edited meanwhile, and back, is another one.
#[tokio::test(start_paused = true)]
async fn what_is_edited_and_edited_back_is_shown_anew() {
    for (change, back) in [(network("web", 130), network("web", 120)), (persona("quiet"), persona("quiet splash"))] {
        let site = Small::asks().await;
        site.apply(vec![back.clone()]).await;
        sleep(MINUTE).await;
        site.pause().await;
        site.approve().await;
        for object in [change, back] {
            site.apply(vec![object]).await;
            sleep(MINUTE).await;
        }
        site.resume().await;
        sleep(10 * MINUTE).await;
        site.is_asked().await;
        site.approve().await;
        site.ready().await;
    }
}

/// Two pauses of one thing last as long as the longer, and everybody sees them.
#[tokio::test(start_paused = true)]
async fn a_second_pause_does_not_end_the_first() {
    let site = Small::asks().await;
    let scope = || Scope::Object { kind: embody::testing::model::Kind::Binding, name: name("b") };
    let pause = async |who: &str, seconds: Option<u64>| site.words.pause(scope(), "new cables", seconds, who).await;
    pause("ann", Some(7200)).await.unwrap();
    let said = pause("bob", Some(60)).await.unwrap();
    assert!(said.contains("already, by ann: new cables") && said.contains("`embody resume binding/b`"), "{said}");
    site.approve().await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.centre.power(&name("s")), Some(Power::Off));
    let why = site.words.why(embody::testing::model::Kind::Server, &name("s")).await.unwrap();
    assert!(why.contains("binding b is paused by ann"), "{why}");
    let said = pause("bob", None).await.unwrap();
    assert!(said.starts_with("paused until resumed") && said.contains("in place of the pause until 2"), "{said}");
    let rows = site.words.pauses().await;
    assert_eq!((rows.len(), rows[0].by.as_str(), rows[0].what.as_str(), &rows[0].until), (1, "bob", "binding b", &None));
    assert!(pause("cid", Some(60)).await.unwrap().contains("until it is resumed already, by bob"));
    for (scope, seconds) in
        [(scope(), Some(0)), (Scope::Object { kind: embody::testing::model::Kind::Network, name: name("web") }, Some(60))]
    {
        assert!(site.words.pause(scope, "x", seconds, "dan").await.is_err(), "it would stop nothing");
    }
    let nothing = Scope::Labels { match_labels: [("rack".to_owned(), "r9".to_owned())].into() };
    assert!(site.words.pause(nothing, "x", None, "dan").await.unwrap().contains("no server has these labels"));
    site.words.resume(scope(), "bob").await.unwrap();
    site.ready().await;
    // What is in order meets no stop, and is stopped all the same.
    pause("ann", None).await.unwrap();
    let why = site.words.why(embody::testing::model::Kind::Binding, &name("b")).await.unwrap();
    assert!(why.contains("binding b is paused by ann"), "{why}");
}

/// Two servers that run, of which one may be disrupted unasked; and a change of both.
async fn held() -> Small {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.add_server("other", [0x22; 16]).await;
    let on = json!({ "os": { "family": "linux" }, "root": { "nfs": { "server": "10.0.20.5", "path": "/q", "mode": "overlay" } },
        "kernel": { "path": "boot/vmlinuz" } });
    let limits = json!({ "maxAffectedByChange": { "count": 1, "percent": 0 }, "maxUnavailable": "100%" });
    site.apply(vec![object("Policy", "default", json!({ "limits": limits })), object("Persona", "q", on), bind("c", "q", "other", 0)])
        .await;
    sleep(5 * MINUTE).await;
    assert_eq!(power(&site), [Some(Power::On), Some(Power::On)]);
    site
}

fn power(site: &Small) -> [Option<Power>; 2] {
    ["s", "other"].map(|server| site.centre.power(&name(server)))
}

fn object(kind: &str, name: &str, spec: serde_json::Value) -> Object {
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })).unwrap()
}

fn bind(name: &str, persona: &str, server: &str, restart: u32) -> Object {
    object("Binding", name, json!({ "persona": persona, "target": { "server": server }, "correct": "enforce", "restart": restart }))
}

/// The guardrails judge all that is planned in a turn before any of it is sent.
#[tokio::test(start_paused = true)]
async fn what_disrupts_more_than_is_let_go_is_held_in_the_turn_that_plans_it() {
    let site = held().await;
    let change = vec![bind("b", "p", "s", 1), bind("c", "q", "other", 1)];
    let foreseen = site.words.forecast(change.clone()).await;
    assert!(foreseen.held == 2 && foreseen.waits.iter().any(|w| w.contains("it is held until")), "{foreseen:?}");
    let before = site.events().await.len();
    site.apply(change).await;
    sleep(5 * MINUTE).await;
    let events = site.events().await;
    assert!(!events[before..].iter().any(|event| event.contains("Sent")), "{:?}", &events[before..]);
    let why = site.words.why(embody::testing::model::Kind::Binding, &name("b")).await.unwrap();
    assert!(why.contains("limits.maxAffectedByChange"), "{why}");
    site.approve().await;
    sleep(5 * MINUTE).await;
    let events = site.events().await;
    let offs: Vec<&String> = events[before..].iter().filter(|event| event.contains("soft-off")).collect();
    assert!(!offs.is_empty() && offs.iter().all(|event| event.starts_with("Binding/b ")), "{offs:?}");
    assert_eq!(power(&site), [Some(Power::On), Some(Power::On)]);
}

/// One that is held and goes off is not started as nobody was asked about: not by this controller, not by the next one, and not by another edit.
#[tokio::test(start_paused = true)]
async fn what_is_held_and_goes_off_stays_off() {
    let mut site = held().await;
    site.apply(vec![network("web", 130), bind("b", "p", "s", 1), bind("c", "q", "other", 1)]).await;
    sleep(5 * MINUTE).await;
    let before = site.events().await.len();
    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    sleep(5 * MINUTE).await;
    site.restart();
    sleep(5 * MINUTE).await;
    site.apply(vec![network("web", 110)]).await;
    sleep(5 * MINUTE).await;
    let events = site.events().await;
    assert!(!events[before..].iter().any(|event| event.contains("Sent")), "{:?}", &events[before..]);
    site.is_asked().await;
    let said = site.approve().await;
    assert!(said.contains("→ 110") && said.contains("power on"), "{said}");
    site.ready().await;
    assert_eq!(power(&site), [Some(Power::On), Some(Power::On)]);
}

/// A machine that begins anew while its restart waits for a limit starts what it ran.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_limit_keeps_its_boot_answer() {
    let site = held().await;
    site.apply(vec![object("Policy", "default", json!({ "limits": { "maxUnavailable": 1 } }))]).await;
    sleep(MINUTE).await;
    // And it is to run another content than it was started with.
    let named = |mut binding: Object, host: &str| {
        if let Spec::Binding(spec) = &mut binding.spec {
            spec.hostname = Some(host.to_owned());
        }
        binding
    };
    site.apply(vec![named(bind("b", "p", "s", 1), "one"), named(bind("c", "q", "other", 1), "two")]).await;
    let mut waited = false;
    for _ in 0..300 {
        sleep(Duration::from_secs(1)).await;
        for (server, persona) in [("s", "p"), ("other", "q")] {
            let entry = site.store.get(&format!("records/2/bodies/{server}")).await.unwrap().unwrap();
            let body: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
            let withdrawn = body["evidence"][persona]["withdrawn"] == true;
            let is_told = body.get("off").is_some() || site.centre.power(&name(server)) == Some(Power::Off);
            assert!(!withdrawn || is_told, "{server}: {body}");
        }
        for binding in ["b", "c"] {
            let why = site.words.why(embody::testing::model::Kind::Binding, &name(binding)).await.unwrap();
            waited |= why.contains("[Limit");
            assert!(!(why.contains("[Limit") && why.contains("withdrawn")), "{why}");
        }
    }
    assert!(waited && power(&site) == [Some(Power::On), Some(Power::On)], "{:#?}", site.events().await);
}
