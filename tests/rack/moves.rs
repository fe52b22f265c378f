//! A persona comes to life, moves, is kept so, and is let go: over SNMPv2c and the embedded store, over SNMPv3, over etcd.

use std::time::Duration;

use tokio::time::sleep;

use super::boot::ask;
use super::programs::{PEERS, missing, until};
use super::site::{FRESH, LIVES, MACS, Manifests, RELEASED, Site, V3, binding, web};
use super::switch::IF_ADMIN;
use crate::free_port::free_port;

/// From all ports in VLAN 1 and both machines off, to the persona living on `a`.
pub async fn comes_to_life(site: &Site, manifests: &Manifests) {
    site.ports_are(FRESH, FRESH).await;
    site.controller.apply(&format!("{}---\n{}", site.manifests(manifests), web("a"))).await;
    site.controller.ready("web", 60).await;
    site.ports_are(LIVES, FRESH).await;
    assert!(site.a.is_on().await && !site.b.is_on().await);
    assert_eq!(site.a.boots_by().await, "Force PXE");
    assert_eq!(site.power_of("a"), ["power 1"]);
    assert_eq!(site.power_of("b"), [""; 0]);
}

/// `off`: what the old body is told.
pub async fn moves(site: &Site, to: &str, off: &[&str]) {
    let old = if to == "b" { "a" } else { "b" };
    let before = site.power_of(old);
    site.controller.apply(&web(to)).await;
    site.controller.ready("web", 90).await;
    let (a, b) = if to == "b" { (RELEASED, LIVES) } else { (LIVES, RELEASED) };
    site.ports_become(a, b, 30).await;
    assert_eq!((site.a.is_on().await, site.b.is_on().await), (to == "a", to == "b"));
    assert_eq!(if to == "b" { site.b.boots_by().await } else { site.a.boots_by().await }, "Force PXE");
    assert_eq!(site.power_of(old)[before.len()..], *off, "{:#?}", site.changes());
    site.never_both_on();
}

/// What people do with their own tools is undone within a poll.
async fn is_kept(site: &Site) {
    let starts = site.never_both_on();
    // It is undone so soon that nobody may see it in between: by more writes than the person's own.
    let undone = async |by_hand: usize, before: usize| {
        let more = async || if site.switch.sets().len() > before + by_hand { Ok(()) } else { Err(format!("{:?}", site.switch.sets())) };
        until("a write that undoes it", Duration::from_secs(20), more).await;
        site.ports_become(RELEASED, LIVES, 10).await;
    };
    let before = site.switch.sets().len();
    site.switch.move_by_hand(3, 130, 1).await;
    undone(5, before).await;
    let before = site.switch.sets().len();
    site.switch.set(&[&format!("{IF_ADMIN}.104"), "i", "2"]).await;
    undone(1, before).await;

    // A desired state that changes under a running persona.
    let network =
        |vlan: u32| format!("apiVersion: embody.dev/v1alpha1\nkind: Network\nmetadata: {{ name: web }}\nspec: {{ vlan: {vlan} }}\n");
    site.controller.apply(&network(121)).await;
    site.ports_become(RELEASED, ["up 130", "up 121 tagged 130"], 10).await;
    site.controller.apply(&network(120)).await;
    site.ports_become(RELEASED, LIVES, 10).await;

    site.b.tool(&["chassis", "bootdev", "disk"]).await;
    until("the boot device", Duration::from_secs(10), async || match site.b.boots_by().await.as_str() {
        "Force PXE" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    assert!(site.b.is_on().await, "none of this is a reason to switch anything off");

    site.b.tool(&["chassis", "power", "off"]).await;
    until("power on again", Duration::from_secs(20), async || if site.b.is_on().await { Ok(()) } else { Err(site.controller.log()) }).await;
    site.controller.ready("web", 20).await;
    assert_eq!(site.never_both_on(), starts + 1);
}

/// Deleting the binding touches nothing, and does not make the evidence go away.
async fn is_released(site: &Site) {
    site.stays_silent(3).await;
    let (changes, sets) = (site.changes(), site.switch.sets());
    site.controller.run(&["delete", "binding", "web"]).await;
    site.stays_silent(4).await;
    site.ports_are(RELEASED, LIVES).await;
    assert!(site.b.is_on().await);
    let refused = site.controller.say(&["delete", "server", "b"]).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.err.contains("may still run persona apache"), "{refused:?}");
    // Another binding of the same persona: the old body, which nobody holds any more, is waited for, not switched off.
    site.controller.apply(&binding("again", "apache", "a", "correct: enforce")).await;
    let way = "`embody approve again --release b`";
    site.controller.reads("binding", "again", "Ready", &["False PersonaElsewhere", "may still run on b", way], 10).await;
    site.stays_silent(3).await;
    assert_eq!((site.changes(), site.switch.sets()), (changes, sets));
    let refused = site.controller.say(&["approve", "again", "--release", "a"]).await;
    assert!(refused.code == 5 && refused.err.contains("does not wait for server a"), "{refused:?}");
    let before = site.power_of("b").len();
    site.controller.run(&["approve", "again", "--release", "b"]).await;
    site.controller.ready("again", 60).await;
    site.ports_become(LIVES, RELEASED, 30).await;
    assert_eq!(site.power_of("b")[before..], ["shutdown 1"], "{:#?}", site.changes());
    site.never_both_on();
    site.controller.run(&["delete", "server", "b"]).await;
}

/// Side by side: they mostly wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_persona_lives_moves_and_is_let_go() {
    if missing(&PEERS) {
        return;
    }
    tokio::join!(a_persona_comes_to_life_moves_is_kept_and_is_let_go(), over_snmp_v3_a_deaf_machine_is_switched_off_hard_after_the_grace(),);
}

async fn a_persona_comes_to_life_moves_is_kept_and_is_let_go() {
    let site = Site::start(&[]).await;
    comes_to_life(&site, &Manifests::default()).await;
    moves(&site, "b", &["shutdown 1"]).await;
    is_kept(&site).await;
    is_released(&site).await;
}

async fn over_snmp_v3_a_deaf_machine_is_switched_off_hard_after_the_grace() {
    let boot = free_port();
    let site = Site::start(&["--boot-address", &format!("127.0.0.1:{boot}")]).await;
    // Boot options that last for one start, as many BMCs have them: that is no drift.
    site.a.mark("deaf", true);
    site.b.mark("loses-boot", true);
    comes_to_life(&site, &Manifests { snmp: V3, ..Manifests::default() }).await;
    site.controller.apply(&web("b")).await;
    // Deaf, and starting over and over: it is parked each time, which is no sign that it was switched off.
    let asks_for_ever = async {
        loop {
            if site.a.is_on().await {
                ask(boot, MACS[0]).await;
            }
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        biased;
        () = site.controller.ready("web", 60) => {}
        () = asks_for_ever => {}
    }
    site.ports_become(RELEASED, LIVES, 30).await;
    assert_eq!(site.power_of("a"), ["power 1", "shutdown 1", "power 0"], "{:#?}", site.changes());
    assert_eq!(site.power_of("b"), ["power 1"]);
    assert_eq!(site.b.boots_by().await, "No override", "its boot option was for one start");
    site.never_both_on();
    site.stays_silent(4).await;
    // What must be secret is nowhere but in the store.
    let shown =
        [site.controller.log(), site.controller.run(&["get", "all", "-o", "yaml"]).await, site.controller.run(&["events"]).await].concat();
    for secret in ["authpass123", "privpass123", "password: secret", "community: private"] {
        assert!(!shown.contains(secret), "{secret} is in\n{shown}");
    }
}
