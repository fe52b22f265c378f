//! BMCs: power, boot device and identity of a server. IPMI 2.0 over RMCP+ is spoken here; Redfish is not yet.
pub(crate) mod ipmi;
