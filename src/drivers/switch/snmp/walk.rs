//! Walking several columns at once with GETBULK or GETNEXT: which requests to make, and what a reply adds. No sockets here.
//!
//! A reply may be shorter than asked (agents cap it at 64 or 100 bindings, or at their message size): the next request goes on from the
//! last row got. Rows that come in another order than that of their OIDs are taken as they come, as net-snmp's tools do with `-Cc`; one that
//! came before is a loop. Leaves out: sending, and what an error-status means. Invariants: every request makes progress or ends a column, no
//! row is lost or doubled, a column that fails takes no other with it, and an agent that always has another row is found out (`bound`).
//! Shown by the tests below.

use std::collections::BTreeSet;

use super::{Binding, Cut, Oid, Value, Walked};
use crate::limits;

/// Bindings of one reply: snmpsim and some switches stop at 64, net-snmp at 100, and 64 PVIDs still fit an Ethernet frame.
pub(crate) const REPLY_BINDINGS_MAX: usize = 64;
/// Columns of one request, so that a reply of `REPLY_BINDINGS_MAX` has two rows of each.
const COLUMNS_MAX: usize = 32;
/// Rows asked for where the expected number of rows is used up and the table still goes on; more where it goes on for long.
const ROWS_BEYOND: usize = 10;

/// One GETBULK: go on after each of `after`, `rows` times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub after: Vec<Oid>,
    pub rows: u32,
    columns: Vec<usize>,
}

impl Ask {
    /// The first row of one column.
    pub(crate) fn one(column: &Oid) -> Ask {
        Ask { after: vec![column.clone()], rows: 1, columns: vec![0] }
    }

    /// The next row of each column.
    pub(crate) fn by_row(&self) -> Ask {
        Ask { rows: 1, ..self.clone() }
    }

    /// The same, a column to a request.
    pub(crate) fn singly(&self) -> Vec<Ask> {
        let one = |(after, column): (&Oid, &usize)| Ask { after: vec![after.clone()], rows: 1, columns: vec![*column] };
        self.after.iter().zip(&self.columns).map(one).collect()
    }
}

struct Column {
    root: Oid,
    rows: Vec<Binding>,
    done: bool,
    /// Of memory, for its rows.
    bytes: usize,
    /// The last of its rows in the order of OIDs.
    highest: Oid,
    /// All of its rows, once one came that is not behind them.
    known: BTreeSet<Oid>,
    unordered: bool,
    cut: Option<Cut>,
}

impl Column {
    fn new(root: &Oid) -> Column {
        let (root, highest) = (root.clone(), root.clone());
        Column { root, rows: Vec::new(), done: false, bytes: 0, highest, known: BTreeSet::new(), unordered: false, cut: None }
    }

    fn last(&self) -> &Oid {
        self.rows.last().map_or(&self.root, |(oid, _)| oid)
    }

    fn take(&mut self, oid: Oid, value: Value) {
        let missing = matches!(value, Value::EndOfMibView | Value::NoSuchObject | Value::NoSuchInstance);
        if missing || oid.index_in(&self.root).is_none_or(<[u32]>::is_empty) {
            self.done = true;
        } else if self.is_new(&oid) {
            self.bytes += bytes(&oid, &value);
            self.rows.push((oid, value));
        } else {
            self.end(Some(Cut::Loops(oid)));
        }
    }

    fn is_new(&mut self, oid: &Oid) -> bool {
        if *oid > self.highest {
            self.highest = oid.clone();
            if !self.known.is_empty() {
                self.known.insert(oid.clone());
            }
            return true;
        }
        if self.known.is_empty() {
            self.known = self.rows.iter().map(|(oid, _)| oid.clone()).collect();
        }
        let is_new = self.known.insert(oid.clone());
        self.unordered |= is_new;
        is_new
    }

    fn end(&mut self, cut: Option<Cut>) {
        (self.done, self.cut) = (true, cut);
    }
}

/// A walk on its way.
pub(crate) struct Walk {
    columns: Vec<Column>,
    expected: usize,
    bindings_max: usize,
}

impl Walk {
    /// `rows`: how many to expect in the longest column, 0 where nobody knows.
    pub(crate) fn new(columns: &[Oid], rows: usize, bindings_max: usize) -> Walk {
        let columns = columns.iter().map(Column::new).collect();
        Walk { columns, expected: rows, bindings_max: bindings_max.clamp(1, REPLY_BINDINGS_MAX) }
    }

