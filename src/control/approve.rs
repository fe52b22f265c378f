//! What people approve: shown first, held as a list of operations, stored with who gave it, and counted as done.
//!
//! Leaves out: what a list covers (`plan::approval`) and what needs one (`plan::consent`). Invariant 11: what is approved is what was shown,
//! told apart by a digest; that an operation is done is stored before the next one of that server is planned. Shown by `tests/approvals.rs`.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::actions::{in_words, list, shown};
use super::cache::Stored;
use super::controller::Controller;
use crate::control::operator::{ApprovalShown, Approving, Refusal};
use crate::limits;
use crate::model::binding::{Mode, Plane};
use crate::model::body::{Body, Hold};
use crate::model::fact::{Power, Tick};
use crate::model::op::{Off, Op};
use crate::model::{Name, Objects, Reason};
use crate::plan::approval::{Approval, Listed};
use crate::plan::desired::{Authority, Desired};
use crate::plan::forecast::Future;
use crate::plan::observed::{Elsewhere, Observed};
use crate::plan::record::Record;
use crate::plan::{self, consent, fence, resolve};
use crate::store::{Write, keys};
use crate::telemetry::timestamp;

/// An approval as it is stored.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Approved {
    approval: Approval,
    by: String,
    /// RFC 3339.
    at: String,
}

/// An approval in memory.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(super) approval: Approval,
    by: String,
    at: String,
    /// When it ends, if nothing of it is begun by then.
    until: Tick,
    /// As it is in the store.
    is_stored: bool,
}

impl Approved {
    /// Until when it holds in this process: an hour from when it was given, by the wall clock, and never longer than an hour from now.
    pub(super) fn restored(self, now: Tick) -> Given {
        let Approved { approval, by, at } = self;
        let given: Option<i64> = at.parse::<jiff::Timestamp>().ok().map(|t| t.as_second());
        let today: Option<i64> = timestamp().parse::<jiff::Timestamp>().ok().map(|t| t.as_second());
        let age = given.zip(today).and_then(|(given, today)| u64::try_from(today - given).ok());
        let left = age.map_or(Duration::ZERO, |age| limits::APPROVAL_FOR.saturating_sub(Duration::from_secs(age)));
        Given { approval, by, at, until: now.plus(left), is_stored: true }
    }
}

impl Given {
    fn to_store(&self) -> Vec<u8> {
        let approved = Approved { approval: self.approval.clone(), by: self.by.clone(), at: self.at.clone() };
        serde_json::to_vec(&approved).unwrap_or_default()
    }

    /// What is begun is ended, however long it takes.
    fn is_open(&self) -> bool {
        self.approval.begun && self.approval.ops.iter().any(|listed| !listed.done)
    }
}

/// What would be approved, and what it would lead to.
struct Draft {
    approval: Approval,
    /// Of the operations, those that were approved before.
    earlier: Vec<Op>,
    /// What the word records first, and of which server.
    records: (Name, Vec<Record>),
    server: Name,
    future: Future,
}

impl Draft {
    fn digest(&self, word: &Approving) -> String {
        let steps: Vec<&Op> = self.future.steps.iter().map(|s| &s.step.op).collect();
        // What has a text form in JSON always has one.
        let text = serde_json::to_vec(&(format!("{word:?}"), &self.approval, steps)).unwrap_or_default();
        Sha256::digest(&text).iter().take(6).map(|b| format!("{b:02x}")).collect()
    }
}

impl Controller {
    pub(super) fn show_approval(&self, binding: &Name, word: &Approving) -> Result<ApprovalShown, Refusal> {
        let draft = self.draft(binding, word)?;
        let earlier = draft.earlier.iter().map(Op::to_string).collect();
        Ok(ApprovalShown { digest: draft.digest(word), forecast: shown(&draft.future), earlier })
    }

