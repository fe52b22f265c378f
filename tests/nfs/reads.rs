//! The octets of files as a client reads them: wherever they are cut, by whom, after a restart, and where a file is slow or broken.
//!
//! Leaves out: all but READ, and what it needs (`serve`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use embody::testing::server::nfs::{Event, Kind, Limits};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};

use super::client::*;
use super::common::{Running, content, noise, shared, tool};
use super::forest::{Forest, Planted, TOKEN, its};

#[tokio::test]
async fn bytes_are_those_of_the_file_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise((3 << 20) + 4321);
    let mut tree = Planted::new(1);
    tree.file(0, "f", 0o644, 0, &content(dir.path(), "f", &bytes));
    tree.file(0, "empty", 0o644, 0, &content(dir.path(), "e", b""));
    tree.dir(0, "d");
    tree.link(0, "l", "f");
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let file = client.walk("f").await;
    for (offset, count) in
        [(0, 1), (0, 3), (1, 5000), (4095, 65_536), (1 << 20, 1 << 20), (3 << 20, 1 << 20), (bytes.len() as u64 - 1, 9), (77, u32::MAX)]
    {
        let (got, end) = client.read(&file, offset, count).await.unwrap();
        let until = (offset as usize).saturating_add(count.min(1 << 20) as usize).min(bytes.len());
        assert!(got == bytes[offset as usize..until], "{offset} {count}");
        assert_eq!(end, until == bytes.len());
    }
    for offset in [bytes.len() as u64, u64::MAX] {
        assert_eq!(client.read(&file, offset, 4096).await, Ok((Vec::new(), true)));
    }
    assert_eq!(client.read(&file, 5, 0).await, Ok((Vec::new(), false)));
    for (name, refusal) in [("d", ISDIR), ("l", INVAL)] {
        let handle = client.walk(name).await;
        assert_eq!(client.read(&handle, 0, 10).await, Err(refusal));
    }
    let empty = client.walk("empty").await;
    assert_eq!(client.read(&empty, 0, 10).await, Ok((Vec::new(), true)));
    assert_eq!(server.forest.the_tree().opened.load(Ordering::SeqCst), 1);
    server.end().await;
}

#[tokio::test]
async fn reading_is_for_whoever_may() {
    let dir = tempfile::tempdir().unwrap();
    let path = content(dir.path(), "f", b"text");
    let mut tree = Planted::new(1);
    for mode in [0o640, 0o000, 0o111] {
        tree.file(0, &format!("{mode:o}"), mode, 33, &path);
    }
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    for (who, allowed) in [
        (Some((0, vec![0])), [true, true, true]),
        (Some((33, vec![1])), [true, true, true]),
        (Some((1, vec![1, 33])), [true, false, true]),
        (Some((1, vec![1])), [false, false, true]),
        (None, [false, false, true]),
    ] {
        client.who = who;
        for (name, allowed) in ["640", "0", "111"].into_iter().zip(allowed) {
            let file = client.walk(name).await;
            let read = client.read(&file, 0, 10).await.map(|(bytes, _)| bytes);
            assert_eq!(read, if allowed { Ok(b"text".to_vec()) } else { Err(ACCES) }, "{name} {:?}", client.who);
        }
    }
    server.end().await;
}

