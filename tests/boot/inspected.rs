//! A DHCP server of one's own, with the lines that `embody inspect dhcp` prints.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::programs::{Process, missing, until};
use super::site::{HTTP, MACS, Site, end, is_missing, of};

#[tokio::test]
async fn dnsmasq_with_the_lines_that_are_printed_boots_a_client() {
    if is_missing() || missing(&["dnsmasq"]) {
        return;
    }
    let site = Site::start("mode: proxy").await;
    let lines = site.controller.run(&["inspect", "dhcp", HTTP]).await;
    let own = "port=0\nno-daemon\nbind-interfaces\ninterface=eth0\nno-ping\nlog-dhcp\nlog-facility=-\ndhcp-range=10.7.0.50,10.7.0.99,255.255.255.0,10m\n";
    let conf = site.dir.path().join("dnsmasq.conf");
    std::fs::write(&conf, format!("{own}dhcp-leasefile={}\n{lines}", site.dir.path().join("leases").display())).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &site.lan.hosts[2].0, "dnsmasq", "-C"]).arg(&conf);
    let _dnsmasq = Process::start(&mut command, &site.dir.path().join("dnsmasq"));
    until("dnsmasq", Duration::from_secs(10), async || {
        let said = std::fs::read_to_string(site.dir.path().join("dnsmasq")).unwrap_or_default();
        if said.contains("DHCP, IP range") { Ok(()) } else { Err(said) }
    })
    .await;
    boots_each_kind(&site).await;
    let refused = site.controller.say(&["inspect", "dhcp", "10.7.0.1"]).await;
    assert!(refused.code == 2 && refused.err.contains("expected http:// and an IPv4 address"), "{refused:?}");
}

#[tokio::test]
async fn kea_with_the_lines_that_are_printed_boots_a_client() {
    if is_missing() || missing(&["kea-dhcp4"]) {
        return;
    }
    let site = Site::start("mode: proxy").await;
    let mut dhcp: Value = serde_json::from_str(&site.controller.run(&["inspect", "dhcp", HTTP, "--of", "kea"]).await).unwrap();
    dhcp["interfaces-config"] = json!({ "interfaces": ["eth0"] });
    dhcp["lease-database"] = json!({ "type": "memfile", "persist": false });
    dhcp["subnet4"] = json!([{ "subnet": "10.7.0.0/24", "pools": [{ "pool": "10.7.0.50 - 10.7.0.99" }] }]);
    dhcp["loggers"] = json!([{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [{ "output": "stdout" }] }]);
    let conf = site.dir.path().join("kea.json");
    std::fs::write(&conf, json!({ "Dhcp4": dhcp }).to_string()).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &site.lan.hosts[2].0, "kea-dhcp4", "-c"]).arg(&conf);
    command.env("KEA_PIDFILE_DIR", site.dir.path()).env("KEA_LOCKFILE_DIR", site.dir.path());
    let _kea = Process::start(&mut command, &site.dir.path().join("kea"));
    until("Kea", Duration::from_secs(20), async || {
        let said = std::fs::read_to_string(site.dir.path().join("kea")).unwrap_or_default();
        if said.contains("DHCP4_STARTED") { Ok(()) } else { Err(said) }
    })
    .await;
    boots_each_kind(&site).await;
}

/// Each kind of firmware is told its loader or script by the other server itself.
async fn boots_each_kind(site: &Site) {
    let url = format!("{HTTP}/loader/snponly.efi");
    let script = format!("{HTTP}/boot.ipxe");
    let kinds = [("bios", "undionly.kpxe"), ("uefi", "snponly.efi"), ("uefi-http", &url), ("ipxe-bios", &script), ("ipxe-uefi", &script)];
    for (kind, file) in kinds {
        let steps = site.client(&format!("boot eth0 --as {kind} --mac {} --retry 1,2,3", MACS[0])).await;
        assert_eq!(end(&steps)["result"], "booted", "{kind}: {steps:#?}");
        let offers = of(&steps, "offer");
        let theirs = offers.iter().find(|offer| offer["src_ip"] == "10.7.0.3").unwrap_or_else(|| panic!("{kind}: {offers:#?}"));
        let said = theirs["options"]["67"]["value"].as_str().or(theirs["file"].as_str()).unwrap_or_default();
        assert_eq!(said, file, "{kind}: {theirs:#?}");
    }
}
