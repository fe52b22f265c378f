//! What a simulated SNMP agent serves, seen from its wire endpoint.

use crate::drivers::switch::snmp::{Binding, Oid, Value, Walked};

/// A tree of objects with rules.
pub trait Mib: Send {
    /// The value at exactly this OID.
    fn get(&mut self, oid: &Oid) -> Option<Value>;
    /// The first object after this OID.
    fn next(&mut self, oid: &Oid) -> Option<Binding>;
    /// All of one SET PDU. `Err`: error-status (RFC 3416: 6 noAccess, 7 wrongType, 10 wrongValue, 12 inconsistentValue, 17 notWritable …)
    /// and error-index, from 1.
    fn set(&mut self, bindings: &[Binding]) -> Result<(), (u32, u32)>;

    /// What a walk of a column brings.
    fn walked(&mut self, column: &Oid) -> Walked {
        let (mut rows, mut at) = (Vec::new(), column.clone());
        while let Some((oid, value)) = self.next(&at).filter(|(oid, _)| oid.starts_with(column)) {
            at = oid.clone();
            rows.push((oid, value));
        }
        Walked::whole(rows)
    }
}
