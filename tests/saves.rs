//! A switch that we changed is saved once it was quiet for a minute; one that we did not change is never saved. The whole controller, in
//! virtual time, on a simulated Cisco.

mod small;

use std::time::Duration;

use embody::testing::control::operator::{Control, Scope};
use embody::testing::model::fact::{Admin, PortConfig};
use embody::testing::model::{Kind as ObjectKind, Vlan};
use embody::testing::sim::switch::{Kind, SimSwitch};
use embody::testing::store::{Expect, Store};
use serde_json::{Value, json};
use small::{Small, binding, name, network, switch};
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_secs(60);

impl Small {
    fn sim<T>(&self, look: impl FnOnce(&mut SimSwitch) -> T) -> T {
        self.centre.switch(&name("tor-1"), look).unwrap()
    }

    /// Copies that were begun, and whether what runs is what is saved.
    fn copies(&self) -> (u32, bool) {
        self.sim(|sim| (sim.copies, sim.is_saved()))
    }

    async fn unsaved(&self) -> Value {
        self.status(ObjectKind::Switch, "tor-1").await["unsaved"].clone()
    }

    async fn said(&self, word: &str) -> usize {
        self.events().await.iter().filter(|e| e.starts_with(&format!("Switch/tor-1 {word} "))).count()
    }
}

/// A person at the console gives an unmanaged port another VLAN.
fn by_hand(sim: &mut SimSwitch) {
    let to = PortConfig { admin: Admin::Up, untagged: Some(Vlan::try_from(110).unwrap()), tagged: [].into() };
    sim.set_port("port12", &to).unwrap();
}

#[tokio::test(start_paused = true)]
async fn once_after_a_minute_of_quiet() {
    let others = [Kind::Comware, Kind::Foundry { dual_mode: true }];
    for (kind, tells) in [(Kind::Cisco, false), (Kind::Cisco, true)].into_iter().chain(others.map(|kind| (kind, false))) {
        let site = Small::start(kind, json!({}), "enforce").await;
        site.sim(|sim| sim.tells_unsaved = tells);
        site.ready().await;
        assert_eq!(site.copies(), (0, false), "written, and not yet quiet for a minute");
        assert_eq!(site.unsaved().await, json!(true));
        sleep(2 * MINUTE).await;
        assert_eq!((site.copies(), site.said("Saved").await), ((1, true), 1));
        assert_ne!(site.unsaved().await, json!(true));
        sleep(60 * MINUTE).await;
        assert_eq!((site.copies(), site.said("Saved").await), ((1, true), 1), "once");
        site.apply(vec![network("web", 130)]).await;
        site.ready().await;
        sleep(3 * MINUTE).await;
        assert_eq!(site.copies(), (2, true), "and again after the next change");
    }
}

#[tokio::test(start_paused = true)]
async fn no_write_without_a_change_of_ours() {
    let mut site = Small::start(Kind::Cisco, json!({}), "observe").await;
    site.sim(|sim| {
        sim.tells_unsaved = true;
        by_hand(sim);
    });
    sleep(30 * MINUTE).await;
    assert_eq!((site.copies(), site.unsaved().await), ((0, false), json!(true)), "shown, and left to whom it belongs");

    site.apply(vec![binding("enforce")]).await;
    site.ready().await;
    site.restart();
    sleep(30 * MINUTE).await;
    assert_eq!(site.copies(), (0, false), "a controller that starts anew does not know whose the changes are");
    assert_eq!(site.unsaved().await, json!(true));
    site.apply(vec![network("web", 130)]).await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.copies(), (1, true), "after a change of ours all is saved");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_saved_is_not_saved_again() {
    let site = Small::start(Kind::Cisco, json!({}), "enforce").await;
    site.sim(|sim| sim.tells_unsaved = true);
    site.ready().await;
    site.sim(SimSwitch::save);
    sleep(10 * MINUTE).await;
    assert_eq!(site.copies(), (0, true));
}

#[tokio::test(start_paused = true)]
async fn never_where_it_says_never_or_is_paused_or_cannot() {
    let site = Small::start(Kind::Cisco, json!({ "save": "Never" }), "enforce").await;
    site.ready().await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.copies(), (0, false));

    let site = Small::start(Kind::Cisco, json!({}), "enforce").await;
    site.ready().await;
    let scope = || Scope::Object { kind: ObjectKind::Switch, name: name("tor-1") };
    site.words.pause(scope(), "looking at it", None, "op").await.unwrap();
    sleep(30 * MINUTE).await;
    assert_eq!(site.copies(), (0, false), "nothing is written while it is paused");
    site.words.resume(scope(), "op").await.unwrap();
    sleep(2 * MINUTE).await;
    assert_eq!(site.copies(), (1, true));

    // A Q-BRIDGE switch of which no object is known that saves it.
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    sleep(10 * MINUTE).await;
    assert!(!site.copies().1);
    assert_ne!(site.unsaved().await, json!(true), "what cannot be saved is not still to be released");
}

#[tokio::test(start_paused = true)]
async fn never_while_what_is_desired_does_not_read() {
    let site = Small::start(Kind::Cisco, json!({}), "enforce").await;
    site.ready().await;
    let policy = "objects/policies/default";
    let good = site.store.get(policy).await.unwrap().unwrap();
    let bad = site.store.put_if(policy, b"{".to_vec(), Expect::At(good.revision)).await.unwrap();
    sleep(30 * MINUTE).await;
    assert_eq!(site.copies(), (0, false));
    site.store.put_if(policy, good.value, Expect::At(bad)).await.unwrap();
    sleep(3 * MINUTE).await;
    assert_eq!(site.copies(), (1, true), "once it does");
}

#[tokio::test(start_paused = true)]
async fn a_save_that_fails_is_tried_again_ever_more_seldom() {
    let site = Small::start(Kind::Cisco, json!({}), "enforce").await;
    site.sim(|sim| sim.faults.copy_fails = true);
    site.ready().await;
    sleep(20 * MINUTE).await;
    let (copies, saved) = site.copies();
    assert!((3..=5).contains(&copies) && !saved, "{copies} in twenty minutes");
    assert_eq!(site.said("SaveFailed").await, 1, "told once");
    let conditions = site.status(ObjectKind::Switch, "tor-1").await["conditions"].clone();
    assert!(conditions.as_array().unwrap().iter().any(|c| c["type"] == "Saved" && c["status"] == "False"), "{conditions}");
    site.sim(|sim| sim.faults.copy_fails = false);
    sleep(60 * MINUTE).await;
    assert_eq!((site.copies(), site.said("Saved").await), ((copies + 1, true), 1));
    let conditions = site.status(ObjectKind::Switch, "tor-1").await["conditions"].clone();
    assert!(!conditions.as_array().unwrap().iter().any(|c| c["type"] == "Saved"), "{conditions}");
}

#[tokio::test(start_paused = true)]
async fn a_new_lane_owes_the_save_of_the_old_one() {
    let site = Small::start(Kind::Cisco, json!({}), "enforce").await;
    site.ready().await;
    site.apply(vec![switch(&json!({ "protectedVlans": [1] }))]).await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.copies(), (1, true));
}
