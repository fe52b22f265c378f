//! A simulated agent without a wire: the SNMP manager's side, straight on a tree of objects.
//!
//! Leaves out: sockets, loss, time (`sim`'s wire endpoint). Invariant: it counts the requests that a real manager needs with 64
//! varbinds to a reply.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::mib::Mib;
use crate::drivers::Fault;
use crate::drivers::switch::snmp::{Agent, Binding, Leave, Oid, SetAnswer, Value, Walked, not_let_out};

/// Varbinds in one reply: what every agent gives, and an Ethernet frame holds.
const VARBINDS: usize = 64;

/// An agent over a tree that others (a test, a checker) hold as well.
pub struct Direct<M> {
    mib: Arc<Mutex<M>>,
    /// Requests so far.
    pub requests: Arc<Mutex<usize>>,
}

impl<M: Mib> Direct<M> {
    pub fn new(mib: Arc<Mutex<M>>) -> Direct<M> {
        Direct { mib, requests: Arc::default() }
    }

    fn mib(&self) -> MutexGuard<'_, M> {
        self.mib.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, requests: usize) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) += requests;
    }
}

/// GETBULKs over columns of these lengths: each goes on until it shows the end of the column.
fn requests(mut left: Vec<usize>) -> usize {
    let mut requests = 0;
    while !left.is_empty() {
        requests += 1;
        let rows = (VARBINDS / left.len()).max(1);
        left = left.into_iter().filter(|column| *column >= rows).map(|column| column - rows).collect();
    }
    requests
}

#[async_trait]
impl<M: Mib> Agent for Direct<M> {
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault> {
        self.count(oids.len().div_ceil(VARBINDS));
        let mut mib = self.mib();
        Ok(oids.iter().map(|oid| (oid.clone(), mib.get(oid).unwrap_or(Value::NoSuchInstance))).collect())
    }

    async fn walk(&mut self, columns: &[Oid], _rows: usize) -> Result<Vec<Walked>, Fault> {
        let mut mib = self.mib();
        let walked: Vec<Walked> = columns.iter().map(|column| mib.walked(column)).collect();
        drop(mib);
        self.count(requests(walked.iter().map(|column| column.rows.len()).collect()));
        Ok(walked)
    }

    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault> {
        let done = leave.permit.pass(Some(leave.fresh), leave.half_way, || {
            self.count(1);
            self.mib().set(bindings)
        });
        match done {
            Ok(Ok(())) => Ok(SetAnswer::Accepted(bindings.to_vec())),
            Ok(Err((status, index))) => Ok(SetAnswer::Refused { status, index }),
            Err(closed) => Err(not_let_out("the switch", "a SET", &closed)),
        }
    }

    fn engine_id(&self) -> Option<Vec<u8>> {
        None
    }
}
