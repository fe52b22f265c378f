//! Who is given what, over the wire.

use sha2::{Digest, Sha256};

use super::site::{AUTO, HTTP, MACS, Site, end, is_missing, of, run_of};

const ONE: &str = "8f14e45f-ceea-467f-a0e6-000000000001";

fn sha256(path: &str) -> String {
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn firmware_gets_an_address_and_what_it_boots_by() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.gives().await;
    // Parked: an address of the range, the loader, and a script that says so.
    let [s1, s1_other, ..] = MACS;
    for (kind, loader) in [("bios", "undionly.kpxe"), ("uefi", "snponly.efi"), ("uefi-http", "snponly.efi")] {
        let steps = site.client(&format!("boot eth0 --as {kind} --mac {s1} --uuid {ONE} --retry 1,2,3")).await;
        assert_eq!(end(&steps)["result"], "booted", "{kind}: {steps:#?}");
        let fetched = steps.iter().find(|s| s["sha256"].is_string()).unwrap_or_else(|| panic!("{steps:#?}"));
        assert_eq!(fetched["sha256"], sha256(&format!("/usr/lib/ipxe/{loader}")), "{kind}");
        let offer = of(&steps, "offer")[0];
        assert_eq!(offer["options"]["54"]["value"], "10.7.0.1", "{offer}");
    }
    let steps = site.client(&format!("boot eth0 --as ipxe-bios --mac {s1} --uuid {ONE} --retry 1,2,3")).await;
    let file = of(&steps, "offer")[0]["options"]["67"]["value"].clone();
    assert_eq!(file, format!("{HTTP}/boot.ipxe"));
    let steps = site.client(&format!("boot eth0 --as uefi --mac {s1_other} --retry 1,2,3")).await;
    assert_eq!(end(&steps)["result"], "no-bootfile", "{steps:#?}");
    let events = site.controller.run(&["events"]).await;
    assert!(events.contains("NoBootFile") && events.contains("boots over NIC nic1"), "{events}");
    assert!(site.script(s1, ONE).await.contains("parked: nothing is to run on s1"));

    // Nobody names it: an address, the parking script, and a row.
    let steps = site.client(&format!("boot eth0 --as ipxe-uefi --mac 02:00:00:00:09:01 --uuid {ONE} --retry 1,2,3")).await;
    assert_eq!(end(&steps)["result"], "booted", "{steps:#?}");
    assert!(site.script("02:00:00:00:09:01", ONE).await.contains("parked: no server has this MAC address"));
    let rows = site.controller.run(&["get", "discovered"]).await;
    assert!(rows.contains("02:00:00:00:09:01") && rows.contains(ONE) && !rows.contains(s1), "{rows}");
    let manifest = site.controller.run(&["get", "discovered", "-o", "manifest"]).await;
    assert!(manifest.contains("kind: Server") && manifest.contains("mac: \"02:00:00:00:09:01\""), "{manifest}");
    let leases = site.controller.run(&["get", "leases"]).await;
    assert!(leases.contains("02:00:00:00:09:01") && leases.contains(s1) && leases.contains("s1"), "{leases}");
}

