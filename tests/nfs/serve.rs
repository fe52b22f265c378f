//! The NFS server as a client sees it: every program, every procedure, names, modes and lists.
//!
//! Leaves out: the octets of files (`reads`), what the Linux client makes of it (`guest`), hostile peers (`hostile`).

use std::collections::BTreeMap;

use embody::testing::server::nfs::{Attributes, Event, Kind};
use tokio::io::AsyncWriteExt;

use super::client::*;
use super::common::{Running, content, noise};
use super::forest::{Forest, Planted, TOKEN, its};

#[tokio::test]
async fn portmap_tells_the_port() {
    let server = Running::of(Forest::of(Planted::new(1))).await;
    let port = u32::from(server.at.port());
    let mut client = Client::to(server.second).await;
    for (program, version, protocol, told) in
        [(NFS, 3, 6, port), (MOUNT, 3, 6, port), (ACL, 3, 6, port), (NFS, 4, 6, port), (NFS, 3, 17, 0), (100_021, 4, 6, 0)]
    {
        let mut got = client.call([PORTMAP, 2, 3], &put().u32(program).u32(version).u32(protocol).u32(0)).await;
        assert_eq!(got.u32(), told, "{program} {version} {protocol}");
        got.end();
    }
    let mut got = client.call([PORTMAP, 2, 4], &put()).await;
    let mut listed = Vec::new();
    while got.u32() == 1 {
        listed.push(got.words::<4>());
    }
    assert_eq!(listed, [[MOUNT, 3, 6, port], [NFS, 3, 6, port], [ACL, 3, 6, port]]);
    for version in [3, 4] {
        for (program, netid, told) in [(NFS, "tcp", format!("127.0.0.1.{}.{}", port >> 8, port & 255)), (NFS, "udp", String::new())] {
            let args = put().u32(program).u32(3).opaque(netid.as_bytes()).opaque(b"").opaque(b"");
            let mut got = client.call([PORTMAP, version, 3], &args).await;
            assert_eq!(String::from_utf8(got.opaque()).unwrap(), told);
            got.end();
        }
    }
    // Nobody registers here, nor calls through us.
    assert_eq!(client.call([PORTMAP, 2, 1], &put().u32(NFS).u32(3).u32(6).u32(99)).await.u32(), 0);
    assert_eq!(client.raw([PORTMAP, 2, 5], &put()).await.words(), [1, 0, 0, 0, 3]);
    assert_eq!(client.raw([PORTMAP, 5, 0], &put()).await.words(), [1, 0, 0, 0, 2, 2, 4]);
    server.end().await;
}

#[tokio::test]
async fn programs_and_versions_that_are_not_here_are_named() {
    let server = Running::of(Forest::of(Planted::new(1))).await;
    let mut client = Client::to(server.at).await;
    for (target, words) in [
        ([NFS, 3, 22], [1, 0, 0, 0, 3, 0, 0]),
        ([NFS, 4, 0], [1, 0, 0, 0, 2, 3, 3]),
        ([NFS, 2, 1], [1, 0, 0, 0, 2, 3, 3]),
        ([ACL, 2, 1], [1, 0, 0, 0, 2, 3, 3]),
        ([ACL, 3, 3], [1, 0, 0, 0, 3, 0, 0]),
        ([MOUNT, 1, 1], [1, 0, 0, 0, 2, 3, 3]),
        ([100_021, 4, 0], [1, 0, 0, 0, 1, 0, 0]),
        ([NFS, 3, 1], [1, 0, 0, 0, 4, 0, 0]),
    ] {
        let mut got = client.raw(target, &put()).await;
        let told = (0..got.0.len() / 4 - 1).map(|_| got.u32()).collect::<Vec<u32>>();
        assert_eq!(told, words[..told.len()], "{target:?}");
        assert!(words[told.len()..].iter().all(|word| *word == 0));
    }
    for target in [[NFS, 3, 0], [ACL, 3, 0], [MOUNT, 1, 0], [MOUNT, 2, 0], [MOUNT, 3, 0], [PORTMAP, 2, 0], [PORTMAP, 4, 0]] {
        client.call(target, &put()).await.end();
    }
    // Kerberos: AUTH_ERROR, AUTH_BADCRED. Another version of RPC: 2 and no other.
    let head = put().u32(7).u32(0).u32(2).u32(NFS).u32(3).u32(0).u32(6).u32(0).u32(0).u32(0);
    client
        .stream
        .write_all(&put().opaque(&head.0).0.iter().enumerate().map(|(at, b)| if at == 0 { 0x80 } else { *b }).collect::<Vec<u8>>())
        .await
        .unwrap();
    assert_eq!(client.receive().await.unwrap().1.words(), [1, 1, 1, 1]);
    client.stream.write_all(&[&[0x80, 0, 0, 12][..], &put().u32(8).u32(0).u32(3).0].concat()).await.unwrap();
    assert_eq!(client.receive().await.unwrap().1.words(), [1, 1, 0, 2, 2]);
    server.end().await;
}

