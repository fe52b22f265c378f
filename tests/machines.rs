//! A rack of real machines: QEMU with real firmware behind a real VLAN switch, started by IPMI, booted by `embody` alone.
//!
//! Leaves out: what the protocols do in each corner (`tests/boot.rs`). Invariant: nothing is asked of `embody` that a person could not ask, and
//! nothing that it says of a machine is believed: the machine's own page is.

#[path = "rack/controller.rs"]
#[allow(dead_code, reason = "the rack of scripts uses the rest")]
mod controller;
#[path = "machines/initrd.rs"]
mod initrd;
#[path = "machines/lab.rs"]
#[allow(dead_code, reason = "benches use the rest")]
mod lab;
#[path = "machines/machine.rs"]
#[allow(dead_code, reason = "benches use the rest")]
mod machine;
#[path = "rack/programs.rs"]
#[allow(dead_code, reason = "the rack of scripts uses the rest")]
mod programs;
#[path = "machines/site.rs"]
mod site;

use machine::Kind;
use site::{Site, is_missing};

/// As most sites would write it.
const AUTO: &str = "range: 10.77.0.100-10.77.0.199";

#[tokio::test]
async fn a_machine_boots() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let site = Site::start(&[Kind::Bios], AUTO).await;
    eprintln!("the rack stands after {:.1} s", site.begun.elapsed().as_secs_f64());
    site.bind("a", "").await;
    let took = site.ready(120).await;
    eprintln!("ready after {:.1} s\n{}", took.as_secs_f64(), site.controller.run(&["why", "web"]).await);
    let address = site.leased(1).await.unwrap();
    let page = site.page(&address).await.unwrap();
    assert!(page.contains("web-1"), "{page}");
}
