//! The demo with machines, as a newcomer starts it: it comes up, says each stage, and leaves nothing behind.

use std::time::Duration;

use tokio::process::Command;

use super::machine::Kind;
use super::programs::{Process, until};
use super::site::{RACKS, is_missing};

#[tokio::test]
async fn a_demo_of_machines_comes_up_and_leaves_nothing() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let dir = tempfile::tempdir().unwrap();
    let (runtime, temporary) = (dir.path().join("run"), dir.path().join("tmp"));
    std::fs::create_dir(&runtime).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_embody"));
    command.args(["demo", "--rack", "--exit-when-ready", "--timeout", "5m"]).kill_on_drop(true);
    let output = command.env("XDG_RUNTIME_DIR", &runtime).env("TMPDIR", &temporary).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for stage in ["a: power on", "a: DHCP", "a: script (persona rescue)", "a: kernel", "a: initrd runs", "a: hello", "rescue-1 is ready"] {
        assert!(said.contains(stage), "{said}");
    }
    eprintln!("{said}");
    let left = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert!(left(&runtime).is_empty() && left(&temporary).is_empty(), "{:?} {:?}", left(&runtime), left(&temporary));
}

/// As a terminal that is closed, or somebody at `kill -9`: nothing of it goes on.
#[tokio::test]
async fn a_demo_that_is_killed_leaves_no_machine_behind() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let dir = tempfile::tempdir().unwrap();
    let (runtime, temporary) = (dir.path().join("run"), dir.path().join("tmp"));
    std::fs::create_dir(&runtime).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_embody"));
    command.args(["demo", "--rack"]).env("XDG_RUNTIME_DIR", &runtime).env("TMPDIR", &temporary);
    let demo = Process::start(&mut command, &dir.path().join("said"));
    let machines = || {
        let of_it = |arguments: &Vec<u8>| String::from_utf8_lossy(arguments).contains(&*temporary.to_string_lossy());
        let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        all.filter(of_it).count()
    };
    let until_there_are = async |some: bool| {
        until("the machines", Duration::from_secs(120), async || {
            let found = machines();
            if (found > 0) == some { Ok(()) } else { Err(format!("{found} of them")) }
        })
        .await;
    };
    until_there_are(true).await;
    demo.signal("-KILL").await;
    until_there_are(false).await;
}

/// Its DHCP server would answer to everybody.
#[tokio::test]
async fn a_demo_does_not_take_the_network_of_its_host() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_embody"));
    let output = command.args(["demo", "--rack", "--exit-when-ready"]).env("EMBODY_DEMO_INSIDE", "1").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("this is no namespace of the demo's own"), "{said}");
}