#[tokio::test]
async fn only_the_token_mounts() {
    let server = Running::of(Forest::of(Planted::new(1))).await;
    let mut client = Client::to(server.at).await;
    let mut got = client.call([MOUNT, 3, 1], &put().opaque(TOKEN.as_bytes())).await;
    assert_eq!((got.u32(), got.opaque().len()), (0, 32));
    assert_eq!(got.words(), [2, 1, 0], "AUTH_SYS, AUTH_NONE");
    got.end();
    let tree = server.forest.the_tree();
    assert!(matches!(&server.forest.events()[..], [Event::Mounted { tree: [1, ..], .. }]));
    for path in ["", "/", "/p", "/p/7f3a9", "/p/7f3a9c/"] {
        assert_eq!(client.mount(path).await, Err(NOENT), "{path}");
    }
    for what in [2, 5] {
        let mut got = client.call([MOUNT, 3, what], &put()).await;
        assert_eq!(got.u32(), 0, "nothing is listed");
        got.end();
    }
    client.call([MOUNT, 3, 3], &put().opaque(TOKEN.as_bytes())).await.end();
    // Refusals are told, and not without end.
    for _ in 0..200 {
        client.mount("/guess").await.unwrap_err();
    }
    let told = server.forest.events().iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert!((5..40).contains(&told), "{told}");
    assert_eq!(server.stats.refusals.get(), 205);
    server.forest.trees.lock().unwrap().clear();
    assert_eq!(client.mount(TOKEN).await, Err(ACCES));
    server.forest.plant(TOKEN, Planted::new(1));
    *server.forest.key.lock().unwrap() = None;
    assert_eq!(client.mount(TOKEN).await, Err(10_006));
    drop(tree);
    server.end().await;
}

#[tokio::test]
async fn modes_and_kinds_are_whole() {
    let mut tree = Planted::new(1);
    let device = Attributes { device: (5, 1), ..its(Kind::Character, 0o600) };
    let all = [
        ("sudo", Attributes { size: 0, uid: 0, gid: 4, links: 2, ..its(Kind::File, 0o4755) }, 1),
        ("tmp", its(Kind::Directory, 0o1777), 2),
        ("sda", Attributes { device: (8, 0), gid: 6, ..its(Kind::Block, 0o660) }, 3),
        ("console", device, 4),
        ("log", its(Kind::Socket, 0o666), 6),
        ("initctl", its(Kind::Fifo, 0o2600), 7),
    ];
    for (name, attributes, _) in all {
        tree.add(0, name.as_bytes(), attributes);
    }
    tree.link(0, "absolute", "/usr/../usr/bin/true");
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let root = client.root().await;
    for (name, expected, kind) in all {
        let (handle, found) = client.lookup(&root, name.as_bytes()).await.unwrap();
        let mut got = client.nfs(1, &put().opaque(&handle)).await;
        assert_eq!(got.u32(), OK);
        assert_eq!(got.attributes(), found);
        got.end();
        assert_eq!((found.kind, found.mode, found.device), (kind, u32::from(expected.mode), expected.device), "{name}");
        assert_eq!((found.links, found.gid, found.mtime), (expected.links, expected.gid, (1_700_000_000, 123_456_789)));
    }
    let (link, found) = client.lookup(&root, b"absolute").await.unwrap();
    assert_eq!(found.kind, 5);
    let mut got = client.nfs(5, &put().opaque(&link)).await;
    assert_eq!(got.u32(), OK);
    got.post_op().unwrap();
    assert_eq!(got.opaque(), b"/usr/../usr/bin/true");
    got.end();
    let mut got = client.nfs(5, &put().opaque(&root)).await;
    assert_eq!(got.u32(), INVAL);
    server.end().await;
}

