//! What goes wrong at devices: each fault is told in words, costs no attempts that hurt, and leaves the other servers alone.

use std::time::Duration;

use tokio::time::sleep;

use super::programs::{PEERS, missing, until};
use super::site::{FRESH, LIVES, MACS, Manifests, RELEASED, Site, V3, binding, web};
use super::tap::Tap;

fn db(server: &str) -> String {
    binding("db", "mysql", server, "correct: enforce, shutdown: { grace: 3s }")
}

/// What the controller logs in some seconds: a few attempts of what fails, where a loop that is busy logs hundreds.
async fn is_calm(site: &Site, seconds: u64) {
    let before = site.controller.log().lines().count();
    sleep(Duration::from_secs(seconds)).await;
    let log = site.controller.log();
    assert!(log.lines().count() - before <= 30, "{log}");
}

/// `b` goes on: its ports are kept although something is wrong with `a`.
async fn b_goes_on(site: &Site, a: [&str; 2]) {
    site.controller.ready("db", 60).await;
    site.switch.move_by_hand(3, 130, 1).await;
    site.ports_become(a, LIVES, 10).await;
}

/// Side by side: they mostly wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_fault_is_told_and_the_others_go_on() {
    if missing(&PEERS) {
        return;
    }
    tokio::join!(
        a_wrong_password_is_tried_once_and_a_silent_bmc_is_waited_for(),
        a_switch_that_may_only_be_read_an_unknown_port_and_a_wrong_cable(),
        another_machine_at_the_same_address_is_not_touched_before_it_is_accepted(),
        two_machines_that_show_one_guid_are_not_touched_while_they_do(),
        a_switch_that_restarts_and_one_that_is_exchanged(),
    );
}

async fn a_wrong_password_is_tried_once_and_a_silent_bmc_is_waited_for() {
    let mut site = Site::prepare(&[]).await;
    let tap = Tap::before(site.a.port).await;
    site.controller.start().await;
    let manifests = |password| site.manifests(&Manifests { bmc: Some(tap.port), password, ..Manifests::default() });
    site.controller.apply(&format!("{}---\n{}---\n{}", manifests("wrong"), web("a"), db("b"))).await;
    site.controller.reads("server", "a", "Reachable", &["False CredentialsRefused", "refuses the credentials"], 20).await;
    site.controller.reads("binding", "web", "Ready", &["CredentialsRefused", "refuses the credentials"], 10).await;
    site.controller.reads("binding", "web", "Stalled", &["True CredentialsRefused"], 10).await;
    b_goes_on(&site, FRESH).await;
    is_calm(&site, 5).await;
    assert!((1..=2).contains(&tap.logins()), "{} attempts", tap.logins());
    assert_eq!(site.power_of("a"), [""; 0]);
    // Applied again as it is: no new version, no new attempt. `retry` is a person's word for one more.
    site.controller.apply(&manifests("wrong")).await;
    sleep(Duration::from_secs(3)).await;
    assert!((1..=2).contains(&tap.logins()), "{} attempts", tap.logins());
    site.controller.apply(&manifests(super::bmc::PASSWORD)).await;
    site.controller.ready("web", 30).await;
    site.ports_are(LIVES, LIVES).await;

    let logins = tap.logins();
    tap.silence(true);
    site.controller.reads("server", "a", "Reachable", &["False NoAnswer", "does not answer"], 60).await;
    site.controller.reads("binding", "web", "Ready", &["Unknown NoAnswer", "does not answer"], 10).await;
    b_goes_on(&site, LIVES).await;
    let sent = tap.datagrams();
    is_calm(&site, 5).await;
    assert!(tap.datagrams() - sent <= 40, "{} datagrams in 5 s to a BMC that is silent", tap.datagrams() - sent);

    // A move away from it waits, and says for what: whether it still runs there cannot be known.
    site.controller.run(&["delete", "binding", "db"]).await;
    site.b.tool(&["chassis", "power", "off"]).await;
    sleep(Duration::from_secs(3)).await;
    let before = site.changes().len();
    site.controller.apply(&web("b")).await;
    let said = site.controller.reads("binding", "web", "Ready", &["PersonaElsewhere", "may still run on a", "ago"], 20).await;
    assert!(said.starts_with("False"), "{said}");
    is_calm(&site, 4).await;
    assert_eq!(site.changes()[before..], [], "nothing starts");
    tap.silence(false);
    site.controller.ready("web", 60).await;
    site.ports_become(RELEASED, LIVES, 30).await;
    assert_eq!(site.power_of("a"), ["power 1", "shutdown 1"], "{:#?}", site.changes());
    assert!(tap.logins() <= logins + 12, "{} attempts since the silence", tap.logins() - logins);
}

