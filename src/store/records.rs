//! The controller's own records in a store, numbered, so that a store which went backwards is noticed before anything is done upon it.
//!
//! `meta/id` names the store for as long as it lives, `meta/seq` is raised by every transaction of records and says how many there are, and the
//! mark on this machine's disk holds the highest number that was acknowledged to it. A restored, emptied or exchanged store shows another name
//! or a lower number, and where somebody took a record away while no controller ran there are fewer than were counted. Only
//! linearizable reads are compared. Leaves out: what is stopped then (the controller), and a whole `--data` restored together with the embedded
//! store, which nobody can see. Invariant: once backwards, nothing is written through here until a person accepts the store.
//! Tests: below (every case), `tests/store/backwards.rs` (both backends, killed, restored, emptied).

use std::{collections::BTreeSet, path::Path, sync::Arc};

use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use super::{
    Entry, Expect, Revision, Store, StoreError, Write, keys,
    mark::{Known, Mark, Point},
};
use crate::limits;

/// How often a write is begun anew because another one took its number: only a term of another controller that has just ended can.
const ATTEMPTS: usize = 5;

/// The store as far as its records go: one for each process, shared by all that write records.
pub struct Records {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    backwards: watch::Sender<Option<String>>,
}

struct State {
    mark: Mark,
    /// Nothing: to be read before the next write.
    meta: Option<Meta>,
    /// The keys of all records, as far as they are ours: one that somebody else took away stays, and is written again.
    keys: BTreeSet<String>,
}

/// What a store says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) point: Point,
    /// The revision that last changed `meta/seq`.
    seq_at: Revision,
    /// How many records there were then. Nothing: the version that wrote it did not count.
    pub(crate) records: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Meta(Meta),
    /// One of the two is missing or does not read.
    Broken(String),
}

/// Why the store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// By one that writes nothing.
    Follow,
    /// Before a write, within a term.
    Write,
    /// At the start of a term.
    Begin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// A new store, on a machine that never had one.
    Fresh,
    /// The mark may move up to this.
    Good(Meta),
    Backwards(String),
}

impl Records {
    /// Writes of one call: one more is the number itself.
    pub const WRITES_AT_ONCE: usize = limits::WRITES_AT_ONCE - 1;

    /// `dir` is the `--data` directory, where the mark is kept, whatever the store. Asks the store nothing yet.
    pub fn open(store: Arc<dyn Store>, dir: &Path) -> Result<Records, StoreError> {
        Ok(Records::with(store, Mark::open(dir)?))
    }

    /// Without a mark on a disk: for simulations, where only this process remembers.
    pub fn in_memory(store: Arc<dyn Store>) -> Records {
        Records::with(store, Mark::memory())
    }

    fn with(store: Arc<dyn Store>, mark: Mark) -> Records {
        Records { store, state: Mutex::new(State { mark, meta: None, keys: BTreeSet::new() }), backwards: watch::Sender::new(None) }
    }

    /// Why the store counts as gone backwards, in one sentence; nothing while it is good. It changes to nothing only by `accept`.
    pub fn backwards(&self) -> watch::Receiver<Option<String>> {
        self.backwards.subscribe()
    }

    /// Looks at what the store says of itself, and moves the mark up; writes nothing to it. For standbys, now and then.
    pub async fn follow(&self) -> Result<(), StoreError> {
        self.compare(&mut *self.state.lock().await, Look::Follow).await
    }

    /// The same when a term begins, before anything is loaded; names a new store.
    pub async fn take_over(&self) -> Result<(), StoreError> {
        self.compare(&mut *self.state.lock().await, Look::Begin).await
    }