#[tokio::test]
async fn names_are_found_and_not_found() {
    let mut tree = Planted::new(1);
    let usr = tree.dir(0, "usr");
    tree.dir(usr, "bin");
    tree.add(0, b"f", its(Kind::File, 0o644));
    tree.add(0, b"closed", its(Kind::Directory, 0o700));
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let (root, bin) = (client.root().await, client.walk("usr/bin").await);
    let (usr, of_usr) = client.lookup(&root, b"usr").await.unwrap();
    assert_eq!(client.lookup(&bin, b"..").await.unwrap().0, usr);
    assert_eq!(client.lookup(&bin, b".").await.unwrap().0, bin);
    assert_eq!(client.lookup(&root, b"..").await.unwrap().0, root);
    assert_eq!(of_usr.fsid, u64::from_be_bytes([1; 8]));
    assert_eq!(client.lookup(&root, b"nothing").await, Err(NOENT));
    assert_eq!(client.lookup(&root, b"").await, Err(NOENT));
    assert_eq!(client.lookup(&root, b"usr/bin").await, Err(NOENT));
    assert_eq!(client.lookup(&root, &[b'x'; 256]).await, Err(NAMETOOLONG));
    let file = client.walk("f").await;
    assert_eq!(client.lookup(&file, b"x").await, Err(NOTDIR));
    let closed = client.walk("closed").await;
    client.who = Some((33, vec![33]));
    assert_eq!(client.lookup(&closed, b"x").await, Err(ACCES));
    client.who = None;
    assert_eq!(client.lookup(&closed, b"x").await, Err(ACCES));
    assert!(client.lookup(&root, b"usr").await.is_ok());
    server.end().await;
}

#[tokio::test]
async fn access_is_by_mode_and_nothing_is_written() {
    let mut tree = Planted::new(1);
    for (name, kind, mode) in [
        ("private", Kind::File, 0o640),
        ("program", Kind::File, 0o711),
        ("data", Kind::File, 0o666),
        ("dir", Kind::Directory, 0o1777),
        ("null", Kind::Character, 0o666),
        ("sda", Kind::Block, 0o660),
    ] {
        tree.add(0, name.as_bytes(), Attributes { uid: 33, gid: 44, ..its(kind, mode) });
    }
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    const READ: u32 = 1;
    const LOOKUP: u32 = 2;
    const WRITE: u32 = 4 | 8;
    const EXECUTE: u32 = 32;
    for (who, private, program, data, dir, null, disk) in [
        (Some((0, vec![0])), READ, READ | EXECUTE, READ, READ | LOOKUP, READ | WRITE, READ | WRITE),
        (Some((33, vec![1])), READ, READ | EXECUTE, READ, READ | LOOKUP, READ | WRITE, READ | WRITE),
        (Some((1, vec![1, 44])), READ, EXECUTE, READ, READ | LOOKUP, READ | WRITE, READ | WRITE),
        (Some((1, vec![1])), 0, EXECUTE, READ, READ | LOOKUP, READ | WRITE, 0),
        (None, 0, EXECUTE, READ, READ | LOOKUP, READ | WRITE, 0),
    ] {
        client.who = who;
        let names = ["private", "program", "data", "dir", "null", "sda"];
        for (name, allowed) in names.into_iter().zip([private, program, data, dir, null, disk]) {
            let handle = client.walk(name).await;
            let mut got = client.nfs(4, &put().opaque(&handle).u32(0x3f)).await;
            assert_eq!(got.u32(), OK);
            got.post_op().unwrap();
            assert_eq!(got.u32(), allowed, "{name} {:?}", client.who);
            got.end();
            // Only what was asked about.
            let mut got = client.nfs(4, &put().opaque(&handle).u32(READ)).await;
            got.u32();
            got.post_op().unwrap();
            assert_eq!(got.u32(), allowed & READ);
        }
    }
    server.end().await;
}

