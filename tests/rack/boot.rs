//! `/boot/<mac>`: what a machine boots is the persona that may run there at that moment, and nothing else.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::moves::{comes_to_life, moves};
use super::programs::{PEERS, missing, until};
use super::site::{MACS, Manifests, Site};

/// Status and body of the boot answer for a MAC address; 0 where nobody listens.
pub async fn ask(port: u16, mac: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return (0, String::new()) };
    stream.write_all(format!("GET /boot/{mac} HTTP/1.0\r\nHost: boot\r\nUser-Agent: iPXE/1.21.1+\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

async fn boots(port: u16, mac: &str) {
    let (status, script) = ask(port, mac).await;
    assert!(status == 200 && script.starts_with("#!ipxe\n"), "{status} {script}");
    assert!(script.contains("kernel --name kernel http://10.0.20.5/apache/vmlinuz "), "{script}");
    assert!(script.contains("nfsroot=10.0.20.5:/personas/apache"), "{script}");
}

async fn is_parked(port: u16, mac: &str) {
    let (status, script) = ask(port, mac).await;
    assert!(status == 200 && script.starts_with("#!ipxe\n") && script.contains("parked"), "{status} {script}");
    assert!(!script.contains("kernel"), "{script}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_boot_answer_goes_with_the_persona() {
    if missing(&PEERS) {
        return;
    }
    // Somebody else has the port: that is told, and is not the end.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let site = Site::start(&["--boot-address", &format!("127.0.0.1:{port}")]).await;
    comes_to_life(&site, &Manifests::default()).await;
    site.controller.reads("policy", "default", "BootServed", &["False AddressInUse", &port.to_string()], 10).await;
    drop(taken);
    until("boot answers", Duration::from_secs(20), async || match ask(port, MACS[0]).await {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    site.controller.reads("policy", "default", "BootServed", &["True"], 10).await;

    // Two starts are a second apart.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    boots(port, MACS[0]).await;
    // It boots over its other NIC.
    is_parked(port, MACS[1]).await;
    is_parked(port, MACS[2]).await;
    is_parked(port, "52:54:00:ff:ff:ff").await;
    assert_eq!(ask(port, "nonsense").await.0, 400);
    moves(&site, "b", &["shutdown 1"]).await;
    is_parked(port, MACS[0]).await;
    boots(port, MACS[2]).await;
}
