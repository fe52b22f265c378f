//! What a person says about who a device is and what a body does: `accept` and `declare`.
//!
//! Leaves out: comparing what is shown with what is pinned (`absorb`). Invariant 7: evidence, intents and debts stay with the machine that they
//! were made on: where another name shows that machine now, they go there, and wait for approval there.

use super::actions::in_words;
use super::controller::Controller;
use super::operator::{Declaring, Refusal};
use crate::model::body::{Body, Declaration, Declared, Found};
use crate::model::fact::Power;
use crate::model::identity::{Identity, Sameness};
use crate::model::op::Device;
use crate::model::{Kind, Name};
use crate::plan::network;
use crate::plan::record::Record;
use crate::store::{Expect, Write, keys};
use crate::telemetry::timestamp;

pub(super) fn refused<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Refused { why: why.into() })
}

impl Controller {
    pub(super) async fn accept(&mut self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        let Some(shown) = self.shown(kind, name) else { return refused(format!("{kind} {name} shows no identity now")) };
        let mut moved = String::new();
        if kind == Kind::Server {
            moved = self.move_records(name, &shown).await?;
            // Whoever asks next what to boot is the machine that is meant.
            if self.cache.body(name).smbios.is_some() && !self.record(name, &[Record::Smbios(None)]).await {
                return Err(Refusal::Store { why: "it was not stored; try again".to_owned() });
            }
            self.cache.memory_of(name).parked = None;
        }
        let pin = self.pin_for(kind, name, &shown);
        let expect = self.cache.pins.get(&(kind, name.clone())).map_or(Expect::Absent, |p| Expect::At(p.revision));
        let write = Write::put(keys::pin(kind, name), serde_json::to_vec(&pin).unwrap_or_default(), expect);
        let revision = self.write_one(write).await.map_err(in_words)?;
        self.cache.set_pin(kind, name, pin.clone(), revision);
        self.status.event("Normal", &format!("{kind}/{name}"), "Accepted", &format!("by {who}: {pin}{moved}"));
        let device = if kind == Kind::Server { Device::Bmc(name.clone()) } else { Device::Switch(name.clone()) };
        self.retry_device(&device);
        self.wake_all();
        Ok(format!("{kind} {name} is {pin} from now on{moved}"))
    }

    fn shown(&self, kind: Kind, name: &Name) -> Option<Identity> {
        let shown = match kind {
            Kind::Server => self.cache.bmcs.get(name).and_then(|f| f.known.seen.as_ref()).map(|s| s.value.shown.clone()),
            Kind::Switch => self.cache.switches.get(name).and_then(|k| k.seen.as_ref()).map(|s| s.value.shown.clone()),
            Kind::Policy | Kind::Secret | Kind::Network | Kind::Persona | Kind::Binding => None,
        };
        shown.filter(|s| !s.is_empty())
    }

    /// What is shown; with the address where that alone tells it from another one.
    fn pin_for(&mut self, kind: Kind, name: &Name, shown: &Identity) -> Identity {
        let pin = Identity::default().extended(shown);
        if kind == Kind::Switch {
            let address = self.cache.twin_of_switch(name).and_then(|_| self.cache.address_of_switch(name));
            return Identity { address, ..pin };
        }
        let twin = shown.guid.as_ref().filter(|_| kind == Kind::Server).and_then(|guid| self.cache.same_machine(name, guid));
        if twin.is_some() { Identity { address: shown.address.clone(), ..pin } } else { pin }
    }

