//! Peers that mean harm, or are broken: what they send ends nothing but their own connections, and what they hold is bounded.
//!
//! Leaves out: what lies below TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use embody::testing::server::nfs::{Kind, Limits};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::client::*;
use super::common::{Running, alone, resident};
use super::forest::{Forest, Planted, TOKEN, its};

const MANY_MB: u64 = 64;

/// A large file, a directory with entries, a link.
fn planted(dir: &std::path::Path) -> Planted {
    let path = dir.join("big");
    std::fs::write(&path, vec![7; (MANY_MB << 20) as usize]).unwrap();
    let mut tree = Planted::new(1);
    tree.file(0, "big", 0o644, 0, &path);
    tree.link(0, "link", "big");
    let sub = tree.dir(0, "sub");
    for number in 0..3_000 {
        tree.add(sub, format!("entry-{number}").as_bytes(), its(Kind::File, 0o644));
    }
    tree
}

async fn server(limits: Limits) -> (Running, tempfile::TempDir) {
    let memory = alone().await;
    let dir = tempfile::tempdir().unwrap();
    (Running::within(memory, Arc::new(Forest::of(planted(dir.path()))), limits).await, dir)
}

/// Whether anybody is answered still.
async fn is_well(at: SocketAddr) {
    let mut other = Client::from([127, 0, 0, 9], at).await.unwrap();
    let file = timeout(Duration::from_secs(10), other.walk("big")).await.expect("an answer in time");
    assert_eq!(other.read(&file, 5, 10).await.unwrap().0, [7; 10]);
}

/// All that is sent until the other side ends it.
async fn is_ended(client: &mut Client, within: Duration) -> bool {
    let mut rest = [0; 64 << 10];
    let ended = async { while client.stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    timeout(within, ended).await.is_ok()
}

/// Arguments that are in order, more or less, for any procedure.
fn arguments(handle: &[u8]) -> Put {
    put().opaque(handle).opaque(b"name").opaque(handle).opaque(b"name").u64(0).u32(4096).u32(4096)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_procedure_takes_arguments_that_end_anywhere() {
    let (server, _dir) = server(Limits::default()).await;
    let mut client = Client::to(server.at).await;
    let args = arguments(&client.root().await).0;
    let mut answers = 0;
    for (program, version) in [(NFS, 3), (MOUNT, 3), (MOUNT, 1), (ACL, 3), (PORTMAP, 2), (PORTMAP, 3), (PORTMAP, 4), (1, 1)] {
        for procedure in 0..24 {
            for length in (0..=args.len()).step_by(3) {
                client.raw([program, version, procedure], &Put(args[..length].to_vec())).await;
                answers += 1;
            }
        }
    }
    assert!(answers > 6_000, "{answers}");
    is_well(server.at).await;
    server.end().await;
}

#[tokio::test]
async fn what_is_claimed_is_not_held() {
    let (server, _dir) = server(Limits::default()).await;
    let before = resident();
    let mut waiting = Vec::new();
    for mark in [u32::MAX, 0x7fff_ffff, (1 << 31) | ((64 << 10) + 1), (1 << 31) | (64 << 10)] {
        let mut client = Client::to(server.at).await;
        client.stream.write_all(&[&mark.to_be_bytes()[..], &[0; 8]].concat()).await.unwrap();
        waiting.push(client);
    }
    for client in &mut waiting[..3] {
        assert!(is_ended(client, Duration::from_secs(5)).await);
    }
    assert!(!is_ended(&mut waiting[3], Duration::from_millis(200)).await, "a record of the largest size is waited for");
    let mut client = Client::to(server.at).await;
    for length in [u32::MAX, 0x7fff_ffff, 65, 1 << 20] {
        for procedure in [1, 3, 4, 6, 16, 17] {
            let got = client.raw([NFS, 3, procedure], &put().u32(length).u64(0)).await.words();
            assert_eq!(got, [1, 0, 0, 0, 4], "GARBAGE_ARGS");
        }
    }
    // Credentials and verifiers of any length: the end, or a refusal.
    for length in [401, u32::MAX] {
        let mut client = Client::to(server.at).await;
        let head = put().u32(1).u32(0).u32(2).u32(NFS).u32(3).u32(0).u32(1).u32(length).u64(0).0;
        client.stream.write_all(&[&(head.len() as u32 | 1 << 31).to_be_bytes()[..], &head].concat()).await.unwrap();
        assert!(is_ended(&mut client, Duration::from_secs(5)).await);
    }
    assert!(resident() < before + (64 << 20));
    is_well(server.at).await;
    server.end().await;
}

/// A call, and how it is bent.
#[derive(Debug, Clone)]
enum Bent {
    Noise(Vec<u8>),
    /// A call in order, with octets set and its end cut off.
    Call {
        target: [u32; 3],
        set: Vec<(usize, u8)>,
        cut: usize,
    },
}

fn bent() -> impl Strategy<Value = Bent> {
    let program = prop_oneof![Just([NFS, 3]), Just([NFS, 3]), Just([MOUNT, 3]), Just([ACL, 3]), Just([PORTMAP, 2]), Just([PORTMAP, 4])];
    let set = prop::collection::vec((0_usize..200, any::<u8>()), 0..6);
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Bent::Noise),
        5 => (program, 0_u32..23, set, 0_usize..40).prop_map(|([program, version], procedure, set, cut)| Bent::Call {
            target: [program, version, procedure],
            set,
            cut,
        }),
    ]
}

