//! Whose turn it is in the rollouts of personas: what is known of their bodies is told to `plan::rollouts`, and whoever may go is woken.
//!
//! Leaves out: deciding (`plan::rollouts`, `plan::rollout`). Invariant: all that are due are noted before one of them is planned, and whoever has begun
//! before the next one is. Shown by `tests/revisions.rs`.

use super::cache::Cache;
use super::controller::Controller;
use crate::model::binding::RunState;
use crate::model::op::{Off, Op};
use crate::model::{Kind, Name, PersonaSpec, Reason};
use crate::plan::consent;
use crate::plan::desired::Desired;
use crate::plan::observed::{Observed, Trouble};
use crate::plan::rollout::{self, Member, Turn};
use crate::plan::rollouts::{Progress, Stage, Terms};

impl Cache {
    fn terms<'a>(&self, persona: &'a Name, spec: &PersonaSpec) -> Terms<'a> {
        Terms { persona, rollout: spec.rollout.unwrap_or_default(), running: self.objects.running_of(persona) }
    }

    /// Whether what runs another revision on a server is restarted now.
    pub(super) fn turn(&self, want: &Desired) -> Turn {
        let holder = want.holder.as_ref().filter(|holder| holder.rolls);
        let of = holder.and_then(|holder| Some((holder, self.objects.personas.get(&holder.persona)?)));
        of.map_or(Turn::NotKnown, |(holder, persona)| {
            self.rollouts.turn(&self.terms(&holder.persona, &persona.spec), &holder.authority.binding)
        })
    }

    pub(super) fn progress(&self, persona: &Name, spec: &PersonaSpec) -> Progress {
        self.rollouts.progress(&self.terms(persona, spec))
    }

    /// It is up, and only its rollout has something to do with it.
    pub(super) fn waits_up(&self, want: &Desired) -> bool {
        let holder = want.holder.as_ref().filter(|holder| holder.rolls);
        holder.is_some_and(|holder| self.rollouts.is_up(&holder.persona, &holder.authority.binding))
    }
}

impl Controller {
    /// How this server stands for the others of its persona, and whether it is its turn.
    pub(super) fn note_rollout(&mut self, server: &Name, want: &Desired, seen: &mut Observed) {
        let bindings: Vec<Name> = self.cache.objects.bindings_of_server(server).cloned().collect();
        for binding in &bindings {
            let Some(persona) = self.cache.objects.bindings.get(binding).map(|held| held.spec.persona.clone()) else { continue };
            match want.holder.as_ref().is_some_and(|holder| holder.authority.binding == *binding) {
                true => {
                    let member = self.member(server, want, seen);
                    self.cache.rollouts.note(&persona, binding, member);
                }
                false => self.doubt_rollout(binding),
            }
        }
        seen.turn = self.cache.turn(want);
    }

    fn member(&self, server: &Name, want: &Desired, seen: &Observed) -> Option<Member> {
        let member = rollout::member(want, seen, self.clock.now())?;
        let off = Op::PowerOff { server: server.clone(), how: Off::Soft };
        let approved = || want.holder.as_ref().is_some_and(|holder| consent::is_approved(&holder.authority, &off, seen));
        let held = self.cache.stopped_by_guardrails.contains_key(server) && !approved();
        Some(Member { willing: member.willing && !held, asked: self.is_asked(server), ..member })
    }

    /// Something is known of this server that was not: where its persona has a rollout, before anything is planned with it.
    pub(super) fn stands_otherwise(&mut self, server: &Name) {
        let objects = &self.cache.objects;
        let personas = objects.bindings_of_server(server).filter_map(|b| objects.personas.get(&objects.bindings.get(b)?.spec.persona));
        if personas.into_iter().all(|held| held.spec.rollout.is_none()) {
            return;
        }
        let want = self.cache.want(server);
        let mut seen = self.cache.seen_unheld(server, &want);
        self.note_rollout(server, &want, &mut seen);
    }

