//! A store that went backwards: what somebody wrote is believed once the store is seen to be the one that it was; else it adds to what is known,
//! until a person takes the store as it is, and what this process knew is merged back.
//!
//! Leaves out: noticing that (`store::Records`), and records as such (`records`). Invariant: of what was known nothing is lost by what a store tells that
//! went backwards. Shown by `tests/records.rs`, `tests/simulate.rs` and the test below.

use std::collections::{BTreeMap, BTreeSet};

use super::controller::{Controller, Remembered};
use super::records::{doubt, read};
use crate::model::Name;
use crate::model::body::Body;
use crate::model::fact::Power;
use crate::store::{Entry, Expect, Records, StoreError, Write, keys, keys::Key};

impl Controller {
    /// Somebody else wrote a record. One that may take something from what is known is believed once the store is seen to be the one that it was: whether
    /// this is such a one. (Its revision says whether it is news then.)
    pub(super) fn was_told(&mut self, entry: &Entry) -> bool {
        let waits = matches!(Key::parse(&entry.key), Some(Key::Body(_) | Key::Pin(..) | Key::Signing));
        if waits {
            self.ledger.told.push(entry.clone());
            self.ledger.look_at = Some(self.clock.now());
        }
        waits
    }

    /// The same of a store that counts as gone backwards: it adds to what was known, and takes nothing from it.
    pub(super) fn absorb_beside(&mut self, entry: &Entry) -> bool {
        match Key::parse(&entry.key) {
            Some(Key::Body(server)) => match (self.cache.bodies.get(&server), read::<Body>(entry)) {
                (Some(known), Ok(stored)) if known.revision < entry.revision => {
                    let body = merged(Some(&known.value), Some(stored));
                    self.cache.set_body(&server, body, entry.revision);
                    true
                }
                _ => self.absorb_record(entry),
            },
            Some(Key::Pin(kind, name)) if self.cache.pins.contains_key(&(kind, name.clone())) => {
                let pin = self.cache.pins.entry((kind, name)).or_default();
                pin.revision = pin.revision.max(entry.revision);
                false
            }
            Some(Key::Signing) if self.booting.view().key.is_some() => false,
            _ => self.absorb_record(entry),
        }
    }

    /// What a controller of this process knows when it ends. While the store counts as gone backwards, what was known before it did.
    pub(super) fn remembers(&self) -> Remembered {
        let mut known = match self.cache.store_stop {
            Some(_) => self.ledger.before.clone(),
            None => Remembered { all: true, ..Remembered::default() },
        };
        known.all |= self.ledger.was_intact;
        for (id, (pause, _)) in &self.cache.pauses {
            known.pauses.entry(id.clone()).or_insert_with(|| pause.clone());
        }
        if !self.ledger.was_intact {
            // All else was read from the store that went backwards.
            return known;
        }
        for (server, body) in &self.cache.bodies {
            known.bodies.entry(server.clone()).or_insert_with(|| body.value.clone());
        }
        for server in self.cache.unreadable.keys() {
            // A store that lost the record as well does not make it nothing.
            known.bodies.entry(server.clone()).or_default().anything = true;
        }
        for (address, lease) in &self.booting.view().leases {
            known.leases.entry(*address).or_insert_with(|| lease.as_ref().clone());
        }
        for (name, image) in &self.cache.objects.images {
            known.images.entry(name.clone()).or_insert_with(|| image.image.clone());
        }
        known.key = known.key.or_else(|| self.booting.view().key.as_deref().cloned());
        for (device, pin) in &self.cache.pins {
            known.pins.entry(device.clone()).or_insert_with(|| pin.value.clone());
        }
        known
    }

