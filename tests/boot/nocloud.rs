//! A stock image configures itself: what cloud-init is told of a system that has no agent of ours.

use serde_json::{Value, json};

use super::site::{AUTO, MACS, Plan, Site, is_missing};

const ONE: &str = "8f14e45f-ceea-467f-a0e6-000000000001";
const AT: &str = "10.7.0.21";

#[tokio::test]
async fn a_system_without_an_agent_is_told_its_name_and_its_networks() {
    if is_missing() {
        return;
    }
    let head = "apiVersion: embody.dev/v1alpha1\n";
    let more =
        format!("---\n{head}kind: Network\nmetadata: {{ name: web }}\nspec: {{ vlan: 20, subnet: 10.8.0.0/24, gateway: 10.8.0.1 }}\n");
    let site = Site::with(Plan { more: &more, ..Plan::default() }).await;
    let persona = super::site::manifests(AUTO).split("---\n").find(|object| object.contains("kind: Persona")).unwrap().to_owned();
    let nics = format!("address: {AT}/24 }}, {{ name: front, untagged: web, tagged: [quarantine], address: 10.8.0.5/24 }} ]");
    site.controller.apply(&persona.replace(&format!("address: {AT}/24 }} ]"), &nics)).await;
    site.has_address(ONE).await;
    let script = site.script_from(AT, MACS[0], ONE).await;
    let seed = script.split("ds=nocloud-net;s=").nth(1).unwrap_or_else(|| panic!("{script}")).split(' ').next().unwrap().to_owned();
    assert!(seed.starts_with("http://10.7.0.1:8080/run/s1/") && seed.ends_with("/nocloud/"), "{seed}");
    let told = async |what: &str| site.fetch_from(AT, "cloud-init", "GET", &format!("{seed}{what}"), "").await;
    let (status, meta) = told("meta-data").await;
    let meta: Value = serde_json::from_str(&meta).unwrap();
    assert!(status == 200 && meta["local-hostname"] == "web-1" && meta["instance-id"].as_str().unwrap().len() == 32, "{meta}");
    let (_, network) = told("network-config").await;
    let expected = json!({
        "version": 2,
        "ethernets": {
            "boot": { "match": { "macaddress": MACS[0] }, "dhcp4": true, "critical": true },
            "front": { "match": { "macaddress": MACS[1] }, "addresses": ["10.8.0.5/24"], "routes": [{ "to": "0.0.0.0/0", "via": "10.8.0.1", "metric": 200 }] },
        },
        "vlans": { "front.99": { "id": 99, "link": "front" } },
    });
    assert_eq!(serde_json::from_str::<Value>(&network).unwrap(), expected, "{network}");
    assert!(told("user-data").await.1.starts_with("#cloud-config\n{"));
    assert_eq!((told("vendor-data").await.0, told("passwords").await.0), (200, 404));
    // Of an earlier start there is nothing.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    site.script_from(AT, MACS[0], ONE).await;
    assert_eq!(told("meta-data").await.0, 410);
}
