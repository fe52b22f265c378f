//! All desired state at one moment, by kind and name, with the indexes that keep a poll at one server independent of the fleet's size.

use std::collections::{BTreeMap, BTreeSet};

use super::binding::RunState;
use super::image::{ImageName, KnownImage};
use super::{
    BindingSpec, Kind, Mac, Meta, Name, NetworkSpec, Object, PersonaSpec, PolicySpec, SecretSpec, ServerSpec, Spec, SwitchSpec, policy,
};

#[derive(Debug, Clone)]
pub struct Held<S> {
    pub meta: Meta,
    pub spec: S,
}

#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub networks: BTreeMap<Name, Held<NetworkSpec>>,
    pub switches: BTreeMap<Name, Held<SwitchSpec>>,
    pub servers: BTreeMap<Name, Held<ServerSpec>>,
    pub personas: BTreeMap<Name, Held<PersonaSpec>>,
    pub bindings: BTreeMap<Name, Held<BindingSpec>>,
    pub secrets: BTreeMap<Name, Held<SecretSpec>>,
    pub policies: BTreeMap<Name, Held<PolicySpec>>,
    /// What personas can name beside objects, as it is here.
    pub images: BTreeMap<ImageName, KnownImage>,
    by_target: BTreeMap<Name, BTreeSet<Name>>,
    by_persona: BTreeMap<Name, BTreeSet<Name>>,
    by_switch: BTreeMap<Name, BTreeSet<Name>>,
    by_mac: BTreeMap<Mac, Name>,
    /// How many bindings are to run.
    running: usize,
    /// The same of each persona.
    running_of: BTreeMap<Name, usize>,
    /// What holds without a Policy.
    without_policy: PolicySpec,
}

impl Objects {
    pub fn insert(&mut self, object: &Object) {
        self.remove(object.kind(), object.name());
        let (meta, name) = (object.meta.clone(), object.meta.name.clone());
        match &object.spec {
            Spec::Policy(spec) => drop(self.policies.insert(name, Held { meta, spec: spec.clone() })),
            Spec::Secret(spec) => drop(self.secrets.insert(name, Held { meta, spec: spec.clone() })),
            Spec::Network(spec) => drop(self.networks.insert(name, Held { meta, spec: spec.clone() })),
            Spec::Switch(spec) => drop(self.switches.insert(name, Held { meta, spec: spec.clone() })),
            Spec::Persona(spec) => drop(self.personas.insert(name, Held { meta, spec: spec.clone() })),
            Spec::Server(spec) => {
                for switch in server_switches(spec) {
                    self.by_switch.entry(switch).or_default().insert(name.clone());
                }
                for nic in &spec.nics {
                    self.by_mac.insert(nic.mac, name.clone());
                }
                self.servers.insert(name, Held { meta, spec: spec.clone() });
            }
            Spec::Binding(spec) => {
                if let Some(server) = &spec.target.server {
                    self.by_target.entry(server.clone()).or_default().insert(name.clone());
                }
                self.by_persona.entry(spec.persona.clone()).or_default().insert(name.clone());
                if spec.state == RunState::Running {
                    self.running += 1;
                    *self.running_of.entry(spec.persona.clone()).or_default() += 1;
                }
                self.bindings.insert(name, Held { meta, spec: spec.clone() });
            }
        }
    }