    /// The store is taken as it is. What this process knew before is merged back; what is on without evidence, or was not seen, may run
    /// anything.
    pub(super) async fn accept_records(&mut self) -> Result<(), StoreError> {
        // What somebody else wrote meanwhile is merged first.
        self.ledger.look_at = Some(self.clock.now());
        self.look_at_store().await;
        let remembered = self.remembers();
        let (entries, _) = self.store.list(keys::CURRENT).await?;
        let mut stored: BTreeMap<Key, &Entry> = entries.iter().filter_map(|e| Some((Key::parse(&e.key)?, e))).collect();
        let (mut writes, mut same) = (Vec::new(), Vec::new());
        let mut put = |key: Key, value: Vec<u8>| match stored.remove(&key) {
            Some(there) if !there.damaged && there.value == value => same.push(there.clone()),
            there => {
                let expect = there.map_or(Expect::Absent, |e| Expect::At(e.revision));
                writes.push(Write::put(key.to_string(), value, expect));
            }
        };
        for (server, body) in self.bodies_of_both(&remembered, &entries) {
            put(Key::Body(server), serde_json::to_vec(&body).unwrap_or_default());
        }
        remembered.but_bodies().into_iter().for_each(|(key, value)| put(key, value));
        if !remembered.all {
            // Servers that are not in the store, but may be in manifests that are applied later, may run anything as well.
            put(Key::Doubt, doubt());
        }
        // What was approved was shown of another state of things.
        self.cache.approvals.clear();
        let approvals = entries.iter().filter(|e| matches!(Key::parse(&e.key), Some(Key::Approval(_))));
        writes.extend(approvals.map(|e| Write::delete(&e.key, e.revision)));
        for batch in writes.chunks(Records::WRITES_AT_ONCE) {
            // Before the store counts as good: if this ends here, a person is asked again.
            let revisions = self.store.write_all(batch).await?;
            for (write, revision) in batch.iter().zip(revisions) {
                let Some(value) = write.value.clone() else { continue };
                self.absorb_anew(&Entry { key: write.key.clone(), value, revision, damaged: false });
            }
        }
        same.iter().for_each(|entry| self.absorb_anew(entry));
        self.cache.memory.values_mut().for_each(crate::plan::observed::Memory::may_be_on);
        self.ledger.records.accept().await?;
        // Pins and the like that this term read: one that is stored by now is left.
        self.ledger.look_at = Some(self.clock.now());
        self.ledger.was_intact = true;
        self.cache.doubt_all();
        // What was merged back counts as if this controller had read it when it began.
        self.count_taken_down();
        self.hold_what_was_held();
        self.cache.store_stop = None;
        self.tell_store();
        self.site_key().await
    }

    /// What this process knew of bodies, with what the store has of them.
    fn bodies_of_both(&self, remembered: &Remembered, entries: &[Entry]) -> Vec<(Name, Body)> {
        let there: BTreeMap<&str, &Entry> = entries.iter().map(|entry| (entry.key.as_str(), entry)).collect();
        let of_store = |server: &Name| there.get(keys::body(server).as_str()).and_then(|entry| read::<Body>(entry).ok());
        // What this term read, and the store has lost since, is no less true than what it still has.
        let of_term = |server: &Name| {
            let is_lost = !there.contains_key(keys::body(server).as_str());
            let known = self.cache.bodies.get(server).filter(|b| b.revision != 0 && is_lost && !self.cache.unreadable.contains_key(server));
            known.map(|known| known.value.clone())
        };
        let read_here = self.cache.bodies.iter().filter(|(_, b)| b.revision != 0).map(|(server, _)| server);
        let known = self.cache.objects.servers.keys().chain(remembered.bodies.keys()).chain(read_here).chain(self.cache.unreadable.keys());
        let stored = entries.iter().filter_map(|e| if let Some(Key::Body(server)) = Key::parse(&e.key) { Some(server) } else { None });
        let servers: BTreeSet<Name> = known.cloned().chain(stored).collect();
        let of_both = |server: Name| {
            let known = remembered.bodies.get(&server);
            let mut body = merged(known, of_store(&server).or_else(|| of_term(&server)));
            if known.is_none() {
                // Whatever was sent for it was sent to what ran then.
                body.off = None;
            }
            let unknown = !remembered.all && body.evidence.is_empty() && !self.is(&server, Power::Off);
            let confirm_start = body.confirm_start || !remembered.all;
            let body = Body { anything: body.anything || unknown, confirm_start, ..body };
            (server, body)
        };
        servers.into_iter().map(of_both).collect()
    }

    /// Whatever its revision is: a store that was made anew may count from below what was read before.
    fn absorb_anew(&mut self, entry: &Entry) {
        self.reads_anew(&entry.key);
        self.absorb_record(entry);
    }

