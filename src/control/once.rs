//! `boot SERVER --once`: the next start boots something else than what is bound, by a person's word.
//!
//! Leaves out: how that comes to pass. It is a change of what is desired of one body, so that modes, approvals, limits and fences hold for it as for
//! an edit of its binding (`plan::resolve`). Shown by `tests/once.rs`.

use super::controller::Controller;
use super::identity::refused;
use super::operator::Refusal;
use crate::model::Name;
use crate::model::binding::RunState;
use crate::model::body::{Body, BootsOnce, Found, Once};
use crate::plan::fence;
use crate::plan::record::Record;
use crate::plan::resolve;
use crate::telemetry::timestamp;

fn already(server: &Name, boots: &BootsOnce) -> String {
    format!("server {server} boots {} once already: `embody boot {server} --cancel` ends that", boots.in_words())
}

impl Controller {
    /// Nothing: what was said before is taken back.
    pub(super) async fn boot_once(&mut self, server: &Name, boots: Option<BootsOnce>, who: &str) -> Result<String, Refusal> {
        if !self.cache.objects.servers.contains_key(server) {
            return Err(Refusal::NotFound { what: format!("Server/{server}") });
        }
        let (record, text) = match boots {
            Some(boots) => self.begin_once(server, boots, who)?,
            None => match self.cache.body(server).once {
                Some(once) => {
                    let text = format!("server {server} boots {} no more: what its binding names follows", once.boots.in_words());
                    (Record::BootedOnce, text)
                }
                None => return refused(format!("server {server} boots nothing but what is bound: there is nothing to cancel")),
            },
        };
        if !self.record(server, &[record]).await {
            return Err(Refusal::Store { why: "it was not stored; try again".to_owned() });
        }
        self.status.event("Normal", &format!("Server/{server}"), "BootsOnce", &format!("by {who}: {text}"));
        self.wake(server);
        Ok(text)
    }

    fn begin_once(&self, server: &Name, boots: BootsOnce, who: &str) -> Result<(Record, String), Refusal> {
        let body = self.cache.body(server);
        let want = self.cache.want(server);
        let Some(holder) = want.holder.as_ref().filter(|h| body.held_by.as_ref().is_some_and(|hold| hold.uid == h.authority.uid)) else {
            return refused(format!("no binding has server {server}, and what is free runs nothing: bind a persona to it"));
        };
        let binding = &holder.authority.binding;
        if holder.state == RunState::Stopped {
            return refused(format!("binding {binding} is Stopped: say `state: Running` first, or nothing is started here"));
        }
        // Whoever says what it runs would say it of the other persona.
        if matches!(body.found, Found::Unknown | Found::Running) {
            return refused(format!(
                "server {server} was found running, or was not seen yet: `embody why server/{server}` says what that waits for"
            ));
        }
        let bound = self.cache.objects.bindings.get(binding).map(|held| held.spec.persona.clone());
        match &boots {
            BootsOnce::Persona(persona) if bound.as_ref() == Some(persona) => {
                return refused(format!("binding {binding} names persona {persona} already: `embody restart {binding}` starts it anew"));
            }
            BootsOnce::Persona(_) if holder.once.as_ref().is_some_and(|once| once.boots == boots) => {
                return refused(already(server, &boots));
            }
            BootsOnce::Persona(persona) => match self.cache.objects.personas.get(persona) {
                None => return Err(Refusal::NotFound { what: format!("Persona/{persona}") }),
                Some(held) if held.spec.root.disk.is_some() => {
                    return refused(format!("persona {persona} boots from the server's own disk: `--once local` boots what is there"));
                }
                Some(_) => {}
            },
            BootsOnce::Local if holder.once.as_ref().is_some_and(|once| once.boots == boots) => return refused(already(server, &boots)),
            BootsOnce::Local => {
                if let Some(persona) = body.on_disk.first() {
                    return refused(format!("the disk of server {server} holds persona {persona}: bind that one to start it"));
                }
            }
        }
        let once = Once { boots, uid: holder.authority.uid.clone(), by: who.to_owned(), at: timestamp() };
        let then = Body { once: Some(once.clone()), ..body };
        let want = resolve::want(server, &self.cache.objects, &then, &self.cache);
        let what = once.boots.in_words();
        if let Some(problem) = want.holder.iter().flat_map(|holder| &holder.problems).next() {
            return refused(format!("{what} cannot live on server {server}: {}", problem.message));
        }
        let seen = self.cache.seen(server, &want);
        if let Some(why) = want.holder.as_ref().and_then(|holder| fence::why_not_once(holder, &seen)) {
            return refused(format!("{what} cannot start on server {server}: {why}"));
        }
        let text = format!(
            "server {server} boots {what} once: it is switched off for that as for a restart; what binding {binding} names follows when it was \
             seen off after that, or at `embody boot {server} --cancel`"
        );
        Ok((Record::BootOnce(Box::new(once)), text))
    }
}
