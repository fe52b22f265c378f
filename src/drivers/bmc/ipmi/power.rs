//! Chassis Control, and what comes before any change: an open gate, a session with the BMC that is meant, its privilege, its power.
//!
//! The power is asked for directly before each copy of a command, in the session that the command is sent in, and nothing stands between the
//! two: the answer opens the gate for as long as `Freshness` says. A switching-off is sent once; a switching-on up to three times, each as a
//! request of its own. Before the first copy a session that turns out to be gone is opened anew, and who answers is looked at anew; after it,
//! never: the outcome is unknown then. Leaves out what the plan makes of the answer. Shown by `tests/ipmi.rs`.

use std::time::Duration;

use ipmi_rs::connection::{CompletionErrorCode, Message};
use tokio::time::Instant;

use super::commands::{self, ChassisControl, GetChassisStatus, SetSessionPrivilege};
use super::driver::IpmiDriver;
use super::open::Raised;
use super::request::{COPIES, INSUFFICIENT_PRIVILEGE, Right, Tries, Trouble, UNCERTAIN, WAIT_MAX};
use super::session::{Reply, level};
use crate::drivers::gate::{Freshness, Permit};
use crate::drivers::{Fault, Notes};
use crate::model::fact::Power;
use crate::model::identity::Sameness;
use crate::model::server::Privilege;

/// How long the answer to a command is waited for that is sent only once.
const ONCE: Duration = Duration::from_secs(10);
/// A switching-on may be sent twice without harm; three copies get through where half of all are lost.
const ON_COPIES: u32 = 3;
const STATUS: &str = "Get Chassis Status";

/// The power as the BMC tells it in the session of the change, and for how long that holds.
pub(super) struct Before {
    pub power: Power,
    pub fresh: Freshness,
}

/// Nothing of the operation has left so far: a fault that sounds as if it had is one of the questions before it.
fn not_begun(what: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Refused { ref device, .. }
        | Fault::Forbidden { ref device, .. }
        | Fault::Garbled { ref device, .. }
        | Fault::Unsupported { ref device, .. }
        | Fault::Disagrees { ref device, .. }
        | Fault::Unknown { ref device, .. } => Fault::NotSent { device: device.clone(), what: what.to_owned(), why: fault.to_string() },
        Fault::Silent { .. }
        | Fault::NotSent { .. }
        | Fault::OtherDevice { .. }
        | Fault::Busy { .. }
        | Fault::Denied { .. }
        | Fault::Endless { .. }
        | Fault::Network { .. } => fault,
    }
}

impl IpmiDriver {
    pub(super) async fn control(&mut self, control: ChassisControl, permit: &Permit, deadline: Instant) -> Result<Notes, Fault> {
        let what = control.name();
        let (wanted, copies, wait) = match control {
            ChassisControl::PowerUp => (Power::On, ON_COPIES, self.patience.first_wait((self.settings.retry_after * 4).min(WAIT_MAX))),
            ChassisControl::PowerDown | ChassisControl::SoftShutdown => (Power::Off, 1, ONCE),
        };
        let message: Message = control.into();
        for copy in 1..=copies {
            let before = match copy {
                1 => self.before_change(what, permit, deadline).await?,
                _ => self.before_another(what, permit, deadline).await?,
            };
            if before.power == wanted && wanted == Power::Off {
                // Whoever takes it for accepted would later send a hard one after it.
                return Err(self.not_sent(what, "it is Off already"));
            }
            if before.power == wanted {
                let sent = if copy == 1 { "was not sent" } else { "was not answered, and not sent again" };
                return Ok(vec![format!("{what} {sent}: it is {wanted}")]);
            }
            let right = Right { permit, fresh: Some(before.fresh) };
            match self.round_trip(&message, Tries { copies: 1, wait }, Some(right), deadline).await {
                Ok(replied) => return self.verdict(what, &replied.reply, copy > 1).map(|()| Notes::new()),
                Err(Trouble::Silent { .. } | Trouble::Stopped(_)) => {}
                Err(trouble) if copy == 1 => return Err(self.unanswered(trouble, what)),
                Err(Trouble::Closed(closed)) => return Err(self.unanswered(Trouble::Stopped(closed), what)),
                Err(Trouble::NotSent | Trouble::Network(_)) => return Err(self.unknown(what)),
            }
        }
        // Whoever does not answer may have lost the session.
        self.link = None;
        Err(self.unknown(what))
    }

    /// What the reply to a command says. After a copy that was not answered only a yes is sure.
    fn verdict(&self, what: &str, reply: &Reply, earlier: bool) -> Result<(), Fault> {
        match CompletionErrorCode::try_from(reply.code) {
            Err(()) => Ok(()),
            Ok(_) if UNCERTAIN.contains(&reply.code) => Err(self.unknown(&format!("{what} but: {}", commands::words(reply.code)))),
            Ok(_) if earlier => {
                Err(self.unknown(&format!("the first copy of {what}, and a further one was refused: {}", commands::words(reply.code))))
            }
            Ok(code) if commands::busy(code) => Err(self.busy(what, reply.code)),
            Ok(_) => Err(self.refused_change(what, reply.code)),
        }
    }

    /// The code, and beside "insufficient privilege" why there was no more of it, and what may help.
    pub(super) fn refused_change(&self, what: &str, code: u8) -> Fault {
        let mut fault = self.refused(what, code);
        if let Fault::Forbidden { code, .. } = &mut fault {
            if let Some(Raised::Refused(raise)) = self.link.as_ref().map(|l| l.raised) {
                code.push_str(&format!("; Set Session Privilege: {}", commands::privilege_words(raise)));
            }
            code.push_str(match self.settings.privilege {
                Privilege::Administrator => {
                    "; give the user more, or, where it is an operator, say `bmc.privilege: operator` in its Server"
                }
                Privilege::Operator => "; give the user more, and then say `bmc.privilege: administrator` in its Server",
            });
        }
        fault
    }

