//! A DHCP server of one's own, with the lines that `embody inspect dhcp` prints.

use std::time::Duration;

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
    let kea: serde_json::Value = serde_json::from_str(&site.controller.run(&["inspect", "dhcp", HTTP, "--of", "kea"]).await).unwrap();
    assert_eq!(kea["client-classes"].as_array().unwrap().len(), 4);
    let refused = site.controller.say(&["inspect", "dhcp", "10.7.0.1"]).await;
    assert!(refused.code == 2 && refused.err.contains("expected http:// and an IPv4 address"), "{refused:?}");
}
