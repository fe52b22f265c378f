//! An iPXE that cannot do what is needed gets ours once in each start, and then its script.

use super::site::{AUTO, HTTP, MACS, Plan, Site, end, is_missing, of};

const UUID: &str = "8f14e45f-ceea-467f-a0e6-000000000001";

async fn boots(site: &Site, words: &str) -> String {
    let steps = site.client(&format!("boot eth0 --uuid {UUID} --blocks 1432 --wait 1 --retry 2,4,8 {words}")).await;
    assert_eq!(end(&steps)["result"], "booted", "{words}: {steps:#?}");
    let by = if of(&steps, "tftp").is_empty() { "HTTP" } else { "TFTP" };
    format!("{} by {by}", of(&steps, "leased")[0]["bootfile"].as_str().unwrap())
}

/// Loader and script in turn, `starts` times: how the iPXE of the firmware asks, and how ours does.
async fn in_turn(site: &Site, firmware: &str, ours: &str, loader: &str, starts: usize) {
    for start in 0..starts {
        assert_eq!(boots(site, firmware).await, format!("{loader} by TFTP"), "{firmware}: start {start}");
        assert_eq!(boots(site, ours).await, format!("{HTTP}/boot.ipxe by HTTP"), "{ours}: start {start}");
    }
}

async fn at(site: &Site) {
    // `loader: chain`, whatever its iPXE can do.
    for (kind, loader) in [("ipxe-bios", "undionly.kpxe"), ("ipxe-uefi", "snponly.efi")] {
        let asks = format!("--as {kind} --mac {}", MACS[2]);
        in_turn(site, &asks, &asks, loader, 2).await;
    }
    // Firmware that is no iPXE has ours at once.
    in_turn(site, &format!("--as bios --mac {}", MACS[2]), &format!("--as ipxe-bios --mac {}", MACS[2]), "undionly.kpxe", 2).await;
    // An iPXE without HTTP, of a server and of nobody.
    for mac in [MACS[0], "02:00:00:00:09:01"] {
        for (kind, loader) in [("ipxe-bios", "undionly.kpxe"), ("ipxe-uefi", "snponly.efi")] {
            let asks = format!("--as {kind} --mac {mac}");
            in_turn(site, &format!("{asks} --no-http"), &asks, loader, 2).await;
        }
    }
    // One with HTTP goes straight to its script.
    for _ in 0..2 {
        assert_eq!(boots(site, &format!("--as ipxe-uefi --mac {}", MACS[0])).await, format!("{HTTP}/boot.ipxe by HTTP"));
    }
}

#[tokio::test]
async fn the_loader_comes_once_in_each_start() {
    if is_missing() {
        return;
    }
    tokio::join!(where_it_gives_the_addresses(), where_another_server_does());
}

async fn where_it_gives_the_addresses() {
    let site = Site::start(AUTO).await;
    site.gives().await;
    at(&site).await;
    // Whoever asks the same again, since an answer was lost, is answered the same.
    let asks = format!("--as ipxe-bios --mac {} --wait 0.2 --retry 1,2,3", MACS[2]);
    let file = async |words: &str| {
        let steps = site.client(&format!("{words} {asks}")).await;
        let answer = steps.iter().find(|s| s["step"] == "offer" || s["step"] == "ack").unwrap_or_else(|| panic!("{words}: {steps:#?}"));
        (answer["options"]["67"]["value"].as_str().unwrap().to_owned(), answer["yiaddr"].as_str().unwrap().to_owned())
    };
    for (xid, expected) in [("0x11111111", "undionly.kpxe"), ("0x22222222", "http://10.7.0.1:8080/boot.ipxe")] {
        let (offered, address) = file(&format!("discover eth0 --xid {xid}")).await;
        assert_eq!(offered, expected);
        for _ in 0..3 {
            assert_eq!(file(&format!("request eth0 --xid {xid} --requested {address} --server 10.7.0.1")).await.0, expected);
        }
    }
}

async fn where_another_server_does() {
    let mut site = Site::prepared(Plan { boot: "mode: proxy, range: 10.7.0.100-10.7.0.199", ..Plan::default() }).await;
    let _foreign = site.client_ready(2, "foreign eth0 --address 10.7.0.3 --range 10.7.0.50-10.7.0.59", "foreign").await;
    site.go().await;
    site.dhcp(&["boot files without addresses"], 20).await;
    at(&site).await;
}
