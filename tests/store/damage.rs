//! Files of the embedded store that are not as it left them: empty, cut, another program's, an older format, and damaged at every place.
//!
//! Leaves out: a file that is whole and older than it should be (`backwards.rs`). `EMBODY_FLIPS=n` sets how many bytes are damaged, one at a time.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use embody::testing::store::{Change, EmbeddedStore, Entry, Expect, Records, Store, StoreError, Write};
use rand::{Rng, SeedableRng, rngs::StdRng};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::rows::create;
use crate::{opened, raw};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const HEAD: TableDefinition<&str, u64> = TableDefinition::new("head");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("embody.redb")
}

/// A value that tells its key and its turn, of very different lengths.
fn value(key: &str, turn: usize) -> Vec<u8> {
    let unit = format!("{key} at turn {turn};");
    let length = [1, 40, 3_000, 9_000][key.len().wrapping_add(turn * 7) % 4].max(unit.len());
    unit.bytes().cycle().take(length).collect()
}

type Expected = BTreeMap<String, Vec<u8>>;

async fn filled(store: &EmbeddedStore) -> Expected {
    let mut expected = BTreeMap::new();
    for n in 0..60 {
        let key = format!("records/2/bodies/{}{n}", "x".repeat(n % 9));
        let at = store.put_if(&key, value(&key, 0), Expect::Absent).await.unwrap();
        match n % 3 {
            0 => drop(expected.insert(key.clone(), value(&key, 0))),
            1 => {
                store.put_if(&key, value(&key, 1), Expect::At(at)).await.unwrap();
                expected.insert(key.clone(), value(&key, 1));
            }
            _ => drop(store.delete_if(&key, at).await.unwrap()),
        }
        store.record_event(format!("event {n}").into()).await.unwrap();
    }
    expected
}

