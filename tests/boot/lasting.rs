//! An address that was given stays with its machine, and what is asked every day is not written down.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::site::{AUTO, MACS, Site, end, is_missing, of};

const STRANGER: &str = "02:00:00:00:09:01";

async fn leased(site: &Site, words: &str) -> String {
    let steps = site.client(&format!("boot eth0 --no-fetch --retry 1,2,3 {words}")).await;
    assert_eq!(end(&steps)["result"], "leased", "{words}: {steps:#?}");
    end(&steps)["address"].as_str().unwrap().to_owned()
}

/// What lies in a directory, by content.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let all = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    all.map(|path| (path.display().to_string(), format!("{:x?}", Sha256::digest(std::fs::read(&path).unwrap())))).collect()
}

#[tokio::test]
async fn addresses_last() {
    if is_missing() {
        return;
    }
    tokio::join!(an_address_stays_with_its_machine_whatever_it_calls_itself_and_over_a_crash(), questions_and_renewals_write_nothing());
}

async fn an_address_stays_with_its_machine_whatever_it_calls_itself_and_over_a_crash() {
    let mut site = Site::start(AUTO).await;
    site.gives().await;
    let mut were = Vec::new();
    for mac in [MACS[0], STRANGER] {
        let first = leased(&site, &format!("--as plain --mac {mac}")).await;
        // A client id, a DUID (RFC 4361), none, another UUID, another kind of client: it is the MAC address that counts.
        for words in ["--client-id 0102030405060708", "--client-id ff000000010001000a0b0c0d02aabbccddee", "--drop 61", "--as ipxe-uefi"] {
            assert_eq!(leased(&site, &format!("{words} --mac {mac}")).await, first, "{words}");
        }
        were.push((mac, first));
    }
    assert_ne!(were[0].1, were[1].1);
    site.controller.kill().await;
    site.controller.start().await;
    site.gives_now().await;
    for (mac, first) in &were {
        // It knows its own without a question to anybody, and finds it by one.
        let steps = site.client(&format!("init-reboot eth0 --mac {mac} --requested {first} --retry 1,2,3")).await;
        assert_eq!(end(&steps)["result"], "ack", "{steps:#?}");
        assert_eq!(leased(&site, &format!("--as uefi --client-id 0199 --mac {mac}")).await, *first);
    }
    // Nobody else is given theirs.
    for n in 2..12 {
        let other = leased(&site, &format!("--as plain --mac 02:00:00:00:09:{n:02x}")).await;
        assert!(were.iter().all(|(_, first)| *first != other), "{other}");
    }
}

async fn questions_and_renewals_write_nothing() {
    let site = Site::start(AUTO).await;
    site.gives().await;
    let data = site.dir.path().join("controller/data");
    let address = leased(&site, &format!("--as plain --mac {STRANGER}")).await;
    let known = leased(&site, &format!("--as plain --mac {}", MACS[3])).await;
    // What was applied is settled once nothing changes for a while.
    let mut before = files(&data);
    super::programs::until("a store at rest", std::time::Duration::from_secs(20), async || {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let now = files(&data);
        let is_same = now == before;
        before = now;
        if is_same { Ok(()) } else { Err("it still changes".to_owned()) }
    })
    .await;
    assert!(!before.is_empty(), "no store in {}", data.display());
    for n in 0..10 {
        for mac in [MACS[0], "02:00:00:00:09:02"] {
            let steps = site.client(&format!("discover eth0 --mac {mac} --as plain --wait 0.1 --retry 1,2,3")).await;
            assert!(!of(&steps, "offer").is_empty(), "{steps:#?}");
        }
        for (mac, address) in [(STRANGER, &address), (MACS[3], &known)] {
            let way = ["renew", "rebind"][n % 2];
            let steps = site.client(&format!("{way} eth0 --mac {mac} --ciaddr {address} --server 10.7.0.1 --retry 1,2,3")).await;
            assert_eq!(end(&steps)["result"], "ack", "{steps:#?}");
        }
        assert_eq!(leased(&site, &format!("--as plain --mac {STRANGER}")).await, address);
    }
    assert_eq!(files(&data), before);
    leased(&site, "--as plain --mac 02:00:00:00:09:03").await;
    assert_ne!(files(&data), before, "a new address is stored there");
}
