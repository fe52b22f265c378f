//! What people do to names and roots, and what they say: renames, edits of roots, pauses, adoptions, declarations.

use std::time::Duration;

use embody::testing::control::operator::{Approving, Control, Declaring, Refusal, Scope};
use embody::testing::model::fact::Power;
use embody::testing::model::{Kind, Object};
use embody::testing::server::api::objects::Preconditions;
use embody::testing::server::api::{Backend, DryRun, apply};
use embody::testing::sim::bmc::BmcFault;
use embody::testing::sim::centre::Runs;
use serde_json::Value;
use tokio::time::sleep;

use crate::operators::{Operators, name, server, switch};
use crate::plan::Act;

impl Operators {
    /// False: it is something else.
    pub(crate) async fn names_and_words(&mut self, act: &Act) -> bool {
        let binding = |n: &usize| Scope::Object { kind: Kind::Binding, name: name(&format!("b{n}")) };
        match act {
            Act::Pause => self.pause(Scope::Everything, None).await,
            Act::PauseFor(of, takes) => self.pause(of.as_ref().map_or(Scope::Everything, binding), Some(*takes)).await,
            Act::HardOffWithoutSoft(allowed) => {
                self.hard_off_without_soft = *allowed;
                self.put(vec![self.policy()]).await;
            }
            Act::Resume => self.resume(Scope::Everything).await,
            Act::PauseBinding(n) => self.pause(binding(n), None).await,
            Act::ResumeBinding(n) => self.resume(binding(n)).await,
            Act::Accept(n) => drop(self.accept(Kind::Server, &server(*n)).await),
            Act::AcceptSwitch(n) => drop(self.accept(Kind::Switch, &switch(*n)).await),
            Act::AcceptStore => self.accept_store().await,
            Act::DeclareForeign(n) => self.declare_foreign(*n).await,
            Act::Adopt(n) => self.adopt(*n).await,
            Act::ApproveHard(n) => self.approve_hard(*n).await,
            Act::RenameBinding(n) => self.rename_binding(*n).await,
            Act::RenamePersona { binding, server } => self.rename_persona(*binding, *server).await,
            Act::SwapRoots(p, q) if p != q => self.swap_roots(*p, *q).await,
            Act::EditRoot(p) => self.edit_root(*p).await,
            _ => return false,
        }
        true
    }

    async fn put(&self, objects: Vec<Object>) -> bool {
        let done = apply::apply(&self.backend, objects, None, DryRun::No).await;
        if let Err(error) = &done {
            self.centre.note(&[], format!("a person's objects are refused: {} {:?}", error.message, error.causes));
        }
        done.is_ok()
    }

    async fn rename_binding(&mut self, n: usize) {
        let Some(intent) = self.desired.get(&n).cloned() else { return };
        self.delete(n).await;
        if !self.desired.contains_key(&n) {
            self.fresh += 1;
            self.desired(vec![(10 + self.fresh, intent)]).await;
        }
    }

    /// The same root under another name, elsewhere where that is free.
    async fn rename_persona(&mut self, n: usize, to: usize) {
        let Some(intent) = self.desired.get(&n).cloned() else { return };
        let alone = self.desired.values().filter(|w| w.persona == intent.persona).count() == 1;
        if !alone {
            return;
        }
        self.delete(n).await;
        if self.desired.contains_key(&n) {
            return;
        }
        let old = name(&format!("p{}", intent.persona));
        if let Err(error) = self.backend.delete(Kind::Persona, &old, &Preconditions::default(), DryRun::No).await {
            return self.centre.note(&[], format!("a person's deletion is refused: {}", error.message));
        }
        let Some(persona) = self.personas.remove(&intent.persona) else { return };
        self.fresh += 1;
        let new = 10 + self.fresh;
        self.personas.insert(new, persona);
        if self.put(vec![self.persona(new)]).await {
            let server = if self.on(to).is_none() { to } else { intent.server };
            self.desired(vec![(n, crate::operators::Intent { persona: new, server, ..intent })]).await;
        }
    }

    async fn swap_roots(&mut self, p: usize, q: usize) {
        let (Some(one), Some(two)) = (self.personas.get(&p).cloned(), self.personas.get(&q).cloned()) else { return };
        self.personas.insert(p, (one.0, two.1.clone()));
        self.personas.insert(q, (two.0, one.1.clone()));
        if !self.put(vec![self.persona(p), self.persona(q)]).await {
            self.personas.insert(p, one);
            self.personas.insert(q, two);
        }
    }