    /// What was recorded of the machine that answered here before goes to where that machine answers now. In words, where anything moved.
    async fn move_records(&mut self, server: &Name, shown: &Identity) -> Result<String, Refusal> {
        let body = self.cache.body(server);
        let same = !body.is_of_a_device() || matches!(body.made_on.compare(shown), Sameness::Same);
        if same || body.made_on.is_empty() {
            return Ok(String::new());
        }
        let names: Vec<Name> = self.cache.bmcs.keys().filter(|other| *other != server).cloned().collect();
        let shows_it = |other: &Name| self.shown(Kind::Server, other).is_some_and(|s| body.made_on.compare(&s) == Sameness::Same);
        let Some(other) = names.into_iter().find(shows_it) else {
            let declared = body.declared.as_ref().is_some_and(|d| d.what != Declaration::OffButRuns);
            if body.evidence.is_empty() || declared {
                // What was sent to the machine that is gone says nothing of this one. Its ports are still where they were.
                let new = Body { off: None, on_sent: false, made_on: shown.clone(), ..body };
                return match self.replace_bodies(vec![(server.clone(), new)]).await {
                    true => Ok(String::new()),
                    false => Err(Refusal::Store { why: "it was not stored; try again".to_owned() }),
                };
            }
            return refused(format!(
                "by evidence {server} may run {}, recorded of the machine {}, which no server shows now. If its power is cut for certain: `embody declare server {server} off --reason \"its power is cut\"`",
                body.evidence.keys().map(Name::to_string).collect::<Vec<_>>().join(", "),
                body.made_on
            ));
        };
        let there = self.cache.body(&other);
        if there.is_of_a_device() && there.made_on.compare(shown) != Sameness::Same {
            return refused(format!("{other} shows the machine that {server} was, but has records of a third one: accept {other} first"));
        }
        let goes = |of: &Body, stays: &Body| Body {
            held_by: stays.held_by.clone(),
            release: of.release.clone(),
            found: if of.is_of_a_device() { Found::Running } else { Found::Unknown },
            restart_done: stays.restart_done,
            ..of.clone()
        };
        let (here_new, there_new) = (goes(&there, &body), goes(&body, &there));
        if !self.replace_bodies(vec![(other.clone(), there_new), (server.clone(), here_new)]).await {
            return Err(Refusal::Store { why: "it was not stored; try again".to_owned() });
        }
        Ok(format!("; what was recorded of the machine that it was is at {other} now, and waits for approval there"))
    }

    // ---- declarations ------------------------------------------------------------------------------------------------------

    pub(super) async fn declare(&mut self, server: &Name, what: Declaring, reason: &str, who: &str) -> Result<String, Refusal> {
        let unreadable = self.cache.unreadable.contains_key(server);
        if !unreadable && !self.cache.objects.servers.contains_key(server) && !self.cache.bodies.contains_key(server) {
            return Err(Refusal::NotFound { what: format!("Server/{server}") });
        }
        let unreadable = unreadable || self.cache.body(server).anything;
        // Such evidence is a guess from a manifest: a person's word ends it, as adopting does.
        let guessed: Vec<Record> = self.cache.body(server).found_evidence().map(|persona| Record::End(persona.clone())).collect();
        let (records, text) = match what {
            Declaring::Off => self.declare_off(server, unreadable, reason, who)?,
            Declaring::Foreign if !unreadable && guessed.is_empty() => {
                return refused(format!("what is stored of server {server} reads: `embody why server {server}` says what it may run"));
            }
            Declaring::Foreign if !self.answers(server) => {
                return refused(format!(
                    "the BMC of server {server} does not answer as the machine that is remembered: declare it off, if it is"
                ));
            }
            Declaring::Foreign => {
                (if unreadable { vec![Record::Renew] } else { guessed }, format!("server {server} is taken to run nothing of embody's"))
            }
        };
        if !self.record(server, &records).await {
            return Err(Refusal::Store { why: "it was not stored; try again".to_owned() });
        }
        self.status.event("Warning", &format!("Server/{server}"), "Declared", &format!("by {who}: {text} ({reason})"));
        self.wake_all();
        Ok(text)
    }