#[tokio::test]
async fn handles_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = content(dir.path(), "f", b"text");
    let planted = || {
        let mut tree = Planted::new(1);
        tree.file(0, "f", 0o644, 0, &path);
        tree
    };
    let server = Running::of(Forest::of(planted())).await;
    let file = Client::to(server.at).await.walk("f").await;
    server.end().await;
    let server = Running::of(Forest::of(planted())).await;
    let mut client = Client::to(server.at).await;
    assert_eq!(client.read(&file, 0, 10).await, Ok((b"text".to_vec(), true)), "without MOUNT");
    let mut forged = file.clone();
    forged[19] ^= 1;
    for handle in [&forged[..], &file[..31], &[], &[0; 64]] {
        assert_eq!(client.read(handle, 0, 10).await, Err(BADHANDLE));
    }
    let tree = server.forest.trees.lock().unwrap().remove(&[1; 16]).unwrap();
    assert_eq!(client.read(&file, 0, 10).await, Err(JUKEBOX), "never STALE: a system that is told so is lost");
    server.forest.trees.lock().unwrap().insert([1; 16], tree);
    assert!(client.read(&file, 0, 10).await.is_ok(), "and goes on once the tree is there");
    *server.forest.key.lock().unwrap() = Some([8; 32]);
    assert_eq!(client.read(&file, 0, 10).await, Err(BADHANDLE));
    *server.forest.key.lock().unwrap() = None;
    assert_eq!(client.read(&file, 0, 10).await, Err(JUKEBOX));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_as_each_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(8 << 20);
    let path = content(dir.path(), "f", &bytes);
    let mut tree = Planted::new(1);
    let slow = tree.file(0, "slow", 0o644, 0, &path);
    tree.file(0, "f", 0o644, 0, &path);
    tree.slow.lock().unwrap().insert(slow, Duration::from_millis(500));
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let (slow, file) = (client.walk("slow").await, client.walk("f").await);
    let first = [client.send([NFS, 3, 6], &reading(&slow, 0, 100)).await, client.send([NFS, 3, 6], &reading(&slow, 100, 100)).await];
    let mut open: BTreeMap<u32, u64> = BTreeMap::new();
    for offset in (0..8 << 20).step_by(256 << 10) {
        open.insert(client.send([NFS, 3, 6], &reading(&file, offset, 256 << 10)).await, offset);
    }
    while !open.is_empty() {
        let (xid, mut got) = client.receive().await.unwrap();
        assert!(!first.contains(&xid), "the slow one stands in nobody's way");
        got.words::<5>();
        let offset = open.remove(&xid).unwrap() as usize;
        assert!(bytes_of(got).unwrap().0 == bytes[offset..offset + (256 << 10)]);
    }
    for _ in first {
        assert!(first.contains(&client.receive().await.unwrap().0));
    }
    assert_eq!(server.forest.the_tree().opened.load(Ordering::SeqCst), 2, "each once, however many ask");
    server.end().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_error_and_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = content(dir.path(), "f", &[7; 100]);
    let mut tree = Planted::new(1);
    let sub = tree.dir(0, "sub");
    let bad = tree.file(sub, "bad", 0o644, 0, &path);
    let later = tree.file(sub, "later", 0o644, 0, &path);
    let short = tree.file(sub, "short", 0o644, 0, &content(dir.path(), "s", &[7; 100]));
    tree.broken.lock().unwrap().extend([(bad, io::ErrorKind::InvalidData), (later, io::ErrorKind::WouldBlock)]);
    fs::write(dir.path().join("s"), [7; 50]).unwrap();
    let limits = Limits { failure_for: Duration::from_millis(300), ..Limits::default() };
    let server = Running::with(Arc::new(Forest::of(tree)), limits).await;
    let tree = server.forest.the_tree();
    let mut client = Client::to(server.at).await;
    let handles = [client.walk("sub/bad").await, client.walk("sub/later").await, client.walk("sub/short").await];
    for _ in 0..3 {
        for (handle, refusal) in handles.iter().zip([IO, JUKEBOX, IO]) {
            assert_eq!(client.read(handle, 0, 100).await, Err(refusal));
        }
    }
    let told: Vec<_> = server.forest.events().into_iter().filter(|event| !matches!(event, Event::Mounted { .. })).collect();
    let [Event::Unreadable { inode: first, path: of_first, .. }, Event::Unreadable { inode: second, path: of_second, .. }] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((*first, of_first.as_deref()), (bad, Some(&b"/sub/bad"[..])));
    assert_eq!((*second, of_second.as_deref()), (short, Some(&b"/sub/short"[..])));
    assert_eq!(tree.opened.load(Ordering::SeqCst), 5, "the broken one was not opened again, the late one each time");
    tree.broken.lock().unwrap().clear();
    fs::write(dir.path().join("s"), [7; 100]).unwrap();
    sleep(Duration::from_millis(350)).await;
    for handle in &handles {
        assert_eq!(client.read(handle, 0, 100).await.unwrap().0, [7; 100]);
    }
    server.end().await;
}

#[tokio::test]
async fn a_file_that_is_verified_for_long_is_to_be_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = content(dir.path(), "f", &[7; 100]);
    let mut tree = Planted::new(1);
    let files: Vec<u32> = (0..12).map(|number| tree.file(0, &format!("f{number}"), 0o644, 0, &path)).collect();
    tree.slow.lock().unwrap().extend(files.iter().map(|inode| (*inode, Duration::from_millis(200))));
    let limits = Limits { open_within: Duration::from_millis(50), opens: 4, opens_of_one: 3, ..Limits::default() };
    let server = Running::with(Arc::new(Forest::of(tree)), limits).await;
    let mut client = Client::to(server.at).await;
    let mut handles = Vec::new();
    for number in 0..12 {
        handles.push(client.walk(&format!("f{number}")).await);
    }
    for handle in &handles {
        assert_eq!(client.read(handle, 0, 10).await, Err(JUKEBOX));
    }
    sleep(Duration::from_millis(1500)).await;
    for handle in &handles {
        assert!(client.read(handle, 0, 10).await.is_ok(), "opening went on");
    }
    let tree = server.forest.the_tree();
    assert_eq!((tree.opened.load(Ordering::SeqCst), tree.most_opening.load(Ordering::SeqCst)), (12, 3));
    server.end().await;
}

