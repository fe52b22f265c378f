//! The tables of the embedded store: one transaction per batch of writes, reads of one moment, and forgetting.
//!
//! Leaves out: who waits for whom (`embedded`), files and locks (`place`). Invariants: revisions are given inside the transaction, so that a
//! failed one leaves no hole; a watcher is told only after the commit is on disk; every log record after `floor` is there; of the records up
//! to `swept` only current ones are left, and `swept <= floor <= revision`. Tests: `tests/store.rs`.

use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use tokio::sync::watch;

use super::{
    place::Place,
    record::{Record, What},
};
use crate::{
    limits,
    store::{Change, Entry, Expect, Revision, StoreError, Write},
};

/// The version of the tables below. A newer one is refused; an older one would be migrated in `Shared::prepare`.
const FORMAT: u64 = 1;
/// Every change that a watcher can still ask for, and the last change of every key that exists.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// The revision that last changed each key that exists.
const HEAD: TableDefinition<&str, u64> = TableDefinition::new("head");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

/// Above this, walking the whole file after a crash would take seconds: redb then keeps its free space list on disk, which costs a second
/// fsync per commit.
const QUICK_REPAIR_BYTES: u64 = 100 << 20;
/// Log records observed for forgetting in one transaction, beyond twice what the transaction writes (so that it always catches up).
const SWEEP: u64 = 64;
/// The same while nobody writes.
const IDLE_SWEEP: u64 = 1_024;
/// One page of a watcher's way through the log.
const PAGE_RECORDS: usize = 256;
const PAGE_BYTES: usize = 4 << 20;

/// What is asked of the writer.
#[derive(Debug)]
pub(super) enum Work {
    /// All of them or none.
    Writes(Vec<Write>),
    Event(Vec<u8>),
    Compact(Revision),
    /// Opens the file again where it had to be given up; changes nothing.
    Reopen,
}

/// The revision of each write.
pub(super) type Answer = Result<Vec<Revision>, StoreError>;

/// The database and what watchers wait for. The database is missing after an I/O error until it could be opened again.
pub(super) struct Shared {
    place: Place,
    database: RwLock<Option<Database>>,
    pub(super) newest: watch::Sender<Revision>,
}

/// Some changes after a revision.
pub(super) struct Page {
    pub(super) changes: Vec<Change>,
    /// Everything up to here was observed.
    pub(super) through: Revision,
    /// There was no more at that moment.
    pub(super) last: bool,
}

/// The numbers in META.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    revision: Revision,
    floor: Revision,
    swept: Revision,
    events: u64,
}

/// Why a transaction failed, and whether it may be on disk all the same.
struct Failure {
    source: redb::Error,
    committing: bool,
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(source: E) -> Failure {
        Failure { source: source.into(), committing: false }
    }
}

impl Tally {
    fn read(meta: &impl ReadableTable<&'static str, u64>) -> Result<Tally, redb::Error> {
        let number = |name| Ok::<u64, redb::Error>(meta.get(name)?.map_or(0, |n| n.value()));
        Ok(Tally { revision: number("revision")?, floor: number("floor")?, swept: number("swept")?, events: number("events")? })
    }

    fn write(&self, meta: &mut Table<'_, &'static str, u64>) -> Result<(), redb::Error> {
        meta.insert("revision", self.revision)?;
        meta.insert("floor", self.floor)?;
        meta.insert("swept", self.swept)?;
        meta.insert("events", self.events)?;
        Ok(())
    }
}

impl Shared {
    pub(super) fn open(place: Place) -> Result<Shared, StoreError> {
        let shared = Shared { place, database: RwLock::new(None), newest: watch::Sender::new(0) };
        shared.reopen()?;
        Ok(shared)
    }