    async fn edit_root(&mut self, p: usize) {
        let Some(before) = self.personas.get(&p).cloned() else { return };
        self.fresh += 1;
        self.personas.insert(p, (before.0, format!("/personas/new-{}", self.fresh)));
        if !self.put(vec![self.persona(p)]).await {
            self.personas.insert(p, before);
        }
    }

    /// A person says so only of a machine that does run it.
    async fn adopt(&mut self, n: usize) {
        let Some(intent) = self.desired.get(&n).cloned() else { return };
        let (here, persona, binding) = (server(intent.server), name(&format!("p{}", intent.persona)), name(&format!("b{n}")));
        match self.centre.runs(&here) {
            Some(Runs::Foreign) => {}
            Some(Runs::FromDisk(runs)) if runs == persona => {}
            _ => return,
        }
        let said = self.say_yes(&binding, Approving::Adopt).await;
        // What was not answered may be stored all the same, and is true.
        let stored = self.centre.judge(|judge, _| judge.body(&here).evidence.contains_key(&persona));
        if said.is_ok() || (stored && matches!(said, Err(Refusal::Store { .. }))) {
            self.centre.judge(|judge, _| judge.approved(&binding));
            self.centre.has_run(&here, &persona);
        }
        self.centre.note(&[&binding], format!("a person adopts: {}", said.unwrap_or_else(|e| e.to_string())));
    }

    /// Only where it is so.
    async fn declare_foreign(&self, n: usize) {
        if !matches!(self.centre.runs(&server(n)), Some(Runs::Persona(_) | Runs::FromDisk(_))) {
            self.declare(n, Declaring::Foreign).await;
        }
    }

    /// Its power is cut, its BMC with it; that is said a while later.
    pub(crate) async fn pull_plug(&self, n: usize, after: Duration) {
        if self.centre.power(&server(n)) == Some(Power::On) {
            self.button(n);
        }
        self.centre.touch(&server(n), |bmc, now| bmc.inject(BmcFault::Unplugged { until: now.plus(Duration::from_secs(900)) }, now));
        sleep(after.min(Duration::from_secs(50))).await;
        self.declare(n, Declaring::Off).await;
    }

    /// The store is taken as it is, and what it lost of people's wishes is written again.
    pub(crate) async fn accept_store(&self) {
        let said = self.words.accept_store("a person").await;
        let good = said.is_ok();
        self.centre.note(&[], format!("a person accepts the store: {}", said.unwrap_or_else(|e| e.to_string())));
        if good {
            self.apply_again().await;
        }
    }

    /// Calm begins: pauses end, and a store that lost something is taken as it is.
    pub async fn after_accidents(&self) {
        self.resume(Scope::Everything).await;
        self.accept_store().await;
        self.apply_again().await;
    }

    fn is_persona(&self, name: &Value) -> bool {
        name.as_str().and_then(|name| name.strip_prefix("p")?.parse().ok()).is_some_and(|n: usize| self.personas.contains_key(&n))
    }

    /// Everything as it is desired, and nothing else.
    pub(crate) async fn apply_again(&self) {
        for (kind, prefix) in [(Kind::Binding, "b"), (Kind::Persona, "p")] {
            for object in listed(&self.backend, kind).await {
                let number = object.name().as_str().strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
                let wanted = number.is_some_and(|n| match kind {
                    // One that names a persona which is to go keeps that from going.
                    Kind::Binding => self.desired.contains_key(&n) && self.is_persona(&object.to_json()["spec"]["persona"]),
                    _ => self.personas.contains_key(&n),
                });
                if !wanted && let Err(error) = self.backend.delete(kind, object.name(), &Preconditions::default(), DryRun::No).await {
                    self.centre.note(&[], format!("a person's deletion is refused: {}", error.message));
                }
            }
        }
        self.put(self.everything()).await;
    }
}

/// All objects of a kind, with their statuses.
pub(crate) async fn listed(backend: &Backend, kind: Kind) -> Vec<Object> {
    let (all, _) = backend.list(kind, |_| true).await.unwrap_or_default();
    all.iter().filter_map(|json| Object::from_json(serde_json::from_str(json.get()).ok()?).ok()).collect()
}
