//! What a Comware does beyond Q-BRIDGE-MIB: link types, and saving by HH3C-CONFIG-MAN-MIB.
//!
//! By the vendor's manuals: an access port is in one VLAN, leaves the old one when it joins another, and its PVID, which cannot be configured,
//! follows; a trunk sends the frames of its PVID untagged, and all others tagged; between trunk and hybrid a port becomes access first.

use super::{Config, SimSwitch, VlanRow};
use crate::drivers::switch::objects::{self as o, Arcs, at};
use crate::drivers::switch::portlist;
use crate::drivers::switch::snmp::{Oid, Value};
use crate::model::Vlan;

pub(super) const TRUNK: i64 = 1;
pub(super) const ACCESS: i64 = 2;
pub(super) const HYBRID: i64 = 3;

// SNMPv2 error-status, RFC 3416
const WRONG_TYPE: u32 = 7;
const WRONG_VALUE: u32 = 10;
const INCONSISTENT_VALUE: u32 = 12;

/// HH3C-CONFIG-MAN-MIB::hh3cCfgOperateType, hh3cCfgOperateRowStatus.
const OPERATE_TYPE: Arcs = &[1, 3, 6, 1, 4, 1, 25506, 2, 4, 1, 2, 4, 1, 2];
const OPERATE_STATUS: Arcs = &[1, 3, 6, 1, 4, 1, 25506, 2, 4, 1, 2, 4, 1, 9];

impl SimSwitch {
    pub(super) fn comware_columns(&self, put: &mut impl FnMut(Arcs, &[u32], Value)) {
        for port in &self.config.ports {
            put(o::LINK_TYPE, &[port.if_index], Value::Integer(port.link_type));
        }
        for (index, (request, state)) in (1..).zip(&self.results) {
            put(o::HH3C_RESULT_REQUEST, &[index], Value::Integer(i64::from(*request)));
            put(o::HH3C_RESULT_STATE, &[index], Value::Integer(*state));
        }
    }

    /// Nothing where the object is another's.
    pub(super) fn set_comware(&mut self, config: &mut Config, oid: &Oid, value: &Value) -> Option<Result<(), u32>> {
        let index = |arcs: Arcs| if let Some([index]) = oid.0.strip_prefix(arcs) { Some(*index) } else { None };
        let Value::Integer(n) = value else { return index(o::LINK_TYPE).map(|_| Err(WRONG_TYPE)) };
        if let Some(at) = index(o::LINK_TYPE) {
            let place = config.ports.iter().position(|port| port.if_index == at)?;
            return Some(self.set_link_type(config, place, *n));
        }
        if index(OPERATE_TYPE).is_some() {
            return Some(if *n == 1 { Ok(()) } else { Err(WRONG_VALUE) });
        }
        let request = index(OPERATE_STATUS)?;
        Some(match n {
            4 if self.requests.contains(&request) => Err(INCONSISTENT_VALUE),
            4 => {
                self.requests.insert(request);
                // hh3cCfgOperateState: opInProgress(1)
                self.results.push((request, 1));
                self.copies += 1;
                self.saving = Some(1);
                Ok(())
            }
            6 if self.requests.remove(&request) => Ok(()),
            _ => Err(INCONSISTENT_VALUE),
        })
    }

    fn set_link_type(&self, config: &mut Config, place: usize, to: i64) -> Result<(), u32> {
        let Some(port) = config.ports.get_mut(place) else { return Err(WRONG_VALUE) };
        match (port.link_type, to) {
            (from, to) if from == to => {}
            (_, ACCESS) => {
                port.pvid = Vlan::DEFAULT;
                for (vlan, row) in &mut config.vlans {
                    put(self.form, row, place as u32 + 1, *vlan == Vlan::DEFAULT, *vlan == Vlan::DEFAULT);
                }
            }
            (ACCESS, TRUNK | HYBRID) => {}
            (_, _) => return Err(INCONSISTENT_VALUE),
        }
        port.link_type = to;
        Ok(())
    }

    /// The rules of link types, at the end of a PDU; `self.config` is as before it.
    pub(super) fn link_rules(&self, config: &mut Config) -> Result<(), u32> {
        let form = self.form;
        let in_list = |list: &[u8], number: u32| portlist::has(form, list, 1, number);
        for (number, (port, before)) in (1u32..).zip(config.ports.iter_mut().zip(&self.config.ports)) {
            let joined: Vec<Vlan> = config
                .vlans
                .iter()
                .filter(|(vlan, row)| **vlan != port.pvid && in_list(&row.egress, number))
                .map(|(vlan, _)| *vlan)
                .collect();
            match port.link_type {
                ACCESS => {
                    if port.pvid != before.pvid && before.link_type == ACCESS {
                        return Err(INCONSISTENT_VALUE);
                    }
                    let untagged = |vlan: &Vlan| config.vlans.get(vlan).is_some_and(|row| in_list(&row.untagged, number));
                    let stays = config.vlans.get(&port.pvid).is_some_and(|row| in_list(&row.egress, number));
                    port.pvid = match joined.as_slice() {
                        [] if stays => port.pvid,
                        [] => Vlan::DEFAULT,
                        [one] if untagged(one) => *one,
                        _ => return Err(INCONSISTENT_VALUE),
                    };
                    let pvid = port.pvid;
                    config.vlans.iter_mut().for_each(|(vlan, row)| put(form, row, number, *vlan == pvid, *vlan == pvid));
                }
                TRUNK => {
                    for (vlan, row) in &mut config.vlans {
                        let was = self.config.vlans.get(vlan).is_some_and(|row| in_list(&row.untagged, number));
                        if *vlan != port.pvid && !was && in_list(&row.untagged, number) {
                            return Err(INCONSISTENT_VALUE);
                        }
                        let member = in_list(&row.egress, number);
                        put(form, row, number, member, member && *vlan == port.pvid);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn put(form: portlist::Form, row: &mut VlanRow, number: u32, egress: bool, untagged: bool) {
    row.egress = portlist::with(form, &row.egress, 1, number, egress).unwrap_or_default();
    row.untagged = portlist::with(form, &row.untagged, 1, number, untagged).unwrap_or_default();
}

/// A save that was seen once to go on is over with the next look.
impl SimSwitch {
    pub(super) fn saving_goes_on(&mut self, looked_at: &Oid) {
        let shows = *looked_at == at(o::FOUNDRY_WRITE_NVRAM, &[0]) || looked_at.0.starts_with(o::HH3C_RESULT_STATE);
        let Some(left) = self.saving.filter(|_| shows) else { return };
        if left > 0 {
            self.saving = Some(left - 1);
            return;
        }
        self.saving = None;
        if !self.faults.copy_fails {
            self.saved = self.config.clone();
        }
        // opSuccess(2), opDeviceFull(12)
        let ended = if self.faults.copy_fails { 12 } else { 2 };
        self.results.iter_mut().filter(|(_, state)| *state == 1).for_each(|(_, state)| *state = ended);
        self.copy_state = Some(ended);
        self.served = None;
    }
}
