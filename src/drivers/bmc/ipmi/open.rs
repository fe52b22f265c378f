//! Opening a session: the address is looked up, the cipher suites are proposed in their order, and once 17 worked no other one ever.
//!
//! A suite that is refused, or twice not answered, is followed by the next. A handshake that gets no answer starts again as a whole, with a new
//! id and a longer wait, until the deadline; an answer to an earlier one still counts, so that a slow BMC gets on. One that is refused is
//! over, and the next one is the worker's to pace; only one that broke off, or did not verify, is tried once more. The user name is shown after
//! the Open Session Response, so that only a BMC that answers holds a turn to try it. Whatever session the BMC may hold is told goodbye when its
//! `Link` is dropped, answered or not: a BMC has a handful of sessions, and a leaked one locks people out.
//! Shown by `tests/ipmi.rs` and `tests/ipmi/slow.rs`.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::crypto::Suite;
use super::driver::{IDLE_MAX, IpmiDriver};
use super::pace::Pace;
use super::session::{Credentials, Heard, Refusal, Session};
use super::socket::Lease;
use super::wire::Status;
use crate::drivers::Fault;
use crate::drivers::credentials::Turn;
use crate::model::server::Bmc;

/// The longest wait for an answer of the handshake, as a multiple of the first: a handshake has three answers, and each loss begins it anew.
const WAIT_GROWS: u32 = 4;
/// Handshakes that break off with a right password, or do not verify, before it is no accident any more: one flipped bit is none of the password.
const BROKEN_MAX: u32 = 2;
/// Open Session Requests that stay unanswered at each address before the next cipher suite is proposed: some boards answer none that they do not have.
const UNANSWERED_MAX: usize = 2;
/// Earlier handshakes whose answer may still come.
const EARLIER_MAX: usize = 4;
/// The longest wait for a turn to try credentials: a BMC forgets a handshake that does not go on, and another poll comes.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// An open session, and the right to its id.
pub(super) struct Link {
    pub lease: Arc<Lease>,
    pub session: Session,
    pub pace: Pace,
    pub raised: Raised,
    pub heard_at: Instant,
    /// The BMC knows that it is over.
    pub closed: bool,
}

/// What became of Set Session Privilege in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raised {
    NotAsked,
    Yes,
    /// It goes on at the privilege it began with.
    Refused(u8),
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.closed
            && let Some(datagram) = self.session.farewell(rand::random())
        {
            let lease = Arc::clone(&self.lease);
            self.pace.last_word(move || lease.ask_now(&datagram));
        }
    }
}

enum Failed {
    /// `opening`: not even the Open Session Request was answered.
    Silent {
        opening: bool,
    },
    /// The next datagram would not leave before the deadline.
    NoTime,
    Refused(Refusal),
    Network(std::io::Error),
    /// Not the BMC's doing.
    Fault(Fault),
}

/// One handshake under way.
struct Attempt {
    link: Link,
    /// When its last question left.
    asked_at: Instant,
}

/// The next datagram for any of them, and for which.
async fn next_for(attempts: &[Attempt]) -> (usize, Vec<u8>) {
    let mut all: Vec<_> = attempts.iter().map(|attempt| Box::pin(attempt.link.lease.receive())).collect();
    poll_fn(|context| {
        for (n, one) in all.iter_mut().enumerate() {
            if let Poll::Ready(datagram) = one.as_mut().poll(context) {
                return Poll::Ready((n, datagram));
            }
        }
        Poll::Pending
    })
    .await
}

impl IpmiDriver {
    /// Whether a session had to be opened.
    pub(super) async fn ensure_open(&mut self, deadline: Instant) -> Result<bool, Fault> {
        if self.link.as_ref().is_some_and(|l| l.heard_at.elapsed() < IDLE_MAX) {
            return Ok(false);
        }
        self.link = None;
        let link = self.open(deadline).await?;
        let guid = Some(link.session.guid());
        if self.guid != guid {
            // Another BMC, or the first: what was known belongs to the one before.
            self.guid = guid;
            self.identity = None;
            self.boot = Default::default();
        }
        self.link = Some(link);
        Ok(true)
    }

