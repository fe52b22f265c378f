//! Several bindings have one persona, which has a rollout, and its revision is changed at any moment, as is the rollout.
//!
//! Drawn beside what else goes wrong (`plan`), from a source of chance of its own, as in `masses`.

use embody::testing::model::Kind;
use embody::testing::model::op::{Off, Op};
use embody::testing::plan::off::sending;
use embody::testing::sim::checkers::By;
use embody::testing::store::keys;
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use crate::operators::{Operators, server};
use crate::plan::{Act, Plan, Rolls, secs};

impl Plan {
    /// In every other world.
    pub(crate) fn rollouts(&mut self, rng: &mut StdRng) {
        if self.exclusive.len() < 2 || rng.random_bool(0.5) {
            return;
        }
        let persona = rng.random_range(1..self.exclusive.len());
        (self.exclusive[persona], self.on_disk[persona], self.fixed[persona]) = (false, false, false);
        let sharing = (0..self.bindings.len()).filter(|n| *n == persona || rng.random_bool(0.7)).collect();
        self.rolled = Some((persona, sharing));
        for _ in 0..rng.random_range(2..=8) {
            let act = match rng.random_range(0..4) {
                0 => Act::Revise { back: true },
                1 | 2 => Act::Revise { back: false },
                _ => {
                    let pause_after = rng.random_bool(0.3).then(|| rng.random_range(1..=2));
                    Act::Rollout(rng.random_bool(0.8).then(|| Rolls { most: rng.random_range(1..=3), pause_after }))
                }
            };
            self.acts.push((secs(rng, 30, self.chaos.as_secs()), act));
        }
        self.acts.retain(|(at, _)| *at < self.chaos);
        self.acts.sort_by_key(|(at, _)| *at);
    }
}

impl Operators {
    /// A controller takes down one too many.
    pub(crate) fn rolled_off(&self, n: usize) {
        let mut body = self.centre.judge(|judge, _| judge.body(&server(n)));
        body.off = Some(sending(None, Off::Soft, "the rollout of persona p1: it is next"));
        let value = serde_json::to_vec(&body).unwrap();
        self.centre.judge(|judge, now| judge.stored(&keys::body(&server(n)), Some(&value), By::Controller, now));
        self.centre.sending(0, &server(n), &Op::PowerOff { server: server(n), how: Off::Soft });
    }

    pub(crate) fn is_rolled(&self, n: usize, spec: &mut Value) {
        if self.plan.rolled.as_ref().is_none_or(|(persona, _)| *persona != n) || spec["root"].get("disk").is_some() {
            return;
        }
        match self.plan.imaged {
            true => {
                spec["root"] = self.image_root();
                drop(spec.as_object_mut().and_then(|spec| spec.remove("kernel")));
            }
            false => spec["root"]["revision"] = json!(format!("r{}", self.revisions.1)),
        }
        if let Some(Rolls { most, pause_after }) = self.rolls {
            spec["rollout"] = json!({ "maxUnavailable": most });
            pause_after.into_iter().for_each(|n| spec["rollout"]["pauseAfter"] = json!(n));
        }
    }

    async fn put_rolled(&self) -> bool {
        let rolled = self.plan.rolled.as_ref().map(|(persona, _)| *persona).filter(|persona| self.personas.contains_key(persona));
        match rolled {
            Some(persona) => self.put(vec![self.persona(persona)]).await,
            None => false,
        }
    }

    pub(crate) async fn revise(&mut self, back: bool) {
        let before = self.revisions;
        self.fresh += 1;
        self.revisions = if back { (before.1, before.0) } else { (before.1, self.fresh + 1) };
        // Else it comes later than its name.
        if self.fresh.is_multiple_of(2) {
            self.import().await;
        }
        if !self.put_rolled().await {
            self.revisions = before;
        }
    }

    pub(crate) async fn roll(&mut self, rolls: Option<Rolls>) {
        let before = std::mem::replace(&mut self.rolls, rolls);
        if !self.put_rolled().await {
            self.rolls = before;
        }
    }

    pub(crate) async fn roll_to_the_end(&mut self) {
        if self.plan.rolled.is_some() {
            let most = self.rolls.map_or(1, |rolls| rolls.most);
            self.roll(Some(Rolls { most, pause_after: None })).await;
        }
    }

    /// What the rollout has still to do, by the status.
    pub(crate) async fn rollout_lacks(&self) -> Option<String> {
        let (persona, _) = self.plan.rolled.as_ref().filter(|(persona, _)| self.personas.contains_key(persona))?;
        let object = self.backend.read(Kind::Persona, &format!("p{persona}")).await.ok()?;
        let rollout = object.status["rollout"].as_str().unwrap_or("not known").to_owned();
        let is_of_now = object.status["observedGeneration"] == object.meta.generation;
        (object.to_json()["spec"].get("rollout").is_some() && (rollout != "complete" || !is_of_now))
            .then(|| format!("the rollout of persona p{persona} is {rollout}: {}", object.status))
    }
}
