//! Whose turn it is: the bodies of each persona together, so that a rollout takes down no more of them than its persona says, one after the other by
//! name, and stops at the first that does not come up with the new revision. Pure.
//!
//! Leaves out: how one body stands (`rollout`). Nothing of it is stored: it is seen anew after a start. Invariants: whoever is not known to be up
//! counts as unavailable; the work for one body does not grow with how many there are. Shown by the tests below and `tests/revisions.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::rollout::{Life, Member, Runs, Turn};
use crate::model::persona::Rollout;
use crate::model::{Name, Reason};

/// How far into its line it is looked who comes before `pauseAfter`: whoever stands behind counts as if he came.
const LOOKED_AT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Rollouts {
    groups: BTreeMap<Name, Group>,
    persona_of: BTreeMap<Name, Name>,
    /// Personas of which something is otherwise than when it was asked last.
    changed: BTreeSet<Name>,
}

/// The bodies of the running bindings of one persona, by binding: of each set it is known how many are in it.
#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<Name, Member>,
    up: BTreeSet<Name>,
    /// On their way to the new revision: begun, or started with it and not up yet.
    rolling: BTreeSet<Name>,
    /// Of those, started before this controller began.
    earlier: BTreeSet<Name>,
    /// Did not come up with the new revision, and were not up since.
    failed: BTreeSet<Name>,
    new: BTreeSet<Name>,
    new_up: BTreeSet<Name>,
    /// They are about to have it.
    to_be_new: BTreeSet<Name>,
    /// With the old revision, in the order of their turns.
    old: BTreeSet<(Rank, Name)>,
    /// Of those, the ones that nothing but their turn holds up.
    line: BTreeSet<(Rank, Name)>,
    unasked: BTreeSet<Name>,
    told: Stage,
}

/// Whoever takes the least away comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Fails,
    Down,
    Other,
}

/// What keeps all of them waiting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    Free,
    Halted(Name),
    Paused,
}

/// What a persona asks for, and how many of its bindings are to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub persona: &'a Name,
    pub rollout: Rollout,
    pub running: usize,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Of each of them something is known since this controller began.
    pub is_known: bool,
    pub updated: usize,
    pub ready: usize,
    pub old: usize,
    pub stage: Stage,
}

impl Rollouts {
    /// How the body of a binding stands now; nothing where none is to run.
    pub(crate) fn note(&mut self, persona: &Name, binding: &Name, member: Option<Member>) {
        if self.persona_of.get(binding).is_some_and(|before| before != persona) {
            self.forget(binding);
        }
        let Some(mut member) = member else { return self.forget(binding) };
        let group = self.groups.entry(persona.clone()).or_default();
        // That it was down when it was begun stays so: else its beginning would take its own turn away, again and again.
        let was_down = group.members.get(binding).is_some_and(|before| before.life == Life::Down && before.runs == Runs::Old);
        if member.begun && member.life == Life::Leaving && was_down {
            member.life = Life::Down;
        }
        if group.members.get(binding) == Some(&member) {
            return;
        }
        group.set(binding, Some(member));
        self.persona_of.insert(binding.clone(), persona.clone());
        self.changed.insert(persona.clone());
    }

    pub(crate) fn forget(&mut self, binding: &Name) {
        let Some(persona) = self.persona_of.remove(binding) else { return };
        let Some(group) = self.groups.get_mut(&persona) else { return };
        group.set(binding, None);
        if group.members.is_empty() {
            self.groups.remove(&persona);
        }
        self.changed.insert(persona);
    }

    /// Something is desired of it that nobody has looked at yet, or there is nothing to look at: it is not counted on.
    pub(crate) fn doubt(&mut self, persona: &Name, binding: &Name, is_there: bool) {
        let member = self.groups.get(persona).and_then(|group| group.members.get(binding)).copied().unwrap_or_default();
        let asked = member.asked || !is_there;
        self.note(persona, binding, Some(Member { life: Life::Unknown, willing: false, asked, ..member }));
    }

    pub(crate) fn is_up(&self, persona: &Name, binding: &Name) -> bool {
        self.groups.get(persona).is_some_and(|group| group.up.contains(binding))
    }

    /// What its persona asks for is another one.
    pub(crate) fn touched(&mut self, persona: &Name) {
        self.changed.insert(persona.clone());
    }

    pub(crate) fn turn(&self, terms: &Terms<'_>, binding: &Name) -> Turn {
        let member = self.groups.get(terms.persona).and_then(|group| Some((group, *group.members.get(binding)?)));
        member.map_or(Turn::NotKnown, |(group, member)| group.turn(terms, binding, member))
    }

    pub(crate) fn progress(&self, terms: &Terms<'_>) -> Progress {
        let nobody = Group::default();
        let group = self.groups.get(terms.persona).unwrap_or(&nobody);
        Progress {
            is_known: group.members.len() == terms.running && group.unasked.is_empty(),
            updated: group.new.len(),
            ready: group.up.len(),
            old: group.old.len(),
            stage: group.stage(terms),
        }
    }

    /// One that is not up, or not known to be, if there is one.
    pub(crate) fn down(&self, persona: &Name) -> Option<&Name> {
        let group = self.groups.get(persona)?;
        group.members.keys().find(|binding| !group.up.contains(*binding))
    }