#[tokio::test]
async fn whatever_changes_something_is_refused_in_the_words_of_the_protocol() {
    let mut tree = Planted::new(1);
    tree.add(0, b"f", Attributes { size: 77, ..its(Kind::File, 0o644) });
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let (root, file) = (client.root().await, client.walk("f").await);
    let written = put().opaque(&file).u64(0).u32(32 << 10).u32(2).opaque(&noise(32 << 10));
    let one = put().opaque(&file).u32(0).u32(0).u32(0).u32(0);
    for (procedure, args) in [(2, &one), (7, &written), (8, &one), (9, &one), (10, &one), (11, &one), (12, &one), (13, &one), (21, &one)] {
        let mut got = client.nfs(procedure, args).await;
        assert_eq!(got.u32(), ROFS, "{procedure}");
        assert_eq!(got.wcc().size, 77);
        got.end();
        let mut got = client.nfs(procedure, &put().opaque(&[0; 32]).u32(0)).await;
        assert_eq!(got.words(), [BADHANDLE, 0, 0]);
        got.end();
    }
    let mut got = client.nfs(14, &put().opaque(&root).opaque(b"a").opaque(&root).opaque(b"b")).await;
    assert_eq!(got.u32(), ROFS);
    assert_eq!((got.wcc().kind, got.wcc().kind), (2, 2));
    got.end();
    let mut got = client.nfs(15, &put().opaque(&file).opaque(&root).opaque(b"b")).await;
    assert_eq!(got.u32(), ROFS);
    assert_eq!((got.post_op().unwrap().kind, got.wcc().kind), (1, 2));
    got.end();
    let mut got = client.call([ACL, 3, 2], &put().opaque(&file).u32(0)).await;
    assert_eq!(got.u32(), ROFS);
    got.post_op().unwrap();
    got.end();
    server.end().await;
}

#[tokio::test]
async fn no_file_has_an_access_list() {
    let mut tree = Planted::new(1);
    tree.add(0, b"f", its(Kind::File, 0o644));
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let file = client.walk("f").await;
    let asked = |mask| put().opaque(&file).u32(mask);
    let mut got = client.call([ACL, 3, 1], &asked(0xf)).await;
    assert_eq!(got.u32(), OK);
    assert_eq!(got.post_op().unwrap().kind, 1);
    assert_eq!(got.words(), [0xf, 0, 0, 0, 0]);
    got.end();
    assert_eq!(client.call([ACL, 3, 1], &asked(0x10)).await.u32(), INVAL);
    // Linux does not ask again: what is not here yet has none either.
    server.forest.trees.lock().unwrap().clear();
    assert_eq!(client.call([ACL, 3, 1], &asked(5)).await.words(), [OK, 0, 5, 0, 0, 0, 0]);
    *server.forest.key.lock().unwrap() = None;
    assert_eq!(client.call([ACL, 3, 1], &asked(5)).await.words(), [OK, 0, 5, 0, 0, 0, 0]);
    server.end().await;
}

#[tokio::test]
async fn the_file_system_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Planted::new(1);
    tree.file(0, "f", 0o644, 0, &content(dir.path(), "f", &[0; 1000]));
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let root = put().opaque(&client.root().await);
    let mut got = client.nfs(18, &root).await;
    assert_eq!((got.u32(), got.post_op().unwrap().kind), (OK, 2));
    assert_eq!([(); 6].map(|()| got.u64()), [1000, 0, 0, 2, 0, 0]);
    assert_eq!(got.u32(), u32::MAX);
    got.end();
    let mut got = client.nfs(19, &root).await;
    got.u32();
    got.post_op();
    assert_eq!(got.words(), [1 << 20, 1 << 20, 4096, 32 << 10, 32 << 10, 4096, 64 << 10]);
    assert_eq!((got.u64(), got.words()), (i64::MAX as u64, [0, 1, 0x0b]));
    got.end();
    let mut got = client.nfs(20, &root).await;
    got.u32();
    got.post_op();
    assert_eq!(got.words(), [u32::MAX, 255, 1, 1, 0, 1]);
    got.end();
    server.end().await;
}