    /// The next request, or nothing where all columns are at their end.
    pub(crate) fn ask(&self) -> Option<Ask> {
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
    pub(crate) fn take(&mut self, ask: &Ask, reply: Vec<Binding>) -> Result<(), String> {
        if reply.is_empty() {
            return Err("a reply to a walk without a single binding".to_owned());
        }
        let got = reply.len();
        for (at, (oid, value)) in reply.into_iter().enumerate() {
            let Some(column) = ask.columns.get(at % ask.columns.len().max(1)).and_then(|&column| self.columns.get_mut(column)) else {
                return Err("more columns than were asked for".to_owned());
            };
            if !column.done {
                column.take(oid, value);
            }
        }
        // Cut short by the agent's cap, or the answer to a later, smaller try: more than this does not get through.
        if got < ask.after.len() * ask.rows as usize {
            self.bindings_max = self.bindings_max.min(got);
        }
        self.bound();
        Ok(())
    }

    /// The columns of `ask` are at their end, or not told further.
    pub(crate) fn end(&mut self, ask: &Ask, cut: Option<&Cut>) {
        for column in &ask.columns {
            self.columns[*column].end(cut.cloned());
        }
    }

    /// Nothing that is walked has so many rows, or such large ones: the largest column is given up, with its rows.
    fn bound(&mut self) {
        let bytes: usize = self.columns.iter().map(|column| column.bytes).sum();
        let too_much = |column: &Column| column.rows.len() > limits::TABLE_ROWS;
        if bytes <= limits::TABLE_BYTES && !self.columns.iter().any(too_much) {
            return;
        }
        let most = |column: &&mut Column| (too_much(column), column.bytes);
        if let Some(column) = self.columns.iter_mut().filter(|column| !column.done).max_by_key(most) {
            let rows = column.rows.len();
            *column = Column::new(&column.root);
            column.end(Some(Cut::Endless { rows }));
        }
    }

    /// The longest column, and how many rows it has so far.
    pub(crate) fn longest(&self) -> Option<(&Oid, usize)> {
        self.columns.iter().map(|column| (&column.root, column.rows.len())).max_by_key(|(_, rows)| *rows)
    }

    /// The agent said tooBig: ask for half as much from now on. False where it was one binding already.
    pub(crate) fn halve(&mut self, ask: &Ask) -> bool {
        let asked = ask.after.len() * ask.rows as usize;
        self.bindings_max = (asked.min(self.bindings_max) / 2).max(1);
        asked > 1
    }

    /// How many bindings a reply may have now.
    pub(crate) fn bindings_max(&self) -> usize {
        self.bindings_max
    }

    /// What came of each column.
    pub(crate) fn walked(self) -> Vec<Walked> {
        let walked = |column: Column| Walked { rows: column.rows, unordered: column.unordered, cut: column.cut };
        self.columns.into_iter().map(walked).collect()
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
            for (walked, (size, number)) in walk.walked().into_iter().zip(sizes.iter().zip(1..)) {
                prop_assert_eq!(walked, Walked::whole(column(number, *size).collect()));
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

    fn row(row: u32) -> Binding {
        (Oid(vec![1, 3, 1, row]), Value::Integer(1))
    }

    #[test]
    fn an_agent_that_goes_round_in_circles_is_found_out_and_its_other_columns_are_read() {
        for circle in [&[1, 2, 2][..], &[1, 3, 2, 1], &[2, 1, 3, 1]] {
            let mut walk = Walk::new(&[Oid(vec![1, 3, 1]), Oid(vec![1, 3, 2])], 10, REPLY_BINDINGS_MAX);
            let ask = walk.ask().unwrap();
            let other = |row: u32| (Oid(vec![1, 3, 2, row]), Value::Integer(2));
            let reply = (1..).zip(circle).flat_map(|(number, at)| [row(*at), other(number)]).collect();
            walk.take(&ask, reply).unwrap();
            let ask = walk.ask().unwrap();
            assert_eq!(ask.after.len(), 1, "the walk of the other goes on");
            walk.take(&ask, vec![row(1)]).unwrap();
            let walked = walk.walked();
            let (last, rows) = circle.split_last().unwrap();
            assert_eq!(walked[0].cut, Some(Cut::Loops(row(*last).0)));
            assert_eq!(walked[0].rows, rows.iter().map(|at| row(*at)).collect::<Vec<_>>());
            assert_eq!((walked[1].rows.len(), &walked[1].cut), (circle.len(), &None));
        }
        let mut walk = Walk::new(&[Oid(vec![1, 3, 1])], 10, 64);
        let ask = walk.ask().unwrap();
        assert!(walk.take(&ask, vec![]).is_err());
    }

    #[test]
    fn rows_in_any_order_are_read_and_it_is_said() {
        for order in [vec![1, 2, 3, 4], vec![3, 4, 1, 2], vec![4, 3, 2, 1], vec![2, 4, 1, 3]] {
            let mut walk = Walk::new(&[Oid(vec![1, 3, 1])], 10, REPLY_BINDINGS_MAX);
            let ask = walk.ask().unwrap();
            let rows: Vec<Binding> = order.iter().map(|at| row(*at)).collect();
            let end = (Oid(vec![1, 3, 2, 1]), Value::Integer(1));
            walk.take(&ask, [rows.clone(), vec![end]].concat()).unwrap();
            assert_eq!(walk.ask(), None);
            assert_eq!(walk.walked(), [Walked { unordered: order != [1, 2, 3, 4], ..Walked::whole(rows) }]);
        }
    }

    /// Whether each column was walked to its end, and the requests of it.
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
        }
        (walk.walked().iter().all(|column| column.cut.is_none()), requests)
    }

    #[test]
    fn what_large_switches_have_is_read_and_a_table_without_an_end_is_not() {
        assert!(walked(32_000, 1, 0).0, "the members of all VLANs");
        assert!(walked(4_000, 5, 32).0, "the names of 4,000 ports");
        assert!(walked(4_094, 2, 500).0, "the lists of 4,094 VLANs");
        let (ends, requests) = walked(u32::MAX, 1, 0);
        assert!(!ends && requests < 600, "{requests} requests");
        let (ends, requests) = walked(u32::MAX, 2, 1_000);
        assert!(!ends && requests < 2_000, "{requests} requests for rows that are large");
    }
}
