//! Walking several columns at once with GETBULK: which requests to make, and what a reply adds. No sockets here.
//!
//! A reply may be shorter than asked (agents cap it at 64 or 100 bindings, or at their message size): the next request goes on from the
//! last row got. Leaves out: sending, and error-status other than tooBig. Invariants: every request makes progress or the walk ends with
//! a fault, no row is lost or doubled, and an agent that always has another row is found out (`is_too_much`). Shown by the tests below.

use super::{Binding, Oid, Value};
use crate::limits;

/// Bindings of one reply: snmpsim and some switches stop at 64, net-snmp at 100, and 64 PVIDs still fit an Ethernet frame.
pub(super) const REPLY_BINDINGS_MAX: usize = 64;
/// Columns of one request, so that a reply of `REPLY_BINDINGS_MAX` has two rows of each.
const COLUMNS_MAX: usize = 32;
/// Rows asked for where the expected number of rows is used up and the table still goes on; more where it goes on for long.
const ROWS_BEYOND: usize = 10;

/// One GETBULK: go on after each of `after`, `rows` times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub after: Vec<Oid>,
    pub rows: u32,
    columns: Vec<usize>,
}

struct Column {
    root: Oid,
    rows: Vec<Binding>,
    done: bool,
}

impl Column {
    fn last(&self) -> &Oid {
        self.rows.last().map_or(&self.root, |(oid, _)| oid)
    }
}

/// A walk on its way.
pub(super) struct Walk {
    columns: Vec<Column>,
    expected: usize,
    bindings_max: usize,
    /// Of memory, for all rows so far.
    bytes: usize,
}

impl Walk {
    /// `rows`: how many to expect in the longest column, 0 where nobody knows.
    pub(super) fn new(columns: &[Oid], rows: usize, bindings_max: usize) -> Walk {
        let columns = columns.iter().map(|root| Column { root: root.clone(), rows: Vec::new(), done: false }).collect();
        Walk { columns, expected: rows, bindings_max: bindings_max.clamp(1, REPLY_BINDINGS_MAX), bytes: 0 }
    }

    /// The next request, or nothing where all columns are at their end.
    pub(super) fn ask(&self) -> Option<Ask> {
        let width = COLUMNS_MAX.min(self.bindings_max);
        let columns: Vec<usize> = (0..self.columns.len()).filter(|&at| !self.columns[at].done).take(width).collect();
        let most = self.bindings_max / columns.len().max(1);
        let got = columns.iter().map(|&at| self.columns[at].rows.len()).min()?;
        let wanted = match self.expected {
            0 => most,
            // One more than expected shows the end in the same reply.
            expected if expected >= got => expected - got + 1,
            _ => ROWS_BEYOND.max(got / 2),
        };
        let after = columns.iter().map(|&at| self.columns[at].last().clone()).collect();
        Some(Ask { after, rows: wanted.clamp(1, most.max(1)) as u32, columns })
    }

    /// The reply to `ask`. The error says what is wrong with it.
    pub(super) fn take(&mut self, ask: &Ask, reply: Vec<Binding>) -> Result<(), String> {
        if reply.is_empty() {
            return Err("a reply to GETBULK without a single binding".to_owned());
        }
        let got = reply.len();
        for (at, (oid, value)) in reply.into_iter().enumerate() {
            let Some(column) = ask.columns.get(at % ask.columns.len().max(1)).and_then(|&column| self.columns.get_mut(column)) else {
                return Err("more columns than were asked for".to_owned());
            };
            let missing = matches!(value, Value::EndOfMibView | Value::NoSuchObject | Value::NoSuchInstance);
            if column.done {
                continue;
            }
            if missing || oid.index_in(&column.root).is_none_or(<[u32]>::is_empty) {
                column.done = true;
            } else if oid <= *column.last() {
                return Err(format!("after {} came {oid}, which is not behind it", column.last()));
            } else {
                self.bytes += bytes(&oid, &value);
                column.rows.push((oid, value));
            }
        }
        // Cut short by the agent's cap, or the answer to a later, smaller try: more than this does not get through.
        if got < ask.after.len() * ask.rows as usize {
            self.bindings_max = self.bindings_max.min(got);
        }
        Ok(())
    }

    /// Nothing that is walked has so many rows, or such large ones.
    pub(super) fn is_too_much(&self) -> bool {
        self.longest().is_some_and(|(_, rows)| rows > limits::TABLE_ROWS) || self.bytes > limits::TABLE_BYTES
    }

    /// The longest column, and how many rows it has so far.
    pub(super) fn longest(&self) -> Option<(&Oid, usize)> {
        self.columns.iter().map(|column| (&column.root, column.rows.len())).max_by_key(|(_, rows)| *rows)
    }

    /// The agent said tooBig: ask for half as much from now on. False where it was one binding already.
    pub(super) fn halve(&mut self, ask: &Ask) -> bool {
        let asked = ask.after.len() * ask.rows as usize;
        self.bindings_max = (asked.min(self.bindings_max) / 2).max(1);
        asked > 1
    }

    /// How many bindings a reply may have now.
    pub(super) fn bindings_max(&self) -> usize {
        self.bindings_max
    }

    /// The rows of each column.
    pub(super) fn rows(self) -> Vec<Vec<Binding>> {
        self.columns.into_iter().map(|column| column.rows).collect()
    }
}