    fn declare_off(&self, server: &Name, unreadable: bool, reason: &str, who: &str) -> Result<(Vec<Record>, String), Refusal> {
        if self.answers(server) {
            let way = self.way_off(server);
            return refused(format!(
                "the BMC of server {server} answers, as the machine that is remembered, and nobody need declare anything: {way}"
            ));
        }
        let body = self.cache.body(server);
        if body.evidence.is_empty() && body.on_disk.is_empty() && !unreadable {
            return refused(format!("by evidence server {server} runs nothing: there is nothing to declare"));
        }
        let want = self.cache.want(server);
        let seen = self.cache.seen(server, &want);
        let authority = want.releaser.is_some() || want.holder.is_some();
        let settled = network::all_as_desired(&want.released_ports, &seen) || network::cannot_be_written(&want.released_ports, &seen);
        let (what, then) = match settled || !authority {
            true => (Declaration::Off, "what it may run fences nothing until it is seen on"),
            false => (
                Declaration::OffOncePortsAreReleased,
                "its ports go to quarantine first; once they are read back there, what it may run fences nothing",
            ),
        };
        let declared = Declared { what, by: who.to_owned(), reason: reason.to_owned(), at: timestamp() };
        let renew = unreadable.then_some(Record::Renew);
        Ok((renew.into_iter().chain([Record::Declare(declared)]).collect(), format!("server {server} is declared off: {then}")))
    }

    /// What can be done for a server to be seen off, or is done already.
    pub(super) fn way_off(&self, server: &Name) -> String {
        let body = self.cache.body(server);
        let power = self.cache.bmcs.get(server).and_then(|facts| facts.power.as_ref()).map(|power| power.value);
        let of = |binding: &Name| self.cache.objects.bindings.get(binding).is_some_and(|b| b.spec.target.server.as_ref() == Some(server));
        let bound = body.held_by.iter().map(|hold| &hold.binding).find(|binding| of(binding));
        let bound = bound.or_else(|| self.cache.objects.bindings.keys().find(|binding| of(binding)));
        let cut = format!("if its power is cut for certain, `embody declare server {server} off --reason \"its power is cut\"`");
        match (power.filter(|_| self.answers(server)), bound) {
            (Some(Power::Off), _) if body.evidence.is_empty() && !body.anything => "it is off, and by evidence it runs nothing".to_owned(),
            (Some(Power::Off), _) => {
                format!("it is off, and what it may run ends by itself once two answers have shown that: `embody why server/{server}`")
            }
            (Some(Power::On), Some(binding)) => format!("say `state: Stopped` in binding {binding}"),
            (None, Some(binding)) => {
                format!("its BMC does not show whether it is on: say `state: Stopped` in binding {binding}, which waits for that; {cut}")
            }
            (Some(Power::On) | None, None) if body.release.is_some() => {
                format!("it is being released already: `embody why server/{server}` says what that waits for")
            }
            (Some(Power::On), None) => "no binding names it: switch it off by hand, which its BMC will show".to_owned(),
            (None, None) => format!("no binding names it, and its BMC does not show whether it is on: {cut}"),
        }
    }

    /// Whether a BMC answers there that shows the pinned identity, or was not asked yet.
    pub(super) fn answers(&self, server: &Name) -> bool {
        self.cache.bmcs.get(server).is_some_and(|f| f.known.trouble.is_none() && f.known.seen.is_some())
    }

    pub(super) async fn accept_store(&mut self, who: &str) -> Result<String, Refusal> {
        if self.cache.store_stop.is_none() {
            return refused("the store holds all that it ever acknowledged: there is nothing to accept");
        }
        self.accept_records().await.map_err(in_words)?;
        self.status.event("Warning", "Policy/default", "StoreAccepted", &format!("by {who}"));
        self.wake_all();
        Ok("the store is taken as it is; what servers run that are on without evidence is not known, and none of them counts as free; a server \
            that was added since is in no manifest here; what is to start on a server that is off waits for `embody approve` of its binding, for \
            by now it may run elsewhere"
            .to_owned())
    }
}
