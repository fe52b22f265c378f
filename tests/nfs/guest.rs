//! A Linux guest whose root file system is served here: mounted by the kernel's NFS client, with an overlay on top, used by several users, and read
//! while the server is killed and started again.
//!
//! The server is this program, run once more as a process of its own. Leaves out: booting from the network. Peers: qemu, busybox-static, and a kernel in
//! `/boot` with its modules (Debian: linux-image-cloud-amd64).

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use embody::testing::server::nfs::{Attributes, Kind, Limits, serve};
use tokio::time::{Instant, sleep};

use super::common::{missing, shared, tool};
use super::forest::{Forest, Planted, TOKEN, its};
use super::initrd;
use crate::free_port::free_port;

const SERVED: &str = "EMBODY_NFS_SERVED";
const LISTENS: &str = "EMBODY_NFS_LISTENS";
const MODULES: [&str; 4] = ["virtio_pci", "virtio_net", "nfsv3", "overlay"];
/// Read for some seconds even where the guest is quick.
const BIG: usize = 256 << 20;
/// What the server waits for a file before it tells the client to ask again.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// Under TCG, on a loaded machine.
const GUEST_WITHIN: Duration = Duration::from_secs(420);

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn plant(dir: &Path) -> Planted {
    let mut tree = Planted::new(1);
    let owned = |uid, kind, mode| Attributes { uid, gid: uid, ..its(kind, mode) };
    let etc = tree.dir(0, "etc");
    for name in ["a", "b", "c", "motd"] {
        tree.file(etc, name, 0o644, 0, &dir.join(name));
    }
    tree.file(0, "secret", 0o640, 33, &dir.join("secret"));
    tree.file(0, "big", 0o644, 0, &dir.join("big"));
    tree.file(0, "busybox", 0o711, 0, &dir.join("busybox"));
    // busybox as `su`, which asks root for no password in the guest.
    let suid = tree.dir(0, "suid");
    tree.file(suid, "su", 0o4755, 0, &dir.join("busybox"));
    tree.file(0, "shadow", 0o600, 0, &dir.join("shadow"));
    tree.file(0, "hello", 0o644, 0, &dir.join("motd"));
    let slow = tree.file(0, "slow", 0o644, 0, &dir.join("motd"));
    tree.slow.lock().unwrap().insert(slow, 3 * OPEN_WITHIN);
    let broken = tree.file(0, "broken", 0o644, 0, &dir.join("motd"));
    tree.broken.lock().unwrap().insert(broken, std::io::ErrorKind::InvalidData);
    tree.add(0, b"sudo", owned(0, Kind::File, 0o4755));
    tree.add(0, b"tmp", owned(0, Kind::Directory, 0o1777));
    tree.add(0, b"null", Attributes { device: (1, 3), ..its(Kind::Character, 0o666) });
    tree.add(0, b"log", its(Kind::Socket, 0o666));
    tree.add(0, b"initctl", its(Kind::Fifo, 0o600));
    tree.link(0, "link", "/etc/../etc/motd");
    let many = tree.dir(0, "many");
    for number in 0..20_000 {
        tree.add(many, format!("entry-{number:05}").as_bytes(), its(Kind::File, 0o644));
    }
    let gone = tree.dir(0, "gone");
    let deep = tree.dir(gone, "deep");
    tree.file(deep, "f", 0o644, 0, &dir.join("a"));
    tree
}

/// Does nothing unless it is started as a server by one of the tests below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_its_own() {
    let (Some(dir), Some(at)) = (env::var_os(SERVED), env::var(LISTENS).ok()) else { return };
    let mut listeners = Vec::new();
    for at in at.split(',') {
        listeners.push(tokio::net::TcpListener::bind(at).await.unwrap());
    }
    let forest = Arc::new(Forest::of(plant(Path::new(&dir))));
    let (_stop, told) = tokio::sync::watch::channel(false);
    let limits = Limits { open_within: OPEN_WITHIN, ..Limits::default() };
    serve(listeners, forest, limits, Arc::default(), told).await;
}

fn server(dir: &Path, at: &str) -> Ends {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "guest::a_server_of_its_own", "--nocapture"]).env(SERVED, dir).env(LISTENS, at).stdin(Stdio::null());
    Ends(command.stdout(Stdio::null()).spawn().unwrap())
}

