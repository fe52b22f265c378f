//! First do no harm: what a person must say before something is disturbed, and how a person stops embody.

use std::time::Duration;

use tokio::time::sleep;

use super::boot::ask;
use super::programs::{PEERS, missing, until};
use super::site::{FRESH, LIVES, MACS, Site, binding};
use crate::free_port::free_port;

fn web(more: &str) -> String {
    binding("web", "apache", "a", &format!("shutdown: {{ grace: 3s }}{more}"))
}

fn db(server: &str, more: &str) -> String {
    binding("db", "mysql", server, &format!("shutdown: {{ grace: 3s }}{more}"))
}

const ENFORCE: &str = ", correct: enforce";

/// Side by side: they mostly wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_disturbed_without_a_word() {
    if missing(&PEERS) {
        return;
    }
    tokio::join!(
        what_was_found_running_is_not_touched_before_a_person_speaks(),
        a_move_onto_a_running_machine_waits_for_a_person_there(),
        observe_sends_nothing_approve_waits_and_a_pause_stops(),
        stopped_restarted_and_swapped(),
    );
}

/// A machine that runs when it is first bound runs on until a person says otherwise.
async fn what_was_found_running_is_not_touched_before_a_person_speaks() {
    let site = Site::start(&[]).await;
    site.a.tool(&["chassis", "power", "on"]).await;
    site.b.tool(&["chassis", "power", "on"]).await;
    site.describe().await;
    site.controller.apply(&format!("{}---\n{}", web(ENFORCE), db("b", ENFORCE))).await;
    for name in ["web", "db"] {
        site.controller.reads("binding", name, "Ready", &["False ApprovalNeeded", "was running", &format!("approve {name}")], 20).await;
        site.controller.reads("binding", name, "Stalled", &["True ApprovalNeeded"], 5).await;
    }
    site.stays_silent(4).await;
    site.ports_are(FRESH, FRESH).await;
    assert_eq!(site.changes().len(), 2, "only the referee's own: {:#?}", site.changes());
    assert!(site.switch.sets().is_empty(), "{:#?}", site.switch.sets());

    // It runs the persona already, a person says: the ports are made right, and it runs on.
    let said = site.controller.run(&["approve", "db", "--adopt"]).await;
    assert!(said.contains("mysql") && said.contains("not switched off"), "{said}");
    // Its links are still up as they were found: what follows is shown, and waits.
    site.controller.reads("binding", "db", "Ready", &["False ApprovalNeeded", "`embody approve db`"], 20).await;
    let plan = site.controller.run(&["plan"]).await;
    assert!(plan.contains("port4 1 → 120+t(130)"), "{plan}");
    site.ports_are(FRESH, FRESH).await;
    site.controller.run(&["approve", "db"]).await;
    site.controller.ready("db", 30).await;
    site.ports_are(FRESH, LIVES).await;
    assert_eq!(site.power_of("b"), ["power 1"], "{:#?}", site.changes());
    let again = site.controller.say(&["approve", "db", "--adopt"]).await;
    assert_eq!(again.code, 5, "{again:?}");

    // What it runs may go: off, and on with the persona.
    site.controller.run(&["approve", "web"]).await;
    site.controller.ready("web", 30).await;
    site.ports_are(LIVES, LIVES).await;
    assert_eq!(site.power_of("a"), ["power 1", "shutdown 1", "power 1"], "{:#?}", site.changes());
    assert_eq!(site.power_of("b"), ["power 1"], "{:#?}", site.changes());
    site.stays_silent(3).await;
}

/// The same for a machine that a persona is to move to.
async fn a_move_onto_a_running_machine_waits_for_a_person_there() {
    let site = Site::start(&[]).await;
    site.b.tool(&["chassis", "power", "on"]).await;
    site.describe().await;
    site.controller.apply(&web(ENFORCE)).await;
    site.controller.ready("web", 30).await;
    let there = |more: &str| binding("web", "apache", "b", &format!("shutdown: {{ grace: 3s }}{more}"));
    site.controller.apply(&there(ENFORCE)).await;
    site.controller.reads("binding", "web", "Ready", &["False ApprovalNeeded", "was running"], 20).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(site.power_of("b"), ["power 1"], "only the referee's: {:#?}", site.changes());
    assert_eq!([site.switch.sees(3).await, site.switch.sees(4).await], FRESH);
    // Back to where it came from: nothing was taken from `b`, and nothing is still to be released there.
    site.controller.apply(&web(ENFORCE)).await;
    site.controller.ready("web", 30).await;
    site.ports_are(LIVES, FRESH).await;
    assert_eq!(site.power_of("b"), ["power 1"], "{:#?}", site.changes());

    site.controller.apply(&there(ENFORCE)).await;
    site.controller.reads("binding", "web", "Ready", &["False ApprovalNeeded", "was running"], 20).await;
    site.controller.run(&["approve", "web"]).await;
    site.controller.ready("web", 30).await;
    site.ports_become(super::site::RELEASED, LIVES, 20).await;
    assert_eq!(site.power_of("b"), ["power 1", "shutdown 1", "power 1"], "{:#?}", site.changes());
    assert!(!site.a.is_on().await);
}

