//! A plain table of objects, read from .snmprec text (the recordings of LibreNMS and snmpsim).
//!
//! Lines are `OID|tag|value`; the tag is the ASN.1 tag in decimal, with an `x` behind it where the value is in hexadecimal. Leaves out:
//! rules between objects, and snmpsim's variation modules (`66:writecache`), which are refused. Invariant: rows are in the order of
//! their OIDs, whatever the order of the text. Shown by the tests below.

use std::collections::BTreeMap;

use crate::drivers::switch::snmp::{Binding, Oid, Value};
use crate::sim::mib::Mib;

/// A recording as a MIB.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: BTreeMap<Oid, Value>,
    writable: bool,
}

/// A line of a recording that does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: found `{found}`, expected {expected}")]
pub struct BadRecording {
    pub line: usize,
    pub found: String,
    pub expected: &'static str,
}

impl Table {
    /// Read-only, until `writable`.
    pub fn parse(text: &str) -> Result<Table, BadRecording> {
        let mut rows = BTreeMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (oid, value) = row(line).map_err(|(found, expected)| BadRecording { line: at + 1, found, expected })?;
            rows.insert(oid, value);
        }
        Ok(Table { rows, writable: false })
    }

    /// Every object that exists can be written, with a value of its own type.
    pub fn writable(mut self) -> Table {
        self.writable = true;
        self
    }

    pub fn put(&mut self, oid: Oid, value: Value) {
        self.rows.insert(oid, value);
    }
}

fn row(line: &str) -> Result<Binding, (String, &'static str)> {
    let mut parts = line.splitn(3, '|');
    let (Some(oid), Some(tag), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
        return Err((line.to_owned(), "OID|tag|value"));
    };
    let oid: Oid = oid.trim().parse().map_err(|_| (oid.to_owned(), "an object identifier"))?;
    let (tag, octets) = match tag.strip_suffix('x') {
        Some(tag) => (tag, unhex(text).ok_or((text.to_owned(), "an even number of hexadecimal digits"))?),
        None => (tag, text.as_bytes().to_vec()),
    };
    let text = text.trim();
    let number = |expected| move |_| (text.to_owned(), expected);
    let value = match tag {
        "2" => Value::Integer(text.parse().map_err(number("an integer"))?),
        "4" => Value::Octets(octets),
        "5" => Value::Null,
        "6" => Value::Oid(text.parse().map_err(|_| (text.to_owned(), "an object identifier"))?),
        "64" => Value::IpAddress(address(text, &octets).ok_or((text.to_owned(), "an IPv4 address"))?),
        "65" => Value::Counter32(text.parse().map_err(number("a number of 32 bits"))?),
        "66" => Value::Unsigned32(text.parse().map_err(number("a number of 32 bits"))?),
        "67" => Value::TimeTicks(text.parse().map_err(number("a number of 32 bits"))?),
        "68" => Value::Opaque(octets),
        "70" => Value::Counter64(text.parse().map_err(number("a number of 64 bits"))?),
        _ => return Err((tag.to_owned(), "one of the tags 2, 4, 5, 6, 64, 65, 66, 67, 68 and 70")),
    };
    Ok((oid, value))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.trim().bytes().map(|byte| char::from(byte).to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// As text, or as four octets behind `64x`.
fn address(text: &str, octets: &[u8]) -> Option<[u8; 4]> {
    text.parse::<std::net::Ipv4Addr>().map(|address| address.octets()).ok().or_else(|| octets.try_into().ok())
}

impl Mib for Table {
    fn get(&mut self, oid: &Oid) -> Option<Value> {
        self.rows.get(oid).cloned()
    }

    fn next(&mut self, oid: &Oid) -> Option<Binding> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.rows.range((Excluded(oid), Unbounded)).next().map(|(oid, value)| (oid.clone(), value.clone()))
    }

    fn set(&mut self, bindings: &[Binding]) -> Result<(), (u32, u32)> {
        const WRONG_TYPE: u32 = 7;
        const NO_CREATION: u32 = 11;
        const NOT_WRITABLE: u32 = 17;
        for ((oid, value), index) in bindings.iter().zip(1..) {
            let present = self.rows.get(oid).ok_or((NO_CREATION, index))?;
            if !self.writable {
                return Err((NOT_WRITABLE, index));
            }
            if std::mem::discriminant(present) != std::mem::discriminant(value) {
                return Err((WRONG_TYPE, index));
            }
        }
        self.rows.extend(bindings.iter().cloned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_reads_and_the_bad_lines_are_named() {
        let text = "1.3.6.1.2.1.1.1.0|4|a | b\n\n1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.9\n1.3.6.2.1|4x|00fFe1\n1.3.6.2.2|2|-5\n1.3.6.2.3|5|\n\
                    1.3.6.2.4|64|10.0.0.1\n1.3.6.2.5|65|1\n1.3.6.2.6|66|2\n1.3.6.2.7|67|3\n1.3.6.2.8|68x|9f78\n1.3.6.2.9|70|18446744073709551615";
        let mut table = Table::parse(text).unwrap();
        let get = |table: &mut Table, oid: &str| table.get(&oid.parse().unwrap());
        assert_eq!(get(&mut table, "1.3.6.1.2.1.1.1.0"), Some(Value::Octets(b"a | b".to_vec())));
        assert_eq!(get(&mut table, "1.3.6.2.1"), Some(Value::Octets(vec![0, 0xff, 0xe1])));
        assert_eq!(get(&mut table, "1.3.6.2.4"), Some(Value::IpAddress([10, 0, 0, 1])));
        assert_eq!(get(&mut table, "1.3.6.2.9"), Some(Value::Counter64(u64::MAX)));
        assert_eq!(table.rows.len(), 11);
        for bad in ["1.2", "1.2|4x|abc", "1.2|66:writecache|value=1", "x|2|1", "1.2|2|y", "1.2|99|1"] {
            let error = Table::parse(&format!("1.3|2|1\n{bad}")).unwrap_err();
            assert_eq!(error.line, 2, "{error}");
        }
    }

    #[test]
    fn a_set_is_all_or_nothing() {
        let mut table = Table::parse("1.1|2|1\n1.2|4|a").unwrap();
        let oid = |last| Oid(vec![1, last]);
        assert_eq!(table.set(&[(oid(1), Value::Integer(2))]), Err((17, 1)));
        let mut table = table.writable();
        assert_eq!(table.set(&[(oid(1), Value::Integer(2)), (oid(2), Value::Integer(2))]), Err((7, 2)));
        assert_eq!(table.set(&[(oid(3), Value::Integer(2))]), Err((11, 1)));
        assert_eq!(table.get(&oid(1)), Some(Value::Integer(1)));
        assert_eq!(table.set(&[(oid(1), Value::Integer(2))]), Ok(()));
        assert_eq!(table.get(&oid(1)), Some(Value::Integer(2)));
        assert_eq!(table.next(&oid(1)).map(|(oid, _)| oid), Some(oid(2)));
    }
}
