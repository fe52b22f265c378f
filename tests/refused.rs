//! A switch that lets a port be shut and not be moved: it is tried once, the port is put back, and what was seen to be refused is said until a
//! person says that it may be otherwise. The whole controller, in virtual time.

mod small;

use std::time::Duration;

use embody::testing::control::operator::Control;
use embody::testing::drivers::switch::objects as o;
use embody::testing::model::Kind as ObjectKind;
use embody::testing::model::fact::Admin;
use embody::testing::sim::switch::{Kind, SimSwitch, Who};
use serde_json::{Value, json};
use small::{Small, name};
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_secs(60);

fn sim<T>(site: &Small, look: impl FnOnce(&mut SimSwitch) -> T) -> T {
    site.centre.switch(&name("tor-1"), look).unwrap()
}

/// How often the port was shut over SNMP.
fn flaps(site: &Small) -> usize {
    sim(site, |sim| {
        sim.log.iter().filter(|change| change.who == Who::Snmp && (change.from.admin, change.to.admin) == (Admin::Up, Admin::Down)).count()
    })
}

async fn condition(site: &Small, kind: &str) -> Value {
    let status = site.status(ObjectKind::Switch, "tor-1").await;
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_half_way_is_marked_once_and_left_alone_until_a_person_says_retry() {
    for object in [o::PVID, o::STATIC_EGRESS] {
        let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
        sim(&site, |sim| sim.faults.refuses = Some(object));
        sleep(180 * MINUTE).await;
        assert_eq!(flaps(&site), 1, "in three hours");
        assert_eq!(sim(&site, |sim| sim.ports()["port1"].admin), Admin::Up, "and it was put back");
        let status = site.status(ObjectKind::Switch, "tor-1").await;
        assert_eq!((&status["writable"]["admin"], &status["writable"]["access"]), (&json!(true), &json!(false)), "{status}");
        let writable = condition(&site, "Writable").await;
        assert_eq!((&writable["status"], &writable["reason"]), (&json!("False"), &json!("WriteRefused")), "{writable}");
        assert!(writable["message"].as_str().unwrap().contains("notWritable(17)"), "{writable}");
        let binding = site.status(ObjectKind::Binding, "b").await.to_string();
        assert!(binding.contains("embody retry switch tor-1") && binding.contains("notWritable(17)"), "{binding}");

        sim(&site, |sim| sim.faults.refuses = None);
        sleep(30 * MINUTE).await;
        assert_eq!(flaps(&site), 1);
        site.words.retry(ObjectKind::Switch, &name("tor-1"), "op").await.unwrap();
        site.ready().await;
        assert_eq!((flaps(&site), &condition(&site, "Writable").await["status"]), (2, &json!("True")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_does_not_tell_what_a_write_needs_is_not_written_and_says_so() {
    let site = Small::start(Kind::QBridge, json!({}), "observe").await;
    sim(&site, |sim| sim.faults.hides = Some(o::STATIC_EGRESS));
    sleep(3 * MINUTE).await;
    site.apply(vec![small::binding("enforce")]).await;
    sleep(3 * MINUTE).await;
    let why = "it does not tell what is needed to write it: dot1qVlanStaticTable is not told to its end: its agent answers genErr(5)";
    let writable = condition(&site, "Writable").await;
    assert_eq!((&writable["reason"], &writable["message"]), (&json!("NotTold"), &json!(why)), "{writable}");
    assert!(site.status(ObjectKind::Binding, "b").await.to_string().contains(why) && flaps(&site) == 0);
    sim(&site, |sim| sim.faults.hides = None);
    site.ready().await;
}

/// A table of neighbours that fails is no reason to write nothing, and is said.
#[tokio::test(start_paused = true)]
async fn without_tables_of_neighbours_writing_goes_on_and_the_switch_says_so() {
    let site = Small::start(Kind::QBridge, json!({}), "observe").await;
    sim(&site, |sim| {
        sim.tells_neighbours = false;
        sim.faults.hides = Some(&[1, 0, 8802]);
    });
    site.apply(vec![small::binding("enforce")]).await;
    site.ready().await;
    sleep(2 * MINUTE).await;
    let told = condition(&site, "NeighboursTold").await;
    assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("NeighboursNotTold")), "{told}");
    let notes = site.status(ObjectKind::Switch, "tor-1").await["notes"].to_string();
    assert!(notes.contains("lldpRemTable is not told to its end: its agent answers genErr(5)"), "{notes}");
}
