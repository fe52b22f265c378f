//! A store that went backwards: restored from a backup, emptied, exchanged, on both backends, and what is left of the mark after a kill.
//!
//! Leaves out: every single case of the comparison (`src/store/records.rs`), and what a controller stops then.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::opened;
use embody::testing::store::{Change, EmbeddedStore, Expect, Records, Store, StoreError, Write};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    peers::{Again, Etcd, etcd_or_skip},
    rows::next,
};

fn put(key: &str) -> [Write; 1] {
    [Write::put(key, "1", Expect::Absent)]
}

/// The number in the mark of a directory.
fn marked(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join("mark")).unwrap();
    text.split(' ').nth(4).unwrap().parse().unwrap()
}

async fn begun(store: Arc<dyn Store>, dir: &Path) -> Records {
    let records = Records::open(store, dir).unwrap();
    records.take_over().await.unwrap();
    records
}

/// It says so in these words, and goes on saying so until the store is accepted.
async fn refused(records: &Records, words: &str) {
    for result in [records.follow().await, records.take_over().await, records.write_all(&put("never")).await.map(drop)] {
        match result {
            Err(StoreError::Backwards { sentence }) => assert!(sentence.contains(words), "{sentence}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(records.backwards().borrow().as_ref().is_some_and(|sentence| sentence.contains(words)));
}

async fn accepted(records: &Records, key: &str) {
    records.accept().await.unwrap();
    assert_eq!(*records.backwards().borrow(), None);
    records.write_all(&put(key)).await.unwrap();
    records.follow().await.unwrap();
}

async fn open(dir: &TempDir) -> Arc<dyn Store> {
    opened(dir.path()).await.unwrap()
}

#[tokio::test]
async fn a_record_and_its_number_are_one_write() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let records = begun(store.clone(), dir.path()).await;
    assert_eq!(marked(dir.path()), 0);
    let at = records.write_all(&[put("a"), put("b")].concat()).await.unwrap();
    assert_eq!(at.len(), 2);
    assert_eq!((store.get("meta/seq").await.unwrap().unwrap().value, marked(dir.path())), (b"1 0".to_vec(), 1));
    // Refused: no number is used up.
    assert!(matches!(records.write_all(&[put("c"), put("a")].concat()).await, Err(StoreError::Conflict { key, .. }) if key == "a"));
    records.write_all(&[Write::delete("a", at[0])]).await.unwrap();
    assert_eq!(store.get("c").await.unwrap(), None);
    assert_eq!((store.get("meta/seq").await.unwrap().unwrap().value, marked(dir.path())), (b"2 0".to_vec(), 2));
    // Two that write at once, and one that knows only an older number.
    let late = begun(store.clone(), dir.path()).await;
    for n in 0..5 {
        records.write_all(&put(&format!("x/{n}"))).await.unwrap();
        late.write_all(&put(&format!("y/{n}"))).await.unwrap();
    }
    assert_eq!((store.get("meta/seq").await.unwrap().unwrap().value, marked(dir.path())), (b"12 0".to_vec(), 12));
}

#[tokio::test]
async fn an_embedded_file_put_back_is_noticed() {
    let dir = TempDir::new().unwrap();
    let (file, backup) = (dir.path().join("embody.redb"), dir.path().join("backup"));
    begun(open(&dir).await, dir.path()).await.write_all(&put("a")).await.unwrap();
    std::fs::copy(&file, &backup).unwrap();
    begun(open(&dir).await, dir.path()).await.write_all(&put("b")).await.unwrap();
    std::fs::copy(&backup, &file).unwrap();
    let records = Records::open(open(&dir).await, dir.path()).unwrap();
    refused(&records, "ends at record 1").await;
    drop(records);
    // A new process knows it too.
    let records = Records::open(open(&dir).await, dir.path()).unwrap();
    refused(&records, "ends at record 1").await;
    accepted(&records, "c").await;
    drop(records);
    begun(open(&dir).await, dir.path()).await.write_all(&put("d")).await.unwrap();
}

#[tokio::test]
async fn an_embedded_file_taken_away_or_exchanged_is_noticed() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    begun(open(&dir).await, dir.path()).await.write_all(&put("a")).await.unwrap();
    std::fs::remove_file(dir.path().join("embody.redb")).unwrap();
    let records = Records::open(open(&dir).await, dir.path()).unwrap();
    refused(&records, "was emptied").await;
    accepted(&records, "a").await;
    drop(records);
    begun(open(&other).await, other.path()).await.write_all(&put("a")).await.unwrap();
    std::fs::copy(other.path().join("embody.redb"), dir.path().join("embody.redb")).unwrap();
    let records = Records::open(open(&dir).await, dir.path()).unwrap();
    refused(&records, "is another one").await;
    accepted(&records, "b").await;
}

#[tokio::test]
async fn a_missing_mark_is_made_and_a_damaged_one_stops() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    begun(store.clone(), dir.path()).await.write_all(&put("a")).await.unwrap();
    let mark = dir.path().join("mark");
    std::fs::remove_file(&mark).unwrap();
    begun(store.clone(), dir.path()).await.write_all(&put("b")).await.unwrap();
    assert_eq!(marked(dir.path()), 2);
    let whole = std::fs::read(&mark).unwrap();
    let flipped = [&whole[..60], &[whole[60] ^ 1], &whole[61..]].concat();
    for (n, damaged) in [&b""[..], &whole[..40], &flipped].into_iter().enumerate() {
        std::fs::write(&mark, damaged).unwrap();
        let records = Records::open(store.clone(), dir.path()).unwrap();
        refused(&records, "does not read").await;
        assert_eq!(std::fs::read(&mark).unwrap(), damaged, "it is left for people to see");
        accepted(&records, &format!("c/{n}")).await;
        assert_eq!(marked(dir.path()), 3 + n as u64);
    }
}

