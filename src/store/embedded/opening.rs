//! What is done with the file of the embedded store when it is opened: its format, and whether all of it is whole.
//!
//! A file whose pages are whole is trusted. One with a damaged page is trusted only if its own checksums show that nothing but values is
//! damaged: these are marked as lost, so that a reader is told which keys they were, and everything else is read. Any other damage refuses the
//! file. Leaves out: the file itself (`place`). Invariants: a damaged file never loses a key in silence, and format 1 becomes format 2 in one
//! transaction. Tests: `tests/store/damage.rs`.

use std::collections::{BTreeMap, BTreeSet};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    engine::{EVENTS, HEAD, LOG, META, Tally},
    record::{Record, What, entry, open_event, seal_event},
};
use crate::store::Revision;

/// The version of the tables. A newer one is refused; an older one is brought up when it is opened. 2 has checksums.
pub(super) const FORMAT: u64 = 2;

/// Nothing: the tables were never made.
pub(super) fn format(database: &impl ReadableDatabase) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|n| n.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes the tables where there are none, and brings older ones up to `FORMAT`.
pub(super) fn prepare(database: &Database, format: Option<u64>) -> Result<Tally, redb::Error> {
    let txn = database.begin_write()?;
    let tally = Tally::read(&txn.open_table(META)?)?;
    if format == Some(FORMAT) {
        txn.abort()?;
        return Ok(tally);
    }
    if format == Some(1) {
        add_checksums(&txn)?;
    }
    txn.open_table(META)?.insert("format", FORMAT)?;
    txn.open_table(LOG)?;
    txn.open_table(HEAD)?;
    txn.open_table(EVENTS)?;
    txn.commit()?;
    Ok(tally)
}

fn add_checksums(txn: &WriteTransaction) -> Result<(), redb::Error> {
    let mut log = txn.open_table(LOG)?;
    let revisions = log.iter()?.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::Error>>()?;
    for revision in revisions {
        let old = log.get(revision)?.map(|row| row.value().to_vec()).unwrap_or_default();
        let record = Record::decode_unsummed(&old).ok_or_else(|| unreadable(revision))?;
        log.insert(revision, record.encode(revision).as_slice())?;
    }
    let mut events = txn.open_table(EVENTS)?;
    let numbers = events.iter()?.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::Error>>()?;
    for number in numbers {
        let old = events.get(number)?.map(|row| row.value().to_vec()).unwrap_or_default();
        events.insert(number, seal_event(number, &old).as_slice())?;
    }
    Ok(())
}

/// What of a file with damaged pages is damaged, if that is nothing but values. Writes nothing.
pub(super) fn survey(database: &impl ReadableDatabase) -> Result<Damage, redb::Error> {
    if format(database)? != Some(FORMAT) {
        return Err(elsewhere("a page is damaged, and there are no checksums of values"));
    }
    let txn = database.begin_read()?;
    let survey = Survey::take(&txn)?;
    let keys = survey.lost_keys(&txn)?;
    Ok(Damage { revisions: survey.damaged, events: survey.damaged_events, keys })
}

/// Marks what is damaged as lost: the damaged pages are no longer part of the file then.
pub(super) fn mend(database: &Database, damage: &Damage) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        let (mut log, mut events) = (txn.open_table(LOG)?, txn.open_table(EVENTS)?);
        for revision in &damage.revisions {
            let key = damage.keys.get(revision).map_or("", String::as_str);
            log.insert(*revision, Record::lost(key).encode(*revision).as_slice())?;
        }
        for number in &damage.events {
            events.remove(*number)?;
        }
    }
    Ok(txn.commit()?)
}

pub(super) struct Damage {
    revisions: BTreeSet<Revision>,
    events: BTreeSet<u64>,
    /// Those of the revisions that are what a key has now.
    pub(super) keys: BTreeMap<Revision, String>,
}

/// What the log and the events have, whole and damaged.
struct Survey {
    /// Of each key, its newest change that is whole.
    newest: BTreeMap<String, (Revision, What)>,
    damaged: BTreeSet<Revision>,
    damaged_events: BTreeSet<u64>,
}

impl Survey {
    fn take(txn: &ReadTransaction) -> Result<Survey, redb::Error> {
        let tally = Tally::read(&txn.open_table(META)?)?;
        let mut survey = Survey { newest: BTreeMap::new(), damaged: BTreeSet::new(), damaged_events: BTreeSet::new() };
        let (mut last, mut unswept) = (0, 0);
        for row in txn.open_table(LOG)?.iter()? {
            let (revision, bytes) = row?;
            last = revision.value();
            unswept += u64::from(last > tally.swept);
            match Record::decode(bytes.value(), last) {
                Some(record) if record.what != What::Lost => drop(survey.newest.insert(record.key.to_owned(), (last, record.what))),
                Some(_) => {}
                None => drop(survey.damaged.insert(last)),
            }
        }
        for row in txn.open_table(EVENTS)?.iter()? {
            let (number, bytes) = row?;
            if open_event(number.value(), bytes.value()).is_none() {
                survey.damaged_events.insert(number.value());
            }
        }
        let numbers_fit = last <= tally.revision && tally.swept <= tally.floor && tally.floor <= tally.revision;
        if !numbers_fit || unswept != tally.revision - tally.swept {
            return Err(elsewhere("its numbers do not fit what is in it"));
        }
        if survey.damaged.is_empty() && survey.damaged_events.is_empty() {
            return Err(elsewhere("the damage is in no value"));
        }
        Ok(survey)
    }

    /// The keys whose current values are damaged, by revision. Everything else must fit together.
    fn lost_keys(&self, txn: &ReadTransaction) -> Result<BTreeMap<Revision, String>, redb::Error> {
        let (head, log) = (txn.open_table(HEAD)?, txn.open_table(LOG)?);
        let mut lost = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for row in head.iter()? {
            let (key, revision) = row?;
            let (key, revision) = (key.value(), revision.value());
            keys.insert(key.to_owned());
            // By the tree's own way too: a damaged branch would hide the key.
            let found = head.get(key)?.map(|n| n.value()) == Some(revision);
            let current = self.newest.get(key) == Some(&(revision, What::Put));
            let row = log.get(revision)?;
            let bytes = row.as_ref().map(|row| row.value());
            let was_lost = bytes.and_then(|b| Record::decode(b, revision)).is_some_and(|r| r.what == What::Lost && r.key == key);
            if !found || bytes.is_none() || !(current || was_lost || self.damaged.contains(&revision)) {
                return Err(elsewhere("its keys do not fit its values"));
            }
            if bytes.is_some_and(|bytes| entry(key, revision, bytes).damaged) && self.damaged.contains(&revision) {
                lost.insert(revision, key.to_owned());
            }
        }
        let hidden = self.newest.iter().any(|(key, (_, what))| *what == What::Put && !keys.contains(key));
        if hidden { Err(elsewhere("a value has no key")) } else { Ok(lost) }
    }
}

fn elsewhere(what: &str) -> redb::Error {
    redb::Error::Corrupted(what.to_owned())
}

pub(super) fn unreadable(revision: Revision) -> redb::Error {
    redb::Error::Corrupted(format!("the record of revision {revision} is missing or unreadable"))
}
