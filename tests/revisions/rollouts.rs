//! Rollouts: persona p runs on three servers, and its revision is another one.

use std::collections::BTreeMap;
use std::time::Duration;

use embody::testing::control::operator::{Approving, Control};
use embody::testing::model::fact::{Power, Tick};
use embody::testing::model::{Kind as ObjectKind, Object};
use embody::testing::sim::bmc::BmcFault;
use embody::testing::sim::booting::BootFault;
use embody::testing::sim::switch::Kind;
use embody::testing::store::Store;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::small::{Small, name};

const MINUTE: Duration = Duration::from_secs(60);
const SERVERS: [&str; 3] = ["s", "t", "u"];

fn object(kind: &str, name: &str, spec: Value) -> Object {
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })).unwrap()
}

/// Says hello once it is up.
fn persona(image: &str, rollout: &Value) -> Object {
    let nic = json!({ "name": "front", "untagged": "web", "boot": true });
    let mut spec = json!({ "os": { "family": "linux" }, "root": { "image": { "name": image } }, "nics": [nic], "agent": "required" });
    if !rollout.is_null() {
        spec["rollout"] = rollout.clone();
    }
    object("Persona", "p", spec)
}

/// On s, t and u, in the order of their names.
fn bindings(more: &Value) -> Vec<Object> {
    let bound = |(n, server): (usize, &&str)| {
        let mut spec = json!({ "persona": "p", "target": { "server": server }, "correct": "enforce", "shutdown": { "grace": "30s" } });
        more.as_object().into_iter().flatten().for_each(|(key, value)| spec[key] = value.clone());
        object("Binding", ["b", "c", "d"][n], spec)
    };
    SERVERS.iter().enumerate().map(bound).collect()
}

impl Small {
    /// Three bodies run web:1; web:2 is here.
    async fn rolls(rollout: &Value) -> Small {
        let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
        site.add_machine("t", 2).await;
        site.add_machine("u", 3).await;
        let limits = json!({ "maxUnavailable": "100%" });
        site.apply(vec![object("Policy", "default", json!({ "limits": limits })), persona("web:1", rollout)]).await;
        site.apply(bindings(&Value::Null)).await;
        // Until somebody acts.
        sleep(Duration::from_secs(5)).await;
        for (version, digit) in [("web:1", 'a'), ("web:2", 'b')] {
            site.import(version, digit).await.unwrap();
            site.image_is(digit, None).await;
        }
        site.until(15 * MINUTE, async |site| site.runs('a').await == 3 && site.rollout().await.1 == "3/3").await;
        site
    }

    fn off(&self) -> usize {
        SERVERS.iter().filter(|server| self.centre.power(&name(server)) != Some(Power::On)).count()
    }

    /// Until that is so; how many were off at one time at most.
    async fn until(&self, within: Duration, is: impl AsyncFn(&Small) -> bool) -> usize {
        let (end, mut most) = (Instant::now() + within, 0);
        while !is(self).await {
            most = most.max(self.off());
            if Instant::now() > end {
                panic!("it does not become so: {}\n{:#?}", self.told("b").await, self.events().await);
            }
            sleep(Duration::from_secs(1)).await;
        }
        most
    }

    /// How many were off at one time at most.
    async fn during(&self, takes: Duration) -> usize {
        let end = Instant::now() + takes;
        self.until(takes * 2, async |_| Instant::now() >= end).await
    }

    /// How many bodies have that content.
    async fn runs(&self, digit: char) -> usize {
        let rows = self.words.images().await.unwrap_or_default();
        rows.iter().find(|row| row.image.digest.starts_with(digit)).map_or(0, |row| row.servers.len())
    }

    /// All have that content, and are up.
    async fn is_done(&self, digit: char) -> bool {
        let all = || "3/3".to_owned();
        self.off() == 0 && self.runs(digit).await == 3 && self.rollout().await == (all(), all(), "complete".to_owned())
    }

    async fn told(&self, binding: &str) -> String {
        self.words.why(ObjectKind::Binding, &name(binding)).await.unwrap()
    }

