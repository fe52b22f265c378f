//! Agents of the data centre: what is started with an exchange asks who it is before it says hello, and says again and again that it is up; a stranger
//! asks as well.
//!
//! Leaves out: TLS and addresses (`server::boot::exchange`). Invariant: one start has one identity, told to whoever asked first and to nobody else. Shown by
//! `tests/revisions.rs`.

use std::sync::Arc;
use std::time::Duration;

use embody_protocol::{ALIVE_EVERY_S, Alive, Question, Secret};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::centre::{ANSWER_WAIT, ASK_AGAIN, Answers, Centre};
use crate::boot::token::Token;
use crate::control::controller::Message;
use crate::control::systems::{Hello, Identified};
use crate::model::Name;

/// What a start is known by.
pub(super) struct Agent {
    pub server: Name,
    pub token: String,
    pub secret: String,
}

impl Agent {
    pub(super) fn new(server: &Name, token: &str) -> Agent {
        Agent { server: server.clone(), token: token.to_owned(), secret: Uuid::new_v4().simple().to_string() }
    }
}

impl Centre {
    /// The way to the controller that acts, what the token says, and a NIC of the server. Nothing: nobody acts, or it is no token of this site.
    async fn at_controller(&self, agent: &Agent, answers: &Answers) -> Option<(mpsc::Sender<Message>, Token, String)> {
        let (host, _, shared) = answers.holds.borrow().clone()?;
        let to_controller = answers.controller.borrow().clone()?;
        let view = shared.view.borrow().clone()?;
        let mac = view.macs_of(&agent.server).next()?.to_string();
        let token = view.key.as_ref()?.check(&agent.server, &agent.token)?;
        self.freezer.awake(host).await;
        Some((to_controller, token, mac))
    }

    async fn asks(&self, agent: &Agent, secret: &str, answers: &Answers) -> Option<Identified> {
        let asked = async {
            let (to_controller, token, mac) = self.at_controller(agent, answers).await?;
            let question = Question { secret: Secret(secret.to_owned()), mac };
            let (reply, answer) = oneshot::channel();
            to_controller.send(Message::Identify { server: agent.server.clone(), token, question, reply }).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_WAIT, asked).await.ok().flatten()
    }

    /// Asks until it is answered; then a stranger does. Whether it was told.
    pub(super) async fn learns_who_it_is(&self, server: &Name, start: u64, agent: &Agent, answers: &Answers) -> bool {
        while self.is_up(server, start) {
            match self.asks(agent, &agent.secret, answers).await.filter(|_| !self.is_answer_lost(server)) {
                Some(Identified::Told(..)) => {
                    self.note(&[server], "was told who it is");
                    if let Some(Identified::Told(..)) = self.asks(agent, &"f".repeat(32), answers).await {
                        self.judge(|judge, _| judge.told_twice(server));
                    }
                    return true;
                }
                Some(said @ (Identified::Another | Identified::NotIt(_))) => {
                    self.note(&[server], format!("is not told who it is: {said:?}"));
                    return false;
                }
                Some(Identified::NotYet(_) | Identified::Later) | None => sleep(ASK_AGAIN).await,
            }
        }
        false
    }

    /// Until another start is the last one, or it runs no longer.
    pub(super) async fn stays_up(self: Arc<Self>, server: Name, start: u64, agent: Agent, answers: Answers) {
        loop {
            sleep(Duration::from_secs(ALIVE_EVERY_S)).await;
            if !self.is_up(&server, start) || self.is_silent(&server, start) {
                return;
            }
            let said = async {
                let (to_controller, token, _) = self.at_controller(&agent, &answers).await?;
                let alive = Alive { secret: Secret(agent.secret.clone()), written: 1 << 20, written_most: 1 << 30, ..Alive::default() };
                let (reply, answer) = oneshot::channel();
                to_controller.send(Message::StillUp { server: agent.server.clone(), token, said: alive, reply }).await.ok()?;
                answer.await.ok()
            };
            if timeout(ANSWER_WAIT, said).await.ok().flatten() == Some(Hello::Another) {
                return;
            }
        }
    }
}