fn bytes(oid: &Oid, value: &Value) -> usize {
    let held = match value {
        Value::Octets(octets) | Value::Opaque(octets) => octets.len(),
        Value::Oid(oid) => size_of_val(oid.0.as_slice()),
        Value::Integer(_)
        | Value::Null
        | Value::IpAddress(_)
        | Value::Counter32(_)
        | Value::Unsigned32(_)
        | Value::TimeTicks(_)
        | Value::Counter64(_)
        | Value::NoSuchObject
        | Value::NoSuchInstance
        | Value::EndOfMibView => 0,
    };
    size_of::<Binding>() + size_of_val(oid.0.as_slice()) + held
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An agent's GETBULK over a sorted table, cut after `cap` bindings.
    fn answer(table: &[Binding], ask: &Ask, cap: usize) -> Vec<Binding> {
        let mut at = ask.after.clone();
        let mut out = Vec::new();
        for _ in 0..ask.rows {
            for oid in &mut at {
                match table.iter().find(|(name, _)| name > oid) {
                    Some((name, value)) => {
                        *oid = name.clone();
                        out.push((name.clone(), value.clone()));
                    }
                    None => out.push((oid.clone(), Value::EndOfMibView)),
                }
            }
        }
        out.truncate(cap);
        out
    }

    fn column(number: u32, rows: u32) -> impl Iterator<Item = Binding> {
        (1..=rows).map(move |row| (Oid(vec![1, 3, number, row]), Value::Integer(i64::from(number * 1000 + row))))
    }

    proptest! {
        #[test]
        fn no_row_is_lost_or_doubled(sizes in proptest::collection::vec(0u32..60, 1..8), hint in 0usize..80, cap in 1usize..120, most in 1usize..65) {
            let table: Vec<Binding> = sizes.iter().zip(1..).flat_map(|(rows, number)| column(number, *rows)).collect();
            let roots: Vec<Oid> = (1..=sizes.len() as u32).map(|number| Oid(vec![1, 3, number])).collect();
            let mut walk = Walk::new(&roots, hint, most);
            let mut requests = 0;
            while let Some(ask) = walk.ask() {
                requests += 1;
                prop_assert!(requests < 2_000);
                prop_assert!(ask.after.len() * ask.rows as usize <= REPLY_BINDINGS_MAX);
                prop_assert_eq!(walk.take(&ask, answer(&table, &ask, cap)), Ok(()));
            }
            for (rows, (size, number)) in walk.rows().into_iter().zip(sizes.iter().zip(1..)) {
                prop_assert_eq!(rows, column(number, *size).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_48_port_switch_takes_two_requests_for_pvid_and_admin_state() {
        let table: Vec<Binding> = column(1, 48).chain(column(2, 48)).collect();
        let mut walk = Walk::new(&[Oid(vec![1, 3, 1]), Oid(vec![1, 3, 2])], 48, REPLY_BINDINGS_MAX);
        let mut requests = 0;
        while let Some(ask) = walk.ask() {
            requests += 1;
            assert_eq!(walk.take(&ask, answer(&table, &ask, 100)), Ok(()));
        }
        assert_eq!(requests, 2);
    }

    #[test]
    fn an_agent_that_goes_round_in_circles_is_found_out() {
        let mut walk = Walk::new(&[Oid(vec![1, 3, 1])], 10, REPLY_BINDINGS_MAX);
        let ask = walk.ask().unwrap();
        let row = |row| (Oid(vec![1, 3, 1, row]), Value::Integer(1));
        assert!(walk.take(&ask, vec![row(1), row(2), row(2)]).unwrap_err().contains("not behind"));
        assert!(Walk::new(&[Oid(vec![1, 3, 1])], 10, 64).take(&ask, vec![]).is_err());
    }

    /// Requests until it ends by itself, or is too much.
    fn walked(rows: u32, columns: u32, octets: usize) -> (bool, usize) {
        let roots: Vec<Oid> = (1..=columns).map(|number| Oid(vec![1, 3, number])).collect();
        let (mut walk, mut requests) = (Walk::new(&roots, 64, REPLY_BINDINGS_MAX), 0);
        while let Some(ask) = walk.ask() {
            requests += 1;
            let after = |oid: &Oid, by: u32| if oid.0.len() == 3 { by } else { oid.0[3] + by };
            let row = |oid: &Oid, by| match after(oid, by) {
                number if number > rows => (oid.clone(), Value::EndOfMibView),
                number => (Oid(vec![1, 3, oid.0[2], number]), Value::Octets(vec![7; octets])),
            };
            let reply = (1..=ask.rows).flat_map(|by| ask.after.iter().map(move |oid| row(oid, by))).collect();
            walk.take(&ask, reply).unwrap();
            if walk.is_too_much() {
                return (false, requests);
            }
        }
        (true, requests)
    }

    #[test]
    fn what_large_switches_have_is_read_and_a_table_without_an_end_is_not() {
        assert!(walked(32_000, 1, 0).0, "the members of all VLANs");
        assert!(walked(4_000, 5, 32).0, "the names of 4,000 ports");
        assert!(walked(4_094, 2, 500).0, "the lists of 4,094 VLANs");
        let (ends, requests) = walked(u32::MAX, 1, 0);
        assert!(!ends && requests < 600, "{requests} requests");
        let (ends, requests) = walked(u32::MAX, 2, 1_000);
        assert!(!ends && requests < 1_000, "{requests} requests for rows that are large");
    }
}