/// What the child does when it is started again for this: see `child` in `tests/store.rs`.
pub async fn write_records_for_ever(store: Arc<EmbeddedStore>, dir: &Path) {
    let records = begun(store, dir).await;
    for n in 1.. {
        records.write_all(&[Write::put(format!("k/{}/{n}", std::process::id()), "1", Expect::Absent)]).await.unwrap();
        println!("\nack {}.", marked(dir));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_outlives_a_killed_process() {
    let dir = TempDir::new().unwrap();
    let mut before = 0;
    for round in 0..5 {
        let mut child = Again::start("records", dir.path());
        let output = BufReader::new(child.process.stdout.take().unwrap());
        let lines = tokio::task::spawn_blocking(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        sleep(Duration::from_millis(rand::random_range(200..800))).await;
        child.kill();
        let acks = lines.await.unwrap();
        let last = acks.iter().rev().find_map(|line| line.strip_prefix("ack ")?.strip_suffix('.')?.parse::<u64>().ok());
        let now = marked(dir.path());
        assert!(now >= last.unwrap_or(before), "round {round}: {now}, acknowledged {last:?}");
        before = now;
        begun(open(&dir).await, dir.path()).await;
    }
    assert!(before > 5, "no child came as far as a few records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_emptied_or_restored_is_noticed_by_everybody() {
    let Some(mut etcd) = etcd_or_skip() else { return };
    let (one, two, away) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let at = async |etcd: &Etcd, dir: &TempDir| Records::open(etcd.connect("/r/").await, dir.path()).unwrap();
    let leader_store = etcd.connect("/r/").await;
    let leader = begun(leader_store.clone(), one.path()).await;
    let standby = at(&etcd, &two).await;
    standby.follow().await.unwrap();
    leader.write_all(&put("a")).await.unwrap();
    let backup = away.path().join("snapshot");
    etcd.snapshot(&backup);
    for n in 0..3 {
        leader.write_all(&put(&format!("b/{n}"))).await.unwrap();
    }
    standby.follow().await.unwrap();
    assert_eq!((marked(one.path()), marked(two.path())), (4, 4));

    etcd.kill();
    etcd.restore(&backup);
    etcd.restart();
    let _up = etcd.connect("/r/").await;
    refused(&leader, "ends at record 1").await;
    refused(&standby, "ends at record 1").await;
    assert_eq!((marked(one.path()), marked(two.path())), (4, 4));
    accepted(&leader, "c").await;
    refused(&standby, "ends at record 1").await;
    accepted(&standby, "d").await;
    leader.write_all(&put("e")).await.unwrap();

    let mut raw = etcd.raw().await;
    let now = leader_store.list("").await.unwrap();
    let mut watch = leader_store.watch("", now.1).await.unwrap();
    raw.delete("/r/", Some(etcd_client::DeleteOptions::new().with_prefix())).await.unwrap();
    // Each key is told to a watch, though it is one change to etcd.
    for entry in now.0 {
        assert!(matches!(next(&mut watch).await.unwrap(), Change::Deleted { key, .. } if key == entry.key));
    }
    // The one that writes on finds it out by the write itself.
    refused(&leader, "was emptied").await;
    refused(&at(&etcd, &two).await, "was emptied").await;
    accepted(&leader, "a").await;
    // To the others it is a new store under an old address.
    refused(&at(&etcd, &two).await, "is another one").await;
}

#[tokio::test]
async fn a_record_that_somebody_takes_away_while_no_controller_runs_is_missed() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let key = "records/2/bodies/alpha";
    let at = begun(store.clone(), dir.path()).await.write_all(&[put(key), put("records/2/bodies/beta")].concat()).await.unwrap();
    begun(store.clone(), dir.path()).await;
    store.delete_if(key, at[0]).await.unwrap();
    let records = Records::open(store.clone(), dir.path()).unwrap();
    // A standby does not look for it: it is only about to begin.
    records.follow().await.unwrap();
    assert!(matches!(records.take_over().await, Err(StoreError::Backwards { .. })));
    refused(&records, "holds 1 records, and at record 1 it held 2").await;
    accepted(&records, key).await;
    drop(records);
    begun(store, dir.path()).await;
}
