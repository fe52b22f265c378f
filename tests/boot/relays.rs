//! Machines behind a relay agent: nobody is heard there, so addresses are given where that is said in words alone.

use super::site::{AUTO, Plan, Site, end, is_missing, of};

/// A network behind a router that is host 1, with a relay agent at 10.9.0.1; and one that nothing reaches.
fn far(boot: &str) -> String {
    format!(
        "---\napiVersion: embody.dev/v1alpha1\nkind: Network\nmetadata: {{ name: far }}\nspec: {{ vlan: 20, subnet: 10.9.0.0/24, gateway: 10.9.0.254, \
         boot: {{ range: 10.9.0.100-10.9.0.199{boot} }} }}\n"
    )
}

async fn site(boot: &str) -> Site {
    let more = far(boot);
    let mut site = Site::prepared(Plan { boot: AUTO, more: &more, ..Plan::default() }).await;
    site.lan.hosts[1].ip("addr add 10.9.0.1/24 dev eth0");
    site.lan.hosts[1].ip("addr add 10.11.0.1/24 dev eth0");
    for net in ["10.9.0.0/24", "10.11.0.0/24"] {
        site.lan.hosts[0].ip(&format!("route add {net} via 10.7.0.2"));
    }
    site.go().await;
    site.gives().await;
    site
}

const OPTION_82: &str = "--circuit 0a0b0c --remote 02aabbccddee --sub 9=0102";

#[tokio::test]
async fn behind_a_relay_addresses_are_given_where_it_is_said_alone() {
    if is_missing() {
        return;
    }
    tokio::join!(behind_a_relay_auto_gives_no_address(), behind_a_relay_full_gives_addresses_of_that_network());
}

async fn behind_a_relay_auto_gives_no_address() {
    let site = site("").await;
    let reached = async |parts: &[&str]| site.controller.reads("policy", "default", "BootNetworksReached", parts, 20).await;
    reached(&["False NotReached", "far (10.9.0.0/24)", "no relay agent has brought a question from there"]).await;
    // A relay may be there that has nothing to bring yet.
    site.controller.reads("policy", "default", "Ready", &["True"], 5).await;
    let asks = format!("relay eth0 --giaddr 10.9.0.1 --server 10.7.0.1 --mac 02:00:00:00:09:01 {OPTION_82}");
    let steps = site.client(&format!("{asks} --as uefi --retry 1,2,3")).await;
    assert_eq!(end(&steps)["result"], "no-address", "{steps:#?}");
    let offer = of(&steps, "offer")[0];
    assert!(offer["yiaddr"] == "0.0.0.0" && offer["file"] == "snponly.efi" && offer["siaddr"] == "10.7.0.1", "{offer}");
    assert!(offer["option82"] == "echoed" && offer["giaddr_kept"] == true && offer["option82_last"] == true, "{offer}");
    assert_eq!(end(&site.client(&format!("{asks} --as plain --retry 1,1")).await)["result"], "no-offer");
    reached(&["True Reached"]).await;
}

async fn behind_a_relay_full_gives_addresses_of_that_network() {
    let site = site(", mode: full").await;
    let _listens = site.client_ready(3, "listen eth0", "heard").await;
    for kind in ["plain", "uefi", "ipxe-bios"] {
        let asks = format!("relay eth0 --giaddr 10.9.0.1 --server 10.7.0.1 --mac 02:00:00:00:09:01 {OPTION_82} --as {kind} --hops 3");
        let steps = site.client(&format!("{asks} --retry 1,2,3")).await;
        assert_eq!(end(&steps)["result"], "ack", "{steps:#?}");
        for answer in [of(&steps, "offer")[0], of(&steps, "ack")[0]] {
            assert!(answer["yiaddr"].as_str().unwrap().starts_with("10.9.0.1"), "{answer}");
            assert!(answer["option82"] == "echoed" && answer["giaddr_kept"] == true && answer["option82_last"] == true, "{answer}");
            assert!(answer["options"]["3"]["hex"] == "0a0900fe" && answer["options"]["54"]["value"] == "10.7.0.1", "{answer}");
        }
    }
    // Without option 82, and from where no network is.
    let steps = site.client("relay eth0 --giaddr 10.9.0.1 --server 10.7.0.1 --mac 02:00:00:00:09:02 --retry 1,2,3").await;
    assert_eq!(of(&steps, "ack")[0]["option82"], "none", "{steps:#?}");
    let steps = site.client("relay eth0 --giaddr 10.11.0.1 --server 10.7.0.1 --as uefi --mac 02:00:00:00:09:03 --retry 1,1").await;
    assert_eq!(end(&steps)["result"], "no-offer", "{steps:#?}");
    // All of it went to the relay, nothing to the wire.
    let packets = site.said("heard");
    assert!(of(&packets, "packet").iter().all(|p| p["sport"] != 67), "{packets:#?}");
    let leases = site.controller.run(&["get", "leases"]).await;
    assert!(leases.contains("10.9.0.1") && leases.contains("far") && !leases.contains("09:03"), "{leases}");
    let rows = site.controller.run(&["get", "discovered"]).await;
    assert!(rows.contains("10.9.0.1"), "{rows}");
}
