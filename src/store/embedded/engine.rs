//! The tables of the embedded store: one transaction per batch of writes, reads of one moment, and forgetting.
//!
//! Leaves out: who waits for whom (`embedded`), files and locks (`place`), formats and damage (`opening`). Invariants: revisions are given inside the transaction, so that a
//! failed one leaves no hole; a watcher is told only after the commit is on disk; every log record after `floor` is there; of the records up
//! to `swept` only current ones are left, and `swept <= floor <= revision`. Tests: `tests/store.rs`.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use redb::{AccessGuard, Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use tokio::sync::watch;

use super::{
    caught::caught,
    opening::{self, unreadable},
    place::Place,
    record::{self, Record, What, open_event, seal_event},
};
use crate::{
    limits,
    store::{Change, Entry, Expect, Revision, StoreError, Write},
};

/// Every change that a watcher can still ask for, and the last change of every key that exists.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// The revision that last changed each key that exists.
pub(super) const HEAD: TableDefinition<&str, u64> = TableDefinition::new("head");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(super) const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

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
    Events(Vec<Vec<u8>>),
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
pub(super) struct Tally {
    pub(super) revision: Revision,
    pub(super) floor: Revision,
    pub(super) swept: Revision,
    events: u64,
    /// Of the records after `swept`. Of a file that a version wrote which did not count: of those since.
    bytes: u64,
}

/// Why a transaction failed.
enum Failure {
    /// And whether it may be on disk all the same.
    Database { source: redb::Error, committing: bool },
    /// The file has lost its name: nothing was written. What is open is whole, and is read as before.
    Lost(String),
}

impl Tally {
    pub(super) fn read(meta: &impl ReadableTable<&'static str, u64>) -> Result<Tally, redb::Error> {
        let number = |name| Ok::<u64, redb::Error>(meta.get(name)?.map_or(0, |n| n.value()));
        Ok(Tally {
            revision: number("revision")?,
            floor: number("floor")?,
            swept: number("swept")?,
            events: number("events")?,
            bytes: number("bytes")?,
        })
    }

    fn write(&self, meta: &mut Table<'_, &'static str, u64>) -> Result<(), redb::Error> {
        meta.insert("revision", self.revision)?;
        meta.insert("floor", self.floor)?;
        meta.insert("swept", self.swept)?;
        meta.insert("events", self.events)?;
        meta.insert("bytes", self.bytes)?;
        Ok(())
    }
}

impl Shared {
    pub(super) fn open(place: Place) -> Result<Shared, StoreError> {
        let shared = Shared { place, database: RwLock::new(None), newest: watch::Sender::new(0) };
        if let Some(path) = shared.place.file() {
            caught(|| shared.place.make(path)).map_err(|source| shared.unusable(source))?;
        }
        shared.reopen()?;
        Ok(shared)
    }

