//! One request in the session that is open: its copies, its reply, and what it is called when there is none.
//!
//! A read is repeated and, where the session is gone, asked once more in a new one; here no change is ever sent in another session than the
//! one that it was begun in. Every copy of a change passes the gate by itself. Leaves out which requests make an operation (`power`,
//! `boot`). Invariant: a fault of before the first copy says that nothing was sent, one of after it that nobody knows.
//! Shown by `tests/ipmi.rs`.

use std::time::Duration;

use ipmi_rs::connection::{CompletionErrorCode, IpmiCommand, Message};
use tokio::time::{Instant, timeout_at};

use super::commands;
use super::driver::IpmiDriver;
use super::open::Link;
use super::session::{Heard, Reply};
use crate::drivers::Fault;
use crate::drivers::gate::{Closed, Datagram, Freshness, Permit, Unsent};

/// The longest wait for one copy of a request: BMCs answer within a second, or are busy with themselves.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(4);
/// Copies of a request before the session counts as gone: with the default wait 7.5 s.
pub(super) const COPIES: u32 = 4;
/// Shorter than a look may take: in a session that is lost nothing was heard for longer when one has ended.
const HEARD_LATELY: Duration = Duration::from_secs(15);
/// Insufficient privilege (IPMI 2.0, table 5-2).
pub(super) const INSUFFICIENT_PRIVILEGE: u8 = 0xd4;
/// Timeout while processing; response could not be provided (IPMI 2.0, table 5-2): the command may have been carried out.
pub(super) const UNCERTAIN: [u8; 2] = [0xc3, 0xce];

/// A completion code that is neither success nor "busy".
pub(super) type Answer<T> = Result<T, u8>;

/// How often a request is sent, and how long the first copy is waited for; the wait doubles with each further one, up to `WAIT_MAX` or that.
#[derive(Clone, Copy)]
pub(super) struct Tries {
    pub copies: u32,
    pub wait: Duration,
}

/// By what right, for a change. Questions need none, but tell the gate's time of their sending.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub permit: &'a Permit,
    pub fresh: Option<Freshness>,
}

/// A reply, and the last copy of its question.
pub(super) struct Replied {
    pub reply: Reply,
    /// By the gate's clock, where there is a permit.
    pub asked_at: Duration,
    pub took: Duration,
}

/// Why a request has no reply.
pub(super) enum Trouble {
    /// Its time was over before it was sent, or there is no session.
    NotSent,
    /// The gate was closed before the first copy.
    Closed(Closed),
    /// The gate was closed after a copy had gone out.
    Stopped(Closed),
    Silent {
        attempts: u32,
        waited: Duration,
    },
    Network(std::io::Error),
}

impl IpmiDriver {
    /// Asks; where the session turns out to be gone, once more in a new one.
    pub(super) async fn read<C>(&mut self, command: C, what: &str, deadline: Instant) -> Result<Answer<C::Output>, Fault>
    where
        C: IpmiCommand,
    {
        let message: Message = command.into();
        let fresh = self.ensure_open(deadline).await?;
        let mut outcome = self.round_trip(&message, self.tries(), None, deadline).await;
        if matches!(outcome, Err(Trouble::Silent { .. })) && !fresh && Instant::now() < deadline {
            self.link = None;
            self.ensure_open(deadline).await?;
            outcome = self.round_trip(&message, self.tries(), None, deadline).await;
        }
        match outcome {
            Ok(replied) => self.understand::<C>(&replied.reply, what),
            Err(trouble) => {
                // A session in which a slow BMC was heard a moment ago is not lost because the time was over: the next look goes on with it.
                let cut_short =
                    matches!(trouble, Trouble::NotSent) || matches!(trouble, Trouble::Silent { attempts, .. } if attempts < COPIES);
                self.link.take_if(|link| !cut_short || link.heard_at.elapsed() >= HEARD_LATELY);
                Err(self.unanswered(trouble, what))
            }
        }
    }

    pub(super) fn tries(&self) -> Tries {
        Tries { copies: COPIES, wait: self.patience.first_wait(self.settings.retry_after) }
    }

    pub(super) fn understand<C>(&self, reply: &Reply, what: &str) -> Result<Answer<C::Output>, Fault>
    where
        C: IpmiCommand,
    {
        match CompletionErrorCode::try_from(reply.code) {
            // The crate's way to say success.
            Err(()) => match C::parse_success_response(&reply.data) {
                Ok(output) => Ok(Ok(output)),
                Err(_) => Err(Fault::Garbled { device: self.device.clone(), why: format!("{what}: {} bytes of data", reply.data.len()) }),
            },
            Ok(code) if commands::busy(code) => Err(self.busy(what, reply.code)),
            Ok(_) => Ok(Err(reply.code)),
        }
    }

