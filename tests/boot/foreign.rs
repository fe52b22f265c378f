//! Beside another DHCP server: from the moment that it is heard no address is offered, and machines boot by what is told beside its addresses.

use std::time::Duration;

use super::programs::{Process, missing, until};
use super::site::{HTTP, MACS, Plan, Site, Step, end, is_missing, of};

const UUID: &str = "8f14e45f-ceea-467f-a0e6-000000000001";
const PROXY: &str = "boot files without addresses, since the DHCP server";

/// Nothing that this server sent to anybody held an address.
fn none_given(heard: &[Step]) {
    let packets = of(heard, "packet");
    assert!(packets.iter().any(|p| p["src_ip"] == "10.7.0.1" && p["sport"] == 67), "nothing of the server was heard: {packets:#?}");
    let given: Vec<_> = packets.iter().filter(|p| p["src_ip"] == "10.7.0.1" && p["sport"] == 67 && p["yiaddr"] != "0.0.0.0").collect();
    assert!(given.is_empty(), "{given:#?}");
}

/// Machines get the other server's addresses, and our files.
async fn boots_beside(site: &Site, other: &str) {
    let cases = [("bios", "undionly.kpxe"), ("uefi", "snponly.efi"), ("uefi-http", "snponly.efi"), ("ipxe-uefi", "boot.ipxe")];
    for mac in [MACS[0], "02:00:00:00:09:01"] {
        for (kind, file) in cases {
            let steps =
                site.client(&format!("boot eth0 --as {kind} --mac {mac} --uuid {UUID} --blocks 1468/4 --wait 1.5 --retry 4,4,4,4")).await;
            assert_eq!(end(&steps)["result"], "booted", "{kind}: {steps:#?}");
            let (choice, leased) = (of(&steps, "choice")[0], of(&steps, "leased")[0]);
            assert_eq!(choice["addresses"], serde_json::json!([other]), "{kind}: {steps:#?}");
            assert!(leased["address"].as_str().unwrap().starts_with("10.7.0.5"), "{leased}");
            assert!(leased["boot_from"] == "proxy" && leased["bootfile"].as_str().unwrap().ends_with(file), "{kind}: {leased}");
        }
    }
    let steps = site.client(&format!("boot eth0 --as plain --mac {} --wait 1.5 --retry 4,4,4,4", MACS[3])).await;
    assert_eq!(of(&steps, "offer").len(), 1, "a running system is told nothing beside its address: {steps:#?}");
}

#[tokio::test]
async fn beside_another_server_no_address_is_offered() {
    if is_missing() || missing(&["dnsmasq"]) {
        return;
    }
    tokio::join!(
        where_a_server_is_from_the_start_no_address_is_ever_offered(),
        a_server_that_starts_later_is_left_the_addresses_from_then_on(),
        an_offer_an_ack_or_a_server_id_of_another_one_is_enough()
    );
}

async fn where_a_server_is_from_the_start_no_address_is_ever_offered() {
    let mut site = Site::prepared(Plan::default()).await;
    let _foreign = site.client_ready(2, "foreign eth0 --address 10.7.0.3 --range 10.7.0.50-10.7.0.59", "foreign").await;
    let _listens = site.client_ready(3, "listen eth0", "heard").await;
    site.go().await;
    let told = site.dhcp(&[PROXY, "10.7.0.3 answers there"], 20).await;
    assert!(told.starts_with("True Listening") && told.contains("boot on eth0"), "{told}");
    boots_beside(&site, "10.7.0.3").await;
    none_given(&site.said("heard"));

    // What was heard is forgotten in a crash. A controller that waits for the lease of the one before has asked nobody yet, and answers that go to
    // machines alone are not heard: it asks before it gives.
    site.controller.kill().await;
    site.controller.start().await;
    let asks = "discover eth0 --as plain --no-broadcast --mac 02:00:00:00:09:02 --wait 0.2 --retry 1";
    until("the right to act", Duration::from_secs(40), async || {
        site.client(asks).await;
        let log = site.controller.log();
        if log.matches("this controller acts").count() == 2 { Ok(()) } else { Err(log) }
    })
    .await;
    for _ in 0..20 {
        site.client(asks).await;
    }
    boots_beside(&site, "10.7.0.3").await;
    none_given(&site.said("heard"));
    let leases = site.controller.run(&["get", "leases"]).await;
    assert!(!leases.contains("10.7.0."), "{leases}");
}

fn dnsmasq(site: &Site) -> Process {
    let leases = site.dir.path().join("leases").display().to_string();
    let words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=eth0",
        "--bind-interfaces",
        "--dhcp-range=10.7.0.50,10.7.0.59,255.255.255.0,10m",
        "--dhcp-authoritative",
        "--no-ping",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        &format!("--dhcp-leasefile={leases}"),
    ];
    site.program(2, &words, "dnsmasq")
}

async fn a_server_that_starts_later_is_left_the_addresses_from_then_on() {
    let site = Site::start("range: 10.7.0.100-10.7.0.199").await;
    site.gives().await;
    let steps = site.client(&format!("boot eth0 --as plain --mac {} --retry 1,2,3", MACS[0])).await;
    assert!(end(&steps)["address"].as_str().unwrap().starts_with("10.7.0.1"), "{steps:#?}");
    let _dnsmasq = dnsmasq(&site);
    // Nobody but the probe asks.
    site.dhcp(&[PROXY, "10.7.0.3 answers there"], 30).await;
    let _listens = site.client_ready(3, "listen eth0", "heard").await;
    boots_beside(&site, "10.7.0.3").await;
    none_given(&site.said("heard"));
}

async fn an_offer_an_ack_or_a_server_id_of_another_one_is_enough() {
    let mut site = Site::start("range: 10.7.0.100-10.7.0.199").await;
    let serve = "foreign eth0 --address 10.7.0.3 --range 10.7.0.50-10.7.0.59";
    let stranger = "--mac 02:00:00:00:09:01 --broadcast --retry 1,2";
    let cases = [
        // A machine that takes what a server has offered that is not heard itself.
        (None, format!("request eth0 --server 10.7.0.77 --requested 10.7.0.50 {stranger}"), "10.7.0.77"),
        (Some(serve.to_owned()), format!("init-reboot eth0 --requested 10.7.0.51 {stranger}"), "10.7.0.3"),
        (Some(format!("{serve} --offer-only --delay 0.3")), format!("discover eth0 --wait 1 {stranger}"), "10.7.0.3"),
    ];
    for (n, (server, asks, name)) in cases.iter().enumerate() {
        if n > 0 {
            // What was heard is forgotten with the process.
            site.controller.process().signal("-TERM").await;
            site.controller.process().wait().await;
            site.controller.start().await;
        }
        site.gives_now().await;
        assert!(site.offered("02:00:00:00:09:02").await.is_some_and(|a| a.starts_with("10.7.0.1")), "{asks}");
        let foreign = match server {
            Some(words) => Some(site.client_ready(2, words, &format!("foreign-{n}")).await),
            None => None,
        };
        let steps = site.client(asks).await;
        drop(foreign);
        assert_eq!(site.offered("02:00:00:00:09:02").await, None, "{asks}: {steps:#?}");
        site.dhcp(&[PROXY, name], 2).await;
        let steps = site.client(&format!("discover eth0 --as ipxe-bios --mac {} --wait 0.5 --retry 1,2,3", MACS[0])).await;
        let offer = of(&steps, "offer")[0];
        assert!(offer["kind"] == "proxy" && offer["options"]["67"]["value"] == format!("{HTTP}/boot.ipxe"), "{offer}");
    }
}