async fn a_switch_that_may_only_be_read_an_unknown_port_and_a_wrong_cable() {
    let mut site = Site::prepare(&[]).await;
    // An unknown MAC address is no contradiction.
    site.switch.learn(&[(1, "02:00:00:00:00:99", 2)]);
    site.controller.start().await;
    let with = |community, port| site.manifests(&Manifests { community, port, ..Manifests::default() });
    site.controller.apply(&format!("{}---\n{}---\n{}", with("public", "port1"), web("a"), db("b"))).await;
    site.controller
        .reads("binding", "db", "Ready", &["False Refused", "sw0 refused creating VLAN", "may not be written", "tried again"], 30)
        .await;
    is_calm(&site, 6).await;
    assert!(site.switch.sets().is_empty() && site.power_of("b").is_empty() && site.power_of("a").is_empty(), "{:#?}", site.switch.sets());

    // The MAC address of one of `b`'s NICs, on a port that is declared for `a`: two cables are not as declared.
    site.switch.learn(&[(1, MACS[3], 1)]);
    site.controller.apply(&with("private", "port1")).await;
    site.controller.reads("binding", "web", "Ready", &["False CableContradicted", "port1", "server b", MACS[3]], 30).await;
    site.controller.reads("binding", "web", "Stalled", &["True CableContradicted"], 5).await;
    site.controller.reads("binding", "db", "Ready", &["False CableContradicted", "port4", "learned on port port1"], 30).await;
    is_calm(&site, 4).await;
    assert_eq!((site.switch.sees(1).await, site.switch.sees(4).await), ("up 1".to_owned(), "up 1".to_owned()));
    assert!(site.power_of("a").is_empty() && site.power_of("b").is_empty());

    // Plugged in where they belong; but in the manifest is a port that there is not.
    site.switch.learn(&[]);
    site.controller.apply(&with("private", "uplink9")).await;
    site.controller.reads("binding", "web", "Ready", &["False PortNotFound", "uplink9", "sw0"], 30).await;
    site.controller.ready("db", 60).await;
    is_calm(&site, 4).await;
    assert!(site.power_of("a").is_empty());
    b_goes_on(&site, ["up 1", LIVES[1]]).await;

    site.controller.apply(&with("private", "port1")).await;
    site.controller.ready("web", 60).await;
    site.ports_are(LIVES, LIVES).await;
    assert_eq!(site.power_of("b"), ["power 1"]);
}

async fn another_machine_at_the_same_address_is_not_touched_before_it_is_accepted() {
    let mut site = Site::start(&[]).await;
    site.describe().await;
    site.controller.apply(&format!("{}---\n{}", web("a"), db("b"))).await;
    site.controller.ready("web", 30).await;
    site.a.exchange("cccccccccccccccccccccccccccccccc").await;
    site.controller.reads("server", "a", "Reachable", &["False IdentityChanged", "cccccccc", "embody accept server a"], 60).await;
    site.controller.reads("binding", "web", "Ready", &["IdentityChanged", "embody accept server a"], 10).await;
    let before = site.power_of("a");
    site.controller.apply(&binding("web", "apache", "a", "correct: enforce, state: Stopped")).await;
    b_goes_on(&site, LIVES).await;
    is_calm(&site, 4).await;
    assert_eq!(site.power_of("a"), before, "writes wait");
    // What runs may still run on the machine that is gone: a person knows whether it does.
    let refused = site.controller.say(&["accept", "server", "a"]).await;
    assert!(refused.code == 5 && refused.err.contains("`embody declare server a off --reason"), "{refused:?}");
    site.controller.run(&["declare", "server", "a", "off", "--reason", "its board was exchanged"]).await;
    let said = site.controller.run(&["accept", "server", "a"]).await;
    assert!(said.contains("cccccccc"), "{said}");
    site.controller.reads("binding", "web", "Ready", &["False DeclaredOffButRuns"], 30).await;
    assert_eq!(site.power_of("a"), before, "it was declared off, and is on: nobody knows what it runs");
    site.controller.run(&["approve", "web"]).await;
    site.controller.ready("web", 60).await;
    assert!(!site.a.is_on().await);
    site.controller.reads("server", "a", "Reachable", &["True"], 10).await;
}