/// What is read is right, or said to be damaged; and nothing is missing. False: the whole store says that it cannot be used.
async fn judge(store: &EmbeddedStore, expected: &Expected, what: &str) -> bool {
    let right = |entry: &Entry| match expected.get(&entry.key) {
        Some(value) if entry.damaged => assert!(entry.value.is_empty(), "{what}: {} of {} bytes", entry.key, value.len()),
        Some(value) => assert!(entry.value == *value, "{what}: a wrong value of {}", entry.key),
        None => panic!("{what}: nobody wrote {}", entry.key),
    };
    match store.list("").await {
        Ok((entries, _)) => {
            entries.iter().for_each(right);
            assert_eq!(entries.len(), expected.len(), "{what}: a key is missing");
        }
        Err(StoreError::Unusable { .. }) => return false,
        Err(error) => panic!("{what}: {error:?}"),
    }
    for key in expected.keys() {
        match store.get(key).await {
            Ok(Some(entry)) => right(&entry),
            Ok(None) => panic!("{what}: {key} is hidden"),
            Err(StoreError::Unusable { .. }) => return false,
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
    let events = store.events(100).await;
    assert!(events.is_ok_and(|events| events.iter().all(|e| e.starts_with(b"event "))), "{what}");
    let mut watch = store.watch("", 0).await.unwrap();
    while let Ok(Some(Ok(change))) = timeout(Duration::from_millis(10), watch.recv()).await {
        match change {
            Change::Put(entry) => {
                let turns = [0, 1].map(|turn| value(&entry.key, turn));
                assert!(
                    turns.contains(&entry.value) || expected.get(&entry.key) == Some(&entry.value),
                    "{what}: a wrong change of {}",
                    entry.key
                );
            }
            Change::Deleted { key, .. } => assert!(key.starts_with("records/2/bodies/"), "{what}"),
        }
    }
    true
}

/// How it went: refused when opened, or used, and how many keys were damaged.
async fn trial(dir: &Path, expected: &Expected, what: &str) -> Option<usize> {
    let store = match opened(dir).await {
        Ok(store) => store,
        Err(error @ StoreError::Unusable { .. }) => {
            let text = error.to_string();
            assert!(text.contains("embody.redb") && (text.contains("restore it") || text.contains("newer version")), "{what}: {text}");
            return None;
        }
        Err(error) => panic!("{what}: {error:?}"),
    };
    if !judge(&store, expected, what).await {
        return None;
    }
    let damaged: Vec<Entry> = store.list("").await.unwrap().0.into_iter().filter(|entry| entry.damaged).collect();
    // It is used as before, what is damaged is written over, and it is as good as new.
    let mut expected = expected.clone();
    let mut writes: Vec<Write> = damaged.iter().map(|e| Write::put(&*e.key, "mended", Expect::At(e.revision))).collect();
    writes.push(Write::put("new", "new", Expect::Absent));
    if let Err(error) = store.write_all(&writes).await {
        assert!(matches!(error, StoreError::Unusable { .. } | StoreError::Unknown { .. }), "{what}: {error:?}");
        return None;
    }
    expected.extend(writes.into_iter().map(|write| (write.key, write.value.unwrap())));
    drop(store);
    let store = opened(dir).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(judge(&store, &expected, what).await, "{what}: written, and gone");
    assert!(store.list("").await.unwrap().0.iter().all(|entry| !entry.damaged), "{what}");
    Some(damaged.len())
}

#[tokio::test]
async fn no_damaged_byte_gives_a_wrong_value_or_hides_a_key() {
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = opened(dir.path()).await.unwrap();
    let expected = filled(&store).await;
    // As a kill would leave it, and closed well.
    let killed = std::fs::read(file(&dir)).unwrap();
    drop(store);
    let closed = std::fs::read(file(&dir)).unwrap();
    let flips = std::env::var("EMBODY_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let seed = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut refused, mut lost, mut unharmed) = (0, 0, 0);
    for n in 0..flips {
        let image = if n % 2 == 0 { &closed } else { &killed };
        // Most of a file is space that nobody uses; the header and what is written are what matters.
        let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        let at = match n % 5 {
            0 => rng.random_range(0..512),
            1 => rng.random_range(0..image.len()),
            _ => used[rng.random_range(0..used.len())],
        };
        let mut bytes = image.clone();
        bytes[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(file(&copy), &bytes).unwrap();
        let what = format!("seed {seed}, image {}, byte {at} of {}", n % 2, bytes.len());
        match trial(copy.path(), &expected, &what).await {
            None => refused += 1,
            Some(0) => unharmed += 1,
            Some(_) => lost += 1,
        }
    }
    eprintln!("{flips} bytes damaged: {refused} refused, {lost} with lost values, {unharmed} unharmed");
    assert!(refused > 0 && lost > 0, "{refused} refused, {lost} lost: this would show nothing");
}

#[tokio::test]
async fn a_damaged_value_is_told_by_its_key_and_hides_no_other() {
    let dir = TempDir::new().unwrap();
    let store = opened(dir.path()).await.unwrap();
    let keys = ["records/2/bodies/a", "records/2/bodies/b", "records/2/pauses/everything"];
    for key in keys {
        create(&*store, key, &format!("{{\"vlan\":100,\"of\":\"{key}\"}}")).await;
    }
    drop(store);
    let mut bytes = std::fs::read(file(&dir)).unwrap();
    let needle = b"{\"vlan\":100,\"of\":\"records/2/bodies/b";
    let places: Vec<usize> = (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    // A digit of it, wherever it stands: 100 becomes 300.
    places.iter().for_each(|at| bytes[at + 8] = b'3');
    assert!(!places.is_empty());
    std::fs::write(file(&dir), &bytes).unwrap();
    for _ in 0..2 {
        // Killed or not, it is told each time.
        let store = opened(dir.path()).await.unwrap();
        let damaged: Vec<(String, bool)> = store.list("").await.unwrap().0.into_iter().map(|e| (e.key, e.damaged)).collect();
        assert_eq!(damaged, keys.map(|key| (key.to_owned(), key.ends_with("/b"))));
        assert!(store.get(keys[1]).await.unwrap().unwrap().damaged);
    }
}

#[tokio::test]
async fn what_is_no_store_is_refused_in_a_sentence_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(opened(dir.path()).await.unwrap());
    let whole = std::fs::read(file(&dir)).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "the file is empty (0 bytes)"),
        (&[0x5a; 100_000], "a file of another program"),
        (b"redb", "a file of another program"),
        (&whole[..100], "damaged or cut short"),
        (&whole[..whole.len() / 2], "damaged or cut short"),
    ];
    for (bytes, words) in cases {
        std::fs::write(file(&dir), bytes).unwrap();
        let refused = opened(dir.path()).await.err().expect(words).to_string();
        assert!(refused.contains(words) && refused.contains("restore it from a backup, or move it away"), "{words}: {refused}");
        assert!(refused.contains(&file(&dir).display().to_string()) && !refused.contains('\n'), "{refused}");
        assert_eq!(std::fs::read(file(&dir)).unwrap(), bytes, "left alone");
    }
    std::fs::remove_file(file(&dir)).unwrap();
    std::fs::create_dir(file(&dir)).unwrap();
    let refused = opened(dir.path()).await.err().expect("a directory").to_string();
    assert!(refused.contains("it is not a file"), "{refused}");
}

/// The tables and records as the first version wrote them.
fn write_format_1(dir: &TempDir, changes: &[(u8, u64, &str, &str)], floor: u64) {
    let database = redb::Database::create(file(dir)).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let (mut log, mut head) = (txn.open_table(LOG).unwrap(), txn.open_table(HEAD).unwrap());
        for (revision, (what, before, key, value)) in (1..).zip(changes) {
            let header = [&[*what][..], &before.to_le_bytes(), &u32::try_from(key.len()).unwrap().to_le_bytes()].concat();
            log.insert(revision, [&header, key.as_bytes(), value.as_bytes()].concat().as_slice()).unwrap();
            match what {
                1 => drop(head.insert(*key, revision).unwrap()),
                _ => drop(head.remove(*key).unwrap()),
            }
        }
        txn.open_table(EVENTS).unwrap().insert(0, &b"event 0"[..]).unwrap();
        let mut meta = txn.open_table(META).unwrap();
        for (name, number) in [("format", 1), ("revision", changes.len() as u64), ("floor", floor), ("swept", floor), ("events", 1)] {
            meta.insert(name, number).unwrap();
        }
    }
    txn.commit().unwrap();
}

#[tokio::test]
async fn a_file_of_format_1_becomes_format_2() {
    let dir = TempDir::new().unwrap();
    let changes =
        [(1, 0, "bodies/a", "1"), (1, 0, "bodies/b", "1"), (1, 1, "bodies/a", "2"), (2, 2, "bodies/b", ""), (1, 0, "objects/x", "y")];
    write_format_1(&dir, &changes, 0);
    for _ in 0..2 {
        let store = opened(dir.path()).await.unwrap();
        let entry = |key: &str, value: &str, revision| Entry { key: key.into(), value: value.into(), revision, damaged: false };
        assert_eq!(store.list("").await.unwrap(), (vec![entry("bodies/a", "2", 3), entry("objects/x", "y", 5)], 5));
        assert_eq!(store.events(10).await.unwrap(), [b"event 0".to_vec()]);
        let mut watch = store.watch("", 2).await.unwrap();
        assert_eq!(watch.recv().await.unwrap().unwrap(), Change::Put(entry("bodies/a", "2", 3)));
        assert_eq!(watch.recv().await.unwrap().unwrap(), Change::Deleted { key: "bodies/b".into(), revision: 4 });
    }
    let database = raw(file(&dir)).await;
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.open_table(META).unwrap().get("format").unwrap().unwrap().value(), 2);
    drop((txn, database));
    let store = opened(dir.path()).await.unwrap();
    assert_eq!(store.put_if("bodies/a", b"3".into(), Expect::At(3)).await.unwrap(), 6);
}

