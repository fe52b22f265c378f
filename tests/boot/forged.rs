//! Somebody on the boot network who means harm, or has a slip of the finger: who asks in another's name starts nothing, and takes nobody's turn.

use std::time::Duration;

use super::programs::until;
use super::site::{AUTO, MACS, Site, end, is_missing, of, run_of};

const ONE: &str = "8f14e45f-ceea-467f-a0e6-000000000001";

/// So many downloads that nobody reads.
const UNREAD: &str = "import socket, sys, time\n\
    held = []\n\
    for n in range(400):\n    \
        s = socket.create_connection(('10.7.0.1', 8080), 5); s.sendall(b'GET /files/large HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); held.append(s)\n\
    print('{\"held\": %d}' % len(held), flush=True)\n\
    time.sleep(600)\n";

#[tokio::test]
async fn downloads_that_nobody_reads_take_no_seat_of_others() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.gives().await;
    std::fs::File::create(site.dir.path().join("files/large")).unwrap().set_len(64 << 20).unwrap();
    let _unread = site.program(2, &["/usr/bin/python3", "-c", UNREAD], "unread");
    until("the downloads", Duration::from_secs(60), async || if site.said("unread").is_empty() { Err(String::new()) } else { Ok(()) })
        .await;
    for _ in 0..20 {
        assert_eq!(site.fetch("GET", "/boot.ipxe", "").await.0, 200);
    }
    let (status, kernel) = site.fetch("GET", "/files/vmlinuz", "").await;
    assert!(status == 200 && kernel.len() > 90_000);
}

/// Questions in the name of a server, from another address than its own: neither that it started nor that it waits follows from them.
#[tokio::test]
async fn who_asks_in_anothers_name_starts_nothing() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.has_address(ONE).await;
    let script = site.script_from("10.7.0.21", MACS[0], ONE).await;
    let run = run_of(&script);
    assert_eq!(site.fetch("POST", &format!("{run}/hello"), "{}").await.0, 204);
    site.controller.ready("web", 10).await;
    for _ in 0..5 {
        assert!(site.script(MACS[0], ONE).await.contains("which is not the address that it was given"));
        let wrong = site.fetch("GET", &format!("/boot/{}?arch=arm64", MACS[0].replace(':', "-")), "").await.1;
        assert!(wrong.contains("which is not the address that it was given"), "{wrong}");
    }
    // The token of its start is good still, and it is as it was.
    assert_eq!(site.fetch("POST", &format!("{run}/hello"), "{}").await.0, 204);
    site.controller.ready("web", 10).await;
    let events = site.controller.run(&["events"]).await;
    assert!(!events.contains("StartedByItself") && !events.contains("HelloRefused"), "{events}");
    // A file of its script that is not there is told, and so is what it was.
    std::fs::remove_file(site.dir.path().join("files/vmlinuz")).unwrap();
    let path = "/files/vmlinuz";
    assert_eq!(site.fetch_from("10.7.0.21", "iPXE/1.21.1+", "GET", path, "").await.0, 404);
    let why = site.controller.run(&["why", "web"]).await;
    assert!(why.contains("its boot script asks for vmlinuz, and there is no such file in") && why.contains("[StartFails"), "{why}");
}

/// A client that names a DHCP server which nobody hears.
#[tokio::test]
async fn a_server_that_a_client_names_is_believed_for_minutes_alone() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.gives().await;
    let steps = site.client("request eth0 --mac 02:00:00:00:09:01 --server 10.7.0.99 --requested 10.7.0.150 --wait 0.2 --retry 1").await;
    assert!(of(&steps, "ack").is_empty() && end(&steps)["step"] == "end", "{steps:#?}");
    site.dhcp(&["boot files without addresses, since the DHCP server 10.7.0.99 answers there"], 10).await;
}

/// Requests that nobody acknowledges, and octets that are no requests.
const TFTP: &str = "import random, socket, time\n\
    random.seed(7)\n\
    held = []\n\
    for n in range(300):\n    \
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'\\0\\1snponly.efi\\0octet\\0blksize\\x001468\\0', ('10.7.0.1', 69)); held.append(s)\n\
    for n in range(2000):\n    \
        size = random.randrange(0, 600); junk = bytes(random.randrange(256) for _ in range(size))\n    \
        if n % 2: junk = b'\\0' + bytes([random.randrange(8)]) + junk\n    \
        if n % 5 == 0: junk = b'\\0\\1' + random.choice([b'../../etc/passwd', b'', b'x' * 500, b'snponly.efi']) + b'\\0octet\\0' + junk\n    \
        held[n % 300].sendto(junk, ('10.7.0.1', 69))\n\
    print('{\"sent\": 2300}', flush=True)\n\
    time.sleep(600)\n";

#[tokio::test]
async fn a_flood_of_tftp_keeps_nobody_from_its_loader() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.gives().await;
    let _flood = site.program(2, &["/usr/bin/python3", "-c", TFTP], "flood");
    until("the flood", Duration::from_secs(60), async || if site.said("flood").is_empty() { Err(String::new()) } else { Ok(()) }).await;
    for blocks in ["512", "1468/4", "1468/16"] {
        let steps = site.client(&format!("boot eth0 --as uefi --mac {} --blocks {blocks} --retry 1,2,3", MACS[0])).await;
        assert_eq!(end(&steps)["result"], "booted", "{blocks}: {steps:#?}");
    }
}