    /// Does all of these writes, or none (`Store::write_all`), and gives them the next number. At most `WRITES_AT_ONCE`.
    pub async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        let mut state = self.state.lock().await;
        for _ in 0..ATTEMPTS {
            if state.meta.is_none() || self.backwards.borrow().is_some() {
                self.compare(&mut state, Look::Write).await?;
            }
            let Some(meta) = state.meta else { continue };
            state.mark.is_there().await?;
            let point = Point { seq: meta.point.seq.saturating_add(1), ..meta.point };
            let (new, gone) = difference(&state.keys, writes);
            let records = state.keys.len() + new.len() - gone.len();
            let number = Write::put(keys::SEQ, number(point.seq, records), Expect::At(meta.seq_at));
            match self.store.write_all(&[writes, &[number]].concat()).await {
                Ok(mut revisions) => {
                    let seq_at = revisions.pop().unwrap_or(0);
                    state.meta = Some(Meta { point, seq_at, records: Some(records) });
                    for key in &gone {
                        state.keys.remove(key);
                    }
                    state.keys.extend(new);
                    state.mark.advance(point).await;
                    return Ok(revisions);
                }
                Err(StoreError::Conflict { key, .. }) if key == keys::SEQ => state.meta = None,
                Err(error) => {
                    // Whether the number was raised is known only to who reads it.
                    state.meta = None;
                    return Err(error);
                }
            }
        }
        Err(StoreError::Unreachable { place: "its records".to_owned(), source: "others wrote records all the time".into() })
    }

    /// A person's word that the store is to be taken as it is now.
    pub async fn accept(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let (found, entries) = self.read().await?;
        let keys = self.keys().await?;
        let meta = match found {
            Found::Meta(meta) => self.count_anew(meta, keys.len()).await?,
            Found::Nothing | Found::Broken(_) => self.name_anew(&entries, keys.len()).await?,
        };
        state.mark.replace(meta.point).await?;
        (state.meta, state.keys) = (Some(meta), keys);
        self.backwards.send_replace(None);
        Ok(())
    }

    async fn compare(&self, state: &mut State, look: Look) -> Result<(), StoreError> {
        state.meta = None;
        if let Some(sentence) = self.backwards.borrow().clone() {
            return Err(StoreError::Backwards { sentence });
        }
        let (found, entries) = self.read().await?;
        if look != Look::Follow {
            state.keys = self.keys().await?;
        }
        let fewer = (look == Look::Begin).then(|| missing(&found, state.keys.len())).flatten();
        let verdict = fewer.map_or_else(|| verdict(&state.mark.known, &found, &state.mark.name()), |what| backwards(&what));
        let meta = match verdict {
            Verdict::Fresh if look != Look::Follow => self.name_anew(&entries, state.keys.len()).await?,
            Verdict::Fresh => return Ok(()),
            Verdict::Good(meta) => meta,
            Verdict::Backwards(sentence) => {
                self.backwards.send_replace(Some(sentence.clone()));
                return Err(StoreError::Backwards { sentence });
            }
        };
        if let Known::At(_) = state.mark.known {
            state.mark.is_there().await?;
            state.mark.advance(meta.point).await;
        } else {
            // The first one: a machine that cannot keep it is told so before it begins.
            state.mark.replace(meta.point).await?;
        }
        state.meta = Some(meta);
        Ok(())
    }

    async fn read(&self) -> Result<(Found, Vec<Entry>), StoreError> {
        let (entries, _) = self.store.list(keys::META).await?;
        Ok((found(&entries), entries))
    }

    async fn keys(&self) -> Result<BTreeSet<String>, StoreError> {
        Ok(self.store.list(keys::CURRENT).await?.0.into_iter().map(|entry| entry.key).collect())
    }

    /// The number stays; how many records there are is what is found.
    async fn count_anew(&self, meta: Meta, records: usize) -> Result<Meta, StoreError> {
        if meta.records == Some(records) {
            return Ok(meta);
        }
        let write = Write::put(keys::SEQ, number(meta.point.seq, records), Expect::At(meta.seq_at));
        let seq_at = self.store.write_all(&[write]).await?.last().copied().unwrap_or(0);
        Ok(Meta { seq_at, records: Some(records), ..meta })
    }

    /// Gives the store a new name, over whatever does not read.
    async fn name_anew(&self, entries: &[Entry], records: usize) -> Result<Meta, StoreError> {
        let point = Point { id: Uuid::new_v4(), seq: 0 };
        let expect = |key| entries.iter().find(|e| e.key == key).map_or(Expect::Absent, |e| Expect::At(e.revision));
        let seq = number(point.seq, records);
        let writes = [Write::put(keys::ID, point.id.to_string(), expect(keys::ID)), Write::put(keys::SEQ, seq, expect(keys::SEQ))];
        match self.store.write_all(&writes).await {
            Ok(revisions) => Ok(Meta { point, seq_at: revisions.last().copied().unwrap_or(0), records: Some(records) }),
            // Another one was first.
            Err(conflict @ StoreError::Conflict { .. }) => match self.read().await?.0 {
                Found::Meta(meta) => Ok(meta),
                Found::Nothing | Found::Broken(_) => Err(conflict),
            },
            Err(error) => Err(error),
        }
    }
}