#[tokio::test]
async fn a_file_of_format_1_that_does_not_read_is_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    write_format_1(&dir, &[(1, 0, "bodies/a", "1"), (9, 0, "bodies/b", "1")], 0);
    for _ in 0..2 {
        let refused = opened(dir.path()).await.err().expect("a record does not read").to_string();
        assert!(refused.contains("damaged"), "{refused}");
    }
    let database = raw(file(&dir)).await;
    assert_eq!(database.begin_read().unwrap().open_table(META).unwrap().get("format").unwrap().unwrap().value(), 1);
}

/// A page that is whole by redb's own word and holds a wrong record: the checksum of the record tells, while others go on.
#[tokio::test]
async fn a_wrong_record_in_a_whole_page_is_told_and_written_over() {
    let dir = TempDir::new().unwrap();
    let store = opened(dir.path()).await.unwrap();
    let (a, b) = (create(&*store, "a", "1").await, create(&*store, "b", "1").await);
    drop(store);
    let database = raw(file(&dir)).await;
    let txn = database.begin_write().unwrap();
    {
        let mut log = txn.open_table(LOG).unwrap();
        let record = log.get(a).unwrap().unwrap().value().to_vec();
        let wrong = [&record[..record.len() - 1], b"2"].concat();
        log.insert(a, wrong.as_slice()).unwrap();
    }
    txn.commit().unwrap();
    drop(database);
    let store: Arc<EmbeddedStore> = opened(dir.path()).await.unwrap();
    let (entries, at) = store.list("").await.unwrap();
    assert_eq!(entries.iter().map(|e| (&*e.key, e.damaged)).collect::<Vec<_>>(), [("a", true), ("b", false)]);
    // History behind it is gone, what comes is not.
    let mut watch = store.watch("", 0).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Err(StoreError::Compacted { .. }))));
    let mut watch = store.watch("", at).await.unwrap();
    assert!(matches!(store.put_if("a", b"3".into(), Expect::At(b)).await, Err(StoreError::Conflict { found: Some(e), .. }) if e.damaged));
    let mended = store.put_if("a", b"3".into(), Expect::At(a)).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Ok(Change::Put(e))) if e.revision == mended && !e.damaged));
    assert!(store.list("").await.unwrap().0.iter().all(|e| !e.damaged));
}