    /// Opens the database anew. Whoever reads at the moment is waited for.
    fn reopen(&self) -> Result<Tally, StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // redb refuses everything after an I/O error until it is closed; and closing must come before opening, because of its lock.
        *slot = None;
        let database = self.place.open().map_err(|source| self.unusable(source))?;
        let tally = self.prepare(&database)?;
        *slot = Some(database);
        self.newest.send_if_modified(|newest| std::mem::replace(newest, tally.revision) != tally.revision);
        Ok(tally)
    }

    /// Refuses what a newer version wrote before anything is changed; makes the tables where there are none.
    fn prepare(&self, database: &Database) -> Result<Tally, StoreError> {
        let format = || -> Result<Option<u64>, redb::Error> {
            match database.begin_read()?.open_table(META) {
                Ok(meta) => Ok(meta.get("format")?.map(|n| n.value())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        if let Some(format) = format().map_err(|source| self.unusable(source))?
            && format > FORMAT
        {
            let why = format!("a newer version of embody wrote it (format {format}; this one reads up to {FORMAT}): use that version");
            return Err(StoreError::Unusable { place: self.place.name(), why, source: None });
        }
        let create = || -> Result<Tally, redb::Error> {
            let txn = database.begin_write()?;
            let (tally, complete) = {
                let mut meta = txn.open_table(META)?;
                let complete = meta.insert("format", FORMAT)?.is_some_and(|n| n.value() == FORMAT);
                (Tally::read(&meta)?, complete)
            };
            if complete {
                txn.abort()?;
            } else {
                txn.open_table(LOG)?;
                txn.open_table(HEAD)?;
                txn.open_table(EVENTS)?;
                txn.commit()?;
            }
            Ok(tally)
        };
        create().map_err(|source| self.unusable(source))
    }

    fn with<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| self.given_up())?;
        read(database).map_err(|source| self.unusable(source))
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.place.name()
    }

    fn given_up(&self) -> StoreError {
        let why = "it was closed after an input/output error and cannot be opened again yet".to_owned();
        StoreError::Unusable { place: self.place.name(), why, source: None }
    }

    pub(super) fn unusable(&self, source: redb::Error) -> StoreError {
        StoreError::Unusable { place: self.place.name(), why: reason(&source), source: Some(Box::new(source)) }
    }

    /// What a caller is told when the writer is gone.
    pub(super) fn closed(&self) -> StoreError {
        StoreError::Unusable { place: self.place.name(), why: "it is being closed".to_owned(), source: None }
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.with(|database| {
            let txn = database.begin_read()?;
            let Some(revision) = txn.open_table(HEAD)?.get(key)?.map(|n| n.value()) else { return Ok(None) };
            let log = txn.open_table(LOG)?;
            entry_at(&log, revision).map(Some)
        })
    }

    pub(super) fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        self.with(|database| {
            let txn = database.begin_read()?;
            let (head, log) = (txn.open_table(HEAD)?, txn.open_table(LOG)?);
            let mut entries = Vec::new();
            for row in head.range(prefix..)? {
                let (key, revision) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                entries.push(entry_at(&log, revision.value())?);
            }
            Ok((entries, Tally::read(&txn.open_table(META)?)?.revision))
        })
    }

    /// The next changes after a revision.
    pub(super) fn page(&self, prefix: &str, after: Revision) -> Result<Page, StoreError> {
        let found = self.with(|database| {
            let txn = database.begin_read()?;
            let tally = Tally::read(&txn.open_table(META)?)?;
            if after < tally.floor || after > tally.revision {
                return Ok(Err(tally));
            }
            let mut page = Page { changes: Vec::new(), through: after, last: true };
            let mut bytes = 0;
            for (count, row) in txn.open_table(LOG)?.range(after + 1..)?.enumerate() {
                if count == PAGE_RECORDS || bytes >= PAGE_BYTES {
                    page.last = false;
                    break;
                }
                let (revision, record) = row?;
                page.through = revision.value();
                let record = Record::decode(record.value()).ok_or_else(|| damaged(page.through))?;
                if record.key.starts_with(prefix) {
                    bytes += record.value.len();
                    page.changes.push(record.change(page.through));
                }
            }
            Ok(Ok(page))
        })?;
        found.map_err(|tally| {
            if after < tally.floor {
                return StoreError::Compacted { asked: after, oldest: tally.floor };
            }
            let why = format!("it is at revision {}, and revision {after} was asked for: was it restored from a backup?", tally.revision);
            StoreError::Unusable { place: self.place.name(), why, source: None }
        })
    }

    /// The newest events, oldest first.
    pub(super) fn events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(EVENTS)?;
            let newest = table.range::<u64>(..)?.rev().take(most).map(|row| Ok(row?.1.value().to_vec()));
            let mut events = newest.collect::<Result<Vec<_>, redb::Error>>()?;
            events.reverse();
            Ok(events)
        })
    }
}