async fn two_machines_that_show_one_guid_are_not_touched_while_they_do() {
    let mut site = Site::start(&[]).await;
    site.describe().await;
    site.controller.apply(&web("a")).await;
    site.controller.ready("web", 30).await;
    // A board was exchanged, and the wrong one was cloned.
    site.b.exchange("a123456789abcdefa123456789abcdea").await;
    site.controller.reads("server", "b", "Reachable", &["False IdentityChanged", "GUID"], 60).await;
    site.controller.reads("server", "a", "Reachable", &["False IdentityChanged", "GUID", "cannot be told"], 60).await;
    site.controller.apply(&db("b")).await;
    is_calm(&site, 4).await;
    assert!(site.power_of("b").is_empty());
    site.b.exchange("b123456789abcdefa123456789abcdeb").await;
    site.controller.reads("server", "a", "Reachable", &["True"], 60).await;
    site.controller.ready("db", 60).await;
    site.controller.ready("web", 10).await;
    assert_eq!(site.power_of("a"), ["power 1"]);
    // Another address of the same machine: observed anew, and nothing is done to it.
    let tap = Tap::before(site.a.port).await;
    site.controller.apply(&site.manifests(&Manifests { bmc: Some(tap.port), ..Manifests::default() })).await;
    until("it is asked there", Duration::from_secs(20), async || if tap.logins() > 0 { Ok(()) } else { Err(String::new()) }).await;
    site.controller.reads("server", "a", "Reachable", &["True"], 20).await;
    site.controller.ready("web", 20).await;
    assert_eq!(site.power_of("a"), ["power 1"]);
}

async fn a_switch_that_restarts_and_one_that_is_exchanged() {
    let mut site = Site::start(&[]).await;
    site.controller.apply(&format!("{}---\n{}", site.manifests(&Manifests { snmp: V3, ..Manifests::default() }), web("a"))).await;
    site.controller.ready("web", 30).await;
    site.switch.kill().await;
    site.controller.reads("switch", "sw0", "Reachable", &["False NoAnswer", "does not answer"], 60).await;
    // A move begins only when it can be ended: nobody knows the ports of the new body.
    site.controller.apply(&web("b")).await;
    let said = site.controller.reads("binding", "web", "Ready", &["False TakeoverNotPossible", "sw0"], 20).await;
    is_calm(&site, 4).await;
    assert!(site.a.is_on().await && !site.b.is_on().await, "{said}");
    // The same one, which has booted again: its clock has begun anew.
    site.switch.run().await;
    site.controller.ready("web", 60).await;
    site.ports_become(RELEASED, LIVES, 30).await;

    site.switch.exchange().await;
    site.controller.reads("switch", "sw0", "Reachable", &["False IdentityChanged", "embody accept switch sw0"], 60).await;
    let sets = site.switch.sets();
    site.switch.move_by_hand(3, 130, 1).await;
    let by_hand = site.switch.sets().len();
    assert!(by_hand > sets.len());
    is_calm(&site, 4).await;
    assert_eq!(site.switch.sets().len(), by_hand, "writes wait");
    site.controller.run(&["accept", "switch", "sw0"]).await;
    site.ports_become(RELEASED, LIVES, 30).await;
    site.controller.ready("web", 20).await;
    assert_eq!(site.power_of("b"), ["power 1"]);
}
