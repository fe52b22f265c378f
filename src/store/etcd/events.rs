//! Events in etcd: a ring of numbered slots, so that they never grow.
//!
//! Leaves out: what an event says. Invariant: the count and its slot are written in one transaction, so no two controllers write one slot for
//! two counts. They do cost revisions of etcd, but no watch of `kv/` sees them. Test: `tests/store.rs`, `events_are_capped`.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse};

use super::{
    EtcdStore,
    call::{Failure, Pace, again, nothing_written, once},
    end_of, given_up,
};
use crate::{limits, store::StoreError};

/// How many events were ever recorded, and the revision at which it was read or written (0: there were none).
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    events: u64,
    changed: i64,
}

impl EtcdStore {
    fn slot(&self, event: u64) -> String {
        format!("{}events/{:05}", self.prefix, event % limits::EVENTS as u64)
    }

    fn count_key(&self) -> String {
        format!("{}event-count", self.prefix)
    }

    /// In one transaction.
    pub(super) async fn append_events(&self, values: &[Vec<u8>]) -> Result<(), StoreError> {
        // Held over the request: the events of one controller are in its order.
        let mut known = self.event_count.lock().await;
        let mut pace = Pace::new();
        let mut unanswered = false;
        loop {
            let count = known.unwrap_or(Count { events: 0, changed: 0 });
            let events = count.events + values.len() as u64;
            let puts = (count.events..).zip(values).map(|(event, value)| TxnOp::put(self.slot(event), value.clone(), None));
            let puts: Vec<TxnOp> = puts.chain([TxnOp::put(self.count_key(), events.to_string(), None)]).collect();
            let txn = Txn::new()
                .when([Compare::mod_revision(self.count_key(), CompareOp::Equal, count.changed)])
                .and_then(puts)
                .or_else([TxnOp::get(self.count_key(), None)]);
            let mut kv = self.kv.clone();
            let failure = match once(kv.txn(txn)).await {
                Ok(answer) if answer.succeeded() => {
                    *known = answer.header().map(|header| Count { events, changed: header.revision() });
                    return Ok(());
                }
                Ok(answer) => {
                    *known = answer.op_responses().iter().find_map(|op| match op {
                        TxnOpResponse::Get(got) => got.kvs().first().map(count_of),
                        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
                    });
                    if unanswered {
                        let source = "an attempt was not answered, and there are more events since".into();
                        // Recorded twice is worse than perhaps not at all: it is only told.
                        return Err(StoreError::Unknown { source });
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            let for_good = matches!(failure, Failure::Refused { .. });
            unanswered |= matches!(failure, Failure::Ambiguous(_));
            if for_good || !pace.next().await {
                return Err(given_up(&self.place, failure, unanswered));
            }
        }
    }

    pub(super) async fn newest_events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let count = self.range(self.count_key().into_bytes(), None, 0).await?;
        let at = count.1;
        let Some(events) = count.0.first().map(|kv| count_of(kv).events) else { return Ok(Vec::new()) };
        let ring = limits::EVENTS as u64;
        let first = events.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX).min(ring));
        let mut found = Vec::new();
        // At most two runs of slots: up to the end of the ring, and from its beginning.
        let mut from = first;
        while from < events {
            let to = events.min((from / ring + 1) * ring);
            let end = end_of(self.slot(to - 1).as_bytes());
            let run = self.range(self.slot(from).into_bytes(), Some(end), at).await?.0;
            found.extend(run.iter().map(|kv| kv.value().to_vec()));
            from = to;
        }
        Ok(found)
    }

    /// Everything from one key up to another (or the key alone) as of a revision (0: now), and which one that was.
    async fn range(&self, key: Vec<u8>, end: Option<Vec<u8>>, at: i64) -> Result<(Vec<etcd_client::KeyValue>, i64), StoreError> {
        let (mut from, mut found, mut at) = (key, Vec::new(), at);
        loop {
            let page = again(|| {
                let mut options = GetOptions::new().with_revision(at).with_limit(super::PAGE_FIRST);
                if let Some(end) = &end {
                    options = options.with_range(end.clone());
                }
                let (mut kv, from) = (self.kv.clone(), from.clone());
                async move { kv.get(from, Some(options)).await }
            });
            let mut page = page.await.map_err(|failure| nothing_written(&self.place, failure))?;
            at = page.header().map_or(at, |header| if at == 0 { header.revision() } else { at });
            let more = page.more();
            found.extend(page.take_kvs());
            match found.last() {
                Some(last) if more => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                Some(_) | None => return Ok((found, at)),
            }
        }
    }
}

fn count_of(kv: &etcd_client::KeyValue) -> Count {
    let events = std::str::from_utf8(kv.value()).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Count { events, changed: kv.mod_revision() }
}
