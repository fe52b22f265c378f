//! The store's entries become the world: objects, and the records that an earlier process left. Leaves out: what devices show (`absorb`).
//!
//! Invariant: what this process wrote itself is never replaced by an older word of the watch.

use super::actions::Approved;
use super::cache::{Pause, Stored};
use super::controller::Controller;
use crate::model::objects::server_switches;
use crate::model::op::Device;
use crate::model::{Kind, Name, Object};
use crate::store::{Change, Entry, keys::Key};

impl Controller {
    pub(super) fn absorb_change(&mut self, change: Change) {
        match change {
            Change::Put(entry) => {
                if let Some(touched) = self.absorb_entry(&entry) {
                    self.desired_changed();
                    self.touched(touched.0, &touched.1);
                }
            }
            Change::Deleted { key, .. } => {
                if let Some(Key::Object(kind, name)) = Key::parse(&key) {
                    // Who was bound is woken before the index forgets it.
                    self.touched(kind, &name);
                    self.cache.objects.remove(kind, &name);
                    self.cache.stored.remove(&(kind, name.clone()));
                    match kind {
                        Kind::Binding => self.guardrails.is_up(&name),
                        Kind::Server => self.guardrails.forget(&name),
                        Kind::Policy | Kind::Secret | Kind::Network | Kind::Switch | Kind::Persona => {}
                    }
                    self.touched(kind, &name);
                }
            }
        }
    }

    /// The object whose desired state differ now, if it is one.
    pub(super) fn absorb_entry(&mut self, entry: &Entry) -> Option<(Kind, Name)> {
        if let Some(Key::Object(kind, name)) = Key::parse(&entry.key) {
            let object = match serde_json::from_slice(&entry.value)
                .map_err(|e| e.to_string())
                .and_then(|v| Object::from_json(v).map_err(|e| e.to_string()))
            {
                Ok(object) => object,
                Err(error) => {
                    tracing::error!(key = entry.key, error, "a stored object does not read; it is left alone");
                    return None;
                }
            };
            // A status that this process wrote may be newer than this word of the watch; the desired state in it come from the watch alone.
            let newest = self.cache.stored.get(&(kind, name.clone())).is_none_or(|s| s.revision < entry.revision);
            if newest {
                let stored = Stored { value: object.status.clone(), revision: entry.revision };
                self.cache.stored.insert((kind, name.clone()), stored);
            }
            let same = self.same_spec(&object);
            self.cache.objects.insert(&object);
            return (!same).then_some((kind, name));
        }
        self.absorb_record(entry);
        None
    }

    fn same_spec(&self, object: &Object) -> bool {
        let o = &self.cache.objects;
        let name = object.name();
        let held = match object.kind() {
            Kind::Policy => o.policies.get(name).map(|h| &h.meta),
            Kind::Secret => o.secrets.get(name).map(|h| &h.meta),
            Kind::Network => o.networks.get(name).map(|h| &h.meta),
            Kind::Switch => o.switches.get(name).map(|h| &h.meta),
            Kind::Server => o.servers.get(name).map(|h| &h.meta),
            Kind::Persona => o.personas.get(name).map(|h| &h.meta),
            Kind::Binding => o.bindings.get(name).map(|h| &h.meta),
        };
        held.is_some_and(|m| m.uid == object.meta.uid && m.generation == object.meta.generation && m.labels == object.meta.labels)
    }

    /// Records about bodies and pins are ours: they are taken from the store at the start only, since nobody else writes them while we act.
    fn absorb_record(&mut self, entry: &Entry) {
        let unreadable = |error: serde_json::Error| tracing::error!(key = entry.key, error = %error, "a stored record does not read");
        match Key::parse(&entry.key) {
            Some(Key::Body(server)) => {
                if self.cache.bodies.get(&server).is_some_and(|b| b.revision >= entry.revision) {
                    return;
                }
                match serde_json::from_slice(&entry.value) {
                    Ok(body) => self.cache.set_body(&server, body, entry.revision),
                    Err(error) => unreadable(error),
                }
            }
            Some(Key::Pin(kind, name)) => match serde_json::from_slice(&entry.value) {
                Ok(value) => drop(self.cache.pins.insert((kind, name), Stored { value, revision: entry.revision })),
                Err(error) => unreadable(error),
            },
            Some(Key::Pause(id)) => match serde_json::from_slice::<Pause>(&entry.value) {
                Ok(pause) => {
                    let left = pause.until.as_deref().map(super::actions::seconds_until);
                    let until = left.map(|s| self.clock.now().plus(std::time::Duration::from_secs(s)));
                    self.cache.pauses.insert(id, (pause, until));
                }
                Err(error) => unreadable(error),
            },
            Some(Key::Approval(binding)) => match serde_json::from_slice::<Approved>(&entry.value) {
                Ok(approved) => drop(self.cache.approvals.insert(binding, approved.restored(self.clock.now()))),
                Err(error) => unreadable(error),
            },
            Some(Key::Object(..) | Key::Old(_)) | None => {}
        }
    }

    /// An object's desired state changed: its worker, and the servers that it concerns.
    fn touched(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Server => {
                self.worker_of(&Device::Bmc(name.clone()));
                self.wake(name);
                self.dirty_objects.insert((kind, name.clone()));
                // A port that moved from one server to another concerns both.
                let switches: Vec<Name> =
                    self.cache.objects.servers.get(name).map(|s| server_switches(&s.spec).into_iter().collect()).unwrap_or_default();
                for switch in switches {
                    self.wake_switch(&switch);
                }
            }
            Kind::Switch => {
                self.worker_of(&Device::Switch(name.clone()));
                self.wake_switch(name);
                self.dirty_objects.insert((kind, name.clone()));
            }
            Kind::Binding => self.wake_binding(name),
            Kind::Secret => {
                self.credential_turns.retain(|(secret, _), _| secret != name);
                self.all_workers();
            }
            Kind::Persona => {
                let bindings: Vec<Name> = self.cache.objects.bindings_of_persona(name).cloned().collect();
                for binding in bindings {
                    self.wake_binding(&binding);
                }
            }
            Kind::Network => self.wake_all(),
            Kind::Policy => {
                self.all_workers();
                self.wake_all();
                self.dirty_objects.insert((kind, name.clone()));
            }
        }
    }

    pub(super) fn wake_switch(&mut self, switch: &Name) {
        let servers: Vec<Name> = self.cache.objects.servers_on_switch(switch).cloned().collect();
        for server in servers {
            self.wake(&server);
        }
    }
}
