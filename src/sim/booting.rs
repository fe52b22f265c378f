//! What machines of the data centre do to boot: they ask as their firmware would, from the view that is published, and run what they are told.
//!
//! Leaves out: DHCP and files, which decide nothing. Invariant: what is not "parked" is run only if it was told while the lease held under which it
//! was asked for, as `server::boot` tells it.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::centre::{ANSWER_WAIT, ASK_AGAIN, Answers, Centre, Runs};
use crate::boot::answer::{Ask, Verdict, judge};
use crate::boot::script::For;
use crate::control::booting::Answer;
use crate::control::controller::Message;
use crate::model::claim::{self, Claim};
use crate::model::server::Arch;
use crate::model::{Mac, Name};

impl Centre {
    pub(super) async fn ask_what_to_boot(self: Arc<Self>, server: Name, mac: Mac, start: u64, again: bool, answers: Answers) {
        let answer = timeout(ANSWER_WAIT, self.answered(&server, mac, answers)).await.ok().flatten();
        self.booted(&server, start, again, answer);
    }

    /// As `server::boot` answers: what is not "parked" only while the lease holds under which it was asked for.
    async fn answered(&self, server: &Name, mac: Mac, answers: Answers) -> Option<Answer> {
        let holds = answers.holds.borrow().clone();
        let to_controller = answers.controller.borrow().clone();
        let ((host, lease, shared), to_controller) = (holds?, to_controller?);
        let ask = Ask { mac, uuid: None, arch: Arch::X86_64, from: None };
        let now = || shared.view.borrow().as_ref().map(|view| judge(&ask, view));
        let to = For { base: "http://192.0.2.1", mac };
        let answer = match now()? {
            Verdict::Parked(parked) => {
                let why = parked.why.clone();
                to_controller.try_send(Message::Parked(parked)).ok()?;
                return Some(Answer::parked(to, &why));
            }
            Verdict::Starts { .. } => {
                let (reply, answer) = oneshot::channel();
                to_controller.send(Message::Boot { ask: ask.clone(), base: to.base.to_owned(), reply }).await.ok()?;
                answer.await.ok()?
            }
        };
        self.freezer.awake(host).await;
        if answer.persona.is_some() {
            // A process that stood still and goes on reads both anew.
            if !lease.holds() || !matches!(now()?, Verdict::Starts { snapshot, .. } if Some(&snapshot.persona) == answer.persona.as_ref()) {
                return None;
            }
            self.judge(|judge, now| judge.answering(host, server, now));
        }
        Some(answer)
    }

    fn booted(&self, server: &Name, start: u64, again: bool, answer: Option<Answer>) {
        let now = self.now();
        let mut state = self.state();
        let stands = state.judge.stands_on_disk(server);
        let Some(machine) = state.machines.get_mut(server) else { return };
        if machine.start != start || matches!(machine.runs, Runs::Nothing) {
            return;
        }
        machine.wake.notify_one();
        let persona = answer.as_ref().and_then(|a| a.persona.clone());
        let persona = match &mut machine.remembers {
            Some(last) => {
                *last = persona.or_else(|| last.take());
                last.clone()
            }
            None => persona,
        };
        let text = match (&persona, &answer) {
            (Some(persona), _) => {
                machine.runs = Runs::Persona(persona.clone());
                machine.disk = stands.filter(|p| p == persona).or(machine.disk.take());
                format!("runs persona {persona}")
            }
            (None, Some(answer)) => {
                machine.runs = Runs::Parked;
                machine.ask_at = Some((now.plus(ASK_AGAIN), true));
                format!("is {}", answer.says)
            }
            (None, None) => {
                machine.ask_at = Some((now.plus(ASK_AGAIN), again));
                "gets no boot answer".to_owned()
            }
        };
        state.trace.note(now, &[server], text);
        if let Some(persona) = persona {
            state.judge.runs(server, &persona, answer.as_ref().and_then(|a| mounted(&a.script)));
        }
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
    }
}

/// The directory that a boot script mounts to write, if it does: `nfsroot=10.0.20.5:/p/apache,vers=4.2 rw`.
fn mounted(script: &str) -> Option<Claim> {
    let (_, rest) = script.split_once("nfsroot=")?;
    let (place, rest) = rest.split_once(' ')?;
    let (host, path) = place.split_once(":/")?;
    rest.starts_with("rw").then(|| host.parse().ok().map(|host| claim::directory(&host, &format!("/{path}"))))?
}