/// The keys of records that there are not yet and will be, and those that there are and will not be.
fn difference(keys: &BTreeSet<String>, writes: &[Write]) -> (Vec<String>, Vec<String>) {
    let records = || writes.iter().filter(|write| write.key.starts_with(keys::CURRENT));
    let new = records().filter(|write| write.value.is_some() && !keys.contains(&write.key)).map(|write| write.key.clone());
    let gone = records().filter(|write| write.value.is_none() && keys.contains(&write.key)).map(|write| write.key.clone());
    (new.collect(), gone.collect())
}

/// `12 40`: the twelfth transaction, and then there were 40 records.
pub(crate) fn number(seq: u64, records: usize) -> String {
    format!("{seq} {records}")
}

/// Where records are missing: how many.
fn missing(found: &Found, records: usize) -> Option<String> {
    let Found::Meta(Meta { records: Some(counted), point, .. }) = found else { return None };
    // More than there were say more than nothing: each is read, or is unreadable.
    (records < *counted)
        .then(|| format!("the store holds {records} records, and at record {} it held {counted}: somebody took some away", point.seq))
}

pub(crate) fn found(entries: &[Entry]) -> Found {
    let entry = |key: &str| entries.iter().find(|e| e.key == key);
    let (id, seq) = match (entry(keys::ID), entry(keys::SEQ)) {
        (None, None) => return Found::Nothing,
        (Some(id), Some(seq)) => (id, seq),
        (None, Some(_)) => return Found::Broken(format!("`{}` is missing", keys::ID)),
        (Some(_), None) => return Found::Broken(format!("`{}` is missing", keys::SEQ)),
    };
    let text = |entry: &Entry| String::from_utf8(entry.value.clone()).unwrap_or_default();
    let text_of_seq = text(seq);
    let (number, records) = match text_of_seq.split_once(' ') {
        Some((number, records)) => (number.parse(), records.parse().map(Some)),
        None => (text_of_seq.parse(), Ok(None)),
    };
    match (text(id).parse(), number.and_then(|n| Ok((n, records?)))) {
        (Ok(id), Ok((number, records))) => Found::Meta(Meta { point: Point { id, seq: number }, seq_at: seq.revision, records }),
        (Err(_), _) => Found::Broken(format!("`{}` does not read", keys::ID)),
        (Ok(_), Err(_)) => Found::Broken(format!("`{}` does not read", keys::SEQ)),
    }
}

fn backwards(what: &str) -> Verdict {
    Verdict::Backwards(format!("{what}; nothing is changed at any device until a person says `embody accept store`"))
}

