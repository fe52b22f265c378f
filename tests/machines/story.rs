//! One persona goes from machine to machine, whatever their firmware, with its address; what hands undo is done again.

use std::time::Duration;

use super::machine::{Kind, changes};
use super::programs::until;
use super::site::{ADDRESS, AUTO, RACKS, Site, is_missing};

/// Its page, in the VLAN where it belongs and in no other.
async fn lives(site: &Site) {
    let page = site.page(ADDRESS).await.unwrap_or_else(|| panic!("{}", site.controller.log()));
    assert!(page.contains("web-1"), "{page}");
    assert!(site.is_in("boot", ADDRESS).await && !site.is_in("service", ADDRESS).await && !site.is_in("quarantine", ADDRESS).await);
}

#[tokio::test]
async fn a_persona_goes_from_machine_to_machine_with_its_address() {
    let kinds = [Kind::Bios, Kind::UefiRom, Kind::UefiHttp, Kind::UefiPxe];
    if is_missing(&kinds) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let site = Site::start(&kinds, AUTO).await;
    eprintln!("the rack stands after {:.1} s", site.begun.elapsed().as_secs_f64());
    for (machine, kind) in ["a", "b", "c", "d"].iter().zip(kinds) {
        site.bind(machine, "").await;
        let took = site.ready(300).await;
        eprintln!("{kind:?}: as desired after {:.1} s. {}", took.as_secs_f64(), last_start(&site.why().await));
        lives(&site).await;
    }
    // No two of them ever ran it at the same time.
    let mut on = std::collections::BTreeSet::new();
    for change in changes(&site.lab.dir) {
        if change.on {
            on.insert(change.machine)
        } else {
            on.remove(&change.machine)
        };
        assert!(on.len() <= 1, "{on:?}");
    }
    // The ports of those that it left are in quarantine.
    for port in [1, 3, 5] {
        site.lab.carries_soon(port, 99).await;
    }
}

#[tokio::test]
async fn what_hands_undo_is_done_again() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let site = Site::start(&[Kind::Bios], AUTO).await;
    site.bind("a", "").await;
    site.ready(300).await;
    // Somebody moves its port, and somebody presses its button.
    site.lab.move_port(1, 20).await;
    site.lab.carries_soon(1, 10).await;
    site.ready(180).await;
    lives(&site).await;
    let hellos = || site.machines[0].serial().matches(" hello").count();
    let before = hellos();
    site.machines[0].tool(&["chassis", "power", "soft"]).await;
    until("another start", Duration::from_secs(300), async || if hellos() > before { Ok(()) } else { Err(site.machines[0].last_words()) })
        .await;
    site.ready(180).await;
    lives(&site).await;
}

/// Of `why`, how far the last start came.
pub fn last_start(why: &str) -> String {
    why.split("Its last start: ").nth(1).and_then(|rest| rest.split("; the last one").next()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_parked_machine_boots_within_a_minute_of_its_binding() {
    let kinds = [Kind::Bios, Kind::UefiRom];
    if is_missing(&kinds) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let site = Site::start(&kinds, AUTO).await;
    // Its ports are in quarantine, where it was left; then somebody switches it on.
    for (machine, port) in [("a", 1), ("b", 3)] {
        site.lab.move_port(port, 99).await;
        site.machines[usize::from(machine == "b")].boot_from_network().await;
    }
    for machine in &site.machines {
        until("a machine that waits", Duration::from_secs(300), async || {
            let why = site.controller.run(&["why", &format!("server/{}", machine.name)]).await;
            if machine.serial().contains("parked") { Ok(()) } else { Err(format!("{why}\n{}", machine.last_words())) }
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    for machine in ["a", "b"] {
        let before = changes(&site.lab.dir).len();
        site.bind(machine, "").await;
        let took = site.ready(300).await;
        eprintln!("{machine}: parked, bound, and as desired after {:.1} s. {}", took.as_secs_f64(), last_start(&site.why().await));
        lives(&site).await;
        let of_it: Vec<_> =
            changes(&site.lab.dir).into_iter().skip(before).filter(|c| c.machine == machine && !c.what.starts_with("boot")).collect();
        assert!(of_it.is_empty(), "it was switched: {of_it:?}");
    }
}
