//! What people do to names and roots, and what they say: renames, edits of roots, pauses, adoptions, declarations.

use std::collections::BTreeSet;
use std::time::Duration;

use embody::testing::control::operator::{Approving, Control, Declaring, Refusal, Scope};
use embody::testing::model::body::BootsOnce;
use embody::testing::model::fact::Power;
use embody::testing::model::{Kind, Object};
use embody::testing::server::api::objects::Preconditions;
use embody::testing::server::api::{Backend, DryRun, apply};
use embody::testing::sim::bmc::BmcFault;
use embody::testing::sim::centre::Runs;
use serde_json::Value;
use tokio::time::sleep;

use crate::operators::{Intent, Operators, name, network, server, switch};
use crate::plan::{Act, Do, Rogue, Stop};

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
            Act::BootOnce { server: n, persona } => self.boot_once(*n, Some(*persona)).await,
            Act::EditRoot(p) => self.edit_root(*p).await,
            _ => return false,
        }
        true
    }

    /// False: it is something else.
    pub(crate) async fn of_many(&mut self, act: &Act) -> bool {
        match act {
            Act::Many(bindings, what) => self.many(bindings, *what).await,
            Act::Silent(servers, takes) => {
                for n in servers {
                    self.centre.touch(&server(*n), |bmc, now| bmc.inject(BmcFault::Reboot { takes: *takes }, now));
                }
            }
            Act::Buttons(servers) => servers.iter().for_each(|n| self.button(*n)),
            Act::CloseBreaker => self.close_breaker().await,
            Act::Rogue(Rogue::OldNetworks) => {
                let old = [110, 120, 130].into_iter().enumerate().map(|(n, vlan)| network(n, vlan, self.booting())).collect();
                drop(apply::apply(&self.backend, old, None, DryRun::No).await);
            }
            Act::Pull(host) => self.checkouts.iter().for_each(|checkouts| checkouts.pull(*host)),
            Act::Look(n) => {
                let binding = name(&format!("b{n}"));
                let (shown, at) = (self.words.show_approval(&binding, Approving::ThePlan).await, self.centre.now());
                match shown {
                    Ok(shown) => {
                        let steps = shown.forecast.steps.len();
                        self.centre.note(&[&binding], format!("a person is shown {steps} steps"));
                        self.shown.insert(*n, (shown, at));
                    }
                    Err(refusal) => self.centre.note(&[&binding], format!("a person is shown nothing: {refusal}")),
                }
            }
            Act::ApproveShown(n) => {
                let Some((shown, at)) = self.shown.remove(n) else { return true };
                let binding = name(&format!("b{n}"));
                self.centre.judge(|judge, _| judge.approved(&binding));
                let said = self.say_yes_to(&binding, Approving::ThePlan, &shown, at).await;
                self.centre.note(&[&binding], format!("a person approves what was shown: {}", said.unwrap_or_else(|e| e.to_string())));
            }
            Act::PauseOf(of, takes) => {
                let scope = match of {
                    Stop::Server(n) => Scope::Object { kind: Kind::Server, name: server(*n) },
                    Stop::Persona(n) => Scope::Object { kind: Kind::Persona, name: name(&format!("p{n}")) },
                    Stop::Switch(n) => Scope::Object { kind: Kind::Switch, name: switch(*n) },
                };
                self.pause(scope, Some(*takes)).await;
            }
            _ => return false,
        }
        true
    }

    /// Nothing: what is bound follows.
    pub(crate) async fn boot_once(&self, n: usize, persona: Option<usize>) {
        let boots = persona.map(|persona| BootsOnce::Persona(name(&format!("p{persona}"))));
        let said = self.words.boot_once(&server(n), boots, "a person").await;
        let said = said.unwrap_or_else(|refusal| refusal.to_string());
        self.centre.note(&[&server(n)], format!("a person says what it boots once: {said}"));
    }

    async fn many(&mut self, bindings: &[usize], what: Do) {
        let all: Vec<(usize, Intent)> = bindings.iter().filter_map(|n| Some((*n, self.desired.get(n)?.clone()))).collect();
        match what {
            Do::Restart => self.desired(all.into_iter().map(|(n, w)| (n, Intent { restart: w.restart + 1, ..w })).collect()).await,
            Do::Stop => self.desired(all.into_iter().map(|(n, w)| (n, Intent { state: "Stopped", ..w })).collect()).await,
            Do::Run => self.desired(all.into_iter().map(|(n, w)| (n, Intent { state: "Running", ..w })).collect()).await,
            Do::Move => {
                let mut free: Vec<usize> = (0..self.plan.machines.len()).filter(|n| self.on(*n).is_none()).collect();
                let places: Vec<usize> = all.iter().map(|(_, w)| w.server).collect();
                let after = places.iter().cycle().skip(1);
                let moves = all.into_iter().zip(after);
                // Each goes where the next one was, and the last one where the first one was: nobody's place is taken twice.
                let changes = match free.pop().filter(|_| places.len() == 1) {
                    Some(server) => moves.map(|((n, w), _)| (n, Intent { server, ..w })).collect(),
                    None => moves.map(|((n, w), server)| (n, Intent { server: *server, ..w })).collect(),
                };
                self.desired(changes).await;
            }
            Do::OtherNetwork => {
                let personas: BTreeSet<usize> = all.iter().map(|(_, w)| w.persona).filter(|p| self.personas.contains_key(p)).collect();
                let before = self.in_other_network.clone();
                self.in_other_network = before.symmetric_difference(&personas).copied().collect();
                if !self.put(personas.iter().map(|p| self.persona(*p)).collect()).await {
                    self.in_other_network = before;
                }
            }
        }
    }

    pub(crate) async fn put(&self, objects: Vec<Object>) -> bool {
        let done = self.apply(objects).await;
        if let Err(why) = &done {
            self.centre.note(&[], format!("a person's objects are refused: {why}"));
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
            self.desired(vec![(n, Intent { persona: new, server, ..intent })]).await;
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
        self.centre.touch(&server(n), |bmc, now| bmc.unplug(now.plus(Duration::from_secs(900)), now));
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
        self.checkouts.iter().for_each(|checkouts| (0..self.plan.controllers).for_each(|host| checkouts.pull(host)));
        self.resume_all().await;
        self.accept_store().await;
        self.apply_again().await;
        // What a person had booted once runs until they say otherwise.
        for n in 0..self.plan.machines.len() {
            if self.centre.judge(|judge, _| judge.body(&server(n))).once.is_some() {
                self.boot_once(n, None).await;
            }
        }
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
    let (all, _) = backend.list(kind, |_, _| true).await.unwrap_or_default();
    all.iter().filter_map(|json| Object::from_json(serde_json::from_str(json.get()).ok()?).ok()).collect()
}
