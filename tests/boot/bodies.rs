//! The address of a persona goes where the persona goes.

use std::time::Duration;

use super::programs::until;
use super::site::{AUTO, MACS, Plan, Site, end, is_missing, of};

const ONE: &str = "8f14e45f-ceea-467f-a0e6-000000000001";

#[tokio::test]
async fn addresses_follow_bodies() {
    if is_missing() {
        return;
    }
    tokio::join!(
        the_address_moves_with_the_binding_and_is_never_offered_to_two(),
        who_asks_from_quarantine_is_parked_whatever_is_to_run_there()
    );
}

async fn the_address_moves_with_the_binding_and_is_never_offered_to_two() {
    let site = Site::start(AUTO).await;
    site.gives().await;
    site.bind("s1").await;
    site.stands().await;
    let (old, new) = (MACS[0], MACS[2]);
    assert_eq!(site.offered(old).await.as_deref(), Some("10.7.0.21"));
    assert!(site.offered(new).await.unwrap().starts_with("10.7.0.1"));
    let ranged = async |mac: &str| site.offered(mac).await.is_some_and(|address| address.starts_with("10.7.0.1"));
    site.bind("s2").await;
    // While the next one cannot take over, since it was heard and may be alive, the first one keeps what it has.
    for _ in 0..3 {
        assert!(ranged(new).await, "two machines are offered the same address");
        assert_eq!(site.offered(old).await.as_deref(), Some("10.7.0.21"));
    }
    until("a start on s2", Duration::from_secs(90), async || {
        let why = site.controller.run(&["why", "web"]).await;
        if why.contains("server s2. Its power is On") && why.contains("its start was seen") { Ok(()) } else { Err(why) }
    })
    .await;
    for _ in 0..3 {
        assert!(ranged(old).await);
        assert_eq!(site.offered(new).await.as_deref(), Some("10.7.0.21"));
    }
    assert!(site.script(old, ONE).await.contains("parked: nothing is to run on s1"));
    // The old one remembers it, and is told that it is not its own any more.
    let steps = site.client(&format!("init-reboot eth0 --mac {old} --requested 10.7.0.21 --retry 1,2,3")).await;
    assert_eq!(end(&steps)["result"], "nak", "{steps:#?}");
}

async fn who_asks_from_quarantine_is_parked_whatever_is_to_run_there() {
    let quarantine = ", subnet: 10.8.0.0/24, boot: { range: 10.8.0.100-10.8.0.199 }";
    let mut site = Site::prepared(Plan { quarantine, ..Plan::default() }).await;
    let switch = &site.lan.switch;
    switch.ip("link add br99 type bridge");
    switch.ip("link set br99 up");
    for (host, address) in [(0, "10.8.0.1"), (1, "10.8.0.9")] {
        let (n, host) = (host, &site.lan.hosts[host]);
        switch.ip(&format!("link add q{n} type veth peer name q netns {}", host.0));
        switch.ip(&format!("link set q{n} master br99 up"));
        host.ip("link set q up");
        host.ip(&format!("addr add {address}/24 dev q"));
    }
    site.go().await;
    site.dhcp(&["boot on eth0: addresses and boot files", "quarantine on q: addresses and boot files"], 20).await;
    site.bind("s1").await;
    site.stands().await;
    let steps = site.client(&format!("boot q --as ipxe-bios --mac {} --uuid {ONE} --retry 1,2,3", MACS[0])).await;
    let leased = of(&steps, "leased")[0];
    assert_eq!(end(&steps)["result"], "booted", "{steps:#?}");
    assert!(leased["address"].as_str().unwrap().starts_with("10.8.0.1"), "its own address is of another network: {leased}");
    assert_eq!(leased["bootfile"], "http://10.8.0.1:8080/boot.ipxe");
    let path = format!("/boot/{}?arch=x86_64&uuid={ONE}", MACS[0].replace(':', "-"));
    let (status, script) = site.fetch("GET", &format!("http://10.8.0.1:8080{path}"), "").await;
    assert!(status == 200 && script.contains("parked") && script.contains("quarantine") && !script.contains("kernel"), "{script}");
    // The other way round: from the network where it boots.
    assert!(site.script_from("10.7.0.21", MACS[0], ONE).await.contains("kernel --name kernel"));
    let steps = site.client(&format!("boot eth0 --as plain --mac {} --retry 1,2,3", MACS[0])).await;
    assert_eq!(end(&steps)["address"], "10.7.0.21", "{steps:#?}");
}
