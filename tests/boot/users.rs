//! What an ordinary user needs: three capabilities, or one of them for all but two things.

use super::programs::missing;
use super::site::{MACS, Plan, Site, end, is_missing, of};

async fn boots(site: &Site) {
    let cases = [
        ("bios", "undionly.kpxe"),
        ("uefi", "snponly.efi"),
        ("uefi-http", "http://10.7.0.1/loader/snponly.efi"),
        ("ipxe-uefi", "http://10.7.0.1/boot.ipxe"),
    ];
    for (kind, file) in cases {
        let steps = site.client(&format!("boot eth0 --as {kind} --mac {} --blocks 1468/4 --retry 1,2,3", MACS[0])).await;
        assert!(end(&steps)["result"] == "booted" && end(&steps)["bootfile"] == file, "{kind}: {steps:#?}");
        assert_eq!(of(&steps, "offer")[0]["src_ip"], "10.7.0.1");
    }
    let steps = site.client(&format!("port4011 eth0 --server 10.7.0.1 --mac {} --retry 1,2,3", MACS[0])).await;
    assert_eq!(end(&steps)["bootfile"], "snponly.efi", "{steps:#?}");
}

async fn site(capabilities: &str) -> Site {
    let site = Site::with(Plan { port: 80, capabilities: Some(capabilities), ..Plan::default() }).await;
    site.gives().await;
    site
}

#[tokio::test]
async fn an_ordinary_user_serves() {
    if is_missing() || missing(&["setpriv"]) {
        return;
    }
    tokio::join!(an_ordinary_user_with_three_capabilities_serves_everything(), with_ports_alone_it_serves_and_says_what_it_cannot());
}

async fn an_ordinary_user_with_three_capabilities_serves_everything() {
    let mut site = site("-all,+net_bind_service,+net_raw,+net_admin").await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.controller.process().id())).unwrap();
    assert!(status.contains("Uid:\t65534\t") && status.contains("CapEff:\t0000000000003400"), "{status}");
    boots(&site).await;
    let log = site.controller.log();
    assert!(!log.contains("no router advertisements here"), "{log}");
}

async fn with_ports_alone_it_serves_and_says_what_it_cannot() {
    let site = site("-all,+net_bind_service").await;
    boots(&site).await;
    super::programs::until("a word of what it cannot do", std::time::Duration::from_secs(20), async || {
        let log = site.controller.log();
        if log.contains("no router advertisements here") && log.contains("CAP_NET_RAW") { Ok(()) } else { Err(log) }
    })
    .await;
}
