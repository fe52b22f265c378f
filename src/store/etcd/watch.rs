//! A watch on etcd that survives broken connections.
//!
//! Leaves out: listing again after `Compacted` (the caller's). Invariant: it always resumes *at* the last revision seen and skips as many of its
//! changes as were passed on, so that a connection that breaks in the middle of a revision loses none and repeats none.
//! Tests: `tests/store.rs`, rows on watches and on etcd killed.

use std::time::Duration;

use etcd_client::{EventType, GetOptions, WatchOptions, WatchStream};
use tokio::time::{sleep, timeout};

use super::{
    EtcdStore, as_revision,
    call::{Failure, OUT_OF_RANGE, once},
};
use crate::byte_channel::{Gone, Sender};
use crate::store::{Change, Entry, Revision, StoreError};

/// All streams share one connection and its flow control: watchers that do not read would in the end keep the lease from being kept alive.
/// One that has not read for so long, with a full channel (`limits::WATCH_BYTES`), is cut off.
const BEHIND: Duration = Duration::from_secs(1);

type Item = Result<Change, StoreError>;

/// Between attempts to watch again; jittered.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=400;

/// Where a watch is: every change before revision `at`, and `passed` changes of it, were passed on.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    at: Revision,
    passed: usize,
}

/// Why a stream ended.
enum End {
    /// Nobody listens any more, or the last item was sent.
    Done,
    /// The connection broke.
    Broken,
}

pub(super) async fn run(store: EtcdStore, prefix: String, after: Revision, to: Sender<Item>) {
    let mut cursor = Cursor { at: after + 1, passed: 0 };
    loop {
        if let Ok(stream) = open(&store, &prefix, cursor).await
            && let End::Done = follow(&store, stream, &mut cursor, &to).await
        {
            return;
        }
        tokio::select! {
            biased;
            () = to.closed() => return,
            () = sleep(Duration::from_millis(rand::random_range(PAUSE_MS))) => {}
        }
    }
}

async fn open(store: &EtcdStore, prefix: &str, cursor: Cursor) -> Result<WatchStream, Failure> {
    let from = i64::try_from(cursor.at).unwrap_or(i64::MAX);
    let options = WatchOptions::new().with_prefix().with_start_revision(from).with_fragment();
    let mut client = store.client.watch_client().max_decoding_message_size(super::MESSAGE_BYTES);
    once(client.watch(store.full(prefix), Some(options))).await
}

async fn follow(store: &EtcdStore, mut stream: WatchStream, cursor: &mut Cursor, to: &Sender<Item>) -> End {
    // Of the revision where the last stream broke: what was passed on already.
    let Cursor { at: resumed, passed: mut skip } = *cursor;
    loop {
        let message = tokio::select! {
            biased;
            () = to.closed() => return End::Done,
            message = stream.message() => message,
        };
        let Ok(Some(message)) = message else { return End::Broken };
        if message.canceled() {
            // Not an error of the stream, and without a reason in words: only this number tells (etcd 3.4 and 3.5, measured).
            if message.compact_revision() == 0 {
                return End::Broken;
            }
            let oldest = as_revision(message.compact_revision());
            return last_item(to, StoreError::Compacted { asked: cursor.at - 1, oldest });
        }
        if message.created() {
            match horizon(store, cursor.at - 1).await {
                Ok(()) => {}
                Err(Some(last)) => return last_item(to, last),
                Err(None) => return End::Broken,
            }
        }
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = as_revision(kv.mod_revision());
            if revision == resumed && skip > 0 {
                skip -= 1;
                continue;
            }
            let Some(change) = change(store, event.event_type(), kv, revision) else { continue };
            match timeout(BEHIND, to.send(Ok(change))).await {
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => return End::Done,
                Err(_) => return last_item(to, StoreError::Compacted { asked: cursor.at - 1, oldest: revision }),
            }
            *cursor = Cursor { at: revision, passed: if cursor.at == revision { cursor.passed + 1 } else { 1 } };
        }
    }
}

fn last_item(to: &Sender<Item>, error: StoreError) -> End {
    to.send_last(Err(error));
    End::Done
}

/// Whether everything after this revision is still there. etcd lets a watch begin exactly at the compacted revision, where a deletion may be
/// missing; a read there says so.
async fn horizon(store: &EtcdStore, after: Revision) -> Result<(), Option<StoreError>> {
    if after == 0 {
        return Ok(());
    }
    let options = GetOptions::new().with_revision(i64::try_from(after).unwrap_or(i64::MAX)).with_count_only();
    let mut kv = store.kv.clone();
    match once(kv.get(store.full(""), Some(options))).await {
        Ok(_) => Ok(()),
        Err(failure @ Failure::Refused { code: OUT_OF_RANGE, .. }) if failure.says("compacted") => {
            Err(Some(StoreError::Compacted { asked: after, oldest: after + 1 }))
        }
        Err(failure @ Failure::Refused { code: OUT_OF_RANGE, .. }) if failure.says("future") => {
            let why = format!("revision {after} is ahead of it: was it restored from a backup?");
            Err(Some(StoreError::Unusable { place: store.place.clone(), why, source: Some(failure.cause()) }))
        }
        Err(_) => Err(None),
    }
}

fn change(store: &EtcdStore, what: EventType, kv: &etcd_client::KeyValue, revision: Revision) -> Option<Change> {
    let key = store.own(kv.key())?;
    Some(match what {
        EventType::Put => Change::Put(Entry { key, value: kv.value().to_vec(), revision, damaged: false }),
        EventType::Delete => Change::Deleted { key, revision },
    })
}
