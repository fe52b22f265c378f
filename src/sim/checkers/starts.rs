//! Invariant 16: what came up is known by what it did. A start is recorded before it is told, a hello counts for the body and the start whose token
//! it had, Ready waits for it where that is desired, and no address is on two machines.
//!
//! What was told and said is known from the machines, never from what a controller thinks of it. Leaves out: whether a hello is heard in time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{By, Judge};
use crate::model::Name;
use crate::model::binding::RunState;
use crate::model::body::Body;
use crate::model::fact::Tick;
use crate::model::persona::Agent;

/// A status may be stored so long after what it tells of: by a process that stood still, as long as it holds its lease.
const LATE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Starts {
    /// Whose record was written last by others than a controller, or does not read.
    in_doubt: BTreeSet<Name>,
    /// The nonces that what ran on a machine said hello with, there and in the start that it was given them for.
    said: BTreeSet<(Name, String)>,
    /// Until when the record of a body held a hello of a persona. Nothing: it does.
    heard: BTreeMap<(Name, Name), Option<Tick>>,
    addresses: BTreeMap<Name, Address>,
}

struct Address {
    address: Ipv4Addr,
    /// What was stored of addresses since then is not what controllers have stored.
    in_doubt: bool,
}

impl Judge {
    // ---- what the machines do ---------------------------------------------------------------------------------------------

    /// A machine is told to start this. `run`: whose token is in the script, and which start it is of.
    pub fn is_told_to_start(&mut self, server: &Name, persona: &Name, run: Option<(&Name, &str)>) {
        if self.starts.in_doubt.contains(server) {
            return;
        }
        let body = self.body(server);
        let what = match (body.evidence.get(persona).filter(|evidence| evidence.stands()), run) {
            (None, _) => "which does not stand there".to_owned(),
            (Some(_), None) => return,
            (Some(_), Some((of, _))) if of != server => format!("with a token of {of}"),
            (Some(evidence), Some((_, nonce))) if evidence.run.as_ref().is_some_and(|run| run.nonce == nonce) => return,
            (Some(_), Some(_)) => "and that start is not recorded".to_owned(),
        };
        self.violated(&[server, persona], format!("invariant 16: {server} is told to start persona {persona}, {what}"));
    }

    /// What runs on a machine says hello with the token of the script that started it.
    /// A machine is told to start from an image of which the process that tells it lacks something.
    pub fn told_without_image(&mut self, server: &Name, persona: &Name, why: &str) {
        self.violated(
            &[server, persona],
            format!("invariant 6: {server} is told to start persona {persona}, of whose image something is missing: {why}"),
        );
    }

    pub fn says_hello(&mut self, server: &Name, nonce: &str) {
        self.starts.said.insert((server.clone(), nonce.to_owned()));
    }

    /// It begins anew, and its power stays on.
    pub fn rebooted(&mut self, server: &Name) {
        self.running.remove(server);
        self.starts.addresses.remove(server);
        self.disks.is_no_stray(server);
    }

    pub fn address(&self, server: &Name) -> Option<Ipv4Addr> {
        self.starts.addresses.get(server).map(|of| of.address)
    }

    /// A machine uses this address from now on, or none.
    pub fn uses(&mut self, server: &Name, address: Option<Ipv4Addr>) {
        let Some(address) = address else {
            self.starts.addresses.remove(server);
            return;
        };
        let mut others = self.starts.addresses.iter().filter(|(other, of)| *other != server && of.address == address && !of.in_doubt);
        let other = others.next().map(|(other, _)| other.clone());
        self.starts.addresses.insert(server.clone(), Address { address, in_doubt: false });
        if let Some(other) = other {
            self.violated(&[server, &other], format!("invariant 16: the address {address} is in use on {server} and on {other}"));
        }
    }

    // ---- what is stored, and said -----------------------------------------------------------------------------------------

    pub(super) fn record_is_anybodys(&mut self, server: &Name, by: By) {
        match by {
            By::Controller => drop(self.starts.in_doubt.remove(server)),
            By::Others => drop(self.starts.in_doubt.insert(server.clone())),
        }
    }

    /// Addresses may be given that somebody has.
    pub(super) fn addresses_are_anybodys(&mut self) {
        self.starts.addresses.values_mut().for_each(|address| address.in_doubt = true);
    }

    pub(super) fn starts_are_stored(&mut self, server: &Name, body: &Body, now: Tick) {
        let hellos = body.evidence.iter().filter_map(|(persona, e)| Some((persona, e.run.as_ref().filter(|run| run.hello.is_some())?)));
        let hellos: BTreeMap<&Name, &str> = hellos.map(|(persona, run)| (persona, run.nonce.as_str())).collect();
        let said = |nonce: &str| self.starts.said.contains(&(server.clone(), nonce.to_owned()));
        let never = hellos.iter().find(|(_, nonce)| !said(nonce)).map(|(persona, _)| (*persona).clone());
        for ((of, persona), until) in &mut self.starts.heard {
            if of == server && until.is_none() && !hellos.contains_key(persona) {
                *until = Some(now);
            }
        }
        self.starts.heard.extend(hellos.keys().map(|persona| ((server.clone(), (*persona).clone()), None)));
        if let Some(persona) = never {
            let sentence = format!(
                "invariant 16: a hello of persona {persona} is recorded of {server}, and nothing said it there with the token of that start"
            );
            self.violated(&[server, &persona], sentence);
        }
    }

    /// A controller says that a binding is Ready as it is now.
    pub(super) fn ready_is_told(&mut self, binding: &Name, server: &Name, now: Tick) {
        let Some(held) = self.objects.bindings.get(binding).filter(|held| held.spec.state == RunState::Running) else { return };
        let persona = held.spec.persona.clone();
        // What was started without a token has none to say hello with, whatever its manifest says by now.
        let has_token = self.bodies.get(server).and_then(|body| body.evidence.get(&persona)).is_none_or(|e| e.snapshot.kernel.is_some());
        let waits = has_token && self.objects.personas.get(&persona).is_some_and(|held| held.spec.agent == Agent::Required);
        let lately = self.touched.get(&persona).is_some_and(|at| at.plus(LATE) > now);
        let heard = self.starts.heard.get(&(server.clone(), persona.clone()));
        let is_heard = heard.is_some_and(|until| until.is_none_or(|at| at.plus(LATE) > now));
        if waits && !lately && !is_heard {
            let sentence =
                format!("invariant 16: binding {binding} is said to be Ready, and persona {persona} has not said hello on {server}");
            self.violated(&[binding, server], sentence);
        }
    }
}
