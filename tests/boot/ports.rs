//! Ports that somebody else holds: each is a condition, all the rest goes on, and it is served once the port is free.

use std::time::Duration;

use super::programs::{Process, until};
use super::site::{AUTO, MACS, Plan, Site, end, is_missing, of};

/// Holds ports as programs do that share them with nobody: `u67`, `t80`.
async fn holds(site: &Site, ports: &str, log: &str) -> Process {
    let code = "import socket, sys, time\nheld = []\nfor port in sys.argv[1].split(','):\n    udp = port[0] == 'u'\n    \
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)\n    s.bind(('0.0.0.0', int(port[1:])))\n    \
                udp or s.listen()\n    held.append(s)\nprint('held', flush=True)\ntime.sleep(600)\n";
    let process = site.program(0, &["/usr/bin/python3", "-c", code, ports], log);
    let path = site.dir.path().join(log);
    until("the ports", Duration::from_secs(10), async || {
        let said = std::fs::read_to_string(&path).unwrap_or_default();
        if said.contains("held\n") { Ok(()) } else { Err(said) }
    })
    .await;
    process
}

#[tokio::test]
async fn what_somebody_else_holds_is_a_condition() {
    if is_missing() {
        return;
    }
    tokio::join!(ports_of_others_are_conditions_and_are_served_once_they_are_free(), who_cannot_listen_gives_no_address());
}

async fn ports_of_others_are_conditions_and_are_served_once_they_are_free() {
    let mut site = Site::prepared(Plan { port: 80, ..Plan::default() }).await;
    let mut holder = holds(&site, "u67,u69,t80", "holder").await;
    site.go().await;
    let reads = async |condition: &str, parts: &[&str]| site.controller.reads("policy", "default", condition, parts, 30).await;
    reads("DhcpServed", &["False", "port 67 of eth0 is in use"]).await;
    reads("TftpServed", &["False AddressInUse", "port 69 of 10.7.0.1"]).await;
    reads("BootServed", &["False AddressInUse", "0.0.0.0:80"]).await;
    // Servers are switched on and watched all the same.
    site.bind("s1").await;
    site.stands().await;
    holder.kill().await;
    reads("DhcpServed", &["True Listening", "boot on eth0: addresses and boot files"]).await;
    reads("TftpServed", &["True Listening"]).await;
    reads("BootServed", &["True Listening"]).await;
    for (kind, file) in [("bios", "undionly.kpxe"), ("ipxe-uefi", "http://10.7.0.1/boot.ipxe")] {
        let steps = site.client(&format!("boot eth0 --as {kind} --mac {} --blocks 1432 --retry 1,2,3", MACS[0])).await;
        assert!(end(&steps)["result"] == "booted" && end(&steps)["bootfile"] == file, "{steps:#?}");
    }
}

/// Whoever cannot hear the answers of others has heard no silence.
async fn who_cannot_listen_gives_no_address() {
    let mut site = Site::prepared(Plan { boot: AUTO, ..Plan::default() }).await;
    let mut holder = holds(&site, "u68,u4011", "holder").await;
    let _foreign = site.client_ready(2, "foreign eth0 --address 10.7.0.3 --range 10.7.0.50-10.7.0.59", "foreign").await;
    site.go().await;
    site.dhcp(&["False", "port 68 of eth0 is in use", "port 4011 of eth0 is in use"], 30).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let steps = site.client("discover eth0 --as plain --mac 02:00:00:00:09:01 --wait 1 --retry 1,1,1").await;
    assert!(of(&steps, "offer").iter().all(|offer| offer["options"]["54"]["value"] == "10.7.0.3"), "{steps:#?}");
    holder.kill().await;
    site.dhcp(&["True Listening", "since the DHCP server 10.7.0.3"], 30).await;
}
