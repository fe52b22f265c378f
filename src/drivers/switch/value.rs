//! What the driver takes out of SNMP values: numbers, text, columns by index. An odd value is as good as a missing one.
//!
//! Leaves out: meaning.

use std::collections::BTreeMap;

use super::snmp::Value;

/// A column: index → value.
pub(super) type Column = BTreeMap<Vec<u32>, Value>;

pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(n) => Some(*n),
        Value::Unsigned32(n) | Value::Counter32(n) | Value::TimeTicks(n) => Some(i64::from(*n)),
        Value::Counter64(n) => i64::try_from(*n).ok(),
        Value::Octets(_)
        | Value::Oid(_)
        | Value::Null
        | Value::IpAddress(_)
        | Value::Opaque(_)
        | Value::NoSuchObject
        | Value::NoSuchInstance
        | Value::EndOfMibView => None,
    }
}

pub(super) fn octets(value: &Value) -> Option<&[u8]> {
    if let Value::Octets(octets) = value { Some(octets) } else { None }
}

/// Text without the NULs and blanks around it; nothing where it is empty.
pub(super) fn text(value: &Value) -> Option<String> {
    let text = String::from_utf8_lossy(octets(value)?).trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned();
    (!text.is_empty()).then_some(text)
}

/// The numbers of a column whose index is one arc.
pub(super) fn numbers(column: &Column) -> BTreeMap<u32, i64> {
    column.iter().filter_map(|(index, value)| Some((single(index)?, number(value)?))).collect()
}

/// The texts of a column whose index is one arc.
pub(super) fn texts(column: &Column) -> BTreeMap<u32, String> {
    column.iter().filter_map(|(index, value)| Some((single(index)?, text(value)?))).collect()
}

pub(super) fn single(index: &[u32]) -> Option<u32> {
    if let [one] = index { Some(*one) } else { None }
}

/// Six octets of an index, as a MAC address is written there.
pub(super) fn mac_octets(index: &[u32]) -> Option<[u8; 6]> {
    let octets: Vec<u8> = index.iter().map(|arc| u8::try_from(*arc)).collect::<Result<_, _>>().ok()?;
    octets.try_into().ok()
}