    pub(super) async fn approve(&mut self, binding: &Name, word: &Approving, digest: &str, who: &str) -> Result<String, Refusal> {
        let draft = self.draft(binding, word)?;
        if draft.digest(word) != digest {
            let why = format!("what {binding} would do is not what was shown any more: look at it again");
            return Err(Refusal::Refused { why });
        }
        let (of, records) = &draft.records;
        if !records.is_empty() && !self.record(of, records).await {
            return Err(Refusal::Store { why: "it was not stored; try again".to_owned() });
        }
        let Draft { approval, server, future, .. } = draft;
        if *word == Approving::Adopt {
            let message = format!("{who} declares that server {server} runs the persona of binding {binding}");
            self.status.event("Normal", &format!("Binding/{binding}"), "Adopted", &message);
            self.wake(&server);
            let then = if future.steps.is_empty() { "" } else { "; what follows waits for an approval" };
            return Ok(format!("server {server} is taken to run the persona of {binding} already; it is not switched off{then}"));
        }
        let ops: Vec<String> = approval.ops.iter().filter(|listed| !listed.done).map(|listed| listed.op.to_string()).collect();
        let hard = if approval.hard { ", hard where it must be" } else { "" };
        let until = self.clock.now().plus(limits::APPROVAL_FOR);
        let given = Given { approval, by: who.to_owned(), at: timestamp(), until, is_stored: true };
        self.put(&keys::approval(binding), given.to_store()).await?;
        self.cache.approvals.insert(binding.clone(), given);
        // A person has looked: what failed before is tried now.
        self.bodies_of(binding).iter().for_each(|body| self.in_flight.forget_failures(body));
        self.status.event("Normal", &format!("Binding/{binding}"), "Approved", &format!("by {who}{hard}: {}", list(&ops)));
        self.wake_binding(binding);
        Ok(format!(
            "{binding} approved{hard}, to be begun within an hour: {}{}",
            list(&ops),
            self.cache.not_lifted(&self.bodies_of(binding), binding)
        ))
    }

    fn draft(&self, binding: &Name, word: &Approving) -> Result<Draft, Refusal> {
        let held = self.cache.objects.bindings.get(binding).ok_or_else(|| Refusal::NotFound { what: format!("Binding/{binding}") })?;
        let server = held.spec.target.server.clone().ok_or_else(|| Refusal::Refused { why: "it names no server".to_owned() })?;
        let authority = resolve::authority_of(held, Some(&self.cache.body(&server)), &self.cache.objects);
        let records = match word {
            Approving::ThePlan | Approving::Hard => (server.clone(), Vec::new()),
            Approving::Adopt => (server.clone(), self.adopt(binding, &server)?),
            Approving::Release(old) => (old.clone(), vec![self.release_for(&authority, &server, old)?]),
        };
        let made_from = resolve::made_from(held, &self.cache.objects);
        let Authority { uid, generation, answer, .. } = authority.clone();
        let hard = Approval { uid, generation, answer, made_from, ops: Vec::new(), hard: *word == Approving::Hard, begun: false };
        let future = self.future(&self.cache.objects, &|name, seen| {
            records.1.iter().filter(|_| records.0 == *name).for_each(|record| record.apply(&mut seen.body));
            if hard.hard {
                seen.approvals.insert(binding.clone(), hard.clone());
            }
        });
        let future = self.of_binding(future, binding, &server);
        let mut draft = Draft { approval: hard, earlier: Vec::new(), records, server, future };
        if *word != Approving::Adopt {
            self.list_ops(&mut draft, &authority)?;
        }
        Ok(draft)
    }

    /// Of a forecast, what is about this binding.
    fn of_binding(&self, future: Future, binding: &Name, server: &Name) -> Future {
        let mut bodies = self.bodies_of(binding);
        bodies.push(server.clone());
        Future {
            steps: future.steps.into_iter().filter(|s| s.step.binding == *binding).collect(),
            waits: future.waits.into_iter().filter(|(server, _)| bodies.contains(server)).collect(),
            problems: future.problems.into_iter().filter(|(server, _)| bodies.contains(server)).collect(),
        }
    }

