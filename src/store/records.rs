//! The controller's own records in a store, numbered, so that a store which went backwards is noticed before anything is done upon it.
//!
//! `meta/id` names the store for as long as it lives, `meta/seq` is raised by every transaction of records, and the mark on this machine's disk
//! holds the highest number that was acknowledged to it. A restored, emptied or exchanged store shows another name or a lower number. Only
//! linearizable reads are compared. Leaves out: what is stopped then (the controller), and a whole `--data` restored together with the embedded
//! store, which nobody can see. Invariant: once backwards, nothing is written through here until a person accepts the store.
//! Tests: below (every case), `tests/store/backwards.rs` (both backends, killed, restored, emptied).

use std::{path::Path, sync::Arc};

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
}

/// What a store says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meta {
    point: Point,
    /// The revision that last changed `meta/seq`.
    seq_at: Revision,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    Meta(Meta),
    /// One of the two is missing or does not read.
    Broken(String),
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
        Records { store, state: Mutex::new(State { mark, meta: None }), backwards: watch::Sender::new(None) }
    }

    /// Why the store counts as gone backwards, in one sentence; nothing while it is good. It changes to nothing only by `accept`.
    pub fn backwards(&self) -> watch::Receiver<Option<String>> {
        self.backwards.subscribe()
    }

    /// Looks at what the store says of itself, and moves the mark up; writes nothing to it. For standbys, now and then.
    pub async fn follow(&self) -> Result<(), StoreError> {
        self.compare(&mut *self.state.lock().await, false).await
    }

    /// The same when a term begins, before anything is loaded; names a new store.
    pub async fn take_over(&self) -> Result<(), StoreError> {
        self.compare(&mut *self.state.lock().await, true).await
    }

    /// Does all of these writes, or none (`Store::write_all`), and gives them the next number. At most `WRITES_AT_ONCE`.
    pub async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        let mut state = self.state.lock().await;
        for _ in 0..ATTEMPTS {
            if state.meta.is_none() || self.backwards.borrow().is_some() {
                self.compare(&mut state, true).await?;
            }
            let Some(meta) = state.meta else { continue };
            let point = Point { seq: meta.point.seq.saturating_add(1), ..meta.point };
            let number = Write::put(keys::SEQ, point.seq.to_string(), Expect::At(meta.seq_at));
            match self.store.write_all(&[writes, &[number]].concat()).await {
                Ok(mut revisions) => {
                    let seq_at = revisions.pop().unwrap_or(0);
                    state.meta = Some(Meta { point, seq_at });
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
        let meta = match found {
            Found::Meta(meta) => meta,
            Found::Nothing | Found::Broken(_) => self.name_anew(&entries).await?,
        };
        state.mark.replace(meta.point).await?;
        state.meta = Some(meta);
        self.backwards.send_replace(None);
        Ok(())
    }

    async fn compare(&self, state: &mut State, may_name: bool) -> Result<(), StoreError> {
        state.meta = None;
        if let Some(sentence) = self.backwards.borrow().clone() {
            return Err(StoreError::Backwards { sentence });
        }
        let (found, entries) = self.read().await?;
        let meta = match verdict(&state.mark.known, &found, &state.mark.name()) {
            Verdict::Fresh if may_name => self.name_anew(&entries).await?,
            Verdict::Fresh => return Ok(()),
            Verdict::Good(meta) => meta,
            Verdict::Backwards(sentence) => {
                self.backwards.send_replace(Some(sentence.clone()));
                return Err(StoreError::Backwards { sentence });
            }
        };
        if let Known::At(_) = state.mark.known {
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

    /// Gives the store a new name, over whatever does not read.
    async fn name_anew(&self, entries: &[Entry]) -> Result<Meta, StoreError> {
        let point = Point { id: Uuid::new_v4(), seq: 0 };
        let expect = |key| entries.iter().find(|e| e.key == key).map_or(Expect::Absent, |e| Expect::At(e.revision));
        let writes =
            [Write::put(keys::ID, point.id.to_string(), expect(keys::ID)), Write::put(keys::SEQ, point.seq.to_string(), expect(keys::SEQ))];
        match self.store.write_all(&writes).await {
            Ok(revisions) => Ok(Meta { point, seq_at: revisions.last().copied().unwrap_or(0) }),
            // Another one was first.
            Err(conflict @ StoreError::Conflict { .. }) => match self.read().await?.0 {
                Found::Meta(meta) => Ok(meta),
                Found::Nothing | Found::Broken(_) => Err(conflict),
            },
            Err(error) => Err(error),
        }
    }
}

fn found(entries: &[Entry]) -> Found {
    let entry = |key: &str| entries.iter().find(|e| e.key == key);
    let (id, seq) = match (entry(keys::ID), entry(keys::SEQ)) {
        (None, None) => return Found::Nothing,
        (Some(id), Some(seq)) => (id, seq),
        (None, Some(_)) => return Found::Broken(format!("`{}` is missing", keys::ID)),
        (Some(_), None) => return Found::Broken(format!("`{}` is missing", keys::SEQ)),
    };
    let text = |entry: &Entry| String::from_utf8(entry.value.clone()).unwrap_or_default();
    match (text(id).parse(), text(seq).parse()) {
        (Ok(id), Ok(number)) => Found::Meta(Meta { point: Point { id, seq: number }, seq_at: seq.revision }),
        (Err(_), _) => Found::Broken(format!("`{}` does not read", keys::ID)),
        (Ok(_), Err(_)) => Found::Broken(format!("`{}` does not read", keys::SEQ)),
    }
}

fn verdict(known: &Known, found: &Found, mark: &str) -> Verdict {
    let backwards =
        |what: String| Verdict::Backwards(format!("{what}; nothing is changed at any device until a person says `embody accept store`"));
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
        let at = |id, seq| Meta { point: Point { id, seq }, seq_at: 1 };
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
        assert_eq!(found(&[name.clone(), number.clone()]), Found::Meta(Meta { point: Point { id, seq: 41 }, seq_at: 7 }));
        for entries in [vec![name.clone()], vec![number.clone()], vec![name, entry(keys::SEQ, "")], vec![entry(keys::ID, ""), number]] {
            assert!(matches!(found(&entries), Found::Broken(_)), "{entries:?}");
        }
    }
}
