//! Who is refused an address, and who is not answered at all: an address that is not ours is another server's to refuse.

use super::site::{AUTO, MACS, Site, Step, end, is_missing, of};

const STRANGER: &str = "02:00:00:00:09:01";
const OTHER: &str = "02:00:00:00:09:02";
const WAYS: [&str; 3] = ["init-reboot", "renew", "rebind"];

async fn leased(site: &Site, mac: &str) -> String {
    let steps = site.client(&format!("boot eth0 --as plain --mac {mac} --retry 1,2,3")).await;
    assert_eq!(end(&steps)["result"], "leased", "{steps:#?}");
    end(&steps)["address"].as_str().unwrap().to_owned()
}

/// One question about an address: `ack`, `nak`, `silence`.
async fn asks(site: &Site, way: &str, mac: &str, address: &str, retry: &str) -> (String, Vec<Step>) {
    let which = if way == "init-reboot" { "--requested" } else { "--ciaddr" };
    let steps = site.client(&format!("{way} eth0 --mac {mac} {which} {address} --server 10.7.0.1 --retry {retry}")).await;
    (end(&steps)["result"].as_str().unwrap().to_owned(), steps)
}

#[tokio::test]
async fn who_is_refused_and_who_hears_nothing() {
    if is_missing() {
        return;
    }
    tokio::join!(
        what_is_not_ours_is_never_refused_and_what_is_ours_is_given_to_its_owner_alone(),
        with_reservations_a_stranger_hears_nothing()
    );
}

async fn what_is_not_ours_is_never_refused_and_what_is_ours_is_given_to_its_owner_alone() {
    let site = Site::start(AUTO).await;
    site.gives().await;
    let (mine, others) = (leased(&site, MACS[0]).await, leased(&site, STRANGER).await);
    assert_ne!(mine, others);
    let nobodys = (100..200).map(|n| format!("10.7.0.{n}")).find(|address| *address != mine && *address != others).unwrap();
    for way in WAYS {
        let (result, steps) = asks(&site, way, MACS[0], &mine, "1,2,3").await;
        assert_eq!(result, "ack", "{way}: {steps:#?}");
        let ack = of(&steps, "ack")[0];
        assert!(ack["yiaddr"] == mine && ack["options"]["54"]["value"] == "10.7.0.1", "{ack}");
        assert_eq!(ack["cast"], if way == "init-reboot" { "broadcast" } else { "unicast" }, "{ack}");
        for address in [&others, &nobodys] {
            let (result, steps) = asks(&site, way, MACS[0], address, "1,2,3").await;
            assert_eq!(result, "nak", "{way} {address}: {steps:#?}");
            let nak = of(&steps, "nak")[0];
            assert!(nak["yiaddr"] == "0.0.0.0" && nak["ciaddr"] == "0.0.0.0" && nak["cast"] == "broadcast", "{nak}");
        }
        // Outside of the range, and of the subnet; then one that never had an address of ours.
        for address in ["10.7.0.50", "192.168.7.7"] {
            let (result, steps) = asks(&site, way, MACS[0], address, "1").await;
            assert_eq!(result, "silence", "{way} {address}: {steps:#?}");
        }
        assert_eq!(asks(&site, way, OTHER, &mine, "1,2,3").await.0, "nak", "{way}");
        assert_eq!(asks(&site, way, OTHER, "10.7.0.50", "1").await.0, "silence", "{way}");
    }

    // What runs has its own address, and nobody else.
    site.bind("s1").await;
    site.stands().await;
    for way in WAYS {
        assert_eq!(asks(&site, way, MACS[0], "10.7.0.21", "1,2,3").await.0, "ack", "{way}");
        assert_eq!(asks(&site, way, MACS[0], &mine, "1,2,3").await.0, "nak", "{way}: a parked machine's address");
        assert_eq!(asks(&site, way, STRANGER, "10.7.0.21", "1,2,3").await.0, "nak", "{way}: an address of what runs");
    }
    // It took another server's: that is not answered, and says that there is one.
    let steps = site.client(&format!("request eth0 --mac {OTHER} --requested {nobodys} --server 10.7.0.77 --retry 1")).await;
    assert_eq!(end(&steps)["result"], "silence", "{steps:#?}");
    site.dhcp(&["since the DHCP server 10.7.0.77"], 5).await;
}

async fn with_reservations_a_stranger_hears_nothing() {
    let site = Site::start("mode: reservations, range: 10.7.0.100-10.7.0.199").await;
    site.dhcp(&["addresses and boot files to known machines"], 20).await;
    let _listens = site.client_ready(3, "listen eth0", "heard").await;
    for kind in ["plain", "bios", "uefi-http", "ipxe-uefi"] {
        assert_eq!(end(&site.client(&format!("boot eth0 --as {kind} --mac {STRANGER} --retry 1")).await)["result"], "no-offer", "{kind}");
    }
    for way in WAYS {
        assert_eq!(asks(&site, way, STRANGER, "10.7.0.150", "1").await.0, "silence", "{way}");
    }
    let steps = site.client(&format!("inform eth0 --mac {STRANGER} --ciaddr 10.7.0.2 --retry 1")).await;
    assert_eq!(end(&steps)["result"], "silence", "{steps:#?}");
    let steps = site.client(&format!("port4011 eth0 --server 10.7.0.1 --ciaddr 10.7.0.2 --mac {STRANGER} --retry 1")).await;
    assert_eq!(end(&steps)["result"], "silence", "{steps:#?}");
    let sent: Vec<Step> = site.said("heard").into_iter().filter(|p| p["src_ip"] == "10.7.0.1" && p["sport"] != 68).collect();
    assert!(sent.is_empty(), "{sent:#?}");

    // A known one is given one of the range, then its own.
    let address = leased(&site, MACS[0]).await;
    assert!(address.starts_with("10.7.0.1"), "{address}");
    site.bind("s1").await;
    site.stands().await;
    assert_eq!(leased(&site, MACS[0]).await, "10.7.0.21");
    let rows = site.controller.run(&["get", "discovered"]).await;
    assert!(rows.contains(STRANGER), "{rows}");
}