    /// What is still to be done of an earlier approval, and what was forecast now.
    fn list_ops(&self, draft: &mut Draft, authority: &Authority) -> Result<(), Refusal> {
        let before = self.cache.approvals.get(&authority.binding).map(|given| &given.approval).filter(|a| a.is_for(authority));
        draft.approval.hard |= before.is_some_and(|a| a.hard);
        let ops: Vec<Op> = draft.future.steps.iter().map(|s| s.step.op.clone()).collect();
        let open = before.into_iter().flat_map(|a| &a.ops).filter(|listed| !listed.done && !ops.contains(&listed.op));
        // What was seen of them stays: one that was sent is not shown anew, and is no more covered once it is seen done.
        let open: Vec<Listed> = open.cloned().collect();
        draft.earlier = open.iter().map(|listed| listed.op.clone()).collect();
        let nothing_new = ops.is_empty();
        draft.approval.begun = !open.is_empty() && before.is_some_and(|a| a.begun);
        draft.approval.ops = open.into_iter().chain(ops.into_iter().map(Listed::new)).collect();
        for server in self.bodies_of(&authority.binding) {
            let seen = self.cache.seen(&server, &self.cache.want(&server));
            draft.approval.sees(&server, &seen);
        }
        // What cannot be planned yet, nobody was shown. What only waits for this word is no such thing.
        let asks = |reason| matches!(reason, Reason::Observing | Reason::ApprovalNeeded | Reason::Held);
        let waits = draft.future.waits.iter().filter(|(_, wait)| !asks(wait.reason));
        // Two bodies of it may wait for the same.
        let mut waits: Vec<String> = waits.map(|(_, wait)| wait.message.clone()).collect();
        waits.sort();
        waits.dedup();
        // That what is answered on a body that is off is withdrawn waits for nobody else: what follows is asked for when it can be planned.
        let shown = self.waits_for_approval(&authority.binding) && (waits.is_empty() || self.withdraws_first(authority));
        if nothing_new && !shown && !(draft.approval.hard && self.is_to_be_off(authority)) {
            let earlier: Vec<String> = draft.earlier.iter().map(Op::to_string).collect();
            let observes = draft.future.waits.iter().find(|(_, wait)| wait.reason == Reason::Observing);
            let why = match (waits.as_slice(), earlier.as_slice(), observes) {
                ([], [], Some((_, wait))) => {
                    format!("{}: no approval changes that, `correct: approve` or `correct: enforce` does", wait.message)
                }
                ([], [], None) => "nothing of it waits for an approval".to_owned(),
                (_, [_, ..], _) => {
                    format!("nothing more of it waits for an approval; approved before, and not seen done yet: {}", list(&earlier))
                }
                (waits, ..) => format!("nothing can be planned yet: {}", waits.join("; ")),
            };
            return Err(Refusal::Refused { why });
        }
        Ok(())
    }

    /// A body of it is to be switched off, and is on: a word about how has something to be about.
    fn is_to_be_off(&self, authority: &Authority) -> bool {
        let is = |server: &Name| {
            let want = self.cache.want(server);
            let seen = self.cache.seen(server, &want);
            !seen.is(Power::Off) && fence::why_off(&want, &seen).is_some()
        };
        authority.mode(Plane::Power) != Mode::Observe && self.bodies_of(&authority.binding).iter().any(is)
    }