    async fn open(&mut self, deadline: Instant) -> Result<Link, Fault> {
        let credentials = self.credentials.clone().map_err(|bad| self.denied(bad.to_string()))?;
        let peers = self.resolve(deadline).await?;
        let (begun, mut suite) = (Instant::now(), self.suites().first().copied().unwrap_or(Suite::Seventeen));
        let (mut attempts, mut broken, mut unanswered, mut for_silence) = (0, 0, 0, false);
        let first = suite;
        let mut wait = self.patience.first_wait(self.settings.retry_after);
        let longest = wait.max(self.settings.retry_after * WAIT_GROWS);
        // Those before, and the one that is under way last.
        let mut under_way = Vec::new();
        for peer in peers.iter().cycle() {
            if Instant::now() >= deadline {
                break;
            }
            attempts += 1;
            let sure = broken + 1 >= BROKEN_MAX;
            let mut outcome = self.handshake(&credentials, suite, *peer, wait, deadline, sure, &mut under_way).await;
            // The same address again where only the suite changes.
            while let (Err(Failed::Refused(Refusal::Suite(_) | Refusal::OtherSuite)), Some(next)) = (&outcome, self.suite_after(suite)) {
                (suite, for_silence) = (next, false);
                under_way.clear();
                outcome = self.handshake(&credentials, suite, *peer, wait, deadline, sure, &mut under_way).await;
            }
            match outcome {
                Ok(link) => {
                    self.seventeen_worked |= link.session.suite() == Suite::Seventeen;
                    return Ok(link);
                }
                // Trying again would be no wait, but a loop until then.
                Err(Failed::NoTime) => break,
                Err(Failed::Silent { opening }) => {
                    wait = (wait * 2).min(longest);
                    unanswered += usize::from(opening);
                    if unanswered >= UNANSWERED_MAX * peers.len() {
                        // Once; then from the first again.
                        (suite, unanswered) = self.suite_after(suite).map_or((first, 0), |next| (next, (UNANSWERED_MAX - 1) * peers.len()));
                        for_silence = suite != first;
                    }
                }
                // The one before was only not heard.
                Err(Failed::Refused(Refusal::Suite(_) | Refusal::OtherSuite)) if for_silence => {
                    (suite, unanswered, for_silence) = (first, 0, false);
                }
                Err(Failed::Network(source)) => return Err(Fault::Network { device: self.device.clone(), source }),
                Err(Failed::Fault(fault)) => return Err(fault),
                Err(Failed::Refused(Refusal::Broken(_) | Refusal::Password)) if !sure => {
                    broken += 1;
                    under_way.clear();
                }
                Err(Failed::Refused(refusal)) => return Err(self.not_opened(refusal)),
            }
        }
        Err(Fault::Silent { device: self.device.clone(), attempts, waited: begun.elapsed() })
    }

    /// What may be proposed.
    fn suites(&self) -> &[Suite] {
        if self.seventeen_worked { &[Suite::Seventeen] } else { &self.settings.suites }
    }

    fn suite_after(&self, suite: Suite) -> Option<Suite> {
        self.suites().iter().copied().skip_while(|s| *s != suite).nth(1)
    }

    fn not_opened(&self, refusal: Refusal) -> Fault {
        let device = self.device.clone();
        let refused =
            |what: &str, status: Status| Fault::Refused { device: device.clone(), what: what.to_owned(), code: status.to_string() };
        match refusal {
            Refusal::Busy(status) => Fault::Busy { device, code: status.to_string() },
            Refusal::User(_) | Refusal::Privilege(_) | Refusal::Password | Refusal::Key => self.denied(refusal.to_string()),
            Refusal::Broken(status @ Status::INVALID_CHECK) => {
                self.tried(false);
                self.denied(format!("it knows the password, but refuses our proof of it: {status}"))
            }
            Refusal::Suite(status) if self.seventeen_worked => refused("cipher suite 17, which worked before", status),
            Refusal::Suite(status @ Status::ILLEGAL_PARAMETER) | Refusal::Other(status) => refused("to open a session", status),
            Refusal::Suite(status) => {
                let tried: Vec<String> = self.suites().iter().map(|suite| suite.id().to_string()).collect();
                let why = format!("it has none of the cipher suites {}, and weaker ones are not used: {status}", tried.join(", "));
                Fault::Unsupported { device, what: "open a session".to_owned(), why }
            }
            Refusal::Broken(_) | Refusal::OtherSuite | Refusal::Odd(_) => Fault::Garbled { device, why: refusal.to_string() },
        }
    }