fn entry_at(log: &impl ReadableTable<u64, &'static [u8]>, revision: Revision) -> Result<Entry, redb::Error> {
    let row = log.get(revision)?.ok_or_else(|| damaged(revision))?;
    Ok(Record::decode(row.value()).ok_or_else(|| damaged(revision))?.entry(revision))
}

fn damaged(revision: Revision) -> redb::Error {
    redb::Error::Corrupted(format!("the record of revision {revision} is missing or unreadable"))
}

/// In words, what redb's error means to the person who has to mend it.
fn reason(error: &redb::Error) -> String {
    use std::io::ErrorKind;
    match error {
        redb::Error::Io(io) if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => {
            "there is no space left".to_owned()
        }
        redb::Error::Io(_) | redb::Error::PreviousIo => "an input/output error".to_owned(),
        redb::Error::Corrupted(_) => "it is damaged".to_owned(),
        redb::Error::UpgradeRequired(_) => "its file format is not this version's".to_owned(),
        redb::Error::DatabaseAlreadyOpen => "another process has it open".to_owned(),
        _ => "the database refused".to_owned(),
    }
}

/// The one writer.
pub(super) struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    pub(super) fn new(shared: Arc<Shared>) -> Engine {
        Engine { shared }
    }

    /// Carries out a batch in one durable transaction; one answer each, in order.
    pub(super) fn apply(&self, batch: &[Work]) -> Vec<Answer> {
        let before = *self.shared.newest.borrow();
        match self.transact(batch, SWEEP) {
            Ok(answers) => answers,
            Err(failure) => self.recover(batch, before, failure),
        }
    }

    /// Forgets some more while nobody writes; whether there is more to forget.
    pub(super) fn tidy(&self) -> bool {
        let owing = |database: &Database| Tally::read(&database.begin_read()?.open_table(META)?);
        match self.shared.with(owing) {
            Ok(tally) if tally.swept < tally.floor => self.transact(&[], IDLE_SWEEP).is_ok(),
            Ok(_) | Err(_) => false,
        }
    }

    /// After a failure: opens the file anew and looks whether the transaction is there.
    fn recover(&self, batch: &[Work], before: Revision, failure: Failure) -> Vec<Answer> {
        let repeat = matches!(failure.source, redb::Error::PreviousIo) && !failure.committing;
        let why = reason(&failure.source);
        let reopened = self.shared.reopen();
        if repeat
            && reopened.is_ok()
            && let Ok(answers) = self.transact(batch, SWEEP)
        {
            return answers;
        }
        let written_for_certain_not = match &reopened {
            // What is there now was read back from a disk that has just failed: good enough for a no, not for a yes.
            Ok(tally) => tally.revision == before && !(failure.committing && batch.iter().any(is_event)),
            Err(_) => !failure.committing,
        };
        let source = Arc::new(failure.source);
        let answer = |_: &Work| {
            let source: Box<dyn std::error::Error + Send + Sync> = Box::new(Shown(source.clone()));
            Err(if written_for_certain_not {
                StoreError::Unusable { place: self.shared.place.name(), why: why.clone(), source: Some(source) }
            } else {
                StoreError::Unknown { source }
            })
        };
        batch.iter().map(answer).collect()
    }

    fn transact(&self, batch: &[Work], sweep: u64) -> Result<Vec<Answer>, Failure> {
        let slot = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = slot.as_ref() else { return Err(redb::Error::PreviousIo.into()) };
        let mut txn = database.begin_write()?;
        txn.set_quick_repair(self.shared.place.bytes() > QUICK_REPAIR_BYTES);
        let (before, after, answers) = write(&txn, batch, sweep)?;
        if before == after {
            txn.abort()?;
        } else {
            txn.commit().map_err(|source| Failure { source: source.into(), committing: true })?;
        }
        self.shared.newest.send_if_modified(|newest| std::mem::replace(newest, after.revision) != after.revision);
        Ok(answers)
    }
}

fn is_event(work: &Work) -> bool {
    matches!(work, Work::Event(_))
}

/// One error that several callers are told of.
#[derive(Debug)]
struct Shown(Arc<redb::Error>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shown {}

/// The tables of one transaction.
struct Tables<'t> {
    log: Table<'t, u64, &'static [u8]>,
    head: Table<'t, &'static str, u64>,
    events: Table<'t, u64, &'static [u8]>,
    tally: Tally,
}