    /// Opens the database anew. Whoever reads at the moment is waited for.
    fn reopen(&self) -> Result<Tally, StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Another file than the one that was open is not opened in its place: what was read of that is in use.
        if let Some(why) = self.place.lost() {
            return Err(self.refused(why));
        }
        // redb refuses everything after an I/O error until it is closed; and closing must come before opening, because of its lock.
        close(slot.take());
        let (database, tally) = self.open_file()?;
        *slot = Some(database);
        self.newest.send_if_modified(|newest| std::mem::replace(newest, tally.revision) != tally.revision);
        Ok(tally)
    }

    /// Opens what is there, or refuses it in one sentence.
    fn open_file(&self) -> Result<(Database, Tally), StoreError> {
        let Some(path) = self.place.file() else {
            let database = caught(Place::memory_database).map_err(|source| self.unusable(source))?;
            return self.prepare(database);
        };
        if let Some(why) = Place::alien(path).map_err(|source| self.unusable(source))? {
            return Err(StoreError::Unusable { place: self.place.name(), why: format!("{why}; {RESTORE}"), source: None });
        }
        // Opening for writing writes: a newer version's file is left as it is.
        if let Ok(reader) = caught(|| Place::open_to_read(path)) {
            let format = caught(|| opening::format(&reader));
            close(Some(reader));
            self.not_newer(format.unwrap_or(None))?;
        }
        let opened = match caught(|| self.place.open_whole(path)) {
            Err(redb::Error::RepairAborted | redb::Error::Corrupted(_)) => self.open_damaged(path),
            done => done,
        };
        self.prepare(opened.map_err(|source| self.unusable(source))?)
    }

    /// A page is damaged: by a kill in the middle of a transaction, or otherwise.
    fn open_damaged(&self, path: &Path) -> Result<Database, redb::Error> {
        let Ok(reader) = caught(|| Place::open_to_read(path)) else { return caught(|| self.place.open_after_kill(path)) };
        let damage = caught(|| opening::survey(&reader));
        close(Some(reader));
        let damage = damage?;
        let database = caught(|| self.place.open_unverified(path))?;
        let mended = caught(|| opening::mend(&database, &damage));
        close(Some(database));
        mended?;
        let database = caught(|| self.place.open_whole(path))?;
        let keys: Vec<&str> = damage.keys.values().map(String::as_str).collect();
        tracing::error!(
            file = self.place.name(),
            keys = keys.join(" "),
            "the store was damaged: the values of these keys are lost, all others are whole"
        );
        Ok(database)
    }

    /// Refuses what a newer version wrote before anything is changed; makes the tables where there are none.
    fn prepare(&self, database: Database) -> Result<(Database, Tally), StoreError> {
        let format = caught(|| opening::format(&database)).map_err(|source| self.unusable(source))?;
        self.not_newer(format)?;
        let tally = caught(|| opening::prepare(&database, format)).map_err(|source| self.unusable(source))?;
        Ok((database, tally))
    }

    fn not_newer(&self, format: Option<u64>) -> Result<(), StoreError> {
        let Some(format) = format.filter(|format| *format > opening::FORMAT) else { return Ok(()) };
        let why =
            format!("a newer version of embody wrote it (format {format}; this one reads up to {}): use that version", opening::FORMAT);
        Err(StoreError::Unusable { place: self.place.name(), why, source: None })
    }

    fn with<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| self.given_up())?;
        caught(|| read(database)).map_err(|source| self.unusable(source))
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.place.name()
    }

    fn refused(&self, why: String) -> StoreError {
        StoreError::Unusable { place: self.place.name(), why, source: None }
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
        Ok(self.get_all(std::slice::from_ref(&key))?.pop().flatten())
    }

    pub(super) fn get_all(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.with(|database| {
            let txn = database.begin_read()?;
            let (head, log) = (txn.open_table(HEAD)?, txn.open_table(LOG)?);
            let get = |key: &str| match head.get(key)? {
                Some(revision) => entry_at(&log, key, revision.value()).map(Some),
                None => Ok(None),
            };
            keys.iter().map(|key| get(key.as_ref())).collect()
        })
    }

    pub(super) fn heads(&self, prefix: &str) -> Result<Vec<(String, Revision)>, StoreError> {
        self.with(|database| {
            let head = database.begin_read()?.open_table(HEAD)?;
            let mut heads = Vec::new();
            for row in head.range(prefix..)? {
                let (key, revision) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                heads.push((key.value().to_owned(), revision.value()));
            }
            Ok(heads)
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
                entries.push(entry_at(&log, key.value(), revision.value())?);
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
            let unknown = |revision| Ok(Err(Tally { floor: revision, ..tally }));
            let mut bytes = 0;
            for (count, row) in txn.open_table(LOG)?.range(after + 1..)?.enumerate() {
                if count == PAGE_RECORDS || bytes >= PAGE_BYTES {
                    page.last = false;
                    break;
                }
                let (revision, record) = row?;
                page.through = revision.value();
                // Nobody knows what was changed there: as if the history began behind it.
                let Some(record) = Record::decode(record.value(), page.through) else { return unknown(page.through) };
                let Some(change) = record.change(page.through) else { return unknown(page.through) };
                if record.key.starts_with(prefix) {
                    bytes += record.value.len();
                    page.changes.push(change);
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
            // A damaged one is left out.
            let whole = |row: Result<(AccessGuard<u64>, AccessGuard<&[u8]>), redb::StorageError>| match row {
                Ok((number, sealed)) => open_event(number.value(), sealed.value()).map(|event| Ok(event.to_vec())),
                Err(error) => Some(Err(redb::Error::from(error))),
            };
            let newest = table.range::<u64>(..)?.rev().take(most).filter_map(whole);
            let mut events = newest.collect::<Result<Vec<_>, redb::Error>>()?;
            events.reverse();
            Ok(events)
        })
    }
}

/// A damaged file shall not end this process when it is closed, either.
fn close<T>(database: Option<T>) {
    // Nothing that was acknowledged is lost by a close that fails.
    let _ = caught(|| {
        drop(database);
        Ok(())
    });
}

impl Drop for Shared {
    fn drop(&mut self) {
        close(self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn entry_at(log: &impl ReadableTable<u64, &'static [u8]>, key: &str, revision: Revision) -> Result<Entry, redb::Error> {
    let row = log.get(revision)?.ok_or_else(|| unreadable(revision))?;
    Ok(record::entry(key, revision, row.value()))
}

/// What to do with a file that is no store, or no longer one.
const RESTORE: &str = "restore it from a backup, or move it away to begin with an empty store";

/// In words, what redb's error means to the person who has to mend it.
fn reason(error: &redb::Error) -> String {
    use std::io::ErrorKind;
    match error {
        redb::Error::Io(io) if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => {
            "there is no space left".to_owned()
        }
        redb::Error::Io(io) if io.kind() == ErrorKind::UnexpectedEof => format!("the file is damaged or cut short; {RESTORE}"),
        redb::Error::Io(_) | redb::Error::PreviousIo => "an input/output error".to_owned(),
        redb::Error::Corrupted(_) | redb::Error::RepairAborted => format!("the file is damaged or cut short; {RESTORE}"),
        redb::Error::UpgradeRequired(_) => "its file format is not this version's: restore it, or use the version that wrote it".to_owned(),
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
            Err(Failure::Database { source, committing }) => self.recover(batch, before, source, committing),
            Err(Failure::Lost(why)) => batch.iter().map(|_| Err(self.shared.refused(why.clone()))).collect(),
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
    fn recover(&self, batch: &[Work], before: Revision, source: redb::Error, committing: bool) -> Vec<Answer> {
        let repeat = matches!(source, redb::Error::PreviousIo) && !committing;
        let why = reason(&source);
        let reopened = self.shared.reopen();
        if repeat
            && reopened.is_ok()
            && let Ok(answers) = self.transact(batch, SWEEP)
        {
            return answers;
        }
        let written_for_certain_not = match &reopened {
            // What is there now was read back from a disk that has just failed: good enough for a no, not for a yes.
            Ok(tally) => tally.revision == before && !(committing && batch.iter().any(is_event)),
            Err(_) => !committing,
        };
        let source = Arc::new(source);
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
        let Some(database) = slot.as_ref() else { return Err(Failure::Database { source: redb::Error::PreviousIo, committing: false }) };
        let committing = Cell::new(false);
        let carry_out = || {
            let mut txn = database.begin_write()?;
            txn.set_quick_repair(self.shared.place.bytes() > QUICK_REPAIR_BYTES);
            let (before, after, answers) = write(&txn, batch, sweep)?;
            let lost = if before == after { None } else { self.shared.place.lost() };
            if before == after || lost.is_some() {
                txn.abort()?;
            } else {
                committing.set(true);
                txn.commit()?;
            }
            Ok((after, answers, lost))
        };
        let (after, answers, lost) = caught(carry_out).map_err(|source| Failure::Database { source, committing: committing.get() })?;
        if let Some(why) = lost {
            return Err(Failure::Lost(why));
        }
        self.shared.newest.send_if_modified(|newest| std::mem::replace(newest, after.revision) != after.revision);
        Ok(answers)
    }
}

fn is_event(work: &Work) -> bool {
    matches!(work, Work::Events(_))
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
    tables.forget(sweep + 2 * (tables.tally.revision - before.revision))?;
    if tables.tally != before {
        tables.tally.write(&mut meta)?;
    }
    Ok((before, tables.tally, answers))
}

impl Tables<'_> {
    fn carry_out(&mut self, work: &Work) -> Result<Answer, redb::Error> {
        match work {
            Work::Writes(writes) => return self.write_all(writes),
            Work::Events(values) => {
                for value in values {
                    self.events.insert(self.tally.events, seal_event(self.tally.events, value).as_slice())?;
                    self.tally.events += 1;
                    if let Some(oldest) = self.tally.events.checked_sub(limits::EVENTS as u64 + 1) {
                        self.events.remove(oldest)?;
                    }
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
                    self.append(Record { what: What::Put, before: before.unwrap_or(0), key, value })?;
                    self.head.insert(key, self.tally.revision)?;
                }
                (None, Some(before)) => {
                    self.append(Record { what: What::Delete, before, key, value: &[] })?;
                    self.head.remove(key)?;
                }
                (None, None) => {}
            }
            revisions.push(self.tally.revision);
        }
        Ok(Ok(revisions))
    }

    fn conflict(&self, key: &str, at: Option<Revision>) -> Result<Answer, redb::Error> {
        let found = at.map(|revision| entry_at(&self.log, key, revision)).transpose()?;
        Ok(Err(StoreError::Conflict { key: key.to_owned(), found }))
    }

    /// Gives the record the next revision.
    fn append(&mut self, record: Record<'_>) -> Result<(), redb::Error> {
        self.tally.revision += 1;
        let encoded = record.encode(self.tally.revision);
        self.tally.bytes += encoded.len() as u64;
        self.log.insert(self.tally.revision, encoded.as_slice())?;
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
        let (mut through, mut dead) = (swept, Vec::new());
        for row in self.log.range(swept + 1..=revision.min(swept + most))? {
            let (revision, record) = row?;
            let revision = revision.value();
            if revision > self.tally.floor && self.tally.bytes <= limits::HISTORY_BYTES {
                break;
            }
            through = revision;
            self.tally.bytes = self.tally.bytes.saturating_sub(record.value().len() as u64);
            // One that does not read stays: it may be what a key has now, and writing that key removes it.
            if let Some(record) = Record::decode(record.value(), revision)
                && self.head.get(record.key)?.map(|n| n.value()) != Some(revision)
            {
                dead.push(revision);
            }
        }
        for revision in dead {
            self.log.remove(revision)?;
        }
        // Of a number without a record there is nothing to forget.
        self.tally.swept = through.max(self.tally.floor.min(swept + most));
        self.tally.floor = self.tally.floor.max(through);
        Ok(())
    }
}