    async fn resolve(&self, deadline: Instant) -> Result<Vec<SocketAddr>, Fault> {
        let (host, port) = self.address.with_port(Bmc::PORT);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let network = |source| Fault::Network { device: self.device.clone(), source };
        let found = timeout_at(deadline, tokio::net::lookup_host((host.as_str(), port)))
            .await
            .map_err(|_| network(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("looking up `{host}` takes too long"))))?
            .map_err(network)?;
        let peers: Vec<SocketAddr> = found.collect();
        if peers.is_empty() {
            return Err(network(std::io::Error::new(std::io::ErrorKind::NotFound, format!("`{host}` has no address"))));
        }
        Ok(peers)
    }

    /// One more handshake, and the first question of it; goes on with whichever of those under way is answered. `sure`: what does not verify now is no
    /// accident.
    #[expect(clippy::too_many_arguments, reason = "one call, and each of them is another thing")]
    async fn handshake(
        &mut self,
        credentials: &Credentials,
        suite: Suite,
        peer: SocketAddr,
        mut wait: Duration,
        deadline: Instant,
        sure: bool,
        under_way: &mut Vec<Attempt>,
    ) -> Result<Link, Failed> {
        let lease = Arc::new(self.socket.lease(peer).map_err(Failed::Network)?);
        let mut session = Session::new(credentials.clone(), suite, lease.console(), rand::random());
        let (mut say, mut turn, mut opening) = (Some(session.begin()), None, true);
        // From here on a dropped link says goodbye to what the BMC may have opened.
        let pace = self.pace.clone();
        let link = Link { lease, session, pace, raised: Raised::NotAsked, heard_at: Instant::now(), closed: false };
        if under_way.len() > EARLIER_MAX {
            under_way.remove(0);
        }
        under_way.push(Attempt { link, asked_at: Instant::now() });
        let mut until = Instant::now();
        loop {
            if let (Some(datagram), Some(attempt)) = (say.take(), under_way.last_mut()) {
                if !self.pace.wait(deadline).await {
                    return Err(Failed::NoTime);
                }
                attempt.asked_at = Instant::now();
                until = (attempt.asked_at + wait).min(deadline);
                let sent = attempt.link.lease.ask(&datagram).await;
                self.pace.left();
                sent.map_err(Failed::Network)?;
            }
            let Ok((n, datagram)) = timeout_at(until, next_for(under_way)).await else {
                if !opening {
                    // It has begun this one: a late answer would be to what is over.
                    under_way.clear();
                }
                return Err(Failed::Silent { opening });
            };
            let Some(attempt) = under_way.get_mut(n) else { continue };
            let heard = attempt.link.session.handle(&datagram);
            if matches!(heard, Heard::Send(_) | Heard::Open) {
                self.patience.answered(attempt.asked_at.elapsed(), 1, wait);
                wait = self.patience.first_wait(wait);
                // The others are over.
                under_way.swap(0, n);
                under_way.truncate(1);
            }
            match heard {
                Heard::Send(next) => {
                    opening = false;
                    if turn.is_none() {
                        turn = self.turn(deadline).await?;
                    }
                    say = Some(next);
                }
                Heard::Open => {
                    // Before the turn ends, so that the next one knows.
                    self.tried(true);
                    let Some(Attempt { mut link, .. }) = under_way.pop() else { continue };
                    link.heard_at = Instant::now();
                    return Ok(link);
                }
                // Of one before the suite was changed.
                Heard::Refused(Refusal::Suite(_) | Refusal::OtherSuite) if n + 1 < under_way.len() => drop(under_way.remove(n)),
                Heard::Refused(refusal) => {
                    let denied = matches!(refusal, Refusal::User(_) | Refusal::Privilege(_) | Refusal::Key);
                    if denied || (sure && matches!(refusal, Refusal::Password)) {
                        self.tried(false);
                    }
                    under_way.remove(n);
                    return Err(Failed::Refused(refusal));
                }
                Heard::Nothing | Heard::Reply(_) => {}
            }
        }
    }

    /// The right to show the user name, and a proof of the password, to a BMC that answers: to be held until it said what it thinks of them.
    async fn turn(&self, deadline: Instant) -> Result<Option<Turn>, Failed> {
        let Some((device, turns)) = &self.turns else { return Ok(None) };
        match timeout_at((Instant::now() + TURN_WAIT).min(deadline), turns.pass(device)).await {
            Ok(turn) => turn.map(Some).map_err(Failed::Fault),
            Err(_) => {
                let why = "others of the same Secret try it first, and it waits for its turn".to_owned();
                Err(Failed::Fault(Fault::NotSent { device: self.device.clone(), what: "the user name".to_owned(), why }))
            }
        }
    }

    fn tried(&self, worked: bool) {
        match &self.turns {
            Some((device, turns)) if worked => turns.worked(device),
            Some((device, turns)) => turns.refused(device),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::drivers::bmc::ipmi::{BmcSocket, IpmiSettings};
    use crate::drivers::gate::{Datagram, DeviceSocket, Freshness, Network, Permit};
    use crate::drivers::{Depth, Driver};
    use crate::model::secret::{BmcLogin, Hidden};

    struct Nobody;

    #[async_trait]
    impl Network for Nobody {
        fn try_send(&self, _: &Datagram, _: SocketAddr, _: Option<(&Permit, Option<Freshness>)>) -> std::io::Result<()> {
            Ok(())
        }
        async fn writable(&self) {}
        async fn receive(&self) -> (Vec<u8>, SocketAddr) {
            std::future::pending().await
        }
    }

    /// Time stands still while nobody waits: a loop until the deadline would never end.
    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_has_no_place_before_the_deadline_is_not_tried_again() {
        let socket = BmcSocket::over(DeviceSocket::over(Arc::new(Nobody)), None);
        let login = BmcLogin { username: "u".into(), password: Hidden::new("p".into()), kg: None };
        let settings = IpmiSettings { spacing: Duration::from_secs(10), ..IpmiSettings::default() };
        let mut driver = IpmiDriver::new("bmc/b".into(), socket, "192.0.2.1".parse().unwrap(), login, settings, None);
        let looked = driver.observe(Depth::State, Instant::now() + Duration::from_secs(15)).await;
        assert!(matches!(looked, Err(Fault::Silent { .. })), "{looked:?}");
    }
}