fn write(txn: &WriteTransaction, batch: &[Work], sweep: u64) -> Result<(Tally, Tally, Vec<Answer>), redb::Error> {
    let mut meta = txn.open_table(META)?;
    let before = Tally::read(&meta)?;
    let mut tables = Tables { log: txn.open_table(LOG)?, head: txn.open_table(HEAD)?, events: txn.open_table(EVENTS)?, tally: before };
    let answers = batch.iter().map(|work| tables.carry_out(work)).collect::<Result<Vec<_>, _>>()?;
    tables.forget(sweep + 2 * batch.len() as u64)?;
    if tables.tally != before {
        tables.tally.write(&mut meta)?;
    }
    Ok((before, tables.tally, answers))
}

impl Tables<'_> {
    fn carry_out(&mut self, work: &Work) -> Result<Answer, redb::Error> {
        match work {
            Work::Writes(writes) => return self.write_all(writes),
            Work::Event(value) => {
                self.events.insert(self.tally.events, value.as_slice())?;
                self.tally.events += 1;
                if let Some(oldest) = self.tally.events.checked_sub(limits::EVENTS as u64 + 1) {
                    self.events.remove(oldest)?;
                }
            }
            Work::Compact(through) => self.tally.floor = self.tally.floor.max((*through).min(self.tally.revision)),
            Work::Reopen => {}
        }
        Ok(Ok(Vec::new()))
    }

    /// Everything is compared before anything is written: no key is there twice.
    fn write_all(&mut self, writes: &[Write]) -> Result<Answer, redb::Error> {
        let mut found = Vec::with_capacity(writes.len());
        for write in writes {
            let before = self.head.get(write.key.as_str())?.map(|n| n.value());
            let as_expected = match write.expect {
                Expect::Absent => before.is_none(),
                Expect::At(revision) => before == Some(revision),
            };
            if !as_expected {
                return self.conflict(&write.key, before);
            }
            found.push(before);
        }
        let mut revisions = Vec::with_capacity(writes.len());
        for (write, before) in writes.iter().zip(found) {
            let key = write.key.as_str();
            match (&write.value, before) {
                (Some(value), before) => {
                    self.append(&Record { what: What::Put, before: before.unwrap_or(0), key, value })?;
                    self.head.insert(key, self.tally.revision)?;
                }
                (None, Some(before)) => {
                    self.append(&Record { what: What::Delete, before, key, value: &[] })?;
                    self.head.remove(key)?;
                }
                (None, None) => {}
            }
            revisions.push(self.tally.revision);
        }
        Ok(Ok(revisions))
    }

    fn conflict(&self, key: &str, at: Option<Revision>) -> Result<Answer, redb::Error> {
        let found = at.map(|revision| entry_at(&self.log, revision)).transpose()?;
        Ok(Err(StoreError::Conflict { key: key.to_owned(), found }))
    }

    /// Gives the record the next revision.
    fn append(&mut self, record: &Record<'_>) -> Result<(), redb::Error> {
        self.tally.revision += 1;
        self.log.insert(self.tally.revision, record.encode().as_slice())?;
        // The sweep has passed it by because it was current then.
        if record.before != 0 && record.before <= self.tally.swept {
            self.log.remove(record.before)?;
        }
        Ok(())
    }

    /// Moves the floor, and removes some of what lies under it and is not current.
    fn forget(&mut self, most: u64) -> Result<(), redb::Error> {
        let Tally { revision, floor, swept, .. } = self.tally;
        self.tally.floor = floor.max(revision.saturating_sub(limits::REVISIONS));
        let through = self.tally.floor.min(swept + most);
        if through == swept {
            return Ok(());
        }
        let mut dead = Vec::new();
        for row in self.log.range(swept + 1..=through)? {
            let (revision, record) = row?;
            let revision = revision.value();
            let record = Record::decode(record.value()).ok_or_else(|| damaged(revision))?;
            if self.head.get(record.key)?.map(|n| n.value()) != Some(revision) {
                dead.push(revision);
            }
        }
        for revision in dead {
            self.log.remove(revision)?;
        }
        self.tally.swept = through;
        Ok(())
    }
}
