//! The store's entries become the world: objects, and the records that an earlier process left. Leaves out: what devices show (`absorb`).
//!
//! Invariant: what this process wrote itself is never replaced by an older word of the watch.

use std::collections::BTreeSet;

use super::controller::Controller;
use crate::model::objects::server_switches;
use crate::model::op::Device;
use crate::model::references;
use crate::model::{Kind, Name, Object};
use crate::store::{Change, Entry, keys::Key};

impl Controller {
    pub(super) fn absorb_change(&mut self, change: Change) {
        let (Change::Put(Entry { revision, .. }) | Change::Deleted { revision, .. }) = &change;
        if !self.is_own(*revision) {
            self.absorb_told(change);
        }
    }

    pub(super) fn absorb_told(&mut self, change: Change) {
        match change {
            Change::Put(entry) => {
                if let Some(touched) = self.absorb_entry(&entry) {
                    self.desired_changed();
                    self.touched(touched.0, &touched.1);
                }
            }
            Change::Deleted { key, revision } => {
                self.record_deleted(&key, revision);
                if let Some(Key::Object(kind, name)) = Key::parse(&key) {
                    self.reads_again(&key);
                    // Who was bound is woken before the index forgets it.
                    self.touched(kind, &name);
                    self.cache.objects.remove(kind, &name);
                    self.boot_object_changed(kind, &name);
                    self.reserve(kind, &name);
                    self.status.found(kind, &name, false);
                    match kind {
                        Kind::Binding => {
                            self.guardrails.is_up(&name);
                            self.cache.rollouts.forget(&name);
                        }
                        Kind::Server => {
                            self.guardrails.forget(&name);
                            self.awaited.remove(&name);
                        }
                        Kind::Policy | Kind::Secret | Kind::Network | Kind::Switch | Kind::Persona => {}
                    }
                    self.touched(kind, &name);
                }
            }
        }
    }

    /// The object whose desired state differs now, if it is one.
    pub(super) fn absorb_entry(&mut self, entry: &Entry) -> Option<(Kind, Name)> {
        if let Some(Key::Object(kind, name)) = Key::parse(&entry.key) {
            let object = match serde_json::from_slice(&entry.value)
                .map_err(|e| e.to_string())
                .and_then(|v| Object::from_json(v).map_err(|e| e.to_string()))
            {
                Ok(object) => object,
                Err(error) => {
                    tracing::error!(key = entry.key, error, "a stored object does not read; it is left alone");
                    self.cache.unreadable_objects.insert(entry.key.clone());
                    return None;
                }
            };
            self.reads_again(&entry.key);
            self.status.found(kind, &name, !object.status.is_null());
            let same = self.same_spec(&object);
            let is_back = kind == Kind::Server && self.is_loaded && !self.cache.objects.servers.contains_key(&name);
            self.cache.objects.insert(&object);
            self.boot_object_changed(kind, &name);
            if kind == Kind::Server {
                self.cache.doubt(&name);
            }
            if is_back {
                self.hold_as_stored(&name);
                self.cache.stopped_by_guardrails = self.guardrails.held();
            }
            match same {
                false => self.reserve(kind, &name),
                true if self.is_loaded => self.is_said_again(kind, &name),
                true => {}
            }
            return (!same).then_some((kind, name));
        }
        if self.is_loaded && self.was_told(entry) {
            return None;
        }
        // At the start everything is woken once all is there; later somebody else wrote it.
        if self.absorb_record(entry) && self.is_loaded {
            self.wake_all();
        }
        None
    }

    /// Somebody else wrote it, and its status with it, which may be an old one.
    fn is_said_again(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Switch | Kind::Persona | Kind::Policy => self.status.changed(kind, name),
            Kind::Server => self.wake(name),
            Kind::Binding => self.wake_binding(name),
            Kind::Network | Kind::Secret => {}
        }
    }

    /// What an object that did not read was is known again, or it is gone.
    fn reads_again(&mut self, key: &str) {
        if self.cache.unreadable_objects.remove(key) && self.cache.unreadable_objects.is_empty() {
            self.tell_store();
            self.wake_all();
        }
    }

    fn boot_object_changed(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Server => self.cache.boot_changed(name),
            Kind::Network => self.booting.networks = true,
            // Which images are read into memory follows from them.
            Kind::Persona => self.images_are_wanted(),
            Kind::Policy | Kind::Secret | Kind::Switch | Kind::Binding => {}
        }
    }

    /// What bindings claim follows their personas.
    fn reserve(&mut self, kind: Kind, name: &Name) {
        let bindings: Vec<Name> = match kind {
            Kind::Binding => vec![name.clone()],
            Kind::Persona => self.cache.objects.bindings_of_persona(name).cloned().collect(),
            Kind::Policy | Kind::Secret | Kind::Network | Kind::Switch | Kind::Server => Vec::new(),
        };
        let waited: BTreeSet<Name> = bindings.iter().flat_map(|binding| self.cache.reserve(binding)).collect();
        waited.iter().for_each(|binding| self.wake_binding(binding));
    }

    fn same_spec(&self, object: &Object) -> bool {
        let held = self.cache.objects.meta(object.kind(), object.name());
        held.is_some_and(|m| m.uid == object.meta.uid && m.generation == object.meta.generation && m.labels == object.meta.labels)
    }

    /// Personas say what of that which they name is not there.
    fn tell_personas(&mut self, kind: Kind, name: &Name) {
        let names = |spec| references::persona(spec).any(|reference| (reference.kind, reference.name) == (kind, name));
        let personas = self.cache.objects.personas.iter().filter(|(_, held)| names(&held.spec));
        personas.for_each(|(persona, _)| self.status.changed(Kind::Persona, persona));
    }

    /// An object's desired state changed: its worker, and the servers that it concerns.
    fn touched(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Server => {
                self.worker_of(&Device::Bmc(name.clone()));
                self.wake(name);
                self.status.changed(kind, name);
                // A port that moved from one server to another concerns both.
                let switches: Vec<Name> =
                    self.cache.objects.servers.get(name).map(|s| server_switches(&s.spec).into_iter().collect()).unwrap_or_default();
                for switch in switches {
                    self.wake_switch(&switch);
                }
            }
            Kind::Switch => {
                self.cache.twins.look_again();
                self.worker_of(&Device::Switch(name.clone()));
                self.wake_switch(name);
                self.look_whether_to_save(name);
                self.status.changed(kind, name);
            }
            Kind::Binding => {
                self.doubt_rollout(name);
                self.wake_binding(name);
                self.status.changed(kind, name);
            }
            Kind::Secret => {
                self.fleet.logins.changed(name);
                self.all_workers();
                self.tell_secret(name);
                self.tell_personas(kind, name);
            }
            Kind::Persona => {
                self.cache.rollouts.touched(name);
                let bindings: Vec<Name> = self.cache.objects.bindings_of_persona(name).cloned().collect();
                for binding in bindings {
                    self.wake_binding(&binding);
                }
            }
            Kind::Network => {
                self.wake_all();
                self.tell_personas(kind, name);
            }
            Kind::Policy => {
                self.all_workers();
                self.fleet.set_paces(&self.cache);
                self.wake_all();
                self.status.changed(kind, name);
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
