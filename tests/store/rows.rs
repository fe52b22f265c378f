//! What a store must do, whichever it is: one function per promise of `trait Store`.
//!
//! Leaves out: processes killed and stopped (`tests/store.rs`). Every row gets an empty store of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use embody::testing::{
    limits,
    model::{Kind, Name},
    store::{Change, Changes, Entry, Expect, Revision, Store, StoreError, Write, keys},
};
use tokio::{task::JoinSet, time::timeout};

pub type Watch = Changes;

pub async fn next(watch: &mut Watch) -> Result<Change, StoreError> {
    timeout(Duration::from_secs(30), watch.recv()).await.expect("a change within 30 s").expect("the watch goes on")
}

pub fn revision(change: &Change) -> Revision {
    match change {
        Change::Put(entry) => entry.revision,
        Change::Deleted { revision, .. } => *revision,
    }
}

pub async fn create(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.put_if(key, value.into(), Expect::Absent).await.unwrap()
}

pub async fn a_key_is_created_once(store: Arc<dyn Store>) {
    assert_eq!(store.get("a").await.unwrap(), None);
    let at = create(&*store, "a", "1").await;
    let entry = Entry { key: "a".into(), value: b"1".into(), revision: at, damaged: false };
    assert_eq!(store.get("a").await.unwrap(), Some(entry.clone()));
    match store.put_if("a", b"2".into(), Expect::Absent).await {
        Err(StoreError::Conflict { key, found }) => assert_eq!((key.as_str(), found), ("a", Some(entry.clone()))),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get("a").await.unwrap(), Some(entry));
}