/// What was written before is read, and nothing more is: the words say what happened and what is to be done.
async fn is_read_only(store: &EmbeddedStore, what: &str) {
    for turn in 0..2 {
        let refused = store.put_if("b", b"2".into(), Expect::Absent).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unusable { .. }), "{refused:?}");
        for word in [what, "embody.redb", "start it again"] {
            assert!(refused.to_string().contains(word), "no {word} in {refused}");
        }
        assert!(store.record_event(b"an event".into()).await.is_err(), "{turn}");
        let entries = store.list("").await.unwrap().0;
        assert_eq!(entries.iter().map(|e| (&*e.key, &*e.value)).collect::<Vec<_>>(), [("a", b"1".as_slice())], "{turn}");
    }
    assert!(store.events(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_is_removed_or_replaced_under_the_store_is_not_written_any_more() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = opened(dir.path()).await.unwrap();
    create(&*store, "a", "1").await;
    std::fs::rename(file(&dir), dir.path().join("kept")).unwrap();
    is_read_only(&store, "removed").await;
    // One that is a store, too.
    drop(opened(other.path()).await.unwrap());
    std::fs::copy(file(&other), file(&dir)).unwrap();
    is_read_only(&store, "replaced").await;
    // As it was.
    std::fs::rename(dir.path().join("kept"), file(&dir)).unwrap();
    create(&*store, "b", "2").await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    let refused = store.put_if("c", b"3".into(), Expect::Absent).await.unwrap_err().to_string();
    assert!(refused.contains("removed"), "{refused}");
    assert_eq!(store.list("").await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn nothing_is_recorded_without_the_mark_that_would_tell_of_it() {
    let dir = TempDir::new().unwrap();
    let store = opened(dir.path()).await.unwrap();
    let records = Records::open(store.clone(), dir.path()).unwrap();
    records.take_over().await.unwrap();
    let write = |key: &str| [Write::put(key, "1", Expect::Absent)];
    records.write_all(&write("records/2/bodies/a")).await.unwrap();
    let mark = dir.path().join("mark");
    let copy = std::fs::read(&mark).unwrap();
    std::fs::remove_file(&mark).unwrap();
    for what in ["removed", "replaced"] {
        let refused = records.write_all(&write("records/2/bodies/b")).await.unwrap_err().to_string();
        assert!(refused.contains(what) && refused.contains("mark") && refused.contains("start it again"), "{refused}");
        assert!(store.get("records/2/bodies/b").await.unwrap().is_none());
        std::fs::write(&mark, &copy).unwrap();
    }
    drop(records);
    let records = Records::open(store.clone(), dir.path()).unwrap();
    records.take_over().await.unwrap();
    records.write_all(&write("records/2/bodies/b")).await.unwrap();
}
