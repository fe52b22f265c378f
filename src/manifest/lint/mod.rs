//! What objects mean together: the final state only, so that swapping two personas in one apply is legal.
//!
//! Leaves out: one object by itself (`validate`), and everything that devices would have to be asked about. Each rule is one function;
//! it names the object at fault first, and the other as `also`. A fault between objects none of which is changed is not reported.

mod boots;
mod fit;
mod networks;
mod references;
mod secrets;
mod wires;

use std::collections::BTreeMap;

use super::codes;
use super::fault::{At, Fault, steps};
use super::validate;
use crate::model::{BindingSpec, Kind, Name, NetworkSpec, Object, PersonaSpec, SecretSpec, ServerSpec, Spec, SwitchSpec};

/// One of the objects that are judged together.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub kind: Kind,
    pub name: &'a Name,
    /// Nothing where too little of it reads; then it only exists.
    pub object: Option<&'a Object>,
    /// Without a fault of form: its absences are meant.
    pub whole: bool,
    /// Of the files (or of the request), not only laid under them.
    pub changed: bool,
}

/// Every fault of and between the objects. `item` of a place is the index here. `lost`: texts whose objects are not known; a name that
/// occurs in one of them may exist.
pub(super) fn judge(known: &[Option<Known<'_>>], lost: &[&str]) -> Vec<Fault> {
    let mut lay = Lay { known, lost, by_name: BTreeMap::new(), faults: Vec::new() };
    lay.fill();
    for (item, one) in known.iter().enumerate() {
        if let Some(Known { object: Some(object), whole, changed: true, .. }) = one {
            lay.faults.extend(validate::object(item, object, *whole));
        }
    }
    references::lint(&mut lay);
    wires::lint(&mut lay);
    networks::lint(&mut lay);
    fit::lint(&mut lay);
    secrets::lint(&mut lay);
    boots::lint(&mut lay);
    lay.reported()
}

struct Lay<'a> {
    known: &'a [Option<Known<'a>>],
    lost: &'a [&'a str],
    by_name: BTreeMap<(Kind, &'a Name), usize>,
    faults: Vec<Fault>,
}

/// An object of one kind: its index, name and spec.
struct Of<'a, S> {
    item: usize,
    name: &'a Name,
    object: &'a Object,
    spec: &'a S,
    whole: bool,
}

macro_rules! of_kind {
    ($($plural:ident $one:ident $variant:ident $spec:ty;)*) => { $(
        #[allow(dead_code, reason = "one pair for each kind")]
        fn $plural(&self) -> Vec<Of<'a, $spec>> {
            let kind = |(k, _): &&(Kind, &Name)| *k == Kind::$variant;
            self.by_name.keys().filter(kind).filter_map(|(_, name)| self.$one(name)).collect()
        }
        #[allow(dead_code, reason = "one pair for each kind")]
        fn $one(&self, name: &Name) -> Option<Of<'a, $spec>> {
            let (item, known) = self.find(Kind::$variant, name)?;
            let object = known.object?;
            let Spec::$variant(spec) = &object.spec else { return None };
            Some(Of { item, name: known.name, object, spec, whole: known.whole })
        }
    )* };
}

impl<'a> Lay<'a> {
    of_kind! {
        secrets secret Secret SecretSpec;
        networks network Network NetworkSpec;
        switches switch Switch SwitchSpec;
        servers server Server ServerSpec;
        personas persona Persona PersonaSpec;
        bindings binding Binding BindingSpec;
    }

    /// The first of a name counts; what is changed counts before what it is laid over.
    fn fill(&mut self) {
        for changed in [true, false] {
            for (item, known) in self.known.iter().enumerate() {
                let Some(known) = known.as_ref().filter(|k| k.changed == changed) else { continue };
                match self.by_name.get(&(known.kind, known.name)).copied() {
                    None => {
                        self.by_name.insert((known.kind, known.name), item);
                    }
                    Some(first) if changed => {
                        let at = |item| At::value(item, steps!["metadata", "name"]);
                        let message = format!("the {} `{}` stands twice in the files", known.kind, known.name);
                        let fault = Fault::error(codes::OBJECT_TWICE, at(item), message).label("again here").also("first", at(first));
                        self.faults.push(fault.hint("delete one of them, or give it another name"));
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn find(&self, kind: Kind, name: &Name) -> Option<(usize, Known<'a>)> {
        let item = *self.by_name.get(&(kind, name))?;
        self.known.get(item).copied().flatten().map(|known| (item, known))
    }

    fn changed(&self, at: &At) -> bool {
        self.known.get(at.item).copied().flatten().is_some_and(|k| k.changed)
    }

    /// The same thing claimed by two owners: the second is at fault, the first is shown too.
    fn clash<K: Ord>(&mut self, claims: Vec<(K, Claim)>, fault: impl Fn(&K, &Claim, &Claim) -> Option<Fault>) {
        let mut first: BTreeMap<K, Claim> = BTreeMap::new();
        // What is not changed first, then in the order of the files: the later one is the one at fault.
        let mut claims = claims;
        claims.sort_by(|(_, a), (_, b)| self.changed(&a.at).cmp(&self.changed(&b.at)).then_with(|| a.at.cmp(&b.at)));
        for (key, claim) in claims {
            match first.get(&key) {
                Some(other) => {
                    if let Some(fault) = fault(&key, &claim, other) {
                        let also = format!("`{}`", other.who);
                        self.faults.push(fault.also(also, other.at.clone()));
                    }
                }
                None => {
                    first.insert(key, claim);
                }
            }
        }
    }

    /// What concerns a changed object, with a changed object as the place.
    fn reported(self) -> Vec<Fault> {
        let mut reported = Vec::new();
        for mut fault in self.faults.iter().cloned() {
            if self.changed(&fault.at) {
                reported.push(fault);
            } else if let Some(other) = fault.also.iter().position(|(_, at)| self.changed(at)) {
                std::mem::swap(&mut fault.at, &mut fault.also[other].1);
                fault.also[other].0 = "concerned".to_owned();
                fault.label = None;
                reported.push(fault);
            }
        }
        reported
    }
}

/// Who claims something, and where.
#[derive(Clone)]
struct Claim {
    who: String,
    at: At,
}
