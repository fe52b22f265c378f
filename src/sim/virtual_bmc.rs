//! The virtual-time endpoint of a simulated BMC: a `Driver` without packets, over a line that delays, loses and delivers late.
//!
//! It tries as the real driver does: reads are asked again within the deadline, a switching-off once, a switching-on as often as it
//! takes. Leaves out: sessions and credentials (`rmcp`). Invariant: an operation without a reply is `Unknown`, never done or failed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::bmc::{Bmc, OPERATOR};
use super::centre::Centre;
use super::line::{Line, NoReply};
use crate::drivers::bmc::ipmi::commands::{self, ChassisControl};
use crate::drivers::bmc::ipmi::preview;
use crate::drivers::gate::Permit;
use crate::drivers::{Depth, Driver, Fault, Notes, Observation};
use crate::model::Name;
use crate::model::fact::{BmcIdentity, BmcSeen, BootDevice, BootOverride, Power, Tick};
use crate::model::identity::Identity;
use crate::model::op::{Device, Off, Op};

/// How long one copy of a read is waited for, and a change that is sent only once (as `drivers::bmc::ipmi::driver`).
const READ_WAIT: Duration = Duration::from_secs(5);
const ONCE_WAIT: Duration = Duration::from_secs(10);

pub struct VirtualBmc {
    centre: Arc<Centre>,
    server: Name,
    line: Line,
    identity: Option<BmcIdentity>,
}

impl VirtualBmc {
    pub fn new(centre: Arc<Centre>, server: Name, line: Line) -> VirtualBmc {
        VirtualBmc { centre, server, line, identity: None }
    }

    fn device(&self) -> String {
        Device::Bmc(self.server.clone()).to_string()
    }

    async fn once<T: Send + 'static>(
        &self,
        wait: Duration,
        until: Instant,
        what: impl FnOnce(&mut Bmc, Tick) -> T + Send + 'static,
    ) -> Result<T, NoReply> {
        let (centre, server) = (Arc::clone(&self.centre), self.server.clone());
        let patience = wait.min(until.saturating_duration_since(Instant::now()));
        self.line.ask(patience, move || centre.with_bmc(&server, what)).await
    }

    /// Asked again until the deadline.
    async fn read<T: Send + 'static>(
        &self,
        until: Instant,
        what: impl FnOnce(&mut Bmc, Tick) -> T + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        let begun = Instant::now();
        let mut attempts = 0;
        while Instant::now() < until {
            attempts += 1;
            if let Ok(said) = self.once(READ_WAIT, until, what.clone()).await {
                return Ok(said);
            }
        }
        Err(Fault::Silent { device: self.device(), attempts, waited: begun.elapsed() })
    }

    async fn command(&self, until: Instant, cmd: u8, data: &'static [u8]) -> Result<Vec<u8>, Fault> {
        let answer = self.read(until, move |bmc, now| bmc.command(OPERATOR, 0, cmd, data, now)).await?;
        self.succeeded("Get Chassis Status", answer)
    }

    fn succeeded(&self, what: &str, answer: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let device = self.device();
        match answer.first().copied() {
            Some(0) => Ok(answer),
            Some(code @ (0xc0 | 0xc3 | 0xd2)) => Err(Fault::Busy { device, code: commands::words(code) }),
            Some(code) => Err(Fault::Refused { device, what: what.to_owned(), code: commands::words(code) }),
            None => Err(Fault::Garbled { device, why: format!("{what}: no data") }),
        }
    }

    async fn control(&self, control: ChassisControl, what: &str, wait: Duration, until: Instant) -> Result<(), Fault> {
        let busy = self.read(until, |bmc, now| bmc.command(OPERATOR, 0, 1, &[], now)).await?;
        self.succeeded(what, busy)?;
        match self.once(wait, until, move |bmc, now| bmc.chassis_control(control, now)).await {
            Ok(code) => self.succeeded(what, vec![code]).map(|_| ()),
            Err(NoReply) => Err(Fault::Unknown { device: self.device(), what: what.to_owned() }),
        }
    }

    async fn boot_flags(&self, until: Instant) -> Result<BootOverride, Fault> {
        let answer = self.command(until, 0x09, &[5, 0, 0]).await?;
        let [_, _, _, flags, device, ..] = answer.as_slice() else {
            return Err(Fault::Garbled { device: self.device(), why: "boot flags are short".to_owned() });
        };
        Ok(commands::flags_of([*flags, *device]))
    }

    async fn set_boot(&self, device: BootDevice, efi: bool, until: Instant) -> Result<(), Fault> {
        let [flags, selector] = commands::flag_bytes(BootOverride { valid: true, persistent: true, efi, device });
        let write = move |bmc: &mut Bmc, now: Tick| {
            bmc.command(OPERATOR, 0, 0x08, &[3, 0x08], now);
            bmc.command(OPERATOR, 0, 0x08, &[5, flags, selector, 0, 0, 0], now)
        };
        match self.once(ONCE_WAIT, until, write).await {
            Ok(answer) => drop(self.succeeded("Set System Boot Options", answer)?),
            Err(NoReply) => return Err(Fault::Unknown { device: self.device(), what: "Set System Boot Options".to_owned() }),
        }
        let seen = self.boot_flags(until).await?;
        if seen.device != device {
            let (expected, found) = (device.to_string(), seen.device.to_string());
            return Err(Fault::Disagrees { device: self.device(), place: "boot flags".to_owned(), expected, found });
        }
        Ok(())
    }

    fn shown(&self) -> Identity {
        Identity {
            guid: self.identity.as_ref().and_then(|i| i.guid.clone()),
            address: Some(self.server.to_string()),
            ..Identity::default()
        }
    }

    async fn identity(&self, until: Instant) -> Result<BmcIdentity, Fault> {
        let of = |bmc: &mut Bmc, _: Tick| {
            let c = &bmc.config;
            BmcIdentity {
                guid: Some(c.guid.iter().map(|b| format!("{b:02x}")).collect()),
                manufacturer_id: c.manufacturer_id,
                product_id: c.product_id,
                firmware: format!("{}.{:02}", c.firmware.0, c.firmware.1),
                ipmi_version: "2.0".to_owned(),
            }
        };
        self.read(until, of).await
    }
}