/// The files, and the MD5 of the large one.
fn contents(dir: &Path, big: usize) -> String {
    for (name, text) in [("a", "a\n"), ("b", "b\n"), ("c", "c\n"), ("motd", "hello\n"), ("secret", "secret\n"), ("shadow", "root only\n")] {
        fs::write(dir.join(name), text).unwrap();
    }
    let mut state = 1_u64;
    let mut block = Vec::with_capacity(1 << 20);
    for _ in 0..(1 << 20) / 8 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        block.extend(state.to_le_bytes());
    }
    let mut bytes = block.repeat(big >> 20);
    // Each megabyte is another one.
    bytes.chunks_mut(1 << 20).enumerate().for_each(|(number, chunk)| chunk[0] = number as u8);
    fs::write(dir.join("big"), bytes).unwrap();
    let output = Command::new("md5sum").arg(dir.join("big")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn qemu(program: &Path, kernel: &Path, initrd: &Path) -> Ends {
    let mut command = Command::new(program);
    command.args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
    command.args(["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", "console=ttyS0 quiet panic=-1"]);
    Ends(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
}

/// Lines of the guest as they come.
fn lines(guest: &mut Ends) -> mpsc::Receiver<String> {
    let output = guest.0.stdout.take().unwrap();
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if to.send(line).is_err() {
                return;
            }
        }
    });
    from
}

#[tokio::test]
async fn a_linux_guest_lives_on_it() {
    let (Some(program), Some(busybox)) = (tool("qemu-system-x86_64"), tool("busybox")) else { return };
    let Some(kernel) = initrd::Kernel::with(&MODULES) else {
        return missing("no kernel in /boot has the modules for NFS, overlayfs and virtio");
    };
    let dir = tempfile::tempdir().unwrap();
    fs::copy(&busybox, dir.path().join("busybox")).unwrap();
    let sum = {
        let _memory = shared().await;
        contents(dir.path(), BIG)
    };
    let port = free_port();
    let at = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let mut serving = server(dir.path(), &at);

    let script = format!("PORT={port}\nSHARE={TOKEN}\nSUM={sum}\n{}", include_str!("../peers/guest-nfs.sh"));
    let initrd = dir.path().join("initrd");
    fs::write(&initrd, initrd::build(&kernel, &MODULES, &busybox, &script)).unwrap();
    let mut guest = qemu(&program, &kernel.image, &initrd);
    let said = lines(&mut guest);

    let began = Instant::now();
    let (mut all, mut ended) = (Vec::new(), false);
    while !ended {
        match said.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => {
                println!("{line}");
                ended = line.ends_with("GUEST end");
                if line.ends_with("GUEST reads") {
                    sleep(Duration::from_millis(500)).await;
                    drop(serving);
                    assert!(said.try_recv().is_err(), "the guest was done before the server was killed");
                    sleep(Duration::from_secs(5)).await;
                    serving = server(dir.path(), &at);
                }
                all.push(line);
            }
            Err(RecvTimeoutError::Timeout) => assert!(began.elapsed() < GUEST_WITHIN, "the guest did not end:\n{}", all.join("\n")),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let failed: Vec<&String> = all.iter().filter(|line| line.contains("FAILED")).collect();
    let passed = all.iter().filter(|line| line.contains("CHECK ok")).count();
    assert!(ended && failed.is_empty(), "{failed:#?}\n{}", all.join("\n"));
    println!("{passed} checks in the guest, {:?}", began.elapsed());
    assert!(passed > 35, "{passed}");
    drop((guest, serving));
}

/// At the ports that the protocols name: portmap at 111 tells of NFS at 2049.
#[tokio::test]
async fn clients_that_are_told_no_port_find_it() {
    let (Some(unshare), Some(cat), Some(rpcinfo)) = (tool("unshare"), tool("nfs-cat"), tool("rpcinfo")) else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("busybox"), "").unwrap();
    contents(dir.path(), 1 << 20);
    let script = format!(
        "ip link set lo up || exit 77; \"$0\" --exact guest::a_server_of_its_own >/dev/null & server=$!
         for try in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; {rpcinfo} -p 127.0.0.1 >/dev/null 2>&1; {cat} nfs://127.0.0.1{TOKEN}/hello && break; done
         {rpcinfo} -T tcp 127.0.0.1 100003 3; {rpcinfo} -T tcp 127.0.0.1 100227 3; {rpcinfo} -s 127.0.0.1; kill -9 $server",
        rpcinfo = rpcinfo.display(),
        cat = cat.display(),
    );
    let mut command = Command::new(unshare);
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", &script]).arg(env::current_exe().unwrap());
    command.env(SERVED, dir.path()).env(LISTENS, "0.0.0.0:2049,0.0.0.0:111");
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        return missing("no network namespace can be made here");
    }
    assert!(text.contains("hello"), "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("program 100003 version 3 ready and waiting"), "{text}");
    assert!(text.contains("program 100227 version 3 ready and waiting"), "{text}");
    assert!(text.contains("100005"), "rpcinfo -s: {text}");
}