    /// A body of it is off, and by a person's word what is answered there, and is outdated, is withdrawn: nothing is sent for that.
    fn withdraws_first(&self, authority: &Authority) -> bool {
        let is = |server: &Name| {
            let want = self.cache.want(server);
            let seen = self.cache.seen(server, &want);
            let off = Op::PowerOff { server: server.clone(), how: Off::Soft };
            let why = fence::why_off(&want, &seen).filter(|why| seen.is(Power::Off) && !why.withdraw.is_empty());
            let whose = why.filter(|why| why.authority.binding == authority.binding);
            let refused = whose.and_then(|why| consent::refusal(why.authority, Plane::Power, &off, &seen));
            refused.is_some_and(|wait| matches!(wait.reason, Reason::ApprovalNeeded | Reason::Held))
        };
        self.bodies_of(&authority.binding).iter().any(is)
    }

    /// Something of it waits for a person although nothing would be sent: what is answered on a body that is off.
    fn waits_for_approval(&self, binding: &Name) -> bool {
        let now = self.clock.now();
        let waits = |server: &Name| {
            let want = self.cache.want(server);
            let plan = plan::plan(&want, &self.cache.seen(server, &want), now);
            plan.waits.iter().any(|wait| matches!(wait.reason, Reason::ApprovalNeeded | Reason::Held))
        };
        self.bodies_of(binding).iter().any(waits)
    }

    /// The bodies that a binding holds, is to release, or names.
    fn bodies_of(&self, binding: &Name) -> Vec<Name> {
        let mut bodies: Vec<Name> = self.cache.held_by(binding).cloned().collect();
        bodies.extend(self.cache.objects.bindings.get(binding).and_then(|b| b.spec.target.server.clone()));
        bodies
    }

    fn adopt(&self, binding: &Name, server: &Name) -> Result<Vec<Record>, Refusal> {
        let want = self.cache.want(server);
        let seen = self.cache.seen(server, &want);
        let Some(holder) = want.holder.as_ref().filter(|h| h.authority.binding == *binding) else {
            return Err(Refusal::Refused {
                why: format!("binding {binding} does not hold server {server}; `embody why {binding}` says why"),
            });
        };
        fence::adopt(holder, &seen).map_err(|p| Refusal::Refused { why: p.message })
    }

    /// A server that no binding names is to be released by one that waits for it, as if that had moved away from it.
    fn release_for(&self, authority: &Authority, server: &Name, old: &Name) -> Result<Record, Refusal> {
        let refuse = |why: String| Err(Refusal::Refused { why });
        let (want, binding) = (self.cache.want(server), &authority.binding);
        let seen = self.cache.seen(server, &want);
        let waits = |other: &Elsewhere| matches!(other, Elsewhere::Evidence { .. } | Elsewhere::Disk { .. }) && other.server() == Some(old);
        if !seen.elsewhere.iter().any(waits) {
            return refuse(format!("binding {binding} does not wait for server {old}; `embody why binding/{binding}` says what for"));
        }
        let body = self.cache.body(old);
        if let Some(other) = body.held_by.as_ref().or(body.release.as_ref()) {
            return refuse(format!("server {old} is held by binding {}: move that, or stop it", other.binding));
        }
        if body.runs_by_mistake() || !self.answers(old) {
            return refuse(format!("server {old} cannot be switched off for it: `embody why server/{old}` says what is known of it"));
        }
        if let Err(why) = self.cache.takeover(binding, old) {
            return refuse(format!("server {old} is left as it is until the persona can run on {server}: {why}"));
        }
        Ok(Record::Release(Hold { binding: binding.clone(), uid: authority.uid.clone() }))
    }

    // ---- how far they are done -------------------------------------------------------------------------------------------

    pub(super) fn approved_begins(&mut self, binding: &Name, op: &Op) {
        if let Some(given) = self.cache.approvals.get_mut(binding).filter(|given| !given.approval.begun) {
            given.is_stored &= !given.approval.begins(op);
        }
    }

    pub(super) fn approved_is_done(&mut self, server: &Name, op: &Op) {
        for binding in self.cache.acting(server, &self.cache.want(server)) {
            if let Some(given) = self.cache.approvals.get_mut(&binding) {
                given.is_stored &= !given.approval.is_done(op);
            }
        }
    }

