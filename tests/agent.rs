//! The agent as the first program of real kernels, in QEMU: `agent/tests/guests.py` against a controller that only records.
//!
//! The kernel is this machine's, the initrd is made of it here by embody's own builder, with the agent that this build made. Leaves out: the controller's
//! side, firmware and switches (`tests/machines.rs`). A few scenarios run each time, all of them with `--long`: the failures wait half a minute each
//! before the machine starts anew. Peers: QEMU, python3, squashfs-tools, busybox-static, cpio, openssl, OVMF, and a kernel in `/boot` with its modules.

#[path = "nfs/common.rs"]
#[allow(dead_code, reason = "the tests of the server use the rest")]
mod common;
#[path = "importing/directory.rs"]
mod directory;
#[path = "nfs/forest.rs"]
#[allow(dead_code, reason = "the tests of the server use the rest")]
mod forest;
#[path = "nfs/initrd.rs"]
#[allow(dead_code, reason = "the tests of the server use the rest")]
mod initrd;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Running, missing, tool};
use directory::Directory;
use embody::testing::image::initrd::build;
use forest::{Forest, Planted, TOKEN};
use initrd::Kernel;

/// What the scenarios need of a kernel.
const MODULES: [&str; 5] = ["virtio_net", "vmxnet3", "nfsv3", "overlay", "squashfs"];
const PEERS: [&str; 6] = ["python3", "qemu-system-x86_64", "mksquashfs", "busybox", "cpio", "openssl"];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("agent/tests/guests.py")
}

/// What is started, and the directory that it lies in.
struct Start {
    dir: tempfile::TempDir,
    kernel: Kernel,
    initrd: PathBuf,
}

/// Nothing where a peer is missing.
fn start() -> Option<Start> {
    if !PEERS.iter().all(|peer| tool(peer).is_some()) {
        return None;
    }
    let Some(kernel) = Kernel::with(&MODULES) else {
        missing("no kernel in /boot has the modules for virtio, vmxnet3, NFS, overlayfs and squashfs");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let initrd = dir.path().join("initrd");
    let agent = fs::read(env!("EMBODY_AGENT")).unwrap();
    build(&Directory("/".into()), &kernel.release, &agent, BufWriter::new(File::create(&initrd).unwrap())).unwrap();
    Some(Start { dir, kernel, initrd })
}

/// All of them, if none is named. `nfs` is PORT:/PATH of a server.
async fn runs(start: Start, scenarios: &[&str], nfs: Option<String>) {
    let mut command = tokio::process::Command::new(tool("python3").unwrap());
    command.arg(script()).arg(&start.kernel.image).arg(&start.initrd).args(scenarios).env("TMPDIR", start.dir.path()).kill_on_drop(true);
    if let Some(nfs) = nfs {
        command.env("EMBODY_NFS", nfs);
    }
    let output = command.output().await.unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success() && said.contains("all as claimed"), "{said}\n{errors}");
    assert!(said.matches("    ok, ").count() >= scenarios.len(), "{said}");
}

/// A server whose tree is a system of busybox.
async fn serving(start: &Start) -> (Running, String) {
    let made = Command::new(tool("python3").unwrap()).arg(script()).arg("--system").arg(start.dir.path()).status().unwrap();
    assert!(made.success());
    let server = Running::of(Forest::of(Planted::of(1, &start.dir.path().join("system")))).await;
    let root = format!("{}:{TOKEN}", server.at.port());
    (server, root)
}

#[tokio::test]
async fn a_root_in_memory() {
    let Some(start) = start() else { return };
    runs(start, &["test_ram_root", "test_vmxnet3", "test_ovmf"], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_over_nfs() {
    let Some(start) = start() else { return };
    let (server, root) = serving(&start).await;
    runs(start, &["test_nfs_root"], Some(root)).await;
    server.end().await;
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_never_mounted() {
    let Some(start) = start() else { return };
    runs(start, &["test_wrong_digest"], None).await;
}

#[tokio::test]
async fn a_system_asks_over_tls_who_it_is() {
    let Some(start) = start() else { return };
    runs(start, &["test_exchange", "test_exchange_with_another"], None).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let Some(start) = start() else { return };
    runs(start, &["test_nfs_server_gone"], None).await;
}

#[tokio::test]
async fn a_machine_starts_anew_whatever_happens_to_the_agent() {
    let Some(start) = start() else { return };
    runs(start, &["test_worker_dies"], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a quarter of an hour: most of the scenarios wait for a machine to start anew"]
async fn every_scenario() {
    let Some(start) = start() else { return };
    let (server, root) = serving(&start).await;
    runs(start, &[], Some(root)).await;
    server.end().await;
}
