//! This controller's own records: taken from the store at the start of a term, written in numbered transactions, and written again where somebody
//! deletes them.
//!
//! Leaves out: what records mean (`plan::record`), and how they are merged with those of a store that went backwards (`backwards`). Invariants: while the store counts as gone backwards, or an object in it does not read,
//! nothing is recorded and nothing is sent; a record that does not read takes the safe meaning (a body may run anything, a pause is of everything, an
//! identity is nobody's). Shown by `tests/store.rs` and `tests/simulate.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::approve::Approved;
use super::controller::{Controller, Remembered};
use super::logins::Login;
use super::operator::Scope;
use super::status_writer::SiteCondition;
use super::stops::Pause;
use super::upgrade;
use crate::boot::token::SiteKey;
use crate::boot::view::Lease;
use crate::limits;
use crate::model::body::Body;
use crate::model::fact::Tick;
use crate::model::identity::Identity;
use crate::model::image::Image;
use crate::model::op::Device;
use crate::model::{Kind, Name, Reason};
use crate::plan::observed::Trouble;
use crate::plan::record::Record;
use crate::store::{Change, Entry, Expect, Own, Records, Revision, StoreError, Write, keys, keys::Key};
use crate::telemetry::timestamp;

/// The condition of Policy/default that tells whether the store is as it was left.
const CONDITION: &str = "StoreIntact";

/// The controller's own records in the store, and whether that is still the store that it was.
pub(super) struct Ledger {
    pub(super) records: Arc<Records>,
    /// Of the controller that this process had before.
    pub(super) before: Remembered,
    /// The store was good when this term began, or a person has accepted it since.
    pub(super) was_intact: bool,
    /// When the store is to be looked at: it lost something of ours.
    pub(super) look_at: Option<Tick>,
    /// Records that somebody deleted, to be written again.
    lost: BTreeSet<Key>,
    /// Records that somebody else wrote: believed once the store is seen to be the one that it was.
    pub(super) told: Vec<Entry>,
    own: Own,
}

/// What is to be remembered of devices.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// What identifies them.
    pub(super) pins: BTreeMap<(Kind, Name), Identity>,
    /// Those where the credentials have worked.
    pub(super) logins: BTreeSet<Device>,
}

impl Ledger {
    pub(super) fn new(records: Arc<Records>, before: Remembered) -> Ledger {
        Ledger { records, before, was_intact: false, look_at: None, lost: BTreeSet::new(), told: Vec::new(), own: Own::default() }
    }
}

impl Controller {
    /// Writes records, all or none. A store that went backwards stops everything.
    pub(super) async fn write(&mut self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        let done = self.ledger.records.write_all(writes).await;
        match &done {
            Ok(revisions) => {
                let changed = writes.iter().zip(revisions).filter(|(write, _)| write.changes());
                self.ledger.own.wrote(changed.map(|(_, revision)| *revision));
            }
            Err(StoreError::Backwards { sentence }) => self.stop_for_store(sentence),
            Err(_) => {}
        }
        done
    }

    /// The same for one record; its new revision.
    pub(super) async fn write_one(&mut self, write: Write) -> Result<Revision, StoreError> {
        Ok(self.write(&[write]).await?.first().copied().unwrap_or(0))
    }

    /// Nothing leaves any more, and nothing is recorded, until a person takes the store as it is.
    pub(super) fn stop_for_store(&mut self, sentence: &str) {
        if self.cache.store_stop.is_some() {
            return;
        }
        tracing::error!("{sentence}");
        self.cache.store_stop = Some(Trouble { reason: Reason::StoreWentBackwards, message: sentence.to_owned() });
        for (_, gate) in self.fleet.gates() {
            gate.void_all_but_half_way();
        }
        self.tell_store();
        self.wake_all();
    }

    /// What the site's condition says of the store.
    pub(super) fn tell_store(&self) {
        let word = match self.cache.site_stop() {
            Some(trouble) => SiteCondition { ok: false, reason: trouble.reason.as_str(), message: trouble.message },
            None => SiteCondition { ok: true, reason: Reason::AsDesired.as_str(), message: String::new() },
        };
        self.status.site_is(CONDITION, word);
    }

    // ---- the start of a term ---------------------------------------------------------------------------------------------

    /// Compares the store with what was acknowledged before anything of it is believed.
    pub(super) async fn take_over(&mut self) -> Result<(), StoreError> {
        match self.ledger.records.take_over().await {
            Err(StoreError::Backwards { sentence }) => {
                self.stop_for_store(&sentence);
                Ok(())
            }
            other => {
                self.ledger.was_intact = other.is_ok();
                other
            }
        }
    }