#[tokio::test]
async fn what_waits_to_be_opened_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = content(dir.path(), "f", &[7; 100]);
    let mut tree = Planted::new(1);
    let files: Vec<u32> = (0..60).map(|number| tree.file(0, &format!("f{number}"), 0o644, 0, &path)).collect();
    tree.slow.lock().unwrap().extend(files.iter().map(|inode| (*inode, Duration::from_millis(50))));
    let limits = Limits { open_within: Duration::from_millis(10), calls: 4, opens_of_one: 1, ..Limits::default() };
    let server = Running::with(Arc::new(Forest::of(tree)), limits).await;
    let mut client = Client::to(server.at).await;
    for number in 0..60 {
        let file = client.walk(&format!("f{number}")).await;
        assert_eq!(client.read(&file, 0, 10).await, Err(JUKEBOX));
    }
    let tree = server.forest.the_tree();
    let then = tree.opened.load(Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    let after = tree.opened.load(Ordering::SeqCst);
    assert!((1..=4).contains(&(after - then)), "{after} {then}");
    server.end().await;
}

#[tokio::test]
async fn no_more_files_stay_open_than_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Planted::new(1);
    for number in 0..50 {
        tree.file(0, &format!("f{number}"), 0o644, 0, &content(dir.path(), &format!("kept-{number}"), &[7; 100]));
    }
    let server = Running::with(Arc::new(Forest::of(tree)), Limits { open_files: 10, ..Limits::default() }).await;
    let mut client = Client::to(server.at).await;
    for number in 0..50 {
        let file = client.walk(&format!("f{number}")).await;
        client.read(&file, 0, 10).await.unwrap();
    }
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let of_these = open.filter(|path| path.starts_with(dir.path())).count();
    assert!((1..=10).contains(&of_these), "{of_these}");
    server.end().await;
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = content(dir.path(), "f", &[7; 100]);
    let mut tree = Planted::new(1);
    let slow = tree.file(0, "f", 0o644, 0, &path);
    tree.slow.lock().unwrap().insert(slow, Duration::from_millis(300));
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let idle = Client::to(server.at).await;
    let file = client.walk("f").await;
    client.send([NFS, 3, 6], &reading(&file, 0, 100)).await;
    sleep(Duration::from_millis(100)).await;
    let (at, began) = (server.at, Instant::now());
    let ((), owed) = tokio::join!(server.end(), client.receive());
    assert!(owed.is_ok(), "what runs is answered");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(tokio::net::TcpStream::connect(at).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn whoever_closes_its_side_gets_what_it_is_owed() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Planted::new(1);
    let slow = tree.file(0, "f", 0o644, 0, &content(dir.path(), "f", &[7; 100]));
    tree.slow.lock().unwrap().insert(slow, Duration::from_millis(200));
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let file = client.walk("f").await;
    client.send([NFS, 3, 6], &reading(&file, 0, 100)).await;
    client.stream.shutdown().await.unwrap();
    let (_, mut got) = timeout(Duration::from_secs(2), client.receive()).await.unwrap().unwrap();
    got.words::<5>();
    assert_eq!(bytes_of(got).unwrap().0, [7; 100]);
    assert!(client.receive().await.is_err());
    server.end().await;
}

/// With room for one large reply at a time, many that are asked for at once are all answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_memory_holds_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Planted::new(1);
    tree.file(0, "f", 0o644, 0, &content(dir.path(), "f", &noise(4 << 20)));
    let limits = Limits { memory: 0, memory_of_one: 0, ..Limits::default() };
    let server = Running::with(Arc::new(Forest::of(tree)), limits).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = Client::to(server.at).await;
        clients.spawn(async move {
            let file = client.walk("f").await;
            for number in 0..60 {
                client.send([NFS, 3, 6], &reading(&file, (number % 4) << 20, 1 << 20)).await;
            }
            client.send([NFS, 3, 16], &put().opaque(&file).u64(0).u64(0).u32(4096)).await;
            for _ in 0..61 {
                client.receive().await.unwrap();
            }
        });
    }
    timeout(Duration::from_secs(30), clients.join_all()).await.expect("all are answered");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libnfs_reads_and_lists() {
    let (Some(cat), Some(ls)) = (tool("nfs-cat"), tool("nfs-ls")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let bytes = {
        let _memory = shared().await;
        noise(64 << 20)
    };
    let mut tree = Planted::new(1);
    tree.file(0, "big", 0o644, 0, &content(dir.path(), "big", &bytes));
    let many = tree.dir(0, "many");
    for number in 0..20_000 {
        tree.add(many, format!("file-{number:06}").as_bytes(), its(Kind::File, 0o644));
    }
    tree.add(0, b"sudo", its(Kind::File, 0o4755));
    let server = Running::of(Forest::of(tree)).await;
    let port = server.at.port();
    let url = |path: &str| format!("nfs://127.0.0.1{TOKEN}{path}?nfsport={port}&mountport={port}");
    let run = async |program: &Path, path: &str| {
        let mut command = Command::new(program);
        if path.is_empty() {
            command.arg("-R");
        }
        command.arg(url(path));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert!(run(&cat, "/big").await == bytes);
    let listed = String::from_utf8(run(&ls, "").await).unwrap();
    assert_eq!(listed.lines().filter(|line| line.contains("file-")).count(), 20_000);
    assert!(listed.lines().any(|line| line.starts_with("-rw") && line.ends_with("sudo")));
    server.end().await;
}