pub async fn an_update_needs_the_revision_that_it_saw(store: Arc<dyn Store>) {
    let first = create(&*store, "a", "1").await;
    let second = store.put_if("a", b"2".into(), Expect::At(first)).await.unwrap();
    assert!(second > first);
    match store.put_if("a", b"3".into(), Expect::At(first)).await {
        Err(StoreError::Conflict { found: Some(found), .. }) => assert_eq!((found.value, found.revision), (b"2".into(), second)),
        other => panic!("{other:?}"),
    }
    match store.put_if("b", b"3".into(), Expect::At(first)).await {
        Err(StoreError::Conflict { found: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    // The same bytes again are a write.
    assert!(store.put_if("a", b"2".into(), Expect::At(second)).await.unwrap() > second);
}

pub async fn a_deletion_needs_it_too(store: Arc<dyn Store>) {
    let first = create(&*store, "a", "1").await;
    let second = store.put_if("a", b"2".into(), Expect::At(first)).await.unwrap();
    assert!(matches!(store.delete_if("a", first).await, Err(StoreError::Conflict { found: Some(e), .. }) if e.revision == second));
    let gone = store.delete_if("a", second).await.unwrap();
    assert!(gone > second);
    assert_eq!(store.get("a").await.unwrap(), None);
    assert!(matches!(store.delete_if("a", second).await, Err(StoreError::Conflict { found: None, .. })));
    assert!(create(&*store, "a", "3").await > gone);
}

pub async fn several_writes_are_done_together_or_not_at_all(store: Arc<dyn Store>) {
    let lease = store.acquire("leader", "one", Duration::from_secs(10)).await.unwrap();
    let (a, b) = (create(&*store, "a", "1").await, create(&*store, "b", "1").await);
    let mut watch = store.watch("", b).await.unwrap();
    let writes = [Write::put("a", "2", Expect::At(a)), Write::delete("b", b), Write::put("c", "2", Expect::Absent)];
    let [a, gone, c] = store.write_all(&writes).await.unwrap()[..] else { panic!("a revision for each") };
    let entry = |key: &str, revision| Entry { key: key.into(), value: b"2".into(), revision, damaged: false };
    assert_eq!(store.list("").await.unwrap().0, [entry("a", a), entry("c", c)]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(next(&mut watch).await.unwrap());
    }
    for change in [Change::Put(entry("a", a)), Change::Deleted { key: "b".into(), revision: gone }, Change::Put(entry("c", c))] {
        assert!(seen.contains(&change), "{change:?} in {seen:?}");
    }

    // The first that is not as expected is named, and nothing is done; not even the deletion of what is as expected.
    let writes =
        [Write::put("d", "3", Expect::Absent), Write::delete("c", c), Write::delete("b", gone), Write::put("a", "3", Expect::Absent)];
    match store.write_all(&writes).await {
        Err(StoreError::Conflict { key, found: None }) => assert_eq!(key, "b"),
        other => panic!("{other:?}"),
    }
    // Nothing is changed by seeing to it that a key is not there.
    let guard = |key: &str| Write { key: key.into(), value: None, expect: Expect::Absent };
    match store.write_all(&[Write::put("d", "3", Expect::Absent), guard("a")]).await {
        Err(StoreError::Conflict { key, found: Some(found) }) => assert_eq!((key.as_str(), found), ("a", entry("a", a))),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.list("").await.unwrap().0, [entry("a", a), entry("c", c)]);
    store.write_all(&[guard("b"), Write::put("c", "4", Expect::At(c))]).await.unwrap();

    let most = store.most_at_once();
    let many: Vec<Write> = (0..most.writes).map(|n| Write::put(format!("m/{n:05}"), vec![1; 100], Expect::Absent)).collect();
    store.write_all(&many).await.unwrap();
    let written: Vec<String> = many.iter().map(|write| write.key.clone()).collect();
    let heads = store.heads("m/").await.unwrap();
    assert!(heads.iter().map(|(key, _)| key).eq(&written));
    let some = [&written[..3], &["none".to_owned()]].concat();
    let found = store.get_all(&some).await.unwrap();
    assert_eq!(found[..3].iter().flatten().map(|e| (e.key.clone(), e.revision)).collect::<Vec<_>>(), heads[..3]);
    assert_eq!(found[3], None);
    assert_eq!(store.list("m/").await.unwrap().0.len(), many.len());
    let more = [many, vec![Write::put("more", "", Expect::Absent)]].concat();
    assert!(matches!(store.write_all(&more).await, Err(StoreError::Unusable { .. })));
    assert!(matches!(store.write_all(&[guard("x"), guard("x")]).await, Err(StoreError::Unusable { .. })));
    let large = |key: &str, bytes| Write::put(key, vec![7; bytes], Expect::Absent);
    let whole = |of: &str, rest| -> Vec<Write> {
        let values = (0..most.bytes / limits::VALUE_BYTES).map(|n| large(&format!("l/{of}/{n}"), limits::VALUE_BYTES));
        values.chain([large(&format!("l/{of}/rest"), rest)]).collect()
    };
    let rest = most.bytes % limits::VALUE_BYTES;
    store.write_all(&whole("1", rest)).await.unwrap();
    let refused = store.write_all(&whole("2", rest + 1)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");

    lease.release().await;
    let fenced = store.write_all(&[Write::put("e", "5", Expect::Absent), Write::put("f", "5", Expect::Absent)]).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
}

/// The keys that only the controller writes, deleted by somebody else under its eyes: a watch of everything and one of the records say so.
pub async fn a_deleted_record_is_told(store: Arc<dyn Store>) {
    let name: Name = "alpha".parse().unwrap();
    let records =
        [keys::body(&name), keys::approval(&name), keys::pause("everything"), keys::pin(Kind::Server, &name), keys::SEQ.to_owned()];
    let writes: Vec<Write> = records.iter().map(|key| Write::put(key, "1", Expect::Absent)).collect();
    let at = store.write_all(&writes).await.unwrap();
    let begun = store.list("").await.unwrap().1;
    let mut all = store.watch("", begun).await.unwrap();
    let mut some = store.watch(keys::CURRENT, begun).await.unwrap();
    for (key, at) in records.iter().zip(at) {
        let deleted = Change::Deleted { key: key.clone(), revision: store.delete_if(key, at).await.unwrap() };
        assert_eq!(next(&mut all).await.unwrap(), deleted);
        if key != keys::SEQ {
            assert_eq!(next(&mut some).await.unwrap(), deleted);
        }
    }
}

pub async fn one_of_many_wins(store: Arc<dyn Store>) {
    let base = create(&*store, "a", "0").await;
    let mut racers = JoinSet::new();
    for racer in 0..16 {
        let store = store.clone();
        racers.spawn(async move { store.put_if("a", format!("{racer}").into(), Expect::At(base)).await });
    }
    let results = racers.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "{results:?}");
    assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(StoreError::Conflict { .. }))), "{results:?}");
}

/// `x` is always written before `y`: a list that shows `y` ahead of `x` would mix two moments.
pub async fn a_list_is_sorted_and_of_one_moment(store: Arc<dyn Store>) {
    for key in ["p/b", "p/a", "p/c/d", "q/a", "p", "o/z"] {
        create(&*store, key, "0").await;
    }
    let keys = |entries: &[Entry]| entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>();
    let (entries, at) = store.list("p/").await.unwrap();
    assert_eq!(keys(&entries), ["p/a", "p/b", "p/c/d"]);
    assert!(entries.iter().all(|entry| entry.revision <= at));
    assert_eq!(keys(&store.list("").await.unwrap().0), ["o/z", "p", "p/a", "p/b", "p/c/d", "q/a"]);
    assert_eq!(store.list("none/").await.unwrap().0, []);

    // More keys than a page has, between the two that are compared.
    for n in 0..150 {
        create(&*store, &format!("m/{n:03}"), "0").await;
    }
    let (mut x, mut y) = (create(&*store, "m/", "0").await, create(&*store, "m/z", "0").await);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 1..=150 {
                x = store.put_if("m/", n.to_string().into(), Expect::At(x)).await.unwrap();
                y = store.put_if("m/z", n.to_string().into(), Expect::At(y)).await.unwrap();
            }
        })
    };
    let mut before = 0;
    let mut lists = 0;
    while !writer.is_finished() || lists == 0 {
        let (entries, at) = store.list("m/").await.unwrap();
        let number = |entry: Option<&Entry>| String::from_utf8_lossy(&entry.unwrap().value).parse::<u32>().unwrap();
        let (x, y) = (number(entries.first()), number(entries.last()));
        assert_eq!(entries.len(), 152);
        assert!(y <= x && x <= y + 1, "x={x} y={y} at {at}");
        assert!(at >= before);
        (before, lists) = (at, lists + 1);
    }
    writer.await.unwrap();
}

