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

    /// Its end is planned, for whatever reason.
    pub(crate) fn leaves(&mut self, persona: &Name, binding: &Name) {
        let member = self.groups.get(persona).and_then(|group| group.members.get(binding)).copied();
        if let Some(member) = member.filter(|member| member.life == Life::Up) {
            self.note(persona, binding, Some(Member { life: Life::Leaving, ..member }));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Share;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn body(life: Life, runs: Runs) -> Member {
        Member { life, runs, asked: true, ..Member::default() }
    }

    /// All that a body can be, as far as it makes a difference.
    fn bodies() -> Vec<Member> {
        let willing = |life| Member { willing: true, ..body(life, Runs::Old) };
        vec![
            willing(Life::Up),
            body(Life::Up, Runs::Old),
            willing(Life::Down),
            Member { fails: true, ..willing(Life::Down) },
            willing(Life::Unknown),
            Member { begun: true, ..body(Life::Leaving, Runs::Old) },
            Member { begun: true, ..body(Life::Down, Runs::Old) },
            body(Life::Up, Runs::New),
            body(Life::Down, Runs::New),
            Member { fails: true, ..body(Life::Down, Runs::New) },
            Member { earlier: true, ..body(Life::Down, Runs::New) },
            body(Life::Unknown, Runs::New),
            body(Life::Unknown, Runs::Nothing),
            body(Life::Down, Runs::Nothing),
        ]
    }

    struct Fleet {
        rollouts: Rollouts,
        members: Vec<(Name, Member)>,
        rollout: Rollout,
    }

    impl Fleet {
        fn of(members: &[Member], rollout: Rollout) -> Fleet {
            let names = ["a", "b", "c", "d"].map(name);
            let members: Vec<(Name, Member)> = names.into_iter().zip(members.iter().copied()).collect();
            let mut rollouts = Rollouts::default();
            members.iter().for_each(|(binding, member)| rollouts.note(&name("p"), binding, Some(*member)));
            Fleet { rollouts, members, rollout }
        }

        fn turn(&self, n: usize) -> Turn {
            let terms = Terms { persona: &name("p"), rollout: self.rollout, running: self.members.len() };
            self.rollouts.turn(&terms, &self.members[n].0)
        }

        fn goes(&self) -> Vec<usize> {
            (0..self.members.len()).filter(|n| self.turn(*n) == Turn::Go && !self.members[*n].1.begun).collect()
        }

        fn is(&mut self, n: usize, member: Member) {
            self.members[n].1 = member;
            self.rollouts.note(&name("p"), &self.members[n].0, Some(member));
        }

        fn count(&self, is: impl Fn(&Member) -> bool) -> usize {
            self.members.iter().filter(|(_, member)| is(member)).count()
        }

        /// Its answer is withdrawn.
        fn begins(&mut self, n: usize) {
            let before = self.members[n].1;
            let most = self.rollout.max_unavailable.of(self.members.len());
            let told = || format!("{:?}, {:?}: {n} goes", self.members, self.rollout);
            let others_down = self.count(|m| m.life != Life::Up) - usize::from(before.life != Life::Up);
            assert!(before.runs == Runs::Old && before.willing, "{}", told());
            assert!(before.life == Life::Down || others_down < most, "{}: too many are down", told());
            assert!(self.count(|m| m.begun || m.runs == Runs::New && m.life == Life::Down) < most, "{}: too many are on their way", told());
            assert_eq!(self.count(|m| m.runs == Runs::New && (m.fails || m.earlier)), 0, "{}: one has failed, or may have", told());
            let ahead = self.count(|m| m.runs == Runs::New || m.begun || m.runs == Runs::Nothing && m.life == Life::Down);
            assert!(before.fails || self.rollout.pause_after.is_none_or(|n| ahead < n as usize), "{}: it is paused", told());
            let life = if before.life == Life::Up || before.fails { Life::Leaving } else { before.life };
            self.is(n, Member { begun: true, willing: false, fails: false, life, ..before });
            assert_eq!(self.turn(n), Turn::Go, "{:?}, {:?}: {n} has begun, and its turn is over by that", self.members, self.rollout);
        }
    }

    /// Every fleet of three, and who goes first of those that may.
    #[test]
    fn nobody_is_restarted_beyond_what_may_be_unavailable_after_a_failure_or_in_a_pause() {
        let all = bodies();
        let (mut fleets, mut begun) = (0, 0);
        for (x, y, z) in all.iter().flat_map(|x| all.iter().flat_map(move |y| bodies().into_iter().map(move |z| (*x, *y, z)))) {
            for (most, pause_after) in [(1, None), (2, None), (3, None), (1, Some(1)), (2, Some(1)), (2, Some(2))] {
                let rollout = Rollout { max_unavailable: Share::Count(most), pause_after };
                let first = Fleet::of(&[x, y, z], rollout).goes();
                fleets += 1;
                for n in first {
                    let mut fleet = Fleet::of(&[x, y, z], rollout);
                    fleet.begins(n);
                    begun += 1;
                    while let Some(next) = fleet.goes().first() {
                        fleet.begins(*next);
                        begun += 1;
                    }
                }
            }
        }
        assert!(fleets > 16_000 && begun > 2_000, "{fleets} {begun}");
    }

    #[test]
    fn where_all_are_up_somebody_goes_until_all_have_gone() {
        let old = Member { willing: true, ..body(Life::Up, Runs::Old) };
        for most in 1..=3 {
            let mut fleet = Fleet::of(&[old; 4], Rollout { max_unavailable: Share::Count(most), pause_after: None });
            for n in 0..4 {
                assert_eq!(fleet.goes(), [n], "by name, one after the other");
                fleet.is(n, body(Life::Up, Runs::New));
            }
        }
    }

    #[test]
    fn what_has_failed_stays_so_until_it_is_up_or_is_to_run_something_else() {
        let old = Member { willing: true, ..body(Life::Up, Runs::Old) };
        let failed = Member { fails: true, ..body(Life::Down, Runs::New) };
        for (then, goes) in [
            (body(Life::Down, Runs::New), false),
            (body(Life::Unknown, Runs::New), false),
            (body(Life::Up, Runs::New), true),
            (body(Life::Down, Runs::Old), false),
        ] {
            let mut fleet = Fleet::of(&[failed, old, old], Rollout { max_unavailable: Share::Count(3), pause_after: None });
            assert!(matches!(fleet.turn(1), Turn::Wait { reason: Reason::RolloutHalted, .. }));
            fleet.is(0, then);
            let halted = matches!(fleet.turn(1), Turn::Wait { reason: Reason::RolloutHalted, .. });
            assert_eq!(halted, !goes && then.runs == Runs::New, "{then:?}");
        }
        // It goes back first, whatever may be unavailable.
        let fleet = Fleet::of(&[old, Member { fails: true, willing: true, ..body(Life::Down, Runs::Old) }, old], Rollout::default());
        assert_eq!(fleet.goes(), [1]);
    }

    /// What was not noted, or is in doubt, is not up.
    #[test]
    fn who_is_not_known_is_not_counted_on() {
        let old = Member { willing: true, ..body(Life::Up, Runs::Old) };
        let mut fleet = Fleet::of(&[old, old], Rollout::default());
        assert_eq!(fleet.goes(), [0]);
        fleet.rollouts.doubt(&name("p"), &name("b"), true);
        assert!(fleet.goes().is_empty());
        fleet.rollouts.forget(&name("b"));
        assert!(fleet.goes().is_empty());
        fleet.is(1, old);
        assert_eq!(fleet.goes(), [0]);
    }

    #[test]
    fn those_behind_a_pause_are_not_disrupted_without_another_word() {
        let old = Member { willing: true, ..body(Life::Up, Runs::Old) };
        let fleet = Fleet::of(&[old; 4], Rollout { max_unavailable: Share::Count(1), pause_after: Some(2) });
        let comes = |n| matches!(fleet.turn(n), Turn::Go | Turn::Wait { comes: true, .. });
        assert_eq!([0, 1, 2, 3].map(comes), [true, true, false, false]);
    }
}
