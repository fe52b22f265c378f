//! What goes wrong while machines boot, and mends itself.

use std::time::Duration;

use super::initrd::Guest;
use super::machine::Kind;
use super::site::{ADDRESS, AUTO, RACKS, Site, cache, is_missing};

#[tokio::test]
async fn a_kernel_that_is_missing_for_a_minute_is_fetched_when_it_is_there() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let site = Site::start(&[Kind::Bios], AUTO).await;
    let (kernel, hidden) = (site.lab.dir.join("files/vmlinuz"), site.lab.dir.join("files/hidden"));
    std::fs::rename(&kernel, &hidden).unwrap();
    site.bind("a", "").await;
    super::programs::until("a fetch that fails", Duration::from_secs(180), async || {
        let why = site.why().await;
        let told = why.contains("its boot script asks for vmlinuz, and there is no such file in") && why.contains("[StartFails");
        if told { Ok(()) } else { Err(why) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    std::fs::rename(&hidden, &kernel).unwrap();
    let took = site.ready(300).await;
    eprintln!("as desired {:.1} s after the kernel was there", took.as_secs_f64());
    assert!(site.page(ADDRESS).await.unwrap().contains("web-1"));
}

/// As the README has it made: it comes up, says hello, and obeys the power button.
#[tokio::test]
async fn the_rescue_system_of_the_examples_comes_up_and_goes_off() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let site = Site::start(&[Kind::Bios], AUTO).await;
    let kernel = Guest::build(&cache()).kernel;
    let version = kernel.file_name().unwrap().to_str().unwrap().trim_start_matches("vmlinuz-").to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rescue-initrd.sh");
    let made = std::process::Command::new("sh").arg(script).arg(site.lab.dir.join("files")).env("KERNEL", version).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    site.bind("a", "").await;
    let took = site.ready(300).await;
    eprintln!("the rescue system is as desired after {:.1} s: {}", took.as_secs_f64(), String::from_utf8_lossy(&made.stdout));
    let why = site.why().await;
    assert!(why.contains("hello +"), "{why}");
    site.bind("a", ", state: Stopped").await;
    super::programs::until("it is off", Duration::from_secs(60), async || {
        let said = site.controller.run(&["get", "servers", "a"]).await;
        if said.contains(" Off ") { Ok(()) } else { Err(said) }
    })
    .await;
    let events = site.controller.run(&["events"]).await;
    assert!(events.contains("soft-off") && !events.contains("hard off"), "{events}");
}
