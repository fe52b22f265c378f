//! A recording of a real agent (snmprec: `OID|tag|value`) as a tree of objects that can be read.
//!
//! Leaves out: SET; `sim::switch` puts rules on top of it. Shown by `tests/recordings.rs`.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::mib::Mib;
use crate::drivers::switch::snmp::{Binding, Oid, Value};

/// Objects in their order.
#[derive(Debug, Clone, Default)]
pub struct Tree(pub BTreeMap<Oid, Value>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the recording does not read: `{text}`")]
pub struct BadRecording {
    pub line: usize,
    pub text: String,
}

impl Tree {
    /// Tags are BER's, in decimal: 2 INTEGER, 4 OCTET STRING, 6 OBJECT IDENTIFIER, 64 IpAddress, 65 Counter32, 66 Gauge32, 67 TimeTicks,
    /// 68 Opaque, 70 Counter64; an `x` behind it: the value is in hex.
    pub fn parse(text: &str) -> Result<Tree, BadRecording> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let parsed = lines.map(|(n, line)| parse_line(line).ok_or_else(|| BadRecording { line: n + 1, text: line.to_owned() }));
        parsed.collect::<Result<_, _>>().map(Tree)
    }

    pub fn next_after(&self, oid: &Oid) -> Option<Binding> {
        let (oid, value) = self.0.range((Bound::Excluded(oid), Bound::Unbounded)).next()?;
        Some((oid.clone(), value.clone()))
    }
}

fn parse_line(line: &str) -> Option<Binding> {
    let mut parts = line.splitn(3, '|');
    let (oid, tag, value) = (parts.next()?, parts.next()?, parts.next()?);
    let (tag, octets) = match tag.strip_suffix('x') {
        Some(tag) => (tag, unhex(value)?),
        None => (tag, value.as_bytes().to_vec()),
    };
    let number = |octets: &[u8]| std::str::from_utf8(octets).ok().and_then(|text| text.trim().parse::<i64>().ok());
    let small = |octets: &[u8]| number(octets).and_then(|n| u32::try_from(n).ok());
    let value = match tag {
        "2" => Value::Integer(number(&octets)?),
        "4" => Value::Octets(octets),
        "5" => Value::Null,
        "6" => Value::Oid(std::str::from_utf8(&octets).ok()?.parse().ok()?),
        "64" => Value::IpAddress(address(&octets)?),
        "65" => Value::Counter32(small(&octets)?),
        "66" => Value::Unsigned32(small(&octets)?),
        "67" => Value::TimeTicks(small(&octets)?),
        "68" => Value::Opaque(octets),
        "70" => Value::Counter64(std::str::from_utf8(&octets).ok()?.trim().parse().ok()?),
        _ => return None,
    };
    Some((oid.parse().ok()?, value))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    pairs.collect()
}

fn address(octets: &[u8]) -> Option<[u8; 4]> {
    match <[u8; 4]>::try_from(octets) {
        Ok(address) => Some(address),
        Err(_) => std::str::from_utf8(octets).ok()?.parse::<std::net::Ipv4Addr>().ok().map(|a| a.octets()),
    }
}

impl Mib for Tree {
    fn get(&mut self, oid: &Oid) -> Option<Value> {
        self.0.get(oid).cloned()
    }

    fn next(&mut self, oid: &Oid) -> Option<Binding> {
        self.next_after(oid)
    }

    /// notWritable(17).
    fn set(&mut self, _: &[Binding]) -> Result<(), (u32, u32)> {
        Err((17, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_tags() {
        let text = "1.3.1|2|-4\n1.3.2|4|a|b\n1.3.3|4x|00ff\n1.3.4|6|1.3.6\n1.3.5|64x|0a000001\n1.3.6|66|7\n1.3.7|67|8\n1.3.8|70|9\n";
        let tree = Tree::parse(text).unwrap();
        let values: Vec<Value> = tree.0.into_values().collect();
        let oid = "1.3.6".parse().unwrap();
        let octets = |bytes: &[u8]| Value::Octets(bytes.to_vec());
        assert_eq!(values[..4], [Value::Integer(-4), octets(b"a|b"), octets(&[0, 255]), Value::Oid(oid)]);
        assert_eq!(values[4..], [Value::IpAddress([10, 0, 0, 1]), Value::Unsigned32(7), Value::TimeTicks(8), Value::Counter64(9)]);
        assert_eq!(Tree::parse("1.3.1|2|x").unwrap_err().line, 1);
    }
}