    /// Marks what is seen done, and stores that. False where it could not be stored: nothing is planned before it is.
    pub(super) async fn mark_done(&mut self, server: &Name, want: &Desired, seen: &mut Observed) -> bool {
        if seen.approvals.is_empty() || self.cache.site_stop().is_some() {
            return true;
        }
        for binding in self.cache.acting(server, want) {
            let Some(given) = self.cache.approvals.get_mut(&binding) else { continue };
            if !is_of_now(&binding, &given.approval, &self.cache.objects, &self.cache.bodies) {
                if !self.void_approval(&binding, server).await {
                    return false;
                }
                seen.approvals.remove(&binding);
                continue;
            }
            given.is_stored &= !given.approval.sees(server, seen);
            if given.is_stored {
                continue;
            }
            let (value, approval) = (given.to_store(), given.approval.clone());
            let is_over = approval.ops.iter().all(|listed| listed.done);
            let stored = if is_over { self.forget_approval(&binding).await } else { self.put(&keys::approval(&binding), value).await };
            if let Err(why) = stored {
                tracing::warn!(binding = %binding, error = %why, "how far an approval is done could not be stored");
                self.queue.back_off(server, self.clock.now());
                return false;
            }
            if let Some(given) = self.cache.approvals.get_mut(&binding) {
                given.is_stored = true;
            }
            seen.approvals.insert(binding, approval);
        }
        true
    }

    /// What it was given for was edited: it does not come back into force when that is edited back. False where that could not be stored.
    async fn void_approval(&mut self, binding: &Name, server: &Name) -> bool {
        if let Err(why) = self.forget_approval(binding).await {
            tracing::warn!(binding = %binding, error = %why, "that an approval is over could not be stored");
            self.queue.back_off(server, self.clock.now());
            return false;
        }
        if let Some(given) = self.cache.approvals.remove(binding) {
            let message = format!("by {} at {}: what it was given for was changed", given.by, given.at);
            self.status.event("Normal", &format!("Binding/{binding}"), "ApprovalOver", &message);
        }
        true
    }

    /// Those whose hour is over; of what is begun, once all of it is done or its binding is another one. What stays stored is as old when the next
    /// controller finds it.
    pub(super) fn end_approvals(&mut self) {
        let now = self.clock.now();
        if self.cache.approvals.is_empty() || now < self.approvals_end_at {
            return;
        }
        self.approvals_end_at = now.plus(limits::APPROVALS_ENDED_EVERY);
        let is_for = |binding: &Name, given: &Given| is_of_now(binding, &given.approval, &self.cache.objects, &self.cache.bodies);
        let over = |binding: &Name, given: &Given| now >= given.until && !(given.is_open() && is_for(binding, given));
        let ended: Vec<Name> = self.cache.approvals.iter().filter(|(b, g)| over(b, g)).map(|(b, _)| b.clone()).collect();
        for binding in ended {
            self.cache.approvals.remove(&binding);
            self.wake_binding(&binding);
        }
    }

    async fn forget_approval(&mut self, binding: &Name) -> Result<(), Refusal> {
        let key = keys::approval(binding);
        match self.store.get(&key).await.map_err(in_words)? {
            Some(entry) => self.write_one(Write::delete(key, entry.revision)).await.map(drop).map_err(in_words),
            None => Ok(()),
        }
    }
}

/// Whether what it was given for is as it was then.
fn is_of_now(binding: &Name, approval: &Approval, objects: &Objects, bodies: &std::collections::BTreeMap<Name, Stored<Body>>) -> bool {
    let Some(held) = objects.bindings.get(binding) else { return false };
    let body = held.spec.target.server.as_ref().and_then(|server| bodies.get(server)).map(|body| &body.value);
    approval.is_for(&resolve::authority_of(held, body, objects)) && approval.made_from == resolve::made_from(held, objects)
}
