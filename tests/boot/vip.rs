//! Two controllers on one store, and the address that moves with the right to act: machines are told that one alone, before and after.

use std::time::Duration;

use super::controller::Controller;
use super::programs::{Process, missing, until};
use super::site::{AUTO, MACS, Plan, Site, Step, end, is_missing, of};

const VIP: &str = "10.7.0.9";
const ARGUMENTS: [&str; 4] = ["--store", "etcd://10.7.0.3:2379", "--boot-vip", "10.7.0.9/24"];

fn etcd(site: &Site) -> Process {
    let data = site.dir.path().join("etcd").display().to_string();
    let words = [
        "etcd",
        "--name=0",
        &format!("--data-dir={data}"),
        "--listen-client-urls=http://10.7.0.3:2379",
        "--advertise-client-urls=http://10.7.0.3:2379",
        "--listen-peer-urls=http://10.7.0.3:2380",
        "--initial-advertise-peer-urls=http://10.7.0.3:2380",
        "--initial-cluster=0=http://10.7.0.3:2380",
    ];
    site.program(2, &words, "etcd.log")
}

/// On which hosts the address is.
fn held(site: &Site) -> Vec<usize> {
    let has = |host: &usize| site.lan.hosts[*host].ip("-4 -o addr show dev eth0").contains(&format!("{VIP}/"));
    [0, 3].into_iter().filter(has).collect()
}

/// A machine boots, by nothing but the address; its own address.
fn booted(steps: &[Step]) -> Result<String, String> {
    if end(steps)["result"] != "booted" {
        return Err(end(steps).to_string());
    }
    for answer in [of(steps, "offer"), of(steps, "ack")].concat() {
        assert!(answer["options"]["54"]["value"] == VIP && answer["siaddr"] == VIP, "{answer}");
    }
    Ok(end(steps)["address"].as_str().unwrap().to_owned())
}

async fn boots(site: &Site, within: u64) -> String {
    let mut address = String::new();
    until("a boot", Duration::from_secs(within), async || {
        let words = format!("boot eth0 --as uefi --mac {} --blocks 1468/4 --retry 1,2", MACS[0]);
        address = booted(&site.client(&words).await)?;
        Ok(())
    })
    .await;
    let steps = site.client(&format!("boot eth0 --as ipxe-uefi --mac {} --retry 1,2,4", MACS[0])).await;
    assert_eq!(booted(&steps).as_ref(), Ok(&address), "{steps:#?}");
    assert_eq!(end(&steps)["bootfile"], format!("http://{VIP}:8080/boot.ipxe"));
    address
}

#[tokio::test]
async fn another_controller_goes_on() {
    if is_missing() || missing(&["etcd"]) {
        return;
    }
    tokio::join!(the_address_moves_with_the_right_to_act(), without_an_address_that_moves_its_own_is_told());
}

fn second(site: &Site, arguments: &[&str]) -> Controller {
    let files = site.dir.path().join("files").display().to_string();
    let arguments = [&["--boot-address", "0.0.0.0:8080", "--boot-files", &files][..], arguments].concat();
    Controller::new(site.dir.path(), "second", &arguments).within(&site.lan.hosts[3].0)
}

async fn boots_by(site: &Site, server: &str) -> String {
    let mut address = String::new();
    until(&format!("a boot by {server}"), Duration::from_secs(60), async || {
        let steps = site.client(&format!("boot eth0 --as uefi --mac {} --blocks 1468/4 --retry 1,2", MACS[0])).await;
        let is_so = end(&steps)["result"] == "booted" && of(&steps, "choice")[0]["server"] == server;
        address = end(&steps)["address"].as_str().unwrap_or_default().to_owned();
        if is_so { Ok(()) } else { Err(end(&steps).to_string()) }
    })
    .await;
    address
}

/// One that has acted and waits again does not take the one that acts for a foreign server.
async fn without_an_address_that_moves_its_own_is_told() {
    let mut site = Site::prepared(Plan { boot: AUTO, arguments: &ARGUMENTS[..2], ..Plan::default() }).await;
    let _etcd = etcd(&site);
    site.go().await;
    let mut second = second(&site, &ARGUMENTS[..2]);
    second.start().await;
    site.gives().await;
    let address = boots_by(&site, "10.7.0.1").await;
    // One that is late, not dead: the other one takes over, and is heard by the first while that waits.
    site.controller.process().signal("-STOP").await;
    assert_eq!(boots_by(&site, "10.7.0.4").await, address);
    site.controller.process().signal("-CONT").await;
    for _ in 0..3 {
        assert_eq!(boots_by(&site, "10.7.0.4").await, address);
    }
    second.kill().await;
    assert_eq!(boots_by(&site, "10.7.0.1").await, address);
}

async fn the_address_moves_with_the_right_to_act() {
    let mut site = Site::prepared(Plan { boot: AUTO, arguments: &ARGUMENTS, ..Plan::default() }).await;
    let _etcd = etcd(&site);
    site.go().await;
    site.controller.reads("policy", "default", "BootAddressHeld", &["True Held", VIP, "eth0"], 20).await;
    let mut second = second(&site, &ARGUMENTS);
    second.start().await;
    let address = boots(&site, 20).await;
    assert_eq!(held(&site), [0]);

    site.controller.kill().await;
    assert_eq!(boots(&site, 60).await, address, "an address that was given is known to the next one");
    assert_eq!(held(&site), [3]);
    second.reads("policy", "default", "BootAddressHeld", &["True Held"], 5).await;
    second.reads("policy", "default", "DhcpServed", &["boot on eth0: addresses and boot files"], 5).await;

    // Back again: that waits, until the other one ends.
    site.controller.start().await;
    assert_eq!((boots(&site, 5).await, held(&site)), (address.clone(), vec![3]));
    second.process().signal("-TERM").await;
    second.process().wait().await;
    assert_eq!((boots(&site, 30).await, held(&site)), (address, vec![0]));
}
