//! The virtual-time endpoint of a simulated switch: an SNMP agent without packets, over a line that delays and loses.
//!
//! The real `SwitchDriver` works on it. Leaves out: SNMP itself. Invariants: a SET passes the gate when it leaves, not when it arrives; one
//! without a reply is `Unknown` and is not repeated here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::centre::Centre;
use super::checkers::{Host, Write};
use super::line::{Line, NoReply};
use super::mib::Mib;
use super::switch::SimSwitch;
use crate::drivers::Fault;
use crate::drivers::switch::snmp::{Agent, Binding, Leave, Oid, SetAnswer, Value, Walked, not_let_out};
use crate::model::Name;
use crate::model::fact::Tick;
use crate::model::op::Device;

/// How long one copy of a request is waited for, and how many there are of a read.
const WAIT: Duration = Duration::from_secs(10);
const COPIES: u32 = 3;

pub(crate) struct VirtualAgent {
    centre: Arc<Centre>,
    /// The process that this endpoint is a part of.
    host: Host,
    switch: Name,
    line: Line,
}

impl VirtualAgent {
    pub(crate) fn new(centre: Arc<Centre>, host: Host, switch: Name, line: Line) -> VirtualAgent {
        VirtualAgent { centre, host, switch, line }
    }

    async fn once<T: Send + 'static>(&self, what: impl FnOnce(&mut SimSwitch) -> T + Send + 'static) -> Result<T, NoReply> {
        let (centre, switch) = (Arc::clone(&self.centre), self.switch.clone());
        self.centre.freezer.awake(self.host).await;
        let said = self.line.ask(WAIT, move || centre.with_agent(&switch, None, what)).await;
        self.centre.freezer.awake(self.host).await;
        said
    }

    async fn read<T: Send + 'static>(&self, what: impl FnOnce(&mut SimSwitch) -> T + Clone + Send + 'static) -> Result<T, Fault> {
        let begun = Instant::now();
        for _ in 0..COPIES {
            if let Ok(said) = self.once(what.clone()).await {
                return Ok(said);
            }
        }
        Err(Fault::Silent { device: Device::Switch(self.switch.clone()).to_string(), attempts: COPIES, waited: begun.elapsed() })
    }
}

#[async_trait]
impl Agent for VirtualAgent {
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault> {
        let oids = oids.to_vec();
        self.read(move |sim| oids.iter().map(|oid| (oid.clone(), sim.get(oid).unwrap_or(Value::NoSuchInstance))).collect()).await
    }

    /// All columns at one moment: a real walk takes several requests, and what changes in between shows with the next poll.
    async fn walk(&mut self, columns: &[Oid], _rows: usize) -> Result<Vec<Walked>, Fault> {
        let columns = columns.to_vec();
        self.read(move |sim| columns.iter().map(|column| sim.walked(column)).collect()).await
    }

    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault> {
        let (device, what) = (Device::Switch(self.switch.clone()).to_string(), "a SET".to_owned());
        self.centre.before_sending(self.host).await;
        let age = leave.permit.now().saturating_sub(leave.fresh.asked_at);
        let left_at = self.centre.now();
        let read_at = Tick(left_at.0.saturating_sub(age.as_micros() as u64));
        let write = Write { key: leave.permit.key().clone(), read_at, left_at };
        let bindings = bindings.to_vec();
        let set = move |sim: &mut SimSwitch| match sim.set(&bindings) {
            Ok(()) => SetAnswer::Accepted(bindings),
            Err((status, index)) => SetAnswer::Refused { status, index },
        };
        let (centre, switch) = (Arc::clone(&self.centre), self.switch.clone());
        let arrives = {
            let write = write.clone();
            move || centre.with_agent(&switch, Some(&write), set)
        };
        let left = leave.permit.pass(Some(leave.fresh), leave.half_way, || {
            self.centre.setting(self.host, &self.switch, &write.key);
            self.line.send(arrives)
        });
        let said = match left {
            Ok(reply) => reply.within(WAIT).await,
            Err(closed) => return Err(not_let_out(&device, &what, &closed)),
        };
        self.centre.freezer.awake(self.host).await;
        said.map_err(|NoReply| Fault::Unknown { device, what })
    }

    fn engine_id(&self) -> Option<Vec<u8>> {
        None
    }
}
