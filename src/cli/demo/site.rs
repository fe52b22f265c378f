//! What the demo's controller says at one moment, asked over its API like any other client.
//!
//! Leaves out: how it is shown (`show`). Invariant: a condition that speaks of an older generation says nothing.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::client::{API, Client};
use super::super::failure::Failure;
use crate::control::operator::PortRow;
use crate::model::Kind;
use crate::model::status::{BindingStatus, Event, Truth};
use crate::server::api::columns::drift;

/// How a binding stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    AsDesired,
    /// It waits for a person's word: the reason and the sentence.
    Person(String, String),
    Underway(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub name: String,
    pub persona: String,
    pub server: String,
    /// Runs, or is to run.
    pub running: bool,
    /// `have→want` of power and boot.
    pub power: String,
    pub boot: String,
    pub standing: Standing,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Site {
    pub bindings: Vec<Bound>,
    /// Ports of which something is wanted.
    pub ports: Vec<PortRow>,
    pub events: Vec<Event>,
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned()
}

async fn list<T: DeserializeOwned>(client: &Client, what: &str) -> Result<Vec<T>, Failure> {
    let mut answer = client.get(&format!("{API}/{what}")).await?;
    let items = answer.get_mut("items").map(Value::take).unwrap_or_default();
    serde_json::from_value(items).map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))
}

fn bound(object: &Value) -> Bound {
    let status: BindingStatus = object.get("status").cloned().and_then(|s| serde_json::from_value(s).ok()).unwrap_or_default();
    let generation = object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
    let condition = |kind: &str| status.conditions.iter().find(|c| c.kind == kind && c.observed_generation >= generation);
    let plane = |name: &str| status.planes.get(name).map_or("-".to_owned(), |p| drift(&p.have, &p.want, p.in_sync));
    let standing = match (condition("Ready"), condition("Stalled")) {
        (Some(ready), _) if ready.status == Truth::True => Standing::AsDesired,
        (_, Some(stalled)) if stalled.status == Truth::True => Standing::Person(stalled.reason.clone(), stalled.message.clone()),
        (Some(ready), _) => Standing::Underway(ready.message.clone()),
        (None, _) => Standing::Underway("not observed yet".to_owned()),
    };
    Bound {
        name: text(object, "/metadata/name"),
        persona: text(object, "/spec/persona"),
        server: text(object, "/spec/target/server"),
        running: text(object, "/spec/state") != "Stopped",
        power: plane("power"),
        boot: plane("boot"),
        standing,
    }
}

impl Site {
    pub(super) async fn look(client: &Client) -> Result<Site, Failure> {
        let bindings: Vec<Value> = list(client, Kind::Binding.plural()).await?;
        let mut ports: Vec<PortRow> = list(client, "ports").await?;
        ports.retain(|row| row.want.is_some());
        Ok(Site { bindings: bindings.iter().map(bound).collect(), ports, events: list(client, "events").await? })
    }

    /// The ports of a server: how many are as wanted, and of how many something is wanted.
    pub(super) fn network(&self, server: &str) -> (usize, usize) {
        let own = || self.ports.iter().filter(|row| row.wired_to.as_deref().and_then(|w| w.split('/').next()) == Some(server));
        (own().filter(|row| row.have == row.want).count(), own().count())
    }

    /// Nothing is underway: each binding is as desired, or waits for the approval that a server found running needs.
    pub(super) fn at_rest(&self) -> bool {
        let rests = |b: &Bound| match &b.standing {
            Standing::AsDesired => true,
            Standing::Person(reason, _) => reason == "ApprovalNeeded",
            Standing::Underway(_) => false,
        };
        !self.bindings.is_empty() && self.bindings.iter().all(rests)
    }

    pub(super) fn as_desired(&self) -> usize {
        self.bindings.iter().filter(|b| b.standing == Standing::AsDesired).count()
    }

    pub(super) fn binding(&self, name: &str) -> Option<&Bound> {
        self.bindings.iter().find(|b| b.name == name)
    }
}