    pub(crate) fn take_changed(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.changed)
    }

    /// Who is to be planned again now that something of this persona is otherwise: the next one, or all that wait where what they wait for is another.
    pub(crate) fn news(&mut self, terms: &Terms<'_>) -> Vec<Name> {
        let Some(group) = self.groups.get_mut(terms.persona) else { return Vec::new() };
        let stage = group.stage(terms);
        if group.told != stage {
            group.told = stage;
            return group.old.iter().map(|(_, binding)| binding.clone()).collect();
        }
        let next = group.line.first().map(|(_, binding)| binding.clone());
        next.filter(|binding| self.turn(terms, binding) == Turn::Go).into_iter().collect()
    }
}

impl Group {
    fn set(&mut self, binding: &Name, member: Option<Member>) {
        let before = match &member {
            Some(member) => self.members.insert(binding.clone(), *member),
            None => self.members.remove(binding),
        };
        let failed = self.failed.contains(binding);
        let is = member.unwrap_or_default();
        let is_up = is.life == Life::Up;
        let new = is.runs == Runs::New;
        // Once is enough: what it said that failed may be forgotten before it is up.
        note(&mut self.failed, binding, new && !is_up && (is.fails || failed));
        note(&mut self.up, binding, is_up);
        note(&mut self.rolling, binding, is.begun || (new && is.life == Life::Down));
        note(&mut self.earlier, binding, new && is.earlier);
        note(&mut self.new, binding, new);
        let off = member.is_some() && is.runs == Runs::Nothing && is.life == Life::Down;
        note(&mut self.to_be_new, binding, is.begun || off);
        note(&mut self.new_up, binding, new && is_up);
        note(&mut self.unasked, binding, member.is_some() && !is.asked);
        if let Some(before) = before {
            let key = key(&before, binding);
            self.old.remove(&key);
            self.line.remove(&key);
        }
        if member.is_some() && is.runs == Runs::Old && !is.begun {
            self.old.insert(key(&is, binding));
            if is.willing {
                self.line.insert(key(&is, binding));
            }
        }
    }

    fn stage(&self, terms: &Terms<'_>) -> Stage {
        if let Some(failed) = self.failed.first() {
            return Stage::Halted(failed.clone());
        }
        let paused = terms.rollout.pause_after.is_some_and(|n| self.new_up.len() >= n as usize);
        if paused && !self.old.is_empty() { Stage::Paused } else { Stage::Free }
    }

    fn turn(&self, terms: &Terms<'_>, binding: &Name, member: Member) -> Turn {
        let persona = terms.persona;
        match self.stage(terms) {
            Stage::Halted(failed) => return wait(Reason::RolloutHalted, halted(persona, &failed), false),
            // What failed with another revision than this one is to have it: that is no canary.
            Stage::Paused if !member.fails && !member.begun => {
                return wait(Reason::RolloutPaused, paused(persona, self.new_up.len()), false);
            }
            Stage::Paused | Stage::Free => {}
        }
        let is_before_pause = self.is_before_pause(terms, binding, member);
        let ahead = self.new.len() + self.to_be_new.len() - usize::from(self.to_be_new.contains(binding));
        if terms.rollout.pause_after.is_some_and(|n| ahead >= n as usize) && !member.fails && !member.begun {
            return wait(Reason::RolloutWaits, in_turn(terms), false);
        }
        let most = terms.rollout.max_unavailable.of(terms.running).max(1);
        let rolling = self.rolling.len() - usize::from(self.rolling.contains(binding));
        let unavailable = terms.running.saturating_sub(self.up.len() + usize::from(!self.up.contains(binding)));
        let is_room = rolling < most && (unavailable < most || member.life == Life::Down);
        let earlier = self.earlier.iter().any(|other| other != binding);
        let is_next = member.begun || (member.willing && self.line.first() == Some(&key(&member, binding)));
        match is_room && is_next && !earlier {
            true => Turn::Go,
            false => wait(Reason::RolloutWaits, in_turn(terms), is_before_pause),
        }
    }

    /// Whether it is restarted before the rollout pauses.
    fn is_before_pause(&self, terms: &Terms<'_>, binding: &Name, member: Member) -> bool {
        let Some(most) = terms.rollout.pause_after else { return true };
        let left = (most as usize).saturating_sub(self.new.len() + self.to_be_new.len());
        left > LOOKED_AT || self.old.iter().take(left).any(|other| *other == key(&member, binding))
    }
}

fn key(member: &Member, binding: &Name) -> (Rank, Name) {
    let rank = match (member.fails, member.life == Life::Down) {
        (true, _) => Rank::Fails,
        (false, true) => Rank::Down,
        (false, false) => Rank::Other,
    };
    (rank, binding.clone())
}

fn note(set: &mut BTreeSet<Name>, binding: &Name, is: bool) {
    match is {
        true => drop(set.insert(binding.clone())),
        false => drop(set.remove(binding)),
    }
}

fn wait(reason: Reason, message: String, comes: bool) -> Turn {
    Turn::Wait { reason, message, comes }
}

fn in_turn(terms: &Terms<'_>) -> String {
    let Terms { persona, rollout, running } = terms;
    let most = rollout.max_unavailable.of(*running).max(1);
    format!(
        "the rollout of persona {persona} restarts it in its turn: {most} of {running} may be unavailable (`embody why persona/{persona}`)"
    )
}

fn halted(persona: &Name, failed: &Name) -> String {
    format!(
        "the rollout of persona {persona} is halted: {failed} was started with the new revision and has not come up \
         (`embody why {failed}`); it goes on when that is up, or back when the persona names the old revision again"
    )
}

fn paused(persona: &Name, done: usize) -> String {
    format!(
        "the rollout of persona {persona} is paused after {done}: raise or remove `rollout.pauseAfter` to go on; \
         name the old revision and remove it to go back"
    )
}