    /// Updated, ready, and how far the rollout is.
    async fn rollout(&self) -> (String, String, String) {
        let status = self.status(ObjectKind::Persona, "p").await;
        let of = |key: &str| format!("{}/{}", status[key], status["running"]);
        let is = if status["ready"] == status["running"] { "True" } else { "False" };
        assert_eq!((&status["conditions"][0]["type"], &status["conditions"][0]["status"]), (&json!("Ready"), &json!(is)), "{status}");
        (of("updated"), of("ready"), status["rollout"].as_str().unwrap_or("-").to_owned())
    }

    /// Whom a switching-off was sent to, in this order.
    async fn offs(&self) -> Vec<String> {
        let events = self.events().await;
        let sent = events.iter().filter(|event| event.contains(" Sent ") && event.contains("soft"));
        sent.map(|event| event.split([' ', '/']).nth(1).unwrap().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn three_bodies_are_rolled_one_at_a_time_forward_and_back_and_then_all_is_silent() {
    let site = Small::rolls(&json!({})).await;
    assert_eq!(site.rollout().await, ("3/3".to_owned(), "3/3".to_owned(), "complete".to_owned()));
    site.apply(vec![persona("web:2", &json!({}))]).await;
    let most = site.until(30 * MINUTE, async |site| site.is_done('b').await).await;
    assert_eq!((most, site.offs().await), (1, vec!["b".to_owned(), "c".to_owned(), "d".to_owned()]));
    // Where one is down it is not complete.
    site.centre.touch(&name("t"), |bmc, now| bmc.press_button(now));
    site.until(5 * MINUTE, async |site| site.rollout().await.2 == "3 of 3").await;
    site.until(15 * MINUTE, async |site| site.is_done('b').await).await;
    site.apply(vec![persona("web:1", &json!({}))]).await;
    let most = site.until(30 * MINUTE, async |site| site.is_done('a').await).await;
    assert_eq!((most, site.offs().await.len()), (1, 6));
    sleep(5 * MINUTE).await;
    let before = site.store.list("").await.unwrap().1;
    sleep(60 * MINUTE).await;
    assert_eq!(site.store.list("").await.unwrap().1, before, "nothing is stored any more");
    assert!(site.told("b").await.contains("Everything is as desired"), "{}", site.told("b").await);
}

/// As ever.
#[tokio::test(start_paused = true)]
async fn without_a_rollout_nothing_is_restarted() {
    let site = Small::rolls(&Value::Null).await;
    site.apply(vec![persona("web:2", &Value::Null)]).await;
    assert_eq!((site.during(30 * MINUTE).await, site.offs().await.len()), (0, 0));
    assert!(site.told("b").await.contains("raise `restart` to take it over"));
    assert_eq!(site.rollout().await, ("0/3".to_owned(), "3/3".to_owned(), "-".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn as_many_as_the_persona_says_are_down_at_one_time() {
    for (most, expected) in [(json!(2), 2), (json!("34%"), 2), (json!("1%"), 1)] {
        let rollout = json!({ "maxUnavailable": most });
        let site = Small::rolls(&rollout).await;
        site.apply(vec![persona("web:2", &rollout)]).await;
        let most = site.until(30 * MINUTE, async |site| site.is_done('b').await).await;
        assert_eq!(most, expected, "{rollout}");
    }
}

/// Its BMC is dead: nobody knows whether it is up.
#[tokio::test(start_paused = true)]
async fn what_is_down_or_unknown_for_reasons_of_its_own_counts() {
    let mut site = Small::rolls(&json!({})).await;
    site.centre.touch(&name("u"), |bmc, now| bmc.inject(BmcFault::Unplugged { until: Tick(u64::MAX) }, now));
    sleep(5 * MINUTE).await;
    site.apply(vec![persona("web:2", &json!({}))]).await;
    assert_eq!((site.during(60 * MINUTE).await, site.offs().await.len()), (0, 0));
    let why = site.told("b").await;
    assert!(why.contains("[RolloutWaits") && why.contains("1 of 3 may be unavailable"), "{why}");
    let why = site.words.why(ObjectKind::Persona, &name("p")).await.unwrap();
    assert!(why.contains("d is not up, or not known to be (`embody why d`)"), "{why}");
    // Nor before it was asked for the first time.
    site.restart();
    assert_eq!((site.during(10 * MINUTE).await, site.offs().await.len()), (0, 0));
    site.centre.touch(&name("u"), |bmc, now| bmc.heal(now));
    let most = site.until(60 * MINUTE, async |site| site.is_done('b').await).await;
    assert_eq!(most, 1);
}

#[tokio::test(start_paused = true)]
async fn at_the_first_that_does_not_come_up_it_halts_and_going_back_begins_with_that() {
    let rollout = json!({ "maxUnavailable": 2 });
    for most in [json!({}), rollout] {
        let site = Small::rolls(&json!({})).await;
        site.apply(vec![persona("web:1", &most)]).await;
        for server in SERVERS {
            site.centre.boot_fault(&name(server), BootFault::HelloLost(u32::MAX));
        }
        site.apply(vec![persona("web:2", &most)]).await;
        site.until(60 * MINUTE, async |site| site.rollout().await.2 == "halted: b").await;
        let begun = site.offs().await.len();
        assert_eq!(begun, if most == json!({}) { 1 } else { 2 });
        site.during(120 * MINUTE).await;
        assert_eq!((site.offs().await.len(), site.rollout().await.2), (begun, "halted: b".to_owned()));
        let why = site.told("d").await;
        assert!(why.contains("[RolloutHalted") && why.contains("halted: b was started with the new revision"), "{why}");
        // What goes off meanwhile comes up as it was.
        site.centre.touch(&name("u"), |bmc, now| bmc.press_button(now));
        site.during(10 * MINUTE).await;
        assert_eq!((site.off(), site.runs('b').await), (0, begun));
        for server in SERVERS {
            site.centre.heal_boot(&name(server));
        }
        site.apply(vec![persona("web:1", &most)]).await;
        site.until(60 * MINUTE, async |site| site.is_done('a').await).await;
        assert_eq!(site.offs().await[begun], "b", "the one that failed, first");
        assert_eq!(site.offs().await.len(), 2 * begun, "and what had not gone forward does not go back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_body_that_comes_up_after_all_lets_it_go_on() {
    let site = Small::rolls(&json!({})).await;
    site.centre.boot_fault(&name("s"), BootFault::HelloLost(u32::MAX));
    site.apply(vec![persona("web:2", &json!({}))]).await;
    site.until(60 * MINUTE, async |site| site.rollout().await.2 == "halted: b").await;
    site.centre.heal_boot(&name("s"));
    let most = site.until(60 * MINUTE, async |site| site.is_done('b').await).await;
    assert_eq!(most, 1);
}

#[tokio::test(start_paused = true)]
async fn after_as_many_as_it_says_it_waits_for_the_manifest() {
    let canary = |n: u32| json!({ "maxUnavailable": 2, "pauseAfter": n });
    let site = Small::rolls(&canary(1)).await;
    site.apply(vec![persona("web:2", &canary(1))]).await;
    let most = site.until(60 * MINUTE, async |site| site.rollout().await.2 == "paused after 1").await;
    assert_eq!((most, site.during(120 * MINUTE).await, site.offs().await), (1, 0, vec!["b".to_owned()]));
    let why = site.told("c").await;
    assert!(why.contains("[RolloutPaused") && why.contains("raise or remove `rollout.pauseAfter`"), "{why}");
    site.apply(vec![persona("web:2", &canary(2))]).await;
    site.until(60 * MINUTE, async |site| site.rollout().await.2 == "paused after 2").await;
    site.during(30 * MINUTE).await;
    assert_eq!(site.offs().await.len(), 2);
    // Going back is another change: whoever was the canary is to go, without it.
    site.apply(vec![persona("web:1", &json!({}))]).await;
    site.until(60 * MINUTE, async |site| site.is_done('a').await).await;
    assert_eq!(site.offs().await.len(), 4);
}

/// A canary that fails is no canary: it goes back whatever the manifest says of pauses.
#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_goes_back_although_it_is_paused() {
    let canary = json!({ "pauseAfter": 1 });
    let site = Small::rolls(&canary).await;
    site.centre.boot_fault(&name("s"), BootFault::HelloLost(u32::MAX));
    site.apply(vec![persona("web:2", &canary)]).await;
    site.until(60 * MINUTE, async |site| site.rollout().await.2 == "halted: b").await;
    site.apply(vec![persona("web:1", &canary)]).await;
    site.until(60 * MINUTE, async |site| site.off() == 1).await;
    site.centre.heal_boot(&name("s"));
    site.until(60 * MINUTE, async |site| site.is_done('a').await).await;
    assert_eq!(site.offs().await, ["b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn where_a_person_approves_it_asks_first_and_takes_whoever_was_approved() {
    let site = Small::rolls(&json!({})).await;
    site.apply(bindings(&json!({ "correct": "approve" }))).await;
    site.apply(vec![persona("web:2", &json!({}))]).await;
    assert_eq!((site.during(60 * MINUTE).await, site.offs().await.len()), (0, 0));
    for binding in ["b", "c", "d"] {
        let why = site.told(binding).await;
        assert!(why.contains(&format!("wait for `embody approve {binding}`")), "{why}");
    }
    for (n, binding) in ["d", "b", "c"].into_iter().enumerate() {
        let shown = site.words.show_approval(&name(binding), Approving::ThePlan).await.unwrap();
        site.words.approve(&name(binding), Approving::ThePlan, &shown.digest, "me").await.unwrap();
        assert_eq!(site.during(15 * MINUTE).await, 1);
        assert_eq!((site.offs().await.len(), site.offs().await[n].as_str()), (n + 1, binding));
    }
    assert_eq!(site.rollout().await.2, "complete");
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_begins_in_the_middle_takes_down_no_more() {
    for after in (0..150).step_by(14) {
        let mut site = Small::rolls(&json!({})).await;
        site.apply(vec![persona("web:2", &json!({}))]).await;
        let before = site.during(Duration::from_secs(after)).await;
        site.restart();
        let most = site.until(60 * MINUTE, async |site| site.is_done('b').await).await;
        assert!(before.max(most) == 1 && site.offs().await.len() <= 4, "{after} s: {before} {most} {:?}", site.offs().await);
    }
}

/// What failed before it began is not known to have failed, and nobody follows it.
#[tokio::test(start_paused = true)]
async fn a_controller_that_begins_while_one_fails_sends_no_other_one_after_it() {
    let rollout = json!({ "maxUnavailable": 2, "pauseAfter": 1 });
    let mut site = Small::rolls(&rollout).await;
    site.centre.boot_fault(&name("s"), BootFault::HelloLost(u32::MAX));
    site.apply(vec![persona("web:2", &rollout)]).await;
    site.until(60 * MINUTE, async |site| site.rollout().await.2 == "halted: b").await;
    site.restart();
    site.apply(vec![persona("web:2", &json!({ "maxUnavailable": 2 }))]).await;
    assert_eq!((site.during(120 * MINUTE).await, site.offs().await), (0, vec!["b".to_owned()]));
    assert_eq!(site.rollout().await.2, "halted: b");
}

#[tokio::test(start_paused = true)]
async fn towards_an_image_that_is_not_here_nothing_is_switched_off() {
    let site = Small::rolls(&json!({ "maxUnavailable": 3 })).await;
    site.apply(vec![persona("web:3", &json!({ "maxUnavailable": 3 }))]).await;
    assert_eq!((site.during(30 * MINUTE).await, site.offs().await.len()), (0, 0));
    assert!(site.told("b").await.contains("there is no image web:3"));
    site.import("web:3", 'c').await.unwrap();
    site.image_is('c', Some("7 of its files are not here")).await;
    assert_eq!((site.during(30 * MINUTE).await, site.offs().await.len()), (0, 0));
    site.image_is('c', None).await;
    site.until(60 * MINUTE, async |site| site.is_done('c').await).await;
}

/// A wrong byte in Git does not go through the fleet because it goes slowly.
#[tokio::test(start_paused = true)]
async fn all_that_it_would_restart_counts_as_one_change() {
    let site = Small::rolls(&json!({})).await;
    let limits = json!({ "maxUnavailable": "100%", "maxAffectedByChange": { "count": 2, "percent": 0 } });
    site.apply(vec![object("Policy", "default", json!({ "limits": limits }))]).await;
    sleep(MINUTE).await;
    site.apply(vec![persona("web:2", &json!({}))]).await;
    assert_eq!((site.during(60 * MINUTE).await, site.offs().await.len()), (0, 0));
    assert!(site.told("c").await.contains("[Held"), "{}", site.told("c").await);
    let why = site.words.why(ObjectKind::Persona, &name("p")).await.unwrap();
    assert!(why.contains("is stopped:") && why.contains("embody approve b") && why.contains("[Held"), "{why}");
    let waits = site.status(ObjectKind::Binding, "c").await["waits"].clone();
    assert!(waits.as_array().unwrap().iter().any(|wait| wait["reason"] == "Held"), "{waits}");
    let shown = site.words.show_approval(&name("c"), Approving::ThePlan).await.unwrap();
    site.words.approve(&name("c"), Approving::ThePlan, &shown.digest, "me").await.unwrap();
    site.during(30 * MINUTE).await;
    assert_eq!(site.offs().await, ["c"]);
    // One canary is one.
    let site = Small::rolls(&json!({})).await;
    let limits = json!({ "maxUnavailable": "100%", "maxAffectedByChange": { "count": 1, "percent": 0 } });
    site.apply(vec![object("Policy", "default", json!({ "limits": limits }))]).await;
    sleep(MINUTE).await;
    site.apply(vec![persona("web:2", &json!({ "pauseAfter": 1 }))]).await;
    site.until(30 * MINUTE, async |site| site.rollout().await.2 == "paused after 1").await;
    site.apply(vec![persona("web:2", &json!({}))]).await;
    assert_eq!((site.during(60 * MINUTE).await, site.offs().await.len()), (0, 1));
    assert!(site.told("c").await.contains("[Held"), "{}", site.told("c").await);
}

/// To give a rollout to bodies that are outdated already is a change, and no drift of what was as desired.
#[tokio::test(start_paused = true)]
async fn a_rollout_that_comes_after_the_revision_counts_as_a_change() {
    let site = Small::rolls(&Value::Null).await;
    let limits = json!({ "maxUnavailable": "100%", "maxAffectedByChange": { "count": 2, "percent": 0 } });
    site.apply(vec![object("Policy", "default", json!({ "limits": limits })), persona("web:2", &Value::Null)]).await;
    assert_eq!((site.during(10 * MINUTE).await, site.offs().await.len()), (0, 0));
    site.apply(vec![persona("web:2", &json!({}))]).await;
    assert_eq!((site.during(30 * MINUTE).await, site.offs().await.len()), (0, 0));
    assert!(site.told("b").await.contains("[Held"), "{}", site.told("b").await);
}

/// A forecast shows what each body goes through, and says how many of them do so at one time.
#[tokio::test(start_paused = true)]
async fn a_forecast_says_that_a_rollout_goes_in_turns() {
    let site = Small::rolls(&json!({})).await;
    let foreseen = site.words.forecast(vec![persona("web:2", &json!({ "maxUnavailable": 2, "pauseAfter": 1 }))]).await;
    let said = "the rollout of persona p restarts 3 in turns: 2 of 3 may be unavailable, and it pauses after 1";
    assert!(foreseen.power_offs == 3 && foreseen.waits.iter().any(|wait| wait == said), "{foreseen:?}");
}

/// Whatever it is that takes a body down: it counts before anything has left for it.
#[tokio::test(start_paused = true)]
async fn what_a_person_restarts_at_the_same_moment_counts() {
    let site = Small::rolls(&json!({})).await;
    let mut change = bindings(&json!({ "restart": 1 }))[2..].to_vec();
    change.push(persona("web:2", &json!({})));
    site.apply(change).await;
    let most = site.until(30 * MINUTE, async |site| site.is_done('b').await).await;
    assert_eq!((most, site.offs().await.len()), (1, 3));
}

/// A host name alone is no revision.
#[tokio::test(start_paused = true)]
async fn another_host_name_is_taken_over_by_a_restart_alone() {
    let site = Small::rolls(&json!({})).await;
    let named: BTreeMap<&str, &str> = [("hostname", "other")].into();
    site.apply(bindings(&json!(named))[..1].to_vec()).await;
    assert_eq!((site.during(30 * MINUTE).await, site.offs().await.len()), (0, 0));
    assert!(site.told("b").await.contains("raise `restart` to take it over"), "{}", site.told("b").await);
}
