//! Asks an agent for what may be wanting: a table that is not told, or not to its end, hides no other, and it is said in a note.
//!
//! Leaves out: what follows from it. Invariant: a column that is not whole is known as such (`Told::untold`), so that nobody takes its end
//! for the end of the table. Shown by `tests/snmp/optional.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::objects::{Arcs, in_words, oid, table_in_words};
use super::read::get;
use super::snmp::{Agent, Cut, Oid, Value};
use super::value::Column;
use crate::drivers::Fault;

/// One reading of an agent.
pub(crate) struct Asking<'a> {
    agent: &'a mut dyn Agent,
    device: &'a str,
    /// In whole sentences for people.
    pub notes: BTreeSet<String>,
}

/// A column as far as it was told.
#[derive(Default)]
pub(crate) struct Told {
    pub rows: Column,
    /// Why there may be more than these rows, with the name of the table.
    pub untold: Option<String>,
    cut: Option<Cut>,
    waited: Duration,
}

impl<'a> Asking<'a> {
    pub(super) fn new(agent: &'a mut dyn Agent, device: &'a str) -> Asking<'a> {
        Asking { agent, device, notes: BTreeSet::new() }
    }

    /// Walk some columns at once.
    pub(super) async fn told<const N: usize>(&mut self, wanted: [Arcs; N], rows: usize) -> Result<[Told; N], Fault> {
        let asked_at = Instant::now();
        let mut walked = self.agent.walk(&wanted.map(oid), rows).await?.into_iter();
        let waited = asked_at.elapsed();
        Ok(wanted.map(|arcs| {
            let Some(walked) = walked.next() else { return Told::default() };
            let table = table_in_words(&oid(arcs).to_string());
            if walked.unordered {
                self.notes.insert(format!("the rows of {table} come out of order"));
            }
            let untold = walked.cut.as_ref().map(|cut| format!("{table} is not told to its end: {cut}"));
            self.notes.extend(untold.clone());
            let by_index = |(oid, value): (Oid, Value)| Some((oid.0.strip_prefix(arcs)?.to_vec(), value));
            Told { rows: walked.rows.into_iter().filter_map(by_index).collect(), untold, cut: walked.cut, waited }
        }))
    }

    /// The same, for what is good as far as it goes.
    pub(super) async fn columns<const N: usize>(&mut self, wanted: [Arcs; N], rows: usize) -> Result<[Column; N], Fault> {
        Ok(self.told(wanted, rows).await?.map(|told| told.rows))
    }

    /// A column without which nothing can be said.
    pub(super) fn needed(&self, arcs: Arcs, told: Told) -> Result<Column, Fault> {
        let (device, table) = (self.device.to_owned(), in_words(&oid(arcs).to_string()));
        let Told { rows, cut, waited, untold: _ } = told;
        match cut {
            None => Ok(rows),
            Some(Cut::Refused(code)) => Err(Fault::Refused { device, what: format!("the reading of {table}"), code }),
            Some(Cut::Silent) => Err(Fault::Silent { device: format!("{device} (asked for {table})"), attempts: 1, waited }),
            Some(cut @ (Cut::Endless { .. } | Cut::Loops(_))) => {
                let rows = if let Cut::Endless { rows } = cut { rows } else { rows.len() };
                Err(Fault::Endless { device, table, rows, waited, seems: cut.to_string() })
            }
        }
    }

    /// These instances, as far as they are there; `needed` are those without which nothing can be said.
    pub(super) async fn scalars(&mut self, needed: &[Oid], more: &[Oid]) -> Result<BTreeMap<Oid, Value>, Fault> {
        match get(self.agent, &[needed, more].concat()).await {
            Err(Fault::Refused { .. }) => {}
            found => return found,
        }
        let mut found = get(self.agent, needed).await?;
        for oid in more {
            match get(self.agent, std::slice::from_ref(oid)).await {
                Err(Fault::Refused { code, .. }) => drop(self.notes.insert(format!("{oid} is not told: its agent answers {code}"))),
                shown => found.extend(shown?),
            }
        }
        Ok(found)
    }

    pub(super) fn engine_id(&self) -> Option<Vec<u8>> {
        self.agent.engine_id()
    }

    /// All that is to be said of this reading.
    pub(super) fn said(self) -> BTreeSet<String> {
        self.notes.into_iter().chain(self.agent.notes()).collect()
    }
}