#[tokio::test]
async fn what_stands_is_started_once_for_each_script_and_says_hello_by_its_token() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.has_address(ONE).await;
    let why = site.controller.run(&["why", "web"]).await;
    assert!(why.contains("has asked for an address, and has fetched no boot script yet [Starting"), "{why}");

    // Nobody starts it, and nothing is said of it, from anywhere but the address that it was given.
    let elsewhere = site.script(MACS[0], ONE).await;
    assert!(elsewhere.contains("which is not the address that it was given") && !elsewhere.contains("kernel"), "{elsewhere}");
    let (status, head) = site.fetch_from("10.7.0.21", "iPXE/1.21.1+", "HEAD", &format!("/boot/{}", MACS[0].replace(':', "-")), "").await;
    assert_eq!((status, head.trim()), (200, ""));
    let why = site.controller.run(&["why", "web"]).await;
    assert!(why.contains("has fetched no boot script yet [Starting"), "{why}");
    let script = async |uuid: &str| {
        // Two starts are a second apart.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        site.script_from("10.7.0.21", MACS[0], uuid).await
    };
    let first = script(ONE).await;
    assert!(first.contains(&format!("kernel --name kernel {HTTP}/files/vmlinuz initrd=initrd ")) && first.contains("panic=30"), "{first}");
    let first = run_of(&first);
    let (status, kernel) = site.fetch_from("10.7.0.21", "iPXE/1.21.1+", "GET", "/files/vmlinuz", "").await;
    assert!(status == 200 && kernel.len() > 90_000);
    assert_eq!(site.fetch("GET", "/files/../controller/log", "").await.0, 404);
    assert_eq!(site.fetch("GET", &format!("{first}/failed/kernel"), "").await.0, 200);
    let why = site.controller.run(&["why", "web"]).await;
    assert!(why.contains("nothing in it has said hello yet") && why.contains("its step `kernel` failed"), "{why}");

    // It begins anew by itself: another token, and the older one is void.
    let second = run_of(&script(ONE).await);
    assert_ne!(first, second);
    assert_eq!(site.fetch("POST", &format!("{first}/stage/initrd"), "").await.0, 410);
    assert_eq!(site.fetch("POST", &format!("{first}/hello"), "{}").await.0, 410);
    assert_eq!(site.fetch("POST", &format!("{}/hello", second.replace("/s1/", "/s2/")), "{}").await.0, 410);
    assert_eq!(site.fetch("POST", &format!("{second}/stage/initrd"), "").await.0, 204);
    let degraded = r#"{"state": "degraded", "failed_units": ["nginx.service", "a\u001b[2J.service"], "of": "somebody"}"#;
    assert_eq!(site.fetch("POST", &format!("{second}/hello"), degraded).await.0, 204);
    // Once more, as of an answer that was lost: the first word counts.
    assert_eq!(site.fetch("POST", &format!("{second}/hello"), "{}").await.0, 204);
    site.controller.ready("web", 10).await;
    let shown = site.controller.run(&["describe", "binding", "web"]).await;
    let units = shown.lines().find(|line| line.trim_start().starts_with("UnitsRunning")).unwrap_or_else(|| panic!("{shown}"));
    assert!(units.contains("False") && units.contains("failed when it came up: nginx.service, a") && !units.contains('\u{1b}'), "{units}");
    site.controller.ready("web", 10).await;
    // Every stage that was seen, for people.
    let described = site.controller.run(&["describe", "server", "s1"]).await;
    let stages = described.split("Last start:").nth(1).unwrap_or_default();
    for stage in ["STAGE", "script ", "initrd runs ", "hello "] {
        assert!(stages.contains(stage), "{described}");
    }
    let wide = site.controller.run(&["get", "servers", "-o", "wide"]).await;
    assert!(wide.contains("LAST-START") && wide.lines().any(|line| line.starts_with("s1 ") && line.contains("hello ")), "{wide}");
    // Who looks by hand starts nothing, and voids nothing.
    let path = format!("/boot/{}", MACS[0].replace(':', "-"));
    for agent in ["curl/8.5.0", "Wget/1.21.3", ""] {
        let (status, shown) = site.fetch_as(agent, "GET", &path, "").await;
        assert!(status == 200 && shown.contains("it would start persona p on s1") && !shown.contains("#!ipxe"), "{shown}");
    }
    assert_eq!(site.fetch("POST", &format!("{second}/hello"), "{}").await.0, 204);
    site.controller.ready("web", 10).await;
    // Said again and again, it is one event.
    for _ in 0..5 {
        assert_eq!(site.fetch("POST", &format!("{first}/hello"), "{}").await.0, 410);
    }
    let events = site.controller.run(&["events"]).await;
    assert_eq!(events.matches("HelloRefused").count(), 1, "{events}");
    assert!(events.contains("HelloRefused") && events.contains("StartedByItself"), "{events}");

    // Another machine with this MAC address is not it.
    let other = ONE.replace("01", "02");
    assert!(script(&other).await.contains("parked: the machine says it is"));
    // Another key: what the one before has signed is taken, once.
    site.controller.run(&["rotate-key"]).await;
    assert_eq!(site.fetch("POST", &format!("{second}/hello"), "{}").await.0, 204);
    site.controller.run(&["rotate-key"]).await;
    assert_eq!(site.fetch("POST", &format!("{second}/hello"), "{}").await.0, 410);
}

#[tokio::test]
async fn without_boot_in_a_network_nothing_is_ever_sent() {
    if is_missing() {
        return;
    }
    let site = Site::start("").await;
    let _listens = site.client_beside(2, "listen eth0", "heard");
    let steps = site.client(&format!("boot eth0 --as uefi --mac {} --retry 1,1,1", MACS[0])).await;
    assert_eq!(end(&steps)["result"], "no-offer", "{steps:#?}");
    let heard = site.said("heard");
    let packets = of(&heard, "packet");
    assert!(!packets.is_empty() && packets.iter().all(|p| p["src_ip"] == "0.0.0.0"), "{packets:#?}");
}
