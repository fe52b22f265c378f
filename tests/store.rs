//! The conformance suite of the store, over the embedded store (in a file, in memory) and a real etcd, and what happens when either is killed.
//!
//! Leaves out: clusters of several etcd members, TLS, power cuts. A row is a function in `store/rows.rs`. `EMBODY_KILLS=n` sets how often
//! the writer is killed.

mod free_port;

#[path = "store/backwards.rs"]
mod backwards;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/peers.rs"]
mod peers;
#[path = "store/rows.rs"]
mod rows;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use embody::testing::{
    limits,
    model::secret::Hidden,
    store::{Change, EmbeddedStore, EtcdLogin, EtcdTls, Expect, Revision, Store, StoreError, StoreSpec, Write},
};
use peers::{Again, Etcd, certificates, etcd_or_skip};
use rows::{create, next, revision};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// Every row, on an empty store that `$open` gives.
macro_rules! every_row {
    ($open:expr) => {
        every_row!(@ $open; a_key_is_created_once an_update_needs_the_revision_that_it_saw a_deletion_needs_it_too
            several_writes_are_done_together_or_not_at_all a_deleted_record_is_told one_of_many_wins
            a_list_is_sorted_and_of_one_moment a_watch_misses_nothing_and_repeats_nothing a_list_and_a_watch_fit_together
            a_watcher_that_does_not_read_loses_nothing_in_silence a_compacted_watch_says_so large_values_pass_and_larger_ones_are_refused events_come_back_newest_last
            writes_after_the_lease_was_given_up_are_fenced)
    };
    (@ $open:expr; $($row:ident)*) => { $(
        eprintln!("row {}", stringify!($row));
        let store: Arc<dyn Store> = $open(stringify!($row)).await;
        timeout(Duration::from_secs(120), rows::$row(store)).await.expect(stringify!($row));
    )* };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_every_promise() {
    let dir = TempDir::new().unwrap();
    every_row!(async |row: &str| EmbeddedStore::open(&dir.path().join(row)).unwrap());
}

#[tokio::test]
async fn the_store_in_memory_keeps_every_promise() {
    every_row!(async |_: &str| { EmbeddedStore::in_memory().unwrap() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_etcd_keeps_every_promise() {
    let Some(etcd) = etcd_or_skip() else { return };
    every_row!(async |row: &str| etcd.connect(&format!("/{row}/")).await);
    let store = etcd.connect("/x/").await;
    assert!(store.server_version().starts_with("3."), "{}", store.server_version());
    assert!(store.warnings().iter().any(|w| w.contains("secrets in the clear")));
}

// --- embedded ------------------------------------------------------------------------------------------------------------------------

/// A watch that was dropped in the middle of a read holds the store for a moment more.
async fn opened(dir: &Path) -> Result<Arc<EmbeddedStore>, StoreError> {
    for _ in 0..500 {
        match EmbeddedStore::open(dir) {
            Err(StoreError::Unusable { why, .. }) if why.contains("has it open") => sleep(Duration::from_millis(10)).await,
            done => return done,
        }
    }
    EmbeddedStore::open(dir)
}

/// The same file without the store around it.
async fn raw(file: std::path::PathBuf) -> redb::Database {
    for _ in 0..500 {
        match redb::Database::open(&file) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => sleep(Duration::from_millis(10)).await,
            done => return done.unwrap(),
        }
    }
    redb::Database::open(&file).unwrap()
}

/// Not a test: what this binary does when a test starts it again.
#[test]
fn child() {
    let Ok(role) = std::env::var("EMBODY_STORE_CHILD") else { return };
    let dir = std::env::var("EMBODY_STORE_DIR").unwrap();
    let store = EmbeddedStore::open(Path::new(&dir)).unwrap();
    println!("\nopen");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match role.as_str() {
            "write" => {
                let writers: Vec<_> = (0..8).map(|n| tokio::spawn(write_for_ever(store.clone(), format!("k/{n}")))).collect();
                for writer in writers {
                    writer.await.unwrap();
                }
            }
            "fill" => fill_for_ever(store).await,
            "records" => backwards::write_records_for_ever(store, Path::new(&dir)).await,
            _ => sleep(Duration::from_secs(600)).await,
        }
    });
}

async fn write_for_ever(store: Arc<EmbeddedStore>, key: String) {
    let found = store.get(&key).await.unwrap();
    let mut number = found.as_ref().map_or(0, |e| String::from_utf8_lossy(&e.value).parse::<u64>().unwrap());
    let mut expect = found.map_or(Expect::Absent, |e| Expect::At(e.revision));
    loop {
        number += 1;
        let at = store.put_if(&key, number.to_string().into(), expect).await.unwrap();
        println!("\nack {at} {key} {number}.");
        expect = Expect::At(at);
    }
}

async fn fill_for_ever(store: Arc<EmbeddedStore>) {
    for n in 0.. {
        let key = format!("fill/{n}");
        match store.put_if(&key, vec![7; 100_000], Expect::Absent).await {
            Ok(_) => println!("\nack {key}."),
            Err(error @ (StoreError::Unusable { .. } | StoreError::Unknown { .. })) => println!("\nfailed {key} {error}."),
            Err(error) => panic!("{error:?}"),
        }
        let read = store.list("fill/0").await;
        println!("\nread {}.", read.is_ok_and(|(entries, _)| entries.len() == 1));
        sleep(Duration::from_millis(5)).await;
    }
}

/// All changes that the log still has, oldest first.
async fn history(store: &EmbeddedStore) -> Vec<Change> {
    let newest = store.list("").await.unwrap().1;
    let mut after = newest.saturating_sub(limits::REVISIONS);
    let mut watch = store.watch("", after).await.unwrap();
    let mut changes = Vec::new();
    while after < newest {
        let change = next(&mut watch).await.unwrap();
        assert_eq!(revision(&change), after + 1, "revisions have no holes");
        after += 1;
        changes.push(change);
    }
    changes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let dir = TempDir::new().unwrap();
    let kills = std::env::var("EMBODY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let mut total = 0;
    let mut before: Revision = 0;
    for round in 0..kills {
        let mut child = Again::start("write", dir.path());
        let output = BufReader::new(child.process.stdout.take().unwrap());
        let lines = tokio::task::spawn_blocking(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        sleep(Duration::from_millis(rand::random_range(30..600))).await;
        child.kill();
        let lines = lines.await.unwrap();
        // A line without its full stop was cut by the kill.
        let acks = lines.iter().filter_map(|line| line.strip_prefix("ack ")?.strip_suffix('.'));
        let acks: BTreeMap<Revision, (&str, &str)> = acks
            .map(|ack| {
                let mut words = ack.split(' ');
                (words.next().unwrap().parse().unwrap(), (words.next().unwrap(), words.next().unwrap()))
            })
            .collect();
        let store = opened(dir.path()).await.unwrap();
        let newest = store.list("").await.unwrap().1;
        assert!(newest >= before && newest >= acks.keys().last().copied().unwrap_or(0), "round {round}");
        let history: BTreeMap<Revision, Change> = history(&store).await.into_iter().map(|c| (revision(&c), c)).collect();
        for (at, (key, number)) in &acks {
            let Some(Change::Put(entry)) = history.get(at) else { panic!("round {round}: revision {at} is lost") };
            assert_eq!((entry.key.as_str(), entry.value.as_slice()), (*key, number.as_bytes()), "round {round}");
        }
        total += acks.len();
        before = newest;
    }
    eprintln!("{kills} kills, {total} acknowledged writes, newest revision {before}");
    assert!(total > 0, "no writer came as far as one write");
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let dir = TempDir::new().unwrap();
    let mut child = Again::start("hold", dir.path());
    let output = BufReader::new(child.process.stdout.take().unwrap());
    assert!(output.lines().map_while(Result::ok).any(|line| line == "open"));
    let refused = EmbeddedStore::open(dir.path()).err().expect("it is held").to_string();
    assert!(refused.contains(&format!("process {}", child.process.id())), "{refused}");
    child.kill();
    create(&*opened(dir.path()).await.unwrap(), "a", "1").await;
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    create(&*opened(dir.path()).await.unwrap(), "a", "1").await;
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let set = async |format: u64| {
        let database = raw(dir.path().join("embody.redb")).await;
        let txn = database.begin_write().unwrap();
        assert!(txn.open_table(meta).unwrap().insert("format", format).unwrap().is_some());
        txn.commit().unwrap();
    };
    set(7).await;
    let bytes = std::fs::read(dir.path().join("embody.redb")).unwrap();
    let refused = opened(dir.path()).await.err().expect("it is newer").to_string();
    assert!(refused.contains("newer version of embody") && refused.contains("format 7"), "{refused}");
    assert_eq!(std::fs::read(dir.path().join("embody.redb")).unwrap(), bytes);
    set(2).await;
    assert_eq!(opened(dir.path()).await.unwrap().get("a").await.unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn only_its_user_can_read_the_file() {
    let dir = TempDir::new().unwrap();
    let made = dir.path().join("a/b");
    let spec = StoreSpec::parse("embedded", &made).unwrap();
    let store = embody::testing::store::open(&spec).await.unwrap();
    create(&*store, "a", "1").await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&made), mode(&made.join("embody.redb"))), (0o700, 0o600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_events_do_not_grow() {
    let dir = TempDir::new().unwrap();
    let store = opened(dir.path()).await.unwrap();
    let old = create(&*store, "old", "current for ever").await;
    let writers: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = format!("k/{n}");
                let mut at = create(&*store, &key, "0").await;
                for _ in 0..150 {
                    at = store.put_if(&key, vec![1; 100], Expect::At(at)).await.unwrap();
                    if n < 75 {
                        store.record_event(format!("{n}").into()).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.events(usize::MAX).await.unwrap().len(), limits::EVENTS);
    assert_eq!(history(&store).await.len() as u64, limits::REVISIONS);
    let mut late = store.watch("", old).await.unwrap();
    assert!(matches!(next(&mut late).await, Err(StoreError::Compacted { .. })));
    assert_eq!(store.get("old").await.unwrap().unwrap().revision, old);
    drop((store, late));
    let database = redb::ReadOnlyDatabase::open(dir.path().join("embody.redb")).unwrap();
    let txn = redb::ReadableDatabase::begin_read(&database).unwrap();
    let log = txn.open_table(redb::TableDefinition::<u64, &[u8]>::new("log")).unwrap();
    let left = redb::ReadableTableMetadata::len(&log).unwrap();
    assert!(left <= limits::REVISIONS + 1_000, "{left} records are left in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_bounded_in_bytes() {
    let dir = TempDir::new().unwrap();
    let store = opened(dir.path()).await.unwrap();
    let small = create(&*store, "small", "current for ever").await;
    let mut large = create(&*store, "large", "0").await;
    for _ in 0..300 {
        large = store.put_if("large", vec![1; 900_000], Expect::At(large)).await.unwrap();
    }
    let mut late = store.watch("", small).await.unwrap();
    assert!(matches!(next(&mut late).await, Err(StoreError::Compacted { .. })));
    let mut lately = store.watch("", large - 50).await.unwrap();
    for revision in large - 49..=large {
        assert!(matches!(next(&mut lately).await, Ok(Change::Put(entry)) if entry.revision == revision));
    }
    assert_eq!(store.get("small").await.unwrap().unwrap().revision, small);
    let bytes = std::fs::metadata(dir.path().join("embody.redb")).unwrap().len();
    assert!(bytes < 200 << 20, "{bytes} bytes, of 270 MB that were written");
}

/// A file size limit stands in for a full disk: it needs no root, and it can be lifted while the process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_survived() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "prlimit is not installed");
        return eprintln!("SKIP: prlimit is not installed");
    }
    let dir = TempDir::new().unwrap();
    let mut child = Again::start("fill", dir.path());
    let id = child.process.id().to_string();
    let mut lines = BufReader::new(child.process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let limit = |bytes: &str| {
        assert!(Command::new("prlimit").args(["--pid", &id, &format!("--fsize={bytes}:")]).status().unwrap().success());
    };
    let mut acked = Vec::new();
    let mut until = |lines: &mut dyn Iterator<Item = String>, what: &str, most: usize| {
        for line in lines.take(most) {
            if let Some(key) = line.strip_prefix("ack ") {
                acked.push(key.trim_end_matches('.').to_owned());
            }
            if line.starts_with(what) {
                return line;
            }
        }
        panic!("no `{what}`");
    };
    until(&mut lines, "ack ", 1_000);
    limit("6000000");
    for _ in 0..10 {
        let failed = until(&mut lines, "failed ", 4_000);
        assert!(failed.contains("no space left") || failed.contains("may or may not") || failed.contains("cannot be"), "{failed}");
    }
    limit("unlimited");
    for _ in 0..10 {
        until(&mut lines, "ack ", 1_000);
    }
    until(&mut lines, "read true", 100);
    child.kill();
    let store = opened(dir.path()).await.unwrap();
    history(&store).await;
    for key in acked {
        assert!(store.get(&key).await.unwrap().is_some(), "{key} was acknowledged");
    }
}

// --- etcd ----------------------------------------------------------------------------------------------------------------------------

const TTL: Duration = Duration::from_secs(6);

/// Writes two keys together over and over, whatever happens, and deals with what it is told. Every value that was acknowledged, by revision.
async fn write_through_failures(store: Arc<dyn Store>, until: Instant) -> (BTreeMap<Revision, String>, usize) {
    let (mut acked, mut failures, mut number) = (BTreeMap::new(), 0, 0);
    let mut expect = Expect::Absent;
    while Instant::now() < until || failures == 0 {
        number += 1;
        let value = format!("{number}");
        match store.write_all(&["w/a", "x/a"].map(|key| Write::put(key, value.clone(), expect))).await {
            Ok(at) => {
                acked.insert(at[0], value);
                expect = Expect::At(at[0]);
            }
            Err(StoreError::Unreachable { .. }) => failures += 1,
            Err(StoreError::Unknown { .. }) => {
                failures += 1;
                // Read before trying again, as the error says.
                if let Ok(found) = store.get("w/a").await {
                    expect = found.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
                }
            }
            Err(StoreError::Conflict { found, .. }) if failures > 0 => expect = found.map_or(Expect::Absent, |e| Expect::At(e.revision)),
            Err(error) => panic!("{error:?}"),
        }
        sleep(Duration::from_millis(2)).await;
    }
    (acked, failures)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_when_etcd_is_killed_and_started_again() {
    let Some(mut etcd) = etcd_or_skip() else { return };
    let store = etcd.connect("/k/").await;
    let mut watch = store.watch("w/", store.list("").await.unwrap().1).await.unwrap();
    let writer = tokio::spawn(write_through_failures(store.clone(), Instant::now() + Duration::from_secs(14)));
    for _ in 0..2 {
        sleep(Duration::from_millis(1_500)).await;
        etcd.kill();
        // Longer than one call's patience, so that the writer is told.
        sleep(Duration::from_millis(4_500)).await;
        etcd.restart();
    }
    let (acked, failures) = timeout(Duration::from_secs(60), writer).await.unwrap().unwrap();
    let mut seen = BTreeMap::new();
    let last = *acked.keys().last().unwrap();
    while seen.keys().last().is_none_or(|at| *at < last) {
        match next(&mut watch).await.unwrap() {
            Change::Put(entry) => {
                let value = String::from_utf8(entry.value).unwrap();
                assert!(seen.keys().last().is_none_or(|at| *at < entry.revision), "in order, none twice");
                seen.insert(entry.revision, value);
            }
            other @ Change::Deleted { .. } => panic!("{other:?}"),
        }
    }
    assert!(failures > 0);
    let (one, other) = (store.get("w/a").await.unwrap().unwrap(), store.get("x/a").await.unwrap().unwrap());
    assert_eq!((one.value, one.revision), (other.value, other.revision), "written together");
    for (at, value) in &acked {
        assert_eq!(seen.get(at), Some(value), "acknowledged at {at}");
    }
    eprintln!("{} acknowledged, {} seen, {failures} calls failed", acked.len(), seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_etcd_fails_calls_in_time_and_loses_the_lease_in_time() {
    let Some(etcd) = etcd_or_skip() else { return };
    let store = etcd.connect("/s/").await;
    let at = create(&*store, "a", "1").await;
    let lease = store.acquire("leader", "one", TTL).await.unwrap();
    let (other, until) = (etcd.connect("/s/").await, lease.until());
    let waiting = tokio::spawn(async move {
        let taken = other.acquire("leader", "two", Duration::from_secs(60)).await.unwrap();
        (until.remaining(), taken)
    });
    // Kept alive for longer than it would live.
    sleep(TTL + Duration::from_secs(1)).await;
    assert!(lease.remaining() > Duration::ZERO && !waiting.is_finished());
    etcd.signal("-STOP");
    let stopped = Instant::now();
    let write = async {
        let failed = store.put_if("a", b"2".into(), Expect::At(at)).await;
        assert!(matches!(failed, Err(StoreError::Unknown { .. } | StoreError::Unreachable { .. })), "{failed:?}");
        stopped.elapsed()
    };
    let read = async {
        let failed = store.get("a").await;
        assert!(matches!(failed, Err(StoreError::Unreachable { .. })), "{failed:?}");
        stopped.elapsed()
    };
    let lost = async {
        timeout(TTL, lease.lost()).await.expect("it is lost before its time to live is over");
        assert_eq!(lease.remaining(), Duration::ZERO);
        stopped.elapsed()
    };
    let (write, read, lost) = tokio::join!(write, read, lost);
    assert!(write < Duration::from_secs(8) && read < Duration::from_secs(8), "{write:?} {read:?}");
    assert!(lost < TTL, "{lost:?}");
    eprintln!("stopped: write failed after {write:?}, read after {read:?}, lease lost after {lost:?}");
    assert!(matches!(store.put_if("b", vec![], Expect::Absent).await, Err(StoreError::Fenced { .. })));
    etcd.signal("-CONT");
    // Lost stays lost, even if etcd should still have the key.
    assert!(matches!(store.put_if("b", vec![], Expect::Absent).await, Err(StoreError::Fenced { .. })));
    // Another one got it only when the first had ended; an etcd that does not answer may have ended its waiting.
    match timeout(Duration::from_secs(30), waiting).await.unwrap() {
        Ok((left, taken)) => {
            assert_eq!(left, Duration::ZERO);
            taken.release().await;
        }
        Err(unreachable) => eprintln!("the other one gave up: {unreachable}"),
    }
    assert_eq!(lease.remaining(), Duration::ZERO);
    let lease = timeout(Duration::from_secs(30), store.acquire("leader", "one", TTL)).await.unwrap().unwrap();
    create(&*store, "b", "1").await;
    lease.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_controllers_holds_the_lease() {
    let Some(etcd) = etcd_or_skip() else { return };
    let (one, two) = (etcd.connect("/l/").await, etcd.connect("/l/").await);
    let first = one.acquire("leader", "one", TTL).await.unwrap();
    let waiting = {
        let two = two.clone();
        tokio::spawn(async move { (two.acquire("leader", "two", TTL).await.unwrap(), Instant::now()) })
    };
    sleep(TTL + Duration::from_secs(2)).await;
    assert!(!waiting.is_finished(), "it is kept alive");
    assert_eq!(two.holder("leader").await.unwrap().as_deref(), Some("one"));
    let released = Instant::now();
    first.release().await;
    let (second, taken) = timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert!(taken - released < Duration::from_secs(2), "{:?}", taken - released);
    assert_eq!(one.holder("leader").await.unwrap().as_deref(), Some("two"));
    let at = create(&*two, "a", "2").await;
    assert!(matches!(one.put_if("a", b"1".into(), Expect::At(at)).await, Err(StoreError::Fenced { .. })));

    // Taken away behind the holder's back: etcd itself refuses the write, before any clock of ours says so.
    let mut raw = etcd.raw().await;
    let kv = raw.get("/l/leases/leader", None).await.unwrap();
    raw.lease_revoke(kv.kvs()[0].lease()).await.unwrap();
    assert!(second.remaining() > Duration::ZERO);
    let refused = two.put_if("a", b"3".into(), Expect::At(at)).await;
    assert!(matches!(&refused, Err(StoreError::Fenced { lease }) if lease == "leader"), "{refused:?}");
    timeout(Duration::from_secs(10), second.lost()).await.unwrap();
    assert_eq!(one.get("a").await.unwrap().unwrap().value, b"2");
    let third = timeout(Duration::from_secs(10), one.acquire("leader", "one", TTL)).await.unwrap().unwrap();
    one.put_if("a", b"4".into(), Expect::At(at)).await.unwrap();
    third.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_in_etcd_go_round_a_ring() {
    let Some(etcd) = etcd_or_skip() else { return };
    let store = etcd.connect("/e/").await;
    let mut raw = etcd.raw().await;
    // As if nearly all slots had been used: recording ten thousand takes long.
    raw.put("/e/event-count", (limits::EVENTS - 10).to_string(), None).await.unwrap();
    for n in 0..25 {
        store.record_event(format!("{n}").into()).await.unwrap();
    }
    let texts = |events: Vec<Vec<u8>>| events.into_iter().map(|e| String::from_utf8(e).unwrap()).collect::<Vec<_>>();
    assert_eq!(texts(store.events(20).await.unwrap()), (5..25).map(|n| n.to_string()).collect::<Vec<_>>());
    let slots = raw.get("/e/events/", Some(etcd_client::GetOptions::new().with_prefix())).await.unwrap();
    assert_eq!(slots.kvs().first().unwrap().key(), b"/e/events/00000");
    assert_eq!(slots.kvs().last().unwrap().key(), format!("/e/events/{:05}", limits::EVENTS - 1).as_bytes());
    // A second controller records too.
    let other = etcd.connect("/e/").await;
    other.record_event(b"theirs".into()).await.unwrap();
    store.record_event(b"ours".into()).await.unwrap();
    assert_eq!(texts(other.events(2).await.unwrap()), ["theirs", "ours"]);
}

#[tokio::test]
async fn an_absent_etcd_is_told_at_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let spec = StoreSpec::parse(&format!("etcd://{nobody}"), Path::new("/nowhere")).unwrap();
    match timeout(Duration::from_secs(10), embody::testing::store::open(&spec)).await.unwrap() {
        Err(StoreError::Unreachable { place, .. }) => assert_eq!(place, format!("etcd://{nobody}")),
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_certificates_on_both_sides() {
    if etcd_or_skip().is_none() {
        return;
    }
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "openssl is not installed");
        return eprintln!("SKIP: openssl is not installed");
    }
    let dir = TempDir::new().unwrap();
    certificates(dir.path());
    let file = |name: &str| Some(dir.path().join(name));
    let etcd = Etcd::start_with(file("."));
    let spec = |tls: EtcdTls| StoreSpec::parse(&format!("etcd://{}", etcd.endpoint()), Path::new("/nowhere")).unwrap().with_tls(tls);
    let full = spec(EtcdTls { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key") });
    let until = Instant::now() + Duration::from_secs(30);
    let store = loop {
        match embody::testing::store::open(&full).await {
            Ok(store) => break store,
            Err(StoreError::Unreachable { .. }) if Instant::now() < until => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    let mut watch = store.watch("", 0).await.unwrap();
    let at = create(&*store, "a", "1").await;
    assert_eq!(revision(&next(&mut watch).await.unwrap()), at);
    assert!(!store.warnings().iter().any(|w| w.contains("not encrypted")));

    // Without our certificate, with one of an authority it does not know, and in the clear.
    let strange = TempDir::new().unwrap();
    certificates(strange.path());
    for wrong in [
        EtcdTls { ca: file("ca.pem"), ..EtcdTls::default() },
        EtcdTls { ca: Some(strange.path().join("ca.pem")), cert: file("client.pem"), key: file("client.key") },
        EtcdTls::default(),
    ] {
        let refused = timeout(Duration::from_secs(20), embody::testing::store::open(&spec(wrong))).await.unwrap().err().expect("refused");
        assert!(matches!(refused, StoreError::Unreachable { .. } | StoreError::Unusable { .. }), "{refused:?}");
    }
    for lacking in [
        EtcdTls { cert: file("client.pem"), key: file("client.key"), ca: None },
        EtcdTls { ca: file("ca.pem"), cert: file("client.pem"), key: None },
        EtcdTls { ca: file("no-such.pem"), ..EtcdTls::default() },
    ] {
        assert!(matches!(embody::testing::store::open(&spec(lacking)).await, Err(StoreError::Unusable { .. })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_a_login() {
    let Some(etcd) = etcd_or_skip() else { return };
    create(&*etcd.connect("/p/").await, "a", "1").await;
    let mut raw = etcd.raw().await;
    raw.user_add("root", "correct horse", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();
    let login = |password: &str| Some(EtcdLogin { user: "root".into(), password: Hidden::new(password.into()) });
    let connect = async |with| embody::testing::store::EtcdStore::connect(&[etcd.endpoint()], EtcdTls::default(), "/p/", with).await;
    let store = connect(login("correct horse")).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
    let mut watch = store.watch("", 0).await.unwrap();
    next(&mut watch).await.unwrap();
    store.acquire("leader", "one", TTL).await.unwrap().release().await;
    let refused = connect(login("battery staple")).await.err().expect("a wrong password");
    assert!(matches!(refused, StoreError::Unusable { .. }) && !format!("{refused:?}").contains("staple"), "{refused:?}");
    let nobody = match connect(None).await {
        Ok(store) => store.get("a").await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(nobody, Some(StoreError::Unusable { .. })), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_of_three_costs_time_and_nothing_else() {
    if etcd_or_skip().is_none() {
        return;
    }
    let mut members = Etcd::three();
    let endpoints: Vec<String> = members.iter().map(Etcd::endpoint).collect();
    for member in &members {
        member.connect("/3/").await;
    }
    let store = embody::testing::store::EtcdStore::connect(&endpoints, EtcdTls::default(), "/3/", None).await.unwrap();
    let lease = store.acquire("leader", "one", Duration::from_secs(15)).await.unwrap();
    let mut watch = store.watch("w/", 0).await.unwrap();
    let mut leader = None;
    for (n, member) in members.iter().enumerate() {
        let status = member.raw().await.status().await.unwrap();
        if status.header().unwrap().member_id() == status.leader() {
            leader = Some(n);
        }
    }
    let (mut acked, mut at) = (BTreeMap::new(), create(&*store, "w/a", "0").await);
    acked.insert(at, "0".to_owned());
    let mut failures = 0;
    for n in 1..=200 {
        if n == 50 {
            members[leader.unwrap()].kill();
        }
        loop {
            match store.put_if("w/a", n.to_string().into(), Expect::At(at)).await {
                Ok(next) => {
                    at = next;
                    acked.insert(at, n.to_string());
                    break;
                }
                Err(StoreError::Unknown { .. } | StoreError::Unreachable { .. }) => failures += 1,
                Err(StoreError::Conflict { found: Some(found), .. }) if failures > 0 => at = found.revision,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    eprintln!("{failures} calls failed while a new leader was elected; the lease has {:?} left", lease.remaining());
    assert!(lease.remaining() > Duration::ZERO);
    let mut seen = BTreeMap::new();
    while seen.keys().last().is_none_or(|last| *last < at) {
        let Change::Put(entry) = next(&mut watch).await.unwrap() else { panic!("nothing was deleted") };
        assert!(seen.insert(entry.revision, String::from_utf8(entry.value).unwrap()).is_none(), "none twice");
    }
    assert!(acked.iter().all(|(at, value)| seen.get(at) == Some(value)));
    lease.release().await;
}
