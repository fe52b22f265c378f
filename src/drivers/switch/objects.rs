//! The objects that the switch driver reads and writes, by the names that their MIBs give them.
//!
//! Leaves out: which of them a switch serves and how they are to be written (`profiles`).
// tidy: table

use super::snmp::Oid;

/// An object identifier as a constant.
pub type Arcs = &'static [u32];

pub(crate) fn oid(arcs: Arcs) -> Oid {
    Oid(arcs.to_vec())
}

/// The instance of a column or scalar.
pub fn at(arcs: Arcs, index: &[u32]) -> Oid {
    Oid([arcs, index].concat())
}

/// The tables that are walked, by what the numbers of their columns begin with.
const TABLES: &[(&str, &str)] = &[
    ("1.3.6.1.2.1.2.2.", "ifTable"),
    ("1.3.6.1.2.1.31.1.1.", "ifXTable"),
    ("1.3.6.1.2.1.31.1.2.", "ifStackTable"),
    ("1.3.6.1.2.1.47.1.1.1.", "entPhysicalTable"),
    ("1.3.6.1.2.1.17.1.4.", "dot1dBasePortTable"),
    ("1.3.6.1.2.1.17.4.3.", "dot1dTpFdbTable"),
    ("1.3.6.1.2.1.17.7.1.2.1.", "dot1qFdbTable"),
    ("1.3.6.1.2.1.17.7.1.2.2.", "dot1qTpFdbTable"),
    ("1.3.6.1.2.1.17.7.1.4.2.", "dot1qVlanCurrentTable"),
    ("1.3.6.1.2.1.17.7.1.4.3.", "dot1qVlanStaticTable"),
    ("1.3.6.1.2.1.17.7.1.4.5.", "dot1qPortVlanTable"),
    ("1.2.840.10006.300.43.1.2.1.", "dot3adAggPortTable"),
    ("1.0.8802.1.1.2.1.3.7.", "lldpLocPortTable"),
    ("1.0.8802.1.1.2.1.4.1.", "lldpRemTable"),
    ("1.3.6.1.4.1.9.9.23.1.2.1.", "cdpCacheTable"),
    ("1.3.6.1.4.1.9.9.46.1.3.1.", "vtpVlanTable"),
    ("1.3.6.1.4.1.9.9.46.1.6.1.", "vlanTrunkPortTable"),
    ("1.3.6.1.4.1.9.9.68.1.2.2.", "vmMembershipTable"),
    ("1.3.6.1.4.1.9.9.98.1.1.1.", "pagpEtherChannelTable"),
    ("1.3.6.1.4.1.1991.1.1.3.2.6.", "snVLanByPortMemberTable"),
    ("1.3.6.1.4.1.1991.1.1.3.2.7.", "snVLanByPortCfgTable"),
    ("1.3.6.1.4.1.1991.1.1.3.3.5.", "snSwIfInfoTable"),
    ("1.3.6.1.4.1.25506.8.35.1.1.", "hh3cifXXTable"),
    ("1.3.6.1.4.1.25506.2.4.1.2.5.", "hh3cCfgOperateResultTable"),
];

/// A column with the name of its table, where that is known.
pub(super) fn in_words(column: &str) -> String {
    table(column).map_or_else(|| column.to_owned(), |table| format!("{table} ({column})"))
}

/// The table of a column, where its name is known: else the column.
pub(super) fn table_in_words(column: &str) -> String {
    table(column).unwrap_or(column).to_owned()
}

fn table(column: &str) -> Option<&'static str> {
    TABLES.iter().find(|(begin, _)| column.starts_with(begin)).map(|(_, table)| *table)
}