#[async_trait]
impl Driver for VirtualBmc {
    async fn observe(&mut self, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
        let asked_at = self.centre.now();
        let answer = self.command(deadline, 0x01, &[]).await?;
        let power = if answer.get(1).is_some_and(|state| state & 1 == 1) { Power::On } else { Power::Off };
        let power = self.centre.reported_power(&self.server, power);
        if depth == Depth::Everything || self.identity.is_none() {
            self.identity = Some(self.identity(deadline).await?);
        }
        let boot = Some(self.boot_flags(deadline).await?);
        self.centre.observed(&self.server, asked_at, power);
        Ok(Observation::Bmc(BmcSeen { shown: self.shown(), identity: self.identity.clone().unwrap_or_default(), power, boot, suite: 17 }))
    }

    async fn execute(&mut self, op: &Op, _permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        {
            self.centre.sending(&self.server, op).await;
            match op {
                Op::SetBoot { device, efi, .. } => self.set_boot(*device, *efi, deadline).await?,
                Op::PowerOn { .. } => self.control(ChassisControl::PowerUp, "power up", READ_WAIT, deadline).await?,
                Op::PowerOff { how: Off::Soft, .. } => {
                    self.control(ChassisControl::SoftShutdown, "soft shutdown", ONCE_WAIT, deadline).await?
                }
                Op::PowerOff { how: Off::Hard, .. } => self.control(ChassisControl::PowerDown, "power down", ONCE_WAIT, deadline).await?,
                Op::CreateVlan { .. } | Op::SetPort { .. } | Op::Save { .. } => {
                    return Err(Fault::Unsupported { device: self.device(), what: op.to_string(), why: "it is a BMC".to_owned() });
                }
            }
        }
        Ok(Notes::new())
    }

    fn preview(&self, ops: &[Op]) -> Vec<Vec<String>> {
        preview(ops, self.identity.as_ref())
    }

    async fn close(&mut self) {}
}