fn octets(bent: &Bent, handle: &[u8]) -> Vec<u8> {
    match bent {
        Bent::Noise(noise) => noise.clone(),
        Bent::Call { target, set, cut } => {
            let mut record = call(7, Some(&(0, vec![0])), *target, &arguments(handle).0);
            // Not the length of the record: that is another test.
            set.iter().for_each(|(at, octet)| {
                if let Some(there) = record.get_mut(4 + at) {
                    *there = *octet;
                }
            });
            record.truncate(record.len() - cut);
            let mark = (record.len() as u32 - 4) | 1 << 31;
            record[..4].copy_from_slice(&mark.to_be_bytes());
            record
        }
    }
}

#[test]
fn whatever_is_sent_ends_only_its_own_connection() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let limits = Limits { record_within: Duration::from_millis(500), ..Limits::default() };
    let (server, _dir) = runtime.block_on(server(limits));
    let handle = runtime.block_on(async { Client::to(server.at).await.root().await });
    let before = resident();
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Config::with_cases(400) });
    runner
        .run(&prop::collection::vec(bent(), 1..20), |calls| {
            runtime.block_on(async {
                let mut client = Client::to(server.at).await;
                for bent in &calls {
                    // It may have been ended already.
                    let _ended = client.stream.write_all(&octets(bent, &handle)).await;
                }
                let _ended = client.stream.shutdown().await;
                let ended = is_ended(&mut client, Duration::from_secs(10)).await;
                prop_assert!(ended, "the connection stays");
                Ok(())
            })
        })
        .unwrap();
    assert!(resident() < before + (96 << 20), "{} MiB", (resident() - before) >> 20);
    runtime.block_on(async {
        is_well(server.at).await;
        server.end().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_of_one_address_are_in_nobodys_way() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let limits = Limits::default();
    let (server, _dir) = server(limits.clone()).await;
    let mut good = Client::from([127, 0, 0, 2], server.at).await.unwrap();
    let file = good.walk("big").await;
    let before = resident();
    let mut crowd = Vec::new();
    for number in 0..10_000_u64 {
        if let Ok(client) = Client::from([127, 0, 0, 3], server.at).await {
            crowd.push(client);
        }
        if number % 500 == 0 {
            let read = timeout(Duration::from_secs(10), good.read(&file, number, 4096)).await;
            assert_eq!(read.expect("an answer in time").unwrap().0.len(), 4096);
            is_well(server.at).await;
        }
        // As many as this process may have open.
        if crowd.len() as u64 > most.unwrap_or(u64::MAX) / 3 {
            crowd.drain(..crowd.len() / 2);
        }
    }
    sleep(Duration::from_millis(500)).await;
    assert!(server.stats.crowded_out.get() >= 10_000 - limits.connections_of_one as u64, "{:?}", server.stats);
    assert!(resident() < before + (128 << 20), "{} MiB, the other ends included", (resident() - before) >> 20);
    drop(crowd);
    let mut again = Client::from([127, 0, 0, 3], server.at).await.unwrap();
    again.call([NFS, 3, 0], &put()).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_slowly_is_not_waited_for() {
    let limits = Limits { record_within: Duration::from_millis(400), ..Limits::default() };
    let (server, _dir) = server(limits.clone()).await;
    let mut slow = Vec::new();
    for number in 0..limits.connections_of_one {
        let mut client = Client::from([127, 0, 0, 3], server.at).await.unwrap();
        // A part of the mark, a part of the record, nothing at all.
        let part = [0x80, 0, 0, 100, 0, 0, 0, 1];
        client.stream.write_all(&part[..[2, 8, 0][number % 3]]).await.unwrap();
        slow.push(client);
    }
    is_well(server.at).await;
    let began = Instant::now();
    for client in &mut slow {
        let _more = client.stream.write_all(&[0]).await;
        assert!(is_ended(client, Duration::from_secs(5)).await);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_never_receives_holds_little_and_not_for_long() {
    let limits = Limits { write_within: Duration::from_secs(1), ..Limits::default() };
    let (server, _dir) = server(limits).await;
    let mut good = Client::from([127, 0, 0, 2], server.at).await.unwrap();
    let file = good.walk("big").await;
    let before = resident();
    let mut deaf = Vec::new();
    for _ in 0..16 {
        let mut client = Client::from([127, 0, 0, 3], server.at).await.unwrap();
        for number in 0..400_u64 {
            let record = call(number as u32, Some(&(0, vec![0])), [NFS, 3, 6], &reading(&file, (number % MANY_MB) << 20, 1 << 20).0);
            // What does not fit into the socket stays with the client.
            if timeout(Duration::from_millis(20), client.stream.write_all(&record)).await.is_err() {
                break;
            }
        }
        deaf.push(client);
    }
    let began = Instant::now();
    for number in 0..100_u64 {
        let read = timeout(Duration::from_secs(5), good.read(&file, (number % 60) << 20, 1 << 20)).await;
        assert_eq!(read.expect("an answer in time").unwrap().0.len(), 1 << 20);
    }
    println!("100 reads of a megabyte beside 16 deaf connections: {:?}", began.elapsed());
    let grown = resident().saturating_sub(before);
    println!("held: {} MiB", grown >> 20);
    assert!(grown < 96 << 20, "{} MiB", grown >> 20);
    // Those that hold the share of their address end first, and then the next ones.
    let until = Instant::now() + Duration::from_secs(15);
    while server.stats.broken.get() < 3 {
        assert!(Instant::now() < until, "{:?}", server.stats);
        sleep(Duration::from_millis(100)).await;
    }
    drop(deaf);
    is_well(server.at).await;
    server.end().await;
}

#[tokio::test]
async fn handles_cannot_be_guessed_nor_names_of_other_trees_found() {
    let (server, _dir) = server(Limits::default()).await;
    let secret = server.forest.plant("/p/other", Planted::new(2));
    let mut client = Client::to(server.at).await;
    let mut handle = client.root().await;
    // A handle of one's own tree, bent to another one.
    handle[..16].copy_from_slice(&[2; 16]);
    assert_eq!(client.nfs(1, &put().opaque(&handle)).await.u32(), BADHANDLE);
    assert_eq!(client.mount(&format!("{TOKEN}/../other")).await, Err(NOENT));
    assert_eq!(client.mount("/p/other").await.unwrap()[..16], [2; 16]);
    drop(secret);
    server.end().await;
}