// SNMPv2-MIB, RFC 3418
pub(crate) const SYS_DESCR: Arcs = &[1, 3, 6, 1, 2, 1, 1, 1];
pub(crate) const SYS_OBJECT_ID: Arcs = &[1, 3, 6, 1, 2, 1, 1, 2];
pub(crate) const SYS_UP_TIME: Arcs = &[1, 3, 6, 1, 2, 1, 1, 3];
pub(crate) const SYS_NAME: Arcs = &[1, 3, 6, 1, 2, 1, 1, 5];
// SNMP-FRAMEWORK-MIB, RFC 3411
pub(crate) const SNMP_ENGINE_ID: Arcs = &[1, 3, 6, 1, 6, 3, 10, 2, 1, 1];
// ENTITY-MIB, RFC 6933: entPhysicalClass chassis(3), stack(11)
pub(crate) const ENT_PHYSICAL_CLASS: Arcs = &[1, 3, 6, 1, 2, 1, 47, 1, 1, 1, 1, 5];
pub const ENT_PHYSICAL_SERIAL: Arcs = &[1, 3, 6, 1, 2, 1, 47, 1, 1, 1, 1, 11];
// IF-MIB, RFC 2863
pub(crate) const IF_DESCR: Arcs = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 2];
pub(crate) const IF_TYPE: Arcs = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 3];
pub const IF_ADMIN_STATUS: Arcs = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 7];
pub(crate) const IF_OPER_STATUS: Arcs = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 8];
pub(crate) const IF_NAME: Arcs = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1];
pub(crate) const IF_ALIAS: Arcs = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18];
pub(crate) const IF_STACK_STATUS: Arcs = &[1, 3, 6, 1, 2, 1, 31, 1, 2, 1, 3];
pub(crate) const IF_TABLE_LAST_CHANGE: Arcs = &[1, 3, 6, 1, 2, 1, 31, 1, 5];
/// IANAifType: ethernetCsmacd(6), fastEther(62), fastEtherFX(69), gigabitEthernet(117).
pub(crate) const ETHERNET_TYPES: &[i64] = &[6, 62, 69, 117];
/// IANAifType: ieee8023adLag(161).
pub(crate) const LAG_TYPE: i64 = 161;
/// IANAifType: propVirtual(53).
pub(crate) const PROP_VIRTUAL_TYPE: i64 = 53;
// BRIDGE-MIB, RFC 4188
pub(crate) const BASE_BRIDGE_ADDRESS: Arcs = &[1, 3, 6, 1, 2, 1, 17, 1, 1];
pub const BASE_PORT_IF_INDEX: Arcs = &[1, 3, 6, 1, 2, 1, 17, 1, 4, 1, 2];
pub(crate) const TP_FDB_PORT_OLD: Arcs = &[1, 3, 6, 1, 2, 1, 17, 4, 3, 1, 2];
// Q-BRIDGE-MIB, RFC 4363
/// dot1qFdbDynamicCount: how many addresses are learned, by FDB.
pub(crate) const FDB_DYNAMIC_COUNT: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 2, 1, 1, 2];
pub(crate) const TP_FDB_PORT: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 2, 2, 1, 2];
pub(crate) const TP_FDB_STATUS: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 2, 2, 1, 3];
pub(crate) const CURRENT_EGRESS: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 2, 1, 4];
pub(crate) const CURRENT_UNTAGGED: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 2, 1, 5];
pub(crate) const NUM_VLANS: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 1, 4];
pub(crate) const STATIC_NAME: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 3, 1, 1];
pub const STATIC_EGRESS: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 3, 1, 2];
pub const STATIC_UNTAGGED: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 3, 1, 4];
pub const STATIC_ROW_STATUS: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 3, 1, 5];
pub const PVID: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 5, 1, 1];
/// dot1qPortAcceptableFrameTypes: admitAll(1), admitOnlyVlanTagged(2).
pub(crate) const FRAME_TYPES: Arcs = &[1, 3, 6, 1, 2, 1, 17, 7, 1, 4, 5, 1, 2];
// IEEE8023-LAG-MIB: dot3adAggPortAttachedAggID
pub(crate) const LAG_ATTACHED: Arcs = &[1, 2, 840, 10006, 300, 43, 1, 2, 1, 1, 13];
// CISCO-PAGP-MIB: pagpGroupIfIndex
pub(crate) const PAGP_GROUP: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 98, 1, 1, 1, 1, 8];
// LLDP-MIB, IEEE 802.1AB-2005
pub(crate) const LLDP_LOC_PORT_ID: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 3, 7, 1, 3];
pub(crate) const LLDP_LOC_PORT_DESC: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 3, 7, 1, 4];
pub(crate) const LLDP_REM_CHASSIS_SUBTYPE: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 4];
pub(crate) const LLDP_REM_CHASSIS: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 5];
pub(crate) const LLDP_REM_PORT_SUBTYPE: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 6];
pub(crate) const LLDP_REM_PORT: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 7];
pub(crate) const LLDP_REM_SYS_NAME: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 9];
pub(crate) const LLDP_REM_CAPABILITIES: Arcs = &[1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 12];
// CISCO-CDP-MIB: cdpCacheDeviceId, cdpCacheDevicePort, cdpCacheCapabilities
pub(crate) const CDP_DEVICE: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 23, 1, 2, 1, 1, 6];
pub(crate) const CDP_PORT: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 23, 1, 2, 1, 1, 7];
pub(crate) const CDP_CAPABILITIES: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 23, 1, 2, 1, 1, 9];
// CISCO-VLAN-MEMBERSHIP-MIB: vmVlan
pub const VM_VLAN: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 68, 1, 2, 2, 1, 2];
// CISCO-VTP-MIB
pub(crate) const VTP_VLAN_STATE: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 3, 1, 1, 2];
pub(crate) const VTP_VLAN_TYPE: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 3, 1, 1, 3];
pub(crate) const TRUNK_SERIAL: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 2];
pub(crate) const TRUNK_ENCAPSULATION: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 3];
pub(crate) const TRUNK_NATIVE: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 5];
pub(crate) const TRUNK_DYNAMIC_STATE: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 13];
pub(crate) const TRUNK_DYNAMIC_STATUS: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 14];
/// vlanTrunkPortVlansEnabled and its 2k, 3k and 4k parts: 1,024 VLANs each, the first bit of the first is VLAN 0.
pub(crate) const TRUNK_ENABLED: [Arcs; 4] = [
    &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 4],
    &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 17],
    &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 18],
    &[1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 19],
];
// CISCO-CONFIG-MAN-MIB: ccmHistoryRunningLastChanged, ccmHistoryStartupLastChanged
pub(crate) const CCM_RUNNING_CHANGED: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 43, 1, 1, 1];
pub(crate) const CCM_STARTUP_CHANGED: Arcs = &[1, 3, 6, 1, 4, 1, 9, 9, 43, 1, 1, 3];
/// HH3C-LswINF-MIB: hh3cifVLANType, by ifIndex
pub(crate) const LINK_TYPE: Arcs = &[1, 3, 6, 1, 4, 1, 25506, 8, 35, 1, 1, 1, 5];
// FOUNDRY-SN-SWITCH-GROUP-MIB: snVLanByPortMemberTagMode, tagged(1) untagged(2), by VLAN and ifIndex
pub(crate) const FOUNDRY_MEMBER_TAG_MODE: Arcs = &[1, 3, 6, 1, 4, 1, 1991, 1, 1, 3, 2, 6, 1, 4];
// The same: snVLanByPortMemberRowStatus, valid(2) delete(3) create(4)
pub const FOUNDRY_MEMBER_STATUS: Arcs = &[1, 3, 6, 1, 4, 1, 1991, 1, 1, 3, 2, 6, 1, 3];
// snVLanByPortCfgRowStatus, by VLAN; snSwDefaultVLanId
pub(crate) const FOUNDRY_VLAN_STATUS: Arcs = &[1, 3, 6, 1, 4, 1, 1991, 1, 1, 3, 2, 7, 1, 23];
pub(crate) const FOUNDRY_DEFAULT_VLAN: Arcs = &[1, 3, 6, 1, 4, 1, 1991, 1, 1, 3, 1, 38];
// The same, by ifIndex: snSwIfInfoTagMode, tagged(1) untagged(2) dual(3); snSwIfVlanId, the VLAN of untagged frames
pub(crate) const FOUNDRY_IF_TAG_MODE: Arcs = &[1, 3, 6, 1, 4, 1, 1991, 1, 1, 3, 3, 5, 1, 4];
pub(crate) const FOUNDRY_IF_VLAN: Arcs = &[1, 3, 6, 1, 4, 1, 1991, 1, 1, 3, 3, 5, 1, 24];
// FOUNDRY-SN-AGENT-MIB: snAgWriteNVRAM, normal(1) error(2) write(3) writing(4)
pub(crate) const FOUNDRY_WRITE_NVRAM: Arcs = &[1, 3, 6, 1, 4, 1, 1991, 1, 1, 2, 1, 3];
// HH3C-CONFIG-MAN-MIB: hh3cCfgOperateResultOptIndex, hh3cCfgOperateState
pub(crate) const HH3C_RESULT_REQUEST: Arcs = &[1, 3, 6, 1, 4, 1, 25506, 2, 4, 1, 2, 5, 1, 2];
pub(crate) const HH3C_RESULT_STATE: Arcs = &[1, 3, 6, 1, 4, 1, 25506, 2, 4, 1, 2, 5, 1, 4];
