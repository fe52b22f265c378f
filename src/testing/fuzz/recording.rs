//! Recordings of switches (`.snmprec`): parsed, and read as the switch driver reads the switch that answers so.
//!
//! The input is the text of a recording.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::Instant;

use super::hold;
use crate::drivers::switch::snmp::{Oid, Value};
use crate::drivers::switch::{SwitchDriver, SwitchSettings, to_json};
use crate::drivers::{Depth, Fault, Observation};
use crate::sim::direct::Direct;
use crate::sim::recording::Tree;
use crate::testing::observe;

/// Far above what the tables of the largest recordings take, where each object is asked for a few times.
const REQUESTS: usize = 10_000;

/// A recording.
pub fn recording(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let tree = match Tree::parse(text) {
        Ok(tree) => tree,
        Err(bad) => {
            let found = bad.line.checked_sub(1).and_then(|before| text.lines().nth(before));
            return hold(found == Some(&bad.text), || format!("`{bad}`, but that line is {found:?}"));
        }
    };
    hold(tree.0.len() <= text.lines().count(), || "it has more objects than lines".to_owned())?;
    let written: String = tree.0.iter().map(|(oid, value)| line(oid, value)).collect();
    let again = Tree::parse(&written).map_err(|bad| format!("what is written of it: {bad}"))?;
    hold(again.0 == tree.0, || format!("what is written of it reads as something else:\n{written}"))?;
    read(tree)
}

/// Octets in hexadecimal, since a line cannot hold all of them.
fn line(oid: &Oid, value: &Value) -> String {
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let (tag, text) = match value {
        Value::Integer(number) => ("2", number.to_string()),
        Value::Octets(octets) => ("4x", hex(octets)),
        Value::Oid(oid) => ("6", oid.to_string()),
        Value::IpAddress(octets) => ("64x", hex(octets)),
        Value::Counter32(number) => ("65", number.to_string()),
        Value::Unsigned32(number) => ("66", number.to_string()),
        Value::TimeTicks(number) => ("67", number.to_string()),
        Value::Opaque(octets) => ("68x", hex(octets)),
        Value::Counter64(number) => ("70", number.to_string()),
        Value::Null | Value::NoSuchObject | Value::NoSuchInstance | Value::EndOfMibView => ("5", String::new()),
    };
    format!("{oid}|{tag}|{text}\n")
}

/// What is read of the switch: the same each time, by a bounded number of requests, or a fault that says what it is.
fn read(tree: Tree) -> Result<(), String> {
    let agent = Direct::new(Arc::new(Mutex::new(tree)));
    let requests = agent.requests.clone();
    let mut driver = SwitchDriver::new("the switch".to_owned(), Box::new(agent), SwitchSettings::default());
    let runtime = Builder::new_current_thread().enable_time().build().map_err(|why| why.to_string())?;
    let mut look = |depth| runtime.block_on(observe(&mut driver, depth, Instant::now() + Duration::from_secs(600)));
    let (first, again) = (look(Depth::Everything), look(Depth::State));
    let requests = *requests.lock().unwrap_or_else(PoisonError::into_inner);
    hold(requests <= REQUESTS, || format!("{requests} requests"))?;
    match (first, again) {
        (Ok(Observation::Switch(first)), Ok(Observation::Switch(again))) => {
            hold(first == again, || format!("a second look shows something else: {} and then {}", to_json(&first), to_json(&again)))
        }
        (Err(first), Err(again)) => hold(says(&first) == says(&again), || format!("`{}` and then `{}`", says(&first), says(&again))),
        (first, again) => Err(format!("of two looks one fails: {:?} and then {:?}", first.err(), again.err())),
    }
}

fn says(fault: &Fault) -> String {
    fault.to_string()
}
