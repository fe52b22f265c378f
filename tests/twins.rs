//! What a switch and its ports are is known before they are written. One switch under two Switch objects: neither is written until a person says
//! which is which; a port of which it is not known what is plugged in by now is not either. The whole controller in virtual time. Twins of BMCs:
//! `tests/rack/faults.rs`; what makes a twin: `control::twins`.

mod small;

use std::time::Duration;

use embody::testing::control::operator::Control;
use embody::testing::model::fact::Power;
use embody::testing::model::{Kind as ObjectKind, Object};
use embody::testing::sim::bmc::BmcConfig;
use embody::testing::sim::line::Line;
use embody::testing::sim::switch::Kind;
use embody::testing::store::Store;
use serde_json::json;
use small::{Small, name, network};
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_secs(60);

impl Small {
    /// Server s on tor-1 is converged; server other is to be on tor-2, which is said to show `serial`.
    async fn with_a_second_switch(serial: &str) -> Small {
        let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
        site.ready().await;
        site.add_switch("tor-2", serial).await;
        site.add_server("other", [0x22; 16]).await;
        site.wire("other", json!({ "switch": "tor-2", "port": "port2" })).await;
        site.bind("other").await;
        sleep(5 * MINUTE).await;
        site
    }

    async fn stop_other(&self) {
        let bound = json!({ "persona": "p", "target": { "server": "other" }, "correct": "enforce", "state": "Stopped" });
        self.apply(vec![object("Binding", "on-other", bound)]).await;
    }

    fn vlan_of(&self, switch: &str, port: &str) -> Option<u16> {
        self.centre.switch(&name(switch), |sim| sim.ports().get(port).and_then(|c| c.untagged).map(|v| v.id())).flatten()
    }

    fn vlans(&self) -> (Option<u16>, Option<u16>) {
        (self.vlan_of("tor-1", "port1"), self.vlan_of("tor-2", "port2"))
    }

    async fn is_held_back(&self, switch: &str, other: &str) {
        let (status, why) = (self.status(ObjectKind::Switch, switch).await.to_string(), self.why_switch(switch).await);
        for said in [status, why] {
            for word in [other, "serial SIM-tor-1", "delete one of the two", &format!("`embody accept switch {switch}`")] {
                assert!(said.contains(word), "no {word} in {said}");
            }
        }
    }

    async fn why_switch(&self, switch: &str) -> String {
        self.words.why(ObjectKind::Switch, &name(switch)).await.unwrap()
    }
}

fn object(kind: &str, name: &str, spec: serde_json::Value) -> Object {
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })).unwrap()
}

/// A server whose BMC has no GUID.
fn unmarked(server: &str, address: &str, nic: &str) -> Object {
    let nic = json!({ "name": "nic1", "mac": nic, "boot": true });
    object("Server", server, json!({ "bmc": { "address": address, "secretRef": { "name": "bmc" } }, "nics": [nic] }))
}

/// What a name meant when the machine was first seen is remembered: another machine at the same name is another machine.
#[tokio::test(start_paused = true)]
async fn a_bmc_without_a_guid_is_the_machine_at_an_address_whatever_its_name_means_now() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.centre.names("bmc1.rack", "192.0.2.10");
    site.add_server("other", [0; 16]).await;
    site.apply(vec![unmarked("other", "bmc1.rack", "02:00:00:00:00:02")]).await;
    site.bind("other").await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.centre.power(&name("other")), Some(Power::On));
    site.centre.names("bmc1.rack", "192.0.2.66");
    sleep(15 * MINUTE).await;
    let why = site.words.why(ObjectKind::Server, &name("other")).await.unwrap();
    assert!(why.contains("address 192.0.2.66, not address 192.0.2.10"), "{why}");
    site.stop_other().await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.centre.power(&name("other")), Some(Power::On), "nothing is sent to it");
    site.centre.names("bmc1.rack", "192.0.2.10");
    sleep(15 * MINUTE).await;
    assert_eq!(site.centre.power(&name("other")), Some(Power::Off));
}

#[tokio::test(start_paused = true)]
async fn one_bmc_under_an_address_and_a_name_is_no_two_servers() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.add_server("other", [0; 16]).await;
    site.apply(vec![unmarked("other", "192.0.2.10", "02:00:00:00:00:02")]).await;
    site.bind("other").await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.centre.power(&name("other")), Some(Power::On));
    site.centre.names("bmc1.rack", "192.0.2.10:623");
    let config = BmcConfig { power: Power::On, guid: [0; 16], ..BmcConfig::default() };
    site.centre.add_machine(&name("third"), "02:00:00:00:00:03".parse().unwrap(), config, Duration::from_secs(5), Line::new(5));
    site.apply(vec![unmarked("third", "bmc1.rack", "02:00:00:00:00:03")]).await;
    site.bind("third").await;
    sleep(10 * MINUTE).await;
    let why = site.words.why(ObjectKind::Server, &name("third")).await.unwrap();
    assert!(why.contains("one machine under two names"), "{why}");
    assert!(!site.events().await.iter().any(|event| event.contains("Sent") && event.contains("third")), "{:?}", site.events().await);
}