    pub fn remove(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Policy => drop(self.policies.remove(name)),
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::Network => drop(self.networks.remove(name)),
            Kind::Switch => drop(self.switches.remove(name)),
            Kind::Persona => drop(self.personas.remove(name)),
            Kind::Server => {
                let Some(old) = self.servers.remove(name) else { return };
                for switch in server_switches(&old.spec) {
                    forget(&mut self.by_switch, &switch, name);
                }
                for nic in &old.spec.nics {
                    if self.by_mac.get(&nic.mac) == Some(name) {
                        self.by_mac.remove(&nic.mac);
                    }
                }
            }
            Kind::Binding => {
                let Some(old) = self.bindings.remove(name) else { return };
                if let Some(server) = &old.spec.target.server {
                    forget(&mut self.by_target, server, name);
                }
                forget(&mut self.by_persona, &old.spec.persona, name);
                if old.spec.state == RunState::Running {
                    self.running -= 1;
                    let left = self.running_of.remove(&old.spec.persona).unwrap_or(0).saturating_sub(1);
                    self.running_of.extend((left > 0).then(|| (old.spec.persona.clone(), left)));
                }
            }
        }
    }

    /// The bindings whose target is this server, in the order of their names.
    pub fn bindings_of_server(&self, server: &Name) -> impl Iterator<Item = &Name> {
        self.by_target.get(server).into_iter().flatten()
    }

    pub fn bindings_of_persona(&self, persona: &Name) -> impl Iterator<Item = &Name> {
        self.by_persona.get(persona).into_iter().flatten()
    }

    pub fn bound(&self, persona: &Name) -> usize {
        self.by_persona.get(persona).map_or(0, BTreeSet::len)
    }

    pub fn servers_on_switch(&self, switch: &Name) -> impl Iterator<Item = &Name> {
        self.by_switch.get(switch).into_iter().flatten()
    }

    /// The declared server that has a NIC with this address.
    pub fn server_of_mac(&self, mac: Mac) -> Option<&Name> {
        self.by_mac.get(&mac)
    }

    /// The site's policy: the object named `default`, or what holds without one.
    pub fn policy(&self) -> &PolicySpec {
        self.policies.get(policy::DEFAULT).map_or(&self.without_policy, |held| &held.spec)
    }

    /// Kind and name of each.
    pub fn all(&self) -> impl Iterator<Item = (Kind, &Name)> {
        let of = |kind: Kind| move |name| (kind, name);
        let first = self.networks.keys().map(of(Kind::Network)).chain(self.switches.keys().map(of(Kind::Switch)));
        let second = self.servers.keys().map(of(Kind::Server)).chain(self.personas.keys().map(of(Kind::Persona)));
        let third = self.bindings.keys().map(of(Kind::Binding)).chain(self.secrets.keys().map(of(Kind::Secret)));
        first.chain(second).chain(third).chain(self.policies.keys().map(of(Kind::Policy)))
    }

    /// How many bindings are to run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// The same of one persona.
    pub fn running_of(&self, persona: &Name) -> usize {
        self.running_of.get(persona).copied().unwrap_or(0)
    }

    pub fn meta(&self, kind: Kind, name: &Name) -> Option<&Meta> {
        match kind {
            Kind::Policy => self.policies.get(name).map(|held| &held.meta),
            Kind::Secret => self.secrets.get(name).map(|held| &held.meta),
            Kind::Network => self.networks.get(name).map(|held| &held.meta),
            Kind::Switch => self.switches.get(name).map(|held| &held.meta),
            Kind::Server => self.servers.get(name).map(|held| &held.meta),
            Kind::Persona => self.personas.get(name).map(|held| &held.meta),
            Kind::Binding => self.bindings.get(name).map(|held| &held.meta),
        }
    }

    pub fn has(&self, kind: Kind, name: &Name) -> bool {
        self.meta(kind, name).is_some()
    }
}

fn forget(index: &mut BTreeMap<Name, BTreeSet<Name>>, key: &Name, name: &Name) {
    if let Some(set) = index.get_mut(key) {
        set.remove(name);
        if set.is_empty() {
            index.remove(key);
        }
    }
}

/// The switches that a server is wired to.
pub(crate) fn server_switches(spec: &ServerSpec) -> BTreeSet<Name> {
    let bonds = spec.bonds.iter().flat_map(|b| b.attach.iter().map(|a| a.switch.clone()));
    spec.nics.iter().filter_map(|n| n.switch.clone()).chain(bonds).collect()
}

/// The ports of a switch that a server is wired to, by the names in its manifest.
pub(crate) fn ports_at<'a>(spec: &'a ServerSpec, switch: &'a Name) -> impl Iterator<Item = &'a String> {
    let nics = spec.nics.iter().filter(move |n| n.switch.as_ref() == Some(switch)).filter_map(|n| n.port.as_ref());
    let bonds = spec.bonds.iter().flat_map(|b| &b.attach).filter(move |a| a.switch == *switch).map(|a| &a.port);
    nics.chain(bonds)
}
