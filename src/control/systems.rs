//! What systems that were started say of themselves: they ask once who they are, and say that they are up.
//!
//! Leaves out: sockets, and who may ask from which address (`server::boot`); the identity itself (`boot::identity`). Invariants: what is said counts for the
//! start whose token it has, and for no other; once a start has asked who it is, it is known by the secret that it made up then, and nobody else is taken
//! for it. Shown by `tests/boot/exchange.rs`, `tests/boot/answers.rs`.

use embody_protocol::{Alive, Identity, Question};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::controller::Controller;
use super::secrets;
use super::worker::Job;
use crate::boot::identity;
use crate::boot::token::Token;
use crate::drivers::Depth;
use crate::limits;
use crate::model::body::{Body, Evidence, Run};
use crate::model::fact::Tick;
use crate::model::file::{PersonaFile, SecretKey};
use crate::model::op::Device;
use crate::model::secret::{Hidden, SecretSpec};
use crate::model::server::Nic;
use crate::model::{Mac, Name};
use crate::plan::observed::Heard;
use crate::plan::record::Record;
use crate::telemetry::timestamp;

/// What became of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    Taken,
    /// It is of another start than the last one, or nothing stands there that it could be of.
    Another,
    /// It is of another system than the one that asked who it is.
    NotIt,
    /// It could not be remembered: it is to be said again.
    Later,
}

/// What a system is told that asks who it is.
#[derive(Debug)]
pub enum Identified {
    /// Besides: which of its files is which value of which Secret, to be read by whoever may wait for a file.
    Told(Box<Identity>, Vec<Wanted>),
    /// The start is known by another secret, or the question is none of it: why.
    NotIt(String),
    Another,
    /// It is to ask again: why.
    NotYet(String),
    /// It could not be remembered: it is to ask again.
    Later,
}

/// What a file is to hold.
#[derive(Debug)]
pub struct Wanted {
    pub path: String,
    name: Name,
    key: String,
    /// Nothing: there is none.
    secret: Option<SecretSpec>,
}

impl Wanted {
    /// The value, read now from wherever it is. Awaits a file.
    pub(crate) async fn read(&self) -> Result<Hidden, String> {
        let (name, key) = (&self.name, &self.key);
        let secret = self.secret.as_ref().ok_or_else(|| format!("there is no secret {name}"))?;
        let values = match secret.from.as_ref().and_then(|from| from.file.as_ref()) {
            Some(file) => secrets::file_values(name.as_str(), file).await,
            None => secrets::values(name.as_str(), secret),
        };
        let value = values.map_err(|error| error.to_string())?.remove(key);
        value.ok_or_else(|| format!("secret {name} has no `{key}`"))
    }
}

/// Somebody waits for what a switch says of its ports, asked from then on.
pub(super) struct Look {
    switch: Name,
    from: Tick,
    reply: oneshot::Sender<()>,
}

/// What runs there by the token of its start.
fn of_start<'a>(body: &'a Body, token: &Token) -> Option<(&'a Name, &'a Evidence)> {
    let is_it =
        |evidence: &Evidence| evidence.snapshot.digest == token.digest && evidence.run.as_ref().is_some_and(|run| run.nonce == token.nonce);
    body.evidence.iter().find(|(_, evidence)| is_it(evidence))
}