pub async fn a_watch_misses_nothing_and_repeats_nothing(store: Arc<dyn Store>) {
    let start = store.list("").await.unwrap().1;
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = store.clone();
        writers.spawn(async move {
            let key = format!("w/{writer}");
            let mut done = vec![(create(&*store, &key, "0").await, Some("0".to_owned()))];
            for n in 1..60 {
                let at = done.last().unwrap().0;
                if n % 10 == 9 {
                    done.push((store.delete_if(&key, at).await.unwrap(), None));
                    done.push((create(&*store, &key, "again").await, Some("again".to_owned())));
                } else {
                    done.push((store.put_if(&key, n.to_string().into(), Expect::At(at)).await.unwrap(), Some(n.to_string())));
                }
                create(&*store, &format!("elsewhere/{writer}/{n}"), "noise").await;
            }
            done.into_iter().map(|(at, value)| (at, (key.clone(), value))).collect::<Vec<_>>()
        });
    }
    // One from the start, and some that begin in the middle of it.
    let mut watches = vec![(start, store.watch("w/", start).await.unwrap())];
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let at = store.list("w/").await.unwrap().1;
        watches.push((at, store.watch("w/", at).await.unwrap()));
    }
    let written: BTreeMap<_, _> = writers.join_all().await.into_iter().flatten().collect();
    // And one from the past.
    watches.push((start, store.watch("w/", start).await.unwrap()));
    for (after, mut watch) in watches {
        for (at, (key, value)) in written.range(after + 1..) {
            let expected = match value {
                Some(value) => Change::Put(Entry { key: key.clone(), value: value.clone().into(), revision: *at, damaged: false }),
                None => Change::Deleted { key: key.clone(), revision: *at },
            };
            assert_eq!(next(&mut watch).await.unwrap(), expected, "a watch after {after}");
        }
        assert!(timeout(Duration::from_millis(20), watch.recv()).await.is_err(), "nothing more");
    }
}

pub async fn a_list_and_a_watch_fit_together(store: Arc<dyn Store>) {
    create(&*store, "a", "1").await;
    let (_, at) = store.list("").await.unwrap();
    let mut watch = store.watch("", at).await.unwrap();
    let second = create(&*store, "b", "2").await;
    assert_eq!(revision(&next(&mut watch).await.unwrap()), second);
}