fn verdict(known: &Known, found: &Found, mark: &str) -> Verdict {
    let backwards = |what: String| backwards(&what);
    match (known, found) {
        (Known::Unreadable(why), _) => {
            backwards(format!("the mark {mark} does not read ({why}), so nobody can tell whether the store went backwards"))
        }
        (_, Found::Broken(why)) => backwards(format!("the store does not say which one it is ({why}): it may be damaged, or an older one")),
        (Known::Nothing, Found::Nothing) => Verdict::Fresh,
        (Known::Nothing, Found::Meta(meta)) => Verdict::Good(*meta),
        (Known::At(known), Found::Nothing) => backwards(format!(
            "the store was emptied, or is another one: the mark {mark} knows record {} of the store {}, and it has none",
            known.seq, known.id
        )),
        (Known::At(known), Found::Meta(Meta { point, .. })) if known.id != point.id => backwards(format!(
            "the store is another one: the mark {mark} knows record {} of the store {}, and this is {}",
            known.seq, known.id, point.id
        )),
        (Known::At(known), Found::Meta(Meta { point, .. })) if point.seq < known.seq => backwards(format!(
            "the store went backwards: it ends at record {}, and the mark {mark} shows that record {} was acknowledged; it may have been restored \
             from a backup",
            point.seq, known.seq
        )),
        (Known::At(_), Found::Meta(meta)) => Verdict::Good(*meta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_that_is_at_least_where_it_was_is_good() {
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let at = |id, seq| Meta { point: Point { id, seq }, seq_at: 1, records: None };
        let known = |id, seq| Known::At(Point { id, seq });
        let broken = || Found::Broken("`meta/seq` is missing".into());
        let good = |known: &Known, meta| assert_eq!(verdict(known, &Found::Meta(meta), "/m"), Verdict::Good(meta), "{known:?}");
        assert_eq!(verdict(&Known::Nothing, &Found::Nothing, "/m"), Verdict::Fresh);
        good(&Known::Nothing, at(one, 5));
        good(&known(one, 5), at(one, 5));
        good(&known(one, 5), at(one, 6));
        let cases = [
            (known(one, 5), Found::Meta(at(one, 4)), "ends at record 4"),
            (known(one, 5), Found::Meta(at(other, 9)), "is another one"),
            (known(one, 0), Found::Nothing, "was emptied"),
            (known(one, 5), broken(), "may be damaged"),
            (Known::Nothing, broken(), "may be damaged"),
            (Known::Unreadable("x".into()), Found::Nothing, "does not read (x)"),
            (Known::Unreadable("x".into()), Found::Meta(at(one, 5)), "does not read (x)"),
        ];
        for (known, found, words) in cases {
            match verdict(&known, &found, "/m") {
                Verdict::Backwards(sentence) => {
                    assert!(sentence.contains(words) && sentence.contains("`embody accept store`"), "{sentence}")
                }
                other => panic!("{known:?} {found:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_a_store_says_of_itself_is_read_whole_or_is_broken() {
        let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into(), revision: 7, damaged: false };
        let id = Uuid::new_v4();
        let (name, number) = (entry(keys::ID, &id.to_string()), entry(keys::SEQ, "41"));
        assert_eq!(found(&[]), Found::Nothing);
        assert_eq!(found(&[name.clone(), number.clone()]), Found::Meta(Meta { point: Point { id, seq: 41 }, seq_at: 7, records: None }));
        let counted = found(&[name.clone(), entry(keys::SEQ, "41 3")]);
        assert_eq!(counted, Found::Meta(Meta { point: Point { id, seq: 41 }, seq_at: 7, records: Some(3) }));
        assert_eq!((missing(&counted, 3), missing(&Found::Nothing, 3)), (None, None));
        assert!(missing(&counted, 2).is_some_and(|what| what.contains("holds 2 records, and at record 41 it held 3")));
        let counted_name = name.clone();
        for entries in [
            vec![name.clone()],
            vec![number.clone()],
            vec![name, entry(keys::SEQ, "")],
            vec![entry(keys::ID, ""), number],
            vec![counted_name, entry(keys::SEQ, "4 x")],
        ] {
            assert!(matches!(found(&entries), Found::Broken(_)), "{entries:?}");
        }
    }
}