    // ---- before the deed ------------------------------------------------------------------------------------------------

    /// Before the first datagram that changes something: where the session is gone, once more in a new one.
    pub(super) async fn before_change(&mut self, what: &str, permit: &Permit, deadline: Instant) -> Result<Before, Fault> {
        // No handshake for what would not be sent.
        permit.check().map_err(|closed| self.not_sent(what, &closed.to_string()))?;
        let fresh = self.ensure_open(deadline).await.map_err(|fault| not_begun(what, fault))?;
        let mut before = self.ready(what, permit, deadline).await;
        if matches!(before, Err(Fault::Silent { .. })) && !fresh && Instant::now() < deadline {
            self.link = None;
            permit.check().map_err(|closed| self.not_sent(what, &closed.to_string()))?;
            self.ensure_open(deadline).await.map_err(|fault| not_begun(what, fault))?;
            before = self.ready(what, permit, deadline).await;
        }
        if matches!(before, Err(Fault::Silent { .. })) {
            self.link = None;
        }
        before.map_err(|fault| not_begun(what, fault))
    }

    /// In the session that is open, and in no other one.
    async fn ready(&mut self, what: &str, permit: &Permit, deadline: Instant) -> Result<Before, Fault> {
        match permit.pinned.compare(&self.shown()) {
            Sameness::Same => {}
            Sameness::Different { pinned, shown } => {
                return Err(Fault::OtherDevice { device: self.device.clone(), expected: pinned, found: shown });
            }
            Sameness::NotTold if permit.pinned.is_empty() => {
                return Err(self.not_sent(what, "it is not known yet who is meant: nothing is pinned"));
            }
            Sameness::NotTold => return Err(self.not_sent(what, &format!("it does not tell who it is, and {} is meant", permit.pinned))),
        }
        self.raise_here(permit, deadline).await?;
        self.power_here(permit, deadline).await
    }

    /// Before another copy, when one has left: whatever is in the way now, the outcome of that one is not known.
    async fn before_another(&mut self, what: &str, permit: &Permit, deadline: Instant) -> Result<Before, Fault> {
        if let Err(closed) = permit.check() {
            return Err(self.unanswered(Trouble::Stopped(closed), what));
        }
        match self.power_here(permit, deadline).await {
            Ok(before) => Ok(before),
            Err(fault) => {
                if matches!(fault, Fault::Silent { .. }) {
                    self.link = None;
                }
                Err(self.unknown(what))
            }
        }
    }

    /// Set Session Privilege, once in a session: it begins at USER (IPMI 2.0, 22.18). Where that is refused, the session goes on as it is.
    async fn raise_here(&mut self, permit: &Permit, deadline: Instant) -> Result<(), Fault> {
        if self.link.as_ref().is_some_and(|l| l.raised == Raised::Yes) {
            return Ok(());
        }
        let message = SetSessionPrivilege(level(self.settings.privilege)).into();
        let what = "Set Session Privilege";
        let tries = self.tries();
        let replied = self.round_trip(&message, tries, Some(Right { permit, fresh: None }), deadline).await;
        let replied = replied.map_err(|trouble| self.unanswered(trouble, what))?;
        self.raised(replied.reply.code, what)
    }

    /// What became of it, for the session that is open.
    pub(super) fn raised(&mut self, code: u8, what: &str) -> Result<(), Fault> {
        let raised = match CompletionErrorCode::try_from(code) {
            Err(()) => Raised::Yes,
            Ok(busy) if commands::busy(busy) => return Err(self.busy(what, code)),
            Ok(_) => Raised::Refused(code),
        };
        if let Some(link) = &mut self.link {
            link.raised = raised;
        }
        Ok(())
    }

    /// Get Chassis Status in the session that is open. Each copy is a question of its own, so that the answer is known to be to this one.
    async fn power_here(&mut self, permit: &Permit, deadline: Instant) -> Result<Before, Fault> {
        let message = GetChassisStatus.into();
        let first = self.patience.first_wait(self.settings.retry_after);
        let (begun, mut wait) = (Instant::now(), first);
        for _ in 0..COPIES {
            let right = Right { permit, fresh: None };
            match self.round_trip(&message, Tries { copies: 1, wait }, Some(right), deadline).await {
                Ok(replied) => {
                    let power = self.understand::<GetChassisStatus>(&replied.reply, STATUS)?.map_err(|code| self.refused(STATUS, code))?;
                    // The pause before the command is part of the way.
                    let round_trip = replied.took.max(self.settings.spacing);
                    return Ok(Before { power, fresh: Freshness::within(replied.asked_at, round_trip) });
                }
                Err(Trouble::Silent { .. }) => wait = (wait * 2).min(WAIT_MAX.max(first)),
                Err(trouble) => return Err(self.unanswered(trouble, STATUS)),
            }
        }
        Err(Fault::Silent { device: self.device.clone(), attempts: COPIES, waited: begun.elapsed() })
    }

    /// The power, for an observation.
    pub(super) async fn read_power(&mut self, deadline: Instant) -> Result<Power, Fault> {
        let fresh = self.link.is_none();
        let mut answer = self.read(GetChassisStatus, STATUS, deadline).await?;
        if answer == Err(INSUFFICIENT_PRIVILEGE) && !fresh {
            // Any user may ask for it: the session is not what it was.
            self.link = None;
            answer = self.read(GetChassisStatus, STATUS, deadline).await?;
        }
        answer.map_err(|code| self.refused(STATUS, code))
    }
}