/// As it is remembered.
fn remembered(secret: &str) -> String {
    Sha256::digest(secret).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// 32 hexadecimal digits.
fn is_secret(secret: &str) -> bool {
    secret.len() == 32 && secret.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Controller {
    /// What runs on a server asks who it is. The first one that asks with the token of a start is that start.
    pub(super) async fn identify(&mut self, server: &Name, token: &Token, question: &Question) -> Identified {
        let body = self.cache.body(server);
        let Some((persona, evidence)) = of_start(&body, token) else { return Identified::Another };
        let (Some(run), Some(key)) = (&evidence.run, self.booting.view().key.clone()) else { return Identified::Later };
        if !is_secret(&question.secret.0) {
            return Identified::NotIt("the secret is not 32 hexadecimal digits".to_owned());
        }
        let mac = question.mac.parse::<Mac>().ok().filter(|mac| evidence.snapshot.macs.contains(mac));
        let elsewhere = mac.and_then(|mac| self.cache.is_at_another_port(server, self.nic(server, mac)?));
        let secret = remembered(&question.secret.0);
        let why = match (mac, &run.secret) {
            (None, _) => Some(format!("{} is no MAC address of {server}", crate::boot::answer::plain(&question.mac))),
            (_, Some(first)) if *first != secret => Some("another system has asked with this token before".to_owned()),
            (_, None) if elsewhere.is_some() => elsewhere,
            (_, None) if !run.asks => Some("what was started there was not told to ask".to_owned()),
            (Some(_), _) => None,
        };
        if let Some(why) = why {
            self.refused(
                server,
                "IdentityRefused",
                format!("{server}: who it is was asked with the token of its last start, and not told: {why}"),
            );
            return Identified::NotIt(why);
        }
        // It is alive, whatever else is so.
        let now = self.clock.now();
        let memory = self.cache.memory_of(server);
        memory.may_be_on();
        if run.before.is_some() && now.since(memory.heard.at) < limits::AGENT_GONE_AFTER {
            let age = crate::plan::power::seconds(now.since(memory.heard.at));
            return Identified::NotYet(format!("what ran on {server} before was up {age} ago: it may be so still"));
        }
        if run.secret.is_none() {
            let record = Record::Identified { persona: persona.clone(), nonce: token.nonce.clone(), secret };
            if !self.record(server, &[record]).await {
                return Identified::Later;
            }
        }
        let told = identity::of(&evidence.snapshot, &key, &self.whose(server, persona), jiff::Timestamp::now().as_millisecond());
        let wanted = |file: &PersonaFile| {
            let SecretKey { name, key } = file.secret_ref.clone()?;
            let secret = self.cache.objects.secrets.get(&name).map(|held| held.spec.clone());
            Some(Wanted { path: file.path.clone(), name, key, secret })
        };
        let wanted = evidence.snapshot.files.iter().filter_map(wanted).collect();
        Identified::Told(Box::new(told), wanted)
    }

    /// What runs on a server says that it is up still. Nothing of it is stored, and people are told only where something is another than before.
    pub(super) async fn still_up(&mut self, server: &Name, token: &Token, said: &Alive) -> Hello {
        let body = self.cache.body(server);
        let Some((_, evidence)) = of_start(&body, token) else { return self.runs_still(server, token, said).await };
        let known = evidence.run.as_ref().and_then(|run| run.secret.as_ref());
        if known.is_none_or(|known| remembered(&said.secret.0) != *known) {
            return Hello::NotIt;
        }
        let now = self.clock.now();
        let memory = self.cache.memory_of(server);
        memory.may_be_on();
        let before = std::mem::replace(&mut memory.heard, Heard { at: now, written: said.written, written_most: said.written_most });
        if before.is_silent(now) || (before.is_filling(), before.written_most) != (memory.heard.is_filling(), memory.heard.written_most) {
            self.wake(server);
        }
        Hello::Taken
    }

    /// What says that it is up was up before somebody asked for the script again, in its server's name: that one is not started, and told nothing.
    async fn runs_still(&mut self, server: &Name, token: &Token, said: &Alive) -> Hello {
        let body = self.cache.body(server);
        let is_it = |evidence: &Evidence| {
            let before = evidence.run.as_ref().and_then(|run| run.before.as_ref());
            let is_known =
                |run: &Run| run.nonce == token.nonce && run.secret.as_ref().is_some_and(|known| remembered(&said.secret.0) == *known);
            evidence.snapshot.digest == token.digest && before.is_some_and(|run| is_known(run))
        };
        let Some((persona, _)) = body.evidence.iter().find(|(_, evidence)| is_it(evidence)) else { return Hello::Another };
        let record = Record::RunsStill { persona: persona.clone(), nonce: token.nonce.clone() };
        if !self.record(server, &[record]).await {
            return Hello::Later;
        }
        let now = self.clock.now();
        let memory = self.cache.memory_of(server);
        memory.may_be_on();
        memory.heard.at = now;
        let message = format!(
            "somebody asked in the name of {server} what it boots: what runs there was not started anew, it says that it is up still"
        );
        self.refused(server, "StartRefuted", message);
        self.publish();
        self.wake(server);
        Hello::Taken
    }

    /// Who it is, for a system without an agent of ours: its name and its networks, no keys and no files.
    pub(super) fn described(&self, server: &Name, token: &Token) -> Option<Box<Identity>> {
        let body = self.cache.body(server);
        let (persona, evidence) = of_start(&body, token).filter(|(_, evidence)| evidence.snapshot.root.image.is_none())?;
        let key = self.booting.view().key.as_ref()?;
        let told = identity::of(&evidence.snapshot, key, &self.whose(server, persona), jiff::Timestamp::now().as_millisecond());
        Some(Box::new(Identity { files: Vec::new(), ..told }))
    }

    fn nic(&self, server: &Name, mac: Mac) -> Option<&Nic> {
        self.cache.objects.servers.get(server)?.spec.nics.iter().find(|nic| nic.mac == mac)
    }

    /// The switch of a NIC is asked what is plugged in there, unless it is known already who asked. Whoever waits is told when it has answered; nobody is,
    /// where there is no switch.
    pub(super) fn look_at(&mut self, server: &Name, token: &Token, mac: Mac, reply: oneshot::Sender<()>) {
        let body = self.cache.body(server);
        let is_known = of_start(&body, token).and_then(|(_, e)| e.run.as_ref()).is_none_or(|run| run.secret.is_some());
        let Some(switch) = self.nic(server, mac).and_then(|nic| nic.switch.clone()).filter(|_| !is_known) else { return };
        self.looks.retain(|look| !look.reply.is_closed());
        if self.looks.len() < limits::LOOKS_AWAITED {
            self.fleet.send(&Device::Switch(switch.clone()), Job::Observe(Depth::Everything));
            self.looks.push(Look { switch, from: self.clock.now(), reply });
        }
    }

    /// A switch was asked what is plugged in there.
    pub(super) fn looked_at(&mut self, switch: &Name, asked_at: Tick) {
        let is_told = |look: &mut Look| look.switch == *switch && asked_at >= look.from;
        for look in self.looks.extract_if(.., is_told) {
            // Who gave up is not told.
            let _ = look.reply.send(());
        }
    }

    fn refused(&mut self, server: &Name, reason: &'static str, message: String) {
        if self.booting.timelines().is_news(server, reason, limits::NOTE_EVERY, tokio::time::Instant::now()) {
            self.status.event("Warning", &format!("Server/{server}"), reason, &message);
        }
    }

    /// What runs on a server says hello. `secret`: what it says to be known by, where it was told who it is.
    pub(super) async fn hello(&mut self, server: &Name, token: &Token, secret: Option<&str>, failed: Vec<String>) -> Hello {
        let body = self.cache.body(server);
        let Some((persona, evidence)) = of_start(&body, token) else {
            self.refused(server, "HelloRefused", format!("a hello of another start than the last one was refused at {server}"));
            return Hello::Another;
        };
        let run = evidence.run.as_ref();
        let first = run.and_then(|run| run.secret.as_ref());
        let is_it = match (first, secret) {
            (Some(first), Some(secret)) => remembered(secret) == *first,
            (Some(_), None) => false,
            (None, _) => run.is_none_or(|run| !run.asks),
        };
        if !is_it {
            self.refused(
                server,
                "HelloRefused",
                format!("a hello at {server} was refused: it is not of the system that was told who it is, or nobody has asked yet"),
            );
            return Hello::NotIt;
        }
        // It is alive, whatever else is so.
        self.cache.memory_of(server).may_be_on();
        if run.is_some_and(|run| run.hello.is_some()) {
            return Hello::Taken;
        }
        let record = Record::Hello { persona: persona.clone(), nonce: token.nonce.clone(), at: timestamp(), failed };
        if !self.record(server, &[record]).await {
            return Hello::Later;
        }
        self.cache.memory_of(server).heard = Heard { at: self.clock.now(), ..Heard::default() };
        self.wake(server);
        Hello::Taken
    }
}