/// The three modes, and a pause.
async fn observe_sends_nothing_approve_waits_and_a_pause_stops() {
    let site = Site::start(&[]).await;
    site.describe().await;
    site.controller.apply(&web(", correct: observe")).await;
    site.controller.reads("binding", "web", "Ready", &["False Observing"], 20).await;
    site.stays_silent(3).await;
    assert!(site.changes().is_empty() && site.switch.sets().is_empty());
    let shown = site.controller.run(&["get", "bindings"]).await;
    assert!(shown.contains("Off→On"), "{shown}");
    let shown = site.controller.run(&["get", "ports"]).await;
    assert!(shown.contains("1→130") && shown.contains("1→120+t(130)"), "{shown}");

    // Without a word about it: approve.
    site.controller.apply(&web("")).await;
    site.controller.reads("binding", "web", "Ready", &["False ApprovalNeeded", "embody approve web"], 20).await;
    site.stays_silent(3).await;
    assert!(site.changes().is_empty() && site.switch.sets().is_empty());
    let plan = site.controller.run(&["plan"]).await;
    for step in [
        "1 server affected",
        "0 power-offs",
        "boot device Pxe",
        "create VLAN 130",
        "port1 1 → 130",
        "port2 1 → 120+t(130)",
        "IPMI a power on",
    ] {
        assert!(plan.contains(step), "{step} is not in\n{plan}");
    }
    assert!(site.changes().is_empty() && site.switch.sets().is_empty(), "a plan is only a plan");
    site.controller.run(&["approve", "web"]).await;
    site.controller.ready("web", 30).await;
    site.ports_are(LIVES, FRESH).await;
    assert_eq!(site.power_of("a"), ["power 1"]);

    site.controller.apply(&web(ENFORCE)).await;
    site.controller.ready("web", 10).await;
    site.controller.run(&["pause", "binding", "web", "--reason", "the cables are being changed"]).await;
    site.switch.move_by_hand(1, 130, 1).await;
    site.controller.reads("binding", "web", "Ready", &["False Paused", "the cables are being changed"], 10).await;
    sleep(Duration::from_secs(3)).await;
    site.ports_are(["up 1", LIVES[1]], FRESH).await;
    site.controller.run(&["resume", "binding", "web"]).await;
    site.ports_become(LIVES, FRESH, 10).await;
    site.controller.ready("web", 10).await;
}

/// Stopped, running again, restarted, and two personas that change places.
async fn stopped_restarted_and_swapped() {
    let boot = free_port();
    let site = Site::start(&["--boot-address", &format!("127.0.0.1:{boot}")]).await;
    site.describe().await;
    site.controller.apply(&web(ENFORCE)).await;
    site.controller.ready("web", 30).await;

    site.controller.apply(&web(", correct: enforce, state: Stopped")).await;
    site.controller.ready("web", 30).await;
    assert!(!site.a.is_on().await);
    site.ports_are(LIVES, FRESH).await;
    assert!(ask(boot, MACS[0]).await.1.contains("parked"));
    site.a.tool(&["chassis", "power", "on"]).await;
    until("off again", Duration::from_secs(20), async || if site.a.is_on().await { Err(site.controller.log()) } else { Ok(()) }).await;
    site.stays_silent(3).await;
    site.ports_are(LIVES, FRESH).await;

    site.controller.apply(&web(ENFORCE)).await;
    site.controller.ready("web", 30).await;
    assert!(site.a.is_on().await);
    let before = site.power_of("a").len();
    site.controller.run(&["restart", "web"]).await;
    site.controller.ready("web", 30).await;
    assert_eq!(site.power_of("a")[before..], ["shutdown 1", "power 1"], "{:#?}", site.changes());
    site.stays_silent(3).await;

    site.controller.apply(&db("b", ENFORCE)).await;
    site.controller.ready("db", 30).await;
    let before = site.changes().len();
    let swapped = format!("{}---\n{}", binding("web", "apache", "b", "correct: enforce, shutdown: { grace: 3s }"), db("a", ENFORCE));
    site.controller.apply(&swapped).await;
    site.controller.ready("web", 60).await;
    site.controller.ready("db", 60).await;
    site.ports_are(LIVES, LIVES).await;
    let power: Vec<(bool, String)> =
        site.changes()[before..].iter().filter(|c| !c.what.starts_with("boot")).map(|c| (c.on, c.machine.clone())).collect();
    assert_eq!(
        power.iter().map(|(on, _)| *on).collect::<Vec<_>>(),
        [false, false, true, true],
        "both off before either starts: {:#?}",
        site.changes()
    );
    assert!(ask(boot, MACS[0]).await.1.contains("/personas/mysql") && ask(boot, MACS[2]).await.1.contains("/personas/apache"));
    site.stays_silent(3).await;
}