    /// Records of the first version become this one's.
    pub(super) async fn upgrade(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let old: Vec<&Entry> = entries.iter().filter(|e| matches!(Key::parse(&e.key), Some(Key::Old(_)))).collect();
        if old.is_empty() || self.cache.store_stop.is_some() {
            return Ok(());
        }
        let pins: BTreeMap<Name, Identity> = old
            .iter()
            .filter_map(|e| match Key::parse(&e.key) {
                Some(Key::Old(key)) => match *key {
                    Key::Pin(Kind::Server, name) => Some((name, upgrade::pin(&e.value, Kind::Server)?)),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        let present: BTreeMap<&str, Revision> = entries.iter().map(|e| (e.key.as_str(), e.revision)).collect();
        let pairs: Vec<[Write; 2]> = old
            .iter()
            .filter_map(|entry| upgrade::writes(entry, &self.cache.objects, &pins))
            .map(|[mut put, delete]| {
                if let Some(revision) = present.get(put.key.as_str()) {
                    // The first version ran again after this one: nobody knows what it did meanwhile.
                    (put.expect, put.value) = (Expect::At(*revision), Some(b"written by two versions".to_vec()));
                }
                [put, delete]
            })
            .collect();
        tracing::info!(records = pairs.len(), "records of the first version are taken over");
        for batch in pairs.chunks(Records::WRITES_AT_ONCE / 2) {
            let writes: Vec<Write> = batch.iter().flatten().cloned().collect();
            let revisions = self.write(&writes).await?;
            for (write, revision) in writes.into_iter().zip(revisions) {
                if let Some(value) = write.value {
                    self.absorb_record(&Entry { key: write.key, value, revision, damaged: false });
                }
            }
        }
        Ok(())
    }

    /// Records are ours: they are taken from the store at the start, and later only where somebody else has changed them.
    /// Whether that is news.
    pub(super) fn absorb_record(&mut self, entry: &Entry) -> bool {
        let Some(key) = Key::parse(&entry.key) else { return false };
        let unreadable = |why: String| tracing::error!(key = entry.key, error = why, "a stored record does not read");
        match key {
            Key::Body(server) => {
                let known = self.cache.bodies.get(&server).map(|b| b.revision).max(self.cache.unreadable.get(&server).copied());
                if known.is_some_and(|revision| revision >= entry.revision) {
                    return false;
                }
                match read::<Body>(entry) {
                    Ok(body) => self.cache.set_body(&server, body, entry.revision),
                    Err(why) => self.cache.does_not_read(&server, entry.revision, &why),
                }
            }
            Key::Pin(kind, name) => {
                if self.cache.pins.get(&(kind, name.clone())).is_some_and(|p| p.revision >= entry.revision) {
                    return false;
                }
                let value = read::<Identity>(entry).unwrap_or_else(|why| {
                    unreadable(why);
                    Identity::nobodys()
                });
                self.cache.set_pin(kind, &name, value, entry.revision);
            }
            Key::Pause(id) => {
                let pause = read::<Pause>(entry).unwrap_or_else(|why| {
                    unreadable(why);
                    let reason = format!("the pause `{id}` that is stored does not read: it may be one of everything");
                    Pause { scope: Scope::Everything, reason, by: "embody".to_owned(), since: timestamp(), until: None }
                });
                // One whose end came while no controller ran stays until it is resumed: the clock may be wrong, and whoever paused has not looked.
                let left = pause.until.as_deref().map(super::actions::seconds_until).filter(|left| *left > 0);
                let until = left.map(|s| self.clock.now().plus(std::time::Duration::from_secs(s)));
                self.cache.pauses.insert(id, (pause, until));
            }
            // One that does not read costs a turn.
            Key::Login(kind, name) => match read::<Login>(entry) {
                Ok(value) => {
                    self.fleet.logins.stored(kind, name, value, entry.revision);
                    // Of what anybody does it says nothing.
                    return false;
                }
                Err(why) => unreadable(why),
            },
            // One that does not read says it all the same.
            Key::Doubt if entry.revision > self.cache.doubt_ended => self.cache.doubt = Some(entry.revision),
            Key::Doubt => return false,
            // One that does not read approves nothing.
            Key::Approval(binding) => match read::<Approved>(entry) {
                Ok(approved) => drop(self.cache.approvals.insert(binding, approved.restored(self.clock.now()))),
                Err(why) => unreadable(why),
            },
            // One that does not read signs nothing: nothing starts before it is rotated.
            Key::Signing => match read::<SiteKey>(entry) {
                Ok(key) => self.booting.has_key(key),
                Err(why) => unreadable(why),
            },
            Key::Lease(_) | Key::Image(_) => {
                self.absorb_thing(key, entry);
                return false;
            }
            Key::Object(..) | Key::Old(_) => return false,
        }
        true
    }

    /// What says nothing of any body: whoever needs it is woken by it.
    fn absorb_thing(&mut self, key: Key, entry: &Entry) {
        let unreadable = |why: String| tracing::error!(key = entry.key, error = why, "a stored record does not read");
        match key {
            Key::Lease(address) if self.cache.lease_revisions.get(&address).is_none_or(|known| *known < entry.revision) => {
                self.cache.lease_revisions.insert(address, entry.revision);
                match read::<Lease>(entry) {
                    Ok(lease) => self.booting.lease(address, Some(lease)),
                    // Nobody else gets it.
                    Err(why) => unreadable(why),
                }
            }
            Key::Image(name) if self.cache.image_revisions.get(&name).is_none_or(|known| *known < entry.revision) => {
                match read::<Image>(entry) {
                    Ok(image) => self.image_stored(&name, image, entry.revision),
                    // What names it waits.
                    Err(why) => unreadable(why),
                }
            }
            _ => {}
        }
    }

    // ---- under way -------------------------------------------------------------------------------------------------------

    /// Stores what was learned of devices, before anything is planned that rests on it: many in one transaction. Where that fails, the next poll says it
    /// again, or a restart costs a turn.
    pub(super) async fn store_owed(&mut self) {
        if self.owed.pins.is_empty() && self.owed.logins.is_empty() {
            return;
        }
        let Owed { pins, logins } = std::mem::take(&mut self.owed);
        if self.cache.site_stop().is_some() {
            return;
        }
        let (pins, logins): (Vec<_>, Vec<_>) =
            (pins.into_iter().collect(), logins.iter().filter_map(|device| self.login_to_remember(device)).collect());
        for some in pins.chunks(Records::WRITES_AT_ONCE) {
            let write = |((kind, name), pin): &((Kind, Name), Identity)| {
                let expect = self.cache.pins.get(&(*kind, name.clone())).map_or(Expect::Absent, |p| Expect::At(p.revision));
                Write::put(keys::pin(*kind, name), serde_json::to_vec(pin).unwrap_or_default(), expect)
            };
            let writes: Vec<Write> = some.iter().map(write).collect();
            match self.write(&writes).await {
                Ok(revisions) => {
                    for (((kind, name), pin), revision) in some.iter().zip(revisions) {
                        self.cache.set_pin(*kind, name, pin.clone(), revision);
                    }
                }
                Err(error) => tracing::warn!(error = %error, "what identifies devices could not be stored; it is tried again"),
            }
        }
        for some in logins.chunks(Records::WRITES_AT_ONCE) {
            let writes: Vec<Write> = some.iter().map(|(kind, name, value)| self.fleet.logins.write(*kind, name, value)).collect();
            match self.write(&writes).await {
                Ok(revisions) => {
                    for ((kind, name, value), revision) in some.iter().zip(revisions) {
                        self.fleet.logins.stored(*kind, name.clone(), value.clone(), revision);
                    }
                }
                Err(error) => tracing::warn!(error = %error, "that credentials worked could not be stored"),
            }
        }
    }

    /// Everything that is in the store now, where what happened in between was not told.
    pub(super) fn absorb_all(&mut self, entries: Vec<Entry>, revision: Revision) {
        let present: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        entries.into_iter().for_each(|entry| self.absorb_told(Change::Put(entry)));
        let objects = self.cache.objects.all().map(|(kind, name)| keys::object(kind, name));
        let bodies = self.cache.bodies.iter().filter(|(_, body)| body.revision != 0).map(|(server, _)| keys::body(server));
        let pins = self.cache.pins.keys().map(|(kind, name)| keys::pin(*kind, name));
        let pauses = self.cache.pauses.keys().map(keys::pause);
        let unreadable = self.cache.unreadable.keys().map(keys::body).chain(self.cache.unreadable_objects.iter().cloned());
        let known = objects.chain(bodies).chain(pins).chain(pauses).chain(unreadable);
        let gone: Vec<String> = known.filter(|key| !present.contains(key)).collect();
        for key in gone {
            self.absorb_told(Change::Deleted { key, revision });
        }
        self.ledger.look_at = Some(self.clock.now());
    }

    /// Whether this change of the store was made here.
    pub(super) fn is_own(&mut self, revision: Revision) -> bool {
        self.ledger.own.is(revision) || self.status.wrote(revision)
    }

    /// A record, or what the store says of itself, was deleted by somebody else.
    pub(super) fn record_deleted(&mut self, key: &str, revision: Revision) {
        if key.starts_with(keys::META) {
            self.ledger.look_at = Some(self.clock.now());
            return;
        }
        let ours = match Key::parse(key) {
            // What did not read may be anything whether it is there or not: the next process must know that as well.
            Some(Key::Body(server)) if self.cache.unreadable.contains_key(&server) => {
                self.cache.unreadable.insert(server, 0);
                true
            }
            Some(Key::Body(server)) => self.cache.bodies.get(&server).is_some_and(|b| b.revision < revision),
            Some(Key::Pin(kind, name)) => self.cache.pins.get(&(kind, name)).is_some_and(|p| p.revision < revision),
            Some(Key::Pause(id)) => self.cache.pauses.contains_key(&id),
            Some(Key::Doubt) => self.cache.doubt.is_some_and(|r| r < revision),
            Some(Key::Lease(address)) => self.cache.lease_revisions.get(&address).is_some_and(|known| *known < revision),
            Some(Key::Image(name)) => self.cache.image_revisions.get(&name).is_some_and(|known| *known < revision),
            Some(Key::Signing) => self.booting.view().key.is_some(),
            Some(Key::Approval(_) | Key::Login(..) | Key::Object(..) | Key::Old(_)) | None => false,
        };
        if ours {
            self.ledger.look_at = Some(self.clock.now());
            self.ledger.lost.extend(Key::parse(key));
        }
    }

    /// A record that could not be written is tried again.
    pub(super) fn write_again(&mut self, key: Key) {
        self.ledger.lost.insert(key);
        self.ledger.look_at = Some(self.clock.now().plus(limits::RETRY_FIRST));
    }

    /// Looks at the store where it lost something of ours, or holds what somebody else wrote, and writes that again where it is the same store
    /// all the same.
    pub(super) async fn look_at_store(&mut self) {
        if self.ledger.look_at.is_none_or(|at| at > self.clock.now()) {
            return;
        }
        self.ledger.look_at = None;
        let is_good = match self.ledger.records.follow().await {
            Ok(()) => true,
            Err(StoreError::Backwards { sentence }) => {
                self.stop_for_store(&sentence);
                false
            }
            Err(error) => {
                tracing::warn!(error = %error, "the store could not be looked at; it is tried again");
                self.ledger.look_at = Some(self.clock.now().plus(limits::RETRY_FIRST));
                return;
            }
        };
        let mut is_news = false;
        for entry in std::mem::take(&mut self.ledger.told) {
            is_news |= if is_good { self.absorb_record(&entry) } else { self.absorb_beside(&entry) };
        }
        if is_news {
            self.wake_all();
        }
        if is_good {
            self.write_lost_again().await;
        }
    }

    async fn write_lost_again(&mut self) {
        while let Some(key) = self.ledger.lost.pop_first() {
            let Some(value) = self.value_of(&key) else { continue };
            tracing::warn!(key = %key, "a record of this controller is not in the store: it is written again");
            match self.write_one(Write::put(key.to_string(), value, Expect::Absent)).await {
                Ok(revision) => self.was_stored(&key, revision),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(key = %key, error = %error, "it could not be written again; it is tried once more");
                    self.ledger.lost.insert(key);
                    self.ledger.look_at = Some(self.clock.now().plus(limits::RETRY_FIRST));
                    return;
                }
            }
        }
    }

    /// What this process knows under a key of a record.
    fn value_of(&self, key: &Key) -> Option<Vec<u8>> {
        match key {
            Key::Body(server) if self.cache.unreadable.contains_key(server) => serde_json::to_vec(&of_unknown()).ok(),
            Key::Body(server) => serde_json::to_vec(&self.cache.bodies.get(server)?.value).ok(),
            Key::Pin(kind, name) => serde_json::to_vec(&self.cache.pins.get(&(*kind, name.clone()))?.value).ok(),
            Key::Pause(id) => serde_json::to_vec(&self.cache.pauses.get(id)?.0).ok(),
            Key::Doubt => self.cache.doubt.map(|_| doubt()),
            Key::Lease(address) => serde_json::to_vec(self.booting.view().leases.get(address)?.as_ref()).ok(),
            Key::Image(name) => serde_json::to_vec(&self.cache.objects.images.get(name)?.image).ok(),
            Key::Signing => serde_json::to_vec(self.booting.view().key.as_deref()?).ok(),
            Key::Approval(_) | Key::Login(..) | Key::Object(..) | Key::Old(_) => None,
        }
    }

    fn was_stored(&mut self, key: &Key, revision: Revision) {
        match key {
            Key::Body(server) if self.cache.unreadable.contains_key(server) => self.cache.set_body(server, of_unknown(), revision),
            Key::Body(server) => self.cache.bodies.entry(server.clone()).or_default().revision = revision,
            Key::Pin(kind, name) => self.cache.pins.entry((*kind, name.clone())).or_default().revision = revision,
            Key::Doubt => self.cache.doubt = Some(revision),
            Key::Lease(address) => drop(self.cache.lease_revisions.insert(*address, revision)),
            Key::Image(name) => drop(self.cache.image_revisions.insert(name.clone(), revision)),
            Key::Pause(_) | Key::Approval(_) | Key::Login(..) | Key::Signing | Key::Object(..) | Key::Old(_) => {}
        }
    }

    /// Stores other records of bodies in place of those that there are: all, or none.
    pub(super) async fn replace_bodies(&mut self, bodies: Vec<(Name, Body)>) -> bool {
        let write = |(server, body): &(Name, Body)| {
            Write::put(keys::body(server), serde_json::to_vec(body).unwrap_or_default(), self.expected(server))
        };
        let writes: Vec<Write> = bodies.iter().map(write).collect();
        match self.write(&writes).await {
            Ok(revisions) => {
                for ((server, body), revision) in bodies.into_iter().zip(revisions) {
                    self.cache.memory_of(&server).may_be_on();
                    self.cache.set_body(&server, body, revision);
                }
                true
            }
            Err(error) => {
                tracing::warn!(error = %error, "what is known of bodies could not be stored");
                let servers: Vec<Name> = bodies.into_iter().map(|(server, _)| server).collect();
                self.reload(&servers, &StoreError::Unknown { source: "one of several writes".into() }).await;
                false
            }
        }
    }

    /// What the store is expected to have of a body.
    pub(super) fn expected(&self, server: &Name) -> Expect {
        let known = self.cache.unreadable.get(server).copied().or(self.cache.bodies.get(server).map(|b| b.revision));
        match known {
            None | Some(0) => Expect::Absent,
            Some(revision) => Expect::At(revision),
        }
    }

    /// A body with what the facts prove of it, and of which device that is.
    pub(super) fn applied(&self, server: &Name, records: &[Record]) -> Body {
        let mut body = self.cache.body(server);
        records.iter().for_each(|r| r.apply(&mut body));
        match body.is_of_a_device() {
            true if body.made_on.is_empty() => body.made_on = self.cache.pinned(Kind::Server, server),
            true => {}
            false => body.made_on = Identity::default(),
        }
        body
    }
}

/// Since when, for people.
pub(super) fn doubt() -> Vec<u8> {
    serde_json::json!({ "since": timestamp() }).to_string().into_bytes()
}

/// A stored record, read as what its key says, and as it is stored then. An error where it does not read; an object is read elsewhere.
pub(crate) fn rewritten(key: &Key, entry: &Entry) -> Result<Vec<u8>, String> {
    fn again<T: serde::de::DeserializeOwned + serde::Serialize>(entry: &Entry) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&read::<T>(entry)?).map_err(|e| e.to_string())
    }
    match key {
        Key::Body(_) => again::<Body>(entry),
        Key::Pin(..) => again::<Identity>(entry),
        Key::Pause(_) => again::<Pause>(entry),
        Key::Login(..) => again::<Login>(entry),
        Key::Approval(_) => again::<Approved>(entry),
        Key::Lease(_) => again::<Lease>(entry),
        Key::Image(_) => again::<Image>(entry),
        Key::Signing => again::<SiteKey>(entry),
        Key::Doubt => again::<serde_json::Map<String, serde_json::Value>>(entry),
        Key::Object(..) | Key::Old(_) => Err("it is no record".to_owned()),
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T, String> {
    if entry.damaged {
        return Err("it is damaged".to_owned());
    }
    // serde takes a list for a struct as well, and fills what is missing.
    if !entry.value.trim_ascii_start().starts_with(b"{") {
        return Err("it is no JSON object".to_owned());
    }
    serde_json::from_slice(&entry.value).map_err(|e| e.to_string())
}

/// In place of a record that did not read, and is gone.
fn of_unknown() -> Body {
    Body { anything: true, ..Body::default() }
}
