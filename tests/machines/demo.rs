//! The demo with machines, as a newcomer starts it: it comes up, says each stage, and leaves nothing behind.

use tokio::process::Command;

use super::machine::Kind;
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
