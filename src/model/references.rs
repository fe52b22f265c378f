//! Which object names which: every field of the model that is the name of another object.
//!
//! Leaves out: whether there is such an object, and what follows where there is none (`manifest::lint`, `plan::resolve`, the API's deletions). Images and
//! selectors are no names of objects. Shown by `tests/api.rs`, `tests/manifest.rs`, `tests/plan/unresolved.rs`.

use super::{BindingSpec, Kind, Name, PersonaSpec, ServerSpec, Spec, SwitchSpec};

/// A name in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    pub kind: Kind,
    pub name: &'a Name,
    /// `spec.nics[].tagged[]`
    pub field: &'static str,
    /// For each `[]` of it, from the left.
    pub at: [usize; 2],
}

fn to<'a>(kind: Kind, name: &'a Name, field: &'static str, at: [usize; 2]) -> Reference<'a> {
    Reference { kind, name, field, at }
}

pub(crate) fn of(spec: &Spec) -> Vec<Reference<'_>> {
    match spec {
        Spec::Policy(_) | Spec::Secret(_) | Spec::Network(_) => Vec::new(),
        Spec::Switch(spec) => switch(spec).collect(),
        Spec::Server(spec) => server(spec).collect(),
        Spec::Persona(spec) => persona(spec).collect(),
        Spec::Binding(spec) => binding(spec).collect(),
    }
}

pub(crate) fn switch(spec: &SwitchSpec) -> impl Iterator<Item = Reference<'_>> {
    std::iter::once(to(Kind::Secret, &spec.snmp.secret_ref.name, "spec.snmp.secretRef.name", [0; 2]))
}

pub(crate) fn server(spec: &ServerSpec) -> impl Iterator<Item = Reference<'_>> {
    let bmc = to(Kind::Secret, &spec.bmc.secret_ref.name, "spec.bmc.secretRef.name", [0; 2]);
    let nics = spec.nics.iter().enumerate();
    let nics = nics.filter_map(|(n, nic)| Some(to(Kind::Switch, nic.switch.as_ref()?, "spec.nics[].switch", [n, 0])));
    let bonds = spec.bonds.iter().enumerate().flat_map(|(b, bond)| {
        let attach = bond.attach.iter().enumerate();
        attach.map(move |(a, at)| to(Kind::Switch, &at.switch, "spec.bonds[].attach[].switch", [b, a]))
    });
    std::iter::once(bmc).chain(nics).chain(bonds)
}

pub(crate) fn persona(spec: &PersonaSpec) -> impl Iterator<Item = Reference<'_>> {
    let files = spec.files.iter().enumerate();
    let files =
        files.filter_map(|(f, file)| Some(to(Kind::Secret, &file.secret_ref.as_ref()?.name, "spec.files[].secretRef.name", [f, 0])));
    let networks = spec.nics.iter().enumerate().flat_map(|(n, nic)| {
        let untagged = nic.untagged.iter().map(move |network| to(Kind::Network, network, "spec.nics[].untagged", [n, 0]));
        let tagged = nic.tagged.iter().enumerate();
        untagged.chain(tagged.map(move |(t, network)| to(Kind::Network, network, "spec.nics[].tagged[]", [n, t])))
    });
    let chap = spec.root.iscsi.iter().filter_map(|iscsi| iscsi.chap_secret_ref.as_ref());
    let chap = chap.map(|secret| to(Kind::Secret, &secret.name, "spec.root.iscsi.chapSecretRef.name", [0; 2]));
    files.chain(networks).chain(chap)
}

pub(crate) fn binding(spec: &BindingSpec) -> impl Iterator<Item = Reference<'_>> {
    let persona = to(Kind::Persona, &spec.persona, "spec.persona", [0; 2]);
    let server = spec.target.server.iter().map(|server| to(Kind::Server, server, "spec.target.server", [0; 2]));
    std::iter::once(persona).chain(server)
}