#[tokio::test(start_paused = true)]
async fn one_switch_under_two_names_is_not_written_by_either() {
    let site = Small::with_a_second_switch("SIM-tor-1").await;
    site.apply(vec![network("web", 130)]).await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.vlans(), (Some(120), Some(1)));
    site.is_held_back("tor-1", "switch tor-2").await;
    site.is_held_back("tor-2", "switch tor-1").await;
    assert!(site.store.get("records/2/pins/switches/tor-2").await.unwrap().is_none());
    // It is asked at no other name any more.
    site.wire("other", json!({})).await;
    site.remove(ObjectKind::Switch, "tor-2").await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.vlans(), (Some(130), Some(1)), "{}", site.why_switch("tor-1").await);
    site.ready().await;
}

#[tokio::test(start_paused = true)]
async fn two_switches_that_show_one_identity_are_taken_by_their_addresses() {
    let mut site = Small::with_a_second_switch("SIM-tor-1").await;
    let said = site.words.accept(ObjectKind::Switch, &name("tor-2"), "me").await.unwrap();
    assert!(said.contains("by address 192.0.2.2"), "{said}");
    site.apply(vec![network("web", 130)]).await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.vlans(), (Some(120), Some(130)), "of the other one nothing was said");
    site.words.accept(ObjectKind::Switch, &name("tor-1"), "me").await.unwrap();
    sleep(5 * MINUTE).await;
    assert_eq!(site.vlans(), (Some(130), Some(130)));
    site.restart();
    site.apply(vec![network("web", 110)]).await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.vlans(), (Some(110), Some(110)), "it is remembered");
}

#[tokio::test(start_paused = true)]
async fn two_switches_are_two() {
    let site = Small::with_a_second_switch("another").await;
    assert_eq!(site.vlans(), (Some(120), Some(120)), "{}", site.why_switch("tor-2").await);
    // It was cloned, and then given an identity of its own.
    site.centre.swap_switch(&name("tor-2"), "SIM-tor-1");
    sleep(30 * MINUTE).await;
    site.apply(vec![network("web", 130)]).await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.vlans(), (Some(120), Some(120)), "{}", site.why_switch("tor-1").await);
    site.centre.swap_switch(&name("tor-2"), "another");
    sleep(30 * MINUTE).await;
    assert_eq!(site.vlans(), (Some(130), Some(130)), "{}", site.why_switch("tor-1").await);
}

/// What is plugged in is polled rarely: a port that leads to a switch since the last time is not written.
#[tokio::test(start_paused = true)]
async fn what_is_plugged_in_is_looked_at_before_a_port_is_written() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    let seldom = json!({
        "apiVersion": "embody.dev/v1alpha1", "kind": "Policy", "metadata": { "name": "default" }, "spec": { "switch": { "pollInterval": "2m" } },
    });
    site.apply(vec![Object::from_json(seldom).unwrap()]).await;
    sleep(MINUTE * 2).await;
    let vlan = || site.centre.switch(&name("tor-1"), |sim| sim.ports()["port1"].untagged.map(|v| v.id())).unwrap();
    site.centre.switch(&name("tor-1"), |sim| {
        for last in 1..=4 {
            sim.plug("port1", format!("02:00:00:00:99:0{last}").parse().unwrap());
        }
    });
    site.apply(vec![network("web", 130)]).await;
    sleep(MINUTE * 3).await;
    assert_eq!(vlan(), Some(120), "{:?}", site.status(ObjectKind::Binding, "b").await);
}

/// Whoever takes `switch` and `port` out of a manifest does not pull the cable.
#[tokio::test(start_paused = true)]
async fn a_port_at_which_the_server_is_still_seen_is_not_released() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.apply(vec![object("Network", "quarantine", json!({ "vlan": 110, "role": "quarantine" }))]).await;
    site.ready().await;
    let mac = "02:00:00:00:00:01".parse().unwrap();
    site.centre.switch(&name("tor-1"), |sim| sim.plug("port1", mac)).unwrap();
    sleep(20 * MINUTE).await;
    let nic = json!({ "name": "nic1", "mac": "02:00:00:00:00:01", "boot": true });
    let bmc = json!({ "address": "192.0.2.9", "secretRef": { "name": "bmc" } });
    site.apply(vec![object("Server", "s", json!({ "bmc": bmc, "nics": [nic] }))]).await;
    sleep(10 * MINUTE).await;
    assert_eq!(site.vlan_of("tor-1", "port1"), Some(120));
    let status = site.status(ObjectKind::Binding, "b").await.to_string();
    assert!(!site.is_ready().await && status.contains("was learned on it: it is left as it is"), "{status}");
    // Now it is unplugged.
    site.centre.switch(&name("tor-1"), |sim| sim.unplug("port1", mac)).unwrap();
    sleep(30 * MINUTE).await;
    assert_eq!(site.vlan_of("tor-1", "port1"), Some(110));
    site.ready().await;
}
