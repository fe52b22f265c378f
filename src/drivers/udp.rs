//! Real devices: drivers over the two UDP sockets that all BMCs and all switches share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Driver;
use super::bmc::ipmi::crypto::Suite;
use super::bmc::ipmi::{BmcSocket, IpmiDriver, IpmiSettings};
use super::credentials::Turns;
use super::gate::DeviceSocket;
use super::switch::snmp::{SnmpSocket, Timing, UdpAgent};
use super::switch::{SwitchDriver, SwitchSettings};
use crate::drivers::Devices;
use crate::model::op::Device;
use crate::model::secret::{BmcLogin, SnmpLogin};
use crate::model::switch::VlanPolicy;
use crate::model::{Name, ServerSpec, SwitchSpec};

pub(crate) struct UdpDevices {
    bmcs: Arc<BmcSocket>,
    switches: Arc<SnmpSocket>,
}

impl UdpDevices {
    pub(crate) async fn bind() -> io::Result<UdpDevices> {
        Ok(UdpDevices { bmcs: BmcSocket::bind().await?, switches: SnmpSocket::bind()? })
    }

    /// On sockets that are there already. Must be called within a tokio runtime.
    pub(crate) fn over(bmcs: DeviceSocket, switches: DeviceSocket) -> UdpDevices {
        UdpDevices { bmcs: BmcSocket::over(bmcs, None), switches: SnmpSocket::over(switches, None) }
    }
}

impl Devices for UdpDevices {
    fn bmc(&self, server: &Name, spec: &ServerSpec, login: BmcLogin, spacing: Duration, turns: Arc<Turns>) -> Box<dyn Driver> {
        let suites = spec.bmc.cipher_suites.iter().filter_map(|id| Suite::of_id(*id)).collect();
        let settings = IpmiSettings { privilege: spec.bmc.privilege, spacing, suites, ..IpmiSettings::default() };
        let device = Device::Bmc(server.clone());
        let (name, socket, address) = (device.to_string(), Arc::clone(&self.bmcs), spec.bmc.address.clone());
        Box::new(IpmiDriver::new(name, socket, address, login, settings, Some((device, turns))))
    }

    fn switch(&self, switch: &Name, spec: &SwitchSpec, login: SnmpLogin, turns: Arc<Turns>) -> Box<dyn Driver> {
        let (id, device) = (Device::Switch(switch.clone()), Device::Switch(switch.clone()).to_string());
        let agent = UdpAgent::new(device.clone(), Arc::clone(&self.switches), spec.address.clone(), login, Timing::default());
        let agent = agent.in_turn(id, turns);
        let settings = SwitchSettings {
            profile: spec.profile,
            manage: spec.manage.as_ref().map(|m| m.ports.clone()),
            uplinks: spec.uplinks.clone(),
            protected: spec.protected_vlans.clone(),
            create_vlans: spec.vlans == VlanPolicy::Create,
            read_only: spec.maintenance.is_some() || spec.manage.is_none(),
        };
        Box::new(SwitchDriver::new(device, Box::new(agent), settings))
    }
}