/// It may be cut off, but then it is told; and others do not suffer from it.
pub async fn a_watcher_that_does_not_read_loses_nothing_in_silence(store: Arc<dyn Store>) {
    let start = store.list("").await.unwrap().1;
    let mut idle = store.watch("", start).await.unwrap();
    let mut writers = JoinSet::new();
    let value: Arc<str> = "x".repeat(256 << 10).into();
    for writer in 0..8 {
        let (store, value) = (store.clone(), Arc::clone(&value));
        writers.spawn(async move {
            let mut done = Vec::new();
            for n in 0..2 * limits::WATCH_BYTES / value.len() / 8 {
                done.push(create(&*store, &format!("{writer}/{n}"), &value).await);
            }
            done
        });
    }
    let mut written = writers.join_all().await.concat();
    written.sort_unstable();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut other = store.watch("", start).await.unwrap();
    for (n, at) in written.iter().enumerate() {
        assert_eq!(revision(&next(&mut other).await.unwrap()), *at, "the other watch, change {n}");
    }
    for (n, at) in written.iter().enumerate() {
        match next(&mut idle).await {
            Ok(change) => assert_eq!(revision(&change), *at, "change {n}"),
            Err(StoreError::Compacted { .. }) => {
                assert!(n + 1 >= limits::WATCH_BYTES / value.len(), "cut off already at change {n}");
                assert!(timeout(Duration::from_secs(5), idle.recv()).await.unwrap().is_none());
                return;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub async fn a_compacted_watch_says_so(store: Arc<dyn Store>) {
    let mut at = create(&*store, "a", "0").await;
    let kept = create(&*store, "kept", "x").await;
    let mut revisions = vec![kept];
    for n in 1..20 {
        at = store.put_if("a", n.to_string().into(), Expect::At(at)).await.unwrap();
        revisions.push(at);
    }
    let through = revisions[10];
    store.compact(through).await.unwrap();
    store.compact(through).await.unwrap();
    for after in [kept, revisions[9]] {
        let mut watch = store.watch("", after).await.unwrap();
        match next(&mut watch).await {
            Err(StoreError::Compacted { asked, oldest }) => assert!(asked == after && oldest > asked, "{asked} {oldest}"),
            other => panic!("after {after}: {other:?}"),
        }
        assert!(timeout(Duration::from_secs(5), watch.recv()).await.unwrap().is_none(), "an error is the last item");
    }
    let mut watch = store.watch("", through).await.unwrap();
    for expected in &revisions[11..] {
        assert_eq!(revision(&next(&mut watch).await.unwrap()), *expected);
    }
    // What is current stays, however old.
    assert_eq!(store.get("kept").await.unwrap().unwrap().revision, kept);
    store.compact(at + 1_000_000).await.unwrap();
    assert_eq!(store.get("kept").await.unwrap().unwrap().revision, kept);
    let again = store.put_if("kept", b"y".into(), Expect::At(kept)).await.unwrap();
    assert_eq!(store.list("").await.unwrap().0.last().unwrap().revision, again);
}

pub async fn large_values_pass_and_larger_ones_are_refused(store: Arc<dyn Store>) {
    let start = store.list("").await.unwrap().1;
    let value = |n: u8| vec![n; limits::VALUE_BYTES];
    for n in 0..12 {
        store.put_if(&format!("big/{n:02}"), value(n), Expect::Absent).await.unwrap();
    }
    let refused = store.put_if("big/x", vec![0; limits::VALUE_BYTES + 1], Expect::Absent).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { found, limit, .. }) if found == limit + 1), "{refused:?}");
    let (entries, _) = store.list("big/").await.unwrap();
    assert_eq!(entries.len(), 12);
    assert!(entries.iter().enumerate().all(|(n, entry)| entry.value == value(n as u8)));
    let mut watch = store.watch("big/", start).await.unwrap();
    for n in 0..12 {
        assert!(matches!(next(&mut watch).await.unwrap(), Change::Put(entry) if entry.value == value(n)));
    }
}

pub async fn events_come_back_newest_last(store: Arc<dyn Store>) {
    assert_eq!(store.events(10).await.unwrap(), Vec::<Vec<u8>>::new());
    let at = create(&*store, "a", "1").await;
    for n in 0..30 {
        store.record_event(format!("event {n}").into()).await.unwrap();
    }
    let expected: Vec<Vec<u8>> = (20..30).map(|n| format!("event {n}").into()).collect();
    assert_eq!(store.events(10).await.unwrap(), expected);
    assert_eq!(store.events(1_000).await.unwrap().len(), 30);
    // They are not seen as changes.
    let mut watch = store.watch("", at).await.unwrap();
    let last = create(&*store, "b", "1").await;
    assert_eq!(revision(&next(&mut watch).await.unwrap()), last);
    assert_eq!(store.list("").await.unwrap().0.len(), 2);
}

pub async fn writes_after_the_lease_was_given_up_are_fenced(store: Arc<dyn Store>) {
    let ttl = Duration::from_secs(10);
    assert_eq!(store.holder("leader").await.unwrap(), None);
    let before = create(&*store, "a", "1").await;
    let lease = store.acquire("leader", "one", ttl).await.unwrap();
    assert_eq!(store.holder("leader").await.unwrap().as_deref(), Some("one"));
    assert!(lease.remaining() > Duration::from_secs(3));
    let at = store.put_if("a", b"2".into(), Expect::At(before)).await.unwrap();
    assert!(timeout(Duration::from_millis(100), lease.lost()).await.is_err());
    lease.release().await;
    timeout(Duration::from_secs(5), lease.lost()).await.unwrap();
    assert_eq!(lease.remaining(), Duration::ZERO);
    assert_eq!(store.holder("leader").await.unwrap(), None);
    assert!(matches!(store.put_if("a", b"3".into(), Expect::At(at)).await, Err(StoreError::Fenced { lease }) if lease == "leader"));
    assert!(matches!(store.delete_if("a", at).await, Err(StoreError::Fenced { .. })));
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"2");
    let lease = store.acquire("leader", "one", ttl).await.unwrap();
    store.put_if("a", b"3".into(), Expect::At(at)).await.unwrap();
    drop(lease);
    assert!(matches!(store.put_if("b", b"3".into(), Expect::Absent).await, Err(StoreError::Fenced { .. })));
}