    /// Sends a request in the open session and waits for its reply.
    pub(super) async fn round_trip(
        &mut self,
        message: &Message,
        tries: Tries,
        right: Option<Right<'_>>,
        deadline: Instant,
    ) -> Result<Replied, Trouble> {
        let Some(link) = &mut self.link else { return Err(Trouble::NotSent) };
        let (begun, mut wait, mut attempts) = (Instant::now(), tries.wait, 0);
        let mut packet = link.session.request(message.netfn_raw(), message.cmd(), message.data(), rand::random());
        loop {
            let (Some(datagram), true) = (packet, link.pace.wait(deadline).await) else {
                return Err(if attempts == 0 { Trouble::NotSent } else { Trouble::Silent { attempts, waited: begun.elapsed() } });
            };
            let asked_at = right.map_or(Duration::ZERO, |right| right.permit.now());
            let sent = link.send(&datagram, right).await;
            let sent_at = Instant::now();
            link.pace.left();
            match sent {
                Ok(()) => {}
                Err(Unsent::Closed(closed)) if attempts == 0 => return Err(Trouble::Closed(closed)),
                Err(Unsent::Closed(closed)) => return Err(Trouble::Stopped(closed)),
                Err(Unsent::Network(error)) if attempts == 0 => return Err(Trouble::Network(error)),
                // As lost as one that the network swallows.
                Err(Unsent::Network(_)) => {}
            }
            attempts += 1;
            if let Some(reply) = link.reply_until((sent_at + wait).min(deadline)).await {
                self.patience.answered(sent_at.elapsed(), attempts, wait);
                return Ok(Replied { reply, asked_at, took: sent_at.elapsed() });
            }
            if attempts >= tries.copies {
                return Err(Trouble::Silent { attempts, waited: begun.elapsed() });
            }
            wait = (wait * 2).min(WAIT_MAX.max(tries.wait));
            packet = link.session.again(rand::random());
        }
    }

    // ---- faults ---------------------------------------------------------------------------------------------------------

    /// Of a request that changes nothing, or of a change before its first copy: `Silent` is then the question's.
    pub(super) fn unanswered(&self, trouble: Trouble, what: &str) -> Fault {
        let device = self.device.clone();
        match trouble {
            Trouble::NotSent => self.not_sent(what, "its time was over before it could be sent"),
            Trouble::Closed(closed) => self.not_sent(what, &closed.to_string()),
            Trouble::Silent { attempts, waited } => Fault::Silent { device, attempts, waited },
            Trouble::Network(source) => Fault::Network { device, source },
            Trouble::Stopped(closed) => Fault::Unknown { device, what: format!("{what}, which was not sent again ({closed})") },
        }
    }

    pub(super) fn unknown(&self, what: &str) -> Fault {
        Fault::Unknown { device: self.device.clone(), what: what.to_owned() }
    }

    pub(super) fn not_sent(&self, what: &str, why: &str) -> Fault {
        Fault::NotSent { device: self.device.clone(), what: what.to_owned(), why: why.to_owned() }
    }

    pub(super) fn busy(&self, what: &str, code: u8) -> Fault {
        Fault::Busy { device: self.device.clone(), code: format!("{what}: {}", commands::words(code)) }
    }

    pub(super) fn denied(&self, why: String) -> Fault {
        Fault::Denied { device: self.device.clone(), why }
    }

    /// What a code means that is neither success nor busy: of one request, not of the credentials.
    pub(super) fn refused(&self, what: &str, code: u8) -> Fault {
        let (device, what, words) = (self.device.clone(), what.to_owned(), commands::words(code));
        match code {
            INSUFFICIENT_PRIVILEGE => Fault::Forbidden { device, what, code: words },
            _ => Fault::Refused { device, what, code: words },
        }
    }
}

impl Link {
    /// One copy. What changes something leaves by its right alone; a question without one.
    async fn send(&self, datagram: &Datagram, right: Option<Right<'_>>) -> Result<(), Unsent> {
        match (datagram, right) {
            (Datagram::Changes(_), Some(right)) => self.lease.change(datagram, right.permit, right.fresh).await,
            // It refuses a change.
            (Datagram::Changes(_), None) | (Datagram::Asks(_), _) => Ok(self.lease.ask(datagram).await?),
        }
    }

    /// The reply to the request in flight, if it comes in time.
    async fn reply_until(&mut self, until: Instant) -> Option<Reply> {
        while let Ok(datagram) = timeout_at(until, self.lease.receive()).await {
            match self.session.handle(&datagram) {
                Heard::Reply(reply) => {
                    self.heard_at = Instant::now();
                    return Some(reply);
                }
                Heard::Nothing | Heard::Send(_) | Heard::Open | Heard::Refused(_) => {}
            }
        }
        None
    }
}