    fn reads_anew(&mut self, key: &str) {
        match Key::parse(key) {
            Some(Key::Body(server)) => {
                self.cache.bodies.get_mut(&server).into_iter().for_each(|body| body.revision = 0);
                self.cache.unreadable.get_mut(&server).into_iter().for_each(|revision| *revision = 0);
            }
            Some(Key::Pin(kind, name)) => self.cache.pins.get_mut(&(kind, name)).into_iter().for_each(|pin| pin.revision = 0),
            Some(Key::Doubt) => self.cache.doubt_ended = 0,
            Some(Key::Lease(address)) => drop(self.cache.lease_revisions.remove(&address)),
            Some(Key::Image(name)) => drop(self.cache.image_revisions.remove(&name)),
            Some(Key::Pause(_) | Key::Approval(_) | Key::Login(..) | Key::Signing | Key::Object(..) | Key::Old(_)) | None => {}
        }
    }

    /// Once everything that was in doubt is known, a server that is new is only that.
    pub(super) async fn end_doubt(&mut self) {
        let Some(revision) = self.cache.doubt.filter(|_| self.cache.is_all_known() && self.cache.site_stop().is_none()) else { return };
        match self.write_one(Write::delete(keys::DOUBT, revision)).await {
            Ok(ended) => (self.cache.doubt, self.cache.doubt_ended) = (None, ended),
            Err(error) => tracing::warn!(error = %error, "that nothing is in doubt any more could not be stored"),
        }
    }

    fn is(&self, server: &Name, power: Power) -> bool {
        self.cache.bmcs.get(server).is_some_and(|f| f.known.trouble.is_none() && f.power.as_ref().is_some_and(|p| p.value == power))
    }
}

impl Remembered {
    /// All of it but bodies, as it is stored. What the key has signed is out there.
    fn but_bodies(&self) -> Vec<(Key, Vec<u8>)> {
        fn json(value: &impl serde::Serialize) -> Vec<u8> {
            serde_json::to_vec(value).unwrap_or_default()
        }
        let pauses = self.pauses.iter().map(|(id, pause)| (Key::Pause(id.clone()), json(pause)));
        let pins = self.pins.iter().map(|((kind, name), pin)| (Key::Pin(*kind, name.clone()), json(pin)));
        let leases = self.leases.iter().map(|(address, lease)| (Key::Lease(*address), json(lease)));
        let images = self.images.iter().map(|(name, image)| (Key::Image(name.clone()), json(image)));
        let key = self.key.iter().map(|key| (Key::Signing, json(key)));
        pauses.chain(pins).chain(leases).chain(images).chain(key).collect()
    }
}

/// What was known last, and what only the store has: evidence and debts of both.
fn merged(known: Option<&Body>, stored: Option<Body>) -> Body {
    let Some(known) = known else { return stored.unwrap_or(Body { anything: true, ..Body::default() }) };
    let mut body = known.clone();
    let Some(stored) = stored else { return body };
    for (persona, evidence) in stored.evidence {
        // Only one boot answer stands: the one that was known last.
        let stands = evidence.stands() && body.standing().is_none();
        let evidence = crate::model::body::Evidence { withdrawn: !stands, ..evidence };
        body.evidence.entry(persona).or_insert(evidence);
    }
    for (port, debt) in stored.ports {
        body.ports.entry(port).or_insert(debt);
    }
    body.on_disk.extend(stored.on_disk);
    body.anything |= stored.anything;
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::body::{Evidence, Phase, Snapshot};

    fn body(personas: &[(&str, bool)]) -> Body {
        let evidence = |(persona, withdrawn): &(&str, bool)| {
            let persona: Name = persona.parse().unwrap();
            let snapshot: Snapshot = serde_json::from_value(serde_json::json!({
                "persona": persona, "hostname": "h", "arch": "x86_64", "boot": "Pxe", "root": {}, "claims": [], "macs": [], "digest": ""
            }))
            .unwrap();
            (persona, Evidence { phase: Phase::Started, withdrawn: *withdrawn, snapshot, run: None })
        };
        Body { evidence: personas.iter().map(evidence).collect(), ..Body::default() }
    }

    #[test]
    fn what_either_knows_is_evidence_and_one_answer_stands() {
        let both = merged(Some(&body(&[("a", false)])), Some(body(&[("a", true), ("b", false)])));
        let stands: Vec<bool> = both.evidence.values().map(Evidence::stands).collect();
        assert_eq!((both.evidence.len(), stands), (2, vec![true, false]));
        assert!(merged(None, None).anything);
        assert_eq!(merged(None, Some(body(&[("a", false)]))), body(&[("a", false)]));
    }
}