    /// A binding is another one, or nobody can see how it is.
    pub(super) fn doubt_rollout(&mut self, binding: &Name) {
        let objects = &self.cache.objects;
        let Some(spec) = objects.bindings.get(binding).map(|held| &held.spec) else { return };
        let is_there = spec.target.server.as_ref().is_some_and(|server| objects.servers.contains_key(server));
        match spec.state {
            RunState::Running => self.cache.rollouts.doubt(&spec.persona, binding, is_there),
            RunState::Stopped => self.cache.rollouts.forget(binding),
        }
    }

    pub(super) fn doubt_rollouts(&mut self) {
        let bindings: Vec<Name> = self.cache.objects.bindings.keys().cloned().collect();
        bindings.iter().for_each(|binding| self.doubt_rollout(binding));
        let personas: Vec<Name> = self.cache.objects.personas.keys().cloned().collect();
        personas.iter().for_each(|persona| self.cache.rollouts.touched(persona));
    }

    /// Whoever may go by what is otherwise now is planned again.
    pub(super) fn wake_whose_turn_it_is(&mut self) {
        for persona in self.cache.rollouts.take_changed() {
            self.status.changed(Kind::Persona, &persona);
            let Some(spec) = self.cache.objects.personas.get(&persona).map(|held| &held.spec) else { continue };
            if spec.rollout.is_some() {
                let terms = self.cache.terms(&persona, spec);
                let bindings = self.cache.rollouts.news(&terms);
                bindings.iter().for_each(|binding| self.wake_binding(binding));
            }
        }
    }

    /// Others may have gone since it was planned.
    pub(super) fn is_still_its_turn(&self, want: &Desired, seen: &Observed) -> Result<(), Trouble> {
        let rolls = want.holder.as_ref().is_some_and(|holder| rollout::goes(holder, seen));
        match self.cache.turn(want) {
            Turn::Wait { reason, message, .. } if rolls => Err(Trouble { reason, message }),
            Turn::Wait { .. } | Turn::NotKnown | Turn::Go => Ok(()),
        }
    }

    pub(super) fn why_rollout(&self, persona: &Name) -> String {
        let Some(held) = self.cache.objects.personas.get(persona) else { return String::new() };
        let (progress, running) = (self.cache.progress(persona, &held.spec), self.cache.objects.running_of(persona));
        let mut text =
            format!(" Of {running} bindings that are to run, {} run its revision, and {} are up.", progress.updated, progress.ready);
        let Some(rollout) = held.spec.rollout else { return text };
        let stage = match &progress.stage {
            Stage::Halted(failed) => format!(
                " Its rollout is halted: {failed} was started with the new revision and has not come up (`embody why {failed}`) [{}].",
                Reason::RolloutHalted
            ),
            Stage::Paused => format!(" Its rollout is paused: raise or remove `rollout.pauseAfter` to go on [{}].", Reason::RolloutPaused),
            Stage::Free if progress.old == 0 => String::new(),
            Stage::Free => {
                let most = rollout.max_unavailable.of(running).max(1);
                format!(" Its rollout goes on: {most} may be unavailable at one time [{}].", Reason::RolloutWaits)
            }
        };
        text.push_str(&stage);
        if let Some(of) = self.cache.rollouts.down(persona) {
            text.push_str(&format!(" {of} is not up, or not known to be (`embody why {of}`)."));
        }
        if let Some((of, stop)) = self.stopped_of(persona) {
            text.push_str(&format!(" {of} is stopped: {} [{}].", stop.message, stop.reason));
        }
        text
    }

    /// One of its bindings that a person or a guardrail keeps from being restarted.
    fn stopped_of(&self, persona: &Name) -> Option<(&Name, Trouble)> {
        let objects = &self.cache.objects;
        objects.bindings_of_persona(persona).find_map(|binding| {
            let server = objects.bindings.get(binding)?.spec.target.server.as_ref()?;
            Some((binding, self.cache.stops(server, binding).next()?))
        })
    }
}