/// All names with their inodes, in pages of so many octets.
async fn listed(client: &mut Client, dir: &[u8], plus: bool, count: u32) -> (Vec<(Vec<u8>, u64)>, usize) {
    let (mut all, mut after, mut pages) = (Vec::new(), 0, 0);
    loop {
        let args = put().opaque(dir).u64(after).u64(0);
        let args = if plus { args.u32(count).u32(count) } else { args.u32(count) };
        let mut got = client.nfs(if plus { 17 } else { 16 }, &args).await;
        assert!(got.0.len() - got.1 <= count as usize + 4);
        assert_eq!(got.u32(), OK);
        got.post_op().unwrap();
        assert_eq!(got.u64(), 0);
        pages += 1;
        while got.u32() == 1 {
            let inode = got.u64();
            let name = got.opaque();
            after = got.u64();
            if plus {
                let its = got.post_op().unwrap();
                assert_eq!(its.fileid, inode);
                assert_eq!(got.u32(), 1);
                let handle = got.opaque();
                assert_eq!(handle.len(), 32);
            }
            all.push((name, inode));
        }
        let end = got.u32();
        got.end();
        if end == 1 {
            return (all, pages);
        }
    }
}

#[tokio::test]
async fn a_directory_in_parts_is_complete() {
    const MANY: usize = 20_000;
    let mut tree = Planted::new(1);
    let many = tree.dir(0, "many");
    for number in 0..MANY {
        tree.add(many, format!("file-{number:06}").as_bytes(), its(Kind::File, 0o644));
    }
    tree.dir(0, "none");
    let server = Running::of(Forest::of(tree)).await;
    let mut client = Client::to(server.at).await;
    let (dir, none) = (client.walk("many").await, client.walk("none").await);
    for (plus, count) in [(false, 512), (false, 8192), (false, 1 << 20), (true, 400), (true, 4096), (true, 65_536), (true, u32::MAX)] {
        let (all, pages) = listed(&mut client, &dir, plus, count).await;
        assert_eq!(all.len(), MANY + 2, "{plus} {count}: {pages} pages");
        assert_eq!((&all[0].0[..], &all[1].0[..]), (&b"."[..], &b".."[..]));
        assert_eq!((all[0].1, all[1].1), (2, 1), "inodes 1 and 0, never 0");
        let names: BTreeMap<_, _> = all.into_iter().collect();
        assert_eq!(names.len(), MANY + 2);
        assert!(pages >= MANY * 24 / (256 << 10));
    }
    assert_eq!(listed(&mut client, &none, true, 4096).await.0.len(), 2);
    // Names alone are fewer octets than with attributes: the first count stops it too.
    let mut got = client.nfs(17, &put().opaque(&dir).u64(0).u64(0).u32(100).u32(65_536)).await;
    assert_eq!(got.u32(), OK);
    got.post_op();
    got.u64();
    let mut entries = 0;
    while got.u32() == 1 {
        let _entry = (got.u64(), got.opaque(), got.u64(), got.post_op(), got.u32(), got.opaque());
        entries += 1;
    }
    assert_eq!((entries, got.u32()), (3, 0));
    for (procedure, count) in [(16, 120), (17, 200), (16, 0)] {
        let args = put().opaque(&dir).u64(0).u64(0).u32(count).u32(count);
        assert_eq!(client.nfs(procedure, &args).await.u32(), TOOSMALL, "{count}");
    }
    for after in [u64::MAX, 1 << 40, MANY as u64 + 2] {
        let mut got = client.nfs(16, &put().opaque(&dir).u64(after).u64(0).u32(4096)).await;
        assert_eq!(got.u32(), OK);
        got.post_op();
        assert_eq!(got.words(), [0, 0, 0, 1], "the end");
    }
    server.end().await;
}
